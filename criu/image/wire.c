/*
 * wire.c - checks how deep messages are nested in packed records, and reads integers without building a message. See
 * wire.h.
 */
#include <stdint.h>
#include "image/wire.h"

/* The deepest real messages are trees of cgroups; protobuf's own readers stop at 100. */
#define DEPTH_LIMIT 100

enum wire_type { WIRE_VARINT = 0, WIRE_64BIT = 1, WIRE_BYTES = 2, WIRE_32BIT = 5 };

struct wire {
	const unsigned char *at, *end;
};

static bool take_varint(struct wire *wire, uint64_t *value)
{
	*value = 0;
	for (unsigned shift = 0; shift < 64 && wire->at < wire->end; shift += 7) {
		unsigned char byte = *wire->at++;

		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

static bool skip(struct wire *wire, uint64_t size)
{
	if (size > (uint64_t)(wire->end - wire->at))
		return false;
	wire->at += size;
	return true;
}

/*
 * Skips the value of a tag. *value is the integer, or the length. False: it is incomplete, or of a type that criu does
 * not use.
 */
static bool skip_value(struct wire *wire, uint64_t tag, uint64_t *value)
{
	switch (tag & 7) {
	case WIRE_VARINT:
		return take_varint(wire, value);
	case WIRE_64BIT:
		return skip(wire, 8);
	case WIRE_BYTES:
		return take_varint(wire, value) && skip(wire, *value);
	case WIRE_32BIT:
		return skip(wire, 4);
	default: /* groups: no message here has one */
		return false;
	}
}

bool wire_take_integers(const unsigned char *bytes, size_t size, uint64_t *values, unsigned count,
			unsigned *given)
{
	struct wire wire = { bytes, bytes + size };

	*given = 0;
	while (wire.at < wire.end) {
		uint64_t tag, value;

		if (!take_varint(&wire, &tag) || !(tag >> 3) || !skip_value(&wire, tag, &value))
			return false;
		if (tag >> 3 > count)
			continue;
		if ((tag & 7) != WIRE_VARINT)
			return false;
		values[(tag >> 3) - 1] = value;
		*given |= 1u << (tag >> 3);
	}
	return true;
}

static bool message_is_sane(const ProtobufCMessageDescriptor *descriptor, struct wire wire, unsigned depth);

/* Checks the bytes of a field, which may be a message. */
static bool bytes_are_sane(const ProtobufCMessageDescriptor *descriptor, uint64_t number, struct wire wire,
			   unsigned depth)
{
	const ProtobufCFieldDescriptor *field = NULL;

	if (number <= INT32_MAX)
		field = protobuf_c_message_descriptor_get_field(descriptor, number);
	if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE)
		return true;
	return depth < DEPTH_LIMIT && message_is_sane(field->descriptor, wire, depth + 1);
}

static bool message_is_sane(const ProtobufCMessageDescriptor *descriptor, struct wire wire, unsigned depth)
{
	while (wire.at < wire.end) {
		uint64_t tag, size = 0;

		if (!take_varint(&wire, &tag) || !skip_value(&wire, tag, &size))
			return false;
		if ((tag & 7) == WIRE_BYTES &&
		    !bytes_are_sane(descriptor, tag >> 3, (struct wire){ wire.at - size, wire.at }, depth))
			return false;
	}
	return true;
}

bool wire_is_sane(const ProtobufCMessageDescriptor *descriptor, const unsigned char *bytes, size_t size)
{
	return message_is_sane(descriptor, (struct wire){ bytes, bytes + size }, 0);
}
