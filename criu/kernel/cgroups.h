/*
 * cgroups.h - the cgroups of a task, from /proc, and the directories of those cgroups.
 *
 * A task is in one cgroup of each hierarchy. The controllers of a hierarchy are its name, as in /proc/PID/cgroup:
 * "memory", "cpu,cpuacct", "name=systemd"; "" is version 2. Paths begin with '/', the root of criu's cgroup namespace;
 * a path outside of it begins with "/..".
 */
#ifndef CRIU_KERNEL_CGROUPS_H
#define CRIU_KERNEL_CGROUPS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "compiler.h"

struct cpus; /* kernel/cpus.h */

struct cgroup_place {
	const char *hierarchy, *path;
};

/* The cgroups of a task, sorted by the names of hierarchies. */
struct cgroup_places {
	struct cgroup_place *items;
	size_t count;
	char *text; /* the places point into it */
};

/* Parses the text of /proc/PID/cgroup. */
int cgroups_parse(const char *text, struct cgroup_places *places) must_check;
void cgroup_places_free(struct cgroup_places *places);

/* Is `controller` in the name of the hierarchy? Also for "name=systemd", and "" of version 2. */
bool cgroup_has_controller(const char *hierarchy, const char *controller, size_t length);
/* Do both names have a controller in common? Other machines may combine controllers differently. */
bool cgroup_is_related(const char *hierarchy, const char *other);

/* The name of a hierarchy for messages. */
const char *cgroup_title(const char *hierarchy);

/* A mount of a whole hierarchy. */
struct cgroup_mount {
	char *point;
	dev_t device;
};
/*
 * Finds the next mount in the text of /proc/PID/mountinfo, and moves *at behind it. False: there is none. `point` is
 * allocated.
 */
bool cgroup_next_mount(const char **at, const char *hierarchy, struct cgroup_mount *mount);

/* The mount point of a hierarchy's root, from the text of /proc/self/mountinfo; allocated. NULL: not mounted. */
char *cgroup_find_root(const char *mounts, const char *hierarchy);
/* Opens the root of a hierarchy (O_PATH), whether it is mounted or not. -errno, recorded. */
int cgroup_open_root(const char *hierarchy) must_check;

/* Opens a directory (O_PATH), or a file, of the cgroup at `path`; -errno, not recorded. */
int cgroup_open(int root, const char *path) must_check;
int cgroup_open_file(int root, const char *path, const char *name, int flags) must_check;
/* Are tasks in this cgroup frozen, and tasks that enter it? False for hierarchies without a freezer. */
bool cgroup_is_frozen(int root, const char *hierarchy, const char *path);
/* The cgroup in the hierarchy that has the cpusets: one of version 1, or version 2. NULL: none has them. */
const struct cgroup_place *cgroup_cpuset_place(const struct cgroup_places *places);
/*
 * The CPUs that threads in the cgroup may run on; false: not known. For a hierarchy with the controller cpuset, and
 * version 2.
 */
bool cgroup_read_cpus(int root, const char *hierarchy, const char *path, struct cpus *cpus);
/* Is the path absolute and without ".."? */
bool cgroup_path_is_sound(const char *path);

#endif
