-- Controlling runs and queues: run_cancel(), run_replay(), queue_pause(), max_duration.

CREATE SCHEMA control_test;

CREATE FUNCTION control_test.error_of(command text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(helper.error_of(command), '[0-9a-f]{8}-[-0-9a-f]{27}', 'ID', 'g') $$;
CREATE VIEW control_test.outcome AS
SELECT run_id, task_id, payload, status, attempt, error IS NULL AS no_error, started_at IS NOT NULL AS was_started,
	finished_at IS NOT NULL AS is_finished,
	(SELECT string_agg(concat_ws(' ', a.attempt, a.status), ', ' ORDER BY a.attempt) FROM trigger_idem.attempts a WHERE a.run_id = r.run_id) AS attempts
FROM trigger_idem.runs r;

-- ---------- run_cancel ----------

SELECT trigger_idem.task_create('cancel', queue => 'cancel', min_backoff => '1 hour', max_backoff => '1 hour', release_key_on => '{canceled,expired}');
SELECT trigger_idem.task_create('cancel_keeps', queue => 'cancel');

-- queued, delayed, backing off, executing by an application; released once
SELECT run_id AS queued_id FROM trigger_idem.trigger_task('cancel', '"queued"', 'key of queued') \gset
SELECT run_id AS delayed_id FROM trigger_idem.trigger_task('cancel', '"delayed"', delay => '1 day') \gset
SELECT run_id AS backoff_id FROM trigger_idem.trigger_task('cancel', '"backing off"', priority => 3) \gset
SELECT run_id AS executing_id FROM trigger_idem.trigger_task('cancel', '"executing"', 'key of executing', priority => 2) \gset
SELECT run_id AS released_id FROM trigger_idem.trigger_task('cancel', '"released"', priority => 1) \gset
SELECT payload FROM trigger_idem.run_claim('w', 'cancel', 3);
SELECT status FROM trigger_idem.run_fail(:'backoff_id', 1, '1');
SELECT trigger_idem.run_release(:'released_id', 1);
SELECT payload, trigger_idem.run_cancel(run_id) FROM control_test.outcome WHERE task_id = 'cancel' ORDER BY run_id;
SELECT payload, status, attempt, no_error, was_started, is_finished, attempts FROM control_test.outcome WHERE task_id = 'cancel' ORDER BY run_id;
SELECT count(*) AS in_the_queue FROM trigger_idem.queue_entry WHERE task_id = 'cancel';
-- a final one: false, and nothing changes
SELECT payload, trigger_idem.run_cancel(run_id) FROM control_test.outcome WHERE task_id = 'cancel' ORDER BY run_id;
SELECT payload, status FROM control_test.outcome WHERE task_id = 'cancel' ORDER BY run_id;
SELECT payload FROM trigger_idem.run_claim('w', 'cancel', 10);
-- the application learns of it
SELECT left(helper.error_of(format('SELECT trigger_idem.run_heartbeat(%L, 1)', :'executing_id')), 5);
-- their keys are free where the task says so
SELECT is_cached, status FROM trigger_idem.trigger_task('cancel', idempotency_key => 'key of queued', delay => '1 day');
SELECT is_cached, status FROM trigger_idem.trigger_task('cancel', idempotency_key => 'key of executing', delay => '1 day');
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.trigger_task('cancel_keeps', idempotency_key => 'kept');
SELECT is_cached, status FROM trigger_idem.trigger_task('cancel_keeps', idempotency_key => 'kept');

-- completed, failed
SELECT run_id AS completed_id FROM trigger_idem.trigger_task('cancel_keeps', '"completed"') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'cancel');
SELECT trigger_idem.run_complete(:'completed_id', 1);
SELECT trigger_idem.run_cancel(:'completed_id');
SELECT run_id AS failed_id FROM trigger_idem.trigger_task('cancel_keeps', '"failed"') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'cancel');
SELECT status FROM trigger_idem.run_fail(:'failed_id', 1, '"why"', false);
SELECT trigger_idem.run_cancel(:'failed_id');
SELECT payload, status, attempts FROM control_test.outcome WHERE run_id IN (:'completed_id', :'failed_id') ORDER BY run_id;
-- expired, noticed by a worker or not
SELECT run_id AS expired_id FROM trigger_idem.trigger_task('cancel_keeps', '"expired"', ttl => '1 hour') \gset
UPDATE trigger_idem.queue_entry SET expires_at = now() - interval '1 second' WHERE run_id = :'expired_id';
SELECT status FROM trigger_idem.runs WHERE run_id = :'expired_id';
SELECT trigger_idem.run_cancel(:'expired_id');
SELECT payload FROM trigger_idem.run_claim('w', 'cancel');
SELECT trigger_idem.run_cancel(:'expired_id');
SELECT status FROM trigger_idem.runs WHERE run_id = :'expired_id';
-- what has a ttl and was started in time does not expire, but can be canceled
SELECT run_id AS started_id FROM trigger_idem.trigger_task('cancel_keeps', '"started"', ttl => '1 hour') \gset
SELECT payload FROM trigger_idem.run_claim('w', 'cancel');
SELECT trigger_idem.run_release(:'started_id', 1);
UPDATE trigger_idem.queue_entry SET expires_at = now() - interval '1 second' WHERE run_id = :'started_id';
SELECT trigger_idem.run_cancel(:'started_id');
SELECT status FROM trigger_idem.runs WHERE run_id = :'started_id';

-- rolled back, in a savepoint, twice in one transaction
SELECT run_id FROM trigger_idem.trigger_task('cancel') \gset
BEGIN;
SELECT trigger_idem.run_cancel(:'run_id');
ROLLBACK;
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
BEGIN;
SAVEPOINT s;
SELECT trigger_idem.run_cancel(:'run_id');
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
ROLLBACK TO s;
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
SAVEPOINT s;
SELECT trigger_idem.run_cancel(:'run_id');
RELEASE s;
SELECT trigger_idem.run_cancel(:'run_id');
COMMIT;
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
-- of the same transaction: triggered, claimed, completed
BEGIN;
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.trigger_task('cancel', '"triggered"');
SELECT run_id FROM trigger_idem.trigger_task('cancel', '"claimed"') \gset
SELECT payload FROM trigger_idem.run_claim('w', 'cancel');
SELECT trigger_idem.run_cancel(:'run_id');
COMMIT;
SELECT status, attempts FROM control_test.outcome WHERE run_id = :'run_id';
SELECT run_id FROM trigger_idem.trigger_task('cancel', '"completed and canceled"') \gset
SELECT payload FROM trigger_idem.run_claim('w', 'cancel');
\set VERBOSITY sqlstate
BEGIN;
SELECT trigger_idem.run_complete(:'run_id', 1);
SELECT trigger_idem.run_cancel(:'run_id');
COMMIT;
\set VERBOSITY default
SELECT status, attempts FROM control_test.outcome WHERE run_id = :'run_id';

-- itself
BEGIN;
SELECT trigger_idem.run_enter(:'run_id', 1);
SELECT trigger_idem.run_cancel(:'run_id');
ROLLBACK;
SELECT status FROM control_test.outcome WHERE run_id = :'run_id';
SELECT trigger_idem.run_cancel(:'run_id');
CREATE FUNCTION control_test.cancels_itself() RETURNS text LANGUAGE sql AS $$
	SELECT helper.error_of('SELECT trigger_idem.run_cancel(trigger_idem.current_run_id())') $$;
SELECT trigger_idem.task_create('cancels_itself', 'control_test.cancels_itself', queue => 'cancels');
SELECT status FROM trigger_idem.trigger_task('cancels_itself');
CALL trigger_idem.work('cancels');
SELECT status, output FROM trigger_idem.runs WHERE task_id = 'cancels_itself';

-- children and grandchildren, whoever works them; not those that are final, nor
-- children of a run that is final itself
SELECT trigger_idem.task_create('cancel_family', queue => 'cancel_family');
CREATE PROCEDURE control_test.make_family(name text) LANGUAGE plpgsql AS $$
DECLARE
	parent uuid;
	child uuid;
BEGIN
	SELECT run_id INTO parent FROM trigger_idem.trigger_task('cancel_family', to_jsonb(name));
	PERFORM FROM trigger_idem.run_claim('w', 'cancel_family', 1);
	COMMIT;
	PERFORM trigger_idem.run_enter(parent, 1);
	SELECT run_id INTO child FROM trigger_idem.trigger_task('cancel_family', to_jsonb(name || ', child that executes'));
	PERFORM FROM trigger_idem.trigger_task('cancel_family', to_jsonb(name || ', child that is completed'));
	PERFORM FROM trigger_idem.trigger_task('cancel_family', to_jsonb(name || ', child that is queued'), delay => '1 hour');
	COMMIT;
	PERFORM trigger_idem.run_complete(run_id, attempt) FROM trigger_idem.run_claim('w', 'cancel_family', 2) WHERE payload ->> 0 LIKE '%completed';
	COMMIT;
	PERFORM trigger_idem.run_enter(child, 1);
	PERFORM FROM trigger_idem.trigger_task('cancel_family', to_jsonb(name || ', grandchild'), delay => '1 hour');
	COMMIT;
END $$;
CALL control_test.make_family('family');
CALL control_test.make_family('other family');
SELECT payload, status FROM trigger_idem.runs WHERE task_id = 'cancel_family' ORDER BY run_id;
BEGIN;
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE payload = '"family"';
ROLLBACK;
SELECT status, count(*) FROM trigger_idem.runs WHERE task_id = 'cancel_family' GROUP BY 1 ORDER BY 1;
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE payload = '"family"';
SELECT trigger_idem.run_complete(run_id, attempt) FROM trigger_idem.runs WHERE payload = '"other family"';
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE payload = '"other family"';
SELECT payload, status, attempts FROM control_test.outcome WHERE task_id = 'cancel_family' ORDER BY run_id;
SELECT count(trigger_idem.run_cancel(run_id)) FROM trigger_idem.runs WHERE payload = '"other family, child that executes"';
SELECT payload, status FROM trigger_idem.runs WHERE task_id = 'cancel_family' AND payload ->> 0 LIKE 'other%' ORDER BY run_id;
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE payload = '"other family, child that is queued"';

-- of another role, or of nobody: the same words; the owner of a task may
SELECT control_test.error_of('SELECT trigger_idem.' || call || '(''0190163d-8694-739b-aea5-966c26f8ad91'')') AS unknown, control_test.error_of('SELECT trigger_idem.' || call || '(NULL)') AS nothing
FROM unnest('{run_cancel,run_replay}'::text[]) call;
CREATE ROLE regress_control_alice;
CREATE ROLE regress_control_bob;
GRANT USAGE ON SCHEMA control_test, helper TO regress_control_alice, regress_control_bob;
SELECT trigger_idem.access_grant('regress_control_alice', 'work');
SELECT trigger_idem.access_grant('regress_control_bob', 'trigger');
SELECT trigger_idem.environment_create('control_closed', 'regress_control_alice');
SET ROLE regress_control_alice;
SELECT trigger_idem.task_create('cancel_alices', queue => 'cancel_roles');
SELECT run_id AS alices_id FROM trigger_idem.trigger_task('cancel_alices', '"of alice"') \gset
RESET ROLE;
SET ROLE regress_control_bob;
SELECT call, control_test.error_of(format('SELECT trigger_idem.%s(%L)', call, :'alices_id')) FROM unnest('{run_cancel,run_replay}'::text[]) call;
SELECT run_id AS bobs_id FROM trigger_idem.trigger_task('cancel_alices', '"of bob"') \gset
SELECT trigger_idem.run_cancel(:'bobs_id');
SELECT run_id AS bobs_id FROM trigger_idem.trigger_task('cancel_alices', '"of bob too"') \gset
RESET ROLE;
SET ROLE regress_control_alice;
SELECT trigger_idem.run_cancel(:'bobs_id');
SELECT run_id AS closed_id FROM trigger_idem.trigger_task('cancel_alices', '"in a closed environment"', environment => 'control_closed') \gset
RESET ROLE;
-- what bob triggered where he may not any more
GRANT regress_control_alice TO regress_control_bob;
SET ROLE regress_control_bob;
SELECT run_id AS no_longer_bobs FROM trigger_idem.trigger_task('cancel_alices', '"no longer open to bob"', environment => 'control_closed') \gset
RESET ROLE;
REVOKE regress_control_alice FROM regress_control_bob;
SET ROLE regress_control_bob;
SELECT call, left(control_test.error_of(format('SELECT trigger_idem.%s(%L)', call, id)), 5) AS error
FROM unnest('{run_cancel,run_replay}'::text[]) call, unnest(ARRAY[:'no_longer_bobs', :'closed_id']) id;
RESET ROLE;
SELECT payload, status, triggered_by FROM trigger_idem.runs WHERE task_id = 'cancel_alices' ORDER BY run_id;
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE task_id = 'cancel_alices' AND status = 'queued' ORDER BY run_id;

-- read-only
BEGIN READ ONLY;
SELECT trigger_idem.run_cancel(:'alices_id');
ROLLBACK;
BEGIN READ ONLY;
SELECT trigger_idem.run_replay(:'alices_id');
ROLLBACK;

-- ---------- run_replay ----------

SELECT trigger_idem.environment_create('control_replay');
SELECT trigger_idem.task_create('replay', queue => 'replay', max_attempts => 7, idempotency_key_required => true);
SELECT control_test.error_of($$SELECT trigger_idem.trigger_task('replay')$$);
SELECT run_id AS old_id FROM trigger_idem.trigger_task('replay', '{"a": [1, null]}', 'the key', '1 day', NULL, now() + interval '1 day', '1 hour', 5,
	'replay_queue', 'the concurrency key', 2, '{one,two}', '{"meta": true}', 'control_replay', 'global') \gset
SELECT trigger_idem.run_replay(:'old_id') AS new_id \gset
SELECT :'old_id' <> :'new_id' AS is_new;
SELECT environment, task_id, status, payload, output, idempotency_key IS NULL AS no_key, idempotency_key_expires_at IS NULL AS no_expiry, parent_run_id, attempt, max_attempts, queue,
	priority, tags, metadata, run_at <= clock_timestamp() AS is_due, concurrency_key, ttl
FROM trigger_idem.runs WHERE run_id IN (:'old_id', :'new_id') ORDER BY created_at, status DESC;
SELECT ord = visible_from - interval '5 seconds' AS head_start, expires_at - visible_from AS ttl FROM trigger_idem.queue_entry WHERE run_id = :'new_id';
-- the key is still the old one's
SELECT is_cached, run_id = :'old_id' AS is_old FROM trigger_idem.trigger_task('replay', idempotency_key => 'the key', environment => 'control_replay');
-- of each state: queued, executing, completed, failed, canceled
SELECT trigger_idem.task_create('replay_state', queue => 'replay_state', max_attempts => 1);
SELECT run_id AS completed_id FROM trigger_idem.trigger_task('replay_state', '"completed"') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'replay_state');
SELECT trigger_idem.run_complete(:'completed_id', 1, '"output"');
SELECT run_id AS failed_id FROM trigger_idem.trigger_task('replay_state', '"failed"') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'replay_state');
SELECT status FROM trigger_idem.run_fail(:'failed_id', 1, '"error"');
SELECT status FROM trigger_idem.trigger_task('replay_state', '"executing"');
SELECT attempt FROM trigger_idem.run_claim('w', 'replay_state');
SELECT status FROM trigger_idem.trigger_task('replay_state', '"queued"');
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.trigger_task('replay_state', '"canceled"');
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.trigger_task('replay_state');
SELECT count(trigger_idem.run_replay(run_id)) FROM (SELECT run_id FROM trigger_idem.runs WHERE task_id = 'replay_state' ORDER BY run_id) r;
SELECT payload, status, output, error, count(*) FROM trigger_idem.runs WHERE task_id = 'replay_state' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2;
-- the task's settings are those of now; a task that was dropped has no new runs
SELECT trigger_idem.task_create('replay_state', 'helper.handler', queue => 'replay_state', max_attempts => 9);
CALL trigger_idem.work('replay_state');
CALL helper.show_log();
SELECT trigger_idem.run_replay(:'completed_id') AS new_id \gset
SELECT status, max_attempts FROM trigger_idem.runs WHERE run_id = :'new_id';
SELECT trigger_idem.task_drop('replay_state');
SELECT control_test.error_of(format('SELECT trigger_idem.run_replay(%L)', :'completed_id'));
-- rolled back; within a run, whose child it is
BEGIN;
SELECT count(trigger_idem.run_replay(:'old_id'));
ROLLBACK;
SELECT count(*) FROM trigger_idem.runs WHERE task_id = 'replay';
CREATE FUNCTION control_test.replays(payload jsonb) RETURNS uuid LANGUAGE sql AS $$ SELECT trigger_idem.run_replay((payload ->> 0)::uuid) $$;
SELECT trigger_idem.task_create('replays', 'control_test.replays', queue => 'replays');
SELECT status FROM trigger_idem.trigger_task('replays', jsonb_build_array(:'old_id'));
CALL trigger_idem.work('replays');
SELECT n.environment, n.payload, p.task_id AS parent FROM trigger_idem.runs p JOIN trigger_idem.runs n ON n.run_id = (p.output ->> 0)::uuid AND n.parent_run_id = p.run_id WHERE p.task_id = 'replays';

-- ---------- Queues ----------

SELECT trigger_idem.task_create('pause', queue => 'pause');
SELECT trigger_idem.task_create('pause_handled', 'helper.handler', queue => 'pause');
SELECT * FROM trigger_idem.queues WHERE queue = 'pause';
SELECT status FROM trigger_idem.trigger_task('pause', '"executes"', priority => 10);
SELECT payload FROM trigger_idem.run_claim('w', 'pause');
SELECT status FROM (VALUES ('pause', NULL), ('pause_handled', NULL), ('pause', '1 hour'), ('pause_handled', '2 hours'), ('pause', '3 hours')) v(task, delay),
	LATERAL trigger_idem.trigger_task(task, delay => delay::interval);
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.trigger_task('pause', '"canceled"');
SELECT status FROM trigger_idem.trigger_task('pause', '"expired"', ttl => '1 hour');
UPDATE trigger_idem.queue_entry SET expires_at = now() - interval '1 second' WHERE queue = 'pause' AND expires_at IS NOT NULL;
SELECT status FROM trigger_idem.trigger_task('pause', '"elsewhere"', queue => 'pause_elsewhere');
SELECT queue, paused, queued, delayed, executing, waiting,
	oldest_due = (SELECT min(run_at) FROM trigger_idem.runs r WHERE r.queue = q.queue AND status = 'queued') AS oldest_due
FROM trigger_idem.queues q WHERE queue LIKE 'pause%' ORDER BY queue;
SELECT trigger_idem.queue_pause('pause');
SELECT trigger_idem.queue_pause('pause');
SELECT trigger_idem.queue_pause('pause_never_used');
SELECT queue, paused, queued FROM trigger_idem.queues WHERE queue LIKE 'pause%' OR paused ORDER BY queue;
-- nothing is claimed from it; what executes goes on; triggers and cancels too
SELECT payload FROM trigger_idem.run_claim('w', 'pause', 10);
SELECT payload FROM trigger_idem.run_claim('w', NULL, 10, task_ids => '{pause}');
CALL trigger_idem.work('pause');
SELECT count(trigger_idem.run_heartbeat(run_id, attempt)), count(trigger_idem.run_complete(run_id, attempt)) FROM trigger_idem.runs WHERE queue = 'pause' AND status = 'executing';
SELECT status FROM trigger_idem.trigger_task('pause', '"while paused"');
SELECT queued, delayed, executing FROM trigger_idem.queues WHERE queue = 'pause';
-- rolled back
BEGIN;
SELECT trigger_idem.queue_resume('pause');
SELECT paused FROM trigger_idem.queues WHERE queue = 'pause';
SELECT count(*) FROM trigger_idem.run_claim('w', 'pause', 10);
ROLLBACK;
SELECT payload FROM trigger_idem.run_claim('w', 'pause', 10);
SELECT trigger_idem.queue_resume('pause');
SELECT trigger_idem.queue_resume('pause');
SELECT trigger_idem.queue_resume('pause_never_used');
SELECT queue, paused, queued FROM trigger_idem.queues WHERE queue LIKE 'pause%' OR paused ORDER BY queue;
SELECT payload FROM trigger_idem.run_claim('w', 'pause', 10);
CALL trigger_idem.work('pause');
CALL helper.show_log();
BEGIN;
SELECT trigger_idem.queue_pause('pause');
ROLLBACK;
SELECT paused FROM trigger_idem.queues WHERE queue = 'pause';
-- a queue that is paused and has nothing
SELECT trigger_idem.queue_pause('pause_empty');
SELECT * FROM trigger_idem.queues WHERE queue = 'pause_empty';
SELECT trigger_idem.queue_resume('pause_empty');
SELECT count(*) FROM trigger_idem.queues WHERE queue = 'pause_empty';
SELECT call, queue, control_test.error_of(format('SELECT trigger_idem.%s(%L)', call, queue))
FROM unnest('{queue_pause,queue_resume}'::text[]) call, unnest(ARRAY['', NULL, 'x']) queue;
SELECT call, left(control_test.error_of(format('SELECT trigger_idem.%s(repeat(%L, 256))', call, 'x')), 40) FROM unnest('{queue_pause,queue_resume}'::text[]) call;
SELECT trigger_idem.queue_resume('x');
BEGIN READ ONLY;
SELECT left(control_test.error_of(format('SELECT trigger_idem.%s(%L)', call, 'pause')), 5) FROM unnest('{queue_pause,queue_resume}'::text[]) call;
ROLLBACK;
-- shown are the queues of tasks and runs that the reader may see
SELECT trigger_idem.access_revoke('regress_control_alice', 'work');
SELECT trigger_idem.access_grant('regress_control_alice', 'trigger', 'cancel_alices');
SELECT status FROM trigger_idem.trigger_task('cancel_alices', '"of somebody"', queue => 'pause_counts');
SELECT status FROM trigger_idem.trigger_task('pause', queue => 'pause_counts');
SELECT queued FROM trigger_idem.queues WHERE queue = 'pause_counts';
SET ROLE regress_control_alice;
SELECT queued, oldest_due IS NOT NULL AS is_due FROM trigger_idem.queues WHERE queue = 'pause_counts';
SELECT queue, queued, delayed, executing, oldest_due FROM trigger_idem.queues WHERE queue = 'pause';
RESET ROLE;

-- ---------- The setting notify ----------

SHOW trigger_idem.notify;
SELECT context, vartype FROM pg_settings WHERE name = 'trigger_idem.notify';
SET ROLE regress_control_alice;
SELECT helper.error_of('SET trigger_idem.notify = on');
RESET ROLE;
-- what tells cannot be prepared
SET trigger_idem.notify = on;
BEGIN;
SELECT status FROM trigger_idem.trigger_task('pause');
PREPARE TRANSACTION 'control_test';
RESET trigger_idem.notify;

-- ---------- What is shown while a handler works ----------

CREATE FUNCTION control_test.looks(payload jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT state || ': ' || query FROM pg_stat_activity WHERE pid = pg_backend_pid() $$;
CREATE PROCEDURE control_test.looks_twice(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	INSERT INTO helper.log (line) SELECT regexp_replace(query, '[0-9a-f]{8}-[-0-9a-f]{27}', 'ID') FROM pg_stat_activity WHERE pid = pg_backend_pid();
END $$;
SELECT trigger_idem.task_create('looks', 'control_test.looks', queue => 'looks');
SELECT trigger_idem.task_create('looks_twice', 'control_test.looks_twice', queue => 'looks');
SELECT run_id FROM trigger_idem.trigger_task('looks', '"a secret"', 'a secret key') \gset
SELECT status FROM trigger_idem.trigger_task('looks_twice', '"a secret"');
CALL trigger_idem.work('looks');
SELECT output ->> 0 = format('active: trigger_idem: task looks, run %s, attempt 1', run_id) AS as_told FROM trigger_idem.runs WHERE run_id = :'run_id';
CALL helper.show_log();

-- ---------- max_duration ----------

CREATE FUNCTION control_test.endless() RETURNS void LANGUAGE plpgsql AS $$
BEGIN INSERT INTO helper.log (line) VALUES ('never seen'); LOOP END LOOP; END $$;
CREATE PROCEDURE control_test.endless_procedure() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES ('committed');
	COMMIT;
	INSERT INTO helper.log (line) VALUES ('never seen');
	LOOP END LOOP;
END $$;
CREATE PROCEDURE control_test.commits_endlessly() LANGUAGE plpgsql AS $$ BEGIN LOOP COMMIT; END LOOP; END $$;
CREATE FUNCTION control_test.catches() RETURNS text LANGUAGE plpgsql AS $$
BEGIN INSERT INTO helper.log (line) VALUES ('never seen'); LOOP END LOOP; EXCEPTION WHEN query_canceled THEN RETURN 'caught'; END $$;
CREATE FUNCTION control_test.catches_twice() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN LOOP END LOOP; EXCEPTION WHEN query_canceled THEN NULL; END;
	BEGIN LOOP END LOOP; EXCEPTION WHEN query_canceled THEN NULL; END;
	RETURN 'caught twice';
END $$;
CREATE FUNCTION control_test.catches_and_raises() RETURNS text LANGUAGE plpgsql AS $$
BEGIN LOOP END LOOP; EXCEPTION WHEN query_canceled THEN RAISE EXCEPTION 'something else' USING ERRCODE = 'TI006'; END $$;
CREATE PROCEDURE control_test.catches_and_commits() LANGUAGE plpgsql AS $$
BEGIN
	BEGIN LOOP END LOOP; EXCEPTION WHEN query_canceled THEN NULL; END;
	COMMIT;
	LOOP END LOOP;
END $$;
SELECT trigger_idem.task_create(task, ('control_test.' || task)::regproc, queue => 'duration', max_duration => '200 ms', max_attempts => 5)
FROM unnest('{endless,endless_procedure,commits_endlessly,catches,catches_twice,catches_and_raises,catches_and_commits}'::text[]) task;
SELECT trigger_idem.task_create('in_time', 'helper.handler', queue => 'duration', max_duration => '1 hour');
-- after each of them one that is in time, which nothing of it may meet
SELECT count(trigger_idem.trigger_task(task, to_jsonb(number), 'the key'))
FROM unnest('{endless,in_time,endless_procedure,commits_endlessly,catches,catches_twice,catches_and_raises,catches_and_commits}'::text[]) WITH ORDINALITY t(task, number);
SELECT status FROM trigger_idem.trigger_task('in_time', '"last"');
CALL trigger_idem.work('duration');
CALL helper.show_log();
SELECT r.task_id, r.status, r.attempt, r.output, r.error ->> 'code' AS code, r.error ->> 'message' AS message, a.status AS attempt_status
FROM trigger_idem.runs r JOIN trigger_idem.attempts a USING (run_id) WHERE queue = 'duration' ORDER BY r.created_at;
-- its key is free, as by default
SELECT is_cached FROM trigger_idem.trigger_task('endless', idempotency_key => 'the key', delay => '1 hour');
-- it is per attempt: an error in time is retried
CREATE FUNCTION control_test.fails_first() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF trigger_idem.current_attempt() = 1 THEN RAISE EXCEPTION 'in time'; END IF;
	LOOP END LOOP;
END $$;
SELECT trigger_idem.task_create('fails_first', 'control_test.fails_first', queue => 'duration', max_duration => '500 ms', max_attempts => 5, min_backoff => '0');
SELECT status FROM trigger_idem.trigger_task('fails_first');
CALL trigger_idem.work('duration');
SELECT r.status, string_agg(concat_ws(' ', a.status, a.error ->> 'code'), ', ' ORDER BY a.attempt) FROM trigger_idem.runs r JOIN trigger_idem.attempts a USING (run_id) WHERE task_id = 'fails_first' GROUP BY 1;
-- deferred constraints count too
CREATE TABLE control_test.deferred (id int);
CREATE FUNCTION control_test.endless_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOOP END LOOP; END $$;
CREATE CONSTRAINT TRIGGER endless AFTER INSERT ON control_test.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control_test.endless_trigger();
CREATE FUNCTION control_test.defers() RETURNS void LANGUAGE sql AS 'INSERT INTO control_test.deferred VALUES (1)';
SELECT trigger_idem.task_create('defers', 'control_test.defers', queue => 'duration', max_duration => '200 ms');
SELECT status FROM trigger_idem.trigger_task('defers');
CALL trigger_idem.work('duration');
SELECT status, error ->> 'message' AS message FROM trigger_idem.runs WHERE task_id = 'defers';
SELECT duration, control_test.error_of(format('SELECT trigger_idem.task_create(''duration'', max_duration => %L)', duration)) FROM unnest('{0,-1 s,101 years,1 us}'::text[]) duration;
SELECT trigger_idem.task_drop('duration');

-- nothing is left over for the files that follow
SELECT count(trigger_idem.run_cancel(run_id)) > 0 AS canceled FROM trigger_idem.runs
WHERE task_id ~ '^(cancel|replay|pause|looks|endless|in_time|catches|commits_endlessly|fails_first|defers)' AND status IN ('queued', 'delayed', 'executing');
DELETE FROM trigger_idem.environment WHERE environment LIKE 'control\_%';
DROP OWNED BY regress_control_alice, regress_control_bob;
DROP ROLE regress_control_alice, regress_control_bob;
