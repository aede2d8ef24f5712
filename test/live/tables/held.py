"""held.py - restores that share the memory of a process that holds it (--mmap-images): who gets it, and how it ends."""

import os
import signal
import subprocess
import time

from harness import modes, system
from harness.cell import Failure
from harness.modes import dumped, restored
from harness.row import Row
from tables.bad_input import expect_error

HELD = ("--mmap-images",)


def with_holder(course):
	"""The course gets a row's directory of images; afterwards the holder must end."""
	def run(cell, dumper, restorer):
		images = dumped(cell, dumper)
		try:
			course(cell, restorer, images)
		finally:
			modes.end_holder(images)
	return run


def holder():
	found = modes.holders()
	if len(found) != 1:
		raise Failure(f"there should be one holder: {found}")
	return found[0]


def kibibytes(pid, name):
	lines = system.read_text(f"/proc/{pid}/smaps_rollup").splitlines()
	return sum(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def shared(cell, restorer, images):
	cell.restore(restorer, images, HELD)
	resident, own = kibibytes(cell.root, "Rss"), kibibytes(cell.root, "Private_Dirty")
	if resident < 64 << 10 or own > resident / 8:
		raise Failure(f"{own} of {resident} KiB are not shared with the holder")
	cell.pause()
	cell.finish()


def given_back(cell, restorer, images):
	for _ in range(2):
		modes.restore_held(cell, restorer, images)
		cell.forget_verdict()


def killed(cell, restorer, images):
	"""A holder that was killed leaves its socket behind: the next restore makes another one."""
	modes.restore_held(cell, restorer, images)
	first = holder()
	os.kill(first, signal.SIGKILL)
	cell.wait_gone([first])
	cell.forget_verdict()
	modes.restore_held(cell, restorer, images)
	if holder() == first:
		raise Failure("the holder is the one that was killed")


def locked(cell, restorer, images):
	"""Nobody changes images while their memory is held."""
	modes.restore_held(cell, restorer, images)
	cell.forget_verdict()
	cell.restore(restorer, images)
	expect_error(cell.ours.dump(cell.root, images), r"is being read by process \d+")
	cell.check_running()
	cell.finish()


def other_rights(cell, restorer, images):
	"""Who has other rights than the holder restores without it."""
	modes.restore_held(cell, restorer, images)
	cell.forget_verdict()
	run = cell.restore(restorer, images, HELD, inside=("setpriv", "--no-new-privs"))
	if "the memory of the images is not shared: its NoNewPrivs differs" not in run.log:
		raise Failure(f"no warning: {run.describe()}")
	cell.pause()
	cell.finish()


def other_limits(cell, restorer, images):
	"""What may differ is taken over: limits, umask, priority, directory."""
	modes.restore_held(cell, restorer, images)
	cell.forget_verdict()
	run = cell.restore(restorer, images, HELD,
			   inside=("nice", "-n", "3", "sh", "-c", 'umask 027; ulimit -S -n 300; cd /tmp; exec "$@"', "sh"))
	if "is not shared" in run.log:
		raise Failure(run.describe())
	cell.pause()
	cell.finish()


def interrupted(number):
	"""The caller gets a signal in the middle: nothing is restored, nothing is left."""
	def course(cell, restorer, images):
		script, reached = cell.path("script"), cell.path("reached")
		with open(script, "w") as file:
			file.write(f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = pre-resume ] || exit 0\ntouch {reached}\nexec sleep 1\n')
		os.chmod(script, 0o755)
		modes.restore_held(cell, restorer, images)
		cell.forget_verdict()
		caller = subprocess.Popen([restorer.path, "restore", "-d", "-D", images, "-o", "restore.log", *HELD, "--action-script", script],
					  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
		if not system.wait_until(lambda: os.path.exists(reached), 10):
			raise Failure("the script did not run")
		time.sleep(0.1)
		caller.send_signal(number)
		code = caller.wait(10)
		if code != -number:
			raise Failure(f"criu ended with {code}")
		cell.wait_gone([cell.root])

		def nothing_left():
			system.reap()
			return set(system.descendants(os.getpid())) <= set(modes.holders())
		if not system.wait_until(nothing_left, 10):
			raise Failure("left behind: " + "; ".join(map(system.describe_task, system.descendants(os.getpid()))))
		restored(cell, restorer, images, HELD)
	return course


def at_once(cell, restorer, images):
	"""All of many callers try to begin a holder. One tree is restored; for the others its pid is in use."""
	callers = [subprocess.Popen([restorer.path, "restore", "-d", "-D", images, "-o", f"restore{i}.log", *HELD], stdin=subprocess.DEVNULL,
				    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for i in range(8)]
	codes = sorted(caller.wait(60) for caller in callers)
	if codes != [0] + [1] * 7:
		raise Failure(f"exit codes: {codes}")
	def one_is_left():  # whoever comes second replaces the first one's socket
		system.reap()
		return len(modes.holders()) == 1
	if not system.wait_until(one_is_left, 5):
		raise Failure(f"there should be one holder: {modes.holders()}")
	cell.exits.pop(cell.root, None)
	cell.note_downtime()
	cell.pause()
	cell.finish()


def begun(cell, restorer, images):
	"""criu hold loads the memory before anybody restores."""
	for _ in range(2):
		run = subprocess.run([cell.ours.path, "hold", images], capture_output=True, text=True)
		if run.returncode or run.stdout or run.stderr:
			raise Failure(f"criu hold: {run.returncode} {run.stdout}{run.stderr}")
	first = holder()
	modes.restore_held(cell, restorer, images)
	if holder() != first:
		raise Failure("the restore has begun another holder")


def not_begun(cell, restorer, images):
	"""What cannot be restored cannot be held, and the error says why."""
	os.rename(os.path.join(images, "pstree.img"), os.path.join(images, "other"))
	run = subprocess.run([cell.ours.path, "hold", "-D", images], capture_output=True, text=True)
	if run.returncode != 1 or "pstree.img" not in run.stderr:
		raise Failure(f"criu hold: {run.returncode} {run.stdout}{run.stderr}")
	os.rename(os.path.join(images, "other"), os.path.join(images, "pstree.img"))
	cell.restore(restorer, images)
	cell.finish()


def excluded(cell, restorer, images):
	for option in ("--shell-job", "--auto-dedup"):
		expect_error(cell.ours.restore(images, [*HELD, option]), "--mmap-images: not together with")
	cell.restore(restorer, images)
	cell.finish()


ROWS = [Row("held-" + name, program, arguments=arguments, run=with_holder(course), modes=("ours",)) for name, program, arguments, course in (
	("shared", "large", ("64",), shared),
	("given-back", "given_back", ("given_back",), given_back),
	("killed", "large", ("8",), killed),
	("locked", "large", ("8",), locked),
	("other-rights", "large", ("8",), other_rights),
	("other-limits", "large", ("8",), other_limits),
	("interrupted", "tree", (), interrupted(signal.SIGTERM)),
	("interrupted-hard", "tree", (), interrupted(signal.SIGKILL)),
	("at-once", "large", ("8",), at_once),
	("begun", "large", ("8",), begun),
	("not-begun", "large", ("8",), not_begun),
	("excluded", "large", ("8",), excluded),
)]
