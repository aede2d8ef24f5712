/*
 * steer.c - maps a file at an address although its driver lets nobody choose one.
 *
 * Since Linux 6.5, mmap() of an io_uring with any address fails with EINVAL, and so does mremap(). The kernel takes the
 * highest free range below the libraries that is large enough, or else one above. So meanwhile all free ranges that
 * are large enough are reserved, except for the wanted one:
 *
 *	free     ......[heap].......[   wanted   ].......[lib]....[stack]
 *	reserved rrrrrr[heap]rrrrrrr              rrrrrrr[lib]rr..[stack]
 *
 * A reservation has no access, so it is not counted as memory, and costs no page tables. The stack may have to grow
 * meanwhile: the guard gap below it stays free, in which the kernel maps nothing either.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "arch.h"
#include "base/error.h"
#include "base/memory.h"
#include "kernel/proc.h"
#include "restore/space.h"

#define GUARD_GAP \
	(1UL << 20) /* below a stack: 256 pages, unless the kernel was booted with stack_guard_gap= */
#define ATTEMPTS 64 /* ranges that became free while they were listed */

struct reservation {
	uint64_t start, end;
};

struct reservations {
	struct reservation *items;
	size_t count;
};

static void reserve(struct reservations *reserved, uint64_t start, uint64_t end, uint64_t length)
{
	void *made;

	if (start >= end || end - start < length)
		return;
	made = mmap(at(start), end - start, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (made == at(start))
		reserved->items[reserved->count++] = (struct reservation){ start, end };
}

/*
 * The free range up to `end`, without the wanted one. What is left beside that is reserved even if it is shorter: the
 * kernel could choose a range that is partly there.
 */
static void reserve_around(struct reservations *reserved, const struct vma *wanted, uint64_t start,
			   uint64_t end)
{
	if (wanted->start >= start && wanted->end <= end) {
		reserve(reserved, start, wanted->start, PAGE_SIZE);
		reserve(reserved, wanted->end, end, PAGE_SIZE);
	} else {
		reserve(reserved, start, end, vma_length(wanted));
	}
}

/* The lowest address that may be mapped is not known, so the first range begins where the first attempt succeeds. */
static uint64_t lowest_address(void)
{
	for (uint64_t address = PAGE_SIZE; address < 1 << 24; address *= 2) {
		void *made = mmap(at(address), PAGE_SIZE, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (made != MAP_FAILED)
			munmap(made, PAGE_SIZE);
		if (made != MAP_FAILED || errno == EEXIST)
			return address;
	}
	return 0;
}

/* `own` are all mappings at the moment. Nothing may be allocated from here on. */
static void reserve_all(struct reservations *reserved, const struct vma *wanted, const struct vmas *own)
{
	uint64_t from = lowest_address();

	for (size_t i = 0; i < own->count && own->items[i].start < arch_task_size(); i++) {
		const struct vma *vma = &own->items[i];
		bool is_stack = vma->path && !strcmp(vma->path, "[stack]");
		uint64_t gap = is_stack ? min(GUARD_GAP, vma->start - from) : 0;

		reserve_around(reserved, wanted, from, vma->start - gap);
		from = vma->end;
	}
	reserve_around(reserved, wanted, from, arch_task_size());
}

static int map_wanted(struct reservations *reserved, const struct vma *wanted, int protection, int fd)
{
	uint64_t length = vma_length(wanted);

	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		void *made = mmap(NULL, length, protection, MAP_SHARED, fd, wanted->offset);

		if (made == MAP_FAILED)
			return -errno;
		if (made == at(wanted->start))
			return 0;
		reserved->items[reserved->count++] = (struct reservation){ (uintptr_t)made,
									   (uintptr_t)made + length };
	}
	return -EEXIST;
}

int space_steer(const struct vma *vma, int protection, int fd)
{
	autoclose int self = proc_open(getpid());
	struct reservations reserved = { 0 };
	struct vmas own = { 0 };
	int result;

	if (mmap(at(vma->start), vma_length(vma), protection, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
		 vma->offset) == at(vma->start))
		return 0; /* an older kernel */
	result = self < 0 ? fail(-self, "cannot open /proc/self") : proc_read_maps(self, &own);
	if (!result) {
		reserved.items = allocate_array(2 * own.count + 4 + ATTEMPTS, sizeof(*reserved.items));
		reserve_all(&reserved, vma, &own);
		result = map_wanted(&reserved, vma, protection, fd);
		for (size_t i = 0; i < reserved.count; i++)
			munmap(at(reserved.items[i].start), reserved.items[i].end - reserved.items[i].start);
		if (result)
			fail(-result,
			     "cannot map an io_uring at %#llx: perhaps criu itself is there, and another attempt helps",
			     (unsigned long long)vma->start);
	}
	free(reserved.items);
	vmas_free(&own);
	return result;
}
