/*
 * images.c - ipcns-shm-N.img, ipcns-sem-N.img and ipcns-msg-N.img, where N is the ipc namespace (ids-PID.img).
 *
 * Behind the record of a set are its values, 16 bits each, padded to 8 bytes. Behind that of a queue are its messages:
 * each is a record with its length (32 bits) before it, and then its bytes, padded to 8. The pages of a segment are in
 * pagemap-shmem-ID.img, with its id.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/shm.h>
#include "base/error.h"
#include "base/index.h"
#include "base/memory.h"
#include "image/message.h"
#include "image/wire.h"
#include "ipc/ipc.h"
#include "kernel_constants.h"
#include "memory/huge.h"
#include "memory/shared.h"

#define PADDING	      8
#define LONGEST_ENTRY 64 /* bytes of an ipc_msg; it needs at most 17 */
#define HIGHEST_VALUE 32767
#define MOST_VALUES   (1u << 16) /* a semaphore has a number of 16 bits */

/* ---- writing ---- */

static int write_padded(struct image *image, const void *bytes, size_t size)
{
	static const char zeros[PADDING];

	return image_write_bytes(image, bytes, size) ?:
		       image_write_bytes(image, zeros, round_up(size, PADDING) - size);
}

static int write_message(struct image *image, const struct queue_message *message)
{
	IpcMsg entry = IPC_MSG__INIT;
	uint8_t packed[LONGEST_ENTRY];
	uint32_t size;

	entry.mtype = message->type;
	entry.msize = message->size;
	size = ipc_msg__get_packed_size(&entry);
	ipc_msg__pack(&entry, packed);
	return image_write_bytes(image, &size, sizeof(size))  ?:
		       image_write_bytes(image, packed, size) ?:
		       write_padded(image, message->bytes, message->size);
}

static int write_item(struct image *image, const struct ipc_item *item)
{
	int result = image_write(image, item->entry);

	if (!result && item->kind == IPC_SEMAPHORES)
		result = write_padded(image, item->values,
				      ((const IpcSemEntry *)item->entry)->nsems * sizeof(*item->values));
	for (size_t i = 0; !result && i < item->message_count; i++)
		result = write_message(image, &item->messages[i]);
	return result;
}

int ipc_save(struct snapshot *snapshot)
{
	const struct ipc_items *items = ipc_items_of(snapshot);
	int result = 0;

	for (enum ipc_kind kind = 0; !result && kind < IPC_KINDS; kind++) {
		struct image *image = NULL;

		for (size_t i = 0; !result && i < items->count; i++) {
			if (items->items[i].kind != kind)
				continue;
			if (!image)
				result = image_create(snapshot->images, &image, ipc_types[kind].image,
						      items->namespace);
			result = result ?: write_item(image, &items->items[i]);
		}
		if (image)
			result = image_close(image) ?: result;
	}
	return result;
}

/* ---- reading ---- */

static int read_message(struct image *image, struct queue_message *message)
{
	uint8_t packed[LONGEST_ENTRY];
	uint32_t size;
	IpcMsg *entry;
	int result = image_read_bytes(image, &size, sizeof(size));

	if (!result && size > sizeof(packed))
		result = fail(EINVAL, "%s holds an invalid message", image_name(image));
	result = result ?: image_read_bytes(image, packed, size);
	if (result)
		return result;
	entry = wire_is_sane(&ipc_msg__descriptor, packed, size) ? ipc_msg__unpack(NULL, size, packed) : NULL;
	if (!entry || !entry->mtype || entry->mtype > INT64_MAX ||
	    entry->msize > image_size(image) - image_position(image)) {
		image_free(entry);
		return fail(EINVAL, "%s holds an invalid message", image_name(image));
	}
	message->type = entry->mtype;
	message->size = entry->msize;
	image_free(entry);
	message->bytes = allocate(message->size);
	return image_read_bytes(image, message->bytes, message->size) ?:
		       image_skip_bytes(image, round_up(message->size, PADDING) - message->size);
}

int ipc_read_messages(struct image *image, uint32_t count, struct queue_message **messages, size_t *read)
{
	int result = 0;

	*messages = NULL;
	*read = 0;
	while (!result && *read < count)
		result = read_message(image, grow(messages, read));
	return result;
}

static int read_values(struct image *image, struct ipc_item *item)
{
	const IpcSemEntry *entry = (const IpcSemEntry *)item->entry;
	size_t size = entry->nsems * sizeof(*item->values);
	int result;

	if (!entry->nsems || entry->nsems > MOST_VALUES || (entry->n_users && entry->n_users != entry->nsems))
		return fail(EINVAL, "%s: set %u has an invalid number of semaphores", image_name(image),
			    item->desc->id);
	item->values = allocate(size);
	result = image_read_bytes(image, item->values, size) ?:
			 image_skip_bytes(image, round_up(size, PADDING) - size);
	for (size_t i = 0; !result && i < entry->nsems; i++)
		if (item->values[i] > HIGHEST_VALUE)
			result = fail(EINVAL, "%s: set %u has an invalid value", image_name(image),
				      item->desc->id);
	return result;
}

/* Its pages are restored as those of any other shared memory. */
static int add_memory(struct snapshot *snapshot, struct image *image, const IpcShmEntry *entry)
{
	uint32_t id = entry->desc->id;
	uint64_t page_size = entry->hugetlb_flag ? huge_page_size(entry->hugetlb_flag) : 0;
	struct shared_memory *object;

	if (!entry->size || entry->size > INT64_MAX - PAGE_SIZE ||
	    (entry->hugetlb_flag && (!page_size || entry->hugetlb_flag & ~(SHM_HUGETLB | VMA_HUGE_SIZE) ||
				     !(entry->hugetlb_flag & SHM_HUGETLB))))
		return fail(EINVAL, "%s: segment %u has an invalid size", image_name(image), id);
	if (!entry->in_pagemaps)
		return fail(0, "%s: segment %u has its content in this image, as only old versions wrote it",
			    image_name(image), id);
	object = shared_memory_new(snapshot, id);
	object->size = page_size ? round_up(entry->size, page_size) : entry->size;
	object->page_size = page_size;
	object->is_segment = object->has_size = object->is_anonymous = true;
	return 0;
}

/* Of the objects in one image. */
struct known {
	struct index ids, keys;
};

static int check_desc(struct known *known, const struct ipc_item *item, const char *name)
{
	const IpcDescEntry *desc = item->desc;
	uint32_t mode = 0777 | (item->kind == IPC_SEGMENT ? SHM_DEST | SHM_LOCKED : 0);

	if (desc->id > INT_MAX)
		return fail(EINVAL, "%s holds an invalid id (%u)", name, desc->id);
	if (desc->mode & ~mode)
		return fail(EINVAL, "%s: object %u has an invalid mode (%#o)", name, desc->id, desc->mode);
	if (desc->uid == UINT32_MAX || desc->gid == UINT32_MAX || desc->cuid == UINT32_MAX ||
	    desc->cgid == UINT32_MAX)
		return fail(EINVAL, "%s: object %u has an invalid owner", name, desc->id);
	if (index_find(&known->ids, desc->id) || (desc->key && index_find(&known->keys, desc->key)))
		return fail(EINVAL, "%s: object %u occurs twice", name, desc->id);
	index_set(&known->ids, desc->id, known);
	if (desc->key)
		index_set(&known->keys, desc->key, known);
	return 0;
}

static int load_item(struct snapshot *snapshot, struct image *image, struct known *known,
		     struct ipc_item *item)
{
	int result = check_desc(known, item, image_name(image));

	if (result)
		return result;
	if (item->kind == IPC_SEGMENT)
		return add_memory(snapshot, image, (const IpcShmEntry *)item->entry);
	if (item->kind == IPC_SEMAPHORES)
		return read_values(image, item);
	return ipc_read_messages(image, ((const IpcMsgEntry *)item->entry)->qnum, &item->messages,
				 &item->message_count);
}

static int load_kind(struct snapshot *snapshot, enum ipc_kind kind)
{
	struct ipc_items *items = ipc_items_of(snapshot);
	struct image *image;
	struct known known = { 0 };
	ProtobufCMessage *entry;
	int result = image_open(snapshot->images, &image, ipc_types[kind].image, items->namespace);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read(image, ipc_types[kind].message, &entry)) > 0) {
		result = load_item(snapshot, image, &known, ipc_item_add(items, kind, entry));
		if (result)
			break;
	}
	index_free(&known.ids);
	index_free(&known.keys);
	image_close_read(image);
	return result;
}

int ipc_load(struct snapshot *snapshot, uint32_t namespace)
{
	int result = 0;

	ipc_items_of(snapshot)->namespace = namespace;
	for (enum ipc_kind kind = 0; !result && kind < IPC_KINDS; kind++)
		result = load_kind(snapshot, kind);
	return result;
}
