/*
 * terminal.c - dump: terminals and files that lead to them. See terminal.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/terminal.h"
#include "image/message.h"
#include "model/inode.h"

#define ADVICE "--shell-job (-j), to restore it on the terminal of whoever restores it"
/* Ids as criu 4.2 gives them: pty N is 2N, its master 2N + 1, /dev/tty is 2012. */
#define CONTROLLING_ID 2012

TtyInfoEntry *terminal_find(const struct snapshot *snapshot, uint32_t id)
{
	for (size_t i = 0; snapshot->terminals && i < snapshot->terminals->count; i++)
		if (snapshot->terminals->items[i]->id == id)
			return snapshot->terminals->items[i];
	return NULL;
}

TtyInfoEntry *terminal_find_master(const struct snapshot *snapshot, uint32_t index)
{
	for (size_t i = 0; snapshot->terminals && i < snapshot->terminals->count; i++) {
		TtyInfoEntry *info = snapshot->terminals->items[i];

		if (terminal_is_master(info) && info->pty && info->pty->index == index)
			return info;
	}
	return NULL;
}

void terminals_free(struct snapshot *snapshot)
{
	for (size_t i = 0; snapshot->terminals && i < snapshot->terminals->count; i++)
		image_free(snapshot->terminals->items[i]);
	if (snapshot->terminals)
		free(snapshot->terminals->items);
	free(snapshot->terminals);
	snapshot->terminals = NULL;
}

static bool recognizes(const struct seen_file *seen)
{
	unsigned number = major(seen->stat.st_rdev);

	return seen->link[0] == '/' && S_ISCHR(seen->stat.st_mode) && seen->fd >= 0 &&
	       !(seen->info.flags & O_PATH) &&
	       (number == 4 || number == 5 || (number >= PTS_MAJOR && number < PTS_MAJOR + 8));
}

bool terminal_is_slave(const struct seen_file *seen)
{
	return major(seen->stat.st_rdev) == PTS_MAJOR;
}

/* N of /dev/pts/N. A master tells it in its fdinfo (Linux 4.15). */
uint32_t terminal_index(const struct seen_file *seen)
{
	const char *line = terminal_is_slave(seen) ? NULL : strstr(seen->info.rest, "tty-index:");

	return line ? strtoul(line + strlen("tty-index:"), NULL, 10) : minor(seen->stat.st_rdev);
}

static bool tree_has_master(const struct snapshot *snapshot, uint32_t index)
{
	for (size_t i = 0; i < snapshot->file_count; i++) {
		const struct seen_file *seen = snapshot->files[i]->seen;

		if (seen->fd >= 0 && seen->stat.st_rdev == PTMX_DEVICE && terminal_index(seen) == index)
			return true;
	}
	return false;
}

static int refuse_terminal(const struct seen_file *seen, const char *why)
{
	return refuse("process %d (%s): file %d (%s) %s", seen->task->pid, seen->task->name, seen->fd,
		      seen->link, why);
}

/* ---- one terminal ---- */

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

/* Of the slave's file, which nobody may have open. */
static void read_rights(TtyInfoEntry *info)
{
	autofree char *name = format_text("/dev/pts/%u", info->pty->index);
	struct stat slave;

	if (stat(name, &slave) < 0 || slave.st_rdev != makedev(PTS_MAJOR, info->pty->index))
		return;
	message_set(info, slave_uid, slave.st_uid);
	message_set(info, slave_gid, slave.st_gid);
	message_set(info, slave_mode, slave.st_mode & 07777);
	info->slave_times = inode_times(&slave);
}

static int read_settings(int fd, TtyInfoEntry *info)
{
	struct kernel_termios settings, locked;
	struct winsize size;
	int exclusive = 0, lock = 0, packets = 0;

	if (ioctl(fd, TCGETS, &settings) < 0 || ioctl(fd, TIOCGLCKTRMIOS, &locked) < 0 ||
	    ioctl(fd, TIOCGWINSZ, &size) < 0 || ioctl(fd, TIOCGEXCL, &exclusive) < 0)
		return fail(errno, "cannot read the settings of a terminal");
	if (terminal_is_master(info) &&
	    (ioctl(fd, TIOCGPTLCK, &lock) < 0 || ioctl(fd, TIOCGPKT, &packets) < 0))
		return fail(errno, "cannot read the settings of a master");
	if (terminal_is_master(info))
		read_rights(info);
	info->exclusive = exclusive;
	info->locked = lock;
	info->packet_mode = packets;
	info->termios = termios_entry(&settings);
	info->termios_locked = termios_entry(&locked);
	info->winsize = message_new(WinsizeEntry, winsize_entry);
	info->winsize->ws_row = size.ws_row;
	info->winsize->ws_col = size.ws_col;
	info->winsize->ws_xpixel = size.ws_xpixel;
	info->winsize->ws_ypixel = size.ws_ypixel;
	return 0;
}

/* Which session does it control, and which group is in the foreground? A task of the session knows. */
static int find_session(const struct snapshot *snapshot, const struct seen_file *seen, TtyInfoEntry *info)
{
	dev_t device = makedev(PTS_MAJOR, info->pty ? info->pty->index : 0);
	const struct task *task;

	for_each_task (task, snapshot) {
		struct proc_stat stat;
		int result;

		if (info->type == TTY_TYPE__CTTY ? task != seen->task : task->state == TASK_DEAD)
			continue;
		result = proc_read_stat(task->proc, &stat);
		if (result)
			return result;
		if (info->type != TTY_TYPE__CTTY && stat.terminal != device)
			continue;
		info->sid = stat.session;
		info->pgrp = stat.foreground > 0 ? stat.foreground : 0;
		return 0;
	}
	return 0;
}

static uint32_t free_id(const struct snapshot *snapshot, uint32_t wanted)
{
	while (terminal_find(snapshot, wanted))
		wanted += 2;
	return wanted;
}

static TtyInfoEntry *new_info(struct snapshot *snapshot, const struct seen_file *seen)
{
	TtyInfoEntry *info = message_new(TtyInfoEntry, tty_info_entry);
	uint32_t wanted = CONTROLLING_ID;

	if (!snapshot->terminals)
		snapshot->terminals = allocate(sizeof(*snapshot->terminals));
	info->type = TTY_TYPE__CTTY;
	info->rdev = seen->stat.st_rdev;
	if (seen->stat.st_rdev != TTY_DEVICE) {
		info->type = TTY_TYPE__PTY;
		info->pty = message_new(TtyPtyEntry, tty_pty_entry);
		info->pty->index = terminal_index(seen);
		wanted = 2 * info->pty->index + terminal_is_master(info);
	}
	info->id = free_id(snapshot, wanted);
	message_set(info, dev, seen->stat.st_dev);
	message_set(info, uid, seen->stat.st_uid);
	message_set(info, gid, seen->stat.st_gid);
	*grow(&snapshot->terminals->items, &snapshot->terminals->count) = info;
	return info;
}

/* The terminal of a file, as it is known already, or NULL. */
static TtyInfoEntry *known_info(const struct snapshot *snapshot, const struct seen_file *seen)
{
	for (size_t i = 0; snapshot->terminals && i < snapshot->terminals->count; i++) {
		TtyInfoEntry *info = snapshot->terminals->items[i];

		if (info->rdev != seen->stat.st_rdev)
			continue;
		if (info->type == TTY_TYPE__CTTY ? info->sid == (uint32_t)seen->task->session :
						   info->pty->index == terminal_index(seen))
			return info;
	}
	return NULL;
}

/* ---- can it be saved? ---- */

static bool is_another_outer(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	for (size_t i = 0; i < snapshot->terminals->count; i++) {
		const TtyInfoEntry *other = snapshot->terminals->items[i];

		if (other->type == TTY_TYPE__PTY && info->type == TTY_TYPE__PTY &&
		    other->pty->index != info->pty->index && !tree_has_master(snapshot, other->pty->index))
			return true;
	}
	return false;
}

static int check_outer(const struct snapshot *snapshot, const struct seen_file *seen,
		       const TtyInfoEntry *info)
{
	if (!snapshot->policy.shell_job) {
		fail_advice(ADVICE);
		return refuse_terminal(seen, "is a terminal that leads out of the tree");
	}
	if (is_another_outer(snapshot, info))
		return refuse_terminal(seen, "is the second terminal that leads out of the tree");
	return 0;
}

static int check_inner(const struct snapshot *snapshot, const struct seen_file *seen,
		       const TtyInfoEntry *info, int fd)
{
	int session = 0;

	if (terminal_is_master(info) && ioctl(fd, TIOCGSID, &session) == 0 && session &&
	    !snapshot_find_task(snapshot, session))
		return refuse_terminal(seen,
				       "is the master of a terminal whose session is not part of the tree");
	return 0;
}

static bool is_inner(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	return info->type == TTY_TYPE__CTTY ? snapshot_find_task(snapshot, info->sid) != NULL :
					      tree_has_master(snapshot, info->pty->index);
}

static int describe_terminal(struct snapshot *snapshot, const struct seen_file *seen, TtyInfoEntry **info)
{
	autoclose int fd = files_borrow(seen);
	int result;

	if (fd < 0)
		return fd;
	*info = new_info(snapshot, seen);
	result = find_session(snapshot, seen, *info) ?: read_settings(fd, *info);
	if (result)
		return result;
	return is_inner(snapshot, *info) ? check_inner(snapshot, seen, *info, fd) :
					   check_outer(snapshot, seen, *info);
}

static int describe(struct snapshot *snapshot, struct file *file, FownEntry *owner)
{
	const struct seen_file *seen = file->seen;
	TtyFileEntry *entry = file->entry->tty = message_new(TtyFileEntry, tty_file_entry);
	TtyInfoEntry *info;
	int result = 0;

	entry->id = file->id;
	entry->fown = owner;
	entry->flags = seen->info.flags & ~O_CLOEXEC;
	if (!seen->stat.st_nlink)
		return refuse_terminal(seen, "is a terminal that has gone");
	if (!terminal_is_slave(seen) && seen->stat.st_rdev != PTMX_DEVICE && seen->stat.st_rdev != TTY_DEVICE)
		return refuse_terminal(seen, "is a console or a serial line, which are not supported yet");
	info = known_info(snapshot, seen);
	if (!info)
		result = describe_terminal(snapshot, seen, &info);
	if (result)
		return result;
	entry->tty_info_id = info->id;
	entry->has_regf_id = true;
	return files_add_path_of(snapshot, file, message_new(FownEntry, fown_entry), &entry->regf_id);
}

/* ---- terminals that control a session ---- */

static bool is_known(const struct snapshot *snapshot, const struct proc_stat *stat)
{
	for (size_t i = 0; snapshot->terminals && i < snapshot->terminals->count; i++) {
		const TtyInfoEntry *info = snapshot->terminals->items[i];

		if (info->type == TTY_TYPE__CTTY ? info->sid == (uint32_t)stat->session :
						   makedev(PTS_MAJOR, info->pty->index) == stat->terminal)
			return true;
	}
	return false;
}

/* Nobody has it open, so the restored session has none. */
static void lose_terminal(const struct task *task, dev_t terminal)
{
	if (major(terminal) == PTS_MAJOR) {
		log_warning(
			"process %d (%s): no process of the tree has the terminal of its session open (/dev/pts/%u): "
			"that will control it no more",
			task->pid, task->name, minor(terminal));
		return;
	}
	refuse("process %d (%s): the terminal of its session (device %u:%u), which no process of the tree has open, would "
	       "be hung up for all others",
	       task->pid, task->name, major(terminal), minor(terminal));
	fail_advice("let the process give its terminal up first (TIOCNOTTY)");
}

/* When the leader of a session dies, the kernel hangs its terminal up, if that is no pty (6.18, disassociate_ctty()). */
int terminals_check_control(const struct snapshot *snapshot)
{
	const struct task *task;

	for_each_task (task, snapshot) {
		struct proc_stat stat;
		int result;

		if (task->state == TASK_DEAD || task->session != task->pid)
			continue;
		result = proc_read_stat(task->proc, &stat);
		if (result)
			return result;
		if (stat.terminal && !is_known(snapshot, &stat))
			lose_terminal(task, stat.terminal);
	}
	return 0;
}

static int save_terminals(struct snapshot *snapshot)
{
	struct terminals *terminals = snapshot->terminals;
	struct image *image = NULL, *waiting = NULL;
	int result;

	if (!terminals)
		return 0;
	result = image_create(snapshot->images, &image, IMAGE_TTY_INFO, 0);
	for (size_t i = 0; !result && i < terminals->count; i++) {
		result = image_write(image, &terminals->items[i]->base);
		if (!result && terminal_is_master(terminals->items[i]))
			result = terminal_save_data(snapshot, &waiting, terminals->items[i]);
	}
	result = image_close(waiting) ?: result;
	result = image_close(image) ?: result;
	terminals_free(snapshot);
	return result;
}

static uint32_t path(const struct file *file)
{
	return file->entry->tty ? file->entry->tty->regf_id : 0;
}

static const FownEntry *owner(const struct file *file)
{
	return file->entry->tty->fown;
}

/* Both ends of each pair, and the one that criu was started from. */
static size_t keeps(const struct snapshot *snapshot)
{
	return snapshot->terminals ? 2 * snapshot->terminals->count + 1 : 0;
}

const struct file_kind file_kind_terminal = {
	.name = "terminal",
	.type = FD_TYPES__TTY,
	.recognizes = recognizes,
	.describe = describe,
	.save_more = save_terminals,
	.path = path,
	.check = terminal_check,
	.open = terminal_open,
	.settle = terminal_settle,
	.close_more = terminals_close,
	.keeps = keeps,
	.owner = owner,
};
