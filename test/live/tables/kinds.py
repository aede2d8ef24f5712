"""kinds.py - open files other than regular ones: events, timers, epoll, named pipes, locks, terminals."""

import fcntl
import os
import re

from harness import system
from harness.cell import Failure
from harness.modes import dumped
from harness.row import Row

from . import programs
from .terminals import as_the_mode_says, with_own_terminals

NO_SEMAPHORE = {"dump": "it drops EFD_SEMAPHORE", "restore": "it drops EFD_SEMAPHORE"}
TRUNCATED = {"restore": "it keeps 32 bits of the counter"}
NOT_THE_MOMENT = {"dump": "it saves what was left, not the moment", "restore": "it takes what was left, not the moment"}
UNCOUNTED = {"dump": "it loses expirations of a periodic timer that were not read yet"}
RENUMBERED = {"dump": "it renumbers what was added under a closed descriptor", "restore": "it does not know the number"}
NO_PACKETS = {"dump": "it refuses pipes of packets", "restore": "it refuses pipes of packets"}
HUNG_UP = {"dump": "it does not look", "restore": "every reader sees that all writers have gone"}
CHILD_LOCKS = {"dump": "it does not see a child's lock through a descriptor of its parent"}
DROPPED_LOCKS = {"restore": "it drops POSIX locks when it has mapped the file"}
NO_INODE = {"dump": "it does not save owner, mode and times", "restore": "it does not know owner, mode and times"}
ROOTS = {"restore": "all pipes that it creates belong to root"}
NO_TIMES = {"dump": "it does not save times", "restore": "it does not know times"}
LOCKS = {"dump_options": ("--file-locks",), "restore_options": ("--file-locks",)}
APART = {"dump": "it finds only files that the process itself has", "restore": "it expects the file in the process itself"}
AWAKE = {"restore": "one-shot targets that have fired are armed again"}


def kept_outside(cell, dumper, restorer):
	"""The harness keeps the named pipe open all the time: its content must not be there twice."""
	os.mkfifo(cell.path("fifo"))
	keeper = os.open(cell.path("fifo"), os.O_RDWR | os.O_NONBLOCK)
	images = dumped(cell, dumper)
	cell.restore(restorer, images)
	cell.finish()
	os.close(keeper)


def refused_restore(cell, restorer, images, options, words):
	run = restorer.restore(images, options)
	cell.reap()
	if not run.failed:
		raise Failure("the restore succeeded")
	if not re.search(words, run.error):
		raise Failure(f"the error does not say {words}: {run.describe()}")


def lock_taken(cell, dumper, restorer):
	"""While the process is away, another process takes its lock: the error names the file. Later the lock is free again."""
	images = dumped(cell, dumper)
	with open(cell.path("locked"), "r+") as file:
		fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50)
		refused_restore(cell, restorer, images, ("--file-locks",), "locked")
		fcntl.lockf(file, fcntl.LOCK_UN)
	cell.restore(restorer, images)
	cell.finish()


def not_asked_for(cell, dumper, restorer):
	images = dumped(cell, dumper, ("--file-locks",))
	refused_restore(cell, restorer, images, (), "--file-locks")
	cell.restore(restorer, images, ("--file-locks",))
	cell.finish()


UNSAVABLE = {"foreign_session": "session is not part of the tree", "controlled": "terminal of its session .*4:62.* hung up",
	     "segments": "modify_ldt", "provided": "missing pages another process"}
LIVES_ON = ("foreign_session", "controlled", "provided")  # a process outside of the tree runs until there is a verdict


def refused(cell, dumper, _restorer):
	"""The dump is refused, the error names the reason, and the tree runs on."""
	cell.start()
	run = dumper.dump(cell.root, cell.new_images(), cell.row.dump_options)
	if not run.failed or not re.search(UNSAVABLE[cell.row.arguments[0]], run.error):
		raise Failure(f"not refused with the expected reason: {run.describe()}")
	cell.check_running()
	cell.finish()
	if cell.row.arguments[0] in LIVES_ON:
		system.wait_until(lambda: cell.reap() or not system.descendants(os.getpid()), 5)


def terminal_lost(cell, dumper, restorer):
	"""A pty that controls the session, but that no task has open, is not saved. A warning says so."""
	images = dumped(cell, dumper)
	if "will no longer control the restored session" not in system.read_text(os.path.join(images, "dump.log")):
		raise Failure("there is no warning")
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()
	system.wait_until(lambda: cell.reap() or not system.descendants(os.getpid()), 5)


def table_lost(cell, dumper, restorer):
	"""The peer leaves out the image of an empty descriptor table. Here the missing table was not empty, which criu must notice."""
	images = dumped(cell, dumper)
	lost = min(name for name in os.listdir(images) if name.startswith("fdinfo-"))
	os.rename(os.path.join(images, lost), cell.path(lost))
	refused_restore(cell, restorer, images, (), r"fdinfo-.*\.img is missing")
	os.rename(cell.path(lost), os.path.join(images, lost))
	cell.restore(restorer, images)
	cell.finish()


ROWS = [
	*[Row("nothing-open-" + who, "nothing_open", arguments=(who,), unprivileged=True) for who in ("alone", "child")],
	Row("nothing-open-lost", "nothing_open", arguments=("child",), run=table_lost, modes=("peer-to-ours",)),
	Row("table-lost", "events", arguments=("eventfd",), run=table_lost, modes=("ours",)),
	Row("eventfd", "events", arguments=("eventfd",), unprivileged=True),
	Row("eventfd-saturated", "events", arguments=("saturated",), peer_fails=TRUNCATED),
	Row("eventfd-semaphore", "events", arguments=("semaphore",), peer_fails=NO_SEMAPHORE),
	Row("signalfd", "events", arguments=("signalfd",), unprivileged=True),
	Row("timerfd", "events", arguments=("timerfd",), unprivileged=True),
	Row("timerfd-unread", "events", arguments=("timerfd_unread",), peer_fails=UNCOUNTED),
	Row("timerfd-expiring", "events", arguments=("timerfd_expiring",), peer_fails=UNCOUNTED),
	Row("timerfd-real", "events", arguments=("timerfd_real",), peer_fails=NOT_THE_MOMENT),

	Row("epoll", "epoll", arguments=("plain",), unprivileged=True),
	Row("epoll-oneshot", "epoll", arguments=("oneshot",), peer_fails=AWAKE),
	Row("epoll-reused", "epoll", arguments=("reused",), peer_fails=RENUMBERED),
	Row("epoll-renumbered", "epoll", arguments=("renumbered",)),
	Row("epoll-nested", "epoll", arguments=("nested",)),
	Row("epoll-shared", "epoll", arguments=("shared",)),
	Row("epoll-apart", "epoll", arguments=("apart",), peer_fails=APART),
	Row("epoll-signals", "epoll", arguments=("signals",)),

	Row("fifo", "fifos", arguments=("ends",), changes_files=True, unprivileged=True),
	Row("fifo-packets", "fifos", arguments=("packets",), changes_files=True, peer_fails=NO_PACKETS),
	Row("fifo-hang-up", "fifos", arguments=("hang_up",), peer_fails=HUNG_UP),
	Row("fifo-kept", "fifos", arguments=("kept",), run=kept_outside, modes=("ours", "peer-to-ours", "peer"),
	    peer_fails={"restore": "it puts the content back twice"}),

	Row("inodes-pipe", "inodes", arguments=("pipe",), peer_fails=NO_INODE),
	Row("inodes-memfd", "inodes", arguments=("memfd",), peer_fails=NO_TIMES),
	Row("inodes-nameless", "inodes", arguments=("nameless",), peer_fails=NO_TIMES),
	Row("inodes-fifo", "inodes", arguments=("fifo",), changes_files=True, peer_fails={"restore": "it writes what was in it"}),
	Row("inodes-terminal", "inodes", arguments=("terminal",), run=with_own_terminals(as_the_mode_says), peer_fails=NO_INODE),
	Row("inodes-user", "inodes", arguments=("user",), unprivileged=True, peer_fails=ROOTS | programs.ANOTHER_USER),
	Row("inodes-file-user", "inodes", arguments=("file_user",), peer_fails=ROOTS),
	Row("inodes-foreign", "inodes", arguments=("foreign",), peer_fails=NO_INODE),

	Row("locks-family", "locks_family", arguments=("plain",), unprivileged=True, peer_fails=CHILD_LOCKS, **LOCKS),
	Row("locks-mapped", "locks_family", arguments=("mapped",), peer_fails=CHILD_LOCKS | DROPPED_LOCKS, **LOCKS),
	Row("locks-taken", "locks", arguments=("posix",), run=lock_taken, modes=("ours",), **LOCKS),
	*[Row("unsavable-" + state.replace("_", "-"), "unsavable", arguments=(state,), run=refused, modes=("ours",),
	      dump_options=("--file-locks",)) for state in UNSAVABLE],
	Row("terminal-controls-only", "unsavable", arguments=("controlled_by_pty",), run=terminal_lost, modes=("ours",)),
	Row("locks-not-asked-for", "locks", arguments=("flock",), run=not_asked_for, modes=("ours",)),
]
