/*
 * saving.c - two tables: the kind of a mapping, by the name that the kernel gives it; and how each kind is saved and
 * restored.
 */
#include <string.h>
#include "base/memory.h"
#include "memory/saving.h"

/* ---- what a mapping is ---- */

/* Names of mappings that are not ordinary files. First match wins. `refusal` NULL: it is saved. */
static const struct {
	const char *prefix;
	uint32_t status;
	const char *refusal;
} special_names[] = {
	{ "[vsyscall]", VMA_VSYSCALL | VMA_ANON_PRIVATE, NULL },
	{ "[vdso]", VMA_REGULAR | VMA_VDSO | VMA_ANON_PRIVATE, NULL },
	{ "[vvar", VMA_REGULAR | VMA_VVAR | VMA_ANON_PRIVATE, NULL }, /* also [vvar_vclock]: Linux 6.13 */
	{ "[heap]", VMA_REGULAR | VMA_HEAP | VMA_ANON_PRIVATE, NULL },
	{ "[stack]", VMA_REGULAR | VMA_ANON_PRIVATE, NULL },
	{ "[anon:", VMA_REGULAR | VMA_ANON_PRIVATE, NULL },
	{ "[uprobes]", 0, "uprobes" },
	{ "/[aio]", VMA_AIO_RING, NULL },
	{ "/dev/zero (deleted)", VMA_REGULAR | VMA_ANON_SHARED, NULL },
	{ "[anon_shmem:", VMA_REGULAR | VMA_ANON_SHARED, NULL },
	{ "/SYSV", VMA_REGULAR | VMA_ANON_SHARED | VMA_SYSV_IPC, NULL },
	{ "anon_inode:[io_uring]", VMA_REGULAR | VMA_FILE_SHARED, NULL },
	{ "anon_inode:", 0, "mappings of kernel objects (perf, …)" },
	{ "socket:", VMA_REGULAR | VMA_SOCKET, NULL }, /* dump/rings.c refuses others than packet sockets */
};

/* hugetlbfs gives a file to anonymous memory, too. */
static bool is_anonymous_huge(const struct vma *vma)
{
	return vma->flags & MAP_HUGETLB && !strcmp(vma->path, "/anon_hugepage (deleted)");
}

static uint32_t recognize_by_name(const struct vma *vma, const char **refusal)
{
	bool is_shared = vma->flags & MAP_SHARED;

	for (size_t i = 0; i < array_size(special_names); i++) {
		if (special_names[i].status & VMA_ANON_SHARED && !is_shared)
			continue; /* a private mapping of shared memory is saved like one of a file */
		if (special_names[i].status & VMA_SYSV_IPC && !strstr(vma->path, " (deleted)"))
			continue; /* a file in the root directory */
		if (strncmp(vma->path, special_names[i].prefix, strlen(special_names[i].prefix)))
			continue;
		*refusal = special_names[i].refusal;
		return special_names[i].status;
	}
	if (vma->path[0])
		return VMA_REGULAR | (is_shared ? VMA_FILE_SHARED : VMA_FILE_PRIVATE);
	if (is_shared)
		*refusal = "shared memory without a name";
	return is_shared ? 0 : VMA_REGULAR | VMA_ANON_PRIVATE;
}

uint32_t vma_recognize(const struct vma *vma, const char **refusal)
{
	*refusal = vma->status & VMA_SHADOW_STACK ? "shadow stacks" : vma->unknown;
	if (*refusal)
		return 0;
	if (is_anonymous_huge(vma))
		return VMA_REGULAR | (vma->flags & MAP_SHARED ? VMA_ANON_SHARED : VMA_ANON_PRIVATE);
	return recognize_by_name(vma, refusal);
}

/* ---- how it is saved ---- */

/* The bits that distinguish kinds of mappings. VMA_REGULAR, VMA_STACK and VMA_HEAP make no difference. */
#define KINDS                                                                                                \
	(VMA_VSYSCALL | VMA_VDSO | VMA_FILE_PRIVATE | VMA_FILE_SHARED | VMA_ANON_SHARED | VMA_ANON_PRIVATE | \
	 VMA_SYSV_IPC | VMA_SOCKET | VMA_VVAR | VMA_AIO_RING | VMA_MEMFD | VMA_SHADOW_STACK |                \
	 VMA_GUARD_RANGE | VMA_UPROBES)
#define FLAGS (MAP_HUGETLB | MAP_DROPPABLE)

/*
 * A row is for mappings with this bit, whatever other bits they have; or for those with exactly these bits of KINDS and
 * FLAGS.
 */
#define WITH(bit)	  .kinds = (bit), .status = (bit), .flag_mask = 0, .flag_bits = 0
#define ONLY(bits, flags) .kinds = KINDS, .status = (bits), .flag_mask = FLAGS, .flag_bits = (flags)

/*
 * First match wins. Neither this criu nor others write images with a combination that is in no row.
 *
 * Pages of zeros are left out if a missing page reads as zeros; not over a file. The vdso's pages are saved because
 * they tell which vdso the task's pointers lead into. The kernel writes to an AIO ring, and fork() does not copy it.
 * Memory that the kernel may drop (MAP_DROPPABLE) holds states of getrandom(): restored twice, they would give the same
 * numbers twice. The task expects zeros there. Transparent huge pages in private mappings of files belong to the file.
 */
static const struct row {
	uint32_t kinds, status;	       /* vma->status & kinds == status */
	uint32_t flag_mask, flag_bits; /* vma->flags & flag_mask == flag_bits */
	struct vma_saving saving;
} rows[] = {
	{ ONLY(VMA_ANON_PRIVATE, 0),
	  { "anonymous private memory", CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_LEFT_OUT, .is_lazy = true,
	    .is_noted = true, .is_protected = true, .is_inherited = true, .regains_huge_pages = true } },
	{ ONLY(VMA_FILE_PRIVATE, 0),
	  { "a private mapping of a file", CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_SAVED, .is_over_file = true,
	    .is_noted = true, .is_inherited = true } },
	{ ONLY(VMA_FILE_SHARED, 0), { "a shared mapping of a file", CONTENT_OF_FILE } },
	{ ONLY(VMA_SOCKET, 0), { "the ring of a packet socket", CONTENT_OF_FILE } },
	{ ONLY(VMA_FILE_PRIVATE | VMA_MEMFD, 0),
	  { "a private mapping of a memfd", CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_SAVED, .is_over_file = true,
	    .is_noted = true, .is_inherited = true } },
	{ ONLY(VMA_FILE_SHARED | VMA_MEMFD, 0),
	  { "a shared mapping of a memfd", CONTENT_OF_OBJECT, .regains_huge_pages = true } },
	{ ONLY(VMA_ANON_SHARED, 0),
	  { "anonymous shared memory", CONTENT_OF_OBJECT, .regains_huge_pages = true } },
	{ ONLY(VMA_ANON_SHARED | VMA_SYSV_IPC, 0),
	  { "System V shared memory", CONTENT_OF_OBJECT, .regains_huge_pages = true } },
	{ ONLY(VMA_ANON_PRIVATE, MAP_DROPPABLE),
	  { "memory that the kernel may drop", CONTENT_OF_TASK, SAVE_NOTHING, .is_inherited = true } },

	{ ONLY(VMA_ANON_PRIVATE, MAP_HUGETLB),
	  { "anonymous private memory in huge pages", CONTENT_OF_TASK, SAVE_OWN,
	    ZEROS_ARE_LEFT_OUT_OF_HUGE_PAGES, .is_inherited = true } },
	{ ONLY(VMA_FILE_PRIVATE, MAP_HUGETLB),
	  { "a private mapping of a file in huge pages", CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_SAVED,
	    .is_over_file = true, .is_inherited = true } },
	{ ONLY(VMA_FILE_SHARED, MAP_HUGETLB),
	  { "a shared mapping of a file in huge pages", CONTENT_OF_FILE } },
	{ ONLY(VMA_FILE_PRIVATE | VMA_MEMFD, MAP_HUGETLB),
	  { "a private mapping of a memfd in huge pages", CONTENT_OF_TASK, SAVE_OWN, ZEROS_ARE_SAVED,
	    .is_over_file = true, .is_inherited = true } },
	{ ONLY(VMA_FILE_SHARED | VMA_MEMFD, MAP_HUGETLB),
	  { "a shared mapping of a memfd in huge pages", CONTENT_OF_OBJECT } },
	{ ONLY(VMA_ANON_SHARED, MAP_HUGETLB),
	  { "anonymous shared memory in huge pages", CONTENT_OF_OBJECT } },
	{ ONLY(VMA_ANON_SHARED | VMA_SYSV_IPC, MAP_HUGETLB),
	  { "System V shared memory in huge pages", CONTENT_OF_OBJECT } },

	{ WITH(VMA_VSYSCALL), { "the vsyscall page", CONTENT_OF_KERNEL, .maker = ALWAYS_THERE } },
	{ WITH(VMA_GUARD_RANGE), { "a guard region", CONTENT_OF_KERNEL, .maker = IS_PART } },
	{ WITH(VMA_SOCKET), { "a mapping of a socket", CONTENT_NOT_SUPPORTED } },
	{ WITH(VMA_SHADOW_STACK), { "a shadow stack", CONTENT_NOT_SUPPORTED } },
	{ WITH(VMA_UPROBES), { "the page of uprobes", CONTENT_NOT_SUPPORTED } },
	{ WITH(VMA_VVAR), { "the vvar pages", CONTENT_OF_KERNEL, .maker = MADE_BY_KERNEL } },
	{ WITH(VMA_VDSO),
	  { "the vdso", CONTENT_OF_TASK, SAVE_ALL, ZEROS_ARE_SAVED, .maker = MADE_BY_KERNEL } },
	{ WITH(VMA_AIO_RING), { "an AIO ring", CONTENT_OF_TASK, SAVE_ALL, ZEROS_ARE_SAVED } },

	/* the rest */
	{ .saving = { "of no kind that is known", CONTENT_NOT_SUPPORTED } },
};

const struct vma_saving *vma_how_saved(const struct vma *vma)
{
	const struct row *row = rows;

	while ((vma->status & row->kinds) != row->status || (vma->flags & row->flag_mask) != row->flag_bits)
		row++;
	return &row->saving;
}
