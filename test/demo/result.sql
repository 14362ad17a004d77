-- What happened, and what must have: the right-hand numbers come from the lines
-- of the file alone.  :service is what the service counted.
CREATE TABLE demo.result AS
WITH wanted AS (
	SELECT count(*) AS deliveries, count(DISTINCT delivery) AS distinct_deliveries
	FROM demo.line
),
-- what each delivery should have been charged: it is the first arrival that counts
due AS (
	SELECT DISTINCT ON (delivery) delivery, demo.amount(message) AS amount
	FROM demo.line
	ORDER BY delivery, line
),
booked_right AS (
	SELECT count(*) AS deliveries
	FROM due
	WHERE (SELECT array_agg(b.amount) FROM demo.booking b WHERE b.delivery = due.delivery)
		= ARRAY[due.amount]
)
SELECT result.position, result.what, result.number::bigint, result.wanted::bigint
FROM wanted, (VALUES (:'service'::jsonb)) AS service (counts), booked_right,
LATERAL (VALUES
	(1, 'deliveries', (SELECT count(*) FROM demo.receipt), wanted.deliveries),
	(2, 'distinct deliveries', (SELECT count(DISTINCT run_id) FROM demo.receipt),
		wanted.distinct_deliveries),
	(3, 'deliveries that found their run there already',
		(SELECT count(*) FROM demo.receipt WHERE is_cached),
		wanted.deliveries - wanted.distinct_deliveries),
	(4, 'runs', (SELECT count(*) FROM trigger_idem.runs), wanted.distinct_deliveries),
	(5, 'runs completed', (SELECT count(*) FROM trigger_idem.runs WHERE status = 'completed'),
		wanted.distinct_deliveries),
	(6, 'attempts', (SELECT count(*) FROM trigger_idem.attempts), NULL),
	(7, 'attempts that crashed',
		(SELECT count(*) FROM trigger_idem.attempts WHERE status = 'crashed'), NULL),
	(8, 'attempts that failed',
		(SELECT count(*) FROM trigger_idem.attempts WHERE status = 'failed'), NULL),
	(9, 'steps done (two a run)', (SELECT count(*) FROM trigger_idem.steps),
		2 * wanted.distinct_deliveries),
	(10, 'steps replayed from memory',
		(SELECT coalesce(sum(steps_replayed), 0) FROM trigger_idem.attempts), NULL),
	(11, 'calls at the service', (service.counts ->> 'calls')::bigint, NULL),
	(12, 'distinct keys at the service (charges)', (service.counts ->> 'keys')::bigint,
		wanted.distinct_deliveries),
	(13, 'rows booked', (SELECT count(*) FROM demo.booking), wanted.distinct_deliveries),
	(14, 'different charges booked', (SELECT count(DISTINCT charge_id) FROM demo.booking),
		wanted.distinct_deliveries),
	(15, 'deliveries booked once with the right amount', booked_right.deliveries,
		wanted.distinct_deliveries)
) AS result (position, what, number, wanted);
