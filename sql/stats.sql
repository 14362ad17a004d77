-- stats() without preloading: what the tables can tell.  The counters, which need
-- preloading: test/tap/017_stats.pl.

SELECT count(*) AS counters FROM trigger_idem.stats_shared();
SELECT name, count(*), count(value) AS known, count(since) AS since, count(label) AS labels, min(value) >= 0 AS sensible FROM trigger_idem.stats() GROUP BY name ORDER BY name;
SELECT string_agg(label, ' ') AS states FROM trigger_idem.stats() WHERE name = 'runs_ended';
SELECT string_agg(label, ' ') AS bounds FROM trigger_idem.stats() WHERE name = 'claim_seconds_bucket';

-- what changes them
CREATE TABLE helper.stats_before AS SELECT * FROM trigger_idem.stats();
CREATE FUNCTION helper.stats_handler() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('stats a', 'helper.callback'), trigger_idem.run_once('stats a', 'helper.callback'), trigger_idem.run_once('stats b', 'helper.callback');
END $$;
SELECT trigger_idem.task_create('stats', 'helper.stats_handler', queue => 'stats');
SELECT count(trigger_idem.trigger_task('stats', idempotency_key => 'stats')) FROM generate_series(1, 5);
SELECT FROM trigger_idem.trigger_task('stats', delay => '1 hour', tags => '{canceled}');
CALL trigger_idem.work('stats');
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE tags = '{canceled}';
SELECT name, s.label, s.value - b.value AS more FROM trigger_idem.stats() s JOIN helper.stats_before b USING (name) WHERE s.label IS NOT DISTINCT FROM b.label AND s.value <> b.value
	AND (name !~ 'seconds' OR s.label = '+Inf' OR name = 'claim_seconds_count') ORDER BY name, s.label;
-- buckets hold the smaller ones, and the last of them all
SELECT bool_and(value >= before) AS grow, bool_or(value = (SELECT value FROM trigger_idem.stats() WHERE name = 'claim_seconds_count')) AS to_all
FROM (SELECT value, lag(value, 1, 0) OVER () AS before FROM trigger_idem.stats() WHERE name = 'claim_seconds_bucket') b;
DELETE FROM helper.log;

-- for whoever may see all runs
CREATE ROLE regress_stats;
SELECT trigger_idem.access_grant('regress_stats', 'trigger');
SET ROLE regress_stats;
SELECT count(*) FROM trigger_idem.stats();
RESET ROLE;
GRANT EXECUTE ON FUNCTION trigger_idem.stats, trigger_idem.stats_shared, trigger_idem.stats_tables TO regress_stats;
SET ROLE regress_stats;
SELECT count(*) FROM trigger_idem.stats();
RESET ROLE;
SELECT trigger_idem.access_grant('regress_stats', 'monitor');
SET ROLE regress_stats;
SELECT name FROM trigger_idem.stats() WHERE name = 'triggers' AND value > 0;
RESET ROLE;
DROP OWNED BY regress_stats;
DROP ROLE regress_stats;
