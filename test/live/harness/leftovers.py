"""leftovers.py - what a test left on the machine: mounts, cgroups, packet filter rules, IPC objects, sockets and their files.

A worker calls snapshot() before and after its test, inside its own mount, IPC and network namespaces. The difference was left by
the test. Other processes use the cgroup tree and /tmp, too, so there only names with `criu` in them count.
"""

import contextlib
import os
import socket
import stat
import struct
import subprocess

from . import system

NETLINK_NETFILTER, NFT_MSG_GETTABLE, NFT_MSG_GETRULE = 12, (10 << 8) | 1, (10 << 8) | 7
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 1, 0x300, 2, 3


def netfilter_objects(kind):
	"""The raw messages of an nftables dump; none if the kernel has no nftables."""
	try:
		netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
	except OSError:
		return set()
	objects = set()
	with netlink:
		netlink.settimeout(2)
		netlink.send(struct.pack("IHHIIBBH", 20, kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, 0, 0, 0))
		while True:
			data = netlink.recv(1 << 16)
			while data:
				length, message = struct.unpack_from("IH", data)
				if message in (NLMSG_ERROR, NLMSG_DONE):
					return objects
				objects.add(f"nftables object {data[16:length]!r}")
				data = data[(length + 3) & ~3:]


OWN_CGROUPS = "criu-live-"  # followed by the pid of a worker


def cgroups():
	"""All cgroups with `criu` in their path, except those of other workers."""
	names = set()
	for folder, _, _ in os.walk("/sys/fs/cgroup"):
		parts = folder.split("/")
		speaking = [name for name in parts if "criu" in name]
		if speaking and all(not name.startswith(OWN_CGROUPS) or name == f"{OWN_CGROUPS}{os.getpid()}" for name in speaking):
			names.add(f"cgroup {folder}")
	return names


def sweep_cgroups(workers):
	"""Removes empty cgroups of workers that have ended. The peer creates such cgroups: its dump of a process in the root of a
	hierarchy saves all cgroups of the machine, also those of other tests, and its restore creates the ones that are missing."""
	names = {f"{OWN_CGROUPS}{pid}" for pid in workers}
	for folder, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
		if names & set(folder.split("/")):
			with contextlib.suppress(OSError):
				os.rmdir(folder)


def stray_files():
	names = set()
	for folder in ("/tmp", "/run"):
		for entry in os.scandir(folder):
			if entry.name.startswith(".criu") or ("criu" in entry.name and is_socket(entry)):
				names.add(f"file {entry.path}")
	return names


def is_socket(entry):
	try:
		return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
	except FileNotFoundError:
		return False


def mounts():
	lines = system.read_text("/proc/self/mountinfo").splitlines()
	return {"mount " + " ".join(line.split()[3:5]) for line in lines}


def unix_sockets():
	lines = system.read_text("/proc/net/unix").splitlines()[1:]
	return {"unix socket " + " ".join(line.split()[4:]) for line in lines}


FSOPEN, FSCONFIG, FSMOUNT, CMD_CREATE, MQ_UNLINK = 430, 431, 432, 6, 241


def message_queues():
	"""POSIX ones. Their file system need not be mounted anywhere."""
	context = system.libc.syscall(FSOPEN, b"mqueue", 1)
	if context < 0:
		return set()
	system.libc.syscall(FSCONFIG, context, CMD_CREATE, None, None, 0)
	mount = system.libc.syscall(FSMOUNT, context, 1, 0)
	os.close(context)
	if mount < 0:
		return set()
	names = {f"message queue /{name}" for name in os.listdir(f"/proc/self/fd/{mount}")}  # it is an O_PATH
	os.close(mount)
	return names


def ipc_objects():
	"""The ids chosen for the next ones of System V count, too."""
	names = message_queues()
	for kind in ("shm", "sem", "msg"):
		lines = system.read_text(f"/proc/sysvipc/{kind}").splitlines()[1:]
		names |= {f"IPC object {kind} {' '.join(line.split()[:3])}" for line in lines}
		names.add(f"{kind}_next_id " + system.read_text(f"/proc/sys/kernel/{kind}_next_id").strip())
	return names


def remove_ipc_objects():
	"""All of this namespace."""
	subprocess.run(["ipcrm", "-a"], check=True)
	for name in message_queues():
		system.libc.syscall(MQ_UNLINK, name.split("/")[1].encode())


def snapshot():
	return (mounts() | unix_sockets() | ipc_objects() | cgroups() | stray_files() |
		netfilter_objects(NFT_MSG_GETTABLE) | netfilter_objects(NFT_MSG_GETRULE))


def socket_files(directory):
	found = []
	for folder, _, names in os.walk(directory):
		for name in names:
			path = os.path.join(folder, name)
			if stat.S_ISSOCK(os.lstat(path).st_mode):
				found.append(f"socket file {path}")
	return found
