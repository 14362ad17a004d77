# A worker is ended or interrupted by the means of SQL.
#
# Promised:
#
# - pg_terminate_backend(): the run is taken over at once, whatever is left of
#   its lease, and whatever else is due
# - a fast shutdown: likewise, after the start
# - pg_cancel_backend() and statement_timeout: the attempt in hand fails with
#   57014 and is retried, work() ends with that error, what was committed stays
# - lock_timeout: an error like others, the attempt fails and work() goes on

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

# If a worker ends in disorder, let the tests that follow say so.
my $node = new_server('main', 'restart_after_crash = on');
create_deliveries($node);

# Trigger a delivery that stops at a place; returns its run id.
sub trigger
{
	my ($task, $place) = @_;

	return $node->safe_psql('postgres',
		qq[SELECT run_id FROM trigger_idem.trigger_task('$task', '{"stop_at": "$place"}')]);
}

sub status_of
{
	my ($run_id) = @_;

	return $node->safe_psql('postgres',
		"SELECT status, attempt FROM trigger_idem.runs WHERE run_id = '$run_id'");
}

sub effects_of
{
	my ($run_id) = @_;

	return $node->safe_psql('postgres',
		"SELECT what, attempt FROM effect WHERE run_id = '$run_id' ORDER BY what DESC");
}

# The backend is gone when this returns.
sub terminate
{
	my ($pid) = @_;

	is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)"),
		't', "worker is terminated");
	return;
}

# ---------- pg_terminate_backend ----------

foreach my $task ('deliver_function', 'deliver_procedure')
{
	my $run_id = trigger($task, 'end');
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'victim');
	my $pid = wait_at_gate($node, 'victim');

	is($node->safe_psql('postgres', 'CALL trigger_idem.work()'),
		'0', "$task: nothing to do while the worker lives");
	terminate($pid);
	is(finish_work($work), 'connection lost', "$task: its session is gone");
	is($node->safe_psql('postgres', 'CALL trigger_idem.work()'),
		'1', "$task: its run is taken over at once");
	is(attempts_of($node, $run_id), 'crashed 57P02, completed', "$task: attempts");
	open_gate($gate);
}

# Whatever else is due: the next worker takes the run away from the dead one
# even if it does not get that far itself.
{
	my $run_id = trigger('deliver_function', 'end');
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'victim');
	my $pid = wait_at_gate($node, 'victim');

	trigger('deliver_function', 'nowhere') for 1 .. 3;
	terminate($pid);
	finish_work($work);
	is($node->safe_psql('postgres', 'CALL trigger_idem.work(max_runs => 1)'),
		'1', 'other runs are due: one run is worked');
	like(attempts_of($node, $run_id), qr/^crashed 57P02/, 'and the dead worker has lost its run');
	$node->safe_psql('postgres', 'CALL trigger_idem.work()');
	is(status_of($run_id), 'completed|2', 'which is completed in the end');
	open_gate($gate);
}

# Whoever cancels its run before that has nobody to tell.
{
	my $run_id = trigger('deliver_function', 'end');
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'victim');

	terminate(wait_at_gate($node, 'victim'));
	finish_work($work);
	is($node->safe_psql('postgres', "SELECT trigger_idem.run_cancel('$run_id')"), 't', 'a run whose worker is gone is canceled');
	is(attempts_of($node, $run_id), 'canceled', 'and so is its attempt');
	is($node->safe_psql('postgres', "SELECT count(*) FROM effect WHERE run_id = '$run_id'"), '0', 'nothing of it is left');
	# it has no effects, as it should not
	$node->safe_psql('postgres', "DELETE FROM trigger_idem.run WHERE run_id = '$run_id'");
	open_gate($gate);
}

# The server survives the end of a worker that has much in its memory.
{
	$node->safe_psql('postgres', <<'EOSQL');
CREATE FUNCTION take_many_steps(payload jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	steps bigint := count(trigger_idem.run_once_sql('step ' || i, 'SELECT repeat($1, 10)'))
		FROM generate_series(1, 5000) i;
BEGIN
	PERFORM stop_at('end', payload);
	RETURN steps;
END $$;
SELECT trigger_idem.task_create('take_many_steps', 'take_many_steps');
EOSQL
	my $run_id = trigger('take_many_steps', 'end');
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'victim');
	my $log_offset = -s $node->logfile;

	kill 'TERM', wait_at_gate($node, 'victim');
	finish_work($work);
	wait_until_gone($node, 'victim');
	ok( slurp_file($node->logfile, $log_offset) !~ /was terminated by signal/,
		'many steps: the worker ends in good order');
	$node->safe_psql('postgres', 'CALL trigger_idem.work()');
	is( $node->safe_psql(
			'postgres', "SELECT attempt, output FROM trigger_idem.runs WHERE run_id = '$run_id'"),
		'2|5000',
		'many steps: its run is completed by another');
	open_gate($gate);
}

# Two sessions come to take it over: one of them gets it.
{
	my $run_id = trigger('deliver_procedure', 'committed');
	my $gate = close_gate($node, 1);
	my $gate_2 = close_gate($node, 2);
	my $work = start_work($node, 'victim');
	my $pid = wait_at_gate($node, 'victim');

	terminate($pid);
	finish_work($work);
	my @takers = map { start_work($node, 'taker') } 1 .. 2;
	wait_at_gate($node, 'taker');
	open_gate($gate_2);
	is(join(' ', sort map { finish_work($_) } @takers), '0 1', 'one of two takers gets the run');
	is(attempts_of($node, $run_id), 'crashed 57P02, completed', 'and executes it once');
	open_gate($gate);
}

# ---------- Fast shutdown ----------

{
	my $run_id = trigger('deliver_function', 'end');
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'victim');

	wait_at_gate($node, 'victim');
	$node->stop('fast');
	is(finish_work($work), 'connection lost', 'fast shutdown ends the worker');
	open_gate($gate);
	$node->start;
	is($node->safe_psql('postgres', 'CALL trigger_idem.work()'),
		'1', 'its run is taken over after the start');
	is(attempts_of($node, $run_id), 'crashed 57P02, completed', 'attempts after a fast shutdown');
}

# ---------- pg_cancel_backend ----------

my %effects_after_cancel = (
	deliver_function => "ship|2\ncharge|2\nbook|2",
	deliver_procedure => "ship|2\ncharge|1\nbook|2");

foreach my $task ('deliver_function', 'deliver_procedure')
{
	my $run_id = trigger($task, $task eq 'deliver_function' ? 'end' : 'committed');
	my $next_id = trigger($task, 'nowhere');
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'victim');
	my $pid = wait_at_gate($node, 'victim');

	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	is(finish_work($work), '57014', "$task canceled: work() ends with 57014");
	is(attempts_of($node, $run_id), 'failed 57014', "$task canceled: the attempt has failed");
	is(status_of($run_id), 'queued|1', "$task canceled: the run is to be retried");
	is(status_of($next_id), 'queued|0', "$task canceled: the next run was not begun");
	is($node->safe_psql('postgres', 'CALL trigger_idem.work()'),
		'2', "$task canceled: another session works both");
	is(attempts_of($node, $run_id), 'failed 57014, completed', "$task canceled: attempts");
	is(effects_of($run_id), $effects_after_cancel{$task}, "$task canceled: effects");
	open_gate($gate);
}

# ---------- Timeouts ----------

{
	my $run_id = trigger('deliver_procedure', 'committed');
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'victim', before => "SET statement_timeout = '1s'");

	is(finish_work($work), '57014', 'statement_timeout: work() ends with 57014');
	is(attempts_of($node, $run_id), 'failed 57014', 'statement_timeout: the attempt has failed');
	$node->safe_psql('postgres', 'CALL trigger_idem.work()');
	is(attempts_of($node, $run_id), 'failed 57014, completed', 'statement_timeout: attempts');
	is( effects_of($run_id),
		$effects_after_cancel{deliver_procedure},
		'statement_timeout: effects');
	open_gate($gate);
}
{
	my $run_id = trigger('deliver_procedure', 'committed');
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'victim', before => "SET lock_timeout = '10ms'");

	is(finish_work($work), '2', 'lock_timeout: work() goes on');
	is(attempts_of($node, $run_id), 'failed 55P03, completed', 'lock_timeout: attempts');
	is( effects_of($run_id),
		$effects_after_cancel{deliver_procedure},
		'lock_timeout: effects');
	open_gate($gate);
}

is($node->safe_psql('postgres', 'SELECT count(*) FROM effects_amiss'),
	'0', 'every effect exactly once');

$node->stop;
done_testing();
