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
	for (size_t i = 0; i < terminals->seen_count; i++)
		free(terminals->seen[i]);
	index_free(&terminals->by_id);
	index_free(&terminals->masters);
	index_free(&terminals->by_identity);
	index_free(&terminals->slaves);
	index_free(&terminals->controlled);
	index_free(&terminals->hung_up_numbers);
	free(terminals->items);
	free(terminals->seen);
	free(terminals->stats);
	*terminals = (struct terminals){ .ours = -1 };
}

/* Serial lines (4 from 64 on, 204), modems (166), USB (188), consoles of hypervisors (229), virtual consoles (4). */
static bool is_terminal_device(unsigned number)
{
	return number == 4 || number == 5 || number == 166 || number == 188 || number == 204 ||
	       number == 229 || (number >= PTS_MAJOR && number < PTS_MAJOR + 8);
}

static bool terminal_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return seen->link[0] == '/' && S_ISCHR(seen->stat.st_mode) && seen->fd >= 0 &&
	       !(seen->info.flags & O_PATH) && is_terminal_device(major(seen->stat.st_rdev));
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
		return terminal_note_master(snapshot, file, strtoul(value, NULL, 10));
	return 0;
}

static bool tree_has_master(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	return index_find(&terminals_of(snapshot)->masters, terminal_pair_key(info));
}

static int refuse_terminal(const struct seen_file *seen, const char *why)
{
	return refuse("process %d (%s): descriptor %d (%s) %s", seen->holder.here, seen->holder.name,
		      seen->fd, seen->link, why);
}

/* ---- can it be saved? ---- */

/* Is there another outer terminal among those found before it? */
static bool is_another_outer(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->count && terminals->items[i] != info; i++) {
		const TtyInfoEntry *other = terminals->items[i];

		if (other->type == TTY_TYPE__PTY && info->type == TTY_TYPE__PTY && !other->hung_up &&
		    terminal_pair_key(other) != terminal_pair_key(info) && !tree_has_master(snapshot, other))
			return true;
	}
	return false;
}

static int check_outer(const struct snapshot *snapshot, const struct seen_file *seen,
		       const TtyInfoEntry *info)
{
	if (!snapshot->policy.shell_job) {
		file_advise_shell_job(snapshot, seen);
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
	autoclose int fd = -1;
	int session = 0;

	if (!terminal_is_master(info))
		return 0;
	if (terminal_is_elsewhere(info)) {
		file_advise_external(snapshot, seen);
		return refuse_terminal(
			seen,
			"is the master of a terminal in another devpts than that at /dev/pts, which is not supported yet");
	}
	fd = files_borrow(seen);
	if (fd < 0)
		return fd;
	if (ioctl(fd, TIOCGSID, &session) == 0 && session && !snapshot_find_task_here(snapshot, session))
		return refuse_terminal(seen,
				       "is the master of a terminal whose session is not part of the tree");
	return 0;
}

static bool is_inner_terminal(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	if (info->type == TTY_TYPE__CTTY && !info->pty)
		return snapshot_find_task(snapshot, info->sid);
	return tree_has_master(snapshot, info);
}

/* The path of a pty or of /dev/tty, wherever it leads to now: nothing will be opened by it. */
static int add_old_path(struct snapshot *snapshot, const struct file *file, uint32_t *id)
{
	autofree char *name = format_text("/dev/pts/%u", terminal_index(file->seen));
	struct seen_file seen = *file->seen;
	struct file old = *file;

	if (!seen.stat.st_nlink)
		seen.link = name;
	seen.is_at_path = true;
	seen.stat.st_nlink = 1;
	old.seen = &seen;
	return files_add_path_of(snapshot, &old, id);
}

static int terminal_describe(struct snapshot *snapshot, struct file *file)
{
	TtyFileEntry *entry = file->entry->tty;
	TtyInfoEntry *info = NULL;
	int result = terminal_describe_file(snapshot, file, &info);

	if (result)
		return result;
	entry->tty_info_id = info->id;
	if (file->external)
		return 0;
	entry->has_regf_id = true;
	return info->pty || info->type == TTY_TYPE__CTTY ? add_old_path(snapshot, file, &entry->regf_id) :
							   files_add_path_of(snapshot, file, &entry->regf_id);
}

static int check_terminal(const struct snapshot *snapshot, const struct seen_file *seen,
			  const TtyInfoEntry *info)
{
	if (info->hung_up || (info->type != TTY_TYPE__CTTY && info->type != TTY_TYPE__PTY))
		return 0;
	return is_inner_terminal(snapshot, info) ? check_inner(snapshot, seen, info) :
						   check_outer(snapshot, seen, info);
}

/* The leader of the session opens it again (terminal_take_control()): one in flight would be another file then. */
static int check_flight(struct snapshot *snapshot, const struct file *file)
{
	const TtyInfoEntry *info = terminal_find(snapshot, file->entry->tty->tty_info_id);

	if (!file->is_in_flight || !info || info->type != TTY_TYPE__CTTY || info->pty || info->hung_up)
		return 0;
	return refuse_terminal(
		file->seen,
		"is /dev/tty, and an unread message of a socket has it, too: it must be read first");
}

static int check_flights(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_terminal);
	int result = 0;

	for (size_t i = 0; !result && i < files->count; i++)
		result = unless_refused(check_flight(snapshot, files->items[i]));
	return result;
}

/* Only when all files are known, because the master may be the last. */
static int terminal_judge(struct snapshot *snapshot)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->count; i++) {
		int result = check_terminal(snapshot, terminals->seen[i]->file, terminals->items[i]);

		if (unless_refused(result))
			return result;
	}
	return check_flights(snapshot) ?: terminal_check_control(snapshot);
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
		if (terminal_is_master(terminals->items[i]))
			result = terminal_save_data(snapshot, &waiting, terminals->items[i]);
		result = result ?: image_write(image, &terminals->items[i]->base);
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
	.join = terminals_join,
	.pass = terminals_pass,
	.settle = terminal_settle,
	.close = terminals_close,
	.keeps = terminal_keeps,
};
