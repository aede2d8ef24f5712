/*
 * inet.c - sockets of IPv4 and IPv6 (TCP, UDP, UDP-Lite, ICMP, raw): the kind of file, and its dump.
 *
 * Everything is asked of the socket itself, by a borrowed descriptor. A TCP connection is read when all files are known
 * and nothing was refused: the network lock blocks its packets from then on.
 */
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/message.h"
#include "kernel/place.h"
#include "kernel_constants.h"
#include "sockets/inet.h"
#include "sockets/own_network.h"

#define BATCH 64 /* connections of which criu has a descriptor at a time */

struct inet_sockets *inet_sockets_of(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_inet);
}

char *inet_in_words(const struct inet_socket *socket)
{
	char own[IP_ADDRESS_TEXT], other[IP_ADDRESS_TEXT];

	if (!socket->other.any.sa_family)
		return copy_text(ip_address_text(&socket->own, own));
	return format_text("%s - %s", ip_address_text(&socket->own, own),
			   ip_address_text(&socket->other, other));
}

static int get_number(int fd, int level, int option)
{
	socklen_t size = sizeof(int);
	int value = 0;

	return getsockopt(fd, level, option, &value, &size) < 0 ? -errno : value;
}

static bool is_known(int type, int protocol)
{
	switch (type) {
	case SOCK_STREAM:
		return protocol == IPPROTO_TCP;
	case SOCK_DGRAM:
		return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE || protocol == IPPROTO_ICMP ||
		       protocol == IPPROTO_ICMPV6;
	default:
		return type == SOCK_RAW;
	}
}

static bool inet_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	autoclose int fd = -1;
	int family = socket_family(seen);

	if (family != AF_INET && family != AF_INET6)
		return false;
	fd = attempted(files_borrow(seen));
	return is_known(get_number(fd, SOL_SOCKET, SO_TYPE), get_number(fd, SOL_SOCKET, SO_PROTOCOL));
}

/* ---- one socket ---- */

static int refuse_socket(const struct inet_socket *socket, const char *why)
{
	const struct seen_file *seen = socket->file->seen;
	autofree char *words = inet_in_words(socket);

	return refuse("process %d (%s): descriptor %d (%s, %s) %s", seen->holder.here, seen->holder.name,
		      seen->fd, seen->link, words, why);
}

static void set_words(const union ip_address *address, size_t *count, uint32_t **words)
{
	uint32_t made[IP_ADDRESS_WORDS];

	*count = ip_address_to_words(address, made);
	*words = copy_bytes(made, *count * sizeof(*made));
}

static int read_addresses(int fd, struct inet_socket *socket)
{
	InetSkEntry *entry = socket->entry;
	socklen_t size = sizeof(socket->own);

	if (getsockname(fd, &socket->own.any, &size) < 0)
		return fail(errno, "cannot read the address of a socket");
	size = sizeof(socket->other);
	if (getpeername(fd, &socket->other.any, &size) < 0) {
		if (errno != ENOTCONN)
			return fail(errno, "cannot read the address of the other end of a socket");
		socket->other.any.sa_family = AF_UNSPEC;
	}
	set_words(&socket->own, &entry->n_src_addr, &entry->src_addr);
	entry->src_port = ip_address_port(&socket->own);
	if (socket->other.any.sa_family) {
		set_words(&socket->other, &entry->n_dst_addr, &entry->dst_addr);
		entry->dst_port = ip_address_port(&socket->other);
	} else {
		message_array(entry, dst_addr, entry->n_src_addr);
	}
	return 0;
}

/* An address of a link is of one interface. */
static int read_scope(struct inet_socket *socket)
{
	const union ip_address *address = &socket->own;
	char name[IF_NAMESIZE];

	if (!ip_address_is_six(address))
		return 0;
	if (!address->six.sin6_scope_id)
		address = &socket->other;
	if (!ip_address_is_six(address) || !address->six.sin6_scope_id)
		return 0;
	if (!if_indextoname(address->six.sin6_scope_id, name))
		return fail(errno, "cannot read the name of interface %u", address->six.sin6_scope_id);
	socket->entry->ifname = copy_text(name);
	return 0;
}

static int read_state(int fd, struct inet_socket *socket)
{
	InetSkEntry *entry = socket->entry;
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);

	if (!inet_is_tcp(entry)) {
		entry->state = socket->other.any.sa_family ? TCP_ESTABLISHED : TCP_CLOSE;
		return 0;
	}
	if (getsockopt(fd, SOL_TCP, TCP_INFO, &info, &size) < 0)
		return fail(errno, "cannot read the state of a TCP socket");
	entry->state = info.tcpi_state;
	if (entry->state == TCP_LISTEN) {
		entry->backlog = info.tcpi_sacked;
		socket->waiting_count = info.tcpi_unacked;
	}
	return 0;
}

/*
 * What the kernel tells of a socket that was shut down; the state of a connection tells more. An error that waits to be
 * read could only be looked at by taking it: of TCP it means, nearly always, that the other end has reset the
 * connection.
 */
static int read_shutdown(int fd, InetSkEntry *entry)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN | POLLRDHUP };
	bool reads_nothing, writes_nothing;

	if (poll(&ready, 1, 0) < 0)
		return fail(errno, "cannot poll a socket");
	reads_nothing = ready.revents & POLLRDHUP;
	writes_nothing = reads_nothing && ready.revents & POLLHUP;
	if (reads_nothing)
		message_set(entry, shutdown, writes_nothing ? SK_SHUTDOWN__BOTH : SK_SHUTDOWN__READ);
	if (writes_nothing && ready.revents & POLLERR && entry->state == TCP_CLOSE && inet_is_tcp(entry))
		message_set(entry, reset, true);
	return 0;
}

/* ---- what is refused ---- */

static int refuse_connection(const struct inet_socket *socket)
{
	fail_advice("--tcp-established to keep it, or --tcp-close to have it closed");
	return refuse_socket(socket, "is a TCP connection");
}

static int judge_state(const struct snapshot *snapshot, int fd, const struct inet_socket *socket)
{
	const InetSkEntry *entry = socket->entry;
	char layer[16] = "";
	socklen_t size = sizeof(layer) - 1;

	if (!inet_is_tcp(entry))
		return 0;
	if (getsockopt(fd, SOL_TCP, TCP_ULP, layer, &size) == 0 && size && layer[0]) {
		autofree char *why =
			format_text("has an upper layer in the kernel (%s), whose state nobody can read: "
				    "end that connection first",
				    layer);

		return refuse_socket(socket, why);
	}
	if (entry->state == TCP_LISTEN && socket->waiting_count && !snapshot->policy.skips_in_flight) {
		fail_advice("--skip-in-flight to leave them out; or again when they were accepted");
		return refuse_socket(socket,
				     "has connections that wait to be accepted, which nobody can restore");
	}
	if (entry->state == TCP_SYN_SENT || entry->state == TCP_SYN_RECV)
		return refuse_socket(socket, "is connecting: again when it is connected");
	return tcp_state_is_connected(entry->state) && !snapshot->policy.keeps_connections &&
			       !snapshot->policy.closes_connections ?
		       refuse_connection(socket) :
		       0;
}

static int judge_queue(int fd, const struct inet_socket *socket)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };

	if (inet_is_tcp(socket->entry) || poll(&ready, 1, 0) < 0 || !(ready.revents & POLLIN))
		return 0;
	return refuse_socket(socket,
			     "has unread messages, which criu cannot save yet: they must be read first");
}

/* ---- the message ---- */

static int describe_by_descriptor(struct snapshot *snapshot, int fd, struct inet_socket *socket)
{
	InetSkEntry *entry = socket->entry;
	int result;

	result = socket_is_in_own_network(fd);
	if (!result)
		return refuse_socket(socket, "is in another network namespace than criu");
	if (result < 0)
		return result;
	entry->family = get_number(fd, SOL_SOCKET, SO_DOMAIN);
	entry->type = get_number(fd, SOL_SOCKET, SO_TYPE);
	entry->proto = get_number(fd, SOL_SOCKET, SO_PROTOCOL);
	result = read_addresses(fd, socket) ?: read_scope(socket) ?: read_state(fd, socket);
	result = result				  ?:
			 read_shutdown(fd, entry) ?:
			 ip_options_read(fd, entry, &inet_sockets_of(snapshot)->usual);
	return result ?: judge_state(snapshot, fd, socket) ?: judge_queue(fd, socket);
}

static SkOptsEntry **options_of(const struct file *file)
{
	return &file->entry->isk->opts;
}

static int inet_describe(struct snapshot *snapshot, struct file *file)
{
	struct inet_sockets *sockets = inet_sockets_of(snapshot);
	struct inet_socket *socket = grow(&sockets->items, &sockets->count);
	const struct task *root = snapshot->root;
	InetSkEntry *entry = file->entry->isk;
	autoclose int fd = files_borrow(file->seen);
	int result;

	*socket = (struct inet_socket){ .file = file, .entry = entry, .fd = -1 };
	tcp_stream_entry__init(&socket->stream.entry);
	if (fd < 0)
		return fd;
	entry->ino = file->seen->stat.st_ino;
	if (root->ids && root->ids->has_net_ns_id)
		message_set(entry, ns_id, root->ids->net_ns_id);
	result = socket_options_read_next(&sockets->options, files_of_kind(snapshot, file->kind), file, fd,
					  options_of);
	if (!unless_refused(result))
		result = describe_by_descriptor(snapshot, fd, socket) ?: result;
	return result;
}

/* ---- connections ---- */

/*
 * A part of the sockets, which a process of its own reads: if criu is killed, that one still completes the socket that it
 * is reading. It begins with no other, because the processes run then.
 */
struct batch {
	pid_t criu;
	struct inet_socket **items;
	int fds[BATCH];
	size_t count;
};

static int read_batch(void *argument)
{
	struct batch *batch = argument;

	for (size_t i = 0; i < batch->count && getppid() == batch->criu; i++) {
		struct inet_socket *socket = batch->items[i];
		int result = tcp_stream_read(batch->fds[i], &socket->stream);

		if (result) {
			autofree char *words = inet_in_words(socket);

			return fail_in(result, "socket %s", words);
		}
		socket->entry->state =
			socket->stream.state; /* it may have changed until packets were blocked */
	}
	return 0;
}

static int read_some(struct inet_socket **sockets, size_t count)
{
	struct place place = PLACE_HERE;
	struct batch batch = { .criu = getpid(), .items = sockets };
	int result = 0;

	place.outlives_criu = true;
	for (; !result && batch.count < count; batch.count++) {
		batch.fds[batch.count] = files_borrow(sockets[batch.count]->file->seen);
		if (batch.fds[batch.count] < 0) {
			result = batch.fds[batch.count];
			break;
		}
	}
	result = result ?: run_in(&place, read_batch, &batch);
	descriptors_close(batch.fds, batch.count);
	return result;
}

/* Those that are kept, of the sockets from `first` on. To be freed. */
static struct inet_socket **list_streams(struct inet_sockets *sockets, size_t first, size_t *count)
{
	struct inet_socket **list = allocate_array(sockets->count - first, sizeof(*list));

	*count = 0;
	for (size_t i = first; i < sockets->count; i++)
		if (inet_is_stream(sockets->items[i].entry))
			list[(*count)++] = &sockets->items[i];
	return list;
}

static int lock_streams(struct inet_sockets *sockets, struct inet_socket *const *streams, size_t count,
			enum network_lock_method method)
{
	autofree struct network_connection *connections = allocate_array(count, sizeof(*connections));

	for (size_t i = 0; i < count; i++)
		connections[i] = (struct network_connection){ streams[i]->own, streams[i]->other };
	return network_lock_add(&sockets->lock, method, connections, count);
}

int inet_lock(struct snapshot *snapshot)
{
	struct inet_sockets *sockets = inet_sockets_of(snapshot);
	size_t count;
	autofree struct inet_socket **streams = list_streams(sockets, sockets->held_count, &count);

	return lock_streams(sockets, streams, count, snapshot->policy.network_lock);
}

/* A random UUID (RFC 9562, version 4), as criu 4.2.1 writes it. */
static int choose_run_id(struct snapshot *snapshot)
{
	uint8_t bytes[16];
	char *text = snapshot->run_id;

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return fail(errno, "cannot get random bytes");
	bytes[6] = (bytes[6] & 0x0f) | 0x40;
	bytes[8] = (bytes[8] & 0x3f) | 0x80;
	for (size_t i = 0; i < sizeof(bytes); i++)
		text += sprintf(text, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", bytes[i]);
	return 0;
}

void inet_close_stream(InetSkEntry *entry)
{
	entry->state = TCP_CLOSE;
	message_set(entry, shutdown, SK_SHUTDOWN__BOTH);
	message_set(entry, reset, true);
}

/* Reads those that have become known since the last time. */
static int hold_streams(struct snapshot *snapshot)
{
	struct inet_sockets *sockets = inet_sockets_of(snapshot);
	size_t count;
	autofree struct inet_socket **streams = list_streams(sockets, sockets->held_count, &count);
	int result = 0;

	if (snapshot->policy.closes_connections) {
		for (size_t i = 0; i < count; i++)
			inet_close_stream(streams[i]->entry);
		return 0;
	}
	if (count && !snapshot->run_id[0])
		result = choose_run_id(snapshot);
	result = result ?: inet_lock(snapshot);
	for (size_t done = 0; !result && done < count; done += BATCH)
		result = read_some(streams + done, min(count - done, (size_t)BATCH));
	sockets->held_count = sockets->count;
	return result;
}

/* Those that were in flight. */
static int inet_judge(struct snapshot *snapshot)
{
	return refusals() ? 0 : hold_streams(snapshot);
}

static int save_stream(const struct snapshot *snapshot, const struct inet_socket *socket)
{
	const TcpStreamEntry *entry = &socket->stream.entry;
	struct image *image;
	int result = image_create(snapshot->images, &image, IMAGE_TCP_STREAM, socket->entry->ino);

	if (result)
		return result;
	result = image_write(image, &entry->base);
	if (!result && entry->inq_len)
		result = image_write_bytes(image, socket->stream.received, entry->inq_len);
	if (!result && entry->outq_len)
		result = image_write_bytes(image, socket->stream.sent, entry->outq_len);
	return image_close(image) ?: result;
}

static int inet_save(struct snapshot *snapshot)
{
	const struct inet_sockets *sockets = inet_sockets_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < sockets->count; i++)
		if (inet_is_stream(sockets->items[i].entry))
			result = save_stream(snapshot, &sockets->items[i]);
	return result;
}

/* ---- the end ---- */

static bool inet_needs_prepare_end(const struct snapshot *snapshot)
{
	return inet_sockets_of(snapshot)->lock;
}

static int inet_prepare_end(struct snapshot *snapshot)
{
	return network_lock_keep(inet_sockets_of(snapshot)->lock, snapshot->run_id);
}

static void inet_abandon_end(struct snapshot *snapshot)
{
	network_lock_remove_kept(snapshot->run_id);
}

/* A connection that is closed in repair mode ends without a packet. */
static void inet_end(struct snapshot *snapshot)
{
	const struct inet_sockets *sockets = inet_sockets_of(snapshot);

	for (size_t i = 0; i < sockets->count; i++) {
		const struct inet_socket *socket = &sockets->items[i];
		autoclose int fd = -1;

		if (!inet_is_stream(socket->entry))
			continue;
		fd = attempted(files_borrow(socket->file->seen));
		if (fd < 0 || tcp_repair_begin(fd))
			log_warning("socket:[%u] will be closed with a packet, which the network lock drops",
				    socket->entry->ino);
	}
}

static void inet_let_go(struct snapshot *snapshot, enum dump_end end unused)
{
	struct inet_sockets *sockets = inet_sockets_of(snapshot);

	network_lock_end(sockets->lock);
	for (size_t i = 0; i < sockets->count; i++)
		tcp_stream_free(&sockets->items[i].stream);
	free(sockets->items);
	socket_options_ahead_free(&sockets->options);
	ip_usual_options_free(&sockets->usual);
	*sockets = (struct inet_sockets){ 0 };
}

const struct file_kind file_kind_inet = {
	.name = "IP socket",
	.type = FD_TYPES__INETSK,
	.message = offsetof(FileEntry, isk),
	.state_size = sizeof(struct inet_sockets),
	.recognizes = inet_recognizes,
	.describe = inet_describe,
	.hold = hold_streams,
	.judge = inet_judge,
	.save = inet_save,
	.needs_prepare_end = inet_needs_prepare_end,
	.prepare_end = inet_prepare_end,
	.abandon_end = inet_abandon_end,
	.end = inet_end,
	.let_go = inet_let_go,
	.load = inet_load,
	.check = inet_check,
	.open = inet_open,
	.join = inet_join,
	.prepare_release = inet_prepare_release,
	.release = inet_release,
	.close = inet_close,
	.keeps = inet_keeps,
};
