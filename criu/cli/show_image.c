/*
 * show_image.c - `criu show IMAGE`: prints every record of one image file, field by field, using the descriptors of its
 * messages.
 *
 *	core-4711.img: CORE                     {
 *	mtype: 1                                  "magic": "CORE",
 *	thread_info:                              "entries": [
 *	  clear_tid_addr: 140123456789 (0x7f…)      {
 *	  …                                           "mtype": 1, …
 *
 * The name of the file determines the kind of the image, as in a restore. Raw bytes behind a record are counted, not
 * shown. Field names are those of the messages (images/), and JSON is laid out as by `crit`.
 */
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <string.h>
#include "bpfmap-data.pb-c.h"
#include "base/error.h"
#include "base/memory.h"
#include "cli/json.h"
#include "cli/show.h"
#include "ghost-file.pb-c.h"
#include "ipc/ipc.h"
#include "memory/packed.h"
#include "pipe-data.pb-c.h"
#include "sk-packet.pb-c.h"

#define MOST_SHOWN   32	     /* bytes shown of a bytes field; JSON has all of them */
#define WORTH_HEXING 0x10000 /* larger numbers are shown in hex, too: many are addresses or flags */

struct printer {
	FILE *out;
	struct json *json; /* NULL: text output */
	unsigned depth;
};

static void put_message(struct printer *printer, const ProtobufCMessage *message);

/* ---- values ---- */

static void put_unsigned(struct printer *printer, const char *key, uint64_t value)
{
	if (printer->json)
		json_number(printer->json, key, value);
	else if (value >= WORTH_HEXING)
		fprintf(printer->out, " %" PRIu64 " (0x%" PRIx64 ")", value, value);
	else
		fprintf(printer->out, " %" PRIu64, value);
}

static void put_signed(struct printer *printer, const char *key, int64_t value)
{
	if (printer->json)
		json_signed(printer->json, key, value);
	else
		fprintf(printer->out, " %" PRId64, value);
}

static void put_text(struct printer *printer, const char *key, const char *text)
{
	if (printer->json) {
		json_string(printer->json, key, text);
		return;
	}
	fputs(" \"", printer->out);
	show_clean(printer->out, text);
	fputc('"', printer->out);
}

static void put_bytes(struct printer *printer, const char *key, const ProtobufCBinaryData *bytes)
{
	size_t shown = printer->json ? bytes->len : min(bytes->len, (size_t)MOST_SHOWN);
	autofree char *text = allocate(2 * shown + 1);

	for (size_t i = 0; i < shown; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes->data[i]);
	if (printer->json)
		json_string(printer->json, key, text);
	else
		fprintf(printer->out, " %s%s (%zu bytes)", text, shown < bytes->len ? "…" : "", bytes->len);
}

/* An enum value; one without a name is shown as a number. */
static void put_enumeration(struct printer *printer, const char *key, const ProtobufCEnumDescriptor *names,
			    int value)
{
	const ProtobufCEnumValue *name = protobuf_c_enum_descriptor_get_value(names, value);

	if (!name)
		put_signed(printer, key, value);
	else if (printer->json)
		json_string(printer->json, key, name->name);
	else
		fprintf(printer->out, " %s", name->name);
}

static size_t size_of(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	default:
		return 4;
	}
}

static void put_value(struct printer *printer, const char *key, const ProtobufCFieldDescriptor *field,
		      const void *value)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return put_signed(printer, key, *(const int32_t *)value);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		return put_signed(printer, key, *(const int64_t *)value);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT: /* no message has one: shows its bits */
		return put_unsigned(printer, key, *(const uint32_t *)value);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return put_unsigned(printer, key, *(const uint64_t *)value);
	case PROTOBUF_C_TYPE_BOOL:
		if (printer->json)
			return json_bool(printer->json, key, *(const protobuf_c_boolean *)value);
		fputs(*(const protobuf_c_boolean *)value ? " yes" : " no", printer->out);
		return;
	case PROTOBUF_C_TYPE_ENUM:
		return put_enumeration(printer, key, field->descriptor, *(const int *)value);
	case PROTOBUF_C_TYPE_STRING:
		return put_text(printer, key, *(const char *const *)value);
	case PROTOBUF_C_TYPE_BYTES:
		return put_bytes(printer, key, value);
	case PROTOBUF_C_TYPE_MESSAGE:
		break; /* put_group() */
	}
}

/* ---- fields ---- */

static void begin_line(struct printer *printer, const char *name)
{
	fprintf(printer->out, "%*s%s:", 2 * printer->depth, "", name);
}

static void put_group(struct printer *printer, const char *key, const char *name,
		      const ProtobufCMessage *message)
{
	if (printer->json) {
		json_open(printer->json, key, '{');
		put_message(printer, message);
		json_close(printer->json, '}');
		return;
	}
	begin_line(printer, name);
	fputc('\n', printer->out);
	printer->depth++;
	put_message(printer, message);
	printer->depth--;
}

static bool is_field_set(const ProtobufCFieldDescriptor *field, const char *message)
{
	const void *value = message + field->offset;

	if (field->label == PROTOBUF_C_LABEL_REQUIRED)
		return true;
	if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE)
		return *(const void *const *)value;
	return *(const protobuf_c_boolean *)(message + field->quantifier_offset);
}

static void put_single(struct printer *printer, const ProtobufCFieldDescriptor *field, const void *value)
{
	if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
		put_group(printer, field->name, field->name, *(const ProtobufCMessage *const *)value);
		return;
	}
	if (!printer->json)
		begin_line(printer, field->name);
	put_value(printer, field->name, field, value);
	if (!printer->json)
		fputc('\n', printer->out);
}

static void put_repeated(struct printer *printer, const ProtobufCFieldDescriptor *field, const char *values,
			 size_t count)
{
	bool has_lines = !printer->json && field->type != PROTOBUF_C_TYPE_MESSAGE;

	if (printer->json)
		json_open(printer->json, field->name, '[');
	else if (has_lines)
		begin_line(printer, field->name);
	for (size_t i = 0; i < count; i++, values += size_of(field->type))
		if (field->type == PROTOBUF_C_TYPE_MESSAGE)
			put_group(printer, NULL, field->name, *(const ProtobufCMessage *const *)values);
		else
			put_value(printer, NULL, field, values);
	if (printer->json)
		json_close(printer->json, ']');
	else if (has_lines)
		fputc('\n', printer->out);
}

/* image/wire.c limited the depth of the messages when this one was read. */
static void put_message(struct printer *printer, const ProtobufCMessage *message)
{
	const char *bytes = (const char *)message;

	for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
		const void *value = bytes + field->offset;

		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t count = *(const size_t *)(bytes + field->quantifier_offset);

			if (count)
				put_repeated(printer, field, *(const char *const *)value, count);
		} else if (is_field_set(field, bytes)) {
			put_single(printer, field, value);
		}
	}
}

/* ---- images ---- */

/* The number of raw bytes behind this record. */
static uint64_t raw_bytes(enum image_kind kind, const ProtobufCMessage *message, uint64_t left)
{
	switch (kind) {
	case IMAGE_PIPES_DATA:
	case IMAGE_FIFO_DATA:
		return ((const PipeDataEntry *)message)->bytes;
	case IMAGE_BPFMAP_DATA:
		return (uint64_t)((const BpfmapDataEntry *)message)->keys_bytes +
		       ((const BpfmapDataEntry *)message)->values_bytes;
	case IMAGE_SK_QUEUES:
		return ((const SkPacketEntry *)message)->length;
	case IMAGE_GHOST_FILE:
		if (message->descriptor == &ghost_chunk_entry__descriptor)
			return ((const GhostChunkEntry *)message)->len;
		return ((const GhostFileEntry *)message)->chunks ? 0 : left;
	case IMAGE_HASHES:
		return left;
	case IMAGE_IPCNS_SEM:
		return round_up(((const IpcSemEntry *)message)->nsems * 2ULL, 8);
	case IMAGE_IPCNS_SHM:
		return ((const IpcShmEntry *)message)->in_pagemaps ?
			       0 :
			       round_up(((const IpcShmEntry *)message)->size, 4);
	default:
		return 0;
	}
}

/* Behind a queue: their lengths are only known when they are read. */
static int put_messages(struct printer *printer, struct image *image, uint32_t wanted)
{
	struct queue_message *messages;
	size_t count;
	int result = ipc_read_messages(image, wanted, &messages, &count);

	if (printer->json)
		json_open(printer->json, "messages", '[');
	for (size_t i = 0; !result && i < count; i++) {
		if (printer->json) {
			json_open(printer->json, NULL, '{');
			json_number(printer->json, "mtype", messages[i].type);
			json_number(printer->json, "msize", messages[i].size);
			json_close(printer->json, '}');
		} else {
			fprintf(printer->out, "(a message of type %" PRIu64 ", %u bytes)\n", messages[i].type,
				messages[i].size);
		}
	}
	if (printer->json)
		json_close(printer->json, ']');
	queue_messages_free(messages, count);
	return result;
}

static int put_record(struct printer *printer, struct image *image, enum image_kind kind,
		      ProtobufCMessage *message)
{
	uint64_t follow = raw_bytes(kind, message, image_size(image) - image_position(image));
	int result = 0;

	if (printer->json)
		json_open(printer->json, NULL, '{');
	put_message(printer, message);
	if (kind == IMAGE_IPCNS_MSG)
		result = put_messages(printer, image, ((const IpcMsgEntry *)message)->qnum);
	if (printer->json) {
		if (follow)
			json_number(printer->json, "bytes_behind", follow);
		json_close(printer->json, '}');
	} else {
		if (follow)
			fprintf(printer->out, "(%" PRIu64 " bytes follow)\n", follow);
		fputc('\n', printer->out);
	}
	protobuf_c_message_free_unpacked(message, NULL);
	return result ?: follow ? image_skip_bytes(image, follow) : 0;
}

static int put_records(struct printer *printer, struct image *image, enum image_kind kind)
{
	const struct image_type *type = &image_types[kind];
	ProtobufCMessage *message;
	int result = 1;

	for (unsigned i = 0; result > 0; i++) {
		result = image_read(image, i && type->following ? type->following : type->descriptor,
				    &message);
		if (result > 0)
			result = put_record(printer, image, kind, message) ?: 1;
	}
	return result;
}

/* Of an image that has nothing else. */
static int count_pages(const struct image *image, enum image_kind kind, uint64_t *pages)
{
	struct unpacker *unpacker;
	uint64_t size = image_size(image);

	if (kind == IMAGE_PACKED_PAGES) {
		int result = unpacker_open(&unpacker, image_fd(image), size, image_name(image));

		if (result)
			return result;
		size = unpacker_size(unpacker);
		unpacker_close(unpacker);
	}
	*pages = size / PAGE_SIZE;
	return 0;
}

static int put_image(struct printer *printer, struct image *image, enum image_kind kind)
{
	const char *magic = image_types[kind].name;
	bool is_raw = !image_types[kind].descriptor;
	uint64_t pages = 0;
	int result = is_raw ? count_pages(image, kind, &pages) : 0;

	if (result)
		return result;
	if (!printer->json) {
		fprintf(printer->out, "%s: %s\n", image_name(image), magic);
		if (is_raw)
			fprintf(printer->out, "%" PRIu64 " pages\n\n", pages);
		return is_raw ? 0 : put_records(printer, image, kind);
	}
	json_open(printer->json, NULL, '{');
	json_string(printer->json, "magic", magic);
	if (is_raw)
		json_number(printer->json, "pages", pages);
	json_open(printer->json, "entries", '[');
	if (!is_raw)
		result = put_records(printer, image, kind);
	json_close(printer->json, ']');
	json_close(printer->json, '}');
	fputc('\n', printer->out);
	return result;
}

/* The two statistics files have names, but numbers as ids (image.h). */
static bool find_image_kind(const char *name, enum image_kind *kind, unsigned long *id)
{
	char expected[IMAGE_NAME_SIZE];

	for (*kind = 0; *kind < IMAGE_KINDS; ++*kind) {
		if (image_name_is(name, *kind, id))
			return true;
		for (*id = 0; *kind == IMAGE_STATS && *id < 2; ++*id)
			if (!strcmp(name, image_file_name(expected, *kind, *id)))
				return true;
	}
	return false;
}

int show_image(FILE *out, const char *path, bool as_json)
{
	struct json json = { .out = out, .is_first = true };
	struct printer printer = { .out = out, .json = as_json ? &json : NULL };
	autofree char *for_directory = copy_text(path), *for_name = copy_text(path);
	const char *name = basename(for_name);
	struct image_store *store;
	struct image *image;
	enum image_kind kind;
	unsigned long id;
	int result;

	if (!find_image_kind(name, &kind, &id))
		return fail(0, "%s is not the name of an image that can be shown", name);
	result = image_store_open_directory(&store, dirname(for_directory), false);
	if (result)
		return result;
	result = image_open(store, &image, kind, id);
	if (result == -ENOENT)
		fail(ENOENT, "cannot open %s", path);
	if (!result)
		result = put_image(&printer, image, kind);
	image_close_read(image);
	image_store_close(store);
	return result;
}
