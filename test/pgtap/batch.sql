-- Random batches, resets, expirations and single triggers against a model in
-- PL/pgSQL of what each key stands for.  Run as a superuser, with pg_prove;
-- everything is rolled back.

BEGIN;
SET LOCAL client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS trigger_idem;
SELECT set_config('search_path', (SELECT quote_ident(nspname) FROM pg_extension
	JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pgtap'), true) \g /dev/null
SET LOCAL trigger_idem.environment = 'default';
SELECT setseed(0.27182818) \g /dev/null

SELECT plan(144);

SELECT trigger_idem.task_create('pgtap batch one', idempotency_group => 'pgtap batch'), trigger_idem.task_create('pgtap batch two', idempotency_group => 'pgtap batch'),
	trigger_idem.task_create('pgtap batch three', idempotency_key_ttl => NULL), trigger_idem.environment_create('pgtap batch environment') \g /dev/null

-- ---------- The model ----------

-- Live keys.  space is what a key belongs to; key is what it is made of.
CREATE TEMPORARY TABLE model (space text, key text[], run_id uuid NOT NULL, payload jsonb, PRIMARY KEY (space, key));
-- all runs that there must be
CREATE TEMPORARY TABLE made (run_id uuid PRIMARY KEY, task_id text, environment text, key text[], payload jsonb);

CREATE FUNCTION pg_temp.space(task_id text, environment text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN environment || '/' || CASE WHEN task_id IN ('pgtap batch one', 'pgtap batch two') THEN 'group' ELSE task_id END;

CREATE FUNCTION pg_temp.below(n int) RETURNS int LANGUAGE sql VOLATILE
RETURN floor(random() * n)::int;

CREATE FUNCTION pg_temp.one_of(choices text[]) RETURNS text LANGUAGE sql VOLATILE
RETURN choices[1 + pg_temp.below(cardinality(choices))];

-- a key of twelve, as typed
CREATE FUNCTION pg_temp.random_key() RETURNS text[] LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN n < 8 THEN ARRAY['key ' || n] WHEN n < 10 THEN ARRAY['batch ' || n % 2, (pg_temp.below(3))::text] ELSE ARRAY['key, "odd"', 'of ' || n] END
	FROM pg_temp.below(12) n
$$;

-- as an option: a list has to be given as its 64 digits, a text may be
CREATE FUNCTION pg_temp.key_option(key text[]) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN cardinality(key) > 1 OR pg_temp.below(3) = 0 THEN trigger_idem.idempotency_key_create(key, 'global') ELSE key[1] END
$$;

-- What the model says of one trigger, in order: run_id is what was answered.
-- NULL: it is right; else what is wrong.
CREATE FUNCTION pg_temp.judge(the_task text, the_environment text, the_key text[], the_payload jsonb, answered_run uuid, answered_cached boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	live model;
BEGIN
	SELECT * INTO live FROM model m WHERE m.space = pg_temp.space(the_task, the_environment) AND m.key = the_key;
	IF FOUND THEN
		RETURN CASE WHEN NOT answered_cached THEN 'should be cached' WHEN answered_run <> live.run_id THEN 'is another run' END;
	END IF;
	IF answered_cached THEN
		RETURN 'should be new';
	ELSIF EXISTS (SELECT FROM made m WHERE m.run_id = answered_run) THEN
		RETURN 'is an old run';
	END IF;
	INSERT INTO made VALUES (answered_run, the_task, the_environment, the_key, the_payload);
	IF the_key IS NOT NULL THEN
		INSERT INTO model VALUES (pg_temp.space(the_task, the_environment), the_key, answered_run, the_payload);
	END IF;
	RETURN NULL;
END $$;

-- A random batch, and what is wrong with its answers
CREATE FUNCTION pg_temp.random_batch(round int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	task text := pg_temp.one_of('{pgtap batch one,pgtap batch two,pgtap batch three}');
	environment text := pg_temp.one_of('{default,default,pgtap batch environment}');
	batch_key text := pg_temp.one_of('{NULL,NULL,batch 0,batch 1}');
	count int := pg_temp.below(13);
	keys text[] := '{}';
	payloads jsonb[] := '{}';
	items jsonb := '[]';
	own text[];
	next int := 0;
	answer record;
	wrong text;
BEGIN
	FOR i IN 0 .. count - 1 LOOP
		own := CASE WHEN pg_temp.below(4) > 0 THEN pg_temp.random_key() END;
		payloads := payloads || (CASE WHEN pg_temp.below(5) > 0 THEN jsonb_build_object('round', round, 'item', i) END);
		items := items || jsonb_build_array(
			CASE WHEN payloads[i + 1] IS NULL THEN '{}' ELSE jsonb_build_object('payload', payloads[i + 1]) END
			|| CASE WHEN own IS NULL THEN pg_temp.one_of('{"{}","{\"options\": null}","{\"options\": {\"idempotency_key\": null, \"priority\": 3}}"}')::jsonb
				ELSE jsonb_build_object('options', jsonb_build_object('idempotency_key', pg_temp.key_option(own), 'delay', '1 hour')) END);
		-- arrays of arrays must be rectangular: a key is kept as text
		keys := keys || coalesce(own, CASE WHEN batch_key IS NOT NULL THEN ARRAY[batch_key, i::text] END)::text;
	END LOOP;
	FOR answer IN SELECT * FROM trigger_idem.batch_trigger_task(task, items, batch_key, environment) LOOP
		IF answer.index <> next THEN
			RETURN NEXT format('index %s instead of %s', answer.index, next);
		END IF;
		next := next + 1;
		wrong := pg_temp.judge(task, environment, keys[next]::text[], payloads[next], answer.run_id, answer.is_cached);
		IF wrong IS NOT NULL THEN
			RETURN NEXT format('item %s with key %s %s: %s', answer.index, keys[next], wrong, items);
		END IF;
		IF answer.status <> (SELECT status FROM trigger_idem.runs r WHERE r.run_id = answer.run_id) THEN
			RETURN NEXT format('item %s has status %s', answer.index, answer.status);
		END IF;
	END LOOP;
	IF next <> count THEN
		RETURN NEXT format('%s answers of %s items', next, count);
	END IF;
END $$;

-- A single trigger, and what is wrong with its answer
CREATE FUNCTION pg_temp.random_trigger(round int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	task text := pg_temp.one_of('{pgtap batch one,pgtap batch two,pgtap batch three}');
	the_environment text := pg_temp.one_of('{default,pgtap batch environment}');
	own text[] := pg_temp.random_key();
	answer record;
	wrong text;
BEGIN
	SELECT * INTO STRICT answer FROM trigger_idem.trigger_task(task, to_jsonb(round), pg_temp.key_option(own), environment => the_environment);
	wrong := pg_temp.judge(task, the_environment, own, to_jsonb(round), answer.run_id, answer.is_cached);
	IF wrong IS NOT NULL THEN
		RETURN NEXT format('trigger with key %s %s', own, wrong);
	END IF;
END $$;

-- A batch with one bad item somewhere: refused, and nothing of it stays
CREATE FUNCTION pg_temp.bad_batch(round int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	count int := 1 + pg_temp.below(8);
	bad int := pg_temp.below(count);
	items jsonb;
BEGIN
	SELECT jsonb_agg(CASE WHEN i = bad THEN pg_temp.one_of('{"1","{\"option\": {}}","{\"options\": {\"delay\": 1}}","{\"options\": {\"dela\": null}}","{\"options\": {\"priority\": -1}}","{\"options\": {\"idempotency_key\": \"\"}}"}')::jsonb
		ELSE jsonb_build_object('options', jsonb_build_object('idempotency_key', pg_temp.key_option(pg_temp.random_key()))) END ORDER BY i)
	INTO items FROM generate_series(0, count - 1) i;
	PERFORM trigger_idem.batch_trigger_task('pgtap batch one', items, 'batch 0');
	RETURN NEXT format('accepted: %s', items);
EXCEPTION WHEN invalid_parameter_value THEN
	DECLARE
		context text;
	BEGIN
		GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
		IF context !~ format('item %s of the batch', bad) THEN
			RETURN NEXT format('item %s is bad, but: %s', bad, context);
		END IF;
	END;
END $$;

-- Reset random keys, live or not, and let others expire; what is wrong with the answers
CREATE FUNCTION pg_temp.random_upkeep() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	task text;
	the_environment text;
	own text[];
	is_live boolean;
	was_released boolean;
	victim model;
BEGIN
	FOR i IN 1 .. 12 LOOP
		task := pg_temp.one_of('{pgtap batch one,pgtap batch two,pgtap batch three}');
		the_environment := pg_temp.one_of('{default,pgtap batch environment}');
		own := pg_temp.random_key();
		DELETE FROM model m WHERE m.space = pg_temp.space(task, the_environment) AND m.key = own;
		is_live := FOUND;
		was_released := trigger_idem.idempotency_key_reset(task, pg_temp.key_option(own), the_environment);
		IF was_released <> is_live THEN
			RETURN NEXT format('reset of %s of %s in %s answers %s', own, task, the_environment, was_released);
		END IF;
	END LOOP;
	FOR victim IN SELECT * FROM model ORDER BY random() LIMIT 15 LOOP
		UPDATE trigger_idem.idempotency_key k SET expires_at = clock_timestamp() WHERE k.run_id = victim.run_id;
		IF NOT FOUND THEN
			RETURN NEXT format('the key %s of %s is not there', victim.key, victim.space);
		END IF;
		DELETE FROM model m WHERE m.run_id = victim.run_id;
	END LOOP;
END $$;

-- ---------- Rounds ----------

-- The keys that are live in the extension, as the model has them
CREATE TEMPORARY VIEW live AS
SELECT pg_temp.space(k.task_id, k.environment) AS space, k.idempotency_key, k.run_id
FROM trigger_idem.idempotency_keys k WHERE k.task_id LIKE 'pgtap batch%' AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp());
CREATE TEMPORARY VIEW modelled AS
SELECT space, trigger_idem.idempotency_key_create(key, 'global') AS idempotency_key, run_id FROM model;

CREATE FUNCTION pg_temp.rounds() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	FOR round IN 1 .. 20 LOOP
		RETURN NEXT is(ARRAY(SELECT pg_temp.random_batch(round) FROM generate_series(1, 5)), '{}', format('round %s: batches', round));
		RETURN NEXT is(ARRAY(SELECT pg_temp.random_trigger(round) FROM generate_series(1, 5)), '{}', format('round %s: single triggers', round));
		RETURN NEXT is(ARRAY(SELECT pg_temp.bad_batch(round) FROM generate_series(1, 5)), '{}', format('round %s: batches with a bad item', round));
		RETURN NEXT is(ARRAY(SELECT pg_temp.random_upkeep()), '{}', format('round %s: resets', round));
		RETURN NEXT set_eq('SELECT * FROM live', 'SELECT * FROM modelled', format('round %s: the live keys', round));
		RETURN NEXT set_eq($r$SELECT run_id, task_id, environment, payload FROM trigger_idem.runs WHERE task_id LIKE 'pgtap batch%'$r$,
			'SELECT run_id, task_id, environment, payload FROM made', format('round %s: the runs', round));
		RETURN NEXT set_eq($r$SELECT run_id FROM trigger_idem.queue_entry WHERE task_id LIKE 'pgtap batch%'$r$,
			'SELECT run_id FROM made', format('round %s: the queue', round));
	END LOOP;
END $$;
SELECT * FROM pg_temp.rounds();

-- what the rounds have seen
SELECT ok(count(*) > 300 AND count(*) FILTER (WHERE key IS NULL) > 30 AND count(DISTINCT key) > 20, 'there were many runs, with keys and without') FROM made;
SELECT ok(max(runs) > 3, 'keys have had several runs') FROM (SELECT count(*) AS runs FROM made WHERE key IS NOT NULL GROUP BY pg_temp.space(task_id, environment), key) k;

-- a batch of hits writes nothing
SELECT trigger_idem.trigger_task('pgtap batch one', NULL, 'key 0') \g /dev/null
CREATE TEMPORARY VIEW written AS
SELECT COALESCE(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) AS rows FROM pg_stat_xact_all_tables WHERE schemaname = 'trigger_idem';
SELECT rows FROM written \gset before_
CREATE FUNCTION pg_temp.hits() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	SET LOCAL transaction_read_only = on;
	SELECT bool_and(is_cached)::text INTO answer
	FROM trigger_idem.batch_trigger_task('pgtap batch one', (SELECT jsonb_agg(jsonb_build_object('options',
		jsonb_build_object('idempotency_key', trigger_idem.idempotency_key_create(key, 'global'))))
		FROM (SELECT key FROM model WHERE space = 'default/group' UNION SELECT '{key 0}') k));
	RAISE 'read and write again' USING ERRCODE = 'XX999';
EXCEPTION WHEN SQLSTATE 'XX999' THEN
	RETURN answer;
END $$;
SELECT is(pg_temp.hits(), 'true', 'in a read-only transaction all live keys are hits');
SELECT is(rows, :'before_rows'::numeric, 'and no row is written') FROM written;

SELECT * FROM finish();
ROLLBACK;
