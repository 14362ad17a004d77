
=pod

=head1 NAME

Conformance - a server on which one job is worked in all the ways there are

=head1 DESCRIPTION

A kind of worker is a database of its own, in which the task "deliver" and its
variants are worked in one way: by CALL work() or by background workers, with a
handler that is a procedure or a function, or by an application over SQL, directly
or through PgBouncer in transaction mode.  All do the same job: the steps charge and ship, each with a row and a call to the
outside, and a row of their own before they complete the run.

What differs between the kinds is said here, in %kinds, and nowhere else.

=cut

package Conformance;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

our @EXPORT = qw(
  new_conformance_server
  query trigger start_worker has_ended work_until
  hold_claims release_claims wait_at_claims
  wait_at_place
  facts
);

# What is to be said of each kind:
#
# work		SQL that works what is due in a session; none: the server does it itself
# handler	of its tasks; none: an application
# commits	it commits after each step; a function has only one transaction
# output	of a completed run; a procedure gives none
# lease		of its tasks; an application that died is taken over when that is over,
#			the others at once
# done, lost	what a session prints when it has worked what was due, or its attempt
#			has lost the run: work() goes on with the next one, an application sees
#			the error.  The t says that no run is current after that.
#
# A background worker has no client who could see anything, and it runs no code of
# a user outside of attempts.
my %application = (
	work => '\i',    # and the script
	commits => 1,
	output => '"delivered"',
	lease => '1 second',
	done => qr/^t$/,
	lost => qr/^tTI002$/);
my %kinds = (
	session_procedure => {
		work => 'CALL trigger_idem.work()',
		handler => 'job_procedure',
		commits => 1,
		output => '',
		lease => '1 hour',
		done => qr/^\d+\nt$/,
		lost => qr/^\d+\nt$/
	},
	session_function => {
		work => 'CALL trigger_idem.work()',
		handler => 'job_function',
		commits => 0,
		output => '"delivered"',
		lease => '1 hour',
		done => qr/^\d+\nt$/,
		lost => qr/^\d+\nt$/
	},
	background_procedure =>
	  { handler => 'job_procedure', commits => 1, output => '', lease => '1 hour' },
	background_function =>
	  { handler => 'job_function', commits => 0, output => '"delivered"', lease => '1 hour' },
	application => \%application,
	# where PgBouncer is there
	pooled_application => \%application);

# The job, but for what an application does itself.  The payload says what happens
# at which place of it, in its first attempts or the only one:
#
# {"stop_at": place}		see create_deliveries()
# {"fail_at": place, "code": SQLSTATE, "attempts": n}
# {"kill_at": place, "attempts": n}
# {"child": true}			triggers another run, in its first transaction
# {"wait": true}			waits for another such job, and then sleeps: after the first step,
#						or before it, where that is one transaction
# {"alone": true}			fails where another such job is in the middle of its work
my $job = <<'EOSQL';
ALTER TABLE effect ADD who text DEFAULT current_user, ADD logged_in text DEFAULT session_user;

CREATE FUNCTION pass(place text, payload jsonb, attempt int DEFAULT trigger_idem.current_attempt())
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stop_at(place, payload, attempt);
	IF attempt > coalesce((payload ->> 'attempts')::int, 1) THEN
		RETURN;
	END IF;
	IF payload ->> 'fail_at' = place THEN
		RAISE 'failed on purpose' USING ERRCODE = coalesce(payload ->> 'code', 'P0001');
	ELSIF payload ->> 'kill_at' = place THEN
		COPY (SELECT) TO PROGRAM 'kill -9 $PPID';
	END IF;
END $$;
CREATE FUNCTION begin_job(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	-- a lock of the session is the pooler's there, not the application's
	IF payload ? 'alone' AND current_database() = 'pooled_application' THEN
		INSERT INTO alone VALUES (1);
	ELSIF payload ? 'alone' AND NOT pg_try_advisory_lock(1000) THEN
		RAISE 'not alone';
	END IF;
	PERFORM pass('entered', payload);
	IF payload ? 'child' THEN
		PERFORM FROM trigger_idem.trigger_task('child', delay => '1 hour');
	END IF;
END $$;
CREATE FUNCTION charge_step(idempotency_key text, args jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM add_effect('charge');
	PERFORM call_outside(idempotency_key);
	PERFORM pass('in charge', args);
	RETURN 'charge ' || trigger_idem.current_attempt();
END $$;
CREATE FUNCTION ship_step(idempotency_key text, args jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM add_effect('ship');
	PERFORM call_outside(idempotency_key);
	PERFORM pass('in ship', args);
	RETURN 'ship ' || trigger_idem.current_attempt();
END $$;
CREATE FUNCTION end_job(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM add_effect('book');
	PERFORM pass('before the end', payload);
	IF payload ? 'alone' AND current_database() = 'pooled_application' THEN
		DELETE FROM alone;
	ELSIF payload ? 'alone' THEN
		PERFORM pg_advisory_unlock(1000);
	END IF;
END $$;

-- true, to an application, while it has to wait
CREATE FUNCTION job_waits(payload jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	child_status text;
BEGIN
	IF NOT payload ? 'wait' THEN
		RETURN false;
	END IF;
	SELECT status INTO child_status FROM trigger_idem.trigger_task_and_wait('deliver', '{}');
	IF child_status <> 'completed' THEN
		RETURN true;
	END IF;
	RETURN trigger_idem.wait_for('a nap', '300 ms') > clock_timestamp();
END $$;
CREATE PROCEDURE job_procedure(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM begin_job(payload);
	PERFORM trigger_idem.run_once('charge', 'charge_step', payload);
	COMMIT;
	PERFORM job_waits(payload);
	PERFORM pass('after charge', payload);
	PERFORM trigger_idem.run_once('ship', 'ship_step', payload);
	COMMIT;
	PERFORM end_job(payload);
END $$;
CREATE FUNCTION job_function(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM job_waits(payload);
	PERFORM begin_job(payload);
	PERFORM trigger_idem.run_once('charge', 'charge_step', payload);
	PERFORM pass('after charge', payload);
	PERFORM trigger_idem.run_once('ship', 'ship_step', payload);
	PERFORM end_job(payload);
	RETURN 'delivered';
END $$;

-- for those who may not see a run any more, or not yet, but wait for it
CREATE FUNCTION status_of(id uuid) RETURNS text LANGUAGE sql SECURITY DEFINER AS
	'SELECT status FROM trigger_idem.runs WHERE run_id = id';
CREATE FUNCTION count_of(task text, a_status text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
	'SELECT count(*) FROM trigger_idem.runs WHERE task_id = task AND status::text = a_status';

-- alice works, but for the tasks of bob: create_tasks() grants her that
CREATE ROLE workers;
GRANT pg_execute_server_program TO workers;
CREATE ROLE alice LOGIN IN ROLE workers;
CREATE ROLE bob LOGIN IN ROLE workers;
SELECT trigger_idem.access_grant('workers', 'trigger');
GRANT INSERT ON effect TO workers;
CREATE TABLE alone (one int PRIMARY KEY);
GRANT SELECT, INSERT, DELETE ON alone TO workers;
EOSQL

# An application: a psql script that works what is due.  A transaction is one
# command for psql, so that nothing of it follows an error.
my $application = <<'EOSQL';
\set ON_ERROR_STOP off
\o /dev/null
\set claimed false
SELECT count(*) > 0 AS claimed, max(run_id::text) AS run_id, max(attempt) AS attempt, max(payload::text) AS payload
FROM trigger_idem.run_claim('application ' || pg_backend_pid(), queue => NULL) \gset
\if :claimed
	-- one step by run_once(), in an entered run
	BEGIN\; SELECT trigger_idem.run_enter(:'run_id', :attempt)\; SELECT begin_job(:'payload')\;
		SELECT trigger_idem.run_once('charge', 'charge_step', :'payload')\; COMMIT;
	\set failed :ERROR
	\set waits false
	\if :failed
	\else
		SELECT job_waits(:'payload') AS waits FROM trigger_idem.run_enter(:'run_id', :attempt) \gset
		\set failed :ERROR
	\endif
	-- a run that waits is not ours any more, until somebody claims it again
	\if :waits
	\else
		\if :failed
		\else
			SELECT pass('after charge', :'payload', :attempt);
			\set failed :ERROR
		\endif

		-- one by the calls that name an attempt, with no transaction around the call outside
		\set is_cached true
		\if :failed
		\else
			SELECT is_cached, idempotency_key FROM trigger_idem.run_once_begin(:'run_id', :attempt, 'ship') \gset
			\set failed :ERROR
		\endif
		\if :is_cached
		\else
			SELECT call_outside(:'idempotency_key');
			BEGIN\; INSERT INTO effect VALUES (:'run_id', 'ship', :attempt)\;
				SELECT trigger_idem.run_once_end(:'run_id', :attempt, 'ship', to_jsonb('ship ' || :attempt))\;
				SELECT pass('in ship', :'payload', :attempt)\; COMMIT;
			\set failed :ERROR
		\endif

		\if :failed
		\else
			BEGIN\; SELECT trigger_idem.run_enter(:'run_id', :attempt)\;
				SELECT trigger_idem.run_complete(:'run_id', :attempt, '"delivered"')\;
				SELECT end_job(:'payload')\; COMMIT;
			\set failed :ERROR
		\endif

		\if :failed
			ROLLBACK;
			SELECT :'LAST_ERROR_SQLSTATE' = 'TI002' AS is_lost, :'LAST_ERROR_SQLSTATE' <> 'TI006' AS retry \gset
			\if :is_lost
			\else
				SELECT trigger_idem.run_fail(:'run_id', :attempt, jsonb_build_object(
					'code', :'LAST_ERROR_SQLSTATE'::text, 'message', :'LAST_ERROR_MESSAGE'::text), retry => :'retry');
			\endif
		\endif
	\endif
	\ir application.sql
\endif
\o
EOSQL

my ($node, $pooler, $pooled_node);

END
{
	my $status = $?;

	$pooler->kill_kill if $pooler;
	$? = $status;
}

# The server as PgBouncer in transaction mode shows it, or undef where there is
# none: connections of clients are given those of the server for a transaction.
sub start_pooler
{
	my ($program) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
	my $pooled = bless {%$node}, ref $node;
	my $dir = $node->basedir;

	return undef unless defined $program;
	$pooled->{_port} = PostgreSQL::Test::Cluster::get_free_port();
	append_to_file("$dir/users", join '', map { qq["$_" ""\n] } getpwuid($<), 'alice', 'bob');
	append_to_file("$dir/pgbouncer.ini", sprintf <<'EOINI', $node->host, $node->port, $node->host, $pooled->port, $dir, scalar getpwuid($<), $dir);
[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr =
unix_socket_dir = %s
listen_port = %s
pool_mode = transaction
auth_type = trust
auth_file = %s/users
admin_users = %s
ignore_startup_parameters = options, extra_float_digits
logfile = %s/pgbouncer.log
EOINI
	$pooler = IPC::Run::start([ $program, '-q', "$dir/pgbouncer.ini" ], '<' => \undef, '>' => \my $stdout, '2>' => \my $stderr);
	$pooled->poll_query_until('postgres', 'SELECT true') or die 'PgBouncer does not come up';
	return $pooled;
}

# What PgBouncer has open is as it was when it was opened.
sub renew_pooled
{
	$pooled_node->safe_psql('pgbouncer', 'RECONNECT') if $pooled_node;
	return;
}

=pod

=head1 FUNCTIONS

=over

=item new_conformance_server()

A running server, and a list of the kinds of workers on it: hashes with what
%kinds says, and name, which is also that of the database.  Tasks:

deliver             is tried again after 0.3 seconds
deliver_leased      has a lease of one second for every kind
deliver_limited     has a max_duration of two seconds
deliver_alone       has a concurrency_limit of 1
deliver_bob         runs as bob, the others as alice
marker, child

=cut

sub new_conformance_server
{
	my @workers;

	# A claim of alice waits after its commit, if hold_claims() says so: for a
	# synchronous standby that there is not.
	$node = new_server('main', <<'EOCONF');
shared_preload_libraries = 'trigger_idem'
trigger_idem.databases = 'background_procedure, background_function'
trigger_idem.poll_interval = '200ms'
trigger_idem.worker_idle_time = '100ms'
restart_after_crash = on
max_connections = 40
max_worker_processes = 20
wal_level = replica
max_wal_senders = 1
synchronous_standby_names = 'nobody'
synchronous_commit = local
log_line_prefix = '%m [%p] %e %q%a '
EOCONF
	create_deliveries($node);
	$node->safe_psql('postgres', $job);
	append_to_file($node->basedir . '/application.sql', $application);

	foreach my $name (sort keys %kinds)
	{
		my $worker = { name => $name, node => $node, %{ $kinds{$name} } };

		$worker->{work} .= ' ' . $node->basedir . '/application.sql' if $name =~ /application$/;
		$node->safe_psql('template1', "CREATE DATABASE $name TEMPLATE postgres");
		create_tasks($worker);
		push @workers, $worker;
	}
	# last, for it connects to the template
	$pooled_node = start_pooler();
	note('no PgBouncer, no pooled application') if !defined $pooled_node;
	@workers = grep { defined $pooled_node || $_->{name} ne 'pooled_application' } @workers;
	$_->{node} = $pooled_node foreach grep { $_->{name} eq 'pooled_application' } @workers;
	return ($node, @workers);
}

sub create_tasks
{
	my ($worker) = @_;
	my $handler = $worker->{handler} ? "'$worker->{handler}'" : 'NULL';
	my $common = "min_backoff => '300 ms', backoff_jitter => false";

	query($worker, <<"EOSQL");
SELECT trigger_idem.task_create('deliver', $handler, lease_duration => '$worker->{lease}', run_as => 'alice', $common);
SELECT trigger_idem.task_create('deliver_leased', $handler, lease_duration => '1 second', run_as => 'alice', $common);
SELECT trigger_idem.task_create('deliver_limited', $handler, lease_duration => '1 hour', run_as => 'alice', max_duration => '2 seconds');
SELECT trigger_idem.task_create('deliver_alone', $handler, lease_duration => '1 hour', run_as => 'alice', concurrency_limit => 1);
SELECT trigger_idem.task_create('deliver_bob', $handler, lease_duration => '1 hour', run_as => 'bob');
SELECT trigger_idem.task_create('marker', $handler, lease_duration => '1 hour', run_as => 'alice');
SELECT trigger_idem.task_create('child');
SELECT trigger_idem.access_grant('alice', 'work', task_id) FROM trigger_idem.tasks WHERE run_as = 'alice';
SELECT trigger_idem.access_grant('bob', 'work', 'deliver_bob');
EOSQL
	return;
}

=pod

=item query($worker, $sql)

What SQL gives in the database of the worker, to a superuser.

=item trigger($worker, $task, $payload, $options)

Trigger a run, with a payload and options written as SQL.  Returns its id.

=cut

sub query
{
	my ($worker, $sql) = @_;

	return $node->safe_psql($worker->{name}, $sql);
}

sub trigger
{
	my ($worker, $task, $payload, $options) = @_;

	$options = defined $options ? ", $options" : '';
	return query($worker,
		"SELECT run_id FROM trigger_idem.trigger_task('$task', '$payload'$options)");
}

=pod

=item start_worker($worker, %params)

Have somebody work what is due, and return without waiting for him; undef where
the server does that by itself.  Param: user, instead of alice.

=item has_ended($worker, $session, $run_id, $how, $what)

Wait until he has ended, or at least has left the run alone, and test how: done,
lost (the attempt lost its run) or died.  Where he could tell, no run is current
for him any more.

=cut

sub start_worker
{
	my ($worker, %params) = @_;

	return undef unless defined $worker->{work};
	return start_sql(
		$worker->{node}, $worker->{name}, $worker->{work},
		dbname => $worker->{name},
		user => $params{user} // 'alice',
		after =>
		  'SELECT trigger_idem.current_run_id() IS NULL AND trigger_idem.current_attempt() IS NULL');
}

sub has_ended
{
	my ($worker, $session, $run_id, $how, $what) = @_;

	if (defined $session)
	{
		like(finish_sql($session), $how eq 'died' ? qr/^connection lost$/ : $worker->{$how},
			"$what: its worker ends as it should");
	}
	elsif ($how ne 'died')
	{
		ok( $node->poll_query_until(
				'postgres',
				"SELECT NOT EXISTS (SELECT FROM pg_stat_activity
				 WHERE backend_type = 'trigger_idem worker' AND query LIKE '%$run_id%')"),
			"$what: its worker leaves it alone");
	}
	return;
}

=pod

=item work_until($worker, $condition, $user)

Work what is due, again and again, until an SQL condition is true.

=cut

sub work_until
{
	my ($worker, $condition, $user) = @_;
	my $work = $worker->{work} // '';

	$work .= ' \g /dev/null' if $work =~ /^CALL/;
	local $ENV{PGUSER} = $user // 'alice';
	return $worker->{node}->poll_query_until($worker->{name}, "$work\nSELECT $condition");
}

=pod

=item hold_claims()

From now on the claims of alice wait after their commit, in new sessions.

=item wait_at_claims($count)

Wait until so many do.  Returns the pids.

=item release_claims()

No longer; what waits goes on waiting until it is killed.

=cut

sub hold_claims
{
	# a worker of before would not know
	$node->poll_query_until('postgres',
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker')")
	  or die 'background workers do not end';
	$node->safe_psql('postgres', 'ALTER ROLE alice SET synchronous_commit = on');
	renew_pooled();
	return;
}

sub wait_at_claims
{
	my ($count) = @_;
	my $waiting = "FROM pg_stat_activity WHERE usename = 'alice' AND wait_event = 'SyncRep'";

	$node->poll_query_until('postgres', "SELECT count(*) = $count $waiting")
	  or die 'claims do not wait';
	return split /\n/, $node->safe_psql('postgres', "SELECT pid $waiting");
}

sub release_claims
{
	$node->safe_psql('postgres', 'ALTER ROLE alice RESET synchronous_commit');
	renew_pooled();
	return;
}

=pod

=item wait_at_place($worker, $run_id)

Wait until the worker of a run waits at its gate.  Returns the pid of its backend.

=cut

sub wait_at_place
{
	my ($worker, $run_id) = @_;
	my $waiting = "FROM trigger_idem.attempts a
		JOIN pg_stat_activity s ON s.pid = substring(a.worker_id FROM '\\d+\$')::int
		WHERE a.run_id = '$run_id' AND a.status = 'executing' AND s.wait_event = 'advisory'";

	$node->poll_query_until($worker->{name}, "SELECT count(*) = 1 $waiting")
	  or die "$worker->{name} does not stop; attempts: "
	  . attempts_of($node, $run_id, $worker->{name});
	return query($worker, "SELECT pid $waiting");
}

=pod

=item facts($worker, $run_id, $key)

A hash of what is there of a run: run, attempts, effects, by (the current_user and
session_user who wrote them), steps, keys (of the steps, by name), key (what has
become of its idempotency key: held or free), failure (the message of the first
attempt), waited (whether each attempt came 0.3 seconds after the one before).

=cut

sub facts
{
	my ($worker, $run_id, $key) = @_;
	my %facts = (attempts => attempts_of($node, $run_id, $worker->{name}));

	@facts{qw(run effects by steps failure waited key)} = split /\n/, query($worker, <<"EOSQL"), -1;
SELECT concat_ws('|', status, attempt, output) FROM trigger_idem.runs WHERE run_id = '$run_id';
SELECT string_agg(concat_ws(' ', what, attempt), ', ' ORDER BY what, attempt) FROM effect WHERE run_id = '$run_id';
SELECT string_agg(DISTINCT concat_ws(' ', who, logged_in), ', ') FROM effect WHERE run_id = '$run_id';
SELECT string_agg(concat_ws(' ', key, attempt, output), ', ' ORDER BY key, attempt) FROM trigger_idem.steps WHERE run_id = '$run_id';
SELECT max(error ->> 'message') FROM trigger_idem.attempts WHERE run_id = '$run_id' AND attempt = 1;
SELECT bool_and(waited >= '300 ms') FROM (
	SELECT started_at - lag(finished_at) OVER (ORDER BY attempt) AS waited
	FROM trigger_idem.attempts WHERE run_id = '$run_id') AS a;
BEGIN;
SELECT CASE WHEN is_cached AND run_id = '$run_id' THEN 'held' WHEN NOT is_cached THEN 'free' END
FROM trigger_idem.trigger_task((SELECT task_id FROM trigger_idem.runs WHERE run_id = '$run_id'), idempotency_key => '$key');
ROLLBACK;
EOSQL
	$facts{keys} = {
		map { split / / } split /\n/,
		query($worker,
			"SELECT key, idempotency_key FROM trigger_idem.steps WHERE run_id = '$run_id'") =~
		  s/\|/ /gr
	};
	return %facts;
}

=pod

=back

=cut

1;
