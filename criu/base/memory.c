/*
 * memory.c - allocation that ends the program instead of returning NULL. See memory.h for why that is safe.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/memory.h"

static does_not_return void out_of_memory(void)
{
	static const char words[] = "criu: out of memory\n";

	if (write(STDERR_FILENO, words, sizeof(words) - 1)) { /* nothing left to do about it */
	}
	_exit(1);
}

void *allocate(size_t size)
{
	return allocate_array(1, size ? size : 1);
}

void *allocate_array(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		out_of_memory();
	return memory;
}

void *reallocate_array(void *old, size_t count, size_t size)
{
	void *memory = reallocarray(old, count ? count : 1, size);

	if (!memory)
		out_of_memory();
	return memory;
}

char *copy_text(const char *text)
{
	return copy_bytes(text, strlen(text) + 1);
}

void *copy_bytes(const void *bytes, size_t size)
{
	void *copy = allocate(size);

	if (size)
		memcpy(copy, bytes, size);
	return copy;
}

char *format_text(const char *format, ...)
{
	va_list arguments;
	char *text;
	int length;

	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (length < 0)
		out_of_memory();
	return text;
}

void *grow_array(void **items, size_t *count, size_t size)
{
	char *member;

	/* The capacity doubles whenever the count reaches a power of two, so it need not be stored. */
	if ((*count & (*count - 1)) == 0)
		*items = reallocate_array(*items, *count ? *count * 2 : 1, size);
	member = (char *)*items + *count * size;
	memset(member, 0, size);
	++*count;
	return member;
}
