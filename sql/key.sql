-- Idempotency keys: idempotency_key_create() and what it refuses.
-- The encoding itself is checked against pgcrypto in test/pgtap/keys.sql.

SELECT trigger_idem.idempotency_key_create('order-1') AS key;
SELECT trigger_idem.idempotency_key_create('order-1', 'global')
	= trigger_idem.idempotency_key_create('order-1') AS outside_a_run_all_scopes_are_global,
	trigger_idem.idempotency_key_create('order-1', 'attempt')
	= trigger_idem.idempotency_key_create('order-1', 'run') AS attempt_too;
SELECT trigger_idem.idempotency_key_create('order-1')
	= trigger_idem.idempotency_key_create('{order-1}'::text[]) AS one_element_is_its_text;

-- no two lists give the same key
SELECT count(DISTINCT trigger_idem.idempotency_key_create(list)) AS keys, count(*) AS lists
FROM (VALUES ('{a,b-c}'::text[]), ('{a-b,c}'), ('{a,b,c}'), ('{abc}'), ('{a,bc}'), ('{ab,c}'),
	('{b,a}'), ('{a,b}'), ('{a,a,b}'), ('{A,b}')) v(list);

-- scopes of a given run
SELECT count(DISTINCT key) AS keys, count(*) AS scopes FROM (VALUES
	(trigger_idem.idempotency_key_create('a', 'global', '01890000-0000-7000-8000-000000000001')),
	(trigger_idem.idempotency_key_create('a', 'run', '01890000-0000-7000-8000-000000000001')),
	(trigger_idem.idempotency_key_create('a', 'run', '01890000-0000-7000-8000-000000000002')),
	(trigger_idem.idempotency_key_create('a', 'attempt', '01890000-0000-7000-8000-000000000001', 1)),
	(trigger_idem.idempotency_key_create('a', 'attempt', '01890000-0000-7000-8000-000000000001', 2)))
	v(key);
SELECT trigger_idem.idempotency_key_create('a', 'run', '01890000-0000-7000-8000-000000000001', 1)
	= trigger_idem.idempotency_key_create('a', 'run', '01890000-0000-7000-8000-000000000001', 2)
	AS scope_run_ignores_the_attempt;

-- characters are counted, not bytes
SELECT length(trigger_idem.idempotency_key_create(repeat('ä', 2048))) AS longest;

SELECT helper.error_of('SELECT trigger_idem.idempotency_key_create(' || args || ')') AS error
FROM (VALUES
	('NULL::text'),
	('NULL::text[]'),
	($$''$$),
	($$'{}'::text[]$$),
	($$'{a,NULL}'::text[]$$),
	($$ARRAY['a', '']$$),
	($$'{{a},{b}}'::text[]$$),
	($$repeat('ä', 2049)$$),
	($$ARRAY[repeat('a', 2000), repeat('b', 49)]$$),
	($$'a', NULL$$),
	($$'a', 'session'$$),
	($$'a', 'RUN'$$),
	($$'a', 'attempt', '01890000-0000-7000-8000-000000000001'$$),
	($$'a', 'attempt', NULL, 1$$),
	($$'a', 'run', NULL, 1$$),
	($$'a', 'attempt', '01890000-0000-7000-8000-000000000001', 0$$)) v(args);

-- a session knows what its last keys were made of, and forgets all when they take too much
SELECT trigger_idem.task_create('key_known', queue => 'key_known');
BEGIN;
SELECT trigger_idem.idempotency_key_create('first of many') AS first \gset
SELECT count(trigger_idem.idempotency_key_create(ARRAY['many', n::text])) FROM generate_series(1, 30000) n;
SELECT trigger_idem.idempotency_key_create('last of many') AS last \gset
SELECT count(trigger_idem.trigger_task('key_known', to_jsonb(key), key)) FROM unnest(ARRAY[:'first', :'last']) key;
COMMIT;
SELECT nullif(idempotency_key, payload #>> '{}') AS made_of FROM trigger_idem.runs WHERE task_id = 'key_known' ORDER BY run_id;

-- a key is in its own form only if all of it is: other 64 characters are what was typed
SELECT count(trigger_idem.trigger_task('key_known', to_jsonb(key), key, tags => '{typed}')) FROM unnest(ARRAY[
	repeat('0123456789abcdef', 4), repeat('0123456789abcde/', 4), repeat(':123456789abcdef', 4), repeat('0123456789abcdeg', 4), repeat('0123456789abcdeF', 4)]) key;
SELECT left(idempotency_key, 16) AS key, idempotency_key_scope FROM trigger_idem.runs WHERE tags = '{typed}' ORDER BY run_id;
SELECT count(trigger_idem.run_cancel(run_id)) FROM trigger_idem.runs WHERE task_id = 'key_known';
