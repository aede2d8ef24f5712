/*
 * shared.h - memory that tasks share and no file system holds: mmap(MAP_SHARED | MAP_ANONYMOUS), and memfds. One object, one copy in
 * the images, however many mappings and descriptors of however many tasks lead to it.
 */
#ifndef CRIU_MEMORY_SHARED_H
#define CRIU_MEMORY_SHARED_H

#include "compiler.h"
#include "memfd.pb-c.h"
#include "memory/pages.h"
#include "memory/increment.h"
#include "model/snapshot.h"

struct shared_memory {
	uint64_t id;		/* pagemap-shmem-ID.img: its inode, if no other has that; vma_entry.shmid */
	uint64_t size;		/* bytes */
	uint64_t page_size;	/* of huge pages; 0: ordinary ones */
	int fd;			/* the object itself; -1 */
	bool is_anonymous;	/* mmap() has made it; else memfd_create() */
	MemfdInodeEntry *memfd; /* what it is beside its pages; NULL: nobody has a descriptor of it. Owned */

	/* dump: what tells objects apart */
	dev_t device;
	ino_t inode;
	uint32_t mapped_file
		[2]; /* without a name, but open: ids of files to map it from, read-only and writable; 0: none yet */

	/* restore */
	bool has_size; /* an image says its size; else mappings do */
	uint32_t original; /* of a memfd: the first file that can be what memfd_create() returned, by its id; 0: none */
};

/*
 * Dump. The object behind `link` in `proc`, a directory /proc/PID, which is known or becomes known: *found stays valid until the next one
 * is looked for.
 */
int shared_memory_look(struct snapshot *snapshot, int proc, const char *link, dev_t device, ino_t inode,
		       struct shared_memory **found) must_check;
/* Dump. Sets vma->object, of a mapping. */
int shared_memory_add(struct snapshot *snapshot, struct task *task, struct vma *vma) must_check;
/* Dump. Writes what the parent snapshot does not have: pagemap-shmem-ID.img. */
int shared_memory_save(struct snapshot *snapshot, struct increment *increment, uint32_t *next_pages_id,
		       struct page_statistics *statistics) must_check;
/* Restore. A mapping from an image: notes the object and the size it needs. */
int shared_memory_note(struct snapshot *snapshot, const struct vma *vma) must_check;
/* Restore. Makes and fills all objects; newborns inherit their descriptors. */
int shared_memory_make(struct snapshot *snapshot, struct page_chain *chain, uint64_t *pages) must_check;
/* Restore, when everybody has mapped and opened what he needs: modes and seals of memfds. */
int shared_memory_seal(struct snapshot *snapshot) must_check;
void shared_memory_close(struct snapshot *snapshot);
struct shared_memory *shared_memory_find(const struct snapshot *snapshot, uint64_t id);
/* A new one, of which nothing is known yet: pointers to others are no longer valid. */
struct shared_memory *shared_memory_new(struct snapshot *snapshot, uint64_t id);

#endif
