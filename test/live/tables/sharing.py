"""sharing.py - processes that share objects without being threads of one process, in every shape that a tree gives them."""

from harness.row import Row

SHAPES = ("child", "chain", "three", "siblings", "orphan", "cousins", "threads", "parents")
FORMAT = "it refuses all but tables of open files"

SIBLINGS = {"dump": "it refuses siblings that share", "restore": "it gives each sibling a table of its own"}


def row(kinds, shape, **more):
	if kinds != "files":
		more.setdefault("peer_fails", {"dump": FORMAT, "restore": FORMAT})
	return Row(f"shares-{kinds.replace('+', '-')}-{shape}", "shares", arguments=(kinds, shape), **more)


ROWS = [
	*[row("files", shape, **({"peer_fails": SIBLINGS} if shape in ("siblings", "cousins") else {})) for shape in SHAPES],
	*[row("directories", shape) for shape in SHAPES],
	*[row("files+directories", shape) for shape in SHAPES],
]
