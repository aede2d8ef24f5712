/*
 * terminal_restore.c - restore: terminals. See terminal.h.
 *
 * An inner terminal needs its old number, because programs know its name: /dev/ptmx is opened until the kernel returns
 * that number. If the number is in use, another one will do, unless an image names the terminal by its path. The
 * session that it controls is set right after setsid(), before there are children to inherit it. The foreground group
 * is set when all groups exist. The outer terminal is changed last, when only the death of criu can still make the
 * restore fail.
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

TtyInfoEntry *terminal_find_master(const struct snapshot *snapshot, uint32_t index)
{
	return index_find(&terminals_of(snapshot)->masters, index);
}

static int add_record(struct terminals *terminals, TtyInfoEntry *info)
{
	bool is_known = index_find(&terminals->by_id, info->id);

	terminals_add(terminals, info);
	if (is_known)
		return fail(EINVAL, "tty-info.img: terminal %u occurs twice", info->id);
	if (info->type == TTY_TYPE__PTY && !info->pty)
		return fail(EINVAL, "tty-info.img: terminal %u has no number", info->id);
	if (terminal_is_master(info) && !index_find(&terminals->masters, info->pty->index))
		index_set(&terminals->masters, info->pty->index, info);
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

/* Images of criu 4.2 may also have consoles and serial lines. */
static bool is_of_known_type(const TtyInfoEntry *info)
{
	return info->type == TTY_TYPE__CTTY || info->type == TTY_TYPE__PTY;
}

static bool is_inner(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	if (info->type == TTY_TYPE__CTTY)
		return snapshot_find_task(snapshot, info->sid);
	return info->pty && terminal_find_master(snapshot, info->pty->index);
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

int terminal_check(struct snapshot *snapshot, struct file *file)
{
	const TtyInfoEntry *info = terminal_find(snapshot, file->entry->tty->tty_info_id);
	struct external_key key;

	if (!info)
		return fail(EINVAL, "files.img: file %u is a terminal that is missing in tty-info.img",
			    file->id);
	if (terminal_external_key(snapshot, file, &key))
		return file_lacks_external(&key);
	if (!is_of_known_type(info))
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
		if (is_of_known_type(terminals->items[i]) && !is_inner(snapshot, terminals->items[i]))
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

/* ---- inner terminals ---- */

static int open_master(struct pair *pair)
{
	pair->master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (pair->master < 0 || ioctl(pair->master, TIOCGPTN, &pair->number) < 0)
		return fail(errno, "cannot create a terminal");
	return 0;
}

/*
 * Chooses from the pairs that the kernel has returned so far. It returns the lowest free number first. NULL: none fits
 * yet.
 */
static struct pair *choose_pair(const struct snapshot *snapshot, struct pair *given, size_t count,
				uint32_t wanted)
{
	if (given[count - 1].number == wanted)
		return &given[count - 1];
	/*
	 * A higher number means that the wanted one is in use. Then any will do that no other terminal of the tree
	 * needs.
	 */
	for (size_t i = 0; given[count - 1].number > wanted && i < count; i++)
		if (!terminal_find_master(snapshot, given[i].number))
			return &given[i];
	return NULL;
}

/* Closes the other terminals that the kernel returns meanwhile. */
static int find_number(const struct snapshot *snapshot, struct pair *pair)
{
	struct pair *given = NULL, *chosen = NULL;
	size_t count = 0;
	int result = 0;

	while (!result && !chosen) {
		struct pair *next = grow(&given, &count);

		result = open_master(next);
		if (!result)
			chosen = choose_pair(snapshot, given, count, pair->index);
	}
	if (chosen) {
		pair->number = chosen->number;
		pair->master = steal_fd(&chosen->master);
	}
	for (size_t i = 0; i < count; i++)
		if (given[i].master >= 0)
			close(given[i].master);
	free(given);
	return result;
}

/* Finds a file that was opened by the path of the terminal with O_PATH: it refers to the path, not to the terminal. */
static const struct file *find_by_path(const struct snapshot *snapshot, uint32_t index)
{
	autofree char *name = format_text("/dev/pts/%u", index);

	const struct file_list *files = files_of_kind(snapshot, &file_kind_regular);

	for (size_t i = 0; i < files->count; i++) {
		const struct file *file = files->items[i];

		if (!file->is_only_path && !strcmp(file->entry->reg->name, name))
			return file;
	}
	return NULL;
}

/* With another number, the path differs. */
static int check_number(const struct snapshot *snapshot, const struct pair *pair)
{
	autofree char *holder = NULL;
	const struct file *named;

	if (pair->number == pair->index)
		return 0;
	holder = terminal_holder(pair->index);
	named = find_by_path(snapshot, pair->index);
	if (named)
		return fail(EEXIST, "%s uses terminal /dev/pts/%u, which file %u of files.img refers to",
			    holder ?: "another process", pair->index, named->id);
	log_warning("%s uses terminal /dev/pts/%u: the restored terminal is /dev/pts/%u instead",
		    holder ?: "another process", pair->index, pair->number);
	return 0;
}

/* Sets owner, mode and times of the slave's file. criu 4.2 stores the owner in a file of the slave, if there is one. */
static int dress_slave(const struct snapshot *snapshot, const TtyInfoEntry *master, const struct pair *pair)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_terminal);
	TtyInfoEntry slave = *master;

	for (size_t i = 0; !master->has_slave_mode && i < files->count; i++) {
		const TtyInfoEntry *info = terminal_find(snapshot, files->items[i]->entry->tty->tty_info_id);
		const struct file *path = info->pty ? file_path(snapshot, files->items[i]) : NULL;

		if (!path || terminal_is_master(info) || info->pty->index != pair->index ||
		    !path->entry->reg->has_mode)
			continue;
		slave.has_slave_mode = true;
		slave.slave_uid = info->uid;
		slave.slave_gid = info->gid;
		slave.slave_mode = path->entry->reg->mode & 07777;
	}
	if (slave.has_slave_mode && (fchown(pair->slave, slave.slave_uid, slave.slave_gid) < 0 ||
				     fchmod(pair->slave, slave.slave_mode) < 0))
		return fail(errno, "cannot give terminal %u its owner", pair->index);
	if (!inode_times_are_possible(master->slave_times) ||
	    inode_set_times(pair->slave, master->slave_times) < 0)
		return fail(errno, "cannot set the times of terminal %u", pair->index);
	if (master->exclusive && ioctl(pair->slave, TIOCEXCL) < 0)
		return fail(errno, "cannot make terminal %u exclusive", pair->index);
	return 0;
}

static int make_pair(const struct snapshot *snapshot, const TtyInfoEntry *info, struct pair *pair)
{
	int zero = 0, packets = info->packet_mode, result;
	autofree char *name = NULL;

	pair->index = info->pty->index;
	pair->master = pair->slave = -1;
	result = find_number(snapshot, pair) ?: check_number(snapshot, pair);
	if (result)
		return result;
	name = format_text("/dev/pts/%u", pair->number);
	if (ioctl(pair->master, TIOCSPTLCK, &zero) < 0)
		return fail(errno, "cannot unlock terminal %u", pair->index);
	pair->slave = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (pair->slave < 0)
		return fail(errno, "cannot open %s", name);
	result = terminal_put_data(snapshot, pair, info)	  ?:
			 terminal_set_settings(pair->slave, info) ?:
								    dress_slave(snapshot, info, pair);
	/* Last, because a reader of a master in packet mode is told of every change to the terminal. */
	if (!result && packets && ioctl(pair->master, TIOCPKT, &packets) < 0)
		result = fail(errno, "cannot set the packet mode of terminal %u", pair->index);
	return result;
}

static struct pair *known_pair(const struct snapshot *snapshot, uint32_t index)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->pair_count; i++)
		if (terminals->pairs[i].index == index)
			return &terminals->pairs[i];
	return NULL;
}

static struct pair *find_pair(struct snapshot *snapshot, uint32_t index)
{
	struct terminals *terminals = terminals_of(snapshot);
	struct pair *pair = known_pair(snapshot, index);

	if (pair)
		return pair;
	pair = grow(&terminals->pairs, &terminals->pair_count);
	return make_pair(snapshot, terminal_find_master(snapshot, index), pair) ? NULL : pair;
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
		if ((info->type == TTY_TYPE__EXT_TTY && terminal_external_fd(snapshot, info) >= 0) ||
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

static int open_inner(struct snapshot *snapshot, const TtyInfoEntry *info, int flags)
{
	struct pair *pair;

	/* Only the session itself can open its /dev/tty: until then, a placeholder. */
	if (info->type == TTY_TYPE__CTTY) {
		if (!terminal_of_session(snapshot, info->sid))
			log_warning("session %u had a terminal, which cannot be restored: its /dev/tty is "
				    "/dev/null now",
				    info->sid);
		return open_nothing(flags);
	}
	pair = find_pair(snapshot, info->pty->index);
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

int terminal_open(struct snapshot *snapshot, struct file *file)
{
	const TtyFileEntry *entry = file->entry->tty;
	const TtyInfoEntry *info = terminal_find(snapshot, entry->tty_info_id);
	int flags = entry->flags & ~(O_CREAT | O_EXCL | O_TRUNC);

	return is_inner(snapshot, info) ? open_inner(snapshot, info, flags) :
					  open_outer(snapshot, info, flags);
}

/* ---- sessions ---- */

/* Also NULL for a task that leads no session. */
static const TtyInfoEntry *terminal_of_leader(const struct snapshot *snapshot, const struct task *task)
{
	return task->session == task->pid ? terminal_of_session(snapshot, task->pid) : NULL;
}

static int open_slave(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	autofree char *name = NULL;
	const struct pair *pair;
	int fd;

	if (info->type == TTY_TYPE__EXT_TTY)
		return fcntl(terminal_external_fd(snapshot, info), F_DUPFD_CLOEXEC, 0);
	if (!is_inner(snapshot, info))
		return fcntl(terminals_of(snapshot)->ours, F_DUPFD_CLOEXEC, 0);
	pair = known_pair(snapshot, info->pty->index);
	name = format_text("/dev/pts/%u", pair ? pair->number : info->pty->index);
	fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? fail(errno, "cannot open %s", name) : fd;
}

/* Replaces the placeholder by the session's own /dev/tty. */
static int open_controlling_files(struct snapshot *snapshot, uint32_t session)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_terminal);

	for (size_t i = 0; i < files->count; i++) {
		const TtyFileEntry *entry = files->items[i]->entry->tty;
		const TtyInfoEntry *other = terminal_find(snapshot, entry->tty_info_id);
		autoclose int own = -1;

		if (other->type != TTY_TYPE__CTTY || other->sid != session)
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
	autoclose int fd = info ? open_slave(snapshot, info) : -1;

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
	fd = open_slave(snapshot, info);
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

	for (size_t i = 0; i < terminals->pair_count; i++) {
		if (terminals->pairs[i].master >= 0)
			close(terminals->pairs[i].master);
		if (terminals->pairs[i].slave >= 0)
			close(terminals->pairs[i].slave);
	}
	if (terminals->ours >= 0)
		close(terminals->ours);
	for (size_t i = 0; i < terminals->data_count; i++)
		image_free(terminals->data[i]);
	free(terminals->data);
	free(terminals->pairs);
	free(terminals->old_size);
	free(terminals->dressed);
	terminals->dressed = NULL;
	terminals->dressed_count = 0;
	terminals_free(terminals);
}
