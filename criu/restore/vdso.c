/*
 * vdso.c - the kernel's part of a task's address space: [vvar], [vdso] and the like.
 *
 * Libraries keep pointers into the vdso, so it has to be at its old address, with the old code. If this kernel's vdso
 * is the same, it is moved there. If not (another kernel, or another build), the saved pages are mapped there as
 * ordinary memory, and the entry of each of their functions is overwritten with a jump to this kernel's function of the
 * same name. This kernel's vdso stays where it was parked. The next dump sees the old pages as ordinary memory, so this
 * can be repeated.
 *
 * A thread may have been dumped in the middle of one of the old functions. The data pages that these read ([vvar]) are
 * replaced by pages of zeros: then the old code considers the clock unusable, and makes the system call.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel/proc.h"
#include "restore/space.h"
#include "restore/symbols.h"

/* ---- which is it ---- */

static int find_own_vdso(struct vdso *ours)
{
	autoclose int self = proc_open(getpid());
	struct vmas own = { 0 };
	int result = self < 0 ? fail(-self, "cannot open /proc/self") : proc_read_maps(self, &own);

	*ours = (struct vdso){ 0 };
	for (size_t i = 0; !result && i < own.count; i++) {
		const struct vma *vma = &own.items[i];

		if (strncmp(vma->path, "[vvar", 5) && strcmp(vma->path, "[vdso]"))
			continue;
		if (ours->piece_count == array_size(ours->pieces) ||
		    (ours->start && ours->end != vma->start)) {
			result = fail(0, "the vdso of this kernel is not contiguous");
			break;
		}
		if (!ours->start)
			ours->start = vma->start;
		if (!strcmp(vma->path, "[vdso]"))
			ours->vdso = vma->start;
		ours->pieces[ours->piece_count++] = vma->start;
		ours->end = vma->end;
	}
	vmas_free(&own);
	return result;
}

static void find_theirs(const struct task *task, struct vdso *theirs)
{
	*theirs = (struct vdso){ 0 };
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (!(vma->status & (VMA_VVAR | VMA_VDSO)))
			continue;
		if (!theirs->start)
			theirs->start = vma->start;
		if (vma->status & VMA_VDSO)
			theirs->vdso = vma->start;
		theirs->end = vma->end;
	}
}

/* Is the code that the task's pointers lead into the same as that of this kernel? */
static int compare_vdsos(const struct task *task, const struct vdso *ours, const struct vdso *theirs,
			 bool *are_equal)
{
	uint64_t size = ours->end - ours->vdso;
	autofree char *saved = allocate(size);
	int result;

	*are_equal = ours->vdso && theirs->end - theirs->vdso == size &&
		     theirs->vdso - theirs->start == ours->vdso - ours->start;
	if (!*are_equal)
		return 0;
	result = page_stack_read_range(&task->newborn->memory, theirs->vdso, size / PAGE_SIZE, saved);
	*are_equal = !result && !memcmp(saved, at(ours->vdso), size);
	return result;
}

/* From now on the pages of its code, and pages of zeros for its data, are ordinary memory. */
static void make_ordinary(struct task *task)
{
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		struct vma *vma = &task->space->vmas.items[i];

		if (!(vma->status & (VMA_VVAR | VMA_VDSO)))
			continue;
		if (vma->status & VMA_VDSO)
			task->newborn->old_vdso = vma->start;
		vma->status = VMA_REGULAR | VMA_ANON_PRIVATE;
		vma->flags = MAP_PRIVATE | MAP_ANONYMOUS;
		vma->advice = 0;
		vma->offset = 0;
	}
}

int vdso_look(const struct restore *restore, struct task *task)
{
	struct newborn *newborn = task->newborn;
	bool are_equal = true;
	struct vdso theirs;
	int result = find_own_vdso(&newborn->vdso);

	find_theirs(task, &theirs);
	newborn->vdso_park = restore->refuge_start + restore->regions_size + REFUGE_GAP;
	newborn->vdso_place = theirs.vdso ? theirs.start : 0;
	if (!result && theirs.vdso)
		result = compare_vdsos(task, &newborn->vdso, &theirs, &are_equal);
	if (result || are_equal)
		return result;
	log_info("the vdso of process %d is of another kernel: its functions will jump to this kernel's",
		 task->pid);
	make_ordinary(task);
	newborn->vdso_place = newborn->vdso_park;
	return 0;
}

/* ---- the jumps ---- */

static const struct vma *find_old(const struct task *task)
{
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (task->space->vmas.items[i].start == task->newborn->old_vdso)
			return &task->space->vmas.items[i];
	return NULL;
}

/* A thread that was dumped where the jump will be would continue in the middle of an instruction. */
static int check_threads(const struct task *task, const struct symbol *symbol, size_t size)
{
	uint64_t entry = task->newborn->old_vdso + symbol->offset;

	for (size_t i = 0; i < task->thread_count; i++) {
		uint64_t goes_on = arch_instruction(task->cores[i]);

		if (goes_on > entry && goes_on < entry + size)
			return fail(
				0,
				"thread %d was dumped while it entered %s, which is elsewhere in this kernel's vdso",
				task->threads[i].tid, symbol->name);
	}
	return 0;
}

static const struct {
	const char *name;
	long number;
} plain_calls[] = {
	{ "clock_gettime", SYS_clock_gettime },
	{ "clock_getres", SYS_clock_getres },
	{ "gettimeofday", SYS_gettimeofday },
	{ "getcpu", SYS_getcpu },
#ifdef SYS_time
	{ "time", SYS_time },
#endif
};

/* The code for the function `name` ("clock_gettime"); target 0: this kernel does not have it. */
static size_t replace_function(unsigned char code[ARCH_VDSO_CODE], const char *name, uint64_t target)
{
	/* The program owns the state that getrandom works on, in the layout of the other kernel's code. */
	if (!strcmp(name, "getrandom"))
		return arch_vdso_getrandom(code);
	if (target)
		return arch_vdso_jump(code, target);
	for (size_t i = 0; i < array_size(plain_calls); i++)
		if (!strcmp(name, plain_calls[i].name))
			return arch_vdso_call(code, plain_calls[i].number);
	return arch_vdso_refuse(code);
}

static int redirect(const struct task *task, const struct vma *old, const struct symbols *theirs,
		    const struct symbols *ours)
{
	const struct vdso *vdso = &task->newborn->vdso;
	uint64_t moved_by = task->newborn->vdso_park - vdso->start;

	for (size_t i = 0; i < theirs->count; i++) {
		const struct symbol *symbol = &theirs->items[i], *ours_too = symbols_find(ours, symbol->name);
		uint64_t target = ours_too ? vdso->vdso + moved_by + ours_too->offset : 0;
		unsigned char code[ARCH_VDSO_CODE];
		size_t size = replace_function(code, symbol_base_name(symbol->name), target);
		int result = check_threads(task, symbol, size);

		if (result)
			return result;
		if (symbol->offset + size > vma_length(old))
			return fail(EINVAL, "the saved vdso is cut off in %s", symbol->name);
		memcpy(at(old->place + symbol->offset), code, size);
	}
	log_debug("%zu functions of the old vdso jump to %zu functions", theirs->count, ours->count);
	return 0;
}

int vdso_redirect(const struct task *task)
{
	const struct vdso *vdso = &task->newborn->vdso;
	const struct vma *old = task->newborn->old_vdso ? find_old(task) : NULL;
	struct symbols theirs = { 0 }, ours = { 0 };
	autofree char *copy = NULL;
	int result;

	if (!old)
		return 0;
	if (mprotect(at(old->place), vma_length(old), PROT_READ | PROT_WRITE) < 0)
		return fail(errno, "cannot write to the saved vdso");
	/* Jumps must not overwrite the names that symbols point to. */
	copy = copy_bytes(at(old->place), vma_length(old));
	result = symbols_read(copy, vma_length(old), &theirs);
	if (!result && vdso->vdso)
		result = symbols_read(at(vdso->vdso), vdso->end - vdso->vdso, &ours);
	result = result ?: redirect(task, old, &theirs, &ours);
	free(theirs.items);
	free(ours.items);
	if (!result && mprotect(at(old->place), vma_length(old), old->protection) < 0)
		return fail(errno, "cannot protect the saved vdso");
	return result;
}

/* ---- the calls ---- */

/* Each part is a mapping of its own, and mremap() takes one at a time. */
static void plan_vdso_move(const struct vdso *vdso, uint64_t from, uint64_t to, struct call_list *calls)
{
	for (size_t i = 0; i < vdso->piece_count; i++) {
		uint64_t start = vdso->pieces[i] - vdso->start;
		uint64_t size = (i + 1 < vdso->piece_count ? vdso->pieces[i + 1] : vdso->end) -
				vdso->pieces[i];

		add_call(calls, "move the vdso", SYS_mremap, from + start, size, size,
			 MREMAP_MAYMOVE | MREMAP_FIXED, to + start);
	}
}

void vdso_plan_parking(const struct task *task, struct call_list *calls)
{
	if (task->newborn->vdso_place)
		plan_vdso_move(&task->newborn->vdso, task->newborn->vdso.start, task->newborn->vdso_park,
			       calls);
}

void vdso_plan_return(const struct task *task, struct call_list *calls)
{
	if (task->newborn->vdso_place && task->newborn->vdso_place != task->newborn->vdso_park)
		plan_vdso_move(&task->newborn->vdso, task->newborn->vdso_park, task->newborn->vdso_place,
			       calls);
}
