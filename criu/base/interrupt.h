/*
 * interrupt.h - SIGINT, SIGTERM and SIGHUP end a dump or restore cleanly. It fails at its next step or piece of work,
 * everything is undone as after any failure, and criu then ends by that signal. A second signal some time later ends
 * criu at once.
 *
 * A signal that was ignored when criu was started (nohup) stays ignored.
 */
#ifndef CRIU_BASE_INTERRUPT_H
#define CRIU_BASE_INTERRUPT_H

#include "compiler.h"

/* From here on, signals are noted. steps_run() calls this before its first step. */
void interrupt_begin(void);
/* Restores the old signal actions. Also for a child that lives on without criu. */
void interrupt_end(void);
/*
 * Fails (recorded) if a signal has been noted, else 0. To be called wherever work may take more than a tenth of a
 * second.
 */
int interrupt_check(void) must_check;
/* Does what the signal does to a process that does not handle it. */
void interrupt_end_by(int number);
/* The last act of a command that failed: if a signal was the reason, criu ends by it, as its caller expects. */
void interrupt_die(void);

#endif
