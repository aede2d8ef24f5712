/*
 * direct.c - see direct.h. The pieces are requests of an AIO context (io_submit(2)), so no thread is needed.
 *
 * Room for the file is allocated ahead of them: a request that makes a file longer is not made in the background, but
 * io_submit() waits for it (ext4, Linux 6.18).
 *
 * Only a file system that tells its alignment (statx(2), STATX_DIOALIGN: Linux 6.1) is written to like this. Others
 * accept O_DIRECT, too, and then copy everything into the page cache all the same (tmpfs).
 */
#include "memory/direct.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/stat.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel_constants.h"
#include "syscalls.h"

#define ALLOCATED_AT_ONCE (64UL << 20)
#define MOST_EVENTS	  16

struct slot {
	struct iocb request;
	bool is_busy;
	int error; /* of the last piece */
};

struct direct {
	int fd;
	unsigned long context;
	uint64_t allocated; /* bytes of the file */
	bool allocates;
	unsigned count;
	struct slot *slots;
};

static const char *why_not(int fd)
{
	struct statx facts = { 0 };

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &facts) < 0 || !(facts.stx_mask & STATX_DIOALIGN))
		return "its file system does not tell whether it can";
	if (!facts.stx_dio_offset_align || facts.stx_dio_offset_align > PAGE_SIZE ||
	    facts.stx_dio_mem_align > PAGE_SIZE)
		return "its file system cannot, or wants larger pieces";
	return NULL;
}

static int reopen(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
}

struct direct *direct_open(int fd, unsigned slots)
{
	const char *reason = why_not(fd);
	struct direct *direct;
	unsigned long context = 0;
	int reopened = -1;

	if (!reason && sys_io_setup(slots, &context) < 0)
		reason = "the kernel gives no AIO context";
	if (!reason && (reopened = reopen(fd)) < 0) {
		reason = strerror(errno);
		sys_io_destroy(context);
	}
	if (reason) {
		log_debug("pages go through the page cache: %s", reason);
		return NULL;
	}
	direct = allocate(sizeof(*direct));
	*direct = (struct direct){ .fd = reopened, .context = context, .allocates = true, .count = slots };
	direct->slots = allocate_array(slots, sizeof(*direct->slots));
	log_debug("pages go past the page cache");
	return direct;
}

/* A failure shows when the piece is written. */
static void make_room(struct direct *direct, uint64_t end)
{
	while (direct->allocates && direct->allocated < end) {
		direct->allocates = !fallocate(direct->fd, 0, direct->allocated, ALLOCATED_AT_ONCE);
		direct->allocated += ALLOCATED_AT_ONCE;
	}
}

int direct_begin(struct direct *direct, unsigned slot, const void *bytes, size_t size, uint64_t offset)
{
	struct slot *taken = &direct->slots[slot];
	struct iocb *request = &taken->request;
	long result;

	make_room(direct, offset + size);
	*request = (struct iocb){
		.aio_data = slot,
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = (uint32_t)direct->fd,
		.aio_buf = (uintptr_t)bytes,
		.aio_nbytes = size,
		.aio_offset = (int64_t)offset,
	};
	taken->error = 0;
	do
		result = sys_io_submit(direct->context, 1, &request);
	while (result == -EINTR);
	taken->is_busy = result == 1;
	return taken->is_busy ? 0 : result ? (int)result : -EIO;
}

/* The rest of a piece of which only a part was written. */
static int write_rest(const struct direct *direct, const struct iocb *request, uint64_t done)
{
	return write_all_at(direct->fd, (const char *)(uintptr_t)request->aio_buf + done,
			    request->aio_nbytes - done, request->aio_offset + (int64_t)done);
}

/* Waits for at least one piece. */
static int reap(struct direct *direct)
{
	struct io_event events[MOST_EVENTS];
	long count = sys_io_getevents(direct->context, 1, MOST_EVENTS, events, NULL);

	for (long i = 0; i < count; i++) {
		struct slot *slot = &direct->slots[events[i].data];

		slot->is_busy = false;
		if (events[i].res < 0)
			slot->error = (int)-events[i].res;
		else if ((uint64_t)events[i].res < slot->request.aio_nbytes)
			slot->error = -write_rest(direct, &slot->request, (uint64_t)events[i].res);
	}
	return count < 0 && count != -EINTR ? (int)count : 0;
}

int direct_await(struct direct *direct, unsigned slot)
{
	int result = 0;

	while (!result && direct->slots[slot].is_busy)
		result = reap(direct);
	return result ?: -direct->slots[slot].error;
}

int direct_close(struct direct *direct, uint64_t size)
{
	int result = 0;

	for (unsigned i = 0; i < direct->count; i++)
		result = direct_await(direct, i) ?: result;
	if (!result && direct->allocated > size && ftruncate(direct->fd, (off_t)size) < 0)
		result = -errno;
	sys_io_destroy(direct->context);
	close(direct->fd);
	free(direct->slots);
	free(direct);
	return result;
}
