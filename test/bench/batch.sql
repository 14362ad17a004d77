-- Microseconds an item of a batch of 10,000 new keys, by us and by hand, in an
-- order that alternates.  Both are given the same JSON, as a client sends it; by
-- hand also rows that are in a table already.  Adds to bench.timing.
\set ON_ERROR_STOP on
\o /dev/null

CREATE TEMPORARY TABLE item AS
SELECT 'bench batch number' || 100000000000000000 + :round * 1000000 + n AS key,
	'{"order": 4711, "currency": "EUR", "lines": [{"sku": "A-1", "count": 2}, {"sku": "B-22", "count": 1}], "customer": "c-00042"}'::jsonb AS payload
FROM generate_series(1, 10000) n ORDER BY random();

CREATE FUNCTION pg_temp.items() RETURNS jsonb
LANGUAGE sql RETURN (SELECT jsonb_agg(jsonb_build_object('payload', payload,
	'options', jsonb_build_object('idempotency_key', key))) FROM item);

CREATE FUNCTION pg_temp.batch() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	items jsonb := pg_temp.items();
	started timestamptz := clock_timestamp();
BEGIN
	PERFORM count(*) FROM trigger_idem.batch_trigger_task('batch', items);
	INSERT INTO bench.timing
	VALUES ('batch', extract(epoch FROM clock_timestamp() - started) * 1e6 / 10000);
END
$$;

CREATE FUNCTION pg_temp.by_hand() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	items jsonb := pg_temp.items();
	started timestamptz := clock_timestamp();
	runs bigint;
BEGIN
	WITH new_run AS MATERIALIZED (
		SELECT gen_random_uuid() AS run_id, i->'payload' AS payload, i->'options'->>'idempotency_key' AS key
		FROM jsonb_array_elements(items) i
	), new_key AS (
		INSERT INTO bench.key (task, key, run_id)
		SELECT 'batch', key, run_id FROM new_run ORDER BY key
		ON CONFLICT DO NOTHING RETURNING run_id
	), run AS (
		INSERT INTO bench.run (run_id, task, payload)
		SELECT run_id, 'batch', payload FROM new_run JOIN new_key USING (run_id)
	), entry AS (
		INSERT INTO bench.queue_entry (run_id, task) SELECT run_id, 'batch' FROM new_key
	)
	SELECT count(*) INTO runs FROM new_key;
	INSERT INTO bench.timing
	VALUES ('batch by hand', extract(epoch FROM clock_timestamp() - started) * 1e6 / 10000);
END
$$;

CREATE FUNCTION pg_temp.rows_by_hand() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz := clock_timestamp();
	runs bigint;
BEGIN
	WITH new_run AS MATERIALIZED (
		SELECT gen_random_uuid() AS run_id, payload, 'rows' || key AS key FROM item
	), new_key AS (
		INSERT INTO bench.key (task, key, run_id)
		SELECT 'batch', key, run_id FROM new_run ORDER BY key
		ON CONFLICT DO NOTHING RETURNING run_id
	), run AS (
		INSERT INTO bench.run (run_id, task, payload)
		SELECT run_id, 'batch', payload FROM new_run JOIN new_key USING (run_id)
	), entry AS (
		INSERT INTO bench.queue_entry (run_id, task) SELECT run_id, 'batch' FROM new_key
	)
	SELECT count(*) INTO runs FROM new_key;
	INSERT INTO bench.timing
	VALUES ('batch by hand of rows', extract(epoch FROM clock_timestamp() - started) * 1e6 / 10000);
END
$$;

SELECT :round % 2 = 0 AS by_hand_first \gset
\if :by_hand_first
SELECT pg_temp.by_hand();
SELECT pg_temp.rows_by_hand();
SELECT pg_temp.batch();
\else
SELECT pg_temp.batch();
SELECT pg_temp.rows_by_hand();
SELECT pg_temp.by_hand();
\endif
