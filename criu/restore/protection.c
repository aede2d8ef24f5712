/*
 * protection.c - protection of memory beyond read, write and execute: protection keys (pkeys(7)) and seals (mseal(2),
 * Linux 6.10). The restorer sets both, when all mappings are at their places and filled, and while the process has only
 * one thread.
 *
 * A process always gets the lowest free key. So all keys up to the highest needed one are allocated in order, and those
 * that are not the task's are freed again. They are allocated without restrictions: threads inherit these rights, so
 * the kernel may write to registered memory (rseq) that has a key, before a thread gets its own rights with its
 * registers.
 *
 * The kernel itself gives a key to execute-only memory, as soon as there is such memory: the lowest free one, and
 * fork() passes it on. A child could not get rid of it. So newborns may also read such memory, until no more processes
 * are created.
 *
 * A seal is permanent: no later call may change the mapping.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel_constants.h"
#include "restore/space.h"

static bool is_execute_only(const struct vma *vma)
{
	return vma->protection == PROT_EXEC;
}

int protection_while_made(const struct vma *vma)
{
	return is_execute_only(vma) ? PROT_READ | PROT_EXEC : (int)vma->protection;
}

static bool is_allocated(const struct task *task, uint32_t key)
{
	return task->space->mm->keys >> key & 1;
}

/* The key of execute-only memory: the kernel's choice, not the task's. */
static bool has_kernels_key(const struct task *task, const struct vma *vma)
{
	return is_execute_only(vma) && vma->key && !is_allocated(task, vma->key);
}

static uint32_t highest_key(const struct task *task)
{
	uint32_t highest = task->space->mm->keys ? 31 - (uint32_t)__builtin_clz(task->space->mm->keys) : 0;

	for (size_t i = 0; i < task->space->vmas.count; i++)
		highest = max(highest, task->space->vmas.items[i].key);
	return highest;
}

/* ---- before any task exists ---- */

/* The number of keys of this machine: the same for every process. */
static uint32_t count_keys(void)
{
	uint32_t had = 0, count = 0;
	int key;

	while ((key = syscall(SYS_pkey_alloc, 0, 0)) > 0 && key < 32) {
		had |= 1u << key;
		count = max(count, (uint32_t)key);
	}
	for (key = 1; key < 32; key++)
		if (had >> key & 1)
			syscall(SYS_pkey_free, key);
	return count;
}

static bool has_keys_of_its_own(const struct task *task)
{
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (task->space->vmas.items[i].key && !has_kernels_key(task, &task->space->vmas.items[i]))
			return true;
	return task->space->mm->keys;
}

static int check_keys(const struct task *task)
{
	uint32_t highest = highest_key(task), here;

	if (!has_keys_of_its_own(task))
		return 0;
	here = count_keys();
	if (highest > here)
		return fail(0, "its memory has protection key %u, but this machine has %u", highest, here);
	return 0;
}

static int check_seal(const struct vma *vma)
{
	/* Seals nothing: only ENOSYS is of interest. */
	if (!vma->is_sealed || !syscall(CALL_MSEAL, 0, 0, 0) || errno != ENOSYS)
		return 0;
	return fail(0, "the memory at %#" PRIx64 " is sealed, but this kernel has no mseal() (Linux 6.10)",
		    vma->start);
}

int protection_check(const struct task *task)
{
	int result = check_keys(task);

	for (size_t i = 0; !result && i < task->space->vmas.count; i++)
		result = check_seal(&task->space->vmas.items[i]);
	return result;
}

/* ---- the calls ---- */

static void free_key(uint32_t key, struct call_list *calls)
{
	add_call(calls, "free a protection key", SYS_pkey_free, key);
}

/* A process has at most one; 0: none. */
static uint32_t kernels_key(const struct task *task)
{
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (has_kernels_key(task, &task->space->vmas.items[i]))
			return task->space->vmas.items[i].key;
	return 0;
}

static void plan_key(const struct task *task, const struct vma *vma, struct call_list *calls)
{
	if (is_kernels(vma) || vma->status & VMA_GUARD_RANGE)
		return;
	if (is_execute_only(vma) && (!vma->key || has_kernels_key(task, vma)))
		add_call(calls, "have memory only executed", SYS_mprotect, vma->start, vma_length(vma),
			 vma->protection);
	else if (vma->key)
		add_call(calls, "give memory its protection key", SYS_pkey_mprotect, vma->start,
			 vma_length(vma), vma->protection, vma->key);
}

void protection_plan(const struct task *task, struct call_list *calls)
{
	bool has_keys = has_keys_of_its_own(task);
	uint32_t highest = has_keys ? highest_key(task) : 0, kernels = has_keys ? kernels_key(task) : 0;

	for (uint32_t key = 1; key <= highest; key++)
		add_call(calls, "allocate a protection key", SYS_pkey_alloc, 0, 0);
	if (kernels)
		free_key(kernels, calls);
	for (size_t i = 0; i < task->space->vmas.count; i++)
		plan_key(task, &task->space->vmas.items[i], calls);
	for (uint32_t key = 1; key <= highest; key++)
		if (!is_allocated(task, key) && key != kernels)
			free_key(key, calls);
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (task->space->vmas.items[i].is_sealed && !is_kernels(&task->space->vmas.items[i]))
			add_call(calls, "seal memory", CALL_MSEAL, task->space->vmas.items[i].start,
				 vma_length(&task->space->vmas.items[i]), 0);
}
