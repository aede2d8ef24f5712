/*
 * regular.c - files that have a path: regular files, directories, devices without state, and whatever was opened with
 * O_PATH.
 *
 * Their content is not saved: restore opens the same path and checks that it still leads to the same file (size, build
 * id, permissions). Files that their path no longer leads to are in ghost.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/devices.h"
#include "files/ghost.h"
#include "files/kind.h"
#include "files/kinds/build_id.h"
#include "files/kinds/device_file.h"
#include "files/kinds/grown.h"
#include "files/kinds/opener.h"
#include "files/kinds/path_checks.h"
#include "files/kinds/proc_files.h"
#include "files/words.h"
#include "image/message.h"

static bool is_openable(const struct stat *file, int flags)
{
	return S_ISREG(file->st_mode) || S_ISDIR(file->st_mode) ||
	       (is_device(file) && device_can_reopen(file, flags));
}

/*
 * Only the path matters, whatever it leads to: of a symbolic link, a socket or a device that was opened with O_PATH, or
 * of a file of another kind (files_add_path()).
 */
static bool is_only_path(const struct seen_file *seen)
{
	return seen->fd < 0 ? S_ISFIFO(seen->stat.st_mode) : seen->info.flags & O_PATH;
}

static bool regular_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	if (seen->link[0] != '/')
		return false;
	if (is_only_path(seen) || (S_ISLNK(seen->stat.st_mode) && !seen->stat.st_nlink))
		return true;
	return is_openable(&seen->stat, seen->info.flags);
}

/* Is it in a mount that is in no mount tree: open_tree(), fsmount(), or a lazy umount()? */
static bool is_in_hidden_mount(const struct seen_file *seen)
{
	autofree char *text = NULL, *wanted = NULL;

	if (seen->info.mount < 0 || read_text_at(seen->holder.proc, "mountinfo", &text) < 0)
		return false;
	wanted = format_text("%d ", seen->info.mount);
	for (const char *line = text; *line; line = strchrnul(line, '\n'), line += *line == '\n')
		if (!strncmp(line, wanted, strlen(wanted)))
			return false;
	return true;
}

/* The reason why restore would not find the file by its path. */
static const char *why_not_found(const struct seen_file *seen, int error)
{
	if (is_in_hidden_mount(seen))
		return "it is in a detached mount, which is not supported yet: attach or close it first";
	return error == ENOENT ? "its path no longer exists" :
	       error	       ? strerror(error) :
				 "its path now leads to another file";
}

static int refuse_path(const struct snapshot *snapshot, const struct seen_file *seen, const char *why)
{
	file_advise_external(snapshot, seen);
	return refuse_file(seen, why);
}

/* The path of the file was deleted. Was it its last name? A deleted directory has no other. */
static int describe_nameless(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	struct index *mounts = &nameless_files_of(snapshot)->mounts;
	int mount = seen->info.mount;

	if (nameless_find(snapshot, file))
		return 0;
	if (!index_find(mounts, mount) && is_in_hidden_mount(seen)) {
		file->nameless->is_refused = true;
		return refuse_path(snapshot, seen, why_not_found(seen, 0));
	}
	index_set(mounts, mount, file);
	if (seen->stat.st_nlink && !S_ISDIR(seen->stat.st_mode) && !ghost_has_hidden_name(seen))
		return 0; /* links_find() looks for another */
	return ghost_describe(snapshot, file);
}

/* A file of /proc about a process. A directory that has ended can be open, but can no longer be entered. */
static int describe_proc_file(struct snapshot *snapshot, struct file *file, enum proc_subject subject)
{
	const struct seen_file *seen = file->seen;
	autofree char *path = proc_link_path(seen->link);

	if (subject == PROC_THREAD && seen->fd < 0)
		return refuse_file(
			seen,
			"it is in /proc, about a thread that is not the first of its process, which is not supported yet");
	if (subject == PROC_ENDED && (seen->fd < 0 || !proc_file_is_common(path)))
		return refuse_file(seen, "it is a file of /proc about a process that has ended");
	if (subject == PROC_ENDED) {
		free(file->entry->reg->name);
		file->entry->reg->name = steal_pointer(&path);
		proc_file_note_ended(snapshot, file);
	}
	return 0;
}

/* Checks that restore will find the same file by its path, or has what it takes to make it again. */
static int check_regular_path(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	enum proc_subject subject = proc_file_seen(snapshot, seen);
	struct stat found;

	if (subject != PROC_NOBODY)
		return describe_proc_file(snapshot, file, subject);
	if (!seen->stat.st_nlink || ghost_has_hidden_name(seen))
		return describe_nameless(snapshot, file);
	if (seen->is_at_path)
		return 0;
	if (proc_link_is_deleted(seen->link) && stat(seen->link, &found) < 0)
		return describe_nameless(snapshot, file);
	if (stat(seen->link, &found) < 0)
		return refuse_path(snapshot, seen, why_not_found(seen, errno));
	if (found.st_ino != seen->stat.st_ino || found.st_dev != seen->stat.st_dev)
		return refuse_path(snapshot, seen, why_not_found(seen, 0));
	return 0;
}

static void add_build_id(RegFileEntry *entry)
{
	autoclose int fd = open(entry->name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	uint32_t words[BUILD_ID_WORDS];

	entry->n_build_id = fd < 0 ? 0 : build_id_read(fd, words);
	if (entry->n_build_id)
		entry->build_id = copy_bytes(words, entry->n_build_id * sizeof(*words));
}

/* A deleted device file without another path to the device: made again, if it may be. */
static bool is_ghost_device(const struct snapshot *snapshot, const struct stat *device)
{
	return !device->st_nlink && !snapshot->policy.evades_devices &&
	       ghost_is_possible(device->st_mode, device->st_rdev);
}

static int check_place(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	int result;

	if (is_device(&seen->stat) && !(seen->info.flags & O_PATH) && !is_ghost_device(snapshot, &seen->stat))
		return device_file_describe(snapshot, seen, file->entry->reg);
	result = path_check_mount(snapshot, seen) ?: check_regular_path(snapshot, file);
	return result || file->nameless ? result : path_check_opening(snapshot, seen);
}

static int regular_describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	RegFileEntry *entry = file->entry->reg;
	int result;

	entry->name = file->external ? external_key_text(&file->external->key) : copy_text(seen->link);
	message_set(entry, mode, seen->stat.st_mode);
	result = file->external ? 0 : check_place(snapshot, file);
	if (file->nameless) {
		free(entry->name);
		entry->name = nameless_path(seen->link);
	}
	if (file->external)
		message_set(entry, ext, true);
	entry->pos = seen->info.position;
	if (!result && S_ISREG(seen->stat.st_mode)) {
		message_set(entry, size, seen->stat.st_size);
		/* mapped or executed: its content must be the same */
		if (seen->fd < 0 && !file->nameless && !snapshot->policy.validates_by_size)
			add_build_id(entry);
	}
	return result;
}

static int check_build_id(const RegFileEntry *entry, int fd)
{
	uint32_t words[BUILD_ID_WORDS];

	if (entry->n_build_id > BUILD_ID_WORDS || build_id_read(fd, words) != entry->n_build_id ||
	    memcmp(words, entry->build_id, entry->n_build_id * sizeof(*words)))
		return fail(EINVAL, "%s is a different build now than when the process was dumped",
			    entry->name);
	return 0;
}

/* An external file has the key of --external instead of a path. */
static bool regular_external_key(const struct snapshot *snapshot unused, const struct file *file,
				 struct external_key *key)
{
	const RegFileEntry *entry = file->entry->reg;

	return external_key_parse(entry->name, key) && (key->type == EXTERNAL_PATH) == !entry->ext;
}

/* Whether a descriptor with these flags allows what the file allows. */
static bool has_access(int flags, int wanted)
{
	if (flags < 0 || wanted & O_PATH)
		return flags >= 0;
	return !(flags & O_PATH) &&
	       ((flags & O_ACCMODE) == O_RDWR || (flags & O_ACCMODE) == (wanted & O_ACCMODE));
}

static int regular_check_external(struct snapshot *snapshot unused, struct file *file,
				  const struct stat *found)
{
	static const char *const words[] = { [O_RDONLY] = "open for reading",
					     [O_WRONLY] = "open for writing",
					     [O_RDWR] = "open for reading and writing",
					     [O_ACCMODE] = "open for ioctl()" };
	const RegFileEntry *entry = file->entry->reg;
	mode_t was = entry->has_mode ? entry->mode : S_IFREG;

	if ((found->st_mode & S_IFMT) != (was & S_IFMT))
		return file_is_wrong_external(file, S_ISREG(was) ? "a regular file" :
						    S_ISDIR(was) ? "a directory" :
								   "such a device");
	if (!has_access(fcntl(file->external->fd, F_GETFL), entry->flags))
		return file_is_wrong_external(file, words[entry->flags & O_ACCMODE]);
	return 0;
}

static enum file_lateness regular_lateness(const struct snapshot *snapshot, const struct file *file)
{
	enum proc_subject subject = proc_file_subject(snapshot, file);

	return subject == PROC_PROCESS ? FILE_NEEDS_PROCESS :
	       subject == PROC_THREAD  ? FILE_NEEDS_THREAD :
					 FILE_IS_EARLY;
}

/* A path that was opened with O_NOFOLLOW may end with a symbolic link. */
static int stat_path(const RegFileEntry *entry, struct stat *found)
{
	return fstatat(AT_FDCWD, entry->name, found, entry->flags & O_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0);
}

/* The kernel lets nobody map one. A newborn would open it unchecked. */
static int check_proc_file(const struct file *file)
{
	return file->is_only_mapped ? fail(EINVAL, "files.img: file %u (%s) is mapped, and about a process",
					   file->id, file->entry->reg->name) :
				      0;
}

/*
 * The path may lead to another device now: the plugin that restores the mappings of this one knows where it is. criu
 * 4.2 does not write the device's number: then the device that is there now decides.
 */
static bool is_device_of_plugin(const struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	struct stat device = { .st_mode = entry->mode, .st_rdev = entry->rdev };

	if (!file->is_only_mapped || !entry->has_mode || !is_device(&device))
		return false;
	if (!entry->has_rdev && stat_path(entry, &device) < 0)
		return true;
	return !is_openable(&device, entry->flags);
}

static int regular_check(struct snapshot *snapshot, struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	const struct policy *policy = &snapshot->policy;
	struct external_key key;
	struct stat found;
	int result;

	if (entry->ext && regular_external_key(snapshot, file, &key))
		return file_lacks_external(snapshot, &key);
	if (entry->name[0] != '/')
		return fail(EINVAL, "files.img: file %u has no absolute path: %s", file->id, entry->name);
	if (entry->ended || regular_lateness(snapshot, file))
		return check_proc_file(file); /* there is no process yet */
	if (file->nameless)
		return nameless_check(snapshot, file);
	file->is_of_plugin = is_device_of_plugin(file);
	if (file->is_of_plugin)
		return 0;
	device_file_evade(snapshot, file->entry->reg);
	if (stat_path(entry, &found) < 0)
		return fail(errno, "%s, which the process had open, cannot be found", entry->name);
	/* Opening any other kind of file could have effects, or block. */
	if (!file->is_only_path && !(entry->flags & O_PATH) && !is_openable(&found, entry->flags))
		return fail(
			EINVAL,
			"files.img: file %u (%s) is neither a regular file nor a directory, nor a device that can be opened again",
			file->id, entry->name);
	if (entry->has_mode && !policy->skips_mode_check && found.st_mode != entry->mode) {
		fail_advice((found.st_mode ^ entry->mode) & S_IFMT ? "put back what was there" :
								     "--skip-file-rwx-check");
		return fail(EINVAL, "%s has mode %o now and had %o when the process was dumped", entry->name,
			    found.st_mode, entry->mode);
	}
	if (S_ISREG(found.st_mode))
		result = grown_check(file_kind_state(snapshot, &file_kind_regular), policy->grown, file,
				     &found);
	else
		result = device_file_check(entry, &found);
	if (result)
		return result;
	if (entry->n_build_id && !policy->validates_by_size) {
		autoclose int fd = open(entry->name, O_RDONLY | O_CLOEXEC);

		return fd < 0 ? fail(errno, "cannot open %s", entry->name) : check_build_id(entry, fd);
	}
	return 0;
}

/* Takes over the descriptor. */
static int set_position(const RegFileEntry *entry, int fd)
{
	/* The position is set even for O_APPEND, which only determines where writes go. */
	if (entry->pos && !(entry->flags & O_PATH) && lseek(fd, entry->pos, SEEK_SET) < 0 &&
	    errno != ESPIPE) {
		close(fd);
		return fail(errno, "cannot set the position of %s to %llu", entry->name,
			    (unsigned long long)entry->pos);
	}
	return fd;
}

static int open_by_path(const struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	int fd = open_for_holder(file, entry->name, flags_to_reopen(entry->flags));

	return fd < 0 ? fail(errno, "cannot open %s with its original flags (%#o)", entry->name,
			     entry->flags) :
			fd;
}

/* What it shows has a position only when the process is complete: release() sets it. */
static int open_late(struct snapshot *snapshot unused, struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	struct stat found;

	if (stat_path(entry, &found) < 0 || !(entry->flags & O_PATH || is_openable(&found, entry->flags)))
		return fail(ENOENT, "cannot find %s", entry->name);
	return open_by_path(file);
}

/*
 * When the kernel is asked for the path again, it notes who owns the process now. The owner in an open directory would
 * still be that of the newborn: root, if that was not dumpable.
 */
static void release_proc_files(const struct snapshot *snapshot)
{
	const struct file_list *list = files_of_kind(snapshot, &file_kind_regular);

	for (size_t i = 0; i < list->count; i++) {
		const struct file *file = list->items[i];
		const RegFileEntry *entry = file->entry->reg;
		struct stat found;

		if (file->fd < 0 || !file_lateness(snapshot, file))
			continue;
		if (stat(entry->name, &found) < 0)
			log_warning("cannot find %s: %s", entry->name, strerror(errno));
		if (!entry->pos || entry->flags & O_PATH)
			continue;
		if (lseek(file->fd, entry->pos, SEEK_SET) < 0 && errno != ESPIPE)
			log_warning("cannot set the position of %s: %s", entry->name, strerror(errno));
	}
}

static int open_file(struct snapshot *snapshot, struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	int fd;

	if (entry->ended)
		return proc_file_open_ended(entry->name, flags_to_reopen(entry->flags));
	fd = file->nameless ? nameless_open(snapshot, file) : open_by_path(file);
	return fd < 0 ? fd : set_position(entry, fd);
}

/*
 * A file that was saved as external is the same one, or its copy: the process continues at its position. A descriptor
 * in place of a path is any other file, such as a new log.
 */
static int open_external_file(struct snapshot *snapshot unused, struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	int fd;

	if (file->external->key.type == EXTERNAL_PATH)
		return file_share_external(file);
	fd = file_open_external_again(file, flags_to_reopen(entry->flags));
	return fd < 0 ? fd : set_position(entry, fd);
}

static void regular_release(struct snapshot *snapshot)
{
	release_proc_files(snapshot);
	links_release(snapshot);
	grown_cut(file_kind_state(snapshot, &file_kind_regular));
}

static void regular_close(struct snapshot *snapshot)
{
	grown_free(file_kind_state(snapshot, &file_kind_regular));
	nameless_close(snapshot);
}

static int load_files(struct snapshot *snapshot)
{
	int result = nameless_load(snapshot);

	if (!result)
		proc_files_find_ended(snapshot);
	return result;
}

static int judge_files(struct snapshot *snapshot)
{
	return links_find(snapshot) ?: ghosts_judge(snapshot);
}

static void let_files_go(struct snapshot *snapshot, enum dump_end end)
{
	if (end == DUMP_FAILED)
		links_remove(snapshot);
}

const struct file_kind file_kind_regular = {
	.name = "file",
	.type = FD_TYPES__REG,
	.message = offsetof(FileEntry, reg),
	.state_size = sizeof(struct grown),
	.recognizes = regular_recognizes,
	.describe = regular_describe,
	.judge = judge_files,
	.save = nameless_save,
	.let_go = let_files_go,
	.load = load_files,
	.external_key = regular_external_key,
	.check_external = regular_check_external,
	.open_external = open_external_file,
	.check = regular_check,
	.lateness = regular_lateness,
	.open = open_file,
	.open_late = open_late,
	.join = ghosts_finish,
	.release = regular_release,
	.close = regular_close,
	.keeps = nameless_keeps,
};
