/*
 * symbols.h - the functions that an ELF file in memory exports by name: of this kernel's vdso, and of one from an
 * image.
 */
#ifndef CRIU_RESTORE_SYMBOLS_H
#define CRIU_RESTORE_SYMBOLS_H

#include <stddef.h>
#include <stdint.h>
#include "compiler.h"

struct symbol {
	const char *name; /* in the file, NUL-terminated there */
	uint64_t offset;  /* in the file as it is mapped; less than its size */
};

struct symbols {
	struct symbol *items;
	size_t count;
};

/* The file may have any content: an invalid one is -EINVAL, recorded. `items` is to be freed. */
int symbols_read(const void *elf, size_t size, struct symbols *symbols) must_check;
/* Finds a symbol by name, with or without "__vdso_" in front; NULL. */
const struct symbol *symbols_find(const struct symbols *symbols, const char *name);
const char *symbol_base_name(
	const char *name); /* without "__vdso_" or "__kernel_": each architecture has one */

#endif
