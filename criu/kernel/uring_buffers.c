/*
 * uring_buffers.c - buffers that are registered with an io_uring (IORING_REGISTER_BUFFERS). See uring.h.
 *
 * The kernel keeps the pages that were at the addresses of a buffer when it was registered. The process may have put
 * something else there since: then requests use memory that nobody can see, and a restore could not make that again. So
 * criu compares the pages of the buffer with those that the process has now, by their numbers: /proc/PID/pagemap tells
 * the numbers of the latter. Those of the former follow from the addresses of their struct page, which are an array. A
 * buffer of criu's own tells where it begins.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/uring_reader.h"

#define OWN_PAGES	 8    /* of criu's own buffer */
#define AT_A_TIME	 4096 /* pages whose numbers are read in one call */
#define PIECES_AT_A_TIME 256
#define NODES_AT_A_TIME	 256u
#define NUMBER_BITS	 ((1ULL << 55) - 1)
#define IS_PRESENT	 (1ULL << 63) /* in pagemap */

int uring_find_buffers(const struct uring_reader *reader, uint64_t ring, struct uring_facts *facts)
{
	return uring_read_at(reader, ring, BUFFER_COUNT, &facts->buffer_count, sizeof(facts->buffer_count)) ?:
		       uring_read_address(reader, ring, BUFFER_NODES, &facts->buffers);
}

/* Members of one struct, in one call: a ring may have 16384 buffers. */
static int read_members(const struct uring_reader *reader, uint64_t at, const struct peek_member *members,
			size_t count)
{
	int result = peek_read_members(&reader->peek, at, reader->offsets, members, count);

	return result ? uring_cannot_read(result) : 0;
}

/* Memory of a driver that a program has registered has no address. */
static int read_place(const struct uring_reader *reader, struct uring_buffer *buffer, const char **problem)
{
	uint32_t length = 0;
	const struct peek_member members[] = { { BUFFER_ADDRESS, &buffer->address, sizeof(buffer->address) },
					       { BUFFER_LENGTH, &length, sizeof(length) },
					       { BUFFER_PIECES, &buffer->pieces, sizeof(buffer->pieces) } };
	int result = read_members(reader, buffer->at, members, array_size(members));

	buffer->length = length;
	if (!result && (!buffer->address || !length))
		*problem = "a registered buffer of a driver";
	return result;
}

static int read_buffer(const struct uring_reader *reader, uint64_t node, struct uring_buffer *buffer,
		       const char **problem)
{
	uint64_t tag = 0;
	const struct peek_member members[] = { { NODE_TAG, &tag, sizeof(tag) },
					       { NODE_BUFFER, &buffer->at, sizeof(buffer->at) } };
	int result;

	*buffer = (struct uring_buffer){ 0 };
	if (!node)
		return 0;
	result = read_members(reader, node, members, array_size(members));
	if (!result && tag)
		*problem = "registered buffers that have tags";
	return result || !buffer->at ? result : read_place(reader, buffer, problem);
}

int uring_read_buffers(const struct uring_reader *reader, const struct uring_facts *facts,
		       struct uring_buffer *buffers, const char **problem)
{
	uint64_t nodes[NODES_AT_A_TIME];
	int result = 0;

	*problem = NULL;
	for (uint32_t first = 0, some; !result && first < facts->buffer_count; first += some) {
		some = min(facts->buffer_count - first, NODES_AT_A_TIME);
		if (peek_read(&reader->peek, facts->buffers + first * sizeof(*nodes), nodes,
			      some * (uint32_t)sizeof(*nodes)))
			return uring_cannot_read(-EFAULT);
		for (uint32_t i = 0; !result && !*problem && i < some; i++)
			result = read_buffer(reader, nodes[i], &buffers[first + i], problem);
	}
	return result;
}

/* ---- pages ---- */

/* Consecutive pages of a buffer. */
struct piece {
	uint64_t page; /* struct page */
	uint32_t length, offset;
};

static struct piece understand(const struct uring_reader *reader, const char *bytes)
{
	struct piece piece;

	memcpy(&piece.page, bytes + reader->offsets[PIECE_PAGE], sizeof(piece.page));
	memcpy(&piece.length, bytes + reader->offsets[PIECE_LENGTH], sizeof(piece.length));
	memcpy(&piece.offset, bytes + reader->offsets[PIECE_OFFSET], sizeof(piece.offset));
	return piece;
}

static int read_pieces(const struct uring_reader *reader, const struct uring_buffer *buffer, uint32_t first,
		       uint32_t count, struct piece *pieces)
{
	uint64_t at = buffer->at + reader->offsets[BUFFER_LIST] + (uint64_t)first * reader->piece_size;
	char bytes[PEEK_MOST];

	if (peek_read(&reader->peek, at, bytes, count * reader->piece_size))
		return uring_cannot_read(-EFAULT);
	for (uint32_t i = 0; i < count; i++)
		pieces[i] = understand(reader, bytes + i * reader->piece_size);
	return 0;
}

/* The numbers of the pages of a process; 0: there is none. */
static int read_numbers(int pagemap, uint64_t address, size_t count, uint64_t *numbers)
{
	ssize_t size = pread(pagemap, numbers, count * sizeof(*numbers),
			     (off_t)(address / PAGE_SIZE * sizeof(*numbers)));

	if (size < 0)
		return fail(errno, "cannot read /proc/PID/pagemap");
	for (size_t i = 0; i < count; i++)
		numbers[i] = i < (size_t)size / sizeof(*numbers) && numbers[i] & IS_PRESENT ?
				     numbers[i] & NUMBER_BITS :
				     0;
	return 0;
}

static int cannot_find_pages(void)
{
	fail_advice("root's capability CAP_SYS_ADMIN, outside of user namespaces");
	return fail(EOPNOTSUPP,
		    "criu does not understand where this kernel has the pages of registered buffers");
}

/* All pages of criu's own buffer must lie as the first one tells. */
static int learn(struct uring_reader *reader, const struct uring_facts *facts, const char *memory)
{
	autoclose int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct page_structs *structs = &reader->page_structs;
	struct uring_buffer buffers[OWN_PAGES];
	const char *problem = NULL;
	uint64_t numbers[OWN_PAGES], first = 0;
	int result = read_numbers(pagemap, (uintptr_t)memory, OWN_PAGES, numbers) ?:
			     uring_read_buffers(reader, facts, buffers, &problem);

	for (uint32_t i = 0; !result && i < OWN_PAGES; i++) {
		struct piece piece = { 0 };

		if (problem || buffers[i].address != (uintptr_t)memory + i * PAGE_SIZE ||
		    buffers[i].length != PAGE_SIZE)
			return cannot_find_pages();
		result = read_pieces(reader, &buffers[i], 0, 1, &piece);
		if (!i)
			first = piece.page - numbers[0] * structs->size;
		if (!result && (!numbers[i] || piece.offset || piece.length != PAGE_SIZE ||
				piece.page != first + numbers[i] * structs->size))
			return cannot_find_pages();
	}
	structs->first = result ? 0 : first;
	return result;
}

static int learn_by(struct uring_reader *reader, int ring, char *memory)
{
	struct iovec buffers[OWN_PAGES];
	struct uring_facts facts;
	int result;

	for (size_t i = 0; i < OWN_PAGES; i++)
		buffers[i] = (struct iovec){ memory + i * PAGE_SIZE, PAGE_SIZE };
	if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, buffers, OWN_PAGES) < 0)
		return fail(errno, "cannot register buffers of criu's own");
	result = uring_read(reader, ring, &facts);
	if (!result && facts.buffer_count != OWN_PAGES)
		result = cannot_find_pages();
	return result ?: learn(reader, &facts, memory);
}

static int learn_once(struct uring_reader *reader)
{
	struct io_uring_params wanted = { 0 };
	autoclose int ring = -1;
	char *memory;
	int result;

	if (reader->page_structs.first)
		return 0;
	ring = (int)syscall(SYS_io_uring_setup, 1, &wanted);
	memory = mmap(NULL, OWN_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		return fail(errno, "no memory for buffers of criu's own");
	result = ring < 0 ? fail(errno, "cannot create an io_uring of criu's own") :
			    learn_by(reader, ring, memory);
	munmap(memory, OWN_PAGES * PAGE_SIZE);
	return result;
}

/* The numbers of the pages of a process, as many as are read in one call. */
struct window {
	int pagemap, mem;
	uint64_t first, count; /* pages, from address 0 on */
	uint64_t end;	       /* no page from here on is asked for */
	bool is_shared;	       /* until there */
	uint64_t numbers[AT_A_TIME];
};

static int fill_window(struct window *window)
{
	return read_numbers(window->pagemap, window->first * PAGE_SIZE, window->count, window->numbers);
}

/*
 * The page tables of a process may lack pages of shared memory, although they are those that the process will find
 * there: after MADV_DONTNEED, or when the kernel needed memory. Reading lets the kernel enter them.
 */
static bool touch_shared(const struct window *window)
{
	bool has_touched = false;
	char byte;

	for (uint64_t i = 0; window->is_shared && i < window->count; i++)
		if (!window->numbers[i])
			has_touched |= pread(window->mem, &byte, 1,
					     (off_t)((window->first + i) * PAGE_SIZE)) == 1;
	return has_touched;
}

static int read_number(struct window *window, uint64_t page, uint64_t *number)
{
	int result = 0;

	if (page < window->first || page - window->first >= window->count) {
		window->first = page;
		window->count = min(window->end - page, (uint64_t)AT_A_TIME);
		result = fill_window(window);
		if (!result && touch_shared(window))
			result = fill_window(window);
	}
	*number = window->numbers[page - window->first];
	return result;
}

/* Are the pages of the piece at this address? 1, 0 or -errno, recorded. */
static int compare_piece(const struct uring_reader *reader, const struct piece *piece, struct window *window,
			 uint64_t address)
{
	const struct page_structs *structs = &reader->page_structs;
	const uint64_t start = address / PAGE_SIZE, end = (address + piece->length - 1) / PAGE_SIZE + 1;
	uint64_t expected = piece->page + piece->offset / PAGE_SIZE * structs->size;

	if (piece->offset % PAGE_SIZE != address % PAGE_SIZE)
		return 0;
	for (uint64_t page = start; page < end; page++, expected += structs->size) {
		uint64_t number;
		int result = read_number(window, page, &number);

		if (result)
			return result;
		if (!number || structs->first + number * structs->size != expected)
			return 0;
	}
	return 1;
}

/* Pieces follow one another; together they are as long as the buffer. The same result. */
static int compare_pieces(const struct uring_reader *reader, const struct uring_buffer *buffer,
			  struct window *window)
{
	struct piece pieces[PIECES_AT_A_TIME];
	const uint32_t most = min((uint32_t)PIECES_AT_A_TIME, PEEK_MOST / reader->piece_size);
	uint64_t address = buffer->address, end = address + buffer->length;

	for (uint32_t first = 0, some; first < buffer->pieces; first += some) {
		int result;

		some = min(buffer->pieces - first, most);
		result = read_pieces(reader, buffer, first, some, pieces);
		if (result)
			return result;
		for (uint32_t i = 0; i < some; i++) {
			if (!pieces[i].length || pieces[i].length > end - address)
				return 0;
			result = compare_piece(reader, &pieces[i], window, address);
			if (result != 1)
				return result;
			address += pieces[i].length;
		}
	}
	return address == end;
}

static int compare_all(const struct uring_reader *reader, const struct uring_buffer *buffers, uint32_t count,
		       struct window *window)
{
	int result = 1;

	for (uint32_t i = 0; result == 1 && i < count; i++) {
		const struct uring_buffer *buffer = &buffers[i];

		if (!buffer->at)
			continue;
		window->first = window->count = 0;
		window->end = (buffer->address + buffer->length - 1) / PAGE_SIZE + 1;
		window->is_shared = buffer->is_shared;
		result = compare_pieces(reader, buffer, window);
	}
	return result;
}

int uring_has_pages(struct uring_reader *reader, const struct uring_buffer *buffers, uint32_t count, int proc)
{
	autoclose int pagemap = openat(proc, "pagemap", O_RDONLY | O_CLOEXEC);
	autoclose int mem = openat(proc, "mem", O_RDONLY | O_CLOEXEC);
	autofree struct window *window = NULL;
	int result;

	if (pagemap < 0 || mem < 0)
		return fail(errno, "cannot open /proc/PID/%s", pagemap < 0 ? "pagemap" : "mem");
	result = learn_once(reader);
	if (result)
		return result;
	window = allocate(sizeof(*window));
	window->pagemap = pagemap;
	window->mem = mem;
	return compare_all(reader, buffers, count, window);
}
