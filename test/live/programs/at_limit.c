/*
 * at_limit.c - a process that has as much of something as its own or the kernel's limit allows. A dump and a restore
 * must not need more.
 *
 * usage: at_limit DIRECTORY as|addresses|data|stack|mappings|locked|locked_future|signals|cpu|pipes [SPARE]
 *
 * SPARE: how many mappings fewer than the limit it has.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

#define PAGE 4096UL
#define SIZE (64 * PAGE)

static int limited = -1;

static void set_limit(int which, rlim_t value)
{
	struct rlimit limit = { value, value };

	limited = which;
	live_check(setrlimit(which, &limit) == 0, "setrlimit %d: %m", which);
}

static unsigned long long number_in(const char *path, const char *key)
{
	static char text[65536]; /* static, because nothing can be mapped any more */
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = read(fd, text, sizeof(text) - 1);
	char *found;

	close(fd);
	live_check(length > 0, "%s: %m", path);
	text[length] = '\0';
	found = strstr(text, key);
	live_check(found, "%s has no %s", path, key);
	return strtoull(found + strlen(key), NULL, 10);
}

static char content[SIZE];

static void verify_content(void)
{
	live_compare(content, SIZE, 5, "its memory");
}

/* ---- address space, data, stack: no byte more can be had ---- */

static bool can_map(void)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page != MAP_FAILED)
		munmap(page, PAGE);
	return page != MAP_FAILED;
}

static void reach_as(void)
{
	set_limit(RLIMIT_AS, number_in("/proc/self/status", "VmSize:\t") << 10);
	live_check(!can_map(), "there is room for more");
}

static const char *read_maps(void)
{
	static char text[65536]; /* nothing may be mapped here */
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	ssize_t got, length = 0;

	while ((got = read(fd, text + length, sizeof(text) - 1 - length)) > 0)
		length += got;
	live_check(got == 0 && length > 0, "maps: %m");
	close(fd);
	text[length] = '\0';
	return text;
}

static void map_without_rights(unsigned long start, unsigned long end)
{
	const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;

	live_check(start >= end || mmap((void *)start, end - start, PROT_NONE, kind, -1, 0) != MAP_FAILED,
		   "mmap from %lx to %lx: %m", start, end);
}

/* Whatever is not mapped is mapped without rights. */
static void reach_addresses(void)
{
	const unsigned long task_size = (1UL << 47) - PAGE;
	unsigned long start, end, last = PAGE; /* root may use what is below mmap_min_addr, too */
	const char *line = read_maps();
	void *page;
	int used;

	for (; sscanf(line, "%lx-%lx %*[^\n]%n", &start, &end, &used) == 2 && end <= task_size;
	     line += used) {
		map_without_rights(last, start);
		last = end;
	}
	map_without_rights(last, task_size);
	page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	live_check(page == MAP_FAILED, "there is room at %p", page);
}

static void reach_data(void)
{
	set_limit(RLIMIT_DATA, 0);
	live_check(!can_map(), "there is room for more");
}

static void verify_full(void)
{
	verify_content();
	live_check(!can_map(), "there is room for more");
}

static void reach_stack(void)
{
	volatile char deep[200 << 10];

	for (size_t i = 0; i < sizeof(deep); i += PAGE)
		deep[i] = 1;
	set_limit(RLIMIT_STACK, 128 << 10);
}

/* ---- mappings ---- */

static char *pieces;
static size_t piece_count, spare;

/* Gives every second page another protection, until the kernel allows no more mappings. */
static void reach_mappings(void)
{
	unsigned long most = number_in("/proc/sys/vm/max_map_count", "");

	pieces = mmap(NULL, (most + 2) * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	live_check(pieces != MAP_FAILED, "mmap: %m");
	for (piece_count = 1; mprotect(pieces + piece_count * PAGE, PAGE, PROT_READ) == 0; piece_count += 2)
		live_check(piece_count < most, "there is no limit");
	for (size_t freed = 0; freed < spare; freed += 2, piece_count -= 2)
		live_check(mprotect(pieces + (piece_count - 2) * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0,
			   "mprotect: %m");
	pieces[0] = 17;
}

static void verify_mappings(void)
{
	live_check(pieces[0] == 17, "its memory has changed");
	live_check(spare || mprotect(pieces + piece_count * PAGE, PAGE, PROT_READ) < 0,
		   "there is room for more");
	live_check(munmap(pieces, PAGE) == 0, "munmap: %m"); /* a page whose removal merges nothing */
}

/* ---- locked memory ---- */

static void reach_locked(void)
{
	live_check(mlock(content, SIZE) == 0, "mlock: %m");
	set_limit(RLIMIT_MEMLOCK, SIZE);
}

/* Locks all memory, now and in the future: the limit leaves no room for more. */
static void reach_locked_future(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		live_skip("mlockall: %m (limit %lu)", limit.rlim_cur);
	set_limit(RLIMIT_MEMLOCK, number_in("/proc/self/status", "VmLck:\t") << 10);
}

static void verify_locked(void)
{
	verify_content();
	live_check(number_in("/proc/self/status", "VmLck:\t") << 10 >= SIZE, "the memory is not locked");
}

/* ---- pending signals ---- */

#define WAITING (SIGRTMIN + 3)

static sigset_t waiting;
static int waiting_count;

/* Queues as many signals as possible, then lowers the limit: more are pending than it allows. */
static void reach_signals(void)
{
	union sigval value = { 0 };

	sigemptyset(&waiting);
	sigaddset(&waiting, WAITING);
	sigprocmask(SIG_BLOCK, &waiting, NULL);
	for (; waiting_count < 1000; value.sival_int = ++waiting_count)
		live_check(sigqueue(getpid(), WAITING, value) == 0, "signal %d: %m", waiting_count);
	set_limit(RLIMIT_SIGPENDING, 100);
}

static void verify_signals(void)
{
	struct timespec now = { 0 };
	siginfo_t facts;

	for (int i = 0; i < waiting_count; i++)
		live_check(sigtimedwait(&waiting, &facts, &now) == WAITING && facts.si_value.sival_int == i,
			   "signal %d of %d: %m", i, waiting_count);
	live_check(sigtimedwait(&waiting, &facts, &now) < 0, "too many signals are pending");
}

/* ---- CPU time: the limit is a second, and most of it has been used ---- */

static volatile sig_atomic_t exceeded;

static void on_exceeded(int signo)
{
	exceeded++;
}

static void reach_cpu(void)
{
	signal(SIGXCPU, on_exceeded);
	for (struct rusage usage = { 0 };
	     usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec < 700000;)
		getrusage(RUSAGE_SELF, &usage);
	set_limit(RLIMIT_CPU, 1);
}

static void verify_cpu(void)
{
	live_check(!exceeded, "the process got SIGXCPU");
}

/* ---- pipes ---- */

#define PIPES 40

static int pipes[PIPES][2];

/* For an ordinary user these are more than /proc/sys/fs/pipe-user-pages-soft, so the last ones are small. */
static void reach_pipes(void)
{
	for (int i = 0; i < PIPES; i++) {
		live_check(pipe2(pipes[i], O_NONBLOCK) == 0, "pipe: %m");
		fcntl(pipes[i][1], F_SETPIPE_SZ, 1 << 20);
		live_check(write(pipes[i][1], content, PAGE) == PAGE, "write: %m");
	}
}

static void verify_pipes(void)
{
	static char page[PAGE];

	for (int i = 0; i < PIPES; i++)
		live_check(read(pipes[i][0], page, PAGE) == PAGE && !memcmp(page, content, PAGE), "pipe %d",
			   i);
}

static const struct {
	const char *name;
	void (*reach)(void), (*verify)(void);
} kinds[] = {
	{ "as", reach_as, verify_full },
	{ "addresses", reach_addresses, verify_content },
	{ "data", reach_data, verify_full },
	{ "stack", reach_stack, verify_content },
	{ "mappings", reach_mappings, verify_mappings },
	{ "locked", reach_locked, verify_locked },
	{ "locked_future", reach_locked_future, verify_locked },
	{ "signals", reach_signals, verify_signals },
	{ "cpu", reach_cpu, verify_cpu },
	{ "pipes", reach_pipes, verify_pipes },
};

static void live_with(void (*reach)(void), void (*verify)(void))
{
	struct rlimit before = { 0 }, now = { 0 };

	reach();
	if (limited >= 0)
		getrlimit(limited, &before);
	live_ready();
	live_wait_stop();
	if (limited >= 0)
		getrlimit(limited, &now);
	live_check(!memcmp(&before, &now, sizeof(now)), "limit %d: %lu, was %lu", limited, now.rlim_cur,
		   before.rlim_cur);
	verify();
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_fill(content, SIZE, 5);
	spare = argc > 3 ? atoi(argv[3]) : 0;
	__auto_type kind = live_choose(kinds, argv[2]);
	live_with(kind->reach, kind->verify);
	return live_finish();
}
