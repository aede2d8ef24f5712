/*
 * external.h - the table of resources outside of the tree. A dump saves the name of such a file instead of the file
 * (--external); a restore gets a descriptor for it (--inherit-fd).
 *
 * An option is parsed once, into one entry. The core of files asks the table about each file, before a kind sees it
 * (files/external.c). An entry that no file has used is a mistake of the user: the warning names the nearest keys that
 * files had.
 *
 * How a key is written:
 *
 *	file[MNT_ID:INODE]  a file, by mnt_id in its fdinfo and by inode, in hexadecimal; hidden and deleted ones, too
 *	tty[RDEV:DEV]       a terminal, by st_rdev and st_dev, in hexadecimal
 *	pipe:[INODE]        a pipe, as /proc shows it; pipe[INODE] is the same. Only --inherit-fd
 *	socket:[INODE]      a unix socket, as /proc shows it; socket[INODE] is the same. Only --inherit-fd
 *	unix[INODE]         the same one, whose peer is outside of the tree. Only --external
 *	/PATH               a file by its path; the '/' may be missing. Only --inherit-fd
 */
#ifndef CRIU_MODEL_EXTERNAL_H
#define CRIU_MODEL_EXTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/index.h"
#include "compiler.h"

enum external_option { EXTERNAL_SAVED, EXTERNAL_INHERITED }; /* --external, --inherit-fd */
enum external_type {
	EXTERNAL_FILE,
	EXTERNAL_TTY,
	EXTERNAL_PIPE,
	EXTERNAL_SOCKET,
	EXTERNAL_UNIX,
	EXTERNAL_PATH
};

struct external_key {
	enum external_type type;
	uint64_t numbers[2]; /* in the order in which they are written; not EXTERNAL_PATH */
	const char *path;    /* EXTERNAL_PATH: without the first '/' */
};

/* An entry: one option. */
struct external {
	enum external_option option;
	struct external_key key; /* owns its path */
	char *text;		 /* the argument, for messages */
	int fd;			 /* --inherit-fd: criu's descriptor; -1: none, or closed */
	bool is_used;
};

/* The table: all entries. */
struct externals {
	struct external **items;
	size_t count;
	struct index by_key;

	/* of --external or --inherit-fd, whichever was asked for: keys that no entry had. They own their paths */
	struct external_key *missed;
	size_t missed_count;
	bool is_complete; /* all files were asked about */
};

/*
 * Adds the argument of an option. A descriptor that is not open is an error, so call this before criu opens anything
 * itself. -errno, recorded; the message contains the option.
 */
int externals_add(struct externals *externals, enum external_option option, const char *text) must_check;
/* Is there any entry? Otherwise there is no need to ask. */
static inline bool externals_any(const struct externals *externals)
{
	return externals && externals->count;
}
/* Finds the entry, and marks it as used. NULL: there is none; then the key may be named in a warning. */
struct external *externals_find(struct externals *externals, enum external_option option,
				const struct external_key *key);
/* The keys that were asked for, and that look most like the entry's, separated by commas. NULL: none. To be freed. */
char *externals_nearest(const struct externals *externals, const struct external *external);
/* Logs a warning for each entry that was not used, if all files were asked about. `option`: that of this journey. */
void externals_warn(const struct externals *externals, enum external_option option);
/* Does --inherit-fd give this descriptor to the processes? */
bool externals_give(const struct externals *externals, int fd);
/* criu has passed them on. The standard files stay open. */
void externals_close_descriptors(struct externals *externals);
void externals_free(struct externals *externals);

/* "tty[8803:1a]": to be freed. Each key is written in one way only. */
char *external_key_text(const struct external_key *key);
/* Parses a key. The path points into `text`. false: it is none that is supported. */
bool external_key_parse(const char *text, struct external_key *key) must_check;

#endif
