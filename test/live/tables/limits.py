"""limits.py - processes that are at a limit, so that a dump or a restore cannot get what it needs beyond that.

If a dump accepts such a process, it must be restorable. If it refuses it, the error gives numbers, and the process runs on.
"""

import functools
import os
import re
import time

from harness import system
from harness.cell import NOBODY, Failure
from harness.row import Row
from tables.hard import wrapped

LIMIT = 1024  # open files, for the programs and for criu


def expect(cell, run, words):
	if not run.failed or not re.search(words, run.error):
		raise Failure(f"not refused with words like {words!r}: {run.describe()}")


def start_again(cell):
	cell.start()


def refused(cell, dumper, _restorer, words, user=None):
	"""The dump needs something that it cannot get: it is refused, and the process runs on."""
	cell.user = user
	start_again(cell)
	expect(cell, dumper.dump(cell.root, cell.new_images()), words)
	cell.check_running()
	cell.finish()


# Descriptors

def may_raise():
	"""Has criu CAP_SYS_RESOURCE? Then it can raise every limit."""
	return int(system.status(os.getpid())["CapEff"], 16) >> 24 & 1


def limited(cell, criu, name, limit):
	return wrapped(cell, criu, name, f'#!/bin/sh\nulimit -n {limit}\nexec {{criu}} "$@"\n')


def start_full(cell, kind, spare):
	for name in ("ready", "verdict"):
		if os.path.exists(cell.path(name)):
			os.unlink(cell.path(name))
	cell.exits.clear()
	cell.start([cell.program(), cell.directory, kind, str(LIMIT), str(spare)])
	def is_full():
		return kind == "mapped" or len(os.listdir(f"/proc/{cell.root}/fd")) == LIMIT - spare
	if not system.wait_until(is_full, 10):
		raise Failure("the program did not fill its descriptor table")


def dump_full(cell, criu, kind, spare):
	"""Dumps the program with `spare` free descriptors. Returns the images, or None if the dump was refused."""
	start_full(cell, kind, spare)
	images = cell.new_images(f"images{spare}")
	cell.away_since = time.monotonic()
	run = criu.dump(cell.root, images)
	if run.failed:
		expect(cell, run, rf"descriptors.* may have only {LIMIT}")
		cell.check_running()
		cell.finish()
		return None
	cell.wait_gone([cell.root])
	return images


def full_table(cell, dumper, restorer, kind, most_spare):
	"""criu may have as many descriptors as the process. With too few free ones a dump is refused; from some number on all succeed."""
	dumper, restorer = limited(cell, dumper, "dumper", LIMIT), limited(cell, restorer, "restorer", LIMIT)
	accepted = []
	for spare in sorted({0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, most_spare}):
		if spare > most_spare:
			break
		images = dump_full(cell, dumper, kind, spare)
		if images:
			cell.restore(restorer, images)
			cell.finish()
		if accepted and not images:
			raise Failure(f"dumped with {accepted[0]} spare descriptors, but refused with {spare}")
		accepted += [spare] if images else []
	if not accepted:
		raise Failure(f"refused even with {most_spare} spare descriptors")
	if accepted[0] == 0 and not may_raise() and kind != "mapped":
		raise Failure("a full table was dumped: is it full?")


def images_from_elsewhere(cell, dumper, restorer):
	"""The dump was made with a higher limit: the restore is refused before any process exists."""
	start_full(cell, "files", 0)
	images = cell.new_images()
	cell.away_since = time.monotonic()
	run = limited(cell, dumper, "dumper", 2 * LIMIT).dump(cell.root, images)
	if run.failed:
		raise Failure(f"the dump should have succeeded: {run.describe()}")
	cell.wait_gone([cell.root])
	if not may_raise():
		run = limited(cell, restorer, "restorer", LIMIT).restore(images)
		expect(cell, run, rf"a restore needs 10\d\d file descriptors.* may have only {LIMIT}")
		if "create" in run.log or "is born" in run.log:
			raise Failure("a process was created before the descriptors were counted")
	cell.restore(limited(cell, restorer, "other", 2 * LIMIT), images)
	cell.finish()


def left_running(cell, dumper, _restorer):
	"""With -R nothing can be lost: instead of a refusal there is a warning."""
	start_full(cell, "files", 0)
	run = limited(cell, dumper, "dumper", LIMIT).dump(cell.root, cell.new_images(), ["-R"])
	if run.failed or (not may_raise() and not re.search(r"Warn.*a restore needs 10\d\d file descriptors", run.log)):
		raise Failure(f"the dump failed, or did not warn: {run.describe()}")
	cell.check_running()
	cell.finish()


def many_holders(cell, dumper, restorer):
	"""What criu opens in advance, to look at many files, is not what it needs for the processes themselves."""
	limit = int(cell.row.arguments[0])
	cell.start()
	images = cell.new_images()
	cell.dump(limited(cell, dumper, "dumper", limit), images)
	cell.restore(limited(cell, restorer, "restorer", limit), images)
	cell.finish()


def many_memfds(cell, dumper, _restorer):
	"""Nor what it needs for each of some files. A restore would need more, so the process stays."""
	cell.start()
	run = limited(cell, dumper, "dumper", int(cell.row.arguments[0])).dump(cell.root, cell.new_images(), ["-R"])
	if run.failed:
		raise Failure(f"the dump failed: {run.describe()}")
	cell.check_running()
	cell.finish()


# Mappings

def mappings(cell, dumper, restorer):
	"""A process with as many mappings as the kernel allows is refused, with the number. With some fewer it can be dumped."""
	most = int(system.read_text("/proc/sys/vm/max_map_count"))
	cell.start([cell.program(), cell.directory, "mappings", "0"])
	expect(cell, dumper.dump(cell.root, cell.new_images("refused")), rf"has ({most - 1}|{most}) mappings.*vm.max_map_count")
	cell.check_running()
	cell.kill_tree()
	os.unlink(cell.path("ready"))
	cell.exits.clear()
	cell.start([cell.program(), cell.directory, "mappings", "80"])
	images = cell.new_images()
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	cell.finish()


# Privileges

def hard_limits(cell, dumper, restorer):
	"""A restoring criu could not set the hard limit again: a dump that would end the process is refused."""
	start_again(cell)
	script = '#!/bin/bash\nulimit -c 0\nexec setpriv --bounding-set -sys_resource --inh-caps -sys_resource {criu} "$@"\n'
	weak = wrapped(cell, dumper, "weak", script)
	expect(cell, weak.dump(cell.root, cell.new_images("refused")), "could not be restored here.*hard limit")
	cell.check_running()
	run = weak.dump(cell.root, cell.new_images("warned"), ["-R"])
	if run.failed or "could not be restored here" not in run.log:
		raise Failure(f"the dump failed, or did not warn: {run.describe()}")
	images = cell.new_images()
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	cell.finish()


OURS = {"modes": ("ours",)}
LOWERED = {"restore": "it lowers the limit before it queues the pending signals"}


def table(kind, most_spare):
	return Row(f"limits-table-{kind}", "full_table", run=functools.partial(full_table, kind=kind, most_spare=most_spare),
		   timeout=120, **OURS)


ROWS = [
	*[Row("limits-" + kind, "at_limit", arguments=(kind,), unprivileged=True)
	  for kind in ("data", "stack", "locked", "cpu", "pipes")],
	Row("limits-signals", "at_limit", arguments=("signals",), unprivileged=True, peer_fails=LOWERED),
	Row("limits-as", "at_limit", arguments=("as",), run=functools.partial(refused, words=r"KiB for criu's code(.|\n)*prlimit --as"), **OURS),
	Row("limits-locked-future", "at_limit", arguments=("locked_future",)),
	Row("limits-locked-future-user", "at_limit", arguments=("locked_future",), run=functools.partial(
		refused, words=r"KiB for criu's code(.|\n)*prlimit --memlock", user=NOBODY), **OURS),
	Row("limits-mappings", "at_limit", run=mappings, timeout=120, **OURS),
	table("files", 32),
	table("copies", 8),
	table("pipes", LIMIT // 2 + 32),
	table("mapped", 0),
	Row("limits-table-from-elsewhere", "full_table", run=images_from_elsewhere, **OURS),
	Row("limits-table-left-running", "full_table", run=left_running, **OURS),
	Row("limits-many-holders", "many_holders", arguments=("256", "100", "60"), run=many_holders, timeout=60, **OURS),
	Row("limits-many-memfds", "many_holders", arguments=("1024", "900", "1", "memfds"), run=many_memfds, timeout=60, **OURS),
	Row("limits-hard", "counter", run=hard_limits, **OURS),
]
