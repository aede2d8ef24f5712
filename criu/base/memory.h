/*
 * memory.h - memory and descriptors that clean up after themselves.
 *
 * Allocation never returns NULL: without memory criu ends. The target processes survive that by design (the kernel
 * undoes a dump, and a half-made restore dies with criu), and no caller could handle it better.
 */
#ifndef CRIU_BASE_MEMORY_H
#define CRIU_BASE_MEMORY_H

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#include "compiler.h"

void *allocate(size_t size); /* zeroed */
void *allocate_array(size_t count, size_t size);
void *reallocate_array(void *old, size_t count, size_t size);
char *copy_text(const char *text);
char *format_text(const char *format, ...) printf_like(1, 2);
void *copy_bytes(const void *bytes, size_t size);

/*
 * Appends one zeroed member to a growing array { type *items; size_t count; } and returns it.
 *	struct vma *vma = grow(&vmas->items, &vmas->count);
 */
#define grow(items, count) ((__typeof__(*(items)))grow_array((void **)(items), count, sizeof(**(items))))
void *grow_array(void **items, size_t *count, size_t size);

static inline void autoclose_clean(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
static inline void autofree_clean(void *pointer)
{
	free(*(void **)pointer);
}
#define autoclose __attribute__((cleanup(autoclose_clean)))
#define autofree  __attribute__((cleanup(autofree_clean)))

static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}
#define steal_pointer(pointer)                              \
	({                                                  \
		__typeof__(*(pointer)) stolen = *(pointer); \
		*(pointer) = NULL;                          \
		stolen;                                     \
	})

#endif
