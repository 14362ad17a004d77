# A database is dumped while work is going on in it, and restored: on another
# server, where the roles have other OIDs, and beside the original.
#
# Promised, for a custom and for a plain dump: the views show the same; a key
# that was taken gives its old run; runs that were not finished are worked in the
# copy, the one that was executing too, even while its worker in the original
# lives; and nothing that was done is done again.  The original goes on
# undisturbed.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main');
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->start;

# ---------- The original ----------

$node->safe_psql('postgres', <<'EOSQL');
CREATE ROLE app LOGIN;
CREATE ROLE somebody_else LOGIN;
GRANT CREATE ON SCHEMA public TO app;
SELECT trigger_idem.access_grant(role, 'work') FROM unnest('{app,somebody_else}'::regrole[]) role;
SELECT trigger_idem.environment_create('staging');
EOSQL
$node->safe_psql('postgres', <<'EOSQL', extra_params => [ '-U', 'app' ]);
CREATE TABLE done (what jsonb, attempt int);
CREATE FUNCTION note(idempotency_key text, args jsonb) RETURNS jsonb LANGUAGE sql AS
	$$ INSERT INTO done VALUES (args, trigger_idem.current_attempt()) RETURNING args $$;
CREATE PROCEDURE handle(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('first', 'note', payload);
	COMMIT;
	CASE payload #>> '{}'
		WHEN 'to be executing' THEN PERFORM pg_advisory_xact_lock_shared(1);
		WHEN 'to be failed' THEN RAISE 'failed on purpose' USING ERRCODE = 'TI006';
		WHEN 'to be delayed by failure' THEN
			IF trigger_idem.current_attempt() = 1 THEN
				RAISE 'failed on purpose' USING DETAIL = 'to be retried';
			END IF;
		WHEN 'to be crashed' THEN PERFORM pg_terminate_backend(pg_backend_pid());
		ELSE NULL;
	END CASE;
END $$;
CREATE FUNCTION answer(payload jsonb) RETURNS jsonb LANGUAGE sql AS
	$$ SELECT jsonb_build_object('answer', payload) $$;
SELECT trigger_idem.task_create('dumped', 'handle', min_backoff => '1 hour', max_backoff => '1 hour');
SELECT trigger_idem.task_create('answered', 'answer', idempotency_group => 'group');
SELECT trigger_idem.task_create('dropped');
SELECT trigger_idem.task_create('by application', queue => 'outside');
SELECT trigger_idem.run_once('once for all', 'note', '"global step"', scope => 'global');

SELECT trigger_idem.trigger_task('answered', '1', idempotency_key => 'answered');
SELECT trigger_idem.trigger_task('answered', '2', tags => '{a,b}', metadata => '{"m": 1}',
	environment => 'staging', priority => 5, idempotency_key => 'answered');
SELECT trigger_idem.trigger_task('dumped', to_jsonb('to be ' || status), idempotency_key => status,
	max_attempts => CASE status WHEN 'crashed' THEN 1 END)
FROM unnest(ARRAY['completed', 'failed', 'delayed by failure', 'crashed']) AS status;
EOSQL

# The last of these makes its worker die.
is(finish_work(start_work($node, 'worker', user => 'app')), 'connection lost', 'a worker dies');
wait_until_gone($node, 'worker');

$node->safe_psql('postgres', <<'EOSQL', extra_params => [ '-U', 'app' ]);
CALL trigger_idem.work();
SELECT trigger_idem.trigger_task('dumped', '"to be executing"', idempotency_key => 'executing');
EOSQL
my $gate = close_gate($node, 1);
my $work = start_work($node, 'worker', user => 'app');
wait_at_gate($node, 'worker');
$node->safe_psql('postgres', <<'EOSQL', extra_params => [ '-U', 'app' ]);
SELECT trigger_idem.trigger_task('dumped', '"queued"', idempotency_key => 'queued');
SELECT trigger_idem.trigger_task('dumped', '"delayed"', delay => '1 day', idempotency_key => 'delayed');
SELECT trigger_idem.trigger_task('dropped', idempotency_key => 'dropped');
SELECT trigger_idem.task_drop('dropped');
SELECT trigger_idem.trigger_task('by application');
EOSQL

is( $node->safe_psql(
		'postgres',
		"SELECT string_agg(status || ' ' || count, ', ' ORDER BY status::text)
		 FROM (SELECT status, count(*) FROM trigger_idem.runs GROUP BY status) s"),
	'completed 3, crashed 1, delayed 2, executing 1, failed 1, queued 3',
	'the original has runs in many states');

# What the views show, as text
my @views = ('runs', 'attempts', 'steps', 'idempotency_keys', 'tasks', 'environments', 'grants');

sub contents
{
	my ($server, $dbname) = @_;

	return map {
		$server->safe_psql($dbname, "SELECT v FROM trigger_idem.$_ v ORDER BY v::text COLLATE \"C\"")
	} @views;
}

my @original = contents($node, 'postgres');

# ---------- The copies ----------

my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dump.custom", $node->connstr('postgres') ],
	'custom dump');
$node->command_ok([ 'pg_dump', '-f', "$dump.sql", $node->connstr('postgres') ], 'plain dump');

$other->safe_psql('postgres', <<'EOSQL');
CREATE ROLE somebody_else LOGIN;
CREATE ROLE app LOGIN;
CREATE DATABASE custom TEMPLATE template0;
CREATE DATABASE plain TEMPLATE template0;
EOSQL
$other->command_ok(
	[ 'pg_restore', '--exit-on-error', '-d', $other->connstr('custom'), "$dump.custom" ],
	'custom dump is restored');
$other->command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('plain'), '-f', "$dump.sql"
	],
	'plain dump is restored');

$node->safe_psql('postgres', 'CREATE DATABASE beside TEMPLATE template0');
$node->command_ok(
	[ 'pg_restore', '--exit-on-error', '-d', $node->connstr('beside'), "$dump.custom" ],
	'custom dump is restored beside the original');

sub check_copy
{
	my ($server, $copy) = @_;
	my @copied = contents($server, $copy);

	is($copied[$_], $original[$_], "$copy: $views[$_]") foreach 0 .. $#views;

	# Keys and memos
	is( $server->safe_psql(
			$copy, <<'EOSQL', extra_params => [ '-U', 'app' ]),
SELECT t.is_cached, t.run_id = r.run_id, t.status
FROM trigger_idem.runs r, trigger_idem.trigger_task('answered', idempotency_key => 'answered') t
WHERE r.idempotency_key = 'answered' AND r.environment = 'default';
SELECT is_cached
FROM trigger_idem.trigger_task('answered', idempotency_key => 'answered', environment => 'staging');
SELECT is_cached FROM trigger_idem.trigger_task('answered', idempotency_key => 'unheard of');
SELECT is_cached, status FROM trigger_idem.trigger_task('dumped', idempotency_key => 'executing');
SELECT is_cached FROM trigger_idem.trigger_task('dumped', idempotency_key => 'crashed');
SELECT trigger_idem.run_once('once for all', 'note', '"not called"', scope => 'global');
EOSQL
		"t|t|completed\nt\nf\nt|executing\nf\n\"global step\"",
		"$copy: keys and memos are kept");

	# Names
	foreach my $name ("'dropped'", "'new', idempotency_group => 'group'")
	{
		my ($ret, $stdout, $stderr) = $server->psql(
			$copy,
			"SELECT trigger_idem.task_create($name)",
			extra_params => [ '-U', 'somebody_else', '-v', 'VERBOSITY=verbose' ]);
		like($stderr, qr/ERROR:  42501:/, "$copy: another role may not take $name");
	}

	# Work
	is( $server->safe_psql(
			$copy, 'CALL trigger_idem.work()', extra_params => [ '-U', 'app' ]),
		'4',
		"$copy: what is due is worked");
	is( $server->safe_psql(
			$copy,
			"SELECT attempt, status FROM trigger_idem.attempts JOIN (
				SELECT run_id FROM trigger_idem.runs WHERE payload = '\"to be executing\"') r USING (run_id)
			 ORDER BY attempt"),
		"1|crashed\n2|completed",
		"$copy: the executing run is taken over");
	is( $server->safe_psql(
			$copy, "SELECT attempt FROM done WHERE what = '\"to be executing\"'"),
		'1',
		"$copy: its first step is not repeated");

	$server->safe_psql($copy,
		'UPDATE trigger_idem.queue_entry SET visible_from = now(), ord = now()');
	is( $server->safe_psql(
			$copy, 'CALL trigger_idem.work()', extra_params => [ '-U', 'app' ]),
		'2',
		"$copy: what was delayed is worked when its time has come");
	is( $server->safe_psql(
			$copy, 'SELECT what, count(*) FROM done GROUP BY what HAVING count(*) > 1'),
		'',
		"$copy: no step was done twice");
	is( $server->safe_psql(
			$copy,
			"SELECT task_id, status FROM trigger_idem.runs
			 WHERE finished_at IS NULL ORDER BY task_id"),
		"by application|queued\ndropped|queued",
		"$copy: what nobody may work is left");
	is( $server->safe_psql(
			$copy,
			"SELECT trigger_idem.task_create('dropped', 'answer');
			 CALL trigger_idem.work()",
			extra_params => [ '-U', 'app' ]),
		"\n1",
		"$copy: the dropped task is made again and worked");
	return;
}

check_copy($other, 'custom');
check_copy($other, 'plain');
check_copy($node, 'beside');

# ---------- The original again ----------

open_gate($gate);
is(finish_work($work), '2', 'the worker of the original goes on');
is( $node->safe_psql(
		'postgres', 'SELECT what, count(*) FROM done GROUP BY what HAVING count(*) > 1'),
	'',
	'and no step of the original was done twice');

$node->stop;
$other->stop;
done_testing();
