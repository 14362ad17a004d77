# Background workers where the next scan is an hour away: what is worked, somebody was
# woken for.
#
# Promised:
#
# - a commit wakes a worker of every role that it made something runnable for, also in
#   savepoints that were released
# - a scan passes by what nobody can work
# - what a worker has in hand and will not begin soon, others work
# - SIGTERM at any moment: what was not begun is given back, what is executing is
#   interrupted, the second time at once; a crashed attempt is looked for
# - a busy worker follows a reload, and ends where its database is not served any more
# - DROP DATABASE and ALTER DATABASE .. RENAME end the workers of that database only,
#   for its owner only; what is triggered meanwhile is worked a little later
# - the hooks of other libraries are called

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main', <<'EOCONF');
shared_preload_libraries = 'pg_stat_statements, trigger_idem'
trigger_idem.databases = 'postgres'
trigger_idem.poll_interval = '1h'
trigger_idem.worker_idle_time = '100ms'
max_worker_processes = 20
wal_level = logical
EOCONF

my $setup = <<'EOSQL';
CREATE EXTENSION IF NOT EXISTS trigger_idem;
CREATE TABLE effect (what text, attempt int DEFAULT trigger_idem.current_attempt());
GRANT INSERT ON effect TO PUBLIC;
GRANT USAGE ON SCHEMA trigger_idem TO PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA trigger_idem TO PUBLIC;
CREATE FUNCTION effect(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.effect (what) VALUES (payload->>'what');
END $$;
-- In its first attempt it stops at gate 1, and goes on when it is interrupted there:
-- it returns, raises an error, asks to wait, or stops at gate 2.
CREATE FUNCTION stops(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	-- who has written cannot wait
	IF trigger_idem.current_attempt() > 1 OR payload->>'then' IS DISTINCT FROM 'waits' THEN
		INSERT INTO public.effect (what) VALUES (payload->>'what');
	END IF;
	IF trigger_idem.current_attempt() > 1 OR payload->>'then' IS NULL THEN
		RETURN;
	END IF;
	BEGIN
		PERFORM pg_advisory_lock_shared(1);
		PERFORM pg_advisory_unlock_shared(1);
	EXCEPTION WHEN query_canceled THEN
		IF payload->>'then' = 'raises' THEN
			RAISE EXCEPTION 'its own error';
		END IF;
	END;
	IF payload->>'then' = 'waits' THEN
		PERFORM trigger_idem.wait_for('a moment', '1 s');
	ELSIF payload->>'then' = 'goes on' THEN
		PERFORM pg_advisory_lock_shared(2);
	END IF;
END $$;
SELECT trigger_idem.task_create('effect', 'effect', queue => 'effect');
SELECT trigger_idem.task_create('of_alice', 'effect', queue => 'of_alice', run_as => 'alice');
SELECT trigger_idem.task_create('of_bob', 'stops', queue => 'of_bob', run_as => 'bob', min_backoff => '0', max_attempts => 2);
EOSQL
$node->safe_psql('postgres', <<'EOSQL');
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
ALTER ROLE bob SET trigger_idem.runs_per_commit = 3;
CREATE EXTENSION pg_stat_statements;
EOSQL
$node->safe_psql('postgres', $setup);

# Trigger runs with these payloads, in one transaction
sub trigger
{
	my ($task, @payloads) = @_;

	$node->safe_psql('postgres',
		join(';', 'BEGIN', (map { "SELECT trigger_idem.trigger_task('$task', '$_')" } @payloads), 'COMMIT'));
	return;
}

# Wait until a run, known by the effect that it has, has this status.
sub ends
{
	my ($what, $status, $dbname) = @_;

	ok( $node->poll_query_until(
			$dbname // 'postgres',
			"SELECT status = '$status' FROM trigger_idem.runs WHERE payload->>'what' = '$what'"),
		"$what: $status");
	return;
}

# Its attempts, and how often its effect is there
sub history
{
	my ($what) = @_;

	return attempts_of($node,
		$node->safe_psql('postgres', "SELECT run_id FROM trigger_idem.runs WHERE payload->>'what' = '$what'"))
	  . '; '
	  . $node->safe_psql('postgres', "SELECT count(*) FROM effect WHERE what = '$what'");
}

# Wait until a worker waits for a lock; returns its pid.
sub worker_at
{
	my ($lock) = @_;
	my $waiting = "FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND $lock"
	  . " AND backend_type = 'trigger_idem worker'";

	$node->poll_query_until('postgres', "SELECT count(*) = 1 $waiting")
	  or die "no worker waits where $lock";
	return $node->safe_psql('postgres', "SELECT pid $waiting");
}

sub worker_at_gate
{
	my ($number) = @_;

	return worker_at("locktype = 'advisory' AND objid = $number");
}

sub terminate
{
	my ($pid) = @_;

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	return;
}

sub serve
{
	my ($databases) = @_;

	$node->append_conf('postgresql.conf', "trigger_idem.databases = '$databases'");
	reload_settings($node);
	return;
}

# ---------- Waking ----------

$node->safe_psql('postgres', <<'EOSQL');
BEGIN;
SELECT trigger_idem.trigger_task('effect', '{"what": "one of two roles"}');
SELECT trigger_idem.trigger_task('of_alice', '{"what": "the other"}');
COMMIT;
EOSQL
ends('one of two roles', 'completed');
ends('the other', 'completed');
$node->safe_psql('postgres', <<'EOSQL');
BEGIN;
SELECT trigger_idem.trigger_task('effect', '{"what": "before savepoints"}');
SAVEPOINT a;
SELECT trigger_idem.trigger_task('of_alice', '{"what": "in a savepoint"}');
RELEASE a;
SAVEPOINT b;
SELECT trigger_idem.trigger_task('of_bob', '{"what": "never"}');
ROLLBACK TO b;
COMMIT;
EOSQL
ends('before savepoints', 'completed');
ends('in a savepoint', 'completed');

is( $node->safe_psql('postgres', <<'EOSQL'),
SELECT run_id AS delayed FROM trigger_idem.trigger_task('effect', '{"what": "delayed"}', delay => '1 hour') \gset
SELECT timed_out FROM trigger_idem.run_wait(:'delayed', '1 ms');
SELECT timed_out FROM trigger_idem.run_wait(:'delayed', '1 ms');
SELECT run_id FROM trigger_idem.trigger_task('effect', '{"what": "waited for"}') \gset
SELECT status FROM trigger_idem.run_wait(:'run_id');
EOSQL
	"t\nt\ncompleted", 'a session waits, time and again');

$node->safe_psql('postgres', <<'EOSQL');
CREATE ROLE carol LOGIN;
SELECT trigger_idem.task_create('of_carol', 'effect', queue => 'of_carol', run_as => 'carol');
DROP ROLE carol;
SELECT trigger_idem.trigger_task('of_carol', '{"what": "nobody is carol"}');
CREATE ROLE carol LOGIN;
SELECT trigger_idem.trigger_task('of_carol', '{"what": "carol is back"}');
EOSQL
ends('nobody is carol', 'completed');
ends('carol is back', 'completed');

$node->safe_psql('postgres', <<'EOSQL');
CREATE PROCEDURE drops_task(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	IF trigger_idem.current_attempt() = 1 THEN
		PERFORM trigger_idem.task_drop('drops_task');
		COMMIT;
		RAISE EXCEPTION 'dropped';
	END IF;
END $$;
SELECT trigger_idem.task_create('drops_task', 'drops_task', queue => 'drops_task', min_backoff => '0');
SELECT trigger_idem.trigger_task('drops_task', '{"what": "drops its task"}');
EOSQL
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM trigger_idem.attempts WHERE error->>'message' = 'dropped')")
  or die 'the task is not dropped';
$node->safe_psql('postgres', <<'EOSQL');
SELECT trigger_idem.task_create('drops_task', 'drops_task', queue => 'drops_task');
SELECT trigger_idem.queue_resume('drops_task');
EOSQL
ends('drops its task', 'completed');

# ---------- Scans ----------

# nobody looks while these are made
serve('');
ok( $node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker')"),
	'no database is served');
$node->safe_psql('postgres', <<'EOSQL');
SELECT trigger_idem.trigger_task('effect', '{"what": "first, but not due"}', priority => 7200, delay => '1 hour', queue => 'mixed');
SELECT trigger_idem.trigger_task('effect', '{"what": "expired"}', ttl => '1 us', queue => 'mixed');
SELECT trigger_idem.task_create('dropped', 'effect'), trigger_idem.task_create('missing', 'effect');
SELECT trigger_idem.trigger_task('dropped', '{"what": "dropped"}', queue => 'mixed');
SELECT trigger_idem.task_drop('dropped');
SELECT trigger_idem.trigger_task('missing', '{"what": "missing"}', queue => 'mixed');
-- as while a dump is restored
DELETE FROM trigger_idem.task WHERE task_id = 'missing';
SELECT trigger_idem.trigger_task('of_alice', '{"what": "last"}', queue => 'mixed');
EOSQL
serve('postgres');
ends('last', 'completed');
is( $node->safe_psql('postgres', "SELECT string_agg(status::text, ' ' ORDER BY run_id) FROM trigger_idem.runs WHERE queue = 'mixed'"),
	'delayed expired queued queued completed', 'a scan passes by the others');

# a scan that is on its way when its database is no longer served
$node->safe_psql('postgres', 'CREATE DATABASE other TEMPLATE template0');
$node->safe_psql('other', $setup);
my $locking = open_session($node);
$locking->query_safe('BEGIN; LOCK TABLE trigger_idem.queue_entry');
$node->safe_psql('postgres', "SELECT trigger_idem.queue_resume('effect')");
my $scanner = "FROM pg_stat_activity WHERE backend_type = 'trigger_idem scanner'";
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $scanner AND wait_event = 'relation'"), 'a scan waits');
serve('other');
$node->safe_psql('other', q(SELECT trigger_idem.trigger_task('effect', '{"what": "elsewhere"}')));
ends('elsewhere', 'completed', 'other');
$locking->query_safe('ROLLBACK');
ok($node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT $scanner)"), 'it ends');
serve('postgres');
$node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT $scanner)");

# one that is terminated is not mourned, the next one comes in its time
$locking->query_safe('BEGIN; LOCK TABLE trigger_idem.queue_entry');
$node->safe_psql('postgres', "SELECT trigger_idem.queue_resume('effect')");
$node->poll_query_until('postgres', "SELECT count(*) = 1 $scanner AND wait_event = 'relation'") or die 'no scan waits';
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 60000) $scanner");
$locking->query_safe('COMMIT');
trigger('effect', '{"what": "after a scan was terminated"}');
ends('after a scan was terminated', 'completed');

# ---------- What is in hand ----------

# three are claimed together, and the first takes long
my $gate = close_gate($node, 1);
trigger('of_bob', map { qq({"what": "in hand $_"}) =~ s/1"/1", "then": "returns"/r } 1 .. 3);
ends('in hand 2', 'completed');
ends('in hand 3', 'completed');
is(history('in hand 1'), 'executing; 0', 'in hand 1: executing meanwhile');
is(history('in hand 2'), 'released, completed; 1', 'in hand 2: given to another worker');
open_gate($gate);
ends('in hand 1', 'completed');

# the same, but nobody shall be started there any more: a claim stops at gate 3
$node->safe_psql('postgres', <<'EOSQL');
CREATE FUNCTION stop_at_claim(started_at timestamptz) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF started_at IS NOT NULL THEN
		PERFORM pg_catalog.pg_advisory_lock_shared(3);
		PERFORM pg_catalog.pg_advisory_unlock_shared(3);
	END IF;
	RETURN 0;
END $$;
CREATE INDEX ON trigger_idem.queue_entry (stop_at_claim(started_at));
EOSQL
$gate = close_gate($node, 1);
my $claim_gate = close_gate($node, 3);
trigger('of_bob', map { qq({"what": "in hands $_"}) =~ s/1"/1", "then": "returns"/r } 1 .. 3);
worker_at_gate(3);
serve('other');
$node->safe_psql('other', q(SELECT trigger_idem.trigger_task('effect', '{"what": "nowhere else"}')));
ends('nowhere else', 'completed', 'other');
open_gate($claim_gate);
worker_at_gate(1);
$node->poll_query_until('postgres', "SELECT clock_timestamp() - started_at > '1 s' FROM trigger_idem.attempts WHERE status = 'executing' ORDER BY started_at LIMIT 1")
  or die 'it does not execute';
$node->safe_psql('other', q(SELECT trigger_idem.trigger_task('effect', '{"what": "elsewhere again"}')));
ends('elsewhere again', 'completed', 'other');
open_gate($gate);
ends('in hands 3', 'completed');
is(history('in hands 3'), 'completed; 1', 'in hands 3: by the worker that had it, for its database is not served');
serve('postgres');

# a worker that meets no extension ends, and would wait for an hour otherwise
$node->safe_psql('postgres', 'CREATE DATABASE without TEMPLATE template0');
$node->safe_psql('without', $setup);
$node->append_conf('postgresql.conf', "trigger_idem.worker_idle_time = '1h'");
serve('without');
$node->safe_psql('without', q(SELECT trigger_idem.trigger_task('effect', '{"what": "with extension"}')));
ends('with extension', 'completed', 'without');
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'without' AND backend_type = 'trigger_idem worker' AND state = 'idle'")
  or die 'no idle worker';
my $log_offset = -s $node->logfile;
my $session = open_session($node, 'without');
$locking->query_safe('BEGIN; LOCK TABLE pg_catalog.pg_db_role_setting');
$session->query_safe(q(SELECT trigger_idem.trigger_task('of_bob', '{"what": "without extension"}')));
poll_session($session, "SELECT count(*) = 1 FROM pg_catalog.pg_locks WHERE NOT granted AND relation = 'pg_catalog.pg_db_role_setting'::regclass");
$session->query_safe('SET client_min_messages = warning; DROP EXTENSION trigger_idem CASCADE');
$locking->query_safe('COMMIT');
$session->quit;
my $workers = "FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker'";
ok($node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT $workers AND usename = 'bob')"), 'a worker that meets no extension ends');
unlike(slurp_file($node->logfile, $log_offset), qr/ERROR|FATAL/, 'and that is no error');
$node->append_conf('postgresql.conf', "trigger_idem.worker_idle_time = '100ms'");
serve('postgres');

# ---------- SIGTERM ----------

$gate = close_gate($node, 1);
my $gate_2 = close_gate($node, 2);

# the handler makes an error of its own of the cancel
trigger('of_bob', '{"what": "raises", "then": "raises"}');
terminate(worker_at_gate(1));
ends('raises', 'completed');
is(history('raises'), 'failed P0001, completed; 1', 'an error of its own counts');

# it goes on: what has happened is committed, the rest of its group is given back
trigger('of_bob', '{"what": "returns", "then": "returns"}', '{"what": "its group"}');
terminate(worker_at_gate(1));
ends('returns', 'completed');
ends('its group', 'completed');
is(history('returns'), 'completed; 1', 'a handler that goes on and returns completes its run');
is(history('its group'), 'released, completed; 1', 'the rest of its group is given back');

# it goes on and asks to wait
trigger('of_bob', '{"what": "waits", "then": "waits"}');
terminate(worker_at_gate(1));
ends('waits', 'completed');
like(history('waits'), qr/^(waiting|released 57014), completed; 1$/, 'it is suspended, if it was not interrupted');

# it goes on and on: the second signal ends the process, and somebody looks for its run
trigger('of_bob', '{"what": "goes on", "then": "goes on"}');
terminate(worker_at_gate(1));
terminate(worker_at_gate(2));
ends('goes on', 'completed');
is(history('goes on'), 'crashed 57P02, completed; 1', 'the second SIGTERM ends it at once');

# the same where the database is not served any more
trigger('of_bob', '{"what": "goes on again", "then": "goes on"}');
my $pid = worker_at_gate(1);
serve('other');
$node->safe_psql('other', q(SELECT trigger_idem.trigger_task('effect', '{"what": "elsewhere once more"}')));
ends('elsewhere once more', 'completed', 'other');
terminate($pid);
worker_at_gate(2);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
is(history('goes on again'), 'executing; 0', 'where no database is served, nobody looks');
serve('postgres');
ends('goes on again', 'completed');
open_gate($gate);
open_gate($gate_2);

# while it claims, and between the claim and the handler
$gate = close_gate($node, 3);
trigger('of_bob', '{"what": "claimed"}');
terminate(worker_at_gate(3));
open_gate($gate);
ends('claimed', 'completed');
is(history('claimed'), 'released, completed; 1', 'SIGTERM while it claims: it does not begin');

$gate = close_gate($node, 3);
$gate_2 = close_gate($node, 4);
trigger('of_bob', '{"what": "begun"}');
worker_at_gate(3);
my $dropping = start_sql($node, 'dropping', 'DROP EXTENSION trigger_idem CASCADE',
	before => 'BEGIN', after => 'SELECT pg_advisory_lock(4)');
wait_for_lock($node, 'dropping', 'object');
open_gate($gate);
wait_at_gate($node, 'dropping');
terminate(worker_at("locktype = 'object'"));
open_gate($gate_2);
finish_sql($dropping);
ends('begun', 'completed');
is(history('begun'), 'released 57014, completed; 1', 'SIGTERM just before the handler: it is interrupted at once');

# ---------- What an error leaves behind ----------

$node->safe_psql('postgres', <<'EOSQL');
SELECT FROM pg_create_logical_replication_slot('slot', 'pgoutput');
-- without its options the plugin fails while the slot is ours
CREATE FUNCTION uses_slot(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF trigger_idem.current_attempt() = 1 THEN
		PERFORM pg_logical_slot_get_binary_changes('slot', NULL, NULL);
	END IF;
	PERFORM pg_drop_replication_slot('slot');
END $$;
SELECT trigger_idem.task_create('uses_slot', 'uses_slot', min_backoff => '0', max_attempts => 2);
EOSQL
trigger('uses_slot', '{"what": "uses a slot"}');
ends('uses a slot', 'completed');

# ---------- While it is busy ----------

# before it claims again, it follows a reload
$node->safe_psql('postgres', <<'EOSQL');
CREATE FUNCTION reads(payload jsonb) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.effect (what) VALUES (payload->>'what' || ' ' || current_setting('work_mem')) $$;
SELECT trigger_idem.task_create('reads', 'reads', queue => 'of_bob', run_as => 'bob');
EOSQL
$node->append_conf('postgresql.conf', 'trigger_idem.max_workers_per_database = 1');
reload_settings($node);
$gate = close_gate($node, 1);
trigger('of_bob', '{"what": "before a reload", "then": "returns"}');
worker_at_gate(1);
trigger('reads', '{"what": "reads"}');
$node->append_conf('postgresql.conf', "work_mem = '5555kB'");
reload_settings($node);
open_gate($gate);
ends('reads', 'completed');
is($node->safe_psql('postgres', "SELECT what FROM effect WHERE what ~ '^reads'"), 'reads 5555kB', 'a busy worker follows a reload');

# and leaves what is there where its database is not served any more
$gate = close_gate($node, 1);
trigger('of_bob', '{"what": "before it is left", "then": "returns"}');
worker_at_gate(1);
trigger('of_bob', '{"what": "left behind"}');
serve('other');
$node->safe_psql('other', q(SELECT trigger_idem.trigger_task('effect', '{"what": "and elsewhere"}')));
ends('and elsewhere', 'completed', 'other');
open_gate($gate);
$node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT $workers AND datname = 'postgres')") or die 'the worker does not end';
ends('before it is left', 'completed');
ends('left behind', 'queued');
$node->append_conf('postgresql.conf', 'trigger_idem.max_workers_per_database = 4');
serve('postgres');
ends('left behind', 'completed');

# ---------- Databases ----------

$node->append_conf('postgresql.conf', "trigger_idem.worker_idle_time = '1h'");
serve('*');
my $idle = "FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker' AND state = 'idle' AND usename = 'alice'";
foreach my $dbname ('postgres', 'other')
{
	$node->safe_psql($dbname, q(SELECT trigger_idem.trigger_task('of_alice', '{"what": "leaves a worker"}')));
	$node->poll_query_until('postgres', "SELECT count(*) = 1 $idle AND datname = '$dbname'") or die 'no idle worker';
}
my $pids = $node->safe_psql('postgres', "SELECT array_agg(pid ORDER BY pid) $idle");
my (undef, undef, $stderr) = $node->psql('postgres', 'DROP DATABASE other', extra_params => [ '-U', 'alice' ]);
like($stderr, qr/must be owner of database other/, 'not the owner: an error');
$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS nowhere');
$node->safe_psql('postgres', 'CREATE DATABASE plain TEMPLATE DEFAULT');
$node->safe_psql('postgres', 'ALTER TABLE effect RENAME TO effects; ALTER TABLE effects RENAME TO effect');
is($node->safe_psql('postgres', "SELECT array_agg(pid ORDER BY pid) $idle"), $pids, 'all workers are still there');

$node->safe_psql('postgres', 'ALTER DATABASE other RENAME TO renamed');
pass('ALTER DATABASE .. RENAME beside an idle worker');
is($node->safe_psql('postgres', "SELECT datname $idle"), 'postgres', 'the other database keeps its worker');
my $asked_at = $node->safe_psql('renamed', <<'EOSQL');
SELECT clock_timestamp() FROM trigger_idem.queue_resume('effect'), trigger_idem.trigger_task('effect', '{"what": "later"}');
EOSQL
ends('later', 'completed', 'renamed');
cmp_ok(
	$node->safe_psql('renamed', "SELECT extract(epoch FROM started_at - '$asked_at') FROM trigger_idem.runs WHERE payload->>'what' = 'later'"),
	'>', 5, 'workers stay away for a while');

is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_statements WHERE query = 'ALTER DATABASE other RENAME TO renamed'"),
	'1', 'the hooks of a library that was loaded before are called');

# ---------- Settings ----------

(undef, undef, $stderr) = $node->psql('postgres', q(ALTER SYSTEM SET trigger_idem.databases = 'two words'));
like($stderr, qr/invalid value for parameter "trigger_idem.databases".*List syntax is invalid/s, 'a list must be one');

unlike(slurp_file($node->logfile), qr/XX000|TRAP|could not start a background worker/, 'no internal error');
$node->stop;
done_testing();
