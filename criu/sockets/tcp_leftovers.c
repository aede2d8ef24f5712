/*
 * tcp_leftovers.c - see tcp_leftovers.h. The kernel lists all sockets; those that no process has are without an inode.
 */
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/index.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel/netlink.h"
#include "sockets/tcp_leftovers.h"

#define BIT(state) (1U << (state))
/* Nothing is left to be sent: the other end has acknowledged everything. */
#define DONE   (BIT(TCP_TIME_WAIT) | BIT(TCP_FIN_WAIT2))
#define CLOSED (DONE | BIT(TCP_FIN_WAIT1) | BIT(TCP_CLOSING) | BIT(TCP_LAST_ACK))

struct leftovers {
	const struct network_connection *connections;
	struct index by_connection; /* by a hash */
	bool ports[UINT16_MAX + 1];
	struct inet_diag_msg *found;
	size_t count;
};

static bool is_same_address(const union ip_address *address, const void *words, uint16_t port)
{
	bool is_six = ip_address_is_six(address);
	const void *own = is_six ? (const void *)&address->six.sin6_addr : &address->four.sin_addr;

	return ip_address_port(address) == ntohs(port) &&
	       !memcmp(own, words, is_six ? sizeof(struct in6_addr) : sizeof(struct in_addr));
}

static uint64_t key_of(uint16_t own, uint16_t other)
{
	return (uint64_t)own << 16 | other;
}

static const struct network_connection *find_connection(const struct leftovers *leftovers,
							const struct inet_diag_msg *seen)
{
	const struct network_connection *found;

	for (uint64_t key = key_of(ntohs(seen->id.idiag_sport), ntohs(seen->id.idiag_dport));
	     (found = index_find(&leftovers->by_connection, key)); key += 1ULL << 32)
		if (found->own.any.sa_family == seen->idiag_family &&
		    is_same_address(&found->own, seen->id.idiag_src, seen->id.idiag_sport) &&
		    is_same_address(&found->other, seen->id.idiag_dst, seen->id.idiag_dport))
			return found;
	return NULL;
}

static int take(struct nlmsghdr *answer, void *argument)
{
	struct leftovers *leftovers = argument;
	const struct inet_diag_msg *seen = nlmsg_data(answer);
	bool is_in_the_way;

	if (nlmsg_datalen(answer) < (int)sizeof(*seen) || seen->idiag_inode)
		return 0;
	is_in_the_way = (BIT(seen->idiag_state) & DONE && leftovers->ports[ntohs(seen->id.idiag_sport)]) ||
			find_connection(leftovers, seen);
	if (is_in_the_way)
		*grow(&leftovers->found, &leftovers->count) = *seen;
	return 0;
}

static int list(struct nl_sock *socket, struct leftovers *leftovers, uint8_t family)
{
	const struct inet_diag_req_v2 wanted = { .sdiag_family = family,
						 .sdiag_protocol = IPPROTO_TCP,
						 .idiag_states = CLOSED };

	return netlink_list(socket, "list what is left of TCP connections",
			    netlink_message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, &wanted, sizeof(wanted)),
			    take, leftovers);
}

/* One that is gone meanwhile is no failure. */
static int forget(struct nl_sock *socket, const struct inet_diag_msg *leftover)
{
	const struct inet_diag_req_v2 which = { .sdiag_family = leftover->idiag_family,
						.sdiag_protocol = IPPROTO_TCP,
						.idiag_states = UINT32_MAX,
						.id = leftover->id };
	int result = attempted(netlink_request(
		socket, "forget what is left of a TCP connection",
		netlink_message(SOCK_DESTROY, NLM_F_REQUEST, &which, sizeof(which)), NULL, NULL));

	return result == -ENOENT ? 0 : result;
}

static void note(struct leftovers *leftovers, const struct network_connection *connections, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t key = key_of(ip_address_port(&connections[i].own),
				      ip_address_port(&connections[i].other));

		while (index_find(&leftovers->by_connection, key))
			key += 1ULL << 32;
		index_set(&leftovers->by_connection, key, (void *)&connections[i]);
	}
}

int tcp_forget_leftovers(const struct network_connection *connections, size_t connection_count,
			 const union ip_address *bound, size_t bound_count)
{
	autoclose_netlink struct nl_sock *socket = NULL;
	autofree struct leftovers *leftovers = allocate(sizeof(*leftovers));
	int result = netlink_open(&socket, NETLINK_SOCK_DIAG);

	note(leftovers, connections, connection_count);
	for (size_t i = 0; i < bound_count; i++)
		leftovers->ports[ip_address_port(&bound[i])] = true;
	result = result ?: list(socket, leftovers, AF_INET) ?: list(socket, leftovers, AF_INET6);
	for (size_t i = 0; !result && i < leftovers->count; i++)
		result = forget(socket, &leftovers->found[i]);
	if (!result)
		log_info("the kernel has forgotten %zu closed TCP connections", leftovers->count);
	free(leftovers->found);
	index_free(&leftovers->by_connection);
	return result;
}
