/*
 * uring.c - io_uring: positions, unread completions, requests that are not submitted yet, setups, and rings that
 * several processes have. After the restore every ring must go on as if nothing had happened.
 *
 * usage: uring DIRECTORY plain|flags|more|far|io|shared|blocked|busy|sqpoll|files|files_in_flight|eventfds
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/time_types.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "uring.h"

static struct ring ring;
static pid_t child;

static void do_nothing(struct ring *of, uint64_t data)
{
	ring_prepare(of, IORING_OP_NOP, data);
	ring_submit(of);
}

static void expect(struct ring *of, uint64_t data)
{
	struct completion completion = ring_take(of);

	live_check(completion.user_data == data && completion.res == 0,
		   "completion %llu (%d) instead of %llu", (unsigned long long)completion.user_data,
		   completion.res, (unsigned long long)data);
}

/* Turns the ring some times: each request is taken from its slot, and completes in order. */
static void turn(struct ring *of)
{
	for (uint32_t i = 0; i < 3 * of->made.cq_entries + 1; i++) {
		do_nothing(of, 1000 + i);
		expect(of, 1000 + i);
	}
	live_check(!ring_unread(of), "there are completions of nobody");
}

/* ---- plain: completions that are not read, requests that are not submitted, positions that are not equal ---- */

static void leave_work(struct ring *of)
{
	for (int i = 0; i < 13; i++) {
		do_nothing(of, (uint64_t)i);
		if (i < 10)
			expect(of, (uint64_t)i);
	}
	/* Without a completion: now the two positions differ. */
	ring_prepare(of, IORING_OP_NOP, 99)->flags = IOSQE_CQE_SKIP_SUCCESS;
	ring_submit(of);
	ring_prepare(of, IORING_OP_NOP, 20); /* the kernel sees it, but is not asked to take it */
	ring_publish(of);
	ring_prepare(of, IORING_OP_NOP, 21); /* the kernel does not see it */
}

static void finish_work(struct ring *of)
{
	live_check(ring_unread(of) == 3, "%u completions are unread", ring_unread(of));
	for (uint64_t i = 10; i < 13; i++)
		expect(of, i);
	ring_submit(of);
	expect(of, 20);
	expect(of, 21);
	turn(of);
}

static void set_up_plain(void)
{
	ring_make(&ring, 4, 0, 0);
	leave_work(&ring);
}

static void verify_plain(void)
{
	finish_work(&ring);
}

/* ---- flags ---- */

static const uint32_t setups[] = {
	IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SQE128,
	IORING_SETUP_CQE32,
	IORING_SETUP_NO_SQARRAY,
	IORING_SETUP_SINGLE_ISSUER,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_NO_SQARRAY,
};
#define SETUPS (sizeof(setups) / sizeof(*setups))
static struct ring rings[SETUPS], large, disabled;

static void set_up_flags(void)
{
	for (size_t i = 0; i < SETUPS; i++) {
		ring_make(&rings[i], 8, setups[i], i % 2 ? 64 : 0);
		leave_work(&rings[i]);
	}
	ring_make(&large, 32768, 0, 0);
	leave_work(&large);
	ring_make(&disabled, 4, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER, 0);
}

static void *submit_elsewhere(void *of)
{
	struct ring *theirs = of;

	errno = 0;
	ring_enter(theirs, 0, 0);
	ring_prepare(theirs, IORING_OP_NOP, 1);
	return (void *)(intptr_t)(ring_enter(theirs, ring_publish(theirs), 0) < 0 ? errno : 0);
}

static void verify_flags(void)
{
	for (size_t i = 0; i < SETUPS; i++) {
		pthread_t thread;
		void *error;

		finish_work(&rings[i]);
		if (!(setups[i] & IORING_SETUP_SINGLE_ISSUER))
			continue;
		pthread_create(&thread, NULL, submit_elsewhere, &rings[i]);
		pthread_join(thread, &error);
		live_check((intptr_t)error == EEXIST, "another thread may submit to ring %zu: %s", i,
			   strerror((int)(intptr_t)error));
		ring_submit(&rings[i]);
		expect(&rings[i], 1);
	}
	finish_work(&large);
	ring_prepare(&disabled, IORING_OP_NOP, 7);
	live_check(ring_enter(&disabled, ring_publish(&disabled), 0) < 0 && errno == EBADFD,
		   "the disabled ring is not disabled: %m");
	live_check(syscall(SYS_io_uring_register, disabled.fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) == 0,
		   "enable: %m");
	ring_submit(&disabled);
	expect(&disabled, 7);
}

/* ---- more: more completions than requests, by messages from another ring ---- */

static struct ring other;

static void set_up_more(void)
{
	ring_make(&ring, 4, 0, 0);
	ring_make(&other, 4, 0, 0);
	for (int i = 0; i < 7; i++) {
		struct io_uring_sqe *request = ring_prepare(&other, IORING_OP_MSG_RING, 0);

		request->fd = ring.fd;
		request->off = (uint64_t)i;
		request->flags = IOSQE_CQE_SKIP_SUCCESS;
		ring_submit(&other);
	}
	for (uint64_t i = 0; i < 5; i++)
		expect(&ring, i);
}

static void verify_more(void)
{
	expect(&ring, 5);
	expect(&ring, 6);
	turn(&ring);
	turn(&other);
}

/* ---- far: positions far away ---- */

static void set_up_far(void)
{
	ring_make(&ring, 4096, 0, 0);
	for (int round = 0; round < 1000; round++) {
		for (int i = 0; i < 4096; i++)
			ring_prepare(&ring, IORING_OP_NOP, 5);
		ring_submit(&ring);
		*ring_word(&ring, ring.made.cq_off.head) += 4096;
	}
	do_nothing(&ring, 6);
}

static void verify_far(void)
{
	expect(&ring, 6);
	live_check(*ring_word(&ring, ring.made.sq_off.head) == 4096001 &&
			   *ring_word(&ring, ring.made.cq_off.tail) == 4096001,
		   "other positions");
	do_nothing(&ring, 8);
	expect(&ring, 8);
}

/* ---- io: a ring that works on files, with worker threads of the kernel, which stay for a while ---- */

static int ends[2];
static char text[16];

static void transfer(void)
{
	struct io_uring_sqe *request = ring_prepare(&ring, IORING_OP_WRITE, 1);

	request->fd = ends[1];
	request->addr = (uintptr_t) "fifteen letters";
	request->len = 16;
	request->flags = IOSQE_ASYNC;
	live_check(ring_enter(&ring, ring_publish(&ring), 1) == 1, "write: %m");
	live_check(ring_take(&ring).res == 16, "the write failed");
	request = ring_prepare(&ring, IORING_OP_READ, 2);
	request->fd = ends[0];
	request->addr = (uintptr_t)text;
	request->len = 16;
	request->flags = IOSQE_ASYNC;
	memset(text, 0, sizeof(text));
	live_check(ring_enter(&ring, ring_publish(&ring), 1) == 1, "read: %m");
	live_check(ring_take(&ring).res == 16 && !strcmp(text, "fifteen letters"), "the read failed");
}

static int count_threads(void)
{
	int count = 0;
	char path[64];

	for (pid_t id = getpid(); id < getpid() + 64; id++) {
		snprintf(path, sizeof(path), "/proc/self/task/%d", id);
		count += access(path, F_OK) == 0;
	}
	return count;
}

static void set_up_io(void)
{
	live_check(pipe(ends) == 0, "pipe: %m");
	ring_make(&ring, 4, 0, 0);
	transfer();
	live_check(count_threads() > 1, "there is no worker thread");
}

static void verify_io(void)
{
	if (live_downtime() > 0)
		live_check(count_threads() == 1 || live_downtime() < 0.0001, "%d threads", count_threads());
	transfer();
}

/* ---- shared: a child has the ring and its mappings, too; another child only the descriptor ---- */

static int go, done;

static void use_shared(void)
{
	struct ring mine = ring;
	uint64_t number;

	signal(SIGTERM, live_stop_child);
	live_check(read(go, &number, sizeof(number)) == sizeof(number), "read: %m");

	ring_map(&mine);
	live_check(ring_unread(&mine) == 1, "the child sees %u completions", ring_unread(&mine));
	expect(&mine, 4);
	ring.prepared = *ring_word(&ring, ring.made.sq_off.tail);
	do_nothing(&ring, 5); /* by the inherited mapping */
	live_check(write(done, &(uint64_t){ 1 }, 8) == 8, "write: %m");
	for (;;)
		pause();
}

static void set_up_shared(void)
{
	ring_make(&ring, 4, 0, 0);
	do_nothing(&ring, 3);
	expect(&ring, 3);
	live_check(dup2(ring.fd, 77) == 77, "dup2: %m");
	go = eventfd(0, 0);
	done = eventfd(0, 0);
	child = live_fork(use_shared);
}

static void verify_shared(void)
{
	uint64_t number;

	do_nothing(&ring, 4);
	live_check(write(go, &(uint64_t){ 1 }, 8) == 8, "write: %m");
	live_check(read(done, &number, sizeof(number)) == sizeof(number), "read: %m");
	live_join(child);
	expect(&ring, 5);
	ring.prepared = *ring_word(&ring, ring.made.sq_off.tail);
	ring.fd = 77;
	turn(&ring);
}

/* ---- blocked: a thread waits in io_uring_enter() for a completion that another thread causes ---- */

static void *wait_for_one(void *nothing)
{
	live_check(ring_enter(&ring, 0, 1) == 0, "the wait ended: %m");
	return nothing;
}

static pthread_t waiter;

static void set_up_blocked(void)
{
	ring_make(&ring, 4, 0, 0);
	pthread_create(&waiter, NULL, wait_for_one, NULL);
}

static void verify_blocked(void)
{
	do_nothing(&ring, 2);
	pthread_join(waiter, NULL);
	expect(&ring, 2);
	turn(&ring);
}

/* ---- busy: worker threads of the kernel always have some requests, each of which soon completes ---- */

#define AT_A_TIME 4
static uint64_t sent[AT_A_TIME], received[AT_A_TIME], rounds;
static int pipes[AT_A_TIME][2];

static void exchange(void)
{
	for (unsigned i = 0; i < AT_A_TIME; i++) {
		struct io_uring_sqe *request = ring_prepare(&ring, IORING_OP_WRITE, i);

		sent[i] = rounds * AT_A_TIME + i;
		request->fd = pipes[i][1];
		request->addr = (uintptr_t)&sent[i];
		request->len = 8;
		request->flags = IOSQE_ASYNC | IOSQE_IO_LINK;
		request = ring_prepare(&ring, IORING_OP_READ, AT_A_TIME + i);
		request->fd = pipes[i][0];
		request->addr = (uintptr_t)&received[i];
		request->len = 8;
		request->flags = IOSQE_ASYNC;
	}
	ring_submit(&ring);
	for (unsigned i = 0; i < 2 * AT_A_TIME; i++) {
		while (!ring_unread(&ring))
			live_check(ring_enter(&ring, 0, 1) == 0 || errno == EINTR, "io_uring_enter: %m");
		live_check(ring_take(&ring).res == 8, "a request failed");
	}
	for (unsigned i = 0; i < AT_A_TIME; i++)
		live_check(received[i] == rounds * AT_A_TIME + i, "pipe %u: %llu instead of %llu", i,
			   (unsigned long long)received[i], (unsigned long long)(rounds * AT_A_TIME + i));
	rounds++;
}

static void set_up_busy(void)
{
	for (unsigned i = 0; i < AT_A_TIME; i++)
		live_check(pipe(pipes[i]) == 0, "pipe: %m");
	ring_make(&ring, 2 * AT_A_TIME, 0, 0);
	exchange();
}

/* ---- sqpoll: a thread of the kernel takes the requests; it has the memory and descriptors of the process ---- */

static const uint32_t polled_setups[] = {
	IORING_SETUP_SQPOLL,
	IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF | IORING_SETUP_CLAMP,
	IORING_SETUP_SQPOLL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_SQPOLL | IORING_SETUP_R_DISABLED,
	IORING_SETUP_SQPOLL, /* its thread does not sleep */
};
#define POLLED (sizeof(polled_setups) / sizeof(*polled_setups))
static struct ring polled[POLLED];

static struct completion await_completion(struct ring *of)
{
	for (int i = 0; i < 100000 && !ring_unread(of); i++)
		usleep(100);
	return ring_take(of);
}

static void transfer_polled(struct ring *of)
{
	for (int i = 0; i < 10; i++) {
		struct io_uring_sqe *request = ring_prepare(of, i % 2 ? IORING_OP_READ : IORING_OP_WRITE,
							    (uint64_t)i);

		request->fd = ends[!(i % 2)];
		request->addr = i % 2 ? (uintptr_t)text : (uintptr_t) "fifteen letters";
		request->len = 16;
		memset(text, 0, sizeof(text));
		ring_wake(of);
		live_check(await_completion(of).res == 16, "transfer %d failed", i);
		live_check(!(i % 2) || !strcmp(text, "fifteen letters"), "the read failed");
	}
}

/* A relative path, and the umask of the process. */
static void open_polled(struct ring *of)
{
	struct io_uring_sqe *request = ring_prepare(of, IORING_OP_OPENAT, 1);
	struct stat found;
	int fd;

	request->fd = AT_FDCWD;
	request->addr = (uintptr_t) "made-by-the-kernel";
	request->open_flags = O_CREAT | O_EXCL | O_WRONLY;
	request->len = 0666;
	ring_wake(of);
	fd = await_completion(of).res;
	live_check(fd >= 0 && fstat(fd, &found) == 0 && (found.st_mode & 0777) == 0640, "open: %d", fd);
	live_check(unlink("made-by-the-kernel") == 0, "another directory: %m");
}

static void set_up_sqpoll(void)
{
	live_check(mkdir("below", 0700) == 0 && chdir("below") == 0, "chdir: %m");
	umask(0026);
	live_check(pipe(ends) == 0, "pipe: %m");
	for (size_t i = 0; i < POLLED; i++) {
		polled[i].made.sq_thread_idle = i == POLLED - 1 ? 1000000 : 5;
		ring_make_more(&polled[i], 4, polled_setups[i], 0);
		if (!(polled_setups[i] & IORING_SETUP_R_DISABLED))
			transfer_polled(&polled[i]);
	}
	live_sleep(0.1);
	/* Published, but the thread sleeps: the program has not come to wake it. */
	ring_prepare(&polled[0], IORING_OP_NOP, 77);
	ring_publish(&polled[0]);
}

static int thread_of(const struct ring *of)
{
	char path[64], line[256];
	FILE *file;
	int thread = -1;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", of->fd);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file) && sscanf(line, "SqThread: %d", &thread) != 1)
		;
	if (file)
		fclose(file);
	return thread;
}

static void verify_sqpoll(void)
{
	/* Before Linux 6.8, fdinfo does not show a thread that is awake, as the last one is. */
	for (size_t i = 0; i < POLLED - 1; i++)
		live_check(thread_of(&polled[i]) > 0, "ring %zu has no thread", i);
	/* A signal that stops the process wakes the thread: it may have taken the request already. */
	ring_wake(&polled[0]);
	live_check(await_completion(&polled[0]).user_data == 77 && !ring_unread(&polled[0]),
		   "another request was taken");
	live_check(syscall(SYS_io_uring_register, polled[3].fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) == 0,
		   "enable: %m");
	for (size_t i = 0; i < POLLED; i++)
		transfer_polled(&polled[i]);
	open_polled(&polled[1]);
}

/* ---- registered ---- */

static void set_up_registered(int what, void *argument, unsigned count)
{
	ring_make(&ring, 4, 0, 0);
	live_check(syscall(SYS_io_uring_register, ring.fd, what, argument, count) == 0, "register: %m");
}

/* Slots, one of them empty. */
static void set_up_files(void)
{
	live_need_kernel(613, "criu reads what is registered since Linux 6.13 only");
	live_check(pipe(ends) == 0, "pipe: %m");
	set_up_registered(IORING_REGISTER_FILES, (int[]){ ends[0], -1, ends[1], ends[0] }, 4);
}

/* No process has one of them open, but an unread message has it. */
static void set_up_files_in_flight(void)
{
	char byte = 'x';
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct msghdr message = { .msg_iov = &(struct iovec){ &byte, 1 },
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	int sockets[2];

	set_up_files();
	live_check(socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets) == 0, "socketpair: %m");
	memcpy(CMSG_DATA(&control.header), &ends[1], sizeof(int));
	live_check(sendmsg(sockets[0], &message, 0) == 1, "sendmsg: %m");
	close(ends[1]);
}

static void verify_files(void)
{
	static const int slots[] = { 2, 0, 2, 3, 1 }, results[] = { 16, 16, 16, 16, -EBADF };

	for (int i = 0; i < 5; i++) {
		struct io_uring_sqe *request = ring_prepare(&ring, i % 2 ? IORING_OP_READ : IORING_OP_WRITE,
							    1);

		request->fd = slots[i];
		request->flags = IOSQE_FIXED_FILE;
		request->addr = i % 2 ? (uintptr_t)text : (uintptr_t) "fifteen letters";
		request->len = 16;
		ring_submit(&ring);
		live_check(ring_take(&ring).res == results[i], "request %d: another result", i);
	}
	live_check(!strcmp(text, "fifteen letters"), "it has read something else");
}

/* A ring for one thread is brought to its position late, which must not count. */
static void set_up_eventfds(void)
{
	live_need_kernel(613, "criu reads what is registered since Linux 6.13 only");
	go = eventfd(5, 0);
	done = eventfd(3, EFD_NONBLOCK);
	set_up_registered(IORING_REGISTER_EVENTFD, &go, 1);
	other = ring;
	ring_make(&ring, 4, IORING_SETUP_SINGLE_ISSUER, 0);
	live_check(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_EVENTFD_ASYNC, &done, 1) == 0,
		   "register: %m");
	do_nothing(&other, 1);
	do_nothing(&ring, 2);
}

static void verify_eventfds(void)
{
	uint64_t number;

	expect(&other, 1);
	expect(&ring, 2);
	live_check(read(go, &number, 8) == 8 && number == 6, "the eventfd had %lu", (unsigned long)number);
	live_check(read(done, &number, 8) == 8 && number == 3, "the other one had %lu",
		   (unsigned long)number);
	do_nothing(&other, 3);
	live_check(read(go, &number, 8) == 8 && number == 1, "a completion counts %lu",
		   (unsigned long)number);
	do_nothing(&ring, 4);
	live_check(read(done, &number, 8) < 0 && errno == EAGAIN, "it counts what completes at once");
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
} parts[] = {
	{ "plain", set_up_plain, verify_plain },
	{ "flags", set_up_flags, verify_flags },
	{ "more", set_up_more, verify_more },
	{ "far", set_up_far, verify_far },
	{ "io", set_up_io, verify_io },
	{ "shared", set_up_shared, verify_shared },
	{ "blocked", set_up_blocked, verify_blocked },
	{ "busy", set_up_busy, exchange },
	{ "sqpoll", set_up_sqpoll, verify_sqpoll },
	{ "files", set_up_files, verify_files },
	{ "files_in_flight", set_up_files_in_flight, verify_files },
	{ "eventfds", set_up_eventfds, verify_eventfds },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);
	part->set_up();
	live_ready();
	if (part->verify == exchange)
		while (!live_stopping())
			exchange();
	live_wait_stop();
	part->verify();
	return live_finish();
}
