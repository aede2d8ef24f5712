/*
 * netlink_socket.h - what the sources of netlink sockets (AF_NETLINK) share.
 *
 * What criu itself asks by netlink: kernel/netlink.h.
 */
#ifndef CRIU_SOCKETS_NETLINK_SOCKET_H
#define CRIU_SOCKETS_NETLINK_SOCKET_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/index.h"
#include "compiler.h"
#include "files/kind.h"
#include "sk-netlink.pb-c.h"

#define NETLINK_GROUPS_MOST 32768 /* of one protocol; generic netlink has some hundred */
#define NETLINK_WORDS_MOST  (NETLINK_GROUPS_MOST / 32)

/*
 * States of the kernel's struct sock: NETLINK_CONNECTED, NETLINK_UNCONNECTED after that, and before that the one in
 * which all sockets are made.
 */
#define NETLINK_NEW 7 /* TCP_CLOSE */

/* Options of SOL_NETLINK that are on or off. */
struct netlink_option {
	int option;
	const char *name;
	uint32_t shown; /* by sock_diag: NDIAG_FLAG_*, if getsockopt() does not tell; 0: neither does */
};
extern const struct netlink_option netlink_options[];
extern const size_t netlink_option_count;

static inline bool netlink_has_group(const NetlinkSkEntry *entry, uint32_t group)
{
	return group && (group - 1) / 32 < entry->n_groups &&
	       entry->groups[(group - 1) / 32] >> ((group - 1) % 32) & 1;
}

/* "route", or "protocol 31" */
void netlink_protocol_name(uint32_t protocol, char *text, size_t size);

/* ---- netlink_facts.c: what sock_diag tells of the sockets of criu's network namespace ---- */

struct netlink_fact {
	uint8_t state;	/* enum netlink_state */
	uint32_t flags; /* NDIAG_FLAG_* */
};

struct netlink_facts {
	struct netlink_fact **items;
	size_t count;
	struct index by_inode;
};

/* Without CONFIG_NETLINK_DIAG there are none. */
void netlink_facts_read(struct netlink_facts *facts);
void netlink_facts_free(struct netlink_facts *facts);
/* NULL: not known. The kernel lists no socket that has neither a port nor groups. */
const struct netlink_fact *netlink_fact_find(const struct netlink_facts *facts, uint32_t inode);

/* ---- netlink_kept.c: what the kernel keeps for a socket, and does not tell or would drop with it ---- */

/* Refuses a socket for which the kernel keeps something that criu cannot save. Its message is complete. */
int netlink_refuse_kept(const struct snapshot *snapshot, const struct file *file) must_check;
/* Does the second number of a line equal this? In nfnetlink_queue and nfnetlink_log it is a port. */
bool netlink_text_has_port(const char *text, uint32_t port);

/* ---- netlink_generic.c: groups of generic netlink, by their names ---- */

/* Dump: finds the names of the groups that the message has. */
int netlink_name_groups(NetlinkSkEntry *entry) must_check;
/* Restore: the numbers that this group and its family have now. 0: there is none. May load a module. */
uint32_t netlink_find_group(const NetlinkGroupEntry *named, uint32_t *family) must_check;

/* ---- netlink_make.c: restore ---- */

int netlink_check(struct snapshot *snapshot, struct file *file);
int netlink_make(struct snapshot *snapshot, struct file *file);
int netlink_join(struct snapshot *snapshot);

#endif
