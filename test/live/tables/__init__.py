"""tables - every table of live tests, in the order in which they run."""

from . import bad_input, images, kills, kinds, memory, options, programs, real, refusals, terminals

TABLES = [table.ROWS for table in (programs, kinds, terminals, memory, refusals, images, options, bad_input, kills, real)]
