-- The contract: signatures, defaults, result columns, views, grants, comments.
-- A change of any of them is seen here.  Run as a superuser, with pg_prove;
-- everything is rolled back.

BEGIN;
SET LOCAL client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS trigger_idem;
-- only pgTAP is on the path, so that names of ours are printed with their schema
SELECT set_config('search_path', (SELECT quote_ident(nspname) FROM pg_extension
	JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pgtap'), true) \g /dev/null
SET LOCAL intervalstyle = postgres;

SELECT plan(306);

-- ---------- Functions ----------

CREATE TEMPORARY TABLE contract_function (
	number int GENERATED ALWAYS AS IDENTITY,
	kind "char", name name, arguments text, result text, volatility "char", parallel "char", returns_set boolean DEFAULT false);

INSERT INTO contract_function (kind, name, arguments, result, volatility, parallel) VALUES
('f', 'idempotency_key_create', 'key text, scope text DEFAULT ''run''::text, run_id uuid DEFAULT NULL::uuid, attempt integer DEFAULT NULL::integer', 'text', 's', 'r'),
('f', 'idempotency_key_create', 'key text[], scope text DEFAULT ''run''::text, run_id uuid DEFAULT NULL::uuid, attempt integer DEFAULT NULL::integer', 'text', 's', 'r'),
('f', 'idempotency_key_from_payload', 'payload jsonb', 'text', 'i', 's'),
('f', 'idempotency_key_reset', 'task_id text, idempotency_key text, environment text DEFAULT NULL::text', 'boolean', 'v', 'u'),
('f', 'task_create', 'task_id text, handler regproc DEFAULT NULL::regproc, queue text DEFAULT ''default''::text, max_attempts integer DEFAULT 3, min_backoff interval DEFAULT ''00:00:01''::interval, max_backoff interval DEFAULT ''00:01:00''::interval, backoff_factor double precision DEFAULT 2, backoff_jitter boolean DEFAULT true, max_duration interval DEFAULT NULL::interval, lease_duration interval DEFAULT ''00:00:30''::interval, idempotency_key_ttl interval DEFAULT ''30 days''::interval, release_key_on text[] DEFAULT ''{failed,crashed,timed_out,expired}''::text[], idempotency_group text DEFAULT NULL::text, on_payload_mismatch text DEFAULT ''ignore''::text, concurrency_limit integer DEFAULT NULL::integer, run_as regrole DEFAULT NULL::regrole, idempotency_key_required boolean DEFAULT false', 'void', 'v', 'u'),
('f', 'task_drop', 'task_id text', 'boolean', 'v', 'u'),
('f', 'trigger_task', 'task_id text, payload jsonb DEFAULT NULL::jsonb, idempotency_key text DEFAULT NULL::text, idempotency_key_ttl interval DEFAULT NULL::interval, delay interval DEFAULT NULL::interval, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, ttl interval DEFAULT NULL::interval, priority integer DEFAULT 0, queue text DEFAULT NULL::text, concurrency_key text DEFAULT NULL::text, max_attempts integer DEFAULT NULL::integer, tags text[] DEFAULT NULL::text[], metadata jsonb DEFAULT NULL::jsonb, environment text DEFAULT NULL::text, idempotency_key_scope text DEFAULT ''global''::text, OUT run_id uuid, OUT is_cached boolean, OUT status trigger_idem.run_status', 'record', 'v', 'u'),
('f', 'run_once', 'key text, callback regproc, args jsonb DEFAULT NULL::jsonb, scope text DEFAULT ''run''::text, ttl interval DEFAULT NULL::interval', 'jsonb', 'v', 'u'),
('f', 'run_once_sql', 'key text, command text, args jsonb DEFAULT NULL::jsonb, scope text DEFAULT ''run''::text, ttl interval DEFAULT NULL::interval', 'jsonb', 'v', 'u'),
('f', 'run_once_local_only', 'key text, callback regproc, args jsonb DEFAULT NULL::jsonb', 'jsonb', 'v', 'u'),
('p', 'work', 'IN queue text DEFAULT NULL::text, IN max_runs integer DEFAULT NULL::integer, IN environment text DEFAULT NULL::text, INOUT processed integer DEFAULT NULL::integer', NULL, 'v', 'u'),
('f', 'current_run_id', '', 'uuid', 's', 'r'),
('f', 'current_attempt', '', 'integer', 's', 'r'),
('f', 'environment_create', 'environment text, role regrole DEFAULT NULL::regrole', 'void', 'v', 'u'),
('f', 'environment_drop', 'environment text', 'boolean', 'v', 'u'),
('f', 'access_grant', 'role regrole, access text, task_id text DEFAULT NULL::text', 'void', 'v', 'u'),
('f', 'access_revoke', 'role regrole, access text, task_id text DEFAULT NULL::text', 'void', 'v', 'u'),
('f', 'run_heartbeat', 'run_id uuid, attempt integer, lease_duration interval DEFAULT NULL::interval', 'timestamp with time zone', 'v', 'u'),
('f', 'run_enter', 'run_id uuid, attempt integer', 'void', 'v', 'u'),
('f', 'run_once_begin', 'run_id uuid, attempt integer, key text, OUT is_cached boolean, OUT output jsonb, OUT idempotency_key text', 'record', 'v', 'u'),
('f', 'run_once_end', 'run_id uuid, attempt integer, key text, output jsonb DEFAULT NULL::jsonb', 'void', 'v', 'u'),
('f', 'run_complete', 'run_id uuid, attempt integer, output jsonb DEFAULT NULL::jsonb', 'void', 'v', 'u'),
('f', 'run_fail', 'run_id uuid, attempt integer, error jsonb, retry boolean DEFAULT true, retry_after interval DEFAULT NULL::interval, OUT status trigger_idem.run_status, OUT retry_at timestamp with time zone', 'record', 'v', 'u'),
('f', 'run_release', 'run_id uuid, attempt integer, delay interval DEFAULT NULL::interval', 'void', 'v', 'u'),
('f', 'run_cancel', 'run_id uuid', 'boolean', 'v', 'u'),
('f', 'run_replay', 'run_id uuid', 'uuid', 'v', 'u'),
('f', 'queue_pause', 'queue text', 'void', 'v', 'u'),
('f', 'queue_resume', 'queue text', 'void', 'v', 'u'),
('f', 'trigger_task_and_wait', 'task_id text, payload jsonb DEFAULT NULL::jsonb, idempotency_key text DEFAULT NULL::text, idempotency_key_ttl interval DEFAULT NULL::interval, delay interval DEFAULT NULL::interval, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, ttl interval DEFAULT NULL::interval, priority integer DEFAULT 0, queue text DEFAULT NULL::text, concurrency_key text DEFAULT NULL::text, max_attempts integer DEFAULT NULL::integer, tags text[] DEFAULT NULL::text[], metadata jsonb DEFAULT NULL::jsonb, environment text DEFAULT NULL::text, idempotency_key_scope text DEFAULT ''global''::text, OUT run_id uuid, OUT is_cached boolean, OUT status trigger_idem.run_status, OUT output jsonb, OUT error jsonb', 'record', 'v', 'u'),
('f', 'run_wait', 'run_id uuid, timeout interval DEFAULT NULL::interval, OUT status trigger_idem.run_status, OUT output jsonb, OUT error jsonb, OUT timed_out boolean', 'record', 'v', 'u'),
('f', 'wait_for', 'key text, duration interval', 'timestamp with time zone', 'v', 'u'),
('f', 'wait_until', 'key text, wake_at timestamp with time zone', 'timestamp with time zone', 'v', 'u'),
('f', 'wait_token_create', 'idempotency_key text DEFAULT NULL::text, timeout interval DEFAULT NULL::interval, environment text DEFAULT NULL::text, OUT token uuid, OUT is_cached boolean', 'record', 'v', 'u'),
('f', 'wait_token_complete', 'token uuid, output jsonb DEFAULT NULL::jsonb', 'boolean', 'v', 'u'),
('f', 'wait_for_token', 'token uuid, OUT ok boolean, OUT output jsonb', 'record', 'v', 'u'),
('f', 'run_page', 'run_id uuid', 'text', 's', 'r'),
('f', 'runs_page', 'filter jsonb DEFAULT ''{}''::jsonb', 'text', 's', 'r'),
('f', 'run_progress', 'fraction double precision, message text DEFAULT NULL::text', 'void', 'v', 'u'),
('f', 'run_progress_of', 'run_id uuid, OUT fraction double precision, OUT message text, OUT reported_at timestamp with time zone', 'record', 's', 'r'),
('f', 'schedule_create', 'schedule_id text, cron text, task_id text, payload jsonb DEFAULT NULL::jsonb, catch_up text DEFAULT ''none''::text, environment text DEFAULT NULL::text, cron_job boolean DEFAULT true', 'void', 'v', 'u'),
('f', 'schedule_drop', 'schedule_id text', 'boolean', 'v', 'u'),
('f', 'schedule_fire', 'schedule_id text, tick timestamp with time zone DEFAULT NULL::timestamp with time zone, OUT run_id uuid, OUT is_cached boolean', 'record', 'v', 'u'),
('f', 'work_schedule', 'cron text DEFAULT ''* * * * *''::text, queue text DEFAULT NULL::text', 'void', 'v', 'u'),
('f', 'cron_next_tick', 'cron text, after timestamp with time zone, timezone text DEFAULT NULL::text', 'timestamp with time zone', 's', 's');
INSERT INTO contract_function (kind, name, arguments, result, volatility, parallel, returns_set) VALUES
('f', 'batch_trigger_task', 'task_id text, items jsonb, idempotency_key text DEFAULT NULL::text, environment text DEFAULT NULL::text', 'TABLE(index integer, run_id uuid, is_cached boolean, status trigger_idem.run_status)', 'v', 'u', true),
('f', 'batch_trigger_task_and_wait', 'task_id text, items jsonb, idempotency_key text DEFAULT NULL::text, environment text DEFAULT NULL::text', 'TABLE(index integer, run_id uuid, is_cached boolean, status trigger_idem.run_status, output jsonb, error jsonb)', 'v', 'u', true),
('f', 'run_claim', 'worker_id text, queue text DEFAULT ''default''::text, max_runs integer DEFAULT 1, lease_duration interval DEFAULT NULL::interval, environment text DEFAULT NULL::text, task_ids text[] DEFAULT NULL::text[]', 'TABLE(run_id uuid, attempt integer, task_id text, payload jsonb, environment text, lease_expires_at timestamp with time zone)', 'v', 'u', true),
('f', 'run_timeline', 'run_id uuid', 'TABLE(at timestamp with time zone, event text, attempt integer, step text[], duration interval, description text, data jsonb)', 's', 'r', true),
('f', 'stats', '', 'TABLE(name text, label text, value double precision, since timestamp with time zone)', 'v', 'r', true),
('f', 'prune', 'finished_before interval DEFAULT ''30 days''::interval, batch integer DEFAULT 10000', 'TABLE(what text, removed bigint)', 'v', 'u', true);

-- Each with ours of the same arguments, or at least of the same name
CREATE TEMPORARY VIEW compared AS
SELECT c.*, format('%s(%s)', c.name, split_part(c.arguments, ',', 1)) AS title, p.oid
FROM contract_function c LEFT JOIN LATERAL (
	SELECT oid FROM pg_proc
	WHERE pronamespace = 'trigger_idem'::regnamespace AND proname = c.name
	ORDER BY pg_get_function_arguments(oid) = c.arguments DESC LIMIT 1) p ON true;

SELECT is(pg_get_function_arguments(oid), arguments, 'arguments of ' || title)
FROM compared ORDER BY number;
SELECT is(pg_get_function_result(oid), result, 'result of ' || title)
FROM compared ORDER BY number;
SELECT is(format('%s %s %s', p.prokind, p.provolatile, p.proparallel), format('%s %s %s', kind, volatility, parallel),
	'kind, volatility and parallel safety of ' || title)
FROM compared c LEFT JOIN pg_proc p USING (oid) ORDER BY number;
SELECT is(row(p.proisstrict, p.proretset)::text, row(false, returns_set)::text,
	title || ' is not STRICT and returns ' || CASE WHEN returns_set THEN 'a set' ELSE 'no set' END)
FROM compared c LEFT JOIN pg_proc p USING (oid) ORDER BY number;
-- an overload would make calls ambiguous
SELECT is((SELECT count(*) FROM pg_proc p
		WHERE p.pronamespace = 'trigger_idem'::regnamespace AND p.proname = c.name),
	count(*), 'number of functions ' || c.name)
FROM contract_function c GROUP BY c.name ORDER BY c.name;

-- what FROM trigger_task() answers
SELECT is((SELECT array_agg(format('%s %s', name, format_type(type, NULL)) ORDER BY n)
		FROM unnest(p.proargnames, p.proallargtypes, p.proargmodes) WITH ORDINALITY a(name, type, mode, n)
		WHERE mode = 'o'),
	'{"run_id uuid","is_cached boolean","status trigger_idem.run_status"}'::text[],
	'columns of trigger_task() are those of the contract')
FROM pg_proc p WHERE p.oid = 'trigger_idem.trigger_task'::regproc;

-- ---------- The enum ----------

SELECT enum_has_labels('trigger_idem', 'run_status', ARRAY['delayed', 'queued', 'executing', 'waiting',
	'completed', 'failed', 'crashed', 'timed_out', 'canceled', 'expired']);

-- ---------- Views ----------

CREATE TEMPORARY TABLE contract_view (
	number int GENERATED ALWAYS AS IDENTITY, name name, columns text[]);

INSERT INTO contract_view (name, columns) VALUES
('runs', ARRAY['run_id uuid', 'environment text', 'task_id text', 'status trigger_idem.run_status',
	'payload jsonb', 'output jsonb', 'error jsonb', 'idempotency_key text', 'idempotency_key_scope text',
	'idempotency_key_expires_at timestamp with time zone', 'parent_run_id uuid', 'attempt integer',
	'max_attempts integer', 'queue text', 'priority integer', 'tags text[]', 'metadata jsonb',
	'created_at timestamp with time zone', 'run_at timestamp with time zone',
	'started_at timestamp with time zone', 'finished_at timestamp with time zone']),
('attempts', ARRAY['run_id uuid', 'attempt integer', 'status text', 'worker_id text',
	'started_at timestamp with time zone', 'finished_at timestamp with time zone', 'error jsonb']),
('steps', ARRAY['run_id uuid', 'step text[]', 'key text', 'idempotency_key text', 'output jsonb',
	'attempt integer', 'started_at timestamp with time zone', 'finished_at timestamp with time zone']),
('idempotency_keys', ARRAY['environment text', 'task_id text', 'idempotency_key text', 'key text',
	'scope text', 'run_id uuid', 'created_at timestamp with time zone',
	'expires_at timestamp with time zone']),
('tasks', ARRAY['task_id text', 'handler text', 'queue text', 'run_as text', 'owner text']),
('queues', ARRAY['queue text', 'paused boolean', 'queued bigint', 'delayed bigint', 'executing bigint',
	'waiting bigint', 'oldest_due timestamp with time zone']),
('schedules', ARRAY['schedule_id text', 'environment text', 'cron text', 'task_id text', 'catch_up text',
	'last_tick timestamp with time zone', 'next_tick timestamp with time zone', 'last_run_id uuid']),
('environments', ARRAY['environment text', 'role text']),
-- not in the contract, and so not to be changed either
('waits', ARRAY['run_id uuid', 'wait text[]', 'kind text', 'target uuid', 'is_cached boolean', 'attempt integer',
	'started_at timestamp with time zone', 'until timestamp with time zone', 'ended_at timestamp with time zone',
	'timed_out boolean']),
('paused_queues', ARRAY['queue text', 'paused_at timestamp with time zone']),
('wait_tokens', ARRAY['token uuid', 'environment text', 'created_by text', 'created_at timestamp with time zone',
	'expires_at timestamp with time zone', 'completed_at timestamp with time zone', 'output jsonb']),
('grants', ARRAY['role text', 'access text', 'task_id text', 'granted_by text', 'granted_at timestamp with time zone']);

-- more columns may follow those of the contract
SELECT is((SELECT array_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum)
		FROM pg_attribute a
		WHERE a.attrelid = to_regclass('trigger_idem.' || v.name)
			AND a.attnum BETWEEN 1 AND cardinality(v.columns)),
	v.columns, 'first columns of view ' || v.name)
FROM contract_view v ORDER BY v.number;
-- these do, in any order
SELECT is(ARRAY(SELECT format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)) FROM pg_attribute a
		WHERE a.attrelid = to_regclass('trigger_idem.' || m.name) AND a.attnum > (SELECT cardinality(v.columns) FROM contract_view v WHERE v.name = m.name)
			AND a.attname::text = ANY (SELECT split_part(c, ' ', 1) FROM unnest(m.columns) c) ORDER BY a.attname::text COLLATE "C"),
	ARRAY(SELECT c FROM unnest(m.columns) c ORDER BY split_part(c, ' ', 1) COLLATE "C"), 'further columns of view ' || m.name)
FROM (VALUES
	(1, 'runs', ARRAY['triggered_by text', 'held_because text', 'concurrency_key text', 'ttl interval',
		'first_run_at timestamp with time zone', 'idempotency_key_hex text']),
	(2, 'attempts', ARRAY['steps_done integer', 'steps_replayed integer']),
	(3, 'steps', ARRAY['scope text', 'expires_at timestamp with time zone', 'replayed integer']),
	(4, 'idempotency_keys', ARRAY['idempotency_group text', 'status trigger_idem.run_status'])) m(number, name, columns) ORDER BY m.number;
SELECT is(c.relkind, 'v', v.name || ' is a view')
FROM contract_view v LEFT JOIN pg_class c ON c.oid = to_regclass('trigger_idem.' || v.name)
ORDER BY v.number;

-- tasks shows every setting of task_create()
SELECT columns_are('trigger_idem', 'tasks', ARRAY(
	SELECT name FROM unnest(ARRAY['owner', 'created_at'] || (SELECT p.proargnames FROM pg_proc p
		WHERE p.oid = 'trigger_idem.task_create'::regproc)) name), 'tasks has the settings of task_create()');
SELECT set_has('SELECT environment, role FROM trigger_idem.environments',
	$$VALUES ('default', NULL::text)$$, 'the default environment is always there');

-- ---------- Prune ----------

SELECT results_eq($$SELECT what FROM trigger_idem.prune('100 years', 1)$$,
	ARRAY['idempotency_keys', 'runs', 'attempts', 'steps', 'global_steps', 'waits', 'wait_tokens'],
	'prune() says of each kind how many were removed');

-- ---------- Grants ----------

SELECT is_empty($$SELECT privilege_type FROM pg_namespace n,
		aclexplode(COALESCE(n.nspacl, acldefault('n', n.nspowner))) a
	WHERE n.nspname = 'trigger_idem' AND a.grantee = 0$$,
	'PUBLIC has no right on the schema');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p,
		aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
	WHERE p.pronamespace = 'trigger_idem'::regnamespace AND a.grantee = 0$$,
	'PUBLIC may execute no function');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c,
		aclexplode(COALESCE(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) a
	WHERE c.relnamespace = 'trigger_idem'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND a.grantee = 0$$,
	'PUBLIC has no right on a table, view or sequence');
SELECT is_empty($$SELECT t.attrelid::regclass, t.attname FROM pg_attribute t
		JOIN pg_class c ON c.oid = t.attrelid, aclexplode(t.attacl) a
	WHERE c.relnamespace = 'trigger_idem'::regnamespace AND a.grantee = 0$$,
	'PUBLIC has no right on a column');
SELECT is_empty($$SELECT t.oid::regtype FROM pg_type t,
		aclexplode(COALESCE(t.typacl, acldefault('T', t.typowner))) a
	WHERE t.typnamespace = 'trigger_idem'::regnamespace AND t.typtype IN ('e', 'd', 'r', 'm') AND a.grantee = 0$$,
	'PUBLIC has no right on a type');

-- ---------- Comments ----------

SELECT isnt(obj_description('trigger_idem'::regnamespace, 'pg_namespace'), NULL, 'the schema has a comment');
SELECT is_empty($$SELECT oid::regprocedure FROM pg_proc
	WHERE pronamespace = 'trigger_idem'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL$$,
	'every function has a comment');
SELECT isnt(obj_description(to_regclass('trigger_idem.' || v.name), 'pg_class'), NULL,
	'view ' || v.name || ' has a comment')
FROM contract_view v ORDER BY v.number;
SELECT is_empty($$SELECT oid::regtype FROM pg_type
	WHERE typnamespace = 'trigger_idem'::regnamespace AND typtype IN ('e', 'd', 'r', 'm')
		AND obj_description(oid, 'pg_type') IS NULL$$,
	'every type has a comment');

-- ---------- Dump, restore and upgrade ----------

SELECT is_empty($$SELECT a.attrelid::regclass, a.attname, a.atttypid::regtype
	FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
	WHERE c.relnamespace = 'trigger_idem'::regnamespace AND c.relkind IN ('r', 'p', 'm')
		AND t.typname ~ '^_?reg' AND t.typnamespace = 'pg_catalog'::regnamespace$$,
	'no table has a column of a reg* type');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c, pg_extension e
	WHERE c.relnamespace = 'trigger_idem'::regnamespace AND c.relkind IN ('r', 'p', 'S')
		AND e.extname = 'trigger_idem' AND NOT c.oid = ANY (COALESCE(e.extconfig, '{}'))$$,
	'the rows of every table and sequence are dumped');
SELECT is_empty($$SELECT condition FROM pg_extension, unnest(extcondition) condition
	WHERE extname = 'trigger_idem' AND condition <> ''$$,
	'all rows of them');
SELECT is(extrelocatable, false, 'the extension is not relocatable')
FROM pg_extension WHERE extname = 'trigger_idem';
SELECT * FROM finish();
ROLLBACK;
