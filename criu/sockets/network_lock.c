/*
 * network_lock.c - see network_lock.h.
 *
 * The chains come first at their hooks, before those of others. A set has the connections, with the address of the other
 * end first; so a packet costs one look-up, however many there are. This is what `nft list` shows of a chain:
 *
 *	type filter hook input priority -400; policy accept;
 *	meta mark 0x0000c114 accept
 *	meta nfproto ipv4 ip saddr . tcp sport . ip daddr . tcp dport @four drop
 *	meta nfproto ipv6 ip6 saddr . tcp sport . ip6 daddr . tcp dport @six drop
 *
 * The messages are made here, without libnftables: the processes are frozen meanwhile, and with it
 * this takes 25 ms instead of some 5. Its libraries would also bring 25 mappings, which could be in the way of a process
 * that is restored.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/inventory.h"
#include "kernel/netlink.h"
#include "kernel_constants.h"
#include "sockets/network_lock.h"

#define NAME_SIZE	 64
#define KEPT_NAME	 "CRIU-%.21s"
#define PRIORITY	 (-400)
#define IN_MESSAGE	 500 /* elements: at most 60 bytes each, in an attribute of 64 KiB */
#define MOST_MESSAGES	 16  /* in a batch */
#define REGISTER(number) (NFT_REG32_00 + (number))

/* How nft shows the parts of a key: an address and a port, twice; 6 bits for each. */
#define TYPE_IPV4	  7
#define TYPE_IPV6	  8
#define TYPE_PORT	  13
#define KEY_TYPE(address) ((address) << 18 | TYPE_PORT << 12 | (address) << 6 | TYPE_PORT)
#define PORT_SIZE	  4 /* in a key: padded */

struct network_lock {
	struct nl_sock *owner; /* its netlink socket owns the table */
	char name[NAME_SIZE];
	struct network_connection *connections;
	size_t count;
};

/* What differs between the two families. */
struct family {
	const char *set;
	uint8_t protocol; /* NFPROTO_* */
	uint32_t key_type;
	uint32_t size, source, destination; /* of an address in the header of IP: its size and its places */
};

static const struct family families[] = {
	{ "four", NFPROTO_IPV4, KEY_TYPE(TYPE_IPV4), 4, 12, 16 },
	{ "six", NFPROTO_IPV6, KEY_TYPE(TYPE_IPV6), 16, 8, 24 },
};

static uint32_t key_size(const struct family *family)
{
	return 2 * (family->size + PORT_SIZE);
}

/* ---- messages ---- */

/* A transaction: the kernel does all of it or nothing. */
struct batch {
	struct nl_msg *messages[MOST_MESSAGES];
	size_t count;
};

static void add_border(struct batch *batch, int type)
{
	const struct nfgenmsg header = { .nfgen_family = AF_UNSPEC, .res_id = htons(NFNL_SUBSYS_NFTABLES) };

	batch->messages[batch->count++] = netlink_message(type, 0, &header, sizeof(header));
}

static struct nl_msg *add_message(struct batch *batch, int type, int flags)
{
	const struct nfgenmsg header = { .nfgen_family = NFPROTO_INET };

	return batch->messages[batch->count++] = netlink_message(NFNL_SUBSYS_NFTABLES << 8 | type, flags,
								 &header, sizeof(header));
}

static struct batch begin_batch(void)
{
	struct batch batch = { .count = 0 };

	add_border(&batch, NFNL_MSG_BATCH_BEGIN);
	return batch;
}

/* The last message in it is acknowledged. */
static int send_batch(struct nl_sock *socket, const char *what, struct batch *batch)
{
	struct nl_msg *last = batch->messages[batch->count - 1];

	if (last)
		nlmsg_hdr(last)->nlmsg_flags |= NLM_F_ACK;
	add_border(batch, NFNL_MSG_BATCH_END);
	return netlink_batch(socket, what, batch->messages, batch->count);
}

static void add_text(struct nl_msg *message, int type, const char *text)
{
	netlink_add(message, type, text, strlen(text) + 1);
}

/* Numbers are in network order. */
static void add_number(struct nl_msg *message, int type, uint32_t number)
{
	const uint32_t swapped = htonl(number);

	netlink_add(message, type, &swapped, sizeof(swapped));
}

/* ---- rules ---- */

/* What an expression needs is added between the two. */
struct expression {
	struct nlattr *whole, *data;
};

static struct expression begin_expression(struct nl_msg *rule, const char *name)
{
	struct expression expression = { .whole = netlink_begin(rule, NFTA_LIST_ELEM) };

	add_text(rule, NFTA_EXPR_NAME, name);
	expression.data = netlink_begin(rule, NFTA_EXPR_DATA);
	return expression;
}

static void end_expression(struct nl_msg *rule, const struct expression *expression)
{
	netlink_end(rule, expression->data);
	netlink_end(rule, expression->whole);
}

/* Goes on only if this fact of the packet has this value. */
static void add_condition(struct nl_msg *rule, uint32_t fact, const void *value, size_t size)
{
	struct expression expression = begin_expression(rule, "meta");
	struct nlattr *data;

	add_number(rule, NFTA_META_KEY, fact);
	add_number(rule, NFTA_META_DREG, REGISTER(0));
	end_expression(rule, &expression);
	expression = begin_expression(rule, "cmp");
	add_number(rule, NFTA_CMP_SREG, REGISTER(0));
	add_number(rule, NFTA_CMP_OP, NFT_CMP_EQ);
	data = netlink_begin(rule, NFTA_CMP_DATA);
	netlink_add(rule, NFTA_DATA_VALUE, value, size);
	netlink_end(rule, data);
	end_expression(rule, &expression);
}

static void load_bytes(struct nl_msg *rule, uint32_t header, uint32_t offset, uint32_t size, uint32_t into)
{
	struct expression expression = begin_expression(rule, "payload");

	add_number(rule, NFTA_PAYLOAD_DREG, REGISTER(into));
	add_number(rule, NFTA_PAYLOAD_BASE, header);
	add_number(rule, NFTA_PAYLOAD_OFFSET, offset);
	add_number(rule, NFTA_PAYLOAD_LEN, size);
	end_expression(rule, &expression);
}

static void add_verdict(struct nl_msg *rule, uint32_t verdict)
{
	struct expression expression = begin_expression(rule, "immediate");
	struct nlattr *data, *code;

	add_number(rule, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	data = netlink_begin(rule, NFTA_IMMEDIATE_DATA);
	code = netlink_begin(rule, NFTA_DATA_VERDICT);
	add_number(rule, NFTA_VERDICT_CODE, verdict);
	netlink_end(rule, code);
	netlink_end(rule, data);
	end_expression(rule, &expression);
}

static struct nl_msg *begin_rule(struct batch *batch, const char *table, const char *chain,
				 struct nlattr **expressions)
{
	struct nl_msg *rule = add_message(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);

	add_text(rule, NFTA_RULE_TABLE, table);
	add_text(rule, NFTA_RULE_CHAIN, chain);
	*expressions = netlink_begin(rule, NFTA_RULE_EXPRESSIONS);
	return rule;
}

/* Packets that criu makes itself pass. */
static void add_exception(struct batch *batch, const char *table, const char *chain)
{
	const uint32_t mark = NETWORK_LOCK_MARK;
	struct nlattr *expressions;
	struct nl_msg *rule = begin_rule(batch, table, chain, &expressions);

	add_condition(rule, NFT_META_MARK, &mark, sizeof(mark));
	add_verdict(rule, NF_ACCEPT);
	netlink_end(rule, expressions);
}

/* `sent_by_other`: the source of the packet is the other end. */
static void add_block(struct batch *batch, const char *table, const char *chain, const struct family *family,
		      bool sent_by_other)
{
	const uint8_t tcp = IPPROTO_TCP;
	uint32_t words = family->size / sizeof(uint32_t);
	uint32_t addresses[] = { family->source, family->destination };
	struct nlattr *expressions;
	struct nl_msg *rule = begin_rule(batch, table, chain, &expressions);
	struct expression lookup;

	add_condition(rule, NFT_META_NFPROTO, &family->protocol, sizeof(family->protocol));
	add_condition(rule, NFT_META_L4PROTO, &tcp, sizeof(tcp));
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t end = sent_by_other ? i : 1 - i; /* 0: the source */

		load_bytes(rule, NFT_PAYLOAD_NETWORK_HEADER, addresses[end], family->size, i * (words + 1));
		load_bytes(rule, NFT_PAYLOAD_TRANSPORT_HEADER, end * 2, 2, i * (words + 1) + words);
	}
	lookup = begin_expression(rule, "lookup");
	add_text(rule, NFTA_LOOKUP_SET, family->set);
	add_number(rule, NFTA_LOOKUP_SREG, REGISTER(0));
	end_expression(rule, &lookup);
	add_verdict(rule, NF_DROP);
	netlink_end(rule, expressions);
}

/* ---- the table ---- */

static void add_set(struct batch *batch, const char *table, const struct family *family, uint32_t id)
{
	struct nl_msg *set = add_message(batch, NFT_MSG_NEWSET, NLM_F_CREATE);

	add_text(set, NFTA_SET_TABLE, table);
	add_text(set, NFTA_SET_NAME, family->set);
	add_number(set, NFTA_SET_KEY_TYPE, family->key_type);
	add_number(set, NFTA_SET_KEY_LEN, key_size(family));
	add_number(set, NFTA_SET_ID, id);
}

static void add_chain(struct batch *batch, const char *table, const char *name, uint32_t hook)
{
	struct nl_msg *chain = add_message(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	struct nlattr *place;

	add_text(chain, NFTA_CHAIN_TABLE, table);
	add_text(chain, NFTA_CHAIN_NAME, name);
	place = netlink_begin(chain, NFTA_CHAIN_HOOK);
	add_number(chain, NFTA_HOOK_HOOKNUM, hook);
	add_number(chain, NFTA_HOOK_PRIORITY, (uint32_t)PRIORITY);
	netlink_end(chain, place);
	add_text(chain, NFTA_CHAIN_TYPE, "filter");
	add_exception(batch, table, name);
	for (size_t i = 0; i < array_size(families); i++)
		add_block(batch, table, name, &families[i], hook == NF_INET_LOCAL_IN);
}

static int make_table(struct nl_sock *socket, const char *name, bool is_owned)
{
	struct batch batch = begin_batch();
	struct nl_msg *table = add_message(&batch, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);
	int result;

	add_text(table, NFTA_TABLE_NAME, name);
	add_number(table, NFTA_TABLE_FLAGS, is_owned ? NFT_TABLE_F_OWNER : 0);
	for (size_t i = 0; i < array_size(families); i++)
		add_set(&batch, name, &families[i], i + 1);
	add_chain(&batch, name, "input", NF_INET_LOCAL_IN);
	add_chain(&batch, name, "output", NF_INET_LOCAL_OUT);
	result = send_batch(socket, "block packets by a table of nftables", &batch);
	if (result)
		fail_advice("--network-lock skip, if no packet can arrive meanwhile");
	return result;
}

/* ---- connections ---- */

/* The address and the port of one end, as they are in a packet. Returns what is behind them. */
static uint8_t *write_end(uint8_t *key, const union ip_address *end)
{
	const bool is_six = ip_address_is_six(end);
	const void *address = is_six ? (const void *)&end->six.sin6_addr : &end->four.sin_addr;
	size_t size = is_six ? sizeof(end->six.sin6_addr) : sizeof(end->four.sin_addr);
	const uint16_t port = htons(ip_address_port(end));

	memcpy(key, address, size);
	memcpy(key + size, &port, sizeof(port));
	return key + size + PORT_SIZE;
}

static void add_element(struct nl_msg *message, const struct family *family,
			const struct network_connection *connection)
{
	union ip_address other = ip_address_on_wire(&connection->other),
			 own = ip_address_on_wire(&connection->own);
	uint8_t key[2 * (sizeof(struct in6_addr) + PORT_SIZE)] = { 0 };
	struct nlattr *element = netlink_begin(message, NFTA_LIST_ELEM), *data;

	write_end(write_end(key, &other), &own);
	data = netlink_begin(message, NFTA_SET_ELEM_KEY);
	netlink_add(message, NFTA_DATA_VALUE, key, key_size(family));
	netlink_end(message, data);
	netlink_end(message, element);
}

static bool is_of(const struct network_connection *connection, const struct family *family)
{
	union ip_address own = ip_address_on_wire(&connection->own);

	return ip_address_is_six(&own) == (family->protocol == NFPROTO_IPV6);
}

/* Those of the family among the first IN_MESSAGE; the kernel accepts one that is there already. */
static int send_elements(struct nl_sock *socket, const char *table, const struct family *family,
			 const struct network_connection *connections, size_t count)
{
	struct batch batch = begin_batch();
	struct nl_msg *message = add_message(&batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
	struct nlattr *list;
	size_t added = 0;

	add_text(message, NFTA_SET_ELEM_LIST_TABLE, table);
	add_text(message, NFTA_SET_ELEM_LIST_SET, family->set);
	list = netlink_begin(message, NFTA_SET_ELEM_LIST_ELEMENTS);
	for (size_t i = 0; i < count; i++)
		if (is_of(&connections[i], family)) {
			add_element(message, family, &connections[i]);
			added++;
		}
	netlink_end(message, list);
	if (added)
		return send_batch(socket, "block the packets of TCP connections by nftables", &batch);
	for (size_t i = 0; i < batch.count; i++)
		nlmsg_free(batch.messages[i]);
	return 0;
}

static int block(struct nl_sock *socket, const char *table, const struct network_connection *connections,
		 size_t count)
{
	int result = 0;

	for (size_t done = 0; done < count; done += IN_MESSAGE)
		for (size_t i = 0; !result && i < array_size(families); i++)
			result = send_elements(socket, table, &families[i], connections + done,
					       min(count - done, (size_t)IN_MESSAGE));
	return result;
}

/* ---- the lock ---- */

static int make_lock(struct network_lock **lock)
{
	int result;

	*lock = allocate(sizeof(**lock));
	/* Nobody else has a table of this name. */
	snprintf((*lock)->name, NAME_SIZE, "criu-%016llx", (unsigned long long)inventory_new_id());
	result = netlink_open(&(*lock)->owner, NETLINK_NETFILTER);
	return result ?: make_table((*lock)->owner, (*lock)->name, true);
}

int network_lock_add(struct network_lock **lock, enum network_lock_method method,
		     const struct network_connection *connections, size_t count)
{
	int result;

	if (!count || method == NETWORK_LOCK_SKIP)
		return 0;
	result = *lock ? 0 : make_lock(lock);
	result = result ?: block((*lock)->owner, (*lock)->name, connections, count);
	if (result)
		return result;
	(*lock)->connections = reallocate_array((*lock)->connections, (*lock)->count + count,
						sizeof(*connections));
	memcpy((*lock)->connections + (*lock)->count, connections, count * sizeof(*connections));
	(*lock)->count += count;
	return 0;
}

int network_lock_keep(struct network_lock *lock, const char *run_id)
{
	autoclose_netlink struct nl_sock *socket = NULL;
	char name[NAME_SIZE];
	int result = netlink_open(&socket, NETLINK_NETFILTER);

	snprintf(name, sizeof(name), KEPT_NAME, run_id);
	result = result ?: make_table(socket, name, false);
	return result ?: block(socket, name, lock->connections, lock->count);
}

static int delete_table(const char *name)
{
	autoclose_netlink struct nl_sock *socket = NULL;
	int result = netlink_open(&socket, NETLINK_NETFILTER);
	struct batch batch;

	if (result)
		return result;
	batch = begin_batch();
	add_text(add_message(&batch, NFT_MSG_DELTABLE, 0), NFTA_TABLE_NAME, name);
	return send_batch(socket, "remove a table of nftables", &batch);
}

void network_lock_remove_kept(const char *run_id)
{
	char name[NAME_SIZE];
	int result;

	if (!run_id[0])
		return;
	snprintf(name, sizeof(name), KEPT_NAME, run_id);
	result = attempted(delete_table(name));
	if (result && result != -ENOENT)
		log_warning("the table %s of nftables, which blocks packets, cannot be removed: %s", name,
			    strerror(-result));
}

int network_lock_descriptor(const struct network_lock *lock)
{
	return lock ? nl_socket_get_fd(lock->owner) : -1;
}

/* The kernel removes the table together with the socket that owns it. */
void network_lock_end(struct network_lock *lock)
{
	if (!lock)
		return;
	netlink_close(lock->owner);
	free(lock->connections);
	free(lock);
}
