/*
 * huge.c - hugetlb memory: page sizes, pools, finding its pages and restoring them. See huge.h.
 *
 * A file of hugetlbfs can be read with read(), but write() fails (EINVAL). No call finds its holes: lseek(SEEK_DATA)
 * finds data everywhere, mincore() looks only at criu's own page tables, and a hole reads as zeros. So the file is
 * mapped under a userfaultfd for missing pages that is never served (UFFD_USER_MODE_ONLY, Linux 5.11). There,
 * process_vm_readv() on criu itself gets EFAULT exactly where there is no page: 0.4 µs for each huge page.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel_constants.h"
#include "memory/huge.h"
#include "memory/scan.h"

#define POOLS	      "/sys/kernel/mm/hugepages/hugepages-%llukB"
#define LARGEST_SHIFT 40 /* of any architecture: 16 GiB; to check images */
#define MOST_PLACES   64

/* ---- sizes and pools ---- */

static uint32_t size_flags(uint64_t page_size)
{
	return (uint32_t)__builtin_ctzll(page_size) << VMA_HUGE_SHIFT;
}

uint32_t huge_map_flags(uint64_t page_size)
{
	return MAP_HUGETLB | size_flags(page_size);
}

uint32_t huge_memfd_flags(uint64_t page_size)
{
	return MFD_HUGETLB | size_flags(page_size);
}

/* The size for MAP_HUGETLB without a size here. */
static uint64_t default_page_size(void)
{
	autofree char *text = NULL;
	const char *line = read_text_at(AT_FDCWD, "/proc/meminfo", &text) < 0 ?
				   NULL :
				   strstr(text, "\nHugepagesize:");

	return line ? strtoull(line + strlen("\nHugepagesize:"), NULL, 10) << 10 : 0;
}

uint64_t huge_page_size(uint32_t flags)
{
	unsigned shift = flags >> VMA_HUGE_SHIFT & 0x3f;

	if (!shift)
		return default_page_size();
	return shift > PAGE_SHIFT && shift <= LARGEST_SHIFT ? 1ULL << shift : 0;
}

static int read_pool(uint64_t page_size, const char *name, uint64_t *value)
{
	autofree char *path = format_text(POOLS "/%s", (unsigned long long)page_size >> 10, name);
	autofree char *text = NULL;
	ssize_t length = read_text_at(AT_FDCWD, path, &text);

	if (length < 0)
		return length;
	*value = strtoull(text, NULL, 10);
	return 0;
}

int huge_pool_free(uint64_t page_size, uint64_t *count)
{
	uint64_t free_pages, reserved, allowed, surplus;
	const struct {
		const char *name;
		uint64_t *value;
	} numbers[] = {
		{ "free_hugepages", &free_pages },
		{ "resv_hugepages", &reserved },
		{ "nr_overcommit_hugepages", &allowed },
		{ "surplus_hugepages", &surplus },
	};

	for (size_t i = 0; i < array_size(numbers); i++) {
		int result = read_pool(page_size, numbers[i].name, numbers[i].value);

		if (result)
			return result;
	}
	/* Reserved pages are counted as free, too; beyond the pool the kernel may create as many as are allowed. */
	*count = free_pages - min(reserved, free_pages) + allowed - min(surplus, allowed);
	return 0;
}

/* ---- dump ---- */

static int write_piece(struct page_writer *writer, uint64_t start, uint64_t end, bool skips_zeros,
		       page_source *source, void *from)
{
	struct page_run run = { .start = start, .count = (end - start) / PAGE_SIZE };
	struct page_runs runs = { &run, 1 };

	return start < end ? page_writer_add(writer, &runs, PAGES_PRESENT, skips_zeros, source, from) : 0;
}

int huge_write_pages(struct page_writer *writer, const struct page_runs *runs, uint64_t page_size,
		     page_source *source, void *from)
{
	int result = 0;

	for (size_t i = 0; !result && i < runs->count; i++) {
		uint64_t end = page_run_end(&runs->items[i]);
		struct page_runs left = { &runs->items[i], 1 };

		if (runs->items[i].layer) {
			result = page_writer_add(writer, &left, PAGES_PRESENT, false, source, from);
			continue;
		}
		for (uint64_t start = runs->items[i].start, next; !result && start < end; start = next) {
			next = min(round_down(start, page_size) + page_size, end);
			result =
				write_piece(writer, start, start + PAGE_SIZE, start % page_size, source, from) ?:
					write_piece(writer, start + PAGE_SIZE, next, true, source, from);
		}
	}
	return result;
}

/*
 * Returns a userfaultfd for [place, place + size) with which criu's own reads fail where no page is; -1: the kernel has
 * none.
 */
static int watch_missing_pages(char *place, uint64_t size)
{
	autoclose int watcher = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { (uintptr_t)place, size },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };

	if (watcher < 0 || ioctl(watcher, UFFDIO_API, &api) < 0 ||
	    ioctl(watcher, UFFDIO_REGISTER, &range) < 0)
		return -1;
	return steal_fd(&watcher);
}

/* The kernel watches only writable mappings, although criu does not write. -1: the file is sealed. */
static int open_file_writable(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

static bool is_huge_page_there(char *place)
{
	char byte;
	struct iovec here = { &byte, 1 }, there = { place, 1 };

	return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 1;
}

int huge_find_pages(int fd, uint64_t size, uint64_t page_size, struct page_runs *runs, bool *is_exact)
{
	struct page_run all = { .count = size / PAGE_SIZE };
	struct stat found;
	autoclose int watcher = -1, writable = -1;
	char *place;

	if (fstat(fd, &found) < 0)
		return fail(errno, "cannot stat memory in huge pages");
	if (!found.st_blocks || !size)
		return 0;
	if ((uint64_t)found.st_blocks * 512 >= size) {
		page_runs_add(runs, &all);
		return 0;
	}
	/* MAP_NORESERVE: nothing is taken from the pool. */
	writable = open_file_writable(fd);
	place = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, writable, 0);
	if (place != MAP_FAILED)
		watcher = watch_missing_pages(place, size);
	if (watcher < 0)
		page_runs_add(runs, &all);
	for (uint64_t at = 0; watcher >= 0 && at < size; at += page_size)
		if (is_huge_page_there(place + at))
			page_runs_add(runs, &(struct page_run){ .start = at,
								.count = page_size / PAGE_SIZE,
								.offset = at });
	if (place != MAP_FAILED)
		munmap(place, size);
	*is_exact = watcher >= 0;
	return 0;
}

/* ---- restore ---- */

static int fill_run(int fd, char *place, uint64_t page_size, const struct page_stack *stack,
		    const struct page_run *run, const char *name)
{
	uint64_t start = round_down(run->start, page_size), end = round_up(page_run_end(run), page_size);

	/* Touching a page that the pool does not have would be a SIGBUS. */
	if (fallocate(fd, 0, start, end - start) < 0)
		return fail(errno, "cannot get %llu huge pages of %llu KiB for %s",
			    (unsigned long long)((end - start) / page_size),
			    (unsigned long long)page_size >> 10, name);
	return page_stack_read(stack, run->layer, place + run->start, run->count, run->offset);
}

int huge_fill_file(int fd, uint64_t size, uint64_t page_size, const struct page_stack *stack,
		   const char *name)
{
	char *place;
	int result = 0;

	if (!stack->runs.count)
		return 0;
	place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (place == MAP_FAILED)
		return fail(errno, "cannot map %s", name);
	for (size_t i = 0; !result && i < stack->runs.count; i++)
		result = fill_run(fd, place, page_size, stack, &stack->runs.items[i], name);
	munmap(place, size);
	return result;
}

/* ---- transparent ones ---- */

bool huge_is_allowed(void)
{
	autofree char *text = NULL;

	if (read_text_at(-1, "/sys/kernel/mm/transparent_hugepage/enabled", &text) <= 0 ||
	    strstr(text, "[never]"))
		return false;
	return strstr(text, "[always]") || scan_has_ioctl();
}

void huge_collapse(void *block)
{
	madvise(block, HUGE_BLOCK, MADV_COLLAPSE);
}

void huge_collapse_shared(void *block)
{
	unsigned char is_there[HUGE_BLOCK / PAGE_SIZE];
	size_t pages = 0;

	if (mincore(block, HUGE_BLOCK, is_there) < 0)
		return;
	for (size_t i = 0; i < array_size(is_there); i++)
		pages += is_there[i] & 1;
	if (pages < array_size(is_there) / 2)
		return;
	huge_collapse(block);
	/* Linux 6.1 maps it as a huge page only at the next access. Until then, smaps does not count it. */
	madvise(block, PAGE_SIZE, MADV_POPULATE_READ);
}
