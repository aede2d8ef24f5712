/*
 * stream_test.c - a file that another thread writes gets everything that was put into the stream, for all sizes. A full
 * disk is reported.
 */
#include "unit.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "memory/stream.h"

static char content(size_t page, size_t round)
{
	return (char)(page * 7 + round);
}

static int give_fd(void *context)
{
	return *(int *)context;
}

static int open_stream(struct stream **stream, int *fd, const struct stream_reserve *reserve)
{
	return stream_open(
		stream,
		&(struct stream_file){ .open = give_fd, .context = fd, .name = "test", .usual_size = 0 },
		reserve);
}

/* Puts `pages` pages into the stream, at most `most` at a time. */
static int put(struct stream *stream, size_t pages, size_t most)
{
	for (size_t page = 0; page < pages;) {
		size_t room, take;
		char *buffer = stream_buffer(stream, &room);

		if (!buffer)
			return -EIO;
		take = min(min(room / PAGE_SIZE, most), pages - page);
		assert_true(take > 0);
		assert_int_equal((uintptr_t)buffer % PAGE_SIZE, 0);
		for (size_t i = 0; i < take; i++)
			memset(buffer + i * PAGE_SIZE, content(page + i, most), PAGE_SIZE);
		if (stream_advance(stream, take * PAGE_SIZE))
			return -EIO;
		page += take;
	}
	return 0;
}

static void check(int fd, size_t pages, size_t most)
{
	struct stat found;

	assert_int_equal(fstat(fd, &found), 0);
	assert_int_equal(found.st_size, pages * PAGE_SIZE);
	for (size_t page = 0; page < pages; page++) {
		char bytes[PAGE_SIZE], expected[PAGE_SIZE];

		memset(expected, content(page, most), PAGE_SIZE);
		assert_int_equal(pread(fd, bytes, PAGE_SIZE, page * PAGE_SIZE), PAGE_SIZE);
		assert_memory_equal(bytes, expected, PAGE_SIZE);
	}
}

static void hold_what_is_put(const struct stream_reserve *reserve)
{
	static const size_t pages[] = { 0, 1, 63, 64, 65, 128, 511, 512, 513, 1023, 1024, 1025, 5000 },
			    most[] = { 1, 3, 64, 1000, 2000 };

	for (size_t i = 0; i < array_size(pages); i++)
		for (size_t j = 0; j < array_size(most); j++) {
			int fd = memfd_create("stream", MFD_CLOEXEC);
			struct stream *stream;

			assert_int_equal(open_stream(&stream, &fd, reserve), 0);
			assert_int_equal(put(stream, pages[i], most[j]), 0);
			assert_int_equal(stream_close(stream, 0), 0);
			check(fd, pages[i], most[j]);
			close(fd);
		}
}

/* Its buffers are as large as what is expected, but there may be more. */
static void holds_more_than_usual(void **state unused)
{
	static const uint64_t usual[] = { 1, PAGE_SIZE, 3 * PAGE_SIZE + 1, 64 << 10, 100 << 10, 1 << 20 };

	for (size_t i = 0; i < array_size(usual); i++)
		for (size_t pages = 1; pages < 2000; pages *= 5) {
			int fd = memfd_create("stream", MFD_CLOEXEC);
			struct stream *stream;

			assert_true(fd >= 0);
			assert_int_equal(stream_open(&stream,
						     &(struct stream_file){ .open = give_fd,
									    .context = &fd,
									    .name = "test",
									    .usual_size = usual[i] },
						     NULL),
					 0);
			assert_int_equal(put(stream, pages, 7), 0);
			assert_int_equal(stream_close(stream, 0), 0);
			check(fd, pages, 7);
			close(fd);
		}
}

static void holds_what_was_put(void **state unused)
{
	hold_what_is_put(NULL);
}

/* The reserve is smaller than the data, equal, or larger; with complete and incomplete buffers. */
static void holds_what_was_put_into_a_reserve(void **state unused)
{
	static const size_t pages[] = { 0, 600, 1024, 2000, 6000 };

	for (size_t i = 0; i < array_size(pages); i++) {
		struct stream_reserve reserve;

		assert_int_equal(stream_reserve_make(&reserve, pages[i] * PAGE_SIZE), 0);
		assert_int_equal(!reserve.memory, !pages[i]);
		hold_what_is_put(&reserve);
		stream_reserve_free(&reserve);
	}
}

/* While the reserve has room, nothing is written. */
static void writes_late_from_a_reserve(void **state unused)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);
	struct stream_reserve reserve;
	struct stream *stream;
	struct stat found;

	assert_int_equal(stream_reserve_make(&reserve, 3000 * PAGE_SIZE), 0);
	assert_int_equal(open_stream(&stream, &fd, &reserve), 0);
	assert_int_equal(put(stream, 3000, 64), 0);
	assert_int_equal(fstat(fd, &found), 0);
	assert_int_equal(found.st_size, 0);
	assert_int_equal(stream_close(stream, 0), 0);
	check(fd, 3000, 64);
	stream_reserve_free(&reserve);
	close(fd);
}

static int count_asked(void *context)
{
	++*(int *)context;
	return fail(ENOSPC, "there is no file");
}

/* The stream asks for its file once, when most buffers are full, or at the end; after an error never. */
static void asks_late_for_its_file(void **state unused)
{
	static const struct {
		size_t pages;
		int given, asked, closed;
	} rows[] = {
		{ 0, 0, 1, -ENOSPC },	    { 64, 0, 1, -ENOSPC },   { 300, 0, 1, -ENOSPC },
		{ 300, -EPERM, 0, -EPERM }, { 2000, 0, 1, -ENOSPC },
	};

	for (size_t i = 0; i < array_size(rows); i++) {
		struct stream *stream;
		int asked = 0, result;

		failure_clear();
		assert_int_equal(stream_open(&stream,
					     &(struct stream_file){ .open = count_asked,
								    .context = &asked,
								    .name = "test",
								    .usual_size = 0 },
					     NULL),
				 0);
		result = put(stream, rows[i].pages, 64);
		assert_int_equal(!result, rows[i].pages <= 300);
		assert_int_equal(asked, rows[i].pages > 300);
		result = result ? -ENOSPC : rows[i].given;
		assert_int_equal(stream_close(stream, result), rows[i].closed);
		assert_int_equal(asked, rows[i].asked);
	}
	failure_clear();
}

/* So much is expected that it is written past the page cache, if the file system can do that. */
static void holds_much(void **state unused)
{
	static const size_t pages[] = { 0, 1, 255, 256, 257, 4095, 4096, 4097, 20000 };
	static const char *const names[] = { "/var/tmp/stream_test.XXXXXX", "/dev/shm/stream_test.XXXXXX" };

	for (size_t i = 0; i < array_size(pages); i++)
		for (size_t j = 0; j < array_size(names); j++) {
			autofree char *path = copy_text(names[j]);
			struct stream_statistics written = { 0 };
			int fd = mkstemp(path);
			struct stream *stream;

			if (fd < 0)
				continue;
			unlink(path);
			assert_int_equal(stream_open(&stream,
						     &(struct stream_file){ .open = give_fd,
									    .context = &fd,
									    .name = "test",
									    .usual_size = 128UL << 20,
									    .statistics = &written },
						     NULL),
					 0);
			assert_int_equal(put(stream, pages[i], 300), 0);
			assert_int_equal(stream_close(stream, 0), 0);
			assert_int_equal(written.cached.bytes + written.direct.bytes, pages[i] * PAGE_SIZE);
			assert_int_equal(written.cached.time + written.direct.time > 0, pages[i] > 0);
			assert_true(!written.cached.bytes || !written.direct.bytes);
			check(fd, pages[i], 300);
			close(fd);
		}
}

static void nothing_to_close(void **state unused)
{
	assert_int_equal(stream_close(NULL, 0), 0);
}

static void reports_missing_memory(void **state unused)
{
#ifdef __SANITIZE_ADDRESS__
	skip(); /* it needs memory itself */
#endif
	struct rlimit old, none;
	struct stream *stream;
	int result, fd = STDOUT_FILENO;

	assert_int_equal(getrlimit(RLIMIT_DATA, &old), 0);
	none = (struct rlimit){ PAGE_SIZE, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_DATA, &none), 0);
	result = open_stream(&stream, &fd, NULL);
	setrlimit(RLIMIT_DATA, &old);
	assert_true(result < 0);
	assert_int_equal(failure_errno(), ENOMEM);
	assert_int_equal(stream_close(stream, 0), 0);
	failure_clear();
}

/* A file that is not allowed to grow takes the place of a full disk. */
static void check_full_disk(const struct stream_reserve *reserve, uint64_t usual_size)
{
	static const size_t pages[] = { 30, 300, 3000, 6000 };
	struct rlimit old, small;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){ 20 * PAGE_SIZE, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (size_t i = 0; i < array_size(pages); i++) {
		char path[] = "/var/tmp/stream_test.XXXXXX";
		int fd = mkstemp(path), result;
		struct stream *stream;

		assert_true(fd >= 0);
		unlink(path);
		failure_clear();
		assert_int_equal(stream_open(&stream,
					     &(struct stream_file){ .open = give_fd,
								    .context = &fd,
								    .name = "test",
								    .usual_size = usual_size },
					     reserve),
				 0);
		result = put(stream, pages[i], 64);
		result = stream_close(stream, result);
		assert_true(result < 0);
		assert_int_equal(failure_errno(), EFBIG);
		close(fd);
	}
	setrlimit(RLIMIT_FSIZE, &old);
	failure_clear();
}

/* After an error elsewhere, the rest is not written, and no further error is reported. */
static void is_given_up(void **state unused)
{
	static const size_t pages[] = { 0, 1, 63 };

	for (size_t i = 0; i < array_size(pages); i++) {
		int fd = memfd_create("stream", MFD_CLOEXEC);
		struct stream *stream;
		struct stat found;

		failure_clear();
		assert_int_equal(open_stream(&stream, &fd, NULL), 0);
		assert_int_equal(put(stream, pages[i], 64), 0);
		assert_int_equal(stream_close(stream, -EPERM), -EPERM);
		assert_false(has_failed());
		assert_int_equal(fstat(fd, &found), 0);
		assert_int_equal(found.st_size, 0);
		close(fd);
	}
	assert_int_equal(stream_close(NULL, -EPERM), -EPERM);
}

static void reports_a_full_disk(void **state unused)
{
	struct stream_reserve reserve;

	check_full_disk(NULL, 0);
	check_full_disk(NULL, 128UL << 20);
	assert_int_equal(stream_reserve_make(&reserve, 1200 * PAGE_SIZE), 0);
	check_full_disk(&reserve, 0);
	stream_reserve_free(&reserve);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holds_what_was_put),
		cmocka_unit_test(holds_more_than_usual),
		cmocka_unit_test(holds_what_was_put_into_a_reserve),
		cmocka_unit_test(writes_late_from_a_reserve),
		cmocka_unit_test(asks_late_for_its_file),
		cmocka_unit_test(holds_much),
		cmocka_unit_test(nothing_to_close),
		cmocka_unit_test(reports_missing_memory),
		cmocka_unit_test(is_given_up),
		cmocka_unit_test(reports_a_full_disk),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
