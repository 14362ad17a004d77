CREATE FUNCTION trigger_idem.run_progress(fraction float8, message text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_run_progress';
COMMENT ON FUNCTION trigger_idem.run_progress(float8, text) IS
	'Tell how far the run being executed has come';

CREATE FUNCTION trigger_idem.run_progress_of(
	run_id uuid,
	OUT fraction float8,
	OUT message text,
	OUT reported_at timestamptz)
RETURNS record
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'trigger_idem_run_progress_of';
COMMENT ON FUNCTION trigger_idem.run_progress_of(uuid) IS
	'How far a run has come, as far as it has told';

CREATE FUNCTION trigger_idem.progress_text(fraction float8)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN trim_scale(round(fraction::numeric * 100, 1)) || ' %';
COMMENT ON FUNCTION trigger_idem.progress_text(float8) IS
	'A fraction as a percentage';
