-- run_progress(): telling how far a run has come.  That others see it before the
-- commit needs a second session: test/tap/016_progress.pl.

-- Each tells, and what it and the table then know of it goes to the log
CREATE FUNCTION helper.progress_log(what text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO helper.log (line) SELECT format('%s: %s %s, written %s', what, p.fraction, p.message, e.progress)
	FROM trigger_idem.run_progress_of(trigger_idem.current_run_id()) p, trigger_idem.queue_entry e
	WHERE e.run_id = trigger_idem.current_run_id();
$$;
CREATE PROCEDURE helper.progress_procedure() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM helper.progress_log('before');
	PERFORM trigger_idem.run_progress(0, 'nothing');
	PERFORM trigger_idem.run_progress(0.25, 'a quarter');
	PERFORM helper.progress_log('told');
	COMMIT;
	PERFORM helper.progress_log('committed');
	BEGIN
		PERFORM trigger_idem.run_progress(0.5);
		RAISE EXCEPTION 'undone';
	EXCEPTION WHEN raise_exception THEN
	END;
	-- what happens does happen, though a savepoint is rolled back
	PERFORM helper.progress_log('rolled back');
	COMMIT;
	IF trigger_idem.current_attempt() = 1 THEN
		PERFORM trigger_idem.run_progress(0.75);
		RAISE EXCEPTION 'again';
	END IF;
	PERFORM trigger_idem.run_progress(1, repeat('ä', 200));
	PERFORM helper.progress_log('last');
END $$;
SELECT trigger_idem.task_create('progress_procedure', 'helper.progress_procedure', queue => 'progress', min_backoff => '0');
SELECT FROM trigger_idem.trigger_task('progress_procedure');
CALL trigger_idem.work('progress', 1);
CALL helper.show_log();
-- between attempts, what was committed is known
SELECT p.fraction, p.message, p.reported_at IS NOT NULL AS has_time FROM trigger_idem.runs r, trigger_idem.run_progress_of(r.run_id) p WHERE task_id = 'progress_procedure';
SELECT event, description FROM trigger_idem.runs r, trigger_idem.run_timeline(r.run_id) WHERE task_id = 'progress_procedure' AND event = 'progress';
SELECT regexp_replace((regexp_match(trigger_idem.run_page(run_id), '<section aria-labelledby="progress">.*?</section>'))[1], '<time.*</time>', 'TIME') AS page
FROM trigger_idem.runs WHERE task_id = 'progress_procedure';
CALL trigger_idem.work('progress');
CALL helper.show_log();
-- a run that is final has none
SELECT status, p.* FROM trigger_idem.runs r, trigger_idem.run_progress_of(r.run_id) p WHERE task_id = 'progress_procedure';

-- a transaction that only reads tells, and writes nothing
CREATE PROCEDURE helper.progress_reads_only() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_progress(0.25);
	COMMIT;
	SET TRANSACTION READ ONLY;
	PERFORM trigger_idem.run_progress(0.5);
	COMMIT;
	PERFORM helper.progress_log('read only');
END $$;
SELECT trigger_idem.task_create('progress_reads_only', 'helper.progress_reads_only', queue => 'progress');
SELECT FROM trigger_idem.trigger_task('progress_reads_only');
CALL trigger_idem.work('progress');
CALL helper.show_log();

-- it is no write that a wait would undo, and is there while the run waits for more
CREATE FUNCTION helper.progress_waits() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM trigger_idem.run_progress(0.1, 'before the wait');
	PERFORM trigger_idem.wait_for('an hour', '1 hour');
END $$;
SELECT trigger_idem.task_create('progress_waits', 'helper.progress_waits', queue => 'progress');
SELECT FROM trigger_idem.trigger_task('progress_waits');
CALL trigger_idem.work('progress');
SELECT r.status, a.error FROM trigger_idem.runs r JOIN trigger_idem.attempts a USING (run_id) WHERE task_id = 'progress_waits';

-- applications: with the commit
SELECT trigger_idem.task_create('progress_application', queue => 'progress_application');
SELECT count(trigger_idem.trigger_task('progress_application')) FROM generate_series(1, 2);
SELECT count(*) FROM trigger_idem.run_claim('w', 'progress_application', 2, '1 hour');
SELECT run_id AS first_run_id FROM trigger_idem.runs WHERE task_id = 'progress_application' ORDER BY run_id LIMIT 1 \gset
SELECT run_id AS second_run_id FROM trigger_idem.runs WHERE task_id = 'progress_application' AND run_id <> :'first_run_id' \gset
BEGIN;
SELECT trigger_idem.run_enter(:'first_run_id', 1);
SELECT trigger_idem.run_progress(0.3, '<b>third</b>');
SELECT * FROM trigger_idem.run_progress_of(:'first_run_id');
COMMIT;
SELECT fraction, message FROM trigger_idem.run_progress_of(:'first_run_id');
BEGIN;
SELECT trigger_idem.run_enter(:'first_run_id', 1);
SELECT trigger_idem.run_progress(0.9);
ROLLBACK;
SELECT fraction FROM trigger_idem.run_progress_of(:'first_run_id');
-- the run that is current at the commit is not the one that told
BEGIN;
SAVEPOINT s;
SELECT trigger_idem.run_enter(:'first_run_id', 1);
SELECT trigger_idem.run_progress(0.9);
RELEASE s;
SELECT trigger_idem.run_enter(:'second_run_id', 1);
COMMIT;
SELECT fraction FROM trigger_idem.run_progress_of(:'second_run_id');
-- told in a savepoint that is rolled back, in a transaction that is prepared: the
-- next one does not write it
BEGIN;
SAVEPOINT s;
SELECT trigger_idem.run_enter(:'second_run_id', 1);
SELECT trigger_idem.run_progress(0.9);
ROLLBACK TO s;
PREPARE TRANSACTION 'progress';
BEGIN;
SELECT trigger_idem.run_enter(:'second_run_id', 1);
COMMIT;
ROLLBACK PREPARED 'progress';
SELECT fraction FROM trigger_idem.run_progress_of(:'second_run_id');
-- told and ended in one transaction
BEGIN;
SELECT trigger_idem.run_enter(:'first_run_id', 1);
SELECT trigger_idem.run_progress(1);
SELECT trigger_idem.run_complete(:'first_run_id', 1);
COMMIT;
SELECT status FROM trigger_idem.runs WHERE run_id = :'first_run_id';

-- an index that an administrator has added may run SQL, when the commit writes it too
CREATE FUNCTION helper.progress_index(message text) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN (SELECT count(*) FROM helper.log);
END $$;
CREATE INDEX progress_idx ON trigger_idem.queue_entry (helper.progress_index(progress_message));
CREATE PROCEDURE helper.progress_indexed() LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 1 .. 3 LOOP
		PERFORM trigger_idem.run_progress(n / 10.0, n::text);
		COMMIT;
	END LOOP;
	INSERT INTO helper.log (line) SELECT 'written ' || e.progress_message FROM trigger_idem.queue_entry e
	WHERE e.run_id = trigger_idem.current_run_id();
END $$;
SELECT trigger_idem.task_create('progress_indexed', 'helper.progress_indexed', queue => 'progress_indexed');
SELECT FROM trigger_idem.trigger_task('progress_indexed');
CALL trigger_idem.work('progress_indexed');
CALL helper.show_log();
BEGIN;
SELECT trigger_idem.run_enter(:'second_run_id', 1);
SELECT trigger_idem.run_progress(0.9, 'indexed');
COMMIT;
SELECT progress_message FROM trigger_idem.queue_entry WHERE run_id = :'second_run_id';
DROP INDEX trigger_idem.progress_idx;

-- errors
SELECT helper.error_of('SELECT trigger_idem.run_progress(0.5)');
SELECT helper.error_of('SELECT trigger_idem.run_progress_of(NULL)');
SELECT helper.error_of($$SELECT trigger_idem.run_progress_of('00000000-0000-7000-8000-000000000000')$$);
CREATE FUNCTION helper.progress_errors() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO helper.log (line) SELECT helper.error_of(format('SELECT trigger_idem.run_progress(%s)', args))
	FROM unnest(ARRAY['NULL', '-0.01', '1.01', '''NaN''', '''Infinity''', '0', '1']) args;
	INSERT INTO helper.log (line) VALUES (helper.error_of($e$SELECT trigger_idem.run_progress(0, repeat('x', 201))$e$));
END $$;
SELECT trigger_idem.task_create('progress_errors', 'helper.progress_errors', queue => 'progress_errors');
SELECT FROM trigger_idem.trigger_task('progress_errors');
CALL trigger_idem.work('progress_errors');
CALL helper.show_log();
SELECT count(trigger_idem.run_cancel(run_id)) FROM trigger_idem.runs WHERE task_id LIKE 'progress%' AND finished_at IS NULL;
