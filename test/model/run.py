#!/usr/bin/env python3
"""Random sequences of calls in one session, held against test/model/model.py.

	run.py [--sequences N] [--length N] [--seed N] [--pooled] [--break NAME]

Each call's answer or SQLSTATE, and all that the views show after one call in four and
the last, must be what the model says.  A sequence is made from its seed, so it can be
repeated; one that fails is shortened before it is printed, looking after each call.  Connects by PGHOST and so on to a
database in which test/model/setup.sql was executed.  Prints TAP.

--break makes the model wrong on purpose, to see that the test notices.
"""

import argparse
import json
import random
import sys
import time

import psycopg2

from model import FINAL, Model, Refused, TASKS

APPLICATIONS = [name for name, task in TASKS.items() if task.kind == 'application']
KEYS = ['a', 'b', 'c']
STEPS = ['one', 'two', 'three']
LOOKS = 8			# the place of a call's number that says whether to look after it
OUTPUTS = [None, 'x', {'y': [1, 2]}]

# What the views show, with the model's names for things
SHOWN = '''
SELECT jsonb_build_object(
	'runs', (SELECT jsonb_agg(jsonb_build_array(run_id, task_id, status, attempt, output,
			CASE jsonb_typeof(error) WHEN 'object' THEN error -> 'code' ELSE error END, parent_run_id)) FROM trigger_idem.runs),
	'attempts', (SELECT jsonb_agg(jsonb_build_array(run_id, attempt, status)) FROM trigger_idem.attempts),
	'steps', (SELECT jsonb_agg(jsonb_build_array(run_id, key, output, attempt)) FROM trigger_idem.steps),
	'keys', (SELECT jsonb_agg(jsonb_build_array(COALESCE('group ' || idempotency_group, 'task ' || task_id), key, run_id))
			FROM trigger_idem.idempotency_keys),
	'tokens', (SELECT jsonb_agg(jsonb_build_array(token, CASE WHEN completed_at IS NULL THEN 'open' ELSE 'completed' END))
			FROM trigger_idem.wait_tokens),
	'entries', (SELECT count(*) FROM trigger_idem.queue_entry))
'''

# After TRUNCATE everything would have to be planned again
CLEAN = ';'.join('DELETE FROM trigger_idem.' + table for table in (
	'run', 'queue_entry', 'attempt', 'step', 'wait', 'awaited', 'wait_token', 'idempotency_key', 'paused_queue'))


class Mismatch(Exception):
	pass


class Call:
	"""One call: its name, and random numbers that choose among what is there"""

	def __init__(self, name, numbers):
		self.name = name
		self.numbers = numbers

	def choose(self, place, among):
		return among[self.numbers[place] % len(among)]

	def chance(self, place, one_in):
		return self.numbers[place] % one_in == 0


class Session:
	def __init__(self, connection, pooled):
		self.cursor = connection.cursor()
		self.shown = SHOWN
		if not pooled:			# planning it takes longest
			self.cursor.execute('PREPARE shown AS ' + SHOWN)
			self.shown = 'EXECUTE shown'
		self.start()

	def start(self):
		self.cursor.execute('ROLLBACK')
		self.cursor.execute(CLEAN)
		self.model = Model()
		self.run_ids = []
		self.token_ids = []
		self.saved = []			# copies of the model: at BEGIN, and at the savepoint
		self.log = []

	# ---------- Asking both ----------

	def execute(self, sql, *arguments):
		self.log.append(self.cursor.mogrify(sql, arguments).decode())
		try:
			self.cursor.execute(sql, arguments)
		except psycopg2.Error as error:
			if error.pgcode is None:
				raise
			return Refused(error.pgcode)
		return self.cursor.fetchall() if self.cursor.description else None

	def ask(self, answer, sql, *arguments):
		"""The extension's rows, which must be an error where the model's answer is one"""
		before = self.model.copy()
		try:
			expected = answer()
		except Refused as error:
			expected = error
			self.model = before
		got = self.execute(sql, *arguments)
		if isinstance(got, Refused) or isinstance(expected, Refused):
			if not (isinstance(got, Refused) and isinstance(expected, Refused) and got.code == expected.code):
				raise Mismatch(f'expected {describe(expected)}, got {describe(got)}')
			if self.saved:
				self.roll_back()
			return None, None
		return expected, got

	def same(self, expected, got):
		if expected != got:
			raise Mismatch(f'expected {expected}, got {got}')

	def number_of(self, run_id):
		try:
			return self.run_ids.index(run_id)
		except ValueError:
			raise Mismatch(f'an unknown run {run_id}') from None

	# ---------- What both have come to ----------

	def check(self):
		self.cursor.execute(self.shown)
		got = self.cursor.fetchone()[0]
		expected = self.model.shown()
		unfinished = sum(1 for run in self.model.runs if not run.is_final())
		# who has expired by the clock may not have been noticed
		noticed = [k for k, run in enumerate(self.model.runs) if run.status == 'expired']
		numbers = {run_id: n for n, run_id in enumerate(self.run_ids)}
		tokens = {token: n for n, token in enumerate(self.token_ids)}
		if not unfinished <= got.pop('entries') <= unfinished + len(noticed):
			raise Mismatch('the queue has other entries than unfinished runs')
		for kind, rows in got.items():
			rows = [list(row) for row in rows or []]
			for row in rows:
				if kind == 'keys':
					row[2] = numbers.get(row[2], row[2])
				elif kind == 'tokens':
					row[0] = tokens.get(row[0], row[0])
				else:
					row[0] = numbers.get(row[0], row[0])
				if kind == 'runs' and row[6] is not None:
					row[6] = numbers.get(row[6], row[6])
			if kind == 'keys':
				rows = [row for row in rows if row[2] not in noticed or tuple(row) in expected['keys']]
			got_rows = sorted(map(json.dumps, rows))
			expected_rows = sorted(json.dumps(list(row)) for row in expected[kind])
			if got_rows != expected_rows:
				raise Mismatch(f'{kind}: expected but not there: {sorted(set(expected_rows) - set(got_rows))}, '
							   f'there but not expected: {sorted(set(got_rows) - set(expected_rows))}')

	# ---------- Transactions ----------

	def roll_back(self):
		self.execute('ROLLBACK')
		self.model = self.saved[0]
		self.saved = []
		del self.run_ids[len(self.model.runs):]
		del self.token_ids[len(self.model.tokens):]

	def commit(self):
		if self.saved:
			self.execute('COMMIT')
			self.saved = []

	def do_transaction(self, call):
		"""BEGIN or a savepoint, and how it ends"""
		if not self.saved:
			self.execute('BEGIN')
			self.saved = [self.model.copy()]
		elif call.chance(0, 3):
			self.commit()
		elif call.chance(0, 2):
			self.roll_back()
		elif len(self.saved) == 1:
			self.execute('SAVEPOINT s')
			self.saved.append(self.model.copy())
		else:
			self.execute('ROLLBACK TO s')
			self.execute('RELEASE s')
			self.model = self.saved.pop()
			del self.run_ids[len(self.model.runs):]
			del self.token_ids[len(self.model.tokens):]

	# ---------- Triggering ----------

	def trigger_of(self, call, places):
		"""Arguments of the model's trigger()"""
		task = call.choose(places[0], list(TASKS))
		key = call.choose(places[1], KEYS + [None])
		if TASKS[task].kind == 'application':
			payload = call.choose(places[2], [None, {'p': 1}, {'p': 2}])
		else:
			payload = {'steps': STEPS[:call.numbers[places[2]] % 3], 'failures': call.numbers[places[2]] // 3 % 4}
			if call.chance(places[2], 5):
				payload['code'] = 'TI006'
		return {
			'task_name': task, 'payload': payload, 'key': key, 'delayed': call.chance(places[3], 4),
			'ttl': call.chance(places[3], 3), 'priority': call.choose(places[3], [0, 0, 0, 1, 2]) ,
			'max_attempts': call.choose(places[3], [None, None, None, 1, 4])}

	def made(self, number, run_id):
		if number == len(self.run_ids):
			self.run_ids.append(run_id)
		self.same(number, self.number_of(run_id))

	def do_trigger(self, call):
		trigger = self.trigger_of(call, [0, 1, 2, 3])
		key = '%s'
		if call.chance(4, 3):
			key = "trigger_idem.idempotency_key_create(%s, 'global')"
		expected, got = self.ask(
			lambda: self.model.trigger(**trigger),
			f'SELECT * FROM trigger_idem.trigger_task(%s, %s, {key}, delay => %s, ttl => %s, priority => %s, max_attempts => %s)'
			if trigger['key'] is not None or key == '%s' else
			'SELECT * FROM trigger_idem.trigger_task(%s, %s, %s, delay => %s, ttl => %s, priority => %s, max_attempts => %s)',
			trigger['task_name'], as_json(trigger['payload']), trigger['key'], '1 hour' if trigger['delayed'] else None,
			'1 hour' if trigger['ttl'] else None, trigger['priority'] * 1000, trigger['max_attempts'])
		if expected is not None:
			self.made(expected[0], got[0][0])
			self.same(expected[1:], got[0][1:])

	def do_batch(self, call):
		triggers = [self.trigger_of(call, [0, 1 + n, 4 + n, 4 + n]) for n in range(3)]
		items = [{'payload': t['payload'], 'options': {
			'idempotency_key': t['key'], 'delay': '1 hour' if t['delayed'] else None, 'ttl': '1 hour' if t['ttl'] else None,
			'priority': t['priority'] * 1000, 'max_attempts': t['max_attempts']}} for t in triggers]
		for item in items:
			if item['payload'] is None:
				del item['payload']

		def answer():
			clock = self.model.clock
			answers = []
			for trigger in triggers:
				self.model.clock = clock		# they are of one time
				answers.append(self.model.trigger(**trigger))
			return answers

		expected, got = self.ask(answer, 'SELECT * FROM trigger_idem.batch_trigger_task(%s, %s)',
								 triggers[0]['task_name'], json.dumps(items))
		if expected is not None:
			for n, (run, is_cached, status) in enumerate(expected):
				self.made(run, got[n][1])
				self.same((n, is_cached, status), (got[n][0], *got[n][2:]))

	def do_replay(self, call):
		if self.run_ids:
			run = call.numbers[0] % len(self.run_ids)
			expected, got = self.ask(lambda: self.model.replay(run), 'SELECT trigger_idem.run_replay(%s)', self.run_ids[run])
			if expected is not None:
				self.made(expected, got[0][0])

	def do_reset(self, call):
		task, key = call.choose(0, list(TASKS)), call.choose(1, KEYS)
		expected, got = self.ask(lambda: self.model.reset(task, key),
								 'SELECT trigger_idem.idempotency_key_reset(%s, %s)', task, key)
		self.same(expected, got[0][0])

	def do_cancel(self, call):
		if not self.run_ids:
			return
		run = call.numbers[0] % len(self.run_ids)
		if self.saved:		# what executes is canceled at the commit only
			self.commit()
		expected, got = self.ask(lambda: self.model.cancel(run), 'SELECT trigger_idem.run_cancel(%s)', self.run_ids[run])
		if expected is not None:
			self.same(expected, got[0][0])

	def do_pause(self, call):
		self.model.paused = call.chance(0, 3)
		self.execute('SELECT trigger_idem.queue_%s(%%s)' % ('pause' if self.model.paused else 'resume'), 'default')

	# ---------- Tokens ----------

	def do_token_create(self, call):
		self.model.tokens.append('open')
		self.token_ids.append(self.execute('SELECT token FROM trigger_idem.wait_token_create()')[0][0])

	def do_token_complete(self, call):
		if self.token_ids:
			token = call.numbers[0] % len(self.token_ids)
			expected, got = self.ask(lambda: self.model.complete_token(token),
									 'SELECT trigger_idem.wait_token_complete(%s)', self.token_ids[token])
			if expected is not None:
				self.same(expected, got[0][0])

	# ---------- Applications ----------

	def do_claim(self, call):
		self.commit()
		how_many = 1 + call.numbers[0] % 3
		got = self.execute('SELECT run_id, attempt, task_id, payload FROM trigger_idem.run_claim(%s, max_runs => %s)', 'model', how_many)
		if isinstance(got, Refused):
			raise Mismatch(f'claim: {got.code}')
		due = self.model.due({'application'})
		claimed = [self.number_of(row[0]) for row in got]
		# the items of a batch are of one time, and come in any order
		self.same([self.model.runs[n].ord for n in due[:how_many]], [self.model.runs[n].ord for n in claimed])
		for n, row in zip(claimed, got):
			if n not in due:
				raise Mismatch(f'run {n} was not to be claimed')
			self.same((self.model.start(n), self.model.runs[n].task, self.model.runs[n].payload), row[1:])

	def attempt_of(self, call):
		"""A run of an application and one of its attempts, mostly one that executes"""
		self.commit()
		runs = [n for n, run in enumerate(self.model.runs) if run.task in APPLICATIONS and run.attempt > 0]
		executing = [n for n in runs if self.model.runs[n].status == 'executing']
		if not runs:
			return None, None
		run = call.choose(0, executing if executing and not call.chance(1, 6) else runs)
		attempt = self.model.runs[run].attempt
		return run, attempt - 1 if attempt > 1 and call.chance(2, 6) else attempt

	def do_heartbeat(self, call):
		run, attempt = self.attempt_of(call)
		if run is not None:
			self.ask(lambda: self.model.owned(run, attempt), 'SELECT FROM trigger_idem.run_heartbeat(%s, %s)',
					 self.run_ids[run], attempt)

	def do_step(self, call):
		run, attempt = self.attempt_of(call)
		if run is None:
			return
		key, output = call.choose(3, STEPS), call.choose(4, OUTPUTS)
		expected, got = self.ask(lambda: (self.model.owned(run, attempt), self.model.runs[run].steps.get(key))[1:],
								 'SELECT is_cached, output FROM trigger_idem.run_once_begin(%s, %s, %s)', self.run_ids[run], attempt, key)
		if expected is not None:
			memo = expected[0]
			self.same((memo is not None, memo[0] if memo else None), got[0])
		self.ask(lambda: self.model.step_end(run, attempt, key, output),
				 'SELECT FROM trigger_idem.run_once_end(%s, %s, %s, %s)', self.run_ids[run], attempt, key, as_json(output))

	def do_complete(self, call):
		run, attempt = self.attempt_of(call)
		if run is not None:
			output = call.choose(3, OUTPUTS)
			self.ask(lambda: self.model.complete(run, attempt, output),
					 'SELECT FROM trigger_idem.run_complete(%s, %s, %s)', self.run_ids[run], attempt, as_json(output))

	def do_fail(self, call):
		run, attempt = self.attempt_of(call)
		if run is None:
			return
		retry, after = not call.chance(3, 4), call.choose(4, [None, None, '0', '1 hour'])
		expected, got = self.ask(
			lambda: (self.model.owned(run, attempt),
					 self.model.fail(run, 'broken', retry=retry, delayed={None: None, '0': False, '1 hour': True}[after]))[1],
			'SELECT status FROM trigger_idem.run_fail(%s, %s, %s, %s, %s)', self.run_ids[run], attempt, '"broken"', retry, after)
		if expected is not None:
			self.same(expected, got[0][0])

	def do_release(self, call):
		run, attempt = self.attempt_of(call)
		if run is not None:
			delayed = call.chance(3, 3)
			self.ask(lambda: self.model.release(run, attempt, delayed),
					 'SELECT FROM trigger_idem.run_release(%s, %s, %s)', self.run_ids[run], attempt, '1 hour' if delayed else None)

	def do_enter(self, call):
		"""A transaction that works a run: a step, a child, and an end or a wait"""
		run, attempt = self.attempt_of(call)
		if run is None:
			return
		self.execute('BEGIN')
		self.saved = [self.model.copy()]
		key, output = call.choose(3, STEPS), call.choose(4, OUTPUTS)
		expected, _ = self.ask(lambda: (self.model.owned(run, attempt),), 'SELECT FROM trigger_idem.run_enter(%s, %s)',
							   self.run_ids[run], attempt)
		if expected is None:
			return
		if call.chance(3, 2):
			expected, got = self.ask(lambda: (self.model.runs[run].steps.setdefault(key, (output, attempt))[0],),
									 'SELECT trigger_idem.run_once_sql(%s, %s, %s)', key, 'SELECT $2', as_json(output))
			if expected is None:
				return
			self.same(expected[0], got[0][0])
		if call.chance(5, 2):
			expected, got = self.ask(lambda: self.model.trigger(call.choose(6, APPLICATIONS), None, None, parent=run),
									 'SELECT * FROM trigger_idem.trigger_task(%s)', call.choose(6, APPLICATIONS))
			if expected is None:
				return
			self.made(expected[0], got[0][0])
		end = call.choose(7, ['complete', 'wait for run', 'wait for token', 'nothing'])
		if end == 'complete':
			self.ask(lambda: self.model.complete(run, attempt, output),
					 'SELECT FROM trigger_idem.run_complete(%s, %s, %s)', self.run_ids[run], attempt, as_json(output))
		elif end == 'wait for run':
			# of its own transaction it must not
			target = call.numbers[4] % len(self.saved[0].runs)
			if not (self.model.runs[target].ttl and self.model.runs[target].attempt == 0):
				self.ask(lambda: self.model.wait(run, ('run', target)), 'SELECT status FROM trigger_idem.run_wait(%s)', self.run_ids[target])
		elif end == 'wait for token' and self.token_ids:
			token = call.numbers[4] % len(self.token_ids)
			self.ask(lambda: self.model.wait(run, ('token', token)), 'SELECT ok FROM trigger_idem.wait_for_token(%s)', self.token_ids[token])
		if self.saved:
			if call.chance(6, 5):
				self.roll_back()
			else:
				self.commit()

	# ---------- Handlers ----------

	def do_work(self, call):
		self.commit()
		attempts = self.model.work()
		got = self.execute('CALL trigger_idem.work()')
		self.same([(attempts,)], got)

	# ---------- Time ----------

	def do_make_due(self, call):
		self.commit()
		delayed = [n for n, run in enumerate(self.model.runs) if run.status == 'delayed']
		if delayed:
			run = call.choose(0, delayed)
			self.model.make_due(run)
			self.execute("UPDATE trigger_idem.queue_entry SET visible_from = clock_timestamp(), "
						 "ord = clock_timestamp() - priority * interval '1 second' WHERE run_id = %s", self.run_ids[run])

	def do_lease_over(self, call):
		"""Of an application that is silent; the next look for such takes its run."""
		self.commit()
		executing = [n for n, run in enumerate(self.model.runs) if run.status == 'executing']
		if executing:
			run = call.choose(0, executing)
			self.model.fail(run, '57P02', 'crashed', delayed=False)	# tried again at once
			self.execute("UPDATE trigger_idem.queue_entry SET lease_expires_at = clock_timestamp() - interval '1 s' WHERE run_id = %s",
						 self.run_ids[run])
			self.same([], self.execute('SELECT run_id FROM trigger_idem.run_claim(%s, %s)', 'looks', 'nothing is here'))

	def do_outlive_ttl(self, call):
		self.commit()
		if self.run_ids:
			run = call.numbers[0] % len(self.run_ids)
			if not any(r.waits_for == ('run', run) for r in self.model.runs) and self.model.outlive_ttl(run):
				self.execute("UPDATE trigger_idem.queue_entry SET expires_at = clock_timestamp() - interval '1 s' WHERE run_id = %s",
							 self.run_ids[run])

	def do_expire_key(self, call):
		self.commit()
		if self.model.keys:
			place = call.choose(0, sorted(self.model.keys))
			self.model.expire_key(place)
			self.execute("UPDATE trigger_idem.idempotency_key SET expires_at = clock_timestamp() - interval '1 s' "
						 "WHERE run_id = %s", self.run_ids[self.model.keys[place].run])

	def do_prune(self, call):
		self.commit()
		self.model.prune()
		for _ in range(2):		# what has expired unnoticed ends in the first
			got = self.execute('SELECT FROM trigger_idem.prune(%s)', '0')
			if isinstance(got, Refused):
				raise Mismatch(f'prune: {got.code}')


CALLS = {'trigger': 8, 'batch': 2, 'replay': 1, 'reset': 2, 'cancel': 2, 'pause': 1, 'transaction': 4, 'token_create': 1,
		 'token_complete': 2, 'claim': 6, 'heartbeat': 1, 'step': 3, 'complete': 3, 'fail': 3, 'release': 1, 'enter': 5,
		 'work': 3, 'make_due': 2, 'lease_over': 1, 'outlive_ttl': 1, 'expire_key': 1, 'prune': 1}


def as_json(value):
	return None if value is None else json.dumps(value)


def describe(answer):
	return f'error {answer.code}' if isinstance(answer, Refused) else f'answer {answer}'


def sequence_of(seed, length):
	numbers = random.Random(seed)
	names = numbers.choices(list(CALLS), weights=CALLS.values(), k=numbers.randint(length // 4, length))
	return [Call(name, [numbers.randrange(1 << 20) for _ in range(LOOKS + 1)]) for name in names]


def failure_of(session, sequence, looks=1):
	"""What is wrong with a sequence, or None; looks at the views after one call in so many"""
	session.start()
	for n, call in enumerate(sequence, 1):
		try:
			getattr(session, 'do_' + call.name)(call)
			if n == len(sequence) or call.chance(LOOKS, looks):
				session.check()
		except Mismatch as mismatch:
			return f'{call.name}: {mismatch}'
	return None


def shorten(session, sequence):
	"""A sequence that fails and from which no call can be left out"""
	size = len(sequence) // 2
	while size > 0:
		start = 0
		while start < len(sequence):
			shorter = sequence[:start] + sequence[start + size:]
			if failure_of(session, shorter):
				sequence = shorter
			else:
				start += size
		size //= 2
	return sequence


# Ways in which the model can be wrong
BREAKS = {
	'release': lambda: setattr(Model, 'release_key', lambda self, number: None),
	'attempts': lambda: setattr(TASKS['app_retry'], 'max_attempts', 3),
	'steps': lambda: setattr(TASKS['procedure'], 'kind', 'function'),
	'order': lambda: setattr(Model, 'ord_of', lambda self, priority: self.tick()),
}


def main():
	parser = argparse.ArgumentParser()
	parser.add_argument('--sequences', type=int, default=1000)
	parser.add_argument('--length', type=int, default=40)
	parser.add_argument('--seed', type=int)
	parser.add_argument('--break', dest='broken', choices=BREAKS)
	parser.add_argument('--pooled', action='store_true', help='the connection is a pooler\'s, and keeps nothing')
	options = parser.parse_args()
	seed = options.seed if options.seed is not None else int(time.time())
	if options.broken:
		BREAKS[options.broken]()

	connection = psycopg2.connect('')
	connection.autocommit = True
	session = Session(connection, options.pooled)
	calls = 0
	for n in range(options.sequences):
		sequence = sequence_of(seed + n, options.length)
		calls += len(sequence)
		failure = failure_of(session, sequence, 4)
		if failure:
			print(f'not ok 1 - sequence {n} of seed {seed}: {failure}')
			print(f'# again: --seed {seed + n} --sequences 1 --length {options.length}')
			sequence = shorten(session, sequence)
			print(f'# the shortest that was found, of {len(sequence)} calls: {failure_of(session, sequence)}')
			print('\n'.join('#	' + line + ';' for line in session.log))
			print('1..1')
			return 1
	print(f'ok 1 - {options.sequences} sequences from seed {seed}, {calls} calls, are as the model says')
	print('1..1')
	return 0


sys.exit(main())
