/*
 * capture.c - reads the mappings and every byte of every task of a script, from outside, into memory or a file.
 *
 * A page that is not present reads as zeros, or as the content of the file. To read it through the task would create
 * it. A gentle capture asks the pagemap first, so that a dump also meets memory that was never read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "driver.h"

#define PRESENT_OR_SWAPPED (3UL << 62)
#define CHUNK		   512UL /* pages at a time */

/* The mapping that is being read. */
struct reading {
	struct captured_task *task;
	int memory, pagemap, file; /* `file`: the mapped file, or -1 */
	const struct area *area;
};

static const uint8_t zeros[PAGE];

static struct page *add_page(struct captured_task *task, uint64_t address, enum page_kind kind)
{
	if (!(task->page_count & (task->page_count - 1))) {
		task->pages = realloc(task->pages,
				      (task->page_count ? 2 * task->page_count : 1) * sizeof(*task->pages));
		if (!task->pages)
			abort();
	}
	task->pages[task->page_count] = (struct page){ .address = address, .kind = kind };
	return &task->pages[task->page_count++];
}

static void add_data(struct captured_task *task, uint64_t address, const void *data)
{
	if (!memcmp(data, zeros, PAGE))
		return;
	if (!(task->byte_count & (task->byte_count - 1))) {
		task->bytes = realloc(task->bytes, (task->byte_count ? 2 * task->byte_count : 1) * PAGE);
		if (!task->bytes)
			abort();
	}
	add_page(task, address, PAGE_DATA)->bytes = task->byte_count;
	memcpy(task->bytes[task->byte_count++], data, PAGE);
}

static void add_from(struct reading *reading, int fd, uint64_t address, uint64_t offset)
{
	uint8_t data[PAGE];

	if (pread(fd, data, PAGE, offset) == (ssize_t)PAGE)
		add_data(reading->task, address, data);
	else
		add_page(reading->task, address, PAGE_UNREADABLE);
}

static void read_pages(struct reading *reading, uint64_t start, uint64_t count)
{
	static uint8_t data[CHUNK][PAGE];
	bool is_whole = pread(reading->memory, data, count * PAGE, start) == (ssize_t)(count * PAGE);

	for (uint64_t i = 0; i < count; i++) {
		if (is_whole)
			add_data(reading->task, start + i * PAGE, data[i]);
		else
			add_from(reading, reading->memory, start + i * PAGE, start + i * PAGE);
	}
}

static void read_pages_gently(struct reading *reading, uint64_t start, uint64_t count)
{
	const struct area *area = reading->area;
	uint64_t entries[CHUNK];

	if (pread(reading->pagemap, entries, count * 8, start / PAGE * 8) != (ssize_t)(count * 8))
		return read_pages(reading, start, count);
	for (uint64_t i = 0, length; i < count; i += length) {
		uint64_t address = start + i * PAGE;

		length = 1;
		if (entries[i] & PRESENT_OR_SWAPPED) {
			while (i + length < count && entries[i + length] & PRESENT_OR_SWAPPED)
				length++;
			read_pages(reading, address, length);
		} else if (reading->file >= 0) {
			add_from(reading, reading->file, address, address - area->start + area->offset);
		}
	}
}

/* Mappings of the kernel, the board, and code, which cannot be written. */
static bool is_left_out(const struct run *run, const struct area *area)
{
	return !strncmp(area->path, "[v", 2) || !strcmp(area->path, run->board_path) ||
	       (!strcmp(area->path, run->script) && !(area->protection & 2));
}

static int open_behind(int pid, const struct area *area)
{
	char path[80];

	if (!area->inode)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid, area->start, area->end);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void read_area(struct reading *reading, bool gently)
{
	const struct area *area = reading->area;

	reading->file = open_behind(reading->task->pid, area);
	gently = gently || area->end - area->start > 2 * MIB;
	for (uint64_t start = area->start; start < area->end; start += CHUNK * PAGE) {
		uint64_t count = (area->end - start) / PAGE;

		(gently ? read_pages_gently : read_pages)(reading, start, count < CHUNK ? count : CHUNK);
	}
	if (reading->file >= 0)
		close(reading->file);
}

static int open_of(struct run *run, int pid, const char *name)
{
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		failed(run, "%s: %s", path, strerror(errno));
	return fd;
}

static void read_state(struct run *run, struct captured_task *task, int memory)
{
	struct state state;

	if (pread(memory, &state, sizeof(state), STATE) != sizeof(state))
		failed(run, "process %d has lost its state: %s", task->pid, strerror(errno));
	task->heap_start = state.heap_start;
	memcpy(task->is_lazy, state.is_lazy, sizeof(task->is_lazy));
}

static void take_task(struct run *run, struct captured_task *task, bool gently)
{
	struct reading reading = { .task = task };
	int result = areas_read(task->pid, &task->areas);

	if (result)
		failed(run, "mappings of process %d: %s", task->pid, strerror(-result));
	tree_look(run, task->pid, &task->quiet);
	reading.memory = open_of(run, task->pid, "mem");
	reading.pagemap = open_of(run, task->pid, "pagemap");
	read_state(run, task, reading.memory);
	for (size_t i = 0; i < task->areas.count; i++) {
		reading.area = &task->areas.items[i];
		if (!is_left_out(run, reading.area))
			read_area(&reading, gently);
	}
	areas_join(&task->areas);
	close(reading.memory);
	close(reading.pagemap);
}

void capture_take(struct run *run, struct capture *capture, bool gently)
{
	capture->count = 0;
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct captured_task *task = &capture->tasks[capture->count];

		if (run->board->slots[i].state != SLOT_LIVE)
			continue;
		memset(task, 0, sizeof(*task));
		task->slot = i;
		task->pid = run->board->slots[i].pid;
		capture->count++;
		take_task(run, task, gently);
	}
}

void capture_write(struct run *run, const struct capture *capture, const char *path)
{
	FILE *file = fopen(path, "we");

	if (!file)
		failed(run, "%s: %s", path, strerror(errno));
	fwrite(capture, sizeof(*capture), 1, file);
	for (size_t i = 0; i < capture->count; i++) {
		fwrite(capture->tasks[i].pages, sizeof(struct page), capture->tasks[i].page_count, file);
		fwrite(capture->tasks[i].bytes, PAGE, capture->tasks[i].byte_count, file);
	}
	if (fclose(file))
		failed(run, "%s: %s", path, strerror(errno));
}

void capture_read(struct run *run, struct capture *capture, const char *path)
{
	FILE *file = fopen(path, "re");
	bool is_whole = file && fread(capture, sizeof(*capture), 1, file) == 1;

	for (size_t i = 0; is_whole && i < capture->count; i++) {
		struct captured_task *task = &capture->tasks[i];

		task->pages = calloc(task->page_count + 1, sizeof(struct page));
		task->bytes = calloc(task->byte_count + 1, PAGE);
		is_whole = fread(task->pages, sizeof(struct page), task->page_count, file) ==
				   task->page_count &&
			   fread(task->bytes, PAGE, task->byte_count, file) == task->byte_count;
	}
	if (!is_whole)
		failed(run, "%s: cannot be read", path);
	fclose(file);
}

void capture_free(struct capture *capture)
{
	for (size_t i = 0; i < capture->count; i++) {
		free(capture->tasks[i].pages);
		free(capture->tasks[i].bytes);
	}
	capture->count = 0;
}
