/*
 * network_lock.h - blocks the packets of TCP connections, in both directions: while criu reads or makes them, and from
 * the death of their processes until these are restored. Neither end notices more than a slow network.
 *
 * It is a table of nftables with the addresses of the connections. No other table is changed.
 *
 *	begin    a table that belongs to criu (`flags owner`, Linux 5.12): the kernel removes it when criu ends, however it
 *	         ends
 *	keep     a second one, which stays: in a dump that kills its processes, directly before that. It has the name that
 *	         criu 4.2.1 gives to its own, so either of them can restore what the other has dumped; a restore removes it
 *	end      removes the first one
 *
 * A lock is of the network namespace of criu. Failures are recorded.
 */
#ifndef CRIU_SOCKETS_NETWORK_LOCK_H
#define CRIU_SOCKETS_NETWORK_LOCK_H

#include <stdbool.h>
#include <stddef.h>
#include "compiler.h"
#include "model/request.h"
#include "sockets/ip_address.h"

/* Packets with this mark (SO_MARK) pass: those that criu makes itself. It is the mark of criu 4.2.1. */
#define NETWORK_LOCK_MARK 0xc114

struct network_connection {
	union ip_address own, other;
};

struct network_lock;

/* Adds connections. *lock is NULL before the first ones, and stays NULL if there is nothing to block. */
int network_lock_add(struct network_lock **lock, enum network_lock_method method,
		     const struct network_connection *connections, size_t count) must_check;
/* `run_id`: of the dump, in the inventory; it names the table that stays. */
int network_lock_keep(struct network_lock *lock, const char *run_id) must_check;
/* Removes the table that stays, if there is one. Nothing happens if `run_id` is "". */
void network_lock_remove_kept(const char *run_id);
/* The descriptor that owns criu's table: it exists as long as anybody has that open. -1: there is none. */
int network_lock_descriptor(const struct network_lock *lock);
/* Removes the table of criu. NULL is allowed. */
void network_lock_end(struct network_lock *lock);

#endif
