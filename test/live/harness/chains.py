"""chains.py - reads and writes page images without criu, and turns a full dump into a chain of snapshots.

Every page of the dump is put into one layer. Newer layers leave the page to their parent. Older layers have stale bytes there, or
nothing, or the page is absent from some of them: a restore must not see any of that. So the tests have chains that no tracker
would make, and need no tracker.
"""

import os
import random
import re
import shutil
import struct

PAGE = 4096
IN_PARENT, LAZY, PRESENT = 1, 2, 4
COMMON, PAGEMAP, INVENTORY = 0x54564319, 0x56084025, 0x58313116
SNAPSHOT_ID, PARENT_ID = 1002, 1003
STALE = b"old!" * (PAGE // 4)


# Messages

def get_number(data, at):
	value = shift = 0
	while True:
		byte = data[at]
		at += 1
		value |= (byte & 127) << shift
		shift += 7
		if byte < 128:
			return value, at


def put_number(value):
	out = bytearray()
	while value > 127:
		out.append(value & 127 | 128)
		value >>= 7
	out.append(value)
	return bytes(out)


def fields(data):
	"""Yields (number, value, bytes of the whole field) for each field."""
	at = 0
	while at < len(data):
		start = at
		key, at = get_number(data, at)
		if key & 7 == 0:
			value, at = get_number(data, at)
		elif key & 7 == 2:
			length, at = get_number(data, at)
			value, at = data[at:at + length], at + length
		else:
			raise ValueError(f"a field of wire type {key & 7}")
		yield key >> 3, value, data[start:at]


def field(data, wanted, default=0):
	"""The value of the last field with this number."""
	return {number: value for number, value, _ in fields(data)}.get(wanted, default)


def message(**numbers):
	"""message(_1=…): a message of integers."""
	return b"".join(put_number(int(key[1:]) << 3) + put_number(value) for key, value in numbers.items())


def records(data):
	at = 8
	while at < len(data):
		length, = struct.unpack_from("<I", data, at)
		yield data[at + 4:at + 4 + length]
		at += 4 + length


def record(data):
	return struct.pack("<I", len(data)) + data


def read(*path):
	with open(os.path.join(*path), "rb") as file:
		return file.read()


def write(data, *path):
	with open(os.path.join(*path), "wb") as file:
		file.write(data)


# Page images

def read_pagemap(directory, name):
	"""pages_id, [(page number, pages, flags)]"""
	head, *entries = records(read(directory, name))
	found = []
	for entry in entries:
		values = {number: value for number, value, _ in fields(entry)}
		found.append((values[1] // PAGE, values.get(5, values.get(2)), values.get(4, IN_PARENT if values.get(3) else PRESENT)))
	return dict((number, value) for number, value, _ in fields(head))[1], found


def write_pagemap(directory, name, pages_id, entries, old_spelling=False):
	out = [struct.pack("<II", COMMON, PAGEMAP), record(message(_1=pages_id))]
	for page, count, flags in entries:
		if old_spelling:
			out.append(record(message(_1=page * PAGE, _2=count, _3=int(flags & IN_PARENT))))
		else:
			out.append(record(message(_1=page * PAGE, _2=count, _4=flags, _5=count)))
	write(b"".join(out), directory, name)


def pagemaps(directory):
	return sorted(name for name in os.listdir(directory) if name.startswith("pagemap-") and name.endswith(".img"))


def set_identity(directory, snapshot, parent):
	data = read(directory, "inventory.img")
	kept = b"".join(whole for number, _, whole in fields(data[8:]) if number not in (SNAPSHOT_ID, PARENT_ID))
	kept += message(**{f"_{SNAPSHOT_ID}": snapshot})
	if parent:
		kept += message(**{f"_{PARENT_ID}": parent})
	write(struct.pack("<I", INVENTORY) + record(kept), directory, "inventory.img")


# A chain

def join(states):
	"""Joins [(page number, flags)] into entries of a pagemap."""
	entries = []
	for page, flags in states:
		if entries and entries[-1][0] + entries[-1][1] == page and entries[-1][2] == flags:
			entries[-1][1] += 1
		else:
			entries.append([page, 1, flags])
	return entries


def split_pagemap(directories, name, chance):
	"""directories[0] is the oldest, and the last one has the full dump."""
	newest, last = directories[-1], len(directories) - 1
	pages_id, entries = read_pagemap(newest, name)
	states, bytes_of = [[] for _ in directories], [[] for _ in directories]
	source = read(newest, f"pages-{pages_id}.img") if entries else b""
	offset, layer, left = 0, 0, 0
	for page, count, flags in entries:
		for number in range(page, page + count):
			if not left:  # a stretch of neighbouring pages shares one history
				layer, left = chance.randint(0, last), chance.choice((1, 1, 2, 5, 40))
				stale = chance.random() < 0.5 and layer > 0
				first = chance.randrange(layer) if stale else layer
				gone = chance.randrange(first, layer) if stale and chance.random() < 0.3 else None
			left -= 1
			for older in range(first, layer):
				if gone is not None and older > gone:
					continue  # dropped meanwhile
				is_new = older == first or chance.random() < 0.1
				states[older].append((number, flags if is_new else IN_PARENT))
				if is_new:
					bytes_of[older].append(STALE)
			states[layer].append((number, flags))
			bytes_of[layer].append(source[offset:offset + PAGE])
			offset += PAGE
			for newer in range(layer + 1, last + 1):
				states[newer].append((number, IN_PARENT))
	for number, directory in enumerate(directories):
		write_pagemap(directory, name, pages_id, join(states[number]), old_spelling=number % 5 == 3 and not any(
			flags & LAZY for _, flags in states[number]))
		write(b"".join(bytes_of[number]), directory, f"pages-{pages_id}.img")


def give_pages(directories, name, owners_of):
	"""The oldest snapshot has all pages, later ones replace some. owners_of(number of pages) gives the layer of each page's content."""
	pages_id, entries = read_pagemap(directories[-1], name)
	numbers = [number for page, count, _ in entries for number in range(page, page + count)]
	source = memoryview(read(directories[-1], f"pages-{pages_id}.img")) if entries else b""
	starts = [index for index, number in enumerate(numbers) if not index or numbers[index - 1] + 1 != number]
	stretches = list(zip(starts, starts[1:] + [len(numbers)]))
	owners = owners_of(len(numbers))
	for layer, directory in enumerate(directories):
		states = owners.translate(bytes(PRESENT if owner == layer or not layer else IN_PARENT for owner in range(256)))
		runs = [[numbers[start + found.start()], found.end() - found.start(), found[0][0]] for start, end in stretches
			for found in re.finditer(b"\x01+|\x04+", states[start:end])]
		write_pagemap(directory, name, pages_id, runs)
		write(b"".join(source[index * PAGE:(index + 1) * PAGE] if owner == layer else STALE
			       for index, owner in enumerate(owners) if owner == layer or not layer), directory, f"pages-{pages_id}.img")


def scatter_pagemap(directories, name, chance, share=0.01):
	"""For large memory: each later snapshot has a random share of single pages."""
	def owners_of(count):
		owners = bytearray(count)
		for layer in range(1, len(directories)):
			for index in chance.sample(range(count), int(count * share)):
				owners[index] = layer
		return owners
	give_pages(directories, name, owners_of)


def deal_pagemap(directories, name, _chance):
	"""Deals the pages out to the snapshots in turn, so that no two neighbours are in the same one."""
	give_pages(directories, name, lambda count: bytearray(index % len(directories) for index in range(count)))


def split(images, layers, seed=1, split_one=split_pagemap, is_inside=False):
	"""
	Turns the dump in `images` into the newest of `layers` snapshots. Returns all directories, the newest first. The others are
	created beside it, or inside it.
	"""
	chance = random.Random(seed)
	directories = [f"{images}{'/' if is_inside else '.'}{number}" for number in range(layers - 1)] + [images]
	for directory in directories[:-1]:
		os.mkdir(directory, 0o700)
		shutil.copy(os.path.join(images, "inventory.img"), directory)
	for number, directory in enumerate(directories):
		set_identity(directory, 1000 + number, number and 999 + number)
		if number:
			target = os.path.relpath(directories[number - 1], directory)
			os.symlink(target, os.path.join(directory, "parent"))
	for name in pagemaps(images):
		split_one(directories, name, chance)
	return directories[::-1]
