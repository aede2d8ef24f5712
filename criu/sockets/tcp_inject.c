/*
 * tcp_inject.c - see tcp_inject.h. A raw socket sends the segment to an address of this machine, so the kernel passes it
 * to the loopback device, whatever the address of its sender is.
 */
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "sockets/network_lock.h"
#include "sockets/tcp_inject.h"

#define HOPS 255 /* enough for any IP_MINTTL */

struct packet_four {
	struct ip ip;
	struct tcphdr tcp;
};

struct packet_six {
	struct ip6_hdr ip;
	struct tcphdr tcp;
};

/* The sum of 16-bit words in network order (RFC 1071); `size` is even. */
static uint32_t add_words(uint32_t sum, const void *bytes, size_t size)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i < size; i += 2)
		sum += at[i] << 8 | at[i + 1];
	return sum;
}

static uint16_t checksum(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons(~sum);
}

/* `addresses`: of the sender and of the receiver, as they are in the header of the packet. */
static struct tcphdr make_header(const struct tcp_segment *segment, const void *addresses, size_t size)
{
	struct tcphdr header = {
		/* Both families have the port at the same place. */
		.source = segment->from.four.sin_port,
		.dest = segment->to.four.sin_port,
		.seq = htonl(segment->number),
		.ack_seq = htonl(segment->acknowledged),
		.doff = sizeof(header) / 4,
		.ack = 1,
		.fin = segment->is_last,
		.window = htons(segment->window),
	};
	uint32_t sum = add_words(IPPROTO_TCP + sizeof(header), addresses, size);

	header.check = checksum(add_words(sum, &header, sizeof(header)));
	return header;
}

/* The kernel fills in the checksum and the length of the IPv4 header. */
static size_t make_four(const struct tcp_segment *segment, struct packet_four *packet)
{
	*packet = (struct packet_four){
		.ip = {
			.ip_v = 4,
			.ip_hl = sizeof(packet->ip) / 4,
			.ip_ttl = HOPS,
			.ip_p = IPPROTO_TCP,
			.ip_src = segment->from.four.sin_addr,
			.ip_dst = segment->to.four.sin_addr,
		},
	};
	packet->tcp = make_header(segment, &packet->ip.ip_src, 2 * sizeof(struct in_addr));
	return sizeof(*packet);
}

static size_t make_six(const struct tcp_segment *segment, struct packet_six *packet)
{
	*packet = (struct packet_six){
		.ip = {
			.ip6_flow = htonl(6U << 28), /* the version */
			.ip6_plen = htons(sizeof(packet->tcp)),
			.ip6_nxt = IPPROTO_TCP,
			.ip6_hlim = HOPS,
			.ip6_src = segment->from.six.sin6_addr,
			.ip6_dst = segment->to.six.sin6_addr,
		},
	};
	packet->tcp = make_header(segment, &packet->ip.ip6_src, 2 * sizeof(struct in6_addr));
	return sizeof(*packet);
}

int tcp_inject(const struct tcp_segment *segment)
{
	const bool is_six = ip_address_is_six(&segment->to);
	const int mark = NETWORK_LOCK_MARK, on = 1;
	union ip_address to = segment->to;
	union {
		struct packet_four four;
		struct packet_six six;
	} packet;
	size_t size = is_six ? make_six(segment, &packet.six) : make_four(segment, &packet.four);
	autoclose int fd = socket(to.any.sa_family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);

	if (fd < 0)
		return fail(errno, "cannot open a raw socket");
	/* Of a raw socket of IPv6, the port means a protocol. A raw socket with IPPROTO_RAW brings its own header. */
	to.four.sin_port = 0;
	if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) < 0 ||
	    (is_six && setsockopt(fd, SOL_IPV6, IPV6_HDRINCL, &on, sizeof(on)) < 0))
		return fail(errno, "cannot prepare a raw socket");
	if (sendto(fd, &packet, size, 0, &to.any, ip_address_size(&to)) != (ssize_t)size)
		return fail(errno, "cannot give a TCP socket a segment through the loopback device");
	return 0;
}
