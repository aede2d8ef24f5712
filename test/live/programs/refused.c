/*
 * refused.c - holds things that a plain dump must refuse, by name, all at once.
 *
 * usage: refused DIRECTORY THING...
 * THING: deleted | tcp | inotify | io_uring | userfaultfd | locked | itself
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

/* Larger than the limit for deleted files (--ghost-limit, 1 MiB). */
static void deleted(void)
{
	static char content[2 << 20];
	char path[4096];

	live_path(path, sizeof(path), "a-deleted-file");
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	live_fill(content, sizeof(content), 1);
	live_check(fd >= 0 && write(fd, content, sizeof(content)) == sizeof(content) && unlink(path) == 0,
		   "%s: %m", path);
}

/* An established connection with itself, both ends here. */
static void tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);

	live_check(bind(server, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(server, 1) == 0,
		   "listen: %m");
	getsockname(server, (struct sockaddr *)&address, &size);
	live_check(connect(client, (struct sockaddr *)&address, size) == 0, "connect: %m");
	live_check(accept(server, NULL, NULL) >= 0, "accept: %m");
}

static void inotify(void)
{
	live_check(inotify_add_watch(inotify_init1(0), live_directory, IN_CREATE) >= 0, "inotify: %m");
}

static void uring(void)
{
	struct io_uring_params parameters = { 0 };

	int fd = syscall(SYS_io_uring_setup, 4, &parameters);

	if (fd < 0)
		live_skip("this kernel has no io_uring");
	live_check(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING) != MAP_FAILED,
		   "mmap: %m");
}

static void uffd(void)
{
	if (syscall(SYS_userfaultfd, O_CLOEXEC) < 0)
		live_skip("this kernel has no userfaultfd");
}

/* What /proc tells about the process: there is no such file before the process is there again. */
static void itself(void)
{
	live_check(open("/proc/self/status", O_RDONLY) >= 0, "/proc/self/status: %m");
}

static void locked(void)
{
	char path[4096];

	live_path(path, sizeof(path), "a-locked-file");
	live_check(flock(open(path, O_RDWR | O_CREAT, 0600), LOCK_EX) == 0, "flock: %m");
}

static const struct {
	const char *name;
	void (*set_up)(void);
} things[] = {
	{ "deleted", deleted },	 { "tcp", tcp },       { "inotify", inotify }, { "io_uring", uring },
	{ "userfaultfd", uffd }, { "locked", locked }, { "itself", itself },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	for (int argument = 2; argument < argc; argument++)
		for (size_t i = 0; i < sizeof(things) / sizeof(things[0]); i++)
			if (strcmp(things[i].name, argv[argument]) == 0)
				things[i].set_up();
	live_ready();
	live_wait_stop();
	return live_finish();
}
