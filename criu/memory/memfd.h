/*
 * memfd.h - what shared memory is beside its pages, where descriptors lead to it: name, owner, mode, seals. The pages: shared.h; the
 * open files: files/memfd.c.
 *
 * The format keeps memory without a name in memfd.img, too, once there are descriptors of it, under the name that the
 * kernel shows: "/dev/zero", "/anon_hugepage".
 */
#ifndef CRIU_MEMORY_MEMFD_H
#define CRIU_MEMORY_MEMFD_H

#include "compiler.h"
#include "memory/shared.h"

/* Is "/memfd:NAME (deleted)", or one of the two names above, where a link of /proc points? */
bool memfd_is_link(const char *link);
/*
 * Dump. Makes object->memfd; `link` as above. Returns 1, and records nothing, if it is no memfd but a deleted file of another file
 * system that has such a name.
 */
int memfd_describe(struct snapshot *snapshot, struct shared_memory *object, const char *link) must_check;
int memfd_save(struct snapshot *snapshot) must_check;

/* Restore. Reads memfd.img into the shared memory of the snapshot. */
int memfd_load(struct snapshot *snapshot) must_check;
/* By memfd_inode_entry.inode_id. */
struct shared_memory *memfd_find(const struct snapshot *snapshot, uint64_t number);
/* Makes it, empty, and without mode and seals yet: these would hinder who has to fill, open and map it. */
int memfd_make(struct shared_memory *object) must_check;
int memfd_seal(const struct shared_memory *object) must_check;

#endif
