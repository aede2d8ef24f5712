/* areas.c - /proc/PID/maps, parsed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "areas.h"

static char text[128 << 10];

static uint64_t number(const char **at, unsigned int base)
{
	uint64_t value = 0;

	for (;; (*at)++) {
		unsigned int digit = **at >= 'a' ? **at - 'a' + 10 : **at - '0';

		if (digit >= base)
			return value;
		value = value * base + digit;
	}
}

/* "7f00-7f01 rw-p 00000000 00:01 1234      /path" */
static void parse(const char *line, const char *end, struct area *area)
{
	size_t length;

	area->start = number(&line, 16);
	line++;
	area->end = number(&line, 16);
	area->protection = (line[1] == 'r' ? PROT_READ : 0) | (line[2] == 'w' ? PROT_WRITE : 0) |
			   (line[3] == 'x' ? PROT_EXEC : 0);
	area->is_shared = line[4] == 's';
	line += 6;
	area->offset = number(&line, 16);
	line += 1 + strcspn(line + 1, " ") + 1; /* the device */
	area->inode = number(&line, 10);
	while (line < end && *line == ' ')
		line++;
	length = end - line;
	if (length >= sizeof(area->path))
		length = sizeof(area->path) - 1;
	memcpy(area->path, line, length);
	area->path[length] = '\0';
}

static ssize_t read_text(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = 0, got;

	if (fd < 0)
		return -errno;
	while ((got = read(fd, text + length, sizeof(text) - 1 - length)) > 0)
		length += got;
	if (got < 0)
		length = -errno;
	else
		text[length] = '\0';
	close(fd);
	return length;
}

int areas_read(int pid, struct areas *areas)
{
	char path[40] = "/proc/self/maps";
	ssize_t length;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	length = read_text(path);
	areas->count = 0;
	if (length < 0)
		return length;
	for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
		if (areas->count == AREAS_MAX)
			return -E2BIG;
		parse(line, end, &areas->items[areas->count++]);
	}
	return 0;
}

static bool belong_together(const struct area *left, const struct area *right)
{
	bool has_offset = right->inode;

	return left->end == right->start && left->protection == right->protection &&
	       left->is_shared == right->is_shared && left->inode == right->inode &&
	       (!has_offset || left->offset + (left->end - left->start) == right->offset);
}

void areas_join(struct areas *areas)
{
	size_t count = 0;

	for (size_t i = 0; i < areas->count; i++) {
		if (count && belong_together(&areas->items[count - 1], &areas->items[i]))
			areas->items[count - 1].end = areas->items[i].end;
		else
			areas->items[count++] = areas->items[i];
	}
	areas->count = count;
}

const struct area *areas_find(const struct areas *areas, uint64_t address)
{
	for (size_t i = 0; i < areas->count; i++)
		if (address < areas->items[i].end)
			return address >= areas->items[i].start ? &areas->items[i] : NULL;
	return NULL;
}
