"""compressed.py - compressed pages (--compress): who refuses them, and damaged ones."""

import os
import subprocess

from harness import modes, system
from harness.cell import Failure
from harness.modes import dumped, restored
from harness.row import Row
from tables.bad_input import expect_error


COMPRESSED = ("--compress",)


def expect_refusal(cell, images):
	"""A program that does not know them refuses them before it creates anything."""
	expect_error(cell.peer.restore(images), "Not supported images version 3")
	if system.descendants(os.getpid()):
		raise Failure("the peer has left processes behind")


def other_program(cell, dumper, restorer):
	images = dumped(cell, dumper, COMPRESSED)
	expect_refusal(cell, images)
	restored(cell, restorer, images)


def dumped_after_compressed(cell, dumper):
	"""A plain dump, whose parent is compressed."""
	cell.start()
	cell.pre_dump(dumper, cell.new_images("images1"), COMPRESSED)
	cell.pause()
	images = cell.new_images("images2")
	cell.dump(dumper, images, ["--prev-images-dir", "../images1"])
	return images


def parent_only(cell, dumper, restorer):
	"""Others refuse it, too. If it is flattened, the new pages are compressed."""
	images = dumped_after_compressed(cell, dumper)
	modes.check_compressed(images, False)
	expect_refusal(cell, images)
	subprocess.run([cell.ours.path, "flatten", images], check=True, stdout=subprocess.DEVNULL)
	modes.check_compressed(images)
	expect_refusal(cell, images)
	restored(cell, restorer, images)


def freed(cell, dumper, restorer):
	images = dumped(cell, dumper, COMPRESSED)
	run = restored(cell, restorer, images, ["--auto-dedup"])
	if "is compressed: its pages cannot be freed" not in run.log:
		raise Failure("--auto-dedup was ignored")


def deduplicated(cell, dumper, restorer):
	images = dumped_after_compressed(cell, dumper)
	run = subprocess.run([cell.ours.path, "dedup", "-D", images], capture_output=True, text=True)
	if not run.returncode or "is compressed: its pages cannot be freed" not in run.stderr:
		raise Failure(f"dedup: {run.returncode} {run.stderr}")
	restored(cell, restorer, images)


def one_of(images):
	return max((os.path.join(images, name) for name in modes.pages_images(images)), key=os.path.getsize)


def flip(path):
	with open(path, "r+b") as file:
		file.seek(os.path.getsize(path) // 2)
		file.write(b"\xff" * 64)


def cut(path):
	os.truncate(path, os.path.getsize(path) - 1)


def empty(path):
	os.truncate(path, 0)


def damaged(how, pattern):
	def course(cell, dumper, restorer):
		images = dumped(cell, dumper, COMPRESSED)
		how(one_of(images))
		expect_error(cell.ours.restore(images), pattern)
		cell.reap()
		if system.descendants(os.getpid()):
			raise Failure("the restore has left processes behind")
	return course


def small_and_auto(cell, dumper, restorer):
	"""What is small is not worth it: the images are those of any dump."""
	images = dumped(cell, dumper, ["--compress=auto"])
	modes.check_compressed(images, False)
	restored(cell, restorer, images)


def large_and_auto(cell, dumper, restorer):
	images = dumped(cell, dumper, ["--compress=auto"])
	modes.check_compressed(images)
	restored(cell, restorer, images)


def frozen_and_auto(cell, dumper, restorer):
	"""A tree that runs on does not stay frozen until the speed of the disk is known."""
	images = dumped(cell, dumper, ["--compress=auto", "-R", "--twin=never"])
	modes.check_compressed(images, False)
	cell.check_running()
	cell.pause()
	modes.finish_whole(cell)


ROWS = [
	Row("compressed-for-others", "memory", run=other_program, modes=("ours",)),
	Row("compressed-parent", "memory", run=parent_only, modes=("ours",)),
	Row("compressed-freed", "memory", run=freed, modes=("ours",)),
	Row("compressed-dedup", "memory", run=deduplicated, modes=("ours",)),
	Row("compressed-flipped", "large", arguments=("8",), run=damaged(flip, r"pages-lz4-\d+.img is damaged"), modes=("ours",)),
	Row("compressed-cut", "large", arguments=("8",), run=damaged(cut, r"pages-lz4-\d+.img is damaged"), modes=("ours",)),
	Row("compressed-empty", "memory", run=damaged(empty, r"pages-lz4-\d+.img is damaged"), modes=("ours",)),
	Row("compressed-auto-small", "memory", run=small_and_auto, modes=("ours", "ours-to-peer")),
	Row("compressed-auto-frozen", "large", arguments=("96",), run=frozen_and_auto, modes=("ours",)),
	Row("compressed-auto-large", "large", arguments=("96",), run=large_and_auto, modes=("ours",)),
]
