-- Finished steps of runs.  step_id is the step's idempotency key in binary, a
-- full SHA-256.  The attempt is part of the primary key so that the worker
-- which takes a run over never waits for an uncommitted row of a stopped one;
-- fencing sees to it that only one of the two commits.
CREATE TABLE trigger_idem.step (
	run_id uuid NOT NULL,
	step_id bytea NOT NULL,
	attempt int NOT NULL,
	started_at timestamptz NOT NULL,
	finished_at timestamptz NOT NULL,
	path text[] COLLATE pg_catalog."C" NOT NULL,
	output jsonb,
	CONSTRAINT step_pkey PRIMARY KEY (run_id, step_id, attempt)
);

-- Steps of scope global: once per environment and role, until they expire.
CREATE TABLE trigger_idem.global_step (
	step_id bytea NOT NULL,
	environment text COLLATE pg_catalog."C" NOT NULL,
	role text COLLATE pg_catalog."C" NOT NULL,
	path text[] COLLATE pg_catalog."C" NOT NULL,
	run_id uuid,
	attempt int,
	started_at timestamptz NOT NULL,
	finished_at timestamptz NOT NULL,
	expires_at timestamptz,
	output jsonb,
	CONSTRAINT global_step_pkey PRIMARY KEY (step_id)
);

CREATE FUNCTION trigger_idem.run_once(
	key text,
	callback regproc,
	args jsonb DEFAULT NULL,
	scope text DEFAULT 'run',
	ttl interval DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_once';
COMMENT ON FUNCTION trigger_idem.run_once(text, regproc, jsonb, text, interval) IS
	'Call a function once per run and key; later calls return its stored output';

CREATE FUNCTION trigger_idem.run_once_sql(
	key text,
	command text,
	args jsonb DEFAULT NULL,
	scope text DEFAULT 'run',
	ttl interval DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_once_sql';
COMMENT ON FUNCTION trigger_idem.run_once_sql(text, text, jsonb, text, interval) IS
	'Run an SQL command once per run and key; later calls return its stored output';

CREATE FUNCTION trigger_idem.run_once_local_only(
	key text,
	callback regproc,
	args jsonb DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_once_local_only';
COMMENT ON FUNCTION trigger_idem.run_once_local_only(text, regproc, jsonb) IS
	'Call a function at every attempt with a stable key, storing nothing';
