/*
 * inotify.h - the events of an inotify that nobody has read: inotify_events.c.
 */
#ifndef CRIU_FILES_KINDS_INOTIFY_H
#define CRIU_FILES_KINDS_INOTIFY_H

#include <stddef.h>
#include "compiler.h"
#include "model/snapshot.h"

/* As read(2) returns them. */
struct events {
	char *bytes;
	size_t size;
};

/* Why read(2) cannot have returned these bytes, or NULL. */
const char *events_why_invalid(const struct events *events);
/* Takes events out of the queue, which has at least `size` bytes of them: whole events. -errno, not recorded. */
int events_take(int inotify, size_t size, struct events *events) must_check;
/*
 * Restore. Puts events into the queue of a new inotify, which has no watches yet; afterwards it has none again. If that
 * is not possible, or `events` is NULL, the queue gets IN_Q_OVERFLOW, which tells the process that it has missed some.
 */
int events_put(int inotify, const struct events *events) must_check;

/* A descriptor of the directory of a new tmpfs, which is in no mount tree; -errno, not recorded. */
int make_private_tmpfs(void) must_check;

#endif
