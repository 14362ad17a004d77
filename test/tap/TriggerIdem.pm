
=pod

=head1 NAME

TriggerIdem - what the TAP tests of trigger_idem have in common

=head1 DESCRIPTION

A server with the extension, workers that are processes of their own, gates at
which a handler stops, and deliveries: a task whose effects can be counted.

Nothing here sleeps.  A test that needs a worker at a certain place closes a
gate, which is an advisory lock, and waits until the worker is seen at it.

=cut

package TriggerIdem;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use Time::HiRes qw(usleep);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(
  new_server
  start_sql finish_sql start_work finish_work
  wait_at_gate wait_for_lock
  close_gate open_gate
  wait_for_restart wait_until_gone reload_settings
  open_session poll_session
  create_deliveries outside_calls attempts_of
);

=pod

=head1 FUNCTIONS

=over

=item new_server($name, $conf)

A running server with the extension in database postgres.  Where something waits
for a lock in vain, it gives up.

=cut

sub new_server
{
	my ($name, $conf) = @_;

	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf',
		"lock_timeout = '${PostgreSQL::Test::Utils::timeout_default}s'");
	$node->append_conf('postgresql.conf', $conf // '');
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION trigger_idem');
	return $node;
}

=pod

=item start_sql($node, $name, $command, %params)

Start a session that executes an SQL command, and return without waiting for it.
The session is known as $name in pg_stat_activity.  Params: before and after, SQL
to run first and last; user and dbname.

=item start_work($node, $name, %params)

The same with a call of work().

=cut

sub start_sql
{
	my ($node, $name, $command, %params) = @_;
	my $session = { name => $name, stdout => '', stderr => '' };
	my $connstr = $node->connstr($params{dbname} // 'postgres')
	  . " application_name=$name";

	$connstr .= " user=$params{user}" if defined $params{user};
	my @psql = (
		$node->installed_command('psql'),
		'-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d', $connstr);
	push @psql, '-c', $params{before} if defined $params{before};
	push @psql, '-c', $command;
	push @psql, '-c', $params{after} if defined $params{after};

	$session->{run} = IPC::Run::start(
		\@psql,
		'<' => \undef,
		'>' => \$session->{stdout},
		'2>' => \$session->{stderr},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $session;
}

sub start_work
{
	my ($node, $name, %params) = @_;

	return start_sql($node, $name, 'CALL trigger_idem.work()', %params);
}

=pod

=item finish_sql($session)

=item finish_work($session)

Wait until the command has ended.  Returns what it printed (the number of
attempts made, for work()) followed by the SQLSTATE of its error, if there was
one, or "connection lost".

=cut

sub finish_sql
{
	my ($session) = @_;

	$session->{run}->finish;
	my $result = $session->{stdout};
	chomp $result;
	return $result if $session->{stderr} eq '';
	return $result . 'connection lost'
	  if $session->{stderr} =~ /connection to server was lost|server closed the connection/;
	return $result . $1 if $session->{stderr} =~ /ERROR:  (\w{5}):/;
	return $result . $session->{stderr};
}

sub finish_work
{
	return finish_sql(@_);
}

=pod

=item wait_at_gate($node, $name)

Wait until the session of that name waits at a gate.  Returns its pid.

=item wait_for_lock($node, $name, $event)

The same for another kind of lock, as pg_stat_activity calls it.

=cut

sub wait_at_gate
{
	my ($node, $name) = @_;

	return wait_for_lock($node, $name, 'advisory');
}

sub wait_for_lock
{
	my ($node, $name, $event) = @_;
	my $waiting =
	  "FROM pg_stat_activity WHERE application_name = '$name' AND wait_event = '$event'";

	$node->poll_query_until('postgres', "SELECT count(*) = 1 $waiting")
	  or die "$name does not wait for the lock; errors of attempts: "
	  . $node->safe_psql('postgres', 'SELECT error FROM trigger_idem.attempts');
	return $node->safe_psql('postgres', "SELECT pid $waiting");
}

=pod

=item close_gate($node, $number, $dbname)

Close a gate, of database postgres if no other is named.  It is open again when
the session returned here ends, be it with the server.

=item open_gate($session)

=cut

sub close_gate
{
	my ($node, $number, $dbname) = @_;
	my $session = open_session($node, $dbname, on_error_stop => 0);

	$session->query_safe("SELECT pg_advisory_lock($number)");
	return $session;
}

sub open_gate
{
	my ($session) = @_;

	$session->quit;
	return;
}

=pod

=item wait_for_restart($node, $log_offset)

Wait until the server has recovered by itself from the crash of a backend, of
which its log tells after $log_offset.

=cut

sub wait_for_restart
{
	my ($node, $log_offset) = @_;

	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log_offset);
	# no query: psql would not live to read it while connections are refused
	$node->poll_query_until('postgres', undef, '')
	  or die 'the server did not come back';
	return;
}

=pod

=item wait_until_gone($node, $name)

Wait until the backends of sessions of that name have ended, which is a little
later than what their clients see.

=cut

sub wait_until_gone
{
	my ($node, $name) = @_;

	$node->poll_query_until('postgres',
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = '$name')")
	  or die "$name did not end";
	return;
}

=pod

=item reload_settings($node)

Reload the settings, and wait until processes that begin have them, and others have been told.

=cut

sub reload_settings
{
	my ($node) = @_;
	my $before = $node->safe_psql('postgres', 'SELECT pg_conf_load_time()');

	$node->reload;
	$node->poll_query_until('postgres', "SELECT pg_conf_load_time() > '$before'")
	  or die 'the settings are not reloaded';
	return;
}

=pod

=item open_session($node, $dbname, %params)

A session to send queries to, as background_psql() makes it, with database postgres if no
other is named.  Each query may take timeout_default, not all of them together.

=cut

sub open_session
{
	my ($node, $dbname, %params) = @_;
	my $session = $node->background_psql($dbname // 'postgres', %params);

	$session->set_query_timer_restart;
	return $session;
}

=pod

=item poll_session($session, $query)

The same as poll_query_until(), in a session that is there, for a time in which nobody can
connect.

=cut

sub poll_session
{
	my ($session, $query) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $session->query_safe($query) eq 't';
		usleep(100_000);
	}
	die "in vain: $query";
}

=pod

=item create_deliveries($node)

Create the handlers deliver_function and deliver_procedure, and two tasks of
the same names that use them, with a lease of one hour.  A delivery has three
effects in the table effect: the steps charge and ship, and a row that the
handler itself writes.  The procedure COMMITs after each.  Both steps also call
outside, which is a file with one line a call: the key it was called with.

The payload says where to stop: {"stop_at": "step"}, and so on.  There the n-th
attempt passes gate n.  At "completion" the end of the run is written, by a
trigger on its row, but not committed.

=cut

sub create_deliveries
{
	my ($node) = @_;
	my $outside = $node->basedir . '/outside';

	append_to_file($outside, '');
	$node->safe_psql('postgres', <<"EOSQL");
CREATE TABLE effect (run_id uuid, what text, attempt int);
CREATE FUNCTION add_effect(what text) RETURNS void LANGUAGE sql AS
	\$\$ INSERT INTO effect SELECT trigger_idem.current_run_id(), what, trigger_idem.current_attempt() \$\$;
CREATE FUNCTION call_outside(idempotency_key text) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	EXECUTE format('COPY (SELECT %L) TO PROGRAM %L', idempotency_key, 'cat >> $outside');
END \$\$;
CREATE FUNCTION stop_at(place text, payload jsonb,
	attempt int DEFAULT trigger_idem.current_attempt())
RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	IF payload ->> 'stop_at' = place THEN
		PERFORM pg_advisory_lock_shared(attempt);
		PERFORM pg_advisory_unlock_shared(attempt);
	END IF;
END \$\$;
-- evaluated when the end of a run is written
CREATE FUNCTION stop_at_completion(run_attempt int, payload jsonb) RETURNS int
LANGUAGE plpgsql IMMUTABLE AS \$\$
BEGIN
	IF run_attempt IS NOT NULL THEN
		PERFORM public.stop_at('completion', payload, run_attempt);
	END IF;
	RETURN 0;
END \$\$;
CREATE INDEX stop_at_completion ON trigger_idem.run (stop_at_completion(attempt, payload));

CREATE FUNCTION charge_card(idempotency_key text, args jsonb) RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM add_effect('charge');
	PERFORM call_outside(idempotency_key);
	PERFORM stop_at('step', args);
	RETURN 'charged';
END \$\$;
CREATE FUNCTION ship_goods(idempotency_key text) RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM add_effect('ship');
	PERFORM call_outside(idempotency_key);
	RETURN 'shipped';
END \$\$;

CREATE PROCEDURE deliver_procedure(payload jsonb) LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM trigger_idem.run_once('charge', 'charge_card', payload);
	PERFORM stop_at('charged', payload);
	COMMIT;
	PERFORM stop_at('committed', payload);
	PERFORM trigger_idem.run_once('ship', 'ship_goods');
	COMMIT;
	PERFORM add_effect('book');
	PERFORM stop_at('end', payload);
END \$\$;
CREATE FUNCTION deliver_function(payload jsonb) RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM trigger_idem.run_once('charge', 'charge_card', payload);
	PERFORM stop_at('charged', payload);
	PERFORM trigger_idem.run_once('ship', 'ship_goods');
	PERFORM add_effect('book');
	PERFORM stop_at('end', payload);
	RETURN 'delivered';
END \$\$;

SELECT trigger_idem.task_create('deliver_procedure', 'deliver_procedure',
	min_backoff => '0', lease_duration => '1 hour');
SELECT trigger_idem.task_create('deliver_function', 'deliver_function',
	min_backoff => '0', lease_duration => '1 hour');

-- deliveries of which not every effect is there exactly once
CREATE VIEW effects_amiss AS
	SELECT r.run_id, w.what, count(e.run_id)
	FROM trigger_idem.runs r CROSS JOIN (VALUES ('charge'), ('ship'), ('book')) w(what)
		LEFT JOIN effect e ON e.run_id = r.run_id AND e.what = w.what
	WHERE r.task_id IN ('deliver_function', 'deliver_procedure')
	GROUP BY 1, 2 HAVING count(e.run_id) <> 1;
EOSQL
	return;
}

=pod

=item outside_calls($node)

A hash: how often outside was called with each key.

=cut

sub outside_calls
{
	my ($node) = @_;
	my %calls;

	$calls{$_}++ foreach split /\n/, slurp_file($node->basedir . '/outside');
	return %calls;
}

=pod

=item attempts_of($node, $run_id, $dbname)

The attempts of a run in their order, each as "status" or "status SQLSTATE".

=cut

sub attempts_of
{
	my ($node, $run_id, $dbname) = @_;

	return $node->safe_psql($dbname // 'postgres', <<"EOSQL");
SELECT string_agg(concat_ws(' ', status, error ->> 'code'), ', ' ORDER BY attempt)
FROM trigger_idem.attempts WHERE run_id = '$run_id'
EOSQL
}

=pod

=back

=cut

1;
