/*
 * pagemap_test.c - one pagemap image, in a store in memory: the old and the new fields mean the same, and every invalid
 * entry is an error that names the image.
 */
#include "unit.h"
#include <errno.h>
#include <string.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/message.h"
#include "memory/pagemap.h"
#include "pagemap.pb-c.h"

#define PAGES(number) ((uint64_t)(number)*PAGE_SIZE)
#define ID	      4711
#define PAGES_ID      7

static int start_clean(void **state unused)
{
	failure_clear();
	log_level = 0;
	return 0;
}

struct entry {
	uint64_t address, count;
	int flags;     /* -1: not in the image */
	int in_parent; /* likewise */
};

static struct image_store *store_with(const struct entry *entries, size_t count)
{
	PagemapHead head = PAGEMAP_HEAD__INIT;
	struct image_store *store;
	struct image *image;

	head.pages_id = PAGES_ID;
	assert_int_equal(image_store_open_memory(&store), 0);
	assert_int_equal(image_create(store, &image, IMAGE_PAGEMAP, ID), 0);
	assert_int_equal(image_write(image, &head.base), 0);
	for (size_t i = 0; i < count; i++) {
		PagemapEntry entry = PAGEMAP_ENTRY__INIT;

		entry.vaddr = entries[i].address;
		message_set(&entry, nr_pages, entries[i].count);
		if (entries[i].flags >= 0)
			message_set(&entry, flags, entries[i].flags);
		if (entries[i].in_parent >= 0)
			message_set(&entry, in_parent, entries[i].in_parent);
		assert_int_equal(image_write(image, &entry.base), 0);
	}
	assert_int_equal(image_close(image), 0);
	return store;
}

static void assert_refused(const struct entry *entries, size_t count)
{
	struct image_store *store = store_with(entries, count);
	struct pagemap pagemap = { 0 };
	char report[4096];

	assert_true(pagemap_read(&pagemap, store, IMAGE_PAGEMAP, ID) < 0);
	failure_report(report, sizeof(report), "test", NULL);
	if (!strstr(report, "memory/pagemap-4711.img"))
		fail_msg("the report does not name the image:\n%s", report);
	failure_clear();
	pagemap_free(&pagemap);
	image_store_close(store);
}

#define refused(...)                                                    \
	do {                                                            \
		const struct entry entries_made[] = { __VA_ARGS__ };    \
		assert_refused(entries_made, array_size(entries_made)); \
	} while (0)

static void invalid_entries(void **state unused)
{
	const int present = PAGES_PRESENT, parent = PAGES_IN_PARENT;

	refused({ PAGES(9), 1, present, -1 }, { PAGES(8), 1, present, -1 }); /* not sorted */
	refused({ PAGES(9), 1, parent, -1 }, { PAGES(8), 1, present, -1 });
	refused({ PAGES(8), 2, present, -1 }, { PAGES(9), 1, present, -1 }); /* overlap */
	refused({ PAGES(8), 2, present, -1 }, { PAGES(9), 1, parent, -1 });
	refused({ PAGES(8), 2, -1, 1 }, { PAGES(9), 1, -1, 0 });
	refused({ PAGES(8), 1, present, -1 }, { PAGES(8), 1, present, -1 }); /* twice */
	refused({ PAGES(8), 0, present, -1 });				     /* no pages */
	refused({ PAGES(8) + 1, 1, present, -1 });			     /* not the start of a page */
	refused({ 0 - PAGES(1), 2, present, -1 });			     /* beyond all addresses */
	refused({ PAGES(1), UINT64_MAX / PAGE_SIZE, present, -1 });	     /* … far beyond */
	refused({ PAGES(1), UINT64_MAX, present, -1 });
	refused({ PAGES(1), UINT64_MAX, parent, -1 });
	refused({ 0, 1ULL << 51, present, -1 }); /* more than a file can have */
	refused({ 0, 1ULL << 50, present, -1 }, { 1ULL << 62, 1ULL << 50, present, -1 });
}

static void assert_entry(const struct pagemap *pagemap, size_t index, uint64_t page, unsigned flags,
			 uint64_t offset)
{
	assert_true(index < pagemap->count);
	assert_int_equal(pagemap->entries[index].start, PAGES(page));
	assert_int_equal(pagemap->entries[index].count, 2);
	assert_int_equal(pagemap->entries[index].flags, flags);
	if (flags & PAGES_PRESENT)
		assert_int_equal(pagemap->entries[index].offset, PAGES(offset));
}

static void spellings(void **state unused)
{
	const struct entry entries[] = {
		{ PAGES(2), 2, -1, -1 },
		{ PAGES(4), 2, -1, 1 },
		{ PAGES(6), 2, -1, 0 },
		{ PAGES(8), 2, PAGES_PRESENT, -1 },
		{ PAGES(10), 2, 0, -1 }, /* neither here nor in the parent */
		{ PAGES(12), 2, PAGES_IN_PARENT, 1 },
		{ PAGES(14), 2, PAGES_PRESENT | PAGES_LAZY, 0 },
		{ PAGES(16), 2, PAGES_PRESENT | PAGES_IN_PARENT,
		  -1 }, /* here, even if the parent has them, too */
	};
	struct image_store *store = store_with(entries, array_size(entries));
	struct pagemap pagemap = { 0 };

	assert_int_equal(pagemap_read(&pagemap, store, IMAGE_PAGEMAP, ID), 0);
	assert_int_equal(pagemap.pages_id, PAGES_ID);
	assert_int_equal(pagemap.count, 7);
	assert_int_equal(pagemap.size, PAGES(10));
	assert_entry(&pagemap, 0, 2, PAGES_PRESENT, 0);
	assert_entry(&pagemap, 1, 4, PAGES_IN_PARENT, 0);
	assert_entry(&pagemap, 2, 6, PAGES_PRESENT, 2);
	assert_entry(&pagemap, 3, 8, PAGES_PRESENT, 4);
	assert_entry(&pagemap, 4, 12, PAGES_IN_PARENT, 0);
	assert_entry(&pagemap, 5, 14, PAGES_PRESENT | PAGES_LAZY, 6);
	assert_entry(&pagemap, 6, 16, PAGES_PRESENT, 8);
	pagemap_free(&pagemap);
	image_store_close(store);
}

static void empty(void **state unused)
{
	struct image_store *store = store_with(NULL, 0);
	struct pagemap pagemap = { 0 };

	assert_int_equal(pagemap_read(&pagemap, store, IMAGE_PAGEMAP, ID), 0);
	assert_int_equal(pagemap.count, 0);
	assert_int_equal(pagemap.size, 0);
	pagemap_free(&pagemap);
	assert_int_equal(pagemap_read(&pagemap, store, IMAGE_PAGEMAP, ID + 1), -ENOENT);
	assert_false(has_failed());
	pagemap_free(&pagemap);
	image_store_close(store);
}

/* One entry as bytes: unknown fields are skipped, torn fields and fields of another type are refused. */
static int read_bytes(const char *bytes, uint32_t size, struct pagemap *pagemap)
{
	struct image_store *store = store_with(NULL, 0);
	PagemapHead head = PAGEMAP_HEAD__INIT;
	struct image *image;
	int result;

	assert_int_equal(image_create(store, &image, IMAGE_PAGEMAP, ID), 0);
	assert_int_equal(image_write(image, &head.base), 0);
	assert_int_equal(image_write_bytes(image, &size, sizeof(size)), 0);
	assert_int_equal(image_write_bytes(image, bytes, size), 0);
	assert_int_equal(image_close(image), 0);
	result = pagemap_read(pagemap, store, IMAGE_PAGEMAP, ID);
	image_store_close(store);
	failure_clear();
	return result;
}

static void entries_as_bytes(void **state unused)
{
	static const struct {
		const char *bytes;
		unsigned size;
		bool is_right;
	} cases[] = {
		{ "\x08\x80\x20\x10\x02", 5, true },
		{ "\x08\x80\x20\x10\x01\x28\x02\x20\x04", 9, true },
		{ "\x32\x03\xff\xff\xff\x08\x80\x20\x10\x02", 10, true }, /* field 6, bytes */
		{ "\x08\x80\x20\x10\x02\xc0\x3e\x01", 8, true },	  /* field 1000 */
		{ "\x35\x01\x02\x03\x04\x08\x80\x20\x10\x02", 10, true }, /* field 6, 32 bits */
		{ "\x10\x02", 2, false },				  /* no address */
		{ "\x0a\x01\x20\x10\x02", 5, false },			  /* the address is bytes */
		{ "\x08\x80", 2, false },				  /* torn */
		{ "\x08\x80\x20\x10\x02\x32\x05", 7, false }, /* fewer bytes than its length says */
		{ "\x08\x80\x20\x10\x02\x33", 6, false },     /* a group */
		{ "\x08\x80\x20\x10\x02\x00\x00", 7, false }, /* field 0 */
		{ "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, false },
	};

	for (size_t i = 0; i < array_size(cases); i++) {
		struct pagemap pagemap = { 0 };
		int result = read_bytes(cases[i].bytes, cases[i].size, &pagemap);

		assert_int_equal(result == 0, cases[i].is_right);
		if (!result)
			assert_entry(&pagemap, 0, 1, PAGES_PRESENT, 0);
		pagemap_free(&pagemap);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(invalid_entries, start_clean),
		cmocka_unit_test_setup(spellings, start_clean),
		cmocka_unit_test_setup(empty, start_clean),
		cmocka_unit_test_setup(entries_as_bytes, start_clean),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
