/*
 * inet_make.c - restore: makes all IP sockets at once, when the first is to be opened.
 *
 *	listeners, and all others that are not connected by TCP: bound, connected
 *	connections of TCP, in repair mode. In it they take part in no conflict of bind(); so their addresses can be those
 *	of listeners, whatever SO_REUSEADDR is
 *
 * Connections stay in repair mode, and their packets blocked, until nothing can fail any more: release().
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "sockets/inet.h"
#include "sockets/tcp_leftovers.h"

#define AWAITED_US    10000
#define AWAITED_TIMES 200 /* an address that another program leaves just now: 2 s */
#define DISCARD_PORT  9
#define OF_LOCK	      4 /* descriptors of the network lock and of the guard */

static int fail_socket(const struct inet_socket *socket, int error, const char *what)
{
	autofree char *words = inet_in_words(socket);

	return fail(error, "file %u (IP socket, %s): cannot %s", socket->file->id, words, what);
}

static int set_flag(const struct inet_socket *socket, int option, int value, const char *name)
{
	return setsockopt(socket->fd, SOL_SOCKET, option, &value, sizeof(value)) < 0 ?
		       fail_socket(socket, errno, name) :
		       0;
}

static int new_socket(const InetSkEntry *entry)
{
	return socket(entry->family, entry->type | SOCK_CLOEXEC | SOCK_NONBLOCK, entry->proto);
}

static int create(struct inet_socket *socket)
{
	const InetSkEntry *entry = socket->entry;
	int result;

	socket->fd = new_socket(entry);
	if (socket->fd < 0)
		return fail_socket(socket, errno, "create it");
	result = socket_options_set(socket->file, socket->fd, entry->opts);
	return result ?: ip_options_set(socket->file, socket->fd, entry);
}

/* Once for a restore: makes the kernel forget connections that are in the way, and that no process has. */
static void forget_leftovers(struct inet_sockets *sockets)
{
	autofree struct network_connection *connections = allocate_array(sockets->count,
									 sizeof(*connections));
	autofree union ip_address *bound = allocate_array(sockets->count, sizeof(*bound));
	size_t connection_count = 0, bound_count = 0;

	if (sockets->has_forgotten)
		return;
	sockets->has_forgotten = true;
	for (size_t i = 0; i < sockets->count; i++) {
		const struct inet_socket *socket = &sockets->items[i];

		if (inet_is_stream(socket->entry))
			connections[connection_count++] = (struct network_connection){ socket->own,
										       socket->other };
		else if (inet_is_tcp(socket->entry))
			bound[bound_count++] = socket->own;
	}
	ignore(attempted(tcp_forget_leftovers(connections, connection_count, bound, bound_count)));
}

/* Another program may just be leaving the address. */
static int try_bind(struct inet_sockets *sockets, const struct inet_socket *socket)
{
	for (int i = 0; i < AWAITED_TIMES; i++) {
		if (bind(socket->fd, &socket->own.any, ip_address_size(&socket->own)) == 0)
			return 0;
		if (errno != EADDRINUSE)
			break;
		if (sockets->has_forgotten)
			usleep(AWAITED_US);
		forget_leftovers(sockets);
	}
	return errno;
}

static int bind_it(struct inet_sockets *sockets, const struct inet_socket *socket)
{
	int error = ip_address_is_any(&socket->own) ? 0 : try_bind(sockets, socket), result;

	if (!error)
		return 0;
	result = fail_socket(socket, error, "bind it");
	if (error == EADDRNOTAVAIL)
		fail_advice("give this machine the address first (ip address add)");
	return result;
}

/* ---- TCP, not connected ---- */

/* Old connections of this address, of which the kernel still keeps something, are no obstacle then. */
static int bind_beside_old(struct inet_sockets *sockets, const struct inet_socket *socket)
{
	int result = set_flag(socket, SO_REUSEADDR, 1, "set SO_REUSEADDR") ?: bind_it(sockets, socket);

	if (!result && socket->entry->state == TCP_LISTEN &&
	    listen(socket->fd, (int)socket->entry->backlog) < 0)
		result = fail_socket(socket, errno, "listen");
	return result ?: set_flag(socket, SO_REUSEADDR, socket->entry->opts->reuseaddr, "set SO_REUSEADDR");
}

/*
 * A connection that is closed by disconnecting counts as reset. In repair mode it can be made with any other end; the
 * packet of the reset goes to an address of this machine.
 */
static int imitate_reset(const struct inet_socket *socket)
{
	static const struct sockaddr nothing = { .sa_family = AF_UNSPEC };
	union ip_address here = { .any.sa_family = socket->entry->family };

	here.four.sin_port = htons(DISCARD_PORT);
	if (ip_address_is_six(&here))
		here.six.sin6_addr = (struct in6_addr)IN6ADDR_LOOPBACK_INIT;
	else
		here.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (tcp_repair_begin(socket->fd) || connect(socket->fd, &here.any, ip_address_size(&here)) < 0 ||
	    tcp_repair_end(socket->fd, false) || connect(socket->fd, &nothing, sizeof(nothing)) < 0)
		return fail_socket(socket, errno, "have its connection reset");
	return 0;
}

/*
 * Of a connection, only what is not in its state. The kernel notes what is shut down of any other socket, but says that
 * it is not connected.
 */
static void shut_down(const struct inet_socket *socket)
{
	const InetSkEntry *entry = socket->entry;
	unsigned ends = entry->has_shutdown ? entry->shutdown : SK_SHUTDOWN__NONE;

	if (inet_is_stream(entry))
		ends &= tcp_state_has_received_end(entry->state) ? SK_SHUTDOWN__NONE : SK_SHUTDOWN__READ;
	if (ends)
		shutdown(socket->file->fd, (int)ends - 1);
}

/* A connection that has ended may have had the address of a listener: in repair mode that is no conflict. */
static int bind_ended(struct inet_sockets *sockets, const struct inet_socket *socket)
{
	int result = tcp_repair_begin(socket->fd);

	if (result)
		return fail_socket(socket, -result, "begin to repair it");
	result = bind_it(sockets, socket);
	if (!result && tcp_repair_end(socket->fd, false))
		result = fail_socket(socket, errno, "end to repair it");
	return result ?: set_flag(socket, SO_REUSEADDR, socket->entry->opts->reuseaddr, "set SO_REUSEADDR");
}

static int make_unconnected(struct inet_sockets *sockets, const struct inet_socket *socket)
{
	const InetSkEntry *entry = socket->entry;
	int result = entry->has_reset && entry->reset ? imitate_reset(socket) : 0;

	if (result)
		return result;
	return entry->has_shutdown && entry->state == TCP_CLOSE ? bind_ended(sockets, socket) :
								  bind_beside_old(sockets, socket);
}

/* ---- connections of TCP ---- */

static int enlarge(const struct inet_socket *socket, int option, uint32_t size)
{
	int now = 0;
	socklen_t length = sizeof(now);

	if (getsockopt(socket->fd, SOL_SOCKET, option, &now, &length) == 0 && (uint32_t)now / 2 >= size)
		return 0;
	return setsockopt(socket->fd, SOL_SOCKET, option == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE,
			  &size, sizeof(size)) < 0 ?
		       fail_socket(socket, errno, "enlarge its buffers") :
		       0;
}

static int connect_stream(struct inet_sockets *sockets, const struct inet_socket *socket,
			  const struct tcp_ends *ends)
{
	int result = attempted(tcp_stream_connect(socket->fd, &socket->stream, ends));

	if (!result)
		return 0;
	if (result == -EADDRNOTAVAIL)
		forget_leftovers(sockets);
	return tcp_stream_connect(socket->fd, &socket->stream, ends); /* a failure is recorded now */
}

static int make_stream(struct inet_sockets *sockets, const struct inet_socket *socket)
{
	const struct tcp_ends ends = { socket->own, socket->other };
	const TcpStreamEntry *entry = &socket->stream.entry;
	int result = enlarge(socket, SO_SNDBUF, entry->outq_len) ?:
								   enlarge(socket, SO_RCVBUF, entry->inq_len);

	if (result)
		return result;
	result = tcp_repair_begin(socket->fd);
	if (result)
		return fail_socket(socket, -result, "begin to repair it");
	result = bind_it(sockets, socket) ?: connect_stream(sockets, socket, &ends);
	result = result ?: tcp_stream_make(socket->fd, &socket->stream, &ends);
	if (result)
		fail_in(result, "file %u of files.img", socket->file->id);
	return result;
}

/* ---- others ---- */

static int make_datagram(struct inet_sockets *sockets, const struct inet_socket *socket)
{
	int result = bind_it(sockets, socket);

	if (result || !socket->other.any.sa_family)
		return result;
	return connect(socket->fd, &socket->other.any, ip_address_size(&socket->other)) < 0 ?
		       fail_socket(socket, errno, "connect it") :
		       0;
}

/* ---- all ---- */

static int make(struct inet_sockets *sockets, const struct inet_socket *socket)
{
	if (!inet_is_tcp(socket->entry))
		return make_datagram(sockets, socket);
	return inet_is_stream(socket->entry) ? make_stream(sockets, socket) :
					       make_unconnected(sockets, socket);
}

static int make_those(struct inet_sockets *sockets, bool are_streams)
{
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++) {
		struct inet_socket *socket = &sockets->items[i];

		if (inet_is_stream(socket->entry) == are_streams)
			result = create(socket) ?: make(sockets, socket);
	}
	return result;
}

static int make_all(struct snapshot *snapshot, struct inet_sockets *sockets)
{
	return inet_lock(snapshot) ?: make_those(sockets, false) ?: make_those(sockets, true);
}

int inet_open(struct snapshot *snapshot, struct file *file)
{
	struct inet_sockets *sockets = inet_sockets_of(snapshot);
	struct inet_socket *socket = index_find(&sockets->by_file, file->id);
	int result = sockets->is_made ? 0 : make_all(snapshot, sockets);

	sockets->is_made = true;
	return result ?: steal_fd(&socket->fd);
}

static int finish(const struct inet_socket *socket)
{
	const struct file *file = socket->file;

	shut_down(socket);
	return ip_options_finish(file, file->fd, socket->entry) ?:
		       socket_options_finish(file, file->fd, socket->entry->opts);
}

/* What is unsent needs large buffers until it is in the queue again. */
static bool is_finished_last(const struct inet_socket *socket)
{
	return inet_is_stream(socket->entry) && socket->stream.entry.unsq_len;
}

int inet_join(struct snapshot *snapshot)
{
	struct inet_sockets *sockets = inet_sockets_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++)
		if (!is_finished_last(&sockets->items[i]))
			result = finish(&sockets->items[i]);
	return result;
}

static int end_repair(const struct inet_socket *socket)
{
	int result = tcp_stream_finish(socket->file->fd, &socket->stream);

	return result || !is_finished_last(socket) ? result : finish(socket);
}

static void list_guarded(struct inet_sockets *sockets)
{
	sockets->guarded = allocate_array(sockets->count, sizeof(*sockets->guarded));
	for (size_t i = 0; i < sockets->count; i++) {
		const struct inet_socket *socket = &sockets->items[i];

		if (inet_is_stream(socket->entry))
			sockets->guarded[sockets->guarded_count++] =
				(struct guarded_stream){ socket->file->fd, socket->entry->opts->reuseaddr };
	}
}

int inet_prepare_release(struct snapshot *snapshot)
{
	struct inet_sockets *sockets = inet_sockets_of(snapshot);
	int result;

	list_guarded(sockets);
	if (!sockets->guarded_count)
		return 0;
	result = network_guard_begin(&sockets->guard,
				     &(struct guarded){ .streams = sockets->guarded,
							.count = sockets->guarded_count,
							.lock = network_lock_descriptor(sockets->lock),
							.run_id = snapshot->run_id,
							.root = snapshot->root->here });
	for (size_t i = 0; !result && i < sockets->count; i++)
		if (inet_is_stream(sockets->items[i].entry))
			result = end_repair(&sockets->items[i]);
	return result;
}

void inet_release(struct snapshot *snapshot)
{
	struct inet_sockets *sockets = inet_sockets_of(snapshot);

	network_lock_end(steal_pointer(&sockets->lock));
	network_streams_go_on(sockets->guarded, sockets->guarded_count, snapshot->run_id);
	network_guard_end(sockets->guard);
	sockets->guard = 0;
}

void inet_close(struct snapshot *snapshot)
{
	struct inet_sockets *sockets = inet_sockets_of(snapshot);

	network_lock_end(sockets->lock);
	for (size_t i = 0; i < sockets->count; i++) {
		autoclose_clean(&sockets->items[i].fd);
		tcp_stream_free(&sockets->items[i].stream);
	}
	free(sockets->guarded);
	free(sockets->items);
	index_free(&sockets->by_file);
	*sockets = (struct inet_sockets){ 0 };
}

/* The sockets, which are all made before the first is open; the network lock; and what begins the guard. */
size_t inet_keeps(const struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_inet);

	for (size_t i = 0; i < files->count; i++) {
		const FileEntry *entry = files->items[i]->entry;

		if (entry && entry->isk && inet_is_stream(entry->isk))
			return files->count + OF_LOCK;
	}
	return files->count;
}
