-- trigger_task(): keys, hits and misses, options.

SELECT trigger_idem.task_create('trigger_task_1', queue => 'trigger_test');
SELECT trigger_idem.task_create('trigger_task_2', queue => 'trigger_test');

-- the first run comes back instead of a second one
SELECT * FROM trigger_idem.trigger_task('trigger_task_1', '{"n": 1}', 'order-1') \gset first_
SELECT :'first_is_cached' AS is_cached, :'first_status' AS status;
SELECT run_id = :'first_run_id' AS same_run, is_cached, status
FROM trigger_idem.trigger_task('trigger_task_1', '{"n": 2}', 'order-1');
-- whether the key is typed or given as 64 digits
SELECT run_id = :'first_run_id' AS same_run, is_cached
FROM trigger_idem.trigger_task('trigger_task_1', NULL, trigger_idem.idempotency_key_create('order-1', 'global'));
-- keys belong to a task
SELECT run_id = :'first_run_id' AS same_run, is_cached
FROM trigger_idem.trigger_task('trigger_task_2', NULL, 'order-1');
-- without a key, every trigger is a run
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1');
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1');

-- the run's id is a UUIDv7 of now
SELECT substr(:'first_run_id', 15, 1) AS version, substr(:'first_run_id', 20, 1) IN ('8', '9', 'a', 'b') AS variant,
	abs(extract(epoch FROM clock_timestamp()) * 1000
		- ('x' || left(replace(:'first_run_id', '-', ''), 12))::bit(48)::bigint) < 60000 AS of_now;

-- the same key twice in one statement, in one transaction, after a rollback
SELECT count(DISTINCT run_id), count(*) FILTER (WHERE is_cached) AS cached
FROM generate_series(1, 3), LATERAL trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'in one statement ' || (generate_series > 0));
BEGIN;
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'in one transaction');
SELECT is_cached, status FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'in one transaction');
SAVEPOINT s;
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'in a savepoint');
ROLLBACK TO s;
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'in a savepoint');
ROLLBACK;
SELECT count(*) AS left_behind FROM trigger_idem.idempotency_keys WHERE key LIKE 'in one transaction' OR key LIKE 'in a savepoint';
SELECT count(*) AS left_behind FROM trigger_idem.runs WHERE idempotency_key LIKE 'in one transaction' OR idempotency_key LIKE 'in a savepoint';

-- at the higher isolation levels too
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'repeatable');
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'repeatable');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'repeatable');
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'serializable');
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'serializable');
COMMIT;

-- a hit writes nothing, and works where nothing may be written
BEGIN;
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'order-1');
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_transaction_id;
COMMIT;
-- the server itself may write WAL at any time: it does not do so a hundred times in a row
DO $$
DECLARE
	before pg_lsn;
	written bigint[];
BEGIN
	FOR i IN 1 .. 100 LOOP
		before := pg_current_wal_insert_lsn();
		PERFORM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'order-1');
		written := written || (pg_current_wal_insert_lsn() - before)::bigint;
	END LOOP;
	RAISE NOTICE 'least bytes of WAL of a hit: %', (SELECT min(w) FROM unnest(written) w);
END $$;
BEGIN READ ONLY;
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'order-1');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'order-2')$$);
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('trigger_task_1')$$);
COMMIT;

-- times to live: the task's, the trigger's, for ever; never extended by a hit
SELECT idempotency_key, idempotency_key_expires_at - created_at AS ttl, idempotency_key_scope
FROM trigger_idem.runs WHERE run_id = :'first_run_id';
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'ttl', idempotency_key_ttl => '1 hour');
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'ttl', idempotency_key_ttl => '1 day');
SELECT expires_at - created_at AS ttl FROM trigger_idem.idempotency_keys WHERE key = 'ttl';
SELECT trigger_idem.task_create('trigger_task_2', queue => 'trigger_test', idempotency_key_ttl => NULL);
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_2', idempotency_key => 'for ever');
SELECT expires_at IS NULL AS for_ever FROM trigger_idem.idempotency_keys WHERE key = 'for ever';

-- an expired key is taken over
UPDATE trigger_idem.idempotency_key SET expires_at = now() - interval '1 second' WHERE key = 'ttl';
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'ttl', idempotency_key_ttl => '2 hours');
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'ttl');
SELECT expires_at - created_at AS ttl FROM trigger_idem.idempotency_keys WHERE key = 'ttl';
SELECT count(*) FROM trigger_idem.runs WHERE idempotency_key = 'ttl';

-- tasks of one group share keys, and ask for one where they must
SELECT trigger_idem.task_create('trigger_group_1', queue => 'trigger_test', idempotency_group => 'trigger_group');
SELECT trigger_idem.task_create('trigger_group_2', queue => 'trigger_test', idempotency_group => 'trigger_group',
	idempotency_key_required => true);
SELECT is_cached FROM trigger_idem.trigger_task('trigger_group_1', idempotency_key => 'shared');
SELECT is_cached FROM trigger_idem.trigger_task('trigger_group_2', idempotency_key => 'shared');
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('trigger_group_2')$$);

-- options
SELECT trigger_idem.task_create('trigger_options', queue => 'trigger_test', max_attempts => 4);
SELECT status FROM trigger_idem.trigger_task('trigger_options', delay => '1 hour');
SELECT status FROM trigger_idem.trigger_task('trigger_options', delay => '0', max_attempts => 2, queue => 'another');
SELECT status FROM trigger_idem.trigger_task('trigger_options', run_at => '2000-01-01', priority => 60);
SELECT status FROM trigger_idem.trigger_task('trigger_options', run_at => now() + interval '2 hours',
	tags => '{red,green}', metadata => '{"source": "test"}', payload => 'null');
SELECT status, queue, max_attempts, priority, tags, metadata, payload,
	date_trunc('hour', run_at - created_at + interval '1 minute') AS due_after
FROM trigger_idem.runs WHERE task_id = 'trigger_options' ORDER BY created_at;
SELECT ord = visible_from - interval '60 seconds' AS head_start FROM trigger_idem.queue_entry WHERE priority = 60;

-- what cannot be; on a hit too, and nothing is created
SELECT helper.error_of(format('SELECT trigger_idem.trigger_task(%s)', args)) AS error
FROM (VALUES
	($$NULL$$),
	($$'no such task'$$),
	($$repeat('x', 300)$$),
	($$'trigger_task_1', idempotency_key => ''$$),
	($$'trigger_task_1', idempotency_key => repeat('x', 2049)$$),
	($$'trigger_task_1', idempotency_key => 'order-1', idempotency_key_scope => 'forever'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', idempotency_key_scope => NULL$$),
	($$'trigger_task_1', idempotency_key => 'order-1', idempotency_key_ttl => '0'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', idempotency_key_ttl => '-1 microsecond'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', idempotency_key_ttl => '-1 day'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', delay => '-1 microsecond'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', delay => '1 second', run_at => now()$$),
	($$'trigger_task_1', idempotency_key => 'order-1', run_at => 'infinity'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', delay => '290000 years'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', priority => 1000001$$),
	($$'trigger_task_1', idempotency_key => 'order-1', priority => -1$$),
	($$'trigger_task_1', idempotency_key => 'order-1', max_attempts => 0$$),
	($$'trigger_task_1', idempotency_key => 'order-1', max_attempts => 10001$$),
	($$'trigger_task_1', idempotency_key => 'order-1', queue => ''$$),
	($$'trigger_task_1', idempotency_key => 'order-1', environment => 'nowhere'$$),
	($$'trigger_task_1', '{"n": }'$$),
	($$'trigger_task_1', '"\u0000"'$$),
	($$'trigger_task_1', idempotency_key => E'a\u0000b'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', ttl => '0'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', concurrency_key => ''$$),
	($$'trigger_task_1', idempotency_key => 'order-1', tags => '{{a},{b}}'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', tags => '{a,NULL}'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', tags => '{""}'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', tags => ARRAY[repeat('x', 129)]$$),
	($$'trigger_task_1', idempotency_key => 'order-1', tags => '{1,2,3,4,5,6,7,8,9,10,11}'$$),
	($$'trigger_task_1', idempotency_key => 'order-1', metadata => to_jsonb(repeat('x', 256 * 1024))$$),
	($$'trigger_task_1', idempotency_key => 'order-1', payload => to_jsonb(repeat('x', 10 * 1024 * 1024))$$)) v(args);

-- what looks like 64 digits but is not, is text
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => upper(trigger_idem.idempotency_key_create('order-1')));
SELECT is_cached FROM trigger_idem.trigger_task('trigger_task_1', idempotency_key => left(trigger_idem.idempotency_key_create('order-1'), 63) || 'g');

SELECT environment, task_id, idempotency_key = trigger_idem.idempotency_key_create(key) AS hash_of_key, key, scope
FROM trigger_idem.idempotency_keys WHERE task_id = 'trigger_task_1' AND length(key) < 64 ORDER BY key;

-- as a composite value
SELECT (t).is_cached, (t).status FROM (SELECT trigger_idem.trigger_task('trigger_task_1', idempotency_key => 'composite') AS t OFFSET 0) s;
SELECT count(*) FROM trigger_idem.runs WHERE idempotency_key = 'composite';

-- indexes that an administrator adds are kept, of all kinds
CREATE INDEX trigger_test_brin ON trigger_idem.run USING brin (created_at);
CREATE INDEX trigger_test_partial ON trigger_idem.run (task_id) WHERE priority OPERATOR(pg_catalog.>) 3;
CREATE INDEX trigger_test_expression ON trigger_idem.run ((payload ->> 'n'));
SELECT status FROM trigger_idem.trigger_task('trigger_task_1', '{"n": "indexed"}', priority => 5);
SELECT status FROM trigger_idem.trigger_task('trigger_task_1', '{"n": "indexed"}');
SET enable_seqscan = off;
SELECT count(*) AS by_partial FROM trigger_idem.run WHERE task_id = 'trigger_task_1' AND priority OPERATOR(pg_catalog.>) 3;
SELECT count(*) AS by_expression FROM trigger_idem.run WHERE payload ->> 'n' = 'indexed';
RESET enable_seqscan;
DROP INDEX trigger_idem.trigger_test_brin, trigger_idem.trigger_test_partial, trigger_idem.trigger_test_expression;

-- the end of a ttl must be a time
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('trigger_task_1', run_at => '294276-12-31 23:59:59 UTC', ttl => '1 day')$$);
SELECT status FROM trigger_idem.trigger_task('trigger_task_1', run_at => '294276-12-31 23:59:59 UTC');
SELECT status FROM trigger_idem.trigger_task('trigger_task_1', run_at => '294170-01-01 UTC', ttl => '100 years');
