# A run whose worker dies every time.
#
# Promised: it ends as crashed after max_attempts, with an error that says so;
# its key is released; other runs are not held up.  Attempts that fail and
# attempts that die count together, and the last one decides the final status.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main', 'restart_after_crash = on');

# The payload says how each attempt ends: {"ends": ["kill", "fail"]}
$node->safe_psql('postgres', <<'EOSQL');
CREATE FUNCTION end_badly(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CASE payload -> 'ends' ->> trigger_idem.current_attempt() - 1
		WHEN 'kill' THEN COPY (SELECT) TO PROGRAM 'kill -9 $PPID';
		WHEN 'terminate' THEN PERFORM pg_terminate_backend(pg_backend_pid());
		WHEN 'fail' THEN RAISE 'failed on purpose';
		ELSE RETURN 'well';
	END CASE;
	RETURN 'not reached';
END $$;
SELECT trigger_idem.task_create('end_badly', 'end_badly', min_backoff => '0');
EOSQL

# Let workers die as often as the run makes them, then work what is left.
sub work_it_off
{
	foreach my $end (@_)
	{
		my $log_offset = -s $node->logfile;

		is(finish_work(start_work($node, 'worker')), 'connection lost', "worker dies: $end");
		if ($end eq 'kill')
		{
			wait_for_restart($node, $log_offset);
		}
		else
		{
			wait_until_gone($node, 'worker');
		}
	}
	$node->safe_psql('postgres', 'CALL trigger_idem.work()');
	return;
}

sub trigger
{
	my ($max_attempts, @ends) = @_;
	my $ends = join ', ', map { qq["$_"] } @ends;

	return $node->safe_psql(
		'postgres', qq[
		SELECT run_id FROM trigger_idem.trigger_task('end_badly', '{"ends": [$ends]}',
			idempotency_key => 'k', max_attempts => $max_attempts)]);
}

sub check
{
	my ($run_id, $attempts, $run, $what) = @_;

	is(attempts_of($node, $run_id), $attempts, "$what: attempts");
	is( $node->safe_psql(
			'postgres',
			"SELECT status, attempt, output, error ->> 'code', finished_at IS NOT NULL
			 FROM trigger_idem.runs WHERE run_id = '$run_id'"),
		$run,
		"$what: run");
	return;
}

my $run_id = trigger(2, 'kill', 'kill');
work_it_off('kill', 'kill');
check($run_id, 'crashed 57P02, crashed 57P02', 'crashed|2||57P02|t', 'killed each time');
is( $node->safe_psql('postgres', 'SELECT count(*) FROM trigger_idem.idempotency_keys'),
	'0', 'its key is released');

# The key is free, so this is a new run; as are those that follow.
my $previous_id = $run_id;
$run_id = trigger(3, ('terminate') x 3);
isnt($run_id, $previous_id, 'a trigger with the key makes a new run');
my $other_id = $node->safe_psql('postgres',
	"SELECT run_id FROM trigger_idem.trigger_task('end_badly', '{}')");
work_it_off(('terminate') x 3);
check(
	$run_id,
	'crashed 57P02, crashed 57P02, crashed 57P02',
	'crashed|3||57P02|t',
	'terminated each time');
check($other_id, 'completed', 'completed|1|"well"||t', 'another run behind it');

$run_id = trigger(3, 'fail', 'terminate', 'fail');
work_it_off('terminate');
check(
	$run_id,
	'failed P0001, crashed 57P02, failed P0001',
	'failed|3||P0001|t',
	'failed last');

$run_id = trigger(2, 'fail', 'terminate');
work_it_off('terminate');
check($run_id, 'failed P0001, crashed 57P02', 'crashed|2||57P02|t', 'terminated last');

$run_id = trigger(3, 'terminate', 'fail');
work_it_off('terminate');
check(
	$run_id,
	'crashed 57P02, failed P0001, completed',
	'completed|3|"well"||t',
	'well in the last attempt');

$node->stop;
done_testing();
