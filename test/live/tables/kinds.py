"""kinds.py - kinds of open files beside plain ones: events, timers, epoll, named pipes, locks, terminals."""

from harness.row import Row

NO_SEMAPHORE = {"dump": "it drops EFD_SEMAPHORE", "restore": "it drops EFD_SEMAPHORE"}
TRUNCATED = {"restore": "it keeps 32 bits of the counter"}
NOT_THE_MOMENT = {"dump": "it saves what was left, not the moment", "restore": "it takes what was left, not the moment"}
RENUMBERED = {"dump": "it renumbers what was added under a closed descriptor", "restore": "it does not know the number"}
AWAKE = {"restore": "targets that have fired once are awake again"}

ROWS = [
	Row("eventfd", "events", arguments=("eventfd",), unprivileged=True),
	Row("eventfd-saturated", "events", arguments=("saturated",), peer_fails=TRUNCATED),
	Row("eventfd-semaphore", "events", arguments=("semaphore",), peer_fails=NO_SEMAPHORE),
	Row("signalfd", "events", arguments=("signalfd",), unprivileged=True),
	Row("timerfd", "events", arguments=("timerfd",), unprivileged=True),
	Row("timerfd-real", "events", arguments=("timerfd_real",), peer_fails=NOT_THE_MOMENT),

	Row("epoll", "epoll", arguments=("plain",), unprivileged=True),
	Row("epoll-oneshot", "epoll", arguments=("oneshot",), peer_fails=AWAKE),
	Row("epoll-reused", "epoll", arguments=("reused",), peer_fails=RENUMBERED),
	Row("epoll-renumbered", "epoll", arguments=("renumbered",)),
	Row("epoll-nested", "epoll", arguments=("nested",)),
	Row("epoll-shared", "epoll", arguments=("shared",)),
	Row("epoll-signals", "epoll", arguments=("signals",)),
]
