CREATE FUNCTION trigger_idem.trigger_task(
	task_id text,
	payload jsonb DEFAULT NULL,
	idempotency_key text DEFAULT NULL,
	idempotency_key_ttl interval DEFAULT NULL,
	delay interval DEFAULT NULL,
	run_at timestamptz DEFAULT NULL,
	ttl interval DEFAULT NULL,
	priority int DEFAULT 0,
	queue text DEFAULT NULL,
	concurrency_key text DEFAULT NULL,
	max_attempts int DEFAULT NULL,
	tags text[] DEFAULT NULL,
	metadata jsonb DEFAULT NULL,
	environment text DEFAULT NULL,
	idempotency_key_scope text DEFAULT 'global',
	OUT run_id uuid,
	OUT is_cached boolean,
	OUT status trigger_idem.run_status)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_trigger_task';
COMMENT ON FUNCTION trigger_idem.trigger_task(text, jsonb, text, interval, interval, timestamptz,
	interval, int, text, text, int, text[], jsonb, text, text) IS
	'Trigger a run of a task, once for each live idempotency key';

CREATE FUNCTION trigger_idem.batch_trigger_task(
	task_id text,
	items jsonb,
	idempotency_key text DEFAULT NULL,
	environment text DEFAULT NULL)
RETURNS TABLE (
	index int,
	run_id uuid,
	is_cached boolean,
	status trigger_idem.run_status)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_batch_trigger_task';
COMMENT ON FUNCTION trigger_idem.batch_trigger_task(text, jsonb, text, text) IS
	'Trigger many runs of a task in one call, all of them or none';
