/*
 * probe_network.c - probes about sockets and interfaces. They run in a child; see probe.h. Those that create something
 * first create a network namespace.
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
#include "kernel/netlink.h"
#include "kernel/place.h"
#include "kernel/probe_tests.h"
#include "kernel_constants.h"

static bool take_network(void)
{
	return unshare(CLONE_NEWNET) == 0;
}

/* --- Sockets --------------------------------------------------------------------------------------------------- */

bool probe_socket_namespace(int unused_argument unused)
{
	return ioctl(socket(AF_UNIX, SOCK_STREAM, 0), SIOCGSKNS) >= 0;
}

/* A socket without a name has no file; that error differs from the one for an unknown request. */
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

/* A half-closed connection: both ends must still allow repair mode, which is how they are read. */
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

/* Opened in the network namespace we are in. */
static bool accepted(int protocol, struct nl_msg *message, netlink_visit *visit, void *argument)
{
	autoclose_netlink struct nl_sock *socket = NULL;

	if (netlink_open(&socket, protocol) == 0)
		return netlink_request(socket, "ask", message, visit, argument) == 0;
	nlmsg_free(message);
	return false;
}

bool probe_raw_sockets(int unused_argument unused)
{
	const struct inet_diag_req_v2 wanted = { .sdiag_family = AF_INET,
						 .sdiag_protocol = IPPROTO_RAW,
						 .idiag_states = -1 };
	autoclose_netlink struct nl_sock *socket = NULL;

	return netlink_open(&socket, NETLINK_SOCK_DIAG) == 0 &&
	       netlink_list(socket, "list raw sockets",
			    netlink_message(SOCK_DIAG_BY_FAMILY, 0, &wanted, sizeof(wanted)), NULL,
			    NULL) == 0;
}

/* Gives the network namespace we are in an id in itself. */
static bool name_namespace(int id)
{
	autoclose int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	const struct rtgenmsg any = { .rtgen_family = AF_UNSPEC };
	struct nl_msg *message = netlink_message(RTM_NEWNSID, 0, &any, sizeof(any));

	netlink_add(message, NETNSA_FD, &own, sizeof(own));
	netlink_add(message, NETNSA_NSID, &id, sizeof(id));
	return accepted(NETLINK_ROUTE, message, NULL, NULL);
}

/* An attribute that the answer shall have. */
struct expected {
	size_t header; /* what stands before the attributes */
	int type, value;
	bool is_there;
};

static int look_for_message(struct nlmsghdr *answer, void *argument)
{
	struct expected *expected = argument;
	struct nlattr *attribute = nlmsg_find_attr(answer, expected->header, expected->type);

	expected->is_there |= attribute && nla_len(attribute) == sizeof(int) &&
			      (int)nla_get_u32(attribute) == expected->value;
	return 0;
}

bool probe_namespace_id(int unused_argument unused)
{
	const struct rtgenmsg any = { .rtgen_family = AF_UNSPEC };
	struct expected expected = { sizeof(any), NETNSA_NSID, 7, false };
	struct nl_msg *message;
	int own;

	if (!take_network() || !name_namespace(expected.value))
		return false;
	own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	message = netlink_message(RTM_GETNSID, 0, &any, sizeof(any));
	netlink_add(message, NETNSA_FD, &own, sizeof(own));
	return accepted(NETLINK_ROUTE, message, look_for_message, &expected) && expected.is_there;
}

/* An older kernel overlooks what namespace was asked for; a newer one repeats it in the answer. */
bool probe_link_in_namespace(int unused_argument unused)
{
	const struct ifinfomsg link = { .ifi_index = 1 };
	struct expected expected = { sizeof(link), IFLA_TARGET_NETNSID, 7, false };
	struct nl_msg *message;

	if (!take_network() || !name_namespace(expected.value))
		return false;
	message = netlink_message(RTM_GETLINK, 0, &link, sizeof(link));
	netlink_add(message, IFLA_TARGET_NETNSID, &expected.value, sizeof(expected.value));
	return accepted(NETLINK_ROUTE, message, look_for_message, &expected) && expected.is_there;
}

bool probe_interface_number(int unused_argument unused)
{
	const struct ifinfomsg link = { .ifi_index = 4711 };
	struct nl_msg *message;
	struct nlattr *information;

	if (!take_network())
		return false;
	message = netlink_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof(link));
	netlink_add(message, IFLA_IFNAME, "probe", sizeof("probe"));
	information = netlink_begin(message, IFLA_LINKINFO);
	netlink_add(message, IFLA_INFO_KIND, "veth", sizeof("veth"));
	netlink_end(message, information);
	return accepted(NETLINK_ROUTE, message, NULL, NULL) && if_nametoindex("probe") == 4711;
}

/* A table, in a batch as the kernel wants it. */
bool probe_nftables(int unused_argument unused)
{
	const struct nfgenmsg border = { .nfgen_family = AF_UNSPEC, .res_id = htons(NFNL_SUBSYS_NFTABLES) };
	const struct nfgenmsg table = { .nfgen_family = NFPROTO_INET };
	autoclose_netlink struct nl_sock *socket = NULL;
	struct nl_msg *batch[3];

	if (!take_network() || netlink_open(&socket, NETLINK_NETFILTER))
		return false;
	batch[0] = netlink_message(NFNL_MSG_BATCH_BEGIN, 0, &border, sizeof(border));
	batch[1] = netlink_message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK,
				   &table, sizeof(table));
	netlink_add(batch[1], NFTA_TABLE_NAME, "probe", sizeof("probe"));
	batch[2] = netlink_message(NFNL_MSG_BATCH_END, 0, &border, sizeof(border));
	return netlink_batch(socket, "make a table", batch, array_size(batch)) == 0;
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
