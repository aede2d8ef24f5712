/* tree.c - starts the tasks of a script, lets them do steps, waits until they rest, and ends them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "driver.h"

#define PATIENCE 120 /* seconds for something that takes milliseconds on an idle machine */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

void tree_make_files(struct run *run)
{
	int fd = open(run->file_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t random = run->seed, words[PAGE / 8];

	for (size_t page = 0; page < FILE_PAGES; page++) {
		for (size_t i = 0; i < PAGE / 8; i++)
			words[i] = random_next(&random);
		if (write(fd, words, PAGE) != (ssize_t)PAGE)
			failed(run, "%s: %s", run->file_path, strerror(errno));
	}
	close(fd);
	fd = open(run->board_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(struct board)))
		failed(run, "%s: %s", run->board_path, strerror(errno));
	run->board = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run->board == MAP_FAILED)
		failed(run, "%s: %s", run->board_path, strerror(errno));
	close(fd);
}

static _Noreturn void become_script(struct run *run)
{
	/* Without rseq, where the kernel writes the CPU of a thread, which is not predictable. */
	char *environment[] = { "GLIBC_TUNABLES=glibc.pthread.rseq=0", NULL };
	char random[24];
	char *arguments[] = { "script", run->board_path, run->file_path, "0", random, "0", "0", NULL };
	int fd = open("/dev/null", O_RDWR);

	snprintf(random, sizeof(random), "%llu", (unsigned long long)random_derive(run->seed, 0));
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	closefrom(3);
	setsid();
	personality(ADDR_NO_RANDOMIZE);
	execve(run->script, arguments, environment);
	_exit(127);
}

void tree_start(struct run *run)
{
	int pid = fork();

	if (!pid)
		become_script(run);
	run->board->slots[0] = (struct slot){ .state = SLOT_LIVE, .pid = pid };
	tree_rest(run);
}

/* The rest of a line of /proc/PID/stat begins with the state, behind the last parenthesis. */
static char state_of(int pid)
{
	char path[40], text[300] = "";
	char *end;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return '\0';
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	end = strrchr(text, ')');
	return end ? end[2] : '\0';
}

/* The last number in stat: how a zombie has ended. 0 if it is gone. */
static int exit_code_of(int pid)
{
	char path[40], text[1024] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return strrchr(text, ' ') ? atoi(strrchr(text, ' ')) : 0;
}

static void check_alive(struct run *run, int pid, double since)
{
	char state = state_of(pid);

	if (run->board->trouble[0])
		failed(run, "the script itself: %s", run->board->trouble);
	if (state == 'Z' || state == 'X' || !state)
		failed(run, "process %d has died (wait status %#x)", pid, exit_code_of(pid));
	if (now() - since > PATIENCE)
		failed(run, "process %d (%c) does not become idle", pid, state);
}

static int count_threads(int pid)
{
	char path[40];
	struct dirent *entry;
	DIR *directory;
	int count = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	directory = opendir(path);
	while (directory && (entry = readdir(directory)))
		count += entry->d_name[0] != '.';
	if (directory)
		closedir(directory);
	return count;
}

/* Its parent can reap it only when all its threads are gone; before that the leader may already be a zombie. */
static void wait_until_dead(struct run *run, int pid)
{
	double since = now();

	while (state_of(pid) != 'Z' || count_threads(pid) > 1) {
		if (now() - since > PATIENCE)
			failed(run, "process %d does not end", pid);
		usleep(100);
	}
}

static void order(struct run *run, struct slot *slot, uint32_t steps)
{
	struct timespec time = { .tv_nsec = 50000000 };
	uint32_t target = slot->order + steps, done;
	double since = now();

	__atomic_store_n(&slot->order, target, __ATOMIC_RELEASE);
	syscall(SYS_futex, &slot->order, FUTEX_WAKE, 1, NULL, NULL, 0);
	while ((done = __atomic_load_n(&slot->done, __ATOMIC_ACQUIRE)) != target) {
		if (syscall(SYS_futex, &slot->done, FUTEX_WAIT, done, &time, NULL, 0) && errno == ETIMEDOUT &&
		    slot->state == SLOT_LIVE)
			check_alive(run, slot->pid, since);
	}
	if (slot->state == SLOT_GONE)
		wait_until_dead(run, slot->pid);
}

void tree_let_run(struct run *run, uint64_t seed)
{
	for (int left = 8 + random_below(&seed, 32), steps; left > 0; left -= steps) {
		struct slot *slot = &run->board->slots[random_below(&seed, SLOTS)];

		steps = 0;
		if (slot->state != SLOT_LIVE)
			continue;
		steps = 1 + random_below(&seed, 6);
		order(run, slot, steps);
	}
	tree_rest(run);
}

/* "202 0x7f.. 0x80 0x0 0x0 0x0 0x0 0x7ffe… 0x7f…": a call, its arguments, stack pointer, instruction pointer. */
static bool look_at_thread(int pid, const char *thread, uint64_t *stack)
{
	char path[300], text[200] = "";
	long call = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/syscall", pid, thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return sscanf(text, "%ld %*s %*s %*s %*s %*s %*s %lx", &call, stack) == 2 && call == SYS_futex;
}

static bool rests(int pid, struct quiet *quiet)
{
	struct dirent *entry;
	char path[40];
	bool result = true;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	directory = opendir(path);
	quiet->count = 0;
	while (directory && result && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			result = quiet->count < THREADS_SEEN &&
				 look_at_thread(pid, entry->d_name, &quiet->stacks[quiet->count++]);
	if (directory)
		closedir(directory);
	return result && quiet->count;
}

void tree_look(struct run *run, int pid, struct quiet *quiet)
{
	double since = now();

	for (useconds_t pause = 20; !rests(pid, quiet); pause += pause < 2000 ? pause : 0) {
		check_alive(run, pid, since);
		usleep(pause);
	}
}

void tree_rest(struct run *run)
{
	struct quiet quiet;

	for (int i = 0; i < SLOTS; i++) {
		struct slot *slot = &run->board->slots[i];

		if (slot->state != SLOT_LIVE)
			continue;
		tree_look(run, slot->pid, &quiet);
		if (__atomic_load_n(&slot->done, __ATOMIC_ACQUIRE) != slot->order) {
			usleep(100); /* it sleeps, but in another futex: it does not rest yet */
			i--;
		}
	}
	if (run->board->trouble[0])
		failed(run, "the script itself: %s", run->board->trouble);
}

static bool is_alone(void)
{
	DIR *directory = opendir("/proc");
	struct dirent *entry;
	bool result = true;

	while ((entry = readdir(directory)))
		if (atoi(entry->d_name) > 1)
			result = false;
	closedir(directory);
	return result;
}

static void name_survivors(struct run *run)
{
	DIR *directory = opendir("/proc");
	struct dirent *entry;
	char path[300], name[32] = "";

	while ((entry = readdir(directory))) {
		if (atoi(entry->d_name) <= 1)
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		FILE *file = fopen(path, "re");
		if (file && fgets(name, sizeof(name), file))
			failed(run, "the tree has ended, but process %s still exists: %s", entry->d_name,
			       name);
	}
	closedir(directory);
}

void tree_kill(struct run *run)
{
	double since = now();

	for (int i = 0; i < SLOTS; i++)
		if (run->board->slots[i].state != SLOT_FREE)
			kill(run->board->slots[i].pid, SIGKILL);
	for (useconds_t pause = 50; !is_alone(); pause += pause < 2000 ? pause : 0) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
		if (now() - since > PATIENCE / 6)
			name_survivors(run);
		usleep(pause);
	}
}
