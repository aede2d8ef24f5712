/*
 * steps.c - runs a table of steps. See steps.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/steps.h"
#include "base/time.h"

/* The number of the step that is to fail, from 1; 0: none. */
static size_t fault_of(const char *journey, const struct step *steps, size_t count)
{
	const char *fault = getenv("CRIU_FAULT");
	size_t length = strlen(journey);

	if (!fault || strncmp(fault, journey, length) || fault[length] != ':')
		return 0;
	fault += length + 1;
	for (size_t i = 0; i < count; i++)
		if (!strcmp(steps[i].name, fault))
			return i + 1;
	return strtoul(fault, NULL, 10);
}

static int run_step(const struct step *step, bool fails, void *context)
{
	uint64_t start = monotonic_time();
	int result = 0;

	log_info("%s", step->name);
	progress_step(step->name);
	if (!fails || !step->is_final)
		result = step->run(context);
	if (result > 0)
		result = fail(0, "'%s' ended with %d", step->name, result);
	if (!result && fails)
		result = fail(0, "fault injected into '%s'", step->name);
	log_info("%s: %s, %.3f ms", step->name, result ? "failed" : "done", (monotonic_time() - start) / 1e6);
	return result;
}

static void undo(const struct step *steps, size_t count, void *context)
{
	for (size_t i = count; i-- > 0;) {
		if (!steps[i].undo)
			continue;
		log_info("undo: %s", steps[i].name);
		steps[i].undo(context);
	}
}

int steps_run(const char *journey, const struct step *steps, size_t count, void *context)
{
	size_t fault = fault_of(journey, steps, count);
	int result = 0;

	progress_begin(journey);
	interrupt_begin();
	for (size_t i = 0; !result && i < count; i++) {
		result = interrupt_check() ?: run_step(&steps[i], i + 1 == fault, context);
		if (result)
			undo(steps, i + 1, context);
	}
	interrupt_end();
	progress_end();
	return result;
}
