/*
 * pipes.c - pipes: full ones, one end closed, packet mode, another size, between processes, and named pipes.
 *
 * usage: pipes DIRECTORY anonymous|packets|named
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

static int full[2], drained[2], broken[2], packets[2], large[2], to_child[2], from_child[2], idle[2];
static char content[65536];
static long filled;
static pid_t child;

static void make(int *ends, int flags)
{
	live_check(pipe2(ends, flags) == 0, "pipe2: %m");
}

static void set_up_anonymous(void)
{
	ssize_t written;

	live_fill(content, sizeof(content), 1);
	make(full, O_NONBLOCK);
	while ((written = write(full[1], content, 1000)) > 0)
		filled += written;
	make(drained, 0);
	live_check(write(drained[1], content, 5000) == 5000, "write: %m");
	close(drained[1]); /* data, then the end */
	make(broken, 0);
	close(broken[0]);
	make(large, O_CLOEXEC);
	fcntl(large[1], F_SETPIPE_SZ, 256 << 10);
	for (int i = 0; i < 3; i++)
		live_check(write(large[1], content, sizeof(content)) == sizeof(content), "write: %m");
	make(idle, 0);
}

static void check_pending(int fd, int expected, const char *what)
{
	int pending = -1;

	ioctl(fd, FIONREAD, &pending);
	live_check(pending == expected, "%s: %d bytes wait, not %d", what, pending, expected);
}

static void verify_anonymous(void)
{
	check_pending(full[0], filled, "the full pipe");
	check_pending(drained[0], 5000, "the pipe without a writer");
	check_pending(large[0], 3 * sizeof(content), "the large pipe");
	check_pending(idle[0], 0, "the idle pipe");
	live_check(fcntl(large[0], F_GETPIPE_SZ) == 256 << 10, "the large pipe has size %d",
		   fcntl(large[0], F_GETPIPE_SZ));
	live_check(fcntl(large[0], F_GETFD) == FD_CLOEXEC && fcntl(full[0], F_GETFD) == 0,
		   "wrong FD_CLOEXEC");
	live_check((fcntl(full[1], F_GETFL) & O_NONBLOCK) && !(fcntl(idle[1], F_GETFL) & O_NONBLOCK),
		   "wrong O_NONBLOCK");
}

static void drain(int fd, long expected, int last_error, const char *what)
{
	char buffer[1000];
	long total = 0;
	ssize_t length;

	while ((length = read(fd, buffer, sizeof(buffer))) > 0) {
		live_check(memcmp(buffer, content + total % 1000, 8) == 0 || what[4] != 'f',
			   "%s: wrong data at %ld", what, total);
		total += length;
	}
	live_check(total == expected, "%s: read %ld bytes, not %ld", what, total, expected);
	live_check(length == 0 ? last_error == 0 : errno == last_error, "%s: ended with %s", what,
		   strerror(errno));
}

static void drain_all(void)
{
	char buffer[sizeof(content)];

	drain(full[0], filled, EAGAIN, "the full pipe");
	drain(drained[0], 5000, 0, "the pipe without a writer");
	for (int i = 0; i < 3; i++) {
		for (size_t at = 0; at < sizeof(buffer);) {
			ssize_t length = read(large[0], buffer + at, sizeof(buffer) - at);
			live_check(length > 0, "the large pipe: %m");
			at += length;
		}
		live_compare(buffer, sizeof(buffer), 1, "the large pipe");
	}
	signal(SIGPIPE, SIG_IGN);
	live_check(write(broken[1], "x", 1) == -1 && errno == EPIPE,
		   "a pipe without a reader accepts a write");
	live_check(write(full[1], content, 4096) == 4096 && write(idle[1], "x", 1) == 1, "write: %m");
}

/* The child sends every number back: no number may be lost or arrive twice. */
static void echo(void)
{
	int number;

	close(to_child[1]);
	close(from_child[0]);
	while (read(to_child[0], &number, sizeof(number)) == sizeof(number))
		live_check(write(from_child[1], &number, sizeof(number)) == sizeof(number), "echo: %m");
}

static void transfer(int fd, void *data, ssize_t size, bool out)
{
	ssize_t length;

	do
		length = out ? write(fd, data, size) : read(fd, data, size);
	while (length < 0 && errno == EINTR);
	live_check(length == size, "a %s of %zd bytes did %zd: %m", out ? "write" : "read", size, length);
}

static void converse(void (*verify)(void))
{
	int sent = 0, answered = 0;

	while (!live_stopping()) {
		for (int ahead = 0; ahead < 50; ahead++, sent++)
			transfer(to_child[1], &sent, sizeof(sent), true);
		for (; answered < sent; answered++) {
			int number;
			transfer(from_child[0], &number, sizeof(number), false);
			live_check(number == answered, "the child answered %d, not %d", number, answered);
		}
		verify();
		live_sleep(0.0005);
	}
}

static void set_up_packets(void)
{
	make(packets, O_DIRECT | O_NONBLOCK);
	for (int i = 1; i <= 5; i++)
		live_check(write(packets[1], content, i * 10) == i * 10, "write: %m");
}

static void verify_packets(void)
{
	live_check(fcntl(packets[1], F_GETFL) & O_DIRECT, "the packet pipe has lost O_DIRECT");
	check_pending(packets[0], 10 + 20 + 30 + 40 + 50, "the packet pipe");
}

static void drain_packets(void)
{
	char buffer[100];

	for (int i = 1; i <= 5; i++)
		live_check(read(packets[0], buffer, sizeof(buffer)) == i * 10, "packet %d has another length",
			   i);
	live_check(read(packets[0], buffer, 1) == -1 && errno == EAGAIN, "one packet too many");
}

static void set_up_named(void)
{
	char path[4096];

	live_path(path, sizeof(path), "fifo");
	live_check(mkfifo(path, 0600) == 0, "%s: %m", path);
	full[0] = open(path, O_RDONLY | O_NONBLOCK);
	full[1] = open(path, O_WRONLY | O_NONBLOCK);
	live_check(full[0] >= 0 && full[1] >= 0, "%s: %m", path);
	live_fill(content, sizeof(content), 1);
	live_check(write(full[1], content, 5000) == 5000, "%s: %m", path);
}

static void verify_named(void)
{
	check_pending(full[0], 5000, "the named pipe");
}

static void drain_named(void)
{
	char buffer[5000];

	live_check(read(full[0], buffer, 5000) == 5000, "the named pipe: %m");
	live_compare(buffer, 5000, 1, "the named pipe");
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
	void (*drain)(void);
} parts[] = {
	{ "anonymous", set_up_anonymous, verify_anonymous, drain_all },
	{ "packets", set_up_packets, verify_packets, drain_packets },
	{ "named", set_up_named, verify_named, drain_named },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);
	make(to_child, 0);
	make(from_child, 0);
	child = live_fork(echo);
	close(to_child[0]);
	close(from_child[1]);
	part->set_up();
	live_ready();
	converse(part->verify);
	part->drain();
	close(to_child[1]);
	live_join(child);
	return live_finish();
}
