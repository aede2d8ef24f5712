"""unix.py - unix sockets."""

import contextlib
import ctypes
import os
import pathlib
import re
import socket
import struct
import subprocess

from harness import system
from harness.cell import Failure
from harness.row import Row

from .externals import inherit, link, start
from .hard import WEAK, wrapped

MAKERS = {"dump": "it does not save whom SO_PEERCRED names", "restore": "SO_PEERCRED names criu"}
ORDER = {"dump": "it does not save the order", "restore": "it does not know the order"}
SENT = {"dump": "it does not save what was sent", "restore": "it does not know what was sent"}
ACCEPTED = {"restore": "an accepted socket has no name"}
ENDED = {"dump": "it does not save names of closed sockets", "restore": "it does not know what a socket was connected to"}
DELETED = {"restore": "it cannot connect to a socket whose path was deleted"}
RESET = {"dump": "it fails with the error of the connection", "restore": "it does not know of the error"}
TWINS = {"dump": "it refuses them", "restore": "it refuses them"}
NAMES = {"dump": "it refuses a path with dots", "restore": "it takes no path of 108 bytes"}


CROWD = 9000
TYPES = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}


def inode(cell, fd):
	return int(re.search(r"\d+", os.readlink(f"/proc/{cell.root}/fd/{fd}"))[0])


def must_fail(cell, run, *words):
	cell.reap()
	if not run.failed or any(word not in run.printed for word in words):
		raise Failure(f"exit code {run.code}, not {words}: {run.printed}")


@contextlib.contextmanager
def server_of(cell, kind, name="server"):
	"""A server outside of the tree. Its path is absolute, and it is removed at the end."""
	address = "\0" + name[1:] if name[0] == "@" else cell.path(name)
	with socket.socket(socket.AF_UNIX, TYPES[kind]) as server:
		server.settimeout(5 * system.patience)
		server.bind(address)
		if kind != "dgram":
			server.listen(5)
		try:
			yield server
		finally:
			if name[0] != "@":
				os.unlink(address)


def peer_of(end):
	return struct.unpack("iII", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def outside(kind, by_option):
	"""A client of a server outside. Without the option, the refusal tells which one helps."""
	def course(cell, dumper, restorer):
		with server_of(cell, kind, cell.row.arguments[2]) as server:
			cell.start([cell.program(), cell.directory, *cell.row.arguments])
			old = server.accept()[0] if kind != "dgram" else None
			name = f"unix[{inode(cell, 77)}]"
			options = ["-x"] if by_option else ["--external", name]
			if not dumper.is_peer:
				must_fail(cell, dumper.dump(cell.root, cell.new_images("refused")),
					  f"connected to a unix socket of process {os.getpid()} (", cell.row.arguments[2],
					  "--ext-unix-sk" if kind == "dgram" else f"--external {name}")
				cell.check_running()
			images = cell.new_images()
			cell.dump(dumper, images, options)
			if kind != "dgram":
				if old.recv(8) != b"":
					raise Failure("the old connection has not ended")
				old.close()
				if not restorer.is_peer:
					must_fail(cell, restorer.restore(images), "which is outside of the processes", "--ext-unix-sk")
			cell.restore(restorer, images, ["-x"])
			end = server
			if kind != "dgram":
				end = server.accept()[0]
				if not restorer.is_peer and peer_of(end) != cell.root:
					raise Failure(f"the new connection is of process {peer_of(end)}")
				end.send(b"back")
			cell.finish()
			if end.recv(8) != b"word":
				raise Failure("nothing came")
			if end is not server:
				end.close()
	return course


def connected_back(cell, dumper, _restorer):
	"""The server is connected to another socket, so that nobody else can connect to it: a restore could not, either."""
	with server_of(cell, "dgram") as server, server_of(cell, "dgram", "other") as other:
		cell.start([cell.program(), cell.directory, *cell.row.arguments])
		server.connect(other.getsockname())
		must_fail(cell, dumper.dump(cell.root, cell.new_images(), options=["-x"]), "connected to a unix socket of process",
			  f"--inherit-fd fd[N]:socket:[{inode(cell, 77)}]")
		if ctypes.CDLL(None).connect(server.fileno(), bytes(16), 16):  # AF_UNSPEC: disconnect
			raise Failure("the server cannot be disconnected")
		cell.finish()
		if server.recv(8) != b"word":
			raise Failure("nothing came")


def gone(cell, dumper, restorer):
	"""Nobody is at the name any more: the restore fails before it has done anything."""
	with server_of(cell, "dgram") as server:
		cell.start([cell.program(), cell.directory, *cell.row.arguments])
		images = cell.new_images()
		cell.dump(dumper, images, ["-x"])
	must_fail(cell, restorer.restore(images, options=["-x"]), "cannot connect to", "server again")
	with server_of(cell, "dgram") as server:
		cell.restore(restorer, images, ["-x"])
		cell.finish()
		if server.recv(8) != b"word":
			raise Failure("nothing came")


def unread(cell, dumper, restorer):
	"""What a server has sent, and nobody has read, cannot come through a new connection."""
	with server_of(cell, "stream") as server:
		cell.start([cell.program(), cell.directory, *cell.row.arguments])
		with server.accept()[0] as end:
			end.send(b"back")
			must_fail(cell, dumper.dump(cell.root, cell.new_images(), options=["--external", f"unix[{inode(cell, 77)}]"]),
				  "has 4 bytes that were not read")
			cell.finish()
			if end.recv(8) != b"word":
				raise Failure("nothing came")


def given_end(cell, dumper, restorer):
	"""An end of a pair whose other end is outside: a restore gets another one."""
	mine, theirs = socket.socketpair()
	start(cell, theirs.fileno(), subprocess.DEVNULL)
	theirs.close()
	number = inode(cell, 77)
	if not dumper.is_peer:
		must_fail(cell, dumper.dump(cell.root, cell.new_images("refused")), f"--external unix[{number}]",
			  f"--inherit-fd fd[N]:socket:[{number}]")
	images = cell.new_images()
	cell.dump(dumper, images, ["--external", f"unix[{number}]"])
	mine.close()
	mine, theirs = socket.socketpair()
	if not restorer.is_peer:
		must_fail(cell, restorer.restore(images), f"--inherit-fd fd[N]:socket:[{number}]")
		with open("/dev/null") as wrong:
			must_fail(cell, restorer.restore(images, **inherit((wrong.fileno(), f"socket:[{number}]"))), "is not a unix socket")
	cell.restore(restorer, images, **inherit((theirs.fileno(), f"socket:[{number}]")))
	theirs.close()
	mine.send(b"back")
	cell.finish()
	if mine.recv(8) != b"word":
		raise Failure("nothing came")
	mine.close()


def given_listener(cell, dumper, restorer):
	"""A listener that the harness has, too (socket activation). Without it the restore would take its path away."""
	with server_of(cell, "stream") as server:
		start(cell, server.fileno(), subprocess.DEVNULL)
		number = inode(cell, 77)
		images = cell.new_images()
		cell.dump(dumper, images)
		if not restorer.is_peer:
			must_fail(cell, restorer.restore(images), f"process {os.getpid()} (", "already has a unix socket at", "end that process")
		cell.restore(restorer, images, **inherit((server.fileno(), f"socket:[{number}]")))
		with socket.socket(socket.AF_UNIX) as client:
			client.settimeout(5 * system.patience)
			client.connect(cell.path("server"))
			client.send(b"back")
			cell.finish()
			if client.recv(8) != b"word":
				raise Failure("nothing came")


def not_read(words):
	"""Something in a message that waits to be accepted is refused, by name, and the program runs on."""
	def course(cell, dumper, _restorer):
		cell.start()
		must_fail(cell, dumper.dump(cell.root, cell.new_images()), "has a connection that waits to be accepted", words)
		cell.check_running()
		cell.finish()
	return course


def not_allowed(words):
	"""A criu that may not read the kernel's memory says so; one that may saves the same program."""
	def course(cell, dumper, restorer):
		cell.start()
		must_fail(cell, wrapped(cell, dumper, "weak", WEAK).dump(cell.root, cell.new_images("refused")),
			  "has a connection that waits to be accepted, and " + words, "cannot read the kernel's memory: BPF_MAP_CREATE",
			  "root's capabilities, outside of user namespaces")
		cell.check_running()
		images = cell.new_images()
		cell.dump(dumper, images)
		cell.restore(restorer, images)
		cell.finish()
	return course


@contextlib.contextmanager
def crowd(address):
	"""More connections wait for somebody outside than one answer of the kernel has room for. Their clients are gone."""
	limit = "/proc/sys/net/core/somaxconn"
	before = system.read_text(limit)
	with socket.socket(socket.AF_UNIX) as listener:
		pathlib.Path(limit).write_text(str(CROWD + 1))
		try:
			listener.bind(address)
			listener.listen(CROWD)
			for _ in range(CROWD):
				with socket.socket(socket.AF_UNIX) as client:
					client.connect(address)
			yield listener
		finally:
			pathlib.Path(limit).write_text(before)


def beside_crowd(cell, dumper, restorer):
	"""What waits for others is no matter of the tree's, also where the kernel's list of sockets ends with them."""
	with contextlib.ExitStack() as crowds:
		for i in range(3):
			crowds.enter_context(crowd(f"\0criu-live-crowd-{i}"))
		cell.start()
		images = cell.new_images()
		cell.dump(dumper, images)
		cell.restore(restorer, images)
		cell.finish()


def in_crowd(cell, dumper, _restorer):
	"""A client among so many that criu does not see for whom it waits: its peer has not been closed."""
	with crowd(cell.path("server")) as listener:
		listener.listen(CROWD + 1)
		cell.start()
		must_fail(cell, dumper.dump(cell.root, cell.new_images()), "has a connection that waits to be accepted, or was accepted just now")
		cell.check_running()
		for _ in range(CROWD):
			listener.accept()[0].close()
		with listener.accept()[0] as end:
			end.send(b"back")
			cell.finish()
			if end.recv(8) != b"word":
				raise Failure("nothing came")
	os.unlink(cell.path("server"))


def connect_and_accept(address, listener, stop):
	"""Until it is told to stop. Many wait, nearly all of them closed."""
	clients = [socket.socket(socket.AF_UNIX)]
	while not os.path.exists(stop):
		with contextlib.suppress(BlockingIOError):
			while True:
				clients[0].setblocking(False)
				clients[0].connect(address)
				clients[0].send(b"x" * 20000)
				clients[0].close()
				clients[0] = socket.socket(socket.AF_UNIX)
		with contextlib.suppress(BlockingIOError):
			for _ in range(4):
				listener.accept()[0].close()


def churned(cell, dumper, _restorer):
	"""Somebody outside accepts connections while criu reads them: that is a refusal, in words, and no failure of the reader."""
	with server_of(cell, "stream") as server:
		start(cell, server.fileno(), subprocess.DEVNULL)
		server.setblocking(False)
		churner = os.fork()
		if churner == 0:
			connect_and_accept(cell.path("server"), server, cell.path("stop"))
			os._exit(0)
		try:
			for i in range(12):
				run = dumper.dump(cell.root, cell.new_images(f"images-{i}"), options=["-R"])
				if run.failed:
					must_fail(cell, run, "process that is not in the tree seems to accept some of them meanwhile") \
						if "which is not in the tree" not in run.printed else None
		finally:
			pathlib.Path(cell.path("stop")).touch()
			os.waitpid(churner, 0)
		with contextlib.suppress(BlockingIOError):
			while True:
				server.accept()[0].close()
		with socket.socket(socket.AF_UNIX) as client:
			client.connect(cell.path("server"))
			client.send(b"back")
			cell.finish()


def place_taken(cell, dumper, restorer):
	"""Another file is where a socket has to be: it stays, and the restore fails."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	os.rename(cell.path("absolute"), cell.path("elsewhere"))
	with open(cell.path("absolute"), "w") as file:
		file.write("precious")
	before = sorted(os.listdir(cell.directory))
	must_fail(cell, restorer.restore(images), "cannot create the unix socket", "move it away")
	if system.read_text(cell.path("absolute")) != "precious" or sorted(os.listdir(cell.directory)) != before:
		raise Failure(f"the files have changed: {sorted(os.listdir(cell.directory))}, not {before}")
	os.rename(cell.path("elsewhere"), cell.path("absolute"))
	cell.restore(restorer, images)
	cell.finish()


def ends(part, **more):
	return Row(f"unix-{part}", "unix_ends", arguments=(part,), unprivileged=True, **more)


def names(part, **more):
	return Row(f"unix-{part}", "unix_names", arguments=(part,), unprivileged=True, **more)


ROWS = [
	ends("pairs"),
	ends("connected", peer_fails=ACCEPTED),
	ends("waiting", peer_fails=ORDER),
	*[Row(f"unix-backlog-{part}", "unix_backlog", arguments=(part,), unprivileged=True, peer_fails=SENT,
	      alone_with="@backlog" if part in ("stream", "packets") else "") for part in ("stream", "packets", "senders", "rights", "many")],
	*[Row(f"unix-backlog-late-{part}", "unix_backlog_late", arguments=(part,), unprivileged=True, peer_fails=SENT) for part in ("waiting", "mixed")],
	*[Row(f"unix-backlog-not-allowed-{part}", "unix_backlog", arguments=(part,), run=not_allowed(words), modes=("ours",))
	  for part, words in (("senders", "through which something was sent, which cannot be read"),
			      ("many", "that its client has closed; what that has sent cannot be read"))],
	*[Row(f"unix-backlog-refused-{part}", "unix_backlog", arguments=(part,), run=not_read(words), modes=("ours",))
	  for part, words in (("urgent", "MSG_OOB"), ("lost", "a file that no process has open"))],
	*[Row(f"unix-beside-crowd-{part}", program, arguments=(part,), run=beside_crowd, modes=("ours",), alone_with="@criu-live-crowd")
	  for part, program in (("connected", "unix_ends"), ("waiting", "unix_ends"), ("senders", "unix_backlog"))],
	Row("unix-in-a-crowd", "unix_ends", arguments=("outside", "stream", "server"), run=in_crowd, modes=("ours",)),
	Row("unix-backlog-churned", "unix_ends", arguments=("given",), run=churned, modes=("ours",)),
	ends("ended", peer_fails=ENDED),
	ends("left", peer_fails=ENDED, alone_with="@criu-live-left"),
	ends("reset", peer_fails=RESET),
	names("datagrams", peer_fails=DELETED),
	names("twins", peer_fails=TWINS),
	names("places"),
	names("names", peer_fails=NAMES),
	names("credentials", peer_fails=MAKERS),
	ends("blocked"),
	ends("many"),
	*[Row(f"unix-outside-{kind}", "unix_ends", arguments=("outside", kind, "server"), run=outside(kind, kind == "dgram"),
	      modes=("ours", "ours-to-peer", "peer-to-ours", "unprivileged")) for kind in TYPES],
	*[Row(f"unix-outside-abstract-{kind}", "unix_ends", arguments=("outside", kind, "@criu-live-outside"),
	      run=outside(kind, kind == "dgram"), modes=("ours", "ours-to-peer", "peer-to-ours"), alone_with="@criu-live-outside") for kind in TYPES],
	Row("unix-outside-gone", "unix_ends", arguments=("outside", "dgram"), run=gone, modes=("ours",)),
	Row("unix-outside-connected", "unix_ends", arguments=("outside", "dgram"), run=connected_back, modes=("ours",)),
	Row("unix-outside-unread", "unix_ends", arguments=("outside", "stream"), run=unread, modes=("ours",)),
	Row("unix-given-end", "unix_ends", arguments=("given",), run=given_end, modes=("ours", "ours-to-peer", "peer-to-ours", "peer")),
	Row("unix-given-listener", "unix_ends", arguments=("given",), run=given_listener, modes=("ours", "peer-to-ours", "peer"),
	    peer_fails={"restore": "it removes the path of a listener that it is given"}),
	Row("unix-place-taken", "unix_names", arguments=("places",), run=place_taken, modes=("ours",)),
]
