/*
 * steps.h - a journey (a dump, a restore) is a table of named steps. They run in order, are logged and timed, and are
 * undone in reverse order when one fails.
 *
 * CRIU_FAULT=JOURNEY:NAME in the environment makes the step of this name fail on purpose. It fails after it has done
 * its work, so that its own undo is tested, too; a final step fails before. A name that no step has is an error, which
 * lists the steps: so a test fails when its step is renamed or removed. The fault tests walk through this list.
 */
#ifndef CRIU_BASE_STEPS_H
#define CRIU_BASE_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "compiler.h"

struct step {
	const char *name;		      /* "freeze the processes": in the log and behind "cannot" */
	int (*run)(void *context) must_check; /* 0 or -errno, recorded */
	void (*undo)(void *context); /* NULL: nothing to undo. Also called if this step failed half-way */
	bool is_final;		     /* cannot be undone, so it is the last one */
};

/* When a journey ran, and each step that has begun, in their order. CLOCK_MONOTONIC, ns */
struct step_times {
	uint64_t began, ended;
	struct step_time {
		const char *name;
		uint64_t began, ended;
	} * items;
	size_t count;
};

/* `times` NULL: nobody wants to know. Else to be freed by step_times_free() in any case. */
int steps_run(const char *journey, const struct step *steps, size_t count, void *context,
	      struct step_times *times) must_check;
void step_times_free(struct step_times *times);

#endif
