# What is in the tables survives what administrators do to them.
#
# Promised: after logical replication into another server, on a standby that is
# promoted while work is going on, after VACUUM FULL and REINDEX, and with columns
# added, the views show the same, keys, memos, waits and attempts hold, what was not
# finished goes on, nothing that was done is done again, and amcheck finds nothing.

use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $keeping = "$FindBin::RealBin/../keeping";
my $went_on = slurp_file("$keeping/go_on.out");
chomp $went_on;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 'logical');
$node->start;

# The output of a script
sub script
{
	my ($server, $dbname, $name) = @_;

	return $server->safe_psql($dbname, slurp_file("$keeping/$name.sql"));
}

# A database in which there is something of everything
sub fill
{
	my ($dbname) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $dbname TEMPLATE template0");
	$node->safe_psql($dbname, 'CREATE EXTENSION trigger_idem');
	script($node, $dbname, 'fill');
	return script($node, $dbname, 'show');
}

# It goes on there as it should, and every index entry is right before and after.
sub goes_on
{
	my ($server, $dbname, $what) = @_;
	my $is_intact = sub {
		my ($ret, $stdout, $stderr) = $server->psql($dbname, slurp_file("$keeping/check.sql"), extra_params => ['-At']);

		is("$ret $stdout$stderr" =~ s/\n//gr, '0 ', "$what: amcheck finds nothing, $_[0]");
	};

	$is_intact->('before it goes on');
	is(script($server, $dbname, 'go_on'), $went_on, "$what: it goes on");
	$is_intact->('after it went on');
	return;
}

# ---------- Rewritten tables and indexes ----------

my $before = fill('rewritten');
$node->safe_psql('rewritten', 'VACUUM FULL');
$node->safe_psql('rewritten', 'REINDEX SCHEMA trigger_idem');
$node->safe_psql('rewritten', 'REINDEX SCHEMA CONCURRENTLY trigger_idem');
is(script($node, 'rewritten', 'show'), $before, 'VACUUM FULL and REINDEX: the views show the same');
goes_on($node, 'rewritten', 'VACUUM FULL and REINDEX');

# ---------- Columns that this library does not know ----------

# as a session has them that has loaded it before an upgrade, in another one
$before = fill('widened');
$node->safe_psql('widened', <<'EOSQL');
DO $$
DECLARE
	name regclass;
BEGIN
	FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'trigger_idem'::regnamespace AND relkind = 'r' LOOP
		FOR n IN 1 .. 5 LOOP
			EXECUTE format('ALTER TABLE %s ADD COLUMN added_%s bigint DEFAULT 1234567890123456789', name, n);
		END LOOP;
	END LOOP;
END $$;
EOSQL
is(script($node, 'widened', 'show'), $before, 'more columns: the views show the same');
goes_on($node, 'widened', 'more columns');

# ---------- Logical replication ----------

my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->start;
$before = fill('replicated');
$subscriber->safe_psql('postgres', 'CREATE DATABASE replicated TEMPLATE template0');
# what is not of the extension comes by a dump, the extension is created
$node->command_ok(
	[
		'pg_dump', '--schema-only', '--schema=public', '-f', $node->basedir . '/public.sql',
		$node->connstr('replicated')
	],
	'the schema of what is around it is dumped');
$subscriber->safe_psql('replicated', 'CREATE EXTENSION trigger_idem');
$subscriber->command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $subscriber->connstr('replicated'),
		'-c', 'DROP SCHEMA public',
		'-f', $node->basedir . '/public.sql'
	],
	'and restored');
$node->safe_psql('replicated', 'CREATE PUBLICATION kept FOR TABLES IN SCHEMA trigger_idem, public');
$subscriber->safe_psql('replicated',
	"CREATE SUBSCRIPTION kept CONNECTION '" . $node->connstr . " dbname=replicated' PUBLICATION kept");
$subscriber->wait_for_subscription_sync($node, 'kept', 'replicated');
is(script($subscriber, 'replicated', 'show'), $before, 'logical replication: what was there before');

# changes too: inserts, updates and deletes of each kind
$node->safe_psql('replicated', <<'EOSQL');
SELECT trigger_idem.trigger_task('kept procedure', '{"name": "later"}', 'later');
CALL trigger_idem.work();
SELECT trigger_idem.prune('0');
SELECT trigger_idem.queue_resume('kept paused');
EOSQL
$node->wait_for_catchup('kept');
is( script($subscriber, 'replicated', 'show'),
	script($node, 'replicated', 'show'),
	'logical replication: what was done since');
$subscriber->safe_psql('replicated', 'DROP SUBSCRIPTION kept');
# the publisher is gone, and the run that was waiting there goes on here
is( $subscriber->safe_psql(
		'replicated', <<'EOSQL'),
SELECT trigger_idem.wait_token_complete(token) FROM trigger_idem.wait_token_create('kept token');
CALL trigger_idem.work();
SELECT status, attempt FROM trigger_idem.runs WHERE payload ->> 'name' = 'waits for token';
SELECT is_cached FROM trigger_idem.trigger_task('kept procedure', '{"name": "later"}', 'later');
EOSQL
	"t\n1\ncompleted|2\nt",
	'logical replication: the subscriber goes on');

# ---------- A standby that is promoted ----------

# Each run has three effects: of two steps, and of its end.
$node->safe_psql('postgres', 'CREATE DATABASE standby TEMPLATE template0');
$node->safe_psql('standby', <<'EOSQL');
CREATE EXTENSION trigger_idem;
CREATE TABLE effect (run_id uuid, what text);
CREATE FUNCTION add_effect(idempotency_key text, args jsonb) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO effect VALUES (trigger_idem.current_run_id(), args #>> '{}') $$;
CREATE PROCEDURE handle() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once('one', 'add_effect', '"one"');
	COMMIT;
	PERFORM trigger_idem.run_once('two', 'add_effect', '"two"');
	COMMIT;
	PERFORM add_effect('', '"end"');
END $$;
SELECT trigger_idem.task_create('busy', 'handle', min_backoff => '0', lease_duration => '1 hour');
SELECT count(trigger_idem.trigger_task('busy', idempotency_key => 'key ' || n)) FROM generate_series(1, 3000) n;
EOSQL
$before = fill('standby_kept');
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;

# a worker is in the middle of it, as the standby sees it
my $work = start_work($node, 'busy', dbname => 'standby');
$standby->poll_query_until('standby',
	"SELECT count(*) > 100 FROM trigger_idem.runs WHERE status = 'completed'")
  or die 'nothing is replicated';
$node->stop('immediate');
$standby->promote;
is(finish_work($work), 'connection lost', 'the primary is lost while a worker works');
my $unfinished = $standby->safe_psql('standby', 'SELECT count(*) FROM trigger_idem.runs WHERE finished_at IS NULL');
cmp_ok($unfinished, '>', 0, 'promoted: there was work left');
is($standby->safe_psql('standby', 'CALL trigger_idem.work()'),
	$unfinished, 'promoted: each run that was left is worked at once');
is( $standby->safe_psql(
		'standby',
		"SELECT count(*), count(*) FILTER (WHERE effects = 3 AND whats = 3 AND status = 'completed')
		 FROM (SELECT r.run_id, r.status, count(e.what) AS effects, count(DISTINCT e.what) AS whats
			FROM trigger_idem.runs r LEFT JOIN effect e USING (run_id) GROUP BY 1, 2) r"),
	'3000|3000',
	'promoted: every run is completed, and has each effect once');
is( $standby->safe_psql(
		'standby', "SELECT count(*) FROM trigger_idem.attempts WHERE status NOT IN ('completed', 'crashed', 'released')"),
	'0',
	'promoted: no attempt has failed');
is( $standby->safe_psql(
		'standby',
		"SELECT count(*) FILTER (WHERE is_cached) FROM generate_series(1, 3000) n,
		 LATERAL trigger_idem.trigger_task('busy', idempotency_key => 'key ' || n)"),
	'3000',
	'promoted: every key holds');
is(script($standby, 'standby_kept', 'show'), $before, 'promoted: the views show the same');
goes_on($standby, 'standby_kept', 'promoted');

$standby->stop;
$subscriber->stop;
done_testing();
