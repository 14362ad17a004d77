# Schedules with a real pg_cron, and no worker but pg_cron's.
#
# Promised:
#
# - schedule_create() accepts what pg_cron accepts, and refuses with 22023 what it
#   refuses, over several hundred expressions
# - jobs are executed as the schedule's owner, who needs rights on pg_cron, and give
#   one run a tick, which work_schedule() works
# - after a server was down, what was missed is made up as catch_up says
# - a dropped schedule has no job; without its task or the extension a job does no
#   harm; pg_cron in another database and no pg_cron are told apart
# - a dump restores: what was fired is not fired again
# - a standby does not fire, and after its promotion keeps one run a tick
#
# pg_cron fires at full minutes only: the test waits for one, for all servers at once.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $conf = <<'EOCONF';
shared_preload_libraries = 'pg_cron'
cron.database_name = 'postgres'
cron.use_background_workers = on
max_worker_processes = 16
# unknown to pg_cron before 1.5, and then of no effect
cron.timezone = 'Europe/Berlin'
wal_level = replica
max_wal_senders = 4
EOCONF

my $probe = PostgreSQL::Test::Cluster->new('probe');
$probe->init;
$probe->append_conf('postgresql.conf', $conf);
if (!$probe->start(fail_ok => 1))
{
	plan skip_all => 'pg_cron is not installed';
}
$probe->stop;

# A server with pg_cron, alice who may use it, and bob who may not
sub cron_server
{
	my ($name) = @_;
	my $server = new_server($name, $conf);

	$server->safe_psql('postgres', <<'EOSQL');
CREATE EXTENSION pg_cron;
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
SELECT trigger_idem.access_grant(role, 'work') FROM unnest('{alice,bob}'::regrole[]) role;
GRANT USAGE ON SCHEMA cron TO alice;
GRANT CREATE ON SCHEMA public TO alice;
EOSQL
	$server->safe_psql('postgres', <<'EOSQL', extra_params => [ '-U', 'alice' ]);
CREATE TABLE done (tick timestamptz, who text DEFAULT current_user);
CREATE FUNCTION handle(payload jsonb) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO done SELECT (payload ->> 'tick')::timestamptz $$;
SELECT trigger_idem.task_create('task', 'handle');
EOSQL
	return $server;
}

sub as_alice
{
	my ($server, $command) = @_;

	return $server->safe_psql('postgres', $command, extra_params => [ '-U', 'alice' ]);
}

# The error that a command raises
sub error_of
{
	my ($server, $user, $command, $dbname) = @_;
	my ($ret, $stdout, $stderr) = $server->psql($dbname // 'postgres', $command,
		extra_params => [ '-U', $user, '-v', 'VERBOSITY=verbose' ]);

	return $stderr;
}

# The ticks that a schedule has fired, oldest first
sub ticks
{
	my ($server, $schedule) = @_;

	return split /\n/, $server->safe_psql('postgres', <<"EOSQL");
SELECT payload ->> 'tick' FROM trigger_idem.runs
WHERE payload ->> 'schedule_id' = '$schedule' ORDER BY payload ->> 'tick'
EOSQL
}

my $superuser = getpwuid($<);
my $minute = "date_trunc('minute', clock_timestamp())";

# ---------- What is to happen while the others wait for a minute ----------

my $node = cron_server('main');

my $is_new = $node->safe_psql('postgres',
	"SELECT extversion >= '1.5' FROM pg_extension WHERE extname = 'pg_cron'") eq 't';
is( $node->safe_psql(
		'postgres',
		"SELECT trigger_idem.cron_next_tick('0 0 * * *', '2026-07-01 12:00+00') AT TIME ZONE 'UTC'"),
	$is_new ? '2026-07-01 22:00:00' : '2026-07-02 00:00:00',
	'ticks are in the time zone of pg_cron');

# some minutes before it was down, these fired; then the server was stopped
as_alice($node, <<"EOSQL");
SELECT trigger_idem.schedule_create('job', '* * * * *', 'task', '{"p": 1}');
SELECT trigger_idem.schedule_create('down ' || c, '* * * * *', 'task', catch_up => c)
FROM unnest('{none,latest,all}'::text[]) c;
SELECT trigger_idem.work_schedule();
SELECT trigger_idem.work_schedule();
SELECT trigger_idem.work_schedule('*/5 * * * *', 'it''s');
SELECT trigger_idem.schedule_fire('down ' || c, $minute - interval '4 minutes')
FROM unnest('{none,latest,all}'::text[]) c;
EOSQL
is( $node->safe_psql(
		'postgres', 'SELECT jobname, schedule, command, database, username FROM cron.job ORDER BY 1'),
	<<"EOLIST" =~ s/\n\z//r, 'each schedule has one job, of its owner');
trigger_idem schedule down all|* * * * *|SELECT trigger_idem.schedule_fire('down all')|postgres|alice
trigger_idem schedule down latest|* * * * *|SELECT trigger_idem.schedule_fire('down latest')|postgres|alice
trigger_idem schedule down none|* * * * *|SELECT trigger_idem.schedule_fire('down none')|postgres|alice
trigger_idem schedule job|* * * * *|SELECT trigger_idem.schedule_fire('job')|postgres|alice
trigger_idem work|* * * * *|CALL trigger_idem.work()|postgres|alice
trigger_idem work it's|*/5 * * * *|CALL trigger_idem.work(queue => 'it''s')|postgres|alice
EOLIST
my $fired_before =
  $node->safe_psql('postgres', "SELECT last_tick FROM trigger_idem.schedules WHERE schedule_id = 'down all'");
$node->restart;

# ---------- A standby ----------

my $primary = cron_server('primary');
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
as_alice($primary, <<"EOSQL");
SELECT trigger_idem.schedule_create('failover', '* * * * *', 'task', catch_up => 'all');
SELECT trigger_idem.schedule_fire('failover', $minute - interval '3 minutes');
EOSQL
my $before_failover =
  $primary->safe_psql('postgres', "SELECT last_tick FROM trigger_idem.schedules");
$primary->wait_for_catchup($standby);
like(
	error_of($standby, 'alice', "SELECT trigger_idem.schedule_fire('failover')"),
	qr/ERROR:  25006:/,
	'a standby does not fire');
is( $standby->safe_psql('postgres', "SELECT next_tick IS NOT NULL FROM trigger_idem.schedules"),
	't', 'but shows the schedule');
$primary->stop('immediate');
$standby->promote;
is( as_alice($standby, "SELECT is_cached FROM trigger_idem.schedule_fire('failover', '$before_failover')"),
	't', 'what the primary has fired is not fired again by a promoted standby');

# ---------- Expressions ----------

sub one_of
{
	return $_[ int rand @_ ];
}

sub random_item
{
	my ($low, $high, @names) = @_;
	my $number = sub { @names && rand() < 0.3 ? one_of(@names) : $low - 1 + int rand($high - $low + 4) };

	return one_of(
		sub { '*' },
		sub { $number->() },
		sub { $number->() . '-' . $number->() },
		sub { '*/' . int rand 80 },
		sub { $number->() . '-' . $number->() . '/' . int rand 9 },
		sub { $number->() },
		sub { one_of('?', 'L', '$', '1/5', '-1', '5-', '', '*5', '1x', '1!', '*-3', '+1', '01', '007') })->();
}

sub random_field
{
	return join ',', map { random_item(@_) } 1 .. one_of(1, 1, 1, 1, 2, 3);
}

sub random_expression
{
	return join one_of(' ', ' ', ' ', "\t", '  '),
	  random_field(0, 59), random_field(0, 23), random_field(1, 31),
	  random_field(1, 12, qw(jan Feb MAR december)),
	  random_field(0, 7, qw(sun Mon SAT monday)),
	  one_of((()) x 5, 'more', '');
}

# Expressions, the fields of which are nearly always good
sub plausible_expression
{
	my $field = sub {
		my ($low, $high) = @_;
		my ($one, $other) = sort { $a <=> $b } map { $low + int rand($high - $low + 1) } 1 .. 2;
		return one_of('*', '*', $one, "$one-$other", "*/" . ($one || 1), "$one-$other/2", "$one,$other");
	};

	return join ' ', $field->(0, 59), $field->(0, 23), $field->(1, 31), $field->(1, 12),
	  $field->(0, 7);
}

srand(7);
my @expressions = (
	'@yearly', '@annually', '@monthly', '@weekly', '@daily', '@midnight', '@hourly', '@reboot',
	'@restart', '@DAILY', '@', '@never', '@daily please', "\@daily\n", '@ daily', '@every 5m',
	'', ' ', "\n", '*', '* *', '* * *', '* * * *', '* * * * *', '* * * * * *', ' * * * * *',
	"\t*\t*\t*\t*\t*\t", "\n* * * * *", "* * * * *\n", "* * *\n* *", "#\n* * * * *", '# * * * * *',
	"# one\n# two\n\n  0 0 * * *", '0 0 $ * *', '0 0 $ * mon', '0 0 $5 * *', '$ 0 * * *', '0 0 $',
	'0 0 * $ *', '1 second', '10 seconds', '59 seconds', '0 seconds', '60 seconds', '10seconds',
	' 10  SECONDS ', '10 second ', '10 secondss', '10 sec', '-5 seconds', '+5 seconds', '5 minutes',
	'4294967301 seconds', '4294967297 * * * *', '99999999999999999999 * * * *',
	'*/4294967297 * * * *', '*/60 * * * *', '*/59 * * * *', '* */24 * * *', '* * */32 * *',
	'50-10 * * * *', '* 22-2 * * *', '* * * nov-feb *', '* * * * fri-mon', '* * * * sun-sat',
	'* * * * mon-sun', '* * * * 5-7', '* * * * 7', '* * * * 8', '* * * 0 *', '* * 0 * *',
	'* * 32 * *', '* 24 * * *', '60 * * * *', '5-64/30 * * * *', '0-59/0 * * * *',
	"1\x{e9} * * * *", "\x{e9} * * * *", 'jan * * * *', '* * mon * *', '* * * mon *',
	(' ' x 990) . '* * * * *', (' ' x 991) . '* * * * *', (' ' x 1000) . '5 seconds',
	('1,' x 400) . '2 * * * *', ('1,' x 600) . '2 * * * *',
	(map { random_expression() } 1 .. 400),
	(map { plausible_expression() } 1 .. 200));

$node->safe_psql('postgres', 'CREATE TABLE expression (id int, expression text, cron text, schedule text, tick text)');
$node->safe_psql('postgres', 'INSERT INTO expression VALUES '
	  . join ', ', map { "($_, convert_from('\\x" . unpack('H*', $expressions[$_] =~ s/([\x80-\xff])/"\xc3" . chr(ord($1) - 64)/ger) . "', 'UTF8'))" } 0 .. $#expressions);
$node->safe_psql('postgres', <<'EOSQL');
CREATE FUNCTION verdict(command text, expression text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command USING expression;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT trigger_idem.task_create('never worked');
BEGIN;
UPDATE expression SET
	cron = verdict('SELECT cron.schedule(''probe'', $1, ''SELECT 1'')', expression),
	schedule = verdict('SELECT trigger_idem.schedule_create(''probe'', $1, ''never worked'')', expression),
	tick = verdict('SELECT trigger_idem.cron_next_tick($1, now())', expression);
SELECT trigger_idem.schedule_drop('probe'), cron.unschedule(jobid) FROM cron.job WHERE jobname = 'probe';
COMMIT;
EOSQL
note $node->safe_psql('postgres', 'SELECT cron, count(*) FROM expression GROUP BY cron');
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM expression WHERE cron = 'accepted'"),
	'>', 200, 'pg_cron accepts hundreds of the expressions');
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM expression WHERE cron = '22023'"),
	'>', 200, 'and refuses hundreds');
is( $node->safe_psql('postgres', 'SELECT expression, cron, schedule FROM expression WHERE cron <> schedule'),
	'', 'schedule_create() has the same verdict on all');
is( $node->safe_psql('postgres', "SELECT expression, cron, tick FROM expression WHERE cron = 'accepted' AND tick <> cron"),
	'', 'all that pg_cron accepts have ticks computed');
is( $node->safe_psql(
		'postgres',
		q{SELECT expression, cron, tick FROM expression WHERE cron <> tick AND expression !~* '\$|second|/'}),
	'',
	'what pg_cron refuses is refused, but for what some versions of it accept');

# ---------- Who may, and where ----------

like(
	error_of($node, 'bob', "SELECT trigger_idem.schedule_create('of bob', '* * * * *', 'task')"),
	qr/ERROR:  42501: role "bob" may not use pg_cron\nHINT:  GRANT USAGE ON SCHEMA cron TO bob/,
	'a role without rights on pg_cron');
like(error_of($node, 'bob', 'SELECT trigger_idem.work_schedule()'),
	qr/ERROR:  42501:/, 'the same for work_schedule()');
is( $node->safe_psql('postgres', "SELECT count(*) FROM trigger_idem.schedules WHERE owner = 'bob'"),
	'0', 'and nothing is left of it');

$node->safe_psql('postgres', 'CREATE DATABASE elsewhere TEMPLATE template0');
$node->safe_psql('elsewhere', "CREATE EXTENSION trigger_idem; SELECT trigger_idem.task_create('task')");
my $elsewhere = error_of($node, $superuser,
	"SELECT trigger_idem.schedule_create('it''s', '* * * * *', 'task')", 'elsewhere');
like(
	$elsewhere,
	qr/ERROR:  0A000: pg_cron is in another database\nDETAIL:  It is in database "postgres"/,
	'pg_cron in another database');
my ($hint) = $elsewhere =~ /(SELECT cron\.schedule_in_database\(.*\);)/;
is( $node->safe_psql('postgres', $hint) > 0, 1, 'what the hint says works there');
is( $node->safe_psql(
		'postgres',
		"SELECT command, database FROM cron.job WHERE database = 'elsewhere'"),
	"SELECT trigger_idem.schedule_fire('it''s')|elsewhere",
	'and makes a job for here');
$node->safe_psql('elsewhere',
	"SELECT trigger_idem.schedule_create('it''s', '* * * * *', 'task', cron_job => false)");
# a name too long for pg_cron is a hash, and another one for each database
($hint) = error_of($node, $superuser,
	"SELECT trigger_idem.schedule_create(repeat('s', 255), '0 0 1 1 *', 'task')", 'elsewhere') =~ /(SELECT cron\.schedule_in_database\(.*\);)/;
$node->safe_psql('postgres', $hint);
$node->safe_psql('postgres', "SELECT trigger_idem.schedule_create(repeat('s', 255), '0 0 1 1 *', 'task')");
is( $node->safe_psql(
		'postgres',
		"SELECT count(*), count(DISTINCT jobname), bool_and(jobname ~ '^trigger_idem \\w+ [0-9a-f]{32}\$') FROM cron.job WHERE command LIKE '%sssss%'"),
	'2|2|t',
	'a schedule with a long name has a job here and there');
$node->safe_psql('postgres', "SELECT trigger_idem.schedule_drop(repeat('s', 255)); SELECT cron.unschedule(jobid) FROM cron.job WHERE command LIKE '%sssss%'");

my $without = new_server('without');
$without->safe_psql('postgres', "SELECT trigger_idem.task_create('task')");
like(
	error_of($without, $superuser, "SELECT trigger_idem.schedule_create('s', '* * * * *', 'task')"),
	qr/ERROR:  0A000: pg_cron is not loaded\nHINT:  Add pg_cron to shared_preload_libraries/,
	'a server without pg_cron');
$probe->start;
$probe->safe_psql('postgres', "CREATE EXTENSION trigger_idem; SELECT trigger_idem.task_create('task')");
like(
	error_of($probe, $superuser, "SELECT trigger_idem.schedule_create('s', '* * * * *', 'task')"),
	qr/ERROR:  0A000: extension pg_cron is not installed\nHINT:  CREATE EXTENSION pg_cron/,
	'pg_cron without its extension');
$probe->stop;

# ---------- Jobs, together with schedules ----------

my $count = "SELECT count(*) FROM cron.job WHERE jobname = 'trigger_idem schedule other'";
$node->safe_psql('postgres', <<'EOSQL', extra_params => [ '-U', 'alice' ]);
BEGIN;
SELECT trigger_idem.schedule_create('other', '0 0 1 1 *', 'task');
ROLLBACK;
EOSQL
is($node->safe_psql('postgres', $count), '0', 'a schedule that is rolled back has no job');
as_alice($node, "SELECT trigger_idem.schedule_create('other', '0 0 1 1 *', 'task')");
is($node->safe_psql('postgres', $count), '1', 'one that is committed has');
$node->safe_psql('postgres', "SELECT trigger_idem.schedule_create('other', '0 0 2 1 *', 'task')");
is( $node->safe_psql(
		'postgres', "SELECT schedule, username FROM cron.job WHERE jobname = 'trigger_idem schedule other'"),
	'0 0 2 1 *|alice', 'replaced by a superuser, it stays the job of the owner');
$node->safe_psql('postgres', 'ALTER ROLE bob NOLOGIN; GRANT alice TO bob; GRANT USAGE ON SCHEMA cron TO bob');
$node->safe_psql('postgres',
	"SET ROLE bob; SELECT trigger_idem.schedule_create('other', '0 0 3 1 *', 'task')");
is( $node->safe_psql(
		'postgres', "SELECT schedule, username FROM cron.job WHERE jobname = 'trigger_idem schedule other'"),
	'0 0 3 1 *|alice', 'by a member of the owner, too');
as_alice($node, "SELECT trigger_idem.schedule_create('other', '\@yearly', 'task')");
is( $node->safe_psql(
		'postgres', "SELECT schedule FROM cron.job WHERE jobname = 'trigger_idem schedule other'"),
	'0 0 1 1 *', 'yearly, in an expression that every pg_cron fires');
as_alice($node, "SELECT trigger_idem.schedule_create('other', '0 0 3 1 *', 'task', cron_job => false)");
is($node->safe_psql('postgres', $count), '0', 'without a job there is none');
as_alice($node, "SELECT trigger_idem.schedule_create('other', '0 0 3 1 *', 'task')");
is(as_alice($node, "SELECT trigger_idem.schedule_drop('other')"), 't', 'a schedule is dropped');
is($node->safe_psql('postgres', $count), '0', 'and its job with it');
$node->safe_psql('postgres', 'CREATE ROLE carol; GRANT USAGE ON SCHEMA cron TO carol; SELECT trigger_idem.access_grant($$carol$$, $$work$$)');
$node->safe_psql('postgres',
	"SET ROLE carol; SELECT trigger_idem.schedule_create('of ' || n, '0 0 1 1 *', 'task') FROM unnest('{carol,nobody}'::text[]) n");
$node->safe_psql('postgres', 'REVOKE USAGE ON SCHEMA cron FROM carol');
like(
	error_of($node, $superuser, "SET ROLE carol; SELECT trigger_idem.schedule_drop('of carol')"),
	qr/ERROR:  42501: role "carol" may not use pg_cron/,
	'without rights on pg_cron a schedule that has a job cannot be dropped');
is($node->safe_psql('postgres', "SELECT trigger_idem.schedule_drop('of carol')"),
	't', 'but by a superuser');
$node->safe_psql('postgres', 'DROP OWNED BY carol; DROP ROLE carol');
$node->safe_psql('postgres', "SELECT trigger_idem.schedule_create('of nobody', '0 0 1 1 *', 'task')");
is( $node->safe_psql(
		'postgres', "SELECT count(*), count(*) FILTER (WHERE username = 'carol') FROM cron.job WHERE jobname LIKE '% of %'"),
	'1|0', 'a schedule of a role that is gone becomes that of the superuser who replaces it');
$node->safe_psql('postgres', "SELECT trigger_idem.schedule_drop('of nobody')");
my $long = 'x' x 250;
as_alice($node, "SELECT trigger_idem.schedule_create('${long}$_', '0 0 1 1 *', 'task') FROM generate_series(1, 1)") foreach 1 .. 2;
is( $node->safe_psql(
		'postgres', "SELECT count(*), count(DISTINCT jobname), max(length(jobname)) < 64 FROM cron.job WHERE command LIKE '%xxx%'"),
	'2|2|t', 'long names have jobs of their own');
as_alice($node, "SELECT trigger_idem.schedule_drop('${long}$_')") foreach 1 .. 2;
is( $node->safe_psql('postgres', "SELECT count(*) FROM cron.job WHERE command LIKE '%xxx%'"),
	'0', 'and these are dropped');
like(
	error_of($node, $superuser, "SET ROLE bob; SELECT trigger_idem.work_schedule()"),
	qr/WARNING:  01000: pg_cron cannot execute the job\nDETAIL:  Role "bob" may not log in/,
	'a role that may not log in is warned');

# ---------- The minute ----------

$node->poll_query_until('postgres',
	"SELECT count(DISTINCT payload ->> 'schedule_id') = 4 FROM trigger_idem.runs
	 WHERE payload ->> 'tick' > to_char('$fired_before'::timestamptz AT TIME ZONE 'UTC' + interval '4 minutes', 'YYYY-MM-DD\"T\"HH24:MI:SS')")
  or die 'pg_cron fired nothing: ' . $node->safe_psql('postgres', 'SELECT command, status, return_message FROM cron.job_run_details');

is( $node->safe_psql(
		'postgres',
		"SELECT DISTINCT d.status, d.username FROM cron.job_run_details d JOIN cron.job j USING (jobid)
		 WHERE j.jobname LIKE 'trigger_idem schedule%' AND d.database = 'postgres' AND d.status <> 'running'"),
	'succeeded|alice', 'jobs were executed as their owner');
my @job = ticks($node, 'job');
my %seen;
is(scalar(grep { $seen{$_}++ } @job), 0, 'one run a tick');
like($job[-1], qr/:00Z$/, 'which is a full minute');
is( as_alice($node, "SELECT is_cached FROM trigger_idem.schedule_fire('job', '$job[-1]')"),
	't', 'and a second server that fires the same tick gets the same run');
is( as_alice($node, "SELECT payload ->> 'p', idempotency_key_scope FROM trigger_idem.runs WHERE payload ->> 'tick' = '$job[-1]' AND payload ->> 'schedule_id' = 'job'"),
	'1|schedule', 'with the payload of the schedule');

# The server was down over at least three ticks.
my @none = ticks($node, 'down none');
my @latest = ticks($node, 'down latest');
my @all = ticks($node, 'down all');
my $expected = $node->safe_psql('postgres', <<"EOSQL");
SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM generate_series('$fired_before'::timestamptz, '$all[-1]', '1 minute') t
EOSQL
my @expected = split /\n/, $expected;
cmp_ok(scalar(@expected), '>=', 5, 'at least three ticks were missed');
is("@all", "@expected", 'all: each of them is made up');
is("@latest[0 .. 2]", join(' ', @expected[ 0, -2, -1 ]), 'latest: only the last of them')
  if @latest == 3;
is("@none[0 .. 1]", join(' ', @expected[ 0, -1 ]), 'none: none of them') if @none == 2;
cmp_ok(scalar(@latest), '<', scalar(@all), 'latest: fewer than all');
cmp_ok(scalar(@none), '<', scalar(@latest), 'none: fewer than that');

# work_schedule()
$node->poll_query_until('postgres', 'SELECT count(*) >= 5 FROM done')
  or die 'pg_cron has worked nothing: '
  . $node->safe_psql('postgres', "SELECT command, status, return_message FROM cron.job_run_details WHERE command LIKE 'CALL%'");
is($node->safe_psql('postgres', 'SELECT DISTINCT who FROM done'), 'alice', 'pg_cron works runs, as the task says');

# The promoted standby
$standby->poll_query_until('postgres',
	"SELECT count(*) >= 4 FROM trigger_idem.runs WHERE payload ->> 'schedule_id' = 'failover'")
  or die 'the promoted standby fired nothing';
my @failover = ticks($standby, 'failover');
$expected = $standby->safe_psql('postgres', <<"EOSQL");
SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM generate_series('$before_failover'::timestamptz, '$failover[-1]', '1 minute') t
EOSQL
is(join("\n", @failover), $expected, 'a promoted standby fires, and makes up what was missed: one run a tick');
$standby->stop;

# Where pg_cron has intervals of seconds
SKIP:
{
	skip 'this pg_cron has no seconds', 2 if !$is_new;
	as_alice($node, "SELECT trigger_idem.schedule_create('seconds', '2 seconds', 'task')");
	$node->poll_query_until('postgres',
		"SELECT count(*) >= 3 FROM trigger_idem.runs WHERE payload ->> 'schedule_id' = 'seconds'")
	  or die 'pg_cron fired nothing';
	as_alice($node, "SELECT trigger_idem.schedule_drop('seconds')");
	my @seconds = ticks($node, 'seconds');
	my %of;
	is(scalar(grep { $of{$_}++ } @seconds), 0, 'seconds: one run a tick');
	is(scalar(grep { !/[02468]Z$/ } @seconds), 0, 'ticks are multiples of the interval');
}

# A job in another database
$node->poll_query_until('elsewhere', 'SELECT count(*) >= 1 FROM trigger_idem.runs')
  or die 'nothing was fired in the other database';
pass('a job of another database fires here');

# ---------- Dumps ----------

$node->safe_psql('postgres', "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname LIKE 'trigger_idem work%' OR database = 'elsewhere'");
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', $conf);
$other->start;
$other->safe_psql('postgres', 'CREATE ROLE alice LOGIN; CREATE ROLE bob');
$other->command_ok([ 'pg_restore', '--exit-on-error', '-d', $other->connstr('postgres'), $dump ],
	'restored on another server');
my $schedules = 'SELECT schedule_id, environment, cron, task_id, catch_up, last_tick, last_run_id, owner, payload, cron_job FROM trigger_idem.schedules ORDER BY 1';
my $at = $other->safe_psql('postgres', "SELECT max(payload ->> 'tick') FROM trigger_idem.runs WHERE payload ->> 'schedule_id' = 'job'");
is( as_alice($other, "SELECT is_cached FROM trigger_idem.schedule_fire('job', '$at')"),
	't', 'what was fired before is not fired again');
is( $other->safe_psql('postgres', "SELECT count(*) FROM cron.job WHERE jobname LIKE 'trigger_idem schedule%'"),
	'4', 'the jobs are there, too');
is( $other->safe_psql('postgres', 'SELECT count(*) FROM trigger_idem.schedules'),
	'4', 'and the schedules');
$other->stop;

$node->safe_psql('postgres', 'CREATE DATABASE beside TEMPLATE template0');
$node->command_ok(
	[ 'pg_dump', '-Fc', '--extension=trigger_idem', '--exclude-schema=cron', '-f', $dump, $node->connstr('postgres') ],
	'dump without pg_cron');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('beside'), $dump ],
	'restored beside the original');
is( $node->safe_psql('postgres', "SELECT count(*) FROM cron.job WHERE database = 'beside'"),
	'0', 'a copy has no jobs');
is( $node->safe_psql('beside', "SELECT is_cached FROM trigger_idem.schedule_fire('job', '$at')"),
	't', 'and fires nothing again when it is called');

# ---------- Without the task, without the extension ----------

as_alice($node, "SELECT trigger_idem.task_drop('task')");
my $job = as_alice($node, "SELECT command FROM cron.job WHERE jobname = 'trigger_idem schedule job'");
like(
	error_of($node, 'alice', $job),
	qr/ERROR:  42704: task "task" does not exist/,
	'without its task a job fails');
$node->safe_psql('postgres', 'DROP EXTENSION trigger_idem CASCADE');
like(error_of($node, 'alice', $job), qr/ERROR:  3F000:/, 'without the extension, too');
$node->safe_psql('postgres', <<'EOSQL');
CREATE EXTENSION trigger_idem;
SELECT trigger_idem.task_create('task');
SELECT trigger_idem.schedule_create('job', '* * * * *', 'task');
DROP EXTENSION pg_cron;
SELECT trigger_idem.schedule_drop('job');
EOSQL
is($node->safe_psql('postgres', 'SELECT count(*) FROM trigger_idem.schedules'),
	'0', 'without pg_cron a schedule can be dropped');

$node->stop;
$without->stop;
done_testing();
