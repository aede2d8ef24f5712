/*
 * images.h - for unit tests of images: a directory that is removed after the test, and messages with every field set.
 */
#ifndef TEST_UNIT_IMAGES_H
#define TEST_UNIT_IMAGES_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/inventory.h"
#include "image/message.h"
#include "pipe-data.pb-c.h"

/* The last include, because it makes fail() a macro. */
#include <cmocka.h>

static char directory[] = "/tmp/criu_test.XXXXXX";

static inline int prepare(void **state unused)
{
	error_init();
	log_level = 0; /* these tests cause failures on purpose */
	strcpy(strrchr(directory, '.'), ".XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static inline int clean(void **state unused)
{
	autofree char *command = format_text("rm -rf %s", directory);

	return system(command);
}

static inline struct image_store *open_directory(bool for_writing)
{
	struct image_store *store;

	failure_clear();
	assert_int_equal(image_store_open_directory(&store, directory, for_writing), 0);
	return store;
}

static inline void assert_failure_says(const char *text)
{
	char report[4096];

	failure_report(report, sizeof(report), "test", NULL);
	if (!strstr(report, text))
		fail_msg("the report does not say \"%s\":\n%s", text, report);
	failure_clear();
}

static inline void put_file(const char *name, const void *bytes, size_t size)
{
	autofree char *path = format_text("%s/%s", directory, name);
	autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write_all(fd, bytes, size), 0);
}

static inline size_t get_file(const char *name, unsigned char *bytes, size_t room)
{
	autofree char *path = format_text("%s/%s", directory, name);
	autoclose int fd = open(path, O_RDONLY);
	ssize_t size = fd < 0 ? -1 : read(fd, bytes, room);

	assert_true(size >= 0);
	return size;
}

/* --- Messages with every field set ---------------------------------------------------------------------- */

static inline ProtobufCMessage *make_message(const ProtobufCMessageDescriptor *descriptor, unsigned depth);

static inline void make_value(const ProtobufCFieldDescriptor *field, void *place, unsigned depth)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		*(char **)place = copy_text("t\303\244xt \"\\\n");
		break;
	case PROTOBUF_C_TYPE_BYTES:
		*(ProtobufCBinaryData *)place = (ProtobufCBinaryData){ 5, copy_bytes("\0\1\xff\x80!", 5) };
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		*(ProtobufCMessage **)place = make_message(field->descriptor, depth + 1);
		break;
	case PROTOBUF_C_TYPE_ENUM: {
		const ProtobufCEnumDescriptor *names = field->descriptor;

		*(int *)place = names->values[names->n_values - 1].value;
		break;
	}
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)place = true;
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		*(uint64_t *)place = 0xfedcba9876543210 + field->id;
		break;
	default:
		*(uint32_t *)place = 0xfedcba98 + field->id;
	}
}

static inline size_t value_size(const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_ENUM:
	case PROTOBUF_C_TYPE_BOOL:
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return 4;
	default:
		return 8;
	}
}

static inline void make_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
			      unsigned depth)
{
	char *place = (char *)message + field->offset;
	unsigned *quantifier = (unsigned *)((char *)message + field->quantifier_offset);
	const unsigned count = 3;

	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		*(char **)place = allocate_array(count, value_size(field));
		*(size_t *)quantifier = count;
		for (unsigned i = 0; i < count; i++)
			make_value(field, *(char **)place + i * value_size(field), depth);
		return;
	}
	if (field->label == PROTOBUF_C_LABEL_OPTIONAL && field->quantifier_offset)
		*quantifier = true;
	make_value(field, place, depth);
}

static inline ProtobufCMessage *make_message(const ProtobufCMessageDescriptor *descriptor, unsigned depth)
{
	ProtobufCMessage *message = allocate(descriptor->sizeof_message);

	protobuf_c_message_init(descriptor, message);
	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
		bool is_recursion = field->type == PROTOBUF_C_TYPE_MESSAGE && field->descriptor == descriptor;

		if (!is_recursion || depth < 2)
			make_field(message, field, depth);
	}
	return message;
}

static inline void assert_equal_messages(const ProtobufCMessage *one, const ProtobufCMessage *other)
{
	size_t size = protobuf_c_message_get_packed_size(one);
	autofree uint8_t *a = allocate(size), *b = allocate(size);

	assert_ptr_equal(one->descriptor, other->descriptor);
	assert_int_equal(protobuf_c_message_get_packed_size(other), size);
	protobuf_c_message_pack(one, a);
	protobuf_c_message_pack(other, b);
	assert_memory_equal(a, b, size);
}

/* --- Images --------------------------------------------------------------------------------------------- */

static inline void round_trip_inventory(struct image_store *store)
{
	InventoryEntry *written = inventory_new(), *read;

	assert_int_equal(image_store_commit(store, &written->base), 0);
	assert_int_equal(inventory_read(store, &read), 0);
	assert_equal_messages(&written->base, &read->base);
	image_free(written);
	image_free(read);
}

static inline void a_pipe_image(struct image_store *store)
{
	PipeDataEntry entry = PIPE_DATA_ENTRY__INIT;
	struct image *image;

	entry.pipe_id = 300;
	entry.bytes = 6;
	assert_int_equal(image_create(store, &image, IMAGE_PIPES_DATA, 0), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(image_write(image, &entry.base), 0);
		assert_int_equal(image_write_bytes(image, "behind", 6), 0);
	}
	assert_int_equal(image_close(image), 0);
}

#endif
