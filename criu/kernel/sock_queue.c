/*
 * sock_queue.c - see sock_queue.h.
 *
 * The queue of a listening socket has a packet for each connection that waits, and this leads to the struct sock of the
 * end that accept() will return. It has received what the client has sent, and knows the client and who has connected.
 *
 * The kernel's type information tells where each member is. That a member has kept its name does not prove that it has
 * kept its meaning: sock_proof.c does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/sock_reader.h"

#define MOST_WAITING (1u << 20)
#define TEST	     64	   /* bytes, which are no fragments */
#define MOST_GROUPS  65536 /* NGROUPS_MAX */

/* ---- the members ---- */

static const struct kernel_member places[SOCK_PLACES] = {
	[SOCKET_SOCK] = { "socket", "sk" },
	[SOCKET_IN_INODE] = { "socket_alloc", "socket" },
	[SOCKET_INODE] = { "socket_alloc", "vfs_inode.i_ino" },
	[SOCK_QUEUE] = { "sock", "sk_receive_queue.next" },
	[SOCK_SOCKET] = { "sock", "sk_socket" },
	[SOCK_MAKER] = { "sock", "sk_peer_pid" },
	[SOCK_MAKER_IDS] = { "sock", "sk_peer_cred" },
	[UNIX_NAME] = { "unix_sock", "addr" },
	[UNIX_PEER] = { "unix_sock", "peer" },
	[NAME_SIZE] = { "unix_address", "len" },
	[NAME_BYTES] = { "unix_address", "name" },
	[SKB_NEXT] = { "sk_buff", "next" },
	[SKB_SOCK] = { "sk_buff", "sk" },
	[SKB_SIZE] = { "sk_buff", "len" },
	[SKB_BEHIND] = { "sk_buff", "data_len" },
	[SKB_HEAD] = { "sk_buff", "head" },
	[SKB_DATA] = { "sk_buff", "data" },
	[SKB_END] = { "sk_buff", "end" },
	[SKB_NOTES] = { "sk_buff", "cb" },
	[REST_COUNT] = { "skb_shared_info", "nr_frags" },
	[REST_MORE] = { "skb_shared_info", "frag_list" },
	[REST_FRAGMENTS] = { "skb_shared_info", "frags" },
	[NOTES_PID] = { "unix_skb_parms", "pid" },
	[NOTES_USER] = { "unix_skb_parms", "uid" },
	[NOTES_GROUP] = { "unix_skb_parms", "gid" },
	[NOTES_FILES] = { "unix_skb_parms", "fp" },
	[FILES_COUNT] = { "scm_fp_list", "count" },
	[FILES_FILES] = { "scm_fp_list", "fp" },
	[PID_LEVEL] = { "pid", "level" },
	[PID_NUMBERS] = { "pid", "numbers" },
	[NUMBER_NUMBER] = { "upid", "nr" },
	[NUMBER_SPACE] = { "upid", "ns" },
	[IDS_USER] = { "cred", "euid" },
	[IDS_GROUP] = { "cred", "egid" },
	[IDS_GROUPS] = { "cred", "group_info" },
	[GROUPS_COUNT] = { "group_info", "ngroups" },
	[GROUPS_IDS] = { "group_info", "gid" },
	[TASK_PID] = { "task_struct", "thread_pid" },
};

/* A fragment is a struct bio_vec before Linux 6.9. */
static const struct {
	const char *type, *page, *length, *start;
} fragments[] = {
	{ "skb_frag", "netmem", "len", "offset" },
	{ "bio_vec", "bv_page", "bv_len", "bv_offset" },
};

static uint32_t find_if_any(const struct btf *btf, const char *type, const char *member)
{
	uint32_t offset;

	return btf_find_offset(btf, type, member, &offset) ? offset : UINT32_MAX;
}

static bool find_fragments(struct sock_reader *reader)
{
	for (size_t i = 0; i < array_size(fragments); i++) {
		const char *type = fragments[i].type;

		reader->fragment_size = btf_size(reader->btf, type);
		reader->fragment_page = find_if_any(reader->btf, type, fragments[i].page);
		reader->fragment_length = find_if_any(reader->btf, type, fragments[i].length);
		reader->fragment_start = find_if_any(reader->btf, type, fragments[i].start);
		if (reader->fragment_size && reader->fragment_page != UINT32_MAX &&
		    reader->fragment_length != UINT32_MAX && reader->fragment_start != UINT32_MAX)
			return true;
	}
	return false;
}

static int find_members(struct sock_reader *reader)
{
	int result = btf_find_members(reader->btf, places, SOCK_PLACES, reader->offsets, "unix sockets");

	if (result)
		return result;
	reader->label = find_if_any(reader->btf, "unix_skb_parms", "secid");
	reader->urgent = find_if_any(reader->btf, "unix_sock", "oob_skb");
	reader->number_size = btf_size(reader->btf, "upid");
	if (!reader->number_size || !find_fragments(reader))
		return fail(EOPNOTSUPP, "criu does not know this kernel's unix sockets");
	return 0;
}

/* ---- open ---- */

/* A process has most numbers in its own pid namespace. */
static int find_pid_namespace(struct sock_reader *reader)
{
	uint64_t pid, numbers;
	int result = sock_read(reader, peek_self(&reader->peek), FIELD(TASK_PID, pid));

	if (!result)
		result = sock_read(reader, pid, FIELD(PID_LEVEL, reader->level));
	numbers = pid + reader->offsets[PID_NUMBERS] + reader->level * (uint64_t)reader->number_size;
	return result ?: sock_read(reader, numbers, FIELD(NUMBER_SPACE, reader->space));
}

int sock_reader_open(struct sock_reader **reader)
{
	struct sock_reader *made = allocate(sizeof(*made));
	int result = peek_open(&made->peek) ?: btf_load(&made->btf) ?: find_members(made);

	result = result ?: kernel_files_open(&made->files, &made->peek, made->btf);
	result = result ?: find_pid_namespace(made) ?: sock_reader_test(made, TEST);
	if (result)
		sock_reader_close(steal_pointer(&made));
	*reader = made;
	return result;
}

void sock_reader_close(struct sock_reader *reader)
{
	if (!reader)
		return;
	peek_close(&reader->peek);
	btf_free(reader->btf);
	free(reader);
}

const struct kernel_files *sock_reader_files(const struct sock_reader *reader)
{
	return &reader->files;
}

/* ---- connections ---- */

static int read_inode(const struct sock_reader *reader, uint64_t sock, uint32_t *inode)
{
	uint64_t socket, number = 0;
	int result = sock_read(reader, sock, FIELD(SOCK_SOCKET, socket));

	if (!result && socket)
		result = sock_read(reader, socket - reader->offsets[SOCKET_IN_INODE],
				   FIELD(SOCKET_INODE, number));
	*inode = (uint32_t)number;
	return result;
}

static int read_name(const struct sock_reader *reader, uint64_t sock, struct sock_waiting *waiting)
{
	const uint32_t family = sizeof(sa_family_t);
	uint64_t name;
	uint32_t size = 0;
	int result = sock_read(reader, sock, FIELD(UNIX_NAME, name));

	if (!result && name)
		result = sock_read(reader, name, FIELD(NAME_SIZE, size));
	if (result || size <= family)
		return result;
	waiting->name_size = min((size_t)(size - family), sizeof(waiting->name));
	return sock_read_bytes(reader, name + reader->offsets[NAME_BYTES] + family, waiting->name,
			       waiting->name_size);
}

static int read_groups(const struct sock_reader *reader, uint64_t groups, struct sock_waiting *waiting)
{
	uint32_t count;
	int result = sock_read(reader, groups, FIELD(GROUPS_COUNT, count));

	if (result || !count)
		return result;
	if (count > MOST_GROUPS)
		return fail(EOPNOTSUPP, "criu does not understand this kernel's unix sockets");
	waiting->groups = allocate_array(count, sizeof(gid_t));
	waiting->group_count = count;
	return sock_read_bytes(reader, groups + reader->offsets[GROUPS_IDS], waiting->groups,
			       count * sizeof(gid_t));
}

static int read_maker(const struct sock_reader *reader, uint64_t sock, struct sock_waiting *waiting)
{
	uint64_t pid, ids, groups;
	int result = sock_read(reader, sock, FIELD(SOCK_MAKER, pid), FIELD(SOCK_MAKER_IDS, ids));

	result = result ?: sock_read_pid(reader, pid, &waiting->maker.pid);
	if (!result)
		result = sock_read(reader, ids, FIELD(IDS_USER, waiting->maker.uid),
				   FIELD(IDS_GROUP, waiting->maker.gid), FIELD(IDS_GROUPS, groups));
	return result ?: read_groups(reader, groups, waiting);
}

static int read_client(const struct sock_reader *reader, uint64_t sock, struct sock_waiting *waiting)
{
	uint64_t client;
	int result = sock_read(reader, sock, FIELD(UNIX_PEER, client));

	return result ?: read_inode(reader, client, &waiting->client) ?: read_name(reader, client, waiting);
}

static int read_waiting(const struct sock_reader *reader, uint64_t sock, struct sock_waiting *waiting)
{
	uint64_t urgent = 0;
	int result = read_client(reader, sock, waiting) ?: read_maker(reader, sock, waiting);

	if (!result && reader->urgent != UINT32_MAX)
		result = sock_read_bytes(reader, sock + reader->urgent, &urgent, sizeof(urgent));
	waiting->has_urgent = urgent;
	return result ?: sock_read_packets(reader, sock, &waiting->packets, &waiting->count);
}

static int read_addresses(const struct sock_reader *reader, uint64_t at, uint64_t *addresses)
{
	int result = sock_read(reader, at, FIELD(SKB_SOCK, addresses[1]));

	addresses[0] = at;
	return result ?:
			sock_read(reader, addresses[1], FIELD(UNIX_PEER, addresses[2]),
				  FIELD(SOCK_QUEUE, addresses[3]));
}

static int add_waiting(const struct sock_reader *reader, uint64_t at, struct sock_backlog *backlog)
{
	struct sock_waiting *waiting = grow(&backlog->items, &backlog->count);

	*waiting = (struct sock_waiting){ 0 };
	if (backlog->count > MOST_WAITING)
		return fail(EBUSY, "the connections of a unix socket are being changed");
	return read_addresses(reader, at, waiting->addresses) ?:
		       read_waiting(reader, waiting->addresses[1], waiting);
}

bool sock_backlog_is_same(const struct sock_reader *reader, const struct sock_backlog *backlog, size_t count)
{
	uint64_t at = 0, addresses[SOCK_MARKS];
	int result = backlog->listener ?
			     attempted(sock_read(reader, backlog->listener, FIELD(SOCK_QUEUE, at))) :
			     0;

	for (size_t i = 0; !result && i < min(count, backlog->count); i++) {
		result = attempted(read_addresses(reader, at, addresses));
		if (result || memcmp(addresses, backlog->items[i].addresses, sizeof(addresses)))
			return false;
		result = attempted(sock_read(reader, at, FIELD(SKB_NEXT, at)));
	}
	return !result;
}

/* Who accepts takes the first. The addresses of one that has gone may soon be those of another: so it is asked often. */
static int check_first(const struct sock_reader *reader, const struct sock_backlog *backlog)
{
	return sock_backlog_is_same(reader, backlog, 1) ?
		       0 :
		       fail(EAGAIN, "the connections of a unix socket are being changed");
}

int sock_backlog_read(struct sock_reader *reader, int fd, struct sock_backlog *backlog)
{
	uint64_t file, socket, head, at = 0;
	int result = kernel_files_find(&reader->files, fd, &file, &socket);

	if (!result)
		result = sock_read(reader, socket, FIELD(SOCKET_SOCK, backlog->listener));
	head = backlog->listener + reader->offsets[SOCK_QUEUE];
	if (!result)
		result = sock_read(reader, backlog->listener, FIELD(SOCK_QUEUE, at));
	while (!result && at != head)
		result = add_waiting(reader, at, backlog)		    ?:
				 sock_read(reader, at, FIELD(SKB_NEXT, at)) ?:
									      check_first(reader, backlog);
	return result;
}

void sock_backlog_free(struct sock_backlog *backlog)
{
	for (size_t i = 0; i < backlog->count; i++) {
		sock_packets_free(backlog->items[i].packets, backlog->items[i].count);
		free(backlog->items[i].groups);
	}
	free(backlog->items);
	*backlog = (struct sock_backlog){ 0 };
}
