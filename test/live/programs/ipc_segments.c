/*
 * ipc_segments.c - shared memory segments of System V: content, places, ids, owners, modes and sharing.
 *
 * usage: ipc_segments DIRECTORY KIND
 * KIND: one of those in the table near the end
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define PAGE  4096UL
#define SIZE  (16 * PAGE)
#define MOST  200
#define KEY   0x43524955
#define OTHER 1234 /* a user */

struct segment {
	int id;
	size_t size;
	char *memory; /* NULL: not attached */
	struct shmid_ds facts;
};

static struct segment segments[MOST];
static int count;
static pid_t child;
static bool is_removed;

static struct segment *make(key_t key, size_t size, int flags)
{
	struct segment *segment = &segments[count++];

	segment->size = size;
	segment->id = shmget(key, size, IPC_CREAT | IPC_EXCL | flags);
	if (segment->id < 0 && flags & SHM_HUGETLB)
		live_skip("no huge pages: %m");
	live_check(segment->id >= 0, "shmget: %m");
	return segment;
}

static void attach(struct segment *segment, const void *place, int flags)
{
	segment->memory = shmat(segment->id, place, flags);
	live_check(segment->memory != (void *)-1, "shmat: %m");
}

static struct segment *make_filled(key_t key, size_t size, int flags)
{
	struct segment *segment = make(key, size, flags);

	attach(segment, NULL, 0);
	live_fill(segment->memory, size, segment->id + 1);
	return segment;
}

/* ---- whole mappings, and parts of them ---- */

static void begin_whole(void)
{
	make_filled(IPC_PRIVATE, SIZE, 0600);
}

static uint64_t generation; /* in private memory, as a copy of what the segments hold */

static void verify_whole(void)
{
	for (int i = 0; i < count; i++)
		live_compare(segments[i].memory, segments[i].size, segments[i].id + 1 + generation,
			     "a segment");
	generation++;
	for (int i = 0; i < count; i++)
		live_fill(segments[i].memory, segments[i].size, segments[i].id + 1 + generation);
}

static char *moved, *second;

/* [0, 2) is unmapped, [4, 6) read-only, [8, 10) elsewhere; all of it is mapped again, and executable at the end. */
static void begin_parts(void)
{
	struct segment *segment = make_filled(IPC_PRIVATE, SIZE, 0600);
	char *memory = segment->memory;
	char *room = mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	second = shmat(segment->id, room + 32 * PAGE, SHM_REMAP);
	live_check(second == room + 32 * PAGE, "shmat: %m");
	moved = mremap(memory + 8 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + 3 * PAGE);
	live_check(moved == room + 3 * PAGE, "mremap: %m");
	live_check(munmap(memory, 2 * PAGE) == 0 && mprotect(memory + 4 * PAGE, 2 * PAGE, PROT_READ) == 0 &&
			   mprotect(second + 15 * PAGE, PAGE, PROT_READ | PROT_EXEC) == 0,
		   "mprotect: %m");
}

static void verify_parts(void)
{
	char *memory = segments[0].memory;
	unsigned char resident;

	live_compare(second, SIZE, segments[0].id + 1, "the second mapping");
	for (int page = 2; page < 16; page++)
		if (page != 8 && page != 9)
			live_check(!memcmp(memory + page * PAGE, second + page * PAGE, PAGE), "page %d",
				   page);
	live_check(!memcmp(moved, second + 8 * PAGE, 2 * PAGE), "the part that was moved");
	live_check(mincore(memory, PAGE, &resident) < 0 && errno == ENOMEM,
		   "the part that was unmapped is back");
	live_check(mincore(memory + 8 * PAGE, PAGE, &resident) < 0 && errno == ENOMEM,
		   "the moved part is back");
	moved[1]++; /* through one, seen by the other */
	live_check(second[8 * PAGE + 1] == moved[1], "two mappings show different memory");
	moved[1]--;
}

static void begin_readonly(void)
{
	begin_whole();
	second = shmat(segments[0].id, NULL, SHM_RDONLY);
	live_check(second != (void *)-1, "shmat: %m");
}

static void verify_readonly(void)
{
	verify_whole();
	live_compare(second, SIZE, segments[0].id + 1 + generation, "the read-only mapping");
	live_check(mprotect(second, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES,
		   "a read-only attachment can be made writable");
}

/* ---- sharing ---- */

static void answer(void)
{
	atomic_int *box = (atomic_int *)segments[0].memory;

	while (!live_stopping()) {
		if (atomic_load(&box[0]) != atomic_load(&box[1]))
			atomic_store(&box[1], atomic_load(&box[0]));
		usleep(500);
	}
}

static void begin_fork(void)
{
	make(IPC_PRIVATE, SIZE, 0600);
	attach(&segments[0], NULL, 0);
	child = live_fork(answer);
}

static void attach_by_key(void)
{
	segments[0].id = shmget(KEY, 0, 0);
	attach(&segments[0], NULL, 0);
	answer();
}

static void begin_keys(void)
{
	make(KEY, SIZE, 0640);
	attach(&segments[0], NULL, 0);
	child = live_fork(attach_by_key);
}

static void ask(void)
{
	atomic_int *box = (atomic_int *)segments[0].memory;
	int wanted = atomic_fetch_add(&box[0], 1) + 1;

	live_await(atomic_load(&box[1]) == wanted || live_stopping(), "the child does not share the segment");
}

/* ---- others ---- */

static void begin_removed(void)
{
	make_filled(KEY, SIZE, 0600);
	live_check(shmctl(segments[0].id, IPC_RMID, NULL) == 0, "shmctl: %m");
	is_removed = true;
}

static void verify_removed(void)
{
	verify_whole();
	live_check(shmget(KEY, 0, 0) < 0, "the key still leads to the removed segment");
}

static void begin_detached(void)
{
	struct segment *segment = make_filled(KEY, SIZE, 0606);

	shmdt(segment->memory);
	segment->memory = NULL;
}

static void verify_detached(void)
{
	char *memory = shmat(shmget(KEY, 0, 0), NULL, SHM_RDONLY);

	live_check(memory != (void *)-1, "shmat: %m");
	live_compare(memory, SIZE, segments[0].id + 1, "a segment that nobody had attached");
	shmdt(memory);
}

static void begin_locked(void)
{
	begin_whole();
	if (shmctl(segments[0].id, SHM_LOCK, NULL) < 0)
		live_skip("SHM_LOCK: %m");
}

/* Not a multiple of a page: the bytes behind the end exist, too. */
static void begin_odd(void)
{
	make(IPC_PRIVATE, 2 * PAGE + 100, 0600);
	attach(&segments[0], NULL, 0);
	live_fill(segments[0].memory, 3 * PAGE, segments[0].id + 1);
	segments[0].size = 3 * PAGE;
}

static void begin_many(void)
{
	for (int i = 0; i < MOST; i++)
		make_filled(i % 3 ? KEY + i : IPC_PRIVATE, PAGE, 0600 | i % 8);
}

static void begin_sparse(void)
{
	struct segment *segment = make(IPC_PRIVATE, 256UL << 20, 0600);

	attach(segment, NULL, 0);
	live_fill(segment->memory + (200UL << 20), PAGE, 7);
	live_fill(segment->memory, PAGE, 8);
}

static void verify_sparse(void)
{
	char *memory = segments[0].memory;

	live_compare(memory + (200UL << 20), PAGE, 7, "a page in the middle");
	live_compare(memory, PAGE, 8, "the first page");
	live_check(!memory[300 * PAGE] && !memory[(256UL << 20) - 1], "there is something in a hole");
}

static void begin_huge(void)
{
	make_filled(IPC_PRIVATE, 4UL << 20, 0600 | SHM_HUGETLB);
}

/* Another user owns it, and the creator is a third one. */
static void begin_owned(void)
{
	struct shmid_ds facts;

	live_check(setegid(OTHER + 1) == 0 && seteuid(OTHER) == 0, "seteuid: %m");
	make(KEY, SIZE, 0600);
	live_check(seteuid(0) == 0 && setegid(0) == 0, "seteuid: %m");
	shmctl(segments[0].id, IPC_STAT, &facts);
	facts.shm_perm.uid = 77;
	facts.shm_perm.gid = 78;
	facts.shm_perm.mode = 0462;
	live_check(shmctl(segments[0].id, IPC_SET, &facts) == 0, "shmctl: %m");
	attach(&segments[0], NULL, 0);
	live_fill(segments[0].memory, SIZE, segments[0].id + 1);
}

static const struct {
	const char *name;
	void (*begin)(void), (*verify)(void);
} kinds[] = {
	{ "whole", begin_whole, verify_whole },
	{ "parts", begin_parts, verify_parts },
	{ "readonly", begin_readonly, verify_readonly },
	{ "fork", begin_fork, ask },
	{ "keys", begin_keys, ask },
	{ "removed", begin_removed, verify_removed },
	{ "detached", begin_detached, verify_detached },
	{ "locked", begin_locked, verify_whole },
	{ "odd", begin_odd, verify_whole },
	{ "many", begin_many, verify_whole },
	{ "sparse", begin_sparse, verify_sparse },
	{ "huge", begin_huge, verify_whole },
	{ "owned", begin_owned, verify_whole },
};

/* What shmctl() shows, except for times, and for who has attached it last. */
static void look(struct segment *segment, struct shmid_ds *facts)
{
	live_check(shmctl(segment->id, IPC_STAT, facts) == 0, "shmctl of segment %d: %m", segment->id);
}

static void verify_facts(struct segment *segment)
{
	struct shmid_ds now, *then = &segment->facts;

	look(segment, &now);
	live_check(now.shm_perm.__key == then->shm_perm.__key, "segment %d has another key", segment->id);
	live_check(now.shm_perm.uid == then->shm_perm.uid && now.shm_perm.gid == then->shm_perm.gid,
		   "segment %d has owner %u:%u", segment->id, now.shm_perm.uid, now.shm_perm.gid);
	live_check(now.shm_perm.cuid == then->shm_perm.cuid && now.shm_perm.cgid == then->shm_perm.cgid,
		   "segment %d has creator %u:%u", segment->id, now.shm_perm.cuid, now.shm_perm.cgid);
	live_check(now.shm_perm.mode == then->shm_perm.mode, "segment %d has mode %o, not %o", segment->id,
		   now.shm_perm.mode, then->shm_perm.mode);
	live_check(now.shm_segsz == then->shm_segsz, "segment %d has %zu bytes", segment->id, now.shm_segsz);
	live_check(now.shm_nattch == then->shm_nattch, "segment %d is attached %lu times, not %lu",
		   segment->id, now.shm_nattch, then->shm_nattch);
	live_check(now.shm_cpid == then->shm_cpid, "segment %d was created by %d, not %d", segment->id,
		   now.shm_cpid, then->shm_cpid);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	__auto_type kind = live_choose(kinds, argv[2]);
	kind->begin();
	if (child)
		ask();
	kind->verify();
	for (int i = 0; i < count; i++)
		look(&segments[i], &segments[i].facts);
	live_ready();
	while (!live_stopping()) {
		kind->verify();
		for (int i = 0; i < count; i++)
			verify_facts(&segments[i]);
		live_sleep(0.01);
	}
	kind->verify();
	for (int i = 0; i < count; i++) {
		verify_facts(&segments[i]);
		if (!is_removed)
			live_check(shmctl(segments[i].id, IPC_RMID, NULL) == 0, "shmctl: %m");
	}
	if (child)
		live_join(child);
	return live_finish();
}
