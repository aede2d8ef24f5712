/*
 * page_map.c - see page_map.h.
 *
 * The kernel has all memory at a continuous range of addresses, and the struct pages of all memory in a continuous
 * array (CONFIG_SPARSEMEM_VMEMMAP). Where both begin is random, and no file tells it on every kernel. But for one page
 * both addresses are enough to know those of all.
 *
 * The ring of a packet socket has such pages: the kernel keeps the addresses of its blocks, and a pipe to which the
 * mapped ring was spliced keeps their struct pages. The socket has no protocol, so it receives nothing. Several pages
 * show whether both addresses are in proportion, and what criu writes to them whether it reads the right page.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/btf.h"
#include "kernel/kernel_files.h"
#include "kernel/page_map.h"
#include "kernel/peek.h"

#define BLOCKS 8 /* of one page */
#define MARK   64

enum place { SOCKET_SOCK, PACKET_BLOCKS, BLOCK_ADDRESS, PIPE_BUFFERS, BUFFER_PAGE, PLACE_COUNT };

static const struct kernel_member places[PLACE_COUNT] = {
	[SOCKET_SOCK] = { "socket", "sk" },	   [PACKET_BLOCKS] = { "packet_sock", "rx_ring.pg_vec" },
	[BLOCK_ADDRESS] = { "pgv", "buffer" },	   [PIPE_BUFFERS] = { "pipe_inode_info", "bufs" },
	[BUFFER_PAGE] = { "pipe_buffer", "page" },
};

struct sample {
	const struct kernel_files *files;
	uint32_t offsets[PLACE_COUNT];
	uint32_t block_size, buffer_size; /* of a struct pgv, and a struct pipe_buffer */
	int ring, pipe[2];
	char *blocks; /* the ring, mapped */
	size_t page;
	uint64_t pages[BLOCKS], addresses[BLOCKS];
};

static int find_members(struct sample *sample, struct page_map *map, const struct btf *btf)
{
	int result = btf_find_members(btf, places, PLACE_COUNT, sample->offsets, "memory");

	if (result)
		return result;
	sample->block_size = btf_size(btf, "pgv");
	sample->buffer_size = btf_size(btf, "pipe_buffer");
	map->page_size = btf_size(btf, "page");
	return sample->block_size && sample->buffer_size && map->page_size ?
		       0 :
		       fail(EOPNOTSUPP, "criu does not know this kernel's memory");
}

static int make_ring(struct sample *sample)
{
	struct tpacket_req wanted = { .tp_block_size = sample->page,
				      .tp_block_nr = BLOCKS,
				      .tp_frame_size = sample->page,
				      .tp_frame_nr = BLOCKS };

	sample->ring = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (sample->ring < 0 ||
	    setsockopt(sample->ring, SOL_PACKET, PACKET_RX_RING, &wanted, sizeof(wanted)) < 0)
		return fail(errno, "cannot create the ring of a packet socket");
	sample->blocks = mmap(NULL, BLOCKS * sample->page, PROT_READ | PROT_WRITE, MAP_SHARED, sample->ring,
			      0);
	if (sample->blocks != MAP_FAILED)
		return 0;
	sample->blocks = NULL;
	return fail(errno, "cannot map the ring of a packet socket");
}

static int splice_ring(struct sample *sample)
{
	const struct iovec all = { sample->blocks, BLOCKS * sample->page };

	if (pipe2(sample->pipe, O_CLOEXEC) < 0)
		return fail(errno, "cannot create a pipe");
	if (vmsplice(sample->pipe[1], &all, 1, SPLICE_F_NONBLOCK) != (ssize_t)all.iov_len)
		return fail(errno, "cannot splice the ring of a packet socket");
	return 0;
}

static int read_address(const struct sample *sample, uint64_t struct_at, enum place place, uint64_t *address)
{
	int result = peek_read(sample->files->peek, struct_at + sample->offsets[place], address,
			       sizeof(*address));

	return result ? fail(-result, "cannot read the kernel's memory") : 0;
}

static int read_pages(struct sample *sample)
{
	uint64_t file, socket, sock, blocks, pipe, buffers;
	int result = kernel_files_find(sample->files, sample->ring, &file, &socket) ?:
			     kernel_files_find(sample->files, sample->pipe[0], &file, &pipe);

	if (!result)
		result = read_address(sample, socket, SOCKET_SOCK, &sock) ?:
				 read_address(sample, sock, PACKET_BLOCKS, &blocks);
	result = result ?: read_address(sample, pipe, PIPE_BUFFERS, &buffers);
	for (size_t i = 0; !result && i < BLOCKS; i++)
		result =
			read_address(sample, blocks + i * sample->block_size, BLOCK_ADDRESS, &sample->addresses[i]) ?:
				read_address(sample, buffers + i * sample->buffer_size, BUFFER_PAGE,
					     &sample->pages[i]);
	return result;
}

static bool has_mark(const struct sample *sample, const struct page_map *map, size_t block)
{
	char *own = sample->blocks + block * sample->page, found[MARK];
	uint64_t address = page_map_address(map, sample->pages[block]);

	return getrandom(own, MARK, 0) == MARK && address == sample->addresses[block] &&
	       !peek_read(sample->files->peek, address, found, MARK) && !memcmp(own, found, MARK);
}

static int compare(const struct sample *sample, struct page_map *map)
{
	map->page = sample->pages[0];
	map->address = sample->addresses[0];
	for (size_t i = 0; i < BLOCKS; i++)
		if (!has_mark(sample, map, i))
			return fail(EOPNOTSUPP,
				    "criu does not know how this kernel finds the memory of a page");
	return 0;
}

static void free_sample(struct sample *sample)
{
	if (sample->blocks)
		munmap(sample->blocks, BLOCKS * sample->page);
	autoclose_clean(&sample->ring);
	autoclose_clean(&sample->pipe[0]);
	autoclose_clean(&sample->pipe[1]);
}

int page_map_open(struct page_map *map, const struct kernel_files *files, const struct btf *btf)
{
	struct sample sample = {
		.files = files, .ring = -1, .pipe = { -1, -1 }, .page = (size_t)sysconf(_SC_PAGESIZE)
	};
	int result = find_members(&sample, map, btf);

	if (!result)
		result = make_ring(&sample) ?: splice_ring(&sample);
	if (!result)
		result = read_pages(&sample) ?: compare(&sample, map);
	free_sample(&sample);
	return result;
}

uint64_t page_map_address(const struct page_map *map, uint64_t page)
{
	int64_t distance = (int64_t)(page - map->page);

	if (distance % (int64_t)map->page_size)
		return 0;
	return map->address + (uint64_t)(distance / (int64_t)map->page_size * sysconf(_SC_PAGESIZE));
}
