"""stdio.py - standard files that somebody else has given: of another mount namespace, of another devpts, or none at all."""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import stat
import subprocess
import time

from harness import system
from harness.cell import Failure
from harness.row import Row

from .externals import file_key, hear, opened, pipe, refused_dump, restore, start, tty_key
from .terminals import Terminal, check_lost, log_of, wait_ready, with_own_terminals

NEW_MOUNTS = 0x00020000  # CLONE_NEWNS


def unshare_mounts():
	if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS) != 0:
		raise OSError(ctypes.get_errno(), "unshare")


@contextlib.contextmanager
def elsewhere(work, count):
	"""Descriptors that `work` has opened in another mount namespace, which lives on meanwhile."""
	ours, theirs = socket.socketpair()
	child = os.fork()
	if child == 0:
		try:
			unshare_mounts()
			system.mount("none", "/", None, 0x4000 | 0x40000)  # MS_REC | MS_PRIVATE
			socket.send_fds(theirs, [b"x"], work())
			signal.pause()
		finally:
			os._exit(1)
	theirs.close()
	_, fds, _, _ = socket.recv_fds(ours, 1, count)
	ours.close()
	try:
		if len(fds) != count:
			raise Failure("the other mount namespace was not made")
		with opened(*fds):
			yield fds
	finally:
		os.kill(child, signal.SIGKILL)
		os.waitpid(child, 0)


def own_dev():
	"""A /dev of a container, with devices of its own."""
	system.mount("dev", "/dev", "tmpfs")
	os.mknod("/dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
	os.chmod("/dev/null", 0o666)
	os.mkdir("/dev/pts")
	os.symlink("pts/ptmx", "/dev/ptmx")
	system.mount("devpts", "/dev/pts", "devpts", data="newinstance,ptmxmode=0666,mode=0620")


def lacking(restorer, images, advice):
	run = restorer.restore(images)
	if not run.failed or "is from outside of the processes" not in run.printed or advice not in run.printed:
		raise Failure(f"no advice {advice}: {run.printed}")


def null(cell, dumper, restorer):
	"""/dev/null of a container is taken for the one that is here, without any option."""
	def work():
		own_dev()
		return [os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY | os.O_APPEND)]
	with elsewhere(work, 2) as (fd, to):
		start(cell, fd, to)
		images = cell.new_images()
		cell.dump(dumper, images)
		cell.restore(restorer, images)
		for number in range(2):
			if os.stat(f"/proc/{cell.root}/fd/{number}").st_rdev != os.makedev(1, 3):
				raise Failure(f"descriptor {number} is not /dev/null")
		cell.finish()


def files(cell, dumper, restorer):
	"""Two logs of a container: every error names the options for both."""
	logs = cell.path("logs")
	os.mkdir(logs)

	def work():
		system.mount("logs", logs, "tmpfs")
		for name in ("in", "out"):
			with open(f"{logs}/{name}", "w") as file:
				file.write("one\n" if name == "in" else "")
		return [os.open(f"{logs}/in", os.O_RDONLY | os.O_NONBLOCK), os.open(f"{logs}/out", os.O_RDWR | os.O_APPEND)]
	with elsewhere(work, 2) as (fd, to):
		start(cell, fd, to)
		if not system.wait_until(lambda: os.pread(to, 100, 0) == b"1 one\n", 5):
			raise Failure("no answer")
		keys = file_key(cell.root, 0), file_key(cell.root, 1)
		if not dumper.is_peer:
			refused_dump(cell, dumper, f"descriptor 0 ({logs}/in)", f"descriptor 1 ({logs}/out)", f"--external {keys[0]} --external {keys[1]}, and "
				     f"--inherit-fd fd[N]:{keys[0]} --inherit-fd fd[N]:{keys[1]} for the restore")
		images = cell.new_images()
		cell.dump(dumper, images, ["--external", keys[0], "--external", keys[1]])
		if not restorer.is_peer:
			lacking(restorer, images, f"try: --inherit-fd fd[N]:{keys[0]} --inherit-fd fd[N]:{keys[1]}")
		with opened(os.open(f"/proc/self/fd/{fd}", os.O_RDWR)) as (new,):
			restore(cell, restorer, images, (new, keys[0]), (to, keys[1]))
			os.pwrite(new, b"two\n", 4)
		if not system.wait_until(lambda: os.pread(to, 100, 0) == b"1 one\n2 two\n", 5):
			raise Failure(f"not two answers: {os.pread(to, 100, 0)}")
		cell.finish()


def terminal(cell, dumper, restorer):
	"""The terminal of a container, whose number is in use here, too; and a log in a file."""
	def work():
		own_dev()
		return os.openpty()
	(other, number), log = os.openpty(), os.open(cell.path("log"), os.O_RDWR | os.O_CREAT)
	with elsewhere(work, 2) as (master, slave), opened(other, number, log):
		if os.fstat(slave).st_rdev != os.fstat(number).st_rdev:
			raise Failure("the two terminals have different numbers")
		start(cell, slave, slave, pass_fds=[other, number])
		os.write(master, b"one\n")
		hear(master, b"one\r\n1 one\r\n")
		key = tty_key(slave)
		refused_dump(cell, dumper, "is a terminal whose master is outside of the tree", f"or --external {key}, and --inherit-fd fd[N]:{key}")
		images = cell.new_images()
		cell.dump(dumper, images, ["--external", key])
		lacking(restorer, images, f"try: --inherit-fd fd[N]:{key}")
		with opened(*os.openpty()) as (new_master, new):
			restore(cell, restorer, images, (new, key))
			os.write(new_master, b"two\n")
			hear(new_master, b"two\r\n2 two\r\n")
			cell.finish()


def terminal_by_job(cell, dumper, restorer):
	"""The same with --shell-job: the pair in the tree has the same number, and is another one."""
	def work():
		own_dev()
		return os.openpty()
	(other, number) = os.openpty()
	with elsewhere(work, 2) as (master, slave), opened(other, number):
		start(cell, slave, slave, pass_fds=[other, number])
		images = cell.new_images()
		cell.dump(dumper, images, ["-j"])
		name = os.ttyname(number)
		os.close(other)
		os.close(number)
		with opened(*os.openpty()) as (new_master, new), opened(os.dup(new)):
			command = [restorer.path, "restore", "-D", images, "-o", "restore.log", "-v4", "-d", "-j"]
			done = subprocess.run(command, stdin=new, stdout=new, stderr=new)
			if done.returncode:
				raise Failure(log_of(images))
			cell.exits.pop(cell.root, None)
			cell.note_downtime()
			os.write(new_master, b"two\n")
			hear(new_master, b"two\r\n1 two\r\n")
			links = [os.readlink(f"/proc/{cell.root}/fd/{fd}") for fd in (0, 1, other, number)]
			if links[0] != links[1] or links[0] != os.ttyname(new) or links[2] == links[0] or links[3] == links[0]:
				raise Failure(f"{links}, {name}")
			cell.finish()


def closed(cell, dumper, restorer):
	"""A process without any standard file, dumped and restored by programs without any."""
	pid = os.fork()
	if pid == 0:
		os.setsid()
		os.closerange(0, 256)
		os.execv(cell.program(), [cell.program(), cell.directory])
	cell.root = pid
	wait_ready(cell)
	images = cell.new_images()
	for command in (["dump", "-t", str(pid)], ["restore", "-d"]):
		words = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", dumper.path, *command, "-j", "-D", images, "-v4", "-o", command[0] + ".log"]
		if subprocess.run(words, start_new_session=True).returncode != 0:
			raise Failure(system.read_tail(os.path.join(images, command[0] + ".log"), 2000))
		if command[0] == "dump":
			cell.wait_gone([pid])
			cell.reap()
			cell.away_since = time.monotonic()
	cell.exits.pop(cell.root, None)
	cell.note_downtime()
	if os.listdir(f"/proc/{pid}/fd"):
		raise Failure(f"it has descriptors: {os.listdir(f'/proc/{pid}/fd')}")
	cell.finish()


# ---- --shell-job anywhere ----

PLACES = {
	"null": dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL),
	"pipes": dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE),
	"cron": dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True),
}


def restore_in(restorer, images, place, closes, detached):
	"""`closes`: a redirection of the shell."""
	words = [restorer.path, "restore", "-D", images, "-o", "restore.log", "-v4", "-j", *(["-d"] if detached else [])]
	criu = subprocess.Popen(["/bin/sh", "-c", f'exec "$@" {closes}', "sh", *words], stderr=subprocess.STDOUT, **PLACES[place])
	if detached and criu.wait(20 * system.patience) != 0:
		raise Failure(log_of(images))
	return criu


def anywhere(cell, dumper, restorer):
	"""A process without a terminal, with --shell-job, from every place."""
	cell.start()
	for number, (place, closes, detached) in enumerate(itertools.product(PLACES, ("", "<&-", ">&-", "<&- >&- 2>&-", "| cat"), (False, True))):
		images = cell.new_images(f"images-{number}")
		cell.dump(dumper, images, ["-j"])
		criu = restore_in(restorer, images, place, closes, detached)
		if not system.wait_until(lambda: "let the processes run: done" in system.read_text(os.path.join(images, "restore.log")), 10):
			raise Failure(f"{place} {closes} {detached}: {log_of(images)}")
		cell.exits.pop(cell.root, None)
		cell.note_downtime()
		cell.pause()
		cell.check_running()
		if not detached:
			criu.kill()
			criu.wait()
	cell.finish()


def job_without(cell, dumper, restorer):
	"""A job that had a terminal is restored where there is none: its standard files are /dev/null, and the log says so once."""
	first = Terminal(cell, 33, 111)
	try:
		first.run("job", [cell.program(), cell.directory, *cell.row.arguments], True)
		cell.root = first.number("job")
		wait_ready(cell)
		images = cell.new_images()
		cell.dump(dumper, images, ["-j"])
		first.number("job.code")
		criu = subprocess.run([restorer.path, "restore", "-D", images, "-o", "restore.log", "-v4", "-d", "-j"], stdin=subprocess.PIPE,
				      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
		check_lost(images, criu.stdout, criu.returncode)
		cell.exits.pop(cell.root, None)
		cell.note_downtime()
		cell.finish()
	finally:
		first.close()


BOTH_WAYS = ("ours", "ours-to-peer", "peer-to-ours", "peer")

ROWS = [
	Row("stdio-null", "external", arguments=("any",), run=null, modes=("ours",)),
	Row("stdio-files", "external", arguments=("any",), run=files, modes=BOTH_WAYS),
	Row("stdio-terminal", "external", arguments=("any",), run=with_own_terminals(terminal), modes=("ours",)),
	Row("stdio-terminal-by-job", "external", arguments=("any",), run=with_own_terminals(terminal_by_job), modes=("ours",)),
	Row("stdio-closed", "sleeper", run=closed, modes=("ours",)),
	Row("shell-job-anywhere", "sleeper", run=anywhere, modes=("ours",), timeout=180),
	Row("shell-job-piped", "terminal_lost", arguments=("standard",), run=with_own_terminals(job_without), modes=("ours",)),
]
