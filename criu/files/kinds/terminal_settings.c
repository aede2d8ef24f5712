/*
 * terminal_settings.c - restore: settings and size of a terminal, from its record. See terminal.h.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/error.h"
#include "files/kinds/terminal.h"

bool terminal_settings(const TtyInfoEntry *info, struct kernel_termios *settings)
{
	const TermiosEntry *entry = info->termios;

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

int terminal_set_settings(int fd, const TtyInfoEntry *info)
{
	const WinsizeEntry *size = info->winsize;
	struct winsize wanted = { 0 };
	struct kernel_termios settings;

	if (terminal_settings(info, &settings) && ioctl(fd, TCSETS, &settings) < 0)
		return fail(errno, "cannot restore the settings of a terminal");
	if (!size)
		return 0;
	wanted = (struct winsize){ size->ws_row, size->ws_col, size->ws_xpixel, size->ws_ypixel };
	return ioctl(fd, TIOCSWINSZ, &wanted) < 0 ? fail(errno, "cannot set the size of a terminal") : 0;
}
