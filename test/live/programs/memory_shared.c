/*
 * memory_shared.c - memory that a parent and two children share: anonymous and of a file. The parent writes requests to
 * it, and the children must answer through the same memory, before the dump and after the restore.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "live.h"

#define PAGE 4096UL
#define SIZE (256 * PAGE)

struct desk {
	atomic_ulong request, answer[2];
};

static struct desk *anonymous, *file;
static char *hidden, *sparse;
static int number;

static void answer(void)
{
	if (number == 1) /* the second child maps only a part of it */
		munmap((char *)anonymous + SIZE / 2, SIZE / 2);
	while (!live_stopping()) {
		anonymous->answer[number] = anonymous->request;
		file->answer[number] = file->request;
		live_compare((char *)anonymous + PAGE, SIZE / 2 - PAGE, 1, "shared memory in a child");
		live_sleep(0.001);
	}
}

static void ask(struct desk *desk, const char *what)
{
	unsigned long request = ++desk->request;

	for (int child = 0; child < 2; child++)
		live_await(desk->answer[child] == request, "%s: child %d does not answer", what, child);
}

static void *map_shared(int fd)
{
	void *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd,
			    0);

	live_check(memory != MAP_FAILED, "mmap: %m");
	live_fill((char *)memory + PAGE, SIZE - PAGE, 1);
	return memory;
}

static struct desk *map_shared_file(void)
{
	char path[4096];

	live_path(path, sizeof(path), "shared.data");
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	live_check(ftruncate(fd, SIZE) == 0, "%s: %m", path);
	struct desk *memory = map_shared(fd);
	close(fd);
	return memory;
}

static void verify(void)
{
	ask(anonymous, "shared anonymous memory");
	ask(file, "shared file");
	live_compare((char *)anonymous + PAGE, SIZE - PAGE, 1, "shared anonymous memory");
	live_compare((char *)file + PAGE, SIZE - PAGE, 1, "shared file");
	live_compare(sparse + 100 * PAGE, PAGE, 3, "sparse shared memory");
	live_check(sparse[99 * PAGE] == 0 && sparse[101 * PAGE] == 0,
		   "holes of sparse shared memory are not zero");
}

int main(int argc, char **argv)
{
	pid_t children[2];

	live_begin(argc, argv);
	anonymous = map_shared(-1);
	file = map_shared_file();
	hidden = map_shared(-1);
	mprotect(hidden, SIZE, PROT_NONE);
	sparse = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	live_fill(sparse + 100 * PAGE, PAGE, 3);
	for (number = 0; number < 2; number++)
		children[number] = live_fork(answer);
	verify();
	live_ready();
	while (!live_stopping())
		verify();
	verify();
	mprotect(hidden, SIZE, PROT_READ);
	live_compare(hidden + PAGE, SIZE - PAGE, 1, "shared memory that was PROT_NONE");
	for (int child = 0; child < 2; child++)
		live_join(children[child]);
	return live_finish();
}
