SELECT * FROM trigger_idem.trigger_task('bench', '{"order": 4711, "currency": "EUR", "lines": [{"sku": "A-1", "count": 2}, {"sku": "B-22", "count": 1}], "customer": "c-00042"}', 'contended');
