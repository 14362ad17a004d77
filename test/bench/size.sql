-- Bytes on disk and of WAL: of a run, of what a key and a payload add to it, and
-- of its completion.  Adds to bench.timing.
\set ON_ERROR_STOP on
\o /dev/null

CREATE FUNCTION pg_temp.disk() RETURNS numeric
LANGUAGE sql RETURN (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
	WHERE relnamespace = 'trigger_idem'::regnamespace AND relkind = 'r');

-- what 20,000 calls of a statement write, each
CREATE PROCEDURE pg_temp.measure(what text, statement text)
LANGUAGE plpgsql AS $$
DECLARE
	runs CONSTANT int := 20000;
	disk numeric := pg_temp.disk();
	wal pg_lsn := pg_current_wal_insert_lsn();
BEGIN
	EXECUTE format(statement, runs);
	INSERT INTO bench.timing VALUES
		(what || ': WAL', round((pg_current_wal_insert_lsn() - wal) / runs)),
		(what || ': disk', round((pg_temp.disk() - disk) / runs));
END
$$;

-- not the first writes to pages after a checkpoint, which the server logs whole
SELECT count(trigger_idem.trigger_task('sized', '{"order": 4711}', 'warm order number' || 100000000000000000 + i)) FROM generate_series(1, 20000) i;
CALL pg_temp.measure('run', $$SELECT count(trigger_idem.trigger_task('sized')) FROM generate_series(1, %s)$$);
CALL pg_temp.measure('key', $$SELECT count(trigger_idem.trigger_task('sized', NULL, 'size order number' || 100000000000000000 + i)) FROM generate_series(1, %s) i$$);
CALL pg_temp.measure('payload', $$SELECT count(trigger_idem.trigger_task('sized', '{"order": 4711, "currency": "EUR", "lines": [{"sku": "A-1"}, {"sku": "B-22"}], "c": 42}')) FROM generate_series(1, %s)$$);
UPDATE bench.timing t SET us = t.us - r.us
FROM bench.timing r
WHERE (t.what, r.what) IN (('key: WAL', 'run: WAL'), ('key: disk', 'run: disk'), ('payload: WAL', 'run: WAL'), ('payload: disk', 'run: disk'));

SELECT pg_temp.disk() AS disk, pg_current_wal_insert_lsn() AS wal \gset
CALL trigger_idem.work('sized', 20000);
INSERT INTO bench.timing VALUES
	('completion: WAL', round((pg_current_wal_insert_lsn() - :'wal') / 20000)),
	('completion: disk', round((pg_temp.disk() - :disk) / 20000));
