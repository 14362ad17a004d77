# The backend of an application is killed with kill -9, at every stage of its work.
#
# The application commits after each step.  The server recovers by itself, and when
# the lease of the dead one is over the next one takes the run.  Promised then:
#
# - the run is completed
# - every effect is there exactly once
# - a step that was committed is not repeated
#
# And a run whose application died is taken over also where there is always other
# work to claim.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

# polling takes what is written to stderr for a failure; warnings are looked for
# in the log, at the end
$ENV{PGOPTIONS} = '-c client_min_messages=error';

my $node = new_server('main', 'restart_after_crash = on');
create_deliveries($node);

# An application over SQL; where to stop is in the payload, as for deliveries.
$node->safe_psql('postgres', <<'EOSQL');
SELECT trigger_idem.task_create('application', lease_duration => '1 second', min_backoff => '0');

CREATE PROCEDURE work_application(INOUT processed int DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
	run record;
	step record;
BEGIN
	LOOP
		SELECT run_id, attempt, payload INTO run FROM trigger_idem.run_claim('application');
		EXIT WHEN NOT FOUND;
		COMMIT;
		PERFORM stop_at('claimed', run.payload, run.attempt);
		processed := processed + 1;

		-- one step by run_once(), in an entered run
		PERFORM trigger_idem.run_enter(run.run_id, run.attempt);
		PERFORM stop_at('entered', run.payload, run.attempt);
		PERFORM trigger_idem.run_once('charge', 'charge_card', run.payload);
		PERFORM stop_at('charged', run.payload, run.attempt);
		COMMIT;
		PERFORM stop_at('after charge', run.payload, run.attempt);

		-- one by the calls that name an attempt
		SELECT is_cached INTO step FROM trigger_idem.run_once_begin(run.run_id, run.attempt, 'ship');
		IF NOT step.is_cached THEN
			INSERT INTO effect VALUES (run.run_id, 'ship', run.attempt);
			PERFORM stop_at('ship', run.payload, run.attempt);
			PERFORM trigger_idem.run_once_end(run.run_id, run.attempt, 'ship', '"shipped"');
			PERFORM stop_at('shipped', run.payload, run.attempt);
		END IF;
		COMMIT;
		PERFORM stop_at('after ship', run.payload, run.attempt);

		INSERT INTO effect VALUES (run.run_id, 'book', run.attempt);
		PERFORM trigger_idem.run_complete(run.run_id, run.attempt, to_jsonb(run.attempt));
		PERFORM stop_at('completing', run.payload, run.attempt);
		COMMIT;
	END LOOP;
END $$;
EOSQL

sub kill_at
{
	my ($place, %expected) = @_;
	my $what = "killed at $place";
	my $run_id = $node->safe_psql('postgres',
		qq[SELECT run_id FROM trigger_idem.trigger_task('application', '{"stop_at": "$place"}')]);
	my $gate = close_gate($node, 1);
	my $session = start_sql($node, 'victim', 'CALL work_application()');
	my $pid = wait_at_gate($node, 'victim');

	my $log_offset = -s $node->logfile;
	kill 'KILL', $pid;
	is(finish_sql($session), 'connection lost', "$what: connection lost");
	wait_for_restart($node, $log_offset);
	open_gate($gate);

	ok($node->poll_query_until('postgres', 'CALL work_application()', '1'),
		"$what: taken over when the lease is over");
	is(attempts_of($node, $run_id), 'crashed 57P02, completed', "$what: attempts");
	is( $node->safe_psql(
			'postgres',
			"SELECT status, attempt, output FROM trigger_idem.runs WHERE run_id = '$run_id'"),
		'completed|2|2',
		"$what: run");
	is( $node->safe_psql(
			'postgres',
			"SELECT what, attempt FROM effect WHERE run_id = '$run_id' ORDER BY what, attempt"),
		$expected{effects},
		"$what: effects and the attempt that each is from");
	is( $node->safe_psql(
			'postgres',
			"SELECT key, attempt FROM trigger_idem.steps WHERE run_id = '$run_id' ORDER BY key"),
		$expected{steps},
		"$what: steps and the attempt that each is from");
	return;
}

my %nothing = (effects => "book|2\ncharge|2\nship|2", steps => "charge|2\nship|2");
my %charged = (effects => "book|2\ncharge|1\nship|2", steps => "charge|1\nship|2");
my %shipped = (effects => "book|2\ncharge|1\nship|1", steps => "charge|1\nship|1");

kill_at('claimed', %nothing);
kill_at('entered', %nothing);
kill_at('step', %nothing);
kill_at('charged', %nothing);
kill_at('after charge', %charged);
kill_at('ship', %charged);
kill_at('shipped', %charged);
kill_at('after ship', %shipped);
kill_at('completing', %shipped);
kill_at('completion', %shipped);

# ---------- Dead, and there is always something else ----------

{
	my $run_id =
	  $node->safe_psql('postgres', q[SELECT run_id FROM trigger_idem.trigger_task('application')]);

	$node->safe_psql('postgres',
		q[SELECT trigger_idem.task_create('busy', lease_duration => '1 hour');
		  SELECT FROM trigger_idem.run_claim('dies')]);
	# others claim a run at a time and never find nothing, for five leases
	$node->safe_psql('postgres', <<"EOSQL");
DO \$\$
DECLARE
	started timestamptz := clock_timestamp();
BEGIN
	WHILE clock_timestamp() < started + interval '5 seconds'
		AND (SELECT attempt = 1 AND status = 'executing' FROM trigger_idem.runs WHERE run_id = '$run_id')
	LOOP
		PERFORM FROM trigger_idem.trigger_task('busy', priority => 1000);
		COMMIT;
		PERFORM trigger_idem.run_complete(run_id, attempt) FROM trigger_idem.run_claim('busy', task_ids => '{busy}');
		COMMIT;
	END LOOP;
END \$\$;
EOSQL
	is(attempts_of($node, $run_id), 'crashed 57P02', 'taken over although there is always other work');
	ok( $node->poll_query_until(
			'postgres',
			"CALL work_application(); SELECT status FROM trigger_idem.runs WHERE run_id = '$run_id'",
			"1\ncompleted"),
		'and completed');
}

is( $node->safe_psql(
		'postgres',
		q[SELECT count(*) FROM trigger_idem.runs WHERE task_id = 'application' AND status <> 'completed']),
	'0',
	'every run is completed');

unlike(slurp_file($node->logfile),
	qr/still active|leak|not closed|TRAP|PANIC/, 'nothing is left over at a commit');

$node->stop;
done_testing();
