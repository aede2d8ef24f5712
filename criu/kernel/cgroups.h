/*
 * cgroups.h - in which cgroups a task is, as /proc tells it, and the directories of those cgroups.
 *
 * A task is in one cgroup of each hierarchy. A hierarchy is named by its controllers, as in /proc/PID/cgroup: "memory", "cpu,cpuacct",
 * "name=systemd"; "" is that of version 2. Paths begin with '/', at the root of our cgroup namespace; what lies outside of it begins
 * with "/..".
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

/* Where a task is, in the order of the names of hierarchies. */
struct cgroup_places {
	struct cgroup_place *items;
	size_t count;
	char *text; /* what they point into */
};

/* The text of /proc/PID/cgroup. */
int cgroups_parse(const char *text, struct cgroup_places *places) must_check;
void cgroup_places_free(struct cgroup_places *places);

/* Is it one of those that name the hierarchy? Also for "name=systemd", and "" of version 2. */
bool cgroup_has_controller(const char *hierarchy, const char *controller, size_t length);
/* Have both names a controller in common? Other machines may have other controllers side by side. */
bool cgroup_is_related(const char *hierarchy, const char *other);

/* The name of a hierarchy, for people. */
const char *cgroup_title(const char *hierarchy);

/* A mount of all of a hierarchy. */
struct cgroup_mount {
	char *point;
	dev_t device;
};
/* The next one in the text of /proc/PID/mountinfo; *at is moved behind it. False: there is none. `point` is allocated. */
bool cgroup_next_mount(const char **at, const char *hierarchy, struct cgroup_mount *mount);

/* Where the root of a hierarchy is mounted, by the text of /proc/self/mountinfo: allocated. NULL: nowhere. */
char *cgroup_find_root(const char *mounts, const char *hierarchy);
/* The root of a hierarchy that this kernel has: a directory (O_PATH), mounted or not. -errno, recorded. */
int cgroup_open_root(const char *hierarchy) must_check;

/* A directory (O_PATH), or a file, of the cgroup at `path`; -errno, not recorded. */
int cgroup_open(int root, const char *path) must_check;
int cgroup_open_file(int root, const char *path, const char *name, int flags) must_check;
/* Whoever is in it, or comes into it, stands still. Of hierarchies without a freezer: false. */
bool cgroup_is_frozen(int root, const char *hierarchy, const char *path);
/* The place in the hierarchy that has the cpusets: one of version 1, or version 2. NULL: none has. */
const struct cgroup_place *cgroup_cpuset_place(const struct cgroup_places *places);
/* The CPUs that threads in it may run on; false: that is not known. For a hierarchy with the controller cpuset, and version 2. */
bool cgroup_read_cpus(int root, const char *hierarchy, const char *path, struct cpus *cpus);
/* An absolute path that leads nowhere but down. */
bool cgroup_path_is_sound(const char *path);

#endif
