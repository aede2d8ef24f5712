/*
 * table.h - the rows of options.def as structs, shared by the files that parse options: rows.c, options.c, config.c,
 * help.c.
 */
#ifndef CRIU_CLI_TABLE_H
#define CRIU_CLI_TABLE_H

#include "cli/options.h"
#include "compiler.h"

/* The kinds of arguments, and how each is stored. */
enum option_kind {
	HEADING,  /* not an option: the title of a section */
	FLAG,	  /* bool; --no-NAME clears it */
	TEXT,	  /* const char *: the last one wins */
	TEXTS,	  /* struct texts: all of them */
	OPTIONAL, /* const char *; the argument only as --name=ARGUMENT */
	TRACKER,  /* as OPTIONAL, but --no-NAME clears it */
	FINALLY, /* bool: one of two that exclude each other, --leave-running and --leave-stopped; the last one wins */
	PROCESS,      /* pid_t > 0 */
	NUMBER,	      /* unsigned */
	SECONDS,      /* unsigned */
	ROUNDS,	      /* unsigned; 'auto' is PRE_ROUNDS_AUTO */
	SIZE,	      /* unsigned long, with K, M or G */
	DESCRIPTOR,   /* int: an open file descriptor */
	LEVEL,	      /* int; see apply_level() */
	VALIDATION,   /* bool: 'filesize' or 'buildid' */
	GROWN,	      /* enum grown_files: 'refuse', 'keep' or 'cut' */
	NETWORK_LOCK, /* enum network_lock_method: 'nftables', 'iptables' (not yet) or 'skip' */
	TWIN,	      /* enum twin_use: 'auto', 'always' or 'never' */
	COMPRESSION, /* enum compression: 'never', 'always' (1) or 'auto'; the argument only as --name=ARGUMENT */
	CGROUPS, /* bool: 'ignore', or another mode of --manage-cgroups; the argument only as --name=ARGUMENT */
	UNIX_SOCKETS, /* bool; with an argument, of --name=ARGUMENT, also an entry of this table: */
	EXTERNAL,     /* struct externals *: parsed into the table of model/external.h … */
	INHERITED,    /* … and this one, too: --inherit-fd, only for a restore */
	NO_EFFECT,    /* a flag without effect */
	ALL_CHECKS,   /* both fields of --extra and --experimental */
	CONFIG,	      /* applied before all others, as is the next */
	NO_DEFAULT_CONFIG,
	HELP,
	VERSION,
};

/* The commands an option means something to. */
enum {
	DUMP = 1,
	PRE_DUMP = 2,
	RESTORE = 4,
	CHECK = 8,
	SHOW = 16,
	PAGE_SERVER = 32,
	SERVICE = 64,
	LAZY_PAGES = 128,
	CPUINFO = 256,
	DEDUP = 512,
	FLATTEN = 1024,
	UNTRACK = 2048,
	HOLD = 4096,
	SERVERS = PAGE_SERVER | SERVICE | LAZY_PAGES,
	EVERY = -1,
	/*
	 * Not commands: CRIU 4.2 has no option of this name (OURS), or does not have it with "no-" before it
	 * (OURS_NEGATED).
	 */
	OURS = 1 << 16,
	OURS_NEGATED = 1 << 17,
};

/* Whether an option or a command is supported. If not, criu refuses it with a message that names it. */
enum availability { THERE, NOT_YET, NO_MORE };

struct option_row {
	char letter; /* 0: none */
	const char *name;
	enum option_kind kind;
	size_t offset; /* of the field in struct options */
	int commands;
	const char *metavar;
	const char *help; /* NO_MORE: what to do instead */
	enum availability there;
};
extern const struct option_row option_rows[];
extern const size_t option_row_count;

struct command_row {
	const char *name;
	int bit;
	const char *arguments; /* NULL: none are allowed */
	const char *help;      /* NO_MORE: why */
	enum availability there;
};
extern const struct command_row command_rows[];
extern const size_t command_row_count;

/* An option that the user gave. Its row is known; its argument is not parsed yet. */
struct setting {
	const struct option_row *row;
	bool negated;
	char *argument; /* NULL: none */
	char letter;	/* the letter it was given by; 0: its name */
	char *origin;	/* "FILE:LINE" of a configuration file; NULL: the command line */
};
struct settings {
	struct setting *items;
	size_t count;
};

/*
 * Adds the option `text`: "name" or "name=argument", where the name may be shortened or, for a flag, have "no-" before
 * it. `next` is the following word, or NULL; *took_next tells whether it was used as the argument. 0 or -errno,
 * recorded.
 */
int settings_add_long(struct settings *settings, const char *text, const char *next, bool *took_next)
	must_check;
void settings_free(struct settings *settings);

/* config.c: adds the options of a configuration file. -ENOENT is not recorded, all other errors are. */
int config_read(struct settings *settings, const char *path) must_check;
int config_parse(struct settings *settings, const char *text)
	must_check; /* from a text instead of a file, for tests */

/*
 * Finds the options that a name can mean, which may be shortened or have "no-" before it. Returns how many there are;
 * the rows of the first go into found[0…most), with whether they are negated.
 */
int row_find(const char *text, size_t length, struct setting *found, int most) must_check;

/* The option of a letter; a command may use a letter for an option of its own. `command` 0: none. */
/* Its argument only counts as --name=ARGUMENT, or behind the letter. */
bool row_may_lack_argument(const struct option_row *row);
const struct option_row *row_by_letter(char letter, int command);

/* help.c: prints the help for one command, if `command` is one, or for all. */
void help_print(const char *command);
void version_print(void);

/* The name among `names` that `text` probably means, or NULL. Names are `stride` bytes apart. */
const char *suggestion(const char *text, const void *names, size_t count, size_t stride);

#endif
