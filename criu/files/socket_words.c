/*
 * socket_words.c - describes a socket in words: family, type, protocol, state, addresses. It asks the socket itself,
 * and changes nothing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/words.h"

struct word {
	int number;
	const char *word;
};

static const struct word families[] = {
	{ AF_UNIX, "unix" },
	{ AF_INET, "IPv4" },
	{ AF_INET6, "IPv6" },
	{ AF_NETLINK, "netlink" },
	{ AF_PACKET, "packet" },
	{ AF_VSOCK, "vsock" },
	{ AF_ALG, "crypto" },
	{ AF_XDP, "XDP" },
	{ AF_KEY, "key" },
	{ AF_CAN, "CAN" },
	{ AF_BLUETOOTH, "Bluetooth" },
	{ AF_TIPC, "TIPC" },
	{ AF_QIPCRTR, "Qualcomm" },
};

static const struct word types[] = {
	{ SOCK_STREAM, "stream" },	   { SOCK_DGRAM, "datagram" },	    { SOCK_RAW, "raw" },
	{ SOCK_RDM, "reliable datagram" }, { SOCK_SEQPACKET, "seqpacket" }, { SOCK_DCCP, "DCCP" },
};

static const struct word protocols[] = {
	{ IPPROTO_TCP, "TCP" },	    { IPPROTO_UDP, "UDP" },	  { IPPROTO_UDPLITE, "UDP-Lite" },
	{ IPPROTO_MPTCP, "MPTCP" }, { IPPROTO_SCTP, "SCTP" },	  { IPPROTO_DCCP, "DCCP" },
	{ IPPROTO_ICMP, "ICMP" },   { IPPROTO_ICMPV6, "ICMPv6" },
};

static const struct word netlink_protocols[] = {
	{ NETLINK_ROUTE, "route" },
	{ NETLINK_USERSOCK, "usersock" },
	{ NETLINK_SOCK_DIAG, "sock_diag" },
	{ NETLINK_XFRM, "xfrm" },
	{ NETLINK_SELINUX, "selinux" },
	{ NETLINK_ISCSI, "iscsi" },
	{ NETLINK_AUDIT, "audit" },
	{ NETLINK_FIB_LOOKUP, "fib_lookup" },
	{ NETLINK_CONNECTOR, "connector" },
	{ NETLINK_NETFILTER, "netfilter" },
	{ NETLINK_KOBJECT_UEVENT, "uevent" },
	{ NETLINK_GENERIC, "generic" },
	{ NETLINK_RDMA, "rdma" },
	{ NETLINK_CRYPTO, "crypto" },
};

/* <linux/tcp.h> */
static const char *const tcp_states[] = {
	[TCP_ESTABLISHED] = "established", [TCP_SYN_SENT] = "connecting",
	[TCP_SYN_RECV] = "connecting",	   [TCP_FIN_WAIT1] = "closing",
	[TCP_FIN_WAIT2] = "closing",	   [TCP_TIME_WAIT] = "closing",
	[TCP_CLOSE] = "not connected",	   [TCP_CLOSE_WAIT] = "closed by the other end",
	[TCP_LAST_ACK] = "closing",	   [TCP_LISTEN] = "listening",
	[TCP_CLOSING] = "closing",
};

static const char *find_word(const struct word *words, size_t count, int number)
{
	for (size_t i = 0; i < count; i++)
		if (words[i].number == number)
			return words[i].word;
	return NULL;
}

const char *netlink_protocol_word(uint32_t protocol)
{
	return find_word(netlink_protocols, array_size(netlink_protocols), (int)protocol);
}

static int get(int fd, int option)
{
	socklen_t size = sizeof(int);
	int value = 0;

	getsockopt(fd, SOL_SOCKET, option, &value, &size);
	return value;
}

/* A name can contain any bytes; an abstract one begins with a 0 byte, which is printed as "@". */
static void write_unix(char *text, size_t size, const struct sockaddr_un *address, socklen_t length)
{
	size_t start = offsetof(struct sockaddr_un, sun_path), count = 0;

	while (start + count < length && count < size - 1 &&
	       (address->sun_path[count] || !address->sun_path[0])) {
		char byte = address->sun_path[count];

		text[count++] = !byte ? '@' : (unsigned char)byte < ' ' ? '?' : byte;
	}
	text[count] = '\0';
}

/* "" if there is none. */
static void write_address(char *text, size_t size, const struct sockaddr_storage *address, socklen_t length)
{
	const struct sockaddr_in *four = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
	char number[INET6_ADDRSTRLEN];

	text[0] = '\0';
	if (address->ss_family == AF_UNIX)
		write_unix(text, size, (const struct sockaddr_un *)address, length);
	else if (address->ss_family == AF_INET && four->sin_port)
		snprintf(text, size, "%s:%u", inet_ntop(AF_INET, &four->sin_addr, number, sizeof(number)),
			 ntohs(four->sin_port));
	else if (address->ss_family == AF_INET6 && six->sin6_port)
		snprintf(text, size, "[%s]:%u", inet_ntop(AF_INET6, &six->sin6_addr, number, sizeof(number)),
			 ntohs(six->sin6_port));
}

static const char *socket_state(int fd, int type, int protocol, bool is_connected)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);

	if (get(fd, SO_ACCEPTCONN))
		return "listening";
	if (protocol == IPPROTO_TCP && type == SOCK_STREAM &&
	    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
	    info.tcpi_state < array_size(tcp_states) && tcp_states[info.tcpi_state])
		return tcp_states[info.tcpi_state];
	if (is_connected)
		return "connected";
	return type == SOCK_STREAM || type == SOCK_SEQPACKET ? "not connected" : NULL;
}

static void append_words(char **text, const char *before, const char *word, const char *after)
{
	char *longer = format_text("%s%s%s%s", *text, before, word, after);

	free(*text);
	*text = longer;
}

static char *name_type(int domain, int type, int protocol)
{
	const char *family = find_word(families, array_size(families), domain);
	const char *kind = find_word(types, array_size(types), type) ?: "unknown";
	const char *known = domain == AF_NETLINK ? netlink_protocol_word((uint32_t)protocol) :
			    domain == AF_INET || domain == AF_INET6 ?
						   find_word(protocols, array_size(protocols), protocol) :
						   NULL;
	const char *article = domain == AF_INET || domain == AF_INET6 || domain == AF_XDP ? "an" : "a";
	char *text = family ? format_text("%s %s %s socket", article, family, kind) :
			      format_text("a %s socket of family %d", kind, domain);

	if (known)
		append_words(&text, " (", known, ")");
	return text;
}

char *socket_in_words(int fd)
{
	struct sockaddr_storage own = { 0 }, other = { 0 };
	socklen_t own_length = sizeof(own), other_length = sizeof(other);
	int domain = get(fd, SO_DOMAIN), type = get(fd, SO_TYPE), protocol = get(fd, SO_PROTOCOL);
	/* Every netlink socket is connected: to the kernel. */
	bool is_connected = domain != AF_NETLINK &&
			    getpeername(fd, (struct sockaddr *)&other, &other_length) == 0;
	const char *state = socket_state(fd, type, protocol, is_connected);
	char *text = name_type(domain, type, protocol), address[150];

	if (state)
		append_words(&text, ", ", state, "");
	if (type != SOCK_RAW && getsockname(fd, (struct sockaddr *)&own, &own_length) == 0) {
		write_address(address, sizeof(address), &own, own_length);
		if (address[0])
			append_words(&text, ", ", address, "");
	}
	if (is_connected) {
		write_address(address, sizeof(address), &other, other_length);
		if (address[0])
			append_words(&text, ", to ", address, "");
	}
	return text;
}
