/* compare.c - compares two captures of the same moment, and describes the first difference. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "driver.h"

/* A signal may arrive at any time: how far its frame reaches below the stack pointer (with AMX, 11 KiB). */
#define BELOW_STACK (16UL << 10)

static const uint8_t zeros[PAGE];

static bool is_of_script(const struct captured_task *task, uint64_t address)
{
	return (address >= ARENA && address < STATE) ||
	       (address >= task->heap_start && address < task->heap_start + MIB);
}

static bool is_lazy(const struct captured_task *task, uint64_t address)
{
	uint64_t index = (address - ARENA) / PAGE;

	return index < ARENA_PAGES && task->is_lazy[index];
}

static bool is_below_stack(const struct captured_task *task, uint64_t address)
{
	for (size_t i = 0; i < task->quiet.count; i++)
		if (address < task->quiet.stacks[i] && address >= task->quiet.stacks[i] - BELOW_STACK)
			return true;
	return false;
}

static void describe_area(char *text, size_t size, const struct area *area)
{
	if (!area) {
		snprintf(text, size, "no mapping");
		return;
	}
	snprintf(text, size, "%lx-%lx %c%c%c%c %s", area->start, area->end,
		 area->protection & PROT_READ ? 'r' : '-', area->protection & PROT_WRITE ? 'w' : '-',
		 area->protection & PROT_EXEC ? 'x' : '-', area->is_shared ? 's' : 'p',
		 area->path[0] ? area->path : "anonymous");
}

/* The last steps of all tasks that worked on this page. */
static void describe_steps(struct run *run, char *text, size_t size, uint64_t start, uint64_t end)
{
	size_t used = 0;
	int found = 0;

	for (uint32_t i = run->board->log_count; i-- && found < 4;) {
		const struct log_entry *entry = &run->board->log[i];

		if (entry->start >= end || entry->end <= start)
			continue;
		used += snprintf(text + used, size - used, "\n  step %u, task %u: %s %lx-%lx", entry->step,
				 entry->slot, entry->operation, entry->start, entry->end);
		found++;
	}
	if (!found)
		snprintf(text, size, "\n  no step has worked on it");
}

static _Noreturn void differ(struct run *run, const struct captured_task *task, uint64_t address,
			     const char *how)
{
	char area[200], steps[1000];

	describe_area(area, sizeof(area), areas_find(&task->areas, address));
	describe_steps(run, steps, sizeof(steps), address & -PAGE, (address & -PAGE) + PAGE);
	failed(run,
	       "task %u (pid %d), address %#lx: %s\n  mapping: %s\n  the last steps that worked on the page:%s",
	       task->slot, task->pid, address, how, area, steps);
}

static void compare_bytes(struct run *run, const struct captured_task *task, uint64_t address,
			  const uint8_t *expected, const uint8_t *found, enum extent extent)
{
	bool may_be_lost = is_lazy(task, address) && (extent == SCRIPT_ONLY || !memcmp(found, zeros, PAGE));
	char how[80];

	if (may_be_lost || !memcmp(expected, found, PAGE))
		return;
	for (uint64_t i = 0; i < PAGE; i++) {
		if (expected[i] == found[i] || is_below_stack(task, address + i))
			continue;
		snprintf(how, sizeof(how), "byte %#04x should be %#04x%s", found[i], expected[i],
			 memcmp(found, zeros, PAGE) ? "" : " (the whole page is zeros)");
		differ(run, task, address + i, how);
	}
}

static const uint8_t *bytes_of(const struct captured_task *task, const struct page *page)
{
	return page && page->kind == PAGE_DATA ? task->bytes[page->bytes] : zeros;
}

static void compare_page(struct run *run, const struct captured_task *expected,
			 const struct captured_task *found, const struct page *left, const struct page *right,
			 enum extent extent)
{
	uint64_t address = left ? left->address : right->address;
	bool should_be_readable = !left || left->kind == PAGE_DATA,
	     is_readable = !right || right->kind == PAGE_DATA;

	if (extent == SCRIPT_ONLY && !is_of_script(expected, address))
		return;
	if (should_be_readable != is_readable)
		differ(run, expected, address,
		       is_readable ? "can be read, but should not" : "cannot be read");
	compare_bytes(run, expected, address, bytes_of(expected, left), bytes_of(found, right), extent);
}

static void compare_pages(struct run *run, const struct captured_task *expected,
			  const struct captured_task *found, enum extent extent)
{
	for (size_t i = 0, j = 0; i < expected->page_count || j < found->page_count;) {
		const struct page *left = i < expected->page_count ? &expected->pages[i] : NULL;
		const struct page *right = j < found->page_count ? &found->pages[j] : NULL;

		if (left && right && left->address != right->address)
			*(left->address < right->address ? &right : &left) = NULL;
		compare_page(run, expected, found, left, right, extent);
		i += left != NULL;
		j += right != NULL;
	}
}

static const struct area *next_area(const struct captured_task *task, size_t *at, enum extent extent)
{
	for (; *at < task->areas.count; (*at)++) {
		const struct area *area = &task->areas.items[*at];

		if (strncmp(area->path, "[v", 2) &&
		    (extent == ALL || (area->start >= ARENA && area->start < STATE)))
			return area;
	}
	return NULL;
}

static bool is_same_area(const struct area *left, const struct area *right)
{
	bool is_of_file = left && left->path[0] == '/' && !left->is_shared;

	if (!left || !right)
		return left == right;
	return left->start == right->start && left->end == right->end &&
	       left->protection == right->protection && left->is_shared == right->is_shared &&
	       (!is_of_file || (left->offset == right->offset && !strcmp(left->path, right->path)));
}

static void compare_areas(struct run *run, const struct captured_task *expected,
			  const struct captured_task *found, enum extent extent)
{
	const struct area *left, *right;
	char should_be[200], is[200], steps[1000];
	uint64_t address;

	for (size_t i = 0, j = 0;; i++, j++) {
		left = next_area(expected, &i, extent);
		right = next_area(found, &j, extent);
		if (!is_same_area(left, right))
			break;
		if (!left)
			return;
	}
	describe_area(should_be, sizeof(should_be), left);
	describe_area(is, sizeof(is), right);
	address = left && (!right || left->start <= right->start) ? left->start : right->start;
	describe_steps(run, steps, sizeof(steps), address, address + PAGE);
	failed(run,
	       "task %u (pid %d): the mapping should be\n  %s\n  and is\n  %s\n  the last steps that worked there:%s",
	       expected->slot, expected->pid, should_be, is, steps);
}

void compare(struct run *run, const struct capture *expected, const struct capture *found, enum extent extent)
{
	if (expected->count != found->count)
		failed(run, "there are %zu tasks, but there should be %zu", found->count, expected->count);
	for (size_t i = 0; i < expected->count; i++) {
		const struct captured_task *left = &expected->tasks[i], *right = &found->tasks[i];

		if (left->slot != right->slot || (extent == ALL && left->pid != right->pid))
			failed(run, "task %u (pid %d) should be task %u (pid %d)", right->slot, right->pid,
			       left->slot, left->pid);
		compare_areas(run, left, right, extent);
		compare_pages(run, left, right, extent);
	}
}
