"""writer.py - a process with memory that it writes on request (bench/writer.c): starts it, measures one round with it, and takes
a chain of its snapshots."""

import os
import signal
import tempfile
import time

import shared
from harness import system


def build():
	shared.build("measure")
	shared.build("writer")


class Writer:
	"""A process with memory in pages of 4 KiB. It writes PERCENT of them when it is told to."""

	def __init__(self, directory, mib, percent=1):
		self.file, self.writes = os.path.join(directory, f"writes-{time.monotonic_ns()}"), 0
		self.pid = shared.start(os.path.join(shared.BUILT, "writer"), self.file, str(mib), str(percent))
		self.wait()

	def wait(self):
		self.writes += 1
		def has_written():
			return os.path.exists(self.file) and os.path.getsize(self.file) >= self.writes
		if not system.wait_until(has_written, 300, 0.002):
			raise shared.Failure("bench: the process did not write in time")

	def write(self):
		os.kill(self.pid, signal.SIGUSR1)
		self.wait()

	def end(self):
		os.kill(self.pid, signal.SIGKILL)
		shared.wait_gone(self.pid)


def dump(criu, writer, images, *options):
	"""Returns the seconds of the whole command, and of the freeze."""
	seconds = shared.criu(criu, "dump", images, "-t", str(writer.pid), *options).seconds
	return seconds, shared.frozen_seconds(images)


def sync(images):
	"""Returns its seconds."""
	began = time.monotonic()
	for path in [*(os.path.join(images, name) for name in os.listdir(images)), images]:
		fd = os.open(path, os.O_RDONLY)
		os.fsync(fd)
		os.close(fd)
	return time.monotonic() - began


def read_file(path):
	"""Brings it into the page cache."""
	with open(path, "rb") as file:
		while file.read(1 << 20):
			pass


def read_all(images):
	for entry in os.scandir(images):
		if entry.is_file():
			read_file(entry.path)


def to_disk(criu, writer, directory):
	"""{what: seconds} of a dump on a disk, and of its restore. The disk is written only once, because it may become slower when
	much is written."""
	os.sync()
	with tempfile.TemporaryDirectory(dir=directory) as images:
		on_disk = dump(criu, writer, images)[0] + sync(images)
		shared.wait_gone(writer.pid)
		read_all(images)
		return {"on disk": on_disk, "restore": shared.criu(criu, "restore", images, "-d").seconds}


def to_memory(criu, writer, directory, *options):
	"""{what: seconds} of a dump to a tmpfs that lets the process run on."""
	with tempfile.TemporaryDirectory(dir=directory) as images:
		return dict(zip(("tmpfs", "frozen"), dump(criu, writer, images, "-R", *options)))


def one_round(criu, writer, slow, fast):
	return to_disk(criu, writer, slow) | to_memory(criu, writer, fast)


class Chain:
	"""A process, of which one snapshot after the other is taken."""

	def __init__(self, directory, criu, tracker, mib, percent):
		self.directory, self.criu, self.tracker = directory, criu, tracker
		os.mkdir(directory)
		self.sizes = []  # of the writer's file, at each snapshot
		self.writer = Writer(directory, mib, percent)

	def images(self, number):
		return os.path.join(self.directory, str(number))

	def snapshot(self):
		"""Returns seconds frozen, seconds in total, MiB of criu, bytes of images."""
		number = len(self.sizes)
		self.sizes.append(self.writer.writes)
		images = self.images(number)
		os.mkdir(images)
		parent = ["--prev-images-dir", f"../{number - 1}"] if number else []
		track = f"--track-mem={self.tracker}" if self.tracker else "--track-mem"
		used = shared.criu(self.criu, "dump", images, "-R", track, "-t", str(self.writer.pid), *parent)
		size = sum(os.path.getsize(os.path.join(images, name)) for name in os.listdir(images) if name.endswith(".img"))
		return shared.frozen_seconds(images), used.seconds, used.mib, size

	def restore(self, number):
		"""Restores a snapshot in place of the process, from images in the page cache, and returns the seconds. criu restores a
		file only if it has the size that it had then."""
		self.writer.end()
		os.truncate(self.writer.file, self.sizes[number])
		for snapshot in range(number + 1):
			read_all(self.images(snapshot))
		return shared.criu(self.criu, "restore", self.images(number), "-d").seconds

	def end(self):
		self.writer.end()
