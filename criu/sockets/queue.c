/*
 * queue.c - dump: saves what is in the queues of sockets. See queue.h.
 *
 * The options of a socket are changed while its queue is peeked (queue_peek.h). A process of criu's own does that,
 * which is not killed with criu, so that each socket gets its options back. If criu is killed, its processes run on at
 * the same moment, and there is a chance of some microseconds that one of them finds SO_PEEK_OFF or SO_PASSCRED of one
 * socket changed.
 *
 * What is peeked is written to the image at once: no more is in memory than one batch, or one queue that is larger.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "base/index.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"
#include "kernel/place.h"
#include "kernel_constants.h"
#include "model/pids.h"
#include "sk-packet.pb-c.h"
#include "sockets/queue.h"
#include "sockets/queue_peek.h"

#define BATCH	    64		/* sockets; criu has a descriptor of each */
#define BATCH_BYTES (4UL << 20) /* when so much is peeked, the batch ends */

/* A descriptor that a message of the receiver has in flight. */
struct flight {
	struct file *file;
	const struct file *receiver;
};

struct queues {
	struct file **noted; /* sockets that have something in their queues */
	size_t noted_count;
	struct index by_file; /* those that are noted */
	size_t peeked;	      /* the first ones */
	bool is_held;	      /* what is noted from now on is peeked at once */
	struct flight *flights;
	size_t flight_count;
	size_t judged;
	struct image *image; /* NULL: nothing has been written yet */
	struct peek_space space;
};

static void clear(void *state)
{
	struct queues *queues = state;

	free(queues->noted);
	index_free(&queues->by_file);
	free(queues->flights);
	peek_space_free(&queues->space);
	image_abandon(queues->image, ECANCELED);
	ignore(image_close(queues->image));
	*queues = (struct queues){ 0 };
}

static const struct state_type queues_type = { sizeof(struct queues), clear };

static struct queues *queues_of(const struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &queues_type);
}

static int get_int(int fd, int option)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? 0 : value;
}

static short events_of(int fd)
{
	struct pollfd poll_fd = { fd, POLLIN | POLLPRI, 0 };

	return poll(&poll_fd, 1, 0) > 0 ? poll_fd.revents : 0;
}

bool socket_has_error(int fd)
{
	return events_of(fd) & POLLERR;
}

int socket_unread_by_others(int fd)
{
	int bytes = 0;

	return ioctl(fd, SIOCOUTQ, &bytes) < 0 ? fail(errno, "cannot read how much a socket has sent") :
						 bytes;
}

/* ---- which sockets have something ---- */

static int refuse_socket(const struct seen_file *seen, const char *what)
{
	return refuse("process %d (%s): descriptor %d (%s) is a socket %s", seen->holder.here,
		      seen->holder.name, seen->fd, seen->link, what);
}

/* POLLIN may also mean that nothing more will come. */
static bool has_packets(int fd, int type, short events)
{
	int bytes = 0;

	return events & POLLIN && (type != SOCK_STREAM || (ioctl(fd, SIOCINQ, &bytes) == 0 && bytes));
}

/* queue_peek.c says when a peek would clear an error. */
static bool would_clear_error(int fd, int type, short events)
{
	return events & POLLERR && (type != SOCK_STREAM || get_int(fd, SO_RCVLOWAT) > 1);
}

static int peek_noted(struct snapshot *snapshot);

int socket_queue_note(struct snapshot *snapshot, struct file *file, int fd, int type)
{
	struct queues *queues = queues_of(snapshot);
	short events = events_of(fd);

	if (type == SOCK_STREAM && events & POLLPRI)
		return refuse_socket(file->seen, "with urgent data (MSG_OOB), which must be read first");
	if (!has_packets(fd, type, events))
		return 0;
	if (would_clear_error(fd, type, events))
		return refuse_socket(file->seen,
				     "with both an error (its peer has closed it) and unread messages, "
				     "which must be read first");
	*grow(&queues->noted, &queues->noted_count) = file;
	index_set(&queues->by_file, (uintptr_t)file, file);
	return queues->is_held ? peek_noted(snapshot) : 0;
}

bool socket_queue_is_noted(const struct snapshot *snapshot, const struct file *file)
{
	return index_find(&queues_of(snapshot)->by_file, (uintptr_t)file);
}

/* ---- the packets ---- */

struct batch {
	struct source {
		struct file *file;
		int fd;
		struct peeked_queue queue;
	} * items;
	size_t count;
	size_t peeked; /* the first ones */
	struct peek_space *space;
};

static int peek_batch(void *argument)
{
	struct batch *batch = argument;
	size_t bytes = 0;
	int result = 0;

	while (!result && batch->peeked < batch->count && bytes < BATCH_BYTES) {
		struct source *source = &batch->items[batch->peeked++];
		const struct seen_file *seen = source->file->seen;

		result = queue_peek(source->fd, batch->space, &source->queue);
		if (result)
			fail_in(result, "process %d (%s): descriptor %d", seen->holder.here,
				seen->holder.name, seen->fd);
		bytes += source->queue.size;
	}
	return result;
}

/* The descriptors of the packet become files. */
static int identify_flights(struct snapshot *snapshot, struct peeked_packet *packet, struct file **files)
{
	int result = 0;

	for (size_t i = 0; !result && i < packet->fd_count; i++)
		result = files_identify(snapshot, steal_fd(&packet->fds[i]), &files[i]);
	return result;
}

static void describe_flights(struct snapshot *snapshot, const struct file *receiver,
			     const struct queue_record *record, SkPacketEntry *entry)
{
	struct queues *queues = queues_of(snapshot);
	ScmEntry *rights;

	if (!record->file_count)
		return;
	rights = message_new(ScmEntry, scm_entry);
	*grow(&entry->scm, &entry->n_scm) = rights;
	rights->type = SCM_RIGHTS;
	message_array(rights, rights, record->file_count);
	for (size_t i = 0; i < record->file_count; i++) {
		struct file *file = record->files[i];

		rights->rights[i] = file->id;
		file->is_in_flight = true;
		*grow(&queues->flights, &queues->flight_count) = (struct flight){ file, receiver };
	}
}

static void describe_sender(const struct snapshot *snapshot, const struct ucred *sender, SkPacketEntry *entry)
{
	if (!sender)
		return;
	entry->sender = message_new(SkSenderEntry, sk_sender_entry);
	entry->sender->pid = snapshot_name_of(snapshot, sender->pid) ?: sender->pid;
	entry->sender->uid = sender->uid;
	entry->sender->gid = sender->gid;
}

/* Takes over the entry. */
static int write_entry(struct snapshot *snapshot, const struct file *receiver,
		       const struct queue_record *record, SkPacketEntry *entry)
{
	struct queues *queues = queues_of(snapshot);
	int result = 0;

	entry->id_for = record->id;
	entry->length = record->size;
	describe_sender(snapshot, record->sender, entry);
	describe_flights(snapshot, receiver, record, entry);
	if (!queues->image)
		result = image_create(snapshot->images, &queues->image, IMAGE_SK_QUEUES, 0);
	result = result						  ?:
			 image_write(queues->image, &entry->base) ?:
			 image_write_bytes(queues->image, record->bytes, record->size);
	image_free(entry);
	return result;
}

int socket_queue_write(struct snapshot *snapshot, const struct file *receiver,
		       const struct queue_record *record)
{
	return write_entry(snapshot, receiver, record, message_new(SkPacketEntry, sk_packet_entry));
}

static int write_packet(struct snapshot *snapshot, const struct source *source, struct peeked_packet *packet)
{
	autofree struct file **files = allocate_array(packet->fd_count + 1, sizeof(*files));
	const struct queue_record record = {
		.id = source->file->id,
		.bytes = source->queue.bytes + packet->offset,
		.size = packet->size,
		.sender = packet->has_sender ? &packet->sender : NULL,
		.files = files,
		.file_count = packet->fd_count,
	};
	SkPacketEntry *entry;
	int result = identify_flights(snapshot, packet, files);

	if (result)
		return result;
	entry = message_new(SkPacketEntry, sk_packet_entry);
	/* Others have one sender, whose name is that of the peer. */
	if (packet->name_size && get_int(source->fd, SO_TYPE) == SOCK_DGRAM) {
		entry->has_name = true;
		entry->name.len = packet->name_size;
		entry->name.data = copy_bytes(packet->name, packet->name_size);
	}
	return write_entry(snapshot, source->file, &record, entry);
}

/* A pidfd of the sender would be one of the process that sends it again. */
static bool wants_pidfds(const struct source *source)
{
	bool is_sent_by_somebody = false;

	for (size_t i = 0; i < source->queue.count; i++)
		is_sent_by_somebody |= source->queue.items[i].has_sender;
	return is_sent_by_somebody && get_int(source->fd, SO_PASSPIDFD);
}

/*
 * A datagram socket receives only from its peer, since it has one. What others have sent before cannot be sent again
 * when it is connected.
 */
static bool has_stranger(const struct source *source)
{
	const size_t family = sizeof(sa_family_t);
	struct sockaddr_storage peer;
	socklen_t size = sizeof(peer);
	bool has_one = false;

	if (get_int(source->fd, SO_TYPE) != SOCK_DGRAM ||
	    getpeername(source->fd, (struct sockaddr *)&peer, &size) < 0)
		return false;
	size = size > family ? size - family : 0;
	for (size_t i = 0; i < source->queue.count; i++) {
		const struct peeked_packet *packet = &source->queue.items[i];

		has_one |= packet->name_size != size || memcmp(packet->name, (char *)&peer + family, size);
	}
	return has_one;
}

/*
 * The kernel counts the descriptors in a queue (Linux 5.7). One that was not seen belongs to an empty datagram that
 * somebody has peeked at before: queue_peek.c.
 */
static bool has_hidden_descriptors(const struct source *source)
{
	const char *counted = fdinfo_find(source->file->seen, "scm_fds");
	size_t count = 0;

	for (size_t i = 0; i < source->queue.count; i++)
		count += source->queue.items[i].fd_count;
	return counted && strtoul(counted, NULL, 10) > count;
}

/* Whoever dumps it again before it is read should know what will be missing. */
static void warn_of_empty(const struct snapshot *snapshot, const struct source *source)
{
	const struct seen_file *seen = source->file->seen;
	bool has_empty = false;

	for (size_t i = 1; i < source->queue.count; i++)
		has_empty |= !source->queue.items[i].size;
	if (has_empty && (snapshot->policy.leave_running || snapshot->policy.leave_stopped))
		log_warning(
			"process %d (%s): descriptor %d (%s) has an unread message of 0 bytes behind others: the "
			"kernel will not show it to another dump, unless it is the first then",
			seen->holder.here, seen->holder.name, seen->fd, seen->link);
}

static int write_queue(struct snapshot *snapshot, struct source *source)
{
	int result = 0;

	if (wants_pidfds(source))
		source->queue.obstacle = "is for a socket with SO_PASSPIDFD";
	if (has_stranger(source))
		source->queue.obstacle = "came from another socket before this one was connected";
	if (has_hidden_descriptors(source))
		source->queue.obstacle = "has descriptors, and 0 bytes that were seen by an earlier dump";
	if (source->queue.obstacle) {
		autofree char *what = format_text("with a message that %s: it must be read first",
						  source->queue.obstacle);

		return unless_refused(refuse_socket(source->file->seen, what));
	}
	warn_of_empty(snapshot, source);
	for (size_t i = 0; !result && i < source->queue.count; i++)
		result = write_packet(snapshot, source, &source->queue.items[i]);
	return result;
}

static int borrow_batch(struct queues *queues, struct batch *batch)
{
	size_t left = queues->noted_count - queues->peeked;

	batch->items = allocate_array(min(left, (size_t)BATCH), sizeof(*batch->items));
	while (batch->count < min(left, (size_t)BATCH)) {
		struct source *source = &batch->items[batch->count];

		source->file = queues->noted[queues->peeked + batch->count];
		source->fd = files_borrow(source->file->seen);
		if (source->fd < 0)
			return source->fd;
		batch->count++;
	}
	return 0;
}

static void free_batch(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; i++) {
		close(batch->items[i].fd);
		peeked_free(&batch->items[i].queue);
	}
	free(batch->items);
}

static int peek_some(struct snapshot *snapshot)
{
	struct queues *queues = queues_of(snapshot);
	struct place place = PLACE_HERE;
	struct batch batch = { .space = &queues->space };
	int result = borrow_batch(queues, &batch);

	place.outlives_criu = true;
	result = result ?: run_in(&place, peek_batch, &batch);
	for (size_t i = 0; !result && i < batch.peeked; i++)
		result = write_queue(snapshot, &batch.items[i]);
	queues->peeked += batch.peeked;
	free_batch(&batch);
	return result;
}

static int peek_noted(struct snapshot *snapshot)
{
	struct queues *queues = queues_of(snapshot);
	int result = 0;

	while (!result && queues->peeked < queues->noted_count)
		result = peek_some(snapshot);
	return result;
}

int socket_queues_hold(struct snapshot *snapshot)
{
	queues_of(snapshot)->is_held = true;
	return peek_noted(snapshot);
}

/* ---- descriptors in flight ---- */

/* What a process would do for its own descriptors during a restore is not done for one in flight. */
static const char *why_not_sent(const struct snapshot *snapshot, const struct file *file)
{
	const struct seen_file *seen = file->seen;

	if (!file->kind)
		return "which is not supported";
	if (file_lateness(snapshot, file) == FILE_NEEDS_THREAD)
		return "which exists only when its thread does, while messages are sent before";
	if (file->holder)
		return NULL;
	if (file->kind->settle)
		return "which a process must have open, too";
	if (fdinfo_find(seen, "lock"))
		return "which has a lock or a lease, and which no process has open";
	if (seen->owner.pid || seen->signal)
		return "which has an owner or a signal (F_SETOWN, F_SETSIG), and which no process has open";
	return NULL;
}

int socket_queues_judge(struct snapshot *snapshot)
{
	struct queues *queues = queues_of(snapshot);
	int result = 0;

	for (; !result && queues->judged < queues->flight_count; queues->judged++) {
		const struct flight *flight = &queues->flights[queues->judged];
		const struct seen_file *receiver = flight->receiver->seen;
		const char *why = why_not_sent(snapshot, flight->file);

		if (why)
			result = unless_refused(refuse(
				"process %d (%s): descriptor %d (%s) is a socket with an unread message that "
				"has a descriptor of %s, %s",
				receiver->holder.here, receiver->holder.name, receiver->fd, receiver->link,
				flight->file->seen->link, why));
	}
	return result;
}

int socket_queues_save(struct snapshot *snapshot)
{
	return image_close(steal_pointer(&queues_of(snapshot)->image));
}

void socket_queues_let_go(struct snapshot *snapshot)
{
	clear(queues_of(snapshot));
}
