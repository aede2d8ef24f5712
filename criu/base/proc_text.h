/*
 * proc_text.h - forms of text in /proc/PID that several parts of criu read: lines "Name: value" (status,
 * fdinfo/N), and mappings (maps, and the first line of each mapping in smaps). See kernel/proc.h for whole files.
 */
#ifndef CRIU_BASE_PROC_TEXT_H
#define CRIU_BASE_PROC_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The value of a line "Name:\tvalue", up to the end of the text; NULL: there is none. */
const char *proc_text_value(const char *text, const char *name);
/* False, and *number as it was, if there is no such line. */
bool proc_text_number(const char *text, const char *name, int base, uint64_t *number);

/*
 * The next word of a line of mountinfo, and *rest moves behind it; NULL: there is none. Blanks, which are \040 there,
 * and similar characters become themselves, in place.
 */
char *proc_text_word(char **rest);

struct map_line {
	uint64_t start, end, offset, inode;
	dev_t device;
	char access[5];	  /* "rwxp": the last is p (private) or s (shared) */
	const char *name; /* in the line: a path, "[heap]", or "" */
};
/* "start-end rwxp offset major:minor inode      path": a line of maps. False: it is none. */
bool map_line_parse(const char *line, struct map_line *map);

#endif
