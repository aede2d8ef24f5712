"""kills.py - criu is killed at a random moment of a dump, over and over: the tree must not notice.

After each kill: every thread counts on, no mapping, descriptor or blocked signal that was not there before, no tracer.
"""

import os
import random
import shutil
import signal
import subprocess
import time

from harness import system
from harness.cell import Failure
from harness.row import Row

SIGNAL_FACTS = ("SigBlk", "SigIgn", "SigCgt", "TracerPid", "Seccomp", "Threads")


def look(pid):
	"""All of a process that a dump may disturb."""
	maps = [" ".join(line.split()[:2] + line.split()[5:])
		for line in system.read_text(f"/proc/{pid}/maps").splitlines()]
	fds = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in sorted(os.listdir(f"/proc/{pid}/fd"))}
	facts = {(tid, key): system.status(pid, tid).get(key) for tid in system.threads(pid) for key in SIGNAL_FACTS}
	return {"maps": maps, "descriptors": fds, "status": facts}


def difference(was, is_now):
	if isinstance(was, dict):
		was, is_now = [str(item) for item in was.items()], [str(item) for item in is_now.items()]
	gone, new = [line for line in was if line not in is_now], [line for line in is_now if line not in was]
	return f"gone: {gone}, new: {new}"


def counters(cell, pid):
	address, count = system.read_text(cell.path("counters")).split()
	with open(f"/proc/{pid}/mem", "rb") as memory:
		memory.seek(int(address, 16))
		data = memory.read(8 * int(count))
	return [int.from_bytes(data[at:at + 8], "little") for at in range(0, len(data), 8)]


def check_untouched(cell, before):
	"""Raises unless all is as it was within a second, and all threads count."""
	counts = {pid: counters(cell, pid) for pid in before}
	def all_counting():
		return all(now > then for pid in before for now, then in zip(counters(cell, pid), counts[pid]))
	if not system.wait_until(all_counting, 1):
		raise Failure(f"not every thread counts: {counts}, then {[counters(cell, pid) for pid in before]}")
	def differences():
		return [f"process {pid}, {part}: {difference(facts[part], now[part])}"
			for pid, facts in before.items() for now in [look(pid)] for part in facts
			if now[part] != facts[part]]
	if not system.wait_until(lambda: not differences(), 1):
		raise Failure("\n".join(differences()))
	cell.check_running()


def check_no_helpers(cell, before):
	def helpers():
		cell.reap()
		return set(system.descendants(os.getpid())) - set(before)
	if not system.wait_until(lambda: not helpers(), 1):
		raise Failure("criu's helpers live on: " + "; ".join(map(system.describe_task, helpers())))


def time_of_dump(cell, dumper):
	images = cell.new_images("whole")
	run = dumper.dump(cell.root, images, ["-R"])
	if run.failed:
		raise Failure(f"an undisturbed dump failed: {run.describe()}")
	shutil.rmtree(images)
	return run.seconds


def kill_one(cell, dumper, delay):
	"""Starts a dump and kills it after `delay`. True: it was still running."""
	images = cell.new_images("killed")
	with open(os.devnull) as nothing, open(cell.path("killed.out"), "w") as output:
		process = subprocess.Popen([dumper.path, "dump", "-R", "-t", str(cell.root), "-D", images, "-o", "dump.log"],
					   stdin=nothing, stdout=output, stderr=output, start_new_session=True)
		time.sleep(delay)
		process.send_signal(signal.SIGKILL)
		process.wait()
	shutil.rmtree(images)
	return process.returncode == -signal.SIGKILL


def kill_dumps(cell, dumper, _restorer):
	chance = random.Random(cell.settings.seed)
	cell.start()
	cell.wait_ready()
	time.sleep(0.1)
	before = {pid: look(pid) for pid in system.tree(cell.root)}
	whole = time_of_dump(cell, dumper)
	hits = 0
	for number in range(cell.settings.kills):
		delay = chance.uniform(0, whole * 1.05)
		hits += kill_one(cell, dumper, delay)
		try:
			check_no_helpers(cell, before)
			check_untouched(cell, before)
		except Failure as failure:
			raise Failure(f"round {number + 1}, killed after {delay * 1000:.1f} ms of {whole * 1000:.0f}: {failure}")
	cell.finish()
	if hits < cell.settings.kills // 3:
		raise Failure(f"only {hits} of {cell.settings.kills} dumps were still running when they were killed")


ROWS = [
	Row("killed-dumps", "busy", run=kill_dumps, modes=("ours", "peer"), timeout=600,
	    peer_fails={"dump": "a killed dump leaves its code in the threads"}),
	Row("busy", "busy"),
]
