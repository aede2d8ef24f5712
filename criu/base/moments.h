/*
 * moments.h - points of a journey of which others are told: action scripts, later the client of the service and plugins.
 *
 * A receiver is a function. It returns 0, or < 0: it says no, and the journey fails at this moment, as if one of its own steps had failed.
 *
 * Order: all receivers get a moment in the order in which they were added. Whoever fills a request adds action scripts first, then the
 * client of the service, then plugins. The first receiver that says no is the last one that hears of this moment. Receivers that have
 * heard of it before are not told that it came to nothing.
 *
 * At some moments it is too late to say no (moments.c has the table). Then all receivers are told, and a receiver that fails
 * causes a warning.
 */
#ifndef CRIU_BASE_MOMENTS_H
#define CRIU_BASE_MOMENTS_H

#include <stddef.h>
#include <sys/types.h>
#include "compiler.h"

enum moment {
	MOMENT_PRE_DUMP,     /* nothing is frozen yet */
	MOMENT_POST_DUMP,    /* the images are complete, the tree stands still */
	MOMENT_PRE_RESTORE,  /* the images are checked, no process exists yet */
	MOMENT_POST_RESTORE, /* all processes exist and stand still */
	MOMENT_PRE_RESUME,   /* the same, last before they run */
	MOMENT_POST_RESUME,  /* they run: too late to say no */
	MOMENTS
};

struct news {
	enum moment moment;
	const char *name; /* "pre-dump": what scripts and clients know the moment by */
	pid_t root;	  /* of the tree; 0: there is none yet */
};

struct receiver {
	const char *name; /* "the action scripts": for messages */
	/* 0, or < 0: no. The reason is recorded with fail(); without one the record says who said no. */
	int (*receive)(void *context, const struct news *news);
	void *context;
};

struct moments {
	struct receiver *receivers;
	size_t count;
};

void moments_add(struct moments *moments, const struct receiver *receiver);
void moments_free(struct moments *moments);
/* Tells all receivers. 0 or -errno, recorded: one said no. Where it is too late for that: always 0. */
int moments_send(const struct moments *moments, enum moment moment, pid_t root) must_check;

#endif
