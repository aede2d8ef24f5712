/*
 * kernel_files.c - see kernel_files.h.
 */
#include <errno.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/btf.h"
#include "kernel/kernel_files.h"
#include "kernel/peek.h"

enum place { TASK_FILES, FILES_TABLE, TABLE_FILES, FILE_DATA };

static const struct kernel_member places[] = {
	[TASK_FILES] = { "task_struct", "files" },
	[FILES_TABLE] = { "files_struct", "fdt" },
	[TABLE_FILES] = { "fdtable", "fd" },
	[FILE_DATA] = { "file", "private_data" },
};

static int read_address(const struct kernel_files *files, uint64_t struct_at, enum place place,
			uint64_t *address)
{
	int result = peek_read(files->peek, struct_at + files->offsets[place], address, sizeof(*address));

	return result ? fail(-result, "cannot read the kernel's table of files") : 0;
}

int kernel_files_open(struct kernel_files *files, const struct peek *peek, const struct btf *btf)
{
	*files = (struct kernel_files){ .peek = peek };
	return btf_find_members(btf, places, array_size(places), files->offsets, "files") ?:
		       read_address(files, peek_self(peek), TASK_FILES, &files->table);
}

int kernel_files_find(const struct kernel_files *files, int fd, uint64_t *file, uint64_t *data)
{
	uint64_t table, list;
	int result = read_address(files, files->table, FILES_TABLE, &table) ?:
			     read_address(files, table, TABLE_FILES, &list);

	if (!result && peek_read(files->peek, list + 8 * (uint64_t)fd, file, sizeof(*file)))
		result = fail(EFAULT, "cannot read the kernel's table of files");
	return result ?: read_address(files, *file, FILE_DATA, data);
}
