-- Payloads: idempotency_key_from_payload(), and tasks that compare payloads.
-- The encoding itself is checked against pgcrypto in test/pgtap/payload.sql.

CREATE SCHEMA payload_test;

SELECT trigger_idem.idempotency_key_from_payload('{"order": 1}') AS key;

-- what is equal as jsonb has one key, however it is written
SELECT title, cardinality(payloads) AS payloads,
	(SELECT count(DISTINCT trigger_idem.idempotency_key_from_payload(p::jsonb)) FROM unnest(payloads) p) AS keys
FROM (VALUES
	(1, 'order of keys', ARRAY['{"a": 1, "b": 2, "ccc": 3}', '{"ccc": 3, "b": 2, "a": 1}']),
	(2, 'white space', ARRAY['{"a":[1,2]}', E' {\t"a" :\n[ 1 , 2 ] } ']),
	(3, 'one', ARRAY['1', '1.0', '1e0', '1E+0', '100e-2', '0.001e3']),
	(4, 'zero', ARRAY['0', '-0', '0.000', '0e10', '-0.0e-5']),
	(5, 'nested', ARRAY['{"a": [{"b": 1.50, "c": null}, []]}', '{"a": [{"c": null, "b": 15e-1}, []]}']),
	(6, 'escapes', ARRAY['"A/\"\\"', '"\u0041\/\u0022\u005c"']),
	(7, 'the last of a key', ARRAY['{"a": 1, "b": 2, "a": 3}', '{"b": 2, "a": 3}']),
	(8, 'large', ARRAY['1e100', '1' || repeat('0', 100), '1' || repeat('0', 103) || 'e-3']),
	(9, 'small', ARRAY['1e-101', '0.' || repeat('0', 100) || '1', '1000e-104']),
	(10, 'ten thousand', ARRAY['10000', '1e4', '10000.0000', '0.1e5', '100000000e-4']),
	(11, 'a tenth', ARRAY['0.1', '0.10', '1e-1', '1000e-4', '0.00001e4'])) v(number, title, payloads)
ORDER BY number;

-- what is not has another: each of these differs from all others
CREATE TABLE payload_test.different (payload jsonb);
INSERT INTO payload_test.different VALUES
	('null'), ('true'), ('false'), ('""'), ('"null"'), ('"true"'), ('"n"'), ('[]'), ('{}'), ('[null]'), ('[[]]'), ('[{}]'),
	('"1"'), ('1'), ('-1'), ('[1]'), ('["1"]'), ('"1.0"'), ('10'), ('"1e0"'), ('0'), ('"0"'), ('"0e0"'),
	('12345678901234567890'), ('12345678901234567891'), ('1234567890123456789'), ('-12345678901234567890'),
	('0.1'), ('0.10000000000000000001'), ('0.01'), ('0.001'), ('0.0001'), ('0.00001'), ('1.1'), ('1.01'), ('11'), ('101'),
	('1000'), ('10000'), ('100000'), ('1e7'), ('1e8'), ('1e9'), ('10001'), ('100010000'), ('100010001'), ('1.0001'),
	('1e100'), ('1e101'), ('-1e100'), ('1e-100'), ('-1e-100'), ('1e-101'), ('1e131071'), ('1e131070'), ('-1e131071'), ('1e-16383'), ('1e-16382'),
	('[1, 2]'), ('[2, 1]'), ('[12]'), ('[1, 2, null]'), ('["1", "2"]'), ('["12"]'), ('["1,2"]'),
	('[[1], 2]'), ('[1, [2]]'), ('[[1, 2]]'), ('[[1], [2]]'), ('[[], 1, 2]'), ('[1, [], 2]'),
	('{"a": {"b": 1}}'), ('{"a": 1, "b": 1}'), ('{"a": {}, "b": 1}'), ('{"a": 1}'), ('{"a": null}'), ('{"b": 1}'), ('{"a": {"b": null}}'),
	('{"ab": 1}'), ('{"": 1}'), ('{"": {"": 1}}'), ('["a", 1]'), ('[["a", 1]]'), ('{"a": [1]}'), ('{"a": "1"}'), ('{"A": 1}'),
	('{"a": 1, "bb": 2}'), ('{"bb": 1, "a": 2}'), ('{"a": 1, "c": 2}'), ('{"a b": 1}'), ('{"a": "b"}'), ('{"b": "a"}'),
	('"a"'), ('"A"'), ('"a "'), ('" a"'), ('"a\n"'), ('"ab"'), ('["a", "b"]'), ('"a\u0001"');
SELECT count(DISTINCT payload) = count(*) AS different, count(DISTINCT trigger_idem.idempotency_key_from_payload(payload)) = count(*) AS different_keys
FROM payload_test.different;
-- nor has any of them a key that was made of its text
SELECT count(*) FROM payload_test.different
WHERE trigger_idem.idempotency_key_from_payload(payload) = trigger_idem.idempotency_key_create(payload::text, 'global')
	AND length(payload::text) <= 2048;

-- beyond what is hashed in one go, and as deep as it may be
SELECT count(DISTINCT trigger_idem.idempotency_key_from_payload(payload)) AS keys FROM (VALUES
	(to_jsonb(repeat('x', 8192))), (to_jsonb(repeat('x', 8193))), (to_jsonb(repeat('x', 100000))), (to_jsonb(repeat('x', 99999) || 'y')),
	(to_jsonb('y' || repeat('x', 99999))), ((repeat('[', 1000) || repeat(']', 1000))::jsonb), ((repeat('[', 1001) || repeat(']', 1001))::jsonb),
	((SELECT jsonb_agg(n) FROM generate_series(1, 5000) n)), ((SELECT jsonb_agg(n) FROM generate_series(1, 5001) n)),
	((SELECT jsonb_object_agg(n, n) FROM generate_series(1, 5000) n))) v(payload);

-- SQL's null is no payload
SELECT helper.error_of('SELECT trigger_idem.idempotency_key_from_payload(NULL)');

-- IMMUTABLE: an index keeps equal payloads out
CREATE TABLE payload_test.indexed (payload jsonb);
CREATE UNIQUE INDEX payload_test_index ON payload_test.indexed (trigger_idem.idempotency_key_from_payload(payload));
INSERT INTO payload_test.indexed SELECT payload FROM payload_test.different;
SELECT left(helper.error_of(format('INSERT INTO payload_test.indexed VALUES (%L)', payload)), 5) AS error
FROM (VALUES ('{"b": 1, "a": 1.00}'), ('1e0'), ('-0'), ('[1,2.0]')) v(payload);
SET enable_seqscan = off;
SELECT payload FROM payload_test.indexed
WHERE trigger_idem.idempotency_key_from_payload(payload) = trigger_idem.idempotency_key_from_payload('{"a": {"b": 1.0}}');
RESET enable_seqscan;

-- as the key of a trigger: once for each payload
SELECT trigger_idem.task_create('payload_ignores', 'helper.handler', queue => 'payload_test');
SELECT is_cached FROM unnest(ARRAY['{"a": 1, "b": 2}', '{"b": 2, "a": 1.0}', '{"a": 1, "b": 3}']::jsonb[]) payload,
	LATERAL trigger_idem.trigger_task('payload_ignores', payload, trigger_idem.idempotency_key_from_payload(payload));

-- ---------- on_payload_mismatch => 'error' ----------

SELECT trigger_idem.task_create('payload_compares', 'helper.handler', queue => 'payload_test', on_payload_mismatch => 'error');

-- one payload and another one with the same key: the error, its run id left out
CREATE FUNCTION payload_test.mismatch(one jsonb, other jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	key text := format('payload %s', gen_random_uuid());
	first record;
	second text;
BEGIN
	SELECT * INTO STRICT first FROM trigger_idem.trigger_task('payload_compares', one, key);
	IF first.is_cached THEN
		RETURN 'the first one is cached';
	END IF;
	second := helper.error_of(format('SELECT trigger_idem.trigger_task(%L, %L, %L)', 'payload_compares', other, key));
	IF second = 'no error' THEN
		RETURN (SELECT CASE WHEN is_cached AND run_id = first.run_id THEN 'a hit' ELSE 'another run' END
			FROM trigger_idem.trigger_task('payload_compares', other, key));
	END IF;
	RETURN replace(second, first.run_id::text, 'RUN');
END $$;
SELECT payload_test.mismatch('{"lines": [{"sku": "a"}, {"sku": "b", "n": 1}]}', '{"lines": [{"sku": "a"}, {"sku": "c", "n": 1}]}');
-- only where they differ
CREATE FUNCTION payload_test.difference(one jsonb, other jsonb) RETURNS text LANGUAGE sql AS
$$ SELECT regexp_replace(payload_test.mismatch(one, other), '^TI001 .* differs at (.*)\. \|.*$', '\1') $$;
SELECT one, other, payload_test.difference(one, other) AS one_other, payload_test.difference(other, one) AS other_one FROM (VALUES
	(1, '1'::jsonb, '1.0'::jsonb), (2, '{"a": 1, "b": [1, {}]}', '{"b": [1.00, {}], "a": 1e0}'), (3, NULL, NULL), (4, 'null', 'null'),
	(5, NULL, 'null'), (6, NULL, '{"a": 1}'), (7, '1', '2'), (8, '1', '"1"'), (9, 'true', 'false'), (10, 'null', 'false'),
	(11, '[]', '{}'), (12, '[]', 'null'), (13, '"a"', '"ab"'), (14, '"a"', '"b"'), (15, '[1]', '1'),
	(16, '0.1', '0.10000000000000000001'), (17, '12345678901234567890', '12345678901234567891'), (18, '1', '-1'),
	(19, '{"a": 1}', '{"a": 2}'), (20, '{"a": 1}', '{"b": 1}'), (21, '{"a": 1}', '{}'), (22, '{"a": null}', '{}'),
	(23, '{"a": 1}', '{"a": 1, "b": 2}'), (24, '{"b": 1}', '{"a": 1, "b": 1}'), (25, '{"a": 1, "c": 1}', '{"a": 1, "b": 1, "c": 1}'),
	(26, '{"aa": 1, "b": 1}', '{"aa": 2, "b": 2}'), (27, '{"a": {"b": 1}}', '{"a": {"b": {"c": 1}}}'), (28, '{"a": {"b": {"c": 1}}}', '{"a": {"b": {"c": 2}}}'),
	(29, '[1]', '[2]'), (30, '[1]', '[]'), (31, '[1, 2]', '[1]'), (32, '[1, 2]', '[1, 3]'), (33, '[[1, 2], 3]', '[[1, 4], 5]'), (34, '[[], 1]', '[[1]]'),
	(35, '{"lines": [{"sku": 1}, {"sku": 2}]}', '{"lines": [{"sku": 1}, {"sku": 3}]}'), (36, '{"a": [1, {"b": []}]}', '{"a": [1, {"b": [null]}]}'),
	(37, '{"odd key": 1}', '{"odd key": 2}'), (38, '{"": 1}', '{"": 2}'), (39, '{"1a": 1}', '{"1a": 2}'), (40, '{"a1_B": 1}', '{"a1_B": 2}'), (41, '{"a.b": [1]}', '{"a.b": [2]}'),
	(42, '{"\"\\\n": 1}', '{"\"\\\n": 2}'), (43, '{"$a": 1}', '{"$a": 2}'), (44, '{"a": {"b c": {"d": [0, {"e": 1}]}}}', '{"a": {"b c": {"d": [0, {"e": 2}]}}}'),
	(45, '{"a": [true, 1]}', '{"a": [false, 1]}'), (46, '{"a": [null, 1]}', '{"a": [false, 1]}'), (47, '{"a": ["x", 1]}', '{"a": ["y", 1]}'), (48, '{"a": [1, 1]}', '{"a": [-1, 1]}'))
	v(number, one, other) ORDER BY number;
-- what is beyond the first difference is of no matter, and a long path is cut
SELECT payload_test.difference('{"a": [1, 2, 3], "b": 1}', '{"a": [1, 4, 5, 6], "c": 1}');
SELECT length(payload_test.difference(jsonb_build_object(repeat('x', 2000), 1), jsonb_build_object(repeat('x', 2000), 2))) AS length,
	payload_test.difference(jsonb_build_object(repeat('x', 2000), 1), jsonb_build_object(repeat('x', 2000), 2)) LIKE '$.xxx%xxx...' AS cut;
SELECT payload_test.difference((repeat('[', 1000) || '1' || repeat(']', 1000))::jsonb, (repeat('[', 1000) || '2' || repeat(']', 1000))::jsonb)
	= left('$' || repeat('[0]', 1000), 1000) || '...' AS deep;

-- the existing run stays what it is, and its key is the one that was there
SELECT run_id FROM trigger_idem.trigger_task('payload_compares', '{"secret": "first"}', 'payload key') \gset first_
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key')$$) <> 'no error' AS refused;
SELECT run_id = :'first_run_id' AS same_run, payload FROM trigger_idem.runs WHERE idempotency_key = 'payload key';
SELECT run_id = :'first_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('payload_compares', '{ "secret":"first" }', 'payload key');
-- given as 64 digits, too
SELECT left(helper.error_of(format('SELECT trigger_idem.trigger_task(%L, %L, %L)', 'payload_compares', '{"secret": "second"}',
	trigger_idem.idempotency_key_create('payload key', 'global'))), 5) AS error;
-- where nothing may be written, too
BEGIN READ ONLY;
SELECT run_id = :'first_run_id' AS same_run, is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "first"}', 'payload key');
SELECT left(helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key')$$), 5) AS error;
COMMIT;
-- at the higher isolation levels, too
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT run_id = :'first_run_id' AS same_run, is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "first"}', 'payload key');
SELECT left(helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key')$$), 5) AS error;
COMMIT;
-- other keys, other environments and runs without a key have nothing to do with it
SELECT is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key 2');
SELECT is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "second"}');
SELECT trigger_idem.environment_create('payload_environment');
SELECT is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key', environment => 'payload_environment');
-- options are checked first
SELECT left(helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key', priority => -1)$$), 5) AS error;

-- what one may not see is not told: no run, no key, no payload
CREATE ROLE regress_payload_stranger;
GRANT USAGE ON SCHEMA helper TO regress_payload_stranger;
SELECT trigger_idem.access_grant('regress_payload_stranger', 'trigger');
SET ROLE regress_payload_stranger;
SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "third"}', 'payload key');
RESET ROLE;
SET ROLE regress_payload_stranger;
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "third"}', 'payload key')$$);
-- the same payload is a hit: one who knows key and payload is told the run's id
SELECT run_id = :'first_run_id' AS same_run, is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "first"}', 'payload key');
-- of one's own, where they differ
SELECT is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "third"}', 'payload key of a stranger') \gset
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "fourth"}', 'payload key of a stranger')$$) LIKE '%differs at $.secret.%' AS told;
RESET ROLE;
-- and the owner of the task, who did not trigger it
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "fourth"}', 'payload key of a stranger')$$) LIKE '%differs at $.secret.%' AS told;
DROP OWNED BY regress_payload_stranger;
DROP ROLE regress_payload_stranger;

-- a batch: nothing is created
SELECT count(*) AS runs FROM trigger_idem.runs WHERE task_id = 'payload_compares' \gset before_
SELECT regexp_replace(helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('payload_compares', '[
	{"payload": {"n": 0}},
	{"payload": {"n": [1]}, "options": {"idempotency_key": "payload twice"}},
	{"payload": {"n": 2}, "options": {"idempotency_key": "payload once"}},
	{"payload": {"n": [3]}, "options": {"idempotency_key": "payload twice"}}]')$$), '[0-9a-f-]{36}', 'RUN') AS error;
SELECT left(helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('payload_compares', '[
	{"payload": {"n": 0}},
	{"payload": {"secret": "second"}, "options": {"idempotency_key": "payload key"}}]')$$), 5) AS error;
-- also where the first of them is a hit
SELECT left(helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('payload_compares', '[
	{"payload": {"n": 0}},
	{"payload": {"secret": "first"}, "options": {"idempotency_key": "payload key"}},
	{"payload": {"secret": "second"}, "options": {"idempotency_key": "payload key"}}]')$$), 5) AS error;
SELECT left(helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('payload_compares', '[
	{"payload": {"n": 0}}, {"options": {"idempotency_key": "payload twice"}}, {"payload": null, "options": {"idempotency_key": "payload twice"}}]')$$), 5) AS error;
SELECT count(*) - :before_runs AS created FROM trigger_idem.runs WHERE task_id = 'payload_compares';
SELECT count(*) AS keys FROM trigger_idem.idempotency_keys WHERE key IN ('payload twice', 'payload once');
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('payload_compares', '[
	{"payload": {"n": 1}, "options": {"idempotency_key": "payload twice"}},
	{"payload": {"n": 1.0}, "options": {"idempotency_key": "payload twice"}}]');

-- tasks of a group: each compares if it says so
SELECT trigger_idem.task_create('payload_group_compares', queue => 'payload_group', idempotency_group => 'payload_group', on_payload_mismatch => 'error');
SELECT trigger_idem.task_create('payload_group_ignores', queue => 'payload_group', idempotency_group => 'payload_group');
SELECT is_cached FROM trigger_idem.trigger_task('payload_group_ignores', '1', 'payload in a group');
SELECT is_cached FROM trigger_idem.trigger_task('payload_group_ignores', '2', 'payload in a group');
SELECT is_cached FROM trigger_idem.trigger_task('payload_group_compares', '1', 'payload in a group');
SELECT left(helper.error_of($$SELECT trigger_idem.trigger_task('payload_group_compares', '2', 'payload in a group')$$), 5) AS error;

-- a task that has come to compare: with the payload of the run
SELECT trigger_idem.task_create('payload_switches', 'helper.handler', queue => 'payload_test');
SELECT is_cached FROM trigger_idem.trigger_task('payload_switches', '{"n": 1}', 'payload before');
SELECT is_cached FROM trigger_idem.trigger_task('payload_switches', '{"n": 2}', 'payload before');
SELECT is_cached FROM trigger_idem.trigger_task('payload_switches', NULL, 'payload none before');
SELECT trigger_idem.task_create('payload_switches', 'helper.handler', queue => 'payload_test', on_payload_mismatch => 'error');
SELECT is_cached FROM trigger_idem.trigger_task('payload_switches', '{"n": 1.0}', 'payload before');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_switches', '{"n": 2}', 'payload before')$$) LIKE 'TI001 %differs at $.n.%' AS compared;
SELECT is_cached FROM trigger_idem.trigger_task('payload_switches', NULL, 'payload none before');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_switches', 'null', 'payload none before')$$) LIKE 'TI001 %differs at $.%' AS compared;

-- finished runs are compared
CALL trigger_idem.work('payload_test');
DELETE FROM helper.log;
SELECT run_id = :'first_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('payload_compares', '{"secret": "first"}', 'payload key');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key')$$) LIKE 'TI001 %differs at $.secret.%' AS compared;
SELECT status FROM trigger_idem.trigger_task('payload_switches', '{"n": 1}', 'payload before');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_switches', '{"n": 2}', 'payload before')$$) LIKE 'TI001 %differs at $.n.%' AS compared;

-- after the run was pruned, the key still knows, but not where
DO $$ BEGIN WHILE (SELECT sum(removed) > 0 FROM trigger_idem.prune('0')) LOOP END LOOP; END $$;
SELECT count(*) AS runs FROM trigger_idem.runs WHERE run_id = :'first_run_id';
SELECT run_id = :'first_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('payload_compares', '{"secret": "first"}', 'payload key');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key')$$);
SELECT left(helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', NULL, 'payload key')$$), 5) AS error;
-- a key of before, whose run is gone, has nothing to compare with
SELECT is_cached, status FROM trigger_idem.trigger_task('payload_switches', '{"n": 2}', 'payload before');

-- a task that no longer compares
SELECT trigger_idem.task_create('payload_compares', 'helper.handler', queue => 'payload_test');
SELECT run_id = :'first_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key');

-- a key that is taken over compares with its new run
SELECT trigger_idem.task_create('payload_compares', 'helper.handler', queue => 'payload_test', on_payload_mismatch => 'error');
UPDATE trigger_idem.idempotency_key SET expires_at = now() - interval '1 second' WHERE key = 'payload key';
SELECT is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key');
SELECT is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "first"}', 'payload key')$$) LIKE 'TI001 %differs at $.secret.%' AS compared;
-- taken over while payloads are not compared, it forgets the old one's
UPDATE trigger_idem.idempotency_key SET expires_at = now() - interval '1 second' WHERE key = 'payload key';
SELECT trigger_idem.task_create('payload_compares', 'helper.handler', queue => 'payload_test');
SELECT is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "third"}', 'payload key');
SELECT trigger_idem.task_create('payload_compares', 'helper.handler', queue => 'payload_test', on_payload_mismatch => 'error');
SELECT is_cached FROM trigger_idem.trigger_task('payload_compares', '{"secret": "third"}', 'payload key');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('payload_compares', '{"secret": "second"}', 'payload key')$$) LIKE 'TI001 %differs at $.secret.%' AS compared;

CALL trigger_idem.work('payload_test');
DELETE FROM helper.log;
