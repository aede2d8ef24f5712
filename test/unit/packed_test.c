/*
 * packed_test.c - what is read from a compressed pages image is what was written into it, however it is cut; a damaged
 * image is an error.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "memory/packed.h"

#define MOST (3UL << 20)

static char content[MOST];

/* Instead of that of the C library: waiting for the disk may fail. */
static int error_of_waiting;
int sync_file_range(int fd, off_t offset, off_t size, unsigned flags)
{
	if (error_of_waiting && flags & SYNC_FILE_RANGE_WAIT_BEFORE) {
		errno = error_of_waiting;
		return -1;
	}
	return (int)syscall(SYS_sync_file_range, fd, offset, size, flags);
}

/* Blocks that cannot be compressed, blocks of one byte, and text. */
static void make_content(void)
{
	unsigned seed = 1;

	for (size_t i = 0; i < MOST; i++) {
		size_t block = i / PACKED_BLOCK;

		seed = seed * 1103515245 + 12345;
		content[i] = (char)(block % 3 == 0 ? seed >> 16 :
				    block % 3 == 1 ? 'x' :
						     'a' + (seed >> 16) % 4);
	}
}

static int new_file(void)
{
	int fd = memfd_create("packed", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* In pieces of different sizes, or in pieces of one size. */
static struct packer_statistics write_packed(int fd, size_t size, size_t piece, bool adapts)
{
	struct packer *packer = packer_open(fd, adapts);
	struct packer_statistics statistics = { 0 };

	for (size_t done = 0, take, number = 1; done < size; done += take, number++) {
		take = min(size - done, piece ?: number * 4096);
		assert_int_equal(packer_write(packer, content + done, take), 0);
	}
	assert_int_equal(packer_close(packer, 0, &statistics), 0);
	return statistics;
}

static uint64_t size_of(int fd)
{
	struct stat status;

	assert_int_equal(fstat(fd, &status), 0);
	return (uint64_t)status.st_size;
}

static void assert_reads(struct unpacker *unpacker, size_t offset, size_t size, size_t piece)
{
	static char found[MOST];
	struct iovec places[64];
	int count = 0;

	memset(found, 0, size);
	for (size_t done = 0, take; done < size; done += take) {
		take = count < 63 ? min(size - done, piece) : size - done;
		places[count++] = (struct iovec){ found + done, take };
	}
	assert_int_equal(unpacker_read(unpacker, places, count, offset), 0);
	assert_memory_equal(found, content + offset, size);
}

static void round_trip(void **state unused)
{
	const size_t sizes[] = {
		0, 4096, PACKED_BLOCK - 4096, PACKED_BLOCK, PACKED_BLOCK + 4096, 1 << 20, 1052672 + 1, MOST
	};
	const size_t pieces[] = { 0, 4096, 12288, PACKED_BLOCK, 256 << 10, MOST };

	for (size_t i = 0; i < array_size(sizes); i++)
		for (size_t j = 0; j < array_size(pieces); j++) {
			int fd = new_file();
			struct packer_statistics statistics = write_packed(fd, sizes[i], pieces[j], false);
			struct unpacker *unpacker;

			assert_int_equal(statistics.packing.bytes, sizes[i]);
			assert_true(size_of(fd) < sizes[i] * 3 / 4 + PACKED_BLOCK);
			assert_int_equal(unpacker_open(&unpacker, fd, size_of(fd), "test"), 0);
			assert_int_equal(unpacker_size(unpacker), sizes[i]);
			assert_reads(unpacker, 0, sizes[i], 100 << 10);
			for (size_t offset = 0; offset < sizes[i]; offset += 127 * 4096)
				assert_reads(unpacker, offset, min(sizes[i] - offset, 90 * 4096UL), 4096);
			assert_int_equal(unpacker_read(unpacker, &(struct iovec){ content, 1 }, 1, sizes[i]),
					 -ENODATA);
			unpacker_close(unpacker);
			close(fd);
		}
}

/* A memfd is never too slow, so nothing is compressed. */
static void adapts(void **state unused)
{
	int fd = new_file();
	struct packer_statistics statistics = write_packed(fd, MOST, 1 << 20, true);
	struct unpacker *unpacker;

	assert_int_equal(statistics.packing.bytes, 0);
	assert_int_equal(statistics.packed, 0);
	assert_true(size_of(fd) > MOST);
	assert_int_equal(unpacker_open(&unpacker, fd, size_of(fd), "test"), 0);
	assert_reads(unpacker, 0, MOST, 100 << 10);
	unpacker_close(unpacker);
	close(fd);
}

static void places(void **state unused)
{
	int fd = new_file();
	struct unpacker *unpacker;
	uint64_t start, end, next;

	write_packed(fd, MOST, 1 << 20, false);
	assert_int_equal(unpacker_open(&unpacker, fd, size_of(fd), "test"), 0);
	unpacker_place(unpacker, 0, MOST, &start, &end);
	assert_int_equal(start, 0);
	assert_true(end < size_of(fd) && end > size_of(fd) - 4096);
	unpacker_place(unpacker, 4096, 4096, &start, &next);
	assert_int_equal(start, 0);
	assert_int_equal(next, PACKED_BLOCK); /* the first block is not compressed */
	unpacker_place(unpacker, MOST - 4096, 64 << 20, &start, &next);
	assert_int_equal(next, end);
	unpacker_close(unpacker);
	close(fd);
}

/* 15 bytes that LZ4 makes another 15 bytes of. */
static void as_large_as_before(void **state unused)
{
	const char *bytes = "aaaaabcdefghijk";
	struct packer_statistics statistics = { 0 };
	int fd = new_file();
	struct packer *packer = packer_open(fd, false);
	struct unpacker *unpacker;
	char found[15];

	assert_int_equal(packer_write(packer, bytes, sizeof(found)), 0);
	assert_int_equal(packer_close(packer, 0, &statistics), 0);
	assert_int_equal(unpacker_open(&unpacker, fd, size_of(fd), "test"), 0);
	assert_int_equal(unpacker_read(unpacker, &(struct iovec){ found, sizeof(found) }, 1, 0), 0);
	assert_memory_equal(found, bytes, sizeof(found));
	unpacker_close(unpacker);
	close(fd);
}

/* A page, and then others of its block: that is read and unpacked once. */
static void page_by_page(void **state unused)
{
	const uint64_t damage = 0x5555555555555555;
	uint64_t start, end;

	for (size_t block = 0; block < 3; block++) {
		int fd = new_file();
		struct unpacker *unpacker;

		write_packed(fd, MOST, 1 << 20, false);
		assert_int_equal(unpacker_open(&unpacker, fd, size_of(fd), "test"), 0);
		assert_reads(unpacker, block * PACKED_BLOCK + 4096, 4096, 4096);
		unpacker_place(unpacker, block * PACKED_BLOCK, 1, &start, &end);
		assert_int_equal(write_all_at(fd, &damage, min(end - start, sizeof(damage)), (off_t)start),
				 0);
		assert_reads(unpacker, block * PACKED_BLOCK, 8192, 4096);
		assert_reads(unpacker, (block + 1) * PACKED_BLOCK - 4096, 40 * PACKED_BLOCK, 4096);
		/* Others have been read meanwhile. */
		assert_reads(unpacker, (block + 1) * PACKED_BLOCK, 4096, 4096);
		assert_int_equal(unpacker_read(unpacker, &(struct iovec){ (char[1]){ 0 }, 1 }, 1,
					       block * PACKED_BLOCK),
				 -EINVAL);
		failure_clear();
		assert_reads(unpacker, (block + 1) * PACKED_BLOCK, 4096, 4096);
		unpacker_close(unpacker);
		close(fd);
	}
}

/* `bytes` replaces some of a good image. Opening or reading it fails. */
static void assert_damaged(int64_t offset, const void *bytes, size_t size)
{
	int fd = new_file(), result;
	struct unpacker *unpacker;
	static char found[MOST];
	struct iovec place = { found, MOST };

	write_packed(fd, MOST, 1 << 20, false);
	assert_int_equal(write_all_at(fd, bytes, size, offset < 0 ? (off_t)size_of(fd) + offset : offset), 0);
	result = unpacker_open(&unpacker, fd, size_of(fd), "test");
	if (!result) {
		result = unpacker_read(unpacker, &place, 1, 0);
		unpacker_close(unpacker);
	}
	assert_int_equal(result, -EINVAL);
	failure_clear();
	close(fd);
}

static void damaged_images(void **state unused)
{
	const int64_t trailer = -(int64_t)sizeof(struct packed_trailer);
	const uint64_t numbers[] = {
		0, 1, MOST + 1, MOST + PACKED_BLOCK, UINT64_MAX, UINT64_MAX - 4095, 1ULL << 63
	};

	for (size_t i = 0; i < array_size(numbers); i++)
		for (int field = 0; field < 4; field++)
			assert_damaged(trailer + field * 8, &numbers[i], 8);
	assert_damaged(trailer - 4, &(uint32_t){ 0 }, 4);
	assert_damaged(trailer - 8, &(uint32_t){ 0 }, 4);
	assert_damaged(0, "\xff\x01\xff\x02", 4);	     /* in the first block, which is not compressed */
	assert_damaged(PACKED_BLOCK, "\xff\xff\xff\xff", 4); /* in the second block */
}

/* A file that ends too early, wherever that is. */
static void torn_images(void **state unused)
{
	int fd = new_file();
	struct unpacker *unpacker;
	uint64_t size;

	write_packed(fd, 512 << 10, 1 << 20, false);
	size = size_of(fd);
	for (uint64_t left = size - 1; left > size - 400; left--) {
		assert_int_equal(unpacker_open(&unpacker, fd, left, "test"), -EINVAL);
		failure_clear();
	}
	for (uint64_t left = 0; left < 100; left++) {
		assert_int_equal(unpacker_open(&unpacker, fd, left, "test"), -EINVAL);
		failure_clear();
	}
	close(fd);
}

static long most_memory(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
	return usage.ru_maxrss;
}

/* A file of 32 GB that has one page: by its size, it could have four milliards of blocks. */
static void forged_size(void **state unused)
{
	const uint64_t size = 32UL << 30, list = size - sizeof(struct packed_trailer);
	struct packed_trailer trailer = { .magic = PACKED_MAGIC, .size = list / 8 * PACKED_BLOCK };
	struct unpacker *unpacker;
	long before = most_memory();
	int fd = new_file();

	assert_int_equal(write_all_at(fd, &trailer, sizeof(trailer), (off_t)list), 0);
	assert_int_equal(unpacker_open(&unpacker, fd, size, "test"), -EINVAL);
	assert_non_null(strstr(failure_text(), "the size of a block is impossible"));
	failure_clear();
	assert_true(most_memory() - before < 4096);
	close(fd);
}

/* Its descriptor has been told of the error, so nobody else would be. */
static void failing_disk(void **state unused)
{
	const int harmless[] = { EINVAL, ENOSYS, ESPIPE };
	struct packer_statistics statistics = { 0 };
	int fd = new_file(), result = 0;
	struct packer *packer = packer_open(fd, true);

	error_of_waiting = EIO;
	for (int i = 0; !result && i < 20; i++)
		result = packer_write(packer, content, MOST);
	assert_int_equal(result, -EIO);
	assert_int_equal(packer_close(packer, result, &statistics), -EIO);
	for (size_t i = 0; i < array_size(harmless); i++) {
		packer = packer_open(fd, true);
		error_of_waiting = harmless[i];
		for (int j = 0; j < 20; j++)
			assert_int_equal(packer_write(packer, content, MOST), 0);
		assert_int_equal(packer_close(packer, 0, &statistics), 0);
	}
	error_of_waiting = 0;
	close(fd);
}

static void full_disk(void **state unused)
{
	int fd = open("/dev/full", O_WRONLY);
	struct packer *packer = packer_open(fd, false);
	struct packer_statistics statistics = { 0 };

	assert_int_equal(packer_write(packer, content, 1 << 20), -ENOSPC);
	assert_int_equal(packer_close(packer, -ENOSPC, &statistics), -ENOSPC);
	assert_int_equal(packer_close(NULL, -EIO, &statistics), -EIO);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(adapts),
		cmocka_unit_test(places),
		cmocka_unit_test(damaged_images),
		cmocka_unit_test(torn_images),
		cmocka_unit_test(full_disk),
		cmocka_unit_test(as_large_as_before),
		cmocka_unit_test(page_by_page),
		cmocka_unit_test(forged_size),
		cmocka_unit_test(failing_disk),
	};

	make_content();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
