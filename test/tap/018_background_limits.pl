# Background workers where there is too much of something.
#
# Promised: what finds no room waits until there is some, and nothing is lost
#
# - processes: max_worker_processes, slots of ours
# - databases that are served and counted, roles that need a worker, sessions that wait
# - time: a process that takes so long to begin that its slot was given to another
#
# These numbers are in background_shared.h.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $preload = "shared_preload_libraries = 'trigger_idem'\n";
my $handlers = <<'EOSQL';
CREATE EXTENSION IF NOT EXISTS trigger_idem;
CREATE TABLE effect (n int);
GRANT INSERT ON effect TO PUBLIC;
CREATE FUNCTION effect(payload jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO effect VALUES (($1->>''n'')::int)';
CREATE FUNCTION stops(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(1)';
SELECT trigger_idem.task_create('effect', 'effect', queue => 'effect'), trigger_idem.task_create('stops', 'stops');
EOSQL

sub trigger
{
	my ($node, $dbname, $task, $n) = @_;

	$node->safe_psql($dbname, "SELECT trigger_idem.trigger_task('$task', '{\"n\": $n}')");
	return;
}

sub completed
{
	my ($node, $dbname, $runs, $what) = @_;

	ok($node->poll_query_until($dbname, "SELECT count(*) = $runs FROM trigger_idem.runs WHERE status = 'completed'"), $what);
	return;
}

sub configure
{
	my ($node, $line) = @_;

	$node->append_conf('postgresql.conf', $line);
	reload_settings($node);
	return;
}

# Processes that begin wait for the table of their settings while a session has locked it.
my $lock_beginners = 'BEGIN; LOCK TABLE pg_catalog.pg_db_role_setting';
my $beginners = "pg_catalog.pg_locks WHERE NOT granted AND relation = 'pg_catalog.pg_db_role_setting'::regclass";

# ---------- Processes that are late, first half ----------

my $late = new_server('late', <<"EOCONF");
$preload
trigger_idem.databases = 'postgres, before'
trigger_idem.poll_interval = '1h'
max_worker_processes = 20
log_min_messages = debug1
autovacuum = off
EOCONF
$late->safe_psql('postgres', $handlers);
$late->safe_psql('postgres', "CREATE ROLE $_ LOGIN; GRANT USAGE ON SCHEMA trigger_idem TO $_; SELECT trigger_idem.task_create('of_$_', 'effect', run_as => '$_')")
  foreach 'one', 'two', 'three';
$late->safe_psql('postgres', 'CREATE DATABASE before TEMPLATE postgres');
$late->safe_psql('postgres', 'SELECT pg_reload_conf()');
$late->safe_psql('before', "SELECT trigger_idem.trigger_task('effect', '{\"n\": 0}')");
completed($late, 'before', 1, 'a database that will be renamed is served');
$late->append_conf('postgresql.conf', "trigger_idem.worker_idle_time = '0'");
reload_settings($late);
$late->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'trigger_idem worker')")
  or die 'idle workers do not end';
my $renamed_session = open_session($late, 'before');
my $late_offset = -s $late->logfile;
my $late_locking = open_session($late);
my $late_session = open_session($late);
$late_locking->query_safe($lock_beginners);

# one has its slot, but cannot go on; three others are not even started
$late_session->query_safe("SELECT trigger_idem.trigger_task('of_one', '{\"n\": 1}')");
poll_session($late_session, "SELECT count(*) = 1 FROM $beginners");
my $postmaster = $late->{_pid};
END { kill 'CONT', $postmaster if defined $postmaster; }
kill 'STOP', $postmaster;
$late_session->query_safe("SELECT trigger_idem.trigger_task('of_two', '{\"n\": 2}')");
$late_session->query_safe("SELECT trigger_idem.trigger_task('of_three', '{\"n\": 3}')");
$renamed_session->query_safe("SELECT trigger_idem.trigger_task('effect', '{\"n\": 4}')");
$renamed_session->quit;
$late->wait_for_log(qr/(?:starting trigger_idem worker\b.*){4}/s, $late_offset);
my $late_since = $late_session->query_safe('SELECT clock_timestamp()');

# ---------- Too few processes ----------

# two are the launchers, ours and that of logical replication
my $few = new_server('few', <<"EOCONF");
$preload
trigger_idem.databases = 'postgres'
trigger_idem.poll_interval = '200ms'
trigger_idem.worker_idle_time = '0'
max_worker_processes = 3
EOCONF
$few->safe_psql('postgres', $handlers);
$few->safe_psql('postgres', "CREATE ROLE one LOGIN; GRANT USAGE ON SCHEMA trigger_idem TO one; SELECT trigger_idem.task_create('of_one', 'effect', run_as => 'one')");
my $gate = close_gate($few, 1);
trigger($few, 'postgres', 'stops', 1);
$few->poll_query_until('postgres', "SELECT count(*) = 1 FROM trigger_idem.runs WHERE status = 'executing'") or die 'it does not execute';
trigger($few, 'postgres', 'of_one', 2);
ok($few->wait_for_log(qr/trigger_idem could not start a background worker.*Raise max_worker_processes/s), 'the log tells what to do');
open_gate($gate);
completed($few, 'postgres', 2, 'max_worker_processes: work waits for a process');
$few->stop;

# ---------- Too many roles ----------

my $many = new_server('many', <<"EOCONF");
$preload
trigger_idem.databases = 'postgres'
trigger_idem.poll_interval = '200ms'
trigger_idem.worker_idle_time = '0'
trigger_idem.max_workers = 0
max_worker_processes = 80
max_connections = 400
EOCONF
$many->safe_psql('postgres', $handlers);
$many->safe_psql('postgres', 'CREATE DATABASE other TEMPLATE postgres');
$many->safe_psql('postgres', <<'EOSQL');
DO $$
BEGIN
	FOR i IN 1 .. 260 LOOP
		EXECUTE format('CREATE ROLE r%s LOGIN', i);
		PERFORM trigger_idem.task_create('of_r' || i, 'effect', run_as => ('r' || i)::regrole);
		PERFORM trigger_idem.trigger_task('of_r' || i, jsonb_build_object('n', i));
	END LOOP;
END $$;
EOSQL
is($many->safe_psql('postgres', "SELECT count(*) FROM trigger_idem.runs WHERE status = 'queued'"), '260', 'more roles than can be remembered');
# they are forgotten when their database is not served: the other one finds room
configure($many, "trigger_idem.databases = 'other'\ntrigger_idem.max_workers = 8");
trigger($many, 'other', 'effect', 1);
completed($many, 'other', 1, 'another database has its turn');
configure($many, "trigger_idem.max_workers_per_database = 8\ntrigger_idem.databases = 'postgres'");
completed($many, 'postgres', 260, 'and then all of them');
is($many->safe_psql('postgres', 'SELECT count(*), count(DISTINCT n) FROM effect'), '260|260', 'once each');

# ---------- Too many runs that a scan has to pass by ----------

configure($many, "trigger_idem.databases = 'other'");
trigger($many, 'other', 'effect', 2);
completed($many, 'other', 2, 'nobody is woken');
$many->safe_psql('postgres', <<'EOSQL');
SELECT trigger_idem.task_create('outside', queue => 'a long queue');
SELECT count(trigger_idem.trigger_task('outside')) FROM generate_series(1, 100000);
SELECT trigger_idem.trigger_task('of_r1', '{"n": 0}', queue => 'a long queue');
SELECT trigger_idem.trigger_task('effect', '{"n": 0}', queue => 'the next queue');
EOSQL
configure($many, "trigger_idem.databases = 'postgres'");
completed($many, 'postgres', 261, 'a scan goes on to the next queue');
my $last = "FROM trigger_idem.runs WHERE queue = 'a long queue' AND task_id = 'of_r1'";
is($many->safe_psql('postgres', "SELECT status $last"), 'queued', 'and does not come to the end of a long one');
$many->safe_psql('postgres', "SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE task_id = 'outside' ORDER BY run_id LIMIT 1");
completed($many, 'postgres', 262, 'until that is shorter');
$many->safe_psql('postgres', "TRUNCATE trigger_idem.queue_entry; DELETE FROM trigger_idem.run WHERE task_id = 'outside'");

# ---------- Too many sessions that wait ----------

$many->safe_psql('postgres', 'CREATE EXTENSION dblink');
my $token = $many->safe_psql('postgres', 'SELECT token FROM trigger_idem.wait_token_create()');
my $connstr = $many->connstr('postgres');
my $waiting = open_session($many);
$waiting->query_safe("SELECT dblink_connect('c' || i, \$\$$connstr application_name=waiting\$\$), dblink_send_query('c' || i, 'SELECT ok FROM trigger_idem.wait_for_token(''$token'')') FROM generate_series(1, 260) i");
$many->poll_query_until('postgres', "SELECT count(*) = 260 FROM pg_stat_activity WHERE application_name = 'waiting' AND wait_event = 'Extension'")
  or die 'they do not wait';
$many->safe_psql('postgres', "SELECT trigger_idem.wait_token_complete('$token')");
is($waiting->query_safe("SELECT count(*) FROM generate_series(1, 260) i, LATERAL dblink_get_result('c' || i) AS r(ok boolean) WHERE ok"), '260', 'all sessions are told');
$waiting->quit;

# ---------- Too many databases ----------

$many->safe_psql('postgres', 'CREATE DATABASE template TEMPLATE template0');
$many->safe_psql('template', $handlers);
$many->safe_psql('postgres', join ';', map { "CREATE DATABASE d$_ TEMPLATE template" } 1 .. 66);
# an unfinished DROP DATABASE leaves such a one
$many->safe_psql('postgres', "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'template'");
configure($many, "trigger_idem.databases = '*'");
# these have the counters
$many->safe_psql("d$_", 'SELECT trigger_idem.trigger_task(task_id) FROM trigger_idem.tasks LIMIT 0; SELECT count(*) FROM trigger_idem.stats()') foreach 1 .. 64;
trigger($many, "d$_", 'effect', 1) foreach 65, 66;
is($many->safe_psql('d66', "SELECT value IS NULL FROM trigger_idem.stats() WHERE name = 'hits'"), 't', 'too many databases: the last has no counters');

# all slots are taken by scans that have not begun
my $locking = open_session($many);
my $session = open_session($many);
$locking->query_safe($lock_beginners);
poll_session($session, "SELECT count(*) = 64 FROM $beginners");
$session->query_safe("SELECT trigger_idem.trigger_task('effect', '{\"n\": 0}')");
$locking->query_safe('COMMIT');
completed($many, 'postgres', 263, 'too many processes of ours: work waits for a slot');
$locking->quit;
$session->quit;

# the last two are served when it is their turn, and their workers are woken
configure($many, "trigger_idem.worker_idle_time = '1h'\ntrigger_idem.databases = 'd65, d66'");
foreach my $dbname ('d65', 'd66')
{
	completed($many, $dbname, 1, "$dbname is served in the end");
	trigger($many, $dbname, 'effect', 2);
	$many->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = '$dbname' AND backend_type = 'trigger_idem worker' AND state = 'idle'")
	  or die 'no idle worker';
	trigger($many, $dbname, 'effect', 3);
	completed($many, $dbname, 3, "$dbname: its worker is woken");
}
unlike(slurp_file($many->logfile), qr/XX000|TRAP|FATAL/, 'no error');
$many->stop;

# ---------- Processes that are late, second half ----------

# after half a minute their slots are free for others
poll_session($late_session, "SELECT clock_timestamp() > '$late_since'::timestamptz + '31 s'");
$late_session->query_safe('ALTER DATABASE before RENAME TO after');
pass('ALTER DATABASE .. RENAME before its worker begins');
$late_session->query_safe("SELECT trigger_idem.trigger_task('of_one', '{\"n\": 11}')");
$late_session->query_safe("SELECT trigger_idem.trigger_task('of_two', '{\"n\": 12}')");
# the launcher has given their slots to these
$late->wait_for_log(qr/(?:starting trigger_idem worker\b.*){6}/s, $late_offset);
my $log_offset = -s $late->logfile;
kill 'CONT', $postmaster;
$postmaster = undef;
# of the six processes, three find no slot that is theirs
$late->wait_for_log(qr/(?:"trigger_idem worker"[^\n]*exited with exit code 0\b.*){3}/s, $log_offset);
poll_session($late_session, "SELECT count(*) = 3 FROM $beginners");
$late_session->quit;
$late_locking->query_safe('COMMIT');
$late_locking->quit;
ok( $late->poll_query_until('postgres', "SELECT bool_and(status = 'completed') FROM trigger_idem.runs WHERE task_id IN ('of_one', 'of_two')"),
	'processes that are late: others do their work');
$late->safe_psql('postgres', "SELECT trigger_idem.queue_resume('anything')");
ok($late->poll_query_until('postgres', "SELECT bool_and(status = 'completed') FROM trigger_idem.runs"), 'the next scan finds what is left');
is($late->safe_psql('postgres', 'SELECT string_agg(n::text, \' \' ORDER BY n) FROM effect'), '1 2 3 11 12', 'once each');
unlike(slurp_file($late->logfile), qr/XX000|TRAP/, 'no internal error');
$late->stop;

done_testing();
