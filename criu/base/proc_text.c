/*
 * proc_text.c - see proc_text.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include "base/proc_text.h"

/* Names are few and short: to compare the beginning of each line is fast enough. */
const char *proc_text_value(const char *text, const char *name)
{
	size_t length = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
		if (!strncmp(line, name, length) && line[length] == ':')
			return line + length + 1 + strspn(line + length + 1, "\t ");
	return NULL;
}

bool proc_text_number(const char *text, const char *name, int base, uint64_t *number)
{
	const char *value = proc_text_value(text, name);

	if (value)
		*number = strtoull(value, NULL, base);
	return value;
}

/* 16: it is none. */
static unsigned digit_value(char letter)
{
	if (letter >= '0' && letter <= '9')
		return letter - '0';
	return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : 16;
}

/*
 * Numbers of /proc have no sign and no prefix. sscanf() would take 2 microseconds for a line of maps, and it searches
 * for the end of all text behind the line.
 */
static bool take_number(const char **at, unsigned base, uint64_t *number)
{
	const char *begin = *at;
	unsigned digit;

	for (*number = 0; (digit = digit_value(**at)) < base; ++*at)
		*number = *number * base + digit;
	return *at > begin;
}

static bool take_letter(const char **at, char letter)
{
	if (**at != letter)
		return false;
	++*at;
	return true;
}

static bool take_access(const char **at, char access[5])
{
	if (strnlen(*at, 4) < 4)
		return false;
	memcpy(access, *at, 4);
	*at += 4;
	return true;
}

bool map_line_parse(const char *line, struct map_line *map)
{
	const char *at = line;
	uint64_t major, minor;

	*map = (struct map_line){};
	if (!take_number(&at, 16, &map->start) || !take_letter(&at, '-') ||
	    !take_number(&at, 16, &map->end) || !take_letter(&at, ' ') || !take_access(&at, map->access) ||
	    !take_letter(&at, ' ') || !take_number(&at, 16, &map->offset) || !take_letter(&at, ' ') ||
	    !take_number(&at, 16, &major) || !take_letter(&at, ':') || !take_number(&at, 16, &minor) ||
	    !take_letter(&at, ' ') || !take_number(&at, 10, &map->inode) || map->start >= map->end)
		return false;
	map->device = makedev(major, minor);
	map->name = at + strspn(at, " ");
	return true;
}

char *proc_text_word(char **rest)
{
	char *word = strsep(rest, " "), *to = word;

	for (char *from = word; word && *from; to++) {
		unsigned code;

		if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
			*to = code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	if (word)
		*to = '\0';
	return word;
}
