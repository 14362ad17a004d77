# The server is stopped with -m immediate while several workers are busy, again
# and again.
#
# Promised: afterwards every run is completed, every effect in the database is
# there exactly once, and outside was called with each key at least once and at
# most once an attempt.  This holds for workers with synchronous_commit off too,
# and for keys that were triggered more than once.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $workers = 3;
my $rounds = 4;
my $deliveries = 120;

my $node = new_server('main');
create_deliveries($node);

# Every sixth delivery stops its worker in the first attempt, at one place or
# another: so that work is in hand, and waits to be caught, when the server
# stops.  Each delivery is triggered twice.
my $trigger = <<"EOSQL";
SELECT count(*) FILTER (WHERE t.is_cached)
FROM generate_series(1, $deliveries) AS i,
	LATERAL trigger_idem.trigger_task(
		(ARRAY['deliver_function', 'deliver_procedure'])[i % 2 + 1],
		jsonb_build_object('stop_at', CASE WHEN i % 6 < 2
			THEN (ARRAY['step', 'charged', 'committed', 'end', 'completion'])[i / 6 % 5 + 1] END),
		idempotency_key => 'delivery ' || i) AS t
EOSQL
is($node->safe_psql('postgres', $trigger), '0', 'deliveries are triggered');
is($node->safe_psql('postgres', $trigger), $deliveries, 'triggered again they are cached');

for my $round (1 .. $rounds)
{
	my $gate = close_gate($node, 1);
	my @work;
	foreach my $i (1 .. $workers)
	{
		my $synchronous = $i == 1 ? 'off' : 'on';
		push @work,
		  start_work($node, "worker_$i", before => "SET synchronous_commit = $synchronous");
	}
	wait_at_gate($node, $_->{name}) foreach @work;
	$node->stop('immediate');
	my @results = map { finish_work($_) } @work;
	is_deeply(\@results, [ ('connection lost') x $workers ], "round $round: all workers are gone");
	open_gate($gate);
	$node->start;
	cmp_ok(
		$node->safe_psql(
			'postgres', "SELECT count(*) FROM trigger_idem.runs WHERE status = 'executing'"),
		'>=',
		$workers,
		"round $round: each worker had a run in hand");
}

my @work = map { start_work($node, "worker_$_") } 1 .. $workers;
my $processed = 0;
$processed += finish_work($_) foreach @work;
cmp_ok($processed, '>=', $workers, 'workers go on after the last start');

is( $node->safe_psql(
		'postgres', 'SELECT status, count(*) FROM trigger_idem.runs GROUP BY status'),
	"completed|$deliveries",
	'one run for each delivery, all completed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM effects_amiss'),
	'0', 'every effect exactly once');
is( $node->safe_psql(
		'postgres',
		"SELECT status, count(*) FROM trigger_idem.attempts WHERE status <> 'released' GROUP BY status ORDER BY status"),
	"completed|$deliveries\ncrashed|" . $workers * $rounds,
	'one completed attempt for each run, one crashed for each worker that died (what it had not begun is released)');

my %calls = outside_calls($node);
is(scalar(keys %calls), 2 * $deliveries, 'outside saw one key for each step');
my %attempts = map { split /\|/ } split /\n/, $node->safe_psql('postgres', <<'EOSQL');
SELECT s.idempotency_key, r.attempt FROM trigger_idem.steps s JOIN trigger_idem.runs r USING (run_id)
EOSQL
my @too_often = grep { $calls{$_} > $attempts{$_} } keys %calls;
is_deeply(\@too_often, [], 'and was called with each at most once an attempt');

is($node->safe_psql('postgres', $trigger), $deliveries, 'triggered once more they are cached');

$node->stop;
done_testing();
