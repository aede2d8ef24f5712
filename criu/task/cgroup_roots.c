/*
 * cgroup_roots.c - see cgroup_roots.h.
 */
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/cgroups.h"
#include "task/cgroup_roots.h"

/* The path in "/PATH", "CONTROLLER:/PATH", or ":/PATH" for version 2. NULL: there is none, or it contains "..". */
static const char *path_in(const char *root)
{
	const char *colon = *root == '/' ? NULL : strstr(root, ":/");
	const char *path = *root == '/' ? root : colon ? colon + 1 : NULL;

	return path && cgroup_path_is_sound(path) ? path : NULL;
}

int cgroup_roots_check(const struct texts *roots)
{
	for (size_t i = 0; i < roots->count; i++)
		if (!path_in(roots->items[i]))
			return fail(0, "--cgroup-root: '%s' is neither /PATH nor CONTROLLER:/PATH",
				    roots->items[i]);
	return 0;
}

static bool is_meant(const char *root, size_t length, const char *hierarchy)
{
	autofree char *controllers = format_text("%.*s", (int)length, root);

	return cgroup_is_related(hierarchy, controllers);
}

char *cgroup_given_root(const struct texts *roots, const char *hierarchy)
{
	const char *found = NULL;
	bool is_special = false;
	size_t length;

	for (size_t i = 0; i < roots->count; i++) {
		const char *root = roots->items[i], *path = path_in(root);

		if (path == root ? is_special : !is_meant(root, path - root - 1, hierarchy))
			continue;
		found = path;
		is_special = path != root;
	}
	if (!found)
		return NULL;
	length = strlen(found);
	while (length > 1 && found[length - 1] == '/')
		length--;
	return format_text("%.*s", (int)length, found);
}

static int compare_texts(const void *left, const void *right)
{
	return strcmp(*(const char *const *)left, *(const char *const *)right);
}

void cgroup_tops_sort(char **tops, size_t count)
{
	if (count)
		qsort(tops, count, sizeof(*tops), compare_texts);
}

/* The length of the topmost cgroup at the start of `path`; the whole length if there is none. */
static size_t length_of_top(const char *path, char *const *tops, size_t count)
{
	size_t end = 1;

	if (!path[1])
		return 1;
	for (;;) {
		autofree char *part = format_text("%.*s", (int)end, path);
		const char *key = part;

		if (count && bsearch(&key, tops, count, sizeof(*tops), compare_texts))
			return end;
		if (!path[end])
			return end;
		end += end > 1;
		end += strcspn(path + end, "/");
	}
}

char *cgroup_below(const char *new_root, const char *path, char *const *tops, size_t count)
{
	const char *rest = path + length_of_top(path, tops, count);

	rest += *rest == '/';
	if (!*rest)
		return copy_text(new_root);
	return format_text("%s/%s", new_root[1] ? new_root : "", rest);
}
