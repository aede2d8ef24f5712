/*
 * netlink_socket.c - netlink sockets (AF_NETLINK): the kind of file, and its dump.
 *
 * The other end of a netlink socket is the kernel, or another netlink socket. What the kernel does (seen on Linux 6.18):
 * - The address of a socket is a port: a number of its protocol in its network namespace. It gets one by bind(), or
 *   when it sends or connects: that of its process if it is free. A process may know its port, and the kernel writes it
 *   into all answers. So a restored socket has the same one, and nothing shows which were chosen by the kernel.
 * - The kernel has port 0, which no process can have. So only the kernel itself can send a message that is read as the
 *   kernel's. Of a queue, MSG_PEEK shows the first message (there is no SO_PEEK_OFF). So what is unread is refused.
 * - A list (NLM_F_DUMP) comes in parts. The kernel makes the next one when somebody reads or peeks, and the queue is no
 *   more than half full. So there is something to read until the list is complete: no list is lost unseen. Nothing is
 *   peeked here.
 * - Only a connected socket refuses messages of other ports. One that is connected to the kernel looks to itself like
 *   one that is not connected; sock_diag tells the difference.
 *
 * Events that the kernel sends while the process is away are lost.
 */
#include "sockets/netlink_socket.h"
#include <errno.h>
#include <linux/netlink_diag.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/words.h"
#include "image/message.h"
#include "kernel_constants.h"
#include "sockets/options.h"
#include "sockets/own_network.h"

#define MOST_READS 3

#define OPTION(option, shown)          \
	{                              \
		option, #option, shown \
	}

const struct netlink_option netlink_options[] = {
	OPTION(NETLINK_PKTINFO, NDIAG_FLAG_PKTINFO),
	OPTION(NETLINK_BROADCAST_ERROR, NDIAG_FLAG_BROADCAST_ERROR),
	OPTION(NETLINK_NO_ENOBUFS, NDIAG_FLAG_NO_ENOBUFS),
	OPTION(NETLINK_LISTEN_ALL_NSID, NDIAG_FLAG_LISTEN_ALL_NSID),
	OPTION(NETLINK_CAP_ACK, NDIAG_FLAG_CAP_ACK),
	OPTION(NETLINK_EXT_ACK, 0),
	OPTION(NETLINK_GET_STRICT_CHK, 0),
};
const size_t netlink_option_count = array_size(netlink_options);

struct netlink_sockets {
	struct netlink_facts facts;
	unsigned reads; /* how often they were read */
};

void netlink_protocol_name(uint32_t protocol, char *text, size_t size)
{
	const char *word = netlink_protocol_word(protocol);

	if (word)
		snprintf(text, size, "%s", word);
	else
		snprintf(text, size, "protocol %u", protocol);
}

/* 0 or -errno. */
static int get_int(int fd, int level, int option, int *value)
{
	socklen_t size = sizeof(*value);

	*value = 0;
	return getsockopt(fd, level, option, value, &size) < 0 ? -errno : 0;
}

static bool netlink_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return socket_family(seen) == AF_NETLINK;
}

/* ---- dump ---- */

static int refuse_socket(const struct file *file, const char *why)
{
	const struct seen_file *seen = file->seen;
	char protocol[32];

	netlink_protocol_name(file->entry->nlsk->protocol, protocol, sizeof(protocol));
	return refuse("process %d (%s): descriptor %d (%s) is a netlink socket (%s) %s", seen->holder.here,
		      seen->holder.name, seen->fd, seen->link, protocol, why);
}

/* Without a port it is not listed, and not connected. Reading again adds those that a list has lacked. */
static const struct netlink_fact *fact_of(const struct snapshot *snapshot, const struct file *file)
{
	struct netlink_sockets *sockets = file_kind_state(snapshot, &file_kind_netlink);
	const struct netlink_fact *fact = NULL;

	if (!file->entry->nlsk->portid)
		return NULL;
	while (!(fact = netlink_fact_find(&sockets->facts, file->seen->stat.st_ino)) &&
	       sockets->reads < MOST_READS) {
		netlink_facts_read(&sockets->facts);
		sockets->reads++;
	}
	return fact;
}

static void describe_inode(const struct snapshot *snapshot, const struct file *file)
{
	const struct stat *inode = &file->seen->stat;
	const struct task *root = snapshot->root;
	NetlinkSkEntry *entry = file->entry->nlsk;

	entry->ino = inode->st_ino;
	message_set(entry, uid, inode->st_uid);
	message_set(entry, gid, inode->st_gid);
	message_set(entry, mode, inode->st_mode & 07777);
	if (root->ids && root->ids->has_net_ns_id)
		message_set(entry, ns_id, root->ids->net_ns_id);
}

static int check_namespace(const struct file *file, int fd)
{
	int is_here = socket_is_in_own_network(fd);

	if (is_here)
		return min(is_here, 0);
	fail_advice("criu in the network namespace of the socket (nsenter --net)");
	return refuse_socket(file, "of another network namespace than criu's, which is not supported yet");
}

static int read_addresses(int fd, NetlinkSkEntry *entry)
{
	struct sockaddr_nl own, other;
	socklen_t own_size = sizeof(own), other_size = sizeof(other);
	int type, protocol;

	if (get_int(fd, SOL_SOCKET, SO_TYPE, &type) || get_int(fd, SOL_SOCKET, SO_PROTOCOL, &protocol) ||
	    getsockname(fd, (struct sockaddr *)&own, &own_size) < 0 ||
	    getpeername(fd, (struct sockaddr *)&other, &other_size) < 0)
		return fail(errno, "cannot ask a netlink socket for its addresses");
	entry->protocol = protocol;
	message_set(entry, type, type);
	entry->portid = own.nl_pid;
	entry->dst_portid = other.nl_pid;
	entry->dst_group = ffs(other.nl_groups); /* connect() takes one of the first 32 */
	return 0;
}

/* Older kernels round the size down if the number of groups is no multiple of 32, although they write all of them. */
static int read_groups(int fd, NetlinkSkEntry *entry)
{
	uint32_t words[NETLINK_WORDS_MOST] = { 0 };
	socklen_t size = sizeof(words);
	size_t count = array_size(words);

	if (getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, words, &size) < 0)
		return fail(errno, "cannot read the groups of a netlink socket");
	if (size > sizeof(words))
		return fail(EOVERFLOW, "a netlink socket has too many groups");
	while (count && !words[count - 1])
		count--;
	if (!count)
		return 0;
	message_array(entry, groups, count);
	memcpy(entry->groups, words, count * sizeof(*words));
	return 0;
}

/* An older kernel lacks some; NETLINK_LISTEN_ALL_NSID could be set long before getsockopt() told it. */
static int read_switches(int fd, const struct netlink_fact *fact, NetlinkSkEntry *entry)
{
	for (size_t i = 0; i < netlink_option_count; i++) {
		const struct netlink_option *option = &netlink_options[i];
		int value, result = get_int(fd, SOL_NETLINK, option->option, &value);

		if (result == -ENOPROTOOPT)
			value = fact && fact->flags & option->shown;
		else if (result)
			return fail(-result, "cannot read %s", option->name);
		if (value)
			*grow(&entry->switched_on, &entry->n_switched_on) = option->option;
	}
	return 0;
}

/* Each of these would be lost, and reading it here would take it away. */
static int refuse_unread(const struct file *file, int fd, const struct netlink_fact *fact)
{
	struct pollfd events = { fd, POLLIN, 0 };

	if (poll(&events, 1, 0) < 0)
		return fail(errno, "cannot look whether a netlink socket has messages");
	if (fact && fact->flags & NDIAG_FLAG_CB_RUNNING) {
		fail_advice("again when the process has read it");
		return refuse_socket(file,
				     "with a list of the kernel that is only read in part (NLM_F_DUMP)");
	}
	if (events.revents & POLLIN) {
		fail_advice("again when the process has read them");
		return refuse_socket(
			file, "with unread messages: nobody else could send again what the kernel has sent");
	}
	if (events.revents & POLLERR) {
		fail_advice("again when the process has read it");
		return refuse_socket(
			file,
			"with an error that was not read yet (ENOBUFS: the kernel has dropped messages)");
	}
	return 0;
}

static uint32_t state_of(const NetlinkSkEntry *entry, const struct netlink_fact *fact)
{
	if (fact)
		return fact->state;
	return entry->dst_portid || entry->dst_group ? NETLINK_CONNECTED : NETLINK_NEW;
}

static int describe_by_descriptor(struct snapshot *snapshot, struct file *file, int fd)
{
	NetlinkSkEntry *entry = file->entry->nlsk;
	const struct netlink_fact *fact;
	int result = read_addresses(fd, entry) ?: check_namespace(file, fd);

	if (result)
		return result;
	fact = fact_of(snapshot, file);
	entry->state = state_of(entry, fact);
	result = read_groups(fd, entry) ?: read_switches(fd, fact, entry);
	result = result ?: refuse_unread(file, fd, fact);
	return result ?: netlink_refuse_kept(snapshot, file) ?: netlink_name_groups(entry);
}

static int netlink_describe(struct snapshot *snapshot, struct file *file)
{
	NetlinkSkEntry *entry = file->entry->nlsk;
	autoclose int fd = files_borrow(file->seen);
	int result = fd < 0 ? fd : socket_options_read(file, fd, &entry->opts);

	describe_inode(snapshot, file);
	if (!unless_refused(result))
		result = describe_by_descriptor(snapshot, file, fd) ?: result;
	return result;
}

static void netlink_let_go(struct snapshot *snapshot, enum dump_end end unused)
{
	struct netlink_sockets *sockets = file_kind_state(snapshot, &file_kind_netlink);

	netlink_facts_free(&sockets->facts);
	sockets->reads = 0;
}

const struct file_kind file_kind_netlink = {
	.name = "netlink socket",
	.type = FD_TYPES__NETLINKSK,
	.message = offsetof(FileEntry, nlsk),
	.state_size = sizeof(struct netlink_sockets),
	.recognizes = netlink_recognizes,
	.describe = netlink_describe,
	.let_go = netlink_let_go,
	.check = netlink_check,
	.open = netlink_make,
	.join = netlink_join,
};
