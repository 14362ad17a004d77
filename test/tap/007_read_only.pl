# Triggers where nothing can be written: in a read-only transaction and on a
# standby.
#
# Promised: a hit works in both and assigns no transaction id; in a read-only
# transaction of the primary it writes no WAL either.  A miss, an expired key and
# work() raise 25006.  A standby that is promoted takes over the run that was
# executing on the primary.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
# WAL is to come from what the test does only
$primary->append_conf('postgresql.conf', "autovacuum = off\n");
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION trigger_idem');
create_deliveries($primary);
$primary->safe_psql('postgres', <<'EOSQL');
CREATE FUNCTION sqlstate_of(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT trigger_idem.task_create('read_only');
SELECT trigger_idem.trigger_task('read_only', idempotency_key => 'live', delay => '1 day');
SELECT trigger_idem.trigger_task('read_only', idempotency_key => 'expired', delay => '1 day');
UPDATE trigger_idem.idempotency_key SET expires_at = now() - interval '1 hour' WHERE key = 'expired';
SELECT trigger_idem.run_once_sql('known', 'SELECT 1', scope => 'global');
SELECT trigger_idem.trigger_task('deliver_procedure', '{"stop_at": "committed"}',
	idempotency_key => 'executing');
EOSQL

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

my $gate = close_gate($primary, 1);
my $work = start_work($primary, 'worker');
wait_at_gate($primary, 'worker');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

foreach my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
{
	foreach my $node ($primary, $standby)
	{
		# A standby knows no SERIALIZABLE.
		next if $node == $standby && $level eq 'SERIALIZABLE';
		my $what = $node->name . ", $level";

		is( $node->safe_psql(
				'postgres', <<"EOSQL"),
BEGIN ISOLATION LEVEL $level READ ONLY;
SELECT is_cached, status FROM trigger_idem.trigger_task('read_only', idempotency_key => 'live');
SELECT is_cached, status
FROM trigger_idem.trigger_task('deliver_procedure', idempotency_key => 'executing');
SELECT trigger_idem.run_once_sql('known', 'SELECT 2', scope => 'global');
SELECT sqlstate_of(\$\$ SELECT trigger_idem.trigger_task('read_only', idempotency_key => 'free') \$\$);
SELECT sqlstate_of(\$\$ SELECT trigger_idem.trigger_task('read_only', idempotency_key => 'expired') \$\$);
SELECT sqlstate_of(\$\$ SELECT trigger_idem.trigger_task('read_only') \$\$);
SELECT sqlstate_of(\$\$
	SELECT trigger_idem.run_once_sql('unknown', 'SELECT 1', scope => 'global') \$\$);
SELECT sqlstate_of(\$\$ SELECT trigger_idem.task_create('new') \$\$);
SELECT pg_current_xact_id_if_assigned() IS NULL;
COMMIT;
EOSQL
			join("\n", 't|delayed', 't|executing', '1', ('25006') x 5, 't'),
			"$what: hits work, what must write raises 25006, no transaction id is assigned");
		is( $node->safe_psql('postgres', <<"EOSQL"),
BEGIN ISOLATION LEVEL $level READ ONLY;
SELECT trigger_idem.runs_page() LIKE '%deliver_procedure</a>%', trigger_idem.runs_page('{"idempotency_key": "live"}') LIKE '%<code>live</code>%';
SELECT bool_and(trigger_idem.run_page(run_id) LIKE '<!DOCTYPE html>%') FROM trigger_idem.runs;
SELECT bool_and(EXISTS (SELECT FROM trigger_idem.run_timeline(run_id) WHERE event = 'triggered')) FROM trigger_idem.runs;
SELECT count(*) > 0 FROM trigger_idem.stats();
SELECT pg_current_xact_id_if_assigned() IS NULL;
COMMIT;
EOSQL
			join("\n", 't|t', ('t') x 4), "$what: the pages are there");
	}
}

# A transaction that could write does not, for a hit.  The server itself may
# write WAL at any time, so look a few times.
my $quiet = 0;
for (1 .. 10)
{
	$quiet = $primary->safe_psql('postgres', <<'EOSQL') eq "100\nt\nt";
BEGIN;
SELECT pg_current_wal_insert_lsn() AS before \gset
SELECT count(*) FROM generate_series(1, 100) i,
	LATERAL trigger_idem.trigger_task('read_only', to_jsonb(i), 'live') t WHERE t.is_cached;
SELECT pg_current_wal_insert_lsn() = :'before';
SELECT pg_current_xact_id_if_assigned() IS NULL;
COMMIT;
EOSQL
	last if $quiet;
}
ok($quiet, 'primary, read-write: a hundred hits write no WAL and assign no transaction id');

my ($ret, $stdout, $stderr) = $standby->psql(
	'postgres',
	'CALL trigger_idem.work()',
	extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($stderr, qr/ERROR:  25006:/, 'standby: work() raises 25006');

# A trigger on the primary is a hit on the standby once it is replayed there.
$primary->safe_psql('postgres',
	"SELECT trigger_idem.trigger_task('read_only', idempotency_key => 'free', delay => '1 day')");
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is( $standby->safe_psql(
		'postgres',
		"SELECT is_cached, status FROM trigger_idem.trigger_task('read_only', idempotency_key => 'free')"
	),
	't|delayed',
	'standby: a key triggered on the primary is a hit');

# The primary is lost.
$primary->stop('immediate');
is(finish_work($work), 'connection lost', 'the worker on the primary is gone');
open_gate($gate);
$standby->promote;
is($standby->safe_psql('postgres', 'CALL trigger_idem.work()'),
	'1', 'promoted: the executing run is taken over at once');
is( $standby->safe_psql(
		'postgres', "SELECT what, attempt FROM effect ORDER BY what DESC"),
	"ship|2\ncharge|1\nbook|2",
	'promoted: what was committed is not repeated');
is( $standby->safe_psql(
		'postgres',
		"SELECT is_cached FROM trigger_idem.trigger_task('read_only', idempotency_key => 'expired')"),
	'f',
	'promoted: an expired key is taken over');

$standby->stop;
done_testing();
