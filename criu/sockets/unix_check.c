/*
 * unix_check.c - restore: which sockets the images have, how they belong together, and whether they can be made here.
 */
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "sockets/options.h"
#include "sockets/queue.h"
#include "sockets/unix_steps.h"

#define MOST_GROUPS 65536 /* NGROUPS_MAX */

static int is_wrong(const struct unix_socket *socket, const char *what)
{
	return fail(EINVAL, "files.img: file %u is a unix socket %s", socket->file->id, what);
}

static bool is_possible_name(const ProtobufCBinaryData *name)
{
	const uint8_t *end;

	if (!name->len || !name->data[0])
		return name->len < LONGEST_NAME;
	end = memchr(name->data, '\0', name->len);
	return name->len <= LONGEST_NAME && (!end || end == name->data + name->len - 1);
}

static bool is_absolute(const char *path)
{
	return !path || path[0] == '/';
}

static bool is_possible_peer(const UnixPeerEntry *peer)
{
	return !peer || (peer->pid <= INT_MAX && peer->n_groups <= MOST_GROUPS);
}

static int check_connections(const struct unix_socket *socket)
{
	for (size_t i = 0; i < socket->entry->n_connections; i++) {
		const UnixWaitingEntry *waiting = socket->entry->connections[i];

		if ((waiting->has_name && !is_possible_name(&waiting->name)) ||
		    !is_possible_peer(waiting->client_cred))
			return is_wrong(socket, "with an impossible connection that waits");
	}
	return 0;
}

static int check_message(const struct unix_socket *socket)
{
	const UnixSkEntry *entry = socket->entry;

	if (!unix_has_connections(entry) && entry->type != SOCK_DGRAM)
		return is_wrong(socket, "of an unknown type");
	if (entry->state != TCP_ESTABLISHED && entry->state != TCP_LISTEN && entry->state != TCP_CLOSE)
		return is_wrong(socket, "in an unknown state");
	if (entry->state == TCP_LISTEN && (!unix_has_connections(entry) || entry->peer || !entry->name.len ||
					   entry->backlog > INT_MAX || entry->peer_gone))
		return is_wrong(socket, "that cannot listen");
	if ((entry->state != TCP_LISTEN && entry->n_waiting) ||
	    (entry->n_connections && entry->n_connections != entry->n_waiting))
		return is_wrong(socket, "with connections that wait, and cannot");
	if (entry->peer && entry->peer_gone)
		return is_wrong(socket, "whose peer was closed, and was not");
	if (!is_possible_name(&entry->name) || (entry->has_peer_name && !is_possible_name(&entry->peer_name)))
		return is_wrong(socket, "with an impossible name");
	if (!is_absolute(entry->name_dir) || !is_absolute(entry->path))
		return is_wrong(socket, "whose directory is not absolute");
	if (entry->has_shutdown && (unsigned)entry->shutdown > SK_SHUTDOWN__BOTH)
		return is_wrong(socket, "that was shut down in an unknown way");
	if (!is_possible_peer(entry->peer_cred))
		return is_wrong(socket, "with impossible credentials");
	return check_connections(socket);
}

/* ---- how they belong together ---- */

static int find_peer(const struct unix_sockets *sockets, struct unix_socket *socket)
{
	const UnixSkEntry *entry = socket->entry;
	struct unix_socket *peer = entry->peer ? index_find(&sockets->by_inode, entry->peer) : NULL;

	socket->outside = index_find(&sockets->outside, entry->peer);
	if (!entry->peer || socket->outside)
		return 0;
	if (!peer)
		return fail(EINVAL, "files.img: the peer of file %u (a unix socket) is missing",
			    socket->file->id);
	if (peer->entry->type != entry->type)
		return is_wrong(socket, "that is connected to one of another type");
	if (unix_has_connections(entry) && peer->entry->state == TCP_LISTEN) {
		socket->listener = peer;
		return 0;
	}
	if (unix_has_connections(entry) && (peer->entry->peer != entry->ino || peer == socket))
		return is_wrong(socket, "whose peer is not connected to it");
	/* Nothing else than the birth as a pair connects to a socket without a name. */
	if (!peer->entry->name.len && peer->entry->peer != entry->ino && peer->twin)
		return is_wrong(socket, "that is connected to one that has another peer");
	if (!peer->entry->name.len && peer != socket) {
		peer->twin = socket;
		socket->is_twin = true;
	}
	socket->peer = peer;
	return 0;
}

/*
 * Datagram sockets are connected before their peers are, because a socket that is connected to another one accepts no
 * connection. So no circle of more than two can exist.
 */
static int find_distance(struct unix_sockets *sockets, struct unix_socket *from)
{
	struct unix_socket *socket = from;
	unsigned distance = 0, known;

	for (; socket->peer && !socket->distance && distance <= sockets->count; socket = socket->peer) {
		distance++;
		if (socket->peer->peer == socket) /* also a socket that is connected to itself */
			break;
	}
	if (distance > sockets->count)
		return is_wrong(from, "in a circle of connections");
	known = socket->distance;
	for (socket = from; distance; socket = socket->peer)
		socket->distance = known + distance--;
	return 0;
}

static struct unix_waiting *add_waiting(struct unix_sockets *sockets, struct unix_socket *listener,
					struct unix_socket *client)
{
	struct unix_waiting *waiting = grow(&sockets->waiting, &sockets->waiting_count);

	*waiting = (struct unix_waiting){ .listener = listener, .client = client, .fd = -1 };
	unix_name_init(&waiting->name, &(ProtobufCBinaryData){ 0 });
	if (client)
		client->waits = true;
	listener->waiting_count++;
	return waiting;
}

/* The clients that wait are in the message of the listener. criu 4.2.1 has no order: then it is that of the files. */
static int find_waiting(struct unix_sockets *sockets, struct unix_socket *listener)
{
	const UnixSkEntry *entry = listener->entry;

	for (size_t i = 0; i < entry->n_waiting; i++) {
		struct unix_socket *client = index_find(&sockets->by_inode, entry->waiting[i]);
		bool is_closed = !entry->waiting[i] && entry->n_connections;
		struct unix_waiting *waiting;

		if (!is_closed && (!client || client->listener != listener || client->waits))
			return is_wrong(listener, "with an unknown connection that waits");
		waiting = add_waiting(sockets, listener, is_closed ? NULL : client);
		waiting->entry = entry->n_connections ? entry->connections[i] : NULL;
		if (is_closed)
			unix_name_init(&waiting->name, &waiting->entry->name);
	}
	return 0;
}

/* A socket is born only once. */
static int check_twin(const struct unix_socket *socket)
{
	if (!socket->twin)
		return 0;
	if (socket->is_twin && socket->peer != socket->twin)
		return is_wrong(socket, "that was born twice");
	if (unix_has_ghost(socket) && !socket->entry->peer_name.len)
		return is_wrong(socket, "that was born twice");
	return 0;
}

static int find_all(struct unix_sockets *sockets)
{
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++)
		result = find_peer(sockets, &sockets->items[i]);
	for (size_t i = 0; !result && i < sockets->count; i++)
		if (!unix_has_connections(sockets->items[i].entry))
			result = check_twin(&sockets->items[i]) ?: find_distance(sockets, &sockets->items[i]);
	for (size_t i = 0; !result && i < sockets->count; i++)
		result = find_waiting(sockets, &sockets->items[i]);
	for (size_t i = 0; !result && i < sockets->count; i++) {
		struct unix_socket *client = &sockets->items[i];

		if (client->listener && !client->waits)
			add_waiting(sockets, client->listener, client);
	}
	return result;
}

/* Nobody has it: it holds the name of the peer. */
static int add_outside(struct unix_sockets *sockets, struct file *file)
{
	UnixSkEntry *entry = file->entry->usk;

	file->is_only_path = true;
	if (!is_possible_name(&entry->name))
		return fail(EINVAL, "files.img: file %u is a unix socket with an impossible name", file->id);
	index_set(&sockets->outside, entry->ino, entry);
	return 0;
}

static int add_socket(struct unix_sockets *sockets, struct unix_socket *socket, struct file *file)
{
	*socket = (struct unix_socket){
		.file = file,
		.entry = file->entry->usk,
		.fd = -1,
		.ghost = -1,
	};
	unix_name_init(&socket->name, &socket->entry->name);
	unix_name_init(&socket->ghost_name, &socket->entry->peer_name);
	if (index_find(&sockets->by_inode, socket->entry->ino))
		return is_wrong(socket, "with the number of another one");
	index_set(&sockets->by_inode, socket->entry->ino, socket);
	index_set(&sockets->by_file, file->id, socket);
	return check_message(socket);
}

/* What connections that wait have received is in queues that belong to no file. */
static int expect_queues(struct snapshot *snapshot, const struct file *listener)
{
	const UnixSkEntry *entry = listener->entry->usk;
	int result = 0;

	for (size_t i = 0; !result && i < entry->n_connections; i++)
		if (entry->connections[i]->has_queue)
			result = socket_queue_expect(snapshot, entry->connections[i]->queue, listener);
	return result;
}

int unix_load(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_unix);
	struct unix_sockets *sockets = unix_sockets_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < files->count; i++)
		result = expect_queues(snapshot, files->items[i]);
	result = result ?: socket_queues_load(snapshot);
	sockets->items = allocate_array(files->count, sizeof(*sockets->items));
	for (size_t i = 0; !result && i < files->count; i++)
		if (files->items[i]->entry->usk->uflags & UNIX_IS_OUTSIDE)
			result = add_outside(sockets, files->items[i]);
		else
			result = add_socket(sockets, &sockets->items[sockets->count++], files->items[i]);
	return result ?: find_all(sockets);
}

static int check_queues(struct snapshot *snapshot, const struct unix_socket *socket)
{
	const UnixSkEntry *entry = socket->entry;
	int result = 0;

	if (entry->state != TCP_LISTEN)
		return socket_queue_check(snapshot, socket->file->id, entry->type);
	for (size_t i = 0; !result && i < entry->n_connections; i++)
		if (entry->connections[i]->has_queue)
			result = socket_queue_check(snapshot, entry->connections[i]->queue, entry->type);
	return result;
}

int unix_check(struct snapshot *snapshot, struct file *file)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);
	struct unix_socket *socket = index_find(&sockets->by_file, file->id);
	struct unix_facts *facts;
	int result = socket_options_check(file, socket->entry->opts);

	if (!result && socket->entry->uflags & UNIX_IS_OF_PLUGIN)
		return unix_check_plugin(socket);
	if (!sockets->is_planned)
		unix_plan(snapshot);
	sockets->is_planned = true;
	result = result ?: check_queues(snapshot, socket);
	if (!result && socket->outside)
		result = unix_check_outside(snapshot, socket);
	if (result || !socket->name.size || socket->is_accepted)
		return result;
	socket->name.place = unix_place_of(socket->entry);
	return unix_facts_of(snapshot, &facts) ?: unix_check_place(facts, file, &socket->name);
}
