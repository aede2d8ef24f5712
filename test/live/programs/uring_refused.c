/*
 * uring_refused.c - an io_uring that has something that criu does not save, or a request in flight that may never
 * complete. After the refusal it must be as before.
 *
 * usage: uring_refused DIRECTORY repeated|linked|worker|…
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/time_types.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "uring.h"

static struct ring ring;
static pid_t child;
static int ends[2];
static char text[16];

static void wait_for_ever(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

/* ---- requests in flight ---- */

static void set_up_read(void)
{
	struct io_uring_sqe *request;

	live_check(pipe(ends) == 0, "pipe: %m");
	ring_make(&ring, 4, 0, 0);
	request = ring_prepare(&ring, IORING_OP_READ, 2);
	request->fd = ends[0];
	request->addr = (uintptr_t)text;
	request->len = 16;
	ring_submit(&ring);
}

static void prepare_read(uint64_t data, int flags)
{
	struct io_uring_sqe *request = ring_prepare(&ring, IORING_OP_READ, data);

	request->fd = ends[0];
	request->addr = (uintptr_t)text;
	request->len = 16;
	request->flags = (uint8_t)flags;
}

static void set_up_linked(void)
{
	live_check(pipe(ends) == 0, "pipe: %m");
	ring_make(&ring, 4, 0, 0);
	prepare_read(1, IOSQE_IO_LINK);
	ring_prepare(&ring, IORING_OP_NOP, 2);
	ring_submit(&ring);
}

/* Nobody but the request has the file. */
static void set_up_closed_file(void)
{
	set_up_read();
	close(ends[0]);
}

static struct msghdr message = { .msg_iov = &(struct iovec){ text, 16 }, .msg_iovlen = 1 };

static void set_up_recvmsg(void)
{
	struct io_uring_sqe *request;

	live_check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair: %m");
	ring_make(&ring, 4, 0, 0);
	request = ring_prepare(&ring, IORING_OP_RECVMSG, 1);
	request->fd = ends[0];
	request->addr = (uintptr_t)&message;
	ring_submit(&ring);
}

static void *read_elsewhere(void *nothing)
{
	prepare_read(2, 0);
	ring_submit(&ring);
	live_check(nothing == NULL, "?");
	for (;;)
		pause();
}

static void set_up_two_threads(void)
{
	pthread_t thread;

	set_up_read();
	pthread_create(&thread, NULL, read_elsewhere, NULL);
	while (__atomic_load_n(ring_word(&ring, ring.made.sq_off.head), __ATOMIC_ACQUIRE) != 2)
		live_sleep(0.001);
}

/* The thread of the kernel is not stopped, so it would go on with the read. */
static void set_up_sqpoll_waiting(void)
{
	live_check(pipe(ends) == 0, "pipe: %m");
	ring_make(&ring, 4, IORING_SETUP_SQPOLL, 0);
	prepare_read(1, 0);
	ring_wake(&ring);
	while (!__atomic_load_n(ring_word(&ring, ring.made.sq_off.head), __ATOMIC_ACQUIRE))
		live_sleep(0.001);
	live_sleep(0.01);
}

static struct __kernel_timespec long_time = { .tv_sec = 1000 };

static void set_up_repeated(void)
{
	struct io_uring_sqe *request;

	ring_make(&ring, 4, 0, 0);
	request = ring_prepare(&ring, IORING_OP_TIMEOUT, 2);
	request->addr = (uintptr_t)&long_time;
	request->len = 1;
	request->timeout_flags = 1 << 6; /* IORING_TIMEOUT_MULTISHOT, Linux 6.4 */
	ring_submit(&ring);
	if (ring_unread(&ring))
		live_skip("this kernel has no timeouts that repeat");
}

static void verify_waiting(void)
{
	live_check(!ring_unread(&ring), "it has completed");
}

/* A worker thread of the kernel opens a named pipe, and waits for a writer: no list shows this request. */
static void set_up_worker(void)
{
	struct io_uring_sqe *request;

	live_check(mkfifo("named", 0600) == 0, "mkfifo: %m");
	ring_make(&ring, 4, 0, 0);
	request = ring_prepare(&ring, IORING_OP_OPENAT, 3);
	request->fd = AT_FDCWD;
	request->addr = (uintptr_t) "named";
	request->open_flags = O_RDONLY;
	request->flags = IOSQE_ASYNC;
	ring_submit(&ring);
}

static void verify_worker(void)
{
	live_check(!ring_unread(&ring), "it has completed");
	unlink("named");
}

static void set_up_registered(int what, void *argument, unsigned count)
{
	ring_make(&ring, 4, 0, 0);
	live_check(syscall(SYS_io_uring_register, ring.fd, what, argument, count) == 0, "register: %m");
}

/* ---- what the ring has ---- */

static void set_up_files_closed(void)
{
	live_check(pipe(ends) == 0, "pipe: %m");
	set_up_registered(IORING_REGISTER_FILES, ends, 2);
	close(ends[1]);
}

/* A restore opens a pidfd only when its process exists: later than rings are made. */
static void set_up_files_late(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	live_check(fd >= 0, "pidfd_open: %m");
	set_up_registered(IORING_REGISTER_FILES, &fd, 1);
}

static void *map_page(void *at, int flags)
{
	/* Linux 6.1 takes no memory of a file, such as that of the program. */
	void *memory = mmap(at, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	live_check(memory != MAP_FAILED, "mmap: %m");
	*(volatile char *)memory = 1;
	return memory;
}

/* Something else is at the addresses of the buffer now. */
static void set_up_buffers_replaced(void)
{
	void *memory = map_page(NULL, 0);

	set_up_registered(IORING_REGISTER_BUFFERS, &(struct iovec){ memory, 4096 }, 1);
	map_page(memory, MAP_FIXED);
}

static void set_up_buffers_unmapped(void)
{
	void *memory = map_page(NULL, 0);

	set_up_registered(IORING_REGISTER_BUFFERS, &(struct iovec){ memory, 4096 }, 1);
	munmap(memory, 4096);
}

static void set_up_eventfd(void)
{
	int fd = eventfd(0, 0);

	set_up_registered(IORING_REGISTER_EVENTFD, &fd, 1);
	close(fd);
}

static void set_up_personality(void)
{
	ring_make(&ring, 4, 0, 0);
	live_check(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_PERSONALITY, NULL, 0) > 0,
		   "register: %m");
}

static void set_up_workers(void)
{
	set_up_registered(IORING_REGISTER_IOWQ_MAX_WORKERS, (uint32_t[2]){ 3, 4 }, 2);
}

/* Only the slot has the ring. */
static void set_up_descriptor(void)
{
	struct ring other;
	struct io_uring_rsrc_update update = { .offset = -1U };

	ring_make(&ring, 4, 0, 0);
	ring_make(&other, 4, 0, 0);
	update.data = (uint64_t)other.fd;
	live_check(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_RING_FDS, &update, 1) == 1,
		   "register: %m");
	close(other.fd);
	munmap(other.rings, other.rings_size);
	munmap(other.requests, other.requests_size);
}

static void set_up_provided(void)
{
	struct io_uring_buf_reg reg = { .ring_entries = 4 };

	reg.ring_addr = (uintptr_t)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
					0);
	set_up_registered(IORING_REGISTER_PBUF_RING, &reg, 1);
}

static void set_up_restricted(void)
{
	struct io_uring_restriction only = { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP };

	ring_make(&ring, 4, IORING_SETUP_R_DISABLED, 0);
	live_check(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_RESTRICTIONS, &only, 1) == 0,
		   "register: %m");
	live_check(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) == 0,
		   "enable: %m");
}

static void set_up_overflow(void)
{
	ring_make(&ring, 2, 0, 0);
	for (int i = 0; i < 3; i++) {
		ring_prepare(&ring, IORING_OP_NOP, 1);
		ring_prepare(&ring, IORING_OP_NOP, 2);
		ring_publish(&ring);
		syscall(SYS_io_uring_enter, ring.fd, 2, 0, 0, NULL, 0);
	}
}

static void set_up_sqpoll_shared(void)
{
	ring_make(&ring, 4, IORING_SETUP_SQPOLL, 0);
	child = live_fork(wait_for_ever);
}

/* The thread of the kernel keeps the credentials that the process had. */
static void set_up_sqpoll_rights(void)
{
	ring_make(&ring, 4, IORING_SETUP_SQPOLL, 0);
	live_check(setresuid(-1, 65534, -1) == 0 && setresuid(-1, 0, -1) == 0, "setresuid: %m");
	live_check(setresgid(-1, 65534, -1) == 0, "setresgid: %m");
}

static void set_up_sqpoll_attached(void)
{
	static struct ring attached;

	ring_make(&ring, 4, IORING_SETUP_SQPOLL, 0);
	attached.made.wq_fd = (uint32_t)ring.fd;
	ring_make_more(&attached, 4, IORING_SETUP_SQPOLL | IORING_SETUP_ATTACH_WQ, 0);
}

static void set_up_iopoll(void)
{
	ring_make(&ring, 4, IORING_SETUP_IOPOLL, 0);
}

/* Only a slot of the thread leads to the ring, whose memory is that of the process. Linux 6.5. */
static void set_up_only_registered(void)
{
	struct io_uring_params wanted = { .flags = (1u << 14) |
						   (1u << 15) }; /* NO_MMAP, REGISTERED_FD_ONLY */
	char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	live_check(memory != MAP_FAILED, "mmap: %m");
	/* user_addr, the last member, which older headers do not have */
	((uint64_t *)(&wanted.sq_off + 1))[-1] = (uintptr_t)memory;
	((uint64_t *)(&wanted.cq_off + 1))[-1] = (uintptr_t)memory + 4096;
	if (syscall(SYS_io_uring_setup, 4, &wanted) < 0)
		live_skip("this kernel has no ring without a descriptor: %m");
}

static void set_up_closed(void)
{
	ring_make(&ring, 4, 0, 0);
	close(ring.fd);
}

static void *set_up_single(void *nothing)
{
	ring_make(&ring, 4, IORING_SETUP_SINGLE_ISSUER, 0);
	live_check(nothing == NULL, "?");
	for (;;)
		pause();
}

static void set_up_thread(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, set_up_single, NULL);
	while (!__atomic_load_n(&ring.requests, __ATOMIC_ACQUIRE))
		live_sleep(0.001);
}

static void verify_nothing(void)
{
}

static void verify_child(void)
{
	live_join(child);
}

static const struct live_part parts[] = {
	{ "repeated", set_up_repeated, verify_waiting },
	{ "linked", set_up_linked, verify_waiting },
	{ "closed_file", set_up_closed_file, verify_nothing },
	{ "recvmsg", set_up_recvmsg, verify_waiting },
	{ "two_threads", set_up_two_threads, verify_waiting },
	{ "sqpoll_waiting", set_up_sqpoll_waiting, verify_waiting },
	{ "worker", set_up_worker, verify_worker },
	{ "files_closed", set_up_files_closed, verify_nothing },
	{ "files_late", set_up_files_late, verify_nothing },
	{ "buffers_replaced", set_up_buffers_replaced, verify_nothing },
	{ "buffers_unmapped", set_up_buffers_unmapped, verify_nothing },
	{ "eventfd", set_up_eventfd, verify_nothing },
	{ "personality", set_up_personality, verify_nothing },
	{ "workers", set_up_workers, verify_nothing },
	{ "descriptor", set_up_descriptor, verify_nothing },
	{ "provided", set_up_provided, verify_nothing },
	{ "restricted", set_up_restricted, verify_nothing },
	{ "overflow", set_up_overflow, verify_nothing },
	{ "sqpoll_shared", set_up_sqpoll_shared, verify_child },
	{ "sqpoll_rights", set_up_sqpoll_rights, verify_nothing },
	{ "sqpoll_attached", set_up_sqpoll_attached, verify_nothing },
	{ "iopoll", set_up_iopoll, verify_nothing },
	{ "only_registered", set_up_only_registered, verify_nothing },
	{ "closed", set_up_closed, verify_nothing },
	{ "thread", set_up_thread, verify_nothing },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, parts);
}
