-- All that the views show; one SELECT, to be kept in a table too
SELECT what, row FROM (
	SELECT 'run' AS what, to_jsonb(r) AS row FROM trigger_idem.runs r
	UNION ALL SELECT 'attempt', to_jsonb(a) FROM trigger_idem.attempts a
	UNION ALL SELECT 'step', to_jsonb(s) FROM trigger_idem.steps s
	UNION ALL SELECT 'key', to_jsonb(k) FROM trigger_idem.idempotency_keys k
	UNION ALL SELECT 'task', to_jsonb(t) FROM trigger_idem.tasks t
	UNION ALL SELECT 'queue', to_jsonb(q) FROM trigger_idem.queues q
	UNION ALL SELECT 'environment', to_jsonb(e) FROM trigger_idem.environments e
	UNION ALL SELECT 'wait', to_jsonb(w) FROM trigger_idem.waits w
	UNION ALL SELECT 'token', to_jsonb(t) FROM trigger_idem.wait_tokens t
	UNION ALL SELECT 'schedule', to_jsonb(s) FROM trigger_idem.schedules s
) shown ORDER BY what, row::text COLLATE "C"
