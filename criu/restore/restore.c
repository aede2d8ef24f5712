/*
 * restore.c - the steps of a restore, which recreates a tree of processes from its images. The files named in restore.h
 * do the work.
 *
 * Invariant: a restore that fails leaves nothing behind, and if criu dies, its half-made tasks die with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/steps.h"
#include "base/time.h"
#include "criu-plugin.h"
#include "files/kind.h"
#include "files/kinds/terminal.h"
#include "image/image.h"
#include "image/message.h"
#include "image/statistics.h"
#include "ipc/ipc.h"
#include "memory/dedup.h"
#include "memory/shared.h"
#include "namespaces/kind.h"
#include "plugins/plugins.h"
#include "restore/held.h"
#include "restore/restore.h"
#include "stats.pb-c.h"

static int open_files(struct restore *restore)
{
	return shared_memory_make(&restore->snapshot, restore->chain, &restore->pages_restored) ?:
		       files_open(&restore->snapshot);
}

static int tell_plugins_forked(struct restore *restore unused)
{
	return plugins_tell_forked();
}

static int open_late_files(void *context)
{
	struct restore *restore = context;

	return files_open_late(&restore->snapshot);
}

static int make_ipc_objects(void *context)
{
	struct restore *restore = context;

	return ipc_make(&restore->snapshot);
}

static void withdraw_ipc_objects(void *context)
{
	struct restore *restore = context;

	ipc_withdraw(&restore->snapshot);
}

static int restore_open_files(void *restore)
{
	return root_work_for(restore, tell_plugins_forked) ?: root_work_for(restore, open_files);
}

void restore_close_files(void *context)
{
	struct restore *restore = context;

	files_close(&restore->snapshot);
	shared_memory_close(&restore->snapshot);
}

/* The restore has failed. */
static void withdraw_files(void *context)
{
	struct restore *restore = context;

	shared_memory_put_back(&restore->snapshot);
	restore_close_files(restore);
}

/* All processes stand still, and are traced by criu. */
static int resume_devices(void *context)
{
	struct restore *restore = context;
	struct task *task;
	int result = 0;

	for_each_task (task, &restore->snapshot)
		if (!result && task->state != TASK_DEAD)
			result = plugins_tell_process(CR_PLUGIN_HOOK__RESUME_DEVICES_LATE, task->here);
	return result;
}

static int make_namespaces(struct restore *restore)
{
	return namespaces_make(&restore->snapshot);
}

static int restore_make_namespaces(void *restore)
{
	return root_work_for(restore, make_namespaces);
}

static void close_namespaces(void *context)
{
	struct restore *restore = context;

	namespaces_close(&restore->snapshot);
}

static int seal_memory(void *context)
{
	struct restore *restore = context;

	return shared_memory_seal(&restore->snapshot) ?: ipc_finish(&restore->snapshot);
}

static int check_chain(void *context)
{
	struct restore *restore = context;

	return page_chain_check(restore->chain);
}

/* Before "create the root" there is none. */
static int tell(const struct restore *restore, enum moment moment)
{
	return moments_send(&restore->request->moments, moment,
			    restore->has_spawned ? restore->snapshot.root->here : 0);
}

static int tell_pre_restore(void *restore)
{
	return tell(restore, MOMENT_PRE_RESTORE);
}

static int tell_post_restore(void *restore)
{
	return tell(restore, MOMENT_POST_RESTORE);
}

static int tell_pre_resume(void *restore)
{
	return tell(restore, MOMENT_PRE_RESUME);
}

static int write_pidfile(void *context)
{
	struct restore *restore = context;
	const char *name = restore->request->pidfile;
	autoclose int fd = -1;
	char text[16];
	int result;

	if (!name)
		return 0;
	fd = openat(restore->request->work_directory, name,
		    O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(errno, "cannot open the pid file %s", name);
	snprintf(text, sizeof(text), "%d", restore->snapshot.root->here);
	result = write_all(fd, text, strlen(text));
	return result ? fail(-result, "cannot write the pid file %s", name) : 0;
}

static int hand_over_terminal(void *context)
{
	struct restore *restore = context;

	return terminals_hand_over(&restore->snapshot);
}

static void take_terminal_back(void *context)
{
	struct restore *restore = context;

	terminals_take_back(&restore->snapshot);
}

/* clang-format off */
static const struct step restore_steps[] = {
	{ "read the images", restore_load, NULL, false },
	{ "check the images", restore_check, NULL, false }, /* everything, before any task exists */
	{ "run the scripts (pre-restore)", tell_pre_restore, NULL, false },
	{ "make the IPC objects", make_ipc_objects, withdraw_ipc_objects, false }, /* it takes ids of processes */
	/* In its namespaces, with criu's descriptors: some namespaces and files need a process that is there. */
	{ "create the root", restore_create_root, restore_kill, false },
	{ "make the namespaces", restore_make_namespaces, close_namespaces, false }, /* kept by descriptors of criu */
	{ "open the files", restore_open_files, withdraw_files, false }, /* once, by criu, with its privileges */
	{ "create the processes", restore_spawn, restore_kill, false }, /* by the root, which has the files now, too */
	{ "open the files of processes", open_late_files, NULL, false }, /* pidfds, /proc: all pids exist, and nothing has died */
	{ "seal the memory", seal_memory, NULL, false }, /* all tasks have mapped it: now writing can be forbidden */
	{ "settle the processes", restore_settle, NULL, false }, /* all pids exist: groups, owners, the dead */
	{ "trace the processes", restore_trace, NULL, false }, /* before they change user: see hand_over.c */
	{ "rebuild the processes", restore_rebuild, NULL, false }, /* each leaves criu's code */
	{ "put the threads into their cgroups", restore_move_threads, NULL, false },
	{ "look at the images again", check_chain, NULL, false }, /* have they changed since they were opened? */
	{ "hand over the registers", restore_hand_over, NULL, false },
	{ "resume the devices", resume_devices, NULL, false }, /* plugins: when all else of the processes is there */
	{ "run the scripts (post-restore)", tell_post_restore, NULL, false },
	{ "hand over the terminal", hand_over_terminal, take_terminal_back, false },
	{ "write the pid file", write_pidfile, NULL, false }, /* a program that waits for it finds the process */
	{ "run the scripts (pre-resume)", tell_pre_resume, NULL, false },
	{ "let the processes run", restore_release, NULL, true }, /* cannot be undone */
};
/* clang-format on */

/*
 * The lines of CRIU 4.2, which programs parse. Printed at once, because afterwards a command may replace criu, or criu
 * waits for long.
 */
static void display(const RestoreStatsEntry *stats)
{
	unsigned long long compared = stats->pages_compared, skipped = stats->pages_skipped_cow,
			   restored = stats->pages_restored;

	printf("Displaying restore stats:\n"
	       "Pages compared: %llu (0x%llx)\nPages skipped COW: %llu (0x%llx)\nPages restored: %llu (0x%llx)\n"
	       "Restore time: %u us\nForking time: %u us\n",
	       compared, compared, skipped, skipped, restored, restored, stats->restore_time,
	       stats->forking_time);
	fflush(stdout);
}

static JourneyTimesEntry *times_of(const struct restore *restore)
{
	JourneyTimesEntry *entry = journey_times_new("restore", &restore->times);
	const struct throughput filled = { .bytes = restore->newborns->pages * PAGE_SIZE,
					   .time = restore->newborns->time };

	entry->memory_filled = throughput_new(&filled);
	return entry;
}

static int save_statistics(struct restore *restore, uint64_t ended)
{
	StatsEntry entry = STATS_ENTRY__INIT;
	RestoreStatsEntry stats = RESTORE_STATS_ENTRY__INIT;
	struct image_store *work;
	int result = image_store_open_fd(&work, restore->request->work_directory, true);

	if (result)
		return result;
	entry.restore = &stats;
	stats.forking_time = (restore->forked - restore->began) / 1000;
	stats.restore_time = (ended - restore->began) / 1000;
	message_set(&stats, pages_restored, restore->pages_restored + restore->newborns->pages);
	if (restore->request->display_stats)
		display(&stats);
	stats.times = times_of(restore);
	result = image_write_single(work, IMAGE_STATS, 1, &entry.base);
	image_free(stats.times);
	image_store_close(work);
	return result;
}

/* --exec-cmd: the command replaces criu, and so becomes the parent of the tree. */
static int become_command(const struct restore *restore)
{
	char **command = restore->request->command;

	descriptors_limit(&restore->request->descriptors);
	signal(SIGXFSZ, SIG_DFL);
	execvp(command[0], command);
	return fail(errno, "cannot run %s; the processes run without it", command[0]);
}

/* Not detached: criu stays the parent and ends when the root does. */
static int wait_for_root(const struct restore *restore)
{
	int status;

	while (waitpid(restore->snapshot.root->here, &status, __WALL) < 0)
		if (errno != EINTR)
			return fail(errno, "cannot wait for process %d", restore->snapshot.root->here);
	return 0;
}

/*
 * The kernel hangs up a stopped job if its parent ends as the last process in its session that could wake it (POSIX: an
 * orphaned process group). A criu that ends outside of the session does no such harm. A group leader cannot create a
 * session, so criu joins its parent's group first.
 */
static void leave_session(const struct restore *restore)
{
	if (restore->snapshot.root->session == restore->snapshot.root->pid || setsid() >= 0)
		return;
	if (setpgid(0, getpgid(getppid())) < 0 || setsid() < 0)
		log_warning("cannot leave the session: processes that are stopped will be hung up");
}

/* Tells the holder of the other end of --status-fd that the tree runs. */
static void tell_status(int fd)
{
	if (fd < 0)
		return;
	if (write(fd, "", 1) != 1)
		log_warning("cannot write to status descriptor %d: %s", fd, strerror(errno));
	close(fd);
}

/* --auto-dedup: only now is it certain that the pages will not be read again. */
static int free_pages(struct restore *restore)
{
	struct dedup_statistics statistics;
	int result = page_chain_consume(restore->chain, &statistics);

	if (result)
		return result;
	log_info("freed %llu pages of %zu snapshots: %llu KiB of disk", (unsigned long long)statistics.pages,
		 statistics.layers, (unsigned long long)statistics.bytes >> 10);
	return 0;
}

/* Others may write to the directories again, because criu may wait for days. */
static void unlock_images(struct restore *restore)
{
	page_chain_close(steal_pointer(&restore->chain));
	image_store_unlock(restore->snapshot.images);
}

/* The tree runs: the rest can fail, but no longer harm it. */
static int finish(struct restore *restore)
{
	const struct request *request = restore->request;
	struct attempt attempt;
	int result;

	/*
	 * criu is still in the session and may be the parent of the root: the tree must not suffer from these failures.
	 */
	attempt_begin(&attempt);
	if (save_statistics(restore, monotonic_time()))
		log_warning("the processes run, but stats-restore could not be written: %s", failure_text());
	attempt_forget(&attempt);
	attempt_begin(&attempt);
	if (request->auto_dedup && free_pages(restore))
		log_warning("the processes run, but the pages of their images were not freed: %s",
			    failure_text());
	attempt_forget(&attempt);
	unlock_images(restore);
	tell_status(request->status_fd);
	result = tell(restore, MOMENT_POST_RESUME);
	if (result)
		return result;
	if (request->command)
		return become_command(restore);
	if (request->is_sibling)
		return 0;
	/* For a signal that came when nothing could be undone any more. */
	interrupt_die();
	if (!request->is_detached) {
		held_memory_leave(restore->held);
		return wait_for_root(restore);
	}
	leave_session(restore);
	return 0;
}

void restore_init(struct restore *restore, const struct request *request)
{
	*restore = (struct restore){
		.request = request, .began = monotonic_time(), .wait = { -1, -1, -1, -1 }, .root = -1
	};
	snapshot_init(&restore->snapshot);
	restore->snapshot.ask_root = root_ask;
	restore->snapshot.images = request->images;
	restore->snapshot.policy = request->policy;
	restore->snapshot.externals = request->externals;
}

int restore_run(const struct request *request)
{
	struct restore restore;
	int result;

	restore_init(&restore, request);
	restore.held = held_memory_is_of(request->held, request->images) ? request->held : NULL;
	result = steps_run("restore", restore_steps, array_size(restore_steps), &restore, &restore.times);
	restore_close_files(&restore);
	close_namespaces(&restore);
	plugins_end(result, image_store_directory(request->images));
	if (!result)
		result = finish(&restore);
	restore_close_cgroups(&restore);
	page_chain_close(restore.chain);
	index_free(&restore.ids);
	step_times_free(&restore.times);
	if (restore.root >= 0)
		close(restore.root);
	return result;
}
