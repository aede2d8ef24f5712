"""criu.py - runs a criu (ours or the peer) and returns what it did.

A Criu is a path and whether it is the peer. A Run keeps the exit code, the time it took, what was printed and the log;
`error` is what a user would read: stderr, and the lines of the log that report an error.
"""

import os
import subprocess
import tempfile
import time

from . import system


class Run:
	def __init__(self, command, code, seconds, printed, log_path):
		self.command, self.code, self.seconds, self.printed = command, code, seconds, printed
		self.log_path = log_path
		self.log = system.read_tail(log_path)

	@property
	def failed(self):
		return self.code != 0

	@property
	def error(self):
		lines = [line for line in self.log.splitlines() if "rror" in line or line.startswith("criu:")]
		return "\n".join([self.printed.strip()] + lines[-12:]).strip()

	def describe(self):
		how = f"exit code {self.code}" if self.code >= 0 else f"signal {-self.code}"
		return f"{' '.join(self.command)}: {how}, {self.seconds:.2f} s\n{self.error}"


class Criu:
	def __init__(self, path, peer_path):
		self.path = os.path.abspath(path)
		self.is_peer = os.path.realpath(path) == os.path.realpath(peer_path)

	def __str__(self):
		return "the peer" if self.is_peer else "ours"

	def run(self, action, images, options=(), timeout=30, environment=None, log="criu.log", pass_fds=(), inside=()):
		"""`inside`: a command that runs criu, such as strace."""
		command = [*inside, self.path, action, "-D", images, "-o", log, "-v4", *map(str, options)]
		with open(os.devnull) as nothing, tempfile.TemporaryFile() as output:
			started = time.monotonic()
			process = subprocess.Popen(command, stdin=nothing, stdout=output, stderr=subprocess.STDOUT,
						   cwd="/", env={**os.environ, **(environment or {})}, pass_fds=pass_fds)
			note = ""
			try:
				code = process.wait(timeout * system.patience)
			except subprocess.TimeoutExpired:
				process.kill()
				code = process.wait() or -9
				note = f"\n(killed by the harness: it did not end within {timeout * system.patience:g} s)"
			seconds = time.monotonic() - started
			output.seek(0)
			printed = output.read().decode("utf-8", "replace") + note
		return Run(command, code, seconds, printed, os.path.join(images, log))

	def dump(self, pid, images, options=(), **how):
		return self.run("dump", images, ["-t", pid, *options], log="dump.log", **how)

	def pre_dump(self, pid, images, options=(), **how):
		return self.run("pre-dump", images, ["-t", pid, *options], log="pre-dump.log", **how)

	def restore(self, images, options=(), **how):
		return self.run("restore", images, ["-d", *options], log="restore.log", **how)
