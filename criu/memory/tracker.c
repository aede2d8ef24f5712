/*
 * tracker.c - the table of trackers. See tracker.h.
 */
#include <string.h>
#include "base/memory.h"
#include "kernel/probe.h"
#include "memory/tracker.h"

/* The page writer saves the hashes, and content.c compares them. */
const struct tracker tracker_content = { .name = "content", .number = 3, .note = NOTE_NOTHING };

/* The best one first. The last one works everywhere. */
static const struct tracker *const trackers[] = { &tracker_written, &tracker_soft_dirty, &tracker_content };

const struct tracker *tracker_find_name(const char *name)
{
	for (size_t i = 0; i < array_size(trackers); i++)
		if (!strcmp(trackers[i]->name, name))
			return trackers[i];
	return NULL;
}

const struct tracker *tracker_find_number(uint32_t number)
{
	for (size_t i = 0; i < array_size(trackers); i++)
		if (trackers[i]->number == number)
			return trackers[i];
	return NULL;
}

bool tracker_works(const struct tracker *tracker)
{
	return !tracker->probe || probe_run(probe_find(tracker->probe));
}

const struct tracker *tracker_best(void)
{
	size_t i = 0;

	while (!tracker_works(trackers[i]))
		i++;
	return trackers[i];
}
