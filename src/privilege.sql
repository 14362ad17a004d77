-- Nothing is for PUBLIC: access_grant() grants each role what it needs.
REVOKE ALL ON SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA trigger_idem FROM PUBLIC;
REVOKE ALL ON TYPE trigger_idem.run_status FROM PUBLIC;

-- A dump carries the data of every table.
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.access_entry', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.environment', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.task', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.idempotency_group', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.idempotency_key', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.run', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.queue_entry', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.attempt', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.step', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.global_step', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.paused_queue', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.wait', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.awaited', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.wait_token', '');
SELECT pg_catalog.pg_extension_config_dump('trigger_idem.schedule', '');
