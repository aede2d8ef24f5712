/*
 * unix_waiting.c - dump: what was sent through connections that nobody has accepted yet.
 *
 * Such a connection has one descriptor, that of the client, or none if that has closed it. Its other end is in the queue
 * of the listener; accept() would take it out, and cannot be undone. So criu reads it in the kernel's memory
 * (kernel/sock_queue.h), which needs more privileges than everything else here. It does so only where something was
 * sent or a client was closed; a client that has done nothing else than to connect is saved without.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/by_address.h"
#include "image/message.h"
#include "kernel/sock_queue.h"
#include "kernel_constants.h"
#include "sockets/queue.h"
#include "sockets/unix_steps.h"

/* What is read of one listener. */
struct reading {
	struct snapshot *snapshot;
	struct sock_reader *reader;
	struct index files; /* by the addresses of the kernel's structs … */
	bool has_files;	    /* … if these were needed */
	const struct file *listener;
	const struct sock_backlog *backlog;
	bool passes_pidfds, passes_labels; /* to whoever accepts */
};

static int refuse_waiting(const struct reading *reading, const char *what)
{
	const struct seen_file *seen = reading->listener->seen;

	return refuse(
		"process %d (%s): descriptor %d (%s) has a connection that waits to be accepted, with a message that %s",
		seen->holder.here, seen->holder.name, seen->fd, seen->link, what);
}

/* ---- messages ---- */

static const char *obstacle_of(const struct reading *reading, const struct sock_packet *packet)
{
	if (!packet->has_sender)
		return "was sent from outside of criu's pid namespace, so that criu cannot name the sender";
	if (reading->passes_pidfds)
		return "is for a socket with SO_PASSPIDFD";
	if (reading->passes_labels && packet->has_label)
		return "has a security label (SO_PASSSEC)";
	return NULL;
}

static int find_files(struct reading *reading, const struct sock_packet *packet, struct file **files)
{
	int result = 0;

	if (packet->file_count && !reading->has_files)
		result = files_index_by_address(reading->snapshot, sock_reader_files(reading->reader),
						&reading->files);
	reading->has_files |= packet->file_count;
	for (size_t i = 0; !result && i < packet->file_count; i++) {
		files[i] = index_find(&reading->files, packet->files[i]);
		if (!files[i])
			result = refuse_waiting(reading,
						"has a descriptor of a file that no process has open");
	}
	return result;
}

static int write_message(struct reading *reading, uint32_t id, const struct sock_packet *packet)
{
	autofree struct file **files = allocate_array(packet->file_count + 1, sizeof(*files));
	autofree char *bytes = allocate(max(packet->size, 1u));
	const struct queue_record record = {
		.id = id,
		.bytes = bytes,
		.size = packet->size,
		.sender = &packet->sender,
		.files = files,
		.file_count = packet->file_count,
	};
	const char *obstacle = obstacle_of(reading, packet);
	int result = obstacle ? refuse_waiting(reading, obstacle) : find_files(reading, packet, files);

	result = result ?: sock_packet_read(reading->reader, packet, bytes);
	if (!result && !sock_backlog_is_same(reading->reader, reading->backlog, 1))
		return fail(EAGAIN, "its connections are being changed");
	return result ?: socket_queue_write(reading->snapshot, reading->listener, &record);
}

/* ---- connections ---- */

static void describe_client(const struct snapshot *snapshot, const struct sock_waiting *waiting,
			    UnixWaitingEntry *entry)
{
	UnixPeerEntry *peer = message_new(UnixPeerEntry, unix_peer_entry);

	entry->client_cred = peer;
	if (waiting->maker.pid)
		peer->pid = snapshot_name_of(snapshot, waiting->maker.pid) ?: waiting->maker.pid;
	peer->uid = waiting->maker.uid;
	peer->gid = waiting->maker.gid;
	message_array(peer, groups, waiting->group_count);
	if (waiting->group_count)
		memcpy(peer->groups, waiting->groups, waiting->group_count * sizeof(gid_t));
	if (waiting->client || !waiting->name_size)
		return;
	entry->has_name = true;
	entry->name.len = waiting->name_size;
	entry->name.data = copy_bytes(waiting->name, waiting->name_size);
}

/* No file has such an id: those of files begin at 1. */
static uint32_t new_queue(struct snapshot *snapshot)
{
	return UINT32_MAX - unix_sockets_of(snapshot)->queue_count++;
}

static int save_connection(struct reading *reading, const struct sock_waiting *waiting,
			   UnixWaitingEntry *entry)
{
	int result = 0;

	describe_client(reading->snapshot, waiting, entry);
	if (waiting->has_urgent)
		return refuse_waiting(reading, "is urgent (MSG_OOB)");
	if (waiting->count)
		message_set(entry, queue, new_queue(reading->snapshot));
	for (size_t i = 0; !result && i < waiting->count; i++)
		result = write_message(reading, entry->queue, &waiting->packets[i]);
	return result;
}

static bool get_flag(int fd, int option)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 && value;
}

static int save_connections(struct reading *reading, struct file *file, int fd, struct sock_backlog *backlog)
{
	UnixSkEntry *entry = file->entry->usk;
	int result = sock_backlog_read(reading->reader, fd, backlog);

	if (!result) {
		free(entry->waiting);
		message_array(entry, waiting, backlog->count);
	}
	for (size_t i = 0; !result && i < backlog->count; i++) {
		UnixWaitingEntry *added = message_new(UnixWaitingEntry, unix_waiting_entry);

		*grow(&entry->connections, &entry->n_connections) = added;
		entry->waiting[i] = backlog->items[i].client;
		result = unless_refused(save_connection(reading, &backlog->items[i], added));
	}
	return result;
}

/* criu has proved that it can read such connections. */
static int refuse_changed(const struct seen_file *seen, const char *why)
{
	fail_advice("again when no process outside of the tree accepts its connections");
	return refuse(
		"process %d (%s): descriptor %d (%s) has connections that wait to be accepted, and a process that is not in the tree seems to accept some of them meanwhile%s%s",
		seen->holder.here, seen->holder.name, seen->fd, seen->link, why ? ": " : "", why ?: "");
}

/* The list of those that wait is of one moment. A process outside that has the listener, too, may go on to accept. */
static int save_listener(struct reading *reading, struct file *file)
{
	autoclose int fd = files_borrow(file->seen);
	autofree char *why = NULL;
	struct sock_backlog backlog = { 0 };
	struct attempt attempt;
	bool is_same;
	int result;

	if (fd < 0)
		return fd;
	reading->listener = file;
	reading->backlog = &backlog;
	reading->passes_pidfds = get_flag(fd, SO_PASSPIDFD);
	reading->passes_labels = get_flag(fd, SO_PASSSEC);
	attempt_begin(&attempt);
	result = save_connections(reading, file, fd, &backlog);
	is_same = sock_backlog_is_same(reading->reader, &backlog, backlog.count);
	sock_backlog_free(&backlog);
	if (is_same && !result) {
		attempt_count(&attempt);
		return 0;
	}
	why = result ? copy_text(failure_text()) : NULL;
	attempt_forget(&attempt);
	return unless_refused(refuse_changed(file->seen, why));
}

/* ---- all of them ---- */

static bool has_more_than_clients(const struct unix_facts *facts, const UnixSkEntry *entry)
{
	for (size_t i = 0; i < entry->n_waiting; i++) {
		const struct unix_fact *client = unix_fact_find(facts, entry->waiting[i]);

		if (!client || client->sent)
			return true;
	}
	return false;
}

/* Without privileges, unix_judge() refuses these connections, and says why. */
static int open_reader(struct unix_sockets *sockets, struct reading *reading)
{
	struct attempt attempt;
	int result;

	attempt_begin(&attempt);
	result = sock_reader_open(&reading->reader);
	if (result)
		sockets->no_reader = copy_text(failure_text());
	attempt_forget(&attempt);
	return result;
}

int unix_save_waiting(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_unix);
	struct unix_sockets *sockets = unix_sockets_of(snapshot);
	struct reading reading = { .snapshot = snapshot };
	int result = 0;

	for (size_t i = 0; !result && i < files->count; i++) {
		struct file *file = files->items[i];

		if (!has_more_than_clients(&sockets->facts, file->entry->usk))
			continue;
		if (!reading.reader && open_reader(sockets, &reading))
			break;
		result = save_listener(&reading, file);
		if (result)
			fail_in(result,
				"process %d (%s): descriptor %d (%s): a connection that waits to be accepted",
				file->seen->holder.here, file->seen->holder.name, file->seen->fd,
				file->seen->link);
	}
	sock_reader_close(reading.reader);
	index_free(&reading.files);
	return result;
}
