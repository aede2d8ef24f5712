/*
 * terminal_look.c - dump: reads what there is to know of one terminal into its record. See terminal.h.
 *
 * A pair is known by the devpts that it is in, and its number there: a container has a devpts of its own. Of a slave
 * both show in its stat. Of a master, TIOCGPTPEER with O_PATH gives the path of its slave, wherever that is mounted,
 * without opening the terminal (Linux 4.13).
 *
 * /dev/tty and /dev/console lead to another terminal: TIOCGDEV tells which. It fails if that was hung up.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kinds/terminal.h"
#include "image/message.h"
#include "model/inode.h"

/* Ids as in criu 4.2: pty N is 2N, its master 2N + 1, /dev/tty is 2012, an external terminal 2026. */
#define CONTROLLING_ID 2012
#define EXTERNAL_ID    2026
/* Others of this criu. */
#define DEVICE_ID 2040

#define FIRST_SERIAL makedev(4, 64)

static uint64_t pair_key(dev_t devpts, uint32_t index)
{
	return (uint64_t)devpts << 32 | index;
}

/* That of the terminals which a restore creates. */
static dev_t own_devpts(void)
{
	struct stat found;

	return stat("/dev/pts", &found) == 0 ? found.st_dev : 0;
}

uint64_t terminal_pair_key(const TtyInfoEntry *info)
{
	return pair_key(terminal_is_master(info)     ? info->devpts :
			info->type == TTY_TYPE__CTTY ? own_devpts() :
						       info->dev,
			info->pty->index);
}

/* The file /dev/pts/N of a master. */
static int stat_slave(int master, struct stat *slave)
{
	autoclose int path = ioctl(master, TIOCGPTPEER, O_PATH | O_CLOEXEC);

	if (path < 0 || fstat(path, slave) < 0)
		return fail(errno, "cannot find the slave of a terminal");
	return 0;
}

int terminal_note_master(struct snapshot *snapshot, struct file *file, uint32_t index)
{
	autoclose int fd = files_borrow(file->seen);
	struct stat slave;
	int result = fd < 0 ? fd : stat_slave(fd, &slave);

	if (!result)
		index_set(&terminals_of(snapshot)->masters, pair_key(slave.st_dev, index), file);
	return result;
}

bool terminal_is_elsewhere(const TtyInfoEntry *master)
{
	return master->devpts != own_devpts();
}

/* ---- settings ---- */

static TermiosEntry *termios_entry(const struct kernel_termios *settings)
{
	TermiosEntry *entry = message_new(TermiosEntry, termios_entry);

	entry->c_iflag = settings->input;
	entry->c_oflag = settings->output;
	entry->c_cflag = settings->control;
	entry->c_lflag = settings->local;
	entry->c_line = settings->line;
	message_array(entry, c_cc, CONTROL_CHARACTERS);
	memcpy(entry->c_cc, settings->characters, CONTROL_CHARACTERS);
	return entry;
}

static void set_rights(TtyInfoEntry *info, const struct stat *slave)
{
	message_set(info, slave_uid, slave->st_uid);
	message_set(info, slave_gid, slave->st_gid);
	message_set(info, slave_mode, slave->st_mode & 07777);
	info->slave_times = inode_times(slave);
}

static int read_master(int fd, TtyInfoEntry *info)
{
	int lock = 0, packets = 0, result;
	struct stat slave;

	if (ioctl(fd, TIOCGPTLCK, &lock) < 0 || ioctl(fd, TIOCGPKT, &packets) < 0)
		return fail(errno, "cannot read the settings of a master");
	result = stat_slave(fd, &slave);
	if (result)
		return result;
	set_rights(info, &slave);
	message_set(info, devpts, slave.st_dev);
	info->locked = lock;
	info->packet_mode = packets;
	return 0;
}

static int read_settings(int fd, TtyInfoEntry *info)
{
	struct kernel_termios settings, locked;
	struct winsize size;
	int exclusive = 0;

	if (ioctl(fd, TCGETS, &settings) < 0 || ioctl(fd, TIOCGLCKTRMIOS, &locked) < 0 ||
	    ioctl(fd, TIOCGWINSZ, &size) < 0 || ioctl(fd, TIOCGEXCL, &exclusive) < 0)
		return fail(errno, "cannot read the settings of a terminal");
	info->exclusive = exclusive;
	info->termios = termios_entry(&settings);
	info->termios_locked = termios_entry(&locked);
	info->winsize = message_new(WinsizeEntry, winsize_entry);
	info->winsize->ws_row = size.ws_row;
	info->winsize->ws_col = size.ws_col;
	info->winsize->ws_xpixel = size.ws_xpixel;
	info->winsize->ws_ypixel = size.ws_ypixel;
	return 0;
}

/* ---- the record ---- */

static TtyType type_of(const struct file *file)
{
	dev_t device = file->seen->stat.st_rdev;

	if (file->external)
		return TTY_TYPE__EXT_TTY;
	if (device == TTY_DEVICE)
		return TTY_TYPE__CTTY;
	if (device == PTMX_DEVICE || terminal_is_slave(file->seen))
		return TTY_TYPE__PTY;
	if (device == CONSOLE_DEVICE)
		return TTY_TYPE__CONSOLE;
	return major(device) == 4 && device < FIRST_SERIAL ? TTY_TYPE__VT : TTY_TYPE__SERIAL;
}

static bool is_master(const struct file *file)
{
	return type_of(file) == TTY_TYPE__PTY && !terminal_is_slave(file->seen);
}

static uint64_t identity_of(const struct file *file, dev_t device)
{
	const struct seen_file *seen = file->seen;
	uint64_t key = index_mix(index_mix(type_of(file), seen->stat.st_rdev), device);

	return index_mix(key, type_of(file) == TTY_TYPE__CTTY ? (uint64_t)seen->holder.session :
								seen->stat.st_dev);
}

static bool is_terminal_of(const struct terminal_seen *known, const struct file *file, dev_t device)
{
	const struct seen_file *seen = file->seen;
	const TtyInfoEntry *info = known->info;

	if (info->type != type_of(file) || info->rdev != seen->stat.st_rdev || known->device != device)
		return false;
	return info->type == TTY_TYPE__CTTY ? known->file->holder.session == seen->holder.session :
					      info->dev == seen->stat.st_dev;
}

/* The record of a file's terminal, if it is known already, or NULL; then *key is free for it. */
static TtyInfoEntry *known_info(const struct terminals *terminals, const struct file *file, dev_t device,
				uint64_t *key)
{
	const struct terminal_seen *known;

	/* Each open file of a master has a pair of its own. */
	for (*key = identity_of(file, device); (known = index_find(&terminals->by_identity, *key)); ++*key)
		if (!is_master(file) && is_terminal_of(known, file, device))
			return known->info;
	return NULL;
}

static uint32_t free_id(const struct snapshot *snapshot, uint32_t wanted)
{
	while (terminal_find(snapshot, wanted))
		wanted += 2;
	return wanted;
}

/* Also notes the number of a pair. */
static uint32_t wanted_id(const struct file *file, TtyInfoEntry *info)
{
	if (info->type == TTY_TYPE__EXT_TTY)
		return EXTERNAL_ID;
	if (info->type == TTY_TYPE__CTTY)
		return CONTROLLING_ID;
	if (info->type != TTY_TYPE__PTY)
		return DEVICE_ID;
	info->pty = message_new(TtyPtyEntry, tty_pty_entry);
	info->pty->index = terminal_index(file->seen);
	return 2 * info->pty->index + terminal_is_master(info);
}

static TtyInfoEntry *add_info(struct snapshot *snapshot, const struct file *file, dev_t device, uint64_t key)
{
	struct terminals *terminals = terminals_of(snapshot);
	TtyInfoEntry *info = message_new(TtyInfoEntry, tty_info_entry);
	struct terminal_seen *known = allocate(sizeof(*known));
	const struct seen_file *seen = file->seen;

	info->type = type_of(file);
	info->rdev = seen->stat.st_rdev;
	info->id = free_id(snapshot, wanted_id(file, info));
	message_set(info, dev, seen->stat.st_dev);
	message_set(info, uid, seen->stat.st_uid);
	message_set(info, gid, seen->stat.st_gid);
	terminals_add(terminals, info);
	*known = (struct terminal_seen){ info, seen, device };
	*grow(&terminals->seen, &terminals->seen_count) = known;
	index_set(&terminals->by_identity, key, known);
	return info;
}

/* By /dev/tty, only that of the devpts that we see, too. */
static void note_slave(struct terminals *terminals, const struct seen_file *seen, dev_t device)
{
	dev_t devpts = terminal_is_slave(seen) ? seen->stat.st_dev : own_devpts();

	if (major(device) != PTS_MAJOR || seen->stat.st_rdev == PTMX_DEVICE)
		return;
	if (!index_find(&terminals->slaves, pair_key(devpts, minor(device))))
		index_set(&terminals->slaves, pair_key(devpts, minor(device)), (void *)seen);
}

/* Its master has gone: nothing can be read from it any more. */
static int describe_hung_up(const struct file *file, TtyInfoEntry *info)
{
	const struct seen_file *seen = file->seen;

	message_set(info, hung_up, true);
	set_rights(info, &seen->stat);
	if (info->type == TTY_TYPE__CTTY || (terminal_is_slave(seen) && !seen->stat.st_nlink))
		return 0;
	return refuse("process %d (%s): descriptor %d (%s) is a terminal that was hung up, and whose %s",
		      seen->holder.here, seen->holder.name, seen->fd, seen->link,
		      terminal_is_slave(seen) ? "master lives on, which is not supported yet" :
						"device can be opened again, which is not supported yet");
}

int terminal_describe_file(struct snapshot *snapshot, struct file *file, TtyInfoEntry **info)
{
	struct terminals *terminals = terminals_of(snapshot);
	autoclose int fd = files_borrow(file->seen);
	unsigned device = 0;
	uint64_t key;
	int result;

	if (fd < 0)
		return fd;
	if (ioctl(fd, TIOCGDEV, &device) < 0 && errno != EIO)
		return fail(errno, "cannot find out which terminal %s is", file->seen->link);
	note_slave(terminals, file->seen, device);
	*info = known_info(terminals, file, device, &key);
	if (*info)
		return 0;
	*info = add_info(snapshot, file, device, key);
	if (!device)
		return file->external ? 0 : describe_hung_up(file, *info);
	result = is_master(file) ? read_master(fd, *info) : 0;
	if (!result)
		result = terminal_find_session(snapshot, file->seen, device, *info);
	/* A process has opened /dev/tty, and then left the session. */
	if ((*info)->type == TTY_TYPE__CTTY && !(*info)->sid && major(device) == PTS_MAJOR) {
		(*info)->pty = message_new(TtyPtyEntry, tty_pty_entry);
		(*info)->pty->index = minor(device);
	}
	return result ?: read_settings(fd, *info);
}
