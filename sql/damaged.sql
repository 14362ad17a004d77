-- A store that is damaged: whoever may change the tables has, or a restore is not complete.
-- Each call that notices ends with an error, and nothing is done by halves.

CREATE SCHEMA damaged_test;
SELECT trigger_idem.task_create('damaged_app', queue => 'damaged', release_key_on => '{}');
SELECT trigger_idem.task_create('damaged_other', queue => 'damaged', release_key_on => '{}');
CREATE FUNCTION damaged_test.error_of(command text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(helper.error_of(command), '[0-9a-f]{8}-[-0-9a-f]{27}', 'ID', 'g') $$;

-- ---------- Rows ----------

SELECT run_id AS run FROM trigger_idem.trigger_task('damaged_app', '1', 'damaged') \gset

-- two keys with the same id: not a hit on somebody else's run
BEGIN;
UPDATE trigger_idem.idempotency_key SET idempotency_key = sha256('another key') WHERE run_id = :'run';
SELECT damaged_test.error_of($$SELECT trigger_idem.trigger_task('damaged_app', '1', 'damaged')$$);
UPDATE trigger_idem.idempotency_key SET idempotency_key = substr(sha256('a key'), 1, 31) WHERE run_id = :'run';
SELECT damaged_test.error_of($$SELECT trigger_idem.trigger_task('damaged_app', '1', 'damaged')$$);
ROLLBACK;

-- a key whose run is gone: not looked for for ever
BEGIN;
DELETE FROM trigger_idem.queue_entry WHERE run_id = :'run';
DELETE FROM trigger_idem.run WHERE run_id = :'run';
SELECT damaged_test.error_of($$SELECT trigger_idem.trigger_task('damaged_app', '1', 'damaged')$$);
ROLLBACK;

-- an entry whose run is gone, by a claim, and when it has expired
BEGIN;
DELETE FROM trigger_idem.run WHERE run_id = :'run';
SELECT damaged_test.error_of($$SELECT trigger_idem.run_claim('w', 'damaged')$$);
UPDATE trigger_idem.queue_entry SET expires_at = now() - interval '1 second' WHERE run_id = :'run';
SELECT damaged_test.error_of($$SELECT trigger_idem.run_claim('w', 'damaged')$$);
ROLLBACK;

-- a run that is final and has an entry; one that has none and is not
BEGIN;
UPDATE trigger_idem.run SET status = 'completed' WHERE run_id = :'run';
SELECT damaged_test.error_of(format('SELECT trigger_idem.run_cancel(%L)', :'run'));
UPDATE trigger_idem.run SET status = NULL WHERE run_id = :'run';
DELETE FROM trigger_idem.queue_entry WHERE run_id = :'run';
SELECT damaged_test.error_of(format('SELECT trigger_idem.run_wait(%L)', :'run'));
ROLLBACK;

-- what is compared or copied has its size
BEGIN;
SELECT trigger_idem.task_create('damaged_app', queue => 'damaged', release_key_on => '{}', on_payload_mismatch => 'error');
SELECT is_cached FROM trigger_idem.trigger_task('damaged_app', '1', 'with a digest');
SELECT is_cached FROM trigger_idem.trigger_task('damaged_app', '1', 'with a digest');
UPDATE trigger_idem.idempotency_key SET payload_digest = substr(payload_digest, 1, 8) WHERE payload_digest IS NOT NULL;
SELECT damaged_test.error_of($$SELECT trigger_idem.trigger_task('damaged_app', '1', 'with a digest')$$);
ROLLBACK;
BEGIN;
UPDATE trigger_idem.queue_entry SET progress = 0.5, progressed_at = now(), progress_message = repeat('ä', 100000) WHERE run_id = :'run';
SELECT fraction, length(message) > 100 AS is_long FROM trigger_idem.run_progress_of(:'run');
ROLLBACK;
BEGIN;
INSERT INTO trigger_idem.step (run_id, step_id, attempt, started_at, finished_at, path) VALUES (:'run', 'short', 1, now(), now(), '{x}');
SELECT count(*) FROM trigger_idem.run_claim('w', 'damaged');
SELECT trigger_idem.run_enter(:'run', 1);
SELECT damaged_test.error_of($$SELECT trigger_idem.run_once('x', 'helper.callback')$$);
ROLLBACK;

-- sessions keep what they know of tasks until the table changes its shape
CREATE PROCEDURE damaged_test.forget_tasks() LANGUAGE sql AS 'ALTER TABLE trigger_idem.task RESET (fillfactor)';
-- runs whose task is gone: nobody claims or works them, others are not disturbed
SELECT run_id AS claimed, attempt FROM trigger_idem.run_claim('w', 'damaged') \gset
SELECT status FROM trigger_idem.trigger_task('damaged_app', '2');
SELECT status FROM trigger_idem.trigger_task('damaged_other', '3');
BEGIN;
DELETE FROM trigger_idem.task WHERE task_id = 'damaged_app';
CALL damaged_test.forget_tasks();
SELECT task_id, payload FROM trigger_idem.run_claim('w', 'damaged', 10);
SELECT damaged_test.error_of(format('SELECT trigger_idem.run_complete(%L, %s)', :'claimed', :attempt));
SELECT damaged_test.error_of(format('SELECT trigger_idem.run_fail(%L, %s, NULL)', :'claimed', :attempt));
ROLLBACK;

-- one that takes its own task along fails, and goes on at once when that is back
CREATE TABLE damaged_test.task AS SELECT * FROM trigger_idem.task LIMIT 0;
CREATE PROCEDURE damaged_test.loses_task() LANGUAGE plpgsql AS $$
BEGIN
	IF trigger_idem.current_attempt() = 1 THEN
		WITH gone AS (DELETE FROM trigger_idem.task WHERE task_id = 'damaged_loses' RETURNING *)
			INSERT INTO damaged_test.task SELECT * FROM gone;
		CALL damaged_test.forget_tasks();
		COMMIT;
		RAISE EXCEPTION 'my task is gone';
	END IF;
END $$;
SELECT trigger_idem.task_create('damaged_loses', 'damaged_test.loses_task', queue => 'damaged', min_backoff => '1 hour', max_backoff => '1 day');
SELECT run_id AS loses FROM trigger_idem.trigger_task('damaged_loses') \gset
CALL trigger_idem.work('damaged');
SELECT e.attempt, e.failures, e.worker_id, e.visible_from <= now() AS is_due FROM trigger_idem.queue_entry e WHERE run_id = :'loses';
INSERT INTO trigger_idem.task SELECT * FROM damaged_test.task;
CALL damaged_test.forget_tasks();
CALL trigger_idem.work('damaged');
SELECT status, attempt FROM trigger_idem.runs WHERE run_id = :'loses';

-- ---------- Tables ----------

-- a table that has not all of its columns: that is another version's
BEGIN;
ALTER TABLE trigger_idem.paused_queue RENAME TO damaged_paused_queue;
ALTER INDEX trigger_idem.paused_queue_pkey RENAME TO damaged_paused_queue_pkey;
CREATE TABLE trigger_idem.paused_queue (queue text CONSTRAINT paused_queue_pkey PRIMARY KEY);
SELECT damaged_test.error_of($$SELECT trigger_idem.run_claim('w', 'damaged')$$);
ROLLBACK;

-- a table, an index or the type that is not there: neither is the extension
BEGIN;
ALTER TABLE trigger_idem.wait_token RENAME TO damaged_wait_token;
SELECT damaged_test.error_of($$SELECT trigger_idem.trigger_task('damaged_app')$$);
ROLLBACK;
BEGIN;
ALTER INDEX trigger_idem.wait_token_pkey RENAME TO damaged_wait_token_pkey;
SELECT damaged_test.error_of($$SELECT trigger_idem.trigger_task('damaged_app')$$);
ROLLBACK;
BEGIN;
ALTER INDEX trigger_idem.awaited_target_idx RENAME TO damaged_awaited_target_idx;
SELECT damaged_test.error_of($$SELECT trigger_idem.trigger_task('damaged_app')$$);
ROLLBACK;
BEGIN;
ALTER TYPE trigger_idem.run_status RENAME TO damaged_run_status;
ALTER TABLE trigger_idem.wait_token SET (fillfactor = 90);
SELECT damaged_test.error_of($$SELECT trigger_idem.trigger_task('damaged_app')$$);
ROLLBACK;

-- nor is one that has not all states the same version
BEGIN;
ALTER TYPE trigger_idem.run_status RENAME VALUE 'queued' TO 'damaged';
ALTER TABLE trigger_idem.wait_token SET (fillfactor = 90);
SELECT damaged_test.error_of($$SELECT trigger_idem.trigger_task('damaged_app')$$);
ROLLBACK;

-- all is as it was
SELECT is_cached, status FROM trigger_idem.trigger_task('damaged_app', '1', 'damaged');
SELECT trigger_idem.run_complete(:'claimed', :attempt);
SELECT count(trigger_idem.run_cancel(run_id)) FROM trigger_idem.runs WHERE queue = 'damaged' AND status = 'queued';
SELECT trigger_idem.task_drop(task_id) FROM trigger_idem.task WHERE task_id LIKE 'damaged\_%' ORDER BY task_id;
