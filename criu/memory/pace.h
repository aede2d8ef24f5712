/*
 * pace.h - decides whether it is faster to compress what is written. That depends on the disk, and on the content.
 */
#ifndef CRIU_MEMORY_PACE_H
#define CRIU_MEMORY_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* What is known. All zero: nothing, so nothing is compressed. */
struct pace {
	bool compresses;  /* the decision for the next window */
	uint64_t disk;	  /* ns to write 1 MiB; 0: not known, because nothing has waited for the disk yet */
	uint64_t packing; /* ns to compress 1 MiB; 0: not known … */
	unsigned packed;  /* … and the bytes that 100 bytes become */
	unsigned age;	  /* windows since the decision has changed */
};

/* A few megabytes that were written. Times are ns. */
struct pace_window {
	uint64_t content, written; /* bytes, before and after they were compressed */
	uint64_t packing;	   /* time to compress; 0: they were not */
	uint64_t waited;	   /* time that nothing was done but to wait for the disk */
	uint64_t time;		   /* of all */
};

void pace_note(struct pace *pace, const struct pace_window *window);

#endif
