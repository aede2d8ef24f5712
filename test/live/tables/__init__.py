"""tables - every table of live tests, in the order in which they run."""

from . import bad_input, images, kills, memory, programs, real, refusals

TABLES = [table.ROWS for table in (programs, memory, refusals, images, bad_input, kills, real)]
