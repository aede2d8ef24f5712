/*
 * queue_peek.h - dump: reads what is in the queue of a socket without taking it out.
 */
#ifndef CRIU_SOCKETS_QUEUE_PEEK_H
#define CRIU_SOCKETS_QUEUE_PEEK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include "compiler.h"

struct peeked_packet {
	size_t offset, size; /* of its bytes in peeked_queue.bytes */
	unsigned char
		name[sizeof(struct sockaddr_storage)]; /* of the sender, behind the family of the address */
	size_t name_size;
	bool has_sender; /* it was sent with credentials */
	struct ucred sender;
	int *fds; /* descriptors in flight; criu has received copies */
	size_t fd_count;
};

struct peeked_queue {
	struct peeked_packet *items;
	size_t count;
	char *bytes;
	size_t size;
	const char *obstacle; /* why it cannot be saved; NULL: it can */
};

/* What one queue after another needs. Zeroed at first, and freed by peek_space_free(). */
struct peek_space {
	char *bytes;
	size_t capacity;
	/* the ids that stand for unknown ones; NULL: not read yet */
	char *unknown_user, *unknown_group;
};

/*
 * Peeks all packets. For that, options of the socket are changed (SO_PEEK_OFF, SO_PASSCRED, …) and changed back,
 * whatever happens. The caller sees to it that the process is not killed meanwhile, and that there is something in the
 * queue. Packets of a stream are pieces between which a reader would notice a border. peeked_free() frees everything,
 * also after a failure.
 */
int queue_peek(int fd, struct peek_space *space, struct peeked_queue *queue) must_check;
void peek_space_free(struct peek_space *space);
void peeked_free(struct peeked_queue *queue); /* closes descriptors that were not taken out of it */

#endif
