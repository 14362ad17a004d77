# The backend of an application is stopped in the middle of a transaction.
#
# Promised, at every isolation level:
#
# - its run can be taken over when its lease is over, and whoever takes it does not
#   wait for what the stopped one has open
# - when the stopped one goes on, its COMMIT fails with TI002 and leaves nothing:
#   neither its own rows, nor a memo, nor the end of the run
# - if nobody has taken the run, the COMMIT succeeds

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main');
$node->safe_psql('postgres', <<'EOSQL');
CREATE TABLE effect (run_id uuid, what text, attempt int);
CREATE FUNCTION pass_gate(attempt int) RETURNS void LANGUAGE sql AS
	$$ SELECT pg_advisory_lock_shared(attempt); SELECT pg_advisory_unlock_shared(attempt) $$;
CREATE FUNCTION charge_card(idempotency_key text) RETURNS text LANGUAGE sql AS $$
	INSERT INTO effect VALUES (trigger_idem.current_run_id(), 'charge', trigger_idem.current_attempt());
	SELECT 'charged' $$;
SELECT trigger_idem.task_create('application', lease_duration => '1 second', min_backoff => '0');
EOSQL

# A process that is still stopped when the test dies would outlive it.
my $stopped;
END { kill 'CONT', $stopped if defined $stopped; }

# What an application does in one transaction, up to where it is stopped
my %stages = (
	entered => sub {
		my ($run) = @_;
		return "SELECT trigger_idem.run_enter($run);
			SELECT trigger_idem.run_once('charge', 'charge_card')";
	},
	'after run_once_end' => sub {
		my ($run) = @_;
		my ($run_id, $attempt) = split /, /, $run;
		return "SELECT is_cached FROM trigger_idem.run_once_begin($run, 'charge');
			INSERT INTO effect VALUES ($run_id, 'charge', $attempt);
			SELECT trigger_idem.run_once_end($run, 'charge', '\"charged\"')";
	},
	'after run_complete' => sub {
		my ($run) = @_;
		my ($run_id, $attempt) = split /, /, $run;
		return "INSERT INTO effect VALUES ($run_id, 'charge', $attempt);
			SELECT trigger_idem.run_complete($run, '$attempt')";
	});

# Trigger and claim a run and have a session work it until it is stopped.
sub start_application
{
	my ($stage, $level) = @_;
	my $run_id =
	  $node->safe_psql('postgres', q[SELECT run_id FROM trigger_idem.trigger_task('application')]);

	is($node->safe_psql('postgres', q[SELECT attempt FROM trigger_idem.run_claim('stopped')]),
		'1', "$stage, $level: claimed");
	my $commands = $stages{$stage}->("'$run_id', 1");
	my $session = start_sql($node, 'stopped',
		"BEGIN ISOLATION LEVEL $level; $commands; SELECT pass_gate(1); COMMIT");

	$stopped = wait_at_gate($node, 'stopped');
	kill 'STOP', $stopped;
	return ($run_id, $session);
}

sub continue_application
{
	my ($gate, $session) = @_;

	open_gate($gate);
	kill 'CONT', $stopped;
	$stopped = undef;
	return finish_sql($session);
}

sub effects
{
	my ($run_id) = @_;

	return $node->safe_psql('postgres',
		"SELECT what, attempt FROM effect WHERE run_id = '$run_id' ORDER BY what, attempt");
}

sub run_row
{
	my ($run_id) = @_;

	return $node->safe_psql('postgres',
		"SELECT status, attempt, output FROM trigger_idem.runs WHERE run_id = '$run_id'");
}

foreach my $stage (sort keys %stages)
{
	foreach my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
	{
		my $what = "$stage, $level";
		my $gate = close_gate($node, 1);
		my ($run_id, $session) = start_application($stage, $level);

		ok( $node->poll_query_until(
				'postgres', q[SELECT attempt FROM trigger_idem.run_claim('taker')], '2'),
			"$what: taken over when the lease is over");
		is( $node->safe_psql(
				'postgres',
				"SELECT is_cached FROM trigger_idem.run_once_begin('$run_id', 2, 'charge')"),
			'f',
			"$what: the step is not done");
		$node->safe_psql('postgres', <<"EOSQL");
BEGIN;
INSERT INTO effect VALUES ('$run_id', 'charge', 2);
SELECT trigger_idem.run_once_end('$run_id', 2, 'charge', '"charged by the taker"');
SELECT trigger_idem.run_complete('$run_id', 2, '2');
COMMIT;
EOSQL
		like(continue_application($gate, $session), qr/TI002$/, "$what: its COMMIT fails");
		is(run_row($run_id), 'completed|2|2', "$what: run");
		is(attempts_of($node, $run_id), 'crashed 57P02, completed', "$what: attempts");
		is(effects($run_id), 'charge|2', "$what: effects and the attempt that each is from");
		is( $node->safe_psql(
				'postgres',
				"SELECT output, attempt FROM trigger_idem.steps WHERE run_id = '$run_id'"),
			'"charged by the taker"|2',
			"$what: the step is the taker's");
	}
}

# ---------- Canceled while it was stopped ----------

{
	my $gate = close_gate($node, 1);
	my ($run_id, $session) = start_application('after run_complete', 'READ COMMITTED');

	is($node->safe_psql('postgres', "SELECT trigger_idem.run_cancel('$run_id')"),
		't', 'canceled: at once');
	like(continue_application($gate, $session), qr/TI002$/, 'canceled: its COMMIT fails');
	is(run_row($run_id), 'canceled|1|', 'canceled: run');
	is(effects($run_id), '', 'canceled: no effects');
}

# ---------- A lease that ran out and was not taken ----------

foreach my $stage (sort keys %stages)
{
	my $gate = close_gate($node, 1);
	my ($run_id, $session) = start_application($stage, 'REPEATABLE READ');

	ok( $node->poll_query_until(
			'postgres',
			"SELECT lease_expires_at < clock_timestamp() FROM trigger_idem.queue_entry WHERE run_id = '$run_id'"),
		"$stage, not taken: the lease is over");
	unlike(continue_application($gate, $session), qr/TI002|ERROR/, "$stage, not taken: its COMMIT succeeds");
	is(effects($run_id), 'charge|1', "$stage, not taken: effects");
	is( $node->safe_psql(
			'postgres',
			"SELECT trigger_idem.run_complete('$run_id', 1, '1'); SELECT status FROM trigger_idem.runs WHERE run_id = '$run_id'"),
		"\ncompleted",
		"$stage, not taken: it can complete the run");
}

$node->stop;
done_testing();
