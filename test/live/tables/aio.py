"""aio.py - AIO rings: completions that wait in them, requests in flight, rings that cannot be saved, forged images of rings."""

import os
import re
import shutil
import signal
import struct
import sys
import threading

from harness import leftovers, modes, system
from harness.cell import ROOT, Failure, Skip
from harness.row import Row

from . import bad_input, kills, memory, tracking

sys.path.append(os.path.join(ROOT, "test", "fuzz"))
import mutate  # noqa: E402


def refused(pattern, *options):
	"""The dump fails, and the error says why. The program runs on and finds its rings as they were."""
	def course(cell, dumper, _restorer):
		cell.start()
		for number in range(2):
			run = dumper.dump(cell.root, cell.new_images(f"images{number}"), options)
			if not run.failed:
				cell.reap()
				raise Failure("the dump succeeded")
			if not re.search(pattern, run.error):
				raise Failure(f"the error does not say {pattern!r}:\n{run.error}")
			cell.check_running()
		cell.finish()
	return course


def awaited(cell, dumper, restorer):
	"""Requests in flight complete while criu waits for them."""
	cell.start()
	images = cell.new_images()
	def complete():
		log = os.path.join(images, "dump.log")
		if system.wait_until(lambda: os.path.exists(log) and "8 requests are in flight" in system.read_text(log), 8):
			with open(cell.path("fifo"), "wb", buffering=0) as fifo:
				fifo.write(b"x")
	writer = threading.Thread(target=complete)
	writer.start()
	try:
		cell.dump(dumper, images)
	finally:
		writer.join()
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def in_chain(cell, dumper, restorer):
	"""The kernel writes to a ring without the task's page tables, so no tracker sees it: each snapshot must have the whole ring."""
	cell.start()
	run = dumper.run("pre-dump", cell.new_images("first"), ["-t", cell.root, "--track-mem"])
	if run.failed:
		raise Failure(run.describe())
	for number, more in enumerate((["-R"], [])):
		cell.pause()
		previous = ["--track-mem", "--prev-images-dir", "../" + ("images0" if number else "first")]
		cell.dump(dumper, cell.new_images(f"images{number}"), previous + more)
	cell.restore(restorer, cell.path("images1"))
	cell.pause()
	cell.finish()


def slow_disk(cell):
	"""A cgroup (version 1) whose tasks read 128 KiB a second from the disk of the cell's directory."""
	device, group = os.stat(cell.directory).st_dev, f"/sys/fs/cgroup/blkio/{leftovers.OWN_CGROUPS}{os.getpid()}"
	try:
		os.mkdir(group)
	except OSError as error:
		raise Skip(f"cannot create a cgroup that limits disks: {error.strerror}") from error
	try:
		with open(os.path.join(group, "blkio.throttle.read_bps_device"), "w") as file:
			file.write(f"{os.major(device)}:{os.minor(device)} {128 << 10}")
	except OSError as error:
		os.rmdir(group)
		raise Skip(f"cannot slow down reads here: {error.strerror}") from error
	return group


def join(group, pid):
	with open(os.path.join(group, "cgroup.procs"), "w") as file:
		file.write(str(pid))


def in_flight(tracker):
	"""A pre-dump waits only briefly. What a device writes afterwards is seen by no tracker, but must be in the next snapshot."""
	def course(cell, dumper, restorer):
		group = slow_disk(cell)
		try:
			cell.start()
			keeper = tracking.keeper_of(tracking.track(cell, dumper, "images0", tracker))
			join(group, cell.root)
			tracking.act(cell)
			cell.pre_dump(dumper, cell.new_images("images1"), [f"--track-mem={tracker}", "--prev-images-dir", "../images0"])
			if keeper:  # this pre-dump does not track, but still uses up what the keeper noted
				cell.wait_gone([keeper])
			if os.path.exists(cell.path("completed")):
				raise Failure("the request was not in flight")
			if not system.wait_until(lambda: os.path.exists(cell.path("completed")), 20):
				raise Failure("the request did not complete")
		finally:
			if cell.root and os.path.exists(f"/proc/{cell.root}"):
				join(os.path.dirname(group), cell.root)
			os.rmdir(group)
		images = cell.new_images("images2")
		cell.dump(dumper, images, [f"--track-mem={tracker}", *tracking.PREVIOUS])
		modes.restored(cell, restorer, images)
	return course


def not_tracked(cell, dumper, _restorer):
	"""criu cannot see what an io_uring has in flight, so a pre-dump does not track the process, and says so."""
	cell.start()
	run = cell.pre_dump(dumper, cell.new_images(), ["--track-mem"])
	if "the kernel may write to its memory, for requests in flight" not in run.log:
		raise Failure(f"the log does not say that the process is not tracked: {run.describe()}")
	cell.check_running()
	cell.finish()


def killed(cell, dumper, _restorer):
	"""criu is killed again and again while it counts the requests in flight. Each time the ring must be as it was."""
	cell.start()
	before = system.tree(cell.root)
	for number, delay in enumerate(kills.moments(cell, 0.3, cell.settings.kills)):
		images = cell.new_images("killed")
		command = [dumper.path, "dump", "-R", "-t", str(cell.root), "-D", images, "-o", "dump.log"]
		try:
			kills.start_and_signal(cell, command, delay, signal.SIGKILL)
			kills.check_no_helpers(cell, before)
			cell.check_running()
		except Failure as failure:
			raise Failure(f"round {number + 1}, killed after {delay * 1000:.1f} ms: {failure}")
		shutil.rmtree(images)
	cell.finish()


# Forged images

MM_VMAS, MM_AIOS, VMA_PGOFF, VMA_STATUS = 14, 16, 3, 7
AIO_NR_REQ, AIO_RING_LEN = 2, 3
AIO_RING, SOCKET, VVAR = 1 << 13, 1 << 11, 1 << 12
MAGIC = struct.pack("<I", 0xa10a10a1)


def value_of(fields, number):
	return next(field for field in fields if field[0] == number)


def in_mm(change):
	"""Changes the fields of mm-PID.img by change(aios, rings). Each argument is a list of lists of fields."""
	def forge(cell, images):
		path = os.path.join(images, f"mm-{cell.root}.img")
		with open(path, "rb") as file:
			header, records, tail = mutate.split(file.read())
		mm = mutate.parse(records[0])
		aios = [field for field in mm if field[0] == MM_AIOS]
		rings = [field for field in mm if field[0] == MM_VMAS and value_of(field[2], VMA_STATUS)[2] & AIO_RING]
		for gone in change([field[2] for field in aios], [field[2] for field in rings]) or ():
			mm = [field for field in mm if field[2] is not gone]
		with open(path, "wb") as file:
			file.write(mutate.join(header, [mutate.pack(mm)], tail))
	return forge


def in_ring(offset, *values):
	"""Writes the values into the headers of the first rings in the pages image, one value into each."""
	def forge(_cell, images):
		for name in os.listdir(images):
			if not name.startswith("pages-"):
				continue
			with open(os.path.join(images, name), "r+b") as file:
				pages = file.read()
				found = [at for at in range(0, len(pages), 4096) if pages[at + 16:at + 20] == MAGIC]
				for at, value in zip(found, values):
					file.seek(at + offset)
					file.write(struct.pack("<I", value))
	return forge


def changed(number, change):
	def apply(items):
		field = value_of(items[0], number)
		field[2] = change(field[2])
	return apply


FORGED = {  # name -> how the images are forged, and what the error says
	"entry-missing": (in_mm(lambda aios, rings: aios[:1]), r"mm-\d+\.img: the AIO ring at \S+ has no description"),
	"ring-missing": (in_mm(lambda aios, rings: rings[:1]), r"mm-\d+\.img describes 4 AIO rings, but has 3|pagemap-\d+"),
	"length": (in_mm(lambda aios, rings: changed(AIO_RING_LEN, lambda old: old + 4096)(aios)), r"mm-\d+\.img: the AIO ring at \S+ has no description"),
	"requests": (in_mm(lambda aios, rings: changed(AIO_NR_REQ, lambda old: 1 << 20)(aios)), r"mm-\d+\.img: .* impossible"),
	"offset": (in_mm(lambda aios, rings: changed(VMA_PGOFF, lambda old: 4096)(rings)), r"mm-\d+\.img"),
	"socket": (in_mm(lambda aios, rings: changed(VMA_STATUS, lambda old: old | SOCKET)(rings)), r"status"),
	"kernels": (in_mm(lambda aios, rings: changed(VMA_STATUS, lambda old: old | VVAR)(rings)), r"mm-\d+\.img|pagemap-\d+\.img"),
	"magic": (in_ring(16, 1), r"have no valid AIO ring"),
	"slots": (in_ring(4, 1 << 20), r"have no valid AIO ring"),
	"head": (in_ring(8, 1 << 30), r"have no valid AIO ring"),
	"tail": (in_ring(12, 1 << 30), r"have no valid AIO ring"),
	"number": (in_ring(0, 0xffffffff), r"limit"),
	"twice": (in_ring(0, 0, 0), r"two AIO rings with number 0"),
	"fuller-than-possible": (in_ring(8, 1, 1, 1, 1), r"has \d+ completions|has head and tail"),
}


def forged(cell, dumper, restorer):
	images = bad_input.dumped(cell, dumper)
	for name, (forge, pattern) in FORGED.items():
		broken = cell.path("forged")
		shutil.copytree(images, broken)
		forge(cell, broken)
		try:
			bad_input.refused_restore(cell, restorer, broken, pattern)
		except Failure as failure:
			raise Failure(f"{name}: {failure}")
		shutil.rmtree(broken)


ENDED = {"dump": "io_getevents() ends with EINTR"}
CHILDS = {"restore": "a parent's ring gets the content of its child's at the same address"}
OTHER_NUMBERS = {"restore": "its rings get other numbers"}

ROWS = [
	*[Row("aio-" + state, "aio", arguments=(state,)) for state in ("rings", "many", "full", "busy")],
	Row("aio-family", "aio", arguments=("family",), peer_fails=CHILDS),
	Row("aio-blocked", "aio", arguments=("blocked",), peer_fails=ENDED),
	Row("aio-fixed-addresses", "aio", arguments=("many",), run=memory.fixed_addresses, modes=memory.BOTH_WAYS),
	*[Row("aio-in-chain-" + state, "aio", arguments=(state,), run=in_chain, modes=("ours",)) for state in ("rings", "busy")],
	Row("aio-awaited", "aio", arguments=("awaited",), run=awaited, modes=("ours", "ours-to-peer")),
	*[Row("aio-in-flight-" + tracker, "aio_slow", run=in_flight(tracker), modes=("ours",)) for tracker in ("written", "content")],
	Row("aio-in-flight-io-uring", "refused", arguments=("io_uring",), run=not_tracked, modes=("ours",)),
	Row("aio-numbers", "aio", arguments=("rings", "numbers"), peer_fails=OTHER_NUMBERS),
	Row("aio-refused-poll", "aio", arguments=("poll",), modes=("ours", "peer"),
	    run=refused("AIO ring at .*: 1 requests are still in flight", "--timeout", "1"),
	    peer_fails={"dump": "it saves it, and the request never completes"}),
	Row("aio-refused-inherited", "aio", arguments=("inherited",), run=refused("part of an AIO ring of process"),
	    modes=("ours", "peer"), peer_fails={"dump": "it saves it, and restores it as a ring of the child"}),
	Row("aio-killed", "aio", arguments=("poll_large", "numbers"), run=killed, modes=("ours", "peer"), timeout=300,
	    peer_fails={"dump": "it waits for no request"}),
	Row("aio-forged", "aio", arguments=("rings",), run=forged, modes=("ours", "peer"), timeout=120,
	    peer_fails={"restore": "it believes them"}),
]

for row in ROWS:  # 65536 requests: `many` has 24600, and criu creates as many of its own to check that it can
	row.alone_with = "/proc/sys/fs/aio-max-nr"
