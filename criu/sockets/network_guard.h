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
#include "compiler.h"

struct guarded_stream {
	int fd;
	bool reuses; /* SO_REUSEADDR */
};

struct network_guard;

/*
 * Begins to watch. It keeps no descriptor of criu but those of the streams and `lock` (-1: none). `run_id`: of the lock
 * that the dump has left. `streams` stay the caller's, and must stay. -errno, recorded.
 */
int network_guard_begin(struct network_guard **guard, const struct guarded_stream *streams, size_t count,
			int lock, const char *run_id) must_check;
/* The processes no longer die with criu. */
void network_guard_decide(struct network_guard *guard);
/* Nothing is blocked any more. NULL is allowed. */
void network_guard_end(struct network_guard *guard);

/* Removes the lock of the dump, and has the other ends answer. Repair mode has ended. */
void network_streams_go_on(const struct guarded_stream *streams, size_t count, const char *run_id);

#endif
