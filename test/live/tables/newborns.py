"""newborns.py - signals from outside reach processes while criu restores them.

If a process is killed, criu notices it soon, names it, and leaves nothing behind. If processes are stopped and continued, as a
shell or a service manager may do, the restore takes longer and succeeds.
"""

import glob
import os
import random
import re
import signal
import subprocess
import threading
import time

from harness import system
from harness.cell import Failure
from harness.row import Row
from tables.bad_input import refused_restore

SOON = 30  # seconds for criu to end after a death: 0.2 s on an idle machine, more where 200 newborns compete for CPUs
WHOLE = 60  # seconds for criu to end when no process was killed


def threads_of(pids):
	return [tid for pid in pids for tid in system.threads(pid)]


def candidates(criu):
	"""The threads of all processes that criu has created so far and that are alive; without criu itself and its watchdog."""
	newborns = [pid for pid in system.descendants(os.getpid()) if pid != criu and system.status(pid).get("Name") != "criu-watchdog"]
	return [tid for tid in threads_of(newborns) if system.thread_state(tid, tid) not in ("Z", "X", "gone")]


def kill_someone(criu, chance):
	"""Kills a random newborn and returns its pid, or None if there is none."""
	victims = candidates(criu)
	if not victims:
		return None
	tid = chance.choice(victims)
	pid = int(system.status(tid).get("Tgid", tid))
	try:
		os.kill(tid, signal.SIGKILL)
	except ProcessLookupError:
		return None
	return pid


def one_round(cell, restorer, images, delay, chance):
	"""True: criu named a killed process. A string: its other error. False: no process was killed, or the restore was already done."""
	command = [restorer.path, "restore", "-d", "-D", images, "-o", "restore.log", "-v4", *cell.row.restore_options]
	with open(os.devnull) as nothing, open(cell.path("killed.out"), "w") as output:
		process = subprocess.Popen(command, stdin=nothing, stdout=output, stderr=output)
		time.sleep(delay)
		process.send_signal(signal.SIGSTOP)  # newborns wait for criu, so they stay while we choose one
		killed = kill_someone(process.pid, chance)
		process.send_signal(signal.SIGCONT)
		try:
			code = process.wait((SOON if killed else WHOLE) * system.patience)
		except subprocess.TimeoutExpired:
			process.kill()
			process.wait()
			raise Failure(f"{killed} was killed, but criu did not end in time")
	said = system.read_text(cell.path("killed.out"))
	if not killed or not code:
		return False
	return True if re.search(r"process \d+ \([^)]+\).* was killed", said) else said.strip()


def is_nobody_left(cell):
	cell.reap()
	return not system.descendants(os.getpid())


def end_all(cell):
	"""Ends the processes of a restore that succeeded."""
	for pid in system.descendants(os.getpid()):
		os.kill(pid, signal.SIGKILL)
	system.wait_until(lambda: is_nobody_left(cell), 3)
	cell.forget_verdict()


def kill_newborns(cell, dumper, restorer):
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	whole = 30
	for _ in range(3):
		whole = min(whole, cell.restore(restorer, images).seconds)
		cell.kill_tree()
	chance = random.Random(f"{cell.settings.seed} {cell.row.name}")
	seen, other, rounds = 0, [], cell.settings.kills
	for number in range(rounds):
		delay = chance.uniform(0, whole * 0.9)
		try:
			result = one_round(cell, restorer, images, delay, chance)
		except Failure as failure:
			raise Failure(f"round {number + 1}, after {delay * 1000:.1f} ms of {whole * 1000:.0f}: {failure}")
		if result is False:
			end_all(cell)
		elif not system.wait_until(lambda: is_nobody_left(cell), 3):
			raise Failure("left behind: " + "; ".join(map(system.describe_task, system.descendants(os.getpid()))))
		seen += result is not False
		other += [result] if isinstance(result, str) else []
	if seen < rounds // 4:
		raise Failure(f"only {seen} of {rounds} restores were still going on when a newborn was killed")
	if len(other) > seen // 3:
		raise Failure(f"{len(other)} of {seen} errors name a consequence, not the killed process, such as:\n{other[0]}")
	cell.restore(restorer, images)
	cell.finish()


def below(pid):
	"""All tasks below a process: faster than system.descendants(), which reads all of /proc."""
	children = [int(child) for child in system.read_text(f"/proc/{pid}/task/{pid}/children").split()]
	return children + [task for child in children for task in below(child)]


def newborns_of_our_child():
	"""The processes that criu is restoring, and those of them that it traces."""
	ours = [int(pid) for path in glob.glob("/proc/self/task/*/children") for pid in system.read_text(path).split()]
	pids = [pid for child in ours if system.status(child).get("Name") == "criu" for pid in below(child)]
	return pids, [pid for pid in pids if system.status(pid).get("TracerPid", "0") != "0"]


def send(pids, number):
	for pid in pids:
		try:
			os.kill(pid, number)
		except ProcessLookupError:
			pass


def pester(is_done, sent):
	while not is_done.is_set():
		pids, traced = newborns_of_our_child()
		for number in (signal.SIGCONT, signal.SIGCHLD, signal.SIGSTOP):
			send(pids, number)
			time.sleep(0.001)
		send(pids, signal.SIGCONT)
		sent.append(len(traced))
		time.sleep(0.01 * system.patience)  # otherwise a slow machine makes no progress


def restore_pestered(cell, restorer, images):
	"""Restores while newborns get signals. Returns the largest number of them that criu traced at such a moment."""
	is_done, sent = threading.Event(), [0]
	thread = threading.Thread(target=pester, args=(is_done, sent))
	thread.start()
	try:
		cell.restore(restorer, images)
	finally:
		is_done.set()
		thread.join()
	return max(sent)


def signal_newborns(cell, dumper, restorer):
	cell.start()
	images = cell.new_images()
	met = 0
	for _ in range(30):  # on an idle machine most restores are met while criu traces, on a busy one few
		cell.dump(dumper, images)
		met += restore_pestered(cell, restorer, images) > 0
		if met == 3:
			break
	if not met:
		raise Failure("in 30 restores no signal arrived while criu traced the newborns")
	cell.finish()


def signal_newborns_blocked(cell, dumper, restorer):
	"""The same with a criu that is started with SIGCHLD blocked, as by a program that uses signalfd()."""
	signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
	signal_newborns(cell, dumper, restorer)


def signal_stopped(cell, dumper, restorer):
	"""A process that is to be restored stopped gets SIGCONT meanwhile: it may be stopped or run, but it must exist."""
	cell.start()
	os.kill(cell.root, signal.SIGSTOP)
	system.wait_until(lambda: system.thread_state(cell.root, cell.root) == "T", 5)
	images = cell.new_images()
	cell.dump(dumper, images)
	for _ in range(20):
		restore_pestered(cell, restorer, images)
		if system.thread_state(cell.root, cell.root) in ("Z", "X", "gone"):
			raise Failure("the restore succeeded, but the process is not there")
		cell.kill_tree()


def fail_to_prepare(cell, restorer, images, pattern):
	"""Restores with /proc mounted read-only, and expects a failure."""
	system.mount("/proc", "/proc", None, system.MS_BIND)
	system.mount(None, "/proc", None, system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY)
	try:
		refused_restore(cell, restorer, images, pattern)
	finally:
		system.unmount("/proc")


def unprepared(cell, dumper, restorer):
	"""The last newborn cannot write to its own file in /proc: the error names it, and all newborns end."""
	cell.start()
	cell.wait_ready()
	pid = system.tree(cell.root)[-1]
	name = system.status(pid)["Name"]
	with open(f"/proc/{pid}/oom_score_adj", "w") as file:
		file.write("321")
	images = cell.new_images()
	cell.dump(dumper, images)
	fail_to_prepare(cell, restorer, images, rf"process {pid} \({name}\): cannot write 321 to /proc/self/oom_score_adj: Read-only")
	cell.restore(restorer, images)
	if system.read_text(f"/proc/{pid}/oom_score_adj").strip() != "321":
		raise Failure("oom_score_adj differs after the restore")
	cell.finish()


def row(name, program, *arguments, **more):
	return Row(f"newborns-killed-{name}", program, arguments=arguments, run=kill_newborns, modes=("ours",), timeout=600, **more)


ROWS = [
	row("tree", "tree"),
	row("busy", "busy"),
	row("sibling", "tree", restore_options=("--restore-sibling",)),
	row("threads", "threads", "16"),
	row("many", "processes", "200", alone_with="CPUs"),
	row("shares", "shares", "memory+files+directories", "orphan"),
	Row("newborns-unprepared-tree", "tree", run=unprepared, modes=("ours",)),
	Row("newborns-unprepared-threads", "threads", arguments=("16",), run=unprepared, modes=("ours",)),
	Row("newborns-signalled-mappings", "many_areas", arguments=("8000",), run=signal_newborns, modes=("ours",), alone_with="CPUs"),
	Row("newborns-signalled-threads", "threads", arguments=("200",), run=signal_newborns, modes=("ours",), alone_with="CPUs"),
	Row("newborns-signalled-blocked", "many_areas", arguments=("8000",), run=signal_newborns_blocked, modes=("ours",), alone_with="CPUs"),
	Row("newborns-signalled-tree", "tree", run=signal_newborns, modes=("ours",)),
	Row("newborns-signalled-stopped", "counter", run=signal_stopped, modes=("ours",), has_stopped_task=True),
]
