-- The deliveries as they arrived, one row a line; :file is their file.  Read as
-- a whole and split here: COPY would give backslashes and \. a meaning.
CREATE SCHEMA demo;

CREATE TABLE demo.line (
	line int CONSTRAINT line_pkey PRIMARY KEY,
	content text NOT NULL,
	problem text,
	delivery text,
	message jsonb
);

-- What keeps a line from being a delivery, NULL when nothing does.
CREATE FUNCTION demo.problem(content text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	message jsonb;
	reason text;
BEGIN
	message := content::jsonb;
	IF jsonb_typeof(message) <> 'object' THEN
		RETURN 'not a JSON object';
	END IF;
	IF jsonb_typeof(message -> 'delivery') IS DISTINCT FROM 'string' OR message ->> 'delivery' = '' THEN
		RETURN 'no "delivery", which must be a text';
	END IF;
	IF length(message ->> 'delivery') > 2048 THEN
		RETURN 'a "delivery" of more than 2048 characters';
	END IF;
	IF jsonb_typeof(message -> 'payload') IS DISTINCT FROM 'object' THEN
		RETURN 'no "payload", which must be an object';
	END IF;
	RETURN NULL;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
	GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
	RETURN 'not JSON: ' || coalesce(nullif(reason, ''), SQLERRM);
END
$$;

INSERT INTO demo.line (line, content, problem)
SELECT line, content, demo.problem(content)
FROM string_to_table(pg_read_file(:'file'), E'\n') WITH ORDINALITY AS file (content, line)
WHERE content !~ '^\s*$';

UPDATE demo.line
SET message = content::jsonb, delivery = content::jsonb ->> 'delivery'
WHERE problem IS NULL;
