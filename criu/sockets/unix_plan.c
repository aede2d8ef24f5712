/*
 * unix_plan.c - restore: how each connection is made, and by whom.
 *
 * Two ends without names were born as a pair. Otherwise one end has the name of a listener and was accepted. It is made
 * again by connecting the other end to a listener with this name: the one that the tree has, if the same process has
 * called listen(), or a temporary one. An end that nobody has open any more is a ghost: it is made, too, and closed
 * later.
 */
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "sockets/queue.h"
#include "sockets/unix_steps.h"

const UnixPeerEntry *unix_guess_maker(const struct task *holder, UnixPeerEntry *guess)
{
	const CredsEntry *creds;

	if (!holder || holder->state == TASK_DEAD)
		return NULL;
	creds = holder->cores[0]->thread_core->creds;
	unix_peer_entry__init(guess);
	guess->pid = holder->pid;
	guess->uid = creds->euid;
	guess->gid = creds->egid;
	guess->groups = creds->groups;
	guess->n_groups = creds->n_groups;
	return guess;
}

/* Images of criu 4.2.1 do not tell who: then it is the process that has the other end, or this one if there is none. */
const UnixPeerEntry *unix_maker_of_peer(const struct snapshot *snapshot, struct unix_socket *socket)
{
	const struct file *other = socket->peer ? socket->peer->file : socket->file;

	if (socket->entry->peer_cred || !snapshot->is_of_another)
		return socket->entry->peer_cred;
	return unix_guess_maker(other->holder ?: socket->file->holder, &socket->guess);
}

/* If nobody has looked, it is nearly always the process that has the client. */
const UnixPeerEntry *unix_maker_of_waiting(const struct unix_waiting *waiting, UnixPeerEntry *guess)
{
	if (waiting->entry && waiting->entry->client_cred)
		return waiting->entry->client_cred;
	return waiting->client ? unix_guess_maker(waiting->client->file->holder, guess) : NULL;
}

static void note_listener(struct unix_sockets *sockets, struct unix_socket *socket)
{
	uint64_t key = unix_name_hash(socket->name.bytes, socket->name.size);

	if (socket->entry->state != TCP_LISTEN)
		return;
	while (index_find(&sockets->listeners, key))
		key++;
	index_set(&sockets->listeners, key, socket);
}

/* Those with equal hashes are beside each other. */
static void note_datagram(struct unix_sockets *sockets, struct unix_socket *socket)
{
	uint64_t key = unix_name_hash(socket->name.bytes, socket->name.size);

	if (unix_has_connections(socket->entry) || !socket->name.size)
		return;
	while (index_find(&sockets->datagrams, key))
		key++;
	index_set(&sockets->datagrams, key, socket);
}

struct unix_socket *unix_find_datagram(const struct unix_sockets *sockets, const void *name, size_t size)
{
	struct unix_socket *found;

	for (uint64_t key = unix_name_hash(name, size); (found = index_find(&sockets->datagrams, key)); key++)
		if (found->name.size == size && !memcmp(found->name.bytes, name, size))
			return found;
	return NULL;
}

static bool has_name_of_listener(const struct unix_sockets *sockets, const struct unix_socket *socket)
{
	const struct unix_socket *found;

	for (uint64_t key = unix_name_hash(socket->name.bytes, socket->name.size);
	     (found = index_find(&sockets->listeners, key)); key++)
		if (found->entry->type == socket->entry->type && found->name.size == socket->name.size &&
		    !memcmp(found->name.bytes, socket->name.bytes, socket->name.size))
			return true;
	return false;
}

/* Both ends have names. criu 4.2.1 does not tell which has that of a listener. */
static bool is_accepted_end(const struct unix_sockets *sockets, const struct unix_socket *a,
			    const struct unix_socket *b)
{
	if (a->entry->accepted != b->entry->accepted)
		return a->entry->accepted;
	if (has_name_of_listener(sockets, a) != has_name_of_listener(sockets, b))
		return has_name_of_listener(sockets, a);
	return a->entry->ino >
	       b->entry->ino; /* probably; accept() comes last, and the kernel counts for each CPU */
}

/* Which end was accepted? The place of its path is not its own. */
static void find_accepted(const struct unix_sockets *sockets, struct unix_socket *socket)
{
	struct unix_socket *peer = socket->peer;
	const UnixSkEntry *entry = socket->entry;

	if (!unix_has_connections(entry))
		return;
	if (!peer) {
		socket->is_accepted = unix_has_ghost(socket) && entry->name.len && !entry->peer_name.len;
		return;
	}
	if (peer < socket)
		return;
	if (!peer->entry->name.len || !entry->name.len) {
		socket->is_accepted = entry->name.len;
		peer->is_accepted = peer->entry->name.len;
	} else {
		socket->is_accepted = is_accepted_end(sockets, socket, peer);
		peer->is_accepted = !socket->is_accepted;
	}
}

/* ---- listeners ---- */

/* What a connection needs of a listener. */
struct wanted {
	uint32_t type;
	const ProtobufCBinaryData *name;
	const UnixPeerEntry *maker; /* NULL: any */
};

static uint64_t hash_wanted(const struct wanted *wanted)
{
	uint64_t sum = wanted->type;

	for (size_t i = 0; i < wanted->name->len; i++)
		sum = index_mix(sum, wanted->name->data[i]);
	if (wanted->maker)
		sum = index_mix(index_mix(sum, wanted->maker->pid), wanted->maker->uid);
	return sum;
}

static bool is_same_maker(const UnixPeerEntry *a, const UnixPeerEntry *b)
{
	if (!a || !b)
		return a == b;
	return a->pid == b->pid && a->uid == b->uid && a->gid == b->gid && a->n_groups == b->n_groups &&
	       !memcmp(a->groups ?: (void *)"", b->groups ?: (void *)"", a->n_groups * sizeof(*a->groups));
}

static bool fits(const struct unix_factory *factory, const struct wanted *wanted)
{
	return factory->type == wanted->type && factory->name.size == wanted->name->len &&
	       !memcmp(factory->name.bytes, wanted->name->data, wanted->name->len) &&
	       is_same_maker(factory->maker, wanted->maker);
}

/* Finds or adds it; those that collide are beside each other. */
static struct unix_factory *get_factory(struct unix_sockets *sockets, const struct wanted *wanted)
{
	uint64_t key = hash_wanted(wanted);
	struct unix_factory *found;

	for (; (found = index_find(&sockets->by_name, key)); key++)
		if (fits(found, wanted))
			return found;
	found = *grow(&sockets->factories, &sockets->factory_count) = allocate(sizeof(*found));
	*found = (struct unix_factory){ .type = wanted->type, .maker = wanted->maker, .fd = -1 };
	unix_name_init(&found->name, wanted->name);
	index_set(&sockets->by_name, key, found);
	return found;
}

static void add_listener(struct snapshot *snapshot, struct unix_sockets *sockets, struct unix_socket *socket)
{
	const struct wanted wanted = { socket->entry->type, &socket->entry->name,
				       unix_maker_of_peer(snapshot, socket) };
	struct unix_factory *factory;

	if (socket->entry->state != TCP_LISTEN || unix_is_given(socket))
		return;
	factory = get_factory(sockets, &wanted);
	factory->listener = factory->listener ?: socket;
}

/* Of a connection, the end that was accepted has the factory. If that is a ghost, the client has it. */
static void find_factory(struct snapshot *snapshot, struct unix_sockets *sockets, struct unix_socket *socket)
{
	const UnixSkEntry *entry = socket->entry;
	struct wanted wanted = { .type = entry->type };

	if (unix_is_given(socket))
		return;
	if (socket->is_accepted) {
		wanted.name = &entry->name;
		wanted.maker = socket->peer ? unix_maker_of_peer(snapshot, socket->peer) : NULL;
	} else if (unix_has_connections(entry) && unix_has_ghost(socket) && entry->peer_name.len) {
		wanted.name = &entry->peer_name;
		wanted.maker = unix_maker_of_peer(snapshot, socket);
	} else {
		return;
	}
	socket->factory = get_factory(sockets, &wanted);
}

void unix_plan(struct snapshot *snapshot)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);

	for (size_t i = 0; i < sockets->count; i++) {
		note_listener(sockets, &sockets->items[i]);
		note_datagram(sockets, &sockets->items[i]);
	}
	for (size_t i = 0; i < sockets->count; i++)
		find_accepted(sockets, &sockets->items[i]);
	for (size_t i = 0; i < sockets->count; i++)
		add_listener(snapshot, sockets, &sockets->items[i]);
	for (size_t i = 0; i < sockets->count; i++)
		find_factory(snapshot, sockets, &sockets->items[i]);
}

/* ---- what it takes ---- */

static size_t keeps_at_dump(const UnixSkEntry *entry)
{
	size_t count = unix_has_path(entry) + 2 * entry->peer_gone;

	for (size_t i = 0; i < entry->n_connections; i++)
		count += entry->waiting[i] ? 0 : 1 + entry->connections[i]->has_name;
	return count;
}

size_t unix_keeps(const struct snapshot *snapshot)
{
	const struct unix_sockets *sockets = unix_sockets_of(snapshot);
	const struct file_list *files = files_of_kind(snapshot, &file_kind_unix);
	size_t count = socket_queues_keep(snapshot);

	/* A dump does not know more than this. */
	for (size_t i = 0; !sockets->items && i < files->count; i++)
		if (files->items[i]->entry && files->items[i]->entry->usk)
			count += keeps_at_dump(files->items[i]->entry->usk);

	for (size_t i = 0; i < sockets->count; i++) {
		const struct unix_socket *socket = &sockets->items[i];

		count += unix_has_path(socket->entry) && !socket->is_accepted;
		if (unix_has_ghost(socket))
			count += 1 + !unix_has_connections(socket->entry);
	}
	for (size_t i = 0; i < sockets->waiting_count; i++)
		count += sockets->waiting[i].client ? 0 : 1 + (sockets->waiting[i].name.size > 0);
	for (size_t i = 0; i < sockets->factory_count; i++)
		count += sockets->factories[i]->listener ? 0 : 2;
	return count;
}
