/*
 * netlink.h - requests to the kernel by netlink: single requests, lists, batches; errors include the kernel's own text.
 *
 * Based on libnl-3, whose functions build messages and attributes (netlink/msg.h, netlink/attr.h). A socket belongs to
 * the network namespace in which it was opened, wherever it is used (kernel/place.h).
 *
 *	struct nl_msg *message = netlink_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof(link));
 *	netlink_add(message, IFLA_IFNAME, name, strlen(name) + 1);
 *	result = netlink_request(socket, "make an interface", message, NULL, NULL);
 *
 * `what` completes "cannot …". Failures are recorded, with the kernel's text for the error (extended acknowledgement).
 */
#ifndef CRIU_KERNEL_NETLINK_H
#define CRIU_KERNEL_NETLINK_H

#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stddef.h>
#include "compiler.h"

/* NETLINK_ROUTE, NETLINK_SOCK_DIAG, …. 0 or -errno; *socket is NULL then. */
must_check int netlink_open(struct nl_sock **socket, int protocol);
void netlink_close(struct nl_sock *socket); /* NULL is allowed */

static inline void netlink_close_clean(struct nl_sock **socket)
{
	netlink_close(*socket);
}
#define autoclose_netlink __attribute__((cleanup(netlink_close_clean)))

/* `header` is the part between the netlink header and the attributes (struct ifinfomsg, …). */
struct nl_msg *netlink_message(int type, int flags, const void *header, size_t size);
/* Adds an attribute. If it does not fit, the request fails later. */
void netlink_add(struct nl_msg *message, int type, const void *data, size_t size);
/* Attributes that are added between these two are nested in one. */
struct nlattr *netlink_begin(struct nl_msg *message, int type);
void netlink_end(struct nl_msg *message, struct nlattr *attribute);

/* Called for each answer until it returns an error (< 0, recorded), which then is the result. */
typedef int netlink_visit(struct nlmsghdr *answer, void *argument);

/* These free the messages. `visit` may be NULL. 0 or -errno; -EAGAIN: the list changed while it was read, ask again. */
must_check int netlink_request(struct nl_sock *socket, const char *what, struct nl_msg *message,
			       netlink_visit *visit, void *argument);
must_check int netlink_list(struct nl_sock *socket, const char *what, struct nl_msg *message,
			    netlink_visit *visit, void *argument);
/* Sends all messages as one. One of them has NLM_F_ACK; the batch ends when that is acknowledged, or one has failed. */
must_check int netlink_batch(struct nl_sock *socket, const char *what, struct nl_msg **messages,
			     size_t count);

#endif
