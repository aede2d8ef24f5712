"""row.py - what a row of a table of live tests says."""

from dataclasses import dataclass, field
from typing import Callable, Optional


@dataclass
class Row:
	name: str
	program: str = ""                # a source in programs/, without .c
	arguments: tuple = ()            # what follows the directory on its command line
	run: Optional[Callable] = None   # instead of the mode's own course: run(cell, dumper, restorer)
	modes: tuple = ()                # only these modes; empty: all but `unprivileged`, which is asked for below
	dump_options: tuple = ()
	restore_options: tuple = ()
	changes_files: bool = False      # what it writes to would not fit images of an earlier moment
	has_stopped_task: bool = False   # a task of it is stopped on purpose
	unprivileged: bool = False       # also run as an ordinary user
	without: dict = field(default_factory=dict)     # mode -> why it makes no sense for this row
	peer_fails: dict = field(default_factory=dict)  # "dump" or "restore" -> why the peer cannot
	pause: float = 0.15              # seconds that the program runs before and after
	timeout: float = 60
	alone_with: str = ""             # what the machine has but once: rows that use up the same thing take turns

	def runs_in(self, mode):
		if self.modes:
			return mode.name in self.modes
		return mode.name != "unprivileged" or self.unprivileged
