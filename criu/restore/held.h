/*
 * held.h - memory of images that criu has loaded already, for many restores of the same images (cli/holder.c).
 *
 * A newborn gets it by fork(), as it gets all of criu's memory, and moves it to its place. So the pages are shared, by
 * all that are restored like this, until one of them writes; and it is anonymous memory in every respect: a mapping of
 * the images would show their content again after madvise(MADV_DONTNEED), where a program expects zeros.
 */
#ifndef CRIU_RESTORE_HELD_H
#define CRIU_RESTORE_HELD_H

#include <stdbool.h>
#include "compiler.h"
#include "model/request.h"
#include "model/vma.h"

struct held_memory; /* opaque */
struct image_store;

/*
 * Loads private anonymous memory of all processes, what is not small and not inherited from a parent. Keeps the images
 * locked, so nobody changes them. 0 or -errno, recorded.
 */
int held_memory_load(struct held_memory **held, const struct request *request) must_check;
/* Is it the memory of these images? NULL is that of none. */
bool held_memory_is_of(const struct held_memory *held, const struct image_store *images);
/* Where the content of a mapping of process `pid`, or of a part of one, is. False: nowhere. */
bool held_memory_find(const struct held_memory *held, pid_t pid, const struct vma *vma, uint64_t *place);

/* Is it the id of a process or thread of the images, or of a group or session? */
bool held_memory_needs_id(const struct held_memory *held, pid_t id);
/* Unmaps all of it, in a process that goes on after a restore. NULL is fine. */
void held_memory_leave(const struct held_memory *held);

#endif
