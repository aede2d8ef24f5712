/*
 * unix_facts.h - what the kernel tells of all unix sockets of criu's network namespace (sock_diag), by their inodes.
 * Read once: a request for all, and one more if connections wait to be accepted.
 */
#ifndef CRIU_SOCKETS_UNIX_FACTS_H
#define CRIU_SOCKETS_UNIX_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/index.h"
#include "compiler.h"

struct unix_fact {
	uint32_t inode;
	uint8_t type, state; /* SOCK_STREAM, …; TCP_LISTEN, … */
	uint8_t shutdown;    /* enum sk_shutdown */
	uint32_t peer;	 /* inode of the other end; 0: none, or one without descriptors (not accepted yet) */
	uint32_t queued; /* listening: connections that wait; otherwise the bytes of the next packet */
	uint32_t sent; /* listening: the limit of such connections; otherwise memory of what others have not read */
	unsigned char *name; /* the bytes of its address behind the family; NULL: none */
	size_t name_size;
	/* The inode of its path, if it has one. */
	bool has_file;
	dev_t file_device; /* as the kernel encodes it for sock_diag */
	uint32_t file_inode;
	/* Listening: inodes of the clients that wait to be accepted, in their order; 0: it has been closed. NULL
	 * although some are `queued`: the kernel does not list so many. */
	uint32_t *waiting;
	size_t waiting_count;
	uint32_t listener; /* by which this one waits to be accepted; 0: none */
};

struct unix_facts {
	struct unix_fact **items;
	size_t count;
	struct index by_inode;
	struct index listeners; /* by a hash of their names; unix_fact_is_of_listener() */
	bool has_listeners;
	struct index by_name; /* one for each type and name */
	bool has_names;
	struct index holders; /* of all sockets of the machine: by inode, a process that has it */
	bool has_holders;
};

/* Of a name. Those with equal hashes are beside each other in an index. */
uint64_t unix_name_hash(const void *bytes, size_t size);

int unix_facts_read(struct unix_facts *facts) must_check;
void unix_facts_free(struct unix_facts *facts);
struct unix_fact *unix_fact_find(const struct unix_facts *facts, uint32_t inode); /* NULL: there is none */
/* A socket whose path leads to this file; NULL: none. */
const struct unix_fact *unix_fact_of_file(const struct unix_facts *facts, dev_t device, ino_t inode);
/* A socket of this type with this abstract name; NULL: none. Each type has names of its own. */
const struct unix_fact *unix_fact_of_name(struct unix_facts *facts, uint32_t type, const void *name,
					  size_t size);
/* Does a socket listen that has the name, and the file, of this one? */
bool unix_fact_is_of_listener(struct unix_facts *facts, const struct unix_fact *fact);

/*
 * Waits for the end of a socket that no process has a descriptor of: the kernel keeps it while an io_uring works on it,
 * and ends the io_uring of a killed process in a thread of its own. true: it has ended; false: some process has it, or
 * it is still there after a second.
 */
bool unix_await_end(struct unix_facts *facts, uint32_t inode);

/*
 * "process 12 (nginx)", or "a process that criu cannot see": who has a descriptor of this socket. The first call looks
 * through all processes, so it is for messages of failures. To be freed.
 */
char *unix_holder_in_words(struct unix_facts *facts, uint32_t inode);

#endif
