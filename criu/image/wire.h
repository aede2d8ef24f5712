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

#endif
