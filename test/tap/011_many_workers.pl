# Many workers and many runs.
#
# Promised: every run is worked exactly once, none is lost, nobody claims what
# another has claimed, and nobody deadlocks; for sessions with CALL work(), and for
# applications that claim several runs at a time.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $runs = 10_000;
my $node = new_server('main', <<'EOC');
max_connections = 50
log_lock_waits = off
autovacuum_naptime = 1s
EOC
$node->safe_psql('postgres', <<'EOSQL');
CREATE TABLE executed (run_id uuid, attempt int, worker text);
CREATE FUNCTION handle() RETURNS void LANGUAGE sql AS $$
	INSERT INTO executed VALUES (trigger_idem.current_run_id(), trigger_idem.current_attempt(), current_setting('application_name')) $$;
SELECT trigger_idem.task_create('handled', 'handle');
SELECT trigger_idem.task_create('claimed', queue => 'claimed');

-- an application over SQL; half of the runs in one transaction each, the others
-- as they were claimed
CREATE PROCEDURE work_application(INOUT processed int DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
	claimed uuid[];
	run uuid;
BEGIN
	LOOP
		SELECT array_agg(run_id) INTO claimed
		FROM trigger_idem.run_claim(current_setting('application_name'), 'claimed', max_runs => 10);
		EXIT WHEN claimed IS NULL;
		COMMIT;
		FOREACH run IN ARRAY claimed LOOP
			INSERT INTO executed VALUES (run, 1, current_setting('application_name'));
			PERFORM trigger_idem.run_complete(run, 1);
			processed := processed + 1;
			IF processed % 2 = 0 THEN
				COMMIT;
			END IF;
		END LOOP;
		COMMIT;
	END LOOP;
END $$;
EOSQL

# Have $workers sessions execute a command that works all runs of a task.
sub work_all
{
	my ($task, $workers, $command) = @_;
	my $log_offset = -s $node->logfile;
	my $what = "$workers sessions, $command";

	$node->safe_psql('postgres',
		"SELECT count(trigger_idem.trigger_task('$task', to_jsonb(n), priority => n % 7)) FROM generate_series(1, $runs) n");
	$node->safe_psql('postgres', 'TRUNCATE executed; ANALYZE');
	my $gate = close_gate($node, 1);
	my @sessions = map {
		start_sql($node, "worker_$_", $command,
			before => 'SELECT FROM pg_advisory_lock_shared(1)')
	} 1 .. $workers;

	# all at once
	wait_at_gate($node, $_->{name}) foreach @sessions;
	open_gate($gate);
	my @processed = map { finish_sql($_) } @sessions;

	is(scalar(grep { !/^\s*\d+$/ } @processed), 0, "$what: none ends with an error")
	  or diag(join "\n", @processed);
	my $sum = 0;
	$sum += $_ foreach grep { /^\s*\d+$/ } @processed;
	is($sum, $runs, "$what: as many as there are were worked");
	cmp_ok(scalar(grep { $_ > 0 } @processed), '>', 1, "$what: by more than one of them");
	is( $node->safe_psql(
			'postgres',
			'SELECT count(*), count(DISTINCT run_id) FROM executed'),
		"$runs|$runs",
		"$what: each once");
	# a worker that is slow gives what it has in hand and has not begun to others
	is( $node->safe_psql(
			'postgres',
			"SELECT count(*) FROM executed e JOIN trigger_idem.attempts a USING (run_id, attempt) WHERE a.status <> 'completed'"),
		'0',
		"$what: in the attempt that completed it");
	is( $node->safe_psql(
			'postgres',
			"SELECT status, count(*) FROM trigger_idem.runs WHERE task_id = '$task' GROUP BY 1"),
		"completed|$runs",
		"$what: all are completed");
	is( $node->safe_psql(
			'postgres',
			"SELECT a.status, count(*) FROM trigger_idem.attempts a JOIN trigger_idem.runs r USING (run_id)
			 WHERE task_id = '$task' AND a.status <> 'released' GROUP BY 1"),
		"completed|$runs",
		"$what: one attempt each, but for what was given away");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM trigger_idem.queue_entry'),
		'0', "$what: the queue is empty");
	unlike(slurp_file($node->logfile, $log_offset),
		qr/deadlock|ERROR|PANIC|WARNING/, "$what: no deadlock, no error in the log");
	return;
}

work_all('handled', 16, 'CALL trigger_idem.work()');
work_all('claimed', 8, 'CALL work_application()');

$node->stop;
done_testing();
