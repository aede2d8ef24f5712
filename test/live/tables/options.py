"""options.py - options of dump and restore: the parent of the restored root, pid files, logs, scripts."""

import os
import re
import signal
import string
import subprocess

from harness import system
from harness.cell import Failure
from harness.row import Row


def dumped(cell, dumper, options=()):
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images, options)
	return images


def check_parent(cell, expected, what):
	parent = system.status(cell.root).get("PPid")
	if parent != str(expected):
		raise Failure(f"the parent is {parent}, not {what} ({expected})")


def pidfile(cell, dumper, restorer):
	images = dumped(cell, dumper)
	cell.restore(restorer, images, ["--pidfile", cell.path("pid")])
	text = system.read_text(cell.path("pid"))
	if text.strip() != str(cell.root):
		raise Failure(f"the pid file has {text!r}, not {cell.root}")
	cell.finish()


def sibling(cell, dumper, restorer):
	images = dumped(cell, dumper)
	cell.restore(restorer, images, ["-S"])
	check_parent(cell, os.getpid(), "the parent of criu")
	cell.finish()


def start_criu(cell, restorer, images, options):
	pidfile = cell.path("restored.pid")  # criu writes it while it traces the process, right before that runs
	command = [restorer.path, "restore", "-D", images, "-o", "restore.log", "--pidfile", pidfile, *options]
	with open(os.devnull) as nothing, open(cell.path("output"), "a") as output:
		process = subprocess.Popen(command, stdin=nothing, stdout=output, stderr=output)
	def running():
		return (os.path.exists(pidfile) and system.thread_state(cell.root, cell.root) in "SR"
			and system.status(cell.root).get("TracerPid") == "0")
	if not system.wait_until(running, 5):
		raise Failure("the process was not restored: " + system.read_tail(os.path.join(images, "restore.log"), 500))
	return process


def foreground(cell, dumper, restorer):
	"""Without -d criu stays the parent, until the process ends."""
	images = dumped(cell, dumper)
	process = start_criu(cell, restorer, images, [])
	check_parent(cell, process.pid, "criu")
	if process.poll() is not None:
		raise Failure("criu did not wait")
	os.kill(cell.root, signal.SIGTERM)
	code = process.wait(10 * system.patience)
	cell.judge()
	if code != 0:
		raise Failure(f"the process ended with 0, but criu with {code}")


def exec_cmd(cell, dumper, restorer):
	"""The command replaces criu and is the parent. Output that criu has printed before is not lost."""
	images = dumped(cell, dumper)
	process = start_criu(cell, restorer, images, ["--display-stats", "--exec-cmd", "--", "sleep", "1000"])
	def is_sleep():
		return system.status(process.pid).get("Name") == "sleep"
	if not system.wait_until(is_sleep, 5):
		raise Failure("the command does not run in criu's process")
	check_parent(cell, process.pid, "the command")
	if "\nPages restored: " not in system.read_text(cell.path("output")):
		raise Failure("the statistics are not printed: " + system.read_text(cell.path("output")))
	os.kill(cell.root, signal.SIGTERM)
	system.wait_until(lambda: os.path.exists(cell.path("verdict")), 10)
	process.kill()
	process.wait()
	cell.wait_gone([cell.root])
	cell.judge()


def work_directory(cell, dumper, restorer):
	"""Logs and statistics go to -W, and nothing but images to -D."""
	os.mkdir(cell.path("work"))
	images = dumped(cell, dumper, ["-W", cell.path("work")])
	cell.restore(restorer, images, ["-W", cell.path("work")])
	cell.finish()
	expected = {"dump.log", "restore.log", "stats-dump", "stats-restore"}
	missing = expected - set(os.listdir(cell.path("work")))
	stray = [name for name in os.listdir(images) if not name.endswith(".img")]
	if missing or stray:
		raise Failure(f"missing in the work directory: {missing}; not an image: {stray}")


# An error on the command line is written to the log that the command line names, also if it names it behind the error.
LOG_LINE = re.compile(r"^\(\d\d\.\d{6}\) ((Error|Warn ) \((criu|compel)/[a-z0-9_/]+\.c:\d+\): )?\S")
REFUSED = [
	(["dump", "-t", "1", "--unprivileged"], "--unprivileged is not supported yet"),
	(["dump", "--weak-sysctls", "-t", "1"], "--weak-sysctls is not supported yet"),
	(["dump", "-t", "1", "--bogus"], "unknown option --bogus"),
	(["dump", "--bogus", "-t", "1"], "unknown option --bogus"),
	(["dump", "-t", "0"], "there is no process 0"),
	(["dump", "-t"], "-t needs an argument, PID, but is followed"),
	(["dump"], "needs the process to dump"),
	(["dump", "1"], "dump takes no argument"),
	(["restore", "-S"], "needs --restore-detached"),
	(["restore", "--root", "/"], "--root is not supported yet"),
	(["restore", "--config", "/nonexistent"], "cannot read the configuration file"),
	(["restore", "--status-fd", "99"], "descriptor 99 is not open"),
	(["exec", "-t", "1"], "exec no longer exists"),
	(["lazy-pages"], "lazy-pages is not supported yet"),
	(["bogus"], "unknown command"),
	(["check", "--ms"], "--ms no longer exists"),
]


def told_once(where, text, reason):
	lines = [line for line in text.splitlines() if reason in line]
	if len(lines) != 1 or len(text.splitlines()) != len(lines):
		raise Failure(f"{where} does not have exactly one message, '{reason}': {text!r}")
	return lines[0]


def refused(cell, arguments, reason, directory, level):
	log = ["-v" + level, "-o", "the.log", "-D", directory]
	for options in (arguments + log, [arguments[0]] + log + arguments[1:]):
		if options[-1] == "-t":
			continue
		run = subprocess.run([cell.ours.path, *options], capture_output=True, text=True, stdin=subprocess.DEVNULL)
		text = system.read_text(os.path.join(directory, "the.log"))
		if run.returncode != 1 or reason not in run.stderr.splitlines()[0]:
			raise Failure(f"{' '.join(options)}: exit code {run.returncode}, {run.stderr!r}")
		if level == "0":
			if text:
				raise Failure(f"level 0 wrote {text!r}")
		elif not re.match(LOG_LINE, told_once("the log", text, reason)) or " Error (" not in text:
			raise Failure(f"this is not the form of a log: {text!r}")
		os.unlink(os.path.join(directory, "the.log"))


def log_of_a_refusal(cell, _dumper, _restorer):
	for arguments, reason in REFUSED:
		for level in "0124":
			refused(cell, arguments, reason, cell.directory, level)
	# criu does not create a directory just for a log.
	run = subprocess.run([cell.ours.path, "dump", "--bogus", "-o", "the.log", "-D", cell.path("missing")],
			     capture_output=True, text=True, stdin=subprocess.DEVNULL)
	if run.returncode != 1 or len(run.stderr.splitlines()) != 2 or os.path.exists(cell.path("missing")):
		raise Failure(f"without a directory: exit code {run.returncode}, {run.stderr!r}")
	# If the directory is missing, a log at another place says so.
	run = subprocess.run([cell.ours.path, "restore", "-o", cell.path("the.log"), "-D", cell.path("missing")],
			     capture_output=True, text=True, stdin=subprocess.DEVNULL)
	told_once("the log", system.read_text(cell.path("the.log")), "missing")


def form_of_the_log(cell, dumper, restorer):
	"""Every line of a log has the right form, at each level. Levels 0 and 1 write nothing for a journey that succeeds."""
	cell.start()
	for level in "01234":
		images = cell.new_images("level" + level)
		for run in (cell.dump(dumper, images, ["-v" + level]), cell.restore(restorer, images, ["-v" + level])):
			text = system.read_text(run.log_path)
			wrong = [line for line in text.splitlines() if not re.match(LOG_LINE, line)]
			if wrong or (text and level in "01") or (not text and level in "34"):
				raise Failure(f"level {level}: {wrong or text[:500]!r}")
	cell.finish()


# Kinds of errors: words of getopt_long(), which the peer uses, and of ours. The value of an argument is not examined.
WRONG = {
	"unknown": r"unrecognized option|invalid option|unknown option",
	"ambiguous": r"is ambiguous|--[a-z-]+ may be --",
	"without an argument": r"requires an argument|needs an argument",
	"with an argument": r"doesn't allow an argument|takes no argument",
}
HIDDEN = ("close", "deprecated", "enable-external-masters", "enable-external-sharing", "ext-mount-map", "ext-unix-sk", "ms", "veth-pair")
OURS = ("compress", "grown-files", "json", "max-chain", "mmap-images", "output", "pidfd-store", "pre-rounds", "stats", "twin")
OURS_NEGATED = ("enable-external-masters", "enable-external-sharing", "exec-cmd", "lazy-pages", "leave-running", "leave-stopped",
		"tls-no-cn-verify")
WITH_ARGUMENT = ("--track-mem=1",)  # the name of a tracker: ours


def what_is_wrong(cell, path, arguments):
	run = subprocess.run([path, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cell.directory)
	first = run.stderr.strip().splitlines()[0] if run.stderr.strip() else ""
	return next((name for name, pattern in WRONG.items() if re.search(pattern, first)), "fine")


def names_in_help(path):
	text = subprocess.run([path, "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
	return set(re.findall(r"--([a-z][a-z-]+[a-z])", text)) - {"no"}


def spellings(cell, dumper, restorer):
	"""Tries every long option with an argument, without one, and negated; and every letter. Both programs must agree."""
	names = names_in_help(dumper.path) | names_in_help(restorer.path) | set(HIDDEN)
	options = [form.format(name) for name in sorted(names - set(OURS)) for form in ("--{}", "--{}=1", "--no-{}")]
	options = sorted(set(options) - {f"--no-{name}" for name in OURS_NEGATED} - set(WITH_ARGUMENT) - {"--help", "--version"})
	options += [f"-{letter}" for letter in string.ascii_letters + string.digits + "?:;+" if letter not in "hV"]
	different = []
	for option in options:
		ours = what_is_wrong(cell, cell.ours.path, ["check", "--feature", "list", option])
		peers = what_is_wrong(cell, cell.peer.path, ["check", "--feature", "mnt_id", option])
		if ours != peers:
			different.append(f"{option}: {ours}, and for the peer {peers}")
	if different or len(options) < 300:
		raise Failure(f"{len(options)} options; " + "; ".join(different))


def feature_of_a_pre_dump(cell, dumper, _restorer):
	"""Container engines ask for this feature and then run a pre-dump: if the answer is yes, the pre-dump must work on any kernel."""
	answer = subprocess.run([dumper.path, "check", "--feature", "mem_dirty_track"], capture_output=True, text=True)
	if answer.returncode or answer.stdout != "mem_dirty_track is supported\n":
		raise Failure(f"exit code {answer.returncode}: {answer.stdout!r} {answer.stderr!r}")
	cell.start()
	cell.pre_dump(dumper, cell.new_images())
	cell.finish()


def shape(printed):
	return [re.sub(r"\b\d+\b", "N", re.sub(r"0x[0-9a-f]+", "0xN", line)) for line in printed.strip().splitlines()]


def check_statistics(ours, peers):
	"""The output begins with the lines of the peer, apart from the numbers. Lines of our own may follow."""
	if len(peers) < 5 or ours[:len(peers)] != peers:
		raise Failure(f"{ours}\nfor the peer {peers}")


def statistics(cell, _dumper, _restorer):
	show = ["--display-stats"]
	cell.start()
	ours = shape(cell.dump(cell.ours, cell.new_images("ours"), ["-R", *show]).printed)
	peers = shape(cell.dump(cell.peer, cell.new_images("peers"), ["-R", *show]).printed)
	check_statistics(ours, peers)
	check_statistics(shape(cell.pre_dump(cell.ours, cell.new_images("pre"), show).printed), peers)
	images = cell.new_images("first")
	cell.dump(cell.ours, images)
	ours = shape(cell.restore(cell.ours, images, show).printed)
	images = cell.new_images("second")
	cell.dump(cell.ours, images)
	check_statistics(ours, shape(cell.restore(cell.peer, images, show).printed))
	cell.finish()


def row(name, run):
	return Row(f"option-{name}", "counter", run=run, modes=("ours", "ours-to-peer", "peer-to-ours", "peer"))


def own_row(name, run):
	return Row(f"option-{name}", "counter", run=run, modes=("ours",))


ROWS = [
	row("pidfile", pidfile),
	row("restore-sibling", sibling),
	row("foreground", foreground),
	row("exec-cmd", exec_cmd),
	row("work-dir", work_directory),
	own_row("log-of-a-refusal", log_of_a_refusal),
	own_row("log-form", form_of_the_log),
	own_row("check-mem-dirty-track", feature_of_a_pre_dump),
	Row("option-display-stats", "counter", run=statistics, modes=("ours-to-peer",)),
	Row("option-spellings", run=spellings, modes=("ours-to-peer",), timeout=120),
]
