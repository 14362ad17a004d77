\echo Use "CREATE EXTENSION trigger_idem" to load this file. \quit

-- A plain CREATE: a schema that somebody planted before makes this fail
-- instead of becoming ours.
CREATE SCHEMA trigger_idem;

COMMENT ON SCHEMA trigger_idem IS 'Work that must happen once: tasks, runs, idempotency keys, steps';
