-- What the fuzz works with: roles, handlers and callbacks, and runs, tokens and
-- schedules in every state.  fuzz.py runs this in a new database, as a superuser.

CREATE EXTENSION trigger_idem;

CREATE ROLE fuzz_user LOGIN;
CREATE ROLE fuzz_other LOGIN;
CREATE ROLE fuzz_nobody NOLOGIN;
CREATE ROLE fuzz_super LOGIN SUPERUSER;
GRANT fuzz_other TO fuzz_user;
-- what is granted to this role is out of reach of the calls, which do not name it
CREATE ROLE fuzz_everything;
GRANT fuzz_everything TO fuzz_user, fuzz_other;
GRANT USAGE ON SCHEMA trigger_idem TO fuzz_everything;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA trigger_idem TO fuzz_everything;
SELECT trigger_idem.access_grant('fuzz_everything', 'admin');
SELECT trigger_idem.access_grant('fuzz_everything', 'work');
-- the views are for everybody, the tables for nobody
DO $$
DECLARE
	view regclass;
BEGIN
	FOR view IN SELECT oid FROM pg_class WHERE relnamespace = 'trigger_idem'::regnamespace AND relkind = 'v' LOOP
		EXECUTE format('GRANT SELECT ON %s TO fuzz_everything', view);
	END LOOP;
END $$;

CREATE SCHEMA fuzz;
GRANT USAGE ON SCHEMA fuzz TO PUBLIC;

-- Run a command and say how it ended.
CREATE FUNCTION fuzz.try(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RAISE NOTICE 'fuzz 00000 none' USING DETAIL = command;
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE 'fuzz % %', SQLSTATE, SQLERRM USING DETAIL = command;
END $$;

-- Run the commands of a payload, {"commands": [...], "catch": true}.
CREATE FUNCTION fuzz.run(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	command text;
BEGIN
	IF pg_catalog.jsonb_typeof(payload) <> 'object' OR pg_catalog.jsonb_typeof(payload->'commands') <> 'array' THEN
		RETURN;
	END IF;
	FOR command IN SELECT pg_catalog.jsonb_array_elements_text(payload->'commands') LOOP
		IF payload->>'catch' = 'true' THEN
			PERFORM fuzz.try(command);
		ELSE
			EXECUTE command;
			RAISE NOTICE 'fuzz 00000 none' USING DETAIL = command;
		END IF;
	END LOOP;
END $$;

-- Handlers
CREATE FUNCTION fuzz.handler(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM fuzz.run(payload);
	RETURN payload;
END $$;

CREATE PROCEDURE fuzz.handler_that_commits(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	command text;
BEGIN
	IF pg_catalog.jsonb_typeof(payload) = 'object' AND pg_catalog.jsonb_typeof(payload->'commands') = 'array' THEN
		FOR command IN SELECT pg_catalog.jsonb_array_elements_text(payload->'commands') LOOP
			PERFORM fuzz.try(command);
			COMMIT;
		END LOOP;
	END IF;
END $$;

CREATE FUNCTION fuzz.handler_without_payload() RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION fuzz.handler_that_fails(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the handler fails' USING ERRCODE = 'FZ001'; END $$;

-- Callbacks
CREATE FUNCTION fuzz.callback(idempotency_key text, args jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM fuzz.run(args);
	RETURN args;
END $$;
CREATE FUNCTION fuzz.callback_of_key(idempotency_key text) RETURNS text[] LANGUAGE sql AS 'SELECT ARRAY[$1, NULL]';
CREATE FUNCTION fuzz.callback_void(idempotency_key text) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION fuzz.callback_that_fails(idempotency_key text, args jsonb) RETURNS record LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the callback fails' USING ERRCODE = 'FZ001'; END $$;
CREATE FUNCTION fuzz.callback_row(idempotency_key text, OUT a int, OUT b float8) LANGUAGE sql AS $$SELECT 1, 'NaN'::float8$$;

-- What can be neither
CREATE FUNCTION fuzz.strict(text, jsonb) RETURNS text STRICT LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION fuzz.set(jsonb) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION fuzz.twice(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION fuzz.twice(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION fuzz.polymorphic(anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION fuzz.variadic(VARIADIC text[]) RETURNS text LANGUAGE sql AS 'SELECT $1[1]';
CREATE FUNCTION fuzz.a_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION fuzz.an_event_trigger() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE PROCEDURE fuzz.with_inout(INOUT payload jsonb) LANGUAGE plpgsql AS 'BEGIN END';
CREATE AGGREGATE fuzz.an_aggregate(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);
CREATE FUNCTION fuzz.not_granted(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
REVOKE ALL ON FUNCTION fuzz.not_granted FROM PUBLIC;

-- An object of each kind that is gone: its OID is kept
CREATE TABLE fuzz.gone (kind text, oid oid);
GRANT SELECT ON fuzz.gone TO PUBLIC;
CREATE FUNCTION fuzz.dropped(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
INSERT INTO fuzz.gone VALUES ('function', 'fuzz.dropped'::regproc);
DROP FUNCTION fuzz.dropped;
CREATE ROLE fuzz_dropped;
INSERT INTO fuzz.gone VALUES ('role', 'fuzz_dropped'::regrole);
DROP ROLE fuzz_dropped;

-- Environments and tasks, each with the role that makes it, once more when it was dropped
CREATE TABLE fuzz.make (kind text, name text, role name, command text);
GRANT SELECT ON fuzz.make TO PUBLIC;
INSERT INTO fuzz.make SELECT kind, name, role, 'SELECT trigger_idem.' || command FROM (VALUES
	('environment', 'fuzz open', 'fuzz_super', $$environment_create('fuzz open')$$),
	('environment', 'fuzz closed', 'fuzz_super', $$environment_create('fuzz closed', 'fuzz_nobody')$$),
	('environment', 'fuzz user', 'fuzz_super', $$environment_create('fuzz user', 'fuzz_user')$$),
	('task', 'super', 'fuzz_super', $$task_create('super', 'fuzz.handler')$$),
	('task', 'super commits', 'fuzz_super', $$task_create('super commits', 'fuzz.handler_that_commits', min_backoff => '0')$$),
	('task', 'super outside', 'fuzz_super', $$task_create('super outside', lease_duration => '1 second', min_backoff => '0')$$),
	('task', 'function', 'fuzz_user', $$task_create('function', 'fuzz.handler', min_backoff => '0', max_duration => '200 ms')$$),
	('task', 'commits', 'fuzz_user', $$task_create('commits', 'fuzz.handler_that_commits', min_backoff => '0', backoff_jitter => false)$$),
	('task', 'no payload', 'fuzz_user', $$task_create('no payload', 'fuzz.handler_without_payload', idempotency_key_ttl => '1 ms')$$),
	('task', 'fails', 'fuzz_user', $$task_create('fails', 'fuzz.handler_that_fails', max_attempts => 2, min_backoff => '0')$$),
	('task', 'outside', 'fuzz_user', $$task_create('outside', min_backoff => '0', lease_duration => '1 second', release_key_on => '{}')$$),
	('task', 'limited', 'fuzz_user', $$task_create('limited', queue => 'fuzz limited', concurrency_limit => 1, max_attempts => 10000)$$),
	('task', 'grouped', 'fuzz_user', $$task_create('grouped', on_payload_mismatch => 'error', idempotency_group => 'fuzz group')$$),
	('task', 'keyed', 'fuzz_user', $$task_create('keyed', idempotency_group => 'fuzz group', idempotency_key_required => true,
		release_key_on => '{completed,failed,crashed,timed_out,canceled,expired}')$$)) v(kind, name, role, command);
-- The commands for what the current role is to make again
CREATE VIEW fuzz.missing AS
SELECT m.command, m.role FROM fuzz.make m
WHERE (m.kind, m.name) NOT IN (SELECT 'task', task_id FROM trigger_idem.task WHERE dropped_at IS NULL
	UNION ALL SELECT 'environment', environment FROM trigger_idem.environment);
GRANT SELECT ON fuzz.missing TO PUBLIC;
DO $$
DECLARE
	missing record;
BEGIN
	FOR missing IN SELECT * FROM fuzz.missing LOOP
		PERFORM set_config('role', missing.role, true);
		EXECUTE missing.command;
	END LOOP;
END $$;
RESET ROLE;

SET SESSION AUTHORIZATION fuzz_user;
SELECT trigger_idem.schedule_create('fuzz minute', '* * * * *', 'function', '{"a": 1}', 'all', cron_job => false);
SELECT trigger_idem.schedule_create('fuzz never', '0 0 31 2 *', 'outside', cron_job => false);
SELECT trigger_idem.wait_token_create('fuzz token', timeout => '1 hour');
RESET SESSION AUTHORIZATION;

-- Nothing may block for long, and the log needs no texts of statements.
DO $$
BEGIN
	EXECUTE format('ALTER DATABASE %I SET statement_timeout = 100', current_database());
	EXECUTE format('ALTER DATABASE %I SET lock_timeout = 80', current_database());
	EXECUTE format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = 60000', current_database());
	-- compiling takes longer than most calls
	EXECUTE format('ALTER DATABASE %I SET jit = off', current_database());
	EXECUTE format('ALTER DATABASE %I SET log_min_error_statement = panic', current_database());
	EXECUTE format('ALTER DATABASE %I SET lc_messages = %L', current_database(), 'C');
END $$;
