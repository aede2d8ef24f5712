/*
 * queue_refused.c - has unread messages and options of sockets that a dump must refuse.
 *
 * usage: queue_refused DIRECTORY urgent|reset|epoll|owned|thread|wanted|program|inq|stranger|lock|elsewhere|tty
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "live.h"

#define SO_PASSPIDFD_ 76 /* Linux 6.5 */
#define SO_INQ_	      84 /* 6.18 */

static int ends[2];

static void pair(int type)
{
	live_check(socketpair(AF_UNIX, type, 0, ends) == 0, "socketpair: %m");
}

static void send_control(int type, const void *data, size_t size)
{
	char control[64] __attribute__((aligned(8))) = "";
	struct iovec bytes = { "bytes", 5 };
	struct msghdr message = { NULL, 0, &bytes, 1, control, CMSG_SPACE(size), 0 };
	struct cmsghdr *header = (struct cmsghdr *)control;

	*header = (struct cmsghdr){ CMSG_LEN(size), SOL_SOCKET, type };
	memcpy(CMSG_DATA(header), data, size);
	live_check(sendmsg(ends[0], &message, 0) == 5, "sendmsg: %m");
}

static void urgent(void)
{
	pair(SOCK_STREAM);
	if (send(ends[0], "urgent", 6, MSG_OOB) < 0)
		live_skip("this kernel has no MSG_OOB of unix sockets");
}

static void reset(void)
{
	pair(SOCK_SEQPACKET);
	live_check(send(ends[0], "1", 1, 0) + send(ends[1], "2", 1, 0) == 2, "send: %m");
	close(ends[0]);
}

static void send_and_close(int fd)
{
	pair(SOCK_DGRAM);
	send_control(SCM_RIGHTS, &fd, sizeof(fd));
	close(fd);
}

static void epoll(void)
{
	send_and_close(epoll_create1(0));
}

static void owned(void)
{
	int fd = eventfd(0, 0);

	live_check(fcntl(fd, F_SETOWN, getpid()) == 0, "F_SETOWN: %m");
	send_and_close(fd);
}

static void *tell(void *tid)
{
	*(volatile pid_t *)tid = gettid();
	for (;;)
		pause();
	return NULL;
}

static void of_thread(void)
{
	static volatile pid_t tid;
	pthread_t thread;
	char path[64];

	live_check(pthread_create(&thread, NULL, tell, (void *)&tid) == 0, "pthread_create");
	while (!tid)
		live_sleep(0.001);
	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", tid);
	send_and_close(open(path, O_RDONLY));
}

static void wanted(void)
{
	struct ucred self = { getpid(), getuid(), getgid() };

	pair(SOCK_STREAM);
	if (setsockopt(ends[1], SOL_SOCKET, SO_PASSPIDFD_, &(int){ 1 }, sizeof(int)) < 0)
		live_skip("this kernel has no SO_PASSPIDFD");
	send_control(SCM_CREDENTIALS, &self, sizeof(self));
}

static void program(void)
{
	const struct bpf_insn code[] = { { .code = BPF_ALU64 | BPF_MOV, .imm = 100 },
					 { .code = BPF_JMP | BPF_EXIT } };
	union bpf_attr attributes = {
		.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insns = (uintptr_t)code,
		.insn_cnt = 2,
		.license = (uintptr_t) "GPL",
	};
	int loaded = syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes));

	pair(SOCK_DGRAM);
	if (loaded < 0)
		live_skip("eBPF: %m");
	live_check(setsockopt(ends[1], SOL_SOCKET, SO_ATTACH_BPF, &loaded, sizeof(loaded)) == 0,
		   "SO_ATTACH_BPF: %m");
	close(loaded);
}

static void inq(void)
{
	pair(SOCK_STREAM);
	if (setsockopt(ends[1], SOL_SOCKET, SO_INQ_, &(int){ 1 }, sizeof(int)) < 0)
		live_skip("this kernel has no SO_INQ of unix sockets");
	live_check(send(ends[0], "bytes", 5, 0) == 5, "send: %m");
}

static int bound(int number, struct sockaddr_un *address, socklen_t *size)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*size = offsetof(struct sockaddr_un, sun_path) + 1 +
		sprintf(address->sun_path + 1, "queue %d %d", getpid(), number);
	live_check(fd >= 0 && bind(fd, (struct sockaddr *)address, *size) == 0, "bind: %m");
	return fd;
}

static void stranger(void)
{
	struct sockaddr_un addresses[3];
	socklen_t size;
	int fds[3];

	for (int i = 0; i < 3; i++)
		fds[i] = bound(i, &addresses[i], &size);
	live_check(sendto(fds[1], "bytes", 5, 0, (struct sockaddr *)&addresses[0], size) == 5, "sendto: %m");
	live_check(connect(fds[0], (struct sockaddr *)&addresses[2], size) == 0, "connect: %m");
}

/* The descriptor in flight has it. */
static void lock(void)
{
	char path[4096];
	int fd;

	live_path(path, sizeof(path), "locked");
	fd = open(path, O_RDWR | O_CREAT, 0600);
	live_check(fd >= 0 && flock(fd, LOCK_EX) == 0, "flock: %m");
	send_and_close(fd);
}

/* The other end of the pair has sent something before it was connected to a third socket. */
static void elsewhere(void)
{
	struct sockaddr_un address;
	socklen_t size;

	bound(0, &address, &size);
	pair(SOCK_DGRAM);
	live_check(send(ends[0], "bytes", 5, 0) == 5, "send: %m");
	live_check(connect(ends[0], (struct sockaddr *)&address, size) == 0, "connect: %m");
}

/* Not only in flight. */
static void tty(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave, fd;

	live_check(setsid() >= 0 || getsid(0) == getpid(), "setsid: %m");
	live_check(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0, "a terminal: %m");
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	live_check(slave >= 0 && ioctl(slave, TIOCSCTTY, 0) == 0, "TIOCSCTTY: %m");
	fd = open("/dev/tty", O_RDWR);
	live_check(fd >= 0, "/dev/tty: %m");
	pair(SOCK_DGRAM);
	send_control(SCM_RIGHTS, &fd, sizeof(fd));
}

static const struct {
	const char *name;
	void (*set_up)(void);
} things[] = {
	{ "urgent", urgent },	  { "reset", reset },	{ "epoll", epoll },	    { "owned", owned },
	{ "thread", of_thread },  { "wanted", wanted }, { "program", program },	    { "inq", inq },
	{ "stranger", stranger }, { "lock", lock },	{ "elsewhere", elsewhere }, { "tty", tty },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_choose(things, argv[2])->set_up();
	live_ready();
	live_wait_stop();
	return live_finish();
}
