/*
 * ipc_mqueues.c - POSIX message queues: messages with their priorities, descriptors, flags, owners, and waiting.
 *
 * usage: ipc_mqueues DIRECTORY KIND
 * KIND: one of those in the table near the end
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define NAME	"/criu-live-queue"
#define LONGEST 8192
#define MOST	10

static mqd_t queue, other = -1;
static struct stat inode;
static struct mq_attr attributes;
static pid_t child;
static bool is_unlinked;

static struct {
	size_t size;
	unsigned priority;
} contents[MOST];
static int count;

static void open_queue(const char *name, int flags)
{
	struct mq_attr wanted = { .mq_maxmsg = MOST, .mq_msgsize = LONGEST };

	queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR | flags, 0642, &wanted);
	if (queue < 0)
		live_skip("no message queues: %m");
}

static void send(size_t size, unsigned priority, uint64_t seed)
{
	static char text[LONGEST];

	live_fill(text, size, seed);
	while (mq_send(queue, text, size, priority) < 0)
		live_check(errno == EINTR, "mq_send: %m");
}

static void take(size_t size, unsigned priority, uint64_t seed)
{
	static char text[LONGEST];
	unsigned found;
	ssize_t received;

	do
		received = mq_receive(queue, text, LONGEST, &found);
	while (received < 0 && errno == EINTR);
	live_check(received == (ssize_t)size && found == priority,
		   "a message of %zd bytes, priority %u; not %zu, %u: %m", received, found, size, priority);
	live_compare(text, size, seed, "a message");
}

/* In the order in which they will be received. */
static void expect(size_t size, unsigned priority)
{
	contents[count].size = size;
	contents[count++].priority = priority;
}

static void fill(void)
{
	send(100, 5, 1);
	send(0, 0, 5);
	send(LONGEST, 32767, 0);
	send(7, 5, 2);
	send(1, 5, 3);
	send(3, 1, 4);
	expect(LONGEST, 32767);
	expect(100, 5);
	expect(7, 5);
	expect(1, 5);
	expect(3, 1);
	expect(0, 0);
}

static void begin_messages(void)
{
	open_queue(NAME, 0);
	fill();
}

static void begin_empty(void)
{
	open_queue(NAME, 0);
}

static void begin_unlinked(void)
{
	open_queue(NAME, 0);
	fill();
	live_check(mq_unlink(NAME) == 0, "mq_unlink: %m");
	is_unlinked = true;
}

static void begin_full(void)
{
	open_queue(NAME, O_NONBLOCK);
	for (int i = 0; i < MOST; i++) {
		send(LONGEST, 9, i);
		expect(LONGEST, 9);
	}
}

/* The name of another file. */
static void begin_like_a_file(void)
{
	open_queue("/etc", 0);
	fill();
}

static void check_full(void)
{
	struct pollfd asked = { .fd = queue, .events = POLLIN | POLLOUT };

	live_check(poll(&asked, 1, 0) == 1 && asked.revents == POLLIN, "poll: %#x", asked.revents);
	live_check(mq_send(queue, "x", 1, 0) < 0 && errno == EAGAIN, "the queue is not full, or would block");
}

/* Other flags, by a descriptor of its own. */
static void begin_flags(void)
{
	begin_messages();
	other = mq_open(NAME, O_RDONLY | O_NONBLOCK);
	live_check(other >= 0 && dup2(queue, 100) == 100, "mq_open: %m");
	live_check(fcntl(other, F_SETFD, 0) == 0, "fcntl: %m");
	fchmod(queue, 0604);
	if (!geteuid())
		live_check(fchown(queue, 77, 78) == 0, "fchown: %m");
}

static void check_flags(void)
{
	live_check(mq_send(other, "x", 1, 0) < 0 && errno == EBADF, "a read-only descriptor is writable");
	live_check(fcntl(other, F_GETFL) == (O_RDONLY | O_NONBLOCK | O_LARGEFILE) ||
			   fcntl(other, F_GETFL) == (O_RDONLY | O_NONBLOCK),
		   "flags %#o", fcntl(other, F_GETFL));
	live_check(fcntl(other, F_GETFD) == 0 && fcntl(queue, F_GETFD) == FD_CLOEXEC, "close-on-exec");
	fcntl(100, F_SETFL, O_NONBLOCK);
	live_check(fcntl(queue, F_GETFL) & O_NONBLOCK, "two descriptors no longer share their flags");
	fcntl(100, F_SETFL, 0);
}

/* The child waits for messages by its own descriptor, and counts them by another queue of the same kind. */
static mqd_t answers;

static void answer(void)
{
	static char text[LONGEST];

	while (!live_stopping()) {
		unsigned priority;
		ssize_t size = mq_receive(queue, text, LONGEST, &priority);

		if (size < 0)
			live_check(errno == EINTR, "mq_receive of the child: %m");
		else
			live_check(mq_send(answers, text, size, priority + 1) == 0,
				   "mq_send of the child: %m");
	}
}

static void ask(void)
{
	static char text[LONGEST];
	unsigned priority = 0;
	ssize_t size;

	send(300, 4, 9);
	do
		size = mq_receive(answers, text, LONGEST, &priority);
	while (size < 0 && errno == EINTR);
	live_check(size == 300 && priority == 5, "an answer of %zd bytes: %m", size);
	live_compare(text, 300, 9, "an answer");
	live_wait_asleep(child);
}

static void begin_waiting(void)
{
	open_queue("/criu-live-answers", 0);
	answers = queue;
	mq_unlink("/criu-live-answers");
	open_queue(NAME, 0);
	child = live_fork(answer);
	ask();
}

static void begin_notified(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };

	begin_empty();
	signal(SIGUSR1, SIG_IGN);
	live_check(mq_notify(queue, &event) == 0, "mq_notify: %m");
}

static const struct {
	const char *name;
	void (*begin)(void), (*check)(void);
} kinds[] = {
	{ "messages", begin_messages, NULL },	    { "empty", begin_empty, NULL },
	{ "unlinked", begin_unlinked, NULL },	    { "full", begin_full, check_full },
	{ "flags", begin_flags, check_flags },	    { "waiting", begin_waiting, ask },
	{ "like-a-file", begin_like_a_file, NULL }, { "notified", begin_notified, NULL },
};

static void verify(bool has_name)
{
	struct mq_attr now;
	struct stat found;

	live_check(fstat(queue, &found) == 0 && mq_getattr(queue, &now) == 0, "fstat: %m");
	live_check(found.st_uid == inode.st_uid && found.st_gid == inode.st_gid &&
			   found.st_mode == inode.st_mode,
		   "owner %u:%u, mode %o", found.st_uid, found.st_gid, found.st_mode);
	live_check(child || (found.st_mtim.tv_sec == inode.st_mtim.tv_sec &&
			     found.st_mtim.tv_nsec == inode.st_mtim.tv_nsec),
		   "the queue was used at another time");
	live_check(found.st_nlink == has_name, "it has %lu names", (unsigned long)found.st_nlink);
	live_check(now.mq_maxmsg == attributes.mq_maxmsg && now.mq_msgsize == attributes.mq_msgsize &&
			   now.mq_flags == attributes.mq_flags,
		   "other attributes");
	live_check(now.mq_curmsgs == count, "it holds %ld messages, not %d", now.mq_curmsgs, count);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	umask(0);
	__auto_type kind = live_choose(kinds, argv[2]);
	kind->begin();
	live_check(fstat(queue, &inode) == 0 && mq_getattr(queue, &attributes) == 0, "fstat: %m");
	live_ready();
	while (!live_stopping()) {
		verify(!is_unlinked);
		if (kind->check)
			kind->check();
		live_sleep(0.005);
	}
	verify(!is_unlinked);
	for (int i = 0; i < count; i++)
		take(contents[i].size, contents[i].priority, i);
	if (child)
		live_join(child);
	if (!is_unlinked)
		live_check(mq_unlink(strcmp(argv[2], "like-a-file") ? NAME : "/etc") == 0, "mq_unlink: %m");
	return live_finish();
}
