-- Waits of runs.  A run that waits has no worker; its queue entry names the wait
-- and tells when it is over by the clock.  ended_at is written when the run waits
-- for the next thing or is final: until then the entry knows how the wait ended.
-- what (and keyless, of a trigger without a key) is the same for waits that are
-- numbered because they may be asked for more than once; passed_attempt is the last
-- attempt in which a transaction of an application has passed it.
CREATE TABLE trigger_idem.wait (
	run_id uuid NOT NULL,
	wait_id uuid NOT NULL,
	attempt int NOT NULL,
	steady_attempt int NOT NULL,
	kind text COLLATE pg_catalog."C" NOT NULL,
	path text[] COLLATE pg_catalog."C" NOT NULL,
	target uuid,
	is_cached boolean,
	started_at timestamptz NOT NULL,
	until timestamptz,
	ended_at timestamptz,
	timed_out boolean,
	status trigger_idem.run_status,
	what uuid,
	keyless uuid,
	passed_attempt int,
	CONSTRAINT wait_pkey PRIMARY KEY (run_id, wait_id)
);

-- What is waited for, a run or a token: one row for each, "index" numbers the items
-- of a batch.  is_pending: the batch still waits for this one.  needs_check:
-- whoever ended the target could not tell whether that ends the wait.
CREATE TABLE trigger_idem.awaited (
	wait_id uuid NOT NULL,
	index int NOT NULL,
	run_id uuid NOT NULL,
	target uuid NOT NULL,
	is_batch boolean NOT NULL,
	is_cached boolean NOT NULL,
	is_pending boolean,
	needs_check boolean,
	status trigger_idem.run_status,
	CONSTRAINT awaited_pkey PRIMARY KEY (wait_id, index)
);
CREATE INDEX awaited_target_idx ON trigger_idem.awaited (target);
CREATE INDEX awaited_pending_idx ON trigger_idem.awaited (wait_id) WHERE is_pending IS NOT NULL;
CREATE INDEX awaited_unchecked_idx ON trigger_idem.awaited (wait_id) WHERE needs_check IS NOT NULL;

-- Tokens: completed by whoever has one, from anywhere.
CREATE TABLE trigger_idem.wait_token (
	token uuid NOT NULL,
	environment text COLLATE pg_catalog."C" NOT NULL,
	created_by text COLLATE pg_catalog."C" NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz,
	completed_at timestamptz,
	idempotency_key text COLLATE pg_catalog."C",
	output jsonb,
	CONSTRAINT wait_token_pkey PRIMARY KEY (token)
) WITH (fillfactor = 85);

CREATE FUNCTION trigger_idem.trigger_task_and_wait(
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
	OUT status trigger_idem.run_status,
	OUT output jsonb,
	OUT error jsonb)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_trigger_task_and_wait';
COMMENT ON FUNCTION trigger_idem.trigger_task_and_wait(text, jsonb, text, interval, interval, timestamptz,
	interval, int, text, text, int, text[], jsonb, text, text) IS
	'Trigger a run of a task as trigger_task() does, and wait until it is final';

CREATE FUNCTION trigger_idem.batch_trigger_task_and_wait(
	task_id text,
	items jsonb,
	idempotency_key text DEFAULT NULL,
	environment text DEFAULT NULL)
RETURNS TABLE (
	index int,
	run_id uuid,
	is_cached boolean,
	status trigger_idem.run_status,
	output jsonb,
	error jsonb)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_batch_trigger_task_and_wait';
COMMENT ON FUNCTION trigger_idem.batch_trigger_task_and_wait(text, jsonb, text, text) IS
	'Trigger many runs of a task as batch_trigger_task() does, and wait until all are final';

CREATE FUNCTION trigger_idem.run_wait(
	run_id uuid,
	timeout interval DEFAULT NULL,
	OUT status trigger_idem.run_status,
	OUT output jsonb,
	OUT error jsonb,
	OUT timed_out boolean)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_wait';
COMMENT ON FUNCTION trigger_idem.run_wait(uuid, interval) IS
	'Wait until a run is final, or for a time';

CREATE FUNCTION trigger_idem.wait_for(key text, duration interval)
RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_wait_for';
COMMENT ON FUNCTION trigger_idem.wait_for(text, interval) IS
	'Have the run sleep for a time, once for each key';

CREATE FUNCTION trigger_idem.wait_until(key text, wake_at timestamptz)
RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_wait_until';
COMMENT ON FUNCTION trigger_idem.wait_until(text, timestamptz) IS
	'Have the run sleep until a point in time, once for each key';

CREATE FUNCTION trigger_idem.wait_token_create(
	idempotency_key text DEFAULT NULL,
	timeout interval DEFAULT NULL,
	environment text DEFAULT NULL,
	OUT token uuid,
	OUT is_cached boolean)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_wait_token_create';
COMMENT ON FUNCTION trigger_idem.wait_token_create(text, interval, text) IS
	'Create a token that runs can wait for, once for each key';

CREATE FUNCTION trigger_idem.wait_token_complete(token uuid, output jsonb DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_wait_token_complete';
COMMENT ON FUNCTION trigger_idem.wait_token_complete(uuid, jsonb) IS
	'Complete a token, with an output for those who wait; true for the first who does';

CREATE FUNCTION trigger_idem.wait_for_token(
	token uuid,
	OUT ok boolean,
	OUT output jsonb)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_wait_for_token';
COMMENT ON FUNCTION trigger_idem.wait_for_token(uuid) IS
	'Wait until a token is completed or has timed out';
