/*
 * ghost.c - what dump and restore share for files that their path does not lead to. See ghost.h.
 */
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/memory.h"
#include "files/ghost.h"
#include "files/passing_name.h"
#include "image/image.h"

#define FUSE_MAGIC     0x65735546 /* <linux/magic.h> of Linux 5.3 and later has it, too */
#define MEMORY_DEVICES 1	  /* major number */

/* null, zero, full, random, urandom: numbers of Documentation/admin-guide/devices.txt. */
static bool is_stateless_device(dev_t device)
{
	unsigned number = minor(device);

	return major(device) == MEMORY_DEVICES &&
	       (number == 3 || number == 5 || number == 7 || number == 8 || number == 9);
}

static void clear(void *state)
{
	struct nameless_files *all = state;

	for (size_t i = 0; i < all->count; i++) {
		image_free(all->items[i]->ghost);
		free(all->items[i]->handle);
		free(all->items[i]->other);
		free(all->items[i]->content);
		free(all->items[i]);
	}
	free(all->items);
	free(all->ended);
	index_free(&all->ended_by_pid);
	index_free(&all->by_inode);
	index_free(&all->mounts);
}

static const struct state_type nameless_type = { sizeof(struct nameless_files), clear };

struct nameless_files *nameless_files_of(const struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &nameless_type);
}

struct nameless *nameless_add(struct snapshot *snapshot, struct file *file)
{
	struct nameless_files *all = nameless_files_of(snapshot);
	struct nameless *nameless = allocate(sizeof(*nameless));

	*grow(&all->items, &all->count) = nameless;
	nameless->file = file;
	nameless->fd = nameless->original_fd = -1;
	file->nameless = nameless;
	return nameless;
}

void nameless_add_ended(struct snapshot *snapshot, pid_t pid, struct file *file)
{
	struct nameless_files *all = nameless_files_of(snapshot);

	if (index_find(&all->ended_by_pid, pid))
		return;
	index_set(&all->ended_by_pid, pid, file);
	*grow(&all->ended, &all->ended_count) = (struct ended_process){ pid, file->id };
}

/* File systems that keep a file under a name of their own if it is deleted while open, until it is closed. */
static const struct hiding_system {
	unsigned magic;
	const char *prefix;
} hiding_systems[] = { { NFS_SUPER_MAGIC, ".nfs" }, { FUSE_MAGIC, ".fuse_hidden" } };

/* NULL: another file system. */
static const struct hiding_system *find_hiding_system(unsigned magic)
{
	for (size_t i = 0; i < array_size(hiding_systems); i++)
		if (hiding_systems[i].magic == magic)
			return &hiding_systems[i];
	return NULL;
}

bool ghost_system_hides(int fd)
{
	struct statfs found;

	return fstatfs(fd, &found) == 0 && find_hiding_system(found.f_type);
}

bool ghost_has_hidden_name(const struct seen_file *seen)
{
	const char *last = strrchr(seen->link, '/');
	const struct hiding_system *system;
	struct statfs found;

	if (!last || (strncmp(last, "/.nfs", 5) && strncmp(last, "/.fuse_hidden", 13)) ||
	    statfs(seen->link, &found) < 0)
		return false;
	system = find_hiding_system(found.f_type);
	return system && !strncmp(last + 1, system->prefix, strlen(system->prefix));
}

char *nameless_path(const char *link)
{
	char *path = proc_link_path(link);

	passing_name_strip(path);
	return path;
}

/* An image could otherwise have a restore make, and open, any device. */
bool ghost_is_possible(mode_t mode, uint64_t device)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISFIFO(mode) || S_ISLNK(mode) ||
	       (S_ISCHR(mode) && is_stateless_device(device));
}

size_t nameless_keeps(const struct snapshot *snapshot)
{
	return nameless_files_of(snapshot)->count;
}

void nameless_close(struct snapshot *snapshot)
{
	struct nameless_files *all = nameless_files_of(snapshot);

	for (size_t i = 0; i < all->count; i++) {
		struct nameless *nameless = all->items[i];

		if (nameless->fd >= 0)
			close(steal_fd(&nameless->fd));
		if (nameless->original_fd >= 0)
			close(steal_fd(&nameless->original_fd));
	}
}
