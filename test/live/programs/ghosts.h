/*
 * ghosts.h - what ghost_files.c and ghost_inodes.c share: open files are noted when they are set up, and compared
 * later.
 *
 * usage of both: PROGRAM DIRECTORY THING [WHERE]: the files are in WHERE (default: DIRECTORY).
 */
#ifndef TEST_GHOSTS_H
#define TEST_GHOSTS_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

#define SIZE 70001

static const char *where;
static char content[SIZE];
static int fds[64], count;
static struct stat stats[64];
static int flags[64];
static off_t positions[64];
static char links[64][4096], prefix[256];
static pid_t child;
/* There will be no more dumps. A ghost has another inode after a restore, so numbers from before cannot be compared. */
static bool is_over;

static const char *at(const char *name)
{
	static char paths[4][4096];
	static int next;
	char *path = paths[next++ % 4];

	snprintf(path, 4096, "%s/%s%s", where, prefix, name);
	return path;
}

static int keep(int fd)
{
	live_check(fd >= 0, "open: %m");
	fds[count] = fd;
	return count++;
}

static int make(const char *name, int mode, int size)
{
	int fd = open(at(name), O_RDWR | O_CREAT | O_EXCL, mode);

	live_check(fd >= 0, "%s: %m", at(name));
	live_check(write(fd, content, size) == size, "write: %m");
	return fd;
}

static void read_link(int fd, char *link)
{
	char path[64];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = readlink(path, link, 4095);
	link[length > 0 ? length : 0] = '\0';
}

static void note(void)
{
	for (int i = 0; i < count; i++) {
		live_check(fstat(fds[i], &stats[i]) == 0, "fstat: %m");
		flags[i] = fcntl(fds[i], F_GETFL);
		positions[i] = flags[i] & O_PATH ? 0 : lseek(fds[i], 0, SEEK_CUR);
		read_link(fds[i], links[i]);
	}
}

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* A part of what was noted; inodes that were equal are equal again. `with_links`: also the names in /proc. */
static void compare(bool with_links)
{
	char link[4096];
	struct stat now[64];

	for (int i = 0; i < count; i++) {
		live_check(fstat(fds[i], &now[i]) == 0, "fstat: %m");
		live_check(now[i].st_mode == stats[i].st_mode, "file %d has mode %o, had %o", i,
			   now[i].st_mode, stats[i].st_mode);
		live_check(now[i].st_uid == stats[i].st_uid && now[i].st_gid == stats[i].st_gid,
			   "file %d belongs to %u:%u", i, now[i].st_uid, now[i].st_gid);
		live_check(now[i].st_size == stats[i].st_size || S_ISDIR(now[i].st_mode),
			   "file %d has %ld bytes, had %ld", i, now[i].st_size, stats[i].st_size);
		/* With --link-remap, a dump that lets the process run on leaves a name. */
		live_check(now[i].st_nlink - stats[i].st_nlink <= !with_links, "file %d has %lu links", i,
			   now[i].st_nlink);
		live_check(now[i].st_rdev == stats[i].st_rdev, "file %d is another device", i);
		live_check(fcntl(fds[i], F_GETFL) == flags[i], "file %d has flags %o, had %o", i,
			   fcntl(fds[i], F_GETFL), flags[i]);
		live_check(flags[i] & O_PATH || lseek(fds[i], 0, SEEK_CUR) == positions[i],
			   "file %d has another position", i);
		read_link(fds[i], link);
		live_check(!with_links || !strcmp(link, links[i]), "file %d is %s, was %s", i, link,
			   links[i]);
		for (int k = 0; k < i && is_over; k++)
			live_check(same(&now[i], &now[k]) == same(&stats[i], &stats[k]),
				   "files %d and %d are inodes %lu and %lu, were %lu and %lu", i, k,
				   now[i].st_ino, now[k].st_ino, stats[i].st_ino, stats[k].st_ino);
	}
}

static void compare_content(int fd, const char *expected, int size)
{
	static char found[SIZE + 1];
	ssize_t length = pread(fd, found, sizeof(found), 0);

	live_check(length == size && !memcmp(found, expected, size), "%ld bytes, or others", length);
}

/* `end` comes last, and may be NULL. */
struct thing {
	const char *name;
	void (*set_up)(void), (*check)(void), (*end)(void);
};

static int run_thing(int argc, char **argv, const struct thing *thing)
{
	where = argc > 3 ? argv[3] : live_directory;
	umask(0);
	if (argc > 3)
		snprintf(prefix, sizeof(prefix), "criu-live-%d-", getpid());
	live_fill(content, sizeof(content), 1);
	thing->set_up();
	note();
	live_ready();
	while (!live_stopping()) {
		thing->check();
		live_sleep(0.002);
	}
	is_over = true;
	thing->check();
	if (thing->end)
		thing->end();
	if (child)
		live_join(child);
	return live_finish();
}

#endif
