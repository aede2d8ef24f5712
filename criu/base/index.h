/*
 * index.h - finds things by a number: a hash table. What it points to stays its owner's.
 */
#ifndef CRIU_BASE_INDEX_H
#define CRIU_BASE_INDEX_H

#include <stddef.h>
#include <stdint.h>

struct index {
	struct index_slot {
		uint64_t key;
		void *value; /* NULL: empty */
	} * slots;
	size_t room, count;
};

/* `value` is not NULL; what had the key before is no longer found. */
void index_set(struct index *index, uint64_t key, void *value);
void *index_find(const struct index *index, uint64_t key); /* NULL: it is not there */
void index_remove(struct index *index, uint64_t key);
void index_free(struct index *index);

/* One key for two numbers. Other pairs may have it, too: whoever finds something there looks at what it is. */
static inline uint64_t index_mix(uint64_t one, uint64_t other)
{
	return (one ^ one >> 29) * 0xbf58476d1ce4e5b9ULL ^ other;
}

#endif
