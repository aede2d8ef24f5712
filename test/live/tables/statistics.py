"""statistics.py - criu show --stats: where the time of a dump and a restore went."""

import json
import os
import re
import shutil
import subprocess

from harness import system
from harness.cell import Failure
from harness.row import Row


def named_steps(source, table):
	"""The names of a table of steps, in their order."""
	body = re.search(table + r"\[\] = \{\n(.*?)\n\};", system.read_text(os.path.join(system.ROOT, source)), re.S).group(1)
	return re.findall(r'^\t\{ "([^"]+)"', body, re.M)


def check_steps(times, expected):
	"""They follow each other, and there is nearly nothing between them."""
	if [step["name"] for step in times["steps"]] != expected:
		raise Failure(f"the steps are {times['steps']}, not {expected}")
	end = 0
	for step in times["steps"]:
		if step["begin"] < end:
			raise Failure(f"{step} begins before {end}")
		end = step["begin"] + step["duration"]
	total = sum(step["duration"] for step in times["steps"])
	if not 0.9 * times["whole"] - 5000 <= total <= times["whole"] or end > times["whole"]:
		raise Failure(f"the steps took {total} us and ended after {end} of {times['whole']}")


def show_stats(cell, *arguments):
	return subprocess.run([cell.ours.path, "show", "--stats", *arguments], capture_output=True, text=True,
			      stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"})


def expect_no_stats(cell, directory, reason):
	for options in ([], ["--json"]):
		run = show_stats(cell, *options, directory)
		if run.returncode != 1 or reason not in run.stderr or run.stdout:
			raise Failure(f"{reason}: {run}")


def check_shown_stats(cell, images):
	facts = json.loads(show_stats(cell, "--json", images).stdout)
	dump, restore = facts["dump"], facts["restore"]
	check_steps(dump, named_steps("criu/dump/dump.c", "dump_steps"))
	check_steps(restore, named_steps("criu/restore/restore.c", "restore_steps"))
	freeze = next(step for step in dump["steps"] if step["name"] == "freeze the processes")
	if not freeze["begin"] <= dump["frozen"]["begin"] <= freeze["begin"] + freeze["duration"] <= dump["frozen"]["end"] <= dump["whole"]:
		raise Failure(f"frozen {dump['frozen']}, but {freeze}")
	pages = sum(os.path.getsize(os.path.join(images, name)) for name in os.listdir(images) if name.startswith("pages-"))
	written = sum(dump[key]["bytes"] for key in ("page_cache", "disk") if key in dump)
	if written != pages or dump["memory_read"]["bytes"] < pages or restore["memory_filled"]["bytes"] > pages:
		raise Failure(f"{pages} bytes of pages: {dump} {restore}")
	text = show_stats(cell, "-D", images).stdout
	lines = text.splitlines()
	if not lines[0].startswith("dump: ") or not any(line.startswith("restore: ") for line in lines):
		raise Failure(text)
	if any(len(line) != 80 for line in lines if line.endswith("|")) or not text.isascii():
		raise Failure(text)


def forge(path, offset):
	with open(path, "r+b") as file:
		file.seek(offset)
		byte = file.read(1)
		file.seek(offset)
		file.write(bytes([byte[0] ^ 0xff]))


def shown_times(cell, dumper, restorer):
	"""criu show --stats: all steps, that add up; clear errors for other files; nothing that crit cannot read."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	check_shown_stats(cell, images)
	if shutil.which("crit"):
		for name in ("stats-dump", "stats-restore"):
			subprocess.run(["crit", "show", os.path.join(images, name)], check=True, capture_output=True)
	expect_no_stats(cell, cell.new_images("empty"), "there is neither stats-dump nor stats-restore")
	for offset in range(0, os.path.getsize(os.path.join(images, "stats-dump")), 7):
		shutil.copy(os.path.join(images, "stats-dump"), cell.path("empty"))
		forge(cell.path("empty", "stats-dump"), offset)
		run = show_stats(cell, cell.path("empty"))
		if run.returncode not in (0, 1):
			raise Failure(f"byte {offset} forged: {run}")
	os.truncate(cell.path("empty", "stats-dump"), 20)
	expect_no_stats(cell, cell.path("empty"), "stats-dump")
	cell.finish()


def times_of_the_peer(cell, dumper, restorer):
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	expect_no_stats(cell, images, "stats-dump does not tell when the steps ran")
	cell.restore(restorer, images)
	text = show_stats(cell, images).stdout
	if not text.startswith("dump: its file does not tell when") or "\nrestore: " not in text:
		raise Failure(text)
	cell.finish()


ROWS = [
	Row("stats-shown", "memory_shared", run=shown_times, modes=("ours",)),
	Row("stats-of-the-peer", "counter", run=times_of_the_peer, modes=("peer-to-ours",)),
]
