/*
 * terminal_settings.c - restore: settings and size of a terminal, from its record. See terminal.h.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/error.h"
#include "base/log.h"
#include "files/kinds/terminal.h"

bool terminal_read_termios(const TermiosEntry *entry, struct kernel_termios *settings)
{
	if (!entry || entry->n_c_cc * sizeof(*entry->c_cc) < CONTROL_CHARACTERS)
		return false;
	*settings = (struct kernel_termios){
		.input = entry->c_iflag,
		.output = entry->c_oflag,
		.control = entry->c_cflag,
		.local = entry->c_lflag,
		.line = entry->c_line,
	};
	memcpy(settings->characters, entry->c_cc, CONTROL_CHARACTERS);
	return true;
}

bool terminal_settings(const TtyInfoEntry *info, struct kernel_termios *settings)
{
	return terminal_read_termios(info->termios, settings);
}

int terminal_set_settings(int fd, const TtyInfoEntry *info)
{
	const WinsizeEntry *size = info->winsize;
	struct winsize wanted = { 0 }, now = { 0 };
	struct kernel_termios settings;

	if (terminal_settings(info, &settings) && ioctl(fd, TCSETS, &settings) < 0)
		return fail(errno, "cannot restore the settings of a terminal");
	if (!size)
		return 0;
	wanted = (struct winsize){ size->ws_row, size->ws_col, size->ws_xpixel, size->ws_ypixel };
	if (ioctl(fd, TIOCGWINSZ, &now) == 0 && !memcmp(&now, &wanted, sizeof(now)))
		return 0;
	if (ioctl(fd, TIOCSWINSZ, &wanted) == 0)
		return 0;
	if (info->type != TTY_TYPE__VT && info->type != TTY_TYPE__CONSOLE)
		return fail(errno, "cannot set the size of a terminal");
	/* That of a virtual console is the machine's: the kernel may refuse another one. */
	log_warning("terminal %u had %u rows and %u columns, and has %u and %u now", info->id, wanted.ws_row,
		    wanted.ws_col, now.ws_row, now.ws_col);
	return 0;
}
