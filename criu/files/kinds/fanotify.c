/*
 * fanotify.c - fanotify(7) groups and their marks: of inodes, of mounts, of file systems.
 *
 * fdinfo shows flags and marks. As for inotify, a dump finds the path of each inode (watched.h), and the marks are made
 * last, because criu's own work must not become events: join() makes all of them, where this may fail, and removes them
 * at once; release() makes them again.
 *
 * Unread events are not saved. They name files, and the process that has used them, and nothing but using the file again
 * would queue such an event. Instead the restored process gets FAN_Q_OVERFLOW: it is told that it has missed some. A
 * group with an unlimited queue (FAN_UNLIMITED_QUEUE) can never get that, so it is refused while it has some.
 *
 * Permission events: whoever opens a marked file waits until the process allows it. While that is frozen, criu itself
 * would wait for ever. So a tree with such marks is refused before it is frozen (files/blockers.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/kinds/fanotify.h"
#include "files/kinds/opener.h"
#include "files/kinds/proc_files.h"
#include "files/blockers.h"
#include "files/watched.h"
#include "image/message.h"

#define KNOWN_FLAGS	 0x3fffU /* of fanotify_init(), Linux 6.18, without FAN_REPORT_MNT */
#define SURVIVES	 FAN_MARK_IGNORED_SURV_MODIFY
#define EVICTABLE	 0x200U /* FAN_MARK_EVICTABLE, Linux 5.19 */
#define IGNORE		 0x400U /* FAN_MARK_IGNORE, Linux 6.0 */
#define KNOWN_MARK_FLAGS (SURVIVES | EVICTABLE | IGNORE)

/* Restore: a mark that is made. */
struct made {
	const struct file *file;
	const FanotifyMarkEntry *entry;
	struct watched_place place;
};

struct fanotify_state {
	struct made *made;
	size_t made_count;
};

static struct fanotify_state *fanotify_state(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_fanotify);
}

static bool fanotify_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return !strcmp(seen->link, FANOTIFY_LINK);
}

/* ---- dump ---- */

static int refuse_group(const struct seen_file *seen, const char *why)
{
	return refuse("process %d (%s): descriptor %d (fanotify) %s", seen->holder.here, seen->holder.name,
		      seen->fd, why);
}

/* "flags:3 event-flags:8000" */
static int take_flags(const struct seen_file *seen, FanotifyFileEntry *entry, const char *value)
{
	autofree char *why = NULL;

	if (sscanf(value, "%x event-flags:%x", &entry->faflags, &entry->evflags) != 2)
		return fail(EINVAL, "cannot understand the fdinfo of an fanotify: %s", value);
	if (!(entry->faflags & ~KNOWN_FLAGS))
		return 0;
	why = format_text("was created with flags that are not supported yet: %#x",
			  entry->faflags & ~KNOWN_FLAGS);
	return refuse_group(seen, why);
}

static FanotifyMarkEntry *add_mark(FanotifyFileEntry *entry, MarkType type)
{
	FanotifyMarkEntry *mark = message_new(FanotifyMarkEntry, fanotify_mark_entry);

	mark->type = type;
	return *grow(&entry->mark, &entry->n_mark) = mark;
}

/* "ino:1 sdev:1a mflags:0 mask:100 ignored_mask:0 fhandle-bytes:c fhandle-type:1 f_handle:f087…" */
static int take_inode(struct snapshot *snapshot, struct file *file, const char *value)
{
	FanotifyMarkEntry *mark = add_mark(file->entry->ffy, MARK_TYPE__INODE);
	autofree char *text = format_text("ino:%s", value), *why = NULL;
	struct watched watched = { 0 };
	int result = watched_parse(text, &watched);

	mark->ie = message_new(FanotifyInodeMarkEntry, fanotify_inode_mark_entry);
	mark->ie->f_handle = watched.handle;
	mark->ie->i_ino = watched.inode;
	mark->s_dev = watched.device;
	if (result)
		return fail(-result, "cannot understand the fdinfo of an fanotify: %s", value);
	watched_find(snapshot, file, &watched, format_text("its mark of inode %" PRIu64, watched.inode));
	if (!watched.handle->path || !proc_path_is_of_tree(snapshot, watched.handle->path))
		return 0;
	why = format_text("has a mark of %s, about a process of the tree, which is not supported yet",
			  watched.handle->path);
	return refuse_group(file->seen, why);
}

/* "1a mflags:0 mask:100 ignored_mask:0": the number of the mount, or the device of the file system. */
static int take_mount(struct snapshot *snapshot, struct file *file, MarkType type, const char *value)
{
	FanotifyMarkEntry *mark = add_mark(file->entry->ffy, type);
	autofree char *why = NULL;
	const char *path;
	unsigned number;

	mark->me = message_new(FanotifyMountMarkEntry, fanotify_mount_mark_entry);
	if (sscanf(value, "%x", &number) != 1)
		return fail(EINVAL, "cannot understand the fdinfo of an fanotify: %s", value);
	if (type == MARK_TYPE__MOUNT) {
		mark->me->mnt_id = number;
		path = watched_mount_point(snapshot, number, &mark->s_dev);
	} else {
		mark->s_dev = number;
		path = watched_system_mount_point(snapshot, number);
	}
	mark->me->path = path ? copy_text(path) : NULL;
	if (path)
		return 0;
	why = format_text("has a mark of %s %#x, which no path leads to",
			  type == MARK_TYPE__MOUNT ? "mount" : "the file system on device", number);
	return refuse_group(file->seen, why);
}

/* Of the last mark. */
static int take_masks(const struct file *file, const char *value)
{
	const FanotifyFileEntry *entry = file->entry->ffy;
	FanotifyMarkEntry *mark = entry->mark[entry->n_mark - 1];
	const char *found = strstr(value, "mflags:");
	autofree char *why = NULL;

	if (!found || sscanf(found, "mflags:%x mask:%x ignored_mask:%x", &mark->mflags, &mark->mask,
			     &mark->ignored_mask) != 3)
		return fail(EINVAL, "cannot understand the fdinfo of an fanotify: %s", value);
	if (mark->mask & PERMISSION_EVENTS)
		return refuse_group(file->seen, WHY_NO_PERMISSION_EVENTS);
	if (!(mark->mflags & ~KNOWN_MARK_FLAGS))
		return 0;
	why = format_text("has a mark with flags that are not supported yet: %#x",
			  mark->mflags & ~KNOWN_MARK_FLAGS);
	return refuse_group(file->seen, why);
}

static int fanotify_fdinfo(struct snapshot *snapshot, struct file *file, const char *key, const char *value)
{
	int result;

	if (strncmp(key, "fanotify ", 9))
		return 0;
	key += 9;
	if (!strcmp(key, "flags"))
		return take_flags(file->seen, file->entry->ffy, value);
	if (!strcmp(key, "ino"))
		result = take_inode(snapshot, file, value);
	else if (!strcmp(key, "mnt_id"))
		result = take_mount(snapshot, file, MARK_TYPE__MOUNT, value);
	else if (!strcmp(key, "sdev"))
		result = take_mount(snapshot, file, MARK_TYPE__FILE_SYSTEM, value);
	else
		return refuse_group(
			file->seen,
			"watches mounts or what this criu does not know, which is not supported yet");
	return result ?: take_masks(file, value);
}

static int fanotify_describe(struct snapshot *snapshot unused, struct file *file)
{
	const struct seen_file *seen = file->seen;
	FanotifyFileEntry *entry = file->entry->ffy;
	autoclose int fd = files_borrow(seen);
	int bytes = 0;

	if (fd < 0)
		return fd;
	if (ioctl(fd, FIONREAD, &bytes) < 0)
		return fail(errno, "cannot ask descriptor %d for its events", seen->fd);
	if (!bytes)
		return 0;
	if (entry->faflags & FAN_UNLIMITED_QUEUE) {
		fail_advice(
			"try again when the process has read them; put the images where it does not watch");
		return refuse_group(
			seen,
			"has events that were not read, and its queue is unlimited (FAN_UNLIMITED_QUEUE): a restored process could not be told that it has missed them");
	}
	message_set(entry, unread, bytes);
	log_warning(
		"process %d (%s): descriptor %d (fanotify) has events that were not read: a process that is "
		"restored from these images is told that it has missed some (FAN_Q_OVERFLOW)",
		seen->holder.here, seen->holder.name, seen->fd);
	return 0;
}

static int fanotify_judge(struct snapshot *snapshot)
{
	watched_judge(snapshot);
	return 0;
}

/* ---- restore ---- */

static struct watched watched_of(const FanotifyMarkEntry *entry)
{
	return (struct watched){ entry->s_dev, entry->ie->i_ino, entry->ie->f_handle };
}

static bool is_mount_point(const char *path)
{
	struct statx found;

	return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &found) == 0 &&
	       found.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

/* Why the mark is invalid, or NULL. */
static const char *find_mistake(const struct snapshot *snapshot, const FanotifyMarkEntry *entry)
{
	if (entry->mask & PERMISSION_EVENTS)
		return "it has a mark for permission events, which are not supported";
	if (entry->mflags & ~KNOWN_MARK_FLAGS)
		return "a mark has unknown flags";
	if (entry->type == MARK_TYPE__INODE)
		return entry->ie ? watched_why_invalid(snapshot, entry->ie->f_handle) :
				   "a mark of an inode has none";
	if (entry->type != MARK_TYPE__MOUNT && entry->type != MARK_TYPE__FILE_SYSTEM)
		return "a mark is of an unknown type";
	return entry->me && entry->me->path && entry->me->path[0] == '/' ? NULL :
									   "a mark of a mount has no path";
}

static int not_found(const struct file *file, const FanotifyMarkEntry *entry)
{
	if (entry->ie->f_handle->path)
		return fail(ENOENT, "file %u (fanotify): %s, which has a mark, cannot be found", file->id,
			    entry->ie->f_handle->path);
	return fail(ENOENT, "file %u (fanotify): inode %" PRIu64 ", which has a mark, cannot be found",
		    file->id, entry->ie->i_ino);
}

static int check_mark(struct snapshot *snapshot, const struct file *file, const FanotifyMarkEntry *entry)
{
	const char *why = find_mistake(snapshot, entry);
	struct watched watched;

	if (why)
		return fail(EINVAL, "files.img: file %u (fanotify): %s", file->id, why);
	if (entry->type != MARK_TYPE__INODE)
		return is_mount_point(entry->me->path) ?
			       0 :
			       fail(ENOENT,
				    "file %u (fanotify): nothing is mounted on %s, where the process had marked what was",
				    file->id, entry->me->path);
	watched = watched_of(entry);
	return watched_check(snapshot, &watched) ? not_found(file, entry) : 0;
}

static int fanotify_check(struct snapshot *snapshot, struct file *file)
{
	const FanotifyFileEntry *entry = file->entry->ffy;
	int result = 0;

	if (entry->faflags & ~KNOWN_FLAGS)
		return fail(EINVAL, "files.img: file %u (fanotify) has unknown flags: %#x", file->id,
			    entry->faflags);
	for (size_t i = 0; !result && i < entry->n_mark; i++)
		result = check_mark(snapshot, file, entry->mark[i]);
	return result;
}

struct creation {
	unsigned flags, event_flags;
	int fd; /* -1: not created */
};

static int create(void *context)
{
	struct creation *creation = context;

	creation->fd = fanotify_init(creation->flags, creation->event_flags);
	return 0;
}

static bool has_mounts(const FanotifyFileEntry *entry)
{
	for (size_t i = 0; i < entry->n_mark; i++)
		if (entry->mark[i]->type != MARK_TYPE__INODE)
			return true;
	return false;
}

/*
 * The kernel tells less to a group that somebody without CAP_SYS_ADMIN has created (the pids of others, for instance),
 * and counts it for that user. So the holder's own rights are tried first. Marks of mounts need greater ones.
 */
static int create_for_holder(const struct file *file)
{
	const FanotifyFileEntry *entry = file->entry->ffy;
	struct creation creation = { entry->faflags | FAN_CLOEXEC, entry->evflags, -1 };
	struct place place = PLACE_HERE;

	if (!has_mounts(entry) && place_of_holder(file, &place))
		ignore(attempted(run_in(&place, create, &creation)));
	if (creation.fd < 0)
		ignore(create(&creation));
	return creation.fd < 0 ? fail(errno, "cannot create an fanotify with flags %#x and %#x",
				      creation.flags, creation.event_flags) :
				 creation.fd;
}

/* A file without a name can be reached only while files are opened. */
static int find_place(struct snapshot *snapshot, const struct file *file, const FanotifyMarkEntry *entry)
{
	struct fanotify_state *state = fanotify_state(snapshot);
	struct made *made = grow(&state->made, &state->made_count);
	struct watched watched;
	int result;

	*made = (struct made){ file, entry, { .fd = -1 } };
	if (entry->type != MARK_TYPE__INODE) {
		made->place.path = entry->me->path;
		return 0;
	}
	watched = watched_of(entry);
	result = watched_locate(snapshot, &watched, &made->place);
	return result == -ENOENT ? not_found(file, entry) : result;
}

/* In the order in which the process has made them: the newest is the first in the image. */
static int open_fanotify(struct snapshot *snapshot, struct file *file)
{
	const FanotifyFileEntry *entry = file->entry->ffy;
	int result = 0;

	for (size_t i = entry->n_mark; !result && i--;)
		result = find_place(snapshot, file, entry->mark[i]);
	return result ?: create_for_holder(file);
}

/* The kernel gives FAN_EVENT_ON_CHILD to marks of files, too, and some groups may not ask for it (FAN_REPORT_TARGET_FID). */
static int add_mask(int group, unsigned flags, uint64_t mask, const char *path)
{
	int result = fanotify_mark(group, flags, mask, AT_FDCWD, path);

	if (result < 0 && errno == ENOTDIR && mask & FAN_EVENT_ON_CHILD)
		result = fanotify_mark(group, flags, mask & ~FAN_EVENT_ON_CHILD, AT_FDCWD, path);
	return result;
}

/* -1 and errno. A mark that the kernel has emptied, because its file was modified, has neither mask. */
static int make_mark(const struct made *made)
{
	static const unsigned types[] = { [MARK_TYPE__INODE] = 0, [MARK_TYPE__MOUNT] = FAN_MARK_MOUNT };
	const FanotifyMarkEntry *entry = made->entry;
	unsigned type = entry->type == MARK_TYPE__FILE_SYSTEM ? FAN_MARK_FILESYSTEM : types[entry->type];
	unsigned flags = FAN_MARK_ADD | type | (entry->mflags & EVICTABLE) |
			 (made->place.path ? FAN_MARK_DONT_FOLLOW : 0);
	unsigned ignoring = entry->mflags & IGNORE ? IGNORE : FAN_MARK_IGNORED_MASK;
	char buffer[32];
	const char *path = watched_path(&made->place, buffer);

	if (entry->mask && add_mask(made->file->fd, flags, entry->mask, path) < 0)
		return -1;
	if (!entry->ignored_mask)
		return 0;
	return fanotify_mark(made->file->fd, flags | ignoring | (entry->mflags & SURVIVES),
			     entry->ignored_mask, AT_FDCWD, path);
}

static int try_mark(struct snapshot *snapshot, const struct made *made)
{
	const char *path = made->place.path;
	struct watched watched;

	if (make_mark(made) < 0)
		return fail(errno, "file %u (fanotify): cannot mark %s", made->file->id,
			    path ?: "a file that has no path");
	if (made->entry->type != MARK_TYPE__INODE)
		return 0;
	watched = watched_of(made->entry);
	if (path && !watched_is_at(snapshot, &watched, path))
		log_warning(
			"file %u (fanotify): %s was another file when the process was dumped: it is marked now",
			made->file->id, path);
	return 0;
}

static int remove_marks(const struct file *file)
{
	static const unsigned types[] = { 0, FAN_MARK_MOUNT, FAN_MARK_FILESYSTEM };
	size_t count = has_mounts(file->entry->ffy) ? array_size(types) : 1;

	for (size_t i = 0; i < count; i++)
		if (fanotify_mark(file->fd, FAN_MARK_FLUSH | types[i], 0, AT_FDCWD, NULL) < 0)
			return fail(errno, "file %u (fanotify): cannot remove its marks", file->id);
	return 0;
}

static int restore_unread(const struct file *file)
{
	const FanotifyFileEntry *entry = file->entry->ffy;

	if (!entry->unread)
		return 0;
	if (!(entry->faflags & FAN_UNLIMITED_QUEUE))
		return fanotify_put_overflow(file->fd);
	log_warning("file %u (fanotify): events that were not read are lost", file->id);
	return 0;
}

static int fanotify_join(struct snapshot *snapshot)
{
	const struct file_list *list = files_of_kind(snapshot, &file_kind_fanotify);
	const struct fanotify_state *state = fanotify_state(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < list->count; i++)
		if (list->items[i]->fd >= 0)
			result = restore_unread(list->items[i]);
	for (size_t i = 0; !result && i < state->made_count; i++)
		result = try_mark(snapshot, &state->made[i]);
	for (size_t i = 0; !result && i < list->count; i++)
		if (list->items[i]->fd >= 0)
			result = remove_marks(list->items[i]);
	return result;
}

static void fanotify_release(struct snapshot *snapshot)
{
	const struct fanotify_state *state = fanotify_state(snapshot);

	for (size_t i = 0; i < state->made_count; i++)
		if (make_mark(&state->made[i]) < 0)
			log_warning("file %u (fanotify): %s can no longer be marked: %s",
				    state->made[i].file->id, state->made[i].place.path ?: "a file",
				    strerror(errno));
}

static void fanotify_close(struct snapshot *snapshot)
{
	struct fanotify_state *state = fanotify_state(snapshot);

	for (size_t i = 0; i < state->made_count; i++)
		if (state->made[i].place.fd >= 0)
			close(state->made[i].place.fd);
	free(steal_pointer(&state->made));
	state->made_count = 0;
}

static size_t fanotify_keeps(const struct snapshot *snapshot)
{
	const struct file_list *list = files_of_kind(snapshot, &file_kind_fanotify);
	size_t count = 0;

	for (size_t i = 0; i < list->count; i++) {
		const FanotifyFileEntry *entry = list->items[i]->entry ? list->items[i]->entry->ffy : NULL;

		for (size_t mark = 0; entry && mark < entry->n_mark; mark++)
			if (entry->mark[mark]->ie)
				count += watched_keeps(entry->mark[mark]->ie->f_handle);
	}
	return count;
}

static const char *const fdinfo_needs[] = { "fanotify flags", NULL };

const struct file_kind file_kind_fanotify = {
	.name = "fanotify",
	.type = FD_TYPES__FANOTIFY,
	.message = offsetof(FileEntry, ffy),
	.state_size = sizeof(struct fanotify_state),
	.recognizes = fanotify_recognizes,
	.fdinfo = fanotify_fdinfo,
	.fdinfo_needs = fdinfo_needs,
	.describe = fanotify_describe,
	.judge = fanotify_judge,
	.check = fanotify_check,
	.open = open_fanotify,
	.join = fanotify_join,
	.release = fanotify_release,
	.close = fanotify_close,
	.keeps = fanotify_keeps,
};
