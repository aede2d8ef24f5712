/*
 * netlink_make.c - restores netlink sockets.
 *
 * check() makes each socket once and closes it again, so that everything that only the kernel can refuse is an error
 * before any process exists: a protocol that it lacks, a port that is in use, a group that is not there.
 *
 * open() gives it its port, which is its address: a socket whose port is in use is not restored. Perhaps the kernel had
 * chosen the number, but the process may have asked for it (libnl does, and compares it with that of each answer), and
 * other processes may have it, too. join() lets it join its groups: from then on it gets events, so its filter and its
 * buffers are set before.
 *
 * The kernel asks for the rights of whoever has opened a socket, too, before it obeys a request. The owner of the inode
 * tells who that was: another user than root gets no more rights than its process has now.
 */
#include <errno.h>
#include <linux/genetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kinds/opener.h"
#include "kernel_constants.h"
#include "model/inode.h"
#include "sockets/netlink_socket.h"
#include "sockets/options.h"

/* ---- the message ---- */

static bool is_option(uint32_t number)
{
	for (size_t i = 0; i < netlink_option_count; i++)
		if ((uint32_t)netlink_options[i].option == number)
			return true;
	return false;
}

static bool are_names_possible(const NetlinkSkEntry *entry)
{
	if (entry->n_generic_groups > 32 * entry->n_groups)
		return false;
	for (size_t i = 0; i < entry->n_generic_groups; i++)
		if (!netlink_has_group(entry, entry->generic_groups[i]->group) ||
		    strlen(entry->generic_groups[i]->family) >= GENL_NAMSIZ)
			return false;
	return !entry->n_generic_groups || entry->protocol == NETLINK_GENERIC;
}

/* Connecting gives a port to a socket that has none. */
static bool is_connected(const NetlinkSkEntry *entry)
{
	return entry->state == NETLINK_CONNECTED || entry->dst_portid || entry->dst_group;
}

static const char *find_mistake(const NetlinkSkEntry *entry)
{
	if (entry->protocol >= MAX_LINKS)
		return "there is no such protocol";
	if (entry->has_type && entry->type != SOCK_RAW && entry->type != SOCK_DGRAM)
		return "its type is invalid";
	if (entry->n_groups > NETLINK_WORDS_MOST)
		return "it has too many groups";
	if (entry->dst_group > 32 || (is_connected(entry) && !entry->portid))
		return "its connection is invalid";
	for (size_t i = 0; i < entry->n_switched_on; i++)
		if (!is_option(entry->switched_on[i]))
			return "it has an option that criu does not know";
	return are_names_possible(entry) ? NULL : "the name of a group is invalid";
}

/* ---- the socket ---- */

struct making {
	const NetlinkSkEntry *entry;
	int fd; /* -1: errno is in `error` */
	int error;
};

static int make_here(void *context)
{
	struct making *making = context;
	const NetlinkSkEntry *entry = making->entry;

	making->fd = socket(AF_NETLINK, (entry->has_type ? (int)entry->type : SOCK_RAW) | SOCK_CLOEXEC,
			    (int)entry->protocol);
	making->error = errno;
	return 0;
}

/* Whoever has opened it. False: criu is the same user; or it was root, who is nobody to hide rights from. */
static bool place_of_opener(const struct file *file, struct place *place)
{
	static const gid_t none = 0;
	const NetlinkSkEntry *entry = file->entry->nlsk;
	bool has_rights = place_of_holder(file, place);

	if (!entry->has_uid)
		return has_rights;
	if (!entry->uid || entry->uid == geteuid())
		return false;
	if (has_rights && place->uid == entry->uid)
		return true;
	place->uid = entry->uid;
	place->gid = entry->has_gid ? entry->gid : (gid_t)-1;
	place->groups = &none;
	place->group_count = 0;
	place->capabilities = 0;
	return true;
}

static int fail_socket(const struct file *file, int error, const char *what)
{
	char protocol[32];

	netlink_protocol_name(file->entry->nlsk->protocol, protocol, sizeof(protocol));
	return fail(error, "file %u, a netlink socket (%s): cannot %s", file->id, protocol, what);
}

static int make_socket(const struct file *file, bool as_opener)
{
	struct making making = { .entry = file->entry->nlsk, .fd = -1 };
	struct place place = PLACE_HERE;
	char protocol[32];

	if (as_opener && place_of_opener(file, &place))
		ignore(attempted(run_in(&place, make_here, &making))); /* otherwise by criu itself */
	if (making.fd < 0)
		ignore(make_here(&making));
	if (making.fd >= 0)
		return making.fd;
	netlink_protocol_name(file->entry->nlsk->protocol, protocol, sizeof(protocol));
	if (making.error != EPROTONOSUPPORT)
		return fail_socket(file, making.error, "create it");
	return fail(making.error, "file %u is a netlink socket of a protocol that this kernel lacks (%s)",
		    file->id, protocol);
}

static int take_port(const struct file *file, int fd)
{
	const NetlinkSkEntry *entry = file->entry->nlsk;
	const struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_pid = entry->portid };
	char protocol[32];

	if (!entry->portid || bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return fail_socket(file, errno, "give it its port");
	netlink_protocol_name(entry->protocol, protocol, sizeof(protocol));
	fail_advice("end the process that has it: /proc/net/netlink has its inode");
	return fail(EADDRINUSE, "file %u, a netlink socket (%s): another socket has its port %u", file->id,
		    protocol, entry->portid);
}

static int connect_socket(const struct file *file, int fd)
{
	const NetlinkSkEntry *entry = file->entry->nlsk;
	const struct sockaddr_nl peer = {
		.nl_family = AF_NETLINK,
		.nl_pid = entry->dst_portid,
		.nl_groups = entry->dst_group ? 1U << (entry->dst_group - 1) : 0,
	};
	const struct sockaddr nobody = { .sa_family = AF_UNSPEC };

	if (is_connected(entry) && connect(fd, (const struct sockaddr *)&peer, sizeof(peer)) < 0)
		return fail_socket(file, errno, "connect it");
	if (!is_connected(entry) && entry->state == NETLINK_UNCONNECTED &&
	    connect(fd, &nobody, sizeof(nobody)) < 0)
		return fail_socket(file, errno, "disconnect it");
	return 0;
}

static int switch_on(const struct file *file, int fd)
{
	const NetlinkSkEntry *entry = file->entry->nlsk;
	const int on = 1;

	for (size_t i = 0; i < entry->n_switched_on; i++)
		if (setsockopt(fd, SOL_NETLINK, (int)entry->switched_on[i], &on, sizeof(on)) < 0)
			return fail_socket(file, errno, "set one of its options (NETLINK_*)");
	return 0;
}

/* ---- groups ---- */

static const NetlinkGroupEntry *find_name(const NetlinkSkEntry *entry, uint32_t group)
{
	for (size_t i = 0; i < entry->n_generic_groups; i++)
		if (entry->generic_groups[i]->group == group)
			return entry->generic_groups[i];
	return NULL;
}

/* The number that the group has today; 0: an error, recorded. */
static uint32_t find_group(const struct file *file, uint32_t group)
{
	const NetlinkGroupEntry *named = find_name(file->entry->nlsk, group);
	uint32_t found, family;

	if (!named)
		return group;
	found = netlink_find_group(named, &family);
	if (!found)
		fail(ENOENT,
		     "file %u, a netlink socket (generic): this kernel has no group %s of the family %s",
		     file->id, named->name, named->family);
	else if (found != group || family != named->number)
		log_warning(
			"generic netlink numbers the family %s anew: a process may still use the number %u",
			named->family, named->number);
	return found;
}

static int join_group(const struct file *file, int fd, uint32_t group)
{
	const int found = (int)find_group(file, group);
	char what[40];
	int result;

	if (!found)
		return -ENOENT;
	if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &found, sizeof(found)) == 0)
		return 0;
	snprintf(what, sizeof(what), "join its group %u", group);
	result = fail_socket(file, errno, what);
	if (result == -EPERM)
		fail_advice("run criu with CAP_NET_ADMIN");
	return result;
}

static int join_groups(const struct file *file, int fd)
{
	const NetlinkSkEntry *entry = file->entry->nlsk;
	int result = 0;

	for (uint32_t group = 1; !result && group <= entry->n_groups * 32; group++)
		if (netlink_has_group(entry, group))
			result = join_group(file, fd, group);
	return result;
}

/* ---- callbacks ---- */

static int set_up(const struct file *file, int fd)
{
	return take_port(file, fd) ?: connect_socket(file, fd) ?: switch_on(file, fd);
}

int netlink_check(struct snapshot *snapshot unused, struct file *file)
{
	const NetlinkSkEntry *entry = file->entry->nlsk;
	const char *mistake = find_mistake(entry);
	int result = mistake ? fail(EINVAL, "files.img: file %u is a netlink socket: %s", file->id, mistake) :
			       socket_options_check(file, entry->opts);
	autoclose int fd = result ? result : make_socket(file, false);

	return fd < 0 ? fd : set_up(file, fd) ?: join_groups(file, fd);
}

int netlink_make(struct snapshot *snapshot unused, struct file *file)
{
	autoclose int fd = make_socket(file, true);
	int result = fd < 0 ? fd : socket_options_set(file, fd, file->entry->nlsk->opts);

	return result ?: set_up(file, fd) ?: steal_fd(&fd);
}

static int set_inode(const struct file *file)
{
	const NetlinkSkEntry *entry = file->entry->nlsk;
	const CredsEntry *creds = file->holder ? file->holder->cores[0]->thread_core->creds : NULL;
	uint32_t uid = entry->has_uid ? entry->uid : creds ? creds->fsuid : geteuid();
	uint32_t gid = entry->has_gid ? entry->gid : creds ? creds->fsgid : getegid();

	if (inode_set_owner(file->fd, uid, gid) < 0)
		return fail_socket(file, errno, "give it to its user");
	if (entry->has_mode && inode_set_mode(file->fd, entry->mode & 07777) < 0)
		return fail_socket(file, errno, "set its mode");
	return 0;
}

int netlink_join(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_netlink);
	int result = 0;

	for (size_t i = 0; !result && i < files->count; i++) {
		const struct file *file = files->items[i];

		if (file->fd < 0) /* no process has it */
			continue;
		result = set_inode(file)							?:
				 socket_options_finish(file, file->fd, file->entry->nlsk->opts) ?:
				 join_groups(file, file->fd);
	}
	return result;
}
