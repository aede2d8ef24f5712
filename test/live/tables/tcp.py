"""tcp.py - connections of TCP."""

import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time

from harness import system
from harness.cell import Failure
from harness.row import Row

from . import kills

KEPT = ("--tcp-established",)
ENDED = {"dump": "it does not save that a connection was reset", "restore": "it cannot bind a connection that has ended beside its listener"}
NFT = ("--network-lock", "nftables")


class Client(threading.Thread):
	"""Sends random bytes to a server outside, and expects them back, until it is stopped."""

	def __init__(self, family, port):
		super().__init__(daemon=True)
		self.end = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET)
		self.end.settimeout(30 * system.patience)
		self.end.connect(("::1" if family == "6" else "127.0.0.1", port))
		self.rounds, self.failure, self.is_stopped = 0, None, False
		self.start()

	def run(self):
		chance = random.Random(self.end.getsockname()[1])
		try:
			while not self.is_stopped:
				self.talk(chance.randbytes(chance.randrange(1, 60000)))
				self.rounds += 1
				time.sleep(0.001)
		except Exception as failure:  # pylint: disable=broad-exception-caught
			self.failure = failure

	def talk(self, sent):
		self.end.sendall(sent)
		received = b""
		while len(received) < len(sent):
			part = self.end.recv(len(sent) - len(received))
			if not part:
				raise EOFError("the connection has ended")
			received += part
		if received != sent:
			raise ValueError("other bytes came back")

	def expect_progress(self):
		"""Two rounds: the first may have begun before."""
		rounds = self.rounds
		if not system.wait_until(lambda: self.failure or self.rounds >= rounds + 2, 30):
			raise Failure("a client gets no answer")
		if self.failure:
			raise Failure(f"a client: {self.failure!r}")

	def stop(self):
		self.is_stopped = True
		self.join(30 * system.patience)
		self.end.close()
		if self.failure:
			raise Failure(f"a client: {self.failure!r}")


@contextlib.contextmanager
def clients_of(cell, count):
	"""Clients outside of the tree, which talk to it all the time."""
	with open(cell.path("port"), encoding="ascii") as file:
		port = int(file.read())
	clients = [Client(cell.row.arguments[0], port) for _ in range(count)]
	try:
		for client in clients:
			client.expect_progress()
		yield clients
	finally:
		for client in clients:
			client.is_stopped = True


def rules():
	if not shutil.which("nft"):
		return ""
	return subprocess.run(["nft", "list", "ruleset"], stdout=subprocess.PIPE, text=True).stdout


def expect_no_rules(when):
	left = rules()
	if left:
		raise Failure(f"{when}, rules are left:\n{left}")


def outside(count):
	def course(cell, dumper, restorer):
		cell.start()
		with clients_of(cell, count) as clients:
			for number in range(3):
				images = cell.new_images(f"images-{number}")
				cell.dump(dumper, images)
				time.sleep(0.05)  # the clients send to nobody
				cell.restore(restorer, images)
				for client in clients:
					client.expect_progress()
			expect_no_rules("after a restore")
			for client in clients:
				client.stop()
		cell.finish()
	return course


def leave_running(cell, dumper, _restorer):
	"""The connections and the network are as they were."""
	cell.start()
	with clients_of(cell, 3) as clients:
		for number in range(3):
			cell.dump(dumper, cell.new_images(f"images-{number}"), ["-R"])
			expect_no_rules("after a dump")
			for client in clients:
				client.expect_progress()
		for client in clients:
			client.stop()
	cell.finish()


def refused(cell, dumper, _restorer):
	"""Without an option, the refusal names the connection and both ways out."""
	cell.start()
	with clients_of(cell, 1) as clients:
		port = clients[0].end.getsockname()[1]
		run = dumper.dump(cell.root, cell.new_images())
		for words in (f"127.0.0.1:{port}", "is a TCP connection", "--tcp-established", "--tcp-close"):
			if not run.failed or words not in run.printed:
				raise Failure(f"exit code {run.code}, not {words}: {run.printed}")
		clients[0].expect_progress()
		clients[0].stop()
	cell.finish()


def talk_on(clients):
	for client in clients:
		client.expect_progress()


def kill_once(cell, criu, action, images, whole, chance):
	"""Runs criu, and kills it at a random moment. Returns its exit code, and the moment in words."""
	delay = chance.uniform(0, whole * 1.05)
	log = [action, "-D", images, "-o", f"{action}.log", *KEPT]
	command = [criu.path, *log, *(["-t", str(cell.root)] if action == "dump" else ["-d"])]
	code = kills.start_and_signal(cell, command, delay, signal.SIGKILL)
	return code, f"killed after {delay * 1000:.1f} ms of {whole * 1000:.0f}"


def is_complete(images):
	return os.path.exists(os.path.join(images, "inventory.img"))


def tree_is_gone(cell):
	"""A tree that was killed takes a moment to be gone."""
	def gone():
		cell.reap()
		return not os.path.exists(f"/proc/{cell.root}")
	return system.wait_until(gone, 0.5)


def cycle(cell, dumper, restorer, name):
	"""Returns the seconds of a dump and of its restore."""
	images = cell.new_images(name)
	dumped = cell.dump(dumper, images).seconds
	restored = cell.restore(restorer, images).seconds
	shutil.rmtree(images)
	return dumped, restored


def kill_rounds(cell, dumper, restorer, action):
	"""Kills dumps or restores, with clients that talk all the time. The tree runs on, or its images can be restored."""
	chance, hits, is_dump = random.Random(f"{cell.settings.seed} {cell.row.name}"), 0, action == "dump"
	cell.start()
	with clients_of(cell, 5) as clients:
		whole = min(cycle(cell, dumper, restorer, f"whole{number}")[not is_dump] for number in range(3))
		for number in range(cell.settings.kills):
			images = cell.new_images(f"killed{number}")
			if not is_dump:
				cell.dump(dumper, images)
			code, where = kill_once(cell, dumper if is_dump else restorer, action, images, whole, chance)
			hits += code != 0
			try:
				if is_complete(images) and tree_is_gone(cell):
					cell.restore(restorer, images)
				cell.exits.pop(cell.root, None)  # of the one before
				talk_on(clients)
				expect_no_rules("after it")
			except Failure as failure:
				raise Failure(f"round {number}, the {action} was {where}: {failure}")
			shutil.rmtree(images)
		for client in clients:
			client.stop()
	cell.finish()
	kills.check_hits(hits, cell.settings.kills)


def tcp(name, *arguments, program="tcp", **more):
	return Row(name, program, arguments=arguments, dump_options=KEPT + NFT, restore_options=KEPT, **more)


ROWS = [
	tcp("tcp-ends", "ends", unprivileged=True),
	tcp("tcp-ends-6", "ends", "6"),
	tcp("tcp-ends-mapped", "ends", "mapped"),
	tcp("tcp-ended", "ended", peer_fails=ENDED),
	tcp("tcp-ended-6", "ended", "6", peer_fails=ENDED),
	tcp("tcp-full", "full"),
	tcp("tcp-full-6", "full", "6"),
	tcp("tcp-stream", "stream"),
	tcp("tcp-stream-6", "stream", "6"),
	tcp("tcp-outside", "4", program="tcp_echo", run=outside(5)),
	tcp("tcp-outside-6", "6", program="tcp_echo", run=outside(5)),
	tcp("tcp-outside-running", "4", program="tcp_echo", run=leave_running, modes=("ours", "peer")),
	tcp("killed-dumps-tcp", "4", program="tcp_echo", run=functools.partial(kill_rounds, action="dump"), modes=("ours",), timeout=1800),
	tcp("killed-restores-tcp", "4", program="tcp_echo", run=functools.partial(kill_rounds, action="restore"), modes=("ours",), timeout=1800),
	Row("tcp-refused", "tcp_echo", arguments=("4",), run=refused, modes=("ours",)),
]
