/*
 * steps.c - runs a table of steps. See steps.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/steps.h"
#include "base/time.h"

static void list_names(const struct step *steps, size_t count, char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; i < count && length < size; i++)
		length += snprintf(text + length, size - length, "%s%s", i ? ", " : "", steps[i].name);
}

/* Finds the step that CRIU_FAULT makes fail; NULL: none of this journey. A name that no step has is an error. */
static int find_fault(const char *journey, const struct step *steps, size_t count, const struct step **found)
{
	const char *fault = getenv("CRIU_FAULT");
	size_t length = strlen(journey);
	char names[900];

	*found = NULL;
	if (!fault || strncmp(fault, journey, length) || fault[length] != ':')
		return 0;
	fault += length + 1;
	for (size_t i = 0; i < count; i++)
		if (!strcmp(steps[i].name, fault))
			*found = &steps[i];
	if (*found)
		return 0;
	list_names(steps, count, names, sizeof(names));
	return fail(0, "CRIU_FAULT: a %s has no step '%s'; its steps are: %s", journey, fault, names);
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
		result = fail(0, "step '%s' returned %d", step->name, result);
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
	const struct step *fault;
	int result = find_fault(journey, steps, count, &fault);

	if (result)
		return result;
	progress_begin(journey);
	interrupt_begin();
	for (size_t i = 0; !result && i < count; i++) {
		result = interrupt_check() ?: run_step(&steps[i], &steps[i] == fault, context);
		if (result)
			undo(steps, i + 1, context);
	}
	interrupt_end();
	progress_end();
	return result;
}
