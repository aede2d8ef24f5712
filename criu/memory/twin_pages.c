/*
 * twin_pages.c - see twin_pages.h; blobs/parasite/twin.c is the other side.
 */
#include "memory/twin_pages.h"
#include <errno.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/memory.h"
#include "twin_room.h"

#define TRIAL_BYTES (8UL << 20)
#define LOOK_NS	    100000000 /* how often criu looks whether the twin still lives, while it waits */

int twin_pages_open(struct twin_pages *pages, size_t buffers)
{
	*pages = (struct twin_pages){ .pidfd = -1, .size = TWIN_ROOM_BUFFERS + buffers };
	pages->room = memfd_create("criu-twin", MFD_CLOEXEC);
	if (pages->room < 0 || ftruncate(pages->room, (off_t)pages->size) < 0)
		return fail(errno, "cannot create memory to share with a copy of a process");
	pages->base = mmap(NULL, pages->size, PROT_READ | PROT_WRITE, MAP_SHARED, pages->room, 0);
	if (pages->base != MAP_FAILED)
		return 0;
	pages->base = NULL;
	return fail(errno, "no memory to share with a copy of a process");
}

char *twin_pages_buffers(const struct twin_pages *pages, size_t *size)
{
	*size = pages->size - TWIN_ROOM_BUFFERS;
	return pages->base + TWIN_ROOM_BUFFERS;
}

int twin_pages_begin(struct twin_pages *pages, pid_t twin)
{
	pages->pidfd = (int)syscall(SYS_pidfd_open, twin, 0);
	return pages->pidfd < 0 ? fail(errno, "cannot watch process %d", twin) : 0;
}

bool twin_pages_is_dead(const struct twin_pages *pages)
{
	return pages->pidfd >= 0 && pidfd_has_ended(pages->pidfd);
}

static bool await(const struct twin_pages *pages, uint32_t order)
{
	struct twin_room *room = (struct twin_room *)pages->base;
	const struct timespec moment = { .tv_nsec = LOOK_NS };
	uint32_t done;

	while ((done = __atomic_load_n(&room->done, __ATOMIC_ACQUIRE)) != order)
		if (syscall(SYS_futex, &room->done, FUTEX_WAIT, done, &moment, NULL, 0) < 0 &&
		    errno == ETIMEDOUT && twin_pages_is_dead(pages))
			return false;
	return true;
}

bool twin_pages_is_faster(const struct twin_pages *pages)
{
	const struct throughput *twin = &pages->by_twin, *file = &pages->by_file;

	if (twin->bytes < TRIAL_BYTES || file->bytes < TRIAL_BYTES)
		return twin->bytes < TRIAL_BYTES;
	return (double)twin->time / twin->bytes <= (double)file->time / file->bytes;
}

bool twin_pages_copy(struct twin_pages *pages, const struct page_run *runs, size_t count, char *buffer)
{
	struct twin_room *room = (struct twin_room *)pages->base;
	uint32_t order = room->ordered + 1;

	if (pages->pidfd < 0 || buffer < pages->base || buffer >= pages->base + pages->size ||
	    count > TWIN_ROOM_RUNS)
		return false;
	room->to = (uint64_t)(buffer - pages->base);
	room->count = (uint32_t)count;
	for (size_t i = 0; i < count; i++) {
		room->runs[i].start = runs[i].start;
		room->runs[i].size = runs[i].count * PAGE_SIZE;
	}
	__atomic_store_n(&room->ordered, order, __ATOMIC_RELEASE);
	syscall(SYS_futex, &room->ordered, FUTEX_WAKE, 1, NULL, NULL, 0);
	return await(pages, order);
}

void twin_pages_close(struct twin_pages *pages)
{
	if (pages->base)
		munmap(pages->base, pages->size);
	if (pages->room >= 0)
		close(pages->room);
	if (pages->pidfd >= 0)
		close(pages->pidfd);
	*pages = (struct twin_pages){ .room = -1, .pidfd = -1 };
}
