/*
 * queue.h - what a socket has received and nobody has read yet: sk-queues.img.
 *
 * A queue is a list of packets, each with its bytes, the name of its sender, the credentials that were sent with it,
 * and descriptors in flight. Packets of a stream are pieces between which a reader would notice a border.
 *
 * Dump. A kind notes each socket that can have a queue, and calls the others from its callbacks of the same names.
 * Several kinds may do so: what comes first does the work for all.
 *
 *	describe()   socket_queue_note()
 *	hold()       socket_queues_hold()
 *	judge()      socket_queues_judge()
 *	save()       socket_queues_save()
 *	let_go()     socket_queues_let_go()
 *
 * Restore.
 *
 *	load()       socket_queues_load()
 *	check()      socket_queue_check()
 *	join()       socket_queue_fill()      once for each socket with a queue, when it can be reached by its sender;
 *	                                      in join_late(), if socket_queue_has_late()
 *	close()      socket_queues_close()
 *	keeps()      socket_queues_keep()
 */
#ifndef CRIU_SOCKETS_QUEUE_H
#define CRIU_SOCKETS_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include "compiler.h"
#include "kernel/place.h"
#include "model/snapshot.h"

/* ---- dump ---- */

/*
 * Notes that the socket `file`, of which `fd` is borrowed, may have something in its queue. Not for a listening socket,
 * whose queue has connections. Changes nothing; refuses what cannot be saved. A socket that is noted after hold() was
 * itself in flight, and is peeked at once.
 */
int socket_queue_note(struct snapshot *snapshot, struct file *file, int fd, int type) must_check;
/*
 * Peeks the queues of all sockets that have been noted. Descriptors in flight become files of the snapshot, which the
 * core then describes. Each socket is as before when this returns. If criu is killed meanwhile, a process of its own
 * still completes that.
 */
int socket_queues_hold(struct snapshot *snapshot) must_check;
/* Has it been noted with something in its queue? */
bool socket_queue_is_noted(const struct snapshot *snapshot, const struct file *file);
/* Refuses descriptors in flight that could not be restored without a process that has them, too. */
int socket_queues_judge(struct snapshot *snapshot) must_check;
int socket_queues_save(struct snapshot *snapshot) must_check; /* no packets, no image */
void socket_queues_let_go(struct snapshot *snapshot);

/* A packet that waits for a connection that has no descriptor. */
struct queue_record {
	uint32_t id; /* of the queue */
	const char *bytes;
	size_t size;
	const struct ucred *sender; /* NULL: not known */
	struct file **files;	    /* in flight */
	size_t file_count;
};

/* Writes it after those with the same id. `receiver` is for messages. After hold() and before socket_queues_judge(). */
int socket_queue_write(struct snapshot *snapshot, const struct file *receiver,
		       const struct queue_record *record) must_check;

/*
 * Would the next call on the socket report an error (ECONNRESET)? To ask for the error, or to read, would clear it.
 */
bool socket_has_error(int fd);
/* Memory that packets of this sender occupy in the queues of others. 0: everything that it sent has been read. */
int socket_unread_by_others(int fd);

/* ---- restore ---- */

/* Before the image is read: a queue with this id is that of a connection which waits for a listener. */
int socket_queue_expect(struct snapshot *snapshot, uint32_t id, const struct file *listener) must_check;
/* Reads sk-queues.img, if it exists, and checks it. */
int socket_queues_load(struct snapshot *snapshot) must_check;

struct socket_queue;
/* NULL: nothing was in the queue of this socket. */
struct socket_queue *socket_queue_find(const struct snapshot *snapshot, uint32_t id);
/* Has a message a file that is opened when the processes exist (file_kind.open_late)? */
bool socket_queue_has_late(const struct snapshot *snapshot, const struct socket_queue *queue);
/* Are these possible packets for a socket of this type (SOCK_STREAM, …)? To be called for each queue. */
int socket_queue_check(struct snapshot *snapshot, uint32_t id, int type) must_check;

/* How packets get to a receiver, which has been given its options (socket_options_set()), but not the last ones. */
struct socket_delivery {
	const struct file *receiver; /* for messages */
	/*
	 * A descriptor of the peer, which is connected to the receiver, unless that has an address. A stream or
	 * seqpacket socket needs one: if the peer was closed, a temporary one that is closed afterwards. -1: none.
	 */
	int peer;
	/* The address of a datagram receiver, for all senders but the peer. Size 0: it has none. */
	struct sockaddr_storage address;
	socklen_t address_size;
	/*
	 * A datagram socket of the tree with this name (the bytes of a socket address behind its family): packets that
	 * came from it are sent by it, so that it has less space for more, as before. -1: there is none; then a
	 * temporary socket sends in its name. NULL: there is never one.
	 */
	int (*find_sender)(void *context, const void *name, size_t size);
	void *context;
	/* Where temporary senders are created (PLACE_HERE with a network or mount namespace); NULL: criu's own. */
	const struct place *place;
};

/*
 * Sends all packets. Files in flight must be open. Nothing may have been sent to the receiver before, neither end is
 * shut down yet, and the senders have not got their last options (their buffers may be small).
 */
int socket_queue_fill(struct snapshot *snapshot, struct socket_queue *queue,
		      const struct socket_delivery *delivery) must_check;
void socket_queues_close(struct snapshot *snapshot);
size_t socket_queues_keep(const struct snapshot *snapshot);

#endif
