/*
 * watched_missing.c - dump: watched inodes of which the kernel's handle tells no path.
 *
 * A file that was deleted exists as long as a process has it open, and so does a watch of it. If that is a process of
 * the tree, the file is one of the snapshot: a restore makes it again (ghost.h), and watches what it has made. Other
 * files have a path, which watched_scan() may find.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/index.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/watched.h"
#include "image/message.h"

struct missing_state {
	struct missing *items;
	size_t count;
};

static void forget(void *context)
{
	struct missing_state *state = context;

	for (size_t i = 0; i < state->count; i++)
		free(state->items[i].words);
	free(steal_pointer(&state->items));
	state->count = 0;
}

static const struct state_type missing_type = { sizeof(struct missing_state), forget };

void watched_note_missing(struct snapshot *snapshot, const struct missing *missing)
{
	struct missing_state *state = snapshot_state(snapshot, &missing_type);

	*grow(&state->items, &state->count) = *missing;
}

/* ---- files of the tree that have no name ---- */

struct nameless_index {
	const struct nameless_files *all;
	struct index by_inode; /* 1 + the number of one of them, chained by `next` */
	uintptr_t *next;       /* 0: none */
};

static void index_nameless(struct nameless_index *index, const struct snapshot *snapshot)
{
	index->all = nameless_files_of(snapshot);
	index->next = allocate_array(index->all->count + 1, sizeof(*index->next));
	for (uintptr_t i = 0; i < index->all->count; i++) {
		uint64_t inode = index->all->items[i]->file->seen->stat.st_ino;

		index->next[i] = (uintptr_t)index_find(&index->by_inode, inode);
		index_set(&index->by_inode, inode, (void *)(i + 1));
	}
}

/* Different file systems may have equal numbers, so the kernel is asked. */
static bool find_nameless(struct snapshot *snapshot, const struct nameless_index *index,
			  const struct watched *watched)
{
	uintptr_t at = (uintptr_t)index_find(&index->by_inode, watched->inode);

	for (; at; at = index->next[at - 1]) {
		const struct nameless *nameless = index->all->items[at - 1];
		const struct seen_file *seen = nameless->file->seen;
		autofree char *place = format_text("/proc/%d/%s", seen->holder.here, seen->place);

		if (!watched_is_behind(snapshot, watched, place))
			continue;
		/* The file is saved by this one. */
		if (nameless->other)
			return watched_take_path(snapshot, watched, nameless->other);
		message_set(watched->handle, file, nameless->file->id);
		/* criu 4.2.1 looks there, while the file has its name for a moment. */
		watched->handle->path = nameless_path(seen->link);
		return true;
	}
	return false;
}

static void find_all_nameless(struct snapshot *snapshot, const struct missing_state *state)
{
	struct nameless_index index = { 0 };

	index_nameless(&index, snapshot);
	for (size_t i = 0; i < state->count; i++)
		ignore(find_nameless(snapshot, &index, &state->items[i].watched));
	index_free(&index.by_inode);
	free(index.next);
}

/* ---- all of them ---- */

static int refuse_missing(const struct missing *missing)
{
	const struct seen_file *seen = missing->file->seen;

	if (missing->is_deleted)
		return refuse(
			"process %d (%s): descriptor %d (%s): %s is of a file that was deleted, and that no process of the tree has open",
			seen->holder.here, seen->holder.name, seen->fd, missing->file->kind->name,
			missing->words);
	fail_advice("--irmap-scan-path DIR, with a directory above it");
	return refuse("process %d (%s): descriptor %d (%s): %s: no path found for inode %" PRIu64
		      " on device %u:%u",
		      seen->holder.here, seen->holder.name, seen->fd, missing->file->kind->name,
		      missing->words, missing->watched.inode, missing->watched.device >> 20,
		      missing->watched.device & 0xfffff);
}

void watched_judge(struct snapshot *snapshot)
{
	struct missing_state *state = snapshot_state(snapshot, &missing_type);

	if (!state->count)
		return;
	find_all_nameless(snapshot, state);
	/* All directories are searched at once for all watches of all processes. */
	watched_scan(snapshot, state->items, state->count);
	for (size_t i = 0; i < state->count; i++)
		if (!state->items[i].watched.handle->path)
			ignore(refuse_missing(&state->items[i]));
	forget(state);
}
