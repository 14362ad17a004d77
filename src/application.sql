CREATE FUNCTION trigger_idem.run_claim(
	worker_id text,
	queue text DEFAULT 'default',
	max_runs int DEFAULT 1,
	lease_duration interval DEFAULT NULL,
	environment text DEFAULT NULL,
	task_ids text[] DEFAULT NULL)
RETURNS TABLE (
	run_id uuid,
	attempt int,
	task_id text,
	payload jsonb,
	environment text,
	lease_expires_at timestamptz)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_claim';
COMMENT ON FUNCTION trigger_idem.run_claim(text, text, int, interval, text, text[]) IS
	'Claim due runs of tasks without a handler, for a worker outside the database';

CREATE FUNCTION trigger_idem.run_heartbeat(
	run_id uuid,
	attempt int,
	lease_duration interval DEFAULT NULL)
RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_heartbeat';
COMMENT ON FUNCTION trigger_idem.run_heartbeat(uuid, int, interval) IS
	'Renew the lease of an attempt; returns its new end';

CREATE FUNCTION trigger_idem.run_enter(run_id uuid, attempt int)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_enter';
COMMENT ON FUNCTION trigger_idem.run_enter(uuid, int) IS
	'Make a run current until this transaction or savepoint ends';

CREATE FUNCTION trigger_idem.run_once_begin(
	run_id uuid,
	attempt int,
	key text,
	OUT is_cached boolean,
	OUT output jsonb,
	OUT idempotency_key text)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_once_begin';
COMMENT ON FUNCTION trigger_idem.run_once_begin(uuid, int, text) IS
	'Was a step of a run done, with which output, and which key is it to hand on';

CREATE FUNCTION trigger_idem.run_once_end(
	run_id uuid,
	attempt int,
	key text,
	output jsonb DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_once_end';
COMMENT ON FUNCTION trigger_idem.run_once_end(uuid, int, text, jsonb) IS
	'Store the output of a step of a run';

CREATE FUNCTION trigger_idem.run_complete(
	run_id uuid,
	attempt int,
	output jsonb DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_complete';
COMMENT ON FUNCTION trigger_idem.run_complete(uuid, int, jsonb) IS
	'Complete a run when this transaction commits';

CREATE FUNCTION trigger_idem.run_fail(
	run_id uuid,
	attempt int,
	error jsonb,
	retry boolean DEFAULT true,
	retry_after interval DEFAULT NULL,
	OUT status trigger_idem.run_status,
	OUT retry_at timestamptz)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_fail';
COMMENT ON FUNCTION trigger_idem.run_fail(uuid, int, jsonb, boolean, interval) IS
	'Fail an attempt when this transaction commits; tells what becomes of the run';

CREATE FUNCTION trigger_idem.run_release(
	run_id uuid,
	attempt int,
	delay interval DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_release';
COMMENT ON FUNCTION trigger_idem.run_release(uuid, int, interval) IS
	'Give a run back when this transaction commits; the attempt does not count';
