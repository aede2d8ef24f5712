/*
 * saving_test.c - how each kind of mapping is saved: one row for each, with what the kernel says about the mapping and
 * what criu does with it.
 */
#include "unit.h"
#include <string.h>
#include "base/memory.h"
#include "memory/saving.h"

#define SHARED	    MAP_SHARED
#define PRIVATE	    MAP_PRIVATE
#define ADVICE(one) (1ULL << (one))

/* What criu does with it, one letter for each column. */
enum { OVER_FILE = 1, LAZY = 2, NOTED = 4, PROTECTED = 8, INHERITED = 16, HUGE_AGAIN = 32 };

#define ANONYMOUS (LAZY | NOTED | PROTECTED | INHERITED | HUGE_AGAIN)
#define OWN_COPY  (OVER_FILE | NOTED | INHERITED)

static const struct {
	const char *what;
	/* what the kernel says about it */
	const char *path;
	uint32_t flags;
	uint64_t advice;
	uint32_t known; /* VMA_*: what else is known about it */
	int protection;
	/* what criu does with it */
	enum vma_content content;
	enum vma_pages pages;
	enum vma_zeros zeros;
	enum vma_maker maker;
	unsigned traits;
} rows[] = {
	{ "anonymous, private", "", PRIVATE, 0, 0, PROT_READ | PROT_WRITE, CONTENT_OF_TASK, SAVE_OWN,
	  ZEROS_ARE_LEFT_OUT, MADE_BY_RESTORE, ANONYMOUS },
	{ "anonymous, with a name", "[anon:heap of mine]", PRIVATE, 0, 0, PROT_READ | PROT_WRITE,
	  CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_LEFT_OUT, MADE_BY_RESTORE, ANONYMOUS },
	{ "the heap", "[heap]", PRIVATE, 0, 0, PROT_READ | PROT_WRITE, CONTENT_OF_TASK, SAVE_OWN,
	  ZEROS_ARE_LEFT_OUT, MADE_BY_RESTORE, ANONYMOUS },
	{ "the stack", "[stack]", PRIVATE | MAP_GROWSDOWN, 0, 0, PROT_READ | PROT_WRITE, CONTENT_OF_TASK,
	  SAVE_OWN, ZEROS_ARE_LEFT_OUT, MADE_BY_RESTORE, ANONYMOUS },
	{ "another one that grows", "", PRIVATE | MAP_GROWSDOWN, 0, 0, PROT_READ | PROT_WRITE,
	  CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_LEFT_OUT, MADE_BY_RESTORE, ANONYMOUS },
	{ "PROT_NONE", "", PRIVATE, 0, 0, PROT_NONE, CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_LEFT_OUT,
	  MADE_BY_RESTORE, ANONYMOUS },
	{ "not reserved, locked", "", PRIVATE | MAP_NORESERVE | MAP_LOCKED, 0, 0, PROT_READ | PROT_WRITE,
	  CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_LEFT_OUT, MADE_BY_RESTORE, ANONYMOUS },
	{ "MADV_DONTFORK", "", PRIVATE, ADVICE(MADV_DONTFORK), 0, PROT_READ | PROT_WRITE, CONTENT_OF_TASK,
	  SAVE_OWN, ZEROS_ARE_LEFT_OUT, MADE_BY_RESTORE, ANONYMOUS },
	{ "MADV_WIPEONFORK", "", PRIVATE, ADVICE(MADV_WIPEONFORK), 0, PROT_READ | PROT_WRITE, CONTENT_OF_TASK,
	  SAVE_OWN, ZEROS_ARE_LEFT_OUT, MADE_BY_RESTORE, ANONYMOUS },
	{ "MAP_DROPPABLE", "", MAP_DROPPABLE, ADVICE(MADV_WIPEONFORK), 0, PROT_READ | PROT_WRITE,
	  CONTENT_OF_TASK, SAVE_NOTHING, ZEROS_ARE_SAVED, MADE_BY_RESTORE, INHERITED },
	{ "anonymous, private, huge pages", "/anon_hugepage (deleted)", PRIVATE | MAP_HUGETLB, 0, 0,
	  PROT_READ | PROT_WRITE, CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_LEFT_OUT_OF_HUGE_PAGES,
	  MADE_BY_RESTORE, INHERITED },

	{ "a private file", "/lib/libc.so.6", PRIVATE, 0, 0, PROT_READ, CONTENT_OF_TASK, SAVE_OWN,
	  ZEROS_ARE_SAVED, MADE_BY_RESTORE, OWN_COPY },
	{ "a private file, huge pages", "/huge/file", PRIVATE | MAP_HUGETLB, 0, 0, PROT_READ | PROT_WRITE,
	  CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_SAVED, MADE_BY_RESTORE, OVER_FILE | INHERITED },
	{ "a private memfd", "/memfd:one (deleted)", PRIVATE, 0, VMA_MEMFD, PROT_READ, CONTENT_OF_TASK,
	  SAVE_OWN, ZEROS_ARE_SAVED, MADE_BY_RESTORE, OWN_COPY },
	{ "a private memfd, huge pages", "/memfd:one (deleted)", PRIVATE | MAP_HUGETLB, 0, VMA_MEMFD,
	  PROT_READ, CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_SAVED, MADE_BY_RESTORE, OVER_FILE | INHERITED },
	{ "a private copy of shared memory", "/dev/zero (deleted)", PRIVATE, 0, VMA_MEMFD, PROT_READ,
	  CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_SAVED, MADE_BY_RESTORE, OWN_COPY },

	{ "a shared file", "/var/data", SHARED, 0, 0, PROT_READ | PROT_WRITE, CONTENT_OF_FILE, SAVE_NOTHING,
	  ZEROS_ARE_SAVED, MADE_BY_RESTORE, 0 },
	{ "an io_uring", "anon_inode:[io_uring]", SHARED, 0, 0, PROT_READ | PROT_WRITE, CONTENT_OF_FILE,
	  SAVE_NOTHING, ZEROS_ARE_SAVED, MADE_BY_RESTORE, 0 },
	{ "the ring of a packet socket", "socket:[4711]", SHARED, 0, 0, PROT_READ | PROT_WRITE,
	  CONTENT_OF_FILE, SAVE_NOTHING, ZEROS_ARE_SAVED, MADE_BY_RESTORE, 0 },
	{ "a shared file, huge pages", "/huge/file", SHARED | MAP_HUGETLB, 0, 0, PROT_READ | PROT_WRITE,
	  CONTENT_OF_FILE, SAVE_NOTHING, ZEROS_ARE_SAVED, MADE_BY_RESTORE, 0 },
	{ "a shared memfd", "/memfd:one (deleted)", SHARED, 0, VMA_MEMFD, PROT_READ | PROT_WRITE,
	  CONTENT_OF_OBJECT, SAVE_NOTHING, ZEROS_ARE_SAVED, MADE_BY_RESTORE, HUGE_AGAIN },
	{ "a shared memfd, huge pages", "/memfd:one (deleted)", SHARED | MAP_HUGETLB, 0, VMA_MEMFD, PROT_READ,
	  CONTENT_OF_OBJECT, SAVE_NOTHING, ZEROS_ARE_SAVED, MADE_BY_RESTORE, 0 },
	{ "anonymous, shared", "/dev/zero (deleted)", SHARED, 0, 0, PROT_READ | PROT_WRITE, CONTENT_OF_OBJECT,
	  SAVE_NOTHING, ZEROS_ARE_SAVED, MADE_BY_RESTORE, HUGE_AGAIN },
	{ "anonymous, shared, with a name", "[anon_shmem:mine]", SHARED, 0, 0, PROT_READ | PROT_WRITE,
	  CONTENT_OF_OBJECT, SAVE_NOTHING, ZEROS_ARE_SAVED, MADE_BY_RESTORE, HUGE_AGAIN },
	{ "anonymous, shared, huge pages", "/anon_hugepage (deleted)", SHARED | MAP_HUGETLB, 0, 0, PROT_READ,
	  CONTENT_OF_OBJECT, SAVE_NOTHING, ZEROS_ARE_SAVED, MADE_BY_RESTORE, 0 },

	{ "an AIO ring", "/[aio] (deleted)", SHARED, 0, 0, PROT_READ | PROT_WRITE, CONTENT_OF_TASK, SAVE_ALL,
	  ZEROS_ARE_SAVED, MADE_BY_RESTORE, 0 },
	{ "the vdso", "[vdso]", PRIVATE, 0, 0, PROT_READ | PROT_EXEC, CONTENT_OF_TASK, SAVE_ALL,
	  ZEROS_ARE_SAVED, MADE_BY_KERNEL, 0 },
	{ "vvar", "[vvar]", PRIVATE, 0, 0, PROT_READ, CONTENT_OF_KERNEL, SAVE_NOTHING, ZEROS_ARE_SAVED,
	  MADE_BY_KERNEL, 0 },
	{ "vvar of clocks", "[vvar_vclock]", PRIVATE, 0, 0, PROT_READ, CONTENT_OF_KERNEL, SAVE_NOTHING,
	  ZEROS_ARE_SAVED, MADE_BY_KERNEL, 0 },
	{ "vsyscall", "[vsyscall]", PRIVATE, 0, 0, PROT_EXEC, CONTENT_OF_KERNEL, SAVE_NOTHING,
	  ZEROS_ARE_SAVED, ALWAYS_THERE, 0 },
	{ "a guard region", NULL, 0, 0, VMA_GUARD_RANGE, 0, CONTENT_OF_KERNEL, SAVE_NOTHING, ZEROS_ARE_SAVED,
	  IS_PART, 0 },
};

static unsigned traits_of(const struct vma_saving *saving)
{
	return (saving->is_over_file ? OVER_FILE : 0) | (saving->is_lazy ? LAZY : 0) |
	       (saving->is_noted ? NOTED : 0) | (saving->is_protected ? PROTECTED : 0) |
	       (saving->is_inherited ? INHERITED : 0) | (saving->regains_huge_pages ? HUGE_AGAIN : 0);
}

static void each_kind(void **state unused)
{
	for (size_t i = 0; i < array_size(rows); i++) {
		struct vma vma = {
			.path = (char *)rows[i].path,
			.flags = rows[i].flags,
			.advice = rows[i].advice,
			.protection = rows[i].protection,
			.status = rows[i].known,
		};
		const struct vma_saving *saving;
		const char *refusal = NULL;

		if (vma.path)
			vma.status |= vma_recognize(&vma, &refusal);
		saving = vma_how_saved(&vma);
		if (refusal || saving->content != rows[i].content || saving->pages != rows[i].pages ||
		    saving->zeros != rows[i].zeros || saving->maker != rows[i].maker ||
		    traits_of(saving) != rows[i].traits)
			fail_msg("%s is saved as %s", rows[i].what, refusal ?: saving->name);
	}
}

/* Mappings that a dump refuses, by their names; and mappings in images that are refused, by their status. */
static void refused(void **state unused)
{
	const struct vma by_name[] = {
		{ .path = "anon_inode:[perf_event]", .flags = SHARED },
		{ .path = "[uprobes]", .flags = PRIVATE },
		{ .path = "", .flags = SHARED },
		{ .path = "", .flags = PRIVATE, .status = VMA_SHADOW_STACK },
		{ .path = "", .flags = PRIVATE, .unknown = "memory with tags" },
	};
	const uint32_t by_status[] = {
		0,
		VMA_REGULAR,
		VMA_REGULAR | VMA_SYSV_IPC | VMA_FILE_SHARED,
		VMA_REGULAR | VMA_SOCKET | VMA_FILE_SHARED,
		VMA_REGULAR | VMA_SHADOW_STACK | VMA_ANON_PRIVATE,
		VMA_REGULAR | VMA_UPROBES | VMA_ANON_PRIVATE,
		VMA_SOCKET | VMA_AIO_RING,
		VMA_REGULAR | VMA_ANON_PRIVATE | VMA_FILE_SHARED, /* two kinds at the same time */
		VMA_REGULAR | VMA_ANON_PRIVATE | VMA_MEMFD,
	};

	for (size_t i = 0; i < array_size(by_name); i++) {
		const char *refusal;

		assert_int_equal(vma_recognize(&by_name[i], &refusal), 0);
		assert_non_null(refusal);
	}
	for (size_t i = 0; i < array_size(by_status); i++) {
		struct vma vma = { .status = by_status[i], .flags = PRIVATE };

		assert_int_equal(vma_how_saved(&vma)->content, CONTENT_NOT_SUPPORTED);
		assert_int_equal(vma_how_saved(&vma)->pages, SAVE_NOTHING);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind),
		cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
