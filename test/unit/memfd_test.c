/*
 * memfd_test.c - memfd.img, in a store in memory: valid entries are loaded, and every invalid one is an error that
 * names the image. And the meaning of flags and links.
 */
#include "unit.h"
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/log.h"
#include "memory/huge.h"
#include "memory/memfd.h"

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
	shared_memory_close(&snapshot);
	image_store_close(snapshot.images);
	snapshot_free(&snapshot);
	return 0;
}

static MemfdInodeEntry possible(uint64_t number, const char *name)
{
	MemfdInodeEntry entry = MEMFD_INODE_ENTRY__INIT;

	entry.inode_id = number;
	entry.shmid = 1000 + number;
	entry.name = (char *)name;
	entry.size = 4 << 20;
	entry.has_mode = true;
	entry.mode = S_IFREG | 0640;
	return entry;
}

static void write_entries(const MemfdInodeEntry *entries, size_t count)
{
	struct image *image;

	assert_int_equal(image_create(snapshot.images, &image, IMAGE_MEMFD_INODE, 0), 0);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(image_write(image, &entries[i].base), 0);
	assert_int_equal(image_close(image), 0);
}

static void is_refused(const MemfdInodeEntry *entries, size_t count, const char *word)
{
	char text[1000];

	write_entries(entries, count);
	assert_true(memfd_load(&snapshot) < 0);
	failure_report(text, sizeof(text), NULL, NULL);
	assert_non_null(strstr(text, "memfd.img"));
	assert_non_null(strstr(text, word));
	shared_memory_close(&snapshot);
	failure_clear();
}

static void loaded(void **state unused)
{
	MemfdInodeEntry entries[] = { possible(1, "a name"), possible(2, "/dev/zero"),
				      possible(3, "/dev/zero"), possible(4, "/dev/zero"),
				      possible(5, "huge") };

	entries[2].has_is_named = entries[2].is_named = true;
	entries[3].size = 0; /* mmap() cannot create that */
	entries[4].has_hugetlb_flag = true;
	entries[4].hugetlb_flag = MFD_HUGETLB | 21 << 26;
	write_entries(entries, array_size(entries));
	assert_int_equal(memfd_load(&snapshot), 0);
	assert_int_equal(shared_memories_of(&snapshot)->count, 5);
	assert_false(memfd_find(&snapshot, 1)->is_anonymous);
	assert_true(memfd_find(&snapshot, 2)->is_anonymous);
	assert_false(memfd_find(&snapshot, 3)->is_anonymous);
	assert_false(memfd_find(&snapshot, 4)->is_anonymous);
	assert_int_equal(memfd_find(&snapshot, 1)->page_size, 0);
	assert_int_equal(memfd_find(&snapshot, 5)->page_size, 2 << 20);
	assert_int_equal(memfd_find(&snapshot, 5)->size, 4 << 20);
	assert_ptr_equal(memfd_find(&snapshot, 5), shared_memory_find(&snapshot, 1005));
	assert_null(memfd_find(&snapshot, 6));
}

static void forged(void **state unused)
{
	MemfdInodeEntry entry = possible(1, "a"), twice[] = { possible(1, "a"), possible(2, "b") };
	InodeTimesEntry late = INODE_TIMES_ENTRY__INIT;
	char longest[251];

	late.modified_ns = 1000000000;

#define refused(field, value, word) \
	entry = possible(1, "a");   \
	entry.field = value;        \
	is_refused(&entry, 1, word)
	refused(mode, S_IFDIR | 0755, "mode");
	refused(mode, 0xffffffff, "mode");
	refused(size, UINT64_MAX, "size");
	refused(seals, 0x40, "seals");
	refused(uid, UINT32_MAX, "owner");
	refused(gid, UINT32_MAX, "owner");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	refused(name, longest, "name");
	refused(times, &late, "time");
	entry = possible(1, "a");
	entry.has_hugetlb_flag = true;
#define refused_pages(flags)        \
	entry.hugetlb_flag = flags; \
	is_refused(&entry, 1, "pages")
	refused_pages(21 << 26);		/* a size of huge pages, but no huge pages */
	refused_pages(MFD_HUGETLB | 63U << 26); /* too large for any machine */
	refused_pages(MFD_HUGETLB | 5 << 26);	/* smaller than a page */
	refused_pages(MFD_HUGETLB | MFD_CLOEXEC | 21 << 26);
	refused_pages(MFD_HUGETLB | 30 << 26); /* the memory is half of such a page */
	is_refused((MemfdInodeEntry[]){ twice[0], twice[0] }, 2, "twice");
	twice[1].shmid = twice[0].shmid;
	is_refused(twice, 2, "twice");
}

static void mapped(void **state unused)
{
	struct vma vma = { .start = 0x200000, .end = 0x600000, .object = 7, .flags = MAP_SHARED };
	MemfdInodeEntry entry = possible(1, "a");

	assert_int_equal(shared_memory_note(&snapshot, &vma), 0);
	assert_true(shared_memory_find(&snapshot, 7)->size == 4 << 20);
	vma.flags |= huge_map_flags(2 << 20);
	assert_true(shared_memory_note(&snapshot, &vma) < 0); /* the same memory with pages of another size */
	failure_clear();
	shared_memory_close(&snapshot);
	write_entries(&entry, 1);
	assert_int_equal(memfd_load(&snapshot), 0);
	vma.flags = MAP_SHARED;
	vma.object = 1001;
	assert_true(shared_memory_note(&snapshot, &vma) < 0); /* a memfd without its file */
}

static void flags(void **state unused)
{
	assert_int_equal(huge_map_flags(2 << 20), MAP_HUGETLB | 21 << 26);
	assert_int_equal(huge_memfd_flags(1 << 30), (int)(MFD_HUGETLB | 30U << 26));
	assert_true(huge_page_size(huge_map_flags(2 << 20)) == 2 << 20);
	assert_true(huge_page_size(30U << 26) == 1 << 30);
	assert_true(huge_page_size(63U << 26) == 0);
	assert_true(huge_page_size(12U << 26) == 0);
}

static void links(void **state unused)
{
	assert_true(memfd_is_link("/memfd:a (deleted)"));
	assert_true(memfd_is_link("/memfd: (deleted)"));
	assert_true(memfd_is_link("/memfd:a (deleted) (deleted)"));
	assert_true(memfd_is_link("/dev/zero (deleted)"));
	assert_true(memfd_is_link("/anon_hugepage (deleted)"));
	assert_false(memfd_is_link("/memfd:a"));
	assert_false(memfd_is_link("/dev/zero"));
	assert_false(memfd_is_link("/tmp/memfd:a (deleted)"));
	assert_false(memfd_is_link(" (deleted)"));
	assert_false(memfd_is_link(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(loaded, begin, end),
		cmocka_unit_test_setup_teardown(forged, begin, end),
		cmocka_unit_test_setup_teardown(mapped, begin, end),
		cmocka_unit_test(flags),
		cmocka_unit_test(links),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
