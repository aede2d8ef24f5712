/*
 * progress.h - the progress line that a dump or restore of more than a second shows on a terminal. It is redrawn in
 * place and erased at the end. Nothing is shown if standard error is no terminal or is the log.
 */
#ifndef CRIU_BASE_PROGRESS_H
#define CRIU_BASE_PROGRESS_H

#include <stdint.h>

void progress_begin(const char *journey);
/* Sets what is being done now, and clears the amount of the step before. `name` must stay valid. */
void progress_step(const char *name);
/* Sets how much of it is done, in bytes; cheap enough to be called for every MiB. `total` 0: not known. */
void progress_amount(uint64_t done, uint64_t total);
void progress_end(void);

#endif
