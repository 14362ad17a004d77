-- A task that charges through a service outside the database and books the
-- charge inside it.
CREATE EXTENSION trigger_idem;
CREATE EXTENSION plperlu;

-- No unique constraint on purpose: a delivery that is booked twice shall be seen.
CREATE TABLE demo.booking (
	run_id uuid NOT NULL,
	delivery text NOT NULL,
	charge_id text NOT NULL,
	amount numeric NOT NULL,
	booked_at timestamptz NOT NULL
);

-- What a delivery is charged: the amount in its payload, else 100.
CREATE FUNCTION demo.amount(message jsonb) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE jsonb_typeof(message #> '{payload,amount}')
		WHEN 'number' THEN (message #>> '{payload,amount}')::numeric
		ELSE 100
	END
$$;

-- The first step: asks the service for a charge.  It hands on the key that it
-- was given, which is the same at every attempt of a run.  So if the database
-- dies after the service has charged but before the answer is on disk, the next
-- attempt asks again with the same key and gets the same charge.
CREATE FUNCTION demo.charge(idempotency_key text, args jsonb) RETURNS jsonb
LANGUAGE plperlu
SET search_path = pg_catalog, pg_temp
AS $$
	use strict;
	use warnings;
	use HTTP::Tiny;

	my ($idempotency_key, $args) = @_;
	my $setting = spi_exec_query("SELECT current_setting('demo.service_url') AS url");
	my $url = $setting->{rows}[0]{url} . '/charges';

	utf8::encode($args);
	my $response = HTTP::Tiny->new(timeout => 10)->post($url, {
		headers => {
			'Content-Type' => 'application/json',
			'Idempotency-Key' => $idempotency_key,
		},
		content => $args,
	});

	# an error fails the attempt: nothing is remembered, and it is tried again
	die "charging failed: $response->{status} $response->{reason}\n" unless $response->{success};
	return $response->{content};
$$;

-- The second step: books a charge.  The row and the memory of this step commit
-- together, so it needs no key to be done once.
CREATE FUNCTION demo.book(idempotency_key text, args jsonb) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO demo.booking (run_id, delivery, charge_id, amount, booked_at)
	VALUES (trigger_idem.current_run_id(), args ->> 'delivery', args ->> 'id',
		(args ->> 'amount')::numeric, clock_timestamp())
$$;

-- The handler.  It is a procedure because a step that reaches outside the
-- database should be remembered as soon as it is done, whatever happens next:
-- COMMIT does that.  After a crash the handler is called again from its first
-- line, and steps that were committed return what they returned before without
-- doing anything.
--
-- A procedure that commits cannot have a SET clause, so it pins its search_path
-- in its first line; the setting ends with the attempt.
CREATE PROCEDURE demo.charge_and_book(message jsonb)
LANGUAGE plpgsql
AS $$
DECLARE
	charge jsonb;
BEGIN
	SET search_path = pg_catalog, pg_temp;

	charge := trigger_idem.run_once('charge', 'demo.charge',
		jsonb_build_object('delivery', message -> 'delivery', 'amount', demo.amount(message)));
	COMMIT;

	PERFORM pg_sleep(0.15);		-- stands for slow work, so that the crash finds runs here

	PERFORM trigger_idem.run_once('book', 'demo.book', charge);
	COMMIT;

	PERFORM pg_sleep(0.05);		-- and here
END
$$;

SELECT trigger_idem.task_create('charge', 'demo.charge_and_book');
