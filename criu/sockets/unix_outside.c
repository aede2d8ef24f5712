/*
 * unix_outside.c - unix sockets whose peers are outside of the tree.
 *
 * A dump saves such a socket only if the user asks for it. What a restore can do with it:
 *
 *	its peer can be reached by a name	it is connected again, to whoever is there then. A datagram socket loses
 *						nothing by that. For others it is a new connection: the server accepts it as any
 *						other, and the old one ends with the processes
 *	its peer has no name			it has to be given (--inherit-fd fd[N]:socket:[INODE])
 *
 * As criu 4.2.1 does, the peer is a unix socket in files.img, with its number and its name (uflags 1), that nobody has.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "criu-plugin.h"
#include "image/message.h"
#include "plugins/plugins.h"
#include "sockets/queue.h"
#include "sockets/unix_steps.h"

/* ---- dump ---- */

/* Can the peer be reached by its name, wherever the restore happens? */
static bool is_reachable(struct unix_facts *facts, const struct unix_fact *peer, bool has_connections)
{
	autofree char *path = NULL;
	struct stat found;

	if (!peer || !peer->name_size)
		return false;
	if (has_connections && !unix_fact_is_of_listener(facts, peer))
		return false;
	if (!has_connections && peer->peer) /* so nobody else can connect to it (EPERM) */
		return false;
	if (!peer->name[0])
		return true;
	path = format_text("%.*s", (int)peer->name_size, peer->name);
	return path[0] == '/' && stat(path, &found) == 0 && S_ISSOCK(found.st_mode) &&
	       (uint32_t)found.st_ino == peer->file_inode;
}

static char *name_in_words(const struct unix_fact *fact)
{
	bool is_abstract = fact && fact->name_size && !fact->name[0];

	if (!fact || !fact->name_size)
		return copy_text("");
	return format_text(", %s%.*s", is_abstract ? "@" : "", (int)fact->name_size - is_abstract,
			   fact->name + is_abstract);
}

static int refuse_peer(struct unix_facts *facts, const struct file *file, bool is_reachable)
{
	const struct seen_file *seen = file->seen;
	const UnixSkEntry *entry = file->entry->usk;
	autofree char *holder = unix_holder_in_words(facts, entry->peer);
	autofree char *name = name_in_words(unix_fact_find(facts, entry->peer));

	if (!is_reachable)
		fail_advice("--external unix[%u], and --inherit-fd fd[N]:socket:[%u] for the restore",
			    entry->ino, entry->ino);
	else if (entry->type == SOCK_DGRAM)
		fail_advice("--ext-unix-sk, which connects it again at the restore");
	else
		fail_advice(
			"--external unix[%u], and --ext-unix-sk for the restore, which makes a new connection",
			entry->ino);
	return refuse(
		"process %d (%s): descriptor %d (%s) is connected to a unix socket of %s (socket:[%u]%s), which is not in the tree",
		seen->holder.here, seen->holder.name, seen->fd, seen->link, holder, entry->peer, name);
}

/* A new connection cannot have what the old one has received. */
static int check_unread(const struct file *file, const struct unix_fact *fact)
{
	const struct seen_file *seen = file->seen;

	if (!fact->queued)
		return 0;
	return refuse(
		"process %d (%s): descriptor %d (%s) has %u bytes that were not read: they would be lost with its connection to the outside",
		seen->holder.here, seen->holder.name, seen->fd, seen->link, fact->queued);
}

static void add_peer(struct snapshot *snapshot, const struct unix_fact *peer, uint32_t inode,
		     bool is_reachable)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);
	struct file *file = snapshot_add_file(snapshot, snapshot->file_count + 1);
	UnixSkEntry *entry = message_new(UnixSkEntry, unix_sk_entry);

	file->kind = &file_kind_unix; /* not one of its files: nobody has it */
	file->is_described = file->is_only_path = true;
	file->entry = message_new(FileEntry, file_entry);
	file->entry->type = FD_TYPES__UNIXSK;
	file->entry->id = entry->id = file->id;
	file->entry->usk = entry;
	entry->ino = inode;
	entry->type = SOCK_DGRAM;
	entry->state = TCP_LISTEN;
	entry->uflags = UNIX_IS_OUTSIDE;
	entry->fown = message_new(FownEntry, fown_entry);
	entry->opts = message_new(SkOptsEntry, sk_opts_entry);
	if (is_reachable) {
		entry->name.len = peer->name_size;
		entry->name.data = copy_bytes(peer->name, peer->name_size);
	}
	index_set(&sockets->by_inode, inode, file);
}

/* 1: a plugin saves the connection. 0: none does. */
static int ask_plugins(const struct file *file)
{
	autoclose int fd = -1;
	int result;

	if (!plugins_have(CR_PLUGIN_HOOK__DUMP_UNIX_SK))
		return false;
	fd = files_borrow(file->seen);
	result = fd < 0 ? fd : plugins_dump_unix_socket(fd, file->entry->usk->ino);
	return result == -ENOTSUP ? false : result < 0 ? result : true;
}

int unix_judge_outside(struct snapshot *snapshot, const struct file *file)
{
	struct unix_sockets *sockets = unix_sockets_of(snapshot);
	UnixSkEntry *entry = file->entry->usk;
	const struct external_key key = { EXTERNAL_UNIX, { entry->ino }, NULL };
	const struct unix_fact *fact = unix_fact_find(&sockets->facts, entry->ino);
	const struct unix_fact *peer = unix_fact_find(&sockets->facts, entry->peer);
	bool can_reach = is_reachable(&sockets->facts, peer, unix_has_connections(entry));
	bool is_allowed = file_is_named(snapshot, &key);
	int result = ask_plugins(file);

	if (result < 0)
		return result;
	if (result > 0) {
		entry->uflags |= UNIX_IS_OF_PLUGIN;
		is_allowed = true;
	}
	if (!is_allowed && snapshot->policy.external_sockets)
		is_allowed = can_reach && entry->type == SOCK_DGRAM;
	if (!is_allowed)
		return refuse_peer(&sockets->facts, file, can_reach);
	result = result > 0 || (can_reach && unix_has_connections(entry)) ? check_unread(file, fact) : 0;
	if (!result && !index_find(&sockets->by_inode, entry->peer))
		add_peer(snapshot, peer, entry->peer, can_reach);
	return result;
}

/* ---- restore ---- */

static char *outside_in_words(const UnixSkEntry *outside)
{
	bool is_abstract = !outside->name.data[0];

	return format_text("%s%.*s", is_abstract ? "@" : "", (int)outside->name.len - is_abstract,
			   outside->name.data + is_abstract);
}

static bool is_there(struct unix_facts *facts, uint32_t type, const ProtobufCBinaryData *name,
		     const char *words)
{
	const struct unix_fact *fact;

	if (name->data[0])
		return unix_is_reached(words);
	fact = unix_fact_of_name(facts, type, name->data, name->len);
	return fact && (type == SOCK_DGRAM || unix_fact_is_of_listener(facts, fact));
}

int unix_check_outside(struct snapshot *snapshot, const struct unix_socket *socket)
{
	const struct external_key key = { EXTERNAL_SOCKET, { socket->entry->ino }, NULL };
	const UnixSkEntry *outside = socket->outside;
	autofree char *words = NULL;
	struct unix_facts *facts;
	int result;

	if (!outside->name.len)
		return file_lacks_external(snapshot, &key);
	words = outside_in_words(outside);
	if (unix_has_connections(socket->entry) && !snapshot->policy.external_sockets) {
		fail_advice("--ext-unix-sk");
		return fail(EINVAL,
			    "files.img: file %u is a connection to %s, which is outside of the processes",
			    socket->file->id, words);
	}
	if (unix_has_connections(socket->entry) && socket_queue_find(snapshot, socket->file->id))
		return fail(
			EINVAL,
			"files.img: file %u is a connection to %s, and has received something: a new connection has not",
			socket->file->id, words);
	result = unix_facts_of(snapshot, &facts);
	if (result || is_there(facts, socket->entry->type, &outside->name, words))
		return result;
	return fail(ECONNREFUSED, "file %u of files.img: cannot connect to %s again", socket->file->id,
		    words);
}

/* Last of all, because others notice it. */
int unix_connect_outside(struct snapshot *snapshot, struct unix_sockets *sockets)
{
	struct unix_works works = { 0 };
	int result;

	for (size_t i = 0; i < sockets->count; i++) {
		struct unix_socket *socket = &sockets->items[i];
		struct unix_work *work;
		struct unix_name name;
		UnixPeerEntry guess;

		if (!socket->outside || unix_is_given(socket))
			continue;
		unix_name_init(&name, &socket->outside->name);
		work = unix_work_add(&works, UNIX_CONNECT, unix_guess_maker(socket->file->holder, &guess));
		work->fd = socket->file->fd;
		work->address_size = unix_address(&name, &work->address);
	}
	unix_works_sort(&works);
	result = unix_works_do(snapshot, &works);
	unix_works_free(&works);
	return result;
}

/* ---- a socket that a plugin restores ---- */

/* What the tree itself is connected to must be made. */
static bool is_between_tree_and_outside(const struct unix_socket *socket)
{
	return socket->outside && !socket->peer && !socket->listener && !socket->twin &&
	       !socket->waiting_count;
}

int unix_check_plugin(const struct unix_socket *socket)
{
	if (!is_between_tree_and_outside(socket))
		return fail(
			EINVAL,
			"files.img: file %u is a unix socket of a plugin that is not connected to the outside",
			socket->file->id);
	if (plugins_have(CR_PLUGIN_HOOK__RESTORE_UNIX_SK))
		return 0;
	fail_advice("--libdir, with the directory of the plugin that has saved it");
	return fail(
		EINVAL,
		"files.img: file %u is a unix socket that a plugin has saved, and no such plugin is loaded",
		socket->file->id);
}

static int restore_in_root(void *bytes)
{
	const uint32_t *inode = bytes;
	int fd = plugins_restore_unix_socket(*inode);

	return fd == -ENOTSUP ? fail(0, "no plugin restores the unix socket %u (--libdir)", *inode) : fd;
}

/* As files of plugins are (files/kinds/plugin.c). */
int unix_open_by_plugin(struct snapshot *snapshot, const struct unix_socket *socket)
{
	uint32_t inode = socket->entry->ino;
	int fd = snapshot->ask_root(snapshot, restore_in_root, &inode, sizeof(inode));

	if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
		return fd;
	return fail(errno, "a plugin has restored file %u as descriptor %d, which is not open",
		    socket->file->id, fd);
}

/* ---- a socket that is given ---- */

bool unix_external_key(const struct snapshot *snapshot, const struct file *file, struct external_key *key)
{
	const struct unix_sockets *sockets = unix_sockets_of(snapshot);
	const struct unix_socket *socket = index_find(&sockets->by_file, file->id);

	/* What the tree itself is connected to must be made. */
	if (!socket || socket->peer || socket->listener || socket->twin || socket->waiting_count)
		return false;
	*key = (struct external_key){ EXTERNAL_SOCKET, { file->entry->usk->ino }, NULL };
	return true;
}

int unix_check_external(struct snapshot *snapshot unused, struct file *file, const struct stat *found)
{
	const char *const wanted = "a unix socket of the same type";
	socklen_t size = sizeof(int);
	int domain = 0, type = 0, fd = file->external->fd;

	if (!S_ISSOCK(found->st_mode))
		return file_is_wrong_external(file, wanted);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
		return fail(errno, "--inherit-fd %s: cannot look at the socket", file->external->text);
	return domain == AF_UNIX && type == (int)file->entry->usk->type ?
		       0 :
		       file_is_wrong_external(file, wanted);
}

int unix_open_external(struct snapshot *snapshot unused, struct file *file)
{
	return file_share_external(file);
}
