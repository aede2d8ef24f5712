/*
 * tun_device.c - see tun.h. All of it is asked of rtnetlink, and set there: /sys may show another network namespace.
 */
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kinds/tun.h"
#include "image/message.h"
#include "kernel/netlink.h"

#define MOST_ADDRESSES 65536
#define HARDWARE_SIZE  32				   /* MAX_ADDR_LEN of Linux */
#define TO_BE_FOUND    (IFA_F_TENTATIVE | IFA_F_DADFAILED) /* by the kernel, about this address */

/* ---- look ---- */

static uint32_t number_in(struct nlattr *attribute, uint32_t otherwise)
{
	return attribute && nla_len(attribute) >= (int)sizeof(uint32_t) ? nla_get_u32(attribute) : otherwise;
}

static void take_bytes(ProtobufCBinaryData *to, struct nlattr *attribute)
{
	to->len = nla_len(attribute);
	to->data = copy_bytes(nla_data(attribute), to->len);
}

static void take_information(struct tun_device *device, struct nlattr *information)
{
	struct nlattr *parts[IFLA_INFO_MAX + 1], *values[IFLA_TUN_MAX + 1];

	if (!information || nla_parse_nested(parts, IFLA_INFO_MAX, information, NULL) < 0 ||
	    !parts[IFLA_INFO_KIND] || strcmp(nla_get_string(parts[IFLA_INFO_KIND]), "tun"))
		return;
	device->is_tun = true;
	if (!parts[IFLA_INFO_DATA] || nla_parse_nested(values, IFLA_TUN_MAX, parts[IFLA_INFO_DATA], NULL) < 0)
		return;
	device->owner = number_in(values[IFLA_TUN_OWNER], -1);
	device->group = number_in(values[IFLA_TUN_GROUP], -1);
	device->queues = number_in(values[IFLA_TUN_NUM_QUEUES], 0);
	device->switched_off = number_in(values[IFLA_TUN_NUM_DISABLED_QUEUES], 0);
}

/* Openvswitch and team keep the list themselves, and take a device again when it appears. */
static bool is_set_by_kernel(struct nlattr *information)
{
	static const char *const kinds[] = { "bridge", "bond", "vrf" };
	struct nlattr *parts[IFLA_INFO_MAX + 1];

	if (!information || nla_parse_nested(parts, IFLA_INFO_MAX, information, NULL) < 0 ||
	    !parts[IFLA_INFO_SLAVE_KIND])
		return false;
	for (size_t i = 0; i < array_size(kinds); i++)
		if (!strcmp(nla_get_string(parts[IFLA_INFO_SLAVE_KIND]), kinds[i]))
			return true;
	return false;
}

static void take_master(TunDeviceEntry *entry, struct nlattr *const *attributes)
{
	char name[IF_NAMESIZE];

	if (is_set_by_kernel(attributes[IFLA_LINKINFO]) &&
	    if_indextoname(number_in(attributes[IFLA_MASTER], 0), name))
		entry->master = copy_text(name);
}

static int take_link(struct nlmsghdr *answer, void *context)
{
	struct tun_device *device = context;
	const struct ifinfomsg *link = nlmsg_data(answer);
	struct nlattr *attributes[IFLA_MAX + 1];
	TunDeviceEntry *entry = device->entry;

	if (nlmsg_parse(answer, sizeof(*link), attributes, IFLA_MAX, NULL) < 0)
		return fail(EBADMSG, "cannot understand what the kernel tells of a network device");
	device->exists = true;
	take_information(device, attributes[IFLA_LINKINFO]);
	if (!entry)
		return 0;
	entry->index = link->ifi_index;
	entry->is_up = !!(link->ifi_flags & IFF_UP);
	entry->mtu = number_in(attributes[IFLA_MTU], 1500);
	entry->queue = number_in(attributes[IFLA_TXQLEN], 0);
	if (attributes[IFLA_ADDRESS] && nla_len(attributes[IFLA_ADDRESS])) {
		entry->has_hardware = true;
		take_bytes(&entry->hardware, attributes[IFLA_ADDRESS]);
	}
	take_master(entry, attributes);
	return 0;
}

static int take_address(struct nlmsghdr *answer, void *context)
{
	TunDeviceEntry *device = context;
	const struct ifaddrmsg *message = nlmsg_data(answer);
	struct nlattr *attributes[IFA_MAX + 1], *local;
	TunAddressEntry *entry;

	if (nlmsg_parse(answer, sizeof(*message), attributes, IFA_MAX, NULL) < 0)
		return fail(EBADMSG, "cannot understand what the kernel tells of an address");
	local = attributes[IFA_LOCAL] ?: attributes[IFA_ADDRESS];
	if (message->ifa_index != device->index || !local)
		return 0;
	entry = *grow(&device->address, &device->n_address) = message_new(TunAddressEntry, tun_address_entry);
	entry->family = message->ifa_family;
	entry->prefix = message->ifa_prefixlen;
	entry->scope = message->ifa_scope;
	entry->flags = number_in(attributes[IFA_FLAGS], message->ifa_flags);
	take_bytes(&entry->local, local);
	if (attributes[IFA_LOCAL] && attributes[IFA_ADDRESS]) {
		entry->has_address = true;
		take_bytes(&entry->address, attributes[IFA_ADDRESS]);
	}
	if (attributes[IFA_BROADCAST]) {
		entry->has_broadcast = true;
		take_bytes(&entry->broadcast, attributes[IFA_BROADCAST]);
	}
	if (attributes[IFA_LABEL])
		entry->label = copy_text(nla_get_string(attributes[IFA_LABEL]));
	return 0;
}

static int look_at_addresses(struct nl_sock *socket, TunDeviceEntry *entry)
{
	const struct ifaddrmsg any = { .ifa_family = AF_UNSPEC };

	return netlink_list(socket, "list addresses", netlink_message(RTM_GETADDR, 0, &any, sizeof(any)),
			    take_address, entry);
}

int tun_device_look(const char *name, struct tun_device *device, TunDeviceEntry *entry)
{
	const struct ifinfomsg any = { 0 };
	struct nl_msg *message = netlink_message(RTM_GETLINK, 0, &any, sizeof(any));
	autoclose_netlink struct nl_sock *socket = NULL;
	struct attempt attempt;
	int result;

	*device = (struct tun_device){ .owner = -1, .group = -1, .entry = entry };
	netlink_add(message, IFLA_IFNAME, name, strlen(name) + 1);
	result = netlink_open(&socket, NETLINK_ROUTE);
	if (result) {
		nlmsg_free(message);
		return result;
	}
	attempt_begin(&attempt);
	result = netlink_request(socket, "look at a network device", message, take_link, device);
	if (result == -ENODEV) {
		attempt_forget(&attempt);
		return 0;
	}
	attempt_count(&attempt);
	return result ?: entry ? look_at_addresses(socket, entry) : 0;
}

/* ---- restore ---- */

const char *tun_device_why_invalid(const TunDeviceEntry *entry)
{
	if (entry->hardware.len > HARDWARE_SIZE || entry->n_address > MOST_ADDRESSES)
		return "a network device has an invalid address";
	if (entry->master && (!*entry->master || strlen(entry->master) >= IFNAMSIZ))
		return "the name of a bridge is invalid";
	for (size_t i = 0; i < entry->n_address; i++) {
		const TunAddressEntry *address = entry->address[i];
		size_t size = address->family == AF_INET ? 4 : address->family == AF_INET6 ? 16 : 0;

		if (!size || address->local.len != size || address->prefix > 8 * size ||
		    (address->has_address && address->address.len != size) ||
		    (address->has_broadcast && address->broadcast.len != size) ||
		    (address->label && strlen(address->label) >= IFNAMSIZ) || address->scope > UINT8_MAX)
			return "a network device has an invalid address";
	}
	return NULL;
}

int tun_device_check_master(const char *name, const TunDeviceEntry *entry)
{
	if (!entry->master || if_nametoindex(entry->master))
		return 0;
	fail_advice("create it first");
	return fail(ENODEV, "the network device %s was in %s, which does not exist", name, entry->master);
}

static int set_link(struct nl_sock *socket, int index, const TunDeviceEntry *entry, bool is_up)
{
	const struct ifinfomsg link = { .ifi_index = index,
					.ifi_flags = is_up ? IFF_UP : 0,
					.ifi_change = is_up ? IFF_UP : 0 };
	struct nl_msg *message = netlink_message(RTM_NEWLINK, NLM_F_ACK, &link, sizeof(link));

	if (!is_up) {
		netlink_add(message, IFLA_MTU, &entry->mtu, sizeof(entry->mtu));
		netlink_add(message, IFLA_TXQLEN, &entry->queue, sizeof(entry->queue));
		if (entry->hardware.len)
			netlink_add(message, IFLA_ADDRESS, entry->hardware.data, entry->hardware.len);
		if (entry->master)
			netlink_add(message, IFLA_MASTER, &(uint32_t){ if_nametoindex(entry->master) },
				    sizeof(uint32_t));
	}
	return netlink_request(socket, "set up a network device", message, NULL, NULL);
}

/* The kernel need not find out again whether an address is in use. */
static int add_address(struct nl_sock *socket, int index, const TunAddressEntry *entry)
{
	const uint32_t flags = (entry->flags & ~TO_BE_FOUND) | (entry->family == AF_INET6 ? IFA_F_NODAD : 0);
	const struct ifaddrmsg header = {
		.ifa_family = entry->family,
		.ifa_prefixlen = entry->prefix,
		.ifa_scope = entry->scope,
		.ifa_index = index,
	};
	struct nl_msg *message = netlink_message(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
						 &header, sizeof(header));

	netlink_add(message, IFA_LOCAL, entry->local.data, entry->local.len);
	netlink_add(message, IFA_ADDRESS, entry->has_address ? entry->address.data : entry->local.data,
		    entry->local.len);
	if (entry->has_broadcast)
		netlink_add(message, IFA_BROADCAST, entry->broadcast.data, entry->broadcast.len);
	if (entry->label)
		netlink_add(message, IFA_LABEL, entry->label, strlen(entry->label) + 1);
	netlink_add(message, IFA_FLAGS, &flags, sizeof(flags));
	return netlink_request(socket, "give a network device its address", message, NULL, NULL);
}

static int take_index(struct nlmsghdr *answer, void *context)
{
	*(int *)context = ((const struct ifinfomsg *)nlmsg_data(answer))->ifi_index;
	return 0;
}

int tun_device_set_up(const char *name, const TunDeviceEntry *entry)
{
	const struct ifinfomsg any = { 0 };
	struct nl_msg *message = netlink_message(RTM_GETLINK, 0, &any, sizeof(any));
	autoclose_netlink struct nl_sock *socket = NULL;
	int index = 0, result = netlink_open(&socket, NETLINK_ROUTE);

	if (result) {
		nlmsg_free(message);
		return result;
	}
	netlink_add(message, IFLA_IFNAME, name, strlen(name) + 1);
	result = netlink_request(socket, "look at a network device", message, take_index, &index) ?:
			 set_link(socket, index, entry, false);
	if (!result && entry->is_up)
		result = set_link(socket, index, entry, true);
	for (size_t i = 0; !result && i < entry->n_address; i++)
		result = add_address(socket, index, entry->address[i]);
	return result;
}
