"""tables - every table of live tests, in the order in which they run."""

from . import bad_input, hard, images, kills, kinds, memory, options, programs, real, refusals, terminals

TABLES = [table.ROWS for table in (programs, kinds, terminals, hard, memory, refusals, images, options, bad_input, kills, real)]
