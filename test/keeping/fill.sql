-- Runs, keys, steps, waits and all else that must survive, in many states.  To be
-- executed once, by a superuser, where the extension is installed.
\set ON_ERROR_STOP on

CREATE TABLE kept_effect (step text, attempt int);
CREATE FUNCTION kept_step(idempotency_key text, args jsonb) RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO public.kept_effect VALUES (args #>> '{}', trigger_idem.current_attempt()) RETURNING jsonb_build_object('did', args)
$$;
CREATE PROCEDURE kept_procedure(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('first', 'public.kept_step', payload -> 'name');
	COMMIT;
	IF payload ? 'token' THEN
		PERFORM trigger_idem.wait_for_token((payload ->> 'token')::uuid);
	ELSIF payload ? 'child' THEN
		PERFORM trigger_idem.trigger_task_and_wait('kept application', '{"name": "child"}', 'child');
	ELSIF payload ? 'error' THEN
		RAISE 'as the payload wants' USING ERRCODE = payload ->> 'error';
	END IF;
	PERFORM trigger_idem.run_once('second', 'public.kept_step', payload -> 'name');
END $$;
CREATE FUNCTION kept_function(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT trigger_idem.run_once('only', 'public.kept_step', payload -> 'name')
$$;

SELECT trigger_idem.environment_create('kept staging');
SELECT trigger_idem.task_create('kept procedure', 'kept_procedure', min_backoff => '1 day', max_backoff => '1 day');
SELECT trigger_idem.task_create('kept function', 'kept_function', idempotency_group => 'kept group', on_payload_mismatch => 'error');
SELECT trigger_idem.task_create('kept application', queue => 'kept outside', lease_duration => '1 day');
SELECT trigger_idem.task_create('kept dropped', queue => 'kept dropped');
SELECT trigger_idem.schedule_create('kept schedule', '0 0 1 1 *', 'kept application', cron_job => false);
SELECT trigger_idem.run_once('kept once', 'kept_step', '"global"', scope => 'global');
SELECT token FROM trigger_idem.wait_token_create('kept token') \gset
SELECT trigger_idem.wait_token_complete(token, '"answer"') FROM trigger_idem.wait_token_create('kept completed');

SELECT trigger_idem.trigger_task('kept function', '{"name": "function"}', 'function', tags => '{a,b}', metadata => '{"m": 1}');
SELECT trigger_idem.trigger_task('kept function', '{"name": "elsewhere"}', 'function', environment => 'kept staging');
SELECT trigger_idem.trigger_task('kept procedure', jsonb_build_object('name', name, 'error', error, 'token', token, 'child', child) - nulls, name)
FROM (VALUES ('completed', NULL, NULL, NULL), ('failed', 'TI006', NULL, NULL), ('backs off', 'XX999', NULL, NULL),
		('waits for token', NULL, :'token', NULL), ('waits for child', NULL, NULL, 'yes')) v(name, error, token, child),
	LATERAL (SELECT array_remove(ARRAY[CASE WHEN error IS NULL THEN 'error' END, CASE WHEN token IS NULL THEN 'token' END,
		CASE WHEN child IS NULL THEN 'child' END], NULL) AS nulls) n;
CALL trigger_idem.work();
SELECT trigger_idem.trigger_task('kept application', '{"name": "executing"}', 'executing', priority => 10);
SELECT FROM trigger_idem.run_claim('kept worker', 'kept outside');
SELECT trigger_idem.trigger_task('kept procedure', '{"name": "queued"}', 'queued');
SELECT trigger_idem.trigger_task('kept procedure', '{"name": "delayed"}', 'delayed', delay => '1 day');
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.trigger_task('kept procedure', '{"name": "canceled"}', 'canceled');
SELECT trigger_idem.trigger_task('kept dropped', '{"name": "dropped"}', 'dropped');
SELECT trigger_idem.task_drop('kept dropped');
SELECT trigger_idem.queue_pause('kept paused');
