-- Who may do what: access_grant(), and what each access allows.

CREATE SCHEMA access_test;
CREATE ROLE regress_stranger;
CREATE ROLE regress_alice;
CREATE ROLE regress_bob;
CREATE ROLE regress_carol;
CREATE ROLE regress_team;
GRANT USAGE ON SCHEMA helper, access_test TO PUBLIC;
GRANT regress_team TO regress_carol;

-- ---------- Before anything is granted ----------

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

-- with EXECUTE granted by hand, neither
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA trigger_idem TO regress_stranger;
GRANT SELECT ON ALL TABLES IN SCHEMA trigger_idem TO regress_stranger;
REVOKE SELECT ON trigger_idem.access_entry FROM regress_stranger;
SELECT trigger_idem.task_create('access_task', 'helper.handler', queue => 'access_test');
SELECT run_id FROM trigger_idem.trigger_task('access_task', '"of the owner"', 'access key') \gset
CALL trigger_idem.work('access_test');
CALL helper.show_log();
SELECT token FROM trigger_idem.wait_token_create() \gset
SELECT trigger_idem.wait_token_complete(:'token');
SELECT trigger_idem.schedule_create('access_schedule', '0 0 1 1 *', 'access_task', cron_job => false);
CREATE FUNCTION access_test.try(VARIADIC ids text[]) RETURNS TABLE (command text, error text) LANGUAGE plpgsql AS $$
BEGIN
	FOREACH command IN ARRAY ARRAY[
		'trigger_task(''access_task'')',
		'batch_trigger_task(''access_task'', ''[{}]'')',
		'batch_trigger_task(''access_task'', ''[]'')',
		'trigger_task_and_wait(''access_task'', NULL, ''access key'')',
		'batch_trigger_task_and_wait(''access_task'', ''[]'')',
		'idempotency_key_reset(''access_task'', ''access key'')',
		format('run_wait(%L, ''0'')', ids[1]),
		format('run_replay(%L)', ids[1]),
		format('run_cancel(%L)', ids[1]),
		'wait_token_create()',
		format('wait_token_complete(%L)', ids[2]),
		format('wait_for_token(%L)', ids[2]),
		'run_once_sql(''access'', ''SELECT 1'', scope => ''global'')',
		'schedule_create(''access_other'', ''0 0 1 1 *'', ''access_task'', cron_job => false)',
		'schedule_fire(''access_schedule'')',
		'schedule_drop(''access_schedule'')',
		'task_create(''access_other'')',
		'task_create(''access_task'')',
		'task_drop(''access_task'')',
		'run_claim(''w'', ''access_test'')',
		format('run_heartbeat(%L, 1)', ids[1]),
		format('run_complete(%L, 1)', ids[1]),
		'queue_pause(''access_test'')',
		'queue_resume(''access_test'')',
		'prune()',
		'environment_create(''access_other'')',
		'environment_drop(''access_other'')',
		'access_grant(''regress_carol'', ''trigger'')',
		'access_grant(''regress_carol'', ''trigger'', ''access_task'')',
		'access_revoke(''regress_carol'', ''trigger'')',
		'access_revoke(''regress_carol'', ''trigger'', ''access_task'')']
	LOOP
		-- what succeeds is undone
		BEGIN
			EXECUTE 'SELECT FROM trigger_idem.' || command;
			RAISE EXCEPTION USING ERRCODE = 'XYZZY';
		EXCEPTION WHEN OTHERS THEN
			error := CASE WHEN SQLSTATE = 'XYZZY' THEN 'allowed' ELSE replace(SQLSTATE || ' ' || SQLERRM, ids[1], 'RUN') END;
			error := replace(error, ids[2], 'TOKEN');
		END;
		command := replace(replace(command, ids[1], 'RUN'), ids[2], 'TOKEN');
		RETURN NEXT;
	END LOOP;
END $$;
CREATE FUNCTION access_test.rows_of(view text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	number bigint;
BEGIN
	EXECUTE format('SELECT count(*) FROM trigger_idem.%I', view) INTO number;
	RETURN number;
END $$;
SET ROLE regress_stranger;
SELECT * FROM access_test.try(:'run_id', :'token');
SELECT relname, access_test.rows_of(relname) AS seen
FROM unnest('{runs,attempts,steps,waits,wait_tokens,idempotency_keys,tasks,queues,schedules,grants}'::text[]) relname;
RESET ROLE;
DROP OWNED BY regress_stranger;

-- ---------- What each access allows ----------

SELECT trigger_idem.access_grant('regress_alice', 'trigger');
SET ROLE regress_alice;
SELECT * FROM access_test.try(:'run_id', :'token') WHERE error NOT LIKE '42501 permission denied for function %';
SELECT count(*) AS runs FROM trigger_idem.runs;
SELECT run_id AS alices FROM trigger_idem.trigger_task('access_task', '"of alice"', 'alices key') \gset
SELECT task_id, payload, triggered_by FROM trigger_idem.runs;
SELECT task_id, key FROM trigger_idem.idempotency_keys;
RESET ROLE;
-- of one's own: see, replay, cancel, reset
BEGIN;
SET ROLE regress_alice;
SELECT command, error FROM access_test.try(:'alices', :'token') WHERE command ~ 'RUN';
SELECT trigger_idem.idempotency_key_reset('access_task', 'alices key');
RESET ROLE;
ROLLBACK;

SELECT trigger_idem.access_grant('regress_bob', 'monitor');
SET ROLE regress_bob;
SELECT * FROM access_test.try(:'run_id', :'token') WHERE error NOT LIKE '42501 permission denied for function %';
SELECT task_id, payload, triggered_by FROM trigger_idem.runs WHERE task_id LIKE 'access\_%' ORDER BY created_at;
SELECT key FROM trigger_idem.idempotency_keys WHERE task_id LIKE 'access\_%' ORDER BY created_at;
SELECT queued FROM trigger_idem.queues WHERE queue = 'access_test';
SELECT schedule_id FROM trigger_idem.schedules WHERE schedule_id LIKE 'access\_%';
-- to see is not to control
SELECT trigger_idem.idempotency_key_create('a') IS NOT NULL AS creates_keys;
RESET ROLE;
SELECT trigger_idem.access_grant('regress_bob', 'trigger');
SET ROLE regress_bob;
SELECT helper.error_of(format('SELECT trigger_idem.run_cancel(%L)', :'alices'));
SELECT helper.error_of(format('SELECT trigger_idem.run_replay(%L)', :'alices')) LIKE '42501%' AS refused;
SELECT helper.error_of($$SELECT trigger_idem.idempotency_key_reset('access_task', 'alices key')$$) LIKE '42501%' AS refused;
SELECT trigger_idem.idempotency_key_reset('access_task', 'nobodys key');
RESET ROLE;

SELECT trigger_idem.access_grant('regress_team', 'work');
-- to members that inherit from it
SET ROLE regress_carol;
SELECT * FROM access_test.try(:'run_id', :'token') WHERE error NOT LIKE '42501 permission denied for function %';
-- an application's runs of anybody
RESET ROLE;
SELECT trigger_idem.task_create('access_app', queue => 'access_app');
SELECT run_id AS app FROM trigger_idem.trigger_task('access_app') \gset
SET ROLE regress_carol;
SELECT attempt FROM trigger_idem.run_claim('w', 'access_app');
SELECT trigger_idem.run_complete(:'app', 1);
-- the owner of a task has all access for it, and may give it away
SELECT trigger_idem.task_create('access_carols', queue => 'access_carols');
RESET ROLE;
SELECT trigger_idem.access_revoke('regress_team', 'work');
SELECT trigger_idem.access_grant('regress_team', 'work', 'access_app');
SET ROLE regress_alice;
SELECT run_id AS for_carol FROM trigger_idem.trigger_task('access_carols', '"of alice for carol"') \gset
SET ROLE regress_carol;
SELECT payload, triggered_by FROM trigger_idem.runs WHERE task_id = 'access_carols';
SELECT trigger_idem.access_grant('regress_bob', 'admin', 'access_carols');
SELECT helper.error_of($$SELECT trigger_idem.access_grant('regress_bob', 'trigger', 'access_task')$$);
SELECT helper.error_of($$SELECT trigger_idem.access_grant('regress_bob', 'trigger')$$);
RESET ROLE;
-- whose administrator gives it away in turn, and controls its runs and no others
SET ROLE regress_bob;
SELECT trigger_idem.access_grant('regress_stranger', 'trigger', 'access_carols');
SELECT trigger_idem.run_cancel(:'for_carol');
SELECT left(helper.error_of(format('SELECT trigger_idem.run_cancel(%L)', :'alices')), 5) AS error;
SELECT left(helper.error_of('SELECT trigger_idem.queue_pause(''access_test'')'), 5) AS error;
SELECT role, access, task_id, granted_by FROM trigger_idem.grants ORDER BY 1, 2, 3;
RESET ROLE;
-- one task and no other
SET ROLE regress_stranger;
SELECT is_cached FROM trigger_idem.trigger_task('access_carols');
SELECT * FROM access_test.try(:'run_id', :'token') WHERE error NOT LIKE '42501 permission denied for function %';
SELECT task_id FROM trigger_idem.tasks;
SELECT queue FROM trigger_idem.queues;
RESET ROLE;

-- two accesses for one task add up
SELECT trigger_idem.access_grant('regress_stranger', access, 'access_app') FROM unnest('{trigger,monitor}'::text[]) access;
SET ROLE regress_stranger;
SELECT is_cached FROM trigger_idem.trigger_task('access_app', '"of a stranger"', queue => 'access_two');
SELECT payload FROM trigger_idem.runs WHERE task_id = 'access_app' ORDER BY created_at;
RESET ROLE;
SELECT trigger_idem.access_revoke('regress_stranger', access, 'access_app') FROM unnest('{trigger,monitor}'::text[]) access;
SELECT count(trigger_idem.run_cancel(run_id)) FROM trigger_idem.runs WHERE queue = 'access_two';

SELECT trigger_idem.access_grant('regress_carol', 'admin');
SET ROLE regress_carol;
SELECT * FROM access_test.try(:'run_id', :'token');
SELECT count(*) > 3 AS sees_grants FROM trigger_idem.grants;
-- an administrator drops what is another's, and does not take it over
SELECT helper.error_of($$SELECT trigger_idem.task_create('access_task')$$);
RESET ROLE;

-- ---------- Taking away ----------

-- what was granted for all tasks goes with what was for single ones
SELECT trigger_idem.access_grant('regress_stranger', 'trigger', 'access_task');
SELECT trigger_idem.access_grant('regress_stranger', 'trigger', 'access_task');
SELECT trigger_idem.access_revoke('regress_stranger', 'trigger', 'access_app');
SELECT trigger_idem.access_revoke('regress_stranger', 'monitor');
SELECT access, task_id FROM trigger_idem.grants WHERE role = 'regress_stranger' ORDER BY task_id;
SELECT trigger_idem.access_revoke('regress_stranger', 'trigger');
SELECT access, task_id FROM trigger_idem.grants WHERE role = 'regress_stranger';
SELECT count(*) AS may_execute FROM pg_proc
WHERE pronamespace = 'trigger_idem'::regnamespace AND has_function_privilege('regress_stranger', oid, 'EXECUTE');
SELECT count(*) AS may_read FROM pg_class
WHERE relnamespace = 'trigger_idem'::regnamespace AND relkind IN ('r', 'v') AND has_table_privilege('regress_stranger', oid, 'SELECT');
SELECT has_schema_privilege('regress_stranger', 'trigger_idem', 'USAGE');
DROP ROLE regress_stranger;
-- in a transaction that is undone
BEGIN;
SELECT trigger_idem.access_revoke('regress_alice', 'trigger');
SET LOCAL ROLE regress_alice;
SELECT left(helper.error_of($$SELECT trigger_idem.trigger_task('access_task')$$), 5) AS error;
ROLLBACK;
SET ROLE regress_alice;
SELECT is_cached FROM trigger_idem.trigger_task('access_task');
RESET ROLE;
-- with the membership
REVOKE regress_team FROM regress_carol;
SELECT trigger_idem.access_revoke('regress_carol', 'admin');
SELECT trigger_idem.access_grant('regress_carol', 'trigger', 'access_carols');
SET ROLE regress_carol;
SELECT left(helper.error_of($$SELECT trigger_idem.trigger_task('access_app')$$), 5) AS error;
RESET ROLE;

-- a new role does not get what an old one of its name was granted, also when it is granted something
CREATE ROLE regress_again;
SELECT trigger_idem.access_grant('regress_again', 'admin');
GRANT regress_again TO regress_alice;
GRANT EXECUTE ON FUNCTION trigger_idem.queue_resume TO regress_alice;
SET ROLE regress_alice;
SELECT trigger_idem.queue_resume('access_test');
RESET ROLE;
DROP OWNED BY regress_again;
SET ROLE regress_alice;
SELECT left(helper.error_of($$SELECT trigger_idem.queue_resume('access_test')$$), 5) AS error;
RESET ROLE;
DROP ROLE regress_again;
CREATE ROLE regress_again;
GRANT regress_again TO regress_alice;
SET ROLE regress_alice;
SELECT left(helper.error_of(format('SELECT trigger_idem.run_cancel(%L)', :'run_id')), 5) AS error;
SELECT count(*) FROM trigger_idem.runs WHERE payload = '"of the owner"';
RESET ROLE;
SELECT trigger_idem.access_grant('regress_again', 'trigger');
SELECT access FROM trigger_idem.grants WHERE role = 'regress_again';
SET ROLE regress_alice;
SELECT left(helper.error_of(format('SELECT trigger_idem.run_cancel(%L)', :'run_id')), 5) AS error;
RESET ROLE;
-- nor when it may use the schema by inheritance, or had its name from another role by ALTER ROLE
SELECT trigger_idem.access_grant('regress_again', 'admin');
DROP OWNED BY regress_again;
DROP ROLE regress_again;
CREATE ROLE regress_again IN ROLE regress_alice;
GRANT EXECUTE ON FUNCTION trigger_idem.environment_create TO regress_again;
SET ROLE regress_again;
SELECT left(helper.error_of($$SELECT trigger_idem.environment_create('access_other')$$), 5) AS error;
SELECT count(*) FROM trigger_idem.runs WHERE payload = '"of the owner"';
RESET ROLE;
SELECT trigger_idem.access_grant('regress_again', 'trigger', 'access_task');
SELECT access, task_id FROM trigger_idem.grants WHERE role = 'regress_again';
SELECT trigger_idem.access_grant('regress_carol', 'admin');
ALTER ROLE regress_carol RENAME TO regress_carol_before;
ALTER ROLE regress_again RENAME TO regress_carol;
SET ROLE regress_carol;
SELECT left(helper.error_of(format('SELECT trigger_idem.run_cancel(%L)', :'run_id')), 5) AS error;
SELECT count(*) FROM trigger_idem.runs WHERE payload = '"of the owner"';
RESET ROLE;
ALTER ROLE regress_carol RENAME TO regress_again;
ALTER ROLE regress_carol_before RENAME TO regress_carol;
REVOKE regress_alice FROM regress_again;
-- nor a task what was granted on an old one
SELECT trigger_idem.task_create('access_name');
SELECT trigger_idem.access_grant('regress_bob', 'admin', 'access_name');
SELECT trigger_idem.task_drop('access_name');
SELECT trigger_idem.access_grant('regress_again', 'work');
SET ROLE regress_again;
SELECT trigger_idem.task_create('access_name');
RESET ROLE;
SELECT role FROM trigger_idem.grants WHERE task_id = 'access_name';

-- ---------- Bad arguments ----------

SELECT helper.error_of('SELECT trigger_idem.' || function || '(' || arguments || ')') AS error, function, arguments
FROM unnest('{access_grant,access_revoke}'::text[]) function, (VALUES
	('NULL, ''work'''), ('''regress_alice'', NULL'), ('''regress_alice'', ''everything'''), ('''regress_alice'', ''WORK'''), ('''regress_alice'', '''''),
	('''regress_nobody'', ''work'''), ('0, ''work'''), ('''public'', ''work'''),
	('''regress_alice'', ''work'', ''access_nothing'''), ('''regress_alice'', ''work'', ''''')) v(arguments);
BEGIN READ ONLY;
SELECT left(helper.error_of($$SELECT trigger_idem.access_grant('regress_alice', 'work')$$), 5) AS error;
ROLLBACK;

-- every function is for somebody: an administrator has all of them
SELECT trigger_idem.access_grant('regress_bob', 'admin');
SELECT oid::regprocedure FROM pg_proc
WHERE pronamespace = 'trigger_idem'::regnamespace AND NOT has_function_privilege('regress_bob', oid, 'EXECUTE');
SELECT relname FROM pg_class
WHERE relnamespace = 'trigger_idem'::regnamespace AND relkind IN ('r', 'v') AND has_table_privilege('regress_bob', oid, 'SELECT, INSERT, UPDATE, DELETE') ORDER BY 1;

-- ---------- Views ----------

-- a function that is cheap enough to be pushed down sees no more than the view shows
SET ROLE regress_alice;
CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$;
SELECT count(*) FROM trigger_idem.idempotency_keys WHERE pg_temp.leak(key);
SELECT helper.error_of('SELECT * FROM trigger_idem.' || relation)
FROM unnest('{run,queue_entry,idempotency_key,step,task,reader,queued_runs,access_entry,environment}'::text[]) relation;
RESET ROLE;

SELECT trigger_idem.schedule_drop('access_schedule');
DROP OWNED BY regress_alice, regress_bob, regress_carol, regress_team, regress_again;
DROP ROLE regress_alice, regress_bob, regress_carol, regress_team, regress_again;
-- the runs of roles that are gone stay, for superusers to see
SELECT task_id, triggered_by FROM trigger_idem.runs WHERE triggered_by = 'regress_alice' ORDER BY created_at;
SELECT count(trigger_idem.run_cancel(run_id)) > 0 AS canceled FROM trigger_idem.runs WHERE task_id LIKE 'access\_%';
DELETE FROM trigger_idem.access_entry;
DELETE FROM trigger_idem.wait_token WHERE token = :'token';
DROP SCHEMA access_test CASCADE;
