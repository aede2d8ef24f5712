/*
 * proc_text.c - see proc_text.h.
 */
#include <inttypes.h>
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

bool map_line_parse(const char *line, struct map_line *map)
{
	unsigned major, minor;
	int name = 0;

	*map = (struct map_line){};
	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &map->start,
		   &map->end, map->access, &map->offset, &major, &minor, &map->inode, &name) != 7 ||
	    map->start >= map->end)
		return false;
	map->device = makedev(major, minor);
	map->name = line + (name ?: (int)strlen(line));
	return true;
}
