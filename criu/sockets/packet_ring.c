/*
 * packet_ring.c - the ring into which a packet socket receives (PACKET_RX_RING), and which its process maps.
 *
 * A ring consists of slots: frames, or blocks of many packets (TPACKET_V3). The kernel fills one after the other, and
 * the process reads them in the same order and gives them back, by the status at the beginning of each. Both remember
 * for themselves at which slot they are. So the new ring needs the old position of the kernel, and all slots that the
 * process has not given back. The rest is free, and means nothing.
 *
 * Dump: only the kernel's memory shows its position (kernel/packet_ring.h). The kernel goes on to receive while the
 * process is frozen; but what it fills is behind the position that was read first, and left out: to the process it is
 * as if the packets had been dropped.
 *
 * Restore: the kernel moves its position only when it receives something. So the new socket gets as many frames over lo
 * as it takes, by a filter that lets only these pass. Other sockets that receive all of lo see them, too.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/message.h"
#include "kernel/memory_room.h"
#include "kernel/packet_ring.h"
#include "kernel/proc.h"
#include "sockets/packet.h"

#define MOST_UNREAD  (64U << 20) /* bytes. What is newer counts as dropped */
#define EXPERIMENTAL 0x88b5	 /* the protocol of criu's own frames: IEEE 802, local experimental */
#define SMALL_FRAME  64
#define LARGE_FRAME  60000
#define PATIENCE     2000 /* moments */
#define SHORT	     3
#define ALWAYS_FREE  (16U << 20)
#define ROUNDS	     10

static const struct timespec a_moment = { .tv_nsec = 1000000 };

struct ring {
	char *bytes; /* mapped */
	size_t size;
	uint32_t version;
	uint32_t count; /* of slots */
	uint32_t slot_size, block_size, in_block;
};

static struct ring ring_of(const PacketSockEntry *entry)
{
	const PacketRing *message = entry->rx_ring;
	bool has_blocks = entry->version == TPACKET_V3;
	struct ring ring = { .size = (size_t)message->block_size * message->block_nr,
			     .version = entry->version };

	ring.block_size = message->block_size;
	ring.in_block = has_blocks ? 1 : message->block_size / message->frame_size;
	ring.slot_size = has_blocks ? message->block_size : message->frame_size;
	ring.count = has_blocks ? message->block_nr : message->frame_nr;
	return ring;
}

static int map_ring(struct ring *ring, int fd)
{
	void *mapped = mmap(NULL, ring->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (mapped == MAP_FAILED)
		return fail(errno, "cannot map the ring of a packet socket");
	ring->bytes = mapped;
	return 0;
}

static void unmap_ring(struct ring *ring)
{
	if (ring->bytes)
		munmap(ring->bytes, ring->size);
	ring->bytes = NULL;
}

static char *slot_at(const struct ring *ring, uint32_t i)
{
	return ring->bytes + (size_t)(i / ring->in_block) * ring->block_size +
	       (size_t)(i % ring->in_block) * ring->slot_size;
}

static struct tpacket_hdr_v1 *block_at(const struct ring *ring, uint32_t i)
{
	return &((struct tpacket_block_desc *)slot_at(ring, i))->hdr.bh1;
}

/* Has the process to give it back? */
static bool is_unread(const struct ring *ring, uint32_t i)
{
	const void *slot = slot_at(ring, i);
	uint64_t status;

	if (ring->version == TPACKET_V3)
		status = __atomic_load_n(&block_at(ring, i)->block_status, __ATOMIC_ACQUIRE);
	else if (ring->version == TPACKET_V2)
		status = __atomic_load_n(&((const struct tpacket2_hdr *)slot)->tp_status, __ATOMIC_ACQUIRE);
	else
		status = __atomic_load_n(&((const struct tpacket_hdr *)slot)->tp_status, __ATOMIC_ACQUIRE);
	return status & TP_STATUS_USER;
}

static void give_back(const struct ring *ring, uint32_t i)
{
	void *slot = slot_at(ring, i);

	if (ring->version == TPACKET_V3)
		__atomic_store_n(&block_at(ring, i)->block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	else if (ring->version == TPACKET_V2)
		__atomic_store_n(&((struct tpacket2_hdr *)slot)->tp_status, TP_STATUS_KERNEL,
				 __ATOMIC_RELEASE);
	else
		__atomic_store_n(&((struct tpacket_hdr *)slot)->tp_status, TP_STATUS_KERNEL,
				 __ATOMIC_RELEASE);
}

static size_t header_size(const struct ring *ring)
{
	return ring->version == TPACKET_V3 ? sizeof(struct tpacket_block_desc) :
	       ring->version == TPACKET_V2 ? sizeof(struct tpacket2_hdr) :
					     sizeof(struct tpacket_hdr);
}

/* ---- dump ---- */

/* The bytes of a slot that are in use. The process can write anything there. */
static size_t used_size(const struct ring *ring, uint32_t i)
{
	const void *slot = slot_at(ring, i);
	const struct tpacket2_hdr *second = slot;
	const struct tpacket_hdr *first = slot;
	uint64_t used;

	if (ring->version == TPACKET_V3)
		used = block_at(ring, i)->blk_len;
	else if (ring->version == TPACKET_V2)
		used = (uint64_t)second->tp_mac + second->tp_snaplen;
	else
		used = (uint64_t)first->tp_mac + first->tp_snaplen;
	return min(max(used, (uint64_t)header_size(ring)), (uint64_t)ring->slot_size);
}

static void save_slot(const struct ring *ring, PacketRing *message, uint32_t i)
{
	PacketUnread *unread = message_new(PacketUnread, packet_unread);

	unread->index = i;
	unread->bytes.len = used_size(ring, i);
	unread->bytes.data = copy_bytes(slot_at(ring, i), unread->bytes.len);
	*grow(&message->unread, &message->n_unread) = unread;
}

static void drop_last(PacketRing *message)
{
	PacketUnread *last = message->unread[--message->n_unread];

	free(last->bytes.data);
	free(last);
}

/*
 * In TPACKET_V3, the kernel fills the block at its position, so that one is never unread; but if all are, it has
 * stopped in front of the oldest. Then the newest is dropped.
 */
static void free_position(const struct ring *ring, PacketRing *message)
{
	bool is_taken = false;

	for (size_t i = 0; i < message->n_unread; i++)
		is_taken |= message->unread[i]->index == message->position;
	if (!is_taken || ring->version != TPACKET_V3)
		return;
	message->position = (message->position + ring->count - 1) % ring->count;
	if (message->unread[message->n_unread - 1]->index == message->position)
		drop_last(message);
}

/* From the oldest on, which is behind `filled` slots. */
static void save_unread(const struct ring *ring, PacketRing *message, const bool *unread, uint32_t filled)
{
	uint32_t position = message->position;
	size_t total = 0;

	for (uint32_t k = filled; k < ring->count; k++) {
		uint32_t i = (position + k) % ring->count;

		if (!unread[i])
			continue;
		total += used_size(ring, i);
		if (total > MOST_UNREAD) {
			message->position = i;
			log_warning(
				"some packets in the ring of a packet socket are not saved: more than %u bytes",
				MOST_UNREAD);
			break;
		}
		save_slot(ring, message, i);
	}
	free_position(ring, message);
}

/*
 * What the kernel fills between the two looks at its position is left out. It fills only what is free, so it does not
 * come around. It moves before it writes: so what it was writing is complete after a moment.
 */
static int save(const struct packet_ring_reader *reader, int fd, struct ring *ring, PacketRing *message)
{
	const struct packet_ring_known known = { .block_count = message->block_nr,
						 .frame_size = message->frame_size,
						 .frame_count = message->frame_nr,
						 .has_blocks = ring->version == TPACKET_V3 };
	autofree bool *unread = allocate_array(ring->count, sizeof(*unread));
	uint32_t position, behind;
	int result = map_ring(ring, fd) ?: packet_ring_position(reader, fd, &known, &position);

	if (result)
		return result;
	nanosleep(&a_moment, NULL);
	for (uint32_t i = 0; i < ring->count; i++)
		unread[i] = is_unread(ring, i);
	result = packet_ring_position(reader, fd, &known, &behind);
	if (result)
		return result;
	message_set(message, position, position);
	save_unread(ring, message, unread, (behind + ring->count - position) % ring->count);
	return 0;
}

void packet_ring_save(const struct snapshot *snapshot, const struct file *file, int fd)
{
	struct packet_sockets *sockets = packet_sockets_of(snapshot);
	PacketSockEntry *entry = file->entry->psk;
	struct ring ring;

	if (!entry->rx_ring || entry->tx_ring)
		return;
	if (!sockets->has_reader)
		ignore(attempted(packet_ring_reader_open(&sockets->reader)));
	sockets->has_reader = true;
	if (!sockets->reader)
		return;
	ring = ring_of(entry);
	ignore(attempted(save(sockets->reader, fd, &ring, entry->rx_ring)));
	unmap_ring(&ring);
}

static uint64_t length_of(const PacketRing *ring)
{
	return ring ? (uint64_t)ring->block_size * ring->block_nr : 0;
}

bool packet_ring_is_mapped(const PacketSockEntry *entry, const struct vma *vma)
{
	return vma->flags & MAP_SHARED && !vma->offset &&
	       vma_length(vma) == length_of(entry->rx_ring) + length_of(entry->tx_ring);
}

const char *packet_ring_why_not_mapped(const struct file *file, const struct vma *vma)
{
	const PacketSockEntry *entry = file->entry->psk;

	if (!packet_ring_is_mapped(entry, vma))
		return "a part of the ring of a packet socket";
	if (entry->tx_ring)
		return "the ring for sending of a packet socket (PACKET_TX_RING)";
	if (!entry->rx_ring->has_position)
		return "the ring of a packet socket, whose position criu cannot see (it needs root's capabilities outside of user namespaces, and /sys/kernel/btf)";
	return NULL;
}

/* ---- restore: check ---- */

const char *packet_ring_find_mistake(const PacketSockEntry *entry)
{
	const PacketRing *message = entry->rx_ring;
	struct ring ring;

	if (!message || !message->has_position)
		return message && message->n_unread ? "its ring has no position" : NULL;
	if (entry->tx_ring || message->frame_size > message->block_size || message->position > INT32_MAX)
		return "its ring is invalid";
	ring = ring_of(entry);
	if (message->position >= ring.count || (message->position && !entry->protocol) ||
	    message->n_unread > ring.count ||
	    (ring.version != TPACKET_V3 && (uint64_t)ring.in_block * message->block_nr < ring.count))
		return "the position in its ring is invalid";
	for (size_t i = 0; i < message->n_unread; i++) {
		const PacketUnread *unread = message->unread[i];

		if (unread->index >= ring.count || unread->bytes.len < header_size(&ring) ||
		    unread->bytes.len > ring.slot_size ||
		    (ring.version == TPACKET_V3 && unread->index == message->position))
			return "the content of its ring is invalid";
	}
	return NULL;
}

bool packet_ring_must_advance(const PacketSockEntry *entry)
{
	return entry->rx_ring && entry->rx_ring->has_position && entry->rx_ring->position;
}

/* `request` has the name already. */
static int ask_loopback(unsigned long what, struct ifreq *request)
{
	autoclose int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, what, request) < 0)
		return fail(errno, "cannot ask about the network interface lo");
	return 0;
}

static int check_loopback(const struct file *file)
{
	struct ifreq request = { .ifr_name = "lo" };
	int result = ask_loopback(SIOCGIFFLAGS, &request);

	if (result || request.ifr_flags & IFF_UP)
		return result;
	fail_advice("ip link set lo up");
	return fail(ENETDOWN,
		    "file %u (packet socket): to restore its ring, the network interface lo must be up",
		    file->id);
}

/* Rings count in no cgroup, and the kernel would take the memory of others. */
static int check_memory(const struct snapshot *snapshot, const PacketSockEntry *entry)
{
	struct packet_sockets *sockets = packet_sockets_of(snapshot);
	struct memory_room room = { 0 };
	autoclose int self = -1;
	uint64_t free_bytes;

	sockets->ring_bytes += length_of(entry->rx_ring) + length_of(entry->tx_ring);
	if (sockets->ring_bytes <= ALWAYS_FREE)
		return 0;
	self = proc_open(getpid());
	if (self < 0)
		return self;
	free_bytes = memory_room_read(&room, self);
	memory_room_free(&room);
	if (sockets->ring_bytes <= free_bytes)
		return 0;
	return fail(ENOMEM, "the rings of packet sockets need %" PRIu64 " bytes", sockets->ring_bytes);
}

int packet_ring_check(const struct snapshot *snapshot, const struct file *file)
{
	const PacketSockEntry *entry = file->entry->psk;

	int result = check_memory(snapshot, entry);

	if (!result && packet_ring_must_advance(entry))
		result = check_loopback(file);
	return result;
}

/* ---- restore: advance ---- */

struct feeder {
	const struct file *file;
	int to, from;	 /* the socket with the ring, the one that sends */
	uint32_t secret; /* the frames have it, and the filter wants it */
	size_t size;	 /* of a frame */
	char frame[LARGE_FRAME];
};

static int let_secret_pass(const struct feeder *feeder)
{
	const bool has_header = feeder->file->entry->psk->type == SOCK_RAW;
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, has_header ? ETH_HLEN : 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, feeder->secret, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	const struct sock_fprog filter = { array_size(program), program };

	if (setsockopt(feeder->to, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0)
		return fail(errno, "cannot attach a filter to a packet socket");
	return 0;
}

/* Frames that go past the queueing discipline are not shown to other sockets as sent, but only as received. */
static int connect_feeder(struct feeder *feeder)
{
	struct sockaddr_ll name = { .sll_family = AF_PACKET,
				    .sll_protocol = htons(EXPERIMENTAL),
				    .sll_ifindex = (int)if_nametoindex("lo") };
	const int yes = 1;
	int result = let_secret_pass(feeder);

	if (result)
		return result;
	feeder->from = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (feeder->from < 0 ||
	    setsockopt(feeder->from, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof(yes)) < 0 ||
	    bind(feeder->to, (struct sockaddr *)&name, sizeof(name)) < 0)
		return fail(errno, "cannot prepare to fill the ring of a packet socket");
	name.sll_protocol = 0; /* it sends only */
	if (bind(feeder->from, (struct sockaddr *)&name, sizeof(name)) < 0)
		return fail(errno, "cannot prepare to fill the ring of a packet socket");
	return 0;
}

static int open_feeder(struct feeder *feeder, bool needs_large)
{
	struct ifreq request = { .ifr_name = "lo" };
	uint32_t secret;
	int result = ask_loopback(SIOCGIFMTU, &request);

	if (result)
		return result;
	if (getrandom(&feeder->secret, sizeof(feeder->secret), 0) != sizeof(feeder->secret))
		return fail(errno, "cannot get a random number");
	feeder->size = needs_large ? min((size_t)request.ifr_mtu + ETH_HLEN, (size_t)LARGE_FRAME) :
				     SMALL_FRAME;
	if (feeder->size < SMALL_FRAME)
		return fail(EMSGSIZE, "the network interface lo has too small an MTU");
	feeder->frame[12] = (char)(EXPERIMENTAL >> 8);
	feeder->frame[13] = (char)(EXPERIMENTAL & 0xff);
	secret = htonl(feeder->secret);
	memcpy(feeder->frame + ETH_HLEN, &secret, sizeof(secret));
	return connect_feeder(feeder);
}

static int send_frame(const struct feeder *feeder)
{
	return send(feeder->from, feeder->frame, feeder->size, 0) < 0 ?
		       fail(errno, "cannot send to the network interface lo") :
		       0;
}

/* How many packets the ring has in a slot, so far as that can be seen. */
static uint32_t packets_in(const struct ring *ring, uint32_t i)
{
	if (is_unread(ring, i))
		return UINT32_MAX;
	return ring->version == TPACKET_V3 ? __atomic_load_n(&block_at(ring, i)->num_pkts, __ATOMIC_ACQUIRE) :
					     0;
}

/* Usually the frame has been received when it has been sent. */
static bool await_packet(const struct ring *ring, uint32_t i, uint32_t before, int patience)
{
	for (; packets_in(ring, i) == before && patience; patience--)
		nanosleep(&a_moment, NULL);
	return packets_in(ring, i) != before;
}

static int fill_slot(const struct feeder *feeder, const struct ring *ring, uint32_t i)
{
	while (!is_unread(ring, i)) {
		uint32_t before = packets_in(ring, i);
		int result = send_frame(feeder);

		if (result)
			return result;
		if (!await_packet(ring, i, before, PATIENCE))
			return fail(ETIMEDOUT, "the ring of a packet socket receives nothing over lo");
	}
	return 0;
}

/*
 * The frame that did not fit into the last block is the first of this one. It is taken out: the process finds the first
 * packet behind it, and the kernel counts packets here, too. A block without packets is not given to the process.
 * false: a timer has given it before.
 */
static bool empty_block(const struct ring *ring, uint32_t i)
{
	struct tpacket_hdr_v1 *block = block_at(ring, i);

	if (!await_packet(ring, i, 0, SHORT))
		return true; /* the last block was given by the timer, and nothing has come since */
	if (is_unread(ring, i))
		return false;
	for (uint32_t k = __atomic_load_n(&block->num_pkts, __ATOMIC_ACQUIRE); k; k--) {
		const struct tpacket3_hdr *packet = (void *)(slot_at(ring, i) + block->offset_to_first_pkt);

		block->offset_to_first_pkt += packet->tp_next_offset;
	}
	__atomic_store_n(&block->num_pkts, 0, __ATOMIC_RELEASE);
	return !is_unread(ring, i);
}

static void give_all_back(const struct ring *ring)
{
	for (uint32_t i = 0; i < ring->count; i++)
		give_back(ring, i);
}

static int advance_frames(const struct feeder *feeder, const struct ring *ring, uint32_t position)
{
	int result = 0;

	for (uint32_t i = 0; !result && i < position; i++)
		result = fill_slot(feeder, ring, i);
	if (!result && is_unread(ring, position))
		return fail(EBUSY, "the ring of a packet socket has received too much over lo");
	give_all_back(ring);
	return result;
}

/* If the kernel has gone too far, it comes around once more. */
static int advance_blocks(const struct feeder *feeder, const struct ring *ring, uint32_t position)
{
	uint32_t next = 0;

	for (int round = 0; round < ROUNDS; round++) {
		bool is_there;

		for (; next != position; next = (next + 1) % ring->count) {
			int result = fill_slot(feeder, ring, next);

			if (result)
				return result;
		}
		is_there = empty_block(ring, position);
		while (is_unread(ring, next))
			next = (next + 1) % ring->count;
		give_all_back(ring);
		if (is_there)
			return 0;
	}
	return fail(ETIMEDOUT, "cannot bring the ring of a packet socket to its position");
}

/* What it counted meanwhile (PACKET_STATISTICS) is cleared when it is read. */
static int advance(const struct file *file, int fd, const struct ring *ring, uint32_t position)
{
	autofree struct feeder *feeder = allocate(sizeof(*feeder));
	struct tpacket_stats_v3 counts;
	socklen_t size = sizeof(counts);
	int result;

	feeder->file = file;
	feeder->to = fd;
	feeder->from = -1;
	result = open_feeder(feeder, ring->version == TPACKET_V3);
	if (!result)
		result = ring->version == TPACKET_V3 ? advance_blocks(feeder, ring, position) :
						       advance_frames(feeder, ring, position);
	result = result ?: packet_let_nothing_pass(file, fd);
	autoclose_clean(&feeder->from);
	getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &counts, &size);
	return result ? fail_in(result, "file %u (packet socket)", file->id) : 0;
}

int packet_ring_restore(const struct file *file, int fd)
{
	const PacketSockEntry *entry = file->entry->psk;
	const PacketRing *message = entry->rx_ring;
	struct ring ring;
	int result;

	if (!message || !message->has_position || (!message->position && !message->n_unread))
		return 0;
	ring = ring_of(entry);
	result = map_ring(&ring, fd);
	if (!result && message->position)
		result = advance(file, fd, &ring, message->position);
	for (size_t i = 0; !result && i < message->n_unread; i++)
		memcpy(slot_at(&ring, message->unread[i]->index), message->unread[i]->bytes.data,
		       message->unread[i]->bytes.len);
	unmap_ring(&ring);
	return result;
}
