/*
 * mapped_as_file.c - shared anonymous memory that is mapped and also open as a file: what is written to one shows in
 * the other.
 *
 * usage: mapped_as_file DIRECTORY both|protected|rest|child|named|huge
 * both: a mapping, and a file opened through /proc/PID/map_files; protected: the mapping and that file are read-only,
 * another file is writable; rest: munmap() has left a part of the mapping; child: a child has the mapping, its parent
 * the file; named: the mapping has a name; huge: it has huge pages
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

#define PAGE 4096UL
#define HUGE (2UL << 20)

#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static const char *kind;
static unsigned char *memory; /* pages from `first` on are mapped */
static size_t size = 8 * PAGE, first;
static int file, writer;

static bool is(const char *wanted)
{
	return strcmp(kind, wanted) == 0;
}

static int open_mapping(int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)memory,
		 (unsigned long)memory + size);
	fd = open(path, flags);
	live_check(fd >= 0, "%s: %m", path);
	return fd;
}

static void prepare(void)
{
	int huge = is("huge") ? MAP_HUGETLB : 0;

	size = huge ? 2 * HUGE : size;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | huge, -1, 0);
	if (memory == MAP_FAILED && huge)
		live_skip("no huge pages: %m");
	live_check(memory != MAP_FAILED, "mmap: %m");
	live_fill(memory, size, 1);
	if (is("named") && prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, size, "a name") < 0)
		live_skip("memory cannot be named: %m");
	file = open_mapping(is("protected") ? O_RDONLY : O_RDWR);
	writer = is("protected") ? open_mapping(O_WRONLY) : file;
	if (is("protected"))
		live_check(mprotect(memory, size, PROT_READ) == 0, "mprotect: %m");
	if (is("rest")) {
		first = 5;
		live_check(munmap(memory, first * PAGE) == 0, "munmap: %m");
	}
}

/* Files of hugetlbfs have no write(). */
static void write_file(size_t page, unsigned number)
{
	if (is("huge")) {
		unsigned *view = mmap(NULL, size, PROT_WRITE, MAP_SHARED, writer, 0);

		live_check(view != MAP_FAILED, "mmap: %m");
		view[page * PAGE / sizeof(*view)] = number;
		munmap(view, size);
	} else {
		live_check(pwrite(writer, &number, sizeof(number), page * PAGE) == sizeof(number),
			   "pwrite: %m");
	}
}

/*
 * Writes to a page through the file, then back through the mapping if that is writable. Each must show the other's
 * write.
 */
static void check_both_ways(size_t page, unsigned number)
{
	atomic_uint *mapped = (atomic_uint *)(memory + page * PAGE);
	unsigned old = *mapped, seen = 0;

	write_file(page, number);
	live_check(*mapped == number, "the mapping does not show what was written to the file");
	if (is("protected"))
		write_file(page, old);
	else
		*mapped = old;
	live_check(pread(file, &seen, sizeof(seen), page * PAGE) == sizeof(seen) && seen == old,
		   "the file does not show what was written to the mapping");
}

static void look(void)
{
	static unsigned char content[2 * HUGE];
	static unsigned round;
	struct stat stat;

	live_check(fstat(file, &stat) == 0 && (size_t)stat.st_size == size, "the file has %ld bytes",
		   (long)stat.st_size);
	check_both_ways(first, ++round);
	check_both_ways(size / PAGE - 1, ++round);
	live_check(pread(file, content, size, 0) == (ssize_t)size, "pread: %m");
	live_compare(content, size, 1, "the file");
	live_check(!memcmp(content + first * PAGE, memory + first * PAGE, size - first * PAGE),
		   "mapping and file differ");
}

/* The child counts in the mapping. The parent sees that in its file, and resets the counter there. */
static void count(void)
{
	while (!live_stopping()) {
		++*(atomic_ulong *)memory;
		live_sleep(0.001);
	}
}

static void look_at_child(void)
{
	unsigned long zero = 0, now = 0;

	live_check(pwrite(file, &zero, sizeof(zero), 0) == sizeof(zero), "pwrite: %m");
	live_await(pread(file, &now, sizeof(now), 0) == sizeof(now) && now,
		   "the child counts in other memory");
	live_check(now < 1000000, "the child does not see what is written to the file");
}

int main(int argc, char **argv)
{
	pid_t child = 0;

	live_begin(argc, argv);
	kind = argv[2];
	prepare();
	if (is("child")) {
		child = live_fork(count);
		live_check(munmap(memory, size) == 0, "munmap: %m");
	}
	live_ready();
	do {
		child ? look_at_child() : look();
		live_sleep(0.002);
	} while (!live_stopping());
	child ? look_at_child() : look();
	if (child)
		live_join(child);
	return live_finish();
}
