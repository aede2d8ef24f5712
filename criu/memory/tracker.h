/*
 * tracker.h - a tracker is a way to learn which pages of a process are written between two snapshots. There are three
 * (architecture.md, section 8); tracker.c has the table.
 *
 * Three words, kept apart: a *tracker* is such a way. *Notes* (tracking.img, TrackingEntry) are what one snapshot
 * leaves about its processes, so that the next one can ask the tracker. An *increment* (increment.h) is one dump's use
 * of both: the parent's notes, and its own.
 */
#ifndef CRIU_MEMORY_TRACKER_H
#define CRIU_MEMORY_TRACKER_H

#include "compiler.h"
#include "memory/scan.h"
#include "model/vma.h"

struct increment;
struct task_delta;

/* soft_dirty.c, written.c; the third, by content, needs none of the callbacks. */
struct tracker {
	const char *name;    /* in --track-mem, the log and the statistics */
	uint32_t number;     /* in tracking.img */
	enum page_note note; /* what it scans for; NOTE_NOTHING: it compares hashes */
	const char *probe;   /* the test of kernel/probe.h that it needs; NULL: works everywhere */
	/* The task is frozen. Are the parent's notes about this task valid … */
	bool (*resumes)(struct increment *increment, struct task_delta *delta);
	bool (*vouches)(const struct task_delta *delta,
			const struct vma *vma); /* … and about this mapping? */
	/*
	 * Tracks writes from now on. 0, or -errno, not recorded: not possible for this task; *why is a text for the
	 * log.
	 */
	int (*begin)(struct increment *increment, struct task_delta *delta, const char **why) must_check;
};
extern const struct tracker tracker_soft_dirty, tracker_written, tracker_content;

const struct tracker *tracker_find_name(const char *name);  /* NULL: there is none */
const struct tracker *tracker_find_number(uint32_t number); /* … */
bool tracker_works(const struct tracker *tracker);	    /* on this kernel */
const struct tracker *tracker_best(void);		    /* of those that work */

#endif
