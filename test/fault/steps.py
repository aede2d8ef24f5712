"""steps.py - one row for each program: each step of its dump fails once, then each step of its restore.

CRIU_FAULT=dump:NAME (or restore:NAME) makes this step fail after it has done its work. After a failed dump the tree must run
on, and the directory must not look complete. After a failed restore nothing may be left, and the images must be unchanged.
"""

import os
import re
import shutil
import stat

from harness import faults, modes, system
from harness.cell import Failure
from harness.row import Row
from tables import bad_input, kills
from tables.plugins import libdir


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
	allowed = (["failed"], ["runs on"]) if run.failed else (["killed"],)  # after "runs on" a dump -R may still fail
	if ends not in (allowed if looked else ([],)):
		raise Failure(f"let_go() was called {len(ends)} times: {ends}")


def names_in(cell):
	"""Everything in the program's directory: a restore gives files names for a moment, and a dump may add some."""
	harness = (cell.path("images"),)
	return sorted(os.path.join(folder, name) for folder, folders, names in os.walk(cell.directory) for name in [*folders, *names]
		      if not os.path.join(folder, name).startswith(harness))


def dump_that_fails(cell, dumper, before):
	names = names_in(cell)

	def fails(environment, words):
		images = cell.new_images()
		run = dumper.dump(cell.root, images, cell.row.dump_options, environment=environment)
		bad_input.expect_error(run, words)
		check_files_let_go(run)
		if os.path.exists(os.path.join(images, "inventory.img")):
			raise Failure("the directory looks complete: it has inventory.img")
		if bad_input.listing(images):
			raise Failure(f"the dump has left files: {sorted(bad_input.listing(images))}")
		if names_in(cell) != names:
			raise Failure(f"the names in the directory were {names}, are {names_in(cell)}")
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


def sockets_beneath(directory):
	"""The files of unix sockets: which they are. A restore binds others beside them, which take their places at its end."""
	paths = [os.path.join(where, name) for where, _, names in os.walk(directory) for name in names]
	return sorted((path, os.lstat(path).st_ino) for path in paths if stat.S_ISSOCK(os.lstat(path).st_mode))


def restore_that_fails(cell, restorer, images):
	names = names_in(cell)

	def fails(environment, words):
		contents = bad_input.listing(images)
		sockets, temporary = sockets_beneath(cell.directory), sorted(os.listdir("/tmp"))
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
		if names_in(cell) != names:
			raise Failure(f"the names in the directory were {names}, are {names_in(cell)}")
		if bad_input.listing(images) != contents:
			raise Failure("the images were changed")
		if sockets_beneath(cell.directory) != sockets:
			raise Failure(f"the files of sockets have changed: {sockets_beneath(cell.directory)}, not {sockets}")
		if any(name.startswith(".criu-") for name in set(os.listdir("/tmp")) - set(temporary)):
			raise Failure("something is left in /tmp")
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


def every_step_running(cell, dumper, _restorer):
	"""A dump after which the tree runs on."""
	cell.start()
	cell.pause()
	before = {pid: kills.look(pid) for pid in system.tree(cell.root)}
	fail_each_step("dump", dump_that_fails(cell, dumper, before))
	cell.finish()


def row(program, *arguments, **more):
	return Row("-".join(["fault", program.replace("_", "-"), *more.pop("suffix", ())]), program, arguments=arguments, run=every_step, modes=("ours",),
		   timeout=300, peer_fails={"dump": "it knows no CRIU_FAULT"}, **more)


ROWS = [
	Row("fault-running", "threads", arguments=("16",), run=every_step_running, modes=("ours",), dump_options=("-R",), timeout=300),
	Row("fault-running-precopy", "threads", arguments=("16",), run=every_step_running, modes=("ours",), dump_options=("-R", *modes.ROUNDS), timeout=300),
	Row("fault-running-twin", "threads", arguments=("16",), run=every_step_running, modes=("ours",), dump_options=("-R", *modes.TWINS), timeout=300),
	row("sleeper"),
	row("busy"),
	row("threads", "16"),
	row("memory_shared"),
	row("memfd", "future"),
	row("files"),
	row("pipes", "anonymous"),
	row("fifos", "ends"),
	row("unix_ends", "connected", suffix=("connected",)),
	row("unix_ends", "waiting", suffix=("waiting",)),
	row("unix_backlog", "senders", suffix=("senders",)),
	row("unix_backlog", "stream", suffix=("stream",), alone_with="@backlog"),
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
	row("ghost_inodes", "directories", suffix=("directories",)),
	row("ghost_files", "replaced", suffix=("replaced",)),
	row("ghost_inodes", "link-far", suffix=("link",), dump_options=("--link-remap",), restore_options=("--link-remap",)),
	row("ghost_semaphores", "unlinked"),
	row("plugin_device", dump_options=libdir("loop"), restore_options=libdir("loop"), alone_with="loop"),
	row("locks", "flock", dump_options=("--file-locks",), restore_options=("--file-locks",)),
	row("leases", "write", dump_options=("--file-locks",), restore_options=("--file-locks",)),
	row("ipc_segments", "owned"),
	row("ipc_sets", "values"),
	row("ipc_queues", "messages"),
	row("ipc_mqueues", "messages"),
	row("queue_messages", "deep", suffix=("deep",)),
	row("queue_messages", "users", suffix=("users",)),
	row("queue_options", "all"),
	row("unix_names", "names", suffix=("names",)),
	row("unix_names", "credentials", suffix=("credentials",)),
	row("inotify", "unread"),
	row("pidfds", "dead"),
	row("proc_files", "living"),
	row("uring", "io"),
	row("terminals", "many"),
	row("device_bpf", "hash"),
	row("device_files", "many"),
	row("path_namespaces", "own"),
]
