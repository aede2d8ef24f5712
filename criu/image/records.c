/*
 * records.c - one open image: its header, its records and the bytes behind them, through one buffer.
 *
 * A record is a little-endian u32 length and that many bytes of protobuf. A length is used only if that much is left of
 * the file. So a forged length costs no memory, and the buffer grows at most to the largest record. Bulk data does not
 * go through the buffer.
 */
#include <assert.h>
#include <errno.h>
#include <endian.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "image/store.h"
#include "image/wire.h"

#define COMMON_MAGIC  0x54564319u
#define SERVICE_MAGIC 0x55105940u
#define BUFFER_SIZE   (32u << 10)

struct image {
	struct image_store *store;
	const struct image_type *type;
	char name[IMAGE_NAME_SIZE];
	int fd;
	bool is_written;
	size_t created;	       /* writing: its number among the images of the store */
	int error;	       /* -errno: a write failed and was recorded; no more is written */
	unsigned record_count; /* read or written so far */

	/* buffer[start..end) was read and not yet returned, or (start is 0) is not yet written. */
	unsigned char *buffer;
	size_t capacity, start, end;
	uint64_t offset; /* reading: offset of buffer[0] in the file */
	uint64_t size;	 /* reading: size of the file when it was opened */
};

printf_like(2, 3) static int broken(const struct image *image, const char *format, ...)
{
	char reason[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(reason, sizeof(reason), format, arguments);
	va_end(arguments);
	return fail(EINVAL, "%s/%s %s", image->store->name, image->name, reason);
}

/* --- The buffer ----------------------------------------------------------------------------------------- */

static void grow_buffer(struct image *image, size_t size)
{
	if (size <= image->capacity)
		return;
	image->capacity = round_up(size, 4096);
	image->buffer = reallocate_array(image->buffer, image->capacity, 1);
}

static uint64_t left(const struct image *image)
{
	return image->size - image_position(image);
}

/* Reads until the next `size` bytes, which the caller knows to exist, are in the buffer from `start` on. */
static int fill_buffer(struct image *image, size_t size)
{
	if (image->end - image->start >= size)
		return 0;
	if (image->start)
		memmove(image->buffer, image->buffer + image->start, image->end - image->start);
	image->offset += image->start;
	image->end -= image->start;
	image->start = 0;
	grow_buffer(image, max(size, (size_t)min(left(image), (uint64_t)BUFFER_SIZE)));
	while (image->end < size) {
		ssize_t got = pread(image->fd, image->buffer + image->end, image->capacity - image->end,
				    image->offset + image->end);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail(errno, "cannot read %s/%s", image->store->name, image->name);
		if (got == 0)
			return broken(image, "became shorter while it was read");
		image->end += got;
	}
	return 0;
}

static int read_image_word(struct image *image, uint32_t *word)
{
	uint32_t little;
	int result = fill_buffer(image, sizeof(little));

	if (result < 0)
		return result;
	memcpy(&little, image->buffer + image->start, sizeof(little));
	image->start += sizeof(little);
	*word = le32toh(little);
	return 0;
}

/* Only the first failure is recorded: later ones have the same cause. */
static int write_out(struct image *image, const void *bytes, size_t size)
{
	int result = image->error ?: write_all(image->fd, bytes, size);

	if (result < 0 && !image->error)
		image->error = fail(-result, "cannot write %s/%s", image->store->name, image->name);
	return image->error;
}

int image_flush(struct image *image)
{
	int result = write_out(image, image->buffer, image->end);

	image->end = 0;
	return result;
}

void image_abandon(struct image *image, int error)
{
	if (image && !image->error)
		image->error = error;
}

/* Sets *place to where the next `size` bytes to write go. */
static int append_to_buffer(struct image *image, size_t size, unsigned char **place)
{
	int result = 0;

	if (image->end + size > image->capacity)
		result = image_flush(image);
	if (result < 0)
		return result;
	grow_buffer(image, max(size, (size_t)BUFFER_SIZE));
	*place = image->buffer + image->end;
	image->end += size;
	return 0;
}

/* --- Opening and closing -------------------------------------------------------------------------------- */

const char *image_file_name(char name[IMAGE_NAME_SIZE], enum image_kind kind, unsigned long id)
{
	const char *pattern = image_types[kind].pattern;

	if (strstr(pattern, "%s"))
		snprintf(name, IMAGE_NAME_SIZE, pattern, id ? "restore" : "dump");
	else
		snprintf(name, IMAGE_NAME_SIZE, pattern, id);
	return name;
}

static struct image *new_image(struct image_store *store, enum image_kind kind, const char *name, int fd)
{
	struct image *image = allocate(sizeof(*image));

	image->store = store;
	image->type = &image_types[kind];
	image->fd = fd;
	snprintf(image->name, sizeof(image->name), "%s", name);
	return image;
}

static void free_image(struct image *image)
{
	if (image->fd >= 0)
		close(image->fd);
	free(image->buffer);
	free(image);
}

static int check_header(struct image *image)
{
	const struct image_type *type = image->type;
	size_t size = type->header == HEADER_RAW ? 0 : type->header == HEADER_BARE ? 4 : 8;
	uint32_t word;
	int result;

	if (size == 0)
		return 0;
	if (image->size < size)
		return broken(image, "is torn: %lu bytes are less than its header",
			      (unsigned long)image->size);
	result = read_image_word(image, &word);
	if (result == 0 && word == (type->header == HEADER_SERVICE ? SERVICE_MAGIC : COMMON_MAGIC) &&
	    size == 8)
		result = read_image_word(image, &word);
	/* Format 1 has no first word, and neither has inventory.img. Service images always have it. */
	if (result == 0 &&
	    (word != type->magic || (type->header == HEADER_SERVICE && image_position(image) != 8)))
		return broken(image, "is not an image of type %s: it begins with 0x%08x, not 0x%08x",
			      type->name, word, type->magic);
	return result;
}

int image_open(struct image_store *store, struct image **image, enum image_kind kind, unsigned long id)
{
	char name[IMAGE_NAME_SIZE];
	struct stat status;
	int fd = store->ops->open_read(store, image_file_name(name, kind, id));
	int result;

	*image = NULL;
	if (fd == -ENOENT)
		return -ENOENT;
	if (fd == -ELOOP)
		return fail(0, "%s/%s is a symbolic link: criu follows no link to an image", store->name,
			    name);
	if (fd == -ENXIO)
		return fail(0, "%s/%s is not a regular file", store->name, name);
	if (fd < 0)
		return fail(-fd, "cannot open %s/%s", store->name, name);
	*image = new_image(store, kind, name, fd);
	if (fstat(fd, &status) < 0)
		result = fail(errno, "cannot stat %s/%s", store->name, name);
	else {
		(*image)->size = status.st_size;
		result = check_header(*image);
	}
	if (result < 0)
		free_image(steal_pointer(image));
	return result;
}

static int write_header(struct image *image)
{
	static const uint32_t first_word[] = {
		[HEADER_COMMON] = COMMON_MAGIC, [HEADER_SERVICE] = SERVICE_MAGIC
	};
	uint32_t first = htole32(first_word[image->type->header]), magic = htole32(image->type->magic);
	int result = 0;

	if (first)
		result = image_write_bytes(image, &first, sizeof(first));
	if (result == 0 && magic)
		result = image_write_bytes(image, &magic, sizeof(magic));
	return result;
}

int image_create_as(struct image_store *store, struct image **image, enum image_kind kind, const char *name)
{
	int fd = store->ops->open_write(store, name);
	int result;

	*image = NULL;
	if (fd < 0)
		return fail(-fd, "cannot create %s/%s", store->name, name);
	*grow(&store->created, &store->created_count) = (struct created_image){ copy_text(name), false };
	*image = new_image(store, kind, name, fd);
	(*image)->created = store->created_count - 1;
	(*image)->is_written = true;
	result = write_header(*image);
	if (result < 0)
		free_image(steal_pointer(image));
	return result;
}

int image_create(struct image_store *store, struct image **image, enum image_kind kind, unsigned long id)
{
	char name[IMAGE_NAME_SIZE];

	assert(kind != IMAGE_INVENTORY); /* image_store_commit() makes it */
	return image_create_as(store, image, kind, image_file_name(name, kind, id));
}

int image_close(struct image *image)
{
	int result = 0;

	if (!image)
		return 0;
	if (image->is_written) {
		result = image_flush(image);
		store_close_created(image->store, image->created, image->fd, image_size(image));
		image->fd = -1;
	}
	free_image(image);
	return result;
}

void image_close_read(struct image *image)
{
	if (image)
		free_image(image);
}

const char *image_name(const struct image *image)
{
	return image->name;
}

int image_fd(const struct image *image)
{
	return image->fd;
}

uint64_t image_position(const struct image *image)
{
	if (image->is_written)
		return lseek(image->fd, 0, SEEK_CUR) + image->end;
	return image->offset + image->start;
}

uint64_t image_size(const struct image *image)
{
	return image->is_written ? image_position(image) : image->size;
}

/* --- Records -------------------------------------------------------------------------------------------- */

static const ProtobufCMessageDescriptor *next_descriptor(const struct image *image)
{
	return image->record_count && image->type->following ? image->type->following :
							       image->type->descriptor;
}

int image_write(struct image *image, const ProtobufCMessage *message)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	uint32_t length = htole32(size);
	unsigned char *place;
	int result;

	assert(message->descriptor == next_descriptor(image));
	if (size > INT32_MAX) /* protobuf's own limit */
		return fail(EFBIG, "cannot write a record of %zu bytes to %s/%s", size, image->store->name,
			    image->name);
	result = append_to_buffer(image, sizeof(length) + size, &place);
	if (result < 0)
		return result;
	memcpy(place, &length, sizeof(length));
	protobuf_c_message_pack(message, place + sizeof(length));
	image->record_count++;
	return 0;
}

int image_write_bytes(struct image *image, const void *bytes, size_t size)
{
	unsigned char *place;
	int result;

	if (size > BUFFER_SIZE) {
		result = image_flush(image);
		return result ?: write_out(image, bytes, size);
	}
	result = append_to_buffer(image, size, &place);
	if (result == 0)
		memcpy(place, bytes, size);
	return result;
}

/* 1: the next record is in the buffer from `start` on, *size bytes; 0: there is none. */
static int next_record(struct image *image, const ProtobufCMessageDescriptor *descriptor,
		       uint32_t *record_size)
{
	uint64_t at = image_position(image);
	uint32_t size;
	int result;

	assert(descriptor == next_descriptor(image));
	if (left(image) == 0)
		return 0;
	if (left(image) < sizeof(size))
		return broken(image,
			      "is torn: at offset %lu there are %lu bytes, less than the length of a record",
			      (unsigned long)at, (unsigned long)left(image));
	result = read_image_word(image, &size);
	if (result < 0)
		return result;
	if (size > left(image))
		return broken(image, "is torn: the record at offset %lu has %u bytes, but only %lu are left",
			      (unsigned long)at, size, (unsigned long)left(image));
	result = fill_buffer(image, size);
	*record_size = size;
	return result < 0 ? result : 1;
}

static int accept_record(struct image *image, const ProtobufCMessageDescriptor *descriptor, uint32_t size,
			 bool is_valid)
{
	if (!is_valid)
		return broken(image, "is damaged: the record at offset %lu is not a valid %s",
			      (unsigned long)(image_position(image) - sizeof(size)), descriptor->name);
	image->start += size;
	image->record_count++;
	return 1;
}

int image_read(struct image *image, const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **message)
{
	uint32_t size;
	int result = next_record(image, descriptor, &size);
	const unsigned char *bytes = image->buffer + image->start;

	*message = NULL;
	if (result <= 0)
		return result;
	if (wire_is_sane(descriptor, bytes, size))
		*message = protobuf_c_message_unpack(descriptor, NULL, size, bytes);
	return accept_record(image, descriptor, size, *message);
}

int image_read_integers(struct image *image, const ProtobufCMessageDescriptor *descriptor, uint64_t *values,
			unsigned count, unsigned *given)
{
	uint32_t size;
	int result = next_record(image, descriptor, &size);

	if (result <= 0)
		return result;
	return accept_record(image, descriptor, size,
			     wire_take_integers(image->buffer + image->start, size, values, count, given));
}

static int check_left(const struct image *image, uint64_t size)
{
	if (size <= left(image))
		return 0;
	return broken(image, "is torn: at offset %lu there should be %lu bytes, but only %lu are left",
		      (unsigned long)image_position(image), (unsigned long)size, (unsigned long)left(image));
}

int image_read_bytes(struct image *image, void *bytes, size_t size)
{
	int result = check_left(image, size);
	size_t buffered = min(size, image->end - image->start);

	if (result < 0)
		return result;
	if (buffered)
		memcpy(bytes, image->buffer + image->start, buffered);
	image->start += buffered;
	result = read_all_at(image->fd, (char *)bytes + buffered, size - buffered, image_position(image));
	if (result == -ENODATA)
		return broken(image, "became shorter while it was read");
	if (result < 0)
		return fail(-result, "cannot read %s/%s", image->store->name, image->name);
	return image_skip_bytes(image, size - buffered);
}

int image_skip_bytes(struct image *image, uint64_t size)
{
	int result = check_left(image, size);

	if (result < 0)
		return result;
	if (size <= image->end - image->start) {
		image->start += size;
		return 0;
	}
	image->offset = image_position(image) + size;
	image->start = image->end = 0;
	return 0;
}

int image_read_single(struct image_store *store, enum image_kind kind, unsigned long id,
		      ProtobufCMessage **message)
{
	struct image *image;
	int result;

	*message = NULL;
	result = image_open(store, &image, kind, id);
	if (result < 0)
		return result;
	result = image_read(image, image_types[kind].descriptor, message);
	if (result == 0)
		result = broken(image, "is torn: it holds no record");
	else if (result > 0)
		result = left(image) == 0 ? 0 : broken(image, "holds more than its one record");
	if (result < 0 && *message)
		protobuf_c_message_free_unpacked(steal_pointer(message), NULL);
	image_close_read(image);
	return result;
}

int image_write_single(struct image_store *store, enum image_kind kind, unsigned long id,
		       const ProtobufCMessage *message)
{
	struct image *image;
	int result = image_create(store, &image, kind, id);
	int closed;

	if (result < 0)
		return result;
	result = image_write(image, message);
	closed = image_close(image);
	return min(result, closed);
}
