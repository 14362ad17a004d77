-- A run is written when it is triggered and once more when it is final.  No
-- index stands on what that second write changes, and pages keep room for it,
-- so it stays a HOT update.  status is NULL while a queue entry exists.
CREATE TABLE trigger_idem.run (
	run_id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	run_at timestamptz NOT NULL,
	key_id uuid,
	idempotency_key_expires_at timestamptz,
	parent_run_id uuid,
	max_attempts int NOT NULL,
	priority int NOT NULL,
	ttl interval,
	environment text COLLATE pg_catalog."C" NOT NULL,
	task_id text COLLATE pg_catalog."C" NOT NULL,
	queue text COLLATE pg_catalog."C" NOT NULL,
	concurrency_key text COLLATE pg_catalog."C",
	triggered_by text COLLATE pg_catalog."C" NOT NULL,
	idempotency_key text COLLATE pg_catalog."C",
	idempotency_key_scope text COLLATE pg_catalog."C",
	tags text[],
	metadata jsonb,
	payload jsonb,
	status trigger_idem.run_status,
	attempt int,
	started_at timestamptz,
	finished_at timestamptz,
	output jsonb,
	error jsonb,
	CONSTRAINT run_pkey PRIMARY KEY (run_id)
) WITH (fillfactor = 85);

-- What a run has triggered; costs nothing for runs without a parent.
CREATE INDEX run_parent_idx ON trigger_idem.run (parent_run_id)
	WHERE parent_run_id IS NOT NULL;

-- The queue: one row for every unfinished run, deleted when it is final.
-- Ordered by ord, the time the run is visible from less its priority in seconds;
-- infinity while an attempt executes, so that claims do not walk over those.
-- What has not started by expires_at will not start any more.  A worker that is
-- a session of this server has a token, one outside has 0 and a lease.  A run
-- that waits has a wait_id and is visible from the end of its timeout, or never;
-- when the wait is over it is visible, and wait_over tells whether by what it
-- waited for or by the clock.  wait_attempt is the attempt that began the wait.
-- What a run has told of its progress stands here from its next commit on.
CREATE TABLE trigger_idem.queue_entry (
	run_id uuid NOT NULL,
	ord timestamptz NOT NULL,
	visible_from timestamptz NOT NULL,
	expires_at timestamptz,
	started_at timestamptz,
	first_started_at timestamptz,
	lease_expires_at timestamptz,
	worker_token bigint,
	parent_run_id uuid,
	wait_id uuid,
	attempt int NOT NULL,
	failures int NOT NULL,
	steady_attempt int NOT NULL,
	max_attempts int NOT NULL,
	priority int NOT NULL,
	wait_attempt int,
	wait_over boolean,
	is_awaited boolean,
	queue text COLLATE pg_catalog."C" NOT NULL,
	environment text COLLATE pg_catalog."C" NOT NULL,
	task_id text COLLATE pg_catalog."C" NOT NULL,
	concurrency_key text COLLATE pg_catalog."C",
	worker_id text COLLATE pg_catalog."C",
	progress float8,
	progress_message text,
	progressed_at timestamptz,
	CONSTRAINT queue_entry_pkey PRIMARY KEY (run_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

CREATE INDEX queue_entry_queue_ord_idx ON trigger_idem.queue_entry (queue, ord);

-- Entries that have a worker: to find those whose worker is gone, and to count
-- those that share a concurrency limit.
CREATE INDEX queue_entry_executing_idx ON trigger_idem.queue_entry (environment, task_id, concurrency_key)
	WHERE worker_token IS NOT NULL;

-- Unfinished children of a run, to cancel them with it.
CREATE INDEX queue_entry_parent_idx ON trigger_idem.queue_entry (parent_run_id)
	WHERE parent_run_id IS NOT NULL;

-- Attempts that have ended; the one executing is in the queue entry.  replayed:
-- the first 8 bytes of the ids of steps whose stored output it got.
CREATE TABLE trigger_idem.attempt (
	run_id uuid NOT NULL,
	attempt int NOT NULL,
	status text COLLATE pg_catalog."C" NOT NULL,
	worker_id text COLLATE pg_catalog."C",
	started_at timestamptz NOT NULL,
	finished_at timestamptz NOT NULL,
	steps_done int,
	steps_replayed int,
	error jsonb,
	replayed bytea[],
	CONSTRAINT attempt_pkey PRIMARY KEY (run_id, attempt)
);

CREATE FUNCTION trigger_idem.current_run_id()
RETURNS uuid
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'trigger_idem_current_run_id';
COMMENT ON FUNCTION trigger_idem.current_run_id() IS
	'Id of the run being executed, NULL outside a run';

CREATE FUNCTION trigger_idem.current_attempt()
RETURNS int
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'trigger_idem_current_attempt';
COMMENT ON FUNCTION trigger_idem.current_attempt() IS
	'Number of the attempt being executed, NULL outside a run';
