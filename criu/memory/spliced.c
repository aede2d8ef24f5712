/*
 * spliced.c - has a frozen task vmsplice() its own pages into pipes, and reads them later. See spliced.h.
 *
 * The task needs a descriptor of each pipe, so the pipes are created in the task. Each exists there for two round
 * trips; then criu keeps only the reading end. Neither side needs a privilege for pipes of 1 MiB
 * (/proc/sys/fs/pipe-max-size).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "compel.h"
#include "memory/spliced.h"

#define PIPE_PAGES    256
#define PIPES_AT_ONCE 8

/* Pages for one pipe. */
struct load {
	struct iovec vectors[PIPE_PAGES];
	size_t count;
	int ends[2];			  /* in the task: reading end, writing end; -1 */
	int pipe;			  /* criu's reading end; -1 */
	const struct remote_call *splice; /* NULL: not requested */
};

struct taking {
	struct victim *victim;
	int pidfd;
	const struct page_runs *runs;
	size_t run;    /* the run to take next, … */
	uint64_t page; /* … from this page on */
	struct load loads[PIPES_AT_ONCE];
	uint64_t *budget; /* pages */
	int limit;	  /* criu's descriptors must be below this */
	bool is_over;	  /* no more pipes are possible */
};

/* In the scratch of the task: the descriptors of all pipes, then the vectors of each. */
static uint64_t ends_at(const struct taking *taking, size_t load)
{
	size_t room;

	return victim_scratch(taking->victim, &room) + load * sizeof(taking->loads[load].ends);
}

static uint64_t vectors_at(const struct taking *taking, size_t load)
{
	return ends_at(taking, PIPES_AT_ONCE) + load * sizeof(taking->loads[load].vectors);
}

static void fill_load(struct taking *taking, struct load *load)
{
	uint64_t pages = 0, most = min(*taking->budget, (uint64_t)PIPE_PAGES);

	for (load->count = 0; pages < most && taking->run < taking->runs->count; load->count++) {
		const struct page_run *run = &taking->runs->items[taking->run];
		uint64_t take = min(run->count - taking->page, most - pages);

		load->vectors[load->count] = (struct iovec){
			(void *)(uintptr_t)(run->start + taking->page * PAGE_SIZE), take * PAGE_SIZE
		};
		pages += take;
		taking->page += take;
		if (taking->page == run->count) {
			taking->run++;
			taking->page = 0;
		}
	}
	*taking->budget -= pages;
}

static int make_pipes(struct taking *taking, size_t count)
{
	struct remote_call calls[PIPES_AT_ONCE] = { 0 };
	int ends[PIPES_AT_ONCE][2], result;

	for (size_t i = 0; i < count; i++)
		calls[i] = (struct remote_call){
			.number = SYS_pipe2, .arguments = { ends_at(taking, i), O_CLOEXEC | O_NONBLOCK }
		};
	result = victim_call(taking->victim, calls, count) ?:
			 victim_read(taking->victim, ends_at(taking, 0), ends, count * sizeof(ends[0]));
	for (size_t i = 0; !result && i < count; i++) {
		struct load *load = &taking->loads[i];

		taking->is_over |= calls[i].result < 0;
		if (calls[i].result < 0)
			continue;
		load->ends[0] = ends[i][0];
		load->ends[1] = ends[i][1];
		load->pipe = syscall(SYS_pidfd_getfd, taking->pidfd, load->ends[0], 0);
		taking->is_over |= load->pipe < 0 || load->pipe >= taking->limit;
		/* A smaller pipe takes less, and reports that. */
		if (load->pipe >= 0)
			fcntl(load->pipe, F_SETPIPE_SZ, PIPE_PAGES * PAGE_SIZE);
	}
	return result;
}

static void note_taken(struct spliced *spliced, struct load *load, uint64_t bytes)
{
	if (bytes < PAGE_SIZE)
		return;
	*grow(&spliced->pipes, &spliced->pipe_count) = steal_fd(&load->pipe);
	for (size_t i = 0; bytes; i++) {
		uint64_t start = (uintptr_t)load->vectors[i].iov_base;
		uint64_t size = min(bytes, (uint64_t)load->vectors[i].iov_len);

		page_runs_add_range(&spliced->taken, start, start + size);
		bytes -= size;
	}
}

/* No descriptor stays in the task, even after an error. */
static int fill_pipes(struct spliced *spliced, struct taking *taking, size_t count)
{
	struct remote_call calls[3 * PIPES_AT_ONCE] = { 0 }, *call = calls;
	int result = 0;

	for (size_t i = 0; i < count; i++) {
		struct load *load = &taking->loads[i];

		if (load->ends[0] < 0)
			continue;
		result = result ?:
				  victim_write(taking->victim, vectors_at(taking, i), load->vectors,
					       load->count * sizeof(load->vectors[0]));
		if (load->pipe >= 0 && !result) {
			*call = (struct remote_call){ .number = SYS_vmsplice,
						      .arguments = { load->ends[1], vectors_at(taking, i),
								     load->count, SPLICE_F_NONBLOCK } };
			load->splice = call++;
		}
		*call++ = (struct remote_call){ .number = SYS_close, .arguments = { load->ends[0] } };
		*call++ = (struct remote_call){ .number = SYS_close, .arguments = { load->ends[1] } };
	}
	result = victim_call(taking->victim, calls, call - calls) ?: result;
	for (size_t i = 0; !result && i < count; i++)
		if (taking->loads[i].splice)
			note_taken(spliced, &taking->loads[i], max(taking->loads[i].splice->result, 0L));
	return result;
}

static bool has_more(const struct taking *taking)
{
	return !taking->is_over && *taking->budget && taking->run < taking->runs->count;
}

static int take_some(struct spliced *spliced, struct taking *taking)
{
	size_t count = 0;
	int result;

	for (; count < PIPES_AT_ONCE && has_more(taking); count++) {
		struct load *load = &taking->loads[count];

		fill_load(taking, load);
		load->ends[0] = load->ends[1] = load->pipe = -1;
		load->splice = NULL;
	}
	result = make_pipes(taking, count) ?: fill_pipes(spliced, taking, count);
	for (size_t i = 0; i < count; i++)
		if (taking->loads[i].pipe >= 0)
			close(taking->loads[i].pipe);
	return result;
}

/* Half of the descriptors: others may be needed. */
static int most_descriptors(void)
{
	return min(descriptors_most() / 2, (size_t)INT_MAX);
}

/* 0 is no limit. */
static uint64_t read_limit(const char *path)
{
	autofree char *text = NULL;
	uint64_t limit = read_text_at(AT_FDCWD, path, &text) > 0 ? strtoull(text, NULL, 10) : 0;

	return limit ?: UINT64_MAX;
}

uint64_t spliced_budget(void)
{
	return min(read_limit("/proc/sys/fs/pipe-user-pages-soft"),
		   read_limit("/proc/sys/fs/pipe-user-pages-hard")) /
	       2;
}

int spliced_take(struct spliced *spliced, struct task *task, struct task_memory *memory,
		 const struct page_runs *runs, uint64_t *budget)
{
	autofree struct taking *taking = allocate(sizeof(*taking));
	bool was_infected = task->victim->infection;
	int result = 0;

	*spliced = (struct spliced){ .memory = memory };
	*taking = (struct taking){
		.victim = task->victim,
		.pidfd = task->pidfd,
		.runs = runs,
		.budget = budget,
		.limit = most_descriptors(),
	};
	if (!has_more(taking))
		return 0;
	if (!was_infected && attempted(victim_infect(task->victim))) {
		log_warning(
			"process %d: criu's code (the parasite) cannot be inserted, so its pages are not spliced but read",
			task->here);
		return 0;
	}
	while (!result && has_more(taking))
		result = take_some(spliced, taking);
	if (!was_infected && task->victim->infection)
		result = victim_cure(task->victim) ?: result;
	log_info("process %d: %llu of %llu pages are in %zu pipes", task->here,
		 (unsigned long long)page_runs_total(&spliced->taken),
		 (unsigned long long)page_runs_total(runs), spliced->pipe_count);
	return result;
}

void spliced_close(struct spliced *spliced)
{
	for (size_t i = 0; i < spliced->pipe_count; i++)
		close(spliced->pipes[i]);
	free(spliced->pipes);
	page_runs_free(&spliced->taken);
	*spliced = (struct spliced){ 0 };
}

/* ---- when the task runs on ---- */

static int read_pipes(struct spliced *spliced, char *buffer, size_t size)
{
	while (size) {
		ssize_t got;

		if (spliced->pipe == spliced->pipe_count)
			return fail(ENODATA, "pages were lost in the pipes of --pre-dump-mode=splice");
		got = read(spliced->pipes[spliced->pipe], buffer, size);
		if (got < 0)
			return fail(errno, "cannot read pages from a pipe");
		if (!got)
			spliced->pipe++;
		buffer += got;
		size -= got;
	}
	return 0;
}

/* The number of pages from `address` on that are alike: all in pipes, or all not. */
static uint64_t same_kind(const struct spliced *spliced, uint64_t address, uint64_t count, bool *is_taken)
{
	const struct page_run *next = spliced->run < spliced->taken.count ?
					      &spliced->taken.items[spliced->run] :
					      NULL;
	uint64_t end;

	*is_taken = next && next->start <= address;
	if (!next)
		return count;
	end = *is_taken ? page_run_end(next) : next->start;
	return min(count, (end - address) / PAGE_SIZE);
}

/* Pages of a run behind vanished ones are not saved. But those in the pipes have to be read, to reach what follows. */
static int read_run(struct spliced *spliced, struct page_run *run, char *buffer)
{
	uint64_t kept = run->count;
	int result = 0;

	for (uint64_t page = 0, count; !result && page < run->count; page += count) {
		struct page_run part = { .start = run->start + page * PAGE_SIZE };
		bool is_taken;

		count = part.count = same_kind(spliced, part.start, run->count - page, &is_taken);
		if (is_taken) {
			result = read_pipes(spliced, buffer + page * PAGE_SIZE, count * PAGE_SIZE);
			spliced->run += page_run_end(&part) ==
					page_run_end(&spliced->taken.items[spliced->run]);
		} else {
			result = pages_of_task(spliced->memory, &part, 1, buffer + page * PAGE_SIZE);
			if (part.count < count)
				kept = min(kept, page + part.count);
		}
	}
	run->count = kept;
	return result;
}

int pages_of_pipes(void *from, struct page_run *runs, size_t count, char *buffer)
{
	int result = 0;

	for (size_t i = 0; !result && i < count; i++) {
		size_t size = runs[i].count * PAGE_SIZE;

		result = read_run(from, &runs[i], buffer);
		buffer += size;
	}
	return result;
}
