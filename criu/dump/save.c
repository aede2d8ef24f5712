/*
 * save.c - writes the images of the tasks, and in the end completes the directory.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "base/error.h"
#include "base/log.h"
#include "dump/dump.h"
#include "files/seen.h"
#include "image/message.h"
#include "image/inventory.h"
#include "image/statistics.h"
#include "ipc/ipc.h"
#include "namespaces/kind.h"
#include "pstree.pb-c.h"
#include "stats.pb-c.h"
#include "plugins/plugins.h"

/* inventory_entry.network_lock_method, as criu 4.2.1 writes it */
#define LOCKED_BY_NFTABLES 1
#define LOCKED_BY_NOTHING  2

/* inventory_entry.pre_dump_mode */
#define PRE_DUMP_BY_SPLICING 1
#define PRE_DUMP_BY_READING  2

static int write_process(struct image *image, const struct task *task)
{
	autofree uint32_t *threads = allocate_array(task->thread_count, sizeof(*threads));
	PstreeEntry entry = PSTREE_ENTRY__INIT;
	int result;

	for (size_t i = 0; i < task->thread_count; i++)
		threads[i] = task->threads[i].tid;
	entry.pid = task->pid;
	entry.ppid = task->parent ? task->parent->pid : 0;
	entry.pgid = task->group;
	entry.sid = task->session;
	entry.n_threads = task->thread_count;
	entry.threads = threads;
	entry.n_nested_ids = task_nested_ids(task, &entry.nested_ids);
	result = image_write(image, &entry.base);
	free(entry.nested_ids);
	return result;
}

static int save_tree(struct snapshot *snapshot)
{
	struct image *image;
	struct task *task;
	int result = image_create(snapshot->images, &image, IMAGE_PSTREE, 0);

	if (result)
		return result;
	for_each_task (task, snapshot) {
		result = write_process(image, task);
		if (result)
			break;
	}
	return image_close(image) ?: result;
}

static int save_task(struct snapshot *snapshot, struct task *task)
{
	struct image_store *images = snapshot->images;
	int result = 0;

	for (size_t i = 0; !result && i < task->thread_count; i++)
		result = image_write_single(images, IMAGE_CORE, task->threads[i].tid, &task->cores[i]->base);
	if (result || task->state == TASK_DEAD)
		return result;
	result = image_write_single(images, IMAGE_IDS, task->pid, &task->ids->base);
	if (!result && task_leads(task, OBJECT_MEMORY)) {
		dump_area_entries(task);
		result = image_write_single(images, IMAGE_MM, task->pid, &task->space->mm->base);
	}
	if (!result && task_leads(task, OBJECT_DIRECTORIES))
		result = image_write_single(images, IMAGE_FS, task->pid, &task->directories->fs->base);
	return result;
}

/* Reads pipes and terminals, so all processes must be stopped. */
int dump_save_files(void *context)
{
	struct dump *dump = context;

	return files_save(&dump->snapshot);
}

/* All data is known by now: the processes need not be stopped. */
int dump_save_tasks(void *context)
{
	struct dump *dump = context;
	struct task *task;
	int result = held_writers_close(&dump->memory.held, 0) ?: save_tree(&dump->snapshot);

	result = result ?: files_save_tables(&dump->snapshot);
	result = result ?: dump_save_cgroups(dump) ?: namespaces_save(&dump->snapshot);
	result = result ?: ipc_save(&dump->snapshot);
	for_each_task (task, &dump->snapshot) {
		if (!result)
			result = save_task(&dump->snapshot, task);
		if (result)
			return fail_in(result, "process %d (%s)", task->here, task->name);
	}
	return result;
}

/*
 * Another criu that continues a chain needs the time when its parent was made (us since boot): processes that started
 * later are different ones.
 */
static void mark_tracked(InventoryEntry *inventory, const struct dump *dump)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	if (dump->memory.increment.tracker == &tracker_soft_dirty)
		message_set(inventory, dump_uptime, now.tv_sec * 1000000ULL + now.tv_nsec / 1000);
}

static void add_plugins(InventoryEntry *inventory)
{
	const struct texts *needed = plugins_needed();

	if (!needed->count)
		return;
	inventory->plugins_entry = message_new(PluginsEntry, plugins_entry);
	message_array(inventory->plugins_entry, plugins, needed->count);
	for (size_t i = 0; i < needed->count; i++)
		inventory->plugins_entry->plugins[i] = copy_text(needed->items[i]);
}

/* For the restore, which removes the network lock (sockets/network_lock.h). */
static void add_network(InventoryEntry *inventory, const struct snapshot *snapshot)
{
	if (snapshot->policy.closes_connections)
		message_set(inventory, tcp_close, true);
	if (!snapshot->run_id[0])
		return;
	inventory->dump_criu_run_id = copy_text(snapshot->run_id);
	message_set(inventory, network_lock_method,
		    snapshot->policy.network_lock == NETWORK_LOCK_SKIP ? LOCKED_BY_NOTHING :
									 LOCKED_BY_NFTABLES);
}

/*
 * In the whole chain, because CRIU 4.2 opens the pages of all parents of a process, and would notice that there are none
 * only when it has begun to restore it.
 */
static int find_packed(const struct dump *dump, bool *is_packed)
{
	const struct page_chain *chain = dump->memory.increment.chain;

	*is_packed = image_store_has_created(dump->snapshot.images, IMAGE_PACKED_PAGES);
	return *is_packed || !chain ? 0 : page_chain_find_packed(chain, is_packed);
}

int dump_complete(void *context)
{
	struct dump *dump = context;
	const struct increment *increment = &dump->memory.increment;
	int result = increment->chain ? page_chain_check(increment->chain) : 0;
	InventoryEntry *inventory;
	bool is_packed = false;
	uint64_t began;

	result = result ?: plugins_sync() ?: find_packed(dump, &is_packed);
	if (result)
		return result;
	inventory = inventory_new();
	message_set(inventory, snapshot_id, increment->snapshot);
	if (increment->chain && page_chain_snapshot(increment->chain, 0))
		message_set(inventory, parent_id, page_chain_snapshot(increment->chain, 0));
	mark_tracked(inventory, dump);
	if (dump->is_pre_dump) {
		inventory->img_version = 0;
		message_set(inventory, pre_dump_mode,
			    dump_splices(dump) ? PRE_DUMP_BY_SPLICING : PRE_DUMP_BY_READING);
	} else {
		inventory_set_packed(inventory, is_packed);
		inventory->root_ids = dump_make_ids(NULL);
		message_set(inventory, root_cg_set, DUMP_OWN_CGROUPS);
		message_set(inventory, lsmtype, LSMTYPE__NO_LSM);
	}
	add_network(inventory, &dump->snapshot);
	add_plugins(inventory);
	began = monotonic_time();
	result = image_store_commit(dump->snapshot.images, &inventory->base);
	dump->sync_time = monotonic_time() - began;
	image_free(inventory);
	return result;
}

static void display_pages(const char *label, uint64_t pages)
{
	printf("%s: %" PRIu64 " (0x%" PRIx64 ")\n", label, pages, pages);
}

/* The first lines are those of CRIU 4.2, which programs parse; additional values follow. */
static void display_dump_stats(const DumpStatsEntry *stats)
{
	printf("Displaying dump stats:\n"
	       "Freezing time: %u us\nFrozen time: %u us\nMemory dump time: %u us\nMemory write time: %u us\n"
	       "IRMAP resolve time: %u us\n",
	       stats->freezing_time, stats->frozen_time, stats->memdump_time, stats->memwrite_time,
	       stats->irmap_resolve);
	display_pages("Memory pages scanned", stats->pages_scanned);
	display_pages("Memory pages skipped from parent", stats->pages_skipped_parent);
	display_pages("Memory pages written", stats->pages_written);
	display_pages("Lazy memory pages", stats->pages_lazy);
	display_pages("Shared memory pages scanned", stats->shpages_scanned);
	display_pages("Shared memory pages skipped from parent", stats->shpages_skipped_parent);
	display_pages("Shared memory pages written", stats->shpages_written);
	if (stats->compared_by)
		printf("Compared with the parent by: %s\n", stats->compared_by);
	if (stats->tracker)
		printf("Tracked from now on by: %s (%s)\n", stats->tracker, stats->tracker_reason);
	fflush(stdout);
}

static uint32_t microseconds(uint64_t from, uint64_t to)
{
	return to > from ? (to - from) / 1000 : 0;
}

static JourneyTimesEntry *times_of(const struct dump *dump)
{
	const struct page_statistics *both[] = { &dump->memory.pages, &dump->memory.shared_pages };
	JourneyTimesEntry *entry = journey_times_new(dump->is_pre_dump ? "pre-dump" : "dump", &dump->times);
	struct throughput read = { 0 }, cached = { 0 }, direct = { 0 }, packing = { 0 };
	uint64_t waited = 0, packed = 0;

	for (size_t i = 0; i < array_size(both); i++) {
		throughput_merge(&read, &both[i]->read);
		throughput_merge(&cached, &both[i]->streams.cached);
		throughput_merge(&direct, &both[i]->streams.direct);
		throughput_merge(&packing, &both[i]->streams.packing);
		packed += both[i]->streams.packed;
		waited += both[i]->streams.waited;
	}
	journey_times_set_frozen(entry, &dump->times, dump->freeze_began, dump->thawed);
	entry->memory_read = throughput_new(&read);
	entry->cached = throughput_new(&cached);
	entry->direct = throughput_new(&direct);
	entry->packing = throughput_new(&packing);
	message_set(entry, packed, packed);
	message_set(entry, waited, waited / 1000);
	message_set(entry, synced, dump->sync_time / 1000);
	return entry;
}

int dump_save_statistics(struct dump *dump)
{
	StatsEntry entry = STATS_ENTRY__INIT;
	DumpStatsEntry stats = DUMP_STATS_ENTRY__INIT;
	struct image_store *work;
	int result = image_store_open_fd(&work, dump->request->work_directory, true);

	if (result)
		return result;
	entry.dump = &stats;
	stats.freezing_time = microseconds(dump->freeze_began, dump->freeze_ended);
	stats.frozen_time = microseconds(dump->freeze_ended, dump->thawed);
	stats.memdump_time = stats.memwrite_time = microseconds(dump->memory.began, dump->memory.ended);
	stats.pages_scanned = dump->memory.pages.scanned;
	stats.pages_written = dump->memory.pages.written;
	stats.pages_skipped_parent = dump->memory.pages.unchanged;
	message_set(&stats, shpages_scanned, dump->memory.shared_pages.scanned);
	message_set(&stats, shpages_written, dump->memory.shared_pages.written);
	message_set(&stats, shpages_skipped_parent, dump->memory.shared_pages.unchanged);
	if (dump->memory.increment.tracker) {
		stats.tracker = (char *)dump->memory.increment.tracker->name;
		stats.tracker_reason = (char *)dump->memory.increment.reason;
	}
	if (dump->memory.increment.parent_tracker)
		stats.compared_by = (char *)dump->memory.increment.parent_tracker->name;
	if (dump->request->display_stats)
		display_dump_stats(&stats);
	stats.times = times_of(dump);
	result = image_write_single(work, IMAGE_STATS, 0, &entry.base);
	image_free(stats.times);
	image_store_close(work);
	return result;
}
