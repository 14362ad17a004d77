-- The encoding of keys, computed again with pgcrypto's digest() from what
-- doc/keys.md says, and the vectors of that page.  Run as a superuser, with
-- pg_prove; everything is rolled back.

BEGIN;
SET LOCAL client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE EXTENSION IF NOT EXISTS trigger_idem;
SELECT set_config('search_path', (SELECT string_agg(DISTINCT quote_ident(nspname), ', ') FROM pg_extension
	JOIN pg_namespace n ON n.oid = extnamespace WHERE extname IN ('pgtap', 'pgcrypto')), true) \g /dev/null
SET LOCAL trigger_idem.environment = 'default';
SELECT getdatabaseencoding() = 'UTF8' AS utf8 \gset

SELECT plan(CASE WHEN :'utf8' THEN 144 ELSE 117 END);

-- ---------- The oracle ----------

-- a part: its length in four bytes, then its bytes
CREATE FUNCTION pg_temp.part(bytea) RETURNS bytea LANGUAGE sql IMMUTABLE
RETURN int4send(octet_length($1)) || $1;

CREATE FUNCTION pg_temp.part(text) RETURNS bytea LANGUAGE sql STABLE
RETURN pg_temp.part(convert_to($1, 'UTF8'));

CREATE FUNCTION pg_temp.parts(text[]) RETURNS bytea LANGUAGE sql STABLE
RETURN (SELECT string_agg(pg_temp.part(element), '' ORDER BY n) FROM unnest($1) WITH ORDINALITY u(element, n));

CREATE FUNCTION pg_temp.sha256_hex(bytea) RETURNS text LANGUAGE sql STABLE
RETURN encode(digest($1, 'sha256'), 'hex');

-- what idempotency_key_create() must answer
CREATE FUNCTION pg_temp.key_of(elements text[], scope text, run_id uuid, attempt int) RETURNS text
LANGUAGE sql STABLE
RETURN pg_temp.sha256_hex(pg_temp.part('trigger_idem key v1')
	|| CASE
		WHEN scope = 'global' OR run_id IS NULL THEN pg_temp.part('global')
		WHEN scope = 'run' THEN pg_temp.part('run') || pg_temp.part(uuid_send(run_id))
		WHEN scope = 'attempt' THEN pg_temp.part('attempt') || pg_temp.part(uuid_send(run_id))
			|| pg_temp.part(int4send(attempt))
	END
	|| pg_temp.parts(elements));

-- what a step outside a run must get, inside the step with the key parent
CREATE FUNCTION pg_temp.global_step_key_of(environment text, role text, parent text, key text) RETURNS text
LANGUAGE sql STABLE
RETURN pg_temp.sha256_hex(pg_temp.part('trigger_idem global step v1') || pg_temp.part(environment)
	|| pg_temp.part(role) || pg_temp.part(decode(COALESCE(parent, ''), 'hex')) || pg_temp.part(key));

-- ---------- Vectors ----------

-- Those of doc/keys.md, and one more: when both implementations change, these do not.
CREATE TEMPORARY TABLE vector (elements text[], scope text, attempt int, key text);
INSERT INTO vector VALUES
(ARRAY['order-1'], 'global', NULL, 'd1d4d2836fa0e594db48e0f8bb7d9d73e8cf0f6fb285b7b960ffd11bfd0a8b6c'),
(ARRAY['a'], 'global', NULL, '843a0cc861cfda84dabfb1e0861ab43fe366bc6cd52724f985a84e670e570bc6'),
(ARRAY['a', 'b'], 'global', NULL, 'de753e72ef2decbce67bd8f20e210374df77e7b1f6cb442623612385b2399405'),
(ARRAY['a', 'b-c'], 'global', NULL, '8bc06a41823e8830ae2fd1a937aa6489ed3a17edbcb8642d62e040b7987ce2de'),
(ARRAY['a-b', 'c'], 'global', NULL, '9e7e533d7a1851e66def4ef39b330c757aea393697ad4ecc4f1005ead77449f2'),
(ARRAY['ab'], 'global', NULL, '36aa866e6c430002930c2a418fa16a79df9904cff059b16ae618a44bf3915231'),
(ARRAY[E'line\nbreak'], 'global', NULL, '5f1cbe98857706469c53e903fdc72b704c9e85f5ff28f25b332ae32ca7f88993'),
(ARRAY[E'he said "no"\'s \\ {,}'], 'global', NULL, 'c41684f2188e48d1d0a80e22847373c7703f509c76bcb9bafbbd5c4ef274e5b7'),
(ARRAY[repeat('x', 2048)], 'global', NULL, '787dc9358580c43395cd75bc1033c7e6bee340938aa40e160e079fdc7616459c'),
(ARRAY['a'], 'run', NULL, '9b213c0e73ac880cf7589ed63ededa61c8f00e9bf6b5f5da969d1d514f81a972'),
(ARRAY['a', 'b'], 'run', NULL, '03227b797b9609f362ac9b9937017cd24735f7e516a6f0bfbf94f310f1bbaa25'),
(ARRAY['a'], 'attempt', 1, 'e4a8f6899621e2f086317e66072faae85e4d65e9cd3344ddcdb27e66b0ed023f'),
(ARRAY['a'], 'attempt', 2, '83d6618ff7b8816e567f0f9dbda345169c57440a58a020f78b3830afc9077758');
\if :utf8
INSERT INTO vector VALUES
(ARRAY[U&'na\00EFve caf\00E9'], 'global', NULL, '86bc70008c778040ed92446a0de344983b9f04193e8c3ddd8c0adbe857a15059'),
(ARRAY[U&'\65E5\672C\8A9E', U&'\+01F418'], 'global', NULL, '5deefda1dbfeb6b074935ceba03da48471b1c32a532f09518690c64695aea18b');
\endif

SELECT is(trigger_idem.idempotency_key_create(elements, scope, '01890000-0000-7000-8000-000000000001', attempt), key,
	format('vector %s, %s', left(to_json(elements)::text, 40), concat_ws(' ', scope, attempt)))
FROM vector;

-- ---------- Against the oracle ----------

CREATE TEMPORARY TABLE sample (title text, elements text[]);
INSERT INTO sample VALUES
('a letter', '{x}'),
('a space', '{" "}'),
('upper case', '{Order-1}'),
('spaces around', '{" order-1 "}'),
('the word NULL', '{"NULL"}'),
('an empty-looking array', '{"{}"}'),
('a quote', ARRAY['''']),
('a double quote', ARRAY['"']),
('a backslash', ARRAY['\']),
('a line feed', ARRAY[E'\n']),
('a carriage return and a tab', ARRAY[E'\r\t']),
('a byte of one', ARRAY[E'\x01']),
('64 hexadecimal digits', ARRAY[repeat('0a', 32)]),
('the name of the domain', ARRAY['trigger_idem key v1', 'global']),
('two letters', '{a,b}'),
('two letters, swapped', '{b,a}'),
('twice the same', '{a,a}'),
('a separator on the right', '{a,b-c}'),
('a separator on the left', '{a-b,c}'),
('three elements', '{a,b,c}'),
('a comma inside', ARRAY['a,b', 'c']),
('braces inside', ARRAY['{a', 'b}']),
('like a length', ARRAY[E'a\x01\x01\x01', 'b']),
('255 letters', ARRAY[repeat('x', 255)]),
('256 letters', ARRAY[repeat('x', 256)]),
('2048 letters', ARRAY[repeat('x', 2048)]),
('2048 elements', array_fill('x'::text, ARRAY[2048])),
('2048 letters in two', ARRAY[repeat('x', 2047), 'y']);
\if :utf8
INSERT INTO sample VALUES
('accents', ARRAY[U&'caf\00E9']),
('accents, decomposed', ARRAY[U&'cafe\0301']),
('three-byte characters', ARRAY[U&'\65E5\672C\8A9E']),
('a four-byte character', ARRAY[U&'\+01F600']),
('a joined emoji', ARRAY[U&'\+01F468\200D\+01F469\200D\+01F467']),
('right to left', ARRAY[U&'\0634\0643\0631\0627', 'b']),
('2048 four-byte characters', ARRAY[repeat(U&'\+01F600', 2048)]);
\endif

CREATE TEMPORARY TABLE scope_sample (scope text, run_id uuid, attempt int);
INSERT INTO scope_sample VALUES
('global', NULL, NULL),
('run', NULL, NULL),			-- outside a run: the global key
('attempt', NULL, NULL),
('global', '01890000-0000-7000-8000-000000000001', NULL),
('global', '01890000-0000-7000-8000-000000000001', 3),
('run', '01890000-0000-7000-8000-000000000001', NULL),
('run', '01890000-0000-7000-8000-000000000001', 3),
('run', 'ffffffff-ffff-ffff-ffff-ffffffffffff', NULL),
('run', '00000000-0000-0000-0000-000000000000', NULL),
('attempt', '01890000-0000-7000-8000-000000000001', 1),
('attempt', '01890000-0000-7000-8000-000000000001', 256),
('attempt', '01890000-0000-7000-8000-000000000001', 2147483647);

SELECT is(ours, oracle, format('%s, all scopes', title))
FROM (
	SELECT title, array_agg(trigger_idem.idempotency_key_create(elements, scope, run_id, attempt) ORDER BY n) AS ours,
		array_agg(pg_temp.key_of(elements, scope, run_id, attempt) ORDER BY n) AS oracle
	FROM sample, (SELECT row_number() OVER () AS n, * FROM scope_sample) s GROUP BY title) c;
SELECT is(trigger_idem.idempotency_key_create(elements[1], scope, run_id, attempt),
	trigger_idem.idempotency_key_create(elements, scope, run_id, attempt),
	format('%s as text, scope %s', title, scope))
FROM sample, scope_sample
WHERE cardinality(elements) = 1 AND (scope, attempt) IN (('global', 3), ('run', 3), ('attempt', 256));

-- different requests have different keys
SELECT is(count(DISTINCT key), count(*), 'no two lists have the same key')
FROM sample, trigger_idem.idempotency_key_create(elements, 'global') key;
SELECT is(count(DISTINCT key), count(*), 'no two scopes have the same key')
FROM (VALUES ('global', NULL::int), ('run', NULL), ('attempt', 1), ('attempt', 2)) s(scope, attempt),
	trigger_idem.idempotency_key_create('a', scope, '01890000-0000-7000-8000-000000000001', attempt) key;
SELECT isnt(trigger_idem.idempotency_key_create('a', 'run', '01890000-0000-7000-8000-000000000001'),
	trigger_idem.idempotency_key_create('a', 'run', '01890000-0000-7000-8000-000000000002'), 'a key of another run is another');

-- lists of random texts, most of them over the few characters that separate things
SELECT setseed(0.42) \g /dev/null
CREATE TEMPORARY TABLE random_list AS
SELECT n, ARRAY(
	SELECT left(string_agg(substr(E'ab-,{}"\\ \n', 1 + floor(random() * 10)::int, 1), ''), 1 + floor(random() * 6)::int)
	FROM generate_series(1, 1 + floor(random() * 4)::int + n * 0) element, generate_series(1, 6)
	GROUP BY element ORDER BY element) AS elements,
	(ARRAY['global', 'run', 'attempt'])[1 + floor(random() * 3)::int] AS scope,
	md5(random()::text)::uuid AS run_id, 1 + floor(random() * 1000)::int AS attempt
FROM generate_series(1, 500) n;

SELECT is((SELECT count(*) FROM random_list), 500::bigint, '500 random lists');
SELECT is_empty('SELECT * FROM random_list
	WHERE trigger_idem.idempotency_key_create(elements, scope, run_id, attempt)
		<> pg_temp.key_of(elements, scope, run_id, attempt)', 'they have the keys of the oracle');
SELECT is((SELECT count(DISTINCT trigger_idem.idempotency_key_create(elements, 'global')) FROM random_list),
	(SELECT count(DISTINCT elements) FROM random_list), 'and different ones');

-- ---------- Errors ----------

SELECT throws_ok(format('SELECT trigger_idem.idempotency_key_create(%s)', arguments), '22023', NULL, 'refused: ' || title)
FROM (VALUES
	('null', 'NULL::text'),
	('null array', 'NULL::text[]'),
	('empty text', $$''::text$$),
	('empty array', $$'{}'::text[]$$),
	('null element', $$ARRAY['a', NULL]$$),
	('empty element', $$ARRAY['a', '']$$),
	('two dimensions', $$'{{a},{b}}'::text[]$$),
	('2049 characters', $$repeat('x', 2049)$$),
	('2049 characters in two', $$ARRAY[repeat('x', 2000), repeat('y', 49)]$$),
	('unknown scope', $$'a', 'session'$$),
	('scope in upper case', $$'a', 'RUN'$$),
	('empty scope', $$'a', ''$$),
	('null scope', $$'a', NULL$$),
	('attempt without a run id', $$'a', 'attempt', NULL, 1$$),
	('attempt without a run id, scope run', $$'a', 'run', NULL, 1$$),
	('run id without an attempt', $$'a', 'attempt', '01890000-0000-7000-8000-000000000001'$$),
	('attempt 0', $$'a', 'attempt', '01890000-0000-7000-8000-000000000001', 0$$),
	('negative attempt', $$'a', 'attempt', '01890000-0000-7000-8000-000000000001', -1$$)) e(title, arguments);

-- ---------- Keys of triggers ----------

SELECT trigger_idem.task_create('trigger_idem pgtap keys') \g /dev/null
SELECT run_id FROM trigger_idem.trigger_task('trigger_idem pgtap keys', idempotency_key => 'order 1') \gset

SELECT is(idempotency_key, pg_temp.key_of('{order 1}', 'global', NULL, NULL), 'a raw key is hashed with scope global')
FROM trigger_idem.idempotency_keys WHERE run_id = :'run_id';
SELECT is(run_id, :'run_id', 'the hash of the oracle hits it')
FROM trigger_idem.trigger_task('trigger_idem pgtap keys',
	idempotency_key => pg_temp.key_of('{order 1}', 'global', NULL, NULL));

-- ---------- Keys of steps ----------

-- A step outside a run; those of a run have the same encoding, with the run id
-- in place of the role.
SELECT trigger_idem.environment_create('trigger_idem pgtap keys') \g /dev/null
CREATE FUNCTION pg_temp.remember(key text) RETURNS text LANGUAGE sql RETURN key;
CREATE FUNCTION pg_temp.nest(key text) RETURNS text LANGUAGE sql
RETURN trigger_idem.run_once('inner', 'pg_temp.remember', scope => 'global') #>> '{}';

SELECT trigger_idem.run_once('pgtap a', 'pg_temp.remember', scope => 'global') \g /dev/null
SELECT trigger_idem.run_once_sql('pgtap b', 'SELECT $1', scope => 'global') \g /dev/null
SELECT trigger_idem.run_once(E'pgtap "c"\n\\', 'pg_temp.remember', scope => 'global') \g /dev/null
SELECT trigger_idem.run_once('pgtap ' || repeat('x', 2042), 'pg_temp.remember', scope => 'global') \g /dev/null
SELECT trigger_idem.run_once('pgtap d', 'pg_temp.nest', scope => 'global') \g /dev/null
SET LOCAL trigger_idem.environment = 'trigger_idem pgtap keys';
SELECT trigger_idem.run_once('pgtap a', 'pg_temp.remember', scope => 'global') \g /dev/null
SET LOCAL trigger_idem.environment = 'default';

SELECT results_eq(
	$$SELECT step COLLATE "C", idempotency_key COLLATE "C" FROM trigger_idem.steps
		WHERE scope = 'global' AND step[1] LIKE 'pgtap %' ORDER BY 1, 2$$,
	$$SELECT step COLLATE "C", pg_temp.global_step_key_of(environment, current_user,
			CASE WHEN cardinality(step) > 1
				THEN pg_temp.global_step_key_of(environment, current_user, NULL, step[1]) END,
			step[cardinality(step)]) COLLATE "C"
		FROM (VALUES
			(ARRAY['pgtap a'], 'default'),
			(ARRAY['pgtap b'], 'default'),
			(ARRAY[E'pgtap "c"\n\\'], 'default'),
			(ARRAY['pgtap ' || repeat('x', 2042)], 'default'),
			(ARRAY['pgtap d'], 'default'),
			(ARRAY['pgtap d', 'inner'], 'default'),
			(ARRAY['pgtap a'], 'trigger_idem pgtap keys')) s(step, environment)
		ORDER BY 1, 2$$,
	'global steps have the keys of the oracle');
SELECT is_empty($$SELECT step FROM trigger_idem.steps
	WHERE scope = 'global' AND step[1] LIKE 'pgtap %' AND output #>> '{}' <> CASE
		WHEN step = '{pgtap d}' THEN pg_temp.global_step_key_of('default', current_user,
			pg_temp.global_step_key_of('default', current_user, NULL, 'pgtap d'), 'inner')
		ELSE idempotency_key END$$,
	'and their callbacks were given them');

SELECT * FROM finish();
ROLLBACK;
