/*
 * inotify.c - inotify(7) instances, their watches, and events that have not been read.
 *
 * fdinfo shows the watches. A dump finds the path of each (watched.h); an image has both, path and file handle. An
 * ioctl, INOTIFY_IOC_SETNEXTWD (Linux 4.17), lets a restore choose the number of each watch.
 *
 * What criu and newborns do with files during a restore must not become events. So the watches are made in join(),
 * where this may fail, but they watch for nothing yet; release() gives them their masks, when all of that is done.
 *
 * Events can be read only by taking them out of the queue, and cannot be put back as long as the watches exist. So a
 * dump only notes how many bytes there are. When it has ended the processes, and only criu has their inotify, it reads
 * those into an image beside the others. If the processes shall run on, it reads them in the kernel's memory
 * (kernel/watch_queue.h). If it may not do that, or dies between the end of the processes and the image, a restored
 * process gets IN_Q_OVERFLOW instead: it is told that it has missed events.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/kinds/inotify.h"
#include "files/kinds/proc_files.h"
#include "files/watched.h"
#include "image/image.h"
#include "image/message.h"
#include "kernel/place.h"
#include "kernel/watch_queue.h"
#include "kernel_constants.h"

#define KEPT_IN_MASK (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK)
#define NO_EVENT     IN_UNMOUNT /* a mask must not be 0, and this event is always watched for */

/* Dump: the inotify of processes that are going to end, or events of those that run on; restore: events of the image. */
struct kept {
	const struct file *file;
	int fd;	    /* -1: they run on */
	int unread; /* bytes, when they end */
	struct events events;
};

/* Restore: a watch that is made. */
struct made {
	const struct file *file;
	const InotifyWdEntry *entry;
	struct watched_place place;
};

struct inotify_state {
	struct watch_queue_reader *reader;
	bool has_no_reader; /* it cannot be opened */
	struct kept *kept;
	size_t kept_count;
	struct made *made;
	size_t made_count;
};

static struct inotify_state *inotify_state(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_inotify);
}

static struct kept *find_kept(const struct inotify_state *state, const struct file *file)
{
	for (size_t i = 0; i < state->kept_count; i++)
		if (state->kept[i].file == file)
			return &state->kept[i];
	return NULL;
}

static bool inotify_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return !strcmp(seen->link, "anon_inode:inotify");
}

/* ---- dump ---- */

/* "inotify wd:2 ino:1 sdev:1a mask:100 ignored_mask:0 fhandle-bytes:c fhandle-type:1 f_handle:f087…" */
static int inotify_fdinfo(struct snapshot *snapshot, struct file *file, const char *key, const char *value)
{
	InotifyFileEntry *entry = file->entry->ify;
	struct watched watched = { 0 };
	InotifyWdEntry *watch;
	const char *mask;

	if (strcmp(key, "inotify wd"))
		return 0;
	watch = *grow(&entry->wd, &entry->n_wd) = message_new(InotifyWdEntry, inotify_wd_entry);
	mask = strstr(value, "mask:");
	if (sscanf(value, "%x", &watch->wd) != 1 || !mask || sscanf(mask, "mask:%x", &watch->mask) != 1 ||
	    watched_parse(value, &watched)) {
		watch->f_handle = watched.handle ?: message_new(FhEntry, fh_entry);
		return fail(EINVAL, "cannot understand the fdinfo of an inotify: %s", value);
	}
	watch->i_ino = watched.inode;
	watch->s_dev = watched.device;
	watch->f_handle = watched.handle;
	watched_find(snapshot, file, &watched, format_text("watch %u", watch->wd));
	if (watched.handle->path && proc_path_is_of_tree(snapshot, watched.handle->path))
		return refuse(
			"process %d (%s): descriptor %d (inotify): watch %u is of %s, about a process of the tree, which is not supported yet",
			file->seen->holder.here, file->seen->holder.name, file->seen->fd, watch->wd,
			watched.handle->path);
	return 0;
}

/* False, with a record why: criu cannot read them. */
static bool keep_events(struct inotify_state *state, const struct file *file, int fd, size_t size)
{
	struct events events = { .bytes = allocate(size), .size = size };
	const char *why;

	if (!state->reader && !state->has_no_reader)
		state->has_no_reader = watch_queue_open(&state->reader);
	if (!state->reader || watch_queue_read(state->reader, fd, events.bytes, size)) {
		free(events.bytes);
		return false;
	}
	why = events_why_invalid(&events);
	if (why) {
		log_warning("file %u (inotify): criu cannot read its events: %s", file->id, why);
		free(events.bytes);
		return false;
	}
	*grow(&state->kept, &state->kept_count) = (struct kept){ .file = file, .fd = -1, .events = events };
	return true;
}

/* The processes run on, and keep their events. */
static void keep_events_of_living(struct inotify_state *state, const struct file *file, int fd, int size)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	if (!keep_events(state, file, fd, (size_t)size))
		log_warning(
			"process %d (%s): descriptor %d (inotify) has events that were not read: they stay there, and a "
			"process that is restored from these images is told that it has missed some (IN_Q_OVERFLOW)",
			file->seen->holder.here, file->seen->holder.name, file->seen->fd);
	attempt_forget(&attempt);
}

static int inotify_describe(struct snapshot *snapshot, struct file *file)
{
	const struct policy *policy = &snapshot->policy;
	autoclose int fd = files_borrow(file->seen);
	struct inotify_state *state = inotify_state(snapshot);
	int bytes = 0;

	if (fd < 0)
		return fd;
	if (ioctl(fd, FIONREAD, &bytes) < 0)
		return fail(errno, "cannot ask descriptor %d for its events", file->seen->fd);
	if (bytes)
		message_set(file->entry->ify, unread, bytes);
	if (!policy->leave_running && !policy->leave_stopped)
		*grow(&state->kept, &state->kept_count) = (struct kept){ .file = file, .fd = steal_fd(&fd) };
	else if (bytes)
		keep_events_of_living(state, file, fd, bytes);
	return 0;
}

static int inotify_judge(struct snapshot *snapshot)
{
	watched_judge(snapshot);
	return 0;
}

static int write_events(struct image *image, const struct kept *kept)
{
	InotifyEventsEntry entry = INOTIFY_EVENTS_ENTRY__INIT;

	entry.id = kept->file->id;
	entry.events.data = (uint8_t *)kept->events.bytes;
	entry.events.len = kept->events.size;
	return image_write(image, &entry.base);
}

/* The processes are dead, and the images complete: this one takes the place of one without events. */
static int save_events(struct snapshot *snapshot, struct inotify_state *state)
{
	struct image *image;
	int result = image_create_beside(snapshot->images, &image, IMAGE_INOTIFY_EVENTS, 0);

	for (size_t i = 0; !result && i < state->kept_count; i++) {
		struct events *events = &state->kept[i].events;
		int taken;

		if (!state->kept[i].unread)
			continue;
		taken = events_take(state->kept[i].fd, state->kept[i].unread, events);
		if (taken) {
			log_warning("file %u (inotify): cannot read its events: %s", state->kept[i].file->id,
				    strerror(-taken));
			continue;
		}
		result = write_events(image, &state->kept[i]);
	}
	result = image_close(image) ?: result;
	return result ?: image_store_replace(snapshot->images, IMAGE_INOTIFY_EVENTS, 0);
}

static bool has_unread(const struct inotify_state *state)
{
	for (size_t i = 0; i < state->kept_count; i++)
		if (state->kept[i].unread)
			return true;
	return false;
}

/* When the processes die, their files are closed, which is an event of their own making. */
static void inotify_end(struct snapshot *snapshot)
{
	struct inotify_state *state = inotify_state(snapshot);

	for (size_t i = 0; i < state->kept_count; i++)
		if (state->kept[i].fd >= 0 && ioctl(state->kept[i].fd, FIONREAD, &state->kept[i].unread) < 0)
			state->kept[i].unread = 0;
}

/* There is an image from the start, so that it is one of the dump. */
static int inotify_save(struct snapshot *snapshot)
{
	const struct inotify_state *state = inotify_state(snapshot);
	struct image *image;
	int result;

	if (!state->kept_count)
		return 0;
	result = image_create(snapshot->images, &image, IMAGE_INOTIFY_EVENTS, 0);
	for (size_t i = 0; !result && i < state->kept_count; i++)
		if (state->kept[i].events.size)
			result = write_events(image, &state->kept[i]);
	return image_close(image) ?: result;
}

static void forget_kept(struct inotify_state *state)
{
	for (size_t i = 0; i < state->kept_count; i++) {
		if (state->kept[i].fd >= 0)
			close(state->kept[i].fd);
		free(state->kept[i].events.bytes);
	}
	free(steal_pointer(&state->kept));
	state->kept_count = 0;
}

static void inotify_let_go(struct snapshot *snapshot, enum dump_end end)
{
	struct inotify_state *state = inotify_state(snapshot);
	struct attempt attempt;

	attempt_begin(&attempt);
	if (end == DUMP_KILLED && has_unread(state) && save_events(snapshot, state))
		log_warning(
			"events of an inotify are lost; a restored process is told so (IN_Q_OVERFLOW): %s",
			failure_text());
	attempt_forget(&attempt);
	forget_kept(state);
	watch_queue_close(steal_pointer(&state->reader));
}

/* ---- restore ---- */

static int load_events(struct snapshot *snapshot, const InotifyEventsEntry *entry)
{
	struct inotify_state *state = inotify_state(snapshot);
	struct file *file = snapshot_find_file(snapshot, entry->id);
	struct events events = { (char *)entry->events.data, entry->events.len };
	const char *why = !file || file->kind != &file_kind_inotify ? "it is no inotify" :
			  find_kept(state, file)		    ? "it has events twice" :
								      events_why_invalid(&events);

	if (why)
		return fail(EINVAL, "inotify-events.img: file %u: %s", entry->id, why);
	events.bytes = copy_bytes(events.bytes, events.size);
	*grow(&state->kept, &state->kept_count) = (struct kept){ .file = file, .fd = -1, .events = events };
	return 0;
}

static int inotify_load(struct snapshot *snapshot)
{
	struct image *image;
	InotifyEventsEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_INOTIFY_EVENTS, 0);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(image, inotify_events_entry, &entry)) > 0) {
		result = load_events(snapshot, entry);
		image_free(entry);
		if (result)
			break;
	}
	image_close_read(image);
	return result;
}

static struct watched watched_of(const InotifyWdEntry *entry)
{
	return (struct watched){ entry->s_dev, entry->i_ino, entry->f_handle };
}

static int not_found(const struct file *file, const InotifyWdEntry *entry)
{
	return fail(ENOENT,
		    entry->f_handle->path ?
			    "file %u (inotify): %s, which watch %u is of, cannot be found" :
			    "file %u (inotify): the file that %swatch %u is of cannot be found",
		    file->id, entry->f_handle->path ?: "", entry->wd);
}

static int compare_numbers(const void *left, const void *right)
{
	const InotifyWdEntry *a = *(InotifyWdEntry *const *)left, *b = *(InotifyWdEntry *const *)right;

	return a->wd < b->wd ? -1 : a->wd > b->wd;
}

/* Sorts the watches by their numbers, so that the next one gets a larger number than all of them. */
static int inotify_check(struct snapshot *snapshot, struct file *file)
{
	InotifyFileEntry *entry = file->entry->ify;

	if (entry->n_wd)
		qsort(entry->wd, entry->n_wd, sizeof(*entry->wd), compare_numbers);
	for (size_t i = 0; i < entry->n_wd; i++) {
		const InotifyWdEntry *watch = entry->wd[i];
		const struct watched watched = watched_of(watch);
		const char *why = watched_why_invalid(snapshot, watch->f_handle);

		if (!watch->wd || watch->wd > INT_MAX)
			why = "the number of a watch is invalid";
		if (i && entry->wd[i - 1]->wd == watch->wd)
			why = "two watches have the same number";
		if (why)
			return fail(EINVAL, "files.img: file %u (inotify): %s", file->id, why);
		if (watched_check(snapshot, &watched))
			return not_found(file, watch);
	}
	return 0;
}

static int create_inotify(void *argument unused)
{
	int fd = inotify_init1(IN_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot create an inotify") : fd;
}

/* The kernel counts instances and watches of the user who has created it (max_user_instances). */
static int create_for_holder(const struct file *file)
{
	const struct task *holder = file->holder;
	const CredsEntry *creds = holder && holder->cores[0]->thread_core ?
					  holder->cores[0]->thread_core->creds :
					  NULL;
	struct place place = PLACE_HERE;

	if (!creds || creds->euid == geteuid())
		return create_inotify(NULL);
	place.uid = creds->euid;
	return run_in(&place, create_inotify, NULL);
}

/* A file without a name can be reached only while files are opened. */
static int open_inotify(struct snapshot *snapshot, struct file *file)
{
	const InotifyFileEntry *entry = file->entry->ify;
	struct inotify_state *state = inotify_state(snapshot);

	for (size_t i = 0; i < entry->n_wd; i++) {
		const struct watched watched = watched_of(entry->wd[i]);
		struct made *made = grow(&state->made, &state->made_count);
		int result = watched_locate(snapshot, &watched, &made->place);

		made->file = file;
		made->entry = entry->wd[i];
		if (result)
			return result == -ENOENT ? not_found(file, entry->wd[i]) : result;
	}
	return create_for_holder(file);
}

/* -1 and errno. */
static int add_watch(int inotify, const struct made *made, uint32_t mask)
{
	char buffer[32];

	return inotify_add_watch(inotify, watched_path(&made->place, buffer),
				 made->place.path ? mask | IN_DONT_FOLLOW : mask);
}

static int make_watch(struct snapshot *snapshot, const struct made *made)
{
	const struct file *file = made->file;
	const struct watched watched = watched_of(made->entry);
	const char *path = made->place.path;
	uint32_t wanted = made->entry->wd;
	int number;

	if (path && !watched_is_at(snapshot, &watched, path))
		log_warning(
			"file %u (inotify): %s was another file when the process was dumped: it is watched now",
			file->id, path);
	if (ioctl(file->fd, INOTIFY_IOC_SETNEXTWD, wanted) < 0)
		return fail(errno, "file %u (inotify): cannot choose number %u for a watch", file->id,
			    wanted);
	number = add_watch(file->fd, made, NO_EVENT);
	if (number < 0)
		return fail(errno, "file %u (inotify): cannot watch %s", file->id,
			    path ?: "a file that has no path");
	if ((uint32_t)number != wanted)
		return fail(EEXIST, "file %u (inotify): watches %u and %d lead to the same file: %s",
			    file->id, wanted, number, path ?: "(it has no path)");
	return 0;
}

static int restore_events(const struct inotify_state *state, const struct file *file)
{
	const struct kept *kept = find_kept(state, file);

	if (kept)
		return events_put(file->fd, &kept->events);
	if (!file->entry->ify->unread)
		return 0;
	log_warning(
		"file %u (inotify): the images do not have its events; the process is told that it has missed some",
		file->id);
	return events_put(file->fd, NULL);
}

/* When all events are in the queues, which must not be watched for then. */
static int inotify_join(struct snapshot *snapshot)
{
	const struct file_list *list = files_of_kind(snapshot, &file_kind_inotify);
	const struct inotify_state *state = inotify_state(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < list->count; i++)
		if (list->items[i]->fd >= 0)
			result = restore_events(state, list->items[i]);
	for (size_t i = 0; !result && i < state->made_count; i++)
		result = make_watch(snapshot, &state->made[i]);
	return result;
}

static void inotify_release(struct snapshot *snapshot)
{
	struct inotify_state *state = inotify_state(snapshot);

	for (size_t i = 0; i < state->made_count; i++) {
		const struct made *made = &state->made[i];
		uint32_t mask = made->entry->mask & KEPT_IN_MASK;
		int number = mask ? add_watch(made->file->fd, made, mask) : (int)made->entry->wd;

		if (number < 0)
			log_warning("file %u (inotify): %s can no longer be watched: %s", made->file->id,
				    made->place.path ?: "a file", strerror(errno));
		else if ((uint32_t)number != made->entry->wd)
			log_warning("file %u (inotify): %s has been replaced during the restore",
				    made->file->id, made->place.path ?: "a file");
	}
}

static void inotify_close(struct snapshot *snapshot)
{
	struct inotify_state *state = inotify_state(snapshot);

	for (size_t i = 0; i < state->made_count; i++)
		if (state->made[i].place.fd >= 0)
			close(state->made[i].place.fd);
	free(steal_pointer(&state->made));
	state->made_count = 0;
	forget_kept(state);
}

static size_t inotify_keeps(const struct snapshot *snapshot)
{
	const struct file_list *list = files_of_kind(snapshot, &file_kind_inotify);
	size_t count = 0;

	for (size_t i = 0; i < list->count; i++) {
		const InotifyFileEntry *entry = list->items[i]->entry ? list->items[i]->entry->ify : NULL;

		for (size_t wd = 0; entry && wd < entry->n_wd; wd++)
			count += watched_keeps(entry->wd[wd]->f_handle);
	}
	return count;
}

const struct file_kind file_kind_inotify = {
	.name = "inotify",
	.type = FD_TYPES__INOTIFY,
	.message = offsetof(FileEntry, ify),
	.state_size = sizeof(struct inotify_state),
	.recognizes = inotify_recognizes,
	.fdinfo = inotify_fdinfo,
	.describe = inotify_describe,
	.judge = inotify_judge,
	.save = inotify_save,
	.end = inotify_end,
	.let_go = inotify_let_go,
	.load = inotify_load,
	.check = inotify_check,
	.open = open_inotify,
	.join = inotify_join,
	.release = inotify_release,
	.close = inotify_close,
	.keeps = inotify_keeps,
};
