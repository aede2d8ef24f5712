/*
 * ipc_queues.c - message queues of System V: messages in their order, ids, owners, limits, and waiting.
 *
 * usage: ipc_queues DIRECTORY messages|empty|received|full|waiting|many|owned|long
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define MOST	50
#define LONGEST 8192
#define KEY	0x43524957
#define OTHER	1234 /* a user */

struct message {
	long type;
	char text[LONGEST];
};

static int queues[MOST], queue_count;
static struct msqid_ds facts[MOST];
static pid_t child;

static void make(key_t key, int mode)
{
	queues[queue_count] = msgget(key, IPC_CREAT | IPC_EXCL | mode);
	live_check(queues[queue_count++] >= 0, "msgget: %m");
}

static void send(int queue, long type, size_t size)
{
	static struct message message;

	message.type = type;
	live_fill(message.text, size, type);
	while (msgsnd(queues[queue], &message, size, 0) < 0)
		live_check(errno == EINTR, "msgsnd: %m");
}

static void take(int queue, long type, size_t size)
{
	static struct message message;
	ssize_t received;

	do
		received = msgrcv(queues[queue], &message, LONGEST, 0, 0);
	while (received < 0 && errno == EINTR);
	live_check(received >= 0, "msgrcv: %m");
	live_check(message.type == type && received == (ssize_t)size,
		   "message of type %ld, %zd bytes: not %ld, %zu", message.type, received, type, size);
	live_compare(message.text, size, type, "a message");
}

/* The types and sizes of the messages in the first queue. */
static struct {
	long type;
	size_t size;
} contents[20000];
static size_t content_count;

static void put(long type, size_t size)
{
	send(0, type, size);
	contents[content_count].type = type;
	contents[content_count++].size = size;
}

static void begin_messages(void)
{
	make(KEY, 0642);
	send(0, 3, 10);
	take(0, 3, 10);
	put(5, 0);
	put(1, LONGEST);
	put(0x7fffffffffffffff, 1);
	put(5, 7);
	put(2, 4000);
}

static void begin_empty(void)
{
	make(IPC_PRIVATE, 0600);
	send(0, 3, 10);
	take(0, 3, 10);
}

/* Somebody else has received last. */
static void receive_one(void)
{
	take(0, 9, 100);
	live_wait_stop();
}

static void begin_received(void)
{
	make(IPC_PRIVATE, 0600);
	send(0, 9, 100);
	child = live_fork(receive_one);
	while (msgctl(queues[0], IPC_STAT, &facts[0]) == 0 && facts[0].msg_qnum)
		live_sleep(0.001);
	put(4, 4);
}

static void begin_full(void)
{
	make(IPC_PRIVATE, 0600);
	for (int i = 0; i < 16384; i++)
		put(i + 1, 0);
}

static void begin_many(void)
{
	for (int i = 0; i < MOST; i++) {
		make(i % 2 ? KEY + i : IPC_PRIVATE, 0600);
		if (i)
			send(i, i, i * 10);
	}
	put(1, 1);
}

static void begin_owned(void)
{
	struct msqid_ds now;

	live_check(setegid(OTHER + 1) == 0 && seteuid(OTHER) == 0, "seteuid: %m");
	make(KEY, 0600);
	live_check(seteuid(0) == 0 && setegid(0) == 0, "seteuid: %m");
	msgctl(queues[0], IPC_STAT, &now);
	now.msg_perm.uid = 77;
	now.msg_perm.gid = 78;
	now.msg_perm.mode = 0462;
	now.msg_qbytes = 1000;
	live_check(msgctl(queues[0], IPC_SET, &now) == 0, "msgctl: %m");
	put(5, 999);
}

/* So many that criu reads them in the kernel's memory, two of several parts; as much as the default limit allows. */
static void begin_long(void)
{
	make(KEY, 0600);
	put(77, LONGEST);
	for (int i = 0; i < 1100; i++)
		put(i * 3 + 1, (size_t)i % 6);
	put(78, 4049);
}

/* The child waits for a message of type 1, and answers with one of type 2. */
static void answer(void)
{
	static struct message message;

	while (!live_stopping()) {
		ssize_t size = msgrcv(queues[0], &message, LONGEST, 1, 0);

		if (size < 0) {
			live_check(errno == EINTR, "msgrcv of the child: %m");
			continue;
		}
		message.type = 2;
		live_check(msgsnd(queues[0], &message, size, 0) == 0, "msgsnd of the child: %m");
	}
}

static void ask(void)
{
	static struct message message;
	ssize_t size;

	send(0, 1, 300);
	do
		size = msgrcv(queues[0], &message, LONGEST, 2, 0);
	while (size < 0 && errno == EINTR);
	live_check(size == 300, "msgrcv: %zd %m", size);
	live_compare(message.text, 300, 1, "an answer");
	live_wait_asleep(child);
}

static void begin_waiting(void)
{
	make(IPC_PRIVATE, 0600);
	child = live_fork(answer);
	ask();
}

static const struct {
	const char *name;
	void (*begin)(void), (*step)(void);
} kinds[] = {
	{ "messages", begin_messages, NULL }, { "empty", begin_empty, NULL },
	{ "received", begin_received, NULL }, { "full", begin_full, NULL },
	{ "many", begin_many, NULL },	      { "owned", begin_owned, NULL },
	{ "long", begin_long, NULL },	      { "waiting", begin_waiting, ask },
};

static void verify(int queue)
{
	struct msqid_ds now, *then = &facts[queue];

	live_check(msgctl(queues[queue], IPC_STAT, &now) == 0, "msgctl of queue %d: %m", queues[queue]);
	live_check(now.msg_perm.__key == then->msg_perm.__key && now.msg_perm.uid == then->msg_perm.uid &&
			   now.msg_perm.gid == then->msg_perm.gid && now.msg_perm.mode == then->msg_perm.mode,
		   "queue %d has another key, owner or mode", queues[queue]);
	live_check(now.msg_perm.cuid == then->msg_perm.cuid && now.msg_perm.cgid == then->msg_perm.cgid,
		   "queue %d has another creator", queues[queue]);
	live_check(now.msg_qbytes == then->msg_qbytes, "queue %d has a limit of %lu bytes", queues[queue],
		   now.msg_qbytes);
	live_check(now.msg_qnum == then->msg_qnum && now.__msg_cbytes == then->__msg_cbytes,
		   "queue %d holds %lu messages, not %lu", queues[queue], now.msg_qnum, then->msg_qnum);
	live_check(now.msg_lspid == then->msg_lspid && now.msg_lrpid == then->msg_lrpid,
		   "queue %d: last sender and receiver are %d and %d, not %d and %d", queues[queue],
		   now.msg_lspid, now.msg_lrpid, then->msg_lspid, then->msg_lrpid);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	__auto_type kind = live_choose(kinds, argv[2]);
	kind->begin();
	for (int i = 0; i < queue_count; i++)
		msgctl(queues[i], IPC_STAT, &facts[i]);
	live_ready();
	while (!live_stopping()) {
		for (int i = 0; i < queue_count; i++)
			verify(i);
		if (kind->step)
			kind->step();
		live_sleep(0.005);
	}
	for (int i = 0; i < queue_count; i++)
		verify(i);
	for (size_t i = 0; i < content_count; i++)
		take(0, contents[i].type, contents[i].size);
	for (int i = 1; i < queue_count; i++)
		take(i, i, i * 10);
	if (child)
		live_join(child);
	for (int i = 0; i < queue_count; i++)
		live_check(msgctl(queues[i], IPC_RMID, NULL) == 0, "msgctl: %m");
	return live_finish();
}
