/*
 * everything.c - a process that has a descriptor of every kind at once: of each kind once, or a whole table of them.
 *
 * usage: everything DIRECTORY all|common COUNT
 *
 * COUNT descriptors are opened, at least one of each kind; then one more, with the highest number that the limit
 * allows. `common`: only what criu 4.2.1 can do, too, which lacks some kinds, and needs the highest numbers itself.
 * Each item knows what it must hold (everything.h).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "everything.h"
#include "live.h"

static struct item *items;
static long item_count;
static int highest;

/* The next free number; it stays free. */
static int next_number(void)
{
	int fd = dup(STDERR_FILENO);

	live_check(fd >= 0, "dup: %m");
	close(fd);
	return fd;
}

static void make(const struct item_kind *kind)
{
	struct item *item = &items[item_count];

	*item = (struct item){ .kind = kind, .number = item_count, .fds = { -1, -1, -1 } };
	kind->make(item);
	item_count++;
}

static void make_all(bool is_common, long count)
{
	int first = next_number();
	long round = 0;

	do {
		for (size_t i = 0; i < item_kind_count; i++) {
			const struct item_kind *kind = &item_kinds[i];

			if ((is_common && kind->is_only_ours) || (kind->most && round >= kind->most))
				continue;
			if (round && next_number() - first + ITEM_FDS > count)
				return;
			make(kind);
		}
		round++;
	} while (next_number() - first + ITEM_FDS <= count);
}

static void make_highest(void)
{
	struct rlimit limit;

	live_check(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit: %m");
	highest = limit.rlim_cur - 1;
	live_check(dup2(items[0].fds[0], highest) == highest, "dup2(%d): %m", highest);
}

static void check_highest(void)
{
	struct stat one, other;

	if (!highest)
		return;
	live_check(fstat(highest, &one) == 0 && fstat(items[0].fds[0], &other) == 0, "fstat(%d): %m",
		   highest);
	live_check(one.st_ino == other.st_ino, "descriptor %d is another file", highest);
}

static void check_all(bool is_last)
{
	for (long i = 0; i < item_count; i++) {
		struct item *item = &items[i];

		if (is_last && item->kind->check_last)
			item->kind->check_last(item);
		else if (item->kind->check)
			item->kind->check(item);
		if (!is_last && live_stopping())
			return;
	}
	check_highest();
}

static void check_flags(void)
{
	for (long i = 0; i < item_count; i++)
		for (int j = 0; j < ITEM_FDS; j++) {
			const struct item *item = &items[i];

			if (item->fds[j] < 0)
				continue;
			live_check(fcntl(item->fds[j], F_GETFL) == item->flags[j] &&
					   fcntl(item->fds[j], F_GETFD) == item->descriptor_flags[j],
				   "%s %ld: the flags of descriptor %d are different", item->kind->name,
				   item->number, item->fds[j]);
		}
}

/* Of some, the descriptor is closed by exec. */
static void note_flags(void)
{
	for (long i = 0; i < item_count; i++)
		for (int j = 0; j < ITEM_FDS; j++) {
			struct item *item = &items[i];

			if (item->fds[j] < 0)
				continue;
			if ((i + j) % 3 == 0)
				fcntl(item->fds[j], F_SETFD, FD_CLOEXEC);
			item->flags[j] = fcntl(item->fds[j], F_GETFL);
			item->descriptor_flags[j] = fcntl(item->fds[j], F_GETFD);
		}
}

static void raise_limit(void)
{
	struct rlimit limit;

	live_check(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit: %m");
	limit.rlim_cur = limit.rlim_max;
	live_check(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit: %m");
}

int main(int argc, char **argv)
{
	long count;
	bool is_common;

	live_begin(argc, argv);
	live_check(argc == 4, "usage: everything DIRECTORY all|common COUNT");
	raise_limit();
	live_check(chdir(argv[1]) == 0, "chdir: %m");
	umask(022);
	count = strtol(argv[3], NULL, 10);
	items = calloc(count + item_kind_count, sizeof(*items));
	is_common = strcmp(argv[2], "common") == 0;
	make_all(is_common, count);
	if (!is_common)
		make_highest();
	note_flags();
	check_all(false);
	live_ready();
	while (!live_stopping()) {
		check_all(false);
		live_sleep(0.005);
	}
	check_flags();
	check_all(true);
	return live_finish();
}
