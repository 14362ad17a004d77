#!/usr/bin/env python3
"""Chaos: clients and workers at work while a monkey breaks things.

	run.py --seconds N --seed N --data DIRECTORY --bin DIRECTORY [--small DIRECTORY]

Runs as the server's user, on a server of its own in --data, which it stops and
starts; connects by PGHOST.  Clients trigger keyed runs, sessions that call
work(), background workers and applications work them.  The monkey draws from the
seed what it does next.  Afterwards everything is worked to its end, and
test/chaos/checker.py holds the history against the promises.  Prints TAP.

--small: a file system that the database's tablespace is in, to be filled.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid

import psycopg2

import checker

TASKS = list(checker.RELEASE)
HISTORY_MARGIN = 10		# seconds: what finished before is seen before it is pruned
LOST = (psycopg2.OperationalError, psycopg2.InterfaceError)


class Stopped(Exception):
	pass


class Chaos:
	def __init__(self, options):
		self.options = options
		self.stopping = threading.Event()
		self.draining = threading.Event()
		self.lock = threading.Lock()
		self.history = {'triggers': [], 'resets': [], 'completions': [], 'memos': [], 'runs': {}, 'attempts': {},
						'effects': [], 'outputs': []}
		self.did = {}
		self.failures = []
		self.seen_memos = set()

	def note(self, what, *entries):
		with self.lock:
			self.history[what].extend(entries)

	def count(self, what):
		with self.lock:
			self.did[what] = self.did.get(what, 0) + 1

	def random(self, name):
		return random.Random(f'{self.options.seed} {name}')

	# ---------- Sessions ----------

	def connect(self, name, until=None):
		"""A session; where the server is not there, again until it is"""
		deadline = time.monotonic() + 120
		while not (until or self.stopping).is_set():
			try:
				session = psycopg2.connect(application_name=name, dbname='chaos')
				session.autocommit = True
				return session
			except psycopg2.Error as error:
				if time.monotonic() > deadline:
					raise
				time.sleep(0.05)
		raise Stopped

	def keep_at(self, name, do, until=None):
		"""A thread that does something over and over, with a new session after each error"""
		until = until or self.stopping

		def loop():
			numbers = self.random(name)
			try:
				while not until.is_set():
					session = self.connect(name, until)
					try:
						while not until.is_set():
							do(session, numbers)
					except psycopg2.Error as error:
						self.count(f'{name.split()[0]}: {error.pgcode or "connection lost"}')
						if (error.pgcode or '').startswith('XX') and error.pgcode != 'XX999':
							self.failures.append(f'{name}: {error}')
						time.sleep(0.02)
					finally:
						try:
							session.close()
						except psycopg2.Error:
							pass
			except Stopped:
				pass
			except Exception as error:		# a thread must not end unseen
				self.failures.append(f'{name}: {error!r}')

		thread = threading.Thread(target=loop, name=name)
		thread.start()
		return thread

	# ---------- Clients ----------

	def trigger(self, session, numbers):
		"""One to three triggers in a transaction that commits, or does not"""
		cursor = session.cursor()
		told = []
		cursor.execute('BEGIN')
		for _ in range(numbers.choice([1, 1, 1, 2, 3])):
			task = numbers.choice(TASKS)
			key = numbers.choice([None] + [f'key {n}' for n in range(60)])
			payload = {'steps': numbers.randint(1, 3), 'seconds': numbers.choice([0, 0, 0, 0, 0.01, 0.2]),
					   'failures': numbers.choice([0, 0, 0, 0, 0, 1, 2])}
			if numbers.random() < 0.02:
				payload.update(failures=10000, aborts=True)
			if told and told[-1]['key'] is not None and numbers.random() < 0.5:
				task, key = told[-1]['task'], told[-1]['key']		# again in one transaction
			cursor.execute('SELECT run_id, is_cached FROM trigger_idem.trigger_task(%s, %s, %s, delay => %s)',
						   (task, json.dumps(payload), key, numbers.choice([None, None, None, '0.1 s'])))
			run_id, is_cached = cursor.fetchone()
			told.append({'task': task, 'key': key, 'run_id': run_id, 'is_cached': is_cached})
		if numbers.random() < 0.1:
			cursor.execute('ROLLBACK')
			return
		cursor.execute('COMMIT')
		self.note('triggers', *told)
		self.count('transactions that trigger')
		time.sleep(numbers.random() * 0.06)

	# ---------- Workers ----------

	def call_work(self, session, numbers):
		session.cursor().execute('CALL trigger_idem.work(max_runs => %d)' % numbers.randint(1, 50))
		self.count('calls of work()')
		time.sleep(0.02)

	def work_outside(self, session, numbers):
		cursor = session.cursor()
		cursor.execute('SELECT run_id, attempt, payload FROM trigger_idem.run_claim(%s, %s, max_runs => %s)',
					   ('application', 'application', numbers.randint(1, 3)))
		for run_id, attempt, payload in cursor.fetchall():
			if numbers.random() < 0.05:
				return		# it forgets the run, and the lease ends
			try:
				self.work_one(cursor, numbers, run_id, attempt, payload)
			except psycopg2.Error as error:
				if error.pgcode != 'TI002':
					raise
				self.count('attempts lost by an application')
				cursor.execute('ROLLBACK')
		time.sleep(0.02)

	def work_one(self, cursor, numbers, run_id, attempt, payload):
		"""Each step in a transaction of its own; the last one completes the run"""
		outputs = {}
		for n in range(1, payload['steps'] + 1):
			step = f'step {n}'
			cursor.execute('BEGIN')
			cursor.execute('SELECT is_cached, output FROM trigger_idem.run_once_begin(%s, %s, %s)', (run_id, attempt, step))
			is_cached, output = cursor.fetchone()
			if not is_cached:
				output = str(uuid.uuid4())
				cursor.execute('INSERT INTO effect VALUES (%s, %s, %s, %s)', (run_id, step, attempt, output))
				cursor.execute('SELECT trigger_idem.run_once_end(%s, %s, %s, %s)', (run_id, attempt, step, json.dumps(output)))
			outputs[step] = output
			time.sleep(payload['seconds'])
			if numbers.random() < 0.02:
				time.sleep(1.3)		# longer than the lease
			if n < payload['steps']:
				cursor.execute('COMMIT')
				self.note('memos', (run_id, step, output))
		if attempt <= payload['failures']:
			cursor.execute('COMMIT')
			cursor.execute('SELECT trigger_idem.run_fail(%s, %s, %s, %s)', (run_id, attempt, '"broken"', 'aborts' not in payload))
		else:
			cursor.execute('SELECT trigger_idem.run_complete(%s, %s, %s)', (run_id, attempt, json.dumps(outputs)))
			cursor.execute('COMMIT')
			self.note('memos', (run_id, step, output))
			self.note('completions', {'run_id': run_id, 'attempt': attempt, 'output': outputs})

	# ---------- Looking ----------

	def look(self, session, prune=False, since=None):
		"""Keep what the views show; then what was seen may be pruned."""
		cursor = session.cursor()
		cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
		cursor.execute('SELECT now()')
		at = cursor.fetchone()[0]
		cursor.execute('SELECT run_id, step[1], output #>> %s FROM trigger_idem.steps', ('{}',))
		memos = cursor.fetchall()
		cursor.execute('''SELECT run_id, task_id, CASE idempotency_key_scope WHEN 'run' THEN idempotency_key || ' of ' || parent_run_id
				ELSE idempotency_key END, status, payload, output FROM trigger_idem.runs''')
		runs = cursor.fetchall()
		cursor.execute('SELECT run_id, attempt, status FROM trigger_idem.attempts')
		attempts = cursor.fetchall()
		cursor.execute('COMMIT')
		with self.lock:
			self.history['memos'].extend(set(memos) - self.seen_memos)
			self.seen_memos |= set(memos)
			for run_id, task, key, status, payload, output in runs:
				self.history['runs'][run_id] = {'task': task, 'key': key, 'status': status, 'payload': payload, 'output': output}
				self.history['attempts'][run_id] = []
			for run_id, attempt, status in attempts:
				self.history['attempts'].setdefault(run_id, []).append((attempt, status))
		if prune:
			cursor.execute("SELECT what, removed FROM trigger_idem.prune(clock_timestamp() - %s + %s * interval '1 second')",
						   (at, HISTORY_MARGIN))
			self.count('prunes')

	def observe(self, session, numbers):
		self.look(session, prune=True)
		self.stopping.wait(2)

	# ---------- The monkey ----------

	def pids(self, condition):
		try:
			session = psycopg2.connect(application_name='monkey', dbname='postgres')
		except psycopg2.Error:
			return []
		try:
			cursor = session.cursor()
			cursor.execute(f"SELECT pid FROM pg_stat_activity WHERE {condition} AND pid <> pg_backend_pid() ORDER BY pid")
			return [row[0] for row in cursor.fetchall()]
		except psycopg2.Error:
			return []
		finally:
			session.close()

	def send(self, numbers, condition, signals):
		pids = self.pids(condition)
		if pids:
			pid = numbers.choice(pids)
			for number, pause in signals:
				try:
					os.kill(pid, number)
				except ProcessLookupError:
					return
				time.sleep(pause)

	any_worker = "(application_name LIKE 'work%' OR application_name LIKE 'application%' OR backend_type = 'trigger_idem worker')"

	def monkey_kills_backend(self, numbers):
		self.send(numbers, "backend_type = 'client backend'", [(signal.SIGKILL, 0)])

	def monkey_kills_worker(self, numbers):
		self.send(numbers, "backend_type = 'trigger_idem worker'", [(signal.SIGKILL, 0)])

	def monkey_kills_launcher(self, numbers):
		self.send(numbers, "backend_type = 'trigger_idem launcher'", [(numbers.choice([signal.SIGKILL, signal.SIGTERM]), 0)])

	def monkey_terminates(self, numbers):
		for _ in range(5):
			self.send(numbers, "backend_type IN ('client backend', 'trigger_idem worker')", [(signal.SIGTERM, 0.05)])

	def monkey_cancels(self, numbers):
		for _ in range(10):
			self.send(numbers, self.any_worker, [(signal.SIGINT, 0.05)])

	def monkey_holds(self, numbers):
		"""Longer than the lease: another takes its run, and then it goes on."""
		self.send(numbers, self.any_worker, [(signal.SIGSTOP, 1.7), (signal.SIGCONT, 0)])

	def monkey_stops_server(self, numbers):
		mode = numbers.choice(['immediate', 'immediate', 'fast'])
		self.control('stop', '-m', mode)
		self.control('start')

	def monkey_fills(self, numbers):
		path = os.path.join(self.options.small, 'filler')
		try:
			with open(path, 'wb') as filler:
				while filler.write(b'\0' * 65536):
					filler.flush()
		except OSError:
			pass
		try:
			time.sleep(1)
		finally:
			os.truncate(path, 0)
			os.remove(path)

	def in_database(self, numbers, sql, *arguments):
		try:
			session = psycopg2.connect(application_name='monkey', dbname='chaos')
		except psycopg2.Error:
			return None
		try:
			session.autocommit = True
			cursor = session.cursor()
			cursor.execute(sql, arguments)
			return cursor.fetchall() if cursor.description else None
		except psycopg2.Error:
			return None
		finally:
			session.close()

	def monkey_resets(self, numbers):
		for _ in range(20):
			task, key = numbers.choice(TASKS), f'key {numbers.randrange(60)}'
			answer = self.in_database(numbers, 'SELECT trigger_idem.idempotency_key_reset(%s, %s)', task, key)
			if answer is None or answer[0][0]:		# an answer that is lost may have been a yes
				self.note('resets', {'task': task, 'key': key})

	def monkey_cancels_runs(self, numbers):
		self.in_database(numbers, "SELECT trigger_idem.run_cancel(run_id) FROM trigger_idem.runs WHERE finished_at IS NULL LIMIT 3")

	def monkey_pauses(self, numbers):
		self.in_database(numbers, "SELECT trigger_idem.queue_pause('default')")
		time.sleep(0.5)
		while not self.stopping.is_set() and self.in_database(numbers, "SELECT trigger_idem.queue_resume('default')") is None:
			time.sleep(0.1)

	def monkey_vacuums(self, numbers):
		self.in_database(numbers, 'VACUUM FULL trigger_idem.%s' % numbers.choice(['queue_entry', 'run', 'idempotency_key', 'step']))

	def control(self, *arguments):
		subprocess.run([os.path.join(self.options.bin, 'pg_ctl'), '-D', self.options.data, '-c', '-s', '-w', '-t', '120',
						'-l', os.path.join(self.options.data, 'server.log'), *arguments],
					   check=True, stdout=subprocess.DEVNULL)

	def wait_for_server(self):
		"""It recovers by itself; a full tablespace or a second kill must not meet that."""
		deadline = time.monotonic() + 120
		while time.monotonic() < deadline:
			try:
				psycopg2.connect(dbname='chaos').close()
				return
			except psycopg2.Error:
				time.sleep(0.1)
		raise RuntimeError('the server did not come back')

	def break_things(self):
		numbers = self.random('monkey')
		often = {'kills_backend': 2, 'kills_worker': 2, 'kills_launcher': 1, 'terminates': 4, 'cancels': 4, 'holds': 4,
				 'stops_server': 2, 'resets': 3, 'cancels_runs': 2, 'pauses': 1, 'vacuums': 1}
		if self.options.small:
			often['fills'] = 3
		until = time.monotonic() + self.options.seconds
		# each once, in any order, before it draws
		first = list(often)
		numbers.shuffle(first)
		while time.monotonic() < until:
			what = first.pop() if first else numbers.choices(list(often), often.values())[0]
			getattr(self, 'monkey_' + what)(numbers)
			self.count('monkey ' + what)
			self.wait_for_server()
			time.sleep(numbers.random())

	# ---------- All of it ----------

	def drain(self):
		"""Until every run has ended, with what workers are left"""
		deadline = time.monotonic() + 180
		workers = [self.keep_at('work at the end', self.call_work, self.draining),
				   self.keep_at('application at the end', self.work_outside, self.draining)]
		try:
			session = self.connect('observer', self.draining)
			cursor = session.cursor()
			cursor.execute("SELECT trigger_idem.queue_resume('default')")
			while time.monotonic() < deadline:
				cursor.execute('SELECT count(*) FROM trigger_idem.queue_entry')
				if cursor.fetchone()[0] == 0:
					break
				time.sleep(0.2)
		finally:
			self.draining.set()
			for worker in workers:
				worker.join()
		self.look(session)
		cursor.execute('SELECT run_id, step, nonce FROM effect')
		self.history['effects'] = cursor.fetchall()
		cursor.execute('SELECT run_id, outputs FROM procedure_output')
		self.history['outputs'] = cursor.fetchall()
		session.close()

	def run(self):
		threads = [self.keep_at(f'client {n}', self.trigger) for n in range(self.options.clients)]
		threads += [self.keep_at(f'work {n}', self.call_work) for n in range(2)]
		threads += [self.keep_at(f'application {n}', self.work_outside) for n in range(3)]
		threads += [self.keep_at('observer', self.observe)]
		try:
			self.break_things()
		finally:
			self.stopping.set()
			for thread in threads:
				thread.join()
		self.drain()


def main():
	parser = argparse.ArgumentParser()
	parser.add_argument('--seconds', type=int, default=120)
	parser.add_argument('--seed', type=int)
	parser.add_argument('--clients', type=int, default=6)
	parser.add_argument('--data', required=True)
	parser.add_argument('--bin', required=True)
	parser.add_argument('--small')
	options = parser.parse_args()
	if options.seed is None:
		options.seed = int(time.time())
	print(f'# seed {options.seed}', flush=True)

	chaos = Chaos(options)
	chaos.run()
	history = chaos.history
	for what, times in sorted(chaos.did.items()):
		print(f'# {what}: {times}')
	statuses = {}
	for run in history['runs'].values():
		statuses[run['status']] = statuses.get(run['status'], 0) + 1
	attempts = {}
	for tried in history['attempts'].values():
		for _, status in tried:
			attempts[status] = attempts.get(status, 0) + 1
	print(f"# {len(history['runs'])} runs: {statuses}")
	print(f'# attempts: {attempts}')
	print(f"# {len(history['effects'])} effects, {len(history['memos'])} looks at memos, "
		  f"{sum(t['is_cached'] for t in history['triggers'])} of {len(history['triggers'])} triggers were hits")

	results = [
		('nothing unexpected happened to clients and workers', chaos.failures),
		('each live key had one run, whoever triggered it', list(checker.check_keys(history))),
		('nothing that was committed is lost', list(checker.check_triggers(history))),
		('each run has ended, once', list(checker.check_ends(history))),
		("each step's effect is there once, and no memo has changed", list(checker.check_effects(history))),
	]
	if not any(wrong for _, wrong in results):
		results.append(('the checker finds each fault that is put in', checker.unnoticed_faults(history)))
	for number, (name, wrong) in enumerate(results, 1):
		print(f"{'not ok' if wrong else 'ok'} {number} - {name}")
		for line in wrong[:20]:
			print(f'#	{line}')
	print(f'1..{len(results)}')
	return 1 if any(wrong for _, wrong in results) else 0


sys.exit(main())
