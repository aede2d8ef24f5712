/*
 * queue_kinds.c - descriptors of other kinds that are only in flight: no process has them open.
 *
 * usage: queue_kinds DIRECTORY reaped|inotify|mqueue|deleted|namespace|fifo|timerfd|signalfd
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static int ends[2];
static char path[4096], other[4096];

static void send_and_close(int fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = "";
	struct iovec byte = { "x", 1 };
	struct msghdr message = { NULL, 0, &byte, 1, control, sizeof(control), 0 };
	struct cmsghdr *header = (struct cmsghdr *)control;

	live_check(fd >= 0, "a descriptor: %m");
	*header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	live_check(sendmsg(ends[0], &message, 0) == 1, "sendmsg: %m");
	close(fd);
}

static int receive(void)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = "", byte;
	struct iovec bytes = { &byte, 1 };
	struct msghdr message = { NULL, 0, &bytes, 1, control, sizeof(control), 0 };
	int fd;

	live_check(recvmsg(ends[1], &message, MSG_DONTWAIT) == 1 && CMSG_FIRSTHDR(&message), "recvmsg: %m");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

/* ---- a pidfd of a process that has been reaped, twice ---- */

static void nothing(void)
{
}

static void send_reaped(void)
{
	pid_t child = live_fork(nothing);
	int first = syscall(SYS_pidfd_open, child, 0), second = syscall(SYS_pidfd_open, child, O_NONBLOCK);

	live_check(waitpid(child, NULL, 0) == child, "waitpid: %m");
	send_and_close(first);
	send_and_close(second);
}

static void check_reaped(void)
{
	for (int i = 0; i < 2; i++) {
		int fd = receive();

		live_check(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 0) == 1, "it has not ended");
		live_check(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) < 0, "it can be signalled");
		live_check(!(fcntl(fd, F_GETFL) & O_NONBLOCK) == !i, "other flags");
		close(fd);
	}
}

/* ---- an inotify with an event and a watch ---- */

static void send_inotify(void)
{
	int fd = inotify_init1(IN_NONBLOCK);

	live_path(path, sizeof(path), "watched");
	live_path(other, sizeof(other), "watched/file");
	live_check(mkdir(path, 0700) == 0 && inotify_add_watch(fd, path, IN_CREATE | IN_DELETE) == 1,
		   "watch: %m");
	send_and_close(fd);
}

static void check_inotify(void)
{
	char buffer[400];
	struct inotify_event *event = (void *)buffer;
	int fd = receive();

	live_check(read(fd, buffer, sizeof(buffer)) < 0, "an event that nobody has caused");
	close(creat(other, 0600));
	live_check(read(fd, buffer, sizeof(buffer)) > 0 && event->wd == 1 && event->mask == IN_CREATE &&
			   !strcmp(event->name, "file"),
		   "the watch: %m");
	unlink(other);
	rmdir(path);
	close(fd);
}

/* ---- a message queue ---- */

static void send_mqueue(void)
{
	struct mq_attr wanted = { .mq_maxmsg = 3, .mq_msgsize = 16 };
	mqd_t queue = mq_open("/criu-live-flight", O_CREAT | O_EXCL | O_RDWR, 0600, &wanted);

	if (queue < 0)
		live_skip("no message queues: %m");
	mq_unlink("/criu-live-flight");
	live_check(mq_send(queue, "message", 7, 3) == 0, "mq_send: %m");
	send_and_close(queue);
}

static void check_mqueue(void)
{
	mqd_t queue = receive();
	unsigned priority;
	char text[16];

	live_check(mq_receive(queue, text, 16, &priority) == 7 && priority == 3 &&
			   !memcmp(text, "message", 7),
		   "mq_receive: %m");
	close(queue);
}

/* ---- a deleted file, twice ---- */

static void send_deleted(void)
{
	int fd, again;

	live_path(path, sizeof(path), "deleted");
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	again = open(path, O_RDONLY);
	live_check(write(fd, "content", 7) == 7 && unlink(path) == 0, "write: %m");
	send_and_close(fd);
	send_and_close(again);
}

static void check_deleted(void)
{
	int fd = receive(), again = receive();
	struct stat first, second;
	char text[16];

	live_check(lseek(fd, 0, SEEK_CUR) == 7 && read(again, text, 16) == 7 && !memcmp(text, "content", 7),
		   "the file has another content: %m");
	live_check(fstat(fd, &first) == 0 && fstat(again, &second) == 0 && first.st_ino == second.st_ino &&
			   !first.st_nlink,
		   "they are two files");
	live_check(access(path, F_OK) < 0, "the path exists");
	close(fd);
	close(again);
}

/* ---- others ---- */

static void send_namespace(void)
{
	send_and_close(open("/proc/self/ns/uts", O_RDONLY));
}

static void check_namespace(void)
{
	struct stat own, found;
	int fd = receive();

	live_check(stat("/proc/self/ns/uts", &own) == 0 && fstat(fd, &found) == 0 &&
			   own.st_ino == found.st_ino,
		   "it is another namespace");
	close(fd);
}

static void send_fifo(void)
{
	int fd;

	live_path(path, sizeof(path), "fifo");
	live_check(mkfifo(path, 0600) == 0, "mkfifo: %m");
	fd = open(path, O_RDWR | O_NONBLOCK);
	live_check(write(fd, "in the fifo", 11) == 11, "write: %m");
	send_and_close(fd);
}

static void check_fifo(void)
{
	int fd = receive();
	char text[16];

	live_check(read(fd, text, 16) == 11 && !memcmp(text, "in the fifo", 11) && read(fd, text, 16) < 0,
		   "the fifo has another content: %m");
	close(fd);
	unlink(path);
}

static void send_timerfd(void)
{
	const struct itimerspec wanted = { .it_value.tv_sec = 100000 };
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);

	live_check(timerfd_settime(fd, 0, &wanted, NULL) == 0, "timerfd: %m");
	send_and_close(fd);
}

static void check_timerfd(void)
{
	struct itimerspec found;
	int fd = receive();

	live_check(timerfd_gettime(fd, &found) == 0 && found.it_value.tv_sec > 90000 &&
			   found.it_value.tv_sec < 100000,
		   "%ld seconds are left: %m", (long)found.it_value.tv_sec);
	close(fd);
}

static void send_signalfd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	send_and_close(signalfd(-1, &set, SFD_NONBLOCK));
	raise(SIGUSR1);
}

static void check_signalfd(void)
{
	struct signalfd_siginfo found;
	int fd = receive();

	live_check(read(fd, &found, sizeof(found)) == sizeof(found) && found.ssi_signo == SIGUSR1,
		   "the signal: %m");
	close(fd);
}

static const struct {
	const char *name;
	void (*send)(void);
	void (*check)(void);
} kinds[] = {
	{ "reaped", send_reaped, check_reaped },	  { "inotify", send_inotify, check_inotify },
	{ "mqueue", send_mqueue, check_mqueue },	  { "deleted", send_deleted, check_deleted },
	{ "namespace", send_namespace, check_namespace }, { "fifo", send_fifo, check_fifo },
	{ "timerfd", send_timerfd, check_timerfd },	  { "signalfd", send_signalfd, check_signalfd },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const __typeof__(kinds[0]) *kind = live_choose(kinds, argv[2]);

	live_check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0, "socketpair: %m");
	kind->send();
	live_ready();
	live_wait_stop();
	kind->check();
	return live_finish();
}
