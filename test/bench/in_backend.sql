-- Microseconds a call in one backend, without client and parser and with the
-- loop itself taken off.  Adds to bench.timing.
\set ON_ERROR_STOP on
\o /dev/null

CREATE FUNCTION pg_temp.measure(task text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	calls CONSTANT int := 100000;
	started timestamptz;
	empty_loop float8;
	us float8;
BEGIN
	started := clock_timestamp();
	PERFORM count('bench order number' || 100000000000000000 + i % 10000)
	FROM generate_series(1, calls) i;
	empty_loop := extract(epoch FROM clock_timestamp() - started) * 1e6 / calls;

	started := clock_timestamp();
	PERFORM count(trigger_idem.trigger_task(task, '{"order": 4711}',
		'bench order number' || 100000000000000000 + i % 10000))
	FROM generate_series(1, calls) i;
	us := extract(epoch FROM clock_timestamp() - started) * 1e6 / calls;
	INSERT INTO bench.timing VALUES (task, us - empty_loop);
END
$$;

SELECT pg_temp.measure('bench'), pg_temp.measure('completed');

SELECT trigger_idem.trigger_task('steps');
CALL trigger_idem.work('steps');
