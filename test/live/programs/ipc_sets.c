/*
 * ipc_sets.c - sets of semaphores of System V: values, ids, owners, who changed them last, and waiting.
 *
 * usage: ipc_sets DIRECTORY values|large|waiting|owned|many|unused
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define MOST  100
#define LARGE 3000
#define KEY   0x43524956
#define OTHER 1234 /* a user */

struct set {
	int id, count;
	struct semid_ds facts;
	unsigned short values[LARGE];
	int pids[LARGE];
};

static struct set sets[MOST];
static int set_count;
static pid_t child;

static struct set *make(key_t key, int count, int mode)
{
	struct set *set = &sets[set_count++];

	set->count = count;
	set->id = semget(key, count, IPC_CREAT | IPC_EXCL | mode);
	live_check(set->id >= 0, "semget: %m");
	return set;
}

static void change(int set, int number, int by)
{
	struct sembuf operation = { number, by, 0 };

	while (semop(sets[set].id, &operation, 1) < 0)
		live_check(errno == EINTR, "semop: %m");
}

static void begin_values(void)
{
	unsigned short values[] = { 0, 1, 32767, 5, 77 };

	make(KEY, 5, 0640);
	live_check(semctl(sets[0].id, 0, SETALL, values) == 0, "semctl: %m");
	change(0, 4, 3);
}

/* Some have never been touched; the first and the last have. */
static void begin_large(void)
{
	make(IPC_PRIVATE, LARGE, 0600);
	for (int i = 0; i < LARGE; i += 2)
		semctl(sets[0].id, i, SETVAL, i);
	semctl(sets[0].id, LARGE - 1, SETVAL, 9);
}

static void begin_many(void)
{
	for (int i = 0; i < MOST; i++) {
		make(i % 2 ? KEY + i : IPC_PRIVATE, 3, 0600 | i % 8);
		semctl(sets[i].id, 1, SETVAL, i);
	}
}

/* Its values were set, but no semop() was ever made: programs wait for that (sem_otime). */
static void begin_unused(void)
{
	make(KEY, 2, 0600);
	semctl(sets[0].id, 1, SETVAL, 3);
}

static void begin_owned(void)
{
	struct semid_ds facts;

	live_check(setegid(OTHER + 1) == 0 && seteuid(OTHER) == 0, "seteuid: %m");
	make(KEY, 2, 0600);
	live_check(seteuid(0) == 0 && setegid(0) == 0, "seteuid: %m");
	semctl(sets[0].id, 0, IPC_STAT, &facts);
	facts.sem_perm.uid = 77;
	facts.sem_perm.gid = 78;
	facts.sem_perm.mode = 0462;
	live_check(semctl(sets[0].id, 0, IPC_SET, &facts) == 0, "semctl: %m");
	semctl(sets[0].id, 0, SETVAL, 4);
	change(0, 0, -1);
	change(0, 1, 1);
}

/* The child waits for semaphore 0, answers by semaphore 1, and waits again. */
static void answer(void)
{
	while (!live_stopping()) {
		struct sembuf take = { 0, -1, 0 };

		if (semop(sets[0].id, &take, 1) == 0)
			change(0, 1, 1);
		else
			live_check(errno == EINTR, "semop of the child: %m");
	}
}

static void ask(void)
{
	change(0, 0, 1);
	change(0, 1, -1);
	live_wait_asleep(child);
}

static void begin_waiting(void)
{
	make(IPC_PRIVATE, 2, 0600);
	semctl(sets[0].id, 1, SETVAL, 0);
	child = live_fork(answer);
	ask();
}

static const struct {
	const char *name;
	void (*begin)(void);
} kinds[] = {
	{ "values", begin_values }, { "large", begin_large }, { "waiting", begin_waiting },
	{ "owned", begin_owned },   { "many", begin_many },   { "unused", begin_unused },
};

static void look(struct set *set)
{
	live_check(semctl(set->id, 0, IPC_STAT, &set->facts) == 0, "semctl of set %d: %m", set->id);
	live_check(semctl(set->id, 0, GETALL, set->values) == 0, "semctl: %m");
	for (int i = 0; i < set->count; i++)
		set->pids[i] = semctl(set->id, i, GETPID);
}

static void verify(struct set *then)
{
	static struct set now;

	now.id = then->id;
	now.count = then->count;
	look(&now);
	live_check(now.facts.sem_perm.__key == then->facts.sem_perm.__key, "set %d has another key", now.id);
	live_check(now.facts.sem_perm.uid == then->facts.sem_perm.uid &&
			   now.facts.sem_perm.gid == then->facts.sem_perm.gid,
		   "set %d has owner %u:%u", now.id, now.facts.sem_perm.uid, now.facts.sem_perm.gid);
	live_check(now.facts.sem_perm.cuid == then->facts.sem_perm.cuid &&
			   now.facts.sem_perm.cgid == then->facts.sem_perm.cgid,
		   "set %d has creator %u:%u", now.id, now.facts.sem_perm.cuid, now.facts.sem_perm.cgid);
	live_check(now.facts.sem_perm.mode == then->facts.sem_perm.mode, "set %d has mode %o", now.id,
		   now.facts.sem_perm.mode);
	live_check((int)now.facts.sem_nsems == then->count, "set %d has %lu semaphores", now.id,
		   now.facts.sem_nsems);
	live_check(!now.facts.sem_otime == !then->facts.sem_otime, "set %d was used at %ld", now.id,
		   now.facts.sem_otime);
	for (int i = 0; i < now.count && !child; i++) {
		live_check(now.values[i] == then->values[i], "semaphore %d of set %d is %u, not %u", i,
			   now.id, now.values[i], then->values[i]);
		live_check(now.pids[i] == then->pids[i], "semaphore %d of set %d was changed by %d, not %d",
			   i, now.id, now.pids[i], then->pids[i]);
	}
}

/* A value that changes, and its copy in private memory. */
static void step(void)
{
	int by = sets[0].values[1] > 100 ? -100 : 1;

	if (child) {
		ask();
	} else if (sets[0].facts.sem_otime) {
		change(0, 1, by);
		sets[0].values[1] += by;
	}
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_choose(kinds, argv[2])->begin();
	for (int i = 0; i < set_count; i++)
		look(&sets[i]);
	live_ready();
	while (!live_stopping()) {
		for (int i = 0; i < set_count; i++)
			verify(&sets[i]);
		step();
		live_sleep(0.005);
	}
	for (int i = 0; i < set_count; i++)
		verify(&sets[i]);
	if (child)
		live_join(child);
	for (int i = 0; i < set_count; i++)
		live_check(semctl(sets[i].id, 0, IPC_RMID) == 0, "semctl: %m");
	return live_finish();
}
