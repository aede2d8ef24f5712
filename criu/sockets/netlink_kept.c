/*
 * netlink_kept.c - what the kernel keeps for a netlink socket by its port, and drops when the socket is closed.
 *
 * None of it can be seen on the socket. What can be found elsewhere is refused here by name; known-gaps.md lists what
 * cannot be found.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/connector.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel/netlink.h"
#include "sockets/netlink_socket.h"

#define AWAITED_MS 2000

static int refuse_for(const struct file *file, const char *why)
{
	const struct seen_file *seen = file->seen;

	return refuse("process %d (%s): descriptor %d (%s) is a netlink socket %s", seen->holder.here,
		      seen->holder.name, seen->fd, seen->link, why);
}

/* ---- NETLINK_AUDIT ---- */

/* The answer comes from a thread of the kernel, after an acknowledgement would. 0: nobody, or it is not told. */
static pid_t ask_for_audit_daemon(void)
{
	autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);
	const struct nlmsghdr request = { .nlmsg_len = sizeof(request),
					  .nlmsg_type = AUDIT_GET,
					  .nlmsg_flags = NLM_F_REQUEST };
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct pollfd answered = { fd, POLLIN, 0 };
	struct {
		struct nlmsghdr header;
		struct audit_status status;
	} answer = { 0 };

	if (fd < 0 ||
	    sendto(fd, &request, sizeof(request), 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0 ||
	    poll(&answered, 1, AWAITED_MS) <= 0 || recv(fd, &answer, sizeof(answer), MSG_DONTWAIT) < 0)
		return 0;
	return answer.header.nlmsg_type == AUDIT_GET ? (pid_t)answer.status.pid : 0;
}

/* The kernel has its process and port. A process in the initial namespaces becomes it with CAP_AUDIT_CONTROL. */
static int refuse_audit_daemon(const struct snapshot *snapshot, const struct file *file)
{
	pid_t daemon = ask_for_audit_daemon();

	if (!daemon || !snapshot_find_task_here(snapshot, daemon))
		return 0;
	fail_advice("end the audit daemon before");
	return refuse_for(
		file,
		"(audit) of the audit daemon, to which the kernel sends its records: it would lose them");
}

/* ---- NETLINK_CONNECTOR ---- */

/* A listener has told the kernel so, by a message, which counts the listeners, and has a filter for each (Linux 6.6). */
static int refuse_process_events(const struct file *file)
{
	if (!netlink_has_group(file->entry->nlsk, CN_IDX_PROC))
		return 0;
	return refuse_for(
		file,
		"(connector) for events of processes: nothing shows which of them it has asked the kernel for");
}

/* ---- NETLINK_NETFILTER ---- */

bool netlink_text_has_port(const char *text, uint32_t port)
{
	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		unsigned queue, holder;

		line += *line == '\n';
		if (sscanf(line, "%u %u", &queue, &holder) == 2 && holder == port)
			return true;
	}
	return false;
}

/* A file that is missing, or that criu may not read: then the process could not have made anything in it either. */
static bool file_has_port(const char *path, uint32_t port)
{
	autofree char *text = NULL;

	return read_text_at(-1, path, &text) > 0 && netlink_text_has_port(text, port);
}

struct owner {
	uint32_t port;
	bool has_table;
};

static int look_at_table(struct nlmsghdr *answer, void *argument)
{
	struct owner *owner = argument;
	struct nlattr *port = nlmsg_find_attr(answer, sizeof(struct nfgenmsg), NFTA_TABLE_OWNER);

	if (port && nla_len(port) >= (int)sizeof(uint32_t) && ntohl(nla_get_u32(port)) == owner->port)
		owner->has_table = true;
	return 0;
}

/* Linux 5.12. */
static int list_tables(struct owner *owner)
{
	const struct nfgenmsg all = { .version = NFNETLINK_V0 };
	autoclose_netlink struct nl_sock *socket = NULL;
	int result = netlink_open(&socket, NETLINK_NETFILTER);

	return result ?:
			netlink_list(socket, "list the tables of nftables",
				     netlink_message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, 0, &all,
						     sizeof(all)),
				     look_at_table, owner);
}

static int refuse_netfilter(const struct file *file)
{
	struct owner owner = { .port = file->entry->nlsk->portid };

	if (!owner.port)
		return 0;
	if (file_has_port("/proc/self/net/netfilter/nfnetlink_queue", owner.port))
		return refuse_for(
			file, "(netfilter) that decides about packets (NFQUEUE), which is not supported yet");
	if (file_has_port("/proc/self/net/netfilter/nfnetlink_log", owner.port))
		return refuse_for(file,
				  "(netfilter) that gets packets to log (NFLOG), which is not supported yet");
	ignore(attempted(list_tables(&owner))); /* a kernel without nftables */
	return owner.has_table ?
		       refuse_for(
			       file,
			       "(netfilter) that owns a table of nftables, which would end with the socket") :
		       0;
}

int netlink_refuse_kept(const struct snapshot *snapshot, const struct file *file)
{
	switch (file->entry->nlsk->protocol) {
	case NETLINK_AUDIT:
		return refuse_audit_daemon(snapshot, file);
	case NETLINK_CONNECTOR:
		return refuse_process_events(file);
	case NETLINK_NETFILTER:
		return refuse_netfilter(file);
	default:
		return 0;
	}
}
