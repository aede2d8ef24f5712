"""row.py - the fields of a row in a table of live tests."""

from dataclasses import dataclass, field
from typing import Callable, Optional


# What changes while the program runs, so that each further dump could lose a little of it. A mode that dumps more than
# once runs only rows that have one of these (modes.py).
MEMORY = "memory"  # pages that are written, or mappings that a memory tracker could get wrong
STATE = "state"    # clocks, queues, counters, positions: a restore sets them at another moment than the dump read them

# Programs that do not have both. Some only hold what was set once: if one dump saves it, five dumps do.
TO_LOSE = {
	**dict.fromkeys(("large", "many_areas"), (MEMORY,)),
	**dict.fromkeys(("directory_read", "dying", "epoll", "events", "fifos", "files", "inotify", "interrupted", "ipc_mqueues", "ipc_queues",
			 "ipc_sets", "pair", "path_names", "pipes", "proc_files", "queue_messages", "queue_options", "semaphores", "signals",
			 "signals_hard", "stopped", "timers", "timers_posix", "timers_run_out", "timers_storm", "uring"), (STATE,)),
	**dict.fromkeys(("attributes", "cgroups", "credentials", "death_signals", "exit_signal", "files_moved", "fpu", "inodes", "locks",
			 "locks_family", "nothing_open", "orphan_group", "path_log", "path_namespaces", "pidfds", "place", "rseq", "sleeper"), ()),
}


@dataclass
class Row:
	name: str
	program: str = ""                # a source in programs/, without .c
	arguments: tuple = ()            # what follows the directory on its command line
	run: Optional[Callable] = None   # replaces the function of the mode: run(cell, dumper, restorer)
	modes: tuple = ()                # only these modes; empty: all but `unprivileged`, which has its own field below
	dump_options: tuple = ()
	restore_options: tuple = ()
	to_lose: Optional[tuple] = None  # MEMORY, STATE, both or nothing; None: the entry of its program in TO_LOSE, or both
	changes_files: bool = False      # it changes its files, which then do not fit the images of an earlier moment
	has_stopped_task: bool = False   # one of its tasks is stopped on purpose
	unprivileged: bool = False       # also run as an ordinary user
	without: dict = field(default_factory=dict)     # mode -> why this row does not run in it
	peer_fails: dict = field(default_factory=dict)  # "dump" or "restore" -> why the peer cannot
	pause: float = 0                 # seconds to run before the dump and after the restore; 0: until it has done something
	timeout: float = 60
	alone_with: str = ""             # what the machine has only once: rows with the same word here run one after the other

	def runs_in(self, mode):
		if self.modes:
			return mode.kind in self.modes
		if mode.name == "unprivileged":
			return self.unprivileged
		return not mode.needs or mode.needs in self.what_it_can_lose()

	def what_it_can_lose(self):
		if self.to_lose is not None:
			return self.to_lose
		return TO_LOSE.get(self.program, (MEMORY, STATE))
