"""paths.py - files that have a path: unusual names and flags, O_PATH, logs that have grown; devices; open namespaces."""

import os
import re

from harness import faults
from harness.cell import Failure
from harness.row import Row

NO_DIRECTORY = {"restore": "it drops O_DIRECTORY"}
NO_PATH_OF_FIFO = {"dump": "it takes the path of a named pipe for its end", "restore": "it drops O_DIRECTORY"}
NO_PATH_OF_SOCKET = {"dump": "it takes the path of a socket for a socket"}
TOO_LONG = {"dump": "it reads at most 4094 bytes"}
ANOTHER_USER = {"dump": "it has no CAP_SYS_RESOURCE here"}

NO_OWNER = {"dump": "it does not save the owner of a namespace", "restore": "it does not know the owner of a namespace"}
ONE_UTS = dict.fromkeys(("dump", "restore"), "it has one uts namespace for all processes")
NO_SIZE = {"dump": "it does not save the size of a file that is open only for writing"}
GONE = dict.fromkeys(("leave-running", "leave-stopped"), "it removes its mounts or sockets at the end")

# Things that path_refused.c has -> a pattern that the error must contain
REFUSED = {
	"overmounted": r"point/inner/file\): the tmpfs that is mounted on \S+/point hides its mount, the tmpfs on \S+/point\b",
	"overmounted-above": r"the tmpfs that is mounted on \S+/point hides its mount, the tmpfs on \S+/point/inner",
	"overmounted-deleted": r"the tmpfs that is mounted on \S+/point hides its mount, the tmpfs on \S+/point\b",
	"detached": r"is in a detached mount",
	**dict.fromkeys(("pipe-path", "event-path", "socket-path"), r"was opened with O_PATH, but has no path"),
	"too-long": r"cannot read the link of descriptor \d+: File name too long",
	"pressure": r"trigger of pressure stall information",
	"immutable": r"could not open it again: Operation not permitted",
	"append-only": r"could not open it again: it has become append-only",
}


def refused(cell, dumper, _restorer):
	cell.start()
	images = cell.new_images()
	run = dumper.dump(cell.root, images)
	if not run.failed or not re.search(REFUSED[cell.row.arguments[0]], run.error):
		raise Failure(f"not refused with the expected reason: {run.describe()}")
	cell.check_running()
	cell.finish()
	if os.path.exists(os.path.join(images, "inventory.img")):
		raise Failure("the directory looks complete: it has inventory.img")


ADDED = "added\n"


def append(cell, *names_of_files):
	for name in names_of_files:
		with open(cell.path(name), "a") as file:
			file.write(ADDED)


def expect_refused(cell, restorer, images, options, pattern):
	"""The restore fails with this message, and the log is as it was."""
	before = os.stat(cell.path("log"))
	run = restorer.restore(images, options)
	cell.reap()
	if not run.failed or not re.search(pattern, run.error):
		raise Failure(f"not refused with the expected reason: {run.describe()}")
	after = os.stat(cell.path("log"))
	if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
		raise Failure("a restore that failed has changed the log")


def grown(cell, dumper, restorer):
	"""The files have grown while the process was away. The row says what becomes of the addition."""
	cell.start()
	cell.pause()
	images = cell.new_images()
	cell.dump(dumper, images)
	append(cell, "log", "read-only")
	expect_refused(cell, restorer, images, (), r"log has 6006 bytes now and had 6000[^$]*--grown-files=keep")
	cell.restore(restorer, images, ["--grown-files", cell.row.arguments[0]])
	cell.pause()
	cell.finish()


def grown_then_fails(cell, dumper, restorer):
	"""The log is cut only when nothing can fail any more."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	append(cell, "log", "read-only")
	def restore(environment):
		return restorer.restore(images, ["--grown-files=cut"], environment=environment)
	for step in faults.steps_of("restore", restore):
		before = os.path.getsize(cell.path("log"))
		run = restore(faults.in_step("restore", step))
		cell.reap()
		if not run.failed or os.path.getsize(cell.path("log")) != before:
			raise Failure(f"after a failure in '{step}' the log has {os.path.getsize(cell.path('log'))} bytes, had {before}")
	cell.restore(restorer, images, ["--grown-files=cut"])
	cell.finish()


def grown_in_use(cell, dumper, restorer):
	"""A log is not cut while another process writes to it, and no shorter or executed file is accepted."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	append(cell, "log", "read-only")
	with open(cell.path("log"), "a"):
		expect_refused(cell, restorer, images, ("--grown-files=cut",), "another process has it open for writing[^$]*--grown-files=keep")
	with open(cell.path("log"), "r"):
		pass
	os.truncate(cell.path("read-only"), 3)
	for action in ("keep", "cut"):
		expect_refused(cell, restorer, images, ("--grown-files", action), "read-only has 3 bytes now and had 6")
	with open(cell.path("read-only"), "w") as file:
		file.write("00000\n" + ADDED)
	cell.restore(restorer, images, ["--grown-files=cut"])
	cell.finish()


def forged(old, new, pattern):
	"""Bytes of files.img are replaced: the error comes before any process exists."""
	def run(cell, dumper, restorer):
		cell.start()
		images = cell.new_images()
		cell.dump(dumper, images)
		path = os.path.join(images, "files.img")
		with open(path, "rb") as file:
			data = file.read()
		if old not in data or len(old) != len(new):
			raise Failure("files.img is not as expected: the test must be adapted")
		with open(path, "wb") as file:
			file.write(data.replace(old, new))
		run = restorer.restore(images)
		cell.reap()
		if not run.failed or run.code > 128 or not re.search(pattern, run.error):
			raise Failure(f"not refused with the expected reason: {run.describe()}")
		with open(path, "wb") as file:
			file.write(data)
		cell.restore(restorer, images)
		cell.finish()
	return run


# ns_file_entry: ns_id = 4, ns_cflag = CLONE_NEWUTS
UTS = b"\x10\x04\x18\x80\x80\x80\x20"
FORGED = {
	"namespace-type": ("path_namespaces", "own", UTS, UTS[:3] + b"\x81\x80\x80\x20", r"namespace of an unknown type \(0x4000001\)"),
	"namespace-flags": ("path_namespaces", "own", UTS, UTS[:3] + b"\x80\x80\x80\x60", r"namespace of an unknown type \(0xc000000\)"),
	"namespace-id": ("path_namespaces", "own", UTS, b"\x10\x7f" + UTS[2:], r"uts namespace \(127\) that is not in the images"),
	"device": ("device_files", "many", b"/dev/full", b"/dev/kmsg", r"/dev/kmsg\) is neither a regular file nor"),
	"terminal": ("device_files", "many", b"/dev/full", b"/dev/tty9", r"/dev/tty9\) is neither a regular file nor"),
	"other-device": ("device_files", "many", b"/dev/full", b"/dev/null", r"/dev/null is the device 1:3 now and was 1:7"),
}


def names(name, argument, **more):
	return Row(f"paths-{name}", "path_names", arguments=(argument,), **more)


ROWS = [
	names("flags", "flags", unprivileged=True, peer_fails=NO_DIRECTORY),
	names("flags-set", "flags_set", unprivileged=True),
	names("only", "path_only", unprivileged=True, peer_fails=NO_PATH_OF_FIFO),
	names("links", "path_links", unprivileged=True),
	names("special", "path_special", without=GONE, peer_fails=NO_PATH_OF_SOCKET),
	names("names", "names", unprivileged=True),
	names("longest", "longest", unprivileged=True, peer_fails=TOO_LONG),
	names("mode-zero", "mode_zero", peer_fails=ANOTHER_USER),
	names("kernel", "kernel", unprivileged=True),
	names("overlay", "overlay", without=GONE),
	names("bound", "bound", without=GONE),
	Row("paths-namespaces-own", "path_namespaces", arguments=("own",), unprivileged=True, peer_fails=NO_OWNER),
	Row("paths-namespaces-trees", "path_namespaces", arguments=("trees",), peer_fails=ONE_UTS),
	Row("paths-namespaces-bound", "path_namespaces", arguments=("bound",), without=GONE, peer_fails={"restore": "it sets the position"}),
	*[Row(f"paths-grown-{action}", "path_log", arguments=(action,), run=grown, modes=("ours", "peer-to-ours"), peer_fails=NO_SIZE if action == "cut" else {})
	  for action in ("keep", "cut")],
	Row("paths-grown-then-fails", "path_log", arguments=("cut",), run=grown_then_fails, modes=("ours",)),
	Row("paths-grown-in-use", "path_log", arguments=("cut",), run=grown_in_use, modes=("ours",)),
	*[Row(f"paths-forged-{name}", program, arguments=(argument,), run=forged(old, new, pattern), modes=("ours",))
	  for name, (program, argument, old, new, pattern) in FORGED.items()],
	*[Row(f"paths-refused-{thing}", "path_refused", arguments=(thing,), run=refused, modes=("ours",)) for thing in REFUSED],
]
