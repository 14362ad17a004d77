-- Waiting: runs that are suspended until something has happened.

CREATE SCHEMA wait_test;

-- an answer, or an error, on one line and without ids, which differ each time
CREATE FUNCTION wait_test.without_ids(line text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(line, '[0-9a-f]{8}-[-0-9a-f]{27}', 'ID', 'g') $$;
CREATE FUNCTION wait_test.error_of(command text) RETURNS text LANGUAGE sql AS $$
	SELECT wait_test.without_ids(helper.error_of(command)) $$;
CREATE FUNCTION wait_test.shown(status trigger_idem.run_status, output jsonb, error jsonb, is_cached boolean DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', CASE WHEN is_cached THEN 'cached' END, status, output, 'error ' || (error->>'code')) $$;

-- the functions that wait, with such answers
CREATE FUNCTION wait_test.and_wait(task text, payload jsonb DEFAULT NULL, key text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN wait_test.shown(w.status, w.output, w.error, w.is_cached) FROM trigger_idem.trigger_task_and_wait(task, payload, key) w;
END $$;
CREATE FUNCTION wait_test.batch_and_wait(task text, items jsonb, key text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN string_agg(concat_ws(' ', w.index, wait_test.shown(w.status, w.output, w.error, w.is_cached)), ', ' ORDER BY w.index)
	FROM trigger_idem.batch_trigger_task_and_wait(task, items, key) w;
END $$;
CREATE FUNCTION wait_test.run_wait(run uuid, timeout interval DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN concat_ws(', ', wait_test.shown(w.status, w.output, w.error), CASE WHEN w.timed_out THEN 'timed out' WHEN w.timed_out IS NULL THEN 'waits' END)
	FROM trigger_idem.run_wait(run, timeout) w;
END $$;
CREATE FUNCTION wait_test.for_token(token uuid) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN concat_ws(' ', CASE WHEN w.ok THEN 'ok' WHEN NOT w.ok THEN 'not ok' ELSE 'waits' END, w.output) FROM trigger_idem.wait_for_token(token) w;
END $$;

-- a handler whose payload is the command that it is to run, and answer with; one
-- attempt must do, for waits are no failures
CREATE FUNCTION wait_test.sql_handler(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE payload #>> '{}' INTO answer;
	RETURN answer;
END $$;
SELECT trigger_idem.task_create('wait_sql', 'wait_test.sql_handler', queue => 'wait', max_attempts => 1);
CREATE FUNCTION wait_test.start(command text, key text DEFAULT NULL) RETURNS uuid LANGUAGE sql AS $$
	SELECT run_id FROM trigger_idem.trigger_task('wait_sql', to_jsonb(command), key) $$;
CREATE FUNCTION wait_test.attempts_of(run uuid) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', attempt, status), ', ' ORDER BY attempt) FROM trigger_idem.attempts WHERE run_id = run $$;
CREATE FUNCTION wait_test.look(run uuid) RETURNS text LANGUAGE sql AS $$
	SELECT wait_test.without_ids(concat_ws(' ', status || ':', output #>> '{}', error->>'code', error->>'message') || ' (' || coalesce(wait_test.attempts_of(run), '') || ')')
	FROM trigger_idem.runs WHERE run_id = run $$;

-- children: worked in a queue of their own, or in the one of those who wait
CREATE TABLE wait_test.mood (fails boolean);
INSERT INTO wait_test.mood VALUES (false);
CREATE FUNCTION wait_test.child(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT fails FROM wait_test.mood) OR payload ? 'fails' THEN
		RAISE EXCEPTION 'the child fails' USING ERRCODE = 'ZZ001';
	END IF;
	RETURN jsonb_build_object('did', payload);
END $$;
SELECT trigger_idem.task_create('wait_child', 'wait_test.child', queue => 'wait_child', max_attempts => 1);
SELECT trigger_idem.task_create('wait_quick', 'wait_test.child', queue => 'wait', max_attempts => 1);
SELECT trigger_idem.task_create('wait_app', queue => 'wait_app', max_attempts => 1, release_key_on => '{}');

-- as time would do it
CREATE FUNCTION wait_test.make_due(run uuid) RETURNS void LANGUAGE sql AS $$
	UPDATE trigger_idem.queue_entry SET ord = now(), visible_from = now() WHERE run_id = run $$;
CREATE FUNCTION wait_test.expire_token(which uuid) RETURNS void LANGUAGE sql AS $$
	UPDATE trigger_idem.wait_token SET expires_at = now() WHERE token = which;
	UPDATE trigger_idem.queue_entry SET ord = now(), visible_from = now() WHERE wait_id IN (SELECT wait_id FROM trigger_idem.awaited WHERE target = which) $$;
CREATE FUNCTION wait_test.expire_run(run uuid) RETURNS void LANGUAGE sql AS $$
	UPDATE trigger_idem.queue_entry SET expires_at = now() - interval '1 second' WHERE run_id = run $$;

-- ---------- Children ----------

-- a function waits for a new child
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_child', '1')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
CALL trigger_idem.work('wait');
SELECT c.payload, c.status, c.idempotency_key, c.idempotency_key_scope,
	k.idempotency_key = trigger_idem.idempotency_key_create('{wait_child,1}'::text[], 'run', :'parent', 1) AS is_key_of_parent
FROM trigger_idem.runs c JOIN trigger_idem.idempotency_keys k USING (run_id) WHERE c.parent_run_id = :'parent';
CALL trigger_idem.work('wait_child');
SELECT status, run_at <= now() AS is_due FROM trigger_idem.runs WHERE run_id = :'parent';
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');

-- a procedure that has committed before it waits: what it did stays
CREATE PROCEDURE wait_test.commits() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES ('attempt ' || trigger_idem.current_attempt());
	PERFORM trigger_idem.run_once('before', 'helper.callback', '"before"');
	COMMIT;
	INSERT INTO helper.log (line) VALUES ('between waits, ' || wait_test.and_wait('wait_quick', '2'));
	COMMIT;
	INSERT INTO helper.log (line) VALUES ('at the end, ' || wait_test.and_wait('wait_quick', '3'));
END $$;
SELECT trigger_idem.task_create('wait_commits', 'wait_test.commits', queue => 'wait', max_attempts => 1);
SELECT run_id AS parent FROM trigger_idem.trigger_task('wait_commits') \gset
CALL trigger_idem.work('wait');
CALL helper.show_log();
SELECT wait_test.look(:'parent');

-- how children end: each answer has their status, output and error
CREATE FUNCTION wait_test.loops() RETURNS void LANGUAGE plpgsql AS 'BEGIN LOOP END LOOP; END';
SELECT trigger_idem.task_create('wait_loops', 'wait_test.loops', queue => 'wait_child', max_attempts => 1, max_duration => '10 ms');
SELECT trigger_idem.task_create('wait_null', 'wait_test.child', queue => 'wait_child', max_attempts => 1);
CREATE TABLE wait_test.parent AS SELECT task AS name, wait_test.start(format('SELECT wait_test.and_wait(%L, %L)', task, payload)) AS run_id
FROM (VALUES ('wait_child', '{"completes": true}'), ('wait_null', '{"fails": true}'), ('wait_loops', NULL)) v(task, payload);
INSERT INTO wait_test.parent SELECT 'canceled', wait_test.start($$SELECT wait_test.and_wait('wait_child', '"canceled"')$$);
INSERT INTO wait_test.parent SELECT 'expired', wait_test.start($$SELECT wait_test.shown(status, output, error, is_cached) FROM trigger_idem.trigger_task_and_wait('wait_child', '"expired"', ttl => '1 hour')$$);
INSERT INTO wait_test.parent SELECT 'app completed', wait_test.start($$SELECT wait_test.and_wait('wait_app', '"completed"')$$);
INSERT INTO wait_test.parent SELECT 'app failed', wait_test.start($$SELECT wait_test.shown(status, output, error, is_cached) || ' ' || error::text FROM trigger_idem.trigger_task_and_wait('wait_app', '"failed"')$$);
INSERT INTO wait_test.parent SELECT 'app crashed', wait_test.start($$SELECT wait_test.and_wait('wait_app', '"crashed"')$$);
CALL trigger_idem.work('wait');
SELECT name, wait_test.look(run_id) FROM wait_test.parent ORDER BY name COLLATE "C";
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE payload = '"canceled"' AND task_id = 'wait_child';
SELECT wait_test.expire_run(run_id) FROM trigger_idem.runs WHERE payload = '"expired"' AND task_id = 'wait_child';
SELECT payload FROM trigger_idem.run_claim('w', 'wait_app', 10) ORDER BY 1;
SELECT trigger_idem.run_complete(run_id, attempt, 'null') FROM trigger_idem.runs WHERE task_id = 'wait_app' AND payload = '"completed"';
SELECT status FROM trigger_idem.runs, trigger_idem.run_fail(run_id, attempt, '{"of": "its own"}') f(final, retry_at) WHERE task_id = 'wait_app' AND payload = '"failed"';
UPDATE trigger_idem.queue_entry SET lease_expires_at = now() - interval '1 second' WHERE task_id = 'wait_app';
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT name, wait_test.look(run_id) FROM wait_test.parent ORDER BY name COLLATE "C";
SELECT status FROM trigger_idem.runs c JOIN wait_test.parent p ON p.run_id = c.parent_run_id ORDER BY status;
TRUNCATE wait_test.parent;

-- items of a batch that are not started in time, before and after the others; one that was started in time
-- has no time limit any more
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_child', '[{"payload": "not in time", "options": {"ttl": "1 hour"}}, {"payload": "in time", "options": {"priority": 10}}, {"payload": "not in time, later", "options": {"ttl": "1 hour"}}]')$$) AS parent \gset
SELECT wait_test.start($$SELECT wait_test.shown(status, output, error) FROM trigger_idem.trigger_task_and_wait('wait_sql', '"SELECT trigger_idem.wait_for(''k'', ''1 hour'') IS NOT NULL"', ttl => '1 hour')$$) AS other \gset
CALL trigger_idem.work('wait');
SELECT wait_test.expire_run(run_id) FROM trigger_idem.runs WHERE payload = '"not in time"';
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child', 1);
CALL trigger_idem.work('wait');
SELECT wait_test.expire_run(run_id) FROM trigger_idem.runs WHERE payload = '"not in time, later"';
SELECT wait_test.expire_run(run_id), wait_test.make_due(run_id) FROM trigger_idem.runs WHERE parent_run_id = :'other';
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT wait_test.look(:'other');

-- keys of scope attempt stand still over waits, and change after a failure
CREATE FUNCTION wait_test.attempt_keys() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	same_as int[];
BEGIN
	same_as := ARRAY(SELECT n FROM generate_series(1, 5) n
		WHERE trigger_idem.idempotency_key_create('k', 'attempt') = trigger_idem.idempotency_key_create('k', 'attempt', trigger_idem.current_run_id(), n));
	RAISE NOTICE 'attempt %, key of attempt %', trigger_idem.current_attempt(), same_as;
	PERFORM trigger_idem.wait_for('one', '1 hour');
	IF trigger_idem.current_attempt() = 2 THEN
		RAISE EXCEPTION 'fails';
	END IF;
	PERFORM trigger_idem.wait_for('two', '1 hour');
	RETURN 'done';
END $$;
SELECT trigger_idem.task_create('wait_attempt_keys', 'wait_test.attempt_keys', queue => 'wait', max_attempts => 2, min_backoff => '0');
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_attempt_keys') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- ---------- Children that are there ----------

-- a key whose run is in any state; the final ones are kept under their keys
SELECT is_cached FROM trigger_idem.trigger_task('wait_app', '"pruned"', 'pruned', queue => 'wait_pruned');
SELECT payload FROM trigger_idem.run_claim('w', 'wait_pruned');
SELECT trigger_idem.run_complete(run_id, attempt, '"gone"') FROM trigger_idem.runs WHERE payload = '"pruned"';
DO $$ BEGIN WHILE (SELECT sum(removed) > 0 FROM trigger_idem.prune('0')) LOOP END LOOP; END $$;
SELECT count(*) FROM trigger_idem.runs WHERE payload = '"pruned"';
SELECT count(trigger_idem.trigger_task('wait_app', to_jsonb(state), state, queue => 'wait_' || state, delay => CASE WHEN state = 'delayed' THEN interval '1 hour' END))
FROM unnest('{delayed,queued,executing,waiting,completed,failed,canceled}'::text[]) state;
SELECT c.payload FROM unnest('{executing,waiting,completed,failed}'::text[]) state, trigger_idem.run_claim('w', 'wait_' || state) c;
BEGIN;
SELECT trigger_idem.run_enter(run_id, attempt) FROM trigger_idem.runs WHERE payload = '"waiting"';
SELECT trigger_idem.wait_for('k', '1 hour') > now() AS to_come;
COMMIT;
SELECT trigger_idem.run_complete(run_id, attempt, '"completed"') FROM trigger_idem.runs WHERE payload = '"completed"' AND status = 'executing';
SELECT wait_test.without_ids(trigger_idem.run_fail(run_id, attempt, '{"code": "ZZ009"}', retry => false)::text) FROM trigger_idem.runs WHERE payload = '"failed"' AND status = 'executing';
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE payload = '"canceled"' AND task_id = 'wait_app' AND status = 'queued';
SELECT payload, status, idempotency_key FROM trigger_idem.runs WHERE task_id = 'wait_app' AND idempotency_key !~ ',' ORDER BY payload;
INSERT INTO wait_test.parent SELECT state, wait_test.start(format('SELECT wait_test.and_wait(%L, NULL, %L)', 'wait_app', state))
FROM unnest('{delayed,queued,executing,waiting,completed,failed,canceled,pruned}'::text[]) state;
-- a batch that mixes all of these, and new ones, some of them twice
INSERT INTO wait_test.parent SELECT 'batch', wait_test.start(format('SELECT wait_test.batch_and_wait(%L, %L)', 'wait_app', jsonb_agg(jsonb_build_object(
	'payload', 'batch ' || key, 'options', jsonb_build_object('idempotency_key', key, 'queue', 'wait_batch')))))
FROM unnest('{delayed,queued,executing,waiting,completed,failed,canceled,pruned,new,new,other new,completed,queued}'::text[]) key;
CALL trigger_idem.work('wait');
SELECT name, wait_test.look(run_id) FROM wait_test.parent ORDER BY name COLLATE "C";
SELECT payload, idempotency_key, status FROM trigger_idem.runs WHERE queue = 'wait_batch' ORDER BY payload;
-- those that executed or waited end, then the others; the batch goes on with the last of them
SELECT wait_test.make_due(run_id) FROM trigger_idem.runs WHERE task_id = 'wait_app' AND status IN ('waiting', 'delayed');
SELECT c.payload, c.attempt FROM unnest('{waiting,delayed,queued}'::text[]) state, trigger_idem.run_claim('w', 'wait_' || state) c;
SELECT trigger_idem.run_complete(run_id, attempt, payload) FROM trigger_idem.runs WHERE task_id = 'wait_app' AND status = 'executing' AND payload IN ('"executing"', '"waiting"', '"queued"');
CALL trigger_idem.work('wait');
SELECT name, wait_test.look(run_id) FROM wait_test.parent ORDER BY name COLLATE "C";
SELECT wait_test.without_ids(trigger_idem.run_fail(run_id, attempt, '{"code": "ZZ010"}', retry => false)::text) FROM trigger_idem.runs WHERE task_id = 'wait_app' AND payload = '"delayed"';
SELECT payload FROM trigger_idem.run_claim('w', 'wait_batch', 10) ORDER BY 1;
SELECT trigger_idem.run_complete(run_id, attempt, payload) FROM trigger_idem.runs WHERE queue = 'wait_batch' AND payload = '"batch new"';
CALL trigger_idem.work('wait');
SELECT name, wait_test.look(run_id) FROM wait_test.parent WHERE name IN ('batch', 'delayed') ORDER BY name COLLATE "C";
SELECT trigger_idem.run_complete(run_id, attempt, payload) FROM trigger_idem.runs WHERE queue = 'wait_batch' AND payload <> '"batch new"';
CALL trigger_idem.work('wait');
SELECT name, wait_test.look(run_id) FROM wait_test.parent WHERE name = 'batch';
TRUNCATE wait_test.parent;

-- ---------- Batches ----------

-- all items new, with keys of the run, the task, the number of the batch, and the index
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_quick', '[{"payload": "a"}, {"payload": {"fails": 1}}, {}]')
	|| ' and ' || wait_test.batch_and_wait('wait_quick', '[{"payload": "a"}]')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT payload, status, parent_run_id = :'parent' AS is_child, count(*) OVER (PARTITION BY idempotency_key) AS of_that_key FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY payload;

-- many items, all of one run or each of its own
SELECT wait_test.start($$SELECT concat_ws(', ', count(*), count(DISTINCT run_id), count(*) FILTER (WHERE status = 'completed'), bool_and(output->'did' = to_jsonb(index % 40)))
	FROM trigger_idem.batch_trigger_task_and_wait('wait_quick', (SELECT jsonb_agg(jsonb_build_object('payload', n % 40, 'options', jsonb_build_object('idempotency_key', 'wait many ' || n % 40)) ORDER BY n) FROM generate_series(0, 99) n))$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');

-- an empty batch
SELECT wait_test.start($$SELECT coalesce(wait_test.batch_and_wait('wait_quick', '[]'), 'no rows')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');

-- the same key twice, and a batch whose items are all one
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_quick', '[{"payload": "first", "options": {"idempotency_key": "wait twice"}}, {"payload": "second", "options": {"idempotency_key": "wait twice"}}]')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');

-- nor twice a run that was there: both items keep the batch waiting until it ends
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"there before"', 'wait there twice') \gset
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_child', '[{"options": {"idempotency_key": "wait there twice"}}, {"options": {"idempotency_key": "wait there twice"}}]')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT index, is_pending, status FROM trigger_idem.awaited WHERE run_id = :'parent' ORDER BY index;
CALL trigger_idem.work('wait_child');
SELECT index, is_pending, status FROM trigger_idem.awaited WHERE run_id = :'parent' ORDER BY index;
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');

-- all items cached and final: it does not hang
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_quick', '[{"payload": "first", "options": {"idempotency_key": "wait twice"}}, {"payload": "second", "options": {"idempotency_key": "wait twice"}}]')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');

-- the key of a batch; the same batch asked again in the run, and in another one
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_quick', '[{"payload": 1}, {"payload": 2, "options": {"idempotency_key": "wait own"}}]', 'wait batch')
	|| ' and ' || wait_test.batch_and_wait('wait_quick', '[{"payload": 3}, {"payload": 4, "options": {"idempotency_key": "wait own"}}]', 'wait batch')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT payload, idempotency_key, idempotency_key_scope FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY payload;
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_quick', '[{"payload": 1}, {"payload": 2, "options": {"idempotency_key": "wait own"}}]', 'wait batch')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');

-- ---------- Answers are kept ----------

-- two keyless waits for one task are two children, those for another are counted by
-- themselves; an attempt that begins anew passes them with the same answers
CREATE FUNCTION wait_test.counts(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answers text[];
BEGIN
	answers := answers || wait_test.and_wait('wait_quick', '"first"');
	answers := answers || wait_test.and_wait('wait_child', '"of another task"');
	answers := answers || wait_test.and_wait('wait_quick', '"second"');
	RAISE NOTICE 'attempt %: %', trigger_idem.current_attempt(), answers;
	RETURN cardinality(answers);
END $$;
SELECT trigger_idem.task_create('wait_counts', 'wait_test.counts', queue => 'wait', max_attempts => 1);
SELECT run_id AS parent FROM trigger_idem.trigger_task('wait_counts') \gset
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT payload, idempotency_key FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY run_id;

-- a wait that was passed counts, though what came after it was rolled back
CREATE PROCEDURE wait_test.rolls_back() LANGUAGE plpgsql AS $$
DECLARE
	one text;
	two text;
BEGIN
	BEGIN
		one := wait_test.and_wait('wait_quick', '"one"');
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
	two := wait_test.and_wait('wait_quick', '"two"');
	ROLLBACK;
	RAISE NOTICE 'attempt %: %, %, %', trigger_idem.current_attempt(), one, two, wait_test.and_wait('wait_quick', '"three"');
END $$;
SELECT trigger_idem.task_create('wait_rolls_back', 'wait_test.rolls_back', queue => 'wait', max_attempts => 1);
SELECT run_id AS parent FROM trigger_idem.trigger_task('wait_rolls_back') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');

-- after a failed attempt the answer of a child that completed is kept, and what did
-- not complete is asked for anew
CREATE FUNCTION wait_test.retries(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	good text := wait_test.and_wait('wait_quick', '"good"');
	bad text;
BEGIN
	IF payload = '"batch"' THEN
		bad := wait_test.batch_and_wait('wait_child', '[{"payload": "one of a batch"}, {"payload": {"fails": true}}]');
	ELSIF payload = '"batch, keys are free"' THEN
		bad := wait_test.batch_and_wait('wait_frees', '[{"payload": "one of another batch"}, {"payload": {"fails": true}}]');
	ELSE
		bad := wait_test.and_wait('wait_child', '"bad"');
	END IF;
	RAISE NOTICE 'attempt %: % and %', trigger_idem.current_attempt(), good, bad;
	IF bad LIKE '%failed%' THEN
		RAISE EXCEPTION 'a child has failed';
	END IF;
	RETURN 'done';
END $$;
SELECT trigger_idem.task_create('wait_retries', 'wait_test.retries', queue => 'wait', max_attempts => 2, min_backoff => '0');
SELECT run_id AS parent FROM trigger_idem.trigger_task('wait_retries') \gset
CALL trigger_idem.work('wait');
UPDATE wait_test.mood SET fails = true;
CALL trigger_idem.work('wait_child');
UPDATE wait_test.mood SET fails = false;
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT payload, status, idempotency_key FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY run_id;
-- in a batch that is the item that failed
SELECT run_id AS parent FROM trigger_idem.trigger_task('wait_retries', '"batch"') \gset
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT payload, status FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY payload, status;
-- also where those that completed do not keep their keys
SELECT trigger_idem.task_create('wait_frees', 'wait_test.child', queue => 'wait_child', max_attempts => 1, release_key_on => '{completed,failed}');
SELECT run_id AS parent FROM trigger_idem.trigger_task('wait_retries', '"batch, keys are free"') \gset
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT payload, status FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY payload, status;
-- a batch that has completed is not asked for anew, whatever has failed besides
CREATE FUNCTION wait_test.fails_after_batch() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	batch text := wait_test.batch_and_wait('wait_frees', '[{"payload": "one that stays"}, {"payload": "another one"}]');
BEGIN
	IF trigger_idem.current_attempt() = 2 THEN
		RAISE EXCEPTION 'after the batch';
	END IF;
	RETURN format('attempt %s: %s', trigger_idem.current_attempt(), batch);
END $$;
SELECT trigger_idem.task_create('wait_fails_after_batch', 'wait_test.fails_after_batch', queue => 'wait', max_attempts => 2, min_backoff => '0');
SELECT run_id AS parent FROM trigger_idem.trigger_task('wait_fails_after_batch') \gset
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT count(*) FROM trigger_idem.runs WHERE parent_run_id = :'parent';
-- where the key of a failed run is kept, that is the answer again
SELECT trigger_idem.task_create('wait_child', 'wait_test.child', queue => 'wait_child', max_attempts => 1, release_key_on => '{}');
UPDATE wait_test.mood SET fails = true;
SELECT run_id AS parent FROM trigger_idem.trigger_task('wait_retries') \gset
UPDATE wait_test.mood SET fails = false;
CALL trigger_idem.work('wait');
UPDATE wait_test.mood SET fails = true;
CALL trigger_idem.work('wait_child');
UPDATE wait_test.mood SET fails = false;
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT payload, status FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY payload, status;
SELECT trigger_idem.task_create('wait_child', 'wait_test.child', queue => 'wait_child', max_attempts => 1);

-- an attempt that is not a failure keeps the answer of a child that failed
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_child', '{"fails": 1}') || ' and ' || wait_test.and_wait('wait_child', '{"fails": 2}')$$) AS parent \gset
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT payload, status FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY payload, status;

-- a hit that was final at once stays the answer, though its key is free when the handler begins anew
CREATE PROCEDURE wait_test.hits() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES (wait_test.and_wait('wait_quick', '"other"', 'wait hit'));
	INSERT INTO helper.log (line) VALUES (wait_test.batch_and_wait('wait_quick', '[{"payload": "other", "options": {"idempotency_key": "wait hit"}}]'));
	COMMIT;
	PERFORM trigger_idem.wait_for('after', '1 hour');
END $$;
SELECT trigger_idem.task_create('wait_hits', 'wait_test.hits', queue => 'wait', max_attempts => 1);
SELECT is_cached FROM trigger_idem.trigger_task('wait_quick', '"one"', 'wait hit');
CALL trigger_idem.work('wait');
SELECT run_id AS parent FROM trigger_idem.trigger_task('wait_hits') \gset
CALL trigger_idem.work('wait');
SELECT trigger_idem.idempotency_key_reset('wait_quick', 'wait hit');
SELECT wait_test.make_due(:'parent');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
CALL helper.show_log();

-- children are triggered as the handler would have: by the role of a function that it calls, and with its time zone
CREATE ROLE regress_wait_definer;
GRANT USAGE ON SCHEMA wait_test TO regress_wait_definer;
SELECT trigger_idem.access_grant('regress_wait_definer', 'trigger');
CREATE FUNCTION wait_test.definer() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET timezone = 'Asia/Tokyo' AS $$
BEGIN
	RETURN wait_test.batch_and_wait('wait_quick', '[{"payload": "by a definer", "options": {"run_at": "2020-01-02 03:00:00"}}, {"payload": "in Tokyo", "options": {"run_at": "2200-01-02 03:00:00"}}]');
END $$;
ALTER FUNCTION wait_test.definer() OWNER TO regress_wait_definer;
SELECT wait_test.start('SELECT wait_test.definer()') AS parent \gset
CALL trigger_idem.work('wait');
SELECT payload, status, triggered_by, run_at AT TIME ZONE 'Asia/Tokyo' AS run_at FROM trigger_idem.runs WHERE parent_run_id = :'parent' AND status = 'delayed';
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE parent_run_id = :'parent' AND status = 'delayed';
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
DROP OWNED BY regress_wait_definer;
DROP ROLE regress_wait_definer;

-- ---------- What was written is not undone by a wait ----------

CREATE FUNCTION wait_test.writes(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	INSERT INTO helper.log (line) VALUES ('never seen');
	EXECUTE payload #>> '{}' INTO answer;
	RETURN answer;
END $$;
SELECT trigger_idem.task_create('wait_writes', 'wait_test.writes', queue => 'wait', max_attempts => 1);
SELECT token FROM trigger_idem.wait_token_create() \gset
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', delay => '1 hour') \gset
SELECT count(trigger_idem.trigger_task('wait_writes', to_jsonb(command))) FROM unnest(ARRAY[
	$$SELECT wait_test.and_wait('wait_child', '"never triggered"')$$,
	$$SELECT wait_test.batch_and_wait('wait_child', '[{"payload": "never triggered"}]')$$,
	format('SELECT wait_test.run_wait(%L)', :'other'),
	format('SELECT wait_test.for_token(%L)', :'token'),
	$$SELECT trigger_idem.wait_for('k', '1 hour')$$,
	$$SELECT trigger_idem.wait_until('k', 'tomorrow')$$]) command;
CALL trigger_idem.work('wait');
CALL helper.show_log();
SELECT wait_test.without_ids(payload #>> '{}') AS command, status, error->>'code' AS code FROM trigger_idem.runs WHERE task_id = 'wait_writes' ORDER BY run_id;
SELECT DISTINCT error->>'message' AS message, error->>'hint' AS hint FROM trigger_idem.runs WHERE task_id = 'wait_writes';
SELECT count(*) FROM trigger_idem.runs WHERE payload = '"never triggered"';
SELECT count(*) FROM trigger_idem.waits JOIN trigger_idem.runs USING (run_id) WHERE task_id = 'wait_writes';
-- a new run that was triggered is written, too; a hit is not; what is over is no wait
SELECT wait_test.start($$SELECT helper.error_of(format('SELECT wait_test.run_wait(%L)', run_id)) FROM trigger_idem.trigger_task('wait_child', '"never triggered"')$$) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT is_cached FROM trigger_idem.trigger_task('wait_quick', '1', 'wait hit on this');
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_quick', '1') FROM trigger_idem.trigger_task('wait_quick', '1', 'wait hit on this')$$) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
CREATE FUNCTION wait_test.writes_between() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text := wait_test.and_wait('wait_quick', '"before"');
BEGIN
	INSERT INTO helper.log (line) VALUES ('written after a wait');
	RETURN concat_ws(', ', answer, wait_test.and_wait('wait_quick', '1', 'wait hit on this'), trigger_idem.wait_for('past', '0') <= clock_timestamp());
END $$;
SELECT trigger_idem.task_create('wait_writes_between', 'wait_test.writes_between', queue => 'wait', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_writes_between') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
CALL helper.show_log();

-- several runs in one transaction: what the others wrote does not count.  One that
-- has only one attempt would not be claimed together with others
SET trigger_idem.runs_per_commit = 5;
SELECT trigger_idem.task_create('wait_log', 'helper.handler', queue => 'wait', max_attempts => 1);
SELECT count(*) FROM generate_series(1, 12) n, LATERAL trigger_idem.trigger_task(CASE n % 4 WHEN 0 THEN 'wait_log' WHEN 1 THEN 'wait_sql' WHEN 2 THEN 'wait_counts' ELSE 'wait_writes' END,
	CASE n % 4 WHEN 0 THEN to_jsonb('of a group '::text || n) ELSE to_jsonb('SELECT wait_test.and_wait(''wait_child'', ''' || n || ''')') END, tags => '{group}', priority => 100 - n,
	max_attempts => CASE n % 4 WHEN 3 THEN 1 ELSE 2 END);
SELECT status FROM trigger_idem.trigger_task('wait_sql', to_jsonb($$SELECT helper.error_of('SELECT wait_test.and_wait(''wait_child'', ''13'')')$$::text), tags => '{group}', priority => 87, max_attempts => 2);
SET client_min_messages = warning;
CALL trigger_idem.work('wait') \g /dev/null
SELECT task_id, status, error->>'code' AS code, count(*) FROM trigger_idem.runs WHERE tags = '{group}' GROUP BY 1, 2, 3 ORDER BY 1, 2;
CALL trigger_idem.work('wait_child') \g /dev/null
CALL trigger_idem.work('wait') \g /dev/null
CALL trigger_idem.work('wait_child') \g /dev/null
CALL trigger_idem.work('wait') \g /dev/null
RESET client_min_messages;
RESET trigger_idem.runs_per_commit;
SELECT task_id, status, output #>> '{}' AS output, error->>'code' AS code FROM trigger_idem.runs WHERE tags = '{group}' ORDER BY run_id;
CALL helper.show_log();

-- ---------- Leaving the handler ----------

-- EXCEPTION WHEN OTHERS lets it pass
CREATE FUNCTION wait_test.catches_others() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN wait_test.and_wait('wait_quick', '1');
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE 'caught % %', SQLSTATE, SQLERRM;
	RETURN 'caught';
END $$;
SELECT trigger_idem.task_create('wait_catches_others', 'wait_test.catches_others', queue => 'wait', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_catches_others') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- a handler that catches it by name waits all the same, and can do nothing any more
CREATE FUNCTION wait_test.caught(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RAISE NOTICE 'no error: %', command;
EXCEPTION WHEN assert_failure THEN
	RAISE NOTICE 'attempt % caught %: %', trigger_idem.current_attempt(), SQLSTATE, wait_test.without_ids(command);
WHEN OTHERS THEN
	RAISE NOTICE '% %: %', SQLSTATE, SQLERRM, wait_test.without_ids(command);
END $$;
CREATE FUNCTION wait_test.catches_by_name(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM wait_test.caught($c$SELECT wait_test.and_wait('wait_quick', '"waited for"')$c$);
	IF trigger_idem.current_attempt() = 1 THEN
		PERFORM wait_test.caught(command) FROM unnest(ARRAY[
			$c$SELECT trigger_idem.run_once_sql('never', 'SELECT 1')$c$,
			$c$SELECT trigger_idem.run_once('never', 'helper.callback')$c$,
			$c$SELECT trigger_idem.run_once_local_only('never', 'helper.callback')$c$,
			$c$SELECT trigger_idem.trigger_task('wait_quick', '"never"')$c$,
			$c$SELECT trigger_idem.batch_trigger_task('wait_quick', '[{"payload": "never"}]')$c$,
			$c$SELECT trigger_idem.trigger_task_and_wait('wait_quick', '"never"')$c$,
			$c$SELECT trigger_idem.batch_trigger_task_and_wait('wait_quick', '[{"payload": "never"}]')$c$,
			$c$SELECT trigger_idem.run_wait(trigger_idem.current_run_id())$c$,
			$c$SELECT trigger_idem.wait_for('never', '1 hour')$c$,
			$c$SELECT trigger_idem.wait_until('never', 'tomorrow')$c$,
			$c$SELECT trigger_idem.wait_token_create('never')$c$,
			$c$SELECT trigger_idem.wait_token_complete(trigger_idem.current_run_id())$c$,
			$c$SELECT trigger_idem.wait_for_token(trigger_idem.current_run_id())$c$]) command;
		INSERT INTO helper.log (line) VALUES ('never seen');
		IF payload = '"raises"' THEN
			RAISE EXCEPTION 'another error';
		END IF;
	END IF;
	RETURN 'returned by attempt ' || trigger_idem.current_attempt();
END $$;
SELECT trigger_idem.task_create('wait_catches_by_name', 'wait_test.catches_by_name', queue => 'wait', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_catches_by_name', '"returns"') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_catches_by_name', '"raises"') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
CALL helper.show_log();
SELECT count(*) FROM trigger_idem.runs WHERE payload = '"never"';

-- a procedure that commits, or rolls back, after it has caught it
CREATE PROCEDURE wait_test.commits_after(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM wait_test.caught($c$SELECT wait_test.and_wait('wait_quick', '"waited for"')$c$);
	INSERT INTO helper.log (line) VALUES (format('%s, attempt %s', payload, trigger_idem.current_attempt()));
	IF payload = '"commits"' THEN
		COMMIT;
	ELSE
		ROLLBACK;
	END IF;
	RAISE NOTICE '% %', payload, trigger_idem.current_attempt();
	INSERT INTO helper.log (line) VALUES (format('%s, end of attempt %s', payload, trigger_idem.current_attempt()));
END $$;
SELECT trigger_idem.task_create('wait_commits_after', 'wait_test.commits_after', queue => 'wait', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_commits_after', '"commits"') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_commits_after', '"rolls back"') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
CALL helper.show_log();

-- the same in a group: nothing of a handler that caught it is committed
SET trigger_idem.runs_per_commit = 5;
SELECT count(trigger_idem.trigger_task('wait_catches_by_name', to_jsonb(what), tags => '{caught}', max_attempts => 2)) FROM unnest('{returns,raises}'::text[]) what;
SELECT status FROM trigger_idem.trigger_task('wait_log', '"in the group of those"', max_attempts => 2);
SET client_min_messages = warning;
CALL trigger_idem.work('wait') \g /dev/null
RESET client_min_messages;
RESET trigger_idem.runs_per_commit;
SELECT payload, status, output FROM trigger_idem.runs WHERE tags = '{caught}' ORDER BY run_id;
CALL helper.show_log();
SELECT count(*) FROM trigger_idem.runs WHERE payload = '"never"';

-- ---------- Steps ----------

-- a wait inside a callback belongs to its step: the same key inside another one is another wait
CREATE FUNCTION wait_test.waits_inside(idempotency_key text, args jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	slept timestamptz := trigger_idem.wait_for('inside', '1 hour');
BEGIN
	RETURN wait_test.and_wait('wait_quick', args);
END $$;
CREATE PROCEDURE wait_test.steps() LANGUAGE plpgsql AS $$
DECLARE
	one text := trigger_idem.run_once('step one', 'wait_test.waits_inside', '1');
	two text;
BEGIN
	COMMIT;
	two := trigger_idem.run_once('step two', 'wait_test.waits_inside', '2');
	COMMIT;
	RAISE NOTICE '%, %, %', one, two, wait_test.and_wait('wait_quick', '3');
END $$;
SELECT trigger_idem.task_create('wait_steps', 'wait_test.steps', queue => 'wait', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_steps') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT wait, kind FROM trigger_idem.waits WHERE run_id = :'run' ORDER BY started_at;
SELECT step, output FROM trigger_idem.steps WHERE run_id = :'run' ORDER BY finished_at;
-- three children: what is asked for in a step is counted there
SELECT payload FROM trigger_idem.runs WHERE parent_run_id = :'run' ORDER BY payload;
-- a step is something that was written
SELECT wait_test.start($$SELECT trigger_idem.run_once_sql('step', 'SELECT 1')::text || trigger_idem.wait_for('k', '1 hour')$$) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
-- steps that are global, or only local, can wait as well
CREATE FUNCTION wait_test.only_waits(idempotency_key text, args jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN wait_test.and_wait('wait_quick', args, 'wait in step ' || args::text);
END $$;
SELECT wait_test.start($$SELECT trigger_idem.run_once('wait global', 'wait_test.only_waits', '"global"', 'global')$$) AS one \gset
SELECT wait_test.start($$SELECT trigger_idem.run_once_local_only('local', 'wait_test.only_waits', '"local"')$$) AS two \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(run_id), wait FROM trigger_idem.waits WHERE run_id IN (:'one', :'two') ORDER BY wait;
SELECT wait_test.error_of($$SELECT trigger_idem.run_once_sql('wait global 2', 'SELECT trigger_idem.wait_for(''k'', ''0'')', scope => 'global')$$);

-- ---------- Time ----------

-- a sleep passes at its time, and returns the same in every attempt
CREATE FUNCTION wait_test.sleeps() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	one timestamptz := trigger_idem.wait_for('one', '1 hour');
	same boolean := one = (SELECT until FROM trigger_idem.waits WHERE run_id = trigger_idem.current_run_id() AND wait = '{one}');
	two timestamptz := trigger_idem.wait_until('two', clock_timestamp() + interval '1 hour');
	three timestamptz;
BEGIN
	-- the same key is the same wait
	three := trigger_idem.wait_for('two', '1 day');
	RAISE NOTICE 'attempt %: %, %, %', trigger_idem.current_attempt(), same,
		two = (SELECT until FROM trigger_idem.waits WHERE run_id = trigger_idem.current_run_id() AND wait = '{two}'), three = two;
	RETURN one < two;
END $$;
SELECT trigger_idem.task_create('wait_sleeps', 'wait_test.sleeps', queue => 'wait', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_sleeps') \gset
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait');
SELECT r.status, r.attempt, r.run_at = w.until AS run_at_is_until, w.until - w.started_at BETWEEN '59 min' AND '1 hour' AS an_hour, w.ended_at, w.timed_out, w.kind, w.wait, w.target, w.is_cached, held_because
FROM trigger_idem.runs r JOIN trigger_idem.waits w USING (run_id) WHERE run_id = :'run';
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT w.wait, w.attempt, w.ended_at IS NOT NULL AS has_ended FROM trigger_idem.waits w WHERE run_id = :'run' ORDER BY started_at;
-- the clock alone does it
CREATE PROCEDURE wait_test.let_pass(run uuid) LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM trigger_idem.runs WHERE run_id = run AND status = 'waiting') LOOP
		COMMIT;
	END LOOP;
END $$;
SELECT wait_test.start($$SELECT trigger_idem.wait_for('k', '1 ms') <= clock_timestamp()$$) AS run \gset
CALL trigger_idem.work('wait') \g /dev/null
CALL wait_test.let_pass(:'run');
CALL trigger_idem.work('wait') \g /dev/null
SELECT wait_test.look(:'run');

-- zero, and what is past, passes at once, and stays what it was
CREATE FUNCTION wait_test.past() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	zero timestamptz := trigger_idem.wait_for('zero', '0');
	past timestamptz := trigger_idem.wait_until('past', '2001-01-01 00:00:00+00');
BEGIN
	PERFORM trigger_idem.wait_for('sleep', '1 hour');
	RETURN concat_ws(', ', past = '2001-01-01 00:00:00+00', zero < (SELECT started_at FROM trigger_idem.waits WHERE run_id = trigger_idem.current_run_id() AND wait = '{sleep}'));
END $$;
SELECT trigger_idem.task_create('wait_past', 'wait_test.past', queue => 'wait', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_past') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- bounds: errors are raised in the handler
SELECT run.run, call FROM unnest(ARRAY[
	$$wait_for(NULL, '1 s')$$, $$wait_for('', '1 s')$$, $$wait_for(repeat('k', 2049), '1 s')$$, $$wait_for('k', NULL)$$, $$wait_for('k', '-1 s')$$, $$wait_for('k', '101 years')$$,
	$$wait_until(NULL, 'tomorrow')$$, $$wait_until('', 'tomorrow')$$, $$wait_until('k', NULL)$$, $$wait_until('k', 'infinity')$$, $$wait_until('k', '-infinity')$$]) call,
	LATERAL wait_test.start(format('SELECT wait_test.error_of(%L)', 'SELECT trigger_idem.' || call)) run \g /dev/null
CALL trigger_idem.work('wait');
SELECT substring(payload #>> '{}' FROM 'trigger_idem.(.*)''\)$') AS call, output, error->>'code' AS code FROM trigger_idem.runs WHERE task_id = 'wait_sql' AND payload #>> '{}' ~ 'error_of.*trigger_idem.wait_(for|until)\(' ORDER BY run_id;
-- outside a run
SELECT wait_test.error_of('SELECT trigger_idem.' || call) FROM unnest(ARRAY[$$wait_for('k', '1 s')$$, $$wait_for('k', '0')$$, $$wait_until('k', 'tomorrow')$$, $$wait_until('k', '2001-01-01')$$]) call;

-- ---------- Runs that are there ----------

-- a run that is final answers at once; one that is not, when it is
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"other"') \gset
SELECT run_id AS failing FROM trigger_idem.trigger_task('wait_child', '{"fails": true}') \gset
SELECT run_id AS done FROM trigger_idem.trigger_task('wait_quick', '"done"') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.start(format('SELECT concat_ws('', '', wait_test.run_wait(%L), wait_test.run_wait(%L), wait_test.run_wait(%L, ''0''), wait_test.run_wait(%L))', :'done', :'other', :'other', :'failing')) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT w.wait[1] = w.target::text AS is_named_by_target, w.target = :'other' AS is_other, w.kind, w.until, w.is_cached, w.ended_at FROM trigger_idem.waits w WHERE run_id = :'run' AND target <> :'done';
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- a timeout: the status is what it is then, and stays the answer
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"slow"', delay => '1 hour') \gset
CREATE FUNCTION wait_test.times_out(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	first text := wait_test.run_wait((payload ->> 0)::uuid, '1 hour');
	second text;
BEGIN
	RAISE NOTICE 'attempt %: %', trigger_idem.current_attempt(), first;
	second := wait_test.run_wait((payload ->> 0)::uuid);
	RETURN concat_ws(', then ', first, second);
END $$;
SELECT trigger_idem.task_create('wait_times_out', 'wait_test.times_out', queue => 'wait', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_times_out', to_jsonb(:'other'::text)) \gset
CALL trigger_idem.work('wait');
SELECT r.status, r.run_at = w.until AS run_at_is_until, w.until - w.started_at BETWEEN '59 min' AND '1 hour' AS an_hour FROM trigger_idem.runs r JOIN trigger_idem.waits w USING (run_id) WHERE run_id = :'run';
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT status, run_at - created_at AS run_at FROM trigger_idem.runs WHERE run_id = :'run';
-- the child goes on
SELECT status FROM trigger_idem.runs WHERE run_id = :'other';
SELECT wait_test.make_due(:'other');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT w.timed_out FROM trigger_idem.waits w WHERE run_id = :'run' ORDER BY started_at;

-- no time at all
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"no time"') \gset
SELECT wait_test.start(format('SELECT wait_test.run_wait(%L, ''0'')', :'other')) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- after a failed attempt it is asked for anew
CREATE FUNCTION wait_test.fails_after() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text := (SELECT wait_test.run_wait(run_id, '1 hour') FROM trigger_idem.runs WHERE payload = '"asked for anew"');
BEGIN
	IF trigger_idem.current_attempt() = 2 THEN
		RAISE EXCEPTION 'fails';
	END IF;
	RETURN answer;
END $$;
SELECT trigger_idem.task_create('wait_fails_after', 'wait_test.fails_after', queue => 'wait', max_attempts => 2, min_backoff => '0');
SELECT is_cached FROM trigger_idem.trigger_task('wait_child', '"asked for anew"');
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_fails_after') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- a run that was there, with a ttl, and is not started in time
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"too late"', ttl => '1 hour') \gset
SELECT wait_test.start(format('SELECT wait_test.run_wait(%L)', :'other')) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.expire_run(:'other');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- what was waited for and ended before the timeout has not timed out, however late the run goes on
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"in time"') \gset
SELECT wait_test.start(format('SELECT wait_test.run_wait(%L, ''1 hour'')', :'other')) AS run \gset
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- a final run that was waited for is there, and the answer the same, as long as who waited is not final
CREATE FUNCTION wait_test.sleeps_after(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text := wait_test.run_wait((payload ->> 0)::uuid);
BEGIN
	PERFORM trigger_idem.wait_for('k', '1 hour');
	RETURN answer;
END $$;
SELECT trigger_idem.task_create('wait_sleeps_after', 'wait_test.sleeps_after', queue => 'wait', max_attempts => 1);
SELECT run_id AS done FROM trigger_idem.trigger_task('wait_quick', '"done long ago"') \gset
CALL trigger_idem.work('wait');
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_sleeps_after', to_jsonb(:'done'::text)) \gset
CALL trigger_idem.work('wait');
SELECT removed > 0 AS some FROM trigger_idem.prune('0') WHERE what = 'runs';
SELECT count(*) FROM trigger_idem.runs WHERE run_id = :'done';
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT run_id AS done FROM trigger_idem.trigger_task('wait_quick', '"done"') \gset
SELECT run_id AS failing FROM trigger_idem.trigger_task('wait_quick', '{"fails": true}') \gset
CALL trigger_idem.work('wait');

-- itself, unknown runs, null, bad timeouts
SELECT count(wait_test.start(format('SELECT wait_test.error_of(%L)', 'SELECT trigger_idem.' || call))) FROM unnest(ARRAY[
	'run_wait(trigger_idem.current_run_id())', 'run_wait(trigger_idem.current_run_id(), ''0'')', 'run_wait(''00000000-0000-0000-0000-000000000000'')', 'run_wait(NULL)',
	format('run_wait(%L, ''-1 s'')', :'done'), format('run_wait(%L, ''101 years'')', :'done')]) call;
CALL trigger_idem.work('wait');
SELECT output #>> '{}' AS error FROM trigger_idem.runs WHERE payload #>> '{}' ~ 'error_of.*trigger_idem.run_wait' ORDER BY run_id;

-- outside a run: a final one at once, a timeout, one of the own transaction, unknown ones
SELECT * FROM trigger_idem.run_wait(:'done');
SELECT wait_test.run_wait(:'done', '0'), wait_test.run_wait(:'failing');
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"outside"') \gset
SELECT wait_test.run_wait(:'other', '10 ms'), wait_test.run_wait(:'other', '0');
BEGIN;
SELECT run_id AS own FROM trigger_idem.trigger_task('wait_child', '"own"') \gset
SELECT wait_test.error_of(format('SELECT trigger_idem.run_wait(%L)', :'own'));
SELECT wait_test.error_of(format('SELECT trigger_idem.run_wait(%L, ''1 ms'')', :'own'));
ROLLBACK;
SELECT call, wait_test.error_of('SELECT trigger_idem.' || call) FROM unnest(ARRAY['run_wait(NULL)', 'run_wait(''00000000-0000-0000-0000-000000000000'')']) call;
SELECT wait_test.error_of(format('SELECT trigger_idem.run_wait(%L, %L)', :'other', '-1 s'));
-- it waits no longer than the session is allowed to
SET statement_timeout = '10 ms';
SELECT * FROM trigger_idem.run_wait(:'other');
RESET statement_timeout;
SELECT trigger_idem.run_cancel(:'other');
SELECT * FROM trigger_idem.run_wait(:'other');

-- outside a run, .._and_wait is for runs that are there
SELECT wait_test.error_of('SELECT * FROM trigger_idem.trigger_task_and_wait(''wait_child'', ''"outside new"'')');
SELECT wait_test.error_of('SELECT * FROM trigger_idem.trigger_task_and_wait(''wait_child'', ''"outside new"'', ''wait outside'')');
SELECT wait_test.error_of('SELECT * FROM trigger_idem.batch_trigger_task_and_wait(''wait_child'', ''[{"payload": "outside new"}]'', ''wait outside'')');
SELECT is_cached FROM trigger_idem.trigger_task('wait_quick', '"outside"', 'wait outside');
SELECT wait_test.error_of('SELECT * FROM trigger_idem.batch_trigger_task_and_wait(''wait_quick'', ''[{"options": {"idempotency_key": "wait outside"}}, {"payload": "outside new"}]'', ''wait outside'')');
SELECT count(*) FROM trigger_idem.runs WHERE payload = '"outside new"';
SELECT count(*) FROM trigger_idem.idempotency_keys WHERE key = 'wait outside' AND task_id = 'wait_child';
CALL trigger_idem.work('wait');
SELECT wait_test.and_wait('wait_quick', NULL, 'wait outside');
SELECT wait_test.batch_and_wait('wait_quick', '[{"options": {"idempotency_key": "wait outside"}}, {"options": {"idempotency_key": "wait outside"}}]');
SELECT coalesce(wait_test.batch_and_wait('wait_quick', '[]'), 'no rows');
SELECT run_id IS NOT NULL AS has_id, is_cached, status, output, error FROM trigger_idem.trigger_task_and_wait('wait_quick', NULL, 'wait outside');
BEGIN;
SELECT is_cached FROM trigger_idem.trigger_task('wait_quick', NULL, 'wait outside own');
SELECT wait_test.error_of('SELECT trigger_idem.trigger_task_and_wait(''wait_quick'', NULL, ''wait outside own'')');
ROLLBACK;

-- ---------- Cycles ----------

-- a child that asks for its parent's key, or waits for it, alone or in a batch
CREATE FUNCTION wait_test.closes_cycle(payload jsonb) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	parent uuid := (SELECT parent_run_id FROM trigger_idem.runs WHERE run_id = trigger_idem.current_run_id());
BEGIN
	RETURN ARRAY(SELECT wait_test.error_of(command) FROM unnest(ARRAY[
		'SELECT trigger_idem.trigger_task_and_wait(''wait_sql'', NULL, ''wait cycle'')',
		'SELECT trigger_idem.batch_trigger_task_and_wait(''wait_sql'', ''[{"payload": "SELECT 1"}, {"options": {"idempotency_key": "wait cycle"}}]'')',
		format('SELECT trigger_idem.run_wait(%L)', parent), format('SELECT trigger_idem.run_wait(%L, ''1 hour'')', parent)]) command);
END $$;
SELECT trigger_idem.task_create('wait_closes_cycle', 'wait_test.closes_cycle', queue => 'wait', max_attempts => 1);
SELECT wait_test.start($$SELECT output->>0 FROM trigger_idem.trigger_task_and_wait('wait_closes_cycle')$$, 'wait cycle') AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT jsonb_array_elements_text(output) AS error FROM trigger_idem.runs WHERE task_id = 'wait_closes_cycle';
SELECT count(*) FROM trigger_idem.runs WHERE payload = '"SELECT 1"';

-- a run that asks for its own key, and one that does through two others
SELECT wait_test.start($$SELECT wait_test.error_of('SELECT trigger_idem.trigger_task_and_wait(''wait_sql'', NULL, ''wait own key'')')$$, 'wait own key') AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_sql', to_jsonb($i$SELECT wait_test.batch_and_wait('wait_sql', '[{"payload": "SELECT wait_test.and_wait(''wait_sql'', NULL, ''wait far'')"}]')$i$::text))$$, 'wait far') AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT error->>'code' AS code FROM trigger_idem.runs WHERE payload #>> '{}' = $$SELECT wait_test.and_wait('wait_sql', NULL, 'wait far')$$;

-- two that wait for one are no cycle, nor one that waits for whom it waited for
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"of two"') \gset
SELECT wait_test.start(format('SELECT wait_test.run_wait(%L)', :'other')) AS one \gset
SELECT wait_test.start(format('SELECT wait_test.run_wait(%L) || '', '' || wait_test.run_wait(%L)', :'other', :'one')) AS two \gset
CALL trigger_idem.work('wait');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'one'), wait_test.look(:'two');

-- nor is it one to wait for two that wait for the same
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"of a diamond"') \gset
SELECT count(wait_test.start(format('SELECT wait_test.run_wait(%L)', :'other'), 'wait diamond ' || n)) FROM generate_series(1, 2) n;
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_sql', '[{"options": {"idempotency_key": "wait diamond 1"}}, {"options": {"idempotency_key": "wait diamond 2"}}]')$$) AS both \gset
SELECT wait_test.start(format('SELECT wait_test.run_wait(%L)', :'both')) AS last \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'last');
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'last');

-- ---------- Tokens ----------

-- with a key there is one
SELECT is_cached FROM trigger_idem.wait_token_create('wait token');
SELECT a.token = b.token AS same, b.is_cached FROM trigger_idem.wait_token_create('wait token') a, trigger_idem.wait_token_create(trigger_idem.idempotency_key_create('wait token', 'global'), '1 hour') b;
SELECT a.token = b.token AS same, a.is_cached, b.is_cached FROM trigger_idem.wait_token_create() a, trigger_idem.wait_token_create() b;
SELECT trigger_idem.environment_create('wait_other');
SELECT a.token = b.token AS same, b.is_cached FROM trigger_idem.wait_token_create('wait token') a, trigger_idem.wait_token_create('wait token', environment => 'wait_other') b;
BEGIN;
SELECT is_cached FROM trigger_idem.wait_token_create('wait token rolled back');
ROLLBACK;
SELECT is_cached FROM trigger_idem.wait_token_create('wait token rolled back');

-- the first completion wins; a run that waits, and one that comes later, get its output
SELECT token FROM trigger_idem.wait_token_create('wait token') \gset
SELECT wait_test.start(format('SELECT wait_test.for_token(%L)', :'token')) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT status, run_at = created_at AS run_at_is_unchanged FROM trigger_idem.runs WHERE run_id = :'run';
BEGIN;
SELECT trigger_idem.wait_token_complete(:'token', '"rolled back"');
ROLLBACK;
CALL trigger_idem.work('wait');
SELECT trigger_idem.wait_token_complete(:'token', '{"the": "first"}');
SELECT trigger_idem.wait_token_complete(:'token', '{"the": "second"}');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT wait_test.start(format('SELECT concat_ws('', '', wait_test.for_token(%L), wait_test.for_token(%L))', :'token', :'token')) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT is_cached, token = :'token' AS same FROM trigger_idem.wait_token_create('wait token');
SELECT output, completed_at IS NOT NULL AS is_completed, expires_at, created_by = current_user AS mine, environment FROM trigger_idem.wait_tokens WHERE token = :'token';

-- without an output, and twice in one transaction
SELECT token FROM trigger_idem.wait_token_create() \gset
SELECT trigger_idem.wait_token_complete(:'token'), trigger_idem.wait_token_complete(:'token', '1');
SELECT * FROM trigger_idem.wait_for_token(:'token');

-- one that times out: not ok, for ever, and to complete it is too late
SELECT token FROM trigger_idem.wait_token_create(timeout => '1 hour') \gset
SELECT wait_test.start(format('SELECT concat_ws('', '', wait_test.for_token(%L), wait_test.for_token(%L))', :'token', :'token')) AS run \gset
CALL trigger_idem.work('wait');
SELECT r.status, r.run_at = k.expires_at AS run_at_is_timeout, k.expires_at - k.created_at AS timeout, w.until = k.expires_at AS waits_until_then, w.kind
FROM trigger_idem.runs r JOIN trigger_idem.waits w USING (run_id) JOIN trigger_idem.wait_tokens k ON k.token = w.target WHERE run_id = :'run';
SELECT wait_test.expire_token(:'token');
SELECT trigger_idem.wait_token_complete(:'token', '"too late"');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
SELECT * FROM trigger_idem.wait_for_token(:'token');
SELECT wait_test.start(format('SELECT wait_test.for_token(%L)', :'token')) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
-- one that is completed in time
SELECT token FROM trigger_idem.wait_token_create('wait in time', '1 hour') \gset
SELECT wait_test.start(format('SELECT wait_test.for_token(%L)', :'token')) AS run \gset
CALL trigger_idem.work('wait');
SELECT trigger_idem.wait_token_complete(:'token', '"in time"');
SELECT wait_test.expire_token(:'token');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- two runs that wait for one; a run that makes its own token and hands it to its child
SELECT token FROM trigger_idem.wait_token_create() \gset
SELECT wait_test.start(format('SELECT wait_test.for_token(%L)', :'token')) AS one \gset
SELECT wait_test.start(format('SELECT wait_test.for_token(%L)', :'token')) AS two \gset
CALL trigger_idem.work('wait');
SELECT trigger_idem.wait_token_complete(:'token', '2');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'one'), wait_test.look(:'two');
CREATE PROCEDURE wait_test.hands_out() LANGUAGE plpgsql AS $$
DECLARE
	token uuid := (SELECT k.token FROM trigger_idem.wait_token_create(trigger_idem.idempotency_key_create('handed out')) k);
BEGIN
	PERFORM trigger_idem.trigger_task('wait_sql', to_jsonb(format('SELECT trigger_idem.wait_token_complete(%L, ''"from the child"'')', token)), trigger_idem.idempotency_key_create('child'));
	COMMIT;
	RAISE NOTICE 'attempt %: %', trigger_idem.current_attempt(), wait_test.for_token(token);
END $$;
SELECT trigger_idem.task_create('wait_hands_out', 'wait_test.hands_out', queue => 'wait', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_hands_out') \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');

-- unknown tokens, null, bounds, one of the own transaction; in a run and outside
SELECT call, wait_test.error_of('SELECT trigger_idem.' || call) FROM unnest(ARRAY[
	'wait_for_token(NULL)', 'wait_for_token(''00000000-0000-0000-0000-000000000000'')', 'wait_token_complete(NULL)', 'wait_token_complete(''00000000-0000-0000-0000-000000000000'')',
	'wait_token_create('''')', 'wait_token_create(timeout => ''0'')', 'wait_token_create(timeout => ''-1 s'')', 'wait_token_create(timeout => ''101 years'')', 'wait_token_create(environment => ''nowhere'')']) call;
SELECT count(wait_test.start(format('SELECT wait_test.error_of(%L)', 'SELECT trigger_idem.' || call))) FROM unnest(ARRAY[
	'wait_for_token(NULL)', 'wait_for_token(''00000000-0000-0000-0000-000000000000'')', 'wait_for_token(token) FROM trigger_idem.wait_token_create()']) call;
CALL trigger_idem.work('wait');
SELECT output #>> '{}' AS error FROM trigger_idem.runs WHERE payload #>> '{}' ~ 'error_of.*trigger_idem.wait_for_token' ORDER BY run_id;
BEGIN;
SELECT token FROM trigger_idem.wait_token_create() \gset
SELECT wait_test.error_of(format('SELECT trigger_idem.wait_for_token(%L)', :'token'));
SELECT trigger_idem.wait_token_complete(:'token', '"own"');
SELECT * FROM trigger_idem.wait_for_token(:'token');
COMMIT;
SELECT token FROM trigger_idem.wait_token_create() \gset
SET statement_timeout = '10 ms';
SELECT * FROM trigger_idem.wait_for_token(:'token');
RESET statement_timeout;
SELECT token FROM trigger_idem.wait_token_create(timeout => '10 ms') \gset
SELECT * FROM trigger_idem.wait_for_token(:'token');

-- ---------- Cancel ----------

-- a parent that waits: its unfinished children go with it, but for one that another run waits for, and
-- those that are not its own
SELECT is_cached FROM trigger_idem.trigger_task('wait_child', '"not its own"', 'wait not its own');
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_child', '[{"payload": "goes"}, {"payload": "stays", "options": {"idempotency_key": "wait stays"}}, {"options": {"idempotency_key": "wait not its own"}},
	{"payload": "goes, too", "options": {"delay": "1 hour"}}]')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_child', NULL, 'wait stays')$$) AS other \gset
CALL trigger_idem.work('wait');
BEGIN;
SELECT trigger_idem.run_cancel(:'parent');
ROLLBACK;
SELECT payload, status FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY payload, status;
SELECT trigger_idem.run_cancel(:'parent');
SELECT trigger_idem.run_cancel(:'parent');
SELECT wait_test.look(:'parent'), finished_at IS NOT NULL AS is_finished FROM trigger_idem.runs WHERE run_id = :'parent';
SELECT kind, ended_at IS NOT NULL AS has_ended, timed_out FROM trigger_idem.waits WHERE run_id = :'parent';
SELECT payload, status FROM trigger_idem.runs WHERE parent_run_id = :'parent' OR payload = '"not its own"' ORDER BY payload, status;
CALL trigger_idem.work('wait_child');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent'), wait_test.look(:'other');

-- a run that has waited for it does not, nor does one that is canceled
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_child', '"goes"', 'wait goes')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_child', NULL, 'wait goes')$$) AS other \gset
CALL trigger_idem.work('wait');
SELECT trigger_idem.run_cancel(:'other');
SELECT trigger_idem.run_cancel(:'parent');
SELECT payload, status FROM trigger_idem.runs WHERE parent_run_id = :'parent';

-- children of one parent that wait for each other go together, whoever is first
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_sql', '[
	{"payload": "SELECT wait_test.and_wait(''wait_app'', NULL, ''wait for this'')", "options": {"idempotency_key": "wait first"}},
	{"payload": "SELECT wait_test.and_wait(''wait_sql'', NULL, ''wait first'')", "options": {"idempotency_key": "wait second"}},
	{"payload": "SELECT wait_test.and_wait(''wait_sql'', NULL, ''wait fourth'')", "options": {"idempotency_key": "wait third"}},
	{"payload": "SELECT wait_test.and_wait(''wait_app'', NULL, ''wait for this'')", "options": {"idempotency_key": "wait fourth"}}]')$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT idempotency_key, status FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY idempotency_key COLLATE "C";
SELECT trigger_idem.run_cancel(:'parent');
SELECT idempotency_key, status FROM trigger_idem.runs WHERE parent_run_id = :'parent' ORDER BY idempotency_key COLLATE "C";
SELECT idempotency_key, status FROM trigger_idem.runs WHERE idempotency_key = 'wait for this';

-- a run that sleeps, or waits for a token, is canceled at once
SELECT wait_test.start($$SELECT trigger_idem.wait_for('k', '1 hour')$$) AS run \gset
CALL trigger_idem.work('wait');
SELECT trigger_idem.run_cancel(:'run');
SELECT wait_test.look(:'run');

-- a child that is canceled while it waits, and one that executes, wake their parents
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_sql', '"SELECT trigger_idem.wait_for(''asleep'', ''1 hour'')"') || ', ' || (SELECT wait_test.shown(status, output, error) FROM trigger_idem.trigger_task_and_wait('wait_app', '"to be canceled"', queue => 'wait_cancel'))$$) AS parent \gset
CALL trigger_idem.work('wait');
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE parent_run_id = :'parent';
CALL trigger_idem.work('wait');
SELECT payload FROM trigger_idem.run_claim('w', 'wait_cancel');
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE parent_run_id = :'parent' AND status = 'executing';
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');

-- ---------- Views ----------

SELECT trigger_idem.task_create('wait_views', 'wait_test.sleeps', queue => 'wait_views', max_attempts => 1);
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_views') \gset
SELECT queue, paused, queued, delayed, executing, waiting, oldest_due IS NULL AS none_is_due FROM trigger_idem.queues WHERE queue = 'wait_views';
CALL trigger_idem.work('wait_views');
SELECT queue, paused, queued, delayed, executing, waiting, oldest_due IS NULL AS none_is_due FROM trigger_idem.queues WHERE queue = 'wait_views';
SELECT attempt, status, worker_id IS NOT NULL AS has_worker, finished_at >= started_at AS has_finished, error FROM trigger_idem.attempts WHERE run_id = :'run';
SELECT status, attempt, output, error, held_because, started_at IS NOT NULL AS has_started, finished_at FROM trigger_idem.runs WHERE run_id = :'run';
-- its task is dropped: it is held, and its wait is over all the same
SELECT trigger_idem.task_drop('wait_views');
SELECT status, held_because FROM trigger_idem.runs WHERE run_id = :'run';
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait_views');
SELECT trigger_idem.task_create('wait_views', 'wait_test.sleeps', queue => 'wait_views', max_attempts => 1);
CALL trigger_idem.work('wait_views');
SELECT status, attempt, held_because FROM trigger_idem.runs WHERE run_id = :'run';
-- a paused queue holds it back
SELECT trigger_idem.queue_pause('wait_views');
SELECT wait_test.make_due(:'run');
CALL trigger_idem.work('wait_views');
SELECT paused, queued, waiting FROM trigger_idem.queues WHERE queue = 'wait_views';
SELECT trigger_idem.queue_resume('wait_views');
CALL trigger_idem.work('wait_views');
SELECT status FROM trigger_idem.runs WHERE run_id = :'run';
-- runs that wait do not count under a concurrency limit
SELECT trigger_idem.task_create('wait_limited', 'wait_test.sleeps', queue => 'wait_views', concurrency_limit => 1);
SELECT count(trigger_idem.trigger_task('wait_limited')) FROM generate_series(1, 3);
CALL trigger_idem.work('wait_views');
SELECT status, attempt, count(*) FROM trigger_idem.runs WHERE task_id = 'wait_limited' GROUP BY 1, 2;
SELECT count(trigger_idem.run_cancel(run_id)) FROM trigger_idem.runs WHERE task_id = 'wait_limited';

-- one that waits can be replayed: a new run without a key, that waits for itself
SELECT wait_test.start($$SELECT trigger_idem.wait_for('k', '1 hour')$$, 'wait replayed') AS run \gset
CALL trigger_idem.work('wait');
SELECT trigger_idem.run_replay(:'run') AS again \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(run_id), idempotency_key FROM trigger_idem.runs WHERE run_id IN (:'run', :'again') ORDER BY run_id;
SELECT count(trigger_idem.run_cancel(run_id)) FROM unnest(ARRAY[:'run', :'again']::uuid[]) run_id;

-- others see neither waits nor tokens; who knows a token can complete it
CREATE ROLE regress_wait;
CREATE ROLE regress_wait_friend;
GRANT USAGE ON SCHEMA helper, wait_test TO regress_wait;
SELECT trigger_idem.access_grant('regress_wait', 'trigger');
SELECT token FROM trigger_idem.wait_token_create('wait of two roles') \gset
SELECT trigger_idem.environment_create('wait_closed', 'regress_wait_friend');
SELECT token AS closed FROM trigger_idem.wait_token_create(environment => 'wait_closed') \gset
SELECT count(*) > 0 AS some FROM trigger_idem.waits;
SELECT count(*) > 1 AS some FROM trigger_idem.wait_tokens;
SET ROLE regress_wait;
SELECT count(*) FROM trigger_idem.waits;
SELECT count(*) FROM trigger_idem.wait_tokens;
SELECT is_cached, token = :'token' AS same FROM trigger_idem.wait_token_create('wait of two roles');
SELECT count(*) FROM trigger_idem.wait_tokens;
SELECT wait_test.error_of(format('SELECT trigger_idem.run_wait(%L)', :'run'));
SELECT wait_test.error_of(format('SELECT trigger_idem.wait_token_complete(%L)', :'closed'));
SELECT wait_test.error_of(format('SELECT trigger_idem.wait_for_token(%L)', :'closed'));
SELECT wait_test.error_of('SELECT trigger_idem.wait_token_create(environment => ''wait_closed'')');
SELECT trigger_idem.wait_token_complete(:'token', '"from another role"');
RESET ROLE;
SELECT * FROM trigger_idem.wait_for_token(:'token');
DELETE FROM trigger_idem.wait_token WHERE created_by = 'regress_wait';
DROP OWNED BY regress_wait;
DROP ROLE regress_wait;
DROP ROLE regress_wait_friend;

-- ---------- Prune ----------

-- not a run that an unfinished one waits or waited for, nor a token; then all of them
CREATE FUNCTION wait_test.prune() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(what, ', ' ORDER BY what COLLATE "C") FILTER (WHERE removed > 0) FROM trigger_idem.prune('0') $$;
SELECT count(trigger_idem.run_cancel(run_id)) > 0 AS some FROM trigger_idem.runs WHERE status NOT IN ('completed', 'failed', 'crashed', 'timed_out', 'canceled', 'expired') AND task_id LIKE 'wait\_%';
DO $$ BEGIN WHILE (SELECT sum(removed) > 0 FROM trigger_idem.prune('0')) LOOP END LOOP; END $$;
DELETE FROM trigger_idem.wait_token;
SELECT token AS used FROM trigger_idem.wait_token_create() \gset
SELECT token AS unused FROM trigger_idem.wait_token_create() \gset
SELECT token AS unfinished FROM trigger_idem.wait_token_create() \gset
SELECT trigger_idem.wait_token_complete(token, '"done"') FROM unnest(ARRAY[:'used', :'unused']::uuid[]) token;
SELECT wait_test.start(format('SELECT concat_ws('', '', wait_test.and_wait(%L), wait_test.and_wait(%L, NULL, %L), wait_test.batch_and_wait(%L, %L), wait_test.for_token(%L), trigger_idem.wait_for(%L, %L) IS NULL)',
	'wait_quick', 'wait_quick', 'wait prune', 'wait_quick', '[{"payload": "in a batch"}, {}]', :'used', 'k', '1 hour')) AS parent \gset
SELECT is_cached FROM trigger_idem.trigger_task('wait_quick', '"before"', 'wait prune', priority => 10);
SELECT is_cached FROM trigger_idem.trigger_task('wait_quick', '"nobody waits for this"');
CALL trigger_idem.work('wait');
SELECT what FROM trigger_idem.prune() ORDER BY what COLLATE "C";
SELECT wait_test.prune();
SELECT payload, status, parent_run_id = :'parent' AS is_child FROM trigger_idem.runs WHERE task_id = 'wait_quick' ORDER BY payload;
SELECT token = :'used' AS was_waited_for, token = :'unfinished' AS is_unfinished FROM trigger_idem.wait_tokens ORDER BY 1;
SELECT wait_test.make_due(:'parent');
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'parent');
SELECT wait_test.prune();
SELECT count(*) FROM trigger_idem.runs WHERE task_id LIKE 'wait\_%';
SELECT (SELECT count(*) FROM trigger_idem.waits) AS waits, (SELECT count(*) FROM trigger_idem.awaited) AS awaited, (SELECT count(*) FROM trigger_idem.wait_tokens) AS tokens;
-- a batch at a time
SELECT wait_test.start($$SELECT wait_test.batch_and_wait('wait_quick', '[{}, {}, {}, {}, {}]')$$) AS parent \gset
CALL trigger_idem.work('wait');
DO $$ BEGIN FOR i IN 1 .. 100 LOOP IF EXISTS (SELECT FROM trigger_idem.prune('0', 2) WHERE removed > 2 AND what <> 'waits') THEN RAISE 'too many'; END IF; END LOOP; END $$;
SELECT (SELECT count(*) FROM trigger_idem.waits) AS waits, (SELECT count(*) FROM trigger_idem.awaited) AS awaited, (SELECT count(*) FROM trigger_idem.runs WHERE queue = 'wait') AS runs;

-- ---------- Applications ----------

-- a wait is recorded in the transaction, which ends the attempt at its commit; the next one passes
SELECT trigger_idem.task_create('wait_app', queue => 'wait_app', max_attempts => 1);
CREATE FUNCTION wait_test.claim(queue text DEFAULT 'wait_app') RETURNS text LANGUAGE sql AS $$
	SELECT coalesce((SELECT 'attempt ' || attempt FROM trigger_idem.run_claim('w', queue)), 'nothing') $$;
CREATE FUNCTION wait_test.enter(run uuid) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_enter(run_id, attempt) FROM trigger_idem.runs WHERE run_id = run;
	RETURN trigger_idem.current_attempt();
END $$;
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_app') \gset
SELECT wait_test.claim();
BEGIN;
SELECT wait_test.enter(:'run');
INSERT INTO helper.log (line) VALUES ('written with the wait');
SELECT trigger_idem.wait_for('sleep', '1 hour') > clock_timestamp() AS is_to_come;
COMMIT;
CALL helper.show_log();
SELECT wait_test.look(:'run');
SELECT kind, wait, attempt, ended_at FROM trigger_idem.waits WHERE run_id = :'run';
SELECT wait_test.error_of(format('SELECT trigger_idem.%s(%L, 1)', call, :'run')) FROM unnest('{run_enter,run_heartbeat,run_complete,run_release}'::text[]) call;
SELECT wait_test.claim();
SELECT wait_test.make_due(:'run');
SELECT wait_test.claim();
-- a child
BEGIN;
SELECT wait_test.enter(:'run');
SELECT trigger_idem.wait_for('sleep', '1 day') = until AS is_the_same FROM trigger_idem.waits WHERE run_id = :'run';
SELECT run_id IS NOT NULL AS has_run, is_cached, status, output, error FROM trigger_idem.trigger_task_and_wait('wait_quick', '"of an application"');
COMMIT;
SELECT wait_test.look(:'run');
SELECT payload, status, parent_run_id = :'run' AS is_child, idempotency_key FROM trigger_idem.runs WHERE task_id = 'wait_quick';
CALL trigger_idem.work('wait');
SELECT wait_test.claim();
-- a batch
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', '"of an application"');
SELECT index, run_id IS NOT NULL AS has_run, is_cached, status, output, error FROM trigger_idem.batch_trigger_task_and_wait('wait_quick', '[{"payload": "item"}, {"payload": "later", "options": {"delay": "1 hour", "idempotency_key": "wait later"}}]');
COMMIT;
CALL trigger_idem.work('wait');
SELECT wait_test.claim();
SELECT wait_test.make_due(run_id) FROM trigger_idem.runs WHERE idempotency_key = 'wait later';
CALL trigger_idem.work('wait');
SELECT wait_test.claim();
-- a run that is there, and a token
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', '"other"') \gset
SELECT token FROM trigger_idem.wait_token_create() \gset
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', '"of an application"');
SELECT wait_test.batch_and_wait('wait_quick', '[{"payload": "item"}, {"payload": "later", "options": {"delay": "1 hour", "idempotency_key": "wait later"}}]');
SELECT * FROM trigger_idem.run_wait(:'other');
COMMIT;
CALL trigger_idem.work('wait_child');
SELECT wait_test.claim();
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.run_wait(:'other');
SELECT * FROM trigger_idem.wait_for_token(:'token');
COMMIT;
SELECT wait_test.look(:'run');
SELECT trigger_idem.wait_token_complete(:'token', '"from a user"');
SELECT wait_test.claim();
BEGIN;
SELECT wait_test.enter(:'run');
SELECT * FROM trigger_idem.wait_for_token(:'token');
SELECT trigger_idem.run_complete(:'run', trigger_idem.current_attempt(), '"done"');
COMMIT;
SELECT wait_test.look(:'run');
SELECT kind, attempt, ended_at IS NOT NULL AS has_ended FROM trigger_idem.waits WHERE run_id = :'run' ORDER BY started_at;

-- after a wait nothing more can be said of the attempt
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_app', queue => 'wait_app_2') \gset
SELECT wait_test.claim('wait_app_2');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT trigger_idem.wait_for('sleep', '1 hour') > clock_timestamp() AS is_to_come;
SELECT call, wait_test.error_of(format('SELECT trigger_idem.' || call, :'run')) FROM unnest(ARRAY['run_complete(%L, 1)', 'run_fail(%L, 1, NULL)', 'run_release(%L, 1)',
	'wait_for(''other'', ''1 hour'')', 'run_once_begin(%L, 1, ''step'')']) call;
COMMIT;
SELECT wait_test.look(:'run');
SELECT wait FROM trigger_idem.waits WHERE run_id = :'run';
SELECT wait_test.make_due(:'run');
SELECT wait_test.claim('wait_app_2');

-- nor a wait after the attempt has ended
BEGIN;
SELECT wait_test.enter(:'run');
SELECT trigger_idem.run_complete(:'run', 2, '"done"');
SELECT wait_test.error_of('SELECT trigger_idem.wait_for(''too late'', ''1 hour'')');
COMMIT;
SELECT wait_test.look(:'run');

-- what is rolled back has not been waited for: a savepoint, and the whole transaction
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_app', queue => 'wait_app_3') \gset
SELECT wait_test.claim('wait_app_3');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT trigger_idem.wait_for('sleep', '1 hour') > clock_timestamp() AS is_to_come;
ROLLBACK;
SELECT wait_test.look(:'run');
BEGIN;
SELECT wait_test.enter(:'run');
SAVEPOINT s;
SELECT wait_test.and_wait('wait_quick', '"forgotten"');
ROLLBACK TO s;
SELECT wait_test.batch_and_wait('wait_quick', '[{"payload": "forgotten, too"}]');
ROLLBACK TO s;
SELECT trigger_idem.wait_for('forgotten', '1 hour') > clock_timestamp() AS is_to_come;
ROLLBACK TO s;
SELECT wait_test.and_wait('wait_quick', '"not forgotten"');
COMMIT;
SELECT wait_test.look(:'run');
SELECT wait, kind FROM trigger_idem.waits WHERE run_id = :'run';
SELECT payload, status FROM trigger_idem.runs WHERE parent_run_id = :'run' ORDER BY status;
CALL trigger_idem.work('wait');
-- the next attempt has the same answer at once
SELECT wait_test.claim('wait_app_3');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', '"not forgotten"');
COMMIT;
SELECT wait_test.look(:'run');
SELECT payload, status FROM trigger_idem.runs WHERE parent_run_id = :'run' ORDER BY status;
-- and a savepoint alone leaves the attempt as it was
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_app', queue => 'wait_app_savepoint') \gset
SELECT wait_test.claim('wait_app_savepoint');
BEGIN;
SELECT wait_test.enter(:'run');
SAVEPOINT s;
SELECT trigger_idem.wait_for('forgotten', '1 hour') > clock_timestamp() AS is_to_come;
ROLLBACK TO s;
SELECT trigger_idem.run_complete(:'run', 1, '"done"');
COMMIT;
SELECT wait_test.look(:'run');

-- a savepoint that is released keeps the wait
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_app', queue => 'wait_app_release') \gset
SELECT wait_test.claim('wait_app_release');
BEGIN;
SELECT wait_test.enter(:'run');
SAVEPOINT s;
SELECT trigger_idem.wait_for('kept', '1 hour') > clock_timestamp() AS is_to_come;
RELEASE s;
COMMIT;
SELECT wait_test.look(:'run');

-- waits without a key are counted through all transactions of an attempt
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_app', queue => 'wait_app_counts') \gset
SELECT wait_test.claim('wait_app_counts');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', '"first"');
COMMIT;
CALL trigger_idem.work('wait');
SELECT wait_test.claim('wait_app_counts');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', '"first"');
COMMIT;
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', '"second"');
COMMIT;
CALL trigger_idem.work('wait');
SELECT wait_test.claim('wait_app_counts');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', '"first"');
COMMIT;
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', '"second"');
SAVEPOINT s;
ROLLBACK TO s;
COMMIT;
SELECT wait_test.look(:'run');
SELECT payload, idempotency_key FROM trigger_idem.runs WHERE parent_run_id = :'run' ORDER BY payload;

-- a savepoint that is rolled back takes along only what was counted in it, and so does an error
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', '"third"');
ROLLBACK;
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.error_of($$SELECT wait_test.and_wait('wait_quick', '"third"') || 1 / 0$$);
SAVEPOINT s;
SELECT wait_test.and_wait('wait_quick', '"third"');
ROLLBACK TO s;
SELECT wait_test.and_wait('wait_quick', '"third"');
COMMIT;
SELECT payload, idempotency_key FROM trigger_idem.runs WHERE parent_run_id = :'run' ORDER BY payload;

-- what is over does not end the attempt, and stays the answer
SELECT is_cached FROM trigger_idem.trigger_task('wait_quick', '"over"', 'wait over');
CALL trigger_idem.work('wait');
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_app', queue => 'wait_app_4') \gset
SELECT wait_test.claim('wait_app_4');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.and_wait('wait_quick', NULL, 'wait over');
SELECT wait_test.batch_and_wait('wait_quick', '[{"options": {"idempotency_key": "wait over"}}]');
SELECT trigger_idem.wait_for('zero', '0') AS zero \gset
SELECT wait_test.for_token(:'token');
SELECT wait_test.run_wait(:'other', '1 hour');
COMMIT;
SELECT wait_test.look(:'run');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT trigger_idem.wait_for('sleep', '1 hour') > clock_timestamp() AS is_to_come;
COMMIT;
SELECT trigger_idem.idempotency_key_reset('wait_quick', 'wait over');
SELECT wait_test.make_due(:'run');
SELECT wait_test.claim('wait_app_4');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT trigger_idem.wait_for('zero', '0') = :'zero' AS is_the_same;
SELECT wait_test.and_wait('wait_quick', NULL, 'wait over');
SELECT wait_test.batch_and_wait('wait_quick', '[{"options": {"idempotency_key": "wait over"}}]');
SELECT wait_test.for_token(:'token');
SELECT wait_test.run_wait(:'other', '1 hour');
COMMIT;
SELECT wait_test.look(:'run');
SELECT count(*) FROM trigger_idem.runs WHERE parent_run_id = :'run';

-- cycles, and what only this transaction knows
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_app', NULL, 'wait app cycle', queue => 'wait_app_5') \gset
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_app', NULL, 'wait app cycle')$$) AS other \gset
CALL trigger_idem.work('wait');
SELECT wait_test.claim('wait_app_5');
BEGIN;
SELECT wait_test.enter(:'run');
SELECT wait_test.error_of(format('SELECT trigger_idem.run_wait(%L)', :'other'));
SELECT wait_test.error_of(format('SELECT trigger_idem.run_wait(%L)', :'run'));
SELECT wait_test.error_of(format('SELECT trigger_idem.run_wait(run_id) FROM trigger_idem.trigger_task(''wait_quick'')'));
SELECT wait_test.error_of(format('SELECT trigger_idem.wait_for_token(token) FROM trigger_idem.wait_token_create()'));
SELECT trigger_idem.run_complete(:'run', 1);
COMMIT;
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'other');

-- ---------- Refused ----------

-- bad arguments are errors that the handler could catch, and nothing is triggered
SELECT trigger_idem.task_create('wait_strict', 'wait_test.child', queue => 'wait', idempotency_key_required => true, on_payload_mismatch => 'error');
SELECT is_cached FROM trigger_idem.trigger_task('wait_strict', '"strict"', 'wait strict');
SELECT count(wait_test.start(format('SELECT wait_test.error_of(%L)', 'SELECT trigger_idem.' || call))) FROM unnest(ARRAY[
	$$trigger_task_and_wait(NULL)$$, $$trigger_task_and_wait('wait_nobody')$$, $$trigger_task_and_wait('wait_quick', delay => '1 s', run_at => now())$$,
	$$trigger_task_and_wait('wait_quick', priority => 2000000000)$$, $$trigger_task_and_wait('wait_quick', ttl => '0')$$, $$trigger_task_and_wait('wait_quick', idempotency_key => '')$$,
	$$trigger_task_and_wait('wait_quick', idempotency_key_scope => 'unknown')$$, $$trigger_task_and_wait('wait_quick', environment => 'nowhere')$$, $$trigger_task_and_wait('wait_quick', max_attempts => 0)$$,
	$$trigger_task_and_wait('wait_strict', '"other"', 'wait strict')$$, $$trigger_task_and_wait('wait_quick', to_jsonb(repeat('x', 20000000)))$$, $$trigger_task_and_wait('wait_quick', tags => array_fill('x'::text, '{1000}'))$$,
	$$batch_trigger_task_and_wait(NULL, '[]')$$, $$batch_trigger_task_and_wait('wait_quick', NULL)$$, $$batch_trigger_task_and_wait('wait_nobody', '[]')$$, $$batch_trigger_task_and_wait('wait_quick', '{}')$$,
	$$batch_trigger_task_and_wait('wait_quick', '[{}, {"options": {"color": "red"}}]')$$, $$batch_trigger_task_and_wait('wait_quick', '[{}, {"options": {"priority": "high"}}]')$$,
	$$batch_trigger_task_and_wait('wait_quick', '[{}]', '')$$, $$batch_trigger_task_and_wait('wait_quick', '[{}]', environment => 'nowhere')$$]) call;
CALL trigger_idem.work('wait');
SELECT replace(substring(payload #>> '{}' FROM 'trigger_idem.(.*)''\)$'), '''''', '''') AS call, split_part(output #>> '{}', ' | ', 1) AS error FROM trigger_idem.runs WHERE payload #>> '{}' ~ 'error_of.*trigger_idem.(batch_)?trigger_task_and_wait' ORDER BY run_id;
SELECT count(*) FROM trigger_idem.runs c JOIN trigger_idem.runs p ON p.run_id = c.parent_run_id WHERE p.payload #>> '{}' ~ 'error_of.*trigger_idem.(batch_)?trigger_task_and_wait';
-- outside a run they are the same
SELECT split_part(wait_test.error_of('SELECT trigger_idem.' || call), ' | ', 1) AS error FROM unnest(ARRAY[$$trigger_task_and_wait(NULL)$$, $$trigger_task_and_wait('wait_nobody')$$, $$trigger_task_and_wait('wait_quick', delay => '1 s', run_at => now())$$,
	$$trigger_task_and_wait('wait_quick', ttl => '0')$$, $$batch_trigger_task_and_wait('wait_quick', NULL)$$, $$batch_trigger_task_and_wait('wait_quick', '[{"options": {"color": "red"}}]')$$]) call;

-- a key is required, and has been made from the run, the task, and the number
SELECT wait_test.start($$SELECT wait_test.and_wait('wait_strict', '"keyless"')$$) AS run \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'run');
-- children are made in the environment of their parent, whatever the isolation level
SET default_transaction_isolation = 'repeatable read';
SELECT run_id AS run FROM trigger_idem.trigger_task('wait_sql', to_jsonb($$SELECT concat_ws(', ', wait_test.and_wait('wait_quick', '1'), wait_test.batch_and_wait('wait_quick', '[{"payload": 2}]'))$$::text), environment => 'wait_other') \gset
CALL trigger_idem.work('wait');
RESET default_transaction_isolation;
SELECT wait_test.look(:'run');
SELECT environment, payload FROM trigger_idem.runs WHERE parent_run_id = :'run' ORDER BY payload;

-- transactions that are read only: what would write is refused, in the handler and outside
SELECT run_id AS other FROM trigger_idem.trigger_task('wait_child', delay => '1 hour') \gset
SELECT token AS unfinished FROM trigger_idem.wait_token_create() \gset
CREATE FUNCTION wait_test.reads_only(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL transaction_read_only = on;
	RETURN wait_test.error_of(payload #>> '{}');
END $$;
SELECT trigger_idem.task_create('wait_reads_only', 'wait_test.reads_only', queue => 'wait');
SELECT count(trigger_idem.trigger_task('wait_reads_only', to_jsonb('SELECT trigger_idem.' || call))) FROM unnest(ARRAY[$$trigger_task_and_wait('wait_quick')$$, $$batch_trigger_task_and_wait('wait_quick', '[{}]')$$,
	$$wait_for('k', '1 hour')$$, $$wait_until('k', 'tomorrow')$$, format('run_wait(%L)', :'other'), format('wait_for_token(%L)', :'unfinished'), format('wait_token_complete(%L)', :'unfinished'), 'wait_token_create()']) call;
CALL trigger_idem.work('wait');
SELECT output FROM trigger_idem.runs WHERE task_id = 'wait_reads_only' ORDER BY run_id;
SELECT is_cached FROM trigger_idem.wait_token_create('wait read only');
SELECT is_cached, status FROM trigger_idem.trigger_task('wait_quick', NULL, 'wait over');
CALL trigger_idem.work('wait');
BEGIN READ ONLY;
SELECT wait_test.and_wait('wait_quick', NULL, 'wait over');
SELECT wait_test.batch_and_wait('wait_quick', '[{"options": {"idempotency_key": "wait over"}}]');
SELECT wait_test.run_wait(:'other', '1 ms');
SELECT wait_test.for_token(:'token');
SELECT is_cached FROM trigger_idem.wait_token_create('wait read only');
SELECT wait_test.error_of('SELECT trigger_idem.wait_token_create()');
SELECT wait_test.error_of(format('SELECT trigger_idem.wait_token_complete(%L)', :'unfinished'));
SELECT wait_test.error_of('SELECT trigger_idem.trigger_task_and_wait(''wait_quick'')');
ROLLBACK;

-- ---------- What one may not see, and one's own ----------

-- who only knows the key of somebody else's run gets no more than its status
CREATE ROLE regress_wait_stranger;
SELECT trigger_idem.access_grant('regress_wait_stranger', 'trigger');
SELECT status FROM trigger_idem.trigger_task('wait_quick', '"secret"', 'wait secret');
CALL trigger_idem.work('wait');
SELECT is_cached, status, output FROM trigger_idem.trigger_task_and_wait('wait_quick', NULL, 'wait secret');
SET ROLE regress_wait_stranger;
SELECT is_cached, status, output, error FROM trigger_idem.trigger_task_and_wait('wait_quick', NULL, 'wait secret');
SELECT is_cached, status, output, error FROM trigger_idem.batch_trigger_task_and_wait('wait_quick', '[{"options": {"idempotency_key": "wait secret"}}]');
RESET ROLE;
DROP OWNED BY regress_wait_stranger;
DROP ROLE regress_wait_stranger;

-- an application waits for a run that its own transaction has triggered: refused; or
-- has canceled after it began to wait: that is over
SELECT run_id AS app FROM trigger_idem.trigger_task('wait_app') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'wait_app');
BEGIN;
SELECT trigger_idem.run_enter(:'app', 1);
SELECT is_cached FROM trigger_idem.trigger_task('wait_quick', NULL, 'wait own transaction');
SELECT wait_test.error_of($$SELECT trigger_idem.trigger_task_and_wait('wait_quick', NULL, 'wait own transaction')$$);
SELECT run_id AS child FROM trigger_idem.trigger_task_and_wait('wait_quick') \gset
SELECT trigger_idem.run_cancel(:'child');
COMMIT;
SELECT attempt FROM trigger_idem.run_claim('w', 'wait_app');
BEGIN;
SELECT trigger_idem.run_enter(:'app', 2);
SELECT is_cached, status FROM trigger_idem.trigger_task_and_wait('wait_quick');
SELECT trigger_idem.run_complete(:'app', 2);
COMMIT;
SELECT status FROM trigger_idem.runs WHERE run_id = :'app';

-- ---------- What was over, and is not any more ----------

-- a handler that undoes what has ended a run, or a token, has no answer of it: its next
-- attempt waits
SELECT trigger_idem.task_create('wait_undone', queue => 'wait_nobody', release_key_on => '{}');
SELECT run_id AS undone FROM trigger_idem.trigger_task('wait_undone', NULL, 'wait undone') \gset
SELECT token AS undone_token FROM trigger_idem.wait_token_create() \gset
CREATE FUNCTION wait_test.undoes(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	ending text := payload ->> 'ending';
	waiting text := payload ->> 'waiting';
	answer text;
BEGIN
	IF trigger_idem.current_attempt() > 1 THEN
		EXECUTE waiting INTO answer;
		RETURN answer;
	END IF;
	BEGIN
		EXECUTE ending;
		EXECUTE waiting INTO answer;
		RAISE NOTICE 'in a savepoint: %', answer;
		RAISE 'undo it';
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
	RAISE 'again';
END $$;
SELECT trigger_idem.task_create('wait_undoes', 'wait_test.undoes', queue => 'wait', min_backoff => '0', max_attempts => 2);
SELECT count(trigger_idem.trigger_task('wait_undoes', jsonb_build_object('ending', ending, 'waiting', waiting))) FROM (VALUES
	(format('SELECT trigger_idem.run_cancel(%L)', :'undone'), $$SELECT wait_test.batch_and_wait('wait_undone', '[{"options": {"idempotency_key": "wait undone"}}]')$$),
	(format('SELECT trigger_idem.run_cancel(%L)', :'undone'), format('SELECT wait_test.run_wait(%L)', :'undone')),
	(format('SELECT trigger_idem.wait_token_complete(%L, ''1'')', :'undone_token'), format('SELECT wait_test.for_token(%L)', :'undone_token'))) v(ending, waiting);
CALL trigger_idem.work('wait');
SELECT wait_test.look(run_id) FROM trigger_idem.runs WHERE task_id = 'wait_undoes' ORDER BY run_id;
SELECT trigger_idem.run_cancel(:'undone');
SELECT trigger_idem.wait_token_complete(:'undone_token', '2');
CALL trigger_idem.work('wait');
SELECT wait_test.look(run_id) FROM trigger_idem.runs WHERE task_id = 'wait_undoes' ORDER BY run_id;

-- a run that has expired by the clock only, which nobody has noticed, is over for who asks;
-- that it ends then is no news for him
SELECT run_id AS clock FROM trigger_idem.trigger_task('wait_undone', NULL, 'wait clock', ttl => '1 hour') \gset
SELECT wait_test.start(format('SELECT wait_test.run_wait(%L)', :'clock')) AS waits \gset
CALL trigger_idem.work('wait');
CREATE PROCEDURE wait_test.fails_once(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	IF trigger_idem.current_attempt() = 1 THEN
		UPDATE trigger_idem.queue_entry SET expires_at = clock_timestamp() WHERE run_id = (payload #>> '{}')::uuid;
		COMMIT;
	END IF;
	answer := wait_test.batch_and_wait('wait_undone', '[{"options": {"idempotency_key": "wait clock"}}]');
	IF trigger_idem.current_attempt() = 1 THEN
		RAISE 'again, after %', answer;
	END IF;
	INSERT INTO helper.log (line) VALUES (answer);
END $$;
SELECT trigger_idem.task_create('wait_fails_once', 'wait_test.fails_once', queue => 'wait', min_backoff => '1 minute', max_attempts => 2);
SELECT run_id AS fails_once FROM trigger_idem.trigger_task('wait_fails_once', to_jsonb(:'clock'::text)) \gset
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'waits');
SELECT wait_test.look(:'fails_once');
UPDATE trigger_idem.queue_entry SET visible_from = now(), ord = now() WHERE run_id = :'fails_once';
CALL trigger_idem.work('wait');
SELECT wait_test.look(:'fails_once');
CALL helper.show_log();
