/*
 * late.c - restore: files that can be opened only when all processes exist: a pidfd, a file of /proc about a process.
 *
 * All other files are opened before the births, and inherited. A late file has a placeholder until then, so its number
 * is the same in criu and in every newborn, and does not depend on who has which table or memory.
 *
 *	criu, with the other files      a placeholder for each late file; envelopes, which are pairs of sockets
 *	criu, when all are born         opens each file in the place of its placeholder; puts all into the envelopes
 *	a newborn that needs one        takes copies out, and puts each in the place of its placeholder
 *
 * A file about a thread comes later still, when its holder has its descriptors, and no code of criu runs in it. So its
 * placeholder is the end of an envelope of its own, and the holder takes the file out under the file's own number.
 *
 * A message in an envelope stays there: it is only looked at (MSG_PEEK), which also copies the descriptors in it. So
 * criu need not know who needs them, and nobody waits. Without late files, nothing of this happens.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"

#define MOST_IN_ENVELOPE 253 /* SCM_MAX_FD of Linux */

struct envelope {
	int in, out;
};

/* A file that needs a thread, and where it is put in. */
struct thread_file {
	struct file *file;
	int in;
};

struct late_files {
	struct thread_file *of_threads;
	size_t thread_file_count;
	struct file **items; /* the others */
	size_t count;
	struct envelope *envelopes;
	size_t envelope_count;
};

static void clear_late_files(void *state)
{
	struct late_files *late = state;

	free(late->of_threads);
	free(late->items);
	free(late->envelopes);
}

static const struct state_type late_type = { sizeof(struct late_files), clear_late_files };

static struct late_files *late_files(const struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &late_type);
}

enum file_lateness file_lateness(const struct snapshot *snapshot, const struct file *file)
{
	return file->kind && file->kind->lateness && !file->external && file_message(file) ?
		       file->kind->lateness(snapshot, file) :
		       FILE_IS_EARLY;
}

static size_t count_envelopes(size_t files)
{
	return (files + MOST_IN_ENVELOPE - 1) / MOST_IN_ENVELOPE;
}

size_t files_late_need(const struct snapshot *snapshot)
{
	size_t count[FILE_NEEDS_THREAD + 1] = { 0 };

	for (size_t i = 0; i < snapshot->file_count; i++)
		if (!snapshot->files[i]->is_only_mapped)
			count[file_lateness(snapshot, snapshot->files[i])]++;
	return count[FILE_NEEDS_PROCESS] + 2 * count_envelopes(count[FILE_NEEDS_PROCESS]) +
	       count[FILE_NEEDS_THREAD];
}

/* ---- criu ---- */

/* The placeholder is the end of an envelope of its own, which stays in the table until the thread exists. */
static int reserve_for_thread(struct late_files *late, struct file *file)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) < 0)
		return fail(errno, "cannot create a pair of sockets");
	*grow(&late->of_threads, &late->thread_file_count) = (struct thread_file){ file, ends[0] };
	return ends[1];
}

int file_reserve_late(struct snapshot *snapshot, struct file *file)
{
	struct late_files *late = late_files(snapshot);
	int fd;

	if (file_lateness(snapshot, file) == FILE_NEEDS_THREAD)
		return reserve_for_thread(late, file);
	fd = eventfd(0, EFD_CLOEXEC);
	if (fd < 0)
		return fail(errno, "cannot reserve a descriptor for file %u", file->id);
	*grow(&late->items, &late->count) = file;
	return fd;
}

int files_make_envelopes(struct snapshot *snapshot)
{
	struct late_files *late = late_files(snapshot);

	for (size_t i = 0; i < count_envelopes(late->count); i++) {
		int ends[2];

		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) < 0)
			return fail(errno, "cannot create a pair of sockets");
		*grow(&late->envelopes, &late->envelope_count) = (struct envelope){ ends[0], ends[1] };
	}
	return 0;
}

void files_pass_envelopes(struct snapshot *snapshot, struct letter *letter)
{
	struct late_files *late = late_files(snapshot);
	size_t known = 0;

	letter_array(letter, &late->envelopes, &late->envelope_count);
	if (!letter->is_read)
		return;
	/* The root was born before these files had descriptors; they are listed in the same order. */
	for (size_t i = 0; late->envelope_count && i < snapshot->file_count; i++)
		if (snapshot->files[i]->fd >= 0 &&
		    file_lateness(snapshot, snapshot->files[i]) == FILE_NEEDS_PROCESS)
			*grow(&late->items, &known) = snapshot->files[i];
	late->count = known;
}

union control {
	char bytes[CMSG_SPACE(MOST_IN_ENVELOPE * sizeof(int))];
	struct cmsghdr aligned;
};

static struct msghdr empty_message(struct iovec *byte, union control *control)
{
	return (struct msghdr){
		.msg_iov = byte,
		.msg_iovlen = 1,
		.msg_control = control->bytes,
		.msg_controllen = sizeof(control->bytes),
	};
}

static int fill_envelope(int in, struct file **files, size_t count)
{
	union control control = { 0 };
	struct iovec byte = { .iov_base = "", .iov_len = 1 };
	struct msghdr message = empty_message(&byte, &control);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int fds[MOST_IN_ENVELOPE];

	for (size_t i = 0; i < count; i++)
		fds[i] = files[i]->fd;
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	message.msg_controllen = CMSG_SPACE(count * sizeof(int));
	return sendmsg(in, &message, 0) == 1 ? 0 : fail(errno, "cannot pass files to the processes");
}

static int open_late(struct snapshot *snapshot, struct file *file)
{
	autoclose int fd = file->kind->open_late(snapshot, file);

	if (fd < 0)
		return fail_in(fd, "file %u of files.img (%s)", file->id, file->kind->name);
	if (dup3(fd, file->fd, O_CLOEXEC) < 0)
		return fail(errno, "cannot move file %u to its descriptor", file->id);
	return file_set_flags(snapshot, file);
}

int files_open_late(struct snapshot *snapshot)
{
	struct late_files *late = late_files(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < late->count; i++)
		result = open_late(snapshot, late->items[i]);
	for (size_t i = 0; !result && i < late->envelope_count; i++) {
		size_t first = i * MOST_IN_ENVELOPE;

		result = fill_envelope(late->envelopes[i].in, late->items + first,
				       min(late->count - first, (size_t)MOST_IN_ENVELOPE));
	}
	return result ?: call_file_kinds(join_late, snapshot);
}

int files_open_for_threads(struct snapshot *snapshot)
{
	struct late_files *late = late_files(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < late->thread_file_count; i++) {
		struct file *file = late->of_threads[i].file;

		result = open_late(snapshot, file)		?:
				 file_set_owner(snapshot, file) ?:
				 fill_envelope(late->of_threads[i].in, &file, 1);
	}
	return result;
}

void files_close_envelopes(struct snapshot *snapshot)
{
	struct late_files *late = late_files(snapshot);

	for (size_t i = 0; i < late->thread_file_count; i++)
		close(late->of_threads[i].in);
	late->thread_file_count = 0;
	for (size_t i = 0; i < late->envelope_count; i++) {
		close(late->envelopes[i].in);
		close(late->envelopes[i].out);
	}
	late->envelope_count = 0;
}

/* ---- a newborn ---- */

static bool is_late_file(const struct snapshot *snapshot, uint32_t id)
{
	const struct file *file = snapshot_find_file(snapshot, id);

	return file && file_lateness(snapshot, file) == FILE_NEEDS_PROCESS;
}

/* Does it watch a late file of which its own process has no descriptor? */
static bool watches_late_file(const struct snapshot *snapshot, const struct file *file)
{
	const EventpollFileEntry *entry = file->entry->epfd;

	for (size_t i = 0; entry && i < entry->n_tfd; i++)
		if (entry->tfd[i]->has_file && is_late_file(snapshot, entry->tfd[i]->file))
			return true;
	return false;
}

static bool needs_late_files(const struct snapshot *snapshot, const struct task *task)
{
	const FsEntry *fs = task->directories->fs;

	for (size_t i = 0; task_leads(task, OBJECT_DESCRIPTORS) && i < task->table->count; i++)
		if (file_lateness(snapshot, task->table->items[i].file) == FILE_NEEDS_PROCESS ||
		    watches_late_file(snapshot, task->table->items[i].file))
			return true;
	return task_leads(task, OBJECT_DIRECTORIES) && fs &&
	       (is_late_file(snapshot, fs->cwd_id) || is_late_file(snapshot, fs->root_id));
}

/* Each copy takes the place of the file's placeholder. Closes all copies. */
static int place_copies(struct file **files, const int *fds, size_t count, size_t wanted)
{
	int result = count == wanted ? 0 :
				       fail(EMFILE, "no free descriptors for the files of other processes");

	for (size_t i = 0; i < count; i++) {
		if (!result && dup3(fds[i], files[i]->fd, O_CLOEXEC) < 0)
			result = fail(errno, "cannot move file %u to its descriptor", files[i]->id);
		close(fds[i]);
	}
	return result;
}

static int open_envelope(const struct envelope *envelope, struct file **files, size_t count)
{
	union control control = { 0 };
	char nothing;
	struct iovec byte = { .iov_base = &nothing, .iov_len = 1 };
	struct msghdr message = empty_message(&byte, &control);
	const struct cmsghdr *header;
	int fds[MOST_IN_ENVELOPE];
	size_t received = 0;

	if (recvmsg(envelope->out, &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
		return fail(errno, "cannot receive files from criu");
	header = CMSG_FIRSTHDR(&message);
	if (header) {
		received = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(header), received * sizeof(int));
	}
	return place_copies(files, fds, received, count);
}

int files_receive_late(const struct snapshot *snapshot, const struct task *task)
{
	const struct late_files *late = late_files(snapshot);
	int result = 0;

	if (!late->envelope_count || !needs_late_files(snapshot, task))
		return 0;
	for (size_t i = 0; !result && i < late->envelope_count; i++) {
		size_t first = i * MOST_IN_ENVELOPE;

		result = open_envelope(&late->envelopes[i], late->items + first,
				       min(late->count - first, (size_t)MOST_IN_ENVELOPE));
	}
	return result;
}
