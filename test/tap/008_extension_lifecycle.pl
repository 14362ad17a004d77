# DROP EXTENSION and CREATE EXTENSION under sessions that use it, and handlers
# that pull the rug from under their own run.
#
# Promised:
#
# - sessions with plans and OIDs in their caches notice, and go on with the new
#   extension
# - a handler that drops the extension fails, and nothing is lost
# - who drops the extension waits for transactions that use it, such as that of a
#   function handler; a worker whose extension was dropped then, or between two
#   transactions of a procedure handler, ends with a clear error, and goes on if
#   it was created anew
# - a handler that drops its own task completes its run

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main');

my $handlers = <<'EOSQL';
CREATE TABLE effect (what text, attempt int);
CREATE FUNCTION add_effect(idempotency_key text, args jsonb) RETURNS text LANGUAGE sql AS
	$$ INSERT INTO effect VALUES (args #>> '{}', trigger_idem.current_attempt()) RETURNING what $$;
CREATE PROCEDURE handle() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('step', 'add_effect', '"step"');
	COMMIT;
	PERFORM trigger_idem.run_once('step', 'add_effect', '"again"');
END $$;
EOSQL
$node->safe_psql('postgres', $handlers);

# Everything that keeps something for the session
my $use = <<'EOSQL';
SELECT trigger_idem.task_create('used', 'handle', idempotency_group => 'g');
SELECT t.is_cached, t.status
FROM generate_series(1, 2) i, LATERAL trigger_idem.trigger_task('used', to_jsonb(i), 'k') t;
SELECT trigger_idem.run_once_sql('global step', 'SELECT 1', scope => 'global');
CALL trigger_idem.work();
SELECT task_id, status, attempt FROM trigger_idem.runs;
SELECT step, output FROM trigger_idem.steps ORDER BY 1;
DELETE FROM effect RETURNING *;
EOSQL
my $used = <<'EOSQL';

f|queued
t|queued
1
1
used|completed|1
{"global step"}|1
{step}|"step"
step|1
EOSQL
chomp $used;
my $hit = "SELECT is_cached, status FROM trigger_idem.trigger_task('used', idempotency_key => 'k')";

# ---------- Sessions ----------

my $one = open_session($node);
my $two = open_session($node);
is($one->query_safe($use), $used, 'a session uses the extension');
$one->query_safe('DROP EXTENSION trigger_idem');
$one->query_safe('CREATE EXTENSION trigger_idem');
is($one->query_safe($use), $used, 'it uses the one that it has created anew');

$one->query_safe('DROP EXTENSION trigger_idem; CREATE EXTENSION trigger_idem');
is($two->query_safe($use), $used, 'another session uses it');
$one->query_safe('DROP EXTENSION trigger_idem');
$one->query_safe('CREATE EXTENSION trigger_idem');
is($two->query_safe($use), $used, 'and the one that was created anew by the first');
is($one->query_safe($hit), 't|completed', 'the first session sees what the other one did');

# in a transaction that is rolled back
$two->query_safe('BEGIN; DROP EXTENSION trigger_idem; CREATE EXTENSION trigger_idem; ROLLBACK');
is($two->query_safe($hit), 't|completed', 'a drop that is rolled back has no effect');
$two->query_safe('BEGIN; DROP EXTENSION trigger_idem; CREATE EXTENSION trigger_idem');
$two->query_safe($use =~ s/CALL.*//sr);
$two->query_safe('ROLLBACK');
is($two->query_safe($hit), 't|completed', 'nor has one after which it was used');
$one->quit;
$two->quit;

# ---------- Handlers ----------

# The payload says what to do in the first attempt.
$node->safe_psql('postgres', <<'EOSQL');
CREATE FUNCTION execute_function(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('before', 'add_effect', '"before"');
	IF trigger_idem.current_attempt() = 1 THEN
		EXECUTE payload #>> '{}';
	END IF;
	INSERT INTO effect VALUES ('after', trigger_idem.current_attempt());
	RETURN 'executed';
END $$;
CREATE PROCEDURE execute_procedure(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('before', 'add_effect', '"before"');
	COMMIT;
	IF trigger_idem.current_attempt() = 1 THEN
		EXECUTE payload #>> '{}';
	END IF;
	COMMIT;
	INSERT INTO effect VALUES ('after', trigger_idem.current_attempt());
END $$;
EOSQL

sub create_tasks
{
	$node->safe_psql('postgres', <<'EOSQL');
DELETE FROM effect;
SELECT trigger_idem.task_create(handler, handler::regproc, min_backoff => '0')
FROM unnest(ARRAY['execute_function', 'execute_procedure']) AS handler
EOSQL
	return;
}

sub trigger
{
	my ($task, $command) = @_;

	return $node->safe_psql('postgres',
		"SELECT run_id FROM trigger_idem.trigger_task('$task', to_jsonb(\$\$$command\$\$::text))");
}

sub effects
{
	return $node->safe_psql('postgres', 'SELECT what, attempt FROM effect ORDER BY what DESC');
}

# Where the step before the command is from in the end
my %step_from = (execute_function => 2, execute_procedure => 1);

create_tasks();
foreach my $task (sort keys %step_from)
{
	foreach my $command (
		'DROP EXTENSION trigger_idem CASCADE',
		'DROP EXTENSION trigger_idem; CREATE EXTENSION trigger_idem',
		'DROP SCHEMA trigger_idem CASCADE')
	{
		my $what = "$task: $command";
		my $run_id = trigger($task, $command);

		is($node->safe_psql('postgres', 'CALL trigger_idem.work()'), '2', "$what: work() goes on");
		like(attempts_of($node, $run_id), qr/^failed \w{5}, completed$/, "$what: attempts");
		is(effects(), "before|$step_from{$task}\nafter|2", "$what: effects");
		create_tasks();
	}

	my $what = "$task drops its task";
	my $run_id = trigger($task, qq[SELECT trigger_idem.task_drop('$task')]);
	is($node->safe_psql('postgres', 'CALL trigger_idem.work()'), '1', "$what: work()");
	is(attempts_of($node, $run_id), 'completed', "$what: attempts");
	is(effects(), "before|1\nafter|1", "$what: effects");
	create_tasks();

	$what = "$task drops its handler";
	$run_id = trigger($task, 'DROP ROUTINE ' . $task);
	my $definition =
	  $node->safe_psql('postgres', "SELECT pg_get_functiondef('$task'::regproc)");
	is($node->safe_psql('postgres', 'CALL trigger_idem.work()'), '1', "$what: work()");
	is(attempts_of($node, $run_id), 'completed', "$what: attempts");
	$node->safe_psql('postgres', $definition);
	create_tasks();
}

# ---------- Somebody else ----------

my $wait = 'SELECT pg_advisory_xact_lock_shared(1)';
my $create = 'CREATE EXTENSION trigger_idem';
my $drop = 'DROP EXTENSION trigger_idem CASCADE';
my ($gate, $work, $run_id);

# A function handler holds the extension until it has ended.
foreach my $command ($drop, "BEGIN; $drop; $create; COMMIT")
{
	my $what = "function executing, another session: $command";

	$gate = close_gate($node, 1);
	trigger('execute_function', $wait);
	$work = start_work($node, 'worker');
	wait_at_gate($node, 'worker');
	my $dropping = start_sql($node, 'dropping', $command);
	wait_for_lock($node, 'dropping', 'object');
	# so long that it looks for dead workers before it claims again
	$node->poll_query_until('postgres',
		"SELECT clock_timestamp() - query_start > '1.2 s' FROM pg_stat_activity WHERE application_name = 'worker'")
	  or die 'the worker is gone';

	open_gate($gate);
	is(finish_sql($dropping), '', "$what: waits, then succeeds");
	is(finish_work($work), $command eq $drop ? '55000' : '1', "$what: work()");
	is(effects(), "before|1\nafter|1", "$what: effects");
	$node->safe_psql('postgres', $create) if $command eq $drop;
	create_tasks();
}

# A procedure handler has let it go by its COMMIT.
$gate = close_gate($node, 1);
trigger('execute_procedure', $wait);
$work = start_work($node, 'worker');
wait_at_gate($node, 'worker');
$node->safe_psql('postgres', $drop);
open_gate($gate);
is(finish_work($work), '55000', 'procedure executing, extension dropped: work() ends with 55000');
is(effects(), 'before|1', 'procedure executing, extension dropped: what was committed stays');
$node->safe_psql('postgres', $create);
create_tasks();

$gate = close_gate($node, 1);
trigger('execute_procedure', $wait);
$work = start_work($node, 'worker');
wait_at_gate($node, 'worker');
$node->safe_psql('postgres', "$drop; $create");
create_tasks();
$run_id = trigger('execute_procedure', 'SELECT 1');
open_gate($gate);
is(finish_work($work), '2', 'procedure executing, extension created anew: work() goes on');
is(attempts_of($node, $run_id),
	'completed', 'procedure executing, extension created anew: with the new run');
is(effects(), "before|1\nafter|1",
	'procedure executing, extension created anew: effects are those of the new run');

$node->stop;
done_testing();
