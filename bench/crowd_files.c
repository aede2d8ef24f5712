/*
 * crowd_files.c - open files of one kind, and of mixed kinds. See crowd.h.
 *
 * A maker opens a few descriptors: it gets the directory of its files, and its own number. What only a few may exist of
 * on a usual machine (inotifies: 128 of a user; terminals) is made at most `most` times.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>
#include "crowd.h"

#define DATA "what nobody has read yet"

static int checked(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

static const char *path_of(long number, const char *what)
{
	static char path[64];

	snprintf(path, sizeof(path), "%s.%ld", what, number);
	return path;
}

static int open_new(const char *path)
{
	return checked(open(path, O_RDWR | O_CREAT, 0600), path);
}

static void put_data(int fd)
{
	checked(write(fd, DATA, sizeof(DATA)), "write");
}

static void make_regular(long number)
{
	int fd = open_new(path_of(number, "regular"));

	put_data(fd);
	checked(fcntl(fd, F_SETFL, number % 2 ? O_APPEND : 0), "F_SETFL");
}

static void make_again(long number)
{
	checked(open(path_of(number / 2, "regular"), O_RDONLY | O_CREAT | O_CLOEXEC, 0600), "open");
}

static void make_ghost(long number)
{
	const char *path = path_of(number, "ghost");

	put_data(open_new(path));
	checked(unlink(path), path);
}

static void make_pipe(long number)
{
	int ends[2];

	checked(pipe(ends), "pipe");
	if (number % 2)
		put_data(ends[1]);
}

static void make_pair(int type, bool data)
{
	int ends[2];

	checked(socketpair(AF_UNIX, type, 0, ends), "socketpair");
	if (data) {
		put_data(ends[0]);
		put_data(ends[1]);
	}
}

static void make_stream_pair(long number)
{
	make_pair(SOCK_STREAM, number % 2);
}

static void make_datagram_pair(long number)
{
	make_pair(SOCK_DGRAM, number % 2);
}

static int make_bound(int type, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = checked(socket(AF_UNIX, type, 0), "socket");

	strcpy(address.sun_path, path);
	checked(bind(fd, (struct sockaddr *)&address, sizeof(address)), path);
	return fd;
}

static void make_listener(long number)
{
	checked(listen(make_bound(SOCK_STREAM, path_of(number, "listener")), 5), "listen");
}

static void make_datagram(long number)
{
	make_bound(SOCK_DGRAM, path_of(number, "datagram"));
}

static void make_eventfd(long number)
{
	checked(eventfd(number % 7, EFD_NONBLOCK), "eventfd");
}

static void make_epoll(long number)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = number };
	int fd = checked(epoll_create1(0), "epoll_create1");

	for (int other = fd - 1; other > 2 && other > fd - 4; other--)
		if (epoll_ctl(fd, EPOLL_CTL_ADD, other, &event) < 0 && other > fd - 2)
			checked(epoll_ctl(fd, EPOLL_CTL_ADD, checked(eventfd(0, 0), "eventfd"), &event),
				"epoll_ctl");
}

static void make_timerfd(long number)
{
	struct itimerspec value = { .it_value.tv_sec = 100000 + number };
	int fd = checked(timerfd_create(CLOCK_MONOTONIC, 0), "timerfd_create");

	if (number % 2)
		checked(timerfd_settime(fd, 0, &value, NULL), "timerfd_settime");
}

static void make_signalfd(long number)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, number % 2 ? SIGUSR1 : SIGUSR2);
	checked(signalfd(-1, &signals, SFD_NONBLOCK), "signalfd");
}

static void watch(int inotify, long number)
{
	const char *path = path_of(number, "watched");

	close(open_new(path));
	checked(inotify_add_watch(inotify, path, IN_ATTRIB | IN_DELETE_SELF), "inotify_add_watch");
}

static void make_inotify(long number)
{
	watch(checked(inotify_init1(0), "inotify_init1"), number);
}

static void make_memfd(long number)
{
	put_data(checked(memfd_create(path_of(number, "memfd"), 0), "memfd_create"));
}

static void make_null(long number)
{
	checked(open("/dev/null", number % 2 ? O_RDONLY : O_RDWR), "/dev/null");
}

static void make_terminal(long number)
{
	int master = checked(posix_openpt(O_RDWR | O_NOCTTY), "/dev/ptmx");

	(void)number;
	checked(grantpt(master), "grantpt");
	checked(unlockpt(master), "unlockpt");
	checked(open(ptsname(master), O_RDWR | O_NOCTTY), "a pty");
}

static void make_flocked(long number)
{
	checked(flock(open_new(path_of(number, "flocked")), LOCK_EX), "flock");
}

static void make_leased(long number)
{
	checked(fcntl(open_new(path_of(number, "leased")), F_SETLEASE, F_WRLCK), "F_SETLEASE");
}

static void make_path(long number)
{
	close(open_new(path_of(number, "path")));
	checked(open(path_of(number, "path"), O_PATH), "O_PATH");
}

static void make_directory(long number)
{
	const char *path = path_of(number, "directory");

	checked(mkdir(path, 0700), path);
	checked(open(path, O_RDONLY | O_DIRECTORY), path);
}

static void make_copy(long number)
{
	checked(dup(dup(3 + number % 20)), "dup");
}

static const struct maker {
	const char *name;
	void (*make)(long number);
	long most; /* 0: as many as wanted */
} makers[] = {
	{ "regular", make_regular, 0 },	   { "again", make_again, 0 },
	{ "pipes", make_pipe, 0 },	   { "sockets", make_stream_pair, 0 },
	{ "eventfds", make_eventfd, 0 },   { "epolls", make_epoll, 0 },
	{ "regular", make_regular, 0 },	   { "again", make_again, 0 },
	{ "timerfds", make_timerfd, 0 },   { "signalfds", make_signalfd, 0 },
	{ "inotifies", make_inotify, 30 }, { "memfds", make_memfd, 0 },
	{ "null", make_null, 0 },	   { "terminals", make_terminal, 500 },
	{ "regular", make_regular, 0 },	   { "listeners", make_listener, 0 },
	{ "datagrams", make_datagram, 0 }, { "datagram-pairs", make_datagram_pair, 0 },
	{ "flocked", make_flocked, 0 },	   { "leased", make_leased, 0 },
	{ "paths", make_path, 0 },	   { "directories", make_directory, 0 },
	{ "copies", make_copy, 0 },	   { "ghosts", make_ghost, 0 },
};

#define MAKERS ((long)(sizeof(makers) / sizeof(*makers)))

/* The next free number; it stays free. */
static int next_number(void)
{
	int fd = checked(dup(2), "dup");

	close(fd);
	return fd;
}

/* Some makers open 3. */
static bool is_full(int first, long count)
{
	return next_number() - first + 3 > count;
}

/* In two processes, with the same open files. */
static void make_mixed(long count)
{
	int first = next_number();

	for (long i = 0; !is_full(first, count); i++) {
		const struct maker *maker = &makers[i % MAKERS];

		if (!maker->most || i / MAKERS < maker->most)
			maker->make(i);
	}
	if (!checked(fork(), "fork")) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
}

static void make_watches(long count)
{
	int inotify = checked(inotify_init1(0), "inotify_init1");

	for (long i = 0; i < count; i++)
		watch(inotify, i);
}

/* Only of one kind. */
static bool make_of_kind(const char *kind, long count)
{
	const struct maker *maker = makers;
	int first = next_number();

	while (maker < makers + MAKERS && strcmp(maker->name, kind) != 0)
		maker++;
	if (maker == makers + MAKERS)
		return false;
	for (long i = 0; !is_full(first, count); i++)
		maker->make(i);
	return true;
}

bool crowd_make_files(const char *kind, long count)
{
	if (!strcmp(kind, "mixed"))
		make_mixed(count);
	else if (!strcmp(kind, "watches"))
		make_watches(count);
	else
		return make_of_kind(kind, count);
	return true;
}
