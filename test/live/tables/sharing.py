"""sharing.py - objects that several processes share without being threads of one process, and namespaces."""

from harness.row import Row

SHAPES = ("child", "chain", "three", "siblings", "orphan", "cousins", "threads", "parents")
FORMAT = "it refuses everything except descriptor tables"

SIBLINGS = {"dump": "it refuses siblings that share", "restore": "it gives each sibling a table of its own"}

NESTED = dict.fromkeys(("dump", "restore"), "it has one uts namespace for all processes")


def row(kinds, shape, **more):
	if kinds != "files":
		more.setdefault("peer_fails", {"dump": FORMAT, "restore": FORMAT})
	return Row(f"shares-{kinds.replace('+', '-')}-{shape}", "shares", arguments=(kinds, shape), **more)


ROWS = [
	*[row("files", shape, **({"peer_fails": SIBLINGS} if shape in ("siblings", "cousins") else {})) for shape in SHAPES],
	*[row("directories", shape) for shape in SHAPES],
	*[row(kinds, shape) for shape in SHAPES for kinds in ("files+directories", "memory", "memory+actions", "memory+files",
							      "memory+directories", "memory+files+directories+actions")],
	Row("uts-tree", "uts", arguments=("tree",), to_lose=()),
	*[Row("uts-" + shape, "uts", arguments=(shape,), to_lose=(), peer_fails=NESTED) for shape in ("child", "two", "nested", "shared")],
]
