-- idempotency_key_reset(), and keys as the views show them.

CREATE SCHEMA reset_test;
SELECT trigger_idem.task_create('reset_task', 'helper.handler', queue => 'reset_test');
SELECT trigger_idem.task_create('reset_other', 'helper.handler', queue => 'reset_test');

-- ---------- idempotency_key_reset() ----------

-- true when a live key was released; the next trigger makes a new run
SELECT run_id FROM trigger_idem.trigger_task('reset_task', NULL, 'reset key') \gset first_
SELECT is_cached FROM trigger_idem.trigger_task('reset_other', NULL, 'reset key');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset key');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset key');
SELECT count(*) AS keys FROM trigger_idem.idempotency_keys WHERE task_id = 'reset_task';
SELECT run_id, is_cached, run_id <> :'first_run_id' AS another_run FROM trigger_idem.trigger_task('reset_task', NULL, 'reset key') \gset second_
SELECT :'second_is_cached' AS is_cached, :'second_another_run' AS another_run;
SELECT run_id = :'second_run_id' AS same_run, is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset key');
-- the runs go on, the first one too
SELECT status, idempotency_key FROM trigger_idem.runs WHERE run_id IN (:'first_run_id', :'second_run_id');
-- another task's key of the same name is another key
SELECT is_cached FROM trigger_idem.trigger_task('reset_other', NULL, 'reset key');

-- by its 64 digits, too; in upper case they are text
SELECT trigger_idem.idempotency_key_reset('reset_task', upper(trigger_idem.idempotency_key_create('reset key', 'global')));
SELECT trigger_idem.idempotency_key_reset('reset_task', trigger_idem.idempotency_key_create('reset key', 'global'));
SELECT trigger_idem.idempotency_key_reset('reset_task', trigger_idem.idempotency_key_create('reset key', 'global'));
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, trigger_idem.idempotency_key_create('{reset,list}'::text[], 'global'));
SELECT trigger_idem.idempotency_key_reset('reset_task', '{reset,list}');
SELECT trigger_idem.idempotency_key_reset('reset_task', trigger_idem.idempotency_key_create('{reset,list}'::text[], 'global'));
-- a key that never was
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset never');
SELECT trigger_idem.idempotency_key_reset('reset_task', repeat('ä', 2048));

-- one item of a batch
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('reset_task', '[{}, {}]', 'reset batch');
SELECT trigger_idem.idempotency_key_reset('reset_task', trigger_idem.idempotency_key_create(ARRAY['reset batch', '1'], 'global'));
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('reset_task', '[{}, {}]', 'reset batch');

-- environments
SELECT trigger_idem.environment_create('reset_environment');
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset there', environment => 'reset_environment');
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset here');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset there');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset here', 'reset_environment');
SET trigger_idem.environment = 'reset_environment';
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset here');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset here', 'default');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset there');
RESET trigger_idem.environment;
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset there', 'reset_environment');
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset there', environment => 'reset_environment');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset there', 'reset_environment');

-- a group's key, by any of its tasks
SELECT trigger_idem.task_create('reset_group_1', queue => 'reset_group', idempotency_group => 'reset_group');
SELECT trigger_idem.task_create('reset_group_2', queue => 'reset_group', idempotency_group => 'reset_group');
SELECT is_cached FROM trigger_idem.trigger_task('reset_group_1', NULL, 'reset shared');
SELECT is_cached FROM trigger_idem.trigger_task('reset_group_2', NULL, 'reset shared');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset shared');
SELECT trigger_idem.idempotency_key_reset('reset_group_2', 'reset shared');
SELECT is_cached FROM trigger_idem.trigger_task('reset_group_1', NULL, 'reset shared');
SELECT is_cached FROM trigger_idem.trigger_task('reset_group_2', NULL, 'reset shared');

-- an expired key is not live, whether its row is there or not
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset expired', '1 microsecond');
SELECT count(*) AS rows FROM trigger_idem.idempotency_key WHERE key = 'reset expired';
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset expired');
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset expired');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset expired');
-- nor is that of a run which was not started in time, and frees its key, noticed or not
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset late', ttl => '1 microsecond');
SELECT status FROM trigger_idem.runs WHERE idempotency_key = 'reset late';
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset late');
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset late');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset late');
-- one without a time to live is
SELECT trigger_idem.task_create('reset_for_ever', queue => 'reset_group', idempotency_key_ttl => NULL);
SELECT is_cached FROM trigger_idem.trigger_task('reset_for_ever', NULL, 'reset for ever');
SELECT trigger_idem.idempotency_key_reset('reset_for_ever', 'reset for ever');

-- inside a transaction, and rolled back
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset undone');
BEGIN;
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset undone');
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset undone');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset undone');
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset undone');
ROLLBACK;
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset undone');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset undone');
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset undone');
COMMIT;
-- where nothing may be written
BEGIN READ ONLY;
SELECT left(helper.error_of($$SELECT trigger_idem.idempotency_key_reset('reset_task', 'reset undone')$$), 5) AS error;
COMMIT;
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset undone');

-- when the first run ends, the key is the second one's
SELECT trigger_idem.task_create('reset_ends', 'helper.handler', queue => 'reset_ends', release_key_on => '{completed}');
SELECT status FROM trigger_idem.trigger_task('reset_ends', '1', 'reset ends');
SELECT trigger_idem.idempotency_key_reset('reset_ends', 'reset ends');
SELECT run_id FROM trigger_idem.trigger_task('reset_ends', '2', 'reset ends') \gset second_
CALL trigger_idem.work('reset_ends', 1);
SELECT payload, status FROM trigger_idem.runs WHERE task_id = 'reset_ends' ORDER BY payload;
SELECT run_id = :'second_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('reset_ends', '3', 'reset ends');
CALL trigger_idem.work('reset_ends');
SELECT is_cached FROM trigger_idem.trigger_task('reset_ends', '4', 'reset ends');
-- so it is with a final status that is written to the key
SELECT trigger_idem.task_create('reset_ends', 'helper.handler', queue => 'reset_ends');
SELECT trigger_idem.idempotency_key_reset('reset_ends', 'reset ends');
SELECT run_id FROM trigger_idem.trigger_task('reset_ends', '5', 'reset ends') \gset second_
CALL trigger_idem.work('reset_ends', 1);
SELECT payload, status FROM trigger_idem.runs WHERE task_id = 'reset_ends' AND payload IN ('4', '5') ORDER BY payload;
SELECT run_id = :'second_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('reset_ends', '6', 'reset ends');
CALL trigger_idem.work('reset_ends');
SELECT run_id = :'second_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('reset_ends', '7', 'reset ends');
-- the key of a finished run
SELECT trigger_idem.idempotency_key_reset('reset_ends', 'reset ends');
SELECT is_cached FROM trigger_idem.trigger_task('reset_ends', '8', 'reset ends');
CALL trigger_idem.work('reset_ends');

-- inside a run: in its environment, raw text is of the global scope
CREATE FUNCTION reset_test.resets() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.trigger_task('reset_for_ever', NULL, 'reset in a run', idempotency_key_scope => 'run');
	PERFORM trigger_idem.trigger_task('reset_for_ever', NULL, 'reset in a run');
	RETURN jsonb_build_object('global', trigger_idem.idempotency_key_reset('reset_for_ever', 'reset in a run'),
		'again', trigger_idem.idempotency_key_reset('reset_for_ever', 'reset in a run'),
		'run', trigger_idem.idempotency_key_reset('reset_for_ever', trigger_idem.idempotency_key_create('reset in a run', 'run')),
		'default', trigger_idem.idempotency_key_reset('reset_for_ever', 'reset in a run', 'default'));
END $$;
SELECT trigger_idem.task_create('reset_resets', 'reset_test.resets', queue => 'reset_resets');
SELECT is_cached FROM trigger_idem.trigger_task('reset_for_ever', NULL, 'reset in a run');
SELECT status FROM trigger_idem.trigger_task('reset_resets', environment => 'reset_environment');
CALL trigger_idem.work('reset_resets');
SELECT output FROM trigger_idem.runs WHERE task_id = 'reset_resets';

-- what cannot be
SELECT helper.error_of(format('SELECT trigger_idem.idempotency_key_reset(%s)', arguments)) AS error, arguments FROM (VALUES
	($$NULL, 'reset undone'$$), ($$'', 'reset undone'$$), ($$'reset nothing', 'reset undone'$$),
	($$'reset_task', NULL$$), ($$'reset_task', ''$$), ($$'reset_task', repeat('x', 2049)$$),
	($$'reset_task', 'reset undone', 'nowhere'$$), ($$'reset_task', 'reset undone', ''$$)) v(arguments);
SELECT is_cached FROM trigger_idem.trigger_task('reset_task', NULL, 'reset undone');
-- a dropped task is known as long as it has keys
SELECT status FROM trigger_idem.trigger_task('reset_other', NULL, 'reset dropped');
SELECT trigger_idem.task_drop('reset_other');
SELECT trigger_idem.idempotency_key_reset('reset_other', 'reset dropped');
SELECT trigger_idem.task_create('reset_other', 'helper.handler', queue => 'reset_test');

-- ---------- Whose key it is ----------

CREATE ROLE regress_reset_one;
CREATE ROLE regress_reset_two;
CREATE ROLE regress_reset_owner;
GRANT USAGE ON SCHEMA helper TO regress_reset_one, regress_reset_two, regress_reset_owner;
SELECT trigger_idem.access_grant(role, 'trigger') FROM unnest('{regress_reset_one,regress_reset_two}'::regrole[]) role;
SELECT trigger_idem.access_grant('regress_reset_owner', 'work');
SET ROLE regress_reset_owner;
SELECT trigger_idem.task_create('reset_owned', queue => 'reset_owned');
SET ROLE regress_reset_one;
SELECT is_cached FROM trigger_idem.trigger_task('reset_owned', NULL, 'reset of one');
SELECT is_cached FROM trigger_idem.trigger_task('reset_owned', NULL, 'reset of one 2');
RESET ROLE;
-- to one who may not see the run, it is as if there were none; for a hit it is there
SET ROLE regress_reset_two;
SELECT trigger_idem.idempotency_key_reset('reset_owned', 'reset of one');
SELECT trigger_idem.idempotency_key_reset('reset_owned', 'reset of nobody');
SELECT is_cached FROM trigger_idem.trigger_task('reset_owned', NULL, 'reset of one');
-- the first who has triggered it may, the owner of the task, and a superuser
SET ROLE regress_reset_one;
SELECT trigger_idem.idempotency_key_reset('reset_owned', 'reset of one');
RESET ROLE;
SET ROLE regress_reset_owner;
SELECT trigger_idem.idempotency_key_reset('reset_owned', 'reset of one 2');
SET ROLE regress_reset_two;
SELECT is_cached FROM trigger_idem.trigger_task('reset_owned', NULL, 'reset of one');
RESET ROLE;
SET ROLE regress_reset_one;
SELECT trigger_idem.idempotency_key_reset('reset_owned', 'reset of one');
RESET ROLE;
SELECT trigger_idem.idempotency_key_reset('reset_owned', 'reset of one');
-- in an environment that is closed to them, not even their own
SELECT trigger_idem.environment_create('reset_closed', 'regress_reset_one');
SET ROLE regress_reset_one;
SELECT is_cached FROM trigger_idem.trigger_task('reset_owned', NULL, 'reset closed', environment => 'reset_closed');
RESET ROLE;
SET ROLE regress_reset_two;
SELECT left(helper.error_of($$SELECT trigger_idem.idempotency_key_reset('reset_owned', 'reset closed', 'reset_closed')$$), 5) AS error;
RESET ROLE;
SET ROLE regress_reset_one;
SELECT trigger_idem.idempotency_key_reset('reset_owned', 'reset closed', 'reset_closed');
RESET ROLE;
-- pruned, the run cannot be seen by anybody; its key can still be reset
SELECT trigger_idem.task_create('reset_pruned', 'helper.handler', queue => 'reset_pruned');
SET ROLE regress_reset_one;
SELECT is_cached FROM trigger_idem.trigger_task('reset_pruned', NULL, 'reset pruned');
RESET ROLE;
CALL trigger_idem.work('reset_pruned');
DO $$ BEGIN WHILE (SELECT sum(removed) > 0 FROM trigger_idem.prune('0')) LOOP END LOOP; END $$;
SELECT count(*) FROM trigger_idem.runs WHERE task_id = 'reset_pruned';
SET ROLE regress_reset_two;
SELECT trigger_idem.idempotency_key_reset('reset_pruned', 'reset pruned');
SET ROLE regress_reset_one;
SELECT trigger_idem.idempotency_key_reset('reset_pruned', 'reset pruned');
RESET ROLE;
DROP OWNED BY regress_reset_one, regress_reset_two, regress_reset_owner;
DROP ROLE regress_reset_one, regress_reset_two, regress_reset_owner;

-- ---------- Keys as the views show them ----------

CREATE VIEW reset_test.shown AS
SELECT r.payload, CASE WHEN r.idempotency_key ~ '^[0-9a-f]{64}$' THEN '64 digits' ELSE r.idempotency_key END AS key_of_run, r.idempotency_key_scope AS scope_of_run,
	k.key, k.scope, CASE WHEN r.idempotency_key ~ '^[0-9a-f]{64}$' THEN r.idempotency_key = k.idempotency_key END AS its_digits, length(k.idempotency_key) AS digits
FROM trigger_idem.runs r LEFT JOIN trigger_idem.idempotency_keys k USING (run_id) WHERE r.task_id = 'reset_shown';
SELECT trigger_idem.task_create('reset_shown', queue => 'reset_shown');
\pset null '(null)'
-- as typed, and as idempotency_key_create() was given it in this session
SELECT count(trigger_idem.trigger_task('reset_shown', to_jsonb(n), key)) FROM (VALUES
	(1, 'reset shown'), (2, '{reset,shown}'), (3, trigger_idem.idempotency_key_create('reset created')),
	(4, trigger_idem.idempotency_key_create('{reset,created}'::text[], 'global')), (5, trigger_idem.idempotency_key_create('{reset created alone}'::text[])),
	(6, trigger_idem.idempotency_key_create(ARRAY['reset "odd"', 'a,b', '{}'])),
	(7, trigger_idem.idempotency_key_create('reset of a run', 'run', '01890000-0000-7000-8000-000000000001')),
	(8, trigger_idem.idempotency_key_create('reset of an attempt', 'attempt', '01890000-0000-7000-8000-000000000001', 2)),
	(9, repeat('0123456789abcdef', 4)), (10, trigger_idem.idempotency_key_from_payload('{"reset": 1}')), (11, NULL)) v(n, key);
SELECT index FROM trigger_idem.batch_trigger_task('reset_shown', '[{"payload": 12}]', 'reset shown batch');
SELECT * FROM reset_test.shown ORDER BY payload;
-- the first name of a key stays
SELECT trigger_idem.idempotency_key_create('reset named twice') = trigger_idem.idempotency_key_create('{reset named twice}'::text[], 'global') AS same \gset
SELECT is_cached FROM trigger_idem.trigger_task('reset_shown', '13', trigger_idem.idempotency_key_create('{reset named twice}'::text[]));
-- a hit changes nothing of what is shown
SELECT is_cached FROM trigger_idem.trigger_task('reset_shown', '14', trigger_idem.idempotency_key_create('reset shown'));
SELECT * FROM reset_test.shown WHERE payload IN ('1', '13', '14') ORDER BY payload;
-- another session does not know what its keys were made of
SELECT trigger_idem.idempotency_key_create('reset other session', 'global') AS key \gset
\c -
SELECT is_cached FROM trigger_idem.trigger_task('reset_shown', '15', :'key');
SELECT is_cached FROM trigger_idem.trigger_task('reset_shown', '16', 'reset other session');
SELECT is_cached FROM trigger_idem.trigger_task('reset_shown', '17', 'reset typed');
SELECT * FROM reset_test.shown WHERE payload >= '15' ORDER BY payload;
-- one that is taken over is shown as its new trigger has it
UPDATE trigger_idem.idempotency_key SET expires_at = now() - interval '1 second' WHERE task_id = 'reset_shown';
SELECT is_cached FROM trigger_idem.trigger_task('reset_shown', '18', 'reset other session');
SELECT t.is_cached FROM (SELECT idempotency_key FROM trigger_idem.idempotency_keys WHERE key = 'reset typed' OFFSET 0) k,
	LATERAL trigger_idem.trigger_task('reset_shown', '19', k.idempotency_key) t;
SELECT * FROM reset_test.shown WHERE payload >= '15' ORDER BY payload;
\pset null ''

CALL trigger_idem.work('reset_test', environment => 'default');
CALL trigger_idem.work('reset_test', environment => 'reset_environment');
DELETE FROM helper.log;
