"""real_terminals.py - real programs that use terminals: a shell with jobs, editors, pagers. Each is dumped while it answers."""

import os
import random
import re
import select
import shutil
import subprocess
import sys
import time

from harness import system
from harness.cell import Failure
from harness.row import Row

from .externals import link, pipe, restore
from .terminals import Terminal, log_of, restore_on, with_own_terminals

ROUNDS = 10


def hear_words(fd, words, seconds=20):
	"""Reads until the words have come, however they are decorated."""
	heard, end = b"", time.monotonic() + seconds * system.patience
	while not re.search(words, heard):
		if time.monotonic() > end:
			raise Failure(f"{words!r} does not come, but {heard[-500:]!r}")
		if select.select([fd], [], [], 0.1)[0]:
			got = os.read(fd, 65536)
			if not got:
				raise Failure(f"the end comes, not {words!r}, but {heard[-500:]!r}")
			heard += got


class Program:
	"""A command, what it says at first, and a conversation: what is typed in round N, and what must come (perhaps several times)."""

	def __init__(self, command, first, talk, end):
		self.command, self.first, self.talk, self.end = command, first, talk, end


PROGRAMS = {
	"bash": Program("bash --norc --noprofile -i", rb"[$#] ", lambda n: (b"echo a$((%d+1))b\r" % n, rb"a%db" % (n + 1)), b"exit\r"),
	"bash-jobs": Program("bash --norc --noprofile -i", rb"[$#] ",
			     lambda n: (b"sleep 1000 & (echo begun; exec cat)\r", rb"begun\r\n", b"\x03", rb"[$#] ",
					b"echo got:$?:$(jobs -r | wc -l)\r", rb"got:130:%d" % (n + 1)),
			     b"kill $(jobs -p); exit\r"),
	"vim": Program("vim -u NONE -i NONE -n -N text", rb"~", lambda n: (b"Goline %d\x1b:w|echo 'w' . 'r:%d'\r" % (n, n), rb"wr:%d" % n), b":q!\r"),
	"less": Program("less numbers", rb"1", lambda n: (b"%dg" % (1000 * n + 1000), rb"number %d\b" % (1000 * n + 1000)), b"q"),
	"python": Program(f"{sys.executable} -q", rb">>> ", lambda n: (b"print('is', %d * 2)\r" % n, rb"is %d" % (2 * n)), b"exit()\r"),
}


def begin(cell, program, stdin, stdout):
	with open(cell.path("numbers"), "w") as file:
		file.writelines(f"number {n}\n" for n in range(1, 20001))
	# The size is set before the program starts, which asks for it.
	command = ["script", "-qefc", f"stty rows 24 cols 80; exec {program.command}", "/dev/null"]
	process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=True, cwd=cell.directory,
				   env={**os.environ, "TERM": "xterm", "PS1": "$ ", "LESS": "", "PYTHON_HISTORY": "/dev/null"})
	cell.root = process.pid
	process.returncode = 0


def in_script(name):
	"""The terminal is in the tree: script(1) has its master. The harness has the pipes."""
	program = PROGRAMS[name]

	def run(cell, dumper, restorer):
		if not shutil.which(program.command.split()[0]):
			raise Failure(f"{program.command} is not installed")
		chance = random.Random(f"{cell.settings.seed} {cell.row.name}")
		with pipe() as (stdin, to), pipe() as (source, stdout):
			begin(cell, program, stdin, stdout)
			hear_words(source, program.first)
			for number in range(ROUNDS):
				keys, words, *more = program.talk(number)
				os.write(to, keys)
				time.sleep(chance.choice((0, 0.001, 0.01, 0.1)))  # any moment will do
				images = cell.new_images(f"images{number}")
				cell.dump(dumper, images)
				restore(cell, restorer, images, (stdin, link(stdin)), (stdout, link(stdout)))
				hear_words(source, words)
				for keys, words in zip(more[::2], more[1::2]):
					os.write(to, keys)
					hear_words(source, words)
			os.write(to, program.end)
			cell.wait_end(20)
	return run


def wait_cat(terminal):
	"""Until cat runs in the foreground, so what is typed goes to it."""
	def is_there():
		try:
			return system.read_text(f"/proc/{os.tcgetpgrp(terminal.master)}/comm") == "cat\n"
		except FileNotFoundError:
			return False
	if not system.wait_until(is_there, 10):
		raise Failure("cat does not run")


def interactive(cell, dumper, restorer):
	"""An interactive shell on somebody else's terminal: job control works right after the restore, on another terminal."""
	terminals = [Terminal(cell, 33, 111) for _ in range(3)]
	try:
		terminals[0].run("job", ["/bin/bash", "--norc", "--noprofile", "-i"], True)
		cell.root = terminals[0].number("job")
		os.write(terminals[0].master, b"PS1='> '; sleep 1000 &\n")
		hear_words(terminals[0].master, rb"\[1\] \d+")
		for number in range(2):
			here, there = terminals[number:number + 2]
			os.write(here.master, b"cat\n")
			wait_cat(here)
			images = cell.new_images(f"images{number}")
			cell.dump(dumper, images, ["-j"])
			there.leader = 0
			if restore_on(there, restorer, images, "-j") != 0:
				raise Failure("not restored: " + log_of(images))
			os.unlink(cell.path("restore"))
			os.unlink(cell.path("restore.code"))
			cell.exits.pop(cell.root, None)
			os.write(there.master, b"x%dy\n" % number)
			hear_words(there.master, rb"x%dy\r\n.*x%dy" % (number, number))  # the echo, and cat
			os.write(there.master, b"\x03")
			hear_words(there.master, rb"> ")
			os.write(there.master, b"echo $?:$(jobs -r | wc -l)\n")
			hear_words(there.master, rb"130:1\r\n")
			os.write(there.master, b"cat\n")
			wait_cat(there)
			os.write(there.master, b"\x1a")
			hear_words(there.master, rb"Stopped")
			os.write(there.master, b"fg\n")
			wait_cat(there)
			os.write(there.master, b"z%d\n" % number)
			hear_words(there.master, rb"z%d\r\n.*z%d" % (number, number))
			os.write(there.master, b"\x03")
			hear_words(there.master, rb"> ")
		os.write(there.master, b"kill %1; exit\n")
		hear_words(there.master, rb"exit")
		if not system.wait_until(lambda: not os.path.exists(f"/proc/{cell.root}/exe"), 10):
			raise Failure("the shell does not end")
		cell.reap()
	finally:
		for terminal in terminals:
			terminal.close()


ROWS = [
	*[Row(f"real-terminal-{name}", run=with_own_terminals(in_script(name)), modes=("ours",), timeout=300) for name in PROGRAMS],
	Row("real-terminal-job", run=with_own_terminals(interactive), modes=("ours",), timeout=120),
]
