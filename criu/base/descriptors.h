/*
 * descriptors.h - the limit of open files of criu itself, and what can be done with any descriptor.
 *
 * A dump holds a few descriptors for each process, a restore holds every file of the tree. The usual soft limit is too
 * low for that.
 */
#ifndef CRIU_BASE_DESCRIPTORS_H
#define CRIU_BASE_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include "compiler.h"

/*
 * Raises the soft limit to the hard limit. *before is the old limit: programs that criu runs get it back with
 * descriptors_limit().
 */
void descriptors_unlimit(struct rlimit *before);
void descriptors_limit(const struct rlimit *before);
/* Raises the hard limit if `wanted` is more than it and criu has the privilege. Returns the limit afterwards. */
size_t descriptors_allow(size_t wanted);
/* How many criu may have open at a time. 0: not known. */
size_t descriptors_most(void);
/* The number of descriptors that are open now. */
size_t descriptors_count(void);
/*
 * Enlarges the table for so many. This is for a table that another process or thread is going to share: from then on
 * the kernel waits for all CPUs (synchronize_rcu()) whenever the table grows. With that, a restore of 900 files took
 * 27 ms instead of 12, and to open 900 files ahead of a freeze took 43 ms instead of 9.
 */
void descriptors_reserve(size_t count);
/* In ascending order. -1: none. */
void descriptors_sort(int *numbers, size_t count);
/* Closes them all, in few calls if they are neighbours. Sorts the numbers. */
void descriptors_close(int *numbers, size_t count);
/* Closes all but these. 0 or -errno, not recorded. Sorts the numbers. -1: none. */
int descriptors_close_others(int *numbers, size_t count) must_check;
/*
 * For a process that outlives criu: nobody must have to wait for it. It keeps only these, and the standard files, which
 * lead to /dev/null unless they are among them.
 */
void descriptors_let_go(const int *kept, size_t count);
/* Has the process of a pidfd ended? */
bool pidfd_has_ended(int pidfd);
/*
 * criu's starter may have closed standard files. Occupies their numbers, so that what goes to the standard output or to
 * stderr does not get into a file that criu opens. They can be neither read nor written, as before.
 */
void descriptors_hold_standard(void);

#endif
