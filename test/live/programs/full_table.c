/*
 * full_table.c - a process that has all descriptors that its limit allows, except a few.
 *
 * usage: full_table DIRECTORY files|copies|pipes|mapped LIMIT SPARE
 *   files	eventfds, each with a number of its own in it
 *   copies	all lead to one open file
 *   pipes	one end each, with a byte in it
 *   mapped	twice as many files as LIMIT, mapped, none of them open
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "live.h"

#define PAGE 4096

static int limit, spare, first; /* first: the lowest number that is ours */

static int new_file(int number)
{
	return eventfd(number, EFD_NONBLOCK | (number % 2 ? EFD_CLOEXEC : 0));
}

static void verify_file(int fd)
{
	uint64_t value = 0;

	live_check(read(fd, &value, sizeof(value)) == sizeof(value) && (int)value == fd,
		   "eventfd %d holds %d", fd, (int)value);
	live_check(fcntl(fd, F_GETFD) == (fd % 2 ? FD_CLOEXEC : 0), "close-on-exec of %d", fd);
}

static int new_copy(int number)
{
	return number == first ? eventfd(17, EFD_NONBLOCK) : fcntl(first, F_DUPFD, number);
}

static void verify_copy(int fd)
{
	uint64_t value = 1;

	live_check(write(fd, &value, sizeof(value)) == sizeof(value), "eventfd %d: %m", fd);
	live_check(read(first, &value, sizeof(value)) == sizeof(value) && value == (fd == first ? 18 : 1),
		   "descriptor %d is another file", fd);
}

static int new_pipe(int number)
{
	int ends[2];
	char byte = number;

	/* Fails for the last descriptor, which leaves no room for the other end: that becomes an eventfd. */
	if (pipe2(ends, O_NONBLOCK) < 0)
		return eventfd(0, 0);
	live_check(ends[0] == number && write(ends[1], &byte, 1) == 1, "pipe: %m");
	close(ends[1]);
	return ends[0];
}

static void verify_pipe(int fd)
{
	char byte;

	live_check(fd == limit - 1 - spare || (read(fd, &byte, 1) == 1 && byte == (char)fd), "pipe %d", fd);
}

static const struct {
	const char *name;
	int (*make)(int number);
	void (*verify)(int fd);
} kinds[] = {
	{ "files", new_file, verify_file },
	{ "copies", new_copy, verify_copy },
	{ "pipes", new_pipe, verify_pipe },
};

static void live_full(size_t kind)
{
	first = dup(0);
	close(first);
	for (int number = first; number < limit - spare; number++)
		live_check(kinds[kind].make(number) == number, "file %d: %m", number);
}

/* ---- mapped files ---- */

static char **mapped;

static void map_one(int number, bool again)
{
	char path[4096], name[32];
	int fd;

	snprintf(name, sizeof(name), "mapped-%d", number);
	live_path(path, sizeof(path), name);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	live_check(fd >= 0 && (again || ftruncate(fd, PAGE) == 0), "%s: %m", path);
	mapped[number] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, number % 2 ? MAP_SHARED : MAP_PRIVATE, fd,
			      0);
	live_check(mapped[number] != MAP_FAILED, "mmap: %m");
	memcpy(mapped[number], &number, sizeof(number));
	close(fd);
}

static void live_mapped(void)
{
	mapped = calloc(2 * limit, sizeof(*mapped));
	for (int i = 0; i < 2 * limit; i++)
		map_one(i, false);
}

static void verify_mapped(void)
{
	for (int i = 0; i < 2 * limit; i++)
		live_check(!memcmp(mapped[i], &i, sizeof(i)), "mapping %d shows another file", i);
}

int main(int argc, char **argv)
{
	size_t kind = 0;

	struct rlimit most;

	live_begin(argc, argv);
	limit = atoi(argv[3]);
	spare = atoi(argv[4]);
	most = (struct rlimit){ limit, limit };
	live_check(setrlimit(RLIMIT_NOFILE, &most) == 0, "setrlimit: %m");
	while (kind < sizeof(kinds) / sizeof(kinds[0]) && strcmp(kinds[kind].name, argv[2]))
		kind++;
	if (kind == sizeof(kinds) / sizeof(kinds[0]))
		live_mapped();
	live_ready(); /* that takes a descriptor: the harness waits until the table is full */
	if (!mapped)
		live_full(kind);
	live_wait_stop();
	if (mapped)
		verify_mapped();
	for (int fd = first; !mapped && fd < limit - spare; fd++)
		kinds[kind].verify(fd);
	if (!mapped)
		close(first);
	return live_finish();
}
