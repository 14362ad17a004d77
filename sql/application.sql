-- Workers outside the database: run_claim() and the calls that name an attempt.

CREATE SCHEMA application_test;

-- the error of a command, whose run has another id each time
CREATE FUNCTION application_test.error_of(command text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(helper.error_of(command), '[0-9a-f]{8}-[-0-9a-f]{27}', 'ID', 'g') $$;

-- every call that names an attempt
CREATE VIEW application_test.calls AS
SELECT n, 'SELECT trigger_idem.' || call AS command FROM (VALUES
	(1, 'run_heartbeat(%L, %L)'),
	(2, 'run_enter(%L, %L)'),
	(3, 'run_once_begin(%L, %L, ''step'')'),
	(4, 'run_once_end(%L, %L, ''step'', ''"other"'')'),
	(5, 'run_complete(%L, %L, ''"other"'')'),
	(6, 'run_fail(%L, %L, ''"error"'')'),
	(7, 'run_release(%L, %L)')) v(n, call);
CREATE FUNCTION application_test.try_all(run_id uuid, attempt int)
RETURNS TABLE (call text, error text) LANGUAGE sql AS $$
	SELECT substring(command FROM 'run_\w+'), application_test.error_of(format(command, run_id, attempt))
	FROM application_test.calls ORDER BY n $$;

-- as time would do it
CREATE FUNCTION application_test.lease_is_over(run uuid) RETURNS void LANGUAGE sql AS $$
	UPDATE trigger_idem.queue_entry SET lease_expires_at = now() - interval '1 second' WHERE run_id = run $$;
CREATE FUNCTION application_test.make_due(run uuid) RETURNS void LANGUAGE sql AS $$
	UPDATE trigger_idem.queue_entry SET ord = now(), visible_from = now() WHERE run_id = run $$;
CREATE FUNCTION application_test.attempts_of(run uuid) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', attempt, status, error), ', ' ORDER BY attempt) FROM trigger_idem.attempts WHERE run_id = run $$;

-- ---------- Claiming ----------

-- only tasks without a handler, in the order of work()
SELECT trigger_idem.task_create('app_order', queue => 'app_order');
SELECT trigger_idem.task_create('app_order_2', queue => 'app_order');
SELECT trigger_idem.task_create('app_has_handler', 'helper.handler', queue => 'app_order');
SELECT status FROM trigger_idem.trigger_task('app_has_handler', priority => 100);
SELECT status FROM (VALUES ('"third"', 5), ('"last"', 0), ('"first"', 50), ('"second"', 10)) v(payload, priority),
	LATERAL trigger_idem.trigger_task('app_order', payload::jsonb, priority => priority);
SELECT status FROM trigger_idem.trigger_task('app_order', '"later"', delay => '1 hour');
SELECT status FROM trigger_idem.trigger_task('app_order', '"too late"', ttl => '1 hour', priority => 100);
UPDATE trigger_idem.queue_entry SET expires_at = now() - interval '1 second' WHERE task_id = 'app_order' AND expires_at IS NOT NULL;
SELECT attempt, task_id, payload, environment, lease_expires_at - now() BETWEEN '30 s' AND '40 s' AS lease_of_task
FROM trigger_idem.run_claim('worker 1', 'app_order');
SELECT payload FROM trigger_idem.run_claim('worker 2', 'app_order', max_runs => 2);
SELECT payload FROM trigger_idem.run_claim('worker 2', 'app_order', 10000);
SELECT payload FROM trigger_idem.run_claim('worker 2', 'app_order');
SELECT payload, r.status, attempt, a.worker_id, a.status AS attempt_status
FROM trigger_idem.runs r LEFT JOIN trigger_idem.attempts a USING (run_id, attempt)
WHERE queue = 'app_order' ORDER BY created_at;

-- a payload of SQL NULL and one of JSON null
SELECT status FROM trigger_idem.trigger_task('app_order');
SELECT payload FROM trigger_idem.run_claim('w', 'app_order');
SELECT status FROM trigger_idem.trigger_task('app_order', 'null');
SELECT payload FROM trigger_idem.run_claim('w', 'app_order');

-- the queue is "default" unless it is named; NULL is every one
SELECT trigger_idem.task_create('app_default');
SELECT status FROM trigger_idem.trigger_task('app_default', '"in default"');
SELECT status FROM trigger_idem.trigger_task('app_default', '"elsewhere"', queue => 'app_elsewhere');
SELECT payload FROM trigger_idem.run_claim('w', 'app_elsewhere_too', 10, task_ids => '{app_default}');
SELECT payload FROM trigger_idem.run_claim('w', max_runs => 10, task_ids => '{app_default}');
SELECT payload FROM trigger_idem.run_claim('w', max_runs => 10, task_ids => '{app_default}');
SELECT payload FROM trigger_idem.run_claim('w', NULL, 10, task_ids => '{app_default}');

-- environments: NULL is every one that is open, or the one named, whatever the setting says
CREATE ROLE regress_app_friend;
CREATE ROLE regress_app_worker;
SELECT trigger_idem.environment_create('app_open');
SELECT trigger_idem.environment_create('app_closed', 'regress_app_friend');
SELECT trigger_idem.task_create('app_env', queue => 'app_env');
SELECT count(trigger_idem.trigger_task('app_env', to_jsonb(name), environment => name))
FROM unnest('{default,app_open,app_closed}'::text[]) name;
SET trigger_idem.environment = 'app_open';
SELECT environment, payload FROM trigger_idem.run_claim('w', 'app_env', 10, environment => 'app_closed');
SELECT environment, payload FROM trigger_idem.run_claim('w', 'app_env', 10) ORDER BY environment;
RESET trigger_idem.environment;

-- tasks by name: an empty array is none of them
SELECT status FROM (VALUES ('app_order', '"one"'), ('app_order_2', '"two"'), ('app_has_handler', '"has a handler"')) v(task, payload),
	LATERAL trigger_idem.trigger_task(task, payload::jsonb);
SELECT payload FROM trigger_idem.run_claim('w', 'app_order', 10, task_ids => '{}');
SELECT payload FROM trigger_idem.run_claim('w', 'app_order', 10, task_ids => '{app_has_handler}');
SELECT payload FROM trigger_idem.run_claim('w', 'app_order', 10, task_ids => '{app_order_2,app_has_handler,app_order_2}');
SELECT payload FROM trigger_idem.run_claim('w', 'app_order', 10, task_ids => NULL);

-- bounds
SELECT arguments, helper.error_of('SELECT * FROM trigger_idem.run_claim(' || arguments || ')') AS error FROM unnest(ARRAY[
	'NULL', '''''', 'repeat(''x'', 1000)', '''w'', ''''', '''w'', repeat(''x'', 1000)',
	'''w'', max_runs => 0', '''w'', max_runs => -1', '''w'', max_runs => 10001', '''w'', max_runs => NULL',
	'''w'', lease_duration => ''0''', '''w'', lease_duration => ''-1 s''', '''w'', lease_duration => ''999 ms''',
	'''w'', lease_duration => ''101 years''',
	'''w'', environment => ''nowhere''', '''w'', environment => ''''',
	'''w'', task_ids => ''{nobody}''', '''w'', task_ids => ''{NULL}''', '''w'', task_ids => ''{""}''',
	'''w'', ''app_nothing'', lease_duration => ''1 s'', max_runs => 1', '''w'', ''app_nothing'', lease_duration => ''100 years''']) arguments;
BEGIN READ ONLY;
SELECT * FROM trigger_idem.run_claim('w', 'app_nothing');
ROLLBACK;

-- in any queue, however many there are, and whichever were there before
SELECT trigger_idem.task_create('app_many');
CREATE FUNCTION application_test.in_queues(first int, last int) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM trigger_idem.batch_trigger_task('app_many', (SELECT jsonb_agg(jsonb_build_object('payload', n,
		'options', jsonb_build_object('queue', 'app_many_' || n, 'priority', n)) ORDER BY n % 7, n) FROM generate_series(first, last) n)) $$;
CREATE FUNCTION application_test.claim_many() RETURNS TABLE (runs bigint, first int, last int, in_order boolean) LANGUAGE sql AS $$
	SELECT count(*), max(number), min(number), bool_and(number = top - place + 1)
	FROM (SELECT payload::int AS number, max(payload::int) OVER () AS top, place
		FROM trigger_idem.run_claim('w', NULL, 1000, task_ids => '{app_many}') WITH ORDINALITY c(run_id, attempt, task_id, payload, environment, lease, place)) c $$;
SELECT application_test.in_queues(1, 60);
SELECT * FROM application_test.claim_many();
SELECT application_test.in_queues(31, 90);
SELECT * FROM application_test.claim_many();
SELECT application_test.in_queues(1, 250);
SELECT * FROM application_test.claim_many();
SELECT application_test.in_queues(201, 210);
SELECT * FROM application_test.claim_many();

-- one claim ends no more than a thousand runs that were not started in time
SELECT count(*) FROM trigger_idem.batch_trigger_task('app_many', (SELECT jsonb_agg('{"options": {"queue": "app_expired", "ttl": "1 microsecond"}}'::jsonb) FROM generate_series(1, 1001)));
SELECT count(*) FROM trigger_idem.run_claim('w', 'app_expired');
SELECT count(*) AS entries FROM trigger_idem.queue_entry WHERE queue = 'app_expired';
SELECT count(*) FROM trigger_idem.run_claim('w', 'app_expired');
SELECT count(*) AS entries FROM trigger_idem.queue_entry WHERE queue = 'app_expired';
SELECT status, count(*) FROM trigger_idem.runs WHERE queue = 'app_expired' GROUP BY 1;

-- a concurrency limit holds inside one claim, for each concurrency_key by itself
SELECT trigger_idem.task_create('app_limited', queue => 'app_limited', concurrency_limit => 2);
SELECT count(trigger_idem.trigger_task('app_limited', to_jsonb(n), concurrency_key => CASE WHEN n > 6 THEN 'k' END))
FROM generate_series(1, 9) n;
SELECT payload FROM trigger_idem.run_claim('w', 'app_limited', 10);
SELECT payload FROM trigger_idem.run_claim('w', 'app_limited', 10);
SELECT trigger_idem.run_complete(run_id, attempt) FROM trigger_idem.runs WHERE task_id = 'app_limited' AND payload IN ('2', '8');
SELECT payload FROM trigger_idem.run_claim('w', 'app_limited', 10);

-- a claim that is rolled back has not been; two claims in one transaction
SELECT status FROM trigger_idem.trigger_task('app_order', '"again"');
BEGIN;
SELECT attempt, payload FROM trigger_idem.run_claim('w', 'app_order');
SELECT attempt, payload FROM trigger_idem.run_claim('w', 'app_order');
ROLLBACK;
BEGIN;
SELECT run_id, attempt, payload FROM trigger_idem.run_claim('w', 'app_order') \gset
SELECT :attempt AS attempt, :'payload' AS payload;
SELECT trigger_idem.run_complete(:'run_id', :attempt, '"all in one"');
COMMIT;
SELECT status, output, application_test.attempts_of(run_id) FROM trigger_idem.runs WHERE run_id = :'run_id';

-- ---------- Leases ----------

SELECT trigger_idem.task_create('app_lease', queue => 'app_lease', lease_duration => '10 min', max_attempts => 2, min_backoff => '0');
SELECT run_id FROM trigger_idem.trigger_task('app_lease') \gset
SELECT lease_expires_at - now() BETWEEN '9 min' AND '11 min' AS lease_of_task FROM trigger_idem.run_claim('w1', 'app_lease');
-- the end that is returned is the one that is kept, an earlier one too
SELECT trigger_idem.run_heartbeat(:'run_id', 1) AS lease \gset
SELECT lease_expires_at = :'lease' AS is_kept, lease_expires_at - now() BETWEEN '9 min' AND '11 min' AS lease_of_task FROM trigger_idem.queue_entry WHERE run_id = :'run_id';
SELECT trigger_idem.run_heartbeat(:'run_id', 1, '2 hours') AS lease \gset
SELECT lease_expires_at = :'lease' AS is_kept, lease_expires_at - now() BETWEEN '119 min' AND '121 min' AS longer FROM trigger_idem.queue_entry WHERE run_id = :'run_id';
SELECT trigger_idem.run_heartbeat(:'run_id', 1, '1 min') AS lease \gset
SELECT lease_expires_at = :'lease' AS is_kept, lease_expires_at - now() BETWEEN '0' AND '2 min' AS shorter FROM trigger_idem.queue_entry WHERE run_id = :'run_id';
-- a step renews it, but does not shorten it
SELECT is_cached FROM trigger_idem.run_once_begin(:'run_id', 1, 'step');
SELECT lease_expires_at - now() BETWEEN '9 min' AND '11 min' AS renewed FROM trigger_idem.queue_entry WHERE run_id = :'run_id';
SELECT FROM trigger_idem.run_heartbeat(:'run_id', 1, '1 min');
SELECT trigger_idem.run_once_end(:'run_id', 1, 'step');
SELECT lease_expires_at - now() BETWEEN '9 min' AND '11 min' AS renewed FROM trigger_idem.queue_entry WHERE run_id = :'run_id';
SELECT trigger_idem.run_heartbeat(:'run_id', 1, '2 hours') AS lease \gset
SELECT is_cached FROM trigger_idem.run_once_begin(:'run_id', 1, 'step');
SELECT lease_expires_at = :'lease' AS is_kept FROM trigger_idem.queue_entry WHERE run_id = :'run_id';
-- what is rolled back is not renewed
BEGIN;
SELECT FROM trigger_idem.run_heartbeat(:'run_id', 1, '1 min');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT FROM trigger_idem.run_heartbeat(:'run_id', 1, '1 min');
ROLLBACK TO s;
COMMIT;
SELECT lease_expires_at = :'lease' AS is_kept FROM trigger_idem.queue_entry WHERE run_id = :'run_id';
SELECT duration, application_test.error_of(format('SELECT trigger_idem.run_heartbeat(%L, 1, %L)', :'run_id', duration)) AS error
FROM unnest('{0,-1 s,999 ms,101 years}'::text[]) duration;

-- a lease that is over and was not taken is still good
SELECT FROM application_test.lease_is_over(:'run_id');
SELECT is_cached FROM trigger_idem.run_once_begin(:'run_id', 1, 'step');
SELECT lease_expires_at > now() AS renewed FROM trigger_idem.queue_entry WHERE run_id = :'run_id';
-- one that is not over is not taken
SELECT run_id FROM trigger_idem.run_claim('w2', 'app_lease');
-- one that is, is: by the next claim, or by work()
SELECT FROM application_test.lease_is_over(:'run_id');
SELECT attempt, payload FROM trigger_idem.run_claim('w2', 'app_lease');
SELECT application_test.attempts_of(:'run_id');
SELECT * FROM application_test.try_all(:'run_id', 1);
-- the second attempt sees the step of the first
SELECT is_cached FROM trigger_idem.run_once_begin(:'run_id', 2, 'step');
SELECT FROM application_test.lease_is_over(:'run_id');
CALL trigger_idem.work('app_lease');
SELECT status, attempt, error, application_test.attempts_of(run_id) FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT * FROM application_test.try_all(:'run_id', 2);

-- ---------- Steps ----------

SELECT trigger_idem.task_create('app_step', queue => 'app_step', max_attempts => 3, min_backoff => '0');
SELECT run_id FROM trigger_idem.trigger_task('app_step') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_step');
SELECT is_cached, output, idempotency_key ~ '^[0-9a-f]{64}$' AS is_key FROM trigger_idem.run_once_begin(:'run_id', 1, 'a');
SELECT idempotency_key AS key_of_a FROM trigger_idem.run_once_begin(:'run_id', 1, 'a') \gset
SELECT idempotency_key <> :'key_of_a' AS is_another FROM trigger_idem.run_once_begin(:'run_id', 1, 'b');
SELECT trigger_idem.run_once_end(:'run_id', 1, 'a', '{"n": 1}');
SELECT is_cached, output, idempotency_key = :'key_of_a' AS same_key FROM trigger_idem.run_once_begin(:'run_id', 1, 'a');
-- without an output, with JSON null, without a begin
SELECT trigger_idem.run_once_end(:'run_id', 1, 'b');
SELECT trigger_idem.run_once_end(:'run_id', 1, 'c', 'null');
SELECT key, b.is_cached, b.output, b.output IS NULL AS no_output FROM unnest('{b,c,d}'::text[]) key, LATERAL trigger_idem.run_once_begin(:'run_id', 1, key) b;
-- again: the same output is accepted, another is not, and what is stored stays
SELECT trigger_idem.run_once_end(:'run_id', 1, 'a', '{"n": 1.0}');
SELECT trigger_idem.run_once_end(:'run_id', 1, 'b');
SELECT trigger_idem.run_once_end(:'run_id', 1, 'c', 'null');
SELECT key, output, application_test.error_of(format('SELECT trigger_idem.run_once_end(%L, 1, %L, %L)', :'run_id', key, output)) AS error
FROM (VALUES ('a', '{"n": 2}'), ('a', '[{"n": 1}]'), ('a', NULL), ('b', 'null'), ('c', NULL)) v(key, output);
SELECT step, key, output, attempt, idempotency_key = :'key_of_a' AS same_key FROM trigger_idem.steps WHERE run_id = :'run_id' ORDER BY key;
-- keys
SELECT call, application_test.error_of(format('SELECT trigger_idem.%s(%L, 1, %s)', call, :'run_id', key)) AS error
FROM unnest('{run_once_begin,run_once_end}'::text[]) call, unnest(ARRAY['NULL', '''''', 'repeat(''x'', 2049)']) key;
-- a rolled-back savepoint forgets its steps
BEGIN;
SAVEPOINT s;
SELECT trigger_idem.run_once_end(:'run_id', 1, 'd', '"gone"');
ROLLBACK TO s;
SELECT is_cached FROM trigger_idem.run_once_begin(:'run_id', 1, 'd');
SELECT trigger_idem.run_once_end(:'run_id', 1, 'd', '"stays"');
COMMIT;
SELECT output FROM trigger_idem.run_once_begin(:'run_id', 1, 'd');
-- another run's steps have other keys
SELECT run_id AS other_id FROM trigger_idem.trigger_task('app_step') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_step');
SELECT is_cached, idempotency_key <> :'key_of_a' AS is_another FROM trigger_idem.run_once_begin(:'other_id', 1, 'a');
SELECT trigger_idem.run_complete(:'other_id', 1);
-- a new attempt has the steps and the keys of the old one
SELECT status, retry_at <= clock_timestamp() AS at_once FROM trigger_idem.run_fail(:'run_id', 1, '"once more"');
SELECT attempt FROM trigger_idem.run_claim('w', 'app_step');
SELECT key, b.is_cached, b.output FROM unnest('{a,b,c,d,e}'::text[]) key, LATERAL trigger_idem.run_once_begin(:'run_id', 2, key) b;
SELECT trigger_idem.run_once_end(:'run_id', 2, 'a', '{"n": 1}');
SELECT application_test.error_of(format('SELECT trigger_idem.run_once_end(%L, 2, %L, %L)', :'run_id', 'a', '2'));

-- ---------- The entered run ----------

CREATE FUNCTION application_test.says_key(idempotency_key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN RAISE NOTICE 'called'; RETURN idempotency_key; END $$;

BEGIN;
SELECT trigger_idem.run_enter(:'run_id', 2);
SELECT trigger_idem.current_run_id() = :'run_id' AS is_current, trigger_idem.current_attempt();
-- run_once() and the calls with an attempt have one memo, and one key
SELECT trigger_idem.run_once('a', 'application_test.says_key');
SELECT idempotency_key AS key_of_e FROM trigger_idem.run_once_begin(:'run_id', 2, 'e') \gset
SELECT trigger_idem.run_once('e', 'application_test.says_key') = to_jsonb(:'key_of_e'::text) AS same_key;
SELECT is_cached, output = to_jsonb(:'key_of_e'::text) AS same_output FROM trigger_idem.run_once_begin(:'run_id', 2, 'e');
SELECT trigger_idem.run_once_end(:'run_id', 2, 'f', '"ended"');
SELECT trigger_idem.run_once('f', 'application_test.says_key');
SELECT trigger_idem.run_once('e', 'application_test.says_key') = to_jsonb(:'key_of_e'::text) AS same_key;
-- keys of scope run are of this run
SELECT trigger_idem.idempotency_key_create('k') = trigger_idem.idempotency_key_create('k', 'run', :'run_id', 2) AS of_this_run;
-- what it triggers has it as its parent
SELECT run_id AS child_id FROM trigger_idem.trigger_task('app_order', '"child"') \gset
COMMIT;
SELECT trigger_idem.current_run_id(), trigger_idem.current_attempt();
SELECT parent_run_id = :'run_id' AS is_parent, environment FROM trigger_idem.runs WHERE run_id = :'child_id';
SELECT key, output = to_jsonb(:'key_of_e'::text) AS is_key, attempt FROM trigger_idem.steps WHERE run_id = :'run_id' AND key IN ('e', 'f') ORDER BY key;
SELECT FROM trigger_idem.run_cancel(:'child_id');

-- and its environment
SELECT run_id AS other_id FROM trigger_idem.trigger_task('app_env', environment => 'app_open') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_env');
BEGIN;
SELECT trigger_idem.run_enter(:'other_id', 1);
SELECT run_id AS child_id FROM trigger_idem.trigger_task('app_order') \gset
SELECT environment FROM trigger_idem.runs WHERE run_id = :'child_id';
ROLLBACK;
SELECT trigger_idem.current_run_id();

-- it ends with the savepoint in which it began, not with others
BEGIN;
SAVEPOINT outside;
SELECT trigger_idem.run_enter(:'run_id', 2);
SAVEPOINT inside;
ROLLBACK TO inside;
RELEASE inside;
SELECT trigger_idem.current_run_id() = :'run_id' AS is_current;
ROLLBACK TO outside;
SELECT trigger_idem.current_run_id();
SELECT trigger_idem.run_enter(:'run_id', 2);
SELECT trigger_idem.run_once('in a savepoint', 'application_test.says_key') IS NOT NULL AS done;
RELEASE outside;
SELECT trigger_idem.current_run_id();
SELECT is_cached FROM trigger_idem.run_once_begin(:'run_id', 2, 'in a savepoint');
SELECT helper.error_of($$SELECT trigger_idem.run_once('outside', 'application_test.says_key')$$);
SELECT trigger_idem.run_enter(:'run_id', 2);
SELECT trigger_idem.run_once('in a savepoint', 'application_test.says_key') IS NOT NULL AS has_memo;
COMMIT;

-- a rolled-back savepoint forgets its steps, whoever made them
BEGIN;
SELECT trigger_idem.run_enter(:'run_id', 2);
SAVEPOINT s;
SELECT trigger_idem.run_once_sql('g', 'SELECT ''gone''::text');
SELECT trigger_idem.run_once_end(:'run_id', 2, 'h', '"gone"');
SELECT trigger_idem.run_once_sql('i', 'SELECT ''gone''::text');
ROLLBACK TO s;
SELECT key, b.is_cached FROM unnest('{g,h,i}'::text[]) key, LATERAL trigger_idem.run_once_begin(:'run_id', 2, key) b;
SELECT key, trigger_idem.run_once_sql(key, 'SELECT ''called again''::text') FROM unnest('{g,h,i}'::text[]) key;
COMMIT;
SELECT key, output FROM trigger_idem.steps WHERE run_id = :'run_id' AND key IN ('g', 'h', 'i') ORDER BY key;

-- with the transaction: a function with an exception block, COMMIT in a DO block
BEGIN;
DO $$
BEGIN
	PERFORM trigger_idem.run_enter(run_id, attempt) FROM trigger_idem.runs WHERE task_id = 'app_step' AND status = 'executing';
	RAISE NOTICE 'current: %', trigger_idem.current_run_id() IS NOT NULL;
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	RAISE NOTICE 'current: %', trigger_idem.current_run_id() IS NOT NULL;
END $$;
COMMIT;
DO $$
BEGIN
	PERFORM trigger_idem.run_enter(run_id, attempt) FROM trigger_idem.runs WHERE task_id = 'app_step' AND status = 'executing';
	RAISE NOTICE 'current: %', trigger_idem.current_run_id() IS NOT NULL;
	COMMIT;
	RAISE NOTICE 'current: %', trigger_idem.current_run_id() IS NOT NULL;
END $$;

-- not twice, and not in a handler
BEGIN;
SELECT trigger_idem.run_enter(:'run_id', 2);
SELECT application_test.error_of(format('SELECT trigger_idem.run_enter(%L, %s)', id, attempt)) AS error
FROM (VALUES (:'run_id', 2), (:'other_id', 1)) v(id, attempt);
SELECT trigger_idem.current_run_id() = :'run_id' AS is_current;
COMMIT;
CREATE FUNCTION application_test.enters(payload jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT application_test.error_of(format('SELECT trigger_idem.run_enter(%L, 2)', payload ->> 0)) $$;
SELECT trigger_idem.task_create('app_enters', 'application_test.enters', queue => 'app_enters');
SELECT status FROM trigger_idem.trigger_task('app_enters', jsonb_build_array(:'run_id'));
CALL trigger_idem.work('app_enters');
SELECT status, output FROM trigger_idem.runs WHERE task_id = 'app_enters';
-- a run that a handler works is no application's
CREATE FUNCTION application_test.names_itself() RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_agg(format('%s: %s', call, left(error, 5))) FROM application_test.try_all(trigger_idem.current_run_id(), trigger_idem.current_attempt()) $$;
SELECT trigger_idem.task_create('app_enters', 'application_test.names_itself', queue => 'app_enters');
SELECT run_id AS handled_id FROM trigger_idem.trigger_task('app_enters') \gset
CALL trigger_idem.work('app_enters');
SELECT status, output FROM trigger_idem.runs WHERE run_id = :'handled_id';

-- the commit of a transaction that entered a run, or named it, which it has lost
\set VERBOSITY sqlstate
BEGIN;
SELECT trigger_idem.run_enter(:'run_id', 2);
INSERT INTO helper.log (line) VALUES ('never seen');
UPDATE trigger_idem.queue_entry SET attempt = 3 WHERE run_id = :'run_id';
COMMIT;
BEGIN;
SELECT is_cached FROM trigger_idem.run_once_begin(:'run_id', 2, 'x');
INSERT INTO helper.log (line) VALUES ('never seen');
UPDATE trigger_idem.queue_entry SET attempt = 3 WHERE run_id = :'run_id';
COMMIT;
BEGIN;
SELECT trigger_idem.run_complete(:'run_id', 2, '"never seen"');
INSERT INTO helper.log (line) VALUES ('never seen');
UPDATE trigger_idem.queue_entry SET attempt = 3 WHERE run_id = :'run_id';
COMMIT;
-- a read-only transaction
BEGIN READ ONLY;
SELECT trigger_idem.run_enter(:'run_id', 2);
ROLLBACK;
\set VERBOSITY default
BEGIN READ ONLY;
SELECT call, left(error, 5) FROM application_test.try_all(:'run_id', 2);
ROLLBACK;
CALL helper.show_log();
SELECT status, attempt FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT trigger_idem.current_run_id();

-- PREPARE TRANSACTION
BEGIN;
SELECT trigger_idem.run_enter(:'run_id', 2);
PREPARE TRANSACTION 'application_test';
BEGIN;
SELECT trigger_idem.run_complete(:'run_id', 2);
PREPARE TRANSACTION 'application_test';
BEGIN;
SELECT FROM trigger_idem.run_heartbeat(:'run_id', 2);
PREPARE TRANSACTION 'application_test';
SELECT status, attempt FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT count(*) AS prepared FROM pg_prepared_xacts;

-- ---------- Completing ----------

-- in a rolled-back savepoint nothing happens
CREATE TABLE application_test.own (what text);
BEGIN;
SAVEPOINT s;
SELECT trigger_idem.run_complete(:'run_id', 2, '"taken back"');
SELECT left(application_test.error_of(format('SELECT trigger_idem.run_heartbeat(%L, 2)', :'run_id')), 5) AS after_the_end;
ROLLBACK TO s;
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT FROM trigger_idem.run_heartbeat(:'run_id', 2);
COMMIT;
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
BEGIN;
SELECT trigger_idem.run_complete(:'run_id', 2, '"taken back"');
INSERT INTO application_test.own VALUES ('taken back');
ROLLBACK;
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
-- together with rows of one's own; the run stays current and has steps
BEGIN;
SELECT trigger_idem.run_enter(:'run_id', 2);
SAVEPOINT s;
SELECT trigger_idem.run_complete(:'run_id', 2, '{"done": 1}');
RELEASE s;
INSERT INTO application_test.own VALUES ('stays');
SELECT trigger_idem.run_once_sql('last', 'SELECT ''called''::text');
-- again in the same transaction
SELECT trigger_idem.run_complete(:'run_id', 2, '{"done": 1.0}');
SELECT application_test.error_of(format('SELECT trigger_idem.run_complete(%L, 2, %L)', :'run_id', '{"done": 2}'));
COMMIT;
SELECT status, output, application_test.attempts_of(run_id), (SELECT output FROM trigger_idem.steps s WHERE s.run_id = r.run_id AND key = 'last') AS step
FROM trigger_idem.runs r WHERE run_id = :'run_id';
SELECT * FROM application_test.own;
-- again later: the same is accepted, another is not
SELECT trigger_idem.run_complete(:'run_id', 2, '{"done": 1}');
SELECT trigger_idem.run_complete(:'run_id', 2, '{"done": 1.0}');
SELECT output, application_test.error_of(format('SELECT trigger_idem.run_complete(%L, 2, %L)', :'run_id', output)) AS error
FROM unnest(ARRAY['{"done": 2}', '[{"done": 1}]', 'null', NULL]) output;
SELECT status, output FROM trigger_idem.runs WHERE run_id = :'run_id';
-- the attempt before it, and every other call
SELECT call, left(error, 5) AS error FROM application_test.try_all(:'run_id', 1);
SELECT call, left(error, 5) AS error FROM application_test.try_all(:'run_id', 2);
SELECT call, left(error, 5) AS error FROM application_test.try_all(:'run_id', 3);
SELECT application_test.error_of(format('SELECT trigger_idem.run_complete(%L, 1, %L)', :'run_id', '{"done": 1}'));
-- without an output; of JSON null
SELECT run_id FROM trigger_idem.trigger_task('app_step') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_step');
SELECT trigger_idem.run_complete(:'run_id', 1);
SELECT trigger_idem.run_complete(:'run_id', 1);
SELECT left(application_test.error_of(format('SELECT trigger_idem.run_complete(%L, 1, %L)', :'run_id', 'null')), 5);
SELECT status, output, error FROM trigger_idem.runs WHERE run_id = :'run_id';

-- one end in a transaction
SELECT run_id FROM trigger_idem.trigger_task('app_step') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_step');
BEGIN;
SELECT status FROM trigger_idem.run_fail(:'run_id', 1, '"first"', false);
SELECT call, left(error, 5) AS error FROM application_test.try_all(:'run_id', 1);
COMMIT;
SELECT status, output, error FROM trigger_idem.runs WHERE run_id = :'run_id';

-- ---------- Failing ----------

SELECT trigger_idem.task_create('app_fail', queue => 'app_fail', max_attempts => 4, min_backoff => '10 min', backoff_factor => 3,
	max_backoff => '2 hours', backoff_jitter => false);
SELECT run_id FROM trigger_idem.trigger_task('app_fail', idempotency_key => 'the key of app_fail') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_fail');
-- what it says is what happens
SELECT status, retry_at FROM trigger_idem.run_fail(:'run_id', 1, '{"mine": [1, "as given"]}') \gset
SELECT :'status' AS status, r.status = :'status' AS same_status, run_at = :'retry_at' AS same_time,
	run_at - now() BETWEEN '9 min' AND '11 min' AS min_backoff, application_test.attempts_of(run_id)
FROM trigger_idem.runs r WHERE run_id = :'run_id';
SELECT attempt FROM trigger_idem.run_claim('w', 'app_fail');
SELECT FROM application_test.make_due(:'run_id');
SELECT attempt FROM trigger_idem.run_claim('w', 'app_fail');
SELECT status, retry_at - now() BETWEEN '29 min' AND '31 min' AS times_the_factor FROM trigger_idem.run_fail(:'run_id', 2, '"a string"');
SELECT FROM application_test.make_due(:'run_id');
SELECT attempt FROM trigger_idem.run_claim('w', 'app_fail');
SELECT status, retry_at - now() BETWEEN '4 min' AND '6 min' AS as_wanted FROM trigger_idem.run_fail(:'run_id', 3, NULL, retry_after => '5 min');
SELECT FROM application_test.make_due(:'run_id');
SELECT attempt FROM trigger_idem.run_claim('w', 'app_fail');
-- the last attempt, whatever is wanted
SELECT * FROM trigger_idem.run_fail(:'run_id', 4, '{"code": "mine"}', retry_after => '5 min');
SELECT status, error, application_test.attempts_of(run_id) FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT is_cached FROM trigger_idem.trigger_task('app_fail', idempotency_key => 'the key of app_fail', delay => '1 day');
-- at once
SELECT run_id FROM trigger_idem.trigger_task('app_fail') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_fail');
SELECT status, retry_at <= clock_timestamp() AS at_once FROM trigger_idem.run_fail(:'run_id', 1, '1', retry_after => '0');
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT attempt FROM trigger_idem.run_claim('w', 'app_fail');
-- never again
SELECT * FROM trigger_idem.run_fail(:'run_id', 2, '2', retry => false, retry_after => '5 min');
SELECT status, error, application_test.attempts_of(run_id) FROM trigger_idem.runs WHERE run_id = :'run_id';
-- with jitter too: what is returned is what happens
SELECT trigger_idem.task_create('app_fail', queue => 'app_fail', min_backoff => '10 min', max_backoff => '1 hour');
SELECT count(trigger_idem.trigger_task('app_fail', to_jsonb(n))) FROM generate_series(1, 20) n;
CREATE TABLE application_test.failed AS
	SELECT c.run_id, f.status, f.retry_at FROM trigger_idem.run_claim('w', 'app_fail', 20) c, LATERAL trigger_idem.run_fail(c.run_id, c.attempt, '1') f;
SELECT count(*), bool_and(r.status = f.status AND r.run_at = f.retry_at) AS as_returned, count(DISTINCT retry_at) > 1 AS they_differ,
	bool_and(retry_at BETWEEN now() + interval '4 min' AND now() + interval '11 min') AS in_range
FROM application_test.failed f JOIN trigger_idem.runs r USING (run_id);
-- arguments
SELECT run_id FROM trigger_idem.trigger_task('app_fail') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_fail');
SELECT arguments, application_test.error_of(format('SELECT trigger_idem.run_fail(%L, 1, %s)', :'run_id', arguments)) AS error
FROM unnest(ARRAY['''1'', NULL', '''1'', retry_after => ''-1 s''', '''1'', retry_after => ''101 years''']) arguments;
SELECT * FROM trigger_idem.run_fail(:'run_id', 1, '1', false);

-- ---------- Giving back ----------

SELECT trigger_idem.task_create('app_release', queue => 'app_release', max_attempts => 2, min_backoff => '0');
SELECT run_id FROM trigger_idem.trigger_task('app_release') \gset
CREATE TABLE application_test.keys (attempt int, key text);
CREATE FUNCTION application_test.keep_key(run_id uuid, attempt int) RETURNS void LANGUAGE sql AS $$
	SELECT trigger_idem.run_enter(run_id, attempt);
	INSERT INTO application_test.keys VALUES (attempt, trigger_idem.idempotency_key_create('k', 'attempt')) $$;
SELECT attempt FROM trigger_idem.run_claim('w', 'app_release');
SELECT FROM application_test.keep_key(:'run_id', 1);
SELECT trigger_idem.run_release(:'run_id', 1);
SELECT status, run_at <= clock_timestamp() AS at_once FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT attempt FROM trigger_idem.run_claim('w', 'app_release');
SELECT FROM application_test.keep_key(:'run_id', 2);
SELECT trigger_idem.run_release(:'run_id', 2, '1 hour');
SELECT status, run_at - now() BETWEEN '59 min' AND '61 min' AS in_an_hour FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT attempt FROM trigger_idem.run_claim('w', 'app_release');
SELECT FROM application_test.make_due(:'run_id');
SELECT attempt FROM trigger_idem.run_claim('w', 'app_release');
-- in a rolled-back savepoint
BEGIN;
SAVEPOINT s;
SELECT trigger_idem.run_release(:'run_id', 3);
ROLLBACK TO s;
COMMIT;
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';
-- after as many releases it may fail as often as ever
SELECT status FROM trigger_idem.run_fail(:'run_id', 3, '1');
SELECT attempt FROM trigger_idem.run_claim('w', 'app_release');
SELECT FROM application_test.keep_key(:'run_id', 4);
SELECT trigger_idem.run_release(:'run_id', 4, '0');
SELECT attempt FROM trigger_idem.run_claim('w', 'app_release');
SELECT FROM application_test.keep_key(:'run_id', 5);
SELECT status FROM trigger_idem.run_fail(:'run_id', 5, '2');
SELECT status, application_test.attempts_of(run_id) FROM trigger_idem.runs WHERE run_id = :'run_id';
-- keys of scope attempt: new ones only after a failure
SELECT attempt, dense_rank() OVER (ORDER BY first) AS key FROM (SELECT attempt, min(attempt) OVER (PARTITION BY key) AS first FROM application_test.keys) k ORDER BY attempt;
SELECT bool_and(key = trigger_idem.idempotency_key_create('k', 'attempt', :'run_id', CASE WHEN attempt < 4 THEN 1 ELSE 4 END)) AS mixed_in FROM application_test.keys;
SELECT delay, application_test.error_of(format('SELECT trigger_idem.run_release(%L, 5, %L)', :'run_id', delay)) AS error FROM unnest('{-1 s,101 years,1 s}'::text[]) delay;

-- ---------- Which run, which attempt ----------

-- no such run, and one of another role: the same words
SELECT run_id FROM trigger_idem.trigger_task('app_step') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_step');
GRANT USAGE ON SCHEMA application_test, helper TO regress_app_worker;
GRANT SELECT ON application_test.calls TO regress_app_worker;
SELECT trigger_idem.access_grant('regress_app_worker', 'work');
SET ROLE regress_app_worker;
SELECT trigger_idem.task_create('app_own', queue => 'app_roles');
RESET ROLE;
SELECT trigger_idem.access_revoke('regress_app_worker', 'work');
SELECT trigger_idem.access_grant('regress_app_worker', 'work', 'app_own');
SET ROLE regress_app_worker;
SELECT call, known.error AS error, known.error = unknown.error AS same_words
FROM application_test.try_all(:'run_id', 1) known JOIN application_test.try_all('0190163d-8694-739b-aea5-966c26f8ad91', 1) unknown USING (call) ORDER BY call;
-- nor does it claim what is not its own
SELECT status FROM trigger_idem.trigger_task('app_own', '"of my task"');
RESET ROLE;
SELECT trigger_idem.task_create('app_roles', queue => 'app_roles');
SELECT run_id AS theirs FROM trigger_idem.trigger_task('app_roles', '"of another task"') \gset
SET ROLE regress_app_worker;
SELECT payload FROM trigger_idem.run_claim('w', 'app_roles', 10);
SELECT payload FROM trigger_idem.run_claim('w', 'app_roles', 10, task_ids => '{app_roles}');
RESET ROLE;
-- the task's run_as may, in environments that are open to it
SELECT trigger_idem.task_create('app_roles', queue => 'app_roles', run_as => 'regress_app_worker');
SELECT run_id AS closed_id FROM trigger_idem.trigger_task('app_roles', '"in a closed environment"', environment => 'app_closed') \gset
SELECT status FROM trigger_idem.trigger_task('app_roles', '"in an open environment"', environment => 'app_open');
SET ROLE regress_app_worker;
SELECT payload FROM trigger_idem.run_claim('w', 'app_roles', 10);
SELECT payload FROM trigger_idem.run_claim('w', 'app_roles', 10);
SELECT helper.error_of($$SELECT * FROM trigger_idem.run_claim('w', 'app_roles', environment => 'app_closed')$$);
SELECT trigger_idem.run_complete(:'theirs', 1, '"done"');
RESET ROLE;
SELECT status, output FROM trigger_idem.runs WHERE run_id = :'theirs';
SELECT payload FROM trigger_idem.run_claim('w', 'app_roles', 10);
-- a run in an environment that is closed to it is as unknown as any, whoever has claimed it
SET ROLE regress_app_worker;
SELECT call, left(error, 5) AS error FROM application_test.try_all(:'closed_id', 1);
RESET ROLE;
-- until it is a member of that environment's role
GRANT regress_app_friend TO regress_app_worker;
SET ROLE regress_app_worker;
SELECT application_test.error_of(format('SELECT trigger_idem.run_heartbeat(%L, 1)', :'closed_id'));
RESET ROLE;

-- nulls
SELECT call, ids, application_test.error_of(format(command, run, attempt)) AS error
FROM (SELECT n, substring(command FROM 'run_\w+') AS call, command FROM application_test.calls) c,
	(VALUES ('null run', NULL, '1'), ('null attempt', :'run_id', NULL)) v(ids, run, attempt) ORDER BY n, ids;

-- a wrong number
SELECT attempt, call, left(error, 5) AS error FROM unnest('{0,2,-1}'::int[]) attempt, LATERAL application_test.try_all(:'run_id', attempt);
SELECT trigger_idem.run_complete(:'run_id', 1);
-- one that was never claimed
SELECT run_id FROM trigger_idem.trigger_task('app_step') \gset
SELECT call, left(error, 5) AS error FROM application_test.try_all(:'run_id', 0);
SELECT attempt FROM trigger_idem.run_claim('w', 'app_step');
-- a canceled one
SELECT trigger_idem.run_cancel(:'run_id');
SELECT call, left(error, 5) AS error FROM application_test.try_all(:'run_id', 1);
SELECT status, application_test.attempts_of(run_id) FROM trigger_idem.runs WHERE run_id = :'run_id';
-- one whose task was dropped goes on
SELECT trigger_idem.task_create('app_dropped', queue => 'app_dropped');
SELECT run_id FROM trigger_idem.trigger_task('app_dropped') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_dropped');
SELECT status FROM trigger_idem.trigger_task('app_dropped', '"waits"');
SELECT trigger_idem.task_drop('app_dropped');
SELECT payload FROM trigger_idem.run_claim('w', 'app_dropped');
SELECT FROM trigger_idem.run_heartbeat(:'run_id', 1);
SELECT trigger_idem.run_complete(:'run_id', 1, '"done"');
SELECT status, output FROM trigger_idem.runs WHERE run_id = :'run_id';
-- one whose task got a handler in the meantime, too
SELECT trigger_idem.task_create('app_handled', queue => 'app_handled');
SELECT run_id FROM trigger_idem.trigger_task('app_handled', '"of the application"') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_handled');
SELECT trigger_idem.task_create('app_handled', 'helper.handler', queue => 'app_handled');
CALL trigger_idem.work('app_handled');
SELECT trigger_idem.run_release(:'run_id', 1);
SELECT attempt FROM trigger_idem.run_claim('w', 'app_handled');
CALL trigger_idem.work('app_handled');
CALL helper.show_log();
SELECT status, attempt, output FROM trigger_idem.runs WHERE run_id = :'run_id';

-- ---------- Time and deaths ----------

-- max_duration counts from the start of the attempt, whatever the heartbeats
SELECT trigger_idem.task_create('app_duration', queue => 'app_duration', max_duration => '1 hour', max_attempts => 5);
SELECT run_id FROM trigger_idem.trigger_task('app_duration') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_duration', lease_duration => '1 day');
SELECT payload FROM trigger_idem.run_claim('w', 'app_duration');
UPDATE trigger_idem.queue_entry SET started_at = now() - interval '61 min' WHERE run_id = :'run_id';
SELECT FROM trigger_idem.run_heartbeat(:'run_id', 1, '1 day');
SELECT payload FROM trigger_idem.run_claim('w', 'app_duration');
SELECT r.status, error - 'context' AS error, a.status AS attempt_status FROM trigger_idem.runs r JOIN trigger_idem.attempts a USING (run_id, attempt, error) WHERE run_id = :'run_id';
SELECT call, left(error, 5) AS error FROM application_test.try_all(:'run_id', 1);
-- per attempt
SELECT run_id FROM trigger_idem.trigger_task('app_duration') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_duration');
UPDATE trigger_idem.queue_entry SET started_at = now() - interval '59 min', first_started_at = now() - interval '59 min' WHERE run_id = :'run_id';
SELECT trigger_idem.run_release(:'run_id', 1);
SELECT attempt FROM trigger_idem.run_claim('w', 'app_duration');
UPDATE trigger_idem.queue_entry SET started_at = started_at - interval '59 min', first_started_at = first_started_at - interval '59 min' WHERE run_id = :'run_id';
SELECT payload FROM trigger_idem.run_claim('w', 'app_duration');
SELECT trigger_idem.run_complete(:'run_id', 2);
SELECT status, application_test.attempts_of(run_id) FROM trigger_idem.runs WHERE run_id = :'run_id';

-- every attempt dies: crashed, and the steps of the dead stay
SELECT trigger_idem.task_create('app_dies', queue => 'app_dies', max_attempts => 3);
SELECT run_id FROM trigger_idem.trigger_task('app_dies', idempotency_key => 'the key of app_dies') \gset
SELECT attempt FROM trigger_idem.run_claim('first', 'app_dies');
SELECT trigger_idem.run_once_end(:'run_id', 1, 'done by the first', '1');
SELECT FROM application_test.lease_is_over(:'run_id');
SELECT attempt FROM trigger_idem.run_claim('second', 'app_dies');
SELECT is_cached, output FROM trigger_idem.run_once_begin(:'run_id', 2, 'done by the first');
SELECT FROM application_test.lease_is_over(:'run_id');
SELECT attempt FROM trigger_idem.run_claim('third', 'app_dies');
SELECT FROM application_test.lease_is_over(:'run_id');
SELECT attempt FROM trigger_idem.run_claim('fourth', 'app_dies');
SELECT status, attempt, error - 'context' AS error FROM trigger_idem.runs WHERE run_id = :'run_id';
SELECT attempt, status, worker_id, error ->> 'code' AS code FROM trigger_idem.attempts WHERE run_id = :'run_id' ORDER BY attempt;
SELECT is_cached FROM trigger_idem.trigger_task('app_dies', idempotency_key => 'the key of app_dies', delay => '1 day');

-- a claim takes over what is dead in other queues too, but does not claim it
SELECT run_id FROM trigger_idem.trigger_task('app_dies') \gset
SELECT attempt FROM trigger_idem.run_claim('w', 'app_dies');
SELECT FROM application_test.lease_is_over(:'run_id');
SELECT attempt FROM trigger_idem.run_claim('w', 'app_nothing');
SELECT status FROM trigger_idem.runs WHERE run_id = :'run_id';

-- nothing is left over for the files that follow
SELECT count(trigger_idem.run_cancel(run_id)) > 0 AS canceled FROM trigger_idem.runs
WHERE task_id LIKE 'app\_%' AND status IN ('queued', 'delayed', 'executing');
SELECT count(trigger_idem.idempotency_key_reset(task_id, idempotency_key)) FROM trigger_idem.idempotency_keys WHERE task_id LIKE 'app\_%';
DELETE FROM trigger_idem.environment WHERE environment LIKE 'app\_%';
DROP OWNED BY regress_app_worker, regress_app_friend;
DROP ROLE regress_app_worker, regress_app_friend;
