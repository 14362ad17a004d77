"""Holds the history of a chaos run against what trigger_idem promises.

A history is a dict of lists and dicts, all that was seen from outside:

triggers	what a client was told after its COMMIT: task, key, run_id, is_cached
resets		task and key of each reset that was told to have freed it, or whose
			answer was lost
completions	run_id, attempt and output of each end that an application was told
memos		run_id, step, output, each time that somebody looked
runs		by run_id: task, key, status, payload, output, as seen last
attempts	by run_id: list of (attempt, status), as seen last
effects		(run_id, step, nonce), all rows in the end
outputs		run_id, outputs: what procedures have got from their steps, all rows
"""

from collections import Counter, defaultdict

FINAL = {'completed', 'failed', 'crashed', 'timed_out', 'canceled', 'expired'}
RELEASE = {
	'function': {'failed', 'crashed', 'timed_out', 'expired'},
	'procedure': FINAL,
	'parent': set(),
	'application': {'failed', 'crashed', 'timed_out', 'expired'},
}
MAX_ATTEMPTS = 100


def steps_of(run):
	"""The steps that a completed run has done"""
	count = 2 if run['task'] == 'parent' else run['payload']['steps']
	return [f'step {n + 1}' for n in range(count)]


def check_keys(history):
	"""Each live key had one run: another one only after it was freed."""
	freed = Counter((reset['task'], reset['key']) for reset in history['resets'])
	runs = defaultdict(set)
	for run_id, run in history['runs'].items():
		if run['key'] is not None:
			runs[run['task'], run['key']].add(run_id)
			if run['status'] in RELEASE[run['task']]:
				freed[run['task'], run['key']] += 1
	for place, run_ids in runs.items():
		if len(run_ids) > 1 + freed[place]:
			yield f'key {place} had {len(run_ids)} runs, and was freed {freed[place]} times'
	created = Counter(t['run_id'] for t in history['triggers'] if not t['is_cached'])
	for run_id, times in created.items():
		if times > 1:
			yield f'run {run_id} was new to {times} triggers'


def check_triggers(history):
	"""Nothing committed was lost."""
	for trigger in history['triggers']:
		run = history['runs'].get(trigger['run_id'])
		if run is None:
			yield f"run {trigger['run_id']} is lost: {trigger}"
		elif (run['task'], run['key']) != (trigger['task'], trigger['key']):
			yield f"run {trigger['run_id']} is of another trigger than {trigger}: {run}"
	for completion in history['completions']:
		run = history['runs'].get(completion['run_id'])
		if run is None or run['status'] != 'completed' or run['output'] != completion['output']:
			yield f'a completion is lost: {completion}, {run}'


def check_ends(history):
	"""Each run ended, once, and by the last of its attempts."""
	for run_id, run in history['runs'].items():
		if run['status'] not in FINAL:
			yield f"run {run_id} has not ended: {run['status']}"
		attempts = sorted(history['attempts'].get(run_id, []))
		statuses = [status for _, status in attempts]
		if len({number for number, _ in attempts}) != len(attempts):
			yield f'run {run_id} has an attempt twice: {attempts}'
		if statuses.count('completed') > 1 or 'completed' in statuses[:-1] or \
				(statuses[-1:] == ['completed']) != (run['status'] == 'completed'):
			yield f"run {run_id} is {run['status']}, its attempts {attempts}"
		if statuses.count('failed') + statuses.count('crashed') > MAX_ATTEMPTS:
			yield f'run {run_id} had too many attempts: {attempts}'


def check_effects(history):
	"""Each step's effect is there once, and is what the step's memo says."""
	nonces = defaultdict(list)
	for run_id, step, nonce in history['effects']:
		nonces[run_id, step].append(nonce)
		if run_id not in history['runs']:
			yield f'there is an effect of run {run_id}, which nobody knows'
	for place, seen in nonces.items():
		if len(seen) > 1:
			yield f'the effect of {place} is there {len(seen)} times'
	for run_id, run in history['runs'].items():
		if run['status'] == 'completed':
			for step in steps_of(run):
				if (run_id, step) not in nonces:
					yield f'the effect of {step} of run {run_id} is missing'
	memos = {}
	for run_id, step, output in history['memos']:
		if memos.setdefault((run_id, step), output) != output:
			yield f'the memo of {step} of run {run_id} was {memos[run_id, step]} and then {output}'
	for place, output in memos.items():
		if nonces.get(place) != [output]:
			yield f'the memo of {place} is {output}, its effects are {nonces.get(place)}'
	outputs = [(run_id, run['output']) for run_id, run in history['runs'].items()
			   if run['status'] == 'completed' and run['output'] is not None]
	for run_id, output in outputs + history['outputs']:
		for step, nonce in output.items():
			if nonces.get((run_id, step)) != [nonce]:
				yield f'run {run_id} got {nonce} from {step}, its effects are {nonces.get((run_id, step))}'


def check(history):
	"""All that is wrong, as texts"""
	return [wrong for rule in (check_keys, check_triggers, check_ends, check_effects) for wrong in rule(history)]


# ---------- What the checker must find ----------

def copy_of(history):
	return {name: dict(part) if isinstance(part, dict) else list(part) for name, part in history.items()}


def completed_run(history, steps=True):
	return next(run_id for run_id, run in history['runs'].items()
				if run['status'] == 'completed' and (not steps or any(e[0] == run_id for e in history['effects'])))


def duplicate_effect(history):
	history['effects'].append(next(e for e in history['effects'] if e[0] == completed_run(history)))


def effect_done_again(history):
	run_id, step, _ = next(e for e in history['effects'] if e[0] == completed_run(history))
	history['effects'].append((run_id, step, 'another'))


def lost_effect(history):
	history['effects'].remove(next(e for e in history['effects'] if e[0] == completed_run(history)))


def lost_run(history):
	del history['runs'][history['triggers'][0]['run_id']]


def second_run(history):
	run_id = next(t['run_id'] for t in history['triggers'] if t['key'] is not None and t['task'] == 'parent')
	history['runs']['another'] = dict(history['runs'][run_id])
	history['attempts']['another'] = history['attempts'].get(run_id, [])
	for step in ('step 1', 'step 2'):
		history['effects'].append(('another', step, 'nonce'))


def changed_memo(history):
	run_id, step, _ = history['memos'][0]
	history['memos'].append((run_id, step, 'another'))


def unfinished_run(history):
	run_id = next(iter(history['runs']))
	history['runs'][run_id] = dict(history['runs'][run_id], status='executing')


def completed_twice(history):
	run_id = completed_run(history)
	number = max(n for n, _ in history['attempts'][run_id])
	history['attempts'][run_id] = history['attempts'][run_id] + [(number + 1, 'completed')]


def lost_completion(history):
	completion = history['completions'][0]
	history['runs'][completion['run_id']] = dict(history['runs'][completion['run_id']], output={'step 1': 'another'})


FAULTS = [duplicate_effect, effect_done_again, lost_effect, lost_run, second_run, changed_memo, unfinished_run,
		  completed_twice, lost_completion]


def unnoticed_faults(history):
	"""Names of the faults that, put into a history without one, are not found"""
	unnoticed = []
	for fault in FAULTS:
		broken = copy_of(history)
		fault(broken)
		if not check(broken):
			unnoticed.append(fault.__name__)
	return unnoticed
