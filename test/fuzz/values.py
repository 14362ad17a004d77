"""Values for arguments: by the argument's type, and by its name where that tells more.

A value is the text of an SQL literal's content, as the type's input function reads
it, or None for NULL.  All of them are values that PostgreSQL accepts for the type:
whatever refuses one has to be the function.
"""

import json

MAX_TEXT = 70000

TEXTS = [
    "", " ", "a", "A", "b", "default", "run", "attempt", "global", "schedule", "none", "latest", "all",
    "ignore", "error", "trigger", "monitor", "work", "admin", "NULL", "null", "'", '"', "\\", "$1", "%s%n%x",
    "\t\n\r", "\x01\x7f", "\u00e4\u00f6\u00fc", "e\u0301", "\u00e9", "\U0001f418", "\u202e\ufeff", "\ufffd",
    "pg_catalog", "trigger_idem", "a,b", "{a,b}", "{}", "*",
    "0" * 64, "0123456789abcdef" * 4, "0123456789ABCDEF" * 4, "g" * 64, "0" * 63, "0" * 65,
    "x" * 255, "x" * 256, "\u00e4" * 127, "\u00e4" * 128, "x" * 2048, "x" * 2049, "\U0001f418" * 2048,
    "x" * MAX_TEXT,
]

# What an argument of this name is likely to be, in any function
NAMED_TEXTS = {
    "task_id": ["function", "commits", "no payload", "fails", "outside", "limited", "grouped", "keyed", "super",
                "super commits", "super outside", "new 1", "new 2", "unknown"],
    "environment": ["default", "fuzz open", "fuzz closed", "fuzz user", "new 1", "unknown"],
    "queue": ["default", "fuzz limited", "fuzz work", "new 1"],
    "schedule_id": ["fuzz minute", "fuzz never", "new 1", "new 2"],
    "cron": ["* * * * *", "*/5 * * * *", "0 0 31 2 *", "0 0 29 2 *", "@reboot", "@hourly", "59 23 31 12 7",
             "* * * * * *", "60 * * * *", "1-100000 * * * *", "*/0 * * * *", "0-59/59 0 1,15 jan-dec sun-sat",
             "10 seconds", "$ * * * *", "* * * *", "@", "-1 * * * *", "99999999999999999999 * * * *"],
    "timezone": ["UTC", "GMT", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "+14", "-99:00", "<x>5",
                 "EST5EDT", "nowhere"],
    "command": ["SELECT 1", "SELECT $1", "SELECT $2", "SELECT $1, $2", "SELECT", "", ";", "SELECT 1; SELECT 2",
                "COMMIT", "SELECT 1/0", "SELECT NULL", "SELECT WHERE false", "VALUES (ROW(1, 'a'))",
                "COPY fuzz.gone TO STDOUT", "SELECT $3", "VACUUM", "DO $$BEGIN END$$", "DO $$BEGIN COMMIT; END$$",
                "SELECT ARRAY[1, NULL]", "SELECT 'NaN'::float8", "SELECT pg_catalog.repeat('x', 100000)",
                "SET search_path = fuzz", "CREATE TEMP TABLE IF NOT EXISTS fuzz_temporary (a int)", "selec",
                "SELECT trigger_idem.run_once_sql('inner', 'SELECT 2')",
                "SELECT trigger_idem.run_once('inner', 'fuzz.callback')",
                "SELECT * FROM trigger_idem.trigger_task('function')",
                "SELECT trigger_idem.wait_for('inner', '0')", "SELECT trigger_idem.wait_for('inner', '1 ms')"],
    "worker_id": ["fuzz worker", "another"],
    "access": ["trigger", "monitor", "work", "admin"],
    "scope": ["run", "attempt", "global"],
    "idempotency_key_scope": ["run", "attempt", "global"],
    "catch_up": ["none", "latest", "all"],
    "on_payload_mismatch": ["ignore", "error"],
    "idempotency_key": ["key 1", "key 2", "key 3", "key 4", "key 5", "0" * 64],
    "key": ["key 1", "key 2", "step", "inner"],
    "concurrency_key": ["one", "two"],
    "idempotency_group": ["fuzz group", "new 1"],
}

INTEGERS = [0, 1, 2, 3, -1, 7, 100, 10000, 10001, 1000000, 1000001, 2**31 - 1, -2**31]
BIG_INTEGERS = INTEGERS + [2**63 - 1, -2**63, 2**32]
FLOATS = ["0", "-0", "1", "2", "-1", "0.999", "1000", "1001", "1e308", "5e-324", "Infinity", "-Infinity", "NaN"]
INTERVALS = [
    "0", "1 microsecond", "-1 microsecond", "1 ms", "20 ms", "1 second", "-1 second", "999 ms", "1 minute", "1 hour",
    "30 days", "1 mon", "1 mon -30 days", "-1 mon 30 days", "-1 mon 31 days", "1 day -24:00:00", "1 year",
    "100 years", "100 years 1 us", "101 years", "99 years 12 mons", "178000000 years", "-178000000 years",
    "2147483647 days", "-2147483648 days", "2562047788:00:54.775807", "-2562047788:00:54.775807",
    "2147483647 mons 2147483647 days 2562047788:00:54.775807",
]
TIMES = [
    "infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "294270-01-01+00",
    "now", "epoch", "1969-12-31 23:59:59.999999+00", "2000-01-01 00:00:00+00", "2024-02-29 12:00+00",
    "2100-01-01+00", "2024-03-31 02:30 Europe/Berlin", "2024-01-01 00:00:00+00", "tomorrow", "yesterday",
    "8000-01-01+00", "10889-08-02 05:31:50+00", "1582-10-04+00",
]
UUIDS = [
    "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "01900000-0000-7000-8000-000000000000", "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
]
NUMBERS = ["0", "-0", "0.0", "1", "1.0", "1e0", "-1", "1e400", "1e-400", "9" * 400, "1e1000", "0." + "0" * 300 + "1",
           "9223372036854775808", "1e-1000", "1" + "0" * 5000]
STRINGS = ['""', '"a"', '"\\n\\\\u0000"', '"\\u00e4"', '"\\ud83d\\udc18"', '"\\\\"', '"' + "x" * 3000 + '"']
ITEM_OPTIONS = [
    "idempotency_key", "idempotency_key_ttl", "delay", "run_at", "ttl", "priority", "queue", "concurrency_key",
    "max_attempts", "tags", "metadata", "idempotency_key_scope", "environment", "unknown", "", "payload",
]
ARRAYS = [
    "{}", "{a}", "{a,b}", "{a,NULL}", "{NULL}", '{""}', "{{a,b},{c,d}}", "[0:1]={a,b}", "[-5:-5]={a}",
    "[2147483646:2147483646]={a}", "{{{a}}}", "{failed,crashed}", "{completed,failed,crashed,timed_out,canceled,expired}",
    "{failed,failed}", "{queued}", "{" + ",".join(["x"] * 11) + "}", "{" + ",".join(["x"] * 3000) + "}",
    "{" + "x" * 129 + "}", "{" + "x" * 3000 + "}", "{function,outside}", "{outside}", "{unknown}",
]


# What gets far, for arguments that are not to be the hostile ones
MILD = {
    "integer": ["1", "1", "2", "3"],
    "bigint": ["1", "2"],
    "double precision": ["1", "2", "1.5"],
    "interval": ["1 ms", "1 second", "1 minute", "1 day"],
    "timestamp with time zone": ["now", "2024-01-01 00:00:00+00", "2100-01-01+00"],
    "text[]": ["{a}", "{a,b}"],
    "jsonb": ['1', '{"a": 1}', 'null', '"a"'],
    "text": ["a", "b"],
}
MILD_NAMED = {
    "release_key_on": ["{}", "{failed,crashed}", "{completed,failed,crashed,timed_out,canceled,expired}"],
    "task_ids": ["{outside}", "{outside,limited}"],
    "scope": ["run", "run", "global"],
    "task_id": ["function", "commits", "no payload", "fails", "outside", "limited", "grouped", "new 1", "new 2"],
    "environment": ["default", "fuzz open"],
    "cron": ["* * * * *", "*/5 * * * *", "0 0 31 2 *", "0 0 29 2 *"],
    "timezone": ["UTC", "Europe/Berlin"],
    "payload": ['1', '{"a": 1}', '{}', 'null'],
    "timeout": ["1 ms", "10 ms"],
    "duration": ["0", "1 ms"],
    "max_duration": ["1 second", "1 minute"],
    "lease_duration": ["1 second", "1 minute"],
    "delay": ["0", "1 ms", "1 second"],
    "finished_before": ["0", "1 second", "1 day"],
    "ttl": ["1 ms", "1 second", "1 day"],
}
# Arguments that are seldom given together with the others
OPTIONAL = {"delay", "run_at", "idempotency_group", "concurrency_limit", "run_as", "idempotency_key_ttl", "attempt",
            "max_duration", "concurrency_key", "queue", "tags", "metadata", "ttl", "timeout", "environment"}


class Values:
    """Draws values with a random source; what the store holds is told by refresh()."""

    def __init__(self, random, objects, nested_commands, values_of):
        self.random = random
        self.values_of = values_of  # finds values of other types
        self.others = {}
        self.objects = objects  # OIDs: "regproc", "regrole"
        self.nested_commands = nested_commands  # draws commands for a handler's payload
        self.ids = {"run": [], "token": [], "attempt": []}

    def refresh(self, ids):
        self.ids = ids
        self.others = {}

    def draw_mild(self, type_name, name):
        """A value for an argument of this type and name with which a call is likely to get far."""
        if name in OPTIONAL and type_name != "uuid" and self.random.random() < 0.6:
            return "1" if name == "attempt" else None
        if name in MILD_NAMED:
            return self.random.choice(MILD_NAMED[name])
        if name in NAMED_TEXTS and type_name == "text":
            return self.random.choice(NAMED_TEXTS[name])
        if name == "items":
            return self._mild_items()
        if type_name == "regproc":
            return self.random.choice(self.objects["callbacks" if name == "callback" else "handlers"])
        if type_name == "uuid" and self.ids["token" if "token" in name else "run"]:
            return self.random.choice(self.ids["token" if "token" in name else "run"])
        if type_name in MILD:
            return self.random.choice(MILD[type_name])
        return self.draw(type_name, name)

    def draw(self, type_name, name):
        """Any value for an argument of this type and name."""
        if self.random.random() < 0.08:
            return None
        maker = getattr(self, "_" + type_name.replace("[]", "_array").replace(" ", "_"), None)
        if maker:
            return maker(name)
        if type_name not in self.others:
            self.others[type_name] = self.values_of(type_name)
        return self.random.choice(self.others[type_name])

    def _text(self, name):
        likely = NAMED_TEXTS.get(name)
        if likely and self.random.random() < 0.8:
            return self.random.choice(likely)
        return self.random.choice(TEXTS)

    def _integer(self, name):
        if name in ("attempt", "max_runs", "batch", "max_attempts") and self.random.random() < 0.8:
            return str(self.random.choice([1, 1, 1, 2, 3]))
        return str(self.random.choice(INTEGERS))

    def _bigint(self, _):
        return str(self.random.choice(BIG_INTEGERS))

    def _double_precision(self, _):
        return self.random.choice(FLOATS)

    def _boolean(self, _):
        return self.random.choice(["true", "false"])

    def _interval(self, name):
        if name in ("timeout", "duration") and self.random.random() < 0.7:
            return self.random.choice(["0", "1 ms", "10 ms"])
        return self.random.choice(INTERVALS)

    def _timestamp_with_time_zone(self, _):
        return self.random.choice(TIMES)

    def _uuid(self, name):
        likely = self.ids["token" if "token" in name else "run"]
        if likely and self.random.random() < 0.85:
            return self.random.choice(likely)
        return self.random.choice(UUIDS + self.ids["run"] + self.ids["token"])

    def _regproc(self, name):
        kind = self.random.random()
        if kind < 0.5:
            return self.random.choice(self.objects["callbacks" if name == "callback" else "handlers"])
        return self.random.choice(self.objects["functions"])

    def _regrole(self, _):
        return self.random.choice(self.objects["roles"])

    def _text_array(self, _):
        return self.random.choice(ARRAYS)

    # ---------- jsonb ----------

    def _jsonb(self, name):
        if name == "items" and self.random.random() < 0.9:
            return self._items()
        if name in ("payload", "args") and self.random.random() < 0.15:
            return json.dumps({"commands": self.nested_commands(), "catch": self.random.random() < 0.8})
        return self._json(3)

    def _json(self, depth):
        kind = self.random.randrange(12)
        if kind < 2:
            return self.random.choice(["null", "true", "false"])
        if kind < 4:
            return self.random.choice(NUMBERS)
        if kind < 6 or depth == 0:
            return self.random.choice(STRINGS)
        if kind < 8:
            return "[" + ",".join(self._json(depth - 1) for _ in range(self.random.randrange(4))) + "]"
        if kind < 11:
            keys = ['"a"', '"A"', '"b"', '""', '"code"', '"\\u00e4"', '"commands"']
            return "{" + ",".join(  # a key may be there twice
                self.random.choice(keys) + ":" + self._json(depth - 1) for _ in range(self.random.randrange(5))) + "}"
        levels = self.random.choice([10, 100, 1000])
        return self.random.choice(["[" * levels + "]" * levels, '{"a":' * levels + "1" + "}" * levels,
                                   "[" + ",".join(["1"] * levels) + "]",
                                   "{" + ",".join(f'"{i}":{i}' for i in range(levels)) + "}"])

    def _items(self):
        return "[" + ",".join(self._item() for _ in range(self.random.choice([0, 1, 1, 2, 3, 20]))) + "]"

    def _mild_items(self):
        keys = self.random.sample(NAMED_TEXTS["idempotency_key"], 3)
        return json.dumps([{"payload": n, "options": {"idempotency_key": key}} if n else {}
                           for n, key in enumerate(keys[:self.random.randrange(4)])])

    def _item(self):
        if self.random.random() < 0.1:
            return self._json(2)
        members = []
        if self.random.random() < 0.6:
            members.append('"payload":' + self._json(1))
        if self.random.random() < 0.6:
            options = [self._option() for _ in range(self.random.choice([0, 1, 1, 2, 5]))]
            members.append('"options":{' + ",".join(options) + "}")
        if self.random.random() < 0.03:
            members.append(self.random.choice(['"other":1', '"options":[]', '"options":null']))
        return "{" + ",".join(members) + "}"

    def _option(self):
        name = self.random.choice(ITEM_OPTIONS)
        kind = self.random.random()
        if kind < 0.1:
            value = self._json(1)
        elif name in ("idempotency_key_ttl", "delay", "ttl"):
            value = json.dumps(self.random.choice(INTERVALS + ["x", ""]))
        elif name == "run_at":
            value = json.dumps(self.random.choice(TIMES + ["x", "", "2024-02-30"]))
        elif name in ("priority", "max_attempts"):
            value = self.random.choice(NUMBERS + [str(i) for i in INTEGERS] + ['"1"', "1.5"])
        elif name == "tags":
            value = self.random.choice(['[]', '["a"]', '["a",null]', '[1]', '[["a"]]', '"a"', "null"])
        elif name == "metadata":
            value = self._json(1)
        else:
            value = json.dumps(self._text(name))
        return json.dumps(name) + ":" + value
