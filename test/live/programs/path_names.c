/*
 * path_names.c - open files whose paths or flags are unusual: each must be the same file afterwards, with the same
 * flags and the same position.
 *
 * usage: path_names DIRECTORY NAME
 * NAME: one of those in the table at the end
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "live.h"

#define MANY	64
#define ENTRIES 40 /* of a directory that is read in part */

static struct {
	int fd, flags;
	long position;
	struct stat facts;
	char path[8192]; /* what /proc says of it */
	bool is_read;	 /* what follows its position is in `rest` */
	char rest[64];
	ssize_t length;
} files[MANY];
static int count;
static int half_read = -1, entries_left;

static ssize_t read_rest(int i, char *rest)
{
	if (files[i].flags & O_PATH || (files[i].flags & O_ACCMODE) == O_WRONLY ||
	    !S_ISREG(files[i].facts.st_mode))
		return 0;
	return pread(files[i].fd, rest, sizeof(files[i].rest), files[i].position);
}

static void name_of(int fd, char *path)
{
	char link[64];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(files[0].path) - 1);
	live_check(length > 0, "%s: %m", link);
	path[length] = 0;
}

/* `is_read`: what is in it does not change by itself. */
static int watch(int fd, const char *what, bool is_read)
{
	live_check(fd >= 0, "%s: %m", what);
	live_check(count < MANY, "too many files");
	files[count].fd = fd;
	files[count].is_read = is_read;
	count++;
	return fd;
}

static void look(void)
{
	for (int i = 0; i < count; i++) {
		files[i].flags = fcntl(files[i].fd, F_GETFL);
		files[i].position = lseek(files[i].fd, 0, SEEK_CUR);
		live_check(fstat(files[i].fd, &files[i].facts) == 0, "fstat: %m");
		name_of(files[i].fd, files[i].path);
		files[i].length = files[i].is_read ? read_rest(i, files[i].rest) : 0;
	}
}

static void verify(void)
{
	for (int i = 0; i < count; i++) {
		const char *path = files[i].path;
		int fd = files[i].fd;
		char now[sizeof(files[i].path)], rest[sizeof(files[i].rest)];
		struct stat facts;

		live_check(fcntl(fd, F_GETFL) == files[i].flags, "%s: flags %o, were %o", path,
			   fcntl(fd, F_GETFL), files[i].flags);
		live_check(lseek(fd, 0, SEEK_CUR) == files[i].position, "%s: position %ld, was %ld", path,
			   lseek(fd, 0, SEEK_CUR), files[i].position);
		live_check(fstat(fd, &facts) == 0 && facts.st_ino == files[i].facts.st_ino &&
				   facts.st_dev == files[i].facts.st_dev &&
				   facts.st_mode == files[i].facts.st_mode,
			   "%s: another file", path);
		name_of(fd, now);
		live_check(!strcmp(now, path), "%s: the path was %s", now, path);
		if (files[i].is_read)
			live_check(read_rest(i, rest) == files[i].length &&
					   !memcmp(rest, files[i].rest, files[i].length),
				   "%s: the content has changed", path);
	}
}

/* Creates a file with some content. */
static void create(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);

	live_check(fd >= 0 && dprintf(fd, "this is %s\n", name) > 0, "%s: %m", name);
	close(fd);
}

static void watch_new(const char *name, int flags)
{
	create(name);
	lseek(watch(open(name, flags), name, true), 5, SEEK_SET);
}

/* ---- flags ---- */

static void flags(void)
{
	static const int wanted[] = { O_RDONLY,
				      O_WRONLY,
				      O_RDWR,
				      O_ACCMODE,
				      O_RDWR | O_NOFOLLOW,
				      O_RDWR | O_NOATIME,
				      O_RDWR | O_SYNC,
				      O_RDWR | O_DSYNC,
				      O_RDWR | O_APPEND | O_NONBLOCK,
				      O_WRONLY | O_APPEND | O_CLOEXEC,
				      O_RDONLY | O_NOCTTY | O_TRUNC };
	char name[32];
	int fd;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		snprintf(name, sizeof(name), "flags-%o", wanted[i]);
		create(name);
		lseek(watch(open(name, wanted[i]), name, (wanted[i] & O_ACCMODE) != O_ACCMODE), 5, SEEK_SET);
	}
	create("direct");
	fd = open("direct", O_RDWR | O_DIRECT);
	if (fd >= 0)
		watch(fd, "direct", false);
	watch(open(".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW), "directory", false);
	watch(open(".", O_RDONLY), "directory", false);
}

/* fcntl() sets flags that open() ignores, or that its caller had no right to. */
static void flags_set(void)
{
	create("changed");
	fcntl(watch(open("changed", O_RDWR), "changed", true), F_SETFL, O_NOATIME | O_APPEND | O_ASYNC);
	create("cleared");
	fcntl(watch(open("cleared", O_RDWR | O_APPEND | O_NONBLOCK), "cleared", true), F_SETFL, 0);
}

/* ---- O_PATH ---- */

static void bind_socket(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
	live_check(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %m", name);
	close(fd);
}

static void path_only(void)
{
	create("file");
	watch(open("file", O_PATH), "file", false);
	watch(open("file", O_PATH | O_NOFOLLOW | O_CLOEXEC), "file", false);
	watch(open(".", O_PATH), "directory", false);
	watch(open(".", O_PATH | O_DIRECTORY), "directory", false);
	live_check(mkfifo("fifo", 0600) == 0, "fifo: %m");
	watch(open("fifo", O_PATH), "fifo", false);
	watch(open("/", O_PATH), "/", false);
}

static void path_links(void)
{
	live_check(symlink("file", "link") == 0 && symlink("nowhere", "dangling") == 0 &&
			   symlink(".", "to-directory") == 0,
		   "symlink: %m");
	create("file");
	watch(open("link", O_PATH | O_NOFOLLOW), "link", false);
	watch(open("dangling", O_PATH | O_NOFOLLOW), "dangling", false);
	watch(open("to-directory", O_PATH | O_NOFOLLOW), "to-directory", false);
	watch(open("link", O_PATH), "file", false);
	watch(open("link", O_RDONLY), "file", true);
}

static void path_special(void)
{
	bind_socket("socket");
	watch(open("socket", O_PATH), "socket", false);
	watch(open("/dev/null", O_PATH), "/dev/null", false);
	watch(open("/dev/kmsg", O_PATH), "/dev/kmsg", false);
	watch(open("/dev/ptmx", O_PATH), "/dev/ptmx", false);
	watch(open("/dev/tty", O_PATH), "/dev/tty", false);
	live_check(mknod("block", S_IFBLK | 0600, 0x70001) == 0, "mknod: %m");
	watch(open("block", O_PATH), "block", false);
}

/* ---- names ---- */

static void names(void)
{
	static const char *const odd[] = { "a\nline",	 "a\\134back\\slash", "tab\t",
					   " blanks ",	 "\xff\xfe\x80",      "gone (deleted)",
					   "(deleted)",	 "pipe:[1]",	      "\"quoted'",
					   "%s%n",	 "\x1b[31m",	      "file",
					   "caf\xc3\xa9" };

	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		watch_new(odd[i], O_RDWR);
	live_check(mkdir("dir (deleted)", 0700) == 0, "mkdir: %m");
	watch_new("dir (deleted)/file", O_RDONLY);
	watch(open("dir (deleted)", O_RDONLY), "dir (deleted)", false);
	live_check(mkdir("d\\040\n", 0700) == 0, "mkdir: %m");
	watch_new("d\\040\n/file", O_RDWR | O_APPEND);
	live_check(symlink("x", "link (deleted)") == 0, "symlink: %m");
	watch(open("link (deleted)", O_PATH | O_NOFOLLOW), "link (deleted)", false);
}

/* The longest path that a call accepts: 4095 bytes. */
static void longest(void)
{
	char name[4096], part[256];
	size_t length;

	live_check(getcwd(name, sizeof(name)), "getcwd: %m");
	length = strlen(name);
	memset(part, 'x', 255);
	part[255] = 0;
	while (length + 256 < 4095 - 2) {
		name[length++] = '/';
		memcpy(name + length, part, 200);
		length += 200;
		name[length] = 0;
		live_check(mkdir(name, 0700) == 0, "%zu bytes: %m", length);
	}
	name[length++] = '/';
	memset(name + length, 'y', 4095 - length);
	name[4095] = 0;
	int fd = open(name, O_RDWR | O_CREAT, 0600);
	live_check(fd >= 0 && write(fd, "content", 7) == 7, "4095 bytes: %m");
	watch(fd, "4095 bytes", true);
	lseek(fd, 3, SEEK_SET);
}

/* ---- where criu needs rights that the process no longer has ---- */

static void mode_zero(void)
{
	watch_new("mode", O_RDWR);
	live_check(chmod("mode", 0) == 0, "chmod: %m");
	live_check(mkdir("closed", 0700) == 0, "mkdir: %m");
	watch_new("closed/inside", O_RDONLY);
	live_check(chmod("closed", 0) == 0 && chown(".", 65534, 65534) == 0 && setgid(65534) == 0 &&
			   setuid(65534) == 0,
		   "setuid: %m");
}

/* ---- other file systems ---- */

static void kernel_files(void)
{
	static const char *const paths[] = { "/proc/sys/kernel/osrelease",
					     "/proc/version",
					     "/proc/filesystems",
					     "/sys/kernel/mm/transparent_hugepage/enabled",
					     "/sys/devices/system/cpu/possible",
					     "/proc/kallsyms",
					     "/proc/cpuinfo" };
	char byte;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		int fd = open(paths[i], O_RDONLY);

		if (fd < 0)
			continue;
		live_check(read(fd, &byte, 1) == 1, "%s: %m", paths[i]);
		watch(fd, paths[i], strcmp(paths[i], "/proc/cpuinfo"));
	}
	watch(open("/proc/meminfo", O_RDONLY), "/proc/meminfo", false);
	lseek(files[count - 1].fd, 100, SEEK_SET);
	watch(open("/proc", O_RDONLY), "/proc", false);
	watch(open("/sys/kernel", O_RDONLY), "/sys/kernel", false);
	watch(open("/proc/sys/kernel", O_PATH), "/proc/sys/kernel", false);
}

static int read_entries(int fd, size_t room)
{
	char buffer[4096];
	long got = syscall(SYS_getdents64, fd, buffer, room);
	int entries = 0;

	live_check(got >= 0, "getdents64: %m");
	for (long at = 0; at < got; entries++)
		at += ((struct dirent64 *)(void *)(buffer + at))->d_reclen;
	return entries;
}

static void read_other_half(void)
{
	int entries;

	while (half_read >= 0 && (entries = read_entries(half_read, 4096)) > 0)
		entries_left -= entries;
	live_check(!entries_left, "%d entries of a directory were not read", entries_left);
}

/* A file of the lower layer that was copied up while it was open, one that was not, and a half-read directory. */
static void overlay(void)
{
	char name[32];
	int fd;

	for (const char *const *folder = (const char *const[]){ "lower", "upper", "work", "merged", NULL };
	     *folder; folder++)
		live_check(mkdir(*folder, 0700) == 0, "%s: %m", *folder);
	live_check(chdir("lower") == 0, "chdir: %m");
	create("copied");
	create("left");
	for (int i = 0; i < ENTRIES; i++) {
		snprintf(name, sizeof(name), "entry%d", i);
		create(name);
	}
	live_check(chdir("..") == 0, "chdir: %m");
	if (mount("overlay", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work"))
		live_skip("no overlayfs: %m");
	fd = watch(open("merged/copied", O_RDONLY), "copied", true);
	lseek(fd, 4, SEEK_SET);
	live_check(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED, "mmap: %m");
	watch(open("merged/copied", O_RDWR | O_APPEND), "copied", true);
	live_check(write(files[count - 1].fd, "more\n", 5) == 5, "write: %m");
	watch(open("merged/left", O_RDONLY), "left", true);
	watch_new("merged/new", O_RDWR);
	half_read = watch(open("merged", O_RDONLY), "merged", false);
	entries_left = ENTRIES + 5 - read_entries(half_read, 256); /* 3 files, "." and ".." */
}

/* One file is the mount point of another. */
static void bound(void)
{
	create("source");
	create("target");
	if (mount("source", "target", NULL, MS_BIND, NULL))
		live_skip("mount: %m");
	watch(open("target", O_RDWR), "target", true);
	watch(open("source", O_RDONLY), "source", true);
}

static void clean_up(void)
{
	umount2("merged", MNT_DETACH);
	umount2("target", MNT_DETACH);
	unlink("socket");
}

static const struct {
	const char *name;
	void (*set_up)(void);
} cases[] = {
	{ "flags", flags },
	{ "flags_set", flags_set },
	{ "path_only", path_only },
	{ "path_links", path_links },
	{ "path_special", path_special },
	{ "names", names },
	{ "longest", longest },
	{ "mode_zero", mode_zero },
	{ "kernel", kernel_files },
	{ "overlay", overlay },
	{ "bound", bound },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_check(argc > 2, "usage: path_names DIRECTORY NAME");
	live_choose(cases, argv[2])->set_up();
	look();
	live_ready();
	while (!live_stopping()) {
		verify();
		live_sleep(0.005);
	}
	verify();
	read_other_half();
	for (int i = 0; i < count; i++)
		close(files[i].fd);
	clean_up();
	return live_finish();
}
