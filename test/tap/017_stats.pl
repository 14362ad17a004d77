# Counters, with preloading: what is committed is counted, what is rolled back is not.

use strict;
use warnings;

use File::Basename;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use TriggerIdem;

my $node = new_server('main', <<'EOCONF');
shared_preload_libraries = 'trigger_idem'
max_prepared_transactions = 5
EOCONF

$node->safe_psql('postgres', <<'EOSQL');
CREATE FUNCTION one(idempotency_key text) RETURNS int LANGUAGE sql RETURN 1;
CREATE FUNCTION steps(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('a', 'one');
	PERFORM trigger_idem.run_once('a', 'one');
	PERFORM trigger_idem.run_once('a', 'one');
	PERFORM trigger_idem.run_once('b', 'one');
	BEGIN
		PERFORM trigger_idem.run_once('c', 'one');
		PERFORM trigger_idem.run_once('a', 'one');
		RAISE EXCEPTION 'undone';
	EXCEPTION WHEN raise_exception THEN
	END;
	IF payload ? 'fails' THEN
		RAISE EXCEPTION 'no luck' USING ERRCODE = 'TI006';
	END IF;
END $$;
SELECT trigger_idem.task_create('steps', 'steps', queue => 'steps'), trigger_idem.task_create('outside', queue => 'outside');
EOSQL

# The counters that are not zero, but for latencies
sub counters
{
	my ($dbname) = @_;

	return $node->safe_psql($dbname // 'postgres',
		"SELECT string_agg(concat_ws(' ', name, label, value), ', ') FROM trigger_idem.stats()"
		  . " WHERE value > 0 AND name !~ 'seconds'");
}

sub latencies
{
	my ($name) = @_;

	return $node->safe_psql('postgres',
		"SELECT value FROM trigger_idem.stats() WHERE name = '${name}_count'");
}

is(counters(), '', 'nothing has happened yet');
is($node->safe_psql('postgres', "SELECT DISTINCT since BETWEEN pg_postmaster_start_time() - interval '1 minute' AND now() FROM trigger_idem.stats()"),
	't', 'counted is since the start');
is($node->safe_psql('postgres', "SELECT DISTINCT value FROM trigger_idem.stats() WHERE name = 'hits'"), '0', 'hits are known');

# ---------- Triggers and hits ----------

$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('steps', '{}', 'k')");
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('steps', '{}', 'k') FROM generate_series(1, 3)");
is(counters(), 'triggers 1, hits 3', 'a trigger and its hits');
$node->safe_psql('postgres', "BEGIN READ ONLY; SELECT trigger_idem.trigger_task('steps', '{}', 'k'); COMMIT");
is(counters(), 'triggers 1, hits 4', 'a hit that reads only');
$node->safe_psql('postgres', "BEGIN; SELECT trigger_idem.trigger_task('steps', '{}', 'k'), trigger_idem.trigger_task('steps'); ROLLBACK");
is(counters(), 'triggers 1, hits 4', 'rolled back');
$node->safe_psql('postgres', <<'EOSQL');
BEGIN;
SAVEPOINT a;
SELECT trigger_idem.trigger_task('outside');
SAVEPOINT b;
SELECT trigger_idem.trigger_task('outside') FROM generate_series(1, 10);
ROLLBACK TO b;
SAVEPOINT c;
SELECT trigger_idem.trigger_task('outside');
RELEASE c;
RELEASE a;
SAVEPOINT d;
SELECT trigger_idem.trigger_task('outside') FROM generate_series(1, 100);
ROLLBACK TO d;
SELECT trigger_idem.trigger_task('outside');
COMMIT;
EOSQL
is(counters(), 'triggers 4, hits 4', 'savepoints: released ones count, rolled-back ones do not');
$node->safe_psql('postgres', "BEGIN; SELECT trigger_idem.trigger_task('outside'); PREPARE TRANSACTION 'p'");
$node->safe_psql('postgres', "ROLLBACK PREPARED 'p'");
is(counters(), 'triggers 4, hits 4', 'prepared and rolled back');
$node->safe_psql('postgres', <<'EOSQL');
SELECT trigger_idem.batch_trigger_task('outside', '[{}, {"options": {"idempotency_key": "x"}}, {"options": {"idempotency_key": "x"}}]');
SELECT trigger_idem.batch_trigger_task('outside', '[{"options": {"idempotency_key": "x"}}]');
EOSQL
is(counters(), 'triggers 6, hits 6', 'batches');

# ---------- Those that wait ----------

$node->safe_psql('postgres', <<'EOSQL');
CREATE FUNCTION child() RETURNS void LANGUAGE sql RETURN NULL;
CREATE FUNCTION waits() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.trigger_task_and_wait('child', idempotency_key => 'child');
	PERFORM trigger_idem.trigger_task_and_wait('child', idempotency_key => 'child');
	PERFORM trigger_idem.batch_trigger_task_and_wait('child', '[{"options": {"idempotency_key": "child"}}]');
END $$;
SELECT trigger_idem.task_create('child', 'child', queue => 'waits'), trigger_idem.task_create('waits', 'waits', queue => 'waits');
SELECT trigger_idem.trigger_task('waits');
CALL trigger_idem.work('waits');
EOSQL
like(counters(), qr/triggers 8, hits 8,/, 'a run that triggers, and two that are over');
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task_and_wait('child', idempotency_key => 'child')");
$node->safe_psql('postgres', q{SELECT trigger_idem.batch_trigger_task_and_wait('child', '[{"options": {"idempotency_key": "child"}}]')});
like(counters(), qr/triggers 8, hits 10,/, 'and outside a run');

# ---------- Steps and ends ----------

$node->safe_psql('postgres', "CALL trigger_idem.work('steps')");
is(counters(), 'triggers 8, hits 10, steps_done 2, steps_replayed 2, runs_ended completed 3', 'steps and the end of a run');
is(latencies('claim_seconds'), '4', 'one claim, beside three of those that wait');
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('steps', '{\"fails\": 1}')");
$node->safe_psql('postgres', "CALL trigger_idem.work('steps')");
is(counters(), 'triggers 9, hits 10, steps_done 2, steps_replayed 2, runs_ended completed 3, runs_ended failed 1',
	'what a failed attempt did is not counted, but its end');
$node->safe_psql('postgres', "SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE task_id = 'outside' LIMIT 1");
$node->safe_psql('postgres', <<'EOSQL');
SELECT run_id, attempt FROM trigger_idem.run_claim('w', 'outside') \gset
SELECT trigger_idem.run_once_begin(:'run_id', :attempt, 'a');
SELECT trigger_idem.run_once_end(:'run_id', :attempt, 'a', '1');
SELECT trigger_idem.run_once_begin(:'run_id', :attempt, 'a');
SELECT trigger_idem.run_complete(:'run_id', :attempt);
EOSQL
is(counters(), 'triggers 9, hits 10, steps_done 3, steps_replayed 3, runs_ended completed 4, runs_ended failed 1, runs_ended canceled 1',
	'an application');
is(latencies('claim_seconds'), '6', 'and two more claims');
is($node->safe_psql('postgres',
		"SELECT bool_and(value >= before), max(value) FROM (SELECT value, lag(value, 1, 0) OVER () AS before FROM trigger_idem.stats() WHERE name = 'claim_seconds_bucket') b"),
	't|6', 'buckets hold the smaller ones');
is($node->safe_psql('postgres', "SELECT trigger_idem.run_once_sql('g', 'SELECT 1', scope => 'global') FROM generate_series(1, 3)"), "1\n1\n1", 'global steps');
like(counters(), qr/steps_done 4, steps_replayed 5/, 'are counted');

# ---------- Many at once ----------

my @sessions = map {
	start_sql($node, "many$_", "SELECT count(trigger_idem.trigger_task('outside')) FROM generate_series(1, 500)")
} 1 .. 4;
finish_sql($_) foreach @sessions;
like(counters(), qr/triggers 2009,/, 'none is lost');

# ---------- The last bucket ----------

my $buckets = q(SELECT string_agg(value::text, ' ' ORDER BY label) FROM trigger_idem.stats() WHERE name = 'claim_seconds_bucket' AND label IN ('300', '+Inf'));
my ($all, $within) = split / /, $node->safe_psql('postgres', $buckets);
$node->safe_psql('postgres', <<'EOSQL');
UPDATE trigger_idem.queue_entry SET visible_from = now() - interval '1 hour', ord = now() - interval '1 hour'
WHERE run_id = (SELECT run_id FROM trigger_idem.runs WHERE queue = 'outside' AND status = 'queued' LIMIT 1);
SELECT FROM trigger_idem.run_claim('w', 'outside');
EOSQL
is($node->safe_psql('postgres', $buckets), ($all + 1) . " $within", 'a claim after an hour is above all bounds');

# ---------- Other databases ----------

$node->safe_psql('postgres', 'CREATE DATABASE other TEMPLATE template0');
$node->safe_psql('other', 'CREATE EXTENSION trigger_idem');
is(counters('other'), '', 'a database has its own');

# ---------- Wake-up ----------

$node->append_conf('postgresql.conf', "trigger_idem.databases = 'postgres'");
reload_settings($node);
for my $n (1 .. 2)
{
	# the second meets the worker of the first
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker' AND state = 'idle'")
	  or die 'no idle worker'
	  if $n == 2;
	$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('steps', '{\"n\": $n}')");
	ok($node->poll_query_until('postgres', "SELECT status = 'completed' FROM trigger_idem.runs WHERE payload->>'n' = '$n'"), 'a background worker works it');
}
is(latencies('wakeup_seconds'), '1', 'an idle worker was woken once');

# ---------- Metrics that are made of them ----------

my $metrics = dirname(__FILE__) . '/../../doc/metrics';
my $yaml = slurp_file("$metrics/postgres_exporter.yaml");
my %metric;
while ($yaml =~ /^(\w+):\n  query: \|\n((?:    .*\n)+)  metrics:\n((?:    .*\n)+)/mg)
{
	my ($namespace, $query, $columns) = ($1, $2, $3);
	my $row = $node->safe_psql('postgres', "SELECT to_jsonb(q) FROM ($query) q LIMIT 1");

	while ($columns =~ /- (\w+):\n\s+usage: "(\w+)"/g)
	{
		my ($column, $usage) = ($1, $2);

		ok($row eq '' || $row =~ /"$column": /, "${namespace}_$column has its column");
		$metric{ $namespace . '_' . $column . ($usage eq 'HISTOGRAM' ? '_bucket' : '') } = 1 if $usage ne 'LABEL';
	}
}
my %shown;
my $grafana = slurp_file("$metrics/grafana.json");
$shown{$1} = 1 while $grafana =~ /\b(trigger_idem_\w+)[{,]/g;
is_deeply([ grep { !$metric{$_} } sort keys %shown ], [], 'Grafana shows only what is asked for');
cmp_ok(scalar keys %shown, '>', 10, 'and shows it');

# ---------- A restart ----------

$node->restart;
is(counters(), '', 'counters begin anew with the server');

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
is($node->safe_psql('postgres', "SELECT value IS NULL, since IS NULL FROM trigger_idem.stats() WHERE name = 'hits'"), 't|t', 'without preloading, hits are not known');
is($node->safe_psql('postgres', "SELECT s.value = (SELECT count(*) FROM trigger_idem.runs) FROM trigger_idem.stats() s WHERE name = 'triggers'"), 't', 'the tables tell the rest');
unlike(slurp_file($node->logfile), qr/XX000|TRAP/, 'no internal error');

done_testing();
