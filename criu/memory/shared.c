/*
 * shared.c - shared anonymous memory, saved from and made into the kernel's object itself.
 *
 * /proc/PID/map_files/START-END of such a mapping opens the object (needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the initial user
 * namespace). lseek(SEEK_DATA) then tells which pages exist, whether or not any task has touched them through its own page
 * tables, and pread() and pwrite() reach them without a mapping.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "memory/shared.h"

#define BUFFER_PAGES 256

struct shared_memory *shared_memory_find(struct snapshot *snapshot, uint64_t id)
{
	for (size_t i = 0; i < snapshot->shared_count; i++)
		if (snapshot->shared[i].id == id)
			return &snapshot->shared[i];
	return NULL;
}

static int add_object(struct snapshot *snapshot, struct task *task, const struct vma *vma,
		      struct shared_memory **added)
{
	struct shared_memory *object = *added = grow(&snapshot->shared, &snapshot->shared_count);
	struct stat found;
	char path[64];

	object->id = vma->inode;
	object->device = vma->device;
	snprintf(path, sizeof(path), "map_files/%llx-%llx", (unsigned long long)vma->start,
		 (unsigned long long)vma->end);
	object->fd = openat(task->proc, path, O_RDONLY | O_CLOEXEC);
	if (object->fd < 0 || fstat(object->fd, &found) < 0)
		return fail(errno, "cannot open shared memory at %#llx", (unsigned long long)vma->start);
	object->size = found.st_size;
	return 0;
}

int shared_memory_add(struct snapshot *snapshot, struct task *task, struct vma *vma)
{
	struct shared_memory *object = shared_memory_find(snapshot, vma->inode);
	int result = object ? 0 : add_object(snapshot, task, vma, &object);

	vma->object = vma->inode;
	if (!result && object->device != vma->device)
		return fail(0, "two kinds of shared memory have the same inode %llu",
			    (unsigned long long)vma->inode);
	/* What munmap() has left of it can be mapped again by mremap(); what mremap() has added lies behind its end. */
	if (object->size != vma->offset + vma_length(vma))
		vma->object_size = object->size;
	return result;
}

static int find_data(int fd, uint64_t size, struct page_runs *runs)
{
	for (off_t start = 0, end; (uint64_t)start < size; start = end) {
		start = lseek(fd, start, SEEK_DATA);
		if (start < 0)
			return errno == ENXIO ? 0 : fail(errno, "cannot find the pages of shared memory");
		end = lseek(fd, start, SEEK_HOLE);
		if (end < 0)
			return fail(errno, "cannot find the pages of shared memory");
		page_runs_add(runs, &(struct page_run){ .start = start,
							.count = round_up((uint64_t)end - start, PAGE_SIZE) /
								 PAGE_SIZE,
							.offset = start });
	}
	return 0;
}

static int save_one(struct snapshot *snapshot, const struct tracking *tracking, struct shared_memory *object,
		    uint32_t pages_id, struct page_statistics *statistics)
{
	struct page_runs runs = { 0 }, plan = { 0 };
	struct page_writer *writer = NULL;
	struct page_hashing hashing;
	int result = find_data(object->fd, object->size, &runs);

	if (!result)
		result = page_writer_open(&writer, snapshot->images, IMAGE_SHMEM_PAGEMAP, object->id,
					  pages_id, tracking_hashing(tracking, true, &hashing), statistics);
	if (!result)
		result = tracking_plan_shared(tracking, object->id, pages_of_file, &object->fd, &runs, &plan);
	if (!result)
		result = page_writer_add(writer, &plan, PAGES_PRESENT, tracking_skips_zeros(tracking),
					 pages_of_file, &object->fd);
	page_runs_free(&runs);
	page_runs_free(&plan);
	return page_writer_close(writer) ?: result;
}

int shared_memory_save(struct snapshot *snapshot, const struct tracking *tracking, uint32_t *next_pages_id,
		       struct page_statistics *statistics)
{
	int result = 0;

	for (size_t i = 0; !result && i < snapshot->shared_count; i++)
		result = save_one(snapshot, tracking, &snapshot->shared[i], (*next_pages_id)++, statistics);
	return result;
}

/* ---- restore ---- */

int shared_memory_note(struct snapshot *snapshot, const struct vma *vma)
{
	struct shared_memory *object = shared_memory_find(snapshot, vma->object);
	uint64_t needed = vma->offset + vma_length(vma);

	if (needed < vma->offset || needed > INT64_MAX)
		return fail(EINVAL, "the image holds an impossible mapping of shared memory");
	if (!object) {
		object = grow(&snapshot->shared, &snapshot->shared_count);
		object->id = vma->object;
		object->fd = -1;
	}
	if (vma->object_size > INT64_MAX ||
	    (vma->object_size && object->has_size && vma->object_size != object->size))
		return fail(EINVAL, "the image holds an impossible size of shared memory");
	if (vma->object_size)
		object->size = vma->object_size;
	else if (!object->has_size)
		object->size = max(object->size, needed);
	object->has_size |= vma->object_size > 0;
	return 0;
}

static int fill(const struct shared_memory *object, const struct page_stack *stack, uint64_t *pages)
{
	autofree char *buffer = allocate(BUFFER_PAGES * PAGE_SIZE);

	for (size_t i = 0; i < stack->by_layer.count; i++) {
		const struct page_run *run = &stack->by_layer.items[i];

		if (page_run_end(run) > round_up(object->size, PAGE_SIZE))
			return fail(EINVAL, "the images hold pages behind the end of shared memory %llu",
				    (unsigned long long)object->id);
		for (uint64_t done = 0, take; done < run->count; done += take) {
			int result;

			take = min(run->count - done, (uint64_t)BUFFER_PAGES);
			result = page_stack_read(stack, run->layer, buffer, take,
						 run->offset + done * PAGE_SIZE);
			if (result)
				return result;
			result = write_all_at(object->fd, buffer, take * PAGE_SIZE,
					      run->start + done * PAGE_SIZE);
			if (result)
				return fail(-result, "cannot fill shared memory");
		}
		*pages += run->count;
	}
	return 0;
}

/* A mapping of ours makes the object, and its link in map_files a descriptor of it that outlives the mapping. */
static int make_object(struct shared_memory *object)
{
	void *mapping = mmap(NULL, object->size, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t start = (uintptr_t)mapping;
	char path[80];

	if (mapping == MAP_FAILED)
		return fail(errno, "cannot make %llu bytes of shared memory",
			    (unsigned long long)object->size);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", start,
		 start + round_up(object->size, PAGE_SIZE));
	object->fd = open(path, O_RDWR | O_CLOEXEC);
	munmap(mapping, object->size);
	return object->fd < 0 ? fail(errno, "cannot open %s", path) : 0;
}

int shared_memory_make(struct snapshot *snapshot, struct page_chain *chain, uint64_t *pages)
{
	int result = 0;

	for (size_t i = 0; !result && i < snapshot->shared_count; i++) {
		struct shared_memory *object = &snapshot->shared[i];
		struct page_stack stack;

		result = page_stack_open(&stack, chain, IMAGE_SHMEM_PAGEMAP, object->id);
		if (result && result != -ENOENT)
			break;
		result = make_object(object) ?: fill(object, &stack, pages);
		page_stack_close(&stack);
	}
	page_chain_rest(chain);
	return result;
}

void shared_memory_close(struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->shared_count; i++)
		if (snapshot->shared[i].fd >= 0)
			close(snapshot->shared[i].fd);
	free(snapshot->shared);
	snapshot->shared = NULL;
	snapshot->shared_count = 0;
}
