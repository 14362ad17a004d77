# Databases of other encodings.
#
# Keys and payloads are hashed as UTF-8, and members of an object in the order of that:
#
# - the same key, and the same payload, have the same hash in every encoding
# - so a key that was made in one database is the one that another one makes
# - a key, a payload and an error are shown as they were given

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use TriggerIdem;

my $node = new_server('main');
my @encodings = ('UTF8', 'LATIN1', 'LATIN9', 'KOI8R', 'EUC_JP');

# In each encoding, characters that it has; in LATIN1 and in KOI8-R their order is not
# that of Unicode
my %texts = (
	UTF8 => [ 'größer', 'Žluťoučký', 'привет', '日本語' ],
	LATIN1 => ['größer'],
	LATIN9 => [ 'größer', 'Ž' ],
	KOI8R => ['привет'],
	EUC_JP => [ 'привет', '日本語' ]);

sub answer
{
	my ($database, $sql) = @_;

	return $node->safe_psql($database, "SET client_encoding = 'UTF8'; $sql");
}

foreach my $encoding (@encodings)
{
	$node->safe_psql('postgres',
		"CREATE DATABASE in_\L$encoding\E ENCODING '$encoding' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
	$node->safe_psql("in_\L$encoding", <<'EOSQL');
CREATE EXTENSION trigger_idem;
CREATE FUNCTION fails(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE '%', payload #>> '{}'; END $$;
SELECT trigger_idem.task_create('fails', 'fails', max_attempts => 1);
EOSQL
}

foreach my $encoding (@encodings)
{
	foreach my $text (@{ $texts{$encoding} })
	{
		my $key = "SELECT trigger_idem.idempotency_key_create('$text'), trigger_idem.idempotency_key_create(ARRAY['$text', 'b'])";
		# members that change places where bytes and characters do
		my $payload = "SELECT trigger_idem.idempotency_key_from_payload(jsonb_build_object('$text', 1, substr('$text', 2), 2, reverse('$text'), 3, 'z', '$text'))";

		is(answer("in_\L$encoding", $key), answer('in_utf8', $key), "keys of $text in $encoding");
		is(answer("in_\L$encoding", $payload), answer('in_utf8', $payload), "a payload of $text in $encoding");
		is( answer("in_\L$encoding", <<"EOSQL"),
SELECT FROM trigger_idem.trigger_task('fails', '"$text"', '$text');
CALL trigger_idem.work();
SELECT payload, idempotency_key, error ->> 'message' FROM trigger_idem.runs WHERE idempotency_key = '$text';
EOSQL
			"1\n\"$text\"|$text|$text",
			"what is shown of it");
	}
}

foreach my $encoding (@encodings)
{
	is( answer("in_\L$encoding", <<'EOSQL'), "t|t", "pages in $encoding");
SELECT bool_and(trigger_idem.run_page(run_id) LIKE '%>' || idempotency_key || '<%'), bool_and(trigger_idem.runs_page() LIKE '%>' || idempotency_key || '<%')
FROM trigger_idem.runs;
EOSQL
}

# A character that the database's encoding has not is refused by the server, and nothing is left
my ($code, $stdout, $stderr) = $node->psql('in_latin1',
	"SET client_encoding = 'UTF8'; SELECT trigger_idem.trigger_task('fails', NULL, '日本語')");
like($stderr, qr/has no equivalent in encoding "LATIN1"/, 'a key that cannot be stored');

$node->stop;
done_testing();
