/*
 * store_sync.c - syncs all images of a dump.
 *
 * Writeback starts for every file. Then each file is synced, by several threads at the same time if there are many
 * images: an fsync() waits for the disk to empty its cache, and for a commit of the journal if there is one. Calls that
 * wait together are served together; one after the other, each file waits separately. Measured on ext4 (virtio disk,
 * machine busy), 1,013 images of 3 KB, medians of 3:
 *
 *	threads       1      4     16     32     64   | syncfs()
 *	ms         1340    117     71     79     91   |  55, but it waits for other writers on the disk, too: store.c
 */
#include <errno.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"
#include "image/store.h"

#define IMAGES_A_THREAD 16
#define MOST_THREADS	16

/* Shared by all threads. */
struct sync {
	struct image_store *store;
	size_t next;   /* the first image that no thread has taken yet */
	size_t failed; /* the image for which sync_file() returned `error`, if that is not 0 */
	int error;
};

static void sync_created_image(struct sync *sync, size_t index)
{
	struct image_store *store = sync->store;
	int result, none = 0;

	if (!strcmp(store->created[index], PARENT_NAME)) /* a link has nothing to sync but its name */
		return;
	result = store->ops->sync_file(store, store->created[index]);
	if (result < 0 &&
	    __atomic_compare_exchange_n(&sync->error, &none, result, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		sync->failed = index; /* read after all threads have ended */
}

static void *sync_images(void *argument)
{
	struct sync *sync = argument;
	size_t index;

	while ((index = __atomic_fetch_add(&sync->next, 1, __ATOMIC_RELAXED)) < sync->store->created_count &&
	       !__atomic_load_n(&sync->error, __ATOMIC_RELAXED))
		sync_created_image(sync, index);
	return NULL;
}

int store_sync_created(struct image_store *store)
{
	struct sync sync = { .store = store };
	int result;

	for (size_t i = 0; i < store->created_count; i++)
		store->ops->begin_sync(store, store->created[i]);
	threads_run(min(store->created_count / IMAGES_A_THREAD, (size_t)MOST_THREADS), sync_images, &sync);
	if (sync.error)
		return fail(-sync.error, "cannot sync %s/%s", store->name, store->created[sync.failed]);
	result = store->ops->sync_names(store);
	return result < 0 ? fail(-result, "cannot sync the images directory %s", store->name) : 0;
}
