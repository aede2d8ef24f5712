/*
 * compel_calls.c - processes and threads that make one blocking call and record how it ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "compiler.h"
#include "compel_victims.h"

static long now_milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static long sleep_plain(int milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };

	return syscall(SYS_nanosleep, &time, NULL);
}

long sleep_with_rest(int milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 }, rest;

	return clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &rest);
}

static long sleep_until(int milliseconds)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_nsec += milliseconds * 1000000L;
	time.tv_sec += time.tv_nsec / 1000000000;
	time.tv_nsec %= 1000000000;
	return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

long poll_nothing(int milliseconds)
{
	return poll(NULL, 0, milliseconds);
}

static long select_nothing(int milliseconds)
{
	struct timeval time = { milliseconds / 1000, milliseconds % 1000 * 1000 };

	return select(0, NULL, NULL, NULL, &time);
}

static long ppoll_nothing(int milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };

	return ppoll(NULL, 0, &time, NULL);
}

static long wait_for_futex(int milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	static int word;

	return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &time, NULL, 0);
}

static long wait_for_epoll(int milliseconds)
{
	struct epoll_event event;

	return epoll_wait(epoll_create1(0), &event, 1, milliseconds);
}

static long wait_for_epoll_pwait2(int milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	struct epoll_event event;

	return syscall(SYS_epoll_pwait2, epoll_create1(0), &event, 1, &time, NULL, 8);
}

static long wait_for_semaphore(int milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	struct sembuf operation = { .sem_op = -1 };
	int set = semget(IPC_PRIVATE, 1, 0600);
	long result = semtimedop(set, &operation, 1, &time);
	int error = errno;

	semctl(set, 0, IPC_RMID);
	errno = error;
	return result;
}

static long wait_for_signal(int milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return sigtimedwait(&set, NULL, &time);
}

static long receive_with_timeout(int milliseconds)
{
	struct timeval time = { milliseconds / 1000, milliseconds % 1000 * 1000 };
	int pair[2];
	char byte;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ||
	    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)))
		return -2;
	return recv(pair[0], &byte, 1, 0);
}

static long read_pipe(int milliseconds)
{
	int ends[2];
	char byte = 0;

	if (pipe(ends))
		return -2;
	if (!fork()) {
		close(ends[0]);
		usleep(milliseconds * 1000);
		_exit(write(ends[1], "x", 1) != 1);
	}
	return read(ends[0], &byte, 1);
}

static long wait_for_child(int milliseconds)
{
	pid_t child = fork();

	if (!child) {
		usleep(milliseconds * 1000);
		_exit(0);
	}
	return waitpid(child, NULL, 0) == child ? 0 : -1;
}

void count_signal(int signal)
{
	(void)signal;
	story->signals++;
}

static void block_signal(void)
{
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
}

/* The signal is blocked, except in the call that waits for it. */
static void await_signal(sigset_t *open)
{
	sigemptyset(open);
	signal(SIGUSR1, count_signal);
	block_signal();
}

static long suspend(unused int argument)
{
	sigset_t open;

	await_signal(&open);
	return sigsuspend(&open);
}

static long epoll_with_mask(unused int argument)
{
	struct epoll_event event;
	sigset_t open;

	await_signal(&open);
	return epoll_pwait(epoll_create1(0), &event, 1, -1, &open);
}

const struct blocking_call blocking_calls[] = {
	{ "nanosleep", sleep_plain, 400, 0, 0, 400, WHEN_ORPHANED, 0, false },
	{ "clock_nanosleep with rem", sleep_with_rest, 400, 0, 0, 400, NEVER, 0, true },
	{ "clock_nanosleep until", sleep_until, 400, 0, 0, 400, NEVER, 0, false },
	{ "poll", poll_nothing, 400, 0, 0, 400, NEVER, 0, true },
	{ "select", select_nothing, 400, 0, 0, 400, NEVER, 0, false },
	{ "ppoll", ppoll_nothing, 400, 0, 0, 400, NEVER, 0, false },
	{ "futex", wait_for_futex, 400, -1, ETIMEDOUT, 400, WHEN_ORPHANED, 0, false },
	{ "epoll_wait", wait_for_epoll, 400, 0, 0, 400, NEVER, 0, false },
	{ "epoll_pwait2", wait_for_epoll_pwait2, 400, 0, 0, 400, ALWAYS, 0, false },
	{ "semtimedop", wait_for_semaphore, 400, -1, EAGAIN, 400, ALWAYS, 0, false },
	{ "sigtimedwait", wait_for_signal, 400, -1, EAGAIN, 400, ALWAYS, 0, false },
	{ "recv with SO_RCVTIMEO", receive_with_timeout, 400, -1, EAGAIN, 400, ALWAYS, 0, false },
	{ "read of a pipe", read_pipe, 400, 1, 0, 400, NEVER, 0, false },
	{ "wait4", wait_for_child, 400, 0, 0, 400, NEVER, 0, false },
	{ "sigsuspend", suspend, 0, -1, EINTR, 400, NEVER, SIGUSR1, false },
	{ "epoll_pwait with a mask", epoll_with_mask, 0, -1, EINTR, 400, NEVER, SIGUSR1, false },
};
const int blocking_call_count = array_size(blocking_calls);

static const struct blocking_call *the_call;

static void make_blocking_call(struct tale *tale)
{
	long start = now_milliseconds();

	tale->is_ready = 1;
	errno = 0;
	tale->result = the_call->make(the_call->argument);
	tale->error = errno;
	tale->milliseconds = now_milliseconds() - start;
	tale->is_done = 1;
}

/* It does not end: on a busy machine the test may look at it only after the call has returned. */
static void call_and_stay(struct tale *tale)
{
	make_blocking_call(tale);
	sleep_for_ever(NULL);
}

pid_t start_blocking(struct tale *tale, const struct blocking_call *call)
{
	the_call = call;
	return start_victim(tale, call_and_stay);
}

static void *make_call_in_thread(void *argument unused)
{
	make_blocking_call(story);
	return sleep_for_ever(NULL);
}

/* All threads block SIGUSR1, so that only the call that waits for it can take it. */
static void have_blocking_thread(unused struct tale *tale)
{
	block_signal();
	start_thread(make_call_in_thread, 0);
	start_thread(sleep_for_ever, 0);
	sleep_for_ever(NULL);
}

pid_t start_blocking_thread(struct tale *tale, const struct blocking_call *call)
{
	the_call = call;
	return start_victim(tale, have_blocking_thread);
}
