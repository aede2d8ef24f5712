/*
 * network_guard.h - restore: a process that watches over TCP connections in the moment in which they begin to work.
 *
 * Before that moment the processes die with criu, and the connections must end without a packet, so that the images can
 * be restored again. After it the processes live, and their packets must not stay blocked. If criu is killed around it,
 * the guard does the one or the other.
 */
#ifndef CRIU_SOCKETS_NETWORK_GUARD_H
#define CRIU_SOCKETS_NETWORK_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "compiler.h"

struct guarded_stream {
	int fd;
	bool reuses; /* SO_REUSEADDR */
};

struct guarded {
	const struct guarded_stream *streams;
	size_t count;
	int lock;	    /* the descriptor that owns the network lock; -1: none */
	const char *run_id; /* of the lock that the dump has left */
	pid_t root;	    /* whether this process lives or dies with criu decides */
};

/* Begins to watch. It keeps no other descriptor of criu. -errno, recorded. 0 or the guard's pid in *guard. */
int network_guard_begin(pid_t *guard, const struct guarded *guarded) must_check;
/* Nothing is blocked any more. 0 is allowed. */
void network_guard_end(pid_t guard);

/* Removes the lock of the dump, and has the other ends answer. Repair mode has ended. */
void network_streams_go_on(const struct guarded_stream *streams, size_t count, const char *run_id);

#endif
