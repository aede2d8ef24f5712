"""hard.py - rare states of processes, files, and of the environment in which criu is started."""

import functools
import os
import random
import re
import shutil
import signal
import subprocess
import time

from harness import faults, system
from harness.cell import NOBODY, PROGRAMS, Failure, Skip
from harness.criu import Criu
from harness.row import Row


# For wrapped(): it may not read the kernel's memory.
WEAK = '#!/bin/sh\nexec setpriv --bounding-set -sys_admin,-bpf,-perfmon --inh-caps -sys_admin,-bpf,-perfmon {criu} "$@"\n'


def wrapped(cell, criu, name, script):
	"""A criu that a script runs: `{criu}` in the script stands for the path of the program."""
	path = cell.path(name)
	with open(path, "w") as file:
		file.write(script.replace("{criu}", f"'{criu.path}'"))
	os.chmod(path, 0o755)
	return Criu(path, cell.settings.peer)


def there_and_back(cell, dumper, restorer):
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	cell.pause()
	cell.check_running()
	cell.finish()


def signals_ignored(cell, dumper, restorer):
	"""criu is started with SIGCHLD ignored: zombies must be restored as zombies all the same."""
	script = ("#!/usr/bin/env python3\nimport os, signal, sys\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
		  "criu = {criu}\nos.execv(criu, [criu] + sys.argv[1:])\n")
	there_and_back(cell, wrapped(cell, dumper, "dumper", script), wrapped(cell, restorer, "restorer", script))


def few_descriptors(cell, dumper, restorer):
	"""criu is started with a low soft limit of open files: it raises it."""
	script = '#!/bin/sh\nulimit -Sn 16\nexec {criu} "$@"\n'
	there_and_back(cell, wrapped(cell, dumper, "dumper", script), wrapped(cell, restorer, "restorer", script))


def crowded(cell, dumper, restorer):
	"""The process has nearly as many open files as criu may have."""
	script = '#!/bin/sh\nulimit -n 4200\nexec {criu} "$@"\n'
	there_and_back(cell, wrapped(cell, dumper, "dumper", script), wrapped(cell, restorer, "restorer", script))


def closed_standard_files(cell, dumper, restorer):
	"""criu is started without standard files, and has no other log: its lines must not get into files that it opens."""
	cell.start()
	images = cell.new_images()
	for command in (["dump", "-t", str(cell.root)], ["restore", "-d"]):
		run = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", restorer.path, *command, "-vvvv", "-D", images], check=False)
		if run.returncode:
			raise Failure(f"{command[0]} ended with {run.returncode}")
		if command[0] == "dump":
			system.wait_until(lambda: cell.reap() or cell.root in cell.exits, 3)
			cell.exits.clear()
	cell.pause()
	cell.finish()


def foreign_zombie(cell, dumper, restorer):
	"""A user with no more than CAP_CHECKPOINT_RESTORE dumps a process that has a zombie of root."""
	script = (f'#!/bin/sh\nexec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --inh-caps +checkpoint_restore'
		  ' --ambient-caps +checkpoint_restore {criu} "$@"\n')
	dumper = wrapped(cell, dumper, "dumper", script)
	cell.user = NOBODY
	shutil.copy(shutil.which("true"), cell.path("ends"))
	os.chown(cell.path("ends"), 0, 0)
	os.chmod(cell.path("ends"), 0o4755)
	if os.statvfs(cell.directory).f_flag & os.ST_NOSUID:
		raise Skip("the directory of the test is mounted without set-user-ID programs")
	cell.start()
	os.chown(cell.path("output"), NOBODY, NOBODY)
	images = cell.new_images()
	os.chown(images, NOBODY, NOBODY)
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	cell.finish()


def has_other_children(cell, dumper, restorer):
	"""A failing restore waits for the processes that it has created, not for children that criu had before."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	pid = cell.path("sleeper.pid")
	other = wrapped(cell, restorer, "restorer", f'#!/bin/sh\nsleep 60 >/dev/null 2>&1 &\necho $! > {pid}\nexec {{criu}} "$@"\n')
	step = "trace the processes"
	run = other.restore(images, timeout=10, environment=faults.in_step("restore", step))
	os.kill(int(system.read_text(pid)), signal.SIGKILL)
	faults.check_failed(run, step)
	if run.seconds > 5 * system.patience:
		raise Failure(f"the restore should have failed soon: {run.describe()}")
	cell.restore(restorer, images)
	cell.finish()


def taken_late(cell, dumper, restorer, which):
	"""A pid is taken after criu has checked all pids: the restore fails and leaves nothing, and the other process runs on."""
	cell.start()
	groups = {int(system.stat_fields(f"/proc/{pid}/stat")[2]) for pid in system.tree(cell.root)}
	pid = {"root": cell.root, "child": system.tree(cell.root)[-1], "thread": system.threads(cell.root)[-1],
	       "leader": max(groups - set(system.tree(cell.root)), default=0)}[which]
	images, taker = cell.new_images(), cell.path("taker")
	os.mkdir(taker)
	cell.dump(dumper, images)
	script = cell.path("script")
	with open(script, "w") as file:
		file.write(f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = pre-restore ] || exit 0\n'
			   f"{PROGRAMS}/take_pid {taker} {pid} live >/dev/null 2>&1 &\n"
			   f"while [ ! -e {taker}/taken ]; do sleep 0.01; done\n")
	os.chmod(script, 0o755)
	run = restorer.restore(images, ["--action-script", script, *cell.row.restore_options], timeout=10)
	cell.reap()
	left = {task: system.status(task).get("Name") for task in system.descendants(os.getpid())}
	for task in left:
		os.kill(task, signal.SIGKILL)
	if not run.failed or run.seconds > 5 * system.patience or str(pid) not in run.error:
		raise Failure(f"the restore should have failed soon and named {pid}: {run.describe()}")
	if left.get(pid) != "take_pid" or set(left.values()) != {"take_pid"}:
		raise Failure(f"processes {left} are left; it should be {pid} alone")


def leaderless(cell, dumper, _restorer):
	"""A process whose first thread has ended looks like a zombie, but is none: the dump is refused."""
	cell.start()
	run = dumper.dump(cell.root, cell.new_images())
	if not run.failed or "first thread has ended" not in run.error:
		raise Failure(f"it was not refused: {run.describe()}")
	cell.finish()


def shares_with_parent(cell, dumper, _restorer):
	"""The root shares something with its parent, which is not in the tree: the refusal names the parent, and both run on."""
	cell.start()
	child = int(system.read_text(cell.path("child")))
	run = dumper.dump(child, cell.new_images(), ["-j"])
	if not run.failed or f"with process {cell.root}" not in run.error:
		raise Failure(f"it was not refused: {run.describe()}")
	cell.check_running()
	cell.finish()


def waits_in_vfork(cell, dumper, restorer):
	"""Who waits in vfork() cannot be stopped: refused by name, and all go on. When the child has ended, it is saved."""
	cell.start()
	child = int(system.read_text(cell.path("child")))
	run = dumper.dump(cell.root, cell.new_images())
	if not run.failed or not re.search(rf"thread {cell.root} \(vforks\) does not stop: it waits in vfork\(\) for a child "
					   "that neither runs another program nor ends", run.error):
		raise Failure(f"it was not refused: {run.describe()}")
	if run.seconds > 4 * system.patience:
		raise Failure(f"it took {run.seconds:.1f} s to find out")
	cell.check_running()
	if os.path.exists(cell.path("returned")):
		raise Failure("vfork() has returned before the child ended")
	os.kill(child, signal.SIGUSR1)
	if not system.wait_until(lambda: os.path.exists(cell.path("returned")), 10):
		raise Failure(f"vfork() does not return: {system.describe_task(cell.root)}")
	images = cell.new_images("later")
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	cell.finish()


def nice_value(pid):
	fields = system.stat_fields(f"/proc/{pid}/stat")
	return int(fields[16]) if fields else None


def has_priority(cell, dumper, _restorer, nice):
	"""criu comes before other programs while it waits for a process that does not stop, but not if its starter wants it to be nice."""
	cell.start()
	with open(cell.path("printed"), "w") as printed:
		criu = subprocess.Popen(["nice", "-n", str(nice), dumper.path, "dump", "-t", str(cell.root), "-D", cell.new_images(),
					 "-o", "dump.log"], stdin=subprocess.DEVNULL, stdout=printed, stderr=printed)
	seen = set()
	while criu.poll() is None:
		seen.add(nice_value(criu.pid))
		time.sleep(0.02)
	if criu.returncode == 0:
		raise Failure("the dump should have been refused")
	expected = -20 if not nice else nice
	if expected not in seen or seen - {0, nice, expected, None}:
		raise Failure(f"criu had the nice values {seen}, and should have had {expected} while it waited")
	cell.check_running()
	os.kill(int(system.read_text(cell.path("child"))), signal.SIGUSR1)
	cell.finish()


def gives_no_priority(cell, dumper, _restorer):
	"""An action script runs while the processes are frozen, and has the priority of criu's starter."""
	cell.start()
	script = cell.path("script")
	with open(script, "w") as file:
		file.write(f'#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-dump ] || nice > {cell.path("nice")}\n')
	os.chmod(script, 0o700)
	cell.dump(dumper, cell.new_images(), ["-R", "--action-script", script])
	if system.read_text(cell.path("nice")) != f"{os.nice(0)}\n":
		raise Failure(f"the script has the nice value {system.read_text(cell.path('nice'))}")
	cell.finish()


def limited_files(cell, dumper, _restorer):
	"""The limit of file sizes is too low for the images: the error says so, and the process runs on."""
	cell.start()
	script = '#!/bin/bash\nulimit -S -f 4\nexec {criu} "$@"\n'
	run = wrapped(cell, dumper, "dumper", script).dump(cell.root, cell.new_images(), ["-v1"])
	if not run.failed or "File too large" not in run.error:
		raise Failure(f"the dump should have failed with 'File too large': {run.describe()}")
	cell.check_running()
	cell.finish()


def in_session_of_its_own(cell, body):
	"""Runs body() in a process that leads a new session. In the harness's session other processes could wake a stopped job."""
	leader = os.fork()
	if leader:
		_, status = os.waitpid(leader, 0)
		if status:
			raise Failure(system.read_text(cell.path("session")) or f"wait status {status:#x}")
		return
	os.setsid()
	try:
		body()
		os._exit(0)
	except Exception as problem:
		with open(cell.path("session"), "w") as file:
			file.write(str(problem))
		os._exit(1)


def start_job(cell):
	"""Starts the program as a shell starts a job: in a process group of its own, in this session."""
	with open(os.devnull) as nothing, open(cell.path("output"), "a") as output:
		process = subprocess.Popen([os.path.join(PROGRAMS, cell.row.program), cell.directory], stdin=nothing,
					   stdout=output, stderr=output, cwd=cell.directory, process_group=0)
	cell.root, process.returncode = process.pid, 0
	with open(cell.path("root"), "w") as file:
		file.write(str(cell.root))
	cell.wait_ready()


def check_stopped(cell):
	time.sleep(0.2)
	state = system.thread_state(cell.root, cell.root)
	if state != "T":
		raise Failure(f"the job is not stopped: {state}")


def go_on(cell):
	os.kill(cell.root, signal.SIGCONT)
	cell.pause()
	cell.finish()


def stopped_job(cell, dumper, restorer):
	"""A job in criu's session is restored stopped. It must not get SIGHUP when criu, its parent, ends."""
	def body():
		start_job(cell)
		images = cell.new_images()
		cell.dump(dumper, images, ["-j"])
		cell.restore(restorer, images, ["-j", "-s"])
		check_stopped(cell)
	in_session_of_its_own(cell, body)
	cell.root = int(system.read_text(cell.path("root")))
	go_on(cell)


def suspended_job(cell, dumper, restorer):
	"""A job that was stopped from its terminal is stopped again, and its new parent learns the stop signal from waitid()."""
	def body():
		start_job(cell)
		os.kill(cell.root, signal.SIGTSTP)
		check_stopped(cell)
		images = cell.new_images()
		cell.dump(dumper, images, ["-j"])
		cell.restore(restorer, images, ["-j"])
		check_stopped(cell)
	in_session_of_its_own(cell, body)
	cell.root = int(system.read_text(cell.path("root")))
	info = os.waitid(os.P_PID, cell.root, os.WSTOPPED | os.WNOWAIT | os.WNOHANG)
	if not info or info.si_status != signal.SIGTSTP:
		raise Failure(f"the job is stopped by signal {info and info.si_status}, not by {int(signal.SIGTSTP)}")
	go_on(cell)


def stopped_on_top(cell, dumper, restorer):
	"""-s, with a stopped child in the tree: the same signal keeps it stopped, after the dump and after the restore."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images, ["-s"])
	check_stopped(cell)
	go_on(cell)
	cell.forget_verdict()
	cell.restore(restorer, images, ["-s"])
	check_stopped(cell)
	go_on(cell)


def killed_for_others(cell, dumper, restorer):
	"""criu is killed while it restores a process of another user, for which the kernel resets PR_SET_PDEATHSIG."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	whole = cell.restore(restorer, images).seconds
	cell.kill_tree()
	chance, hits = random.Random(f"{cell.settings.seed} {cell.row.name}"), 0
	for _ in range(cell.settings.kills // 2):
		with open(os.devnull, "r+") as nothing:
			process = subprocess.Popen([restorer.path, "restore", "-d", "-D", images, "-o", "restore.log"], stdin=nothing,
						   stdout=nothing, stderr=nothing)
		time.sleep(chance.uniform(whole * 0.2, whole * 1.05))
		process.kill()
		hits += process.wait() != 0
		if process.returncode == 0:
			cell.kill_tree()
		def all_gone():
			cell.reap()
			return not system.descendants(os.getpid())
		if process.returncode and not system.wait_until(all_gone, 3) and not is_whole(cell):
			raise Failure("left behind: " + "; ".join(map(system.describe_task, system.descendants(os.getpid()))))
		cell.kill_tree()
	if not hits:
		raise Failure("no restore was still going on when it was killed")
	cell.restore(restorer, images)
	cell.finish()


def is_whole(cell):
	"""Had the restore already succeeded when criu was killed?"""
	return system.thread_state(cell.root, cell.root) in "RS" and system.status(cell.root).get("Name") == cell.row.program


OURS = {"modes": ("ours",)}
ROWS = [
	Row("files-directory-read", "directory_read"),
	Row("files-moved-outside", "files_moved", changes_files=True, peer_fails={
		"dump": "it takes descriptors with different positions for different open files"}),
	Row("tree-exit-signal", "exit_signal", peer_fails={
		"dump": "the signal is lost", "restore": "the signal is lost"}),
	Row("tree-zombie-alone-in-group", "orphan_group"),
	Row("hard-child-signals-ignored", "tree", run=signals_ignored, **OURS),
	Row("hard-foreign-zombie", "foreign_zombie", run=foreign_zombie, **OURS),
	Row("hard-closed-standard-files", "files", run=closed_standard_files, **OURS),
	Row("hard-few-descriptors", "tree", run=few_descriptors, **OURS),
	Row("hard-crowded", "crowded", run=crowded, **OURS),
	*[Row(f"hard-taken-{which}{suffix}", program, arguments=arguments, run=functools.partial(taken_late, which=which), **OURS, **more)
	  for which, suffix, program, arguments, more in (
		("root", "", "tree", (), {}), ("root", "-death-signal", "death_signals", ("leader",), {}),
		("root", "-sibling", "tree", (), {"restore_options": ("--restore-sibling",)}),
		("child", "", "tree", (), {}), ("thread", "", "threads", ("4",), {}), ("leader", "", "tree", (), {}))],
	Row("hard-leaderless", "leaderless", run=leaderless, **OURS),
	*[Row("hard-shares-" + what, "sharing", arguments=(what,), run=shares_with_parent, **OURS)
	  for what in ("memory", "files", "directories")],
	Row("hard-waits-in-vfork", "vforks", run=waits_in_vfork, **OURS),
	*[Row(f"hard-priority-{name}", "vforks", run=functools.partial(has_priority, nice=nice), **OURS)
	  for name, nice in (("highest", 0), ("nice", 5))],
	Row("hard-priority-script", "counter", run=gives_no_priority, **OURS),
	Row("hard-limited-files", "counter", run=limited_files, **OURS),
	Row("hard-other-children", "tree", run=has_other_children, **OURS),
	Row("hard-stopped-job", "counter", run=stopped_job, **OURS),
	Row("hard-suspended-job", "counter", run=suspended_job, modes=("ours", "peer-to-ours")),
	Row("hard-stopped-on-top", "stopped", arguments=(str(int(signal.SIGTSTP)),), run=stopped_on_top, has_stopped_task=True, **OURS),
	Row("hard-killed-for-others", "credentials", arguments=("user",), run=killed_for_others, timeout=600, **OURS),
]
