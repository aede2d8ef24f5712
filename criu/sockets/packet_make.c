/*
 * packet_make.c - restores packet sockets.
 *
 * A socket of protocol 0 receives nothing. It keeps that until it has all its options: bind() comes last, when all
 * files are open, because its interface may be one of the tree's own (tun). Sockets of a fanout group must be bound before
 * they can be in it, and those with a ring before it is as it was. So until all are done, these have a filter that lets
 * nothing pass.
 *
 * Sockets are created in the order in which the old ones were. The kernel lists them in this order, and a group gets
 * them in this order, so it distributes packets to them as before.
 */
#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel_constants.h"
#include "sockets/options.h"
#include "sockets/packet.h"

#define MOST_MEMBERSHIPS 65536
#define MOST_ADDED	 65536	      /* times of one membership */
#define MOST_OF_RING	 (1ULL << 36) /* bytes */
#define USUAL_OF_GROUP	 256	      /* sockets in a fanout group, if its maker does not name a limit */
#define HARDWARE_SIZE	 32	      /* MAX_ADDR_LEN of Linux */

/* ---- check ---- */

static bool is_in_group(const PacketSockEntry *entry)
{
	return entry->has_fanout && entry->fanout != UINT32_MAX;
}

static bool is_name(const char *name)
{
	return !name || (*name && strlen(name) < IFNAMSIZ);
}

static bool is_ring(const PacketRing *ring)
{
	return !ring || (ring->block_size && ring->block_nr && ring->frame_size && ring->frame_nr &&
			 (uint64_t)ring->block_size * ring->block_nr <= MOST_OF_RING);
}

static bool is_membership(const PacketMclist *member)
{
	return member->index && member->index <= INT_MAX && member->type <= UINT16_MAX &&
	       member->addr.len <= HARDWARE_SIZE && is_name(member->interface) &&
	       (!member->has_count || (member->count && member->count <= MOST_ADDED));
}

static const char *find_mistake(const PacketSockEntry *entry)
{
	if (entry->type != SOCK_RAW && entry->type != SOCK_DGRAM)
		return "its type is unknown";
	if (entry->protocol > UINT16_MAX || entry->ifindex > INT_MAX || !is_name(entry->interface))
		return "its name is invalid";
	if (entry->version > TPACKET_V3 || entry->reserve > INT_MAX || entry->copy_thresh > INT_MAX)
		return "it has an invalid option";
	if (!is_ring(entry->rx_ring) || !is_ring(entry->tx_ring))
		return "its ring is invalid";
	if (packet_ring_find_mistake(entry))
		return packet_ring_find_mistake(entry);
	if (is_in_group(entry) && !entry->protocol)
		return "it receives nothing, and is in a fanout group";
	if (entry->n_mclist > MOST_MEMBERSHIPS)
		return "it has too many memberships";
	for (size_t i = 0; i < entry->n_mclist; i++)
		if (!is_membership(entry->mclist[i]))
			return "it has an invalid membership";
	return NULL;
}

/* The number of the interface now; 0: there is none. criu 4.2.1 saves no name. */
static unsigned interface_now(const char *name, unsigned index)
{
	char found[IF_NAMESIZE];

	if (name)
		return if_nametoindex(name);
	return if_indextoname(index, found) ? index : 0;
}

/* By a tun or tap of the tree, whose interface ended with it. */
static bool will_be_made(const struct snapshot *snapshot, const char *name)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_tun);

	for (size_t i = 0; name && i < files->count; i++) {
		const TunfileEntry *tun = files->items[i]->entry->tunf;

		if (tun && tun->netdev && !strcmp(tun->netdev, name))
			return true;
	}
	return false;
}

static int check_interface(const struct snapshot *snapshot, const struct file *file, const char *name,
			   unsigned index)
{
	if (!index || interface_now(name, index) || will_be_made(snapshot, name))
		return 0;
	fail_advice("make the network interface first");
	if (name)
		return fail(ENODEV, "file %u (packet socket) uses the network interface %s, which is missing",
			    file->id, name);
	return fail(ENODEV,
		    "file %u (packet socket) uses the network interface with number %u, which is missing",
		    file->id, index);
}

/* Somebody else's group would give its packets to the tree. */
static int check_group(const struct snapshot *snapshot, const struct file *file)
{
	const PacketSockEntry *entry = file->entry->psk;
	const struct packet_facts *facts;

	if (!is_in_group(entry) || entry->fanout_is_shared || attempted(packet_facts_of(snapshot, &facts)) ||
	    !packet_facts_in_group(facts, entry->fanout))
		return 0;
	return fail(EEXIST, "file %u (packet socket) was in the fanout group %u, which is in use", file->id,
		    entry->fanout & UINT16_MAX);
}

/* Only the kernel knows whether this user may have one. */
static int check_rights(void)
{
	autoclose int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd >= 0)
		return 0;
	if (errno == EPERM)
		fail_advice("run criu with CAP_NET_RAW");
	return fail(errno, "cannot create a packet socket");
}

int packet_check(struct snapshot *snapshot, struct file *file)
{
	const PacketSockEntry *entry = file->entry->psk;
	const char *why = find_mistake(entry);
	int result;

	if (why)
		return fail(EINVAL, "files.img: file %u (packet socket): %s", file->id, why);
	result = socket_options_check(file, entry->opts) ?: check_rights() ?: check_group(snapshot, file);
	result = result ?: packet_ring_check(snapshot, file);
	result = result ?: check_interface(snapshot, file, entry->interface, entry->ifindex);
	for (size_t i = 0; !result && i < entry->n_mclist; i++)
		result = check_interface(snapshot, file, entry->mclist[i]->interface,
					 entry->mclist[i]->index);
	return result;
}

/* ---- make ---- */

static int compare_made(const void *left, const void *right)
{
	const struct file *a = ((const struct packet_made *)left)->file,
			  *b = ((const struct packet_made *)right)->file;
	uint32_t orders[2] = { a->entry->psk->order, b->entry->psk->order };

	if (orders[0] != orders[1])
		return orders[0] < orders[1] ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

static int make_all(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_packet);
	struct packet_sockets *sockets = packet_sockets_of(snapshot);

	sockets->made = allocate_array(files->count, sizeof(*sockets->made));
	sockets->made_count = files->count;
	for (size_t i = 0; i < files->count; i++)
		sockets->made[i] = (struct packet_made){ files->items[i], -1 };
	qsort(sockets->made, files->count, sizeof(*sockets->made), compare_made);
	for (size_t i = 0; i < files->count; i++) {
		struct packet_made *made = &sockets->made[i];

		index_set(&sockets->made_of, made->file->id, made);
		made->fd = socket(AF_PACKET, made->file->entry->psk->type | SOCK_CLOEXEC, 0);
		if (made->fd < 0)
			return fail(errno, "cannot create a packet socket");
	}
	return 0;
}

static int set(const struct file *file, int fd, int option, const char *name, const void *value,
	       socklen_t size)
{
	if (setsockopt(fd, SOL_PACKET, option, value, size) == 0)
		return 0;
	return fail(errno, "file %u (packet socket): cannot set %s", file->id, name);
}

static int set_options(const struct file *file, int fd)
{
	const PacketSockEntry *entry = file->entry->psk;
	int result = 0;

	for (size_t i = 0; !result && i < packet_option_count; i++) {
		const struct packet_option *option = &packet_options[i];
		const uint32_t *value = packet_value_of(option, entry);

		if (*value)
			result = set(file, fd, option->option, option->name, value, sizeof(*value));
	}
	if (!result && entry->copy_thresh)
		result = set(file, fd, PACKET_COPY_THRESH, "PACKET_COPY_THRESH", &entry->copy_thresh, 4);
	return result;
}

static int make_ring(const struct file *file, int fd, int option, const char *name, const PacketRing *ring)
{
	struct tpacket_req3 request;

	if (!ring)
		return 0;
	request = (struct tpacket_req3){
		.tp_block_size = ring->block_size,
		.tp_block_nr = ring->block_nr,
		.tp_frame_size = ring->frame_size,
		.tp_frame_nr = ring->frame_nr,
		.tp_retire_blk_tov = ring->retire_tmo,
		.tp_sizeof_priv = ring->sizeof_priv,
		.tp_feature_req_word = ring->features,
	};
	return set(file, fd, option, name, &request,
		   file->entry->psk->version == TPACKET_V3 ? sizeof(request) : sizeof(struct tpacket_req));
}

int packet_open(struct snapshot *snapshot, struct file *file)
{
	struct packet_sockets *sockets = packet_sockets_of(snapshot);
	const PacketSockEntry *entry = file->entry->psk;
	struct packet_made *made;
	int result = sockets->made ? 0 : make_all(snapshot);

	if (result)
		return result;
	made = index_find(&sockets->made_of, file->id);
	result = socket_options_set(file, made->fd, entry->opts) ?: set_options(file, made->fd);
	result = result ?: make_ring(file, made->fd, PACKET_RX_RING, "PACKET_RX_RING", entry->rx_ring);
	result = result ?: make_ring(file, made->fd, PACKET_TX_RING, "PACKET_TX_RING", entry->tx_ring);
	result = result ?: packet_ring_restore(file, made->fd);
	return result ?: steal_fd(&made->fd);
}

/* ---- join ---- */

/* struct packet_mreq, with the longest address that the kernel takes. */
struct membership {
	int index;
	unsigned short type, size;
	unsigned char address[HARDWARE_SIZE];
};

/* The kernel puts a new one before the others. */
static int add_memberships(const struct file *file)
{
	const PacketSockEntry *entry = file->entry->psk;
	int result = 0;

	for (size_t i = entry->n_mclist; !result && i-- > 0;) {
		const PacketMclist *member = entry->mclist[i];
		struct membership add = {
			interface_now(member->interface, member->index), member->type, member->addr.len, { 0 }
		};

		if (member->addr.len)
			memcpy(add.address, member->addr.data, member->addr.len);
		for (uint32_t k = 0; !result && k < (member->has_count ? member->count : 1); k++)
			result = set(file, file->fd, PACKET_ADD_MEMBERSHIP, "PACKET_ADD_MEMBERSHIP", &add,
				     sizeof(add));
	}
	return result;
}

/*
 * The protocol begins to receive. If the interface is down, the socket has an error now, which the process has had
 * before.
 */
static int bind_to_interface(const struct file *file)
{
	const PacketSockEntry *entry = file->entry->psk;
	struct sockaddr_ll name = { .sll_family = AF_PACKET, .sll_protocol = entry->protocol };
	int error;
	socklen_t size = sizeof(error);

	if (!entry->protocol && !entry->ifindex)
		return 0;
	if (entry->ifindex)
		name.sll_ifindex = interface_now(entry->interface, entry->ifindex);
	if (entry->ifindex && !name.sll_ifindex)
		return fail(ENODEV, "file %u (packet socket) uses a network interface that is missing",
			    file->id);
	if ((unsigned)name.sll_ifindex != entry->ifindex)
		log_warning(
			"file %u (packet socket): the network interface %s has another number: %d, and not %u",
			file->id, entry->interface, name.sll_ifindex, entry->ifindex);
	if (bind(file->fd, (struct sockaddr *)&name, sizeof(name)) < 0)
		return fail(errno, "file %u (packet socket): cannot bind it to %s", file->id,
			    entry->interface ?: "its protocol");
	getsockopt(file->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return 0;
}

int packet_let_nothing_pass(const struct file *file, int fd)
{
	struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
	const struct sock_fprog filter = { 1, &drop };

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0)
		return fail(errno, "file %u (packet socket): cannot attach a filter", file->id);
	return 0;
}

static size_t size_of_group(const struct packet_sockets *sockets, uint32_t fanout)
{
	size_t count = 0;

	for (size_t i = 0; i < sockets->made_count; i++) {
		const PacketSockEntry *entry = sockets->made[i].file->entry->psk;

		count += is_in_group(entry) && (uint16_t)entry->fanout == (uint16_t)fanout;
	}
	return count;
}

/* A limit can be named since Linux 5.13. */
static int enter_group(const struct packet_sockets *sockets, const struct file *file)
{
	uint32_t fanout = file->entry->psk->fanout;
	size_t count = size_of_group(sockets, fanout);
	struct fanout_args request = { .id = fanout, .type_flags = fanout >> 16, .max_num_members = count };

	return set(file, file->fd, PACKET_FANOUT, "PACKET_FANOUT", &request,
		   count > USUAL_OF_GROUP ? sizeof(request) : sizeof(fanout));
}

/* Its own filter replaces the one that lets nothing pass. */
static int finish_with_filter(const struct file *file)
{
	const SkOptsEntry *options = file->entry->psk->opts;
	const int no_value = 0;

	if (!options->n_so_filter &&
	    setsockopt(file->fd, SOL_SOCKET, SO_DETACH_FILTER, &no_value, sizeof(no_value)) < 0)
		return fail(errno, "file %u (packet socket): cannot detach its filter", file->id);
	return socket_options_finish(file, file->fd, options);
}

/* Is it bound before it has all its options? Then it has a filter meanwhile. */
static bool is_bound_early(const struct file *file)
{
	return is_in_group(file->entry->psk) || packet_ring_must_advance(file->entry->psk);
}

static int join(const struct packet_sockets *sockets, const struct file *file)
{
	int result = add_memberships(file);

	if (result)
		return result;
	if (!is_bound_early(file))
		return socket_options_finish(file, file->fd, file->entry->psk->opts) ?:
										       bind_to_interface(file);
	result = packet_let_nothing_pass(file, file->fd) ?: bind_to_interface(file);
	if (!result && is_in_group(file->entry->psk))
		result = enter_group(sockets, file);
	return result;
}

int packet_join(struct snapshot *snapshot)
{
	const struct packet_sockets *sockets = packet_sockets_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < sockets->made_count; i++)
		result = join(sockets, sockets->made[i].file);
	for (size_t i = 0; !result && i < sockets->made_count; i++)
		if (is_bound_early(sockets->made[i].file))
			result = finish_with_filter(sockets->made[i].file);
	return result;
}

void packet_close(struct snapshot *snapshot)
{
	struct packet_sockets *sockets = packet_sockets_of(snapshot);

	for (size_t i = 0; i < sockets->made_count; i++)
		autoclose_clean(&sockets->made[i].fd);
	free(steal_pointer(&sockets->made));
	index_free(&sockets->made_of);
	sockets->made_count = 0;
	sockets->ring_bytes = 0;
	packet_facts_free(&sockets->facts);
}

/* All are created before the first is open. */
size_t packet_keeps(const struct snapshot *snapshot)
{
	return files_of_kind(snapshot, &file_kind_packet)->count;
}
