"""refusals.py - what a plain dump cannot save: refused by name, all at once, before anything is changed."""

import os
import re

from harness.cell import Failure
from harness.row import Row

# thing -> a pattern that the error must contain
NAMED = {
	"deleted": r"a-deleted-file|deleted|ghost",
	"tcp": r"(?i)tcp|socket",
	"inotify": r"(?i)inotify",
	"io_uring": r"(?i)io_?uring",
	"userfaultfd": r"(?i)userfault",
	"locked": r"(?i)lock",
	"itself": r"/proc/\d+/status",
}


def refused(cell, dumper, _restorer):
	cell.start()
	cell.wait_ready()
	images = cell.new_images()
	run = dumper.dump(cell.root, images)
	if not run.failed:
		cell.reap()
		raise Failure("the dump succeeded")
	cell.check_running()
	cell.finish()
	unnamed = [thing for thing in cell.row.arguments if not re.search(NAMED[thing], run.error)]
	if unnamed:
		raise Failure(f"not named in the error: {', '.join(unnamed)}\n{run.error}")
	if os.path.exists(os.path.join(images, "inventory.img")):
		raise Failure("the directory looks complete: it has inventory.img")


def row(name, *things, **more):
	return Row(f"refused-{name}", "refused", arguments=things, run=refused, modes=("ours", "peer"), **more)


ROWS = [
	row("deleted", "deleted"),
	row("tcp", "tcp"),
	row("inotify", "inotify", peer_fails={"dump": "it saves inotify, and does not refuse it"}),
	row("io-uring", "io_uring", peer_fails={"dump": "its error does not name it"}),
	row("userfaultfd", "userfaultfd"),
	row("lock", "locked"),
	row("itself", "itself", peer_fails={"dump": "it saves the path, and the restored process reads of itself again"}),
	row("all-at-once", "deleted", "tcp", "io_uring", "userfaultfd",
	    peer_fails={"dump": "it tells the first refusal only"}),
]
