"""hard.py - what is easily forgotten: rare states of processes and files, and what surrounds criu itself."""

from harness.row import Row

ROWS = [
	Row("files-directory-read", "directory_read"),
]
