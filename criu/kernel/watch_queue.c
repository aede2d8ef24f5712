/*
 * watch_queue.c - see watch_queue.h.
 *
 * The events are in a list of the kernel's struct fsnotify_group, which is what the driver keeps with an inotify. New
 * ones come at its end. Only a read(2) frees them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/btf.h"
#include "kernel/kernel_files.h"
#include "kernel/peek.h"
#include "kernel/watch_queue.h"

#define SIZE	   sizeof(struct inotify_event)
#define MASK_SHOWN (IN_ALL_EVENTS | IN_ISDIR | IN_UNMOUNT | IN_IGNORED | IN_Q_OVERFLOW)

enum place {
	GROUP_FIRST,
	EVENT_NEXT,
	EVENT_MASK,
	EVENT_NUMBER,
	EVENT_COOKIE,
	EVENT_LENGTH,
	EVENT_NAME,
	PLACE_COUNT
};

static const struct kernel_member places[PLACE_COUNT] = {
	[GROUP_FIRST] = { "fsnotify_group", "notification_list.next" },
	[EVENT_NEXT] = { "inotify_event_info", "fse.list.next" },
	[EVENT_MASK] = { "inotify_event_info", "mask" },
	[EVENT_NUMBER] = { "inotify_event_info", "wd" },
	[EVENT_COOKIE] = { "inotify_event_info", "sync_cookie" },
	[EVENT_LENGTH] = { "inotify_event_info", "name_len" },
	[EVENT_NAME] = { "inotify_event_info", "name" },
};

struct watch_queue_reader {
	struct peek peek;
	struct kernel_files files;
	uint32_t offsets[PLACE_COUNT];
};

static int cannot_read(int error)
{
	return fail(-error, "cannot read the events of an inotify");
}

static int read_at(const struct watch_queue_reader *reader, uint64_t struct_at, enum place place, void *value,
		   uint32_t size)
{
	int result = peek_read(&reader->peek, struct_at + reader->offsets[place], value, size);

	return result ? cannot_read(result) : 0;
}

/* ---- events ---- */

/* Adds one event at `bytes`, which has `room`. Returns its size; -errno. */
static ssize_t read_event(const struct watch_queue_reader *reader, uint64_t event, char *bytes, size_t room)
{
	struct inotify_event shown = { 0 };
	uint32_t length = 0;
	const struct peek_member members[] = { { EVENT_MASK, &shown.mask, sizeof(shown.mask) },
					       { EVENT_NUMBER, &shown.wd, sizeof(shown.wd) },
					       { EVENT_COOKIE, &shown.cookie, sizeof(shown.cookie) },
					       { EVENT_LENGTH, &length, sizeof(length) } };
	int result = peek_read_members(&reader->peek, event, reader->offsets, members, array_size(members));

	if (result)
		return cannot_read(result);
	shown.mask &= MASK_SHOWN;
	shown.len = length ? (length + SIZE) / SIZE * SIZE : 0; /* with a 0 byte, then more of them */
	if (length > NAME_MAX || SIZE + shown.len > room)
		return fail(EAGAIN, "the events of an inotify are being read");
	memcpy(bytes, &shown, SIZE);
	memset(bytes + SIZE, 0, shown.len);
	result = length ? read_at(reader, event, EVENT_NAME, bytes + SIZE, length) : 0;
	return result ?: (ssize_t)(SIZE + shown.len);
}

int watch_queue_read(const struct watch_queue_reader *reader, int fd, char *bytes, size_t size)
{
	uint64_t file, group, head, first = 0, at, again = 0;
	int result = kernel_files_find(&reader->files, fd, &file, &group) ?:
			     read_at(reader, group, GROUP_FIRST, &first, sizeof(first));

	head = group + reader->offsets[GROUP_FIRST];
	at = first;
	for (size_t done = 0; !result && done < size;) {
		uint64_t event = at - reader->offsets[EVENT_NEXT];
		ssize_t length = at == head ? fail(EAGAIN, "the events of an inotify are being read") :
					      read_event(reader, event, bytes + done, size - done);

		if (length < 0)
			return (int)length;
		done += (size_t)length;
		result = read_at(reader, event, EVENT_NEXT, &at, sizeof(at));
	}
	result = result ?: read_at(reader, group, GROUP_FIRST, &again, sizeof(again));
	return !result && again != first ? fail(EAGAIN, "the events of an inotify are being read") : result;
}

/* ---- open ---- */

/* Two events of a file of criu's own. */
static int make_events(int inotify)
{
	autoclose int file = memfd_create("watched", MFD_CLOEXEC);
	autoclose int opened = -1;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	if (file < 0 || inotify_add_watch(inotify, path, IN_OPEN | IN_CLOSE_NOWRITE | IN_MODIFY) < 0)
		return -errno;
	opened = open(path, O_RDONLY | O_CLOEXEC);
	return opened < 0 || ftruncate(file, 1) < 0 ? -errno : 0;
}

static int test(const struct watch_queue_reader *reader)
{
	autoclose int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	char found[2 * SIZE], read_so[2 * SIZE];
	int result = inotify < 0 ? -errno : make_events(inotify);

	if (result)
		return fail(-result, "cannot create an inotify");
	result = watch_queue_read(reader, inotify, found, sizeof(found));
	if (result)
		return result;
	if (read(inotify, read_so, sizeof(read_so)) != (ssize_t)sizeof(read_so) ||
	    memcmp(found, read_so, sizeof(found)) != 0)
		return fail(EOPNOTSUPP, "criu does not understand this kernel's inotify");
	return 0;
}

int watch_queue_open(struct watch_queue_reader **reader)
{
	struct watch_queue_reader *made = allocate(sizeof(*made));
	struct btf *btf = NULL;
	int result = peek_open(&made->peek) ?: btf_load(&btf);

	result = result ?: btf_find_members(btf, places, PLACE_COUNT, made->offsets, "inotify");
	result = result ?: kernel_files_open(&made->files, &made->peek, btf) ?: test(made);
	btf_free(btf);
	if (result)
		watch_queue_close(steal_pointer(&made));
	*reader = made;
	return result;
}

void watch_queue_close(struct watch_queue_reader *reader)
{
	if (!reader)
		return;
	peek_close(&reader->peek);
	free(reader);
}
