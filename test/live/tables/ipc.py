"""ipc.py - System V IPC and POSIX message queues that only the tree uses.

The harness plays the stranger that uses an object, too: it is in the same ipc namespace, and not in the tree.
"""

import contextlib
import ctypes
import hashlib
import os
import random
import shutil
import signal
import time

from harness import faults, leftovers, system
from harness.cell import Failure, Skip
from harness.row import Row

from . import bad_input, kills
from .huge import pool, pooled

OUTSIDE = {"dump": "it refuses segments that are not in a namespace of their own", "restore": "it does not find a segment outside of a namespace"}
NO_QUEUES = {"dump": "it knows no message queues", "restore": "it knows no message queues"}
NEED_ROOT = ("owned", "locked", "huge")
SEGMENT_KEY, SET_KEY, QUEUE_KEY = 0x43524955, 0x43524956, 0x43524957
IPC_CREAT, IPC_RMID, IPC_NOWAIT = 0o1000, 0, 0o4000
SIZE = 16 * 4096

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmdt.argtypes = [ctypes.c_void_p]


def checked(result, what):
	if result in (-1, ctypes.c_void_p(-1).value):
		raise Failure(f"{what}: {os.strerror(ctypes.get_errno())}")
	return result


@contextlib.contextmanager
def attached(key=SEGMENT_KEY):
	memory = checked(libc.shmat(checked(libc.shmget(key, 0, 0), "shmget"), None, 0), "shmat")
	try:
		yield memory
	finally:
		libc.shmdt(memory)


def digest():
	with attached() as memory:
		return hashlib.sha256(ctypes.string_at(memory, SIZE)).hexdigest()


class Operation(ctypes.Structure):
	_fields_ = [("number", ctypes.c_ushort), ("by", ctypes.c_short), ("flags", ctypes.c_short)]


def change_semaphore(by):
	operation = Operation(0, by, IPC_NOWAIT)
	checked(libc.semop(checked(libc.semget(SET_KEY, 0, 0), "semget"), ctypes.byref(operation), 1), "semop")


def send_message():
	message = (ctypes.c_char * 16)(1)
	checked(libc.msgsnd(checked(libc.msgget(QUEUE_KEY, 0), "msgget"), message, 8, 0), "msgsnd")


def take_message():
	message = ctypes.create_string_buffer(8 + 8192)
	checked(libc.msgrcv(checked(libc.msgget(QUEUE_KEY, 0), "msgget"), message, 8192, 0, IPC_NOWAIT), "msgrcv")


def in_child(work):
	"""By a process that has ended when the restore looks for users of the queue."""
	child = os.fork()
	if not child:
		try:
			work()
			os._exit(0)
		finally:
			os._exit(1)
	if os.waitpid(child, 0)[1]:
		raise Failure(f"{work.__name__}() fails")


def values():
	identifier = checked(libc.semget(SET_KEY, 0, 0), "semget")
	return [libc.semctl(identifier, number, 12) for number in range(5)]  # GETVAL


@contextlib.contextmanager
def stopped(cell):
	"""The program would notice what the stranger does."""
	os.kill(cell.root, signal.SIGSTOP)
	if not system.wait_until(lambda: system.thread_state(cell.root, cell.root) == "T", 5):
		raise Failure("the program does not stop")
	yield
	os.kill(cell.root, signal.SIGCONT)


def expect_refused_dump(cell, dumper, name, words, options=()):
	images = cell.new_images(name)
	bad_input.expect_error(dumper.dump(cell.root, images, options), words)
	if os.path.exists(os.path.join(images, "inventory.img")):
		raise Failure("the directory looks complete: it has inventory.img")
	cell.check_running()


def expect_refused_restore(cell, restorer, images, words, **how):
	run = restorer.restore(images, **how)
	cell.reap()
	bad_input.expect_error(run, words)
	if os.path.exists(f"/proc/{cell.root}"):
		raise Failure("a process is left")


def shared_segment(cell, dumper, restorer):
	"""A stranger that has attached the segment is named, by a dump and by a restore, and by the restore of another one's segment."""
	cell.start()
	stranger = rf"segment \d+ \(key 0x43524955\) .*process {os.getpid()} "
	with stopped(cell), attached():
		expect_refused_dump(cell, dumper, "refused", stranger)
		expect_refused_dump(cell, dumper, "refused-running", stranger, ["-R"])
	images = cell.new_images()
	cell.dump(dumper, images)
	with attached():
		expect_refused_restore(cell, restorer, images, stranger)
	cell.restore(restorer, images)
	cell.finish()


def shared_set(cell, dumper, restorer):
	"""A stranger has changed a semaphore last. When the tree has changed it again, the kernel does not tell of the stranger."""
	cell.start()
	with stopped(cell):
		change_semaphore(5)
		expect_refused_dump(cell, dumper, "refused", rf"semaphore set \d+ \(key 0x43524956\) .*process {os.getpid()} ")
	cell.kill_tree()
	checked(libc.semctl(libc.semget(SET_KEY, 0, 0), 0, IPC_RMID), "semctl")


def awaited_set(cell, dumper, restorer):
	"""A stranger waits for a semaphore, and has changed none: the restore would find it there."""
	cell.start()
	waiter = os.fork()
	if not waiter:
		operation = Operation(0, -1, 0)
		libc.semop(libc.semget(SET_KEY, 0, 0), ctypes.byref(operation), 1)
		os._exit(0)
	try:
		identifier = checked(libc.semget(SET_KEY, 0, 0), "semget")
		if not system.wait_until(lambda: libc.semctl(identifier, 0, 14) == 1, 5):  # GETNCNT
			raise Failure("the stranger does not wait")
		expect_refused_dump(cell, dumper, "refused", r"semaphore set \d+ \(key 0x43524956\) .*a process that waits for it")
	finally:
		os.kill(waiter, signal.SIGKILL)
		os.waitpid(waiter, 0)
	images = cell.new_images()
	cell.dump(dumper, images)
	cell.restore(restorer, images)
	cell.finish()


def shared_queue(cell, dumper, restorer):
	cell.start()
	with stopped(cell):
		send_message()
		expect_refused_dump(cell, dumper, "refused", rf"message queue \d+ \(key 0x43524957\) .*process {os.getpid()} ")
	cell.kill_tree()
	checked(libc.msgctl(libc.msgget(QUEUE_KEY, 0), IPC_RMID, None), "msgctl")


def key_taken(cell, dumper, restorer):
	"""Another segment has the key: the restore names it, with the way out, and makes nothing."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	checked(libc.shmctl(libc.shmget(SEGMENT_KEY, 0, 0), IPC_RMID, None), "shmctl")
	taken = checked(libc.shmget(SEGMENT_KEY, 4096, IPC_CREAT | 0o600), "shmget")
	expect_refused_restore(cell, restorer, images, rf"cannot be made, because another one exists: shared memory segment {taken} ")
	checked(libc.shmctl(taken, IPC_RMID, None), "shmctl")
	cell.restore(restorer, images)
	cell.finish()


def change_and_die(cell, dumper):
	"""A dump, after which the processes run on; then they are killed. What they have left is no longer what the images have."""
	cell.start()
	cell.pause()
	images = cell.new_images()
	cell.dump(dumper, images, ["-R"])
	cell.pause()
	cell.kill_tree()
	return images


def changed(cell, dumper, restorer):
	"""The objects that have stayed become what they were at the dump."""
	cell.restore(restorer, change_and_die(cell, dumper))
	cell.pause()
	cell.finish()


def changed_huge(cell, dumper, restorer):
	with pool(2):
		changed(cell, dumper, restorer)


def remains(cell, dumper, restorer, look):
	"""A restore that fails leaves the objects that have stayed as they were, in whatever step it fails. Then it succeeds."""
	images = change_and_die(cell, dumper)
	before = look()
	for step in faults.steps_of("restore", lambda environment: restorer.restore(images, environment=environment)):
		expect_refused_restore(cell, restorer, images, faults.words_of(step), environment=faults.in_step("restore", step))
		if look() != before:
			raise Failure(f"it was changed by a restore that failed in '{step}'")
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def segment_remains(cell, dumper, restorer):
	remains(cell, dumper, restorer, digest)


def set_remains(cell, dumper, restorer):
	remains(cell, dumper, restorer, values)


def changed_queue(cell, dumper, restorer):
	"""Messages cannot be put back, should the restore fail: so it names the queue, and how to have it made again."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	for change in (send_message, take_message):  # then there are as many as before, but not the same
		in_child(change)
		expect_refused_restore(cell, restorer, images, r"message queue \d+ .*its messages are no longer those of the images(.|\n)*ipcrm -q")
	checked(libc.msgctl(libc.msgget(QUEUE_KEY, 0), IPC_RMID, None), "msgctl")
	cell.restore(restorer, images)
	cell.finish()


def gone(cell, dumper, restorer):
	"""The objects are gone, as on another host: they are made again, but none is left if that fails, in whatever step."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	for kind, remove in (("shm", lambda number: libc.shmctl(number, IPC_RMID, None)),
			     ("sem", lambda number: libc.semctl(number, 0, IPC_RMID)), ("msg", lambda number: libc.msgctl(number, IPC_RMID, None))):
		for line in system.read_text(f"/proc/sysvipc/{kind}").splitlines()[1:]:
			checked(remove(int(line.split()[1])), "ipcrm")
	for step in faults.steps_of("restore", lambda environment: restorer.restore(images, environment=environment)):
		expect_refused_restore(cell, restorer, images, faults.words_of(step), environment=faults.in_step("restore", step))
		left = [line for kind in ("shm", "sem", "msg") for line in system.read_text(f"/proc/sysvipc/{kind}").splitlines()[1:]]
		if left:
			raise Failure(f"a restore that failed in '{step}' has left: {left}")
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


QUEUE = b"criu-live-queue"
MQ_OPEN, MQ_UNLINK = 240, 241


def open_mqueue(flags=os.O_RDWR, attributes=None):
	return checked(libc.syscall(MQ_OPEN, QUEUE, flags, 0o600, attributes), "mq_open")


def shared_mqueue(cell, dumper, restorer):
	"""A stranger that has the queue open is named, by a dump and by a restore."""
	cell.start()
	queue = open_mqueue()
	expect_refused_dump(cell, dumper, "refused", rf"message queue /criu-live-queue is also open in process {os.getpid()}")
	os.close(queue)
	images = cell.new_images()
	cell.dump(dumper, images)
	queue = open_mqueue()
	expect_refused_restore(cell, restorer, images, rf"message queue /criu-live-queue of the images is in use by process {os.getpid()}")
	os.close(queue)
	cell.restore(restorer, images)
	cell.finish()


def notified_mqueue(cell, dumper, restorer):
	cell.start()
	expect_refused_dump(cell, dumper, "refused", r"wants to be notified about message queue /criu-live-queue \(mq_notify\(\)\)")
	cell.finish()


def changed_mqueue(cell, dumper, restorer):
	"""Somebody has used it since the dump: the restore names it. Without it, it is made again, or not, in whatever step that fails."""
	cell.start()
	images = cell.new_images()
	cell.dump(dumper, images)
	queue = open_mqueue()
	message, priority = ctypes.create_string_buffer(8192), ctypes.c_uint()
	size = checked(libc.mq_receive(queue, message, 8192, ctypes.byref(priority)), "mq_receive")
	checked(libc.mq_send(queue, message, size, priority.value ^ 1), "mq_send")  # perhaps in the second of the dump: times count seconds
	os.close(queue)
	expect_refused_restore(cell, restorer, images, "message queue /criu-live-queue exists, but it is not as it was")
	checked(libc.syscall(MQ_UNLINK, QUEUE), "mq_unlink")
	for step in faults.steps_of("restore", lambda environment: restorer.restore(images, environment=environment)):
		expect_refused_restore(cell, restorer, images, faults.words_of(step), environment=faults.in_step("restore", step))
		if leftovers.message_queues():
			raise Failure(f"a restore that failed in '{step}' has left: {leftovers.message_queues()}")
	cell.restore(restorer, images)
	cell.pause()
	cell.finish()


def killed_mqueue(cell, dumper, restorer):
	"""criu is killed at random moments of a dump: no message is lost."""
	cell.start()
	whole = kills.time_of_dump(cell, dumper)
	chance = random.Random(f"{cell.settings.seed} {cell.row.name}")
	for number in range(cell.settings.kills):
		images = cell.new_images(f"killed{number}")
		command = [dumper.path, "dump", "-R", "-t", str(cell.root), "-D", images, "-o", "dump.log"]
		cell.away_since = time.monotonic()
		kills.start_and_signal(cell, command, chance.uniform(whole * 0.1, whole), signal.SIGKILL)
		cell.check_running()
		shutil.rmtree(images)
	cell.finish()


PERL = """
use IPC::SysV qw(IPC_PRIVATE IPC_CREAT IPC_RMID);
chdir $ARGV[0];
sub note { open my $file, ">", "$_[0].new"; print $file $_[1]; close $file; rename "$_[0].new", $_[0] }
$segment = shmget(IPC_PRIVATE, 10000, IPC_CREAT | 0600) // die;
shmwrite($segment, "hello", 0, 5) or die;
$set = semget(119, 2, IPC_CREAT | 0600) // die;
semop($set, pack("s!3", 0, 5, 0)) or die;
$queue = msgget(120, IPC_CREAT | 0600) // die;
msgsnd($queue, pack("l! a*", $_, "message $_"), 0) for 3, 4;
$SIG{TERM} = sub { $stops = 1 };
note("ready", "");
select(undef, undef, undef, 0.02) until $stops;
shmread($segment, $bytes, 0, 5);
$value = semctl($set, 0, 12, 0);
msgrcv($queue, $message, 100, 4, 0);
($type, $text) = unpack("l! a*", $message);
shmctl($segment, IPC_RMID, 0);
semctl($set, 0, IPC_RMID, 0);
msgctl($queue, IPC_RMID, 0);
$found = "$bytes $value $type $text";
note("verdict", $found eq "hello 5 4 message 4" ? "PASS" : "FAIL: $found");
"""


def perl(cell, dumper, restorer):
	"""A program that uses what its language offers. When it is away, its objects are removed, as if it moved to another host."""
	if not shutil.which("perl"):
		raise Skip("no perl")
	cell.start(["perl", "-e", PERL, cell.directory])
	for remove in (lambda: None, leftovers.remove_ipc_objects):
		images = cell.new_images(f"images{remove is not leftovers.remove_ipc_objects}")
		cell.dump(dumper, images)
		remove()
		cell.restore(restorer, images)
		cell.pause()
	cell.finish()


def segments(kind, **more):
	return Row(f"ipc-segments-{kind}", "ipc_segments", arguments=(kind,), unprivileged=kind not in NEED_ROOT, peer_fails=OUTSIDE, **more)


def alone(name, program, run, *arguments):
	return Row(f"ipc-{name}", program, arguments=arguments, run=run, modes=("ours",), has_stopped_task="shared" in name)


ROWS = [
	*[segments(kind) for kind in ("whole", "parts", "readonly", "fork", "keys", "removed", "detached", "locked", "odd", "many", "sparse",
				      "owned")],
	segments("huge", run=pooled(2), alone_with="huge pages"),
	*[Row(f"ipc-sets-{kind}", "ipc_sets", arguments=(kind,), unprivileged=kind not in NEED_ROOT) for kind in ("values", "large", "waiting", "owned", "many", "unused")],
	*[Row(f"ipc-queues-{kind}", "ipc_queues", arguments=(kind,), unprivileged=kind not in NEED_ROOT)
	  for kind in ("messages", "empty", "received", "full", "waiting", "many", "owned", "long")],
	*[Row(f"ipc-mqueues-{kind}", "ipc_mqueues", arguments=(kind,), unprivileged=True, peer_fails=NO_QUEUES)
	  for kind in ("messages", "empty", "unlinked", "full", "flags", "waiting", "like-a-file")],
	alone("shared-mqueue", "ipc_mqueues", shared_mqueue, "messages"),
	alone("notified-mqueue", "ipc_mqueues", notified_mqueue, "notified"),
	alone("changed-mqueue", "ipc_mqueues", changed_mqueue, "messages"),
	alone("killed-mqueue", "ipc_mqueues", killed_mqueue, "unlinked"),
	alone("shared-segment", "ipc_segments", shared_segment, "owned"),
	alone("shared-set", "ipc_sets", shared_set, "values"),
	alone("awaited-set", "ipc_sets", awaited_set, "values"),
	alone("shared-queue", "ipc_queues", shared_queue, "messages"),
	alone("key-taken", "ipc_segments", key_taken, "owned"),
	*[alone(f"changed-{kind}", "ipc_segments", changed, kind) for kind in ("owned", "odd", "parts", "sparse", "detached")],
	Row("ipc-changed-huge", "ipc_segments", arguments=("huge",), run=changed_huge, modes=("ours",), alone_with="huge pages"),
	alone("changed-set", "ipc_sets", changed, "values"),
	alone("changed-queue", "ipc_queues", changed_queue, "messages"),
	alone("changed-long-queue", "ipc_queues", changed_queue, "long"),
	alone("remains-segment", "ipc_segments", segment_remains, "owned"),
	alone("remains-set", "ipc_sets", set_remains, "values"),
	*[alone(f"gone-{kind}", "ipc_segments", gone, kind) for kind in ("owned", "removed", "many", "detached")],
	alone("gone-set", "ipc_sets", gone, "values"),
	alone("perl", "", perl),
	alone("gone-queue", "ipc_queues", gone, "messages"),
]
