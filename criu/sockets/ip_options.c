/*
 * ip_options.c - see ip_options.h. An option is one row of the table.
 *
 * What cannot be read: memberships of multicast groups, an index in IP_MULTICAST_IF, IP_ROUTER_ALERT, keys of TCP
 * (TCP_MD5SIG, TCP_FASTOPEN_KEY).
 */
#include <errno.h>
#include <linux/icmp.h>
#include <linux/in6.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"
#include "kernel_constants.h"
#include "sockets/ip_options.h"

#define LONGEST 256 /* bytes of a value: extension headers of IPv6 */

/* Before the socket has an address, or when it is connected. */
enum turn { FIRST, LAST };
/* Where the message has the value: in the list of others, or in a field of one of its parts. */
enum part { OTHERS, IN_SOCKET, IN_IP, IN_RAW, IN_TCP };

struct row {
	int level, option;
	const char *name;
	enum turn turn;
	enum part part;
	size_t has, value; /* offsets in that part */
	bool is_bytes;	   /* text, or a struct; otherwise an int */
};

#define NUMBER(level, option, turn)                               \
	{                                                         \
		level, option, #option, turn, OTHERS, 0, 0, false \
	}
#define BYTES(level, option, turn)                               \
	{                                                        \
		level, option, #option, turn, OTHERS, 0, 0, true \
	}
#define FIELD(level, option, turn, part, Type, field)                                                   \
	{                                                                                               \
		level, option, #option, turn, part, offsetof(Type, has_##field), offsetof(Type, field), \
			false                                                                           \
	}

#define SOL_UDPLITE_OPTIONS 136 /* IPPROTO_UDPLITE */
#define UDPLITE_SEND_CSCOV  10
#define UDPLITE_RECV_CSCOV  11

/* clang-format off */
static const struct row rows[] = {
	FIELD(SOL_IPV6, IPV6_V6ONLY, FIRST, IN_SOCKET, InetSkEntry, v6only),
	FIELD(SOL_IP, IP_FREEBIND, FIRST, IN_IP, IpOptsEntry, freebind),
	FIELD(SOL_IP, IP_PKTINFO, FIRST, IN_IP, IpOptsEntry, pktinfo),
	FIELD(SOL_IP, IP_TOS, FIRST, IN_IP, IpOptsEntry, tos),
	FIELD(SOL_IP, IP_TTL, FIRST, IN_IP, IpOptsEntry, ttl),
	FIELD(SOL_IP, IP_HDRINCL, FIRST, IN_RAW, IpOptsRawEntry, hdrincl),
	FIELD(SOL_IP, IP_NODEFRAG, FIRST, IN_RAW, IpOptsRawEntry, nodefrag),
	FIELD(SOL_IP, IP_CHECKSUM, FIRST, IN_RAW, IpOptsRawEntry, checksum),
	NUMBER(SOL_IP, IP_TRANSPARENT, FIRST),
	NUMBER(SOL_IP, IP_BIND_ADDRESS_NO_PORT, FIRST),
	NUMBER(SOL_IP, IP_LOCAL_PORT_RANGE, FIRST),
	NUMBER(SOL_IP, IP_MTU_DISCOVER, FIRST),
	NUMBER(SOL_IP, IP_RECVERR, FIRST),
	NUMBER(SOL_IP, IP_RECVERR_RFC4884, FIRST),
	NUMBER(SOL_IP, IP_RECVOPTS, FIRST),
	NUMBER(SOL_IP, IP_RETOPTS, FIRST),
	NUMBER(SOL_IP, IP_RECVTTL, FIRST),
	NUMBER(SOL_IP, IP_RECVTOS, FIRST),
	NUMBER(SOL_IP, IP_PASSSEC, FIRST),
	NUMBER(SOL_IP, IP_RECVORIGDSTADDR, FIRST),
	NUMBER(SOL_IP, IP_RECVFRAGSIZE, FIRST),
	NUMBER(SOL_IP, IP_MULTICAST_TTL, FIRST),
	NUMBER(SOL_IP, IP_MULTICAST_LOOP, FIRST),
	NUMBER(SOL_IP, IP_MULTICAST_ALL, FIRST),
	NUMBER(SOL_IP, IP_MULTICAST_IF, FIRST),
	NUMBER(SOL_IP, IP_UNICAST_IF, FIRST),
	NUMBER(SOL_IP, IP_MINTTL, LAST), /* segments that criu makes need not have it */
	BYTES(SOL_IP, IP_OPTIONS, FIRST),
	NUMBER(SOL_IPV6, IPV6_FREEBIND, FIRST),
	NUMBER(SOL_IPV6, IPV6_TRANSPARENT, FIRST),
	NUMBER(SOL_IPV6, IPV6_UNICAST_HOPS, FIRST),
	NUMBER(SOL_IPV6, IPV6_MULTICAST_HOPS, FIRST),
	NUMBER(SOL_IPV6, IPV6_MULTICAST_LOOP, FIRST),
	NUMBER(SOL_IPV6, IPV6_MULTICAST_ALL, FIRST),
	NUMBER(SOL_IPV6, IPV6_MULTICAST_IF, FIRST),
	NUMBER(SOL_IPV6, IPV6_UNICAST_IF, FIRST),
	NUMBER(SOL_IPV6, IPV6_MTU_DISCOVER, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVERR, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVERR_RFC4884, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVPKTINFO, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVHOPLIMIT, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVHOPOPTS, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVRTHDR, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVDSTOPTS, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVPATHMTU, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVTCLASS, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVORIGDSTADDR, FIRST),
	NUMBER(SOL_IPV6, IPV6_RECVFRAGSIZE, FIRST),
	NUMBER(SOL_IPV6, IPV6_DONTFRAG, FIRST),
	NUMBER(SOL_IPV6, IPV6_TCLASS, FIRST),
	NUMBER(SOL_IPV6, IPV6_AUTOFLOWLABEL, FIRST),
	NUMBER(SOL_IPV6, IPV6_FLOWINFO_SEND, FIRST),
	NUMBER(SOL_IPV6, IPV6_ADDR_PREFERENCES, FIRST),
	NUMBER(SOL_IPV6, IPV6_HDRINCL, FIRST),
	NUMBER(SOL_IPV6, IPV6_CHECKSUM, FIRST),
	NUMBER(SOL_IPV6, IPV6_MINHOPCOUNT, LAST),
	BYTES(SOL_IPV6, IPV6_HOPOPTS, FIRST),
	BYTES(SOL_IPV6, IPV6_RTHDRDSTOPTS, FIRST),
	BYTES(SOL_IPV6, IPV6_RTHDR, FIRST),
	BYTES(SOL_IPV6, IPV6_DSTOPTS, FIRST),
	FIELD(SOL_TCP, TCP_NODELAY, FIRST, IN_TCP, TcpOptsEntry, nodelay),
	FIELD(SOL_TCP, TCP_CORK, LAST, IN_TCP, TcpOptsEntry, cork),
	FIELD(SOL_TCP, TCP_KEEPCNT, FIRST, IN_TCP, TcpOptsEntry, keepcnt),
	FIELD(SOL_TCP, TCP_KEEPIDLE, FIRST, IN_TCP, TcpOptsEntry, keepidle),
	FIELD(SOL_TCP, TCP_KEEPINTVL, FIRST, IN_TCP, TcpOptsEntry, keepintvl),
	NUMBER(SOL_TCP, TCP_SYNCNT, FIRST),
	NUMBER(SOL_TCP, TCP_LINGER2, FIRST),
	NUMBER(SOL_TCP, TCP_DEFER_ACCEPT, FIRST),
	NUMBER(SOL_TCP, TCP_USER_TIMEOUT, LAST), /* nothing is answered before */
	NUMBER(SOL_TCP, TCP_THIN_LINEAR_TIMEOUTS, FIRST),
	NUMBER(SOL_TCP, TCP_FASTOPEN, FIRST),
	NUMBER(SOL_TCP, TCP_FASTOPEN_CONNECT, LAST),
	NUMBER(SOL_TCP, TCP_FASTOPEN_NO_COOKIE, FIRST),
	NUMBER(SOL_TCP, TCP_NOTSENT_LOWAT, FIRST),
	NUMBER(SOL_TCP, TCP_SAVE_SYN, FIRST),
	NUMBER(SOL_TCP, TCP_INQ, FIRST),
	NUMBER(SOL_TCP, TCP_TX_DELAY, FIRST),
	NUMBER(SOL_TCP, TCP_MAXSEG, FIRST),
	NUMBER(SOL_TCP, TCP_WINDOW_CLAMP, LAST),
	BYTES(SOL_TCP, TCP_CONGESTION, FIRST),
	NUMBER(SOL_UDP, UDP_ENCAP, FIRST),
	NUMBER(SOL_UDP, UDP_NO_CHECK6_TX, FIRST),
	NUMBER(SOL_UDP, UDP_NO_CHECK6_RX, FIRST),
	NUMBER(SOL_UDP, UDP_SEGMENT, FIRST),
	NUMBER(SOL_UDP, UDP_GRO, FIRST),
	NUMBER(SOL_UDP, UDP_CORK, LAST),
	NUMBER(SOL_UDPLITE_OPTIONS, UDPLITE_SEND_CSCOV, FIRST),
	NUMBER(SOL_UDPLITE_OPTIONS, UDPLITE_RECV_CSCOV, FIRST),
	BYTES(SOL_ICMPV6, ICMP6_FILTER, FIRST),
	BYTES(SOL_RAW, ICMP_FILTER, FIRST),
};
/* clang-format on */

/* What the kernel says of one option. */
struct answer {
	int size; /* negative: the socket has no such option */
	union {
		uint32_t number;
		uint8_t bytes[LONGEST];
	};
};

struct ip_usual_socket {
	uint32_t family, type, protocol;
	struct answer answers[array_size(rows)];
};

static bool has_level(const InetSkEntry *entry, int level)
{
	switch (level) {
	case SOL_IP:
		return entry->family == AF_INET || entry->type != SOCK_RAW;
	case SOL_IPV6:
		return entry->family == AF_INET6;
	case SOL_TCP:
		return entry->proto == IPPROTO_TCP && entry->type == SOCK_STREAM;
	case SOL_UDP:
		return entry->type == SOCK_DGRAM &&
		       (entry->proto == IPPROTO_UDP || entry->proto == IPPROTO_UDPLITE);
	case SOL_UDPLITE_OPTIONS:
		return entry->proto == IPPROTO_UDPLITE;
	case SOL_ICMPV6:
		return entry->family == AF_INET6 && entry->type == SOCK_RAW && entry->proto == IPPROTO_ICMPV6;
	default: /* SOL_RAW */
		return entry->family == AF_INET && entry->type == SOCK_RAW && entry->proto == IPPROTO_ICMP;
	}
}

/* These cannot be set of a stream socket. */
static bool is_multicast(const struct row *row)
{
	static const int four[] = { IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_MULTICAST_ALL, IP_MULTICAST_IF };
	static const int six[] = { IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP, IPV6_MULTICAST_ALL,
				   IPV6_MULTICAST_IF };

	for (size_t i = 0; i < array_size(four); i++)
		if ((row->level == SOL_IP && row->option == four[i]) ||
		    (row->level == SOL_IPV6 && row->option == six[i]))
			return true;
	return false;
}

/* The kernel may tell some values only in some states, or those that a connection has got by itself. */
static bool means_something(const InetSkEntry *entry, const struct row *row)
{
	bool is_connected = entry->state != TCP_CLOSE && entry->state != TCP_LISTEN;

	if (row->level == SOL_TCP && row->option == TCP_MAXSEG)
		return !is_connected && !entry->has_shutdown;
	if (row->level == SOL_TCP && (row->option == TCP_FASTOPEN || row->option == TCP_FASTOPEN_CONNECT))
		return !is_connected;
	return entry->type != SOCK_STREAM || !is_multicast(row);
}

static bool is_of(const InetSkEntry *entry, const struct row *row)
{
	return has_level(entry, row->level) && means_something(entry, row);
}

static int ask(int fd, const struct row *row, struct answer *answer)
{
	socklen_t size = row->is_bytes ? LONGEST : sizeof(answer->number);

	answer->number = 0;
	if (getsockopt(fd, row->level, row->option, answer->bytes, &size) == 0) {
		answer->size = size;
		return 0;
	}
	answer->size = -1;
	if (errno == ENOPROTOOPT || errno == EOPNOTSUPP || errno == EINVAL || errno == ENOTCONN)
		return 0;
	return fail(errno, "cannot read %s", row->name);
}

/* ---- dump ---- */

void ip_usual_options_free(struct ip_usual_options *usual)
{
	for (size_t i = 0; i < usual->count; i++)
		free(usual->items[i]);
	free(usual->items);
	*usual = (struct ip_usual_options){ 0 };
}

static int ask_new_socket(const InetSkEntry *entry, struct ip_usual_socket *usual)
{
	autoclose int fd = socket(entry->family, entry->type | SOCK_CLOEXEC, entry->proto);
	int result = 0;

	for (size_t i = 0; !result && i < array_size(rows); i++) {
		usual->answers[i].size = -1;
		/* Without one (of a group that must not ping, or a protocol that is gone) everything is unusual. */
		if (fd >= 0 && has_level(entry, rows[i].level))
			result = ask(fd, &rows[i], &usual->answers[i]);
	}
	return result;
}

static int find_usual(struct ip_usual_options *usual, const InetSkEntry *entry,
		      struct ip_usual_socket **found)
{
	for (size_t i = 0; i < usual->count; i++) {
		*found = usual->items[i];
		if ((*found)->family == entry->family && (*found)->type == entry->type &&
		    (*found)->protocol == entry->proto)
			return 0;
	}
	*found = allocate(sizeof(**found));
	(*found)->family = entry->family;
	(*found)->type = entry->type;
	(*found)->protocol = entry->proto;
	*grow(&usual->items, &usual->count) = *found;
	return ask_new_socket(entry, *found);
}

/* NULL: the message has no such part. */
static void *part_of(const InetSkEntry *entry, enum part part)
{
	switch (part) {
	case IN_SOCKET:
		return (void *)entry;
	case IN_IP:
		return entry->ip_opts;
	case IN_RAW:
		return entry->ip_opts ? entry->ip_opts->raw : NULL;
	case IN_TCP:
		return entry->tcp_opts;
	default:
		return NULL;
	}
}

/* bool and uint32 are alike for protobuf-c. NULL: the message has no such part. */
static uint32_t *field_of(const InetSkEntry *entry, const struct row *row, protobuf_c_boolean **has)
{
	char *part = part_of(entry, row->part);

	*has = part ? (protobuf_c_boolean *)(part + row->has) : NULL;
	return part ? (uint32_t *)(part + row->value) : NULL;
}

static void make_parts(InetSkEntry *entry)
{
	entry->ip_opts = message_new(IpOptsEntry, ip_opts_entry);
	if (entry->type == SOCK_RAW)
		entry->ip_opts->raw = message_new(IpOptsRawEntry, ip_opts_raw_entry);
	if (has_level(entry, SOL_TCP))
		entry->tcp_opts = message_new(TcpOptsEntry, tcp_opts_entry);
}

static void add_other(InetSkEntry *entry, const struct row *row, const struct answer *answer)
{
	IpOptionEntry *other = message_new(IpOptionEntry, ip_option_entry);

	other->level = row->level;
	other->option = row->option;
	if (row->is_bytes) {
		other->has_bytes = true;
		other->bytes.len = answer->size;
		other->bytes.data = answer->size ? copy_bytes(answer->bytes, answer->size) : NULL;
	} else {
		message_set(other, number, answer->number);
	}
	*grow(&entry->others, &entry->n_others) = other;
}

static bool is_same(const struct answer *one, const struct answer *other)
{
	return one->size == other->size && !memcmp(one->bytes, other->bytes, max(one->size, 0));
}

static void note(InetSkEntry *entry, const struct row *row, const struct answer *answer,
		 const struct answer *usual)
{
	protobuf_c_boolean *has;
	uint32_t *field = field_of(entry, row, &has);

	if (answer->size < 0)
		return;
	if (field) {
		*has = true;
		*field = answer->number;
	} else if (!is_same(answer, usual)) {
		add_other(entry, row, answer);
	}
}

/* A filter of raw sockets has a field in the format of 4.2, too. */
static void note_filter(InetSkEntry *entry)
{
	IpOptsRawEntry *raw = entry->ip_opts->raw;

	for (size_t i = 0; raw && i < entry->n_others; i++) {
		const IpOptionEntry *other = entry->others[i];

		if (other->level != SOL_RAW && other->level != SOL_ICMPV6)
			continue;
		message_array(raw, icmpv_filter, other->bytes.len / sizeof(uint32_t));
		memcpy(raw->icmpv_filter, other->bytes.data, raw->n_icmpv_filter * sizeof(uint32_t));
	}
}

int ip_options_read(int fd, InetSkEntry *entry, struct ip_usual_options *usual)
{
	struct ip_usual_socket *found;
	int result = find_usual(usual, entry, &found);

	make_parts(entry);
	for (size_t i = 0; !result && i < array_size(rows); i++) {
		struct answer answer;

		if (!is_of(entry, &rows[i]))
			continue;
		result = ask(fd, &rows[i], &answer);
		if (!result)
			note(entry, &rows[i], &answer, &found->answers[i]);
	}
	note_filter(entry);
	return result;
}

/* ---- restore ---- */

static const struct row *find_row(uint32_t level, uint32_t option)
{
	for (size_t i = 0; i < array_size(rows); i++)
		if (rows[i].level == (int)level && rows[i].option == (int)option)
			return &rows[i];
	return NULL;
}

int ip_options_check(const struct file *file, const InetSkEntry *entry)
{
	for (size_t i = 0; i < entry->n_others; i++) {
		const IpOptionEntry *other = entry->others[i];
		const struct row *row = find_row(other->level, other->option);

		if (!row || row->part != OTHERS)
			return fail(EINVAL,
				    "files.img: file %u: criu does not know the option %u of the level %u",
				    file->id, other->option, other->level);
		if (!has_level(entry, row->level) || row->is_bytes != other->has_bytes ||
		    other->bytes.len > LONGEST)
			return fail(EINVAL, "files.img: file %u has an invalid %s", file->id, row->name);
	}
	if (entry->ip_opts && entry->ip_opts->raw && entry->ip_opts->raw->n_icmpv_filter > 8)
		return fail(EINVAL, "files.img: file %u has an invalid filter of ICMP", file->id);
	return 0;
}

static int set_option(const struct file *file, int fd, const struct row *row, const void *value, size_t size)
{
	struct answer now;
	int result = ask(fd, row, &now);

	if (result || (now.size == (int)size && !memcmp(now.bytes, value, size)))
		return result;
	if (setsockopt(fd, row->level, row->option, value, size) == 0)
		return 0;
	result = fail(errno, "file %u (%s): cannot set %s", file->id, file->kind->name, row->name);
	if (result == -EPERM || result == -EACCES)
		fail_advice("run criu with CAP_NET_ADMIN");
	else if (row->option == TCP_CONGESTION && row->level == SOL_TCP)
		fail_advice("load its kernel module, or allow it (net.ipv4.tcp_allowed_congestion_control)");
	return result;
}

static int set_field(const struct file *file, int fd, const InetSkEntry *entry, const struct row *row)
{
	protobuf_c_boolean *has;
	const uint32_t *field = field_of(entry, row, &has);

	return field && *has ? set_option(file, fd, row, field, sizeof(*field)) : 0;
}

static int set_other(const struct file *file, int fd, const IpOptionEntry *other, const struct row *row)
{
	return row->is_bytes ? set_option(file, fd, row, other->bytes.data, other->bytes.len) :
			       set_option(file, fd, row, &other->number, sizeof(other->number));
}

/* criu 4.2.1 writes only this. */
static int set_filter(const struct file *file, int fd, const InetSkEntry *entry)
{
	const IpOptsRawEntry *raw = entry->ip_opts ? entry->ip_opts->raw : NULL;
	const struct row *row = entry->family == AF_INET ? find_row(SOL_RAW, ICMP_FILTER) :
							   find_row(SOL_ICMPV6, ICMP6_FILTER);

	if (!raw || !raw->n_icmpv_filter || !has_level(entry, row->level))
		return 0;
	return set_option(file, fd, row, raw->icmpv_filter, raw->n_icmpv_filter * sizeof(uint32_t));
}

/* In the order of the table. */
static int set_all(const struct file *file, int fd, const InetSkEntry *entry, enum turn turn)
{
	int result = 0;

	for (size_t i = 0; !result && i < array_size(rows); i++) {
		const struct row *row = &rows[i];

		if (row->turn != turn || !has_level(entry, row->level))
			continue;
		result = set_field(file, fd, entry, row);
		for (size_t k = 0; !result && k < entry->n_others; k++)
			if (find_row(entry->others[k]->level, entry->others[k]->option) == row)
				result = set_other(file, fd, entry->others[k], row);
	}
	return result;
}

int ip_options_set(const struct file *file, int fd, const InetSkEntry *entry)
{
	return set_all(file, fd, entry, FIRST) ?: set_filter(file, fd, entry);
}

int ip_options_finish(const struct file *file, int fd, const InetSkEntry *entry)
{
	return set_all(file, fd, entry, LAST);
}
