-- prune(): what goes, what stays, and how much at a time.

CREATE SCHEMA prune_test;
-- others may have left something
DO $$ BEGIN WHILE (SELECT sum(removed) > 0 FROM trigger_idem.prune('0')) LOOP END LOOP; END $$;

-- what a call says that it has removed, without the zeros
CREATE FUNCTION prune_test.prune(finished_before interval DEFAULT '0', batch int DEFAULT 10000) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(removed || ' ' || what, ', ' ORDER BY what) FILTER (WHERE removed > 0), 'nothing') FROM trigger_idem.prune(finished_before, batch)
$$;
-- and all calls until nothing is left to remove
CREATE FUNCTION prune_test.prune_all(finished_before interval, batch int) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	answers text[];
BEGIN
	FOR i IN 1 .. 100 LOOP
		answers := answers || prune_test.prune(finished_before, batch);
		EXIT WHEN answers[i] = 'nothing';
	END LOOP;
	RETURN answers;
END $$;
CREATE FUNCTION prune_test.five_steps() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 5 LOOP
		PERFORM trigger_idem.run_once_sql('step ' || i, 'SELECT 1');
	END LOOP;
END $$;
CREATE FUNCTION prune_test.fails() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fails'; END $$;
SELECT trigger_idem.task_create('prune_task', 'helper.handler', queue => 'prune_test');
SELECT trigger_idem.task_create('prune_steps', 'prune_test.five_steps', queue => 'prune_test');
SELECT trigger_idem.task_create('prune_fails', 'prune_test.fails', queue => 'prune_test', max_attempts => 3, min_backoff => '0');

-- one row for each kind, in this order, removed or not
SELECT * FROM trigger_idem.prune();

-- ---------- What stays ----------

-- unfinished runs, of all kinds, and live keys
SELECT count(*) FROM (VALUES ('prune queued', NULL::interval, NULL::interval), ('prune delayed', '1 hour', NULL), ('prune in time', NULL, '1 hour')) v(key, delay, ttl),
	LATERAL trigger_idem.trigger_task('prune_task', NULL, key, delay => v.delay, ttl => v.ttl, queue => 'prune_unfinished');
SELECT status FROM trigger_idem.trigger_task('prune_fails', queue => 'prune_unfinished');
CALL trigger_idem.work('prune_unfinished', 2);
SELECT trigger_idem.task_create('prune_dropped', queue => 'prune_unfinished');
SELECT status FROM trigger_idem.trigger_task('prune_dropped', NULL, 'prune of a dropped task');
SELECT trigger_idem.task_drop('prune_dropped');
CREATE VIEW prune_test.state AS
SELECT r.task_id, r.idempotency_key, r.status, r.attempt, (SELECT count(*) FROM trigger_idem.attempts a WHERE a.run_id = r.run_id) AS attempts,
	(SELECT count(*) FROM trigger_idem.steps s WHERE s.run_id = r.run_id AND s.scope = 'run') AS steps,
	(SELECT count(*) FROM trigger_idem.idempotency_keys k WHERE k.run_id = r.run_id) AS keys
FROM trigger_idem.runs r WHERE r.task_id LIKE 'prune\_%';
DELETE FROM helper.log;
SELECT prune_test.prune('1 hour');
SELECT * FROM prune_test.state ORDER BY task_id, idempotency_key;
-- the finished ones go, and their keys stay
SELECT prune_test.prune();
SELECT prune_test.prune();
SELECT * FROM prune_test.state ORDER BY task_id, idempotency_key;

-- a handler's own run is not finished while it executes
CREATE FUNCTION prune_test.prunes() RETURNS text LANGUAGE sql AS $$ SELECT prune_test.prune() $$;
SELECT trigger_idem.task_create('prune_prunes', 'prune_test.prunes', queue => 'prune_test');
SELECT status FROM trigger_idem.trigger_task('prune_prunes');
CALL trigger_idem.work('prune_test');
SELECT status, output FROM trigger_idem.runs WHERE task_id = 'prune_prunes';

-- ---------- What goes ----------

-- finished runs of all ends, with attempts and steps
SELECT run_id FROM trigger_idem.trigger_task('prune_steps', NULL, 'prune steps') \gset steps_
SELECT run_id FROM trigger_idem.trigger_task('prune_fails', NULL, 'prune fails') \gset fails_
SELECT run_id FROM trigger_idem.trigger_task('prune_task', NULL, 'prune done') \gset done_
SELECT count(trigger_idem.trigger_task('prune_task')) FROM generate_series(1, 3);
CALL trigger_idem.work('prune_test');
DELETE FROM helper.log;
SELECT task_id, idempotency_key, status, attempts, steps FROM prune_test.state WHERE status IN ('completed', 'failed') ORDER BY task_id, idempotency_key;
SELECT prune_test.prune('1 hour');
SELECT prune_test.prune('100 years');
SELECT what, removed FROM trigger_idem.prune('0');
SELECT count(*) AS attempts FROM trigger_idem.attempt WHERE run_id IN (:'steps_run_id', :'fails_run_id', :'done_run_id');
SELECT count(*) AS steps FROM trigger_idem.step WHERE run_id IN (:'steps_run_id', :'fails_run_id', :'done_run_id');
-- a hit still has the run's id and its final status
SELECT run_id = :'steps_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('prune_steps', NULL, 'prune steps');
SELECT run_id = :'done_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('prune_task', NULL, 'prune done');
SELECT key, status, run_id = :'done_run_id' AS same_run FROM trigger_idem.idempotency_keys WHERE key = 'prune done';
-- also of a failed run that keeps its key
SELECT trigger_idem.task_create('prune_fails', 'prune_test.fails', queue => 'prune_test', max_attempts => 1, release_key_on => '{}');
SELECT run_id FROM trigger_idem.trigger_task('prune_fails', NULL, 'prune fails') \gset fails_
CALL trigger_idem.work('prune_test');
SELECT prune_test.prune();
SELECT run_id = :'fails_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('prune_fails', NULL, 'prune fails');

-- how long ago: old runs, whose id tells when they were made, that have finished long ago
CREATE PROCEDURE prune_test.make_old(run_id uuid, new_id uuid, finished_at timestamptz) LANGUAGE sql AS $$
	UPDATE trigger_idem.run r SET run_id = new_id, finished_at = make_old.finished_at WHERE r.run_id = make_old.run_id;
	UPDATE trigger_idem.attempt a SET run_id = new_id WHERE a.run_id = make_old.run_id;
	UPDATE trigger_idem.step s SET run_id = new_id WHERE s.run_id = make_old.run_id;
	UPDATE trigger_idem.idempotency_key k SET run_id = new_id WHERE k.run_id = make_old.run_id;
$$;
SELECT run_id FROM trigger_idem.trigger_task('prune_steps', '"long ago"') \gset one_
SELECT run_id FROM trigger_idem.trigger_task('prune_steps', '"made long ago, finished yesterday"') \gset two_
SELECT run_id FROM trigger_idem.trigger_task('prune_steps', '"finished today"') \gset three_
CALL trigger_idem.work('prune_test');
CALL prune_test.make_old(:'one_run_id', '01890000-0000-7000-8000-000000000001', now() - interval '31 days');
CALL prune_test.make_old(:'two_run_id', '01890000-0000-7000-8000-000000000002', now() - interval '24 hours');
SELECT string_agg(removed || ' ' || what, ', ' ORDER BY what) FROM trigger_idem.prune() WHERE removed > 0;
SELECT payload, status FROM trigger_idem.runs WHERE task_id = 'prune_steps' ORDER BY payload;
SELECT prune_test.prune('25 hours');
SELECT prune_test.prune('23 hours');
SELECT payload, status FROM trigger_idem.runs WHERE task_id = 'prune_steps' ORDER BY payload;
SELECT prune_test.prune();

-- runs that were not started in time are finished, whether anybody has noticed or not
SELECT trigger_idem.task_create('prune_expires', queue => 'prune_expires', release_key_on => '{}');
SELECT count(*) FROM (VALUES ('prune_task', 'prune expired'), ('prune_expires', 'prune expired, kept')) v(task, key),
	LATERAL trigger_idem.trigger_task(task, NULL, key, ttl => '1 microsecond', queue => 'prune_expires');
SELECT key, run_id FROM trigger_idem.idempotency_keys WHERE key = 'prune expired, kept' \gset kept_
SELECT prune_test.prune('1 hour');
SELECT r.status, r.finished_at = r.created_at + interval '1 microsecond' AS at_the_deadline, (SELECT count(*) FROM trigger_idem.queue_entry e WHERE e.run_id = r.run_id) AS entries,
	(SELECT count(*) FROM trigger_idem.idempotency_key k WHERE k.run_id = r.run_id) AS keys
FROM trigger_idem.run r WHERE queue = 'prune_expires' ORDER BY task_id;
SELECT prune_test.prune();
SELECT run_id = :'kept_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('prune_expires', NULL, 'prune expired, kept');
-- in one call, if that is long enough ago
SELECT status FROM trigger_idem.trigger_task('prune_task', NULL, 'prune expired', ttl => '1 microsecond', queue => 'prune_expires');
SELECT prune_test.prune();
-- as many as a batch has
SELECT count(trigger_idem.trigger_task('prune_task', ttl => '1 microsecond', queue => 'prune_expires')) FROM generate_series(1, 5);
SELECT prune_test.prune('1 hour', 2);
SELECT count(*) FILTER (WHERE status = 'expired') AS written_down, count(*) FILTER (WHERE status IS NULL) AS unnoticed FROM trigger_idem.run WHERE queue = 'prune_expires';
SELECT unnest(prune_test.prune_all('0', 2));
SELECT count(*) FROM trigger_idem.run WHERE queue = 'prune_expires';
-- zeros mean that nothing is left: young ones do not stand before one that has expired long ago
SELECT count(trigger_idem.trigger_task('prune_task', ttl => '1 microsecond', queue => 'prune_expires')) FROM generate_series(1, 2);
SELECT run_id FROM trigger_idem.trigger_task('prune_task', '"long ago"', ttl => '1 microsecond', queue => 'prune_expires') \gset
UPDATE trigger_idem.run SET run_id = '01890000-0000-7000-8000-000000000003' WHERE run_id = :'run_id';
UPDATE trigger_idem.queue_entry SET run_id = '01890000-0000-7000-8000-000000000003', expires_at = now() - interval '48 hours' WHERE run_id = :'run_id';
SELECT unnest(prune_test.prune_all('24 hours', 2));
SELECT count(*) AS long_ago FROM trigger_idem.runs WHERE queue = 'prune_expires' AND payload = '"long ago"';
SELECT prune_test.prune();
SELECT prune_test.prune();

-- expired keys, of runs finished or not; the runs stay what they are
SELECT count(*) FROM (VALUES ('prune key expired', '1 microsecond'::interval), ('prune key live', '1 hour')) v(key, ttl),
	LATERAL trigger_idem.trigger_task('prune_task', NULL, key, ttl, queue => 'prune_unfinished');
SELECT trigger_idem.task_create('prune_for_ever', queue => 'prune_unfinished', idempotency_key_ttl => NULL);
SELECT is_cached FROM trigger_idem.trigger_task('prune_for_ever', NULL, 'prune key for ever');
SELECT prune_test.prune('1 hour');
SELECT key FROM trigger_idem.idempotency_keys WHERE key LIKE 'prune key %' ORDER BY key;
SELECT idempotency_key, status FROM trigger_idem.runs WHERE idempotency_key LIKE 'prune key %' ORDER BY 1;
SELECT is_cached FROM trigger_idem.trigger_task('prune_task', NULL, 'prune key expired', queue => 'prune_unfinished');
SELECT is_cached FROM trigger_idem.trigger_task('prune_task', NULL, 'prune key live');
SELECT is_cached FROM trigger_idem.trigger_task('prune_for_ever', NULL, 'prune key for ever');

-- global steps whose time is up
SELECT trigger_idem.run_once_sql('prune step', 'SELECT 1', scope => 'global', ttl => '1 microsecond');
SELECT trigger_idem.run_once_sql('prune step live', 'SELECT 2', scope => 'global', ttl => '1 hour');
SELECT trigger_idem.run_once_sql('prune step for ever', 'SELECT 3', scope => 'global');
SELECT prune_test.prune('1 hour');
SELECT prune_test.prune('0');
SELECT key FROM trigger_idem.steps WHERE key LIKE 'prune step%' ORDER BY 1;
SELECT trigger_idem.run_once_sql('prune step', 'SELECT 4', scope => 'global'), trigger_idem.run_once_sql('prune step live', 'SELECT 5', scope => 'global');
SELECT count(trigger_idem.run_once_sql('prune step ' || n, 'SELECT 1', scope => 'global', ttl => '1 microsecond')) FROM generate_series(1, 5) n;
SELECT unnest(prune_test.prune_all('1 hour', 2));

-- ---------- How much at a time ----------

-- a run with more steps than the batch goes when they are gone
SELECT status FROM trigger_idem.trigger_task('prune_steps');
CALL trigger_idem.work('prune_test');
SELECT unnest(prune_test.prune_all('0', 2));
SELECT status FROM trigger_idem.trigger_task('prune_steps');
CALL trigger_idem.work('prune_test');
SELECT unnest(prune_test.prune_all('0', 1));
-- no kind is more than the batch
SELECT count(trigger_idem.trigger_task('prune_steps')) FROM generate_series(1, 7);
CALL trigger_idem.work('prune_test');
CREATE TABLE prune_test.answer (call int, what text, removed bigint);
DO $$
BEGIN
	FOR i IN 1 .. 100 LOOP
		INSERT INTO prune_test.answer SELECT i, what, removed FROM trigger_idem.prune('0', 3);
		EXIT WHEN (SELECT sum(removed) = 0 FROM prune_test.answer WHERE call = i);
	END LOOP;
END $$;
SELECT what, sum(removed), max(removed) AS most_in_a_call FROM prune_test.answer GROUP BY what ORDER BY what;
SELECT count(*) FROM trigger_idem.runs WHERE task_id = 'prune_steps';
-- keys, wherever in their table they are
SELECT count(trigger_idem.trigger_task('prune_task', NULL, 'prune many ' || n, '1 hour', queue => 'prune_many')) FROM generate_series(1, 2000) n;
UPDATE trigger_idem.idempotency_key SET expires_at = now() - interval '1 second' WHERE key LIKE 'prune many %' AND substr(key, 12)::int > 1000;
SELECT unnest(prune_test.prune_all('1 hour', 300));
UPDATE trigger_idem.idempotency_key SET expires_at = now() - interval '1 second' WHERE key LIKE 'prune many %' AND substr(key, 12)::int <= 700;
SELECT unnest(prune_test.prune_all('1 hour', 300));
SELECT count(*) FROM trigger_idem.idempotency_key WHERE key LIKE 'prune many %';
UPDATE trigger_idem.idempotency_key SET expires_at = now() - interval '1 second' WHERE key LIKE 'prune many %';
SELECT unnest(prune_test.prune_all('1 hour', 1000000));
DELETE FROM trigger_idem.queue_entry WHERE queue = 'prune_many';
DELETE FROM trigger_idem.run WHERE queue = 'prune_many';

-- rolled back, nothing is gone
SELECT status FROM trigger_idem.trigger_task('prune_steps');
CALL trigger_idem.work('prune_test');
BEGIN;
SELECT prune_test.prune();
SELECT prune_test.prune();
ROLLBACK;
SELECT prune_test.prune();

-- ---------- What cannot be ----------

SELECT helper.error_of(format('SELECT * FROM trigger_idem.prune(%s)', arguments)) AS error, arguments FROM (VALUES
	('NULL'), ('''0'', NULL'), ('NULL, NULL'), ('''-1 microsecond'''), ('''-1 day'''), ('''100 years'''), ('''101 years'''),
	('''0'', 0'), ('''0'', -1'), ('''0'', 1'), ('''0'', 1000000'), ('''0'', 1000001')) v(arguments);
BEGIN READ ONLY;
SELECT helper.error_of('SELECT * FROM trigger_idem.prune()');
COMMIT;
CREATE ROLE regress_prune_user;
GRANT USAGE ON SCHEMA trigger_idem, helper TO regress_prune_user;
SET ROLE regress_prune_user;
SELECT helper.error_of('SELECT * FROM trigger_idem.prune()');
RESET ROLE;
DROP OWNED BY regress_prune_user;
DROP ROLE regress_prune_user;

DELETE FROM trigger_idem.global_step WHERE path[1] LIKE 'prune %';
DELETE FROM trigger_idem.queue_entry WHERE queue LIKE 'prune\_%';
DELETE FROM trigger_idem.run WHERE queue LIKE 'prune\_%';
DELETE FROM trigger_idem.attempt a WHERE NOT EXISTS (SELECT FROM trigger_idem.run r WHERE r.run_id = a.run_id);
DELETE FROM helper.log;
