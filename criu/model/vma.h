/*
 * vma.h - one mapping of a task's memory, as dump sees it and as restore creates it.
 *
 * The status bits are the image format's (mm_entry.vmas[].status).
 */
#ifndef CRIU_MODEL_VMA_H
#define CRIU_MODEL_VMA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>
#include "compiler.h"
#include "kernel_constants.h"

#define VMA_REGULAR	 (1u << 0)
#define VMA_STACK	 (1u << 1)
#define VMA_VSYSCALL	 (1u << 2)
#define VMA_VDSO	 (1u << 3)
#define VMA_HEAP	 (1u << 5)
#define VMA_FILE_PRIVATE (1u << 6)
#define VMA_FILE_SHARED	 (1u << 7)
#define VMA_ANON_SHARED	 (1u << 8)
#define VMA_ANON_PRIVATE (1u << 9)
#define VMA_SYSV_IPC	 (1u << 10)
#define VMA_SOCKET	 (1u << 11)
#define VMA_VVAR	 (1u << 12)
#define VMA_AIO_RING	 (1u << 13)
#define VMA_MEMFD	 (1u << 14)
#define VMA_SHADOW_STACK (1u << 15)
#define VMA_GUARD_RANGE	 (1u << 16)
#define VMA_UPROBES	 (1u << 17)
#define VMA_PLUGIN	 (1u << 27) /* a mapping of a device, which a plugin restores */

#define VMA_OF_FILE (VMA_FILE_PRIVATE | VMA_FILE_SHARED | VMA_SOCKET) /* vma->object is the id of a file */

/*
 * The size of the huge pages (MAP_HUGETLB) as log2, at the same place in vma->flags as in the flags of mmap(). It is
 * always set here.
 */
#define VMA_HUGE_SHIFT 26
#define VMA_HUGE_SIZE  (0x3fu << VMA_HUGE_SHIFT)

struct vma {
	uint64_t start, end;
	uint64_t offset;      /* into the file, bytes */
	uint32_t protection;  /* PROT_* */
	uint32_t flags;	      /* MAP_* */
	uint32_t status;      /* VMA_* */
	uint64_t advice;      /* bit n: madvise(n) is in force */
	uint64_t object;      /* id of the file, or of the shared memory */
	int file_flags;	      /* O_* to open the mapped file with; -1: no file */
	uint64_t object_size; /* of shared memory that does not end where this mapping does; else 0 */
	bool has_huge_pages;  /* transparent ones */
	bool locks_on_fault;  /* with MAP_LOCKED: only pages that are touched */
	bool is_sealed;	      /* mseal(2), Linux 6.10 */
	uint32_t key;	      /* pkeys(7) */

	/* dump only */
	dev_t device;
	uint64_t inode;
	uint64_t resident;   /* bytes */
	const char *unknown; /* what criu cannot save of it, in words; NULL: nothing */
	bool may_write;	     /* mprotect() could make it writable */
	bool has_swapped;    /* pages */
	bool has_relatives;  /* it shares pages: with a relative since a fork, or with a file */
	char *path;	     /* as in /proc/PID/smaps; owned; NULL for a guard range */

	/* restore only */
	uint64_t place; /* where it is mapped until the task has its own address space: `start` if that was free */
	bool is_held;	     /* its content is there already: restore/held.h */
	bool is_inherited;   /* kept from the parent over fork(): equal pages stay shared */
	uint32_t generation; /* how often it was inherited since it was created */
	const char *name;    /* PR_SET_VMA_ANON_NAME, or NULL; owned by the image record */
};

struct vmas {
	struct vma *items; /* sorted by start; guard ranges last */
	size_t count;
};

static inline uint64_t vma_length(const struct vma *vma)
{
	return vma->end - vma->start;
}

static inline uint64_t vma_page_size(const struct vma *vma)
{
	return vma->flags & MAP_HUGETLB ? 1ULL << (vma->flags >> VMA_HUGE_SHIFT & 0x3f) : PAGE_SIZE;
}

void vmas_free(struct vmas *vmas);
/* The mapping at an address; NULL: none. Guard ranges are not searched. */
struct vma *vmas_find(const struct vmas *vmas, uint64_t address);

#endif
