/*
 * netlink_sockets.h - what netlink.c and netlink_refused.c share: sockets, and requests to the kernel.
 */
#ifndef TEST_NETLINK_SOCKETS_H
#define TEST_NETLINK_SOCKETS_H

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "live.h"

#define LO 1 /* the number of the loopback device in every network namespace */

static int fds[8];
static uint32_t ports[8];

/* ---- requests ---- */

struct request {
	struct nlmsghdr header;
	char body[512];
};

static inline struct request begin(int type, int flags, const void *body, size_t size)
{
	static uint32_t sequence;
	struct request request = { .header = { .nlmsg_len = NLMSG_LENGTH(size),
					       .nlmsg_type = type,
					       .nlmsg_flags = NLM_F_REQUEST | flags,
					       .nlmsg_seq = ++sequence } };

	memcpy(request.body, body, size);
	return request;
}

static inline void add(struct request *request, int type, const void *data, size_t size)
{
	size_t at = NLMSG_ALIGN(request->header.nlmsg_len) - sizeof(request->header);
	struct nlattr attribute = { NLA_HDRLEN + size, type };

	memcpy(request->body + at, &attribute, sizeof(attribute));
	memcpy(request->body + at + NLA_HDRLEN, data, size);
	request->header.nlmsg_len = sizeof(request->header) + at + NLA_ALIGN(attribute.nla_len);
}

/* To the kernel: a request with an address would not need the rights of whoever has opened the socket. */
static inline void put(int fd, const struct request *request)
{
	live_check(send(fd, request, request->header.nlmsg_len, 0) == request->header.nlmsg_len, "send: %m");
}

static char answer[1 << 16] __attribute__((aligned(8)));

/* A message from the kernel, within some seconds. */
static inline struct nlmsghdr *get(int fd, const char *what)
{
	struct sockaddr_nl sender = { 0 };
	socklen_t size = sizeof(sender);
	struct pollfd arrived = { fd, POLLIN, 0 };
	ssize_t length;

	live_check(poll(&arrived, 1, 10000) == 1, "%s: nothing comes", what);
	length = recvfrom(fd, answer, sizeof(answer), 0, (struct sockaddr *)&sender, &size);
	live_check(length >= (ssize_t)sizeof(struct nlmsghdr), "%s: recvfrom: %m", what);
	live_check(!sender.nl_pid, "%s: not from the kernel", what);
	return (struct nlmsghdr *)answer;
}

/* The error in the answer. */
static inline int ask(int fd, const struct request *request)
{
	struct nlmsghdr *header;

	put(fd, request);
	header = get(fd, "an acknowledgement");
	live_check(header->nlmsg_type == NLMSG_ERROR && header->nlmsg_seq == request->header.nlmsg_seq,
		   "another answer than an acknowledgement: %u", header->nlmsg_type);
	return ((struct nlmsgerr *)NLMSG_DATA(header))->error;
}

static inline int change_address(int fd, int type, const char *text)
{
	const struct ifaddrmsg body = { .ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = LO };
	struct request request = begin(type, NLM_F_ACK | NLM_F_CREATE, &body, sizeof(body));
	struct in_addr address;

	inet_pton(AF_INET, text, &address);
	add(&request, IFA_LOCAL, &address, sizeof(address));
	return ask(fd, &request);
}

/* ---- sockets ---- */

static inline int make(int number, int type, int protocol, uint32_t port, uint32_t groups)
{
	const struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_pid = port, .nl_groups = groups };

	fds[number] = socket(AF_NETLINK, type, protocol);
	live_check(fds[number] >= 0, "socket: %m");
	live_check(bind(fds[number], (const struct sockaddr *)&address, sizeof(address)) == 0, "bind: %m");
	return fds[number];
}

static inline struct sockaddr_nl address_of(int fd)
{
	struct sockaddr_nl address = { 0 };
	socklen_t size = sizeof(address);

	live_check(getsockname(fd, (struct sockaddr *)&address, &size) == 0, "getsockname: %m");
	return address;
}

static inline struct sockaddr_nl peer_of(int fd)
{
	struct sockaddr_nl address = { 0 };
	socklen_t size = sizeof(address);

	live_check(getpeername(fd, (struct sockaddr *)&address, &size) == 0, "getpeername: %m");
	return address;
}

static inline void note_ports(void)
{
	for (int i = 0; i < 8; i++)
		ports[i] = fds[i] ? address_of(fds[i]).nl_pid : 0;
}

static inline void check_ports(void)
{
	for (int i = 0; i < 8; i++)
		live_check(!fds[i] || address_of(fds[i]).nl_pid == ports[i], "socket %d has port %u, not %u",
			   i, address_of(fds[i]).nl_pid, ports[i]);
}

static inline int get_option(int fd, int level, int option)
{
	int value = -1;
	socklen_t size = sizeof(value);

	live_check(getsockopt(fd, level, option, &value, &size) == 0, "getsockopt %d %d: %m", level, option);
	return value;
}

static inline void set_option(int fd, int level, int option, int value)
{
	live_check(setsockopt(fd, level, option, &value, sizeof(value)) == 0, "setsockopt %d %d: %m", level,
		   option);
}

static inline void join(int fd, int group)
{
	set_option(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
}

static inline bool is_quiet(int fd)
{
	return poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 0) == 0;
}

/* 0 or errno */
static inline int send_to(int fd, uint32_t port)
{
	const struct sockaddr_nl peer = { .nl_family = AF_NETLINK, .nl_pid = port };

	return sendto(fd, "hello", 5, 0, (const struct sockaddr *)&peer, sizeof(peer)) == 5 ? 0 : errno;
}

static inline void check_hello(int fd, uint32_t port)
{
	struct sockaddr_nl sender = { 0 };
	socklen_t size = sizeof(sender);

	live_check(recvfrom(fd, answer, sizeof(answer), MSG_DONTWAIT, (struct sockaddr *)&sender, &size) == 5,
		   "no message: %m");
	live_check(sender.nl_pid == port, "it comes from port %u, not %u", sender.nl_pid, port);
}

#endif
