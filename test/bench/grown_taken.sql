\if :warm = 0
SET enable_seqscan = off;
SELECT count(key_id), (SELECT count(*) FROM (SELECT created_at FROM trigger_idem.idempotency_key ORDER BY key_id OFFSET 0) k) FROM trigger_idem.idempotency_key;
\set warm 1
\endif
\set n random(1, :keys)
SELECT * FROM trigger_idem.trigger_task('grown', '{"order": 4711, "currency": "EUR", "lines": [{"sku": "A-1", "count": 2}, {"sku": "B-22", "count": 1}], "customer": "c-00042"}', 'grown order number' || 100000000000000000 + :n);
