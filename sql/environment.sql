-- Environments: isolated key and run spaces.

SELECT trigger_idem.environment_create('staging');
SELECT trigger_idem.environment_create('staging');
SELECT * FROM trigger_idem.environments WHERE environment NOT LIKE 'limit%' ORDER BY environment;

SELECT trigger_idem.task_create('environment_task', queue => 'environment_test');

-- one key, three environments, three runs
SELECT (trigger_idem.trigger_task('environment_task', idempotency_key => 'k')).is_cached;
SELECT is_cached FROM trigger_idem.trigger_task('environment_task', idempotency_key => 'k', environment => 'staging');
SELECT is_cached FROM trigger_idem.trigger_task('environment_task', idempotency_key => 'k', environment => 'staging');

-- the setting chooses where no environment is named
SET trigger_idem.environment = 'staging';
SELECT is_cached FROM trigger_idem.trigger_task('environment_task', idempotency_key => 'k');
SELECT is_cached FROM trigger_idem.trigger_task('environment_task', idempotency_key => 'k', environment => 'default');
SET trigger_idem.environment = 'nowhere';
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('environment_task')$$);
RESET trigger_idem.environment;

SELECT environment, count(*) FROM trigger_idem.runs WHERE task_id = 'environment_task' GROUP BY 1 ORDER BY 1;

-- an environment of a role is for its members
CREATE ROLE regress_tenant;
CREATE ROLE regress_outsider;
SELECT trigger_idem.access_grant(role, 'trigger') FROM unnest('{regress_tenant,regress_outsider}'::regrole[]) role;
GRANT USAGE ON SCHEMA helper TO regress_tenant, regress_outsider;
SELECT trigger_idem.environment_create('tenant', 'regress_tenant');
SET ROLE regress_outsider;
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('environment_task', environment => 'tenant')$$);
SELECT is_cached FROM trigger_idem.trigger_task('environment_task', idempotency_key => 'k', environment => 'staging');
SELECT count(*) FROM trigger_idem.runs;
SET ROLE regress_tenant;
SELECT is_cached FROM trigger_idem.trigger_task('environment_task', idempotency_key => 'k', environment => 'tenant');
SELECT environment, triggered_by FROM trigger_idem.runs;
RESET ROLE;

SELECT helper.error_of('SELECT trigger_idem.environment_create(' || args || ')') AS error
FROM (VALUES ('NULL'), ($$''$$), ($$'default'$$), ($$'default', 'regress_tenant'$$),
	($$'x', 'regress_nobody'$$), ($$repeat('x', 256)$$)) v(args);

-- the role that works a task must be a member, too, unless it owns the task
SELECT trigger_idem.task_create('environment_outsiders', 'helper.handler', queue => 'environment_test', run_as => 'regress_outsider');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('environment_outsiders', environment => 'tenant')$$);
SELECT is_cached FROM trigger_idem.trigger_task('environment_outsiders', environment => 'staging');
-- the owner of a task has all access for it in every environment
SELECT trigger_idem.access_grant('regress_outsider', 'work');
SET ROLE regress_outsider;
SELECT trigger_idem.task_create('environment_owned', queue => 'environment_owned');
SELECT trigger_idem.task_create('environment_worked', 'helper.handler', queue => 'environment_test');
RESET ROLE;
SELECT is_cached FROM trigger_idem.trigger_task('environment_worked', environment => 'tenant');
SELECT trigger_idem.access_revoke('regress_outsider', 'work');
SELECT trigger_idem.access_grant('regress_outsider', 'work', 'environment_owned');
SELECT token AS tenants_token FROM trigger_idem.wait_token_create(environment => 'tenant') \gset
SET ROLE regress_outsider;
SELECT run_id AS owned FROM trigger_idem.trigger_task('environment_owned', '"of its owner"', 'k', environment => 'tenant') \gset
SELECT is_cached FROM trigger_idem.trigger_task('environment_owned', NULL, 'k', environment => 'tenant');
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('environment_owned', '[{}]', environment => 'tenant');
SELECT payload, environment FROM trigger_idem.run_claim('w', NULL, 1, environment => 'tenant');
BEGIN;
SELECT trigger_idem.run_enter(:'owned', 1);
-- inside the run, its environment is the worker's
SELECT token FROM trigger_idem.wait_token_create() \gset
SELECT trigger_idem.run_once_sql('s', 'SELECT 1', scope => 'global');
SELECT trigger_idem.wait_token_complete(:'token');
-- but not for tasks, keys, runs and tokens of others
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('environment_task')$$);
SELECT left(helper.error_of(format('SELECT trigger_idem.wait_token_complete(%L)', :'tenants_token')), 5) AS error;
SELECT count(status) FROM trigger_idem.runs_walk(false, NULL, NULL, NULL, 'tenant', 'environment_task', NULL, NULL, NULL, 10);
SELECT trigger_idem.idempotency_key_holder('environment_task', 'k', 'tenant');
SELECT count(*) FROM trigger_idem.run_claim('w', 'environment_test', 10, environment => 'tenant');
COMMIT;
SELECT trigger_idem.run_complete(:'owned', 1);
-- a member who would have to SET ROLE to be the owner is him here, as in the views
RESET ROLE;
CREATE ROLE regress_deputy NOINHERIT;
GRANT USAGE ON SCHEMA helper TO regress_deputy;
SELECT trigger_idem.access_grant('regress_deputy', 'work', 'environment_owned');
SET ROLE regress_deputy;
SELECT helper.error_of($$SELECT trigger_idem.run_claim('w', NULL, 1, environment => 'tenant')$$);
RESET ROLE;
GRANT regress_outsider TO regress_deputy;
SET ROLE regress_deputy;
SELECT count(*) FROM trigger_idem.run_claim('w', NULL, 1, environment => 'tenant');
RESET ROLE;
DROP OWNED BY regress_deputy;
DROP ROLE regress_deputy;
SET ROLE regress_outsider;
SELECT trigger_idem.idempotency_key_reset('environment_owned', 'k', 'tenant');
SELECT count(*) FROM trigger_idem.runs WHERE task_id = 'environment_owned';
-- outside it is not, for anything else
SELECT helper.error_of('SELECT ' || command) FROM (VALUES
	($$trigger_idem.wait_token_create(environment => 'tenant')$$),
	($$trigger_idem.trigger_task('environment_task', environment => 'tenant')$$),
	($$trigger_idem.batch_trigger_task('environment_task', '[]', environment => 'tenant')$$),
	($$trigger_idem.idempotency_key_reset('environment_task', 'k', 'tenant')$$),
	($$trigger_idem.schedule_create('s', '* * * * *', 'environment_task', environment => 'tenant', cron_job => false)$$)) v(command);
SET trigger_idem.environment = 'tenant';
SELECT helper.error_of($$SELECT trigger_idem.run_once_sql('s', 'SELECT 1', scope => 'global')$$);
RESET trigger_idem.environment;
RESET ROLE;

-- ---------- environment_drop ----------

SELECT helper.error_of($$SELECT trigger_idem.environment_drop('tenant')$$);
SELECT count(trigger_idem.run_cancel(run_id)) > 0 AS canceled FROM trigger_idem.runs WHERE environment = 'tenant';
SELECT trigger_idem.schedule_create('environment_schedule', '0 0 1 1 *', 'environment_task', environment => 'tenant', cron_job => false);
SELECT helper.error_of($$SELECT trigger_idem.environment_drop('tenant')$$);
SELECT is_cached FROM trigger_idem.schedule_fire('environment_schedule');
SELECT trigger_idem.schedule_drop('environment_schedule');
SELECT count(trigger_idem.run_cancel(run_id)) > 0 AS canceled FROM trigger_idem.runs WHERE environment = 'tenant';
-- a run elsewhere that has waited for something in it would ask for the answer again
CREATE FUNCTION helper.environment_waits(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_wait((payload ->> 0)::uuid, '1 hour');
	PERFORM trigger_idem.wait_for('long', '1 hour');
	RETURN 'done';
END $$;
SELECT trigger_idem.task_create('environment_waits', 'helper.environment_waits', queue => 'environment_waits');
SELECT run_id AS target FROM trigger_idem.trigger_task('environment_task', environment => 'tenant') \gset
SELECT run_id AS waiter FROM trigger_idem.trigger_task('environment_waits', jsonb_build_array(:'target')) \gset
CALL trigger_idem.work('environment_waits');
SELECT trigger_idem.run_cancel(:'target');
CALL trigger_idem.work('environment_waits');
SELECT helper.error_of($$SELECT trigger_idem.environment_drop('tenant')$$);
SELECT trigger_idem.run_cancel(:'waiter');
-- a role, and keys, steps and tokens of another one go with it
BEGIN;
SELECT trigger_idem.environment_drop('tenant');
SELECT environment FROM trigger_idem.environments WHERE environment NOT LIKE 'limit%' ORDER BY environment;
SELECT count(*) FROM trigger_idem.run WHERE environment = 'tenant'
UNION ALL SELECT count(*) FROM trigger_idem.idempotency_key WHERE environment = 'tenant'
UNION ALL SELECT count(*) FROM trigger_idem.global_step WHERE environment = 'tenant'
UNION ALL SELECT count(*) FROM trigger_idem.wait_token WHERE environment = 'tenant';
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('environment_task', environment => 'tenant')$$);
ROLLBACK;
SELECT is_cached FROM trigger_idem.trigger_task('environment_task', idempotency_key => 'k', environment => 'tenant');
SELECT count(trigger_idem.run_cancel(run_id)) > 0 AS canceled FROM trigger_idem.runs WHERE environment = 'tenant';
SELECT trigger_idem.environment_drop('tenant');
SELECT trigger_idem.environment_drop('tenant');
SELECT count(*) FROM trigger_idem.attempt WHERE run_id = :'owned';
SELECT trigger_idem.environment_create('tenant', 'regress_tenant');
SELECT helper.error_of('SELECT trigger_idem.environment_drop(' || args || ')') AS error
FROM (VALUES ('NULL'), ($$''$$), ($$'default'$$), ($$'nowhere'$$), ($$repeat('x', 256)$$)) v(args);

-- a step belongs where it began, whatever its callback sets
CREATE FUNCTION helper.environment_moves(idempotency_key text) RETURNS text LANGUAGE sql RETURN
	pg_catalog.set_config('trigger_idem.environment', 'default', true);
BEGIN;
SET LOCAL trigger_idem.environment = 'tenant';
SELECT trigger_idem.run_once('moves', 'helper.environment_moves', scope => 'global');
SELECT path, environment FROM trigger_idem.global_step WHERE path = '{moves}';
ROLLBACK;

DROP OWNED BY regress_tenant, regress_outsider;
DROP ROLE regress_tenant, regress_outsider;
-- a task whose run_as is gone is worked by nobody, here or elsewhere, until it has another
SELECT status FROM trigger_idem.trigger_task('environment_outsiders', environment => 'tenant');
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE environment = 'tenant';
SELECT * FROM trigger_idem.environments WHERE environment NOT LIKE 'limit%' ORDER BY environment;
