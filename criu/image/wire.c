/*
 * wire.c - how deep messages are nested in a packed record. See wire.h.
 */
#include <stdint.h>
#include "image/wire.h"

/* The deepest real thing is a tree of cgroups; protobuf's own readers stop at 100. */
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

static bool message_is_sane(const ProtobufCMessageDescriptor *descriptor, struct wire wire, unsigned depth);

/* The bytes of a field: a message to look into, or anything else. */
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
		const unsigned char *start;

		if (!take_varint(&wire, &tag))
			return false;
		switch (tag & 7) {
		case WIRE_VARINT:
			if (!take_varint(&wire, &size))
				return false;
			size = 0;
			break;
		case WIRE_64BIT:
			size = 8;
			break;
		case WIRE_BYTES:
			if (!take_varint(&wire, &size))
				return false;
			break;
		case WIRE_32BIT:
			size = 4;
			break;
		default: /* groups: no message of ours has one */
			return false;
		}
		start = wire.at;
		if (!skip(&wire, size))
			return false;
		if ((tag & 7) == WIRE_BYTES &&
		    !bytes_are_sane(descriptor, tag >> 3, (struct wire){ start, wire.at }, depth))
			return false;
	}
	return true;
}

bool wire_is_sane(const ProtobufCMessageDescriptor *descriptor, const unsigned char *bytes, size_t size)
{
	return message_is_sane(descriptor, (struct wire){ bytes, bytes + size }, 0);
}
