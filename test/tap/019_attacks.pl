# Attacks that need sessions, workers or databases of their own; README.md of the
# tests lists all of them.
#
# Mallory may log in, owns tasks and handlers, and is a member of a role that has
# nothing to hide.  Promised:
#
# - a handler is its task's role and nobody else, whatever it does: in a session's
#   work(), in a background worker, alone and in a group of runs; and so is the
#   handler after it
# - a role that is set for somebody by ALTER ROLE does not make his worker work
#   another's tasks
# - rights that are taken back are gone at the next attempt
# - whoever prepares a database for CREATE EXTENSION gains nothing by it

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main', <<'EOCONF');
shared_preload_libraries = 'trigger_idem'
trigger_idem.poll_interval = '200ms'
max_worker_processes = 20
EOCONF

# Logged in as somebody; dies with the error, or answers
sub as
{
	my ($user, $sql) = @_;

	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $user ]);
}

sub error_of
{
	my ($user, $sql) = @_;
	my ($code, $stdout, $stderr) =
	  $node->psql('postgres', $sql, extra_params => [ '-U', $user, '-v', 'VERBOSITY=verbose' ]);

	return $stderr;
}

$node->safe_psql('postgres', <<'EOSQL');
CREATE ROLE victim LOGIN;
CREATE ROLE shared LOGIN;
CREATE ROLE mallory LOGIN IN ROLE shared;
GRANT CREATE ON SCHEMA public TO mallory;
SELECT trigger_idem.access_grant(role, 'work') FROM unnest('{mallory,victim,shared}'::regrole[]) role;
CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, what text, who text DEFAULT current_user, logged_in text DEFAULT session_user, memory text DEFAULT current_setting('work_mem'));
GRANT INSERT ON seen TO PUBLIC;
EOSQL

# ---------- Sessions ----------

like(error_of('mallory', 'SET ROLE victim'), qr/42501/, 'SET ROLE to the victim');
like(error_of('mallory', 'SET SESSION AUTHORIZATION victim'), qr/42501/, 'SET SESSION AUTHORIZATION');
like(error_of('mallory', 'SET ROLE shared; CALL trigger_idem.work()'), qr/42501/, 'work() after SET ROLE');
like(
	error_of('postgres', 'SET SESSION AUTHORIZATION mallory; CALL trigger_idem.work()'),
	qr/42501/, 'work() after SET SESSION AUTHORIZATION');
as('postgres', <<'EOSQL');
CREATE PROCEDURE works_as_definer() LANGUAGE plpgsql SECURITY DEFINER AS 'DECLARE n int; BEGIN CALL trigger_idem.work(processed => n); END';
EOSQL
like(error_of('mallory', 'CALL works_as_definer()'), qr/25001/, 'work() in a procedure of a superuser');

# ---------- Who a handler is ----------

# Each tries to become somebody else, and writes down who it is then.
as('mallory', <<'EOSQL');
CREATE FUNCTION try(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
EXCEPTION WHEN insufficient_privilege OR invalid_parameter_value THEN
	NULL;
END $$;
CREATE FUNCTION becomes_function(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM try(payload ->> 0);
	INSERT INTO seen (what) VALUES (payload ->> 0);
	SET work_mem = '1234kB';
END $$;
CREATE PROCEDURE becomes_procedure(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	ROLLBACK;
	PERFORM try(payload ->> 0);
	INSERT INTO seen (what) VALUES (payload ->> 0);
	SET work_mem = '1234kB';
	COMMIT;
END $$;
CREATE FUNCTION looks() RETURNS void LANGUAGE sql AS $$ INSERT INTO seen (what) VALUES ('the next handler') $$;
-- those that have one attempt are worked alone
SELECT trigger_idem.task_create(name, name::regproc, max_attempts => 2) FROM unnest('{becomes_function,becomes_procedure,looks}'::text[]) name;
EOSQL
my @attempts = (
	'SET ROLE postgres',
	'SET ROLE victim',
	'SET SESSION AUTHORIZATION postgres',
	'SET SESSION AUTHORIZATION victim',
	'RESET ROLE',
	'RESET SESSION AUTHORIZATION',
	'SET LOCAL ROLE NONE',
	"SELECT set_config(''role'', ''postgres'', false)");

# What is shared, it may become; what comes after it is mallory again.
sub check_seen
{
	my ($where) = @_;

	is( $node->safe_psql('postgres', "SELECT DISTINCT who, logged_in FROM seen WHERE what <> 'SET ROLE shared' AND what <> 'the next handler'"),
		'mallory|mallory', "$where: a handler is nobody else");
	is( $node->safe_psql('postgres', "SELECT DISTINCT who, logged_in FROM seen WHERE what = 'SET ROLE shared'"),
		'shared|mallory', "$where: but what its role may become");
	is( $node->safe_psql('postgres', "SELECT DISTINCT who, logged_in, memory FROM seen WHERE what = 'the next handler'"),
		'mallory|mallory|4MB', "$where: the next handler is its own role, with its own settings");
	is( $node->safe_psql('postgres', "SELECT status, count(*) FROM trigger_idem.runs WHERE task_id ~ 'becomes|looks' GROUP BY 1"),
		'completed|' . 4 * (@attempts + 1), "$where: all of them have run");
	$node->safe_psql('postgres', 'TRUNCATE seen');
	while ($node->safe_psql('postgres', "SELECT sum(removed) FROM trigger_idem.prune('0')")) { }
	return;
}

my $trigger_attempts = join "\n", map {
	my $attempt = $_;
	map { "SELECT FROM trigger_idem.trigger_task('$_', '[\"$attempt\"]'); SELECT FROM trigger_idem.trigger_task('looks');" }
	  ('becomes_function', 'becomes_procedure')
} @attempts, 'SET ROLE shared';

foreach my $runs_per_commit (1, 8)
{
	$node->append_conf('postgresql.conf', "trigger_idem.runs_per_commit = $runs_per_commit");
	reload_settings($node);
	as('mallory', $trigger_attempts);
	as('mallory', 'CALL trigger_idem.work()');
	check_seen("session, $runs_per_commit at a time");

	$node->append_conf('postgresql.conf', "trigger_idem.databases = 'postgres'");
	reload_settings($node);
	as('mallory', $trigger_attempts);
	$node->poll_query_until('postgres',
		"SELECT NOT EXISTS (SELECT FROM trigger_idem.runs WHERE status IN ('queued', 'executing'))")
	  or die 'background workers do not work';
	check_seen("background worker, $runs_per_commit at a time");
	$node->append_conf('postgresql.conf', "trigger_idem.databases = ''");
	reload_settings($node);
	$node->poll_query_until('postgres',
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker')")
	  or die 'background workers do not end';
}

# ---------- A role that is set for a role ----------

as('postgres', 'ALTER ROLE mallory SET role = shared');
as('shared', <<'EOSQL');
CREATE FUNCTION pg_temp.nothing() RETURNS void LANGUAGE sql AS '';
EOSQL
$node->safe_psql('postgres', <<'EOSQL');
GRANT CREATE ON SCHEMA public TO shared;
EOSQL
as('shared', <<'EOSQL');
CREATE FUNCTION looks_too() RETURNS void LANGUAGE sql AS $$ INSERT INTO seen (what) VALUES ('of shared') $$;
SELECT trigger_idem.task_create('looks_too', 'looks_too', max_attempts => 1);
SELECT FROM trigger_idem.trigger_task('looks_too');
EOSQL
as('postgres', "SELECT FROM trigger_idem.trigger_task('looks')");
like(error_of('mallory', 'CALL trigger_idem.work()'), qr/42501/, 'work() where ALTER ROLE has set a role');
$node->append_conf('postgresql.conf', "trigger_idem.databases = 'postgres'");
reload_settings($node);
$node->poll_query_until('postgres', 'SELECT count(*) = 2 FROM seen') or die 'not worked';
is( $node->safe_psql('postgres', 'SELECT what, who, logged_in FROM seen ORDER BY what'),
	"of shared|shared|shared\nthe next handler|mallory|mallory",
	'background workers are the roles of the tasks, whatever ALTER ROLE has set');
$node->append_conf('postgresql.conf', "trigger_idem.databases = ''");
reload_settings($node);
as('postgres', 'ALTER ROLE mallory RESET role; TRUNCATE seen');

# ---------- Rights that are taken back ----------

as('mallory', <<'EOSQL');
SELECT trigger_idem.task_create('as_shared', 'looks', run_as => 'shared', max_attempts => 1);
SELECT trigger_idem.trigger_task('as_shared');
EOSQL
as('postgres', 'REVOKE shared FROM mallory');
as('shared', 'CALL trigger_idem.work()');
is( as('postgres', "SELECT status, error ->> 'code', error ->> 'message' FROM trigger_idem.runs WHERE task_id = 'as_shared'"),
	'failed|42501|role "mallory" may not SET ROLE to "shared"',
	'the owner is no member of the run_as any more');
as('postgres', <<'EOSQL');
GRANT shared TO mallory;
REVOKE EXECUTE ON FUNCTION looks FROM PUBLIC;
SELECT trigger_idem.trigger_task('as_shared');
EOSQL
as('shared', 'CALL trigger_idem.work()');
is( as('postgres', "SELECT error ->> 'message' FROM trigger_idem.runs WHERE task_id = 'as_shared' ORDER BY created_at DESC LIMIT 1"),
	'role "shared" may not execute handler public.looks',
	'the run_as may not execute the handler any more');

# A superuser's task, whose handler is given to somebody else
as('postgres', <<'EOSQL');
CREATE FUNCTION super() RETURNS void LANGUAGE sql AS $$ INSERT INTO seen (what) VALUES ('super') $$;
SELECT trigger_idem.task_create('super', 'super', max_attempts => 1);
SELECT trigger_idem.trigger_task('super');
ALTER FUNCTION super() OWNER TO mallory;
EOSQL
as('mallory', "CREATE OR REPLACE FUNCTION super() RETURNS void LANGUAGE sql AS 'ALTER ROLE mallory SUPERUSER'");
as('postgres', 'CALL trigger_idem.work()');
is( as('postgres', "SELECT status, error ->> 'code' FROM trigger_idem.runs WHERE task_id = 'super'"),
	'failed|42501', q{a superuser's handler that has got another owner});

# The same between two roles: who has accepted the handler did so for its owner then
as('mallory', <<'EOSQL');
CREATE FUNCTION given() RETURNS void LANGUAGE sql AS '';
SELECT trigger_idem.task_create('given', 'given', max_attempts => 1);
SELECT trigger_idem.trigger_task('given');
EOSQL
as('postgres', 'ALTER FUNCTION given() OWNER TO victim');
as('mallory', 'CALL trigger_idem.work()');
is( as('postgres', "SELECT status, error ->> 'code', error ->> 'hint' FROM trigger_idem.runs WHERE task_id = 'given'"),
	'failed|42501|Call task_create() again to accept it.', 'a handler that has got another owner');
as('mallory', "SELECT trigger_idem.task_create('given', 'given', max_attempts => 1); SELECT trigger_idem.trigger_task('given'); CALL trigger_idem.work()");
is( as('postgres', "SELECT status FROM trigger_idem.runs WHERE task_id = 'given' ORDER BY run_id DESC LIMIT 1"),
	'completed', 'until it is accepted');

# A handler of the temporary schema is gone with its session, and is no other's.
as('mallory', <<'EOSQL');
CREATE FUNCTION pg_temp.temporary() RETURNS void LANGUAGE sql AS '';
SELECT trigger_idem.task_create('temporary', 'pg_temp.temporary', max_attempts => 1);
SELECT trigger_idem.trigger_task('temporary');
EOSQL
my $temporary = start_sql($node, 'temporary', 'CALL trigger_idem.work()',
	user => 'mallory',
	before => "CREATE FUNCTION pg_temp.of_another_name() RETURNS void LANGUAGE sql AS ''");
finish_sql($temporary);
is( as('postgres', "SELECT status, error ->> 'code' FROM trigger_idem.runs WHERE task_id = 'temporary'"),
	'failed|42883', 'a handler of a temporary schema that is gone');

is(as('postgres', q[SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolsuper]), 'postgres', 'nobody has become a superuser');

# Memberships that give less than they did before 16
SKIP:
{
	skip 'no such memberships before 16', 3 if $node->pg_version < 16;

	as('postgres', <<'EOSQL');
CREATE ROLE nothing LOGIN;
CREATE ROLE inherits LOGIN;
GRANT mallory TO nothing WITH INHERIT FALSE, SET FALSE;
GRANT mallory TO inherits WITH INHERIT TRUE, SET FALSE;
SELECT trigger_idem.access_grant(role, 'trigger', 'given') FROM unnest('{nothing,inherits}'::regrole[]) role;
GRANT EXECUTE ON FUNCTION trigger_idem.task_create TO nothing, inherits;
EOSQL
	is( as('nothing', 'SELECT count(*) FROM trigger_idem.runs'),
		'0', 'a member of the owner that neither inherits nor may SET ROLE sees nothing');
	like(error_of('nothing', "SELECT trigger_idem.task_create('given')"),
		qr/42501: permission denied to call task_create/, 'nor may change the task');
	like(error_of('inherits', "SELECT trigger_idem.task_create('given')"),
		qr/42501: must be able to SET ROLE to the owner/, 'one that inherits, but may not SET ROLE, may not say how it runs');
}

# ---------- What a worker leaves behind ----------

# A session that worked for mallory is hers, and another one's is not reached by it.
as('mallory', <<'EOSQL');
CREATE FUNCTION leaves() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('search_path', 'pg_temp', false);
	PERFORM set_config('trigger_idem.environment', 'nowhere', false);
	CREATE TEMP TABLE run (a int);
	CREATE TEMP TABLE queue_entry (a int);
END $$;
SELECT trigger_idem.task_create('leaves', 'leaves', max_attempts => 1);
SELECT FROM trigger_idem.trigger_task('leaves') \; SELECT FROM trigger_idem.trigger_task('looks', priority => 0);
EOSQL
as('postgres', 'GRANT EXECUTE ON FUNCTION looks TO mallory');
is( as('mallory', "CALL trigger_idem.work(); SHOW search_path; SHOW trigger_idem.environment; SELECT count(*) FROM trigger_idem.runs WHERE task_id = 'leaves' AND status = 'completed'"),
	"2\n\"\$user\", public\ndefault\n1", 'settings and temporary tables do not reach what comes after');

# ---------- CREATE EXTENSION on prepared ground ----------

as('postgres', 'CREATE DATABASE planted OWNER mallory');
sub planted
{
	my ($user, $sql) = @_;
	my ($code, $stdout, $stderr) = $node->psql('planted', $sql,
		extra_params => [ '-U', $user, '-v', 'VERBOSITY=verbose' ], on_error_stop => 1);
	return $code == 0 ? $stdout : $stderr;
}
planted('mallory', 'CREATE SCHEMA trigger_idem');
like(planted('postgres', 'CREATE EXTENSION trigger_idem'), qr/42P06/, 'a planted schema is not taken');
planted('mallory', <<'EOSQL');
DROP SCHEMA trigger_idem;
CREATE SCHEMA evil;
CREATE FUNCTION evil.pwn(anyelement, anyelement) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $$;
CREATE OPERATOR evil.= (LEFTARG = anyelement, RIGHTARG = anyelement, FUNCTION = evil.pwn);
CREATE OPERATOR evil.<> (LEFTARG = anyelement, RIGHTARG = anyelement, FUNCTION = evil.pwn);
CREATE FUNCTION evil.pg_extension_config_dump(regclass, text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END $$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; RETURN pg_catalog.clock_timestamp(); END $$;
CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.pwn(1, 1));
CREATE DOMAIN evil.jsonb AS pg_catalog.jsonb CHECK (evil.pwn(1, 1));
CREATE DOMAIN evil.uuid AS pg_catalog.uuid CHECK (evil.pwn(1, 1));
GRANT USAGE ON SCHEMA evil TO PUBLIC;
ALTER DATABASE planted SET search_path = evil, pg_catalog, public;
EOSQL
is(planted('postgres', 'CREATE EXTENSION trigger_idem'), '', 'created on prepared ground');
is( planted('postgres', <<'EOSQL'),
SELECT count(*) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON d.refobjid OPERATOR(pg_catalog.=) e.oid
WHERE e.extname OPERATOR(pg_catalog.=) 'trigger_idem' AND d.deptype OPERATOR(pg_catalog.=) 'e'
	AND EXISTS (SELECT FROM pg_catalog.pg_depend o JOIN pg_catalog.pg_type t ON o.refobjid OPERATOR(pg_catalog.=) t.oid
		WHERE o.objid OPERATOR(pg_catalog.=) d.objid AND t.typnamespace OPERATOR(pg_catalog.=) 'evil'::pg_catalog.regnamespace);
SELECT trigger_idem.task_create('t');
SELECT is_cached FROM trigger_idem.trigger_task('t', NULL, 'k');
SELECT is_cached FROM trigger_idem.trigger_task('t', NULL, 'k');
SELECT pg_catalog.count(*) FROM trigger_idem.runs;
EOSQL
	"0\n\nf\nt\n1", 'and not made of it');
is(as('postgres', q[SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolsuper]), 'postgres', 'and still nobody has become a superuser');
# to drop and make again what is not hers
like(planted('mallory', 'DROP EXTENSION trigger_idem'), qr/42501/, 'the owner of the database does not own the extension');
like(planted('mallory', "SELECT trigger_idem.access_grant('mallory', 'admin')"), qr/42501/, 'nor has access to it');

$node->stop;
done_testing();
