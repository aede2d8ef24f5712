/*
 * shared.h - memory that tasks share and that is in no file system: mmap(MAP_SHARED | MAP_ANONYMOUS), memfds, and
 * segments of System V IPC. An object is in the images once, however many mappings and descriptors of however many tasks
 * refer to it.
 */
#ifndef CRIU_MEMORY_SHARED_H
#define CRIU_MEMORY_SHARED_H

#include "base/letter.h"
#include "compiler.h"
#include "memfd.pb-c.h"
#include "memory/held.h"
#include "memory/pages.h"
#include "memory/increment.h"
#include "model/snapshot.h"

struct shared_memory {
	uint64_t id;		/* pagemap-shmem-ID.img: its inode, if that is unique; vma_entry.shmid */
	uint64_t size;		/* bytes */
	uint64_t page_size;	/* of huge pages; 0: ordinary ones */
	int fd;			/* the object itself; -1 */
	bool is_anonymous;	/* created by mmap(); otherwise by memfd_create() */
	MemfdInodeEntry *memfd; /* its other properties; NULL: it has no descriptors. Owned */
	bool is_segment; /* of System V IPC: `id` is that of the segment, and criu/ipc has its other properties */

	/* dump: identifies the object */
	dev_t device;
	ino_t inode;
	uint32_t mapped_file
		[2]; /* without a name, but open: ids of files to map it with, read-only and writable; 0: none yet */
	size_t attachments; /* of a segment: mappings in the tree */

	/* restore */
	bool has_size; /* an image has its size; otherwise mappings determine it */
	bool is_kept;  /* a segment that has stayed, with what it holds now … */
	int before;    /* … which this memfd has, too, if it had to be changed; -1 */
	uint32_t original; /* of a memfd: id of the first file that can be the one memfd_create() returned; 0: none */
};

/* All shared memory of a snapshot. The indexes lead to numbers of `items`, which begin at 1. */
struct shared_memories {
	struct shared_memory *items;
	size_t count;
	struct index by_id, by_inode;
	struct index memfds;   /* by memfd_inode_entry.inode_id */
	dev_t memfd_device;    /* dump: of memfds with ordinary pages; 0: not known yet */
	struct index reserved; /* dump: ids of segments, which no other memory may have */
};
/* Created empty at the first call. */
struct shared_memories *shared_memories_of(const struct snapshot *snapshot);

/*
 * Dump. Finds or adds the object behind `link` in `proc`, a directory /proc/PID; *found stays valid until the next
 * call.
 */
int shared_memory_look(struct snapshot *snapshot, int proc, const char *link, dev_t device, ino_t inode,
		       struct shared_memory **found) must_check;
/* Dump. Sets vma->object of a mapping. */
int shared_memory_add(struct snapshot *snapshot, struct task *task, struct vma *vma) must_check;
/* Dump. The same for a mapping of a segment, whose id must have been reserved if it is in criu's ipc namespace. */
void shared_memory_reserve(struct snapshot *snapshot, int segment);
int shared_memory_add_segment(struct snapshot *snapshot, struct task *task, struct vma *vma) must_check;
/* … and for a segment that criu itself has attached. */
int shared_memory_add_own_segment(struct snapshot *snapshot, int id, void *memory, uint64_t size) must_check;
/*
 * Dump. Saves pages that the parent snapshot does not have: pagemap-shmem-ID.img. Those of small objects are read, and
 * held. `held`: NULL if nothing may be held.
 */
int shared_memory_save(struct snapshot *snapshot, struct increment *increment, uint32_t *next_pages_id,
		       struct page_statistics *statistics, struct held_writers *held) must_check;
/* Restore. Notes the object of a mapping from an image, and the size it needs. */
int shared_memory_note(struct snapshot *snapshot, const struct vma *vma) must_check;
/* Restore. Creates and fills all objects, and keeps them by descriptors … */
int shared_memory_make(struct snapshot *snapshot, struct page_chain *chain, uint64_t *pages) must_check;
/* … which criu passes on to the root. */
void shared_memory_pass(struct snapshot *snapshot, struct letter *letter);
/* Restore. Opens a segment that criu has attached. */
int shared_memory_open_segment(struct shared_memory *object, void *memory) must_check;
/* The restore has failed, and no task is left: segments that have stayed hold again what they held before. */
void shared_memory_put_back(struct snapshot *snapshot);
/* Restore, when all tasks have mapped and opened what they need: sets modes and seals of memfds. */
int shared_memory_seal(struct snapshot *snapshot) must_check;
/* Closes and forgets all of it; snapshot_free() does so, too. */
void shared_memory_close(struct snapshot *snapshot);
struct shared_memory *shared_memory_find(const struct snapshot *snapshot, uint64_t id);
/* Adds an empty object: pointers to others are no longer valid. */
struct shared_memory *shared_memory_new(struct snapshot *snapshot, uint64_t id);

#endif
