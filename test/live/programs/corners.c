/*
 * corners.c - mappings at the ends of the address space and unusual mappings, one in each run: the first addresses, the
 * last ones, an empty reservation of 64 GiB, a file that ends before its mapping, /dev/zero, memory that grows down,
 * locked memory, guards, shared memory that is larger or smaller than its mapping.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define PAGE 4096UL
#define MIB  (1UL << 20)
#define GIB  (1UL << 30)

static char *memory;
static sigjmp_buf fault;

static void on_fault(int signo)
{
	siglongjmp(fault, signo);
}

/* The signal that a read of this address raises; 0: none. */
static int fault_at(volatile char *address)
{
	struct sigaction action = { .sa_handler = on_fault };
	int signo;

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	signo = sigsetjmp(fault, 1);
	if (!signo)
		(void)*address;
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	return signo;
}

/* Reads one line of smaps, such as VmFlags, of the mapping at `address`. */
static void smaps_line(const void *address, const char *wanted, char *line, size_t size)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long from = 0, to = 0;

	while (fgets(line, size, smaps)) {
		live_smaps_head(line, &from, &to);
		if (from <= (unsigned long)address && (unsigned long)address < to &&
		    strncmp(line, wanted, strlen(wanted)) == 0)
			break;
	}
	fclose(smaps);
}

static bool has_flag(const void *address, const char *flag)
{
	char line[512], wanted[8];

	smaps_line(address, "VmFlags:", line, sizeof(line));
	snprintf(wanted, sizeof(wanted), " %s ", flag);
	return strstr(line, wanted);
}

static void *map_at(unsigned long address, size_t size)
{
	void *mapped = mmap((void *)address, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	live_check(mapped == (void *)address, "mmap at %lx: %m", address);
	live_fill(mapped, size, address);
	return mapped;
}

/* ---- the ends of the address space ---- */

static void set_up_first(void)
{
	memory = map_at(0x10000, 2 * PAGE);
}

static void verify_first(void)
{
	live_compare(memory, 2 * PAGE, 0x10000, "the first addresses");
}

#define LAST 0x7fffffffd000UL /* the last page of user space cannot be used, and we leave one more free */

static void set_up_last(void)
{
	memory = map_at(LAST, PAGE);
}

static void verify_last(void)
{
	live_compare(memory, PAGE, LAST, "the last addresses");
}

/* ---- a large empty reservation ---- */

static void set_up_reserved(void)
{
	memory = mmap(NULL, 64 * GIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	live_check(memory != MAP_FAILED, "mmap: %m");
	mprotect(memory + 32 * GIB, MIB, PROT_READ | PROT_WRITE);
	live_fill(memory + 32 * GIB, MIB, 1);
}

static void verify_reserved(void)
{
	live_compare(memory + 32 * GIB, MIB, 1, "the middle of the reservation");
	live_check(fault_at(memory) == SIGSEGV && fault_at(memory + 64 * GIB - 1) == SIGSEGV,
		   "the reservation can be read");
	live_check(has_flag(memory, "nr"), "the mapping is no longer MAP_NORESERVE");
}

/* ---- files ---- */

static void set_up_beyond_end(void)
{
	char path[4096];

	live_path(path, sizeof(path), "short");
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	live_check(fd >= 0 && write(fd, "short", 5) == 5, "%s: %m", path);
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	live_check(memory != MAP_FAILED, "mmap: %m");
	close(fd);
}

static void verify_beyond_end(void)
{
	live_check(memcmp(memory, "short", 6) == 0, "the first page does not show the file");
	live_check(fault_at(memory + PAGE) == SIGBUS && fault_at(memory + 4 * PAGE - 1) == SIGBUS,
		   "memory behind the end of the file can be read");
}

/* A page was written, then the file was truncated before it: the page is still the task's own. */
static void set_up_cut_off(void)
{
	char path[4096];

	live_path(path, sizeof(path), "cut");
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	live_check(fd >= 0 && ftruncate(fd, 4 * PAGE) == 0, "%s: %m", path);
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	live_check(memory != MAP_FAILED, "mmap: %m");
	live_fill(memory, PAGE, 3);
	close(fd);
}

static void verify_cut_off(void)
{
	live_compare(memory, PAGE, 3, "the written page of a file");
	live_check(memory[PAGE] == 0, "the page that was not written does not show the file");
}

static char *shared_zero;

static void set_up_dev_zero(void)
{
	int fd = open("/dev/zero", O_RDWR);

	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	shared_zero = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	live_check(memory != MAP_FAILED && shared_zero != MAP_FAILED, "mmap of /dev/zero: %m");
	live_fill(memory + PAGE, PAGE, 4);
	live_fill(shared_zero + PAGE, PAGE, 5);
	close(fd);
}

static void verify_dev_zero(void)
{
	live_compare(memory + PAGE, PAGE, 4, "private /dev/zero");
	live_compare(shared_zero + PAGE, PAGE, 5, "shared /dev/zero");
	live_check(!memory[0] && !memory[3 * PAGE] && !shared_zero[0], "memory of /dev/zero is not zero");
}

/* ---- memory that grows down ---- */

static void set_up_grows_down(void)
{
	char *room = mmap(NULL, 16 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(room, 16 * MIB);
	memory = mmap(room + 12 * MIB, 4 * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
	live_check(memory == room + 12 * MIB, "mmap: %m");
	live_fill(memory, 4 * PAGE, 6);
	/* The guard, at which growth ends. */
	live_check(mmap(memory - 4 * MIB, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			-1, 0) != MAP_FAILED,
		   "mmap: %m");
}

static void verify_grows_down(void)
{
	static int depth;

	live_compare(memory, 4 * PAGE, 6, "memory that grows down");
	live_check(has_flag(memory, "gd"), "the memory does not grow down any more");
	if (depth < 64) { /* one page more each time */
		memory[-(long)(++depth * PAGE)] = 1;
		live_check(memory[-(long)(depth * PAGE)] == 1, "the memory did not grow");
	}
	live_check(fault_at(memory - 4 * MIB) == SIGSEGV, "the guard can be read");
}

/* ---- locks ---- */

static void set_up_locked_future(void)
{
	if (mlockall(MCL_FUTURE) < 0)
		live_skip("mlockall: %m");
	memory = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	live_fill(memory, 4 * PAGE, 7);
	mprotect(memory + 4 * PAGE, 4 * PAGE, PROT_NONE);
}

static void verify_locked_future(void)
{
	char *fresh = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	live_compare(memory, 4 * PAGE, 7, "locked memory");
	live_check(has_flag(memory, "lo") && has_flag(memory + 4 * PAGE, "lo"),
		   "the memory is no longer locked");
	live_check(has_flag(fresh, "lo"), "new memory is no longer locked");
	munmap(fresh, PAGE);
}

static unsigned long resident(const void *address)
{
	char line[512];
	unsigned long value = 0;

	smaps_line(address, "Rss:", line, sizeof(line));
	sscanf(line, "Rss: %lu", &value);
	return value;
}

static void set_up_locked_on_fault(void)
{
	memory = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(memory + 64 * PAGE - PAGE, PAGE, PROT_NONE);
	if (syscall(SYS_mlock2, memory, 32 * PAGE, 1 /* MLOCK_ONFAULT */) < 0)
		live_skip("mlock2: %m");
	live_fill(memory, 4 * PAGE, 8);
}

static void verify_locked_on_fault(void)
{
	live_compare(memory, 4 * PAGE, 8, "memory locked on fault");
	live_check(has_flag(memory, "lo"), "the memory is no longer locked");
	live_check(resident(memory) <= 16, "%lu KiB are resident, 16 were touched", resident(memory));
}

/* ---- guards (MADV_GUARD_INSTALL): in private memory since Linux 6.13, in shared memory and files since 6.15 ---- */

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

static void set_up_guard_shared(void)
{
	memory = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	live_fill(memory, 8 * PAGE, 10);
	if (madvise(memory + PAGE, 2 * PAGE, MADV_GUARD_INSTALL) < 0)
		live_skip("no guards in shared memory: %m");
}

static void verify_guard_shared(void)
{
	live_check(fault_at(memory + PAGE) == SIGSEGV && fault_at(memory + 3 * PAGE - 1) == SIGSEGV,
		   "the guard can be read");
	live_compare(memory, PAGE, 10, "shared memory before the guard");
	live_compare(memory + 3 * PAGE, 5 * PAGE, 10 + 3 * PAGE / 8, "shared memory behind the guard");
}

/* Where a userfaultfd write-protects pages of the file, the kernel never returns from installing these guards. */
static void set_up_guard_file(void)
{
	char path[4096];

	live_path(path, sizeof(path), "guarded");
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	live_check(fd >= 0 && ftruncate(fd, 8 * PAGE) == 0, "%s: %m", path);
	memory = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	live_check(memory != MAP_FAILED, "mmap: %m");
	close(fd);
	live_fill(memory, 8 * PAGE, 14);
	if (madvise(memory + PAGE, PAGE, MADV_GUARD_INSTALL) < 0)
		live_skip("no guards in mappings of files: %m");
}

static void verify_guard_file(void)
{
	live_check(fault_at(memory + PAGE) == SIGSEGV, "the guard can be read");
	live_compare(memory, PAGE, 14, "the mapping before the guard");
	live_check(madvise(memory + 4 * PAGE, PAGE, MADV_GUARD_INSTALL) == 0, "another guard: %m");
	live_check(madvise(memory + 4 * PAGE, PAGE, MADV_GUARD_REMOVE) == 0,
		   "cannot remove the other guard: %m");
	live_fill(memory + 4 * PAGE, PAGE, 15); /* pages for the dump to protect */
}

/* mlock() fails, because it cannot make the guard present, but locks the memory all the same. */
static void set_up_guard_locked(void)
{
	memory = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	live_fill(memory, 8 * PAGE, 11);
	if (madvise(memory + PAGE, PAGE, MADV_GUARD_INSTALL) < 0)
		live_skip("no guards: %m");
	live_check(mlock(memory, 8 * PAGE) < 0 && errno == ENOMEM, "mlock: %m");
}

static void verify_guard_locked(void)
{
	live_check(fault_at(memory + PAGE) == SIGSEGV, "the guard can be read");
	live_compare(memory, PAGE, 11, "locked memory before the guard");
	live_check(has_flag(memory, "lo") && !has_flag(memory, "lf"), "the memory is locked differently");
}

/* ---- shared memory whose size is not that of its mapping ---- */

static void set_up_shared_cut(void)
{
	memory = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	live_fill(memory, 8 * PAGE, 12);
	munmap(memory + 2 * PAGE, 6 * PAGE);
}

static void verify_shared_cut(void)
{
	live_compare(memory, 2 * PAGE, 12, "shared memory");
	live_check(mremap(memory, 2 * PAGE, 8 * PAGE, 0) == memory, "mremap: %m");
	live_compare(memory, 8 * PAGE, 12, "shared memory that was not mapped for a while");
	munmap(memory + 2 * PAGE, 6 * PAGE);
}

static void set_up_shared_grown(void)
{
	char *room = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memory = mmap(room, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	live_fill(memory, 2 * PAGE, 13);
	munmap(memory + 2 * PAGE, 6 * PAGE);
	live_check(mremap(memory, 2 * PAGE, 8 * PAGE, 0) == memory, "mremap: %m");
}

static void verify_shared_grown(void)
{
	live_compare(memory, 2 * PAGE, 13, "shared memory");
	live_check(fault_at(memory + 2 * PAGE) == SIGBUS,
		   "memory behind the end of shared memory can be read");
}

/* ---- memory that the kernel may drop (Linux 6.11) ---- */

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

static void set_up_droppable(void)
{
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_DROPPABLE, -1, 0);
	if (memory == MAP_FAILED)
		live_skip("this kernel has no MAP_DROPPABLE");
	live_fill(memory, 4 * PAGE, 9);
}

static void verify_droppable(void)
{
	static const char zeros[PAGE];

	live_check(has_flag(memory, "dp"), "the memory is no longer droppable");
	for (int page = 0; page < 4; page++)
		if (memcmp(memory + page * PAGE, zeros, PAGE) != 0 && page == 0)
			live_compare(memory, PAGE, 9, "droppable memory");
}

/* ---- ---- */

static const struct {
	const char *name;
	void (*set_up)(void), (*verify)(void);
} corners[] = {
	{ "first", set_up_first, verify_first },
	{ "last", set_up_last, verify_last },
	{ "reserved", set_up_reserved, verify_reserved },
	{ "beyond_end", set_up_beyond_end, verify_beyond_end },
	{ "cut_off", set_up_cut_off, verify_cut_off },
	{ "dev_zero", set_up_dev_zero, verify_dev_zero },
	{ "grows_down", set_up_grows_down, verify_grows_down },
	{ "locked_future", set_up_locked_future, verify_locked_future },
	{ "droppable", set_up_droppable, verify_droppable },
	{ "locked_on_fault", set_up_locked_on_fault, verify_locked_on_fault },
	{ "guard_shared", set_up_guard_shared, verify_guard_shared },
	{ "guard_file", set_up_guard_file, verify_guard_file },
	{ "guard_locked", set_up_guard_locked, verify_guard_locked },
	{ "shared_cut", set_up_shared_cut, verify_shared_cut },
	{ "shared_grown", set_up_shared_grown, verify_shared_grown },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	__auto_type corner = live_choose(corners, argv[2]);
	corner->set_up();
	corner->verify();
	live_ready();
	/* Not in a loop: a dump would find /proc/self/smaps open. */
	live_wait_stop();
	corner->verify();
	return live_finish();
}
