"""devices.py - open devices: those without state are opened again, all others are refused by name."""

import fcntl
import os
import re
import socket
import struct

from harness.cell import Failure
from harness.row import STATE, Row

CLEARED = dict.fromkeys(("leave-running", "leave-stopped"), "it clears its loop device at the end")

NO_BPF = dict.fromkeys(("dump", "restore"), "it was built without BPF maps")
FEW = {"dump": "it knows only a few devices", "restore": "it sets the position of a device that has none"}

# Name -> the device, how it is open, and a pattern that the error must contain
REFUSED = {
	"bpf-lru": ("bpf", "lru", r"is a BPF map, which is not supported yet: it is gone when no process has it"),
	"bpf-used": ("bpf", "used", r"is a BPF map that the loaded program \d+ uses"),
	"bpf-program": ("bpf", "program", r"is a BPF program, which is not supported yet"),
	"kmsg": ("/dev/kmsg", "read", r"is the kernel's log \(character device 1:11\), which is not supported yet: nothing shows which message"),
	"fuse": ("/dev/fuse", "write", r"is of a FUSE file system, which would block criu"),
	"latency": ("/dev/cpu_dma_latency", "write", r"is a limit of the latency of CPUs"),
	"graphics": ("/dev/vga_arbiter", "write", r"is the arbiter of graphics cards"),
	"console": ("/dev/vcs1", "read", r"is the screen of a console"),
	"watchdog": ("/dev/watchdog", "write", r"is a watchdog"),
	"clock": ("/dev/rtc0", "read", r"is a real time clock"),
	"input": ("/dev/input/event0", "read", r"is an input device"),
	"loop-written": ("loop", "write", r"is the block device 7:\d+, which is not supported yet: criu does not write"),
	"loop-cleared": ("loop", "autoclear", r"would lose its file when the processes end"),
}


def refused(pattern):
	def course(cell, dumper, _restorer):
		cell.start()
		run = dumper.dump(cell.root, cell.new_images())
		if not run.failed or not re.search(pattern, run.error):
			raise Failure(f"not refused with the expected reason: {run.describe()}")
		cell.check_running()
		cell.finish()
	return course


def expect(run, pattern):
	if not run.failed or not re.search(pattern, run.error):
		raise Failure(f"not refused with the expected reason: {run.describe()}")


def gone_before(cell, dumper, restorer):
	"""The device file is gone when the process is dumped: it is made again, or any path of the device is used."""
	cell.start()
	os.unlink(cell.path("null"))
	for name, options in ("images", ()), ("images1", ["--evasive-devices"]):
		images = cell.new_images(name)
		cell.dump(dumper, images, options)
		cell.restore(restorer, images)
		cell.pause()
	cell.finish()


def gone_after(cell, dumper, restorer):
	"""It is gone when the process is restored, or is another device."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	os.unlink(cell.path("null"))
	expect(restorer.restore(images), r"cannot be found")
	os.mknod(cell.path("null"), 0o20600, os.makedev(1, 5))
	expect(restorer.restore(images), r"is the device 1:5 now and was 1:3")
	cell.restore(restorer, images, ["--evasive-devices"])
	cell.pause()
	cell.finish()


def tun_in_use(cell, dumper, restorer):
	"""The device of a process that runs on cannot be made a second time."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images, ["-R"])
	pids = cell.root
	run = restorer.restore(images)
	expect(run, r"process \d+ exists|in use")
	cell.check_running()
	cell.finish()
	cell.wait_gone([pids])
	with open("/dev/net/tun", "r+b", buffering=0) as other:
		fcntl.ioctl(other, TUNSETIFF, struct.pack("16sH22x", b"criu-tun0", IFF_TUN))
		expect(restorer.restore(images), r"the network device criu-tun0, which the process had made, is in use")
	cell.forget_verdict()
	cell.restore(restorer, images)
	cell.finish()


def bridge_missing(cell, dumper, restorer):
	"""The bridge of the device is gone at the restore, until somebody creates it again."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	with socket.socket() as ask:
		fcntl.ioctl(ask, SIOCBRDELBR, b"criu-br0\0")
		expect(restorer.restore(images), r"the network device criu-tun0 was in criu-br0, which does not exist")
		fcntl.ioctl(ask, SIOCBRADDBR, b"criu-br0\0")
	cell.restore(restorer, images)
	cell.finish()


def tun_missing(cell, dumper, restorer):
	"""A persistent device is gone at the restore: it is made again, and outlives the process again."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	with open("/dev/net/tun", "r+b", buffering=0) as other:
		fcntl.ioctl(other, TUNSETIFF, struct.pack("16sH22x", b"criu-tun0", IFF_TUN | IFF_NO_PI))
		fcntl.ioctl(other, TUNSETPERSIST, 0)
	if "criu-tun0" in names_of_devices():
		raise Failure("the device is still there")
	cell.restore(restorer, images)
	with open(cell.path("keep"), "w"):
		pass
	cell.finish()
	if "criu-tun0" not in names_of_devices():
		raise Failure("the device has ended with the process")
	with open("/dev/net/tun", "r+b", buffering=0) as other:
		fcntl.ioctl(other, TUNSETIFF, struct.pack("16sH22x", b"criu-tun0", IFF_TUN | IFF_NO_PI))
		fcntl.ioctl(other, TUNSETPERSIST, 0)


def names_of_devices():
	return {name for _, name in socket.if_nameindex()}


SIOCBRADDBR, SIOCBRDELBR = 0x89a0, 0x89a1
TUNSETIFF, TUNSETPERSIST, IFF_TUN, IFF_NO_PI = 0x400454ca, 0x400454cb, 1, 0x1000
NO_TUN = {"dump": "it saves tun devices only with their network namespace", "restore": "it does not know the device"}

ROWS = [
	Row("devices-many", "device_files", arguments=("many",), to_lose=(), peer_fails=FEW),
	Row("devices-block", "device_files", arguments=("block",), to_lose=(), without=CLEARED, peer_fails={"dump": "it refuses block devices"}),
	Row("devices-gone-before", "device_files", arguments=("node",), run=gone_before, modes=("ours",)),
	Row("devices-gone-after", "device_files", arguments=("node",), run=gone_after, modes=("ours",)),
	*[Row(f"devices-bpf-{what}", "device_bpf", arguments=(what,), to_lose=(), peer_fails=NO_BPF) for what in ("hash", "array", "access")],
	*[Row(f"devices-{what}", "device_tun", arguments=(what,), to_lose=(STATE,), peer_fails=NO_TUN) for what in ("tun", "tap", "bridged", "persistent", "queues")],
	Row("devices-tun-in-use", "device_tun", arguments=("tun",), run=tun_in_use, modes=("ours",)),
	Row("devices-bridge-missing", "device_tun", arguments=("bridged",), run=bridge_missing, modes=("ours",)),
	Row("devices-tun-missing", "device_tun", arguments=("persistent",), run=tun_missing, modes=("ours",)),
	Row("devices-refused-filtered", "device_tun", arguments=("filtered",), run=refused(r"criu-tun0 \(tun, tap\), and has a filter"), modes=("ours",)),
	Row("devices-refused-off", "device_tun", arguments=("off",), run=refused(r"criu-tun0 \(tun, tap\), which has a queue that is switched off"), modes=("ours",)),
	*[Row(f"devices-refused-{name}", "device_bpf" if path == "bpf" else "device_refused",
	      arguments=(how,) if path == "bpf" else (path, how), run=refused(pattern), modes=("ours",))
	  for name, (path, how, pattern) in REFUSED.items()],
]
