"""kills.py - criu is killed at a random moment of a dump, over and over: the tree must not notice.

After each kill every thread must count on, and there must be no new mapping, descriptor, blocked signal or tracer.
"""

import functools
import os
import random
import shutil
import signal
import subprocess
import time

from harness import modes, system
from harness.cell import Failure
from harness.row import Row

SIGNAL_FACTS = ("SigBlk", "SigIgn", "SigCgt", "TracerPid", "Seccomp", "Threads")


def look(pid):
	"""Everything of a process that a dump might disturb."""
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


def check_counting(cell, before):
	counts = {pid: counters(cell, pid) for pid in before}
	def all_counting():
		return all(now > then for pid in before for now, then in zip(counters(cell, pid), counts[pid]))
	if not system.wait_until(all_counting, 1):
		raise Failure(f"not every thread counts: {counts}, then {[counters(cell, pid) for pid in before]}")


def check_untouched(cell, before):
	"""Raises Failure unless, within a second, everything is as it was and all threads count, of a program that counts."""
	if os.path.exists(cell.path("counters")):
		check_counting(cell, before)
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
		raise Failure("helper processes of criu are left: " + "; ".join(map(system.describe_task, helpers())))


def time_of_dump(cell, dumper):
	"""The seconds of the shortest of three dumps, so that signals arrive while a dump runs."""
	seconds = []
	for number in range(3):
		images = cell.new_images(f"whole{number}")
		run = dumper.dump(cell.root, images, ["-R", *cell.row.dump_options])
		if run.failed:
			raise Failure(f"an undisturbed dump failed: {run.describe()}")
		seconds.append(run.seconds)
		shutil.rmtree(images)
	return min(seconds)


def start_and_signal(cell, command, delay, signo):
	"""Runs criu and sends it a signal after `delay`. Returns its exit code, negative if the signal ended it."""
	with open(os.devnull) as nothing, open(cell.path("killed.out"), "w") as output:
		process = subprocess.Popen(command, stdin=nothing, stdout=output, stderr=output, start_new_session=True)
		time.sleep(delay)
		process.send_signal(signo)
		try:
			return process.wait(5 * system.patience)
		except subprocess.TimeoutExpired:
			process.kill()
			process.wait()
			raise Failure(f"criu did not end within 5 s of signal {signo}")


def moments(cell, whole, rounds):
	chance = random.Random(f"{cell.settings.seed} {cell.row.name}")
	return [chance.uniform(0, whole * 1.05) for _ in range(rounds)]


def where(number, delay, whole):
	return f"round {number + 1}, signalled after {delay * 1000:.1f} ms of {whole * 1000:.0f}"


def signal_dumps(cell, dumper, signo, rounds):
	"""The tree must not notice. A dump that did not succeed must not leave a directory that looks complete."""
	cell.start()
	cell.pause()
	before = {pid: look(pid) for pid in system.tree(cell.root)}
	whole = time_of_dump(cell, dumper)
	hits = 0
	for number, delay in enumerate(moments(cell, whole, rounds)):
		images = cell.new_images("killed")
		command = [dumper.path, "dump", "-R", "-t", str(cell.root), "-D", images, "-o", "dump.log", *cell.row.dump_options]
		try:
			code = start_and_signal(cell, command, delay, signo)
			check_no_helpers(cell, before)
			check_untouched(cell, before)
		except Failure as failure:
			raise Failure(f"{where(number, delay, whole)}: {failure}")
		hits += code != 0
		if code > 0 and os.path.exists(os.path.join(images, "inventory.img")):
			raise Failure(f"{where(number, delay, whole)}: exit code {code}, but there is an inventory.img")
		check_nothing_half_written(signo, images)
		shutil.rmtree(images)
	cell.finish()
	check_hits(hits, rounds)


def check_nothing_half_written(signo, images):
	"""A dump that gets SIGTERM removes its images; one that is killed cannot."""
	left = [name for name in os.listdir(images) if name.endswith(".img") or name.startswith(".")]
	if signo != signal.SIGKILL and left and "inventory.img" not in left:
		raise Failure(f"the dump has left files: {left}")


def check_hits(hits, rounds):
	if hits < rounds // 3:
		raise Failure(f"only {hits} of {rounds} runs were still going on when the signal was sent")


def kill_dumps(cell, dumper, _restorer):
	signal_dumps(cell, dumper, signal.SIGKILL, cell.settings.kills)


def terminate_dumps(cell, dumper, _restorer):
	signal_dumps(cell, dumper, signal.SIGTERM, cell.settings.kills // 3)


def kill_restores(cell, dumper, restorer, number=signal.SIGKILL):
	"""The unfinished tasks die with criu. If the restore was done already, the whole tree is there."""
	cell.start()
	size = len(system.tree(cell.root))
	images = cell.new_images()
	cell.dump(dumper, images)
	seconds = []
	for _ in range(3):
		seconds.append(cell.restore(restorer, images).seconds)
		cell.kill_tree()
	whole = min(seconds)
	command = [restorer.path, "restore", "-d", "-D", images, "-o", "restore.log", *cell.row.restore_options]
	hits, rounds = 0, cell.settings.kills
	for round_number, delay in enumerate(moments(cell, whole, rounds)):
		hits += start_and_signal(cell, command, delay, number) != 0
		try:
			check_all_or_nothing(cell, size)
		except Failure as failure:
			raise Failure(f"{where(round_number, delay, whole)}: {failure}")
	cell.restore(restorer, images)
	cell.finish()
	check_hits(hits, rounds)


def kill_held_restores(cell, dumper, restorer):
	"""The one that is killed is the caller; a child of the holder restores."""
	try:
		kill_restores(cell, dumper, restorer)
	finally:
		modes.end_holder(cell.path("images"))


def check_all_or_nothing(cell, size):
	"""Either all tasks have ended, or the restore was done already: then all of them exist and work."""
	def left():
		cell.reap()
		return sorted(set(system.descendants(os.getpid())) - set(modes.holders()))
	system.wait_until(lambda: not left(), 1)
	pids = left()
	if len(pids) == size and cell.root in pids and system.status(cell.root).get("Name") == cell.row.program:
		check_untouched(cell, {pid: look(pid) for pid in pids})
		cell.kill_tree()
	elif not system.wait_until(lambda: not left(), 5):
		raise Failure("left behind: " + "; ".join(map(system.describe_task, left())))


TIE = "PTRACE_O_EXITKILL"  # criu ties the processes to itself, one after the other, when all is decided


def dump_in_strace(cell, criu, images, *injection):
	"""Dumps the tree and ends it. Returns strace's line for each of criu's calls of ptrace()."""
	lines, cell.away_since = cell.path("strace"), time.monotonic()
	subprocess.run(["strace", "-o", lines, "-e", "trace=ptrace", *injection, criu.path, "dump", "-t", str(cell.root), "-D", images,
			"-o", "dump.log"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
	return [line for line in system.read_text(lines).splitlines() if line.startswith("ptrace(")]


def kill_in_the_end(cell, dumper, restorer):
	"""criu is killed when it has tied a part of the tree to itself. All processes must die, and the images be complete."""
	cell.start()
	before, images = system.tree(cell.root), cell.new_images("undisturbed")
	calls = dump_in_strace(cell, dumper, images)
	cell.wait_gone(before)
	cell.restore(restorer, images)
	ties = [number for number, call in enumerate(calls, 1) if TIE in call]
	images = cell.new_images()
	calls = dump_in_strace(cell, dumper, images, "-e", f"inject=ptrace:signal=SIGKILL:when={ties[len(ties) // 2]}")
	tied = len([call for call in calls if TIE in call])
	if not 0 < tied < len(ties):
		raise Failure(f"missed: criu was killed when it had tied {tied} of {len(ties)} processes")
	cell.wait_gone(before, 2)
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


PEER_FAILS = {"dump": "a killed dump leaves its code in the threads"}

ROWS = [
	Row("killed-dumps", "busy", run=kill_dumps, modes=("ours", "peer"), timeout=1800, peer_fails=PEER_FAILS),
	Row("killed-dumps-threads", "busy", arguments=("threads",), run=kill_dumps, modes=("ours",), timeout=1800),
	Row("killed-dumps-twin", "busy", dump_options=modes.TWINS, run=kill_dumps, modes=("ours",), timeout=1800),
	Row("killed-dumps-precopy", "busy", dump_options=modes.ROUNDS, run=kill_dumps, modes=("ours",), timeout=1800),
	Row("killed-dumps-compressed", "busy", dump_options=("--compress",), run=kill_dumps, modes=("ours",), timeout=1800),
	Row("killed-dumps-twin-childless", "childless", arguments=("handled",), dump_options=modes.TWINS, run=kill_dumps, modes=("ours",),
	    timeout=1800),
	Row("killed-in-the-end", "processes", arguments=("100",), run=kill_in_the_end, modes=("ours",)),
	Row("killed-restores", "busy", run=kill_restores, modes=("ours", "peer"), timeout=1800,
	    peer_fails={"restore": "half-made tasks survive it"}),
	Row("killed-restores-held", "busy", restore_options=("--mmap-images",), run=kill_held_restores, modes=("ours",), timeout=1800),
	Row("killed-restores-death-signal", "busy", arguments=("death_signal",), run=kill_restores, modes=("ours",), timeout=1800),
	Row("killed-restores-sibling", "busy", restore_options=("--restore-sibling",), run=kill_restores, modes=("ours",), timeout=1800),
	*[Row(f"terminated-restores-{name}", "busy", arguments=arguments, restore_options=options,
	      run=functools.partial(kill_restores, number=signal.SIGTERM), modes=("ours",), timeout=1800)
	  for name, arguments, options in (("plain", (), ()), ("sibling", (), ("--restore-sibling",)), ("death-signal", ("death_signal",), ()))],
	Row("terminated-dumps-precopy", "busy", dump_options=modes.ROUNDS, run=terminate_dumps, modes=("ours",), timeout=1800),
	Row("terminated-dumps-twin", "busy", dump_options=modes.TWINS, run=terminate_dumps, modes=("ours",), timeout=1800),
	Row("terminated-dumps", "busy", run=terminate_dumps, modes=("ours", "peer"), timeout=1800, peer_fails=PEER_FAILS),
	Row("busy", "busy"),
]
