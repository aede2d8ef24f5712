/*
 * options.h - the options of the user, from the command line, configuration files or a request.
 *
 * The table is options.def: one row is one option, in the parser, configuration files, help and manual page (and later
 * RPC). options_parse() fills this struct; afterwards it is read-only.
 */
#ifndef CRIU_CLI_OPTIONS_H
#define CRIU_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "base/texts.h"
#include "compiler.h"
#include "model/request.h"

struct options {
	/* What to do */
	const char *command; /* "dump", "restore", "check", "show", … */
	char **arguments; /* the words after the command and its options; with --exec-cmd the command to run */
	size_t argument_count;

	/* Which processes, where */
	pid_t tree;		     /* -t; 0: not given */
	const char *images_dir;	     /* -D; NULL: the current directory */
	const char *work_dir;	     /* -W; NULL: the images directory */
	const char *libdir;	     /* the directory of plugins; NULL: the usual one */
	const char *prev_images_dir; /* relative to images_dir; NULL: none */
	const char *track_mem;	     /* NULL: no tracking; "": by the best tracker; or the name of one */
	const char *output_dir;	     /* flatten -o; NULL: in place */
	const char *pidfile;
	int status_fd; /* -1: none */

	/* How */
	bool leave_running;    /* -R */
	bool leave_stopped;    /* -s */
	bool restore_detached; /* -d */
	bool restore_sibling;  /* -S */
	bool shell_job;	       /* -j */
	bool file_locks;       /* -l */
	bool exec_cmd;
	bool display_stats;
	bool json;	       /* show --json */
	bool stats;	       /* show --stats */
	bool validate_by_size; /* --file-validation filesize; false: buildid */
	bool skip_file_rwx_check;
	bool force_irmap;
	struct texts irmap_scan_path;
	bool evasive_devices;
	enum grown_files grown_files;
	enum twin_use twin;
	enum compression compression;
	unsigned pre_rounds;
	bool mmap_images;
	const struct held_memory *held; /* no option: run.c */
	const char *not_held; /* nor this: why --mmap-images has no effect; NULL: it has, or was not given */
	bool link_remap;
	unsigned long ghost_limit; /* bytes; 0: no limit */
	bool auto_dedup;	   /* dump: free what it replaces; restore: free what it has read */
	unsigned max_chain;	   /* 0: no limit */
	const char *pre_dump_mode;
	unsigned timeout; /* seconds */
	struct texts action_scripts;
	bool ignores_cgroups;	     /* --manage-cgroups=ignore */
	struct texts cgroup_roots;   /* "/PATH", "CONTROLLER:/PATH" */
	struct externals *externals; /* --external, --inherit-fd; owned */
	bool external_sockets;	     /* -x */
	bool tcp_established, tcp_close, skip_in_flight;
	enum network_lock_method network_lock;

	/* check */
	const char *feature;
	bool check_extra, check_experimental;

	/* Log */
	const char *log_file; /* -o; NULL: stderr */
	bool log_pid;
	int verbosity; /* 0 … 4 */

	struct settings *given; /* the settings in their order; owns the texts above (table.h) */
};

/*
 * 0: continue. 1: --help or --version was printed, exit with 0. -errno: recorded with fail(), exit with 1. Later ones
 * win: /etc/criu/default.conf, $HOME/.criu/default.conf, $CRIU_CONFIG_FILE, --config FILE, the command line. Prints and
 * logs nothing but that. To be freed in any case.
 */
int options_parse(struct options *options, int argc, char **argv) must_check;
void options_free(struct options *options);

#endif
