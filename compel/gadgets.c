/*
 * gadgets.c - finds pieces of a task's own code that bring a thread in and home without overwriting an instruction.
 *
 * The pieces can be anywhere in executable mappings (they need not be real instructions):
 *
 *	0f 05 c3                           syscall; ret
 *	58 c3                              pop %rax; ret
 *	[48 c7 c0 | b8] 0f 00 00 00 0f 05  mov $15,%eax; syscall: rt_sigreturn
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

#define CHUNK	(128UL * 1024)
#define LONGEST 16 /* two chunks overlap by as much as the longest piece */

static const unsigned char code_of_syscall_return[] = { 0x0f, 0x05, 0xc3 };
static const unsigned char code_of_pop_return[] = { 0x58, 0xc3 };
static const unsigned char code_of_sigreturn[] = { 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05 };
static const unsigned char code_of_sigreturn_long[] = { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 };

/* The bytes that overwrite borrowed code: all three pieces, 12 bytes. */
static const unsigned char loan[] = { 0x0f, 0x05, 0xc3, 0x58, 0xc3, 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05 };

#define GLANCE \
	((uint64_t)4 << 20) /* of each mapping at first: libc has all pieces in its first half megabyte */

/* The pieces found in a mapping, as offset + 1; 0: not found. */
struct findings {
	unsigned device;
	uint64_t inode, offset, size; /* of the mapping; the key */
	uint64_t looked_at;	      /* searched up to here */
	uint64_t syscall_return, pop_return, sigreturn;
};

/* Kept for the whole run: for a tree of a hundred tasks, libc is searched once. */
static struct {
	struct findings *items;
	size_t count;
} known;

static void look_for_piece(const char *chunk, size_t size, const unsigned char *piece, size_t length,
			   uint64_t at, uint64_t *found)
{
	const char *hit = *found ? NULL : memmem(chunk, size, piece, length);

	if (hit)
		*found = at + (hit - chunk) + 1;
}

static void search(struct findings *found, pid_t pid, const struct map *map, uint64_t limit)
{
	autofree char *chunk = malloc(CHUNK);
	uint64_t end = min(map->end - map->start, limit);

	while (chunk && found->looked_at < end && !(found->syscall_return && found->pop_return)) {
		struct iovec here = { chunk, min(CHUNK, end - found->looked_at) };
		struct iovec there = { (void *)(map->start + found->looked_at), here.iov_len };
		ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);

		if (got < LONGEST) {
			found->looked_at = end;
			return;
		}
		look_for_piece(chunk, got, code_of_syscall_return, sizeof(code_of_syscall_return),
			       found->looked_at, &found->syscall_return);
		look_for_piece(chunk, got, code_of_pop_return, sizeof(code_of_pop_return), found->looked_at,
			       &found->pop_return);
		look_for_piece(chunk, got, code_of_sigreturn, sizeof(code_of_sigreturn), found->looked_at,
			       &found->sigreturn);
		look_for_piece(chunk, got, code_of_sigreturn_long, sizeof(code_of_sigreturn_long),
			       found->looked_at, &found->sigreturn);
		found->looked_at += (size_t)got < CHUNK ? (size_t)got : CHUNK - LONGEST;
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
	*found = (struct findings){ map->device, map->inode, map->offset, map->end - map->start, 0, 0, 0, 0 };
	return found;
}

static bool is_piece_there(pid_t pid, uint64_t address, const unsigned char *piece, size_t length)
{
	unsigned char bytes[LONGEST];
	struct iovec here = { bytes, length }, there = { (void *)address, length };

	return process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)length &&
	       !memcmp(bytes, piece, length);
}

/* Takes the missing pieces, if they really are in this victim. */
static void take_findings(struct gadgets *gadgets, pid_t pid, uint64_t start, const struct findings *found)
{
	uint64_t address = start + found->syscall_return - 1;

	if (!gadgets->syscall_return && found->syscall_return &&
	    is_piece_there(pid, address, code_of_syscall_return, sizeof(code_of_syscall_return)))
		gadgets->syscall_return = address;
	address = start + found->pop_return - 1;
	if (!gadgets->pop_return && found->pop_return &&
	    is_piece_there(pid, address, code_of_pop_return, sizeof(code_of_pop_return)))
		gadgets->pop_return = address;
	address = start + found->sigreturn - 1;
	if (!gadgets->sigreturn && found->sigreturn &&
	    (is_piece_there(pid, address, code_of_sigreturn, sizeof(code_of_sigreturn)) ||
	     is_piece_there(pid, address, code_of_sigreturn_long, sizeof(code_of_sigreturn_long))))
		gadgets->sigreturn = address;
}

static bool is_enough(const struct gadgets *gadgets)
{
	return gadgets->syscall_return && (gadgets->sigreturn || gadgets->pop_return);
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
		log_info("process %d has no `syscall; ret`: some of its code is overwritten temporarily",
			 pid);
		return 0;
	}
	return fail(ENOEXEC, "process %d has no code that could be used for a system call", pid);
}

void victim_look_ahead(pid_t pid)
{
	struct maps maps = {};
	struct gadgets gadgets;

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
		return fail(errno, "cannot write to the memory of process %d", pid);
	return 0;
}

int gadgets_lend(struct gadgets *gadgets, pid_t pid)
{
	struct iovec here = { gadgets->saved, sizeof(loan) },
		     there = { (void *)gadgets->borrowed, sizeof(loan) };
	int result;

	/* If the code was not given back, `saved` still has the original and must not be overwritten. */
	if (!gadgets->borrowed || gadgets->syscall_return)
		return 0;
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) != sizeof(loan))
		return fail(errno, "cannot read the code of process %d", pid);
	result = force_write(pid, gadgets->borrowed, loan, sizeof(loan));
	if (result < 0)
		return result;
	gadgets->syscall_return = gadgets->borrowed;
	gadgets->pop_return = gadgets->borrowed + 3;
	gadgets->sigreturn = gadgets->borrowed + 5;
	return 0;
}

int gadgets_give_back(struct gadgets *gadgets, pid_t pid)
{
	int result;

	if (!gadgets->borrowed || !gadgets->syscall_return)
		return 0;
	result = force_write(pid, gadgets->borrowed, gadgets->saved, sizeof(loan));
	if (result)
		return fail_in(result, "cannot restore the code that was overwritten");
	gadgets->syscall_return = gadgets->pop_return = gadgets->sigreturn = 0;
	return 0;
}
