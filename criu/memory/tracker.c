/*
 * tracker.c - chooses who finds out what has changed since the parent snapshot and who notes it from now on, and leaves
 * tracking.img for the next snapshot. See tracker.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/inventory.h"
#include "image/message.h"
#include "kernel/probe.h"
#include "memory/pagemap.h"
#include "memory/tracker.h"

/* Hashes are kept by the writer of pages, and compared by content.c. */
const struct tracker tracker_content = { .name = "content", .number = 3, .note = NOTE_NOTHING };

/* The best one first. */
static const struct tracker *const trackers[] = { &tracker_written, &tracker_soft_dirty, &tracker_content };

static const struct tracker *find_name(const char *name)
{
	for (size_t i = 0; i < array_size(trackers); i++)
		if (!strcmp(trackers[i]->name, name))
			return trackers[i];
	return NULL;
}

static const struct tracker *find_number(uint32_t number)
{
	for (size_t i = 0; i < array_size(trackers); i++)
		if (trackers[i]->number == number)
			return trackers[i];
	return NULL;
}

static bool works(const struct tracker *tracker)
{
	return !tracker->probe || probe_run(probe_find(tracker->probe));
}

bool tracker_can_note(const struct vma *vma)
{
	return vma_is_private(vma) && !vma_is_saved_whole(vma) &&
	       !(vma->flags & (MAP_HUGETLB | MAP_DROPPABLE));
}

/* ---- the parent ---- */

/*
 * One that builds on itself would be no snapshot at all. Asked before the chain is locked: our own directory is locked already, for
 * writing. A chain that cannot be opened is told of by whoever opens it next.
 */
static int check_no_loop(const struct tracking *tracking)
{
	struct page_chain *chain;
	size_t layer;
	int found;

	if (attempted(page_chain_open(&chain, tracking->parent)))
		return 0;
	found = page_chain_find(chain, tracking->images, &layer);
	if (found > 0)
		found = fail(ELOOP, "%s builds on %s: that cannot be written anew as its child",
			     image_store_name(tracking->parent),
			     image_store_name(page_chain_store(chain, layer)));
	page_chain_close(chain);
	return found;
}

/* Nothing can build on a snapshot that nobody will restore from. */
static int check_complete(const struct tracking *tracking)
{
	if (page_chain_is_complete(tracking->chain))
		return 0;
	return fail(0, "%s, the previous snapshot, is no complete snapshot: it has no inventory.img",
		    image_store_name(tracking->parent));
}

static int open_parent(struct tracking *tracking, int directory)
{
	return image_store_open_fd(&tracking->parent, directory, false)				   ?:
		       check_no_loop(tracking)							   ?:
		       page_chain_open_locked(&tracking->chain, tracking->parent, IMAGES_ARE_READ) ?:
		       check_complete(tracking);
}

/* tracking.img is believed if it is of this very snapshot, and, but for hashes, of this boot. */
static bool is_current(const struct tracking *tracking, const struct tracker *tracker)
{
	const TrackingEntry *noted = tracking->noted;

	if (!noted->snapshot_id || noted->snapshot_id != page_chain_snapshot(tracking->chain, 0))
		return false;
	return tracker == &tracker_content || (noted->boot_id && !strcmp(noted->boot_id, tracking->boot_id));
}

static void forget_noted(struct tracking *tracking)
{
	for (size_t i = 0; tracking->taken && i < tracking->noted->n_tasks; i++)
		if (tracking->taken[i] >= 0)
			close(tracking->taken[i]);
	free(steal_pointer(&tracking->taken));
	image_free(steal_pointer(&tracking->noted));
}

static int read_noted(struct tracking *tracking)
{
	int result = image_read_single(tracking->parent, IMAGE_TRACKING, 0,
				       (ProtobufCMessage **)&tracking->noted);

	if (result)
		return result == -ENOENT ? 0 : result;
	tracking->looks = find_number(tracking->noted->method);
	if (!tracking->looks || !is_current(tracking, tracking->looks)) {
		log_info("what %s noted is of another snapshot, or of another boot of this machine",
			 image_store_name(tracking->parent));
		tracking->looks = NULL;
		forget_noted(tracking);
	}
	return 0;
}

static void take_userfaultfds(struct tracking *tracking)
{
	const TrackingEntry *noted = tracking->noted;

	if (!noted->has_keeper || keeper_find(&tracking->holder, noted->keeper, noted->keeper_started)) {
		log_info("the keeper of %s has ended: what it noted is lost",
			 image_store_name(tracking->parent));
		return;
	}
	tracking->taken = allocate_array(noted->n_tasks, sizeof(*tracking->taken));
	for (size_t i = 0; i < noted->n_tasks; i++) {
		bool has_one = noted->tasks[i]->has_userfaultfd;

		tracking->taken[i] = has_one ? keeper_take(&tracking->holder, noted->tasks[i]->userfaultfd) :
					       -1;
	}
}

/* Who can say what has changed since the parent? */
static int look_at_parent(struct tracking *tracking)
{
	int result = read_noted(tracking);

	if (result)
		return result;
	if (tracking->looks == &tracker_written)
		take_userfaultfds(tracking);
	/* Nobody noted anything: what there is can be compared, also with the images of another criu. */
	if (!tracking->noted)
		tracking->looks = &tracker_content;
	log_info("what has changed since %s is told by: %s", image_store_name(tracking->parent),
		 tracking->looks->name);
	return 0;
}

static int keep_prepared(struct tracking *tracking, struct prepared *prepared, int result)
{
	if (result)
		content_close(&prepared->content);
	else
		*grow(&tracking->prepared, &tracking->prepared_count) = *prepared;
	return result == -ENOENT ? 0 : result;
}

/* Shared memory is compared whoever noted what. What is there of processes that are gone by now is not needed; nobody knows that yet. */
static int prepare_images(struct tracking *tracking)
{
	struct image_names names;
	int result = image_store_list(tracking->parent, &names);

	for (size_t i = 0; !result && i < names.count; i++) {
		struct prepared prepared = { .kind = IMAGE_SHMEM_PAGEMAP };
		bool is_shared = image_name_is(names.items[i], IMAGE_SHMEM_PAGEMAP, &prepared.id);

		if (!is_shared)
			prepared.kind = IMAGE_PAGEMAP;
		if (is_shared || (tracking->looks == &tracker_content &&
				  image_name_is(names.items[i], IMAGE_PAGEMAP, &prepared.id))) {
			result = content_open(&prepared.content, tracking->chain, prepared.kind, prepared.id,
					      tracking->seed, NULL);
			result = keep_prepared(tracking, &prepared, result);
		}
	}
	image_names_free(&names);
	return result;
}

static int prepare(struct tracking *tracking)
{
	const TrackingEntry *noted = tracking->noted;
	int result = prepare_images(tracking);

	for (size_t i = 0; !result && tracking->looks == &tracker_written && i < noted->n_tasks; i++) {
		struct prepared prepared = { .kind = IMAGE_PAGEMAP,
					     .id = noted->tasks[i]->pid,
					     .is_of_files = true };

		result = file_pages_open(&prepared.content, tracking->chain, prepared.id, tracking->seed);
		result = keep_prepared(tracking, &prepared, result);
	}
	page_chain_rest(tracking->chain);
	return result;
}

static void forget_prepared(struct tracking *tracking)
{
	for (size_t i = 0; i < tracking->prepared_count; i++)
		content_close(&tracking->prepared[i].content);
	free(steal_pointer(&tracking->prepared));
	tracking->prepared_count = 0;
}

static bool take_prepared(struct tracking *tracking, struct content *content, enum image_kind kind,
			  unsigned long id, bool is_of_files)
{
	for (size_t i = 0; i < tracking->prepared_count; i++) {
		struct prepared *prepared = &tracking->prepared[i];

		if (prepared->kind == kind && prepared->id == id && prepared->is_of_files == is_of_files &&
		    content_is_open(&prepared->content)) {
			*content = prepared->content;
			prepared->content = (struct content){ 0 };
			return true;
		}
	}
	return false;
}

int tracking_open_content(struct tracking *tracking, struct content *content, enum image_kind kind,
			  unsigned long id)
{
	return take_prepared(tracking, content, kind, id, false) ?
		       0 :
		       content_open(content, tracking->chain, kind, id, tracking->seed, NULL);
}

void tracking_open_file_pages(struct tracking *tracking, struct content *content, pid_t pid)
{
	take_prepared(tracking, content, IMAGE_PAGEMAP, pid, true);
}

void tracking_look_again(struct tracking *tracking)
{
	const char *name = image_types[IMAGE_TRACKING].pattern;
	struct stat status;

	if (!tracking->noted ||
	    !fstatat(image_store_directory(tracking->parent), name, &status, AT_SYMLINK_NOFOLLOW))
		return;
	log_info("what %s noted was used up meanwhile, by another snapshot",
		 image_store_name(tracking->parent));
	forget_noted(tracking);
}

ssize_t tracking_find_noted(const struct tracking *tracking, const struct task *task)
{
	const TrackingEntry *noted = tracking->noted;

	for (size_t i = 0; noted && i < noted->n_tasks; i++)
		if ((pid_t)noted->tasks[i]->pid == task->pid)
			return noted->tasks[i]->started == task->start_time ? (ssize_t)i : -1;
	return -1;
}

/* ---- the choice ---- */

static int choose_named(struct tracking *tracking, const char *name)
{
	const struct tracker *tracker = find_name(name);

	if (!tracker)
		return fail(EINVAL, "there is no tracker of memory called %s", name);
	if (!works(tracker)) {
		fail_advice("--track-mem, which takes the best that works");
		return fail(0, "memory cannot be tracked by %s: %s", name, probe_find(tracker->probe)->no);
	}
	tracking->begins = tracker;
	tracking->reason = "asked for";
	return 0;
}

static void choose_best(struct tracking *tracking)
{
	tracking->reason = "the best that works here";
	for (size_t i = 0; !tracking->begins; i++)
		if (works(trackers[i]))
			tracking->begins = trackers[i];
	if (tracking->begins == tracking->looks)
		tracking->reason = "the best that works here, and the parent's";
}

static int choose(struct tracking *tracking, const struct tracking_request *request)
{
	int result = 0;

	if (!request->tracker)
		return 0;
	if (*request->tracker && strcmp(request->tracker, "auto"))
		result = choose_named(tracking, request->tracker);
	else if (request->runs_on)
		choose_best(tracking);
	if (!request->runs_on && tracking->begins != &tracker_content) {
		tracking->begins = NULL;
		log_info("memory is not tracked: the processes end with this dump");
	}
	if (tracking->begins)
		log_info("memory is tracked by %s: %s", tracking->begins->name, tracking->reason);
	return result;
}

static void read_boot_id(struct tracking *tracking)
{
	autofree char *text = NULL;

	if (read_text_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", &text) > 0)
		strncat(tracking->boot_id, text, strcspn(text, "\n") < 63 ? strcspn(text, "\n") : 63);
}

int tracking_open(struct tracking *tracking, struct image_store *images,
		  const struct tracking_request *request)
{
	int result = 0;

	*tracking = (struct tracking){
		.images = images,
		.snapshot = inventory_new_id(),
		.seed = inventory_new_id(),
	};
	read_boot_id(tracking);
	if (request->previous >= 0)
		result = open_parent(tracking, request->previous) ?: look_at_parent(tracking);
	if (!result && tracking->noted)
		tracking->seed = tracking->noted->hash_seed;
	if (!result && tracking->looks)
		result = prepare(tracking);
	return result ?: choose(tracking, request);
}

void tracking_close(struct tracking *tracking)
{
	forget_noted(tracking);
	for (size_t i = 0; i < tracking->kept_count; i++) {
		close(tracking->kept[i].userfaultfd);
		close(tracking->kept[i].pidfd);
	}
	forget_prepared(tracking);
	free(tracking->kept);
	keeper_forget(&tracking->holder);
	keeper_forget(&tracking->keeper);
	image_free(tracking->entry);
	page_chain_close(tracking->chain);
	image_store_close(tracking->parent);
	*tracking = (struct tracking){ 0 };
}

bool tracking_skips_zeros(const struct tracking *tracking)
{
	return tracking->begins != &tracker_soft_dirty;
}

const struct page_hashing *tracking_hashing(const struct tracking *tracking, bool is_shared,
					    struct page_hashing *hashing)
{
	if (!tracking->begins || (!is_shared && tracking->begins != &tracker_content))
		return NULL;
	*hashing = (struct page_hashing){ tracking->seed, tracking->snapshot };
	return hashing;
}

/* ---- what is left for the next snapshot ---- */

void tracking_keep(struct tracking *tracking, struct tracked *tracked)
{
	struct kept *kept = grow(&tracking->kept, &tracking->kept_count);

	kept->pidfd = fcntl(tracked->task->pidfd, F_DUPFD_CLOEXEC, 3);
	kept->userfaultfd = steal_fd(&tracked->userfaultfd);
}

static TrackingEntry *entry_of(struct tracking *tracking)
{
	TrackingEntry *entry = tracking->entry;

	if (!entry) {
		entry = tracking->entry = message_new(TrackingEntry, tracking_entry);
		entry->method = tracking->begins->number;
		entry->snapshot_id = tracking->snapshot;
		entry->hash_seed = tracking->seed;
		entry->boot_id = copy_text(tracking->boot_id);
	}
	return entry;
}

static void note_task(struct tracking *tracking, const struct tracked *tracked, int userfaultfd)
{
	TrackingEntry *entry = entry_of(tracking);
	TrackedTask *task = message_new(TrackedTask, tracked_task);

	task->pid = tracked->task->pid;
	task->started = tracked->task->start_time;
	if (userfaultfd >= 0)
		message_set(task, userfaultfd, userfaultfd);
	for (size_t i = 0; i < tracked->noted.count; i++) {
		*grow(&task->addresses, &task->n_addresses) = tracked->noted.items[i].address;
		*grow(&task->places, &task->n_places) = tracked->noted.items[i].place;
	}
	for (size_t i = 0; i < tracked->witness_count; i++)
		*grow(&task->witnesses, &task->n_witnesses) = tracked->witnesses[i];
	*grow(&entry->tasks, &entry->n_tasks) = task;
}

/*
 * What the parent noted ends where we begin: nobody is to find it and believe it, be it for another child of the same parent, or for
 * another try when this snapshot has failed. Nor somebody who has found it already and waits to freeze the tree: he looks again
 * (tracking_look_again()). It need not be on the disk: after a crash it is of another boot.
 */
static int use_up(struct tracking *tracking)
{
	int result;

	keeper_end(&tracking->holder);
	if (tracking->begins != tracking->looks || tracking->begins == &tracker_content ||
	    tracking->is_used_up)
		return 0;
	result = image_store_remove(tracking->parent, image_types[IMAGE_TRACKING].pattern);
	tracking->is_used_up = !result;
	return result;
}

int tracked_begin(struct tracking *tracking, struct tracked *tracked)
{
	const struct tracker *tracker = tracking->begins;
	size_t kept = tracking->kept_count;
	const char *why = "what the previous snapshot noted cannot be withdrawn";
	struct attempt attempt;
	int result;

	if (!tracker)
		return 0;
	attempt_begin(&attempt);
	result = use_up(tracking);
	if (!result && tracked->is_busy) {
		why = "what it has asked the kernel for is still being written to its memory";
		result = -EBUSY;
	}
	if (!result && tracker->begin)
		result = tracker->begin(tracking, tracked, &why);
	attempt_forget(&attempt);
	if (!result) {
		note_task(tracking, tracked,
			  tracking->kept_count > kept ? tracking->kept[kept].userfaultfd : -1);
		return 0;
	}
	log_warning("process %d: %s (%s): its next snapshot will have to compare all of its pages",
		    tracked->task->pid, why, strerror(-result));
	return 0;
}

int tracking_save(struct tracking *tracking)
{
	TrackingEntry *entry;
	int result = 0;

	forget_prepared(tracking);
	if (!tracking->begins)
		return 0;
	entry = entry_of(tracking);
	if (tracking->kept_count)
		result = keeper_start(&tracking->keeper, tracking->kept, tracking->kept_count,
				      image_store_directory(tracking->images));
	if (result)
		return result;
	if (tracking->kept_count) {
		message_set(entry, keeper, tracking->keeper.pid);
		message_set(entry, keeper_started, tracking->keeper.started);
	}
	return image_write_single(tracking->images, IMAGE_TRACKING, 0, &entry->base);
}

int tracking_confirm(struct tracking *tracking)
{
	return tracking->keeper.pid ? keeper_confirm(&tracking->keeper) : 0;
}

void tracking_withdraw(struct tracking *tracking)
{
	keeper_end(&tracking->keeper);
}

int tracking_end(struct image_store *store, bool *had_keeper)
{
	TrackingEntry *noted;
	struct keeper keeper;
	int result = image_read_single(store, IMAGE_TRACKING, 0, (ProtobufCMessage **)&noted);

	if (result)
		return result;
	*had_keeper = noted->has_keeper && !keeper_find(&keeper, noted->keeper, noted->keeper_started);
	if (*had_keeper)
		keeper_end(&keeper);
	image_free(noted);
	return image_store_remove(store, image_types[IMAGE_TRACKING].pattern) ?: image_store_sync(store);
}
