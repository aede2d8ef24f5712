/*
 * probe_network.c - probes about sockets and interfaces. They run in a child; see probe.h. Those that make something take a
 * network namespace of their own first.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/inet_diag.h>
#include <linux/net_namespace.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/memory.h"
#include "kernel/place.h"
#include "kernel/probe_tests.h"

/* Newer than the headers of some distributions. */
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif
#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE SIOCPROTOPRIVATE
#endif
#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)
#endif
#ifndef IFLA_TARGET_NETNSID
#define IFLA_TARGET_NETNSID 46
#endif

static bool take_network(void)
{
	return unshare(CLONE_NEWNET) == 0;
}

/* --- Sockets --------------------------------------------------------------------------------------------------- */

bool probe_socket_namespace(int unused_argument unused)
{
	return ioctl(socket(AF_UNIX, SOCK_STREAM, 0), SIOCGSKNS) >= 0;
}

/* A socket without a name has no file, which is another answer than a request nobody knows. */
bool probe_unix_file(int unused_argument unused)
{
	return ioctl(socket(AF_UNIX, SOCK_STREAM, 0), SIOCUNIXFILE) >= 0 || errno == ENOENT;
}

bool probe_socket_option(int what)
{
	int level = what == OPTION_BUFFER_LOCK ? SOL_SOCKET : SOL_IPV6;
	int option = what == OPTION_BUFFER_LOCK ? SO_BUF_LOCK : IPV6_FREEBIND;
	int fd = socket(what == OPTION_BUFFER_LOCK ? AF_INET : AF_INET6, SOCK_DGRAM, 0);
	int value = 1, seen = 0;
	socklen_t size = sizeof(seen);

	return setsockopt(fd, level, option, &value, sizeof(value)) == 0 &&
	       getsockopt(fd, level, option, &seen, &size) == 0 && seen == 1;
}

static bool switch_on_loopback(int fd)
{
	struct ifreq request = { .ifr_name = "lo" };

	if (ioctl(fd, SIOCGIFFLAGS, &request))
		return false;
	request.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

/* A connection whose one end says no more: both ends must still be open to repair, which is how they are read. */
bool probe_half_closed(int unused_argument unused)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int listener, client, server, repair = 1;

	if (!take_network())
		return false;
	listener = socket(AF_INET, SOCK_STREAM, 0);
	client = socket(AF_INET, SOCK_STREAM, 0);
	if (!switch_on_loopback(client) || bind(listener, (struct sockaddr *)&address, size) ||
	    getsockname(listener, (struct sockaddr *)&address, &size) || listen(listener, 1) ||
	    connect(client, (struct sockaddr *)&address, size))
		return false;
	server = accept(listener, NULL, NULL);
	return server >= 0 && shutdown(client, SHUT_WR) == 0 &&
	       setsockopt(client, SOL_TCP, TCP_REPAIR, &repair, sizeof(repair)) == 0 &&
	       setsockopt(server, SOL_TCP, TCP_REPAIR, &repair, sizeof(repair)) == 0;
}

/* --- Netlink --------------------------------------------------------------------------------------------------- */

struct request {
	struct nlmsghdr header;
	char body[512];
};

static void *request_begin(struct request *request, int type, int flags, size_t size)
{
	memset(request, 0, sizeof(*request));
	request->header.nlmsg_type = type;
	request->header.nlmsg_flags = NLM_F_REQUEST | flags;
	request->header.nlmsg_len = NLMSG_LENGTH(size);
	return NLMSG_DATA(&request->header);
}

static struct rtattr *request_add(struct request *request, int type, const void *data, size_t size)
{
	struct rtattr *attribute = (void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(attribute), data, size);
	request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
	return attribute;
}

/* What was added since is inside `attribute`. */
static void request_close(struct request *request, struct rtattr *attribute)
{
	attribute->rta_len = (char *)request + request->header.nlmsg_len - (char *)attribute;
}

/* Sends it and reads one datagram of answer: its first message. A positive errno, 0 for an acknowledgement. */
static int ask(int protocol, const struct request *request, struct nlmsghdr *answer, size_t size)
{
	autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	ssize_t got;

	if (fd < 0 || send(fd, request, request->header.nlmsg_len, 0) < 0)
		return errno;
	got = recv(fd, answer, size, 0);
	if (got < (ssize_t)sizeof(*answer))
		return got < 0 ? errno : EIO;
	if (answer->nlmsg_type == NLMSG_ERROR)
		return -((struct nlmsgerr *)NLMSG_DATA(answer))->error;
	if (answer->nlmsg_type == NLMSG_DONE) /* the end of a list, and why */
		return -*(const int *)NLMSG_DATA(answer);
	return 0;
}

union answer {
	struct nlmsghdr header;
	char room[32768];
};

static bool accepted(int protocol, const struct request *request)
{
	union answer answer;

	return ask(protocol, request, &answer.header, sizeof(answer)) == 0;
}

bool probe_raw_sockets(int unused_argument unused)
{
	struct request request;
	struct inet_diag_req_v2 *wanted = request_begin(&request, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP,
							sizeof(*wanted));

	wanted->sdiag_family = AF_INET;
	wanted->sdiag_protocol = IPPROTO_RAW;
	wanted->idiag_states = -1;
	return accepted(NETLINK_SOCK_DIAG, &request);
}

/* Gives the network namespace we are in an id in itself. */
static bool name_namespace(int id)
{
	int own = open("/proc/self/ns/net", O_RDONLY);
	struct request request;

	request_begin(&request, RTM_NEWNSID, NLM_F_ACK, sizeof(struct rtgenmsg));
	request_add(&request, NETNSA_FD, &own, sizeof(own));
	request_add(&request, NETNSA_NSID, &id, sizeof(id));
	return own >= 0 && accepted(NETLINK_ROUTE, &request);
}

static const struct rtattr *find_attribute(const struct nlmsghdr *answer, size_t header, int type)
{
	const struct rtattr *attribute =
		(const void *)((const char *)NLMSG_DATA(answer) + NLMSG_ALIGN(header));
	int left = answer->nlmsg_len - NLMSG_LENGTH(NLMSG_ALIGN(header));

	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
		if (attribute->rta_type == type)
			return attribute;
	return NULL;
}

static bool answers_with(const struct request *request, size_t header, int type, int value)
{
	const struct rtattr *attribute;
	union answer answer;

	if (ask(NETLINK_ROUTE, request, &answer.header, sizeof(answer)))
		return false;
	attribute = find_attribute(&answer.header, header, type);
	return attribute && *(const int *)RTA_DATA(attribute) == value;
}

bool probe_namespace_id(int unused_argument unused)
{
	struct request request;
	int own;

	if (!take_network() || !name_namespace(7))
		return false;
	own = open("/proc/self/ns/net", O_RDONLY);
	request_begin(&request, RTM_GETNSID, 0, sizeof(struct rtgenmsg));
	request_add(&request, NETNSA_FD, &own, sizeof(own));
	return answers_with(&request, sizeof(struct rtgenmsg), NETNSA_NSID, 7);
}

/* An older kernel overlooks what namespace was asked for; a newer one repeats it in the answer. */
bool probe_link_in_namespace(int unused_argument unused)
{
	struct request request;
	struct ifinfomsg *link;
	int id = 7;

	if (!take_network() || !name_namespace(id))
		return false;
	link = request_begin(&request, RTM_GETLINK, 0, sizeof(*link));
	link->ifi_index = 1;
	request_add(&request, IFLA_TARGET_NETNSID, &id, sizeof(id));
	return answers_with(&request, sizeof(*link), IFLA_TARGET_NETNSID, id);
}

bool probe_interface_number(int unused_argument unused)
{
	struct request request;
	struct ifinfomsg *link;
	struct rtattr *information;

	if (!take_network())
		return false;
	link = request_begin(&request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, sizeof(*link));
	link->ifi_index = 4711;
	request_add(&request, IFLA_IFNAME, "probe", sizeof("probe"));
	information = request_add(&request, IFLA_LINKINFO, NULL, 0);
	request_add(&request, IFLA_INFO_KIND, "veth", sizeof("veth"));
	request_close(&request, information);
	return accepted(NETLINK_ROUTE, &request) && if_nametoindex("probe") == 4711;
}

/* A table, in a batch as the kernel wants it. The answer to a batch is the first error in it, or an acknowledgement. */
bool probe_nftables(int unused_argument unused)
{
	char batch[3 * sizeof(struct request)], *end = batch;
	struct nfgenmsg *message;
	struct request request;
	union answer answer;
	int fd;

	if (!take_network())
		return false;
	for (int i = 0; i < 3; i++) {
		int type = i == 0 ? NFNL_MSG_BATCH_BEGIN :
			   i == 2 ? NFNL_MSG_BATCH_END :
				    NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE;

		message = request_begin(&request, type, i == 1 ? NLM_F_CREATE | NLM_F_ACK : 0,
					sizeof(*message));
		message->nfgen_family = i == 1 ? NFPROTO_INET : AF_UNSPEC;
		message->res_id = i == 1 ? 0 : htons(NFNL_SUBSYS_NFTABLES);
		if (i == 1)
			request_add(&request, NFTA_TABLE_NAME, "probe", sizeof("probe"));
		memcpy(end, &request, NLMSG_ALIGN(request.header.nlmsg_len));
		end += NLMSG_ALIGN(request.header.nlmsg_len);
	}
	fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
	return send(fd, batch, end - batch, 0) > 0 && recv(fd, &answer, sizeof(answer), 0) > 0 &&
	       answer.header.nlmsg_type == NLMSG_ERROR &&
	       ((struct nlmsgerr *)NLMSG_DATA(&answer.header))->error == 0;
}

/* --- Interfaces and namespaces --------------------------------------------------------------------------------- */

static int open_tun(void)
{
	struct ifreq request = { .ifr_name = "probe", .ifr_flags = IFF_TUN | IFF_NO_PI };
	int fd;

	if (!take_network())
		return -1;
	fd = open("/dev/net/tun", O_RDWR);
	return fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0 ? fd : -1;
}

bool probe_tun(int unused_argument unused)
{
	struct ifreq request = {};
	int fd = open_tun();

	return fd >= 0 && ioctl(fd, TUNGETIFF, &request) == 0 && request.ifr_flags & IFF_TUN;
}

bool probe_tun_namespace(int unused_argument unused)
{
	int fd = open_tun();

	return fd >= 0 && ioctl(fd, TUNGETDEVNETNS) >= 0;
}

static int make_socket(void *unused_argument unused)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* We leave our network and have a socket made there. */
bool probe_enter_network(int unused_argument unused)
{
	struct place place = PLACE_HERE;
	struct stat home, seen;
	int fd;

	place.net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (place.net < 0 || fstat(place.net, &home) || !take_network())
		return false;
	fd = run_in(&place, make_socket, NULL);
	return fd >= 0 && fstat(ioctl(fd, SIOCGSKNS), &seen) == 0 && seen.st_ino == home.st_ino;
}

bool probe_iptables_legacy(int unused_argument unused)
{
	autofree char *path = copy_text(getenv("PATH") ?: "/usr/sbin:/usr/bin:/sbin:/bin");

	for (char *rest = path, *directory; (directory = strsep(&rest, ":"));) {
		autofree char *program = format_text("%s/iptables-legacy", directory);

		if (access(program, X_OK) == 0)
			return true;
	}
	return false;
}
