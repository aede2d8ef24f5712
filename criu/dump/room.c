/*
 * room.c - room in memory for the pages that will have to be saved, before the freeze.
 *
 * What was written since the parent snapshot is little, and could be read in a few milliseconds. But then it has to go somewhere: into the
 * page cache, whose fresh pages cost more than reading does (2 ms for 1 MiB here, where a page of the machine is slow the first
 * time it is touched). So the largest process that was tracked gets buffers for all that it has written by now, which
 * are touched already; what is in them is written to the images when the processes run on. And a second thread stands ready to
 * read into them, too.
 */
#include <errno.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "kernel/proc.h"

#define MOST_ROOM (256UL << 20)

static uint64_t count_written(pid_t pid)
{
	autoclose int proc = proc_open(pid);
	struct scanner *scanner = NULL;
	uint64_t pages = 0;

	if (proc >= 0 && !scanner_open(&scanner, proc))
		pages = scan_count_written(scanner);
	scanner_close(scanner);
	return pages;
}

/* Nothing depends on it but speed. It goes on writing, so there is a quarter more; but no more than an eighth of what is free. */
int dump_make_room(void *context)
{
	struct dump *dump = context;
	autofree pid_t *pids = NULL;
	size_t count = 0, size;
	uint64_t most = 0;

	if (dump->tracking.looks != &tracker_written)
		return 0;
	dump_list_tree(dump->options->tree, &pids, &count);
	for (size_t i = 0; i < count; i++) {
		uint64_t pages = count_written(pids[i]);

		if (pages > most) {
			most = pages;
			dump->room_for = pids[i];
		}
	}
	size = min((most + most / 4) * PAGE_SIZE, MOST_ROOM);
	size = min(size, (size_t)sysconf(_SC_AVPHYS_PAGES) / 8 * PAGE_SIZE);
	if (stream_reserve_make(&dump->room, size))
		log_debug("no room for %zu KiB that process %d has written", size >> 10, dump->room_for);
	if (dump->room.memory)
		dump->reads_aside = aside_start();
	failure_clear();
	return 0;
}

void dump_give_room_up(void *context)
{
	struct dump *dump = context;

	page_writer_close(steal_pointer(&dump->late_writer));
	aside_end(steal_pointer(&dump->reads_aside));
	stream_reserve_free(&dump->room);
}
