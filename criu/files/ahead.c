/*
 * ahead.c - dump: prepares to look at the open files of a process with many, while it still runs. See seen.h.
 *
 * Nothing of it is trusted. An open fdinfo shows what is true when it is read. A path counts only if it leads to the
 * file then. And the numbers are listed again if there are more or fewer, or one of them is gone.
 *
 * If there are very many, the kernel lists them at once (kernel/file_lister.h): now, to know which fdinfo will be needed,
 * and again in the freeze. For a file, in microseconds on Linux 6.18:
 *
 *	fdinfo: to open, read and close it	10	to read it when it is open	1.7
 *	to read its link, then stat() the path	6.5	to stat() a path that is known	2
 *	to list it, the first time		2.8	to count it			0
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/helper_thread.h"
#include "base/index.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/blockers.h"
#include "files/kind.h"
#include "kernel/file_lister.h"

#define MANY	       64
#define MOST	       16384 /* open ones, of 4 KiB of the kernel's memory each */
#define FOR_A_PROCESS  8     /* descriptors that criu needs later */
#define WORTH_A_THREAD 256
#define WORTH_A_LIST   1000 /* to prepare it takes 15 ms */

struct tables_ahead {
	struct index by_pid;
	struct file_lister *lister; /* NULL: there are not many, or it does not work here */
	size_t opened, inherited;   /* of all tables */
	ssize_t free_later;	    /* descriptors, when criu has opened all files; negative: it lacks some */
};

static void free_table(struct table_ahead *table)
{
	autofree int *open = allocate_array(table->count, sizeof(*open));
	size_t count = 0;

	for (size_t i = 0; i < table->count; i++) {
		if (table->items[i].fdinfo >= 0)
			open[count++] = table->items[i].fdinfo;
		free(table->items[i].link);
	}
	descriptors_close(open, count);
	free(table->items);
	free(table);
}

static void clear_tables(void *state)
{
	struct tables_ahead *tables = state;

	for (size_t i = 0; i < tables->by_pid.capacity; i++)
		if (tables->by_pid.slots[i].value)
			free_table(tables->by_pid.slots[i].value);
	index_free(&tables->by_pid);
	file_lister_close(tables->lister);
	tables->lister = NULL;
}

static const struct state_type tables_type = { sizeof(struct tables_ahead), clear_tables };

size_t count_descriptors(int proc)
{
	struct stat list;

	return fstatat(proc, "fd", &list, 0) < 0 ? 0 : list.st_size;
}

struct preparation {
	struct table_ahead *table;
	const struct table_ahead *before; /* of another process, perhaps the parent; NULL: none */
	const struct listed_file *listed; /* what the kernel's list says of each; NULL: there is none */
	bool is_full;			  /* as many are open as may be; atomic */
	int links, infos;		  /* /proc/PID/fd and fdinfo */
	int limit;			  /* of our own numbers */
};

/* What a process has inherited is nearly always looked at in its parent, so that it needs no path. */
static bool take_from(const struct table_ahead *before, pid_t pid, struct descriptor_ahead *ahead)
{
	const struct descriptor_ahead *other = table_ahead_find(before, ahead->fd);

	if (!other || !is_same_descriptor((pid_t[]){ pid, before->pid },
					  (uint64_t[]){ ahead->address, other->address }, ahead->fd))
		return false;
	ahead->may_block = other->may_block;
	return true;
}

static void open_fdinfo(struct preparation *preparation, const char *path, struct descriptor_ahead *ahead)
{
	if (!__atomic_load_n(&preparation->is_full, __ATOMIC_RELAXED))
		ahead->fdinfo = openat(preparation->infos, path, O_RDONLY | O_CLOEXEC);
	if (ahead->fdinfo >= preparation->limit) {
		close(steal_fd(&ahead->fdinfo));
		__atomic_store_n(&preparation->is_full, true, __ATOMIC_RELAXED);
	}
}

static void prepare_descriptor(void *context, size_t i)
{
	struct preparation *preparation = context;
	struct descriptor_ahead *ahead = &preparation->table->items[i];
	const struct listed_file *listed = preparation->listed ? &preparation->listed[i] : NULL;
	char path[32];

	snprintf(path, sizeof(path), "%d", ahead->fd);
	ahead->is_inherited = take_from(preparation->before, preparation->table->pid, ahead);
	if (needs_fdinfo(listed, ahead->is_inherited))
		open_fdinfo(preparation, path, ahead);
	if (ahead->is_inherited || read_link_at(preparation->links, path, &ahead->link) <= 0)
		return;
	ahead->may_block = files_link_may_block(ahead->link);
	if (ahead->link[0] != '/')
		free(steal_pointer(&ahead->link));
}

/* What a process has now: numbers, and what the kernel's list says of each. */
struct listing {
	int *fds;
	struct listed_file *listed; /* NULL: only the numbers are known */
	size_t count;
};

static void free_listing(struct listing *listing)
{
	free(listing->fds);
	free(listing->listed);
}

static bool list_at_once(const struct tables_ahead *tables, pid_t pid, struct listed_file **files,
			 size_t *count)
{
	*files = NULL;
	*count = 0;
	return tables->lister && !attempted(file_lister_list(tables->lister, pid, files, count)) && *count;
}

static bool list(const struct tables_ahead *tables, pid_t pid, int proc, struct listing *listing)
{
	return list_at_once(tables, pid, &listing->listed, &listing->count) ||
	       !attempted(proc_read_descriptors(proc, &listing->fds, &listing->count));
}

static struct table_ahead *new_table(pid_t pid, const struct listing *listing)
{
	struct table_ahead *table = allocate(sizeof(*table));

	table->pid = pid;
	table->items = allocate_array(listing->count, sizeof(*table->items));
	for (size_t i = 0; i < listing->count; i++) {
		struct descriptor_ahead *ahead = &table->items[i];

		ahead->fd = listing->listed ? listing->listed[i].fd : listing->fds[i];
		ahead->address = listing->listed ? listing->listed[i].file : 0;
		ahead->fdinfo = -1;
	}
	table->count = listing->count;
	return table;
}

static void prepare_table(struct preparation *preparation)
{
	struct table_ahead *table = preparation->table;

	descriptors_reserve(descriptors_count() + min(table->count, (size_t)preparation->limit));
	share_work(table->count, WORTH_A_THREAD, prepare_descriptor, preparation);
	log_debug("process %d: prepared to look at %zu descriptors", table->pid, table->count);
}

/* Returns its table; NULL: it has none. */
static const struct table_ahead *prepare_process(struct tables_ahead *tables, pid_t pid,
						 const struct table_ahead *before, int limit)
{
	autoclose int proc = proc_open(pid), links = -1, infos = -1;
	struct preparation preparation = { .before = before, .limit = limit };
	struct listing listing = { 0 };

	if (proc < 0 || !list(tables, pid, proc, &listing)) {
		free_listing(&listing);
		return NULL;
	}
	preparation.listed = listing.listed;
	preparation.links = links = openat(proc, "fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	preparation.infos = infos = openat(proc, "fdinfo", O_PATH | O_DIRECTORY | O_CLOEXEC);
	preparation.table = new_table(pid, &listing);
	prepare_table(&preparation);
	index_set(&tables->by_pid, pid, preparation.table);
	free_listing(&listing);
	return preparation.table;
}

static void open_lister(struct tables_ahead *tables)
{
	if (attempted(file_lister_open(&tables->lister)))
		log_debug("the kernel does not list the open files at once; each is looked at");
}

bool files_list(const struct snapshot *snapshot, pid_t pid, struct listed_file **files, size_t *count)
{
	return list_at_once(snapshot_state(snapshot, &tables_type), pid, files, count);
}

/*
 * Returns the lowest number that must stay free: while the open ones are in use, criu needs some descriptors for each
 * process. Afterwards it may need one for each file. A quarter of what is left stays free, because not everything is
 * counted.
 */
static int find_limit(struct tables_ahead *tables, size_t processes, size_t files)
{
	size_t need = processes * FOR_A_PROCESS, most;

	/* To close the open ones in the freeze takes 2 us each. */
	ignore(descriptors_allow(need + files + MOST));
	most = descriptors_most();
	tables->free_later = (ssize_t)most - (ssize_t)(need + files);
	return most < need ? 0 : min((most - need) / 4 * 3, (size_t)MOST);
}

/* An open file that processes have inherited counts once. */
static void count_prepared(struct tables_ahead *tables, const struct table_ahead *table)
{
	for (size_t i = 0; i < table->count; i++) {
		tables->opened += table->items[i].fdinfo >= 0;
		tables->inherited += table->items[i].is_inherited;
	}
}

static size_t count_now(int proc)
{
	autofree int *fds = NULL;
	size_t count = count_descriptors(proc);

	if (!count) /* before Linux 6.2, or there are none */
		attempted(proc_read_descriptors(proc, &fds, &count));
	return count;
}

void files_look_ahead(struct snapshot *snapshot, const pid_t *pids, size_t count)
{
	struct tables_ahead *tables = snapshot_state(snapshot, &tables_type);
	autofree pid_t *with_many = allocate_array(count, sizeof(*with_many));
	const struct table_ahead *before = NULL;
	size_t many = 0, files = 0;
	int limit;

	for (size_t i = 0; i < count; i++) {
		autoclose int proc = proc_open(pids[i]);
		size_t own = proc < 0 ? 0 : count_now(proc);

		files += own;
		if (own >= MANY)
			with_many[many++] = pids[i];
	}
	limit = find_limit(tables, count, files);
	if (files >= WORTH_A_LIST)
		open_lister(tables);
	/* A process that gets another parent meanwhile may be listed twice. */
	for (size_t i = 0; i < many; i++)
		if (!index_find(&tables->by_pid, with_many[i])) {
			before = prepare_process(tables, with_many[i], before, limit);
			if (before)
				count_prepared(tables, before);
		}
}

void files_looked(struct snapshot *snapshot)
{
	struct tables_ahead *tables = snapshot_state(snapshot, &tables_type);

	if (tables->free_later + (ssize_t)tables->inherited < (ssize_t)tables->opened)
		clear_tables(tables);
}

struct table_ahead *files_ahead(const struct snapshot *snapshot, pid_t pid)
{
	const struct tables_ahead *tables = snapshot_state(snapshot, &tables_type);

	return index_find(&tables->by_pid, pid);
}

static int compare_number(const void *key, const void *member)
{
	return *(const int *)key - ((const struct descriptor_ahead *)member)->fd;
}

struct descriptor_ahead *table_ahead_find(const struct table_ahead *table, int fd)
{
	if (!table || !table->count)
		return NULL;
	return bsearch(&fd, table->items, table->count, sizeof(*table->items), compare_number);
}
