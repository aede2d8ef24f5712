/*
 * uring_user.c - io_uring of an ordinary user: a thread of the kernel takes the requests (IORING_SETUP_SQPOLL), and may
 * do what the user may, before and after the restore.
 *
 * usage: uring_user DIRECTORY
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "uring.h"

enum { REAL = 1000, EFFECTIVE, SAVED };

static struct ring ring;
static int ends[2];

static void become_user(void)
{
	gid_t groups[] = { 5, 1001, 70000 };
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { 1U << CAP_CHOWN, 1U << CAP_CHOWN | 1U << CAP_KILL, 0 } };

	close(open("secret", O_CREAT | O_RDWR, 0600));
	live_check(chmod(live_directory, 0777) == 0 && chmod(".", 0777) == 0, "chmod: %m");
	live_check(prctl(PR_SET_KEEPCAPS, 1) == 0 && setgroups(3, groups) == 0, "setgroups: %m");
	live_check(setresgid(REAL + 1000, EFFECTIVE + 1000, SAVED + 1000) == 0, "setresgid: %m");
	live_check(setresuid(REAL, EFFECTIVE, SAVED) == 0, "setresuid: %m");
	live_check(syscall(SYS_capset, &header, data) == 0, "capset: %m");
	prctl(PR_SET_DUMPABLE, 1);
}

static struct io_uring_sqe *prepare(int opcode, int fd, const void *address, uint32_t length)
{
	struct io_uring_sqe *request = ring_prepare(&ring, opcode, 1);

	request->fd = fd;
	request->addr = (uintptr_t)address;
	request->len = length;
	return request;
}

static int result_of_request(void)
{
	ring_wake(&ring);
	for (int i = 0; i < 100000 && !ring_unread(&ring); i++)
		usleep(100);
	return ring_take(&ring).res;
}

union control {
	char room[CMSG_SPACE(sizeof(struct ucred))];
	struct cmsghdr header;
};

/* What the kernel adds to a message is the real ids. */
static void check_sender(void)
{
	char byte;
	union control control;
	struct ucred sender;
	struct msghdr message = { .msg_iov = &(struct iovec){ &byte, 1 },
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };

	live_check(recvmsg(ends[1], &message, 0) == 1 && message.msg_controllen, "recvmsg: %m");
	memcpy(&sender, CMSG_DATA(&control.header), sizeof(sender));
	live_check(sender.pid == getpid() && sender.uid == REAL && sender.gid == REAL + 1000,
		   "a message of %d, %u, %u", sender.pid, sender.uid, sender.gid);
}

static int send_as(uid_t uid)
{
	union control control = { .header = { CMSG_LEN(sizeof(struct ucred)), SOL_SOCKET, SCM_CREDENTIALS } };
	struct ucred sender = { getpid(), uid, REAL + 1000 };
	struct msghdr message = { .msg_iov = &(struct iovec){ "x", 1 },
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };

	memcpy(CMSG_DATA(&control.header), &sender, sizeof(sender));
	prepare(IORING_OP_SENDMSG, ends[0], &message, 1);
	return result_of_request();
}

static void check_messages(void)
{
	char byte;

	prepare(IORING_OP_SEND, ends[0], "x", 1);
	live_check(result_of_request() == 1, "send");
	check_sender();
	live_check(send_as(SAVED) == 1 && recv(ends[1], &byte, 1, 0) == 1, "it has another saved uid");
	live_check(send_as(0) == -EPERM, "it may be root");
}

static void check_files(void)
{
	struct stat found;
	int fd;

	prepare(IORING_OP_OPENAT, AT_FDCWD, "made", 0600)->open_flags = O_CREAT | O_EXCL | O_RDWR;
	fd = result_of_request();
	live_check(fd >= 0 && fstat(fd, &found) == 0, "open: %d", fd);
	live_check(found.st_uid == EFFECTIVE && found.st_gid == EFFECTIVE + 1000, "a file of %u, %u",
		   found.st_uid, found.st_gid);
	close(fd);
	unlink("made");
	prepare(IORING_OP_OPENAT, AT_FDCWD, "secret", 0);
	live_check(result_of_request() == -EACCES, "it may read what only root may");
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	become_user();
	live_check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 &&
			   setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)) == 0,
		   "socketpair: %m");
	ring_make(&ring, 4, IORING_SETUP_SQPOLL, 0);
	check_messages();
	check_files();
	live_ready();
	live_wait_stop();
	check_messages();
	check_files();
	return live_finish();
}
