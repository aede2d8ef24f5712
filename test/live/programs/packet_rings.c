/*
 * packet_rings.c - rings of packet sockets: those that nobody has mapped yet, and mapped ones with packets in them.
 *
 * usage: packet_rings DIRECTORY PART
 *
 * A mapped ring for receiving gets numbered packets, and is read in order, always a little late. The process itself
 * sends them, so none is lost while it is away, except what is in a block that is being filled (TPACKET_V3).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "live.h"
#include "packets.h"

#define BLOCK  65536
#define BLOCKS 4
#define FRAME  2048
#define FRAMES (BLOCK / FRAME * BLOCKS)
#define RING   ((size_t)BLOCK * BLOCKS)
#define PAUSE  0.001
#define MARK   1000 /* where no packet reaches, in the first frame */

static int ring_fd;
static int kind; /* TPACKET_V1, … */
static int socket_type = SOCK_RAW;
static char *ring;
static unsigned next, expected, sent; /* the slot to be read, the packet in it, the next packet */
static pid_t child;
static bool is_busy; /* another process sends, all the time */

static void make_ring(int version, int option)
{
	struct tpacket_req3 request = { .tp_block_size = BLOCK, .tp_block_nr = BLOCKS };

	bring_up("lo");
	request.tp_frame_size = FRAME;
	request.tp_frame_nr = FRAMES;
	if (version == TPACKET_V3 && option == PACKET_RX_RING) {
		request.tp_retire_blk_tov = 10;
		request.tp_sizeof_priv = 64;
		request.tp_feature_req_word = TP_FT_REQ_FILL_RXHASH;
	}
	kind = version;
	ring_fd = make(socket_type);
	live_check(setsockopt(ring_fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) == 0,
		   "PACKET_VERSION: %m");
	live_check(setsockopt(ring_fd, SOL_PACKET, option, &request,
			      version == TPACKET_V3 ? sizeof(request) : sizeof(struct tpacket_req)) == 0,
		   "ring: %m");
	bind_to(ring_fd, "lo", TYPE);
}

static void map_ring(void)
{
	ring = mmap(NULL, RING, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, 0);
	live_check(ring != MAP_FAILED, "mmap: %m");
}

/* ---- slots: frames or blocks ---- */

static unsigned slots(void)
{
	return kind == TPACKET_V3 ? BLOCKS : FRAMES;
}

static void *slot_at(unsigned i)
{
	return ring + (size_t)(i % slots()) * (kind == TPACKET_V3 ? BLOCK : FRAME);
}

static struct tpacket_hdr_v1 *block_at(unsigned i)
{
	return &((struct tpacket_block_desc *)slot_at(i))->hdr.bh1;
}

static bool is_unread(unsigned i)
{
	if (kind == TPACKET_V3)
		return __atomic_load_n(&block_at(i)->block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER;
	if (kind == TPACKET_V2)
		return __atomic_load_n(&((struct tpacket2_hdr *)slot_at(i))->tp_status, __ATOMIC_ACQUIRE) &
		       TP_STATUS_USER;
	return __atomic_load_n(&((struct tpacket_hdr *)slot_at(i))->tp_status, __ATOMIC_ACQUIRE) &
	       TP_STATUS_USER;
}

static void give_back(unsigned i)
{
	if (kind == TPACKET_V3)
		__atomic_store_n(&block_at(i)->block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	else if (kind == TPACKET_V2)
		__atomic_store_n(&((struct tpacket2_hdr *)slot_at(i))->tp_status, TP_STATUS_KERNEL,
				 __ATOMIC_RELEASE);
	else
		__atomic_store_n(&((struct tpacket_hdr *)slot_at(i))->tp_status, TP_STATUS_KERNEL,
				 __ATOMIC_RELEASE);
}

static void check_text(const char *text)
{
	unsigned number;
	bool may_lack = kind == TPACKET_V3 || is_busy;

	live_check(sscanf(text, "packet %u", &number) == 1, "something else is in the ring: %.20s", text);
	live_check(number == expected || (may_lack && number > expected && (is_busy || number < sent)),
		   "packet %u, and not %u", number, expected);
	expected = number + 1;
}

static void read_block(unsigned i)
{
	const char *packet = (char *)slot_at(i) + block_at(i)->offset_to_first_pkt;

	live_check(block_at(i)->num_pkts, "a block without packets");
	for (unsigned k = block_at(i)->num_pkts; k; k--) {
		const struct tpacket3_hdr *header = (const void *)packet;

		check_text(packet + header->tp_net);
		packet += header->tp_next_offset;
	}
}

static void read_slot(void)
{
	void *slot = slot_at(next);

	if (kind == TPACKET_V3)
		read_block(next);
	else if (kind == TPACKET_V2)
		check_text((char *)slot + ((struct tpacket2_hdr *)slot)->tp_net);
	else
		check_text((char *)slot + ((struct tpacket_hdr *)slot)->tp_net);
	give_back(next);
	next = (next + 1) % slots();
}

static void send_next(void)
{
	char text[20];

	snprintf(text, sizeof(text), "packet %u", sent++);
	send_text(text);
}

/* ---- mapped ---- */

/* Some slots are always unread. */
static void run_mapped(void)
{
	while (!live_stopping()) {
		send_next();
		if (is_unread(next + 2))
			read_slot();
		live_sleep(PAUSE);
	}
}

/* Reads what is there, and then what goes all around the ring. */
static void verify_mapped(void)
{
	for (unsigned i = 0; i < 3 * slots(); i++) {
		live_await((send_next(), is_unread(next)), "nothing comes into slot %u of the ring", next);
		read_slot();
	}
	while (expected < sent) {
		live_await(is_unread(next), "packet %u has not arrived: it is not in slot %u", expected,
			   next);
		read_slot();
	}
}

static void mapped(int version)
{
	make_ring(version, PACKET_RX_RING);
	map_ring();
	for (int i = 0; i < 3; i++)
		send_next();
	live_ready();
	run_mapped();
	verify_mapped();
}

static void mapped_v1(void)
{
	mapped(TPACKET_V1);
}

static void mapped_v2(void)
{
	mapped(TPACKET_V2);
}

static void mapped_dgram(void)
{
	socket_type = SOCK_DGRAM;
	mapped(TPACKET_V2);
}

static void mapped_v3(void)
{
	mapped(TPACKET_V3);
}

/* Nobody reads, until the kernel drops packets. The position is not at the beginning. */
static void fill_ring(int version)
{
	make_ring(version, PACKET_RX_RING);
	map_ring();
	while (next < slots() / 2 + 1) {
		live_await((send_next(), is_unread(next)), "nothing comes into the ring");
		read_slot();
	}
	while (sent < 100000 && !is_unread(next + slots() - 1))
		send_next();
	live_check(is_unread(next + slots() - 1), "the ring is not full");
	send_text("dropped");
	live_ready();
	live_wait_stop();
}

static void full_v2(void)
{
	fill_ring(TPACKET_V2);
	send_text("dropped");
	for (unsigned i = 0; i < FRAMES; i++) {
		live_check(is_unread(next), "packet %u is missing", expected);
		read_slot();
	}
	live_check(expected == sent, "packets are missing");
	verify_mapped();
}

/* Of a full ring of blocks, the newest is lost. */
static void full_v3(void)
{
	fill_ring(TPACKET_V3);
	for (unsigned i = 0; i < BLOCKS - 1; i++) {
		live_check(is_unread(next), "packet %u is missing", expected);
		read_slot();
	}
	live_check(expected > BLOCKS, "only %u packets of %u", expected, sent);
	if (is_unread(next))
		read_slot(); /* it was not away */
	expected = sent;
	verify_mapped();
}

/* ---- packets arrive during the dump and the restore ---- */

static void busy(int version)
{
	is_busy = true;
	make_ring(version, PACKET_RX_RING);
	map_ring();
	live_ready();
	while (!live_stopping()) {
		if (is_unread(next + 1))
			read_slot();
		else
			live_sleep(PAUSE);
	}
	for (unsigned i = 0; i < 2 * slots(); i++) {
		live_await(is_unread(next), "nothing comes into slot %u of the ring", next);
		read_slot();
	}
}

static void busy_v2(void)
{
	busy(TPACKET_V2);
}

static void busy_v3(void)
{
	busy(TPACKET_V3);
}

/* ---- a mapping that a child has, too ---- */

static void watch(void)
{
	live_wait_stop();
	live_check(!strcmp(ring + MARK, "mark"), "the child has another ring");
}

static void family(void)
{
	make_ring(TPACKET_V2, PACKET_RX_RING);
	map_ring();
	child = live_fork(watch);
	live_ready();
	run_mapped();
	verify_mapped();
	strcpy(ring + MARK, "mark");
	live_join(child);
}

/* ---- not mapped yet ---- */

static void *first_slot(void)
{
	map_ring();
	return ring;
}

static void set_up_ring_v1(void)
{
	make_ring(TPACKET_V1, PACKET_RX_RING);
}

static void verify_ring_v1(void)
{
	volatile struct tpacket_hdr *frame = first_slot();

	send_text("hello");
	live_await(frame->tp_status & TP_STATUS_USER, "nothing in the ring");
	live_check(!strcmp((char *)frame + frame->tp_mac + HEADER, "hello"), "another frame");
}

static void set_up_ring_v2(void)
{
	make_ring(TPACKET_V2, PACKET_RX_RING);
}

static void verify_ring_v2(void)
{
	volatile struct tpacket2_hdr *frame = first_slot();

	send_text("hello");
	live_await(frame->tp_status & TP_STATUS_USER, "nothing in the ring");
	live_check(!strcmp((char *)frame + frame->tp_mac + HEADER, "hello"), "another frame");
}

static void set_up_ring_v3(void)
{
	make_ring(TPACKET_V3, PACKET_RX_RING);
}

static void verify_ring_v3(void)
{
	volatile struct tpacket_block_desc *block = first_slot();
	const struct tpacket3_hdr *frame;

	send_text("hello");
	live_await(block->hdr.bh1.block_status & TP_STATUS_USER, "nothing in the ring");
	live_check(block->offset_to_priv && block->hdr.bh1.num_pkts == 1, "%u packets",
		   block->hdr.bh1.num_pkts);
	live_check(block->hdr.bh1.offset_to_first_pkt >= 64 + block->offset_to_priv, "no private area");
	frame = (void *)((char *)block + block->hdr.bh1.offset_to_first_pkt);
	live_check(!strcmp((char *)frame + frame->tp_mac + HEADER, "hello"), "another frame");
}

static void set_up_ring_sending(void)
{
	make_ring(TPACKET_V2, PACKET_TX_RING);
}

static void verify_ring_sending(void)
{
	volatile struct tpacket2_hdr *frame = first_slot();
	unsigned char *bytes = (unsigned char *)frame + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll);
	int receiver = make(SOCK_RAW);

	bind_to(receiver, "lo", TYPE);
	bytes[12] = TYPE >> 8;
	bytes[13] = TYPE & 0xff;
	strcpy((char *)bytes + HEADER, "from a ring");
	frame->tp_len = 60;
	frame->tp_status = TP_STATUS_SEND_REQUEST;
	live_check(send(ring_fd, NULL, 0, 0) >= 0, "send: %m");
	expect(receiver, "from a ring", HEADER);
	close(receiver);
}

static void set_up_two_rings(void)
{
	struct tpacket_req request = { BLOCK, BLOCKS, FRAME, FRAMES };

	make_ring(TPACKET_V2, PACKET_RX_RING);
	live_check(setsockopt(ring_fd, SOL_PACKET, PACKET_TX_RING, &request, sizeof(request)) == 0,
		   "ring: %m");
	live_check(mmap(NULL, 2 * RING, PROT_READ, MAP_SHARED, ring_fd, 0) != MAP_FAILED, "mmap: %m");
}

static void verify_nothing(void)
{
}

static const struct live_part parts[] = {
	{ "ring_v1", set_up_ring_v1, verify_ring_v1 },
	{ "ring_v2", set_up_ring_v2, verify_ring_v2 },
	{ "ring_v3", set_up_ring_v3, verify_ring_v3 },
	{ "ring_sending", set_up_ring_sending, verify_ring_sending },
	{ "two_rings", set_up_two_rings, verify_nothing },
};

static const struct course {
	const char *name;
	void (*run)(void);
} courses[] = {
	{ "mapped_v1", mapped_v1 },	  { "mapped_v2", mapped_v2 }, { "mapped_v3", mapped_v3 },
	{ "full_v2", full_v2 },		  { "full_v3", full_v3 },     { "family", family },
	{ "mapped_dgram", mapped_dgram }, { "busy_v2", busy_v2 },     { "busy_v3", busy_v3 },
};

int main(int argc, char **argv)
{
	const struct course *course = argc > 2 ? live_find(courses, argv[2]) : NULL;

	if (!course)
		return live_run_one(argc, argv, parts);
	live_begin(argc, argv);
	course->run();
	return live_finish();
}
