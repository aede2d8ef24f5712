"""row.py - what a row of a table of live tests says."""

from dataclasses import dataclass, field
from typing import Callable, Optional


# What a dump could lose a little of, each time: what moves on while the program runs. A mode that dumps more than once
# needs one of these of its rows (modes.py).
MEMORY = "memory"  # pages that are written, or mappings that a tracker of memory could be wrong about
STATE = "state"    # clocks, queues, counters, positions: what a dump reads, and a restore sets, at another moment

# Programs that do not have both. Some hold nothing but what was set once: what one dump saves of it, five do.
TO_LOSE = {
	**dict.fromkeys(("large", "many_areas"), (MEMORY,)),
	**dict.fromkeys(("dying", "directory_read", "epoll", "events", "fifos", "files", "interrupted", "pair", "pipes", "semaphores",
			 "signals", "signals_hard", "stopped", "timers", "timers_posix", "timers_run_out", "timers_storm"), (STATE,)),
	**dict.fromkeys(("attributes", "cgroups", "credentials", "death_signals", "exit_signal", "files_moved", "fpu", "inodes", "locks",
			 "locks_family", "nothing_open", "orphan_group", "place", "rseq", "sleeper"), ()),
}


@dataclass
class Row:
	name: str
	program: str = ""                # a source in programs/, without .c
	arguments: tuple = ()            # what follows the directory on its command line
	run: Optional[Callable] = None   # instead of the mode's own course: run(cell, dumper, restorer)
	modes: tuple = ()                # only these modes; empty: all but `unprivileged`, which is asked for below
	dump_options: tuple = ()
	restore_options: tuple = ()
	to_lose: Optional[tuple] = None  # MEMORY, STATE, both or nothing; None: as TO_LOSE says of its program, or else both
	changes_files: bool = False      # what it writes to would not fit images of an earlier moment
	has_stopped_task: bool = False   # a task of it is stopped on purpose
	unprivileged: bool = False       # also run as an ordinary user
	without: dict = field(default_factory=dict)     # mode -> why it makes no sense for this row
	peer_fails: dict = field(default_factory=dict)  # "dump" or "restore" -> why the peer cannot
	pause: float = 0                 # seconds that the program runs before and after; 0: until it has done something
	timeout: float = 60
	alone_with: str = ""             # what the machine has but once: rows that use up the same thing take turns

	def runs_in(self, mode):
		if self.modes:
			return mode.name in self.modes
		if mode.name == "unprivileged":
			return self.unprivileged
		return not mode.needs or mode.needs in self.what_it_can_lose()

	def what_it_can_lose(self):
		if self.to_lose is not None:
			return self.to_lose
		return TO_LOSE.get(self.program, (MEMORY, STATE))
