"""images.py - reads what a test wants to know of an image, without any schema: entries, and fields by number."""

import struct


def entries(path):
	"""The messages of an image file with a common header, as bytes."""
	with open(path, "rb") as file:
		data = file.read()
	at = 8
	while at < len(data):
		length, = struct.unpack_from("I", data, at)
		yield data[at + 4:at + 4 + length]
		at += 4 + length


def varint(data, at):
	value = shift = 0
	while True:
		value |= (data[at] & 127) << shift
		shift += 7
		at += 1
		if data[at - 1] < 128:
			return value, at


def fields(message):
	"""(number, value) of each field, in order: an integer, or the bytes of a text or of a message."""
	at = 0
	while at < len(message):
		key, at = varint(message, at)
		if key & 7 == 0:
			value, at = varint(message, at)
		else:
			length, at = varint(message, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
			value = message[at:at + length]
			at += length
		yield key >> 3, value


def field(message, wanted, default=0):
	"""The last of that number: what counts, if it is no array."""
	return dict(fields(message)).get(wanted, default)
