/*
 * netlink_generic.c - groups of generic netlink. The kernel numbers families and their groups when they register, in
 * the order in which modules are loaded. So an image has their names, too, and a restored socket joins the groups with
 * these names.
 *
 * A process also knows the number of a family that it has asked for, and nothing can change that: if it is another one
 * now, there is a warning. Of a family of which the socket has no group, nothing shows that the process knows it.
 */
#include <errno.h>
#include <linux/genetlink.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/memory.h"
#include "image/message.h"
#include "kernel/netlink.h"
#include "sockets/netlink_socket.h"

struct family {
	const char *name;
	uint16_t number;
	struct nlattr *groups; /* NULL: it has none */
};

struct group {
	const char *name;
	uint32_t number;
};

static const char *text_of(struct nlattr *attribute)
{
	return attribute && nla_len(attribute) > 0 &&
			       memchr(nla_data(attribute), '\0', (size_t)nla_len(attribute)) ?
		       nla_data(attribute) :
		       NULL;
}

/* false: it is no description of a family. */
static bool read_family(struct nlmsghdr *answer, struct family *family)
{
	struct nlattr *number = nlmsg_find_attr(answer, GENL_HDRLEN, CTRL_ATTR_FAMILY_ID);

	family->name = text_of(nlmsg_find_attr(answer, GENL_HDRLEN, CTRL_ATTR_FAMILY_NAME));
	family->groups = nlmsg_find_attr(answer, GENL_HDRLEN, CTRL_ATTR_MCAST_GROUPS);
	if (!family->name || !number || nla_len(number) < (int)sizeof(uint16_t))
		return false;
	family->number = nla_get_u16(number);
	return true;
}

static bool read_group(struct nlattr *nested, struct group *group)
{
	struct nlattr *number = nla_find(nla_data(nested), nla_len(nested), CTRL_ATTR_MCAST_GRP_ID);

	group->name = text_of(nla_find(nla_data(nested), nla_len(nested), CTRL_ATTR_MCAST_GRP_NAME));
	if (!group->name || !number || nla_len(number) < (int)sizeof(uint32_t))
		return false;
	group->number = nla_get_u32(number);
	return true;
}

/* Calls `visit` for each group of the family that the answer describes. */
static void for_each_group(struct nlmsghdr *answer,
			   void (*visit)(const struct family *, const struct group *, void *), void *argument)
{
	struct family family;
	struct group group;
	struct nlattr *nested;
	int left;

	if (!read_family(answer, &family) || !family.groups)
		return;
	nla_for_each_nested(nested, family.groups, left)
	{
		if (read_group(nested, &group))
			visit(&family, &group, argument);
	}
}

/* ---- dump ---- */

static void name_group(const struct family *family, const struct group *group, void *argument)
{
	NetlinkSkEntry *entry = argument;
	NetlinkGroupEntry *named;

	if (!netlink_has_group(entry, group->number))
		return;
	named = message_new(NetlinkGroupEntry, netlink_group_entry);
	named->group = group->number;
	named->family = copy_text(family->name);
	named->number = family->number;
	named->name = copy_text(group->name);
	*grow(&entry->generic_groups, &entry->n_generic_groups) = named;
}

static int name_groups_of(struct nlmsghdr *answer, void *argument)
{
	for_each_group(answer, name_group, argument);
	return 0;
}

/* A group without a name belonged to a family that is gone, or to one of another network namespace. */
int netlink_name_groups(NetlinkSkEntry *entry)
{
	const struct genlmsghdr header = { .cmd = CTRL_CMD_GETFAMILY, .version = 2 };
	autoclose_netlink struct nl_sock *socket = NULL;
	int result;

	if (entry->protocol != NETLINK_GENERIC || !entry->n_groups)
		return 0;
	result = netlink_open(&socket, NETLINK_GENERIC);
	return result ?:
			netlink_list(socket, "list the families of generic netlink",
				     netlink_message(GENL_ID_CTRL, 0, &header, sizeof(header)), name_groups_of,
				     entry);
}

/* ---- restore ---- */

struct search {
	const NetlinkGroupEntry *wanted;
	uint32_t found, family;
};

static void compare_group(const struct family *family, const struct group *group, void *argument)
{
	struct search *search = argument;

	if (strcmp(group->name, search->wanted->name))
		return;
	search->found = group->number;
	search->family = family->number;
}

static int look_for_group(struct nlmsghdr *answer, void *argument)
{
	for_each_group(answer, compare_group, argument);
	return 0;
}

/* The kernel loads the module of a family that is asked for by its name. */
static int ask_for_family(struct search *search)
{
	const struct genlmsghdr header = { .cmd = CTRL_CMD_GETFAMILY, .version = 2 };
	struct nl_msg *message = netlink_message(GENL_ID_CTRL, 0, &header, sizeof(header));
	autoclose_netlink struct nl_sock *socket = NULL;
	int result = netlink_open(&socket, NETLINK_GENERIC);

	if (result) {
		nlmsg_free(message);
		return result;
	}
	netlink_add(message, CTRL_ATTR_FAMILY_NAME, search->wanted->family,
		    strlen(search->wanted->family) + 1);
	return netlink_request(socket, "ask for a family of generic netlink", message, look_for_group,
			       search);
}

uint32_t netlink_find_group(const NetlinkGroupEntry *named, uint32_t *family)
{
	struct search search = { .wanted = named };

	ignore(attempted(ask_for_family(&search)));
	*family = search.family;
	return search.found;
}
