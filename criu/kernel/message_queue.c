/*
 * message_queue.c - see message_queue.h.
 *
 * An ipc namespace has its queues in a tree (XArray), by the low bits of their ids. A leaf is the struct kern_ipc_perm
 * at the beginning of a queue; the address of an inner node has a mark. A queue has a list of its messages. The bytes
 * of a message are behind its struct msg_msg, as far as one page has room; those that are left are in a chain of
 * further parts, behind a struct msg_msgseg each.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/msg.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/btf.h"
#include "kernel/message_queue.h"
#include "kernel/peek.h"
#include "kernel/place.h"

#define QUEUE_IDS 1 /* the index of queues among the three kinds of an ipc namespace */
#define NODE_MASK 3
#define NODE_MARK 2

enum member {
	TASK_NAMESPACES,
	NAMESPACES_IPC,
	IPC_IDS,
	IDS_TREE,
	NODE_SHIFT,
	NODE_SLOTS,
	NODE_SLOTS_END,
	COMMON_ID,
	QUEUE_COMMON,
	QUEUE_COUNT,
	QUEUE_BYTES,
	QUEUE_SENT,
	QUEUE_RECEIVED,
	QUEUE_FIRST,
	QUEUE_LAST,
	MESSAGE_NEXT,
	MESSAGE_TYPE,
	MESSAGE_SIZE,
	MESSAGE_PART,
	PART_NEXT,
	MEMBER_COUNT
};

static const struct kernel_member members[MEMBER_COUNT] = {
	[TASK_NAMESPACES] = { "task_struct", "nsproxy" },
	[NAMESPACES_IPC] = { "nsproxy", "ipc_ns" },
	[IPC_IDS] = { "ipc_namespace", "ids" },
	[IDS_TREE] = { "ipc_ids", "ipcs_idr.idr_rt.xa_head" },
	[NODE_SHIFT] = { "xa_node", "shift" },
	[NODE_SLOTS] = { "xa_node", "slots" },
	[NODE_SLOTS_END] = { "xa_node", "tags" },
	[COMMON_ID] = { "kern_ipc_perm", "id" },
	[QUEUE_COMMON] = { "msg_queue", "q_perm" },
	[QUEUE_COUNT] = { "msg_queue", "q_qnum" },
	[QUEUE_BYTES] = { "msg_queue", "q_cbytes" },
	[QUEUE_SENT] = { "msg_queue", "q_stime" },
	[QUEUE_RECEIVED] = { "msg_queue", "q_rtime" },
	[QUEUE_FIRST] = { "msg_queue", "q_messages.next" },
	[QUEUE_LAST] = { "msg_queue", "q_messages.prev" },
	[MESSAGE_NEXT] = { "msg_msg", "m_list.next" },
	[MESSAGE_TYPE] = { "msg_msg", "m_type" },
	[MESSAGE_SIZE] = { "msg_msg", "m_ts" },
	[MESSAGE_PART] = { "msg_msg", "next" },
	[PART_NEXT] = { "msg_msgseg", "next" },
};

struct message_queue_reader {
	struct peek peek;
	uint32_t offsets[MEMBER_COUNT];
	uint32_t ids_size, message_size, part_size; /* of the structs */
	bool knows_parts;			    /* proved with a message of several parts */
};

void queue_messages_free(struct queue_message *messages, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(messages[i].bytes);
	free(messages);
}

static int cannot_read(int error)
{
	return fail(-error, "cannot read the messages of a queue in the kernel's memory");
}

static int is_changing(void)
{
	return fail(EAGAIN, "the messages of a queue are being sent or received");
}

static int read_at(const struct message_queue_reader *reader, uint64_t struct_at, enum member member,
		   void *value, uint32_t size)
{
	int result = peek_read(&reader->peek, struct_at + reader->offsets[member], value, size);

	return result ? cannot_read(result) : 0;
}

static int read_address(const struct message_queue_reader *reader, uint64_t struct_at, enum member member,
			uint64_t *address)
{
	return read_at(reader, struct_at, member, address, sizeof(*address));
}

/* ---- queues ---- */

/* Follows the tree from its first entry on. 0 in *found: there is nothing at this index. */
static int find_in_tree(const struct message_queue_reader *reader, uint64_t entry, uint32_t index,
			uint64_t *found)
{
	uint32_t slots = (reader->offsets[NODE_SLOTS_END] - reader->offsets[NODE_SLOTS]) / sizeof(entry);
	uint8_t shift, above = 32;

	for (; (entry & NODE_MASK) == NODE_MARK; above = shift) {
		uint64_t node = entry - NODE_MARK;
		int result = read_at(reader, node, NODE_SHIFT, &shift, sizeof(shift));

		if (result || shift >= above)
			return result ?: cannot_read(-EFAULT);
		entry = 0;
		if (index >> shift < slots)
			result = read_address(reader, node + (index >> shift) * sizeof(entry), NODE_SLOTS,
					      &entry);
		if (result)
			return result;
		index &= (1u << shift) - 1;
	}
	*found = index ? 0 : entry;
	return 0;
}

static int find_tree(const struct message_queue_reader *reader, uint64_t *entry)
{
	uint64_t namespaces, ipc;
	int result = read_address(reader, peek_self(&reader->peek), TASK_NAMESPACES, &namespaces) ?:
			     read_address(reader, namespaces, NAMESPACES_IPC, &ipc);

	return result ?:
			read_address(reader, ipc + reader->offsets[IPC_IDS] + QUEUE_IDS * reader->ids_size,
				     IDS_TREE, entry);
}

static int find_queue(const struct message_queue_reader *reader, int id, uint64_t *queue)
{
	static const unsigned bits[] = { 15, 24 }; /* of an id that are its index: 24 with ipcmni_extend */
	uint64_t tree = 0, common = 0;
	int result = find_tree(reader, &tree), found;

	for (size_t i = 0; !result && i < array_size(bits); i++) {
		result = find_in_tree(reader, tree, (uint32_t)id & ((1u << bits[i]) - 1), &common);
		if (result || !common)
			continue;
		*queue = common - reader->offsets[QUEUE_COMMON];
		result = read_at(reader, common, COMMON_ID, &found, sizeof(found));
		if (!result && found == id)
			return 0;
	}
	return result ?: fail(ENOENT, "cannot find message queue %d in the kernel's memory", id);
}

/* ---- messages ---- */

/* What changes when somebody sends or receives. */
struct state {
	uint64_t count, bytes, sent, received, first, last;
};

static int read_state(const struct message_queue_reader *reader, uint64_t queue, struct state *state)
{
	const struct peek_member members[] = { { QUEUE_COUNT, &state->count, sizeof(state->count) },
					       { QUEUE_BYTES, &state->bytes, sizeof(state->bytes) },
					       { QUEUE_SENT, &state->sent, sizeof(state->sent) },
					       { QUEUE_RECEIVED, &state->received, sizeof(state->received) },
					       { QUEUE_FIRST, &state->first, sizeof(state->first) },
					       { QUEUE_LAST, &state->last, sizeof(state->last) } };
	int result = peek_read_members(&reader->peek, queue, reader->offsets, members, array_size(members));

	return result ? cannot_read(result) : 0;
}

static int read_piece(const struct message_queue_reader *reader, uint64_t at, char *bytes, uint64_t size)
{
	int result = 0;

	for (uint64_t done = 0, some; !result && done < size; done += some) {
		some = min(size - done, (uint64_t)PEEK_MOST);
		result = peek_read(&reader->peek, at + done, bytes + done, (uint32_t)some);
	}
	return result ? cannot_read(result) : 0;
}

/* The parts from the second one on. */
static int read_parts(const struct message_queue_reader *reader, uint64_t part, char *bytes, uint64_t size)
{
	const uint64_t room = PAGE_SIZE - reader->part_size;
	int result = 0;

	for (uint64_t done = 0, some; !result && done < size; done += some) {
		some = min(size - done, room);
		result = read_piece(reader, part + reader->part_size, bytes + done, some) ?:
				 read_address(reader, part, PART_NEXT, &part);
	}
	return result;
}

/* `room`: no message has more bytes. *next is where the list goes on. */
static int read_message(const struct message_queue_reader *reader, uint64_t at, uint64_t room,
			struct queue_message *message, uint64_t *next)
{
	uint64_t size, part, first;
	const struct peek_member members[] = { { MESSAGE_NEXT, next, sizeof(*next) },
					       { MESSAGE_TYPE, &message->type, sizeof(message->type) },
					       { MESSAGE_SIZE, &size, sizeof(size) },
					       { MESSAGE_PART, &part, sizeof(part) } };
	int result = peek_read_members(&reader->peek, at, reader->offsets, members, array_size(members));

	if (result)
		return cannot_read(result);
	if (size > room || size > UINT32_MAX)
		return is_changing();
	message->size = (uint32_t)size;
	message->bytes = allocate(size);
	first = min(size, PAGE_SIZE - reader->message_size);
	if (first < size && !reader->knows_parts)
		return fail(EOPNOTSUPP, "a message is too long to be read in the kernel's memory");
	return read_piece(reader, at + reader->message_size, message->bytes, first) ?:
		       read_parts(reader, part, message->bytes + first, size - first);
}

static int read_messages(const struct message_queue_reader *reader, uint64_t queue,
			 struct queue_message **messages, size_t *count)
{
	const uint64_t head = queue + reader->offsets[QUEUE_FIRST];
	struct state before, after;
	int result = read_state(reader, queue, &before);
	uint64_t at = before.first, left = before.bytes;

	while (!result && at != head) {
		struct queue_message *message;

		if (*count >= before.count)
			return is_changing();
		message = grow(messages, count);
		result = read_message(reader, at - reader->offsets[MESSAGE_NEXT], left, message, &at);
		left -= message->size;
	}
	result = result ?: read_state(reader, queue, &after);
	if (!result && (left || *count != before.count || memcmp(&before, &after, sizeof(before)) != 0))
		return is_changing();
	return result;
}

int message_queue_read(const struct message_queue_reader *reader, int id, struct queue_message **messages,
		       size_t *count)
{
	uint64_t queue = 0;
	int result;

	*messages = NULL;
	*count = 0;
	result = find_queue(reader, id, &queue) ?: read_messages(reader, queue, messages, count);
	if (result) {
		queue_messages_free(steal_pointer(messages), *count);
		*count = 0;
	}
	return result;
}

/* ---- open ---- */

#define LONGEST (2 * PAGE_SIZE) /* bytes in three parts; as long as the default limit allows */

static const struct {
	long type;
	uint32_t size;
} examples[] = { { 7, 0 }, { INT64_MAX, 100 }, { 1, LONGEST }, { 3, 1 } };

struct example {
	long type;
	char bytes[LONGEST];
};

/* Sends all that the limits of the namespace allow. */
static int send_examples(struct message_queue_reader *reader, int id)
{
	autofree struct example *message = allocate(sizeof(*message));

	for (size_t i = 0; i < sizeof(message->bytes); i++)
		message->bytes[i] = (char)(i / 251 + i);
	for (size_t i = 0; i < array_size(examples); i++) {
		bool is_long = examples[i].size == LONGEST;

		message->type = examples[i].type;
		if (!msgsnd(id, message, examples[i].size, IPC_NOWAIT))
			reader->knows_parts |= is_long;
		else if (!is_long)
			return fail(errno, "cannot send a message");
	}
	return 0;
}

/* Is each what msgrcv(2) returns? */
static int compare(int id, const struct queue_message *messages, size_t count)
{
	autofree struct example *message = allocate(sizeof(*message));

	for (size_t i = 0; i < count; i++)
		if (msgrcv(id, message, sizeof(message->bytes), 0, IPC_NOWAIT) != (ssize_t)messages[i].size ||
		    (uint64_t)message->type != messages[i].type ||
		    memcmp(message->bytes, messages[i].bytes, messages[i].size) != 0)
			return false;
	return msgrcv(id, message, sizeof(message->bytes), 0, IPC_NOWAIT) < 0 && errno == ENOMSG;
}

/* In a process of its own. With that many queues, the tree has two levels of nodes. */
static int test(void *context)
{
	struct message_queue_reader *reader = context;
	uint32_t slots = (reader->offsets[NODE_SLOTS_END] - reader->offsets[NODE_SLOTS]) / sizeof(uint64_t);
	struct queue_message *messages;
	size_t count;
	int result = unshare(CLONE_NEWIPC) < 0 ? -errno : 0, id = 0;

	for (uint32_t i = 0; !result && i <= slots; i++) {
		id = msgget(IPC_PRIVATE, 0600);
		result = id < 0 ? -errno : 0;
	}
	if (result)
		return fail(-result, "cannot create message queues to learn how the kernel keeps them");
	result = send_examples(reader, id) ?: message_queue_read(reader, id, &messages, &count);
	if (result)
		return result;
	result = count >= array_size(examples) - !reader->knows_parts && compare(id, messages, count);
	queue_messages_free(messages, count);
	return result ? 0 : fail(EOPNOTSUPP, "criu does not understand this kernel's message queues");
}

int message_queue_open(struct message_queue_reader **reader)
{
	const struct place here = PLACE_HERE;
	struct message_queue_reader *made = allocate(sizeof(*made));
	struct btf *btf = NULL;
	int result = peek_open(&made->peek) ?: btf_load(&btf);

	result = result ?: btf_find_members(btf, members, MEMBER_COUNT, made->offsets, "message queues");
	if (!result) {
		made->ids_size = btf_size(btf, "ipc_ids");
		made->message_size = btf_size(btf, "msg_msg");
		made->part_size = btf_size(btf, "msg_msgseg");
		result = run_in(&here, test, made);
	}
	btf_free(btf);
	if (result)
		message_queue_close(steal_pointer(&made));
	*reader = made;
	return result;
}

void message_queue_close(struct message_queue_reader *reader)
{
	if (!reader)
		return;
	peek_close(&reader->peek);
	free(reader);
}
