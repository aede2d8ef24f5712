/*
 * mqueue.h - POSIX message queues: reading and writing their messages (mqueue_content.c), and their open files
 * (mqueue.c).
 */
#ifndef CRIU_FILES_KINDS_MQUEUE_H
#define CRIU_FILES_KINDS_MQUEUE_H

#include <mqueue.h>
#include <stdbool.h>
#include <sys/types.h>
#include "compiler.h"
#include "mqueue.pb-c.h"

/* Not those of libc, which want a name with '/'. -1 and errno. */
int mqueue_open(const char *name, int flags, mode_t mode, const struct mq_attr *attributes);
int mqueue_unlink(const char *name);

/*
 * Dump. Copies all messages of a queue into its entry. `fd`: open for reading and writing, not O_NONBLOCK. The queue
 * holds the same as before, also if criu is killed meanwhile.
 */
int mqueue_copy(int fd, MqueueEntry *entry) must_check;
/* Restore. Sends all messages of the entry to an empty queue. */
int mqueue_fill(int fd, const MqueueEntry *entry) must_check;

#endif
