/*
 * interrupt.h - SIGINT, SIGTERM and SIGHUP end a dump or restore in good order: it fails at its next step or piece of work, everything is
 * undone as after any failure, and criu ends by that signal. A second signal, some time later, ends criu at once.
 *
 * A signal that was ignored when criu was started (nohup) stays ignored.
 */
#ifndef CRIU_BASE_INTERRUPT_H
#define CRIU_BASE_INTERRUPT_H

#include "compiler.h"

/* From here on signals are noted. steps_run() does so from its first step to its end. */
void interrupt_begin(void);
/* They do again what they did before. Also for a child that is to live on its own. */
void interrupt_end(void);
/* 0, or a failure (recorded) if a signal has been noted. To be called wherever work may take more than a tenth of a second. */
int interrupt_check(void) must_check;
/* The last act of a command that failed: if that was because of a signal, criu ends by it, as its caller expects. */
void interrupt_die(void);

#endif
