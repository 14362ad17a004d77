-- Receives every line as a webhook receiver would: each in a transaction of its
-- own, and with the delivery's id as the key, because a sender that got no
-- answer in time delivers again.
CREATE TABLE demo.receipt (
	line int NOT NULL,
	run_id uuid NOT NULL,
	is_cached boolean NOT NULL
);

CREATE PROCEDURE demo.receive()
LANGUAGE plpgsql
AS $$
DECLARE
	arrived record;
BEGIN
	FOR arrived IN SELECT line, delivery, message FROM demo.line ORDER BY line LOOP
		INSERT INTO demo.receipt (line, run_id, is_cached)
		SELECT arrived.line, triggered.run_id, triggered.is_cached
		FROM trigger_idem.trigger_task('charge', arrived.message,
			idempotency_key => arrived.delivery) AS triggered;
		COMMIT;
	END LOOP;
END
$$;

CALL demo.receive();
