"""programs.py - rows of the small programs (programs/*.c): each has one kind of state and verifies it itself."""

import signal

from harness.row import MEMORY, Row

# system calls that a thread sleeps in while it is dumped
INTERRUPTED = ("clock_nanosleep_until", "ppoll", "select", "pselect", "read", "futex_forever", "wait4", "waitid",
	       "pause", "sigsuspend")
INTERRUPTED_BY_PEER = ("nanosleep", "clock_nanosleep", "poll", "epoll_wait", "sigtimedwait", "futex", "poll_forever",
		       "epoll_wait_forever")

NO_PLACE = {"dump": "its format has no place for it", "restore": "its format has no place for it"}
ANOTHER_USER = {"dump": "another user's limits need CAP_SYS_RESOURCE"}

def again(call):
	"""Modes that a wait does not survive: only at the first interruption does the kernel tell what is left of it."""
	if call not in ("nanosleep", "clock_nanosleep", "poll", "futex"):
		return {}
	return dict.fromkeys(("chain", "chain-to-peer"), "it is interrupted three times, and the kernel tells the remaining time only once")

STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def stopped(name, signo, *how):
	fails = {"restore": "it notifies the parent once more"}
	if signo in STOPS[2:]:
		fails["dump"] = "it knows SIGSTOP and SIGTSTP only"
	if how == ("reported",):
		fails["dump"] = "it does not save that the parent has been notified"
	return Row(name, "stopped", arguments=(str(int(signo)), *how), has_stopped_task=True, peer_fails=fails, without={
		"leave-stopped": "SIGCONT for the tree would wake the stopped child too"})


ROWS = [
	Row("counter", "counter", unprivileged=True),
	Row("sleeper", "sleeper", unprivileged=True),
	*[Row(f"childless-{kind}", "childless", arguments=(kind,), to_lose=(), unprivileged=True) for kind in ("handled", "ignored", "default", "pending")],

	Row("memory", "memory", changes_files=True, unprivileged=True),
	Row("memory-shared", "memory_shared", changes_files=True, unprivileged=True),
	Row("memory-flags-advice", "memory_flags", arguments=("advice",)),
	Row("memory-flags-access", "memory_flags", arguments=("access",)),
	Row("memory-flags-lock", "memory_flags", arguments=("lock",)),
	Row("memory-guard", "guard"),
	Row("memory-stack", "stack"),
	Row("memory-cow", "cow"),

	Row("threads", "threads", arguments=("16",), unprivileged=True),
	Row("threads-200", "threads", arguments=("200", "plain")),
	Row("threads-60-each", "threads", arguments=("60", "each"), peer_fails=NO_PLACE, alone_with="real-time threads"),
	Row("threads-rseq", "rseq"),
	Row("fpu-x87", "fpu", arguments=("x87",)),
	Row("fpu-sse", "fpu", arguments=("sse",)),
	Row("fpu-avx", "fpu", arguments=("avx",)),
	Row("fpu-avx512", "fpu", arguments=("avx512",)),

	Row("signals", "signals", unprivileged=True),
	*[stopped("signals-stopped-child-" + signo.name.lower(), signo) for signo in STOPS],
	*[stopped("signals-stopped-child-" + how, signal.SIGTSTP, how) for how in
	  ("blocked", "threads", "waiting", "reported", "orphaned")],
	Row("signals-hard", "signals_hard", peer_fails={
		"restore": "it lowers the limit before it queues the pending signals"}),
	Row("timers", "timers", unprivileged=True),
	# criu 4.2.1 lets the timer run once more, for its interval of 20 ms; then it has run out, too.
	Row("timers-run-out-waiting", "timers_run_out", arguments=("waiting",), unprivileged=True, pause=0.1),
	Row("timers-run-out-sent", "timers_run_out", arguments=("sent",), unprivileged=True, pause=0.1),
	Row("timers-run-out-dead", "timers_run_out", arguments=("dead",), peer_fails={
		"dump": "in its image it looks like one that ran out during the dump", "restore": "it does not know the interval"}),
	Row("timers-run-out-disarmed", "timers_run_out", arguments=("disarmed",), peer_fails={
		"dump": "it loses the interval of a POSIX timer", "restore": "it arms them"}),
	Row("timers-storm", "timers_storm", pause=0.1, unprivileged=True, peer_fails={
		"dump": "it loses timers that expire during the dump"}),
	Row("timers-posix", "timers_posix", pause=0.4, unprivileged=True, peer_fails={
		"dump": "it does not save whose CPU time a timer counts",
		"restore": "a blocked timer sends its signal twice"}),
	*[Row("interrupted-" + call.replace("_", "-"), "interrupted", arguments=(call,)) for call in INTERRUPTED],
	*[Row("interrupted-" + call.replace("_", "-"), "interrupted", arguments=(call,), without=again(call), peer_fails={
		"dump": "it stores the call as interrupted: EINTR after the restore"}) for call in INTERRUPTED_BY_PEER],

	# MEMORY: a tracker has to start with the credentials and limits of the task.
	Row("credentials-ids", "credentials", arguments=("ids",), to_lose=(MEMORY,), peer_fails=ANOTHER_USER),
	*[Row("credentials-" + kind.replace("_", "-"), "credentials", arguments=(kind,)) for kind in
	  ("groups", "securebits", "no_new_privs", "threads")],
	*[Row("credentials-" + kind, "credentials", arguments=(kind,), to_lose=(MEMORY,)) for kind in ("capabilities", "dumpable")],
	Row("credentials-locked", "credentials", arguments=("locked",), to_lose=(MEMORY,), peer_fails={
		"restore": "it cannot set capabilities in the order that this needs"}),
	Row("credentials-user", "credentials", arguments=("user",), to_lose=(MEMORY,), peer_fails=ANOTHER_USER),
	Row("place", "place", arguments=("here",), unprivileged=True),
	Row("place-chroot", "place", arguments=("chroot",)),
	*[Row("attributes-" + kind.replace("_", "-"), "attributes", arguments=(kind,)) for kind in
	  ("limits", "oom", "name", "self", "death_signal", "subreaper", "thp", "membarrier", "scheduling", "realtime")],
	Row("attributes-tight-limits", "attributes", arguments=("tight_limits",), to_lose=(MEMORY,), peer_fails={
		"dump": "it needs descriptors and file sizes beyond the limits, and the process does not survive",
		"restore": "files that it writes as the process exceed the limit of file sizes"}),
	*[Row("attributes-" + kind.replace("_", "-"), "attributes", arguments=(kind,), to_lose=(MEMORY,), peer_fails={
		"dump": "it stores the hexadecimal digits as a decimal number", "restore": "the personality is lost"}) for kind in
	  ("personality", "read_implies_exec")],
	*[Row("attributes-" + kind.replace("_", "-"), "attributes", arguments=(kind,), peer_fails=NO_PLACE) for kind in
	  ("timer_slack", "core_filter", "affinity", "io_priority", "memory_failure", "time_stamps", "privileged_once")],
	*[Row("attributes-" + kind.replace("_", "-"), "attributes", arguments=(kind,), to_lose=(MEMORY,), peer_fails=NO_PLACE) for kind in
	  ("deny_write_exec", "memory_merge")],

	Row("files", "files", changes_files=True, unprivileged=True),
	Row("files-o-directory", "files", arguments=("O_DIRECTORY",), changes_files=True,
	    peer_fails={"restore": "it drops O_DIRECTORY from the flags"}),
	Row("pipes", "pipes", arguments=("anonymous",), unprivileged=True),
	Row("pipes-packets", "pipes", arguments=("packets",),
	    peer_fails={"dump": "it refuses pipes of packets", "restore": "it refuses pipes of packets"}),
	Row("pipes-named", "pipes", arguments=("named",), changes_files=True),
	Row("locks-posix", "locks", arguments=("posix",), dump_options=("--file-locks",),
	    restore_options=("--file-locks",)),
	Row("locks-flock", "locks", arguments=("flock",), dump_options=("--file-locks",),
	    restore_options=("--file-locks",)),
	Row("locks-ofd", "locks", arguments=("ofd",), dump_options=("--file-locks",),
	    restore_options=("--file-locks",)),
	Row("tree", "tree", unprivileged=True),
	Row("tree-200", "processes", arguments=("200",)),
	Row("tree-deep", "processes", arguments=("100", "1")),
]
