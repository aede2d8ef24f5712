/*
 * proc_text.c - see proc_text.h.
 */
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

/* A hexadecimal number and what must stand behind it. */
static bool read_until(const char **text, char end, uint64_t *number)
{
	char *behind;

	*number = strtoull(*text, &behind, 16);
	if (behind == *text || *behind != end)
		return false;
	*text = behind + 1;
	return true;
}

/* There are tens of thousands of these: sscanf() would take ten times as long. */
bool map_line_parse(const char *line, struct map_line *map)
{
	uint64_t major, minor;
	char *name;

	*map = (struct map_line){};
	if (!read_until(&line, '-', &map->start) || !read_until(&line, ' ', &map->end) ||
	    map->start >= map->end || strcspn(line, " \n") != sizeof(map->access) - 1)
		return false;
	memcpy(map->access, line, sizeof(map->access) - 1);
	line += sizeof(map->access);
	if (!read_until(&line, ' ', &map->offset) || !read_until(&line, ':', &major) ||
	    !read_until(&line, ' ', &minor))
		return false;
	map->inode = strtoull(line, &name, 10);
	map->device = makedev(major, minor);
	map->name = name + strspn(name, " \t\n");
	return name != line;
}
