"""tables - every table of live tests, in the order in which they run."""

from . import bad_input, kills, programs, real, refusals

TABLES = [table.ROWS for table in (programs, refusals, bad_input, kills, real)]
