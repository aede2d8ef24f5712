/*
 * progress.c - draws the progress line. See progress.h.
 */
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>
#include "base/log.h"
#include "base/progress.h"
#include "base/time.h"

#define PATIENCE 1000000000ULL /* ns until the first line */
#define INTERVAL 100000000ULL  /* ns between two lines */

/* The progress of the journey. A program has one terminal, so one static object is enough. */
static struct {
	const char *journey, *step; /* journey NULL: nothing is to be shown */
	uint64_t next;		    /* when the line may be drawn again */
	bool is_drawn;
} progress;

void progress_begin(const char *journey)
{
	if (!isatty(STDERR_FILENO) || !log_is_file())
		return;
	progress.journey = journey;
	progress.next = monotonic_time() + PATIENCE;
}

static void draw(uint64_t done, uint64_t total)
{
	uint64_t now;

	if (!progress.journey)
		return;
	now = monotonic_time();
	if (now < progress.next)
		return;
	progress.next = now + INTERVAL;
	progress.is_drawn = true;
	dprintf(STDERR_FILENO, "\r\033[K%s: %s", progress.journey, progress.step ? progress.step : "begin");
	if (total)
		dprintf(STDERR_FILENO, ", %llu of %llu MiB", (unsigned long long)done >> 20,
			(unsigned long long)total >> 20);
	else if (done)
		dprintf(STDERR_FILENO, ", %llu MiB", (unsigned long long)done >> 20);
}

void progress_step(const char *name)
{
	progress.step = name;
	draw(0, 0);
}

void progress_amount(uint64_t done, uint64_t total)
{
	draw(done, total);
}

void progress_end(void)
{
	if (progress.is_drawn)
		dprintf(STDERR_FILENO, "\r\033[K");
	progress.journey = NULL;
}
