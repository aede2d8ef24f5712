/*
 * mqueue_content.c - the messages of a POSIX message queue.
 *
 * There is no way to look at a message: it can only be received. So a child of criu receives all messages, and sends
 * them again. They are in the same order then: the kernel sorts by priority, and by arrival.
 *
 * A queue must not lose messages if criu is killed. So the child does not end with criu; it has a session of its own,
 * and blocks all signals. It finishes within microseconds for each message. The tree is frozen meanwhile, unless criu
 * is killed: then a process of the tree may find the queue empty for as long as the child needs.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kinds/mqueue.h"
#include "image/message.h"
#include "model/inode.h"

int mqueue_open(const char *name, int flags, mode_t mode, const struct mq_attr *attributes)
{
	return syscall(SYS_mq_open, name, flags, mode, attributes);
}

int mqueue_unlink(const char *name)
{
	return syscall(SYS_mq_unlink, name);
}

/* What the child has received, in memory that it shares with criu. */
struct received {
	size_t count, size; /* messages; bytes in `bytes` */
	int error;	    /* 0: all of them are in the queue again */
	struct letter_of_queue {
		unsigned priority;
		uint32_t size;
	} messages[];
	/* the bytes of all messages follow */
};

struct copying {
	int fd;
	const InodeTimesEntry *times; /* of the queue, which receiving and sending change */
	struct received *received;
	char *bytes;
	size_t most, longest, room; /* messages; bytes of one; bytes of all */
};

static int receive_all(struct copying *copying)
{
	static const struct timespec past;
	struct received *received = copying->received;

	while (received->count < copying->most) {
		struct letter_of_queue *message = &received->messages[received->count];
		ssize_t size;

		if (received->size + copying->longest > copying->room)
			return EBUSY; /* another process has changed the queue meanwhile */
		size = mq_timedreceive(copying->fd, copying->bytes + received->size, copying->longest,
				       &message->priority, &past);

		if (size < 0)
			return errno == ETIMEDOUT ? 0 : errno;
		message->size = size;
		received->size += size;
		received->count++;
	}
	return 0;
}

static int send_all(const struct copying *copying)
{
	const struct received *received = copying->received;
	const char *bytes = copying->bytes;
	int error = 0;

	for (size_t i = 0; i < received->count; i++) {
		const struct letter_of_queue *message = &received->messages[i];

		if (mq_send(copying->fd, bytes, message->size, message->priority) < 0)
			error = errno;
		bytes += message->size;
	}
	return error;
}

static does_not_return void live_as_child(struct copying *copying)
{
	int error, sent;

	prctl(PR_SET_PDEATHSIG, 0);
	setsid();
	error = receive_all(copying);
	sent = send_all(copying);
	if (inode_set_times(copying->fd, copying->times) < 0)
		sent = sent ?: errno;
	copying->received->error = error ?: sent;
	_exit(0);
}

static int run_child(struct copying *copying)
{
	sigset_t all, before;
	pid_t child, gone;

	copying->received->error = ECHILD; /* until it says otherwise */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	child = fork();
	if (!child)
		live_as_child(copying);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (child < 0)
		return fail(errno, "cannot create a process that copies a message queue");
	do
		gone = waitpid(child, NULL, 0);
	while (gone < 0 && errno == EINTR);
	return copying->received->error ?
		       fail(copying->received->error, "cannot copy the messages of a message queue") :
		       0;
}

static void take_messages(const struct copying *copying, MqueueEntry *entry)
{
	const struct received *received = copying->received;
	const char *bytes = copying->bytes;

	message_array(entry, messages, received->count);
	for (size_t i = 0; i < received->count; i++) {
		const struct letter_of_queue *from = &received->messages[i];
		MqueueMessage *message = entry->messages[i] = message_new(MqueueMessage, mqueue_message);

		message->priority = from->priority;
		message->content.len = from->size;
		message->content.data = copy_bytes(bytes, from->size);
		bytes += from->size;
	}
}

/* Of all messages in the queue. */
static int count_bytes(int fd, size_t *bytes)
{
	char text[128] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		return fail(errno, "cannot read the state of a message queue");
	return sscanf(text, "QSIZE:%zu", bytes) == 1 ?
		       0 :
		       fail(EINVAL, "cannot understand the state of a message queue");
}

int mqueue_copy(int fd, MqueueEntry *entry)
{
	struct mq_attr attributes;
	struct copying copying = { .fd = fd, .times = entry->times };
	size_t head, size;
	int result;

	if (mq_getattr(fd, &attributes) < 0)
		return fail(errno, "cannot stat a message queue");
	if (!attributes.mq_curmsgs)
		return 0;
	copying.most = attributes.mq_curmsgs;
	copying.longest = attributes.mq_msgsize;
	head = sizeof(*copying.received) + copying.most * sizeof(copying.received->messages[0]);
	result = count_bytes(fd, &copying.room);
	if (result)
		return result;
	copying.room += copying.longest;
	/* Present from the start: the child must not fail for lack of memory. */
	size = head + copying.room;
	copying.received = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
				-1, 0);
	if (copying.received == MAP_FAILED)
		return fail(errno, "no memory to copy a message queue");
	copying.bytes = (char *)copying.received + head;
	result = run_child(&copying);
	if (!result)
		take_messages(&copying, entry);
	munmap(copying.received, size);
	return result;
}

int mqueue_fill(int fd, const MqueueEntry *entry)
{
	static const struct timespec past;

	for (size_t i = 0; i < entry->n_messages; i++) {
		const MqueueMessage *message = entry->messages[i];

		/* An empty message has no bytes in memory; libc wants an address. */
		if (mq_timedsend(fd, (const char *)message->content.data ?: "", message->content.len,
				 message->priority, &past) < 0)
			return fail(errno, "cannot send a message to message queue %s", entry->name);
	}
	return 0;
}
