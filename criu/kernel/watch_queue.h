/*
 * watch_queue.h - reads, in the kernel's memory, the events of an inotify that nobody has read. Takes nothing out.
 */
#ifndef CRIU_KERNEL_WATCH_QUEUE_H
#define CRIU_KERNEL_WATCH_QUEUE_H

#include <stddef.h>
#include "compiler.h"

struct watch_queue_reader;

/*
 * 0 or -errno, recorded: it needs root's capabilities, and a kernel that it knows. It proves that it does with an
 * inotify of its own.
 */
int watch_queue_open(struct watch_queue_reader **reader) must_check;
void watch_queue_close(struct watch_queue_reader *reader);
/*
 * The first `size` bytes, whole events, as read(2) would return them. `fd` is criu's own. 0 or -errno, recorded:
 * -EAGAIN if somebody reads from it meanwhile.
 */
int watch_queue_read(const struct watch_queue_reader *reader, int fd, char *bytes, size_t size) must_check;

#endif
