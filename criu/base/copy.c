/*
 * copy.c - copies ranges of files. FICLONERANGE (btrfs, xfs) shares the blocks; copy_file_range() lets the file system
 * copy them; where neither works (across file systems) they are read and written. See copy.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/copy.h"
#include "base/io.h"
#include "base/memory.h"

#define BUFFER_SIZE (1UL << 20)

int copier_size(int fd, uint64_t size)
{
	return ftruncate(fd, size) < 0 ? -errno : 0;
}

/* The errors that mean "this file system cannot do it", as opposed to a real failure. */
static bool is_not_possible(int error)
{
	return error == EOPNOTSUPP || error == ENOTTY || error == EXDEV || error == EINVAL ||
	       error == ENOSYS || error == EPERM || error == ETXTBSY;
}

static int read_and_write(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t size)
{
	autofree char *buffer = allocate(min(size, (uint64_t)BUFFER_SIZE));
	int result = 0;

	for (uint64_t done = 0, take; !result && done < size; done += take) {
		take = min(size - done, (uint64_t)BUFFER_SIZE);
		result = read_all_at(from, buffer, take, from_offset + done) ?:
				 write_all_at(to, buffer, take, to_offset + done);
	}
	return result;
}

/* False: the bytes have to be copied. */
static bool share(struct copier *copier, int from, uint64_t from_offset, int to, uint64_t to_offset,
		  uint64_t size)
{
	struct file_clone_range range = { from, from_offset, size, to_offset };

	if (copier->cannot_share || ioctl(to, FICLONERANGE, &range) < 0) {
		/* EINVAL: these offsets are not aligned to the blocks of the file system. Others may be. */
		copier->cannot_share |= errno != EINVAL;
		return false;
	}
	copier->shared += size;
	return true;
}

/* Data without holes. */
static int copy_data(struct copier *copier, int from, uint64_t from_offset, int to, uint64_t to_offset,
		     uint64_t size)
{
	if (share(copier, from, from_offset, to, to_offset, size))
		return 0;
	copier->copied += size;
	while (size && !copier->cannot_delegate) {
		off_t in = from_offset, out = to_offset;
		ssize_t got = copy_file_range(from, &in, to, &out, size, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && !is_not_possible(errno))
			return -errno;
		if (got <= 0) {
			copier->cannot_delegate = got < 0;
			break;
		}
		from_offset += got;
		to_offset += got;
		size -= got;
	}
	return size ? read_and_write(from, from_offset, to, to_offset, size) : 0;
}

int copier_copy(struct copier *copier, int from, uint64_t from_offset, int to, uint64_t to_offset,
		uint64_t size)
{
	uint64_t at = from_offset, end = from_offset + size;
	int result = 0;

	while (!result && at < end) {
		off_t data = lseek(from, at, SEEK_DATA), hole;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		if ((uint64_t)data >= end)
			return 0;
		hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		at = min((uint64_t)hole, end);
		result = copy_data(copier, from, data, to, to_offset + (data - from_offset), at - data);
	}
	return result;
}
