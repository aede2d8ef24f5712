/*
 * ghost_semaphores.c - POSIX semaphores and shared memory, with and without a name in /dev/shm; processes that wait.
 *
 * usage: ghost_semaphores DIRECTORY unlinked|named
 *
 * A new semaphore is mapped by a temporary name, which sem_open() removes. So its path in /proc is deleted even if the
 * semaphore still has a name.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

#define CHILDREN 4

static sem_t *asked, *answered, *counted;
static struct {
	atomic_int turns;
} * memory;
static char names[4][64];

/* Waits for a turn, takes it, and answers. */
static void work(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;) {
		while (sem_wait(asked) < 0)
			if (errno != EINTR)
				_exit(3);
		memory->turns++;
		if (sem_post(answered) < 0)
			_exit(4);
	}
}

static sem_t *make(int i, int value)
{
	snprintf(names[i], sizeof(names[i]), "/criu-live-%d-%d", getpid(), i);
	sem_t *semaphore = sem_open(names[i], O_CREAT | O_EXCL, 0600, value);
	live_check(semaphore != SEM_FAILED, "sem_open: %m");
	return semaphore;
}

static void take_turns(int count)
{
	int before = memory->turns;

	for (int i = 0; i < count; i++)
		live_check(sem_post(asked) == 0, "sem_post: %m");
	for (int i = 0; i < count; i++) {
		struct timespec end;

		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_sec += 10;
		while (sem_timedwait(answered, &end) < 0)
			live_check(errno == EINTR, "no answer: %m");
	}
	live_check(memory->turns == before + count, "%d turns", memory->turns - before);
}

static void check(bool is_named)
{
	int value;

	take_turns(7);
	live_check(sem_getvalue(counted, &value) == 0 && value == 42, "the value is %d", value);
	if (!is_named)
		return;
	sem_t *again = sem_open(names[2], 0);
	live_check(again != SEM_FAILED && sem_post(again) == 0 && sem_getvalue(counted, &value) == 0 &&
			   value == 43,
		   "another semaphore has the name");
	live_check(sem_wait(counted) == 0, "sem_wait: %m");
	sem_close(again);
}

int main(int argc, char **argv)
{
	bool is_named;
	pid_t children[CHILDREN];

	live_begin(argc, argv);
	is_named = !strcmp(argv[2], "named");
	asked = make(0, 0);
	answered = make(1, 0);
	counted = make(2, 42);
	snprintf(names[3], sizeof(names[3]), "/criu-live-%d-m", getpid());
	int fd = shm_open(names[3], O_RDWR | O_CREAT | O_EXCL, 0600);
	live_check(fd >= 0 && ftruncate(fd, 8192) == 0, "shm_open: %m");
	memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	live_check(memory != MAP_FAILED, "mmap: %m");
	shm_unlink(names[3]);
	for (int i = 0; i < 3 && !is_named; i++)
		live_check(sem_unlink(names[i]) == 0, "sem_unlink: %m");
	for (int i = 0; i < CHILDREN; i++) {
		children[i] = live_fork(work);
		live_wait_asleep(children[i]);
	}
	live_ready();
	while (!live_stopping()) {
		check(is_named);
		live_sleep(0.01);
	}
	check(is_named);
	for (int i = 0; i < 3 && is_named; i++)
		sem_unlink(names[i]);
	for (int i = 0; i < CHILDREN; i++)
		live_join(children[i]);
	return live_finish();
}
