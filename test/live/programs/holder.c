/* holder.c - has one file open and another mapped, and sleeps. For tests that change these files while it is away. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "live.h"

static int make(const char *name)
{
	char path[4096];

	live_path(path, sizeof(path), name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	live_check(fd >= 0 && ftruncate(fd, 8192) == 0, "%s: %m", path);
	return fd;
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	make("held-open");
	int fd = make("held-mapped");
	live_check(mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED, "mmap: %m");
	close(fd);
	live_ready();
	live_wait_stop();
	return live_finish();
}
