/*
 * sources.c - reads the pages to save from a task, stopped or running. See pages.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "memory/pages.h"
#include "memory/twin_pages.h"

#define WORTH_HALVING 128 /* pages; waking a thread takes as long as reading some 30 */

int task_memory_open(struct task_memory *memory, pid_t here, int pidfd, int proc)
{
	*memory = (struct task_memory){ .here = here, .pidfd = pidfd };
	memory->mem = openat(proc, "mem", O_RDONLY | O_CLOEXEC);
	return memory->mem < 0 ? fail(errno, "cannot open /proc/%d/mem", here) : 0;
}

void task_memory_close(struct task_memory *memory)
{
	if (memory->mem >= 0)
		close(memory->mem);
	memory->mem = -1;
}

/* Returns how much can be read, up to the first page that cannot. */
static uint64_t read_what_is_left(const struct task_memory *memory, const struct page_run *run, char *buffer)
{
	uint64_t page = 0;

	while (page < run->count &&
	       !read_all_at(memory->mem, buffer + page * PAGE_SIZE, PAGE_SIZE, run->start + page * PAGE_SIZE))
		page++;
	return page;
}

/*
 * Reads /proc/PID/mem, which ignores the protection of mappings. It also leaves pages shared that relatives share since
 * a fork: process_vm_readv() pins what it reads, which since Linux 5.19 gives the process a copy of its own.
 */
static int read_by_file(const struct task_memory *memory, struct page_run *runs, size_t count, char *buffer)
{
	for (size_t i = 0; i < count; i++) {
		size_t size = runs[i].count * PAGE_SIZE;
		int result = read_all_at(memory->mem, buffer, size, runs[i].start);

		if (result && !memory->is_running)
			return fail(-result, "cannot read the memory of process %d at %#llx", memory->here,
				    (unsigned long long)runs[i].start);
		if (result)
			runs[i].count = read_what_is_left(memory, &runs[i], buffer);
		buffer += size;
	}
	return 0;
}

/*
 * If it has ended, its pid may belong to another process. If it has not ended yet, all calls before were made on the
 * right process.
 */
static bool has_ended(const struct task_memory *memory)
{
	return memory->is_running && pidfd_has_ended(memory->pidfd);
}

/* Consecutive runs, read in one call. */
struct part {
	pid_t here;
	const struct page_run *runs;
	size_t count;
	char *buffer;
	bool is_read; /* all of it */
};

static void read_part(void *argument)
{
	struct part *part = argument;
	struct iovec here = { part->buffer, 0 }, there[IOV_MAX];

	there[0] = here;
	for (size_t i = 0; i < part->count; i++) {
		const struct page_run *run = &part->runs[i];

		there[i] = (struct iovec){ (void *)(uintptr_t)run->start, run->count * PAGE_SIZE };
		here.iov_len += there[i].iov_len;
	}
	part->is_read = process_vm_readv(part->here, &here, 1, there, part->count, 0) ==
			(ssize_t)here.iov_len;
}

static uint64_t count_pages(const struct page_run *runs, size_t count)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < count; i++)
		pages += runs[i].count;
	return pages;
}

/* Scattered pages are in no CPU cache: two threads wait half as long for them as one. */
static bool read_halves(const struct task_memory *memory, struct part *whole)
{
	struct part first = *whole, second = *whole;
	uint64_t pages = 0, all = count_pages(whole->runs, whole->count);

	if (!memory->helper || all < WORTH_HALVING) {
		read_part(whole);
		return whole->is_read;
	}
	for (first.count = 0; pages < all / 2; first.count++)
		pages += whole->runs[first.count].count;
	second.runs += first.count;
	second.count -= first.count;
	second.buffer += pages * PAGE_SIZE;
	helper_thread_run(memory->helper, read_part, &second);
	read_part(&first);
	helper_thread_wait(memory->helper);
	return first.is_read && second.is_read;
}

/* False: not by the twin itself, or not all of it. */
static bool read_by_twin(const struct task_memory *memory, const struct page_run *runs, size_t count,
			 char *buffer)
{
	uint64_t began = monotonic_time();

	if (memory->is_unreadable || !twin_pages_is_faster(memory->twin) ||
	    !twin_pages_copy(memory->twin, runs, count, buffer))
		return false;
	throughput_add(&memory->twin->by_twin, count_pages(runs, count) * PAGE_SIZE, began);
	return true;
}

static int read_twin(const struct task_memory *memory, struct page_run *runs, size_t count, char *buffer)
{
	uint64_t pages = count_pages(runs, count), began;
	int result;

	if (read_by_twin(memory, runs, count, buffer))
		return 0;
	began = monotonic_time();
	result = read_by_file(memory, runs, count, buffer);
	throughput_add(&memory->twin->by_file, pages * PAGE_SIZE, began);
	return result;
}

int pages_of_task(void *from, struct page_run *runs, size_t count, char *buffer)
{
	struct task_memory *memory = from;
	struct part all = { .here = memory->here, .runs = runs, .count = count, .buffer = buffer };

	if (memory->twin)
		return read_twin(memory, runs, count, buffer);
	if (!memory->has_relatives && read_halves(memory, &all) && !has_ended(memory))
		return 0;
	return read_by_file(memory, runs, count, buffer);
}
