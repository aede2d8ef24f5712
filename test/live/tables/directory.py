"""directory.py - which criu may write to a directory of images, and what stays in it after a dump fails."""

import os
import shutil
import signal
import subprocess
import time

from harness import faults, system
from harness.cell import PROGRAMS, Cell, Failure
from harness.modes import restored
from harness.row import Row

from . import kills
from .bad_input import dumped, expect_error, listing
from .tracking import at_moment

MODES = ("ours",)


def another(cell, program, *arguments):
	"""Starts a second program, with a directory of its own."""
	directory = cell.path(program)
	os.mkdir(directory, 0o755)
	other = Cell(cell.row, cell.mode, cell.settings, directory)
	other.start([os.path.join(PROGRAMS, program), directory, *arguments])
	return other


def fails(cell, run, pattern, images, before):
	"""The run fails with this message, the images have not changed, and the tree of `cell` runs on."""
	expect_error(run, pattern)
	if listing(images) != before:
		raise Failure(f"the images have changed: {sorted(before)}, now {sorted(listing(images))}")
	cell.check_running()


# An older dump stays until the new one is complete

def older_and_refused(cell, dumper, restorer):
	images = dumped(cell, dumper)
	before = listing(images)
	other = another(cell, "refused", "userfaultfd")
	fails(other, dumper.dump(other.root, images), "userfaultfd", images, before)
	other.kill_tree()
	restored(cell, restorer, images)


def older_and_faults(cell, dumper, restorer):
	"""Every step fails once and leaves the older dump. A dump that succeeds replaces all of it."""
	images = dumped(cell, dumper)
	before = listing(images)
	other = another(cell, "memory_shared")
	def dump(environment):
		return dumper.dump(other.root, images, environment=environment)
	for step in faults.steps_of("dump", dump):
		fails(other, dump(faults.in_step("dump", step)), faults.words_of(step), images, before)
	other.dump(dumper, images)
	if f"core-{cell.root}.img" in listing(images) or any(name.startswith(".") for name in os.listdir(images)):
		raise Failure(f"files of the older dump are left: {sorted(os.listdir(images))}")
	restored(other, restorer, images)


def older_and_script(cell, dumper, restorer):
	"""A post-dump script sees the complete new dump, and stops the command."""
	images = dumped(cell, dumper)
	before = listing(images)
	other = another(cell, "memory_shared")
	script = cell.path("script")
	with open(script, "w") as file:
		file.write(f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0\n'
			   f'test -e "$CRTOOLS_IMAGE_DIR/core-{other.root}.img"\nexit $((3 + $?))\n')
	os.chmod(script, 0o755)
	fails(other, dumper.dump(other.root, images, ["--action-script", script]), "ended with status 3", images, before)
	other.finish()
	restored(cell, restorer, images)


def older_and_snapshot(cell, dumper, restorer):
	"""A new chain begins in the directories of an older one: the links and notes of the older chain are removed."""
	cell.start()
	for _ in range(2):
		for name, options in (("images1", []), ("images2", ["--prev-images-dir", "../images1"])):
			os.makedirs(cell.path(name), exist_ok=True)
			cell.dump(dumper, cell.path(name), ["-R", "--track-mem", *options])
			cell.pause()
	if os.path.lexists(cell.path("images1", "parent")):
		raise Failure("the first snapshot has a parent")
	images = cell.new_images("images3")
	cell.dump(dumper, images, ["--prev-images-dir", "../images2"])
	restored(cell, restorer, images)


def read_only(cell, dumper, _restorer):
	"""The error says that the file system is read-only, and does not name an image that was never there."""
	cell.start()
	images = cell.new_images()
	system.mount("none", images, "tmpfs", system.MS_RDONLY)
	try:
		run = dumper.dump(cell.root, images)
	finally:
		system.unmount(images)
	expect_error(run, "Read-only file system")
	if "inventory" in run.error:
		raise Failure(run.error)
	cell.check_running()
	cell.finish()


# One at a time

def meanwhile(cell, moment, action, images, other):
	"""Options that make another criu try to use the directory at this moment. Its refusal does not fail the script."""
	command = f"{action} -D {images}" + (f" -t {other.root} -o dump.log" if "dump" in action else "")
	return at_moment(cell, moment, command, "|| :")


def expect_log(cell, images, log, action):
	"""Both criu write to the same log: it must have the error of the one that was refused, and all lines of the other."""
	said = system.read_text(os.path.join(images, log))
	if action in ("dump", "pre-dump") and ("Error" not in said or "freeze the processes: done" not in said):
		raise Failure(f"{log}: {said}")


def expect_refused(cell, what):
	said = system.read_text(cell.path("script.log"))
	if f"is being {what} by process" not in said:
		raise Failure(f"the other criu was not refused: {said}")


def while_dumping(action):
	"""While a dump is at work, another criu tries to use its directory."""
	def course(cell, dumper, restorer):
		cell.start()
		other = another(cell, "memory_shared")
		images = cell.new_images()
		cell.dump(dumper, images, ["-R"])
		cell.dump(dumper, images, meanwhile(cell, "post-dump", action, images, other))
		expect_refused(cell, "written to")
		expect_log(cell, images, "dump.log", action)
		other.check_running()
		other.finish()
		restored(cell, restorer, images)
	return course


def while_restoring(action):
	def course(cell, dumper, restorer):
		images = dumped(cell, dumper)
		other = another(cell, "memory_shared")
		before = listing(images)
		cell.restore(restorer, images, meanwhile(cell, "pre-restore", action, images, other))
		expect_refused(cell, "read")
		if listing(images) != before:
			raise Failure("the images have changed")
		other.finish()
		cell.pause()
		cell.finish()
	return course


def while_waiting(cell, dumper, restorer):
	"""A criu that waits for the processes that it has restored no longer locks the directory."""
	images = dumped(cell, dumper)
	waiting = subprocess.Popen([restorer.path, "restore", "-D", images, "--pidfile", cell.path("pid")],
				   stdin=subprocess.DEVNULL)
	if not system.wait_until(lambda: os.path.exists(cell.path("pid")) and system.status(cell.root).get("TracerPid") == "0", 10):
		raise Failure("the program was not restored")
	cell.exits.pop(cell.root, None)
	cell.dump(dumper, images)
	waiting.wait()
	restored(cell, restorer, images)


# What an interrupted dump leaves

def interrupted(signo, name):
	"""A signal arrives at a random moment of a dump over an older one: one of the two dumps is there, complete, and nothing else."""
	def course(cell, dumper, restorer):
		images = dumped(cell, dumper)
		before = listing(images)
		other = another(cell, "large", "96")
		command = [dumper.path, "dump", "-R", "-t", str(other.root), "-D", cell.path("copy"), "-o", "dump.log"]
		whole = kills.time_of_dump(other, dumper)
		told, failed = 0, 0
		for delay in kills.moments(cell, whole, 20):
			shutil.copytree(images, cell.path("copy"))
			code = kills.start_and_signal(cell, command, delay, signo)
			now = listing(cell.path("copy"))
			told += f"interrupted by {name}" in system.read_text(cell.path("killed.out"))
			failed += code != 0
			if code > 0:
				raise Failure(f"exit code {code}: " + system.read_text(cell.path("killed.out")))
			if code and now != before and f"core-{other.root}.img" not in now:
				raise Failure(f"after {delay:.3f} s of {whole:.3f}: {sorted(now)}")
			if any(name.startswith(".") for name in os.listdir(cell.path("copy"))) and now == before:
				raise Failure(f"after {delay:.3f} s of {whole:.3f}: {sorted(os.listdir(cell.path('copy')))}")
			other.check_running()
			shutil.rmtree(cell.path("copy"))
		if not told or failed > told + 5:
			raise Failure(f"{failed} dumps were interrupted, but {told} of them reported it")
		other.finish()
		restored(cell, restorer, images)
	return course


def interrupted_restore(cell, dumper, restorer):
	"""A restore that gets SIGTERM leaves nothing, and one signal is enough."""
	cell.start([os.path.join(PROGRAMS, "large"), cell.directory, "96"])
	images = cell.new_images()
	cell.dump(dumper, images)
	command = [restorer.path, "restore", "-d", "-D", images, "-o", "restore.log"]
	started = time.monotonic()
	cell.restore(restorer, images)
	whole = time.monotonic() - started
	cell.kill_tree()
	told = 0
	for delay in kills.moments(cell, whole, 20):
		code = kills.start_and_signal(cell, command, delay, signal.SIGTERM)
		told += "interrupted by SIGTERM" in system.read_text(cell.path("killed.out"))
		cell.reap()
		if code > 0:
			raise Failure(f"exit code {code}: " + system.read_text(cell.path("killed.out")))
		if system.thread_state(cell.root, cell.root) not in ("gone", "Z"):
			if "interrupted by" in system.read_text(cell.path("killed.out")):
				raise Failure("the restore was interrupted, but the process exists")
			cell.kill_tree()
		elif code == 0:
			raise Failure("the restore succeeded, but there is no process")
	if not told:
		raise Failure("no restore was interrupted")
	restored(cell, restorer, images)


def row(name, run, program="counter", **more):
	return Row(f"directory-{name}", program, run=run, modes=MODES, **more)


ROWS = [
	row("older-and-refused", older_and_refused),
	row("older-and-faults", older_and_faults, timeout=180),
	row("older-and-script", older_and_script),
	row("older-and-snapshot", older_and_snapshot),
	row("read-only", read_only),
	*[row(f"while-dumping-{action}", while_dumping(action))
	  for action in ("dump", "pre-dump", "restore", "dedup", "flatten", "untrack")],
	*[row(f"while-restoring-{action}", while_restoring(action)) for action in ("dump", "pre-dump", "dedup", "flatten", "untrack")],
	row("while-waiting", while_waiting),
	*[row(f"interrupted-{name.lower()}", interrupted(signo, name), timeout=120)
	  for signo, name in ((signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP"))],
	row("interrupted-restore", interrupted_restore, timeout=120),
]
