-- Times to live of runs, concurrency limits, and the bounds of what is stored.
-- Time passes here by a ttl of a microsecond, or by moving a deadline.

CREATE SCHEMA limit_test;
CREATE VIEW limit_test.outcome AS
SELECT r.payload, r.status, r.attempt, r.started_at IS NULL AS never_started, r.output, r.error,
	(SELECT count(*) FROM trigger_idem.attempts a WHERE a.run_id = r.run_id) AS attempts
FROM trigger_idem.runs r WHERE r.task_id LIKE 'limit\_%';

-- ---------- ttl ----------

SELECT trigger_idem.task_create('limit_ttl', 'helper.handler', queue => 'limit_ttl');
SELECT trigger_idem.task_create('limit_ttl_keeps', 'helper.handler', queue => 'limit_ttl', release_key_on => '{completed,failed,crashed,timed_out,canceled}');

-- counted from when the run is due
SELECT status FROM (VALUES
	('"now"', NULL, NULL), ('"delayed"', '1 hour', NULL), ('"in the past"', NULL, '2000-01-01 00:00:00+00'), ('"at a time"', NULL, '2200-01-01 00:00:00+00')) v(payload, delay, run_at),
	LATERAL trigger_idem.trigger_task('limit_ttl', payload::jsonb, delay => delay::interval, run_at => run_at::timestamptz, ttl => '5 minutes');
SELECT r.payload, r.ttl, e.expires_at - e.visible_from AS from_due, e.visible_from = r.run_at AS is_due_then
FROM trigger_idem.runs r JOIN trigger_idem.queue_entry e USING (run_id) WHERE r.task_id = 'limit_ttl' ORDER BY r.payload;
-- it is in time as long as the clock says so, due or not
SELECT payload, status, finished_at FROM trigger_idem.runs WHERE task_id = 'limit_ttl' ORDER BY payload;
CALL trigger_idem.work('limit_ttl');
CALL helper.show_log();
DELETE FROM trigger_idem.queue_entry WHERE task_id = 'limit_ttl';
DELETE FROM trigger_idem.run WHERE task_id = 'limit_ttl';

-- not started by then, it is expired: noticed by a worker or not
SELECT status FROM trigger_idem.trigger_task('limit_ttl', '"too late"', 'limit late', ttl => '1 microsecond');
SELECT run_id, idempotency_key, status, finished_at = created_at + interval '1 microsecond' AS at_the_deadline, started_at
FROM trigger_idem.runs WHERE idempotency_key = 'limit late' \gset late_
SELECT :'late_status' AS status, :'late_at_the_deadline' AS at_the_deadline;
SELECT * FROM limit_test.outcome;
-- a worker never starts it, and writes it down, with the deadline as its end
CALL trigger_idem.work('limit_ttl');
CALL helper.show_log();
SELECT r.status, r.attempt, r.started_at IS NULL AS never_started, r.finished_at = r.created_at + interval '1 microsecond' AS at_the_deadline,
	(SELECT count(*) FROM trigger_idem.queue_entry e WHERE e.run_id = r.run_id) AS entries
FROM trigger_idem.run r WHERE r.run_id = :'late_run_id';
SELECT * FROM limit_test.outcome;
-- its key is free
SELECT count(*) AS keys FROM trigger_idem.idempotency_keys WHERE key = 'limit late';
SELECT is_cached FROM trigger_idem.trigger_task('limit_ttl', '"in time"', 'limit late');

-- free it is before any worker has come, for the next trigger
SELECT run_id FROM trigger_idem.trigger_task('limit_ttl', '"unnoticed"', 'limit unnoticed', ttl => '1 microsecond') \gset unnoticed_
SELECT count(*) AS entries FROM trigger_idem.queue_entry WHERE run_id = :'unnoticed_run_id';
-- which must be one that may write
BEGIN READ ONLY;
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('limit_ttl', '"unnoticed"', 'limit unnoticed')$$);
COMMIT;
SELECT run_id <> :'unnoticed_run_id' AS another_run, is_cached, status FROM trigger_idem.trigger_task('limit_ttl', '"after it"', 'limit unnoticed', ttl => '1 hour');
SELECT run_id = :'unnoticed_run_id' AS is_the_first, status, finished_at = created_at + interval '1 microsecond' AS at_the_deadline
FROM trigger_idem.runs WHERE idempotency_key = 'limit unnoticed' ORDER BY created_at;
SELECT status AS written_down FROM trigger_idem.run WHERE run_id = :'unnoticed_run_id';
SELECT is_cached, status FROM trigger_idem.trigger_task('limit_ttl', '"after it"', 'limit unnoticed');
-- several times in one transaction; rolled back, it is as it was
BEGIN;
SELECT is_cached FROM trigger_idem.trigger_task('limit_ttl', NULL, 'limit in one transaction', ttl => '1 microsecond');
SELECT is_cached FROM trigger_idem.trigger_task('limit_ttl', NULL, 'limit in one transaction', ttl => '1 microsecond');
SELECT is_cached FROM trigger_idem.trigger_task('limit_ttl', NULL, 'limit in one transaction');
SELECT is_cached FROM trigger_idem.trigger_task('limit_ttl', NULL, 'limit in one transaction');
SELECT status FROM trigger_idem.runs WHERE idempotency_key = 'limit in one transaction' ORDER BY created_at;
ROLLBACK;
-- at the higher isolation levels
SELECT is_cached FROM trigger_idem.trigger_task('limit_ttl', NULL, 'limit repeatable', ttl => '1 microsecond');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is_cached FROM trigger_idem.trigger_task('limit_ttl', NULL, 'limit repeatable', ttl => '1 microsecond');
SELECT is_cached FROM trigger_idem.trigger_task('limit_ttl', NULL, 'limit repeatable');
SELECT is_cached FROM trigger_idem.trigger_task('limit_ttl', NULL, 'limit repeatable');
COMMIT;
SELECT status FROM trigger_idem.runs WHERE idempotency_key = 'limit repeatable' ORDER BY created_at;
-- in a batch
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('limit_ttl', '[{"options": {"idempotency_key": "limit batch", "ttl": "1 microsecond"}},
	{"options": {"idempotency_key": "limit batch other"}}]');
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('limit_ttl', '[{"options": {"idempotency_key": "limit batch"}},
	{"options": {"idempotency_key": "limit batch other"}}, {"options": {"idempotency_key": "limit batch"}}]');

-- release_key_on without expired: the key is kept
SELECT run_id FROM trigger_idem.trigger_task('limit_ttl_keeps', '"kept"', 'limit kept', ttl => '1 microsecond') \gset kept_
SELECT run_id = :'kept_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('limit_ttl_keeps', NULL, 'limit kept');
BEGIN READ ONLY;
SELECT run_id = :'kept_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('limit_ttl_keeps', NULL, 'limit kept');
COMMIT;
SELECT status AS written_down FROM trigger_idem.run WHERE run_id = :'kept_run_id';
CALL trigger_idem.work('limit_ttl');
CALL helper.show_log();
SELECT status AS written_down FROM trigger_idem.run WHERE run_id = :'kept_run_id';
SELECT run_id = :'kept_run_id' AS same_run, is_cached, status FROM trigger_idem.trigger_task('limit_ttl_keeps', NULL, 'limit kept');
SELECT status FROM trigger_idem.idempotency_keys WHERE key = 'limit kept';
-- which is what the task says when the run is ended
SELECT run_id FROM trigger_idem.trigger_task('limit_ttl_keeps', '"kept 2"', 'limit kept 2', ttl => '1 microsecond') \gset kept_
SELECT trigger_idem.task_create('limit_ttl_keeps', 'helper.handler', queue => 'limit_ttl');
SELECT is_cached, status FROM trigger_idem.trigger_task('limit_ttl_keeps', NULL, 'limit kept 2');
SELECT is_cached, status FROM trigger_idem.trigger_task('limit_ttl_keeps', NULL, 'limit kept');

-- delayed: the deadline passes after the run is due
SELECT status FROM trigger_idem.trigger_task('limit_ttl', '"delayed, then late"', 'limit delayed', delay => '1 hour', ttl => '1 microsecond');
SELECT status FROM trigger_idem.runs WHERE idempotency_key = 'limit delayed';
SELECT is_cached, status FROM trigger_idem.trigger_task('limit_ttl', NULL, 'limit delayed');
UPDATE trigger_idem.queue_entry e SET visible_from = r.created_at, ord = r.created_at, expires_at = r.created_at + interval '1 microsecond'
FROM trigger_idem.run r WHERE r.run_id = e.run_id AND r.idempotency_key = 'limit delayed';
SELECT status FROM trigger_idem.runs WHERE idempotency_key = 'limit delayed';
CALL trigger_idem.work('limit_ttl');
CALL helper.show_log();
SELECT status FROM trigger_idem.runs WHERE idempotency_key = 'limit delayed';

-- started in time, it may take its time: attempts after the deadline are no late starts
CREATE FUNCTION limit_test.fails_once() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF trigger_idem.current_attempt() = 1 THEN
		RAISE EXCEPTION 'not yet';
	END IF;
	RETURN 'in attempt ' || trigger_idem.current_attempt();
END $$;
SELECT trigger_idem.task_create('limit_fails_once', 'limit_test.fails_once', queue => 'limit_fails_once', min_backoff => '0');
SELECT status FROM trigger_idem.trigger_task('limit_fails_once', NULL, 'limit started', ttl => '1 hour');
CALL trigger_idem.work('limit_fails_once', 1);
UPDATE trigger_idem.queue_entry SET expires_at = first_started_at WHERE task_id = 'limit_fails_once';
SELECT status, finished_at FROM trigger_idem.runs WHERE task_id = 'limit_fails_once';
SELECT is_cached FROM trigger_idem.trigger_task('limit_fails_once', NULL, 'limit started');
CALL trigger_idem.work('limit_fails_once');
SELECT status, output, attempts FROM limit_test.outcome WHERE output::text LIKE '%in attempt%';

-- runs of others and of tasks that are gone expire as well
SELECT trigger_idem.task_create('limit_dropped', queue => 'limit_dropped');
SELECT run_id FROM trigger_idem.trigger_task('limit_dropped', NULL, 'limit dropped', ttl => '1 microsecond') \gset dropped_
SELECT trigger_idem.task_drop('limit_dropped');
SELECT status, finished_at IS NOT NULL AS has_end FROM trigger_idem.runs WHERE run_id = :'dropped_run_id';
CALL trigger_idem.work('limit_dropped');
SELECT status FROM trigger_idem.run WHERE run_id = :'dropped_run_id';

-- ---------- concurrency_limit ----------

CREATE FUNCTION limit_test.counts(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('executing', count(*)) FROM trigger_idem.runs
	WHERE task_id = 'limit_concurrent' AND status = 'executing'
$$;
SELECT trigger_idem.task_create('limit_concurrent', 'limit_test.counts', queue => 'limit_concurrent', concurrency_limit => 1);
SELECT concurrency_limit FROM trigger_idem.tasks WHERE task_id = 'limit_concurrent';
SELECT count(trigger_idem.trigger_task('limit_concurrent', to_jsonb(n), concurrency_key => CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' END)) FROM generate_series(1, 9) n;
SELECT concurrency_key, count(*) FROM trigger_idem.runs WHERE task_id = 'limit_concurrent' GROUP BY 1 ORDER BY 1;
-- all are worked in the end, one after the other
CALL trigger_idem.work('limit_concurrent');
SELECT status, output, count(*) FROM trigger_idem.runs WHERE task_id = 'limit_concurrent' GROUP BY 1, 2;
SELECT count(*) AS entries FROM trigger_idem.queue_entry WHERE task_id = 'limit_concurrent';

-- What others are executing counts.  For others we have a handler that makes
-- runs look as if a worker outside were executing them, until another one puts
-- them back; all of that in one CALL, which works what it may.  With one attempt,
-- what changes the rules is claimed alone.
SELECT trigger_idem.environment_create('limit_environment');
CREATE TABLE limit_test.log (n int GENERATED ALWAYS AS IDENTITY, line jsonb);
CREATE FUNCTION limit_test.occupies(payload jsonb) RETURNS void LANGUAGE sql AS $$
	UPDATE trigger_idem.queue_entry e SET worker_token = 0, worker_id = mine.worker_id, attempt = 1,
		started_at = mine.started_at, first_started_at = mine.started_at, lease_expires_at = 'infinity', ord = 'infinity'
	FROM trigger_idem.queue_entry mine, trigger_idem.run r
	WHERE mine.run_id = trigger_idem.current_run_id() AND r.run_id = e.run_id AND r.payload = '"occupied"';
	INSERT INTO limit_test.log (line) VALUES ('"two executing for a and for none, one for b"');
$$;
CREATE FUNCTION limit_test.counts_and_logs(payload jsonb) RETURNS void LANGUAGE sql AS $$
	INSERT INTO limit_test.log (line) SELECT jsonb_build_object(r.payload #>> '{}', (SELECT count(*) FROM trigger_idem.runs o
		WHERE o.task_id = r.task_id AND o.environment = r.environment AND o.concurrency_key IS NOT DISTINCT FROM r.concurrency_key AND o.status = 'executing'))
	FROM trigger_idem.runs r WHERE r.run_id = trigger_idem.current_run_id()
$$;
CREATE FUNCTION limit_test.raises(payload jsonb) RETURNS void LANGUAGE sql AS $$
	SELECT trigger_idem.task_create('limit_concurrent', 'limit_test.counts_and_logs', queue => 'limit_concurrent', concurrency_limit => 3);
	INSERT INTO limit_test.log (line) VALUES ('"the limit is three"');
$$;
CREATE FUNCTION limit_test.frees(payload jsonb) RETURNS void LANGUAGE sql AS $$
	UPDATE trigger_idem.queue_entry e SET worker_token = NULL, worker_id = NULL, started_at = NULL, lease_expires_at = NULL, ord = visible_from
	FROM trigger_idem.run r WHERE r.run_id = e.run_id AND r.payload = '"occupied"';
	INSERT INTO limit_test.log (line) VALUES ('"they are back in the queue"');
$$;
SELECT trigger_idem.task_create('limit_occupies', 'limit_test.occupies', queue => 'limit_concurrent', max_attempts => 1);
SELECT trigger_idem.task_create('limit_raises', 'limit_test.raises', queue => 'limit_concurrent', max_attempts => 1);
SELECT trigger_idem.task_create('limit_frees', 'limit_test.frees', queue => 'limit_concurrent', max_attempts => 1);
SELECT trigger_idem.task_create('limit_concurrent', 'limit_test.counts_and_logs', queue => 'limit_concurrent', concurrency_limit => 2);
SELECT trigger_idem.task_create('limit_concurrent_other', 'limit_test.counts_and_logs', queue => 'limit_concurrent', concurrency_limit => 1);
SELECT status FROM trigger_idem.trigger_task('limit_occupies', priority => 1000);
SELECT count(*) FROM (VALUES ('"occupied"', 'a', 'default', ''), ('"occupied"', 'a', 'default', ''), ('"occupied"', 'b', 'default', ''),
	('"occupied"', NULL, 'default', ''), ('"occupied"', NULL, 'default', ''),
	('"a"', 'a', 'default', ''), ('"b"', 'b', 'default', ''), ('"none"', NULL, 'default', ''), ('"c"', 'c', 'default', ''),
	('"a elsewhere"', 'a', 'limit_environment', ''), ('"none elsewhere"', NULL, 'limit_environment', ''),
	('"a of another task"', 'a', 'default', '_other'), ('"none of another task"', NULL, 'default', '_other')) v(payload, key, environment, task),
	LATERAL trigger_idem.trigger_task('limit_concurrent' || task, payload::jsonb, concurrency_key => key, environment => environment);
SELECT status FROM trigger_idem.trigger_task('limit_raises');
SELECT status FROM trigger_idem.trigger_task('limit_frees');
CALL trigger_idem.work('limit_concurrent');
-- each with how many were executing under its limit, itself included
SELECT line FROM limit_test.log ORDER BY n;
SELECT status, count(*) FROM trigger_idem.runs WHERE queue = 'limit_concurrent' GROUP BY 1;
TRUNCATE limit_test.log;

-- ---------- priority, queue ----------

-- seconds of head start, in the order of the queue
CREATE FUNCTION limit_test.logs(payload jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO limit_test.log (line) VALUES (payload) $$;
SELECT trigger_idem.task_create('limit_ordered', 'limit_test.logs', queue => 'limit_ordered');
SELECT status FROM (VALUES ('"third"', 0), ('"second"', 100), ('"first"', 1000000), ('"fourth"', 0)) v(payload, priority),
	LATERAL trigger_idem.trigger_task('limit_ordered', payload::jsonb, priority => priority);
SELECT status FROM trigger_idem.trigger_task('limit_ordered', '"not due"', delay => '1 hour', priority => 1000000);
SELECT status FROM trigger_idem.trigger_task('limit_ordered', '"null"', priority => NULL);
SELECT status FROM trigger_idem.trigger_task('limit_ordered', '"elsewhere"', priority => 1000, queue => 'limit_elsewhere');
CALL trigger_idem.work('limit_ordered');
SELECT array_agg(line ORDER BY n) AS in_order FROM limit_test.log;
SELECT payload, queue, priority, status FROM trigger_idem.runs WHERE task_id = 'limit_ordered' ORDER BY payload;
-- the queue is that of the trigger, whatever the task says later
SELECT trigger_idem.task_create('limit_ordered', 'limit_test.logs', queue => 'limit_later');
CALL trigger_idem.work('limit_later');
CALL trigger_idem.work('limit_elsewhere');
SELECT status, queue FROM trigger_idem.runs WHERE task_id = 'limit_ordered' AND payload = '"elsewhere"';

-- ---------- Bounds ----------

SELECT trigger_idem.task_create('limit_bounds', queue => 'limit_bounds');
-- the largest and the least that may be
SELECT helper.error_of(format('SELECT trigger_idem.trigger_task(''limit_bounds'', %s)', arguments)) AS error, arguments FROM (VALUES
	($$ttl => '100 years'$$), ($$ttl => '101 years'$$), ($$ttl => '1 microsecond'$$), ($$ttl => '0'$$), ($$ttl => '-1 s'$$), ($$ttl => NULL$$),
	($$delay => '100 years'$$), ($$delay => '101 years'$$), ($$delay => '100 years', ttl => '100 years'$$),
	($$priority => 0$$), ($$priority => 1000000$$), ($$priority => 1000001$$), ($$priority => -1$$),
	($$max_attempts => 1$$), ($$max_attempts => 10000$$), ($$max_attempts => 0$$), ($$max_attempts => 10001$$),
	($$queue => repeat('x', 255)$$), ($$queue => repeat('x', 256)$$), ($$queue => ''$$),
	($$concurrency_key => repeat('x', 255)$$), ($$concurrency_key => repeat('x', 256)$$), ($$concurrency_key => ''$$),
	($$tags => '{}'$$), ($$tags => ARRAY[repeat('ä', 128)]$$), ($$tags => ARRAY[repeat('ä', 129)]$$), ($$tags => '{1,2,3,4,5,6,7,8,9,10}'$$),
	($$tags => '{1,2,3,4,5,6,7,8,9,10,11}'$$), ($$tags => '{a,a}'$$), ($$tags => '{a,""}'$$), ($$tags => '{a,NULL}'$$), ($$tags => '{{a}}'$$),
	($$metadata => '{}'$$), ($$metadata => '1'$$), ($$metadata => 'null'$$)) v(arguments);

-- sizes are those of the values before they are compressed: the last that fits, and the first that does not
SELECT limit_kb, size, helper.error_of(format('SELECT trigger_idem.trigger_task(''limit_bounds'', %s => to_jsonb(repeat(''x'', %s)))', name, size - overhead)) AS error
FROM (VALUES ('payload', 10240), ('metadata', 256)) v(name, limit_kb),
	LATERAL (SELECT limit_kb * 1024 + more, pg_column_size(to_jsonb(repeat('x', 1024))) - 1024 FROM generate_series(0, 1) more) w(size, overhead) ORDER BY name, size;
SHOW trigger_idem.max_payload_size;
SHOW trigger_idem.max_metadata_size;
SHOW trigger_idem.max_tags;
-- the settings are looked at by each trigger, and on hits too
SELECT is_cached FROM trigger_idem.trigger_task('limit_bounds', NULL, 'limit bounds');
SET trigger_idem.max_payload_size = '1kB';
SET trigger_idem.max_metadata_size = '2kB';
SET trigger_idem.max_tags = 0;
SELECT helper.error_of(format('SELECT trigger_idem.trigger_task(''limit_bounds'', idempotency_key => ''limit bounds'', %s)', arguments)) AS error FROM (VALUES
	($$payload => to_jsonb(repeat('x', 1000))$$), ($$payload => to_jsonb(repeat('x', 1024))$$),
	($$metadata => to_jsonb(repeat('x', 2000))$$), ($$metadata => to_jsonb(repeat('x', 2048))$$),
	($$tags => '{}'$$), ($$tags => '{a}'$$)) v(arguments);
SELECT helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('limit_bounds', jsonb_build_array(jsonb_build_object('payload', repeat('x', 1024))))$$);
-- also of a value that comes compressed from a table
CREATE TABLE limit_test.stored AS SELECT to_jsonb(repeat('x', 100000)) AS value;
SELECT pg_column_size(value) < 10000 AS compressed FROM limit_test.stored;
SELECT helper.error_of('SELECT trigger_idem.trigger_task(''limit_bounds'', ' || argument || ' => value) FROM limit_test.stored') FROM unnest('{payload,metadata}'::text[]) argument;
RESET trigger_idem.max_payload_size;
RESET trigger_idem.max_metadata_size;
RESET trigger_idem.max_tags;
SELECT left(helper.error_of('SET trigger_idem.' || setting), 5) AS error, setting FROM (VALUES
	('max_payload_size = 0'), ('max_payload_size = -1'), ('max_metadata_size = 0'), ('max_tags = -1'), ('max_tags = 1001'), ('shard = 1'), ('max_nothing = 1')) v(setting);
-- limits protect the server: they are the superuser's
CREATE ROLE regress_limit_user;
GRANT USAGE ON SCHEMA helper TO regress_limit_user;
SET ROLE regress_limit_user;
SELECT helper.error_of('SET trigger_idem.' || setting) FROM (VALUES
	('max_payload_size = ''1GB'''), ('max_metadata_size = ''1GB'''), ('max_tags = 1000'), ('environment = ''default''')) v(setting);
RESET ROLE;
DROP OWNED BY regress_limit_user;
DROP ROLE regress_limit_user;

-- what was stored is what was given
SELECT run_id FROM trigger_idem.trigger_task('limit_bounds', '{"b": 1.0, "a": []}', tags => '{b,a,b}', metadata => '{"z": 1.50}', priority => 7,
	concurrency_key => 'limit key', ttl => '90 minutes', delay => '30 minutes') \gset
SELECT payload, tags, metadata, priority, concurrency_key, ttl, run_at - created_at AS delay FROM trigger_idem.runs WHERE run_id = :'run_id';
DELETE FROM trigger_idem.queue_entry WHERE task_id IN ('limit_bounds', 'limit_ordered', 'limit_ttl');
DELETE FROM trigger_idem.run WHERE task_id IN ('limit_bounds', 'limit_ordered', 'limit_ttl');
DELETE FROM trigger_idem.idempotency_key WHERE task_id IN ('limit_bounds', 'limit_ordered', 'limit_ttl');

-- ---------- Outputs, errors and steps ----------

SET trigger_idem.max_output_size = '1kB';
-- of a handler: the attempt fails, and nothing of it is left
CREATE FUNCTION helper.limit_output(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES ('not undone');
	RETURN repeat('x', (payload ->> 'size')::int);
END $$;
CREATE FUNCTION helper.limit_step(idempotency_key text, args jsonb) RETURNS text LANGUAGE sql AS
	$$ INSERT INTO helper.log (line) VALUES ('step ' || $2::text) RETURNING repeat('x', ($2 ->> 'size')::int) $$;
SELECT trigger_idem.task_create('limit_output', 'helper.limit_output', queue => 'limit_output', max_attempts => 1);
SELECT count(trigger_idem.trigger_task('limit_output', jsonb_build_object('size', size))) FROM unnest('{1000,1020}'::int[]) size;
CALL trigger_idem.work('limit_output');
SELECT payload, status, length(output #>> '{}') AS output, error ->> 'code' AS code, error ->> 'message' AS message, error ->> 'detail' AS detail
FROM trigger_idem.runs WHERE task_id = 'limit_output' ORDER BY run_id;
CALL helper.show_log();
-- of a step
SELECT helper.error_of($$SELECT trigger_idem.run_once('limit', 'helper.limit_step', '{"size": 1020}', 'global')$$);
SELECT length(trigger_idem.run_once('limit', 'helper.limit_step', '{"size": 1000}', 'global') #>> '{}');
CALL helper.show_log();
-- of an application, and its errors
SELECT trigger_idem.task_create('limit_app', queue => 'limit_app');
SELECT run_id FROM trigger_idem.trigger_task('limit_app') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'limit_app');
SELECT helper.error_of(format('SELECT trigger_idem.' || call, :'run_id', repeat('x', 1020))) FROM unnest(ARRAY[
	'run_once_end(%L, 1, ''k'', to_jsonb(%L::text))', 'run_complete(%L, 1, to_jsonb(%L::text))', 'run_fail(%L, 1, to_jsonb(%L::text))']) call;
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT count(*) FROM trigger_idem.steps WHERE run_id = :'run_id';
-- of a token
SELECT token FROM trigger_idem.wait_token_create() \gset
SELECT helper.error_of(format('SELECT trigger_idem.wait_token_complete(%L, to_jsonb(repeat(%L, 1020)))', :'token', 'x'));
SELECT trigger_idem.wait_token_complete(:'token', '"small"');
RESET trigger_idem.max_output_size;

-- steps: what is there can be had again
SET trigger_idem.max_steps = 3;
SELECT is_cached FROM trigger_idem.run_once_begin(:'run_id', 1, 'one');
SELECT trigger_idem.run_once_end(:'run_id', 1, step, to_jsonb(step)) FROM unnest('{one,two,three}'::text[]) step;
SELECT is_cached, output FROM trigger_idem.run_once_begin(:'run_id', 1, 'two');
SELECT helper.error_of(format('SELECT trigger_idem.run_once_begin(%L, 1, ''four'')', :'run_id'));
SELECT helper.error_of(format('SELECT trigger_idem.run_once_end(%L, 1, ''four'')', :'run_id'));
SELECT trigger_idem.run_once_end(:'run_id', 1, 'two', '"two"');
BEGIN;
SELECT trigger_idem.run_enter(:'run_id', 1);
SELECT trigger_idem.run_once('one', 'helper.limit_step', '{"size": 1}');
SELECT helper.error_of($$SELECT trigger_idem.run_once('five', 'helper.limit_step', '{"size": 1}')$$);
COMMIT;
SELECT trigger_idem.run_complete(:'run_id', 1);
CREATE FUNCTION helper.limit_steps(payload jsonb) RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(trigger_idem.run_once_sql(n::text, 'SELECT 1')::text, ',') FROM generate_series(1, (payload ->> 'steps')::int) n $$;
SELECT trigger_idem.task_create('limit_steps', 'helper.limit_steps', queue => 'limit_steps', max_attempts => 1);
SELECT count(trigger_idem.trigger_task('limit_steps', jsonb_build_object('steps', steps))) FROM unnest('{3,4}'::int[]) steps;
CALL trigger_idem.work('limit_steps');
SELECT payload, status, output, error ->> 'code' AS code, error ->> 'message' AS message FROM trigger_idem.runs WHERE task_id = 'limit_steps' ORDER BY run_id;
RESET trigger_idem.max_steps;

-- ---------- Unfinished runs of an environment ----------

SHOW trigger_idem.max_active_runs;
SELECT trigger_idem.environment_create('limit_small');
SET trigger_idem.max_active_runs = 3;
SELECT trigger_idem.task_create('limit_active', 'helper.handler', queue => 'limit_active');
SELECT count(trigger_idem.trigger_task('limit_active', environment => 'limit_small', idempotency_key => n::text)) FROM generate_series(1, 3) n;
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('limit_active', environment => 'limit_small', idempotency_key => 'one more')$$);
SELECT helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('limit_active', '[{}]', environment => 'limit_small')$$);
-- a hit needs no room, and another environment has room of its own
SELECT is_cached FROM trigger_idem.trigger_task('limit_active', environment => 'limit_small', idempotency_key => '2');
SELECT trigger_idem.environment_create('limit_other');
SELECT is_cached FROM trigger_idem.trigger_task('limit_active', environment => 'limit_other');
-- all of a batch or nothing; what was rolled back leaves its room
SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE environment = 'limit_small' AND idempotency_key = '1';
SELECT helper.error_of($$SELECT * FROM trigger_idem.batch_trigger_task('limit_active', '[{}, {}]', environment => 'limit_small')$$);
BEGIN;
SELECT is_cached FROM trigger_idem.trigger_task('limit_active', environment => 'limit_small', idempotency_key => 'rolled back');
ROLLBACK;
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('limit_active', '[{"options": {"idempotency_key": "3"}}, {"options": {"idempotency_key": "4"}}]', environment => 'limit_small');
-- a batch of hits needs none
SELECT index, is_cached FROM trigger_idem.batch_trigger_task('limit_active', '[{"options": {"idempotency_key": "3"}}, {"options": {"idempotency_key": "4"}}]', environment => 'limit_small');
SELECT * FROM trigger_idem.batch_trigger_task('limit_active', '[]', environment => 'limit_small');
-- the key that was refused is free
RESET trigger_idem.max_active_runs;
SELECT is_cached FROM trigger_idem.trigger_task('limit_active', environment => 'limit_small', idempotency_key => 'one more');
CALL trigger_idem.work('limit_active');
SELECT count(*) FROM trigger_idem.runs WHERE task_id = 'limit_active' AND status = 'completed';
DELETE FROM helper.log;
SELECT trigger_idem.environment_drop(environment) FROM unnest('{limit_small,limit_other}'::text[]) environment;
DELETE FROM trigger_idem.global_step WHERE path = '{limit}';
