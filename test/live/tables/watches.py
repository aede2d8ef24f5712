"""watches.py - what tells of other things: watches of files, pidfds, files of /proc."""

import os
import re

from harness import modes, system
from harness.cell import Failure
from harness.row import STATE, Row

from . import hard, real


NO_HANDLE = {"dump": "it cannot find the path of /proc", "restore": "it cannot watch a symbolic link"}
ENDED = {"dump": "it cannot stat /proc/PID/fd"}
HALF = {"restore": "it sets the position while the process is not complete"}
THREADS = {"dump": "it does not save what is about a thread", "restore": "the thread does not exist when it opens the file"}
SHARING = {"dump": "it refuses tasks that share memory", "restore": "it crashes with tasks that share memory"}
SEES_ITSELF = {"restore": "the process sees what it does to the file"}
NO_FLAGS = {"restore": "it does not know these flags of marks"}
ON_CHILD = {"restore": "it asks for FAN_EVENT_ON_CHILD, which the kernel shows and refuses"}
NO_SYSTEMS = {"dump": "it drops marks of file systems", "restore": "its format has no such marks"}
GONE = {"leave-stopped": "it removes its mount at the end"}
DROPPED = {"dump": "it drops unread events", "restore": "it does not know the events"}


def kept(cell, dumper, restorer):
	"""The original keeps its events; a process that is restored from the images has them, too."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images, ["-R"])
	cell.check_running()
	modes.finish_whole(cell)
	modes.restore_again(cell, restorer, images)


def missed(cell, dumper, restorer):
	"""A criu that may not read the kernel's memory: the original keeps its events, a restored process is told that it has missed some."""
	cell.start()
	images = cell.new_images()
	cell.dump(hard.wrapped(cell, dumper, "weak", hard.WEAK), images, ["-R"])
	cell.check_running()
	modes.finish_whole(cell)
	with open(cell.path("tells-that-events-are-missed"), "w"):
		pass
	modes.restore_again(cell, restorer, images)


def overflown(cell, dumper, restorer):
	"""Nobody can put back events of fanotify: the restored process is told that it has missed some."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	with open(cell.path("tells-that-events-are-missed"), "w"):
		pass
	cell.restore(restorer, images)
	cell.finish()


def lost(cell, dumper, restorer):
	"""As if criu had died before it could save the events: nothing is lost silently."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	os.unlink(os.path.join(images, "inotify-events.img"))
	with open(cell.path("tells-that-events-are-missed"), "w"):
		pass
	cell.restore(restorer, images)
	cell.finish()


def scanned(cell, dumper, restorer):
	"""The kernel has no usable file handles for a file of /proc: it is found by looking for it."""
	cell.start()
	cell.pause()
	run = dumper.dump(cell.root, cell.new_images("refused"))
	if not run.failed or not re.search(r"no path found for inode \d+ on device \d+:\d+.*--irmap-scan-path", run.error, re.S):
		raise Failure(f"not refused with advice: {run.describe()}")
	cell.check_running()
	images = cell.new_images()
	cell.dump(dumper, images, ["--irmap-scan-path", "/nowhere", "--irmap-scan-path", "/proc/sys/kernel"])
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def refused(words):
	def run(cell, dumper, _restorer):
		cell.start()
		run = dumper.dump(cell.root, cell.new_images())
		if not run.failed or not re.search(words, run.error):
			raise Failure(f"not refused with the expected reason: {run.describe()}")
		cell.check_running()
		cell.finish()
	return run


def held_outside(cell, dumper, _restorer):
	"""A deleted file that only a process outside of the tree has open: no restore could watch it again."""
	with open(cell.path("doomed"), "w"):
		cell.start()
		run = dumper.dump(cell.root, cell.new_images())
		if not run.failed or not re.search(r"\(inotify\): watch 1 is of a file that was deleted, and that no process of the tree has open", run.error):
			raise Failure(f"not refused with the expected reason: {run.describe()}")
		cell.check_running()
		cell.finish()


def forged(cell, dumper, restorer):
	"""A file of a process that has ended is opened inside the directory of a process: no device is."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	path = os.path.join(images, "files.img")
	with open(path, "rb") as file:
		data = file.read()
	old = re.search(rb"/proc/\d+/task/\d+/stat", data).group()
	process = old[:old.index(b"/", len("/proc/")) + 1]
	for pattern in (process + b"%sroot/dev/kmsg", process + b"%s../../dev/tty"):
		with open(path, "wb") as file:
			file.write(data.replace(old, pattern % (b"/" * (len(old) - len(pattern) + 2))))
		run = restorer.restore(images)
		cell.reap()
		if not run.failed or not re.search(r"cannot open /proc/\d+/.*, a file of a process that has ended", run.error):
			raise Failure(f"not refused with the expected reason: {run.describe()}")
	with open(path, "wb") as file:
		file.write(data)
	cell.restore(restorer, images)
	cell.finish()


def last(cell, dumper, restorer):
	"""The process sees nothing of the last step, which changes files that it watches."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images, ["--link-remap"])
	with open(cell.path("watched/log"), "a") as file:
		file.write("added")
	cell.restore(restorer, images, ["--grown-files=cut"])
	cell.finish()


def vanished(cell, dumper, restorer):
	"""What was watched is gone when the process is restored: an error names it, before any process exists."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	os.rename(cell.path("watched"), cell.path("elsewhere"))
	os.rmdir(cell.path("elsewhere"))
	run = restorer.restore(images)
	cell.reap()
	if not run.failed or not re.search(r"watched, which watch \d+ is of, cannot be found", run.error):
		raise Failure(f"the error does not name it: {run.describe()}")
	os.mkdir(cell.path("watched"), 0o700)
	cell.restore(restorer, images)
	cell.finish()


def moved_away(cell, dumper, restorer):
	"""The path is gone, but the directory is still there under another one: its handle leads to it."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	os.rename(cell.path("watched"), cell.path("elsewhere"))
	cell.restore(restorer, images)
	os.rename(cell.path("elsewhere"), cell.path("watched"))
	cell.finish()


def tail(cell, dumper, restorer):
	"""tail -f waits by inotify. Its output must be the file, whenever that grows."""
	def grow(lines):
		with open(cell.path("log"), "a") as file:
			for _ in range(lines):
				cell.lines += 1
				file.write(f"line {cell.lines}\n")
	def shown(lines):
		text = system.read_text(cell.path("shown"))
		return text == "".join(f"line {line}\n" for line in range(1, lines + 1))
	def await_shown():
		if not system.wait_until(lambda: shown(cell.lines), 10):
			raise Failure(f"tail does not show {cell.lines} lines: {system.read_tail(cell.path('shown'), 200)}")
	cell.lines = 0
	grow(3)
	cell.begin(["/bin/sh", "-c", f"exec tail -n +1 -F {cell.path('log')} >{cell.path('shown')} 2>/dev/null"])
	await_shown()
	for number in range(3):
		grow(2)
		images = cell.new_images(f"images{number}")
		cell.dump(dumper, images)
		cell.restore(restorer, images)
		grow(2)
		await_shown()
	cell.kill_tree()


PIDFDS = '''
import os, select, signal, sys
with open("result", "w") as result:
    for round in range(12):
        children = {}
        poll = select.epoll()
        for number in range(8):
            pid = os.fork()
            if not pid:
                for _ in range(20000 * (number + 1)):
                    pass
                os._exit(number)
            children[os.pidfd_open(pid)] = pid
        for fd in children:
            poll.register(fd, select.EPOLLIN)
        codes = []
        while children:
            for fd, _ in poll.poll():
                ended = os.waitid(os.P_PIDFD, fd, os.WEXITED)
                if ended.si_pid != children.pop(fd):
                    sys.exit("another process")
                codes.append(ended.si_status)
                poll.unregister(fd)
                os.close(fd)
        poll.close()
        print(round, sorted(codes), file=result, flush=True)
'''
SUPERVISOR = real.Job("python3 script.py", ["result"], real.file_with("script.py", PIDFDS))

ROWS = [
	Row("pidfd-living", "pidfds", arguments=("living",), unprivileged=True),
	Row("pidfd-dead", "pidfds", arguments=("dead",), unprivileged=True),
	Row("pidfd-zombie", "pidfds", arguments=("zombie",), unprivileged=True),
	Row("pidfd-shared", "pidfds", arguments=("shared",), unprivileged=True, peer_fails=SHARING),
	Row("pidfd-watched", "pidfds", arguments=("watched",)),
	Row("pidfd-many", "pidfds", arguments=("many",)),

	Row("proc-living", "proc_files", arguments=("living",), unprivileged=True),
	Row("proc-ended", "proc_files", arguments=("ended",), unprivileged=True, peer_fails=ENDED),
	Row("proc-over", "proc_files", arguments=("over",), unprivileged=True),
	Row("proc-directory", "proc_files", arguments=("directory",), unprivileged=True),
	Row("proc-thread", "proc_files", arguments=("thread",), unprivileged=True, peer_fails=THREADS),
	Row("pidfd-thread", "pidfds", arguments=("thread",), unprivileged=True, peer_fails=THREADS),
	Row("proc-half", "proc_files", arguments=("half",), peer_fails=HALF),

	Row("pidfd-lowered", "pidfds", arguments=("lowered",), unprivileged=True, peer_fails=THREADS),
	Row("proc-descriptor", "proc_files", arguments=("descriptor",), run=refused(r"file of /proc about a process that has ended"), modes=("ours",)),
	Row("proc-forged", "proc_files", arguments=("ended",), run=forged, modes=("ours",)),

	*[Row("inotify-" + what, "inotify", arguments=(what,), changes_files=True) for what in ("plain", "numbers", "moved", "own")],
	Row("inotify-socket", "inotify", arguments=("socket",), modes=("ours",)),
	Row("inotify-masks", "inotify", arguments=("masks",), changes_files=True, peer_fails=NO_HANDLE),
	Row("inotify-unread", "inotify", arguments=("unread",), peer_fails=DROPPED, changes_files=True,
	    without={"leave-stopped": "it sees that the test copies its files"}),
	*[Row(f"inotify-kept-{part}", "inotify", arguments=(part,), run=kept, modes=("ours",)) for part in ("unread", "missed")],
	Row("inotify-missed", "inotify", arguments=("missed",), run=missed, modes=("ours",)),
	Row("inotify-lost", "inotify", arguments=("missed",), run=lost, modes=("ours",)),
	Row("inotify-irmap", "inotify", arguments=("plain",), dump_options=("--force-irmap",), modes=("ours", "ours-to-peer")),
	Row("inotify-scanned", "inotify", arguments=("handleless",), run=scanned, modes=("ours",)),
	Row("inotify-held", "inotify", arguments=("held",), changes_files=True, peer_fails=SEES_ITSELF),
	Row("inotify-stranger", "inotify", arguments=("stranger",), run=held_outside, modes=("ours",)),
	Row("inotify-last", "inotify", arguments=("last",), run=last, modes=("ours",)),
	Row("inotify-process", "inotify", arguments=("process",), run=refused(r"watch 1 is of /proc/\d+, about a process of the tree"), modes=("ours",)),
	Row("inotify-vanished", "inotify", arguments=("missed",), run=vanished, modes=("ours",)),
	Row("inotify-moved-away", "inotify", arguments=("missed",), run=moved_away, modes=("ours",)),
	*[Row("fanotify-" + what, "fanotify", arguments=(what,), changes_files=True) for what in ("plain", "ignored")],
	Row("fanotify-mount", "fanotify", arguments=("mount",), changes_files=True, without=GONE),
	Row("fanotify-evictable", "fanotify", arguments=("evictable",), changes_files=True, peer_fails=NO_FLAGS),
	Row("fanotify-system", "fanotify", arguments=("system",), changes_files=True, peer_fails=NO_SYSTEMS, without=GONE),
	Row("fanotify-names", "fanotify", arguments=("names",), changes_files=True, unprivileged=True),
	Row("fanotify-held", "fanotify", arguments=("held",), changes_files=True, peer_fails=SEES_ITSELF),
	Row("fanotify-missed", "fanotify", arguments=("missed",), run=missed, modes=("ours",)),
	Row("fanotify-overflown", "fanotify", arguments=("missed",), run=overflown, modes=("ours",)),
	Row("fanotify-unlimited", "fanotify", arguments=("unlimited",), run=refused(r"\(fanotify\) has events that were not read, and its queue is unlimited"), modes=("ours",)),
	Row("fanotify-deciding", "fanotify", arguments=("deciding",), run=refused(r"\(fanotify\) decides whether files may be opened"), modes=("ours",)),
	Row("fanotify-apart", "fanotify", arguments=("apart",), run=refused(r"\(fanotify\) decides whether files may be opened"), modes=("ours",)),
	Row("fanotify-target", "fanotify", arguments=("target",), changes_files=True, peer_fails=ON_CHILD),
	Row("fuse-server", "fuse_server", run=refused(r"is of a FUSE file system, which would block criu"), modes=("ours",)),
	Row("real-tail", run=tail, modes=("ours", "ours-to-peer", "peer-to-ours"), peer_fails=DROPPED),
	Row("real-pidfds", run=real.course(SUPERVISOR), to_lose=(STATE,), changes_files=True, timeout=600, modes=("ours", "leave-stopped", "undisturbed")),
]
