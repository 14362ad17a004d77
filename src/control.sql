-- Queues from which nothing is claimed.
CREATE TABLE trigger_idem.paused_queue (
	queue text COLLATE pg_catalog."C" NOT NULL,
	paused_at timestamptz NOT NULL,
	CONSTRAINT paused_queue_pkey PRIMARY KEY (queue)
);

CREATE FUNCTION trigger_idem.run_cancel(run_id uuid)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_cancel';
COMMENT ON FUNCTION trigger_idem.run_cancel(uuid) IS
	'Cancel a run and its unfinished children; true if it was not final';

CREATE FUNCTION trigger_idem.run_replay(run_id uuid)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_replay';
COMMENT ON FUNCTION trigger_idem.run_replay(uuid) IS
	'Trigger a run with the payload and the options of another one';

CREATE FUNCTION trigger_idem.queue_pause(queue text)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_queue_pause';
COMMENT ON FUNCTION trigger_idem.queue_pause(text) IS
	'Have nothing claimed from a queue; what executes goes on';

CREATE FUNCTION trigger_idem.queue_resume(queue text)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_queue_resume';
COMMENT ON FUNCTION trigger_idem.queue_resume(text) IS
	'Have a paused queue worked again';
