/*
 * passing_name.c - see passing_name.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "base/memory.h"
#include "files/passing_name.h"

#define TRIES 16

/* The way to the directory of a name, and the directories that had to be made for it. */
struct way {
	int directory; /* -1: not open */
	struct made {
		int parent;
		char *name;
	} * made;
	size_t count;
};

static void leave(struct way *way)
{
	if (way->directory >= 0)
		close(way->directory);
	while (way->count) {
		struct made *made = &way->made[--way->count];

		if (unlinkat(made->parent, made->name, AT_REMOVEDIR) < 0)
			log_warning("cannot remove the directory '%s', which criu has made: %s", made->name,
				    strerror(errno));
		close(made->parent);
		free(made->name);
	}
	free(way->made);
}

static int open_directory(int parent, const char *name, int flags)
{
	return openat(parent, name, O_PATH | O_DIRECTORY | O_CLOEXEC | flags);
}

/* Goes on to a directory. False: the way ends here, as it is no directory, and cannot become one. */
static bool enter(struct way *way, const char *name, bool may_make)
{
	int next = open_directory(way->directory, name, 0);

	if (next < 0 && errno == ENOENT && may_make && mkdirat(way->directory, name, 0700) == 0) {
		next = open_directory(way->directory, name, O_NOFOLLOW);
		*grow(&way->made, &way->count) = (struct made){ fcntl(way->directory, F_DUPFD_CLOEXEC, 0),
								copy_text(name) };
	}
	if (next < 0)
		return false;
	close(way->directory);
	way->directory = next;
	return true;
}

/* Goes as far as there are directories, or can be. */
static int find_way(const char *path, bool may_make, struct way *way)
{
	autofree char *directory = copy_text(path);
	char *last = strrchr(directory, '/'), *rest = directory, *name;

	if (!last || !last[1])
		return -EINVAL;
	*last = '\0';
	way->directory = open_directory(AT_FDCWD, *directory ? directory : "/", 0);
	if (way->directory >= 0)
		return 0;
	way->directory = open_directory(AT_FDCWD, "/", 0);
	if (way->directory < 0)
		return -errno;
	while ((name = strsep(&rest, "/")))
		if (*name && !enter(way, name, may_make))
			break;
	return 0;
}

int passing_name_place(const char *path)
{
	struct way way = { .directory = -1 };
	int result = find_way(path, false, &way), directory = result ? result : steal_fd(&way.directory);

	leave(&way);
	return directory;
}

int passing_name_check(const char *path)
{
	autoclose int directory = passing_name_place(path);

	if (directory < 0)
		return directory;
	return faccessat(directory, ".", W_OK | X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

static void choose_name(const char *wanted, char name[NAME_MAX + 1])
{
	int most = NAME_MAX - (int)strlen(PASSING_MARK) - PASSING_DIGITS;
	uint32_t number = 0;

	if (getrandom(&number, sizeof(number), 0) < 0)
		number = getpid();
	snprintf(name, NAME_MAX + 1, "%.*s" PASSING_MARK "%0*x", most, wanted, PASSING_DIGITS, number);
}

/* Removes the name, if it is still that of the inode. */
static int take_away(int directory, const char *name, int fd)
{
	struct stat made, found;

	if (fstat(fd, &made) < 0 || fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (made.st_ino != found.st_ino || made.st_dev != found.st_dev)
		return -ESTALE;
	return unlinkat(directory, name, S_ISDIR(made.st_mode) ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}

static int make_and_take_away(int directory, const char *name, passing_maker *make, const void *argument)
{
	int fd, result;

	if (make(directory, name, argument) < 0)
		return -errno;
	fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	result = take_away(directory, name, fd);
	if (result)
		close(fd);
	return result ?: fd;
}

int passing_name(const char *path, passing_maker *make, const void *argument)
{
	struct way way = { .directory = -1 };
	const char *wanted = strrchr(path, '/') + 1;
	char name[NAME_MAX + 1];
	int result = find_way(path, true, &way);

	if (!result)
		result = strlen(wanted) > NAME_MAX ?
				 -EEXIST :
				 make_and_take_away(way.directory, wanted, make, argument);
	for (int i = 0; result == -EEXIST && i < TRIES; i++) {
		choose_name(wanted, name);
		result = make_and_take_away(way.directory, name, make, argument);
	}
	leave(&way);
	return result;
}

void passing_name_strip(char *path)
{
	size_t length = strlen(path), mark = strlen(PASSING_MARK), tail = mark + PASSING_DIGITS;
	char *end = path + length - tail;

	if (length <= tail || end[-1] == '/' || strncmp(end, PASSING_MARK, mark) ||
	    strspn(end + mark, "0123456789abcdef") != PASSING_DIGITS)
		return;
	*end = '\0';
}
