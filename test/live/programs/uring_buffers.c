/*
 * uring_buffers.c - io_uring: memory that is registered with a ring. Requests must use the memory that the process
 * sees, before and after.
 *
 * usage: uring_buffers DIRECTORY plain|forked|single|file|many|guarded|protected|limited|large|dropped
 *        uring_buffers DIRECTORY registers|stays|unregisters
 *
 * With one of the second line, the kernel writes to such memory on SIGUSR1, and what is registered may change.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "uring.h"

#define PAGE   4096UL
#define PAGES  64
#define UNEVEN 77 /* the first buffer does not begin with a page */
#define TEXT   3000

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static struct ring ring;
static char *memory; /* PAGES */
static int ends[2], generation;
static pid_t child;
static volatile sig_atomic_t asked;

static long call(unsigned what, const void *argument, unsigned count)
{
	return syscall(SYS_io_uring_register, ring.fd, what, argument, count);
}

static void map_memory(int flags, int fd)
{
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	live_check(memory != MAP_FAILED, "mmap: %m");
	live_fill(memory, PAGES * PAGE, 3);
	live_check(pipe(ends) == 0, "pipe: %m");
}

/* Several pages, nothing, a page, and all of them. */
static void register_memory(void)
{
	const struct iovec buffers[] = { { memory + UNEVEN, 3 * PAGE },
					 { NULL, 0 },
					 { memory + 5 * PAGE, PAGE },
					 { memory, PAGES * PAGE } };

	live_check(call(IORING_REGISTER_BUFFERS, buffers, 4) == 0, "register: %m");
}

static int transfer(int opcode, int fd, char *address, uint32_t length, uint16_t buffer)
{
	struct io_uring_sqe *request = ring_prepare(&ring, opcode, 8);

	request->fd = fd;
	request->addr = (uintptr_t)address;
	request->len = length;
	request->off = (uint64_t)-1;
	request->buf_index = buffer;
	ring_publish(&ring);
	while (!ring_unread(&ring))
		syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP,
			NULL, 0);
	return ring_take(&ring).res;
}

/* From the first buffer through a pipe into the third: both are what the process sees. */
static void exchange(void)
{
	char *from = memory + UNEVEN + PAGE, *to = memory + 5 * PAGE + 100;

	memset(from, ++generation, TEXT);
	live_check(transfer(IORING_OP_WRITE_FIXED, ends[1], from, TEXT, 0) == TEXT, "cannot write from it");
	live_check(transfer(IORING_OP_READ_FIXED, ends[0], to, TEXT, 2) == TEXT, "cannot read into it");
	live_check(!memcmp(from, to, TEXT), "the memory of a buffer is not that of the process");
	live_check(transfer(IORING_OP_READ_FIXED, ends[0], to, 1, 1) == -EFAULT, "there is another buffer");
	live_check(transfer(IORING_OP_READ_FIXED, ends[0], to + PAGE, 1, 2) == -EFAULT, "a buffer is longer");
}

/* ---- states ---- */

static void set_up(int setup, int flags, int fd)
{
	live_need_kernel(613, "criu reads what is registered since Linux 6.13 only");
	ring_make(&ring, 8, setup, 0);
	map_memory(flags, fd);
	register_memory();
	exchange();
}

static void set_up_plain(void)
{
	set_up(0, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void set_up_single(void)
{
	set_up(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

/* Pages of a memfd. */
static void set_up_file(void)
{
	int fd = memfd_create("buffers", 0);

	live_check(fd >= 0 && ftruncate(fd, PAGES * PAGE) == 0, "memfd_create: %m");
	set_up(0, MAP_SHARED, fd);
}

/* One buffer for each page, with a few empty ones. */
static void set_up_many(void)
{
	static struct iovec buffers[4 * PAGES];

	set_up(0, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	live_check(call(IORING_UNREGISTER_BUFFERS, NULL, 0) == 0, "unregister: %m");
	for (size_t i = 0; i < 4 * PAGES; i++)
		if (i % 5)
			buffers[i] = (struct iovec){ memory + i % PAGES * PAGE, PAGE };
	live_check(call(IORING_REGISTER_BUFFERS, buffers, 4 * PAGES) == 0, "register: %m");
}

static void verify_many(void)
{
	for (uint16_t i = 0; i < 4 * PAGES; i++) {
		char *page = memory + i % PAGES * PAGE;
		int expected = i % 5 ? TEXT : -EFAULT;

		live_check(write(ends[1], memory, TEXT) == TEXT, "write: %m");
		live_check(transfer(IORING_OP_READ_FIXED, ends[0], page, TEXT, i) == expected, "buffer %u",
			   i);
		if (expected < 0)
			live_check(read(ends[0], page, TEXT) == TEXT, "read: %m");
	}
}

/* The child has the ring, and pages of its own at the same addresses. */
static void set_up_forked(void)
{
	set_up_plain();
	child = fork();
	live_check(child >= 0, "fork: %m");
	if (!child) {
		memset(memory, 'c', PAGES * PAGE);
		for (;;)
			pause();
	}
	memset(memory + 5 * PAGE, 'p', PAGE);
}

static void verify_forked(void)
{
	exchange();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* Many guard ranges lie below the buffers, and criu lists them behind all mappings. */
static void set_up_guarded(void)
{
	char *guards;

	set_up_plain();
	guards = mmap(NULL, PAGES * 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	live_check(guards != MAP_FAILED, "mmap: %m");
	for (size_t i = 0; i < PAGES; i++)
		if (madvise(guards + 2 * i * PAGE, PAGE, MADV_GUARD_INSTALL) < 0)
			live_skip("this kernel has no guard ranges");
}

/* The process may no longer read or write some of the memory, which the kernel goes on using. */
static void set_up_protected(void)
{
	set_up_plain();
	live_check(mprotect(memory + PAGE, PAGE, PROT_READ) == 0 &&
			   mprotect(memory + 7 * PAGE, 20 * PAGE, PROT_NONE) == 0,
		   "mprotect: %m");
}

static void verify_protected(void)
{
	char byte = 'x';

	live_check(write(ends[1], &byte, 1) == 1, "write: %m");
	live_check(read(ends[0], memory + PAGE, 1) < 0 && errno == EFAULT, "it may write to such memory");
	live_check(read(ends[0], &byte, 1) == 1, "read: %m");
	live_check(write(ends[1], memory + 26 * PAGE, 1) < 0 && errno == EFAULT, "it may read such memory");
	live_check(mprotect(memory, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0, "mprotect: %m");
	exchange();
}

/* The kernel counts the memory of this user, who could not register so much now. */
static void set_up_limited(void)
{
	struct rlimit limit = { 1 << 20, 1 << 20 };

	live_check(chmod(live_directory, 0777) == 0, "chmod: %m");
	live_check(setrlimit(RLIMIT_MEMLOCK, &limit) == 0, "setrlimit: %m");
	live_check(setresgid(4711, 4711, 4711) == 0 && setresuid(4711, 4711, 4711) == 0, "setresuid: %m");
	prctl(PR_SET_DUMPABLE, 1);
	set_up(IORING_SETUP_SQPOLL, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	limit.rlim_cur = PAGE;
	live_check(setrlimit(RLIMIT_MEMLOCK, &limit) == 0, "setrlimit: %m");
}

static void verify_limited(void)
{
	struct rlimit limit;

	live_check(getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == PAGE &&
			   limit.rlim_max == 1 << 20,
		   "another limit");
	exchange();
	live_check(call(IORING_UNREGISTER_BUFFERS, NULL, 0) == 0, "unregister: %m");
	live_check(call(IORING_REGISTER_BUFFERS, &(struct iovec){ memory, 2 * PAGE }, 1) < 0 &&
			   errno == ENOMEM,
		   "there is no limit");
}

/* The kernel keeps the pages of a huge page as one piece, which begins before the buffer. */
static void set_up_large(void)
{
	const size_t huge = 2 << 20;
	char *space = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	live_check(space != MAP_FAILED, "mmap: %m");
	space += -(uintptr_t)space % huge;
	madvise(space, huge, MADV_HUGEPAGE);
	memset(space, 1, huge);
	set_up_plain();
	live_check(call(IORING_UNREGISTER_BUFFERS, NULL, 0) == 0, "unregister: %m");
	memory = space + 37 * PAGE;
	register_memory();
	exchange();
}

/* The pages of shared memory stay the same, also if the process has them no longer in its page tables. */
static void set_up_dropped(void)
{
	set_up(0, MAP_SHARED | MAP_ANONYMOUS, -1);
	live_check(madvise(memory, PAGES * PAGE, MADV_DONTNEED) == 0, "madvise: %m");
}

/* ---- between snapshots ---- */

static void set_up_before(void)
{
	set_up_plain();
	live_check(call(IORING_UNREGISTER_BUFFERS, NULL, 0) == 0, "unregister: %m");
}

static void act_registers(void)
{
	register_memory();
	exchange();
	live_check(call(IORING_UNREGISTER_BUFFERS, NULL, 0) == 0, "unregister: %m");
}

static void act_unregisters(void)
{
	exchange();
	live_check(call(IORING_UNREGISTER_BUFFERS, NULL, 0) == 0, "unregister: %m");
}

/* What the kernel has written there last. */
static void verify_content(void)
{
	const char *to = memory + 5 * PAGE + 100;

	for (size_t i = 0; i < TEXT; i++)
		live_check(to[i] == (char)generation, "byte %zu is of generation %d, not %d", i, to[i],
			   generation);
}

static void verify_stays(void)
{
	verify_content();
	exchange();
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*act)(void);
	void (*verify)(void);
} parts[] = {
	{ "plain", set_up_plain, NULL, exchange },
	{ "forked", set_up_forked, NULL, verify_forked },
	{ "single", set_up_single, NULL, exchange },
	{ "file", set_up_file, NULL, exchange },
	{ "many", set_up_many, NULL, verify_many },
	{ "guarded", set_up_guarded, NULL, exchange },
	{ "protected", set_up_protected, NULL, verify_protected },
	{ "limited", set_up_limited, NULL, verify_limited },
	{ "large", set_up_large, NULL, exchange },
	{ "dropped", set_up_dropped, NULL, exchange },
	{ "registers", set_up_before, act_registers, verify_content },
	{ "stays", set_up_plain, exchange, verify_stays },
	{ "unregisters", set_up_plain, act_unregisters, verify_content },
};

static void on_signal(int signal)
{
	asked = signal == SIGUSR1;
}

int main(int argc, char **argv)
{
	const struct part *part;

	live_begin(argc, argv);
	part = live_choose(parts, argv[2]);
	signal(SIGUSR1, on_signal);
	part->set_up();
	live_ready();
	while (!live_stopping()) {
		if (asked && part->act) {
			asked = 0;
			part->act();
			live_note("done", "1");
		}
		live_sleep(0.01);
	}
	part->verify();
	return live_finish();
}
