/*
 * regular.c - files that have a path: regular files, directories, and the memory and null devices of Linux.
 *
 * Their content is not saved: restore opens the same path and checks that it still leads to the same file (size, build
 * id, permissions).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kinds/build_id.h"
#include "files/kind.h"
#include "files/words.h"
#include "image/message.h"

#define MEMORY_DEVICES 1 /* major number */

/* Devices without state of their own: null, zero, full, random, urandom (Documentation/admin-guide/devices.txt). */
static bool is_stateless_device(dev_t device)
{
	unsigned number = minor(device);

	return major(device) == MEMORY_DEVICES &&
	       (number == 3 || number == 5 || number == 7 || number == 8 || number == 9);
}

static bool is_openable(const struct stat *file)
{
	return S_ISREG(file->st_mode) || S_ISDIR(file->st_mode) ||
	       (S_ISCHR(file->st_mode) && is_stateless_device(file->st_rdev));
}

/* Is it the path of a file of another kind (files_add_path()), or opened with O_PATH? */
static bool is_only_path(const struct seen_file *seen)
{
	return (seen->fd < 0 || seen->info.flags & O_PATH) && S_ISFIFO(seen->stat.st_mode);
}

static bool regular_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	if (seen->link[0] != '/')
		return false;
	if (is_only_path(seen))
		return true;
	return is_openable(&seen->stat);
}

/* Is it a file of /proc about a process of the tree? Restore opens files before there are processes. */
static bool tells_of_the_tree(const struct snapshot *snapshot, const char *path)
{
	int pid;

	return sscanf(path, "/proc/%d", &pid) == 1 && snapshot_find_thread_here(snapshot, pid);
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
	size_t length = strlen(seen->link), suffix = strlen(" (deleted)");
	int pid;

	if (sscanf(seen->link, "/proc/%d", &pid) == 1)
		return "it is a file of /proc about a process that has ended";
	if (is_in_hidden_mount(seen))
		return "it is in a detached mount, which is not supported yet";
	if (length > suffix && !strcmp(seen->link + length - suffix, " (deleted)"))
		return "its path was deleted, and only other links to it exist, which is not supported yet";
	return error == ENOENT ? "its path no longer exists" :
	       error	       ? strerror(error) :
				 "its path now leads to another file";
}

static int refuse_path(const struct snapshot *snapshot, const struct seen_file *seen, const char *why)
{
	file_advise_external(snapshot, seen);
	return refuse_file(seen, why);
}

/* Checks that restore will find the same file by its path. */
static int check_regular_path(const struct snapshot *snapshot, const struct seen_file *seen)
{
	struct stat found;

	if (tells_of_the_tree(snapshot, seen->link))
		return refuse_file(
			seen,
			"it is a file of /proc about a process of the tree, which is not supported yet");
	if (!seen->stat.st_nlink)
		return refuse_path(snapshot, seen, "deleted files are not supported yet");
	if (seen->is_at_path)
		return 0;
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

static int regular_describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	RegFileEntry *entry = file->entry->reg;
	int result = file->external ? 0 : check_regular_path(snapshot, seen);

	entry->name = file->external ? external_key_text(&file->external->key) : copy_text(seen->link);
	if (file->external)
		message_set(entry, ext, true);
	entry->pos = seen->info.position;
	message_set(entry, mode, seen->stat.st_mode);
	if (!result && S_ISREG(seen->stat.st_mode)) {
		message_set(entry, size, seen->stat.st_size);
		/* mapped or executed: its content must be the same */
		if (seen->fd < 0 && !snapshot->policy.validates_by_size)
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

static int regular_check(struct snapshot *snapshot, struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	const struct policy *policy = &snapshot->policy;
	struct external_key key;
	struct stat found;

	if (entry->ext && regular_external_key(snapshot, file, &key))
		return file_lacks_external(&key);
	if (entry->name[0] != '/')
		return fail(EINVAL, "files.img: file %u has no absolute path: %s", file->id, entry->name);
	if (stat(entry->name, &found) < 0)
		return fail(errno, "%s, which the process had open, cannot be found", entry->name);
	/* Opening any other kind of file could have effects, or block. */
	if (!file->is_only_path && !(entry->flags & O_PATH) && !is_openable(&found))
		return fail(EINVAL, "files.img: file %u (%s) is neither a regular file nor a directory",
			    file->id, entry->name);
	if (entry->has_mode && !policy->skips_mode_check && found.st_mode != entry->mode) {
		fail_advice((found.st_mode ^ entry->mode) & S_IFMT ? "put back what was there" :
								     "--skip-file-rwx-check");
		return fail(EINVAL, "%s has mode %o now and had %o when the process was dumped", entry->name,
			    found.st_mode, entry->mode);
	}
	if (entry->has_size && S_ISREG(found.st_mode) && (uint64_t)found.st_size != entry->size)
		return fail(EINVAL, "%s has %lld bytes now and had %llu when the process was dumped",
			    entry->name, (long long)found.st_size, (unsigned long long)entry->size);
	if (entry->n_build_id && !policy->validates_by_size) {
		autoclose int fd = open(entry->name, O_RDONLY | O_CLOEXEC);

		return fd < 0 ? fail(errno, "cannot open %s", entry->name) : check_build_id(entry, fd);
	}
	return 0;
}

static int flags_to_open(const RegFileEntry *entry)
{
	return entry->flags & ~(O_CREAT | O_EXCL | O_TRUNC);
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

static int open_file(struct snapshot *snapshot unused, struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	int fd = open(entry->name, flags_to_open(entry) | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return fail(errno, "cannot open %s with its original flags (%#o)", entry->name, entry->flags);
	return set_position(entry, fd);
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
	fd = file_open_external_again(file, flags_to_open(entry));
	return fd < 0 ? fd : set_position(entry, fd);
}

const struct file_kind file_kind_regular = {
	.name = "file",
	.type = FD_TYPES__REG,
	.message = offsetof(FileEntry, reg),
	.recognizes = regular_recognizes,
	.describe = regular_describe,
	.external_key = regular_external_key,
	.check_external = regular_check_external,
	.open_external = open_external_file,
	.check = regular_check,
	.open = open_file,
};
