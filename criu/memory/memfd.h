/*
 * memfd.h - properties of shared memory that has descriptors: name, owner, mode, seals. Its pages: shared.h; its open
 * files: files/kinds/memfd.c.
 *
 * Memory without a name is in memfd.img, too, if it has descriptors, under the name that the kernel shows: "/dev/zero",
 * "/anon_hugepage".
 */
#ifndef CRIU_MEMORY_MEMFD_H
#define CRIU_MEMORY_MEMFD_H

#include "compiler.h"
#include "memory/shared.h"

/* Does a link of /proc point to "/memfd:NAME (deleted)", or to one of the two names above? */
bool memfd_is_link(const char *link);
/*
 * Dump. Makes object->memfd; `link` as above. Returns 1, and records nothing, if it is no memfd but a deleted file of
 * another file system that has such a name.
 */
int memfd_describe(struct snapshot *snapshot, struct shared_memory *object, const char *link) must_check;
/* Dump. Is it in the kernel's internal mount, where memfds and segments are? 1, or 0 if it is a deleted file. */
int memfd_is_in_own_mount(const struct snapshot *snapshot, const struct shared_memory *object) must_check;
int memfd_save(struct snapshot *snapshot) must_check;

/* Restore. Reads memfd.img into the shared memory of the snapshot. */
int memfd_load(struct snapshot *snapshot) must_check;
/* By memfd_inode_entry.inode_id. */
struct shared_memory *memfd_find(const struct snapshot *snapshot, uint64_t number);
/* Creates it empty, without mode and seals, which would hinder filling, opening and mapping it. */
int memfd_make(struct shared_memory *object) must_check;
int memfd_seal(const struct shared_memory *object) must_check;

#endif
