/*
 * probe_memory.c - probes about memory: finding, tracking, reading and filling pages. They run in a child; see probe.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "base/io.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "kernel/probe_tests.h"
#include "kernel_constants.h"

/* Newer than the headers of some distributions (linux/fs.h, linux/userfaultfd.h, asm/mman.h). */
struct scan_argument {
	uint64_t size, flags, start, end, walk_end, vector, vector_length, most_pages;
	uint64_t inverted, all_of, any_of, returned;
};
struct scan_region {
	uint64_t start, end, categories;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_argument)
enum { SCAN_WRITTEN = 1 << 1, SCAN_PRESENT = 1 << 3, SCAN_GUARD = 1 << 8 };

static char *map_pages(size_t count)
{
	char *pages = mmap(NULL, count * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			   0);

	return pages == MAP_FAILED ? NULL : pages;
}

/* The kernel maps a vdso only if there is none, so this one is unmapped first. No clock may be read after that. */
static bool unmap_vdso(void)
{
	autofree char *maps = NULL;
	bool found = false;

	if (read_text_at(AT_FDCWD, "/proc/self/maps", &maps) < 0)
		return false;
	for (char *line = maps, *next; line && *line; line = next) {
		struct map_line map;

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (!map_line_parse(line, &map))
			return false;
		if (strcmp(map.name, "[vdso]") && strncmp(map.name, "[vvar", 5))
			continue;
		found = munmap((void *)map.start, map.end - map.start) == 0;
	}
	return found;
}

bool probe_map_vdso(int bits)
{
	/* A range that is certainly free, and below 4 GiB. */
	void *space = mmap((void *)(256UL << 20), 1 << 20, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	return space != MAP_FAILED && munmap(space, 1 << 20) == 0 && unmap_vdso() &&
	       probe_place_vdso(bits, space);
}

bool probe_map_files(int unused_argument unused)
{
	autoclose int file = open("/proc/self/exe", O_RDONLY);
	void *page = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_PRIVATE, file, 0);
	autoclose int again = -1;
	struct stat first, second;
	char path[96];

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)page,
		 (unsigned long)page + PAGE_SIZE);
	again = open(path, O_RDONLY);
	return page != MAP_FAILED && again >= 0 && fstat(file, &first) == 0 && fstat(again, &second) == 0 &&
	       first.st_ino == second.st_ino && first.st_dev == second.st_dev;
}

static uint64_t page_flags(int pagemap, const void *page)
{
	uint64_t flags = 0;

	if (read_all_at(pagemap, &flags, sizeof(flags), (uintptr_t)page / PAGE_SIZE * sizeof(flags)))
		return 0;
	return flags;
}

bool probe_pagemap(int unused_argument unused)
{
	autoclose int pagemap = open("/proc/self/pagemap", O_RDONLY);
	char *pages = map_pages(2);

	if (pagemap < 0 || !pages)
		return false;
	pages[0] = 1;
	return page_flags(pagemap, pages) >> 63 && !(page_flags(pagemap, pages + PAGE_SIZE) >> 63);
}

bool probe_process_vm(int unused_argument unused)
{
	char here[8] = "", there[8] = "a page";
	struct iovec local = { here, sizeof(here) }, remote = { there, sizeof(there) };
	pid_t child = probe_fork(NULL);
	bool works;

	works = child > 0 && process_vm_readv(child, &local, 1, &remote, 1, 0) == sizeof(here) &&
		!strcmp(here, there) && process_vm_writev(child, &local, 1, &remote, 1, 0) == sizeof(here);
	probe_end(child);
	return works;
}

/* Bit 55 of a pagemap entry: written since "4" went into clear_refs. */
bool probe_soft_dirty(int unused_argument unused)
{
	autoclose int pagemap = open("/proc/self/pagemap", O_RDONLY);
	char *page = map_pages(1);
	bool clean;

	if (pagemap < 0 || !page)
		return false;
	*page = 1;
	if (write_text_at(AT_FDCWD, "/proc/self/clear_refs", "4"))
		return false;
	clean = !(page_flags(pagemap, page) >> 55 & 1);
	*(volatile char *)page = 2;
	return clean && page_flags(pagemap, page) >> 55 & 1;
}

/* The number of pages of [pages, pages + count) in a category; -1: cannot be asked. */
static int scan(const char *pages, size_t count, uint64_t category)
{
	autoclose int pagemap = open("/proc/self/pagemap", O_RDONLY);
	struct scan_region regions[8];
	struct scan_argument argument = {
		.size = sizeof(argument),
		.start = (uintptr_t)pages,
		.end = (uintptr_t)pages + count * PAGE_SIZE,
		.vector = (uintptr_t)regions,
		.vector_length = array_size(regions),
		.all_of = category,
		.returned = category,
	};
	int found = ioctl(pagemap, SCAN_IOCTL, &argument), total = 0;

	for (int i = 0; i < found; i++)
		total += (regions[i].end - regions[i].start) / PAGE_SIZE;
	return found < 0 ? -1 : total;
}

bool probe_pagemap_scan(int unused_argument unused)
{
	char *pages = map_pages(4);

	if (!pages)
		return false;
	pages[0] = pages[2 * PAGE_SIZE] = 1;
	return scan(pages, 4, SCAN_PRESENT) == 2;
}

bool probe_guard_pages(int unused_argument unused)
{
	char *pages = map_pages(4);

	return pages && madvise(pages + PAGE_SIZE, PAGE_SIZE, MADV_GUARD_INSTALL) == 0 &&
	       scan(pages, 4, SCAN_GUARD) == 1;
}

/* 0: there is no userfaultfd, or it is not permitted. An unsupported feature in `wanted` is an error. */
static int open_userfaultfd(uint64_t wanted, uint64_t *features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = wanted };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		return -1;
	*features = api.features;
	return fd;
}

bool probe_userfaultfd(int unused_argument unused)
{
	uint64_t features;

	return open_userfaultfd(0, &features) >= 0;
}

bool probe_userfaultfd_events(int unused_argument unused)
{
	uint64_t events = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |
			  UFFD_FEATURE_EVENT_UNMAP;
	uint64_t features;

	return open_userfaultfd(0, &features) >= 0 && (features & events) == events;
}

/* Protects pages so that the kernel only notes writes to them; then writes to one and looks for the note. */
bool probe_written_tracker(int unused_argument unused)
{
	char *pages = map_pages(4);
	struct uffdio_register all = { .range = { (uintptr_t)pages, 4 * PAGE_SIZE },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .range = all.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	uint64_t features;
	int fd = open_userfaultfd(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED, &features);

	if (fd < 0 || !pages)
		return false;
	pages[0] = pages[2 * PAGE_SIZE] = 1;
	if (ioctl(fd, UFFDIO_REGISTER, &all) || ioctl(fd, UFFDIO_WRITEPROTECT, &protect))
		return false;
	if (scan(pages, 4, SCAN_WRITTEN) != 0)
		return false;
	*(volatile char *)(pages + 2 * PAGE_SIZE) = 2;
	return scan(pages, 4, SCAN_WRITTEN) == 1;
}

/* If memory can be read, it can be compared with the images. */
bool probe_any_tracker(int unused_argument unused)
{
	return probe_written_tracker(0) || probe_soft_dirty(0) || probe_process_vm(0);
}

/* The address of a ring is its id, so a moved ring must have its new address as id. */
/* In an ipc namespace of its own, if possible: objects of the host may have the id. */
bool probe_ipc_ids(int unused_argument unused)
{
	struct msgbuf message = { .mtype = 1 };
	int fd, id;

	if (unshare(CLONE_NEWIPC) < 0)
		return access("/proc/sys/kernel/msg_next_id", W_OK) == 0;
	fd = open("/proc/sys/kernel/msg_next_id", O_WRONLY);
	if (fd < 0 || write(fd, "4711", 4) != 4)
		return false;
	id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
	return id == 4711 && msgsnd(id, &message, 0, IPC_NOWAIT) == 0 &&
	       msgrcv(id, &message, 0, 0, MSG_COPY | IPC_NOWAIT) == 0;
}

bool probe_aio_remap(int unused_argument unused)
{
	struct timespec now = {};
	struct io_event event;
	aio_context_t ring = 0;
	char *room = map_pages(16);
	void *moved;
	size_t size = 0;

	if (!room || syscall(SYS_io_setup, 1, &ring))
		return false;
	for (size_t pages = 1; pages <= 16 && !size; pages++) { /* its size depends on the number of CPUs */
		char path[96];

		snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", ring, ring + pages * PAGE_SIZE);
		if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			size = pages * PAGE_SIZE;
	}
	if (!size)
		return false;
	moved = mremap((void *)ring, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	return moved == room && syscall(SYS_io_getevents, (aio_context_t)moved, 0, 1, &event, &now) == 0;
}

bool probe_memfd_hugetlb(int unused_argument unused)
{
	return memfd_create("probe", MFD_HUGETLB) >= 0;
}
