/*
 * aio_slow.c - on SIGUSR1 it submits an AIO request that reads 256 KiB of a file with O_DIRECT into memory with other
 * content. If the harness has made the disk slow, snapshots find the request in flight. The device then writes to
 * memory that the program does not touch.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

#define SIZE (256UL << 10)
#define OLD  1
#define NEW  2

static volatile sig_atomic_t asked;

static void on_signal(int signo)
{
	(void)signo;
	asked = 1;
}

static void write_file(const char *path, const char *content)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	live_check(fd >= 0 && write(fd, content, SIZE) == (ssize_t)SIZE && fsync(fd) == 0, "%s: %m", path);
	close(fd);
}

static char *map(unsigned long seed)
{
	char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	live_check(memory != MAP_FAILED, "mmap: %m");
	live_fill(memory, SIZE, seed);
	return memory;
}

int main(int argc, char **argv)
{
	struct iocb request = { .aio_lio_opcode = IOCB_CMD_PREAD }, *requests = &request;
	struct io_event event = { 0 };
	aio_context_t ring = 0;
	char path[4096], *memory, *content;
	bool is_asked = false, is_done = false;

	live_begin(argc, argv);
	signal(SIGUSR1, on_signal);
	content = map(NEW);
	memory = map(OLD);
	live_path(path, sizeof(path), "file");
	write_file(path, content);
	request.aio_fildes = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if ((int)request.aio_fildes < 0)
		live_skip("this file system has no O_DIRECT");
	request.aio_buf = (unsigned long)memory;
	request.aio_nbytes = SIZE;
	live_check(syscall(SYS_io_setup, 8, &ring) == 0, "io_setup: %m");
	live_ready();
	while (!live_stopping()) {
		if (asked && !is_asked) {
			is_asked = true;
			live_check(syscall(SYS_io_submit, ring, 1, &requests) == 1, "io_submit: %m");
			live_note("done", "1");
		}
		if (is_asked && !is_done &&
		    syscall(SYS_io_getevents, ring, 0, 1, &event, &(struct timespec){ 0 }) == 1) {
			is_done = true;
			live_note("completed", "1");
		}
		live_sleep(0.01);
	}
	live_check(is_done && event.res == SIZE, "the request returned %lld", (long long)event.res);
	live_compare(memory, SIZE, NEW, "the memory of the request");
	return live_finish();
}
