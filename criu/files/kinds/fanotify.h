/*
 * fanotify.h - what an fanotify group has missed: fanotify_overflow.c.
 */
#ifndef CRIU_FILES_KINDS_FANOTIFY_H
#define CRIU_FILES_KINDS_FANOTIFY_H

#include "compiler.h"

/*
 * Restore. Puts FAN_Q_OVERFLOW into the queue of a new group, which has no marks yet; afterwards it has none again. Not
 * possible for a group with FAN_UNLIMITED_QUEUE.
 */
int fanotify_put_overflow(int group) must_check;

#endif
