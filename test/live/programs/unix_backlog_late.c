/*
 * unix_backlog_late.c - connections that nobody has accepted, with messages that have files which exist only when the
 * processes do: pidfds, and files of /proc.
 *
 * usage: unix_backlog_late DIRECTORY waiting|mixed
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include "unix_talk.h"

#define LONG 70000

enum socket {
	LISTENER,
	CLIENT,
	PLAIN,
	HALF,
	OTHER,
	PAIR_OUT,
	PAIR_IN,
	WORD_OUT,
	WORD_IN,
	PIDFD,
	OWN,
	STATUS
};

static pid_t subject, gone; /* a child; one that has sent something and ended */
static bool is_mixed;

static void wait_for_end(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static int open_pidfd(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	live_check(fd >= 0, "pidfd_open: %m");
	return fd;
}

static void send_and_end(void)
{
	send_with(fds[PLAIN], "gone", &fds[PIDFD], 1);
}

static void fill(char *bytes)
{
	for (size_t i = 0; i < LONG; i++)
		bytes[i] = (char)(i * 3 + i / 251);
}

static void send_long(int fd)
{
	static char bytes[LONG];
	const int space = 4 * LONG;

	fill(bytes);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &space, sizeof(space));
	live_check(send(fd, bytes, LONG, MSG_DONTWAIT) == LONG, "send: %m");
}

static void receive_long(int fd)
{
	static char wanted[LONG], bytes[LONG];

	fill(wanted);
	live_check(recv(fd, bytes, LONG, MSG_WAITALL) == LONG && !memcmp(bytes, wanted, LONG), "%d: long: %m",
		   fd);
}

/* What is not in a queue of a connection that waits. */
static void set_up_pairs(void)
{
	int ends[2];

	for (int first = PAIR_OUT; first <= WORD_OUT; first += 2) {
		live_check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair: %m");
		fds[first] = ends[0];
		fds[first + 1] = ends[1];
	}
	send_with(fds[PAIR_OUT], "pair", &fds[PIDFD], 1);
	send_with(fds[PAIR_OUT], "client", &fds[CLIENT], 1);
	live_check(send(fds[WORD_OUT], "word", 4, 0) == 4, "send: %m");
	close(fds[PAIR_OUT]);
}

/* In this order the clients wait: CLIENT, one that was closed, PLAIN, HALF. */
static void set_up(void)
{
	int closed;

	subject = live_fork(wait_for_end);
	fds[LISTENER] = listen_at(SOCK_STREAM, "backlog", 8);
	fds[OTHER] = listen_at(SOCK_STREAM, "packets", 8);
	fds[CLIENT] = connected_to(SOCK_STREAM, "backlog");
	closed = connected_to(SOCK_STREAM, "backlog");
	fds[PLAIN] = connected_to(SOCK_STREAM, "backlog");
	fds[HALF] = connected_to(SOCK_STREAM, "backlog");
	fds[PIDFD] = open_pidfd(subject);
	fds[OWN] = open_pidfd(getpid());
	fds[STATUS] = open("/proc/self/status", O_RDONLY);
	live_check(fds[STATUS] >= 0, "/proc/self/status: %m");
	send_with(fds[CLIENT], "child", &fds[PIDFD], 1);
	send_long(fds[CLIENT]);
	send_with(fds[CLIENT], "both", &fds[OWN], 2);
	send_with(closed, "closed", &fds[PIDFD], 1);
	close(closed);
	send_with(fds[HALF], "half", &fds[OWN], 1);
	live_check(shutdown(fds[HALF], SHUT_WR) == 0, "shutdown: %m");
	if (!is_mixed)
		return;
	gone = live_fork(send_and_end);
	live_check(waitpid(gone, NULL, 0) == gone, "waitpid: %m");
	send_long(fds[PLAIN]);
	set_up_pairs();
}

static void check_pidfd(int fd, pid_t wanted)
{
	char place[64], text[1024] = "", words[32];
	int info;

	live_check(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == 0, "a pidfd of a dead process: %m");
	snprintf(place, sizeof(place), "/proc/self/fdinfo/%d", fd);
	snprintf(words, sizeof(words), "\nPid:\t%d\n", wanted);
	info = open(place, O_RDONLY);
	live_check(read(info, text, sizeof(text) - 1) > 0 && strstr(text, words),
		   "a pidfd of another process: %s", text);
	close(info);
}

static void check_status(int fd)
{
	char text[4096] = "", words[32];

	snprintf(words, sizeof(words), "\nPid:\t%d\n", getpid());
	live_check(pread(fd, text, sizeof(text) - 1, 0) > 0 && strstr(text, words), "another file: %s", text);
}

static struct told receive_files(int fd, const char *bytes, size_t count)
{
	struct told told = receive_told(fd);

	live_check(told.size == (ssize_t)strlen(bytes) && !memcmp(told.bytes, bytes, (size_t)told.size) &&
			   told.fd_count == count,
		   "%s: %zd bytes, %zu descriptors", bytes, told.size, told.fd_count);
	return told;
}

static void check_end(int fd, const char *what)
{
	char byte;

	live_check(recv(fd, &byte, 1, MSG_DONTWAIT) == 0, "%s has not ended: %m", what);
}

static void verify_pairs(int accepted)
{
	struct told told = receive_files(fds[PAIR_IN], "pair", 1);

	check_pidfd(told.fds[0], subject);
	told = receive_files(fds[PAIR_IN], "client", 1);
	talk_both(accepted, told.fds[0], "a client in flight");
	check_end(fds[PAIR_IN], "the pair");
	live_check(recv(fds[WORD_IN], told.bytes, 8, MSG_DONTWAIT) == 4, "a word: %m");
}

static void check_gone(int accepted)
{
	const int yes = 1, no = 0;
	struct told told;

	live_check(setsockopt(accepted, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) == 0, "SO_PASSCRED: %m");
	told = receive_files(accepted, "gone", 1);
	check_pidfd(told.fds[0], subject);
	live_check(told.has_sender && told.sender.pid == gone, "it is of process %d, not %d", told.sender.pid,
		   gone);
	live_check(setsockopt(accepted, SOL_SOCKET, SO_PASSCRED, &no, sizeof(no)) == 0, "SO_PASSCRED: %m");
	receive_long(accepted);
}

static void verify(void)
{
	int client = accept_from(fds[LISTENER]), closed = accept_from(fds[LISTENER]);
	int plain = accept_from(fds[LISTENER]), half = accept_from(fds[LISTENER]);
	struct told told = receive_files(client, "child", 1);

	check_pidfd(told.fds[0], subject);
	receive_long(client);
	told = receive_files(client, "both", 2);
	check_pidfd(told.fds[0], getpid());
	check_status(told.fds[1]);
	talk_both(client, fds[CLIENT], "the first client");
	told = receive_files(closed, "closed", 1);
	check_pidfd(told.fds[0], subject);
	check_end(closed, "a closed client");
	if (is_mixed)
		check_gone(plain);
	talk_both(plain, fds[PLAIN], "a plain client");
	told = receive_files(half, "half", 1);
	check_pidfd(told.fds[0], getpid());
	check_end(half, "a client that was shut down");
	if (is_mixed)
		verify_pairs(client);
	live_join(subject);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_check(chdir(live_directory) == 0, "chdir: %m");
	is_mixed = !strcmp(argv[2], "mixed");
	set_up();
	live_ready();
	live_wait_stop();
	verify();
	unlink("backlog");
	unlink("packets");
	return live_finish();
}
