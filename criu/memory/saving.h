/*
 * saving.h - how the content of a mapping is saved and made again. The table in saving.c is the only place that decides it, for dumps,
 * pre-dumps, trackers and restores. All functions here are pure: they look at nothing but the mapping that they are given.
 */
#ifndef CRIU_MEMORY_SAVING_H
#define CRIU_MEMORY_SAVING_H

#include "model/vma.h"

/* Where the content of a mapping is. */
enum vma_content {
	CONTENT_NOT_SUPPORTED, /* we neither save nor restore such a mapping */
	CONTENT_OF_KERNEL,     /* nowhere in the images: the kernel provides it */
	CONTENT_OF_TASK,       /* in pagemap-PID.img: pages of this task alone */
	CONTENT_OF_OBJECT, /* in pagemap-shmem-ID.img: shared memory, saved once for everyone who maps it */
	CONTENT_OF_FILE,   /* nowhere in the images: the file keeps it */
};

/* Which pages of CONTENT_OF_TASK a dump saves. */
enum vma_pages {
	SAVE_NOTHING, /* if an image holds some all the same, they are restored */
	SAVE_OWN,     /* what the task has written: a scan of the page tables finds it */
	SAVE_ALL, /* page tables do not tell all of it, and a tracker does not note all that is written to it */
};

/* What a dump does with pages that are all zeros. */
enum vma_zeros {
	ZEROS_ARE_SAVED,
	ZEROS_ARE_LEFT_OUT,
	ZEROS_ARE_LEFT_OUT_OF_HUGE_PAGES, /* the first page of each huge page is saved: it tells that the huge page is there */
};

/* Who makes the mapping in a restore. */
enum vma_maker {
	MADE_BY_RESTORE, /* with mmap() */
	MADE_BY_KERNEL,	 /* at exec; the restore moves it to its place */
	ALWAYS_THERE,	 /* in every process, in the kernel's half of the addresses */
	IS_PART,	 /* of another mapping */
};

struct vma_saving {
	const char *name; /* for messages: "the mapping is …" */
	enum vma_content content;
	enum vma_pages pages;
	enum vma_zeros zeros;
	enum vma_maker maker;
	bool is_over_file;	 /* a page that the task has not written is the file's */
	bool is_lazy;		 /* a restore may bring its pages later, on demand (PAGES_LAZY) */
	bool is_noted;		 /* a tracker that reads page tables tells which pages were written … */
	bool is_protected;	 /* … also the one that write-protects them (written.c says why not all) */
	bool is_inherited;	 /* a child goes on with its parent's pages, where they are equal */
	bool regains_huge_pages; /* transparent ones */
};

/* Never NULL: what fits no row of the table is CONTENT_NOT_SUPPORTED. */
const struct vma_saving *vma_how_saved(const struct vma *vma);

/*
 * Dump. What a mapping is (VMA_*), from what /proc/PID/smaps says of it. 0: it cannot be saved, and *refusal says why, in words.
 * Whether a file is a memfd (VMA_MEMFD) is told by its opened file only.
 */
uint32_t vma_recognize(const struct vma *vma, const char **refusal);

/* Pages of this mapping may be in the task's own image. */
static inline bool vma_has_own_pages(const struct vma *vma)
{
	return vma_how_saved(vma)->content == CONTENT_OF_TASK;
}

#endif
