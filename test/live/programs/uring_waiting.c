/*
 * uring_waiting.c - io_uring: requests in flight that wait until a file is ready, or for a time. After the restore they
 * must still wait, and complete when it is time.
 *
 * usage: uring_waiting DIRECTORY plain|deferred|large|…
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
#include <sys/un.h>
#include <time.h>

#include "uring.h"

static struct ring ring;
static int ends[2], sockets[2], counter, listening, polled[2];
static char text[16], received[16];
static uint64_t number;
static struct sockaddr_un caller;
static socklen_t caller_length = sizeof(caller);
static struct __kernel_timespec long_time = { .tv_sec = 1000 }, short_time = { .tv_sec = 2 },
				never = { .tv_sec = 4000000000 };
static struct timespec began;

enum { READ = 100, RECV, COUNT, ACCEPT, ONCE, EVER, LONG, SHORT, COUNTED, CALENDAR, FULL };

static void open_files(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX, .sun_path = "listening" };

	live_check(pipe(ends) == 0 && pipe(polled) == 0, "pipe: %m");
	live_check(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, "socketpair: %m");
	counter = eventfd(0, 0);
	listening = socket(AF_UNIX, SOCK_STREAM, 0);
	live_check(bind(listening, (struct sockaddr *)&name, sizeof(name)) == 0 && listen(listening, 5) == 0,
		   "listen: %m");
}

static struct io_uring_sqe *prepare(int opcode, uint64_t data, int fd, const void *address, uint32_t length)
{
	struct io_uring_sqe *request = ring_prepare(&ring, opcode, data);

	request->fd = fd;
	request->addr = (uintptr_t)address;
	request->len = length;
	return request;
}

static void submit(void)
{
	uint32_t wanted = ring_publish(&ring);

	live_check(syscall(SYS_io_uring_enter, ring.fd, wanted, 0, 0, NULL, 0) == (long)wanted, "submit: %m");
}

static void turn(int times)
{
	for (int i = 0; i < times; i++) {
		ring_prepare(&ring, IORING_OP_NOP, 1);
		ring_submit(&ring);
		live_check(ring_take(&ring).user_data == 1, "another completion");
	}
}

static void submit_timeouts(void)
{
	prepare(IORING_OP_TIMEOUT, LONG, -1, &long_time, 1);
	prepare(IORING_OP_TIMEOUT, SHORT, -1, &short_time, 1)->timeout_flags = IORING_TIMEOUT_BOOTTIME;
	submit();
	clock_gettime(CLOCK_BOOTTIME, &began);
	prepare(IORING_OP_TIMEOUT, CALENDAR, -1, &never, 1)->timeout_flags = IORING_TIMEOUT_REALTIME |
									     IORING_TIMEOUT_ABS;
	prepare(IORING_OP_TIMEOUT, COUNTED, -1, &long_time, 1)->off = 6;
	submit();
}

static void submit_all(void)
{
	turn(3);
	prepare(IORING_OP_READ, READ, ends[0], text, 16);
	prepare(IORING_OP_RECV, RECV, sockets[0], received, 16);
	submit();
	prepare(IORING_OP_READ, COUNT, counter, &number, 8)->flags = IOSQE_CQE_SKIP_SUCCESS;
	prepare(IORING_OP_ACCEPT, ACCEPT, listening, &caller, 0)->addr2 = (uintptr_t)&caller_length;
	submit();
	prepare(IORING_OP_POLL_ADD, ONCE, polled[0], NULL, 0)->poll32_events = POLLIN;
	prepare(IORING_OP_POLL_ADD, EVER, polled[0], NULL, IORING_POLL_ADD_MULTI)->poll32_events = POLLIN;
	submit();
	submit_timeouts();
	turn(2);
}

static struct completion await(void)
{
	while (!ring_unread(&ring))
		live_check(ring_enter(&ring, 0, 1) == 0 || errno == EINTR, "wait: %m");
	return ring_take(&ring);
}

/* The next completion is this one. */
static struct completion expect(uint64_t data, int result)
{
	struct completion completion = await();

	live_check(completion.user_data == data && (result == completion.res || result == INT32_MAX),
		   "completion %llu (%d) instead of %llu (%d)", (unsigned long long)completion.user_data,
		   completion.res, (unsigned long long)data, result);
	return completion;
}

static double seconds_since_begin(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9;
}

static void finish_files(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX, .sun_path = "listening" };
	int calling = socket(AF_UNIX, SOCK_STREAM, 0);
	struct completion completion;

	live_check(write(ends[1], "fifteen letters", 16) == 16, "write: %m");
	expect(READ, 16);
	live_check(!strcmp(text, "fifteen letters"), "it has read something else");
	live_check(send(sockets[1], "a message", 10, 0) == 10, "send: %m");
	expect(RECV, 10);
	live_check(!strcmp(received, "a message"), "it has received something else");
	live_check(connect(calling, (struct sockaddr *)&name, sizeof(name)) == 0, "connect: %m");
	completion = expect(ACCEPT, INT32_MAX);
	live_check(completion.res > 0 && caller_length == sizeof(sa_family_t),
		   "accept: %d, a name of %u bytes", completion.res, caller_length);
	live_check(write(counter, &(uint64_t){ 5 }, 8) == 8, "write: %m");
	ring_enter(&ring, 0, 0);
	live_check(number == 5 && !ring_unread(&ring), "the eventfd had %llu", (unsigned long long)number);
}

static void finish_polls(void)
{
	struct completion first, second;

	live_check(write(polled[1], "a", 1) == 1, "write: %m");
	first = await();
	second = await();
	live_check(first.user_data + second.user_data == ONCE + EVER && first.res == POLLIN &&
			   second.res == POLLIN,
		   "polls: %d, %d", first.res, second.res);
	live_check(write(polled[1], "a", 1) == 1, "write: %m");
	live_check(expect(EVER, POLLIN).flags & IORING_CQE_F_MORE, "it is no multishot any more");
}

static void verify_all(void)
{
	struct completion completion;
	bool is_over = false;

	/* The short one may be over. */
	while (ring_unread(&ring) && !is_over)
		is_over = expect(SHORT, -ETIME).user_data == SHORT;
	if (!is_over)
		expect(SHORT, -ETIME);
	live_check(seconds_since_begin() > 1.99 && seconds_since_begin() < 30, "it took %f seconds",
		   seconds_since_begin());
	finish_files(); /* three completions, and two of turn() before: one is left to COUNTED */
	ring_prepare(&ring, IORING_OP_NOP, 2);
	ring_submit(&ring);
	expect(2, 0);
	expect(COUNTED, 0);
	finish_polls();
	for (int i = 0; i < 2; i++) {
		struct io_uring_sqe *request = prepare(IORING_OP_TIMEOUT_REMOVE, 3, -1, NULL, 0);

		request->addr = i ? CALENDAR : LONG;
		ring_submit(&ring);
		completion = await();
		live_check(completion.user_data == (i ? CALENDAR : LONG) || completion.user_data == 3,
			   "remove");
		completion = await();
		live_check(completion.res == 0 || completion.res == -ECANCELED, "remove: %d", completion.res);
	}
	turn(20);
}

static void set_up(unsigned flags, unsigned entries)
{
	open_files();
	ring_make(&ring, entries, flags, 64);
	submit_all();
}

static void set_up_plain(void)
{
	set_up(0, 4);
	/* Published, and not submitted: these stay behind the requests that wait. */
	ring_prepare(&ring, IORING_OP_NOP, 77);
	ring_publish(&ring);
}

static void verify_plain(void)
{
	ring_submit(&ring);
	while (await().user_data != 77)
		clock_gettime(CLOCK_BOOTTIME,
			      &began); /* the short one is over, so it is not looked at again */
	turn(1);
}

static void set_up_deferred(void)
{
	set_up(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 8);
}

static void set_up_large(void)
{
	set_up(IORING_SETUP_SQE128 | IORING_SETUP_CQE32, 8);
}

static void set_up_no_array(void)
{
	set_up(IORING_SETUP_NO_SQARRAY | IORING_SETUP_COOP_TASKRUN, 4);
}

/* ---- registered: the file is in a slot, and no process has the descriptor of the request any more ---- */

static void set_up_registered(void)
{
	live_check(pipe(ends) == 0, "pipe: %m");
	ring_make(&ring, 4, 0, 0);
	live_check(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, (int[]){ -1, ends[0] },
			   2) == 0,
		   "register: %m");
	prepare(IORING_OP_READ, READ, 1, text, 16)->flags = IOSQE_FIXED_FILE;
	submit();
}

static void verify_read(void)
{
	live_check(!ring_unread(&ring), "it has completed");
	live_check(write(ends[1], "fifteen letters", 16) == 16, "write: %m");
	expect(READ, 16);
	live_check(!strcmp(text, "fifteen letters"), "it has read something else");
}

/* ---- moved: the descriptor of the request is another file's now ---- */

static void set_up_moved(void)
{
	int first;

	live_check(pipe(ends) == 0, "pipe: %m");
	ring_make(&ring, 4, 0, 0);
	prepare(IORING_OP_READ, READ, ends[0], text, 16);
	submit();
	first = ends[0];
	ends[0] = dup(first);
	live_check(dup2(STDERR_FILENO, first) == first, "dup2: %m");
}

/* ---- async: a worker thread of the kernel has tried it ---- */

static void set_up_async(void)
{
	live_check(pipe(ends) == 0, "pipe: %m");
	ring_make(&ring, 4, 0, 0);
	prepare(IORING_OP_READ, READ, ends[0], text, 16)->flags = IOSQE_ASYNC;
	submit();
	live_sleep(0.05);
}

/* ---- thread: another thread than the first has submitted it ---- */

static void *submit_elsewhere(void *nothing)
{
	prepare(IORING_OP_READ, READ, ends[0], text, 16);
	submit();
	live_check(nothing == NULL, "?");
	for (;;)
		pause();
}

static void set_up_thread(void)
{
	pthread_t thread;

	live_check(pipe(ends) == 0, "pipe: %m");
	ring_make(&ring, 4, 0, 0);
	pthread_create(&thread, NULL, submit_elsewhere, NULL);
	while (!__atomic_load_n(ring_word(&ring, ring.made.sq_off.head), __ATOMIC_ACQUIRE))
		live_sleep(0.001);
}

/* ---- many: more of them than the queue has entries ---- */

#define MANY 20
static char letters[MANY];

static void set_up_many(void)
{
	live_check(pipe(ends) == 0, "pipe: %m");
	ring_make(&ring, 4, 0, 64);
	turn(2);
	for (int i = 0; i < MANY; i++) {
		prepare(IORING_OP_READ, (uint64_t)i, ends[0], &letters[i], 1);
		submit();
	}
}

static void verify_many(void)
{
	bool is_done[MANY] = { false };

	for (int i = 0; i < MANY; i++)
		live_check(write(ends[1], "abcdefghijklmnopqrstuvwxyz" + i, 1) == 1, "write: %m");
	for (int i = 0; i < MANY; i++) {
		struct completion completion = await();

		live_check(completion.user_data < MANY && !is_done[completion.user_data] &&
				   completion.res == 1,
			   "another completion");
		is_done[completion.user_data] = true;
		live_check(letters[completion.user_data] >= 'a', "no letter");
	}
	turn(10);
}

/* ---- accepting: a multishot that has completed twice ---- */

static void call(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX, .sun_path = "listening" };
	int calling = socket(AF_UNIX, SOCK_STREAM, 0);
	struct completion completion;

	live_check(connect(calling, (struct sockaddr *)&name, sizeof(name)) == 0, "connect: %m");
	completion = expect(ACCEPT, INT32_MAX);
	live_check(completion.res > 0 && completion.flags & IORING_CQE_F_MORE, "accept: %d", completion.res);
	close(completion.res);
	close(calling);
}

static void set_up_accepting(void)
{
	open_files();
	ring_make(&ring, 4, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN, 0);
	prepare(IORING_OP_ACCEPT, ACCEPT, listening, NULL, 0)->ioprio = IORING_ACCEPT_MULTISHOT;
	submit();
	call();
	call();
}

static void verify_accepting(void)
{
	live_check(!ring_unread(&ring), "it has completed");
	call();
	call();
}

/* ---- full: a write waits until there is room ---- */

static void set_up_full(void)
{
	static char page[4096];
	int flags;

	live_check(pipe(ends) == 0, "pipe: %m");
	flags = fcntl(ends[1], F_GETFL);
	fcntl(ends[1], F_SETFL, flags | O_NONBLOCK);
	while (write(ends[1], page, sizeof(page)) > 0)
		;
	fcntl(ends[1], F_SETFL, flags);
	ring_make(&ring, 4, 0, 0);
	prepare(IORING_OP_WRITE, FULL, ends[1], "fifteen letters", 16);
	submit();
}

static void verify_full(void)
{
	static char page[4096];
	ssize_t count;

	live_check(!ring_unread(&ring), "it has completed");
	live_check(read(ends[0], page, sizeof(page)) == sizeof(page), "read: %m");
	expect(FULL, 16);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	memset(text, 0, sizeof(text));
	while ((count = read(ends[0], page, sizeof(page))) > 0)
		memcpy(text, page + count - 16, 16);
	live_check(!strcmp(text, "fifteen letters"), "it has written something else");
}

/* ---- busy: two processes with a ring each, which always have something in flight ---- */

static pid_t child;
static struct __kernel_timespec moment = { .tv_nsec = 500000 };
static uint64_t sent, echoed;

static void receive_number(int fd)
{
	prepare(IORING_OP_RECV, RECV, fd, &number, sizeof(number));
	submit();
}

static void echo(void)
{
	signal(SIGTERM, live_stop_child);
	ring_make(&ring, 4, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0);
	for (;;) {
		receive_number(sockets[1]);
		expect(RECV, sizeof(number));
		live_check(send(sockets[1], &number, sizeof(number), 0) == sizeof(number), "send: %m");
	}
}

static void set_up_busy(void)
{
	live_check(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, "socketpair: %m");
	child = live_fork(echo);
	ring_make(&ring, 4, 0, 0);
	receive_number(sockets[0]);
	prepare(IORING_OP_TIMEOUT, SHORT, -1, &moment, 1);
	submit();
}

static void step(void)
{
	struct completion completion = await();

	if (completion.user_data == SHORT) {
		live_check(completion.res == -ETIME, "timeout: %d", completion.res);
		sent++;
		live_check(send(sockets[0], &sent, sizeof(sent), 0) == sizeof(sent), "send: %m");
		prepare(IORING_OP_TIMEOUT, SHORT, -1, &moment, 1);
		submit();
		return;
	}
	live_check(completion.user_data == RECV && completion.res == sizeof(number), "recv: %d",
		   completion.res);
	live_check(number == ++echoed, "%llu came back instead of %llu", (unsigned long long)number,
		   (unsigned long long)echoed);
	receive_number(sockets[0]);
}

static void verify_busy(void)
{
	for (int i = 0; i < 200; i++)
		step();
	live_join(child);
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
} parts[] = {
	{ "plain", set_up_plain, verify_plain },
	{ "deferred", set_up_deferred, verify_all },
	{ "large", set_up_large, verify_all },
	{ "no_array", set_up_no_array, verify_all },
	{ "registered", set_up_registered, verify_read },
	{ "moved", set_up_moved, verify_read },
	{ "async", set_up_async, verify_read },
	{ "thread", set_up_thread, verify_read },
	{ "many", set_up_many, verify_many },
	{ "accepting", set_up_accepting, verify_accepting },
	{ "full", set_up_full, verify_full },
	{ "busy", set_up_busy, verify_busy },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);
	live_need_kernel(615, "criu sees which requests wait since Linux 6.15 only");
	part->set_up();
	live_ready();
	while (part->verify == verify_busy && !live_stopping())
		step();
	live_wait_stop();
	part->verify();
	unlink("listening");
	return live_finish();
}
