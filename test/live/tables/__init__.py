"""tables - every table of live tests, in the order in which they run."""

from .programs import ROWS as programs

TABLES = [programs]
