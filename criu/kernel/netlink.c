/*
 * netlink.c - see netlink.h. An exchange sends one or more messages and reads datagrams until the kernel ends it: by an
 * acknowledgement (NLMSG_ERROR with 0), an error, or the end of a list (NLMSG_DONE).
 */
#include <errno.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/netlink.h"
#include "kernel_constants.h"

#define MESSAGE_SIZE 65536   /* the length of an attribute has 16 bits */
#define IS_TOO_LONG  (-4711) /* "protocol" of a message to which an attribute could not be added */

int netlink_open(struct nl_sock **socket, int protocol)
{
	const int on = 1;
	int result, fd;

	*socket = nl_socket_alloc();
	if (!*socket)
		return fail(ENOMEM, "no memory for a netlink socket");
	errno = 0;
	result = nl_connect(*socket, protocol);
	if (result < 0) {
		result = fail(errno ?: EIO, "cannot open a netlink socket of protocol %d (%s)", protocol,
			      nl_geterror(result));
		netlink_close(*socket);
		*socket = NULL;
		return result;
	}
	nl_socket_disable_auto_ack(*socket);
	nl_socket_enable_msg_peek(*socket);
	/*
	 * Asks for the kernel's error texts, and for errors that do not repeat the request. Both are older than the
	 * oldest kernel that criu supports; without them errors are only shorter.
	 */
	fd = nl_socket_get_fd(*socket);
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	return 0;
}

void netlink_close(struct nl_sock *socket)
{
	if (socket)
		nl_socket_free(socket);
}

struct nl_msg *netlink_message(int type, int flags, const void *header, size_t size)
{
	struct nl_msg *message = nlmsg_alloc_size(MESSAGE_SIZE);

	if (!message)
		return NULL;
	nlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, type, 0, flags);
	nlmsg_append(message, (void *)header, size, NLMSG_ALIGNTO);
	return message;
}

void netlink_add(struct nl_msg *message, int type, const void *data, size_t size)
{
	if (message && (size > UINT16_MAX || nla_put(message, type, size, data) < 0))
		nlmsg_set_proto(message, IS_TOO_LONG);
}

struct nlattr *netlink_begin(struct nl_msg *message, int type)
{
	struct nlattr *attribute = message ? nla_nest_start(message, type) : NULL;

	if (message && !attribute)
		nlmsg_set_proto(message, IS_TOO_LONG);
	return attribute;
}

void netlink_end(struct nl_msg *message, struct nlattr *attribute)
{
	if (attribute)
		nla_nest_end(message, attribute);
}

struct exchange {
	struct nl_sock *socket;
	const char *what;
	uint32_t first,
		last; /* numbers of this exchange's messages; others are left over from an exchange that failed */
	netlink_visit *visit;
	void *argument;
	int refused; /* by the visitor. The rest is still read: the kernel answers nothing until then */
	bool is_over, has_changed;
};

/* The kernel's text for the error, from the attributes behind `size` bytes of the message; NULL: none. */
static const char *words_of_kernel(struct nlmsghdr *answer, int size)
{
	struct nlattr *words;

	if (!(answer->nlmsg_flags & NLM_F_ACK_TLVS))
		return NULL;
	words = nlmsg_find_attr(answer, size, NLMSGERR_ATTR_MSG);
	if (!words || nla_len(words) < 1 || ((const char *)nla_data(words))[nla_len(words) - 1])
		return NULL;
	return nla_data(words);
}

static int hear_error(struct exchange *exchange, struct nlmsghdr *answer, int error, int size)
{
	const char *words = words_of_kernel(answer, size);

	exchange->is_over = true;
	if (!error)
		return 0;
	return fail(-error, "cannot %s%s%s", exchange->what, words ? ": " : "", words ?: "");
}

/* Without NETLINK_CAP_ACK, or on kernels before it, the request is repeated between the error and the attributes. */
static int size_of_error(const struct nlmsghdr *answer, const struct nlmsgerr *error)
{
	if (answer->nlmsg_flags & NLM_F_CAPPED || error->msg.nlmsg_len < sizeof(error->msg))
		return sizeof(*error);
	return sizeof(*error) + NLMSG_ALIGN(error->msg.nlmsg_len) - sizeof(error->msg);
}

static int hear_answer(struct exchange *exchange, struct nlmsghdr *answer)
{
	const int size = nlmsg_datalen(answer);

	if (answer->nlmsg_flags & NLM_F_DUMP_INTR)
		exchange->has_changed = true;
	switch (answer->nlmsg_type) {
	case NLMSG_NOOP:
		return 0;
	case NLMSG_OVERRUN:
		return fail(ENOBUFS, "cannot %s: the kernel has dropped answers", exchange->what);
	case NLMSG_ERROR: {
		const struct nlmsgerr *error = nlmsg_data(answer);

		if (size < (int)sizeof(*error))
			return fail(EBADMSG, "cannot %s: an answer of the kernel is too short",
				    exchange->what);
		return hear_error(exchange, answer, error->error, size_of_error(answer, error));
	}
	case NLMSG_DONE: {
		const int *error = nlmsg_data(answer);

		return hear_error(exchange, answer, size < (int)sizeof(*error) ? 0 : *error, sizeof(*error));
	}
	default:
		if (exchange->visit && !exchange->refused)
			exchange->refused = exchange->visit(answer, exchange->argument);
		return 0;
	}
}

static int hear_datagram(struct exchange *exchange)
{
	autofree unsigned char *bytes = NULL;
	struct sockaddr_nl sender;
	int left, result = 0;

	errno = 0;
	left = nl_recv(exchange->socket, &sender, &bytes, NULL);
	if (left <= 0)
		return fail(errno ?: EIO, "cannot %s: the kernel does not answer", exchange->what);
	for (struct nlmsghdr *answer = (void *)bytes; !result && nlmsg_ok(answer, left);
	     answer = nlmsg_next(answer, &left))
		if (answer->nlmsg_seq - exchange->first <= exchange->last - exchange->first)
			result = hear_answer(exchange, answer);
	return result;
}

static int await_end(struct exchange *exchange)
{
	int result = 0;

	while (!result && !exchange->is_over)
		result = hear_datagram(exchange);
	if (!result)
		result = exchange->refused;
	if (!result && exchange->has_changed)
		return fail(EAGAIN, "cannot %s: it changes while it is read", exchange->what);
	return result;
}

/* Concatenates all messages, and numbers them. NULL: an attribute could not be added to one of them. */
static char *join_messages(struct exchange *exchange, struct nl_msg **messages, size_t count, size_t *size)
{
	char *bytes = allocate(count * MESSAGE_SIZE);

	*size = 0;
	for (size_t i = 0; i < count; i++) {
		struct nlmsghdr *header = messages[i] ? nlmsg_hdr(messages[i]) : NULL;

		if (!header || nlmsg_get_proto(messages[i]) == IS_TOO_LONG) {
			free(bytes);
			return NULL;
		}
		nl_complete_msg(exchange->socket, messages[i]);
		exchange->first = i ? exchange->first : header->nlmsg_seq;
		exchange->last = header->nlmsg_seq;
		memcpy(bytes + *size, header, header->nlmsg_len);
		*size += NLMSG_ALIGN(header->nlmsg_len);
	}
	return bytes;
}

static int run_exchange(struct exchange *exchange, struct nl_msg **messages, size_t count)
{
	size_t size;
	autofree char *bytes = join_messages(exchange, messages, count, &size);
	int result = 0;

	if (!bytes)
		result = fail(EMSGSIZE, "cannot %s", exchange->what);
	for (size_t i = 0; i < count; i++)
		nlmsg_free(messages[i]);
	errno = 0;
	if (!result && nl_sendto(exchange->socket, bytes, size) < 0)
		result = fail(errno ?: EIO, "cannot %s: the kernel accepts no request", exchange->what);
	return result ? result : await_end(exchange);
}

int netlink_request(struct nl_sock *socket, const char *what, struct nl_msg *message, netlink_visit *visit,
		    void *argument)
{
	struct exchange exchange = { .socket = socket, .what = what, .visit = visit, .argument = argument };

	if (message)
		nlmsg_hdr(message)->nlmsg_flags |= NLM_F_ACK;
	return run_exchange(&exchange, &message, 1);
}

int netlink_list(struct nl_sock *socket, const char *what, struct nl_msg *message, netlink_visit *visit,
		 void *argument)
{
	struct exchange exchange = { .socket = socket, .what = what, .visit = visit, .argument = argument };

	if (message)
		nlmsg_hdr(message)->nlmsg_flags |= NLM_F_DUMP;
	return run_exchange(&exchange, &message, 1);
}

int netlink_batch(struct nl_sock *socket, const char *what, struct nl_msg **messages, size_t count)
{
	struct exchange exchange = { .socket = socket, .what = what };

	return run_exchange(&exchange, messages, count);
}
