"""externals.py - files from outside of the tree: pipes, files and terminals that --external and --inherit-fd name."""

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time

from harness import system
from harness.cell import Failure
from harness.row import Row

from .terminals import with_own_terminals


@contextlib.contextmanager
def opened(*fds):
	try:
		yield fds
	finally:
		for fd in fds:
			with contextlib.suppress(OSError):
				os.close(fd)


def pipe():
	return opened(*os.pipe())


def start(cell, stdin, stdout, before=None, pass_fds=()):
	process = subprocess.Popen([cell.program(), cell.directory, *cell.row.arguments], stdin=stdin, stdout=stdout,
				   stderr=subprocess.DEVNULL, start_new_session=True, cwd=cell.directory, preexec_fn=before, pass_fds=pass_fds)
	cell.root = process.pid
	process.returncode = 0
	cell.wait_ready()


def hear(fd, expected):
	"""Exactly `expected` comes, and nothing behind it."""
	heard, end = b"", time.monotonic() + 5 * system.patience
	while len(heard) < len(expected) and time.monotonic() < end:
		if select.select([fd], [], [], 0.1)[0]:
			heard += os.read(fd, 1000)
	if select.select([fd], [], [], 0)[0] and not os.path.isfile(f"/proc/self/fd/{fd}"):
		heard += os.read(fd, 1000)
	if heard != expected:
		raise Failure(f"{heard!r} came, not {expected!r}")


def wait_content(path, expected):
	if not system.wait_until(lambda: system.read_text(path) == expected, 5):
		raise Failure(f"{path} has {system.read_text(path)!r}, not {expected!r}")


def link(fd):
	return os.readlink(f"/proc/self/fd/{fd}")


def file_key(pid, fd):
	text = system.read_text(f"/proc/{pid}/fdinfo/{fd}")
	return "file[%x:%x]" % (int(re.search(r"mnt_id:\s*(\d+)", text)[1]), os.stat(f"/proc/{pid}/fd/{fd}").st_ino)


def tty_key(fd):
	found = os.fstat(fd)
	return "tty[%x:%x]" % (found.st_rdev, found.st_dev)


def inherit(*pairs):
	"""The options, and what is to be open in criu: pairs of a descriptor and a key."""
	options = [word for fd, key in pairs for word in ("--inherit-fd", f"fd[{fd}]:{key}")]
	return {"options": options, "pass_fds": [fd for fd, _ in pairs]}


def of_the_outside(fds):
	return [(fd, fcntl.fcntl(fd, fcntl.F_GETFL), os.fstat(fd).st_ino) for fd in fds]


def restore(cell, restorer, images, *pairs):
	"""What was given for the restore is as it was."""
	before = of_the_outside([fd for fd, _ in pairs])
	run = cell.restore(restorer, images, **inherit(*pairs))
	if of_the_outside([fd for fd, _ in pairs]) != before:
		raise Failure("the descriptors of the outside have changed")
	return run


# ---- pipes ----

def pipes(are_new):
	def course(cell, dumper, restorer):
		with pipe() as old_in, pipe() as old_out, pipe() as new_in, pipe() as new_out:
			start(cell, old_in[0], old_out[1])
			os.write(old_in[1], b"one\n")
			if are_new:
				hear(old_out[0], b"1 one\n")
			elif not system.wait_until(lambda: select.select([old_out[0]], [], [], 0)[0], 5):
				raise Failure("no answer")
			images = cell.new_images()
			log = cell.dump(dumper, images).log
			if not dumper.is_peer and f"--inherit-fd fd[N]:{link(old_in[0])}" not in log:
				raise Failure("the log does not tell of --inherit-fd")
			now_in, now_out = (new_in, new_out) if are_new else (old_in, old_out)
			restore(cell, restorer, images, (now_in[0], link(old_in[0])), (now_out[1], link(old_out[1])))
			if not are_new:
				hear(old_out[0], b"1 one\n")  # what waited in the pipe is there once
			os.write(now_in[1], b"two\n")
			hear(now_out[0], b"2 two\n")
			if link(now_in[0]) != os.readlink(f"/proc/{cell.root}/fd/0"):
				raise Failure("it is another pipe")
			cell.finish()
			# criu has kept no end of it
			os.close(now_out[1])
			hear(now_out[0], b"")
			if not select.select([now_out[0]], [], [], 1)[0] or os.read(now_out[0], 1):
				raise Failure("somebody still has the pipe open")
	return course


def either_end(cell, dumper, restorer):
	"""Any end of the pipe will do, in the spelling of 4.2.1's help, too. What was in the old pipe is not put into it."""
	with pipe() as old_in, pipe() as old_out, pipe() as new_in, pipe() as new_out:
		start(cell, old_in[0], old_out[1])
		os.write(old_in[1], b"one\n")
		if not system.wait_until(lambda: select.select([old_out[0]], [], [], 0)[0], 5):
			raise Failure("no answer")
		images = cell.new_images()
		cell.dump(dumper, images)
		run = restore(cell, restorer, images, (new_in[1], link(old_in[0]).replace(":", "")), (new_out[0], link(old_out[1])))
		told(run.log, f"the 6 bytes that were in {link(old_out[1])} are not put into the pipe")
		os.write(new_in[1], b"two\n")
		hear(new_out[0], b"2 two\n")
		cell.finish()


def standard_files(cell, dumper, restorer):
	"""As engines do it: the pipes are criu's own standard input and output."""
	with pipe() as old_in, pipe() as old_out, pipe() as new_in, pipe() as new_out:
		start(cell, old_in[0], old_out[1])
		os.write(old_in[1], b"one\n")
		hear(old_out[0], b"1 one\n")
		images = cell.new_images()
		cell.dump(dumper, images)
		options = inherit((0, link(old_in[0])), (1, link(old_out[1])))["options"]
		run = subprocess.run([restorer.path, "restore", "-D", images, "-d", "-v4", "-o", "restore.log", *options],
				     stdin=new_in[0], stdout=new_out[1], stderr=subprocess.PIPE, text=True)
		if run.returncode:
			raise Failure(f"exit code {run.returncode}: {run.stderr}")
		cell.exits.pop(cell.root, None)
		cell.note_downtime()
		os.write(new_in[1], b"two\n")
		hear(new_out[0], b"2 two\n")
		cell.finish()


def foreground(cell, dumper, restorer):
	"""criu waits for the processes, and keeps no end of the pipe meanwhile."""
	with pipe() as old_in, pipe() as old_out, pipe() as new_in, pipe() as new_out:
		start(cell, old_in[0], old_out[1])
		images = cell.new_images()
		cell.dump(dumper, images)
		how = inherit((new_in[0], link(old_in[0])), (new_out[1], link(old_out[1])))
		criu = subprocess.Popen([restorer.path, "restore", "-D", images, "-v4", "-o", "restore.log", *how["options"]],
					stdin=subprocess.DEVNULL, pass_fds=how["pass_fds"])
		os.write(new_in[1], b"one\n")
		hear(new_out[0], b"1 one\n")
		ends = {link(new_in[0]), link(new_out[0])}
		# The program may answer before criu has closed its own descriptors.
		system.wait_until(lambda: not ends & system.open_links(criu.pid), 10)
		kept = ends & system.open_links(criu.pid)
		os.kill(cell.root, signal.SIGTERM)
		code = criu.wait(10 * system.patience)
		cell.judge()
		if kept or code:
			raise Failure(f"exit code {code}; criu has kept {kept}")


# ---- files ----

def by_path(form):
	"""Another log: what is written goes to its end, and the old one stays as it was."""
	def course(cell, dumper, restorer):
		old, new = cell.path("old.log"), cell.path("new.log")
		with pipe() as old_in, pipe() as new_in, opened(os.open(old, os.O_WRONLY | os.O_CREAT)) as out, \
				opened(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_APPEND)) as now:
			start(cell, old_in[0], out[0])
			os.write(old_in[1], b"one\n")
			wait_content(old, "1 one\n")
			images = cell.new_images()
			cell.dump(dumper, images)
			os.unlink(old)  # nobody needs it
			os.write(now[0], b"before\n")
			restore(cell, restorer, images, (new_in[0], link(old_in[0])), (now[0], form(old)))
			os.write(new_in[1], b"two\n")
			wait_content(new, "before\n2 two\n")
			cell.finish()
	return course


def by_number(cell, dumper, restorer):
	"""A deleted file: it continues at its position, with its flags, in a copy of the file."""
	path, copy, out = cell.path("in"), cell.path("copy"), cell.path("out")
	with open(path, "w") as file:
		file.write("one\n")
	with opened(os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as old, \
			opened(os.open(out, os.O_RDWR | os.O_CREAT | os.O_APPEND)) as to:
		start(cell, old[0], to[0])
		wait_content(out, "1 one\n")
		key = file_key(cell.root, 0)
		os.unlink(path)
		images = cell.new_images()
		cell.dump(dumper, images, ["--external", key])
		with open(copy, "w") as file:
			file.write("xxx\n")  # of the same length: the peer checks it
		with opened(os.open(copy, os.O_RDONLY)) as new:
			if not restorer.is_peer:
				refused_restore(cell, restorer, images, {}, f"{key} is from outside", f"--inherit-fd fd[N]:{key}")
			restore(cell, restorer, images, (new[0], key))
			with open(copy, "a") as file:
				file.write("two\n")
			wait_content(out, "1 one\n2 two\n")
			cell.finish()


def by_number_without_name(cell, dumper, restorer):
	"""Flags of open() that look at names: the file of O_TMPFILE, and O_NOFOLLOW, also with O_PATH."""
	path = cell.path("in")
	with open(path, "w") as file:
		file.write("one\n")
	with opened(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), os.open(cell.directory, os.O_RDWR | os.O_TMPFILE, 0o600),
		    os.open(path, os.O_PATH | os.O_NOFOLLOW)) as (old, to, at):
		start(cell, old, to, pass_fds=[at])
		if not system.wait_until(lambda: os.pread(to, 100, 0) == b"1 one\n", 5):
			raise Failure("no answer")
		keys = file_key(cell.root, 0), file_key(cell.root, 1)
		os.unlink(path)
		images = cell.new_images()
		cell.dump(dumper, images, ["--external", keys[0], "--external", keys[1]])
		with opened(os.open(f"/proc/self/fd/{old}", os.O_RDWR)) as (new,):
			restore(cell, restorer, images, (new, keys[0]), (to, keys[1]))
			os.pwrite(new, b"two\n", 4)
		if not system.wait_until(lambda: os.pread(to, 100, 0) == b"1 one\n2 two\n", 5):
			raise Failure(f"not two answers: {os.pread(to, 100, 0)}")
		if os.stat(f"/proc/{cell.root}/fd/{at}").st_ino != os.fstat(at).st_ino:
			raise Failure("the descriptor of O_PATH leads elsewhere")
		cell.finish()


# ---- terminals ----

def terminal(cell, dumper, restorer):
	(master, slave), (new_master, new_slave) = os.openpty(), os.openpty()
	with opened(master, slave, new_master, new_slave):
		fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
		start(cell, slave, slave, lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0))
		os.write(master, b"one\n")
		hear(master, b"1 one\r\n")
		images = cell.new_images()
		if not dumper.is_peer:
			refused_dump(cell, dumper, "whose master is outside", f"--shell-job (-j), ", f"or --external {tty_key(slave)}")
		cell.dump(dumper, images, ["--external", tty_key(slave)])
		shown = subprocess.run([cell.ours.path, "show", images], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
		if tty_key(slave) not in shown:
			raise Failure("criu show does not tell the name of the terminal: " + shown)
		if not restorer.is_peer:
			refused_restore(cell, restorer, images, {}, "is from outside", f"--inherit-fd fd[N]:{tty_key(slave)}")
			undone(cell, restorer, images, (new_slave, tty_key(slave)))
		restore(cell, restorer, images, (new_slave, tty_key(slave)))
		os.write(new_master, b"two\n")
		hear(new_master, b"2 two\r\n")
		cell.finish()


def two_become_one(cell, dumper, restorer):
	"""What were two terminals is the same one now. If the restore fails, that is as it was."""
	(master, slave), (other_master, other), (new_master, new) = os.openpty(), os.openpty(), os.openpty()
	with opened(master, slave, other_master, other, new_master, new):
		settings = termios.tcgetattr(slave)
		settings[3] &= ~termios.ECHO
		for fd, rows in ((slave, 33), (other, 34)):
			termios.tcsetattr(fd, termios.TCSANOW, settings)
			fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 111, 0, 0))
		start(cell, slave, other)
		images, keys = cell.new_images(), (tty_key(slave), tty_key(other))
		cell.dump(dumper, images, ["--external", keys[0], "--external", keys[1]])
		pairs = [(new, key) for key in keys]
		undone(cell, restorer, images, *pairs)
		restore(cell, restorer, images, *pairs)
		os.write(new_master, b"one\n")
		hear(new_master, b"1 one\r\n")
		cell.finish()


def undone(cell, restorer, images, *pairs):
	"""A restore that fails in its last but one step leaves the terminal as it was."""
	slave = pairs[0][0]
	script = cell.path("script")
	with open(script, "w") as file:
		file.write('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != pre-resume ]\n')
	os.chmod(script, 0o755)
	def state():
		return termios.tcgetattr(slave), fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8))
	before, how = state(), inherit(*pairs)
	how["options"] += ["--action-script", script]
	refused_restore(cell, restorer, images, how, "pre-resume")
	if state() != before:
		raise Failure(f"the terminal has changed: {before}, now {state()}")


# ---- what is refused, and what is warned of ----

def refused_dump(cell, dumper, *words, options=()):
	images = cell.new_images(f"refused-{time.monotonic_ns()}")
	run = dumper.dump(cell.root, images, options)
	if not run.failed or any(word not in run.printed for word in words):
		raise Failure(f"{options}: exit code {run.code}, not {words}: {run.printed}")
	cell.check_running()


def refused_restore(cell, restorer, images, how, *words):
	run = restorer.restore(images, **how)
	if not run.failed or any(word not in run.printed for word in words) or system.descendants(os.getpid()):
		raise Failure(f"{how}: exit code {run.code}, not {words}: {run.printed}")


def refusals(cell, dumper, restorer):
	with pipe() as old_in, pipe() as new_in, opened(os.open(cell.path("old"), os.O_WRONLY | os.O_CREAT)) as out:
		start(cell, old_in[0], out[0])
		for resource, words in {
			"unix[x]": "--external unix[x]: 'unix[x]' is not the name",
			"mnt[/a]:b": "--external mnt[/a]:b: a resource of type mnt is not supported yet",
			"net[12]:x": "--external net[12]:x: a resource of type net is not supported yet",
			"pipe:[12]": "--external pipe:[12]: 'pipe:[12]' is not the name of a resource",
			"file[x:1]": "--external file[x:1]: 'file[x:1]' is not the name",
		}.items():
			refused_dump(cell, dumper, words, options=["--external", resource])
		images = cell.new_images()
		cell.dump(dumper, images)
		key, path, nothing = link(old_in[0]), cell.path("old"), os.open("/dev/null", os.O_RDWR)
		for pairs, words in (
			([(key, out[0])], f"--inherit-fd fd[{out[0]}]:{key}: descriptor {out[0]} is not a pipe"),
			([(path, new_in[1])], f"--inherit-fd fd[{new_in[1]}]:{path}: descriptor {new_in[1]} is not a regular file"),
			([(path, nothing)], "is not a regular file"),
			([(key, new_in[0]), (key, new_in[1])],
			 f"--inherit-fd fd[{new_in[1]}]:{key}: this resource was already given by fd[{new_in[0]}]:{key}"),
			([("/memfd:a", nothing)], "a memfd is not supported yet"),
		):
			refused_restore(cell, restorer, images, inherit(*[(fd, key) for key, fd in pairs]), words)
		with opened(os.open(path, os.O_RDONLY)) as reader:
			refused_restore(cell, restorer, images, inherit((reader[0], path)),
					f"descriptor {reader[0]} is not open for writing")
		twice = inherit((new_in[1], key))
		twice["options"] += ["--status-fd", str(new_in[1])]
		refused_restore(cell, restorer, images, twice,
				f"--status-fd {new_in[1]}: --inherit-fd gives this descriptor to the processes")
		os.close(nothing)
		closed = {"options": ["--inherit-fd", f"fd[{nothing}]:{key}"]}
		refused_restore(cell, restorer, images, closed, f"--inherit-fd fd[{nothing}]:{key}: descriptor {nothing} is not open")
		cell.restore(restorer, images)
		cell.finish()


def warnings(cell, dumper, restorer):
	"""One for each entry that nobody has used, with what could have been meant."""
	with pipe() as old_in, opened(os.open(cell.path("old"), os.O_WRONLY | os.O_CREAT)) as out:
		start(cell, old_in[0], out[0])
		key, number = file_key(cell.root, 1), int(link(old_in[0])[6:-1])
		images = cell.new_images()
		log = cell.dump(dumper, images, ["--external", key[:-1] + "0]", "--external", "tty[1:2]"]).log
		told(log, f"--external {key[:-1]}0]: no process has such a file open; the nearest are {key}")
		told(log, "--external tty[1:2]: no process has such a file open")
		pairs = [(out[0], cell.path("odd")), (old_in[0], f"pipe:[{number}0]")]
		how = inherit(*pairs)
		how["options"] += ["--external", "tty[1:2]"]
		log = cell.restore(restorer, images, **how).log
		told(log, f":{cell.path('odd')}: no process has such a file open; the nearest are {cell.path('old')}")
		told(log, f":pipe:[{number}0]: no process has such a file open; the nearest are pipe:[{number}]")
		told(log, "--external tty[1:2] has no meaning for a restore, which uses --inherit-fd fd[N]:tty[1:2]")
		cell.finish()


def told(log, words):
	lines = [line for line in log.splitlines() if "Warn" in line and words in line]
	if len(lines) != 1:
		raise Failure(f"not once in the log: {words}\n" + "\n".join(line for line in log.splitlines() if "Warn" in line))


BOTH_WAYS = ("ours", "ours-to-peer", "peer-to-ours", "peer")


def row(name, run, kind, modes=BOTH_WAYS, **more):
	return Row(f"external-{name}", "external", arguments=(kind,), run=run, modes=modes, **more)


ROWS = [
	row("pipe", pipes(True), "flags"),
	row("pipe-kept", pipes(False), "flags"),
	row("pipe-either-end", either_end, "flags", ("ours",)),
	row("pipe-standard-files", standard_files, "flags"),
	row("pipe-foreground", foreground, "flags", ("ours",)),
	row("path", by_path(lambda path: path.lstrip("/")), "any"),
	row("path-absolute", by_path(lambda path: path), "any", ("ours", "peer-to-ours")),
	row("file", by_number, "flags"),
	row("file-without-name", by_number_without_name, "any", ("ours",)),
	row("terminal", with_own_terminals(terminal), "terminal"),
	row("terminals-become-one", with_own_terminals(two_become_one), "any", ("ours",)),
	row("refusals", refusals, "any", ("ours",)),
	row("warnings", warnings, "any", ("ours",)),
]
