/*
 * ending.h - writes of the kernel into the memory of a thread that ends (futex(2), set_tid_address(2)): it marks the
 * mutexes in the thread's list of robust futexes as those of a dead owner, and sets the word at clear_child_tid to 0.
 * If other processes see that memory, above all in a file, this must not happen when a dump ends the thread, or when a
 * restore fails.
 */
#ifndef CRIU_TASK_ENDING_H
#define CRIU_TASK_ENDING_H

#include "model/snapshot.h"

/* Reads the memory of the task at its current place; false: it cannot be read. */
typedef bool ending_reader(const struct task *task, uint64_t address, void *buffer, size_t size);

/* Is a futex on the list of the thread, or about to be added or removed? In any memory. */
bool ending_marks_futexes(const struct task *task, size_t thread, ending_reader *read);
/* Does clear_child_tid point into shared memory? */
bool ending_clears_word(const struct task *task, size_t thread);

#endif
