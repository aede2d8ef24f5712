/*
 * io.c - reads and writes that transfer everything, and small files read in one go. Records no failure: see io.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "base/io.h"
#include "base/memory.h"

int read_all(int fd, void *buffer, size_t size)
{
	for (char *at = buffer; size;) {
		ssize_t got = read(fd, at, size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -ENODATA;
		at += got;
		size -= got;
	}
	return 0;
}

int read_all_at(int fd, void *buffer, size_t size, off_t offset)
{
	for (char *at = buffer; size;) {
		ssize_t got = pread(fd, at, size, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -ENODATA;
		at += got;
		offset += got;
		size -= got;
	}
	return 0;
}

int write_all(int fd, const void *buffer, size_t size)
{
	for (const char *at = buffer; size;) {
		ssize_t put = write(fd, at, size);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		at += put;
		size -= put;
	}
	return 0;
}

int write_all_at(int fd, const void *buffer, size_t size, off_t offset)
{
	for (const char *at = buffer; size;) {
		ssize_t put = pwrite(fd, at, size, offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		at += put;
		offset += put;
		size -= put;
	}
	return 0;
}

/* Leaves out the first `size` bytes. */
static void skip(struct iovec **vectors, int *count, size_t size)
{
	for (; *count && size >= (*vectors)->iov_len; ++*vectors, --*count)
		size -= (*vectors)->iov_len;
	if (*count) {
		(*vectors)->iov_base = (char *)(*vectors)->iov_base + size;
		(*vectors)->iov_len -= size;
	}
}

int read_vectors_at(int fd, struct iovec *vectors, int count, off_t offset)
{
	while (count) {
		ssize_t got = preadv(fd, vectors, count, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -ENODATA;
		offset += got;
		skip(&vectors, &count, got);
	}
	return 0;
}

int write_vectors_at(int fd, struct iovec *vectors, int count, off_t offset)
{
	while (count) {
		ssize_t put = pwritev(fd, vectors, count, offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		offset += put;
		skip(&vectors, &count, put);
	}
	return 0;
}

/*
 * Most texts are short, and some are kept for long, so each gets exactly the memory it needs. `is_record`: a read that
 * does not fill the buffer was the last one. That is true for a seq_file of the kernel with one record (single_open()),
 * which never returns part of it.
 */
static ssize_t read_whole_text(int fd, char **text, bool is_record)
{
	char first[4096];
	size_t length = 0, capacity = sizeof(first);
	autofree char *buffer = NULL;

	for (;;) {
		char *so_far = buffer ?: first;
		ssize_t got = read(fd, so_far + length, capacity - 1 - length);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		length += got;
		if (got == 0 || (is_record && length < capacity - 1))
			break;
		if (capacity - 1 - length >= capacity / 4)
			continue;
		capacity *= 2;
		buffer = reallocate_array(buffer, capacity, 1);
		if (so_far == first)
			memcpy(buffer, first, length);
	}
	if (!buffer)
		buffer = copy_bytes(first, length + 1);
	buffer[length] = '\0';
	*text = steal_pointer(&buffer);
	return length;
}

ssize_t read_text_from(int fd, char **text)
{
	return read_whole_text(fd, text, false);
}

ssize_t read_record_from(int fd, char **text)
{
	return read_whole_text(fd, text, true);
}

ssize_t read_record_at(int directory, const char *path, char **text)
{
	autoclose int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : read_record_from(fd, text);
}

ssize_t read_text_at(int directory, const char *path, char **text)
{
	autoclose int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : read_text_from(fd, text);
}

int write_text_at(int directory, const char *path, const char *text)
{
	autoclose int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write_all(fd, text, strlen(text));
}

ssize_t read_link_at(int directory, const char *path, char **target)
{
	/* Links in /proc have st_size 0 or 64, whatever their length, so the size is found by trying. */
	char first[1024];
	ssize_t length = readlinkat(directory, path, first, sizeof(first));

	if (length >= 0 && (size_t)length < sizeof(first)) {
		*target = copy_bytes(first, length + 1);
		(*target)[length] = '\0';
		return length;
	}
	for (size_t capacity = 2 * sizeof(first); length >= 0; capacity *= 2) {
		autofree char *buffer = allocate(capacity);

		length = readlinkat(directory, path, buffer, capacity);
		if (length >= 0 && (size_t)length < capacity) {
			buffer[length] = '\0';
			*target = steal_pointer(&buffer);
			return length;
		}
	}
	return -errno;
}
