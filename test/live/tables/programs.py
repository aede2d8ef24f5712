"""programs.py - the small programs: each holds one kind of state and verifies it by itself (programs/*.c)."""

from harness.row import Row

# system calls that a thread sleeps in while it is dumped
INTERRUPTED = ("nanosleep", "clock_nanosleep", "clock_nanosleep_until", "poll", "ppoll", "select", "pselect",
	       "epoll_wait", "sigtimedwait", "futex", "read", "poll_forever", "epoll_wait_forever", "futex_forever",
	       "wait4", "waitid", "pause", "sigsuspend")

ROWS = [
	Row("counter", "counter", unprivileged=True),
	Row("sleeper", "sleeper", unprivileged=True),

	Row("memory", "memory", unprivileged=True),
	Row("memory-shared", "memory_shared", unprivileged=True),
	Row("memory-flags-advice", "memory_flags", arguments=("advice",)),
	Row("memory-flags-access", "memory_flags", arguments=("access",)),
	Row("memory-flags-lock", "memory_flags", arguments=("lock",)),
	Row("memory-guard", "guard"),
	Row("memory-stack", "stack"),
	Row("memory-cow", "cow"),

	Row("threads", "threads", arguments=("16",), unprivileged=True),
	Row("threads-200", "threads", arguments=("200", "plain")),
	Row("threads-rseq", "rseq"),
	Row("fpu-x87", "fpu", arguments=("x87",)),
	Row("fpu-sse", "fpu", arguments=("sse",)),
	Row("fpu-avx", "fpu", arguments=("avx",)),
	Row("fpu-avx512", "fpu", arguments=("avx512",)),

	Row("signals", "signals", unprivileged=True),
	Row("signals-stopped-child", "stopped", without={
		"leave-stopped": "SIGCONT for the tree would wake the stopped child too"}),
	Row("timers", "timers", unprivileged=True),
	*[Row("interrupted-" + call.replace("_", "-"), "interrupted", arguments=(call,)) for call in INTERRUPTED],
]
