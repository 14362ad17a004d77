-- trigger_task() as the contract has it, as far as one transaction shows it.
-- Run as a superuser, with pg_prove; everything is rolled back.

BEGIN;
SET LOCAL client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS trigger_idem;
SELECT set_config('search_path', (SELECT quote_ident(nspname) FROM pg_extension
	JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pgtap'), true) \g /dev/null
SET LOCAL intervalstyle = postgres;
SET LOCAL trigger_idem.environment = 'default';

SELECT plan(77);

SELECT trigger_idem.task_create('pgtap one'), trigger_idem.task_create('pgtap two'),
	trigger_idem.task_create('pgtap other ttl', idempotency_key_ttl => '1 hour', queue => 'pgtap', max_attempts => 7),
	trigger_idem.task_create('pgtap no ttl', idempotency_key_ttl => NULL),
	trigger_idem.task_create('pgtap keyed', idempotency_key_required => true),
	trigger_idem.task_create('pgtap group one', idempotency_group => 'pgtap'),
	trigger_idem.task_create('pgtap group two', idempotency_group => 'pgtap'),
	trigger_idem.environment_create('pgtap environment') \g /dev/null

-- ---------- New runs ----------

SELECT * FROM trigger_idem.trigger_task('pgtap one', '{"n": 1}', 'order 1') \gset first_
SELECT is(:'first_is_cached'::boolean, false, 'a new key is not cached');
SELECT is(:'first_status'::trigger_idem.run_status, 'queued', 'its run is queued');
SELECT matches(:'first_run_id'::text, '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab]', 'its id is a UUIDv7');
SELECT is(to_jsonb(r) - '{created_at,run_at,idempotency_key_expires_at,run_id,triggered_by,held_because,ttl,concurrency_key,first_run_at,idempotency_key_hex}'::text[], '{
	"environment": "default", "task_id": "pgtap one", "status": "queued", "payload": {"n": 1}, "output": null,
	"error": null, "idempotency_key": "order 1", "idempotency_key_scope": "global", "parent_run_id": null,
	"attempt": 0, "max_attempts": 3, "queue": "default", "priority": 0, "tags": null, "metadata": null,
	"started_at": null, "finished_at": null}', 'the view runs has it')
FROM trigger_idem.runs r WHERE run_id = :'first_run_id';
SELECT ok(created_at BETWEEN now() AND clock_timestamp() AND run_at = created_at, 'made and due now')
FROM trigger_idem.runs WHERE run_id = :'first_run_id';
SELECT is(row(environment, task_id, idempotency_key, key, scope, expires_at - created_at)::text,
	row('default', 'pgtap one', trigger_idem.idempotency_key_create('order 1', 'global'), 'order 1', 'global',
		'30 days'::interval)::text, 'the view idempotency_keys has its key')
FROM trigger_idem.idempotency_keys WHERE run_id = :'first_run_id';
SELECT is_empty(format('SELECT * FROM trigger_idem.attempts WHERE run_id = %L', :'first_run_id'),
	'there is no attempt yet');

SELECT is(count(DISTINCT run_id), 3::bigint, 'without a key every trigger is a run')
FROM generate_series(1, 3) n, LATERAL trigger_idem.trigger_task('pgtap one', to_jsonb(n)) WHERE NOT is_cached;
SELECT run_id FROM trigger_idem.trigger_task('pgtap other ttl', queue => 'pgtap other', max_attempts => 2,
	priority => 60, tags => '{red,green}', metadata => '{"source": "test"}', environment => 'pgtap environment') \gset options_
SELECT is(to_jsonb(r) - '{created_at,run_at,run_id,triggered_by,held_because,ttl,concurrency_key,first_run_at,idempotency_key_hex}'::text[], '{
	"environment": "pgtap environment", "task_id": "pgtap other ttl", "status": "queued", "payload": null, "output": null,
	"error": null, "idempotency_key": null, "idempotency_key_scope": null, "idempotency_key_expires_at": null,
	"parent_run_id": null, "attempt": 0, "max_attempts": 2, "queue": "pgtap other", "priority": 60,
	"tags": ["red", "green"], "metadata": {"source": "test"}, "started_at": null, "finished_at": null}',
	'options are those of the call')
FROM trigger_idem.runs r WHERE run_id = :'options_run_id';
SELECT run_id FROM trigger_idem.trigger_task('pgtap other ttl') \gset defaults_
SELECT is(row(queue, max_attempts)::text, '(pgtap,7)', 'those not given are the task''s')
FROM trigger_idem.runs WHERE run_id = :'defaults_run_id';

-- ---------- Hits ----------

CREATE FUNCTION pg_temp.trigger_answer(task_id text, key text, environment text DEFAULT NULL) RETURNS text
LANGUAGE sql AS $$
	SELECT format('%s %s', CASE WHEN is_cached THEN 'cached' ELSE 'new' END, status)
	FROM trigger_idem.trigger_task($1, NULL, $2, environment => $3)
$$;

SELECT is(row(t.*)::text, format('(%s,t,queued)', :'first_run_id'), 'a live key returns its run')
FROM trigger_idem.trigger_task('pgtap one', '{"n": 2}', 'order 1') t;
SELECT is(row(t.*)::text, format('(%s,t,queued)', :'first_run_id'), 'in its form of 64 digits, too')
FROM trigger_idem.trigger_task('pgtap one', NULL, trigger_idem.idempotency_key_create('order 1')) t;
SELECT is(payload, '{"n": 1}', 'the run keeps its payload')
FROM trigger_idem.runs WHERE run_id = :'first_run_id';
SELECT is(count(*), 1::bigint, 'there is one run of the key')
FROM trigger_idem.runs WHERE task_id = 'pgtap one' AND idempotency_key = 'order 1';

SELECT is(pg_temp.trigger_answer('pgtap one', upper(trigger_idem.idempotency_key_create('order 1'))), 'new queued',
	'digits in upper case are text');
SELECT is(pg_temp.trigger_answer('pgtap one', 'Order 1'), 'new queued', 'keys are compared exactly');
SELECT is(pg_temp.trigger_answer('pgtap one', 'order 1 '), 'new queued', 'spaces count');
SELECT is(pg_temp.trigger_answer('pgtap two', 'order 1'), 'new queued', 'another task has keys of its own');
SELECT is(pg_temp.trigger_answer('pgtap one', 'order 1', 'pgtap environment'), 'new queued',
	'another environment has keys of its own');
SELECT is(pg_temp.trigger_answer('pgtap one', 'order 1', 'pgtap environment'), 'cached queued', 'and hits them');
SET LOCAL trigger_idem.environment = 'pgtap environment';
SELECT is(pg_temp.trigger_answer('pgtap one', 'order 1'), 'cached queued', 'the setting names the environment');
SELECT is(row(t.*)::text, format('(%s,t,queued)', :'first_run_id'), 'the argument goes before the setting')
FROM trigger_idem.trigger_task('pgtap one', NULL, 'order 1', environment => 'default') t;
SET LOCAL trigger_idem.environment = 'default';
SELECT is(pg_temp.trigger_answer('pgtap group one', 'shared'), 'new queued', 'a key of a group');
SELECT is(pg_temp.trigger_answer('pgtap group two', 'shared'), 'cached queued', 'is shared by its tasks');

-- A hit writes nothing.  (That no transaction id is assigned cannot be seen
-- here, where the key is of the same transaction.)
CREATE TEMPORARY VIEW written AS
SELECT COALESCE(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) AS rows
FROM pg_stat_xact_all_tables WHERE schemaname = 'trigger_idem';

-- other sessions and the server write WAL, but not during each of thousands of hits
CREATE FUNCTION pg_temp.writes_of_a_hit(OUT wal numeric, OUT rows numeric) LANGUAGE plpgsql AS $$
DECLARE
	before pg_lsn;
BEGIN
	rows := -(SELECT w.rows FROM written w);
	FOR n IN 1 .. 10000 LOOP
		before := pg_current_wal_insert_lsn();
		PERFORM trigger_idem.trigger_task('pgtap one', '{"n": 3}', 'order 1', idempotency_key_ttl => '1 hour', delay => '1 day');
		wal := least(wal, pg_current_wal_insert_lsn() - before);
		EXIT WHEN n >= 100 AND wal = 0;
	END LOOP;
	rows := rows + (SELECT w.rows FROM written w);
END
$$;
SELECT is(w::text, '(0,0)', 'a hit writes no WAL and no row')
FROM pg_temp.writes_of_a_hit() w;
SELECT is(xmax::text, '0', 'and locks no row')
FROM trigger_idem.idempotency_key WHERE run_id = :'first_run_id';
SELECT is(expires_at - created_at, '30 days', 'a hit does not extend the key')
FROM trigger_idem.idempotency_keys WHERE run_id = :'first_run_id';

-- ---------- When a run is due ----------

SELECT is(t.status, s.status::trigger_idem.run_status, s.title)
FROM (VALUES
	('a delay', 'delayed', '1 hour'::interval, NULL::timestamptz),
	('a delay of zero is none', 'queued', '0', NULL),
	('a time to come', 'delayed', NULL, now() + interval '1 hour'),
	('a time in the past is now', 'queued', NULL, now() - interval '1 hour')) s(title, status, delay, run_at),
	LATERAL trigger_idem.trigger_task('pgtap one', delay => s.delay, run_at => s.run_at) t;
SELECT run_id FROM trigger_idem.trigger_task('pgtap one', run_at => now() - interval '1 hour') \gset past_
SELECT is(run_at, created_at, 'the view has it so')
FROM trigger_idem.runs WHERE run_id = :'past_run_id';
SELECT is(pg_temp.trigger_answer('pgtap one', 'delayed'), 'cached delayed', 'a hit says that the run is delayed')
FROM trigger_idem.trigger_task('pgtap one', NULL, 'delayed', delay => '1 hour') t WHERE NOT t.is_cached;
SELECT is(run_at - created_at, '1 hour', 'the view says when it is due')
FROM trigger_idem.runs WHERE task_id = 'pgtap one' AND idempotency_key = 'delayed';

-- ---------- Time to live ----------

CREATE TEMPORARY TABLE ttl_sample (title text, task_id text, given interval, ttl interval);
INSERT INTO ttl_sample VALUES
	('the task''s time to live', 'pgtap other ttl', NULL, '1 hour'),
	('the trigger''s time to live', 'pgtap other ttl', '2 days', '2 days'),
	('a task without one', 'pgtap no ttl', NULL, NULL),
	('the trigger''s, of such a task', 'pgtap no ttl', '1 millisecond', '1 millisecond');
SELECT trigger_idem.trigger_task(task_id, NULL, title, idempotency_key_ttl => given) FROM ttl_sample \g /dev/null
SELECT is(k.expires_at - k.created_at, s.ttl, s.title)
FROM ttl_sample s LEFT JOIN trigger_idem.idempotency_keys k ON k.task_id = s.task_id AND k.key = s.title;

SELECT run_id FROM trigger_idem.trigger_task('pgtap one', NULL, 'expires') \gset old_
UPDATE trigger_idem.idempotency_key SET expires_at = clock_timestamp() WHERE run_id = :'old_run_id';
SELECT * FROM trigger_idem.trigger_task('pgtap one', NULL, 'expires', idempotency_key_ttl => '2 hours') \gset new_
SELECT is(:'new_is_cached'::boolean, false, 'an expired key is taken over');
SELECT isnt(:'new_run_id'::uuid, :'old_run_id', 'by another run');
SELECT is(array_agg(row(run_id, expires_at - created_at)::text), ARRAY[format('(%s,02:00:00)', :'new_run_id')],
	'the key is of the new run')
FROM trigger_idem.idempotency_keys WHERE task_id = 'pgtap one' AND key = 'expires';
SELECT is(pg_temp.trigger_answer('pgtap one', 'expires'), 'cached queued', 'and is live again');

-- ---------- Rolled back, nothing is left ----------

SELECT throws_ok($t$DO $$ BEGIN
	PERFORM trigger_idem.trigger_task('pgtap one', NULL, 'undone');
	RAISE 'undone' USING ERRCODE = 'XX999';
END $$$t$, 'XX999', NULL, 'a trigger is rolled back');
SELECT is((SELECT count(*) FROM trigger_idem.runs WHERE idempotency_key = 'undone')
	+ (SELECT count(*) FROM trigger_idem.idempotency_keys WHERE key = 'undone'), 0::bigint, 'neither run nor key is left');
SELECT is(pg_temp.trigger_answer('pgtap one', 'undone'), 'new queued', 'its key is free');

-- ---------- Read-only transactions ----------

-- a subtransaction that is rolled back, for a function may not SET this since 17
CREATE FUNCTION pg_temp.trigger_read_only(key text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	SET LOCAL transaction_read_only = on;
	answer := pg_temp.trigger_answer('pgtap one', key);
	RAISE 'read and write again' USING ERRCODE = 'XX999';
EXCEPTION WHEN SQLSTATE 'XX999' THEN
	RETURN answer;
END $$;

SELECT is(pg_temp.trigger_read_only('order 1'), 'cached queued', 'hits work in read-only transactions');
SELECT throws_ok($$SELECT pg_temp.trigger_read_only('order 2')$$, '25006', NULL, 'a new key does not');
SELECT throws_ok($$SELECT pg_temp.trigger_read_only(NULL)$$, '25006', NULL, 'nor does no key');

-- ---------- Errors ----------

-- each with a key that is live: options are checked before the key
CREATE TEMPORARY TABLE runs_before AS SELECT count(*) AS runs FROM trigger_idem.runs;
SELECT throws_ok(format('SELECT trigger_idem.trigger_task(%s)', arguments), code, NULL, format('%s: %s', code, title))
FROM (VALUES
	('22004', 'no task', $$NULL$$),
	('22004', 'a key is required', $$'pgtap keyed'$$),
	('22004', 'a key is required and null', $$'pgtap keyed', NULL, NULL$$),
	('42704', 'unknown task', $$'pgtap none', NULL, 'order 1'$$),
	('42704', 'name of a task in upper case', $$'PGTAP ONE', NULL, 'order 1'$$),
	('42704', 'unknown environment', $$'pgtap one', NULL, 'order 1', environment => 'pgtap none'$$),
	('22023', 'empty key', $$'pgtap one', NULL, ''$$),
	('22023', 'key of 2049 characters', $$'pgtap one', NULL, repeat('x', 2049)$$),
	('22023', 'delay and run_at', $$'pgtap one', NULL, 'order 1', delay => '1 hour', run_at => now()$$),
	('22023', 'negative delay', $$'pgtap one', NULL, 'order 1', delay => '-1 millisecond'$$),
	('22023', 'negative delay of days', $$'pgtap one', NULL, 'order 1', delay => '-1 day'$$),
	('22023', 'infinite run_at', $$'pgtap one', NULL, 'order 1', run_at => 'infinity'$$),
	('22023', 'run_at before all time', $$'pgtap one', NULL, 'order 1', run_at => '-infinity'$$),
	('22023', 'zero time to live', $$'pgtap one', NULL, 'order 1', idempotency_key_ttl => '0'$$),
	('22023', 'negative time to live', $$'pgtap one', NULL, 'order 1', idempotency_key_ttl => '-1 day'$$),
	('22023', 'zero attempts', $$'pgtap one', NULL, 'order 1', max_attempts => 0$$),
	('22023', 'negative attempts', $$'pgtap one', NULL, 'order 1', max_attempts => -1$$),
	('22023', 'too many attempts', $$'pgtap one', NULL, 'order 1', max_attempts => 2147483647$$),
	('22023', 'too high priority', $$'pgtap one', NULL, 'order 1', priority => 2147483647$$),
	('22023', 'too low priority', $$'pgtap one', NULL, 'order 1', priority => (-2147483648)::int$$),
	('22023', 'empty queue', $$'pgtap one', NULL, 'order 1', queue => ''$$),
	('22023', 'unknown scope', $$'pgtap one', NULL, 'order 1', idempotency_key_scope => 'session'$$),
	('22023', 'null scope', $$'pgtap one', NULL, 'order 1', idempotency_key_scope => NULL$$)) e(code, title, arguments);
SELECT is((SELECT count(*) FROM trigger_idem.runs), runs, 'none of them has made a run') FROM runs_before;

SELECT is(trigger_idem.task_drop('pgtap two'), true, 'a task is dropped');
SELECT throws_ok($$SELECT trigger_idem.trigger_task('pgtap two', NULL, 'order 1')$$, '42704', NULL,
	'a dropped task is unknown, on a hit too');
SELECT is(count(*), 1::bigint, 'its run waits')
FROM trigger_idem.runs WHERE task_id = 'pgtap two' AND status = 'queued';
SELECT is(trigger_idem.task_drop('pgtap two'), false, 'dropped once');
SELECT trigger_idem.task_create('pgtap two') \g /dev/null
SELECT is(pg_temp.trigger_answer('pgtap two', 'order 1'), 'cached queued', 'made again, it has its keys');

SELECT * FROM finish();
ROLLBACK;
