-- What the other files use.  Everything is in schemas of its own and named with
-- them: the suite also runs with hostile objects first in the search path.

CREATE SCHEMA helper;

-- The error that a command raises, on one line
CREATE FUNCTION helper.error_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END $$;

-- What user code did, in the order in which it did it.  Unlogged, and so is its sequence:
-- a number that is logged, one in 32, would be a write, after which a handler cannot wait
CREATE UNLOGGED TABLE helper.log (id bigint GENERATED ALWAYS AS IDENTITY, line text);

CREATE PROCEDURE helper.show_log() LANGUAGE plpgsql AS $$
DECLARE
	entry record;
BEGIN
	FOR entry IN WITH gone AS (DELETE FROM helper.log RETURNING id, line)
		SELECT line FROM gone ORDER BY id LOOP
		RAISE NOTICE '%', entry.line;
	END LOOP;
END $$;

-- A callback and a handler that say that they were called
CREATE FUNCTION helper.callback(idempotency_key text, args jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES ('callback ' || coalesce(args::text, 'without args'));
	RETURN jsonb_build_object('did', args);
END $$;

CREATE FUNCTION helper.handler(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) VALUES ('handler ' || coalesce(payload::text, 'without payload'));
	RETURN payload;
END $$;
