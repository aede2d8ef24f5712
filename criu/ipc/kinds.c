/*
 * kinds.c - what segments, sets of semaphores and message queues have in common: how the kernel lists them, and which
 * processes use them.
 *
 * The lists are those of /proc/sysvipc (proc(5)): one read for all objects, which needs no permission for any of them.
 * They show ids of processes and users as criu sees them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "ipc/ipc.h"
#include "kernel/proc.h"

const struct ipc_type ipc_types[IPC_KINDS] = {
	[IPC_SEGMENT] = { "shared memory segment", "/proc/sysvipc/shm", "/proc/sys/kernel/shm_next_id", "-m",
			  IMAGE_IPCNS_SHM, &ipc_shm_entry__descriptor, offsetof(IpcShmEntry, desc) },
	[IPC_SEMAPHORES] = { "semaphore set", "/proc/sysvipc/sem", "/proc/sys/kernel/sem_next_id", "-s",
			     IMAGE_IPCNS_SEM, &ipc_sem_entry__descriptor, offsetof(IpcSemEntry, desc) },
	[IPC_QUEUE] = { "message queue", "/proc/sysvipc/msg", "/proc/sys/kernel/msg_next_id", "-q",
			IMAGE_IPCNS_MSG, &ipc_msg_entry__descriptor, offsetof(IpcMsgEntry, desc) },
};

/* ---- the objects of the tree ---- */

static void free_items(void *state)
{
	struct ipc_items *items = state;

	for (size_t i = 0; i < items->count; i++) {
		struct ipc_item *item = &items->items[i];

		protobuf_c_message_free_unpacked(item->entry, NULL);
		queue_messages_free(item->messages, item->message_count);
		free(item->values);
		free(item->before);
	}
	free(items->items);
	message_queue_close(items->reader);
	*items = (struct ipc_items){ 0 };
}

static const struct state_type items_type = { sizeof(struct ipc_items), free_items };

struct ipc_items *ipc_items_of(const struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &items_type);
}

struct ipc_item *ipc_item_add(struct ipc_items *items, enum ipc_kind kind, ProtobufCMessage *entry)
{
	struct ipc_item *item = grow(&items->items, &items->count);

	item->kind = kind;
	item->entry = entry;
	item->desc = *(IpcDescEntry **)((char *)entry + ipc_types[kind].desc);
	return item;
}

char *ipc_describe(enum ipc_kind kind, int id, int32_t key)
{
	if (!key)
		return format_text("%s %d", ipc_types[kind].name, id);
	return format_text("%s %d (key %#x)", ipc_types[kind].name, id, (uint32_t)key);
}

/* ---- lists ---- */

static bool parse_segment(const char *line, struct ipc_object *object)
{
	return sscanf(line,
		      "%" SCNd32 " %d %" SCNo32 " %" SCNu64 " %d %*d %" SCNu64 " %" SCNu32 " %" SCNu32
		      " %" SCNu32 " %" SCNu32 " %*d %" SCNd64 " %" SCNd64,
		      &object->key, &object->id, &object->mode, &object->amount, &object->users[0],
		      &object->attachments, &object->uid, &object->gid, &object->cuid, &object->cgid,
		      &object->used, &object->changed) == 12;
}

static bool parse_set(const char *line, struct ipc_object *object)
{
	return sscanf(line,
		      "%" SCNd32 " %d %" SCNo32 " %" SCNu64 " %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32
		      " %" SCNd64 " %" SCNd64,
		      &object->key, &object->id, &object->mode, &object->amount, &object->uid, &object->gid,
		      &object->cuid, &object->cgid, &object->used, &object->changed) == 10;
}

static bool parse_queue(const char *line, struct ipc_object *object)
{
	int64_t sent, received;

	if (sscanf(line,
		   "%" SCNd32 " %d %" SCNo32 " %*u %" SCNu64 " %d %d %" SCNu32 " %" SCNu32 " %" SCNu32
		   " %" SCNu32 " %" SCNd64 " %" SCNd64 " %" SCNd64,
		   &object->key, &object->id, &object->mode, &object->amount, &object->users[0],
		   &object->users[1], &object->uid, &object->gid, &object->cuid, &object->cgid, &sent,
		   &received, &object->changed) != 13)
		return false;
	object->used = max(sent, received);
	return true;
}

void ipc_list_parse(enum ipc_kind kind, const char *text, struct ipc_list *list)
{
	bool (*const parse[IPC_KINDS])(const char *, struct ipc_object *) = { parse_segment, parse_set,
									      parse_queue };

	*list = (struct ipc_list){ 0 };
	for (const char *line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
		struct ipc_object object = { 0 };

		if (parse[kind](line + 1, &object))
			*grow(&list->items, &list->count) = object;
	}
}

int ipc_list_read(enum ipc_kind kind, struct ipc_list *list)
{
	autofree char *text = NULL;
	ssize_t size = read_text_at(-1, ipc_types[kind].list, &text);

	*list = (struct ipc_list){ 0 };
	if (size == -ENOENT)
		return 0;
	if (size < 0)
		return fail(-size, "cannot read %s", ipc_types[kind].list);
	ipc_list_parse(kind, text, list);
	return 0;
}

const struct ipc_object *ipc_list_find(const struct ipc_list *list, int id)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].id == id)
			return &list->items[i];
	return NULL;
}

/* ---- processes ---- */

static bool is_in_tree(const struct snapshot *snapshot, pid_t pid)
{
	const struct task *task = snapshot_find_task_here(snapshot, pid);

	return task && task->state != TASK_DEAD;
}

static int64_t seconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec;
}

bool ipc_user_is_outside(const struct snapshot *snapshot, pid_t pid, int64_t used)
{
	autoclose int proc = -1;
	struct proc_stat stat;
	int64_t start;

	if (pid <= 0 || is_in_tree(snapshot, pid))
		return false;
	proc = proc_open(pid);
	if (proc < 0 || attempted(proc_read_stat(proc, &stat)) || stat.state == 'Z')
		return false;
	start = seconds(CLOCK_REALTIME) - seconds(CLOCK_BOOTTIME) +
		(int64_t)(stat.start_time / sysconf(_SC_CLK_TCK));
	return start <= used + 1;
}

char *ipc_name_process(pid_t pid)
{
	autoclose int proc = proc_open(pid);
	struct proc_stat stat;

	if (proc < 0 || attempted(proc_read_stat(proc, &stat)))
		return format_text("process %d", pid);
	return format_text("process %d (%s)", pid, stat.comm);
}

static bool has_attached(pid_t pid, int id)
{
	autoclose int proc = proc_open(pid);
	struct vmas vmas = { 0 };
	bool has = false;

	if (proc >= 0 && !attempted(proc_read_maps(proc, &vmas)))
		for (size_t i = 0; !has && i < vmas.count; i++)
			has = !strncmp(vmas.items[i].path, "/SYSV", 5) && vmas.items[i].inode == (uint64_t)id;
	vmas_free(&vmas);
	return has;
}

char *ipc_name_attached(const struct snapshot *snapshot, int id)
{
	char *names = NULL;
	pid_t *pids = NULL;
	size_t count = 0;

	if (attempted(proc_read_pids(&pids, &count)))
		count = 0;
	for (size_t i = 0; i < count; i++) {
		autofree char *name = NULL, *before = names;

		if (is_in_tree(snapshot, pids[i]) || pids[i] == getpid() || !has_attached(pids[i], id)) {
			before = NULL;
			continue;
		}
		name = ipc_name_process(pids[i]);
		names = before ? format_text("%s, %s", before, name) : copy_text(name);
	}
	free(pids);
	return names ?: copy_text("a process that criu cannot see");
}
