"""modes.py - the ways in which every row is run. A mode is a function over a Cell; MODES says who dumps and restores.

`ours` is the binary under test and `peer` the other criu. `peer` on both sides and
`undisturbed` show that the tests themselves are right; they run when they are asked for.
"""

import os
import shutil
import signal
import time
from collections import namedtuple

from . import system
from .cell import NOBODY, Failure

# run: the function; dumper, restorer: which criu, "ours" or "peer"
Mode = namedtuple("Mode", "name run dumper restorer")


def dump_and_restore(cell, dumper, restorer):
	cell.start()
	cell.wait_ready()
	cell.pause()
	images = cell.new_images()
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def undisturbed(cell, dumper, restorer):
	"""No dump at all: the program must be content with itself."""
	cell.start()
	cell.wait_ready()
	cell.pause()
	cell.finish()


def unprivileged(cell, dumper, restorer):
	cell.user = NOBODY
	dump_and_restore(cell, dumper, restorer)


def five_times(cell, dumper, restorer):
	cell.start()
	cell.wait_ready()
	for number in range(5):
		cell.pause()
		images = cell.new_images(f"images{number}")
		cell.dump(dumper, images)
		cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def leave_running(cell, dumper, restorer):
	"""The original keeps working; after its end the images restore."""
	cell.start()
	cell.wait_ready()
	cell.pause()
	images = cell.new_images()
	cell.dump(dumper, images, ["-R"])
	cell.check_running()
	cell.pause()
	cell.finish()
	if not cell.row.changes_files:  # else the files are no longer those of the dump: nothing to restore over
		restore_again(cell, restorer, images)


def leave_stopped(cell, dumper, restorer):
	"""All threads stand in T until SIGCONT; files are copied meanwhile, so that the images can be restored too."""
	cell.start()
	cell.wait_ready()
	cell.pause()
	images = cell.new_images()
	cell.dump(dumper, images, ["-s"])
	check_stopped(cell)
	if cell.row.changes_files:
		save_files(cell)
	for pid in system.tree(cell.root):
		os.kill(pid, signal.SIGCONT)
	cell.pause()
	cell.finish()
	if cell.row.changes_files:
		put_back_files(cell)
	restore_again(cell, restorer, images)


def restore_again(cell, restorer, images):
	cell.forget_verdict()
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def check_stopped(cell):
	def states():
		return {(pid, tid): system.thread_state(pid, tid)
			for pid in system.tree(cell.root) for tid in system.threads(pid)}
	def stopped():
		return set(states().values()) <= {"T", "Z"}
	if not system.wait_until(stopped, 1):
		raise Failure(f"not all threads are stopped: {states()}")
	time.sleep(0.05)
	for pid, tid in states():
		if system.status(pid, tid).get("TracerPid", "0") != "0":
			raise Failure(f"thread {tid} of {pid} is still traced")


KEPT = ("images", "saved")


def save_files(cell):
	os.mkdir(cell.path("saved"))
	for name in os.listdir(cell.directory):
		if name not in KEPT:
			copy(cell.path(name), cell.path("saved", name))


def put_back_files(cell):
	for name in os.listdir(cell.directory):
		if name not in KEPT:
			path = cell.path(name)
			shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
	for name in os.listdir(cell.path("saved")):
		copy(cell.path("saved", name), cell.path(name))


def copy(source, target):
	if os.path.isdir(source) and not os.path.islink(source):
		shutil.copytree(source, target, symlinks=True)
	else:
		shutil.copy2(source, target, follow_symlinks=False)


NOT_BY_DEFAULT = ("peer", "undisturbed")

MODES = [
	Mode("ours", dump_and_restore, "ours", "ours"),
	Mode("ours-to-peer", dump_and_restore, "ours", "peer"),
	Mode("peer-to-ours", dump_and_restore, "peer", "ours"),
	Mode("leave-running", leave_running, "ours", "ours"),
	Mode("leave-stopped", leave_stopped, "ours", "ours"),
	Mode("five-times", five_times, "ours", "ours"),
	Mode("unprivileged", unprivileged, "ours", "ours"),
	Mode("peer", dump_and_restore, "peer", "peer"),
	Mode("undisturbed", undisturbed, "ours", "ours"),
]
