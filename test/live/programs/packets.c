/*
 * packets.c - packet sockets: name, options, memberships, fanout groups. packet_rings.c has their rings.
 *
 * usage: packets DIRECTORY PART
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"
#include "packets.h"

#define BRIDGE	"criu-br1"
#define TAP	"criu-tap1"
#define MEMBERS 3

#ifndef PACKET_VNET_HDR_SZ
#define PACKET_VNET_HDR_SZ 24
#endif

static int fds[MEMBERS + 1];

/* ---- raw: bound to an interface ---- */

static void set_up_raw(void)
{
	bring_up("lo");
	fds[0] = make(SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC);
	bind_to(fds[0], "lo", TYPE);
	live_check(dup2(fds[0], 77) == 77, "dup2: %m");
	fds[1] = make(SOCK_RAW); /* receives nothing */
	fds[2] = make(SOCK_RAW); /* all that lo receives and sends */
	bind_to(fds[2], "lo", ETH_P_ALL);
}

static void verify_raw(void)
{
	unsigned char frame[64] = { [12] = TYPE >> 8, [13] = TYPE & 0xff, 'o', 'w', 'n' };

	verify_name(fds[0], "lo", TYPE);
	verify_name(fds[1], NULL, 0);
	verify_name(fds[2], "lo", ETH_P_ALL);
	live_check(fcntl(77, F_GETFL) & O_NONBLOCK && fcntl(fds[0], F_GETFD) == FD_CLOEXEC, "other flags");
	expect_nothing(77);
	send_text("hello");
	expect(77, "hello", HEADER);
	expect_nothing(fds[1]);
	expect(fds[2], "hello", HEADER); /* as it is sent */
	expect(fds[2], "hello", HEADER); /* as it arrives */
	live_check(send(fds[0], frame, sizeof(frame), 0) == sizeof(frame), "send: %m");
	expect(fds[0], "own", HEADER);
}

/* ---- dgram: of all interfaces, without headers ---- */

static void set_up_dgram(void)
{
	bring_up("lo");
	fds[0] = socket(AF_PACKET, SOCK_DGRAM, htons(TYPE));
	live_check(fds[0] >= 0, "socket: %m");
}

static void verify_dgram(void)
{
	struct sockaddr_ll to = name_of("lo", TYPE);
	int type;
	socklen_t size = sizeof(type);

	verify_name(fds[0], NULL, TYPE);
	live_check(getsockopt(fds[0], SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM, "type");
	to.sll_halen = ETH_ALEN;
	live_check(sendto(fds[0], "own", 4, 0, (void *)&to, sizeof(to)) == 4, "sendto: %m");
	expect(fds[0], "own", 0);
}

/* ---- options ---- */

struct option {
	int level, option, value;
};

static const struct option known[] = {
	{ SOL_PACKET, PACKET_VERSION, TPACKET_V2 },
	{ SOL_PACKET, PACKET_RESERVE, 48 },
	{ SOL_PACKET, PACKET_AUXDATA, 1 },
	{ SOL_PACKET, PACKET_ORIGDEV, 1 },
	{ SOL_PACKET, PACKET_LOSS, 1 },
	{ SOL_PACKET, PACKET_VNET_HDR, 1 },
	{ SOL_PACKET, PACKET_TIMESTAMP, 64 },
	{ SOL_SOCKET, SO_RCVBUF, 54321 },
	{ SOL_SOCKET, SO_MARK, 0x1234567 },
};

static const struct option others[] = {
	{ SOL_PACKET, PACKET_TX_HAS_OFF, 1 },
	{ SOL_PACKET, PACKET_QDISC_BYPASS, 1 },
	{ SOL_PACKET, PACKET_IGNORE_OUTGOING, 1 },
	{ SOL_PACKET, PACKET_VNET_HDR_SZ, 12 }, /* Linux 6.6 */
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static int before[COUNT(known)];

static int get(int fd, const struct option *option)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return getsockopt(fd, option->level, option->option, &value, &size) < 0 ? -12345 : value;
}

static void set_up_options_of(const struct option *options, size_t count)
{
	bring_up("lo");
	fds[0] = make(SOCK_RAW);
	for (size_t i = 0; i < count; i++) {
		if (setsockopt(fds[0], options[i].level, options[i].option, &options[i].value, 4) < 0)
			live_check(errno == ENOPROTOOPT, "option %d: %m", options[i].option);
		before[i] = get(fds[0], &options[i]);
	}
}

static void verify_options_of(const struct option *options, size_t count)
{
	for (size_t i = 0; i < count; i++)
		live_check(get(fds[0], &options[i]) == before[i], "option %d is %d, and not %d",
			   options[i].option, get(fds[0], &options[i]), before[i]);
}

/* Lets only texts pass that begin with "h". */
static void set_up_options(void)
{
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, HEADER),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'h', 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog filter = { 4, program };

	set_up_options_of(known, COUNT(known));
	live_check(setsockopt(fds[0], SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) == 0,
		   "SO_ATTACH_FILTER: %m");
	bind_to(fds[0], "lo", TYPE);
}

static void verify_options(void)
{
	verify_options_of(known, COUNT(known));
	send_text("bad");
	send_text("hello");
	expect(fds[0], "hello", 10 + HEADER); /* behind struct virtio_net_hdr */
}

static void set_up_new_options(void)
{
	set_up_options_of(others, COUNT(others));
	bind_to(fds[0], "lo", ETH_P_ALL);
}

static void verify_new_options(void)
{
	verify_options_of(others, COUNT(others));
	send_text("hello");
	expect(fds[0], "hello", (before[3] == 12 ? 12 : 0) + HEADER);
	expect_nothing(fds[0]); /* what was sent */
}

/* ---- memberships ---- */

static const unsigned char group[6] = { 1, 0, 0x5e, 1, 2, 3 };

static int change(int option, int type)
{
	struct packet_mreq request = { (int)if_nametoindex("lo"), type, 0, { 0 } };

	if (type == PACKET_MR_MULTICAST) {
		request.mr_alen = sizeof(group);
		memcpy(request.mr_address, group, sizeof(group));
	}
	return setsockopt(fds[0], SOL_PACKET, option, &request, sizeof(request));
}

static bool has_group(void)
{
	char line[200];
	bool is_found = false;
	FILE *file = fopen("/proc/thread-self/net/dev_mcast", "re");

	live_check(file, "dev_mcast: %m");
	while (fgets(line, sizeof(line), file))
		is_found |= strstr(line, "lo ") && strstr(line, "01005e010203");
	fclose(file);
	return is_found;
}

static void add(int type)
{
	live_check(change(PACKET_ADD_MEMBERSHIP, type) == 0, "PACKET_ADD_MEMBERSHIP: %m");
}

/* How often the socket has this membership, as packet_diag tells it. */
static unsigned count_in(struct nlmsghdr *answer, unsigned inode, int type)
{
	const struct packet_diag_msg *header = NLMSG_DATA(answer);
	struct rtattr *attribute = (void *)(header + 1);
	int left = (int)(answer->nlmsg_len - NLMSG_LENGTH(sizeof(*header)));

	for (; header->pdiag_ino == inode && RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
		const struct packet_diag_mclist *member = RTA_DATA(attribute);

		for (size_t i = 0; attribute->rta_type == PACKET_DIAG_MCLIST &&
				   i < RTA_PAYLOAD(attribute) / sizeof(*member);
		     i++)
			if (member[i].pdmc_type == type)
				return member[i].pdmc_count;
	}
	return 0;
}

static unsigned count(int type)
{
	struct {
		struct nlmsghdr header;
		struct packet_diag_req request;
	} ask = { { sizeof(ask), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 },
		  { .sdiag_family = AF_PACKET, .pdiag_show = PACKET_SHOW_MCLIST } };
	char bytes[32768] __attribute__((aligned(8)));
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG), left;
	struct stat stat;
	unsigned found = 0;

	live_check(fstat(fds[0], &stat) == 0 && send(fd, &ask, sizeof(ask), 0) == sizeof(ask), "send: %m");
	left = (int)recv(fd, bytes, sizeof(bytes), 0);
	for (struct nlmsghdr *answer = (void *)bytes; NLMSG_OK(answer, left);
	     answer = NLMSG_NEXT(answer, left))
		if (answer->nlmsg_type == SOCK_DIAG_BY_FAMILY)
			found += count_in(answer, (unsigned)stat.st_ino, type);
	close(fd);
	return found;
}

static void drop(int type, unsigned times)
{
	live_check(count(type) == times, "%u memberships of type %d", count(type), type);
	for (unsigned i = 0; i < times; i++)
		live_check(change(PACKET_DROP_MEMBERSHIP, type) == 0, "PACKET_DROP_MEMBERSHIP %d: %m", type);
	live_check(!count(type), "it has still %u memberships of type %d", count(type), type);
}

static void set_up_members(void)
{
	bring_up("lo");
	fds[0] = make(SOCK_RAW);
	bind_to(fds[0], "lo", TYPE);
	add(PACKET_MR_MULTICAST);
	add(PACKET_MR_PROMISC);
	add(PACKET_MR_ALLMULTI);
}

static void verify_members(void)
{
	live_check(has_group(), "the interface has left the group");
	drop(PACKET_MR_MULTICAST, 1);
	live_check(!has_group(), "the interface is still in the group");
	drop(PACKET_MR_PROMISC, 1);
	drop(PACKET_MR_ALLMULTI, 1);
}

static void set_up_members_twice(void)
{
	set_up_members();
	add(PACKET_MR_MULTICAST);
	add(PACKET_MR_PROMISC);
	add(PACKET_MR_PROMISC);
}

static void verify_members_twice(void)
{
	live_check(has_group(), "the interface has left the group");
	drop(PACKET_MR_MULTICAST, 2);
	drop(PACKET_MR_PROMISC, 3);
	drop(PACKET_MR_ALLMULTI, 1);
}

/* ---- fanout ---- */

static void enter(int fd, int id, int type)
{
	int request = id | type << 16;

	live_check(setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &request, sizeof(request)) == 0,
		   "PACKET_FANOUT: %m");
}

/* Numbers of descriptors are not in the order in which the sockets were created. */
static void make_members(int id, int type)
{
	bring_up("lo");
	for (int i = 0; i < MEMBERS; i++) {
		int fd = make(SOCK_RAW);

		fds[i] = dup2(fd, 60 - i);
		live_check(fds[i] == 60 - i && close(fd) == 0, "dup2: %m");
		bind_to(fds[i], "lo", TYPE);
		enter(fds[i], id, type);
	}
}

static void verify_members_of_group(int value)
{
	for (int i = 0; i < MEMBERS; i++)
		live_check(get(fds[i], &(struct option){ SOL_PACKET, PACKET_FANOUT, 0 }) == value,
			   "another group");
	expect_nothing(fds[0]);
}

/* The CPU chooses the member. */
static void set_up_fanout(void)
{
	make_members(4711, PACKET_FANOUT_CPU | PACKET_FANOUT_FLAG_ROLLOVER);
}

static void verify_fanout(void)
{
	cpu_set_t all, one;

	verify_members_of_group(4711 | (PACKET_FANOUT_CPU | PACKET_FANOUT_FLAG_ROLLOVER) << 16);
	live_check(sched_getaffinity(0, sizeof(all), &all) == 0, "sched_getaffinity: %m");
	for (int cpu = 0; cpu < MEMBERS; cpu++) {
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (!CPU_ISSET(cpu, &all) || sched_setaffinity(0, sizeof(one), &one) < 0)
			continue;
		send_text("hello");
		expect(fds[cpu], "hello", HEADER);
		for (int i = 0; i < MEMBERS; i++)
			expect_nothing(fds[i]);
	}
	live_check(sched_setaffinity(0, sizeof(all), &all) == 0, "sched_setaffinity: %m");
}

/* Group 0 of type 0 looks like none. */
static void set_up_fanout_zero(void)
{
	make_members(0, PACKET_FANOUT_HASH);
	fds[MEMBERS] = make(SOCK_RAW);
	bind_to(fds[MEMBERS], "lo", TYPE); /* in no group */
}

static void verify_fanout_zero(void)
{
	int count = 0;

	verify_members_of_group(0);
	send_text("hello");
	expect(fds[MEMBERS], "hello", HEADER);
	for (int i = 0; i < MEMBERS; i++)
		count += take(fds[i], "hello", HEADER, 20);
	live_check(count == 1, "%d members have received it", count);
	enter(fds[MEMBERS], 0, PACKET_FANOUT_HASH);
}

/* Another socket of the group is in a process that the test function begins. */
static void set_up_fanout_shared(void)
{
	make_members(99, PACKET_FANOUT_LB);
}

static void verify_fanout_shared(void)
{
	verify_members_of_group(99 | PACKET_FANOUT_LB << 16);
}

/* A child has the other socket of the group, which get packets by turns. */
static volatile int *has_entered;
static pid_t child;

static void be_member(void)
{
	int fd = make(SOCK_RAW);

	bind_to(fd, "lo", TYPE);
	enter(fd, 7, PACKET_FANOUT_LB);
	*has_entered = 1;
	live_wait_stop();
	live_check(get(fd, &(struct option){ SOL_PACKET, PACKET_FANOUT, 0 }) == (7 | PACKET_FANOUT_LB << 16),
		   "the child is in another group");
	for (int i = 0; i < 5; i++)
		expect(fd, "hello", HEADER);
	expect_nothing(fd);
}

static void set_up_fanout_family(void)
{
	bring_up("lo");
	has_entered = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fds[0] = make(SOCK_RAW);
	fcntl(fds[0], F_SETFD, FD_CLOEXEC);
	bind_to(fds[0], "lo", TYPE);
	enter(fds[0], 7, PACKET_FANOUT_LB);
	child = live_fork(be_member);
	live_await(*has_entered, "the child has not entered the group");
}

static void verify_fanout_family(void)
{
	for (int i = 0; i < 10; i++)
		send_text("hello");
	for (int i = 0; i < 5; i++)
		expect(fds[0], "hello", HEADER);
	expect_nothing(fds[0]);
	live_join(child);
}

/* ---- interfaces ---- */

static void make_bridge(void)
{
	int ask = socket(AF_INET, SOCK_DGRAM, 0);

	live_check(ioctl(ask, SIOCBRADDBR, BRIDGE) == 0 || errno == EEXIST, "no bridge: %m");
	close(ask);
}

/* Bound to an interface that is down: the error has been read. */
static void set_up_down(void)
{
	int error;
	socklen_t size = sizeof(error);

	make_bridge();
	fds[0] = make(SOCK_RAW);
	bind_to(fds[0], BRIDGE, ETH_P_ALL);
	live_check(getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == ENETDOWN,
		   "error %d", error);
}

static void verify_down(void)
{
	struct sockaddr_ll to;
	int error, sender = make(SOCK_DGRAM);
	socklen_t size = sizeof(error);

	verify_name(fds[0], BRIDGE, ETH_P_ALL);
	live_check(getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &error, &size) == 0 && !error, "error %d", error);
	bring_up(BRIDGE);
	to = name_of(BRIDGE, TYPE);
	to.sll_halen = ETH_ALEN;
	live_check(sendto(sender, "hello", 6, 0, (void *)&to, sizeof(to)) == 6, "sendto: %m");
	close(sender);
	live_check(poll(&(struct pollfd){ fds[0], POLLIN, 0 }, 1, 2000) == 1, "nothing has arrived");
}

/* The interface ends with the process. */
static void set_up_tap(void)
{
	struct ifreq request = { .ifr_name = TAP, .ifr_flags = IFF_TAP | IFF_NO_PI };

	fds[0] = make(SOCK_RAW); /* before the other file */
	fds[1] = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fds[1] < 0)
		live_skip("no tap: %m");
	live_check(ioctl(fds[1], TUNSETIFF, &request) == 0, "TUNSETIFF: %m");
	bring_up(TAP);
	bind_to(fds[0], TAP, TYPE);
	live_check(setsockopt(fds[0], SOL_PACKET, PACKET_ADD_MEMBERSHIP,
			      &(struct packet_mreq){ (int)if_nametoindex(TAP), PACKET_MR_PROMISC, 0, { 0 } },
			      sizeof(struct packet_mreq)) == 0,
		   "PACKET_ADD_MEMBERSHIP: %m");
}

static void verify_tap(void)
{
	unsigned char frame[64] = { [0] = 2, [12] = TYPE >> 8, [13] = TYPE & 0xff, 'h', 'e', 'l', 'l', 'o' };

	verify_name(fds[0], TAP, TYPE);
	live_check(write(fds[1], frame, sizeof(frame)) == sizeof(frame), "write: %m");
	expect(fds[0], "hello", HEADER);
}

/* ---- packets that nobody has read ---- */

static void set_up_unread(void)
{
	set_up_raw();
	send_text("unread");
	live_check(poll(&(struct pollfd){ fds[0], POLLIN, 0 }, 1, 2000) == 1, "nothing has arrived");
}

static void verify_unread(void)
{
	while (recv(fds[0], (char[2048]){ 0 }, 2048, 0) > 0)
		;
	while (recv(fds[2], (char[2048]){ 0 }, 2048, MSG_DONTWAIT) > 0)
		;
	verify_raw();
}

/* ---- refused ---- */

static void set_up_elsewhere(void)
{
	int here = open("/proc/thread-self/ns/net", O_RDONLY);

	live_check(here >= 0 && unshare(CLONE_NEWNET) == 0, "unshare: %m");
	fds[0] = make(SOCK_RAW);
	live_check(setns(here, CLONE_NEWNET) == 0, "setns: %m");
	close(here);
}

static void set_up_gone(void)
{
	int ask = socket(AF_INET, SOCK_DGRAM, 0);

	make_bridge();
	fds[0] = make(SOCK_RAW);
	bind_to(fds[0], BRIDGE, ETH_P_ALL);
	live_check(ioctl(ask, SIOCBRDELBR, BRIDGE) == 0, "SIOCBRDELBR: %m");
	close(ask);
}

static void set_up_program(void)
{
	set_up_raw();
	enter(fds[0], 5, PACKET_FANOUT_CBPF);
}

static void set_up_obsolete(void)
{
	fds[0] = make(SOCK_PACKET);
}

static void verify_nothing(void)
{
}

static const struct live_part parts[] = {
	{ "raw", set_up_raw, verify_raw },
	{ "dgram", set_up_dgram, verify_dgram },
	{ "options", set_up_options, verify_options },
	{ "new_options", set_up_new_options, verify_new_options },
	{ "members", set_up_members, verify_members },
	{ "members_twice", set_up_members_twice, verify_members_twice },
	{ "fanout", set_up_fanout, verify_fanout },
	{ "fanout_zero", set_up_fanout_zero, verify_fanout_zero },
	{ "fanout_family", set_up_fanout_family, verify_fanout_family },
	{ "fanout_shared", set_up_fanout_shared, verify_fanout_shared },
	{ "down", set_up_down, verify_down },
	{ "tap", set_up_tap, verify_tap },
	{ "unread", set_up_unread, verify_unread },
	{ "elsewhere", set_up_elsewhere, verify_nothing },
	{ "gone", set_up_gone, verify_nothing },
	{ "program", set_up_program, verify_nothing },
	{ "obsolete", set_up_obsolete, verify_nothing },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, parts);
}
