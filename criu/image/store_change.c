/*
 * store_change.c - changes complete images: lists, copies, replaces and removes them. Dumps and restores do none of it;
 * commands that work on chains of snapshots do.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/copy.h"
#include "base/error.h"
#include "base/memory.h"
#include "image/store.h"

/* ---- names ---- */

static void add_name(void *context, const char *name)
{
	struct image_names *names = context;

	*grow(&names->items, &names->count) = copy_text(name);
}

static int compare_names(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

int image_store_list(struct image_store *store, struct image_names *names)
{
	int result;

	*names = (struct image_names){ 0 };
	result = store->ops->list(store, add_name, names);
	if (result)
		return fail(-result, "cannot list %s", store->name);
	if (names->count)
		qsort(names->items, names->count, sizeof(*names->items), compare_names);
	return 0;
}

void image_names_free(struct image_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->items[i]);
	free(names->items);
	*names = (struct image_names){ 0 };
}

bool image_name_is(const char *name, enum image_kind kind, unsigned long *id)
{
	const char *pattern = image_types[kind].pattern;
	size_t number = strcspn(pattern, "%");
	char expected[IMAGE_NAME_SIZE];

	if (strlen(name) < number)
		return false;
	/* Only the canonical spelling of a number is accepted. */
	*id = strtoul(name + number, NULL, strstr(pattern, "%lx") ? 16 : 10);
	return !strcmp(name, image_file_name(expected, kind, *id));
}

/* ---- new versions ---- */

static const char *name_beside(char name[IMAGE_NAME_SIZE + 4], enum image_kind kind, unsigned long id)
{
	char final[IMAGE_NAME_SIZE];

	snprintf(name, IMAGE_NAME_SIZE + 4, "%s.new", image_file_name(final, kind, id));
	return name;
}

int image_create_beside(struct image_store *store, struct image **image, enum image_kind kind,
			unsigned long id)
{
	char name[IMAGE_NAME_SIZE + 4];

	return image_create_as(store, image, kind, name_beside(name, kind, id));
}

static int sync_image(struct image_store *store, const char *name)
{
	int result = store->ops->sync_file(store, name);

	return result ? fail(-result, "cannot sync %s/%s", store->name, name) : 0;
}

int image_store_sync_image(struct image_store *store, enum image_kind kind, unsigned long id)
{
	char name[IMAGE_NAME_SIZE];

	return sync_image(store, image_file_name(name, kind, id));
}

int image_store_replace(struct image_store *store, enum image_kind kind, unsigned long id)
{
	char beside[IMAGE_NAME_SIZE + 4], name[IMAGE_NAME_SIZE];
	int result = sync_image(store, name_beside(beside, kind, id));

	if (result)
		return result;
	result = store->ops->rename(store, beside, image_file_name(name, kind, id));
	return result ? fail(-result, "cannot replace %s/%s", store->name, name) : 0;
}

int image_store_sync(struct image_store *store)
{
	int result = store->ops->sync_names(store);

	return result ? fail(-result, "cannot sync the images directory %s", store->name) : 0;
}

int image_store_copy(struct image_store *to, struct image_store *from, const char *name,
		     struct copier *copier)
{
	autoclose int source = from->ops->open_read(from, name), target = -1;
	struct stat status;
	int result;

	if (source < 0 || fstat(source, &status) < 0)
		return fail(source < 0 ? -source : errno, "cannot open %s/%s", from->name, name);
	target = to->ops->open_write(to, name);
	if (target < 0)
		return fail(-target, "cannot create %s/%s", to->name, name);
	*grow(&to->created, &to->created_count) = (struct created_image){ copy_text(name), false };
	result = copier_size(target, status.st_size) ?:
			 copier_copy(copier, source, 0, target, 0, status.st_size);
	return result ? fail(-result, "cannot copy %s/%s to %s", from->name, name, to->name) : 0;
}

int image_store_remove(struct image_store *store, const char *name)
{
	int result = store->ops->remove(store, name);

	return result ? fail(-result, "cannot remove %s/%s", store->name, name) : 0;
}

bool is_of_a_dump(const char *name)
{
	size_t length = strlen(name);
	char final[IMAGE_NAME_SIZE];
	unsigned long id;

	/* A new version that never got its final name (image_create_beside()). */
	if (length > 4 && length < sizeof(final) && !strcmp(name + length - 4, ".new")) {
		snprintf(final, sizeof(final), "%.*s", (int)length - 4, name);
		return is_of_a_dump(final);
	}
	for (enum image_kind kind = 0; kind < IMAGE_KINDS; kind++)
		if (kind != IMAGE_STATS && image_name_is(name, kind, &id))
			return true;
	return false;
}

int image_open_to_change(struct image_store *store, enum image_kind kind, unsigned long id)
{
	char name[IMAGE_NAME_SIZE];
	int fd = store->ops->open_change(store, image_file_name(name, kind, id));

	return fd < 0 ? fail(-fd, "cannot open %s/%s", store->name, name) : fd;
}
