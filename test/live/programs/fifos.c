/*
 * fifos.c - named pipes: every way to have one open, unread content, and the events that its readers see.
 *
 * usage: fifos DIRECTORY ends|packets|hang_up|kept
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

static char path[4096], other[4096], content[20000], buffer[20000];
static int reader, writer, both, alone, name_only;

static int open_fifo(const char *name, int flags)
{
	int fd = open(name, flags);

	live_check(fd >= 0, "%s: %m", name);
	return fd;
}

static void put(int fd, ssize_t size)
{
	live_check(write(fd, content, size) == size, "write: %m");
}

static void expect(int fd, ssize_t size, const char *what)
{
	ssize_t got = read(fd, buffer, sizeof(buffer));

	live_check(got == size && memcmp(buffer, content, size) == 0, "%s: %zd came, not %zd", what, got,
		   size);
}

/* One pipe with content and another size, open in all modes; another whose only end is for writing. */
static void set_up_ends(void)
{
	both = open_fifo(path, O_RDWR | O_APPEND);
	reader = open_fifo(path, O_RDONLY | O_CLOEXEC);
	writer = open_fifo(path, O_WRONLY | O_NONBLOCK);
	live_check(fcntl(writer, F_SETPIPE_SZ, 1 << 17) == 1 << 17, "F_SETPIPE_SZ: %m");
	put(writer, 12345);
	close(open_fifo(other, O_RDONLY | O_NONBLOCK));
	alone = open_fifo(other, O_RDONLY | O_NONBLOCK);
	writer = dup2(open_fifo(other, O_WRONLY), 90) == 90 ? writer : -1;
	close(alone);
	name_only = open_fifo(path, O_PATH);
}

static void verify_ends(void)
{
	int pending = 0;

	live_check((fcntl(both, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)) == (O_RDWR | O_APPEND),
		   "wrong flags");
	live_check((fcntl(reader, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == O_RDONLY, "wrong flags");
	live_check((fcntl(writer, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_WRONLY | O_NONBLOCK),
		   "wrong flags");
	live_check(fcntl(name_only, F_GETFL) & O_PATH, "O_PATH is lost");
	live_check(fcntl(reader, F_GETFD) == FD_CLOEXEC && fcntl(writer, F_GETFD) == 0, "wrong FD_CLOEXEC");
	live_check(fcntl(reader, F_GETPIPE_SZ) == 1 << 17, "its size is %d", fcntl(reader, F_GETPIPE_SZ));
	ioctl(both, FIONREAD, &pending);
	live_check(pending == 12345, "%d bytes are unread", pending);
	expect(reader, 12345, "the content");
	put(writer, 77);
	expect(both, 77, "what was written now");
	alone = open_fifo(other, O_RDONLY | O_NONBLOCK);
	put(90, 5);
	expect(alone, 5, "what was written to the other one");
}

static void set_up_packets(void)
{
	reader = open_fifo(path, O_RDONLY | O_NONBLOCK);
	writer = open_fifo(path, O_WRONLY | O_NONBLOCK);
	live_check(fcntl(writer, F_SETFL, O_DIRECT | O_NONBLOCK) == 0, "O_DIRECT: %m");
	put(writer, 3);
	put(writer, 4096);
	put(writer, 1);
}

static void verify_packets(void)
{
	live_check(fcntl(writer, F_GETFL) & O_DIRECT, "O_DIRECT is lost");
	expect(reader, 3, "the first packet");
	live_check(read(reader, buffer, 10) == 10, "a part of the second: %m");
	expect(reader, 1, "the third packet");
	live_check(read(reader, buffer, 10) < 0 && errno == EAGAIN, "one packet too many");
}

static int events_of(int fd)
{
	struct pollfd asked = { .fd = fd, .events = POLLIN };

	poll(&asked, 1, 0);
	return asked.revents;
}

/* Two readers of one pipe without a writer: one was open when the last writer closed it, the other was opened later. */
static void set_up_hang_up(void)
{
	reader = open_fifo(path, O_RDONLY | O_NONBLOCK);
	close(open_fifo(path, O_WRONLY));
	alone = open_fifo(path, O_RDONLY | O_NONBLOCK);
	live_check(events_of(reader) == POLLHUP && events_of(alone) == 0,
		   "at first their events are %x and %x", events_of(reader), events_of(alone));
}

static void verify_hang_up(void)
{
	live_check(events_of(reader) == POLLHUP, "the reader that saw a writer close has events %x",
		   events_of(reader));
	live_check(events_of(alone) == 0, "the reader that saw no writer has events %x", events_of(alone));
	writer = open_fifo(path, O_WRONLY | O_NONBLOCK);
	put(writer, 1);
	close(writer);
	live_check(events_of(alone) == (POLLIN | POLLHUP),
		   "the reader that has seen a writer now has events %x", events_of(alone));
}

static void set_up_kept(void)
{
	reader = open_fifo(path, O_RDONLY | O_NONBLOCK);
	writer = open_fifo(path, O_WRONLY | O_NONBLOCK);
	put(writer, 4000);
}

static void verify_kept(void)
{
	expect(reader, 4000, "what was written once");
	live_check(read(reader, buffer, 1) < 0 && errno == EAGAIN, "the content is there twice");
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
} parts[] = {
	{ "ends", set_up_ends, verify_ends },
	{ "packets", set_up_packets, verify_packets },
	{ "hang_up", set_up_hang_up, verify_hang_up },
	{ "kept", set_up_kept, verify_kept },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);
	live_path(path, sizeof(path), "fifo");
	live_path(other, sizeof(other), "other");
	live_check((mkfifo(path, 0600) == 0 || errno == EEXIST) && mkfifo(other, 0600) == 0, "mkfifo: %m");
	live_fill(content, sizeof(content), 1);
	part->set_up();
	live_ready();
	live_wait_stop();
	part->verify();
	return live_finish();
}
