/*
 * io_uring_early.c - dump: requests in flight before the files are looked at.
 *
 * What a request takes from a file, or puts there, belongs to what is read of that file: an unread message, a counter.
 * It may also open a file or close one. So before the files are looked at, everything in flight has to be complete but
 * what waits (io_uring_requests.c). That goes on when its thread does, which works for criu afterwards. So at the last
 * look, all of it has to wait still; only timeouts and polls do nothing with files.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/time.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "kernel/uring.h"

struct uring_early {
	uint64_t *items; /* the kernel's addresses of requests that would do something with a file */
	size_t count;
	uint32_t sq_head, cq_tail;
	bool has_multishot; /* which stays when it has completed */
};

/* ---- before the files are looked at ---- */

static struct uring_early *find_early(struct io_uring_state *state, uint64_t ring)
{
	struct uring_early *early = index_find(&state->early, ring);

	if (!early) {
		early = allocate(sizeof(*early));
		*grow(&state->earlies, &state->early_count) = early;
		index_set(&state->early, ring, early);
	}
	return early;
}

static void note_early(struct io_uring_state *state, const struct uring_facts *facts,
		       const struct uring_requests *requests)
{
	struct uring_early *early = find_early(state, facts->ring);

	free(early->items);
	*early = (struct uring_early){ .sq_head = facts->sq_head, .cq_tail = facts->cq_tail };
	for (size_t i = 0; i < requests->count; i++) {
		const struct uring_request *request = &requests->items[i];

		if (request->opcode == IORING_OP_TIMEOUT || request->opcode == IORING_OP_POLL_ADD)
			continue;
		*grow(&early->items, &early->count) = request->at;
		early->has_multishot |= request->opcode == IORING_OP_ACCEPT &&
					request->how & IORING_ACCEPT_MULTISHOT;
	}
}

static bool has_ready(const struct uring_requests *requests)
{
	bool is_ready = false;

	for (size_t i = 0; i < requests->count; i++)
		is_ready |= requests->items[i].is_ready;
	return is_ready;
}

/*
 * Does the kernel work on a request? In a ring that is refused later, this does not matter: there, what is not known to
 * wait may wait for ever.
 */
static bool is_ring_busy(const struct uring_reader *reader, int fd, const struct uring_facts *facts,
			 const struct uring_requests *requests, const char *problem)
{
	unsigned opcode;

	if (io_uring_thread_takes(facts))
		return true;
	if (facts->in_flight <= requests->count || problem || facts->waiting || facts->extra)
		return false;
	return uring_lists_requests(reader) || !io_uring_waits_for_files(fd, &opcode);
}

/* Published requests are looked at first: what was taken meanwhile is in flight. */
static int look(struct io_uring_state *state, int fd, struct uring_facts *facts, struct uring_round *round,
		bool *must_go_on)
{
	struct uring_requests requests = { 0 };
	const char *problem = NULL;
	bool takes, is_busy;
	int result = uring_read(state->reader, fd, facts);

	takes = !result && io_uring_thread_takes(facts);
	if (!result && facts->flags & IORING_SETUP_SQPOLL)
		result = uring_read(state->reader, fd, facts);
	result = result ?: uring_read_requests(state->reader, facts, &requests, &problem);
	if (!result) {
		note_early(state, facts, &requests);
		is_busy = takes || is_ring_busy(state->reader, fd, facts, &requests, problem);
		*must_go_on = is_busy || has_ready(&requests) || requests.count < facts->in_flight;
		round->is_busy |= is_busy;
		round->was_ready |= *must_go_on;
		if (is_busy && monotonic_time() > round->deadline)
			result = io_uring_wait_in_vain(facts);
	}
	uring_requests_free(&requests);
	return result;
}

/* The ring that the task has under this number. */
static int complete_ring(struct snapshot *snapshot, const struct task *task, int number,
			 struct uring_round *round)
{
	struct io_uring_state *state = file_kind_state(snapshot, &file_kind_io_uring);
	autoclose int fd = (int)syscall(SYS_pidfd_getfd, task->pidfd, number, 0);
	struct uring_facts facts;
	bool must_go_on = false;
	int result = state->reader || fd < 0 ? 0 : uring_reader_open(&state->reader);

	if (result || fd < 0)
		return result;
	result = look(state, fd, &facts, round, &must_go_on);
	if (result)
		return fail_in(result, "descriptor %d (io_uring)", number);
	return must_go_on ? io_uring_complete_all(snapshot, &facts, task, number) : 0;
}

int io_uring_complete(struct snapshot *snapshot, const struct task *task, struct uring_round *round)
{
	int table = openat(task->proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result = 0;
	DIR *descriptors = table < 0 ? NULL : fdopendir(table);
	struct dirent *entry;

	if (!descriptors)
		return fail(errno, "cannot list its descriptors");
	while (!result && (entry = readdir(descriptors))) {
		autofree char *link = NULL;

		if (entry->d_name[0] != '.' && read_link_at(table, entry->d_name, &link) > 0 &&
		    !strcmp(link, "anon_inode:[io_uring]"))
			result = complete_ring(snapshot, task, atoi(entry->d_name), round);
	}
	closedir(descriptors);
	return result;
}

bool io_uring_was_early(const struct io_uring_state *state, const struct uring_facts *facts)
{
	return index_find(&state->early, facts->ring);
}

void io_uring_forget_early(struct io_uring_state *state)
{
	for (size_t i = 0; i < state->early_count; i++) {
		free(state->earlies[i]->items);
		free(state->earlies[i]);
	}
	free(state->earlies);
	state->earlies = NULL;
	state->early_count = 0;
	index_free(&state->early);
}

/* ---- the last look ---- */

static int are_requests_there(const struct uring_reader *reader, const struct uring_facts *facts,
			      const struct uring_early *early, bool *are_there)
{
	struct uring_requests requests;
	struct index there = { 0 };
	const char *problem;
	int result = uring_read_requests(reader, facts, &requests, &problem);

	for (size_t i = 0; i < requests.count; i++)
		index_set(&there, requests.items[i].at, &requests);
	for (size_t i = 0; i < early->count; i++)
		*are_there &= index_find(&there, early->items[i]) != NULL;
	index_free(&there);
	uring_requests_free(&requests);
	return result;
}

/* A completion has signalled it, perhaps after it was looked at. Nobody runs now who could change it. */
static int read_eventfd_again(const struct io_uring_state *state, const struct uring_facts *facts)
{
	const struct file *file = index_find(&state->files, facts->eventfd);
	autoclose int fd = file && file->kind == &file_kind_eventfd ? files_borrow(file->seen) : -EBADF;
	autofree char *text = NULL;
	const char *line;
	char path[64];

	if (fd < 0)
		return fail(-fd, "cannot look at its eventfd again");
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	line = read_text_at(AT_FDCWD, path, &text) > 0 ? strstr(text, "eventfd-count:") : NULL;
	if (!line || sscanf(line, "eventfd-count: %" SCNx64, &file->entry->efd->counter) != 1)
		return fail(EINVAL, "the kernel does not tell the counter of its eventfd");
	return 0;
}

int io_uring_check_files(struct snapshot *snapshot, const struct uring_facts *facts, struct file *ring)
{
	struct io_uring_state *state = file_kind_state(snapshot, &file_kind_io_uring);
	const IoUringFileEntry *entry = ring->entry->uring;
	/* The facts of a ring that was not looked at early are those of when it was described. */
	const struct uring_early described = { .sq_head = entry->sq_head, .cq_tail = entry->cq_tail };
	const struct uring_early *early = index_find(&state->early, facts->ring) ?: &described;
	bool has_completed = facts->cq_tail != early->cq_tail, are_there = true;
	int result = early->count ? are_requests_there(state->reader, facts, early, &are_there) : 0;

	if (!result &&
	    (!are_there || facts->sq_head != early->sq_head || (early->has_multishot && has_completed))) {
		fail_advice("the same again");
		return fail(EAGAIN, "a request has completed since criu has looked at its file");
	}
	return result || !has_completed || !facts->eventfd ? result : read_eventfd_again(state, facts);
}
