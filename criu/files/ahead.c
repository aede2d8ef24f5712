/*
 * ahead.c - dump: prepares to look at the open files of a process with many, while it still runs. See seen.h.
 *
 * Nothing of it is trusted. An open fdinfo shows what is true when it is read. A path counts only if it leads to the
 * file then. And the numbers are listed again if there are more or fewer, or one of them is gone. For a file, in
 * microseconds on Linux 6.18:
 *
 *	fdinfo: to open, read and close it	10	to read it when it is open	1.7
 *	to read its link, then stat() the path	6.5	to stat() a path that is known	2
 *	to list it, the first time		2.8	to count it			0
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/helper_thread.h"
#include "base/index.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"

#define MANY	       64
#define MOST	       8192 /* open ones, of 4 KiB of the kernel's memory each */
#define FOR_A_PROCESS  8    /* descriptors that criu needs later */
#define WORTH_A_THREAD 256

struct tables_ahead {
	struct index by_pid;
	bool is_in_the_way; /* of what criu opens later */
};

static void free_table(struct table_ahead *table)
{
	for (size_t i = 0; i < table->count; i++) {
		if (table->items[i].fdinfo >= 0)
			close(table->items[i].fdinfo);
		free(table->items[i].link);
	}
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
}

static const struct state_type tables_type = { sizeof(struct tables_ahead), clear_tables };

size_t count_descriptors(int proc)
{
	struct stat list;

	return fstatat(proc, "fd", &list, 0) < 0 ? 0 : list.st_size;
}

struct preparation {
	struct table_ahead *table;
	int links, infos; /* /proc/PID/fd and fdinfo */
	int limit;	  /* of our own numbers */
};

static void prepare_descriptor(void *context, size_t i)
{
	const struct preparation *preparation = context;
	struct descriptor_ahead *ahead = &preparation->table->items[i];
	char path[32], byte;

	snprintf(path, sizeof(path), "%d", ahead->fd);
	ahead->fdinfo = openat(preparation->infos, path, O_RDONLY | O_CLOEXEC);
	if (ahead->fdinfo >= preparation->limit)
		close(steal_fd(&ahead->fdinfo));
	/* Reading it now has the kernel allocate its buffer now. The offset stays 0. */
	if (ahead->fdinfo >= 0)
		pread(ahead->fdinfo, &byte, 1, 0);
	if (read_link_at(preparation->links, path, &ahead->link) > 0 && ahead->link[0] != '/')
		free(steal_pointer(&ahead->link));
}

static struct table_ahead *new_table(pid_t pid, const int *fds, size_t count)
{
	struct table_ahead *table = allocate(sizeof(*table));

	table->pid = pid;
	table->items = allocate_array(count, sizeof(*table->items));
	for (size_t i = 0; i < count; i++)
		table->items[i] = (struct descriptor_ahead){ .fd = fds[i], .fdinfo = -1 };
	table->count = count;
	return table;
}

static void prepare_table(struct table_ahead *table, int links, int infos, int limit)
{
	struct preparation preparation = { table, links, infos, limit };

	descriptors_reserve(descriptors_count() + min(table->count, (size_t)preparation.limit));
	share_work(table->count, WORTH_A_THREAD, prepare_descriptor, &preparation);
	log_debug("process %d: prepared to look at %zu descriptors", table->pid, table->count);
}

static void prepare_process(struct tables_ahead *tables, pid_t pid, int limit)
{
	autoclose int proc = proc_open(pid), links = -1, infos = -1;
	autofree int *fds = NULL;
	struct table_ahead *table;
	size_t count = 0;

	if (proc < 0 || attempted(proc_read_descriptors(proc, &fds, &count)))
		return;
	links = openat(proc, "fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	infos = openat(proc, "fdinfo", O_PATH | O_DIRECTORY | O_CLOEXEC);
	table = new_table(pid, fds, count);
	prepare_table(table, links, infos, limit);
	index_set(&tables->by_pid, pid, table);
}

/*
 * Returns the lowest number that must stay free: while the open ones are in use, criu needs some descriptors for each
 * process. Afterwards it may need one for each file. What is left is halved, because not everything is counted.
 */
static int find_limit(struct tables_ahead *tables, size_t processes, size_t files)
{
	size_t need = processes * FOR_A_PROCESS, most = descriptors_most();
	size_t number = most < need ? 0 : min((most - need) / 2, (size_t)MOST);

	tables->is_in_the_way = most < need + files + number;
	return number;
}

void files_look_ahead(struct snapshot *snapshot, const pid_t *pids, size_t count)
{
	struct tables_ahead *tables = snapshot_state(snapshot, &tables_type);
	autofree pid_t *with_many = allocate_array(count, sizeof(*with_many));
	size_t many = 0, files = 0;
	int limit;

	for (size_t i = 0; i < count; i++) {
		autoclose int proc = proc_open(pids[i]);
		size_t own = proc < 0 ? 0 : count_descriptors(proc);

		files += own;
		if (own >= MANY)
			with_many[many++] = pids[i];
	}
	limit = find_limit(tables, count, files);
	/* A process that gets another parent meanwhile may be listed twice. */
	for (size_t i = 0; i < many; i++)
		if (!index_find(&tables->by_pid, with_many[i]))
			prepare_process(tables, with_many[i], limit);
}

void files_looked(struct snapshot *snapshot)
{
	struct tables_ahead *tables = snapshot_state(snapshot, &tables_type);

	if (tables->is_in_the_way)
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
