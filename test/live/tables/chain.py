"""chain.py - chains of snapshots: restored, deduplicated, flattened, broken. Most are made from one full dump (harness/chains.py)."""

import json
import os
import re
import resource
import shutil
import subprocess

from harness import chains
from harness.cell import Failure
from harness.modes import restored
from harness.row import Row
from tables.bad_input import expect_error

LAYERS = 6


def dumped(cell, dumper, layers=LAYERS, seed=1, split_one=chains.split_pagemap):
	"""Dumps the program and turns the dump into a chain. Returns its directories, the newest first."""
	cell.start()
	cell.pause()
	images = cell.new_images()
	cell.dump(dumper, images)
	return chains.split(images, layers, seed, split_one)


def run(cell, *arguments):
	"""Runs our criu, which has to succeed, and returns what it printed."""
	done = subprocess.run([cell.ours.path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
			      stderr=subprocess.STDOUT, text=True)
	if done.returncode:
		raise Failure(f"criu {' '.join(arguments)}: {done.returncode}\n{done.stdout}")
	return done.stdout


def disk(directories):
	return sum(os.stat(os.path.join(directory, name)).st_blocks * 512
		   for directory in directories for name in os.listdir(directory) if name.startswith("pages-"))


# Restored

def restore(layers):
	def course(cell, dumper, restorer):
		restored(cell, restorer, dumped(cell, dumper, layers)[0])
	return course


def dealt(cell, dumper, restorer):
	"""Neighbouring pages are in different layers. So are those of the vdso, which must still be recognized as this kernel's."""
	images = dumped(cell, dumper, split_one=chains.deal_pagemap)[0]
	restored(cell, restorer, images)
	if restorer is cell.ours and b"the vdso of process" in chains.read(images, "restore.log"):
		raise Failure("the vdso was taken for another kernel's")


def with_few_descriptors(cell, dumper, restorer):
	"""Layers times tasks are more than the 1024 descriptors that criu may have, and it cannot get more."""
	resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))  # this worker runs only this test; the program gets the same limit
	restored(cell, restorer, dumped(cell, dumper, 100)[0])


# Deduplicated

def dedup(cell, dumper, restorer):
	directories = dumped(cell, dumper)
	before = disk(directories)
	said = run(cell, "dedup", "-D", directories[0])
	freed = int(re.search(r"(\d+) KiB", said).group(1)) << 10
	if not freed or disk(directories) != before - freed:
		raise Failure(f"{before} bytes before, {disk(directories)} after, but criu printed: {said}")
	again = run(cell, "dedup", "-D", directories[0])
	if not again.startswith("freed 0 pages in 0 of"):
		raise Failure(f"the second time criu printed: {again}")
	expect_error(cell.ours.restore(directories[1]), "has freed pages")
	restored(cell, restorer, directories[0])


def dedup_by_peer(cell, dumper, restorer):
	"""After the peer's dedup, ours does not let the parents grow, and the newest snapshot can still be restored."""
	directories = dumped(cell, dumper)
	done = cell.peer.run("dedup", directories[0])
	if done.failed:
		raise Failure(done.describe())
	before = disk(directories)
	run(cell, "dedup", "-D", directories[0])
	if disk(directories) > before:
		raise Failure("the parents have grown")
	restored(cell, restorer, directories[0])


def auto_dedup(cell, dumper, restorer):
	"""The restore frees the pages and marks the directory, so that a second restore does not take holes for memory."""
	directories = dumped(cell, dumper)
	restored(cell, restorer, directories[0], ["--auto-dedup"])
	for name in chains.pagemaps(directories[0]):
		pages_id, _ = chains.read_pagemap(directories[0], name)
		left = os.stat(os.path.join(directories[0], f"pages-{pages_id}.img")).st_blocks
		if left:
			raise Failure(f"pages-{pages_id}.img still has {left} blocks")
	cell.forget_verdict()
	expect_error(cell.ours.restore(directories[0]), "has freed pages")


# Flattened

def check_flat(directory):
	if os.path.lexists(os.path.join(directory, "parent")):
		raise Failure("the snapshot still has a parent")
	for name in chains.pagemaps(directory):
		_, entries = chains.read_pagemap(directory, name)
		if any(flags & chains.IN_PARENT for _, _, flags in entries):
			raise Failure(f"{name} still leaves pages to its parent")


def flatten(cell, dumper, restorer):
	directories = dumped(cell, dumper)
	run(cell, "flatten", directories[0])
	check_flat(directories[0])
	for directory in directories[1:]:
		shutil.rmtree(directory)
	restored(cell, restorer, directories[0])


def flatten_to_another(cell, dumper, restorer):
	directories, out = dumped(cell, dumper), cell.path("out")
	run(cell, "flatten", directories[0], "-o", out)
	check_flat(out)
	if os.stat(out).st_mode & 0o777 != 0o700:
		raise Failure("other users can read the directory")
	for directory in directories:
		shutil.rmtree(directory)
	restored(cell, restorer, out)


def flatten_deduplicated(cell, dumper, restorer):
	directories = dumped(cell, dumper)
	run(cell, "dedup", "-D", directories[0])
	run(cell, "flatten", "-D", directories[0])
	restored(cell, restorer, directories[0])


# Chains of real snapshots, taken one after the other

def snapshots(*after):
	"""The processes run on between the snapshots. `after`: commands of criu on the newest directory before it is restored."""
	def course(cell, dumper, restorer):
		cell.start()
		images = None
		for number in range(LAYERS):
			cell.pause()
			previous, images = images, cell.new_images(f"images{number}")
			options = [] if number == LAYERS - 1 else ["-R"]
			if previous:
				options += ["--prev-images-dir", os.path.join("..", os.path.basename(previous))]
			cell.dump(dumper, images, [*options, "--track-mem"])
		for command in after:
			run(cell, *(word.format(images) for word in command))
		restored(cell, restorer, images)
	return course


# Shown

def shown(cell, dumper, restorer):
	"""`criu show` tells how much each snapshot has; the numbers must be those of the images."""
	directories = dumped(cell, dumper)
	flat = cell.path("flat")
	facts = json.loads(run(cell, "show", "--json", directories[0]))
	text = run(cell, "show", directories[0])
	run(cell, "flatten", directories[0], "-o", flat)
	names = [os.path.realpath(directory) for directory in directories]
	total = sum(count for name in chains.pagemaps(flat) for _, count, _ in chains.read_pagemap(flat, name)[1])
	if [layer["directory"] for layer in facts["chain"]] != names:
		raise Failure(f"the chain is {facts['chain']}, not {names}")
	if sum(layer["used"] for layer in facts["chain"]) != total * chains.PAGE:
		raise Failure(f"{facts['chain']}: the sum should be {total} pages")
	if f"a chain of {LAYERS} snapshots" not in text or "problem" in facts:
		raise Failure(text)
	os.rename(directories[2], directories[2] + ".moved")
	if "CANNOT BE RESTORED: the parent of " not in run(cell, "show", directories[0]):
		raise Failure("criu show does not say that a parent is missing")
	os.rename(directories[2] + ".moved", directories[2])
	restored(cell, restorer, directories[0])


# Broken

def remove_parent(directories):
	shutil.rmtree(directories[2])


def make_loop(directories):
	link = os.path.join(directories[-1], "parent")
	os.symlink(directories[0], link)


def remove_inventory(directories):
	os.unlink(os.path.join(directories[3], "inventory.img"))


def change_identity(directories):
	chains.set_identity(directories[3], 4711, 0)


def remove_link(directories):
	os.unlink(os.path.join(directories[0], "parent"))


def largest_pagemap(directory):
	return max(chains.pagemaps(directory), key=lambda name: os.stat(os.path.join(directory, name)).st_size)


def remove_pagemap(directories):
	os.unlink(os.path.join(directories[2], largest_pagemap(directories[2])))


def remove_entries(directories):
	name = largest_pagemap(directories[1])
	pages_id, entries = chains.read_pagemap(directories[1], name)
	chains.write_pagemap(directories[1], name, pages_id, [entry for entry in entries if entry[2] & chains.PRESENT])


def shorten_pages(directories):
	pages_id, _ = chains.read_pagemap(directories[4], largest_pagemap(directories[4]))
	path = os.path.join(directories[4], f"pages-{pages_id}.img")
	os.truncate(path, os.stat(path).st_size - 1)


def turn_round(directories):
	name = largest_pagemap(directories[3])
	pages_id, entries = chains.read_pagemap(directories[3], name)
	chains.write_pagemap(directories[3], name, pages_id, entries[::-1])


def overlap(directories):
	name = largest_pagemap(directories[3])
	pages_id, entries = chains.read_pagemap(directories[3], name)
	entries.insert(1, (entries[0][0], 1, chains.IN_PARENT))
	chains.write_pagemap(directories[3], name, pages_id, entries)


BROKEN = {
	"missing-parent": (remove_parent, "the parent of .* is missing: there is no "),
	"loop": (make_loop, "which builds on it"),
	"incomplete-parent": (remove_inventory, "is not a complete snapshot"),
	"other-tree": (change_identity, "is not the snapshot that it was made after"),
	"no-link": (remove_link, "to a parent snapshot, and there is no link 'parent'"),
	"missing-pagemap": (remove_pagemap, "has no such page"),
	"missing-pages": (remove_entries, "has no such page"),
	"short": (shorten_pages, "is too short"),
	"unsorted": (turn_round, "is not sorted"),
	"overlap": (overlap, "is not sorted"),
}


def broken(how, pattern):
	"""The restore fails before any task exists. Nothing is left behind, and nothing has changed."""
	def course(cell, dumper, _restorer):
		directories = dumped(cell, dumper)
		how(directories)
		for options in ([], ["-S"]):
			expect_error(cell.ours.restore(directories[0], options), pattern)
	return course


def flatten_without_link(cell, dumper, _restorer):
	"""A snapshot that was copied without its parent cannot be flattened."""
	directories = dumped(cell, dumper)
	os.unlink(os.path.join(directories[0], "parent"))
	try:
		said = run(cell, "flatten", directories[0])
	except Failure as failure:
		said = str(failure)
	if "to a parent snapshot, and there is no link 'parent'" not in said:
		raise Failure(f"the error does not say what is missing: {said}")


def without_shared_pagemap(cell, dumper, _restorer):
	"""If the pagemap of shared memory is missing, the restore fails: it must not take the memory for zeros."""
	directories = dumped(cell, dumper)
	for name in os.listdir(directories[0]):
		if name.startswith("pagemap-shmem-"):
			os.unlink(os.path.join(directories[0], name))
	expect_error(cell.ours.restore(directories[0]), r"pagemap-shmem-\d+.img is missing")


def upon_old_images(cell, dumper, restorer):
	"""Images that an earlier dump has left in the directory do not become part of this one."""
	cell.start()
	cell.pause()
	images = cell.new_images()
	for name in ("memfd.img", "filelocks.img", "tty-data.img", "pagemap-shmem-1.img", "timens-0.img", "pagemap-1.img"):
		with open(os.path.join(images, name), "wb") as file:
			file.write(b"of an earlier dump")
	cell.dump(dumper, images)
	restored(cell, restorer, images)


THREE_WAYS = ("ours", "ours-to-peer", "peer-to-ours")

ROWS = [
	*[Row(f"chain-{program}", program, run=restore(LAYERS), modes=THREE_WAYS)
	  for program in ("memory", "memory_shared", "cow", "tree")],
	Row("chain-threads", "threads", arguments=("4",), run=restore(LAYERS), modes=THREE_WAYS),
	*[Row(f"chain-dealt-{program}", program, run=dealt, modes=THREE_WAYS) for program in ("memory", "memory_shared", "cow")],
	Row("chain-huge-pages", "huge_pages", run=restore(LAYERS), modes=("ours",)),
	Row("chain-cow-grown", "cow_grown", run=restore(LAYERS), modes=("ours",)),
	Row("chain-of-two", "memory", run=restore(2), modes=THREE_WAYS),
	Row("chain-of-100", "large", arguments=("32",), run=restore(100), modes=THREE_WAYS, timeout=120),
	Row("chain-few-descriptors", "processes", arguments=("100",), run=with_few_descriptors, modes=("ours",), timeout=180),
	Row("chain-dedup", "memory", run=dedup, modes=THREE_WAYS),
	Row("chain-dedup-by-peer", "memory", run=dedup_by_peer, modes=("ours", "ours-to-peer")),
	Row("chain-dedup-shared", "memory_shared", run=dedup, modes=("ours",)),
	Row("chain-auto-dedup", "memory", run=auto_dedup, modes=("ours", "peer-to-ours")),
	Row("chain-flatten", "memory", run=flatten, modes=THREE_WAYS),
	Row("chain-flatten-shared", "memory_shared", run=flatten, modes=THREE_WAYS),
	Row("chain-flatten-tree", "cow", run=flatten_to_another, modes=THREE_WAYS),
	Row("chain-flatten-without-link", "memory", run=flatten_without_link, modes=("ours",)),
	Row("chain-without-shared-pagemap", "memory_shared", run=without_shared_pagemap, modes=("ours",)),
	Row("images-upon-old-ones", "memory_shared", run=upon_old_images, modes=("ours",)),
	Row("chain-flatten-to-another", "memory", run=flatten_to_another, modes=THREE_WAYS),
	Row("chain-flatten-deduplicated", "memory", run=flatten_deduplicated, modes=("ours",)),
	*[Row(f"chain-snapshots-{program}", program, run=snapshots(), modes=("ours", "ours-to-peer"))
	  for program in ("counter", "memory", "memory_shared", "cow")],
	Row("chain-snapshots-dedup", "memory", run=snapshots(("dedup", "-D", "{}")), modes=("ours", "ours-to-peer")),
	Row("chain-snapshots-flatten", "memory", run=snapshots(("flatten", "{}")), modes=("ours", "ours-to-peer")),
	Row("chain-snapshots-flatten-shared", "memory_shared", run=snapshots(("dedup", "-D", "{}"), ("flatten", "{}")),
	    modes=("ours",)),
	Row("chain-shown", "memory_shared", run=shown, modes=("ours",)),
	*[Row(f"chain-broken-{name}", "memory", run=broken(how, pattern), modes=("ours",))
	  for name, (how, pattern) in BROKEN.items()],
]
