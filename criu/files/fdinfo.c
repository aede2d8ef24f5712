/*
 * fdinfo.c - dump: splits /proc/PID/fdinfo/FD into lines once, for locks and for the file's kind.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"

void fdinfo_split(char *text, struct fdinfo_line **lines, size_t *count)
{
	*lines = NULL;
	*count = 0;
	for (char *line = text, *next; line && *line; line = next) {
		char *colon;

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		colon = strchr(line, ':');
		if (!colon)
			continue;
		*colon = '\0';
		*grow(lines, count) = (struct fdinfo_line){ line, colon + 1 + strspn(colon + 1, " \t") };
	}
}

const char *fdinfo_find(const struct seen_file *seen, const char *key)
{
	for (size_t i = 0; i < seen->line_count; i++)
		if (!strcmp(seen->lines[i].key, key))
			return seen->lines[i].value;
	return NULL;
}

int fdinfo_offer(struct snapshot *snapshot, struct file *file)
{
	const struct file_kind *kind = file->kind;
	const struct seen_file *seen = file->seen;
	int result = 0;

	for (const char *const *key = kind->fdinfo_needs; key && *key; key++)
		if (!fdinfo_find(seen, *key))
			return fail(EINVAL, "the fdinfo of %s has no line '%s'", seen->link, *key);
	for (size_t i = 0; !result && kind->fdinfo && i < seen->line_count; i++)
		result = kind->fdinfo(snapshot, file, seen->lines[i].key, seen->lines[i].value);
	return result;
}

int fdinfo_read_again(struct snapshot *snapshot, struct file *file)
{
	struct seen_file *seen = file->seen;
	struct proc_fdinfo info;
	int result = proc_read_fdinfo(seen->holder.proc, seen->fd, &info);

	if (result)
		return result;
	free(seen->info.rest);
	free(seen->lines);
	seen->info.rest = info.rest;
	fdinfo_split(info.rest, &seen->lines, &seen->line_count);
	return fdinfo_offer(snapshot, file);
}
