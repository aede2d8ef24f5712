/*
 * make.c - restore: takes the objects that are still there, and makes the others.
 *
 * An object that has stayed since the dump is ours if it is the same (id, key, creator's user, and the time of its last
 * change), and no other process uses it. Pages and values may have changed, if the processes ran on after the dump:
 * they become those of the images, and again what they were if the restore fails. A queue whose messages have changed
 * is refused.
 *
 * The kernel gives an object a chosen id (/proc/sys/kernel/shm_next_id: Linux 3.8, CONFIG_CHECKPOINT_RESTORE), unless
 * another process takes it first. Which process created a segment, changed a semaphore or sent a message is visible in
 * all programs, and criu itself needs it for the next dump (look.c). It cannot be set. So these things are done by a
 * short-lived process with the id of that process (run_in()), before the process itself exists.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>
#include "base/error.h"
#include "base/index.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "ipc/ipc.h"
#include "kernel/place.h"
#include "memory/huge.h"
#include "memory/shared.h"

static int item_id(const struct ipc_item *item)
{
	return (int)item->desc->id;
}

static char *item_name(const struct ipc_item *item)
{
	return ipc_describe(item->kind, item_id(item), (int32_t)item->desc->key);
}

/* ---- before anything is made ---- */

static uint64_t item_amount(const struct ipc_item *item)
{
	switch (item->kind) {
	case IPC_SEGMENT:
		return ((const IpcShmEntry *)item->entry)->size;
	case IPC_SEMAPHORES:
		return ((const IpcSemEntry *)item->entry)->nsems;
	default:
		return 0;
	}
}

static bool is_same(const struct ipc_item *item, const struct ipc_object *found)
{
	const IpcDescEntry *desc = item->desc;

	return found->key == (int32_t)desc->key && found->cuid == desc->cuid && found->cgid == desc->cgid &&
	       (item->kind == IPC_QUEUE || found->amount == item_amount(item)) && desc->has_changed &&
	       found->changed == desc->changed;
}

static int refuse_others(const struct ipc_item *item, const char *others)
{
	autofree char *name = item_name(item);

	return fail(0, "%s of the images is in use by %s", name, others);
}

static int check_segment(const struct snapshot *snapshot, const struct ipc_item *item,
			 const struct ipc_object *found)
{
	autofree char *others = found->attachments ? ipc_name_attached(snapshot, found->id) : NULL;

	shared_memory_find(snapshot, item->desc->id)->is_kept = true;
	return others ? refuse_others(item, others) : 0;
}

static int check_user(const struct snapshot *snapshot, const struct ipc_item *item,
		      const struct ipc_object *found, pid_t pid)
{
	autofree char *other = NULL;

	if (!ipc_user_is_outside(snapshot, pid, max(found->used, found->changed)))
		return 0;
	other = ipc_name_process(pid);
	return refuse_others(item, other);
}

static int check_set(const struct snapshot *snapshot, const struct ipc_item *item,
		     const struct ipc_object *found)
{
	int result = 0;

	for (size_t i = 0; !result && i < found->amount; i++) {
		int waiting = semctl(found->id, i, GETNCNT), for_zero = semctl(found->id, i, GETZCNT);

		if (waiting < 0 || for_zero < 0)
			return fail(errno, "cannot look at %s %d", ipc_types[item->kind].name, found->id);
		result = waiting || for_zero ?
				 refuse_others(item, "a process that waits for it") :
				 check_user(snapshot, item, found, semctl(found->id, i, GETPID));
	}
	return result;
}

static int check_queue(const struct snapshot *snapshot, const struct ipc_item *item,
		       const struct ipc_object *found)
{
	int result = check_user(snapshot, item, found, found->users[0]) ?:
			     check_user(snapshot, item, found, found->users[1]);
	autofree char *name = NULL;

	result = result ?: ipc_has_same_messages(snapshot, item, found);
	if (result)
		return min(result, 0);
	name = item_name(item);
	fail(0, "%s is still there, but its messages are no longer those of the images", name);
	fail_advice("ipcrm -q %d, to have it made again", found->id);
	return -EINVAL;
}

static int fail_for_object(const struct ipc_item *item, const struct ipc_object *found)
{
	autofree char *wanted = item_name(item), *name = ipc_describe(item->kind, found->id, found->key);

	fail(0, "%s of the images cannot be made, because another one exists: %s", wanted, name);
	fail_advice("ipcrm %s %d, if nobody needs it", ipc_types[item->kind].remove, found->id);
	return -EINVAL;
}

/* Where the objects of a list are, by id and by key. */
struct places {
	struct index by_id, by_key;
};

static int check_item(const struct snapshot *snapshot, struct ipc_item *item, const struct places *places)
{
	int (*const check[IPC_KINDS])(const struct snapshot *, const struct ipc_item *,
				      const struct ipc_object *) = { check_segment, check_set, check_queue };
	const char *next_id = ipc_types[item->kind].next_id;

	const struct ipc_object *found = index_find(&places->by_id, item->desc->id);

	if (!found && item->desc->key)
		found = index_find(&places->by_key, item->desc->key);
	if (found) {
		if (found->id != item_id(item) || !is_same(item, found))
			return fail_for_object(item, found);
		item->is_there = true;
		return check[item->kind](snapshot, item, found);
	}
	if (access(next_id, W_OK) < 0)
		return fail(errno, "criu cannot make %s %d with this id: %s", ipc_types[item->kind].name,
			    item_id(item), next_id);
	return 0;
}

static int check_kind(const struct snapshot *snapshot, enum ipc_kind kind)
{
	const struct ipc_items *items = ipc_items_of(snapshot);
	struct places places = { 0 };
	struct ipc_list list;
	int result = ipc_list_read(kind, &list);

	for (size_t i = 0; i < list.count; i++) {
		index_set(&places.by_id, list.items[i].id, &list.items[i]);
		if (list.items[i].key)
			index_set(&places.by_key, (uint32_t)list.items[i].key, &list.items[i]);
	}
	for (size_t i = 0; !result && i < items->count; i++)
		if (items->items[i].kind == kind)
			result = check_item(snapshot, &items->items[i], &places);
	index_free(&places.by_id);
	index_free(&places.by_key);
	free(list.items);
	return result;
}

int ipc_check(struct snapshot *snapshot)
{
	int result = 0;

	for (enum ipc_kind kind = 0; !result && kind < IPC_KINDS && ipc_items_of(snapshot)->count; kind++)
		result = check_kind(snapshot, kind);
	ipc_end_copying(snapshot);
	return result;
}

/* ---- as another process ---- */

struct work {
	struct ipc_item *item;
	pid_t pid;
	int (*what)(struct work *work);
};

static int do_work(void *context)
{
	struct work *work = context;

	return work->what(work);
}

/* By a process with this id, if it is free, because it may be that of a process outside of the tree. */
static int do_as(struct ipc_item *item, pid_t pid, int (*what)(struct work *work))
{
	struct work work = { .item = item, .pid = pid, .what = what };
	struct place place = PLACE_HERE;
	struct attempt attempt;
	int result;

	place.uid = item->desc->cuid;
	place.gid = item->desc->cgid;
	place.pid = pid;
	attempt_begin(&attempt);
	result = run_in(&place, do_work, &work);
	if (result != -EEXIST || !pid) {
		attempt_count(&attempt);
		return result;
	}
	attempt_forget(&attempt);
	place.pid = 0;
	return run_in(&place, do_work, &work);
}

/* ---- making ---- */

static int get_object(const struct ipc_item *item)
{
	const IpcShmEntry *segment = (const IpcShmEntry *)item->entry;
	int flags = IPC_CREAT | IPC_EXCL | (item->desc->mode & 0777);
	key_t key = (key_t)item->desc->key;

	switch (item->kind) {
	case IPC_SEGMENT:
		return shmget(key, segment->size, flags | segment->hugetlb_flag);
	case IPC_SEMAPHORES:
		return semget(key, item_amount(item), flags);
	default:
		return msgget(key, flags);
	}
}

static int remove_object(enum ipc_kind kind, int id)
{
	switch (kind) {
	case IPC_SEGMENT:
		return shmctl(id, IPC_RMID, NULL);
	case IPC_SEMAPHORES:
		return semctl(id, 0, IPC_RMID);
	default:
		return msgctl(id, IPC_RMID, NULL);
	}
}

/* The chosen id stays chosen until an object has been made, and cannot be withdrawn: -1 may not be written. */
static void use_up_next_id(enum ipc_kind kind)
{
	const int flags = IPC_CREAT | 0600;
	int id = kind == IPC_SEGMENT	? shmget(IPC_PRIVATE, 1, flags) :
		 kind == IPC_SEMAPHORES ? semget(IPC_PRIVATE, 1, flags) :
					  msgget(IPC_PRIVATE, flags);

	if (id < 0 || remove_object(kind, id) < 0)
		log_warning(
			"the next %s of another process may get the id that was meant for one of the images",
			ipc_types[kind].name);
}

static int create(struct work *work)
{
	struct ipc_item *item = work->item;
	const struct ipc_type *type = &ipc_types[item->kind];
	autofree char *name = item_name(item), *number = format_text("%d", item_id(item));
	int result = write_text_at(-1, type->next_id, number), id, error;

	if (result)
		return fail(-result, "cannot choose the id of %s: %s", name, type->next_id);
	id = get_object(item);
	error = errno;
	if (id == item_id(item)) {
		item->was_made = true;
		return 0;
	}
	if (id >= 0) {
		remove_object(item->kind, id);
		return fail(0, "%s cannot be made: another one has taken its id, or one with the same place",
			    name);
	}
	use_up_next_id(item->kind);
	return fail(error, "cannot make %s", name);
}

static int fail_to_set_up(const struct ipc_item *item)
{
	int error = errno;
	autofree char *name = item_name(item);

	return fail(error, "cannot set up %s", name);
}

/* ---- owners ---- */

static int own_segment(const struct ipc_item *item)
{
	struct shmid_ds facts;

	if (shmctl(item_id(item), IPC_STAT, &facts) < 0)
		return fail_to_set_up(item);
	facts.shm_perm.uid = item->desc->uid;
	facts.shm_perm.gid = item->desc->gid;
	return shmctl(item_id(item), IPC_SET, &facts) < 0 ? fail_to_set_up(item) : 0;
}

static int own_set(const struct ipc_item *item)
{
	struct semid_ds facts;

	if (semctl(item_id(item), 0, IPC_STAT, &facts) < 0)
		return fail_to_set_up(item);
	facts.sem_perm.uid = item->desc->uid;
	facts.sem_perm.gid = item->desc->gid;
	return semctl(item_id(item), 0, IPC_SET, &facts) < 0 ? fail_to_set_up(item) : 0;
}

static int own_queue(const struct ipc_item *item)
{
	struct msqid_ds facts;

	if (msgctl(item_id(item), IPC_STAT, &facts) < 0)
		return fail_to_set_up(item);
	facts.msg_perm.uid = item->desc->uid;
	facts.msg_perm.gid = item->desc->gid;
	facts.msg_qbytes = ((const IpcMsgEntry *)item->entry)->qbytes;
	return msgctl(item_id(item), IPC_SET, &facts) < 0 ? fail_to_set_up(item) : 0;
}

/* ---- segments ---- */

static int open_segment(struct snapshot *snapshot, const struct ipc_item *item)
{
	struct shared_memory *object = shared_memory_find(snapshot, item->desc->id);
	void *memory = shmat(item_id(item), NULL, 0);
	int result;

	if (memory == (void *)-1)
		return fail_to_set_up(item);
	result = shared_memory_open_segment(object, memory);
	shmdt(memory);
	return result;
}

static int make_segment(struct snapshot *snapshot, struct ipc_item *item)
{
	pid_t creator = ((const IpcShmEntry *)item->entry)->creator;
	int result = item->is_there ? 0 : do_as(item, creator, create) ?: own_segment(item);

	return result ?: open_segment(snapshot, item);
}

/* ---- semaphores ---- */

static pid_t user_of(const struct ipc_item *item, size_t i)
{
	const IpcSemEntry *entry = (const IpcSemEntry *)item->entry;

	return entry->n_users ? (pid_t)entry->users[i] : 0;
}

/* Changes it by semop(), so that the set stays the same for the next restore: semctl() would change its time. */
static int change_value(const struct ipc_item *item, size_t i, int by)
{
	struct sembuf operation = { i, by, IPC_NOWAIT };

	return by && semop(item_id(item), &operation, 1) < 0 ? fail_to_set_up(item) : 0;
}

/* For programs that wait until a set has been used (sem_otime). It leaves the value as it is. */
static int use(const struct ipc_item *item, size_t i)
{
	short step = item->values[i] ? -1 : 1;
	struct sembuf operations[] = { { i, step, IPC_NOWAIT }, { i, -step, IPC_NOWAIT } };

	return semop(item_id(item), operations, 2) < 0 ? fail_to_set_up(item) : 0;
}

static int set_values(struct work *work)
{
	const struct ipc_item *item = work->item;
	bool is_used = !((const IpcSemEntry *)item->entry)->was_used;
	int result = 0;

	for (size_t i = 0; !result && i < item_amount(item); i++) {
		if (user_of(item, i) != work->pid || (!item->values[i] && !work->pid))
			continue;
		if (semctl(item_id(item), i, SETVAL, item->values[i]) < 0)
			return fail_to_set_up(item);
		if (!is_used)
			result = use(item, i);
		is_used = true;
	}
	return result;
}

static int correct_values(struct work *work)
{
	const struct ipc_item *item = work->item;
	int result = 0;

	for (size_t i = 0; !result && i < item_amount(item); i++)
		if (user_of(item, i) == work->pid)
			result = change_value(item, i, item->values[i] - item->before[i]);
	return result;
}

static int for_each_user(struct ipc_item *item, int (*what)(struct work *work))
{
	struct index known = { 0 };
	int result = do_as(item, 0, what);

	for (size_t i = 0; !result && i < item_amount(item); i++) {
		pid_t user = user_of(item, i);

		if (!user || index_find(&known, user))
			continue;
		index_set(&known, user, item);
		result = do_as(item, user, what);
	}
	index_free(&known);
	return result;
}

static int correct_set(struct ipc_item *item)
{
	size_t size = item_amount(item) * sizeof(*item->before);

	item->before = allocate(size);
	if (semctl(item_id(item), 0, GETALL, item->before) < 0)
		return fail_to_set_up(item);
	if (!memcmp(item->before, item->values, size)) {
		free(steal_pointer(&item->before));
		return 0;
	}
	return for_each_user(item, correct_values);
}

static int make_set(struct snapshot *snapshot unused, struct ipc_item *item)
{
	if (item->is_there)
		return correct_set(item);
	return do_as(item, 0, create) ?: own_set(item) ?: for_each_user(item, set_values);
}

/* ---- queues ---- */

static int send_message(const struct ipc_item *item, const struct queue_message *message)
{
	autofree struct msgbuf *buffer = allocate(sizeof(long) + message->size + 1);

	buffer->mtype = (long)message->type;
	memcpy(buffer->mtext, message->bytes, message->size);
	return msgsnd(item_id(item), buffer, message->size, IPC_NOWAIT) < 0 ? fail_to_set_up(item) : 0;
}

static int receive_last(struct work *work)
{
	const struct queue_message nothing = { .type = 1, .bytes = "" };
	struct msgbuf buffer;
	int result = send_message(work->item, &nothing);

	if (!result && msgrcv(item_id(work->item), &buffer, 0, 0, IPC_NOWAIT) < 0)
		return fail_to_set_up(work->item);
	return result;
}

static int send_last(struct work *work)
{
	int result = 0;

	for (size_t i = 0; !result && i < work->item->message_count; i++)
		result = send_message(work->item, &work->item->messages[i]);
	return result;
}

/* It has sent last, but the message was received. */
static int send_in_vain(struct work *work)
{
	const struct queue_message nothing = { .type = 1, .bytes = "" };

	return send_message(work->item, &nothing);
}

static int receive_in_vain(struct work *work)
{
	struct msgbuf buffer;

	return msgrcv(item_id(work->item), &buffer, 0, 0, IPC_NOWAIT) < 0 ? fail_to_set_up(work->item) : 0;
}

static int fill_queue(struct ipc_item *item)
{
	const IpcMsgEntry *entry = (const IpcMsgEntry *)item->entry;
	int result = 0;

	if (!item->message_count && entry->sender)
		return do_as(item, entry->sender, send_in_vain) ?:
								  do_as(item, entry->receiver, receive_in_vain);
	if (entry->receiver)
		result = do_as(item, entry->receiver, receive_last);
	return result ?: item->message_count ? do_as(item, entry->sender, send_last) : 0;
}

static int make_queue(struct snapshot *snapshot unused, struct ipc_item *item)
{
	if (item->is_there)
		return 0;
	return do_as(item, 0, create) ?: own_queue(item) ?: fill_queue(item);
}

/* ---- all ---- */

int ipc_make(struct snapshot *snapshot)
{
	int (*const make[IPC_KINDS])(struct snapshot *, struct ipc_item *) = { make_segment, make_set,
									       make_queue };
	struct ipc_items *items = ipc_items_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < items->count; i++)
		result = make[items->items[i].kind](snapshot, &items->items[i]);
	return result;
}

/* A segment that is marked for removal goes when its last process detaches from it; its key was gone at once. */
int ipc_finish(const struct snapshot *snapshot)
{
	const struct ipc_items *items = ipc_items_of(snapshot);

	for (size_t i = 0; i < items->count; i++) {
		const struct ipc_item *item = &items->items[i];

		if (item->kind != IPC_SEGMENT)
			continue;
		if (item->desc->mode & SHM_LOCKED && shmctl(item_id(item), SHM_LOCK, NULL) < 0)
			return fail_to_set_up(item);
		if (item->desc->mode & SHM_DEST && shmctl(item_id(item), IPC_RMID, NULL) < 0)
			return fail_to_set_up(item);
	}
	return 0;
}

static void put_values_back(const struct ipc_item *item)
{
	for (size_t i = 0; i < item_amount(item); i++) {
		int now = semctl(item_id(item), i, GETVAL);

		if (now < 0 || attempted(change_value(item, i, item->before[i] - now)))
			log_warning("semaphore %zu of set %d does not have its value of before", i,
				    item_id(item));
	}
}

void ipc_withdraw(struct snapshot *snapshot)
{
	const struct ipc_items *items = ipc_items_of(snapshot);

	for (size_t i = 0; i < items->count; i++) {
		struct ipc_item *item = &items->items[i];

		if (item->was_made)
			remove_object(item->kind, item_id(item));
		else if (item->before)
			put_values_back(item);
		item->was_made = false;
	}
}
