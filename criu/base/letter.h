/*
 * letter.h - values that one process has learned and another one needs, which was forked from it before that.
 *
 * Both run the same functions over the same structs: letter_number() and its relatives write a value into the letter in
 * the process that knows it, and set it from the letter in the other one. So the two sides cannot disagree about the
 * order.
 */
#ifndef CRIU_BASE_LETTER_H
#define CRIU_BASE_LETTER_H

#include <stdbool.h>
#include <stddef.h>
#include "compiler.h"

struct letter {
	char *bytes;
	size_t size, room;
	size_t at;	 /* reading: what is already read */
	bool is_read;	 /* false: it is being written */
	bool is_shorter; /* reading: it has ended too early */
};

void letter_value(struct letter *letter, void *value, size_t size);
void letter_number(struct letter *letter, int *number);
/*
 * A growing array (grow() in memory.h). Reading frees the old one. The members contain no pointers that only the writer
 * knows.
 */
#define letter_array(letter, items, count) letter_array_of(letter, (void **)(items), count, sizeof(**(items)))
void letter_array_of(struct letter *letter, void **items, size_t *count, size_t size);
void letter_free(struct letter *letter);

/* Through a file, which both have open; it is empty before. Reading leaves its offset alone. -errno, not recorded. */
int letter_send(const struct letter *letter, int fd) must_check;
int letter_receive(struct letter *letter, int fd) must_check;

#endif
