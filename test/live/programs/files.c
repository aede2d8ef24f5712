/*
 * files.c - open files: positions, flags, sharing by dup() and fork(), directories, devices, owners of signals.
 *
 * usage: files DIRECTORY [O_DIRECTORY]: the directory is opened with that flag, which F_GETFL shows.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

enum {
	READ,
	WRITE,
	APPEND,
	COPY,
	CLOSE_ON_EXEC,
	HIGH,
	DIRECTORY,
	PATH_ONLY,
	DEV_NULL,
	DEV_ZERO,
	DEV_FULL,
	DEV_RANDOM,
	COUNT
};

struct seen {
	int flags, descriptor_flags, owner, signo;
	off_t position;
	struct stat facts;
};

static int fds[COUNT];
static struct seen before[COUNT];
static volatile off_t *child_moved;
static pid_t child;

static int open_file(const char *name, int flags)
{
	char path[4096];

	live_path(path, sizeof(path), name);
	int fd = open(path, flags | O_CREAT, 0640);
	live_check(fd >= 0, "%s: %m", path);
	return fd;
}

static void write_numbers(int fd)
{
	for (int i = 0; i < 1000; i++)
		dprintf(fd, "%06d\n", i);
}

static void set_up_regular(void)
{
	fds[WRITE] = open_file("numbers", O_RDWR | O_TRUNC);
	write_numbers(fds[WRITE]);
	fds[READ] = open_file("numbers", O_RDONLY);
	lseek(fds[READ], 7 * 100, SEEK_SET);
	lseek(fds[WRITE], 7 * 200, SEEK_SET);
	fds[COPY] = dup(fds[WRITE]);
	fds[HIGH] = fcntl(fds[READ], F_DUPFD, 900);
	fds[APPEND] = open_file("appended", O_WRONLY | O_APPEND | O_NONBLOCK | O_SYNC);
	write_numbers(fds[APPEND]);
	fds[CLOSE_ON_EXEC] = open_file("cloexec", O_RDWR | O_CLOEXEC);
	fcntl(fds[CLOSE_ON_EXEC], F_SETOWN, getpid());
	fcntl(fds[CLOSE_ON_EXEC], F_SETSIG, SIGRTMIN + 3);
}

static void set_up_special(int directory_flags)
{
	char buffer[128];

	fds[DIRECTORY] = open(live_directory, O_RDONLY | directory_flags);
	for (int i = 0; i < 40; i++)
		close(open_file((snprintf(buffer, sizeof(buffer), "entry%d", i), buffer), O_WRONLY));
	live_check(syscall(SYS_getdents64, fds[DIRECTORY], buffer, sizeof(buffer)) > 0, "getdents64: %m");
	fds[PATH_ONLY] = open(live_directory, O_PATH);
	fds[DEV_NULL] = open("/dev/null", O_WRONLY);
	fds[DEV_ZERO] = open("/dev/zero", O_RDONLY);
	fds[DEV_FULL] = open("/dev/full", O_RDWR);
	fds[DEV_RANDOM] = open("/dev/urandom", O_RDONLY);
}

static struct seen look(int fd)
{
	struct seen seen;

	memset(&seen, 0, sizeof(seen));
	seen.flags = fcntl(fd, F_GETFL);
	seen.descriptor_flags = fcntl(fd, F_GETFD);
	seen.owner = fcntl(fd, F_GETOWN);
	seen.signo = fcntl(fd, F_GETSIG);
	seen.position = lseek(fd, 0, SEEK_CUR);
	fstat(fd, &seen.facts);
	return seen;
}

static void verify(void)
{
	for (int i = 0; i < COUNT; i++) {
		struct seen now = look(fds[i]), *was = &before[i];
		live_check(now.flags == was->flags, "file %d: flags %o, were %o", i, now.flags, was->flags);
		live_check(now.descriptor_flags == was->descriptor_flags, "file %d: descriptor flags %d", i,
			   now.descriptor_flags);
		live_check(now.owner == was->owner && now.signo == was->signo, "file %d: owner %d, signal %d",
			   i, now.owner, now.signo);
		live_check(now.position == was->position || i >= DEV_NULL, "file %d: position %ld, was %ld",
			   i, now.position, was->position);
		live_check(now.facts.st_ino == was->facts.st_ino && now.facts.st_dev == was->facts.st_dev &&
				   now.facts.st_mode == was->facts.st_mode,
			   "file %d is another file", i);
	}
}

static int read_number(int fd)
{
	char line[8] = "";

	live_check(read(fd, line, 7) == 7, "read: %m");
	return atoi(line);
}

/* A new position shows in the descriptor's copy and in the child, and in no other descriptor. */
static void verify_sharing(void)
{
	live_check(read_number(fds[READ]) == 100 && read_number(fds[HIGH]) == 101,
		   "a descriptor's copy has another position");
	live_check(read_number(fds[WRITE]) == 200 && read_number(fds[COPY]) == 201,
		   "the copy of an O_RDWR descriptor has another position");
	kill(child, SIGUSR1);
	live_await(*child_moved >= 0, "the child does not answer");
	live_check(*child_moved == 7 * 202, "the child moved from %ld", *child_moved);
	live_check(read_number(fds[COPY]) == 300, "the child's move is not seen in the parent");
}

static void verify_regular(void)
{
	char line[8] = "";
	struct stat facts;

	off_t size = before[APPEND].facts.st_size;
	live_check(write(fds[APPEND], "final\n", 6) == 6 && fstat(fds[APPEND], &facts) == 0, "append: %m");
	live_check(facts.st_size == size + 6, "the file grew from %ld to %ld", size, facts.st_size);
	live_check(pwrite(fds[WRITE], "changed", 7, 7 * 500) == 7, "pwrite: %m");
	live_check(pread(fds[READ], line, 7, 7 * 500) == 7 && strcmp(line, "changed") == 0,
		   "read after write: %s", line);
	live_check(write(fds[READ], "x", 1) == -1 && errno == EBADF,
		   "a read-only descriptor accepts a write");
}

static void verify_special(void)
{
	char buffer[128] = "x";
	int entries = 0;
	long length;

	while ((length = syscall(SYS_getdents64, fds[DIRECTORY], buffer, sizeof(buffer))) > 0)
		for (long at = 0; at < length; at += ((struct dirent64 *)(buffer + at))->d_reclen)
			entries++;
	live_check(entries > 30 && entries < 60, "%d more entries in the directory", entries);
	live_check(openat(fds[PATH_ONLY], "numbers", O_RDONLY) >= 0, "openat below O_PATH: %m");
	live_check(write(fds[DEV_NULL], "x", 1) == 1, "/dev/null: %m");
	live_check(read(fds[DEV_ZERO], buffer, 1) == 1 && buffer[0] == 0, "/dev/zero: %m");
	live_check(write(fds[DEV_FULL], "x", 1) == -1 && errno == ENOSPC, "/dev/full: %m");
	live_check(read(fds[DEV_RANDOM], buffer, 16) == 16, "/dev/urandom: %m");
}

static void on_usr1(int signo)
{
	off_t position = lseek(fds[COPY], 0, SEEK_CUR);

	lseek(fds[WRITE], 7 * 300, SEEK_SET);
	*child_moved = position;
}

static void run_child(void)
{
	signal(SIGUSR1, on_usr1);
	while (!live_stopping())
		live_sleep(0.01);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	child_moved = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	*child_moved = -1;
	set_up_regular();
	set_up_special(argc > 2 ? O_DIRECTORY : 0);
	child = live_fork(run_child);
	for (int i = 0; i < COUNT; i++)
		before[i] = look(fds[i]);
	live_ready();
	while (!live_stopping()) {
		verify();
		live_sleep(0.005);
	}
	verify();
	verify_sharing();
	verify_regular();
	verify_special();
	live_join(child);
	return live_finish();
}
