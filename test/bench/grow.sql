-- Bring the live keys of the task "grown" to :keys.  Their runs are completed and
-- were pruned, as most are in the long run.  The rows are written as
-- trigger_task() would write them, which would take hours.
\set ON_ERROR_STOP on
\o /dev/null
SET synchronous_commit = off;

CREATE FUNCTION pg_temp.part(data bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE RETURN int4send(length(data)) || data;

TRUNCATE trigger_idem.run, trigger_idem.queue_entry;
DELETE FROM trigger_idem.idempotency_key WHERE task_id = 'grown' AND status IS NULL;

INSERT INTO trigger_idem.idempotency_key (key_id, run_id, created_at, expires_at, status,
	idempotency_key, environment, task_id, key, scope, triggered_by)
SELECT encode(substr(sha256(id_prefix || pg_temp.part(hash)), 1, 16), 'hex')::uuid,
	gen_random_uuid(), now(), now() + interval '30 days', 'completed',
	hash, 'default', 'grown', key, 'global', current_user
FROM (
	SELECT key, id_prefix, sha256(key_prefix || pg_temp.part(convert_to(key, 'UTF8'))) AS hash
	FROM (SELECT 'grown order number' || 100000000000000000 + n AS key
		FROM generate_series((SELECT count(*) + 1 FROM trigger_idem.idempotency_key WHERE task_id = 'grown'), :keys) n) k,
		(SELECT pg_temp.part('trigger_idem key v1') || pg_temp.part('global') AS key_prefix,
			pg_temp.part('trigger_idem key id v1') || pg_temp.part('default') || pg_temp.part('task')
				|| pg_temp.part('grown') AS id_prefix OFFSET 0) p) k;

-- the rows are those of trigger_task(), or it would not find them
DO $$
BEGIN
	IF NOT (SELECT is_cached FROM trigger_idem.trigger_task('grown', idempotency_key => 'grown order number100000000000000001')) THEN
		RAISE 'the keys are not what trigger_task() looks for';
	END IF;
END
$$;
VACUUM (FREEZE, ANALYZE) trigger_idem.idempotency_key;
CHECKPOINT;
