/*
 * mqueue.c - descriptors of POSIX message queues (mq_overview(7)).
 *
 * A queue is an inode of the kernel's file system for the ipc namespace; mqueue.img has each once. With a name it stays
 * when the tree ends, and a restore takes it again if nobody has sent to it or received from it since: its time of
 * modification tells that. Otherwise the restore makes it again, with its messages.
 *
 * Other processes that have the queue open are refused: receiving all messages to copy them is visible to them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/error.h"
#include "base/index.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/kinds/mqueue.h"
#include "image/message.h"
#include "kernel/place.h"
#include "kernel/proc.h"
#include "model/inode.h"

#define MQUEUE_MAGIC	 0x19800202 /* of its file system */
#define HIGHEST_PRIORITY 32767	    /* MQ_PRIO_MAX - 1 */
#define MOST_MESSAGES	 65536	    /* HARD_MSGMAX of Linux */
#define LONGEST_MESSAGE	 (16 << 20) /* HARD_MSGSIZEMAX */

struct queue {
	MqueueEntry *entry;	 /* owned */
	const struct file *file; /* dump: one of those that have it open */
	int fd;			 /* restore: for reading and writing; -1 */
	char *made_name; /* restore: owned; the name must go if the restore fails. NULL: it was not made, or must stay */
};

struct queues {
	struct queue *items;
	size_t count;
	struct index by_id;
	dev_t device;	     /* of the queues in `others`; 0: nobody was asked yet */
	struct index others; /* by inode: a process outside of the tree that has the queue open */
};

static struct queues *queues_of(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_mqueue);
}

static struct queue *find_queue(const struct queues *queues, uint64_t id)
{
	uintptr_t number = (uintptr_t)index_find(&queues->by_id, id);

	return number ? &queues->items[number - 1] : NULL;
}

static struct queue *add_queue(struct queues *queues, MqueueEntry *entry)
{
	struct queue *queue = grow(&queues->items, &queues->count);

	queue->entry = entry;
	queue->fd = -1;
	index_set(&queues->by_id, entry->id, (void *)queues->count);
	return queue;
}

static void free_queues(struct queues *queues)
{
	for (size_t i = 0; i < queues->count; i++) {
		if (queues->items[i].fd >= 0)
			close(queues->items[i].fd);
		free(queues->items[i].made_name);
		image_free(queues->items[i].entry);
	}
	index_free(&queues->by_id);
	index_free(&queues->others);
	free(queues->items);
	*queues = (struct queues){ 0 };
}

/* ---- dump ---- */

/*
 * The link looks like a path of the root directory. Only few files are there, so the one system call that tells them
 * apart is made here.
 */
static bool mqueue_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	autofree char *path = NULL;
	struct statfs found;

	if (!S_ISREG(seen->stat.st_mode) || seen->fd < 0 || seen->is_at_path || seen->info.flags & O_PATH ||
	    seen->link[0] != '/' || strchr(seen->link + 1, '/'))
		return false;
	path = seen_file_place(seen);
	return statfs(path, &found) == 0 && (unsigned)found.f_type == MQUEUE_MAGIC;
}

static int is_in_own_namespace(const struct seen_file *seen, const char *name)
{
	autoclose int fd = mqueue_open(name, O_RDONLY | O_CLOEXEC, 0, NULL);
	struct stat found;

	return fd >= 0 && fstat(fd, &found) == 0 && found.st_dev == seen->stat.st_dev &&
	       found.st_ino == seen->stat.st_ino;
}

/* The kernel tells who is registered, and how, but not with which value (sigevent). */
static int check_registration(const struct seen_file *seen, int fd)
{
	char text[128] = "";
	const char *found;
	int pid = 0;

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		return fail(errno, "cannot read %s", seen->link);
	found = strstr(text, "NOTIFY_PID:");
	if (!found || sscanf(found, "NOTIFY_PID:%d", &pid) != 1)
		return fail(EINVAL, "cannot understand the state of message queue %s", seen->link);
	if (!pid)
		return 0;
	return refuse(
		"process %d (%s): process %d wants to be notified about message queue %s (mq_notify()), "
		"which is not supported yet",
		seen->holder.here, seen->holder.name, pid, seen->link);
}

static void note_descriptors(struct queues *queues, pid_t pid)
{
	autofree int *fds = NULL;
	autoclose int proc = proc_open(pid);
	size_t count = 0;

	if (proc < 0 || attempted(proc_read_descriptors(proc, &fds, &count)))
		return;
	for (size_t i = 0; i < count; i++) {
		struct stat found;
		char name[32];

		snprintf(name, sizeof(name), "fd/%d", fds[i]);
		if (fstatat(proc, name, &found, 0) == 0 && found.st_dev == queues->device)
			index_set(&queues->others, found.st_ino, (void *)(uintptr_t)pid);
	}
}

/* Looks at all processes, because there is no other way; but few trees have queues. All queues are on one device. */
static int note_others(const struct snapshot *snapshot, struct queues *queues, dev_t device)
{
	autofree pid_t *pids = NULL;
	size_t count = 0;
	int result = proc_read_pids(&pids, &count);

	index_free(&queues->others);
	queues->device = device;
	for (size_t i = 0; !result && i < count; i++)
		if (pids[i] != getpid() && !(snapshot && snapshot_find_task_here(snapshot, pids[i])))
			note_descriptors(queues, pids[i]);
	return result;
}

/* A process outside of the tree that has the queue open; 0: none. */
static int find_other(const struct snapshot *snapshot, struct queues *queues, const struct stat *queue,
		      pid_t *other)
{
	int result = queues->device == queue->st_dev ? 0 : note_others(snapshot, queues, queue->st_dev);

	*other = (uintptr_t)index_find(&queues->others, queue->st_ino);
	return result;
}

static int check_others(const struct snapshot *snapshot, const struct seen_file *seen)
{
	pid_t other;
	int result = find_other(snapshot, queues_of(snapshot), &seen->stat, &other);

	if (result || !other)
		return result;
	return refuse(
		"process %d (%s): message queue %s is also open in process %d, which is not in the tree",
		seen->holder.here, seen->holder.name, seen->link, other);
}

static int describe_queue(struct queues *queues, const struct seen_file *seen, int fd)
{
	MqueueEntry *entry = message_new(MqueueEntry, mqueue_entry);
	struct mq_attr attributes;

	entry->id = seen->stat.st_ino;
	add_queue(queues, entry);
	if (mq_getattr(fd, &attributes) < 0)
		return fail(errno, "cannot stat message queue %s", seen->link);
	entry->uid = seen->stat.st_uid;
	entry->gid = seen->stat.st_gid;
	entry->mode = seen->stat.st_mode & 07777;
	entry->capacity = attributes.mq_maxmsg;
	entry->longest = attributes.mq_msgsize;
	entry->times = inode_times(&seen->stat);
	if (!seen->stat.st_nlink) {
		entry->name = proc_link_path(seen->link + 1);
		message_set(entry, unlinked, true);
		return 0;
	}
	entry->name = copy_text(seen->link + 1);
	if (!is_in_own_namespace(seen, entry->name))
		return refuse("process %d (%s): message queue %s is in another ipc namespace",
			      seen->holder.here, seen->holder.name, seen->link);
	return 0;
}

static int open_again(const struct seen_file *seen, int flags)
{
	autofree char *path = seen_file_place(seen);
	int fd = open(path, flags | O_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot open message queue %s", seen->link) : fd;
}

static int mqueue_describe(struct snapshot *snapshot, struct file *file)
{
	struct queues *queues = queues_of(snapshot);
	const struct seen_file *seen = file->seen;
	autoclose int fd = -1;
	int result;

	file->entry->mqueue->queue = seen->stat.st_ino;
	if (find_queue(queues, seen->stat.st_ino))
		return 0;
	fd = open_again(seen, O_RDONLY);
	if (fd < 0)
		return fd;
	result = describe_queue(queues, seen, fd);
	queues->items[queues->count - 1].file = file;
	result = result ?: check_registration(seen, fd) ?: check_others(snapshot, seen);
	/* Reading has changed one. */
	if (!result && inode_set_times(fd, queues->items[queues->count - 1].entry->times) < 0)
		return fail(errno, "cannot set the times of message queue %s", seen->link);
	return result;
}

static int copy_queue(struct queue *queue)
{
	autoclose int fd = open_again(queue->file->seen, O_RDWR);

	return fd < 0 ? fd : mqueue_copy(fd, queue->entry);
}

static int mqueue_save(struct snapshot *snapshot)
{
	struct queues *queues = queues_of(snapshot);
	struct image *image = NULL;
	int result = queues->count ? image_create(snapshot->images, &image, IMAGE_MQUEUE, 0) : 0;

	for (size_t i = 0; !result && i < queues->count; i++)
		result = copy_queue(&queues->items[i]) ?: image_write(image, &queues->items[i].entry->base);
	return image ? image_close(image) ?: result : 0;
}

static void mqueue_let_go(struct snapshot *snapshot, enum dump_end end unused)
{
	free_queues(queues_of(snapshot));
}

/* ---- restore ---- */

static const char *find_invalid_message(const MqueueEntry *entry)
{
	if (entry->n_messages > entry->capacity)
		return "number of messages";
	for (size_t i = 0; i < entry->n_messages; i++) {
		if (entry->messages[i]->priority > HIGHEST_PRIORITY)
			return "priority of a message";
		if (entry->messages[i]->content.len > entry->longest)
			return "size of a message";
	}
	return NULL;
}

/* NULL: all of it is possible. */
static const char *find_invalid_part(const MqueueEntry *entry)
{
	if ((!entry->name[0] || strlen(entry->name) > NAME_MAX || strchr(entry->name, '/') ||
	     !strcmp(entry->name, ".") || !strcmp(entry->name, "..")))
		return "name";
	if (!entry->capacity || entry->capacity > MOST_MESSAGES || !entry->longest ||
	    entry->longest > LONGEST_MESSAGE)
		return "size";
	if (entry->uid == UINT32_MAX || entry->gid == UINT32_MAX || entry->mode & ~07777)
		return "owner or mode";
	if (!inode_times_are_possible(entry->times))
		return "time";
	return find_invalid_message(entry);
}

static int mqueue_load(struct snapshot *snapshot)
{
	struct queues *queues = queues_of(snapshot);
	struct image *image;
	MqueueEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_MQUEUE, 0);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(image, mqueue_entry, &entry)) > 0) {
		const char *wrong = find_queue(queues, entry->id) ? "id" : find_invalid_part(entry);

		if (wrong)
			result = fail(EINVAL, "mqueue.img: queue %" PRIu64 " has an invalid %s", entry->id,
				      wrong);
		add_queue(queues, entry);
		if (wrong)
			break;
	}
	image_close_read(image);
	return result;
}

/* Is it the queue of the images, with the same messages? */
static bool are_same_messages(const MqueueEntry *a, const MqueueEntry *b)
{
	if (a->n_messages != b->n_messages)
		return false;
	for (size_t i = 0; i < a->n_messages; i++)
		if (a->messages[i]->priority != b->messages[i]->priority ||
		    a->messages[i]->content.len != b->messages[i]->content.len ||
		    (a->messages[i]->content.len &&
		     memcmp(a->messages[i]->content.data, b->messages[i]->content.data,
			    a->messages[i]->content.len)))
			return false;
	return true;
}

/*
 * The times of a queue count seconds. criu's copying has changed the second one, and put back the first: if they are
 * equal, somebody may have used the queue in the same second, after the dump. Then its messages are compared.
 */
static int compare_messages(int fd, const MqueueEntry *entry, bool *are_same)
{
	MqueueEntry *now;
	struct stat found;
	int result;

	*are_same = true;
	if (!entry->n_messages || fstat(fd, &found) < 0 || found.st_ctim.tv_sec != found.st_mtim.tv_sec)
		return 0;
	now = message_new(MqueueEntry, mqueue_entry);
	now->name = copy_text(entry->name);
	now->times = inode_times(&found);
	result = mqueue_copy(fd, now);
	*are_same = !result && are_same_messages(now, entry);
	image_free(now);
	return result;
}

static bool is_same(int fd, const MqueueEntry *entry)
{
	struct mq_attr attributes;
	struct stat found;

	return fstat(fd, &found) == 0 && mq_getattr(fd, &attributes) == 0 && found.st_ino == entry->id &&
	       entry->times && found.st_mtim.tv_sec == entry->times->modified &&
	       found.st_mtim.tv_nsec == entry->times->modified_ns &&
	       attributes.mq_curmsgs == (long)entry->n_messages &&
	       attributes.mq_maxmsg == (long)entry->capacity && attributes.mq_msgsize == (long)entry->longest;
}

/* To compare messages disturbs whoever waits for them; and the queue would be used by others than the tree. */
static int check_unused(struct queues *queues, const struct queue *queue)
{
	struct stat found;
	pid_t other = 0;
	int result = fstat(queue->fd, &found) < 0 ?
			     fail(errno, "cannot stat message queue /%s", queue->entry->name) :
			     find_other(NULL, queues, &found, &other);

	if (result || !other)
		return result;
	return fail(0, "message queue /%s of the images is in use by process %d", queue->entry->name, other);
}

static int check_queue(struct queues *queues, struct queue *queue)
{
	const MqueueEntry *entry = queue->entry;

	if (queue->fd >= 0 || entry->unlinked)
		return 0;
	queue->fd = mqueue_open(entry->name, O_RDWR | O_CLOEXEC, 0, NULL);
	if (queue->fd < 0 && errno == ENOENT)
		return 0;
	if (queue->fd < 0)
		return fail(errno, "cannot open message queue /%s", entry->name);
	if (is_same(queue->fd, entry)) {
		bool are_same = true;
		int result = check_unused(queues, queue) ?: compare_messages(queue->fd, entry, &are_same);

		if (result || are_same)
			return result;
	}
	fail(0, "message queue /%s exists, but it is not as it was at the dump", entry->name);
	fail_advice("remove it (mq_unlink(), or rm in a mount of mqueue), to have it made again");
	return -EINVAL;
}

static int mqueue_check(struct snapshot *snapshot, struct file *file)
{
	const MqueueFileEntry *entry = file->entry->mqueue;
	struct queue *queue = find_queue(queues_of(snapshot), entry->queue);

	if (!queue)
		return fail(EINVAL,
			    "files.img: file %u refers to message queue %" PRIu64
			    ", which is missing in mqueue.img",
			    file->id, entry->queue);
	if ((entry->flags & O_ACCMODE) == O_ACCMODE || entry->flags & O_PATH)
		return fail(EINVAL, "files.img: file %u is a message queue with invalid flags", file->id);
	return check_queue(queues_of(snapshot), queue);
}

/* ---- making ---- */

/* A name that is free: its own, if possible. */
static int make_with_some_name(struct queue *queue, const struct mq_attr *attributes)
{
	const MqueueEntry *entry = queue->entry;
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
	autofree char *name = copy_text(entry->name);
	int fd = mqueue_open(name, flags, 0600, attributes);

	if (fd < 0 && errno == EEXIST && entry->unlinked) {
		free(name);
		name = format_text("criu-%d-%" PRIu64, getpid(), entry->id);
		fd = mqueue_open(name, flags, 0600, attributes);
	}
	if (fd >= 0)
		queue->made_name = steal_pointer(&name);
	return fd;
}

/*
 * In a child with the owner's ids. The kernel charges the queue to the real user (RLIMIT_MSGQUEUE), so that is changed,
 * too. That user cannot trace the child, but could kill it in these microseconds, which would be a failure.
 */
static int make_as_owner(void *context)
{
	struct queue *queue = context;
	const MqueueEntry *entry = queue->entry;
	const struct mq_attr attributes = { .mq_maxmsg = entry->capacity, .mq_msgsize = entry->longest };
	int error;

	if (syscall(SYS_setresuid, entry->uid, (uid_t)-1, (uid_t)-1) < 0)
		return fail(errno, "cannot change to user %u", entry->uid);
	queue->fd = make_with_some_name(queue, &attributes);
	error = errno;
	if (queue->fd >= 0)
		return 0;
	fail(error, "cannot make message queue /%s", entry->name);
	if (error == EMFILE)
		fail_advice("a higher limit of message queues (ulimit -q)");
	return -error;
}

static int make_queue(struct queue *queue)
{
	const MqueueEntry *entry = queue->entry;
	struct place place = PLACE_HERE;
	int result;

	place.uid = entry->uid;
	place.gid = entry->gid;
	result = run_in(&place, make_as_owner, queue) ?: mqueue_fill(queue->fd, entry);
	if (result)
		return result;
	if (inode_set_owner(queue->fd, entry->uid, entry->gid) < 0 ||
	    inode_set_mode(queue->fd, entry->mode) < 0 || inode_set_times(queue->fd, entry->times) < 0)
		return fail(errno, "cannot set owner, mode and times of message queue /%s", entry->name);
	return 0;
}

/*
 * By its name: opened by its link in /proc, it would have O_LARGEFILE. mq_open() makes every descriptor close-on-exec;
 * if O_CLOEXEC is among its flags, it stays there (seen on Linux 6.18).
 */
static int open_mqueue(struct snapshot *snapshot, struct file *file)
{
	const MqueueFileEntry *entry = file->entry->mqueue;
	struct queue *queue = find_queue(queues_of(snapshot), entry->queue);
	int result = queue->fd >= 0 ? 0 : make_queue(queue);
	const char *name = queue->made_name ?: queue->entry->name;
	autoclose int fd = -1;
	struct stat found, wanted;

	if (result)
		return result;
	fd = mqueue_open(name, entry->flags & (O_ACCMODE | O_NONBLOCK | O_LARGEFILE), 0, NULL);
	if (fd < 0)
		return fail(errno, "cannot open message queue /%s", name);
	if (fstat(fd, &found) < 0 || fstat(queue->fd, &wanted) < 0 || found.st_ino != wanted.st_ino)
		return fail(0, "message queue /%s is suddenly another one", name);
	return steal_fd(&fd);
}

static void forget_name(struct queue *queue, bool is_removed)
{
	if (queue->made_name && is_removed)
		mqueue_unlink(queue->made_name);
	free(steal_pointer(&queue->made_name));
}

/* All are open: those that had no name lose it. */
static int mqueue_join(struct snapshot *snapshot)
{
	struct queues *queues = queues_of(snapshot);

	for (size_t i = 0; i < queues->count; i++)
		if (queues->items[i].entry->unlinked)
			forget_name(&queues->items[i], true);
	return 0;
}

static void mqueue_release(struct snapshot *snapshot)
{
	struct queues *queues = queues_of(snapshot);

	for (size_t i = 0; i < queues->count; i++)
		forget_name(&queues->items[i], false);
}

static void mqueue_close(struct snapshot *snapshot)
{
	struct queues *queues = queues_of(snapshot);

	for (size_t i = 0; i < queues->count; i++)
		forget_name(&queues->items[i], true);
	free_queues(queues);
}

static size_t mqueue_keeps(const struct snapshot *snapshot)
{
	struct index known = { 0 };
	const struct file_list *files = files_of_kind(snapshot, &file_kind_mqueue);
	size_t count = 0;

	for (size_t i = 0; i < files->count; i++) {
		const MqueueFileEntry *entry = files->items[i]->entry->mqueue;

		count += !index_find(&known, entry->queue);
		index_set(&known, entry->queue, (void *)entry);
	}
	index_free(&known);
	return count;
}

const struct file_kind file_kind_mqueue = {
	.name = "message queue",
	.type = FD_TYPES__MQUEUE,
	.message = offsetof(FileEntry, mqueue),
	.state_size = sizeof(struct queues),
	.recognizes = mqueue_recognizes,
	.describe = mqueue_describe,
	.save = mqueue_save,
	.let_go = mqueue_let_go,
	.load = mqueue_load,
	.check = mqueue_check,
	.open = open_mqueue,
	.join = mqueue_join,
	.release = mqueue_release,
	.close = mqueue_close,
	.keeps = mqueue_keeps,
};
