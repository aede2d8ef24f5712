/*
 * packet.c - packet sockets (AF_PACKET): the kind of file, and its dump.
 *
 * What the socket itself does not tell is asked of packet_diag: memberships, rings, whether it is in a fanout group.
 * Packets in a ring are saved (packet_ring.c). Those in its queue are not, because a packet socket may lose packets at
 * any time: the kernel drops them if the queue is full. Nor are the counters of PACKET_STATISTICS, which are cleared when
 * they are read.
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/sock_diag.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/message.h"
#include "kernel/packet_ring.h"
#include "kernel_constants.h"
#include "sockets/options.h"
#include "sockets/own_network.h"
#include "sockets/packet.h"

#define REQUIRED(option, field)                                       \
	{                                                             \
		option, #option, -1, offsetof(PacketSockEntry, field) \
	}
#define OPTIONAL(option, field)                                                                           \
	{                                                                                                 \
		option, #option, offsetof(PacketSockEntry, has_##field), offsetof(PacketSockEntry, field) \
	}

const struct packet_option packet_options[] = {
	REQUIRED(PACKET_VERSION, version),
	REQUIRED(PACKET_RESERVE, reserve),
	REQUIRED(PACKET_LOSS, loss),
	REQUIRED(PACKET_VNET_HDR, vnet_hdr),
	OPTIONAL(PACKET_VNET_HDR_SZ, vnet_hdr_size), /* it sets the one before, too */
	OPTIONAL(PACKET_TX_HAS_OFF, tx_has_off),
	REQUIRED(PACKET_AUXDATA, aux_data),
	REQUIRED(PACKET_ORIGDEV, orig_dev),
	REQUIRED(PACKET_TIMESTAMP, timestamp),
	OPTIONAL(PACKET_QDISC_BYPASS, qdisc_bypass),
	OPTIONAL(PACKET_IGNORE_OUTGOING, ignore_outgoing),
};
const size_t packet_option_count = array_size(packet_options);

struct packet_sockets *packet_sockets_of(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_packet);
}

int packet_facts_of(const struct snapshot *snapshot, const struct packet_facts **facts)
{
	struct packet_sockets *sockets = packet_sockets_of(snapshot);

	if (!sockets->has_facts)
		sockets->facts_result = packet_facts_read(&sockets->facts);
	sockets->has_facts = true;
	*facts = &sockets->facts;
	return sockets->facts_result;
}

static int get(int fd, int option)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

static bool packet_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return socket_family(seen) == AF_PACKET;
}

static int refuse_socket(const struct seen_file *seen, const char *why)
{
	return refuse("process %d (%s): descriptor %d (%s) is a packet socket %s", seen->holder.here,
		      seen->holder.name, seen->fd, seen->link, why);
}

/* ---- one socket ---- */

static int describe_name(const struct seen_file *seen, int fd, PacketSockEntry *entry)
{
	struct sockaddr_ll name = { 0 };
	socklen_t size = sizeof(name);
	char interface[IF_NAMESIZE];

	entry->type = get(fd, SO_TYPE);
	if (entry->type != SOCK_RAW && entry->type != SOCK_DGRAM)
		return refuse_socket(seen, "of the obsolete type SOCK_PACKET, which is not supported yet");
	if (getsockname(fd, (struct sockaddr *)&name, &size) < 0)
		return fail(errno, "cannot read the name of a packet socket");
	entry->protocol = name.sll_protocol;
	entry->ifindex = name.sll_ifindex;
	if (!name.sll_ifindex)
		return 0;
	if (name.sll_ifindex < 0 || !if_indextoname(name.sll_ifindex, interface))
		return refuse_socket(seen,
				     "whose network interface is gone: nothing can be bound to that again");
	entry->interface = copy_text(interface);
	return 0;
}

static int read_option(int fd, const struct packet_option *option, PacketSockEntry *entry)
{
	uint32_t value = 0;
	socklen_t size = sizeof(value);

	/* Kernels before Linux 6.6, 4.20, 3.14, 3.11 lack some. */
	if (getsockopt(fd, SOL_PACKET, option->option, &value, &size) < 0)
		return errno == ENOPROTOOPT ? 0 : fail(errno, "cannot read %s", option->name);
	if (!value || (option->option == PACKET_VNET_HDR_SZ && value == sizeof(struct virtio_net_hdr)))
		return 0;
	*packet_value_of(option, entry) = value;
	if (option->has >= 0)
		*(protobuf_c_boolean *)((char *)entry + option->has) = true;
	return 0;
}

static int read_packet_options(int fd, PacketSockEntry *entry)
{
	int result = 0;

	for (size_t i = 0; !result && i < packet_option_count; i++)
		result = read_option(fd, &packet_options[i], entry);
	return result;
}

static PacketRing *ring_message(const struct packet_diag_ring *ring)
{
	PacketRing *message = message_new(PacketRing, packet_ring);

	message->block_size = ring->pdr_block_size;
	message->block_nr = ring->pdr_block_nr;
	message->frame_size = ring->pdr_frame_size;
	message->frame_nr = ring->pdr_frame_nr;
	message->retire_tmo = ring->pdr_retire_tmo;
	message->sizeof_priv = ring->pdr_sizeof_priv;
	message->features = ring->pdr_features;
	return message;
}

static PacketMclist *member_message(const struct packet_diag_mclist *member)
{
	PacketMclist *message = message_new(PacketMclist, packet_mclist);
	char interface[IF_NAMESIZE];

	message->index = member->pdmc_index;
	message->type = member->pdmc_type;
	message->addr.len = min((size_t)member->pdmc_alen, sizeof(member->pdmc_addr));
	message->addr.data = copy_bytes(member->pdmc_addr, message->addr.len);
	if (member->pdmc_count != 1)
		message_set(message, count, member->pdmc_count);
	if (if_indextoname(message->index, interface))
		message->interface = copy_text(interface);
	return message;
}

/* Whether it is in a group is told by packet_diag only, its flags by the option only. */
static int describe_fanout(const struct seen_file *seen, int fd, PacketSockEntry *entry)
{
	uint32_t fanout;
	socklen_t size = sizeof(fanout);
	unsigned type;

	if (getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &fanout, &size) < 0)
		return fail(errno, "cannot read PACKET_FANOUT");
	message_set(entry, fanout, fanout);
	type = fanout >> 16 & 0xff;
	if (type == PACKET_FANOUT_CBPF || type == PACKET_FANOUT_EBPF)
		return refuse_socket(
			seen, "of a fanout group with a program (PACKET_FANOUT_DATA), which nothing shows");
	return 0;
}

static int describe_fact(const struct seen_file *seen, int fd, const struct packet_fact *fact,
			 PacketSockEntry *entry)
{
	message_set(entry, order, fact->order);
	entry->copy_thresh = fact->info.pdi_copy_thresh;
	if (fact->has_ring[RECEIVING])
		entry->rx_ring = ring_message(&fact->rings[RECEIVING]);
	if (fact->has_ring[SENDING])
		entry->tx_ring = ring_message(&fact->rings[SENDING]);
	message_array(entry, mclist, fact->member_count);
	for (size_t i = 0; i < fact->member_count; i++)
		entry->mclist[i] = member_message(&fact->members[i]);
	return fact->has_fanout ? describe_fanout(seen, fd, entry) : 0;
}

/* The kernel counts the memory of packets, and not the packets. Those in a ring do not count. */
static void warn_of_unread(const struct seen_file *seen, int fd)
{
	uint32_t memory[SK_MEMINFO_VARS] = { 0 };
	socklen_t size = sizeof(memory);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size) == 0 && memory[SK_MEMINFO_RMEM_ALLOC])
		log_warning(
			"process %d (%s): descriptor %d is a packet socket with packets that nobody has read (%u bytes of memory): they are lost in a restore",
			seen->holder.here, seen->holder.name, seen->fd, memory[SK_MEMINFO_RMEM_ALLOC]);
}

static int describe_here(const struct snapshot *snapshot, const struct file *file, int fd)
{
	const struct seen_file *seen = file->seen;
	PacketSockEntry *entry = file->entry->psk;
	const struct task *root = snapshot->root;
	const struct packet_facts *facts;
	const struct packet_fact *fact;
	int result = attempted(packet_facts_of(snapshot, &facts));

	if (result == -ENOENT)
		return refuse_socket(
			seen, "of which this kernel does not tell enough: it has no CONFIG_PACKET_DIAG");
	if (result)
		return fail(-result, "cannot list the packet sockets");
	fact = packet_fact_find(facts, seen->stat.st_ino);
	if (!fact)
		return refuse_socket(seen, "that is not in the kernel's list of them (packet_diag)");
	if (root->ids && root->ids->has_net_ns_id)
		message_set(entry, ns_id, root->ids->net_ns_id);
	warn_of_unread(seen, fd);
	result = describe_name(seen, fd, entry) ?: read_packet_options(fd, entry);
	result = result ?: describe_fact(seen, fd, fact, entry);
	if (!result)
		packet_ring_save(snapshot, file, fd);
	return result;
}

static int packet_describe(struct snapshot *snapshot, struct file *file)
{
	autoclose int fd = files_borrow(file->seen);
	int result = fd < 0 ? fd : socket_options_read(file, fd, &file->entry->psk->opts), is_here;

	if (unless_refused(result))
		return result;
	is_here = socket_is_in_own_network(fd);
	if (is_here < 0)
		return is_here;
	if (!is_here)
		return refuse_socket(file->seen, "of another network namespace, which is not supported yet");
	return describe_here(snapshot, file, fd) ?: result;
}

/* ---- all sockets ---- */

static size_t count_in_group(const struct file_list *files, uint32_t fanout)
{
	size_t count = 0;

	for (size_t i = 0; i < files->count; i++) {
		const PacketSockEntry *entry = files->items[i]->entry->psk;

		count += entry->has_fanout && (uint16_t)entry->fanout == (uint16_t)fanout;
	}
	return count;
}

static int packet_judge(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_packet);
	const struct packet_facts *facts = &packet_sockets_of(snapshot)->facts;

	for (size_t i = 0; i < files->count; i++) {
		PacketSockEntry *entry = files->items[i]->entry->psk;

		if (entry->has_fanout &&
		    count_in_group(files, entry->fanout) < packet_facts_in_group(facts, entry->fanout))
			message_set(entry, fanout_is_shared, true);
	}
	return 0;
}

struct file *packet_find(const struct snapshot *snapshot, dev_t device, uint64_t inode)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_packet);

	for (size_t i = 0; i < files->count; i++) {
		const struct stat *found = &files->items[i]->seen->stat;

		if (found->st_dev == device && found->st_ino == inode)
			return files->items[i];
	}
	return NULL;
}

static void packet_let_go(struct snapshot *snapshot, enum dump_end end unused)
{
	struct packet_sockets *sockets = packet_sockets_of(snapshot);

	packet_facts_free(&sockets->facts);
	packet_ring_reader_close(steal_pointer(&sockets->reader));
}

const struct file_kind file_kind_packet = {
	.name = "packet socket",
	.type = FD_TYPES__PACKETSK,
	.message = offsetof(FileEntry, psk),
	.state_size = sizeof(struct packet_sockets),
	.recognizes = packet_recognizes,
	.describe = packet_describe,
	.judge = packet_judge,
	.let_go = packet_let_go,
	.check = packet_check,
	.open = packet_open,
	.join = packet_join,
	.close = packet_close,
	.keeps = packet_keeps,
};
