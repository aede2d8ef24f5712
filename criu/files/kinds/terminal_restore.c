/*
 * terminal_restore.c - restore: terminals. See terminal.h.
 *
 * The session that a terminal controls is set right after setsid(), before there are children to inherit it. The
 * foreground group is set when all groups exist. The outer terminal, and consoles, are changed last, when only the
 * death of criu can still make the restore fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kinds/terminal.h"
#include "image/image.h"
#include "model/inode.h"

static bool is_pair_or_controlling(const TtyInfoEntry *info)
{
	return info->type == TTY_TYPE__CTTY || info->type == TTY_TYPE__PTY;
}

static int add_record(struct terminals *terminals, TtyInfoEntry *info)
{
	bool is_known = index_find(&terminals->by_id, info->id);

	terminals_add(terminals, info);
	if (is_known)
		return fail(EINVAL, "tty-info.img: terminal %u occurs twice", info->id);
	if (info->type == TTY_TYPE__PTY && !info->pty)
		return fail(EINVAL, "tty-info.img: terminal %u has no number", info->id);
	if (info->pty && info->pty->index >= MOST_TERMINALS)
		return fail(EINVAL, "tty-info.img: terminal %u has an impossible number", info->id);
	if (terminal_is_master(info) && !index_find(&terminals->masters, info->pty->index))
		index_set(&terminals->masters, info->pty->index, info);
	/* criu 4.2 has no other mark. */
	if (!terminal_is_master(info) && is_pair_or_controlling(info) && !info->termios)
		info->hung_up = true;
	if (info->hung_up && info->pty)
		index_set(&terminals->hung_up_numbers, info->pty->index, info);
	return 0;
}

int terminals_load(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);
	TtyInfoEntry *info;
	struct image *image;
	int result;

	terminals->ours = -1;
	result = image_open(snapshot->images, &image, IMAGE_TTY_INFO, 0);
	if (result == -ENOENT && !files_of_kind(snapshot, &file_kind_terminal)->count)
		return 0;
	if (result)
		return result == -ENOENT ? fail(ENOENT, "tty-info.img is missing") : result;
	while ((result = image_read_as(image, tty_info_entry, &info)) > 0) {
		result = add_record(terminals, info);
		if (result)
			break;
	}
	image_close_read(image);
	return result ?: terminal_load_data(snapshot);
}

static bool is_device(const TtyInfoEntry *info)
{
	return info->type == TTY_TYPE__CONSOLE || info->type == TTY_TYPE__VT ||
	       info->type == TTY_TYPE__SERIAL;
}

static bool is_inner(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	if (info->hung_up)
		return true;
	if (info->type == TTY_TYPE__CTTY && !info->pty)
		return snapshot_find_task(snapshot, info->sid);
	return terminal_master_of(snapshot, info);
}

/*
 * Each file of the terminal opens it again. The terminal must allow that: one of another user may not, and neither may
 * an exclusive one.
 */
static int open_if_terminal(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return isatty(fd) ? open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC) : -1;
}

/*
 * The terminal that criu was started from: the first of its standard files that is one, or the controlling terminal of
 * its session.
 */
static void find_ours(struct terminals *terminals)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO && terminals->ours < 0; fd++)
		terminals->ours = open_if_terminal(fd);
	if (terminals->ours < 0)
		terminals->ours = open("/dev/tty", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (terminals->ours < 0)
		log_warning(
			"the processes had a terminal and criu has none: they get /dev/null, which has no "
			"input and discards output");
	terminals->is_needed = true;
}

/* A console or a line is opened again by its path. */
static int check_device(const struct snapshot *snapshot, const struct file *file, const TtyInfoEntry *info)
{
	const struct file *path = file_path(snapshot, file);
	const char *name = path ? path->entry->reg->name : NULL;
	struct stat found;

	if (!name || name[0] != '/')
		return fail(EINVAL, "files.img: file %u is a console or a serial line without a path",
			    file->id);
	if (stat(name, &found) < 0)
		return fail(errno, "%s, a terminal of the processes, cannot be found", name);
	if (!S_ISCHR(found.st_mode) || found.st_rdev != info->rdev)
		return fail(0, "%s is not the terminal now that the processes had (device %u:%u)", name,
			    major(info->rdev), minor(info->rdev));
	return 0;
}

int terminal_check(struct snapshot *snapshot, struct file *file)
{
	const TtyInfoEntry *info = terminal_find(snapshot, file->entry->tty->tty_info_id);
	struct external_key key;

	if (!info)
		return fail(EINVAL, "files.img: file %u is a terminal that is missing in tty-info.img",
			    file->id);
	if (terminal_external_key(snapshot, file, &key))
		return file_lacks_external(snapshot, &key);
	if (is_device(info))
		return check_device(snapshot, file, info);
	if (!is_pair_or_controlling(info))
		return fail(EINVAL,
			    "files.img: file %u is a terminal of a kind that is not supported yet (%d)",
			    file->id, info->type);
	if (is_inner(snapshot, info))
		return 0;
	if (!snapshot->policy.shell_job) {
		fail_advice("--shell-job (-j), to give the processes this terminal");
		return fail(0, "the processes belong to a terminal that is not part of the images");
	}
	if (!terminals_of(snapshot)->is_needed)
		find_ours(terminals_of(snapshot));
	return 0;
}

bool terminal_is_replaced(const struct file *file)
{
	struct stat now;

	return file->kind == &file_kind_terminal && fstat(file->fd, &now) == 0 && now.st_rdev == NULL_DEVICE;
}

/* ---- the outer terminal ---- */

/* The group of the tree that was in the foreground of the outer terminal; 0: none. */
static pid_t foreground_group(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	const struct task *root = snapshot->root, *task;
	pid_t group = info->pgrp;

	/*
	 * A session of the tree has its own record. If the shell's own group was in the foreground, the group of the
	 * tree takes its place.
	 */
	if (!group || snapshot_find_task(snapshot, info->sid) ||
	    (group == root->group && !snapshot_find_task(snapshot, group)))
		return 0;
	for_each_task (task, snapshot) {
		if (task->group == group && task->session == (pid_t)info->sid)
			return group;
	}
	return 0;
}

/* A process that changes a terminal from the background is stopped, unless it blocks the signal. */
static void block_stop(sigset_t *old)
{
	sigset_t stop;

	sigemptyset(&stop);
	sigaddset(&stop, SIGTTOU);
	sigprocmask(SIG_BLOCK, &stop, old);
}

static int change_ours(struct terminals *terminals, const TtyInfoEntry *outer, pid_t foreground)
{
	int result;

	terminals->is_changed = true;
	result = terminal_set_settings(terminals->ours, outer);
	if (!result && foreground && tcsetpgrp(terminals->ours, foreground) < 0)
		result = fail(errno, "cannot put process group %d into the foreground of the terminal",
			      foreground);
	return result;
}

static int hand_over_ours(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);
	const TtyInfoEntry *outer = NULL;
	bool is_foreground;

	for (size_t i = 0; terminals->ours >= 0 && i < terminals->count && !outer; i++)
		if (is_pair_or_controlling(terminals->items[i]) && !is_inner(snapshot, terminals->items[i]))
			outer = terminals->items[i];
	if (!outer)
		return 0;
	terminals->old_size = allocate(sizeof(*terminals->old_size));
	if (ioctl(terminals->ours, TCGETS, &terminals->old_settings) < 0 ||
	    ioctl(terminals->ours, TIOCGWINSZ, terminals->old_size) < 0)
		return fail(errno, "cannot read the settings of the terminal");
	terminals->old_foreground = tcgetpgrp(terminals->ours);
	is_foreground = terminals->old_foreground == getpgrp();
	return change_ours(terminals, outer, is_foreground ? foreground_group(snapshot, outer) : 0);
}

static void take_back_ours(struct terminals *terminals)
{
	if (terminals->old_foreground > 0)
		tcsetpgrp(terminals->ours, terminals->old_foreground);
	ioctl(terminals->ours, TIOCSWINSZ, terminals->old_size);
	ioctl(terminals->ours, TCSETS, &terminals->old_settings);
	terminals->is_changed = false;
}

int terminals_hand_over(struct snapshot *snapshot)
{
	sigset_t old;
	int result;

	block_stop(&old);
	result = hand_over_ours(snapshot) ?: terminals_dress_external(snapshot);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return result;
}

void terminals_take_back(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);
	sigset_t old;

	block_stop(&old);
	terminals_undress_external(snapshot);
	if (terminals->is_changed)
		take_back_ours(terminals);
	sigprocmask(SIG_SETMASK, &old, NULL);
}

/* ---- files ---- */

/* The terminal that controls the session `id`, if it is in the images and can be restored. */
static const TtyInfoEntry *terminal_of_session(const struct snapshot *snapshot, uint32_t id)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->count; i++) {
		const TtyInfoEntry *info = terminals->items[i];

		if (info->sid != id)
			continue;
		if ((info->type == TTY_TYPE__EXT_TTY && terminal_shared_fd(snapshot, info) >= 0) ||
		    is_device(info) ||
		    (info->type == TTY_TYPE__PTY && (is_inner(snapshot, info) || terminals->ours >= 0)))
			return info;
	}
	return NULL;
}

static int terminal_open_again(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, flags | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? fail(errno, "cannot open a terminal") : fd;
}

static int open_nothing(int flags)
{
	int fd = open("/dev/null", (flags & O_ACCMODE) | O_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot open /dev/null") : fd;
}

/*
 * Only the session itself can open its /dev/tty: until then, a placeholder. That of a terminal which controls no
 * session, or no longer that of the file's opener, is opened by a process that it controls for a moment.
 */
static int open_inner_controlling(struct snapshot *snapshot, const TtyInfoEntry *info, int flags)
{
	const struct pair *pair;

	if (info->hung_up || info->pty) {
		pair = terminal_need_pair(snapshot, info);
		return pair ? terminal_open_as_controlling(pair->slave, flags) : -EINVAL;
	}
	if (!terminal_of_session(snapshot, info->sid))
		log_warning("session %u had a terminal, which cannot be restored: its /dev/tty is "
			    "/dev/null now",
			    info->sid);
	return open_nothing(flags);
}

static int open_inner(struct snapshot *snapshot, const TtyInfoEntry *info, int flags)
{
	const struct pair *pair;

	if (info->type == TTY_TYPE__CTTY)
		return open_inner_controlling(snapshot, info, flags);
	pair = terminal_need_pair(snapshot, info);
	if (!pair)
		return -EINVAL;
	return terminal_is_master(info) ? fcntl(pair->master, F_DUPFD_CLOEXEC, 0) :
					  terminal_open_again(pair->slave, flags);
}

/*
 * Opens /dev/tty. If criu's session has no controlling terminal, the terminal that criu was started from takes its
 * place; without that, /dev/null.
 */
static int open_controlling(const struct snapshot *snapshot, int flags)
{
	int fd = open("/dev/tty", flags | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	return terminals_of(snapshot)->ours < 0 ? open_nothing(flags) :
						  terminal_open_again(terminals_of(snapshot)->ours, flags);
}

static int open_outer(const struct snapshot *snapshot, const TtyInfoEntry *info, int flags)
{
	if (info->type == TTY_TYPE__CTTY)
		return open_controlling(snapshot, flags);
	return terminals_of(snapshot)->ours < 0 ? open_nothing(flags) :
						  terminal_open_again(terminals_of(snapshot)->ours, flags);
}

static int open_device(const char *name, int flags)
{
	int fd = open(name, flags | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot open the terminal %s", name) : fd;
}

int terminal_open(struct snapshot *snapshot, struct file *file)
{
	const TtyFileEntry *entry = file->entry->tty;
	const TtyInfoEntry *info = terminal_find(snapshot, entry->tty_info_id);
	int flags = entry->flags & ~(O_CREAT | O_EXCL | O_TRUNC);

	if (is_device(info))
		return open_device(file_path(snapshot, file)->entry->reg->name, flags);
	return is_inner(snapshot, info) ? open_inner(snapshot, info, flags) :
					  open_outer(snapshot, info, flags);
}

/* ---- sessions ---- */

/* Also NULL for a task that leads no session. */
static const TtyInfoEntry *terminal_of_leader(const struct snapshot *snapshot, const struct task *task)
{
	return task->session == task->pid ? terminal_of_session(snapshot, task->pid) : NULL;
}

static int copy_slave(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	const struct pair *pair = is_inner(snapshot, info) ? terminal_known_pair(snapshot, info) : NULL;
	int fd = pair ? pair->slave : terminals_of(snapshot)->ours;

	if (info->type == TTY_TYPE__EXT_TTY || is_device(info))
		fd = terminal_shared_fd(snapshot, info);
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? fail(errno, "cannot copy the descriptor of terminal %u", info->id) : fd;
}

/* Replaces the placeholder by the session's own /dev/tty. */
static int open_controlling_files(struct snapshot *snapshot, uint32_t session)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_terminal);

	for (size_t i = 0; i < files->count; i++) {
		const TtyFileEntry *entry = files->items[i]->entry->tty;
		const TtyInfoEntry *other = terminal_find(snapshot, entry->tty_info_id);
		autoclose int own = -1;

		if (other->type != TTY_TYPE__CTTY || other->hung_up || other->pty || other->sid != session)
			continue;
		own = open_controlling(snapshot, entry->flags);
		if (own < 0)
			return own;
		if (fcntl(own, F_SETFL, entry->flags) < 0 || dup3(own, files->items[i]->fd, O_CLOEXEC) < 0)
			return fail(errno, "cannot move /dev/tty to its descriptor");
	}
	return 0;
}

int terminal_take_control(struct snapshot *snapshot, const struct task *task)
{
	const TtyInfoEntry *info = terminal_of_leader(snapshot, task);
	autoclose int fd = info ? copy_slave(snapshot, info) : -1;

	if (!info || fd < 0)
		return info ? fd : 0;
	if (ioctl(fd, TIOCSCTTY, 0) < 0) {
		if (is_inner(snapshot, info))
			return fail(errno, "cannot make terminal %u the controlling terminal of its session",
				    info->pty->index);
		log_warning(
			"session %d had a controlling terminal; this terminal already controls criu's session, so the session has none now",
			task->pid);
	}
	return open_controlling_files(snapshot, info->sid);
}

int terminal_settle(struct snapshot *snapshot, struct task *task)
{
	const TtyInfoEntry *info = terminal_of_leader(snapshot, task);
	autoclose int fd = -1;
	pid_t group = info ? info->pgrp : 0;

	if (!group || group == task->group)
		return 0;
	fd = copy_slave(snapshot, info);
	if (fd < 0)
		return fd;
	/* The group may have ended unnoticed by the terminal; an outer terminal may control another session. */
	if (ioctl(fd, TIOCSPGRP, &group) < 0 && errno != ESRCH && is_inner(snapshot, info))
		return fail(errno, "cannot put process group %d into the foreground of terminal %u", group,
			    info->pty->index);
	return 0;
}

void terminals_pass(struct snapshot *snapshot, struct letter *letter)
{
	struct terminals *terminals = terminals_of(snapshot);

	letter_array(letter, &terminals->pairs, &terminals->pair_count);
}

void terminals_close(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);

	terminals_close_pairs(terminals);
	if (terminals->ours >= 0)
		close(terminals->ours);
	for (size_t i = 0; i < terminals->data_count; i++)
		image_free(terminals->data[i]);
	free(terminals->data);
	free(terminals->old_size);
	free(terminals->dressed);
	terminals->dressed = NULL;
	terminals->dressed_count = 0;
	terminals_free(terminals);
}
