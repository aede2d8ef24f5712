"""refusals.py - state that criu cannot save: a dump names all of it in one run, and refuses before it changes anything."""

import os
import re

from harness.cell import Failure
from harness.row import Row

# thing -> a pattern that the error must contain
NAMED = {
	"crowd": "", # 150 threads, which are nothing to refuse
	"tcp": r"(?i)tcp|socket",
	"io_uring": r"(?i)io_?uring",
	"userfaultfd": r"(?i)userfault",
	"locked": r"(?i)lock",
	"tcp-state": r"127\.0\.0\.1:\d+ - 127\.0\.0\.1:\d+\) is a TCP connection",
	"like-a-segment": r"memory at 0x[0-9a-f]+ \(/SYSV00000001 \(deleted\)\): a deleted file that is called like a segment",
	"secret": r"descriptor \d+ .* is secret memory",
	"secret-mapped": r"memory at 0x[0-9a-f]+ .* is secret memory",
	"pidfd": r"is a pidfd of process \d+ \(.*\), which is not in the tree",
	"namespace": r"is a namespace that is neither criu's own nor that of a process",
	"other-link": r"its path was deleted, and only other links",
	"hidden-mount": r"is in a detached mount",
	"children-pid": r"process \d+ .*children in another pid namespace",
	"children-time": r"process \d+ .*children in another time namespace",
	"thread-pid": r"thread \d+ creates its children in another pid namespace.* 1 other",
	"thread-time": r"thread \d+ creates its children in another time namespace.* 1 other",
	"thread-net": r"thread \d+ is in another network namespace.* 1 other",
	"thread-ipc": r"thread \d+ is in another ipc namespace.* 1 other",
	"thread-uts": r"thread \d+ is in another uts namespace.* 1 other",
	"thread-cgroup": r"thread \d+ is in another cgroup namespace.* 1 other",
	"thread-mnt": r"thread \d+ has its own root, working directory, umask or mount namespace.* 1 other",
	"thread-fs": r"thread \d+ has its own root, working directory, umask or mount namespace.* 1 other",
	"thread-files": r"thread \d+ has its own table of open files.* 1 other",
}

# Refused by ours; the peer does not notice them.
APART = ("children-pid", "thread-pid", "thread-time", "thread-net", "thread-ipc", "thread-uts",
	 "thread-cgroup", "thread-mnt", "thread-fs", "thread-files")


def refused(cell, dumper, _restorer):
	cell.start()
	images = cell.new_images()
	run = dumper.dump(cell.root, images)
	if not run.failed:
		cell.reap()
		raise Failure("the dump succeeded")
	cell.check_running()
	cell.finish()
	unnamed = [thing for thing in cell.row.arguments if not re.search(NAMED[thing], run.error)]
	if unnamed:
		raise Failure(f"the error does not name: {', '.join(unnamed)}\n{run.error}")
	if os.path.exists(os.path.join(images, "inventory.img")):
		raise Failure("the directory looks complete: it has inventory.img")


def row(name, *things, **more):
	return Row(f"refused-{name}", "refused", arguments=things, run=refused, modes=("ours", "peer"), **more)


WORDS = ("tcp-state", "secret", "secret-mapped", "pidfd", "namespace", "other-link", "hidden-mount", "like-a-segment")

ROWS = [
	row("tcp", "tcp"),
	row("userfaultfd", "userfaultfd"),
	row("lock", "locked"),
	*[row(thing, thing, peer_fails={"dump": "its errors have other words, or it saves it"}) for thing in WORDS],
	row("all-at-once", "other-link", "tcp", "io_uring", "userfaultfd",
	    peer_fails={"dump": "it reports only the first refusal"}),
	row("children-time", "children-time", peer_fails={"dump": "its error does not name it"}),
	*[row(thing, thing, peer_fails={"dump": "it does not see it"}) for thing in APART],
	*[row("crowd-" + thing, "crowd", thing, peer_fails={"dump": "it does not see it"}) for thing in APART],
]
