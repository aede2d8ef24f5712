/*
 * netlink_test.c - requests, lists and errors of netlink that need no privileges; and a new network namespace, if the
 * kernel allows one.
 */
#include "unit.h"
#include <errno.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/netlink.h"

static int setup(void **state unused)
{
	failure_clear();
	return 0;
}

struct links {
	int count;
	char first[IF_NAMESIZE];
};

static int note_link(struct nlmsghdr *answer, void *argument)
{
	struct links *links = argument;
	struct nlattr *name = nlmsg_find_attr(answer, sizeof(struct ifinfomsg), IFLA_IFNAME);

	if (!links->count++ && name)
		nla_strlcpy(links->first, name, sizeof(links->first));
	return 0;
}

static struct nl_msg *ask_for_links(void)
{
	const struct ifinfomsg any = {};

	return netlink_message(RTM_GETLINK, 0, &any, sizeof(any));
}

static void list_of_links(void **state unused)
{
	autoclose_netlink struct nl_sock *socket = NULL;
	struct links links = {};

	assert_int_equal(netlink_open(&socket, NETLINK_ROUTE), 0);
	for (int i = 1; i <= 2; i++) /* a socket can be used again */
		assert_int_equal(netlink_list(socket, "list links", ask_for_links(), note_link, &links), 0);
	assert_true(links.count >= 2 && links.count % 2 == 0);
	assert_string_equal(links.first, "lo");
}

/* Finds a socket in the list of all sockets by its inode. */
static int find_inode(struct nlmsghdr *answer, void *argument)
{
	const struct unix_diag_msg *seen = nlmsg_data(answer);
	struct stat *status = argument;

	if (seen->udiag_ino == status->st_ino)
		status->st_size = seen->udiag_type;
	return 0;
}

static void socket_by_inode(void **state unused)
{
	const struct unix_diag_req all = { .sdiag_family = AF_UNIX, .udiag_states = -1 };
	autoclose int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	autoclose_netlink struct nl_sock *socket = NULL;
	struct stat status;

	assert_int_equal(fstat(fd, &status), 0);
	status.st_size = 0;
	assert_int_equal(netlink_open(&socket, NETLINK_SOCK_DIAG), 0);
	assert_int_equal(netlink_list(socket, "list sockets",
				      netlink_message(SOCK_DIAG_BY_FAMILY, 0, &all, sizeof(all)), find_inode,
				      &status),
			 0);
	assert_int_equal(status.st_size, SOCK_SEQPACKET);
}

static int refuse_all(struct nlmsghdr *answer unused, void *argument)
{
	++*(int *)argument;
	return fail(EPROTO, "not this one");
}

/* The visitor gets no further messages, and the socket can be used again. */
static void visitor_fails(void **state unused)
{
	autoclose_netlink struct nl_sock *socket = NULL;
	struct links links = {};
	int visits = 0;

	assert_int_equal(netlink_open(&socket, NETLINK_ROUTE), 0);
	assert_int_equal(netlink_list(socket, "list links", ask_for_links(), refuse_all, &visits), -EPROTO);
	assert_string_equal(failure_text(), "not this one: Protocol error");
	assert_int_equal(visits, 1);
	assert_int_equal(netlink_list(socket, "list links", ask_for_links(), note_link, &links), 0);
	assert_string_equal(links.first, "lo");
}

static void plain_error(void **state unused)
{
	const struct ifinfomsg none = { .ifi_index = 0x7ffffff0 };
	autoclose_netlink struct nl_sock *socket = NULL;

	assert_int_equal(netlink_open(&socket, NETLINK_ROUTE), 0);
	assert_int_equal(netlink_request(socket, "see a link",
					 netlink_message(RTM_GETLINK, 0, &none, sizeof(none)), NULL, NULL),
			 -ENODEV);
	assert_string_equal(failure_text(), "cannot see a link: No such device");
}

static void words_of_the_kernel(void **state unused)
{
	const struct rtgenmsg short_header = { .rtgen_family = AF_INET };
	autoclose_netlink struct nl_sock *socket = NULL;

	assert_int_equal(netlink_open(&socket, NETLINK_ROUTE), 0);
	assert_int_equal(
		netlink_request(socket, "see a route",
				netlink_message(RTM_GETROUTE, 0, &short_header, sizeof(short_header)), NULL,
				NULL),
		-EINVAL);
	assert_string_equal(failure_text(), "cannot see a route: ipv4: Invalid header for route get request");
}

static void too_long(void **state unused)
{
	autoclose_netlink struct nl_sock *socket = NULL;
	struct nl_msg *message = ask_for_links();
	static const char bytes[40000];

	assert_int_equal(netlink_open(&socket, NETLINK_ROUTE), 0);
	netlink_add(message, IFLA_IFNAME, bytes, sizeof(bytes));
	netlink_add(message, IFLA_IFNAME, bytes, sizeof(bytes));
	assert_int_equal(netlink_request(socket, "see a link", message, NULL, NULL), -EMSGSIZE);
}

static void no_such_protocol(void **state unused)
{
	struct nl_sock *socket = NULL;

	assert_int_equal(netlink_open(&socket, MAX_LINKS - 1), -EPROTONOSUPPORT);
	assert_null(socket);
	assert_non_null(strstr(failure_text(), "cannot open a netlink socket of protocol 31"));
}

/*
 * Runs as root of a new network namespace: there is one interface, and a failed request has the kernel's message.
 * Returns 77 if namespaces are not allowed here.
 */
static int in_fresh_network(void)
{
	autoclose_netlink struct nl_sock *socket = NULL;
	const struct ifinfomsg link = {};
	struct links links = {};
	struct nl_msg *message;
	struct nlattr *information;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return 77;
	if (netlink_open(&socket, NETLINK_ROUTE) ||
	    netlink_list(socket, "list links", ask_for_links(), note_link, &links) || links.count != 1)
		return 1;
	message = netlink_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof(link));
	information = netlink_begin(message, IFLA_LINKINFO);
	netlink_add(message, IFLA_INFO_KIND, "bogus", sizeof("bogus"));
	netlink_end(message, information);
	if (netlink_request(socket, "make a link", message, NULL, NULL) != -EOPNOTSUPP)
		return 2;
	return strcmp(failure_text(), "cannot make a link: Unknown device type: Operation not supported") ?
		       3 :
		       0;
}

static void fresh_network(void **state unused)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(in_fresh_network());
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(list_of_links, setup),
		cmocka_unit_test_setup(socket_by_inode, setup),
		cmocka_unit_test_setup(visitor_fails, setup),
		cmocka_unit_test_setup(plain_error, setup),
		cmocka_unit_test_setup(words_of_the_kernel, setup),
		cmocka_unit_test_setup(too_long, setup),
		cmocka_unit_test_setup(no_such_protocol, setup),
		cmocka_unit_test_setup(fresh_network, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
