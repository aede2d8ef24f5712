"""cell.py - one test: starts a program, dumps and restores it in one mode, and asks it whether it noticed.

A Cell owns a directory and everything below its worker process. The program gets the directory, writes `ready` there
when it may be dumped, and writes `verdict` after SIGTERM, when it has checked its state a last time.
What goes wrong raises Failure. What cannot be tested on this machine raises Skip with the reason.
"""

import os
import shutil
import signal
import subprocess
import time

from . import system
from .criu import Criu
from .system import PROGRAMS, ROOT  # noqa: F401

NOBODY = 65534


class Failure(Exception):
	pass


class Skip(Exception):
	pass


class Cell:
	def __init__(self, row, mode, settings, directory):
		self.row, self.mode, self.settings, self.directory = row, mode, settings, directory
		self.ours = Criu(settings.criu, settings.peer)
		self.peer = Criu(settings.peer, settings.peer)
		self.user = None
		self.root = 0
		self.downtime = 0.0
		self.times_away = 0
		self.exits = {}

	# Files of the test

	def path(self, *names):
		return os.path.join(self.directory, *names)

	def new_images(self, name="images"):
		path = self.path(name)
		os.mkdir(path, 0o700)
		return path

	# The program

	def start(self, command=None):
		"""Starts the row's program, or another one of programs/, and waits until it says that it is ready."""
		self.begin(command or [self.program(), self.directory, *self.row.arguments])
		self.wait_ready()
		return self.root

	def begin(self, command):
		"""Starts any command in a session of its own. It does not report when it is ready."""
		if self.user is not None:
			os.chown(self.directory, self.user, self.user)
		with open(os.devnull) as nothing, open(self.path("output"), "a") as output:
			process = subprocess.Popen(command, stdin=nothing, stdout=output, stderr=output,
						   start_new_session=True, cwd=self.directory, user=self.user,
						   group=self.user, extra_groups=None if self.user is None else [])
		self.root = process.pid
		process.returncode = 0  # reaped here, not by subprocess

	def program(self):
		path = os.path.join(PROGRAMS, self.row.program)
		if self.user is None:
			return path
		return shutil.copy(path, self.directory)

	def wait_ready(self, seconds=20):
		def ready_or_dead():
			self.reap()
			return any(os.path.exists(self.path(name)) for name in ("ready", "verdict")) or self.root in self.exits
		if not system.wait_until(ready_or_dead, seconds):
			raise Failure("the program was not ready in time")
		if os.path.exists(self.path("verdict")) and self.root not in self.exits:
			self.kill_tree()  # a child has failed already, and its parent waits for SIGTERM
		if self.root in self.exits:
			self.judge()
			raise Failure("the program ended before it was dumped")

	def reap(self):
		self.exits.update(system.reap())

	def wait_gone(self, pids, seconds=10):
		def gone():
			self.reap()
			return not any(os.path.exists(f"/proc/{pid}") for pid in pids)
		if not system.wait_until(gone, seconds):
			left = [system.describe_task(pid) for pid in pids if os.path.exists(f"/proc/{pid}")]
			raise Failure("still there: " + "; ".join(left))

	def kill_tree(self):
		pids = system.tree(self.root)
		for pid in pids:
			try:
				os.kill(pid, signal.SIGKILL)
			except ProcessLookupError:
				pass
		self.wait_gone(pids)

	def finish(self, seconds=20):
		"""Asks the program to stop, waits for its end and reads its verdict."""
		os.kill(self.root, signal.SIGTERM)
		self.wait_end(seconds)
		self.judge()

	def wait_end(self, seconds):
		def ended():
			self.reap()
			return self.root in self.exits
		if not system.wait_until(ended, seconds):
			states = [f"{system.describe_task(pid)} [{system.read_text(f'/proc/{pid}/wchan')}]"
				  for pid in system.tree(self.root)]
			raise Failure("the program did not end after SIGTERM:\n  " + "\n  ".join(states))

	def judge(self):
		verdict = system.read_text(self.path("verdict")).strip()
		if verdict.startswith("SKIP"):
			raise Skip(verdict)
		if verdict != "PASS":
			raise Failure(verdict or f"the program wrote no verdict (wait status {self.exits.get(self.root)})")

	def forget_verdict(self):
		for name in ("verdict", "downtime"):
			if os.path.exists(self.path(name)):
				os.unlink(self.path(name))

	# Dump and restore

	def dump(self, criu, images, options=(), **how):
		"""Dumps the tree. After a failed dump the tree must run on; the Failure says whether it did."""
		before = system.tree(self.root)
		self.away_since = time.monotonic()
		run = criu.dump(self.root, images, [*self.row.dump_options, *options], **how)
		if run.failed:
			raise Failure(f"dump by {criu} failed: {run.describe()}\n{self.after_failed_dump()}")
		if not {"-R", "-s"} & set(options):
			self.wait_gone(before)
		return run

	def pre_dump(self, criu, images, options=(), **how):
		run = criu.pre_dump(self.root, images, options, **how)
		if run.failed:
			raise Failure(f"pre-dump by {criu} failed: {run.describe()}\n{self.after_failed_dump()}")
		self.check_running()
		return run

	def after_failed_dump(self):
		try:
			self.check_running()
			if self.row.program:
				self.finish()
			else:
				self.kill_tree()
		except Failure as failure:
			return f"AND the tree did not run on: {failure}"
		return "(the tree ran on)"

	def check_running(self):
		"""Raises Failure if a task of the tree is stopped, traced or gone."""
		for pid in system.tree(self.root):
			if system.thread_state(pid, pid) == "Z" and pid != self.root:
				continue
			for tid in system.threads(pid):
				state = system.thread_state(pid, tid)
				tracer = system.status(pid, tid).get("TracerPid", "0")
				stopped = state == "T" and not self.row.has_stopped_task
				if stopped or state in "tX" or tracer != "0":
					raise Failure(f"thread {tid} of {pid}: state {state}, tracer {tracer}")
		if system.thread_state(self.root, self.root) in ("gone", "Z"):
			raise Failure(f"process {self.root} has ended")

	def restore(self, criu, images, options=(), **how):
		run = criu.restore(images, [*self.row.restore_options, *options], **how)
		if run.failed:
			self.reap()
			left = [system.describe_task(pid) for pid in system.descendants(os.getpid())]
			note = "AND left behind: " + "; ".join(left) if left else "(nothing left behind)"
			raise Failure(f"restore by {criu} failed: {run.describe()}\n{note}")
		if not os.path.exists(f"/proc/{self.root}"):
			raise Failure(f"restore by {criu} succeeded, but process {self.root} is not there")
		self.exits.pop(self.root, None)
		self.note_downtime()
		return run

	def note_downtime(self):
		"""Tells the program how long it was away in total."""
		self.downtime += time.monotonic() - self.away_since
		self.times_away += 1
		temporary = self.path("downtime.new")
		with open(temporary, "w") as file:
			file.write(f"{self.downtime:.3f} {self.times_away}\n")
		os.chmod(temporary, 0o644)
		os.rename(temporary, self.path("downtime"))

	def pause(self):
		"""Lets the program run for the seconds that its row asks for, or else until each thread has run a few times."""
		if self.row.pause:
			time.sleep(self.row.pause)
		else:
			system.wait_run(self.root)
