/*
 * ending.h - what the kernel writes into the memory of a thread that ends (futex(2), set_tid_address(2)): mutexes in its list of
 * robust futexes are marked as those of a dead owner, and the word at clear_child_tid becomes 0. In memory that somebody else sees,
 * a file above all, that must not happen when a dump ends the thread, nor when a restore fails.
 */
#ifndef CRIU_TASK_ENDING_H
#define CRIU_TASK_ENDING_H

#include "model/snapshot.h"

/* Reads the task's memory, wherever that is now; false: it cannot be read. */
typedef bool ending_reader(const struct task *task, uint64_t address, void *buffer, size_t size);

/* Is there anything on its list, or anything about to be entered or removed? Wherever that lies. */
bool ending_marks_futexes(const struct task *task, size_t thread, ending_reader *read);
/* Does clear_child_tid lead into shared memory? */
bool ending_clears_word(const struct task *task, size_t thread);

#endif
