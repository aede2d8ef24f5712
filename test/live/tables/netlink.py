"""netlink.py - netlink sockets: those that are kept, and those that are refused by name."""

import re
import socket

from harness.cell import Failure
from harness.modes import dumped
from harness.row import STATE, Row

NO_TYPE = dict.fromkeys(("dump", "restore"), "it makes all of them raw")
FEW = dict.fromkeys(("dump", "restore"), "it refuses groups above 32")
NO_PORT = {"dump": "it refuses groups of a socket without a port", "restore": "it drops groups of a socket without a port"}
NO_PEER = {"restore": "if it connects to a port, it connects to group 32, too"}
CROWD = {"dump": "it misses sockets that the kernel does not list"}
NO_OPTIONS = dict.fromkeys(("dump", "restore"), "it does not know options of netlink")
NO_OWNER = {"dump": "it does not save the owner", "restore": "it does not know the owner"}

# Part -> a pattern that the error must contain
REFUSED = {
	"unread": r"is a netlink socket \(usersock\) with unread messages",
	"event": r"is a netlink socket \(route\) with unread messages",
	"list": r"is a netlink socket \(sock_diag\) with (a list of the kernel that is only read in part|unread messages)",
	"error": r"is a netlink socket \(route\) with an error that was not read yet \(ENOBUFS",
	"processes": r"is a netlink socket \(connector\) for events of processes",
	"queue": r"is a netlink socket \(netfilter\) that decides about packets \(NFQUEUE\)",
	"table": r"is a netlink socket \(netfilter\) that owns a table of nftables",
	"elsewhere": r"is a netlink socket \(route\) of another network namespace than criu's",
}


def refused(cell, dumper, _restorer):
	"""The dump is refused, the error names the reason, and nothing was read of the socket."""
	cell.start()
	run = dumper.dump(cell.root, cell.new_images())
	if not run.failed or not re.search(REFUSED[cell.row.arguments[0]], run.error):
		raise Failure(f"not refused with the expected reason: {run.describe()}")
	cell.check_running()
	cell.finish()


def port_taken(cell, dumper, restorer):
	"""While the process is away, another socket has its port: the error names it. Later the port is free again."""
	images = dumped(cell, dumper)
	with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as other:
		other.bind((0xfffffff0, 0))
		run = restorer.restore(images)
		cell.reap()
		if not run.failed or not re.search(r"\(route\): another socket has its port 4294967280", run.error):
			raise Failure(f"the error does not name the port: {run.describe()}")
	cell.restore(restorer, images)
	cell.finish()


def row(name, **more):
	return Row(f"netlink-{name}", "netlink", arguments=(name,), to_lose=(STATE,), **more)


ROWS = [
	row("route", unprivileged=True),
	row("types", peer_fails=NO_TYPE),
	row("groups"),
	row("many", peer_fails=FEW),
	row("late", peer_fails=NO_PORT),
	row("connected", peer_fails=NO_PEER),
	row("crowd", peer_fails=CROWD),
	row("options", peer_fails=NO_OPTIONS),
	row("generic", peer_fails=FEW),
	row("uevent"),
	row("shared", unprivileged=True),
	row("flight", unprivileged=True),
	row("user", peer_fails=NO_OWNER),
	row("able", peer_fails=NO_OWNER),
	*[Row(f"netlink-refused-{name}", "netlink_refused", arguments=(name,), run=refused, modes=("ours",)) for name in REFUSED],
	Row("netlink-port-taken", "netlink", arguments=("route",), run=port_taken, modes=("ours",)),
]
