CREATE FUNCTION trigger_idem.stats_shared()
RETURNS TABLE (
	name text,
	label text,
	value float8,
	since timestamptz)
LANGUAGE c VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'trigger_idem_stats_shared';
COMMENT ON FUNCTION trigger_idem.stats_shared() IS
	'The counters in shared memory; no row without preloading';

-- What the views can tell, with the names of the counters: of what is still there and
-- may be seen.  Hits and wake-ups leave no trace.
CREATE FUNCTION trigger_idem.stats_tables()
RETURNS TABLE (
	name text,
	label text,
	value float8)
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	WITH bound (n, le) AS (
		SELECT b.n - 1, b.le FROM unnest(ARRAY['0.001', '0.0025', '0.005', '0.01', '0.025', '0.1', '0.5', '1', '5', '30', '300', '+Inf'])
			WITH ORDINALITY b(le, n)),
	-- few rows from one look at all runs: by state, and by how many bounds they have waited longer
	run AS MATERIALIZED (
		SELECT r.status, r.bucket, count(*) AS number, sum(greatest(r.waited, 0)) AS seconds
		FROM (SELECT w.status, w.waited, (w.waited > 0.001)::int + (w.waited > 0.0025)::int + (w.waited > 0.005)::int
				+ (w.waited > 0.01)::int + (w.waited > 0.025)::int + (w.waited > 0.1)::int + (w.waited > 0.5)::int
				+ (w.waited > 1)::int + (w.waited > 5)::int + (w.waited > 30)::int + (w.waited > 300)::int AS bucket
			FROM (SELECT v.status, extract(epoch FROM v.started_at - v.first_run_at)::float8 AS waited
				FROM trigger_idem.runs v) w) r
		GROUP BY r.status, r.bucket),
	stat (number, name, label, value) AS (
		SELECT 1, 'triggers', NULL, (SELECT COALESCE(sum(r.number), 0) FROM run r)
		UNION ALL SELECT 2, 'hits', NULL, NULL
		UNION ALL SELECT 3, 'steps_done', NULL, (SELECT count(*) FROM trigger_idem.steps)
		UNION ALL SELECT 4, 'steps_replayed', NULL, (SELECT COALESCE(sum(a.steps_replayed), 0) FROM trigger_idem.attempts a)
		UNION ALL SELECT 4 + s.n * 0.01, 'runs_ended', s.status::text,
				(SELECT COALESCE(sum(r.number), 0) FROM run r WHERE r.status = s.status)
			FROM unnest(enum_range('completed'::trigger_idem.run_status, NULL)) WITH ORDINALITY s(status, n)
		UNION ALL SELECT 5 + b.n * 0.01, 'claim_seconds_bucket', b.le,
				(SELECT COALESCE(sum(r.number), 0) FROM run r WHERE r.bucket <= b.n) FROM bound b
		UNION ALL SELECT 6, 'claim_seconds_count', NULL,
				(SELECT COALESCE(sum(r.number), 0) FROM run r WHERE r.bucket IS NOT NULL)
		UNION ALL SELECT 7, 'claim_seconds_sum', NULL, (SELECT COALESCE(sum(r.seconds), 0) FROM run r WHERE r.bucket IS NOT NULL)
		UNION ALL SELECT 8 + b.n * 0.01, 'wakeup_seconds_bucket', b.le, NULL FROM bound b
		UNION ALL SELECT 9, 'wakeup_seconds_count', NULL, NULL
		UNION ALL SELECT 10, 'wakeup_seconds_sum', NULL, NULL)
	SELECT s.name, s.label, s.value::float8 FROM stat s ORDER BY s.number;
END;
COMMENT ON FUNCTION trigger_idem.stats_tables() IS
	'What the tables can tell in place of the counters';

CREATE FUNCTION trigger_idem.stats()
RETURNS TABLE (
	name text,
	label text,
	value float8,
	since timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
	RETURN QUERY SELECT s.name, s.label, s.value, s.since FROM trigger_idem.stats_shared() s;
	IF NOT FOUND THEN
		RETURN QUERY SELECT s.name, s.label, s.value, NULL::timestamptz FROM trigger_idem.stats_tables() s;
	END IF;
END $$;
COMMENT ON FUNCTION trigger_idem.stats() IS
	'Counters since the server has started, or what the tables can tell';
