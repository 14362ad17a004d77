CREATE TYPE trigger_idem.run_status AS ENUM (
	'delayed', 'queued', 'executing', 'waiting',
	'completed', 'failed', 'crashed', 'timed_out', 'canceled', 'expired');
COMMENT ON TYPE trigger_idem.run_status IS
	'Where a run stands; the first four are of unfinished runs, the others are final';
