/*
 * descriptors.h - how many descriptors criu itself may have.
 *
 * A dump has some open for every process, a restore every file of the whole tree: soft limits are made for less.
 */
#ifndef CRIU_BASE_DESCRIPTORS_H
#define CRIU_BASE_DESCRIPTORS_H

#include <stddef.h>
#include <sys/resource.h>

/* As many as the hard limit allows. *before is what the limit was, for programs that we run: descriptors_limit(). */
void descriptors_unlimit(struct rlimit *before);
void descriptors_limit(const struct rlimit *before);
/* How many we may have; if these are more than the hard limit allows, and we are allowed to raise that, it is raised. */
size_t descriptors_allow(size_t wanted);
/* How many are open now. */
size_t descriptors_count(void);

#endif
