"""huge.py - memory in huge pages, and memory as a file (memfd_create). All tests share the machine's pools of huge pages."""

import contextlib
import fcntl
import os
import re

from harness.cell import Failure, Skip
from harness.row import Row

from . import bad_input, memory

POOLS = "/sys/kernel/mm/hugepages"


def number(name):
	with open(name) as file:
		return int(file.read())


def resize(name, value):
	with open(name, "w") as file:
		file.write(str(value))


@contextlib.contextmanager
def pool(pages, kilobytes=2048):
	"""Adds huge pages to the pool for as long as the test runs. Only one test at a time does so."""
	name = f"{POOLS}/hugepages-{kilobytes}kB/nr_hugepages"
	if not os.path.exists(name):
		raise Skip(f"this host has no huge pages of {kilobytes} KiB")
	lock = os.open(POOLS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
	fcntl.flock(lock, fcntl.LOCK_EX)
	before = number(name)
	try:
		resize(name, before + pages)
		if number(name) < before + pages:
			raise Skip(f"this host cannot make {pages} huge pages of {kilobytes} KiB")
		yield
	finally:
		resize(name, before)
		os.close(lock)


def pooled(pages, kilobytes=2048):
	"""Runs the function of the mode with huge pages in the pool."""
	def run(cell, dumper, restorer):
		with pool(pages, kilobytes):
			cell.mode.run(cell, dumper, restorer)
	return run


def fixed_addresses(cell, dumper, restorer):
	"""Huge pages at addresses of criu's own memory are filled elsewhere first, and are moved later."""
	with pool(8):
		memory.fixed_addresses(cell, dumper, restorer)


def none_left(cell, dumper, restorer):
	"""Without free huge pages the restore says how many it needs and creates nothing; with them it succeeds."""
	with pool(8):
		cell.start()
		images = cell.new_images()
		cell.dump(dumper, images)
		with pool_taken():
			run = restorer.restore(images)
			cell.reap()
			if not run.failed:
				raise Failure("the restore succeeded without huge pages")
			if not re.search(r"need \d+ huge pages of 2048 KiB, but only \d+ are free", run.error):
				raise Failure(f"the error does not say what is missing: {run.describe()}")
			if "create the processes" in run.error or os.path.exists(f"/proc/{cell.root}"):
				raise Failure("processes were created")
		cell.restore(restorer, images)
		cell.pause()
		cell.finish()


@contextlib.contextmanager
def pool_taken():
	name = f"{POOLS}/hugepages-2048kB/nr_hugepages"
	before = number(name)
	resize(name, 0)
	try:
		yield
	finally:
		resize(name, before)


ALL_OF_IT = "it needs huge pages for the whole mapping, although only a few are there"
HEAP_OF_CRIU = "555555600000"  # without address randomization; the programs of tests are too small to reach it
FAR_AWAY = "10000000000"
MODES = ("ours", "ours-to-peer", "peer-to-ours", "leave-running", "leave-stopped", "five-times", "chain", "chain-content",
	 "peer", "undisturbed")


def tlb(what, pages, **more):
	return Row(f"huge-tlb-{what}", "huge_tlb", arguments=(what,), run=pooled(pages), modes=MODES, **more)


def memfd(what, **more):
	return Row(f"memfd-{what}", "memfd", arguments=(what,), **more)


ROWS = [
	tlb("private", 8),
	tlb("shared", 8),
	tlb("unreserved", 8, peer_fails={"dump": ALL_OF_IT, "restore": ALL_OF_IT}),
	tlb("forked", 12),
	tlb("protected", 8),
	*[Row(f"huge-tlb-{what}-fixed-addresses", "huge_tlb", arguments=(what, "2048", HEAP_OF_CRIU), run=fixed_addresses, modes=("ours",))
	  for what in ("private", "shared", "unreserved")],
	Row("huge-tlb-1g", "huge_tlb", arguments=("unreserved", str(1 << 20), FAR_AWAY), run=pooled(2, 1 << 20), modes=("ours",)),
	Row("huge-tlb-none-left", "huge_tlb", arguments=("private",), run=none_left, modes=("ours",)),
	Row("huge-memfd", "memfd", arguments=("huge",), run=pooled(12), modes=MODES),
	Row("huge-memfd-sparse", "memfd", arguments=("huge_sparse",), run=pooled(8), modes=MODES,
	    peer_fails={"dump": ALL_OF_IT, "restore": ALL_OF_IT}),
	Row("huge-memfd-none-left", "memfd", arguments=("huge",), run=none_left, modes=("ours",)),
	memfd("files", unprivileged=True),
	memfd("path", unprivileged=True, peer_fails={"restore": "it has no place for O_PATH, nor for the name"}),
	memfd("mapped"),
	memfd("shared"),
	memfd("sealed"),
	memfd("future"),
	memfd("noexec", unprivileged=True),
	memfd("executed", peer_fails={"restore": "it runs programs from files only"}),
	memfd("nameless", peer_fails={"restore": "it makes a memfd of it"}),
	memfd("owner"),
	*[Row("mapped-as-file-" + kind, "mapped_as_file", arguments=(kind,)) for kind in ("both", "protected", "rest", "child", "named")],
	Row("mapped-as-file-huge", "mapped_as_file", arguments=("huge",), run=pooled(8), modes=MODES),
	Row("memfd-truncated", "memfd", arguments=("mapped",), run=bad_input.images_truncated, modes=("ours",), timeout=120),
]
