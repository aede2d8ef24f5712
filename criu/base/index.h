/*
 * index.h - a hash table from numbers to pointers. It does not own what the pointers lead to.
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
	size_t capacity, count;
};

/* `value` is not NULL; it replaces the value that the key had. */
void index_set(struct index *index, uint64_t key, void *value);
void *index_find(const struct index *index, uint64_t key); /* NULL: it is not there */
void index_remove(struct index *index, uint64_t key);
void index_free(struct index *index);

/* Makes one key of two numbers. Another pair can have the same key, so the caller compares what it finds. */
static inline uint64_t index_mix(uint64_t one, uint64_t other)
{
	return (one ^ one >> 29) * 0xbf58476d1ce4e5b9ULL ^ other;
}

#endif
