"""crowd.py - a tree with many threads, processes, files or mappings (bench/crowd.c): starts it, and measures one round with it."""

import os
import re
import tempfile
import time

import shared
from harness import system


def build():
	shared.build("measure")
	shared.build("crowd", "crowd.c", "crowd_files.c")


def begin(directory, kind, count):
	directory = tempfile.mkdtemp(prefix="program.", dir=directory)
	ready = os.path.join(directory, "ready")
	pid = shared.start(os.path.join(shared.BUILT, "crowd"), ready, kind, str(count), directory=directory)
	if not system.wait_until(lambda: os.path.exists(ready) and os.path.getsize(ready) == 1, 120):
		raise shared.Failure(f"bench: {count} {kind} did not become ready")
	return pid


def cpu_of_tree(pid):
	"""CPU time of all threads, in seconds."""
	return sum(int(system.read_text(f"/proc/{process}/task/{thread}/schedstat").split()[0]) / 1e9
		   for process in system.tree(pid) for thread in system.threads(process))


def step_times(images):
	"""{step: seconds} of a dump and a restore, from their logs."""
	return {f"{name}: {step}": float(time) / 1000 for name in ("dump", "restore")
		for step, time in re.findall(r"\) (.*): done, ([0-9.]+) ms", system.read_text(os.path.join(images, name + ".log")))}


def new_images(directory):
	"""A new directory, which stays until the end. ext4 does not reuse the inode of a deleted file for up to 300 seconds, and
	looks at all of these inodes for each new file (measured: 1,800 new files in 35 ms, but in 370 ms after 5,400 deletions)."""
	return tempfile.mkdtemp(prefix="images.", dir=directory)


def one_round(criu, pid, directory, steps=False):
	"""{what: seconds}, of a dump that lets the tree run on, of a dump that ends it, and of its restore."""
	images = new_images(directory)
	common = ["-v3" if steps else "-v1", "--file-locks"]
	began = time.monotonic()
	running = shared.criu(criu, "dump", images, "-R", "-t", str(pid), *common)
	os.sync()  # writes what the peer leaves in the page cache; ours syncs its images itself
	synced = time.monotonic() - began
	paused = shared.frozen_seconds(images)
	images = new_images(directory)
	dump = shared.criu(criu, "dump", images, "-t", str(pid), *common)
	shared.wait_gone(pid, 60, 0.005)
	frozen = shared.frozen_seconds(images)
	restore = shared.criu(criu, "restore", images, "-d", *common)
	return {"frozen by -R": paused, "dump -R and sync": synced, "dump -R: CPU": running.cpu, "dump": dump.seconds, "frozen": frozen,
		"dump: CPU": dump.cpu, "restore": restore.seconds, "restore: CPU": restore.cpu + cpu_of_tree(pid),
		**(step_times(images) if steps else {})}
