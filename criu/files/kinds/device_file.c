/*
 * device_file.c - devices that are opened again by their path. See device_file.h; files/devices.h tells which.
 *
 * A path in /dev may lead to another device at the restore. So the image has the number of the device and, of a block
 * device, its size.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/devices.h"
#include "files/kinds/device_file.h"
#include "files/words.h"
#include "image/message.h"

/* A loop device with this attribute loses its file when the last process closes it. */
static bool is_cleared_when_closed(const struct stat *device)
{
	autofree char *path = format_text("/sys/dev/block/%u:%u/loop/autoclear", major(device->st_rdev),
					  minor(device->st_rdev));
	autofree char *text = NULL;

	return read_text_at(-1, path, &text) > 0 && text[0] == '1';
}

static int describe_block(const struct snapshot *snapshot, const struct seen_file *seen, RegFileEntry *entry)
{
	autoclose int fd = files_borrow(seen);
	uint64_t size;

	if (fd < 0)
		return fd;
	if (ioctl(fd, BLKGETSIZE64, &size) < 0)
		return fail(errno, "cannot read the size of %s", seen->link);
	message_set(entry, device_size, size);
	if (!is_cleared_when_closed(&seen->stat) || snapshot->policy.leave_running ||
	    snapshot->policy.leave_stopped)
		return 0;
	fail_advice("keep it open in another process");
	return refuse_file(seen, "it would lose its file when the processes end (losetup -d, autoclear)");
}

static bool is_at(const char *path, const struct stat *device)
{
	struct stat found;

	return stat(path, &found) == 0 && (found.st_mode & S_IFMT) == (device->st_mode & S_IFMT) &&
	       found.st_rdev == device->st_rdev;
}

/* Gives the entry another path to the device, which may have other permissions. False: there is none. */
static bool use_other_path(const struct stat *device, RegFileEntry *entry)
{
	char *path = is_at(entry->name, device) ? copy_text(entry->name) : device_find_path(device);
	struct stat found;

	if (!path)
		return false;
	free(entry->name);
	entry->name = path;
	if (stat(path, &found) == 0)
		entry->mode = found.st_mode;
	return true;
}

/* /dev/null of another mount namespace is as good as ours. */
static int find_path(const struct snapshot *snapshot, const struct seen_file *seen, RegFileEntry *entry)
{
	if (seen->is_at_path || is_at(seen->link, &seen->stat))
		return 0;
	if (!snapshot->policy.evades_devices) {
		fail_advice("--evasive-devices, to use any path of the device");
		return refuse_file(seen, "its path no longer leads to this file");
	}
	return use_other_path(&seen->stat, entry) ? 0 : refuse_file(seen, "no path leads to this device");
}

int device_file_describe(const struct snapshot *snapshot, const struct seen_file *seen, RegFileEntry *entry)
{
	int result = find_path(snapshot, seen, entry);

	message_set(entry, rdev, seen->stat.st_rdev);
	if (result || seen->fd < 0 || !S_ISBLK(seen->stat.st_mode))
		return result;
	return describe_block(snapshot, seen, entry);
}

/* ---- restore ---- */

void device_file_evade(const struct snapshot *snapshot, RegFileEntry *entry)
{
	const struct stat device = { .st_mode = entry->mode, .st_rdev = entry->rdev };

	if (!snapshot->policy.evades_devices || !entry->has_rdev || !entry->has_mode || !is_device(&device) ||
	    entry->flags & O_PATH || is_at(entry->name, &device))
		return;
	if (use_other_path(&device, entry))
		log_info("file %u: the device is opened as %s", entry->id, entry->name);
}

static int check_size(const RegFileEntry *entry)
{
	autoclose int fd = open(entry->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	uint64_t size;

	if (fd < 0)
		return fail(errno, "cannot open %s", entry->name);
	if (ioctl(fd, BLKGETSIZE64, &size) < 0)
		return fail(errno, "cannot read the size of %s", entry->name);
	if (size != entry->device_size)
		return fail(EINVAL,
			    "the device %s has %llu bytes now and had %llu when the process was dumped",
			    entry->name, (unsigned long long)size, (unsigned long long)entry->device_size);
	return 0;
}

int device_file_check(const RegFileEntry *entry, const struct stat *found)
{
	const struct stat before = { .st_mode = found->st_mode, .st_rdev = entry->rdev };

	if (!is_device(found) || entry->flags & O_PATH)
		return 0;
	if (entry->has_rdev && entry->rdev != found->st_rdev &&
	    !(device_number_is_dynamic(found) && device_number_is_dynamic(&before))) {
		fail_advice("--evasive-devices, to use any path of the device");
		return fail(EINVAL, "%s is the device %u:%u now and was %u:%u when the process was dumped",
			    entry->name, major(found->st_rdev), minor(found->st_rdev), major(before.st_rdev),
			    minor(before.st_rdev));
	}
	return S_ISBLK(found->st_mode) && entry->has_device_size ? check_size(entry) : 0;
}
