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

#endif
