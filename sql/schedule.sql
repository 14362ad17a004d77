-- Schedules, without pg_cron: expressions and their ticks, firing by hand, who may.

CREATE SCHEMA schedule_test;
SET timezone = 'UTC';
SET datestyle = 'ISO';

CREATE FUNCTION schedule_test.error_of(command text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(helper.error_of(command), '[0-9a-f]{8}-[-0-9a-f]{27}', 'ID', 'g') $$;

-- ---------- Expressions ----------

-- accepted or refused, and the ticks that follow a moment
CREATE FUNCTION schedule_test.ticks(expression text, count int DEFAULT 3, after timestamptz DEFAULT '2026-01-31 12:34:56+00', timezone text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	ticks text[] := '{}';
BEGIN
	FOR i IN 1 .. count LOOP
		after := trigger_idem.cron_next_tick(expression, after, timezone);
		EXIT WHEN after IS NULL;
		ticks := ticks || to_char(after, 'YYYY-MM-DD HH24:MI:SS');
	END LOOP;
	RETURN array_to_string(ticks, ', ');
EXCEPTION WHEN invalid_parameter_value THEN
	RETURN 'refused';
END $$;

\pset format unaligned
SELECT expression, schedule_test.ticks(expression) FROM unnest(ARRAY[
	-- fields
	'* * * * *', '*/15 * * * *', '5,35 3-4 * * *', '50-58/4 * * * *', '59 23 31 12 *',
	'0 0 * jan,JUL *', '0 9 * * mon-fri', '0 0 * * 7', '0 0 * * 0', '0 0 * * Sun',
	-- days: one of the two is enough, unless one begins with a star
	'0 0 13 * fri', '0 0 */2 * fri', '0 0 13 * *', '0 0 1-7 * */7',
	'0 0 29 2 *', '0 0 30 2 *', '0 0 31 * *', '0 0 $ * *', '0 0 $ 2 *', '0 0 $ * mon',
	-- names for all five
	'@yearly', '@annually', '@monthly', '@weekly', '@daily', '@midnight', '@hourly', '@reboot', '@restart', '@DAILY', '@', '@never',
	-- seconds
	'7 seconds', '30 second', '59 SECONDS', '0 seconds', '60 seconds', '1.5 seconds', '5 minutes', '5 second x', ' 5   seconds ', '5 second ',
	-- lenience
	'  0	0  * * *', '# noon' || E'\n' || '0 12 * * *', '0 0 * * * every night', '1! * * * *', '*5 * * * *', '* * * * *', '30-10 * * * *', '*/100 * * * *',
	-- nonsense
	'', ' ', '*', '* * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *', '* * * 0 *', '* * * 13 *', '* * * * 8',
	'1/5 * * * *', '*/0 * * * *', '*/-1 * * * *', '-1 * * * *', '1- * * * *', '1,,2 * * * *', '1, * * * *', '5-64/30 * * * *',
	'0 0 * january *', '0 0 * * someday', 'a b c d e', '? * * * *', '0 0 L * *', '0 0 ?  * *', '# comment', '0 0 $5 * *', '$ * * * *',
	'99999999999999999999 * * * *', repeat(' ', 994) || '0 0 * * *', repeat(' ', 990) || '0 0 * * *']) expression;
\pset format aligned

SELECT trigger_idem.cron_next_tick(NULL, now()), trigger_idem.cron_next_tick('* * * * *', NULL),
	trigger_idem.cron_next_tick('* * * * *', 'infinity'), trigger_idem.cron_next_tick('* * * * *', '-infinity'),
	trigger_idem.cron_next_tick('0 0 1 1 *', '294276-12-31 23:59:59+00'), trigger_idem.cron_next_tick('59 seconds', '294276-12-31 23:59:59+00'), trigger_idem.cron_next_tick('0 0 1 1 *', '4714-11-24 00:00:00+00 BC');
SELECT schedule_test.error_of($$SELECT trigger_idem.cron_next_tick('* * *', now())$$);
SELECT schedule_test.error_of($$SELECT trigger_idem.cron_next_tick('* * * * *', now(), 'nowhere')$$);

-- ---------- Ticks, against every minute looked at ----------

-- the members of a field
CREATE FUNCTION schedule_test.members(field text, low int, high int) RETURNS int[] LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
	SELECT array_agg(DISTINCT m)
	FROM regexp_split_to_table(field, ',') AS part,
		LATERAL (SELECT replace(split_part(part, '/', 1), '*', low || '-' || high) AS range, coalesce(nullif(split_part(part, '/', 2), '')::int, 1) AS step) r,
		LATERAL generate_series(split_part(range, '-', 1)::int, coalesce(nullif(split_part(range, '-', 2), ''), split_part(range, '-', 1))::int, step) m $$;

-- the minutes of a stretch of time that an expression with numbers matches
CREATE FUNCTION schedule_test.every_minute(expression text, zone text, start timestamptz, stop timestamptz) RETURNS SETOF timestamptz LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
	f text[] := regexp_split_to_array(expression, ' ');
	minutes int[] := schedule_test.members(f[1], 0, 59);
	hours int[] := schedule_test.members(f[2], 0, 23);
	days int[] := schedule_test.members(f[3], 1, 31);
	months int[] := schedule_test.members(f[4], 1, 12);
	weekdays int[] := (SELECT array_agg(w % 7) FROM unnest(schedule_test.members(f[5], 0, 7)) w);
	needs_both boolean := f[3] LIKE '*%' OR f[5] LIKE '*%';
BEGIN
	RETURN QUERY
	SELECT m FROM generate_series(start, stop, '1 minute') m, LATERAL (SELECT m AT TIME ZONE zone AS l) l,
		LATERAL (SELECT extract(day FROM l)::int = ANY (days) AS in_days, extract(dow FROM l)::int = ANY (weekdays) AS in_weekdays) d
	WHERE extract(minute FROM l)::int = ANY (minutes) AND extract(hour FROM l)::int = ANY (hours) AND extract(month FROM l)::int = ANY (months)
		AND CASE WHEN needs_both THEN in_days AND in_weekdays ELSE in_days OR in_weekdays END;
END $$;

CREATE FUNCTION schedule_test.each_next(expression text, zone text, start timestamptz, stop timestamptz) RETURNS SETOF timestamptz LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
	tick timestamptz := start - interval '1 microsecond';
BEGIN
	LOOP
		tick := trigger_idem.cron_next_tick(expression, tick, zone);
		EXIT WHEN tick IS NULL OR tick > stop;
		RETURN NEXT tick;
	END LOOP;
END $$;

CREATE FUNCTION schedule_test.compare(expression text, zone text, start timestamptz) RETURNS TABLE (ticks bigint, wrong bigint) LANGUAGE sql SET search_path = pg_catalog AS $$
	SELECT count(m), count(*) FILTER (WHERE n IS DISTINCT FROM m)
	FROM schedule_test.each_next(expression, zone, start, start + interval '2 weeks') n
		FULL JOIN schedule_test.every_minute(expression, zone, start, start + interval '2 weeks') m ON m = n $$;

-- two weeks around changes of the clocks
SELECT zone, start, expression, c.*
FROM (VALUES ('GMT', timestamptz '2028-02-20'), ('Europe/Berlin', '2026-03-20'), ('Europe/Berlin', '2026-10-20'), ('America/New_York', '2026-03-01'),
		('Australia/Lord_Howe', '2026-03-25'), ('Asia/Kolkata', '2026-01-25'), ('America/St_Johns', '2010-03-05')) w(zone, start),
	unnest(ARRAY['* * * * *', '30 1,2,3 * * *', '0 0 * * *', '59 23 * * 6', '*/7 1-3 */2 * *', '5-55/10 2 28-31 2,3,10 1', '0 */6 1 * 1-5']) expression,
	schedule_test.compare(expression, zone, start) c;
-- a skipped local time is no tick, and one that comes twice is two
SELECT schedule_test.ticks('30 2 * * *', 3, '2026-03-28 00:00+00', 'Europe/Berlin'), schedule_test.ticks('30 2 * * *', 3, '2026-10-24 00:00+00', 'Europe/Berlin');

-- ---------- Schedules ----------

-- errors, the arguments first
SELECT schedule_test.error_of(command) FROM unnest(ARRAY[
	$$SELECT trigger_idem.schedule_create(NULL, '* * * * *', 'schedule_task')$$,
	$$SELECT trigger_idem.schedule_create('', '* * * * *', 'schedule_task')$$,
	$$SELECT trigger_idem.schedule_create('s', NULL, 'schedule_task')$$,
	$$SELECT trigger_idem.schedule_create('s', '* * * *', 'schedule_task')$$,
	$$SELECT trigger_idem.schedule_create('s', '* * * * *', NULL)$$,
	$$SELECT trigger_idem.schedule_create('s', '* * * * *', 'schedule_task', '[1]')$$,
	$$SELECT trigger_idem.schedule_create('s', '* * * * *', 'schedule_task', 'null')$$,
	$$SELECT trigger_idem.schedule_create('s', '* * * * *', 'schedule_task', jsonb_build_object('x', repeat('y', 11000000)))$$,
	$$SELECT trigger_idem.schedule_create('s', '* * * * *', 'schedule_task', catch_up => 'some')$$,
	$$SELECT trigger_idem.schedule_create('s', '* * * * *', 'schedule_task', catch_up => NULL)$$,
	$$SELECT trigger_idem.schedule_create('s', '* * * * *', 'schedule_task', cron_job => NULL)$$,
	$$SELECT trigger_idem.schedule_create('s', '* * * * *', 'schedule_task', cron_job => false)$$,
	$$SELECT trigger_idem.schedule_fire('s')$$,
	$$SELECT trigger_idem.schedule_fire(NULL)$$,
	$$SELECT trigger_idem.schedule_drop(NULL)$$,
	$$SELECT trigger_idem.work_schedule('never')$$,
	$$SELECT trigger_idem.work_schedule(NULL)$$,
	$$SELECT trigger_idem.work_schedule(queue => '')$$]) command;

-- without pg_cron: why, and what to do, depends on the server
SELECT left(schedule_test.error_of($$SELECT trigger_idem.schedule_create('s', '* * * * *', 'schedule_task')$$), 5),
	left(schedule_test.error_of($$SELECT trigger_idem.work_schedule()$$), 5);

SELECT trigger_idem.task_create('schedule_task', queue => 'schedule', idempotency_key_required => true, idempotency_key_ttl => '1 second',
	release_key_on => '{completed,failed,crashed,timed_out,canceled,expired}', on_payload_mismatch => 'error', idempotency_group => 'schedule_group');
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_create('s', '* * * * *', 'schedule_task', environment => 'nowhere', cron_job => false)$$);
SELECT trigger_idem.schedule_create('s', '0 * * * *', 'schedule_task', '{"a": 1, "tick": "mine"}', cron_job => false);
SELECT schedule_id, environment, cron, task_id, catch_up, last_tick, next_tick > now() AS next_is_to_come, last_run_id, owner = current_user AS mine, payload, cron_job FROM trigger_idem.schedules;

-- a tick, once
CREATE FUNCTION schedule_test.fire(id text, tick timestamptz DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	fired record;
BEGIN
	SELECT * INTO fired FROM trigger_idem.schedule_fire(id, tick);
	RETURN CASE WHEN fired.is_cached THEN 'cached ' ELSE 'new ' END ||
		coalesce((SELECT r.payload ->> 'tick' FROM trigger_idem.runs r WHERE r.run_id = fired.run_id), 'pruned');
END $$;
SELECT schedule_test.fire('s', '2026-01-01 00:00+00');
SELECT schedule_test.fire('s', '2026-01-01 01:00+01');
SELECT status, payload, idempotency_key, idempotency_key_scope, idempotency_key_expires_at FROM trigger_idem.runs WHERE queue = 'schedule';
-- its key: domain, environment, schedule and tick, each behind its length
SELECT environment, task_id, idempotency_key = encode(sha256((SELECT string_agg(int4send(length(part)) || convert_to(part, 'UTF8'), '' ORDER BY i)
		FROM unnest(ARRAY['trigger_idem tick v1', 'default', 's', (extract(epoch FROM timestamptz '2026-01-01 00:00+00') * 1000000)::bigint::text]) WITH ORDINALITY p(part, i))), 'hex') AS is_right,
	key, scope, expires_at, idempotency_group
FROM trigger_idem.idempotency_keys WHERE scope = 'schedule';
SELECT s.last_tick, s.last_run_id = r.run_id AS is_its_run FROM trigger_idem.schedules s, trigger_idem.runs r WHERE r.queue = 'schedule';

-- no state frees the key, nor does another task, another payload, a reset or prune
SELECT trigger_idem.run_cancel(last_run_id) FROM trigger_idem.schedules;
SELECT schedule_test.fire('s', '2026-01-01 00:00+00');
SELECT trigger_idem.schedule_create('s', '0 * * * *', 'schedule_task', '{"b": 2}', cron_job => false);
SELECT schedule_test.fire('s', '2026-01-01 00:00+00');
SELECT trigger_idem.task_create('schedule_other', queue => 'schedule');
SELECT trigger_idem.schedule_create('s', '0 * * * *', 'schedule_other', '{"b": 2}', cron_job => false);
SELECT schedule_test.fire('s', '2026-01-01 00:00+00');
SELECT trigger_idem.idempotency_key_reset(t, k.idempotency_key) FROM trigger_idem.idempotency_keys k, unnest('{schedule_task,schedule_other,s}'::text[]) t WHERE scope = 'schedule' AND t <> 's';
SELECT schedule_test.fire('s', '2026-01-01 00:00+00');
SELECT sum(removed) > 0 AS removed FROM trigger_idem.prune('0');
SELECT schedule_test.fire('s', '2026-01-01 00:00+00');
-- whoever knows the key cannot take it: it is the schedule's, and no task's
SELECT trigger_idem.task_create('s', queue => 'schedule');
SELECT is_cached FROM trigger_idem.idempotency_keys k, trigger_idem.trigger_task('s', idempotency_key => k.idempotency_key) WHERE scope = 'schedule';
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE task_id = 's';
-- another environment, another schedule: another tick
SELECT trigger_idem.environment_create('schedule_env');
SELECT trigger_idem.schedule_create('s', '0 * * * *', 'schedule_other', environment => 'schedule_env', cron_job => false);
SELECT environment, last_tick, last_run_id FROM trigger_idem.schedules;
SELECT schedule_test.fire('s', '2026-01-01 00:00+00');
SELECT trigger_idem.schedule_create('s2', '0 * * * *', 'schedule_other', cron_job => false);
SELECT schedule_test.fire('s2', '2026-01-01 00:00+00');

-- the tick of this moment is the slot it belongs to
SELECT trigger_idem.schedule_create('yearly', '@yearly', 'schedule_other', cron_job => false);
SELECT schedule_test.fire('yearly') = 'new ' || to_char(now(), 'YYYY') || '-01-01T00:00:00Z' AS is_slot;
SELECT schedule_test.fire('yearly') = 'cached ' || to_char(now(), 'YYYY') || '-01-01T00:00:00Z' AS is_slot;
-- one to come is fired ahead of its time, and is not the last one
SELECT schedule_test.fire('yearly', '2100-01-01 00:00+00'), schedule_test.fire('yearly', '2100-01-01 00:00+00');
SELECT to_char(last_tick, 'YYYY') = to_char(now(), 'YYYY') AS is_this_year FROM trigger_idem.schedules WHERE schedule_id = 'yearly';
-- what is no tick
SELECT schedule_test.error_of(command) FROM unnest(ARRAY[
	$$SELECT trigger_idem.schedule_fire('yearly', '2026-01-02 00:00+00')$$,
	$$SELECT trigger_idem.schedule_fire('s', '2026-01-01 10:59:59.999999+00')$$,
	$$SELECT trigger_idem.schedule_fire('s', 'infinity')$$,
	$$SELECT trigger_idem.schedule_fire('s', '1960-01-01 00:00+00')$$]) command;
SELECT trigger_idem.schedule_create('never', '0 0 30 2 *', 'schedule_other', cron_job => false);
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_fire('never')$$);
SELECT next_tick FROM trigger_idem.schedules WHERE schedule_id = 'never';
-- at the start of the server, before which it has missed none; and every few seconds
SELECT trigger_idem.schedule_create('start ' || c, '@reboot', 'schedule_other', catch_up => c, cron_job => false) FROM unnest('{none,latest,all}'::text[]) c;
SELECT c, substring(schedule_test.fire('start ' || c) FROM '^new (.*)')::timestamptz = pg_postmaster_start_time() AS is_start FROM unnest('{none,latest,all}'::text[]) c;
SELECT payload ->> 'schedule_id' AS id, count(*) FROM trigger_idem.runs WHERE payload ->> 'schedule_id' ~ '^start ' GROUP BY 1 ORDER BY 1;
SELECT trigger_idem.schedule_create('seconds', '20 seconds', 'schedule_other', cron_job => false);
SELECT schedule_test.fire('seconds', '2026-01-01 00:00:40+00');
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_fire('seconds', '2026-01-01 00:00:50+00')$$);
-- the last tick before a moment, against every minute looked at
CREATE FUNCTION schedule_test.wrong(expression text) RETURNS TABLE (looked_at int, wrong int) LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
	at timestamptz := '2028-02-01 00:01:01+00';
	ticks timestamptz[] := ARRAY(SELECT schedule_test.every_minute(expression, 'GMT', '2028-01-25', '2028-02-21'));
	tick timestamptz;
	hint text;
BEGIN
	PERFORM trigger_idem.schedule_create('s2', expression, 'schedule_other', cron_job => false);
	looked_at := 0;
	wrong := 0;
	WHILE at < '2028-02-21' LOOP
		SELECT max(m) INTO tick FROM unnest(ticks) m WHERE m <= at;
		hint := substring(schedule_test.error_of(format('SELECT trigger_idem.schedule_fire(%L, %L)', 's2', at)) FROM 'before it is (.*)\.');
		looked_at := looked_at + 1;
		wrong := wrong + (hint IS DISTINCT FROM to_char(tick, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))::int;
		at := at + interval '7 hours 13 minutes';
	END LOOP;
	RETURN NEXT;
END $$;
SELECT expression, w.* FROM unnest(ARRAY['7 * * * *', '30 1,2,3 * * *', '0 0 * * *', '59 23 * * 6', '*/7 1-3 */2 * *', '0 0 1 2 *', '0 12 29-31 1 *']) expression,
	schedule_test.wrong(expression) w;

-- ---------- Ticks that were missed ----------

CREATE FUNCTION schedule_test.fired(id text) RETURNS TABLE (tick text, last_tick text) LANGUAGE sql AS $$
	SELECT r.payload ->> 'tick', r.payload ->> 'last_tick' FROM trigger_idem.runs r WHERE r.payload ->> 'schedule_id' = id ORDER BY run_id $$;
SELECT trigger_idem.schedule_create('missed ' || c, '0 */6 * * *', 'schedule_other', catch_up => c, cron_job => false) FROM unnest('{none,latest,all}'::text[]) c;
SELECT c, schedule_test.fire('missed ' || c, '2026-01-01 00:00+00'), schedule_test.fire('missed ' || c, '2026-01-02 00:00+00') FROM unnest('{none,latest,all}'::text[]) c;
SELECT c, f.* FROM unnest('{none,latest,all}'::text[]) c, schedule_test.fired('missed ' || c) f;
-- once more makes up nothing more, nor does a tick of the past, nor the very next
SELECT c, schedule_test.fire('missed ' || c, '2026-01-02 00:00+00'), schedule_test.fire('missed ' || c, '2025-12-31 00:00+00'), schedule_test.fire('missed ' || c, '2026-01-02 06:00+00') FROM unnest('{none,latest,all}'::text[]) c;
SELECT c, count(*), max(f.tick), (SELECT last_tick FROM trigger_idem.schedules WHERE schedule_id = 'missed ' || c) FROM unnest('{none,latest,all}'::text[]) c, schedule_test.fired('missed ' || c) f GROUP BY c ORDER BY c;
-- a new expression begins now, and what the old one missed is gone
SELECT trigger_idem.schedule_create('missed all', '0 * * * *', 'schedule_other', catch_up => 'all', cron_job => false);
SELECT schedule_test.fire('missed all', date_trunc('hour', now())) ~ '^new' AS is_new;
SELECT count(*) FROM schedule_test.fired('missed all');
-- too many
SELECT trigger_idem.schedule_create('many', '* * * * *', 'schedule_other', catch_up => 'all', cron_job => false);
SELECT schedule_test.fire('many', '2026-01-01 00:00+00');
SELECT schedule_test.fire('many', '2026-01-02 12:00+00');
SELECT count(*), min(tick), max(tick) FROM schedule_test.fired('many');
SELECT schedule_test.fire('many', '2026-01-02 12:00+00');
SELECT schedule_test.fire('many', '2026-01-02 12:01+00');
SELECT count(*), count(DISTINCT tick), max(tick) FROM schedule_test.fired('many');

-- with the run or not at all
BEGIN;
SELECT schedule_test.fire('many', '2026-01-02 12:02+00');
ROLLBACK;
SELECT last_tick FROM trigger_idem.schedules WHERE schedule_id = 'many';
BEGIN READ ONLY;
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_fire('many', '2026-01-02 12:01+00')$$);
COMMIT;

-- ---------- Roles ----------

CREATE ROLE schedule_alice;
CREATE ROLE schedule_bob;
CREATE ROLE schedule_member IN ROLE schedule_alice;
GRANT USAGE ON SCHEMA schedule_test, helper TO schedule_alice, schedule_bob, schedule_member;
SELECT trigger_idem.access_grant(role, 'trigger') FROM unnest('{schedule_alice,schedule_bob}'::regrole[]) role;
SET ROLE schedule_alice;
SELECT trigger_idem.schedule_create('of alice', '0 * * * *', 'schedule_other', cron_job => false);
SELECT schedule_id, owner FROM trigger_idem.schedules;
SET ROLE schedule_bob;
SELECT schedule_id FROM trigger_idem.schedules;
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_fire('of alice')$$);
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_create('of alice', '0 * * * *', 'schedule_other', cron_job => false)$$);
SELECT trigger_idem.schedule_drop('of alice');
-- the owner of the task sees the schedule, but it is not his
RESET ROLE;
SELECT trigger_idem.access_grant('schedule_bob', 'work');
SET ROLE schedule_bob;
SELECT trigger_idem.task_create('schedule_of_bob', queue => 'schedule');
RESET ROLE;
SELECT trigger_idem.access_revoke('schedule_bob', 'work');
SET ROLE schedule_alice;
SELECT trigger_idem.schedule_create('of alice', '0 * * * *', 'schedule_of_bob', cron_job => false);
SET ROLE schedule_bob;
SELECT schedule_id, owner FROM trigger_idem.schedules;
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_fire('of alice')$$);
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_drop('of alice')$$);
-- a member of the owner may everything, and the owner stays
SET ROLE schedule_member;
SELECT trigger_idem.schedule_create('of alice', '30 * * * *', 'schedule_of_bob', cron_job => false);
SELECT schedule_id, owner, cron FROM trigger_idem.schedules;
SELECT schedule_test.fire('of alice', '2026-01-01 00:30+00');
SELECT trigger_idem.schedule_drop('of alice');
SELECT trigger_idem.schedule_drop('of alice');
-- an environment that is closed
RESET ROLE;
SELECT trigger_idem.environment_create('schedule_closed', 'schedule_alice');
SET ROLE schedule_alice;
SELECT trigger_idem.schedule_create('closed', '0 * * * *', 'schedule_other', environment => 'schedule_closed', cron_job => false);
RESET ROLE;
SELECT trigger_idem.environment_create('schedule_closed', 'schedule_bob');
SET ROLE schedule_alice;
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_fire('closed')$$);
SELECT trigger_idem.schedule_drop('closed');
RESET ROLE;

-- ---------- Dropping ----------

-- the task is gone: an error, until it is there again
SELECT trigger_idem.task_drop('schedule_other');
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_fire('many', '2026-01-02 12:02+00')$$);
SELECT trigger_idem.task_create('schedule_other', queue => 'schedule');
SELECT schedule_test.fire('many', '2026-01-02 12:02+00');
-- a schedule that is made again does not fire its ticks again
SELECT trigger_idem.schedule_drop('many');
SELECT schedule_test.error_of($$SELECT trigger_idem.schedule_fire('many')$$);
SELECT trigger_idem.schedule_create('many', '* * * * *', 'schedule_other', cron_job => false);
SELECT schedule_test.fire('many', '2026-01-02 12:02+00');
SELECT last_tick, last_run_id IS NOT NULL AS has_run FROM trigger_idem.schedules WHERE schedule_id = 'many';

-- leave nothing behind
SELECT count(trigger_idem.schedule_drop(schedule_id)) FROM trigger_idem.schedules;
SELECT count(trigger_idem.run_cancel(run_id)) > 0 AS canceled FROM trigger_idem.runs WHERE queue = 'schedule';
SELECT trigger_idem.task_drop(task_id) FROM trigger_idem.tasks WHERE queue = 'schedule';
DROP OWNED BY schedule_alice, schedule_bob, schedule_member;
DROP ROLE schedule_member, schedule_alice, schedule_bob;
RESET timezone;
RESET datestyle;
DROP SCHEMA schedule_test CASCADE;
