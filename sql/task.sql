-- Tasks: task_create() and task_drop().

CREATE SCHEMA task_test;
CREATE FUNCTION task_test.no_args() RETURNS void LANGUAGE sql AS '';
CREATE PROCEDURE task_test.procedure(payload jsonb) LANGUAGE sql AS '';

SELECT trigger_idem.task_create('task_plain');
SELECT * FROM trigger_idem.tasks WHERE task_id = 'task_plain' \gset before_
\pset null '(null)'
\x on
SELECT task_id, handler, queue, run_as = current_user AS run_as_is_me, owner = current_user AS owner_is_me,
	max_attempts, min_backoff, max_backoff, backoff_factor, backoff_jitter, max_duration, lease_duration,
	idempotency_key_ttl, release_key_on, idempotency_group, on_payload_mismatch, concurrency_limit,
	idempotency_key_required
FROM trigger_idem.tasks WHERE task_id = 'task_plain';

-- again: settings are replaced
SELECT trigger_idem.task_create('task_plain', 'helper.handler', queue => 'q', max_attempts => 7,
	min_backoff => '2 s', max_backoff => '3 s', backoff_factor => 1.5, backoff_jitter => false,
	lease_duration => '1 hour', idempotency_key_ttl => NULL, release_key_on => '{}',
	idempotency_group => 'task_group', idempotency_key_required => true);
SELECT task_id, handler, queue, max_attempts, min_backoff, max_backoff, backoff_factor, backoff_jitter,
	lease_duration, idempotency_key_ttl, release_key_on, idempotency_group, idempotency_key_required
FROM trigger_idem.tasks WHERE task_id = 'task_plain';
\x off

-- handlers of all shapes, by qualified name
SELECT trigger_idem.task_create('task_no_args', 'task_test.no_args');
SELECT trigger_idem.task_create('task_procedure', 'task_test.procedure');
SELECT task_id, handler FROM trigger_idem.tasks WHERE task_id LIKE 'task\_%' ORDER BY 1;

-- handlers that cannot be
CREATE FUNCTION task_test.strict(payload jsonb) RETURNS int STRICT LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION task_test.set(payload jsonb) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION task_test.text_arg(payload text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION task_test.two_args(payload jsonb, more jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION task_test.variadic(VARIADIC payload jsonb[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION task_test.trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE PROCEDURE task_test.inout(INOUT payload jsonb) LANGUAGE sql AS 'SELECT payload';
CREATE FUNCTION task_test.overloaded() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION task_test.overloaded(payload jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT handler, helper.error_of(format('SELECT trigger_idem.task_create(''task_bad'', %s)', handler)) AS error
FROM (VALUES ($$'task_test.gone'$$), ($$0$$), ($$'task_test.strict'$$), ($$'task_test.set'$$), ($$'task_test.text_arg'$$),
	($$'task_test.two_args'$$), ($$'task_test.variadic'$$), ($$'task_test.trigger'$$), ($$'task_test.inout'$$),
	($$'task_test.overloaded'$$), ($$'task_test.overloaded()'::regprocedure::oid$$), ($$'pg_catalog.max'$$),
	($$'pg_catalog.row_number'$$)) v(handler);

-- settings that cannot be
SELECT helper.error_of('SELECT trigger_idem.task_create(' || args || ')') AS error
FROM (VALUES
	($$NULL$$), ($$''$$), ($$repeat('x', 256)$$),
	($$'bad', queue => NULL$$), ($$'bad', queue => ''$$),
	($$'bad', max_attempts => NULL$$), ($$'bad', max_attempts => 0$$), ($$'bad', max_attempts => 10001$$),
	($$'bad', min_backoff => NULL$$), ($$'bad', min_backoff => '-1 s'$$),
	($$'bad', max_backoff => '-1 s'$$), ($$'bad', min_backoff => '2 min'$$),
	($$'bad', max_backoff => '300000 years'$$), ($$'bad', idempotency_key_ttl => '101 years'$$),
	($$'bad', backoff_factor => 0.5$$), ($$'bad', backoff_factor => 'NaN'$$), ($$'bad', backoff_factor => 'Infinity'$$),
	($$'bad', backoff_jitter => NULL$$),
	($$'bad', lease_duration => '0'$$), ($$'bad', lease_duration => '-1 s'$$), ($$'bad', lease_duration => NULL$$),
	($$'bad', max_duration => '0'$$), ($$'bad', max_duration => '-1 s'$$),
	($$'bad', idempotency_key_ttl => '0'$$), ($$'bad', idempotency_key_ttl => '-1 s'$$),
	($$'bad', release_key_on => NULL$$), ($$'bad', release_key_on => '{queued}'$$),
	($$'bad', release_key_on => '{done}'$$), ($$'bad', release_key_on => '{NULL}'$$),
	($$'bad', release_key_on => array_fill('completed'::text, ARRAY[100])$$),
	($$'bad', idempotency_group => ''$$),
	($$'bad', on_payload_mismatch => NULL$$), ($$'bad', on_payload_mismatch => 'warn'$$),
	($$'bad', concurrency_limit => 0$$),
	($$'bad', run_as => 'regress_nobody'$$),
	($$'bad', idempotency_key_required => NULL$$)
	) v(args);
SELECT count(*) AS bad_ones FROM trigger_idem.tasks WHERE task_id = 'bad';

-- dropping
SELECT trigger_idem.task_drop('task_no_args');
SELECT trigger_idem.task_drop('task_no_args');
SELECT trigger_idem.task_drop('never_made');
SELECT helper.error_of('SELECT trigger_idem.task_drop(NULL)');
SELECT count(*) FROM trigger_idem.tasks WHERE task_id = 'task_no_args';
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('task_no_args')$$);

-- created, changed, dropped and rolled back: this session sees what is so
BEGIN;
SELECT trigger_idem.task_create('task_rolled_back', queue => 'one');
SELECT status FROM trigger_idem.trigger_task('task_rolled_back');
SAVEPOINT s;
SELECT trigger_idem.task_create('task_rolled_back', queue => 'two', idempotency_key_required => true);
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('task_rolled_back')$$);
ROLLBACK TO s;
SELECT status FROM trigger_idem.trigger_task('task_rolled_back');
ROLLBACK;
SELECT helper.error_of($$SELECT trigger_idem.trigger_task('task_rolled_back')$$);

-- ownership
CREATE ROLE regress_owner;
CREATE ROLE regress_member;
CREATE ROLE regress_other;
GRANT regress_owner TO regress_member;
GRANT USAGE ON SCHEMA helper, task_test TO regress_owner, regress_other;
SELECT trigger_idem.access_grant(role, 'work') FROM unnest('{regress_owner,regress_other}'::regrole[]) role;

SET ROLE regress_owner;
SELECT trigger_idem.task_create('task_owned', 'helper.handler', idempotency_group => 'owners_group');
SELECT owner, run_as FROM trigger_idem.tasks WHERE task_id = 'task_owned';
-- run_as: a role that the owner may become, that may execute the handler
SELECT helper.error_of($$SELECT trigger_idem.task_create('task_owned', run_as => 'regress_other')$$);
RESET ROLE;
SET ROLE regress_member;
SELECT trigger_idem.task_create('task_owned', 'helper.handler', queue => 'members', idempotency_group => 'owners_group');
SELECT owner, run_as, queue FROM trigger_idem.tasks WHERE task_id = 'task_owned';
SET ROLE regress_other;
SELECT helper.error_of($$SELECT trigger_idem.task_create('task_owned')$$);
SELECT helper.error_of($$SELECT trigger_idem.task_drop('task_owned')$$);
SELECT helper.error_of($$SELECT trigger_idem.task_create('task_others', idempotency_group => 'owners_group')$$);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION helper.handler FROM PUBLIC;
SET ROLE regress_other;
SELECT helper.error_of($$SELECT trigger_idem.task_create('task_others', 'helper.handler')$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION helper.handler TO PUBLIC;

-- a superuser's task needs a superuser's handler
ALTER FUNCTION task_test.no_args OWNER TO regress_owner;
SELECT helper.error_of($$SELECT trigger_idem.task_create('task_super', 'task_test.no_args')$$);
ALTER FUNCTION task_test.no_args OWNER TO CURRENT_USER;

-- the name stays the owner's as long as runs or keys of it remain
SET ROLE regress_owner;
SELECT status FROM trigger_idem.trigger_task('task_owned');
SELECT trigger_idem.task_drop('task_owned');
SELECT task_id, status, held_because FROM trigger_idem.runs WHERE task_id = 'task_owned';
SET ROLE regress_other;
SELECT helper.error_of($$SELECT trigger_idem.task_create('task_owned')$$);
RESET ROLE;
DELETE FROM trigger_idem.queue_entry WHERE task_id = 'task_owned';
DELETE FROM trigger_idem.run WHERE task_id = 'task_owned';
SET ROLE regress_other;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT helper.error_of($$SELECT trigger_idem.task_create('task_owned')$$);
COMMIT;
SELECT trigger_idem.task_create('task_owned');
SELECT owner, run_as FROM trigger_idem.tasks WHERE task_id = 'task_owned';
RESET ROLE;

DROP OWNED BY regress_owner, regress_member, regress_other;
DROP ROLE regress_owner, regress_member, regress_other;

-- a superuser takes the tasks over whose owner is gone, runs and all
CREATE ROLE regress_leaver;
SELECT trigger_idem.access_grant('regress_leaver', 'work');
SET ROLE regress_leaver;
SELECT trigger_idem.task_create('task_orphan', queue => 'task_orphans');
SELECT status FROM trigger_idem.trigger_task('task_orphan');
RESET ROLE;
DROP OWNED BY regress_leaver;
DROP ROLE regress_leaver;
SELECT trigger_idem.task_create('task_orphan', 'helper.handler', queue => 'task_orphans');
SELECT owner = current_user AS owner_is_me, run_as = current_user AS run_as_is_me FROM trigger_idem.tasks WHERE task_id = 'task_orphan';
CALL trigger_idem.work('task_orphans');
SELECT status FROM trigger_idem.runs WHERE task_id = 'task_orphan';
DELETE FROM helper.log;
