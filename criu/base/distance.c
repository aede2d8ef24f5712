/*
 * distance.c - see distance.h.
 *
 * The distance of all beginnings of `b` to a beginning of `a` is a row of numbers; a letter more of `a` makes the next
 * row of it.
 */
#include <string.h>
#include "base/distance.h"
#include "base/memory.h"
#include "compiler.h"

unsigned text_distance(const char *a, const char *b)
{
	unsigned columns = strlen(b);
	autofree unsigned *row = allocate_array(columns + 1, sizeof(*row));

	for (unsigned j = 0; j <= columns; j++)
		row[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= columns; j++) {
			unsigned change = diagonal + (a[i - 1] != b[j - 1]);
			unsigned insert_or_remove = min(row[j], row[j - 1]) + 1;

			diagonal = row[j];
			row[j] = min(change, insert_or_remove);
		}
	}
	return row[columns];
}
