"""real_services.py - servers with their clients, and programs that use what they hold open: sockets, watches, semaphores.

Each is a job of real.py: dumped at random moments, and its results must be those of an undisturbed run. A server and its
clients are one tree. The clients check what they get, so a lost or repeated answer ends the job with an error.
"""

import os
import pwd
import shutil
import subprocess

from harness.cell import NOBODY
from harness.row import STATE, Row

from .real import LOCKS, Job, course, file_with, write

POSTGRES = "/usr/lib/postgresql/15/bin"

MULTIPROCESSING = '''
import multiprocessing, time
from multiprocessing.managers import SyncManager

def square(source, sink):
	for number in iter(source.get, None):
		sink.put(number * number)

def count(numbers, lock):
	for i in range(100):
		with lock:
			numbers["all"] = numbers.get("all", 0) + 1
		time.sleep(0.01)

def cube(number):
	time.sleep(0.01)
	return number ** 3

if __name__ == "__main__":
	source, sink, total = multiprocessing.Queue(), multiprocessing.Queue(), 0
	workers = [multiprocessing.Process(target=square, args=(source, sink)) for _ in range(3)]
	manager = SyncManager("manager")  # a short name: that of a temporary file can be too long for a socket
	manager.start()
	numbers, lock = manager.dict(), manager.Lock()
	workers += [multiprocessing.Process(target=count, args=(numbers, lock)) for _ in range(3)]
	for worker in workers:
		worker.start()
	with multiprocessing.Pool(2) as pool:
		cubes = pool.map_async(cube, range(200), chunksize=1)
		for _ in range(100):
			for number in range(50):
				source.put(number)
			total += sum(sink.get() for _ in range(50))
			time.sleep(0.01)
		cubes = sum(cubes.get())
	for _ in range(3):
		source.put(None)
	for worker in workers:
		worker.join()
	open("result", "w").write(f"{total} {cubes} {numbers['all']}\\n")
	manager.shutdown()
'''

NODE = '''
const { Worker, isMainThread, parentPort } = require("worker_threads");
const fs = require("fs");
if (isMainThread) {
	fs.mkdirSync("watched");
	const seen = new Set(), worker = new Worker(__filename);
	let sum = 0, sent = 0;
	fs.watch("watched", (kind, name) => seen.add(name));
	worker.on("message", number => { sum += number; });
	const timer = setInterval(() => {
		worker.postMessage(sent);
		fs.writeFileSync(`watched/file${sent}`, "x");
		if (++sent == 150) {
			clearInterval(timer);
			setTimeout(() => {
				fs.writeFileSync("result", `${sum} ${seen.size}\\n`);
				process.exit();
			}, 200);
		}
	}, 10);
} else {
	parentPort.on("message", number => parentPort.postMessage(number * 2));
}
'''

# libuv gives work on files to a thread of the kernel (IORING_SETUP_SQPOLL), and has a second ring for its epoll.
NODE_URING = '''
const fs = require("fs"), files = fs.promises, net = require("net");
const taken = () => fs.readdirSync("/proc/self/fdinfo").map(fd => {
	try {
		const text = fs.readFileSync(`/proc/self/fdinfo/${fd}`, "utf8");
		return /^SqThread:\\s*[1-9]/m.test(text) ? Number(/^CachedSqHead:\\s*(\\d+)/m.exec(text)[1]) : 0;
	} catch { return 0; }
}).reduce((one, other) => Math.max(one, other), 0);

async function work(number) {
	let sum = 0;
	for (let i = 0; i < 150; i++) {
		const name = `file${number}`, text = "x".repeat(i * 37 + number);
		await files.writeFile(name, text);
		const file = await files.open(name, "r+");
		await file.sync();
		const [read, stat] = await Promise.all([file.readFile("utf8"), file.stat()]);
		if (read !== text || stat.size !== text.length)
			throw new Error(`file ${number}: ${read.length} ${stat.size} ${text.length}`);
		await file.close();
		sum += read.length;
		await new Promise(resolve => setTimeout(resolve, 2));
	}
	return sum;
}

function echo(port) {
	return new Promise(resolve => {
		const client = net.connect(port, () => client.write("0 "));
		let count = 0;
		client.on("data", data => {
			if (++count < 200)
				setTimeout(() => client.write(`${count} `), 5);
			else
				client.end(resolve(count));
		});
	});
}

const server = net.createServer(socket => socket.on("data", data => socket.write(data)));
server.listen("socket", async () => {
	const sums = await Promise.all([1, 2, 3, 4].map(work).concat([echo("socket")]));
	fs.writeFileSync("result", `${sums} ${taken() > 1000}\\n`);
	fs.unlinkSync("socket");
	process.exit();
});
'''

JAVA = '''
import java.util.*;
import java.nio.file.*;

public class Main {
	public static void main(String[] arguments) throws Exception {
		Map<Integer, byte[]> kept = new HashMap<>();
		long sum = 0;
		for (int i = 0; i < 150000; i++) {
			byte[] block = new byte[1000 + i % 3000];
			block[i % 1000] = (byte)i;
			byte[] old = kept.put(i % 5000, block);
			sum = sum * 31 + (old == null ? 1 : old[(i - 5000) % 1000] + old.length);
			if (i % 2000 == 0)
				Thread.sleep(20);
		}
		Files.writeString(Path.of("result"), sum + "\\n");
	}
}
'''

# Writes numbers as fast as the server acknowledges them, then looks for each in a server that has read the log anew.
REDIS = '''
import os, socket, subprocess, sys, time

PATH = os.path.join(os.getcwd(), "s")

def serve():
	server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", PATH, "--appendonly", "yes", "--appendfsync", "always",
				   "--save", "", "--dir", os.getcwd(), "--daemonize", "no"], stdout=subprocess.DEVNULL)
	while True:
		client = socket.socket(socket.AF_UNIX)
		try:
			client.connect(PATH)
			if ask(client, "PING") == b"+PONG":
				return server, client
		except OSError:
			pass
		time.sleep(0.01)

def ask(client, *words):
	client.sendall(b"*%d\\r\\n" % len(words) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(word), word.encode()) for word in words))
	answer = b""
	while not answer.endswith(b"\\r\\n") or (answer[:1] == b"$" and answer[1:2] != b"-" and answer.count(b"\\r\\n") < 2):
		more = client.recv(65536)
		assert more, "the server has closed the connection"
		answer += more
	return answer[:-2]

server, client = serve()
COUNT = 1000
for number in range(COUNT):
	assert ask(client, "SET", f"key{number}", f"value{number}") == b"+OK"
	assert ask(client, "INCR", "counter") == b":%d" % (number + 1)
server.terminate()
server.wait()
server, client = serve()
for i in range(COUNT):
	assert ask(client, "GET", f"key{i}").endswith(b"value%d" % i), i
assert ask(client, "GET", "counter").endswith(b"%d" % COUNT)
server.terminate()
server.wait()
open("result", "w").write("all\\n")
'''

SSH_AGENT = '''
ssh-agent -D -a s > /dev/null &
agent=$!
export SSH_AUTH_SOCK=$PWD/s
ssh-keygen -q -t ed25519 -N "" -C key -f key
until ssh-add -q key 2> /dev/null; do sleep 0.01; done
i=0
while [ $i -lt 25 ]; do
	[ "$(ssh-add -L)" = "$(cat key.pub)" ] || exit 1
	echo "text $i" > text
	ssh-keygen -q -Y sign -f key.pub -n file text 2> /dev/null || exit 2
	ssh-keygen -q -Y check-novalidate -n file -s text.sig < text > /dev/null || exit 3
	rm text.sig
	sleep 0.02
	i=$((i + 1))
done
kill $agent
wait $agent
echo all > result
'''

TMUX = '''
tmux -S s -f /dev/null -D &
server=$!
until [ -S s ]; do sleep 0.01; done
until tmux -S s new-session -d -x 80 -y 24 -n first sh 2> /dev/null; do sleep 0.01; done
tmux -S s new-window -n second "exec cat"
tmux -S s new-window -n third "exec vim -u NONE -i NONE -n -N edited"
until tmux -S s capture-pane -p -t third | grep -q "^~"; do sleep 0.01; done
i=0
while [ $i -lt 40 ]; do
	tmux -S s send-keys -t first "echo \\$(($i + 1)) >> typed" Enter || exit 1
	tmux -S s send-keys -t second "line $i" Enter || exit 2
	tmux -S s send-keys -t third "oline $i" Escape || exit 3
	sleep 0.04
	i=$((i + 1))
done
while [ "$(wc -l < typed)" -lt 40 ]; do sleep 0.01; done
until tmux -S s capture-pane -p -t second | grep -q "line 39"; do sleep 0.01; done
tmux -S s capture-pane -p -t second > second
tmux -S s send-keys -t third ":wq" Enter
until [ -s edited ] && [ "$(wc -l < edited)" = 41 ]; do sleep 0.01; done
tmux -S s kill-server
wait $server
rm -f s
cat typed second edited > result
'''

DBUS = '''
cat > config <<END
<busconfig><type>session</type><listen>unix:path=$PWD/s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>
END
dbus-daemon --config-file=$PWD/config --nofork --nopidfile &
daemon=$!
export DBUS_SESSION_BUS_ADDRESS=unix:path=$PWD/s
until dbus-send --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames > /dev/null 2>&1; do sleep 0.01; done
dbus-monitor "type='signal',interface='a.b'" > heard &
monitor=$!
until grep -q NameLost heard; do sleep 0.01; done
i=0
while [ $i -lt 100 ]; do
	dbus-send --type=signal / a.b.C int32:$i || exit 1
	sleep 0.01
	i=$((i + 1))
done
until grep -q "int32 99" heard; do sleep 0.01; done
kill $monitor $daemon
wait $monitor $daemon
grep int32 heard > result
'''

GIT = '''
git clone -q --no-local original copy && git -C copy fsck --strict > /dev/null && git -C copy rev-parse HEAD > result
'''

# pgbench changes four tables alike in each transaction.
POSTGRES_JOB = f'''
PATH={POSTGRES}:$PATH
postgres -D data -k $PWD -c listen_addresses= > log 2>&1 &
server=$!
export PGHOST=$PWD PGDATABASE=bench PGUSER=bench
until pg_isready -q -d postgres; do sleep 0.05; done
createdb && pgbench -q -i -s 1 > log.init 2>&1 || exit 1
pgbench -n -c 4 -j 2 -T 3 > log.bench 2>&1 || exit 2
psql -q -c "CREATE EXTENSION amcheck" || exit 3
pg_amcheck bench > log.check 2>&1 || exit 4
psql -At > result <<END
SELECT count(*) > 0, sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts),
	sum(delta) = (SELECT sum(bbalance) FROM pgbench_branches), sum(delta) = (SELECT sum(tbalance) FROM pgbench_tellers)
FROM pgbench_history;
END
[ $(psql -At -c "SELECT count(*) FROM pgbench_history") = $(sed -n 's/.*actually processed: \\([0-9]*\\).*/\\1/p' log.bench) ] || exit 5
kill -INT $server
wait $server
'''


def java_project(directory, _full):
	write(directory, "Main.java", JAVA)
	subprocess.run(["javac", "Main.java"], cwd=directory, check=True)


def git_project(directory, _full):
	environment = {**os.environ, **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in
					(("NAME", "criu"), ("EMAIL", "criu@localhost"), ("DATE", "2000-01-01T00:00:00Z"))}}
	original = os.path.join(directory, "original")
	subprocess.run(["git", "init", "-q", "-b", "main", original], check=True)
	for number in range(1500):
		write(original, f"file{number}", "".join(f"{number} {line * number % 977}\n" for line in range(400)))
	subprocess.run(["git", "add", "."], cwd=original, check=True, env=environment)
	subprocess.run(["git", "commit", "-q", "-m", "all"], cwd=original, check=True, env=environment)
	write(directory, "script.sh", GIT)


def postgres_data(directory, _full):
	"""The server refuses to run as root."""
	user = pwd.getpwnam("postgres")
	write(directory, "script.sh", POSTGRES_JOB)
	for path in (directory, os.path.join(directory, "script.sh")):
		os.chown(path, user.pw_uid, user.pw_gid)
	subprocess.run(["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", f"{POSTGRES}/initdb", "-D", "data",
			"-U", "bench", "-A", "trust", "-N"], cwd=directory, check=True, stdout=subprocess.DEVNULL)


def as_user(user, command):
	return f"setpriv --reuid {user} --regid {user} --clear-groups {command}"


def owned_by_nobody(name, text):
	def prepare(directory, _full):
		write(directory, name, text)
		shutil.chown(directory, NOBODY, NOBODY)
	return prepare


JOBS = {
	"multiprocessing": Job("python3 script.py", ["result"], file_with("script.py", MULTIPROCESSING)),
	"node": Job("node script.js", ["result"], file_with("script.js", NODE)),
	"node-uring": Job(as_user(NOBODY, "env UV_USE_IO_URING=1 node script.js"), ["result"], owned_by_nobody("script.js", NODE_URING)),
	"java": Job("java -XX:+UseG1GC -Xmx200m -cp . Main", ["result"], java_project),
	"redis": Job("python3 script.py", ["result"], file_with("script.py", REDIS)),
	"ssh-agent": Job("sh script.sh", ["result"], file_with("script.sh", SSH_AGENT)),
	"tmux": Job("env TERM=xterm sh script.sh", ["result"], file_with("script.sh", TMUX)),
	"dbus": Job(as_user(NOBODY, "sh script.sh"), ["result"], owned_by_nobody("script.sh", DBUS)),
	"dbus-root": Job("sh script.sh", ["result"], file_with("script.sh", DBUS)), # it has a netlink socket (audit), too
	"git": Job("sh script.sh", ["result"], git_project),
	"postgres": Job(as_user("postgres", "sh script.sh"), ["result"], postgres_data),
}
MODES = ("ours", "five-times", "leave-running", "undisturbed")


def row(name, **more):
	return Row(f"real-{name}", run=course(JOBS[name]), modes=MODES, to_lose=(STATE,), changes_files=True, timeout=600, **more)


ROWS = [*[row(name) for name in JOBS if name not in ("git",)], row("git", **LOCKS)]
