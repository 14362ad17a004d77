-- All that the views show
\pset format unaligned
\pset tuples_only on
SET TimeZone = 'UTC';
SELECT 'run', r FROM trigger_idem.runs r ORDER BY run_id;
SELECT 'attempt', a FROM trigger_idem.attempts a ORDER BY run_id, attempt;
SELECT 'step', s FROM trigger_idem.steps s ORDER BY run_id, step, started_at;
SELECT 'key', k FROM trigger_idem.idempotency_keys k ORDER BY idempotency_key, environment, task_id;
SELECT 'task', t FROM trigger_idem.tasks t ORDER BY task_id;
SELECT 'queue', q FROM trigger_idem.queues q ORDER BY queue;
SELECT 'environment', e FROM trigger_idem.environments e ORDER BY environment;
SELECT 'wait', w FROM trigger_idem.waits w ORDER BY run_id, wait;
SELECT 'token', t FROM trigger_idem.wait_tokens t ORDER BY token;
SELECT 'schedule', s FROM trigger_idem.schedules s ORDER BY schedule_id;
