"""steps.py - one row for each program: each step of its dump fails once, then each step of its restore.

CRIU_FAULT=dump:NAME (or restore:NAME) makes this step fail after it has done its work. After a failed dump the tree must run
on, and the directory must not look complete. After a failed restore nothing may be left, and the images must be unchanged.
"""

import os
import re
import shutil

from harness import faults, system
from harness.cell import Failure
from harness.row import Row
from tables import bad_input, kills


def fail_each_step(journey, fails):
	"""fails(environment, words) runs criu, checks that it fails with these words and leaves nothing, and returns the Run."""
	for step in faults.steps_of(journey, lambda environment: fails(environment, "CRIU_FAULT")):
		try:
			fails(faults.in_step(journey, step), faults.words_of(step))
		except Failure as failure:
			raise Failure(f"CRIU_FAULT='{journey}:{step}': {failure}")


def check_files_let_go(run):
	"""A dump that has looked at files must let them go exactly once."""
	ends = re.findall("let the files go: (.*)", run.log)
	looked = not run.failed or "undo: look at the processes" in run.log
	if ends != (["failed" if run.failed else "killed"] if looked else []):
		raise Failure(f"let_go() was called {len(ends)} times: {ends}")


def dump_that_fails(cell, dumper, before):
	def fails(environment, words):
		images = cell.new_images()
		run = dumper.dump(cell.root, images, cell.row.dump_options, environment=environment)
		bad_input.expect_error(run, words)
		check_files_let_go(run)
		if os.path.exists(os.path.join(images, "inventory.img")):
			raise Failure("the directory looks complete: it has inventory.img")
		if bad_input.listing(images):
			raise Failure(f"the dump has left files: {sorted(bad_input.listing(images))}")
		kills.check_no_helpers(cell, before)
		check_as_before(cell, before)
		shutil.rmtree(images)
		return run
	return fails


def check_as_before(cell, before):
	if os.path.exists(cell.path("counters")):
		kills.check_untouched(cell, before)
	cell.check_running()
	if sorted(system.tree(cell.root)) != sorted(before):
		raise Failure(f"the tree has changed: {sorted(before)}, now {sorted(system.tree(cell.root))}")


def restore_that_fails(cell, restorer, images):
	def fails(environment, words):
		contents = bad_input.listing(images)
		run = restorer.restore(images, cell.row.restore_options, environment=environment)
		bad_input.expect_error(run, words)
		def left_behind():
			cell.reap()
			return system.descendants(os.getpid())
		left = left_behind()
		if left and "--restore-sibling" in cell.row.restore_options:  # their orphans are ours to collect, not criu's
			system.wait_until(lambda: not left_behind(), 1)
			left = left_behind()
		if left:
			raise Failure("left behind: " + "; ".join(map(system.describe_task, left)))
		if bad_input.listing(images) != contents:
			raise Failure("the images were changed")
		return run
	return fails


def every_step(cell, dumper, restorer):
	cell.start()
	cell.pause()
	before = {pid: kills.look(pid) for pid in system.tree(cell.root)}
	fail_each_step("dump", dump_that_fails(cell, dumper, before))
	images = cell.new_images()
	check_files_let_go(cell.dump(dumper, images))
	fail_each_step("restore", restore_that_fails(cell, restorer, images))
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def row(program, *arguments, **more):
	return Row("-".join(["fault", program.replace("_", "-"), *more.pop("suffix", ())]), program, arguments=arguments, run=every_step, modes=("ours",),
		   timeout=300, peer_fails={"dump": "it knows no CRIU_FAULT"}, **more)


ROWS = [
	row("sleeper"),
	row("busy"),
	row("threads", "16"),
	row("memory_shared"),
	row("memfd", "future"),
	row("files"),
	row("pipes", "anonymous"),
	row("fifos", "ends"),
	row("epoll", "nested"),
	row("aio", "rings", "numbers"),
	row("tree"),
	row("shares", "memory+files+directories+actions", "chain"),
	row("tree", suffix=("sibling",), restore_options=("--restore-sibling",)),
	row("uts", "nested"),
	row("uts", "tree", suffix=("tree",)),
	row("stopped", "20", has_stopped_task=True),  # SIGTSTP
	row("death_signals", "kill"),
	row("dying", "mutex", suffix=("mutex",)),
	row("dying", "unlocking", suffix=("unlocking",)),
	row("locks", "flock", dump_options=("--file-locks",), restore_options=("--file-locks",)),
]
