/*
 * queue_peek.c - see queue_peek.h.
 *
 * MSG_PEEK alone shows the first packet. With SO_PEEK_OFF it begins so many bytes further on, and every peek moves on.
 * What the kernel does (Linux 3.4 to 6.18):
 * - Credentials are shown to a receiver that has SO_PASSCRED, and descriptors to one that has SO_PASSRIGHTS (6.16;
 *   there without the option, as if it were set). Neither need be set when the packet is sent. A packet without
 *   credentials shows process 0 and the user that stands for unknown ones.
 * - A read of a stream goes on from one packet to the next, until the credentials differ, or it has reached the end of
 *   the first packet with descriptors. A reader gets these with the first byte of that packet, so it matters where
 *   this packet begins: find_border(). (A peek of fewer bytes does not tell: it goes on with 0 bytes, and shows
 *   descriptors of later packets.)
 * - A datagram of 0 bytes is shown at its offset once: the kernel marks it as peeked, and passes over it from then on.
 *   The first packet of a queue is always shown if SO_PEEK_OFF is off. So an empty datagram behind others is not found
 *   if somebody has peeked at it before, at an offset.
 * - Before it looks for a packet, the kernel returns (and clears) an error of the socket; for a stream, after it found
 *   none. So a stream is peeked only as far as it has bytes, and other sockets must have no error.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel_constants.h"
#include "sockets/queue_peek.h"

#define WINDOW (256UL << 10) /* for one peek; a packet of a stream is smaller, a datagram may be larger */

/* With these, a peek shows everything. SO_PASSPIDFD would create descriptors. */
static const struct {
	int option, during;
} options[] = {
	{ SO_PASSCRED, 1 },
	{ SO_PASSRIGHTS, 1 },
	{ SO_PASSPIDFD, 0 },
	{ SO_PEEK_OFF, -1 },
};

struct reader {
	int fd;
	bool is_stream;
	struct peeked_queue *queue;
	struct peek_space *space; /* its bytes are those of the queue, until all are there */
	size_t position;	  /* behind the packets that have been read */
	size_t total;		  /* of a stream */
	size_t window;
	int before[array_size(options)];
	bool is_changed[array_size(options)];
};

/* What one peek shows. */
struct sight {
	struct msghdr message;
	struct iovec bytes[2];
	struct sockaddr_storage name;
	char control[4096] __attribute__((aligned(8))); /* 253 descriptors, credentials, times */
};

static int get_int(int fd, int option, int *value)
{
	socklen_t size = sizeof(*value);

	return getsockopt(fd, SOL_SOCKET, option, value, &size);
}

static int set_int(int fd, int option, int value)
{
	return setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value));
}

/* A kernel or family that lacks an option needs no change of it. */
static int change_options(struct reader *reader)
{
	for (size_t i = 0; i < array_size(options); i++) {
		if (get_int(reader->fd, options[i].option, &reader->before[i]) < 0)
			continue;
		reader->is_changed[i] = true;
		if (reader->before[i] != options[i].during &&
		    set_int(reader->fd, options[i].option, options[i].during) < 0)
			return fail(errno, "cannot prepare to look into the queue of a socket");
	}
	return 0;
}

static int change_options_back(const struct reader *reader)
{
	int result = 0;

	for (size_t i = array_size(options); i-- > 0;) {
		int now = options[i].during;

		if (!reader->is_changed[i])
			continue;
		if (options[i].option == SO_PEEK_OFF)
			ignore(get_int(reader->fd, SO_PEEK_OFF, &now));
		if (now != reader->before[i] && set_int(reader->fd, options[i].option, reader->before[i]) < 0)
			result = fail(errno, "cannot set an option of a socket as it was");
	}
	return result;
}

/* Bytes behind those of the queue. */
static void reserve(struct reader *reader, size_t size)
{
	struct peek_space *space = reader->space;
	size_t used = reader->queue->size;

	if (space->capacity - used >= size)
		return;
	space->capacity = max(used + size, 2 * space->capacity);
	space->bytes = reallocate_array(space->bytes, space->capacity, 1);
}

/* The length of the packet, even if it is longer than the window; or -errno. */
static ssize_t peek(const struct reader *reader, struct sight *sight, size_t window, size_t parts)
{
	struct peeked_queue *queue = reader->queue;
	bool is_first = !reader->is_stream && !queue->count;
	ssize_t length;

	if (set_int(reader->fd, SO_PEEK_OFF, is_first ? -1 : (int)reader->position) < 0)
		return fail(errno, "cannot set SO_PEEK_OFF of a socket");
	sight->bytes[0] = (struct iovec){ reader->space->bytes + queue->size, window };
	sight->message = (struct msghdr){
		.msg_name = &sight->name,
		.msg_namelen = sizeof(sight->name),
		.msg_iov = sight->bytes,
		.msg_iovlen = parts,
		.msg_control = sight->control,
		.msg_controllen = sizeof(sight->control),
	};
	length = recvmsg(reader->fd, &sight->message,
			 MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC | (reader->is_stream ? 0 : MSG_TRUNC));
	return length < 0 ? -errno : length;
}

static bool is_unknown_id(char **unknown, const char *path, uint32_t id)
{
	return (*unknown || read_text_at(-1, path, unknown) > 0) && strtoul(*unknown, NULL, 10) == id;
}

static const char *note_sender(struct peeked_packet *packet, const struct ucred *sender,
			       struct peek_space *space)
{
	packet->sender = *sender;
	packet->has_sender =
		sender->pid ||
		!is_unknown_id(&space->unknown_user, "/proc/sys/kernel/overflowuid", sender->uid) ||
		!is_unknown_id(&space->unknown_group, "/proc/sys/kernel/overflowgid", sender->gid);
	return packet->has_sender && !sender->pid ?
		       "was sent from outside of criu's pid namespace, so that criu cannot name the sender" :
		       NULL;
}

static void note_control(const struct reader *reader, struct peeked_packet *packet,
			 const struct cmsghdr *control)
{
	struct peeked_queue *queue = reader->queue;
	size_t size = control->cmsg_len - CMSG_LEN(0);
	const void *data = CMSG_DATA(control);
	struct ucred sender;

	if (control->cmsg_level != SOL_SOCKET)
		return;
	switch (control->cmsg_type) {
	case SCM_RIGHTS:
		packet->fd_count = size / sizeof(int);
		packet->fds = copy_bytes(data, size);
		break;
	case SCM_CREDENTIALS:
		memcpy(&sender, data, sizeof(sender));
		queue->obstacle = note_sender(packet, &sender, reader->space) ?: queue->obstacle;
		break;
	case SCM_SECURITY:
		queue->obstacle = "has a security label (SO_PASSSEC)";
		break;
	case SCM_INQ:
		queue->obstacle =
			"is for a socket with SO_INQ, which the kernel does not tell for an empty one";
		break;
	default: /* times of arrival, which are another time after the restore */
		break;
	}
}

static void close_fds(struct peeked_packet *packet)
{
	for (size_t i = 0; i < packet->fd_count; i++)
		if (packet->fds[i] >= 0)
			close(packet->fds[i]);
	free(packet->fds);
	packet->fds = NULL;
	packet->fd_count = 0;
}

static struct peeked_packet understand(const struct reader *reader, struct sight *sight)
{
	struct peeked_packet packet = { 0 };
	const size_t family = offsetof(struct sockaddr_storage, ss_family) + sizeof(sa_family_t);

	for (struct cmsghdr *control = CMSG_FIRSTHDR(&sight->message); control;
	     control = CMSG_NXTHDR(&sight->message, control))
		note_control(reader, &packet, control);
	if (sight->message.msg_namelen > family) {
		packet.name_size = sight->message.msg_namelen - family;
		memcpy(packet.name, (const char *)&sight->name + family, packet.name_size);
	}
	return packet;
}

/*
 * Where in these bytes of a stream the packet with descriptors begins, which is the last one. There is no room for
 * their last byte: the kernel copies that packet not at all, and returns what is before it.
 */
static ssize_t find_border(const struct reader *reader, size_t size)
{
	struct sight sight;
	ssize_t length;

	sight.bytes[1] = (struct iovec){ NULL, 1 };
	length = peek(reader, &sight, size - 1, 2);
	if (length == -EFAULT)
		return 0; /* it is the only packet */
	return length < 0 ? fail(-length, "cannot look into the queue of a stream") : length;
}

static void add_packet(struct reader *reader, const struct peeked_packet *packet, size_t size)
{
	struct peeked_queue *queue = reader->queue;
	struct peeked_packet *added = grow(&queue->items, &queue->count);

	*added = *packet;
	added->offset = queue->size;
	added->size = size;
	queue->size += size;
	reader->position += size;
}

/* Those bytes of a stream that come before the packet with descriptors are a packet of their own. */
static int add_packets(struct reader *reader, struct peeked_packet *packet, size_t size)
{
	struct peeked_packet before = *packet;
	ssize_t border = 0;

	if (reader->is_stream && packet->fd_count && size > 1)
		border = find_border(reader, size);
	if (border < 0) {
		close_fds(packet);
		return border;
	}
	before.fds = NULL;
	before.fd_count = 0;
	if (border)
		add_packet(reader, &before, border);
	add_packet(reader, packet, size - border);
	return 0;
}

/* In a stream, the packet with descriptors must end before the window does: otherwise its rest shows them again. */
static bool needs_larger_window(const struct reader *reader, const struct peeked_packet *packet,
				size_t length)
{
	return reader->is_stream ? packet->fd_count && length == reader->window : length > reader->window;
}

/* 1: there may be more; 0: the end. */
static int read_packet(struct reader *reader)
{
	struct peeked_packet packet;
	struct sight sight;
	ssize_t length;

	if (reader->is_stream && reader->position >= reader->total)
		return 0;
	reserve(reader, reader->window);
	length = peek(reader, &sight, reader->window, 1);
	if (length == -EAGAIN || (!length && !sight.message.msg_controllen))
		return 0; /* the latter: nothing more will come */
	if (length < 0)
		return fail(-length, "cannot look into the queue of a socket");
	packet = understand(reader, &sight);
	if (sight.message.msg_flags & MSG_CTRUNC) {
		close_fds(&packet);
		return fail(EMFILE, "criu cannot get descriptors that are in flight");
	}
	if (needs_larger_window(reader, &packet, length)) {
		close_fds(&packet);
		reader->window = max(2 * reader->window, (size_t)length);
		return 1;
	}
	return add_packets(reader, &packet, length) ?: 1;
}

static int begin(struct reader *reader)
{
	int type, bytes = 0;

	if (get_int(reader->fd, SO_TYPE, &type) < 0)
		return fail(errno, "cannot read the type of a socket");
	reader->is_stream = type == SOCK_STREAM;
	if (reader->is_stream && ioctl(reader->fd, SIOCINQ, &bytes) < 0)
		return fail(errno, "cannot read the number of bytes in a socket");
	reader->total = bytes;
	return 0;
}

int queue_peek(int fd, struct peek_space *space, struct peeked_queue *queue)
{
	struct reader reader = { .fd = fd, .queue = queue, .space = space, .window = WINDOW };
	int result = begin(&reader), back;

	if (result)
		return result;
	result = change_options(&reader);
	while (!result && (result = read_packet(&reader)) > 0)
		result = 0;
	back = change_options_back(&reader);
	queue->bytes = copy_bytes(space->bytes, queue->size);
	return result ?: back;
}

void peek_space_free(struct peek_space *space)
{
	free(space->bytes);
	free(space->unknown_user);
	free(space->unknown_group);
	*space = (struct peek_space){ 0 };
}

void peeked_free(struct peeked_queue *queue)
{
	for (size_t i = 0; i < queue->count; i++)
		close_fds(&queue->items[i]);
	free(queue->items);
	free(queue->bytes);
	*queue = (struct peeked_queue){ 0 };
}
