-- Environments: isolated key and run spaces of one database.  'default' exists
-- without a row, so that a dump restores over a fresh CREATE EXTENSION.
CREATE TABLE trigger_idem.environment (
	environment text COLLATE pg_catalog."C" NOT NULL,
	role text COLLATE pg_catalog."C",
	CONSTRAINT environment_pkey PRIMARY KEY (environment)
);

CREATE FUNCTION trigger_idem.environment_create(
	environment text,
	role regrole DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_environment_create';
COMMENT ON FUNCTION trigger_idem.environment_create(text, regrole) IS
	'Create an environment, or change the role whose members may use it';

CREATE FUNCTION trigger_idem.environment_drop(environment text)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_environment_drop';
COMMENT ON FUNCTION trigger_idem.environment_drop(text) IS
	'Drop an environment with all that has ended in it; false if there was none';
