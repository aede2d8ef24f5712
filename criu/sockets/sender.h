/*
 * sender.h - restore: a datagram socket that sends in the name of one that is gone.
 */
#ifndef CRIU_SOCKETS_SENDER_H
#define CRIU_SOCKETS_SENDER_H

#include <stddef.h>
#include <sys/socket.h>
#include "compiler.h"
#include "kernel/place.h"

/*
 * A new datagram socket of the family, created at `place` (NULL: here). It is bound to a name, which is the part of an
 * address behind the family; size 0: it is not bound. For a path, nothing is created in any file system that somebody
 * can see. The caller closes it.
 */
int temporary_sender(const struct place *place, sa_family_t family, const void *name, size_t size) must_check;

#endif
