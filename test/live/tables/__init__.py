"""tables - every table of live tests, in the order in which they run."""

import importlib

ORDER = [
	"programs",
	"kinds",
	"sharing",
	"terminals",
	"externals",
	"hard",
	"limits",
	"dying",
	"parents",
	"memory",
	"aio",
	"chain",
	"tracking",
	"huge",
	"refusals",
	"images",
	"directory",
	"cgroups",
	"options",
	"messages",
	"bad_input",
	"kills",
	"roots",
	"next_ids",
	"newborns",
	"real",
]

TABLES = [importlib.import_module(f".{name}", __name__).ROWS for name in ORDER]
