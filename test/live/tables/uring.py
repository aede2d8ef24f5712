"""uring.py - io_uring: rings that are saved, and rings that are refused because of what they have or what is in flight in them."""

import os
import shutil
import sys

from harness.cell import ROOT, Failure
from harness.row import Row

from . import bad_input, tracking
from .aio import refused

sys.path.append(os.path.join(ROOT, "test", "fuzz"))
import mutate  # noqa: E402

NOT_SAVED = {"dump": "it saves no io_uring", "restore": "this type of file is unknown to it"}

SAVED = ("plain", "flags", "more", "far", "io", "shared", "blocked", "busy", "sqpoll", "files", "files_in_flight", "eventfds")

BUFFERS = ("plain", "forked", "single", "file", "many", "guarded", "protected", "limited", "large", "dropped")

WAITING = ("plain", "deferred", "large", "no_array", "registered", "moved", "async", "thread", "many", "accepting", "full", "busy")

# Before Linux 6.15, criu sees only that something waits.
WAITS = r"one of which (\(opcode \d+\) )?waits for (a file|a timeout)|requests are still in flight|"

REFUSED = {  # what the program sets up -> what the error says
	"repeated": WAITS + r"is an io_uring with 1 requests in flight, one of which is a timeout that repeats",
	"linked": WAITS + r"is an io_uring with 2 requests in flight, one of which is a request with others that follow it",
	"closed_file": WAITS + r"is an io_uring with a request in flight for a file that no process has open",
	"recvmsg": WAITS + r"is an io_uring with 1 requests in flight, one of which is a request of a kind that criu cannot make again",
	"two_threads": WAITS + r"is an io_uring with requests in flight of several threads",
	"sqpoll_waiting": WAITS + r"is an io_uring with 1 requests in flight, one of which is one that waits in a ring with a thread",
	"worker": r"1 requests are still in flight",
	"files_closed": r"is an io_uring with (a registered file that no process has open|registered files)",
	"files_late": r"is an io_uring with (a registered file that a restore opens later|registered files)",
	"buffers_replaced": r"is an io_uring with registered buffers",
	"buffers_unmapped": r"is an io_uring with registered buffers",
	"eventfd": r"is an io_uring with a registered eventfd",
	"personality": r"is an io_uring with registered credentials",
	"workers": r"is an io_uring with limits on worker threads",
	"descriptor": r"is an io_uring with a registered descriptor of a ring that no process has open",
	"provided": r"is an io_uring with provided buffers",
	"restricted": r"is an io_uring with restrictions",
	"overflow": r"is an io_uring with completions for which its queue had no space",
	"sqpoll_shared": r"is an io_uring with a thread of the kernel \(IORING_SETUP_SQPOLL\), which process \d+ has, too",
	"sqpoll_rights": r"is an io_uring whose thread of the kernel has other credentials than process \d+",
	"sqpoll_attached": r"is an io_uring with the worker threads of another one",
	"iopoll": r"is an io_uring that polls devices",
	"only_registered": r"has an io_uring that no process of the tree has open \(registered as descriptor 0\)",
	"closed": r"is part of an io_uring without a descriptor",
	"thread": r"is an io_uring for thread \d+ only",
}

def unknown(cell, dumper, restorer):
	"""criu 4.2.1 refuses the type of file, on its own terms."""
	images = bad_input.dumped(cell, dumper)
	bad_input.refused_restore(cell, restorer, images, "Unknown file type 1010")


# Forged images

FILE_TYPE, FILE_URING, TYPE_URING = 1, 1010, 1010
SETUP, SQ_ENTRIES, CQ_ENTRIES, SQ_HEAD, CQ_TAIL, RINGS, SQES, LAYOUT, SUBMITTER = range(4, 13)
FILES, EVENTFD, OWNER, THREAD_IDLE, THREAD_CPU, REQUESTER, SLOTS, BUFFER, BUFFERS_OWNER = 13, 14, 16, 17, 18, 21, 22, 23, 24
MM_VMAS, VMA_START, VMA_END, VMA_PGOFF, VMA_STATUS = 14, 1, 2, 3, 7
FILE_PRIVATE, FILE_SHARED = 1 << 6, 1 << 7


def in_records(name, change):
	"""Changes each record of an image: change(fields) gets a list of fields."""
	def forge(cell, images):
		path = os.path.join(images, name.format(pid=cell.root))
		with open(path, "rb") as file:
			header, records, tail = mutate.split(file.read())
		parsed = [mutate.parse(record) for record in records]
		for fields in parsed:
			change(fields)
		with open(path, "wb") as file:
			file.write(mutate.join(header, [mutate.pack(fields) for fields in parsed], tail))
	return forge


def in_ring(number, value):
	"""Sets the first such field of each ring; None removes all of them."""
	def change(fields):
		for field in fields:
			if field[0] == FILE_URING:
				found = [one for one in field[2] if one[0] == number]
				if value is None:
					field[2] = [one for one in field[2] if one[0] != number]
				elif found:
					found[0][2] = value
				else:
					field[2].append([number, mutate.VARINT, value])
	return in_records("files.img", change)


def in_request(number, value, kind=20, unless=None):
	"""Sets such a field of each request that waits, or each slot; None removes it. Not in those with the field `unless`."""
	def change(fields):
		for ring in fields:
			for field in ring[2] if ring[0] == FILE_URING else ():
				if field[0] != kind or unless in field[2]:
					continue
				field[2] = [one for one in field[2] if one[0] != number] + \
					([] if value is None else [[number, mutate.VARINT, value]])
	return in_records("files.img", change)


def in_mapping(number, change_value):
	"""Changes the mappings of rings, which are those with these offsets."""
	def change(fields):
		for field in fields:
			if field[0] != MM_VMAS:
				continue
			if any(one[0] == VMA_PGOFF and one[2] == 0x10000000 for one in field[2]):
				for one in field[2]:
					if one[0] == number:
						one[2] = change_value(one[2])
	return in_records("mm-{pid}.img", change)


IMPOSSIBLE = r"files\.img: file \d+ is an io_uring that is impossible"
NO_PART = r"mm-\d+\.img: the mapping at \S+ is no part of its io_uring"

FORGED = {  # name -> how the images are forged, and what the error says
	"thread-of-nobody": (in_ring(SETUP, 2), "is an io_uring of another process"),
	"place-without-thread": (in_ring(SETUP, 4), IMPOSSIBLE),
	"unknown-setup": (in_ring(SETUP, 1 << 31), IMPOSSIBLE),
	"deferred-alone": (in_ring(SETUP, 1 << 13), "cannot create an io_uring"),
	"disabled-and-used": (in_ring(SETUP, 1 << 6), IMPOSSIBLE),
	"for-nobody": (in_ring(SETUP, 1 << 12), r"files\.img: file \d+ is an io_uring for an unknown process"),
	"no-requests": (in_ring(SQ_ENTRIES, 0), IMPOSSIBLE),
	"three-requests": (in_ring(SQ_ENTRIES, 3), IMPOSSIBLE),
	"many-requests": (in_ring(SQ_ENTRIES, 1 << 31), IMPOSSIBLE),
	"few-completions": (in_ring(CQ_ENTRIES, 1), IMPOSSIBLE),
	"many-completions": (in_ring(CQ_ENTRIES, 1 << 20), IMPOSSIBLE),
	"far-requests": (in_ring(SQ_HEAD, 0xffffffff), IMPOSSIBLE),
	"far-completions": (in_ring(CQ_TAIL, (1 << 30) + 1), IMPOSSIBLE),
	"long-rings": (in_ring(RINGS, b"a" * 100000), "is an io_uring with too much content"),
	"long-requests": (in_ring(SQES, b"a" * 100000), "is an io_uring with too much content"),
	"no-layout": (in_ring(LAYOUT, None), IMPOSSIBLE),
	"other-layout": (in_ring(LAYOUT, 0xfffffff0), "this kernel arranges in another way"),
	"registered-itself": (in_ring(FILES, 0xffff), "impossible registered files"),
	"eventfd": (in_ring(EVENTFD, 1), "impossible registered files"),
	"offset": (in_mapping(VMA_PGOFF, lambda old: old + 4096), NO_PART),
	"private": (in_mapping(VMA_STATUS, lambda old: old & ~FILE_SHARED | FILE_PRIVATE), NO_PART),
	"long-mapping": (in_mapping(VMA_START, lambda old: old - (1 << 30)), NO_PART + "|overlap|unknown"),
}


FORGED_BUFFERS = {
	"owner": (in_ring(BUFFERS_OWNER, 4711), "impossible registered buffers"),
	"no-owner": (in_ring(BUFFERS_OWNER, None), "impossible registered buffers"),
	"long": (in_request(2, 1 << 31, BUFFER), "impossible registered buffers"),
	"nothing-somewhere": (in_request(2, 0, BUFFER), "impossible registered buffers"),
	"elsewhere": (in_request(1, 1 << 40, BUFFER, [2, mutate.VARINT, 0]), "it has registered memory with an io_uring that is not mapped"),
}

FORGED_SLOTS = {
	"slot": (in_request(2, 16, SLOTS), "impossible registered descriptor"),
	"thread": (in_request(1, 4711, SLOTS), "impossible registered descriptor"),
}

FORGED_REQUESTS = {
	"nobody": (in_ring(REQUESTER, 4711), "impossible requests"),
	"no-requester": (in_ring(REQUESTER, None), "impossible requests"),
	"few-taken": (in_ring(SQ_HEAD, 0), "impossible requests"),
	"thread": (in_ring(SETUP, 2), "of another process|is impossible"),
	"opcode": (in_request(1, 262), "impossible requests"),
	"other-opcode": (in_request(1, 18), "impossible requests"),
	"flags": (in_request(2, 4), "impossible requests"),
	"slot": (in_request(2, 1), "impossible requests"),
	"no-file": (in_request(4, None), "impossible requests"),
	"other-file": (in_request(4, 4711), "a file that it has closed"),
	"before-now": (in_request(11, 1), "impossible requests"),  # -1
}

FORGED_THREAD = {
	"owner": (in_ring(OWNER, 4711), "is an io_uring of another process"),
	"deferred": (in_ring(SETUP, 2 | 1 << 12 | 1 << 13), IMPOSSIBLE),
	"submitter": (in_ring(SUBMITTER, 4711), IMPOSSIBLE),
	"cpu": (in_ring(THREAD_CPU, 0xffffff), "cannot create an io_uring"),  # only the kernel knows its CPUs
	"idle": (in_ring(THREAD_IDLE, 0xffffffff), IMPOSSIBLE),
	"far-requests": (in_ring(SQ_HEAD, 1 << 29), IMPOSSIBLE),  # what is published would have to wait for the thread's sleep
}


def forged(cell, dumper, restorer, forgeries=None):
	images = bad_input.dumped(cell, dumper)
	for name, (forge, pattern) in (forgeries or FORGED).items():
		broken = cell.path("forged")
		shutil.copytree(images, broken)
		forge(cell, broken)
		try:
			bad_input.refused_restore(cell, restorer, broken, pattern)
		except Failure as failure:
			raise Failure(f"{name}: {failure}")
		shutil.rmtree(broken)


def forged_thread(cell, dumper, restorer):
	forged(cell, dumper, restorer, FORGED_THREAD)


def forged_buffers(cell, dumper, restorer):
	forged(cell, dumper, restorer, FORGED_BUFFERS)


def forged_slots(cell, dumper, restorer):
	forged(cell, dumper, restorer, FORGED_SLOTS)


def forged_requests(cell, dumper, restorer):
	forged(cell, dumper, restorer, FORGED_REQUESTS)


ROWS = [
	*[Row("uring-" + state, "uring", arguments=(state,), peer_fails=NOT_SAVED) for state in SAVED],
	*[Row("uring-waiting-" + state, "uring_waiting", arguments=(state,), peer_fails=NOT_SAVED) for state in WAITING],
	*[Row("uring-buffers-" + state, "uring_buffers", arguments=(state,), peer_fails=NOT_SAVED) for state in BUFFERS],
	*[Row(f"uring-buffers-{state}-{tracker}", "uring_buffers", arguments=(state,), run=tracking.between(tracker), modes=("ours",))
	  for state in ("registers", "stays", "unregisters") for tracker in tracking.TRACKERS],
	*[Row("uring-registered-" + state, "uring_registered", arguments=(state,), peer_fails=NOT_SAVED) for state in ("slots", "blocked", "elsewhere")],
	*[Row("uring-files-" + state, "uring_files", arguments=(state,), peer_fails=NOT_SAVED) for state in ("opens", "ticks")],
	Row("uring-user", "uring_user", peer_fails=NOT_SAVED),
	*[Row("uring-refused-" + state, "uring_refused", arguments=(state,), run=refused(pattern), modes=("ours",))
	  for state, pattern in REFUSED.items()],
	Row("uring-unknown", "uring", arguments=("plain",), run=unknown, modes=("ours-to-peer",)),
	Row("uring-forged", "uring", arguments=("plain",), run=forged, modes=("ours",), timeout=120),
	Row("uring-forged-requests", "uring_waiting", arguments=("moved",), run=forged_requests, modes=("ours",), timeout=120),
	Row("uring-forged-slots", "uring_registered", arguments=("slots",), run=forged_slots, modes=("ours",), timeout=120),
	Row("uring-forged-buffers", "uring_buffers", arguments=("single",), run=forged_buffers, modes=("ours",), timeout=120),
	Row("uring-forged-thread", "uring", arguments=("sqpoll",), run=forged_thread, modes=("ours",), timeout=120),
]
