"""options.py - what the user can ask for beside the plain journey: who the parent is, pid files, where logs go."""

import os
import signal
import subprocess

from harness import system
from harness.cell import Failure
from harness.row import Row


def dumped(cell, dumper, options=()):
	cell.start()
	cell.wait_ready()
	images = cell.new_images()
	cell.dump(dumper, images, options)
	return images


def check_parent(cell, expected, what):
	parent = system.status(cell.root).get("PPid")
	if parent != str(expected):
		raise Failure(f"the parent is {parent}, not {what} ({expected})")


def pidfile(cell, dumper, restorer):
	images = dumped(cell, dumper)
	cell.restore(restorer, images, ["--pidfile", cell.path("pid")])
	text = system.read_text(cell.path("pid"))
	if text.strip() != str(cell.root):
		raise Failure(f"the pid file holds {text!r}, not {cell.root}")
	cell.finish()


def sibling(cell, dumper, restorer):
	images = dumped(cell, dumper)
	cell.restore(restorer, images, ["-S"])
	check_parent(cell, os.getpid(), "the parent of criu")
	cell.finish()


def start_criu(cell, restorer, images, options):
	command = [restorer.path, "restore", "-D", images, "-o", "restore.log", *options]
	with open(os.devnull) as nothing, open(cell.path("output"), "a") as output:
		process = subprocess.Popen(command, stdin=nothing, stdout=output, stderr=output)
	def running():
		return system.thread_state(cell.root, cell.root) in "SR" and system.status(cell.root).get("TracerPid") == "0"
	if not system.wait_until(running, 5):
		raise Failure("the process was not restored: " + system.read_tail(os.path.join(images, "restore.log"), 500))
	return process


def foreground(cell, dumper, restorer):
	"""Without -d criu stays the parent, until the process ends."""
	images = dumped(cell, dumper)
	process = start_criu(cell, restorer, images, [])
	check_parent(cell, process.pid, "criu")
	if process.poll() is not None:
		raise Failure("criu did not wait")
	os.kill(cell.root, signal.SIGTERM)
	code = process.wait(10 * system.patience)
	cell.judge()
	if code != 0:
		raise Failure(f"the process ended with 0, and criu with {code}")


def exec_cmd(cell, dumper, restorer):
	"""The command takes the place of criu, and is the parent."""
	images = dumped(cell, dumper)
	process = start_criu(cell, restorer, images, ["--exec-cmd", "--", "sleep", "1000"])
	def is_sleep():
		return system.status(process.pid).get("Name") == "sleep"
	if not system.wait_until(is_sleep, 5):
		raise Failure("the command does not run in the place of criu")
	check_parent(cell, process.pid, "the command")
	os.kill(cell.root, signal.SIGTERM)
	system.wait_until(lambda: os.path.exists(cell.path("verdict")), 10)
	process.kill()
	process.wait()
	cell.wait_gone([cell.root])
	cell.judge()


def work_directory(cell, dumper, restorer):
	"""Logs and statistics go to -W, and nothing but images to -D."""
	os.mkdir(cell.path("work"))
	images = dumped(cell, dumper, ["-W", cell.path("work")])
	cell.restore(restorer, images, ["-W", cell.path("work")])
	cell.finish()
	expected = {"dump.log", "restore.log", "stats-dump", "stats-restore"}
	missing = expected - set(os.listdir(cell.path("work")))
	stray = [name for name in os.listdir(images) if not name.endswith(".img")]
	if missing or stray:
		raise Failure(f"missing in the work directory: {missing}; not an image: {stray}")


def row(name, run):
	return Row(f"option-{name}", "counter", run=run, modes=("ours", "ours-to-peer", "peer-to-ours", "peer"))


ROWS = [
	row("pidfile", pidfile),
	row("restore-sibling", sibling),
	row("foreground", foreground),
	row("exec-cmd", exec_cmd),
	row("work-dir", work_directory),
]
