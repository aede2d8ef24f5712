"""results.py - prints a line for each test, the reason of a failure below it, and the sum that scripts/test reads."""

import sys

RESULTS = ("pass", "FAIL", "skip")


class Results:
	"""quiet: for very many tests. Those that pass are not printed, and each reason for a skip is printed once."""

	def __init__(self, quiet=False):
		self.counts = dict.fromkeys(RESULTS, 0)
		self.quiet, self.reasons = quiet, set()

	def add(self, result, name, message="", seconds=0.0):
		self.counts[result] += 1
		if self.quiet and (result == "pass" or message in self.reasons):
			return
		if result == "skip":
			self.reasons.add(message)
		first, _, rest = message.partition("\n")
		print(f"{result}  {name}  {seconds:.1f} s  {first}".rstrip())
		if rest:
			print("    " + rest.rstrip("\n").replace("\n", "\n    "))
		sys.stdout.flush()

	@property
	def failed(self):
		return self.counts["FAIL"]

	def say_sum(self):
		"""Prints the closing line; returns the exit code."""
		print(f"{self.counts['pass']} passed, {self.counts['FAIL']} failed, {self.counts['skip']} skipped", flush=True)
		return 1 if self.failed else 0
