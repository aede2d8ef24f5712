/*
 * memory_room.c - see memory_room.h. Page cache counts as free: the kernel drops it when it needs memory.
 *
 * Limits of a cgroup are memory.max, and memory.high, above which the kernel slows processes down (cgroup v2); or
 * memory.limit_in_bytes (v1). The limits of all cgroups above it hold, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "kernel/cgroups.h"
#include "kernel/memory_room.h"

/* The files of one version. */
struct limit_files {
	const char *limits[2], *usage, *page_cache[2]; /* page_cache: lines of memory.stat */
};

static const struct limit_files version_1 = {
	.limits = { "memory.limit_in_bytes", NULL },
	.usage = "memory.usage_in_bytes",
	.page_cache = { "total_inactive_file", "total_active_file" },
};
static const struct limit_files version_2 = {
	.limits = { "memory.max", "memory.high" },
	.usage = "memory.current",
	.page_cache = { "inactive_file", "active_file" },
};

static ssize_t read_file(int root, const char *cgroup, const char *name, char **text)
{
	autoclose int fd = cgroup_open_file(root, cgroup, name, O_RDONLY);

	return fd < 0 ? fd : read_text_from(fd, text);
}

/* "max", and a file that is not there, are no limit. */
static uint64_t read_number(int root, const char *cgroup, const char *name)
{
	autofree char *text = NULL;
	char *end;
	uint64_t value;

	if (!name || read_file(root, cgroup, name, &text) < 0)
		return UINT64_MAX;
	value = strtoull(text, &end, 10);
	return end == text ? UINT64_MAX : value;
}

static uint64_t read_page_cache(int root, const char *cgroup, const struct limit_files *files)
{
	autofree char *text = NULL;
	uint64_t sum = 0, value;

	if (read_file(root, cgroup, "memory.stat", &text) < 0)
		return 0;
	for (size_t i = 0; i < array_size(files->page_cache); i++) {
		autofree char *start = format_text("\n%s ", files->page_cache[i]);
		const char *line = strstr(text, start);

		if (line && sscanf(line + strlen(start), "%lu", &value) == 1)
			sum += value;
	}
	return sum;
}

static uint64_t room_of(int root, const char *cgroup, const struct limit_files *files)
{
	uint64_t limit = min(read_number(root, cgroup, files->limits[0]),
			     read_number(root, cgroup, files->limits[1]));
	uint64_t usage = read_number(root, cgroup, files->usage);

	if (limit == UINT64_MAX || usage == UINT64_MAX)
		return UINT64_MAX;
	usage -= min(usage, read_page_cache(root, cgroup, files));
	return limit - min(limit, usage);
}

static uint64_t room_below(const struct cgroup_place *place, const struct limit_files *files)
{
	autoclose int root = attempted(cgroup_open_root(place->hierarchy));
	autofree char *path = copy_text(place->path);
	uint64_t room = UINT64_MAX;

	if (root < 0 || !cgroup_path_is_sound(path))
		return room;
	while (strcmp(path, "/") != 0) {
		char *last = strrchr(path, '/');

		room = min(room, room_of(root, path, files));
		last[last == path] = '\0';
	}
	return room;
}

static uint64_t room_of_cgroups(const char *text)
{
	struct cgroup_places places = { 0 };
	uint64_t room = UINT64_MAX;

	if (attempted(cgroups_parse(text, &places)))
		return room;
	for (size_t i = 0; i < places.count; i++) {
		const struct cgroup_place *place = &places.items[i];

		if (!*place->hierarchy)
			room = min(room, room_below(place, &version_2));
		else if (cgroup_has_controller(place->hierarchy, "memory", strlen("memory")))
			room = min(room, room_below(place, &version_1));
	}
	cgroup_places_free(&places);
	return room;
}

static uint64_t room_of_machine(void)
{
	autofree char *text = NULL;
	uint64_t kib;

	if (read_text_at(-1, "/proc/meminfo", &text) >= 0 && proc_text_number(text, "MemAvailable", 10, &kib))
		return kib << 10;
	return UINT64_MAX;
}

uint64_t memory_room_read(struct memory_room *room, int proc)
{
	autofree char *text = NULL;

	if (read_text_at(proc, "cgroup", &text) < 0)
		text = copy_text("");
	if (room->cgroups && strcmp(room->cgroups, text) == 0)
		return room->bytes;
	room->bytes = min(room_of_machine(), room_of_cgroups(text));
	free(room->cgroups);
	room->cgroups = steal_pointer(&text);
	return room->bytes;
}

void memory_room_free(struct memory_room *room)
{
	free(steal_pointer(&room->cgroups));
}
