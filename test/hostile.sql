-- A schema of look-alikes of what trigger_idem might call, for a run of the
-- regression suite with it first in the search path, before pg_catalog.
--
-- They do what the originals do, except for the owner of the extension, as whom
-- our own SQL runs: if one is ever reached from there, it says so and fails.
-- The extension belongs to a superuser of its own, so that nothing else does.

CREATE ROLE regress_extension_owner SUPERUSER;
SET ROLE regress_extension_owner;
CREATE EXTENSION trigger_idem;
RESET ROLE;

CREATE SCHEMA hostile;

CREATE FUNCTION hostile.check_caller(what text) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog AS $$
BEGIN
	IF current_user = 'regress_extension_owner' THEN
		RAISE EXCEPTION 'HOSTILE CODE WAS REACHED: %', what;
	END IF;
	RETURN true;
END $$;

-- operators
DO $$
DECLARE
	o record;
BEGIN
	FOR o IN
		SELECT oprname AS name, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result,
			row_number() OVER () AS number
		FROM pg_catalog.pg_operator
		WHERE oprnamespace = 'pg_catalog'::regnamespace
			AND oprname IN ('=', '<>', '<', '<=', '>', '>=', '+', '-', '||', '@>')
			AND oprleft IN ('text'::regtype, 'uuid'::regtype, 'timestamptz'::regtype, 'int4'::regtype,
				'int8'::regtype, 'bytea'::regtype, 'name'::regtype, 'oid'::regtype, 'bool'::regtype,
				'tid'::regtype, 'interval'::regtype, 'jsonb'::regtype, 'anyarray'::regtype, 'anyenum'::regtype)
	LOOP
		EXECUTE format('CREATE FUNCTION hostile.operator_%s(a %s, b %s) RETURNS %s LANGUAGE plpgsql AS %L',
			o.number, o.l, o.r, o.result,
			format('BEGIN PERFORM hostile.check_caller(%L); RETURN $1 OPERATOR(pg_catalog.%s) $2; END',
				format('operator %s(%s,%s)', o.name, o.l, o.r), o.name));
		EXECUTE format('CREATE OPERATOR hostile.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = hostile.operator_%s)',
			o.name, o.l, o.r, o.number);
	END LOOP;
END $$;

-- functions
CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN PERFORM hostile.check_caller('now'); RETURN pg_catalog.now(); END $$;
CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN PERFORM hostile.check_caller('clock_timestamp'); RETURN pg_catalog.clock_timestamp(); END $$;
CREATE FUNCTION hostile.encode(bytea, text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM hostile.check_caller('encode'); RETURN pg_catalog.encode($1, $2); END $$;
CREATE FUNCTION hostile.pg_has_role(name, oid, text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM hostile.check_caller('pg_has_role'); RETURN true; END $$;
CREATE FUNCTION hostile.pg_has_role(oid, text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM hostile.check_caller('pg_has_role'); RETURN true; END $$;
CREATE FUNCTION hostile.array_upper(anyarray, int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN PERFORM hostile.check_caller('array_upper'); RETURN 1; END $$;

-- relations
CREATE VIEW hostile.pg_roles AS
	SELECT r.* FROM pg_catalog.pg_roles r WHERE hostile.check_caller('pg_roles');
CREATE TABLE hostile.run (LIKE trigger_idem.run);
CREATE TABLE hostile.task (LIKE trigger_idem.task);
CREATE TABLE hostile.queue_entry (LIKE trigger_idem.queue_entry);
CREATE TABLE hostile.idempotency_key (LIKE trigger_idem.idempotency_key);
CREATE TABLE hostile.wait (LIKE trigger_idem.wait);
CREATE TABLE hostile.awaited (LIKE trigger_idem.awaited);
CREATE TABLE hostile.wait_token (LIKE trigger_idem.wait_token);
CREATE TYPE hostile.run_status AS ENUM ('owned');

GRANT USAGE ON SCHEMA hostile TO PUBLIC;
DO $$
BEGIN
	EXECUTE format('ALTER DATABASE %I SET search_path = hostile, pg_catalog, public', current_database());
END $$;
