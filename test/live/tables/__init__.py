"""tables - every table of live tests, in the order in which they run."""

from .bad_input import ROWS as bad_input
from .kills import ROWS as kills
from .programs import ROWS as programs
from .real import ROWS as real
from .refusals import ROWS as refusals

TABLES = [programs, refusals, bad_input, kills, real]
