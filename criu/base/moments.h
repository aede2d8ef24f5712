/*
 * moments.h - points of a dump or restore at which receivers are called: action scripts, later the client of the
 * service and plugins.
 *
 * A receiver is a function. It returns 0, or < 0 to stop the journey, which then fails at this moment as if one of its
 * own steps had failed.
 *
 * Receivers are called in the order in which they were added: action scripts first, then the client of the service,
 * then plugins. After a receiver has stopped the journey, those behind it are not called for this moment, and those
 * before it are not told.
 *
 * Some moments are too late to stop anything (moments.c has the table). Then all receivers are called, and one that
 * fails causes a warning.
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
	MOMENT_PRE_RESUME,   /* the same, directly before they run */
	MOMENT_POST_RESUME,  /* they run: too late to stop the restore */
	MOMENTS
};

struct news {
	enum moment moment;
	const char *name; /* "pre-dump": the name that scripts and clients see */
	pid_t root;	  /* the root process of the tree; 0: there is none yet */
};

struct receiver {
	const char *name; /* "the action scripts": for messages */
	/*
	 * 0, or < 0 to stop. The receiver records the reason with fail(); if it does not, the record names the
	 * receiver.
	 */
	int (*receive)(void *context, const struct news *news);
	void *context;
};

struct moments {
	struct receiver *receivers;
	size_t count;
};

void moments_add(struct moments *moments, const struct receiver *receiver);
void moments_free(struct moments *moments);
/* Calls the receivers. 0, or -errno (recorded) if one stops the journey. Always 0 where it is too late for that. */
int moments_send(const struct moments *moments, enum moment moment, pid_t root) must_check;

#endif
