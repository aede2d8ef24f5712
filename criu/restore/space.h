/*
 * space.h - the parts that create a task's memory; space.c uses all of them, in the newborn, in this order.
 */
#ifndef CRIU_RESTORE_SPACE_H
#define CRIU_RESTORE_SPACE_H

#include "compiler.h"
#include "memory/saving.h"
#include "restore/restore.h"

static inline void *at(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

static inline bool is_kernels(const struct vma *vma)
{
	enum vma_maker maker = vma_how_saved(vma)->maker;

	return maker == MADE_BY_KERNEL || maker == ALWAYS_THERE;
}

static inline bool is_mapped_by_us(const struct vma *vma)
{
	return vma_how_saved(vma)->maker == MADE_BY_RESTORE;
}

/*
 * vdso.c. Checks whether the task's vdso is this kernel's. If not, it becomes ordinary memory in task->space->vmas,
 * and when that is filled, vdso_redirect() makes its functions jump to this kernel's.
 */
int vdso_look(const struct restore *restore, struct task *task) must_check;
int vdso_redirect(const struct task *task) must_check;
/* Move this kernel's vdso to its place while criu is unmapped, and from there to its final place. */
void vdso_plan_parking(const struct task *task, struct call_list *calls);
void vdso_plan_return(const struct task *task, struct call_list *calls);

/*
 * protection.c. Can its protection keys and seals be restored here? With which protection is a mapping created, before
 * it gets both?
 */
int protection_check(const struct task *task) must_check;
int protection_while_made(const struct vma *vma) must_check;
void protection_plan(const struct task *task, struct call_list *calls);

/* inherit.c. Keeps the parent's mappings that the task continues, unmaps the rest; marks them in task->space->vmas. */
int space_inherit(struct task *task) must_check;
/* Can pages of `theirs`, the parent's, become pages of `ours`, at the same address? */
bool space_is_continued(const struct vma *theirs, const struct vma *ours);

/* steer.c. Maps a file at the address of the mapping, if only the kernel chooses addresses for such a file. */
int space_steer(const struct vma *vma, int protection, int fd) must_check;

/*
 * rings.c. Can the AIO rings of all tasks be created here? And creates those of one task, where memory of their length
 * has been mapped for them.
 */
int rings_check(const struct snapshot *snapshot) must_check;
int rings_make(const struct task *task) must_check;

/* fill.c. Of a mapping, at the place where it is now. */
int space_protect(const struct vma *vma, int protection) must_check;
/* Puts the pages of the images into private memory; adds their number to *pages. */
int space_fill(const struct restore *restore, const struct task *task, uint64_t *pages) must_check;
/* Drops inherited pages. */
int space_drop(const struct vma *vma, uint64_t start, uint64_t end) must_check;
/*
 * fill_new.c. Fills the mappings that are not inherited; before that, gives huge pages to those that had transparent
 * ones.
 */
int space_fill_new(const struct restore *restore, const struct task *task) must_check;
int space_make_huge(const struct restore *restore, const struct task *task) must_check;

/* huge.c. Provides huge pages for private memory, before anything is read into it; inherited pages are right then. */
int space_fill_huge(const struct page_stack *stack, const struct vma *vma) must_check;

#endif
