CREATE FUNCTION trigger_idem.prune(
	finished_before interval DEFAULT '30 days',
	batch int DEFAULT 10000)
RETURNS TABLE (what text, removed bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_prune';
COMMENT ON FUNCTION trigger_idem.prune(interval, int) IS
	'Remove expired keys and steps and runs that finished long ago; repeat until it removes nothing';
