"""shared.py - what the benchmarks have in common. They put test/live into sys.path before they import it."""

import os
import subprocess
import sys

from harness import chains, system

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def wait_gone(pid, seconds=30, interval=0.001):
	def gone():
		system.reap()
		return not os.path.exists(f"/proc/{pid}")
	if not system.wait_until(gone, seconds, interval):
		sys.exit(f"bench: process {pid} is still there")


def frozen_seconds(images):
	"""stats_entry.dump (1) . frozen_time (2), in microseconds."""
	stats, = chains.records(chains.read(images, "stats-dump"))
	return chains.field(chains.field(stats, 1), 2) / 1e6


def machine():
	cpu = [line.partition(":")[2].strip() for line in system.read_text("/proc/cpuinfo").splitlines() if line.startswith("model name")]
	memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
	return f"{len(cpu)} × {cpu[0] if cpu else 'unknown CPU'}, {memory:.0f} GiB, Linux {os.uname().release}"


def build(name, *sources):
	"""Compiles a program of the benchmarks, of NAME.c if no sources are given, unless it is newer than they are. Returns its path."""
	program = os.path.join(ROOT, "build", "bench", name)
	paths = [os.path.join(ROOT, "bench", source) for source in sources or (name + ".c",)]
	os.makedirs(os.path.dirname(program), exist_ok=True)
	if not os.path.exists(program) or os.path.getmtime(program) < max(map(os.path.getmtime, paths)):
		subprocess.run([os.environ.get("CC", "cc"), "-O2", "-Wall", "-pthread", "-o", program, *paths], check=True)
	return program
