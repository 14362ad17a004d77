-- Who may do what: nothing is for PUBLIC, views show what is one's own.

CREATE ROLE regress_stranger;
CREATE ROLE regress_alice;
CREATE ROLE regress_bob;
GRANT USAGE ON SCHEMA helper TO regress_stranger, regress_alice, regress_bob;

SET ROLE regress_stranger;
SELECT helper.error_of(command) FROM (VALUES
	('SELECT trigger_idem.idempotency_key_create(''a'')'),
	('SELECT trigger_idem.trigger_task(''a'')'),
	('SELECT * FROM trigger_idem.runs'),
	('SELECT * FROM trigger_idem.run')) v(command);
RESET ROLE;

-- with USAGE of the schema alone, still nothing
GRANT USAGE ON SCHEMA trigger_idem TO regress_stranger;
SELECT count(*) AS may_execute FROM pg_proc
WHERE pronamespace = 'trigger_idem'::regnamespace AND has_function_privilege('regress_stranger', oid, 'EXECUTE');
SELECT count(*) AS may_read FROM pg_class
WHERE relnamespace = 'trigger_idem'::regnamespace AND relkind IN ('r', 'v') AND has_table_privilege('regress_stranger', oid, 'SELECT');

-- two users, their runs, and what each sees
GRANT USAGE ON SCHEMA trigger_idem TO regress_alice, regress_bob;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA trigger_idem TO regress_alice, regress_bob;
GRANT SELECT ON trigger_idem.runs, trigger_idem.attempts, trigger_idem.steps, trigger_idem.idempotency_keys,
	trigger_idem.tasks, trigger_idem.environments TO regress_alice, regress_bob;
SET ROLE regress_alice;
SELECT trigger_idem.task_create('access_alices', 'helper.handler', queue => 'access_test');
SELECT status FROM trigger_idem.trigger_task('access_alices', '"of alice"', idempotency_key => 'alices key');
RESET ROLE;
SET ROLE regress_bob;
SELECT trigger_idem.task_create('access_bobs', 'helper.handler', queue => 'access_test');
SELECT status FROM trigger_idem.trigger_task('access_bobs', '"of bob"', idempotency_key => 'bobs key');
SELECT status FROM trigger_idem.trigger_task('access_alices', '"of bob, for alice"', idempotency_key => 'bobs key');
SELECT trigger_idem.run_once_sql('bobs step', 'SELECT 1', scope => 'global');
-- bob: his own runs
SELECT task_id, payload, triggered_by FROM trigger_idem.runs ORDER BY created_at;
SELECT task_id, key FROM trigger_idem.idempotency_keys ORDER BY created_at;
SELECT step FROM trigger_idem.steps;
RESET ROLE;
SET ROLE regress_alice;
-- alice: her own, and those of her task
SELECT task_id, payload, triggered_by FROM trigger_idem.runs ORDER BY created_at;
SELECT task_id, key FROM trigger_idem.idempotency_keys ORDER BY created_at;
SELECT count(*) AS steps FROM trigger_idem.steps;
-- a function that is cheap enough to be pushed down sees no more than the view shows
CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$;
SELECT count(*) FROM trigger_idem.idempotency_keys WHERE pg_temp.leak(key);
SELECT helper.error_of('SELECT * FROM trigger_idem.' || relation) FROM unnest('{run,queue_entry,idempotency_key,step,task,reader}'::text[]) relation;
RESET ROLE;

DROP OWNED BY regress_stranger, regress_alice, regress_bob;
DROP ROLE regress_stranger, regress_alice, regress_bob;
-- the runs of roles that are gone stay, for superusers to see
SELECT task_id, triggered_by FROM trigger_idem.runs WHERE task_id LIKE 'access\_%' ORDER BY created_at;
DELETE FROM trigger_idem.global_step WHERE path = '{bobs step}';
