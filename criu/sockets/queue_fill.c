/*
 * queue_fill.c - restore: sends the packets of a queue to its receiver. See queue.h.
 *
 * A packet carries what the kernel knows of its sender at that moment:
 * - Its name is that of the socket that sends: the peer, another socket of the tree, or a temporary one, which has no
 *   name or is bound to it (sender.h).
 * - Its credentials: criu may name any process that exists, and any user (CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID). For
 *   a process that does not exist, or not yet, a child of that pid sends the packet and ends (place.h); the kernel
 *   goes on to show its pid. Without credentials, nobody may have SO_PASSCRED: the kernel would add those of criu.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "sockets/queue.h"
#include "sockets/queue_packets.h"
#include "sockets/sender.h"

#define PIECE	    (256UL << 10) /* of a packet of a stream; the kernel's own packets are smaller */
#define MOST_RIGHTS 253

struct filling {
	const struct snapshot *snapshot;
	const struct socket_queue *queue;
	const struct socket_delivery *delivery;
	size_t next; /* the packet to send */
	char *buffer;
	size_t capacity;
	/* who sends it */
	int sender;
	bool is_connected; /* it needs no address */
	int temporary;	   /* a socket of criu's own with the name of the packet at `named`; -1: none */
	size_t named;
	int enlarged; /* a socket that has large buffers now; -1: none */
};

static const SkPacketEntry *packet_of(const struct filling *filling, size_t number)
{
	return filling->queue->items[number].entry;
}

static bool is_same_name(const SkPacketEntry *a, const SkPacketEntry *b)
{
	return a->has_name == b->has_name && a->name.len == b->name.len &&
	       (!a->name.len || !memcmp(a->name.data, b->name.data, a->name.len));
}

/* ---- who sends ---- */

/* An image of criu 4.2.1 names nobody: its packets come from the peer, if there is one. */
static bool is_from_peer(const struct filling *filling, const SkPacketEntry *entry)
{
	const struct socket_delivery *delivery = filling->delivery;
	struct sockaddr_storage name;
	socklen_t size = sizeof(name);
	const size_t family = sizeof(sa_family_t);

	if (delivery->peer < 0)
		return false;
	if (!delivery->address_size || filling->snapshot->is_of_another)
		return true;
	if (getsockname(delivery->peer, (struct sockaddr *)&name, &size) < 0)
		return false;
	size = size > family ? size - family : 0;
	return size == entry->name.len && (!size || !memcmp((char *)&name + family, entry->name.data, size));
}

static int find_in_tree(const struct socket_delivery *delivery, const SkPacketEntry *entry)
{
	if (!entry->has_name || !delivery->find_sender)
		return -1;
	return delivery->find_sender(delivery->context, entry->name.data, entry->name.len);
}

static int use_temporary(struct filling *filling, const SkPacketEntry *entry)
{
	const struct socket_delivery *delivery = filling->delivery;

	if (filling->temporary >= 0 && is_same_name(entry, packet_of(filling, filling->named)))
		return filling->temporary;
	if (filling->temporary >= 0)
		close(steal_fd(&filling->temporary));
	filling->temporary = temporary_sender(delivery->place, delivery->address.ss_family, entry->name.data,
					      entry->name.len);
	filling->named = filling->next;
	filling->enlarged = -1;
	return filling->temporary;
}

/* The kernel counts more than the bytes; the peer and its like get their own sizes later. */
static void enlarge(struct filling *filling)
{
	const int most = INT_MAX / 2;

	if (filling->enlarged == filling->sender)
		return;
	filling->enlarged = filling->sender;
	if (setsockopt(filling->sender, SOL_SOCKET, SO_SNDBUFFORCE, &most, sizeof(most)) < 0)
		ignore(setsockopt(filling->sender, SOL_SOCKET, SO_SNDBUF, &most, sizeof(most)));
}

static int choose_sender(struct filling *filling)
{
	const SkPacketEntry *entry = packet_of(filling, filling->next);

	/* The peer of a socket with an address need not be connected to it. */
	filling->is_connected = !filling->delivery->address_size;
	if (is_from_peer(filling, entry))
		filling->sender = filling->delivery->peer;
	else if (filling->delivery->address_size)
		filling->sender = find_in_tree(filling->delivery, entry);
	else
		return fail(EINVAL, "nobody can send a message to it");
	if (filling->sender < 0)
		filling->sender = use_temporary(filling, entry);
	if (filling->sender >= 0)
		enlarge(filling);
	return min(filling->sender, 0);
}

/* ---- what is sent ---- */

struct control {
	char bytes[CMSG_SPACE(MOST_RIGHTS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))]
		__attribute__((aligned(8)));
	size_t size;
};

static void *add_control(struct control *control, int type, size_t size)
{
	struct cmsghdr *header = (struct cmsghdr *)(control->bytes + control->size);

	*header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = type, .cmsg_len = CMSG_LEN(size) };
	control->size += CMSG_SPACE(size);
	return CMSG_DATA(header);
}

static void make_control(const struct snapshot *snapshot, const SkPacketEntry *entry, bool with_rights,
			 struct control *control)
{
	control->size = 0;
	if (entry->sender)
		*(struct ucred *)add_control(control, SCM_CREDENTIALS, sizeof(struct ucred)) = (struct ucred){
			.pid = entry->sender->pid, .uid = entry->sender->uid, .gid = entry->sender->gid
		};
	for (size_t i = 0; with_rights && i < entry->n_scm; i++) {
		const ScmEntry *rights = entry->scm[i];
		int *fds = rights->n_rights ?
				   add_control(control, SCM_RIGHTS, rights->n_rights * sizeof(int)) :
				   NULL;

		for (size_t j = 0; j < rights->n_rights; j++)
			fds[j] = snapshot_find_file(snapshot, rights->rights[j])->fd;
	}
}

/* Sends `size` bytes of the packet from `offset` on. Returns how many were sent; or -errno, which is not recorded. */
static ssize_t send_piece(struct filling *filling, uint32_t offset, size_t size)
{
	const struct socket_delivery *delivery = filling->delivery;
	struct iovec bytes = { filling->buffer, size };
	struct control control;
	struct msghdr message = { .msg_iov = &bytes, .msg_iovlen = 1 };
	ssize_t sent;

	make_control(filling->snapshot, packet_of(filling, filling->next), !offset, &control);
	message.msg_control = control.size ? control.bytes : NULL;
	message.msg_controllen = control.size;
	if (!filling->is_connected) {
		message.msg_name = (void *)&delivery->address;
		message.msg_namelen = delivery->address_size;
	}
	sent = sendmsg(filling->sender, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	return sent < 0 ? -errno : sent;
}

static int get_type(int fd)
{
	int type = 0;
	socklen_t size = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ? -errno : type;
}

static void reserve(struct filling *filling, size_t size)
{
	if (size <= filling->capacity)
		return;
	free(filling->buffer);
	filling->buffer = allocate(size);
	filling->capacity = size;
}

/* 0, or -errno: either recorded, or the result of the first sendmsg(), in *refused. */
static int send_packet(struct filling *filling, int *refused)
{
	const struct queued_packet *packet = &filling->queue->items[filling->next];
	size_t size = packet->entry->length;
	size_t piece = get_type(filling->sender) == SOCK_STREAM ? min(size, PIECE) : size;
	uint32_t offset = 0;

	reserve(filling, max(piece, (size_t)1));
	do {
		size_t wanted = min(size - offset, piece);
		int result = queued_packet_read(filling->snapshot, packet, offset, filling->buffer, wanted);
		ssize_t sent = result ? 0 : send_piece(filling, offset, wanted);

		if (result)
			return result;
		if (sent < 0) {
			*refused = -sent;
			return sent;
		}
		offset += sent;
	} while (offset < size);
	return 0;
}

static int explain(const struct filling *filling, int error)
{
	const SkPacketEntry *entry = packet_of(filling, filling->next);

	if (error == EAGAIN || error == EMSGSIZE || error == ENOBUFS)
		fail_advice(
			"run criu with CAP_NET_ADMIN, or raise net.unix.max_dgram_qlen and net.core.wmem_max");
	if (entry->sender && (error == EPERM || error == ESRCH))
		return fail(error, "cannot send a message in the name of process %u, user %u, group %u",
			    entry->sender->pid, entry->sender->uid, entry->sender->gid);
	return fail(error, "cannot send it a message of %u bytes", entry->length);
}

static bool is_same_sender(const SkPacketEntry *a, const SkPacketEntry *b)
{
	return a->sender && b->sender && a->sender->pid == b->sender->pid && is_same_name(a, b);
}

/* In a process with the pid of the sender: sends all packets that it has sent in a row. */
static int send_as_sender(void *argument)
{
	struct filling *filling = argument;
	const SkPacketEntry *first = packet_of(filling, filling->next);
	int result = 0;

	do {
		int refused = 0;

		result = send_packet(filling, &refused);
		if (refused)
			result = explain(filling, refused);
	} while (!result && ++filling->next < filling->queue->count &&
		 is_same_sender(first, packet_of(filling, filling->next)));
	return result;
}

static int send_next(struct filling *filling)
{
	const SkPacketEntry *entry = packet_of(filling, filling->next);
	struct place place = PLACE_HERE;
	int refused = 0, result = choose_sender(filling) ?: send_packet(filling, &refused);

	if (!refused) {
		filling->next++;
		return result;
	}
	if (!entry->sender || (refused != ESRCH && refused != EPERM))
		return explain(filling, refused);
	place.pid = entry->sender->pid;
	return run_in(&place, send_as_sender, filling);
}

int socket_queue_fill(struct snapshot *snapshot, struct socket_queue *queue,
		      const struct socket_delivery *delivery)
{
	struct filling filling = {
		.snapshot = snapshot,
		.queue = queue,
		.delivery = delivery,
		.sender = -1,
		.temporary = -1,
		.enlarged = -1,
	};
	int result = 0;

	while (!result && filling.next < queue->count)
		result = send_next(&filling);
	if (filling.temporary >= 0)
		close(filling.temporary);
	free(filling.buffer);
	return result ? fail_in(result, "file %u (%s): its queue", delivery->receiver->id,
				delivery->receiver->kind->name) :
			0;
}
