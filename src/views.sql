-- The entries of the roles that were granted them.  The privileges tell, which belong to a
-- role and not to its name, and go with it: of each access, that on one function which comes
-- with it and with no smaller one.
CREATE VIEW trigger_idem.access_in_force AS
SELECT r.oid AS role_id, e.role, e.access, e.task_id
FROM trigger_idem.access_entry e
	JOIN pg_catalog.pg_roles r ON r.rolname OPERATOR(pg_catalog.=) e.role::pg_catalog.name
	JOIN pg_catalog.pg_proc p ON p.proname OPERATOR(pg_catalog.=) CASE
		WHEN e.access OPERATOR(pg_catalog.=) 'trigger' THEN 'trigger_task'::pg_catalog.name
		WHEN e.access OPERATOR(pg_catalog.=) 'monitor' THEN 'stats'::pg_catalog.name
		WHEN e.access OPERATOR(pg_catalog.=) 'work' THEN 'task_create'::pg_catalog.name
		WHEN e.access OPERATOR(pg_catalog.=) 'admin' THEN 'queue_pause'::pg_catalog.name
	END
WHERE p.pronamespace OPERATOR(pg_catalog.=) 'trigger_idem'::pg_catalog.regnamespace
	AND EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) a WHERE a.grantee OPERATOR(pg_catalog.=) r.oid);
COMMENT ON VIEW trigger_idem.access_in_force IS 'Accesses that count, for functions and for the view reader';

-- The roles that the reader is a member of, by inheritance or SET ROLE; from 16 on there are
-- memberships that give neither.
CREATE VIEW trigger_idem.own_role AS
SELECT r.oid, r.rolname
FROM pg_catalog.pg_roles r
WHERE CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.<) 160000
	THEN pg_catalog.pg_has_role(r.oid, 'MEMBER')
	ELSE pg_catalog.pg_has_role(r.oid, 'USAGE') OR pg_catalog.pg_has_role(r.oid, 'SET') END;
COMMENT ON VIEW trigger_idem.own_role IS 'The roles of a reader, for the view reader';

-- What the reader of a view may see: what was granted to him, in environments that
-- are open to him, and everything of tasks that he owns; access.c has the same rules
-- for functions.  Asked once per query, by scalar subqueries.
CREATE VIEW trigger_idem.reader AS
SELECT
	-- superusers and the owner of the extension
	(SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') FROM pg_catalog.pg_class c
	 WHERE c.oid OPERATOR(pg_catalog.=) 'trigger_idem.run'::pg_catalog.regclass) AS sees_all,
	ARRAY(SELECT r.rolname::pg_catalog.text FROM trigger_idem.own_role r) AS roles,
	ARRAY(SELECT t.task_id FROM trigger_idem.task t JOIN trigger_idem.own_role r
		  ON r.rolname OPERATOR(pg_catalog.=) t.owner::pg_catalog.name) AS tasks,
	-- of the next two, an empty one stands for all tasks
	ARRAY(SELECT e.task_id FROM trigger_idem.access_in_force e
		  WHERE e.access OPERATOR(pg_catalog.<>) 'trigger'
			AND pg_catalog.pg_has_role(e.role_id, 'USAGE')) AS monitored_tasks,
	ARRAY(SELECT e.task_id FROM trigger_idem.access_in_force e
		  WHERE e.access OPERATOR(pg_catalog.<>) 'monitor'
			AND pg_catalog.pg_has_role(e.role_id, 'USAGE')) AS triggered_tasks,
	EXISTS(SELECT FROM trigger_idem.access_in_force e
		  WHERE e.access OPERATOR(pg_catalog.=) 'admin' AND e.task_id OPERATOR(pg_catalog.=) ''
			AND pg_catalog.pg_has_role(e.role_id, 'USAGE')) AS is_admin,
	ARRAY(SELECT v.environment FROM trigger_idem.environment v
		  WHERE v.role IS NOT NULL AND NOT EXISTS (
			  SELECT FROM trigger_idem.own_role r
			  WHERE r.rolname OPERATOR(pg_catalog.=) v.role::pg_catalog.name)) AS closed_environments;
COMMENT ON VIEW trigger_idem.reader IS 'What the reader of a view may see, for the other views';

CREATE VIEW trigger_idem.runs WITH (security_barrier) AS
SELECT
	r.run_id,
	r.environment,
	r.task_id,
	CASE
		WHEN r.status IS NOT NULL THEN r.status
		WHEN e.worker_id IS NOT NULL THEN 'executing'::trigger_idem.run_status
		WHEN e.first_started_at IS NULL AND e.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()
			THEN 'expired'::trigger_idem.run_status
		WHEN e.visible_from OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
			THEN CASE WHEN e.wait_id IS NOT NULL AND e.wait_over IS NULL
				THEN 'waiting'::trigger_idem.run_status
				ELSE 'delayed'::trigger_idem.run_status END
		ELSE 'queued'::trigger_idem.run_status
	END AS status,
	r.payload,
	r.output,
	r.error,
	r.idempotency_key,
	r.idempotency_key_scope,
	r.idempotency_key_expires_at,
	r.parent_run_id,
	COALESCE(r.attempt, e.attempt) AS attempt,
	r.max_attempts,
	r.queue,
	r.priority,
	r.tags,
	r.metadata,
	r.created_at,
	COALESCE(CASE WHEN pg_catalog.isfinite(e.visible_from) THEN e.visible_from END, r.run_at) AS run_at,
	COALESCE(r.started_at, e.first_started_at) AS started_at,
	COALESCE(r.finished_at, CASE
		WHEN e.first_started_at IS NULL AND e.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()
			THEN e.expires_at
	END) AS finished_at,
	r.triggered_by,
	CASE WHEN r.status IS NULL AND e.worker_id IS NULL AND t.dropped_at IS NOT NULL
		THEN 'the task was dropped; the run waits until task_create() makes it again'
	END AS held_because,
	r.concurrency_key,
	r.ttl,
	r.run_at AS first_run_at,
	(SELECT pg_catalog.encode(k.idempotency_key, 'hex') FROM trigger_idem.idempotency_key k
	 WHERE k.key_id OPERATOR(pg_catalog.=) r.key_id
		AND k.run_id OPERATOR(pg_catalog.=) r.run_id) AS idempotency_key_hex
FROM trigger_idem.run r
	LEFT JOIN trigger_idem.queue_entry e ON e.run_id OPERATOR(pg_catalog.=) r.run_id
	LEFT JOIN trigger_idem.task t ON t.task_id OPERATOR(pg_catalog.=) r.task_id
WHERE (SELECT me.sees_all FROM trigger_idem.reader me)
	OR r.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.tasks FROM trigger_idem.reader me)::pg_catalog.text[])
	OR (r.environment OPERATOR(pg_catalog.<>) ALL ((SELECT me.closed_environments FROM trigger_idem.reader me)::pg_catalog.text[])
		AND ((SELECT '' OPERATOR(pg_catalog.=) ANY (me.monitored_tasks) FROM trigger_idem.reader me)
			OR r.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.monitored_tasks FROM trigger_idem.reader me)::pg_catalog.text[])
			OR (r.triggered_by OPERATOR(pg_catalog.=) ANY ((SELECT me.roles FROM trigger_idem.reader me)::pg_catalog.text[])
				AND ((SELECT '' OPERATOR(pg_catalog.=) ANY (me.triggered_tasks) FROM trigger_idem.reader me)
					OR r.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.triggered_tasks FROM trigger_idem.reader me)::pg_catalog.text[])))));
COMMENT ON VIEW trigger_idem.runs IS 'Runs, each with where it stands';

CREATE VIEW trigger_idem.attempts WITH (security_barrier) AS
SELECT a.run_id, a.attempt, a.status, a.worker_id, a.started_at, a.finished_at, a.error,
	a.steps_done, a.steps_replayed
FROM (
	SELECT run_id, attempt, status::pg_catalog.text AS status, worker_id, started_at, finished_at,
		error, steps_done, steps_replayed
	FROM trigger_idem.attempt
	UNION ALL
	SELECT run_id, attempt, 'executing', worker_id, started_at, NULL, NULL, NULL, NULL
	FROM trigger_idem.queue_entry
	WHERE worker_id IS NOT NULL
) a
WHERE EXISTS (SELECT FROM trigger_idem.runs r WHERE r.run_id OPERATOR(pg_catalog.=) a.run_id);
COMMENT ON VIEW trigger_idem.attempts IS 'Attempts of runs, the executing ones included';

-- A UNION ALL at the top of a view is no barrier: the planner flattens it, and pushes the
-- reader's conditions into its parts.  So these are barriers of their own.
CREATE VIEW trigger_idem.run_steps WITH (security_barrier) AS
SELECT s.run_id, s.path AS step, s.path[pg_catalog.array_upper(s.path, 1)] AS key,
	pg_catalog.encode(s.step_id, 'hex') AS idempotency_key, s.output, s.attempt,
	s.started_at, s.finished_at, 'run'::pg_catalog.text AS scope, NULL::pg_catalog.timestamptz AS expires_at,
	(SELECT pg_catalog.count(*)::pg_catalog.int4 FROM trigger_idem.attempt a
	 WHERE a.run_id OPERATOR(pg_catalog.=) s.run_id AND a.attempt OPERATOR(pg_catalog.>) s.attempt
		AND pg_catalog.substr(s.step_id, 1, 8) OPERATOR(pg_catalog.=) ANY (a.replayed)) AS replayed
FROM trigger_idem.step s
WHERE EXISTS (SELECT FROM trigger_idem.runs r WHERE r.run_id OPERATOR(pg_catalog.=) s.run_id);
COMMENT ON VIEW trigger_idem.run_steps IS 'Finished steps of scope run, for the view steps';

CREATE VIEW trigger_idem.global_steps WITH (security_barrier) AS
SELECT g.run_id, g.path AS step, g.path[pg_catalog.array_upper(g.path, 1)] AS key,
	pg_catalog.encode(g.step_id, 'hex') AS idempotency_key, g.output, g.attempt,
	g.started_at, g.finished_at, 'global'::pg_catalog.text AS scope, g.expires_at,
	NULL::pg_catalog.int4 AS replayed
FROM trigger_idem.global_step g
WHERE (SELECT me.sees_all FROM trigger_idem.reader me)
	OR (g.environment OPERATOR(pg_catalog.<>) ALL ((SELECT me.closed_environments FROM trigger_idem.reader me)::pg_catalog.text[])
		AND ((SELECT '' OPERATOR(pg_catalog.=) ANY (me.monitored_tasks) FROM trigger_idem.reader me)
			OR g.role OPERATOR(pg_catalog.=) ANY ((SELECT me.roles FROM trigger_idem.reader me)::pg_catalog.text[])));
COMMENT ON VIEW trigger_idem.global_steps IS 'Finished steps of scope global, for the view steps';

CREATE VIEW trigger_idem.steps WITH (security_barrier) AS
SELECT s.run_id, s.step, s.key, s.idempotency_key, s.output, s.attempt, s.started_at, s.finished_at,
	s.scope, s.expires_at, s.replayed
FROM trigger_idem.run_steps s
UNION ALL
SELECT g.run_id, g.step, g.key, g.idempotency_key, g.output, g.attempt, g.started_at, g.finished_at,
	g.scope, g.expires_at, g.replayed
FROM trigger_idem.global_steps g;
COMMENT ON VIEW trigger_idem.steps IS 'Finished steps and their outputs';

CREATE VIEW trigger_idem.waits WITH (security_barrier) AS
SELECT w.run_id, w.path AS wait, w.kind, w.target, w.is_cached, w.attempt, w.started_at, w.until,
	w.ended_at, CASE WHEN w.kind OPERATOR(pg_catalog.<>) 'time' THEN w.timed_out END AS timed_out
FROM trigger_idem.wait w
WHERE EXISTS (SELECT FROM trigger_idem.runs r WHERE r.run_id OPERATOR(pg_catalog.=) w.run_id);
COMMENT ON VIEW trigger_idem.waits IS 'Waits of runs';

CREATE VIEW trigger_idem.wait_tokens WITH (security_barrier) AS
SELECT k.token, k.environment, k.created_by, k.created_at, k.expires_at, k.completed_at, k.output
FROM trigger_idem.wait_token k
WHERE (SELECT me.sees_all FROM trigger_idem.reader me)
	OR (k.environment OPERATOR(pg_catalog.<>) ALL ((SELECT me.closed_environments FROM trigger_idem.reader me)::pg_catalog.text[])
		AND ((SELECT '' OPERATOR(pg_catalog.=) ANY (me.monitored_tasks) FROM trigger_idem.reader me)
			OR k.created_by OPERATOR(pg_catalog.=) ANY ((SELECT me.roles FROM trigger_idem.reader me)::pg_catalog.text[])));
COMMENT ON VIEW trigger_idem.wait_tokens IS 'Tokens that runs can wait for';

CREATE VIEW trigger_idem.idempotency_keys WITH (security_barrier) AS
SELECT k.environment, k.task_id, pg_catalog.encode(k.idempotency_key, 'hex') AS idempotency_key,
	k.key, k.scope, k.run_id, k.created_at, k.expires_at, k.idempotency_group, k.status
FROM trigger_idem.idempotency_key k
WHERE (SELECT me.sees_all FROM trigger_idem.reader me)
	OR k.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.tasks FROM trigger_idem.reader me)::pg_catalog.text[])
	OR (k.environment OPERATOR(pg_catalog.<>) ALL ((SELECT me.closed_environments FROM trigger_idem.reader me)::pg_catalog.text[])
		AND ((SELECT '' OPERATOR(pg_catalog.=) ANY (me.monitored_tasks) FROM trigger_idem.reader me)
			OR k.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.monitored_tasks FROM trigger_idem.reader me)::pg_catalog.text[])
			OR (k.triggered_by OPERATOR(pg_catalog.=) ANY ((SELECT me.roles FROM trigger_idem.reader me)::pg_catalog.text[])
				AND ((SELECT '' OPERATOR(pg_catalog.=) ANY (me.triggered_tasks) FROM trigger_idem.reader me)
					OR k.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.triggered_tasks FROM trigger_idem.reader me)::pg_catalog.text[])))));
COMMENT ON VIEW trigger_idem.idempotency_keys IS 'Idempotency keys that are taken, and by which run';

CREATE VIEW trigger_idem.tasks WITH (security_barrier) AS
SELECT t.task_id,
	CASE WHEN t.handler_name IS NOT NULL
		THEN pg_catalog.format('%I.%I', t.handler_schema, t.handler_name) END AS handler,
	t.queue, t.run_as, t.owner, t.max_attempts, t.min_backoff, t.max_backoff, t.backoff_factor,
	t.backoff_jitter, t.max_duration, t.lease_duration, t.idempotency_key_ttl, t.release_key_on,
	t.idempotency_group, t.on_payload_mismatch, t.concurrency_limit, t.idempotency_key_required,
	t.created_at
FROM trigger_idem.task t
WHERE t.dropped_at IS NULL
	AND ((SELECT me.sees_all FROM trigger_idem.reader me)
		OR t.owner OPERATOR(pg_catalog.=) ANY ((SELECT me.roles FROM trigger_idem.reader me)::pg_catalog.text[])
		OR t.run_as OPERATOR(pg_catalog.=) ANY ((SELECT me.roles FROM trigger_idem.reader me)::pg_catalog.text[])
		OR (SELECT '' OPERATOR(pg_catalog.=) ANY (me.monitored_tasks OPERATOR(pg_catalog.||) me.triggered_tasks)
			FROM trigger_idem.reader me)
		OR t.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.monitored_tasks OPERATOR(pg_catalog.||) me.triggered_tasks
			FROM trigger_idem.reader me)::pg_catalog.text[]));
COMMENT ON VIEW trigger_idem.tasks IS 'Tasks and their settings';

-- The unfinished runs that the reader may see
CREATE VIEW trigger_idem.queued_runs WITH (security_barrier) AS
SELECT e.queue, s.status, s.run_at
FROM trigger_idem.queue_entry e JOIN trigger_idem.runs s ON s.run_id OPERATOR(pg_catalog.=) e.run_id;
COMMENT ON VIEW trigger_idem.queued_runs IS 'Unfinished runs that the reader may see, for the view queues';

CREATE VIEW trigger_idem.queues WITH (security_barrier) AS
SELECT q.queue,
	EXISTS (SELECT FROM trigger_idem.paused_queue p WHERE p.queue OPERATOR(pg_catalog.=) q.queue) AS paused,
	pg_catalog.count(*) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'queued') AS queued,
	pg_catalog.count(*) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'delayed') AS delayed,
	pg_catalog.count(*) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'executing') AS executing,
	pg_catalog.count(*) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'waiting') AS waiting,
	pg_catalog.min(r.run_at) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'queued') AS oldest_due
FROM (
	SELECT p.queue FROM trigger_idem.paused_queue p
	UNION SELECT t.queue FROM trigger_idem.tasks t
	UNION SELECT u.queue FROM trigger_idem.queued_runs u) q
	LEFT JOIN trigger_idem.queued_runs r ON r.queue OPERATOR(pg_catalog.=) q.queue
GROUP BY q.queue;
COMMENT ON VIEW trigger_idem.queues IS 'Queues, and how many runs stand in each';

CREATE VIEW trigger_idem.schedules WITH (security_barrier) AS
SELECT s.schedule_id, s.environment, s.cron, s.task_id, s.catch_up, s.last_tick,
	trigger_idem.cron_next_tick(s.cron, pg_catalog.clock_timestamp()) AS next_tick,
	s.last_run_id, s.owner, s.payload, s.cron_job, s.created_at
FROM trigger_idem.schedule s
WHERE (SELECT me.sees_all FROM trigger_idem.reader me)
	OR s.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.tasks FROM trigger_idem.reader me)::pg_catalog.text[])
	OR (s.environment OPERATOR(pg_catalog.<>) ALL ((SELECT me.closed_environments FROM trigger_idem.reader me)::pg_catalog.text[])
		AND ((SELECT '' OPERATOR(pg_catalog.=) ANY (me.monitored_tasks) FROM trigger_idem.reader me)
			OR s.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.monitored_tasks FROM trigger_idem.reader me)::pg_catalog.text[])
			OR (s.owner OPERATOR(pg_catalog.=) ANY ((SELECT me.roles FROM trigger_idem.reader me)::pg_catalog.text[])
				AND ((SELECT '' OPERATOR(pg_catalog.=) ANY (me.triggered_tasks) FROM trigger_idem.reader me)
					OR s.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.triggered_tasks FROM trigger_idem.reader me)::pg_catalog.text[])))));
COMMENT ON VIEW trigger_idem.schedules IS 'Schedules, their last and next ticks';

CREATE VIEW trigger_idem.environments AS
SELECT 'default'::pg_catalog.text AS environment, NULL::pg_catalog.text AS role
UNION ALL
SELECT v.environment, v.role FROM trigger_idem.environment v;
COMMENT ON VIEW trigger_idem.environments IS 'Environments and the roles whose members may use them';

CREATE VIEW trigger_idem.grants WITH (security_barrier) AS
SELECT e.role, e.access, CASE WHEN e.task_id OPERATOR(pg_catalog.<>) '' THEN e.task_id END AS task_id,
	e.granted_by, e.granted_at
FROM trigger_idem.access_entry e
WHERE (SELECT me.sees_all OR me.is_admin FROM trigger_idem.reader me)
	OR e.role OPERATOR(pg_catalog.=) ANY ((SELECT me.roles FROM trigger_idem.reader me)::pg_catalog.text[])
	OR e.task_id OPERATOR(pg_catalog.=) ANY ((SELECT me.tasks FROM trigger_idem.reader me)::pg_catalog.text[]);
COMMENT ON VIEW trigger_idem.grants IS 'Who was granted what by access_grant(), for one task or (NULL) for all';
