/*
 * shared.c - shared memory: saved from the kernel's object, and restored into one.
 *
 * /proc/PID/map_files/START-END of a mapping opens the object (needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the
 * initial user namespace), as /proc/PID/fd/N of a descriptor does. lseek(SEEK_DATA) then finds the pages that exist,
 * whether or not a task has touched them through its own page tables, and pread() and pwrite() reach them without a
 * mapping. Only a mapping shows what is between the end of a memfd and the end of its last page. Huge pages are
 * different: huge.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/memory.h"
#include "image/message.h"
#include "kernel/proc.h"
#include "memory/huge.h"
#include "memory/memfd.h"
#include "memory/page_files.h"
#include "memory/segment.h"
#include "memory/delta.h"
#include "memory/shared.h"

#define BUFFER_PAGES 256

static void close_all(void *state)
{
	struct shared_memories *all = state;

	for (size_t i = 0; i < all->count; i++) {
		image_free(all->items[i].memfd);
		if (all->items[i].fd >= 0)
			close(all->items[i].fd);
		if (all->items[i].before >= 0)
			close(all->items[i].before);
	}
	index_free(&all->reserved);
	index_free(&all->by_id);
	index_free(&all->by_inode);
	index_free(&all->memfds);
	free(all->items);
	*all = (struct shared_memories){ 0 };
}

static const struct state_type memories_type = { sizeof(struct shared_memories), close_all };

struct shared_memories *shared_memories_of(const struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &memories_type);
}

void shared_memory_close(struct snapshot *snapshot)
{
	close_all(shared_memories_of(snapshot));
}

struct shared_memory *shared_memory_find(const struct snapshot *snapshot, uint64_t id)
{
	struct shared_memories *all = shared_memories_of(snapshot);
	uintptr_t number = (uintptr_t)index_find(&all->by_id, id);

	return number ? &all->items[number - 1] : NULL;
}

struct shared_memory *shared_memory_new(struct snapshot *snapshot, uint64_t id)
{
	struct shared_memories *all = shared_memories_of(snapshot);
	struct shared_memory *object = grow(&all->items, &all->count);

	object->id = id;
	object->fd = object->before = -1;
	index_set(&all->by_id, id, (void *)all->count);
	return object;
}

/* ---- dump ---- */

/* The format has 32 bits for it; and hugetlbfs has its own inode numbers. */
static uint64_t free_object_id(struct snapshot *snapshot, ino_t inode)
{
	uint64_t id = (uint32_t)inode;

	while (!id || shared_memory_find(snapshot, id) ||
	       index_find(&shared_memories_of(snapshot)->reserved, id))
		id = (uint32_t)(id + 1);
	return id;
}

static int look_at_object(struct shared_memory *object)
{
	struct statfs place;
	struct stat found;

	if (fstat(object->fd, &found) < 0 || fstatfs(object->fd, &place) < 0)
		return fail(errno, "cannot stat shared memory");
	object->size = found.st_size;
	if (place.f_type == HUGETLBFS_MAGIC)
		object->page_size = place.f_bsize;
	return 0;
}

int shared_memory_look(struct snapshot *snapshot, int proc, const char *link, dev_t device, ino_t inode,
		       struct shared_memory **found)
{
	struct shared_memories *all = shared_memories_of(snapshot);
	uint64_t key = index_mix(device, inode);
	struct shared_memory *object;
	uintptr_t number;

	for (; (number = (uintptr_t)index_find(&all->by_inode, key)); key++) {
		*found = &all->items[number - 1];
		if ((*found)->inode == inode && (*found)->device == device)
			return 0;
	}
	*found = object = shared_memory_new(snapshot, free_object_id(snapshot, inode));
	index_set(&all->by_inode, key, (void *)all->count);
	object->device = device;
	object->inode = inode;
	object->is_anonymous = true;
	/* Reading must not be visible in its times (fstat()). Memory of another user cannot be opened like that. */
	object->fd = openat(proc, link, O_RDONLY | O_NOATIME | O_CLOEXEC | O_NOCTTY);
	if (object->fd < 0 && errno == EPERM)
		object->fd = openat(proc, link, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (object->fd < 0)
		return fail(errno, "cannot open shared memory: /proc/PID/%s", link);
	return look_at_object(object);
}

int shared_memory_add(struct snapshot *snapshot, struct task *task, struct vma *vma)
{
	struct shared_memory *object;
	char link[64];
	int result;

	snprintf(link, sizeof(link), "map_files/%llx-%llx", (unsigned long long)vma->start,
		 (unsigned long long)vma->end);
	result = shared_memory_look(snapshot, task->proc, link, vma->device, vma->inode, &object);
	vma->object = object->id;
	/*
	 * The object may be larger than its mapping: mremap() can map again what munmap() has unmapped. It may be
	 * smaller: what mremap() adds to a mapping is behind the end of the object.
	 */
	if (object->size != vma->offset + vma_length(vma))
		vma->object_size = object->size;
	return result;
}

void shared_memory_reserve(struct snapshot *snapshot, int segment)
{
	struct shared_memories *all = shared_memories_of(snapshot);

	index_set(&all->reserved, (uint64_t)segment, all);
}

/* The kernel makes the id of a segment its inode number, so the number may also be that of another memory. */
static int find_segment(struct snapshot *snapshot, uint64_t id, struct shared_memory **found, bool *is_new)
{
	*found = shared_memory_find(snapshot, id);
	*is_new = !*found;
	if (*is_new)
		*found = shared_memory_new(snapshot, id);
	else if (!(*found)->is_segment)
		return fail(0, "the tree has attached shared memory segment %d of another ipc namespace",
			    (int)id);
	(*found)->is_segment = true;
	(*found)->is_anonymous = true;
	return 0;
}

int shared_memory_add_segment(struct snapshot *snapshot, struct task *task, struct vma *vma)
{
	struct shared_memory *object;
	char link[64];
	bool is_new;
	int result = find_segment(snapshot, vma->inode, &object, &is_new);

	if (result)
		return result;
	vma->object = object->id;
	object->attachments++;
	if (!is_new)
		return 0;
	snprintf(link, sizeof(link), "map_files/%llx-%llx", (unsigned long long)vma->start,
		 (unsigned long long)vma->end);
	object->device = vma->device;
	object->fd = openat(task->proc, link, O_RDONLY | O_NOATIME | O_CLOEXEC | O_NOCTTY);
	if (object->fd < 0 && errno == EPERM)
		object->fd = openat(task->proc, link, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (object->fd < 0)
		return fail(errno, "cannot open a shared memory segment: /proc/PID/%s", link);
	result = look_at_object(object) ?: memfd_is_in_own_mount(snapshot, object);
	if (!result)
		return refuse(
			"process %d (%s): memory at %#llx (%s): a deleted file that is called like a segment is not supported",
			task->here, task->name, (unsigned long long)vma->start, vma->path);
	return min(result, 0);
}

static int open_mapping(void *memory, uint64_t size, int flags)
{
	uintptr_t start = (uintptr_t)memory;
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", start, start + size);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? fail(errno, "cannot open %s", path) : fd;
}

/* The length of the mapping depends on the size of the pages, which is not known yet. */
static uint64_t attached_length(void *memory, uint64_t size)
{
	autoclose int self = proc_open(getpid());
	struct vmas vmas = { 0 };
	uint64_t length = round_up(size, PAGE_SIZE);

	if (self >= 0 && !attempted(proc_read_maps(self, &vmas)))
		for (size_t i = 0; i < vmas.count; i++)
			if (vmas.items[i].start == (uintptr_t)memory)
				length = vma_length(&vmas.items[i]);
	vmas_free(&vmas);
	return length;
}

int shared_memory_add_own_segment(struct snapshot *snapshot, int id, void *memory, uint64_t size)
{
	struct shared_memory *object;
	bool is_new;
	int result = find_segment(snapshot, id, &object, &is_new);

	if (result)
		return result;
	object->fd = open_mapping(memory, attached_length(memory, size), O_RDONLY);
	return object->fd < 0 ? object->fd : look_at_object(object);
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
		/* A process outside of the tree may have enlarged it meanwhile. */
		if ((uint64_t)start >= size)
			return 0;
		end = min((uint64_t)end, size);
		page_runs_add(runs, &(struct page_run){ .start = start,
							.count = round_up((uint64_t)end - start, PAGE_SIZE) /
								 PAGE_SIZE,
							.offset = start });
	}
	return 0;
}

/*
 * Copies the bytes behind the end, up to the end of the page. A process outside of the tree may change the size: a
 * fault would be a SIGBUS.
 */
static int copy_tail(int fd, uint64_t size, char *bytes, bool is_to_file)
{
	uint64_t used = size % PAGE_SIZE;
	char *page = mmap(NULL, PAGE_SIZE, PROT_READ | (is_to_file ? PROT_WRITE : 0), MAP_SHARED, fd,
			  size - used);
	struct iovec here = { bytes, PAGE_SIZE - used }, there = { page + used, PAGE_SIZE - used };
	ssize_t copied;

	if (page == MAP_FAILED)
		return fail(errno, "cannot map the last page of shared memory");
	copied = is_to_file ? process_vm_writev(getpid(), &here, 1, &there, 1, 0) :
			      process_vm_readv(getpid(), &here, 1, &there, 1, 0);
	munmap(page, PAGE_SIZE);
	return copied == (ssize_t)here.iov_len ? 0 : fail(0, "the size of shared memory has changed");
}

static int pages_of_object(void *from, struct page_run *runs, size_t count, char *buffer)
{
	const struct shared_memory *object = from;

	for (size_t i = 0; i < count; i++) {
		uint64_t end = page_run_end(&runs[i]), size = min(end, object->size) - runs[i].start;
		int result = read_all_at(object->fd, buffer, size, runs[i].start);

		if (result)
			return fail(-result, "cannot read shared memory at %#llx",
				    (unsigned long long)runs[i].start);
		if (end > object->size)
			result = copy_tail(object->fd, object->size, buffer + size, false);
		if (result)
			return result;
		buffer += runs[i].count * PAGE_SIZE;
	}
	return 0;
}

static int write_plan(struct page_writer *writer, struct shared_memory *object, const struct page_runs *plan,
		      bool is_exact, bool skips_zeros)
{
	if (object->page_size && is_exact && skips_zeros)
		return huge_write_pages(writer, plan, object->page_size, pages_of_object, object);
	return page_writer_add(writer, plan, PAGES_PRESENT, skips_zeros, pages_of_object, object);
}

/* Its buffers are as large as the object. */
static bool hold_object(const struct shared_memory *object, struct held_writers *held,
			struct page_writer *writer)
{
	return held && !object->page_size &&
	       held_writers_add(held, writer, round_up(object->size, PAGE_SIZE) / PAGE_SIZE);
}

static int save_one(struct snapshot *snapshot, struct increment *increment, struct shared_memory *object,
		    uint32_t pages_id, struct page_statistics *statistics, struct held_writers *held)
{
	struct page_runs runs = { 0 }, plan = { 0 };
	struct page_writer *writer = NULL;
	struct page_hashing hashing;
	bool is_exact = true;
	int result = object->page_size ?
			     huge_find_pages(object->fd, object->size, object->page_size, &runs, &is_exact) :
			     find_data(object->fd, object->size, &runs);

	if (!result)
		result = page_files_write(
			&writer,
			&(struct page_files){ .store = snapshot->images,
					      .kind = IMAGE_SHMEM_PAGEMAP,
					      .id = object->id,
					      .pages_id = pages_id,
					      .usual_size = object->page_size ? 0 : object->size,
					      .hashing = increment_hashing(increment, true, &hashing) },
			statistics);
	if (!result)
		result = shared_delta_plan(increment, object->id, pages_of_object, object, &runs, &plan);
	if (!result)
		result = write_plan(writer, object, &plan, is_exact, increment_skips_zeros(increment));
	page_runs_free(&runs);
	page_runs_free(&plan);
	return !result && hold_object(object, held, writer) ? 0 : page_writer_close(writer, result);
}

int shared_memory_save(struct snapshot *snapshot, struct increment *increment, uint32_t *next_pages_id,
		       struct page_statistics *statistics, struct held_writers *held)
{
	const struct shared_memories *all = shared_memories_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < all->count; i++)
		result = save_one(snapshot, increment, &all->items[i], (*next_pages_id)++, statistics, held);
	return result;
}

/* ---- restore ---- */

int shared_memory_note(struct snapshot *snapshot, const struct vma *vma)
{
	struct shared_memory *object = shared_memory_find(snapshot, vma->object);
	uint64_t page_size = vma->flags & MAP_HUGETLB ? vma_page_size(vma) : 0;
	uint64_t needed = vma->offset + vma_length(vma);

	if (needed < vma->offset || needed > INT64_MAX)
		return fail(EINVAL, "the mapping of shared memory at %#llx is impossible",
			    (unsigned long long)vma->start);
	if (!object) {
		object = shared_memory_new(snapshot, vma->object);
		object->page_size = page_size;
		object->is_anonymous = true;
	}
	if (object->is_segment != !!(vma->status & VMA_SYSV_IPC))
		return fail(EINVAL, "the images describe no shared memory segment %llu",
			    (unsigned long long)object->id);
	if (object->is_segment && needed > round_up(object->size, PAGE_SIZE))
		return fail(EINVAL, "the mapping at %#llx is larger than shared memory segment %llu",
			    (unsigned long long)vma->start, (unsigned long long)object->id);
	if (object->page_size != page_size || !object->is_anonymous)
		return fail(EINVAL, "the images describe shared memory %llu in two ways",
			    (unsigned long long)object->id);
	if (vma->object_size > INT64_MAX || (page_size && vma->object_size % page_size) ||
	    (vma->object_size && object->has_size && vma->object_size != object->size))
		return fail(EINVAL, "the images have an invalid size of shared memory %llu",
			    (unsigned long long)object->id);
	if (vma->object_size)
		object->size = vma->object_size;
	else if (!object->has_size)
		object->size = max(object->size, needed);
	object->has_size |= vma->object_size > 0;
	return 0;
}

/* Writes pages of ordinary memory; bytes behind the end are in the last page. */
static int write_object_pages(const struct shared_memory *object, char *bytes, uint64_t start, uint64_t end)
{
	uint64_t size = min(end, object->size) - start;
	int result = write_all_at(object->fd, bytes, size, start);

	if (result)
		return fail(-result, "cannot fill shared memory");
	return end > object->size ? copy_tail(object->fd, object->size, bytes + size, true) : 0;
}

static int fill_ordinary(const struct shared_memory *object, const struct page_stack *stack, char *buffer)
{
	for (size_t i = 0; i < stack->by_layer.count; i++) {
		const struct page_run *run = &stack->by_layer.items[i];

		for (uint64_t done = 0, take; done < run->count; done += take) {
			uint64_t start = run->start + done * PAGE_SIZE;
			int result;

			take = min(run->count - done, (uint64_t)BUFFER_PAGES);
			result =
				interrupt_check() ?:
					page_stack_read(stack, run->layer, buffer, take, run->offset + done * PAGE_SIZE) ?:
					write_object_pages(object, buffer, start, start + take * PAGE_SIZE);
			if (result)
				return result;
		}
	}
	return 0;
}

/* `buffer`: BUFFER_PAGES pages. */
static int fill_object(struct shared_memory *object, const struct page_stack *stack, char *buffer,
		       uint64_t *pages)
{
	const struct page_runs *runs = &stack->runs;
	autofree char *name = format_text("shared memory %llu", (unsigned long long)object->id);

	if (runs->count && page_run_end(&runs->items[runs->count - 1]) > round_up(object->size, PAGE_SIZE))
		return fail(EINVAL, "the images have pages beyond the end of %s", name);
	*pages += page_runs_total(runs);
	if (object->is_kept) {
		int result = segment_empty_kept(object, stack);

		if (result)
			return min(result, 0);
	}
	return object->page_size ? huge_fill_file(object->fd, object->size, object->page_size, stack, name) :
				   fill_ordinary(object, stack, buffer);
}

/*
 * A mapping in criu creates the object, and its link in map_files gives a descriptor of it that outlives the mapping.
 */
static int make_object(struct shared_memory *object)
{
	uint64_t size = round_up(object->size, PAGE_SIZE);
	int flags = object->page_size ? huge_map_flags(object->page_size) : 0;
	void *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

	if (mapping == MAP_FAILED)
		return fail(errno, "cannot create %llu bytes of shared memory", (unsigned long long)size);
	object->fd = open_mapping(mapping, size, O_RDWR);
	munmap(mapping, size);
	return min(object->fd, 0);
}

int shared_memory_open_segment(struct shared_memory *object, void *memory)
{
	object->fd = open_mapping(memory, round_up(object->size, PAGE_SIZE), O_RDWR);
	return min(object->fd, 0);
}

/* criu/ipc has made segments already. */
static int make_memory(struct shared_memory *object)
{
	if (object->is_segment)
		return 0;
	return object->is_anonymous ? make_object(object) : memfd_make(object);
}

int shared_memory_make(struct snapshot *snapshot, struct page_chain *chain, uint64_t *pages)
{
	const struct shared_memories *all = shared_memories_of(snapshot);
	autofree char *buffer = all->count ? allocate(BUFFER_PAGES * PAGE_SIZE) : NULL;
	int result = 0;

	for (size_t i = 0; !result && i < all->count; i++) {
		struct shared_memory *object = &all->items[i];
		struct page_stack stack;

		result = page_stack_open(&stack, chain, IMAGE_SHMEM_PAGEMAP, object->id);
		/* Another criu may write no image for an object without pages. */
		if (result == -ENOENT && page_chain_snapshot(chain, 0))
			fail(ENOENT, "pagemap-shmem-%llu.img is missing", (unsigned long long)object->id);
		else if (result == -ENOENT)
			result = 0;
		if (result)
			break;
		result = make_memory(object) ?: fill_object(object, &stack, buffer, pages);
		page_stack_close(&stack);
	}
	page_chain_rest(chain);
	return result;
}

void shared_memory_put_back(struct snapshot *snapshot)
{
	const struct shared_memories *all = shared_memories_of(snapshot);

	for (size_t i = 0; i < all->count; i++)
		segment_put_back(&all->items[i]);
}

void shared_memory_pass(struct snapshot *snapshot, struct letter *letter)
{
	const struct shared_memories *all = shared_memories_of(snapshot);

	for (size_t i = 0; i < all->count; i++)
		letter_number(letter, &all->items[i].fd);
}

int shared_memory_seal(struct snapshot *snapshot)
{
	const struct shared_memories *all = shared_memories_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < all->count; i++)
		if (all->items[i].memfd)
			result = memfd_seal(&all->items[i]);
	return result;
}
