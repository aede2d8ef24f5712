"""dying.py - what the kernel does when a task ends must not happen to a task that a dump ends."""

import os
import random
import re
import shutil
import signal
import time

from harness import system
from harness.cell import Failure
from harness.row import Row
from . import kills

MARKED = {"dump": "the kernel marks the futexes of those that it ends"}
MEMORY = ("mutex", "inheriting", "unlocking", "clear_tid", "child_clear_tid")
ELSEWHERE = {"leave-stopped": "this mode saves the files of the test's directory only"}
PLACES = {"": {}, "-tmpfs": {"path": ("/tmp/dying-shared",), "without": ELSEWHERE}}


UNDONE = ("held", "given", "thread", "own_list", "high", "many", "child")
NOT_UNDONE = ("returned", "idle", "foreign")


def memory(kind, suffix, path=(), without={}):
	return Row("dying-" + kind.replace("_", "-") + suffix, "dying", arguments=(kind, *path), changes_files=True, without=without,
		   peer_fails=MARKED)


def killed(cell, dumper, restorer):
	"""criu is killed at a random moment of a dump: the whole tree runs on as it was, or the whole tree is gone and can be restored."""
	cell.start()
	before = system.tree(cell.root)
	whole = kills.time_of_dump(cell, dumper)
	chance, ends = random.Random(f"{cell.settings.seed} {cell.row.name}"), [0, 0]
	for number in range(cell.settings.kills):
		images = cell.new_images(f"killed{number}")
		command = [dumper.path, "dump", "-t", str(cell.root), "-D", images, "-o", "dump.log"]
		cell.away_since = time.monotonic()
		kills.start_and_signal(cell, command, chance.uniform(whole * 0.2, whole * 1.3), signal.SIGKILL)
		is_complete = os.path.exists(os.path.join(images, "inventory.img"))
		is_gone = system.wait_until(lambda: not left(cell), 0.3 if is_complete else 0)
		if not is_gone and sorted(left(cell)) != sorted(before):  # it is ending; all of it must end
			is_gone = system.wait_until(lambda: not left(cell), 5)
		ends[is_gone] += 1
		if is_gone:
			cell.restore(restorer, images)
		elif sorted(left(cell)) != sorted(before):
			raise Failure(f"round {number + 1}: only a part of the tree is left: {left(cell)} of {before}")
		cell.check_running()
		shutil.rmtree(images)
	if not all(ends):
		raise Failure(f"the tree ran on {ends[0]} times and ended {ends[1]} times: the test needs both")
	cell.finish()


def undone(cell, dumper, _restorer):
	"""A SEM_UNDO adjustment cannot be saved: the dump is refused and names the semaphore, even if the processes are to run on."""
	cell.start()
	for number, options in enumerate(([], ["-R"])):
		images = cell.new_images(f"images{number}")
		run = dumper.dump(cell.root, images, options)
		if not run.failed or not re.search(r"semaphore \d+ of set \d+ .*SEM_UNDO", run.error):
			raise Failure(f"the error does not name the semaphore: {run.describe()}")
		if os.path.exists(os.path.join(images, "inventory.img")):
			raise Failure("the directory looks complete: it has inventory.img")
		cell.check_running()
	cell.finish()


def left(cell):
	cell.reap()
	return system.descendants(os.getpid())


ROWS = [
	*[memory(kind, suffix, **more) for kind in MEMORY for suffix, more in PLACES.items()],
	*[Row("semaphores-" + kind, "semaphores", arguments=(kind,), run=undone, modes=("ours", "peer"), peer_fails={
		"dump": "it lets the kernel undo it"}) for kind in UNDONE],
	*[Row("semaphores-" + kind, "semaphores", arguments=(kind,), unprivileged=True) for kind in NOT_UNDONE],
	*[Row("dying-killed-" + kind, "dying", arguments=(kind,), run=killed, modes=("ours",), timeout=600)
	  for kind in ("mutex", "unlocking")],
]
