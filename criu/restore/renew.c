/*
 * renew.c - in a newborn with many ancestors, replaces the mappings of criu's own memory by new ones without ancestors.
 *
 * The kernel keeps a record of every inherited mapping for every ancestor, so creating a process gets slower from
 * generation to generation (inherit.c). So every few generations all memory that criu has written to (the heap, the
 * data of the program and of its libraries, the stack) is copied into new mappings, which are then moved over the old
 * ones.
 *
 * Writes to the old mappings between the first copy and the last move are lost. So this runs on a stack of its own, and
 * does only system calls and copying in between.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/spans.h"
#include "kernel/proc.h"
#include "restore/space.h"

#define GENERATIONS 16
#define OWN_STACK   65536
#define MOST	    (1ULL << 30) /* bytes of one mapping */

/* The sanitizer has terabytes of memory of its own, and checks stacks. */
#ifdef __SANITIZE_ADDRESS__
#define IS_WATCHED true
#else
#define IS_WATCHED false
#endif

struct piece {
	char *place, *fresh;
	size_t size;
	int protection;
};

struct pieces {
	struct piece *items;
	size_t count;
	ucontext_t outside, inside;
};

/* A library also has a part that is written while it is loaded and read-only from then on. It is before its data. */
static bool was_written(const struct vmas *own, size_t index)
{
	const struct vma *vma = &own->items[index], *next = vma + 1;

	if (vma->flags & MAP_SHARED || vma_length(vma) > MOST)
		return false;
	return vma->protection & PROT_WRITE ||
	       (vma->protection == PROT_READ && vma->inode && index + 1 < own->count &&
		next->start == vma->end && next->inode == vma->inode && next->protection & PROT_WRITE);
}

/* Adds the parts of its own memory that the parent has renewed, by address. */
static void add_theirs(struct spans *spans, const struct task *parent)
{
	for (size_t i = 0; i < parent->vmas.count; i++) {
		const struct vma *vma = &parent->vmas.items[i];

		if (is_mapped_by_us(vma))
			spans_add(spans, vma->place, vma->place + vma_length(vma));
	}
	spans_sort(spans);
}

static bool add_own_mapping(struct pieces *pieces, const struct vma *vma, bool grows)
{
	size_t size = vma_length(vma);
	char *fresh = mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | (grows ? MAP_GROWSDOWN : 0), -1, 0);

	if (fresh == MAP_FAILED)
		return false;
	*grow(&pieces->items, &pieces->count) = (struct piece){ (char *)(uintptr_t)vma->start, fresh, size,
								vma->protection };
	return true;
}

static bool find_pieces(struct pieces *pieces, const struct task *parent)
{
	uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
	autoclose int self = proc_open(getpid());
	struct spans theirs = { 0 };
	struct vmas own = { 0 };
	size_t next = 0;
	bool result = self >= 0 && !proc_read_maps(self, &own);

	add_theirs(&theirs, parent);
	for (size_t i = 0; result && i < own.count; i++) {
		const struct vma *vma = &own.items[i];

		while (next < theirs.count && theirs.items[next].end <= vma->start)
			next++;
		if (was_written(&own, i) && (next == theirs.count || theirs.items[next].start >= vma->end))
			result = add_own_mapping(pieces, vma, vma->start <= stack && stack < vma->end);
	}
	spans_free(&theirs);
	vmas_free(&own);
	return result;
}

static void replace(struct pieces *pieces)
{
	for (size_t i = 0; i < pieces->count; i++) {
		struct piece *piece = &pieces->items[i];

		memcpy(piece->fresh, piece->place, piece->size);
		if (piece->protection != (PROT_READ | PROT_WRITE) &&
		    mprotect(piece->fresh, piece->size, piece->protection) < 0)
			_exit(1);
	}
	for (size_t i = 0; i < pieces->count; i++)
		if (mremap(pieces->items[i].fresh, pieces->items[i].size, pieces->items[i].size,
			   MREMAP_MAYMOVE | MREMAP_FIXED, pieces->items[i].place) == MAP_FAILED)
			_exit(1);
}

/* makecontext() passes integers. */
static void replace_all(unsigned high, unsigned low)
{
	replace((struct pieces *)(uintptr_t)((uint64_t)high << 32 | low));
}

static void run_on(struct pieces *pieces, char *stack)
{
	uint64_t argument = (uintptr_t)pieces;

	getcontext(&pieces->inside);
	pieces->inside.uc_stack = (stack_t){ .ss_sp = stack, .ss_size = OWN_STACK };
	pieces->inside.uc_link = &pieces->outside;
	makecontext(&pieces->inside, (void (*)(void))replace_all, 2, (unsigned)(argument >> 32),
		    (unsigned)argument);
	swapcontext(&pieces->outside, &pieces->inside);
}

/* Without memory for the copies, the restore continues with the old mappings. */
static void pieces_drop(struct pieces *pieces)
{
	for (size_t i = 0; i < pieces->count; i++)
		munmap(pieces->items[i].fresh, pieces->items[i].size);
	pieces->count = 0;
}

void space_renew(struct task *task)
{
	const struct newborn *newborn = task->newborn;
	struct pieces *pieces;
	char *stack;

	if (!newborn->generation || newborn->generation % GENERATIONS || IS_WATCHED)
		return;
	/*
	 * Only descendants benefit from it. With few generations below, it is not worth that each task of a wide
	 * generation holds a copy.
	 */
	if (newborn->generations_below < GENERATIONS)
		return;
	pieces = allocate(sizeof(*pieces));
	if (!find_pieces(pieces, task->parent))
		pieces_drop(pieces);
	stack = mmap(NULL, OWN_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack == MAP_FAILED) {
		pieces_drop(pieces);
	} else {
		run_on(pieces, stack);
		munmap(stack, OWN_STACK);
	}
	log_debug("process %d: %zu mappings of criu's own memory were renewed", task->pid, pieces->count);
	free(pieces->items);
	free(pieces);
}
