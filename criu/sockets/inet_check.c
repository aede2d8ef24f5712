/*
 * inet_check.c - restore: which IP sockets the images have, and whether they can be made here.
 */
#include <errno.h>
#include <net/if.h>
#include <limits.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "image/image.h"
#include "sockets/inet.h"

#define LARGEST_QUEUE (1U << 30) /* bytes */

static int is_wrong(const struct inet_socket *socket, const char *what)
{
	return fail(EINVAL, "files.img: file %u is an IP socket %s", socket->file->id, what);
}

static bool is_known_state(const InetSkEntry *entry)
{
	if (!inet_is_tcp(entry))
		return entry->state == TCP_CLOSE || entry->state == TCP_ESTABLISHED;
	return entry->state == TCP_CLOSE || entry->state == TCP_LISTEN ||
	       (entry->state <= TCP_CLOSING && tcp_state_is_connected(entry->state));
}

static bool is_known_protocol(const InetSkEntry *entry)
{
	switch (entry->type) {
	case SOCK_STREAM:
		return entry->proto == IPPROTO_TCP;
	case SOCK_DGRAM:
		return entry->proto == IPPROTO_UDP || entry->proto == IPPROTO_UDPLITE ||
		       (entry->family == AF_INET ? entry->proto == IPPROTO_ICMP :
						   entry->proto == IPPROTO_ICMPV6);
	default:
		return entry->type == SOCK_RAW && entry->proto <= UINT8_MAX;
	}
}

/* criu 4.2.1 says of every socket that it has another end, whose address may be 0. */
static bool has_other_end(const struct inet_socket *socket)
{
	const InetSkEntry *entry = socket->entry;

	return entry->state == TCP_ESTABLISHED || inet_is_stream(entry);
}

static int read_addresses(struct inet_socket *socket)
{
	const InetSkEntry *entry = socket->entry;
	uint32_t scope = entry->ifname ? if_nametoindex(entry->ifname) : 0;
	const bool is_raw = entry->type == SOCK_RAW; /* what looks like a port is its protocol */

	if (entry->ifname && !scope)
		return fail(ENODEV, "file %u (IP socket): there is no interface %s", socket->file->id,
			    entry->ifname);
	if (entry->src_port > UINT16_MAX || entry->dst_port > UINT16_MAX)
		return is_wrong(socket, "with an impossible port");
	if (!ip_address_from_words(&socket->own, entry->family, entry->src_addr, entry->n_src_addr,
				   is_raw ? 0 : entry->src_port, scope))
		return is_wrong(socket, "with an impossible address");
	if (has_other_end(socket) &&
	    !ip_address_from_words(&socket->other, entry->family, entry->dst_addr, entry->n_dst_addr,
				   is_raw ? 0 : entry->dst_port, scope))
		return is_wrong(socket, "that is connected to an impossible address");
	return 0;
}

static int check_message(const struct inet_socket *socket)
{
	const InetSkEntry *entry = socket->entry;

	if (entry->family != AF_INET && entry->family != AF_INET6)
		return is_wrong(socket, "of an unknown family");
	if (!is_known_protocol(entry))
		return is_wrong(socket, "of an unknown protocol");
	if (!is_known_state(entry))
		return is_wrong(socket, "in an unknown state");
	if (entry->backlog > INT_MAX)
		return is_wrong(socket, "with an impossible backlog");
	if (entry->has_shutdown && (unsigned)entry->shutdown > SK_SHUTDOWN__BOTH)
		return is_wrong(socket, "that was shut down in an unknown way");
	return 0;
}

/* ---- streams ---- */

static int stream_is_wrong(const struct inet_socket *socket, const char *what)
{
	return fail(EINVAL, "tcp-stream-%x.img: %s", socket->entry->ino, what);
}

static int check_stream(const struct inet_socket *socket)
{
	const TcpStreamEntry *entry = &socket->stream.entry;

	if (entry->inq_len > LARGEST_QUEUE || entry->outq_len > LARGEST_QUEUE ||
	    entry->unsq_len > entry->outq_len)
		return stream_is_wrong(socket, "the length of a queue is impossible");
	if (entry->snd_wscale > TCP_MAX_WINSHIFT || entry->rcv_wscale > TCP_MAX_WINSHIFT ||
	    entry->mss_clamp > UINT16_MAX)
		return stream_is_wrong(socket, "the window or the size of segments is impossible");
	return 0;
}

static int read_queue(struct image *image, uint8_t **bytes, size_t size)
{
	*bytes = allocate(size);
	return size ? image_read_bytes(image, *bytes, size) : 0;
}

static int read_stream_from(struct image *image, struct inet_socket *socket)
{
	struct tcp_stream *stream = &socket->stream;
	TcpStreamEntry *entry;
	int result = image_read_as(image, tcp_stream_entry, &entry);

	if (result <= 0)
		return result ?: stream_is_wrong(socket, "it is empty");
	stream->entry = *entry;
	protobuf_c_message_free_unpacked(&entry->base, NULL);
	result = check_stream(socket) ?: read_queue(image, &stream->received, stream->entry.inq_len);
	return result ?: read_queue(image, &stream->sent, stream->entry.outq_len);
}

static int read_stream(const struct snapshot *snapshot, struct inet_socket *socket)
{
	struct image *image;
	int result = image_open(snapshot->images, &image, IMAGE_TCP_STREAM, socket->entry->ino);

	if (result == -ENOENT)
		return fail(ENOENT, "tcp-stream-%x.img, of a TCP connection, is missing", socket->entry->ino);
	if (result)
		return result;
	socket->stream.state = socket->entry->state;
	result = read_stream_from(image, socket);
	ignore(image_close(image));
	return result;
}

/* ---- all ---- */

static int add_socket(const struct snapshot *snapshot, struct inet_sockets *sockets, struct file *file)
{
	struct inet_socket *socket = &sockets->items[sockets->count++];
	int result;

	*socket = (struct inet_socket){ .file = file, .entry = file->entry->isk, .fd = -1 };
	tcp_stream_entry__init(&socket->stream.entry);
	index_set(&sockets->by_file, file->id, socket);
	result = check_message(socket);
	if (!result && inet_is_stream(socket->entry) && snapshot->policy.closes_connections)
		inet_close_stream(socket->entry);
	result = result ?: read_addresses(socket);
	return result || !inet_is_stream(socket->entry) ? result : read_stream(snapshot, socket);
}

int inet_load(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_inet);
	struct inet_sockets *sockets = inet_sockets_of(snapshot);
	int result = 0;

	sockets->items = allocate_array(files->count, sizeof(*sockets->items));
	for (size_t i = 0; !result && i < files->count; i++)
		result = add_socket(snapshot, sockets, files->items[i]);
	return result;
}

int inet_check(struct snapshot *snapshot, struct file *file)
{
	const struct inet_socket *socket = index_find(&inet_sockets_of(snapshot)->by_file, file->id);
	int result = socket_options_check(file, socket->entry->opts) ?: ip_options_check(file, socket->entry);

	if (!result && inet_is_stream(socket->entry) && !snapshot->policy.keeps_connections) {
		autofree char *words = inet_in_words(socket);

		fail_advice("--tcp-established to restore it, or --tcp-close to have it closed");
		return fail(EPERM, "file %u is a TCP connection (%s)", file->id, words);
	}
	return result;
}
