# A worker is silent: its process is stopped, or busy in one long statement.
#
# Promised:
#
# - a stopped worker keeps its run until its lease is over, and longer if nobody
#   takes it
# - whoever takes it over is not hindered by what the stopped one has open
# - when the stopped one goes on, its next COMMIT fails and leaves nothing of
#   that transaction behind; its work() goes on with other runs, without error
# - a worker in one long statement is alive and keeps its run for as long as it
#   takes, at every isolation level

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main');
create_deliveries($node);
$node->safe_psql('postgres', <<'EOSQL');
SELECT trigger_idem.task_create(name, name::regproc, min_backoff => '0', lease_duration => '1 second')
FROM unnest(ARRAY['deliver_function', 'deliver_procedure']) AS name
EOSQL

# A process that is still stopped when the test dies would outlive it.
my $stopped;
END { kill 'CONT', $stopped if defined $stopped; }

sub stop_process
{
	($stopped) = @_;
	kill 'STOP', $stopped;
	return;
}

sub continue_process
{
	kill 'CONT', $stopped;
	$stopped = undef;
	return;
}

sub trigger
{
	my ($task, $place) = @_;

	return $node->safe_psql('postgres',
		qq[SELECT run_id FROM trigger_idem.trigger_task('$task', '{"stop_at": "$place"}')]);
}

# Where a worker is stopped; which attempt each effect is from in the end, and
# how often each of the two steps has called outside.
my @cases = (
	{
		task => 'deliver_procedure',
		place => 'step',
		effects => "ship|2\ncharge|2\nbook|2",
		calls => '1 2'
	},
	{
		task => 'deliver_procedure',
		place => 'committed',
		effects => "ship|2\ncharge|1\nbook|2",
		calls => '1 2'
	},
	{
		task => 'deliver_procedure',
		place => 'end',
		effects => "ship|1\ncharge|1\nbook|2",
		calls => '1 1'
	},
	{
		task => 'deliver_function',
		place => 'charged',
		effects => "ship|2\ncharge|2\nbook|2",
		calls => '2 2'
	});

foreach my $case (@cases)
{
	my $what = "$case->{task} stopped at $case->{place}";
	my %calls_before = outside_calls($node);
	my $run_id = trigger($case->{task}, $case->{place});
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'stopped');

	stop_process(wait_at_gate($node, 'stopped'));
	ok($node->poll_query_until('postgres', 'CALL trigger_idem.work()', '1'),
		"$what: the run is taken over");
	is(attempts_of($node, $run_id), 'crashed 57P02, completed', "$what: attempts");
	my $next_id = trigger($case->{task}, 'nowhere');

	open_gate($gate);
	continue_process();
	is(finish_work($work), '2', "$what: its worker goes on with the next run");
	is( $node->safe_psql(
			'postgres', "SELECT attempt, status FROM trigger_idem.runs WHERE run_id = '$next_id'"),
		'1|completed',
		"$what: and completes that");

	is( attempts_of($node, $run_id),
		'crashed 57P02, completed',
		"$what: attempts of the first run are as they were");
	is( $node->safe_psql(
			'postgres',
			"SELECT what, attempt FROM effect WHERE run_id = '$run_id' ORDER BY what DESC"),
		$case->{effects},
		"$what: effects and the attempt that each is from");

	my $keys = $node->safe_psql('postgres',
		"SELECT idempotency_key FROM trigger_idem.steps WHERE run_id = '$run_id'");
	my %calls = outside_calls($node);
	is( join(' ', sort map { $calls{$_} } split /\n/, $keys),
		$case->{calls},
		"$what: calls outside by key");
}

# ---------- A lease that ran out and was not taken ----------

{
	my $run_id = trigger('deliver_procedure', 'committed');
	my $gate = close_gate($node, 1);
	my $work = start_work($node, 'stopped');

	stop_process(wait_at_gate($node, 'stopped'));
	my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	ok( $node->poll_query_until(
			'postgres', "SELECT clock_timestamp() > '$now'::timestamptz + interval '1.5 seconds'"),
		'the lease is over');
	open_gate($gate);
	continue_process();
	is(finish_work($work), '1', 'nobody took the run: its worker ends as usual');
	is(attempts_of($node, $run_id), 'completed', 'in its first attempt');
}

# ---------- What a stopped worker has in hand ----------

{
	my $gate = close_gate($node, 1);
	my $run_id = trigger('deliver_procedure', 'step');
	my $next_id = trigger('deliver_procedure', 'nowhere');
	my $work = start_work($node, 'stopped', before => 'SET trigger_idem.runs_per_commit = 2');

	# stopped within its first attempt, so that is what it has begun
	stop_process(wait_at_gate($node, 'stopped'));
	my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	ok( $node->poll_query_until(
			'postgres', "SELECT clock_timestamp() > '$now'::timestamptz + interval '1.5 seconds'"),
		'two in hand: the lease is over');
	is($node->safe_psql('postgres', 'CALL trigger_idem.work()'), '2', 'two in hand: both are taken over');
	is(attempts_of($node, $run_id), 'crashed 57P02, completed', 'two in hand: the first has crashed');
	is(attempts_of($node, $next_id), 'released, completed', 'two in hand: the second had not begun');
	open_gate($gate);
	continue_process();
	is(finish_work($work), '1', 'two in hand: their worker has lost both');
	is(attempts_of($node, $next_id), 'released, completed', 'two in hand: and begins no more');
}

# ---------- A long statement ----------

{
	my $gate = close_gate($node, 1);
	my @busy;

	foreach my $task ('deliver_function', 'deliver_procedure')
	{
		foreach my $level ('read committed', 'repeatable read', 'serializable')
		{
			my $what = "$task in a long statement, $level";
			my $run_id = trigger($task, 'end');
			my $work = start_work($node, "busy_" . scalar @busy,
				before => "SET default_transaction_isolation = '$level'");

			wait_at_gate($node, $work->{name});
			push @busy, { what => $what, run_id => $run_id, work => $work };
		}
	}

	# Sessions that look for work find none, until three leases and more are over.
	ok( $node->poll_query_until(
			'postgres',
			"CALL trigger_idem.work();
			 SELECT min(clock_timestamp() - started_at) > interval '3.5 seconds'
			 FROM trigger_idem.attempts WHERE status = 'executing'",
			"0\nt"),
		'in a long statement: nothing to do for others');
	is(attempts_of($node, $_->{run_id}), 'executing', "$_->{what}: not taken over")
	  foreach @busy;
	open_gate($gate);
	foreach my $busy (@busy)
	{
		is(finish_work($busy->{work}), '1', "$busy->{what}: work() ends as usual");
		is(attempts_of($node, $busy->{run_id}), 'completed', "$busy->{what}: attempts");
	}
}

is($node->safe_psql('postgres', 'SELECT count(*) FROM effects_amiss'),
	'0', 'every effect exactly once');

$node->stop;
done_testing();
