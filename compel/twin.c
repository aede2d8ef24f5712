/*
 * twin.c - has victims make copies of themselves. See victims_make_twins() in compel.h, and blobs/parasite/twin.c.
 *
 * The descriptors come in a message of their own, behind that of the call: the parasite takes them itself, and
 * closes them, so nothing of criu's stays in the task if criu dies.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/memory.h"
#include "internal.h"

static int send_descriptors(const struct victim *victim, const struct twin_order *order)
{
	char byte = 0;
	int fds[] = { order->room, order->pids, order->user };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(fds))];
	} control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	struct iovec data = { &byte, sizeof(byte) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control };
	size_t size = (order->user < 0 ? 2 : 3) * sizeof(int);

	control.header.cmsg_len = CMSG_LEN(size);
	message.msg_controllen = CMSG_SPACE(size);
	memcpy(CMSG_DATA(&control.header), fds, size);
	return sendmsg(victim->infection->socket, &message, MSG_NOSIGNAL) < 0 ?
		       fail(errno, "it does not answer") :
		       0;
}

static int order_twin(struct victim *victim)
{
	struct infection *infection = victim->infection;
	const struct twin_order *order = infection->twin;
	uint64_t scratch = victim_scratch(victim, NULL);
	const struct remote_call call = { .number = CALL_MAKE_TWIN,
					  .arguments = { order->user >= 0, scratch, order->range_count,
							 order->room_size } };
	int result = 0;

	infection->is_working = infection->is_serving && order->range_count <= MOST_TWIN_RANGES;
	if (!infection->is_working)
		return 0;
	if (order->range_count)
		result = victim_write(victim, scratch, order->ranges,
				      order->range_count * sizeof(*order->ranges));
	return result ?: parasite_send(victim, &call, 1) ?: send_descriptors(victim, order);
}

static int await_twin(struct victim *victim)
{
	struct infection *infection = victim->infection;
	struct twin_order *order = infection->twin;
	struct remote_call call = { .result = -ENOSYS };
	int result = infection->is_working ? parasite_receive(victim, &call, 1) : 0;

	order->twin = result ? result : call.result;
	return result;
}

int victims_make_twins(struct twin_order *orders, size_t count)
{
	static const victim_step steps[] = { order_twin, await_twin, parasite_interrupt,
					     parasite_await_park };
	autofree struct victim **victims = allocate_array(count, sizeof(*victims));
	bool had_failed = has_failed();
	size_t failed = 0;
	int result;

	for (size_t i = 0; i < count; i++) {
		victims[i] = orders[i].victim;
		victims[i]->infection->twin = &orders[i];
	}
	result = group_walk(victims, count, steps, array_size(steps), keep_error, &failed);
	return result ? victim_failed_in(victims[failed], result, had_failed) : 0;
}
