/*
 * increment_parent.c - the parent snapshot, as its child's dump sees it: is it one to build on, what did it note, and
 * what has to be read of it before the freeze, to be compared with. See increment.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "memory/increment.h"
#include "memory/increment_parent.h"

/*
 * A snapshot cannot build on itself. Checked before the chain is locked, because criu's own directory is locked
 * already, for writing. If the chain cannot be opened, the next function that opens it reports that.
 */
static int check_no_loop(const struct increment *increment)
{
	struct page_chain *chain;
	size_t layer;
	int found;

	if (attempted(page_chain_open(&chain, increment->parent)))
		return 0;
	found = page_chain_find(chain, increment->images, &layer);
	if (found > 0)
		found = fail(ELOOP, "the previous snapshot %s builds on %s, which this dump would overwrite",
			     image_store_name(increment->parent),
			     image_store_name(page_chain_store(chain, layer)));
	page_chain_close(chain);
	return found;
}

/* An incomplete snapshot cannot be a parent. */
static int check_complete(const struct increment *increment)
{
	if (page_chain_is_complete(increment->chain))
		return 0;
	return fail(0, "%s, the previous snapshot, is not a complete snapshot: it has no inventory.img",
		    image_store_name(increment->parent));
}

static int open_directory(struct increment *increment, int directory)
{
	int result = image_store_open_fd(&increment->parent, directory, false) ?: check_no_loop(increment);

	if (!result)
		result = page_chain_open_locked(&increment->chain, increment->parent, IMAGES_ARE_READ);
	return result ?: check_complete(increment);
}

/* tracking.img is valid if it is of this very snapshot and, except for hashes, of this boot. */
static bool is_current(const struct increment *increment, const struct tracker *tracker)
{
	const TrackingEntry *notes = increment->parent_notes;

	if (!notes->snapshot_id || notes->snapshot_id != page_chain_snapshot(increment->chain, 0))
		return false;
	return tracker == &tracker_content || (notes->boot_id && !strcmp(notes->boot_id, increment->boot_id));
}

void parent_forget_notes(struct increment *increment)
{
	for (size_t i = 0; increment->parent_userfaultfds && i < increment->parent_notes->n_tasks; i++)
		if (increment->parent_userfaultfds[i] >= 0)
			close(increment->parent_userfaultfds[i]);
	free(steal_pointer(&increment->parent_userfaultfds));
	image_free(steal_pointer(&increment->parent_notes));
}

static int read_notes(struct increment *increment)
{
	int result = image_read_single(increment->parent, IMAGE_TRACKING, 0,
				       (ProtobufCMessage **)&increment->parent_notes);

	if (result)
		return result == -ENOENT ? 0 : result;
	increment->parent_tracker = tracker_find_number(increment->parent_notes->method);
	if (!increment->parent_tracker || !is_current(increment, increment->parent_tracker)) {
		log_info("the tracking data of %s is of another snapshot, or of another boot of this machine",
			 image_store_name(increment->parent));
		increment->parent_tracker = NULL;
		parent_forget_notes(increment);
	}
	return 0;
}

static void take_userfaultfds(struct increment *increment)
{
	const TrackingEntry *notes = increment->parent_notes;

	if (!notes->has_keeper ||
	    keeper_find(&increment->parent_keeper, notes->keeper, notes->keeper_started)) {
		log_info("the process criu-keeper of %s has ended: its tracking data is lost",
			 image_store_name(increment->parent));
		return;
	}
	increment->parent_userfaultfds = allocate_array(notes->n_tasks,
							sizeof(*increment->parent_userfaultfds));
	for (size_t i = 0; i < notes->n_tasks; i++) {
		bool has_one = notes->tasks[i]->has_userfaultfd;

		increment->parent_userfaultfds[i] =
			has_one ? keeper_take(&increment->parent_keeper, notes->tasks[i]->userfaultfd) : -1;
	}
}

/* Chooses the tracker that finds what has changed since the parent. */
static int choose_parent_tracker(struct increment *increment)
{
	int result = read_notes(increment);

	if (result)
		return result;
	if (increment->parent_tracker == &tracker_written)
		take_userfaultfds(increment);
	/* Without notes, the content can be compared, even with images of another criu. */
	if (!increment->parent_notes)
		increment->parent_tracker = &tracker_content;
	log_info("changes since %s are found by: %s", image_store_name(increment->parent),
		 increment->parent_tracker->name);
	return 0;
}

int parent_open(struct increment *increment, int directory)
{
	return open_directory(increment, directory) ?: choose_parent_tracker(increment);
}

static int keep_prepared(struct increment *increment, struct prepared *prepared, int result)
{
	if (result)
		content_close(&prepared->content);
	else
		*grow(&increment->prepared, &increment->prepared_count) = *prepared;
	return result == -ENOENT ? 0 : result;
}

/*
 * Shared memory is always compared. The content of processes that are gone by now is not needed, but that is not known
 * yet.
 */
static int prepare_images(struct increment *increment)
{
	struct image_names names;
	int result = image_store_list(increment->parent, &names);

	for (size_t i = 0; !result && i < names.count; i++) {
		struct prepared prepared = { .kind = IMAGE_SHMEM_PAGEMAP };
		bool is_shared = image_name_is(names.items[i], IMAGE_SHMEM_PAGEMAP, &prepared.id);

		if (!is_shared)
			prepared.kind = IMAGE_PAGEMAP;
		if (is_shared || (increment->parent_tracker == &tracker_content &&
				  image_name_is(names.items[i], IMAGE_PAGEMAP, &prepared.id))) {
			result = content_open(&prepared.content, increment->chain, prepared.kind, prepared.id,
					      increment->seed, NULL);
			result = keep_prepared(increment, &prepared, result);
		}
	}
	image_names_free(&names);
	return result;
}

int parent_prepare(struct increment *increment)
{
	const TrackingEntry *notes = increment->parent_notes;
	int result = prepare_images(increment);

	for (size_t i = 0; !result && increment->parent_tracker == &tracker_written && i < notes->n_tasks;
	     i++) {
		struct prepared prepared = { .kind = IMAGE_PAGEMAP,
					     .id = notes->tasks[i]->pid,
					     .is_of_files = true };

		result = file_pages_open(&prepared.content, increment->chain, prepared.id, increment->seed);
		result = keep_prepared(increment, &prepared, result);
	}
	page_chain_rest(increment->chain);
	return result;
}

void parent_forget_prepared(struct increment *increment)
{
	for (size_t i = 0; i < increment->prepared_count; i++)
		content_close(&increment->prepared[i].content);
	free(steal_pointer(&increment->prepared));
	increment->prepared_count = 0;
}

static bool take_prepared(struct increment *increment, struct content *content, enum image_kind kind,
			  unsigned long id, bool is_of_files)
{
	for (size_t i = 0; i < increment->prepared_count; i++) {
		struct prepared *prepared = &increment->prepared[i];

		if (prepared->kind == kind && prepared->id == id && prepared->is_of_files == is_of_files &&
		    content_is_open(&prepared->content)) {
			*content = prepared->content;
			prepared->content = (struct content){ 0 };
			return true;
		}
	}
	return false;
}

int increment_open_content(struct increment *increment, struct content *content, enum image_kind kind,
			   unsigned long id)
{
	return take_prepared(increment, content, kind, id, false) ?
		       0 :
		       content_open(content, increment->chain, kind, id, increment->seed, NULL);
}

void increment_open_file_pages(struct increment *increment, struct content *content, pid_t pid)
{
	take_prepared(increment, content, IMAGE_PAGEMAP, pid, true);
}

void increment_look_again(struct increment *increment)
{
	const char *name = image_types[IMAGE_TRACKING].pattern;
	struct stat status;

	if (!increment->parent_notes ||
	    !fstatat(image_store_directory(increment->parent), name, &status, AT_SYMLINK_NOFOLLOW))
		return;
	log_info("the tracking data of %s was used up meanwhile by another snapshot",
		 image_store_name(increment->parent));
	parent_forget_notes(increment);
}

ssize_t increment_find_noted(const struct increment *increment, const struct task *task)
{
	const TrackingEntry *notes = increment->parent_notes;

	for (size_t i = 0; notes && i < notes->n_tasks; i++)
		if ((pid_t)notes->tasks[i]->pid == task->pid)
			return notes->tasks[i]->started == task->start_time ? (ssize_t)i : -1;
	return -1;
}
