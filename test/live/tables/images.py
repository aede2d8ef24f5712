"""images.py - the directory of images: its permissions, and whether other tools can read it."""

import json
import os
import shutil
import stat
import subprocess

from harness import chains
from harness.cell import Failure, Skip
from harness.row import Row


def dumped(cell, dumper):
	cell.start()
	images = cell.path("images")
	cell.dump(dumper, images)
	return images


def private(cell, dumper, _restorer):
	"""Images hold the memory of other users: a directory that criu creates has mode 0700, every file 0600."""
	images = dumped(cell, dumper)
	modes = {path: stat.S_IMODE(os.stat(path).st_mode) for path in
		 [images] + [os.path.join(images, name) for name in os.listdir(images)]}
	wrong = [f"{path} has mode {mode:o}" for path, mode in modes.items() if mode & 0o077]
	if wrong:
		raise Failure("\n".join(wrong))


def decoded_by_crit(cell, dumper, _restorer):
	"""Debian's crit shows every image, and the tree, its descriptors and its memory."""
	if not shutil.which("crit"):
		raise Skip("crit is not installed")
	os.mkdir(cell.path("images"))
	images = dumped(cell, dumper)
	commands = [["crit", "show", os.path.join(images, name)] for name in sorted(os.listdir(images))
		    if name.endswith(".img") and not name.startswith("pages-")]
	commands += [["crit", "x", images, what] for what in ("ps", "fds", "mems")]
	for command in commands:
		run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
				     text=True)
		if run.returncode != 0:
			raise Failure(f"{' '.join(command)}: {run.stdout[-1000:]}")


NOT_CRITS = ("hashes-", "tracking")  # images that only this criu has
MISREAD = "nr_pages"                 # crit 4.1.1 shows 0 if the older field is missing


def contradiction(ours, crits, where):
	"""The first difference, or None. Ours knows more fields; those that crit knows must have the same numbers and names of values."""
	if isinstance(crits, dict) and isinstance(ours, dict):
		missing = set(crits) - set(ours) - {"extra"}
		if missing:
			return f"{where}: without {missing}"
		found = [contradiction(ours[key], crits[key], f"{where}.{key}") for key in crits if key in ours and key != MISREAD]
		return next(filter(None, found), None)
	if isinstance(crits, list) and isinstance(ours, list):
		if len(ours) != len(crits):
			return f"{where}: {len(ours)} and not {len(crits)}"
		return next(filter(None, (contradiction(*pair, where) for pair in zip(ours, crits))), None)
	if isinstance(crits, int) and isinstance(ours, int) and ours != crits:
		return f"{where}: {ours} and not {crits}"
	return None


def shown_as_by_crit(cell, dumper, _restorer):
	"""criu show --json IMAGE shows the fields and numbers that crit shows."""
	if not shutil.which("crit"):
		raise Skip("crit is not installed")
	os.mkdir(cell.path("images"))
	images = dumped(cell, dumper)
	for name in sorted(os.listdir(images)):
		path = os.path.join(images, name)
		if not name.endswith(".img") or name.startswith(NOT_CRITS):
			continue
		show = subprocess.run([cell.ours.path, "show", "--json", path], capture_output=True, text=True)
		if show.returncode:
			if "is not the name of an image" not in show.stderr:
				raise Failure(show.stderr)
			continue
		if name.startswith("pages-"):
			continue
		decoded = subprocess.run(["crit", "decode", "-i", path], capture_output=True, text=True, check=True)
		wrong = contradiction(json.loads(show.stdout)["entries"], json.loads(decoded.stdout)["entries"], name)
		if wrong:
			raise Failure(wrong)


def pages_id(images, name):
	return chains.read_pagemap(images, name)[0]


def order_of_pages(cell, dumper, _restorer):
	"""Tools that know only one process and one pages image read pages-1.img, so it must be that of the first process."""
	cell.start()
	for action, images in ((cell.pre_dump, "pre"), (cell.dump, "images")):
		action(dumper, cell.new_images(images))
		shared = [pages_id(cell.path(images), name) for name in os.listdir(cell.path(images)) if name.startswith("pagemap-shmem-")]
		private = [pages_id(cell.path(images), name) for name in os.listdir(cell.path(images))
			   if name.startswith("pagemap-") and not name.startswith("pagemap-shmem-")]
		if len(private) != 3 or not shared:
			raise Failure(f"{images}: the wrong images: {sorted(os.listdir(cell.path(images)))}")
		if pages_id(cell.path(images), f"pagemap-{cell.root}.img") != 1 or max(private) > min(shared):
			raise Failure(f"{images}: private memory is in {private}, shared memory in {shared}")


MAP_SHARED, MEMFD = 1, 18


def shared_mappings(images, pid):
	"""For each shared mapping: what it is, how it is mapped, and the name of the memory that its file leads to."""
	entries = chains.records(chains.read(images, "files.img"))
	files = {chains.field(entry, 2): chains.field(entry, 20, b"") for entry in entries if chains.field(entry, 1) == MEMFD}
	names = {chains.field(inode, 7): chains.field(inode, 1) for inode in chains.records(chains.read(images, "memfd.img"))}
	mm, = chains.records(chains.read(images, f"mm-{pid}.img"))
	areas = [dict((number, value) for number, value, _ in chains.fields(area)) for kind, area, _ in chains.fields(mm) if kind == 14]
	return [{"offset": area[3], "protection": area[5], "flags": area[6], "status": area[7], "opened": area.get(10),
		 "memory": names.get(chains.field(files.get(area[4], b""), 5))} for area in areas if area[6] & MAP_SHARED]


def as_the_peer_has_it(cell, dumper, restorer):
	"""The images of shared anonymous memory that is open as a file are like those of criu 4.2.1."""
	cell.start()
	found = []
	for criu, images in ((dumper, "images1"), (restorer, "images2")):
		cell.dump(criu, cell.new_images(images), ["-R"])
		found.append(shared_mappings(cell.path(images), cell.root))
	if not found[0] or found[0] != found[1]:
		raise Failure(f"{found[0]}, the peer's {found[1]}")
	cell.finish()


ROWS = [
	Row("images-mapped-as-file", "mapped_as_file", arguments=("rest",), run=as_the_peer_has_it, modes=("ours-to-peer",)),
	Row("images-pages-order", "memory_shared", run=order_of_pages, modes=("ours",)),
	Row("images-private", "counter", run=private, modes=("ours", "peer"),
	    peer_fails={"dump": "it makes no directory, and its images can be read by all"}),
	Row("images-show", "pipes", arguments=("anonymous",), run=shown_as_by_crit, modes=("ours", "peer")),
	Row("images-show-shared", "memory_shared", run=shown_as_by_crit, modes=("ours", "peer")),
	Row("images-crit", "pipes", arguments=("anonymous",), run=decoded_by_crit, modes=("ours", "peer")),
	Row("images-crit-shared", "memory_shared", run=decoded_by_crit, modes=("ours", "peer")),
]
