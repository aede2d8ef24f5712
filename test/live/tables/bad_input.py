"""bad_input.py - wrong pids, broken images, changed files: each gives a clear error soon, changes nothing, and leaves nothing."""

import os
import re
import shutil
import signal
import struct
import subprocess
import time

from harness import system
from harness.cell import Failure
from harness.row import Row

SOON = 5.0  # seconds until an error: about one, and some more for a busy machine
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
NOT_READ_BY_RESTORE = ("stats-dump", "stats-restore")


def expect_error(run, pattern):
	if not run.failed:
		raise Failure(f"it succeeded: {' '.join(run.command)}")
	if run.code < 0 or run.code > 128:
		raise Failure(f"criu died of a signal: {run.describe()}")
	if not re.search(pattern, run.error):
		raise Failure(f"the error does not match /{pattern}/: {run.describe()}")
	if run.seconds > SOON * system.patience:
		raise Failure(f"the error took {run.seconds:.1f} s: {run.describe()}")


def listing(directory):
	"""Names and contents of all files but the logs, which a run may write."""
	result = {}
	for name in os.listdir(directory):
		if not name.endswith(".log") and name not in NOT_READ_BY_RESTORE:
			with open(os.path.join(directory, name), "rb") as file:
				result[name] = file.read()
	return result


# Dump: wrong pids

def refused_dump(cell, dumper, pid, pattern):
	"""Dumping `pid` fails, and the directory does not look complete."""
	images = cell.new_images()
	expect_error(dumper.dump(pid, images), pattern)
	if os.path.exists(os.path.join(images, "inventory.img")):
		raise Failure("the directory looks complete: it has inventory.img")


def still_works(cell):
	cell.check_running()
	cell.finish()


def no_such_pid(cell, dumper, _restorer):
	process = subprocess.Popen(["true"])
	process.wait()
	refused_dump(cell, dumper, process.pid, str(process.pid))


def a_thread_id(cell, dumper, _restorer):
	cell.start()
	tid = [tid for tid in system.threads(cell.root) if tid != cell.root][0]
	refused_dump(cell, dumper, tid, str(tid))
	still_works(cell)


def run_in_shell(cell, dumper, script):
	"""Runs criu from a shell script; `$$` is the shell's pid."""
	images = cell.new_images()
	command = script.format(criu=dumper.path, images=images)
	started = time.monotonic()
	with open(cell.path("output"), "w+") as output:
		process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
		try:
			code = process.wait(10 * system.patience)
		except subprocess.TimeoutExpired:
			raise Failure("criu and its ancestor hang")
	text = system.read_text(cell.path("output")) + system.read_text(os.path.join(images, "dump.log"))
	seconds = time.monotonic() - started
	if code == 0 or seconds > SOON * system.patience:
		raise Failure(f"exit code {code} after {seconds:.1f} s: {text[-1000:]}")
	if os.path.exists(os.path.join(images, "inventory.img")):
		raise Failure("the directory looks complete: it has inventory.img")
	if not re.search(r"criu: |Error", text):
		raise Failure(f"no error was printed: {text[-1000:]}")


def itself(cell, dumper, _restorer):
	run_in_shell(cell, dumper, "exec {criu} dump -t $$ -D {images} -o dump.log")


def its_ancestor(cell, dumper, _restorer):
	run_in_shell(cell, dumper, "{criu} dump -t $$ -D {images} -o dump.log; code=$?; exit $code")


def already_traced(cell, dumper, _restorer):
	cell.start()
	if system.libc.ptrace(PTRACE_SEIZE, cell.root, None, None) != 0:
		raise Failure("cannot trace the program")
	try:
		refused_dump(cell, dumper, cell.root, str(cell.root))
		if system.status(cell.root).get("TracerPid") != str(os.getpid()):
			raise Failure("the tracer no longer traces its task")
	finally:
		os.kill(cell.root, signal.SIGSTOP)
		os.waitpid(cell.root, 0x40000000)
		system.libc.ptrace(PTRACE_DETACH, cell.root, None, None)
		os.kill(cell.root, signal.SIGCONT)
	still_works(cell)


def dump_into_nowhere(cell, dumper, _restorer):
	"""The directory's parent is missing, too: nothing is created, and the error names the directory."""
	cell.start()
	expect_error(dumper.dump(cell.root, cell.path("missing", "images")), "missing")
	if os.path.exists(cell.path("missing")):
		raise Failure("the directory was created")
	still_works(cell)


def dump_into_a_file(cell, dumper, _restorer):
	cell.start()
	expect_error(dumper.dump(cell.root, cell.path("ready")), "ready")
	still_works(cell)


# Restore: broken images

def dumped(cell, dumper):
	"""Dumps the row's program, which ends it."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	return images


def refused_restore(cell, restorer, images, pattern):
	"""The restore fails. It leaves no task, and changes nothing in the directory."""
	before = listing(images) if os.path.isdir(images) else None
	run = restorer.restore(images, timeout=10)
	cell.reap()
	left = system.descendants(os.getpid())
	if left:
		names = "; ".join(map(system.describe_task, left))
		for pid in left:
			os.kill(pid, signal.SIGKILL)
		cell.wait_gone(left)
		if run.failed:
			raise Failure(f"left behind: {names}\n{run.describe()}")
	expect_error(run, pattern)
	if before is not None and listing(images) != before:
		raise Failure("the images were changed")


def images_missing(cell, _dumper, restorer):
	refused_restore(cell, restorer, cell.path("missing"), "missing")


def images_empty(cell, _dumper, restorer):
	refused_restore(cell, restorer, cell.new_images(), "inventory|images")


def images_incomplete(cell, dumper, restorer):
	images = dumped(cell, dumper)
	os.unlink(os.path.join(images, "inventory.img"))
	refused_restore(cell, restorer, images, "inventory")


def entry_ends(name, data):
	"""Offsets at which the image can be cut and still be well formed: after its header, and after each entry."""
	at = 4 if name == "inventory.img" else 8
	ends = {at}
	while at + 4 <= len(data):
		at += 4 + struct.unpack_from("I", data, at)[0]
		ends.add(at)
	return ends


def cuts(name, data):
	"""Offsets to cut an image at. Where the rest would be a well-formed image with fewer entries it is not cut."""
	places = {0, 3, 7, 9, 13, len(data) // 2, len(data) - 5, len(data) - 1}
	well_formed = set() if name.startswith("pages-") else entry_ends(name, data)
	return sorted(at for at in places if 0 <= at < len(data) and at not in well_formed)


def images_truncated(cell, dumper, restorer):
	images = dumped(cell, dumper)
	problems = []
	for name, data in sorted(listing(images).items()):
		if not name.endswith(".img"):
			continue
		for at in cuts(name, data):
			broken = cell.path("broken")
			shutil.copytree(images, broken)
			os.truncate(os.path.join(broken, name), at)
			try:
				refused_restore(cell, restorer, broken, re.escape(name.removesuffix(".img")))
			except Failure as failure:
				problems.append(f"{name} cut at {at} of {len(data)}: {failure}")
			shutil.rmtree(broken)
	if problems:
		raise Failure(f"{len(problems)} cuts gave no clear error:\n" + "\n".join(problems))


SIDE_IMAGES = ("remap-fpath.img", "ghost-file-1.img", "pipes-data.img", "fifo-data.img", "tty-info.img", "tty-data.img", "memfd.img", "filelocks.img", "sk-queues.img")


def side_images_torn(*names):
	"""Images that files.img refers to are read together with it: if one is torn, not even the first script runs."""
	def run(cell, dumper, restorer):
		marker, script = cell.path("marker"), cell.path("script")
		with open(script, "w") as file:
			file.write(f"#!/bin/sh\necho $CRTOOLS_SCRIPT_ACTION >> {marker}\n")
		os.chmod(script, 0o700)
		cell.start()
		cell.wait_ready()
		cell.pause()
		images = cell.new_images()
		cell.dump(dumper, images)
		found = {name: data for name, data in listing(images).items() if name in SIDE_IMAGES}
		if sorted(found) != sorted(names):
			raise Failure(f"the images have {sorted(found)}: the test must be adapted")
		for name, data in sorted(found.items()):
			for at in cuts(name, data):
				broken = cell.path("broken")
				shutil.copytree(images, broken)
				os.truncate(os.path.join(broken, name), at)
				options = [*cell.row.restore_options, "--action-script", script]
				attempt = restorer.restore(broken, options)
				cell.reap()
				expect_error(attempt, re.escape(name.removesuffix(".img")))
				if os.path.exists(marker):
					raise Failure(f"{name} cut at {at}: scripts ran: {system.read_text(marker)}")
				shutil.rmtree(broken)
		cell.restore(restorer, images)
		cell.finish()
	return run


def patch(path, offset, expected, value):
	with open(path, "r+b") as file:
		file.seek(offset)
		found = file.read(len(expected))
		if found != expected:
			raise Failure(f"{path}: offset {offset} has {found!r}, not {expected!r}: the test must be adapted")
		file.seek(offset)
		file.write(value)


def other_architecture(cell, dumper, restorer):
	"""core_entry.mtype is its first field: 1 is x86-64, 3 is aarch64."""
	images = dumped(cell, dumper)
	patch(os.path.join(images, f"core-{cell.root}.img"), 12, b"\x08\x01", b"\x08\x03")
	refused_restore(cell, restorer, images, f"core-{cell.root}|rchitecture|march|machine")


def nested_ids(pattern, *ids):
	"""pstree_entry.nested_ids (1000) behind the other fields of the only process: bytes, the id of each thread in turn."""
	def run(cell, dumper, restorer):
		images = dumped(cell, dumper)
		path = os.path.join(images, "pstree.img")
		with open(path, "rb") as file:
			data = file.read()
		size, = struct.unpack_from("I", data, 8)
		if 12 + size != len(data):
			raise Failure("pstree.img has several processes: the test must be adapted")
		more = b"".join(b"\xc0\x3e" + bytes([id]) for id in ids)
		with open(path, "wb") as file:
			file.write(data[:8] + struct.pack("I", size + len(more)) + data[12:] + more)
		refused_restore(cell, restorer, images, pattern)
	return run


def newer_version(cell, dumper, restorer):
	"""inventory_entry.img_version is its first field."""
	images = dumped(cell, dumper)
	path = os.path.join(images, "inventory.img")
	with open(path, "rb") as file:
		head = file.read(10)
	patch(path, 8, head[8:9], b"\x08")
	patch(path, 9, head[9:10], b"\x7f")
	refused_restore(cell, restorer, images, "version")


# Restore: the world has changed

def take_pid(cell, how):
	directory = cell.path("taker")
	os.mkdir(directory)
	program = os.path.join(os.path.dirname(cell.program()), "take_pid")
	process = subprocess.Popen([program, directory, str(cell.root), how], stdin=subprocess.DEVNULL)
	if not system.wait_until(lambda: os.path.exists(os.path.join(directory, "taken")), 5):
		raise Failure("the pid could not be taken: " + system.read_text(os.path.join(directory, "verdict")))
	return process


def pid_taken(cell, dumper, restorer):
	images = dumped(cell, dumper)
	taker = take_pid(cell, "live")
	run = restorer.restore(images)
	alive = system.thread_state(cell.root, cell.root)
	others = set(system.descendants(os.getpid())) - {taker.pid, cell.root}
	taker.terminate()
	taker.wait()
	expect_error(run, str(cell.root))
	if alive not in "SR":
		raise Failure(f"the process that had the pid is in state {alive}")
	if others:
		raise Failure("left behind: " + "; ".join(map(system.describe_task, others)))


def pid_taken_by_zombie(cell, dumper, restorer):
	images = dumped(cell, dumper)
	taker = take_pid(cell, "zombie")
	try:
		cell.restore(restorer, images)
	finally:
		taker.terminate()
		taker.wait()
	cell.pause()
	cell.finish()


def file_changed(name, change):
	def run(cell, dumper, restorer):
		images = dumped(cell, dumper)
		change(cell.path(name))
		refused_restore(cell, restorer, images, name)
	return run


def grow(path):
	with open(path, "a") as file:
		file.write("more")


def program_changed(cell, dumper, restorer):
	"""The executable, which is a copy in the test's directory, gets longer."""
	program = shutil.copy(cell.program(), cell.path("the-program"))
	cell.start([program, cell.directory])
	images = cell.new_images()
	cell.dump(dumper, images)
	grow(program)
	options = ["--file-validation", "filesize"]
	run = restorer.restore(images, options)
	cell.reap()
	expect_error(run, "the-program")


GNU_BUILD_ID = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"


def change_build_id(path):
	with open(path, "r+b") as file:
		content = file.read()
		place = content.index(GNU_BUILD_ID) + len(GNU_BUILD_ID)
		file.seek(place)
		file.write(bytes([content[place] ^ 1]))


def program_of_another_build(cell, dumper, restorer):
	"""The build id of the executable changes, but not its size. A dump that validates by size only cannot notice it."""
	program = shutil.copy(cell.program(), cell.path("the-program"))
	cell.start([program, cell.directory])
	cell.wait_ready()
	images = cell.new_images("by-build-id")
	cell.dump(dumper, images, ["-R"])
	with_size = cell.new_images("by-size")
	cell.dump(dumper, with_size, ["--file-validation", "filesize"])
	change_build_id(program)
	run = restorer.restore(images)
	cell.reap()
	expect_error(run, "the-program")
	cell.restore(restorer, with_size)
	cell.finish()


def row(name, run, program="counter", **more):
	modes = ("ours",) if "-torn-" in name or "-nested-" in name else ("ours", "peer")
	return Row(f"bad-{name}", program, run=run, modes=modes, **more)


ROWS = [
	row("dump-no-such-pid", no_such_pid),
	row("dump-thread-id", a_thread_id, "threads", arguments=("3",),
	    peer_fails={"dump": "it takes the thread for a process, and aborts"}),
	row("dump-itself", itself),
	row("dump-ancestor", its_ancestor),
	row("dump-traced", already_traced),
	row("dump-directory-missing", dump_into_nowhere),
	row("dump-directory-is-a-file", dump_into_a_file),
	row("restore-directory-missing", images_missing),
	row("restore-directory-empty", images_empty,
	    peer_fails={"restore": "its error does not say what is missing"}),
	row("restore-without-inventory", images_incomplete,
	    peer_fails={"restore": "its error does not say what is missing"}),
	row("restore-truncated", images_truncated, timeout=120,
	    peer_fails={"restore": "it reads a short pages image for ever"}),
	row("restore-torn-pipes", side_images_torn("pipes-data.img"), "pipes", arguments=("anonymous",)),
	row("restore-torn-fifos", side_images_torn("fifo-data.img"), "fifos", arguments=("ends",)),
	row("restore-torn-ghosts", side_images_torn("remap-fpath.img", "ghost-file-1.img"), "ghost_files", arguments=("mapped",)),
	row("restore-torn-queues", side_images_torn("sk-queues.img"), "queue_messages", arguments=("self",)),
	row("restore-torn-memfd", side_images_torn("memfd.img"), "memfd", arguments=("shared",)),
	row("restore-torn-locks", side_images_torn("filelocks.img"), "locks", arguments=("posix",),
	    dump_options=("--file-locks",), restore_options=("--file-locks",)),
	row("restore-other-architecture", other_architecture),
	row("restore-newer-version", newer_version),
	row("restore-nested-pid", nested_ids(r"process \d+ \(counter\) was in a pid namespace below that of the root", 7)),
	row("restore-nested-pids-torn", nested_ids(r"pstree\.img: process \d+: its threads have not equally many ids", 7, 8, 9),
	    "threads", arguments=("1",)),
	row("restore-nested-pids-twice", nested_ids(r"pstree\.img: process \d+: the id 7 occurs twice in pid namespace", 7, 7),
	    "threads", arguments=("1",)),
	row("restore-nested-pid-zero", nested_ids(r"pstree\.img: process \d+: it has an impossible id", 0)),
	row("restore-pid-taken", pid_taken),
	row("restore-pid-of-a-zombie", pid_taken_by_zombie,
	    peer_fails={"restore": "it does not wait"}),
	row("restore-open-file-grown", file_changed("held-open", grow), "holder"),
	row("restore-open-file-gone", file_changed("held-open", os.unlink), "holder"),
	row("restore-mapped-file-gone", file_changed("held-mapped", os.unlink), "holder"),
	row("restore-program-changed", program_changed, "holder"),
	row("restore-program-of-another-build", program_of_another_build, "holder"),
]
