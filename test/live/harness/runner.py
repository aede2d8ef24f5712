"""runner.py - runs each test in a worker process of its own, and counts the results.

The runner is a subreaper, too: when it kills a worker at its time limit, it inherits the worker's descendants and kills
them by pid. A worker reports one JSON object through a pipe.
"""

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import namedtuple

from . import leftovers, system
from .cell import ROOT, Cell, Failure, Skip
from .results import Results

Test = namedtuple("Test", "row mode skip")
Worker = namedtuple("Worker", "test pid pipe directory started deadline")


class Runner:
	def __init__(self, settings):
		self.settings = settings
		self.base = tempfile.mkdtemp(prefix="criu-live.", dir=settings.directory)
		os.chmod(self.base, 0o755)
		self.workers, self.pids = [], []
		signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the workers are stopped
		self.results = Results(getattr(settings, "quiet", False))
		system.become_subreaper()

	def run(self, tests):
		try:
			waiting = sorted(tests, key=lambda test: -test.row.timeout)  # the longest first, so that no long test runs alone at the end
			while waiting or self.workers:
				while len(self.workers) < self.settings.jobs and (test := self.next_of(waiting)):
					self.begin(test)
				self.collect()
		finally:
			for worker in self.workers:
				self.stop(worker)
			leftovers.sweep_cgroups(self.pids)
			if not self.results.failed:
				shutil.rmtree(self.base, ignore_errors=True)
		return self.results

	def next_of(self, waiting):
		"""The first waiting test that may run beside those that run now (alone_with); None if there is none."""
		used = {worker.test.row.alone_with for worker in self.workers} - {""}
		for number, test in enumerate(waiting):
			if test.skip or test.row.alone_with not in used:
				return waiting.pop(number)
		return None

	def begin(self, test):
		if test.skip:
			self.count("skip", test, test.skip, 0)
			return
		directory = os.path.join(self.base, f"{test.row.name}.{test.mode.name}")
		os.mkdir(directory, 0o755)
		reading, writing = os.pipe()
		sys.stdout.flush()
		pid = os.fork()
		if pid == 0:
			os.close(reading)
			os.set_inheritable(writing, False)
			worker_main(test, self.settings, directory, writing)
		os.close(writing)
		self.pids.append(pid)
		now = time.monotonic()
		deadline = now + test.row.timeout * system.patience
		self.workers.append(Worker(test, pid, reading, directory, now, deadline))

	def collect(self):
		readable, _, _ = select.select([worker.pipe for worker in self.workers], [], [], 0.2)
		for worker in list(self.workers):
			if worker.pipe in readable:
				self.end(worker, read_report(worker.pipe))
			elif time.monotonic() > worker.deadline:
				self.stop(worker)
				self.end(worker, ("FAIL", "did not end within its time limit"))

	def end(self, worker, report):
		self.workers.remove(worker)
		os.close(worker.pipe)
		try:
			os.waitpid(worker.pid, 0)
		except ChildProcessError:
			pass
		result, message = report
		self.count(result, worker.test, message, time.monotonic() - worker.started)
		if result == "FAIL":
			print_tails(worker.directory)
		else:
			shutil.rmtree(worker.directory, ignore_errors=True)

	def stop(self, worker):
		"""Ends a worker and its descendants, including those that this process inherits when the worker dies."""
		victims = system.tree(worker.pid)
		for pid in victims:
			try:
				os.kill(pid, signal.SIGKILL)
			except ProcessLookupError:
				pass
		def gone():
			for pid in victims:
				try:
					os.waitpid(pid, os.WNOHANG)
				except ChildProcessError:
					pass
			return not any(os.path.exists(f"/proc/{pid}") for pid in victims)
		system.wait_until(gone, 5)

	def count(self, result, test, message, seconds):
		self.results.add(result, f"{test.row.name} [{test.mode.name}]", message, seconds)


def worker_main(test, settings, directory, pipe):
	"""Never returns."""
	try:
		signal.signal(signal.SIGTERM, signal.SIG_DFL)
		system.become_subreaper()
		system.private_namespaces([ROOT, settings.criu, settings.peer, directory])
		report = run_cell(test, settings, directory)
	except BaseException:
		report = ("FAIL", "the harness itself: " + traceback.format_exc())
	with os.fdopen(pipe, "w") as file:
		json.dump(report, file)
	os._exit(0)


def run_cell(test, settings, directory):
	before = leftovers.snapshot()
	cell = Cell(test.row, test.mode, settings, directory)
	try:
		roles = {"ours": cell.ours, "peer": cell.peer}
		run = test.row.run or test.mode.run
		run(cell, roles[test.mode.dumper], roles[test.mode.restorer])
		result, problems = "pass", []
	except Skip as reason:
		result, problems = "skip", [str(reason)]
	except Failure as failure:
		result, problems = "FAIL", [str(failure)]
	except Exception:
		result, problems = "FAIL", ["the harness itself: " + traceback.format_exc()]
	left = what_is_left(before, directory)
	return ("FAIL" if left else result, "\n".join(problems + left))


def what_is_left(before, directory):
	"""Names everything that survived the test, and kills the tasks among it."""
	def remaining():
		system.reap()
		return system.descendants(os.getpid())
	system.wait_until(lambda: not remaining(), 1)
	tasks = remaining()
	left = [f"left behind: task {system.describe_task(pid)}" for pid in tasks]
	for pid in tasks:
		try:
			os.kill(pid, signal.SIGKILL)
		except ProcessLookupError:
			pass
	system.wait_until(lambda: not remaining(), 5)
	def things():
		return leftovers.snapshot() - before
	# What an io_uring of a dead process holds, the kernel frees later: it waits for its requests in a work queue.
	system.wait_until(lambda: not things(), 5)
	left += [f"left behind: {name}" for name in sorted(things())]
	return left + [f"left behind: {name}" for name in leftovers.socket_files(directory)]


def read_report(pipe):
	data = b""
	while True:
		part = os.read(pipe, 1 << 16)
		if not part:
			break
		data += part
	return json.loads(data) if data else ("FAIL", "the worker died without a report")


def print_tails(directory, files=4, lines=15):
	"""Prints the last lines of the logs that were written last."""
	paths = [os.path.join(folder, name) for folder, _, names in os.walk(directory) for name in names
		 if name.endswith(".log") or name == "output"]
	for path in sorted(paths, key=os.path.getmtime)[-files:]:
		tail = system.read_tail(path).splitlines()[-lines:]
		if tail:
			print(f"    --- the end of {path}")
			print("".join(f"    | {line[:300]}\n" for line in tail), end="")
	sys.stdout.flush()
