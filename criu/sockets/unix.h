/*
 * unix.h - what the sources of unix sockets have in common.
 *
 *	unix.c          the kind of file: dump
 *	unix_facts.c    what the kernel tells of all unix sockets
 *	unix_path.c     dump: where the path of a socket is; restore: binds a socket without touching what is at its path
 *	unix_waiting.c  dump: what was sent through connections that nobody has accepted yet
 *	unix_check.c    restore: what the images hold, and whether it can be made here
 *	unix_plan.c     restore: how each connection is made
 *	unix_make.c     restore: makes all sockets
 *	unix_connect.c  restore: connections that nobody has accepted yet
 *	unix_join.c     restore: what is left to do when all files are open
 *	unix_identity.c restore: makes what the kernel remembers the maker of (SO_PEERCRED)
 */
#ifndef CRIU_SOCKETS_UNIX_H
#define CRIU_SOCKETS_UNIX_H

#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "compiler.h"
#include "files/kind.h"
#include "sockets/options.h"
#include "sockets/unix_facts.h"

/* In uflags: the socket is a peer outside of the tree, and the message has only its number and its name. */
#define UNIX_IS_OUTSIDE 1
/* A plugin has saved the connection of this socket to the outside, and restores the socket. */
#define UNIX_IS_OF_PLUGIN 4
/* Bytes of an address behind its family: a path that is not terminated gets a 0 byte more. */
#define LONGEST_NAME 109

/* ---- restore ---- */

/*
 * A name that a socket is bound to. A path is made in a temporary directory beside its place, and put in its place when
 * nothing can fail any more. So what is there now stays until then, and forever if the restore fails.
 */
struct unix_name {
	const uint8_t *bytes; /* of the address, behind the family */
	size_t size;
	char *place; /* where the file has to be in the end; NULL: it has been deleted, or the name is abstract */
	bool is_free; /* nothing was at `place` when that was checked */
	char *file;   /* where it is now; NULL: nowhere */
	int target;   /* leads to the file, for connect(), also when it has been deleted; -1: not open */
};

struct unix_socket;

/* What connections are made with: a listener of the tree, or a temporary one. */
struct unix_factory {
	struct unix_socket *listener; /* of the tree; NULL: a temporary one, which has the rest */
	uint32_t type;
	struct unix_name name;
	const UnixPeerEntry *maker; /* who listens; NULL: it does not matter */
	int fd;
};

/* A socket of the images. */
struct unix_socket {
	struct file *file;
	const UnixSkEntry *entry;
	/* The other end, or what a datagram socket sends to; NULL: it has none that is in the tree. */
	struct unix_socket *peer;
	const UnixSkEntry *outside; /* the peer, if it is outside of the tree */
	/* It has no name, and this one is connected to it: they were born as a pair. NULL: there is none. */
	struct unix_socket *twin;
	bool is_twin;		      /* it is the twin of its peer */
	bool is_accepted;	      /* it has the name of a listener */
	struct unix_socket *listener; /* that has not accepted it yet */
	bool waits;		      /* it is in the list of those that wait */
	size_t waiting_count;	      /* of those that wait for this one */
	unsigned distance;	      /* datagram: how many connections follow one another from here on */
	struct unix_factory *factory; /* by which its connection is made; NULL: otherwise, or the peer has it */
	UnixPeerEntry guess;	      /* whom SO_PEERCRED names, if the images do not tell */
	struct unix_name name;
	int fd;	   /* until open() takes it; -1: not made, or taken */
	int ghost; /* the other end, which had been closed; -1: none, or closed again */
	struct unix_name ghost_name;
};

/* A connection that nobody has accepted. */
struct unix_waiting {
	struct unix_socket *listener;
	struct unix_socket *client;    /* NULL: it was closed */
	const UnixWaitingEntry *entry; /* NULL: nothing was sent, and nobody knows who has connected */
	/* of a client that was closed */
	struct unix_name name;
	int fd; /* -1: not made, or closed again */
};

/* It is not made, but given: by --inherit-fd, or by a plugin. */
static inline bool unix_is_given(const struct unix_socket *socket)
{
	return socket->file->external || socket->entry->uflags & UNIX_IS_OF_PLUGIN;
}

struct unix_sockets {
	/* of the machine: in a dump and in a restore */
	struct unix_facts facts;
	bool has_facts;	  /* they have been read … */
	int facts_result; /* … with this result */
	/* dump: struct file; restore: struct unix_socket */
	struct index by_inode;
	/* dump: connections that wait to be accepted */
	uint32_t queue_count; /* of those that have received something */
	char *no_reader;      /* why criu cannot read what they have received; NULL: it can, or need not */
	struct socket_options_ahead options; /* dump */
	/* restore */
	struct unix_socket *items; /* in the order of the files */
	size_t count;
	struct index by_file;
	struct unix_waiting *waiting; /* in the order in which each listener accepts them */
	size_t waiting_count;
	struct unix_factory **factories;
	size_t factory_count;
	struct index by_name;		   /* factories, by a hash */
	struct index listeners, datagrams; /* of connections; datagram sockets: by a hash of their names */
	struct index ghosts;  /* datagram sockets whose peers are ghosts, by a hash of their names */
	struct index outside; /* messages of peers, by their inodes */
	bool is_planned, is_made;
	bool waits_for_late; /* messages have files that are opened when the processes exist */
};

static inline void unix_name_init(struct unix_name *name, const ProtobufCBinaryData *bytes)
{
	*name = (struct unix_name){ .bytes = bytes->data, .size = bytes->len, .target = -1 };
}

struct unix_sockets *unix_sockets_of(const struct snapshot *snapshot);
/* Reads the facts at the first call. */
int unix_facts_of(const struct snapshot *snapshot, struct unix_facts **facts) must_check;

static inline bool unix_has_path(const UnixSkEntry *entry)
{
	return entry->name.len && entry->name.data[0];
}
static inline bool unix_has_connections(const UnixSkEntry *entry)
{
	return entry->type == SOCK_STREAM || entry->type == SOCK_SEQPACKET;
}
/*
 * Is it connected to a socket that was closed? criu 4.2.1 does not tell that; of datagram sockets it is known only if
 * they have no name, because nobody else has connected to them.
 */
static inline bool unix_has_ghost(const struct unix_socket *socket)
{
	const UnixSkEntry *entry = socket->entry;

	if (entry->peer || entry->peer_gone)
		return entry->peer_gone;
	return entry->state == TCP_ESTABLISHED && (unix_has_connections(entry) || !entry->name.len);
}

#endif
