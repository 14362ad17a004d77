-- CALL work(): claiming, handlers, failures, retries.

CREATE SCHEMA work_test;
CREATE VIEW work_test.outcome AS
SELECT task_id, r.status, r.output, r.error, a.attempt, a.status AS attempt_status, a.error AS attempt_error
FROM trigger_idem.runs r JOIN trigger_idem.attempts a USING (run_id);

-- functions and procedures, with a payload and without
CREATE FUNCTION work_test.nothing() RETURNS void LANGUAGE plpgsql AS $$
BEGIN INSERT INTO helper.log (line) VALUES ('nothing called'); END $$;
CREATE PROCEDURE work_test.procedure(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 3 LOOP
		INSERT INTO helper.log (line) VALUES (format('procedure %s, part %s', payload, i));
		COMMIT;
	END LOOP;
END $$;
CREATE PROCEDURE work_test.sql_procedure() LANGUAGE sql AS $$ INSERT INTO helper.log (line) VALUES ('SQL procedure called') $$;
CREATE FUNCTION work_test.returns_row(payload jsonb, OUT a int, OUT b text) LANGUAGE sql AS $$ SELECT 1, 'two' $$;
SELECT trigger_idem.task_create(task, ('work_test.' || task)::regproc, queue => 'work_shapes')
FROM unnest('{nothing,procedure,sql_procedure,returns_row}'::text[]) task;
SELECT trigger_idem.task_create('returns_payload', 'helper.handler', queue => 'work_shapes');
SELECT status FROM unnest('{nothing,procedure,sql_procedure,returns_row,returns_payload}'::text[]) task,
	LATERAL trigger_idem.trigger_task(task, jsonb_build_object('for', task));
SELECT status FROM trigger_idem.trigger_task('returns_payload');
CALL trigger_idem.work('work_shapes');
CALL helper.show_log();
SELECT task_id, status, output, error FROM trigger_idem.runs WHERE queue = 'work_shapes' ORDER BY created_at;
CALL trigger_idem.work('work_shapes');

-- an error leaves nothing behind but itself and what the handler had committed
CREATE FUNCTION work_test.fails(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES ('never seen');
	PERFORM trigger_idem.run_once('step', 'helper.callback');
	PERFORM trigger_idem.trigger_task('returns_payload', idempotency_key => 'never triggered');
	RAISE EXCEPTION 'it went wrong' USING ERRCODE = 'ZZ123', DETAIL = 'In detail.', HINT = 'Try harder.';
END $$;
CREATE PROCEDURE work_test.fails_late(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES ('committed by attempt ' || trigger_idem.current_attempt());
	COMMIT;
	INSERT INTO helper.log (line) VALUES ('never seen');
	PERFORM 1 / 0;
END $$;
CREATE FUNCTION work_test.aborts() RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'do not retry' USING ERRCODE = 'TI006'; END $$;
CREATE FUNCTION work_test.raises_57014() RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'not a cancel' USING ERRCODE = 'query_canceled'; END $$;
SELECT trigger_idem.task_create('fails', 'work_test.fails', queue => 'work_fails', max_attempts => 2, min_backoff => '0');
SELECT trigger_idem.task_create('fails_late', 'work_test.fails_late', queue => 'work_fails', max_attempts => 2, min_backoff => '0');
SELECT trigger_idem.task_create('aborts', 'work_test.aborts', queue => 'work_fails', max_attempts => 5);
SELECT trigger_idem.task_create('raises_57014', 'work_test.raises_57014', queue => 'work_fails', max_attempts => 1);
SELECT status FROM unnest('{fails,fails_late,aborts,raises_57014}'::text[]) task,
	LATERAL trigger_idem.trigger_task(task, idempotency_key => 'the key of ' || task);
CALL trigger_idem.work('work_fails');
CALL helper.show_log();
SELECT task_id, status, attempt, attempt_status, attempt_error FROM work_test.outcome
WHERE task_id IN ('fails', 'fails_late', 'aborts', 'raises_57014') ORDER BY task_id, attempt;
SELECT count(*) AS steps FROM trigger_idem.steps s JOIN trigger_idem.runs r USING (run_id) WHERE task_id = 'fails';
SELECT count(*) AS triggered FROM trigger_idem.runs WHERE idempotency_key = 'never triggered';
-- the failure released the key
SELECT is_cached FROM trigger_idem.trigger_task('fails', idempotency_key => 'the key of fails', delay => '1 day');

-- an error is never too large to be recorded
CREATE FUNCTION work_test.shouts() RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '%', repeat('ä', 1000000); END $$;
SELECT trigger_idem.task_create('shouts', 'work_test.shouts', queue => 'work_shouts', max_attempts => 1);
SELECT status FROM trigger_idem.trigger_task('shouts');
CALL trigger_idem.work('work_shouts');
SELECT status, octet_length(error->>'message') AS bytes FROM trigger_idem.runs WHERE task_id = 'shouts';

-- a timeout of the CALL ends it, whatever the handler makes of it, and is no max_duration
CREATE FUNCTION work_test.never_ends() RETURNS void LANGUAGE plpgsql AS 'BEGIN LOOP END LOOP; END';
CREATE FUNCTION work_test.hides_timeout() RETURNS void LANGUAGE plpgsql AS $$
BEGIN LOOP END LOOP; EXCEPTION WHEN query_canceled THEN RAISE EXCEPTION 'hidden'; END $$;
SELECT trigger_idem.task_create('never_ends', 'work_test.never_ends', queue => 'work_timeout', max_attempts => 1, max_duration => '1 hour');
SELECT trigger_idem.task_create('hides_timeout', 'work_test.hides_timeout', queue => 'work_timeout', max_attempts => 1);
SELECT status FROM unnest('{never_ends,hides_timeout,hides_timeout}'::text[]) WITH ORDINALITY t(task, n),
	LATERAL trigger_idem.trigger_task(task, to_jsonb(n));
SET statement_timeout = '1s';
CALL trigger_idem.work('work_timeout');
CALL trigger_idem.work('work_timeout');
RESET statement_timeout;
SELECT task_id, status, error->>'code' AS code FROM trigger_idem.runs WHERE queue = 'work_timeout' ORDER BY created_at;
-- the same in a group: the handler swallows the end of the time
CREATE FUNCTION work_test.swallows_timeout() RETURNS text LANGUAGE plpgsql AS $$
BEGIN LOOP END LOOP; EXCEPTION WHEN query_canceled THEN RETURN 'swallowed'; END $$;
SELECT trigger_idem.task_create('swallows_timeout', 'work_test.swallows_timeout', queue => 'work_swallows', max_duration => '1 minute');
SELECT count(trigger_idem.trigger_task('swallows_timeout')) FROM generate_series(1, 4);
SET statement_timeout = '1s';
SET trigger_idem.runs_per_commit = 2;
CALL trigger_idem.work('work_swallows');
RESET statement_timeout;
RESET trigger_idem.runs_per_commit;
SELECT status, count(*), bool_and(error IS NULL) AS without_error FROM trigger_idem.runs WHERE task_id = 'swallows_timeout' GROUP BY status ORDER BY status;
SELECT count(trigger_idem.run_cancel(run_id)) FROM trigger_idem.runs WHERE queue = 'work_swallows' AND status = 'queued';
-- and as long as there is time, it goes on
SELECT count(trigger_idem.trigger_task('returns_payload', queue => 'work_in_time')) FROM generate_series(1, 3);
SET statement_timeout = '1h';
CALL trigger_idem.work('work_in_time');
RESET statement_timeout;
SELECT trigger_idem.task_drop('hides_timeout');

-- who has caught the end of max_duration and then asks to wait has timed out
CREATE FUNCTION work_test.overruns_and_waits() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		LOOP END LOOP;
	EXCEPTION WHEN query_canceled THEN
	END;
	PERFORM trigger_idem.wait_for('an hour', '1 hour');
END $$;
SELECT trigger_idem.task_create('overruns_and_waits', 'work_test.overruns_and_waits', queue => 'work_overruns', max_duration => '10 ms');
SELECT status FROM trigger_idem.trigger_task('overruns_and_waits');
CALL trigger_idem.work('work_overruns');
SELECT status, attempt_status FROM work_test.outcome WHERE task_id = 'overruns_and_waits';
SELECT count(*) AS waits FROM trigger_idem.waits JOIN trigger_idem.runs USING (run_id) WHERE task_id = 'overruns_and_waits';

-- the key is kept where the task says so
SELECT trigger_idem.task_create('keeps_key', 'work_test.aborts', queue => 'work_keeps', release_key_on => '{}');
SELECT trigger_idem.task_create('frees_key', 'helper.handler', queue => 'work_keeps', release_key_on => '{completed}');
SELECT status FROM unnest('{keeps_key,frees_key}'::text[]) task, LATERAL trigger_idem.trigger_task(task, idempotency_key => 'k');
CALL trigger_idem.work('work_keeps');
SELECT is_cached, status FROM unnest('{keeps_key,frees_key}'::text[]) task, LATERAL trigger_idem.trigger_task(task, idempotency_key => 'k');

-- backoff: not before its time
SELECT trigger_idem.task_create('backs_off', 'work_test.fails', queue => 'work_backoff', min_backoff => '10 s',
	backoff_factor => 3, max_backoff => '25 s', backoff_jitter => false);
SELECT run_id FROM trigger_idem.trigger_task('backs_off') \gset
CALL trigger_idem.work('work_backoff');
CALL trigger_idem.work('work_backoff');
SELECT status, attempt, round(extract(epoch FROM run_at - finished_at)) AS backoff
FROM (SELECT r.status, r.attempt, r.run_at, a.finished_at FROM trigger_idem.runs r JOIN trigger_idem.attempts a USING (run_id, attempt) WHERE run_id = :'run_id') x;
UPDATE trigger_idem.queue_entry SET ord = now(), visible_from = now() WHERE run_id = :'run_id';
CALL trigger_idem.work('work_backoff');
SELECT status, attempt, round(extract(epoch FROM run_at - finished_at)) AS backoff
FROM (SELECT r.status, r.attempt, r.run_at, a.finished_at FROM trigger_idem.runs r JOIN trigger_idem.attempts a USING (run_id, attempt) WHERE run_id = :'run_id') x;
SELECT trigger_idem.task_create('backs_off', 'work_test.fails', queue => 'work_backoff', min_backoff => '10 s', max_attempts => 3);
UPDATE trigger_idem.queue_entry SET ord = now(), visible_from = now() WHERE run_id = :'run_id';
CALL trigger_idem.work('work_backoff');
SELECT status, attempt FROM trigger_idem.runs WHERE run_id = :'run_id';
-- with jitter: between half and whole
SELECT trigger_idem.task_create('jitters', 'work_test.fails', queue => 'work_jitter', min_backoff => '10 s');
SELECT count(DISTINCT run_id) FROM generate_series(1, 20) i, LATERAL trigger_idem.trigger_task('jitters', to_jsonb(i));
CALL trigger_idem.work('work_jitter');
SELECT count(*) AS runs, count(DISTINCT run_at - finished_at) > 1 AS they_differ,
	bool_and(run_at - finished_at BETWEEN '5 s' AND '10 s') AS in_range
FROM (SELECT r.run_at, a.finished_at FROM trigger_idem.runs r JOIN trigger_idem.attempts a USING (run_id, attempt) WHERE task_id = 'jitters') x;

-- deferred constraints belong to the attempt
CREATE TABLE work_test.parent (id int PRIMARY KEY);
CREATE TABLE work_test.child (parent int REFERENCES work_test.parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION work_test.violates() RETURNS void LANGUAGE sql AS 'INSERT INTO work_test.child VALUES (1)';
CREATE PROCEDURE work_test.violates_in_commit() LANGUAGE plpgsql AS $$
BEGIN INSERT INTO work_test.child VALUES (1); COMMIT; END $$;
SELECT trigger_idem.task_create('violates', 'work_test.violates', queue => 'work_deferred', max_attempts => 1);
SELECT trigger_idem.task_create('violates_in_commit', 'work_test.violates_in_commit', queue => 'work_deferred', max_attempts => 1);
SELECT status FROM unnest('{violates,violates_in_commit}'::text[]) task, LATERAL trigger_idem.trigger_task(task);
CALL trigger_idem.work('work_deferred');
SELECT task_id, status, error->>'code' AS code FROM trigger_idem.runs WHERE queue = 'work_deferred' ORDER BY 1;

-- settings that a handler changes end with it, the identity too
CREATE ROLE regress_impostor;
CREATE PROCEDURE work_test.changes_settings() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES (format('%s as %s', current_setting('work_mem'), current_user));
	SET work_mem = '77MB';
	SET search_path = work_test;
	SET application_name = 'changed by a handler';
	SET ROLE regress_impostor;
	COMMIT;
	RAISE NOTICE 'now %', current_user;
	RESET ROLE;
	SET SESSION AUTHORIZATION regress_impostor;
	COMMIT;
END $$;
SELECT trigger_idem.task_create('changes_settings', 'work_test.changes_settings', queue => 'work_settings');
SELECT status FROM trigger_idem.trigger_task('changes_settings');
SELECT status FROM trigger_idem.trigger_task('changes_settings');
SET work_mem = '5MB';
SET application_name = 'mine';
CALL trigger_idem.work('work_settings');
CALL helper.show_log();
SELECT current_setting('work_mem') AS work_mem, current_setting('application_name') AS application_name,
	current_schemas(false) @> '{public}' AS search_path, current_user = session_user AS same_user,
	current_user = 'regress_impostor' AS impostor;
SELECT status, error FROM trigger_idem.runs WHERE task_id = 'changes_settings';
RESET work_mem;
RESET application_name;
DROP ROLE regress_impostor;

-- settings that the session has made up: one that the handler resets, one that is gone,
-- for its prefix is that of the handler's language, which was not loaded before, and one
-- whose value that language does not accept
CREATE PROCEDURE work_test.resets_setting() LANGUAGE plpgsql AS 'BEGIN RESET work_test.made_up; COMMIT; END';
SELECT trigger_idem.task_create('resets_setting', 'work_test.resets_setting', queue => 'work_made_up');
SELECT status FROM trigger_idem.trigger_task('resets_setting');
SELECT status FROM trigger_idem.trigger_task('resets_setting');
\c
SET work_test.made_up = 'by the session';
SET plpgsql.made_up = 'by the session';
SET plpgsql.check_asserts = 'by the session';
CALL trigger_idem.work('work_made_up');
SELECT current_setting('work_test.made_up') AS made_up, current_setting('plpgsql.made_up', true) AS reserved;
SELECT status, error FROM trigger_idem.runs WHERE task_id = 'resets_setting';

-- what a handler leaves for the commit: in the last group of runs, and in the one before it
CREATE ROLE regress_impostor;
CREATE FUNCTION work_test.holds_cursor(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF payload ->> 'n' IN ('2', '4') THEN
		EXECUTE format('DECLARE held_%s CURSOR WITH HOLD FOR SELECT set_config(''work_mem'', ''77MB'', false), set_config(''role'', ''regress_impostor'', false)', payload ->> 'n');
	END IF;
	RETURN current_setting('work_mem') || CASE current_user WHEN 'regress_impostor' THEN ' impostor' ELSE '' END;
END $$;
SELECT trigger_idem.task_create('holds_cursor', 'work_test.holds_cursor', queue => 'work_held', max_attempts => 2);
SELECT count(trigger_idem.trigger_task('holds_cursor', jsonb_build_object('n', n))) FROM generate_series(1, 4) n;
SET work_mem = '5MB';
SET trigger_idem.runs_per_commit = 2;
CALL trigger_idem.work('work_held');
RESET trigger_idem.runs_per_commit;
SELECT current_setting('work_mem') AS work_mem, current_user = 'regress_impostor' AS impostor, (SELECT count(*) FROM pg_cursors WHERE is_holdable) AS held;
RESET work_mem;
SELECT payload -> 'n' AS n, output FROM trigger_idem.runs WHERE task_id = 'holds_cursor' ORDER BY run_id;
CLOSE ALL;
DROP ROLE regress_impostor;

-- what a function sets ends with it, also in a group of runs, for the session and for the transaction
CREATE ROLE regress_impostor;
CREATE FUNCTION work_test.sets() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text := concat_ws(' ', current_setting('work_mem'), current_setting('temp_buffers'), current_setting('work_test.made_up', true),
		CASE current_user WHEN 'regress_impostor' THEN 'impostor' END);
BEGIN
	PERFORM set_config('work_mem', '77MB', false), set_config('temp_buffers', '77MB', true), set_config('work_test.made_up', 'by a handler', false);
	SET ROLE regress_impostor;
	RETURN found;
END $$;
SELECT trigger_idem.task_create('sets', 'work_test.sets', queue => 'work_sets');
SET work_mem = '5MB';
SELECT count(trigger_idem.trigger_task('sets')) FROM generate_series(1, 2);
CALL trigger_idem.work('work_sets');
SELECT current_setting('work_mem') AS work_mem, current_setting('temp_buffers') AS temp_buffers, current_setting('work_test.made_up', true) AS made_up, current_user = 'regress_impostor' AS impostor;
SELECT count(trigger_idem.trigger_task('sets')) FROM generate_series(1, 3);
SET trigger_idem.runs_per_commit = 3;
CALL trigger_idem.work('work_sets');
SELECT current_setting('work_mem') AS work_mem, current_setting('temp_buffers') AS temp_buffers, current_setting('work_test.made_up', true) AS made_up, current_user = 'regress_impostor' AS impostor;
RESET work_mem;
SELECT output, count(*) FROM trigger_idem.runs WHERE task_id = 'sets' GROUP BY output;
DROP ROLE regress_impostor;

-- and not before the commit, by which a cursor is executed as it was declared
CREATE ROLE regress_impostor;
CREATE FUNCTION work_test.declares() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL ROLE regress_impostor;
	SET LOCAL search_path = work_test;
	EXECUTE 'DECLARE as_declared CURSOR WITH HOLD FOR SELECT current_user, current_setting(''search_path'')';
END $$;
SELECT trigger_idem.task_create('declares', 'work_test.declares', queue => 'work_declares');
SELECT status FROM trigger_idem.trigger_task('declares');
RESET trigger_idem.runs_per_commit;
CALL trigger_idem.work('work_declares');
FETCH as_declared;
CLOSE as_declared;
SELECT current_user = 'regress_impostor' AS impostor;
-- which may fail, alone and in a group
CREATE FUNCTION work_test.declares_wrong() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('DECLARE wrong_%s CURSOR WITH HOLD FOR SELECT 1 / (SELECT 0)', replace(trigger_idem.current_run_id()::text, '-', ''));
	SET ROLE regress_impostor;
END $$;
SELECT trigger_idem.task_create('declares_wrong', 'work_test.declares_wrong', queue => 'work_declares', max_attempts => 1);
SELECT count(trigger_idem.trigger_task('declares_wrong')) FROM generate_series(1, 3);
SET trigger_idem.runs_per_commit = 2;
CALL trigger_idem.work('work_declares');
RESET trigger_idem.runs_per_commit;
SELECT status, error ->> 'code' AS code, count(*) FROM trigger_idem.runs WHERE task_id = 'declares_wrong' GROUP BY 1, 2;
SELECT current_user = 'regress_impostor' AS impostor;
DROP ROLE regress_impostor;

-- a setting that only looks like one of a transaction, where there is it
CREATE PROCEDURE work_test.sets_transaction_timeout() LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('transaction_timeout', true) IS NOT NULL THEN
		PERFORM set_config('transaction_timeout', '1h', false);
	END IF;
	COMMIT;
END $$;
SELECT trigger_idem.task_create('sets_transaction_timeout', 'work_test.sets_transaction_timeout', queue => 'work_sets_timeout');
SELECT status FROM trigger_idem.trigger_task('sets_transaction_timeout');
CALL trigger_idem.work('work_sets_timeout');
SELECT coalesce(current_setting('transaction_timeout', true), '0') AS transaction_timeout;

-- a transaction made READ ONLY does not keep us from recording that a wait has been passed
CREATE FUNCTION work_test.waits_and_reads() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.wait_until('w', '2001-01-01');
	PERFORM trigger_idem.wait_for('x', '1 hour');
	SET TRANSACTION READ ONLY;
	RETURN 'read only';
END $$;
SELECT trigger_idem.task_create('waits_and_reads', 'work_test.waits_and_reads', queue => 'work_reads', max_attempts => 1);
SELECT run_id FROM trigger_idem.trigger_task('waits_and_reads') \gset
CALL trigger_idem.work('work_reads');
UPDATE trigger_idem.queue_entry SET visible_from = now(), ord = now() WHERE run_id = :'run_id';
CALL trigger_idem.work('work_reads');
SELECT status, output, error FROM trigger_idem.runs WHERE run_id = :'run_id';

-- but for how durable its commit is to be: for a group, what wants most
CREATE FUNCTION work_test.sets_durability(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('synchronous_commit', payload ->> 'wanted', true);
	IF payload ->> 'cursor' IS NOT NULL THEN
		EXECUTE format('DECLARE %I CURSOR WITH HOLD FOR SELECT current_setting(''synchronous_commit'') AS at_commit', payload ->> 'cursor');
	END IF;
END $$;
SELECT trigger_idem.task_create('sets_durability', 'work_test.sets_durability', queue => 'work_durability');
RESET trigger_idem.runs_per_commit;
SELECT count(trigger_idem.trigger_task('sets_durability', p)) FROM unnest('{"{\"wanted\": \"off\", \"cursor\": \"less\"}","{\"wanted\": \"remote_apply\", \"cursor\": \"more\"}"}'::jsonb[]) p;
CALL trigger_idem.work('work_durability');
SET trigger_idem.runs_per_commit = 3;
SELECT count(trigger_idem.trigger_task('sets_durability', p)) FROM unnest('{"{\"wanted\": \"local\"}","{\"wanted\": \"remote_apply\"}","{\"wanted\": \"off\", \"cursor\": \"grouped\"}"}'::jsonb[]) p;
CALL trigger_idem.work('work_durability');
RESET trigger_idem.runs_per_commit;
FETCH less;
FETCH more;
FETCH grouped;
CLOSE ALL;
SHOW synchronous_commit;

-- settings that only a superuser may change, changed through a superuser's function
CREATE FUNCTION work_test.changes_superusers_setting() RETURNS void SECURITY DEFINER LANGUAGE sql AS
	$$ SELECT set_config('session_replication_role', 'replica', false) $$;
CREATE PROCEDURE work_test.through_a_function() LANGUAGE plpgsql AS $$
BEGIN PERFORM work_test.changes_superusers_setting(); COMMIT; RAISE EXCEPTION 'too late'; END $$;
CREATE ROLE regress_limited LOGIN;
GRANT USAGE ON SCHEMA trigger_idem, work_test TO regress_limited;
GRANT EXECUTE ON PROCEDURE trigger_idem.work TO regress_limited;
SELECT trigger_idem.task_create('through_a_function', 'work_test.through_a_function', queue => 'work_limited',
	max_attempts => 1, run_as => 'regress_limited');
SELECT status FROM trigger_idem.trigger_task('through_a_function');
SELECT current_user AS me \gset
\c - regress_limited
CALL trigger_idem.work('work_limited');
SHOW session_replication_role;
\c - :me
SELECT status, error->>'message' AS message FROM trigger_idem.runs WHERE task_id = 'through_a_function';
SELECT trigger_idem.task_drop('through_a_function');
DROP OWNED BY regress_limited;
DROP ROLE regress_limited;

-- what a handler may not: transactions in a function, preparing one
CREATE FUNCTION work_test.commits() RETURNS void LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
CREATE FUNCTION work_test.works() RETURNS void LANGUAGE plpgsql AS $$
DECLARE n int; BEGIN CALL trigger_idem.work(processed => n); END $$;
CREATE PROCEDURE work_test.works_too() LANGUAGE plpgsql AS $$
DECLARE n int; BEGIN CALL trigger_idem.work(processed => n); END $$;
SELECT trigger_idem.task_create(task, ('work_test.' || task)::regproc, queue => 'work_forbidden', max_attempts => 1)
FROM unnest('{commits,works,works_too}'::text[]) task;
SELECT status FROM unnest('{commits,works,works_too}'::text[]) task, LATERAL trigger_idem.trigger_task(task);
CALL trigger_idem.work('work_forbidden');
SELECT task_id, status, error->>'code' AS code, error->>'message' AS message FROM trigger_idem.runs WHERE queue = 'work_forbidden' ORDER BY 1;

-- isolation levels that a handler or the session chooses
CREATE PROCEDURE work_test.isolated() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES (current_setting('transaction_isolation'));
	COMMIT;
	SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;
	INSERT INTO helper.log (line) VALUES (current_setting('transaction_isolation'));
	PERFORM trigger_idem.run_once('step', 'helper.callback');
END $$;
SELECT trigger_idem.task_create('isolated', 'work_test.isolated', queue => 'work_isolated');
SELECT status FROM trigger_idem.trigger_task('isolated');
SET default_transaction_isolation = 'repeatable read';
CALL trigger_idem.work('work_isolated');
RESET default_transaction_isolation;
CALL helper.show_log();
SELECT status, error FROM trigger_idem.runs WHERE task_id = 'isolated';

-- order: by time due, less the priority in seconds; max_runs; one queue or all
SELECT trigger_idem.task_create('ordered', 'helper.handler', queue => 'work_order');
SELECT status FROM (VALUES ('"second"', 5), ('"third"', 0), ('"first"', 10)) v(payload, priority),
	LATERAL trigger_idem.trigger_task('ordered', payload::jsonb, priority => priority);
SELECT status FROM trigger_idem.trigger_task('ordered', '"later"', delay => '1 hour');
SELECT status FROM trigger_idem.trigger_task('ordered', '"elsewhere"', queue => 'work_order_2');
CALL trigger_idem.work('work_order', 2);
CALL helper.show_log();
SELECT payload, status FROM trigger_idem.runs WHERE task_id = 'ordered' AND status <> 'completed' ORDER BY created_at;
CALL trigger_idem.work('work_order');
CALL trigger_idem.work('work_order_2');
CALL helper.show_log();

CREATE TABLE work_test.log (at timestamptz DEFAULT clock_timestamp(), line jsonb);

-- several queues: whichever run has been due longest, head start included
CREATE FUNCTION work_test.logs(payload jsonb) RETURNS void LANGUAGE sql BEGIN ATOMIC
	INSERT INTO work_test.log (line) VALUES (payload);
END;
SELECT trigger_idem.environment_create('work_queues');
SELECT trigger_idem.task_create('logs', 'work_test.logs');
SELECT count(trigger_idem.trigger_task('logs', to_jsonb(n), queue => 'work_queue_' || n % 3, priority => 100 - n,
	environment => 'work_queues'))
FROM generate_series(1, 12) n;
CALL trigger_idem.work(environment => 'work_queues');
SELECT array_agg(line ORDER BY at) AS in_order FROM work_test.log;
TRUNCATE work_test.log;

-- more runs of others before ours than a claim walks past twice
CREATE FUNCTION work_test.logs_and_triggers(payload jsonb) RETURNS void LANGUAGE sql BEGIN ATOMIC
	INSERT INTO work_test.log (line) VALUES (payload);
	SELECT trigger_idem.trigger_task('logs', to_jsonb(format('child of %s', payload)), queue => 'work_behind', priority => 20000);
END;
SELECT trigger_idem.task_create('of_others', queue => 'work_behind');
SELECT trigger_idem.task_create('logs_and_triggers', 'work_test.logs_and_triggers', queue => 'work_behind');
SELECT count(trigger_idem.trigger_task('of_others', priority => 10000)) FROM generate_series(1, 250);
SELECT count(trigger_idem.trigger_task('logs_and_triggers', to_jsonb(n))) FROM generate_series(1, 3) n;
CALL trigger_idem.work('work_behind');
SELECT line FROM work_test.log ORDER BY line;

-- environments
SELECT trigger_idem.environment_create('work_environment');
CREATE FUNCTION work_test.triggers_child() RETURNS text LANGUAGE sql AS $$
	SELECT is_cached::text FROM trigger_idem.trigger_task('ordered', '"child"', idempotency_key => 'child') $$;
SELECT trigger_idem.task_create('triggers_child', 'work_test.triggers_child', queue => 'work_children');
SELECT status FROM trigger_idem.trigger_task('triggers_child', environment => 'work_environment');
CALL trigger_idem.work('work_children', environment => 'default');
CALL trigger_idem.work('work_children', environment => 'work_environment');
-- a run triggered in a run is in its environment, and knows its parent
SELECT c.environment, c.payload, p.task_id AS parent FROM trigger_idem.runs c JOIN trigger_idem.runs p ON p.run_id = c.parent_run_id
WHERE c.task_id = 'ordered';

-- a dropped task's runs wait and say so; a handler that is gone is an error
SELECT trigger_idem.task_create('dropped', 'helper.handler', queue => 'work_dropped');
SELECT status FROM trigger_idem.trigger_task('dropped', '"patient"');
SELECT trigger_idem.task_drop('dropped');
CALL trigger_idem.work('work_dropped');
SELECT status, held_because FROM trigger_idem.runs WHERE task_id = 'dropped';
SELECT trigger_idem.task_create('dropped', 'helper.handler', queue => 'work_dropped');
CALL trigger_idem.work('work_dropped');
CALL helper.show_log();
SELECT status, held_because FROM trigger_idem.runs WHERE task_id = 'dropped';
CREATE FUNCTION work_test.going() RETURNS void LANGUAGE sql AS '';
CREATE SCHEMA work_going;
CREATE FUNCTION work_going.going_too() RETURNS void LANGUAGE sql AS '';
SELECT trigger_idem.task_create('gone', 'work_test.going', queue => 'work_gone', max_attempts => 1);
SELECT trigger_idem.task_create('gone too', 'work_going.going_too', queue => 'work_gone', max_attempts => 1);
SELECT status FROM trigger_idem.trigger_task('gone');
SELECT status FROM trigger_idem.trigger_task('gone too');
DROP FUNCTION work_test.going;
-- one with the same name in another schema is another one
DROP SCHEMA work_going CASCADE;
CREATE FUNCTION work_test.going_too() RETURNS void LANGUAGE sql AS '';
CALL trigger_idem.work('work_gone');
SELECT status, error->>'code' AS code, error->>'message' AS message, error->>'hint' AS hint FROM trigger_idem.runs WHERE task_id LIKE 'gone%' ORDER BY task_id;
-- a handler that was replaced by one of another owner is not run
CREATE ROLE regress_planter;
CREATE FUNCTION work_test.replaced() RETURNS void LANGUAGE sql AS '';
SELECT trigger_idem.task_create('replaced', 'work_test.replaced', queue => 'work_gone', max_attempts => 1);
SELECT status FROM trigger_idem.trigger_task('replaced');
ALTER FUNCTION work_test.replaced OWNER TO regress_planter;
CALL trigger_idem.work('work_gone');
SELECT status, error->>'code' AS code, error->>'message' AS message FROM trigger_idem.runs WHERE task_id = 'replaced';
ALTER FUNCTION work_test.replaced OWNER TO CURRENT_USER;
DROP ROLE regress_planter;

-- a handler that drops its own task, or the extension, also where something else takes its name
CREATE FUNCTION work_test.drops_task() RETURNS boolean LANGUAGE sql AS $$ SELECT trigger_idem.task_drop('drops_task') $$;
CREATE FUNCTION work_test.drops_extension() RETURNS void LANGUAGE sql AS 'DROP EXTENSION trigger_idem CASCADE';
CREATE PROCEDURE work_test.drops_extension_and_commits() LANGUAGE plpgsql AS 'BEGIN DROP EXTENSION trigger_idem CASCADE; COMMIT; END';
CREATE PROCEDURE work_test.drops_and_replaces_extension() LANGUAGE plpgsql AS 'BEGIN DROP EXTENSION trigger_idem CASCADE; CREATE SCHEMA trigger_idem; COMMIT; END';
SELECT trigger_idem.task_create(task, ('work_test.' || task)::regproc, queue => 'work_drops', max_attempts => 1)
FROM unnest('{drops_task,drops_extension,drops_extension_and_commits,drops_and_replaces_extension}'::text[]) task;
SELECT status FROM unnest('{drops_task,drops_extension,drops_extension_and_commits,drops_and_replaces_extension}'::text[]) task, LATERAL trigger_idem.trigger_task(task);
SET client_min_messages = warning;
CALL trigger_idem.work('work_drops');
RESET client_min_messages;
SELECT task_id, status, output, error->>'code' AS code, error->>'message' AS message FROM trigger_idem.runs WHERE queue = 'work_drops' ORDER BY 1;

-- several runs a commit: functions that succeed share a transaction; a procedure,
-- and whatever comes after an error, has its own, and nothing is done twice
CREATE TABLE work_test.grouped (n int, xid xid8 DEFAULT pg_current_xact_id());
CREATE FUNCTION work_test.grouped(payload jsonb) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO work_test.grouped (n) VALUES ((payload->>'n')::int);
	PERFORM trigger_idem.run_once_sql('step', 'SELECT 1');
	IF payload ? 'fails' THEN
		RAISE 'failed on purpose' USING ERRCODE = 'TI006';
	END IF;
	-- so slow that no more are claimed at a time than share a commit
	PERFORM pg_sleep(coalesce((payload->>'sleeps')::float8, 0.01));
	RETURN (payload->>'n')::int;
END $$;
CREATE PROCEDURE work_test.grouped_commits(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO work_test.grouped (n) VALUES ((payload->>'n')::int);
	COMMIT;
END $$;
SELECT trigger_idem.task_create('grouped', 'work_test.grouped', queue => 'work_grouped', max_attempts => 2);
SELECT trigger_idem.task_create('grouped_commits', 'work_test.grouped_commits', queue => 'work_grouped');
SELECT count(trigger_idem.trigger_task(CASE n WHEN 4 THEN 'grouped_commits' ELSE 'grouped' END,
	jsonb_strip_nulls(jsonb_build_object('n', n, 'fails', CASE n WHEN 9 THEN true END)))) FROM generate_series(1, 14) n;
SET trigger_idem.runs_per_commit = 5;
CALL trigger_idem.work('work_grouped', 13);
SELECT array_agg(n ORDER BY n) AS together FROM work_test.grouped GROUP BY xid ORDER BY 1;
SELECT r.payload->'n' AS n, r.status, a.attempt, a.status, a.steps_done, r.output, r.error->>'message' AS error
FROM trigger_idem.runs r LEFT JOIN trigger_idem.attempts a USING (run_id) WHERE queue = 'work_grouped' ORDER BY 1;
SELECT count(*) FROM trigger_idem.steps s JOIN trigger_idem.runs r USING (run_id) WHERE queue = 'work_grouped';
CALL trigger_idem.work('work_grouped');
-- a timeout of the CALL fails the run in hand and gives the others back
TRUNCATE work_test.grouped;
SELECT trigger_idem.task_create('grouped', 'work_test.grouped', queue => 'work_grouped', max_attempts => 2, min_backoff => '1 minute');
SELECT count(trigger_idem.trigger_task('grouped', jsonb_build_object('n', n, 'sleeps', CASE n WHEN 22 THEN 60 ELSE 0 END)))
FROM generate_series(21, 23) n;
SET statement_timeout = '2s';
CALL trigger_idem.work('work_grouped');
RESET statement_timeout;
SELECT r.payload->'n' AS n, r.status, a.attempt, a.status, a.error->>'code' AS code
FROM trigger_idem.runs r LEFT JOIN trigger_idem.attempts a USING (run_id) WHERE queue = 'work_grouped' AND payload ? 'sleeps' ORDER BY 1;
SELECT n FROM work_test.grouped;
CALL trigger_idem.work('work_grouped');
SELECT n FROM work_test.grouped ORDER BY n;
RESET trigger_idem.runs_per_commit;

-- a handler cancels a run that its own session has claimed, and will not begin; and one that
-- names this session without being in its hand, as in a dump that was restored beside it
CREATE PROCEDURE work_test.cancels_others(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	IF payload->>'n' <> '1' THEN
		INSERT INTO helper.log (line) VALUES (format('began %s', payload));
		RETURN;
	END IF;
	PERFORM trigger_idem.wait_for_token((payload->>'token')::uuid);
	UPDATE trigger_idem.queue_entry SET worker_token = e.worker_token FROM trigger_idem.queue_entry e
	WHERE queue_entry.task_id = 'claimed_outside' AND e.run_id = trigger_idem.current_run_id();
	INSERT INTO helper.log (line)
	SELECT format('attempt %s cancels %s, which is %s: %s', trigger_idem.current_attempt(), task_id, status, trigger_idem.run_cancel(run_id))
	FROM trigger_idem.runs WHERE queue = 'work_hand' AND run_id <> trigger_idem.current_run_id() ORDER BY run_id LIMIT 2;
	COMMIT;
END $$;
SELECT trigger_idem.task_create('cancels_others', 'work_test.cancels_others', queue => 'work_hand');
SELECT trigger_idem.task_create('claimed_outside', queue => 'work_hand');
SELECT token FROM trigger_idem.wait_token_create() \gset
SELECT status FROM trigger_idem.trigger_task('cancels_others', jsonb_build_object('n', 1, 'token', :'token'), priority => 1);
CALL trigger_idem.work('work_hand');
SELECT status FROM trigger_idem.trigger_task('claimed_outside');
SELECT attempt FROM trigger_idem.run_claim('outside', 'work_hand');
SELECT status FROM trigger_idem.trigger_task('cancels_others', '{"n": 2}');
SELECT status FROM trigger_idem.trigger_task('cancels_others', '{"n": 3}');
SELECT trigger_idem.wait_token_complete(:'token');
SET trigger_idem.runs_per_commit = 3;
CALL trigger_idem.work('work_hand');
RESET trigger_idem.runs_per_commit;
CALL helper.show_log();
SELECT task_id, payload->'n' AS n, r.status, a.attempt, a.status AS attempt_status
FROM trigger_idem.runs r LEFT JOIN trigger_idem.attempts a USING (run_id) WHERE queue = 'work_hand' ORDER BY run_id, a.attempt;

-- a run whose task is not there yet, while a dump is restored: its worker's lease is all
-- that counts
SELECT trigger_idem.task_create('restored', queue => 'work_restored', max_attempts => 1, max_duration => '1 us');
SELECT status FROM trigger_idem.trigger_task('restored');
SELECT attempt FROM trigger_idem.run_claim('outside', 'work_restored', lease_duration => '1 hour');
CREATE TABLE work_test.dump AS SELECT * FROM trigger_idem.task WHERE task_id = 'restored';
DELETE FROM trigger_idem.task WHERE task_id = 'restored';
\c
CALL trigger_idem.work('nothing is due');
SELECT status FROM trigger_idem.attempts JOIN trigger_idem.queue_entry USING (run_id) WHERE task_id = 'restored';
UPDATE trigger_idem.queue_entry SET lease_expires_at = now() WHERE task_id = 'restored';
CALL trigger_idem.work('nothing is due');
INSERT INTO trigger_idem.task SELECT * FROM work_test.dump;
\c
SELECT status, attempt_status, attempt_error->>'code' AS code FROM work_test.outcome WHERE task_id = 'restored';

-- only tasks of the role that logged in; only at top level
CREATE ROLE regress_worker;
SELECT trigger_idem.task_create('of_another', 'helper.handler', queue => 'work_roles', run_as => 'regress_worker');
SELECT status FROM trigger_idem.trigger_task('of_another');
CALL trigger_idem.work('work_roles');
SELECT status FROM trigger_idem.runs WHERE task_id = 'of_another';
GRANT USAGE ON SCHEMA trigger_idem TO regress_worker;
GRANT EXECUTE ON PROCEDURE trigger_idem.work TO regress_worker;
SET ROLE regress_worker;
CALL trigger_idem.work('work_roles');
RESET ROLE;
SET SESSION AUTHORIZATION regress_worker;
CALL trigger_idem.work('work_roles');
RESET SESSION AUTHORIZATION;
DROP OWNED BY regress_worker;
DROP ROLE regress_worker;

BEGIN;
CALL trigger_idem.work('nothing is due');
ROLLBACK;
SELECT 1 \; CALL trigger_idem.work('nothing is due');
DO $$ DECLARE n int; BEGIN CALL trigger_idem.work('nothing is due', processed => n); END $$;
DO $$ DECLARE n int; BEGIN BEGIN CALL trigger_idem.work('nothing is due', processed => n); EXCEPTION WHEN division_by_zero THEN END; END $$;
-- nor by a function or trigger that is made of it
SELECT probin FROM pg_proc WHERE oid = 'trigger_idem.work'::regproc \gset
CREATE FUNCTION work_test.work(text, int, text, int) RETURNS int LANGUAGE c AS :'probin', 'trigger_idem_work';
CREATE FUNCTION work_test.work_trigger() RETURNS trigger LANGUAGE c AS :'probin', 'trigger_idem_work';
CREATE TABLE work_test.works (n int);
CREATE TRIGGER works BEFORE INSERT ON work_test.works FOR EACH ROW EXECUTE FUNCTION work_test.work_trigger();
SELECT work_test.work(NULL, NULL, NULL, NULL);
INSERT INTO work_test.works VALUES (1);
CALL trigger_idem.work('');
CALL trigger_idem.work(max_runs => 0);
CALL trigger_idem.work(environment => 'nowhere');
BEGIN READ ONLY;
CALL trigger_idem.work('nothing is due');
ROLLBACK;
CALL trigger_idem.work('nothing is due');
SELECT trigger_idem.current_run_id(), trigger_idem.current_attempt();

-- track_functions counts a CALL that has reported statistics in between
CREATE FUNCTION work_test.reports() RETURNS void LANGUAGE sql AS 'SELECT pg_catalog.pg_stat_force_next_flush()';
SELECT trigger_idem.task_create('reports', 'work_test.reports', queue => 'reports');
SELECT count(trigger_idem.trigger_task('reports')) FROM generate_series(1, 3);
SET track_functions = 'all';
CALL trigger_idem.work('reports');
RESET track_functions;
SELECT FROM pg_stat_force_next_flush();
SELECT calls FROM pg_stat_user_functions WHERE schemaname = 'trigger_idem' AND funcname = 'work';

-- what a cursor WITH HOLD does when the commit executes it is not of the run that has ended
SELECT trigger_idem.task_create('work_app', queue => 'work_app');
SELECT FROM trigger_idem.trigger_task('work_app');
SELECT run_id AS app_run FROM trigger_idem.run_claim('w', 'work_app') \gset
BEGIN;
SELECT trigger_idem.run_enter(:'app_run', 1);
SELECT trigger_idem.run_once('of the application', 'helper.callback');
COMMIT;
CREATE FUNCTION work_test.enters(run_id uuid) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_enter(run_id, 1);
	RETURN trigger_idem.run_once('of the application', 'helper.callback');
END $$;
CREATE FUNCTION work_test.holds(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('of the handler', 'helper.callback');
	EXECUTE format('DECLARE held CURSOR WITH HOLD FOR SELECT work_test.enters(%L)', payload #>> '{}');
END $$;
SELECT trigger_idem.task_create('holds', 'work_test.holds', queue => 'holds');
SELECT FROM trigger_idem.trigger_task('holds', to_jsonb(:'app_run'::text));
CALL trigger_idem.work('holds');
FETCH ALL FROM held;
CLOSE held;
SELECT status, error -> 'message' AS error FROM trigger_idem.runs WHERE task_id = 'holds';
SELECT count(*) FROM trigger_idem.steps WHERE run_id = :'app_run';
CALL helper.show_log();
SELECT trigger_idem.run_cancel(:'app_run');

-- a procedure that sets what cannot be reset, and commits
CREATE PROCEDURE work_test.seeds() LANGUAGE plpgsql AS $$
BEGIN
	SET seed = 0.5;
	COMMIT;
END $$;
SELECT trigger_idem.task_create('seeds', 'work_test.seeds', queue => 'seeds');
SELECT FROM trigger_idem.trigger_task('seeds');
CALL trigger_idem.work('seeds');
