"""tracking.py - memory changes, or its tracker is lost or changed, between two snapshots: the restored memory must be right."""

import os
import re
import resource
import shutil
import signal
import subprocess

from harness import chains, faults, system
from harness.cell import Failure, Skip
from harness.modes import restored
from harness.row import Row

WRITTEN = 22  # pages, by tracked.c's do_write()
MOST_ASLEEP = 8
PREVIOUS = ("--prev-images-dir", "../images1")


def keeper_of(images):
	with open(os.path.join(images, "tracking.img"), "rb") as file:
		message = file.read()[12:]
	return chains.field(message, 3)


def track(cell, dumper, name, tracker, *options):
	"""Takes a snapshot with -R. Raises Skip if the kernel does not support the tracker."""
	run = dumper.dump(cell.root, cell.new_images(name), [f"--track-mem={tracker}", "-R", *options])
	if "memory cannot be tracked by" in run.error:
		cell.kill_tree()
		raise Skip(f"this kernel has no tracker {tracker}")
	if run.failed:
		raise Failure(run.describe())
	return cell.path(name)


def at_moment(cell, moment, command, otherwise=""):
	"""Options that make another criu run a command at this moment. `otherwise`: what the script does if it fails."""
	path = cell.path("script")
	with open(path, "w") as file:
		file.write(f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = {moment} ] || exit 0\n'
			   f"{cell.ours.path} {command} >{cell.path('script.log')} 2>&1 {otherwise}\n")
	os.chmod(path, 0o755)
	return ["--action-script", path]


def act(cell):
	"""Lets the program do what it does between two snapshots."""
	if os.path.exists(cell.path("done")):
		os.unlink(cell.path("done"))
	os.kill(cell.root, signal.SIGUSR1)
	if not system.wait_until(lambda: os.path.exists(cell.path("done")), 20):
		raise Failure("the program did not act between the snapshots")


def saved(images):
	"""The number of pages of tasks in this layer."""
	return sum(count for name in chains.pagemaps(images) if not name.startswith("pagemap-shmem-")
		   for _, count, flags in chains.read_pagemap(images, name)[1] if flags & chains.PRESENT)


def between(tracker, loss=None, most=None):
	"""Snapshot, loss, action, dump, restore: the program finds its memory right. `most`: the most pages in the last layer."""
	def course(cell, dumper, restorer):
		cell.start()
		first = track(cell, dumper, "images1", tracker)
		if loss:
			loss(cell, dumper, first, tracker)
		act(cell)
		images = cell.new_images("images3")
		cell.dump(dumper, images, [f"--track-mem={tracker}", *PREVIOUS])
		if most and saved(images) > most:
			raise Failure(f"{saved(images)} pages were saved, and not at most {most}")
		cell.restore(restorer, images)
		cell.pause()
		cell.finish()
	return course


def asleep(tracker, first=track):
	"""A process that does nothing has few pages saved again: the vdso, and stack pages that the snapshot itself writes to."""
	def course(cell, dumper, restorer):
		cell.start()
		first(cell, dumper, "images0", tracker)
		track(cell, dumper, "images1", tracker, "--prev-images-dir", "../images0")
		images = cell.new_images("images3")
		cell.dump(dumper, images, [f"--track-mem={tracker}", *PREVIOUS])
		if saved(images) > MOST_ASLEEP:
			raise Failure(f"{saved(images)} pages were saved, and not at most {MOST_ASLEEP}")
		cell.restore(restorer, images)
		cell.pause()
		cell.finish()
	return course


def track_by_pre_dump(cell, dumper, name, tracker):
	run = dumper.pre_dump(cell.root, cell.new_images(name), [f"--track-mem={tracker}"])
	if "memory cannot be tracked by" in run.error:
		cell.kill_tree()
		raise Skip(f"this kernel has no tracker {tracker}")
	if run.failed:
		raise Failure(run.describe())


# Losses

def kill_keeper(cell, dumper, images, tracker):
	keeper = keeper_of(images)
	if keeper:
		os.kill(keeper, signal.SIGKILL)
		cell.wait_gone([keeper])


def forget(pattern):
	def loss(cell, dumper, images, tracker):
		for name in os.listdir(images):
			if name.startswith(pattern):
				os.unlink(os.path.join(images, name))
	return loss


def another_chain(cell, dumper, images, tracker):
	act(cell)
	track(cell, dumper, "images2", tracker)


def another_child(cell, dumper, images, tracker):
	act(cell)
	track(cell, dumper, "images2", tracker, *PREVIOUS)


def failed_dump(cell, dumper, images, tracker):
	act(cell)
	path = cell.new_images("images2")
	run = dumper.dump(cell.root, path, [f"--track-mem={tracker}", "-R", *PREVIOUS],
			  environment=faults.in_step("dump", "keep track of the memory"))
	faults.check_failed(run, "keep track of the memory")
	cell.check_running()
	shutil.rmtree(path)


def failed_pre_dump(cell, dumper, images, tracker):
	act(cell)
	run = dumper.pre_dump(cell.root, cell.new_images("images2"), [f"--track-mem={tracker}", *PREVIOUS],
			      environment=faults.in_step("pre-dump", "keep track of the memory"))
	faults.check_failed(run, "keep track of the memory")


def untrack(cell, dumper, images, tracker):
	keeper = keeper_of(images)
	run = dumper.run("untrack", images)
	if run.failed:
		raise Failure(run.describe())
	if keeper:
		cell.wait_gone([keeper])
	if not dumper.run("untrack", images).failed:
		raise Failure("untrack succeeded although nothing was tracked")


def hashes_of_another(cell, dumper, images, tracker):
	"""Replaces the hashes of this snapshot by those of a later one."""
	act(cell)
	other = track(cell, dumper, "images2", tracker)
	for name in os.listdir(other):
		if name.startswith("hashes-"):
			shutil.copy(os.path.join(other, name), images)


def pid_reused(tracker):
	"""Another process has the same pid, but another start time. Its parent snapshot is of the old process."""
	def course(cell, dumper, restorer):
		cell.start()
		before = cell.new_images("images0")
		cell.dump(dumper, before, ["-R"])
		act(cell)
		track(cell, dumper, "images1", tracker)
		cell.kill_tree()
		cell.away_since = 0
		cell.restore(restorer, before)
		images = cell.new_images("images3")
		cell.dump(dumper, images, [*PREVIOUS])
		cell.restore(restorer, images)
		cell.pause()
		cell.finish()
	return course


# The keeper

def keeper_ends(how):
	def course(cell, dumper, restorer):
		cell.start()
		images = track(cell, dumper, "images1", "written")
		keeper = keeper_of(images)
		if system.status(keeper).get("Name") != "criu-keeper":
			raise Failure(f"there is no keeper {keeper}")
		how(cell, dumper, images)
		cell.wait_gone([keeper])
		if os.path.exists(f"/proc/{cell.root}"):
			cell.finish()
	return course


def with_tree(cell, dumper, images):
	cell.kill_tree()


def with_images(cell, dumper, images):
	shutil.rmtree(images)


def with_next(cell, dumper, images):
	track(cell, dumper, "images2", "written", *PREVIOUS)


def with_untrack(cell, dumper, images):
	dumper.run("untrack", images)


# With another criu

def mixed(cell, dumper, restorer):
	"""The two criu take turns: a pre-dump, a snapshot with -R, the dump, then the restore."""
	cell.start()
	cell.pause()
	track_as(cell, cell.pre_dump, dumper, "images1")
	cell.pause()
	track_as(cell, cell.dump, restorer, "images2", "-R", *PREVIOUS)
	cell.pause()
	images = cell.new_images("images3")
	track_as(cell, cell.dump, dumper, "images3", "--prev-images-dir", "../images2")
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def track_as(cell, take, criu, name, *options):
	"""Takes a snapshot with soft-dirty bits, the only tracker that both know. If it fails, Cell.dump() ends the program."""
	track = "--track-mem" if criu.is_peer else "--track-mem=soft-dirty"
	try:
		take(criu, cell.path(name) if os.path.exists(cell.path(name)) else cell.new_images(name), [track, *options])
	except Failure as failure:
		if "racking memory is not available" in str(failure) or "cannot be tracked by" in str(failure):
			raise Skip("this kernel has no tracker soft-dirty")
		raise


# Pages in pipes

def is_pipe(link):
	try:
		return os.readlink(link).startswith("pipe:")
	except FileNotFoundError:  # the program has closed it meanwhile
		return False


def pipes(pid):
	return sum(is_pipe(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd"))


def spliced(again=False, most_descriptors=0):
	"""A pre-dump through pipes; `again`: another one with it as the parent. `most_descriptors`: criu's limit of open files."""
	def course(cell, dumper, restorer):
		if most_descriptors:
			resource.setrlimit(resource.RLIMIT_NOFILE, (most_descriptors, most_descriptors))  # affects only this worker
		cell.start()
		before = pipes(cell.root)
		for number in range(2 if again else 1):
			previous = ["--prev-images-dir", f"../images{number}"] if number else []
			run = cell.pre_dump(dumper, cell.new_images(f"images{number + 1}"),
					    ["--track-mem", "--pre-dump-mode", "splice", *previous])
			taken, wanted = max((tuple(map(int, found)) for found in
					     re.findall(r"(\d+) of (\d+) pages are in \d+ pipes", run.log)), key=lambda pair: pair[1], default=(0, 0))
			if most_descriptors and taken >= wanted or not most_descriptors and not taken:
				raise Failure(f"{taken} of {wanted} pages were put into pipes")
			if pipes(cell.root) != before:
				raise Failure(f"the program has {pipes(cell.root)} ends of pipes, and had {before}")
			if cell.row.program == "tracked":
				act(cell)
		images = cell.new_images("images3")
		cell.dump(dumper, images, ["--prev-images-dir", "../images2" if again else "../images1"])
		cell.restore(restorer, images)
		cell.pause()
		cell.finish()
	return course


def overlapping(tracker):
	"""When a dump is about to freeze the tree, another one takes a snapshot with the same parent, and uses up the parent's notes."""
	def course(cell, dumper, restorer):
		cell.start()
		track(cell, dumper, "images1", tracker)
		act(cell)
		script = at_moment(cell, "pre-dump", f"dump -R --track-mem={tracker} -t {cell.root} -D {cell.new_images('images2')} "
				   f"{' '.join(PREVIOUS)}")
		images = cell.new_images("images3")
		cell.dump(dumper, images, [f"--track-mem={tracker}", *PREVIOUS, *script])
		if not os.path.exists(cell.path("images2", "inventory.img")):
			raise Failure("the other dump failed: " + system.read_text(cell.path("script.log")))
		# The program could not notice it if all of its memory were equally old.
		if saved(images) < WRITTEN:
			raise Failure(f"only {saved(images)} pages were saved, but {WRITTEN} were written")
		restored(cell, restorer, images)
	return course


def begun_anew(tracker):
	"""A new chain begins in the same directory: the notes of the older snapshot end, and the new one has notes of its own."""
	def course(cell, dumper, restorer):
		cell.start()
		track(cell, dumper, "images1", tracker)
		for _ in range(2):
			cell.pause()
			run = cell.dump(dumper, cell.path("images1"), ["-R", f"--track-mem={tracker}"])
			if "will have to compare" in run.log:
				raise Failure("the new snapshot does not track the memory: " + run.describe())
		def keepers():
			cell.reap()
			return [pid for pid in system.descendants(os.getpid()) if system.status(pid).get("Name") == "criu-keeper"]
		if not system.wait_until(lambda: len(keepers()) == (tracker == "written"), 2):
			raise Failure(f"there should be one keeper, but there are {keepers()}")
		act(cell)
		images = cell.new_images("images3")
		cell.dump(dumper, images, [f"--track-mem={tracker}", *PREVIOUS])
		if saved(images) > (FEW["write"] if tracker == "soft-dirty" else 2 * WRITTEN):  # soft-dirty: 51 on Linux 6.1
			raise Failure(f"{saved(images)} pages were saved, but {WRITTEN} were written")
		restored(cell, restorer, images)
	return course


def exec_again(tracker):
	"""After exec all memory is new. From the next snapshot on it is tracked again."""
	def course(cell, dumper, restorer):
		cell.start()
		track(cell, dumper, "images0", tracker)
		act(cell)
		track(cell, dumper, "images1", tracker, "--prev-images-dir", "../images0")
		images = cell.new_images("images3")
		cell.dump(dumper, images, [f"--track-mem={tracker}", *PREVIOUS])
		if saved(images) > FEW["write"]:
			raise Failure(f"{saved(images)} pages were saved, but nothing was written")
		restored(cell, restorer, images)
	return course


# Two snapshots with the same parent; dedup frees the parent's pages that one of them does not need

def siblings(cell, dumper):
	"""Takes two complete snapshots with the same parent. The second one ends the program."""
	cell.start()
	for name, options in (("images1", ["-R"]), ("images2", ["-R", *PREVIOUS])):
		cell.dump(dumper, cell.new_images(name), options)
		act(cell)


def expect_in_use(cell):
	said = system.read_text(cell.path("script.log"))
	if "is being read by process" not in said:
		raise Failure(f"dedup was not refused: {said}")


def dedup(cell, images):
	run = subprocess.run([cell.ours.path, "dedup", "-D", images], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
			     stderr=subprocess.STDOUT, text=True)
	if run.returncode or not re.match("freed [1-9]", run.stdout):
		raise Failure(f"dedup freed nothing: {run.stdout}")


def dedup_while_restoring(cell, dumper, restorer):
	"""A restore reads the pages of all parents: dedup is refused meanwhile, and works afterwards."""
	siblings(cell, dumper)
	images = cell.new_images("images3")
	cell.dump(dumper, images, PREVIOUS)
	cell.restore(restorer, images, at_moment(cell, "pre-restore", f"dedup -D {cell.path('images2')}", "|| :"))
	expect_in_use(cell)
	dedup(cell, cell.path("images2"))
	cell.pause()
	cell.finish()


def dedup_while_dumping(cell, dumper, restorer):
	siblings(cell, dumper)
	script = at_moment(cell, "pre-dump", f"dedup -D {cell.path('images2')}", "|| :")
	images = cell.new_images("images3")
	cell.dump(dumper, images, [*PREVIOUS, *script])
	expect_in_use(cell)
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def dedup_for_pre_dump(cell, dumper, restorer):
	"""A pre-dump is never restored, so the dump that is its parent keeps its pages."""
	cell.start()
	images = cell.new_images("images1")
	cell.dump(dumper, images, ["-R"])
	act(cell)
	cell.pre_dump(dumper, cell.new_images("images2"), [*PREVIOUS, "--auto-dedup"])
	run = dumper.run("dedup", cell.path("images2"))
	if not run.failed or "it cannot replace pages of" not in run.error:
		raise Failure(f"the command should have been refused: {run.describe()}")
	cell.kill_tree()
	cell.away_since = 0
	cell.forget_verdict()
	cell.restore(restorer, images)
	cell.finish()


# Refusals

def refused(how, *expected):
	def course(cell, dumper, restorer):
		cell.start()
		run = how(cell, dumper, restorer)
		if not run.failed:
			raise Failure("the command did not fail")
		for text in expected:
			if text not in run.error:
				raise Failure(f"the error does not say '{text}':\n{run.describe()}")
		cell.check_running()
		cell.finish()
	return course


def upon_nothing(cell, dumper, restorer):
	return dumper.dump(cell.root, cell.new_images(), ["-R", "--prev-images-dir", "../nowhere"])


def upon_incomplete(cell, dumper, restorer):
	"""The parent is what a dump leaves that fails late: all pages, but no inventory."""
	first = cell.new_images("images1")
	cell.dump(dumper, first, ["-R"])
	os.unlink(os.path.join(first, "inventory.img"))
	return dumper.dump(cell.root, cell.new_images(), ["-R", *PREVIOUS])


def upon_itself(cell, dumper, restorer):
	images = cell.new_images()
	cell.dump(dumper, images, ["-R"])
	return dumper.dump(cell.root, images, ["-R", "--prev-images-dir", "."])


def pre_dump_restored(cell, dumper, restorer):
	images = cell.new_images()
	cell.pre_dump(dumper, images)
	return restorer.restore(images)


def max_chain(cell, dumper, restorer):
	"""Ten snapshots are taken. No chain is longer than three directories, and each snapshot can be restored."""
	cell.start()
	for number in range(10):
		options = ["--prev-images-dir", f"../images{number - 1}"] if number else []
		images = cell.new_images(f"images{number}")
		cell.dump(dumper, images, ["-R", "--track-mem", "--max-chain", "3", *options])
		length, directory = 1, images
		while os.path.islink(os.path.join(directory, "parent")):
			directory = os.path.realpath(os.path.join(directory, "parent"))
			length += 1
		if length > 3:
			raise Failure(f"snapshot {number} has a chain of {length}")
		act(cell)
	cell.kill_tree()
	cell.away_since = 0
	cell.restore(restorer, images)
	cell.finish()


def auto_dedup(cell, dumper, restorer):
	"""Pages that the last snapshot replaces are freed in the older ones."""
	cell.start()
	track(cell, dumper, "images1", "auto")
	act(cell)
	before = blocks(cell.path("images1"))
	images = cell.new_images("images2")
	cell.dump(dumper, images, ["--auto-dedup", *PREVIOUS])
	if blocks(cell.path("images1")) >= before:
		raise Failure("nothing was freed")
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def blocks(directory):
	return sum(os.stat(os.path.join(directory, name)).st_blocks for name in os.listdir(directory))


TRACKERS = ("written", "content", "soft-dirty")
ACTIONS = ("write", "replace", "swap", "shift", "drop", "free", "zero", "protect", "merge", "fork", "grow", "exec",
	   "much", "empty", "leave", "file")
LOSSES = {
	"keeper-killed": kill_keeper,
	"tracking-deleted": forget("tracking.img"),
	"hashes-deleted": forget("hashes-"),
	"hashes-of-another": hashes_of_another,
	"another-chain": another_chain,
	"another-child": another_child,
	"failed-dump": failed_dump,
	"failed-pre-dump": failed_pre_dump,
	"untracked": untrack,
}
FEW = {"write": 300, "empty": 300}  # pages: those that were written, and those that a process touches anyway
OURS = ("ours",)

ROWS = [
	*[Row(f"tracking-{tracker}-{action}", "tracked", arguments=(action,), run=between(tracker, most=FEW.get(action)), modes=OURS)
	  for tracker in TRACKERS for action in ACTIONS],
	*[Row(f"tracking-{tracker}-{name}", "tracked", arguments=("replace",), run=between(tracker, loss), modes=OURS)
	  for tracker in TRACKERS for name, loss in LOSSES.items()],
	*[Row(f"tracking-{tracker}-asleep", "sleeper", run=asleep(tracker), modes=OURS)
	  for tracker in TRACKERS if tracker != "soft-dirty"],  # which saves 14 pages on Linux 6.1
	Row("tracking-written-asleep-pre-dump", "sleeper", run=asleep("written", track_by_pre_dump), modes=OURS),
	*[Row(f"tracking-{tracker}-pid-reused", "tracked", arguments=("replace",), run=pid_reused(tracker), modes=OURS)
	  for tracker in TRACKERS],
	*[Row(f"tracking-{tracker}-overlapping", "tracked", run=overlapping(tracker), modes=OURS) for tracker in TRACKERS],
	*[Row(f"tracking-{tracker}-begun-anew", "tracked", run=begun_anew(tracker), modes=OURS) for tracker in TRACKERS],
	*[Row(f"tracking-{tracker}-exec-again", "tracked", arguments=("exec",), run=exec_again(tracker), modes=OURS)
	  for tracker in TRACKERS],
	*[Row(f"tracking-mixed-{program}", program, run=mixed, modes=("ours-to-peer", "peer-to-ours"))
	  for program in ("memory", "memory_shared", "tree", "cow")],
	*[Row(f"tracking-spliced-{action}", "tracked", arguments=(action,), run=spliced(), modes=OURS) for action in ACTIONS],
	*[Row(f"tracking-spliced-{program}", program, run=spliced(again=True), modes=("ours", "ours-to-peer"))
	  for program in ("memory", "memory_shared", "tree", "cow")],
	Row("tracking-spliced-again", "tracked", run=spliced(again=True), modes=OURS),
	Row("tracking-spliced-few-descriptors", "tracked", run=spliced(most_descriptors=24), modes=OURS),
	Row("tracking-keeper-tree", "tracked", run=keeper_ends(with_tree), modes=OURS),
	Row("tracking-keeper-images", "tracked", run=keeper_ends(with_images), modes=OURS),
	Row("tracking-keeper-next", "tracked", run=keeper_ends(with_next), modes=OURS),
	Row("tracking-keeper-untrack", "tracked", run=keeper_ends(with_untrack), modes=OURS),
	Row("tracking-dedup-for-pre-dump", "tracked", run=dedup_for_pre_dump, modes=OURS),
	Row("tracking-dedup-while-restoring", "tracked", run=dedup_while_restoring, modes=OURS),
	Row("tracking-dedup-while-dumping", "tracked", run=dedup_while_dumping, modes=OURS),
	Row("tracking-upon-nothing", "tracked", run=refused(upon_nothing, "cannot open the previous snapshot"), modes=OURS),
	Row("tracking-upon-incomplete", "tracked", run=refused(upon_incomplete, "is not a complete snapshot"), modes=OURS),
	Row("tracking-upon-itself", "tracked", run=refused(upon_itself, "which this dump would overwrite"), modes=OURS),
	Row("tracking-pre-dump-restored", "tracked", run=refused(pre_dump_restored, "is a pre-dump"), modes=OURS),
	Row("tracking-max-chain", "tracked", run=max_chain, modes=OURS),
	Row("tracking-auto-dedup", "tracked", run=auto_dedup, modes=OURS),
]
