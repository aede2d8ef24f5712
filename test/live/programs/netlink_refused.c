/*
 * netlink_refused.c - netlink sockets that a dump refuses, and of which it must have taken nothing away.
 *
 * usage: netlink_refused DIRECTORY PART, one of those in the table at the end
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/connector.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sched.h>
#include <stdlib.h>

#include "netlink_sockets.h"

static void set_up_unread(void)
{
	make(0, SOCK_DGRAM, NETLINK_USERSOCK, 2001, 0);
	make(1, SOCK_DGRAM, NETLINK_USERSOCK, 2002, 0);
	live_check(send_to(fds[0], 2002) == 0, "send: %m");
}

static void verify_unread(void)
{
	check_hello(fds[1], 2001);
}

static void set_up_event(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	make(0, SOCK_RAW, NETLINK_ROUTE, 2003, 1 << (RTNLGRP_IPV4_IFADDR - 1));
	live_check(change_address(fd, RTM_NEWADDR, "127.77.0.5") == 0, "an address cannot be added");
	close(fd);
}

static void verify_event(void)
{
	live_check(get(fds[0], "an event")->nlmsg_type == RTM_NEWADDR, "it is another event");
	change_address(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), RTM_DELADDR, "127.77.0.5");
}

/* A list that is longer than a message, of which nothing or the first part was read. */
static void set_up_list(void)
{
	const struct unix_diag_req body = { .sdiag_family = AF_UNIX, .udiag_states = -1 };
	struct request request = begin(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &body, sizeof(body));

	for (int i = 0; i < 400; i++)
		live_check(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) >= 0, "socket: %m");
	make(0, SOCK_RAW, NETLINK_SOCK_DIAG, 0, 0);
	put(fds[0], &request);
	live_check(recv(fds[0], answer, 4096, 0) > 0, "recv: %m");
}

static void verify_list(void)
{
	while (get(fds[0], "a list")->nlmsg_type == SOCK_DIAG_BY_FAMILY)
		;
	live_check(((struct nlmsghdr *)answer)->nlmsg_type == NLMSG_DONE, "the list does not end");
}

/* The kernel has no memory to repeat such a large request in its error. */
static void set_up_error(void)
{
	const size_t size = 5 << 20;
	struct nlmsghdr *large = calloc(1, size);

	make(0, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	set_option(fds[0], SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20);
	large->nlmsg_len = size;
	large->nlmsg_type = RTM_MAX;
	large->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	live_check(send(fds[0], large, size, 0) == (ssize_t)size, "send: %m");
	free(large);
	if (!(poll(&(struct pollfd){ fds[0], POLLIN, 0 }, 1, 0) == 1))
		live_skip("this kernel could repeat it");
}

static void verify_error(void)
{
	live_check(recv(fds[0], answer, sizeof(answer), MSG_DONTWAIT) < 0 && errno == ENOBUFS,
		   "the error was read: %m");
}

static void set_up_processes(void)
{
	fds[0] = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_CONNECTOR);
	if (fds[0] < 0)
		live_skip("this kernel has no connector");
	join(fds[0], CN_IDX_PROC);
}

static void set_up_queue(void)
{
	const struct nfgenmsg body = { AF_INET, NFNETLINK_V0, htons(77) };
	const struct nfqnl_msg_config_cmd command = { .command = NFQNL_CFG_CMD_BIND };
	struct request request = begin(NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG, NLM_F_ACK, &body,
				       sizeof(body));

	make(0, SOCK_RAW, NETLINK_NETFILTER, 0, 0);
	add(&request, NFQA_CFG_CMD, &command, sizeof(command));
	if (ask(fds[0], &request))
		live_skip("this kernel has no NFQUEUE");
}

static void set_up_table(void)
{
	const struct nfgenmsg border = { AF_UNSPEC, NFNETLINK_V0, htons(NFNL_SUBSYS_NFTABLES) },
			      body = { AF_INET, NFNETLINK_V0, 0 };
	struct request begins = begin(NFNL_MSG_BATCH_BEGIN, 0, &border, sizeof(border)),
		       makes = begin(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK,
				     &body, sizeof(body)),
		       ends = begin(NFNL_MSG_BATCH_END, 0, &border, sizeof(border));
	char batch[1024];
	size_t size = 0;
	const struct request *all_of_it[] = { &begins, &makes, &ends };

	make(0, SOCK_RAW, NETLINK_NETFILTER, 0, 0);
	add(&makes, NFTA_TABLE_NAME, "owned", sizeof("owned"));
	add(&makes, NFTA_TABLE_FLAGS, &(uint32_t){ htonl(2 /* NFT_TABLE_F_OWNER */) }, 4);
	for (int i = 0; i < 3; i++) {
		memcpy(batch + size, all_of_it[i], all_of_it[i]->header.nlmsg_len);
		size += NLMSG_ALIGN(all_of_it[i]->header.nlmsg_len);
	}
	live_check(send(fds[0], batch, size, 0) == (ssize_t)size, "send: %m");
	if (((struct nlmsgerr *)NLMSG_DATA(get(fds[0], "a table")))->error)
		live_skip("this kernel has no tables with an owner");
}

static void set_up_elsewhere(void)
{
	int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	live_check(unshare(CLONE_NEWNET) == 0, "unshare: %m");
	make(0, SOCK_RAW, NETLINK_ROUTE, 0, 0);
	live_check(setns(here, CLONE_NEWNET) == 0, "setns: %m");
	close(here);
}

static void verify_nothing(void)
{
	live_check(fcntl(fds[0], F_GETFD) >= 0, "it is closed: %m");
}

static const struct live_part parts[] = {
	{ "unread", set_up_unread, verify_unread },
	{ "event", set_up_event, verify_event },
	{ "list", set_up_list, verify_list },
	{ "error", set_up_error, verify_error },
	{ "processes", set_up_processes, verify_nothing },
	{ "queue", set_up_queue, verify_nothing },
	{ "table", set_up_table, verify_nothing },
	{ "elsewhere", set_up_elsewhere, verify_nothing },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, parts);
}
