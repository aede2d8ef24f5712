"""refusals.py - state that criu cannot save: a dump names all of it in one run, and refuses before it changes anything."""

import os
import re

from harness.cell import Failure
from harness.row import Row

# thing -> a pattern that the error must contain
NAMED = {
	"crowd": "", # 150 threads, which are nothing to refuse
	"deleted": r"a-deleted-file|deleted|ghost",
	"tcp": r"(?i)tcp|socket",
	"inotify": r"(?i)inotify",
	"io_uring": r"(?i)io_?uring",
	"userfaultfd": r"(?i)userfault",
	"locked": r"(?i)lock",
	"itself": r"/proc/\d+/status",
	"tcp-state": r"is an IPv4 stream socket \(TCP\), established, 127\.0\.0\.1:\d+, to 127\.0\.0\.1:\d+, which",
	"queue": r"\(/criu-live-queue\) is a POSIX message queue",
	"queue-removed": r"\(/criu-live-queue-gone \(deleted\)\) is a POSIX message queue",
	"queue-like-a-file": r"\(/etc\) is a POSIX message queue",
	"secret": r"descriptor \d+ .* is secret memory",
	"secret-mapped": r"memory at 0x[0-9a-f]+ .* is secret memory",
	"pidfd": r"is a pidfd",
	"fanotify": r"is a fanotify",
	"namespace": r"is a namespace",
	"device": r"is the character device 1:11",
	"symbolic": r"a-link\) is a symbolic link",
	"other-link": r"its path was deleted, and only other links",
	"ended": r"file of /proc about a process that has ended",
	"hidden-mount": r"is in a detached mount",
	"unix-listening": r"is a unix stream socket, listening, a-socket, which",
	"unix-abstract": r"is a unix datagram socket, @criu@live, which",
	"unix-pair": r"is a unix seqpacket socket, connected, which",
	"udp": r"is an IPv6 datagram socket \(UDP\), which",
	"netlink": r"is a netlink raw socket \(route\), which",
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


WORDS = ("tcp-state", "queue", "queue-removed", "queue-like-a-file", "secret", "secret-mapped", "pidfd", "fanotify", "namespace", "device", "symbolic", "other-link",
	 "ended", "hidden-mount", "unix-listening", "unix-abstract", "unix-pair", "udp", "netlink")

ROWS = [
	row("deleted", "deleted"),
	row("tcp", "tcp"),
	row("inotify", "inotify", peer_fails={"dump": "it saves inotify, and does not refuse it"}),
	row("io-uring", "io_uring", peer_fails={"dump": "its error does not name it"}),
	row("userfaultfd", "userfaultfd"),
	row("lock", "locked"),
	row("itself", "itself", peer_fails={"dump": "it saves the path, so the restored process reads about itself"}),
	*[row(thing, thing, peer_fails={"dump": "its errors have other words, or it saves it"}) for thing in WORDS],
	row("all-at-once", "deleted", "tcp", "io_uring", "userfaultfd",
	    peer_fails={"dump": "it reports only the first refusal"}),
	row("children-time", "children-time", peer_fails={"dump": "its error does not name it"}),
	*[row(thing, thing, peer_fails={"dump": "it does not see it"}) for thing in APART],
	*[row("crowd-" + thing, "crowd", thing, peer_fails={"dump": "it does not see it"}) for thing in APART],
]
