-- Tasks.  The handler is stored by name, roles too: a dump restores anywhere,
-- and pg_upgrade refuses columns of the reg* types.  A dropped task that still
-- has runs or keys stays as a row with dropped_at, so that its name remains its
-- owner's.
CREATE TABLE trigger_idem.task (
	task_id text COLLATE pg_catalog."C" NOT NULL,
	owner text COLLATE pg_catalog."C" NOT NULL,
	run_as text COLLATE pg_catalog."C" NOT NULL,
	handler_schema text COLLATE pg_catalog."C",
	handler_name text COLLATE pg_catalog."C",
	handler_owner text COLLATE pg_catalog."C",
	queue text COLLATE pg_catalog."C" NOT NULL,
	max_attempts int NOT NULL,
	min_backoff interval NOT NULL,
	max_backoff interval NOT NULL,
	backoff_factor float8 NOT NULL,
	backoff_jitter boolean NOT NULL,
	max_duration interval,
	lease_duration interval NOT NULL,
	idempotency_key_ttl interval,
	release_key_on text[] NOT NULL,
	idempotency_group text COLLATE pg_catalog."C",
	on_payload_mismatch text NOT NULL,
	concurrency_limit int,
	idempotency_key_required boolean NOT NULL,
	created_at timestamptz NOT NULL,
	dropped_at timestamptz,
	CONSTRAINT task_pkey PRIMARY KEY (task_id)
);

-- An idempotency group belongs to the role that used it first.
CREATE TABLE trigger_idem.idempotency_group (
	idempotency_group text COLLATE pg_catalog."C" NOT NULL,
	owner text COLLATE pg_catalog."C" NOT NULL,
	CONSTRAINT idempotency_group_pkey PRIMARY KEY (idempotency_group)
);

CREATE FUNCTION trigger_idem.task_create(
	task_id text,
	handler regproc DEFAULT NULL,
	queue text DEFAULT 'default',
	max_attempts int DEFAULT 3,
	min_backoff interval DEFAULT '1 second',
	max_backoff interval DEFAULT '1 minute',
	backoff_factor float8 DEFAULT 2,
	backoff_jitter boolean DEFAULT true,
	max_duration interval DEFAULT NULL,
	lease_duration interval DEFAULT '30 seconds',
	idempotency_key_ttl interval DEFAULT '30 days',
	release_key_on text[] DEFAULT '{failed,crashed,timed_out,expired}',
	idempotency_group text DEFAULT NULL,
	on_payload_mismatch text DEFAULT 'ignore',
	concurrency_limit int DEFAULT NULL,
	run_as regrole DEFAULT NULL,
	idempotency_key_required boolean DEFAULT false)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_task_create';
COMMENT ON FUNCTION trigger_idem.task_create(text, regproc, text, int, interval, interval,
	float8, boolean, interval, interval, interval, text[], text, text, int, regrole, boolean) IS
	'Define a task, or replace its settings';

CREATE FUNCTION trigger_idem.task_drop(task_id text)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_task_drop';
COMMENT ON FUNCTION trigger_idem.task_drop(text) IS
	'Drop a task; its runs wait until it is made again';
