/*
 * statistics.c - see statistics.h.
 */
#include "image/statistics.h"
#include "image/message.h"

/* Microseconds since the journey began. */
static uint64_t since(const struct step_times *times, uint64_t moment)
{
	return moment > times->began ? (moment - times->began) / 1000 : 0;
}

JourneyTimesEntry *journey_times_new(const char *journey, const struct step_times *times)
{
	JourneyTimesEntry *entry = message_new(JourneyTimesEntry, journey_times_entry);

	entry->journey = copy_text(journey);
	entry->whole = since(times, times->ended);
	message_array(entry, steps, times->count);
	for (size_t i = 0; i < times->count; i++) {
		const struct step_time *time = &times->items[i];
		StepTimeEntry *step = message_new(StepTimeEntry, step_time_entry);

		step->name = copy_text(time->name);
		step->begin = since(times, time->began);
		step->duration = since(times, time->ended) - step->begin;
		entry->steps[i] = step;
	}
	return entry;
}

void journey_times_set_frozen(JourneyTimesEntry *entry, const struct step_times *times, uint64_t from,
			      uint64_t until)
{
	message_set(entry, frozen_begin, since(times, from));
	message_set(entry, frozen_end, since(times, until));
}

ThroughputEntry *throughput_new(const struct throughput *throughput)
{
	ThroughputEntry *entry;

	if (!throughput->bytes)
		return NULL;
	entry = message_new(ThroughputEntry, throughput_entry);
	entry->bytes = throughput->bytes;
	entry->time = throughput->time / 1000;
	return entry;
}
