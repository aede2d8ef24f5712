/*
 * packet_facts.c - see packet_facts.h.
 */
#include <errno.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/netlink.h"
#include "sockets/packet_facts.h"

static void take_bytes(struct nlattr *attribute, void *to, size_t size)
{
	if (nla_len(attribute) >= (int)size)
		memcpy(to, nla_data(attribute), size);
}

static void take_ring(struct packet_fact *fact, struct nlattr *attribute, enum packet_direction direction)
{
	fact->has_ring[direction] = true;
	take_bytes(attribute, &fact->rings[direction], sizeof(fact->rings[direction]));
}

static void take_attribute(struct packet_fact *fact, struct nlattr *attribute)
{
	switch (nla_type(attribute)) {
	case PACKET_DIAG_INFO:
		take_bytes(attribute, &fact->info, sizeof(fact->info));
		break;
	case PACKET_DIAG_MCLIST:
		fact->member_count = nla_len(attribute) / sizeof(*fact->members);
		fact->members = copy_bytes(nla_data(attribute), fact->member_count * sizeof(*fact->members));
		break;
	case PACKET_DIAG_RX_RING:
		take_ring(fact, attribute, RECEIVING);
		break;
	case PACKET_DIAG_TX_RING:
		take_ring(fact, attribute, SENDING);
		break;
	case PACKET_DIAG_FANOUT:
		fact->has_fanout = true;
		take_bytes(attribute, &fact->group, sizeof(fact->group));
		break;
	}
}

/* The type of the first attribute is 0, which nlmsg_parse() does not accept. */
static int add_fact(struct nlmsghdr *answer, void *argument)
{
	struct packet_facts *facts = argument;
	const struct packet_diag_msg *header = nlmsg_data(answer);
	struct packet_fact *fact;
	struct nlattr *attribute;
	int left;

	if (nlmsg_datalen(answer) < (int)sizeof(*header))
		return fail(EBADMSG, "cannot understand what the kernel tells of a packet socket");
	fact = allocate(sizeof(*fact));
	fact->inode = header->pdiag_ino;
	fact->order = facts->count;
	*grow(&facts->items, &facts->count) = fact;
	nlmsg_for_each_attr(attribute, answer, sizeof(*header), left)
	{
		take_attribute(fact, attribute);
	}
	index_set(&facts->by_inode, fact->inode, fact);
	return 0;
}

int packet_facts_read(struct packet_facts *facts)
{
	const struct packet_diag_req request = {
		.sdiag_family = AF_PACKET,
		.pdiag_show = PACKET_SHOW_INFO | PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG |
			      PACKET_SHOW_FANOUT,
	};
	autoclose_netlink struct nl_sock *socket = NULL;
	int result = netlink_open(&socket, NETLINK_SOCK_DIAG);

	if (result)
		return result;
	return netlink_list(socket, "list the packet sockets",
			    netlink_message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, &request, sizeof(request)),
			    add_fact, facts);
}

void packet_facts_free(struct packet_facts *facts)
{
	for (size_t i = 0; i < facts->count; i++) {
		free(facts->items[i]->members);
		free(facts->items[i]);
	}
	free(facts->items);
	index_free(&facts->by_inode);
	*facts = (struct packet_facts){ 0 };
}

const struct packet_fact *packet_fact_find(const struct packet_facts *facts, uint32_t inode)
{
	return index_find(&facts->by_inode, inode);
}

size_t packet_facts_in_group(const struct packet_facts *facts, uint16_t group)
{
	size_t count = 0;

	for (size_t i = 0; i < facts->count; i++)
		count += facts->items[i]->has_fanout && facts->items[i]->group == group;
	return count;
}
