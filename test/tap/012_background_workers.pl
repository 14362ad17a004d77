# Background workers: started when there is work, as the role of the task, and
# out of the way of everybody else.
#
# Promised:
#
# - what is triggered, retried or delayed is worked without anybody calling work(),
#   by a worker that is logged in as the task's role
# - a rolled-back trigger or savepoint wakes nobody
# - no more workers than the settings say, and none where trigger_idem.databases
#   does not name the database; a reload changes that
# - before 17, a role that may not log in is not worked for, and task_create() says
#   so; since 17 it is worked for
# - idle workers end, and do not stand in the way of DROP DATABASE, CREATE
#   DATABASE .. TEMPLATE, ALTER DATABASE .. SET TABLESPACE and DROP EXTENSION
# - SIGTERM and a fast shutdown: the attempt in hand is given back and does not
#   count; the launcher comes back
# - kill -9: the server restarts, the run is taken over and ends
# - a standby has none until it is promoted

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main', <<'EOCONF');
shared_preload_libraries = 'trigger_idem'
trigger_idem.databases = 'postgres'
trigger_idem.poll_interval = '200ms'
restart_after_crash = on
wal_level = replica
max_wal_senders = 4
EOCONF

$node->safe_psql('postgres', <<'EOSQL');
CREATE ROLE alice LOGIN;
CREATE TABLE effect (n int, who text DEFAULT current_user, logged_in text DEFAULT session_user, attempt int DEFAULT trigger_idem.current_attempt());
GRANT INSERT ON effect TO alice;
GRANT USAGE ON SCHEMA trigger_idem TO alice;
GRANT EXECUTE ON FUNCTION trigger_idem.current_attempt TO alice;
CREATE FUNCTION effect(payload jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO effect (n) VALUES (($1->>''n'')::int)';
CREATE PROCEDURE effect_twice(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO effect (n) VALUES ((payload->>'n')::int);
	COMMIT;
	INSERT INTO effect (n) VALUES ((payload->>'n')::int);
END $$;
CREATE FUNCTION fail_once(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF trigger_idem.current_attempt() = 1 THEN
		RAISE 'not yet';
	END IF;
	INSERT INTO effect (n) VALUES ((payload->>'n')::int);
END $$;
-- waits until somebody opens the gate, an advisory lock
CREATE FUNCTION waits(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO effect (n) VALUES ((payload->>'n')::int);
	PERFORM pg_advisory_xact_lock_shared(1);
END $$;
-- its first attempt goes on until it is interrupted
CREATE FUNCTION goes_on(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO effect (n) VALUES ((payload->>'n')::int);
	IF trigger_idem.current_attempt() = 1 THEN
		PERFORM pg_sleep(3600);
	END IF;
END $$;
SELECT trigger_idem.task_create('goes_on', 'goes_on', max_attempts => 1);
SELECT trigger_idem.task_create('effect', 'effect'), trigger_idem.task_create('effect_twice', 'effect_twice'),
	trigger_idem.task_create('fail_once', 'fail_once', min_backoff => '10 ms'),
	trigger_idem.task_create('waits', 'waits', max_attempts => 1),
	trigger_idem.task_create('of_alice', 'effect', run_as => 'alice');
EOSQL

# How many workers are there?
my $workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker'";

sub ends
{
	my ($what, $status, $runs) = @_;

	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = $runs AND bool_and(status = '$status') FROM trigger_idem.runs WHERE task_id = '$what'"),
		"$what: $status");
	return;
}

# ---------- Working ----------

$node->safe_psql('postgres', <<'EOSQL');
SELECT trigger_idem.trigger_task('effect', '{"n": 1}');
SELECT trigger_idem.trigger_task('effect', '{"n": 2}', delay => '100 ms');
SELECT trigger_idem.trigger_task('effect_twice', '{"n": 3}');
SELECT trigger_idem.trigger_task('fail_once', '{"n": 4}');
SELECT trigger_idem.trigger_task('of_alice', '{"n": 5}');
BEGIN;
SELECT trigger_idem.trigger_task('effect', '{"n": 6}');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT trigger_idem.trigger_task('effect', '{"n": 7}');
ROLLBACK TO s;
COMMIT;
EOSQL
ends('effect', 'completed', 2);
ends('effect_twice', 'completed', 1);
ends('fail_once', 'completed', 1);
ends('of_alice', 'completed', 1);
is( $node->safe_psql('postgres', 'SELECT n, who = logged_in, attempt FROM effect ORDER BY n, attempt'),
	"1|t|1\n2|t|1\n3|t|1\n3|t|1\n4|t|2\n5|t|1", 'every effect is there once');
is($node->safe_psql('postgres', 'SELECT who FROM effect WHERE n = 5'), 'alice', "as the task's role");

my (undef, undef, $stderr) = $node->psql('postgres', <<'EOSQL');
CREATE ROLE nobody;
GRANT EXECUTE ON FUNCTION effect TO nobody;
GRANT alice TO nobody;
SELECT trigger_idem.task_create('of_nobody', 'effect', run_as => 'nobody');
SELECT trigger_idem.trigger_task('of_nobody', '{"n": 8}');
EOSQL
if ($node->pg_version < 17)
{
	like($stderr, qr/WARNING:  no background worker can work task "of_nobody"/, 'a role without login: warning');
}
else
{
	unlike($stderr, qr/WARNING/, 'a role without login: no warning');
	ends('of_nobody', 'completed', 1);
	$node->safe_psql('postgres', 'DELETE FROM effect WHERE n = 8');
}
unlike(slurp_file($node->logfile), qr/is not permitted to log in/, 'a role without login: not tried');

# ---------- Bounds ----------

$node->append_conf('postgresql.conf', "trigger_idem.max_workers_per_database = 2\ntrigger_idem.worker_idle_time = '100ms'");
reload_settings($node);
ok($node->poll_query_until('postgres', "SELECT ($workers) = 0"), 'idle workers end');
my $gate = close_gate($node, 1);
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('waits', '{\"n\": 10}') FROM generate_series(1, 5)");
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('waits', '{\"n\": 10}')") for 1 .. 3;
ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM trigger_idem.attempts WHERE status = 'executing'"),
	'as many workers as there may be');
is($node->safe_psql('postgres', $workers), '2', 'and no more');
like( $node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker' LIMIT 1"),
	qr/^trigger_idem: task waits, run [-0-9a-f]+, attempt 1$/, 'pg_stat_activity tells what they do');

# ---------- Ending in order ----------

# terminated: given back, not counted, though max_attempts is 1
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker'");
ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM trigger_idem.attempts WHERE status = 'released'"),
	'SIGTERM: the attempts are given back');
ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM trigger_idem.attempts WHERE status = 'executing'"),
	'SIGTERM: others go on');

my $launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'trigger_idem launcher'";
my $old_launcher = $node->safe_psql('postgres', $launcher);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($old_launcher)");
ok($node->poll_query_until('postgres', "SELECT EXISTS ($launcher AND pid <> $old_launcher)"), 'the launcher comes back');

open_gate($gate);
ends('waits', 'completed', 8);
is($node->safe_psql('postgres', 'SELECT count(*) FROM effect WHERE n = 10'), '8', 'every effect is there once');

$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('goes_on', '{\"n\": 11}')");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM trigger_idem.attempts WHERE status = 'executing'"), 'executing');
$node->stop('fast');
$node->start;
ends('goes_on', 'completed', 1);
like( $node->safe_psql('postgres', "SELECT string_agg(a.status, ' ' ORDER BY a.attempt) FROM trigger_idem.attempts a JOIN trigger_idem.runs r USING (run_id) WHERE payload->>'n' = '11'"),
	qr/^(released )+completed$/, 'a fast shutdown gives the attempt back, perhaps from one worker to the next');

# ---------- Out of the way ----------

$node->append_conf('postgresql.conf', "trigger_idem.databases = '*'\ntrigger_idem.worker_idle_time = '1h'");
reload_settings($node);
$node->safe_psql('postgres', 'CREATE DATABASE other TEMPLATE template0');
$node->safe_psql('other', <<'EOSQL');
CREATE EXTENSION trigger_idem;
CREATE FUNCTION noop() RETURNS void LANGUAGE sql RETURN NULL;
SELECT trigger_idem.task_create('noop', 'noop');
SELECT trigger_idem.trigger_task('noop');
EOSQL
ok($node->poll_query_until('other', "SELECT status = 'completed' FROM trigger_idem.runs"), 'another database is served');
ok($node->poll_query_until('postgres', "SELECT EXISTS ($workers AND datname = 'other' AND state = 'idle')"), 'by a worker that is idle now');
$node->safe_psql('other', 'DROP EXTENSION trigger_idem CASCADE; CREATE EXTENSION trigger_idem');
pass('DROP EXTENSION beside an idle worker');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE other');
pass('CREATE DATABASE .. TEMPLATE beside an idle worker');
$node->safe_psql('postgres', 'DROP DATABASE other');
pass('DROP DATABASE beside an idle worker');
$node->safe_psql('copy', <<'EOSQL');
ALTER DATABASE copy CONNECTION LIMIT 50;
SELECT trigger_idem.task_create('noop', 'noop');
SELECT trigger_idem.trigger_task('noop');
EOSQL
ok($node->poll_query_until('postgres', "SELECT EXISTS ($workers AND datname = 'copy' AND state = 'idle')"), 'the copy is served, too');
$node->safe_psql('postgres', <<'EOSQL');
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE elsewhere LOCATION '';
ALTER DATABASE copy SET TABLESPACE elsewhere;
DROP DATABASE copy;
DROP TABLESPACE elsewhere;
EOSQL
pass('ALTER DATABASE .. SET TABLESPACE beside an idle worker');

$node->append_conf('postgresql.conf', "trigger_idem.databases = ''");
reload_settings($node);
ok($node->poll_query_until('postgres', "SELECT ($workers) = 0"), 'no database is served any more');
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('effect', '{\"n\": 12}')");

# ---------- Standby ----------

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', "trigger_idem.databases = 'postgres'");
$standby->start;
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'trigger_idem%'"),
	'0', 'a standby is quiet');
$node->stop('immediate');
$standby->promote;
$node = $standby;
ends('effect', 'completed', 3);

# ---------- Crash ----------

$gate = close_gate($node, 1);
$node->safe_psql('postgres', "SELECT trigger_idem.task_create('waits', 'waits', max_attempts => 2)");
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('waits', '{\"n\": 13}')");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM trigger_idem.attempts WHERE status = 'executing'"), 'executing');
my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker' AND query LIKE '%waits%'");
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
kill 'KILL', $pid;
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM trigger_idem.attempts a JOIN trigger_idem.runs r USING (run_id) WHERE payload->>'n' = '13' AND a.status = 'crashed'"),
	'kill -9: the run is taken over');
ok($node->poll_query_until('postgres', "SELECT status = 'completed' FROM trigger_idem.runs WHERE payload->>'n' = '13'"),
	'kill -9: the run ends');
is($node->safe_psql('postgres', 'SELECT count(*) FROM effect WHERE n = 13'), '1', 'kill -9: its effect is there once');

unlike(slurp_file($node->logfile), qr/XX000|TRAP/, 'no internal error');
done_testing();
