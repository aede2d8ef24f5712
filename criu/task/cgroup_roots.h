/*
 * cgroup_roots.h - --cgroup-root: restores a tree of cgroups below another cgroup than it was in.
 *
 * In each hierarchy the given cgroup replaces the topmost cgroup of the tree of processes, and those below it follow:
 *
 *	processes were in /app and /app/db, --cgroup-root=/new     they are restored into /new and /new/db
 *	… in /app/web and /app/db, which are both topmost          both into /new
 *	… the same, with --cgroup-root=/app at the dump            into /new/web and /new/db
 */
#ifndef CRIU_TASK_CGROUP_ROOTS_H
#define CRIU_TASK_CGROUP_ROOTS_H

#include "base/texts.h"
#include "compiler.h"

/* Are all of them "/PATH" or "CONTROLLER:/PATH"? */
int cgroup_roots_check(const struct texts *roots) must_check;
/*
 * The given root of a hierarchy, allocated; NULL: none. One with a controller takes precedence over one without, and a
 * later one over an earlier one.
 */
char *cgroup_given_root(const struct texts *roots, const char *hierarchy);

/* Sorts the topmost cgroups for cgroup_below(), which takes the first one that is an ancestor of a path. */
void cgroup_tops_sort(char **tops, size_t count);
/* The new place of `path`, allocated. */
char *cgroup_below(const char *new_root, const char *path, char *const *tops, size_t count);

#endif
