/*
 * chain.c - follows `parent` from directory to directory, checks that the snapshots belong together, and keeps a few of
 * their pages images open for readers. See chain.h.
 *
 * `parent` is a symbolic link that the user may set, so it is followed wherever it leads. Images in that directory are
 * opened beneath its descriptor, like all images.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "image/inventory.h"
#include "memory/chain.h"
#include "memory/pages_image.h"

#define PARENT_NAME "parent"
#define LEAST_OPEN  16 /* pages images at a time, however long the chain and however many the tasks */
#define MOST_OPEN   128

/* Data from its inventory. */
struct identity {
	bool is_complete, is_packed, has_version; /* a pre-dump has none */
	uint64_t snapshot, parent;		  /* ids of the snapshot and of its parent; 0: none */
	bool has_freed;				  /* pages, … */
	uint64_t freed_for; /* … which the snapshot with this id replaces; 0: a snapshot without an id */
};

struct snapshot_layer {
	struct image_store *store;
	dev_t device;
	ino_t inode;
	struct identity identity;
};

struct open_pages {
	size_t layer;
	uint32_t id;
	struct pages_image *image; /* NULL: a free place */
	unsigned readers;
	uint64_t used; /* time of last use, counted in reads */
};

struct page_chain {
	struct snapshot_layer *layers;
	size_t count;
	bool is_locked; /* each directory was locked before it was read */
	enum image_use use;

	/* pages images that are open; threads take turns */
	pthread_mutex_t lock;
	pthread_cond_t is_free; /* a thread has finished reading */
	struct open_pages open[MOST_OPEN];
	size_t places; /* number of places in use */
	uint64_t reads;
};

/* ---- the directories ---- */

static int read_snapshot_identity(struct image_store *store, struct identity *identity)
{
	InventoryEntry *inventory;
	int result = inventory_read_memory(store, &inventory);

	*identity = (struct identity){ 0 };
	if (result)
		return result == -ENOENT ? 0 : result;
	*identity = (struct identity){
		.is_complete = true,
		.is_packed = inventory_is_packed(inventory),
		.has_version = inventory->img_version,
		.snapshot = inventory->snapshot_id,
		.parent = inventory->parent_id,
		.has_freed = inventory->has_freed_for,
		.freed_for = inventory->freed_for,
	};
	image_free(inventory);
	return 0;
}

/*
 * A snapshot that has freed pages is complete only together with the one that replaces them: is that one in the chain?
 */
static bool gives_its_pages(const struct page_chain *chain, const struct snapshot_layer *layer,
			    const struct identity *identity)
{
	bool gives = !identity->has_freed;

	for (const struct snapshot_layer *other = chain->layers; other < layer; other++)
		gives |= other->identity.snapshot == identity->freed_for;
	return gives;
}

/* The newest may still be incomplete; a parent must be complete. */
static int check_layer(const struct page_chain *chain, const struct snapshot_layer *layer)
{
	const struct identity *identity = &layer->identity;
	const struct snapshot_layer *child = layer - 1;
	bool is_parent = layer > chain->layers;

	if (is_parent && !identity->is_complete)
		return fail(0, "%s, the parent of %s, is not a complete snapshot: it has no inventory.img",
			    image_store_name(layer->store), image_store_name(child->store));
	for (const struct snapshot_layer *other = chain->layers; other < layer; other++)
		if (other->device == layer->device && other->inode == layer->inode)
			return fail(ELOOP, "the parent of %s is %s, which builds on it",
				    image_store_name(child->store), image_store_name(other->store));
	/* A snapshot that has a parent stores the id of the parent. A parent without an id is a different one. */
	if (is_parent && child->identity.parent && child->identity.parent != identity->snapshot)
		return fail(0, "%s, the parent of %s, is not the snapshot that it was made after",
			    image_store_name(layer->store), image_store_name(child->store));
	if (!gives_its_pages(chain, layer, identity))
		return fail(
			0,
			"criu dedup has freed pages of %s that a later snapshot replaces: only that snapshot, and those that "
			"build on it, can use the pages that are left",
			image_store_name(layer->store));
	return 0;
}

static int look_at_layer(const struct image_store *store, struct snapshot_layer *layer)
{
	int directory = image_store_directory(store);
	struct stat status;

	if (directory < 0)
		return 0;
	if (fstat(directory, &status) < 0)
		return fail(errno, "cannot stat %s", image_store_name(store));
	layer->device = status.st_dev;
	layer->inode = status.st_ino;
	return 0;
}

static int add_layer(struct page_chain *chain, struct image_store *store)
{
	struct snapshot_layer *layer = grow(&chain->layers, &chain->count);
	int result = chain->is_locked ? image_store_lock(store, chain->use) : 0;

	layer->store = store;
	result = result ?: look_at_layer(store, layer);
	return result ?: read_snapshot_identity(store, &layer->identity) ?: check_layer(chain, layer);
}

static int cannot_follow(const struct image_store *store, int error)
{
	autofree char *target = NULL;

	if (read_link_at(image_store_directory(store), PARENT_NAME, &target) < 0)
		return fail(error, "cannot open %s/" PARENT_NAME, image_store_name(store));
	if (error == ENOENT)
		return fail(0, "the parent of %s is missing: there is no %s%s%s", image_store_name(store),
			    *target == '/' ? "" : image_store_name(store), *target == '/' ? "" : "/", target);
	return fail(error, "cannot open %s, the parent of %s", target, image_store_name(store));
}

/* 1: the last layer had a parent, which is now the last one. */
static int follow_parent(struct page_chain *chain)
{
	struct image_store *last = chain->layers[chain->count - 1].store, *store;
	autoclose int directory = -1;
	struct stat status;
	int result;

	if (image_store_directory(last) < 0 ||
	    (fstatat(image_store_directory(last), PARENT_NAME, &status, AT_SYMLINK_NOFOLLOW) < 0 &&
	     errno == ENOENT))
		return 0;
	directory = openat(image_store_directory(last), PARENT_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return cannot_follow(last, errno);
	result = image_store_open_fd(&store, directory, false) ?: add_layer(chain, store);
	return result ?: 1;
}

/* An eighth of the descriptors that criu may have. */
static size_t count_places(void)
{
	return max(min(descriptors_most() / 8, (size_t)MOST_OPEN), (size_t)LEAST_OPEN);
}

static int open_layers(struct page_chain **opened, struct page_chain *chain, struct image_store *newest)
{
	int result;

	pthread_mutex_init(&chain->lock, NULL);
	pthread_cond_init(&chain->is_free, NULL);
	chain->places = count_places();
	for (result = add_layer(chain, newest) ?: 1; result > 0;)
		result = follow_parent(chain);
	*opened = chain;
	if (result)
		page_chain_close(steal_pointer(opened));
	return result;
}

int page_chain_open(struct page_chain **opened, struct image_store *newest)
{
	return open_layers(opened, allocate(sizeof(struct page_chain)), newest);
}

int page_chain_open_locked(struct page_chain **opened, struct image_store *newest, enum image_use use)
{
	struct page_chain *chain = allocate(sizeof(*chain));

	chain->is_locked = true;
	chain->use = use;
	return open_layers(opened, chain, newest);
}

int page_chain_lock(struct page_chain *chain, enum image_use use)
{
	int result = 0;

	for (size_t i = 0; !result && i < chain->count; i++)
		result = image_store_lock(chain->layers[i].store, use);
	/* The kernel releases a shared lock before it takes an exclusive one. */
	return result ?: page_chain_check(chain);
}

void page_chain_close(struct page_chain *chain)
{
	if (!chain)
		return;
	page_chain_rest(chain);
	for (size_t i = 1; i < chain->count; i++)
		image_store_close(chain->layers[i].store);
	free(chain->layers);
	pthread_cond_destroy(&chain->is_free);
	pthread_mutex_destroy(&chain->lock);
	free(chain);
}

size_t page_chain_length(const struct page_chain *chain)
{
	return chain->count;
}

struct image_store *page_chain_store(const struct page_chain *chain, size_t layer)
{
	return chain->layers[layer].store;
}

uint64_t page_chain_snapshot(const struct page_chain *chain, size_t layer)
{
	return chain->layers[layer].identity.snapshot;
}

/* That of a dump tells it for all of its parents. A pre-dump says nothing. */
int page_chain_find_packed(const struct page_chain *chain, bool *is_found)
{
	int result = 0;

	*is_found = false;
	for (size_t i = 0; !result && !*is_found && i < chain->count; i++) {
		const struct snapshot_layer *layer = &chain->layers[i];

		if (layer->identity.has_version) {
			*is_found = layer->identity.is_packed;
			break;
		}
		result = pages_image_find_packed(layer->store, is_found);
	}
	return result;
}

bool page_chain_is_complete(const struct page_chain *chain)
{
	return chain->layers->identity.is_complete;
}

int page_chain_find(const struct page_chain *chain, const struct image_store *store, size_t *layer)
{
	struct snapshot_layer wanted = { 0 };
	int result = look_at_layer(store, &wanted);

	for (*layer = 0; !result && *layer < chain->count; ++*layer)
		if (chain->layers[*layer].device == wanted.device &&
		    chain->layers[*layer].inode == wanted.inode)
			return 1;
	return result;
}

int page_chain_check(const struct page_chain *chain)
{
	for (size_t i = 0; i < chain->count; i++) {
		const struct snapshot_layer *layer = &chain->layers[i];
		struct identity now;
		int result = read_snapshot_identity(layer->store, &now);

		if (result)
			return result;
		if (now.is_complete != layer->identity.is_complete ||
		    now.snapshot != layer->identity.snapshot || !gives_its_pages(chain, layer, &now))
			return fail(
				0,
				"%s was changed meanwhile, by another dump into it or by criu dedup: its pages "
				"may have changed",
				image_store_name(layer->store));
	}
	return 0;
}

/* ---- their pages ---- */

bool page_chain_keeps_open(const struct page_chain *chain, size_t layers)
{
	return layers <= chain->places;
}

static struct open_pages *find_open(struct page_chain *chain, size_t layer, uint32_t id)
{
	for (size_t i = 0; i < chain->places; i++)
		if (chain->open[i].image && chain->open[i].layer == layer && chain->open[i].id == id)
			return &chain->open[i];
	return NULL;
}

static bool has_free_descriptor(void)
{
	autoclose int fd = open("/", O_PATH | O_CLOEXEC);

	return fd >= 0;
}

/*
 * A free place, if there is a descriptor for it. Otherwise, of those that no thread reads from, the least recently
 * used. NULL: none now.
 */
static struct open_pages *find_place(struct page_chain *chain)
{
	struct open_pages *idle = NULL, *free_place = NULL;

	for (size_t i = 0; i < chain->places; i++) {
		struct open_pages *place = &chain->open[i];

		if (!place->image)
			free_place = place;
		else if (!place->readers && (!idle || place->used < idle->used))
			idle = place;
	}
	return free_place && (!idle || has_free_descriptor()) ? free_place : idle;
}

static int open_pages(struct page_chain *chain, struct open_pages *place, size_t layer, uint32_t id)
{
	struct image_store *store = chain->layers[layer].store;
	char name[IMAGE_NAME_SIZE];
	int result;

	pages_image_close(place->image);
	*place = (struct open_pages){ .layer = layer, .id = id };
	result = pages_image_open(&place->image, store, id);
	if (result == -ENOENT)
		return fail(0, "%s/%s is missing", image_store_name(store),
			    image_file_name(name, IMAGE_PAGES, id));
	return result;
}

/* It stays open until it is given back. NULL: it cannot be opened; *result has the error. */
static struct open_pages *take_place(struct page_chain *chain, size_t layer, uint32_t id, int *result)
{
	struct open_pages *taken;

	*result = 0;
	pthread_mutex_lock(&chain->lock);
	while (!(taken = find_open(chain, layer, id))) {
		struct open_pages *place = find_place(chain);

		if (place)
			*result = open_pages(chain, place, layer, id);
		else
			pthread_cond_wait(&chain->is_free, &chain->lock);
		if (*result)
			break;
	}
	if (taken) {
		taken->readers++;
		taken->used = ++chain->reads;
	}
	pthread_mutex_unlock(&chain->lock);
	return taken;
}

static void give_back(struct page_chain *chain, struct open_pages *taken)
{
	pthread_mutex_lock(&chain->lock);
	if (!--taken->readers)
		pthread_cond_signal(&chain->is_free);
	pthread_mutex_unlock(&chain->lock);
}

int page_chain_read(struct page_chain *chain, size_t layer, uint32_t pages_id, struct iovec *places,
		    int count, uint64_t offset)
{
	int result;
	struct open_pages *taken = take_place(chain, layer, pages_id, &result);

	if (!taken)
		return result;
	result = pages_image_read(taken->image, places, count, offset);
	give_back(chain, taken);
	return result;
}

void page_chain_ahead(struct page_chain *chain, size_t layer, uint32_t pages_id, uint64_t offset,
		      uint64_t size)
{
	struct open_pages *open;

	pthread_mutex_lock(&chain->lock);
	open = find_open(chain, layer, pages_id);
	if (open)
		open->readers++;
	pthread_mutex_unlock(&chain->lock);
	if (!open)
		return;
	pages_image_ahead(open->image, offset, size);
	give_back(chain, open);
}

void page_chain_rest(struct page_chain *chain)
{
	for (size_t i = 0; i < chain->places; i++)
		pages_image_close(chain->open[i].image);
	memset(chain->open, 0, sizeof(chain->open));
}
