/*
 * pace.c - see pace.h.
 *
 * Compressing and writing go on at the same time, so the slower of the two counts: per MiB of content, the time to
 * compress it or the time to write what is left of it, against the time to write all of it.
 */
#include "base/memory.h"
#include "memory/pace.h"

#define MIB	  (1UL << 20)
#define RETRIED	  32 /* windows, after which the other way is tried again: content and disk change */
#define MOST_KEPT 95 /* of 100 bytes; what is left of the gain is less than the noise of a measurement */
#define WAITED	  8  /* the disk was the slowest part, if this part of the time was spent on waiting for it */

static uint64_t per_mib(uint64_t time, uint64_t bytes)
{
	return max(time / max(bytes / MIB, 1UL), 1UL);
}

static bool has_waited(const struct pace_window *window)
{
	return window->waited >= window->time / WAITED;
}

/*
 * A window that has waited was as fast as the disk. In one that has not, the disk kept up, so its own time is at most that
 * of the window.
 */
static void note(struct pace *pace, const struct pace_window *window)
{
	uint64_t disk = per_mib(window->time, window->written);

	if (has_waited(window))
		pace->disk = disk;
	else if (pace->disk)
		pace->disk = min(pace->disk, disk);
	if (window->packing) {
		pace->packing = per_mib(window->packing, window->content);
		pace->packed = window->written * 100 / window->content;
	}
}

static bool is_worth_it(const struct pace *pace)
{
	return pace->packed < MOST_KEPT && max(pace->packing, pace->disk * pace->packed / 100) < pace->disk;
}

void pace_note(struct pace *pace, const struct pace_window *window)
{
	bool compresses;

	if (!window->content || !window->written)
		return;
	note(pace, window);
	if (!pace->disk)
		compresses = false;
	else if (!pace->packing)
		compresses = true;
	else if (pace->age >= RETRIED && !(pace->compresses && has_waited(window)))
		compresses = !pace->compresses;
	else
		compresses = is_worth_it(pace);
	pace->age = compresses == pace->compresses ? pace->age + 1 : 0;
	pace->compresses = compresses;
}
