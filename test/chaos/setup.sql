-- The tasks of the chaos test.  Each effect is a row of the table effect, written
-- by a step; the step's memo is a number that was never seen before.
CREATE EXTENSION trigger_idem;

-- without a unique key: a step that is done twice shall be seen
CREATE TABLE effect (run_id uuid NOT NULL, step text NOT NULL, attempt int NOT NULL, nonce uuid NOT NULL);

CREATE FUNCTION take_step(idempotency_key text, args jsonb) RETURNS uuid LANGUAGE sql AS $$
	INSERT INTO effect VALUES (trigger_idem.current_run_id(), args #>> '{}', trigger_idem.current_attempt(), gen_random_uuid())
	RETURNING nonce
$$;

-- fails in as many attempts as the payload says
CREATE FUNCTION may_fail(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF trigger_idem.current_attempt() <= (payload ->> 'failures')::int THEN
		RAISE 'as the payload wants' USING ERRCODE = CASE WHEN payload ? 'aborts' THEN 'TI006' ELSE 'XX999' END;
	END IF;
END $$;

-- Its output is what the steps gave.
CREATE FUNCTION handle_function(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	outputs jsonb := '{}';
BEGIN
	FOR n IN 1 .. (payload ->> 'steps')::int LOOP
		outputs := outputs || jsonb_build_object('step ' || n, trigger_idem.run_once('step ' || n, 'take_step', to_jsonb('step ' || n)));
	END LOOP;
	PERFORM pg_sleep((payload ->> 'seconds')::float8);
	PERFORM may_fail(payload);
	RETURN outputs;
END $$;

-- A procedure has no output: its last step is one.
CREATE PROCEDURE handle_procedure(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	outputs jsonb := '{}';
BEGIN
	FOR n IN 1 .. (payload ->> 'steps')::int LOOP
		outputs := outputs || jsonb_build_object('step ' || n, trigger_idem.run_once('step ' || n, 'take_step', to_jsonb('step ' || n)));
		COMMIT;
		PERFORM pg_sleep((payload ->> 'seconds')::float8);
	END LOOP;
	PERFORM may_fail(payload);
	INSERT INTO procedure_output VALUES (trigger_idem.current_run_id(), outputs);
END $$;
CREATE TABLE procedure_output (run_id uuid NOT NULL, outputs jsonb NOT NULL);

-- Waits for a child, and for a moment.
CREATE PROCEDURE handle_parent(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	child record;
	outputs jsonb;
BEGIN
	outputs := jsonb_build_object('step 1', trigger_idem.run_once('step 1', 'take_step', '"step 1"'));
	COMMIT;
	SELECT * INTO child FROM trigger_idem.trigger_task_and_wait('function', payload);
	PERFORM trigger_idem.wait_for('a moment', '50 ms');
	IF child.status <> 'completed' THEN
		RAISE 'the child is %', child.status;
	END IF;
	outputs := outputs || jsonb_build_object('step 2', trigger_idem.run_once('step 2', 'take_step', '"step 2"'));
	COMMIT;
	INSERT INTO procedure_output VALUES (trigger_idem.current_run_id(), outputs);
END $$;

-- a server that is killed every few seconds makes many attempts crash
SELECT trigger_idem.task_create('function', 'handle_function', max_attempts => 100, min_backoff => '0.05 s', max_backoff => '0.2 s', lease_duration => '1 s');
SELECT trigger_idem.task_create('procedure', 'handle_procedure', max_attempts => 100, min_backoff => '0.05 s', max_backoff => '0.2 s', lease_duration => '1 s',
	release_key_on => '{completed,failed,crashed,timed_out,canceled,expired}');
SELECT trigger_idem.task_create('parent', 'handle_parent', max_attempts => 100, min_backoff => '0.05 s', max_backoff => '0.2 s', lease_duration => '1 s',
	release_key_on => '{}');
SELECT trigger_idem.task_create('application', max_attempts => 100, min_backoff => '0.05 s', max_backoff => '0.2 s', lease_duration => '1 s',
	queue => 'application');
