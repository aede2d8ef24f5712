/*
 * epoll.c - epoll instances: the files that they watch, for which events, under which descriptors and for which
 * process.
 *
 * usage: epoll DIRECTORY plain|oneshot|reused|nested|shared|signals|apart
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "live.h"

#define DATA(n) (0xfedcba9876543200ULL + (n))

static int epoll, inner, pipes[4][2];
static pid_t child;

static void watch(int epfd, int fd, uint32_t events, int data)
{
	struct epoll_event event = { .events = events, .data.u64 = DATA(data) };

	live_check(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl: %m");
}

static void arm(int fd, uint32_t events, int data)
{
	struct epoll_event event = { .events = events, .data.u64 = DATA(data) };

	live_check(epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0, "epoll_ctl: %m");
}

static void send_byte(int pipe)
{
	live_check(write(pipes[pipe][1], "x", 1) == 1, "write: %m");
}

/* Expects exactly one event, with this data and these bits. */
static void expect(int epfd, int data, uint32_t events)
{
	struct epoll_event event = { 0 };
	int count = epoll_wait(epfd, &event, 1, 1000);

	live_check(count == 1, "event %d did not arrive (%m)", data);
	live_check(event.data.u64 == DATA(data) && event.events == events,
		   "event %llx of %llx arrived, not %x of %llx", (unsigned long long)event.events,
		   (unsigned long long)event.data.u64, events, (unsigned long long)DATA(data));
}

static void expect_nothing(int epfd)
{
	struct epoll_event event;

	live_check(epoll_wait(epfd, &event, 1, 20) == 0, "an unexpected event arrived (%x of %llx)",
		   event.events, (unsigned long long)event.data.u64);
}

static void make(void)
{
	epoll = epoll_create1(0);
	for (int i = 0; i < 4; i++)
		live_check(pipe2(pipes[i], O_NONBLOCK) == 0, "pipe2: %m");
}

/* ---- plain: level and edge, exclusive, a close-on-exec epoll, unread events ---- */

static void set_up_plain(void)
{
	watch(epoll, pipes[0][0], EPOLLIN | EPOLLPRI, 0);
	watch(epoll, pipes[1][0], EPOLLIN | EPOLLET, 1);
	watch(epoll, pipes[2][0], EPOLLIN | EPOLLEXCLUSIVE, 2);
	inner = epoll_create1(EPOLL_CLOEXEC);
	watch(inner, pipes[3][0], EPOLLIN, 3);
	watch(inner, pipes[3][1], EPOLLRDHUP, 4);
	send_byte(2);
}

static void verify_plain(void)
{
	live_check(fcntl(inner, F_GETFD) == FD_CLOEXEC && fcntl(epoll, F_GETFD) == 0, "wrong FD_CLOEXEC");
	expect(epoll, 2, EPOLLIN);
	live_check(read(pipes[2][0], &(char){ 0 }, 1) == 1, "read: %m");
	expect_nothing(epoll);
	expect_nothing(inner);
	send_byte(1);
	expect(epoll, 1, EPOLLIN);
	expect_nothing(epoll); /* an edge is reported once */
	send_byte(0);
	expect(epoll, 0, EPOLLIN);
	expect(epoll, 0, EPOLLIN);
	send_byte(3);
	expect(inner, 3, EPOLLIN);
	live_check(epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0][0], &(struct epoll_event){ 0 }) < 0 &&
			   errno == EEXIST,
		   "not watched");
	live_check(epoll_ctl(epoll, EPOLL_CTL_DEL, pipes[0][0], NULL) == 0,
		   "cannot remove the file from the epoll: %m");
	expect_nothing(epoll);
}

/* ---- oneshot: armed; fired with data left; fired and empty; fired and hung up ---- */

static void set_up_oneshot(void)
{
	watch(epoll, pipes[0][0], EPOLLIN | EPOLLONESHOT, 0);
	for (int i = 1; i < 4; i++) {
		watch(epoll, pipes[i][0], EPOLLIN | EPOLLONESHOT | (i == 2 ? EPOLLET : 0), i);
		send_byte(i);
		expect(epoll, i, EPOLLIN);
	}
	live_check(read(pipes[2][0], &(char){ 0 }, 1) == 1, "read: %m");
	close(pipes[3][1]);
}

static void verify_oneshot(void)
{
	expect_nothing(epoll);
	send_byte(0);
	expect(epoll, 0, EPOLLIN);
	send_byte(2);
	expect_nothing(epoll);
	arm(pipes[1][0], EPOLLIN | EPOLLONESHOT, 11);
	expect(epoll, 11, EPOLLIN);
	arm(pipes[2][0], EPOLLIN | EPOLLONESHOT, 12);
	expect(epoll, 12, EPOLLIN);
	arm(pipes[3][0], EPOLLIN | EPOLLONESHOT, 13);
	expect(epoll, 13, EPOLLIN | EPOLLHUP);
	expect_nothing(epoll);
}

/* ---- reused: a descriptor that was closed, one that is another file now, one under which two are watched ---- */

static void set_up_reused(void)
{
	live_check(dup2(pipes[0][0], 50) == 50 && dup2(pipes[1][0], 51) == 51 && dup2(pipes[2][0], 52) == 52,
		   "dup2: %m");
	for (int i = 0; i < 3; i++)
		watch(epoll, 50 + i, EPOLLIN, i);
	close(50);
	live_check(dup2(pipes[3][0], 51) == 51 && dup2(pipes[3][0], 52) == 52, "dup2: %m");
	watch(epoll, 52, EPOLLIN, 3);
}

static void verify_reused(void)
{
	for (int i = 0; i < 4; i++) {
		expect_nothing(epoll);
		send_byte(i);
		expect(epoll, i, EPOLLIN);
		live_check(read(pipes[i][0], &(char){ 0 }, 1) == 1, "read: %m");
	}
	live_check(fcntl(50, F_GETFD) < 0 && errno == EBADF, "the closed descriptor is open");
	close(pipes[3][0]);
	close(51);
	live_check(epoll_ctl(epoll, EPOLL_CTL_DEL, 52, NULL) == 0, "the later file is not watched as 52: %m");
	live_check(dup2(pipes[2][0], 52) == 52 && epoll_ctl(epoll, EPOLL_CTL_DEL, 52, NULL) == 0,
		   "the earlier file is not watched as 52: %m");
}

/* The peer watches the file under another descriptor, which only EPOLL_CTL_DEL can show. */
static void verify_renumbered(void)
{
	for (int i = 0; i < 4; i++) {
		send_byte(i);
		expect(epoll, i, EPOLLIN);
		live_check(read(pipes[i][0], &(char){ 0 }, 1) == 1, "read: %m");
	}
}

/* ---- nested: an epoll in an epoll, and timers and counters ---- */

static void set_up_nested(void)
{
	int event = eventfd(0, EFD_NONBLOCK), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);

	inner = epoll_create1(0);
	live_check(dup2(event, 60) == 60 && dup2(timer, 61) == 61, "dup2: %m");
	close(event);
	close(timer);
	watch(inner, 60, EPOLLIN, 1);
	watch(inner, 61, EPOLLIN, 2);
	watch(epoll, inner, EPOLLIN, 0);
	watch(epoll, pipes[0][0], EPOLLIN, 3);
}

static void verify_nested(void)
{
	struct itimerspec soon = { .it_value = { 0, 1000000 } };

	expect_nothing(epoll);
	live_check(write(60, &(uint64_t){ 1 }, 8) == 8, "write: %m");
	expect(epoll, 0, EPOLLIN);
	expect(inner, 1, EPOLLIN);
	live_check(read(60, &(uint64_t){ 0 }, 8) == 8, "read: %m");
	expect_nothing(epoll);
	timerfd_settime(61, 0, &soon, NULL);
	expect(epoll, 0, EPOLLIN);
	expect(inner, 2, EPOLLIN);
}

/* ---- shared: one epoll, two processes ---- */

static void wait_in_child(void)
{
	struct epoll_event event;

	signal(SIGTERM, live_stop_child);
	for (;;)
		if (epoll_wait(epoll, &event, 1, -1) == 1 && event.data.u64 == DATA(0)) {
			live_check(read(pipes[0][0], &(char){ 0 }, 1) == 1, "read: %m");
			send_byte(1);
		}
}

static void set_up_shared(void)
{
	watch(epoll, pipes[0][0], EPOLLIN, 0);
	child = live_fork(wait_in_child);
}

static void verify_shared(void)
{
	char byte;

	fcntl(pipes[1][0], F_SETFL, 0);
	for (int i = 0; i < 20; i++) {
		send_byte(0);
		live_check(read(pipes[1][0], &byte, 1) == 1, "the child does not answer: %m");
	}
	live_join(child);
}

/* ---- signals: a signalfd is watched on behalf of a process ---- */

static void set_up_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	inner = signalfd(-1, &set, SFD_NONBLOCK);
	watch(epoll, inner, EPOLLIN, 0);
}

/* The signal has to be sent while the process sleeps already. */
static void kill_later(void)
{
	live_sleep(0.1);
	kill(getppid(), SIGUSR1);
}

static void verify_signals(void)
{
	struct signalfd_siginfo facts;
	pid_t pid;

	expect_nothing(epoll);
	pid = live_fork(kill_later);
	expect(epoll, 0, EPOLLIN);
	live_check(read(inner, &facts, sizeof(facts)) == sizeof(facts) && facts.ssi_signo == SIGUSR1,
		   "read: %m");
	live_check((pid_t)facts.ssi_pid == pid, "the signal was sent by %u", facts.ssi_pid);
	live_join(pid);
}

/*
 * ---- apart: one process has the epoll, another one the files; their numbers are a regular file's, and nobody's ----
 */

static int pidfd;

static void hold_files(void)
{
	signal(SIGTERM, live_stop_child);
	close(epoll);
	for (;;) {
		char byte;

		if (read(pipes[3][0], &byte, 1) == 1)
			live_check(write(byte == 'x' ? pipes[0][1] : pipes[1][1], "x", 1) == 1, "write: %m");
		live_sleep(0.005);
	}
}

static void set_up_apart(void)
{
	pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	watch(epoll, pipes[0][0], EPOLLIN, 0);
	watch(epoll, pipes[1][0], EPOLLIN, 1);
	watch(epoll, pidfd, EPOLLIN, 2);
	child = live_fork(hold_files);
	live_check(dup2(open("/etc/passwd", O_RDONLY), pipes[0][0]) == pipes[0][0], "dup2: %m");
	close(pipes[1][0]);
	close(pidfd);
}

static void verify_apart(void)
{
	struct epoll_event events[2];

	expect_nothing(epoll);
	send_byte(3);
	expect(epoll, 0, EPOLLIN);
	live_check(write(pipes[3][1], "y", 1) == 1, "write: %m");
	for (double end = live_now() + 5; epoll_wait(epoll, events, 2, 100) != 2;)
		live_check(live_now() < end, "the second file is not watched");
	live_check(fcntl(pipes[1][0], F_GETFD) < 0, "the closed descriptor is open");
	live_check(read(pipes[0][0], &(char){ 0 }, 1) == 1, "the regular file: %m");
	live_check(epoll_ctl(epoll, EPOLL_CTL_DEL, pipes[0][0], NULL) < 0, "the regular file is watched");
	live_join(child);
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
} parts[] = {
	{ "plain", set_up_plain, verify_plain },       { "oneshot", set_up_oneshot, verify_oneshot },
	{ "reused", set_up_reused, verify_reused },    { "renumbered", set_up_reused, verify_renumbered },
	{ "nested", set_up_nested, verify_nested },    { "shared", set_up_shared, verify_shared },
	{ "signals", set_up_signals, verify_signals }, { "apart", set_up_apart, verify_apart },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);
	make();
	part->set_up();
	live_ready();
	live_wait_stop();
	part->verify();
	return live_finish();
}
