/*
 * request.h - a request for one journey: a dump, a pre-dump or a restore.
 *
 * The command line fills it (cli/journeys.c), and a service can do so, too. The code that fills it opens the
 * directories, with the rights of the user who asks, and closes them afterwards. The journey gets descriptors and does
 * not change its request.
 */
#ifndef CRIU_MODEL_REQUEST_H
#define CRIU_MODEL_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include "base/moments.h"
#include "base/texts.h"
#include "image/compression.h"

struct externals;
struct held_memory;
struct image_store;

/* What becomes of a file that has grown since the dump, when the processes come back. */
enum grown_files {
	GROWN_REFUSED, /* the restore fails */
	GROWN_KEPT,    /* the file keeps what was added */
	GROWN_CUT,     /* it loses that, if the processes write to it; otherwise it keeps it */
};

/* Which processes get a twin in a dump after which they run on (dump/twin.h). */
enum twin_use {
	TWIN_AUTO, /* those with much memory, if there is room for it */
	TWIN_ALWAYS,
	TWIN_NEVER,
};

/* How packets of TCP connections are blocked while these are read or made (sockets/network_lock.h). */
enum network_lock_method {
	NETWORK_LOCK_NFTABLES,
	NETWORK_LOCK_IPTABLES, /* not yet */
	NETWORK_LOCK_SKIP,     /* they are not */
};

#define PRE_ROUNDS_AUTO UINT32_MAX

/* What the user allows, asks for, and wants checked. Kinds of files and parts of tasks find a copy in the snapshot. */
struct policy {
	bool shell_job, file_locks;
	bool external_sockets; /* unix sockets are connected again to what is outside of the tree */
	/* TCP connections: at most one of the first two */
	bool keeps_connections, closes_connections, skips_in_flight;
	enum network_lock_method network_lock;
	bool leave_running, leave_stopped; /* at most one of them */
	bool validates_by_size, skips_mode_check;
	/* Paths of watched inodes: do not trust file handles; where to look for them (files/watched.h). */
	bool forces_irmap;
	struct texts irmap_paths;
	enum grown_files grown;
	bool evades_devices;  /* uses any path of a device if the original is gone */
	bool makes_links;     /* a name for a file whose path was deleted, but that other links lead to */
	uint64_t ghost_limit; /* bytes of data of one deleted file; 0: no limit */
};

struct request {
	/* Directories. The log is open already. */
	struct image_store *images; /* open and locked: by a dump to write, by a restore to read */
	int work_directory;	    /* statistics, pid file, scripts */
	struct rlimit descriptors;  /* before criu raised it: for programs that criu runs */

	/* Every journey */
	pid_t root; /* dump: the root of the tree to save; restore: the root that the images should hold, or 0 */
	struct policy policy;
	struct moments moments;
	bool auto_dedup; /* dump: free what the parents no longer need; restore: free what was read */
	bool display_stats;
	bool ignores_cgroups;
	struct texts cgroup_roots;   /* "/PATH", "CONTROLLER:/PATH" */
	const char *plugins;	     /* the directory of plugins; NULL: the usual one */
	struct externals *externals; /* external.h: the journey notes which entries it uses; NULL: none */

	/* Dump and pre-dump */
	const char *
		previous; /* the previous snapshot, relative to the images: the target of `parent`; NULL: none … */
	int previous_directory; /* … and its open directory; -1: none */
	const char *tracker;	/* NULL: do not track writes; "": by the best tracker; or the name of one */
	bool splices;		/* pre-dump: read memory through pipes */
	enum twin_use twin;
	enum compression compression;
	unsigned pre_rounds; /* how often memory is copied before the freeze; PRE_ROUNDS_AUTO: until that is no use */
	unsigned timeout;   /* seconds */
	unsigned max_chain; /* 0: no limit */

	/* Restore */
	bool is_detached,
		is_sibling; /* criu does not wait for the root; the root is a child of criu's parent */
	const struct held_memory *held; /* restore/held.h: memory that was loaded before; NULL: none */
	char **command;			/* criu executes it afterwards, with its arguments; NULL: none */
	const char *pidfile;		/* in the work directory; NULL: none */
	int status_fd; /* criu writes a zero byte to it when the tree runs, and closes it; -1: none */
	bool logs_per_process;
};

#endif
