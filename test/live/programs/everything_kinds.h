/*
 * everything_kinds.h - what everything.c opens, and how it is recognized again.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "live.h"

#define SIZE 40 /* of what items hold */

#define expect(item, condition) \
	live_check(condition, "%s %ld: not so: %s (%m)", (item)->kind->name, (item)->number, #condition)

static void content_of(const struct item *item, int part, char *bytes)
{
	live_fill(bytes, SIZE, item->number * ITEM_FDS + part + 1);
}

static bool is_content(const struct item *item, int part, const char *bytes)
{
	char wanted[SIZE];

	content_of(item, part, wanted);
	return !memcmp(bytes, wanted, SIZE);
}

static void put(struct item *item, int fd, int part)
{
	char bytes[SIZE];

	content_of(item, part, bytes);
	expect(item, write(fd, bytes, SIZE) == SIZE);
}

static const char *name_of(const struct item *item, const char *what)
{
	static char name[64];

	snprintf(name, sizeof(name), "%s.%ld", what, item->number);
	return name;
}

static int new_file(struct item *item, int flags)
{
	int fd = open(name_of(item, "file"), O_CREAT | flags, 0644);

	expect(item, fd >= 0);
	return fd;
}

static void open_file(struct item *item, int flags)
{
	item->fds[0] = new_file(item, O_RDWR | flags);
	put(item, item->fds[0], 0);
	expect(item, flags & O_APPEND || lseek(item->fds[0], 7, SEEK_SET) == 7);
}

static void check_bytes(struct item *item, int fd)
{
	char bytes[SIZE];

	expect(item, pread(fd, bytes, SIZE, 0) == SIZE && is_content(item, 0, bytes));
}

/* ---- regular files ---- */

static void make_regular(struct item *item)
{
	open_file(item, 0);
}

static void check_regular(struct item *item)
{
	check_bytes(item, item->fds[0]);
	expect(item, lseek(item->fds[0], 0, SEEK_CUR) == 7);
}

static void make_appended(struct item *item)
{
	open_file(item, O_APPEND | O_NONBLOCK);
}

static void check_appended(struct item *item)
{
	check_bytes(item, item->fds[0]);
	expect(item, fcntl(item->fds[0], F_GETFL) & O_APPEND);
}

/* Two open files of one, and a copy that shares the position. */
static void make_shared(struct item *item)
{
	open_file(item, 0);
	item->fds[1] = open(name_of(item, "file"), O_RDONLY);
	item->fds[2] = dup(item->fds[0]);
}

static void check_shared(struct item *item)
{
	check_regular(item);
	check_bytes(item, item->fds[1]);
	expect(item, lseek(item->fds[1], 0, SEEK_CUR) == 0);
	expect(item, lseek(item->fds[2], 3, SEEK_SET) == 3 && lseek(item->fds[0], 0, SEEK_CUR) == 3);
	expect(item, lseek(item->fds[0], 7, SEEK_SET) == 7);
}

static void make_ghost(struct item *item)
{
	open_file(item, 0);
	expect(item, unlink(name_of(item, "file")) == 0);
}

static void make_nameless(struct item *item)
{
	item->fds[0] = open(".", O_TMPFILE | O_RDWR, 0600);
	if (item->fds[0] < 0 && errno == EOPNOTSUPP)
		item->fds[0] = new_file(item, O_RDWR);
	put(item, item->fds[0], 0);
	expect(item, lseek(item->fds[0], 7, SEEK_SET) == 7);
}

static void make_path(struct item *item)
{
	close(new_file(item, O_RDONLY));
	item->fds[0] = open(name_of(item, "file"), O_PATH);
}

static void check_path(struct item *item)
{
	char byte;

	expect(item, item->fds[0] >= 0 && read(item->fds[0], &byte, 1) < 0 && errno == EBADF);
}

static void make_link(struct item *item)
{
	expect(item, symlink("nowhere", name_of(item, "link")) == 0);
	item->fds[0] = open(name_of(item, "link"), O_PATH | O_NOFOLLOW);
}

static void check_link(struct item *item)
{
	char target[16];

	expect(item,
	       readlinkat(item->fds[0], "", target, sizeof(target)) == 7 && !memcmp(target, "nowhere", 7));
}

static void make_directory(struct item *item)
{
	expect(item, mkdir(name_of(item, "directory"), 0700) == 0);
	item->fds[0] = open(name_of(item, "directory"), O_RDONLY | O_DIRECTORY);
}

static void check_directory(struct item *item)
{
	struct stat one, other;

	expect(item, fstat(item->fds[0], &one) == 0 && stat(name_of(item, "directory"), &other) == 0 &&
			     one.st_ino == other.st_ino);
}

/* ---- locks ---- */

static struct flock range(short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = 3, .l_len = 4 };
}

/* Another open file cannot have it. */
static bool is_locked(const struct item *item)
{
	int other = open(name_of(item, "file"), O_RDWR);
	struct flock wanted = range(F_WRLCK);
	bool is_free = fcntl(other, F_OFD_SETLK, &wanted) == 0;

	if (item->value)
		is_free = flock(other, LOCK_EX | LOCK_NB) == 0;
	close(other);
	return !is_free;
}

static void make_flock(struct item *item)
{
	item->fds[0] = new_file(item, O_RDWR);
	item->value = 1;
	expect(item, flock(item->fds[0], LOCK_EX) == 0);
}

static void make_own_lock(struct item *item)
{
	struct flock wanted = range(F_WRLCK);

	item->fds[0] = new_file(item, O_RDWR);
	expect(item, fcntl(item->fds[0], F_OFD_SETLK, &wanted) == 0);
}

static void check_lock(struct item *item)
{
	expect(item, is_locked(item));
}

/* To close another descriptor of the file would give the lock up. */
static void make_process_lock(struct item *item)
{
	struct flock wanted = range(F_WRLCK);

	item->fds[0] = new_file(item, O_RDWR);
	expect(item, fcntl(item->fds[0], F_SETLK, &wanted) == 0);
}

static void check_process_lock(struct item *item)
{
	struct flock wanted = range(F_WRLCK);

	expect(item, fcntl(item->fds[0], F_OFD_GETLK, &wanted) == 0 && wanted.l_type == F_WRLCK &&
			     wanted.l_start == 3 && wanted.l_len == 4);
}

static void make_lease(struct item *item)
{
	item->fds[0] = new_file(item, O_RDWR);
	expect(item, fcntl(item->fds[0], F_SETLEASE, F_WRLCK) == 0);
}

static void check_lease(struct item *item)
{
	expect(item, fcntl(item->fds[0], F_GETLEASE) == F_WRLCK);
}

/* ---- pipes and sockets ---- */

static void check_waiting(struct item *item)
{
	for (int i = 0; i < 2; i++) {
		int bytes;

		if (item->fds[i] >= 0 && fcntl(item->fds[i], F_GETFL) & O_NONBLOCK)
			expect(item, ioctl(item->fds[i], FIONREAD, &bytes) == 0 && bytes == SIZE);
	}
}

static void take_waiting(struct item *item)
{
	char bytes[SIZE + 1];

	check_waiting(item);
	for (int i = 0; i < 2; i++)
		if (item->fds[i] >= 0 && fcntl(item->fds[i], F_GETFL) & O_NONBLOCK) {
			expect(item, read(item->fds[i], bytes, sizeof(bytes)) == SIZE);
			expect(item, is_content(item, i, bytes));
		}
}

static void no_wait(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void make_pipe(struct item *item)
{
	expect(item, pipe(item->fds) == 0);
	put(item, item->fds[1], 0);
	no_wait(item->fds[0]);
}

static void make_fifo(struct item *item)
{
	expect(item, mkfifo(name_of(item, "fifo"), 0600) == 0);
	item->fds[0] = open(name_of(item, "fifo"), O_RDWR | O_NONBLOCK);
	put(item, item->fds[0], 0);
}

static void make_pair(struct item *item, int type)
{
	expect(item, socketpair(AF_UNIX, type, 0, item->fds) == 0);
	for (int i = 0; i < 2; i++) {
		put(item, item->fds[1 - i], i);
		no_wait(item->fds[i]);
	}
}

static void make_stream_pair(struct item *item)
{
	make_pair(item, SOCK_STREAM);
}

static void make_packet_pair(struct item *item)
{
	make_pair(item, SOCK_SEQPACKET);
}

static void make_datagram_pair(struct item *item)
{
	make_pair(item, SOCK_DGRAM);
}

static struct sockaddr_un address_of(const struct item *item)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, name_of(item, "socket"));
	return address;
}

static int new_socket(struct item *item, int type, bool is_bound)
{
	struct sockaddr_un address = address_of(item);
	int fd = socket(AF_UNIX, type, 0);

	expect(item, fd >= 0 && (!is_bound || bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0));
	return fd;
}

static void make_listener(struct item *item)
{
	item->fds[0] = new_socket(item, SOCK_STREAM, true);
	expect(item, listen(item->fds[0], 3) == 0);
}

static void check_listener(struct item *item)
{
	struct sockaddr_un address = address_of(item);
	int client = new_socket(item, SOCK_STREAM, false), server;

	expect(item, connect(client, (struct sockaddr *)&address, sizeof(address)) == 0);
	server = accept(item->fds[0], NULL, NULL);
	expect(item, server >= 0);
	close(server);
	close(client);
}

static void make_datagram(struct item *item)
{
	struct sockaddr_un address = address_of(item);
	int sender = new_socket(item, SOCK_DGRAM, false);
	char bytes[SIZE];

	content_of(item, 0, bytes);
	item->fds[0] = new_socket(item, SOCK_DGRAM, true);
	no_wait(item->fds[0]);
	expect(item, sendto(sender, bytes, SIZE, 0, (struct sockaddr *)&address, sizeof(address)) == SIZE);
	close(sender);
}

static void remove_socket(struct item *item)
{
	expect(item, unlink(name_of(item, "socket")) == 0);
}

static void check_listener_last(struct item *item)
{
	check_listener(item);
	remove_socket(item);
}

static void take_from_bound(struct item *item)
{
	take_waiting(item);
	remove_socket(item);
}

static void make_accepted(struct item *item)
{
	struct sockaddr_un address = address_of(item);

	item->fds[2] = new_socket(item, SOCK_STREAM, true);
	item->fds[1] = new_socket(item, SOCK_STREAM, false);
	expect(item, listen(item->fds[2], 3) == 0);
	expect(item, connect(item->fds[1], (struct sockaddr *)&address, sizeof(address)) == 0);
	item->fds[0] = accept(item->fds[2], NULL, NULL);
	put(item, item->fds[1], 0);
	no_wait(item->fds[0]);
}

union rights {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

/* The file of a message that nobody has received. */
static void make_flight(struct item *item)
{
	struct iovec byte = { "f", 1 };
	union rights rights = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct msghdr message = {
		.msg_iov = &byte, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof(rights)
	};
	int file = new_file(item, O_RDWR);

	put(item, file, 0);
	expect(item, socketpair(AF_UNIX, SOCK_SEQPACKET, 0, item->fds) == 0);
	memcpy(CMSG_DATA(&rights.header), &file, sizeof(file));
	expect(item, sendmsg(item->fds[1], &message, 0) == 1);
	close(file);
}

static void take_flight(struct item *item)
{
	char room;
	struct iovec byte = { &room, 1 };
	union rights rights;
	struct msghdr message = {
		.msg_iov = &byte, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof(rights)
	};
	int file;

	expect(item, recvmsg(item->fds[0], &message, MSG_DONTWAIT) == 1 && message.msg_controllen);
	memcpy(&file, CMSG_DATA(&rights.header), sizeof(file));
	check_bytes(item, file);
	close(file);
}

/* Two sockets; the second one is connected to nobody. */
static void make_netlink(struct item *item)
{
	item->value = 100000 + 2 * item->number;
	for (int i = 0; i < 2; i++) {
		const struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_pid = item->value + i };

		item->fds[i] = socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK);
		expect(item, bind(item->fds[i], (const struct sockaddr *)&address, sizeof(address)) == 0);
	}
}

static void check_netlink(struct item *item)
{
	struct sockaddr_nl address = { 0 };
	socklen_t size = sizeof(address);

	expect(item, getsockname(item->fds[1], (struct sockaddr *)&address, &size) == 0 &&
			     address.nl_pid == item->value + 1);
}

static void check_netlink_last(struct item *item)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_pid = item->value };
	socklen_t size = sizeof(address);
	char byte = 'n';

	expect(item, sendto(item->fds[1], &byte, 1, 0, (const struct sockaddr *)&address, size) == 1);
	expect(item,
	       recvfrom(item->fds[0], &byte, 1, MSG_DONTWAIT, (struct sockaddr *)&address, &size) == 1 &&
		       address.nl_pid == item->value + 1);
}

/* ---- events ---- */

static void make_eventfd(struct item *item)
{
	item->fds[0] = eventfd(item->number + 1, EFD_NONBLOCK);
}

static void check_ready(struct item *item)
{
	struct pollfd ready = { item->fds[0], POLLIN, 0 };

	expect(item, poll(&ready, 1, 0) == 1 && ready.revents == POLLIN);
}

static void take_count(struct item *item)
{
	uint64_t count;

	expect(item, read(item->fds[0], &count, sizeof(count)) == sizeof(count) &&
			     count == (uint64_t)item->number + 1);
}

/* It watches an eventfd, under a number that may be closed since. */
static void make_epoll(struct item *item)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = item->number };

	item->fds[1] = eventfd(1, EFD_NONBLOCK);
	item->fds[0] = epoll_create1(0);
	expect(item, epoll_ctl(item->fds[0], EPOLL_CTL_ADD, item->fds[1], &event) == 0);
}

static void check_epoll(struct item *item)
{
	struct epoll_event event;

	expect(item, epoll_wait(item->fds[0], &event, 1, 0) == 1 && event.events == EPOLLIN &&
			     event.data.u64 == (uint64_t)item->number);
}

static void make_timerfd(struct item *item)
{
	struct itimerspec value = { { item->number + 1, 0 }, { 100000, 0 } };

	item->fds[0] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	expect(item, timerfd_settime(item->fds[0], 0, &value, NULL) == 0);
}

static void check_timerfd(struct item *item)
{
	struct itimerspec value;

	expect(item, timerfd_gettime(item->fds[0], &value) == 0);
	expect(item, value.it_interval.tv_sec == item->number + 1 && value.it_value.tv_sec > 90000);
}

static void make_signalfd(struct item *item)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGRTMIN + item->number % 10);
	item->fds[0] = signalfd(-1, &signals, SFD_NONBLOCK);
}

static void check_signalfd(struct item *item)
{
	struct signalfd_siginfo info;

	expect(item, read(item->fds[0], &info, sizeof(info)) < 0 && errno == EAGAIN);
}

static void make_inotify(struct item *item)
{
	close(new_file(item, O_RDWR));
	item->fds[0] = inotify_init1(IN_NONBLOCK);
	if (item->fds[0] < 0 && errno == EMFILE)
		live_skip("other programs use all inotifies");
	item->value = inotify_add_watch(item->fds[0], name_of(item, "file"), IN_ATTRIB);
}

static void take_event(struct item *item)
{
	struct inotify_event event;

	expect(item, chmod(name_of(item, "file"), 0600) == 0);
	expect(item, read(item->fds[0], &event, sizeof(event)) == sizeof(event));
	expect(item, event.wd == (int)item->value && event.mask == IN_ATTRIB);
}

static void check_nothing(struct item *item)
{
	struct pollfd ready = { item->fds[0], POLLIN, 0 };

	expect(item, poll(&ready, 1, 0) == 0);
}

/* ---- memory, devices, terminals, the rest ---- */

static void make_memfd(struct item *item)
{
	item->fds[0] = memfd_create(name_of(item, "memfd"), MFD_ALLOW_SEALING);
	put(item, item->fds[0], 0);
	expect(item, lseek(item->fds[0], 7, SEEK_SET) == 7);
	expect(item, fcntl(item->fds[0], F_ADD_SEALS, F_SEAL_SHRINK) == 0);
}

static void check_memfd(struct item *item)
{
	check_regular(item);
	expect(item, fcntl(item->fds[0], F_GET_SEALS) == F_SEAL_SHRINK);
}

static void make_device(struct item *item)
{
	item->fds[0] = open(item->number % 2 ? "/dev/null" : "/dev/zero", O_RDWR);
}

static void check_device(struct item *item)
{
	struct stat found;

	expect(item, fstat(item->fds[0], &found) == 0 && S_ISCHR(found.st_mode) &&
			     found.st_rdev == makedev(1, item->number % 2 ? 3 : 5));
}

static void make_terminal(struct item *item)
{
	struct winsize size = { 10 + item->number % 100, 20, 0, 0 };
	struct termios settings;

	item->fds[0] = posix_openpt(O_RDWR | O_NOCTTY);
	expect(item, item->fds[0] >= 0 && grantpt(item->fds[0]) == 0 && unlockpt(item->fds[0]) == 0);
	item->fds[1] = open(ptsname(item->fds[0]), O_RDWR | O_NOCTTY);
	expect(item, item->fds[1] >= 0 && tcgetattr(item->fds[1], &settings) == 0);
	cfmakeraw(&settings);
	expect(item, tcsetattr(item->fds[1], TCSANOW, &settings) == 0);
	expect(item, ioctl(item->fds[1], TIOCSWINSZ, &size) == 0);
}

static void check_terminal(struct item *item)
{
	struct winsize size;
	struct termios settings;

	expect(item, ioctl(item->fds[0], TIOCGWINSZ, &size) == 0 && size.ws_row == 10 + item->number % 100);
	expect(item, tcgetattr(item->fds[1], &settings) == 0 && !(settings.c_lflag & ICANON));
}

static void make_owned(struct item *item)
{
	item->fds[0] = new_socket(item, SOCK_STREAM, false);
	expect(item, fcntl(item->fds[0], F_SETOWN, getpid()) == 0);
	expect(item, fcntl(item->fds[0], F_SETSIG, SIGRTMIN + 3) == 0);
}

static void check_owned(struct item *item)
{
	expect(item, fcntl(item->fds[0], F_GETOWN) == getpid());
	expect(item, fcntl(item->fds[0], F_GETSIG) == SIGRTMIN + 3);
}

static void make_pidfd(struct item *item)
{
	item->fds[0] = syscall(SYS_pidfd_open, getpid(), 0);
}

static void check_pidfd(struct item *item)
{
	expect(item, syscall(SYS_pidfd_send_signal, item->fds[0], 0, NULL, 0) == 0);
}

static void make_proc_file(struct item *item)
{
	item->fds[0] = open("/proc/self/comm", O_RDONLY);
}

static void take_comm(struct item *item)
{
	char text[32] = "";

	expect(item, read(item->fds[0], text, sizeof(text) - 1) > 0 && !strcmp(text, "everything\n"));
}

static void make_namespace(struct item *item)
{
	struct stat found;

	item->fds[0] = open("/proc/self/ns/uts", O_RDONLY);
	expect(item, fstat(item->fds[0], &found) == 0);
	item->inode = found.st_ino;
}

static void check_namespace(struct item *item)
{
	struct stat found;

	expect(item, fstat(item->fds[0], &found) == 0 && found.st_ino == item->inode);
}

static void make_queue(struct item *item)
{
	struct mq_attr wanted = { .mq_maxmsg = 2, .mq_msgsize = SIZE };
	char bytes[SIZE];

	content_of(item, 0, bytes);
	item->fds[0] = mq_open("/criu-live-everything", O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600,
			       &wanted);
	expect(item, item->fds[0] >= 0 && mq_send(item->fds[0], bytes, SIZE, 5) == 0);
}

static void take_message(struct item *item)
{
	char bytes[SIZE];
	unsigned priority;

	expect(item, mq_receive(item->fds[0], bytes, SIZE, &priority) == SIZE && priority == 5);
	expect(item, is_content(item, 0, bytes));
	expect(item, mq_unlink("/criu-live-everything") == 0);
}

static const struct item_kind item_kinds[] = {
	{ "regular", make_regular, check_regular, NULL, 0, false },
	{ "appended", make_appended, check_appended, NULL, 0, false },
	{ "shared", make_shared, check_shared, NULL, 0, false },
	{ "ghost", make_ghost, check_regular, NULL, 0, false },
	{ "nameless", make_nameless, check_regular, NULL, 0, true },
	{ "path", make_path, check_path, NULL, 0, false },
	{ "link", make_link, check_link, NULL, 0, true },
	{ "directory", make_directory, check_directory, NULL, 0, true },
	{ "flock", make_flock, check_lock, NULL, 0, false },
	{ "own lock", make_own_lock, check_lock, NULL, 0, false },
	{ "process lock", make_process_lock, check_process_lock, NULL, 0, false },
	{ "lease", make_lease, check_lease, NULL, 0, false },
	{ "pipe", make_pipe, check_waiting, take_waiting, 0, false },
	{ "fifo", make_fifo, check_waiting, take_waiting, 0, true },
	{ "stream pair", make_stream_pair, check_waiting, take_waiting, 0, false },
	{ "packet pair", make_packet_pair, check_waiting, take_waiting, 0, false },
	{ "datagram pair", make_datagram_pair, check_waiting, take_waiting, 0, false },
	{ "listener", make_listener, check_listener, check_listener_last, 0, false },
	{ "datagram", make_datagram, check_waiting, take_from_bound, 0, true },
	{ "accepted", make_accepted, check_waiting, take_from_bound, 0, true },
	{ "flight", make_flight, NULL, take_flight, 0, true },
	{ "netlink", make_netlink, check_netlink, check_netlink_last, 0,
	  true }, /* criu 4.2.1 misses one in some hundred */
	{ "eventfd", make_eventfd, check_ready, take_count, 0, false },
	{ "epoll", make_epoll, check_epoll, NULL, 0, false },
	{ "timerfd", make_timerfd, check_timerfd, NULL, 0, false },
	{ "signalfd", make_signalfd, check_signalfd, NULL, 0, false },
	{ "inotify", make_inotify, check_nothing, take_event, 10, false },
	{ "memfd", make_memfd, check_memfd, NULL, 0, false },
	{ "device", make_device, check_device, NULL, 0, false },
	{ "terminal", make_terminal, check_terminal, NULL, 100, false },
	{ "owned", make_owned, check_owned, NULL, 0, false },
	{ "pidfd", make_pidfd, check_pidfd, NULL, 0, true },
	{ "file of proc", make_proc_file, NULL, take_comm, 0, true },
	{ "namespace", make_namespace, check_namespace, NULL, 0, false },
	{ "queue", make_queue, check_ready, take_message, 1, true },
};
