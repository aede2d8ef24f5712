/*
 * watched.c - finds the paths of watched inodes, and the inodes again. See watched.h.
 *
 * Whether a path leads to a watched inode is asked of the kernel: an inotify of criu's own watches it for a moment, and
 * its fdinfo shows the same three values. stat(2) would not do: on btrfs and overlayfs it shows another device. One
 * inotify serves for all questions, because the kernel takes milliseconds to close one.
 *
 * open_by_handle_at(2) needs a file of the same file system, not opened with O_PATH. To open one would be an event for
 * whoever watches it; to enter a directory is none. So criu enters the mount for a moment.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/kind.h"
#include "files/watched.h"
#include "image/message.h"

#define HANDLE_WORDS 16 /* FH_ENTRY_SIZES__min_entries: 128 bytes, MAX_HANDLE_SZ of Linux */
#define HANDLE_BYTES (HANDLE_WORDS * sizeof(uint64_t))

/* ---- fdinfo ---- */

/* A missing handle is not an error. */
static int parse_handle(const char *text, FhEntry *handle)
{
	const char *found = strstr(text, "fhandle-bytes:");
	unsigned char *bytes;
	int used = 0;

	handle->n_handle = HANDLE_WORDS;
	handle->handle = allocate_array(HANDLE_WORDS, sizeof(*handle->handle));
	if (!found)
		return 0;
	if (sscanf(found, "fhandle-bytes:%x fhandle-type:%x f_handle:%n", &handle->bytes, &handle->type,
		   &used) != 2 ||
	    !used || handle->bytes > HANDLE_BYTES)
		return -EINVAL;
	bytes = (unsigned char *)handle->handle;
	for (size_t i = 0; i < handle->bytes; i++)
		if (sscanf(found + used + 2 * i, "%2hhx", &bytes[i]) != 1)
			return -EINVAL;
	return 0;
}

int watched_parse(const char *text, struct watched *watched)
{
	const char *found = strstr(text, "ino:");

	watched->handle = message_new(FhEntry, fh_entry);
	if (!found || sscanf(found, "ino:%" SCNx64 " sdev:%x", &watched->inode, &watched->device) != 2)
		return -EINVAL;
	return parse_handle(text, watched->handle);
}

/* ---- state ---- */

struct mount {
	int number;
	uint32_t device;
	char *point;
	bool shows_all; /* its root is that of the file system */
};

struct watched_state {
	struct mount *mounts;
	size_t mount_count;
	bool knows_mounts;
	struct index files; /* dump: of the snapshot, by inode */
	bool knows_files;
	struct index ghosts; /* restore: by the device and number that they had */
	bool knows_ghosts;
	int inotify; /* of criu; 0: not needed yet */
};

static void clear_state(void *context)
{
	struct watched_state *state = context;

	for (size_t i = 0; i < state->mount_count; i++)
		free(state->mounts[i].point);
	free(state->mounts);
	if (state->inotify > 0)
		close(state->inotify);
	index_free(&state->files);
	index_free(&state->ghosts);
}

static const struct state_type watched_type = { sizeof(struct watched_state), clear_state };

/* ---- does a path lead to it? ---- */

static bool is_same(const struct watched *a, const struct watched *b)
{
	return a->inode == b->inode && a->device == b->device && a->handle->bytes == b->handle->bytes &&
	       a->handle->type == b->handle->type &&
	       !memcmp(a->handle->handle, b->handle->handle, a->handle->bytes);
}

static int own_inotify(struct snapshot *snapshot)
{
	struct watched_state *state = snapshot_state(snapshot, &watched_type);

	if (!state->inotify)
		state->inotify = inotify_init1(IN_CLOEXEC);
	return state->inotify;
}

static bool is_at(struct snapshot *snapshot, const struct watched *watched, const char *path, uint32_t flags)
{
	int fd = own_inotify(snapshot), number;
	autofree char *text = NULL;
	char place[32];
	struct watched found = { 0 };
	const char *line;
	bool result = false;

	snprintf(place, sizeof(place), "/proc/self/fdinfo/%d", fd);
	number = fd < 0 ? -1 : inotify_add_watch(fd, path, IN_UNMOUNT | flags);
	if (number < 0)
		return false;
	line = read_record_at(AT_FDCWD, place, &text) > 0 ? strstr(text, "inotify wd:") : NULL;
	if (line)
		result = !watched_parse(line, &found) && is_same(&found, watched);
	image_free(found.handle);
	return inotify_rm_watch(fd, number) == 0 && result;
}

bool watched_is_at(struct snapshot *snapshot, const struct watched *watched, const char *path)
{
	return is_at(snapshot, watched, path, IN_DONT_FOLLOW);
}

bool watched_is_behind(struct snapshot *snapshot, const struct watched *watched, const char *path)
{
	return is_at(snapshot, watched, path, 0);
}

/* ---- mounts ---- */

/* "\040" stands for a space. In place. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		unsigned code;

		if (*from == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
			*to = code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* "29 23 0:26 / /dev/shm rw,… - tmpfs …" */
static void add_mount(struct watched_state *state, const char *line)
{
	unsigned major, minor;
	char *root = NULL, *point = NULL;
	struct mount *mount;
	int number;

	if (sscanf(line, "%d %*d %u:%u %ms %ms", &number, &major, &minor, &root, &point) == 5) {
		unescape(point);
		mount = grow(&state->mounts, &state->mount_count);
		*mount = (struct mount){ number, major << 20 | minor, steal_pointer(&point),
					 !strcmp(root, "/") };
	}
	free(root);
	free(point);
}

/* Processes of the tree are in criu's own mount namespace. */
static struct watched_state *with_mounts(struct snapshot *snapshot)
{
	struct watched_state *state = snapshot_state(snapshot, &watched_type);
	autofree char *text = NULL;

	if (state->knows_mounts || read_text_at(AT_FDCWD, "/proc/self/mountinfo", &text) < 0)
		return state;
	state->knows_mounts = true;
	for (const char *line = text; *line; line = strchrnul(line, '\n'), line += *line == '\n')
		add_mount(state, line);
	return state;
}

/* Does the path lead to the root of this mount, or does another one hide it? */
static bool is_reached(const struct mount *mount)
{
	struct statx found;

	return statx(AT_FDCWD, mount->point, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_MNT_ID, &found) ==
		       0 &&
	       found.stx_mask & STATX_MNT_ID && found.stx_mnt_id == (uint64_t)mount->number;
}

const char *watched_mount_point(struct snapshot *snapshot, int number, uint32_t *device)
{
	const struct watched_state *state = with_mounts(snapshot);

	for (size_t i = 0; i < state->mount_count; i++)
		if (state->mounts[i].number == number && is_reached(&state->mounts[i])) {
			*device = state->mounts[i].device;
			return state->mounts[i].point;
		}
	return NULL;
}

const char *watched_system_mount_point(struct snapshot *snapshot, uint32_t device)
{
	const struct watched_state *state = with_mounts(snapshot);

	for (size_t i = 0; i < state->mount_count; i++)
		if (state->mounts[i].device == device && is_reached(&state->mounts[i]))
			return state->mounts[i].point;
	return NULL;
}

/* ---- the handle ---- */

/* An O_PATH descriptor; -1 and errno. */
static int open_here(const FhEntry *entry)
{
	union {
		struct file_handle handle;
		char room[sizeof(struct file_handle) + HANDLE_BYTES];
	} buffer = { .handle = { .handle_bytes = entry->bytes, .handle_type = entry->type } };

	memcpy(buffer.handle.f_handle, entry->handle, entry->bytes);
	return open_by_handle_at(AT_FDCWD, &buffer.handle, O_PATH | O_CLOEXEC);
}

static int open_in(const struct mount *mount, const FhEntry *entry)
{
	autoclose int before = open(".", O_PATH | O_CLOEXEC);
	int fd = -1;

	if (before < 0 || chdir(mount->point) < 0)
		return -1;
	fd = open_here(entry);
	if (fchdir(before) < 0)
		log_warning("cannot return to the working directory: %s", strerror(errno));
	return fd;
}

/* By the handle, in any mount of the file system: first in those that show all of it. -1: not found. */
static int open_handle(struct snapshot *snapshot, const struct watched *watched)
{
	const struct watched_state *state = with_mounts(snapshot);
	int fd = -1;

	if (!watched->handle->bytes)
		return -1;
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; fd < 0 && i < state->mount_count; i++)
			if (state->mounts[i].device == watched->device && state->mounts[i].shows_all == !pass)
				fd = open_in(&state->mounts[i], watched->handle);
	return fd;
}

/* ---- dump ---- */

bool watched_take_path(struct snapshot *snapshot, const struct watched *watched, const char *path)
{
	if (!watched_is_at(snapshot, watched, path))
		return false;
	watched->handle->path = copy_text(path);
	return true;
}

static bool find_by_handle(struct snapshot *snapshot, const struct watched *watched, bool *is_deleted)
{
	autoclose int fd = open_handle(snapshot, watched);
	autofree char *path = NULL;
	char place[32];
	struct stat found;

	if (fd < 0)
		return false;
	snprintf(place, sizeof(place), "/proc/self/fd/%d", fd);
	*is_deleted = fstat(fd, &found) == 0 && !found.st_nlink;
	return read_link_at(AT_FDCWD, place, &path) > 0 && watched_take_path(snapshot, watched, path);
}

static bool find_mount_point(struct snapshot *snapshot, const struct watched *watched)
{
	const struct watched_state *state = with_mounts(snapshot);

	for (size_t i = 0; i < state->mount_count; i++)
		if (state->mounts[i].device == watched->device &&
		    watched_take_path(snapshot, watched, state->mounts[i].point))
			return true;
	return false;
}

/* Is it a file that a process of the tree has open, or a working directory? */
static bool find_among_files(struct snapshot *snapshot, const struct watched *watched)
{
	struct watched_state *state = snapshot_state(snapshot, &watched_type);
	const struct file *file;

	for (size_t i = 0; !state->knows_files && i < snapshot->file_count; i++)
		if (snapshot->files[i]->seen && snapshot->files[i]->seen->link[0] == '/')
			index_set(&state->files, snapshot->files[i]->seen->stat.st_ino, snapshot->files[i]);
	state->knows_files = true;
	file = index_find(&state->files, watched->inode);
	return file && watched_take_path(snapshot, watched, file->seen->link);
}

void watched_find(struct snapshot *snapshot, const struct file *file, const struct watched *watched,
		  char *words)
{
	struct missing missing = { *watched, file, words, false };

	if ((!snapshot->policy.forces_irmap && find_by_handle(snapshot, watched, &missing.is_deleted)) ||
	    find_mount_point(snapshot, watched) || find_among_files(snapshot, watched))
		free(words);
	else
		watched_note_missing(snapshot, &missing);
}

/* ---- restore ---- */

const char *watched_why_invalid(const struct snapshot *snapshot, const FhEntry *handle)
{
	const struct file *file = handle->has_file ? snapshot_find_file(snapshot, handle->file) : NULL;

	if (handle->bytes > HANDLE_BYTES || handle->n_handle * sizeof(*handle->handle) < handle->bytes)
		return "the size of a file handle is invalid";
	if (handle->path && handle->path[0] != '/')
		return "a path is not absolute";
	if (handle->has_file && (!file || file->kind != &file_kind_regular || !file->nameless))
		return "a file that is watched is missing";
	return handle->path || handle->bytes ? NULL : "a watch has neither a path nor a file handle";
}

static bool leads_anywhere(const char *path)
{
	struct stat found;

	return path && lstat(path, &found) == 0;
}

/* criu 4.2.1 names no file: its ghosts tell which inodes they were. */
static void index_ghosts(struct watched_state *state, const struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);

	for (size_t i = 0; !state->knows_ghosts && i < all->count; i++) {
		const GhostFileEntry *ghost = all->items[i]->ghost;

		if (ghost && ghost->has_ino && ghost->has_dev)
			index_set(&state->ghosts, index_mix(ghost->dev, ghost->ino), all->items[i]);
	}
	state->knows_ghosts = true;
}

/* NULL: it has a name, if it exists. */
static struct nameless *find_nameless(struct snapshot *snapshot, const struct watched *watched)
{
	struct watched_state *state = snapshot_state(snapshot, &watched_type);
	struct nameless *found;

	if (watched->handle->has_file)
		return snapshot_find_file(snapshot, watched->handle->file)->nameless;
	if (watched->handle->path)
		return NULL;
	index_ghosts(state, snapshot);
	found = index_find(&state->ghosts, index_mix(watched->device, watched->inode));
	return found && found->ghost->dev == watched->device && found->ghost->ino == watched->inode ? found :
												      NULL;
}

int watched_check(struct snapshot *snapshot, const struct watched *watched)
{
	autoclose int fd = -1;

	if (find_nameless(snapshot, watched) || leads_anywhere(watched->handle->path))
		return 0;
	fd = open_handle(snapshot, watched);
	return fd < 0 ? -ENOENT : 0;
}

static int reach(struct snapshot *snapshot, const struct nameless *nameless, struct watched_place *place)
{
	char buffer[NAMELESS_PATH_SIZE];
	const char *path;
	int result = nameless_reach(snapshot, nameless->file, buffer, &path);

	if (result)
		return result;
	place->fd = fcntl(nameless->fd, F_DUPFD_CLOEXEC, 0);
	return place->fd < 0 ?
		       fail(errno, "cannot copy a descriptor of %s", nameless->file->entry->reg->name) :
		       0;
}

int watched_locate(struct snapshot *snapshot, const struct watched *watched, struct watched_place *place)
{
	const struct nameless *nameless = find_nameless(snapshot, watched);

	*place = (struct watched_place){ .fd = -1 };
	if (nameless)
		return reach(snapshot, nameless, place);
	if (leads_anywhere(watched->handle->path))
		place->path = watched->handle->path;
	else
		place->fd = open_handle(snapshot, watched);
	return place->path || place->fd >= 0 ? 0 : -ENOENT;
}

const char *watched_path(const struct watched_place *place, char buffer[32])
{
	snprintf(buffer, 32, "/proc/self/fd/%d", place->fd);
	return place->path ?: buffer;
}

/* Any of them may have to be found by its handle, if its path is gone; then the restore may fail. */
size_t watched_keeps(const FhEntry *handle)
{
	return !handle->path || handle->has_file;
}
