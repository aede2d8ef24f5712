/*
 * namespace.c - open namespaces: /proc/PID/ns/NAME.
 *
 * The image tells which namespace it is: criu's own, whatever that is where the processes are restored, or one in which
 * a process of the tree is, and which is saved. Any other one would be gone after a restore, so it is refused. One that
 * is mounted on a file (ip netns) has a path, and is opened by that (regular.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/words.h"
#include "namespaces/kind.h"

/* By the name in "uts:[4026531838]"; NULL: it is no namespace. */
static const struct namespace_facts *find_facts(const struct seen_file *seen)
{
	for (size_t i = 0; i < all_namespace_count; i++) {
		size_t length = strlen(all_namespaces[i].name);

		if (!strncmp(seen->link, all_namespaces[i].name, length) &&
		    !strncmp(seen->link + length, ":[", 2))
			return &all_namespaces[i];
	}
	return NULL;
}

static bool namespace_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return S_ISREG(seen->stat.st_mode) && find_facts(seen);
}

static int is_own(const struct namespace_facts *facts, const struct seen_file *seen)
{
	struct stat own;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/ns/%s", facts->name);
	if (stat(path, &own) < 0)
		return fail(errno, "cannot stat %s", path);
	return own.st_ino == seen->stat.st_ino && own.st_dev == seen->stat.st_dev;
}

static int namespace_describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	const struct namespace_facts *facts = find_facts(seen);
	NsFileEntry *entry = file->entry->nsf;
	const struct namespace *namespace;
	int own = is_own(facts, seen);

	if (own < 0)
		return own;
	entry->ns_cflag = facts->clone_flag;
	namespace = own ? NULL : namespaces_find_inode(snapshot, seen->stat.st_ino);
	entry->ns_id = namespace ? namespace->id : facts->own_id;
	if (own || namespace)
		return 0;
	fail_advice("close it, or mount it on a file and open that (ip netns)");
	return refuse_file(
		seen,
		"it is a namespace that is neither criu's own nor that of a process, and would be gone");
}

/* ---- restore ---- */

static const struct namespace_facts *facts_of_flag(uint32_t flag)
{
	for (size_t i = 0; i < all_namespace_count; i++)
		if ((uint32_t)all_namespaces[i].clone_flag == flag)
			return &all_namespaces[i];
	return NULL;
}

static int namespace_check(struct snapshot *snapshot, struct file *file)
{
	const NsFileEntry *entry = file->entry->nsf;
	const struct namespace_facts *facts = facts_of_flag(entry->ns_cflag);

	if (!facts)
		return fail(EINVAL, "files.img: file %u is a namespace of an unknown type (%#x)", file->id,
			    entry->ns_cflag);
	if (entry->flags & O_ACCMODE)
		return fail(EINVAL, "files.img: file %u is a namespace that is open for writing", file->id);
	if (entry->ns_id == namespaces_own_id(snapshot, facts) ||
	    namespaces_find_id(snapshot, entry->ns_id, facts->clone_flag))
		return 0;
	return fail(EINVAL,
		    "file %u is an open %s namespace (%u) that is not in the images, or not supported yet",
		    file->id, facts->name, entry->ns_id);
}

static int open_namespace(struct snapshot *snapshot, struct file *file)
{
	const NsFileEntry *entry = file->entry->nsf;
	const struct namespace_facts *facts = facts_of_flag(entry->ns_cflag);
	const struct namespace *namespace = namespaces_find_id(snapshot, entry->ns_id, facts->clone_flag);
	int flags = entry->flags & (O_PATH | O_NONBLOCK | O_NOATIME), fd;
	char path[32];

	if (namespace)
		snprintf(path, sizeof(path), "/proc/self/fd/%d", namespace->fd);
	else
		snprintf(path, sizeof(path), "/proc/self/ns/%s", facts->name);
	fd = open(path, O_RDONLY | O_CLOEXEC | flags);
	return fd < 0 ? fail(errno, "cannot open the %s namespace %u", facts->name, entry->ns_id) : fd;
}

const struct file_kind file_kind_namespace = {
	.name = "namespace",
	.type = FD_TYPES__NS,
	.message = offsetof(FileEntry, nsf),
	.recognizes = namespace_recognizes,
	.describe = namespace_describe,
	.check = namespace_check,
	.open = open_namespace,
};
