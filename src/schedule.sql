-- Schedules: pg_cron's expressions, and the task that is triggered at their ticks.
-- Roles are stored by name, so that a dump restores anywhere.  Ticks are made up
-- from made_up_to on where that is not null, else from last_tick on: it is when the
-- schedule began, until it has fired, and how far a firing came that had too many
-- ticks to make up.
CREATE TABLE trigger_idem.schedule (
	schedule_id text COLLATE pg_catalog."C" NOT NULL,
	environment text COLLATE pg_catalog."C" NOT NULL,
	owner text COLLATE pg_catalog."C" NOT NULL,
	cron text COLLATE pg_catalog."C" NOT NULL,
	task_id text COLLATE pg_catalog."C" NOT NULL,
	payload jsonb,
	catch_up text COLLATE pg_catalog."C" NOT NULL,
	cron_job boolean NOT NULL,
	created_at timestamptz NOT NULL,
	made_up_to timestamptz,
	last_tick timestamptz,
	last_run_id uuid,
	CONSTRAINT schedule_pkey PRIMARY KEY (schedule_id)
);

CREATE FUNCTION trigger_idem.schedule_create(
	schedule_id text,
	cron text,
	task_id text,
	payload jsonb DEFAULT NULL,
	catch_up text DEFAULT 'none',
	environment text DEFAULT NULL,
	cron_job boolean DEFAULT true)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_schedule_create';
COMMENT ON FUNCTION trigger_idem.schedule_create(text, text, text, jsonb, text, text, boolean) IS
	'Have pg_cron trigger a task at the ticks of an expression, or change such a schedule';

CREATE FUNCTION trigger_idem.schedule_drop(schedule_id text)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_schedule_drop';
COMMENT ON FUNCTION trigger_idem.schedule_drop(text) IS
	'Drop a schedule and its job; true if it was there';

CREATE FUNCTION trigger_idem.schedule_fire(
	schedule_id text,
	tick timestamptz DEFAULT NULL,
	OUT run_id uuid,
	OUT is_cached boolean)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_schedule_fire';
COMMENT ON FUNCTION trigger_idem.schedule_fire(text, timestamptz) IS
	'Trigger the task of a schedule, once for each tick';

CREATE FUNCTION trigger_idem.work_schedule(
	cron text DEFAULT '* * * * *',
	queue text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_work_schedule';
COMMENT ON FUNCTION trigger_idem.work_schedule(text, text) IS
	'Have pg_cron call work() as the caller, for a queue or for all';

CREATE FUNCTION trigger_idem.cron_next_tick(
	cron text,
	after timestamptz,
	timezone text DEFAULT NULL)
RETURNS timestamptz
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'trigger_idem_cron_next_tick';
COMMENT ON FUNCTION trigger_idem.cron_next_tick(text, timestamptz, text) IS
	'The first tick of a pg_cron expression after a time, NULL if there is none';
