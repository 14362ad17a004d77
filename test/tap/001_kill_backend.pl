# The backend of a worker is killed with kill -9, at every place that matters.
#
# The server recovers by itself, and the next work() takes the run over at once,
# although its lease of an hour is not over.  Promised then:
#
# - every effect in the database is there exactly once
# - a step that was committed is not repeated
# - a step that was not is repeated, with the same key, so that an outside
#   service can recognise it: outside is called at least once
# - the attempt that died is recorded as crashed, the next one completes the run

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main', 'restart_after_crash = on');
create_deliveries($node);

# Kill the worker of one delivery at a place, work again, and compare what was
# done in which attempt.
sub kill_at
{
	my ($task, $place, %expected) = @_;
	my $what = "$task killed at $place";
	my %calls_before = outside_calls($node);

	my $run_id = $node->safe_psql('postgres',
		qq[SELECT run_id FROM trigger_idem.trigger_task('$task', '{"stop_at": "$place"}')]);
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'victim');
	my $pid = wait_at_gate($node, 'victim');

	my $log_offset = -s $node->logfile;
	kill 'KILL', $pid;
	is(finish_work($work), 'connection lost', "$what: connection lost");
	wait_for_restart($node, $log_offset);
	open_gate($gate);

	is($node->safe_psql('postgres', 'CALL trigger_idem.work()'),
		'1', "$what: run is taken over at once");
	is(attempts_of($node, $run_id), 'crashed 57P02, completed', "$what: attempts");
	is( $node->safe_psql(
			'postgres', "SELECT status, attempt FROM trigger_idem.runs WHERE run_id = '$run_id'"),
		'completed|2',
		"$what: run");
	is( $node->safe_psql(
			'postgres',
			"SELECT what, attempt FROM effect WHERE run_id = '$run_id' ORDER BY what DESC"),
		$expected{effects},
		"$what: effects and the attempt that each is from");
	is( $node->safe_psql(
			'postgres',
			"SELECT key, attempt FROM trigger_idem.steps WHERE run_id = '$run_id' ORDER BY key DESC"),
		$expected{steps},
		"$what: steps and the attempt that each is from");

	my %calls = outside_calls($node);
	delete @calls{ keys %calls_before };
	is(join(' ', sort values %calls), $expected{calls}, "$what: calls outside by key");
	my $keys = join "\n", sort keys %calls;
	is( $node->safe_psql(
			'postgres',
			"SELECT idempotency_key FROM trigger_idem.steps WHERE run_id = '$run_id' ORDER BY 1"),
		$keys,
		"$what: outside saw the keys of the steps and no others");
	return;
}

# A procedure: what is committed stays.
kill_at(
	'deliver_procedure', 'step',
	effects => "ship|2\ncharge|2\nbook|2",
	steps => "ship|2\ncharge|2",
	calls => '1 2');
kill_at(
	'deliver_procedure', 'charged',
	effects => "ship|2\ncharge|2\nbook|2",
	steps => "ship|2\ncharge|2",
	calls => '1 2');
kill_at(
	'deliver_procedure', 'committed',
	effects => "ship|2\ncharge|1\nbook|2",
	steps => "ship|2\ncharge|1",
	calls => '1 1');
kill_at(
	'deliver_procedure', 'end',
	effects => "ship|1\ncharge|1\nbook|2",
	steps => "ship|1\ncharge|1",
	calls => '1 1');

kill_at(
	'deliver_procedure', 'completion',
	effects => "ship|1\ncharge|1\nbook|2",
	steps => "ship|1\ncharge|1",
	calls => '1 1');

# A function: all or nothing.
kill_at(
	'deliver_function', 'step',
	effects => "ship|2\ncharge|2\nbook|2",
	steps => "ship|2\ncharge|2",
	calls => '1 2');
kill_at(
	'deliver_function', 'end',
	effects => "ship|2\ncharge|2\nbook|2",
	steps => "ship|2\ncharge|2",
	calls => '2 2');
kill_at(
	'deliver_function', 'completion',
	effects => "ship|2\ncharge|2\nbook|2",
	steps => "ship|2\ncharge|2",
	calls => '2 2');

is($node->safe_psql('postgres', 'SELECT count(*) FROM effects_amiss'),
	'0', 'every effect exactly once');

$node->stop;
done_testing();
