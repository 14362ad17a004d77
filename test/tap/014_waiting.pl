# Runs that wait: over crashes and restarts, with background workers and with
# sessions that call work(), in copies, and on a standby.
#
# Promised:
#
# - at whatever stage of a wait the server ends, in order or not, the run goes on
#   and completes once, what it waited for is done once, every effect is there
#   exactly once; an attempt that waits counts as no failure
# - what waits holds nothing: no worker, no transaction, no lock, so that one worker
#   is enough for runs that wait for each other
# - a sleep ends by the clock, and one whose time has come while the server was down
#   ends at once
# - a handler that catches whatever there is to catch waits all the same
# - a session that waits outside a run goes on promptly, costs nothing until then,
#   and can be cancelled, terminated and shut down
# - a dump has what waits, and the copy goes on
# - a standby can wait for what ends on its primary
# - with workers that are killed, with batches whose last items end at the same time,
#   and where many begin to wait for what is just ending, nobody waits for ever and
#   nothing is done twice

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use TriggerIdem;

# polling takes what is written to stderr for a failure; warnings are looked for
# in the log, at the end
$ENV{PGOPTIONS} = '-c client_min_messages=error';

# Database background is worked by the server, database sessions by us.  A wake-up
# that is lost would show: nobody polls within the time that this test takes.
my @databases = ('background', 'sessions');
my $node = new_server('main', <<'EOCONF');
shared_preload_libraries = 'trigger_idem'
trigger_idem.databases = 'background, postgres'
trigger_idem.poll_interval = '10min'
trigger_idem.max_workers = 16
trigger_idem.max_workers_per_database = 12
restart_after_crash = on
max_connections = 60
max_worker_processes = 40
wal_level = replica
max_wal_senders = 4
EOCONF

# ---------- Parents and children ----------

# A parent waits for a child, takes a nap, and writes "after", once it has all; one
# that is a procedure writes "before", too.  A child writes "child".  The payload
# says:
#
# {"child": task, "child_queue": queue}		which child
# {"nap": interval}
# {"stop_at": place}	where to stop: "child", in the child, or "again", in the
#						parent when it has waited; until gate 1 is open
#
# The ends of children of the task child_completing are written, but not committed,
# until gate 1 is open; so is the wait for one of the task child_recording.
my $parents = <<'EOSQL';
CREATE TABLE effect (run_id uuid, what text, note jsonb);
CREATE FUNCTION add_effect(what text, note jsonb DEFAULT NULL) RETURNS void LANGUAGE sql AS
	'INSERT INTO effect SELECT trigger_idem.current_run_id(), what, note';
CREATE FUNCTION pass_gate() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_lock_shared(1);
	PERFORM pg_advisory_unlock_shared(1);
	RETURN 0;
END $$;
-- the arguments are there so that it is evaluated when a row is written
CREATE FUNCTION pass_gate_with(anyelement) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
	'BEGIN RETURN public.pass_gate(); END';
CREATE INDEX ON trigger_idem.wait (pass_gate_with(attempt)) WHERE path[1] = 'child_recording';
CREATE INDEX ON trigger_idem.run (pass_gate_with(attempt)) WHERE task_id = 'child_completing' AND attempt > 0;

CREATE FUNCTION child(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	output jsonb := to_jsonb(gen_random_uuid());
BEGIN
	PERFORM add_effect('child', output);
	IF payload ->> 'stop_at' = 'child' THEN
		PERFORM pass_gate();
	END IF;
	RETURN output;
END $$;
CREATE FUNCTION before_step(idempotency_key text) RETURNS void LANGUAGE sql AS $$ SELECT add_effect('before') $$;
CREATE FUNCTION wait_for_child(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT output FROM trigger_idem.trigger_task_and_wait(payload ->> 'child', payload, queue => payload ->> 'child_queue')
$$;
CREATE FUNCTION parent_function(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	output jsonb := wait_for_child(payload);
BEGIN
	IF payload ->> 'stop_at' = 'again' THEN
		PERFORM pass_gate();
	END IF;
	PERFORM trigger_idem.wait_for('nap', COALESCE(payload ->> 'nap', '200 ms')::interval);
	PERFORM add_effect('after', output);
	RETURN output;
END $$;
CREATE PROCEDURE parent_procedure(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	output jsonb;
BEGIN
	PERFORM trigger_idem.run_once('before', 'before_step');
	COMMIT;
	output := wait_for_child(payload);
	COMMIT;
	IF payload ->> 'stop_at' = 'again' THEN
		PERFORM pass_gate();
	END IF;
	PERFORM trigger_idem.wait_for('nap', COALESCE(payload ->> 'nap', '200 ms')::interval);
	PERFORM add_effect('after', output);
	COMMIT;
END $$;

SELECT trigger_idem.task_create('child', 'child', min_backoff => '0'),
	trigger_idem.task_create('child_recording', 'child', min_backoff => '0'),
	trigger_idem.task_create('child_completing', 'child', min_backoff => '0'),
	trigger_idem.task_create('parent_function', 'parent_function', min_backoff => '0', max_attempts => 2, lease_duration => '1 hour'),
	trigger_idem.task_create('parent_procedure', 'parent_procedure', min_backoff => '0', max_attempts => 2, lease_duration => '1 hour'),
	trigger_idem.task_create('outside', queue => 'outside');

-- What has become of a run, but for attempts that were given back: its status and
-- attempts; the attempts of its children; their effects; is its effect the one of
-- the child?
CREATE FUNCTION attempts_made(id uuid) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(status, ' ' ORDER BY attempt) FROM trigger_idem.attempts
	WHERE run_id = id AND status <> 'released'
$$;
CREATE FUNCTION story(id uuid) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' | ', r.status || ': ' || attempts_made(id),
		(SELECT string_agg(c.status || ': ' || attempts_made(c.run_id), ', ') FROM trigger_idem.runs c WHERE c.parent_run_id = id),
		(SELECT string_agg(e.what, ' ' ORDER BY e.what) FROM effect e JOIN trigger_idem.runs w USING (run_id) WHERE id IN (w.run_id, w.parent_run_id)),
		(SELECT 'same output' FROM trigger_idem.runs c JOIN effect e ON e.note = c.output
		 WHERE c.parent_run_id = id AND e.run_id = id AND r.output IS NOT DISTINCT FROM
			CASE WHEN r.task_id = 'parent_function' THEN c.output END))
	FROM trigger_idem.runs r WHERE r.run_id = id
$$;
CREATE VIEW unfinished AS
	SELECT * FROM trigger_idem.runs WHERE tags IS NOT NULL AND finished_at IS NULL;
EOSQL

$node->safe_psql('postgres', $parents);
$node->safe_psql('template1', "CREATE DATABASE $_ TEMPLATE postgres") foreach @databases, 'dumped';
# so that the server knows of them
reload_settings($node);

sub query
{
	my ($dbname, $sql) = @_;

	return $node->safe_psql($dbname, $sql);
}

sub trigger
{
	my ($dbname, $task, $payload, $options) = @_;

	return query($dbname,
		"SELECT run_id FROM trigger_idem.trigger_task('$task', '$payload', tags => '{test}'"
		  . (defined $options ? ", $options)" : ')'));
}

# Let a queue go on.  That alone wakes no background worker, but a trigger does.
sub resume
{
	my ($dbname, @queues) = @_;

	query($dbname, "SELECT trigger_idem.queue_resume('$_')") foreach @queues;
	query($dbname, "SELECT trigger_idem.trigger_task('child', '{}')");
	return;
}

# Wait for a condition while what is due is worked.
sub work_until
{
	my ($dbname, $condition) = @_;
	my $work = $dbname eq 'sessions' || $dbname eq 'dumped' ? 'CALL trigger_idem.work() \g /dev/null' : '';

	return $node->poll_query_until($dbname, "$work\nSELECT $condition");
}

# ---------- The server ends at every stage ----------

# What the parent is told; how the attempts of parent and child end where the
# server ends without order.  One that is executing stops at gate 1.
my %stages = (
	'about to record its wait' => {
		payload => { child => 'child_recording' },
		stops => 1,
		attempts => [ 'crashed waiting waiting completed', 'completed' ]
	},
	'waiting for a child that is queued' => {
		payload => { child => 'child', child_queue => 'held' },
		attempts => [ 'waiting waiting completed', 'completed' ]
	},
	'waiting for a child that is executing' => {
		payload => { child => 'child', stop_at => 'child' },
		stops => 1,
		attempts => [ 'waiting waiting completed', 'crashed completed' ]
	},
	'waiting for a child that is about to complete' => {
		payload => { child => 'child_completing' },
		stops => 1,
		attempts => [ 'waiting waiting completed', 'crashed completed' ]
	},
	'woken by its child' => {
		payload => { child => 'child', child_queue => 'later' },
		queue => 'parents',
		attempts => [ 'waiting waiting completed', 'completed' ]
	},
	'executing again' => {
		payload => { child => 'child', stop_at => 'again' },
		stops => 1,
		attempts => [ 'waiting crashed waiting completed', 'completed' ]
	},
	'sleeping' => {
		payload => { child => 'child', nap => '1.5 seconds' },
		attempts => [ 'waiting waiting completed', 'completed' ]
	});

sub trigger_stage
{
	my ($dbname, $handler, $name) = @_;
	my $stage = $stages{$name};
	my $payload =
	  '{' . join(', ', map { qq["$_": "$stage->{payload}{$_}"] } sort keys %{ $stage->{payload} }) . '}';
	my $queue = $stage->{queue} // 'default';

	return {
		dbname => $dbname,
		handler => $handler,
		name => $name,
		stage => $stage,
		run_id => trigger($dbname, "parent_$handler", $payload, "queue => '$queue'")
	};
}

# Bring runs of both handlers to every stage in a database.
sub reach_stages
{
	my ($dbname) = @_;
	my @works;
	my @gated = grep { $stages{$_}{stops} } sort keys %stages;
	my @ungated = grep { !$stages{$_}{stops} && $_ ne 'sleeping' } sort keys %stages;

	query($dbname, "SELECT trigger_idem.queue_pause(queue) FROM unnest(ARRAY['held', 'later']) queue");
	foreach my $name (@ungated)
	{
		push @works, trigger_stage($dbname, $_, $name) foreach 'function', 'procedure';
	}
	ok(work_until($dbname, "count(*) = 4 FROM unfinished WHERE status = 'waiting'"), "$dbname: parents wait");
	query($dbname, "SELECT trigger_idem.queue_pause('parents')");
	resume($dbname, 'later');
	ok(work_until($dbname, "count(*) = 2 FROM unfinished WHERE queue = 'parents' AND status = 'queued'"),
		"$dbname: children have ended, and their parents are queued");

	foreach my $name (@gated)
	{
		foreach my $handler ('function', 'procedure')
		{
			push @works, trigger_stage($dbname, $handler, $name);
			next if $dbname eq 'background';
			my $session = start_work($node, "work_" . scalar @works, dbname => $dbname);
			wait_at_gate($node, $session->{name});
			$works[-1]{session} = $session;
		}
	}
	my $stopped = 2 * @gated;
	ok($node->poll_query_until($dbname,
			"SELECT count(*) = $stopped FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"),
		"$dbname: what executes has stopped");
	push @works, trigger_stage($dbname, $_, 'sleeping') foreach 'function', 'procedure';
	ok(work_until($dbname,
			"count(*) = 2 FROM unfinished WHERE payload ? 'nap' AND status = 'waiting' AND attempt = 2"),
		"$dbname: sleeping");
	return @works;
}

# Wait for a time; it is what happens in the meantime that matters.
sub wait_until
{
	my ($time) = @_;

	usleep(10_000) while time() < $time;
	return;
}

sub check_stage
{
	my ($work, $mode) = @_;
	my $what = "$mode, $work->{dbname}, $work->{handler}, $work->{name}";
	my ($parent, $child) = @{ $work->{stage}{attempts} };
	my $effects = $work->{handler} eq 'function' ? 'after child' : 'after before child';
	my $story = query($work->{dbname}, "SELECT story('$work->{run_id}')");

	# what a fast shutdown ends may be given back, or may get to its end
	if ($mode eq 'fast')
	{
		s/crashed //g foreach $parent, $child, $story;
	}
	is($story, "completed: $parent | completed: $child | $effects | same output", $what);
	return;
}

foreach my $mode ('immediate', 'fast')
{
	my @gates = map { close_gate($node, 1, $_) } @databases;
	my @works = map { reach_stages($_) } @databases;

	# waiting outside of runs, too
	my $outside_id = trigger('sessions', 'outside', '{}');
	my $token = query('sessions', "SELECT token FROM trigger_idem.wait_token_create()");
	my @outside = (
		start_sql($node, 'run_wait', "SELECT trigger_idem.run_wait('$outside_id')", dbname => 'sessions'),
		start_sql($node, 'token_wait', "SELECT trigger_idem.wait_for_token('$token')", dbname => 'sessions'));
	wait_for_lock($node, $_->{name}, 'Extension') foreach @outside;

	my $nap_ends = query('sessions',
		"SELECT COALESCE(extract(epoch FROM max(run_at)), 0) FROM unfinished WHERE payload ? 'nap'");
	my $stopping = time();
	$node->stop($mode);
	cmp_ok(time() - $stopping, '<', 20, "$mode: the server is down soon");
	is(finish_sql($_), 'connection lost', "$mode: $_->{name} outside of runs is over") foreach @outside;
	foreach my $work (@works)
	{
		is(finish_work($work->{session}), 'connection lost', "$mode: the session of $work->{name} is gone")
		  if $work->{session};
	}
	eval { $_->quit } foreach @gates;
	wait_until($nap_ends + 0.1);
	$node->start;

	foreach my $dbname (@databases)
	{
		is( query(
				$dbname,
				"SELECT string_agg(status::text, ' ' ORDER BY payload->>'child_queue')
				 FROM unfinished WHERE payload ? 'child_queue'"),
			'waiting waiting queued queued',
			"$mode, $dbname: what waited waits, what was woken is awake");
		ok(work_until($dbname, "NOT EXISTS (SELECT FROM unfinished WHERE payload ? 'nap')"),
			"$mode, $dbname: what slept wakes up");
		cmp_ok(
			query(
				$dbname,
				"SELECT max(extract(epoch FROM finished_at - pg_postmaster_start_time()))
				 FROM trigger_idem.runs WHERE payload ? 'nap'"),
			'<', 10,
			"$mode, $dbname: at once");
		resume($dbname, 'held', 'parents');
		ok(work_until($dbname, "NOT EXISTS (SELECT FROM unfinished WHERE queue <> 'outside')"),
			"$mode, $dbname: all parents go on");
	}
	check_stage($_, $mode) foreach @works;
}

# ---------- Handlers that catch everything ----------

# Each catches what it can, goes on to the next wait, and then writes and returns.
my $catchers = <<'EOSQL';
CREATE FUNCTION catch_plpgsql() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	caught int := 0;
BEGIN
	BEGIN
		PERFORM trigger_idem.wait_for('nap', '200 ms');
	EXCEPTION WHEN assert_failure OR OTHERS THEN
		caught := caught + 1;
	END;
	BEGIN
		PERFORM trigger_idem.trigger_task_and_wait('child');
	EXCEPTION WHEN assert_failure OR OTHERS THEN
		caught := caught + 1;
	END;
	PERFORM add_effect('after');
	RETURN caught;
END $$;
CREATE PROCEDURE catch_and_commit_plpgsql() LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM trigger_idem.wait_for('nap', '200 ms');
	EXCEPTION WHEN assert_failure THEN
		NULL;
	END;
	BEGIN
		PERFORM trigger_idem.trigger_task_and_wait('child');
	EXCEPTION WHEN assert_failure THEN
		NULL;
	END;
	PERFORM add_effect('after');
	COMMIT;
END $$;
EOSQL
my %languages = (
	plpgsql => $catchers,
	plpython3u => <<'EOSQL',
CREATE FUNCTION catch_plpython3u() RETURNS text LANGUAGE plpython3u AS $$
caught = 0
for wait in ("wait_for('nap', '200 ms')", "trigger_task_and_wait('child')"):
	try:
		plpy.execute("SELECT trigger_idem." + wait)
	except BaseException:
		caught += 1
plpy.execute("SELECT add_effect('after')")
return caught
$$;
CREATE PROCEDURE catch_and_commit_plpython3u() LANGUAGE plpython3u AS $$
for wait in ("wait_for('nap', '200 ms')", "trigger_task_and_wait('child')"):
	try:
		plpy.execute("SELECT trigger_idem." + wait)
	except BaseException:
		pass
	try:
		plpy.commit()
	except BaseException:
		pass
plpy.execute("SELECT add_effect('after')")
try:
	plpy.commit()
except BaseException:
	pass
$$;
EOSQL
	plperl => <<'EOSQL');
CREATE FUNCTION catch_plperl() RETURNS text LANGUAGE plperl AS $$
	my $caught = 0;
	foreach my $wait ("wait_for('nap', '200 ms')", "trigger_task_and_wait('child')")
	{
		eval { spi_exec_query("SELECT trigger_idem.$wait"); 1 } or $caught++;
	}
	spi_exec_query("SELECT add_effect('after')");
	return $caught;
$$;
CREATE PROCEDURE catch_and_commit_plperl() LANGUAGE plperl AS $$
	foreach my $wait ("wait_for('nap', '200 ms')", "trigger_task_and_wait('child')")
	{
		eval { spi_exec_query("SELECT trigger_idem.$wait") };
		eval { spi_commit() };
	}
	spi_exec_query("SELECT add_effect('after')");
	eval { spi_commit() };
$$;
EOSQL

foreach my $language (sort keys %languages)
{
  SKIP:
	{
		skip "$language is not installed", 8
		  if ($node->psql('template1', "CREATE EXTENSION IF NOT EXISTS $language"))[0] != 0;
		my @catches;

		foreach my $dbname (@databases)
		{
			query($dbname, "CREATE EXTENSION IF NOT EXISTS $language; $languages{$language}");
			foreach my $handler ("catch_$language", "catch_and_commit_$language")
			{
				query($dbname, "SELECT trigger_idem.task_create('$handler', '$handler', max_attempts => 1)");
				push @catches, [ $dbname, $handler, trigger($dbname, $handler, '{}') ];
			}
		}
		foreach my $catch (@catches)
		{
			my ($dbname, $handler, $run_id) = @{$catch};

			ok(work_until($dbname, "status IN ('completed', 'failed') FROM trigger_idem.runs WHERE run_id = '$run_id'"),
				"$dbname, $handler: ends");
			is( query($dbname, "SELECT story('$run_id')")
				  . query($dbname, "SELECT output FROM trigger_idem.runs WHERE run_id = '$run_id'"),
				'completed: waiting waiting completed | completed: completed | after child'
				  . ($handler =~ /commit/ ? '' : '"0"'),
				"$dbname, $handler: waits twice, and its effect is there once");
		}
	}
}

# ---------- Sleeping ----------

query('background', <<'EOSQL');
CREATE FUNCTION sleeps() RETURNS timestamptz LANGUAGE sql AS $$
	SELECT trigger_idem.wait_for('a while', '200 ms');
	SELECT trigger_idem.wait_until('until then', trigger_idem.wait_for('a while', '1 hour') + interval '1 second');
$$;
SELECT trigger_idem.task_create('sleeps', 'sleeps', max_attempts => 1);
EOSQL
{
	my $run_id = trigger('background', 'sleeps', '{}');

	ok($node->poll_query_until('background', "SELECT status = 'completed' FROM trigger_idem.runs WHERE run_id = '$run_id'"),
		'a sleep ends by the clock');
	is( query('background', "SELECT attempts_made('$run_id')"),
		'waiting waiting completed', 'and its attempts wait');
	is( query(
			'background', "
			SELECT string_agg((b.started_at >= w.until AND w.ended_at IS NOT NULL)::text, ' ')
			FROM trigger_idem.waits w JOIN trigger_idem.attempts b ON b.run_id = w.run_id AND b.attempt = w.attempt + 1
			WHERE w.run_id = '$run_id'"),
		'true true',
		'not before its time');
}

# ---------- Nothing is held ----------

$node->append_conf('postgresql.conf', <<'EOCONF');
trigger_idem.max_workers_per_database = 1
trigger_idem.worker_idle_time = '300ms'
EOCONF
reload_settings($node);
query('postgres', <<'EOSQL');
CREATE FUNCTION generations(payload jsonb) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	below int := 0;
BEGIN
	IF payload ->> 'generation' <> '1' THEN
		SELECT output INTO below FROM trigger_idem.trigger_task_and_wait('generations',
			jsonb_build_object('generation', (payload ->> 'generation')::int - 1),
			queue => CASE payload ->> 'generation' WHEN '2' THEN 'held' END);
	END IF;
	PERFORM add_effect(payload ->> 'generation');
	RETURN below + 1;
END $$;
SELECT trigger_idem.task_create('generations', 'generations', max_attempts => 1), trigger_idem.queue_pause('held');
SELECT count(trigger_idem.trigger_task('generations', '{"generation": 3}', tags => '{test}')) FROM generate_series(1, 100);
EOSQL
my $workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker' AND datname = 'postgres'";
ok($node->poll_query_until('postgres',
		"SELECT count(*) FILTER (WHERE status = 'waiting') = 200 AND count(*) FILTER (WHERE status = 'queued') = 100
		 FROM trigger_idem.runs WHERE task_id = 'generations'"),
	'one worker: parents and their parents wait');
is( query('postgres', "SELECT sum(executing), sum(waiting) FROM trigger_idem.queues"),
	'0|200', 'waiting: nothing is executing');
ok( $node->poll_query_until(
		'postgres', "
		SELECT count(*) = 0 FROM pg_stat_activity
		WHERE backend_type = 'trigger_idem worker' AND datname = 'postgres'
			AND (state <> 'idle' OR xact_start IS NOT NULL OR backend_xmin IS NOT NULL)"),
	'waiting: no worker is busy or in a transaction');
ok( $node->poll_query_until(
		'postgres', "
		SELECT count(*) = 0 FROM pg_locks l JOIN pg_stat_activity s USING (pid)
		WHERE s.datname = 'postgres' AND pid <> pg_backend_pid()
			AND l.locktype IN ('relation', 'tuple', 'transactionid')"),
	'waiting: no row or table is locked');
ok($node->poll_query_until('postgres', "SELECT ($workers) = 0"), 'waiting: idle workers end');
is( query(
		'postgres', "
		SELECT count(*) FROM pg_locks
		WHERE database = (SELECT oid FROM pg_database WHERE datname = 'postgres') AND pid <> pg_backend_pid()"),
	'0',
	'waiting: then nothing at all is locked');
resume('postgres', 'held');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM unfinished'), 'one worker: all of them complete');
is( query(
		'postgres', "
		SELECT what, count(*), count(DISTINCT run_id), bool_and(output = to_jsonb(what::int))
		FROM effect JOIN trigger_idem.runs USING (run_id) WHERE task_id = 'generations' GROUP BY what ORDER BY what"),
	"1|100|100|t\n2|100|100|t\n3|100|100|t",
	'one worker: every effect is there once');

# ---------- Outside of runs ----------

# The CPU time that processes have taken, in ticks of 10 ms
sub cpu_ticks
{
	my $ticks = 0;

	foreach my $pid (@_)
	{
		my @fields = split / /, slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr;
		$ticks += $fields[11] + $fields[12];
	}
	return $ticks;
}

{
	my @run_ids = map { trigger('postgres', 'outside', '{}') } 1 .. 9;
	my $token = query('postgres', "SELECT token FROM trigger_idem.wait_token_create()");
	my $delay = "SELECT extract(epoch FROM clock_timestamp() - finished_at) FROM trigger_idem.runs WHERE run_id =";
	my @waits = map {
		start_sql($node, "wait_$_", "SELECT status FROM trigger_idem.run_wait('$run_ids[$_]')",
			after => "$delay '$run_ids[$_]'")
	} 0 .. $#run_ids;
	my $on_token = start_sql($node, 'wait_token', "SELECT ok, output FROM trigger_idem.wait_for_token('$token')");
	my $canceled = start_sql($node, 'wait_cancel', "SELECT trigger_idem.run_wait('$run_ids[0]')");
	my $terminated = start_sql($node, 'wait_terminate', "SELECT trigger_idem.wait_for_token('$token')");
	my @pids = map { wait_for_lock($node, $_->{name}, 'Extension') } @waits, $on_token;
	pass('outside: pg_stat_activity shows that they wait');

	# until they look only now and then
	wait_until(time() + 1.2);
	my $ticks = cpu_ticks(@pids);
	my ($pid) = wait_for_lock($node, 'wait_cancel', 'Extension');
	query('postgres', "SELECT pg_cancel_backend($pid)");
	is(finish_sql($canceled), '57014', 'outside: cancelled');
	($pid) = wait_for_lock($node, 'wait_terminate', 'Extension');
	query('postgres', "SELECT pg_terminate_backend($pid)");
	is(finish_sql($terminated), 'connection lost', 'outside: terminated');
	is( finish_sql(
			start_sql($node, 'wait_timeout', "SELECT trigger_idem.run_wait('$run_ids[0]')",
				before => "SET statement_timeout = '100ms'")),
		'57014',
		'outside: statement_timeout');
	is( query('postgres', "SELECT status, output, error FROM trigger_idem.run_wait('$run_ids[0]', timeout => '100 ms')"),
		'queued||', 'outside: the timeout of its own');
	wait_until(time() + 0.5);
	cmp_ok(cpu_ticks(@pids) - $ticks, '<=', 10, 'outside: ten that wait use no CPU');

	query('postgres', "SELECT trigger_idem.run_complete(run_id, attempt) FROM trigger_idem.run_claim('test', 'outside', 100)");
	query('postgres', "SELECT trigger_idem.wait_token_complete('$token', '7')");
	my (@statuses, @delays);
	foreach my $wait (@waits)
	{
		my ($status, $delay) = split /\n/, finish_sql($wait);
		push @statuses, $status;
		push @delays, $delay;
	}
	is(join(' ', @statuses), join(' ', ('completed') x 9), 'outside: they go on when the runs have ended');
	@delays = sort { $a <=> $b } @delays;
	note "delays: @delays";
	cmp_ok($delays[4], '<', 0.25, 'outside: promptly');
	is(finish_sql($on_token), 't|7', 'outside: so does who waits for a token');
}

my $plain = new_server('plain');
{
	my $run_id = $plain->safe_psql('postgres',
		"SELECT trigger_idem.task_create('outside'); SELECT run_id FROM trigger_idem.trigger_task('outside')") =~ s/\s//r;
	my $wait = start_sql($plain, 'wait', "SELECT status FROM trigger_idem.run_wait('$run_id')");
	my $canceled = start_sql($plain, 'wait_cancel', "SELECT status FROM trigger_idem.run_wait('$run_id')");

	my $pid = wait_for_lock($plain, 'wait', 'Extension');
	my $other_pid = wait_for_lock($plain, 'wait_cancel', 'Extension');
	my $ticks = cpu_ticks($pid);
	$plain->safe_psql('postgres', "SELECT pg_cancel_backend($other_pid)");
	is(finish_sql($canceled), '57014', 'outside, not preloaded: cancelled');
	wait_until(time() + 1);
	cmp_ok(cpu_ticks($pid) - $ticks, '<=', 5, 'outside, not preloaded: waiting uses no CPU');
	$plain->safe_psql('postgres', "SELECT trigger_idem.run_complete(run_id, attempt) FROM trigger_idem.run_claim('test')");
	is(finish_sql($wait), 'completed', 'outside, not preloaded: it goes on when the run has ended');
}

# ---------- A dump ----------

# What waits in many ways; the children are in a queue that is paused.
query('dumped', <<'EOSQL');
CREATE PROCEDURE waits(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	answer text;
	approval uuid;
BEGIN
	SELECT token INTO approval FROM trigger_idem.wait_token_create('approval');
	PERFORM trigger_idem.run_once('before', 'before_step');
	COMMIT;
	answer := CASE payload ->> 'for'
		WHEN 'time' THEN (SELECT NULL::text FROM trigger_idem.wait_for('nap', '1 second'))
		WHEN 'child' THEN (SELECT w.status::text FROM trigger_idem.trigger_task_and_wait('child', queue => 'held') w)
		WHEN 'batch' THEN (SELECT string_agg(w.status::text, ' ') FROM trigger_idem.batch_trigger_task_and_wait('child',
			'[{}, {"options": {"queue": "held"}}, {"options": {"queue": "held", "idempotency_key": "k"}}, {"options": {"idempotency_key": "k"}}]') w)
		WHEN 'token' THEN (SELECT output FROM trigger_idem.wait_for_token(approval))::text
		WHEN 'run' THEN (SELECT w.status::text FROM trigger_idem.run_wait((payload ->> 'run')::uuid) w)
		END;
	PERFORM add_effect('after', to_jsonb(answer));
END $$;
SELECT trigger_idem.task_create('waits', 'waits', max_attempts => 1), trigger_idem.queue_pause('held');
SELECT trigger_idem.trigger_task('waits', jsonb_build_object('for', what), tags => '{test}')
FROM unnest(ARRAY['child', 'batch', 'token', 'time']) what;
SELECT trigger_idem.trigger_task('waits', jsonb_build_object('for', 'run', 'run', run_id), tags => '{test}')
FROM trigger_idem.trigger_task('child', queue => 'held');
CALL trigger_idem.work();
EOSQL
is( query('dumped', "SELECT payload->>'for', status FROM unfinished ORDER BY payload->>'for' = 'time', 1") =~ s/time\|.*/time|.../r,
	"batch|waiting\nchild|waiting\nrun|waiting\ntoken|waiting\ntime|...",
	'dump: the original waits');
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('dumped') ], 'dump: made');
$plain->safe_psql('postgres', 'CREATE DATABASE dumped TEMPLATE template0');
$plain->command_ok([ 'pg_restore', '--exit-on-error', '-d', $plain->connstr('dumped'), $dump ], 'dump: restored');
foreach my $view ('attempts', 'waits', 'wait_tokens')
{
	is( $plain->safe_psql('dumped', "SELECT v FROM trigger_idem.$view v ORDER BY v::text COLLATE \"C\""),
		query('dumped', "SELECT v FROM trigger_idem.$view v ORDER BY v::text COLLATE \"C\""),
		"dump: $view are the same");
}
foreach my $server ($plain, $node)
{
	my $what = 'dump, ' . ($server == $plain ? 'copy' : 'original');

	is( $server->safe_psql('dumped', <<'EOSQL'),
SELECT is_cached FROM trigger_idem.wait_token_create('approval');
SELECT trigger_idem.wait_token_complete(token, '"approved"') FROM trigger_idem.wait_token_create('approval');
SELECT trigger_idem.queue_resume('held');
EOSQL
		"t\nt\n", "$what: the token is there");
	ok($server->poll_query_until('dumped', "CALL trigger_idem.work() \\g /dev/null\nSELECT count(*) = 0 FROM unfinished"),
		"$what: goes on");
	is( $server->safe_psql(
			'dumped', "
			SELECT payload->>'for', r.status, attempts_made(run_id), string_agg(what || COALESCE(' ' || note::text, ''), ', ' ORDER BY what DESC)
			FROM trigger_idem.runs r JOIN effect USING (run_id) WHERE task_id = 'waits' GROUP BY run_id, 1, 2 ORDER BY 1"),
		join("\n",
			'batch|completed|waiting completed|before, after "completed completed completed completed"',
			'child|completed|waiting completed|before, after "completed"',
			'run|completed|waiting completed|before, after "completed"',
			'time|completed|waiting completed|before, after',
			'token|completed|waiting completed|before, after "\"approved\""'),
		"$what: with the right answers, and every effect once");
	is($server->safe_psql('dumped', "SELECT count(*), count(DISTINCT run_id) FROM effect WHERE what = 'child'"),
		'5|5', "$what: every child ran once");
}
$plain->stop;

# ---------- A standby ----------

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
{
	my $run_id = query('postgres', "SELECT run_id FROM trigger_idem.trigger_task('outside', idempotency_key => 'standby')");
	my $token = query('postgres', "SELECT token FROM trigger_idem.wait_token_create('standby')");
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	my @waits = (
		start_sql($standby, 'wait_run', "SELECT status, output FROM trigger_idem.run_wait('$run_id')"),
		start_sql($standby, 'wait_and', "SELECT is_cached, status, output FROM trigger_idem.trigger_task_and_wait('outside', idempotency_key => 'standby')"),
		start_sql($standby, 'wait_token', "SELECT ok, output FROM trigger_idem.wait_for_token('$token')"));

	wait_for_lock($standby, $_->{name}, 'Extension') foreach @waits;
	query('postgres', "SELECT trigger_idem.run_complete(run_id, attempt, '42') FROM trigger_idem.run_claim('test', 'outside')");
	query('postgres', "SELECT trigger_idem.wait_token_complete('$token', '43')");
	is(join(' ', map { finish_sql($_) } @waits),
		'completed|42 t|completed|42 t|43', 'standby: who waits goes on when it has ended on the primary');
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	is( $standby->safe_psql(
			'postgres', "
			SELECT is_cached, status, output FROM trigger_idem.trigger_task_and_wait('outside', idempotency_key => 'standby');
			SELECT is_cached, status, output FROM trigger_idem.batch_trigger_task_and_wait('outside', '[{\"options\": {\"idempotency_key\": \"standby\"}}]');
			SELECT is_cached FROM trigger_idem.wait_token_create('standby')"),
		"t|completed|42\nt|completed|42\nt",
		'standby: hits');
	my %errors = (
		"wait_token_create('another')" => '25006',
		'wait_token_create()' => '25006',
		"wait_token_complete('$token')" => '25006',
		"trigger_task_and_wait('outside')" => '55000',
		"wait_for('key', '1 hour')" => 'TI003');
	foreach my $call (sort keys %errors)
	{
		my (undef, undef, $stderr) =
		  $standby->psql('postgres', "SELECT trigger_idem.$call", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($stderr, qr/ERROR:  $errors{$call}:/, "standby: " . $call =~ s/'[-0-9a-f]{36}'/.../r . " raises $errors{$call}");
	}
}
$standby->stop;

# ---------- Batches whose last items end together ----------

$node->append_conf('postgresql.conf', "trigger_idem.max_workers_per_database = 4\ntrigger_idem.worker_idle_time = '10s'");
reload_settings($node);
query('postgres', <<'EOSQL');
TRUNCATE effect;
CREATE FUNCTION small(payload jsonb) RETURNS int LANGUAGE sql AS $$
	SELECT add_effect('small');
	-- where workers are to be killed, it takes a while
	SELECT pg_sleep(0.005) WHERE payload ? 'slow';
	SELECT (payload ->> 'n')::int;
$$;
CREATE FUNCTION sum_up(payload jsonb) RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(output::int) FROM trigger_idem.batch_trigger_task_and_wait('small',
		(SELECT jsonb_agg(jsonb_build_object('payload', jsonb_build_object('n', n))) FROM generate_series(1, 500) n))
$$;
SELECT trigger_idem.task_create('small', 'small', max_attempts => 1),
	trigger_idem.task_create('sum_up', 'sum_up', max_attempts => 1);
EOSQL
foreach my $n (1 .. 25)
{
	if ($n == 13)
	{
		$node->append_conf('postgresql.conf', 'trigger_idem.runs_per_commit = 8');
		reload_settings($node);
	}
	my $run_id = trigger('postgres', 'sum_up', '{}');

	is( query('postgres', "SELECT status, output FROM trigger_idem.run_wait('$run_id', timeout => '180 seconds')"),
		'completed|125250', "batch of 500, time $n");
}
is( query('postgres', "
		SELECT DISTINCT attempts_made(run_id) FROM trigger_idem.runs WHERE task_id = 'sum_up'"),
	'waiting completed', 'batches: each waits once');
is(query('postgres', 'SELECT count(*), count(DISTINCT run_id) FROM effect'), '12500|12500', 'batches: every item ran once');

# ---------- Many wait for the same ----------

# The child ends and the token is completed while others are about to wait for them.
query('postgres', <<'EOSQL');
TRUNCATE effect;
CREATE FUNCTION shares(payload jsonb) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	answer int;
BEGIN
	SELECT output INTO answer FROM trigger_idem.trigger_task_and_wait('small', payload, idempotency_key => payload ->> 'n');
	PERFORM trigger_idem.wait_for_token((payload ->> 'token')::uuid);
	PERFORM add_effect('parent');
	RETURN answer;
END $$;
SELECT trigger_idem.task_create('shares', 'shares', max_attempts => 1);
EOSQL
foreach my $n (1 .. 10)
{
	query('postgres', <<"EOSQL");
SELECT token FROM trigger_idem.wait_token_create() \\gset
SELECT trigger_idem.trigger_task('shares', jsonb_build_object('n', $n, 'token', :'token'::text), tags => '{shares}') FROM generate_series(1, 100);
SELECT run_id FROM trigger_idem.trigger_task('small', '{"n": $n}', idempotency_key => '$n') \\gset
SELECT trigger_idem.run_wait(:'run_id', timeout => '180 seconds');
SELECT trigger_idem.wait_token_complete(:'token');
EOSQL
}
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM unfinished'), 'shared: all that waited end');
is( query('postgres', "
		SELECT status, count(*), bool_and(output = payload -> 'n') FROM trigger_idem.runs WHERE tags = '{shares}' GROUP BY status"),
	'completed|1000|t', 'shared: with the answer');
is( query('postgres', 'SELECT what, count(*), count(DISTINCT run_id) FROM effect GROUP BY what ORDER BY what'),
	"parent|1000|1000\nsmall|10|10", 'shared: every child ran once');

# ---------- Workers are killed ----------

query('postgres', <<'EOSQL');
TRUNCATE effect;
SELECT trigger_idem.task_create('small', 'small', max_attempts => 20, min_backoff => '0');
CREATE FUNCTION has_child(payload jsonb) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	answer int;
BEGIN
	SELECT output INTO answer FROM trigger_idem.trigger_task_and_wait('small', payload);
	PERFORM add_effect('parent');
	RETURN answer;
END $$;
SELECT trigger_idem.task_create('has_child', 'has_child', max_attempts => 20, min_backoff => '0');
EOSQL
# so many at a time that a worker is in the middle of something
foreach my $from (1, 201, 401, 601, 801)
{
	query('postgres', "
		SELECT count(trigger_idem.trigger_task('has_child', jsonb_build_object('n', n, 'slow', true), tags => '{killed}'))
		FROM generate_series($from, $from + 199) n");
	wait_until(time() + rand 0.3);
	my $workers = "FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker' AND datname = 'postgres'";
	$node->poll_query_until('postgres', "SELECT EXISTS (SELECT $workers)") or die 'no worker to kill';
	my @pids = split /\n/, query('postgres', "SELECT pid $workers");
	my $log_offset = -s $node->logfile;

	wait_for_restart($node, $log_offset) if @pids && kill 'KILL', $pids[ rand @pids ];
}
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM unfinished'), 'killed: all parents end');
is( query('postgres',
		"SELECT status, count(*), bool_and(output = payload -> 'n') FROM trigger_idem.runs WHERE tags = '{killed}' GROUP BY status"),
	'completed|1000|t', 'killed: all parents complete');
is( query('postgres', 'SELECT what, count(*), count(DISTINCT run_id) FROM effect GROUP BY what ORDER BY what'),
	"parent|1000|1000\nsmall|1000|1000", 'killed: every effect is there once');
is( query('postgres', "
		SELECT count(*) FROM (SELECT run_id FROM trigger_idem.attempts JOIN trigger_idem.runs r USING (run_id)
		WHERE r.tags = '{killed}' AND attempts.status = 'waiting' GROUP BY run_id HAVING count(*) <> 1) s"),
	'0', 'killed: every parent waited once');

foreach my $server ($node, $plain, $standby)
{
	is( join("\n", slurp_file($server->logfile) =~ /^.*(?:still active|\bleak|not closed|TRAP|PANIC|XX000).*$/gm),
		'', $server->name . ': no internal error, and nothing is left over at a commit');
}

$node->stop;
done_testing();
