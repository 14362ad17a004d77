-- What the bench measures with: tasks, a hand-written single table, and 10,000
-- keys that are taken in each.
\set ON_ERROR_STOP on
\o /dev/null
SET client_min_messages = warning;

CREATE EXTENSION trigger_idem;
CREATE SCHEMA bench;

-- What one would write by hand: a job table with a unique key, and an index
-- for whoever fetches work.
CREATE TABLE bench.single (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	task text NOT NULL,
	queue text NOT NULL DEFAULT 'default',
	status text NOT NULL DEFAULT 'queued',
	key text NOT NULL UNIQUE,
	payload jsonb,
	created_at timestamptz NOT NULL DEFAULT now(),
	run_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON bench.single (queue, run_at);

-- And what one would write for batches: a table each for keys, runs and the
-- queue, in the same four indexes as ours.
CREATE TABLE bench.key (
	task text NOT NULL,
	key text NOT NULL,
	run_id uuid NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	expires_at timestamptz NOT NULL DEFAULT now() + interval '30 days',
	PRIMARY KEY (task, key)
);
CREATE TABLE bench.run (
	run_id uuid PRIMARY KEY,
	task text NOT NULL,
	queue text NOT NULL DEFAULT 'default',
	status text NOT NULL DEFAULT 'queued',
	payload jsonb,
	created_at timestamptz NOT NULL DEFAULT now(),
	run_at timestamptz NOT NULL DEFAULT now(),
	max_attempts int NOT NULL DEFAULT 3
);
CREATE TABLE bench.queue_entry (
	run_id uuid PRIMARY KEY,
	task text NOT NULL,
	queue text NOT NULL DEFAULT 'default',
	run_at timestamptz NOT NULL DEFAULT now(),
	attempt int NOT NULL DEFAULT 0
);
CREATE INDEX ON bench.queue_entry (queue, run_at);

-- microseconds a call, and bytes, as the scripts of this folder find them
CREATE TABLE bench.timing (what text, us float8, at timestamptz DEFAULT clock_timestamp());

CREATE FUNCTION bench.callback(key text) RETURNS int
LANGUAGE sql RETURN 1;

CREATE FUNCTION bench.noop() RETURNS void
LANGUAGE sql RETURN NULL;

-- A handler that replays one step in a loop, then calls new ones.
CREATE FUNCTION bench.steps() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	replays CONSTANT int := 100000;
	calls CONSTANT int := 5000;
	output jsonb;
	started timestamptz;
	empty_loop float8;
	us float8;
BEGIN
	output := trigger_idem.run_once('replayed', 'bench.callback');

	started := clock_timestamp();
	FOR i IN 1 .. replays LOOP
		output := NULL;
	END LOOP;
	empty_loop := extract(epoch FROM clock_timestamp() - started) * 1e6 / replays;

	started := clock_timestamp();
	FOR i IN 1 .. replays LOOP
		output := trigger_idem.run_once('replayed', 'bench.callback');
	END LOOP;
	us := extract(epoch FROM clock_timestamp() - started) * 1e6 / replays;
	INSERT INTO bench.timing VALUES ('replayed step', us - empty_loop);

	started := clock_timestamp();
	FOR i IN 1 .. calls LOOP
		output := trigger_idem.run_once('step ' || i, 'bench.callback');
	END LOOP;
	us := extract(epoch FROM clock_timestamp() - started) * 1e6 / calls;
	INSERT INTO bench.timing VALUES ('first call of a step', us - empty_loop);
END
$$;

SELECT trigger_idem.task_create('bench');
SELECT trigger_idem.task_create('completed', 'bench.noop', queue => 'completed');
SELECT trigger_idem.task_create('steps', 'bench.steps', queue => 'steps');
SELECT trigger_idem.task_create('noop', 'bench.noop', queue => 'noop');
SELECT trigger_idem.task_create('batch', queue => 'batch');
SELECT trigger_idem.task_create('grown', queue => 'grown');
SELECT trigger_idem.task_create('sized', 'bench.noop', queue => 'sized');
SELECT FROM trigger_idem.trigger_task('bench', idempotency_key => 'contended');

CREATE TEMPORARY TABLE taken AS
SELECT 'bench order number' || 100000000000000000 + n AS key, '{"order": 4711}'::jsonb AS payload
FROM generate_series(0, 9999) n;
INSERT INTO bench.single (task, payload, key) SELECT 'bench', payload, key FROM taken;
SELECT count(trigger_idem.trigger_task('bench', payload, key)) FROM taken;
SELECT count(trigger_idem.trigger_task('completed', payload, key)) FROM taken;
VACUUM (FREEZE, ANALYZE);
CALL trigger_idem.work('completed');

VACUUM (FREEZE, ANALYZE);
CHECKPOINT;
