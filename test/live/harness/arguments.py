"""arguments.py - the command line of test/live/run and test/fault/run: which tests, with which binaries."""

import argparse
import os
import random
import re
import signal
import subprocess
import zlib

from . import system
from .cell import ROOT
from .criu import Criu
from .modes import MODES, NOT_BY_DEFAULT
from .runner import Runner, Test


def parse(description):
	parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
	parser.add_argument("-k", metavar="PATTERN", default="", help="only rows in whose name this regular expression is found")
	parser.add_argument("--mode", action="append", metavar="MODE", choices=[mode.name for mode in MODES],
			    help="only this mode (may be given several times); default: all but peer and undisturbed")
	parser.add_argument("--part", metavar="N/M", type=part, default=(1, 1),
			    help="every row in its main mode (the first of its modes), and the Nth Mth of all other tests")
	parser.add_argument("--rows", metavar="N/M", type=part, default=(1, 1), help="only the Nth Mth of the rows")
	parser.add_argument("--list", action="store_true", help="list the tests and exit")
	parser.add_argument("binary", nargs="?", help="the binary under test; the same as --criu")
	parser.add_argument("--criu", default=os.path.join(ROOT, "build", "criu"), help="default: build/criu")
	parser.add_argument("--peer", default=os.environ.get("PEER"), help="the other criu; default: scripts/peers")
	parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() + 1, help="tests at a time; default: one more than CPUs")
	parser.add_argument("--full", action="store_true", default=bool(os.environ.get("FULL")), help="real programs at full size (100 MiB)")
	parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="determines the random moments")
	parser.add_argument("--kills", type=int, default=60, help="rounds of each kill test")
	parser.add_argument("--patience", type=float, default=1, help="factor on every time limit")
	parser.add_argument("--directory", default="/var/tmp", help="where the tests' files go")
	settings = parser.parse_args()
	settings.criu = settings.binary or settings.criu
	return settings


def part(text):
	number, _, count = text.partition("/")
	if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
		raise argparse.ArgumentTypeError("N/M, with N from 1 to M")
	return int(number), int(count)


def is_in_part(name, number, count):
	"""Decided by the name, so that a test stays in its part when other tests are added or removed."""
	return zlib.crc32(name.encode()) % count == number - 1


def find_peer():
	found = subprocess.run([os.path.join(ROOT, "scripts", "peers")], stdout=subprocess.PIPE, text=True)
	return found.stdout.strip().splitlines()[-1] if found.returncode == 0 and found.stdout.strip() else ""


def choose(tables, settings):
	wanted = settings.mode or [mode.name for mode in MODES if mode.name not in NOT_BY_DEFAULT]
	for table in tables:
		for row in table:
			if not re.search(settings.k, row.name) or not is_in_part(row.name, *settings.rows):
				continue
			modes = [mode for mode in MODES if mode.name in wanted and row.runs_in(mode)]
			for mode in modes:
				if mode is modes[0] or is_in_part(f"{row.name} {mode.name}", *settings.part):
					yield Test(row, mode, reason_to_skip(row, mode, settings))


def reason_to_skip(row, mode, settings):
	if mode.kind in row.without:
		return row.without[mode.kind]
	if mode.name == "undisturbed":
		return None
	roles = {"ours": Criu(settings.criu, settings.peer), "peer": Criu(settings.peer, settings.peer)}
	if "peer" in (mode.dumper, mode.restorer) and not settings.peer:
		return "no peer: scripts/peers found none"
	for action, role in (("dump", mode.dumper), ("restore", mode.restorer)):
		if roles[role].is_peer and action in row.peer_fails:
			return f"the peer fails to {action} it: {row.peer_fails[action]}"
	if mode.name == "unprivileged" and roles["ours"].is_peer:
		return "the peer fails to dump another user's task: prlimit needs CAP_SYS_RESOURCE"
	return None


def main(tables, description):
	settings = parse(description)
	settings.peer = settings.peer if settings.peer is not None else find_peer()
	if not settings.list and not os.access(settings.criu, os.X_OK):
		raise SystemExit(f"{settings.criu} cannot be run; `make` builds it")
	system.patience = settings.patience
	signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a script ignores SIGINT …
	if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
		# … and one of nohup SIGHUP. Programs ignore what their starter ignores, but not what it handles.
		signal.signal(signal.SIGHUP, lambda *_: None)
	tests = list(choose(tables, settings))
	if not tests:
		raise SystemExit(f"no test has a name that matches {settings.k!r}" + (f" in mode {', '.join(settings.mode)}" if settings.mode else ""))
	if settings.list:
		for test in tests:
			print(f"{test.row.name} [{test.mode.name}]" + (f"  skipped: {test.skip}" if test.skip else ""))
		return 0
	system.build("live")
	print(f"seed {settings.seed}, criu {settings.criu}, peer {settings.peer or 'none'}")
	return Runner(settings).run(tests).say_sum()
