/*
 * netlink_facts.c - see netlink_socket.h.
 *
 * All protocols are asked for at once. The kernel's list has flaws (seen on Linux 6.18): a socket with a port and groups
 * is in it twice; and a socket that does not fit into a message any more, in which the list then goes on, is in none. So
 * criu asks twice, for sockets of different sizes: other ones are lacking then.
 */
#include <errno.h>
#include <linux/netlink_diag.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel/netlink.h"
#include "sockets/netlink_socket.h"

static int add_fact(struct nlmsghdr *answer, void *argument)
{
	struct netlink_facts *facts = argument;
	const struct netlink_diag_msg *header = nlmsg_data(answer);
	struct nlattr *flags;
	struct netlink_fact *fact;

	if (nlmsg_datalen(answer) < (int)sizeof(*header))
		return fail(EBADMSG, "cannot understand what the kernel tells of a netlink socket");
	if (!header->ndiag_ino || index_find(&facts->by_inode, header->ndiag_ino))
		return 0;
	flags = nlmsg_find_attr(answer, sizeof(*header), NETLINK_DIAG_FLAGS);
	fact = *grow(&facts->items, &facts->count) = allocate(sizeof(*fact));
	fact->state = header->ndiag_state;
	fact->flags = flags && nla_len(flags) >= (int)sizeof(uint32_t) ? nla_get_u32(flags) : 0;
	index_set(&facts->by_inode, header->ndiag_ino, fact);
	return 0;
}

static int list_sockets(struct netlink_facts *facts, uint32_t show)
{
	const struct netlink_diag_req request = {
		.sdiag_family = AF_NETLINK,
		.sdiag_protocol = NDIAG_PROTO_ALL,
		.ndiag_show = show,
	};
	autoclose_netlink struct nl_sock *socket = NULL;
	int result = netlink_open(&socket, NETLINK_SOCK_DIAG);

	return result ?:
			netlink_list(socket, "list the netlink sockets",
				     netlink_message(SOCK_DIAG_BY_FAMILY, 0, &request, sizeof(request)),
				     add_fact, facts);
}

void netlink_facts_read(struct netlink_facts *facts)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	if (list_sockets(facts, NDIAG_SHOW_FLAGS) ||
	    list_sockets(facts, NDIAG_SHOW_FLAGS | NDIAG_SHOW_MEMINFO))
		log_info("it is assumed that no netlink socket is connected to the kernel: %s",
			 failure_text());
	attempt_forget(&attempt);
}

void netlink_facts_free(struct netlink_facts *facts)
{
	for (size_t i = 0; i < facts->count; i++)
		free(facts->items[i]);
	free(facts->items);
	index_free(&facts->by_inode);
	*facts = (struct netlink_facts){ 0 };
}

const struct netlink_fact *netlink_fact_find(const struct netlink_facts *facts, uint32_t inode)
{
	return index_find(&facts->by_inode, inode);
}
