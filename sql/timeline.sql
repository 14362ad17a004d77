-- run_timeline(): what happened to a run, in order.

CREATE FUNCTION helper.timeline_inner(idempotency_key text) RETURNS int LANGUAGE sql RETURN 1;
CREATE FUNCTION helper.timeline_outer(idempotency_key text) RETURNS jsonb LANGUAGE sql AS
	$$ SELECT trigger_idem.run_once('inner', 'helper.timeline_inner') $$;
CREATE FUNCTION helper.timeline_child(payload jsonb) RETURNS text LANGUAGE sql RETURN 'of the child';

-- A procedure that keeps its first step, waits for a child, fails once and then goes on
CREATE PROCEDURE helper.timeline_parent(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('outer', 'helper.timeline_outer');
	COMMIT;
	PERFORM trigger_idem.trigger_task_and_wait('timeline_child');
	IF trigger_idem.current_attempt() = 2 THEN
		RAISE EXCEPTION 'no luck' USING ERRCODE = '58000', DETAIL = 'the detail';
	END IF;
	PERFORM trigger_idem.wait_for('nap', '0');
END $$;
SELECT trigger_idem.task_create('timeline_child', 'helper.timeline_child', queue => 'timeline');
SELECT trigger_idem.task_create('timeline_parent', 'helper.timeline_parent', queue => 'timeline', min_backoff => '0');
CREATE TABLE helper.timeline AS
	SELECT run_id FROM trigger_idem.trigger_task('timeline_parent', '{"a": 1}', 'timeline', run_at => '2001-01-01');
CALL trigger_idem.work('timeline');

-- times stand for themselves, ids and workers are replaced
CREATE FUNCTION helper.timeline_text(line text) RETURNS text LANGUAGE sql RETURN
	regexp_replace(regexp_replace(regexp_replace(line, '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'ID', 'g'),
		'backend \d+', 'backend N'), '(due|begun|until) .*', '\1 TIME');
SELECT event, attempt, step, duration >= '0' AS lasts, helper.timeline_text(description) AS description,
	CASE WHEN data ? 'context' THEN data - 'context' ELSE data END AS data
FROM helper.timeline, trigger_idem.run_timeline(run_id);
-- in order, and a wait that was over before the attempt that it let begin, though that failed
SELECT bool_and(at >= before) AS in_order FROM (SELECT at, lag(at) OVER () AS before
	FROM helper.timeline, trigger_idem.run_timeline(run_id)) t;
SELECT w.kind, w.ended_at <= a.started_at AS ended_before_it_went_on
FROM helper.timeline JOIN trigger_idem.waits w USING (run_id) JOIN trigger_idem.attempts a USING (run_id) WHERE a.attempt = 2;
-- the same where it is given back
SELECT trigger_idem.task_create('timeline_back', queue => 'timeline_back');
SELECT FROM trigger_idem.trigger_task('timeline_back');
SELECT run_id, attempt FROM trigger_idem.run_claim('w', 'timeline_back') \gset
SELECT token FROM trigger_idem.wait_token_create('timeline') \gset
BEGIN;
SELECT trigger_idem.run_enter(:'run_id', :attempt);
SELECT ok FROM trigger_idem.wait_for_token(:'token');
COMMIT;
SELECT trigger_idem.wait_token_complete(:'token');
SELECT attempt FROM trigger_idem.run_claim('w', 'timeline_back') \gset
SELECT trigger_idem.run_release(:'run_id', :attempt, '1 hour');
SELECT ended_at < now() + interval '1 minute' AS ended, timed_out FROM trigger_idem.waits WHERE run_id = :'run_id';
-- replays, as the view has them
SELECT step, replayed FROM helper.timeline JOIN trigger_idem.steps USING (run_id) ORDER BY step;

-- a run that has not begun, and one whose task was dropped
SELECT trigger_idem.task_create('timeline_waits', 'helper.timeline_child', queue => 'timeline');
SELECT FROM trigger_idem.trigger_task('timeline_waits', delay => '1 hour', tags => '{delayed}');
SELECT event, t.attempt, duration, helper.timeline_text(description) AS description
FROM trigger_idem.runs r, trigger_idem.run_timeline(r.run_id) t WHERE tags = '{delayed}';
SELECT FROM trigger_idem.trigger_task('timeline_waits', tags => '{dropped}');
SELECT trigger_idem.task_drop('timeline_waits');
SELECT event, description FROM trigger_idem.runs r, trigger_idem.run_timeline(r.run_id) WHERE tags = '{dropped}';
-- released, failed, and then canceled while it backs off
SELECT trigger_idem.task_create('timeline_application', queue => 'timeline_application');
SELECT count(*) FROM trigger_idem.trigger_task('timeline_application');
SELECT trigger_idem.run_release(run_id, attempt) FROM trigger_idem.run_claim('w', 'timeline_application');
SELECT trigger_idem.run_fail(run_id, attempt, '"its own"', retry_after => '1 hour') IS NOT NULL AS failed FROM trigger_idem.run_claim('w', 'timeline_application');
SELECT event, t.attempt, helper.timeline_text(description) AS description, data
FROM trigger_idem.runs r, trigger_idem.run_timeline(r.run_id) t WHERE task_id = 'timeline_application';
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE task_id LIKE 'timeline%' AND finished_at IS NULL;
SELECT event, t.attempt, helper.timeline_text(description) AS description, data
FROM trigger_idem.runs r, trigger_idem.run_timeline(r.run_id) t WHERE task_id = 'timeline_application' AND event NOT IN ('claimed', 'triggered');

-- errors: a run that one may not see is as unknown
SELECT helper.error_of($$SELECT trigger_idem.run_timeline(NULL)$$);
SELECT helper.error_of($$SELECT trigger_idem.run_timeline('00000000-0000-7000-8000-000000000000')$$);
CREATE ROLE regress_timeline;
GRANT USAGE ON SCHEMA helper TO regress_timeline;
SELECT trigger_idem.access_grant('regress_timeline', 'trigger');
GRANT SELECT ON helper.timeline TO regress_timeline;
SET ROLE regress_timeline;
SELECT helper.timeline_text(helper.error_of(format('SELECT trigger_idem.run_timeline(%L)', run_id))) FROM helper.timeline;
RESET ROLE;
DROP OWNED BY regress_timeline;
DROP ROLE regress_timeline;
