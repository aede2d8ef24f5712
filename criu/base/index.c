/*
 * index.c - see index.h. Open addressing: an entry is in the slot that its key hashes to, or in one after it, with no
 * empty slot in between.
 */
#include "base/index.h"
#include <stdlib.h>
#include "base/memory.h"

#define LEAST_CAPACITY 16 /* a power of two, as every capacity */

static size_t own_slot(const struct index *index, uint64_t key)
{
	return (key * 0x9e3779b97f4a7c15ULL >> 32) & (index->capacity - 1);
}

/* The slot that has the key, or the empty one where it would go. There is always an empty slot. */
static struct index_slot *find_slot(const struct index *index, uint64_t key)
{
	size_t at = own_slot(index, key);

	while (index->slots[at].value && index->slots[at].key != key)
		at = (at + 1) & (index->capacity - 1);
	return &index->slots[at];
}

static void grow_slots(struct index *index)
{
	struct index old = *index;

	index->capacity = max(2 * old.capacity, (size_t)LEAST_CAPACITY);
	index->slots = allocate_array(index->capacity, sizeof(*index->slots));
	for (size_t i = 0; i < old.capacity; i++)
		if (old.slots[i].value)
			*find_slot(index, old.slots[i].key) = old.slots[i];
	free(old.slots);
}

void index_set(struct index *index, uint64_t key, void *value)
{
	struct index_slot *slot;

	if (2 * (index->count + 1) > index->capacity)
		grow_slots(index);
	slot = find_slot(index, key);
	index->count += !slot->value;
	*slot = (struct index_slot){ key, value };
}

void *index_find(const struct index *index, uint64_t key)
{
	return index->capacity ? find_slot(index, key)->value : NULL;
}

void index_remove(struct index *index, uint64_t key)
{
	struct index_slot *slot = index->capacity ? find_slot(index, key) : NULL;

	if (!slot || !slot->value)
		return;
	slot->value = NULL;
	index->count--;
	/* Entries behind the gap might no longer be found: each is inserted again. */
	for (size_t at = (slot - index->slots + 1) & (index->capacity - 1); index->slots[at].value;
	     at = (at + 1) & (index->capacity - 1)) {
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
