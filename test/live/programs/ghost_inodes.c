/*
 * ghost_inodes.c - deleted directories, pipes, links and devices; owners, modes and attributes; locks; files to which
 * another link leads (ghosts.h).
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include "ghosts.h"

static char other[SIZE];

/* ---- directories ---- */

static void set_up_directories(void)
{
	char path[4096];

	mkdir(at("a"), 0750);
	mkdir(at("a/b"), 01711);
	mkdir(at("a/b/c"), 0700);
	keep(open(at("a"), O_RDONLY | O_DIRECTORY));
	snprintf(path, sizeof(path), "%s", at("a/b/c"));
	live_check(chdir(path) == 0, "chdir: %m");
	keep(make("a/b/file", 0600, SIZE));
	keep(make("a/b/c/file", 0600, 100));
	unlink(at("a/b/file"));
	unlink(at("a/b/c/file"));
	live_check(!rmdir(at("a/b/c")) && !rmdir(at("a/b")) && !rmdir(at("a")), "rmdir: %m");
}

static void check_directories(void)
{
	struct stat now;
	char link[4096] = "", wanted[4096];

	compare(true);
	compare_content(fds[1], content, SIZE);
	compare_content(fds[2], content, 100);
	live_check(stat(".", &now) == 0 && now.st_nlink == 0 && now.st_mode == (S_IFDIR | 0700), "stat: %m");
	live_check(readlink("/proc/self/cwd", link, sizeof(link) - 1) > 0, "readlink: %m");
	snprintf(wanted, sizeof(wanted), "%s (deleted)", at("a/b/c"));
	live_check(!strcmp(link, wanted), "in %s", link);
	live_check(open("x", O_CREAT | O_RDWR, 0600) < 0 && errno == ENOENT, "a file in a deleted directory");
	live_check(access(at("a"), F_OK) < 0, "the directory is there again");
}

static void live_in_root(void)
{
	struct stat now;

	live_check(chroot(".") == 0, "chroot: %m");
	signal(SIGTERM, live_stop_child);
	for (;;) {
		if (stat("/", &now) < 0 || now.st_nlink || now.st_mode != (S_IFDIR | 0711))
			_exit(7);
		if (chdir("/..") < 0 || stat(".", &now) < 0 || now.st_nlink)
			_exit(8);
		usleep(1000);
	}
}

static void set_up_root(void)
{
	int here = open(".", O_RDONLY | O_DIRECTORY);

	live_check(!mkdir(at("root"), 0711) && !chdir(at("root")) && !rmdir(at("root")), "chdir: %m");
	child = live_fork(live_in_root);
	live_check(fchdir(here) == 0, "fchdir: %m");
	close(here);
}

static void check_root(void)
{
	usleep(1000);
}

/* ---- other types ---- */

static void set_up_types(void)
{
	mkfifo(at("pipe"), 0620);
	keep(open(at("pipe"), O_RDWR | O_NONBLOCK));
	live_check(write(fds[0], content, 1000) == 1000, "write: %m");
	keep(open(at("pipe"), O_RDONLY | O_NONBLOCK));
	unlink(at("pipe"));
	live_check(symlink("/no/such/target", at("link")) == 0, "symlink: %m");
	keep(open(at("link"), O_PATH | O_NOFOLLOW));
	unlink(at("link"));
}

static void check_types(void)
{
	char target[64] = "";

	compare(true);
	live_check(readlinkat(fds[2], "", target, sizeof(target) - 1) > 0 &&
			   !strcmp(target, "/no/such/target"),
		   "the link leads to %s", target);
	struct pollfd asked = { fds[1], POLLIN, 0 };
	live_check(poll(&asked, 1, 0) == 1 && asked.revents == POLLIN, "the pipe: %x", asked.revents);
}

static void end_types(void)
{
	live_check(read(fds[1], other, SIZE) == 1000 && !memcmp(other, content, 1000), "the pipe's content");
}

static void set_up_device(void)
{
	live_check(mknod(at("null"), S_IFCHR | 0600, makedev(1, 3)) == 0, "mknod: %m");
	keep(open(at("null"), O_RDWR));
	keep(open(at("null"), O_PATH));
	unlink(at("null"));
}

static void check_device(void)
{
	compare(false);
	live_check(write(fds[0], "x", 1) == 1 && read(fds[0], other, 1) == 0, "this is not /dev/null");
}

/* ---- owner, mode, times, attributes ---- */

static const unsigned char acl[] = { 2, 0,  0,	 0,   1,   0,	6,  0, 255, 255, 255, 255, 2,	0,  4,
				     0, 57, 48,	 0,   0,   4,	0,  4, 0,   255, 255, 255, 255, 16, 0,
				     4, 0,  255, 255, 255, 255, 32, 0, 0,   0,	 255, 255, 255, 255 };
static const unsigned char capability[20] = { 1, 0, 0, 2, 0, 32 };
static bool has_acl;

static void set_up_attributes(void)
{
	int fd = make("owned", 0600, 100);
	struct timespec times[2] = { { 2000000000, 123456789 }, { 1000000000, 987654321 } };

	keep(fd);
	live_check(geteuid() || fchown(fd, 12345, 54321) == 0, "fchown: %m");
	live_check(fchmod(fd, 06751) == 0, "fchmod: %m");
	live_check(!fsetxattr(fd, "user.criu", "a\0b", 3, 0) && !fsetxattr(fd, "user.empty", "", 0, 0),
		   "fsetxattr: %m");
	has_acl = fsetxattr(fd, "system.posix_acl_access", acl, sizeof(acl), 0) == 0;
	live_check(geteuid() || fsetxattr(fd, "security.capability", capability, sizeof(capability), 0) == 0,
		   "security.capability: %m");
	live_check(futimens(fd, times) == 0, "futimens: %m");
	keep(make("closed", 0, 50));
	unlink(at("owned"));
	unlink(at("closed"));
}

static void check_attribute(const char *name, const void *value, int size)
{
	char found[256];

	live_check(fgetxattr(fds[0], name, found, sizeof(found)) == size && !memcmp(found, value, size),
		   "attribute %s", name);
}

static void check_attributes(void)
{
	struct stat now;
	char found[256];

	compare(true);
	fstat(fds[0], &now);
	live_check(now.st_mtim.tv_sec == 1000000000 && now.st_mtim.tv_nsec == 987654321,
		   "modified at %ld.%ld", now.st_mtim.tv_sec, now.st_mtim.tv_nsec);
	live_check(now.st_atim.tv_sec == 2000000000 && now.st_atim.tv_nsec == 123456789,
		   "accessed at %ld.%ld", now.st_atim.tv_sec, now.st_atim.tv_nsec);
	check_attribute("user.criu", "a\0b", 3);
	check_attribute("user.empty", "", 0);
	if (has_acl)
		check_attribute("system.posix_acl_access", acl, sizeof(acl));
	live_check(fgetxattr(fds[1], "system.posix_acl_access", found, sizeof(found)) < 0,
		   "an ACL of the directory");
	if (!geteuid())
		check_attribute("security.capability", capability, sizeof(capability));
}

/* The directory has a default ACL: files get it, and the first two lose it again. */
static void set_up_default_acl(void)
{
	live_check(mkdir(at("d"), 02777) == 0 &&
			   !setxattr(at("d"), "system.posix_acl_default", acl, sizeof(acl), 0),
		   "default ACL: %m");
	snprintf(prefix, sizeof(prefix), "d/");
	keep(make("plain", 0640, 100));
	live_check(!fremovexattr(fds[0], "system.posix_acl_access") && !fchmod(fds[0], 0640) &&
			   (geteuid() || !fchown(fds[0], 0, 0)),
		   "fremovexattr: %m");
	unlink(at("plain"));
}

static void check_default_acl(void)
{
	char found[256];

	compare(true);
	live_check(fgetxattr(fds[0], "system.posix_acl_access", found, sizeof(found)) < 0,
		   "an ACL of the directory");
}

/* ---- locks ---- */

static void set_up_locked(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_start = 5, .l_len = 7 };

	keep(make("locked", 0600, 100));
	keep(open(at("locked"), O_RDWR));
	unlink(at("locked"));
	live_check(!flock(fds[0], LOCK_EX) && !fcntl(fds[1], F_OFD_SETLK, &lock), "lock: %m");
}

static void check_locked(void)
{
	struct flock lock = { .l_type = F_WRLCK };

	compare(true);
	live_check(flock(fds[1], LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "the file is not locked");
	live_check(!fcntl(fds[0], F_OFD_GETLK, &lock) && lock.l_type == F_WRLCK && lock.l_start == 5 &&
			   lock.l_len == 7,
		   "the range is not locked");
}

/* ---- a lease: it is refused, because reading the content would break it ---- */

static void set_up_leased(void)
{
	keep(make("leased", 0600, SIZE));
	unlink(at("leased"));
	live_check(fcntl(fds[0], F_SETLEASE, F_WRLCK) == 0, "lease: %m");
}

static void check_leased(void)
{
	live_check(fcntl(fds[0], F_GETLEASE) == F_WRLCK, "the lease has been broken");
}

/* ---- other links ---- */

/* Another name in the same directory, or in another. */
static void set_up_link(bool is_far)
{
	mkdir(at("far"), 0700);
	keep(make("first", 0640, SIZE));
	keep(open(at("first"), O_RDONLY));
	lseek(fds[0], 99, SEEK_SET);
	live_check(link(at("first"), at(is_far ? "far/second" : "second")) == 0, "link: %m");
	unlink(at("first"));
}

static void set_up_near(void)
{
	set_up_link(false);
}

static void set_up_far(void)
{
	set_up_link(true);
}

static void check_link(const char *name)
{
	struct stat now, found;

	compare(false);
	compare_content(fds[0], content, SIZE);
	fstat(fds[0], &now);
	live_check(stat(at(name), &found) == 0 && same(&now, &found), "%s is another file", name);
	live_check(access(at("first"), F_OK) < 0, "the name is there again");
}

static void check_near(void)
{
	check_link("second");
}

static void check_far(void)
{
	check_link("far/second");
}

static void end_far(void)
{
	char link[4096];

	read_link(fds[0], link);
	live_check(!strcmp(link, links[0]), "the file is %s, was %s", link, links[0]);
}

/* Opened with O_PATH: a symbolic link and a socket, of which only a link in another directory remains. */
static void set_up_path_far(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	mkdir(at("far"), 0700);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", at("socket"));
	live_check(!bind(fd, (struct sockaddr *)&address, sizeof(address)) &&
			   !symlink("target", at("symlink")),
		   "socket, symlink: %m");
	close(fd);
	keep(open(at("symlink"), O_PATH | O_NOFOLLOW));
	keep(open(at("socket"), O_PATH));
	live_check(!link(at("symlink"), at("far/symlink")) && !link(at("socket"), at("far/socket")) &&
			   !unlink(at("symlink")) && !unlink(at("socket")),
		   "link: %m");
}

static void check_path_far(void)
{
	char target[16] = "";

	compare(false);
	live_check(readlinkat(fds[0], "", target, sizeof(target)) == 6 && !strcmp(target, "target"),
		   "the symbolic link leads to '%s'", target);
}

static void end_path_far(void)
{
	live_check(!unlink(at("far/socket")) && !unlink(at("far/symlink")), "unlink: %m");
}

static const struct thing things[] = {
	{ "directories", set_up_directories, check_directories, NULL },
	{ "root", set_up_root, check_root, NULL },
	{ "types", set_up_types, check_types, end_types },
	{ "device", set_up_device, check_device, NULL },
	{ "attributes", set_up_attributes, check_attributes, NULL },
	{ "default-acl", set_up_default_acl, check_default_acl, NULL },
	{ "locked", set_up_locked, check_locked, NULL },
	{ "leased", set_up_leased, check_leased, NULL },
	{ "link-near", set_up_near, check_near, NULL },
	{ "link-far", set_up_far, check_far, end_far },
	{ "path-far", set_up_path_far, check_path_far, end_path_far },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	return run_thing(argc, argv, live_choose(things, argv[2]));
}
