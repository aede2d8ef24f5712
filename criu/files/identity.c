/*
 * identity.c - dump: finds out which descriptors are one open file, and reads what is known about each. See seen.h.
 *
 * The tree is that of tsearch(3), which glibc balances. The file position is not part of the key, because a process
 * outside of the tree that shares an open file may move it at any time.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kind.h"
#include "kernel/file_lister.h"
#include "kernel_constants.h"

void seen_file_free(struct seen_file *seen)
{
	free(seen->link);
	free(seen->info.rest);
	free(seen->lines);
}

char *seen_file_place(const struct seen_file *seen)
{
	return format_text("/proc/self/fd/%d/%s", seen->holder.proc, seen->place);
}

static int cannot_borrow(const struct seen_file *seen)
{
	return fail(errno, "cannot get descriptor %d of process %d", seen->fd, seen->holder.here);
}

int files_borrow(const struct seen_file *seen)
{
	int fd = syscall(SYS_pidfd_getfd, seen->holder.pidfd, seen->fd, 0);

	return fd < 0 ? cannot_borrow(seen) : fd;
}

static int look_at_owner(int fd, struct seen_file *seen)
{
	seen->signal = fcntl(fd, F_GETSIG);
	/* An O_PATH descriptor has no owner, and cannot be examined. */
	if (seen->signal < 0 && errno == EBADF)
		return seen->signal = 0;
	if (seen->signal < 0 || fcntl(fd, F_GETOWN_EX, &seen->owner) < 0)
		return fail(errno, "cannot read the owner of descriptor %d", seen->fd);
	if (seen->owner.pid && fcntl(fd, F_GETOWNER_UIDS, seen->owner_users) < 0)
		return fail(errno, "cannot read the user of the owner of descriptor %d", seen->fd);
	return 0;
}

static bool is_in_proc(int fd)
{
	struct statfs found;

	return fstatfs(fd, &found) == 0 && found.f_type == PROC_SUPER_MAGIC;
}

/* A stat of the file itself costs half as much as a stat of its path in /proc. */
static int read_seen_file(struct seen_file *seen, const struct listed_file *listed, bool may_be_gone)
{
	autoclose int fd = syscall(SYS_pidfd_getfd, seen->holder.pidfd, seen->fd, 0);

	if (fd < 0 && errno == EBADF && may_be_gone)
		return -EBADF;
	if (fd < 0)
		return cannot_borrow(seen);
	if (fstat(fd, &seen->stat) < 0) {
		int error = errno;

		if (error != ENOENT || !is_in_proc(fd))
			return fail(error, "cannot stat descriptor %d", seen->fd);
		/* /proc/PID/fd or fdinfo of a process that has ended (seen on Linux 6.18) */
		seen->stat = (struct stat){ .st_mode = S_IFDIR | 0500, .st_nlink = 2 };
	}
	return listed && !listed->had_owner ? 0 : look_at_owner(fd, seen);
}

/* An open fdinfo shows nothing if its process has ended, and another has the pid now. */
static int read_fdinfo(struct seen_file *seen, const struct descriptor_ahead *ahead,
		       const struct listed_file *listed, bool is_known)
{
	if (!needs_fdinfo(listed, is_known)) {
		seen->info = (struct proc_fdinfo){ .position = listed->position,
						   .flags = listed->flags,
						   .mount = listed->mount };
		return 0;
	}
	if (ahead && ahead->fdinfo >= 0 && read_record_from(ahead->fdinfo, &seen->info.rest) > 0)
		return proc_parse_fdinfo(&seen->info);
	return proc_read_fdinfo(seen->holder.proc, seen->fd, &seen->info);
}

/*
 * Sets *found. The path is resolved: it ends with a symbolic link only if the link itself was opened (O_PATH |
 * O_NOFOLLOW).
 */
static bool leads_to(const char *path, struct seen_file *seen, struct statx *found)
{
	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_MNT_ID, found) < 0 ||
	    found->stx_ino != seen->stat.st_ino ||
	    makedev(found->stx_dev_major, found->stx_dev_minor) != seen->stat.st_dev)
		return false;
	seen->only_appends = found->stx_attributes & STATX_ATTR_APPEND;
	return true;
}

/* Can it have only one name in a mount? */
static bool has_one_path(const struct stat *file)
{
	return S_ISDIR(file->st_mode) || (S_ISREG(file->st_mode) && file->st_nlink == 1);
}

/*
 * If a path leads to the file in the file's mount, and the file has only one name, then it is the path. So it makes no
 * difference when it was read; reading it again would cost twice as much as stat(), which is needed in any case. A
 * link that has taken the place of the file is another file. If a directory on the way has become a link, the path is
 * not what /proc shows, but still leads to the file.
 */
static bool is_still_path(const char *path, struct seen_file *seen)
{
	struct statx found;

	return has_one_path(&seen->stat) && leads_to(path, seen, &found) && found.stx_mask & STATX_MNT_ID &&
	       (int)found.stx_mnt_id == seen->info.mount;
}

/* The file of a bound socket can only be opened with O_PATH. */
static bool is_socket(const struct seen_file *seen)
{
	return S_ISSOCK(seen->stat.st_mode) && !(seen->info.flags & O_PATH);
}

static int find_link(struct seen_file *seen, struct descriptor_ahead *ahead)
{
	struct statx found;
	ssize_t length;

	if (is_socket(seen)) {
		seen->link = format_text("socket:[%llu]", (unsigned long long)seen->stat.st_ino);
		return 0;
	}

	seen->is_at_path = ahead && ahead->link && is_still_path(ahead->link, seen);
	if (seen->is_at_path) {
		seen->link = steal_pointer(&ahead->link);
		return 0;
	}
	length = read_link_at(seen->holder.proc, seen->place, &seen->link);
	if (length < 0)
		return fail(-length, "cannot read the link of descriptor %d", seen->fd);
	seen->is_at_path = seen->link[0] == '/' && leads_to(seen->link, seen, &found);
	return 0;
}

static uint64_t read_number(const struct seen_file *seen, const char *key)
{
	const char *value = fdinfo_find(seen, key);

	return value ? strtoull(value, NULL, 10) + 1 : 0;
}

int seen_file_look(struct seen_file *seen, const struct file_holder *holder, int fd,
		   struct descriptor_ahead *ahead, const struct listed_file *listed, bool may_be_gone)
{
	int result;

	snprintf(seen->place, sizeof(seen->place), "fd/%d", fd);
	seen->holder = *holder;
	seen->fd = fd;
	seen->address = listed ? listed->file : 0;
	result = read_seen_file(seen, listed, may_be_gone)	 ?:
			 read_fdinfo(seen, ahead, listed, false) ?:
								   find_link(seen, ahead);
	if (!result)
		fdinfo_split(seen->info.rest, &seen->lines, &seen->line_count);
	if (!result && !strcmp(seen->link, "anon_inode:[eventfd]"))
		seen->number = read_number(seen, "eventfd-id");
	return result;
}

int seen_file_look_at_descriptor(struct seen_file *seen, const struct file_holder *holder, int fd,
				 struct descriptor_ahead *ahead, const struct listed_file *listed)
{
	int result;

	seen->holder = *holder;
	seen->fd = fd;
	result = read_fdinfo(seen, ahead, listed, true);
	if (!result)
		fdinfo_split(seen->info.rest, &seen->lines, &seen->line_count);
	return result;
}

bool is_same_descriptor(const pid_t pids[2], const uint64_t addresses[2], int fd)
{
	if (addresses[0] && addresses[1])
		return addresses[0] == addresses[1];
	return syscall(SYS_kcmp, pids[0], pids[1], KCMP_FILE, fd, fd) == 0;
}

bool needs_fdinfo(const struct listed_file *listed, bool is_known)
{
	return !listed || listed->had_locks || (listed->has_lines && !is_known);
}

/* ---- the tree ---- */

/* A node of the tree. */
struct identity {
	const struct seen_file *seen;
	struct file *file;
	int error; /* error of the kernel during the search for this node */
};

struct identities {
	void *root;		 /* of tsearch() */
	struct index by_address; /* files whose addresses are known */
	struct unsorted {	 /* some of those, which are not in the tree yet */
		struct identity **items;
		size_t count;
	} unsorted;
	bool has_unknown; /* the tree has files whose addresses are not known */
	void *nameless;	  /* those without an inode of their own, ordered only by the kernel */
	bool has_nameless;
	struct index by_path;	/* files known only by their path */
	struct file_holder own; /* pid 0: not filled yet */
	struct descriptors {	/* received by criu, and kept open */
		int *items;
		size_t count;
	} kept;
};

static void keep(void *node unused)
{
}

static void forget_nameless(struct identities *identities)
{
	if (identities->nameless)
		tdestroy(identities->nameless, keep);
	identities->nameless = NULL;
	identities->has_nameless = false;
}

static void free_identities(struct identities *identities)
{
	forget_nameless(identities);
	if (identities->root)
		tdestroy(identities->root, free);
	for (size_t i = 0; i < identities->unsorted.count; i++)
		free(identities->unsorted.items[i]);
	free(identities->unsorted.items);
	index_free(&identities->by_address);
	index_free(&identities->by_path);
	if (identities->own.here) {
		close(identities->own.proc);
		close(identities->own.pidfd);
	}
	for (size_t i = 0; i < identities->kept.count; i++)
		close(identities->kept.items[i]);
	free(identities->kept.items);
	*identities = (struct identities){ 0 };
}

static void clear(void *state)
{
	free_identities(state);
}

static const struct state_type identities_type = { sizeof(struct identities), clear };

static struct identities *identities_of(const struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &identities_type);
}

void files_forget_identities(struct snapshot *snapshot)
{
	free_identities(identities_of(snapshot));
}

static int order(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

/* The kernel's own order. 0: the same open file. */
static int compare_by_kernel(struct identity *wanted, const struct seen_file *other)
{
	const struct seen_file *seen = wanted->seen;
	long result = syscall(SYS_kcmp, seen->holder.here, other->holder.here, KCMP_FILE, seen->fd,
			      other->fd);

	if (result < 0)
		wanted->error = fail(errno, "cannot compare files of processes %d and %d", seen->holder.here,
				     other->holder.here);
	return result == 1 ? -1 : result == 0 ? 0 : 1;
}

/*
 * Files without an inode of their own have one in common, of mode 0: their links tell what they are. Eventfds have
 * numbers, too (Linux 5.2).
 */
static int compare_nameless(const struct seen_file *a, const struct seen_file *b)
{
	int by_link;

	if (a->stat.st_mode & S_IFMT || b->stat.st_mode & S_IFMT)
		return 0;
	by_link = strcmp(a->link, b->link);
	return by_link ?: order(a->number, b->number);
}

/* What is different for different files; 0: the kernel has to compare them. */
static int compare_keys(dev_t device, ino_t inode, const struct seen_file *b)
{
	return order(device, b->stat.st_dev) ?: order(inode, b->stat.st_ino);
}

/* tsearch() passes the key of the search first. */
static int compare_identities(const void *left, const void *right)
{
	struct identity *wanted = (struct identity *)left;
	const struct seen_file *a = wanted->seen, *b = ((const struct identity *)right)->seen;

	return compare_keys(a->stat.st_dev, a->stat.st_ino, b) ?:
		       compare_nameless(a, b)		       ?:
								 compare_by_kernel(wanted, b);
}

/* Finds an identity in the tree, or adds this one. */
static int search(struct identities *identities, struct identity *wanted, struct identity **found)
{
	struct identity **node = tsearch(wanted, &identities->root, compare_identities);

	if (!node)
		return fail(ENOMEM, "out of memory for another open file");
	*found = *node;
	return wanted->error;
}

/* Most dumps need no tree: it is only for those whose addresses are not known. */
static int sort_all(struct identities *identities)
{
	int result = 0;

	for (size_t i = 0; i < identities->unsorted.count; i++) {
		struct identity *identity = identities->unsorted.items[i], *found = NULL;

		result = search(identities, identity, &found) ?: result;
		if (found == identity)
			continue;
		if (!result)
			result = fail(EIO, "%s and %s are one open file, and have two addresses",
				      identity->seen->link, found->seen->link);
		free(identity);
	}
	free(identities->unsorted.items);
	identities->unsorted = (struct unsorted){ 0 };
	return result;
}

static struct file *add_file(struct snapshot *snapshot, struct seen_file *seen)
{
	struct identities *identities = identities_of(snapshot);
	struct file *file = snapshot_add_file(snapshot, snapshot->file_count + 1);

	forget_nameless(identities);
	file->seen = seen;
	if (seen->address)
		index_set(&identities->by_address, seen->address, file);
	else
		identities->has_unknown = true;
	return file;
}

/* Sets *file if it is known; otherwise it is in the tree, or will be, as `wanted`. */
static int find_known(struct identities *identities, struct identity *wanted, struct file **file)
{
	const uint64_t address = wanted->seen->address;
	struct identity *found = wanted;
	int result = 0;

	*file = address ? index_find(&identities->by_address, address) : NULL;
	if (*file)
		return 0;
	if (!address || identities->has_unknown) {
		result = sort_all(identities);
		result = search(identities, wanted, &found) ?: result;
	} else {
		*grow(&identities->unsorted.items, &identities->unsorted.count) = wanted;
	}
	*file = found->file;
	return result;
}

int files_identify_seen(struct snapshot *snapshot, struct seen_file *seen, struct file **file)
{
	struct identity *wanted = allocate(sizeof(*wanted));
	int result;

	wanted->seen = seen;
	result = find_known(identities_of(snapshot), wanted, file);
	if (!*file) {
		*file = wanted->file = add_file(snapshot, seen);
		return result;
	}
	free(wanted);
	seen_file_free(seen);
	free(seen);
	return result;
}

/* ---- what criu itself has received ---- */

struct file_holder file_holder_task(const struct task *task)
{
	return (struct file_holder){
		.here = task->here,
		.session = task->session,
		.name = task->name,
		.proc = task->proc,
		.pidfd = task->pidfd,
	};
}

static int become_holder(struct file_holder *own)
{
	int proc = proc_open(getpid()), pidfd = proc < 0 ? -1 : (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (pidfd < 0) {
		int error = proc < 0 ? -proc : errno;

		if (proc >= 0)
			close(proc);
		return fail(error, "cannot read criu's own open files");
	}
	*own = (struct file_holder){ .here = getpid(), .name = "criu", .proc = proc, .pidfd = pidfd };
	return 0;
}

static int look_at_own(struct snapshot *snapshot, int fd, struct seen_file *seen)
{
	struct file_holder *own = &identities_of(snapshot)->own;
	int result = own->here ? 0 : become_holder(own);

	return result ?: seen_file_look(seen, own, fd, NULL, NULL, false);
}

int files_identify(struct snapshot *snapshot, int fd, struct file **file)
{
	struct identities *identities = identities_of(snapshot);
	struct seen_file *seen = allocate(sizeof(*seen));
	size_t known = snapshot->file_count;
	int result = look_at_own(snapshot, fd, seen);

	if (result) {
		seen_file_free(seen);
		free(seen);
	} else {
		result = files_identify_seen(snapshot, seen, file);
	}
	/* Later ones are compared with this descriptor. */
	if (snapshot->file_count > known)
		*grow(&identities->kept.items, &identities->kept.count) = fd;
	else
		close(fd);
	return result;
}

/* ---- files that an epoll watches ---- */

struct wanted_target {
	const struct seen_file *epoll;
	const struct kcmp_epoll_slot *slot;
	dev_t device;
	ino_t inode;
	int error;
};

static int compare_only_by_kernel(const void *left, const void *right)
{
	return compare_by_kernel((struct identity *)left, ((const struct identity *)right)->seen);
}

struct gathering {
	struct identities *identities;
	int error;
};

static void add_nameless(const void *node, VISIT visit, void *argument)
{
	struct identity *identity = *(struct identity *const *)node;
	struct gathering *gathering = argument;

	if ((visit != postorder && visit != leaf) || identity->seen->stat.st_mode & S_IFMT)
		return;
	if (!tsearch(identity, &gathering->identities->nameless, compare_only_by_kernel))
		gathering->error = fail(ENOMEM, "out of memory for open files");
	gathering->error = identity->error ?: gathering->error;
}

/* The kernel tells less of a file that an epoll watches than of one with a descriptor. */
static int gather_nameless(struct identities *identities)
{
	struct gathering gathering = { identities, 0 };

	if (!identities->has_nameless && identities->root)
		twalk_r(identities->root, add_nameless, &gathering);
	identities->has_nameless = true;
	return gathering.error;
}

/* KCMP_EPOLL_TFD orders as KCMP_FILE does. */
static int compare_target(const void *left, const void *right)
{
	struct wanted_target *wanted = (struct wanted_target *)left;
	const struct seen_file *other = ((const struct identity *)right)->seen;
	int by_key = compare_keys(wanted->device, wanted->inode, other);
	long result;

	if (by_key)
		return by_key;
	result = syscall(SYS_kcmp, other->holder.here, wanted->epoll->holder.here, KCMP_EPOLL_TFD, other->fd,
			 wanted->slot);
	if (result < 0)
		wanted->error = fail(errno,
				     "cannot compare a file of process %d with those that an epoll watches",
				     other->holder.here);
	return result == 1 ? 1 : result == 0 ? 0 : -1;
}

int files_find_target(const struct snapshot *snapshot, const struct seen_file *epoll,
		      const struct kcmp_epoll_slot *slot, dev_t device, ino_t inode, struct file **file)
{
	struct identities *identities = identities_of(snapshot);
	struct wanted_target wanted = { .epoll = epoll, .slot = slot, .device = device, .inode = inode };
	int result = sort_all(identities);
	struct identity **found = tfind(&wanted, &identities->root, compare_target);

	if (!result && !found && !wanted.error) {
		result = gather_nameless(identities);
		found = tfind(&wanted, &identities->nameless, compare_target);
	}
	*file = found ? (*found)->file : NULL;
	return result ?: wanted.error;
}

bool files_is_target(const struct seen_file *epoll, const struct kcmp_epoll_slot *slot, pid_t holder, int fd)
{
	return syscall(SYS_kcmp, holder, epoll->holder.here, KCMP_EPOLL_TFD, fd, slot) == 0;
}

/* ---- files that are known by their paths only ---- */

static uint64_t key_of_path(const struct seen_file *seen)
{
	uint64_t key = index_mix(index_mix(seen->stat.st_dev, seen->stat.st_ino), seen->info.flags);

	for (const char *byte = seen->link; *byte; byte++)
		key = index_mix(key, (unsigned char)*byte);
	return key;
}

struct file *files_find_path(const struct snapshot *snapshot, const struct seen_file *seen, uint64_t *key)
{
	const struct index *by_path = &identities_of(snapshot)->by_path;
	struct file *file;

	for (*key = key_of_path(seen); (file = index_find(by_path, *key)); ++*key) {
		const struct seen_file *other = file->seen;

		if (other->stat.st_dev == seen->stat.st_dev && other->stat.st_ino == seen->stat.st_ino &&
		    other->info.flags == seen->info.flags && !strcmp(other->link, seen->link))
			break;
	}
	return file;
}

void files_note_path(struct snapshot *snapshot, struct file *file, uint64_t key)
{
	index_set(&identities_of(snapshot)->by_path, key, file);
}
