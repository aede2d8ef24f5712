"""plugins.py - plugins (--libdir): the example loop.c saves a device and its mappings; log.c tells which hooks are called."""

import os
import re
import shutil
import signal
import subprocess
import tempfile

from harness import system
from harness.cell import Failure, Skip
from harness.row import STATE, Row

from .unix import inode, server_of

PLUGINS = os.path.join(system.PROGRAMS, "plugins")
LATENCY = ("/dev/cpu_dma_latency", "write")  # a device that no table has


# What the peer's criu-plugin.h does not declare, or another header does that needs more headers.
NOT_IN_HEADER = """#define CRIU_LOG_ERROR 1
void print_on_level(unsigned int level, const char *format, ...);
"""


def libdir(name):
	return ("--libdir", os.path.join(PLUGINS, name))


def expect(run, pattern):
	if not run.failed or not re.search(pattern, run.error):
		raise Failure(f"not refused with {pattern!r}: {run.describe()}")


def calls(cell, criu, name, **environment):
	"""Dumps and restores with log.c. Returns what it has logged, without what differs from run to run."""
	log = cell.path(name + ".log")
	environment = {"PLUGIN_LOG": log, "PLUGIN_DUMP_EXT_FILE": "0", "PLUGIN_OPEN": "/dev/null", **environment}
	images = cell.new_images(name)
	cell.dump(criu, images, libdir("log"), environment=environment)
	cell.restore(criu, images, libdir("log"), environment=environment)
	with open(log) as file:
		return [line.rstrip().replace(str(cell.root), "ROOT") for line in file]


WANTED = """criu: init 0
criu: needed: 0
criu: PAUSE_DEVICES ROOT
criu: CHECKPOINT_DEVICES ROOT
criu: DUMP_EXT_FILE /dev/cpu_dma_latency, with an id
criu: exit 0 done
criu: init 2
criu: needed: 1
process: RESTORE_EXT_FILE with an id
criu: RESUME_DEVICES_LATE ROOT
criu: exit 2 done""".split("\n")


def same_calls(cell, dumper, _restorer):
	"""Each criu calls the same hooks in the same order, in a process of the same kind. POST_FORKING comes at any time."""
	cell.start()
	lines = calls(cell, dumper, "images", PLUGIN_NEEDED="1")
	forked = "criu: POST_FORKING"
	if lines.count(forked) != 1:
		raise Failure(f"POST_FORKING was called {lines.count(forked)} times: {lines}")
	lines.remove(forked)
	if lines != WANTED:
		raise Failure(f"called: {lines}")
	cell.kill_tree()


def hook_fails(hook, stage):
	"""A hook of a dump fails: the dump does, too, and the tree runs on. exit() hears of it."""
	def course(cell, dumper, _restorer):
		cell.start()
		log = cell.path("log")
		run = dumper.dump(cell.root, cell.new_images(), libdir("log"), environment={"PLUGIN_LOG": log, f"PLUGIN_{hook}": "-5"})
		expect(run, rf"the plugin 'log' has failed \({hook}\)" if stage else r"the plugin 'log' .* has failed to start \(-5\)")
		cell.check_running()
		last = system.read_text(log).splitlines()[-1]
		if last != ("criu: exit 0 failed" if stage else "criu: init 0"):
			raise Failure(f"the last call was {last}")
		cell.finish()
	return course


def restore_fails(hook):
	def course(cell, dumper, restorer):
		cell.start()
		images, log = cell.new_images(), cell.path("log")
		cell.dump(dumper, images, libdir("log"), environment={"PLUGIN_DUMP_EXT_FILE": "0"})
		opens = {} if hook == "RESTORE_EXT_FILE" else {"PLUGIN_OPEN": "/dev/null"}
		run = restorer.restore(images, libdir("log"), environment={"PLUGIN_LOG": log, f"PLUGIN_{hook}": "-5", **opens})
		expect(run, rf"the plugin 'log' has failed \({hook}\)")
		if os.path.exists(f"/proc/{cell.root}"):
			raise Failure("the restore has failed, and left a process")
		if system.read_text(log).splitlines()[-1] != "criu: exit 2 failed":
			raise Failure(f"exit() was not called: {system.read_text(log)}")
		cell.restore(restorer, images, libdir("log"), environment={"PLUGIN_OPEN": "/dev/null"})
		cell.kill_tree()
	return course


def mapping_fails(hook):
	"""A hook for a mapping fails, of the device that plugin_device.c has."""
	def course(cell, dumper, restorer):
		cell.start()
		environment = {"PLUGIN_DUMP_EXT_FILE": "0", "PLUGIN_HANDLE_DEVICE_VMA": "0", "PLUGIN_OPEN": "/dev/null", f"PLUGIN_{hook}": "-5"}
		failed = rf"the plugin 'log' has failed \({hook}\)"
		images = cell.new_images()
		if hook == "HANDLE_DEVICE_VMA":
			expect(dumper.dump(cell.root, images, libdir("log"), environment=environment), failed)
			cell.check_running()
			cell.finish()
			return
		cell.dump(dumper, images, libdir("log"), environment=environment)
		expect(restorer.restore(images, libdir("log"), environment=environment), failed)
		if os.path.exists(f"/proc/{cell.root}"):
			raise Failure("the restore has failed, and left a process")
	return course


def interrupted(cell, dumper, _restorer):
	"""A signal ends criu: exit() is called, and the tree runs on."""
	cell.start()
	log = cell.path("log")
	run = dumper.dump(cell.root, cell.new_images(), libdir("log"), environment={"PLUGIN_LOG": log, "PLUGIN_INTERRUPT": "1"})
	if run.code != -signal.SIGINT:
		raise Failure(f"not ended by SIGINT: {run.describe()}")
	cell.check_running()
	if system.read_text(log).splitlines()[-1] != "criu: exit 0 failed":
		raise Failure(f"exit() was not called: {system.read_text(log)}")
	cell.finish()


def pre_dumped(cell, dumper, _restorer):
	"""A pre-dump tells plugins of each process, and asks them nothing else. criu warns of a directory that is open to all."""
	cell.start()
	log, plugins = cell.path("log"), cell.path("plugins")
	os.mkdir(plugins)
	shutil.copy(os.path.join(PLUGINS, "log", "log.so"), plugins)
	os.chmod(plugins, 0o777)
	run = cell.pre_dump(dumper, cell.new_images(), ("--libdir", plugins), environment={"PLUGIN_LOG": log})
	wanted = ["criu: init 1", f"criu: PAUSE_DEVICES {cell.root}", "criu: exit 1 done"]
	if system.read_text(log).splitlines() != wanted:
		raise Failure(f"called: {system.read_text(log)}")
	if not re.search(r"Warn .*anybody may write to .*/plugins: a plugin gets all of criu's privileges", run.log):
		raise Failure("no warning of the directory")
	if "a line of the plugin log" not in run.log:
		raise Failure("the log lacks the line of the plugin")
	cell.finish()


def replaced(cell, dumper, restorer):
	"""A dump replaces an older one. The plugin finds its own directory in exit(), and never that of the older dump after a failure."""
	cell.start()
	images, log = cell.new_images(), cell.path("log")
	environment = {"PLUGIN_LOG": log, "PLUGIN_DUMP_EXT_FILE": "0", "PLUGIN_FILE": "of-plugin"}
	run = dumper.dump(cell.root, images, (*libdir("log"), "--leave-running"), environment=environment)
	if run.failed:
		raise Failure(run.describe())
	run = dumper.dump(cell.root, images, libdir("log"), environment={**environment, "PLUGIN_CHECKPOINT_DEVICES": "-5"})
	expect(run, "the plugin 'log' has failed")
	cell.check_running()
	if not os.path.exists(os.path.join(images, "of-plugin")):
		raise Failure("the file of the older dump is missing")
	cell.dump(dumper, images, libdir("log"), environment=environment)
	cell.restore(restorer, images, libdir("log"), environment={**environment, "PLUGIN_OPEN": "/dev/null"})
	wrong = [line for line in system.read_text(log).splitlines() if "cannot" in line or "not there" in line]
	if wrong:
		raise Failure(f"the plugin says: {wrong}")
	cell.kill_tree()


def missing(cell, dumper, restorer):
	"""The plugin that the images need is missing at the restore; and then any plugin that restores files."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images, libdir("log"), environment={"PLUGIN_DUMP_EXT_FILE": "0", "PLUGIN_NEEDED": "1"})
	expect(restorer.restore(images), r"the images need the plugin 'log', which is not in .*\n.*--libdir")
	expect(restorer.restore(images, libdir("old")), r"the images need the plugin 'log'")
	cell.restore(restorer, images, libdir("log"), environment={"PLUGIN_OPEN": "/dev/null"})
	cell.kill_tree()


def not_loaded(name, pattern):
	"""Nothing is touched if a plugin cannot be loaded."""
	def course(cell, dumper, _restorer):
		cell.start()
		where = os.path.join(cell.directory, "no-such-directory") if name is None else os.path.join(PLUGINS, name)
		if name == "junk":
			where = cell.path("junk")
			os.mkdir(where)
			with open(os.path.join(where, "junk.so"), "w") as file:
				file.write("junk")
		expect(dumper.dump(cell.root, cell.new_images(), ("--libdir", where)), pattern)
		cell.check_running()
		cell.finish()
	return course


def sockets(cell, dumper, restorer):
	"""A connection to a server outside of the tree, which a plugin makes again. Its number is that of the socket."""
	with server_of(cell, "stream") as server:
		cell.start([cell.program(), cell.directory, *cell.row.arguments])
		old, number, log = server.accept()[0], inode(cell, 77), cell.path("log")
		environment = {"PLUGIN_LOG": log, "PLUGIN_DUMP_UNIX_SK": "0", "PLUGIN_SOCKET": cell.path("server")}
		images = cell.new_images()
		cell.dump(dumper, images, libdir("log"), environment=environment)
		old.close()
		if not restorer.is_peer:
			expect(restorer.restore(images), r"a plugin has saved, and no such plugin is loaded\n.*--libdir")
		cell.restore(restorer, images, libdir("log"), environment=environment)
		with server.accept()[0] as end:
			end.send(b"back")
			cell.finish()
			if end.recv(8) != b"word":
				raise Failure("nothing came")
		lines = system.read_text(log).splitlines()
		for line in f"criu: DUMP_UNIX_SK socket:[{number}], {number}", f"process: RESTORE_UNIX_SK {number}":
			if lines.count(line) != 1:
				raise Failure(f"not called: {line}: {lines}")


def by_old(cell, dumper, restorer):
	"""A plugin without a description. The environment names the directory."""
	cell.start()
	images, environment = cell.new_images(), {"CRIU_LIBS_DIR": os.path.join(PLUGINS, "old")}
	cell.dump(dumper, images, environment=environment)
	cell.restore(restorer, images, environment=environment)
	if not os.readlink(f"/proc/{cell.root}/fd/3").startswith("/dev/null"):
		raise Failure("descriptor 3 is not what the plugin has opened")
	cell.kill_tree()


def as_for_the_peer(cell, dumper, restorer):
	"""The example, compiled with the header of CRIU 4.2."""
	peers = subprocess.run([os.path.join(system.ROOT, "scripts", "peers"), "--headers"], capture_output=True, text=True)
	if peers.returncode:
		raise Skip("the headers of the peer are missing; outside of a test, scripts/peers --headers fetches them")
	header = os.path.join(peers.stdout.strip(), "criu", "criu-plugin.h")
	source = os.path.join(system.ROOT, "test", "live", "plugins", "loop.c")
	built = tempfile.mkdtemp(dir=cell.directory)
	text = system.read_text(source).replace('#include "criu-plugin.h"', f'#include "{header}"\n{NOT_IN_HEADER}')
	subprocess.run(["cc", "-shared", "-fPIC", "-w", "-x", "c", "-o", os.path.join(built, "loop.so"), "-"], input=text.encode(), check=True)
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images, ("--libdir", built))
	cell.restore(restorer, images, ("--libdir", built))
	cell.pause()
	cell.finish()


def held(name, course):
	return Row(f"plugins-{name}", "device_refused", arguments=LATENCY, run=course, modes=("ours",))


ROWS = [
	Row("plugins-loop", "plugin_device", to_lose=(STATE,), dump_options=libdir("loop"), restore_options=libdir("loop"), alone_with="loop"),
	Row("plugins-header", "plugin_device", run=as_for_the_peer, modes=("ours", "peer"), alone_with="loop"),
	Row("plugins-calls", "device_refused", arguments=LATENCY, run=same_calls, modes=("ours", "peer")),
	held("init-fails", hook_fails("INIT", False)),
	*[held(f"{hook.lower().replace('_', '-')}-fails", hook_fails(hook, True)) for hook in ("PAUSE_DEVICES", "CHECKPOINT_DEVICES", "DUMP_EXT_FILE")],
	*[held(f"{hook.lower().replace('_', '-')}-fails", restore_fails(hook)) for hook in ("POST_FORKING", "RESTORE_EXT_FILE", "RESUME_DEVICES_LATE")],
	*[Row(f"plugins-{hook.lower().replace('_', '-')}-fails", "plugin_device", run=mapping_fails(hook), modes=("ours",), alone_with="loop")
	  for hook in ("HANDLE_DEVICE_VMA", "UPDATE_VMA_MAP")],
	held("interrupted", interrupted),
	held("pre-dump", pre_dumped),
	Row("plugins-sockets", "unix_ends", arguments=("outside", "stream", "server"), run=sockets, modes=("ours", "peer", "ours-to-peer", "peer-to-ours")),
	held("replaced", replaced),
	held("missing", missing),
	held("old", by_old),
	held("no-directory", not_loaded(None, r"cannot read the directory of plugins .*no-such-directory: No such file")),
	held("no-library", not_loaded("junk", r"cannot load the plugin .*junk.so: .*file too short")),
	held("no-plugin", not_loaded("none", r"none.so is no plugin: it does not export CR_PLUGIN_DESC")),
	held("later", not_loaded("later", r"the plugin .*later.so has version 1.0.0, and this criu has plugins of 0.2.0")),
]
