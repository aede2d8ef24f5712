/*
 * dump.c - the steps of a dump, which saves a tree of processes and may end it, and of a pre-dump, which saves its
 * memory. The files named in dump.h do the work.
 *
 * Invariant: until the last step a dump can be undone, and if criu dies the kernel undoes it (compel.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/steps.h"
#include "criu-plugin.h"
#include "dump/dump.h"
#include "dump/twin.h"
#include "files/seen.h"
#include "image/image.h"
#include "memory/dedup.h"
#include "memory/flatten.h"
#include "memory/shared.h"
#include "model/external.h"
#include "plugins/plugins.h"

int dump_open_previous(struct request *request)
{
	if (!request->previous)
		return 0;
	request->previous_directory = openat(image_store_directory(request->images), request->previous,
					     O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (request->previous_directory >= 0)
		return 0;
	fail_advice("a directory relative to that of the images (-D)");
	return fail(errno, "cannot open the previous snapshot %s/%s", image_store_name(request->images),
		    request->previous);
}

/* Before anything is written, because the previous images may turn out to be no snapshot. */
static int open_previous_snapshot(void *context)
{
	struct dump *dump = context;
	const struct request *request = dump->request;
	const struct policy *policy = &request->policy;
	const char *best = dump->is_pre_dump ? "" : NULL; /* a pre-dump without tracking would be useless */
	const struct increment_request increment = {
		.previous = request->previous_directory,
		.tracker = request->tracker ? request->tracker : best,
		.runs_on = dump->is_pre_dump || policy->leave_running || policy->leave_stopped,
	};

	return increment_open(&dump->memory.increment, dump->snapshot.images, &increment);
}

static int begin_images(void *context)
{
	struct dump *dump = context;

	image_store_set_compression(dump->snapshot.images, dump->request->compression);
	return image_store_begin(dump->snapshot.images, dump->request->previous);
}

static void remove_images(void *context)
{
	struct dump *dump = context;

	image_store_withdraw(dump->snapshot.images);
}

static int load_plugins(void *context)
{
	struct dump *dump = context;

	return plugins_load(dump->request->plugins, dump->is_pre_dump ? PLUGINS_PRE_DUMP : PLUGINS_DUMP,
			    image_store_new_directory(dump->snapshot.images));
}

/* Before anything is read of the processes: it may change their memory. */
static int checkpoint_devices(void *context)
{
	struct dump *dump = context;
	struct task *task;
	int result = 0;

	for_each_task (task, &dump->snapshot)
		if (!result && task->state != TASK_DEAD)
			result = plugins_tell_process(CR_PLUGIN_HOOK__CHECKPOINT_DEVICES, task->here);
	return result;
}

static int save_tracking(void *context)
{
	struct dump *dump = context;

	return increment_save(&dump->memory.increment);
}

static void withdraw_tracking(void *context)
{
	struct dump *dump = context;

	increment_withdraw(&dump->memory.increment);
}

static int tell_pre_dump(void *context)
{
	struct dump *dump = context;

	return moments_send(&dump->request->moments, MOMENT_PRE_DUMP, dump->request->root);
}

static int tell_post_dump(void *context)
{
	struct dump *dump = context;

	return moments_send(&dump->request->moments, MOMENT_POST_DUMP, dump->request->root);
}

/* clang-format off */
static const struct step dump_steps[] = {
	{ "look ahead", dump_look_ahead, NULL, false }, /* work that is possible before the freeze */
	{ "open the previous snapshot", open_previous_snapshot, NULL, false },
	{ "begin the images", begin_images, remove_images, false }, /* a full disk shows before the freeze */
	{ "load the plugins", load_plugins, NULL, false }, /* they may write there; plugins_end() follows all steps */
	{ "run the scripts (pre-dump)", tell_pre_dump, NULL, false },
	{ "reserve buffers", dump_reserve_pages, dump_drop_reserve, false }, /* for pages written since then */
	{ "open the cgroups", dump_open_cgroups, NULL, false }, /* a task in a frozen cgroup never stops */
	{ "read ahead", dump_read_ahead, dump_forget_ahead, false }, /* last before the freeze: changes spoil it */
	{ "freeze the processes", dump_freeze, dump_thaw, false }, /* finding and stopping are one act */
	{ "checkpoint the devices", checkpoint_devices, NULL, false }, /* plugins */
	{ "look at the processes", dump_look, dump_end_look, false }, /* refuses, before anything is touched */
	{ "ask the processes", dump_ask, dump_leave, false }, /* the only step that enters them */
	{ "look at the semaphores", dump_look_for_undo, NULL, false }, /* only the processes can answer this */
	{ "see whether it could be restored", dump_foresee, NULL, false }, /* before much time is spent */
	{ "settle the rings", dump_settle_rings, NULL, false }, /* before memory: requests in flight write to it */
	{ "save the memory", dump_memory, twins_end, false }, /* takes most of the time; all processes are stopped */
	{ "save the files", dump_save_files, NULL, false }, /* reads the content of pipes; all processes are stopped */
	{ "let the processes run on", dump_release_early, NULL, false }, /* -R: they need not wait for the disk */
	{ "save the memory of the twins", dump_memory_of_twins, NULL, false }, /* as long as they live, processes copy what they write */
	{ "save the processes", dump_save_tasks, NULL, false },
	{ "keep track of the memory", save_tracking, withdraw_tracking, false },
	{ "complete the images", dump_complete, NULL, false }, /* syncs, then writes inventory.img: now it is a dump */
	{ "run the scripts (post-dump)", tell_post_dump, NULL, false }, /* they can still stop the dump */
	/* The kernel must not write to files when the processes end. */
	{ "prepare the end of the processes", dump_prepare_end, dump_withdraw_end, false },
	{ "let the processes go", dump_release, NULL, true }, /* cannot be undone */
};

/* A pre-dump saves only memory; the processes continue while it is written. */
static const struct step pre_dump_steps[] = {
	{ "look ahead", dump_look_ahead, NULL, false },
	{ "open the previous snapshot", open_previous_snapshot, NULL, false },
	{ "begin the images", begin_images, remove_images, false },
	{ "load the plugins", load_plugins, NULL, false },
	{ "read ahead", dump_read_ahead, dump_forget_ahead, false },
	{ "freeze the processes", dump_freeze, dump_thaw, false },
	{ "look at the memory", pre_dump_look, NULL, false },
	{ "note which pages there are", pre_dump_scan, pre_dump_forget, false },
	{ "let the processes run on", dump_release, NULL, false }, /* tracking ends with criu's descriptors */
	{ "save the memory", pre_dump_save, NULL, false },
	{ "keep track of the memory", save_tracking, withdraw_tracking, false },
	{ "complete the images", dump_complete, NULL, false },
};
/* clang-format on */

static void free_files(struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->file_count; i++)
		if (snapshot->files[i]->seen) {
			seen_file_free(snapshot->files[i]->seen);
			free(snapshot->files[i]->seen);
		}
}

/*
 * The snapshot is complete: from here on its keeper must outlive criu. If the keeper was killed, only the tracking data
 * is lost.
 */
static void confirm_tracking(struct dump *dump)
{
	if (attempted(increment_confirm(&dump->memory.increment)))
		log_warning(
			"the process criu-keeper has ended: the next snapshot will have to compare all pages");
}

/* A failure here does not make the snapshot fail: it may be all that is left of the processes. */
static void save_dump_statistics(struct dump *dump)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	if (dump_save_statistics(dump))
		log_warning("the snapshot is complete, but stats-dump could not be written: %s",
			    failure_text());
	attempt_forget(&attempt);
}

/* The snapshot is complete, even if this fails. */
static void tidy_chain(const struct request *request)
{
	struct dedup_statistics freed;
	struct flatten_statistics flat;
	struct page_chain *chain = NULL;
	struct attempt attempt;
	size_t length;
	int result;

	if (!request->previous || !(request->auto_dedup || request->max_chain))
		return;
	attempt_begin(&attempt);
	result = page_chain_open_locked(&chain, request->images, IMAGES_ARE_READ);
	length = result ? 0 : page_chain_length(chain);
	if (!result && request->auto_dedup)
		result = page_chain_dedup(chain, &freed);
	page_chain_close(chain);
	if (!result && request->max_chain && length > request->max_chain)
		result = flatten_in_place(request->images, &flat);
	if (result)
		log_warning("the snapshot is complete, but its chain was not merged or deduplicated: %s",
			    failure_text());
	attempt_forget(&attempt);
}

/* What a round of several has left: its keeper ends with criu, instead of being confirmed. */
static void end_round(struct dump *dump, struct round *round)
{
	round->pages = dump->memory.pages.written + dump->memory.shared_pages.written;
	round->keeping = increment_keep_for_now(&dump->memory.increment);
}

static void end_dump(struct dump *dump)
{
	confirm_tracking(dump);
	save_dump_statistics(dump);
}

/* `round`: NULL, unless it is one of several pre-dumps. */
static int run_dump_steps(const struct request *request, bool is_pre_dump, struct round *round)
{
	struct dump dump = { .request = request, .is_pre_dump = is_pre_dump };
	int result;

	snapshot_init(&dump.snapshot);
	dump.snapshot.images = request->images;
	dump.snapshot.policy = request->policy;
	dump.snapshot.externals = request->externals;
	dump.own_descriptors = descriptors_count();
	if (is_pre_dump)
		result = steps_run("pre-dump", pre_dump_steps, array_size(pre_dump_steps), &dump,
				   &dump.times);
	else
		result = steps_run("dump", dump_steps, array_size(dump_steps), &dump, &dump.times);
	if (!result) {
		image_store_settle(request->images);
		round ? end_round(&dump, round) : end_dump(&dump);
	}
	plugins_end(result, image_store_directory(request->images));
	externals_warn(request->externals, EXTERNAL_SAVED);
	dump_drop_reserve(&dump);
	pre_dump_forget(&dump);
	dump_close_cgroups(&dump);
	increment_close(&dump.memory.increment);
	if (!result)
		tidy_chain(request);
	shared_memory_close(&dump.snapshot);
	aio_lengths_free(&dump.memory.ring_lengths);
	step_times_free(&dump.times);
	free_files(&dump.snapshot);
	snapshot_free(&dump.snapshot);
	return result;
}

int dump_once(const struct request *request)
{
	return run_dump_steps(request, false, NULL);
}

int dump_run(const struct request *request)
{
	return request->pre_rounds ? dump_after_rounds(request) : dump_once(request);
}

int pre_dump_run(const struct request *request)
{
	return run_dump_steps(request, true, NULL);
}

int pre_dump_round(const struct request *request, struct round *round)
{
	return run_dump_steps(request, true, round);
}
