/*
 * kinds.c - the table of the supported kinds of files.
 */
#include "files/kind.h"

/* clang-format off */
const struct file_kind *const file_kinds[] = {
	&file_kind_pipe,
	&file_kind_fifo,
	&file_kind_eventfd,
	&file_kind_timerfd,
	&file_kind_signalfd,
	&file_kind_epoll,
	&file_kind_terminal,
	&file_kind_memfd,
	&file_kind_regular, /* last: it also takes files with a path that no other kind recognizes */
};
/* clang-format on */

const size_t file_kind_count = array_size(file_kinds);
