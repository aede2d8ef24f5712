/*
 * inodes.c - inodes without a path (pipes, memory) have owner, mode and times, which fstat(2) shows. They must stay the
 * same, like those of a named pipe.
 *
 * usage: inodes DIRECTORY pipe|memfd|nameless|fifo|terminal|user|file_user|foreign
 * user: an ordinary user can open its pipes through /proc/self/fd; file_user: the same after setfsuid() only;
 * foreign: root has made one of the pipes, and the user cannot open that
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

#define PAGE  4096UL
#define MOST  8
#define USER  1234
#define GROUP 4321

static const char *kind;
static struct {
	int fd;
	struct stat before;
} inodes[MOST];
static int count, master;

static bool is(const char *wanted)
{
	return strcmp(kind, wanted) == 0;
}

static int add(int fd)
{
	live_check(fd >= 0 && count < MOST, "a file: %m");
	inodes[count++].fd = fd;
	return fd;
}

static void change(int fd, uid_t user, gid_t group, mode_t mode)
{
	static int seconds = 1000000000;
	const struct timespec times[2] = { { seconds, 123456789 }, { ++seconds, 987654321 } };

	live_check(fchown(fd, user, group) == 0 && fchmod(fd, mode) == 0 && futimens(fd, times) == 0,
		   "owner, mode or times: %m");
}

static int add_pipe(void)
{
	int ends[2];

	live_check(pipe2(ends, O_NONBLOCK) == 0, "pipe: %m");
	live_check(write(ends[1], "something", 9) == 9, "write: %m");
	add(ends[1]);
	return add(ends[0]);
}

static void set_up_pipe(void)
{
	int fd = add_pipe();
	char path[64];

	change(fd, USER, GROUP, 04640);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	add(open(path, O_RDWR)); /* a third open file of the pipe, besides the two that pipe() returns */
	change(add_pipe(), 0, GROUP, 0);
	add_pipe(); /* unchanged: made by this process, now */
}

static void set_up_memfd(void)
{
	int fd = add(memfd_create("with times", 0));

	live_check(write(fd, "something", 9) == 9, "write: %m");
	live_check(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED, "mmap: %m");
	change(fd, USER, GROUP, 0600);
	add(memfd_create("as it was made", MFD_ALLOW_SEALING));
	fd = add(memfd_create("sealed", MFD_ALLOW_SEALING));
	live_check(write(fd, "something", 9) == 9, "write: %m");
	change(fd, 0, 0, 0400);
	live_check(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0, "seal: %m");
}

static void set_up_nameless(void)
{
	char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char path[80];

	memset(memory, 'x', 2 * PAGE);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)memory,
		 (unsigned long)memory + 2 * PAGE);
	change(add(open(path, O_RDWR)), USER, GROUP, 0640);
}

static void set_up_fifo(void)
{
	char path[4096];
	int fd;

	live_path(path, sizeof(path), "fifo");
	live_check(mkfifo(path, 0600) == 0, "%s: %m", path);
	fd = add(open(path, O_RDWR));
	live_check(write(fd, "something", 9) == 9, "write: %m");
	change(fd, USER, GROUP, 0640);
}

/* The slave of a new terminal. No other process opens, reads or writes it. */
static void set_up_terminal(void)
{
	int slave;

	live_check(openpty(&master, &slave, NULL, NULL, NULL) == 0, "openpty: %m");
	change(add(slave), USER, GROUP, 0640);
}

/* The harness may have made us an ordinary user already. */
static void become_user(void)
{
	if (getuid())
		return;
	live_check(chown(live_directory, USER, GROUP) == 0, "%s: %m", live_directory);
	if (is("file_user")) {
		setfsgid(GROUP);
		setfsuid(USER);
		return;
	}
	live_check(setgroups(0, NULL) == 0 && setresgid(GROUP, GROUP, GROUP) == 0 &&
			   setresuid(USER, USER, USER) == 0,
		   "to become a user: %m");
}

static void set_up_user(void)
{
	if (is("foreign"))
		add_pipe();
	become_user();
	add_pipe();
}

/* Files that the process can open through /proc, and those that it cannot, stay the same. */
static void check_opened(void)
{
	for (int i = 0; i < count; i++) {
		bool is_foreign = inodes[i].before.st_uid != (uid_t)setfsuid(-1);
		char path[64];
		int fd;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", inodes[i].fd);
		fd = open(path, O_RDONLY | O_NONBLOCK);
		live_check(is_foreign ? fd < 0 && errno == EACCES : fd >= 0, "%s of user %u: %m", path,
			   inodes[i].before.st_uid);
		close(fd);
	}
}

static bool is_same_time(struct timespec one, struct timespec other)
{
	return one.tv_sec == other.tv_sec && one.tv_nsec == other.tv_nsec;
}

static void look(void)
{
	for (int i = 0; i < count; i++) {
		const struct stat *old = &inodes[i].before;
		struct stat now;

		live_check(fstat(inodes[i].fd, &now) == 0, "fstat: %m");
		live_check(now.st_uid == old->st_uid && now.st_gid == old->st_gid &&
				   now.st_mode == old->st_mode,
			   "%d: owner %u:%u was %u:%u, mode %o was %o", i, now.st_uid, now.st_gid,
			   old->st_uid, old->st_gid, now.st_mode, old->st_mode);
		live_check(is("file_user") || (is_same_time(now.st_atim, old->st_atim) &&
					       is_same_time(now.st_mtim, old->st_mtim)),
			   "%d: read at %ld.%09ld, was %ld.%09ld; written at %ld.%09ld, was %ld.%09ld", i,
			   now.st_atim.tv_sec, now.st_atim.tv_nsec, old->st_atim.tv_sec, old->st_atim.tv_nsec,
			   now.st_mtim.tv_sec, now.st_mtim.tv_nsec, old->st_mtim.tv_sec,
			   old->st_mtim.tv_nsec);
	}
	if (is("user") || is("file_user") || is("foreign"))
		check_opened();
}

static const struct {
	const char *name;
	void (*set_up)(void);
} kinds[] = {
	{ "pipe", set_up_pipe },	 { "memfd", set_up_memfd },  { "nameless", set_up_nameless },
	{ "fifo", set_up_fifo },	 { "user", set_up_user },    { "file_user", set_up_user },
	{ "terminal", set_up_terminal }, { "foreign", set_up_user },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	kind = argv[2];
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (is(kinds[i].name))
			kinds[i].set_up();
	for (int i = 0; i < count; i++)
		live_check(fstat(inodes[i].fd, &inodes[i].before) == 0, "fstat: %m");
	live_ready();
	do {
		look();
		live_sleep(0.005);
	} while (!live_stopping());
	look();
	return live_finish();
}
