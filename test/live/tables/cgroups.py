"""cgroups.py - processes, children and threads are restored into their own cgroups, from birth on; cgroup versions 1 and 2."""

import contextlib
import os

from harness import leftovers, system
from harness.cell import Failure, Skip
from harness.row import Row

TOP = "/sys/fs/cgroup"
HOME = None
SECOND = "unified"  # the directory of version 2 in TOP if version 1 is mounted, too; otherwise it is TOP itself


def hierarchies(*names):
	"""The roots of these hierarchies, as far as they exist. "" means version 2; others are named by their directories in TOP."""
	second = os.path.join(TOP, SECOND)
	roots = [(second if os.path.exists(os.path.join(second, "cgroup.procs")) else TOP) if not name else
		 os.path.join(TOP, name) for name in names]
	found = [root for root in roots if os.path.exists(os.path.join(root, "cgroup.procs"))]
	if not found:
		raise Skip(f"no such hierarchies of cgroups here: {', '.join(roots)}")
	return found


def write(path, text):
	with open(path, "w") as file:
		file.write(str(text))


def own_group(root):
	return os.path.join(root, f"{leftovers.OWN_CGROUPS}{os.getpid()}")


def make_group(root, name=""):
	path = os.path.join(own_group(root), name)
	try:
		os.makedirs(path, exist_ok=True)
	except OSError as error:
		raise Skip(f"cannot create a cgroup: {error}") from error
	return path.rstrip("/")


def remove_groups(root):
	"""Removes all of our cgroups in this hierarchy. The tasks in them have ended or are ending."""
	def gone():
		for folder, _, _ in os.walk(own_group(root), topdown=False):
			with contextlib.suppress(OSError):
				os.rmdir(folder)
		return not os.path.exists(own_group(root))
	system.wait_until(gone, 5)


@contextlib.contextmanager
def groups(cell, roots, places):
	"""Creates a cgroup for each (who, name) in each hierarchy, and tells the program. HOME is the harness's own cgroup."""
	try:
		with open(cell.path("places"), "w") as file:
			for root in roots:
				for who, name in places:
					file.write(f"{who} {home(root) if name is HOME else make_group(root, name)}\n")
		yield
	finally:
		if cell.root:
			cell.kill_tree()
		for root in roots:
			remove_groups(root)


def where(pid, tid=None):
	"""{hierarchy: path} of a thread's cgroups, without hierarchies in which it is in the root."""
	lines = system.read_text(f"/proc/{pid}/task/{tid or pid}/cgroup").splitlines()
	return {hierarchy: path for _, hierarchy, path in (line.split(":", 2) for line in lines) if path != "/"}


def home(root):
	"""The directory of the harness's own cgroup in this hierarchy."""
	name = os.path.basename(root)
	name = {SECOND: "", os.path.basename(TOP): "", "systemd": "name=systemd"}.get(name, name)
	return os.path.join(root, where(os.getpid()).get(name, "").lstrip("/"))


def all_places(cell):
	return {(pid, tid): where(pid, tid) for pid in system.tree(cell.root) for tid in system.threads(pid)}


def in_groups(names, *places):
	"""Runs the function of the mode with the program in these cgroups."""
	def course(cell, dumper, restorer):
		with groups(cell, hierarchies(*names), places):
			cell.mode.run(cell, dumper, restorer)
	return course


def in_threaded(cell, dumper, restorer):
	"""Version 2: the program is in threaded cgroups below a domain cgroup."""
	[root] = hierarchies("")
	for name in ("first", "second"):
		write(os.path.join(make_group(root, name), "cgroup.type"), "threaded")
	with groups(cell, [root], [("process", "first"), ("thread", "second")]):
		cell.mode.run(cell, dumper, restorer)


def dumped(cell, dumper, options=()):
	cell.start()
	before = all_places(cell)
	images = cell.new_images()
	cell.dump(dumper, images, options)
	return images, before


def expect(cell, places, what):
	found = all_places(cell)
	if found != places:
		raise Failure(f"{what}: {found}, not {places}")


def expect_refusal(cell, restorer, images, pattern, options=()):
	run = restorer.restore(images, options)
	if not run.failed:
		raise Failure("the restore succeeded")
	if pattern not in run.error:
		raise Failure(f"the error does not say '{pattern}':\n{run.error}")
	cell.reap()
	left = system.descendants(os.getpid())
	if left:
		raise Failure("left behind: " + "; ".join(map(system.describe_task, left)))


def missing(cell, dumper, restorer):
	"""A cgroup does not exist: the error names it, and neither the cgroup nor any process is created."""
	roots = hierarchies("", "pids")
	with groups(cell, roots, [("process", "a"), ("child", "a/b")]):
		images, before = dumped(cell, dumper)
		for root in roots:
			os.rmdir(os.path.join(own_group(root), "a/b"))
			expect_refusal(cell, restorer, images, "does not exist")
			if os.path.exists(os.path.join(own_group(root), "a/b")):
				raise Failure("a cgroup was created")
			make_group(root, "a/b")
		cell.restore(restorer, images)
		expect(cell, before, "after the restore")
		cell.finish()


def frozen(cell, dumper, restorer):
	"""A task in a frozen cgroup does not run: neither a dump nor a restore may wait for it."""
	for root in hierarchies("", "freezer"):
		second = os.path.exists(os.path.join(root, "cgroup.controllers"))
		file, freeze, thaw = ("cgroup.freeze", "1", "0") if second else ("freezer.state", "FROZEN", "THAWED")
		with groups(cell, [root], [("process", "")]):
			cell.start()
			images = cell.new_images(os.path.basename(root))
			write(os.path.join(own_group(root), file), freeze)
			try:
				run = dumper.dump(cell.root, images)
				if not run.failed or "is frozen" not in run.error:
					raise Failure(f"the dump of a frozen process was not refused as expected: {run.describe()}")
			finally:
				write(os.path.join(own_group(root), file), thaw)
			cell.dump(dumper, images)
			write(os.path.join(own_group(root), file), freeze)
			try:
				expect_refusal(cell, restorer, images, "is frozen")
			finally:
				write(os.path.join(own_group(root), file), thaw)
			cell.restore(restorer, images)
			cell.finish()
		os.unlink(cell.path("ready"))
		cell.forget_verdict()


def forged(cell, dumper, restorer):
	"""Images lack a set of cgroups, or name a cgroup outside of the hierarchy: an error says so before any process exists."""
	roots = hierarchies("", "pids")
	with groups(cell, roots, [("process", "a")]):
		images, before = dumped(cell, dumper)
		path = os.path.join(images, "cgroup.img")
		with open(path, "rb") as file:
			whole = file.read()
		place = own_group("/").encode() + b"/a"
		for forgery, error in ((whole.replace(place, (b"/../" + place)[:len(place)]), "cgroup is invalid"),
				       (whole.replace(place, b"x" + place[1:]), "cgroup is invalid"),
				       (whole.replace(b"\x08\x02", b"\x08\x05"), "set 2 is missing"),
				       (None, "cgroup.img is missing")):
			os.unlink(path)
			if forgery:
				with open(path, "wb") as file:
					file.write(forgery)
			expect_refusal(cell, restorer, images, error)
			with open(path, "wb") as file:
				file.write(whole)
		cell.restore(restorer, images)
		expect(cell, before, "after the restore")
		cell.finish()


def unusable(cell, dumper, restorer):
	"""A cgroup exists again, but no process can be moved into it yet: the error names it, and nothing is left."""
	[root] = hierarchies("cpuset")
	with groups(cell, [], []):
		for name in ("", "child"):
			group = make_group(root, name)
			for file in ("cpuset.cpus", "cpuset.mems"):
				write(os.path.join(group, file), system.read_text(os.path.join(root, file)))
		try:
			write(cell.path("places"), f"child {make_group(root, 'child')}\n")
			images, before = dumped(cell, dumper)
			os.rmdir(make_group(root, "child"))
			group = make_group(root, "child")
			expect_refusal(cell, restorer, images, "No space left")
			for file in ("cpuset.cpus", "cpuset.mems"):
				write(os.path.join(group, file), system.read_text(os.path.join(root, file)))
			cell.restore(restorer, images)
			expect(cell, before, "after the restore")
			cell.finish()
		finally:
			cell.kill_tree()
			remove_groups(root)


@contextlib.contextmanager
def criu_in(roots, name):
	"""Puts the harness, and whatever it starts, into another cgroup of these hierarchies."""
	before = [home(root) for root in roots]
	try:
		for root in roots:
			write(os.path.join(make_group(root, name), "cgroup.procs"), os.getpid())
		yield
	finally:
		for path in before:
			write(os.path.join(path, "cgroup.procs"), os.getpid())


def with_criu(cell, dumper, restorer):
	"""A process that was in the cgroups of the dumping criu is restored into those of the restoring criu; others into their own."""
	roots = hierarchies("", "pids", "memory")
	with groups(cell, roots, [("child", "child")]):
		images, before = dumped(cell, dumper)
		with criu_in(roots, "criu"):
			cell.restore(restorer, images)
			places = {key: where(os.getpid()) if key[0] == cell.root else before[key] for key in before}
			expect(cell, places, "restored by a criu that is elsewhere")
		cell.kill_tree()


def from_elsewhere(cell, dumper, restorer):
	"""criu's own cgroups make no difference to processes that are in other cgroups."""
	roots = hierarchies("", "pids", "memory")
	with groups(cell, roots, [("process", "process")]):
		with criu_in(roots, "dumps"):
			images, before = dumped(cell, dumper)
		with criu_in(roots, "restores"):
			cell.restore(restorer, images)
			expect(cell, before, "restored by a criu that is elsewhere")
		cell.pause()
		cell.finish()


def ignored(cell, dumper, restorer):
	"""--manage-cgroups=ignore for the dump or the restore: all tasks stay in criu's cgroups, even if their own no longer exist."""
	roots = hierarchies("", "pids")
	for number, (at_dump, at_restore) in enumerate((((), ("--manage-cgroups=ignore",)),
							(("--manage-cgroups=ignore",), ()))):
		with groups(cell, roots, [("process", "process"), ("child", "process/child")]):
			cell.start()
			images = cell.new_images(f"images{number}")
			before = all_places(cell)
			cell.dump(dumper, images, at_dump)
			for root in roots:
				os.rmdir(os.path.join(own_group(root), "process/child"))
			cell.restore(restorer, images, at_restore)
			expect(cell, {key: where(os.getpid()) for key in before}, "cgroups are ignored")
			cell.kill_tree()
		os.unlink(cell.path("ready"))
		cell.forget_verdict()


def moved(cell, dumper, restorer):
	"""--cgroup-root: the topmost cgroup of the tree becomes the given one."""
	root = hierarchies("pids", "")[0]
	name = "pids" if root.endswith("/pids") else ""
	top = f"/{leftovers.OWN_CGROUPS}{os.getpid()}"
	cases = (  # options of the dump, of the restore; the cgroups of the process and the child afterwards
		((), (), "/old", "/old/child"),
		((), (f"--cgroup-root={name}:{top}/new/",), "/new", "/new/child"),
		((f"--cgroup-root={name}:{top}",), (f"--cgroup-root={name}:{top}/new",), "/new/old", "/new/old/child"),
		((), (f"--cgroup-root={top}/nowhere", f"--cgroup-root={name}:{top}/new"), "/new", "/new/child"),
	)
	for number, (at_dump, at_restore, process, child) in enumerate(cases):
		with groups(cell, [root], [("process", "old"), ("child", "old/child")]):
			for path in ("new/child", "new/old/child"):
				make_group(root, path)
			cell.start()
			images = cell.new_images(f"images{number}")
			cell.dump(dumper, images, at_dump)
			if "nowhere" in str(at_restore):  # fails only if there are other hierarchies; the tree is in their roots
				if len(system.read_text("/proc/self/cgroup").splitlines()) > 1:
					expect_refusal(cell, restorer, images, "nowhere (", at_restore)
				at_restore = at_restore[1:]
			cell.restore(restorer, images, at_restore)
			found = [where(pid)[name] for pid in system.tree(cell.root)]
			if found != [top + process, top + child]:
				raise Failure(f"case {number}: {found}")
			cell.kill_tree()
		os.unlink(cell.path("ready"))
		cell.forget_verdict()


def charged(cell, dumper, restorer):
	"""The memory of a restored process is charged to its own cgroup, not to criu's."""
	[root] = hierarchies("memory")
	with groups(cell, [root], [("process", "")]):
		images, _ = dumped(cell, dumper)
		cell.restore(restorer, images)
		used = int(system.read_text(os.path.join(own_group(root), "memory.usage_in_bytes")))
		if used < 8 << 20:
			raise Failure(f"{used} bytes are charged, but the process has 8 MiB")
		cell.finish()


def cpuset_root():
	"""The hierarchy with cpusets: version 1, or version 2, where the controller has to be enabled for our own cgroups first."""
	root = hierarchies("cpuset", "")[0]
	if os.path.basename(root) == "cpuset":
		return root, False
	if "cpuset" not in system.read_text(os.path.join(root, "cgroup.controllers")).split():
		raise Skip("no cpusets here")
	for group in (root, make_group(root)):
		write(os.path.join(group, "cgroup.subtree_control"), "+cpuset")
	return root, True


def set_cpus(root, name, cpus):
	"""Sets the CPUs of one of our cgroups. In version 1 the cgroups above it need CPUs first."""
	if os.path.basename(root) == "cpuset":
		for group in (make_group(root), make_group(root, name)):
			write(os.path.join(group, "cpuset.mems"), system.read_text(os.path.join(root, "cpuset.mems")))
		write(os.path.join(make_group(root), "cpuset.cpus"), system.read_text(os.path.join(root, "cpuset.cpus")))
	write(os.path.join(make_group(root, name), "cpuset.cpus"), ",".join(map(str, sorted(cpus))))


def expect_cpus(cell, leader, child, thread):
	tids = system.threads(cell.root)
	children = [pid for pid in system.descendants(cell.root) if pid not in tids]
	for who, tid, cpus in (("process", tids[0], leader), ("child", children[0], child), ("thread", tids[1], thread)):
		found = os.sched_getaffinity(tid)
		if found != cpus:
			raise Failure(f"the {who} may run on CPUs {found}, not {cpus}")


def on_cpus(options):
	"""
	A task that may run on all CPUs of its cpuset may do so after the restore, also on CPUs that the cpuset gets later. A task that
	is restricted to some CPUs stays restricted. In version 1 a thread is in another cpuset than its process; in version 2 a child is.
	"""
	def course(cell, dumper, restorer):
		every = os.sched_getaffinity(0)
		if len(every) < 2:
			raise Skip("one CPU only")
		few, one = {min(every)}, {max(every)}
		root, is_second = cpuset_root()
		with groups(cell, [root], []):
			for name, cpus in (("few", few), ("all", every)):
				set_cpus(root, name, cpus)
			other = "child" if is_second else "thread"
			write(cell.path("places"), f"process {make_group(root, 'few')}\n{other} {make_group(root, 'all')}\n")
			cell.start()
			apart = system.descendants(cell.root)[0] if is_second else system.threads(cell.root)[1]
			os.sched_setaffinity(apart, one)
			placed = (few, one, few) if is_second else (few, few, one)
			widened = (every, one, every) if is_second else (every, every, one)
			expect_cpus(cell, *placed)
			images = cell.new_images()
			cell.dump(dumper, images, options)
			cell.restore(restorer, images)
			if not options:
				expect_cpus(cell, *placed)
				set_cpus(root, "few", every)
			expect_cpus(cell, *widened)
			if options:
				cell.kill_tree()
			else:
				cell.finish()
	return course


ALL = ("", "memory", "pids", "systemd")
OURS = ("ours",)
BOTH = ("ours", "ours-to-peer", "peer-to-ours", "peer")


def row(name, run, modes=(), **more):
	return Row(f"cgroup-{name}", "cgroups", run=run, modes=modes, **more)


ROWS = [
	row("process", in_groups(ALL, ("process", "a/b"))),
	row("child", in_groups(ALL, ("child", "a"))),
	row("process-alone", in_groups(ALL, ("process", "a"), ("child", HOME)),
	    without={"peer": "it has no cgroups for a child that is where the dumping criu was, and whose parent is not"}),
	row("apart", in_groups(ALL, ("process", "a"), ("child", "a/b"))),
	row("thread", in_groups(("memory", "pids"), ("process", "a"), ("thread", "b"))),
	row("only-thread", in_groups(("pids",), ("thread", "b"))),
	row("threaded", in_threaded),
	row("missing", missing, modes=("ours", "peer-to-ours")),
	row("forged", forged, modes=OURS),
	row("unusable", unusable, modes=OURS),
	row("frozen", frozen, modes=OURS),
	row("with-criu", with_criu, modes=BOTH),
	row("from-elsewhere", from_elsewhere, modes=BOTH),
	row("ignored", ignored, modes=OURS),
	row("root", moved, modes=("ours", "peer-to-ours")),
	row("charged", charged, modes=BOTH),
	row("cpus", on_cpus(()), modes=OURS),
	row("cpus-ignored", on_cpus(("--manage-cgroups=ignore",)), modes=OURS),
]
