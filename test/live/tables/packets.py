"""packets.py - packet sockets: name, options, memberships, fanout groups, rings."""

import fcntl
import itertools
import os
import re
import socket
import struct
import threading

from harness import system
from harness.cell import Failure
from harness.row import MEMORY, STATE, Row

SIOCBRADDBR, SIOCBRDELBR, SIOCSIFFLAGS, IFF_UP = 0x89a0, 0x89a1, 0x8914, 1
SOL_PACKET, PACKET_FANOUT, PACKET_FANOUT_LB = 263, 18, 1
TYPE = 0x88b5


def expect(run, pattern):
	if not run.failed or not re.search(pattern, run.error):
		raise Failure(f"not refused with the expected reason: {run.describe()}")


def refused(pattern):
	def course(cell, dumper, _restorer):
		cell.start()
		expect(dumper.dump(cell.root, cell.new_images()), pattern)
		cell.check_running()
		cell.finish()
	return course


def bridge_missing(cell, dumper, restorer):
	"""The interface is gone at the restore, until somebody makes it again, with another number."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	with socket.socket() as ask:
		fcntl.ioctl(ask, SIOCBRDELBR, b"criu-br1\0")
		expect(restorer.restore(images), r"uses the network interface criu-br1, which is missing")
		fcntl.ioctl(ask, SIOCBRADDBR, b"criu-br1\0")
	cell.restore(restorer, images)
	cell.finish()


def member(identity):
	other = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(TYPE))
	other.bind(("lo", TYPE))
	other.setsockopt(SOL_PACKET, PACKET_FANOUT, identity | PACKET_FANOUT_LB << 16)
	return other


def group_in_use(cell, dumper, restorer):
	"""At the restore, somebody else has a group of this number."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	with member(99):
		expect(restorer.restore(images), r"was in the fanout group 99, which is in use")
	cell.restore(restorer, images)
	cell.finish()


def group_shared(cell, dumper, restorer):
	"""A process outside of the tree is in the group, before and after."""
	cell.start()
	images = cell.new_images()
	with member(99):
		cell.dump(dumper, images)
		cell.restore(restorer, images)
		cell.finish()


def unread_lost(cell, dumper, restorer):
	"""Packets that nobody has read are lost. A warning says so."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	if "is a packet socket with packets that nobody has read" not in system.read_text(os.path.join(images, "dump.log")):
		raise Failure("there is no warning")
	cell.restore(restorer, images)
	cell.finish()


NO_OPTION = dict.fromkeys(("dump", "restore"), "it knows only older options")
ONCE = {"dump": "it refuses memberships that were added twice", "restore": "it adds each membership once"}
NO_ORDER = {"dump": "it drops the flags of the group", "restore": "the members come into the group in another order"}
NO_TAP = dict.fromkeys(("dump", "restore"), "it saves tap devices only with their network namespace")
EMPTY = {"dump": "it saves neither the content of a ring nor the kernel's position", "restore": "its rings are empty, and begin anew"}
DOWN = {"restore": "the socket has an error that was read before"}


def switch(name, flags):
	with socket.socket() as ask:
		fcntl.ioctl(ask, SIOCSIFFLAGS, struct.pack("16sh22x", name, flags))


def lo_down(cell, dumper, restorer):
	"""The interface over which a restore fills a ring is down."""
	cell.start()
	cell.pause()
	images = cell.new_images()
	cell.dump(dumper, images)
	switch(b"lo", 0)
	expect(restorer.restore(images), r"to restore its ring, the network interface lo must be up")
	switch(b"lo", IFF_UP)
	cell.restore(restorer, images)
	cell.finish()


def while_busy(cell, dumper, restorer):
	"""Another process sends without a pause. What arrives between the dump and the restore is lost, and nothing else is."""
	ended = threading.Event()

	def send_all():
		with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
			sender.bind(("lo", 0))
			for number in itertools.count():
				if ended.is_set():
					return
				sender.send(bytes(12) + TYPE.to_bytes(2) + b"packet %d" % number + bytes(100))

	cell.start()
	other = threading.Thread(target=send_all)
	other.start()
	try:
		for name in ("images", "images1", "images2"):
			images = cell.new_images(name)
			cell.dump(dumper, images)
			cell.restore(restorer, images)
			cell.pause()
		cell.finish()
	finally:
		ended.set()
		other.join()


def row(part, **more):
	return Row(f"packet-{part.replace('_', '-')}", "packets", arguments=(part,), **({"to_lose": ()} | more))


def ring(part, **more):
	return Row(f"packet-{part.replace('_', '-')}", "packet_rings", arguments=(part,), **({"to_lose": ()} | more))


def alone(name, part, course):
	return Row(f"packet-{name}", "packets", arguments=(part,), run=course, modes=("ours",))


ROWS = [
	row("raw", to_lose=(STATE,)),
	row("dgram"),
	row("options"),
	row("new_options", peer_fails=NO_OPTION),
	row("members"),
	row("members_twice", peer_fails=ONCE),
	row("fanout", to_lose=(STATE,), peer_fails=NO_ORDER),
	row("fanout_zero"),
	row("fanout_family"),
	*[ring(part) for part in ("ring_v1", "ring_v2", "ring_v3", "ring_sending")],
	*[ring(part, to_lose=(STATE,), peer_fails=EMPTY) for part in ("mapped_v1", "mapped_v2", "mapped_dgram", "full_v2", "full_v3", "family")],
	ring("mapped_v3", to_lose=(STATE, MEMORY), peer_fails=EMPTY),
	Row("packet-lo-down", "packet_rings", arguments=("mapped_v2",), run=lo_down, modes=("ours",)),
	*[Row(f"packet-busy-{version}", "packet_rings", arguments=(f"busy_{version}",), run=while_busy, modes=("ours",)) for version in ("v2", "v3")],
	row("down", peer_fails=DOWN),
	row("tap", peer_fails=NO_TAP),
	alone("unread", "unread", unread_lost),
	alone("bridge-missing", "down", bridge_missing),
	alone("group-in-use", "fanout_shared", group_in_use),
	alone("group-shared", "fanout_shared", group_shared),
	alone("refused-elsewhere", "elsewhere", refused(r"is a packet socket of another network namespace")),
	alone("refused-gone", "gone", refused(r"is a packet socket whose network interface is gone")),
	alone("refused-program", "program", refused(r"is a packet socket of a fanout group with a program")),
	alone("refused-obsolete", "obsolete", refused(r"is a packet socket of the obsolete type")),
	Row("packet-refused-sending", "packet_rings", arguments=("two_rings",), modes=("ours",),
	    run=refused(r"memory at 0x[0-9a-f]+ \(socket:\[\d+\]\) is the ring for sending of a packet socket")),
]
