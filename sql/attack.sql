-- Attacks in one session; README.md of the tests lists all of them.  Mallory may
-- trigger, and owns a task; the victim and its tasks, runs and keys are not hers.

CREATE SCHEMA attack_test;
CREATE ROLE regress_victim;
CREATE ROLE regress_mallory;
CREATE ROLE regress_accomplice;
GRANT regress_accomplice TO regress_mallory;
GRANT USAGE ON SCHEMA helper TO regress_victim, regress_mallory, regress_accomplice;
GRANT USAGE, CREATE ON SCHEMA attack_test TO regress_victim, regress_mallory, regress_accomplice;
SELECT trigger_idem.access_grant('regress_victim', 'work');
SELECT trigger_idem.access_grant('regress_mallory', 'work');
SELECT trigger_idem.environment_create('attack_closed', 'regress_victim');

SET ROLE regress_mallory;
CREATE FUNCTION attack_test.mallorys() RETURNS void LANGUAGE sql AS '';
SELECT trigger_idem.task_create('attack_mallorys', 'attack_test.mallorys', queue => 'attack_mallorys');
SET ROLE regress_victim;
CREATE FUNCTION attack_test.victims(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
REVOKE EXECUTE ON FUNCTION attack_test.victims FROM PUBLIC;
CREATE FUNCTION attack_test.is_secret(idempotency_key text) RETURNS text LANGUAGE sql AS $$ SELECT 'secret' $$;
REVOKE EXECUTE ON FUNCTION attack_test.is_secret FROM PUBLIC;
SELECT trigger_idem.task_create('attack_victims', queue => 'attack', on_payload_mismatch => 'error');
SELECT trigger_idem.task_create('attack_handled', 'attack_test.victims', queue => 'attack_handled', idempotency_group => 'attack_group');
SELECT run_id AS run FROM trigger_idem.trigger_task('attack_victims', '"secret"', 'secret key') \gset
SELECT run_id AS closed FROM trigger_idem.trigger_task('attack_victims', '"secret"', 'closed key', environment => 'attack_closed') \gset
SELECT run_id AS handled FROM trigger_idem.trigger_task('attack_handled', '"secret"') \gset
SELECT token FROM trigger_idem.wait_token_create(environment => 'attack_closed') \gset
SELECT trigger_idem.schedule_create('attack_schedule', '0 0 1 1 *', 'attack_victims', cron_job => false);
SELECT trigger_idem.run_once_sql('attack step', $$SELECT 'secret'$$, scope => 'global');
SELECT attempt FROM trigger_idem.run_claim('w', 'attack', lease_duration => '1 hour', environment => 'attack_closed');
RESET ROLE;
-- she made her task, and may do no more than trigger from here on
SELECT trigger_idem.access_revoke('regress_mallory', 'work');
SELECT trigger_idem.access_grant('regress_mallory', 'trigger');
-- EXECUTE by hand gives nothing away
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA trigger_idem TO regress_mallory;

-- an attack and its answer; what succeeds is undone
CREATE FUNCTION helper.attack(what text, command text) RETURNS TABLE (attack text, answer text) LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	BEGIN
		EXECUTE command INTO result;
		RAISE EXCEPTION USING ERRCODE = 'XYZZY', MESSAGE = coalesce('DID IT: ' || result, 'DID IT');
	EXCEPTION WHEN OTHERS THEN
		RETURN QUERY SELECT what, CASE SQLSTATE WHEN 'XYZZY' THEN SQLERRM
			ELSE regexp_replace(SQLSTATE || ' ' || SQLERRM, '[0-9a-f-]{36}', 'UUID', 'g') END;
	END;
END $$;

-- it is the table that is refused, not the file
GRANT pg_write_server_files TO regress_mallory;

SET ROLE regress_mallory;

-- ---------- The tables themselves ----------

SELECT a.* FROM (VALUES
	('read a table', 'SELECT payload FROM trigger_idem.run'),
	('copy a table', 'COPY trigger_idem.run TO ''/nowhere'''),
	('insert into a table', 'INSERT INTO trigger_idem.access_entry VALUES (''regress_mallory'', ''admin'', '''', '''', now())'),
	('update a table', 'UPDATE trigger_idem.task SET run_as = ''regress_mallory'''),
	('delete from a table', 'DELETE FROM trigger_idem.idempotency_key'),
	('truncate a table', 'TRUNCATE trigger_idem.run'),
	('lock a table', 'LOCK TABLE trigger_idem.run'),
	('lock rows through a view', 'SELECT run_id FROM trigger_idem.idempotency_keys FOR UPDATE'),
	('update through a view', 'UPDATE trigger_idem.idempotency_keys SET run_id = NULL'),
	('insert through a view', 'INSERT INTO trigger_idem.grants (role) VALUES (''regress_mallory'')'),
	('delete through a view', 'DELETE FROM trigger_idem.schedules'),
	('a trigger on a table', 'CREATE TRIGGER t BEFORE INSERT ON trigger_idem.run FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()'),
	('a rule on a table', 'CREATE RULE r AS ON INSERT TO trigger_idem.run DO INSTEAD NOTHING'),
	('a rule on a view', 'CREATE RULE r AS ON INSERT TO trigger_idem.runs DO INSTEAD NOTHING'),
	('an index expression', 'CREATE INDEX ON trigger_idem.run ((attack_test.mallorys() IS NULL))'),
	('a default', 'ALTER TABLE trigger_idem.run ALTER output SET DEFAULT ''1'''),
	('a check constraint', 'ALTER TABLE trigger_idem.run ADD CHECK (attack_test.mallorys() IS NULL)'),
	('a policy', 'CREATE POLICY p ON trigger_idem.run'),
	('an event trigger', 'CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()'),
	('statistics on an expression', 'CREATE STATISTICS attack_test.s ON (attack_test.mallorys() IS NULL), status FROM trigger_idem.run'),
	('a child table', 'CREATE TABLE attack_test.child () INHERITS (trigger_idem.run)'),
	('a foreign key', 'CREATE TABLE attack_test.fk (id uuid REFERENCES trigger_idem.run)'),
	('a table in the schema', 'CREATE TABLE trigger_idem.t ()'),
	('a function in the schema', 'CREATE FUNCTION trigger_idem.f() RETURNS int LANGUAGE sql AS ''SELECT 1'''),
	('replace a function', 'CREATE OR REPLACE FUNCTION trigger_idem.current_attempt() RETURNS int LANGUAGE sql STABLE AS ''SELECT 1'''),
	('replace a view', 'CREATE OR REPLACE VIEW trigger_idem.runs AS SELECT 1'),
	('change the extension', 'ALTER EXTENSION trigger_idem DROP VIEW trigger_idem.runs'),
	('drop the extension', 'DROP EXTENSION trigger_idem'),
	('a C function of the library', 'CREATE FUNCTION attack_test.c() RETURNS text AS ''$libdir/trigger_idem'', ''trigger_idem_prune'' LANGUAGE c')
	) v(attack, command), LATERAL helper.attack(attack, command) a;

-- ---------- Somebody else's ----------

SELECT a.* FROM (VALUES
	('cancel a run', format('SELECT trigger_idem.run_cancel(%L)', :'run')),
	('cancel a run that is not there', format('SELECT trigger_idem.run_cancel(%L)', '0190163d-8694-739b-aea5-966c26f8ad91')),
	('replay a run', format('SELECT trigger_idem.run_replay(%L)', :'run')),
	('wait for a run', format('SELECT trigger_idem.run_wait(%L, ''0'')', :'run')),
	('complete a run', format('SELECT trigger_idem.run_complete(%L, 1)', :'closed')),
	('enter a run', format('SELECT trigger_idem.run_enter(%L, 1)', :'closed')),
	('store a step of a run', format('SELECT trigger_idem.run_once_end(%L, 1, ''s'')', :'closed')),
	('read a step of a run', format('SELECT trigger_idem.run_once_begin(%L, 1, ''s'')', :'closed')),
	('keep a run', format('SELECT trigger_idem.run_heartbeat(%L, 1, ''100 years'')', :'closed')),
	('fail a run', format('SELECT trigger_idem.run_fail(%L, 1, ''1'')', :'closed')),
	('work a task without access', 'SELECT count(*) FROM trigger_idem.run_claim(''w'', NULL, 10)'),
	('reset a key', 'SELECT trigger_idem.idempotency_key_reset(''attack_victims'', ''secret key'')'),
	('reset a key that is not there', 'SELECT trigger_idem.idempotency_key_reset(''attack_victims'', ''nobodys key'')'),
	('guess a payload', 'SELECT trigger_idem.trigger_task(''attack_victims'', ''"guess"'', ''secret key'')'),
	('take a task over', 'SELECT trigger_idem.task_create(''attack_victims'')'),
	('drop a task', 'SELECT trigger_idem.task_drop(''attack_victims'')'),
	('share the keys of a group', 'SELECT trigger_idem.task_create(''attack_mallorys'', idempotency_group => ''attack_group'')'),
	('fire a schedule', 'SELECT trigger_idem.schedule_fire(''attack_schedule'')'),
	('drop a schedule', 'SELECT trigger_idem.schedule_drop(''attack_schedule'')'),
	('take a schedule over', 'SELECT trigger_idem.schedule_create(''attack_schedule'', ''* * * * *'', ''attack_mallorys'', cron_job => false)'),
	('complete a token of a closed environment', format('SELECT trigger_idem.wait_token_complete(%L)', :'token')),
	('get the output of another role''s global step', 'SELECT trigger_idem.run_once_sql(''attack step'', $$SELECT ''of mallory''$$, scope => ''global'')'),
	('pause a queue', 'SELECT trigger_idem.queue_pause(''attack'')'),
	('prune', 'SELECT trigger_idem.prune(''0'')'),
	('grant herself something', 'SELECT trigger_idem.access_grant(''regress_mallory'', ''admin'')'),
	('grant herself a task', 'SELECT trigger_idem.access_grant(''regress_mallory'', ''admin'', ''attack_victims'')'),
	('take an access away', 'SELECT trigger_idem.access_revoke(''regress_victim'', ''work'')'),
	('open an environment', 'SELECT trigger_idem.environment_create(''attack_closed'')'),
	('drop an environment', 'SELECT trigger_idem.environment_drop(''attack_closed'')')
	) v(attack, command), LATERAL helper.attack(attack, command) a;

-- ---------- A closed environment ----------

-- whether a key is there makes no difference
SELECT a.* FROM (VALUES
	('use a closed environment', 'SELECT trigger_idem.trigger_task(''attack_victims'', ''"secret"'', ''closed key'', environment => ''attack_closed'')'),
	('the same with another key', 'SELECT trigger_idem.trigger_task(''attack_victims'', ''"secret"'', ''nobodys key'', environment => ''attack_closed'')'),
	('in a batch', 'SELECT trigger_idem.batch_trigger_task(''attack_victims'', ''[{"options": {"idempotency_key": "closed key"}}]'', environment => ''attack_closed'')'),
	('as an option of a batch', 'SELECT trigger_idem.batch_trigger_task(''attack_victims'', ''[{"options": {"environment": "attack_closed"}}]'')'),
	('by the setting', 'SELECT (SELECT set_config(''trigger_idem.environment'', ''attack_closed'', true)) || trigger_idem.trigger_task(''attack_victims'', NULL, ''closed key'')::text'),
	('reset a key in it', 'SELECT trigger_idem.idempotency_key_reset(''attack_victims'', ''closed key'', ''attack_closed'')'),
	('reset a key in it that is not there', 'SELECT trigger_idem.idempotency_key_reset(''attack_victims'', ''nobodys key'', ''attack_closed'')'),
	('cancel a run in it', format('SELECT trigger_idem.run_cancel(%L)', :'closed')),
	('make a token in it', 'SELECT trigger_idem.wait_token_create(environment => ''attack_closed'')'),
	('claim from it', 'SELECT count(*) FROM trigger_idem.run_claim(''w'', NULL, 10, environment => ''attack_closed'')'),
	('make a schedule in it', 'SELECT trigger_idem.schedule_create(''s'', ''* * * * *'', ''attack_victims'', environment => ''attack_closed'', cron_job => false)')
	) v(attack, command), LATERAL helper.attack(attack, command) a;

-- ---------- Settings ----------

SELECT a.* FROM (VALUES
	('pretend to be somebody by a setting', 'SET trigger_idem.role = ''regress_victim'''),
	('raise a limit', 'SET trigger_idem.max_payload_size = ''1GB'''),
	('raise the limit of steps', 'SET trigger_idem.max_steps = 1000000'),
	('raise the limit of runs', 'SET trigger_idem.max_active_runs = 0'),
	('tell all listeners', 'SET trigger_idem.notify = on'),
	('change what ids are like', 'SET trigger_idem.shard = 7')
	) v(attack, command), LATERAL helper.attack(attack, command) a;

-- ---------- Who triggered it ----------

RESET ROLE;
SET ROLE regress_victim;
CREATE FUNCTION attack_test.triggers_for_others(task text) RETURNS uuid LANGUAGE sql SECURITY DEFINER AS
	$$ SELECT run_id FROM trigger_idem.trigger_task($1, '"by the definer"') $$;
GRANT EXECUTE ON FUNCTION attack_test.triggers_for_others TO PUBLIC;
RESET ROLE;
SET ROLE regress_mallory;
-- through a function that is somebody else's, the run is his, and stays out of her sight
SELECT attack_test.triggers_for_others('attack_victims') AS by_definer \gset
SELECT count(*) FROM trigger_idem.runs WHERE run_id = :'by_definer';
SELECT * FROM helper.attack('cancel what a definer has triggered', format('SELECT trigger_idem.run_cancel(%L)', :'by_definer'));
-- as a role that she is a member of
SET ROLE regress_accomplice;
SELECT * FROM helper.attack('a member without access', 'SELECT trigger_idem.trigger_task(''attack_victims'')');
SET ROLE regress_mallory;
RESET ROLE;
SELECT triggered_by FROM trigger_idem.runs WHERE run_id = :'by_definer';

-- BYPASSRLS, or to own a table of the same name, opens no view
ALTER ROLE regress_mallory BYPASSRLS;
SET ROLE regress_mallory;
CREATE TABLE attack_test.run (LIKE trigger_idem.runs);
SET search_path = attack_test, trigger_idem;
SELECT count(*) AS with_bypassrls FROM trigger_idem.runs WHERE triggered_by = 'regress_victim';
RESET search_path;
RESET ROLE;
ALTER ROLE regress_mallory NOBYPASSRLS;

-- a member that does not inherit has to say so
CREATE ROLE regress_noinherit NOINHERIT;
GRANT regress_mallory TO regress_noinherit;
GRANT USAGE ON SCHEMA helper, trigger_idem TO regress_noinherit;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA trigger_idem TO regress_noinherit;
SET ROLE regress_noinherit;
SELECT * FROM helper.attack('a member that does not inherit', 'SELECT trigger_idem.trigger_task(''attack_victims'')');
RESET ROLE;
DROP OWNED BY regress_noinherit;
DROP ROLE regress_noinherit;

-- ---------- What a view gives away ----------

SET ROLE regress_mallory;
CREATE FUNCTION attack_test.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN IF $1 ~ 'secret|closed' THEN RAISE NOTICE 'LEAKED'; END IF; RETURN true; END $$;
SELECT a.* FROM unnest(ARRAY['runs', 'attempts', 'steps', 'waits', 'wait_tokens', 'idempotency_keys', 'tasks', 'queues', 'schedules', 'grants']) view,
	LATERAL helper.attack('a function that is pushed into ' || view, format('SELECT count(*) FROM trigger_idem.%I v WHERE attack_test.leak(v::text) AND v::text ~ ''secret|closed''', view)) a;
-- an error that tells of a row
SELECT * FROM helper.attack('an error in a condition', 'SELECT count(*) FROM trigger_idem.runs WHERE 1 / (CASE WHEN payload = ''"secret"'' THEN 0 ELSE 1 END) = 1');
SELECT * FROM helper.attack('a cast in a condition', 'SELECT count(*) FROM trigger_idem.idempotency_keys WHERE key::int = 1');
RESET ROLE;

-- ---------- Handlers and callbacks ----------

SET ROLE regress_mallory;
SELECT a.* FROM (VALUES
	('a handler that she may not execute', 'SELECT trigger_idem.task_create(''attack_mallorys'', ''attack_test.victims'')'),
	('a callback that she may not execute', 'SELECT trigger_idem.run_once(''k'', ''attack_test.is_secret'', scope => ''global'')'),
	('a task that runs as the victim', 'SELECT trigger_idem.task_create(''attack_mallorys'', ''attack_test.mallorys'', run_as => ''regress_victim'')'),
	('a new task, without the access', 'SELECT trigger_idem.task_create(''attack_new'')'),
	('an aggregate as a callback', 'SELECT trigger_idem.run_once(''k'', ''pg_catalog.array_agg(anyarray)''::regprocedure::oid, scope => ''global'')'),
	('a function that is not there as a callback', 'SELECT trigger_idem.run_once(''k'', 0::regproc, scope => ''global'')'),
	('a function with internal arguments', 'SELECT trigger_idem.run_once(''k'', ''pg_catalog.array_in'', scope => ''global'')')
	) v(attack, command), LATERAL helper.attack(attack, command) a;
-- by its name a function of the temporary schema is never found, a table of it neither
CREATE FUNCTION pg_temp.mallorys() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'LOOK-ALIKE'; END $$;
CREATE TABLE pg_temp.run (LIKE trigger_idem.runs);
CREATE TABLE pg_temp.access_entry (role text, access text, task_id text);
INSERT INTO pg_temp.access_entry VALUES ('regress_mallory', 'admin', '');
SET search_path = pg_temp, attack_test;
SELECT trigger_idem.task_create('attack_mallorys', 'mallorys', queue => 'attack_mallorys');
SELECT * FROM helper.attack('a temporary table of accesses', 'SELECT trigger_idem.queue_pause(''attack'')');
SELECT handler FROM trigger_idem.tasks WHERE task_id = 'attack_mallorys';
RESET search_path;
RESET ROLE;
DROP TABLE pg_temp.run, pg_temp.access_entry;
DROP FUNCTION pg_temp.mallorys();

-- ---------- Names that are SQL ----------

CREATE ROLE "regress_""; DROP TABLE trigger_idem.run; --";
SELECT trigger_idem.access_grant('"regress_""; DROP TABLE trigger_idem.run; --"'::regrole, 'trigger');
SELECT role FROM trigger_idem.grants WHERE role LIKE '%DROP%';
SELECT trigger_idem.access_revoke('"regress_""; DROP TABLE trigger_idem.run; --"'::regrole, 'trigger');
DROP ROLE "regress_""; DROP TABLE trigger_idem.run; --";
SET ROLE regress_mallory;
SELECT is_cached FROM trigger_idem.trigger_task('attack_victims', '"''; DROP TABLE trigger_idem.run; --"', '''; DROP TABLE trigger_idem.run; --', queue => '''; DROP TABLE trigger_idem.run; --', tags => ARRAY['''; DROP']);
RESET ROLE;
SELECT count(*) FROM trigger_idem.runs WHERE queue LIKE '%DROP TABLE%';

-- ---------- Code of users that our functions call ----------

-- a cast to json of a type of hers is called as the role of the step, not as the owner of the extension
SET ROLE regress_mallory;
CREATE TYPE attack_test.tricky AS ENUM ('a');
CREATE FUNCTION attack_test.tricky_to_json(attack_test.tricky) RETURNS json LANGUAGE sql AS $$ SELECT to_json('as ' || current_user) $$;
CREATE CAST (attack_test.tricky AS json) WITH FUNCTION attack_test.tricky_to_json(attack_test.tricky);
CREATE FUNCTION attack_test.returns_tricky(idempotency_key text) RETURNS attack_test.tricky LANGUAGE sql AS $$ SELECT 'a'::attack_test.tricky $$;
SELECT trigger_idem.run_once('tricky', 'attack_test.returns_tricky', scope => 'global');
-- a trigger on a table of hers that our SQL never reaches
CREATE TABLE attack_test.own (a int);
CREATE FUNCTION attack_test.own_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'trigger as %', current_user; RETURN NEW; END $$;
CREATE TRIGGER own BEFORE INSERT ON attack_test.own FOR EACH ROW EXECUTE FUNCTION attack_test.own_trigger();
SELECT trigger_idem.run_once_sql('own trigger', 'INSERT INTO attack_test.own VALUES (1) RETURNING a', scope => 'global');
-- nor does a step leave her as somebody else when it fails
CREATE FUNCTION attack_test.fails(idempotency_key text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'failed as %', current_user; END $$;
SELECT helper.error_of($$SELECT trigger_idem.run_once('fails', 'attack_test.fails', scope => 'global')$$);
SELECT current_user;
RESET ROLE;

-- ---------- Prepared transactions ----------

SELECT run_id AS entered FROM trigger_idem.trigger_task('attack_victims', queue => 'attack_prepared') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'attack_prepared');
BEGIN;
SELECT trigger_idem.run_enter(:'entered', 1);
PREPARE TRANSACTION 'attack';
BEGIN;
SELECT trigger_idem.run_complete(:'entered', 1);
PREPARE TRANSACTION 'attack';
-- a key that is held by a prepared transaction is held
BEGIN;
SELECT is_cached FROM trigger_idem.trigger_task('attack_victims', NULL, 'prepared key');
PREPARE TRANSACTION 'attack';
SET lock_timeout = '1ms';
SELECT left(helper.error_of($$SELECT trigger_idem.trigger_task('attack_victims', NULL, 'prepared key')$$), 5) AS error;
RESET lock_timeout;
ROLLBACK PREPARED 'attack';
SELECT is_cached FROM trigger_idem.trigger_task('attack_victims', NULL, 'prepared key');

-- everything of the victim is as it was
SELECT task_id, status, payload FROM trigger_idem.runs WHERE run_id IN (:'run', :'closed', :'handled') ORDER BY run_id;
SELECT step, output FROM trigger_idem.steps WHERE step[1] = 'attack step';
SELECT owner, run_as FROM trigger_idem.tasks WHERE task_id IN ('attack_victims', 'attack_handled');
SELECT role, access, task_id FROM trigger_idem.grants WHERE role IN ('regress_victim', 'regress_mallory', 'regress_accomplice') ORDER BY 1, 2, 3;
SELECT environment, role FROM trigger_idem.environments WHERE environment = 'attack_closed';

-- nothing is left behind
SELECT trigger_idem.schedule_drop('attack_schedule');
SELECT count(trigger_idem.run_cancel(run_id)) > 0 AS canceled FROM trigger_idem.runs WHERE task_id LIKE 'attack\_%';
SELECT trigger_idem.environment_drop('attack_closed');
DELETE FROM trigger_idem.global_step WHERE role IN ('regress_victim', 'regress_mallory');
SELECT trigger_idem.task_drop(task_id) FROM trigger_idem.tasks WHERE task_id LIKE 'attack\_%';
DELETE FROM trigger_idem.idempotency_group WHERE idempotency_group = 'attack_group';
SET client_min_messages = warning;
DROP SCHEMA attack_test CASCADE;
DROP OWNED BY regress_victim, regress_mallory, regress_accomplice;
DROP ROLE regress_victim, regress_mallory, regress_accomplice;
DELETE FROM trigger_idem.access_entry WHERE role LIKE 'regress%';
