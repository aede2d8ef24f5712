"""modes.py - the ways in which a row is run. A mode is a function of a Cell; MODES says which criu dumps and which restores.

`ours` is the binary under test and `peer` the other criu. The modes `peer` (which does both) and `undisturbed` show that
the tests themselves are right. They run only on request.
"""

import contextlib
import os
import shutil
import signal
from collections import namedtuple

from . import system
from .cell import NOBODY, Failure, Skip
from .row import MEMORY, STATE

class Mode(namedtuple("Mode", "name run dumper restorer needs like", defaults=(None, None))):
	"""run: the function. dumper, restorer: "ours" or "peer". needs: what a row must have to lose for this mode (row.py), if
	anything. like: another mode; what rows say about that one is true of this one, too."""

	@property
	def kind(self):
		return self.like or self.name


def dumped(cell, dumper, options=()):
	"""Dumps the program when it has run for a while. Returns the directory of the images."""
	cell.start()
	cell.pause()
	images = cell.new_images()
	cell.dump(dumper, images, options)
	return images


def restored(cell, restorer, images, options=()):
	"""Restores the program, and lets it run to its end. Returns what criu did."""
	run = cell.restore(restorer, images, options)
	cell.pause()
	cell.finish()
	return run


def dump_and_restore(cell, dumper, restorer):
	restored(cell, restorer, dumped(cell, dumper))


def precopied(cell, dumper, restorer):
	"""Memory is copied while the processes run, twice, before they are frozen."""
	images = dumped(cell, dumper, ROUNDS)
	left = [name for name in os.listdir(images) if name == "parent" or name.startswith(".")]
	if left:
		raise Failure(f"the images are not in one flat directory: {left}")
	restored(cell, restorer, images)


def undisturbed(cell, dumper, restorer):
	"""No dump at all: the program must find its own state right."""
	cell.start()
	cell.pause()
	cell.finish()


def unprivileged(cell, dumper, restorer):
	cell.user = NOBODY
	dump_and_restore(cell, dumper, restorer)


def five_times(cell, dumper, restorer):
	cell.start()
	for number in range(5):
		cell.pause()
		images = cell.new_images(f"images{number}")
		cell.dump(dumper, images)
		cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def leave_running(cell, dumper, restorer, *options):
	"""The original runs on. After its end the images are restored."""
	images = dumped(cell, dumper, ["-R", *options])
	cell.check_running()
	cell.pause()
	finish_whole(cell)
	if not cell.row.changes_files:  # if it does, the files are no longer those of the dump, and it cannot be restored
		restore_again(cell, restorer, images)


def with_twins(cell, dumper, restorer):
	"""The same; the memory is saved from copies of the processes while the original runs on."""
	leave_running(cell, dumper, restorer, *TWINS)


def chained(cell, dumper, restorer, *options):
	"""A pre-dump, a snapshot with -R, and the dump, which holds only what was written since."""
	cell.start()
	cell.pause()
	cell.pre_dump(dumper, cell.new_images("images1"))
	cell.pause()
	cell.dump(dumper, cell.new_images("images2"), ["-R", "--track-mem", "--prev-images-dir", "../images1", *options])
	cell.check_running()
	cell.pause()
	images = cell.new_images("images3")
	cell.dump(dumper, images, ["--prev-images-dir", "../images2"])
	restored(cell, restorer, images)


def chained_with_twins(cell, dumper, restorer):
	chained(cell, dumper, restorer, *TWINS)


def pages_images(images):
	return sorted(name for name in os.listdir(images) if name.startswith("pages-"))


def check_compressed(images, wanted=True):
	"""All images of pages are compressed, or none is."""
	names = pages_images(images)
	if not names or any(name.startswith("pages-lz4-") != wanted for name in names):
		raise Failure(f"{'not all' if wanted else 'some'} pages are compressed: {names}")


def compressed(cell, dumper, restorer):
	images = dumped(cell, dumper, ["--compress"])
	check_compressed(images)
	restored(cell, restorer, images)


ALONE = {"-j", "--shell-job", "-S", "--restore-sibling", "--exec-cmd", "--auto-dedup"}  # not together with --mmap-images


def from_held_memory(cell, dumper, restorer):
	"""Restored twice by a process that holds the memory: the first copy must not have changed it for the second one."""
	if ALONE & set(cell.row.restore_options):
		raise Skip("it is restored with an option that excludes --mmap-images")
	images = dumped(cell, dumper)
	try:
		restore_held(cell, restorer, images)
		if not cell.row.changes_files and "leave-running" not in cell.row.without:
			cell.forget_verdict()
			restore_held(cell, restorer, images)
	finally:
		end_holder(images)


def restore_held(cell, restorer, images):
	run = cell.restore(restorer, images, ["--mmap-images"])
	if "is not shared" in run.log:
		raise Failure(run.describe())
	cell.pause()
	finish_whole(cell)


def end_holder(images):
	path = os.path.join(images, ".mmap-images")
	if os.path.exists(path):
		os.unlink(path)
	def ended():
		system.reap()
		return not holders()
	if not system.wait_until(ended, 5):
		raise Failure(f"the holder has not ended: {holders()}")


def holders():
	return [pid for pid in system.descendants(os.getpid()) if system.status(pid).get("Name") == "criu-holder"]


def chained_compressed(cell, dumper, restorer):
	"""A chain of compressed and plain images, merged into compressed ones."""
	cell.start()
	cell.pause()
	cell.pre_dump(dumper, cell.new_images("images1"), ["--compress"])
	cell.pause()
	cell.dump(dumper, cell.new_images("images2"), ["-R", "--track-mem", "--prev-images-dir", "../images1"])
	cell.pause()
	images = cell.new_images("images3")
	cell.dump(dumper, images, ["--compress", "--prev-images-dir", "../images2", "--max-chain", "2"])
	check_compressed(images)
	if os.path.lexists(os.path.join(images, "parent")):
		raise Failure("the chain was not merged")
	restored(cell, restorer, images)


def chained_by_content(cell, dumper, restorer):
	"""Dumped and restored three times, each dump with the one before as its parent: the processes are new, the content is not."""
	cell.start()
	for number in range(3):
		cell.pause()
		images = cell.new_images(f"images{number}")
		parent = ["--prev-images-dir", f"../images{number - 1}"] if number else []
		cell.dump(dumper, images, ["--track-mem=content", *parent])
		cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def leave_stopped(cell, dumper, restorer):
	"""All threads are in state T until SIGCONT. Their files are copied meanwhile, so that the images can be restored, too."""
	images = dumped(cell, dumper, ["-s"])
	check_stopped(cell)
	if cell.row.changes_files:
		save_files(cell)
	go_on(cell)
	cell.pause()
	finish_whole(cell)
	if cell.row.changes_files:
		put_back_files(cell)
	restore_again(cell, restorer, images)


def finish_whole(cell):
	"""Waits until every process of the tree is gone: some end after the root, and a restore needs their pids."""
	pids = system.tree(cell.root)
	cell.finish()
	cell.wait_gone(pids)


def go_on(cell):
	"""Sends SIGCONT to all. A parent that already runs may reap a zombie meanwhile."""
	for pid in system.tree(cell.root):
		with contextlib.suppress(ProcessLookupError):
			os.kill(pid, signal.SIGCONT)


def restore_again(cell, restorer, images):
	cell.forget_verdict()
	restored(cell, restorer, images)


def check_stopped(cell):
	def states():
		return {(pid, tid): system.thread_state(pid, tid)
			for pid in system.tree(cell.root) for tid in system.threads(pid)}
	def stopped():
		return set(states().values()) <= {"T", "Z"}
	if not system.wait_until(stopped, 1):
		raise Failure(f"not all threads are stopped: {states()}")
	for pid, tid in states():
		if system.status(pid, tid).get("TracerPid", "0") != "0":
			raise Failure(f"thread {tid} of {pid} is still traced")


NOT_FILES = ("images", "images1", "images2", "images3", "saved")  # the harness's, not the program's


def save_files(cell):
	"""Copies the program's regular files. Pipes and other special files are not copied."""
	def ignored(folder, names):
		return [name for name in names if name in NOT_FILES or not is_plain(os.path.join(folder, name))]
	shutil.copytree(cell.directory, cell.path("saved"), symlinks=True, ignore=ignored)


def is_plain(path):
	return os.path.isdir(path) or os.path.isfile(path) or os.path.islink(path)


def put_back_files(cell):
	put_back(cell.path("saved"), cell.directory)


def put_back(saved, target):
	"""Gives the files in `target` the content of those in `saved`, in the same inodes if they still exist."""
	for name in os.listdir(target):
		path = os.path.join(target, name)
		if name not in NOT_FILES and is_plain(path) and not os.path.lexists(os.path.join(saved, name)):
			shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
	for name in os.listdir(saved):
		source, path = os.path.join(saved, name), os.path.join(target, name)
		if os.path.isdir(source):
			os.makedirs(path, exist_ok=True)
			put_back(source, path)
		else:
			if os.path.islink(path):
				os.unlink(path)
			shutil.copyfile(source, path, follow_symlinks=False)
			shutil.copystat(source, path, follow_symlinks=False)


TWINS, ROUNDS = ("--twin", "always"), ("--pre-rounds", "2")
NOT_BY_DEFAULT = ("peer", "undisturbed")

MODES = [
	Mode("ours", dump_and_restore, "ours", "ours"),
	Mode("ours-to-peer", dump_and_restore, "ours", "peer"),
	Mode("peer-to-ours", dump_and_restore, "peer", "ours"),
	Mode("leave-running", leave_running, "ours", "ours"),
	Mode("twin", with_twins, "ours", "ours", like="leave-running"),
	Mode("leave-stopped", leave_stopped, "ours", "ours"),
	Mode("precopy", precopied, "ours", "ours", MEMORY),
	Mode("precopy-to-peer", precopied, "ours", "peer", MEMORY, "ours-to-peer"),
	Mode("five-times", five_times, "ours", "ours", STATE),
	Mode("chain", chained, "ours", "ours", MEMORY),
	Mode("chain-twin", chained_with_twins, "ours", "ours", MEMORY, "chain"),
	Mode("mmap-images", from_held_memory, "ours", "ours", MEMORY),
	Mode("compress", compressed, "ours", "ours", MEMORY),
	Mode("chain-compress", chained_compressed, "ours", "ours", MEMORY, "chain"),
	Mode("chain-to-peer", chained, "ours", "peer", MEMORY),
	Mode("chain-content", chained_by_content, "ours", "ours", MEMORY),
	Mode("unprivileged", unprivileged, "ours", "ours"),
	Mode("peer", dump_and_restore, "peer", "peer"),
	Mode("undisturbed", undisturbed, "ours", "ours"),
]
