"""tables - every table of live tests, in the order in which they run."""

from . import bad_input, images, kills, programs, real, refusals

TABLES = [table.ROWS for table in (programs, refusals, images, bad_input, kills, real)]
