/*
 * io_uring_registered.c - files and the eventfd that are registered with a ring.
 *
 * fdinfo tells their paths, which say little. So criu compares the addresses of the kernel's own structs: those in the
 * ring with those of all files that the tasks have open. A file that is open nowhere else is refused, because criu
 * could not reach it.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/by_address.h"
#include "files/kinds/io_uring.h"
#include "image/message.h"
#include "kernel/uring.h"

#define MOST_FILES 65536u

/* ---- dump ---- */

int io_uring_index_files(const struct snapshot *snapshot, struct io_uring_state *state)
{
	int result = state->is_indexed ?
			     0 :
			     files_index_by_address(snapshot, uring_files(state->reader), &state->files);

	state->is_indexed = true;
	return result;
}

static int refuse_registered(const struct file *ring, const char *what)
{
	return refuse("process %d (%s): descriptor %d is an io_uring with %s", ring->seen->holder.here,
		      ring->seen->holder.name, ring->seen->fd, what);
}

static int find_registered(const struct snapshot *snapshot, const struct uring_reader *reader,
			   const struct uring_facts *facts, const struct index *index, struct file *ring)
{
	IoUringFileEntry *entry = ring->entry->uring;
	const struct file *file = facts->eventfd ? index_find(index, facts->eventfd) : NULL;

	if (facts->eventfd && (!file || file->kind != &file_kind_eventfd))
		return refuse_registered(ring,
					 "a registered eventfd that no process has open: not supported yet");
	if (file)
		message_set(entry, eventfd, file->id);
	if (facts->eventfd_is_async)
		message_set(entry, eventfd_is_async, true);
	if (facts->file_count > MOST_FILES)
		return refuse_registered(ring, "too many registered files");
	message_array(entry, files, facts->file_count);
	for (uint32_t i = 0; i < facts->file_count; i++) {
		uint64_t address;
		int result = uring_read_slot(reader, facts, i, &address);

		if (result == -ENOTSUP)
			return refuse_registered(ring, "registered files that have tags: not supported yet");
		if (result || !address)
			entry->files[i] = 0;
		if (result)
			return result;
		file = address ? index_find(index, address) : NULL;
		if (address && !file)
			return refuse_registered(
				ring, "a registered file that no process has open: not supported yet");
		if (file && file_lateness(snapshot, file))
			return refuse_registered(
				ring,
				"a registered file that a restore opens later than the ring (a pidfd, a file of "
				"/proc): not supported yet");
		entry->files[i] = file ? file->id : 0;
	}
	return 0;
}

int io_uring_find_registered(struct snapshot *snapshot, const struct io_uring_state *state,
			     const struct uring_facts *facts, struct file *ring)
{
	return find_registered(snapshot, state->reader, facts, &state->files, ring);
}

/* ---- restore ---- */

static bool may_be_registered(const struct snapshot *snapshot, uint32_t id)
{
	const struct file *file = snapshot_find_file(snapshot, id);

	return file && file->kind && file->kind != &file_kind_io_uring && file_is_open(file) &&
	       !file->is_only_path && !file_lateness(snapshot, file);
}

int io_uring_check_registered(const struct snapshot *snapshot, const struct file *ring)
{
	const IoUringFileEntry *entry = ring->entry->uring;
	const struct file *eventfd = entry->eventfd ? snapshot_find_file(snapshot, entry->eventfd) : NULL;
	bool is_right = !entry->eventfd || (eventfd && eventfd->kind == &file_kind_eventfd);

	for (size_t i = 0; is_right && i < entry->n_files; i++)
		is_right = !entry->files[i] || may_be_registered(snapshot, entry->files[i]);
	if (is_right && entry->n_files <= MOST_FILES)
		return 0;
	return fail(EINVAL, "files.img: file %u is an io_uring with impossible registered files", ring->id);
}

static int registering(const struct file *ring, unsigned what, const void *argument, unsigned count)
{
	if (syscall(SYS_io_uring_register, ring->fd, what, argument, count) == 0)
		return 0;
	return fail(errno, "cannot register files with it");
}

int io_uring_register_all(const struct snapshot *snapshot, const struct file *ring)
{
	const IoUringFileEntry *entry = ring->entry->uring;
	autofree int *fds = allocate_array(entry->n_files + 1, sizeof(*fds));
	int result = 0;

	for (size_t i = 0; i < entry->n_files; i++)
		fds[i] = entry->files[i] ? snapshot_find_file(snapshot, entry->files[i])->fd : -1;
	if (entry->n_files)
		result = registering(ring, IORING_REGISTER_FILES, fds, (unsigned)entry->n_files);
	if (!result && entry->eventfd)
		result = registering(ring,
				     entry->eventfd_is_async ? IORING_REGISTER_EVENTFD_ASYNC :
							       IORING_REGISTER_EVENTFD,
				     &snapshot_find_file(snapshot, entry->eventfd)->fd, 1);
	return result;
}
