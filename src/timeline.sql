-- What happened to a run, in order.  All of it is read through the views, with
-- the rights of the caller: what one may not see there, this does not tell.  The
-- search path is pinned, so that bare operators and functions are the server's.

-- A run that the caller may see, as the view has it: 42704
CREATE FUNCTION trigger_idem.run_require(run_id uuid)
RETURNS trigger_idem.runs
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	this trigger_idem.runs%ROWTYPE;
BEGIN
	IF run_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'run_id must not be null';
	END IF;
	SELECT * INTO this FROM trigger_idem.runs r WHERE r.run_id = run_require.run_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('run %s does not exist', run_id),
			HINT = 'The view trigger_idem.runs has those that you may see.';
	END IF;
	RETURN this;
END $$;
COMMENT ON FUNCTION trigger_idem.run_require(uuid) IS
	'The row of the view runs, or an error; for the functions that show runs';

-- An error on one line: code and message of a handler's, the text of any other
CREATE FUNCTION trigger_idem.error_summary(error jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN error ->> 'message' IS NOT NULL THEN concat_ws(' ', error ->> 'code', error ->> 'message')
	ELSE left(error::text, 200)
END;
COMMENT ON FUNCTION trigger_idem.error_summary(jsonb) IS
	'Code and message of an error as it is stored';

CREATE FUNCTION trigger_idem.run_timeline(run_id uuid)
RETURNS TABLE (
	at timestamptz,
	event text,
	attempt int,
	step text[],
	duration interval,
	description text,
	data jsonb)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
SET jit = off
SET DateStyle = ISO
AS $$
#variable_conflict use_column
DECLARE
	this trigger_idem.runs%ROWTYPE;
	present constant timestamptz := clock_timestamp();
BEGIN
	this := trigger_idem.run_require(run_timeline.run_id);
	RETURN QUERY
	WITH attempt AS MATERIALIZED (
		SELECT a.*, lead(a.started_at) OVER (ORDER BY a.attempt) AS next_started_at,
			max(a.attempt) OVER () AS last_attempt
		FROM trigger_idem.attempts a WHERE a.run_id = this.run_id),
	event (at, rank, event, attempt, step, duration, description, data) AS (
		SELECT this.created_at, 1, 'triggered', NULL::int, NULL::text[], NULL::interval,
			concat_ws(', ', 'by ' || this.triggered_by, 'with key ' || quote_literal(this.idempotency_key),
				'in run ' || this.parent_run_id), this.payload
		UNION ALL
		SELECT this.created_at, 2, 'delayed', NULL, NULL, this.first_run_at - this.created_at,
			'until ' || this.first_run_at, NULL
		WHERE this.first_run_at > this.created_at
		UNION ALL
		SELECT present, 3, 'held', NULL, NULL, NULL, this.held_because, NULL
		WHERE this.held_because IS NOT NULL
		UNION ALL
		SELECT a.started_at, 4, 'claimed', a.attempt, NULL,
			CASE WHEN a.attempt = 1 THEN a.started_at - this.first_run_at END,
			'by ' || a.worker_id, NULL
		FROM attempt a
		UNION ALL
		SELECT s.started_at, 5, 'step', s.attempt, s.step, s.finished_at - s.started_at,
			nullif(concat_ws(', ',
				CASE WHEN s.scope = 'global' THEN 'global' END,
				CASE WHEN s.replayed > 0 THEN
					format('replayed in %s later attempt%s', s.replayed, CASE WHEN s.replayed > 1 THEN 's' END) END), ''),
			s.output
		FROM trigger_idem.steps s WHERE s.run_id = this.run_id
		UNION ALL
		SELECT w.started_at, 6, 'wait', w.attempt, w.wait, COALESCE(w.ended_at, present) - w.started_at,
			concat_ws(', ', 'for ' || w.kind || ' ' || w.target,
				CASE WHEN w.target IS NULL THEN 'for ' || w.kind END,
				'until ' || w.until,
				CASE WHEN w.ended_at IS NULL AND this.status = 'waiting' THEN 'still waiting'
					WHEN w.timed_out THEN 'timed out' END), NULL
		FROM trigger_idem.waits w WHERE w.run_id = this.run_id
		UNION ALL
		SELECT c.created_at, 7, 'child', NULL, NULL, COALESCE(c.finished_at, present) - c.created_at,
			format('%s %s, %s', c.task_id, c.run_id, c.status), COALESCE(c.error, c.output)
		FROM trigger_idem.runs c WHERE c.parent_run_id = this.run_id
		UNION ALL
		SELECT a.finished_at, 8, 'attempt ' || a.status, a.attempt, NULL, a.finished_at - a.started_at,
			trigger_idem.error_summary(a.error), a.error
		FROM attempt a WHERE a.finished_at IS NOT NULL
		UNION ALL
		SELECT a.finished_at, 9, 'retry', a.attempt + 1, NULL,
			COALESCE(a.next_started_at, this.run_at) - a.finished_at,
			CASE WHEN a.next_started_at IS NULL THEN 'due ' || this.run_at
				ELSE 'begun ' || a.next_started_at END, NULL
		FROM attempt a
		WHERE a.status IN ('failed', 'crashed')
			AND (a.next_started_at IS NOT NULL OR this.status IN ('delayed', 'queued'))
		UNION ALL
		SELECT p.reported_at, 10, 'progress', NULL, NULL, NULL,
			concat_ws(', ', trigger_idem.progress_text(p.fraction), p.message), NULL
		FROM trigger_idem.run_progress_of(this.run_id) p
		WHERE p.reported_at IS NOT NULL
		UNION ALL
		SELECT this.finished_at, 11, this.status::text, NULL, NULL, this.finished_at - this.created_at,
			trigger_idem.error_summary(this.error), COALESCE(this.error, this.output)
		WHERE this.finished_at IS NOT NULL)
	SELECT e.at, e.event, e.attempt, e.step, e.duration, e.description, e.data
	FROM event e
	ORDER BY e.at, e.rank, e.attempt, cardinality(e.step);
END $$;
COMMENT ON FUNCTION trigger_idem.run_timeline(uuid) IS
	'What happened to a run, in order, one row an event';
