"""messages.py - errors caused by the environment: the message gives the true reason, once, and no wrong one."""

import os
import re
import resource
import signal
import subprocess
import time

from harness import system
from harness.cell import Failure
from harness.row import Row


def run_limited(command, limit):
	"""Runs the command with a limit of open files. Returns its exit code and what it printed."""
	def lower():
		resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
	run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, preexec_fn=lower)
	return run.returncode, run.stdout + run.stderr


def few_descriptors(command, most):
	"""Runs the command with ever more descriptors, until it succeeds. Each error must say that descriptors are missing."""
	code = 1
	for limit in range(6, most):
		code, text = run_limited(command, limit)
		if code == 0:
			break
		reason = re.search("Too many open files|needs [0-9]+ file descriptors", text)
		if not reason or not re.search("ulimit -H?n", text) or re.search("there is no|has ended|grows faster", text):
			raise Failure(f"limit {limit}: exit code {code}, {text!r}")
		if "rror" in "".join(line for line in text.splitlines() if not line.startswith("criu: ")):
			raise Failure(f"limit {limit}: more than one message: {text!r}")
	if code:
		raise Failure(f"the command fails even with {most} descriptors: {text!r}")


def limit_of_open_files(cell, dumper, _restorer):
	"""With few descriptors the error is about descriptors: not "there is no process"."""
	cell.start()
	images = cell.new_images()
	cell.away_since = time.monotonic()
	few_descriptors([dumper.path, "dump", "-v1", "-R", "-t", str(cell.root), "-D", images], 64)
	cell.kill_tree()
	cell.restore(cell.ours, images)
	cell.finish()


def limit_of_a_tree(cell, dumper, _restorer):
	"""Too few descriptors to look at all children: criu must not take a child for one that has ended."""
	cell.start()
	before = system.tree(cell.root)
	few_descriptors([dumper.path, "dump", "-v1", "-R", "--timeout", "1", "-t", str(cell.root), "-D", cell.new_images()], 256)
	cell.check_running()
	if system.tree(cell.root) != before:
		raise Failure("a process of the tree has ended")
	cell.finish()


def small_file_system(cell, options):
	path = cell.path("small")
	os.mkdir(path)
	system.mount("small", path, "tmpfs", data=options)
	return path


def told(text, words):
	return [line for line in text.splitlines() if words in line]


def full_disk(cell, dumper, options):
	"""One line on the terminal. The log has the cause, and at most one more line, with the process that it concerns."""
	images = small_file_system(cell, "size=300k")
	command = [dumper.path, "dump", "-R", "-t", str(cell.root), "-D", images, *options]
	run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
	subprocess.run([*command, "-v4", "-o", cell.path("full.log")], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
	log = system.read_text(cell.path("full.log"))
	system.unmount(images)
	os.rmdir(images)
	if run.returncode != 1 or len(told(run.stderr, "No space left on device")) != 1 or "rror" in run.stderr:
		raise Failure(f"exit code {run.returncode}: {run.stderr!r}")
	if not 1 <= len(told(log, "No space left on device")) <= 2:
		raise Failure(f"the log: {told(log, 'No space left on device')}")
	cell.check_running()


def disk_is_full(cell, dumper, _restorer):
	cell.start()
	for options in ([], ["--track-mem=content"], ["--track-mem=written"]):
		full_disk(cell, dumper, options)
	cell.finish()


def no_room_for_statistics(cell, dumper, restorer):
	"""The statistics cannot be written, but the snapshot is complete and the process has ended: only a warning."""
	cell.start()
	work = small_file_system(cell, "size=4k,nr_inodes=1")
	images = cell.new_images()
	cell.away_since = time.monotonic()
	run = dumper.run("dump", images, ["-t", cell.root, "-W", work], log=os.path.join(images, "dump.log"))
	if run.failed or not (dumper.is_peer or "Warn  (" in run.log):
		raise Failure(run.describe())
	cell.wait_gone([cell.root])
	system.unmount(work)
	cell.restore(restorer, images)
	cell.finish()


def needless_tree(cell, dumper, restorer):
	"""restore -t PID, which older versions required: a warning says that it is not needed, or that the images have another pid."""
	cell.start()
	for wrong in (0, 1):
		images = cell.new_images(f"images{wrong}")
		cell.dump(dumper, images)
		named = cell.root + wrong
		run = cell.restore(restorer, images, ["-t", named])
		expected = "Using -t with criu restore is obsoleted" if restorer.is_peer else \
			f"--tree {named} is ignored: the images are of process {cell.root}" if wrong else f"--tree {named} is not needed"
		if not re.search(r"Warn  \([a-z/.-]+:\d+\): " + re.escape(expected), run.log):
			raise Failure(f"no warning '{expected}': {run.log[:500]!r}")
	cell.finish()


def script_after_resume(cell, dumper, restorer):
	"""A script that fails when the processes already run: the restore succeeds, with a warning."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	script = cell.path("script")
	with open(script, "w") as file:
		file.write("#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-resume ]\n")
	os.chmod(script, 0o700)
	with open(cell.path("output"), "w") as output:
		run = subprocess.run([restorer.path, "restore", "-d", "-D", images, "--action-script", script], stdin=subprocess.DEVNULL,
				     stdout=output, stderr=output)
	text = system.read_text(cell.path("output"))
	if run.returncode or "Warn  (" not in text or "ended with status 1 at post-resume" not in text:
		raise Failure(f"exit code {run.returncode}: {text!r}")
	cell.exits.pop(cell.root, None)
	cell.note_downtime()
	cell.finish()


def taken_numbers(cell, dumper, restorer):
	"""A process outside of the tree is in its session or group, so the number is still in use: the restore fails and names it."""
	for number, begin in enumerate(("", "set -m; ")):  # in the leader's process group, or in its own
		cell.begin(["bash", "-c", f"{begin}(sleep 1000 &); exec sleep 1001"])
		def orphans():
			return [pid for pid in system.descendants(os.getpid()) if pid != cell.root and
				system.status(pid).get("Name") == "sleep" and system.status(pid).get("PPid") == str(os.getpid())]
		outsider = system.wait_until(orphans, 5)
		system.wait_until(lambda: system.status(cell.root).get("Name") == "sleep", 5)
		images = cell.new_images(f"images{number}")
		cell.dump(dumper, images)
		run = restorer.restore(images)
		expected = rf"in use.*{outsider[0]} \(sleep\) is in its session"
		if not run.failed or not re.search(expected, run.error):
			raise Failure(f"no '{expected}' in:\n{run.describe()}")
		os.kill(outsider[0], signal.SIGKILL)
		system.wait_until(lambda: cell.reap() or not os.path.exists(f"/proc/{outsider[0]}"), 5)
		cell.restore(restorer, images)
		cell.kill_tree()


def named_once(run, words, pid):
	"""The sentence with these words names the process, and does so once."""
	names = [re.findall(r"process \d+", line) for line in told(run.error, words)]
	if not run.failed or [f"process {pid}"] not in names or max(map(len, names)) > 1:
		raise Failure(f"'{words}' does not name process {pid} once: {run.describe()}")


def no_address_space_left(cell, dumper, _restorer):
	"""Any process of the tree may be the one that cannot take the parasite: it is the one that is named."""
	cell.start()
	for number, pid in enumerate(pid for pid in system.tree(cell.root) if system.status(pid)["State"][0] != "Z"):
		before = resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
		run = dumper.dump(cell.root, cell.new_images(f"images{number}"))
		resource.prlimit(pid, resource.RLIMIT_AS, before)
		named_once(run, "for criu's code (the parasite)", pid)
	cell.check_running()
	cell.finish()


def no_hole(cell, dumper, _restorer):
	"""All of its address space is mapped."""
	cell.start()
	run = dumper.dump(cell.root, cell.new_images())
	named_once(run, "its address space has no room for criu's code", cell.root)
	cell.check_running()
	cell.finish()


def row(name, run, program="counter", modes=("ours",), **more):
	return Row(f"message-{name}", program, run=run, modes=modes, **more)


ROWS = [
	row("limit-of-open-files", limit_of_open_files),
	row("limit-of-a-tree", limit_of_a_tree, "tree"),
	row("disk-is-full", disk_is_full, "memory"),
	row("no-room-for-statistics", no_room_for_statistics, modes=("ours", "peer")),
	row("taken-numbers", taken_numbers, None),
	row("restore-tree", needless_tree, modes=("ours", "peer")),
	row("script-after-resume", script_after_resume),
	row("no-address-space-left", no_address_space_left, "tree"),
	Row("message-no-hole", "at_limit", arguments=("addresses",), run=no_hole, modes=("ours",)),
]
