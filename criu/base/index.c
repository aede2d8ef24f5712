/*
 * index.c - see index.h. Open addressing: a thing stands in the first free slot from its own on, and no slot between is empty.
 */
#include "base/index.h"
#include <stdlib.h>
#include "base/memory.h"

#define LEAST_ROOM 16 /* a power of two, as every room */

static size_t own_slot(const struct index *index, uint64_t key)
{
	return (key * 0x9e3779b97f4a7c15ULL >> 32) & (index->room - 1);
}

/* Where the key is, or would be. There is always an empty slot. */
static struct index_slot *find_slot(const struct index *index, uint64_t key)
{
	size_t at = own_slot(index, key);

	while (index->slots[at].value && index->slots[at].key != key)
		at = (at + 1) & (index->room - 1);
	return &index->slots[at];
}

static void make_room(struct index *index)
{
	struct index old = *index;

	index->room = max(2 * old.room, (size_t)LEAST_ROOM);
	index->slots = allocate_array(index->room, sizeof(*index->slots));
	for (size_t i = 0; i < old.room; i++)
		if (old.slots[i].value)
			*find_slot(index, old.slots[i].key) = old.slots[i];
	free(old.slots);
}

void index_set(struct index *index, uint64_t key, void *value)
{
	struct index_slot *slot;

	if (2 * (index->count + 1) > index->room)
		make_room(index);
	slot = find_slot(index, key);
	index->count += !slot->value;
	*slot = (struct index_slot){ key, value };
}

void *index_find(const struct index *index, uint64_t key)
{
	return index->room ? find_slot(index, key)->value : NULL;
}

void index_remove(struct index *index, uint64_t key)
{
	struct index_slot *slot = index->room ? find_slot(index, key) : NULL;

	if (!slot || !slot->value)
		return;
	slot->value = NULL;
	index->count--;
	/* Those behind it might not be found over the gap: each is put in again. */
	for (size_t at = (slot - index->slots + 1) & (index->room - 1); index->slots[at].value;
	     at = (at + 1) & (index->room - 1)) {
		struct index_slot moved = index->slots[at];

		index->slots[at].value = NULL;
		*find_slot(index, moved.key) = moved;
	}
}

void index_free(struct index *index)
{
	free(index->slots);
	*index = (struct index){ 0 };
}
