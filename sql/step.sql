-- Steps: run_once(), run_once_sql(), run_once_local_only().

CREATE SCHEMA step_test;

-- a step is done once per run, its output comes back
CREATE PROCEDURE step_test.memoised() LANGUAGE plpgsql AS $$
DECLARE
	first jsonb;
	again jsonb;
BEGIN
	first := trigger_idem.run_once('step', 'helper.callback', '{"n": 1}');
	again := trigger_idem.run_once('step', 'helper.callback', '{"n": 2}');
	INSERT INTO helper.log (line) VALUES (format('%s, then %s', first, again));
	COMMIT;
	again := trigger_idem.run_once('step', 'helper.callback', '{"n": 3}');
	INSERT INTO helper.log (line) VALUES (format('attempt %s after COMMIT: %s', trigger_idem.current_attempt(), again));
	COMMIT;
	IF trigger_idem.current_attempt() = 1 THEN
		RAISE EXCEPTION 'let us try again';
	END IF;
END $$;
SELECT trigger_idem.task_create('step_memoised', 'step_test.memoised', queue => 'step_test', min_backoff => '0');
SELECT status FROM trigger_idem.trigger_task('step_memoised');
CALL trigger_idem.work('step_test');
CALL helper.show_log();
SELECT step, key, s.output, s.attempt, scope FROM trigger_idem.steps s JOIN trigger_idem.runs r USING (run_id) WHERE task_id = 'step_memoised';
SELECT a.attempt, a.status, steps_done, steps_replayed FROM trigger_idem.attempts a JOIN trigger_idem.runs r USING (run_id)
WHERE task_id = 'step_memoised' ORDER BY 1;

-- results of all kinds; SQL's null is remembered too
CREATE FUNCTION step_test.returns_void(idempotency_key text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN INSERT INTO helper.log (line) VALUES ('void called'); END $$;
CREATE FUNCTION step_test.returns_null(idempotency_key text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN INSERT INTO helper.log (line) VALUES ('null called'); RETURN NULL; END $$;
CREATE FUNCTION step_test.returns_row(idempotency_key text, OUT a int, OUT b text[]) LANGUAGE sql AS $$ SELECT 1, '{x,y}'::text[] $$;
CREATE FUNCTION step_test.returns_numeric(idempotency_key text) RETURNS numeric LANGUAGE sql AS 'SELECT 1.50';
CREATE FUNCTION step_test.returns_table_row(idempotency_key text) RETURNS helper.log LANGUAGE sql AS $$ SELECT 7::bigint, 'seven' $$;
CREATE FUNCTION step_test.returns_big(idempotency_key text) RETURNS text LANGUAGE sql AS $$ SELECT repeat('big ', 100000) $$;
CREATE FUNCTION step_test.returns_key(idempotency_key text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION step_test.results() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	callback text;
	output jsonb;
BEGIN
	FOREACH callback IN ARRAY '{void,"null",row,numeric,table_row,big}'::text[] LOOP
		FOR i IN 1 .. 2 LOOP
			output := trigger_idem.run_once(callback, ('step_test.returns_' || callback)::regproc);
			INSERT INTO helper.log (line) VALUES (format('%s: %s', callback,
				coalesce(left(output::text, 60), 'SQL null')));
		END LOOP;
	END LOOP;
	-- a command, with the key as $1 and the arguments as $2
	INSERT INTO helper.log (line) VALUES
		(trigger_idem.run_once_sql('command', 'SELECT length($1) + ($2->>''n'')::int', '{"n": 1}')::text),
		(trigger_idem.run_once_sql('command', 'SELECT no such thing', '{"n": 5}')::text),
		(coalesce(trigger_idem.run_once_sql('utility', 'CREATE TABLE step_test.made (a int)')::text, 'SQL null')),
		(trigger_idem.run_once_sql('insert', 'INSERT INTO step_test.made SELECT generate_series(10, 19) RETURNING a')::text),
		(coalesce(trigger_idem.run_once_sql('no rows', 'SELECT 1 WHERE false')::text, 'SQL null')),
		(coalesce(trigger_idem.run_once_sql('no columns', 'SELECT')::text, 'SQL null')),
		(coalesce(trigger_idem.run_once_local_only('no output', 'step_test.returns_null')::text, 'SQL null'));
END $$;
SELECT trigger_idem.task_create('step_results', 'step_test.results', queue => 'step_test');
SELECT status FROM trigger_idem.trigger_task('step_results');
CALL trigger_idem.work('step_test');
CALL helper.show_log();
SELECT count(*) FROM step_test.made;
SELECT key, left(s.output::text, 40) AS output FROM trigger_idem.steps s JOIN trigger_idem.runs r USING (run_id)
WHERE task_id = 'step_results' ORDER BY s.started_at;

-- a step in a callback is a step of that step
CREATE FUNCTION step_test.inner(idempotency_key text, args jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES ('inner ' || args::text);
	RETURN args;
END $$;
CREATE FUNCTION step_test.outer(idempotency_key text, args jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN jsonb_build_array(args, trigger_idem.run_once('same', 'step_test.inner', args || '{"in": 1}'),
		trigger_idem.run_once('same', 'step_test.inner', args || '{"in": 2}'));
END $$;
CREATE FUNCTION step_test.recursive(idempotency_key text, args jsonb) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE WHEN (args->>'n')::int = 0 THEN 1
		ELSE (args->>'n')::int * trigger_idem.run_once('factorial', 'step_test.recursive', jsonb_build_object('n', (args->>'n')::int - 1))::int END;
END $$;
CREATE FUNCTION step_test.nested() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN jsonb_build_array(
		trigger_idem.run_once('same', 'step_test.outer', '{"out": 1}'),
		trigger_idem.run_once('other', 'step_test.outer', '{"out": 2}'),
		trigger_idem.run_once('factorial', 'step_test.recursive', '{"n": 5}'));
END $$;
SELECT trigger_idem.task_create('step_nested', 'step_test.nested', queue => 'step_test');
SELECT status FROM trigger_idem.trigger_task('step_nested');
CALL trigger_idem.work('step_test');
CALL helper.show_log();
SELECT output FROM trigger_idem.runs WHERE task_id = 'step_nested';
SELECT step, s.output, count(*) OVER (PARTITION BY s.idempotency_key) AS steps_with_this_key
FROM trigger_idem.steps s JOIN trigger_idem.runs r USING (run_id) WHERE task_id = 'step_nested' ORDER BY step;

-- an error passes through, and a rolled-back savepoint forgets its steps and no others
CREATE FUNCTION step_test.fails(idempotency_key text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES ('never seen');
	RETURN 1 / 0;
END $$;
CREATE FUNCTION step_test.savepoints() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('before', 'helper.callback', '"before"');
	BEGIN
		PERFORM trigger_idem.run_once('kept by inner block', 'helper.callback', '"kept"');
	EXCEPTION WHEN OTHERS THEN NULL;
	END;
	BEGIN
		PERFORM trigger_idem.run_once('forgotten', 'helper.callback', '"first time"');
		BEGIN
			PERFORM trigger_idem.run_once('forgotten too', 'helper.callback', '"first time"');
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
		PERFORM trigger_idem.run_once('fails', 'step_test.fails');
	EXCEPTION WHEN division_by_zero THEN
		INSERT INTO helper.log (line) VALUES (SQLSTATE || ' passed through');
	END;
	PERFORM trigger_idem.run_once(key, 'helper.callback', '"second time"')
	FROM unnest('{before,kept by inner block,forgotten,forgotten too}'::text[]) key;
END $$;
SELECT trigger_idem.task_create('step_savepoints', 'step_test.savepoints', queue => 'step_test');
SELECT status FROM trigger_idem.trigger_task('step_savepoints');
CALL trigger_idem.work('step_test');
CALL helper.show_log();
SELECT step, s.output FROM trigger_idem.steps s JOIN trigger_idem.runs r USING (run_id) WHERE task_id = 'step_savepoints' ORDER BY s.started_at;

-- a step's key is stable over attempts and different in every run
CREATE FUNCTION step_test.log_key(idempotency_key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once_sql('keep', format('SELECT %L::text', idempotency_key));
	RETURN idempotency_key;
END $$;
CREATE TABLE step_test.keys (run_id uuid, attempt int, kind text, key text);
CREATE PROCEDURE step_test.stable() LANGUAGE plpgsql AS $$
BEGIN
	-- local_only calls every time with the key that run_once would use
	INSERT INTO step_test.keys SELECT trigger_idem.current_run_id(), trigger_idem.current_attempt(), 'local',
		trigger_idem.run_once_local_only('k', 'step_test.returns_key') #>> '{}';
	INSERT INTO step_test.keys SELECT trigger_idem.current_run_id(), trigger_idem.current_attempt(), 'local',
		trigger_idem.run_once_local_only('k', 'step_test.returns_key') #>> '{}';
	-- keys of the scopes run and attempt, computed in the run
	INSERT INTO step_test.keys SELECT trigger_idem.current_run_id(), trigger_idem.current_attempt(), scope,
		trigger_idem.idempotency_key_create('x', scope) FROM unnest('{run,attempt,global}'::text[]) scope;
	COMMIT;
	IF trigger_idem.current_attempt() = 1 THEN
		RAISE EXCEPTION 'again';
	END IF;
	INSERT INTO step_test.keys SELECT trigger_idem.current_run_id(), trigger_idem.current_attempt(), 'once',
		trigger_idem.run_once('k', 'step_test.returns_key') #>> '{}';
END $$;
SELECT trigger_idem.task_create('step_stable', 'step_test.stable', queue => 'step_test', min_backoff => '0');
SELECT status FROM trigger_idem.trigger_task('step_stable');
SELECT status FROM trigger_idem.trigger_task('step_stable');
CALL trigger_idem.work('step_test');
SELECT CASE WHEN kind IN ('local', 'once') THEN 'step' ELSE kind END AS kind, count(DISTINCT run_id) AS runs, count(*) AS calls, count(DISTINCT key) AS keys
FROM step_test.keys GROUP BY 1 ORDER BY 1;
SELECT DISTINCT key = trigger_idem.idempotency_key_create('x', kind, run_id, attempt) AS same_as_with_arguments
FROM step_test.keys WHERE kind IN ('run', 'attempt', 'global');
SELECT count(*) AS stored FROM trigger_idem.steps s JOIN trigger_idem.runs r USING (run_id) WHERE task_id = 'step_stable';

-- scope global: once per environment and role, inside a run or outside
SELECT trigger_idem.run_once('global step', 'helper.callback', '1', 'global');
SELECT trigger_idem.run_once('global step', 'helper.callback', '2', 'global');
CREATE FUNCTION step_test.global() RETURNS jsonb LANGUAGE sql AS $$
	SELECT trigger_idem.run_once('global step', 'helper.callback', '3', 'global') $$;
SELECT trigger_idem.task_create('step_global', 'step_test.global', queue => 'step_test');
SELECT status FROM trigger_idem.trigger_task('step_global');
CALL trigger_idem.work('step_test');
SELECT output FROM trigger_idem.runs WHERE task_id = 'step_global';
-- also inside a step of the run, of which it is no part
CREATE FUNCTION step_test.global_inside(idempotency_key text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT trigger_idem.run_once('global step', 'helper.callback', '3', 'global') $$;
CREATE FUNCTION step_test.global_nested() RETURNS jsonb LANGUAGE sql AS $$
	SELECT trigger_idem.run_once('step of the run', 'step_test.global_inside') $$;
SELECT trigger_idem.task_create('step_global', 'step_test.global_nested', queue => 'step_test');
SELECT status FROM trigger_idem.trigger_task('step_global', '"nested"');
CALL trigger_idem.work('step_test');
SELECT output FROM trigger_idem.runs WHERE task_id = 'step_global' AND payload = '"nested"';
SELECT step, scope FROM trigger_idem.steps s JOIN trigger_idem.runs r USING (run_id) WHERE task_id = 'step_global';
SELECT trigger_idem.environment_create('step_environment');
SET trigger_idem.environment = 'step_environment';
SELECT trigger_idem.run_once('global step', 'helper.callback', '4', 'global');
RESET trigger_idem.environment;
BEGIN;
SELECT trigger_idem.run_once('rolled back', 'helper.callback', '5', 'global');
SELECT trigger_idem.run_once('rolled back', 'helper.callback', '6', 'global');
ROLLBACK;
SELECT trigger_idem.run_once('rolled back', 'helper.callback', '7', 'global');
CALL helper.show_log();
SELECT trigger_idem.run_once('expiring', 'helper.callback', '1', 'global', '1 hour');
UPDATE trigger_idem.global_step SET expires_at = now() WHERE path = '{expiring}';
SELECT trigger_idem.run_once('expiring', 'helper.callback', '2', 'global', '1 hour');
SELECT trigger_idem.run_once('expiring', 'helper.callback', '3', 'global');
CREATE FUNCTION step_test.global_in_global(idempotency_key text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT trigger_idem.run_once('in itself', 'helper.callback', '"inner"', 'global') $$;
SELECT trigger_idem.run_once('in itself', 'step_test.global_in_global', scope => 'global');
SELECT step, output, run_id IS NULL AS outside, expires_at - finished_at AS ttl, scope FROM trigger_idem.steps
WHERE scope = 'global' ORDER BY step, output::text;
CALL helper.show_log();

-- a changed callback is called as it is now; privileges are checked at every call
CREATE FUNCTION step_test.changing(idempotency_key text) RETURNS text LANGUAGE sql AS $$ SELECT 'old' $$;
SELECT trigger_idem.run_once('changing 1', 'step_test.changing', scope => 'global');
CREATE OR REPLACE FUNCTION step_test.changing(idempotency_key text) RETURNS text LANGUAGE sql AS $$ SELECT 'new' $$;
SELECT trigger_idem.run_once('changing 2', 'step_test.changing', scope => 'global');
DROP FUNCTION step_test.changing;
CREATE FUNCTION step_test.changing(idempotency_key text, args jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT $2 $$;
SELECT trigger_idem.run_once('changing 3', 'step_test.changing', '"other signature"', scope => 'global');
CREATE ROLE regress_stepper;
GRANT USAGE ON SCHEMA step_test, helper TO regress_stepper;
SELECT trigger_idem.access_grant('regress_stepper', 'trigger');
REVOKE EXECUTE ON FUNCTION step_test.changing FROM PUBLIC;
SET ROLE regress_stepper;
SELECT helper.error_of($$SELECT trigger_idem.run_once('forbidden', 'step_test.changing', scope => 'global')$$);
SELECT trigger_idem.run_once('changing 1', 'step_test.returns_numeric', scope => 'global') AS another_role_another_step;
RESET ROLE;
DROP OWNED BY regress_stepper;
DROP ROLE regress_stepper;

-- one in SQL is planned for who calls it, and as things are then
CREATE ROLE regress_reader;
CREATE TABLE step_test.secret AS SELECT n FROM generate_series(1, 3) n;
ALTER TABLE step_test.secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY one_row ON step_test.secret USING (n = 1);
CREATE VIEW step_test.seen AS SELECT 'before' AS seen;
GRANT USAGE ON SCHEMA step_test TO regress_reader;
GRANT SELECT ON step_test.secret, step_test.seen TO regress_reader;
SELECT trigger_idem.access_grant('regress_reader', 'trigger');
CREATE FUNCTION step_test.reads_secret(idempotency_key text) RETURNS text LANGUAGE sql AS
	$$ SELECT count(*) || ' ' || (SELECT seen FROM step_test.seen) FROM step_test.secret $$;
BEGIN;
SELECT trigger_idem.run_once('planned 1', 'step_test.reads_secret', scope => 'global');
CREATE OR REPLACE VIEW step_test.seen AS SELECT 'after' AS seen;
SET LOCAL ROLE regress_reader;
SELECT trigger_idem.run_once('planned 2', 'step_test.reads_secret', scope => 'global');
COMMIT;
DROP OWNED BY regress_reader;
DROP ROLE regress_reader;

-- what is remembered of callbacks that are gone is forgotten, but for one that is being called and has changed itself
CREATE FUNCTION step_test.makes_callbacks(idempotency_key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	ALTER FUNCTION step_test.makes_callbacks COST 10;
	FOR i IN 1 .. 600 LOOP
		EXECUTE format('CREATE FUNCTION step_test.gone_%s(idempotency_key text) RETURNS int LANGUAGE plpgsql AS ''BEGIN RETURN 1; END''', i);
		PERFORM trigger_idem.run_once('gone ' || i, ('step_test.gone_' || i)::regproc, scope => 'global');
		EXECUTE format('DROP FUNCTION step_test.gone_%s', i);
	END LOOP;
	RETURN 'made';
END $$;
BEGIN;
SELECT trigger_idem.run_once('makes callbacks', 'step_test.makes_callbacks', scope => 'global');
SELECT count(*) BETWEEN 1 AND 300 AS forgotten FROM pg_backend_memory_contexts WHERE name = 'trigger_idem callback';
COMMIT;

-- a handler is no callback, though it was called before
CREATE FUNCTION step_test.handles(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
SELECT trigger_idem.task_create('step_handles', 'step_test.handles', queue => 'step_test');
SELECT status FROM trigger_idem.trigger_task('step_handles');
CALL trigger_idem.work('step_test');
SELECT helper.error_of($$SELECT trigger_idem.run_once('handles', 'step_test.handles', scope => 'global')$$);

-- where the memo could not be stored, the callback is not called
BEGIN READ ONLY;
SELECT trigger_idem.run_once('global step', 'helper.callback', '8', 'global');
SELECT helper.error_of($$SELECT trigger_idem.run_once('new in read only', 'helper.callback', '9', 'global')$$);
COMMIT;
CREATE PROCEDURE step_test.read_only() LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	SET TRANSACTION READ ONLY;
	PERFORM trigger_idem.run_once('new in read only', 'step_test.returns_numeric');
END $$;
SELECT trigger_idem.task_create('step_read_only', 'step_test.read_only', queue => 'step_test', max_attempts => 1);
SELECT status FROM trigger_idem.trigger_task('step_read_only');
CALL trigger_idem.work('step_test');
SELECT status, error->>'code' AS code, error->>'message' AS message FROM trigger_idem.runs WHERE task_id = 'step_read_only';

-- what cannot be
CREATE FUNCTION step_test.strict(idempotency_key text) RETURNS int STRICT LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION step_test.set(idempotency_key text) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION step_test.no_key() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION step_test.three_args(idempotency_key text, args jsonb, more jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION step_test.key_is_last(args jsonb, idempotency_key text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION step_test.text_args(idempotency_key text, args text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE step_test.procedure(idempotency_key text) LANGUAGE sql AS '';
SELECT helper.error_of('SELECT trigger_idem.' || call) AS error FROM (VALUES
	($$run_once('a', 'helper.callback')$$),
	($$run_once_sql('a', 'SELECT 1')$$),
	($$run_once_local_only('a', 'helper.callback')$$),
	($$run_once(NULL, 'helper.callback', scope => 'global')$$),
	($$run_once('', 'helper.callback', scope => 'global')$$),
	($$run_once(repeat('x', 2049), 'helper.callback', scope => 'global')$$),
	($$run_once('a', NULL, scope => 'global')$$),
	($$run_once('a', 0, scope => 'global')$$),
	($$run_once('a', 'step_test.gone', scope => 'global')$$),
	($$run_once('a', 'step_test.strict', scope => 'global')$$),
	($$run_once('a', 'step_test.set', scope => 'global')$$),
	($$run_once('a', 'step_test.no_key', scope => 'global')$$),
	($$run_once('a', 'step_test.three_args', scope => 'global')$$),
	($$run_once('a', 'step_test.key_is_last', scope => 'global')$$),
	($$run_once('a', 'step_test.text_args', scope => 'global')$$),
	($$run_once('a', 'step_test.procedure', scope => 'global')$$),
	($$run_once('a', 'helper.callback', scope => NULL)$$),
	($$run_once('a', 'helper.callback', scope => 'attempt')$$),
	($$run_once('a', 'helper.callback', scope => 'always')$$),
	($$run_once('a', 'helper.callback', ttl => '1 hour')$$),
	($$run_once('a', 'helper.callback', scope => 'global', ttl => '0')$$),
	($$run_once('a', 'helper.callback', scope => 'global', ttl => '-1 day')$$),
	($$run_once_sql('a', NULL, scope => 'global')$$),
	($$run_once_sql('a', '', scope => 'global')$$),
	($$run_once_sql('a', 'SELECT 1; SELECT 2', scope => 'global')$$),
	($$run_once_sql('a', 'SELEC 1', scope => 'global')$$),
	($$run_once_sql('a', 'COMMIT', scope => 'global')$$),
	($$run_once_sql('a', 'SAVEPOINT s', scope => 'global')$$),
	($$run_once_sql('a', 'COPY helper.log FROM STDIN', scope => 'global')$$)) v(call);
SELECT count(*) AS stored FROM trigger_idem.steps WHERE key = 'a';
SELECT trigger_idem.current_run_id(), trigger_idem.current_attempt();

-- a run that is entered and left while a global step is made does not end that step
SELECT trigger_idem.task_create('step_entered', queue => 'step_entered');
SELECT FROM trigger_idem.trigger_task('step_entered');
SELECT run_id FROM trigger_idem.run_claim('w', 'step_entered') \gset
CREATE FUNCTION step_test.enters(idempotency_key text, args jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM trigger_idem.run_enter((args #>> '{}')::uuid, 1);
		PERFORM trigger_idem.run_once('of the run', 'helper.callback');
	EXCEPTION WHEN division_by_zero THEN
	END;
	RETURN trigger_idem.run_once('inner', 'helper.callback', scope => 'global');
END $$;
BEGIN;
SELECT trigger_idem.run_once('enters', 'step_test.enters', to_jsonb(:'run_id'::text), 'global');
COMMIT;
SELECT path FROM trigger_idem.global_step WHERE 'inner' = ANY (path);
SELECT step FROM trigger_idem.steps WHERE run_id = :'run_id';
SELECT trigger_idem.run_cancel(:'run_id');
DELETE FROM helper.log;
