/*
 * queue_load.c - restore: reads and checks sk-queues.img. See queue.h.
 *
 * The bytes stay in the image until they are sent: queues may be large, and every process of the tree is born with a
 * copy of criu's memory.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "base/error.h"
#include "base/index.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"
#include "sockets/queue.h"
#include "sockets/queue_packets.h"

#define MOST_RIGHTS  253	 /* SCM_MAX_FD: the kernel's limit for a message */
#define LARGEST	     (1UL << 30) /* the kernel limits buffers to 2 GiB, and counts more than the bytes */
#define LONGEST_NAME (sizeof(struct sockaddr_storage) - sizeof(sa_family_t))

struct loaded {
	struct image *image; /* NULL: there is none */
	struct socket_queue **queues;
	size_t count;
	struct index by_id;
	struct index expected; /* files, by the ids of queues for which they listen */
};

static void clear(void *state)
{
	struct loaded *loaded = state;

	image_close_read(loaded->image);
	for (size_t i = 0; i < loaded->count; i++) {
		struct socket_queue *queue = loaded->queues[i];

		for (size_t j = 0; j < queue->count; j++)
			image_free(queue->items[j].entry);
		free(queue->items);
		free(queue);
	}
	free(loaded->queues);
	index_free(&loaded->by_id);
	index_free(&loaded->expected);
	*loaded = (struct loaded){ 0 };
}

static const struct state_type loaded_type = { sizeof(struct loaded), clear };

static struct loaded *loaded_of(const struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &loaded_type);
}

struct socket_queue *socket_queue_find(const struct snapshot *snapshot, uint32_t id)
{
	return index_find(&loaded_of(snapshot)->by_id, id);
}

int socket_queue_expect(struct snapshot *snapshot, uint32_t id, const struct file *listener)
{
	struct index *expected = &loaded_of(snapshot)->expected;

	if (snapshot_find_file(snapshot, id) || index_find(expected, id))
		return fail(EINVAL,
			    "files.img: file %u has a connection that waits, with a queue of another socket",
			    listener->id);
	index_set(expected, id, (void *)listener);
	return 0;
}

int queued_packet_read(const struct snapshot *snapshot, const struct queued_packet *packet, uint32_t offset,
		       void *buffer, size_t size)
{
	const struct image *image = loaded_of(snapshot)->image;
	int result = read_all_at(image_fd(image), buffer, size, packet->at + offset);

	return result ? fail(-result, "cannot read %s", image_name(image)) : 0;
}

static struct socket_queue *queue_of(struct loaded *loaded, uint32_t id, const struct file *file)
{
	struct socket_queue *queue = index_find(&loaded->by_id, id);

	if (queue)
		return queue;
	queue = allocate(sizeof(*queue));
	queue->file = file;
	*grow(&loaded->queues, &loaded->count) = queue;
	index_set(&loaded->by_id, id, queue);
	return queue;
}

static bool is_socket(const struct file *file)
{
	FdTypes type = file->entry->type;

	return type == FD_TYPES__UNIXSK || type == FD_TYPES__INETSK || type == FD_TYPES__PACKETSK ||
	       type == FD_TYPES__NETLINKSK;
}

bool socket_queue_has_late(const struct snapshot *snapshot, const struct socket_queue *queue)
{
	for (size_t i = 0; i < queue->count; i++) {
		const SkPacketEntry *entry = queue->items[i].entry;

		for (size_t j = 0; j < entry->n_scm; j++)
			for (size_t k = 0; k < entry->scm[j]->n_rights; k++)
				if (file_lateness(snapshot,
						  snapshot_find_file(snapshot, entry->scm[j]->rights[k])))
					return true;
	}
	return false;
}

/* Is it a file that is open when messages are sent, and that can be without a process? (queue.c: why_not_sent()) */
static bool can_be_in_flight(const struct snapshot *snapshot, const struct file *file)
{
	return file && file->kind && !file->is_only_path &&
	       file_lateness(snapshot, file) != FILE_NEEDS_THREAD && (file->holder || !file->kind->settle);
}

static int check_rights(struct snapshot *snapshot, const SkPacketEntry *entry)
{
	size_t count = 0;

	/* The kernel makes one of several. make_control() has room for one. */
	if (entry->n_scm > 1)
		return fail(EINVAL, "sk-queues.img: a message for file %u has %zu control messages",
			    entry->id_for, entry->n_scm);
	for (size_t i = 0; i < entry->n_scm; i++) {
		if (entry->scm[i]->type != SCM_RIGHTS)
			return fail(
				EINVAL,
				"sk-queues.img: file %u has a control message that is not supported (type %u)",
				entry->id_for, entry->scm[i]->type);
		count += entry->scm[i]->n_rights;
		for (size_t j = 0; j < entry->scm[i]->n_rights; j++) {
			struct file *file = snapshot_find_file(snapshot, entry->scm[i]->rights[j]);

			if (!can_be_in_flight(snapshot, file))
				return fail(
					EINVAL,
					"sk-queues.img: a message for file %u has a descriptor of file %u, which is "
					"missing in files.img or cannot be sent",
					entry->id_for, entry->scm[i]->rights[j]);
			file->is_in_flight = true;
		}
	}
	return count > MOST_RIGHTS ? fail(EINVAL, "sk-queues.img: a message for file %u has %zu descriptors",
					  entry->id_for, count) :
				     0;
}

static int check_sender(const SkPacketEntry *entry)
{
	const SkSenderEntry *sender = entry->sender;

	if (entry->has_name && (!entry->name.len || entry->name.len > LONGEST_NAME))
		return fail(EINVAL, "sk-queues.img: a message for file %u has an invalid name of its sender",
			    entry->id_for);
	if (sender &&
	    (!sender->pid || sender->pid > INT_MAX || sender->uid == UINT32_MAX || sender->gid == UINT32_MAX))
		return fail(EINVAL, "sk-queues.img: a message for file %u has an invalid sender",
			    entry->id_for);
	return 0;
}

/* The queue takes over the entry, even if it is wrong. */
static int load_packet(struct snapshot *snapshot, SkPacketEntry *entry)
{
	struct loaded *loaded = loaded_of(snapshot);
	struct image *image = loaded->image;
	const struct file *file = snapshot_find_file(snapshot, entry->id_for) ?:
					  index_find(&loaded->expected, entry->id_for);
	struct socket_queue *queue;

	if (!file || !is_socket(file)) {
		int result = fail(EINVAL, "sk-queues.img: file %u is no socket", entry->id_for);

		image_free(entry);
		return result;
	}
	queue = queue_of(loaded, entry->id_for, file);
	*grow(&queue->items, &queue->count) = (struct queued_packet){ entry, image_position(image) };
	if (entry->length > LARGEST || entry->length > image_size(image) - image_position(image))
		return fail(EINVAL, "sk-queues.img is torn: a message for file %u is incomplete",
			    entry->id_for);
	return check_sender(entry) ?: check_rights(snapshot, entry) ?: image_skip_bytes(image, entry->length);
}

int socket_queues_load(struct snapshot *snapshot)
{
	struct loaded *loaded = loaded_of(snapshot);
	SkPacketEntry *entry;
	int result;

	if (loaded->image)
		return 0;
	result = image_open(snapshot->images, &loaded->image, IMAGE_SK_QUEUES, 0);
	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(loaded->image, sk_packet_entry, &entry)) > 0) {
		result = load_packet(snapshot, entry);
		if (result)
			break;
	}
	return result;
}

/* Only now is it known which files only hold the path or the name of another. */
static bool has_only_path(const struct snapshot *snapshot, const SkPacketEntry *entry)
{
	for (size_t i = 0; i < entry->n_scm; i++)
		for (size_t j = 0; j < entry->scm[i]->n_rights; j++)
			if (snapshot_find_file(snapshot, entry->scm[i]->rights[j])->is_only_path)
				return true;
	return false;
}

int socket_queue_check(struct snapshot *snapshot, uint32_t id, int type)
{
	const struct socket_queue *queue = socket_queue_find(snapshot, id);

	for (size_t i = 0; queue && i < queue->count; i++) {
		const SkPacketEntry *entry = queue->items[i].entry;

		if (type == SOCK_STREAM && !entry->length)
			return fail(EINVAL, "sk-queues.img: file %u is a stream and has an empty message",
				    id);
		if (type != SOCK_DGRAM && entry->has_name)
			return fail(EINVAL,
				    "sk-queues.img: file %u has one peer, but a message names its sender",
				    id);
		if (has_only_path(snapshot, entry))
			return fail(
				EINVAL,
				"sk-queues.img: a message for file %u has a descriptor of a file that is never opened",
				id);
	}
	return 0;
}

void socket_queues_close(struct snapshot *snapshot)
{
	clear(loaded_of(snapshot));
}

size_t socket_queues_keep(const struct snapshot *snapshot)
{
	return loaded_of(snapshot)->image != NULL;
}
