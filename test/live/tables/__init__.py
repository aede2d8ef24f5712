"""tables - every table of live tests, in the order in which they run."""

from . import (aio, bad_input, chain, directory, hard, huge, images, kills, kinds, memory, newborns, options, programs, real,
	       refusals, terminals, tracking)

TABLES = [table.ROWS for table in (programs, kinds, terminals, hard, memory, aio, chain, tracking, huge, refusals, images,
				   directory, options, bad_input, kills, newborns, real)]
