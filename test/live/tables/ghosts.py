"""ghosts.py - open files that their path does not lead to: deleted, replaced or without a name, and with other links."""

import contextlib
import os
import struct

from harness import system
from harness.cell import PROGRAMS, Failure
from harness.row import STATE, Row

from . import real
from .bad_input import dumped, expect_error, listing

NO_NAMES = {"restore": "it loses O_TMPFILE, and the file cannot be given a name"}
NO_ATTRIBUTES = {"dump": "it does not save attributes", "restore": "it sets no attributes, and times without nanoseconds"}
DIRECTORIES = {"restore": "it leaves directories that it has made on the way, and fails"}
INHERITED = {"restore": "the file keeps an ACL that it gets from the directory"}
TOO_LARGE = {"dump": "its limit is 1 MiB"}
NO_LINK_OF_LINK = dict.fromkeys(("dump", "restore"), "it takes a symbolic link for a file")
NEVER_BY_OTHERS = {"dump": "it does not look for another name"}
NAMES_GO = dict.fromkeys(("leave-running", "leave-stopped"), "at its end, the program removes the names")
LINKS = {"dump_options": ("--link-remap",), "restore_options": ("--link-remap",)}


# Semaphores and locks in /dev/shm that have no name any more, pipes, queues, a pool of workers.
POOL = '''
import multiprocessing as mp, time

def work(number):
	total = 0
	for i in range(200000):
		total = (total * 31 + i + number) % 1000003
	return number, total

def feed(queue, lock, counter, event):
	event.wait()
	for i in range(100):
		with lock, counter.get_lock():
			counter.value += 1
		queue.put(i)
		time.sleep(0.002)

def main():
	mp.set_start_method("fork")
	queue, lock, counter, event = mp.Queue(), mp.Lock(), mp.Value("i", 0), mp.Event()
	memory = mp.Array("d", range(10000))
	feeders = [mp.Process(target=feed, args=(queue, lock, counter, event)) for _ in range(3)]
	for feeder in feeders:
		feeder.start()
	with mp.Pool(3) as pool:
		parts = pool.imap(work, range(60), chunksize=2)
		sums = [next(parts) for _ in range(30)]
		event.set()
		sums += list(parts)
	fed = sorted(queue.get() for _ in range(300))
	for feeder in feeders:
		feeder.join()
	assert fed == sorted(list(range(100)) * 3) and counter.value == 300
	open("result", "w").write(f"{sums} {sum(memory[:])}\\n")

main()
'''
POOL_JOB = real.Job("python3 script.py", ["result"], real.file_with("script.py", POOL))


READ_ONLY, REMOUNT, DETACH = 1, 32, 2
INODES = ("directories", "root", "types", "device", "attributes", "default-acl", "locked", "link-near", "link-far", "path-far", "leased")
NAMES = {"replaced": ("log", "again", "rotated", "rotated.1"), "link-far": ("far",)}  # names that a program leaves


# Where the files are

@contextlib.contextmanager
def tmpfs(cell, size="4m"):
	where = cell.path("where")
	os.mkdir(where)
	system.mount("none", where, "tmpfs", data=f"size={size}")
	try:
		yield where
	finally:
		system.unmount(where, DETACH)


@contextlib.contextmanager
def overlay(cell):
	"""Its layers are on a tmpfs: the directory of the tests may be on an overlay itself."""
	with tmpfs(cell) as layers:
		for name in ("lower", "upper", "work", "where"):
			os.mkdir(os.path.join(layers, name))
		where = os.path.join(layers, "where")
		system.mount("none", where, "overlay",
			     data=f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work")
		try:
			yield where
		finally:
			system.unmount(where, DETACH)


@contextlib.contextmanager
def shared_memory(_cell):
	yield "/dev/shm"


def start(cell, where):
	thing, = cell.row.arguments
	cell.start([os.path.join(PROGRAMS, cell.row.program), cell.directory, thing, where])
	cell.pause()


def finish(cell, where):
	"""Only the names that the program itself has left may be there."""
	prefix = f"criu-live-{cell.root}-"
	cell.pause()
	cell.finish()
	found = [name for name in os.listdir(where) if name.startswith((prefix, "link_remap."))]
	if sorted(found) != sorted(prefix + name for name in NAMES.get(cell.row.arguments[0], ())):
		raise Failure(f"left behind in {where}: {found}")
	for name in found if where == "/dev/shm" else ():
		os.unlink(os.path.join(where, name))


def elsewhere(place):
	def run(cell, dumper, restorer):
		with place(cell) as where:
			start(cell, where)
			images = cell.new_images()
			cell.dump(dumper, images)
			cell.restore(restorer, images)
			finish(cell, where)
	return run


# What goes wrong

def refused_restore(cell, restorer, images, words, where):
	before = listing(images), sorted(os.listdir(where))
	run = restorer.restore(images, cell.row.restore_options)
	cell.reap()
	expect_error(run, words)
	if (listing(images), sorted(os.listdir(where))) != before:
		raise Failure("the failed restore has left something, or changed the images")


def disk_full(cell, dumper, restorer):
	"""The file does not fit: nothing is left, and later it can be restored."""
	with tmpfs(cell) as where:
		start(cell, where)
		images = cell.new_images()
		cell.dump(dumper, images)
		filler = os.path.join(where, "filler")
		with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
			while file.write(b"x" * 4096):
				pass
		refused_restore(cell, restorer, images, r"cannot write the content of the deleted file .*: No space left", where)
		os.unlink(filler)
		cell.restore(restorer, images)
		finish(cell, where)


def read_only(cell, dumper, restorer):
	with tmpfs(cell) as where:
		start(cell, where)
		images = cell.new_images()
		cell.dump(dumper, images)
		system.mount("none", where, None, REMOUNT | READ_ONLY)
		refused_restore(cell, restorer, images, r"deleted file .* cannot be made again in its directory: Read-only", where)
		system.mount("none", where, None, REMOUNT)
		cell.restore(restorer, images)
		finish(cell, where)


def refused_dump(cell, dumper, images, words, options=()):
	expect_error(dumper.dump(cell.root, images, options), words)
	cell.check_running()


def limited(cell, dumper, restorer):
	"""Data counts, holes do not: 1 GiB with 45 KiB of data is within 64K, a file of 70,001 bytes is not."""
	limit = "64K"
	cell.start()
	cell.pause()
	if cell.row.arguments != ("sparse",):
		refused_dump(cell, dumper, cell.path("refused"), r"\(deleted\)\): it .*more than 65536 bytes of data.*--ghost-limit",
			     ("--ghost-limit", limit))
		limit = "69K"
	images = cell.new_images()
	cell.dump(dumper, images, ["--ghost-limit", limit, "--ghost-fiemap"])
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def leased(cell, dumper, _restorer):
	cell.start()
	refused_dump(cell, dumper, cell.new_images(), r"it is deleted, and has a lease", ("--file-locks",))
	cell.finish()


def no_space_for_images(cell, dumper, _restorer):
	"""The free space for the images is the limit. The dump says so before it copies anything."""
	with tmpfs(cell) as small:
		cell.start()
		cell.pause()
		refused_dump(cell, dumper, os.path.join(small, "images"), r"deleted files have 256 MiB of data, and only \d+ MiB are free")
		cell.finish()


# Links

def link_names(where):
	return [name for name in os.listdir(where) if name.startswith("link_remap.")]


@contextlib.contextmanager
def directory(cell):
	os.mkdir(cell.path("where"))
	yield cell.path("where")


def restored_twice(place):
	"""The images of one dump with -R. The name that they need is gone after the first restore."""
	def run(cell, dumper, restorer):
		with place(cell) as where:
			start(cell, where)
			images = cell.new_images()
			cell.dump(dumper, images, ["-R"])
			for number in range(2):
				cell.kill_tree()
				cell.reap()
				if len(link_names(where)) != (number == 0):
					raise Failure(f"before restore {number}: {link_names(where)}")
				cell.restore(restorer, images)
			finish(cell, where)
	return run


def linked_twice(cell, dumper, restorer):
	"""The name that the first dump has made is none of the file's own: the second dump saves the path that the process has."""
	with directory(cell) as where:
		start(cell, where)
		cell.dump(dumper, cell.new_images("first"), ["-R"])
		images = cell.new_images()
		cell.dump(dumper, images)
		cell.restore(restorer, images)
		finish(cell, where)


def link_refused(cell, dumper, _restorer):
	cell.start()
	expect_error(dumper.dump(cell.root, cell.new_images()), "(?s)only other links to it exist.*--link-remap")
	cell.check_running()
	cell.finish()
	if link_names(cell.directory):
		raise Failure(f"left behind: {link_names(cell.directory)}")


# Forged images

def varint(value):
	result = b""
	while value > 0x7f:
		result, value = result + bytes((value & 0x7f | 0x80,)), value >> 7
	return result + bytes((value,))


def field(number, value):
	"""A number, or bytes."""
	if isinstance(value, bytes):
		return varint(number << 3 | 2) + varint(len(value)) + value
	return varint(number << 3) + varint(value)


def record(*fields):
	data = b"".join(field(number, value) for number, value in fields)
	return struct.pack("I", len(data)) + data


OWNER = ((1, 0), (2, 0))
FORGED = (
	("a block device", [record(*OWNER, (3, 0o60600), (6, 0x100))], "invalid mode or device"),
	("the memory", [record(*OWNER, (3, 0o20600), (6, 0x101))], "invalid mode or device"),
	("a socket", [record(*OWNER, (3, 0o140600))], "invalid mode or device"),
	("no type", [record(*OWNER, (3, 0o600))], "invalid mode or device"),
	("another type", [record(*OWNER, (3, 0o40700))], "of another type than file"),
	("no owner", [record((1, 0xffffffff), (2, 0), (3, 0o100600))], "invalid owner"),
	("a link to nothing", [record(*OWNER, (3, 0o120777))], "invalid target"),
	("times", [record(*OWNER, (3, 0o100600), (7, field(1, 1) + field(2, 1000000)))], "invalid times"),
	("more times", [record(*OWNER, (3, 0o100600), (1000, field(1, 2) + field(2, 1 << 31) + field(3, 2) + field(4, 0)))],
	 "invalid times"),
	("an attribute", [record(*OWNER, (3, 0o100600), (1001, field(1, b"user." + b"x" * 300) + field(2, b"")))], "invalid attribute"),
	("no size", [record(*OWNER, (3, 0o100600), (9, 1))], "another size"),
	("a negative size", [record(*OWNER, (3, 0o100600), (9, 1), (10, (1 << 64) - 1))], "another size"),
	("a chunk behind the end", [record(*OWNER, (3, 0o100600), (9, 1), (10, 4096)), record((1, 1), (2, 4096)), b"x"], "behind the end"),
	("a huge chunk", [record(*OWNER, (3, 0o100600), (9, 1), (10, 4096)), record((1, (1 << 64) - 1), (2, 4000)), b"x"],
	 "behind the end"),
	("a chunk without its content", [record(*OWNER, (3, 0o100600), (9, 1), (10, 4096)), record((1, 100), (2, 0)), b"x"], "ghost-file-1"),
	("a directory with content", [record(*OWNER, (3, 0o40700)), b"x"], "no regular file"),
	("nothing", [], "ghost-file-1.img is empty"),
)
FORGED_PATHS = (
	("no such file", [((1, 999), (2, 1), (3, 1))], "file 999 is not a regular file"),
	("no ghost", [((1, None), (2, 77), (3, 1))], "ghost-file-4d.img is missing"),
	("twice", [((1, None), (2, 1), (3, 1)), ((1, None), (2, 1), (3, 1))], "occurs twice"),
	("no link", [((1, None), (2, 999), (3, 0))], "file 999, a link to file .* is missing"),
	("itself", [((1, None), (2, None), (3, 0))], "a link to file .* is missing"),
	("/proc", [((1, None), (2, 1), (3, 2))], "a file of /proc about a process that has ended"),
)


def forged(cell, dumper, restorer):
	images = dumped(cell, dumper)
	path = os.path.join(images, "ghost-file-1.img")
	with open(path, "rb") as file:
		data = file.read()
	for name, records, words in FORGED:
		with open(path, "wb") as file:
			file.write(data[:8] + b"".join(records))
		try:
			refused_restore(cell, restorer, images, words, cell.directory)
		except Failure as failure:
			raise Failure(f"{name}: {failure}")


def forged_paths(cell, dumper, restorer):
	images = dumped(cell, dumper)
	path = os.path.join(images, "remap-fpath.img")
	with open(path, "rb") as file:
		data = file.read()
	original = data[13]  # field 1 of the first record
	if data[12] != 8 or original > 0x7f:
		raise Failure("the test must be adapted")
	for name, fields, words in FORGED_PATHS:
		records = [record(*((number, original if value is None else value) for number, value in one)) for one in fields]
		with open(path, "wb") as file:
			file.write(data[:8] + b"".join(records))
		try:
			refused_restore(cell, restorer, images, words, cell.directory)
		except Failure as failure:
			raise Failure(f"{name}: {failure}")


def program_of(thing):
	return "ghost_inodes" if thing in INODES else "ghost_files"


def special(name, run, thing, **more):
	fields = {"modes": ("ours",), **more}
	return Row(f"ghost-{name}", program_of(thing), arguments=(thing,), run=run, **fields)


PLACES = ("ours", "ours-to-peer", "peer-to-ours")


def ghost(thing, **more):
	fields = {"to_lose": (), "unprivileged": True, **more}
	return Row(f"ghost-{thing}", program_of(thing), arguments=(thing,), **fields)


ROWS = [
	ghost("open"),
	ghost("family"),
	ghost("sparse"),
	ghost("mapped"),
	ghost("replaced"),
	ghost("unnamed", peer_fails=NO_NAMES),
	ghost("directories", peer_fails=DIRECTORIES),
	ghost("root", unprivileged=False),
	ghost("types"),
	ghost("device", unprivileged=False),
	ghost("attributes", peer_fails=NO_ATTRIBUTES),
	ghost("default-acl", peer_fails=INHERITED),
	ghost("locked", dump_options=("--file-locks",), restore_options=("--file-locks",)),
	ghost("link-near", peer_fails=NEVER_BY_OTHERS),
	ghost("link-far", **LINKS),
	ghost("path-far", peer_fails=NO_LINK_OF_LINK, without=NAMES_GO, **LINKS),
	special("on-tmpfs", elsewhere(tmpfs), "open", modes=PLACES),
	special("on-overlay", elsewhere(overlay), "open", modes=PLACES),
	special("on-overlay-replaced", elsewhere(overlay), "replaced", modes=("ours",)),
	special("in-shared-memory", elsewhere(shared_memory), "replaced", modes=PLACES),
	special("disk-full", disk_full, "open"),
	special("read-only", read_only, "open"),
	special("limit", limited, "sparse"),
	special("limit-small", limited, "mapped"),
	special("limit-of-images", no_space_for_images, "large"),
	special("link-dumped-twice", linked_twice, "link-far", **LINKS),
	special("link-twice", restored_twice(directory), "link-far", **LINKS),
	special("link-twice-on-tmpfs", restored_twice(tmpfs), "link-far", **LINKS),
	special("leased", leased, "leased"),
	special("link-on-tmpfs", elsewhere(tmpfs), "link-far", modes=PLACES, **LINKS),
	special("link-on-overlay", elsewhere(overlay), "link-far", modes=PLACES, **LINKS),
	special("link-refused", link_refused, "link-far"),
	special("forged", forged, "mapped"),
	special("forged-paths", forged_paths, "mapped"),
	ghost("many"),
	Row("ghost-program-deleted", "ghost_program", arguments=("deleted",), to_lose=(), unprivileged=True),
	Row("ghost-program-replaced", "ghost_program", arguments=("replaced",), to_lose=(), unprivileged=True, changes_files=True),
	Row("ghost-semaphores", "ghost_semaphores", arguments=("unlinked",), unprivileged=True),
	Row("ghost-semaphores-named", "ghost_semaphores", arguments=("named",), unprivileged=True,
	    without=NAMES_GO, **LINKS),
	Row("ghost-pool", run=real.course(POOL_JOB), to_lose=(STATE,), changes_files=True, timeout=600, unprivileged=True,
	    peer_fails={"dump": "it refuses a process whose threads are just ending"}),
	ghost("large", peer_fails=TOO_LARGE),
]
