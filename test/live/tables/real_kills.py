"""real_kills.py - criu is killed at random moments of dumps of real programs, over and over: none may be hurt.

The jobs of real.py and real_services.py run as often as it takes, and criu is killed by SIGKILL while it dumps them. A dump with
-R must leave the job running. A dump that ends the job leaves it running, too, or complete images: then it is restored and goes
on. In the end its results must be those of an undisturbed run.
"""

import os
import random
import shutil
import signal
import time

from harness import system
from harness.cell import Failure
from harness.row import Row

from . import kills, real, real_services

MOST_REPEATS = 200  # of a job: far more than the kills need
KILLS_OF_OTHERS = 10  # a program takes seconds to begin and end: one kill here for so many of other rows


class Victim:
	"""One job, run again and again, in `work`."""

	def __init__(self, cell, job, dumper, restorer):
		self.cell, self.job, self.dumper, self.restorer = cell, job, dumper, restorer
		self.chance = random.Random(f"{cell.settings.seed} {cell.row.name}")
		self.rounds = self.hits = self.restores = 0

	def begin(self):
		shutil.rmtree(self.cell.path("work"), ignore_errors=True)
		self.job.set_up(self.cell, "work")
		self.job.start(self.cell, "work")

	def has_ended(self):
		self.cell.reap()
		return self.cell.root in self.cell.exits

	def end(self):
		real.end(self.cell)
		real.check_result(self.cell, self.job)

	def kill_one_dump(self, whole, keep):
		"""Returns whether criu was still at work when the signal was sent."""
		images = self.cell.new_images("killed")
		options = ["-R"] if keep else []
		command = [self.dumper.path, "dump", *options, "-t", str(self.cell.root), "-D", images, "-o", "dump.log",
			   *self.cell.row.dump_options]
		before, self.cell.away_since = system.tree(self.cell.root), time.monotonic()
		delay = self.chance.uniform(0, whole * 1.05)
		code = kills.start_and_signal(self.cell, command, delay, signal.SIGKILL)
		try:
			self.check_after(images, before, keep)
		except Failure as failure:
			raise Failure(f"{kills.where(self.rounds, delay, whole)}, {command[1:3]}: {failure}")
		shutil.rmtree(images)
		return code < 0

	def check_after(self, images, before, keep):
		"""Everything has ended and can be restored, or everything runs on."""
		is_complete = os.path.exists(os.path.join(images, "inventory.img"))
		if is_complete and not keep:
			system.wait_until(self.has_ended, 1)  # it may be about to
		def dead_or_running():
			if self.has_ended():
				return True
			try:
				self.cell.check_running()
			except Failure:
				return False
			return True
		if not system.wait_until(dead_or_running, 2) and not self.has_ended():
			self.cell.check_running()
		if not self.has_ended() or self.cell.exits[self.cell.root] != signal.SIGKILL:
			return
		if keep:
			raise Failure("it killed the job")
		self.cell.wait_gone([*before, *system.descendants(os.getpid())])  # it may have had more children since
		if not is_complete:
			raise Failure("the job is dead, and there are no images")
		self.cell.restore(self.restorer, images)
		self.restores += 1


def time_of_dump(victim):
	"""The seconds of the shortest of three dumps of the job while it works, so that signals arrive while a dump runs."""
	seconds = []
	for number in range(3):
		images = victim.cell.new_images(f"whole{number}")
		seconds.append(victim.dumper.dump(victim.cell.root, images, ["-R", *victim.cell.row.dump_options]).seconds)
		shutil.rmtree(images)
	return min(seconds)


def kill_dumps_of(job, always_keep):
	def run(cell, dumper, restorer):
		job.set_up(cell, "reference")
		started = job.start(cell, "reference")
		real.end(cell)
		seconds = time.monotonic() - started
		victim, kills_wanted = Victim(cell, job, dumper, restorer), max(1, cell.settings.kills // KILLS_OF_OTHERS)
		for _ in range(MOST_REPEATS):
			victim.begin()
			time.sleep(0.1 * seconds)
			whole = time_of_dump(victim)
			while victim.hits < kills_wanted and not victim.has_ended():
				keep = always_keep or victim.chance.random() < 0.7
				victim.hits += victim.kill_one_dump(whole, keep)
				victim.rounds += 1
			victim.end()
			if victim.hits >= kills_wanted:
				return
		raise Failure(f"only {victim.hits} dumps were killed")
	return run


# After a death in the last step, an inotify of node reports an overflow, which fs.watch does not tell.
ALWAYS_KEEP = ("node",)

ROWS = [Row(f"killed-real-{name}", run=kill_dumps_of(job, name in ALWAYS_KEEP), modes=("ours",), changes_files=True, timeout=3600,
	    **(real.LOCKS if name == "git" else {}))
	for name, job in real_services.JOBS.items()]
