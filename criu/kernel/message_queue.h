/*
 * message_queue.h - reads, in the kernel's memory, the messages of a System V queue. Takes nothing out.
 *
 * msgrcv(MSG_COPY) copies a message too, but the kernel looks for each from the first one on: n messages take n²/2
 * steps. Here each takes one or two runs of a BPF program.
 */
#ifndef CRIU_KERNEL_MESSAGE_QUEUE_H
#define CRIU_KERNEL_MESSAGE_QUEUE_H

#include <stddef.h>
#include <stdint.h>
#include "compiler.h"

struct queue_message {
	uint64_t type;
	uint32_t size;
	char *bytes; /* owned */
};

void queue_messages_free(struct queue_message *messages, size_t count);

struct message_queue_reader;

/*
 * 0 or -errno, recorded: it needs root's capabilities, and a kernel that it knows. It proves that it does with queues
 * of its own. They are in an ipc namespace that ends with this call, also if criu is killed in it. Takes 10 ms. Uses
 * run_in() (kernel/place.h).
 */
int message_queue_open(struct message_queue_reader **reader) must_check;
void message_queue_close(struct message_queue_reader *reader);
/*
 * All messages of a queue in the ipc namespace of this thread, in their order; *messages is allocated. 0 or -errno,
 * recorded, with none: -EAGAIN if somebody sends or receives meanwhile.
 */
int message_queue_read(const struct message_queue_reader *reader, int id, struct queue_message **messages,
		       size_t *count) must_check;

#endif
