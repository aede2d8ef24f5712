/*
 * progress.h - what a person at a terminal sees of a dump or restore that takes more than a second: one line, drawn over
 * itself, gone at the end. Nothing is shown where standard error is no terminal, or where the log goes there.
 */
#ifndef CRIU_BASE_PROGRESS_H
#define CRIU_BASE_PROGRESS_H

#include <stdint.h>

void progress_begin(const char *journey);
/* What is being done now; a text that lives on. Takes the amount of the step before away. */
void progress_step(const char *name);
/* How much of it, in bytes; cheap enough to be told every MiB. `total` 0: nobody knows. */
void progress_amount(uint64_t done, uint64_t total);
void progress_end(void);

#endif
