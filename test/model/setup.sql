-- The tasks of the model (test/model/model.py has the same list), and handlers
-- that do what their payload says: steps, and failing in the first attempts.
CREATE EXTENSION trigger_idem;
ALTER DATABASE :DBNAME SET jit = off;

CREATE FUNCTION step_of_model(idempotency_key text, args jsonb) RETURNS text LANGUAGE sql AS
	$$ SELECT (args #>> '{}') || ' done' $$;

CREATE FUNCTION end_of_model(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF trigger_idem.current_attempt() <= (payload ->> 'failures')::int THEN
		RAISE 'as the payload wants' USING ERRCODE = COALESCE(payload ->> 'code', 'XX999');
	END IF;
END $$;

CREATE FUNCTION handle_function(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	key text;
BEGIN
	FOR key IN SELECT jsonb_array_elements_text(payload -> 'steps') LOOP
		PERFORM trigger_idem.run_once(key, 'step_of_model', to_jsonb(key));
	END LOOP;
	PERFORM end_of_model(payload);
	RETURN 'handled';
END $$;

CREATE PROCEDURE handle_procedure(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	key text;
BEGIN
	FOR key IN SELECT jsonb_array_elements_text(payload -> 'steps') LOOP
		PERFORM trigger_idem.run_once(key, 'step_of_model', to_jsonb(key));
		COMMIT;
	END LOOP;
	PERFORM end_of_model(payload);
END $$;

SELECT trigger_idem.task_create('app_retry', max_attempts => 2, min_backoff => '0', max_backoff => '0',
	idempotency_key_ttl => NULL, lease_duration => '1 hour');
SELECT trigger_idem.task_create('app_once', max_attempts => 1, min_backoff => '0', max_backoff => '0', idempotency_group => 'shared',
	release_key_on => '{completed,failed,crashed,timed_out,canceled,expired}',
	idempotency_key_ttl => NULL, lease_duration => '1 hour');
SELECT trigger_idem.task_create('app_keeps', max_attempts => 3, min_backoff => '1 hour', max_backoff => '1 hour',
	backoff_jitter => false, idempotency_group => 'shared', release_key_on => '{}', on_payload_mismatch => 'error',
	lease_duration => '1 hour');
SELECT trigger_idem.task_create('function', 'handle_function', max_attempts => 2, min_backoff => '0', max_backoff => '0');
SELECT trigger_idem.task_create('procedure', 'handle_procedure', max_attempts => 3, min_backoff => '0', max_backoff => '0',
	release_key_on => '{completed,failed,crashed,timed_out,canceled,expired}');
SELECT trigger_idem.task_create('function_late', 'handle_function', max_attempts => 2, min_backoff => '1 hour',
	max_backoff => '1 hour', backoff_jitter => false, release_key_on => '{completed,canceled}');
