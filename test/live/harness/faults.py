"""faults.py - CRIU_FAULT: makes a step of a dump or restore fail on purpose. criu itself lists the names of its steps.

`run_with` is a function that runs criu with the given environment and returns the Run.
"""

import re

from .cell import Failure


def in_step(journey, step):
	"""The environment variables that make this step fail."""
	return {"CRIU_FAULT": f"{journey}:{step}"}


def words_of(step):
	"""A regular expression for the message of a run whose step was made to fail."""
	return re.escape(f"fault injected into '{step}'")


def check_failed(run, step):
	"""Raises Failure unless the run failed in this step."""
	if not run.failed or not re.search(words_of(step), run.error):
		raise Failure(f"criu should have failed in the step '{step}': {run.describe()}")


def steps_of(journey, run_with):
	"""The names of all steps, in order: criu lists them if CRIU_FAULT names a step that does not exist."""
	run = run_with(in_step(journey, ""))
	listed = re.search(r"its steps are: (.+)", run.error)
	if not run.failed or not listed:
		raise Failure(f"criu did not list its steps: {run.describe()}")
	return listed.group(1).split(", ")
