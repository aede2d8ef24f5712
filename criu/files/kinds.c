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
	&file_kind_pidfd,
	&file_kind_namespace,
	&file_kind_bpf_map,
	&file_kind_mqueue,
	&file_kind_unix,
	&file_kind_inet,
	&file_kind_netlink,
	&file_kind_packet,
	&file_kind_io_uring,
	&file_kind_tun,
	&file_kind_regular, /* recognizes any file with a path: all other kinds of these come before it */
	/* These two join, and are released, when all that are opened are: they watch what those do. */
	&file_kind_inotify,
	&file_kind_fanotify,
	&file_kind_plugin, /* what no other recognizes */
};
/* clang-format on */

const size_t file_kind_count = array_size(file_kinds);
