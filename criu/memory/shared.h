/*
 * shared.h - memory that tasks share and no file names: mmap(MAP_SHARED | MAP_ANONYMOUS). One object, one copy in the images,
 * however many mappings of however many tasks lead to it.
 */
#ifndef CRIU_MEMORY_SHARED_H
#define CRIU_MEMORY_SHARED_H

#include "memory/pages.h"
#include "memory/tracker.h"
#include "model/snapshot.h"

struct shared_memory {
	uint64_t id;   /* its inode; vma_entry.shmid */
	uint64_t size; /* bytes */
	bool has_size; /* restore: the images say so, and not only how far its mappings reach */
	int fd;	       /* the object itself; -1 */
	dev_t device;  /* dump: with the inode, what tells objects apart */
};

/* Dump. Sets vma->object; a mapping of an object that is not known yet adds it. */
int shared_memory_add(struct snapshot *snapshot, struct task *task, struct vma *vma);
/* Dump. Writes what the parent snapshot does not have: pagemap-shmem-ID.img. */
int shared_memory_save(struct snapshot *snapshot, const struct tracking *tracking, uint32_t *next_pages_id,
		       struct page_statistics *statistics);
/* Restore. A mapping from an image: notes the object and the size it needs. */
int shared_memory_note(struct snapshot *snapshot, const struct vma *vma);
/* Restore. Makes and fills all objects; newborns inherit their descriptors. */
int shared_memory_make(struct snapshot *snapshot, struct page_chain *chain, uint64_t *pages);
void shared_memory_close(struct snapshot *snapshot);
struct shared_memory *shared_memory_find(struct snapshot *snapshot, uint64_t id);

#endif
