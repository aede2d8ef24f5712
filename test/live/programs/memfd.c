/*
 * memfd.c - memory as a file (memfd_create). What its descriptors and mappings show must stay the same.
 *
 * memfd.c WHAT: files | path | mapped | shared | sealed | future | noexec | executed | nameless | owner | huge |
 * huge_sparse
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8
#define MFD_EXEC	16
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

#define PAGE 4096UL
#define MOST 16

/* What a process can see of a descriptor. */
struct sight {
	char link[300];
	struct stat stat;
	off_t position;
	int flags, closes, seals;
};

static int fds[MOST], fd_count;
static struct sight before[MOST];

static void look(int fd, struct sight *sight)
{
	char path[64];

	memset(sight, 0, sizeof(*sight));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	live_check(readlink(path, sight->link, sizeof(sight->link) - 1) > 0, "%s: %m", path);
	live_check(fstat(fd, &sight->stat) == 0, "fstat: %m");
	sight->position = lseek(fd, 0, SEEK_CUR);
	sight->flags = fcntl(fd, F_GETFL);
	sight->closes = fcntl(fd, F_GETFD);
	sight->seals = fcntl(fd, F_GET_SEALS);
}

static int add(int fd)
{
	live_check(fd >= 0 && fd_count < MOST, "a memfd: %m");
	fds[fd_count++] = fd;
	return fd;
}

static int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return add(open(path, flags));
}

static void remember(void)
{
	for (int i = 0; i < fd_count; i++)
		look(fds[i], &before[i]);
}

/* Inode numbers are unique only within a file system, and memory in huge pages has a file system of its own. */
static bool is_same_file(const struct stat *one, const struct stat *other)
{
	return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/*
 * A restore changes inode numbers. If it happens between the two calls of fstat(), the comparison is wrong. So a
 * surprising result is checked again.
 */
static bool are_same_now(int fd, int other, bool expected)
{
	struct stat one, two;

	for (int i = 0; i < 3; i++) {
		live_check(fstat(fd, &one) == 0 && fstat(other, &two) == 0, "fstat: %m");
		if (is_same_file(&one, &two) == expected)
			break;
	}
	return is_same_file(&one, &two);
}

static void check_sights(void)
{
	for (int i = 0; i < fd_count; i++) {
		const struct sight *old = &before[i];
		struct sight now;

		look(fds[i], &now);
		live_check(!strcmp(now.link, old->link), "%d: %s was %s", i, now.link, old->link);
		live_check(now.position == old->position, "%s: position %ld was %ld", now.link,
			   (long)now.position, (long)old->position);
		live_check(now.flags == old->flags && now.closes == old->closes, "%s: flags %#o were %#o",
			   now.link, now.flags, old->flags);
		live_check(now.seals == old->seals, "%s: seals %#x were %#x", now.link, now.seals,
			   old->seals);
		live_check(now.stat.st_mode == old->stat.st_mode && now.stat.st_uid == old->stat.st_uid &&
				   now.stat.st_gid == old->stat.st_gid &&
				   now.stat.st_size == old->stat.st_size,
			   "%s: mode %o, owner %u:%u, %ld bytes", now.link, now.stat.st_mode, now.stat.st_uid,
			   now.stat.st_gid, (long)now.stat.st_size);
		for (int j = 0; j < i; j++) {
			bool were_same = is_same_file(&before[j].stat, &old->stat);

			live_check(are_same_now(fds[j], fds[i], were_same) == were_same,
				   "descriptors %d and %d are %s file", i, j,
				   were_same ? "no longer the same" : "now the same");
		}
	}
}

static void *map(int fd, size_t size, size_t offset, int protection, int flags)
{
	void *memory = mmap(NULL, size, protection, flags, fd, offset);

	live_check(memory != MAP_FAILED, "mmap: %m");
	return memory;
}

/* ---- descriptors ---- */

static char bytes[10000];

static void prepare_files(void)
{
	char name[250];
	int fd = add(memfd_create("a name", MFD_ALLOW_SEALING | MFD_CLOEXEC));

	live_fill(bytes, sizeof(bytes), 3);
	live_check(write(fd, bytes, sizeof(bytes)) == sizeof(bytes), "write: %m");
	lseek(fd, 77, SEEK_SET);
	lseek(reopen(fd, O_RDONLY), 5000, SEEK_SET);
	reopen(fd, O_WRONLY | O_APPEND | O_NONBLOCK);
	add(dup(fd));
	fchmod(fd, 0640);
	add(memfd_create("", 0)); /* no name, no bytes */
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	fd = add(memfd_create(name, 0));
	live_check(ftruncate(fd, 1L << 33) == 0 && pwrite(fd, "far", 3, (1L << 33) - 3) == 3, "sparse: %m");
	add(memfd_create("a name", 0)); /* another file of the same name */
}

static void prepare_path(void)
{
	add(memfd_create("/dev/zero", 0));
	add(memfd_create("by its path", 0));
	reopen(fds[1], O_PATH | O_CLOEXEC);
	close(fds[1]);
	fds[1] = fds[--fd_count];
}

static void check_path(void)
{
	live_check(pread(fds[1], bytes, 1, 0) < 0 && errno == EBADF, "an O_PATH descriptor can be read");
}

static void check_files(void)
{
	char now[sizeof(bytes)];
	struct stat sparse;

	live_check(pread(fds[1], now, sizeof(now), 0) == sizeof(now) && !memcmp(now, bytes, sizeof(now)),
		   "the content has changed");
	live_check(pread(fds[5], now, 10, (1L << 33) - 3) == 3 && !memcmp(now, "far", 3), "the end is lost");
	fstat(fds[5], &sparse);
	live_check(sparse.st_blocks <= 16, "%ld blocks: it is no longer sparse", (long)sparse.st_blocks);
	lseek(fds[3], 78, SEEK_SET);
	live_check(lseek(fds[0], 0, SEEK_CUR) == 78, "a duplicate descriptor has another position");
	lseek(fds[3], 77, SEEK_SET);
}

/* ---- mappings ---- */

static char *shared, *readable, *own, *alone;

static void prepare_mapped(void)
{
	int fd = add(memfd_create("mapped", 0)), gone = memfd_create("nobody's", 0);

	live_check(ftruncate(fd, 10 * PAGE + 100) == 0 && ftruncate(gone, 4 * PAGE) == 0, "ftruncate: %m");
	shared = map(fd, 8 * PAGE, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	readable = map(reopen(fd, O_RDONLY), 2 * PAGE, 3 * PAGE, PROT_READ, MAP_SHARED);
	own = map(fd, 11 * PAGE, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	live_fill(shared, 8 * PAGE, 5); /* also behind the end of the file, which is in the last page */
	live_fill(own + 4 * PAGE, PAGE, 6);
	memset(own + 5 * PAGE, 0, PAGE);
	alone = map(gone, 4 * PAGE, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	live_fill(alone, 4 * PAGE, 7);
	close(gone);
}

static void check_mapped(void)
{
	char zeros[PAGE] = { 0 }, byte;

	live_compare(shared, 8 * PAGE, 5, "a shared mapping");
	live_check(!memcmp(readable, shared, 2 * PAGE), "two mappings differ");
	live_compare(own + 4 * PAGE, PAGE, 6, "a page of a private mapping");
	live_check(!memcmp(own + 5 * PAGE, zeros, PAGE), "a page of zeros shows the file");
	live_check(!memcmp(own + 3 * PAGE, shared, PAGE), "a private mapping does not show the memory");
	live_compare(alone, 4 * PAGE, 7, "a mapping without a descriptor");
	byte = ++shared[PAGE];
	live_check(pread(fds[0], &byte, 1, 4 * PAGE) == 1 && byte == shared[PAGE] && readable[PAGE] == byte,
		   "descriptor and mappings are no longer one memory");
	shared[PAGE]--;
}

/* ---- several tasks ---- */

struct desk {
	atomic_ulong request, answer;
};

static struct desk *desk;

static void answer(void)
{
	struct desk *mine = map(fds[0], PAGE, 0, PROT_READ | PROT_WRITE, MAP_SHARED);

	munmap(desk, PAGE);
	while (!live_stopping()) {
		mine->answer = mine->request;
		live_sleep(0.001);
	}
}

static void prepare_shared(void)
{
	live_check(ftruncate(add(memfd_create("desk", MFD_CLOEXEC)), 16 * PAGE) == 0, "ftruncate: %m");
	desk = map(fds[0], PAGE, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
}

static void check_shared(void)
{
	unsigned long request = ++desk->request;

	live_await(desk->answer == request, "the child does not answer");
}

/* ---- seals ---- */

static void prepare_sealed(void)
{
	int fd = add(memfd_create("sealed", MFD_ALLOW_SEALING)), all;

	live_check(write(fd, bytes, sizeof(bytes)) == sizeof(bytes), "write: %m");
	live_check(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0, "seal: %m");
	all = add(memfd_create("all of them", MFD_ALLOW_SEALING));
	live_check(write(all, bytes, sizeof(bytes)) == sizeof(bytes), "write: %m");
	live_check(fcntl(all, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0,
		   "seal: %m");
	readable = map(reopen(all, O_RDONLY), 2 * PAGE, 0, PROT_READ, MAP_SHARED);
	own = map(all, 2 * PAGE, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	own[3] = 'x';
}

static void check_sealed(void)
{
	live_check(ftruncate(fds[0], 1) < 0 && errno == EPERM, "a seal is broken");
	live_check(pwrite(fds[1], "x", 1, 0) < 0 && errno == EPERM, "a seal is broken");
	live_check(!memcmp(readable, bytes, 2 * PAGE) && own[3] == 'x', "the content has changed");
	live_check(mprotect(readable, PAGE, PROT_READ | PROT_WRITE) < 0,
		   "the sealed mapping can be made writable");
}

/* F_SEAL_FUTURE_WRITE: an older writable mapping can still be written. */
static void prepare_future(void)
{
	int fd = add(memfd_create("future", MFD_ALLOW_SEALING));

	live_check(ftruncate(fd, 4 * PAGE) == 0, "ftruncate: %m");
	shared = map(fd, 4 * PAGE, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK) < 0)
		live_skip("no F_SEAL_FUTURE_WRITE: %m");
	live_fill(shared, 4 * PAGE, 9);
}

static void check_future(void)
{
	live_compare(shared, 4 * PAGE, 9, "sealed memory");
	shared[0]++;
	shared[0]--;
	live_check(pwrite(fds[0], "x", 1, 0) < 0 && errno == EPERM, "the seal is broken");
}

static void prepare_noexec(void)
{
	int fd = memfd_create("never run", MFD_NOEXEC_SEAL);

	if (fd < 0)
		live_skip("no MFD_NOEXEC_SEAL: %m");
	add(fd);
	add(memfd_create("may run", MFD_EXEC | MFD_ALLOW_SEALING));
	fd = add(memfd_create("run and sealed", MFD_EXEC | MFD_ALLOW_SEALING));
	live_check(ftruncate(fd, PAGE) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_EXEC) == 0, "seal: %m");
}

static void check_noexec(void)
{
	live_check(fchmod(fds[0], 0777) < 0 && errno == EPERM, "it can be made executable");
}

/* ---- shared anonymous memory as a file, owner of signals ---- */

static void prepare_nameless(void)
{
	char path[64];

	shared = map(-1, 4 * PAGE, 0, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	live_fill(shared, 4 * PAGE, 11);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)shared,
		 (unsigned long)shared + 4 * PAGE);
	own = map(add(open(path, O_RDWR)), 4 * PAGE, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	own[0] = 'x';
}

static void check_nameless(void)
{
	char byte = ++shared[2 * PAGE], read = 0;

	live_check(pread(fds[0], &read, 1, 2 * PAGE) == 1 && read == byte && own[2 * PAGE] == byte,
		   "descriptor and mapping are no longer one memory");
	shared[2 * PAGE]--;
	live_compare(shared, 4 * PAGE, 11, "shared anonymous memory");
	live_check(own[0] == 'x', "a private mapping has lost its page");
}

static void prepare_owner(void)
{
	int fd = add(memfd_create("somebody's", 0));

	live_check(fchown(fd, 1234, 4321) == 0 && fchmod(fd, 0) == 0, "fchown: %m");
	live_check(fcntl(fd, F_SETOWN, getpid()) == 0 && fcntl(fd, F_SETSIG, SIGUSR1) == 0, "owner: %m");
}

static void check_owner(void)
{
	live_check(fcntl(fds[0], F_GETOWN) == getpid() && fcntl(fds[0], F_GETSIG) == SIGUSR1,
		   "the owner of its signals is lost");
}

/* ---- huge pages ---- */

#define HUGE (2UL << 20)

static int make_huge(const char *name, size_t pages)
{
	int fd = memfd_create(name, MFD_HUGETLB | MFD_ALLOW_SEALING);

	if (fd < 0)
		live_skip("no memfds of huge pages: %m");
	live_check(ftruncate(fd, pages * HUGE) == 0, "ftruncate: %m");
	return add(fd);
}

static void prepare_huge(void)
{
	int fd = make_huge("huge", 4);

	shared = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, HUGE);
	own = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, HUGE);
	if (shared == MAP_FAILED || own == MAP_FAILED)
		live_skip("no huge pages: %m");
	live_fill(shared, HUGE, 13);
	live_fill(own + PAGE, PAGE, 14);
	live_check(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0, "seal: %m");
	make_huge("empty", 0);
}

static void check_huge(void)
{
	char byte = ++shared[PAGE], read = 0;

	live_check(pread(fds[0], &read, 1, HUGE + PAGE) == 1 && read == byte,
		   "descriptor and mapping are no longer one memory");
	shared[PAGE]--;
	live_compare(shared, HUGE, 13, "a shared mapping");
	live_compare(own + PAGE, PAGE, 14, "a private mapping");
	live_check(!memcmp(own + 2 * PAGE, shared + 2 * PAGE, HUGE - 2 * PAGE),
		   "the rest of a private huge page has changed");
}

/* The file is much larger than the pool. One page was touched, another only allocated: both must exist. */
static void prepare_huge_sparse(void)
{
	int fd = make_huge("sparse", 1000);

	if (fallocate(fd, 0, 700 * HUGE, HUGE) < 0)
		live_skip("no huge pages: %m");
	shared = map(fd, 1000 * HUGE, 0, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE);
	live_fill(shared + 500 * HUGE, PAGE, 15);
}

static void check_huge_sparse(void)
{
	struct stat stat;

	live_compare(shared + 500 * HUGE, PAGE, 15, "a sparse mapping");
	live_check(fstat(fds[0], &stat) == 0 && (size_t)stat.st_blocks * 512 == 2 * HUGE, "it has %ld blocks",
		   (long)stat.st_blocks);
}

/* ---- a program that is executed from a memfd ---- */

static void execute(int argc, char **argv)
{
	int own_file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fd = memfd_create("program", 0);
	char buffer[65536];
	ssize_t got;

	while ((got = read(own_file, buffer, sizeof(buffer))) > 0)
		live_check(write(fd, buffer, got) == got, "write: %m");
	argv[argc - 1] = (char *)"executing";
	fexecve(fd, argv, environ);
	live_fail("fexecve: %m");
}

static void prepare_executing(void)
{
	char link[64] = "";

	live_check(readlink("/proc/self/exe", link, sizeof(link) - 1) > 0 &&
			   !strcmp(link, "/memfd:program (deleted)"),
		   "it runs from %s", link);
	for (int fd = 3; fd < 8; fd++) /* left open by fexecve() */
		if (fcntl(fd, F_GETFD) >= 0)
			add(fd);
}

static void check_executing(void)
{
	char link[64] = "";

	live_check(readlink("/proc/self/exe", link, sizeof(link) - 1) > 0 &&
			   !strcmp(link, "/memfd:program (deleted)"),
		   "it runs from %s", link);
}

static const struct {
	const char *name;
	void (*prepare)(void), (*check)(void), (*child)(void);
} kinds[] = {
	{ "files", prepare_files, check_files, NULL },
	{ "path", prepare_path, check_path, NULL },
	{ "mapped", prepare_mapped, check_mapped, NULL },
	{ "shared", prepare_shared, check_shared, answer },
	{ "sealed", prepare_sealed, check_sealed, NULL },
	{ "future", prepare_future, check_future, NULL },
	{ "noexec", prepare_noexec, check_noexec, NULL },
	{ "nameless", prepare_nameless, check_nameless, NULL },
	{ "owner", prepare_owner, check_owner, NULL },
	{ "huge", prepare_huge, check_huge, NULL },
	{ "huge_sparse", prepare_huge_sparse, check_huge_sparse, NULL },
	{ "executing", prepare_executing, check_executing, NULL },
};

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "files";
	pid_t child = 0;

	live_begin(argc, argv);
	if (!strcmp(what, "executed"))
		execute(argc, argv);
	__auto_type kind = live_choose(kinds, what);
	kind->prepare();
	remember();
	if (kind->child)
		child = live_fork(kind->child);
	live_ready();
	do {
		check_sights();
		kind->check();
		live_sleep(0.002);
	} while (!live_stopping());
	check_sights();
	kind->check();
	if (child)
		live_join(child);
	return live_finish();
}
