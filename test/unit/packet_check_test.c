/*
 * packet_check_test.c - packet sockets in images: forged ones are errors that name the file, before anything is made.
 */
#include "unit.h"
#include <errno.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/image.h"
#include "image/message.h"
#include "sockets/packet.h"

#define BLOCK 65536
#define FRAME 2048

static struct snapshot snapshot;

static int begin(void **state unused)
{
	failure_clear();
	log_level = 0;
	snapshot_init(&snapshot);
	return image_store_open_memory(&snapshot.images);
}

static int end(void **state unused)
{
	file_kind_packet.close(&snapshot);
	image_store_close(snapshot.images);
	snapshot_free(&snapshot);
	return 0;
}

static PacketSockEntry *add(struct file **file)
{
	PacketSockEntry *entry = message_new(PacketSockEntry, packet_sock_entry);

	*file = snapshot_add_file(&snapshot, 7);
	(*file)->entry = message_new(FileEntry, file_entry);
	(*file)->entry->type = FD_TYPES__PACKETSK;
	(*file)->entry->id = entry->id = 7;
	(*file)->entry->psk = entry;
	entry->type = SOCK_RAW;
	entry->protocol = 3;
	entry->version = TPACKET_V2;
	entry->fown = message_new(FownEntry, fown_entry);
	entry->opts = message_new(SkOptsEntry, sk_opts_entry);
	file_set_kind(&snapshot, *file, &file_kind_packet);
	return entry;
}

/* 4 blocks of 32 frames; the process has not given the frame before the position back. */
static void add_ring(PacketSockEntry *entry)
{
	PacketRing *ring = entry->rx_ring = message_new(PacketRing, packet_ring);
	PacketUnread *unread = message_new(PacketUnread, packet_unread);

	ring->block_size = BLOCK;
	ring->block_nr = 4;
	ring->frame_size = FRAME;
	ring->frame_nr = 128;
	message_set(ring, position, 2);
	unread->index = 1;
	unread->bytes.len = 100;
	unread->bytes.data = allocate(100);
	*grow(&ring->unread, &ring->n_unread) = unread;
}

static void add_membership(PacketSockEntry *entry)
{
	PacketMclist *member = message_new(PacketMclist, packet_mclist);

	member->index = 1;
	member->type = PACKET_MR_MULTICAST;
	member->addr.len = 6;
	member->addr.data = allocate(6);
	*grow(&entry->mclist, &entry->n_mclist) = member;
}

enum {
	TYPE,
	PROTOCOL,
	VERSION,
	GROUP,
	NAME,
	BLOCKS,
	POSITION,
	INDEX,
	LONG,
	SHORT,
	BLOCK_IN_USE,
	COUNT,
	ADDRESS,
	MEMBER,
	ALL
};

static void forge(PacketSockEntry *entry, int what)
{
	PacketUnread *unread = entry->rx_ring->unread[0];

	switch (what) {
	case TYPE:
		entry->type = SOCK_STREAM;
		break;
	case PROTOCOL:
		entry->protocol = 0; /* so nothing can have come into its ring */
		break;
	case VERSION:
		entry->version = 9;
		break;
	case GROUP:
		entry->rx_ring->position = entry->protocol = 0;
		message_set(entry, fanout, 1);
		break;
	case NAME:
		entry->interface = copy_text("a name that is too long");
		break;
	case BLOCKS:
		entry->rx_ring->block_nr = UINT32_MAX;
		entry->rx_ring->block_size = UINT32_MAX;
		break;
	case POSITION:
		entry->rx_ring->position = 128;
		break;
	case INDEX:
		unread->index = 128;
		break;
	case LONG:
		entry->rx_ring->frame_size = 64;
		entry->rx_ring->frame_nr = 4096;
		break;
	case SHORT:
		unread->bytes.len = 8;
		break;
	case BLOCK_IN_USE:
		entry->version = TPACKET_V3;
		unread->index = 2;
		break;
	case COUNT:
		message_set(entry->mclist[0], count, UINT32_MAX);
		break;
	case ADDRESS:
		entry->mclist[0]->type = 0x10000;
		break;
	case MEMBER:
		entry->mclist[0]->index = 0;
		break;
	}
}

static void forged(void **state)
{
	for (int what = 0; what < ALL; what++) {
		struct file *file;
		PacketSockEntry *entry = add(&file);

		add_ring(entry);
		add_membership(entry);
		forge(entry, what);
		assert_int_equal(file_kind_packet.check(&snapshot, file), -EINVAL);
		assert_non_null(strstr(failure_text(), "file 7 (packet socket)"));
		end(state);
		begin(state);
	}
}

/* A mapping is that of all rings. */
static void mapped(void **state unused)
{
	struct file *file;
	PacketSockEntry *entry = add(&file);
	struct vma vma = { .start = BLOCK, .end = 5 * BLOCK, .flags = MAP_SHARED };

	add_ring(entry);
	assert_true(packet_ring_is_mapped(entry, &vma));
	assert_null(packet_ring_why_not_mapped(file, &vma));
	vma.end -= PAGE_SIZE;
	assert_false(packet_ring_is_mapped(entry, &vma));
	vma.end += PAGE_SIZE;
	vma.offset = PAGE_SIZE;
	assert_false(packet_ring_is_mapped(entry, &vma));
	vma.offset = 0;
	vma.flags = MAP_PRIVATE;
	assert_false(packet_ring_is_mapped(entry, &vma));
	vma.flags = MAP_SHARED;
	entry->rx_ring->has_position = false;
	assert_non_null(strstr(packet_ring_why_not_mapped(file, &vma), "position"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(forged, begin, end),
		cmocka_unit_test_setup_teardown(mapped, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
