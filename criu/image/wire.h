/*
 * wire.h - checks packed protobuf before it is unpacked; private to criu/image.
 */
#ifndef CRIU_IMAGE_WIRE_H
#define CRIU_IMAGE_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * protobuf_c_message_unpack() recurses for a message in a message, without a limit: a forged record with a message in a
 * message in a message ... (two bytes each, in types that contain themselves) overflows the stack. False for such a
 * record, and for one whose lengths are wrong.
 */
bool wire_is_sane(const ProtobufCMessageDescriptor *descriptor, const unsigned char *bytes, size_t size);

/*
 * Reads the integers of the fields 1 to `count` into values[field - 1]. Bit N of *given is set if field N is there; the
 * last occurrence counts. Other fields are skipped. False: the record is torn, or one of these fields is no integer.
 */
bool wire_take_integers(const unsigned char *bytes, size_t size, uint64_t *values, unsigned count,
			unsigned *given);

#endif
