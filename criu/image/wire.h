/*
 * wire.h - a look at packed protobuf before it is unpacked; private to criu/image.
 */
#ifndef CRIU_IMAGE_WIRE_H
#define CRIU_IMAGE_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * protobuf_c_message_unpack() calls itself for a message in a message, without a limit: a forged record with
 * a message in a message in a message ... (two bytes each, in the types that contain themselves) overflows
 * the stack. False for such a record, and for one whose lengths lie.
 */
bool wire_is_sane(const ProtobufCMessageDescriptor *descriptor, const unsigned char *bytes, size_t size);

/*
 * The integers of a record's fields 1 to `count`, in values[field - 1]; bit N of *given says that field N is there, and the last
 * one counts. Other fields are skipped. False: it is torn, or one of these is no integer.
 */
bool wire_take_integers(const unsigned char *bytes, size_t size, uint64_t *values, unsigned count,
			unsigned *given);

#endif
