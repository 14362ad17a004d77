# A run whose worker dies every time.
#
# Promised: it ends as crashed after max_attempts, with an error that says so;
# its key is released; other runs are not held up.  Attempts that fail and
# attempts that die count together, and the last one decides the final status.
#
# One that was claimed together with others does not draw them into that: theirs
# count at most once, and are released otherwise.

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

# In company: the server dies with all that was not flushed, which is why a run
# before the fatal one may be held responsible, once.
$node->append_conf('postgresql.conf', 'synchronous_commit = off');
foreach my $runs_per_commit (1, 8)
{
	my $what = "$runs_per_commit a commit";
	$node->append_conf('postgresql.conf', "trigger_idem.runs_per_commit = $runs_per_commit");
	reload_settings($node);
	$node->safe_psql('postgres', 'DROP EXTENSION trigger_idem; CREATE EXTENSION trigger_idem');
	$node->safe_psql('postgres',
		q[SELECT trigger_idem.task_create('end_badly', 'end_badly', min_backoff => '0')]);
	$node->safe_psql(
		'postgres', q[
		SELECT count(trigger_idem.trigger_task('end_badly', CASE n WHEN 28 THEN '{"ends": ["kill", "kill", "kill", "kill", "kill", "kill"]}' ELSE '{}' END::jsonb,
			tags => CASE n WHEN 28 THEN '{fatal}'::text[] END))
		FROM generate_series(1, 40) n]);

	my $crashes = 0;
	while (1)
	{
		my $log_offset = -s $node->logfile;

		last if finish_work(start_work($node, 'worker')) ne 'connection lost';
		$crashes++;
		wait_for_restart($node, $log_offset);
	}
	cmp_ok($crashes, '>=', 3, "$what: the server has crashed");
	cmp_ok($crashes, '<=', 4, "$what: and not much more often than the run may crash");
	is( $node->safe_psql(
			'postgres',
			q[SELECT (SELECT count(*) FROM trigger_idem.attempts WHERE run_id = r.run_id AND status = 'crashed'), status
			  FROM trigger_idem.runs r WHERE tags = '{fatal}']),
		'3|crashed',
		"$what: the fatal run");
	is( $node->safe_psql(
			'postgres',
			q[SELECT status, count(*) FROM trigger_idem.runs WHERE tags IS NULL GROUP BY 1]),
		'completed|39',
		"$what: all others");
	cmp_ok(
		$node->safe_psql(
			'postgres',
			q[SELECT count(*) FROM trigger_idem.attempts JOIN trigger_idem.runs r USING (run_id)
			  WHERE tags IS NULL AND attempts.status = 'crashed']),
		'<=', 1,
		"$what: held responsible by mistake");
}

$node->stop;
done_testing();
