/*
 * protection.c - protection of memory beyond read, write and execute: protection keys (pkeys(7)) and seals (mseal(2)).
 *
 * usage: protection DIRECTORY keys|freed|exec_only|relatives|seals
 *   keys	three keys with gaps between their numbers, different rights in two threads
 *   freed	memory has a key that has been freed
 *   exec_only	memory that can only be executed: the kernel allocates a key for it
 *   relatives	the key that the kernel uses in the parent is an ordinary key in the child
 *   seals	sealed memory: half of a mapping, of a file, in a child, locked, with a guard page
 */
#define _GNU_SOURCE
#ifdef __x86_64__
#include <cpuid.h>
#endif
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define PAGE  4096UL
#define SIZE  (8 * PAGE)
#define MSEAL 462

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static char *map(size_t size, int protection)
{
	char *memory = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	live_check(memory != MAP_FAILED && mprotect(memory + PAGE, size, protection) == 0, "mmap: %m");
	return memory + PAGE; /* the pages beside it have another protection */
}

/* ---- what smaps shows ---- */

struct facts {
	unsigned long start, end;
	int key;
	bool is_sealed;
};

static struct facts look(const void *address)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	struct facts facts = { 0 }, found = { 0 };
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		if (live_smaps_head(line, &facts.start, &facts.end))
			facts.key = 0;
		sscanf(line, "ProtectionKey: %d", &facts.key);
		if (!strncmp(line, "VmFlags:", 8) && facts.start <= (unsigned long)address &&
		    (unsigned long)address < facts.end) {
			facts.is_sealed = strstr(line, " sl") != NULL;
			found = facts;
		}
	}
	if (file)
		fclose(file);
	live_check(found.end, "nothing is mapped at %p", address);
	return found;
}

static void verify_key(const void *address, int key)
{
	live_check(look(address).key == key, "the key at %p is %d, not %d", address, look(address).key, key);
}

/* ---- keys ---- */

/* If the CPU has no protection keys, or the kernel does not use them, rdpkru and wrpkru are illegal instructions. */
static bool has_rights(void)
{
#ifdef __x86_64__
	unsigned a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && c & bit_OSPKE;
#else
	return false;
#endif
}

static unsigned rights(void)
{
#ifdef __x86_64__
	unsigned low, high;

	if (!has_rights())
		return 0;
	__asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(low), "=d"(high) : "c"(0)); /* rdpkru */
	return low;
#else
	return 0;
#endif
}

static void set_all_rights(unsigned value)
{
#ifdef __x86_64__
	if (!has_rights())
		return;
	__asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(value), "c"(0), "d"(0) : "memory"); /* wrpkru */
#endif
}

static void set_rights(int key, unsigned denied)
{
	set_all_rights((rights() & ~(3u << 2 * key)) | denied << 2 * key);
}

static int new_key(void)
{
	int key = syscall(SYS_pkey_alloc, 0, 0);

	if (key < 0)
		live_skip("no protection keys here: %m");
	return key;
}

static void give_key(void *memory, size_t size, int protection, int key)
{
	live_check(syscall(SYS_pkey_mprotect, memory, size, protection, key) == 0, "pkey_mprotect: %m");
}

static sigjmp_buf before;
static volatile int fault;

static void on_fault(int signo, siginfo_t *facts, void *context)
{
	fault = facts->si_code;
	siglongjmp(before, 1);
}

/* The code of the fault that a read raises, or 0. The handler has other rights, so they are restored. */
static int try_read(volatile const char *memory)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	volatile unsigned mine = rights();

	sigaction(SIGSEGV, &action, NULL);
	fault = 0;
	if (!sigsetjmp(before, 1))
		(void)*memory;
	else
		set_all_rights(mine);
	return fault;
}

static int keys[3], freed;
static char *with_key[3];
static atomic_int other_is_ready, stop;
static unsigned own_rights, others_rights;

static void *other_thread(void *unused)
{
	set_rights(keys[0], 0);
	set_rights(keys[2], 1);
	others_rights = rights();
	other_is_ready = 1;
	while (!stop)
		live_sleep(0.001);
	live_check(rights() == others_rights, "rights of the thread: %#x, not %#x", rights(), others_rights);
	live_compare(with_key[0], SIZE, 1, "memory with the first key");
	live_check(try_read(with_key[2]) == SEGV_PKUERR, "the thread may read with the third key");
	return NULL;
}

static void verify_keys(void)
{
	for (int i = 0; i < 3; i++)
		verify_key(with_key[i], keys[i]);
	live_check(rights() == own_rights, "rights: %#x, not %#x", rights(), own_rights);
	live_check(try_read(with_key[0]) == SEGV_PKUERR, "memory with the first key can be read");
	live_check(try_read(with_key[1]) == 0, "memory with the second key cannot be read");
	live_check(new_key() == freed, "another key was free");
	live_check(syscall(SYS_pkey_free, freed) == 0, "pkey_free: %m");
}

static void have_keys(void)
{
	pthread_t thread;

	keys[0] = new_key();
	freed = new_key();
	keys[1] = new_key();
	keys[2] = new_key();
	live_check(syscall(SYS_pkey_free, freed) == 0, "pkey_free: %m");
	for (int i = 0; i < 3; i++) {
		with_key[i] = map(SIZE, PROT_READ | PROT_WRITE);
		live_fill(with_key[i], SIZE, 1 + i);
		give_key(with_key[i], SIZE, i == 1 ? PROT_READ : PROT_READ | PROT_WRITE, keys[i]);
	}
	pthread_create(&thread, NULL, other_thread, NULL);
	while (!other_is_ready)
		live_sleep(0.001);
	set_rights(keys[0], 1);
	set_rights(keys[1], 2);
	own_rights = rights();
	live_ready();
	live_wait_stop();
	verify_keys();
	stop = 1;
	pthread_join(thread, NULL);
	for (int i = 0; i < 3; i++) {
		set_rights(keys[i], 0);
		live_compare(with_key[i], SIZE, 1 + i, "memory with a key");
	}
}

static void have_freed(void)
{
	char *memory = map(SIZE, PROT_READ | PROT_WRITE);

	freed = new_key();
	give_key(memory, SIZE, PROT_READ | PROT_WRITE, freed);
	live_fill(memory, SIZE, 7);
	live_check(syscall(SYS_pkey_free, freed) == 0, "pkey_free: %m");
	live_ready();
	live_wait_stop();
	verify_key(memory, freed);
	live_compare(memory, SIZE, 7, "memory with a key that was freed");
	live_check(new_key() == freed, "another key was free");
}

/* A new function in memory that can be executed but not read. */
static char *new_code(void)
{
	char *code = map(PAGE, PROT_READ | PROT_WRITE);

#ifdef __x86_64__
	memcpy(code, "\xb8\x2a\x00\x00\x00\xc3", 6); /* mov $42, %eax; ret */
#endif
	live_check(mprotect(code, PAGE, PROT_EXEC) == 0, "mprotect: %m");
	return code;
}

static void verify_code(const char *code, int key)
{
#ifdef __x86_64__
	verify_key(code, key);
	live_check(((int (*)(void))code)() == 42, "the code has changed");
	live_check(try_read(code) == SEGV_PKUERR, "the code can be read");
#endif
}

static void have_exec_only(void)
{
	int first = new_key(), key;
	char *code = new_code(), *memory = map(SIZE, PROT_READ | PROT_WRITE);

	give_key(memory, SIZE, PROT_READ | PROT_WRITE, first);
	key = look(code).key;
	live_check(key && key != first, "the kernel uses key %d", key);
	live_check(syscall(SYS_pkey_free, first) == 0,
		   "pkey_free: %m"); /* so that the kernel's key is not the lowest free one */
	live_ready();
	live_wait_stop();
	verify_key(memory, first);
	verify_code(code, key);
	live_check(new_key() == first, "another key was free");
	live_check(new_key() == key + 1, "pkey_alloc() returned the kernel's key");
}

static int rounds[2][2];

static void child_with_key(void)
{
	char *memory = map(SIZE, PROT_READ | PROT_WRITE);
	int key = new_key();

	live_fill(memory, SIZE, 3);
	give_key(memory, SIZE, PROT_READ | PROT_WRITE, key);
	live_check(write(rounds[0][1], &key, sizeof(key)) == sizeof(key), "pipe: %m");
	live_wait_stop();
	verify_key(memory, key);
	live_compare(memory, SIZE, 3, "the child's memory");
	live_check(new_key() == key + 1, "another key was free");
}

static void have_relatives(void)
{
	int key;
	char *code;

	live_check(pipe(rounds[0]) == 0, "pipe: %m");
	pid_t child = live_fork(child_with_key);
	live_check(read(rounds[0][0], &key, sizeof(key)) == sizeof(key), "no protection keys there");
	code = new_code();
	live_check(look(code).key == key, "the keys differ: %d and %d", look(code).key, key);
	live_ready();
	live_wait_stop();
	verify_code(code, key);
	live_join(child);
}

/* ---- seals ---- */

static void seal(void *memory, size_t size)
{
	if (syscall(MSEAL, memory, size, 0) < 0)
		live_skip("no mseal() here: %m");
}

static void verify_seal(char *memory, size_t size, bool is_sealed)
{
	struct facts facts = look(memory);

	live_check(facts.is_sealed == is_sealed && facts.end == (unsigned long)memory + size,
		   "%p: %s, ends at %#lx", memory, facts.is_sealed ? "sealed" : "not sealed", facts.end);
	if (is_sealed)
		live_check(munmap(memory, PAGE) < 0 && mprotect(memory, PAGE, PROT_NONE) < 0,
			   "sealed memory was changed");
}

static char *whole, *half, *file, *locked, *guarded, *childs;

static void map_file(void)
{
	char path[4096];
	int fd;

	live_path(path, sizeof(path), "mapped");
	fd = open(path, O_RDWR | O_CREAT, 0600);
	live_check(fd >= 0 && ftruncate(fd, SIZE) == 0, "%s: %m", path);
	file = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	live_fill(file, SIZE, 13);
	live_check(mprotect(file, SIZE, PROT_READ) == 0, "mprotect: %m");
	seal(file, SIZE);
	close(fd);
}

static void verify_seals(void)
{
	verify_seal(whole, SIZE, true);
	verify_seal(half, SIZE / 2, true);
	verify_seal(half + SIZE / 2, SIZE / 2, false);
	verify_seal(file, SIZE, true);
	verify_seal(locked, SIZE, true);
	verify_seal(guarded, SIZE, true);
	live_compare(whole, SIZE, 11, "sealed memory");
	live_compare(half, SIZE, 12, "memory that is half sealed");
	live_compare(file, SIZE, 13, "a sealed mapping of a file");
	live_check(try_read(guarded) == SEGV_MAPERR || try_read(guarded) == SEGV_ACCERR,
		   "the guard page can be read");
}

static void child_with_seal(void)
{
	childs = map(SIZE, PROT_READ | PROT_WRITE);
	live_fill(childs, SIZE, 14);
	seal(childs, SIZE);
	live_check(write(rounds[0][1], "", 1) == 1, "pipe: %m");
	live_wait_stop();
	verify_seals();
	verify_seal(childs, SIZE, true);
	live_compare(childs, SIZE, 14, "the child's sealed memory");
}

static void have_seals(void)
{
	char ready;

	whole = map(SIZE, PROT_READ | PROT_WRITE);
	live_fill(whole, SIZE, 11);
	seal(whole, SIZE);
	half = map(SIZE, PROT_READ | PROT_WRITE);
	live_fill(half, SIZE, 12);
	seal(half, SIZE / 2);
	locked = map(SIZE, PROT_READ | PROT_WRITE);
	live_check(madvise(locked, SIZE, MADV_DONTDUMP) == 0, "madvise: %m");
	mlock(locked, SIZE);
	seal(locked, SIZE);
	guarded = map(SIZE, PROT_READ | PROT_WRITE);
	if (madvise(guarded, PAGE, MADV_GUARD_INSTALL) < 0)
		mprotect(guarded, SIZE, PROT_NONE);
	seal(guarded, SIZE);
	map_file();
	live_check(pipe(rounds[0]) == 0, "pipe: %m");
	pid_t child = live_fork(child_with_seal);
	live_check(read(rounds[0][0], &ready, 1) == 1, "the child failed");
	live_ready();
	live_wait_stop();
	verify_seals();
	live_join(child);
}

static const struct {
	const char *name;
	void (*live)(void);
} kinds[] = {
	{ "keys", have_keys },		 { "freed", have_freed }, { "exec_only", have_exec_only },
	{ "relatives", have_relatives }, { "seals", have_seals },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_choose(kinds, argv[2])->live();
	return live_finish();
}
