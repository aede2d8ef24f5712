"""shared.py - what the benchmarks have in common. They put test/live into sys.path before they import it."""

import os
import signal
import subprocess
from collections import namedtuple

from harness import chains, system

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILT = os.path.join(ROOT, "build", "bench")

Usage = namedtuple("Usage", "cpu seconds mib")


class Failure(SystemExit):
	"""Ends the benchmark with this message, unless it is caught."""


def criu(binary, action, images, *options):
	"""Runs a command of criu. Its log is ACTION.log beside the images."""
	log = action + ".log"
	command = [binary, action, "-D", images, "-o", log, *options]
	done = subprocess.run([os.path.join(BUILT, "measure"), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
			      stderr=subprocess.STDOUT, text=True, check=True)
	*said, usage = done.stdout.splitlines()
	cpu, seconds, kib, status = usage.split()[-4:]
	if status != "0":
		said = system.read_tail(os.path.join(images, log)) or "\n".join(said)
		raise Failure(f"bench: {' '.join(command)}: wait status {status}\n{said[-2000:]}")
	return Usage(float(cpu), float(seconds), int(kib) / 1024)


def version(binary):
	output = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True).stdout
	return output.splitlines()[0].removeprefix("Version: ") if output else "?"


def start(*command, directory=None):
	"""Starts a process in a session of its own, and returns its pid. wait_gone() collects it when it has ended."""
	process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
				   start_new_session=True, cwd=directory)
	process.returncode = 0  # Popen does not wait for it: criu will end it, and restore it
	return process.pid


def wait_gone(pid, seconds=30, interval=0.001):
	def gone():
		system.reap()
		return not os.path.exists(f"/proc/{pid}")
	if not system.wait_until(gone, seconds, interval):
		raise Failure(f"bench: process {pid} is still there")


def kill(pids):
	for pid in pids:
		try:
			os.kill(pid, signal.SIGKILL)
		except ProcessLookupError:
			pass


def frozen_seconds(images):
	"""stats_entry.dump (1) . frozen_time (2), in microseconds."""
	stats, = chains.records(chains.read(images, "stats-dump"))
	return chains.field(chains.field(stats, 1), 2) / 1e6


def stop(root):
	"""Kills the root of a tree and all its descendants."""
	kill([*system.descendants(root), root])
	wait_gone(root, 60, 0.005)


def machine():
	cpu = [line.partition(":")[2].strip() for line in system.read_text("/proc/cpuinfo").splitlines() if line.startswith("model name")]
	memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
	return f"{len(cpu)} × {cpu[0] if cpu else 'unknown CPU'}, {memory:.0f} GiB, Linux {os.uname().release}"


def build(name, *sources):
	"""Compiles a program of the benchmarks, of NAME.c if no sources are given, unless it is newer than they are. Returns its path."""
	program = os.path.join(BUILT, name)
	paths = [os.path.join(ROOT, "bench", source) for source in sources or (name + ".c",)]
	os.makedirs(BUILT, exist_ok=True)
	if not os.path.exists(program) or os.path.getmtime(program) < max(map(os.path.getmtime, paths)):
		subprocess.run([os.environ.get("CC", "cc"), "-O2", "-Wall", "-pthread", "-o", program, *paths], check=True)
	return program
