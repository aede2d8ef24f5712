/*
 * request.h - what somebody wants of one journey: a dump, a pre-dump or a restore.
 *
 * The command line fills it (cli/journeys.c), and so can a service. Whoever fills it opens the directories, with the rights of the one who
 * asks, and closes them afterwards. A journey gets descriptors, and changes nothing in its request.
 */
#ifndef CRIU_MODEL_REQUEST_H
#define CRIU_MODEL_REQUEST_H

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>
#include "base/moments.h"
#include "base/texts.h"

struct image_store;

/* What is allowed, asked for, and to be checked. Kinds of files and parts of tasks find a copy in the snapshot. */
struct policy {
	bool shell_job, file_locks;
	bool leave_running, leave_stopped; /* at most one of them */
	bool validates_by_size, skips_mode_check;
};

struct request {
	/* Places. The log is open already. */
	struct image_store *images; /* open and locked: for a dump as its writer, for a restore as a reader */
	int work_directory;	    /* statistics, pid file, scripts */
	struct rlimit descriptors;  /* before criu raised it: for programs that criu runs */

	/* Every journey */
	pid_t root; /* dump: of the tree to save; restore: what somebody believes the images hold, or 0 */
	struct policy policy;
	struct moments moments;
	bool auto_dedup; /* dump: free what the parents no longer need; restore: free what was read */
	bool display_stats;
	bool ignores_cgroups;
	struct texts cgroup_roots; /* "/PATH", "CONTROLLER:/PATH" */

	/* Dump and pre-dump */
	const char *
		previous; /* the previous snapshot, relative to the images: where `parent` leads; NULL: none … */
	int previous_directory; /* … and its directory; -1 */
	const char *tracker;	/* NULL: nothing is to be noted; "": by the best there is; or its name */
	bool splices;		/* pre-dump: through pipes */
	unsigned timeout;	/* seconds */
	unsigned max_chain;	/* 0: as long as it may be */

	/* Restore */
	bool is_detached, is_sibling; /* nobody waits for the root; it is a child of our parent */
	char **command;		      /* to become afterwards, with its arguments; NULL: none */
	const char *pidfile;	      /* in the work directory; NULL: none */
	int status_fd;		      /* gets a zero byte when the tree runs, and is closed; -1: none */
	bool logs_per_process;
};

#endif
