/*
 * packed_read.c - reads compressed pages images. See packed.h.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "memory/packed.h"

#define ROUND	 16UL					      /* blocks that are read by one call */
#define PIECE	 ((64UL << 10) / sizeof(struct packed_block)) /* of the list of blocks: read by one call */
#define NO_BLOCK SIZE_MAX

/* Memory of one call of unpacker_read(). */
struct room {
	size_t held; /* the number of the block whose content is in `block` */
	char packed[ROUND * PACKED_BLOCK];
	char block[PACKED_BLOCK]; /* of which only a part is wanted */
};

struct unpacker {
	int fd;
	const char *name;
	uint64_t size;
	size_t count;
	uint64_t *offsets; /* of all blocks, and of their end */
	uint32_t *hashes;

	pthread_mutex_t lock;
	struct room *idle; /* for the next call; NULL: there is none */
};

/* ---- opening ---- */

static int damaged(const char *name, const char *what)
{
	return fail(EINVAL, "%s is damaged: %s", name, what);
}

static int read_at(int fd, const char *name, void *buffer, size_t size, uint64_t offset)
{
	int result = read_all_at(fd, buffer, size, (off_t)offset);

	return result ? fail(-result, "cannot read %s", name) : 0;
}

static size_t size_of_block(const struct unpacker *unpacker, size_t block)
{
	return min(unpacker->size - block * PACKED_BLOCK, PACKED_BLOCK);
}

static int read_trailer(int fd, uint64_t file_size, const char *name, struct packed_trailer *trailer)
{
	int result;

	if (file_size < sizeof(*trailer))
		return damaged(name, "it is too short");
	result = read_at(fd, name, trailer, sizeof(*trailer), file_size - sizeof(*trailer));
	if (result)
		return result;
	if (trailer->magic != PACKED_MAGIC)
		return damaged(name, "it does not end as a complete image does");
	return 0;
}

/* The file consists of blocks, their descriptions and the trailer, so its size limits their number. */
static int count_blocks(struct unpacker *unpacker, uint64_t file_size, const struct packed_trailer *trailer)
{
	uint64_t left = file_size - sizeof(*trailer);

	if (trailer->packed > left || (left - trailer->packed) % sizeof(struct packed_block))
		return damaged(unpacker->name, "its blocks do not fit into it");
	unpacker->count = (left - trailer->packed) / sizeof(struct packed_block);
	unpacker->size = trailer->size;
	if (trailer->size > unpacker->count * PACKED_BLOCK ||
	    round_up(trailer->size, PACKED_BLOCK) / PACKED_BLOCK != unpacker->count)
		return damaged(unpacker->name, "it has not as many blocks as its content needs");
	return 0;
}

/* Blocks from number `first` on. Their places are known, those of the next ones are not yet. */
static int take_blocks(struct unpacker *unpacker, const struct packed_block *blocks, size_t first,
		       size_t count, uint64_t packed)
{
	unpacker->offsets = reallocate_array(unpacker->offsets, first + count + 1,
					     sizeof(*unpacker->offsets));
	unpacker->hashes = reallocate_array(unpacker->hashes, first + count, sizeof(*unpacker->hashes));
	for (size_t i = 0; i < count; i++) {
		uint64_t offset = unpacker->offsets[first + i];

		if (!blocks[i].size || blocks[i].size > size_of_block(unpacker, first + i) ||
		    blocks[i].size > packed - offset)
			return damaged(unpacker->name, "the size of a block is impossible");
		unpacker->offsets[first + i + 1] = offset + blocks[i].size;
		unpacker->hashes[first + i] = blocks[i].hash;
	}
	return 0;
}

/*
 * Each piece is checked before memory for the next one is needed, because the size of a file may be a forgery: it costs
 * nothing if the file has holes.
 */
static int read_blocks(struct unpacker *unpacker, const struct packed_trailer *trailer)
{
	autofree struct packed_block *blocks = reallocate_array(NULL, PIECE, sizeof(*blocks));
	XXH3_state_t hash;
	int result = 0;

	XXH3_64bits_reset(&hash);
	unpacker->offsets = allocate(sizeof(*unpacker->offsets));
	for (size_t first = 0, count; !result && first < unpacker->count; first += count) {
		count = min(unpacker->count - first, PIECE);
		result = read_at(unpacker->fd, unpacker->name, blocks, count * sizeof(*blocks),
				 trailer->packed + first * sizeof(*blocks));
		if (!result) {
			XXH3_64bits_update(&hash, blocks, count * sizeof(*blocks));
			result = take_blocks(unpacker, blocks, first, count, trailer->packed);
		}
	}
	if (result)
		return result;
	if (XXH3_64bits_digest(&hash) != trailer->hash)
		return damaged(unpacker->name, "the list of its blocks has changed");
	if (unpacker->offsets[unpacker->count] != trailer->packed)
		return damaged(unpacker->name, "its blocks have another size than they should have");
	return 0;
}

int unpacker_open(struct unpacker **opened, int fd, uint64_t file_size, const char *name)
{
	struct unpacker *unpacker = *opened = allocate(sizeof(*unpacker));
	struct packed_trailer trailer;
	int result = read_trailer(fd, file_size, name, &trailer);

	unpacker->fd = fd;
	unpacker->name = name;
	pthread_mutex_init(&unpacker->lock, NULL);
	result = result ?: count_blocks(unpacker, file_size, &trailer) ?: read_blocks(unpacker, &trailer);
	if (result)
		unpacker_close(steal_pointer(opened));
	return result;
}

void unpacker_close(struct unpacker *unpacker)
{
	if (!unpacker)
		return;
	free(unpacker->idle);
	pthread_mutex_destroy(&unpacker->lock);
	free(unpacker->offsets);
	free(unpacker->hashes);
	free(unpacker);
}

uint64_t unpacker_size(const struct unpacker *unpacker)
{
	return unpacker->size;
}

/* ---- reading ---- */

static struct room *take_room(struct unpacker *unpacker)
{
	struct room *room;

	pthread_mutex_lock(&unpacker->lock);
	room = steal_pointer(&unpacker->idle);
	pthread_mutex_unlock(&unpacker->lock);
	if (room)
		return room;
	room = reallocate_array(NULL, 1, sizeof(*room)); /* untouched until it is needed */
	room->held = NO_BLOCK;
	return room;
}

/* One is kept, not one for each thread that has ever read: many images may be open. */
static void give_room(struct unpacker *unpacker, struct room *room)
{
	struct room *older;

	pthread_mutex_lock(&unpacker->lock);
	older = unpacker->idle;
	unpacker->idle = room;
	pthread_mutex_unlock(&unpacker->lock);
	free(older);
}

/* The place for the next bytes: the rest of places[0], behind the first `used` bytes of it. */
struct target {
	const struct iovec *places;
	size_t used;
};

static size_t room_in(struct target *target)
{
	while (target->used == target->places->iov_len) {
		target->places++;
		target->used = 0;
	}
	return target->places->iov_len - target->used;
}

static char *place_in(const struct target *target)
{
	return (char *)target->places->iov_base + target->used;
}

static void put(struct target *target, const char *bytes, size_t size)
{
	for (size_t take; size; size -= take) {
		take = min(size, room_in(target));
		memcpy(place_in(target), bytes, take);
		target->used += take;
		bytes += take;
	}
}

static int fail_block(const struct unpacker *unpacker, size_t block)
{
	return fail(EINVAL, "%s is damaged: block %zu has changed", unpacker->name, block);
}

static int unpack(const struct unpacker *unpacker, size_t block, const char *packed, size_t packed_size,
		  char *content)
{
	int size = (int)size_of_block(unpacker, block);

	return LZ4_decompress_safe(packed, content, (int)packed_size, size) == size ?
		       0 :
		       fail_block(unpacker, block);
}

/* Keeps the content of the block: whoever wants a part of it may want the next one soon. */
static int hold_block(const struct unpacker *unpacker, size_t block, const char *packed, size_t packed_size,
		      struct room *room)
{
	int result = 0;

	room->held = NO_BLOCK;
	if (packed_size == size_of_block(unpacker, block))
		memcpy(room->block, packed, packed_size);
	else
		result = unpack(unpacker, block, packed, packed_size, room->block);
	if (!result)
		room->held = block;
	return result;
}

/* Of the content of the block, bytes [from, from + size). */
static int put_block(const struct unpacker *unpacker, size_t block, const char *packed, size_t from,
		     size_t size, struct room *room, struct target *target)
{
	size_t whole = size_of_block(unpacker, block);
	size_t packed_size = unpacker->offsets[block + 1] - unpacker->offsets[block];
	int result = 0;

	if ((uint32_t)XXH3_64bits(packed, packed_size) != unpacker->hashes[block])
		return fail_block(unpacker, block);
	if (size == whole && packed_size == whole) {
		put(target, packed, size);
	} else if (size == whole && room_in(target) >= whole) {
		result = unpack(unpacker, block, packed, packed_size, place_in(target));
		target->used += whole;
	} else {
		result = hold_block(unpacker, block, packed, packed_size, room);
		if (!result)
			put(target, room->block + from, size);
	}
	return result;
}

static int read_round(const struct unpacker *unpacker, uint64_t offset, uint64_t end, struct room *room,
		      struct target *target)
{
	size_t first = offset / PACKED_BLOCK, last = (end - 1) / PACKED_BLOCK;
	uint64_t start = unpacker->offsets[first];
	int result = read_at(unpacker->fd, unpacker->name, room->packed, unpacker->offsets[last + 1] - start,
			     start);

	for (size_t block = first; !result && block <= last; block++) {
		uint64_t from = max(offset, block * PACKED_BLOCK), to = min(end, (block + 1) * PACKED_BLOCK);

		result = put_block(unpacker, block, room->packed + (unpacker->offsets[block] - start),
				   from % PACKED_BLOCK, to - from, room, target);
	}
	return result;
}

int unpacker_read(struct unpacker *unpacker, const struct iovec *places, int count, uint64_t offset)
{
	struct target target = { .places = places };
	struct room *room;
	uint64_t end = offset;
	int result = 0;

	for (int i = 0; i < count; i++)
		end += places[i].iov_len;
	if (end > unpacker->size || end < offset)
		return fail(ENODATA, "cannot read %s", unpacker->name);
	room = take_room(unpacker);
	for (uint64_t next; !result && offset < end; offset = next) {
		uint64_t block = round_down(offset, PACKED_BLOCK);
		bool is_held = room->held == block / PACKED_BLOCK;

		next = min(end, block + (is_held ? 1 : ROUND) * PACKED_BLOCK);
		if (is_held)
			put(&target, room->block + (offset - block), next - offset);
		else
			result = read_round(unpacker, offset, next, room, &target);
	}
	give_room(unpacker, room);
	return result;
}

void unpacker_place(const struct unpacker *unpacker, uint64_t offset, uint64_t size, uint64_t *start,
		    uint64_t *end)
{
	size_t first = min(offset / PACKED_BLOCK, unpacker->count);
	size_t last = min(round_up(offset + size, PACKED_BLOCK) / PACKED_BLOCK, unpacker->count);

	*start = unpacker->offsets[first];
	*end = unpacker->offsets[last];
}
