/*
 * netlink.c - netlink sockets: their ports, groups, connections and options, and that they are still of use.
 *
 * usage: netlink DIRECTORY PART, one of those in the table at the end
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/genetlink.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "netlink_sockets.h"

#define MOST	  1024 /* groups */
#define HIGH_PORT 0xfffffff0U
#define USER	  1234

static pid_t child;

/* ---- route: requests, answers and lists ---- */

static void ask_for_lo(int fd)
{
	const struct ifinfomsg body = { .ifi_index = LO };
	struct request request = begin(RTM_GETLINK, 0, &body, sizeof(body));
	struct nlmsghdr *header;

	put(fd, &request);
	header = get(fd, "a device");
	live_check(header->nlmsg_type == RTM_NEWLINK && header->nlmsg_pid == address_of(fd).nl_pid &&
			   ((struct ifinfomsg *)NLMSG_DATA(header))->ifi_index == LO,
		   "this is not the loopback device");
	live_check(is_quiet(fd), "there is more than an answer");
}

static void ask_for_list(int fd)
{
	const struct ifinfomsg body = { 0 };
	struct request request = begin(RTM_GETLINK, NLM_F_DUMP, &body, sizeof(body));

	put(fd, &request);
	while (get(fd, "a list")->nlmsg_type == RTM_NEWLINK)
		;
	live_check(((struct nlmsghdr *)answer)->nlmsg_type == NLMSG_DONE, "the list does not end");
}

static void set_up_route(void)
{
	make(0, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	make(1, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE, 0, 0);
	make(2, SOCK_RAW, NETLINK_ROUTE, HIGH_PORT, 0);
	make(3, SOCK_RAW, NETLINK_SOCK_DIAG, HIGH_PORT, 0);
	note_ports();
	for (int i = 0; i < 3; i++)
		ask_for_lo(fds[i]);
	ask_for_list(fds[2]);
}

static void verify_route(void)
{
	check_ports();
	live_check(fcntl(fds[1], F_GETFL) & O_NONBLOCK && fcntl(fds[1], F_GETFD) & FD_CLOEXEC &&
			   !(fcntl(fds[0], F_GETFL) & O_NONBLOCK),
		   "other flags");
	for (int i = 0; i < 3; i++)
		ask_for_lo(fds[i]);
	ask_for_list(fds[1]);
}

static void set_up_types(void)
{
	make(0, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	make(1, SOCK_DGRAM, NETLINK_ROUTE, 0, 0);
}

static void verify_types(void)
{
	live_check(get_option(fds[0], SOL_SOCKET, SO_TYPE) == SOCK_RAW &&
			   get_option(fds[1], SOL_SOCKET, SO_TYPE) == SOCK_DGRAM,
		   "another type");
	ask_for_lo(fds[1]);
}

/* ---- groups: events ---- */

static void read_groups(int fd, uint32_t *words)
{
	socklen_t size = MOST / 8;

	memset(words, 0, MOST / 8);
	live_check(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, words, &size) == 0,
		   "NETLINK_LIST_MEMBERSHIPS: %m");
}

static uint32_t groups[2][MOST / 32];

static void check_groups(int fd, int number)
{
	uint32_t now[MOST / 32];

	read_groups(fd, now);
	live_check(!memcmp(now, groups[number], sizeof(now)), "it has other groups: %x %x, not %x %x", now[0],
		   now[1], groups[number][0], groups[number][1]);
}

/* A change of an address is an event of RTNLGRP_IPV4_IFADDR. */
static void check_event(int listener, const char *text)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	live_check(is_quiet(listener), "there is an event before");
	live_check(change_address(fd, RTM_NEWADDR, text) == 0, "an address cannot be added");
	live_check(get(listener, "an event")->nlmsg_type == RTM_NEWADDR, "it is another event");
	live_check(change_address(fd, RTM_DELADDR, text) == 0, "an address cannot be removed");
	live_check(get(listener, "an event")->nlmsg_type == RTM_DELADDR, "it is another event");
	live_check(is_quiet(listener), "there is another event");
	close(fd);
}

static void set_up_groups(void)
{
	int fd = make(0, SOCK_RAW, NETLINK_ROUTE, 0, 1 << (RTNLGRP_IPV4_IFADDR - 1));

	join(fd, 31);
	join(fd, RTNLGRP_NEXTHOP); /* 32 */
	read_groups(fd, groups[0]);
	note_ports();
	check_event(fd, "127.77.0.1");
}

static void verify_groups(void)
{
	check_ports();
	check_groups(fds[0], 0);
	check_event(fds[0], "127.77.0.2");
}

/* Numbers that bind() has no bit for. */
static void set_up_many(void)
{
	set_up_groups();
	join(fds[0], RTNLGRP_BRVLAN); /* 33 */
	if (setsockopt(fds[0], SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &(int){ 36 }, sizeof(int)) < 0)
		live_check(errno == EINVAL, "RTNLGRP_STATS: %m");
	read_groups(fds[0], groups[0]);
	live_check(groups[0][1] & 1, "group 33 is not in the list");
	make(1, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	join(fds[1], RTNLGRP_BRVLAN);
	read_groups(fds[1], groups[1]);
	note_ports();
}

static void verify_many(void)
{
	verify_groups();
	check_groups(fds[1], 1);
	ask_for_lo(fds[1]);
}

/* ---- late: without a port, and so without events, although it has joined ---- */

static void set_up_late(void)
{
	fds[0] = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	fds[1] = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	live_check(fds[0] >= 0 && fds[1] >= 0, "socket: %m");
	join(fds[1], RTNLGRP_IPV4_IFADDR);
	read_groups(fds[1], groups[0]);
}

static void verify_late(void)
{
	live_check(!address_of(fds[0]).nl_pid && !address_of(fds[1]).nl_pid, "a socket has got a port");
	check_groups(fds[1], 0);
	ask_for_lo(fds[0]);
	live_check(address_of(fds[0]).nl_pid == (uint32_t)getpid(), "the port is not that of the process");
	ask_for_lo(fds[1]);
	check_event(fds[1], "127.77.0.3");
}

/* ---- connected: messages between sockets ---- */

static void connect_to(int fd, uint32_t port, uint32_t group)
{
	const struct sockaddr_nl peer = { .nl_family = AF_NETLINK,
					  .nl_pid = port,
					  .nl_groups = group ? 1U << (group - 1) : 0 };

	live_check(connect(fd, (const struct sockaddr *)&peer, sizeof(peer)) == 0, "connect: %m");
}

static void set_up_connected(void)
{
	make(0, SOCK_DGRAM, NETLINK_USERSOCK, 1001, 0);
	make(1, SOCK_DGRAM, NETLINK_USERSOCK, 1002, 0);
	make(2, SOCK_DGRAM, NETLINK_USERSOCK, 1003, 0);
	make(3, SOCK_DGRAM, NETLINK_USERSOCK, 1004, 0x80000000);
	make(4, SOCK_DGRAM, NETLINK_USERSOCK, 1005, 0);
	connect_to(fds[1], 1001, 0);
	connect_to(fds[2], 0, 0); /* to the kernel: others cannot send to it */
	connect_to(fds[4], 0, 32);
	note_ports();
}

static void verify_connected(void)
{
	check_ports();
	live_check(peer_of(fds[1]).nl_pid == 1001 && !peer_of(fds[1]).nl_groups,
		   "connected to port %u and groups %x, not port 1001", peer_of(fds[1]).nl_pid,
		   peer_of(fds[1]).nl_groups);
	live_check(peer_of(fds[4]).nl_groups == 0x80000000, "another group as peer");
	live_check(send(fds[1], "hello", 5, 0) == 5, "send: %m");
	check_hello(fds[0], 1002);
	live_check(send_to(fds[0], 1002) == 0, "the peer cannot send: %m");
	check_hello(fds[1], 1001);
	live_check(send_to(fds[3], 1002) == ECONNREFUSED, "another can send to a connected socket");
	live_check(send_to(fds[3], 1001) == 0, "nobody can send to a socket that is not connected: %m");
	check_hello(fds[0], 1004);
	live_check(send_to(fds[0], 1003) == ECONNREFUSED,
		   "others can send to one that is connected to the kernel");
	/* It is sent to the group, and then to the kernel, which does not listen. */
	live_check(send(fds[4], "hello", 5, 0) < 0 && errno == ECONNREFUSED, "send to a group: %m");
	check_hello(fds[3], 1005);
}

/* ---- crowd: more than the kernel lists in a few messages, all of them connected to the kernel ---- */

#define CROWD 900

static int crowd[CROWD];

static void set_up_crowd(void)
{
	for (int i = 0; i < CROWD; i++) {
		crowd[i] = make(0, SOCK_RAW, NETLINK_USERSOCK, 3000 + i, 0);
		connect_to(crowd[i], 0, 0);
	}
	make(1, SOCK_RAW, NETLINK_USERSOCK, 0, 0);
}

static void verify_crowd(void)
{
	for (int i = 0; i < CROWD; i++) {
		live_check(address_of(crowd[i]).nl_pid == (uint32_t)(3000 + i), "number %d has another port",
			   i);
		live_check(send_to(fds[1], 3000 + i) == ECONNREFUSED,
			   "number %d is not connected to the kernel", i);
	}
}

/* ---- options ---- */

static const int switches[] = { NETLINK_PKTINFO,	 NETLINK_BROADCAST_ERROR, NETLINK_NO_ENOBUFS,
				NETLINK_LISTEN_ALL_NSID, NETLINK_CAP_ACK,	  NETLINK_EXT_ACK,
				NETLINK_GET_STRICT_CHK };
#define SWITCHES ((int)(sizeof(switches) / sizeof(switches[0])))
static bool shows_all_nsid; /* an older kernel does not */
static struct sock_filter all[] = { BPF_STMT(BPF_RET | BPF_K, 0xffff) };

static void set_up_options(void)
{
	struct sock_fprog filter = { 1, all };

	make(0, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	make(1, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	for (int i = 0; i < SWITCHES; i++)
		set_option(fds[0], SOL_NETLINK, switches[i], 1);
	shows_all_nsid = getsockopt(fds[0], SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &(int){ 0 },
				    &(socklen_t){ sizeof(int) }) == 0;
	set_option(fds[0], SOL_SOCKET, SO_RCVBUF, 54321);
	set_option(fds[0], SOL_SOCKET, SO_SNDBUF, 12345);
	set_option(fds[0], SOL_SOCKET, SO_PASSCRED, 1);
	live_check(setsockopt(fds[0], SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) == 0,
		   "filter: %m");
	live_check(fchmod(fds[0], 0640) == 0, "fchmod: %m");
	note_ports();
}

static void verify_options(void)
{
	struct sock_filter program[8];
	socklen_t count = 8;
	struct stat inode;

	check_ports();
	for (int i = 0; i < SWITCHES; i++) {
		if (switches[i] == NETLINK_LISTEN_ALL_NSID && !shows_all_nsid)
			continue;
		live_check(get_option(fds[0], SOL_NETLINK, switches[i]) == 1, "option %d is off",
			   switches[i]);
		live_check(get_option(fds[1], SOL_NETLINK, switches[i]) == 0, "option %d is on", switches[i]);
	}
	live_check(get_option(fds[0], SOL_SOCKET, SO_RCVBUF) == 2 * 54321 &&
			   get_option(fds[0], SOL_SOCKET, SO_SNDBUF) == 2 * 12345,
		   "buffers of another size");
	live_check(get_option(fds[0], SOL_SOCKET, SO_PASSCRED) == 1, "SO_PASSCRED is off");
	live_check(getsockopt(fds[0], SOL_SOCKET, SO_GET_FILTER, program, &count) == 0 && count == 1 &&
			   !memcmp(program, all, sizeof(all)),
		   "another filter");
	live_check(fstat(fds[0], &inode) == 0 && (inode.st_mode & 07777) == 0640, "another mode");
	ask_for_lo(fds[0]);
}

/* ---- generic ---- */

/* All groups that it may join, of all families. */
static void set_up_generic(void)
{
	int fd = make(0, SOCK_RAW, NETLINK_GENERIC, 0, 0);

	for (int group = 1, joined = 0; group < 100; group++)
		joined += setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) == 0;
	read_groups(fd, groups[0]);
	live_check(groups[0][0] >> 15 & 1, "no group of nlctrl");
	note_ports();
}

static void verify_generic(void)
{
	const struct genlmsghdr body = { CTRL_CMD_GETFAMILY, 1, 0 };
	struct request request = begin(GENL_ID_CTRL, 0, &body, sizeof(body));

	check_ports();
	check_groups(fds[0], 0);
	add(&request, CTRL_ATTR_FAMILY_NAME, "nlctrl", sizeof("nlctrl"));
	put(fds[0], &request);
	live_check(get(fds[0], "a family")->nlmsg_type == GENL_ID_CTRL, "no family");
}

/* ---- uevent ---- */

/* Until SIGTERM, its filter drops all: devices of other tests, too, have events. */
static void set_up_uevent(void)
{
	struct sock_filter none[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog filter = { 1, none };
	int fd = make(0, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT, 0, 0);

	live_check(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) == 0, "filter: %m");
	join(fd, 1);
	note_ports();
}

static void verify_uevent(void)
{
	int trigger = open("/sys/devices/virtual/mem/null/uevent", O_WRONLY | O_CLOEXEC);

	check_ports();
	live_check(is_quiet(fds[0]), "the filter lets something pass");
	set_option(fds[0], SOL_SOCKET, SO_DETACH_FILTER, 0);
	if (trigger < 0 || write(trigger, "change", 6) < 0)
		live_skip("no event of /dev/null: %m");
	while (strcmp((char *)get(fds[0], "an event of a device"), "change@/devices/virtual/mem/null"))
		;
}

/* ---- shared ---- */

static void use_shared(void)
{
	signal(SIGTERM, live_stop_child);
	live_wait_stop();
}

static void set_up_shared(void)
{
	make(0, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	child = live_fork(use_shared);
	fds[1] = dup(fds[0]);
	note_ports();
}

static void verify_shared(void)
{
	check_ports();
	live_check(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(fds[1], F_GETFL) & O_NONBLOCK,
		   "these are two open files");
	ask_for_lo(fds[1]);
	live_join(child);
}

/* ---- flight: in the queue of another socket ---- */

static int ends[2];

static void set_up_flight(void)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = "", byte = 'x';
	struct iovec bytes = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	make(0, SOCK_RAW, NETLINK_ROUTE, HIGH_PORT, 0);
	note_ports();
	live_check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair: %m");
	*header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(header), &fds[0], sizeof(int));
	live_check(sendmsg(ends[0], &message, 0) == 1, "sendmsg: %m");
	close(fds[0]);
}

static void verify_flight(void)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))), byte;
	struct iovec bytes = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};

	live_check(recvmsg(ends[1], &message, 0) == 1 && message.msg_controllen == sizeof(control),
		   "recvmsg: %m");
	memcpy(&fds[0], CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	check_ports();
	ask_for_lo(fds[0]);
}

/* ---- user: opened by somebody without rights ---- */

static void set_up_user(void)
{
	live_check(setegid(USER) == 0 && seteuid(USER) == 0, "seteuid: %m");
	make(0, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	live_check(seteuid(0) == 0 && setegid(0) == 0, "seteuid: %m");
	make(1, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	note_ports();
}

static void verify_user(void)
{
	struct stat inode;

	check_ports();
	live_check(fstat(fds[0], &inode) == 0 && inode.st_uid == USER && inode.st_gid == USER,
		   "it belongs to user %u", inode.st_uid);
	live_check(change_address(fds[0], RTM_DELADDR, "127.77.0.4") == -EPERM,
		   "a request through it is obeyed, although its opener could not have made it");
	live_check(change_address(fds[1], RTM_DELADDR, "127.77.0.4") == -EADDRNOTAVAIL,
		   "a request through the other one is not obeyed");
}

/* The rights of a process are not those of root: it has them as another user. */
static void set_up_able(void)
{
	live_check(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) == 0, "PR_SET_SECUREBITS: %m");
	live_check(setresgid(USER, USER, USER) == 0 && setresuid(USER, USER, USER) == 0, "setresuid: %m");
	make(0, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	note_ports();
}

static void verify_able(void)
{
	check_ports();
	live_check(change_address(fds[0], RTM_DELADDR, "127.77.0.4") == -EADDRNOTAVAIL,
		   "a request is not obeyed");
}

static const struct live_part parts[] = {
	{ "route", set_up_route, verify_route },       { "types", set_up_types, verify_types },
	{ "groups", set_up_groups, verify_groups },    { "many", set_up_many, verify_many },
	{ "late", set_up_late, verify_late },	       { "connected", set_up_connected, verify_connected },
	{ "crowd", set_up_crowd, verify_crowd },       { "options", set_up_options, verify_options },
	{ "generic", set_up_generic, verify_generic }, { "uevent", set_up_uevent, verify_uevent },
	{ "shared", set_up_shared, verify_shared },    { "flight", set_up_flight, verify_flight },
	{ "user", set_up_user, verify_user },	       { "able", set_up_able, verify_able },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, parts);
}
