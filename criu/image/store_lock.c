/*
 * store_lock.c - the lock of a directory of images: one writer or several readers. See image_store_lock().
 *
 * The lock is flock(2) on the store's own open file of the directory. It needs no file in the directory, so it works
 * where nothing can be written, and it ends with criu. A child that inherited the descriptor would keep the lock, so it
 * is released explicitly (LOCK_UN), not by closing the descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/store.h"

/*
 * Parses a line of /proc/locks: "12: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF". Returns the process that holds the
 * lock; 0: not this directory.
 */
static pid_t owner_in_line(const char *line, const struct stat *directory, bool *writes)
{
	unsigned device_major, device_minor;
	char kind[16], how[16];
	uint64_t inode;
	int pid;

	if (sscanf(line, "%*u: %15s %*s %15s %d %x:%x:%" SCNu64, kind, how, &pid, &device_major,
		   &device_minor, &inode) != 6)
		return 0;
	*writes = !strcmp(how, "WRITE");
	return !strcmp(kind, "FLOCK") && makedev(device_major, device_minor) == directory->st_dev &&
			       inode == directory->st_ino ?
		       pid :
		       0;
}

/* 0: no process that is visible here. */
static pid_t find_owner(const struct image_store *store, bool *writes)
{
	autofree char *text = NULL;
	struct stat status;
	pid_t owner = 0;

	if (fstat(store->directory, &status) < 0 || read_text_at(AT_FDCWD, "/proc/locks", &text) < 0)
		return 0;
	for (char *line = text; !owner && line; line = strchr(line, '\n')) {
		line += *line == '\n';
		owner = owner_in_line(line, &status, writes);
	}
	return owner;
}

static int is_in_use(const struct image_store *store, enum image_use use)
{
	bool writes = use == IMAGES_ARE_READ; /* readers do not exclude each other */
	pid_t owner = find_owner(store, &writes);
	const char *how = writes ? "is being written to" : "is being read";

	if (owner > 0)
		fail(0, "the images directory %s %s by process %d", store->name, how, owner);
	else
		fail(0, "the images directory %s %s by another process", store->name, how);
	return -EBUSY;
}

static int lock(struct image_store *store, enum image_use use)
{
	/* To change a lock, the kernel releases the old one first. */
	store->is_locked = false;
	if (flock(store->directory, (use == IMAGES_ARE_WRITTEN ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) {
		store->is_locked = true;
		store->use = use;
		return 0;
	}
	if (errno == EWOULDBLOCK)
		return is_in_use(store, use);
	/* NFS: EBADF for an exclusive lock, because a directory cannot be opened for writing. */
	log_warning(
		"the images directory %s cannot be locked (%s): another criu could use it at the same time",
		store->name, strerror(errno));
	return 0;
}

/* Without a lock, a crashed dump looks like one that is under way. */
static int refuse_to_finish(const struct image_store *store)
{
	if (replace_hides_dump(store->directory))
		fail_advice(
			"copy all of it, with its hidden subdirectories, which hold the dump, to a file system with locks");
	else
		fail_advice("if no criu is running there, remove its hidden subdirectory .incoming");
	fail(0, "a dump into %s is still going on, or was interrupted", store->name);
	return -EBUSY;
}

static int finish_replacement(struct image_store *store)
{
	int result = lock(store, IMAGES_ARE_WRITTEN);

	if (result)
		return result;
	if (!store->is_locked)
		return refuse_to_finish(store);
	log_warning("%s: a dump was interrupted while it replaced an older one; completing the replacement",
		    store->name);
	result = replace_finish(store->directory);
	return result ? fail(-result, "cannot complete an interrupted dump in %s", store->name) : 0;
}

/* A reader leaves alone what hinders only a writer: it may lack the right to write there. */
static bool has_to_finish(const struct image_store *store, enum image_use use)
{
	return use == IMAGES_ARE_WRITTEN ? replace_is_pending(store->directory) :
					   replace_hides_dump(store->directory);
}

int image_store_lock(struct image_store *store, enum image_use use)
{
	int result;

	/* A writer may also read. */
	if (store->directory < 0 ||
	    (store->is_locked && (store->use == use || store->use == IMAGES_ARE_WRITTEN)))
		return 0;
	result = lock(store, use);
	if (result || !has_to_finish(store, use))
		return result;
	return finish_replacement(store) ?: lock(store, use);
}

void image_store_unlock(struct image_store *store)
{
	if (store->is_locked)
		flock(store->directory, LOCK_UN);
	store->is_locked = false;
}
