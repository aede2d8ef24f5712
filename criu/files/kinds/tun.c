/*
 * tun.c - files of /dev/net/tun that are attached to a network device (TUNSETIFF): tun and tap.
 *
 * The device of such a file ends with it, unless it is persistent (TUNSETPERSIST). A restore makes it again, with its
 * name, its number if that is free, its addresses, in its bridge, and what was set by other ioctls; it ends by itself if the restore
 * fails. A persistent one that still exists is only attached to; one that is missing becomes persistent in the last
 * step. The message of criu 4.2.1 is for a device in a network namespace that is saved, too; here are fields of our own.
 *
 * A device with several queues (IFF_MULTI_QUEUE) has a file for each. The first makes the device.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/kinds/tun.h"
#include "image/image.h"
#include "image/message.h"
#include "kernel_constants.h"

#define TUN_DEVICE makedev(10, 200)
/* Of TUNSETIFF: what makes the file or the device another one. */
#define ASKED_FLAGS                                                                                 \
	(IFF_TUN | IFF_TAP | IFF_NAPI | IFF_NAPI_FRAGS | IFF_NO_PI | IFF_ONE_QUEUE | IFF_VNET_HDR | \
	 IFF_MULTI_QUEUE)
#define KNOWN_FLAGS (ASKED_FLAGS | IFF_PERSIST | 0x40 /* IFF_NO_CARRIER, only when it is made */)

/* Restore. */
struct tun_state {
	const struct file **to_persist; /* devices that were missing */
	size_t persist_count;
};

static struct tun_state *tun_state(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_tun);
}

static bool tun_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	const char *name = S_ISCHR(seen->stat.st_mode) && seen->stat.st_rdev == TUN_DEVICE ?
				   fdinfo_find(seen, "iff") :
				   NULL;

	return name && *name && seen->fd >= 0 && !(seen->info.flags & O_PATH);
}

/* ---- dump ---- */

static int refuse_tun(const struct seen_file *seen, const char *name, const char *why)
{
	return refuse("process %d (%s): descriptor %d is attached to the network device %s (tun, tap), %s",
		      seen->holder.here, seen->holder.name, seen->fd, name, why);
}

/* Is the device in criu's own network namespace? */
static bool is_here(int fd)
{
	autoclose int there = ioctl(fd, TUNGETDEVNETNS, 0);
	struct stat own, found;

	return there < 0 || (fstat(there, &found) == 0 && stat("/proc/self/ns/net", &own) == 0 &&
			     own.st_ino == found.st_ino && own.st_dev == found.st_dev);
}

static int ask_file(int fd, TunLinkEntry *link, bool *is_little_endian)
{
	int send_buffer, header, little_endian = 0;

	if (ioctl(fd, TUNGETSNDBUF, &send_buffer) < 0 || ioctl(fd, TUNGETVNETHDRSZ, &header) < 0 ||
	    ioctl(fd, TUNGETVNETLE, &little_endian) < 0)
		return fail(errno, "cannot ask about the network device of a file");
	link->sndbuf = send_buffer;
	link->vnethdr = header;
	*is_little_endian = little_endian;
	return 0;
}

static bool has_filter(int fd)
{
	struct sock_fprog filter = { 0 };

	return ioctl(fd, TUNGETFILTER, &filter) == 0 && filter.len;
}

static int describe_device(const struct seen_file *seen, int fd, TunfileEntry *entry)
{
	TunDeviceEntry *described = entry->device = message_new(TunDeviceEntry, tun_device_entry);
	struct tun_device device;
	bool is_little_endian = false;
	int result = tun_device_look(entry->netdev, &device, described) ?:
			     ask_file(fd, entry->link, &is_little_endian);

	if (result)
		return result;
	if (!device.is_tun)
		return refuse_tun(seen, entry->netdev, "of which the kernel tells nothing");
	entry->link->owner = device.owner;
	entry->link->group = device.group;
	if (is_little_endian)
		message_set(described, is_little_endian, true);
	if (device.switched_off)
		return refuse_tun(seen, entry->netdev,
				  "which has a queue that is switched off: nothing shows whose it is");
	return 0;
}

static int tun_describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	TunfileEntry *entry = file->entry->tunf;
	autoclose int fd = files_borrow(seen);
	struct ifreq request = { 0 };

	if (fd < 0)
		return fd;
	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return fail(errno, "cannot ask descriptor %d for its network device", seen->fd);
	entry->netdev = copy_bytes(request.ifr_name, IFNAMSIZ);
	entry->link = message_new(TunLinkEntry, tun_link_entry);
	entry->link->flags = (unsigned short)request.ifr_flags;
	entry->has_regf_id = true;
	if (entry->link->flags & ~KNOWN_FLAGS)
		return refuse_tun(seen, entry->netdev, "with flags that are not supported yet");
	if (!is_here(fd))
		return refuse_tun(seen, entry->netdev,
				  "which is in another network namespace, which is not supported yet");
	if (has_filter(fd))
		return refuse_tun(seen, entry->netdev,
				  "and has a filter, which nothing shows: detach it first (TUNDETACHFILTER)");
	return files_add_path_of(snapshot, file, &entry->regf_id) ?: describe_device(seen, fd, entry);
}

static int compare_devices(const void *left, const void *right)
{
	const struct file *a = *(struct file *const *)left, *b = *(struct file *const *)right;

	return strcmp(a->entry->tunf->netdev, b->entry->tunf->netdev) ?: (a->id < b->id ? -1 : 1);
}

static int judge_queues(struct file **files, size_t count)
{
	const struct seen_file *seen = files[0]->seen;
	const char *name = files[0]->entry->tunf->netdev;
	struct tun_device device;
	int result = tun_device_look(name, &device, NULL);

	if (result)
		return result;
	/* The first of them makes the device. */
	for (size_t i = 1; i < count; i++) {
		image_free(files[i]->entry->tunf->device);
		files[i]->entry->tunf->device = NULL;
	}
	if (device.queues <= count)
		return 0;
	return refuse_tun(seen, name, "of which a process outside of the tree has another queue");
}

/* Files of one device, of which all have been described. */
static int tun_judge(struct snapshot *snapshot)
{
	struct file_list *list = files_of_kind(snapshot, &file_kind_tun);
	autofree struct file **files = allocate_array(list->count + 1, sizeof(*files));
	size_t count = 0;

	for (size_t i = 0; i < list->count; i++)
		if (list->items[i]->entry->tunf->device)
			files[count++] = list->items[i];
	qsort(files, count, sizeof(*files), compare_devices);
	for (size_t first = 0, next; first < count; first = next) {
		const char *name = files[first]->entry->tunf->netdev;
		int result;

		for (next = first + 1; next < count && !strcmp(files[next]->entry->tunf->netdev, name);)
			next++;
		result = unless_refused(judge_queues(&files[first], next - first));
		if (result)
			return result;
	}
	return 0;
}

/* ---- restore ---- */

static uint32_t tun_path(const struct file *file)
{
	return file->entry->tunf->regf_id;
}

static const char *find_mistake(const struct snapshot *snapshot, const struct file *file)
{
	const TunfileEntry *entry = file->entry->tunf;
	const struct file *where = file_path(snapshot, file);

	if (!entry->link || !where)
		return "its network device was saved with its network namespace, which is not supported yet";
	if (!entry->netdev || !*entry->netdev || strlen(entry->netdev) >= IFNAMSIZ ||
	    strchr(entry->netdev, '/') || strchr(entry->netdev, '%'))
		return "the name of its network device is invalid";
	if (entry->link->flags & ~KNOWN_FLAGS)
		return "it has unknown flags";
	return entry->device ? tun_device_why_invalid(entry->device) : NULL;
}

/* The device itself. The files of other queues find it made. */
static int check_device(const struct file *file)
{
	const TunfileEntry *entry = file->entry->tunf;
	struct tun_device device;
	int result = entry->device ? tun_device_look(entry->netdev, &device, NULL) : 0;

	if (result || !entry->device)
		return result;
	if (!device.exists)
		return tun_device_check_master(entry->netdev, entry->device);
	if (!device.is_tun)
		return fail(EEXIST, "there is another network device %s, no tun or tap", entry->netdev);
	if (entry->link->flags & IFF_PERSIST)
		return 0;
	fail_advice("end the process that has it, or use criu in another network namespace");
	return fail(EEXIST, "the network device %s, which the process had made, is in use", entry->netdev);
}

static int tun_check(struct snapshot *snapshot, struct file *file)
{
	const char *why = find_mistake(snapshot, file);
	struct file *where;
	struct stat found;

	if (why)
		return fail(EINVAL, "files.img: file %u (tun, tap): %s", file->id, why);
	where = file_path(snapshot, file);
	if (stat(where->entry->reg->name, &found) < 0 || !S_ISCHR(found.st_mode) ||
	    found.st_rdev != TUN_DEVICE)
		return fail(ENODEV, "%s is not the device for tun and tap", where->entry->reg->name);
	return check_device(file);
}

/* What the process may have set. Only a new device gets an owner. */
static int set_up_file(int fd, const TunfileEntry *entry, bool is_new)
{
	const TunLinkEntry *link = entry->link;
	int send_buffer = link->sndbuf, header = link->vnethdr, yes = 1;

	if (is_new && ((link->owner >= 0 && ioctl(fd, TUNSETOWNER, (long)link->owner) < 0) ||
		       (link->group >= 0 && ioctl(fd, TUNSETGROUP, (long)link->group) < 0)))
		return fail(errno, "cannot set the owner of the network device %s", entry->netdev);
	if (ioctl(fd, TUNSETSNDBUF, &send_buffer) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 ||
	    (entry->device->is_little_endian && ioctl(fd, TUNSETVNETLE, &yes) < 0))
		return fail(errno, "cannot set up the network device %s", entry->netdev);
	return 0;
}

static int attach(int fd, const TunfileEntry *entry, bool is_new)
{
	struct ifreq request = { .ifr_flags = entry->link->flags & ASKED_FLAGS };
	unsigned index = is_new ? entry->device->index : 0;

	/* If the number is in use, the kernel chooses another one. */
	strcpy(request.ifr_name, entry->netdev);
	if (index)
		ignore(ioctl(fd, TUNSETIFINDEX, &index));
	if (ioctl(fd, TUNSETIFF, &request) == 0)
		return 0;
	if (index && errno == EBUSY && ioctl(fd, TUNSETIFINDEX, &(unsigned){ 0 }) == 0 &&
	    ioctl(fd, TUNSETIFF, &request) == 0) {
		log_warning("the network device %s has another number: %u is in use", entry->netdev, index);
		return 0;
	}
	return fail(errno, "cannot attach to the network device %s", entry->netdev);
}

static int open_tun(struct snapshot *snapshot, struct file *file)
{
	const TunfileEntry *entry = file->entry->tunf;
	const struct file *where = file_path(snapshot, file);
	autoclose int fd = open(where->entry->reg->name, O_RDWR | O_CLOEXEC);
	struct tun_state *state = tun_state(snapshot);
	struct tun_device device;
	bool is_new;
	int result;

	if (fd < 0)
		return fail(errno, "cannot open %s", where->entry->reg->name);
	result = tun_device_look(entry->netdev, &device, NULL);
	if (result)
		return result;
	is_new = entry->device && !device.exists;
	if (entry->device && device.exists && !(entry->link->flags & IFF_PERSIST))
		return fail(EEXIST, "somebody has just made the network device %s", entry->netdev);
	result = attach(fd, entry, is_new);
	if (!result && entry->device)
		result = set_up_file(fd, entry, is_new);
	if (!result && is_new)
		result = tun_device_set_up(entry->netdev, entry->device);
	if (!result && is_new && entry->link->flags & IFF_PERSIST)
		*grow(&state->to_persist, &state->persist_count) = file;
	return result ?: steal_fd(&fd);
}

static void tun_release(struct snapshot *snapshot)
{
	struct tun_state *state = tun_state(snapshot);

	for (size_t i = 0; i < state->persist_count; i++)
		if (ioctl(state->to_persist[i]->fd, TUNSETPERSIST, 1L) < 0)
			log_warning("the network device %s ends with the process: %s",
				    state->to_persist[i]->entry->tunf->netdev, strerror(errno));
}

static void tun_close(struct snapshot *snapshot)
{
	struct tun_state *state = tun_state(snapshot);

	free(steal_pointer(&state->to_persist));
	state->persist_count = 0;
}

const struct file_kind file_kind_tun = {
	.name = "tun",
	.type = FD_TYPES__TUNF,
	.message = offsetof(FileEntry, tunf),
	.state_size = sizeof(struct tun_state),
	.recognizes = tun_recognizes,
	.describe = tun_describe,
	.judge = tun_judge,
	.path = tun_path,
	.check = tun_check,
	.open = open_tun,
	.release = tun_release,
	.close = tun_close,
};
