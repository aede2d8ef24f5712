/*
 * segment.h - a segment of System V IPC that has stayed since the dump holds memory already. A restore makes that equal
 * to the images, and puts it back if it fails.
 */
#ifndef CRIU_MEMORY_SEGMENT_H
#define CRIU_MEMORY_SEGMENT_H

#include "compiler.h"
#include "memory/shared.h"
#include "memory/stack.h"

/* 1: it is equal to the images. 0: what it held is in object->before, and now it holds nothing. */
int segment_empty_kept(struct shared_memory *object, const struct page_stack *stack) must_check;
/* Does nothing, if the segment was not emptied. */
void segment_put_back(const struct shared_memory *object);

#endif
