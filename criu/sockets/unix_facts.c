/*
 * unix_facts.c - see unix_facts.h.
 *
 * The list that the kernel gives has each socket that has a descriptor somewhere, or is in flight. A connection that
 * has not been accepted yet has no inode: it is only in the list of its listener, by the inode of the client.
 */
#include <errno.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel/netlink.h"
#include "kernel/proc.h"
#include "sockets/unix_facts.h"

#define AWAITED_US    10000
#define AWAITED_TIMES 100

/* The kernel's own numbers have 12 bits for the major and 20 bits for the minor number. */
static dev_t decode_device(uint32_t device)
{
	return makedev(device >> 20, device & 0xfffff);
}

static void take_name(struct unix_fact *fact, struct nlattr *attribute)
{
	fact->name_size = nla_len(attribute);
	fact->name = fact->name_size ? copy_bytes(nla_data(attribute), fact->name_size) : NULL;
}

static void take_waiting(struct unix_fact *fact, struct nlattr *attribute)
{
	fact->waiting_count = nla_len(attribute) / sizeof(uint32_t);
	fact->waiting = copy_bytes(nla_data(attribute), fact->waiting_count * sizeof(uint32_t));
}

/* NULL: it is too short. */
static const void *data_of(struct nlattr *attribute, size_t size)
{
	return nla_len(attribute) >= (int)size ? nla_data(attribute) : NULL;
}

static void take_attribute(struct unix_fact *fact, struct nlattr *attribute)
{
	const struct unix_diag_vfs *file = data_of(attribute, sizeof(*file));
	const struct unix_diag_rqlen *lengths = data_of(attribute, sizeof(*lengths));

	switch (nla_type(attribute)) {
	case UNIX_DIAG_NAME:
		take_name(fact, attribute);
		break;
	case UNIX_DIAG_PEER:
		fact->peer = data_of(attribute, sizeof(uint32_t)) ? nla_get_u32(attribute) : 0;
		break;
	case UNIX_DIAG_SHUTDOWN:
		fact->shutdown = data_of(attribute, 1) ? nla_get_u8(attribute) : 0;
		break;
	case UNIX_DIAG_VFS:
		fact->has_file = file;
		fact->file_inode = file ? file->udiag_vfs_ino : 0;
		fact->file_device = file ? decode_device(file->udiag_vfs_dev) : 0;
		break;
	case UNIX_DIAG_RQLEN:
		fact->queued = lengths ? lengths->udiag_rqueue : 0;
		fact->sent = lengths ? lengths->udiag_wqueue : 0;
		break;
	}
}

/* NULL: it is too short; recorded. */
static const struct unix_diag_msg *header_of(const struct nlmsghdr *answer)
{
	if (nlmsg_datalen(answer) >= (int)sizeof(struct unix_diag_msg))
		return nlmsg_data(answer);
	fail(EBADMSG, "cannot understand what the kernel tells of a unix socket");
	return NULL;
}

/* The type of a name is 0, which nlmsg_parse() does not accept. */
static int add_fact(struct nlmsghdr *answer, void *argument)
{
	struct unix_facts *facts = argument;
	const struct unix_diag_msg *header = header_of(answer);
	struct unix_fact *fact;
	struct nlattr *attribute;
	int left;

	if (!header)
		return -EBADMSG;
	fact = *grow(&facts->items, &facts->count) = allocate(sizeof(*fact));
	fact->inode = header->udiag_ino;
	fact->type = header->udiag_type;
	fact->state = header->udiag_state;
	nlmsg_for_each_attr(attribute, answer, sizeof(*header), left)
	{
		take_attribute(fact, attribute);
	}
	index_set(&facts->by_inode, fact->inode, fact);
	return 0;
}

/* ---- connections that wait ---- */

/*
 * The clients of a listener must fit into one message, and the kernel ends its list where one does not: silently, if
 * the message has nothing else. So this list is not that of all sockets, and those that it lacks are asked for alone.
 * In such an answer the kernel has room for 900 clients, in the list for 8000.
 */
static int take_clients(struct nlmsghdr *answer, void *argument)
{
	struct unix_facts *facts = argument;
	const struct unix_diag_msg *header = header_of(answer);
	struct unix_fact *fact;
	struct nlattr *attribute;
	int left;

	if (!header)
		return -EBADMSG;
	fact = unix_fact_find(facts, header->udiag_ino);
	if (!fact || fact->waiting)
		return 0;
	nlmsg_for_each_attr(attribute, answer, sizeof(*header), left)
	{
		if (nla_type(attribute) == UNIX_DIAG_ICONS)
			take_waiting(fact, attribute);
	}
	return 0;
}

static bool lacks_clients(const struct unix_fact *fact)
{
	return fact->state == TCP_LISTEN && fact->queued && !fact->waiting_count;
}

/* What is still unknown after this is of a listener with very many clients, or one that was closed meanwhile. */
static void ask_for_clients(struct nl_sock *socket, struct unix_facts *facts, const struct unix_fact *fact)
{
	struct unix_diag_req request = {
		.sdiag_family = AF_UNIX,
		.udiag_states = UINT32_MAX,
		.udiag_ino = fact->inode,
		.udiag_show = UDIAG_SHOW_ICONS,
		.udiag_cookie = { UINT32_MAX, UINT32_MAX }, /* any */
	};

	ignore(attempted(netlink_request(
		socket, "read the connections that wait for a unix socket",
		netlink_message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, &request, sizeof(request)), take_clients,
		facts)));
}

static int list_clients(struct nl_sock *socket, struct unix_facts *facts)
{
	struct unix_diag_req request = {
		.sdiag_family = AF_UNIX,
		.udiag_states = 1 << TCP_LISTEN,
		.udiag_show = UDIAG_SHOW_ICONS,
	};
	bool are_any = false;
	int result;

	for (size_t i = 0; i < facts->count; i++)
		are_any |= lacks_clients(facts->items[i]);
	if (!are_any)
		return 0;
	result = netlink_list(socket, "list the connections that wait for unix sockets",
			      netlink_message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, &request, sizeof(request)),
			      take_clients, facts);
	for (size_t i = 0; !result && i < facts->count; i++)
		if (lacks_clients(facts->items[i]))
			ask_for_clients(socket, facts, facts->items[i]);
	return result;
}

static void note_listeners(struct unix_facts *facts)
{
	for (size_t i = 0; i < facts->count; i++)
		for (size_t j = 0; j < facts->items[i]->waiting_count; j++) {
			struct unix_fact *client = unix_fact_find(facts, facts->items[i]->waiting[j]);

			if (client)
				client->listener = facts->items[i]->inode;
		}
}

int unix_facts_read(struct unix_facts *facts)
{
	struct unix_diag_req request = {
		.sdiag_family = AF_UNIX,
		.udiag_states = UINT32_MAX,
		.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN,
	};
	autoclose_netlink struct nl_sock *socket = NULL;
	int result = netlink_open(&socket, NETLINK_SOCK_DIAG);

	if (!result)
		result = netlink_list(
			socket, "list the unix sockets",
			netlink_message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, &request, sizeof(request)),
			add_fact, facts);
	result = result ?: list_clients(socket, facts);
	if (!result)
		note_listeners(facts);
	return result;
}

void unix_facts_free(struct unix_facts *facts)
{
	for (size_t i = 0; i < facts->count; i++) {
		free(facts->items[i]->name);
		free(facts->items[i]->waiting);
		free(facts->items[i]);
	}
	free(facts->items);
	index_free(&facts->by_inode);
	index_free(&facts->listeners);
	index_free(&facts->by_name);
	index_free(&facts->holders);
	*facts = (struct unix_facts){ 0 };
}

struct unix_fact *unix_fact_find(const struct unix_facts *facts, uint32_t inode)
{
	return index_find(&facts->by_inode, inode);
}

const struct unix_fact *unix_fact_of_file(const struct unix_facts *facts, dev_t device, ino_t inode)
{
	for (size_t i = 0; i < facts->count; i++) {
		const struct unix_fact *fact = facts->items[i];

		if (fact->has_file && fact->file_inode == (uint32_t)inode && fact->file_device == device)
			return fact;
	}
	return NULL;
}

uint64_t unix_name_hash(const void *bytes, size_t size)
{
	uint64_t sum = size;

	for (size_t i = 0; i < size; i++)
		sum = index_mix(sum, ((const uint8_t *)bytes)[i]);
	return sum;
}

/* NULL: none; then *key is free. */
static struct unix_fact *find_name(const struct unix_facts *facts, uint32_t type, const void *name,
				   size_t size, uint64_t *key)
{
	struct unix_fact *found;

	for (*key = index_mix(unix_name_hash(name, size), type); (found = index_find(&facts->by_name, *key));
	     ++*key)
		if (found->type == type && found->name_size == size && !memcmp(found->name, name, size))
			return found;
	return NULL;
}

const struct unix_fact *unix_fact_of_name(struct unix_facts *facts, uint32_t type, const void *name,
					  size_t size)
{
	uint64_t key;

	for (size_t i = 0; !facts->has_names && i < facts->count; i++) {
		struct unix_fact *fact = facts->items[i];

		if (fact->name_size && !find_name(facts, fact->type, fact->name, fact->name_size, &key))
			index_set(&facts->by_name, key, fact);
	}
	facts->has_names = true;
	return find_name(facts, type, name, size, &key);
}

static void note_listening(struct unix_facts *facts)
{
	for (size_t i = 0; !facts->has_listeners && i < facts->count; i++) {
		struct unix_fact *fact = facts->items[i];
		uint64_t key = unix_name_hash(fact->name, fact->name_size);

		if (fact->state != TCP_LISTEN)
			continue;
		while (index_find(&facts->listeners, key))
			key++;
		index_set(&facts->listeners, key, fact);
	}
	facts->has_listeners = true;
}

bool unix_fact_is_of_listener(struct unix_facts *facts, const struct unix_fact *fact)
{
	const struct unix_fact *found;

	note_listening(facts);
	for (uint64_t key = unix_name_hash(fact->name, fact->name_size);
	     (found = index_find(&facts->listeners, key)); key++)
		if (found->type == fact->type && found->name_size == fact->name_size &&
		    !memcmp(found->name, fact->name, fact->name_size) && found->has_file == fact->has_file &&
		    found->file_inode == fact->file_inode && found->file_device == fact->file_device)
			return true;
	return false;
}

/* ---- who has it ---- */

static void note_sockets_of(struct unix_facts *facts, pid_t pid)
{
	autoclose int proc = proc_open(pid);
	autofree int *fds = NULL;
	size_t count = 0;

	if (proc < 0 || attempted(proc_read_descriptors(proc, &fds, &count)))
		return;
	for (size_t i = 0; i < count; i++) {
		autofree char *target = NULL;
		uint32_t inode;
		char path[32];

		snprintf(path, sizeof(path), "fd/%d", fds[i]);
		if (read_link_at(proc, path, &target) > 0 && sscanf(target, "socket:[%u]", &inode) == 1 &&
		    !index_find(&facts->holders, inode))
			index_set(&facts->holders, inode, (void *)(uintptr_t)pid);
	}
}

/* Many sockets may be refused, and the processes are frozen: so all are looked for at once. */
static void note_holders(struct unix_facts *facts)
{
	autofree pid_t *pids = NULL;
	size_t count = 0;

	if (attempted(proc_read_pids(&pids, &count)))
		count = 0;
	for (size_t i = 0; i < count; i++)
		note_sockets_of(facts, pids[i]);
	facts->has_holders = true;
}

/* 0: none that criu can see. */
static pid_t find_holder(struct unix_facts *facts, uint32_t inode)
{
	if (!facts->has_holders)
		note_holders(facts);
	return (pid_t)(uintptr_t)index_find(&facts->holders, inode);
}

static bool is_there(uint32_t inode)
{
	struct unix_facts now = { 0 };
	bool is_found = attempted(unix_facts_read(&now)) || unix_fact_find(&now, inode);

	unix_facts_free(&now);
	return is_found;
}

bool unix_await_end(struct unix_facts *facts, uint32_t inode)
{
	bool stays = true;

	for (int i = 0; stays && i < AWAITED_TIMES && !find_holder(facts, inode); i++) {
		if (i)
			usleep(AWAITED_US);
		stays = is_there(inode);
	}
	return !stays;
}

char *unix_holder_in_words(struct unix_facts *facts, uint32_t inode)
{
	autoclose int proc = -1;
	struct proc_stat stat;
	pid_t pid = find_holder(facts, inode);

	if (pid)
		proc = proc_open(pid);
	return proc >= 0 && !attempted(proc_read_stat(proc, &stat)) ?
		       format_text("process %d (%s)", pid, stat.comm) :
		       copy_text("a process that criu cannot see");
}
