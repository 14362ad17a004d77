-- What must hold between the rows of trigger_idem, whatever was done to it: a row
-- for each violation, none if all is well.  One statement, to be run by a superuser
-- in any database that has the extension, while others work there too:
--
--     psql -d DATABASE -f test/fuzz/store_check.sql
--
-- A prune() that was given a small batch may have removed some attempts or steps of
-- a finished run and not yet others.  SET store_check.partly_pruned = on then.
WITH entry AS MATERIALIZED (
	SELECT e.*,
		e.worker_token IS NOT NULL AS is_executing,
		e.worker_token IS NULL AND e.wait_id IS NOT NULL AND e.wait_over IS NULL AS is_waiting,
		-- attempts that have ended
		e.attempt - (e.worker_token IS NOT NULL)::int AS ended
	FROM trigger_idem.queue_entry e
), run AS MATERIALIZED (
	SELECT r.run_id, r.key_id, r.parent_run_id, r.max_attempts, r.priority, r.environment, r.task_id, r.queue,
		r.concurrency_key, r.status, r.attempt, r.started_at, r.finished_at,
		r.output IS NOT NULL AS has_output, r.error IS NOT NULL AS has_error,
		e.run_id IS NOT NULL AS has_entry,
		coalesce(e.attempt, r.attempt) AS last_attempt, coalesce(e.ended, r.attempt) AS ended
	FROM trigger_idem.run r LEFT JOIN entry e USING (run_id)
), attempts AS MATERIALIZED (
	SELECT run_id, count(*) AS n, min(attempt) AS first, max(attempt) AS last,
		count(*) FILTER (WHERE status IN ('failed', 'crashed', 'timed_out')) AS failures,
		max(attempt) FILTER (WHERE status IN ('failed', 'crashed', 'timed_out')) AS last_failure
	FROM trigger_idem.attempt GROUP BY run_id
), live_key AS MATERIALIZED (
	SELECT * FROM trigger_idem.idempotency_key WHERE expires_at IS NULL OR expires_at > clock_timestamp()
), task AS MATERIALIZED (
	SELECT * FROM trigger_idem.task
), pending AS MATERIALIZED (
	-- what waiting runs still wait for
	SELECT a.*, w.kind = 'token' AS is_token
	FROM entry e JOIN trigger_idem.awaited a ON a.wait_id = e.wait_id AND a.run_id = e.run_id
		JOIN trigger_idem.wait w ON w.wait_id = e.wait_id AND w.run_id = e.run_id
	WHERE e.is_waiting AND (NOT a.is_batch OR a.is_pending) AND a.needs_check IS NULL
)

-- ---------- Runs and their queue entries ----------

SELECT 'an unfinished run has no queue entry' AS violation, run_id::text AS what, NULL::text AS detail
FROM run WHERE status IS NULL AND NOT has_entry
UNION ALL
SELECT 'a final run has a queue entry', run_id::text, status::text
FROM run WHERE status IS NOT NULL AND has_entry
UNION ALL
SELECT 'a queue entry has no run', run_id::text, NULL
FROM entry WHERE run_id NOT IN (SELECT run_id FROM run)
UNION ALL
SELECT 'a run and its queue entry disagree', r.run_id::text, NULL
FROM run r JOIN entry e USING (run_id)
WHERE (r.environment, r.task_id, r.queue, r.concurrency_key, r.priority, r.max_attempts, r.parent_run_id)
	IS DISTINCT FROM (e.environment, e.task_id, e.queue, e.concurrency_key, e.priority, e.max_attempts, e.parent_run_id)
UNION ALL
SELECT 'a run is not named by a UUIDv7', run_id::text, NULL
FROM run WHERE run_id::text !~ '^.{14}7.{4}[89ab]'
UNION ALL
SELECT 'the status of a run is not a final one', run_id::text, status::text
FROM run WHERE status IN ('delayed', 'queued', 'executing', 'waiting')
UNION ALL
SELECT 'a run is final and unfinished at once', run_id::text, status::text
FROM run WHERE num_nulls(status, attempt, finished_at) NOT IN (0, 3)
	OR (status IS NULL AND (has_output OR has_error OR started_at IS NOT NULL))
UNION ALL
SELECT 'a run has what its status does not give', run_id::text, status::text
FROM run
WHERE (status = 'completed' AND has_error) OR (status <> 'completed' AND has_output)
	OR (status IN ('completed', 'failed', 'crashed', 'timed_out') AND attempt < 1)
	OR (status = 'expired' AND attempt <> 0)
	OR (status IS NOT NULL AND (attempt = 0) <> (started_at IS NULL))
UNION ALL
SELECT 'a run has no task', run_id::text, task_id
FROM run WHERE task_id NOT IN (SELECT task_id FROM task)
UNION ALL
SELECT 'a run is its own parent', run_id::text, NULL
FROM run WHERE parent_run_id = run_id

-- ---------- Queue entries ----------

UNION ALL
SELECT 'a queue entry has half a worker', run_id::text, worker_id
FROM entry
WHERE num_nulls(worker_token, worker_id, started_at) NOT IN (0, 3)
	OR (lease_expires_at IS NOT NULL) <> (worker_token IS NOT DISTINCT FROM 0)
UNION ALL
SELECT 'a queue entry is at a wrong place', run_id::text, ord::text
FROM entry
WHERE ord <> CASE WHEN is_executing THEN 'infinity' WHEN NOT isfinite(visible_from) THEN visible_from
	ELSE visible_from - priority * interval '1 second' END
UNION ALL
SELECT 'a queue entry is not visible, ever', run_id::text, visible_from::text
FROM entry WHERE NOT isfinite(visible_from) AND NOT is_waiting AND NOT is_executing
UNION ALL
SELECT 'the numbers of a queue entry are impossible', run_id::text,
	format('attempt %s, failures %s, steady %s, of %s', attempt, failures, steady_attempt, max_attempts)
FROM entry
WHERE attempt < 0 OR failures < 0 OR failures > attempt OR failures >= max_attempts
	OR max_attempts NOT BETWEEN 1 AND 10000 OR priority NOT BETWEEN 0 AND 1000000
	OR steady_attempt NOT BETWEEN 1 AND attempt + 1
	OR (attempt = 0) <> (first_started_at IS NULL)
UNION ALL
SELECT 'a queue entry counts failures that were none', e.run_id::text,
	format('%s, steady %s', e.failures, e.steady_attempt)
FROM entry e LEFT JOIN attempts a USING (run_id)
WHERE e.failures <> coalesce(a.failures, 0) OR e.steady_attempt <> coalesce(a.last_failure, 0) + 1

-- ---------- Attempts ----------

UNION ALL
SELECT 'an attempt has no run', a.run_id::text, NULL
FROM attempts a WHERE a.run_id NOT IN (SELECT run_id FROM run)
UNION ALL
SELECT 'attempts of a run are missing', r.run_id::text, format('%s of %s', coalesce(a.n, 0), r.ended)
FROM run r LEFT JOIN attempts a USING (run_id)
WHERE coalesce(a.n, 0) < r.ended
	AND (r.has_entry OR coalesce(current_setting('store_check.partly_pruned', true), '') <> 'on')
UNION ALL
SELECT 'a run has attempts that it has not made', r.run_id::text, format('%s to %s of %s', a.first, a.last, r.ended)
FROM run r JOIN attempts a USING (run_id)
WHERE a.first < 1 OR a.last > r.ended
UNION ALL
SELECT 'the status of an attempt is none', run_id::text, status
FROM trigger_idem.attempt
WHERE status NOT IN ('completed', 'failed', 'crashed', 'timed_out', 'canceled', 'waiting', 'released')
UNION ALL
SELECT 'an attempt goes on after its run was final', a.run_id::text, format('%s is %s', a.attempt, a.status)
FROM trigger_idem.attempt a JOIN run r USING (run_id)
WHERE a.status IN ('completed', 'timed_out', 'canceled') AND (r.has_entry OR a.attempt < r.attempt)
UNION ALL
SELECT 'a run has not ended as its last attempt', r.run_id::text, format('%s, %s', r.status, a.status)
FROM run r JOIN trigger_idem.attempt a USING (run_id, attempt)
WHERE a.status <> r.status::text AND (r.status <> 'canceled' OR a.status IN ('completed', 'timed_out'))
UNION ALL
SELECT 'an attempt has what its status does not give', run_id::text, format('%s is %s', attempt, status)
FROM trigger_idem.attempt
WHERE (error IS NOT NULL AND status IN ('completed', 'released', 'waiting'))
	OR num_nulls(steps_done, steps_replayed) = 1

-- ---------- Steps ----------

UNION ALL
SELECT 'a step has no run, or no attempt of it', s.run_id::text, format('attempt %s', s.attempt)
FROM trigger_idem.step s LEFT JOIN run r USING (run_id)
WHERE r.run_id IS NULL OR s.attempt NOT BETWEEN 1 AND r.last_attempt
UNION ALL
SELECT 'a step was done twice', run_id::text, encode(step_id, 'hex')
FROM trigger_idem.step GROUP BY run_id, step_id HAVING count(*) > 1
UNION ALL
SELECT 'a step has no proper name', coalesce(run_id::text, 'global'), path::text
FROM (SELECT run_id, step_id, path FROM trigger_idem.step
	UNION ALL SELECT run_id, step_id, path FROM trigger_idem.global_step) s
WHERE octet_length(step_id) <> 32 OR cardinality(path) = 0 OR array_position(path, NULL) IS NOT NULL

-- ---------- Keys ----------

UNION ALL
SELECT 'a live key stands for a run that is not there', k.key_id::text, k.run_id::text
FROM live_key k WHERE k.status IS NULL AND k.run_id NOT IN (SELECT run_id FROM run)
UNION ALL
SELECT 'a live key has another status than its run', k.key_id::text, format('%s, run %s', k.status, r.status)
FROM live_key k JOIN run r USING (run_id) WHERE k.status IS DISTINCT FROM r.status
UNION ALL
SELECT 'a key and its run disagree', k.key_id::text, k.run_id::text
FROM trigger_idem.idempotency_key k JOIN run r USING (run_id)
WHERE (k.key_id, k.environment, k.task_id) IS DISTINCT FROM (r.key_id, r.environment, r.task_id)
UNION ALL
SELECT 'a key has no task', key_id::text, task_id
FROM trigger_idem.idempotency_key WHERE task_id NOT IN (SELECT task_id FROM task)
UNION ALL
SELECT 'a key is not one', key_id::text, scope
FROM trigger_idem.idempotency_key
WHERE octet_length(idempotency_key) <> 32 OR octet_length(payload_digest) <> 32
	OR status IN ('delayed', 'queued', 'executing', 'waiting')
	OR scope NOT IN ('run', 'attempt', 'global', 'schedule')
	OR (scope = 'schedule' AND expires_at IS NOT NULL)

-- ---------- Waits ----------

UNION ALL
SELECT 'a wait has no run, or no attempt of it', w.run_id::text, format('attempt %s', w.attempt)
FROM trigger_idem.wait w LEFT JOIN run r USING (run_id)
WHERE r.run_id IS NULL OR w.attempt NOT BETWEEN 1 AND r.last_attempt OR w.steady_attempt NOT BETWEEN 1 AND w.attempt
UNION ALL
SELECT 'a queue entry names a wait that is not there', e.run_id::text, e.wait_id::text
FROM entry e WHERE e.wait_id IS NOT NULL
	AND NOT EXISTS (SELECT FROM trigger_idem.wait w WHERE w.run_id = e.run_id AND w.wait_id = e.wait_id)
UNION ALL
SELECT 'a queue entry has half a wait', e.run_id::text, e.wait_id::text
FROM entry e
WHERE num_nulls(e.wait_id, e.wait_attempt) = 1 OR (e.wait_id IS NULL AND e.wait_over IS NOT NULL)
	OR (e.is_executing AND e.wait_id IS NOT NULL AND e.wait_over IS NULL) OR e.wait_attempt > e.attempt
UNION ALL
SELECT 'a wait goes on that its run does not wait for', w.run_id::text, w.wait_id::text
FROM trigger_idem.wait w LEFT JOIN entry e USING (run_id)
WHERE w.ended_at IS NULL AND e.wait_id IS DISTINCT FROM w.wait_id
UNION ALL
SELECT 'a wait is none of its kind', run_id::text, kind
FROM trigger_idem.wait
WHERE kind NOT IN ('time', 'run', 'task', 'batch', 'token')
	OR (kind IN ('time', 'batch')) <> (target IS NULL) OR (kind = 'task') <> (is_cached IS NOT NULL)
	OR (kind = 'time' AND until IS NULL) OR (ended_at IS NULL AND timed_out IS NOT NULL)
UNION ALL
SELECT 'what is awaited belongs to no wait', a.run_id::text, a.target::text
FROM trigger_idem.awaited a LEFT JOIN trigger_idem.wait w USING (wait_id, run_id)
WHERE w.wait_id IS NULL OR a.is_batch <> (w.kind = 'batch') OR (a.is_pending IS NOT NULL AND NOT a.is_batch)
UNION ALL
SELECT 'items of a wait are missing', min(a.run_id::text), a.wait_id::text
FROM trigger_idem.awaited a
GROUP BY a.wait_id HAVING min(a.index) <> 0 OR max(a.index) <> count(*) - 1
UNION ALL
SELECT 'a run waits for nothing', e.run_id::text, w.kind
FROM entry e JOIN trigger_idem.wait w USING (run_id, wait_id)
WHERE e.is_waiting AND CASE WHEN w.kind = 'time' THEN NOT isfinite(e.visible_from)
	ELSE NOT EXISTS (SELECT FROM trigger_idem.awaited a WHERE a.wait_id = w.wait_id AND a.run_id = w.run_id
		AND (NOT a.is_batch OR a.is_pending OR a.needs_check)) END
UNION ALL
SELECT 'a run waits for what is not there', p.run_id::text, p.target::text
FROM pending p
WHERE CASE WHEN p.is_token THEN p.target NOT IN (SELECT token FROM trigger_idem.wait_token)
	ELSE p.target NOT IN (SELECT run_id FROM run) END
UNION ALL
SELECT 'a run waits for what has ended', p.run_id::text, p.target::text
FROM pending p
WHERE p.target IN (SELECT run_id FROM run WHERE status IS NOT NULL)
	OR p.target IN (SELECT token FROM trigger_idem.wait_token WHERE completed_at IS NOT NULL)
UNION ALL
SELECT 'nobody will wake a run that waits', p.run_id::text, p.target::text
FROM pending p JOIN entry t ON t.run_id = p.target WHERE t.is_awaited IS NULL
UNION ALL
SELECT 'a token is output and not completed', token::text, NULL
FROM trigger_idem.wait_token WHERE completed_at IS NULL AND output IS NOT NULL

-- ---------- Tasks and schedules ----------

UNION ALL
SELECT 'a task has impossible settings', task_id, NULL
FROM task
WHERE max_attempts NOT BETWEEN 1 AND 10000 OR min_backoff < '0' OR max_backoff < '0'
	OR NOT backoff_factor BETWEEN 1 AND 1000 OR max_duration <= '0' OR lease_duration < '1 second'
	OR idempotency_key_ttl <= '0' OR concurrency_limit < 1 OR on_payload_mismatch NOT IN ('ignore', 'error')
	OR array_position(release_key_on, NULL) IS NOT NULL
	OR NOT release_key_on <@ '{completed,failed,crashed,timed_out,canceled,expired}'
	OR num_nulls(handler_schema, handler_name, handler_owner) NOT IN (0, 3)
UNION ALL
SELECT 'a name is too long or empty', kind, name
FROM (SELECT 'task', task_id FROM task UNION ALL SELECT 'queue', queue FROM task UNION ALL SELECT 'queue', queue FROM run
	UNION ALL SELECT 'group', idempotency_group FROM task UNION ALL SELECT 'environment', environment FROM trigger_idem.environment
	UNION ALL SELECT 'queue', queue FROM trigger_idem.paused_queue) n(kind, name)
WHERE octet_length(name) NOT BETWEEN 1 AND 255
UNION ALL
SELECT 'a group of keys belongs to nobody', task_id, idempotency_group
FROM task WHERE idempotency_group NOT IN (SELECT idempotency_group FROM trigger_idem.idempotency_group)
UNION ALL
SELECT 'a schedule is not proper', schedule_id, NULL
FROM trigger_idem.schedule
WHERE catch_up NOT IN ('none', 'latest', 'all') OR jsonb_typeof(payload) <> 'object'
	OR (last_run_id IS NOT NULL AND last_tick IS NULL) OR NOT isfinite(last_tick)

-- ---------- Environments and access ----------

UNION ALL
SELECT 'something is in no environment', what, environment
FROM (SELECT 'run', environment FROM run UNION ALL SELECT 'key', environment FROM trigger_idem.idempotency_key
	UNION ALL SELECT 'global step', environment FROM trigger_idem.global_step
	UNION ALL SELECT 'token', environment FROM trigger_idem.wait_token
	UNION ALL SELECT 'schedule', environment FROM trigger_idem.schedule) e(what, environment)
WHERE environment <> 'default' AND environment NOT IN (SELECT environment FROM trigger_idem.environment)
UNION ALL
SELECT 'an access is none', role, access
FROM trigger_idem.access_entry
WHERE access NOT IN ('trigger', 'monitor', 'work', 'admin') OR role = '';
