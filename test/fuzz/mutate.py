"""mutate.py - forges images. It knows only their framing and protobuf's wire format.

An image is a header and records; a record is a length and a protobuf message. Messages are parsed without descriptors: bytes
that can be parsed as a message are taken for one. A mutation takes the bytes of a file and a random.Random, and returns bytes.
"""

import struct

COMMON, INVENTORY = 0x54564319, 0x58313116
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MASK = (1 << 64) - 1

NUMBERS = (0, 1, 2, 3, 7, 64, 0x7f, 0x80, 0xff, 0x100, 4095, 4096, 0xffff, 0x10000, 1 << 20, (1 << 31) - 1, 1 << 31,
	   (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 46, 0x7ffffffff000, 1 << 47, 0xffffffffff600000, (1 << 63) - 1, 1 << 63,
	   MASK - 4095, MASK - 1, MASK)
TEXTS = (b"", b"/", b"x", b".", b"..", b"../../../..", b"/dev/null", b"/dev/zero", b"/nonexistent/file", b"/proc/self/status",
	 b"/proc/1/root", b"/proc/self/fd/0", b"FIFO", b"%s%n%s%n", b"a" * 300, b"/" + b"a/" * 3000, b"/etc\n/passwd",
	 b"\xff\xfe", b"/dev/zero (deleted)")


def take_varint(data, at):
	value = shift = 0
	while True:
		byte = data[at]
		value |= (byte & 0x7f) << shift
		at, shift = at + 1, shift + 7
		if not byte & 0x80:
			return value & MASK, at
		if shift > 63:
			raise ValueError("a varint without an end")


def varint(value):
	result = b""
	while value > 0x7f:
		result, value = result + bytes((value & 0x7f | 0x80,)), value >> 7
	return result + bytes((value,))


def parse(data):
	"""A message as a list of [number, type, value], nested for messages in it. Raises ValueError or IndexError if it is none."""
	fields, at = [], 0
	while at < len(data):
		tag, at = take_varint(data, at)
		number, kind = tag >> 3, tag & 7
		if not 0 < number < 3000:
			raise ValueError("no field")
		if kind == VARINT:
			value, at = take_varint(data, at)
		elif kind == BYTES:
			size, at = take_varint(data, at)
			value, at = data[at:at + size], at + size
			if len(value) != size:
				raise ValueError("cut off")
			try:
				value = parse(value) if value else value
			except (ValueError, IndexError):
				pass
		elif kind in (FIXED64, FIXED32):
			size = 8 if kind == FIXED64 else 4
			value, at = data[at:at + size], at + size
			if len(value) != size:
				raise ValueError("cut off")
		else:
			raise ValueError("no type")
		fields.append([number, kind, value])
	return fields


def pack(fields):
	result = b""
	for number, kind, value in fields:
		result += varint(number << 3 | kind)
		if kind == VARINT:
			result += varint(value & MASK)
		elif kind == BYTES:
			value = pack(value) if isinstance(value, list) else value
			result += varint(len(value)) + value
		else:
			result += value
	return result


def split(data):
	"""Header, records and tail. In images with raw bytes after a record (pipes-data.img), the tail is everything behind it."""
	first, = struct.unpack_from("<I", data)
	at = 4 if first == INVENTORY else 8
	header, records = data[:at], []
	while at + 4 <= len(data):
		size, = struct.unpack_from("<I", data, at)
		if at + 4 + size > len(data):
			break
		try:
			parse(data[at + 4:at + 4 + size])
		except (ValueError, IndexError):
			break
		records.append(data[at + 4:at + 4 + size])
		at += 4 + size
	return header, records, data[at:]


def join(header, records, tail):
	return header + b"".join(struct.pack("<I", len(record)) + record for record in records) + tail


# Mutations of a message

def all_fields(fields):
	for field in fields:
		yield fields, field
		if isinstance(field[2], list):
			yield from all_fields(field[2])


def other_number(old, chance):
	return chance.choice((chance.choice(NUMBERS), old + 1, old - 1, old ^ 1 << chance.randrange(64), old ^ 1 << chance.randrange(13),
			      old * 2, old + 4096, old - 4096, -old, chance.getrandbits(chance.randrange(1, 65)))) & MASK


def mutate_fields(fields, chance):
	within, field = chance.choice(list(all_fields(fields)))
	what = chance.randrange(10)
	if what == 0:
		within.remove(field)
	elif what == 1:
		within.insert(chance.randrange(len(within) + 1), list(field))
	elif field[1] == VARINT:
		field[2] = other_number(field[2], chance)
	elif field[1] == BYTES and what < 6:
		field[2] = chance.choice(TEXTS)
	elif field[1] == BYTES:
		old = pack(field[2]) if isinstance(field[2], list) else field[2]
		field[2] = old[:chance.randrange(len(old) + 1)]
	else:
		field[2] = bytes(chance.randrange(256) for _ in field[2])


def fields(data, chance):
	header, records, tail = split(data)
	if not records:
		return flip(data, chance)
	index = chance.randrange(len(records))
	message = parse(records[index])
	for _ in range(chance.choice((1, 1, 1, 2, 3))):
		if message:
			mutate_fields(message, chance)
	records[index] = pack(message)
	return join(header, records, tail)


# Mutations of a file

def records(data, chance):
	"""Adds a record, removes one, swaps two, or repeats all."""
	header, items, tail = split(data)
	if not items:
		return flip(data, chance)
	one, other = chance.randrange(len(items)), chance.randrange(len(items))
	what = chance.randrange(4)
	if what == 0:
		items.insert(other, items[one])
	elif what == 1:
		items.pop(one)
	elif what == 2:
		items[one], items[other] = items[other], items[one]
	else:
		items *= chance.choice((2, 50))
	return join(header, items, tail)


def length(data, chance):
	"""Gives a record a wrong length."""
	header, items, tail = split(data)
	at = len(header)
	for item in items[:chance.randrange(len(items) + 1)]:
		at += 4 + len(item)
	return data[:at] + struct.pack("<I", other_number(len(data) - at, chance) & 0xffffffff) + data[at + 4:]


def flip(data, chance):
	changed = bytearray(data)
	for _ in range(chance.choice((1, 1, 2, 10))):
		if changed:
			changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
	return bytes(changed)


def truncate(data, chance):
	return data[:chance.randrange(len(data) + 1)]


def extend(data, chance):
	return data + bytes(chance.randrange(256) for _ in range(chance.choice((1, 3, 4, 100))))


MUTATIONS = (fields,) * 12 + (records, records, length, flip, flip, truncate, extend)
