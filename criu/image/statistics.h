/*
 * statistics.h - the times of a journey, as a message of stats-dump and stats-restore.
 */
#ifndef CRIU_IMAGE_STATISTICS_H
#define CRIU_IMAGE_STATISTICS_H

#include "base/steps.h"
#include "base/throughput.h"
#include "stats.pb-c.h"

/* To be freed with image_free(). `journey` is "dump", "pre-dump" or "restore". */
JourneyTimesEntry *journey_times_new(const char *journey, const struct step_times *times);
/* Times are CLOCK_MONOTONIC, ns. */
void journey_times_set_frozen(JourneyTimesEntry *entry, const struct step_times *times, uint64_t from,
			      uint64_t until);
/* NULL: there was nothing to move. */
ThroughputEntry *throughput_new(const struct throughput *throughput);

#endif
