/*
 * scan.c - finds a task's own pages: with the ioctl PAGEMAP_SCAN of /proc/PID/pagemap (Linux 6.7), which walks page tables
 * and returns ranges; on older kernels by reading pagemap, eight bytes a page.
 *
 * Measured on 2 GiB of present pages, Linux 6.18: 1.6 ms with the ioctl, 27 ms by reading.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "memory/scan.h"

/* <linux/fs.h> of Linux 6.7 and later, which Debian 12 does not have */
struct scan_request {
	uint64_t size, flags, start, end, walk_end, ranges, range_count, max_pages;
	uint64_t inverted, all_of, any_of, returned;
};

struct scan_range {
	uint64_t start, end, categories;
};

#define PAGEMAP_SCAN	 _IOWR('f', 16, struct scan_request)
#define CATEGORY_FILE	 (1 << 2)
#define CATEGORY_PRESENT (1 << 3)
#define CATEGORY_SWAPPED (1 << 4)
#define CATEGORY_ZERO	 (1 << 5) /* the kernel's one page of zeros */
#define CATEGORY_GUARD	 (1 << 8) /* Linux 6.15 */

/* Bits of an entry of pagemap (Documentation/admin-guide/mm/pagemap.rst) */
#define ENTRY_PRESENT (1ULL << 63)
#define ENTRY_SWAPPED (1ULL << 62)
#define ENTRY_FILE    (1ULL << 61)

#define RANGES	256
#define ENTRIES 4096

struct scanner {
	int pagemap;
	bool has_ioctl;	 /* PAGEMAP_SCAN works */
	bool has_guards; /* … and tells guard regions */
	union {
		struct scan_range ranges[RANGES];
		uint64_t entries[ENTRIES];
	};
};

static long scan(struct scanner *scanner, uint64_t start, uint64_t end, uint64_t inverted, uint64_t all_of,
		 uint64_t any_of, uint64_t *walked)
{
	struct scan_request request = {
		.size = sizeof(request),
		.start = start,
		.end = end,
		.ranges = (uintptr_t)scanner->ranges,
		.range_count = RANGES,
		.inverted = inverted,
		.all_of = all_of,
		.any_of = any_of,
		.returned = any_of,
	};
	long found = ioctl(scanner->pagemap, PAGEMAP_SCAN, &request);

	*walked = request.walk_end;
	return found < 0 ? -errno : found;
}

int scanner_open(struct scanner **opened, int proc)
{
	struct scanner *scanner = allocate(sizeof(*scanner));
	uint64_t walked;

	scanner->pagemap = openat(proc, "pagemap", O_RDONLY | O_CLOEXEC);
	if (scanner->pagemap < 0) {
		free(scanner);
		return fail(errno, "cannot open /proc/PID/pagemap");
	}
	/* An unknown category is EINVAL, an unknown ioctl ENOTTY; an empty range costs nothing. */
	scanner->has_ioctl = scan(scanner, 0, 0, 0, 0, CATEGORY_PRESENT, &walked) >= 0;
	scanner->has_guards = scan(scanner, 0, 0, 0, 0, CATEGORY_GUARD, &walked) >= 0;
	*opened = scanner;
	return 0;
}

void scanner_close(struct scanner *scanner)
{
	if (!scanner)
		return;
	close(scanner->pagemap);
	free(scanner);
}

static void add_range(struct page_runs *runs, uint64_t start, uint64_t end)
{
	/* Neighbours are joined: with offsets equal to addresses, what follows in memory follows in the image, too. */
	page_runs_add(runs, &(struct page_run){
				    .start = start, .count = (end - start) / PAGE_SIZE, .offset = start });
}

static int scan_by_ioctl(struct scanner *scanner, uint64_t start, uint64_t end, uint64_t unwanted,
			 uint64_t wanted, struct page_runs *runs)
{
	while (start < end) {
		uint64_t walked;
		long found = scan(scanner, start, end, unwanted, unwanted, wanted, &walked);

		if (found < 0)
			return fail(-found, "cannot scan the page tables from %#llx to %#llx",
				    (unsigned long long)start, (unsigned long long)end);
		for (long i = 0; i < found; i++)
			add_range(runs, scanner->ranges[i].start, scanner->ranges[i].end);
		start = walked;
	}
	return 0;
}

static int scan_by_reading(struct scanner *scanner, uint64_t start, uint64_t end, bool is_file,
			   struct page_runs *runs)
{
	while (start < end) {
		size_t wanted = min((end - start) / PAGE_SIZE, (uint64_t)ENTRIES);
		ssize_t got = pread(scanner->pagemap, scanner->entries, wanted * 8, start / PAGE_SIZE * 8);

		if (got < 8)
			return fail(got < 0 ? errno : EIO, "cannot read /proc/PID/pagemap");
		for (ssize_t i = 0; i < got / 8; i++, start += PAGE_SIZE) {
			uint64_t entry = scanner->entries[i];

			if (entry & (ENTRY_PRESENT | ENTRY_SWAPPED) && !(is_file && entry & ENTRY_FILE))
				add_range(runs, start, start + PAGE_SIZE);
		}
	}
	return 0;
}

int scan_pages(struct scanner *scanner, uint64_t start, uint64_t end, bool is_file, struct page_runs *runs)
{
	/* In a file mapping even a page of zeros is the task's own: without it the file would show. */
	uint64_t unwanted = is_file ? CATEGORY_FILE : CATEGORY_ZERO;

	if (!scanner->has_ioctl)
		return scan_by_reading(scanner, start, end, is_file, runs);
	if (scanner->has_guards)
		unwanted |= CATEGORY_GUARD;
	return scan_by_ioctl(scanner, start, end, unwanted, CATEGORY_PRESENT | CATEGORY_SWAPPED, runs);
}

int scan_guards(struct scanner *scanner, uint64_t start, uint64_t end, struct page_runs *runs)
{
	return scanner->has_guards ? scan_by_ioctl(scanner, start, end, 0, CATEGORY_GUARD, runs) : 0;
}
