/*
 * cgroup_roots.h - --cgroup-root: a tree of cgroups that is restored below another one than it was in.
 *
 * In each hierarchy the topmost cgroup of the tree of processes is replaced by the given one, and those below it follow:
 *
 *	processes were in /app and /app/db, --cgroup-root=/new     they come to /new and /new/db
 *	… in /app/web and /app/db, which are both topmost          they come to /new, both
 *	… and so, with --cgroup-root=/app at the dump              they come to /new/web and /new/db
 */
#ifndef CRIU_TASK_CGROUP_ROOTS_H
#define CRIU_TASK_CGROUP_ROOTS_H

#include "base/texts.h"
#include "compiler.h"

/* Are all of them "/PATH" or "CONTROLLER:/PATH"? */
int cgroup_roots_check(const struct texts *roots) must_check;
/* That of a hierarchy, allocated; NULL: it has none. One with a controller goes before one without, later ones before earlier ones. */
char *cgroup_given_root(const struct texts *roots, const char *hierarchy);

/* The cgroups of which the first one on the way down to a path is topmost. */
void cgroup_tops_sort(char **tops, size_t count);
/* Where `path` comes to, allocated. */
char *cgroup_below(const char *new_root, const char *path, char *const *tops, size_t count);

#endif
