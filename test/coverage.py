#!/usr/bin/env python3
"""Reads lcov's output: coverage.py INFO SOURCE LIST

Prints a report by file, then TAP: whether every place of src/ that was not executed is
in the list of those that cannot be, and whether each entry of it is still needed.

A place is a line, or a condition of an if, a loop or a switch some of whose ways are
not gone.  Where the only one of them leads to the next line, that line is the place.  An
entry is "FILE: CODE: REASON", where CODE is part of the statement and FILE may be *.
"""

import re
import sys

CONDITION = re.compile(r'^\s*(\}\s*)?(else\s+)?(if|for|while|switch)\s*\(')


def read(info):
	"""By file: executions of each line, and of each way out of each line"""
	files = {}
	lines = branches = None
	for line in open(info, encoding='utf-8'):
		kind, _, rest = line.rstrip('\n').partition(':')
		if kind == 'SF':
			lines, branches = files.setdefault(re.sub(r'.*/src/', 'src/', rest), ({}, {}))
		elif kind == 'DA':
			number, times = rest.split(',')[:2]
			lines[int(number)] = int(times)
		elif kind == 'BRDA':
			number, _, _, times = rest.split(',')
			branches.setdefault(int(number), []).append(0 if times == '-' else int(times))
	return files


def statement_at(source, number):
	"""The statement that begins in a line, on one line"""
	text = []
	for line in source[number - 1:number + 11]:
		text.append(line.strip())
		if line.rstrip().endswith((';', '{', '}')):
			break
	return ' '.join(text)


def places_of(source, lines, branches):
	"""(line number, statement, how often each way was gone) of each place that was not executed"""
	numbers = sorted(lines)
	for number, after in zip(numbers, numbers[1:] + [None]):
		ways = branches.get(number, [])
		if lines[number] == 0:
			yield number, statement_at(source, number), 'not executed'
		elif CONDITION.match(source[number - 1]) and 0 in ways:
			if ways.count(0) > 1 or after is None or lines[after] > 0:
				yield number, statement_at(source, number), 'ways ' + ' '.join(map(str, ways))


def main():
	info, root, listed = sys.argv[1:]
	entries = []
	for line in open(listed, encoding='utf-8'):
		line = line.strip()
		if line and not line.startswith('#'):
			file, code, reason = re.match(r'(\S+): (.+): ([^:]+)$', line).groups()
			entries.append([file, code, reason, 0])

	unlisted = []
	total = [0, 0, 0, 0]
	print(f'{"file":32} {"lines":>6} {"executed":>9} {"ways":>6} {"gone":>9}')
	for file, (lines, branches) in sorted(read(info).items()):
		if not file.endswith('.c') and not file.endswith('.h'):
			continue
		source = open(f'{root}/{file}', encoding='utf-8').read().split('\n')
		ways = [times for number, taken in branches.items() if CONDITION.match(source[number - 1]) for times in taken]
		row = [len(lines), sum(1 for times in lines.values() if times), len(ways), sum(1 for times in ways if times)]
		total = [a + b for a, b in zip(total, row)]
		print(f'{file:32} {row[0]:6} {100 * row[1] / max(row[0], 1):8.1f}% {row[2]:6} {100 * row[3] / max(row[2], 1):8.1f}%')
		for number, text, what in places_of(source, lines, branches):
			found = [e for e in entries if e[0] in ('*', file) and e[1] in text]
			for entry in found:
				entry[3] += 1
			if not found:
				unlisted.append(f'{file}:{number}: {what}: {text}')
	print(f'{"all":32} {total[0]:6} {100 * total[1] / total[0]:8.1f}% {total[2]:6} {100 * total[3] / total[2]:8.1f}%')

	print(f"{'not ok' if unlisted else 'ok'} 1 - what is not executed is in the list")
	for line in unlisted:
		print(f'# {line}')
	needless = [e for e in entries if e[3] == 0 and not e[2].startswith('a race')]
	print(f"{'not ok' if needless else 'ok'} 2 - all that is in the list is not executed")
	for entry in needless:
		print(f'# {entry[0]}: {entry[1]}')
	print('1..2')


main()
