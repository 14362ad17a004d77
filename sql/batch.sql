-- batch_trigger_task(): many triggers in one call, all of them or none.

CREATE SCHEMA batch_test;
SELECT trigger_idem.task_create('batch_task', 'helper.handler', queue => 'batch_test');

-- in the order of the items, counted from 0; a repeated key makes one run
CREATE TABLE batch_test.answer AS SELECT * FROM trigger_idem.batch_trigger_task('batch_task', '[
	{"payload": "a", "options": {"idempotency_key": "batch z"}},
	{"payload": "b"},
	{"payload": "c", "options": {"idempotency_key": "batch a"}},
	{"payload": "d", "options": {"idempotency_key": "batch z"}},
	{"payload": "e"},
	{"payload": "f", "options": {"idempotency_key": "batch a", "delay": "1 hour"}},
	{"payload": "g", "options": {"idempotency_key": "batch m"}}]');
SELECT b.index, b.is_cached, b.status, r.payload, r.idempotency_key
FROM batch_test.answer b JOIN trigger_idem.runs r USING (run_id) ORDER BY b.index;
SELECT bool_and(index = place - 1) AS in_order, count(DISTINCT run_id) AS runs, count(*) FILTER (WHERE is_cached) AS cached
FROM trigger_idem.batch_trigger_task('batch_task', (SELECT jsonb_agg(jsonb_build_object('payload', n,
	'options', jsonb_build_object('idempotency_key', 'batch ' || n % 100)) ORDER BY n) FROM generate_series(1, 300) n))
	WITH ORDINALITY b(index, run_id, is_cached, status, place);
-- again: all are hits
SELECT count(*), bool_and(is_cached) AS all_cached FROM trigger_idem.batch_trigger_task('batch_task', (SELECT jsonb_agg(jsonb_build_object('payload', n,
	'options', jsonb_build_object('idempotency_key', 'batch ' || n % 100)) ORDER BY n) FROM generate_series(1, 300) n));
-- as many as are written together, and rows that are too large for that
SELECT trigger_idem.task_create('batch_size', queue => 'batch_size');
SELECT count(*) FROM trigger_idem.batch_trigger_task('batch_size', (SELECT jsonb_agg(jsonb_build_object('payload', n) ORDER BY n) FROM generate_series(1, 64) n));
SELECT count(*) FROM trigger_idem.batch_trigger_task('batch_size', (SELECT jsonb_agg(jsonb_build_object('payload', repeat(n::text, 400000)) ORDER BY n) FROM generate_series(1, 7) n));
SELECT count(*), count(payload), sum(length(payload #>> '{}')) AS characters FROM trigger_idem.run_claim('w', 'batch_size', 100);
SELECT count(trigger_idem.run_cancel(run_id)) FROM trigger_idem.runs WHERE queue = 'batch_size';
-- the same keys as those of trigger_task(), in both forms
SELECT t.is_cached, t.run_id = b.run_id AS same_run
FROM trigger_idem.batch_trigger_task('batch_task', '[{"options": {"idempotency_key": "batch z"}}]') b, LATERAL trigger_idem.trigger_task('batch_task', NULL, 'batch z') t;
SELECT b.index, b.is_cached FROM trigger_idem.batch_trigger_task('batch_task', jsonb_build_array(
	jsonb_build_object('options', jsonb_build_object('idempotency_key', trigger_idem.idempotency_key_create('batch z', 'global'))),
	jsonb_build_object('options', jsonb_build_object('idempotency_key', trigger_idem.idempotency_key_create('batch new', 'global'))),
	jsonb_build_object('options', jsonb_build_object('idempotency_key', 'batch new')))) b;

-- the key of the batch: each item without a key has the batch's and its index
CREATE VIEW batch_test.shown AS
SELECT r.payload, r.idempotency_key AS key_of_run, r.idempotency_key_scope AS scope_of_run, k.key, k.scope,
	CASE WHEN k.key LIKE '{%,%}' THEN k.idempotency_key = trigger_idem.idempotency_key_create(k.key::text[], 'global')
		ELSE k.idempotency_key = trigger_idem.idempotency_key_create(k.key, 'global') END AS is_hash_of_key
FROM trigger_idem.runs r JOIN trigger_idem.idempotency_keys k USING (run_id) WHERE r.task_id = 'batch_task';
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[
	{"payload": "batched 0"},
	{"payload": "batched 1", "options": {"idempotency_key": "{batch own}"}},
	{"payload": "batched 2", "options": {"idempotency_key": null}},
	{"payload": "batched 3", "options": null}]', 'batch');
SELECT * FROM batch_test.shown WHERE payload::text LIKE '"batched%' ORDER BY payload;
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[
	{"payload": "other 0"}, {}, {"payload": "other 2"}, {"payload": "other 3"}, {"payload": "batched 4"}]', 'batch');
SELECT is_cached, run_id IN (SELECT run_id FROM trigger_idem.runs WHERE payload = '"batched 0"') AS is_item_0
FROM trigger_idem.trigger_task('batch_task', NULL, trigger_idem.idempotency_key_create(ARRAY['batch', '0'], 'global'));
-- which the key of an item may be, too
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', jsonb_build_array('{}'::jsonb, '{}'::jsonb,
	jsonb_build_object('options', jsonb_build_object('idempotency_key', trigger_idem.idempotency_key_create(ARRAY['batch 2', '1'], 'global')))), 'batch 2');
-- a batch's key is text, also where it looks like 64 digits; odd ones are shown as an array
SELECT b.is_cached FROM (VALUES (repeat('0123456789abcdef', 4)), ('batch, "odd" {key}')) v(batch_key),
	LATERAL trigger_idem.batch_trigger_task('batch_task', jsonb_build_array(jsonb_build_object('payload', 'of ' || batch_key)), batch_key) b;
SELECT * FROM batch_test.shown WHERE payload::text LIKE '"of %' ORDER BY payload;
-- as in idempotency_key_create(), what counts are the characters of all elements
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{}]', repeat('ä', 2047));
SELECT helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('batch_task', '[{}]', repeat('ä', 2048))$$);

-- all options, and the same as null
SELECT trigger_idem.task_create('batch_options', queue => 'batch_options', max_attempts => 4, idempotency_key_ttl => '2 days');
SELECT run_id FROM trigger_idem.batch_trigger_task('batch_options', '[{"payload": {"all": "options"}, "options": {
	"idempotency_key": "batch all options", "idempotency_key_ttl": "3 hours", "idempotency_key_scope": "attempt", "delay": "1 hour",
	"ttl": "2 hours", "priority": 77, "queue": "batch_other", "concurrency_key": "batch tenant", "max_attempts": 9,
	"tags": ["red", "green"], "metadata": {"a": [1.50]}}},
	{"payload": {"all": "null"}, "options": {
	"idempotency_key": null, "idempotency_key_ttl": null, "idempotency_key_scope": null, "delay": null, "run_at": null,
	"ttl": null, "priority": null, "queue": null, "concurrency_key": null, "max_attempts": null,
	"tags": null, "metadata": null}},
	{"payload": {"run": "at"}, "options": {"run_at": "2200-01-01 00:00:00+00", "delay": null, "tags": [], "metadata": [], "max_attempts": 1e0, "priority": 0}},
	{"payload": {"run": "before"}, "options": {"run_at": "2000-01-01 00:00:00+00", "ttl": "1 day"}}]') \g /dev/null
\pset null '(null)'
\x on
SELECT payload, status, idempotency_key, idempotency_key_scope, idempotency_key_expires_at - created_at AS key_ttl,
	CASE WHEN run_at > '2199-01-01' THEN extract(epoch FROM run_at)::text ELSE (run_at - created_at)::text END AS due, ttl,
	priority, queue, concurrency_key, max_attempts, tags, metadata
FROM trigger_idem.runs WHERE task_id = 'batch_options' ORDER BY payload;
\x off
\pset null ''
-- as trigger_task() makes them
SELECT run_id FROM trigger_idem.trigger_task('batch_options', '{"all": "options"}', 'batch all options once more', '3 hours',
	delay => '1 hour', ttl => '2 hours', priority => 77, queue => 'batch_other', concurrency_key => 'batch tenant', max_attempts => 9,
	tags => '{red,green}', metadata => '{"a": [1.50]}', idempotency_key_scope => 'attempt') \gset other_
SELECT to_jsonb(one) - '{run_id,created_at,run_at,first_run_at,idempotency_key_expires_at,idempotency_key,idempotency_key_hex}'::text[]
	= to_jsonb(other) - '{run_id,created_at,run_at,first_run_at,idempotency_key_expires_at,idempotency_key,idempotency_key_hex}'::text[] AS same,
	one.run_id <> other.run_id AS two_runs
FROM trigger_idem.runs one, trigger_idem.runs other
WHERE one.idempotency_key = 'batch all options' AND other.run_id = :'other_run_id';

-- a payload that is null, and none
TRUNCATE batch_test.answer;
INSERT INTO batch_test.answer SELECT * FROM trigger_idem.batch_trigger_task('batch_options', '[
	{"payload": null}, {}, {"options": {}}, {"payload": {}}, {"payload": []}, {"payload": 1.50}, {"payload": "null"}]');
SELECT b.index, r.payload IS NULL AS none, r.payload FROM batch_test.answer b JOIN trigger_idem.runs r USING (run_id) ORDER BY index;

-- ---------- What cannot be ----------

-- The error of a batch, with what says which item it is about
CREATE FUNCTION batch_test.error_of(items jsonb, arguments text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
	context text;
BEGIN
	EXECUTE format('SELECT * FROM trigger_idem.batch_trigger_task(''batch_task'', %L %s)', items, arguments);
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''),
		replace(nullif(hint, ''), 'DateStyle', 'datestyle'),	-- as 18 writes it
		substring(context FROM '[^\n]*of the batch'));
END $$;

SELECT count(*) AS runs FROM trigger_idem.runs \gset before_
-- items
SELECT batch_test.error_of(items) FROM (VALUES ('[1]'::jsonb), ('[null]'), ('["a"]'), ('[[]]'), ('[{}, {}, 3]'),
	('[{"payloads": 1}]'), ('[{}, {"payload": 1, "option": {}}]'), ('[{"idempotency_key": "a"}]'),
	('[{"options": 1}]'), ('[{"options": []}]'), ('[{}, {"options": "a"}]'), ('[{"options": true}]')) v(items);
-- options: each with the wrong type, or with a text that is not one of it
SELECT batch_test.error_of(jsonb_build_array('{"options": {"idempotency_key": "batch unborn"}}'::jsonb, jsonb_build_object('options', options)))
FROM (VALUES
	('{"idempotency_key": 1}'::jsonb), ('{"idempotency_key": ["a"]}'), ('{"idempotency_key": ""}'),
	('{"idempotency_key_ttl": 1}'), ('{"idempotency_key_ttl": "soon"}'), ('{"idempotency_key_ttl": "0"}'), ('{"idempotency_key_ttl": "999999999999 years"}'),
	('{"idempotency_key_scope": 1}'), ('{"idempotency_key_scope": "forever"}'),
	('{"delay": 60}'), ('{"delay": {}}'), ('{"delay": "later"}'), ('{"delay": "-1 s"}'),
	('{"run_at": 1700000000}'), ('{"run_at": "tomorrow or so"}'), ('{"run_at": "2024-13-01"}'), ('{"run_at": "infinity"}'),
	('{"delay": "1 s", "run_at": "2200-01-01"}'),
	('{"ttl": true}'), ('{"ttl": "1 parsec"}'), ('{"ttl": "0"}'),
	('{"priority": "1"}'), ('{"priority": 1.5}'), ('{"priority": 1e10}'), ('{"priority": -1}'), ('{"priority": [1]}'), ('{"priority": 1000001}'),
	('{"queue": 1}'), ('{"queue": ""}'), ('{"concurrency_key": {}}'), ('{"concurrency_key": ""}'),
	('{"max_attempts": "3"}'), ('{"max_attempts": 0}'), ('{"max_attempts": 3.0000001}'), ('{"max_attempts": -1e100}'),
	('{"tags": "red"}'), ('{"tags": {"red": 1}}'), ('{"tags": [1]}'), ('{"tags": [null]}'), ('{"tags": ["red", ["green"]]}'), ('{"tags": [""]}'),
	('{"environment": "default"}'), ('{"task_id": "batch_task"}'), ('{"payload": 1}'), ('{"": 1}'), ('{"Delay": "1 s"}'), ('{"dela": "1 s"}'),
	('{"delay": "1 s", "delays": null}'), (jsonb_build_object(repeat('ä', 1000), 1))) v(options);
-- limits are those of trigger_task()
SELECT batch_test.error_of(items) FROM (VALUES
	(jsonb_build_array('{}'::jsonb, jsonb_build_object('payload', repeat('x', 10 * 1024 * 1024)))),
	(jsonb_build_array('{}'::jsonb, jsonb_build_object('options', jsonb_build_object('metadata', repeat('x', 256 * 1024))))),
	(jsonb_build_array('{}'::jsonb, jsonb_build_object('options', jsonb_build_object('tags', array_fill('x'::text, '{11}')))))) v(items);
-- wherever it stands, and on hits
SELECT position, batch_test.error_of((SELECT jsonb_agg(jsonb_build_object('options', CASE WHEN n = position THEN '{"priority": -1}'
	ELSE jsonb_build_object('idempotency_key', 'batch unborn ' || n) END) ORDER BY n) FROM generate_series(0, 20) n)) FROM (VALUES (0), (10), (20)) v(position);
SELECT batch_test.error_of('[{"options": {"idempotency_key": "batch z"}}, {"options": {"idempotency_key": "batch z", "priority": -1}}]');
-- the first bad one is named
SELECT batch_test.error_of('[{}, {"options": {"priority": -1}}, {"options": {"tags": 1}}, 7]');
-- not an array; no items; not even a batch
SELECT batch_test.error_of(items) FROM (VALUES ('{}'::jsonb), ('1'), ('"[]"'), ('null'), (NULL), ('{"payload": 1}')) v(items);
SELECT batch_test.error_of('[{}]', arguments) FROM (VALUES (', '''''), (', repeat(''x'', 2049)'), (', environment => ''nowhere'''), (', environment => ''''')) v(arguments);
-- which holds for an empty one, too
SELECT left(batch_test.error_of('[]', arguments), 5) FROM (VALUES (', '''''), (', repeat(''x'', 2049)'), (', environment => ''nowhere''')) v(arguments);
SELECT helper.error_of(format('SELECT * FROM trigger_idem.batch_trigger_task(%s)', arguments)) FROM (VALUES
	($$'no such task', '[]'$$), ($$'no such task', '[{}]'$$), ($$NULL, '[]'$$), ($$'', '[]'$$), ($$repeat('x', 256), '[]'$$)) v(arguments);
SELECT count(*) - :before_runs AS created FROM trigger_idem.runs;
SELECT count(*) AS keys FROM trigger_idem.idempotency_keys WHERE key LIKE 'batch unborn%';

-- an empty batch is one
SELECT * FROM trigger_idem.batch_trigger_task('batch_task', '[]');
SELECT * FROM trigger_idem.batch_trigger_task('batch_task', '[]', 'batch of nothing');

-- a task that requires a key is content with the batch's
SELECT trigger_idem.task_create('batch_keyed', queue => 'batch_options', idempotency_key_required => true);
SELECT helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('batch_keyed', '[{"options": {"idempotency_key": "batch required"}}, {}]')$$);
SELECT count(*) FROM trigger_idem.runs WHERE task_id = 'batch_keyed';
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_keyed', '[{"options": {"idempotency_key": "batch required"}}, {}]', 'batch required');

-- a dropped task is unknown
SELECT trigger_idem.task_drop('batch_keyed');
SELECT helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('batch_keyed', '[{}]', 'batch required')$$);

-- ---------- Environments, transactions, runs ----------

SELECT trigger_idem.environment_create('batch_environment');
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{"options": {"idempotency_key": "batch z"}}]', environment => 'batch_environment');
SELECT environment FROM trigger_idem.runs WHERE task_id = 'batch_task' AND idempotency_key = 'batch z' ORDER BY created_at;
SET trigger_idem.environment = 'batch_environment';
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{"options": {"idempotency_key": "batch z"}}, {"options": {"idempotency_key": "batch a"}}]');
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{"options": {"idempotency_key": "batch z"}}, {"options": {"idempotency_key": "batch a"}}]', environment => 'default');
RESET trigger_idem.environment;

-- where nothing may be written, hits are all there is
BEGIN READ ONLY;
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{"options": {"idempotency_key": "batch z"}}, {"options": {"idempotency_key": "batch a"}}, {"options": {"idempotency_key": "batch z"}}]');
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{}, {}]', 'batch');
SELECT * FROM trigger_idem.batch_trigger_task('batch_task', '[]');
SELECT batch_test.error_of('[{"options": {"idempotency_key": "batch z"}}, {"options": {"idempotency_key": "batch unborn"}}]');
SELECT batch_test.error_of('[{"options": {"idempotency_key": "batch z"}}, {}]');
COMMIT;
-- and they write nothing
BEGIN;
SELECT count(*) FROM trigger_idem.batch_trigger_task('batch_task', '[{"options": {"idempotency_key": "batch z"}}, {"options": {"idempotency_key": "batch a"}}]');
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_transaction_id;
COMMIT;

-- rolled back, nothing is left
BEGIN;
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{}, {"options": {"idempotency_key": "batch undone"}}]', 'batch undone');
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{}, {"options": {"idempotency_key": "batch undone"}}]', 'batch undone');
ROLLBACK;
SELECT count(*) FROM trigger_idem.idempotency_keys WHERE key LIKE '%batch undone%';
SELECT count(*) FROM trigger_idem.runs WHERE idempotency_key LIKE '%batch undone%';
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{}, {"options": {"idempotency_key": "batch undone"}}]', 'batch undone');

-- at the higher isolation levels
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{"options": {"idempotency_key": "batch s"}}, {"options": {"idempotency_key": "batch z"}}, {"options": {"idempotency_key": "batch s"}}]');
COMMIT;

-- expired keys are taken over, once in a batch
UPDATE trigger_idem.idempotency_key SET expires_at = now() - interval '1 second' WHERE key = 'batch s';
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('batch_task', '[{"options": {"idempotency_key": "batch s"}}, {"options": {"idempotency_key": "batch s"}}]');
SELECT count(*) FROM trigger_idem.runs WHERE idempotency_key = 'batch s';

-- inside a run: children of it, in its environment, with keys of its own
CREATE FUNCTION batch_test.parent() RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_agg(jsonb_build_object(index, is_cached) ORDER BY index) FROM trigger_idem.batch_trigger_task('batch_children', '[
		{"payload": "global", "options": {"idempotency_key": "batch child"}},
		{"payload": "run", "options": {"idempotency_key": "batch child", "idempotency_key_scope": "run"}},
		{"payload": "attempt", "options": {"idempotency_key": "batch child", "idempotency_key_scope": "attempt"}},
		{"payload": "batched"},
		{"payload": "run again", "options": {"idempotency_key": "batch child", "idempotency_key_scope": "run"}}]', 'batch of children')
$$;
SELECT trigger_idem.task_create('batch_children', queue => 'batch_children');
SELECT trigger_idem.task_create('batch_parent', 'batch_test.parent', queue => 'batch_parents');
SELECT count(trigger_idem.trigger_task('batch_parent', environment => 'batch_environment')) FROM generate_series(1, 2);
CALL trigger_idem.work('batch_parents');
SELECT output FROM trigger_idem.runs WHERE task_id = 'batch_parent' ORDER BY created_at;
SELECT c.payload, c.environment, c.idempotency_key, c.idempotency_key_scope, p.task_id AS parent
FROM trigger_idem.runs c LEFT JOIN trigger_idem.runs p ON p.run_id = c.parent_run_id
WHERE c.task_id = 'batch_children' ORDER BY c.payload, p.created_at;

-- and they are worked as all others
CALL trigger_idem.work('batch_test', environment => 'batch_environment');
DELETE FROM helper.log;
SELECT index, is_cached, status FROM trigger_idem.batch_trigger_task('batch_task', '[{"options": {"idempotency_key": "batch z"}}, {"options": {"idempotency_key": "batch new"}}]', environment => 'batch_environment');

-- other files list the environments
DELETE FROM trigger_idem.queue_entry WHERE environment = 'batch_environment';
DELETE FROM trigger_idem.run WHERE environment = 'batch_environment';
DELETE FROM trigger_idem.idempotency_key WHERE environment = 'batch_environment';
DELETE FROM trigger_idem.environment WHERE environment = 'batch_environment';
