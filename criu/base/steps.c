/*
 * steps.c - runs a table of steps. See steps.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
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

static int run_step(const struct step *step, bool fails, void *context, struct step_time *time)
{
	int result = 0;

	time->name = step->name;
	time->began = monotonic_time();
	log_info("%s", step->name);
	progress_step(step->name);
	if (!fails || !step->is_final)
		result = step->run(context);
	if (result > 0)
		result = fail(0, "step '%s' returned %d", step->name, result);
	if (!result && fails)
		result = fail(0, "fault injected into '%s'", step->name);
	time->ended = monotonic_time();
	log_info("%s: %s, %.3f ms", step->name, result ? "failed" : "done",
		 (time->ended - time->began) / 1e6);
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

static int run_steps(const struct step *steps, size_t count, const struct step *fault, void *context,
		     struct step_times *times)
{
	int result = 0;

	times->items = allocate_array(count + 1, sizeof(*times->items));
	times->began = monotonic_time();
	for (size_t i = 0; !result && i < count; i++) {
		result = interrupt_check() ?:
					     run_step(&steps[i], &steps[i] == fault, context,
						      &times->items[times->count++]);
		if (result)
			undo(steps, i + 1, context);
	}
	times->ended = monotonic_time();
	return result;
}

int steps_run(const char *journey, const struct step *steps, size_t count, void *context,
	      struct step_times *times)
{
	struct step_times own = { 0 };
	const struct step *fault;
	int result = find_fault(journey, steps, count, &fault);

	if (times)
		*times = (struct step_times){ 0 };
	if (result)
		return result;
	progress_begin(journey);
	interrupt_begin();
	result = run_steps(steps, count, fault, context, times ?: &own);
	interrupt_end();
	progress_end();
	step_times_free(&own);
	return result;
}

void step_times_free(struct step_times *times)
{
	free(times->items);
	*times = (struct step_times){ 0 };
}
