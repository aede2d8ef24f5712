/*
 * devices.c - the table of devices. See devices.h.
 *
 * A device is in the table by the name that the kernel gives its driver, because many numbers are chosen anew at each
 * boot: /proc/devices has the names of major numbers, and /proc/misc those of the minor numbers of major number 10.
 * Whatever is not in the table is refused. Facts are of Linux 6.18 (drivers/char,
 * Documentation/admin-guide/devices.txt).
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include "base/io.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "files/devices.h"

#define MEMORY_DEVICES 1 /* these major numbers … */
#define MISC_DEVICES   10

enum {
	CAN_READ = 1,
	CAN_WRITE = 2,
	CAN_BOTH = CAN_READ | CAN_WRITE,
};

struct device_facts {
	const char *
		driver; /* "mem/3": with the minor number; "misc/NAME"; "NAME": all devices of a major number */
	int access;	/* with which it can be opened again */
	const char *words; /* NULL: only the number is shown */
	const char *remedy;
};

static const char frees[] = "the kernel ends what it does when it is closed: close it first";
static const char queues[] = "what waits to be read would be lost: close it first";

static const struct device_facts table[] = {
	{ "mem/1", CAN_BOTH, "the memory of the machine", NULL },
	{ "mem/3", CAN_BOTH, NULL, NULL }, /* null */
	{ "mem/4", CAN_BOTH, "the ports of the machine", NULL },
	{ "mem/5", CAN_BOTH, NULL, NULL }, /* zero */
	{ "mem/7", CAN_BOTH, NULL, NULL }, /* full */
	{ "mem/8", CAN_BOTH, NULL, NULL }, /* random */
	{ "mem/9", CAN_BOTH, NULL, NULL }, /* urandom */
	{ "mem/11", CAN_WRITE, "the kernel's log",
	  "nothing shows which message it would read next: close it, or open it only for writing" },

	/* For ioctl() only: they find or create what other files then stand for. */
	{ "misc/loop-control", CAN_BOTH, NULL, NULL },
	{ "misc/btrfs-control", CAN_BOTH, NULL, NULL },
	{ "misc/autofs", CAN_BOTH, NULL, NULL },
	{ "misc/vsock", CAN_BOTH, NULL, NULL },
	{ "misc/kvm", CAN_BOTH, NULL, NULL },
	{ "misc/tun", CAN_BOTH, NULL, NULL }, /* before it is attached to a network device: kinds/tun.c */
	{ "misc/userfaultfd", CAN_BOTH, NULL, NULL },
	{ "misc/hw_random", CAN_BOTH, NULL, NULL },
	/* Registers of a CPU: the position is the number of one. */
	{ "cpu/*", CAN_BOTH, NULL, NULL },

	{ "misc/watchdog", 0, "a watchdog",
	  "it would restart the machine while the processes are away: stop it and close it first" },
	{ "watchdog", 0, "a watchdog",
	  "it would restart the machine while the processes are away: stop it and close it first" },
	{ "rtc", 0, "a real time clock", "nothing shows which interrupts it was asked for: close it first" },
	{ "misc/rtc", 0, "a real time clock",
	  "nothing shows which interrupts it was asked for: close it first" },
	{ "misc/hpet", 0, "a timer of the machine (hpet)", frees },
	{ "misc/fuse", 0, "a FUSE file system", "the mount belongs to this descriptor: unmount it first" },
	{ "misc/cuse", 0, "a device that the process implements (CUSE)", frees },
	{ "misc/uinput", 0, "an input device that the process has created", frees },
	{ "misc/uhid", 0, "an input device that the process has created", frees },
	{ "misc/cpu_dma_latency", 0, "a limit of the latency of CPUs",
	  "nothing shows which limit the process has set: close it first" },
	{ "misc/vga_arbiter", 0, "the arbiter of graphics cards", frees },
	{ "misc/snapshot", 0, "the suspension to disk", frees },
	{ "misc/device-mapper", 0, "the device mapper",
	  "nothing shows which events the process has seen: close it first" },
	{ "misc/ublk-control", CAN_BOTH, NULL, NULL },
	{ "ublk-char", 0, "a block device that the process implements (ublk)", frees },
	{ "misc/iommu", 0, "memory that devices use (iommufd)", frees },
	{ "misc/ntsync", 0, "synchronization objects of Windows (ntsync)",
	  "they belong to this descriptor: end the programs that use them first" },
	{ "misc/sgx_enclave", 0, "an SGX enclave", "nobody else can read its memory: end it first" },
	{ "misc/cachefiles", 0, "a cache of network file systems", frees },
	{ "binder", 0, "a binder of Android", frees },
	{ "infiniband_verbs", 0, "an RDMA device (InfiniBand)", frees },
	{ "misc/rdma_cm", 0, "connections of RDMA devices", frees },
	{ "usb_device", 0, "a USB device", frees },
	{ "usbmon", 0, "what is sent over USB", queues },
	{ "i2c", 0, "an I2C bus", "nothing shows which address was chosen: close it first" },
	{ "spi", 0, "an SPI device", "nothing shows how it was set up: close it first" },
	{ "gpiochip", 0, "GPIO lines", "nothing shows which of them are watched: close it first" },
	{ "ipmidev", 0, "the management controller of the machine (IPMI)", queues },
	{ "mei", 0, "the management engine of the machine", queues },
	{ "misc/vhost-net", 0, "a network device of a virtual machine", frees },
	{ "misc/vhost-vsock", 0, "a socket device of a virtual machine", frees },
	{ "misc/vfio", 0, "a device that the process drives (VFIO)", frees },
	{ "misc/rfkill", 0, "the switch of radios", queues },
	{ "ppp", 0, "a PPP connection", frees },
	{ "input", 0, "an input device", queues },
	{ "hidraw", 0, "an input device", queues },
	{ "alsa", 0, "a sound device", frees },
	{ "sound", 0, "a sound device", frees },
	{ "video4linux", 0, "a video device", frees },
	{ "media", 0, "a video device", frees },
	{ "drm", 0, "a graphics card (DRM)",
	  "its memory and contexts are not supported without a plugin: end its use first" },
	{ "kfd", 0, "an AMD GPU",
	  "its memory and contexts are not supported without a plugin: end its use first" },
	{ "nvidia*", 0, "an NVIDIA GPU",
	  "its memory and contexts are not supported without a plugin: end its use first" },
	{ "accel", 0, "an accelerator", frees },
	{ "fb", 0, "a graphics card (frame buffer)", frees },
	{ "sg", 0, "a SCSI device", queues },
	{ "bsg", 0, "a SCSI device", queues },
	{ "st", 0, "a tape", "its position would be lost: close it first" },
	{ "tpm", 0, "a TPM", queues },
	{ "vcs", 0, "the screen of a console",
	  "nothing shows which changes the process has seen: close it first" },
	{ "ptp", 0, "a clock of a network card (PTP)", queues },
	{ "pps", 0, "a source of pulses (PPS)", queues },
	{ "vfio", 0, "a device that the process drives (VFIO)", frees },
	/* Any of them: the content is on the device. */
	{ "block", CAN_READ, NULL,
	  "criu does not write to a device that could be another one then: close it, or open it only for reading" },
};

/* The name behind a number in lines such as " 10 misc" or "235 autofs", from `text` to an empty line; to be freed. */
static char *name_of_number(const char *text, unsigned number)
{
	char name[64];
	unsigned found;

	for (const char *line = text; *line && *line != '\n';
	     line = strchrnul(line, '\n'), line += *line == '\n')
		if (sscanf(line, "%u %63s", &found, name) == 2 && found == number)
			return copy_text(name);
	return NULL;
}

static char *driver_of_major(unsigned number)
{
	autofree char *text = NULL;
	const char *lines;

	if (read_text_at(-1, "/proc/devices", &text) < 0)
		return NULL;
	lines = strstr(text, "Character devices:\n");
	return lines ? name_of_number(strchr(lines, '\n') + 1, number) : NULL;
}

static char *driver_of_misc(unsigned number)
{
	autofree char *text = NULL, *name = NULL;

	if (read_text_at(-1, "/proc/misc", &text) < 0)
		return NULL;
	name = name_of_number(text, number);
	return name ? format_text("misc/%s", name) : NULL;
}

static char *driver_of(const struct stat *device)
{
	unsigned number = major(device->st_rdev);

	if (S_ISBLK(device->st_mode))
		return copy_text("block");
	if (number == MEMORY_DEVICES)
		return format_text("mem/%u", minor(device->st_rdev));
	return number == MISC_DEVICES ? driver_of_misc(minor(device->st_rdev)) : driver_of_major(number);
}

static bool is_named(const char *pattern, const char *name)
{
	size_t length = strlen(pattern);

	return pattern[length - 1] == '*' ? !strncmp(pattern, name, length - 1) : !strcmp(pattern, name);
}

static const struct device_facts *find_facts(const struct stat *device)
{
	autofree char *driver = driver_of(device);

	for (size_t i = 0; driver && i < array_size(table); i++)
		if (is_named(table[i].driver, driver))
			return &table[i];
	return NULL;
}

bool device_can_reopen(const struct stat *device, int flags)
{
	static const int needed[] = {
		[O_RDONLY] = CAN_READ, [O_WRONLY] = CAN_WRITE, [O_RDWR] = CAN_BOTH, [O_ACCMODE] = CAN_BOTH
	};
	const struct device_facts *facts = find_facts(device);
	int wanted = needed[flags & O_ACCMODE];

	return facts && (facts->access & wanted) == wanted;
}

/* Documentation/admin-guide/devices.txt; misc devices from 256 on. */
bool device_number_is_dynamic(const struct stat *device)
{
	unsigned number = major(device->st_rdev);

	return (number >= 234 && number <= 254) || number == 259 || (number >= 384 && number <= 511) ||
	       (number == MISC_DEVICES && minor(device->st_rdev) > 255);
}

char *device_in_words(const struct stat *device)
{
	const struct device_facts *facts = find_facts(device);
	autofree char *number = format_text("%s device %u:%u",
					    S_ISCHR(device->st_mode) ? "character" : "block",
					    major(device->st_rdev), minor(device->st_rdev));

	return facts && facts->words ? format_text("%s (%s)", facts->words, number) :
				       format_text("the %s", number);
}

const char *device_remedy(const struct stat *device)
{
	const struct device_facts *facts = find_facts(device);

	return facts ? facts->remedy : NULL;
}

char *device_find_path(const struct stat *device)
{
	autofree char *where = format_text("/sys/dev/%s/%u:%u/uevent",
					   S_ISCHR(device->st_mode) ? "char" : "block",
					   major(device->st_rdev), minor(device->st_rdev));
	autofree char *text = NULL, *path = NULL;
	const char *name;
	struct stat found;

	if (read_text_at(-1, where, &text) < 0)
		return NULL;
	name = strstr(text, "DEVNAME=");
	if (!name)
		return NULL;
	name += strlen("DEVNAME=");
	path = format_text("/dev/%.*s", (int)strcspn(name, "\n"), name);
	if (stat(path, &found) < 0 || found.st_rdev != device->st_rdev ||
	    (found.st_mode & S_IFMT) != (device->st_mode & S_IFMT))
		return NULL;
	return steal_pointer(&path);
}
