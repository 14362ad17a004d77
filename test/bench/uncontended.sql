\set n random(100000000000000000, 100000000000009999)
SELECT * FROM trigger_idem.trigger_task('bench', '{"order": 4711, "currency": "EUR", "lines": [{"sku": "A-1", "count": 2}, {"sku": "B-22", "count": 1}], "customer": "c-00042"}', 'bench order number' || :n);
