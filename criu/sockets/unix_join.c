/*
 * unix_join.c - restore: what is left to do with unix sockets when all files are open. In this order:
 *
 *	the last options of listeners: a connection that waits gets some of them
 *	connections that wait to be accepted, in their order; the length of that queue
 *	what was received and not read, also by those connections; if a message has a file that exists only when the
 *	processes do, this and what follows are done then
 *	ghosts are closed: with something unread, if the other end must see that the connection was reset
 *	what was shut down; the last options; owner and mode of sockets, and of the files that they are bound to
 *
 * release() puts these files in their places.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/inode.h"
#include "sockets/options.h"
#include "sockets/queue.h"
#include "sockets/unix_steps.h"

/* ---- connections that wait ---- */

static int finish_listeners(struct unix_sockets *sockets)
{
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++) {
		const struct unix_socket *socket = &sockets->items[i];

		if (socket->entry->state == TCP_LISTEN && !unix_is_given(socket))
			result = socket_options_finish(socket->file, socket->file->fd, socket->entry->opts);
	}
	return result;
}

static int limit_queues(struct snapshot *snapshot, struct unix_sockets *sockets)
{
	struct unix_works works = { 0 };
	int result;

	for (size_t i = 0; i < sockets->count; i++) {
		struct unix_socket *socket = &sockets->items[i];
		struct unix_work *work;

		if (socket->entry->state != TCP_LISTEN || unix_is_given(socket) ||
		    unix_first_backlog(socket) == (int)socket->entry->backlog)
			continue;
		work = unix_work_add(&works, UNIX_LISTEN, unix_maker_of_peer(snapshot, socket));
		work->fd = socket->file->fd;
		work->backlog = socket->entry->backlog;
	}
	unix_works_sort(&works);
	result = unix_works_do(snapshot, &works);
	unix_works_free(&works);
	return result;
}

/* ---- queues ---- */

static int find_sender(void *context, const void *name, size_t size)
{
	const struct unix_socket *found = unix_find_datagram(context, name, size);

	return found ? found->file->fd : -1;
}

/* A datagram socket without an address gets messages only from the other end of its pair. */
static int peer_of(const struct unix_socket *socket)
{
	const struct unix_socket *peer = socket->peer;

	if (!peer)
		return socket->ghost;
	return unix_has_connections(socket->entry) || socket->name.size || peer->peer == socket ?
		       peer->file->fd :
		       -1;
}

static int fill_queue(struct snapshot *snapshot, struct unix_sockets *sockets, struct unix_socket *socket,
		      struct socket_queue *queue)
{
	struct socket_delivery delivery = {
		.receiver = socket->file,
		.peer = peer_of(socket),
		.find_sender = find_sender,
		.context = sockets,
	};

	if (unix_is_given(socket)) {
		log_warning(
			"file %u: its unread messages are not put into the unix socket that --inherit-fd gives",
			socket->file->id);
		return 0;
	}
	if (!unix_has_connections(socket->entry) && socket->name.size)
		delivery.address_size = unix_address(&socket->name, (struct sockaddr_un *)&delivery.address);
	return socket_queue_fill(snapshot, queue, &delivery);
}

/* Those with a message that has a late file, or all others. */
static int fill_queues(struct snapshot *snapshot, struct unix_sockets *sockets, bool is_late)
{
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++) {
		struct socket_queue *queue = socket_queue_find(snapshot, sockets->items[i].file->id);

		if (!queue)
			continue;
		if (socket_queue_has_late(snapshot, queue) == is_late)
			result = fill_queue(snapshot, sockets, &sockets->items[i], queue);
		else
			sockets->waits_for_late = true;
	}
	return result;
}

/* ---- the end ---- */

static int close_ghost(struct unix_socket *socket)
{
	int result = 0;

	if (socket->ghost < 0)
		return 0;
	if (socket->entry->reset && write(socket->file->fd, "", 1) != 1)
		result = fail(errno, "cannot write to a unix socket");
	close(steal_fd(&socket->ghost));
	unix_forget_name(&socket->ghost_name);
	return result;
}

static int shut_down(const struct unix_socket *socket)
{
	const UnixSkEntry *entry = socket->entry;

	if (!entry->has_shutdown || entry->shutdown == SK_SHUTDOWN__NONE)
		return 0;
	/* SHUT_RD, SHUT_WR, SHUT_RDWR are 0, 1, 2 */
	if (shutdown(socket->file->fd, entry->shutdown - 1) < 0 && errno != ENOTCONN)
		return fail(errno, "cannot shut down a unix socket");
	return 0;
}

static int set_inode(const struct unix_socket *socket)
{
	const UnixSkEntry *entry = socket->entry;
	const struct task *holder = socket->file->holder;
	const CredsEntry *creds = holder ? holder->cores[0]->thread_core->creds : NULL;
	uint32_t uid = entry->has_uid ? entry->uid : creds ? creds->fsuid : geteuid();
	uint32_t gid = entry->has_gid ? entry->gid : creds ? creds->fsgid : getegid();

	if (inode_set_owner(socket->file->fd, uid, gid) < 0)
		return fail(errno, "cannot give a unix socket to user %u", uid);
	if (entry->has_mode && inode_set_mode(socket->file->fd, entry->mode & 07777) < 0)
		return fail(errno, "cannot set the mode of a unix socket");
	return 0;
}

static int finish(struct unix_socket *socket)
{
	int result = shut_down(socket);

	if (!result && socket->entry->state != TCP_LISTEN)
		result = socket_options_finish(socket->file, socket->file->fd, socket->entry->opts);
	return result ?: set_inode(socket) ?: unix_finish_name(&socket->name, socket->entry->file_perms);
}

static int for_each(struct unix_sockets *sockets, int (*act)(struct unix_socket *))
{
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++) {
		if (unix_is_given(&sockets->items[i]))
			continue;
		result = act(&sockets->items[i]);
		if (result)
			fail_in(result, "file %u of files.img", sockets->items[i].file->id);
	}
	return result;
}

static int finish_all(struct unix_sockets *sockets)
{
	unix_forget_all_waiting(sockets);
	return for_each(sockets, close_ghost) ?: for_each(sockets, finish);
}

int unix_join(struct snapshot *snapshot)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);
	int result = finish_listeners(sockets) ?: unix_connect_waiting(snapshot, sockets);

	if (!result)
		result = limit_queues(snapshot, sockets) ?: fill_queues(snapshot, sockets, false);
	result = result ?: unix_fill_waiting(snapshot, sockets, false);
	if (!result && !sockets->waits_for_late)
		result = finish_all(sockets);
	return result ?: unix_connect_outside(snapshot, sockets);
}

/* The files of these messages exist now. The processes have copies of all sockets, so nothing ends before they run. */
int unix_join_late(struct snapshot *snapshot)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);

	if (!sockets->waits_for_late)
		return 0;
	return fill_queues(snapshot, sockets, true)		  ?:
		       unix_fill_waiting(snapshot, sockets, true) ?:
								    finish_all(sockets);
}

void unix_release(struct snapshot *snapshot)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);

	for (size_t i = 0; i < sockets->count; i++)
		unix_publish(&sockets->items[i].name);
}

static void close_socket(struct unix_socket *socket)
{
	if (socket->fd >= 0)
		close(steal_fd(&socket->fd));
	if (socket->ghost >= 0)
		close(steal_fd(&socket->ghost));
	unix_forget_name(&socket->name);
	unix_forget_name(&socket->ghost_name);
}

void unix_close(struct snapshot *snapshot)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);

	socket_queues_close(snapshot);
	unix_close_temporary(sockets);
	for (size_t i = 0; i < sockets->count; i++)
		close_socket(&sockets->items[i]);
	for (size_t i = 0; i < sockets->waiting_count; i++)
		unix_forget_waiting(&sockets->waiting[i]);
	for (size_t i = 0; i < sockets->factory_count; i++)
		free(sockets->factories[i]);
	free(sockets->factories);
	free(sockets->waiting);
	free(sockets->items);
	index_free(&sockets->by_inode);
	index_free(&sockets->by_file);
	index_free(&sockets->by_name);
	index_free(&sockets->datagrams);
	index_free(&sockets->ghosts);
	index_free(&sockets->listeners);
	index_free(&sockets->outside);
	unix_facts_free(&sockets->facts);
	*sockets = (struct unix_sockets){ 0 };
}
