"""faults.py - CRIU_FAULT: makes a step of a dump or restore fail on purpose. Steps are named, and criu says which there are.

`run_with` is a function of the environment that returns the Run.
"""

import re

from .cell import Failure


def in_step(journey, step):
	"""The environment in which this step fails."""
	return {"CRIU_FAULT": f"{journey}:{step}"}


def words_of(step):
	"""What a run says then, as a regular expression."""
	return re.escape(f"fault injected into '{step}'")


def check_failed(run, step):
	"""It has failed, and in this step."""
	if not run.failed or not re.search(words_of(step), run.error):
		raise Failure(f"it should have failed in the step '{step}': {run.describe()}")


def steps_of(journey, run_with):
	"""The names of all steps, in order: criu lists them if it is to fail in a step that it does not have."""
	run = run_with(in_step(journey, ""))
	listed = re.search(r"its steps are: (.+)", run.error)
	if not run.failed or not listed:
		raise Failure(f"it should have said which steps there are: {run.describe()}")
	return listed.group(1).split(", ")
