/*
 * letter.c - see letter.h.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "base/io.h"
#include "base/letter.h"
#include "base/memory.h"

static void make_room(struct letter *letter, size_t size)
{
	if (size <= letter->room)
		return;
	letter->room = max(size, letter->room * 2);
	letter->bytes = reallocate_array(letter->bytes, letter->room, 1);
}

void letter_value(struct letter *letter, void *value, size_t size)
{
	if (!letter->is_read) {
		make_room(letter, letter->size + size);
		memcpy(letter->bytes + letter->size, value, size);
		letter->size += size;
	} else if (letter->size - letter->at >= size) {
		memcpy(value, letter->bytes + letter->at, size);
		letter->at += size;
	} else {
		letter->is_shorter = true;
	}
}

void letter_number(struct letter *letter, int *number)
{
	letter_value(letter, number, sizeof(*number));
}

void letter_array_of(struct letter *letter, void **items, size_t *count, size_t size)
{
	size_t total = *count;

	letter_value(letter, &total, sizeof(total));
	if (letter->is_read) {
		letter->is_shorter |= total > (letter->size - letter->at) / size;
		free(steal_pointer(items));
		*count = 0;
		while (!letter->is_shorter && *count < total)
			grow_array(items, count, size);
	}
	if (*count)
		letter_value(letter, *items, *count * size);
}

void letter_free(struct letter *letter)
{
	free(letter->bytes);
	*letter = (struct letter){ 0 };
}

int letter_send(const struct letter *letter, int fd)
{
	return write_all_at(fd, letter->bytes, letter->size, 0);
}

int letter_receive(struct letter *letter, int fd)
{
	struct stat status;
	int result;

	if (fstat(fd, &status) < 0)
		return -errno;
	*letter = (struct letter){ .is_read = true, .size = status.st_size };
	letter->bytes = allocate(letter->size + 1);
	result = read_all_at(fd, letter->bytes, letter->size, 0);
	if (result)
		letter_free(letter);
	return result;
}
