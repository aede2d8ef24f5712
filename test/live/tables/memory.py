"""memory.py - unusual memory: another kernel's vdso, heaps that grew apart, names, thousands of mappings, corner cases."""

import ctypes
import errno
import os
import re
import shutil
import struct
import subprocess

from harness import chains, modes, system
from harness.cell import ROOT, Failure, Skip
from harness.row import Row

PAGE = 4096
NEW_KERNEL = {"dump": "it does not save it", "restore": "it does not restore it"}

# A vdso of another kernel: this kernel's own vdso, changed in the images

def read_vdso():
	"""The bytes of this kernel's vdso, which is the same in every process."""
	with open("/proc/self/maps") as maps:
		start, end = next([int(part, 16) for part in line.split()[0].split("-")] for line in maps if "[vdso]" in line)
	with open("/proc/self/mem", "rb") as memory:
		memory.seek(start)
		return memory.read(end - start)


def functions(vdso):
	"""{name: offset} of the functions in an ELF file of one segment."""
	offset, entry_size, count = struct.unpack_from("<Q14xHH", vdso, 32)
	found = {}
	for i in range(count):
		kind, _, start, _, _, size, _, _ = struct.unpack_from("<IIQQQQQQ", vdso, offset + i * entry_size)
		if kind != 2:  # PT_DYNAMIC
			continue
		tags = dict(struct.unpack_from("<QQ", vdso, start + at) for at in range(0, size, 16))
		symbols, names = tags[6], tags[5]
		for at in range(symbols, names - 23, 24):
			name, info, _, section, value, _ = struct.unpack_from("<IBBHQQ", vdso, at)
			if info & 15 == 2 and section:
				found[vdso[names + name:vdso.index(0, names + name)].decode()] = value
	return found


def disfigure(vdso):
	"""Returns a vdso with another build id, whose functions end the process: a function that is not redirected is noticed."""
	changed = bytearray(vdso)
	note = vdso.index(b"GNU\0") + 4
	changed[note] ^= 0xff
	for value in functions(vdso).values():
		changed[value:value + 16] = b"\xcc" * 16
	return bytes(changed)


def replace_vdso(images):
	old, count = read_vdso(), 0
	new = disfigure(old)
	for name in os.listdir(images):
		if not name.startswith("pages-"):
			continue
		path = os.path.join(images, name)
		with open(path, "rb") as file:
			content = file.read()
		at = content.find(old)
		if at >= 0:
			with open(path, "r+b") as file:
				file.seek(at)
				file.write(new)
			count += 1
	if not count:
		raise Failure("the images have no vdso")


def other_kernel(cell, dumper, restorer):
	"""Restores a process of the other kernel, then dumps and restores it twice on this one."""
	cell.start()
	for number in range(3):
		cell.pause()
		images = cell.new_images(f"images{number}")
		cell.dump(dumper, images)
		if number < 2:  # in the second dump the parked vdso is made to be of another kernel, too
			replace_vdso(images)
		cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def fixed_addresses(cell, dumper, restorer):
	"""Without address randomization the program and criu have memory at the same addresses."""
	command = ["setarch", "-R", cell.program(), cell.directory, *cell.row.arguments]
	cell.start(command)
	for number in range(2):
		cell.pause()
		images = cell.new_images(f"images{number}")
		cell.dump(dumper, images)
		without_randomization(cell.restore, restorer, images)
	cell.pause()
	cell.finish()


def without_randomization(function, *arguments):
	libc = ctypes.CDLL(None)
	old = libc.personality(0xffffffff)
	libc.personality(old | 0x0040000)  # ADDR_NO_RANDOMIZE: child processes inherit it
	try:
		function(*arguments)
	finally:
		libc.personality(old)


def static(cell, dumper, restorer):
	"""A statically linked executable at its fixed address, 0x400000."""
	sources = os.path.join(ROOT, "test", "live", "programs")
	program = cell.path("static")
	subprocess.run(["cc", "-O1", "-static", "-no-pie", "-pthread", "-I", sources, "-o", program,
			os.path.join(sources, "memory.c"), os.path.join(sources, "live.c")], check=True)
	cell.start([program, cell.directory])
	cell.pause()
	images = cell.new_images()
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


# Large processes: their mappings are read before the freeze

MADV_DONTFORK = 10


def advice(images, pid):
	"""{start: bits of advice} of all mappings in the images."""
	mm, = chains.records(chains.read(images, f"mm-{pid}.img"))
	return {chains.field(area, 1): chains.field(area, 9) for number, area, _ in chains.fields(mm) if number == 14}


def position(images, path):
	"""The position of the open file `path` in the images."""
	for entry in chains.records(chains.read(images, "files.img")):
		file = chains.field(entry, 3, b"")
		if chains.field(file, 6, b"").decode() == path:
			return chains.field(file, 3)
	raise Failure(f"the images do not have {path}")


def check_advice(cell, images):
	"""The saved position of a file tells the program's round. The saved advice of its mappings must be that of this round."""
	round_number, is_settled = divmod(position(images, cell.path("position")), 4)
	pid, *starts = system.read_text(cell.path("areas")).split()
	found = advice(images, pid)
	if not is_settled:
		return
	for start in starts:
		if (found[int(start, 16)] >> MADV_DONTFORK & 1) != round_number & 1:
			raise Failure(f"round {round_number}: the mapping at {start} has advice {found[int(start, 16)]:#x}")


def advice_changes(rounds):
	def course(cell, dumper, _restorer):
		cell.start()
		for number in range(rounds):
			images = cell.new_images(f"images{number}")
			cell.dump(dumper, images, ["-R"])
			check_advice(cell, images)
			shutil.rmtree(images)
		cell.finish()
	return course


def read_ahead(cell, dumper, _restorer):
	"""If a process does not change its mappings, criu uses what it read before the freeze."""
	cell.start()
	images = cell.new_images()
	log = cell.dump(dumper, images, ["-R"]).log
	check_advice(cell, images)
	cell.finish()
	refused = re.search(r"its mappings are not read ahead \(error (\d+)\)", log)
	if refused and int(refused[1]) in (errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENODEV, errno.ENOSYS):
		raise Skip("cannot count system calls here: " + os.strerror(int(refused[1])))
	if "its mappings have not changed since they were read ahead" not in log:
		raise Failure("the mappings were not read ahead")


BOTH_WAYS = ("ours", "peer-to-ours")
THREE_WAYS = ("ours", "ours-to-peer", "peer-to-ours")
LOST = {"dump": "its format has no place for it", "restore": "its format has no place for it"}
CORNERS = ("first", "last", "reserved", "beyond_end", "cut_off", "dev_zero", "grows_down")

def twin_without_room(cell, dumper, restorer):
	"""criu gets no memory to share with the twin: the process is saved while it is frozen."""
	if not shutil.which("strace"):
		raise Skip("there is no strace")
	cell.start()
	images = cell.new_images()
	run = cell.dump(dumper, images, ["-R", *modes.TWINS],
			inside=("strace", "-o", cell.path("strace"), "-e", "inject=memfd_create:error=EMFILE"))
	if "no twin: cannot create memory to share" not in run.log:
		raise Failure("the log does not say why there is no twin")
	cell.check_running()
	cell.kill_tree()
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


ROWS = [
	Row("memory-vdso", "vdso", unprivileged=True),
	Row("memory-vdso-none", "vdso", arguments=("none",), peer_fails={"restore": "it maps a vdso all the same"}),
	Row("memory-vdso-other-kernel", "vdso", run=other_kernel, modes=BOTH_WAYS),
	Row("memory-vdso-other-kernel-tree", "tree", run=other_kernel, modes=("ours",)),
	Row("memory-cow-grown", "cow_grown", peer_fails={"restore": "it shares no page of a heap whose size has changed"}),
	Row("memory-names", "anonymous_names", peer_fails=LOST),
	Row("memory-huge-pages", "huge_pages", peer_fails=LOST),
	*[Row("memory-huge-pages-" + what, "huge_pages", arguments=(what,), peer_fails=LOST)
	  for what in ("partly", "shared", "memfd", "private")],
	Row("memory-many", "many_areas", arguments=("20000",), modes=THREE_WAYS),
	*[Row("memory-corner-" + corner.replace("_", "-"), "corners", arguments=(corner,)) for corner in CORNERS],
	Row("memory-corner-droppable", "corners", arguments=("droppable",), peer_fails=LOST),
	Row("memory-corner-guard-shared", "corners", arguments=("guard_shared",)),
	Row("memory-corner-guard-file", "corners", arguments=("guard_file",)),
	Row("memory-corner-guard-file-tracked", "corners", arguments=("guard_file",), modes=("leave-running",),
	    dump_options=("--track-mem=written",)),
	Row("memory-corner-guard-locked", "corners", arguments=("guard_locked",), peer_fails={"restore": "it cannot lock it"}),
	*[Row("memory-corner-" + corner.replace("_", "-"), "corners", arguments=(corner,),
	      without=dict.fromkeys(("ours-to-peer", "chain-to-peer"),
				    "to it, shared memory ends with its mappings, if a dump says that it is anonymous"))
	  for corner in ("shared_cut", "shared_grown")],
	Row("memory-corner-locked-future", "corners", arguments=("locked_future",), peer_fails=LOST),
	Row("memory-corner-locked-on-fault", "corners", arguments=("locked_on_fault",), peer_fails=LOST),
	Row("memory-fixed-addresses", "memory", run=fixed_addresses, modes=BOTH_WAYS),
	Row("memory-fixed-addresses-tree", "cow_grown", run=fixed_addresses, modes=("ours",)),
	Row("memory-ahead", "advice_changes", arguments=("256", "quiet", "0"), run=read_ahead, modes=("ours",)),
	Row("memory-ahead-changes", "advice_changes", arguments=("256", "changing", "0"), run=advice_changes(40), modes=("ours",)),
	Row("memory-ahead-changes-late", "advice_changes", arguments=("64", "changing", "40"), run=advice_changes(8),
	    modes=("ours",)),
	*[Row("memory-protection-" + kind.replace("_", "-"), "protection", arguments=(kind,), peer_fails=LOST)
	  for kind in ("keys", "freed", "exec_only", "relatives", "seals")],
	Row("memory-twin-without-room", "memory", run=twin_without_room, modes=("ours",)),
	Row("memory-static", run=static, modes=THREE_WAYS),
]
