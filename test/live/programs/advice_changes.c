/*
 * advice_changes.c - sets and clears a flag of large mappings at random moments. The images tell which state it was in.
 *
 * usage: advice_changes DIRECTORY MIB changing|quiet SIBLINGS
 *
 * With SIBLINGS, the last child does it. Its siblings are frozen first, so it has some time for changes between the
 * look ahead and its own freeze.
 *
 * The position of the file `position` is 4n + 1 when all mappings have the advice of round n (MADV_DONTFORK if n is
 * odd, else MADV_DOFORK), and 4n on the way there. The large mappings are of a file without content, so that their
 * images are small; there is one small mapping besides. The note `areas` has the pid and the addresses.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "live.h"

#define AREAS	      3
#define PAGE	      4096
#define MOST_SIBLINGS 500

static struct area {
	char *memory;
	size_t size;
} areas[AREAS];
static size_t size;
static bool is_changing;

/* Apart from its neighbours, so that the kernel does not merge them. */
static void map(struct area *area, size_t length, int fd)
{
	char *fence = mmap(NULL, length + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	area->size = length;
	area->memory = mmap(fence + PAGE, length, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	live_check(area->memory != MAP_FAILED, "mmap: %m");
	for (size_t i = 0; i < length; i += PAGE)
		*(volatile char *)(area->memory + i);
}

static int open_file(const char *name)
{
	char path[4096];
	int fd;

	live_path(path, sizeof(path), name);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	live_check(fd >= 0, "%s: %m", path);
	return fd;
}

static void set_up(void)
{
	int fd = open_file("empty");
	char note[200];

	live_check(ftruncate(fd, size) == 0, "ftruncate: %m");
	map(&areas[0], size / 2, fd);
	map(&areas[1], 16 * PAGE, -1);
	map(&areas[2], size / 2, fd);
	close(fd);
	snprintf(note, sizeof(note), "%d ", getpid());
	for (int i = 0; i < AREAS; i++)
		snprintf(note + strlen(note), sizeof(note) - strlen(note), "%lx ",
			 (unsigned long)areas[i].memory);
	live_note("areas", note);
}

static void change(int position, long round)
{
	lseek(position, 4 * round, SEEK_SET);
	for (int i = 0; i < AREAS; i++)
		live_check(madvise(areas[i].memory, areas[i].size, round & 1 ? MADV_DONTFORK : MADV_DOFORK) ==
				   0,
			   "madvise: %m");
	lseek(position, 4 * round + 1, SEEK_SET);
}

static void sleep_on(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static void work(void)
{
	int position;

	set_up();
	position = open_file("position");
	change(position, 1);
	live_ready();
	for (long round = 2; is_changing && !live_stopping(); round++) {
		change(position, round);
		live_sleep(random() % 40 * 0.001);
	}
	live_wait_stop();
}

int main(int argc, char **argv)
{
	pid_t siblings[MOST_SIBLINGS];
	int count;

	live_begin(argc, argv);
	size = strtoul(argv[2], NULL, 10) << 20;
	is_changing = !strcmp(argv[3], "changing");
	count = atoi(argv[4]);
	live_check(count < MOST_SIBLINGS, "too many siblings");
	for (int i = 0; i < count; i++)
		siblings[i] = live_fork(sleep_on);
	if (!count) {
		work();
		return live_finish();
	}
	siblings[count++] = live_fork(work);
	live_wait_stop();
	for (int i = 0; i < count; i++)
		live_join(siblings[i]);
	return live_finish();
}
