CREATE PROCEDURE trigger_idem.work(
	queue text DEFAULT NULL,
	max_runs int DEFAULT NULL,
	environment text DEFAULT NULL,
	INOUT processed int DEFAULT NULL)
LANGUAGE c
AS 'MODULE_PATHNAME', 'trigger_idem_work';
COMMENT ON PROCEDURE trigger_idem.work(text, int, text, int) IS
	'Work due runs, one transaction and more each, until none is left';
