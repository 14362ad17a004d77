-- Runs for the dashboard to show: orders that charge a card in two nested steps, wait
-- for a label that another run prints, and mail, which fails the first time.
-- Handlers take a moment, so that the bars of a picture have a width.
CREATE SCHEMA shop;

CREATE FUNCTION shop.authorize(idempotency_key text, args jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT pg_sleep(0.12);
	SELECT jsonb_build_object('authorization', left(idempotency_key, 8), 'amount', args -> 'amount');
$$;
CREATE FUNCTION shop.capture(idempotency_key text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT pg_sleep(0.08);
	SELECT '{"captured": true}'::jsonb;
$$;
CREATE FUNCTION shop.charge(idempotency_key text, args jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	authorized jsonb := trigger_idem.run_once('authorize', 'shop.authorize', args);
BEGIN
	PERFORM trigger_idem.run_once('capture', 'shop.capture');
	RETURN jsonb_build_object('charge', 'ch_' || left(idempotency_key, 12)) || authorized;
END $$;
CREATE FUNCTION shop.label(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT pg_sleep(0.15);
	SELECT jsonb_build_object('tracking', 'AB-' || (payload ->> 'order'));
$$;

CREATE SEQUENCE shop.mails;
CREATE FUNCTION shop.mail(idempotency_key text, args jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(0.06);
	IF nextval('shop.mails') = 1 THEN
		RAISE EXCEPTION 'the mail server is busy' USING ERRCODE = '58000', HINT = 'It usually is not, a moment later.';
	END IF;
	RETURN 'sent to ' || (args ->> 'mail');
END $$;

CREATE PROCEDURE shop.fulfil(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	label jsonb;
BEGIN
	PERFORM trigger_idem.run_once('charge', 'shop.charge', payload);
	COMMIT;
	SELECT output INTO label FROM trigger_idem.trigger_task_and_wait('label', payload);
	PERFORM trigger_idem.run_once('mail', 'shop.mail', payload || label);
END $$;

-- stops at a gate, an advisory lock, in the middle
CREATE PROCEDURE shop.import(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_once_sql('first half', 'SELECT 500');
	PERFORM trigger_idem.run_progress(0.5, 'half of the lines');
	COMMIT;
	PERFORM pg_advisory_lock_shared(1);
	PERFORM pg_advisory_unlock_shared(1);
	PERFORM trigger_idem.run_once_sql('second half', 'SELECT 1000');
END $$;

CREATE FUNCTION shop.broken(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION '</pre><script>document.title = "evil"</script>' USING ERRCODE = 'TI006';
END $$;

CREATE FUNCTION shop.echo(payload jsonb) RETURNS jsonb LANGUAGE sql RETURN payload;

SELECT trigger_idem.task_create('fulfil', 'shop.fulfil', min_backoff => '0.2 s', max_backoff => '0.2 s', max_attempts => 5),
	trigger_idem.task_create('label', 'shop.label', queue => 'printer'),
	trigger_idem.task_create('import', 'shop.import', queue => 'import'),
	trigger_idem.task_create('broken', 'shop.broken', queue => 'broken'),
	trigger_idem.task_create('echo', 'shop.echo', queue => 'echo');
SELECT trigger_idem.environment_create('staging');

SELECT trigger_idem.environment_create('closed', current_user::regrole);

-- who may look, and no more
CREATE ROLE :monitor LOGIN;
SELECT trigger_idem.access_grant(:'monitor', 'monitor');
