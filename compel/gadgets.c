/*
 * gadgets.c - finds pieces of a task's own code that bring a thread in and home without overwriting an instruction.
 *
 * Two are needed: a system call that returns, and a way to make rt_sigreturn. The architecture has the bytes
 * (arch.h). They can be anywhere in executable mappings, and need not be real instructions.
 *
 * The processes of a tree map the same libraries, so what was found in a file is remembered by device, inode and
 * offset. It is checked in each victim before it is used, so an outdated entry costs a search, not a crash. If a task
 * has no such code, some bytes of its own code are borrowed temporarily (gadgets_lend()).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "internal.h"

#define CHUNK (128UL * 1024) /* two of them overlap by as much as the longest piece */

#define GLANCE \
	((uint64_t)4 << 20) /* of each mapping at first: libc has all pieces in its first half megabyte */

/* The pieces found in a mapping, as offset + 1; 0: not found. */
struct findings {
	unsigned device;
	uint64_t inode, offset, size; /* of the mapping; the key */
	uint64_t looked_at;	      /* searched up to here */
	uint64_t at[GADGET_COUNT];
};

/* Kept for the whole run: for a tree of a hundred tasks, libc is searched once. */
static struct {
	struct findings *items;
	size_t count;
} known;

static void look_for_code(const char *chunk, size_t size, const struct gadget_code *code,
			  struct findings *found)
{
	uint64_t *at = &found->at[code->gadget];
	const char *hit = *at ? NULL : memmem(chunk, size, code->bytes, code->size);

	if (hit)
		*at = found->looked_at + (hit - chunk) + 1;
}

static bool has_all(const struct findings *found)
{
	for (size_t gadget = 0; gadget < GADGET_COUNT; gadget++)
		if (arch_gadgets_wanted >> gadget & 1 && !found->at[gadget])
			return false;
	return true;
}

static void search(struct findings *found, pid_t pid, const struct map *map, uint64_t limit)
{
	autofree char *chunk = malloc(CHUNK);
	uint64_t end = min(map->end - map->start, limit);

	while (chunk && found->looked_at < end && !has_all(found)) {
		struct iovec here = { chunk, min(CHUNK, end - found->looked_at) };
		struct iovec there = { (void *)(map->start + found->looked_at), here.iov_len };
		ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);

		if (got < GADGET_SIZE) {
			found->looked_at = end;
			return;
		}
		for (size_t i = 0; i < arch_gadget_code_count; i++)
			look_for_code(chunk, got, &arch_gadget_codes[i], found);
		found->looked_at += (size_t)got < CHUNK ? (size_t)got : CHUNK - GADGET_SIZE;
	}
}

static struct findings *remember(const struct map *map)
{
	struct findings *found;

	for (size_t index = 0; index < known.count; index++) {
		found = &known.items[index];
		if (found->device == map->device && found->inode == map->inode &&
		    found->offset == map->offset && found->size == map->end - map->start)
			return found;
	}
	found = grow(&known.items, &known.count);
	*found = (struct findings){ map->device, map->inode, map->offset, map->end - map->start, 0, {} };
	return found;
}

static bool is_code_there(pid_t pid, uint64_t address, const struct gadget_code *code)
{
	unsigned char bytes[GADGET_SIZE];
	struct iovec here = { bytes, code->size }, there = { (void *)address, code->size };

	return process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)code->size &&
	       !memcmp(bytes, code->bytes, code->size);
}

static bool is_gadget_there(pid_t pid, uint64_t address, enum gadget gadget)
{
	for (size_t i = 0; i < arch_gadget_code_count; i++)
		if (arch_gadget_codes[i].gadget == gadget &&
		    is_code_there(pid, address, &arch_gadget_codes[i]))
			return true;
	return false;
}

/* Takes the missing pieces, if they really are in this victim. */
static void take_findings(struct gadgets *gadgets, pid_t pid, uint64_t start, const struct findings *found)
{
	for (size_t gadget = 0; gadget < GADGET_COUNT; gadget++) {
		uint64_t address = start + found->at[gadget] - 1;

		if (!gadgets->at[gadget] && found->at[gadget] && is_gadget_there(pid, address, gadget))
			gadgets->at[gadget] = address;
	}
}

static bool is_enough(const struct gadgets *gadgets)
{
	return gadgets->at[GADGET_SYSCALL_RETURN] &&
	       (gadgets->at[GADGET_SIGRETURN] || gadgets->at[GADGET_POP_RETURN]);
}

static void search_mapping(struct gadgets *gadgets, pid_t pid, const struct maps *maps, uint64_t limit,
			   bool in_files)
{
	for (size_t index = 0; index < maps->count && !is_enough(gadgets); index++) {
		const struct map *map = &maps->maps[index];
		struct findings private = {}, *found;

		if (!map->executable || !map->readable || map->is_special || in_files != (map->inode != 0))
			continue;
		found = in_files ? remember(map) : &private;
		search(found, pid, map, limit);
		take_findings(gadgets, pid, map->start, found);
	}
}

/* Code of a program or library if there is one, otherwise of any executable mapping. */
static uint64_t choose_loan(const struct maps *maps)
{
	uint64_t address = 0;

	for (size_t index = 0; index < maps->count; index++) {
		const struct map *map = &maps->maps[index];

		if (map->executable && map->is_private && !map->is_special && (map->inode || !address)) {
			address = map->start + 64;
			if (map->inode)
				break;
		}
	}
	return address;
}

int gadgets_find(struct gadgets *gadgets, pid_t pid, const struct maps *maps)
{
	*gadgets = (struct gadgets){};
	search_mapping(gadgets, pid, maps, GLANCE, true);
	if (!is_enough(gadgets))
		search_mapping(gadgets, pid, maps, UINT64_MAX, true);
	if (!is_enough(gadgets)) /* the vdso; code that was generated at run time */
		search_mapping(gadgets, pid, maps, GLANCE, false);
	if (is_enough(gadgets))
		return 0;
	gadgets->borrowed = choose_loan(maps);
	if (gadgets->borrowed) {
		*gadgets = (struct gadgets){ .borrowed = gadgets->borrowed };
		log_info(
			"process %d has no system call that returns: some of its code is overwritten temporarily",
			pid);
		return 0;
	}
	return fail(ENOEXEC, "it has no code that could be used for a system call");
}

void victim_look_ahead(pid_t pid)
{
	struct maps maps = {};
	struct gadgets gadgets;

	arch_look_ahead();
	if (!attempted(maps_read(&maps, pid)))
		attempted(gadgets_find(&gadgets, pid, &maps));
	maps_free(&maps);
}

int force_write(pid_t pid, uint64_t address, const void *bytes, size_t size)
{
	char path[64];
	autoclose int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || pwrite(fd, bytes, size, (off_t)address) != (ssize_t)size)
		return fail(errno, "cannot write to its memory");
	return 0;
}

int gadgets_lend(struct gadgets *gadgets, pid_t pid)
{
	const struct gadget_loan *loan = &arch_gadget_loan;
	struct iovec here = { gadgets->saved, loan->size }, there = { (void *)gadgets->borrowed, loan->size };
	int result;

	/* If the code was not given back, `saved` still has the original and must not be overwritten. */
	if (!gadgets->borrowed || gadgets->at[GADGET_SYSCALL_RETURN])
		return 0;
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)loan->size)
		return fail(errno, "cannot read its code");
	result = force_write(pid, gadgets->borrowed, loan->bytes, loan->size);
	if (result < 0)
		return result;
	for (size_t gadget = 0; gadget < GADGET_COUNT; gadget++)
		gadgets->at[gadget] = gadgets->borrowed + loan->offsets[gadget];
	return 0;
}

int gadgets_give_back(struct gadgets *gadgets, pid_t pid)
{
	int result;

	if (!gadgets->borrowed || !gadgets->at[GADGET_SYSCALL_RETURN])
		return 0;
	result = force_write(pid, gadgets->borrowed, gadgets->saved, arch_gadget_loan.size);
	if (result)
		return fail_in(result, "cannot restore the code that was overwritten");
	memset(gadgets->at, 0, sizeof(gadgets->at));
	return 0;
}
