/*
 * unix.c - unix sockets: the kind of file, and its dump.
 *
 * Both ends of a connection are files of the tree, found by their inodes: the kernel tells the inode of each socket's
 * peer (unix_facts.h). What only the socket itself knows is asked of a borrowed descriptor.
 *
 * Connections that nobody has accepted yet: unix_waiting.c.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/helper_thread.h"
#include "base/memory.h"
#include "image/message.h"
#include "sockets/options.h"
#include "sockets/queue.h"
#include "sockets/unix.h"
#include "sockets/unix_steps.h"

struct unix_sockets *unix_sockets_of(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_unix);
}

int unix_facts_of(const struct snapshot *snapshot, struct unix_facts **facts)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);

	if (!sockets->has_facts)
		sockets->facts_result = unix_facts_read(&sockets->facts);
	sockets->has_facts = true;
	*facts = &sockets->facts;
	return sockets->facts_result;
}

/* Inodes of sockets of all families are different. If the facts cannot be read, describe() fails. */
static bool unix_recognizes(const struct snapshot *snapshot, const struct seen_file *seen)
{
	struct unix_facts *facts;

	if (seen->fd < 0 || strncmp(seen->link, "socket:[", 8) || seen->info.flags & O_PATH)
		return false;
	return unix_facts_of(snapshot, &facts) || unix_fact_find(facts, seen->stat.st_ino);
}

/* ---- one socket ---- */

static int refuse_socket(const struct seen_file *seen, const char *why)
{
	return refuse("process %d (%s): descriptor %d (%s) %s", seen->holder.here, seen->holder.name,
		      seen->fd, seen->link, why);
}

static void set_bytes(ProtobufCBinaryData *field, const void *bytes, size_t size)
{
	field->len = size;
	field->data = size ? copy_bytes(bytes, size) : NULL;
}

static int read_groups(int fd, UnixPeerEntry *peer)
{
	socklen_t size = 0;

	/* ERANGE tells the size, ENODATA that there is nobody. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || errno != ERANGE)
		return 0;
	peer->n_groups = size / sizeof(gid_t);
	peer->groups = allocate_array(peer->n_groups, sizeof(gid_t));
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer->groups, &size) < 0)
		return fail(errno, "cannot read the groups of the peer of a unix socket");
	return 0;
}

/* What the kernel remembers of the process that made the other end of the connection, or that listens. */
static int read_peer(const struct snapshot *snapshot, int fd, UnixSkEntry *entry)
{
	struct ucred named;
	socklen_t size = sizeof(named);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &named, &size) < 0)
		return fail(errno, "cannot read the credentials of the peer of a unix socket");
	if (!named.pid && named.uid == (uid_t)-1)
		return 0;
	entry->peer_cred = message_new(UnixPeerEntry, unix_peer_entry);
	entry->peer_cred->pid = named.pid ? snapshot_name_of(snapshot, named.pid) : 0;
	entry->peer_cred->uid = named.uid;
	entry->peer_cred->gid = named.gid;
	return read_groups(fd, entry->peer_cred);
}

/*
 * Nobody has a descriptor of the other end. It still has its name. A connection whose other end was closed is shut
 * down: otherwise it waits to be accepted, or did so a moment ago, when the kernel made its list.
 */
static int look_for_dead_peer(const struct seen_file *seen, int fd, UnixSkEntry *entry)
{
	struct sockaddr_un address;
	socklen_t size = sizeof(address) + 1; /* a path that is not terminated gets a 0 byte more */
	char bytes[sizeof(address) + 1];
	size_t start = offsetof(struct sockaddr_un, sun_path);

	if (getpeername(fd, (struct sockaddr *)bytes, &size) < 0)
		return errno == ENOTCONN ? 0 : fail(errno, "cannot read the name of a peer");
	if (unix_has_connections(entry) && (!entry->has_shutdown || entry->shutdown != SK_SHUTDOWN__BOTH)) {
		fail_advice("again when it was accepted");
		return refuse_socket(
			seen,
			"has a connection that waits to be accepted, or was accepted just now, by a process that criu does not see");
	}
	message_set(entry, peer_gone, true);
	if (size > start) {
		entry->has_peer_name = true;
		set_bytes(&entry->peer_name, bytes + start, size - start);
	}
	if (socket_has_error(fd))
		message_set(entry, reset, true);
	return 0;
}

static void describe_inode(const struct seen_file *seen, UnixSkEntry *entry)
{
	message_set(entry, uid, seen->stat.st_uid);
	message_set(entry, gid, seen->stat.st_gid);
	message_set(entry, mode, seen->stat.st_mode & 07777);
}

static int describe_waiting(const struct seen_file *seen, const struct unix_fact *fact, UnixSkEntry *entry)
{
	if (fact->state != TCP_LISTEN || !fact->queued)
		return 0;
	if (!fact->waiting_count) {
		fail_advice("again when some were accepted");
		return refuse_socket(
			seen, "has more connections that wait to be accepted than the kernel can list");
	}
	message_array(entry, waiting, fact->waiting_count);
	memcpy(entry->waiting, fact->waiting, fact->waiting_count * sizeof(*entry->waiting));
	return 0;
}

static void describe_fact(const struct snapshot *snapshot, const struct unix_fact *fact, UnixSkEntry *entry)
{
	const struct task *root = snapshot->root;

	entry->ino = fact->inode;
	entry->type = fact->type;
	entry->state = fact->state;
	set_bytes(&entry->name, fact->name, fact->name_size);
	entry->backlog = fact->state == TCP_LISTEN ? fact->sent : 0;
	entry->peer = fact->peer ?: fact->listener;
	if (fact->shutdown)
		message_set(entry, shutdown, (SkShutdown)fact->shutdown);
	if (root->ids && root->ids->has_net_ns_id)
		message_set(entry, ns_id, root->ids->net_ns_id);
}

static SkOptsEntry **options_of(const struct file *file)
{
	return &file->entry->usk->opts;
}

static int describe_by_descriptor(struct snapshot *snapshot, struct file *file, const struct unix_fact *fact)
{
	UnixSkEntry *entry = file->entry->usk;
	autoclose int fd = files_borrow(file->seen);
	int result = fd;

	if (fd >= 0)
		result = socket_options_read_next(&unix_sockets_of(snapshot)->options,
						  files_of_kind(snapshot, &file_kind_unix), file, fd,
						  options_of);

	if (!unless_refused(result))
		result = read_peer(snapshot, fd, entry) ?: result;
	if (!unless_refused(result) && !entry->peer && fact->state != TCP_LISTEN)
		result = look_for_dead_peer(file->seen, fd, entry) ?: result;
	if (!unless_refused(result) && fact->has_file)
		result = unix_describe_path(file, fd) ?: result;
	if (!unless_refused(result) && fact->state != TCP_LISTEN)
		result = socket_queue_note(snapshot, file, fd, fact->type) ?: result;
	return result;
}

static int unix_describe(struct snapshot *snapshot, struct file *file)
{
	UnixSkEntry *entry = file->entry->usk;
	struct unix_facts *facts;
	int result = unix_facts_of(snapshot, &facts);
	const struct unix_fact *fact;

	if (result)
		return result;
	fact = unix_fact_find(facts, file->seen->stat.st_ino);
	index_set(&unix_sockets_of(snapshot)->by_inode, fact->inode, file);
	describe_fact(snapshot, fact, entry);
	describe_inode(file->seen, entry);
	result = describe_waiting(file->seen, fact, entry);
	if (!unless_refused(result))
		result = describe_by_descriptor(snapshot, file, fact) ?: result;
	return result;
}

/* ---- all sockets ---- */

/* Something was sent, or the client has closed it, and criu could not read that. */
static int refuse_unread(const struct unix_sockets *sockets, const struct seen_file *seen, const char *what)
{
	autofree char *why = format_text("has a connection that waits to be accepted, and %s: %s", what,
					 sockets->no_reader ?: "it was not there a moment ago");

	fail_advice("root's capabilities, outside of user namespaces; or again when it was accepted");
	return refuse_socket(seen, why);
}

static int judge_waiting(struct unix_sockets *sockets, const struct file *file, uint32_t client)
{
	const struct unix_fact *fact = unix_fact_find(&sockets->facts, client);
	bool is_saved = file->entry->usk->n_connections;

	if (!client)
		return is_saved ?
			       0 :
			       refuse_unread(sockets, file->seen,
					     "that its client has closed; what that has sent cannot be read");
	if (!index_find(&sockets->by_inode, client)) {
		autofree char *holder = unix_holder_in_words(&sockets->facts, client);
		autofree char *why = format_text(
			"has a connection that waits to be accepted, of %s, which is not in the tree",
			holder);

		return refuse_socket(file->seen, why);
	}
	return is_saved || !fact->sent ?
		       0 :
		       refuse_unread(sockets, file->seen,
				     "through which something was sent, which cannot be read");
}

/*
 * An accepted socket has the name of its listener, but is not bound to it: if the listener was closed, nobody can be
 * reached at the name. Only asked if both ends have names.
 */
static void judge_names(struct unix_sockets *sockets, const struct file *file)
{
	UnixSkEntry *entry = file->entry->usk;
	const struct unix_fact *fact = unix_fact_find(&sockets->facts, entry->ino);
	const struct unix_fact *peer = unix_fact_find(&sockets->facts, entry->peer);

	if (!unix_has_connections(entry) || !fact->peer || !fact->name_size || !peer || !peer->name_size)
		return;
	if (unix_fact_is_of_listener(&sockets->facts, fact) || (fact->has_file && !unix_is_bound(file->seen)))
		message_set(entry, accepted, true);
}

/* A datagram socket without a name gets messages only from the other end of its pair, as long as that is connected. */
static bool has_message_of_lost_twin(const struct snapshot *snapshot, const struct file *file)
{
	const UnixSkEntry *entry = file->entry->usk;
	const struct unix_fact *peer = unix_fact_find(&unix_sockets_of(snapshot)->facts, entry->peer);

	return entry->type == SOCK_DGRAM && !entry->name.len && peer && peer->peer != entry->ino &&
	       socket_queue_is_noted(snapshot, file);
}

static int judge_socket(struct snapshot *snapshot, const struct file *file)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);
	const UnixSkEntry *entry = file->entry->usk;
	const struct file *peer = entry->peer ? index_find(&sockets->by_inode, entry->peer) : NULL;

	if (has_message_of_lost_twin(snapshot, file))
		return refuse_socket(
			file->seen,
			"has an unread message of the other end of its pair, which is no longer connected to it: it must be read first");
	if (entry->peer && (!peer || peer->is_only_path))
		return unix_judge_outside(snapshot, file);
	for (size_t i = 0; i < entry->n_waiting; i++) {
		int result = judge_waiting(sockets, file, entry->waiting[i]);

		if (result)
			return result;
	}
	judge_names(sockets, file);
	return 0;
}

static int unix_judge(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_unix);
	int result = unix_save_waiting(snapshot) ?: unless_refused(socket_queues_judge(snapshot));

	for (size_t i = 0; !result && i < files->count; i++)
		result = unless_refused(judge_socket(snapshot, files->items[i]));
	return result;
}

static void unix_let_go(struct snapshot *snapshot, enum dump_end end unused)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);

	socket_queues_let_go(snapshot);
	unix_facts_free(&sockets->facts);
	index_free(&sockets->by_inode);
	free(sockets->no_reader);
	socket_options_ahead_free(&sockets->options);
	*sockets = (struct unix_sockets){ 0 };
}

const struct file_kind file_kind_unix = {
	.name = "unix socket",
	.type = FD_TYPES__UNIXSK,
	.message = offsetof(FileEntry, usk),
	.state_size = sizeof(struct unix_sockets),
	.recognizes = unix_recognizes,
	.describe = unix_describe,
	.hold = socket_queues_hold,
	.judge = unix_judge,
	.save = socket_queues_save,
	.let_go = unix_let_go,
	.load = unix_load,
	.external_key = unix_external_key,
	.check_external = unix_check_external,
	.open_external = unix_open_external,
	.check = unix_check,
	.open = unix_open,
	.join = unix_join,
	.join_late = unix_join_late,
	.release = unix_release,
	.close = unix_close,
	.keeps = unix_keeps,
};
