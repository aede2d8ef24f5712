/*
 * ghost_files.c - open files without a name: deleted, replaced, never named, with their content (ghosts.h).
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/mman.h>

#include "ghosts.h"

#define GIB    (1L << 30)
#define SPARSE 12

/* ---- open files of one inode ---- */

enum { READ, WRITE, APPEND, BOTH, PATH, COPY, EMPTY };

static void open_ones(void)
{
	int fd = make("deleted", 0640, SIZE);

	keep(open(at("deleted"), O_RDONLY));
	keep(open(at("deleted"), O_WRONLY | O_NONBLOCK));
	keep(open(at("deleted"), O_WRONLY | O_APPEND | O_SYNC));
	keep(fd);
	keep(open(at("deleted"), O_PATH));
	keep(dup(fds[READ]));
	keep(make("empty", 0600, 0));
	unlink(at("deleted"));
	unlink(at("empty"));
	lseek(fds[READ], 123, SEEK_SET);
	lseek(fds[BOTH], SIZE + 1000, SEEK_SET);
}

static void check_open_ones(void)
{
	char byte;

	compare(true);
	compare_content(fds[READ], content, SIZE);
	content[5]++;
	live_check(pwrite(fds[WRITE], content + 5, 1, 5) == 1, "pwrite: %m");
	compare_content(fds[BOTH], content, SIZE);
	live_check(read(fds[COPY], &byte, 1) == 1 && byte == content[123], "another byte");
	live_check(lseek(fds[READ], 0, SEEK_CUR) == 124, "the copy has a position of its own");
	lseek(fds[READ], 123, SEEK_SET);
	live_check(access(at("deleted"), F_OK) < 0 && errno == ENOENT, "the name is there again");
}

/* ---- a child has it, too ---- */

static int *shared;

static void be_child(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;) {
		struct stat mine;

		fstat(fds[READ], &mine);
		shared[1] = mine.st_ino;
		shared[2] = lseek(fds[READ], 0, SEEK_CUR);
		__atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
		usleep(1000);
	}
}

static void open_in_family(void)
{
	open_ones();
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	child = live_fork(be_child);
}

static void check_family(void)
{
	struct stat mine;
	int before = __atomic_load_n(&shared[0], __ATOMIC_SEQ_CST);

	while (__atomic_load_n(&shared[0], __ATOMIC_SEQ_CST) < before + 2)
		usleep(1000);
	fstat(fds[READ], &mine);
	live_check((shared[1] == (int)mine.st_ino || !is_over) && shared[2] == 123,
		   "the child has file %d at %d, not %d", shared[1], shared[2], (int)mine.st_ino);
	check_open_ones();
}

/* ---- holes ---- */

static void set_up_sparse(void)
{
	int fd = make("sparse", 0600, 0);

	for (int i = 1; i < SPARSE; i++)
		live_check(pwrite(fd, content + i, 4096, GIB / SPARSE / 4096 * 4096 * i) == 4096,
			   "pwrite: %m");
	live_check(ftruncate(fd, GIB) == 0, "ftruncate: %m");
	keep(fd);
	unlink(at("sparse"));
}

static void check_sparse(void)
{
	struct stat now;
	char page[4096];

	compare(true);
	fstat(fds[0], &now);
	live_check(now.st_blocks < 4096, "%ld blocks", now.st_blocks);
	for (int i = 1; i < SPARSE; i++) {
		off_t place = GIB / SPARSE / 4096 * 4096 * i;

		live_check(pread(fds[0], page, 4096, place) == 4096 && !memcmp(page, content + i, 4096),
			   "chunk %d", i);
		live_check(pread(fds[0], page, 1, place + 4096) == 1 && !page[0], "behind chunk %d", i);
	}
}

/* ---- mappings, without a descriptor ---- */

static char *map_shared, *map_private, *map_read;

static void set_up_mapped(void)
{
	int fd = make("mapped", 0600, SIZE), again = open(at("mapped"), O_RDONLY);

	map_shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	map_private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, again, 0);
	map_read = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, again, 0);
	live_check(map_shared != MAP_FAILED && map_private != MAP_FAILED && map_read != MAP_FAILED,
		   "mmap: %m");
	map_private[4096] = content[4096] + 1;
	close(fd);
	close(again);
	unlink(at("mapped"));
}

static void check_mapped(void)
{
	live_check(map_private[4096] == (char)(content[4096] + 1), "the private page is another");
	live_check(!memcmp(map_private, content, 4096) &&
			   !memcmp(map_private + 8192, content + 8192, SIZE - 8192),
		   "private mapping");
	live_check(!memcmp(map_shared, content, SIZE), "shared mapping");
	content[60000]++;
	map_shared[60000]++;
	live_check(!memcmp(map_read, content, SIZE), "the mappings are not of one file");
}

/* ---- another file has the name ---- */

static void set_up_replaced(void)
{
	keep(make("log", 0600, SIZE));
	close(make("new", 0644, 100));
	rename(at("new"), at("log"));
	keep(open(at("log"), O_RDWR | O_APPEND));
	keep(make("again", 0600, 200));
	unlink(at("again"));
	keep(make("again", 0604, 300));
	keep(make("rotated", 0600, 400));
	rename(at("rotated"), at("rotated.1"));
	keep(make("rotated", 0600, 500));
}

static void check_replaced(void)
{
	static const int sizes[] = { SIZE, 100, 200, 300, 400, 500 };
	static const char *const names[] = { NULL, "log", NULL, "again", "rotated.1", "rotated" };

	compare(false);
	for (int i = 0; i < 6; i++) {
		struct stat now, found;

		compare_content(fds[i], content, sizes[i]);
		fstat(fds[i], &now);
		live_check(!names[i] || !is_over || (stat(at(names[i]), &found) == 0 && same(&now, &found)),
			   "%s is another file", names[i]);
	}
}

/* ---- O_TMPFILE ---- */

static void set_up_unnamed(void)
{
	int fd = open(where, O_RDWR | O_TMPFILE | O_APPEND, 0640);

	if (fd < 0 && errno == EOPNOTSUPP)
		live_skip("this file system has no O_TMPFILE");
	live_check(write(fd, content, SIZE) == SIZE, "write: %m");
	keep(fd);
	lseek(fd, 77, SEEK_SET);
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	keep(open(path, O_RDONLY));
}

static void check_unnamed(void)
{
	compare(false);
	compare_content(fds[0], content, SIZE);
}

static void end_unnamed(void)
{
	char path[64];
	struct stat now, found;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[0]);
	live_check(linkat(AT_FDCWD, path, AT_FDCWD, at("named"), AT_SYMLINK_FOLLOW) == 0, "linkat: %m");
	fstat(fds[1], &now);
	live_check(stat(at("named"), &found) == 0 && same(&now, &found), "another file was named");
	unlink(at("named"));
}

/* ---- many, and large ones ---- */

static void set_up_many(void)
{
	for (int i = 0; i < 500; i++) {
		int fd = make("one", 0600, i);

		live_check(i || fd < 100, "descriptor %d", fd);
		unlink(at("one"));
		if (i < 60)
			keep(fd);
	}
}

static void check_many(void)
{
	compare(true);
	for (int i = 0; i < 60; i++)
		compare_content(fds[i], content, i);
}

static void set_up_large(void)
{
	int fd = make("large", 0600, 0);

	keep(fd);
	for (long i = 0; i < (256L << 20) / 65536; i++)
		live_check(write(fd, content + i % 1000, 65536) == 65536, "write: %m");
	unlink(at("large"));
}

static void check_large(void)
{
	static char block[65536];

	compare(true);
	for (long i = 0; i < (256L << 20) / 65536; i += 97)
		live_check(pread(fds[0], block, 65536, i * 65536) == 65536 &&
				   !memcmp(block, content + i % 1000, 65536),
			   "block %ld", i);
}

static const struct thing things[] = {
	{ "open", open_ones, check_open_ones, NULL },
	{ "family", open_in_family, check_family, NULL },
	{ "sparse", set_up_sparse, check_sparse, NULL },
	{ "mapped", set_up_mapped, check_mapped, NULL },
	{ "replaced", set_up_replaced, check_replaced, NULL },
	{ "unnamed", set_up_unnamed, check_unnamed, end_unnamed },
	{ "many", set_up_many, check_many, NULL },
	{ "large", set_up_large, check_large, NULL },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	return run_thing(argc, argv, live_choose(things, argv[2]));
}
