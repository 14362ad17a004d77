-- Who may do what.  Roles are stored by name, so that a dump restores anywhere;
-- task_id is empty where the access is for all tasks.  See the view access_in_force.
CREATE TABLE trigger_idem.access_entry (
	role text COLLATE pg_catalog."C" NOT NULL,
	access text COLLATE pg_catalog."C" NOT NULL,
	task_id text COLLATE pg_catalog."C" NOT NULL,
	granted_by text COLLATE pg_catalog."C" NOT NULL,
	granted_at timestamptz NOT NULL,
	CONSTRAINT access_entry_pkey PRIMARY KEY (role, access, task_id)
);

CREATE FUNCTION trigger_idem.access_grant(
	role regrole,
	access text,
	task_id text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_access_grant';
COMMENT ON FUNCTION trigger_idem.access_grant(regrole, text, text) IS
	'Let a role trigger, monitor, work or administer one task or all';

CREATE FUNCTION trigger_idem.access_revoke(
	role regrole,
	access text,
	task_id text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_access_revoke';
COMMENT ON FUNCTION trigger_idem.access_revoke(regrole, text, text) IS
	'Take an access away from a role; without a task, that of single tasks too';
