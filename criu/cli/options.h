/*
 * options.h - what the user asked for, from the command line, configuration files or a request.
 *
 * The table is options.def: one row = one option, in getopt, configuration files, help, man page (and later RPC).
 * This struct is filled by options_parse() and read-only from then on.
 */
#ifndef CRIU_CLI_OPTIONS_H
#define CRIU_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "base/texts.h"
#include "compiler.h"

struct options {
	/* What to do */
	const char *command; /* "dump", "restore", "check", "show", … */
	char **arguments; /* what followed the command and its options; for --exec-cmd: the command to run */
	size_t argument_count;

	/* Which processes, where */
	pid_t tree;		     /* -t; 0: not given */
	const char *images_dir;	     /* -D; NULL: the current directory */
	const char *work_dir;	     /* -W; NULL: the images directory */
	const char *prev_images_dir; /* relative to images_dir; NULL: none */
	const char *track_mem;	     /* NULL: not; "": by the best there is; or the name of a tracker */
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
	bool validate_by_size; /* --file-validation filesize; false: buildid */
	bool skip_file_rwx_check;
	bool auto_dedup;    /* dump: frees what it replaces; restore: what it has read */
	unsigned max_chain; /* 0: as long as it may be */
	const char *pre_dump_mode;
	unsigned timeout; /* seconds */
	struct texts action_scripts;
	bool ignores_cgroups;	   /* --manage-cgroups=ignore */
	struct texts cgroup_roots; /* "/PATH", "CONTROLLER:/PATH" */

	/* check */
	const char *feature;
	bool check_extra, check_experimental;

	/* Log */
	const char *log_file; /* -o; NULL: stderr */
	bool log_pid;
	int verbosity; /* 0 … 4 */

	struct settings *given; /* what was given, in its order; owns the texts above (table.h) */
};

/*
 * 0: go on. 1: --help or --version was printed, exit with 0. -errno: recorded with fail(); exit with 1.
 * Later ones win: /etc/criu/default.conf, $HOME/.criu/default.conf, $CRIU_CONFIG_FILE, --config FILE, the command line.
 * Nothing is printed or logged. To be freed in either case.
 */
int options_parse(struct options *options, int argc, char **argv) must_check;
void options_free(struct options *options);

#endif
