#!/usr/bin/env python3
"""Calls every SQL function of trigger_idem with arguments that nobody would think of.

Usage: test/fuzz/fuzz.py [--seed N] [--calls N] [--jobs N]

Needs PGHOST, PGPORT, PGUSER and PGDATABASE of a server on which the extension is
available, with a superuser.  Everything happens in a database of its own, which is
dropped at the end.

The functions are those of pg_proc, so that new ones are called without being named
here.  They are called in sessions of a superuser and of a role with everything
granted; alone, in transactions of each isolation level, read-only ones, savepoints,
after run_enter(), inside handlers and callbacks, with parameters, and through the
function call interface.  With one seed and one job the calls are the same each time,
but for ids and what depends on the clock.

A call may be refused, with an SQLSTATE that the reference documents.  Nothing may
crash, nor fail with an internal error; and afterwards the store is unharmed, by
store_check.sql, and works.  That store_check.sql finds violations is tested first.
"""

import argparse
import collections
import json
import multiprocessing
import os
import pathlib
import random
import re
import sys
import time
import traceback

import libpq
import planted
from values import Values

HERE = pathlib.Path(__file__).resolve().parent
ROLES = ["fuzz_user", "fuzz_super"]
LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

# What the reference documents, and what the fuzz does by itself
DOCUMENTED = set("""
    TI001 TI002 TI003 TI004 TI005 TI006 P0004
    22004 22023 42704 42501 42883 42725 54000 25006 40001 40P01 55000 55006 55P03 57014
    25001 0A000 2D000 42601 2BP01""".split())
OF_THE_FUZZ = {
    "FZ001": "raised by a handler or callback of the fuzz",
    "22012": "run_once_sql() was given a division by zero",
    "42P02": "run_once_sql() was given a parameter that there is none of",
    "25P02": "the timeout has met a SAVEPOINT",
}
INTERNAL = re.compile(
    r"cache lookup failed|unrecognized|unexpected|could not open|could not find|tuple (already|concurrently)|"
    r"invalid memory alloc|unsupported|should not|not supposed|bogus|failed to find|no such|corrupt", re.IGNORECASE)

# The functions that users are told of; others are parts of them, written in SQL, which
# may fail as the server's own functions do when they are given nonsense.
PUBLIC = set(re.findall(r"(\w+)\(", (HERE / "../../doc/reference.md").read_text()))

# Calls that block or take long would use up the time: they are made less often than others.
SELDOM = {"run_wait": 0.3, "wait_for_token": 0.3, "trigger_task_and_wait": 0.7, "batch_trigger_task_and_wait": 0.7,
          "work": 0.3, "prune": 0.3, "environment_drop": 0.2, "task_drop": 0.3, "access_revoke": 0.3,
          "run_page": 0.1, "runs_page": 0.1, "run_timeline": 0.2, "stats": 0.1}

FUNCTIONS = """
SELECT p.oid, p.proname, p.prokind, p.proretset, p.pronargs, p.pronargdefaults,
    ARRAY(SELECT pg_catalog.format_type(t, NULL) FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY u(t, n) ORDER BY n),
    ARRAY(SELECT y.typsend::pg_catalog.text FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY u(t, n)
        JOIN pg_catalog.pg_type y ON y.oid = t ORDER BY n),
    ARRAY(SELECT COALESCE(a, '')
        FROM ROWS FROM (pg_catalog.unnest(p.proargnames), pg_catalog.unnest(p.proargmodes)) WITH ORDINALITY u(a, m, n)
        WHERE m IS NULL OR m IN ('i', 'b', 'v') ORDER BY n)
FROM pg_catalog.pg_proc p
WHERE p.pronamespace = 'trigger_idem'::pg_catalog.regnamespace
ORDER BY p.proname, p.oid::pg_catalog.regprocedure::pg_catalog.text"""

# Functions of every kind, to be handed over as callback or handler.  Volatile ones of
# pg_catalog are left out: they would be called.
OBJECTS = {
    "handlers": """
        SELECT oid FROM pg_proc WHERE pronamespace = 'fuzz'::regnamespace AND proname LIKE 'handler%' ORDER BY proname""",
    "callbacks": """
        SELECT oid FROM pg_proc WHERE pronamespace = 'fuzz'::regnamespace AND proname LIKE 'callback%' ORDER BY proname""",
    "functions": """
        SELECT oid FROM pg_proc WHERE pronamespace IN ('fuzz'::regnamespace, 'trigger_idem'::regnamespace)
        UNION ALL SELECT oid FROM fuzz.gone
        UNION ALL VALUES (0::oid), (1), (4294967295)
        UNION ALL (SELECT DISTINCT ON (prokind, proretset, proisstrict, prorettype) oid
            FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile <> 'v'
            ORDER BY prokind, proretset, proisstrict, prorettype, oid)""",
    "roles": """
        SELECT oid FROM pg_roles WHERE rolname <> 'fuzz_everything'
        UNION ALL SELECT oid FROM fuzz.gone
        UNION ALL VALUES (0::oid), (1), (4294967295)""",
}

IDS = {
    "run": "SELECT run_id FROM trigger_idem.run ORDER BY run_id DESC LIMIT 40",
    "token": "SELECT token FROM trigger_idem.wait_token ORDER BY created_at DESC LIMIT 20",
}


def called(command):
    """The function that a command calls, or "other" """
    match = re.match(r"[^']*?trigger_idem\.(\w+)", command)
    return match.group(1) if match else "other"


def complaint(sqlstate, message, function):
    """What is wrong with an error, or None"""
    if sqlstate not in DOCUMENTED and sqlstate not in OF_THE_FUZZ and \
            not (sqlstate.startswith("22") and function not in PUBLIC):
        return f"SQLSTATE {sqlstate} is not documented: {message}"
    return f"{sqlstate} smells of internals: {message}" if INTERNAL.search(message) else None


def literal(value, type_name):
    if value is None:
        return f"NULL::{type_name}"
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + f"'::{type_name}"


def text_array(text):
    """The elements of an array's text, of which none needs quotes."""
    return text[1:-1].replace('"', "").split(",") if text != "{}" else []


class Function:
    def __init__(self, row):
        self.oid = int(row[0])
        self.name, self.kind = row[1], row[2]
        self.is_set = row[3] == "t"
        self.required = int(row[4]) - int(row[5])
        self.types = text_array(row[6])
        self.sends = text_array(row[7])
        self.names = text_array(row[8])
        self.weight = SELDOM.get(self.name, 1 if self.name in PUBLIC else 0.1)


class Job:
    """One process: sessions, a random source, and what came of the calls."""

    def __init__(self, number, seed, conninfo):
        self.random = random.Random(f"{seed}/{number}")
        self.conninfo = conninfo
        self.problems = []
        self.problems_seen = set()
        self.counts = collections.Counter()  # by (function, SQLSTATE)
        self.states = collections.Counter()
        self.sessions = {}
        self.depth = 0  # of commands in payloads
        self.number = number
        self.state = None  # that the session is in, for people
        # sees everything, has all the time it needs, and calls nothing
        self.admin = libpq.Connection(f"{conninfo} user=fuzz_super options='-c statement_timeout=0 -c lock_timeout=0'")
        self.functions = [Function(row) for row in self.admin.rows(FUNCTIONS)]
        self.weights = [function.weight for function in self.functions]
        self.views = [row[0] for row in self.admin.rows("""
            SELECT oid::regclass FROM pg_class
            WHERE relnamespace = 'trigger_idem'::regnamespace AND relkind = 'v' ORDER BY relname""")]
        objects = {name: [row[0] for row in self.admin.rows(query)] for name, query in OBJECTS.items()}
        self.values = Values(self.random, objects, self.nested_commands, self.values_of)

    def values_of(self, type_name):
        """Values of a type that values.py does not know: rows, enums, and arrays."""
        kind, relation, element, count = self.admin.rows(f"""
            SELECT t.typtype, t.typrelid::regclass, CASE WHEN t.typcategory = 'A' THEN format_type(t.typelem, NULL) END,
                (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0)
            FROM pg_type t WHERE t.oid = '{type_name}'::regtype""")[0]
        if kind == "c":
            rows = self.admin.rows(f"SELECT v::text FROM {relation} v LIMIT 20")
            return [row[0] for row in rows] + ["(" + "," * (int(count) - 1) + ")"]
        if kind == "e":
            return [row[0] for row in self.admin.rows(f"SELECT unnest(enum_range(NULL::{type_name}))")]
        if element:
            elements = [self.values.draw(element, "") for _ in range(3)]
            quoted = [self.admin.rows(f"SELECT ARRAY[{literal(value, element)}]::text")[0][0] for value in elements]
            return ["{}", "{NULL}", *quoted]
        return [None]

    # ---------- Sessions ----------

    def session(self, role):
        if role not in self.sessions:
            self.sessions[role] = libpq.Connection(f"{self.conninfo} user={role}", self.notice)
        return self.sessions[role]

    def end_sessions(self):
        for session in self.sessions.values():
            session.close()
        self.sessions = {}

    def notice(self, message, detail):
        """fuzz.try() tells how a command ended."""
        if message.startswith("fuzz "):
            _, sqlstate, text = message.split(" ", 2)
            self.judge(None if sqlstate == "00000" else sqlstate, text, detail or "")

    # ---------- Judging ----------

    def problem(self, text, command):
        """Tell of a problem, once."""
        if text not in self.problems_seen:
            self.problems_seen.add(text)
            self.problems.append(f"{text}\n  state: {self.state}\n  {command[:3000]}")

    def judge(self, sqlstate, message, command):
        function = called(command)
        self.counts[function, sqlstate or "00000"] += 1
        wrong = sqlstate and complaint(sqlstate, message, function)
        if wrong:
            self.problem(wrong, command)

    def check_alive(self, session, command):
        if session.transaction_status() == libpq.UNKNOWN:
            raise OSError(f"the connection was lost, in state {self.state}, at: {command[:3000]}")

    def run(self, session, command):
        """One command as it is."""
        result = session.run(command)
        self.check_alive(session, command)
        self.judge(result.sqlstate, result.message, command)
        return result

    # ---------- Calls ----------

    def arguments(self, function):
        """Some calls are wild, some mild but for an argument or two, and some get far."""
        wild = self.random.choice([0, 0, 1.5 / max(len(function.types), 1), 1])
        return [self.values.draw(kind, name) if self.random.random() < wild else self.values.draw_mild(kind, name)
                for kind, name in zip(function.types, function.names)]

    def pick(self):
        return self.random.choices(self.functions, self.weights)[0]

    def command(self):
        """A call as SQL: all arguments in their order, or some by name."""
        if self.random.random() < 0.03:
            return f"SELECT * FROM {self.random.choice(self.views)} LIMIT 20"
        function = self.pick()
        values = list(zip(function.names, function.types, self.arguments(function)))
        if self.random.random() < 0.7 and all(function.names):
            given = [(name, kind, value) for index, (name, kind, value) in enumerate(values)
                     if index < function.required or self.random.random() < 0.25]
            text = ", ".join(f"{name} => {literal(value, kind)}" for name, kind, value in given)
        else:
            text = ", ".join(literal(value, kind) for _, kind, value in values)
        call = f"trigger_idem.{function.name}({text})"
        if function.kind == "p":
            return f"CALL {call}"
        return self.random.choice([
            f"SELECT * FROM {call}", f"SELECT * FROM {call}", f"SELECT {call}",
            f"SELECT * FROM {call} WITH ORDINALITY LIMIT 1",
            f"SELECT pg_catalog.count(*) FROM pg_catalog.generate_series(1, 2) g, LATERAL {call} WHERE g IS NOT NULL",
            f"SELECT ({call}) IS NULL",
        ])

    def nested_commands(self):
        """What a handler or callback is to do; not deeper than two levels."""
        if self.depth >= 2:
            return []
        self.depth += 1
        commands = [self.command() for _ in range(self.random.choice([1, 1, 2, 4]))]
        self.depth -= 1
        return commands

    # ---------- States ----------

    def alone(self, session):
        for _ in range(20):
            self.run(session, self.command())

    def with_parameters(self, session):
        for _ in range(20):
            function = self.pick()
            values = self.arguments(function)
            marks = ", ".join(f"${n}::{kind}" for n, kind in enumerate(function.types, 1))
            verb = "CALL" if function.kind == "p" else "SELECT * FROM"
            command = f"{verb} trigger_idem.{function.name}({marks})"
            result = session.run_with(command, values)
            self.check_alive(session, f"{command} {values}")
            self.judge(result.sqlstate, result.message, f"{command} {values}")

    def by_function_call(self, session):
        """Through the function call interface, where there is no expression around the call."""
        for _ in range(20):
            function = self.pick()
            values = self.arguments(function)
            sends = [f"{send}({literal(value, kind)})" for send, value, kind in
                     zip(function.sends, values, function.types)]
            binary = [None if value is None else bytes.fromhex(value[2:]) for value in
                      (self.admin.rows("SELECT " + ", ".join(sends))[0] if sends else [])]
            result = session.call(function.oid, binary)
            shown = f"function call trigger_idem.{function.name}{values}"
            self.check_alive(session, shown)
            # the interface refuses procedures and sets by itself
            if function.kind == "f" and not function.is_set:
                self.judge(result.sqlstate, result.message, shown)

    def in_block(self, session):
        """A transaction with savepoints; perhaps with a run that was entered, or read-only."""
        level = self.random.choice(LEVELS)
        mode = self.random.choice(["READ WRITE", "READ WRITE", "READ WRITE", "READ ONLY"])
        entered = self.claim(session) if self.random.random() < 0.5 else None
        session.run(f"BEGIN ISOLATION LEVEL {level}, {mode}")
        if entered:
            self.state += " run_enter"
            session.run("SAVEPOINT fuzz")
            if self.run(session, f"SELECT trigger_idem.run_enter('{entered[0]}', {entered[1]})").sqlstate:
                session.run("ROLLBACK TO fuzz")
        for _ in range(self.random.choice([3, 10, 20])):
            session.run("SAVEPOINT fuzz")
            result = self.run(session, self.command())
            if result.sqlstate or self.random.random() < 0.1:
                session.run("ROLLBACK TO fuzz")
            session.run("RELEASE fuzz")
        end = self.random.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK", "PREPARE TRANSACTION"])
        if end == "PREPARE TRANSACTION":
            name = f"fuzz {self.number}"
            if not self.run(session, f"PREPARE TRANSACTION '{name}'").sqlstate:
                session.run(self.random.choice(["COMMIT", "ROLLBACK"]) + f" PREPARED '{name}'")
        else:
            self.run(session, end)
        if session.transaction_status() != libpq.IDLE:
            session.run("ROLLBACK")

    def in_subtransactions(self, session):
        """In PL/pgSQL's exception blocks, which are quick."""
        commands = [self.command() for _ in range(50)]
        array = ", ".join(literal(command, "text") for command in commands)
        level = self.random.choice(LEVELS)
        session.run("SET statement_timeout = 250")
        session.run(f"BEGIN ISOLATION LEVEL {level}")
        self.run(session, f"SELECT fuzz.try(c) FROM pg_catalog.unnest(ARRAY[{array}]) WITH ORDINALITY u(c, n) ORDER BY n")
        self.run(session, self.random.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
        session.run("RESET statement_timeout")

    def in_handlers(self, session):
        """In handlers, which work() calls; and so in steps."""
        is_super = session == self.sessions.get("fuzz_super")
        tasks = ["super", "super commits"] if is_super else ["function", "commits", "grouped"]
        for _ in range(4):
            payload = {"commands": [self.command() for _ in range(12)], "catch": self.random.random() < 0.85}
            self.run(session, "SELECT * FROM trigger_idem.trigger_task({}, {}, queue => 'fuzz work', max_attempts => 2)".format(
                literal(self.random.choice(tasks), "text"), literal(json.dumps(payload), "jsonb")))
        session.run("SET statement_timeout = 1000")
        session.run(f"SET default_transaction_isolation = '{self.random.choice(LEVELS).lower()}'")
        self.run(session, "CALL trigger_idem.work('fuzz work', max_runs => 8)")
        session.run("RESET statement_timeout")
        session.run("RESET default_transaction_isolation")

    def claim(self, session):
        """Claim a run of a task without a handler; another one may have been faster."""
        task = self.random.choice(["outside", "limited", "super outside"])
        self.run(session, f"SELECT * FROM trigger_idem.trigger_task('{task}', queue => 'fuzz outside')")
        rows = self.run(session, "SELECT run_id, attempt FROM trigger_idem.run_claim('fuzz', 'fuzz outside')").rows
        if not rows:
            return None
        self.values.refresh({**self.values.ids, "run": self.values.ids["run"] + [rows[0][0]] * 15})
        return rows[0]

    def as_application(self, session):
        """Calls that name an attempt, of one that is really executing."""
        claimed = self.claim(session)
        if not claimed:
            return
        calls = ["run_heartbeat({})", "run_enter({})", "run_once_begin({}, 'step')", "run_once_end({}, 'step', {})",
                 "run_complete({}, {})", "run_fail({}, {})", "run_release({})"]
        for _ in range(self.random.choice([3, 8])):
            call = self.random.choice(calls).format(
                f"'{claimed[0]}', {claimed[1]}", literal(self.values.draw("jsonb", "output"), "jsonb"))
            self.run(session, f"SELECT * FROM trigger_idem.{call}")
            self.run(session, self.command())

    STATES = {alone: 3, with_parameters: 2, by_function_call: 2, in_block: 8, in_subtransactions: 3, in_handlers: 10,
              as_application: 5}

    def episode(self):
        role = self.random.choice(ROLES)
        session = self.session(role)
        state = self.random.choices(list(self.STATES), self.STATES.values())[0]
        self.values.refresh({name: [row[0] for row in self.admin.rows(query)] for name, query in IDS.items()})
        self.state = f"{state.__name__} {role}"
        for command, maker in self.admin.rows("SELECT command, role FROM fuzz.missing"):
            self.session(maker).run(command)
        if self.random.random() < 0.1 and state != Job.in_handlers:
            session.run("SET ROLE fuzz_other")
            self.state += " as fuzz_other"
        before = self.counts.total()
        state(self, session)
        self.states[state.__name__] += self.counts.total() - before
        session.run("RESET ROLE")
        if self.random.random() < 0.02:
            self.end_sessions()

    def work(self, calls, deadline):
        while self.counts.total() < calls and time.monotonic() < deadline:
            self.episode()
        self.end_sessions()
        self.admin.close()


def job_main(number, arguments, conninfo, answers):
    job = None
    try:
        job = Job(number, arguments.seed, conninfo)
        job.work(arguments.calls // arguments.jobs, time.monotonic() + arguments.seconds)
        answers.put((job.problems, job.counts, job.states))
    except Exception:  # whatever it is: nobody else waits for an answer
        answers.put(([traceback.format_exc()] + (job.problems if job else []), job.counts if job else {}, {}))


class Report:
    """TAP, as test/run.sh counts it."""

    failed = 0

    def ok(self, name, problems, shown=10):
        print(("ok - " if not problems else "not ok - ") + name, flush=True)
        for problem in problems[:shown]:
            print("# " + problem.replace("\n", "\n# "))
        if len(problems) > shown:
            print(f"# and {len(problems) - shown} more")
        self.failed += bool(problems)


def violations(connection):
    return [" ".join(value or "" for value in row) for row in connection.rows((HERE / "store_check.sql").read_text())]


def known_job(connection):
    """A job with a step and a wait, through work(), still does what it should."""
    connection.rows("""CREATE FUNCTION fuzz.known(payload jsonb) RETURNS text LANGUAGE plpgsql AS
        'BEGIN PERFORM trigger_idem.wait_for(''w'', ''1 ms'');
         RETURN trigger_idem.run_once_sql(''s'', ''SELECT 6 * 7'')::text; END'""")
    connection.rows("SELECT trigger_idem.task_create('known job', 'fuzz.known', queue => 'known')")
    connection.rows("SELECT trigger_idem.queue_resume('known')")
    run_id = connection.rows("SELECT run_id FROM trigger_idem.trigger_task('known job', idempotency_key => 'known')")[0][0]
    for _ in range(1000):
        connection.rows("CALL trigger_idem.work('known')")
        status, output = connection.rows(f"SELECT status, output FROM trigger_idem.runs WHERE run_id = '{run_id}'")[0]
        if status in ("completed", "failed"):
            break
    return [] if (status, output) == ("completed", '"42"') else [f"it is {status}, with output {output}"]


def attempts_errors(connection):
    """Errors of attempts, which nobody was there to see; of crashed ones it is 57P02"""
    rows = connection.rows("""SELECT DISTINCT error->>'code', error->>'message', error->>'context' FROM trigger_idem.attempt
        WHERE error->>'code' <> '57P02' AND error ? 'context'""")
    complaints = (complaint(code, message, called((context or "").replace("'", ""))) for code, message, context in rows)
    return sorted({wrong for wrong in complaints if wrong})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=None, help="of all that is random; without one, another each time")
    parser.add_argument("--calls", type=int, default=100000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=600, help="stop after this time, which is a failure")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1 << 32)
    print(f"# seed {arguments.seed}", flush=True)
    report = Report()
    database = f"trigger_idem_fuzz_{os.getpid()}"
    server = libpq.Connection(f"dbname={os.environ.get('PGDATABASE', 'postgres')}")
    server.rows(f"CREATE DATABASE {database}")
    try:
        fuzz(arguments, database, server, report)
    except RuntimeError as error:
        report.ok("the fuzz comes to its end", [str(error)])
    finally:
        # what a crashed server leaves behind stays
        server.run(f"DROP DATABASE {database} WITH (FORCE)")
        server.run("DROP ROLE IF EXISTS fuzz_user, fuzz_other, fuzz_nobody, fuzz_super, fuzz_everything")
    return report.failed > 0


def fuzz(arguments, database, server, report):
    conninfo = f"dbname={database}"
    connection = libpq.Connection(conninfo)
    connection.rows((HERE / "setup.sql").read_text())
    connection.close()
    connection = libpq.Connection(f"{conninfo} user=fuzz_super")
    connection.rows("SET statement_timeout = '60s'")
    planted.test(connection, report, violations)
    begin = time.monotonic()
    answers = multiprocessing.Queue()
    jobs = [multiprocessing.Process(target=job_main, args=(number, arguments, conninfo, answers))
            for number in range(arguments.jobs)]
    for job in jobs:
        job.start()
    problems, counts, states = [], collections.Counter(), collections.Counter()
    for _ in jobs:
        job_problems, job_counts, job_states = answers.get(timeout=arguments.seconds + 60)
        problems += job_problems
        counts.update(job_counts)
        states.update(job_states)
    for job in jobs:
        job.join()
    seconds = time.monotonic() - begin

    print(f"# {counts.total()} calls in {seconds:.0f} s: " + ", ".join(f"{n} {state}" for state, n in states.most_common()))
    sqlstates = collections.Counter()
    succeeded = collections.Counter()
    for (function, sqlstate), n in counts.items():
        sqlstates[sqlstate] += n
        succeeded[function] += sqlstate == "00000" and n
    print("# " + ", ".join(f"{sqlstate} {n}" for sqlstate, n in sqlstates.most_common()))
    report.ok("no call crashes, or fails with what is not documented", problems)
    crashed = not server.run("SELECT 1").rows
    report.ok("the server has not crashed", ["it has"] if crashed else [])
    if crashed:
        return
    report.ok("all calls were made", [] if counts.total() >= arguments.calls else [f"only {counts.total()}"])
    names = {row[1] for row in connection.rows(FUNCTIONS)} & PUBLIC - {"work_schedule"}  # which needs pg_cron
    report.ok("every function that users call has succeeded at least once",
              [f"{name} has not" for name in sorted(names) if not succeeded[name]])
    report.ok("no attempt has failed with what is not documented", attempts_errors(connection))
    connection.rows("SET store_check.partly_pruned = on")
    report.ok("the store is unharmed", violations(connection))
    report.ok("a known job still works", known_job(connection))
    connection.close()


if __name__ == "__main__":
    sys.exit(main())
