-- Snippets for sql_gate.py self-test.  "script" is a whole script, "part" one of which only
-- the statements count, "control" the control file, "c" is C.  After the colon stand the rules that the snippet breaks.

-- ---------- What it is about ----------

-- script: nothing
\echo Use "CREATE EXTENSION trigger_idem" to load this file. \quit
CREATE SCHEMA trigger_idem;
COMMENT ON SCHEMA trigger_idem IS 'x';
CREATE TYPE trigger_idem.kind AS ENUM ('a', 'b');
COMMENT ON TYPE trigger_idem.kind IS 'x';
CREATE TABLE trigger_idem.thing (
	id uuid NOT NULL,
	name text COLLATE pg_catalog."C" NOT NULL DEFAULT 'x',
	kind trigger_idem.kind,
	CONSTRAINT thing_pkey PRIMARY KEY (id),
	CONSTRAINT thing_check CHECK (name OPERATOR(pg_catalog.<>) '')
);
CREATE INDEX thing_idx ON trigger_idem.thing (name) WHERE kind IS NOT NULL;
CREATE FUNCTION trigger_idem.f(a text, b int[] DEFAULT NULL, OUT c uuid) LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'f';
COMMENT ON FUNCTION trigger_idem.f(text, int[]) IS 'x';
CREATE PROCEDURE trigger_idem.p(INOUT n int DEFAULT NULL) LANGUAGE c AS 'MODULE_PATHNAME', 'p';
COMMENT ON PROCEDURE trigger_idem.p(int) IS 'x';
CREATE VIEW trigger_idem.things WITH (security_barrier) AS
WITH own AS (SELECT t.id, t.name FROM trigger_idem.thing t)
SELECT o.id, COALESCE(o.name, CURRENT_USER::pg_catalog.text) AS name, CASE WHEN o.id IS NULL THEN 1::int ELSE 2 END AS n,
	EXTRACT(year FROM pg_catalog.now()) AS y, ARRAY(SELECT x.id FROM own x ORDER BY x.name) AS ids
FROM own o JOIN trigger_idem.thing t ON t.id OPERATOR(pg_catalog.=) o.id
WHERE o.id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT x.id FROM own x)) AND o.name OPERATOR(pg_catalog.~~) 'x%'
	AND EXISTS (SELECT FROM own) AND NOT o.id OPERATOR(pg_catalog.=) ANY (SELECT x.id FROM own x)
GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW trigger_idem.things IS 'x';
REVOKE ALL ON SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON TYPE trigger_idem.kind FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.thing', '');

-- ---------- Planted objects ----------

-- part: create-or-replace
CREATE OR REPLACE FUNCTION trigger_idem.f() RETURNS int LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'f';
-- part: create-or-replace
CREATE OR REPLACE VIEW trigger_idem.v AS SELECT 1 AS a;
-- part: create-or-replace
CREATE OR REPLACE AGGREGATE trigger_idem.a(int) (SFUNC = pg_catalog.int4pl, STYPE = int);
-- part: if-not-exists
CREATE TABLE IF NOT EXISTS trigger_idem.t (a int);
-- part: if-not-exists
CREATE SCHEMA IF NOT EXISTS trigger_idem;
-- part: if-not-exists
CREATE INDEX IF NOT EXISTS i ON trigger_idem.t (a);
-- part: if-not-exists
CREATE SEQUENCE IF NOT EXISTS trigger_idem.s;
-- part: foreign-schema, relation
CREATE TABLE t (a int);
-- part: foreign-schema
CREATE TABLE public.t (a int);
-- part: foreign-schema
CREATE FUNCTION f() RETURNS int LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'f';
-- part: foreign-schema
CREATE TYPE kind AS ENUM ('a');
-- part: foreign-schema
CREATE SCHEMA other;
-- part: foreign-schema
CREATE OPERATOR pg_catalog.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.texteq);
-- part: foreign-schema
CREATE DOMAIN d AS text;

-- ---------- The search path ----------

-- part: relation
CREATE VIEW trigger_idem.v AS SELECT t.a FROM t;
-- part: relation
DELETE FROM t;
-- part: relation
INSERT INTO t VALUES (1);
-- part: relation
ALTER TABLE t ADD COLUMN a int;
-- part: relation
CREATE VIEW trigger_idem.v AS SELECT 1 AS a FROM trigger_idem.w, (WITH x AS (SELECT 1 AS a) SELECT x.a FROM x) y, x;
-- part: function
CREATE VIEW trigger_idem.v AS SELECT now() AS a;
-- part: function
CREATE TABLE trigger_idem.t (a timestamptz DEFAULT clock_timestamp());
-- part: function
SELECT pg_extension_config_dump('trigger_idem.t', '');
-- part: operator
CREATE VIEW trigger_idem.v AS SELECT 1 + 1 AS a;
-- part: operator
CREATE TABLE trigger_idem.t (a int, CONSTRAINT c CHECK (a > 0));
-- part: operator
CREATE INDEX i ON trigger_idem.t (a) WHERE a < 3;
-- part: operator
CREATE VIEW trigger_idem.v AS SELECT - 1 * t.a AS a FROM trigger_idem.t t;
-- part: operator
CREATE VIEW trigger_idem.v AS SELECT 1 AS a WHERE 1 = ANY (ARRAY[1]);
-- part: operator
CREATE VIEW trigger_idem.v AS SELECT 1 AS a WHERE 1 = ANY (SELECT 1);
-- part: operator
CREATE VIEW trigger_idem.v AS SELECT 1 AS a WHERE 1 <> ALL (SELECT 1);
-- part: operator
CREATE VIEW trigger_idem.v AS SELECT t.a FROM trigger_idem.t t ORDER BY t.a USING <;
-- part: operator
CREATE VIEW trigger_idem.v AS SELECT ROW(1, 2) = ROW(1, 2) AS a;
-- part: operator
CREATE INDEX i ON trigger_idem.t (a text_pattern_ops);
-- part: function
CREATE TRIGGER t AFTER INSERT ON trigger_idem.t FOR EACH ROW EXECUTE FUNCTION f();
-- part: function
CREATE AGGREGATE trigger_idem.a(int) (SFUNC = int4pl, STYPE = int);
-- part: function
CREATE OPERATOR trigger_idem.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);
-- part: nothing
CREATE TRIGGER t AFTER INSERT ON trigger_idem.t FOR EACH ROW EXECUTE FUNCTION trigger_idem.f();
-- part: in
CREATE VIEW trigger_idem.v AS SELECT 1 IN (1, 2) AS a;
-- part: in
CREATE VIEW trigger_idem.v AS SELECT 1 NOT IN (SELECT 1) AS a;
-- part: between
CREATE VIEW trigger_idem.v AS SELECT 1 BETWEEN 1 AND 2 AS a;
-- part: between
CREATE VIEW trigger_idem.v AS SELECT 1 NOT BETWEEN SYMMETRIC 1 AND 2 AS a;
-- part: like
CREATE VIEW trigger_idem.v AS SELECT 'a' LIKE 'a' AS a, 'a' NOT ILIKE 'a' AS b;
-- part: like
CREATE VIEW trigger_idem.v AS SELECT 'a' SIMILAR TO 'a' AS a;
-- part: is-distinct-from
CREATE VIEW trigger_idem.v AS SELECT 1 IS DISTINCT FROM 2 AS a, 1 IS NOT DISTINCT FROM 2 AS b;
-- part: nullif
CREATE VIEW trigger_idem.v AS SELECT NULLIF(1, 2) AS a;
-- part: case-when
CREATE VIEW trigger_idem.v AS SELECT CASE 1 WHEN 1 THEN 2 END AS a;
-- part: join-using
CREATE VIEW trigger_idem.v AS SELECT 1 AS a FROM trigger_idem.t JOIN trigger_idem.u USING (a);
-- part: join-using
CREATE VIEW trigger_idem.v AS SELECT 1 AS a FROM trigger_idem.t NATURAL JOIN trigger_idem.u;
-- part: cast
CREATE VIEW trigger_idem.v AS SELECT '1'::text AS a;
-- part: cast
CREATE VIEW trigger_idem.v AS SELECT CAST(NULL AS uuid[]) AS a;
-- part: cast
CREATE TABLE trigger_idem.t (a jsonb DEFAULT '1'::jsonb);
-- part: cast
CREATE FUNCTION trigger_idem.f(a text DEFAULT current_setting::text) RETURNS int LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'f';
-- part: collation
CREATE VIEW trigger_idem.v AS SELECT 'a' COLLATE "C" AS a;
-- part: collation
CREATE TABLE trigger_idem.t (a text COLLATE "C");
-- part: type
CREATE TABLE trigger_idem.t (a run_status);
-- part: type
CREATE FUNCTION trigger_idem.f(a run_status) RETURNS int LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'f';
-- part: type
CREATE FUNCTION trigger_idem.f() RETURNS run_status LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'f';
-- part: syntax
CREATE TABEL trigger_idem.t (a int);

-- ---------- Functions ----------

-- part: nothing
CREATE FUNCTION trigger_idem.f(a text) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	b text := pg_catalog.upper(a);
BEGIN
	b := b OPERATOR(pg_catalog.||) 'x';
	IF b IS NULL THEN
		RETURN (SELECT 1);
	END IF;
	PERFORM pg_catalog.now();
	RETURN 2;
END $$;
-- part: search-path
CREATE FUNCTION trigger_idem.f() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT 1';
-- part: nothing
CREATE FUNCTION trigger_idem.f() RETURNS int STABLE PARALLEL SAFE RETURN 1;
-- control: nothing
schema = pg_catalog
relocatable = false
-- control: control
schema = public
relocatable = false
-- control: control
schema = pg_catalog
relocatable = true
-- part: search-path
CREATE PROCEDURE trigger_idem.f() LANGUAGE plpgsql AS 'BEGIN END';
-- part: definer-path
CREATE FUNCTION trigger_idem.f() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT 1';
-- part: definer-path
CREATE FUNCTION trigger_idem.f() RETURNS int LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER AS 'MODULE_PATHNAME', 'f';
-- part: volatility, parallel
CREATE FUNCTION trigger_idem.f() RETURNS int LANGUAGE c AS 'MODULE_PATHNAME', 'f';
-- part: function, operator
CREATE FUNCTION trigger_idem.f() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, public AS 'SELECT lower(''a''); SELECT 1 + 1';
-- part: function, operator, search-path
CREATE FUNCTION trigger_idem.f() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT lower(''a''); SELECT 1 + 1';
-- part: nothing
CREATE FUNCTION trigger_idem.f() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'SELECT lower(''a''); SELECT 1 + 1';
-- part: nothing
CREATE FUNCTION trigger_idem.f(a text) RETURNS int STABLE PARALLEL SAFE RETURN lower(a)::text || CASE a WHEN 'b' THEN 'c' END;
-- part: relation
CREATE FUNCTION trigger_idem.f() RETURNS int STABLE PARALLEL SAFE BEGIN ATOMIC SELECT lower(t.a) FROM t; END;
-- part: cast
CREATE FUNCTION trigger_idem.f(a text) RETURNS int STABLE PARALLEL SAFE RETURN a::run_status;
-- part: function
CREATE FUNCTION trigger_idem.f(a text DEFAULT lower('A')) RETURNS int STABLE PARALLEL SAFE RETURN 1;
-- part: operator
CREATE FUNCTION trigger_idem.f() RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_temp, pg_catalog AS
$$ DECLARE a int; BEGIN a := 1 + 1; RETURN a; END $$;
-- part: between
CREATE FUNCTION trigger_idem.f(a int) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = public AS
$$ BEGIN IF a BETWEEN 1 AND 2 THEN RETURN 1; END IF; RETURN 2; END $$;
-- part: nothing
CREATE FUNCTION trigger_idem.f(a int) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$ BEGIN IF a BETWEEN 1 AND 2 THEN RETURN 1; END IF; RETURN 2; END $$;
-- part: relation
CREATE FUNCTION trigger_idem.f(a int) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$ DECLARE r record; BEGIN FOR r IN SELECT t.a FROM t LOOP NULL; END LOOP; RETURN 1; END $$;
-- part: function
CREATE FUNCTION trigger_idem.f(a int) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = public AS
$$ BEGIN EXECUTE format('SELECT %s', a); RETURN 1; END $$;
-- part: function
DO $$ BEGIN PERFORM now(); END $$;

-- ---------- The whole script ----------

-- script: guard
SELECT 1;
-- script: comment, revoke
\echo Use "CREATE EXTENSION trigger_idem" to load this file. \quit
CREATE FUNCTION trigger_idem.f(a text) RETURNS int LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'f';
COMMENT ON FUNCTION trigger_idem.f(int) IS 'x';
-- script: comment
\echo Use "CREATE EXTENSION trigger_idem" to load this file. \quit
CREATE VIEW trigger_idem.v AS SELECT 1 AS a;
REVOKE ALL ON SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA trigger_idem FROM PUBLIC;
-- script: revoke
\echo Use "CREATE EXTENSION trigger_idem" to load this file. \quit
REVOKE ALL ON SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA trigger_idem FROM PUBLIC;
CREATE VIEW trigger_idem.v AS SELECT 1 AS a;
COMMENT ON VIEW trigger_idem.v IS 'x';
-- script: revoke
\echo Use "CREATE EXTENSION trigger_idem" to load this file. \quit
CREATE TYPE trigger_idem.kind AS ENUM ('a');
COMMENT ON TYPE trigger_idem.kind IS 'x';
REVOKE ALL ON SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA trigger_idem FROM PUBLIC;
-- script: revoke
\echo Use "CREATE EXTENSION trigger_idem" to load this file. \quit
CREATE TYPE trigger_idem.kind AS ENUM ('a');
COMMENT ON TYPE trigger_idem.kind IS 'x';
REVOKE ALL ON TYPE trigger_idem.kind FROM PUBLIC;
REVOKE ALL ON SCHEMA trigger_idem FROM PUBLIC;
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA trigger_idem FROM somebody;
-- script: not-dumped
\echo Use "CREATE EXTENSION trigger_idem" to load this file. \quit
CREATE TABLE trigger_idem.t (a int);
REVOKE ALL ON SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA trigger_idem FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.u', '');
-- part: grant-to-public
GRANT SELECT ON trigger_idem.v TO PUBLIC;
-- part: constraint-name
CREATE TABLE trigger_idem.t (a int PRIMARY KEY);
-- part: constraint-name
CREATE TABLE trigger_idem.t (a int, UNIQUE (a));

-- ---------- C ----------

-- c: nothing
static Statement s = {
	/* = in a comment is nothing */
	.sql = "SELECT e.a FROM trigger_idem.queue_entry e " COLUMNS
	"WHERE e.a OPERATOR(pg_catalog.=) $1 AND e.b OPERATOR(pg_catalog.=) ANY ($2)",
	.expected = SPI_OK_SELECT,
};
#define COLUMNS "JOIN trigger_idem.run r " \
	"ON r.a OPERATOR(pg_catalog.=) e.a "
-- c: nothing
static Statement s = {.sql = "INSERT INTO trigger_idem.t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = excluded.a"};
-- c: nothing
static Statement s = {.sql = "SELECT FROM trigger_idem.t t FOR UPDATE OF t SKIP LOCKED"};
-- c: operator
static Statement s = {.sql = "DELETE FROM trigger_idem.t WHERE a "
	"= $1", .expected = SPI_OK_DELETE};
-- c: operator
#define WHERE " WHERE a = $1"
static Statement s = {.sql = "DELETE FROM trigger_idem.t" WHERE, .expected = SPI_OK_DELETE};
-- c: relation, function
void f(void) { SPI_execute("SELECT now() FROM t", true, 0); }
-- c: nothing
void f(const char *n) { statement_command(psprintf("GRANT SELECT ON trigger_idem.v TO %s", quote_identifier(n))); }
-- c: relation
void f(const char *n) { statement_command(psprintf("GRANT SELECT ON " VIEWS " TO %s", quote_identifier(n))); }
#define VIEWS "trigger_idem.v, w"
-- c: not-constant
void f(const char *n) { statement_command(n); }
-- c: cast
static Statement s = {.sql = "SELECT $1::text"};
-- c: not-constant
void f(const char *sql) { SPI_prepare(sql, 0, NULL); }
-- c: not-constant
static Statement s = {.sql = text_of_somebody};
-- c: syntax
static Statement s = {.sql = "SELEC 1 FROM trigger_idem.t"};
