/*
 * terminal.c - dump: terminals and the files that refer to them. See terminal.h.
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
#include "files/kinds/terminal.h"
#include "image/message.h"
#include "model/inode.h"

/* Ids as in criu 4.2: pty N is 2N, its master 2N + 1, /dev/tty is 2012, an external terminal 2026. */
#define CONTROLLING_ID 2012
#define EXTERNAL_ID    2026

struct terminals *terminals_of(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_terminal);
}

TtyInfoEntry *terminal_find(const struct snapshot *snapshot, uint32_t id)
{
	return index_find(&terminals_of(snapshot)->by_id, id);
}

void terminals_add(struct terminals *terminals, TtyInfoEntry *info)
{
	*grow(&terminals->items, &terminals->count) = info;
	index_set(&terminals->by_id, info->id, info);
}

void terminals_free(struct terminals *terminals)
{
	for (size_t i = 0; i < terminals->count; i++)
		image_free(terminals->items[i]);
	index_free(&terminals->by_id);
	index_free(&terminals->masters);
	free(terminals->items);
	free(terminals->seen);
	*terminals = (struct terminals){ .ours = -1 };
}

static bool terminal_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
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

/* N of /dev/pts/N. A master has it in its fdinfo (Linux 4.15). */
uint32_t terminal_index(const struct seen_file *seen)
{
	const char *value = terminal_is_slave(seen) ? NULL : fdinfo_find(seen, "tty-index");

	return value ? strtoul(value, NULL, 10) : minor(seen->stat.st_rdev);
}

/* For a master: all masters are known before the first terminal is described. */
static int terminal_fdinfo(struct snapshot *snapshot, struct file *file, const char *key, const char *value)
{
	if (!strcmp(key, "tty-index") && file->seen->stat.st_rdev == PTMX_DEVICE && !file->external)
		index_set(&terminals_of(snapshot)->masters, strtoul(value, NULL, 10), file);
	return 0;
}

static bool tree_has_master(const struct snapshot *snapshot, uint32_t index)
{
	return index_find(&terminals_of(snapshot)->masters, index);
}

static int refuse_terminal(const struct seen_file *seen, const char *why)
{
	return refuse("process %d (%s): descriptor %d (%s) %s", seen->holder.here, seen->holder.name,
		      seen->fd, seen->link, why);
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

/* Reads owner and mode of the slave's file, which perhaps no task has open. */
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

/* The number by which a session refers to it. For a pair, that of its slave. */
static dev_t device_of(const TtyInfoEntry *info)
{
	return info->pty ? makedev(PTS_MAJOR, info->pty->index) : info->rdev;
}

/* Finds the session that the terminal controls, and its foreground group, from a task of that session. */
static int find_session(const struct snapshot *snapshot, const struct seen_file *seen, TtyInfoEntry *info)
{
	dev_t device = device_of(info);
	const struct task *task;

	for_each_task (task, snapshot) {
		struct proc_stat stat;
		int result;

		if (info->type == TTY_TYPE__CTTY ? task->here != seen->holder.here : task->state == TASK_DEAD)
			continue;
		result = proc_read_stat(task->proc, &stat);
		if (result)
			return result;
		if (info->type != TTY_TYPE__CTTY && stat.terminal != device)
			continue;
		info->sid = snapshot_name_of(snapshot, stat.session);
		info->pgrp = stat.foreground > 0 ? snapshot_name_of(snapshot, stat.foreground) : 0;
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

static TtyType type_of(const struct file *file)
{
	if (file->external)
		return TTY_TYPE__EXT_TTY;
	return file->seen->stat.st_rdev == TTY_DEVICE ? TTY_TYPE__CTTY : TTY_TYPE__PTY;
}

static TtyInfoEntry *new_info(struct snapshot *snapshot, const struct file *file)
{
	struct terminals *terminals = terminals_of(snapshot);
	TtyInfoEntry *info = message_new(TtyInfoEntry, tty_info_entry);
	const struct seen_file *seen = file->seen;
	uint32_t wanted = file->external ? EXTERNAL_ID : CONTROLLING_ID;

	info->type = type_of(file);
	info->rdev = seen->stat.st_rdev;
	if (info->type == TTY_TYPE__PTY) {
		info->pty = message_new(TtyPtyEntry, tty_pty_entry);
		info->pty->index = terminal_index(seen);
		wanted = 2 * info->pty->index + terminal_is_master(info);
	}
	info->id = free_id(snapshot, wanted);
	message_set(info, dev, seen->stat.st_dev);
	message_set(info, uid, seen->stat.st_uid);
	message_set(info, gid, seen->stat.st_gid);
	terminals_add(terminals, info);
	*grow(&terminals->seen, &terminals->seen_count) = seen;
	return info;
}

/* Of those with the same type and device number. */
static bool is_terminal_of(const TtyInfoEntry *info, const struct seen_file *seen)
{
	switch (info->type) {
	case TTY_TYPE__EXT_TTY:
		return info->dev == seen->stat.st_dev;
	case TTY_TYPE__CTTY:
		return info->sid == (uint32_t)seen->holder.session;
	default:
		return info->pty->index == terminal_index(seen);
	}
}

/* The record of a file's terminal, if it is known already, or NULL. */
static TtyInfoEntry *known_info(const struct snapshot *snapshot, const struct file *file)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->count; i++) {
		TtyInfoEntry *info = terminals->items[i];

		if (info->rdev == file->seen->stat.st_rdev && info->type == type_of(file) &&
		    is_terminal_of(info, file->seen))
			return info;
	}
	return NULL;
}

/* ---- can it be saved? ---- */

/* Is there another outer terminal among those found before it? */
static bool is_another_outer(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->count && terminals->items[i] != info; i++) {
		const TtyInfoEntry *other = terminals->items[i];

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
		struct external_key key = external_key_of_terminal(seen);
		autofree char *name = external_key_text(&key);

		fail_advice(
			"--shell-job (-j), to restore it on the terminal where criu restore runs; or --external %s",
			name);
		return refuse_terminal(seen, "is a terminal whose master is outside of the tree");
	}
	if (is_another_outer(snapshot, info)) {
		file_advise_external(snapshot, seen);
		return refuse_terminal(seen, "is the second terminal whose master is outside of the tree");
	}
	return 0;
}

static int check_inner(const struct snapshot *snapshot, const struct seen_file *seen,
		       const TtyInfoEntry *info)
{
	autoclose int fd = files_borrow(seen);
	int session = 0;

	if (fd < 0)
		return fd;
	if (terminal_is_master(info) && ioctl(fd, TIOCGSID, &session) == 0 && session &&
	    !snapshot_find_task_here(snapshot, session))
		return refuse_terminal(seen,
				       "is the master of a terminal whose session is not part of the tree");
	return 0;
}

static bool is_inner_terminal(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	return info->type == TTY_TYPE__CTTY ? snapshot_find_task(snapshot, info->sid) != NULL :
					      tree_has_master(snapshot, info->pty->index);
}

static int describe_terminal(struct snapshot *snapshot, const struct file *file, TtyInfoEntry **info)
{
	autoclose int fd = files_borrow(file->seen);

	if (fd < 0)
		return fd;
	*info = new_info(snapshot, file);
	return find_session(snapshot, file->seen, *info) ?: read_settings(fd, *info);
}

static int terminal_describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	TtyFileEntry *entry = file->entry->tty;
	TtyInfoEntry *info;
	int result = 0;

	if (!seen->stat.st_nlink)
		return refuse_terminal(seen, "is a terminal that was hung up");
	if (!file->external && !terminal_is_slave(seen) && seen->stat.st_rdev != PTMX_DEVICE &&
	    seen->stat.st_rdev != TTY_DEVICE) {
		file_advise_external(snapshot, seen);
		return refuse_terminal(seen, "is a console or a serial line, which are not supported yet");
	}
	info = known_info(snapshot, file);
	if (!info)
		result = describe_terminal(snapshot, file, &info);
	if (result)
		return result;
	entry->tty_info_id = info->id;
	if (file->external)
		return 0;
	entry->has_regf_id = true;
	return files_add_path_of(snapshot, file, &entry->regf_id);
}

/* ---- terminals that control a session ---- */

static bool is_known(const struct snapshot *snapshot, const struct proc_stat *stat)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->count; i++) {
		const TtyInfoEntry *info = terminals->items[i];

		if (info->type == TTY_TYPE__CTTY ?
			    info->sid == (uint32_t)snapshot_name_of(snapshot, stat->session) :
			    device_of(info) == stat->terminal)
			return true;
	}
	return false;
}

/* No task has it open, so the restored session has none. */
static void lose_terminal(const struct task *task, dev_t terminal)
{
	if (major(terminal) == PTS_MAJOR) {
		log_warning(
			"process %d (%s): no process of the tree has the terminal of its session open (/dev/pts/%u): "
			"it will no longer control the restored session",
			task->here, task->name, minor(terminal));
		return;
	}
	refuse("process %d (%s): the terminal of its session (device %u:%u), which no process of the tree has open, would "
	       "be hung up for all others",
	       task->here, task->name, major(terminal), minor(terminal));
	fail_advice("first let the process give up its terminal (TIOCNOTTY)");
}

/*
 * When the leader of a session dies, the kernel hangs up its terminal, unless that is a pty (6.18,
 * disassociate_ctty()).
 */
static int check_control(struct snapshot *snapshot)
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

/* Only when all files are known, because the master may be the last. */
static int terminal_judge(struct snapshot *snapshot)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->count; i++) {
		const TtyInfoEntry *info = terminals->items[i];
		const struct seen_file *seen = terminals->seen[i];
		int result;

		if (info->type == TTY_TYPE__EXT_TTY)
			continue;
		result = is_inner_terminal(snapshot, info) ? check_inner(snapshot, seen, info) :
							     check_outer(snapshot, seen, info);

		if (unless_refused(result))
			return result;
	}
	return check_control(snapshot);
}

static int save_terminals(struct snapshot *snapshot)
{
	const struct terminals *terminals = terminals_of(snapshot);
	struct image *image = NULL, *waiting = NULL;
	int result;

	if (!terminals->count)
		return 0;
	result = image_create(snapshot->images, &image, IMAGE_TTY_INFO, 0);
	for (size_t i = 0; !result && i < terminals->count; i++) {
		result = image_write(image, &terminals->items[i]->base);
		if (!result && terminal_is_master(terminals->items[i]))
			result = terminal_save_data(snapshot, &waiting, terminals->items[i]);
	}
	result = image_close(waiting) ?: result;
	return image_close(image) ?: result;
}

static void terminal_let_go(struct snapshot *snapshot, enum dump_end end unused)
{
	terminals_free(terminals_of(snapshot));
}

static uint32_t terminal_path(const struct file *file)
{
	return file->entry->tty->regf_id;
}

/* Both ends of each pair, and the terminal that criu was started from. */
static size_t terminal_keeps(const struct snapshot *snapshot)
{
	size_t count = terminals_of(snapshot)->count;

	return count ? 2 * count + 1 : 0;
}

const struct file_kind file_kind_terminal = {
	.name = "terminal",
	.type = FD_TYPES__TTY,
	.message = offsetof(FileEntry, tty),
	.state_size = sizeof(struct terminals),
	.recognizes = terminal_recognizes,
	.fdinfo = terminal_fdinfo,
	.describe = terminal_describe,
	.judge = terminal_judge,
	.save = save_terminals,
	.let_go = terminal_let_go,
	.path = terminal_path,
	.load = terminals_load,
	.external_key = terminal_external_key,
	.check_external = terminal_check_external,
	.open_external = terminal_open_external,
	.check = terminal_check,
	.open = terminal_open,
	.pass = terminals_pass,
	.settle = terminal_settle,
	.close = terminals_close,
	.keeps = terminal_keeps,
};
