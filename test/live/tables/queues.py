"""queues.py - unread messages and options of sockets."""

import os
import re
import signal

from harness import system
from harness.cell import Failure
from harness.row import Row

from .kills import check_hits, check_no_helpers, moments, start_and_signal, time_of_dump

NO_SENDERS = {"dump": "it refuses messages with credentials", "restore": "it does not restore credentials"}
NO_NAMES = {"dump": "it does not save names of senders", "restore": "it does not restore names of senders"}
NO_OPTIONS = {"dump": "it does not save many options", "restore": "it does not know many options"}
NOT_ALONE = {"restore": "it crashes if no process has a file that is in flight"}


def dumped_twice(cell, dumper, restorer):
	"""The first dump, which leaves the processes running, changes nothing for the second one."""
	cell.start()
	cell.dump(dumper, cell.new_images("images1"), ["-R"])
	images = cell.new_images("images2")
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	cell.finish()


def killed(cell, dumper, _restorer):
	"""criu is killed while it dumps large queues: each socket has its own options again, and each queue is complete."""
	cell.start()
	before = system.descendants(os.getpid())
	whole = time_of_dump(cell, dumper)
	hits = 0
	for number, delay in enumerate(moments(cell, whole, 60)):
		command = [dumper.path, "dump", "-R", "-t", str(cell.root), "-D", cell.new_images(f"images{number}")]
		hits += start_and_signal(cell, command, delay, signal.SIGKILL) != 0
		check_no_helpers(cell, before)
		if not system.wait_until(lambda: system.status(cell.root, cell.root)["TracerPid"] == "0", 1):
			raise Failure("it is still traced")
	cell.check_running()
	cell.finish()
	check_hits(hits, 60)


def grown_in_flight(cell, dumper, restorer):
	"""A file that is only in flight has grown meanwhile, and may stay so."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	with open(cell.path("flight"), "a") as file:
		file.write("added")
	cell.restore(restorer, images, ["--grown-files=keep"])
	cell.finish()


REFUSED = {
	"urgent": r"is a socket with urgent data \(MSG_OOB\)",
	"reset": r"is a socket with both an error .* and unread messages",
	"epoll": r"unread message that has a descriptor of anon_inode:\[eventpoll\], which a process must have open, too",
	"owned": r"unread message that has a descriptor of anon_inode:\[eventfd\], which has an owner or a signal",
	"thread": r"unread message that has a descriptor of /proc/\d+/task/\d+/comm, which exists only when its thread does",
	"wanted": r"message that is for a socket with SO_PASSPIDFD",
	"program": r"an eBPF program as its filter",
	"stranger": r"message that came from another socket before this one was connected",
	"lock": r"unread message that has a descriptor of .*, which has a lock or a lease",
	"elsewhere": r"has an unread message of the other end of its pair, which is no longer connected to it",
	"tty": r"is /dev/tty, and an unread message of a socket has it, too",
	"inq": r"message that is for a socket with SO_INQ",
}


def refused(cell, dumper, _restorer):
	cell.start()
	images = cell.new_images()
	run = dumper.dump(cell.root, images)
	if not run.failed:
		cell.reap()
		raise Failure("the dump succeeded")
	cell.check_running()
	cell.finish()
	if not re.search(REFUSED[cell.row.arguments[0]], run.error):
		raise Failure(f"the error does not name it\n{run.error}")
	if os.path.exists(os.path.join(images, "inventory.img")):
		raise Failure("the directory looks complete: it has inventory.img")


ROWS = [
	Row("queue-stream", "queue_messages", arguments=("stream",), unprivileged=True, peer_fails=NO_SENDERS),
	Row("queue-datagrams", "queue_messages", arguments=("datagrams",), unprivileged=True, peer_fails=NO_SENDERS),
	Row("queue-packets", "queue_messages", arguments=("packets",), unprivileged=True, peer_fails=NO_SENDERS),
	Row("queue-users", "queue_messages", arguments=("users",), peer_fails=NO_SENDERS),
	Row("queue-named", "queue_messages", arguments=("named",), peer_fails=NO_NAMES),
	Row("queue-half", "queue_messages", arguments=("half",)),
	Row("queue-many", "queue_messages", arguments=("many",), unprivileged=True),
	Row("queue-deep", "queue_messages", arguments=("deep",), unprivileged=True),
	Row("queue-self", "queue_messages", arguments=("self",), unprivileged=True),
	Row("queue-alone", "queue_messages", arguments=("alone",), unprivileged=True, peer_fails=NOT_ALONE),
	Row("queue-reaped", "queue_messages", arguments=("reaped",), unprivileged=True, peer_fails=NOT_ALONE),
	Row("queue-late", "queue_messages", arguments=("late",), unprivileged=True, peer_fails={"restore": "it crashes unless a process has the file, too"}),
	Row("queue-grown", "queue_messages", arguments=("alone",), run=grown_in_flight, modes=("ours",)),
	Row("queue-empty", "queue_messages", arguments=("empty",), unprivileged=True, peer_fails=NO_SENDERS),
	*[Row(f"queue-kinds-{kind}", "queue_kinds", arguments=(kind,), modes=("ours", "unprivileged"), timeout=20,
	      alone_with="criu-live-flight" if kind == "mqueue" else "")
	  for kind in ("reaped", "inotify", "mqueue", "deleted", "namespace", "fifo", "timerfd", "signalfd")],
	*[Row(f"queue-refused-{thing}", "queue_refused", arguments=(thing,), run=refused, modes=("ours",)) for thing in REFUSED],
	Row("queue-options", "queue_options", arguments=("all",), peer_fails=NO_OPTIONS),
	Row("queue-options-plain", "queue_options", arguments=("plain",), unprivileged=True),
	Row("queue-killed", "queue_messages", arguments=("many",), run=killed, modes=("ours",), timeout=600),
	Row("queue-stream-twice", "queue_messages", arguments=("stream",), run=dumped_twice, modes=("ours",)),
	Row("queue-datagrams-twice", "queue_messages", arguments=("datagrams",), run=dumped_twice, modes=("ours",)),
	Row("queue-half-twice", "queue_messages", arguments=("half",), run=dumped_twice, modes=("ours",)),
]
