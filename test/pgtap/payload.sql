-- The encoding of payloads, computed again in PL/pgSQL with pgcrypto's digest()
-- from the description at the head of src/payload.c, over fixed and random
-- documents; and where two payloads first differ.  Run as a superuser, with
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

SELECT plan(CASE WHEN :'utf8' THEN 91 ELSE 83 END);

-- ---------- The oracle ----------

-- a part: its length in four bytes, then its bytes
CREATE FUNCTION pg_temp.part(bytea) RETURNS bytea LANGUAGE sql IMMUTABLE
RETURN int4send(octet_length($1)) || $1;

CREATE FUNCTION pg_temp.part(text) RETURNS bytea LANGUAGE sql STABLE
RETURN pg_temp.part(convert_to($1, 'UTF8'));

-- <integer>e<exponent>: no zeros at the integer's end, zero is 0e0
CREATE FUNCTION pg_temp.number_text(number numeric) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	plain text := trim_scale(abs(number))::text;
	digits text := ltrim(replace(plain, '.', ''), '0');
	stripped text := rtrim(digits, '0');
	decimals int := CASE WHEN plain ~ '\.' THEN length(split_part(plain, '.', 2)) ELSE 0 END;
BEGIN
	IF stripped = '' THEN
		RETURN '0e0';
	END IF;
	RETURN CASE WHEN number < 0 THEN '-' ELSE '' END || stripped || 'e' || (length(digits) - length(stripped) - decimals);
END $$;

CREATE FUNCTION pg_temp.material(value jsonb) RETURNS bytea LANGUAGE plpgsql STABLE AS $$
DECLARE
	result bytea;
	member record;
BEGIN
	CASE jsonb_typeof(value)
		WHEN 'null' THEN
			RETURN 'n';
		WHEN 'boolean' THEN
			RETURN left(value::text, 1)::bytea;
		WHEN 'number' THEN
			RETURN 'd'::bytea || pg_temp.part(pg_temp.number_text((value #>> '{}')::numeric));
		WHEN 'string' THEN
			RETURN 's'::bytea || pg_temp.part(value #>> '{}');
		WHEN 'array' THEN
			result := 'a'::bytea || int4send(jsonb_array_length(value));
			FOR member IN SELECT e.value FROM jsonb_array_elements(value) WITH ORDINALITY e(value, n) ORDER BY n LOOP
				result := result || pg_temp.material(member.value);
			END LOOP;
		WHEN 'object' THEN
			result := 'o'::bytea || int4send((SELECT count(*)::int FROM jsonb_object_keys(value)));
			FOR member IN SELECT e.key, e.value FROM jsonb_each(value) e
				ORDER BY octet_length(convert_to(e.key, 'UTF8')), convert_to(e.key, 'UTF8') LOOP
				result := result || pg_temp.part(member.key) || pg_temp.material(member.value);
			END LOOP;
	END CASE;
	RETURN result;
END $$;

-- what idempotency_key_from_payload() must answer
CREATE FUNCTION pg_temp.key_of(payload jsonb) RETURNS text LANGUAGE sql STABLE
RETURN encode(digest(pg_temp.part('trigger_idem payload v1') || pg_temp.material(payload), 'sha256'), 'hex');

-- Where two payloads first differ, members in the order of the encoding
CREATE FUNCTION pg_temp.difference(one jsonb, other jsonb, path text DEFAULT '$') RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
	found text;
	entry record;
BEGIN
	IF one = other THEN
		RETURN NULL;
	ELSIF jsonb_typeof(one) = 'object' AND jsonb_typeof(other) = 'object' THEN
		FOR entry IN SELECT key FROM (SELECT jsonb_object_keys(one) UNION SELECT jsonb_object_keys(other)) k(key)
			ORDER BY octet_length(convert_to(key, 'UTF8')), convert_to(key, 'UTF8') LOOP
			found := pg_temp.difference(one -> entry.key, other -> entry.key,
				path || '.' || CASE WHEN entry.key ~ '^[A-Za-z_][A-Za-z_0-9]*$' THEN entry.key ELSE to_json(entry.key)::text END);
			EXIT WHEN found IS NOT NULL;
		END LOOP;
		RETURN found;
	ELSIF jsonb_typeof(one) = 'array' AND jsonb_typeof(other) = 'array' THEN
		FOR i IN 0 .. greatest(jsonb_array_length(one), jsonb_array_length(other)) - 1 LOOP
			found := pg_temp.difference(one -> i, other -> i, format('%s[%s]', path, i));
			EXIT WHEN found IS NOT NULL;
		END LOOP;
		RETURN found;
	ELSE
		RETURN path;
	END IF;
END $$;

-- ---------- Vectors ----------

-- Those of doc/keys.md, and more: when both implementations change, these do not.
CREATE TEMPORARY TABLE vector (n int GENERATED ALWAYS AS IDENTITY, payload text, key text);
INSERT INTO vector (payload, key) VALUES
('null', 'd3da79a294e0dc30cb0e2f6557dd3274c4825c23aec24a27f8913d6036fd387a'),
('true', '7fbe3aa3ba9cff2db2584ae4ee2dd11b0e0460354c9a8faf0e2d47b6e3758456'),
('0', 'c28a97050fbcc00bb36bd44782f5739fa62887895d227849f8ed6a89e2586bde'),
('1', 'ef5aa5f3022f33922cc66e47a67b6589c0a1193e3acafeca8ea7f3e63ff4cd87'),
('1.0', 'ef5aa5f3022f33922cc66e47a67b6589c0a1193e3acafeca8ea7f3e63ff4cd87'),
('1e0', 'ef5aa5f3022f33922cc66e47a67b6589c0a1193e3acafeca8ea7f3e63ff4cd87'),
('-12000', 'd5653ea7cb232a5b3fab1416df32db0865c9957082be1e40689d59633132bb0f'),
('1.5', 'e7df1482518dcf7f1d974782dede821f24ffba62b62faec30f339a8da22d9a20'),
('12345678901234567890', '4716411f9920906b2335a5dacaa9f90f9d841e76557faf67c60c47d7be21aecc'),
('12345678901234567891', '977e6483f5b4bedd80e7959b438d28651e573f9de9df22c2446c453c947e0c57'),
('1e-20', 'efa799c4e09d24d731667809442c02b0a206d9da0a9084ab9448fa15bb278b90'),
('"1"', '4a4110287cc142a70f67fb748b66903d5b719e5d9cf7444a6a9addeca1643ae3'),
('""', 'd8717a928ff52d321a38e510c3bf1450525ff567878a21d616118d5770ad50ec'),
('[]', '7e03b295680c1efa14a231fb53925c2b1a74a8cf2d76e9b3253604aaa8b00d23'),
('{}', '687484c1817fba2ea4068a985f34eed77ed4c526c391511da1d9d007db46a7f7'),
('[[1],2]', 'eea0a933022d33a0a1fe7aceb9a565e85796d16e40def0f8c9c69efd8690dfba'),
('[1,[2]]', '87e4490d76fc443b8aa866632bfd71d25f7f74837ec8c697454a49416c9a9ba1'),
('{"a":1,"b":2}', '519e203f20653c057a628f4b094df277dbd8b4df813021d5d135d7a0156c1810'),
('{"b":2.0,"a":1e0}', '519e203f20653c057a628f4b094df277dbd8b4df813021d5d135d7a0156c1810'),
('{"aa":1,"b":{"c":[null,false]}}', '9bdec325717ffb9ea815ba8cd3838fde7f0bed359c266cc07d40f21a02f3aed8'),
('false', '80c1e06c8577b4d214397e0d19f3a7936d2fc8316483e2b5dd4e2f396473be37'),
('-1', 'aba51ee2e47908b5c018966e6b46dbfb52e0078d595e9903c2c1cffc5968934d'),
('10', '71a3feae8c55601071ba5df5f878b6b80a15645cd621a69ec0275819429eef13'),
('0.1', 'ee3f3d3e03b23af16a1c47380636867318366542bca8309f165931d4b7633bf7'),
('-12.50', 'eaa6b2348588623b8edd3bae4b36662b0c3b2fcc8f98364e85229d4c6f13766b'),
('10000', '3bb008212ce60dcc1b4e364c1dcd064bd22c07fded934561d1657603f145a789'),
('0.10000000000000000001', '66d3c24a60403d58cb381042db7c12a7c650387b277e5a04680e80811ddfd18a'),
('1e100', '21cbf571c72a55983243a37d5d188ab544a77789df792066caf8d60f095a0365'),
('1e-100', '7731bb46ba9a5e0d0344f55866931fa462850d0497d2316925c78d7d9b12ef4f'),
('"order"', '210ca169808d36674c7743efc3e3ce52b30c4395827d82eee8e92b960210be00'),
('"line\nbreak \"quoted\" \\"', 'f7b85f28c7b76b0c87e411bdf00dd1ea9b075d406081bcdf0f5d4f0bf35f607d'),
('{"order": 1}', '696ee4ed3ba422d3acf59085d2fa064c4ecddc967d4098eeb9337e89627252b9'),
('{"b": 1, "a": [true, null, {"": "x"}], "aa": -0.0}', '6258d4b5048cdc14903d7c1ba1f2f872fb4a540f0d44665a5d020dd08b35aabb');
\if :utf8
INSERT INTO vector (payload, key) VALUES
('"naïve 🐘"', '78739759a599bea2805b4245adc564a5c71fb7aa72daab227ebce46f166d5ea7'),
('{"é":1,"zz":2,"z":3}', 'ffc64fd15c424a79f5bc0cc41544f2b56cb6eaaa6223063532aa6fb417f57ee4'),
('"naïve café"', 'a72f31ed29a01a14f1cb807033e71438730ac570040f573ece7ced4a3fe6f5fe'),
('{"日本語": "🐘", "é": 1, "zz": 2}', 'c01ab598970f8d20647ec428d244e0e8ddde350e2a08ee2c470a39108459bc45');
\endif

SELECT is(trigger_idem.idempotency_key_from_payload(payload::jsonb), key, 'key of ' || payload) FROM vector ORDER BY n;
SELECT is(pg_temp.key_of(payload::jsonb), key, 'the oracle has it, too: ' || payload) FROM vector ORDER BY n;

-- one of them by hand: the part of the domain, o, one member, its key, d, the number
SELECT is(trigger_idem.idempotency_key_from_payload('{"order": 1}'), encode(digest(
	'\x0000001774726967676572'::bytea || '_idem payload v1' || 'o' || '\x00000001' || '\x00000005' || 'order' || 'd' || '\x00000003' || '1e0', 'sha256'), 'hex'),
	'the bytes of {"order": 1}');
-- what is written of a number
SELECT results_eq($$SELECT pg_temp.number_text(n) FROM unnest('{0,-0.000,1,-1,10,-1200,0.5,-0.00250,123.4500,1e20}'::numeric[]) n$$,
	$$VALUES ('0e0'), ('0e0'), ('1e0'), ('-1e0'), ('1e1'), ('-12e2'), ('5e-1'), ('-25e-4'), ('12345e-2'), ('1e20')$$, 'the oracle''s numbers');

-- ---------- Random documents ----------

SELECT setseed(0.31415926) \g /dev/null

CREATE TEMPORARY TABLE alphabet (n int GENERATED ALWAYS AS IDENTITY, c text);
INSERT INTO alphabet (c) SELECT unnest(string_to_array('a,b,c,A,Z,0,9,_, ,.,",\,/,$,{,},[,],:,''', ',')) UNION ALL SELECT unnest(ARRAY[E'\n', E'\t', E'\x01', E'\x1f', E'\x7f', ',']);
\if :utf8
INSERT INTO alphabet (c) SELECT unnest(ARRAY['ä', 'é', 'ß', E'e\u0301', '語', '日', '🐘', E'\u00a0', E'\u2028', E'\uffff', E'\U0010FFFF']);
\endif

CREATE FUNCTION pg_temp.below(n int) RETURNS int LANGUAGE sql VOLATILE
RETURN floor(random() * n)::int;

CREATE FUNCTION pg_temp.random_text() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	letters int := (SELECT count(*) FROM alphabet);
	result text := '';
BEGIN
	FOR i IN 1 .. pg_temp.below(6) * CASE WHEN pg_temp.below(20) = 0 THEN 50 ELSE 1 END LOOP
		result := result || (SELECT c FROM alphabet a WHERE a.n = 1 + (SELECT pg_temp.below(letters)));
	END LOOP;
	RETURN result;
END $$;

-- a number as it may be written in JSON: of all scales and lengths, with zeros at both ends
CREATE FUNCTION pg_temp.random_number() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	digits text := '';
BEGIN
	FOR i IN 0 .. pg_temp.below(CASE WHEN pg_temp.below(4) = 0 THEN 60 ELSE 6 END) LOOP
		digits := digits || CASE WHEN pg_temp.below(3) = 0 THEN 0 ELSE pg_temp.below(10) END;
	END LOOP;
	digits := coalesce(nullif(ltrim(digits, '0'), ''), '0');
	RETURN CASE WHEN pg_temp.below(2) = 0 THEN '-' ELSE '' END || digits
		|| CASE pg_temp.below(3) WHEN 0 THEN '.' || repeat('0', pg_temp.below(9)) || pg_temp.below(1000) || repeat('0', pg_temp.below(9)) ELSE '' END
		|| CASE pg_temp.below(8) WHEN 0 THEN 'e' || (pg_temp.below(41) - 20) WHEN 1 THEN 'E' || (pg_temp.below(2001) - 1000) ELSE '' END;
END $$;

-- a document as text, with white space, keys in any order and twice
CREATE FUNCTION pg_temp.random_json(depth int) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	kind int := CASE WHEN depth = 0 THEN pg_temp.below(5) WHEN depth = 4 AND pg_temp.below(5) > 0 THEN 5 + pg_temp.below(5) ELSE pg_temp.below(10) END;
	parts text[] := '{}';
	space text := repeat(' ', pg_temp.below(2));
BEGIN
	IF kind = 0 THEN
		RETURN (ARRAY['null', 'true', 'false'])[1 + pg_temp.below(3)];
	ELSIF kind <= 2 THEN
		RETURN pg_temp.random_number();
	ELSIF kind <= 4 THEN
		RETURN to_json(pg_temp.random_text())::text;
	END IF;
	FOR i IN 1 .. pg_temp.below(6) LOOP
		parts := parts || (CASE WHEN kind <= 7 THEN to_json(pg_temp.random_text()) || space || ':' ELSE '' END || pg_temp.random_json(depth - 1));
	END LOOP;
	RETURN CASE WHEN kind <= 7 THEN '{' ELSE '[' END || array_to_string(parts, space || ',' || space) || CASE WHEN kind <= 7 THEN '}' ELSE ']' END;
END $$;

CREATE TEMPORARY TABLE document AS
SELECT n, doc, doc::jsonb AS payload FROM (SELECT n, pg_temp.random_json(4) AS doc FROM generate_series(1, 1000) n OFFSET 0) d;
ALTER TABLE document ADD key text, ADD oracle text;
UPDATE document SET key = trigger_idem.idempotency_key_from_payload(payload), oracle = pg_temp.key_of(payload);

-- how random they are
SELECT ok(count(*) FILTER (WHERE octet_length(doc) > 1000) > 10 AND count(*) FILTER (WHERE doc ~ '[{].*[[].*[{]') > 50
	AND count(*) FILTER (WHERE jsonb_typeof(payload) NOT IN ('object', 'array')) > 30 AND count(DISTINCT payload) > 750,
	'the documents are large and small, nested and not') FROM document;
SELECT is_empty($$SELECT n, doc FROM document WHERE key <> oracle$$, 'a thousand random documents have the keys of the oracle');

-- beyond 8192 bytes the material is hashed piece by piece
SELECT is_empty($$SELECT n FROM generate_series(8150, 8220) n
	WHERE trigger_idem.idempotency_key_from_payload(to_jsonb(repeat('x', n))) <> pg_temp.key_of(to_jsonb(repeat('x', n)))$$, 'at the end of the buffer, too');
SELECT is_empty($$SELECT g FROM (SELECT n / 100 AS g, jsonb_agg(payload ORDER BY n) AS payload FROM document GROUP BY 1) d
	WHERE trigger_idem.idempotency_key_from_payload(payload) <> pg_temp.key_of(payload)$$, 'documents of many buffers');
-- every scale there is, through the digits of numeric's base
SELECT is_empty($$SELECT number FROM (SELECT (d || 'e' || e)::jsonb AS number FROM generate_series(-40, 40) e, unnest('{1,-1,9999,10001,123456789,99990000,100000001}'::text[]) d) n
	WHERE trigger_idem.idempotency_key_from_payload(number) <> pg_temp.key_of(number)$$, 'numbers of every scale');
SELECT is_empty($$SELECT number FROM unnest('{1e131071,-1e131071,1e-16383,123e-16383}'::text[]) number
	WHERE trigger_idem.idempotency_key_from_payload(number::jsonb) <> pg_temp.key_of(number::jsonb)$$, 'the largest and the smallest');

-- ---------- Equal if and only if equal as jsonb ----------

-- the same document, written again otherwise
CREATE FUNCTION pg_temp.respell(value jsonb) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	RETURN CASE jsonb_typeof(value)
		WHEN 'number' THEN CASE WHEN value::text ~ '\.' THEN value::text || '000' ELSE value::text || '.0' END
		WHEN 'string' THEN CASE WHEN value::text ~ '^"a*"$' THEN replace(value::text, 'a', '\u0061') ELSE value::text END
		WHEN 'array' THEN '[ ' || coalesce((SELECT string_agg(pg_temp.respell(e), ' , ' ORDER BY n) FROM jsonb_array_elements(value) WITH ORDINALITY a(e, n)), '') || ' ]'
		WHEN 'object' THEN E'{\n' || coalesce((SELECT string_agg(to_json(key) || E'\t:' || pg_temp.respell(o.value), E'\n,' ORDER BY key DESC) FROM jsonb_each(value) o), '') || '}'
		ELSE value::text END;
END $$;
SELECT is_empty($$SELECT n, payload FROM (SELECT n, payload, key, pg_temp.respell(payload) AS again FROM document OFFSET 0) d
	WHERE again::jsonb <> payload OR again = payload::text AND jsonb_typeof(payload) IN ('number', 'object', 'array')
		OR trigger_idem.idempotency_key_from_payload(again::jsonb) <> key$$, 'written otherwise, they have the same keys');

-- pairs of a small world, where many are equal
CREATE FUNCTION pg_temp.small_json(depth int) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	kind int := pg_temp.below(CASE WHEN depth = 0 THEN 3 ELSE 5 END);
	a text;
	b text;
BEGIN
	IF kind < 3 THEN
		RETURN (ARRAY['null', 'true', '0', '-0.0', '1', '1.0', '10e-1', '-1', '10', '1e1', '0.1', '10.1', '""', '"1"', '"a"', '"\u0061"', '[]', '{}'])[1 + pg_temp.below(18)];
	END IF;
	a := pg_temp.small_json(depth - 1);
	b := pg_temp.small_json(depth - 1);
	RETURN CASE WHEN kind = 3 THEN (ARRAY['[%s]', '[%s, %s]', '[[%s], %s]', '[%s, [%s]]'])[1 + pg_temp.below(4)]
		ELSE (ARRAY['{"a": %s}', '{"b": %s}', '{"a": %s, "b": %s}', '{"b": %s, "a": %s}', '{"a": {"b": %s}}', '{"": %s, "aa": %s}'])[1 + pg_temp.below(6)] END;
END $$;
-- format() fills in what the pattern asks for
CREATE TEMPORARY TABLE small AS
SELECT n, payload, trigger_idem.idempotency_key_from_payload(payload) AS key
FROM (SELECT n, format(pg_temp.small_json(1), pg_temp.small_json(0), pg_temp.small_json(0))::jsonb AS payload FROM generate_series(1, 400) n OFFSET 0) s;
SELECT ok(count(*) FILTER (WHERE a.payload = b.payload AND a.payload::text <> b.payload::text) > 100 AND count(*) FILTER (WHERE a.payload <> b.payload) > 50000,
	'the pairs are equal and not, and written alike and not') FROM small a JOIN small b ON a.n < b.n;
SELECT is_empty($$SELECT a.payload, b.payload FROM small a JOIN small b ON a.n < b.n WHERE (a.payload = b.payload) <> (a.key = b.key)$$,
	'two payloads have the same key if and only if they are equal as jsonb');
SELECT is_empty($$SELECT a.doc, b.doc FROM document a JOIN document b ON a.key = b.key WHERE a.payload <> b.payload$$, 'so it is with the large ones');
SELECT is(count(DISTINCT key), count(DISTINCT payload), 'as many keys as documents') FROM document;

-- ---------- The first difference ----------

SELECT trigger_idem.task_create('pgtap payload', on_payload_mismatch => 'error') \g /dev/null

-- where the extension says that two payloads differ; NULL: it takes them for equal
CREATE FUNCTION pg_temp.told_difference(key text, one jsonb, other jsonb) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	detail text;
BEGIN
	PERFORM trigger_idem.trigger_task('pgtap payload', one, key);
	PERFORM trigger_idem.trigger_task('pgtap payload', other, key);
	RETURN NULL;
EXCEPTION WHEN SQLSTATE 'TI001' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN substring(detail FROM '^The payload of run [0-9a-f-]{36} differs at (.*)\.$');
END $$;

-- change one thing somewhere in a document
CREATE FUNCTION pg_temp.mutate(value jsonb) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	count int := CASE jsonb_typeof(value) WHEN 'array' THEN jsonb_array_length(value) WHEN 'object' THEN (SELECT count(*) FROM jsonb_object_keys(value)) END;
	chosen text;
	what int := pg_temp.below(6);
BEGIN
	IF count IS NULL OR what = 0 THEN
		RETURN CASE pg_temp.below(3) WHEN 0 THEN 'null' WHEN 1 THEN to_jsonb('mutated'::text) ELSE jsonb_build_array(value) END;
	ELSIF count = 0 OR what = 1 THEN
		RETURN CASE WHEN jsonb_typeof(value) = 'array' THEN value || '[null]' ELSE value || jsonb_build_object(pg_temp.random_text(), NULL) END;
	ELSIF jsonb_typeof(value) = 'array' THEN
		chosen := pg_temp.below(count)::text;
	ELSE
		chosen := (SELECT key FROM jsonb_object_keys(value) key ORDER BY key COLLATE "C" OFFSET (SELECT pg_temp.below(count)) LIMIT 1);
	END IF;
	IF what = 2 THEN
		RETURN CASE WHEN jsonb_typeof(value) = 'array' THEN value - chosen::int ELSE value - chosen END;
	END IF;
	RETURN jsonb_set(value, ARRAY[chosen], pg_temp.mutate(value #> ARRAY[chosen]));
END $$;

CREATE TEMPORARY TABLE pair AS
SELECT n, one, other, pg_temp.told_difference('pgtap ' || n, one, other) AS told FROM (
	SELECT n, payload AS one, pg_temp.mutate(payload) AS other FROM document
	UNION ALL SELECT a.n + 10000, a.payload, b.payload FROM small a JOIN small b ON b.n = 401 - a.n OFFSET 0) p;
SELECT ok(count(*) FILTER (WHERE length(told) > 10) > 70 AND count(*) FILTER (WHERE told IS NULL) > 5 AND count(*) FILTER (WHERE told = '$') > 100,
	'they differ here and there') FROM pair;
SELECT is_empty($$SELECT one, other, told FROM pair WHERE (told IS NULL) <> (one = other)$$, 'what differs is refused, what is equal is a hit');
SELECT is_empty($$SELECT one, other, told, pg_temp.difference(one, other) FROM pair
	WHERE octet_length(told) < 1000 AND told IS DISTINCT FROM pg_temp.difference(one, other)$$, 'where they first differ is told');
-- it is a path of JSON's, and leads to values that differ
SELECT is_empty($$SELECT one, other, told FROM pair WHERE octet_length(told) < 1000
	AND jsonb_path_query_first(one, ('strict ' || told)::jsonpath, silent => true) IS NOT DISTINCT FROM jsonb_path_query_first(other, ('strict ' || told)::jsonpath, silent => true)$$,
	'as a JSON path');

SELECT * FROM finish();
ROLLBACK;
