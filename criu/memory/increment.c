/*
 * increment.c - one dump's part in a chain of snapshots: which tracker notes writes from now on, and what is left
 * (tracking.img, a keeper) for the next snapshot. See increment.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/inventory.h"
#include "image/message.h"
#include "kernel/probe.h"
#include "memory/delta.h"
#include "memory/increment.h"
#include "memory/increment_parent.h"

/* ---- the choice ---- */

static int choose_named(struct increment *increment, const char *name)
{
	const struct tracker *tracker = tracker_find_name(name);

	if (!tracker)
		return fail(EINVAL, "--track-mem: there is no tracker '%s'", name);
	if (!tracker_works(tracker)) {
		fail_advice("--track-mem without a name, which takes the best that works");
		return fail(0, "memory cannot be tracked by %s: %s", name, probe_find(tracker->probe)->no);
	}
	increment->tracker = tracker;
	increment->reason = "requested";
	return 0;
}

static void choose_best(struct increment *increment)
{
	increment->reason = "the best that works here";
	increment->tracker = tracker_best();
	if (increment->tracker == increment->parent_tracker)
		increment->reason = "the best that works here, which the parent uses, too";
}

static int choose_tracker(struct increment *increment, const struct increment_request *request)
{
	int result = 0;

	if (!request->tracker)
		return 0;
	if (*request->tracker && strcmp(request->tracker, "auto"))
		result = choose_named(increment, request->tracker);
	else if (request->runs_on)
		choose_best(increment);
	if (!request->runs_on && increment->tracker != &tracker_content) {
		increment->tracker = NULL;
		log_info("memory is not tracked: the processes end with this dump");
	}
	if (increment->tracker)
		log_info("memory is tracked by %s: %s", increment->tracker->name, increment->reason);
	return result;
}

static void read_boot_id(struct increment *increment)
{
	autofree char *text = NULL;

	if (read_text_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", &text) > 0)
		strncat(increment->boot_id, text, strcspn(text, "\n") < 63 ? strcspn(text, "\n") : 63);
}

int increment_open(struct increment *increment, struct image_store *images,
		   const struct increment_request *request)
{
	int result = 0;

	*increment = (struct increment){
		.images = images,
		.snapshot = inventory_new_id(),
		.seed = inventory_new_id(),
	};
	read_boot_id(increment);
	if (request->previous >= 0)
		result = parent_open(increment, request->previous);
	if (!result && increment->parent_notes)
		increment->seed = increment->parent_notes->hash_seed;
	if (!result && increment->parent_tracker)
		result = parent_prepare(increment);
	return result ?: choose_tracker(increment, request);
}

void increment_close(struct increment *increment)
{
	parent_forget_notes(increment);
	for (size_t i = 0; i < increment->kept_count; i++) {
		close(increment->kept[i].userfaultfd);
		close(increment->kept[i].pidfd);
	}
	parent_forget_prepared(increment);
	free(increment->kept);
	keeper_forget(&increment->parent_keeper);
	keeper_forget(&increment->keeper);
	image_free(increment->notes);
	page_chain_close(increment->chain);
	image_store_close(increment->parent);
	*increment = (struct increment){ 0 };
}

bool increment_skips_zeros(const struct increment *increment)
{
	return increment->tracker != &tracker_soft_dirty;
}

const struct page_hashing *increment_hashing(const struct increment *increment, bool is_shared,
					     struct page_hashing *hashing)
{
	if (!increment->tracker || (!is_shared && increment->tracker != &tracker_content))
		return NULL;
	*hashing = (struct page_hashing){ increment->seed, increment->snapshot };
	return hashing;
}

/* ---- what is left for the next snapshot ---- */

void increment_keep(struct increment *increment, struct task_delta *delta)
{
	struct kept *kept = grow(&increment->kept, &increment->kept_count);

	kept->pidfd = fcntl(delta->task->pidfd, F_DUPFD_CLOEXEC, 3);
	kept->userfaultfd = steal_fd(&delta->userfaultfd);
}

static TrackingEntry *entry_of(struct increment *increment)
{
	TrackingEntry *entry = increment->notes;

	if (!entry) {
		entry = increment->notes = message_new(TrackingEntry, tracking_entry);
		entry->method = increment->tracker->number;
		entry->snapshot_id = increment->snapshot;
		entry->hash_seed = increment->seed;
		entry->boot_id = copy_text(increment->boot_id);
	}
	return entry;
}

static void note_task(struct increment *increment, const struct task_delta *delta, int userfaultfd)
{
	TrackingEntry *entry = entry_of(increment);
	TrackedTask *task = message_new(TrackedTask, tracked_task);

	task->pid = delta->task->pid;
	task->started = delta->task->start_time;
	if (userfaultfd >= 0)
		message_set(task, userfaultfd, userfaultfd);
	for (size_t i = 0; i < delta->noted.count; i++) {
		*grow(&task->addresses, &task->n_addresses) = delta->noted.items[i].address;
		*grow(&task->places, &task->n_places) = delta->noted.items[i].place;
	}
	for (size_t i = 0; i < delta->witness_count; i++)
		*grow(&task->witnesses, &task->n_witnesses) = delta->witnesses[i];
	*grow(&entry->tasks, &entry->n_tasks) = task;
}

/*
 * The parent's notes become invalid when this dump begins its own. So they are removed: another child of the same
 * parent, or another attempt after this dump has failed, would believe them. A dump that has read them already, and
 * waits to freeze the tree, checks again (increment_look_again()). The removal need not be synced: after a crash, the
 * notes are of another boot.
 */
static int use_up(struct increment *increment)
{
	int result;

	keeper_end(&increment->parent_keeper);
	if (increment->tracker != increment->parent_tracker || increment->tracker == &tracker_content ||
	    increment->are_notes_used_up)
		return 0;
	result = image_store_remove(increment->parent, image_types[IMAGE_TRACKING].pattern);
	increment->are_notes_used_up = !result;
	return result;
}

int increment_begin_notes(struct increment *increment, struct task_delta *delta)
{
	const struct tracker *tracker = increment->tracker;
	size_t kept = increment->kept_count;
	const char *why = "tracking.img of the previous snapshot cannot be removed";
	struct attempt attempt;
	int result;

	if (!tracker)
		return 0;
	attempt_begin(&attempt);
	result = use_up(increment);
	if (!result && delta->is_busy) {
		why = "the kernel may write to its memory, for requests in flight or in buffers that are registered with an io_uring";
		result = -EBUSY;
	}
	if (!result && tracker->begin)
		result = tracker->begin(increment, delta, &why);
	attempt_forget(&attempt);
	if (!result) {
		note_task(increment, delta,
			  increment->kept_count > kept ? increment->kept[kept].userfaultfd : -1);
		return 0;
	}
	log_warning("process %d: %s (%s): its next snapshot will have to compare all of its pages",
		    delta->task->here, why, strerror(-result));
	return 0;
}

int increment_save(struct increment *increment)
{
	TrackingEntry *entry;
	int result = 0;

	parent_forget_prepared(increment);
	if (!increment->tracker)
		return 0;
	entry = entry_of(increment);
	if (increment->kept_count)
		result = keeper_start(&increment->keeper, increment->kept, increment->kept_count,
				      image_store_directory(increment->images));
	if (result)
		return result;
	if (increment->kept_count) {
		message_set(entry, keeper, increment->keeper.pid);
		message_set(entry, keeper_started, increment->keeper.started);
	}
	return image_write_single(increment->images, IMAGE_TRACKING, 0, &entry->base);
}

int increment_confirm(struct increment *increment)
{
	return increment->keeper.pid ? keeper_confirm(&increment->keeper) : 0;
}

int increment_keep_for_now(struct increment *increment)
{
	return increment->keeper.pid ? steal_fd(&increment->keeper.confirm) : -1;
}

void increment_withdraw(struct increment *increment)
{
	keeper_end(&increment->keeper);
}

int increment_end(struct image_store *store, bool *had_keeper)
{
	TrackingEntry *notes;
	struct keeper keeper;
	int result = image_read_single(store, IMAGE_TRACKING, 0, (ProtobufCMessage **)&notes);

	if (result)
		return result;
	*had_keeper = notes->has_keeper && !keeper_find(&keeper, notes->keeper, notes->keeper_started);
	if (*had_keeper)
		keeper_end(&keeper);
	image_free(notes);
	return image_store_remove(store, image_types[IMAGE_TRACKING].pattern) ?: image_store_sync(store);
}
