"""system.py - the harness's calls to the kernel: reaping, private namespaces, facts from /proc.

Needs only python3's standard library and root. Every worker (one for each test) calls become_subreaper(), so that
orphans of a test become children of the worker, not of pid 1. It calls private_namespaces(), so that any mount, socket or
packet filter rule that stays behind is the test's own.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWNET = 0x20000, 0x8000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PROGRAMS = os.path.join(ROOT, "build", "live")

libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
	if result != 0:
		error = ctypes.get_errno()
		raise OSError(error, f"{what}: {os.strerror(error)}")


def build(*tests):
	"""Compiles the programs of test/NAME."""
	for name in tests:
		subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "-C", os.path.join(ROOT, "test", name)], check=True)


def mount(source, target, kind, flags=0, data=None):
	"""Calls mount(2), because the virtual machine of test/vm has no mount program."""
	arguments = [text and os.fsencode(text) for text in (source, target, kind)]
	checked(libc.mount(*arguments, flags, data and data.encode()), f"mount {target}")


def unmount(target, flags=0):
	checked(libc.umount2(os.fsencode(target), flags), f"unmount {target}")


def become_subreaper():
	checked(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent():
	checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def private_namespaces(needed):
	"""Enters new mount, IPC and network namespaces, with a loopback device; with a new /tmp if no path in `needed` is below it."""
	checked(libc.unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET), "unshare")
	mount("none", "/", None, MS_REC | MS_PRIVATE)
	if not any(os.path.realpath(path).startswith("/tmp/") for path in needed if path):
		mount("none", "/tmp", "tmpfs", data="mode=1777")
	with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
		name = b"lo".ljust(16, b"\0")
		request = fcntl.ioctl(control, SIOCGIFFLAGS, name + bytes(24))
		flags = struct.unpack_from("H", request, 16)[0] | IFF_UP
		fcntl.ioctl(control, SIOCSIFFLAGS, name + struct.pack("H", flags) + bytes(22))


def read_text(path):
	"""The file's text, or "" if the task is gone."""
	try:
		with open(path, "rb") as file:
			return file.read().decode("utf-8", "replace")
	except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
		return ""


def read_tail(path, size=256 << 10):
	"""The end of a file that may be very long."""
	try:
		with open(path, "rb") as file:
			file.seek(max(0, os.fstat(file.fileno()).st_size - size))
			return file.read().decode("utf-8", "replace")
	except (FileNotFoundError, NotADirectoryError):
		return ""


def pids():
	return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat_fields(path):
	"""The fields of a stat file from the state on, or [] if the task is gone."""
	return read_text(path).rpartition(")")[2].split()


def descendants(root):
	"""All tasks below root (without it), parents first."""
	children = {}
	for pid in pids():
		fields = stat_fields(f"/proc/{pid}/stat")
		if fields:
			children.setdefault(int(fields[1]), []).append(pid)
	found, queue = [], [root]
	while queue:
		below = children.get(queue.pop(0), [])
		found += below
		queue += below
	return found


def tree(root):
	return [root] + descendants(root)


def open_links(pid):
	"""What the descriptors of a process are (/proc/PID/fd), of one that may open and close some meanwhile."""
	links = set()
	for name in os.listdir(f"/proc/{pid}/fd"):
		try:
			links.add(os.readlink(f"/proc/{pid}/fd/{name}"))
		except FileNotFoundError:  # closed
			pass
	return links


def threads(pid):
	try:
		return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
	except FileNotFoundError:
		return []


def thread_state(pid, tid):
	fields = stat_fields(f"/proc/{pid}/task/{tid}/stat")
	return fields[0] if fields else "gone"


def status(pid, tid=None):
	"""/proc/PID/status as a dictionary of stripped strings."""
	path = f"/proc/{pid}/task/{tid}/status" if tid else f"/proc/{pid}/status"
	lines = read_text(path).splitlines()
	return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def describe_task(pid):
	command = read_text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
	facts = status(pid)
	return f"{pid} ({facts.get('Name')}, {facts.get('State')}, ppid {facts.get('PPid')}) {command}"


def reap():
	"""Collects every dead child of this process. Returns {pid: wait status}."""
	dead = {}
	while True:
		try:
			pid, wait_status = os.waitpid(-1, os.WNOHANG)
		except ChildProcessError:
			return dead
		if pid == 0:
			return dead
		dead[pid] = wait_status


patience = 1.0  # a factor on every time limit, for slow or busy machines


def wait_until(condition, seconds, interval=0.005):
	"""Polls until condition() is true; returns its last value."""
	end = time.monotonic() + seconds * patience
	while True:
		value = condition()
		if value or time.monotonic() > end:
			return value
		time.sleep(interval)


# Calls in which a thread waits for another one, not for a time: read, write, pause, wait4, waitid, rt_sigsuspend.
WAITING = {0, 1, 34, 61, 130, 247}
NO_LIMIT, NO_TIME = ("0xffffffff", "0xffffffffffffffff"), ("0x0",)
# Calls that do so only without a time limit: call -> the index of its argument, and the values that mean no limit.
WITHOUT_LIMIT = {  # poll, futex, io_getevents, epoll_wait, ppoll
	7: (2, NO_LIMIT), 202: (3, NO_TIME), 208: (4, NO_TIME), 232: (3, NO_LIMIT), 271: (2, NO_TIME),
}
RUNS, RUN_TIME = 2, 10_000_000  # a thread that ran so often, or for so many nanoseconds, has gone through its loop
LONGEST_RUN = 0.15  # seconds. No test fails at this limit, so it does not depend on `patience`


def scheduled(pid, tid):
	"""How many nanoseconds the thread has run, and how often it was put on a CPU; None if it is gone."""
	fields = read_text(f"/proc/{pid}/task/{tid}/schedstat").split()
	return (int(fields[0]), int(fields[2])) if fields else None


def waits_for_somebody(pid, tid):
	"""Is it stopped, dead, or in a call without a time limit?"""
	if thread_state(pid, tid) in ("T", "Z", "X"):
		return True
	number, *arguments = read_text(f"/proc/{pid}/task/{tid}/syscall").split() or ("",)
	if not number.isdigit():
		return False
	place, values = WITHOUT_LIMIT.get(int(number), (0, ()))
	return int(number) in WAITING or arguments[place] in values


def wait_run(root):
	"""Waits until each thread of the tree has run a few times, or waits for another; but at most LONGEST_RUN."""
	began = {(pid, tid): scheduled(pid, tid) for pid in tree(root) for tid in threads(pid)}
	def is_done(thread):
		then, now = began[thread], scheduled(*thread)
		if not then or not now or now[0] >= then[0] + RUN_TIME or now[1] >= then[1] + RUNS:
			return True
		return waits_for_somebody(*thread)
	left, end = list(began), time.monotonic() + LONGEST_RUN
	while left and time.monotonic() < end:
		left = [thread for thread in left if not is_done(thread)]
		if left:
			time.sleep(0.005)
