"""parents.py - the parent of a restored root, and the signals that its threads want when the parent dies (PR_SET_PDEATHSIG)."""

import os
import signal
import subprocess

from harness import system
from harness.cell import Failure
from harness.row import Row
from . import options


def adopter(cell, restorer, images, more):
	"""Starts a subreaper that runs criu. It adopts the root when criu ends, or is its parent from the start (--restore-sibling)."""
	pid = os.fork()
	if pid:
		if not system.wait_until(lambda: os.path.exists(cell.path("restored")), 20):
			raise Failure("not restored in time")
		if system.read_text(cell.path("restored")) != "0":
			raise Failure("not restored: " + system.read_tail(os.path.join(images, "restore.log"), 500))
		return pid
	system.become_subreaper()
	with open(os.devnull, "r+") as nothing:
		code = subprocess.call([restorer.path, "restore", "-d", "-D", images, "-o", "restore.log", *more], stdin=nothing,
				       stdout=nothing, stderr=nothing)
	with open(cell.path("restored.new"), "w") as file:
		file.write(str(code))
	os.rename(cell.path("restored.new"), cell.path("restored"))
	while True:
		signal.pause()


def runner(cell, restorer, images, more):
	"""Starts criu, which stays the parent, or is replaced by a command."""
	return options.start_criu(cell, restorer, images, more).pid


def parent_dies(start, *more):
	def run(cell, dumper, restorer):
		cell.start()
		cell.pause()
		images = cell.new_images()
		cell.dump(dumper, images)
		parent = start(cell, restorer, images, more)
		cell.exits.pop(cell.root, None)
		cell.pause()
		cell.check_running()
		options.check_parent(cell, parent, "the expected parent")
		open(cell.path("orphaned"), "w").close()
		os.kill(parent, signal.SIGKILL)
		cell.wait_gone([parent])
		cell.pause()
		if cell.row.arguments == ("kill",):
			cell.wait_gone([cell.root])
		else:
			cell.check_running()
			cell.finish()
	return run


COURSES = {
	"": parent_dies(adopter),
	"-sibling": parent_dies(adopter, "--restore-sibling"),
	"-waiting": parent_dies(runner),
	"-exec-cmd": parent_dies(runner, "--exec-cmd", "--", "sleep", "1000"),
}
KINDS = ("leader", "threads", "user", "kill")
TOO_EARLY = {"restore": "the signal is sent when the peer itself ends"}
ANOTHER_USER = {"user": {"dump": "another user's limits need CAP_SYS_RESOURCE"}}


def row(name, kind, **more):
	return Row(name, "death_signals", arguments=(kind,), peer_fails={**TOO_EARLY, **ANOTHER_USER.get(kind, {})}, **more)


ROWS = [
	*[row("death-signal-" + kind, kind, unprivileged=kind in ("leader", "threads")) for kind in KINDS],
	Row("death-signal-child", "death_signals", arguments=("child",), unprivileged=True),
	*[row(f"death-signal-comes-{kind}{how}", kind, run=run, modes=("ours", "peer-to-ours"))
	  for kind in KINDS for how, run in COURSES.items()],
]
