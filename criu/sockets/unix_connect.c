/*
 * unix_connect.c - restore: connections that nobody has accepted yet.
 *
 * The client connects again, in the name of the process that had connected, and sends again what it had sent. A client
 * that was closed is made, too, and closed again.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "sockets/queue.h"
#include "sockets/unix_steps.h"

static int fd_of(const struct unix_waiting *waiting)
{
	return waiting->client ? waiting->client->file->fd : waiting->fd;
}

/* ---- clients that were closed ---- */

/* Another socket may have the name now, or two had it one after the other. */
static int bind_abstract(const struct unix_waiting *waiting)
{
	struct sockaddr_un address;
	socklen_t size = unix_address(&waiting->name, &address);

	if (bind(waiting->fd, (const struct sockaddr *)&address, size) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return fail(errno, "cannot bind a unix socket to @%.*s", (int)waiting->name.size - 1,
			    waiting->name.bytes + 1);
	log_warning(
		"file %u has a connection that waits, of a socket @%.*s that was closed, and another one has this name now: "
		"getpeername() gives none",
		waiting->listener->file->id, (int)waiting->name.size - 1, waiting->name.bytes + 1);
	return 0;
}

static int make_client(struct unix_waiting *waiting, struct unix_bindings *paths)
{
	waiting->fd = unix_new_socket(waiting->listener->entry->type);
	if (waiting->fd < 0)
		return waiting->fd;
	if (waiting->name.size && !waiting->name.bytes[0])
		return bind_abstract(waiting);
	if (waiting->name.size)
		*grow(&paths->items, &paths->count) = (struct unix_binding){ &waiting->name, waiting->fd };
	return 0;
}

static int make_closed(struct unix_sockets *sockets)
{
	struct unix_bindings paths = { 0 };
	int result = 0;

	for (size_t i = 0; !result && i < sockets->waiting_count; i++)
		if (!sockets->waiting[i].client)
			result = make_client(&sockets->waiting[i], &paths);
	result = result ?: unix_bind_all(&paths);
	free(paths.items);
	return result;
}

void unix_forget_waiting(struct unix_waiting *waiting)
{
	autoclose_clean(&waiting->fd);
	waiting->fd = -1;
	unix_forget_name(&waiting->name);
}

/* ---- all of them ---- */

int unix_connect_waiting(struct snapshot *snapshot, struct unix_sockets *sockets)
{
	struct unix_works works = { 0 };
	int result = make_closed(sockets);

	for (size_t i = 0; !result && i < sockets->waiting_count; i++) {
		const struct unix_waiting *waiting = &sockets->waiting[i];
		UnixPeerEntry guess;
		struct unix_work *work = unix_work_add(&works, UNIX_CONNECT,
						       unix_maker_of_waiting(waiting, &guess));

		work->fd = fd_of(waiting);
		work->address_size = unix_address(&waiting->listener->name, &work->address);
	}
	result = result ?: unix_works_do(snapshot, &works);
	unix_works_free(&works);
	return result;
}

static struct socket_queue *queue_of(const struct snapshot *snapshot, const struct unix_waiting *waiting)
{
	const UnixWaitingEntry *entry = waiting->entry;

	return entry && entry->has_queue ? socket_queue_find(snapshot, entry->queue) : NULL;
}

int unix_fill_waiting(struct snapshot *snapshot, struct unix_sockets *sockets, bool is_late)
{
	int result = 0;

	for (size_t i = 0; !result && i < sockets->waiting_count; i++) {
		const struct unix_waiting *waiting = &sockets->waiting[i];
		struct socket_queue *queue = queue_of(snapshot, waiting);
		const struct socket_delivery delivery = {
			.receiver = waiting->listener->file,
			.peer = fd_of(waiting),
		};

		if (!queue)
			continue;
		if (socket_queue_has_late(snapshot, queue) == is_late)
			result = socket_queue_fill(snapshot, queue, &delivery);
		else
			sockets->waits_for_late = true;
	}
	return result;
}

void unix_forget_all_waiting(struct unix_sockets *sockets)
{
	for (size_t i = 0; i < sockets->waiting_count; i++)
		unix_forget_waiting(&sockets->waiting[i]);
}
