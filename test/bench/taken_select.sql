\set n random(100000000000000000, 100000000000009999)
SELECT id, status FROM bench.single WHERE key = 'bench order number' || :n;
