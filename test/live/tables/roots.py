"""roots.py - the root is born first, and waits while criu opens the files: who kills whom then, and what can go wrong.

The test holds criu there with a lease on a file that criu has to open (fcntl(2)): that waits until the lease is given back.
"""

import ctypes
import fcntl
import functools
import os
import platform
import re
import resource
import signal
import subprocess

from harness import system
from harness.cell import PROGRAMS, Failure
from harness.row import Row

SYS_KCMP = {"x86_64": 312}.get(platform.machine(), 272)
KCMP_FILES = 2
SOON = 5  # seconds


def share_descriptors(a, b):
	return ctypes.CDLL(None).syscall(SYS_KCMP, a, b, KCMP_FILES, 0, 0) == 0


def uts(pid):
	return os.readlink(f"/proc/{pid}/ns/uts")


def with_quit():
	"""A shell that starts the tests in the background has them ignore SIGQUIT, and criu would, too."""
	signal.signal(signal.SIGQUIT, signal.SIG_DFL)


class Held:
	"""A restore that is held while it opens the program's output: the root exists, and nobody else."""

	def __init__(self, cell, restorer, images):
		self.cell = cell
		self.file = os.open(cell.path("output"), os.O_RDWR)
		signal.signal(signal.SIGIO, signal.SIG_IGN)
		fcntl.fcntl(self.file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
		self.log = os.path.join(images, "restore.log")
		self.printed = open(cell.path("printed"), "w+")
		with open(os.devnull) as nothing:
			self.criu = subprocess.Popen([restorer.path, "restore", "-d", "-D", images, "-o", "restore.log", "-v4",
						      *cell.row.restore_options], stdin=nothing, stdout=self.printed, stderr=self.printed,
						     preexec_fn=with_quit)
		if not system.wait_until(self.is_held, SOON):
			raise Failure("criu was not held: " + self.said())
		if not system.wait_until(lambda: system.thread_state(cell.root, cell.root) == "S", SOON):
			raise Failure(f"the root does not wait: {system.describe_task(cell.root)}")
		cell.exits.pop(cell.root, None)

	def is_held(self):
		return fcntl.fcntl(self.file, fcntl.F_GETLEASE) != fcntl.F_WRLCK

	def said(self):
		self.printed.seek(0)
		return self.printed.read() + system.read_tail(self.log, 2000)

	def go_on(self):
		os.close(self.file)

	def end(self):
		self.go_on()
		return self.criu.wait(SOON * system.patience)

	def fails(self, words, code=1):
		"""... as it must, soon, and with these words; nothing is left."""
		ended = self.end()
		if ended != code:
			raise Failure(f"it should have ended with {code}, and not with {ended}: {self.said()}")
		if not re.search(words, self.said()):
			raise Failure(f"it did not say {words!r}: {self.said()}")
		nobody_is_left(self.cell)


def nobody_is_left(cell):
	def nobody():
		cell.reap()
		return not system.descendants(os.getpid())
	if not system.wait_until(nobody, 3):
		raise Failure("left behind: " + "; ".join(map(system.describe_task, system.descendants(os.getpid()))))


def check_order(cell, held):
	"""It is there, alone, in its namespace, and has criu's descriptors."""
	if not share_descriptors(cell.root, held.criu.pid):
		raise Failure("the root does not share criu's descriptors")
	if system.tree(cell.root) != [cell.root]:
		raise Failure("the root has children already")
	if (uts(cell.root) != uts(os.getpid())) != (cell.row.program == "uts"):
		raise Failure("the root waits in the wrong uts namespace")


def undisturbed(cell, held, images, restorer):
	check_order(cell, held)
	if held.end():
		raise Failure("it failed: " + held.said())
	cell.note_downtime()
	if share_descriptors(cell.root, os.getpid()):
		raise Failure("the root shares the descriptors of somebody outside")
	cell.pause()
	cell.check_running()
	cell.finish()


def killed(cell, held, images, restorer):
	os.kill(cell.root, signal.SIGKILL)
	system.wait_until(lambda: system.thread_state(cell.root, cell.root) in ("Z", "gone"), SOON)
	held.fails(rf"process {cell.root} \({cell.row.program}\) (was killed by signal 9|ended) while it was being restored")


def killed_criu(cell, held, images, restorer):
	"""It dies at once, not only when it is woken."""
	held.criu.kill()
	held.criu.wait()
	nobody_is_left(cell)
	held.go_on()


def terminated_criu(cell, held, images, restorer):
	held.criu.send_signal(signal.SIGTERM)
	held.fails("interrupted by SIGTERM", -signal.SIGTERM)


def quit_criu(cell, held, images, restorer):
	"""The terminal sends SIGQUIT to criu and its watchdog, which begins when criu has the files. The root is stopped until then."""
	os.kill(cell.root, signal.SIGSTOP)
	resource.prlimit(held.criu.pid, resource.RLIMIT_CORE, (0, 0))
	held.go_on()
	def others():
		return [task for task in system.descendants(held.criu.pid) if task != cell.root]
	if not system.wait_until(lambda: any(system.status(task).get("Name") == "criu-watchdog" for task in others()), SOON):
		raise Failure("there is no watchdog: " + held.said())
	for task in [*others(), held.criu.pid]:
		os.kill(task, signal.SIGQUIT)
	held.criu.wait()
	nobody_is_left(cell)


def killed_middle(cell, held, images, restorer):
	"""The process that is its parent during the restore."""
	parent = int(system.status(cell.root)["PPid"])
	if parent in (held.criu.pid, os.getpid()):
		raise Failure("there is no process between criu and the root")
	os.kill(parent, signal.SIGKILL)
	system.wait_until(lambda: system.thread_state(cell.root, cell.root) in ("Z", "gone"), SOON)
	held.fails(rf"process {cell.root} \({cell.row.program}\) was killed by signal 9 while it was being restored")


def lost_file(cell, held, images, restorer):
	"""A file was there when criu checked it, and is gone when criu opens it."""
	os.rename(cell.path("cloexec"), cell.path("moved"))
	held.fails("cannot open .*/cloexec with its original flags")
	os.rename(cell.path("moved"), cell.path("cloexec"))


def taken(cell, held, images, restorer):
	"""The pid of a child is taken meanwhile: the stranger lives on."""
	pid, taker = cell.pids[-1], cell.path("taker")
	os.mkdir(taker)
	with open(os.devnull) as nothing:
		subprocess.Popen([os.path.join(PROGRAMS, "take_pid"), taker, str(pid), "live"], stdin=nothing, stdout=nothing, stderr=nothing)
	if not system.wait_until(lambda: os.path.exists(os.path.join(taker, "taken")), SOON):
		raise Failure(f"{pid} could not be taken")
	if not held.end() or f"process {pid}: its id is in use" not in held.said():
		raise Failure(f"it should have failed by the name of {pid}: {held.said()}")
	cell.reap()
	left = {task: system.status(task).get("Name") for task in system.descendants(os.getpid())}
	for task in left:
		os.kill(task, signal.SIGKILL)
	if left.get(pid) != "take_pid" or set(left.values()) != {"take_pid"}:
		raise Failure(f"left are {left}; {pid} should be there, and nobody else")
	nobody_is_left(cell)


def held(cell, dumper, restorer, meanwhile):
	cell.start()
	cell.pids = system.tree(cell.root)
	images = cell.new_images()
	cell.dump(dumper, images)
	meanwhile(cell, Held(cell, restorer, images), images, restorer)
	if meanwhile is undisturbed:
		return
	cell.restore(restorer, images)
	cell.finish()


SIBLING = {"restore_options": ("--restore-sibling",)}
PROGRAMS_OF = {"tree": ("tree", (), {}), "sibling": ("tree", (), SIBLING), "uts": ("uts", ("tree",), {}),
	       "uts-sibling": ("uts", ("tree",), SIBLING), "death-signal": ("death_signals", ("leader",), {}),
	       "files": ("files", (), {}), "shares": ("shares", ("memory+files", "chain"), {})}
CASES = [
	*[(undisturbed, name) for name in PROGRAMS_OF],
	*[(case, name) for case in (killed, killed_criu, terminated_criu) for name in ("tree", "sibling", "uts", "death-signal")],
	(killed_middle, "death-signal"),
	(quit_criu, "sibling"), (quit_criu, "uts-sibling"),
	(lost_file, "files"),
	(taken, "tree"), (taken, "uts"),
]


def row(case, name):
	program, arguments, more = PROGRAMS_OF[name]
	return Row(f"root-waits-{case.__name__.replace('_', '-')}-{name}", program, arguments=arguments,
		   run=functools.partial(held, meanwhile=case), modes=("ours",), **more)


ROWS = [row(case, name) for case, name in CASES]
