/*
 * by_address.c - see by_address.h.
 */
#include <unistd.h>
#include "base/memory.h"
#include "files/by_address.h"
#include "files/kind.h"
#include "kernel/kernel_files.h"

int files_index_by_address(const struct snapshot *snapshot, const struct kernel_files *kernel,
			   struct index *index)
{
	int result = 0;

	for (size_t i = 0; !result && i < snapshot->file_count; i++) {
		struct file *file = snapshot->files[i];
		uint64_t address, data;
		autoclose int fd = -1;

		if (!file->kind || !file->seen || file->seen->fd < 0)
			continue;
		fd = files_borrow(file->seen);
		result = fd < 0 ? fd : kernel_files_find(kernel, fd, &address, &data);
		if (result)
			break;
		index_set(index, address, file);
		if (file->kind == &file_kind_eventfd)
			index_set(index, data, file);
	}
	return result;
}
