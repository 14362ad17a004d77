"""The reference model: what trigger_idem promises, as plain Python.

A Model answers each call as the extension must, and holds what the views must
show.  It knows no clock: time passes only where a test makes it pass.  What a
transaction does is undone by going back to a copy.
"""

import copy

FINAL = {'completed', 'failed', 'crashed', 'timed_out', 'canceled', 'expired'}
DEFAULT_RELEASE = {'failed', 'crashed', 'timed_out', 'expired'}
PRIORITY_IN_TICKS = 1000000


class Refused(Exception):
	"""An error of the extension: its SQLSTATE"""

	def __init__(self, code):
		super().__init__(code)
		self.code = code


class Task:
	def __init__(self, name, kind, max_attempts, backoff=None, release=DEFAULT_RELEASE, group=None, compares=False):
		self.name = name
		self.kind = kind	# application, function or procedure
		self.max_attempts = max_attempts
		self.backoff = backoff	# None: a retry is due at once
		self.release = release
		self.group = group
		self.compares = compares

	def space(self):
		return ('group', self.group) if self.group else ('task', self.name)


TASKS = {task.name: task for task in (
	Task('app_retry', 'application', 2),
	Task('app_once', 'application', 1, release=FINAL, group='shared'),
	Task('app_keeps', 'application', 3, backoff='1 hour', release=set(), group='shared', compares=True),
	Task('function', 'function', 2),
	Task('procedure', 'procedure', 3, release=FINAL),
	Task('function_late', 'function', 2, backoff='1 hour', release={'completed', 'canceled'}),
)}


class Run:
	def __init__(self, task, payload, ord_, priority, max_attempts, parent):
		self.task = task
		self.payload = payload
		self.priority = priority
		self.max_attempts = max_attempts
		self.parent = parent
		self.status = 'queued'
		self.ord = ord_
		self.attempt = 0
		self.steady_failures = 0
		self.attempts = []		# (number, status) of those that have ended
		self.steps = {}			# key -> (output, attempt)
		self.output = None
		self.error = None		# its code, or what the application gave
		self.ttl = False		# was triggered with one
		self.key = None			# (space, key) that it took
		self.is_pruned = False
		self.waits_for = None	# ('run', number) or ('token', number)
		self.waits_since = 0
		self.waited_for = set()	# what it has ever waited for, in the same form

	def is_final(self):
		return self.status in FINAL


class Key:
	def __init__(self, run, payload, has_digest):
		self.run = run
		self.payload = payload
		self.has_digest = has_digest
		self.is_expired = False


class Model:
	def __init__(self):
		self.runs = []
		self.keys = {}
		self.tokens = []		# open, completed or pruned
		self.paused = False
		self.clock = 0

	def copy(self):
		return copy.deepcopy(self)

	def tick(self):
		self.clock += 1
		return self.clock

	def ord_of(self, priority):
		return self.tick() - priority * PRIORITY_IN_TICKS

	# ---------- Keys ----------

	def key_is_live(self, place):
		key = self.keys.get(place)
		if key is None or key.is_expired:
			return False
		run = self.runs[key.run]
		return not (run.status == 'expired' and 'expired' in TASKS[run.task].release)

	def release_key(self, number):
		"""A run has ended: its key is freed if it is still its own."""
		run = self.runs[number]
		key = self.keys.get(run.key)
		if key is not None and key.run == number and run.status in TASKS[run.task].release:
			# one that has expired by the clock, too, stays until it is pruned or taken over
			if not key.is_expired:
				del self.keys[run.key]

	def reset(self, task, key):
		place = (TASKS[task].space(), key)
		if not self.key_is_live(place):
			return False
		del self.keys[place]
		return True

	def expire_key(self, place):
		if place in self.keys:
			self.keys[place].is_expired = True

	# ---------- Triggering ----------

	def trigger(self, task_name, payload=None, key=None, delayed=False, ttl=False, priority=0,
				max_attempts=None, parent=None):
		task = TASKS[task_name]
		place = (task.space(), key)
		if key is not None and self.key_is_live(place):
			held = self.keys[place]
			run = self.runs[held.run]
			if task.compares and (held.has_digest or not run.is_pruned) and held.payload != payload:
				raise Refused('TI001')
			return held.run, True, run.status
		run = Run(task_name, payload, self.ord_of(priority), priority, max_attempts or task.max_attempts, parent)
		run.status = 'delayed' if delayed else 'queued'
		run.ttl = ttl
		self.runs.append(run)
		number = len(self.runs) - 1
		if key is not None:
			run.key = place
			self.keys[place] = Key(number, payload, task.compares)
		return number, False, run.status

	def replay(self, number):
		run = self.known(number)
		new, _, _ = self.trigger(run.task, run.payload, None, False, run.ttl, run.priority, run.max_attempts)
		return new

	# ---------- Ends of attempts ----------

	def known(self, number):
		run = self.runs[number]
		if run.is_pruned:
			raise Refused('42704')
		return run

	def owned(self, number, attempt):
		run = self.known(number)
		if run.status != 'executing' or run.attempt != attempt:
			raise Refused('TI002')
		return run

	def end_run(self, number, status, output=None, error=None):
		run = self.runs[number]
		run.status, run.output, run.error = status, output, error
		run.waits_for = None
		self.release_key(number)
		self.wake_all(('run', number))

	def wake_all(self, target):
		"""Who has begun to wait first is woken first."""
		for run in sorted((r for r in self.runs if r.waits_for == target), key=lambda r: r.waits_since):
			self.wake(run)

	def wake(self, run):
		run.waits_for = None
		run.status = 'queued'
		run.ord = self.ord_of(run.priority)

	def fail(self, number, error, status='failed', retry=True, delayed=None):
		"""An attempt has failed, or crashed."""
		run = self.runs[number]
		run.attempts.append((run.attempt, status))
		run.steady_failures += 1
		if not retry or run.steady_failures >= run.max_attempts:
			self.end_run(number, status, None, error)
			return status
		delayed = delayed if delayed is not None else TASKS[run.task].backoff is not None
		run.status = 'delayed' if delayed else 'queued'
		run.ord = self.ord_of(run.priority)
		return run.status

	def complete(self, number, attempt, output):
		run = self.known(number)
		if run.status == 'completed' and run.attempt == attempt:
			if run.output != output:
				raise Refused('TI004')
			return
		run = self.owned(number, attempt)
		run.attempts.append((attempt, 'completed'))
		self.end_run(number, 'completed', output)

	def release(self, number, attempt, delayed):
		run = self.owned(number, attempt)
		run.attempts.append((attempt, 'released'))
		run.status = 'delayed' if delayed else 'queued'
		run.ord = self.ord_of(run.priority)

	def step_end(self, number, attempt, key, output):
		run = self.owned(number, attempt)
		if key in run.steps:
			if run.steps[key][0] != output:
				raise Refused('TI004')
			return
		run.steps[key] = (output, attempt)

	def suspend(self, number, target):
		"""The attempt ends, and its run waits for a target that has not ended."""
		run = self.runs[number]
		run.attempts.append((run.attempt, 'waiting'))
		run.status = 'waiting'
		run.waits_for = target
		run.waits_since = self.tick()

	def wait(self, number, target):
		"""Asked for by a run: does it wait?"""
		kind, what = target
		if kind == 'token':
			if self.tokens[what] == 'pruned':
				raise Refused('42704')
			is_over = self.tokens[what] == 'completed'
		else:
			is_over = self.known(what).is_final()
			# around the circle of those that wait
			while target is not None and target[0] == 'run':
				if target[1] == number:
					raise Refused('TI005')
				target = self.runs[target[1]].waits_for
		self.runs[number].waited_for.add((kind, what))
		if not is_over:
			self.suspend(number, (kind, what))
		return not is_over

	def complete_token(self, number):
		if self.tokens[number] == 'pruned':
			raise Refused('42704')
		if self.tokens[number] == 'completed':
			return False
		self.tokens[number] = 'completed'
		self.wake_all(('token', number))
		return True

	def cancel(self, number):
		run = self.known(number)
		if run.is_final():
			return False
		if run.status == 'executing':
			run.attempts.append((run.attempt, 'canceled'))
		self.end_run(number, 'canceled')
		for child, other in enumerate(self.runs):
			if other.parent == number and not other.is_final() and not other.is_pruned and \
					not any(r.waits_for == ('run', child) for r in self.runs):
				self.cancel(child)
		return True

	# ---------- Working ----------

	def due(self, kinds):
		if self.paused:
			return []
		due = [n for n, run in enumerate(self.runs) if run.status == 'queued' and TASKS[run.task].kind in kinds]
		return sorted(due, key=lambda n: self.runs[n].ord)

	def start(self, number):
		run = self.runs[number]
		run.attempt += 1
		run.status = 'executing'
		return run.attempt

	def claim(self, how_many):
		return [(n, self.start(n)) for n in self.due({'application'})[:how_many]]

	def work(self):
		"""Until nothing is due; how many attempts that were"""
		attempts = 0
		while True:
			due = self.due({'function', 'procedure'})
			if not due:
				return attempts
			self.execute(due[0])
			attempts += 1

	def execute(self, number):
		"""What the handler of test/model/setup.sql does"""
		attempt = self.start(number)
		run = self.runs[number]
		plan = run.payload or {}
		kept = dict(run.steps)
		for key in plan.get('steps', []):
			run.steps.setdefault(key, (key + ' done', attempt))
		if attempt <= plan.get('failures', 0):
			if TASKS[run.task].kind == 'function':
				run.steps = kept
			code = plan.get('code', 'XX999')
			self.fail(number, code, retry=code != 'TI006')
		else:
			run.attempts.append((attempt, 'completed'))
			self.end_run(number, 'completed', 'handled' if TASKS[run.task].kind == 'function' else None)

	# ---------- Time, and upkeep ----------

	def make_due(self, number):
		run = self.runs[number]
		if run.status == 'delayed':
			run.status = 'queued'
			run.ord = self.ord_of(run.priority)

	def outlive_ttl(self, number):
		run = self.runs[number]
		if run.ttl and run.attempt == 0 and run.status in ('queued', 'delayed'):
			self.end_run(number, 'expired')
			return True
		return False

	def prune(self):
		"""Expired keys, and what has ended and no unfinished run has waited for"""
		for place in [p for p, k in self.keys.items() if k.is_expired]:
			del self.keys[place]
		needed = set()
		for run in self.runs:
			if not run.is_final():
				needed |= run.waited_for
		for number, run in enumerate(self.runs):
			if run.is_final() and ('run', number) not in needed:
				run.is_pruned = True
		for number, state in enumerate(self.tokens):
			if state == 'completed' and ('token', number) not in needed:
				self.tokens[number] = 'pruned'

	# ---------- What the views must show ----------

	def shown(self):
		runs = [(n, r.task, r.status, r.attempt, r.output, r.error, r.parent)
				for n, r in enumerate(self.runs) if not r.is_pruned]
		attempts = [(n, number, status) for n, r in enumerate(self.runs) if not r.is_pruned
					for number, status in r.attempts]
		attempts += [(n, r.attempt, 'executing') for n, r in enumerate(self.runs) if r.status == 'executing']
		steps = [(n, key, output, attempt) for n, r in enumerate(self.runs) if not r.is_pruned
				 for key, (output, attempt) in r.steps.items()]
		keys = [(space[0] + ' ' + space[1], key, held.run) for (space, key), held in self.keys.items()]
		return {'runs': runs, 'attempts': sorted(attempts), 'steps': sorted(steps, key=str), 'keys': sorted(keys),
				'tokens': [(n, state) for n, state in enumerate(self.tokens) if state != 'pruned']}
