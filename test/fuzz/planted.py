"""Violations put into the store on purpose: store_check.sql has to find each of them."""

import pathlib
import re

# Runs in every state that the violations need; rolled back with them
SETUP = """
SELECT trigger_idem.task_create('planted', queue => 'planted');
SELECT trigger_idem.task_create('planted handler', 'fuzz.planted', queue => 'planted handler');
SELECT trigger_idem.trigger_task('planted', '1', 'fresh');
SELECT trigger_idem.trigger_task('planted', '2', 'executing', priority => 100);
SELECT trigger_idem.trigger_task('planted', '3', 'failed', priority => 200);
SELECT trigger_idem.trigger_task('planted', '4', 'completed', priority => 300);
SELECT trigger_idem.run_once_end(run_id, attempt, 'step', '1'),
	trigger_idem.run_complete(run_id, attempt, '"done"') FROM trigger_idem.run_claim('w', 'planted');
SELECT trigger_idem.run_fail(run_id, attempt, '"error"', retry_after => '1 hour') FROM trigger_idem.run_claim('w', 'planted');
SELECT trigger_idem.run_claim('w', 'planted');
SELECT trigger_idem.trigger_task('planted handler', to_jsonb(what)) FROM unnest('{time,token,task}'::text[]) what;
"""

RUN = "run_id = (SELECT run_id FROM trigger_idem.run WHERE idempotency_key = '{}')"
FRESH, EXECUTING, FAILED, COMPLETED = (RUN.format(key) for key in ("fresh", "executing", "failed", "completed"))
WAITING = "(SELECT e.{} FROM trigger_idem.queue_entry e JOIN trigger_idem.wait w USING (wait_id) WHERE w.kind = '{}')"

PLANTED = {
    "an unfinished run has no queue entry": f"DELETE FROM trigger_idem.queue_entry WHERE {FRESH}",
    "a final run has a queue entry": f"UPDATE trigger_idem.queue_entry e SET run_id = r.run_id FROM trigger_idem.run r WHERE e.{FRESH} AND r.{COMPLETED}",
    "a queue entry has no run": f"DELETE FROM trigger_idem.run WHERE {FRESH}",
    "a run and its queue entry disagree": f"UPDATE trigger_idem.queue_entry SET queue = 'other' WHERE {FRESH}",
    "a run is not named by a UUIDv7": f"UPDATE trigger_idem.run SET run_id = '6ba7b810-9dad-41d1-80b4-00c04fd430c8' WHERE {FRESH}",
    "the status of a run is not a final one": f"UPDATE trigger_idem.run SET status = 'queued' WHERE {COMPLETED}",
    "a run is final and unfinished at once": f"UPDATE trigger_idem.run SET output = '1' WHERE {FRESH}",
    "a run has what its status does not give": f"UPDATE trigger_idem.run SET error = '1' WHERE {COMPLETED}",
    "a run has no task": f"UPDATE trigger_idem.run SET task_id = 'none' WHERE {COMPLETED}",
    "a run is its own parent": f"UPDATE trigger_idem.run SET parent_run_id = run_id WHERE {COMPLETED}",
    "a queue entry has half a worker": f"UPDATE trigger_idem.queue_entry SET worker_id = NULL WHERE {EXECUTING}",
    "a queue entry is at a wrong place": f"UPDATE trigger_idem.queue_entry SET priority = 7 WHERE {FRESH}",
    "a queue entry is not visible, ever": f"UPDATE trigger_idem.queue_entry SET ord = 'infinity', visible_from = 'infinity' WHERE {FRESH}",
    "the numbers of a queue entry are impossible": f"UPDATE trigger_idem.queue_entry SET failures = 5 WHERE {FRESH}",
    "a queue entry counts failures that were none": f"UPDATE trigger_idem.queue_entry SET failures = 0 WHERE {FAILED}",
    "an attempt has no run": "INSERT INTO trigger_idem.attempt (run_id, attempt, status, started_at, finished_at) VALUES (gen_random_uuid(), 1, 'failed', now(), now())",
    "attempts of a run are missing": f"DELETE FROM trigger_idem.attempt WHERE {FAILED}",
    "a run has attempts that it has not made": f"UPDATE trigger_idem.attempt SET attempt = 2 WHERE {COMPLETED}",
    "the status of an attempt is none": f"UPDATE trigger_idem.attempt SET status = 'executing' WHERE {FAILED}",
    "an attempt goes on after its run was final": f"UPDATE trigger_idem.attempt SET status = 'canceled' WHERE {FAILED}",
    "a run has not ended as its last attempt": f"UPDATE trigger_idem.attempt SET status = 'failed' WHERE {COMPLETED}",
    "an attempt has what its status does not give": f"UPDATE trigger_idem.attempt SET error = '1' WHERE {COMPLETED}",
    "a step has no run, or no attempt of it": f"UPDATE trigger_idem.step SET attempt = 2 WHERE {COMPLETED}",
    "a step was done twice": f"INSERT INTO trigger_idem.step SELECT run_id, step_id, 2, started_at, finished_at, path, output FROM trigger_idem.step WHERE {COMPLETED}",
    "a step has no proper name": f"UPDATE trigger_idem.step SET step_id = 'x' WHERE {COMPLETED}",
    "a live key stands for a run that is not there": "UPDATE trigger_idem.idempotency_key SET run_id = gen_random_uuid() WHERE key = 'fresh'",
    "a live key has another status than its run": "UPDATE trigger_idem.idempotency_key SET status = NULL WHERE key = 'completed'",
    "a key and its run disagree": "UPDATE trigger_idem.idempotency_key SET environment = 'other' WHERE key = 'fresh'",
    "a key has no task": "UPDATE trigger_idem.idempotency_key SET task_id = 'none' WHERE key = 'fresh'",
    "a key is not one": "UPDATE trigger_idem.idempotency_key SET scope = 'schedule' WHERE key = 'fresh'",
    "a wait has no run, or no attempt of it": "UPDATE trigger_idem.wait SET attempt = 2 WHERE kind = 'time'",
    "a queue entry names a wait that is not there": "DELETE FROM trigger_idem.wait WHERE kind = 'time'",
    "a queue entry has half a wait": f"UPDATE trigger_idem.queue_entry SET wait_attempt = NULL WHERE wait_id = {WAITING.format('wait_id', 'time')}",
    "a wait goes on that its run does not wait for": "UPDATE trigger_idem.queue_entry SET wait_id = NULL, wait_attempt = NULL WHERE wait_id IS NOT NULL",
    "a wait is none of its kind": "UPDATE trigger_idem.wait SET kind = 'batch' WHERE kind = 'token'",
    "what is awaited belongs to no wait": "UPDATE trigger_idem.awaited SET run_id = gen_random_uuid()",
    "items of a wait are missing": "UPDATE trigger_idem.awaited SET index = 1",
    "a run waits for nothing": "DELETE FROM trigger_idem.awaited",
    "a run waits for what is not there": "UPDATE trigger_idem.awaited SET target = gen_random_uuid()",
    "a run waits for what has ended": "UPDATE trigger_idem.wait_token SET completed_at = now()",
    "nobody will wake a run that waits": "UPDATE trigger_idem.queue_entry SET is_awaited = NULL",
    "a token is output and not completed": "UPDATE trigger_idem.wait_token SET output = '1'",
    "a task has impossible settings": "UPDATE trigger_idem.task SET max_attempts = 0",
    "a name is too long or empty": "UPDATE trigger_idem.task SET queue = ''",
    "a group of keys belongs to nobody": "DELETE FROM trigger_idem.idempotency_group",
    "a schedule is not proper": "UPDATE trigger_idem.schedule SET payload = '[]'",
    "something is in no environment": "UPDATE trigger_idem.wait_token SET environment = 'none'",
    "an access is none": "UPDATE trigger_idem.access_entry SET access = 'all' WHERE access = 'admin'",
}


def test(connection, report, violations):
    """Plant each of them in a transaction that is rolled back."""
    connection.rows("""CREATE FUNCTION fuzz.planted(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            CASE payload #>> '{}'
            WHEN 'time' THEN PERFORM trigger_idem.wait_for('w', '1 hour');
            WHEN 'token' THEN PERFORM trigger_idem.wait_for_token(token) FROM trigger_idem.wait_tokens;
            WHEN 'task' THEN PERFORM trigger_idem.trigger_task_and_wait('planted', queue => 'planted later');
            ELSE NULL;
            END CASE;
        END $$""")
    for statement in SETUP.split(";\n"):
        connection.rows(statement)
    connection.rows("CALL trigger_idem.work('planted handler')")

    report.ok("store_check.sql finds nothing in a store that is well", violations(connection))
    names = re.findall(r"^SELECT '([^']+)'", (pathlib.Path(__file__).parent / "store_check.sql").read_text(), re.MULTILINE)
    report.ok("every violation of store_check.sql is planted", sorted(set(names) ^ set(PLANTED)))
    for name, statement in PLANTED.items():
        connection.rows("BEGIN")
        connection.rows(statement)
        found = violations(connection)
        connection.rows("ROLLBACK")
        report.ok(f"store_check.sql finds: {name}",
                  [] if any(violation.startswith(name) for violation in found) else ["it found " + ", ".join(found or ["nothing"])])
