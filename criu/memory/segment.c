/*
 * segment.c - see segment.h. Nobody has the segment attached; but pages may be in swap, so it is read in pieces.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "memory/segment.h"

#define PIECE (256 * PAGE_SIZE)

/*
 * Bytes behind the end of a segment, up to the end of its last page, are only in its mappings. The size of a segment
 * never changes.
 */
static int copy_tail(int fd, uint64_t size, char *bytes, bool is_to_segment)
{
	uint64_t used = size % PAGE_SIZE;
	char *page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, size - used);

	if (page == MAP_FAILED)
		return -errno;
	if (is_to_segment)
		memcpy(page + used, bytes, PAGE_SIZE - used);
	else
		memcpy(bytes, page + used, PAGE_SIZE - used);
	munmap(page, PAGE_SIZE);
	return 0;
}

/* Whole pages. A mapping would create those that do not exist. */
static int read_piece(const struct shared_memory *object, char *bytes, uint64_t start, uint64_t size)
{
	uint64_t there = min(size, object->size - start);
	int result = read_all_at(object->fd, bytes, there, start);

	return result ?: there == size ? 0 : copy_tail(object->fd, object->size, bytes + there, false);
}

/* write() cannot write to hugetlbfs. */
static int write_huge(const struct shared_memory *object, const char *bytes, uint64_t start, uint64_t size)
{
	uint64_t first = start - start % object->page_size;
	char *page = mmap(NULL, object->page_size, PROT_READ | PROT_WRITE, MAP_SHARED, object->fd, first);

	if (page == MAP_FAILED)
		return -errno;
	memcpy(page + (start - first), bytes, size);
	munmap(page, object->page_size);
	return 0;
}

static int write_piece(const struct shared_memory *object, char *bytes, uint64_t start, uint64_t size)
{
	uint64_t there = min(size, object->size - start);
	int result;

	if (object->page_size)
		return write_huge(object, bytes, start, size);
	result = write_all_at(object->fd, bytes, there, start);
	return result ?: there == size ? 0 : copy_tail(object->fd, object->size, bytes + there, true);
}

static uint64_t whole_pages(const struct shared_memory *object)
{
	return round_up(object->size, PAGE_SIZE);
}

/* 1: the pages are those of the images, where a missing page is zero. Huge pages are always written again. */
static int is_equal(const struct shared_memory *object, const struct page_stack *stack)
{
	autofree char *here = allocate(PIECE), *wanted = allocate(PIECE);
	int result = !object->page_size;

	for (uint64_t start = 0, take; result > 0 && start < whole_pages(object); start += take) {
		take = min((uint64_t)PIECE, whole_pages(object) - start);
		result = interrupt_check() ?: page_stack_read_range(stack, start, take / PAGE_SIZE, wanted);
		if (result)
			return result;
		result = read_piece(object, here, start, take);
		if (result)
			return fail(-result, "cannot read shared memory segment %llu",
				    (unsigned long long)object->id);
		result = !memcmp(here, wanted, take);
	}
	return result;
}

static bool is_zero(const char *bytes, size_t size)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, size - 1);
}

/* Between the segment and object->before, without what is zero. */
static int copy_pages(const struct shared_memory *object, bool is_to_segment)
{
	autofree char *buffer = allocate(PIECE);
	int result = 0;

	for (uint64_t start = 0, take; !result && start < whole_pages(object); start += take) {
		take = min((uint64_t)PIECE, whole_pages(object) - start);
		result = is_to_segment ? read_all_at(object->before, buffer, take, start) :
					 read_piece(object, buffer, start, take);
		if (result || is_zero(buffer, take))
			continue;
		result = is_to_segment ? write_piece(object, buffer, start, take) :
					 write_all_at(object->before, buffer, take, start);
	}
	return result;
}

static int empty(const struct shared_memory *object)
{
	uint64_t size = round_up(object->size, object->page_size ?: PAGE_SIZE);

	return fallocate(object->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) < 0 ? -errno : 0;
}

int segment_empty_kept(struct shared_memory *object, const struct page_stack *stack)
{
	int result = is_equal(object, stack);

	if (result)
		return result;
	object->before = memfd_create("criu-segment", MFD_CLOEXEC);
	if (object->before < 0 || ftruncate(object->before, whole_pages(object)) < 0)
		return fail(errno, "cannot keep what shared memory segment %llu holds",
			    (unsigned long long)object->id);
	result = copy_pages(object, false) ?: empty(object);
	return result ? fail(-result, "cannot empty shared memory segment %llu",
			     (unsigned long long)object->id) :
			0;
}

void segment_put_back(const struct shared_memory *object)
{
	int result;

	if (object->before < 0 || object->fd < 0)
		return;
	result = empty(object) ?: copy_pages(object, true);
	if (result)
		log_warning("shared memory segment %llu has lost what it held: %s",
			    (unsigned long long)object->id, strerror(-result));
}
