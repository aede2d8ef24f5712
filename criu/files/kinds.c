/*
 * kinds.c - the kinds of files that we can save and make again.
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
	&file_kind_regular, /* last: it also takes what has a path and no other kind */
};
/* clang-format on */

const size_t file_kind_count = array_size(file_kinds);
