/*
 * unix_steps.h - what the kind of unix sockets (unix.c) calls in the other sources.
 */
#ifndef CRIU_SOCKETS_UNIX_STEPS_H
#define CRIU_SOCKETS_UNIX_STEPS_H

#include "sockets/unix.h"

/* ---- unix_path.c ---- */

/* Dump: describes the file that the socket has been bound to. `fd`: a borrowed descriptor. */
int unix_describe_path(struct file *file, int fd) must_check;
/* Dump: can a socket be reached at the file of this one? */
bool unix_is_bound(const struct seen_file *seen);
/* Restore: where the file has to be, by the message. NULL: nowhere. To be freed. */
char *unix_place_of(const UnixSkEntry *entry);
/* Is the place possible and free, or only taken by what nobody listens at? */
int unix_check_place(struct unix_facts *facts, const struct file *file, struct unix_name *name) must_check;
struct unix_binding {
	struct unix_name *name;
	int fd;
};
struct unix_bindings {
	struct unix_binding *items;
	size_t count;
};
/* Binds all these sockets. Nothing changes at the places of their files. */
int unix_bind_all(struct unix_bindings *bindings) must_check;
/* Sets owner and mode: nobody has to connect to it any more. */
int unix_finish_name(struct unix_name *name, const FilePermsEntry *rights) must_check;
/* Puts the file in its place. */
void unix_publish(struct unix_name *name);
/* Forgets what has not been published. */
void unix_forget_name(struct unix_name *name);
/* The address that leads to a bound socket; returns its size. */
socklen_t unix_address(const struct unix_name *name, struct sockaddr_un *address);

/* Can a socket be reached at this path? No other socket notices the question. */
bool unix_is_reached(const char *path);

/* ---- unix_waiting.c ---- */

/*
 * Dump, when all files are known: describes connections that wait to be accepted, and writes what was sent through
 * them. If criu may not read that, sockets->no_reader says why, and their listener gets no `connections`.
 */
int unix_save_waiting(struct snapshot *snapshot) must_check;

/* ---- unix_outside.c ---- */

/* Dump: the peer of this socket is not in the tree. */
int unix_judge_outside(struct snapshot *snapshot, const struct file *file) must_check;
int unix_check_outside(struct snapshot *snapshot, const struct unix_socket *socket) must_check;
int unix_connect_outside(struct snapshot *snapshot, struct unix_sockets *sockets) must_check;
int unix_check_plugin(const struct unix_socket *socket) must_check;
int unix_open_by_plugin(struct snapshot *snapshot, const struct unix_socket *socket) must_check;
bool unix_external_key(const struct snapshot *snapshot, const struct file *file, struct external_key *key);
int unix_check_external(struct snapshot *snapshot, struct file *file, const struct stat *found) must_check;
int unix_open_external(struct snapshot *snapshot, struct file *file) must_check;

/* ---- unix_check.c ---- */

int unix_load(struct snapshot *snapshot) must_check;
int unix_check(struct snapshot *snapshot, struct file *file) must_check;

/* ---- unix_plan.c ---- */

/* When all sockets are known. */
void unix_plan(struct snapshot *snapshot);
/* The datagram socket that has this name; NULL: none. */
struct unix_socket *unix_find_datagram(const struct unix_sockets *sockets, const void *name, size_t size);
/* Whom SO_PEERCRED of the socket names; NULL: nobody. */
const UnixPeerEntry *unix_maker_of_peer(const struct snapshot *snapshot, struct unix_socket *socket);
/* The process itself, as it is now; NULL: there is none. `guess` holds it. */
const UnixPeerEntry *unix_guess_maker(const struct task *holder, UnixPeerEntry *guess);
/* The process that has connected, and waits to be accepted; NULL: not known. `guess` may hold it. */
const UnixPeerEntry *unix_maker_of_waiting(const struct unix_waiting *waiting, UnixPeerEntry *guess);
size_t unix_keeps(const struct snapshot *snapshot);

/* ---- unix_make.c ---- */

int unix_open(struct snapshot *snapshot, struct file *file) must_check;
int unix_new_socket(uint32_t type) must_check;
void unix_close_temporary(struct unix_sockets *sockets);
/* Until all have connected that wait to be accepted, the queue is as long as it has to be for them. */
static inline int unix_first_backlog(const struct unix_socket *socket)
{
	return max((size_t)socket->entry->backlog, socket->waiting_count);
}

/* ---- unix_connect.c ---- */

/* Connects all that wait to be accepted, in their order. */
int unix_connect_waiting(struct snapshot *snapshot, struct unix_sockets *sockets) must_check;
/* Sends what they had sent: all but messages with a late file, or only queues with these. */
int unix_fill_waiting(struct snapshot *snapshot, struct unix_sockets *sockets, bool is_late) must_check;
/* Closes those that were closed. */
void unix_forget_all_waiting(struct unix_sockets *sockets);
void unix_forget_waiting(struct unix_waiting *waiting);

/* ---- unix_join.c ---- */

int unix_join(struct snapshot *snapshot) must_check;
int unix_join_late(struct snapshot *snapshot) must_check;
void unix_release(struct snapshot *snapshot);
void unix_close(struct snapshot *snapshot);

/* ---- unix_identity.c ---- */

enum unix_work_kind { UNIX_PAIR, UNIX_LISTEN, UNIX_CONNECT };

/* A call that makes the kernel remember who makes it. It has all that it needs: the root of the tree makes some. */
struct unix_work {
	enum unix_work_kind kind;
	pid_t pid; /* 0: any */
	uid_t uid;
	gid_t gid;
	uint32_t groups, group_count; /* in the list of groups */
	int fd;			      /* of the socket that listens or connects */
	int type;		      /* of a pair */
	int backlog;
	struct sockaddr_un address; /* where to connect to … */
	socklen_t address_size;
	int listener; /* … and then accept; -1: it waits to be accepted */
	int made[2];  /* the pair; the accepted one */
	/* of the caller: of no use to the root */
	struct unix_socket *socket, *other;
	size_t number; /* the order in which it was added */
};

struct unix_works {
	struct unix_work *items;
	size_t count;
	gid_t *groups;
	size_t group_count;
};

/* A new work of the process that `peer` names; NULL: of criu itself. */
struct unix_work *unix_work_add(struct unix_works *works, enum unix_work_kind kind,
				const UnixPeerEntry *peer);
/* The works of one maker become neighbours. */
void unix_works_sort(struct unix_works *works);
/* Does all works, in this order; neighbours of the same process together. */
int unix_works_do(struct snapshot *snapshot, struct unix_works *works) must_check;
void unix_works_free(struct unix_works *works);

#endif
