-- Environments: isolated key and run spaces.

SELECT trigger_idem.environment_create('staging');
SELECT trigger_idem.environment_create('staging');
SELECT * FROM trigger_idem.environments ORDER BY environment;

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

DROP OWNED BY regress_tenant, regress_outsider;
DROP ROLE regress_tenant, regress_outsider;
SELECT * FROM trigger_idem.environments ORDER BY environment;
