-- Keys, memos, waits, leases and attempts hold, and what was not finished goes on:
-- after fill.sql, on whatever the data was brought to.  Prints what go_on.out has.
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
\echo hits
SELECT r.payload ->> 'name', t.is_cached, t.run_id = r.run_id, t.status
FROM trigger_idem.runs r, LATERAL trigger_idem.trigger_task(r.task_id, r.payload, r.idempotency_key, environment => r.environment) t
WHERE r.idempotency_key_scope = 'global' AND r.task_id <> 'kept dropped' AND r.status <> 'failed'
ORDER BY r.payload ->> 'name';
\echo memos
SELECT trigger_idem.run_once('kept once', 'kept_step', '"not called"', scope => 'global');
SELECT is_cached FROM trigger_idem.wait_token_create('kept token');
\echo an application goes on with its attempt
SELECT trigger_idem.run_complete(run_id, 1, '"done"') FROM trigger_idem.runs WHERE payload ->> 'name' = 'executing';
SELECT payload ->> 'name', attempt FROM trigger_idem.run_claim('kept worker', 'kept outside');
SELECT trigger_idem.run_complete(run_id, 1, '"done"') FROM trigger_idem.runs WHERE payload ->> 'name' = 'child';
\echo what waits goes on
SELECT trigger_idem.wait_token_complete(token) FROM trigger_idem.wait_token_create('kept token');
CALL trigger_idem.work();
SELECT trigger_idem.task_create('kept dropped', 'kept_function', queue => 'kept dropped');
CALL trigger_idem.work();
SELECT payload ->> 'name', status, attempt, (SELECT string_agg(a.status, ' ' ORDER BY a.attempt) FROM trigger_idem.attempts a WHERE a.run_id = r.run_id)
FROM trigger_idem.runs r ORDER BY payload ->> 'name';
\echo no step was done twice
SELECT step, count(*), string_agg(attempt::text, ' ' ORDER BY attempt) FROM kept_effect GROUP BY step ORDER BY step COLLATE "C";
