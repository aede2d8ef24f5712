/*
 * show_file.c - describes an open file of any kind in one line. See show.h.
 *
 * Fields that kinds have in common (flags, position) are found by name, so they are shown even for a new kind that this
 * file does not know yet.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include "base/memory.h"
#include "cli/show.h"
#include "files/words.h"
#include "model/external.h"
#include "tty.pb-c.h"

typedef void describe_function(FILE *out, const struct show_tree *tree, const FileEntry *file);

/* --- Files with a path ---------------------------------------------------------------------------------- */

static void describe_regular(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	const RegFileEntry *regular = file->reg;

	fprintf(out, "%s", *regular->name ? regular->name : "/");
	if (regular->ended)
		fprintf(out, " (the process has ended)");
	else if (regular->has_size && S_ISREG(regular->mode))
		fprintf(out, " (%" PRIu64 " bytes)", regular->size);
	if (regular->has_rdev)
		fprintf(out, " (device %u:%u)", major(regular->rdev), minor(regular->rdev));
}

static const char *regular_kind(const RegFileEntry *regular)
{
	if (!regular->has_mode)
		return "file";
	switch (regular->mode & S_IFMT) {
	case S_IFDIR:
		return "directory";
	case S_IFCHR:
	case S_IFBLK:
		return "device";
	default:
		return "file";
	}
}

static const char *or_else(const char *text, const char *otherwise)
{
	return text ? text : otherwise;
}

static void describe_fifo(FILE *out, const struct show_tree *tree, const FileEntry *file)
{
	const char *path = file->fifo->has_regf_id ? show_file_path(tree, file->fifo->regf_id) : NULL;

	fprintf(out, "%s (fifo %u)", or_else(path, "?"), file->fifo->pipe_id);
}

/* NULL: the image has none with this id. */
static const TtyInfoEntry *find_terminal(const struct show_tree *tree, uint32_t id)
{
	for (size_t i = 0; i < tree->terminals.count; i++) {
		const TtyInfoEntry *info = (const TtyInfoEntry *)tree->terminals.items[i];

		if (info->id == id)
			return info;
	}
	return NULL;
}

static void describe_tty(FILE *out, const struct show_tree *tree, const FileEntry *file)
{
	const char *path = file->tty->has_regf_id ? show_file_path(tree, file->tty->regf_id) : NULL;
	const TtyInfoEntry *info = find_terminal(tree, file->tty->tty_info_id);

	if (info && info->type == TTY_TYPE__EXT_TTY) {
		struct external_key key = { EXTERNAL_TTY, { info->rdev, info->dev }, NULL };
		autofree char *name = external_key_text(&key);

		fprintf(out, "%s", name);
	} else {
		fprintf(out, "%s (terminal %u%s)", or_else(path, "?"), file->tty->tty_info_id,
			info && info->hung_up ? ", hung up" : "");
	}
}

static void describe_memfd(FILE *out, const struct show_tree *tree, const FileEntry *file)
{
	for (size_t i = 0; i < tree->memfds.count; i++) {
		const MemfdInodeEntry *memfd = (const MemfdInodeEntry *)tree->memfds.items[i];

		if (memfd->inode_id == file->memfd->inode_id) {
			fprintf(out, "%s (%" PRIu64 " bytes)", memfd->name, memfd->size);
			return;
		}
	}
	fprintf(out, "memory %u", file->memfd->inode_id);
}

static void describe_pipe(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	static const char *const ends[] = { "reading end", "writing end", "both ends", "?" };

	fprintf(out, "pipe %u, %s", file->pipe->pipe_id, ends[file->pipe->flags & O_ACCMODE]);
}

/* --- Sockets -------------------------------------------------------------------------------------------- */

static const char *socket_type(unsigned type)
{
	static const char *const names[] = { "?", "stream", "datagram", "raw", "?", "packet" };

	return type < array_size(names) ? names[type] : "?";
}

static const char *tcp_state(unsigned state)
{
	static const char *const names[] = {
		"?",	     "established", "connecting",    "half connected", "closing",
		"closing",   "time wait",   "closed",	     "closing",	       "closing",
		"listening", "closing",	    "half connected"
	};

	return state < array_size(names) ? names[state] : "?";
}

static const char *inet_kind(const InetSkEntry *socket)
{
	switch (socket->proto) {
	case IPPROTO_TCP:
		return "tcp socket";
	case IPPROTO_UDP:
		return "udp socket";
	case IPPROTO_UDPLITE:
		return "udplite socket";
	default:
		return "ip socket";
	}
}

static void print_address(FILE *out, unsigned family, size_t count, const uint32_t *words, unsigned port)
{
	char text[INET6_ADDRSTRLEN] = "*";

	if (family == AF_INET && count >= 1)
		inet_ntop(AF_INET, words, text, sizeof(text));
	else if (family == AF_INET6 && count >= 4)
		inet_ntop(AF_INET6, words, text, sizeof(text));
	fprintf(out, family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, port);
}

static void describe_inet(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	const InetSkEntry *socket = file->isk;

	print_address(out, socket->family, socket->n_src_addr, socket->src_addr, socket->src_port);
	if (socket->dst_port) {
		fprintf(out, " -> ");
		print_address(out, socket->family, socket->n_dst_addr, socket->dst_addr, socket->dst_port);
	}
	if (socket->proto == IPPROTO_TCP)
		fprintf(out, ", %s", tcp_state(socket->state));
	else if (socket->proto != IPPROTO_UDP)
		fprintf(out, ", protocol %u", socket->proto);
}

/* A bound path includes its final 0 byte. */
static void describe_unix_name(FILE *out, const char *before, const char *directory,
			       const ProtobufCBinaryData *name)
{
	const char *bytes = (const char *)name->data;
	bool is_abstract = name->len && !bytes[0];

	if (!name->len)
		return;
	fprintf(out, "%s%s%s%s", before, or_else(directory, ""), directory ? "/" : "",
		is_abstract ? "@" : "");
	fwrite(bytes + is_abstract, 1, is_abstract ? name->len - 1 : strnlen(bytes, name->len), out);
}

static void describe_unix(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	const UnixSkEntry *socket = file->usk;

	if (socket->uflags & 1) {
		fprintf(out, "socket %u outside of the processes", socket->ino);
		describe_unix_name(out, " at ", NULL, &socket->name);
		return;
	}
	fprintf(out, "%s socket %u", socket_type(socket->type), socket->ino);
	describe_unix_name(out, " at ", socket->name_dir, &socket->name);
	if (socket->path)
		fprintf(out, " (now %s)", socket->path);
	if (socket->peer)
		fprintf(out, ", connected to socket %u", socket->peer);
	if (socket->peer_gone) {
		fprintf(out, ", connected to a closed socket");
		describe_unix_name(out, " at ", NULL, &socket->peer_name);
	}
	if (socket->state == TCP_LISTEN)
		fprintf(out, ", listening");
	if (socket->n_waiting)
		fprintf(out, ", %zu connections wait", socket->n_waiting);
	if (socket->has_shutdown && socket->shutdown)
		fprintf(out, ", shut down for %s",
			socket->shutdown == SK_SHUTDOWN__READ  ? "reading" :
			socket->shutdown == SK_SHUTDOWN__WRITE ? "writing" :
								 "both");
	if (socket->peer_cred)
		fprintf(out, ", peer of process %u", socket->peer_cred->pid);
}

static void describe_netlink(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	const NetlinkSkEntry *socket = file->nlsk;
	const char *word = netlink_protocol_word(socket->protocol);

	if (word)
		fprintf(out, "%s", word);
	else
		fprintf(out, "protocol %u", socket->protocol);
	if (socket->portid)
		fprintf(out, ", port %u", socket->portid);
	if (socket->dst_portid)
		fprintf(out, ", connected to port %u", socket->dst_portid);
	if (socket->dst_group)
		fprintf(out, ", connected to group %u", socket->dst_group);
	for (size_t i = 0; i < socket->n_groups; i++)
		for (unsigned bit = 0; bit < 32; bit++)
			if (socket->groups[i] >> bit & 1)
				fprintf(out, ", group %zu", i * 32 + bit + 1);
}

static void show_packet_ring(FILE *out, const char *what, const PacketRing *ring)
{
	if (ring)
		fprintf(out, ", %s ring of %" PRIu64 " bytes", what,
			(uint64_t)ring->block_size * ring->block_nr);
}

static void describe_packet(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	const PacketSockEntry *socket = file->psk;

	fprintf(out, "%s, protocol 0x%04x", socket_type(socket->type), ntohs(socket->protocol));
	if (socket->interface)
		fprintf(out, ", interface %s", socket->interface);
	else if (socket->ifindex)
		fprintf(out, ", interface %u", socket->ifindex);
	show_packet_ring(out, "receiving", socket->rx_ring);
	show_packet_ring(out, "sending", socket->tx_ring);
	if (socket->has_fanout && socket->fanout != UINT32_MAX)
		fprintf(out, ", fanout group %u", socket->fanout & UINT16_MAX);
	if (socket->n_mclist)
		fprintf(out, ", %zu memberships", socket->n_mclist);
}

/* --- Files without a path ------------------------------------------------------------------------------- */

static void describe_eventfd(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	fprintf(out, "counter %" PRIu64, file->efd->counter);
}

static void describe_epoll(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	fprintf(out, file->epfd->n_tfd ? "watches descriptor" : "watches nothing");
	for (size_t i = 0; i < file->epfd->n_tfd; i++)
		fprintf(out, "%s %u", i ? "," : "", file->epfd->tfd[i]->tfd);
}

static void describe_inotify(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	fprintf(out, file->ify->n_wd ? "watches" : "watches nothing");
	for (size_t i = 0; i < file->ify->n_wd; i++) {
		const InotifyWdEntry *watch = file->ify->wd[i];

		if (watch->f_handle->path)
			fprintf(out, "%s %s", i ? "," : "", watch->f_handle->path);
		else
			fprintf(out, "%s inode %" PRIu64, i ? "," : "", watch->i_ino);
	}
	if (file->ify->unread)
		fprintf(out, ", with %u bytes of unread events", file->ify->unread);
}

static void describe_fanotify(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	const FanotifyFileEntry *group = file->ffy;

	fprintf(out, group->n_mark ? "marks" : "marks nothing");
	for (size_t i = 0; i < group->n_mark; i++) {
		const FanotifyMarkEntry *mark = group->mark[i];
		const char *path = mark->ie ? mark->ie->f_handle->path : mark->me ? mark->me->path : NULL;
		const char *what = mark->type == MARK_TYPE__MOUNT	? "the mount " :
				   mark->type == MARK_TYPE__FILE_SYSTEM ? "the file system on " :
									  "";

		if (path)
			fprintf(out, "%s %s%s", i ? "," : "", what, path);
		else
			fprintf(out, "%s inode %" PRIu64, i ? "," : "", mark->ie ? mark->ie->i_ino : 0);
	}
	if (group->unread)
		fprintf(out, ", with %u bytes of unread events", group->unread);
}

static void describe_signalfd(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	const char *separator = "";

	for (int signal = 1; signal <= 64; signal++) {
		if (!(file->sgfd->sigmask >> (signal - 1) & 1))
			continue;
		if (sigabbrev_np(signal))
			fprintf(out, "%sSIG%s", separator, sigabbrev_np(signal));
		else
			fprintf(out, "%ssignal %d", separator, signal);
		separator = ", ";
	}
}

static void describe_timerfd(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	const TimerfdEntry *timer = file->tfd;

	fprintf(out, "clock %u, ", timer->clockid);
	if (!timer->vsec && !timer->vnsec) {
		fprintf(out, "not armed");
		return;
	}
	fprintf(out, "expires in %" PRIu64 ".%03" PRIu64 " s", timer->vsec, timer->vnsec / 1000000);
	if (timer->isec || timer->insec)
		fprintf(out, ", then every %" PRIu64 ".%03" PRIu64 " s", timer->isec, timer->insec / 1000000);
}

static void describe_namespace(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	static const struct {
		unsigned flag;
		const char *name;
	} names[] = {
		{ 0x00000080, "time" }, { 0x00020000, "mnt" }, { 0x02000000, "cgroup" },
		{ 0x04000000, "uts" },	{ 0x08000000, "ipc" }, { 0x10000000, "user" },
		{ 0x20000000, "pid" },	{ 0x40000000, "net" },
	};
	const char *name = "?";

	for (size_t i = 0; i < array_size(names); i++)
		if (file->nsf->ns_cflag == names[i].flag)
			name = names[i].name;
	fprintf(out, "%s namespace %u", name, file->nsf->ns_id);
}

static void describe_tun(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	fprintf(out, "%s", or_else(file->tunf->netdev, "no device yet"));
}

static void describe_external(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	fprintf(out, "opened by a plugin, %u", file->ext->id);
}

static void describe_bpf_map(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	fprintf(out, "%s (map %u, type %u)", file->bpf->map_name, file->bpf->map_id, file->bpf->map_type);
}

static void describe_pidfd(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	if (file->pidfd->nspid < 0)
		fprintf(out, "of a dead process");
	else
		fprintf(out, "of process %d", file->pidfd->nspid);
}

static void describe_mqueue(FILE *out, const struct show_tree *tree, const FileEntry *file)
{
	for (size_t i = 0; i < tree->queues.count; i++) {
		const MqueueEntry *queue = (const MqueueEntry *)tree->queues.items[i];

		if (queue->id == file->mqueue->queue) {
			fprintf(out, "/%s%s, %zu of %" PRIu64 " messages", queue->name,
				queue->unlinked ? " (unlinked)" : "", queue->n_messages, queue->capacity);
			return;
		}
	}
	fprintf(out, "queue %" PRIu64, file->mqueue->queue);
}

static void describe_io_uring(FILE *out, const struct show_tree *tree unused, const FileEntry *file)
{
	const IoUringFileEntry *entry = file->uring;

	fprintf(out, "for %u requests and %u completions, at %u and %u", entry->sq_entries, entry->cq_entries,
		entry->sq_head, entry->cq_tail);
	if (entry->setup)
		fprintf(out, ", flags %#x", entry->setup);
}

/* --- All of them ---------------------------------------------------------------------------------------- */

static const struct kind {
	const char *field; /* of file_entry */
	const char *name;
	describe_function *describe;
} kinds[] = {
	{ "reg", "file", describe_regular },
	{ "isk", "ip socket", describe_inet },
	{ "nsf", "namespace", describe_namespace },
	{ "psk", "packet socket", describe_packet },
	{ "nlsk", "netlink socket", describe_netlink },
	{ "efd", "eventfd", describe_eventfd },
	{ "epfd", "epoll", describe_epoll },
	{ "sgfd", "signalfd", describe_signalfd },
	{ "tunf", "tun", describe_tun },
	{ "tfd", "timerfd", describe_timerfd },
	{ "ify", "inotify", describe_inotify },
	{ "ffy", "fanotify", describe_fanotify },
	{ "ext", "external", describe_external },
	{ "usk", "unix socket", describe_unix },
	{ "fifo", "fifo", describe_fifo },
	{ "pipe", "pipe", describe_pipe },
	{ "tty", "terminal", describe_tty },
	{ "memfd", "memfd", describe_memfd },
	{ "bpf", "bpf map", describe_bpf_map },
	{ "pidfd", "pidfd", describe_pidfd },
	{ "mqueue", "message queue", describe_mqueue },
	{ "uring", "io_uring", describe_io_uring },
};

static const struct kind *find_described_kind(const char *field)
{
	for (size_t i = 0; i < array_size(kinds); i++)
		if (strcmp(kinds[i].field, field) == 0)
			return &kinds[i];
	return NULL;
}

/* The message in a file_entry that belongs to its kind, and the field that holds it; NULL: none that is known. */
static const ProtobufCMessage *find_kind_member(const FileEntry *file, const ProtobufCFieldDescriptor **field)
{
	const ProtobufCMessageDescriptor *descriptor = &file_entry__descriptor;

	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		*field = &descriptor->fields[i];
		if ((*field)->type == PROTOBUF_C_TYPE_MESSAGE) {
			ProtobufCMessage *member = *(ProtobufCMessage **)((char *)file + (*field)->offset);

			if (member)
				return member;
		}
	}
	return NULL;
}

static const void *find_value(const ProtobufCMessage *message, const char *name, ProtobufCType type)
{
	const ProtobufCFieldDescriptor *field =
		message ? protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name) : NULL;

	return field && field->type == type ? (const char *)message + field->offset : NULL;
}

static bool is_deleted(const struct show_tree *tree, const FileEntry *file)
{
	if (file->reg && index_find(&tree->remaps_by_id, file->id))
		return true;
	/* The path of a named pipe is in another file. */
	if (file->fifo && file->fifo->has_regf_id && index_find(&tree->remaps_by_id, file->fifo->regf_id))
		return true;
	return file->usk && file->usk->deleted;
}

static const char *find_file_path(const struct show_tree *tree, const FileEntry *file)
{
	if (file->reg)
		return file->reg->name;
	if (file->fifo && file->fifo->has_regf_id)
		return show_file_path(tree, file->fifo->regf_id);
	if (file->tty && file->tty->has_regf_id)
		return show_file_path(tree, file->tty->regf_id);
	return NULL;
}

/* The output of `describe` as a text. A 0 byte in it (the name of an abstract socket) becomes '@'. */
static char *describe_shown_file(const struct kind *kind, const struct show_tree *tree, const FileEntry *file)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return copy_text("");
	if (kind)
		kind->describe(out, tree, file);
	else
		fprintf(out, "a file of type %d", file->type);
	fclose(out);
	for (size_t i = 0; i < size; i++)
		if (text[i] == '\0')
			text[i] = '@';
	return text;
}

struct show_file show_describe(const struct show_tree *tree, const FileEntry *file)
{
	const ProtobufCFieldDescriptor *field = NULL;
	const ProtobufCMessage *member = find_kind_member(file, &field);
	const struct kind *kind = member ? find_described_kind(field->name) : NULL;
	const FileEntry *opened = file->fifo ? show_find_file(tree, file->fifo->regf_id) : NULL;
	const uint32_t *flags = opened && opened->reg ? &opened->reg->flags :
							find_value(member, "flags", PROTOBUF_C_TYPE_UINT32);
	const uint64_t *position = find_value(member, "pos", PROTOBUF_C_TYPE_UINT64);
	struct show_file shown = { .kind = kind ? kind->name : "unknown" };

	if (file->reg && kind)
		shown.kind = regular_kind(file->reg);
	if (file->isk && kind)
		shown.kind = inet_kind(file->isk);
	shown.what = describe_shown_file(kind, tree, file);
	shown.path = find_file_path(tree, file);
	shown.has_flags = flags;
	shown.flags = flags ? *flags : 0;
	shown.has_position = position;
	shown.position = position ? *position : 0;
	shown.is_deleted = is_deleted(tree, file);
	return shown;
}

void show_flags(uint32_t flags, void (*each)(void *context, const char *name), void *context)
{
	static const char *const modes[] = { "read", "write", "read-write", "no access" };
	static const struct {
		uint32_t flag;
		const char *name;
	} names[] = {
		{ O_APPEND, "append" }, { O_NONBLOCK, "nonblock" }, { O_PATH, "path" },
		{ O_DIRECT, "direct" }, { O_ASYNC, "async" },	    { O_SYNC & ~O_DSYNC, "sync" },
		{ O_DSYNC, "dsync" },	{ O_NOATIME, "noatime" },   { O_TMPFILE & ~O_DIRECTORY, "tmpfile" }
	};

	each(context, modes[flags & O_ACCMODE]);
	for (size_t i = 0; i < array_size(names); i++)
		if (flags & names[i].flag)
			each(context, names[i].name);
}
