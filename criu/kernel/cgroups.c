/*
 * cgroups.c - see cgroups.h. The facts are from cgroups(7), proc(5), and Linux 6.18.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "kernel/cgroups.h"
#include "kernel/cpus.h"

/* ---- /proc/PID/cgroup ---- */

static int compare_places(const void *left, const void *right)
{
	const struct cgroup_place *a = left, *b = right;

	return strcmp(a->hierarchy, b->hierarchy);
}

/* "4:memory:/a/path": the path may contain anything but a newline. */
static bool parse_place(char *line, struct cgroup_place *place)
{
	char *hierarchy = strchr(line, ':'), *path = hierarchy ? strchr(hierarchy + 1, ':') : NULL;

	if (!path || path[1] != '/')
		return false;
	*path = '\0';
	*place = (struct cgroup_place){ hierarchy + 1, path + 1 };
	return true;
}

int cgroups_parse(const char *text, struct cgroup_places *places)
{
	char *rest;

	*places = (struct cgroup_places){ .text = copy_text(text) };
	rest = places->text;
	while (*rest) {
		char *line = strsep(&rest, "\n");

		if (!parse_place(line, grow(&places->items, &places->count))) {
			fail(EINVAL, "cannot understand /proc/PID/cgroup: %.60s", line);
			cgroup_places_free(places); /* this frees the line, too */
			return -EINVAL;
		}
		if (!rest)
			break;
	}
	if (places->count)
		qsort(places->items, places->count, sizeof(*places->items), compare_places);
	return 0;
}

void cgroup_places_free(struct cgroup_places *places)
{
	free(places->items);
	free(places->text);
	*places = (struct cgroup_places){ 0 };
}

/* ---- names ---- */

bool cgroup_has_controller(const char *hierarchy, const char *controller, size_t length)
{
	for (;;) {
		size_t own = strcspn(hierarchy, ",");

		if (own == length && !memcmp(hierarchy, controller, length))
			return true;
		if (!hierarchy[own])
			return false;
		hierarchy += own + 1;
	}
}

bool cgroup_is_related(const char *hierarchy, const char *other)
{
	for (;;) {
		size_t length = strcspn(other, ",");

		if (cgroup_has_controller(hierarchy, other, length))
			return true;
		if (!other[length])
			return false;
		other += length + 1;
	}
}

const char *cgroup_title(const char *hierarchy)
{
	return *hierarchy ? hierarchy : "version 2";
}

bool cgroup_path_is_sound(const char *path)
{
	if (*path != '/')
		return false;
	for (const char *at = path; (at = strstr(at, "/..")); at += 3)
		if (!at[3] || at[3] == '/')
			return false;
	return true;
}

/* ---- mounts ---- */

/* "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory" */
static bool parse_mount(char *line, const char *hierarchy, struct cgroup_mount *mount)
{
	char *device, *root, *point, *type, *options, *separator = strstr(line, " - ");
	unsigned major, minor;

	if (!separator)
		return false;
	*separator = '\0';
	type = separator + 3;
	proc_text_word(&line);
	proc_text_word(&line);
	device = proc_text_word(&line);
	root = proc_text_word(&line);
	point = proc_text_word(&line);
	options = type;
	type = proc_text_word(&options);
	proc_text_word(&options);
	if (!point || !options || sscanf(device, "%u:%u", &major, &minor) != 2 || strcmp(root, "/") != 0)
		return false;
	if (strcmp(type, *hierarchy ? "cgroup" : "cgroup2") != 0)
		return false;
	if (*hierarchy && !cgroup_has_controller(options, hierarchy, strcspn(hierarchy, ",")))
		return false;
	*mount = (struct cgroup_mount){ copy_text(point), makedev(major, minor) };
	return true;
}

bool cgroup_next_mount(const char **at, const char *hierarchy, struct cgroup_mount *mount)
{
	while (**at) {
		size_t length = strcspn(*at, "\n");
		autofree char *line = format_text("%.*s", (int)length, *at);

		*at += length + !!(*at)[length];
		if (parse_mount(line, hierarchy, mount))
			return true;
	}
	return false;
}

/* Another mount may cover it. */
static int open_mount(const struct cgroup_mount *mount)
{
	autoclose int fd = open(mount->point, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat found;

	return fd >= 0 && fstat(fd, &found) == 0 && found.st_dev == mount->device ? steal_fd(&fd) : -1;
}

/* Names the hierarchy as mount options do: controllers, a name, or both. */
static int configure(int context, const char *hierarchy)
{
	const char *at = hierarchy;

	while (*at) {
		size_t length = strcspn(at, ",");
		autofree char *word = format_text("%.*s", (int)length, at);
		bool is_name = !strncmp(word, "name=", 5);

		if (is_name ? fsconfig(context, FSCONFIG_SET_STRING, "name", word + 5, 0) < 0 :
			      fsconfig(context, FSCONFIG_SET_FLAG, word, NULL, 0) < 0)
			return -1;
		if (is_name && length == strlen(hierarchy) &&
		    fsconfig(context, FSCONFIG_SET_FLAG, "none", NULL, 0) < 0)
			return -1;
		at += length + !!at[length];
	}
	return 0;
}

/*
 * Mounts the hierarchy for criu alone: the mount is not in the tree of mounts and ends with its descriptor (Linux 5.2).
 */
static int mount_root(const char *hierarchy)
{
	autoclose int context = fsopen(*hierarchy ? "cgroup" : "cgroup2", FSOPEN_CLOEXEC);
	int mounted;

	if (context < 0 || configure(context, hierarchy) < 0 ||
	    fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	mounted = fsmount(context, FSMOUNT_CLOEXEC, 0);
	return mounted < 0 ? -errno : mounted;
}

/* Returns a directory and, in *point, its mount point (allocated); -1: it is not mounted. */
static int find_root(const char *mounts, const char *hierarchy, char **point)
{
	struct cgroup_mount mount;
	int root = -1;

	*point = NULL;
	while (root < 0 && cgroup_next_mount(&mounts, hierarchy, &mount)) {
		root = open_mount(&mount);
		if (root >= 0)
			*point = steal_pointer(&mount.point);
		free(mount.point);
	}
	return root;
}

char *cgroup_find_root(const char *mounts, const char *hierarchy)
{
	char *point;
	autoclose int root unused = find_root(mounts, hierarchy, &point);

	return point;
}

int cgroup_open_root(const char *hierarchy)
{
	autofree char *mounts = NULL, *point = NULL;
	ssize_t length = read_text_at(-1, "/proc/self/mountinfo", &mounts);
	int root;

	if (length < 0)
		return fail(-length, "cannot read /proc/self/mountinfo");
	root = find_root(mounts, hierarchy, &point);
	if (root < 0)
		root = mount_root(hierarchy);
	if (root >= 0)
		return root;
	return fail(-root, "the cgroup hierarchy '%s' is not mounted here, and criu cannot mount it",
		    hierarchy);
}

/* ---- directories ---- */

/* The path relative to the root of the hierarchy. */
static const char *from_root(const char *path)
{
	path += strspn(path, "/");
	return *path ? path : ".";
}

int cgroup_open(int root, const char *path)
{
	int fd = openat(root, from_root(path), O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int cgroup_open_file(int root, const char *path, const char *name, int flags)
{
	autofree char *file = format_text("%s/%s", from_root(path), name);
	int fd = openat(root, file, flags | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

bool cgroup_is_frozen(int root, const char *hierarchy, const char *path)
{
	const char *name = *hierarchy ? "freezer.state" : "cgroup.events";
	autoclose int fd = cgroup_open_file(root, path, name, O_RDONLY);
	autofree char *text = NULL;

	if (fd < 0 || read_text_from(fd, &text) < 0)
		return false;
	/* Both also report a freeze of an ancestor. */
	return *hierarchy ? strncmp(text, "THAWED", 6) != 0 : strstr(text, "frozen 1") != NULL;
}

const struct cgroup_place *cgroup_cpuset_place(const struct cgroup_places *places)
{
	const struct cgroup_place *second = NULL;

	for (size_t i = 0; i < places->count; i++) {
		const struct cgroup_place *place = &places->items[i];

		if (cgroup_has_controller(place->hierarchy, "cpuset", 6))
			return place;
		if (!*place->hierarchy)
			second = place;
	}
	return second;
}

/* In version 2, a cgroup without the controller uses the CPUs of its nearest ancestor that has it. */
bool cgroup_read_cpus(int root, const char *hierarchy, const char *path, struct cpus *cpus)
{
	const char *name = *hierarchy ? "cpuset.effective_cpus" : "cpuset.cpus.effective";
	autofree char *group = copy_text(path), *text = NULL;

	if (!cgroup_path_is_sound(path))
		return false;
	for (;;) {
		autoclose int fd = cgroup_open_file(root, group, name, O_RDONLY);
		char *last = strrchr(group, '/');

		if (fd >= 0)
			return read_text_from(fd, &text) >= 0 && cpus_parse(text, cpus);
		if (fd != -ENOENT || *hierarchy || !last)
			return false;
		*last = '\0';
	}
}
