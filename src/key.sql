-- One row for every key that is taken.  key_id is a truncated hash over
-- (environment, group or task, key); the full key stands beside it and is
-- compared on every hit.  status is NULL until the run is final: a hit on a
-- finished run, the common one, reads this row and no other.  Pages keep room
-- for that update, which is HOT.  payload_digest is there where the task wants
-- payloads to be compared.
CREATE TABLE trigger_idem.idempotency_key (
	key_id uuid NOT NULL,
	run_id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz,
	status trigger_idem.run_status,
	idempotency_key bytea NOT NULL,
	environment text COLLATE pg_catalog."C" NOT NULL,
	task_id text COLLATE pg_catalog."C" NOT NULL,
	idempotency_group text COLLATE pg_catalog."C",
	key text COLLATE pg_catalog."C",
	scope text COLLATE pg_catalog."C",
	triggered_by text COLLATE pg_catalog."C" NOT NULL,
	payload_digest bytea,
	CONSTRAINT idempotency_key_pkey PRIMARY KEY (key_id)
) WITH (fillfactor = 90);

CREATE FUNCTION trigger_idem.idempotency_key_create(
	key text,
	scope text DEFAULT 'run',
	run_id uuid DEFAULT NULL,
	attempt int DEFAULT NULL)
RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'trigger_idem_idempotency_key_create';
COMMENT ON FUNCTION trigger_idem.idempotency_key_create(text, text, uuid, int) IS
	'Idempotency key of a text: 64 hexadecimal digits';

CREATE FUNCTION trigger_idem.idempotency_key_create(
	key text[],
	scope text DEFAULT 'run',
	run_id uuid DEFAULT NULL,
	attempt int DEFAULT NULL)
RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'trigger_idem_idempotency_key_create_array';
COMMENT ON FUNCTION trigger_idem.idempotency_key_create(text[], text, uuid, int) IS
	'Idempotency key of several texts, no two lists alike: 64 hexadecimal digits';

CREATE FUNCTION trigger_idem.idempotency_key_from_payload(payload jsonb)
RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'trigger_idem_idempotency_key_from_payload';
COMMENT ON FUNCTION trigger_idem.idempotency_key_from_payload(jsonb) IS
	'Idempotency key of a payload, the same for all that are equal as jsonb: 64 hexadecimal digits';

CREATE FUNCTION trigger_idem.idempotency_key_reset(
	task_id text,
	idempotency_key text,
	environment text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'trigger_idem_idempotency_key_reset';
COMMENT ON FUNCTION trigger_idem.idempotency_key_reset(text, text, text) IS
	'Free a live idempotency key, so that the next trigger makes a new run';
