# Progress across sessions: seen before the handler commits, kept over an attempt, and
# gone with the run.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use TriggerIdem;

my $handlers = <<'EOSQL';
-- a function has one transaction; it stops at gate 1
CREATE FUNCTION one() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_progress(0.5, 'half');
	PERFORM pg_advisory_lock_shared(1);
	PERFORM pg_advisory_unlock_shared(1);
END $$;
-- a procedure stops twice: before and after it has committed, and tells no more
CREATE PROCEDURE two() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_progress(0.25, 'a quarter');
	PERFORM pg_advisory_lock_shared(1);
	PERFORM pg_advisory_unlock_shared(1);
	COMMIT;
	PERFORM pg_advisory_lock_shared(2);
	PERFORM pg_advisory_unlock_shared(2);
END $$;
SELECT trigger_idem.task_create('one', 'one'), trigger_idem.task_create('two', 'two', min_backoff => '0');
EOSQL

sub told
{
	my ($node, $task) = @_;

	return $node->safe_psql('postgres',
		"SELECT p.fraction, p.message FROM trigger_idem.runs r, trigger_idem.run_progress_of(r.run_id) p"
		  . " WHERE task_id = '$task' ORDER BY r.run_id DESC LIMIT 1");
}

# What the table has, which is what was committed
sub written
{
	my ($node, $task) = @_;

	return $node->safe_psql('postgres',
		"SELECT progress, progress_message FROM trigger_idem.queue_entry WHERE task_id = '$task'");
}

# ---------- Sessions, without preloading ----------

my $node = new_server('plain');
$node->safe_psql('postgres', $handlers);
my $gate1 = close_gate($node, 1);
my $gate2 = close_gate($node, 2);
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('one')");
my $worker = start_work($node, 'worker');
wait_at_gate($node, 'worker');
is(told($node, 'one'), '0.5|half', 'a function: seen before it commits');
is(written($node, 'one'), '|', 'and not written');
open_gate($gate1);
is(finish_work($worker), '1', 'it completes');
is(told($node, 'one'), '|', 'a run that is final has none');

$gate1 = close_gate($node, 1);
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('two')");
$worker = start_work($node, 'worker');
wait_at_gate($node, 'worker');
is(told($node, 'two'), '0.25|a quarter', 'a procedure: seen before it commits');
open_gate($gate1);
$node->poll_query_until('postgres', "SELECT progress = 0.25 FROM trigger_idem.queue_entry")
  or die 'the commit does not write it';
my $pid = wait_at_gate($node, 'worker');
is(written($node, 'two'), '0.25|a quarter', 'its commit writes it');

# the session dies, and what it had committed is still known
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
finish_work($worker);
wait_until_gone($node, 'worker');
is(told($node, 'two'), '0.25|a quarter', 'it outlives the session');
open_gate($gate2);
is($node->safe_psql('postgres', 'CALL trigger_idem.work()'), '1', 'the next attempt completes');
is(told($node, 'two'), '|', 'and there is none left');
$node->stop;

# ---------- Background workers, with preloading ----------

$node = new_server('preloaded',
	"shared_preload_libraries = 'trigger_idem'\ntrigger_idem.databases = 'postgres'");
$node->safe_psql('postgres', $handlers);
$gate1 = close_gate($node, 1);
$node->safe_psql('postgres', "SELECT trigger_idem.trigger_task('one')");
ok( $node->poll_query_until('postgres',
		"SELECT p.fraction = 0.5 AND p.message = 'half' FROM trigger_idem.runs r, trigger_idem.run_progress_of(r.run_id) p"),
	'a background worker: seen before it commits');
is(written($node, 'one'), '|', 'and not written');
open_gate($gate1);
ok($node->poll_query_until('postgres', "SELECT status = 'completed' FROM trigger_idem.runs"), 'it completes');
unlike(slurp_file($node->logfile), qr/XX000|TRAP/, 'no internal error');
$node->stop;

done_testing();
