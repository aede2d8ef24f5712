/*
 * loop.c - an example of a plugin: open loop devices, and mappings of them.
 *
 * criu opens a block device again only for reading, because what it has is not in the images. This plugin saves what
 * makes a loop device: its file, and how it is attached. A restore opens the device if it is still attached to its
 * file. Otherwise (with LO_FLAGS_AUTOCLEAR, it was detached when the last process had ended) it attaches the file to a
 * free device, which may have another number.
 *
 * In the directory of the images:
 *	loop-device-loop3.img   struct device
 *	loop-file-ID.img        struct file
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "criu-plugin.h"

#define NAME "loop"
#define MOST 64 /* records that a dump removes if it fails */

typedef char record_name[64];

struct device {
	char file[PATH_MAX];
	struct loop_config config;
};

struct file {
	char device[32];
	int32_t flags;
	int64_t position;
};

#define problem(...) print_on_level(CRIU_LOG_ERROR, "loop: " __VA_ARGS__)

/* ---- records ---- */

static record_name written[MOST];
static int written_count;
static bool is_needed; /* CRIU 4.2 wants to hear it only once */

static int write_record(const char *name, const void *record, size_t size)
{
	int fd = openat(criu_get_image_dir(), name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
			0600);
	int result = fd < 0 || write(fd, record, size) != (ssize_t)size || fsync(fd) < 0 ? -(errno ?: EIO) :
											   0;

	if (fd >= 0)
		close(fd);
	if (fd >= 0 && written_count < MOST)
		snprintf(written[written_count++], sizeof(record_name), "%s", name);
	if (result)
		problem("cannot write %s: %s", name, strerror(-result));
	if (!result && !is_needed)
		result = add_inventory_plugin(NAME);
	is_needed |= !result;
	return result;
}

/* -ENOTSUP: there is no such record. *open: NULL, or it stays open. */
static int read_record(const char *name, void *record, size_t size, int *open)
{
	int fd = openat(criu_get_image_dir(), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool is_whole = fd >= 0 && read(fd, record, size) == (ssize_t)size;

	if (fd < 0)
		return -ENOTSUP;
	if (open && is_whole)
		*open = fd;
	else
		close(fd);
	if (!is_whole)
		problem("%s is too short", name);
	return is_whole ? 0 : -EINVAL;
}

/* ---- dump ---- */

static bool read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");
	bool is_read = file && fgets(line, size, file);

	if (file)
		fclose(file);
	if (is_read)
		line[strcspn(line, "\n")] = '\0';
	return is_read;
}

/* "loop3", if this is a loop device at its usual path, and attached to a file that has a path. */
static bool find_device(int fd, const struct stat *stat, char *name, size_t size, struct device *device)
{
	char path[64], link[PATH_MAX];
	ssize_t length;

	if (!S_ISBLK(stat->st_mode) || ioctl(fd, LOOP_GET_STATUS64, &device->config.info) < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = readlink(path, link, sizeof(link) - 1);
	link[length > 0 ? length : 0] = '\0';
	if (sscanf(link, "/dev/%31s", name) != 1 || strchr(name, '/') || strlen(name) >= size)
		return false;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/loop/backing_file", major(stat->st_rdev),
		 minor(stat->st_rdev));
	return read_line(path, device->file, sizeof(device->file)) && device->file[0] == '/';
}

/* Also writes what the kernel still has to write to the file. -ENOTSUP: it is no loop device. */
static int save_device(int fd, const struct stat *stat, char *name, size_t size)
{
	struct device device = { 0 };
	record_name record;
	int block_size;

	if (!find_device(fd, stat, name, size, &device))
		return -ENOTSUP;
	if (strstr(device.file, " (deleted)")) {
		problem("%s has a deleted file", name);
		return -EINVAL;
	}
	if (ioctl(fd, BLKSSZGET, &block_size) < 0 || fsync(fd) < 0)
		return -errno;
	device.config.block_size = block_size;
	snprintf(record, sizeof(record), "loop-device-%s.img", name);
	return write_record(record, &device, sizeof(device));
}

static int dump_file(int fd, int id)
{
	struct file file = { .flags = fcntl(fd, F_GETFL), .position = lseek(fd, 0, SEEK_CUR) };
	struct stat stat;
	record_name record;
	int result = fstat(fd, &stat) < 0 ? -errno : save_device(fd, &stat, file.device, sizeof(file.device));

	snprintf(record, sizeof(record), "loop-file-%x.img", id);
	return result ?: write_record(record, &file, sizeof(file));
}

static int handle_mapping(int fd, const struct stat *stat)
{
	char name[32];

	return save_device(fd, stat, name, sizeof(name));
}

/* ---- restore ---- */

static bool is_attached(int fd, const struct device *device)
{
	const struct loop_info64 *wanted = &device->config.info;
	struct loop_info64 found;
	struct stat file;

	return ioctl(fd, LOOP_GET_STATUS64, &found) == 0 && stat(device->file, &file) == 0 &&
	       found.lo_device == file.st_dev && found.lo_inode == file.st_ino &&
	       found.lo_offset == wanted->lo_offset && found.lo_sizelimit == wanted->lo_sizelimit;
}

static int open_attached(const char *name, const struct device *device)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && is_attached(fd, device))
		return fd;
	if (fd >= 0)
		close(fd);
	return -ENXIO;
}

/* -EBUSY: another program was faster. */
static int attach_to(int number, struct loop_config *config)
{
	char path[64];
	int fd, result;

	snprintf(path, sizeof(path), "/dev/loop%d", number);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, LOOP_CONFIGURE, config) == 0)
		return fd;
	result = -errno;
	close(fd);
	return result;
}

static int attach(struct device *device)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), result = -EBUSY;
	bool is_read_only = device->config.info.lo_flags & LO_FLAGS_READ_ONLY;
	int file = open(device->file, (is_read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	device->config.fd = file;
	while (control >= 0 && file >= 0 && result == -EBUSY) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		result = number < 0 ? -errno : attach_to(number, &device->config);
	}
	if (control < 0 || file < 0)
		result = -ENOENT;
	if (control >= 0)
		close(control);
	if (file >= 0)
		close(file);
	return result;
}

/* The device that has the file already: it had this name, or it got another one when it was attached again. */
static int find_attached(const char *name, const struct device *device)
{
	int fd = open_attached(name, device);
	glob_t all;

	if (fd >= 0 || glob("/sys/block/loop*/loop", 0, NULL, &all))
		return fd;
	for (size_t i = 0; fd < 0 && i < all.gl_pathc; i++) {
		char other[32];

		if (sscanf(all.gl_pathv[i], "/sys/block/%31[^/]", other) == 1)
			fd = open_attached(other, device);
	}
	globfree(&all);
	return fd;
}

/* Nothing stays open in between: a process may need the number. Several processes may call this at the same time. */
static int find_or_attach(const char *name)
{
	struct device device;
	record_name record;
	int lock, fd;

	snprintf(record, sizeof(record), "loop-device-%s.img", name);
	fd = read_record(record, &device, sizeof(device), &lock);
	if (fd)
		return fd;
	device.file[sizeof(device.file) - 1] = '\0';
	flock(lock, LOCK_EX);
	fd = find_attached(name, &device);
	if (fd < 0)
		fd = attach(&device);
	close(lock);
	if (fd < 0)
		problem("cannot attach %s: %s", device.file, strerror(-fd));
	return fd;
}

/* Another open file of the same device. */
static int open_device(const char *name, int flags)
{
	int fd = find_or_attach(name), again;
	char path[64];

	if (fd < 0)
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	if (again < 0)
		again = -errno;
	close(fd);
	return again;
}

static int restore_file(int id)
{
	struct file file;
	record_name record;
	int fd;

	snprintf(record, sizeof(record), "loop-file-%x.img", id);
	fd = read_record(record, &file, sizeof(file), NULL);
	if (fd)
		return fd;
	file.device[sizeof(file.device) - 1] = '\0';
	fd = open_device(file.device, file.flags & ~(O_CREAT | O_EXCL | O_TRUNC));
	if (fd >= 0 && lseek(fd, file.position, SEEK_SET) < 0)
		return -errno;
	return fd;
}

/* The offset stays. The device may be another one, so its path is of no use. */
static int update_mapping(const char *path, const uint64_t address, const uint64_t offset,
			  uint64_t *new_offset, int *fd)
{
	int result = strncmp(path, "/dev/", 5) ? -ENOTSUP : open_device(path + 5, O_RDWR);

	(void)address;
	if (result < 0)
		return result;
	*fd = result;
	*new_offset = offset;
	return 1;
}

/* ---- begin and end ---- */

static int begin(int stage)
{
	if (stage == CR_PLUGIN_STAGE__RESTORE)
		check_and_remove_inventory_plugin(NAME, strlen(NAME));
	return 0;
}

static void end(int stage, int ret)
{
	if (stage == CR_PLUGIN_STAGE__DUMP && ret < 0)
		for (int i = 0; i < written_count; i++)
			unlinkat(criu_get_image_dir(), written[i], 0);
}

CR_PLUGIN_REGISTER(NAME, begin, end)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__DUMP_EXT_FILE, dump_file)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESTORE_EXT_FILE, restore_file)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA, handle_mapping)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__UPDATE_VMA_MAP, update_mapping)
