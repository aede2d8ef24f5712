/* live.c - see live.h. Relies on plain libc; linked into every program of the live tests. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

const char *live_directory;
static volatile sig_atomic_t stopping;

static atomic_int waiting; /* the thread in live_wait_stop() */

/* The kernel may choose another thread for SIGTERM while the waiting one is on its way into sigsuspend(). */
static void on_term(int signo)
{
	int errno_then = errno;
	int waiter;

	stopping = 1;
	atomic_thread_fence(memory_order_seq_cst);
	waiter = waiting;
	if (waiter && waiter != gettid())
		syscall(SYS_tgkill, getpid(), waiter, SIGTERM);
	errno = errno_then;
}

void live_begin(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_term };

	if (argc < 2) {
		fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
		exit(2);
	}
	live_directory = argv[1];
	sigaction(SIGTERM, &action, NULL);
}

bool live_stopping(void)
{
	return stopping;
}

volatile int *live_stop_flag(void)
{
	return &stopping;
}

void live_wait_stop(void)
{
	sigset_t term, old;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &old);
	sigdelset(&old, SIGTERM);
	waiting = gettid();
	while (!stopping)
		sigsuspend(&old);
	waiting = 0;
	sigprocmask(SIG_UNBLOCK, &term, NULL);
}

void live_path(char *buffer, size_t size, const char *name)
{
	snprintf(buffer, size, "%s/%s", live_directory, name);
}

/* Writes the file once: the first writer wins. No reader sees half of it, and no dump sees it open. */
static void write_once(const char *name, const char *text)
{
	char path[4096], unfinished[4200];
	int fd;

	live_path(path, sizeof(path), name);
	snprintf(unfinished, sizeof(unfinished), "%s.%d", path, gettid());
	fd = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		abort();
	close(fd);
	if (link(unfinished, path) < 0 && errno != EEXIST)
		abort();
	unlink(unfinished);
}

void live_note(const char *name, const char *text)
{
	write_once(name, text);
}

void live_ready(void)
{
	write_once("ready", "");
}

int live_finish(void)
{
	write_once("verdict", "PASS\n");
	return 0;
}

static void verdict(const char *word, const char *format, va_list arguments)
{
	char reason[2048], text[2100];

	vsnprintf(reason, sizeof(reason), format, arguments);
	snprintf(text, sizeof(text), "%s: %s\n", word, reason);
	write_once("verdict", text);
}

void live_fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	verdict("FAIL", format, arguments);
	va_end(arguments);
	_exit(1);
}

void live_skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	verdict("SKIP", format, arguments);
	va_end(arguments);
	_exit(0);
}

void live_stop_child(int signo)
{
	_exit(0);
}

double live_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void read_downtime(double *seconds, int *times)
{
	char path[4096];

	*seconds = *times = 0;
	live_path(path, sizeof(path), "downtime");
	FILE *file = fopen(path, "re");
	if (!file)
		return;
	if (fscanf(file, "%lf %d", seconds, times) != 2)
		*seconds = *times = 0;
	fclose(file);
}

double live_downtime(void)
{
	double seconds;
	int times;

	read_downtime(&seconds, &times);
	return seconds;
}

int live_times_away(void)
{
	double seconds;
	int times;

	read_downtime(&seconds, &times);
	return times;
}

void live_sleep(double seconds)
{
	struct timespec left = { (time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9) };

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

static bool is_asleep(pid_t tid)
{
	char path[64], text[256] = "";
	const char *state;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	live_check(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0, "%s: %m", path);
	close(fd);
	state = strrchr(text, ')');
	return state && state[2] == 'S';
}

void live_wait_asleep(pid_t tid)
{
	live_await(is_asleep(tid), "thread %d does not go to sleep", tid);
}

pid_t live_fork(void (*child)(void))
{
	pid_t pid = fork();

	live_check(pid >= 0, "fork: %m");
	if (pid == 0) {
		child();
		_exit(0);
	}
	return pid;
}

void live_join(pid_t pid)
{
	int status;

	kill(pid, SIGTERM);
	pid_t waited;
	do
		waited = waitpid(pid, &status, 0);
	while (waited < 0 && errno == EINTR);
	live_check(waited == pid, "wait for child %d: %m", pid);
	live_check(status == 0, "child %d ended with wait status 0x%x", pid, status);
}

bool live_smaps_head(const char *line, unsigned long *start, unsigned long *end)
{
	unsigned long from, to;

	if (sscanf(line, "%lx-%lx ", &from, &to) != 2)
		return false;
	*start = from;
	*end = to;
	return true;
}

const void *live_row(const void *table, size_t row_size, size_t rows, const char *name, bool must_be)
{
	for (size_t i = 0; i < rows; i++) {
		const char *row = (const char *)table + i * row_size;

		if (name && !strcmp(*(const char *const *)row, name))
			return row;
	}
	live_check(!must_be, "the program has no part '%s'", name ? name : "");
	return NULL;
}

int live_run(int argc, char **argv, const struct live_part *parts, size_t count)
{
	const struct live_part *part;

	live_begin(argc, argv);
	part = live_row(parts, sizeof(*parts), count, argv[2], true);
	part->set_up();
	live_ready();
	live_wait_stop();
	part->verify();
	return live_finish();
}

static uint64_t mixed(uint64_t value)
{
	value ^= value >> 33;
	value *= 0xff51afd7ed558ccdULL;
	return value ^ (value >> 29);
}

void live_fill(void *memory, size_t size, uint64_t seed)
{
	uint64_t *words = memory;

	for (size_t i = 0; i < size / 8; i++)
		words[i] = mixed(seed + i);
}

void live_compare(const void *memory, size_t size, uint64_t seed, const char *what)
{
	const uint64_t *words = memory;

	for (size_t i = 0; i < size / 8; i++)
		live_check(words[i] == mixed(seed + i), "%s: offset %zu of %zu has %lx", what, i * 8, size,
			   (unsigned long)words[i]);
}
