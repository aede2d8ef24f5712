/*
 * unix_make.c - restore: makes all unix sockets at once, when the first is to be opened.
 *
 *	pairs, with ghosts where the other end had been closed
 *	all others: created, and bound together with the temporary listeners
 *	listeners
 *	connections: connected and accepted at once, so that no queue of a listener becomes too long
 *	datagram sockets are connected, those first that have the most others behind them (unix_check.c)
 *
 * What is left to do when all files are open is in unix_join.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "sockets/options.h"
#include "sockets/unix_steps.h"

int unix_new_socket(uint32_t type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? fail(errno, "cannot create a unix socket") : fd;
}

/* ---- pairs ---- */

/* The one that it was born with, or itself if that is a ghost; NULL: it was not born in a pair. */
static struct unix_socket *other_of_pair(struct unix_socket *socket)
{
	const UnixSkEntry *entry = socket->entry;
	struct unix_socket *peer = socket->peer;
	bool is_mutual = peer && peer->peer == socket;

	if (socket->is_accepted || socket->factory || unix_is_given(socket))
		return NULL;
	if (unix_has_ghost(socket))
		return !socket->twin && (!entry->peer_name.len || entry->peer_cred) ? socket : NULL;
	if (!peer || peer == socket || peer->is_accepted)
		return NULL;
	if (unix_has_connections(entry) || socket->is_twin || (is_mutual && peer->is_twin))
		return peer;
	/* Both have names. If they were not born as a pair, nobody has made them one (SO_PEERCRED). */
	return is_mutual && (entry->peer_cred || peer->entry->peer_cred) ? peer : NULL;
}

static void add_pair(struct snapshot *snapshot, struct unix_works *works, struct unix_socket *socket)
{
	struct unix_socket *other = other_of_pair(socket);
	struct unix_work *work;

	if (!other || (other->peer == socket && other < socket)) /* the other one has added it */
		return;
	work = unix_work_add(works, UNIX_PAIR, unix_maker_of_peer(snapshot, socket));
	work->type = socket->entry->type;
	work->socket = socket;
	work->other = other;
}

static int make_pairs(struct snapshot *snapshot, struct unix_sockets *sockets)
{
	struct unix_works works = { 0 };
	int result;

	for (size_t i = 0; i < sockets->count; i++)
		add_pair(snapshot, &works, &sockets->items[i]);
	unix_works_sort(&works);
	result = unix_works_do(snapshot, &works);
	for (size_t i = 0; i < works.count; i++) {
		const struct unix_work *work = &works.items[i];

		work->socket->fd = work->made[0];
		*(work->other == work->socket ? &work->socket->ghost : &work->other->fd) = work->made[1];
	}
	unix_works_free(&works);
	return result;
}

/* ---- all others ---- */

static int create_if(bool is_needed, int *fd, uint32_t type)
{
	if (is_needed && *fd < 0)
		*fd = unix_new_socket(type);
	return is_needed ? min(*fd, 0) : 0;
}

static int create_all(struct unix_sockets *sockets)
{
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++) {
		struct unix_socket *socket = &sockets->items[i];
		/* The client of an accepted one, or the peer of a datagram socket. */
		bool has_ghost = unix_has_ghost(socket) && (socket->is_accepted || !socket->factory);

		if (unix_is_given(socket))
			continue;
		result = create_if(has_ghost, &socket->ghost, socket->entry->type) ?:
				 create_if(!socket->is_accepted, &socket->fd, socket->entry->type);
	}
	for (size_t i = 0; !result && i < sockets->factory_count; i++) {
		struct unix_factory *factory = sockets->factories[i];

		result = create_if(!factory->listener, &factory->fd, factory->type);
	}
	return result;
}

static void add_binding(struct unix_bindings *bindings, struct unix_name *name, int fd)
{
	if (name->size)
		*grow(&bindings->items, &bindings->count) = (struct unix_binding){ name, fd };
}

/* Another datagram socket that was connected to the same closed one; NULL: then *key is free. */
static const struct unix_socket *find_ghost(const struct unix_sockets *sockets, const struct unix_name *name,
					    uint64_t *key)
{
	const struct unix_socket *found;

	for (*key = unix_name_hash(name->bytes, name->size); (found = index_find(&sockets->ghosts, *key));
	     ++*key)
		if (found->ghost_name.size == name->size &&
		    !memcmp(found->ghost_name.bytes, name->bytes, name->size))
			return found;
	return NULL;
}

/* Only one socket has an abstract name. It may have a new owner, or had been left by several. */
static int bind_abstract_ghost(struct unix_sockets *sockets, struct unix_socket *socket,
			       struct unix_bindings *bindings)
{
	static const char instead[] = "closed";
	struct unix_name *name = &socket->ghost_name;
	uint64_t key;
	const struct unix_socket *same = find_ghost(sockets, name, &key);

	if (same && !other_of_pair(socket)) {
		close(socket->ghost);
		socket->ghost = fcntl(same->ghost, F_DUPFD_CLOEXEC, 0);
		return socket->ghost < 0 ? fail(errno, "cannot copy the descriptor of a unix socket") : 0;
	}
	if (same || unix_find_datagram(sockets, name->bytes, name->size) ||
	    unix_fact_of_name(&sockets->facts, SOCK_DGRAM, name->bytes, name->size)) {
		log_warning(
			"file %u is connected to a unix socket @%.*s that was closed, and another one has this name now: "
			"getpeername() gives another name",
			socket->file->id, (int)name->size - 1, name->bytes + 1);
		name->bytes = (const uint8_t *)instead;
		name->size = sizeof(instead) - 1;
	} else {
		index_set(&sockets->ghosts, key, socket);
	}
	add_binding(bindings, name, socket->ghost);
	return 0;
}

static int bind_ghost(struct unix_sockets *sockets, struct unix_socket *socket,
		      struct unix_bindings *bindings)
{
	if (socket->ghost < 0 || unix_has_connections(socket->entry))
		return 0;
	if (socket->ghost_name.size && !socket->ghost_name.bytes[0])
		return bind_abstract_ghost(sockets, socket, bindings);
	add_binding(bindings, &socket->ghost_name, socket->ghost);
	return 0;
}

static int bind_sockets(struct unix_sockets *sockets)
{
	struct unix_bindings bindings = { 0 };
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++) {
		struct unix_socket *socket = &sockets->items[i];

		if (!socket->is_accepted && socket->fd >= 0)
			add_binding(&bindings, &socket->name, socket->fd);
		result = bind_ghost(sockets, socket, &bindings);
	}
	result = result ?: unix_bind_all(&bindings);
	free(bindings.items);
	return result;
}

/* ---- connections ---- */

static int listen_all(struct snapshot *snapshot, struct unix_sockets *sockets)
{
	struct unix_works works = { 0 };
	int result;

	for (size_t i = 0; i < sockets->count; i++) {
		struct unix_socket *socket = &sockets->items[i];
		struct unix_work *work;

		if (socket->entry->state != TCP_LISTEN || unix_is_given(socket))
			continue;
		work = unix_work_add(&works, UNIX_LISTEN, unix_maker_of_peer(snapshot, socket));
		work->fd = socket->fd;
		work->backlog = unix_first_backlog(socket);
	}
	unix_works_sort(&works);
	result = unix_works_do(snapshot, &works);
	unix_works_free(&works);
	return result;
}

static void add_connection(struct snapshot *snapshot, struct unix_works *works, struct unix_socket *socket)
{
	const struct unix_factory *factory = socket->factory;
	struct unix_work *work;

	work = unix_work_add(works, UNIX_CONNECT,
			     socket->is_accepted ? unix_maker_of_peer(snapshot, socket) : NULL);
	work->fd = !socket->is_accepted ? socket->fd : socket->peer ? socket->peer->fd : socket->ghost;
	work->address_size = unix_address(factory->listener ? &factory->listener->name : &factory->name,
					  &work->address);
	work->listener = factory->listener ? factory->listener->fd : factory->fd;
	work->socket = socket;
}

/* By the listeners of the tree, or by temporary ones. */
static int connect_all(struct snapshot *snapshot, struct unix_sockets *sockets, bool by_temporary)
{
	struct unix_works works = { 0 };
	int result;

	for (size_t i = 0; i < sockets->count; i++) {
		struct unix_socket *socket = &sockets->items[i];

		if (socket->factory && !socket->factory->listener == by_temporary)
			add_connection(snapshot, &works, socket);
	}
	unix_works_sort(&works);
	result = unix_works_do(snapshot, &works);
	for (size_t i = 0; i < works.count; i++) {
		struct unix_socket *socket = works.items[i].socket;

		*(socket->is_accepted ? &socket->fd : &socket->ghost) = works.items[i].made[0];
	}
	unix_works_free(&works);
	return result;
}

static int make_temporary(struct snapshot *snapshot, struct unix_sockets *sockets)
{
	struct unix_bindings bindings = { 0 };
	struct unix_works works = { 0 };
	int result;

	for (size_t i = 0; i < sockets->factory_count; i++) {
		struct unix_factory *factory = sockets->factories[i];
		struct unix_work *work;

		if (factory->listener)
			continue;
		add_binding(&bindings, &factory->name, factory->fd);
		work = unix_work_add(&works, UNIX_LISTEN, factory->maker);
		work->fd = factory->fd;
		work->backlog = 1;
	}
	unix_works_sort(&works);
	result = unix_bind_all(&bindings) ?: unix_works_do(snapshot, &works);
	free(bindings.items);
	unix_works_free(&works);
	return result;
}

void unix_close_temporary(struct unix_sockets *sockets)
{
	for (size_t i = 0; i < sockets->factory_count; i++) {
		struct unix_factory *factory = sockets->factories[i];

		if (factory->fd >= 0)
			close(steal_fd(&factory->fd));
		unix_forget_name(&factory->name);
	}
}

/* ---- datagrams ---- */

static int connect_to(int fd, const struct unix_name *name)
{
	struct sockaddr_un address;
	socklen_t size = unix_address(name, &address);

	return connect(fd, (struct sockaddr *)&address, size) < 0 ?
		       fail(errno, "cannot connect a unix datagram socket") :
		       0;
}

/* Its twin remains connected to it, but it is not connected to its twin. */
static int disconnect(int fd)
{
	const struct sockaddr nothing = { .sa_family = AF_UNSPEC };

	return connect(fd, &nothing, sizeof(nothing)) < 0 ?
		       fail(errno, "cannot disconnect a unix datagram socket") :
		       0;
}

static int connect_datagram(struct unix_socket *socket)
{
	struct unix_socket *other = other_of_pair(socket);

	if (unix_is_given(socket) || (other && (other == socket || other == socket->peer)))
		return 0; /* since its birth */
	if (socket->peer)
		return connect_to(socket->fd, &socket->peer->name);
	if (unix_has_ghost(socket))
		return connect_to(socket->fd, &socket->ghost_name);
	return socket->twin ? disconnect(socket->fd) : 0;
}

static int compare_distances(const void *left, const void *right)
{
	const struct unix_socket *a = *(struct unix_socket *const *)left,
				 *b = *(struct unix_socket *const *)right;

	return a->distance < b->distance ? 1 : a->distance > b->distance ? -1 : 0;
}

static int connect_datagrams(struct unix_sockets *sockets)
{
	struct unix_socket **items = NULL;
	size_t count = 0;
	int result = 0;

	for (size_t i = 0; i < sockets->count; i++)
		if (!unix_has_connections(sockets->items[i].entry))
			*grow(&items, &count) = &sockets->items[i];
	if (count)
		qsort(items, count, sizeof(*items), compare_distances);
	for (size_t i = 0; !result && i < count; i++) {
		result = connect_datagram(items[i]);
		if (result)
			fail_in(result, "file %u of files.img", items[i]->file->id);
	}
	free(items);
	return result;
}

/* ---- all of it ---- */

static int set_options(struct unix_sockets *sockets)
{
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++) {
		struct unix_socket *socket = &sockets->items[i];

		if (!unix_is_given(socket))
			result = socket_options_set(socket->file, socket->fd, socket->entry->opts);
	}
	return result;
}

static int make_all(struct snapshot *snapshot, struct unix_sockets *sockets)
{
	int result = make_pairs(snapshot, sockets) ?: create_all(sockets);

	/* A listener of the tree may have the same abstract name as a temporary one. */
	if (!result)
		result = make_temporary(snapshot, sockets) ?: connect_all(snapshot, sockets, true);
	unix_close_temporary(sockets);
	if (!result)
		result = bind_sockets(sockets) ?: listen_all(snapshot, sockets);
	if (!result)
		result = connect_all(snapshot, sockets, false) ?: connect_datagrams(sockets);
	return result ?: set_options(sockets);
}

int unix_open(struct snapshot *snapshot, struct file *file)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);
	struct unix_socket *socket = index_find(&sockets->by_file, file->id);
	int result = sockets->is_made ? 0 : make_all(snapshot, sockets);

	sockets->is_made = true;
	if (!result && socket->entry->uflags & UNIX_IS_OF_PLUGIN)
		return unix_open_by_plugin(snapshot, socket);
	return result ?: steal_fd(&socket->fd);
}
