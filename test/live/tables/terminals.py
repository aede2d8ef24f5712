"""terminals.py - jobs of a shell (--shell-job), and terminals whose two ends are both in the tree."""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time

from harness import chains, system
from harness.cell import Failure
from harness.row import Row

from . import bad_input
from .aio import refused


@contextlib.contextmanager
def own_terminals():
	"""Mounts a new devpts, so that no other process takes numbers of terminals (/dev/pts/N) of this test."""
	system.mount("devpts", "/dev/pts", "devpts", data="newinstance,ptmxmode=0666,mode=0620,gid=5")
	system.mount("/dev/pts/ptmx", "/dev/ptmx", None, system.MS_BIND)
	try:
		yield
	finally:
		for path in ("/dev/ptmx", "/dev/pts"):
			system.unmount(path, system.MNT_DETACH)


def with_own_terminals(course):
	def run(cell, dumper, restorer):
		with own_terminals():
			course(cell, dumper, restorer)
	return run


def as_the_mode_says(cell, dumper, restorer):
	cell.mode.run(cell, dumper, restorer)


class Terminal:
	"""A pty with a session. Its leader runs one command at a time in the foreground, as a shell does, and waits for it."""

	def __init__(self, cell, rows, columns):
		self.cell = cell
		self.master, self.slave = os.openpty()
		fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
		self.leader = 0

	def size(self):
		return struct.unpack("HHHH", fcntl.ioctl(self.slave, termios.TIOCGWINSZ, bytes(8)))[:2]

	def run(self, name, command, own_group):
		"""Makes the leader run a command. The file `name` gets its pid, `name`.code its exit code."""
		self.leader = os.fork()
		if self.leader == 0:
			try:
				self.lead(name, command, own_group)
			finally:
				os._exit(1)

	def become_leader(self):
		os.setsid()
		fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
		for fd in range(3):
			os.dup2(self.slave, fd)
		os.closerange(3, 256)

	def lead(self, name, command, own_group):
		self.become_leader()
		signal.signal(signal.SIGTTOU, signal.SIG_IGN)
		pid = os.fork()
		if pid == 0:
			if own_group:
				os.setpgid(0, 0)
				os.tcsetpgrp(0, os.getpid())
			signal.signal(signal.SIGTTOU, signal.SIG_DFL)
			os.execv(command[0], command)
		self.note(name, pid)
		_, status = os.waitpid(pid, 0)
		self.note(name + ".code", os.waitstatus_to_exitcode(status))
		while True:
			signal.pause()

	def note(self, name, number):
		with open(self.cell.path(name + ".new"), "w") as file:
			file.write(f"{number}\n")
		os.rename(self.cell.path(name + ".new"), self.cell.path(name))

	def number(self, name, seconds=10):
		if not system.wait_until(lambda: os.path.exists(self.cell.path(name)), seconds):
			raise Failure(f"the leader did not write {name}")
		return int(system.read_text(self.cell.path(name)))

	def converse(self, line, answer):
		os.write(self.master, line)
		heard, end = b"", time.monotonic() + 5
		while answer not in heard and time.monotonic() < end:
			if select.select([self.master], [], [], 0.1)[0]:
				heard += os.read(self.master, 1000)
		if answer not in heard:
			raise Failure(f"the terminal received {heard!r}, not {answer!r}")

	def close(self):
		if self.leader:
			os.kill(self.leader, signal.SIGKILL)
			self.cell.wait_gone([self.leader])
		os.close(self.master)
		os.close(self.slave)


def wait_ready(cell):
	"""The job is the child of the leader, so the harness does not see it end."""
	if not system.wait_until(lambda: os.path.exists(cell.path("ready")) or os.path.exists(cell.path("verdict")), 20):
		raise Failure("the program was not ready in time")
	if os.path.exists(cell.path("verdict")):
		cell.judge()


def restore_on(terminal, restorer, images, *options):
	terminal.run("restore", [restorer.path, "restore", "-D", images, "-o", "restore.log", "-v4", "-d", *options], True)
	return terminal.number("restore.code", 20)


def log_of(images):
	return system.read_tail(os.path.join(images, "restore.log"), 2000)


def job(own_group):
	def run(cell, dumper, restorer):
		first, second = Terminal(cell, 33, 111), Terminal(cell, 20, 40)
		try:
			first.run("job", [cell.program(), cell.directory, *cell.row.arguments], own_group)
			cell.root = first.number("job")
			wait_ready(cell)
			first.converse(b"one\n", b"1 one\r\n")
			images = cell.new_images()
			cell.dump(dumper, images, ["-j"])
			first.number("job.code")
			if restore_on(second, restorer, images, "-j") != 0:
				raise Failure("not restored: " + log_of(images))
			cell.exits.pop(cell.root, None)
			cell.note_downtime()
			second.converse(b"two\n", b"2 two\r\n")
			second.converse(b"three\n", b"3 three\r\n")
			cell.finish()
		finally:
			second.close()
			first.close()
	return run


def job_refused(cell, dumper, restorer):
	"""Without --shell-job both dump and restore are refused, and the terminal's settings do not change."""
	first, second = Terminal(cell, 33, 111), Terminal(cell, 20, 40)
	try:
		first.run("job", [cell.program(), cell.directory, *cell.row.arguments], True)
		cell.root = first.number("job")
		wait_ready(cell)
		run = dumper.dump(cell.root, cell.new_images("refused"))
		if not run.failed or "--shell-job" not in run.error or "terminal" not in run.error:
			raise Failure(f"not refused: {run.describe()}")
		first.converse(b"one\n", b"1 one\r\n")
		images = cell.new_images()
		cell.dump(dumper, images, ["-j"])
		if restore_on(second, restorer, images) == 0:
			raise Failure("restored without --shell-job")
		if "--shell-job" not in log_of(images) + second_heard(second) or second.size() != (20, 40):
			raise Failure("wrong message, or the terminal has changed: " + log_of(images))
	finally:
		second.close()
		first.close()


LOST = "the processes had a terminal and criu has none"


def check_lost(images, said, code):
	if code != 0:
		raise Failure(f"not restored: {said}{log_of(images)}")
	if system.read_text(os.path.join(images, "restore.log")).count(LOST) != 1:
		raise Failure("the log does not say exactly once that there is no terminal: " + log_of(images))


def restore_without_terminal(cell, restorer, images, closes_all=False):
	command = [restorer.path, "restore", "-D", images, "-o", "restore.log", "-v4", "-d", "-j"]
	if closes_all:
		command = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
	done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
			      start_new_session=True)
	check_lost(images, done.stdout, done.returncode)
	cell.exits.pop(cell.root, None)
	cell.note_downtime()
	cell.finish()


def lost(closes_all):
	"""A restore without a terminal, as by cron: the process gets /dev/null, and one warning says so."""
	def run(cell, dumper, restorer):
		first = Terminal(cell, 33, 111)
		try:
			first.run("job", [cell.program(), cell.directory, *cell.row.arguments], True)
			cell.root = first.number("job")
			wait_ready(cell)
			images = cell.new_images()
			cell.dump(dumper, images, ["-j"])
			first.number("job.code")
			restore_without_terminal(cell, restorer, images, closes_all)
		finally:
			first.close()
	return run


def start_leader(cell, terminal):
	"""Starts the program as the leader of the session on this terminal."""
	pid = os.fork()
	if pid == 0:
		terminal.become_leader()
		os.execv(cell.program(), [cell.program(), cell.directory, *cell.row.arguments])
	cell.root = pid
	wait_ready(cell)


def lost_leader(cell, dumper, restorer):
	"""The program leads its session. Its terminal is closed, and it is restored without one."""
	first = Terminal(cell, 33, 111)
	try:
		start_leader(cell, first)
		images = cell.new_images()
		cell.dump(dumper, images, ["-j"])
		restore_without_terminal(cell, restorer, images)
	finally:
		first.close()


@contextlib.contextmanager
def taken(number):
	"""Opens both ends of terminal /dev/pts/`number` in the harness, outside of the tree."""
	kept = []
	while not kept or kept[-1][0] != number:
		master, slave = os.openpty()
		kept.append((int(os.path.basename(os.ttyname(slave))), master, slave))
		if kept[-1][0] > number:
			raise Failure(f"terminal {number} is taken already")
	try:
		yield
	finally:
		for _, master, slave in kept:
			os.close(master)
			os.close(slave)


def number_taken(cell, dumper, restorer):
	"""The first of two terminals gets another number, and the second keeps its own."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	with taken(0):
		run = cell.restore(restorer, images)
		wanted = f"process {os.getpid()} ({system.read_text('/proc/self/comm').strip()}) uses terminal /dev/pts/0"
		if wanted not in run.log:
			raise Failure(f"the log does not say: {wanted}")
		cell.finish()


def with_path(images, number):
	"""Adds a descriptor to the images: the first process has the terminal's path open with O_PATH. Other programs may dump that."""
	name = f"/dev/pts/{number}".encode()
	files = chains.read(images, "files.img")
	known = [record for record in chains.records(files) if chains.field(chains.field(record, 3, b""), 6) == name]
	old = {kind: data for kind, _, data in chains.fields(chains.field(known[0], 3))}
	entry = chains.message(_1=999, _2=os.O_PATH, _3=0) + old[5] + old[6]
	record = chains.message(_1=1, _2=999) + b"\x1a" + bytes([len(entry)]) + entry
	chains.write(files + chains.record(record), images, "files.img")
	table = min(found for found in os.listdir(images) if found.startswith("fdinfo-"))
	chains.write(chains.read(images, table) + chains.record(chains.message(_1=999, _2=0, _3=1, _4=99)), images, table)


def number_named(cell, dumper, restorer):
	"""As before, but an image refers to the terminal by its path: then its number has to be free."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	with_path(images, 0)
	with taken(0):
		run = restorer.restore(images)
		cell.reap()
		wanted = f"process {os.getpid()} ({system.read_text('/proc/self/comm').strip()}) uses terminal /dev/pts/0, which file 999"
		if not run.failed or wanted not in run.error:
			raise Failure(f"the error does not say: {wanted}: {run.describe()}")


def leader(cell, dumper, restorer):
	"""The job leads the session itself. criu gets a new terminal, which controls no session yet."""
	first, second = Terminal(cell, 33, 111), Terminal(cell, 20, 40)
	try:
		start_leader(cell, first)
		first.converse(b"one\n", b"1 one\r\n")
		images = cell.new_images()
		cell.dump(dumper, images, ["-j"])
		command = [restorer.path, "restore", "-D", images, "-o", "restore.log", "-v4", "-d", "-j"]
		if subprocess.run(command, stdin=second.slave, stdout=second.slave, stderr=second.slave).returncode != 0:
			raise Failure("not restored: " + log_of(images))
		cell.exits.pop(cell.root, None)
		cell.note_downtime()
		second.converse(b"two\n", b"2 two\r\n")
		cell.finish()
	finally:
		second.close()
		first.close()


def second_heard(terminal):
	ready = select.select([terminal.master], [], [], 0.2)[0]
	return os.read(terminal.master, 4000).decode("utf-8", "replace") if ready else ""


NO_LEADER = {"restore": "the session has no terminal that controls it"}
NO_DEV_TTY = {"dump": "it refuses /dev/tty"}
PAIRS = {
	"plain": {}, "foreground": {}, "packets": {},
	"waiting": {"restore": "what waits comes with other line ends"},
	"flood": {"dump": "it saves only the 4 KiB that the terminal itself buffers"},
	"stopped": {"restore": "what waits comes with other line ends"},
	"typed": {"dump": "it does not save what was typed"},
	"tty": {"dump": "it refuses /dev/tty", "restore": "it does not know who owned the terminal"},
}
NOT_SAVED, NOT_KNOWN = {"dump": "it does not save this"}, {"restore": "it does not know this"}
UNUSUAL = {
	"hung_up": {"restore": "it takes the owner from the path"}, "hung_up_session": {"restore": "it looks for a master"},
	"alone": {"dump": "it does not save what waits", "restore": "it has no place for what was typed"},
	"fresh": NOT_SAVED,  # its own restore does not open the slave
	"ends": {"dump": "it does not save what was typed", "restore": "it does not know the ends of file"},
	"raw": {}, "flow_control": {"restore": "it types such characters again"}, "packets": NOT_SAVED, "told": NOT_SAVED | NOT_KNOWN,
	"stopped_by_call": NOT_SAVED | NOT_KNOWN, "stopped_by_character": NOT_SAVED | NOT_KNOWN,
	"echo": NOT_SAVED | NOT_KNOWN,
	"exclusive": {"restore": "it makes no terminal exclusive"}, "locked": {"restore": "it does not lock settings"},
	"locked_data": NOT_SAVED | {"restore": "it does not lock settings"},
	"many": {"restore": "it finds no master for a number behind a free one"},
	"left": {"dump": "it refuses /dev/tty"},
}
DEVICES = {"console": "/dev/console", "serial": "/dev/ttyS0", "virtual": "/dev/tty61"}
BOTH_WAYS = ("ours", "ours-to-peer", "peer-to-ours", "peer")

ROWS = [
	Row("shell-job", "terminal", arguments=("standard",), run=with_own_terminals(job(True)), modes=BOTH_WAYS),
	Row("shell-job-same-group", "terminal", arguments=("standard",), run=with_own_terminals(job(False)), modes=BOTH_WAYS),
	Row("shell-job-tty", "terminal", arguments=("tty",), run=with_own_terminals(job(True)), modes=BOTH_WAYS, peer_fails=NO_DEV_TTY),
	*[Row("shell-job-leader-" + kind, "terminal", arguments=(kind,), run=with_own_terminals(leader), modes=BOTH_WAYS,
	      peer_fails=NO_LEADER) for kind in ("standard", "tty")],
	*[Row("shell-job-lost-" + kind, "terminal_lost", arguments=(kind,), run=with_own_terminals(lost(False)),
	      modes=("ours", "peer-to-ours"), peer_fails=NO_DEV_TTY if kind == "tty" else {}) for kind in ("standard", "tty", "epoll")],
	Row("shell-job-lost-closed", "terminal_lost", arguments=("standard",), run=with_own_terminals(lost(True)), modes=("ours",)),
	*[Row("shell-job-lost-leader-" + kind, "terminal_lost", arguments=(kind,), run=with_own_terminals(lost_leader), modes=("ours",))
	  for kind in ("standard", "tty", "epoll")],
	Row("terminal-number-taken", "pair", arguments=("moved",), run=with_own_terminals(number_taken), modes=("ours", "peer-to-ours")),
	Row("terminal-number-named", "pair", arguments=("plain",), run=with_own_terminals(number_named), modes=("ours",)),
	Row("bad-restore-torn-terminals", "pair", arguments=("waiting",), timeout=60, modes=("ours",),
	    run=with_own_terminals(bad_input.side_images_torn("pipes-data.img", "tty-data.img", "tty-info.img"))),
	Row("shell-job-refused", "terminal", arguments=("standard",), run=with_own_terminals(job_refused), modes=("ours",)),
	*[Row("terminal-" + kind, "pair", arguments=(kind,), run=with_own_terminals(as_the_mode_says), peer_fails=fails)
	  for kind, fails in PAIRS.items()],
	*[Row(f"device-{name}", "console", arguments=(path, "plain"), to_lose=(), alone_with="console",
	      peer_fails={"dump": "it does not know this line", "restore": "it does not know this line"} if name == "serial" else {})
	  for name, path in DEVICES.items()],
	Row("terminal-broken", "terminals", arguments=("broken",), run=with_own_terminals(refused("nobody can write to terminal 0")), modes=("ours",)),
	Row("device-session", "console", arguments=("/dev/tty60", "session"), to_lose=(), alone_with="console"),
	*[Row("terminal-" + kind.replace("_", "-"), "terminals", arguments=(kind,), run=with_own_terminals(as_the_mode_says), to_lose=(),
	      peer_fails=fails) for kind, fails in UNUSUAL.items()],
]
