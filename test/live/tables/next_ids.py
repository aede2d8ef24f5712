"""next_ids.py - the ids that the kernel would give next are those that the tree needs. That is so in a young pid namespace, such as
that of a container. criu's own processes and threads must leave these ids to the tree.

This file is also the program that runs as pid 1 of the namespace: it makes the tree, dumps and restores it, and ends it.
"""

import os
import signal
import subprocess
import sys
import time

LIMIT = 30  # seconds


def until(condition, what):
	end = time.monotonic() + LIMIT
	while not condition():
		if time.monotonic() > end:
			sys.exit(f"{what}: not in time")
		time.sleep(0.01)


def collect():
	"""True: there is no child any more."""
	try:
		while os.waitpid(-1, os.WNOHANG)[0]:
			pass
	except ChildProcessError:
		return True
	return False


def is_set(directory, name):
	return os.path.exists(os.path.join(directory, name))


def give_id_after(number):
	with open("/proc/sys/kernel/ns_last_pid", "w") as last:
		last.write(str(number))


def main(criu, directory, options, *command):
	quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
	images = os.path.join(directory, "images-inside")
	os.mkdir(images)
	give_id_after(40)
	root = subprocess.Popen(command, **quiet).pid
	until(lambda: is_set(directory, "ready"), "ready")
	if subprocess.run([criu, "dump", "-t", str(root), "-D", images], stdin=subprocess.DEVNULL, check=False).returncode:
		sys.exit("the dump failed")
	until(collect, "the end of the tree")
	give_id_after(root - 2)  # to criu: the next ones are those of the tree
	restored = subprocess.Popen([criu, "restore", "-d", "-D", images, *options.split()], stdin=subprocess.DEVNULL)
	if os.waitpid(restored.pid, 0)[1]:
		sys.exit("the restore failed")
	os.kill(root, signal.SIGTERM)
	until(collect, "the end of the restored tree")


if __name__ == "__main__":
	main(*sys.argv[1:])
else:
	from harness.cell import Failure
	from harness.row import Row

	def in_young_namespace(cell, dumper, restorer):
		command = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", sys.executable, __file__, restorer.path,
			   cell.directory, " ".join(cell.row.restore_options), cell.program(), cell.directory, *cell.row.arguments]
		run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * LIMIT, check=False)
		if run.returncode:
			raise Failure(f"{run.stdout}{run.stderr}")
		cell.judge()

	ROWS = [Row(f"next-ids-{name}", "siblings", arguments=arguments, restore_options=options, run=in_young_namespace, modes=("ours",))
		for name, arguments, options in (
			("watchdog", ("4", "1", "plain"), ("--restore-sibling",)),
			("middle-process", ("4", "1", "death-signal"), ()),
			("threads", ("12", "17", "plain"), ()))]
