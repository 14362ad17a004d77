-- What worker.js and worker.sh work on. Run it once, in a database that has the
-- extension, as the role that the workers log in as.

CREATE TABLE booking (order_id int, charge_id text, run_id uuid);

-- Orders with {"needs_approval": true} wait until somebody completes their token. Only
-- worker.js knows of them.
CREATE TABLE approval (order_id int, token uuid PRIMARY KEY);

-- Stands for a payment service outside, which charges once for each key.
CREATE TABLE payment (
	idempotency_key text PRIMARY KEY,
	charge_id text NOT NULL DEFAULT gen_random_uuid(),
	order_id int NOT NULL,
	calls int NOT NULL DEFAULT 1
);

CREATE FUNCTION pay(key text, order_id int) RETURNS text LANGUAGE sql AS $$
	INSERT INTO payment (idempotency_key, order_id) VALUES (key, order_id)
	ON CONFLICT (idempotency_key) DO UPDATE SET calls = payment.calls + 1
	RETURNING charge_id
$$;

-- A task without a handler is worked by applications.
SELECT trigger_idem.task_create('order', queue => 'orders', max_attempts => 5, lease_duration => '30 seconds');
