"""everything.py - one process with descriptors of all kinds at once: of each kind one, and a table of many thousands."""

from harness.row import STATE, Row

LOCKS = {"dump_options": ("--file-locks",), "restore_options": ("--file-locks",)}
MANY = {"dump": "it does not know all of these kinds", "restore": "it does not know all of these kinds"}


OF_THE_MACHINE = {"restore": "it needs the numbers that terminals had, which others may have now"}


def row(name, which, count, to_lose=(STATE,), **fields):
	return Row("everything-" + name, "everything", arguments=(which, str(count)), to_lose=to_lose, alone_with="inotifies", **LOCKS, **fields)


ROWS = [
	row("all", "all", 1, peer_fails=MANY),
	row("common", "common", 1),
	row("table", "all", 15000, to_lose=(), peer_fails=MANY, timeout=300),
	row("table-common", "common", 18000, to_lose=(), peer_fails=OF_THE_MACHINE, timeout=300),
]
