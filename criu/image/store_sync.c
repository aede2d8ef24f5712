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
 *
 * To begin takes the kernel 20 us for each file, as long as to create it. So if there are many, another thread begins
 * while this one still creates others: of small ones, by the descriptors that they were written with.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"
#include "image/store.h"

#define IMAGES_A_THREAD 16
#define MOST_THREADS	16

#define MANY_IMAGES  64
#define SMALL_IMAGE  (64 << 10)
#define MOST_WAITING 512
#define AT_A_TIME    16 /* a thread that is woken for each image costs more than it saves */

/* ---- the thread that begins ---- */

struct sync_begin {
	pthread_t thread;
	const struct image_store_ops *ops;
	size_t limit; /* descriptors from this number on do not wait: the upper half is for others */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under the lock */
	int waiting[MOST_WAITING]; /* descriptors of images */
	size_t waiting_count;
	bool is_ending;
};

/* Returns how many there are; 0: it is the end. */
static size_t take_waiting(struct sync_begin *begin, int fds[MOST_WAITING])
{
	size_t count;

	pthread_mutex_lock(&begin->lock);
	while (begin->waiting_count < AT_A_TIME && !begin->is_ending)
		pthread_cond_wait(&begin->changed, &begin->lock);
	count = begin->waiting_count;
	memcpy(fds, begin->waiting, count * sizeof(*fds));
	begin->waiting_count = 0;
	pthread_mutex_unlock(&begin->lock);
	return count;
}

static void *begin_waiting(void *argument)
{
	struct sync_begin *begin = argument;
	int fds[MOST_WAITING];
	size_t count;

	attempt_join(NULL);
	while ((count = take_waiting(begin, fds)))
		for (size_t i = 0; i < count; i++) {
			begin->ops->begin_sync_open(fds[i]);
			close(fds[i]);
		}
	return NULL;
}

static bool start_begin(struct image_store *store)
{
	struct sync_begin *begin;

	if (store->begin)
		return true;
	begin = allocate(sizeof(*begin));
	begin->ops = store->ops;
	begin->limit = descriptors_most() / 2;
	pthread_mutex_init(&begin->lock, NULL);
	pthread_cond_init(&begin->changed, NULL);
	if (!thread_start(&begin->thread, begin_waiting, begin))
		store->begin = begin;
	else
		free(begin);
	return store->begin;
}

void store_end_begin(struct image_store *store)
{
	struct sync_begin *begin = steal_pointer(&store->begin);

	if (!begin)
		return;
	pthread_mutex_lock(&begin->lock);
	begin->is_ending = true;
	pthread_cond_signal(&begin->changed);
	pthread_mutex_unlock(&begin->lock);
	pthread_join(begin->thread, NULL);
	pthread_mutex_destroy(&begin->lock);
	pthread_cond_destroy(&begin->changed);
	free(begin);
}

/* False: too many are waiting, or too many are open. The kernel returns the lowest free number. */
static bool leave_to_thread(struct sync_begin *begin, int fd)
{
	bool has_room;

	if ((size_t)fd >= begin->limit)
		return false;
	pthread_mutex_lock(&begin->lock);
	has_room = begin->waiting_count < MOST_WAITING;
	if (has_room)
		begin->waiting[begin->waiting_count++] = fd;
	if (begin->waiting_count == AT_A_TIME)
		pthread_cond_signal(&begin->changed);
	pthread_mutex_unlock(&begin->lock);
	return has_room;
}

void store_close_created(struct image_store *store, size_t created, int fd, uint64_t size)
{
	bool is_left = store->created_count >= MANY_IMAGES && size <= SMALL_IMAGE &&
		       store->ops->begin_sync_open && start_begin(store) && leave_to_thread(store->begin, fd);

	if (is_left)
		store->created[created].has_begun = true;
	else
		close(fd);
}

/* ---- the sync ---- */

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
	const char *name = store->created[index].name;
	int result, none = 0;

	if (!strcmp(name, PARENT_NAME)) /* a link has nothing to sync but its name */
		return;
	result = store->ops->sync_file(store, name);
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

	store_end_begin(store);
	for (size_t i = 0; i < store->created_count; i++)
		if (!store->created[i].has_begun)
			store->ops->begin_sync(store, store->created[i].name);
	threads_run(min(store->created_count / IMAGES_A_THREAD, (size_t)MOST_THREADS), sync_images, &sync);
	if (sync.error)
		return fail(-sync.error, "cannot sync %s/%s", store->name, store->created[sync.failed].name);
	result = store->ops->sync_names(store);
	return result < 0 ? fail(-result, "cannot sync the images directory %s", store->name) : 0;
}
