/*
 * io_uring_content.c - the memory of a ring: criu reads it, and fills that of a new one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kinds/io_uring.h"
#include "image/message.h"

struct uring io_uring_like(const IoUringFileEntry *entry)
{
	struct uring uring = { .fd = -1,
			       .setup = entry->setup,
			       .sq_entries = entry->sq_entries,
			       .cq_entries = entry->cq_entries };

	memcpy(uring.layout, entry->layout, sizeof(uring.layout));
	uring_set_sizes(&uring);
	return uring;
}

static void keep_content(ProtobufCBinaryData *content, const char *bytes, size_t size)
{
	while (size && !bytes[size - 1])
		size--;
	free(content->data);
	content->len = size;
	content->data = copy_bytes(bytes, size);
}

int io_uring_read_content(IoUringFileEntry *entry, int fd)
{
	struct uring uring = io_uring_like(entry);
	int result = uring_map(&uring, fd);

	if (!result && (*uring_word(&uring, SQ_ENTRIES_AT) != entry->sq_entries ||
			*uring_word(&uring, CQ_ENTRIES_AT) != entry->cq_entries ||
			*uring_word(&uring, CQ_TAIL_AT) != entry->cq_tail))
		result = fail(EINVAL, "it does not have the layout of those that this kernel creates now");
	if (!result) {
		keep_content(&entry->rings, uring.rings, uring.rings_size);
		keep_content(&entry->sqes, uring.sqes, uring.sqes_size);
	}
	uring_unmap(&uring);
	return result;
}

/*
 * A thread of the kernel may look at the ring meanwhile. It takes what is published, so that comes last. If it sleeps,
 * or is about to, it must be woken for the next request; if it does not, to wake it does no harm.
 */
static void write_content(const IoUringFileEntry *entry, struct uring *uring)
{
	autofree char *rings = allocate(uring->rings_size);
	uint32_t tail_at = uring->layout[SQ_TAIL_AT], behind = tail_at + sizeof(uint32_t), tail;

	if (entry->rings.len) /* nothing has no address */
		memcpy(rings, entry->rings.data, entry->rings.len);
	memcpy(&tail, rings + tail_at, sizeof(tail));
	memcpy(uring->rings, rings, tail_at);
	memcpy(uring->rings + behind, rings + behind, uring->rings_size - behind);
	memset(uring->sqes, 0, uring->sqes_size);
	if (entry->sqes.len)
		memcpy(uring->sqes, entry->sqes.data, entry->sqes.len);
	if (entry->setup & IORING_SETUP_SQPOLL)
		__atomic_fetch_or(uring_word(uring, SQ_FLAGS_AT), IORING_SQ_NEED_WAKEUP, __ATOMIC_SEQ_CST);
	__atomic_store_n(uring_word(uring, SQ_TAIL_AT), tail, __ATOMIC_SEQ_CST);
}

int io_uring_advance(const struct file *file)
{
	const IoUringFileEntry *entry = file->entry->uring;
	struct uring uring = io_uring_like(entry);
	int result;

	uring.fd = file->fd;
	result = uring_map(&uring, file->fd) ?:
			 uring_advance(&uring, entry->sq_head - (uint32_t)entry->n_requests, entry->cq_tail);
	uring_unmap(&uring);
	return result;
}

int io_uring_fill(const struct file *file)
{
	struct uring uring = io_uring_like(file->entry->uring);
	int result = uring_map(&uring, file->fd);

	if (!result)
		write_content(file->entry->uring, &uring);
	uring_unmap(&uring);
	return result;
}

int io_uring_enable(const struct file *file)
{
	if (syscall(SYS_io_uring_register, file->fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		return fail(errno, "cannot enable it");
	return 0;
}
