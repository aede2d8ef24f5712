"""tables - every table of live tests, in the order in which they run."""

from . import aio, bad_input, hard, images, kills, kinds, memory, options, programs, real, refusals, terminals

TABLES = [table.ROWS for table in (programs, kinds, terminals, hard, memory, aio, refusals, images, options, bad_input, kills, real)]
