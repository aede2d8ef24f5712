/*
 * option_reader.c - see option_reader.h.
 *
 * The kernel completes such a request while it is submitted, so one call submits many and finds all of them complete.
 */
#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/memory.h"
#include "kernel/option_reader.h"
#include "kernel_constants.h"

#define ENTRIES 1024

struct option_reader {
	int fd;
	char *rings; /* both */
	size_t rings_size;
	struct io_uring_sqe *requests;
	struct io_uring_params facts;
};

static uint32_t *position(const struct option_reader *reader, uint32_t offset)
{
	return (uint32_t *)(reader->rings + offset);
}

static int map_rings(struct option_reader *reader)
{
	const struct io_uring_params *facts = &reader->facts;
	const int access = PROT_READ | PROT_WRITE;
	uint32_t *numbers;

	if (!(facts->features & IORING_FEAT_SINGLE_MMAP))
		return -EOPNOTSUPP;
	reader->rings_size = max(facts->cq_off.cqes + facts->cq_entries * sizeof(struct io_uring_cqe),
				 (unsigned long)facts->sq_off.array + facts->sq_entries * sizeof(uint32_t));
	reader->rings = mmap(NULL, reader->rings_size, access, MAP_SHARED | MAP_POPULATE, reader->fd,
			     IORING_OFF_SQ_RING);
	reader->requests = mmap(NULL, facts->sq_entries * sizeof(struct io_uring_sqe), access,
				MAP_SHARED | MAP_POPULATE, reader->fd, IORING_OFF_SQES);
	if (reader->rings == MAP_FAILED || reader->requests == MAP_FAILED)
		return -ENOMEM;
	numbers = position(reader, facts->sq_off.array);
	for (uint32_t i = 0; i < facts->sq_entries; i++)
		numbers[i] = i;
	return 0;
}

static struct io_uring_sqe make_request(const struct option_query *query, uint64_t number)
{
	/* In linux/io_uring.h since Linux 6.7: cmd_op, level and optname, optlen, optval. */
	return (struct io_uring_sqe){
		.opcode = IORING_OP_URING_CMD,
		.fd = query->fd,
		.off = CRIU_SOCKET_URING_OP_GETSOCKOPT,
		.addr = SOL_SOCKET | (uint64_t)query->option << 32,
		.file_index = query->size,
		.addr3 = (uintptr_t)query->value,
		.user_data = number,
	};
}

/* At most as many as the ring has entries. */
static int read_some(struct option_reader *reader, struct option_query *queries, uint32_t count)
{
	const struct io_uring_params *facts = &reader->facts;
	uint32_t *tail = position(reader, facts->sq_off.tail), *head = position(reader, facts->cq_off.head);
	const uint32_t *end = position(reader, facts->cq_off.tail);
	const struct io_uring_cqe *results = (const void *)(reader->rings + facts->cq_off.cqes);
	uint32_t first = *tail, done = *head;
	long submitted;

	for (uint32_t i = 0; i < count; i++)
		reader->requests[(first + i) % facts->sq_entries] = make_request(&queries[i], i);
	__atomic_store_n(tail, first + count, __ATOMIC_RELEASE);
	submitted = syscall(SYS_io_uring_enter, reader->fd, count, count, IORING_ENTER_GETEVENTS, NULL, 0);
	if (submitted != (long)count)
		return submitted < 0 ? -errno : -EIO;
	if (__atomic_load_n(end, __ATOMIC_ACQUIRE) - done != count)
		return -EIO;
	for (uint32_t i = 0; i < count; i++) {
		const struct io_uring_cqe *result = &results[(done + i) % facts->cq_entries];

		queries[result->user_data].result = result->res;
	}
	__atomic_store_n(head, done + count, __ATOMIC_RELEASE);
	return 0;
}

int option_reader_read(struct option_reader *reader, struct option_query *queries, uint32_t count)
{
	int result = 0;

	for (uint32_t at = 0, some; !result && at < count; at += some) {
		some = min(count - at, reader->facts.sq_entries);
		result = read_some(reader, queries + at, some);
	}
	return result;
}

/* Is an option of a socket what getsockopt(2) says? */
static int test(struct option_reader *reader)
{
	autoclose int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int type = 0, size = 0, expected;
	socklen_t length = sizeof(expected);
	struct option_query queries[] = { { fd, SO_TYPE, &type, sizeof(type), 0 },
					  { fd, SO_SNDBUF, &size, sizeof(size), 0 } };
	int result;

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &expected, &length) < 0)
		return -errno;
	result = option_reader_read(reader, queries, array_size(queries));
	if (result)
		return result;
	return queries[0].result == sizeof(type) && queries[1].result == sizeof(size) &&
			       type == SOCK_SEQPACKET && size == expected ?
		       0 :
		       -EOPNOTSUPP;
}

int option_reader_open(struct option_reader **reader)
{
	struct option_reader *made = *reader = allocate(sizeof(*made));
	int result;

	made->facts.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
	made->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &made->facts);
	result = made->fd < 0 ? -errno : map_rings(made) ?: test(made);
	if (result) {
		option_reader_close(made);
		*reader = NULL;
	}
	return result;
}

void option_reader_close(struct option_reader *reader)
{
	if (!reader)
		return;
	if (reader->rings && reader->rings != MAP_FAILED)
		munmap(reader->rings, reader->rings_size);
	if (reader->requests && reader->requests != MAP_FAILED)
		munmap(reader->requests, reader->facts.sq_entries * sizeof(struct io_uring_sqe));
	autoclose_clean(&reader->fd);
	free(reader);
}
