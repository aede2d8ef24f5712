"""programs.py - the small programs: each holds one kind of state and verifies it by itself (programs/*.c)."""

from harness.row import Row

ROWS = [
	Row("counter", "counter", unprivileged=True),
	Row("sleeper", "sleeper", unprivileged=True),
]
