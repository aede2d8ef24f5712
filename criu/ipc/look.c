/*
 * look.c - dump: finds the objects that the tree uses, and reads them. Refuses those that others use, too.
 *
 * A segment that a process of the tree has attached; the kernel counts one attachment for each mapping, so any more
 * than the tree has are those of others. A segment that nobody has attached, if a process of the tree created it. A set
 * of semaphores of which a process of the tree changed one last; whoever waits for one is outside of it. A queue to which a process of the tree sent last, or
 * from which it received last. The kernel tells no more: known-gaps.md.
 *
 * Nothing is changed, with one exception: to read a segment that nobody has attached, criu attaches it for a moment.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "image/message.h"
#include "ipc/ipc.h"
#include "memory/huge.h"
#include "memory/shared.h"

int ipc_collect(struct snapshot *snapshot)
{
	struct ipc_list list;
	int result = ipc_list_read(IPC_SEGMENT, &list);

	for (size_t i = 0; i < list.count; i++)
		shared_memory_reserve(snapshot, list.items[i].id);
	free(list.items);
	return result;
}

/* ---- who ---- */

struct users {
	pid_t inside, outside; /* one of them; 0: none */
};

static void note_user(const struct snapshot *snapshot, const struct ipc_object *object, pid_t pid,
		      struct users *users)
{
	const struct task *task = pid > 0 ? snapshot_find_task_here(snapshot, pid) : NULL;

	if (task && task->state != TASK_DEAD)
		users->inside = pid;
	else if (!users->outside && ipc_user_is_outside(snapshot, pid, max(object->used, object->changed)))
		users->outside = pid;
}

static int refuse_shared(enum ipc_kind kind, const struct ipc_object *object, const char *others)
{
	autofree char *name = ipc_describe(kind, object->id, object->key);

	refuse("%s is used by the tree, and also by %s, outside of it", name, others);
	fail_advice("dump them together, or let them detach from it first");
	return -REFUSED;
}

static int refuse_users(enum ipc_kind kind, const struct ipc_object *object, const struct users *users)
{
	autofree char *outside = ipc_name_process(users->outside);

	return refuse_shared(kind, object, outside);
}

static void describe(struct ipc_item *item, const struct ipc_object *object)
{
	IpcDescEntry *desc = item->desc;

	desc->id = object->id;
	desc->key = object->key;
	desc->mode = object->mode;
	desc->uid = object->uid;
	desc->gid = object->gid;
	desc->cuid = object->cuid;
	desc->cgid = object->cgid;
	message_set(desc, changed, object->changed);
}

/* ---- segments ---- */

/* A link of /proc leads to it while it is attached. */
static int open_detached(struct snapshot *snapshot, const struct ipc_object *found)
{
	void *memory = shmat(found->id, NULL, SHM_RDONLY);
	int result;

	if (memory == (void *)-1)
		return fail(errno, "cannot attach %s %d to read it", ipc_types[IPC_SEGMENT].name, found->id);
	result = shared_memory_add_own_segment(snapshot, found->id, memory, found->amount);
	shmdt(memory);
	return result;
}

static void add_segment(struct snapshot *snapshot, const struct ipc_object *found,
			const struct shared_memory *memory)
{
	IpcShmEntry *entry = message_new(IpcShmEntry, ipc_shm_entry);
	pid_t creator = snapshot_name_of(snapshot, found->users[0]);

	entry->desc = message_new(IpcDescEntry, ipc_desc_entry);
	describe(ipc_item_add(ipc_items_of(snapshot), IPC_SEGMENT, &entry->base), found);
	entry->size = found->amount;
	message_set(entry, in_pagemaps, true);
	if (memory->page_size)
		message_set(entry, hugetlb_flag,
			    SHM_HUGETLB | (huge_map_flags(memory->page_size) & VMA_HUGE_SIZE));
	if (creator)
		message_set(entry, creator, creator);
}

static int look_at_segment(struct snapshot *snapshot, const struct ipc_object *found)
{
	const struct shared_memory *memory = shared_memory_find(snapshot, found->id);
	struct users users = { 0 };
	int result;

	note_user(snapshot, found, found->users[0], &users);
	if (!memory && !users.inside)
		return 0;
	if (found->attachments > (memory ? memory->attachments : 0)) {
		autofree char *others = ipc_name_attached(snapshot, found->id);

		return refuse_shared(IPC_SEGMENT, found, others);
	}
	if (!memory) {
		result = open_detached(snapshot, found);
		if (result)
			return result;
		memory = shared_memory_find(snapshot, found->id);
	}
	add_segment(snapshot, found, memory);
	return 0;
}

/* A mapping does not tell the namespace of its segment. */
static int look_for_foreign(const struct snapshot *snapshot, const struct ipc_list *list)
{
	const struct shared_memories *all = shared_memories_of(snapshot);

	for (size_t i = 0; i < all->count; i++) {
		const struct shared_memory *memory = &all->items[i];
		const struct ipc_object *found = ipc_list_find(list, memory->id);

		uint64_t unit = memory->page_size ?: PAGE_SIZE;

		if (memory->is_segment && (!found || found->attachments < memory->attachments ||
					   round_up(found->amount, unit) != round_up(memory->size, unit)))
			refuse("the tree has attached %s %d of another ipc namespace than its own",
			       ipc_types[IPC_SEGMENT].name, (int)memory->id);
	}
	return 0;
}

/* ---- semaphores ---- */

static int read_values(struct ipc_item *item, unsigned count)
{
	item->values = allocate_array(count, sizeof(*item->values));
	if (semctl(item->desc->id, 0, GETALL, item->values) < 0)
		return fail(errno, "cannot read %s %u", ipc_types[IPC_SEMAPHORES].name, item->desc->id);
	return 0;
}

static int add_set(struct snapshot *snapshot, const struct ipc_object *found, const pid_t *pids)
{
	IpcSemEntry *entry = message_new(IpcSemEntry, ipc_sem_entry);
	struct ipc_item *item;

	entry->desc = message_new(IpcDescEntry, ipc_desc_entry);
	item = ipc_item_add(ipc_items_of(snapshot), IPC_SEMAPHORES, &entry->base);
	describe(item, found);
	entry->nsems = found->amount;
	message_array(entry, users, found->amount);
	for (size_t i = 0; i < found->amount; i++)
		entry->users[i] = snapshot_name_of(snapshot, pids[i]);
	if (found->used)
		message_set(entry, was_used, true);
	return read_values(item, found->amount);
}

/*
 * The tree is frozen, and waits for no semaphore: its calls were interrupted. So whoever waits is outside of it. The
 * kernel does not tell who it is.
 */
static bool is_awaited(const struct ipc_object *found)
{
	for (size_t i = 0; i < found->amount; i++)
		if (semctl(found->id, i, GETNCNT) > 0 || semctl(found->id, i, GETZCNT) > 0)
			return true;
	return false;
}

/* Somebody may remove the set meanwhile, or it may be none that criu may read: then the tree cannot have it either. */
static int look_at_set(struct snapshot *snapshot, const struct ipc_object *found)
{
	autofree pid_t *pids = allocate_array(found->amount, sizeof(*pids));
	struct users users = { 0 };

	for (size_t i = 0; i < found->amount; i++) {
		pids[i] = semctl(found->id, i, GETPID);
		if (pids[i] < 0)
			return 0;
		if (pids[i] && (!i || pids[i] != pids[i - 1]))
			note_user(snapshot, found, pids[i], &users);
	}
	if (!users.inside)
		return 0;
	if (users.outside)
		return refuse_users(IPC_SEMAPHORES, found, &users);
	return is_awaited(found) ? refuse_shared(IPC_SEMAPHORES, found, "a process that waits for it") :
				   add_set(snapshot, found, pids);
}

/* ---- queues ---- */

static int add_queue(struct snapshot *snapshot, const struct ipc_object *found)
{
	IpcMsgEntry *entry = message_new(IpcMsgEntry, ipc_msg_entry);
	pid_t sender = snapshot_name_of(snapshot, found->users[0]);
	pid_t receiver = snapshot_name_of(snapshot, found->users[1]);
	struct msqid_ds facts;
	struct ipc_item *item;
	int result;

	entry->desc = message_new(IpcDescEntry, ipc_desc_entry);
	item = ipc_item_add(ipc_items_of(snapshot), IPC_QUEUE, &entry->base);
	describe(item, found);
	if (msgctl(found->id, IPC_STAT, &facts) < 0)
		return fail(errno, "cannot stat %s %d", ipc_types[IPC_QUEUE].name, found->id);
	entry->qbytes = facts.msg_qbytes;
	if (sender)
		message_set(entry, sender, sender);
	if (receiver)
		message_set(entry, receiver, receiver);
	result = ipc_copy_messages(snapshot, found, &item->messages, &item->message_count);
	entry->qnum = item->message_count;
	return result;
}

static int look_at_queue(struct snapshot *snapshot, const struct ipc_object *found)
{
	struct users users = { 0 };

	note_user(snapshot, found, found->users[0], &users);
	note_user(snapshot, found, found->users[1], &users);
	if (!users.inside)
		return 0;
	return users.outside ? refuse_users(IPC_QUEUE, found, &users) : add_queue(snapshot, found);
}

/* ---- all ---- */

/* All living tasks are in one. NULL: all have ended, the root while it was frozen. */
static const struct task *find_living(const struct snapshot *snapshot)
{
	const struct task *task;

	for_each_task (task, snapshot)
		if (task->state != TASK_DEAD)
			return task;
	return NULL;
}

int ipc_look(struct snapshot *snapshot)
{
	int (*const look[IPC_KINDS])(struct snapshot *, const struct ipc_object *) = {
		look_at_segment,
		look_at_set,
		look_at_queue,
	};
	const struct task *living = find_living(snapshot);
	int result = 0;

	if (!living)
		return 0;
	ipc_items_of(snapshot)->namespace = living->ids->ipc_ns_id;
	for (enum ipc_kind kind = 0; !result && kind < IPC_KINDS; kind++) {
		struct ipc_list list;

		result = ipc_list_read(kind, &list);
		if (!result && kind == IPC_SEGMENT)
			result = look_for_foreign(snapshot, &list);
		for (size_t i = 0; !result && i < list.count; i++)
			result = unless_refused(look[kind](snapshot, &list.items[i]));
		free(list.items);
	}
	ipc_end_copying(snapshot);
	return result;
}
