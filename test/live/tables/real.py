"""real.py - real programs, dumped at a random moment (from the seed that is printed) and restored.

The files that the job writes must be those of an undisturbed run, byte for byte. The job runs in the directory `work`. The
undisturbed run, which also measures how long the job takes, runs in `reference`.
"""

import base64
import filecmp
import os
import random
import shutil
import time
import zlib

from harness import modes, system
from harness.cell import NOBODY, Failure
from harness.row import STATE, Row

MIB = 1 << 20


class Job:
	"""A command, the files that are its result, and prepare(), which fills the directory that it runs in."""

	def __init__(self, command, results, prepare):
		self.command, self.results, self.prepare = command, results, prepare

	def set_up(self, cell, name):
		directory = cell.path(name)
		os.makedirs(os.path.join(directory, "tmp"))
		self.prepare(directory, cell.settings.full)
		if cell.user is not None:
			for folder, _, names in os.walk(directory):
				for path in [folder] + [os.path.join(folder, name) for name in names]:
					os.chown(path, cell.user, cell.user)
		return directory

	def start(self, cell, name):
		"""Starts the job: the shell becomes its first process by exec, and temporary files stay in its directory."""
		line = f"cd {cell.path(name)} && export TMPDIR=$PWD/tmp && exec {self.command}"
		cell.begin(["/bin/sh", "-c", line])
		return time.monotonic()


def end(cell):
	cell.wait_end(300)
	code = os.waitstatus_to_exitcode(cell.exits[cell.root])
	if code != 0:
		raise Failure(f"the job ended with {code}: {system.read_tail(cell.path('output'), 300)}")


def check_result(cell, job):
	for name in job.results:
		if not filecmp.cmp(cell.path("reference", name), cell.path("work", name), shallow=False):
			raise Failure(f"{name} differs from that of an undisturbed run")


def moments(cell, seconds):
	"""Random moments well before the end: the machine may now be twice as fast as during the undisturbed run."""
	chance = random.Random(f"{cell.settings.seed} {cell.row.name} {cell.mode.name}")
	count = 5 if cell.mode.name == "five-times" else 1
	return sorted(chance.uniform(0.05, 0.4) * seconds for _ in range(count))


def ends_before(cell, started, moment):
	"""Waits until the moment, or notices then that the job has ended."""
	time.sleep(max(0, started + moment - time.monotonic()))
	cell.reap()
	return cell.root in cell.exits


def run_until(cell, started, moment):
	if ends_before(cell, started, moment):
		raise Failure(f"the job ended within {moment:.2f} s, before it was dumped")


def start_work(cell, job, seconds):
	"""Starts the job, and waits for the first of its random moments. If it has ended before that, the undisturbed run was
	much slower (nothing was in the page cache), so this one is taken for it. Returns when it started, and the moments."""
	for _ in range(3):
		job.set_up(cell, "work")
		started = job.start(cell, "work")
		chosen = moments(cell, seconds)
		if not ends_before(cell, started, chosen[0]):
			break
		end_early(cell, job)
		seconds = chosen[0]
	return started, chosen


def end_early(cell, job):
	end(cell)
	check_result(cell, job)
	shutil.rmtree(cell.path("work"))


def dump_at(cell, dumper, restorer, started, chosen):
	"""Dumps and restores the job at these moments. Returns None, or the moment before which it has ended."""
	for number, moment in enumerate(chosen):
		if ends_before(cell, started, moment):
			return moment
		images = cell.new_images(f"images{number}")
		away = time.monotonic()
		cell.dump(dumper, images)
		cell.restore(restorer, images)
		started += time.monotonic() - away
		shutil.rmtree(images)
	return None


def course(job):
	def run(cell, dumper, restorer):
		if cell.mode.name == "unprivileged":
			cell.user = NOBODY
		job.set_up(cell, "reference")
		started = job.start(cell, "reference")
		end(cell)
		seconds = time.monotonic() - started
		if cell.mode.name == "undisturbed":
			job.set_up(cell, "work")
			job.start(cell, "work")
			end(cell)
			check_result(cell, job)
			return
		started, chosen = start_work(cell, job, seconds)
		if cell.mode.kind in ("leave-running", "leave-stopped"):
			leave(cell, job, dumper, restorer, started, chosen[0])
		else:
			while (moment := dump_at(cell, dumper, restorer, started, chosen)) is not None:
				end_early(cell, job)  # it was faster than the undisturbed run: once more, with less time
				started, chosen = start_work(cell, job, moment)
			end(cell)
		check_result(cell, job)
	return run


def leave(cell, job, dumper, restorer, started, moment):
	"""-R and -s: the job runs to its end undisturbed. After -s its files are put back, and the restored job runs to its end, too."""
	run_until(cell, started, moment)
	images = cell.new_images()
	if cell.mode.kind == "leave-running":
		cell.dump(dumper, images, ["-R", *(modes.TWINS if cell.mode.name == "twin" else ())])
		end(cell)
		return
	cell.dump(dumper, images, ["-s"])
	modes.check_stopped(cell)
	modes.save_files(cell)
	modes.go_on(cell)
	end(cell)
	check_result(cell, job)
	modes.put_back_files(cell)
	cell.restore(restorer, images)
	end(cell)


# The jobs

def write(directory, name, text):
	with open(os.path.join(directory, name), "w") as file:
		file.write(text)


def compressible(size):
	def prepare(directory, full):
		chance, left = random.Random(1), 100 * MIB if full else size
		with open(os.path.join(directory, "input"), "wb") as file:
			while left > 0:
				block = base64.b64encode(chance.randbytes(3 << 14))
				block += block[chance.randrange(len(block)):] + b"the same words again " * 500
				file.write(block[:left])
				left -= len(block)
	return prepare


def c_project(directory, _full):
	"""40 sources of some hundred lines, and a Makefile that builds a program of them and runs it."""
	names = [f"part{number}" for number in range(40)]
	for number, name in enumerate(names):
		functions = "".join(
			f"static unsigned step{i}(unsigned x)\n{{\n\tfor (int n = 0; n < {i + 3}; n++)\n"
			f"\t\tx = x * {2 * i + 3}u + {zlib.crc32(b'%d' % (number * 100 + i))}u;\n\treturn x ^ (x >> 7);\n}}\n"
			for i in range(60))
		calls = "".join(f"\tx = step{i}(x);\n" for i in range(60))
		write(directory, f"{name}.c", f"#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
		      f"{functions}unsigned {name}(unsigned x)\n{{\n{calls}\treturn x;\n}}\n")
	write(directory, "main.c", "#include <stdio.h>\n" + "".join(f"unsigned {name}(unsigned);\n" for name in names) +
	      "int main(void)\n{\n\tunsigned x = 1;\n" +
	      "".join(f"\tx = {name}(x);\n\tprintf(\"{name} %u\\n\", x);\n" for name in names) + "\treturn 0;\n}\n")
	objects = " ".join(f"{name}.o" for name in names)
	write(directory, "Makefile", f"result: program\n\t./program > result.new\n\tmv result.new result\n"
	      f"program: main.o {objects}\n\t$(CC) -o $@ $^\n%.o: %.c\n\t$(CC) -O2 -c -o $@ $<\n")


PYTHON = '''
import subprocess, sys, threading, time

ECHO = "import sys\\nfor line in sys.stdin:\\n\\tprint(line.strip(), flush=True)\\n"
echo = subprocess.Popen([sys.executable, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
lock, COUNT, THREADS, sums = threading.Lock(), 300, 4, []

def send(number):
	for i in range(COUNT):
		with lock:
			echo.stdin.write(f"{number} {i}\\n")
			echo.stdin.flush()
		time.sleep(0.005)

def busy():
	total = 0
	for i in range(2000000):
		total = (total * 31 + i) % 1000003
	sums.append(total)

threads = [threading.Thread(target=send, args=(n,)) for n in range(THREADS)] + [threading.Thread(target=busy)]
for thread in threads:
	thread.start()
expected = [0] * THREADS
for _ in range(COUNT * THREADS):
	number, i = map(int, echo.stdout.readline().split())
	assert i == expected[number], f"thread {number}: {i} came, {expected[number]} was due"
	expected[number] += 1
for thread in threads:
	thread.join()
echo.stdin.close()
assert echo.stdout.read() == "" and echo.wait() == 0
open("result", "w").write(f"{expected} {sums}\\n")
'''

PIPELINE = r'''
i=0
while [ $i -lt 250000 ]; do echo "line $i of many"; i=$((i + 1)); done |
	sed 's/line/LINE/' | awk '{ print $2 * 7 % 1000, $0 }' | tr a-z A-Z | cat -n > result
'''

SQL = '''
PRAGMA cache_size = 50;
PRAGMA temp_store = MEMORY;
CREATE TABLE numbers (id INTEGER PRIMARY KEY, text TEXT, value INTEGER);
BEGIN;
INSERT INTO numbers WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)
	SELECT i, 'text number ' || i, i * 7919 % 104729 FROM n;
UPDATE numbers SET value = value + length(text) WHERE id % 3 = 0;
CREATE INDEX by_value ON numbers (value);
DELETE FROM numbers WHERE value % 11 = 5;
COMMIT;
PRAGMA integrity_check;
SELECT count(*), sum(value), sum(length(text)) FROM numbers;
'''


def file_with(name, text):
	return lambda directory, _full: write(directory, name, text)


JOBS = {
	"xz": Job("xz -T2 -9 -k input", ["input.xz"], compressible(6 * MIB)),
	"gzip": Job("gzip -n -k -9 input", ["input.gz"], compressible(48 * MIB)),
	"make": Job("make -j2", ["result"], c_project),
	"python": Job("python3 script.py", ["result"], file_with("script.py", PYTHON)),
	"pipeline": Job("bash script.sh", ["result"], file_with("script.sh", PIPELINE)),
	"sqlite": Job("sqlite3 database < script.sql > result", ["result", "database"], file_with("script.sql", SQL)),
}
LOCKS = {"dump_options": ("--file-locks",), "restore_options": ("--file-locks",)}
FEW = ("ours", "ours-to-peer", "peer-to-ours", "leave-stopped", "peer", "undisturbed")


def row(name, **more):
	return Row(f"real-{name}", run=course(JOBS[name]), to_lose=(STATE,), changes_files=True, timeout=600, **more)


ROWS = [
	row("xz", modes=FEW),
	row("gzip", unprivileged=True),
	row("make", modes=FEW),
	row("python", unprivileged=True),
	row("pipeline"),
	row("sqlite", **LOCKS),
]
