/*
 * terminal_external.c - restore: terminals that exist already: those that the user names (--inherit-fd
 * fd[N]:tty[RDEV:DEV]), and the settings of devices. See terminal.h.
 *
 * The processes share the open file description with criu's starter, because a master cannot be opened again: that
 * would make another pair. Settings and size become those of the images, when only the death of criu can still make the
 * restore fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kinds/terminal.h"

bool terminal_external_key(const struct snapshot *snapshot, const struct file *file, struct external_key *key)
{
	const TtyInfoEntry *info = terminal_find(snapshot, file->entry->tty->tty_info_id);

	if (!info || info->type != TTY_TYPE__EXT_TTY)
		return false;
	*key = (struct external_key){ EXTERNAL_TTY, { info->rdev, info->dev }, NULL };
	return true;
}

int terminal_check_external(struct snapshot *snapshot unused, struct file *file, const struct stat *found)
{
	bool is_terminal = S_ISCHR(found->st_mode) && isatty(file->external->fd);

	return is_terminal ? 0 : file_is_wrong_external(file, "a terminal");
}

int terminal_open_external(struct snapshot *snapshot unused, struct file *file)
{
	return file_share_external(file);
}

int terminal_shared_fd(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_terminal);

	for (size_t i = 0; i < files->count; i++) {
		const struct file *file = files->items[i];

		if (file->entry->tty->tty_info_id == info->id &&
		    (file->external || (info->type != TTY_TYPE__EXT_TTY && file->fd >= 0)))
			return file->external ? file->external->fd : file->fd;
	}
	return -1;
}

/* ---- settings ---- */

static int dress(struct terminals *terminals, const TtyInfoEntry *info, int fd)
{
	struct dressed_terminal *old = grow(&terminals->dressed, &terminals->dressed_count);

	old->fd = fd;
	if (ioctl(fd, TCGETS, &old->settings) < 0 || ioctl(fd, TIOCGWINSZ, &old->size) < 0) {
		terminals->dressed_count--;
		return fail(errno, "cannot read the settings of terminal %u", info->id);
	}
	return terminal_set_settings(fd, info);
}

int terminals_dress_external(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < terminals->count; i++) {
		const TtyInfoEntry *info = terminals->items[i];
		bool is_shared = info->type != TTY_TYPE__PTY && info->type != TTY_TYPE__CTTY;
		int fd = is_shared ? terminal_shared_fd(snapshot, info) : -1;

		if (fd >= 0)
			result = dress(terminals, info, fd);
	}
	return result;
}

void terminals_undress_external(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);

	/* The last one first: several terminals of the images may be the same one now. */
	while (terminals->dressed_count > 0) {
		const struct dressed_terminal *old = &terminals->dressed[--terminals->dressed_count];

		ioctl(old->fd, TIOCSWINSZ, &old->size);
		ioctl(old->fd, TCSETS, &old->settings);
	}
}
