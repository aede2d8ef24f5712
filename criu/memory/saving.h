/*
 * saving.h - how the content of a mapping is saved and restored. The table in saving.c is the only place that decides
 * it, for dumps, pre-dumps, trackers and restores. All functions here are pure: they use only the mapping that they are
 * given.
 */
#ifndef CRIU_MEMORY_SAVING_H
#define CRIU_MEMORY_SAVING_H

#include "model/vma.h"

/* Where the content of a mapping is. */
enum vma_content {
	CONTENT_NOT_SUPPORTED, /* criu neither saves nor restores such a mapping */
	CONTENT_OF_KERNEL,     /* nowhere in the images: the kernel provides it */
	CONTENT_OF_TASK,       /* in pagemap-PID.img: pages of this task alone */
	CONTENT_OF_OBJECT,     /* in pagemap-shmem-ID.img: shared memory, saved once for all its users */
	CONTENT_OF_FILE,       /* nowhere in the images: the file keeps it */
};

/* Which pages of CONTENT_OF_TASK a dump saves. */
enum vma_pages {
	SAVE_NOTHING, /* if an image has pages all the same, they are restored */
	SAVE_OWN,     /* pages that the task has written: a scan of the page tables finds them */
	SAVE_ALL,     /* page tables do not show all of it, and a tracker does not notice all writes to it */
};

/* What a dump does with pages that are all zeros. */
enum vma_zeros {
	ZEROS_ARE_SAVED,
	ZEROS_ARE_LEFT_OUT,
	ZEROS_ARE_LEFT_OUT_OF_HUGE_PAGES, /* but the first page of each huge page, to show that it exists */
};

/* What creates the mapping in a restore. */
enum vma_maker {
	MADE_BY_RESTORE, /* with mmap() */
	MADE_BY_KERNEL,	 /* at exec; the restore moves it to its address */
	ALWAYS_THERE,	 /* in every process, in the kernel's half of the addresses */
	IS_PART,	 /* of another mapping */
};

struct vma_saving {
	const char *name; /* for messages: "the mapping is …" */
	enum vma_content content;
	enum vma_pages pages;
	enum vma_zeros zeros;
	enum vma_maker maker;
	bool is_over_file;	 /* pages that the task has not written are the file's */
	bool is_lazy;		 /* a restore may bring its pages later, on demand (PAGES_LAZY) */
	bool is_noted;		 /* a tracker that reads page tables finds written pages … */
	bool is_protected;	 /* … also the one that write-protects them (written.c says why not all) */
	bool is_inherited;	 /* a child shares its parent's pages, if they are equal */
	bool regains_huge_pages; /* transparent ones */
};

/* Never NULL: a mapping that fits no row of the table is CONTENT_NOT_SUPPORTED. */
const struct vma_saving *vma_how_saved(const struct vma *vma);

/*
 * Dump. The kind of a mapping (VMA_*), from /proc/PID/smaps. 0: it cannot be saved, and *refusal has the reason. Only
 * the opened file tells whether it is a memfd (VMA_MEMFD).
 */
uint32_t vma_recognize(const struct vma *vma, const char **refusal);

/* Pages of this mapping may be in the task's own image. */
static inline bool vma_has_own_pages(const struct vma *vma)
{
	return vma_how_saved(vma)->content == CONTENT_OF_TASK;
}

#endif
