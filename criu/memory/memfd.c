/*
 * memfd.c - names, owners, modes and seals of shared memory. See memfd.h.
 *
 * A memfd is in an internal mount of the kernel, one for ordinary pages and one for each size of huge pages. That
 * distinguishes it from a deleted file called "/memfd:…".
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "image/message.h"
#include "kernel_constants.h"
#include "memory/huge.h"
#include "memory/memfd.h"
#include "model/inode.h"

#define PREFIX	     "/memfd:"
#define SUFFIX	     " (deleted)"
#define LONGEST_NAME 249 /* memfd_create(2) */
#define ALL_SEALS \
	(F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC)

/* The kernel's names for memory without a name. */
static const char *const nameless[] = { "/dev/zero", "/anon_hugepage" };

static bool is_nameless(const char *name)
{
	for (size_t i = 0; i < array_size(nameless); i++)
		if (!strcmp(name, nameless[i]))
			return true;
	return false;
}

/* The text before " (deleted)", allocated; NULL: the link does not end so. */
static char *without_suffix(const char *link)
{
	size_t length = strlen(link), suffix = strlen(SUFFIX);
	char *name;

	if (length < suffix || strcmp(link + length - suffix, SUFFIX))
		return NULL;
	name = copy_text(link);
	name[length - suffix] = '\0';
	return name;
}

bool memfd_is_link(const char *link)
{
	autofree char *name = without_suffix(link);

	return name && (!strncmp(name, PREFIX, strlen(PREFIX)) || is_nameless(name));
}

/* ---- dump ---- */

/* 0: criu can make none. */
static int find_device(uint64_t page_size, dev_t *device)
{
	autoclose int memfd = memfd_create("criu",
					   MFD_CLOEXEC | (page_size ? huge_memfd_flags(page_size) : 0));
	struct stat found;

	if (memfd < 0 && (errno == EMFILE || errno == ENFILE))
		return fail(errno, "cannot create a memfd");
	*device = memfd >= 0 && fstat(memfd, &found) == 0 ? found.st_dev : 0;
	return 0;
}

int memfd_is_in_own_mount(const struct snapshot *snapshot, const struct shared_memory *object)
{
	struct shared_memories *all = shared_memories_of(snapshot);
	dev_t huge = 0, *device = object->page_size ? &huge : &all->memfd_device;
	int result = *device ? 0 : find_device(object->page_size, device);

	return result ?: *device && *device == object->device;
}

int memfd_describe(struct snapshot *snapshot, struct shared_memory *object, const char *link)
{
	struct shared_memories *all = shared_memories_of(snapshot);
	autofree char *name = without_suffix(link);
	bool is_named = !strncmp(name, PREFIX, strlen(PREFIX));
	MemfdInodeEntry *entry;
	struct stat found;
	int seals, is_own;

	if (object->memfd)
		return 0;
	is_own = memfd_is_in_own_mount(snapshot, object);
	if (is_own <= 0)
		return is_own < 0 ? is_own : 1;
	seals = fcntl(object->fd, F_GET_SEALS);
	if (seals < 0 || fstat(object->fd, &found) < 0)
		return fail(errno, "cannot read the seals of %s", link);
	if (seals & ~ALL_SEALS)
		return fail(0, "%s has unknown seals (%#x)", link, seals);
	object->is_anonymous = !is_named;
	entry = object->memfd = message_new(MemfdInodeEntry, memfd_inode_entry);
	entry->inode_id = object - all->items + 1;
	index_set(&all->memfds, entry->inode_id, (void *)(uintptr_t)entry->inode_id);
	entry->name = copy_text(is_named ? name + strlen(PREFIX) : name);
	entry->uid = found.st_uid;
	entry->gid = found.st_gid;
	entry->size = object->size;
	entry->shmid = object->id;
	entry->seals = seals;
	message_set(entry, mode, found.st_mode);
	entry->times = inode_times(&found);
	if (object->page_size)
		message_set(entry, hugetlb_flag, huge_memfd_flags(object->page_size));
	if (is_named && is_nameless(entry->name))
		message_set(entry, is_named, true);
	return 0;
}

int memfd_save(struct snapshot *snapshot)
{
	struct image *image = NULL;
	const struct shared_memories *all = shared_memories_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < all->count; i++) {
		const MemfdInodeEntry *entry = all->items[i].memfd;

		if (entry && !image)
			result = image_create(snapshot->images, &image, IMAGE_MEMFD_INODE, 0);
		if (entry && !result)
			result = image_write(image, &entry->base);
	}
	return image ? image_close(image) ?: result : result;
}

/* ---- restore ---- */

struct shared_memory *memfd_find(const struct snapshot *snapshot, uint64_t number)
{
	const struct shared_memories *all = shared_memories_of(snapshot);
	uintptr_t found = (uintptr_t)index_find(&all->memfds, number);

	return found ? &all->items[found - 1] : NULL;
}

/* NULL: all of it is possible. */
static const char *find_invalid_part(const MemfdInodeEntry *entry, uint64_t page_size)
{
	uint32_t mode = entry->has_mode ? entry->mode : S_IFREG;

	if (!S_ISREG(mode) || mode & ~(S_IFMT | 07777))
		return "mode";
	if (entry->size > INT64_MAX - PAGE_SIZE)
		return "size";
	if (entry->seals & ~ALL_SEALS)
		return "seals";
	if (entry->uid == UINT32_MAX || entry->gid == UINT32_MAX)
		return "owner";
	if (strlen(entry->name) > LONGEST_NAME)
		return "name";
	if (!inode_times_are_possible(entry->times))
		return "time";
	if (entry->hugetlb_flag &&
	    (!page_size || entry->size % page_size || entry->hugetlb_flag & ~(MFD_HUGETLB | VMA_HUGE_SIZE) ||
	     !(entry->hugetlb_flag & MFD_HUGETLB)))
		return "size of its pages";
	return NULL;
}

static int check_memfd_entry(const MemfdInodeEntry *entry, uint64_t page_size)
{
	const char *wrong = find_invalid_part(entry, page_size);

	return wrong ? fail(EINVAL, "memfd.img: memory %" PRIu64 " (%.249s) has an invalid %s",
			    entry->inode_id, entry->name, wrong) :
		       0;
}

static int add_memfd_entry(struct snapshot *snapshot, MemfdInodeEntry *entry)
{
	struct shared_memories *all = shared_memories_of(snapshot);
	uint64_t page_size = entry->hugetlb_flag ? huge_page_size(entry->hugetlb_flag) : 0;
	int result = check_memfd_entry(entry, page_size);
	struct shared_memory *object;

	if (!result && (memfd_find(snapshot, entry->inode_id) || shared_memory_find(snapshot, entry->shmid)))
		result = fail(EINVAL, "memfd.img: memory %" PRIu64 " occurs twice", entry->inode_id);
	if (result) {
		image_free(entry);
		return result;
	}
	object = shared_memory_new(snapshot, entry->shmid);
	index_set(&all->memfds, entry->inode_id, (void *)all->count);
	object->size = entry->size;
	object->has_size = true;
	object->page_size = page_size;
	object->is_anonymous = is_nameless(entry->name) && !entry->is_named && entry->size;
	object->memfd = entry;
	return 0;
}

int memfd_load(struct snapshot *snapshot)
{
	struct image *image;
	MemfdInodeEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_MEMFD_INODE, 0);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(image, memfd_inode_entry, &entry)) > 0) {
		result = add_memfd_entry(snapshot, entry);
		if (result)
			break;
	}
	image_close_read(image);
	return result;
}

/* Since Linux 6.3 the caller has to say whether it may be executed (vm.memfd_noexec). */
static int create(const MemfdInodeEntry *entry, unsigned flags)
{
	bool may_run = entry->has_mode && entry->mode & 0111;
	bool is_never_run = entry->seals & F_SEAL_EXEC && !may_run;
	int fd = memfd_create(entry->name, flags | (is_never_run ? MFD_NOEXEC_SEAL : MFD_EXEC));

	return fd < 0 && errno == EINVAL && !is_never_run ? memfd_create(entry->name, flags) : fd;
}

int memfd_make(struct shared_memory *object)
{
	const MemfdInodeEntry *entry = object->memfd;
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING |
			 (object->page_size ? huge_memfd_flags(object->page_size) : 0);

	object->fd = create(entry, flags);
	if (object->fd < 0)
		return fail(errno, "cannot create memfd %s", entry->name);
	if (ftruncate(object->fd, entry->size) < 0)
		return fail(errno, "cannot give memfd %s its size of %" PRIu64 " bytes", entry->name,
			    entry->size);
	return 0;
}

/* Times come last, because mapping and filling change them. */
int memfd_seal(const struct shared_memory *object)
{
	const MemfdInodeEntry *entry = object->memfd;
	uint32_t mode = entry->mode & 07777;
	int seals = fcntl(object->fd, F_GET_SEALS);

	if (seals < 0)
		return fail(errno, "cannot stat memfd %s", entry->name);
	if (inode_set_owner(object->fd, entry->uid, entry->gid) < 0)
		return fail(errno, "cannot give memfd %s to user %u", entry->name, entry->uid);
	if (entry->has_mode && inode_set_mode(object->fd, mode) < 0)
		return fail(errno, "cannot give memfd %s its mode %o", entry->name, mode);
	if ((uint32_t)seals != entry->seals && fcntl(object->fd, F_ADD_SEALS, entry->seals) < 0)
		return fail(errno, "cannot seal memfd %s (%#x)", entry->name, entry->seals);
	if (inode_set_times(object->fd, entry->times) < 0)
		return fail(errno, "cannot set the times of memfd %s", entry->name);
	return 0;
}
