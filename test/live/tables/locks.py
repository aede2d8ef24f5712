"""locks.py - locks and leases of files (--file-locks)."""

import fcntl
import os
import signal

from harness import chains, system
from harness.cell import Failure
from harness.row import Row

LOCKS = {"dump_options": ("--file-locks",), "restore_options": ("--file-locks",)}


def refused(run, *words):
	if not run.failed or any(word not in run.error for word in words):
		raise Failure(f"the error does not say {words}: {run.describe()}")


def named(cell, dumper, restorer):
	"""Without --file-locks the refusal names file, ranges and holder; on restore, too."""
	cell.start()
	process, path = f"process {cell.root} (locks_many): descriptor ", f" ({cell.path('locked')}) has a lock: "
	refused(dumper.dump(cell.root, cell.new_images("refused")), process + "3" + path + "POSIX lock (write, bytes 0 to 9) and 1 more",
		process + "4" + path + "flock (read)", "try: --file-locks (-l)")
	cell.check_running()
	images = cell.new_images()
	cell.dump(dumper, images, LOCKS["dump_options"])
	refused(restorer.restore(images), "--file-locks", f"process {cell.root} (locks_many) held a lock on descriptor 3: "
		"POSIX lock (write, bytes 0 to 9)")
	cell.reap()
	cell.restore(restorer, images, LOCKS["restore_options"])
	cell.finish()


def with_waiter(cell, course):
	"""A process outside of the tree waits for the first bytes."""
	waiter = os.fork()
	if waiter == 0:
		try:
			with open(cell.path("locked"), "r+") as file:
				fcntl.lockf(file, fcntl.LOCK_EX, 5)
		finally:
			os._exit(0)
	try:
		if not system.wait_until(lambda: f"-> POSIX  ADVISORY  WRITE {waiter} " in system.read_text("/proc/locks"), 10):
			raise Failure("the other process does not wait for the lock")
		course(waiter)
	finally:
		os.kill(waiter, signal.SIGKILL)
		os.waitpid(waiter, 0)


def waited_for(cell, dumper, restorer):
	"""If somebody else would get the lock, the dump is refused, unless the processes run on."""
	cell.start()
	words = "(python3), which is not in the tree, waits for its lock"

	def dump(waiter):
		refused(dumper.dump(cell.root, cell.new_images("refused"), LOCKS["dump_options"]), f"process {waiter} {words}", "--leave-running")
		cell.check_running()
		run = dumper.dump(cell.root, cell.new_images("running"), (*LOCKS["dump_options"], "--leave-running"))
		if run.failed or f"process {waiter} {words}" not in run.log:
			raise Failure(f"there is no warning: {run.describe()}")
	with_waiter(cell, dump)
	images = cell.new_images()
	cell.dump(dumper, images, LOCKS["dump_options"])
	cell.restore(restorer, images, LOCKS["restore_options"])
	cell.finish()


IMPOSSIBLE = (
	(3, 0, 0, 0, None),  # no such family
	(1, 2, 0, 0, None),  # no such type
	(1, 4, 0, 0, None),  # only leases are broken
	(1, 0, -1, 1, None),
	(1, 0, 1, -1, None),
	(1, 0, 2**62, 2**62, None),
	(8, 5, 0, 0, None),  # a lease that is broken to a write lease
	(8, 2, 0, 0, None),
	(8, 4, 0, 0, 0),     # … from a read lease to a read lease
	(8, 6, 0, 0, 2),
	(8, 6, 0, 0, 77),
)


def forged(cell, dumper, restorer):
	"""Locks that cannot be are refused before there is any process."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images, LOCKS["dump_options"])
	good = chains.read(images, "filelocks.img")
	for flag, kind, start, length, held in IMPOSSIBLE:
		fields = {"_1": flag, "_2": kind, "_3": cell.root, "_4": 3, "_5": start % 2**64, "_6": length % 2**64}
		if held is not None:
			fields["_1000"] = held
		chains.write(good + chains.record(chains.message(**fields)), images, "filelocks.img")
		refused(restorer.restore(images, LOCKS["restore_options"]), "filelocks.img: a lock of process")
		if system.descendants(os.getpid()):
			raise Failure("a process was made")
	chains.write(good, images, "filelocks.img")
	cell.restore(restorer, images, LOCKS["restore_options"])
	cell.finish()


TOLD_AGAIN = {"restore": "the holder is told of it again"}
NOT_OF_WRITERS = {"dump": "it does not save that it was a write lease"}
NO_TAKER = {"dump": "it does not save which of them took the lock"}

ROWS = [
	*[Row("lease-" + kind.replace("_", "-"), "leases", arguments=(kind,), to_lose=(), unprivileged=True, **LOCKS)
	  for kind in ("read", "write", "write_reader", "kept_by_child", "many")],
	*[Row("lease-" + kind.replace("_", "-"), "leases", arguments=(kind,), to_lose=(), unprivileged=True, peer_fails=TOLD_AGAIN | fails,
	      **LOCKS) for kind, fails in {"breaking_read": {}, "breaking_write": NOT_OF_WRITERS, "breaking_writer": {}, "downgrading": {}}.items()],
	*[Row("locks-" + kind, "locks_many", arguments=(kind,), to_lose=(), unprivileged=True, peer_fails=fails, **LOCKS)
	  for kind, fails in {"hundreds": {}, "table": NO_TAKER, "ended": {}, "waiters": {}}.items()],
	Row("locks-named", "locks_many", arguments=("outside",), run=named, modes=("ours",)),
	Row("locks-waited-for", "locks_many", arguments=("outside",), run=waited_for, modes=("ours",)),
	Row("bad-restore-locks", "locks_many", arguments=("outside",), run=forged, modes=("ours",)),
]
