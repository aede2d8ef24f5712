/*
 * place.c - the process's working directory, umask and root.
 *
 * usage: place DIRECTORY here|chroot
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

static char before[PATH_MAX], root_before[PATH_MAX];

static void read_link(const char *name, char *target)
{
	ssize_t length = readlink(name, target, PATH_MAX - 1);

	live_check(length > 0, "%s: %m", name);
	target[length] = 0;
}

static void enter_jail(const char *jail)
{
	live_check(mkdir("proc", 0755) == 0, "mkdir: %m");
	live_check(chroot(jail) == 0, "chroot: %m");
	live_directory = "/";
}

static void verify(void)
{
	char now[PATH_MAX];

	live_check(getcwd(now, sizeof(now)), "getcwd: %m");
	live_check(strcmp(now, before) == 0, "the working directory was %s and is %s", before, now);
	mode_t mask = umask(037);
	live_check(mask == 037, "the umask is %o", mask);
}

static void verify_new_file(void)
{
	struct stat in_place, by_path;
	char path[PATH_MAX + 20];

	int fd = open("made-here", O_CREAT | O_EXCL | O_WRONLY, 0777);
	live_check(fd >= 0 && fstat(fd, &in_place) == 0, "made-here: %m");
	snprintf(path, sizeof(path), "%s/made-here", before);
	live_check(stat(path, &by_path) == 0 && by_path.st_ino == in_place.st_ino,
		   "%s is not the file that was created here", path);
	live_check((in_place.st_mode & 0777) == 0740, "the new file has mode %o", in_place.st_mode & 0777);
	close(fd);
	unlink("made-here");
}

int main(int argc, char **argv)
{
	char deep[PATH_MAX];

	live_begin(argc, argv);
	live_path(deep, sizeof(deep), "deep");
	mkdir(deep, 0755);
	live_path(deep, sizeof(deep), "deep/er");
	mkdir(deep, 0755);
	bool jailed = strcmp(argv[2], "chroot") == 0;
	if (jailed)
		enter_jail(argv[1]);
	live_check(chdir(jailed ? "/deep/er" : deep) == 0, "chdir: %m");
	live_check(getcwd(before, sizeof(before)), "getcwd: %m");
	umask(037);
	if (!jailed)
		read_link("/proc/self/root", root_before);
	live_ready();
	while (!live_stopping()) {
		verify();
		live_sleep(0.002);
	}
	verify();
	verify_new_file();
	if (jailed) {
		live_check(access("/etc/passwd", F_OK) < 0, "the root is not the jail");
		live_check(access("/deep", F_OK) == 0, "the root is not the jail");
	} else {
		char root[PATH_MAX];
		read_link("/proc/self/root", root);
		live_check(strcmp(root, root_before) == 0, "the root is %s", root);
	}
	return live_finish();
}
