/*
 * parasite.c - makes system calls for compel from inside a victim.
 *
 * Runs in a thread of the victim, in a region laid out by parasite.h, with all signals blocked; holds no data of its own
 * (its pages may be read-only). The socket is its life line: when its other end closes, criu is gone, and it goes too.
 */
#include <sys/socket.h>
#include "parasite.h"
#include "ring.h"
#include "syscalls.h"
#include "compel.h"

void serve(char *region);
void pack_up(char *region);

static struct parasite_state *state_of(char *region)
{
	return (struct parasite_state *)(region + PARASITE_STATE);
}

static void close_descriptor(int32_t *fd)
{
	int closing = *fd;

	*fd = -1;
	if (closing >= 0)
		sys_close(closing);
}

/* The one kind of descriptor that criu lets a task make for it: it must not stay if criu dies before it has it closed. */
static void note_userfaultfd(struct parasite_state *state, const struct remote_call *call)
{
	if (call->number == SYS_userfaultfd && call->result >= 0)
		state->userfaultfd = (int32_t)call->result;
	if (call->number == SYS_close && (int32_t)call->arguments[0] == state->userfaultfd)
		state->userfaultfd = -1;
}

static void make_call(struct parasite_state *state, struct remote_call *call)
{
	const uint64_t *a = call->arguments;

	if (call->number == CALL_COUNT_REQUESTS)
		call->result = count_requests(state->sockets[0], a[0], (uint32_t)a[1], (uint32_t)a[2]);
	else
		call->result = system_call(call->number, (long)a[0], (long)a[1], (long)a[2], (long)a[3],
					   (long)a[4], (long)a[5]);
	note_userfaultfd(state, call);
}

/* One message is one list of calls; the answer is the same list with results. */
void serve(char *region)
{
	struct parasite_state *state = state_of(region);
	struct remote_call *calls = (struct remote_call *)(region + PARASITE_CALLS);

	close_descriptor(&state->sockets[1]);
	for (;;) {
		long size = sys_recvfrom(state->sockets[0], calls, PARASITE_SCRATCH - PARASITE_CALLS, 0, NULL,
					 NULL);

		if (size == -4) /* EINTR */
			continue;
		if (size <= 0)
			return;
		for (size_t index = 0; index < size / sizeof(*calls); index++)
			make_call(state, &calls[index]);
		sys_sendto(state->sockets[0], calls, size, MSG_NOSIGNAL, NULL, 0);
	}
}

/* The last act but one: nothing done for the moment only, no descriptor of ours, and the way home on the thread's own stack. */
void pack_up(char *region)
{
	struct parasite_state *state = state_of(region);
	volatile char *to = (volatile char *)state->home_stack;
	const char *from = region + PARASITE_HOME;

	for (int32_t index = 0; index < state->back_count; index++)
		system_call(state->back[index].number, (long)state->back[index].arguments[0],
			    (long)state->back[index].arguments[1], 0, 0, 0, 0);
	close_descriptor(&state->sockets[0]);
	close_descriptor(&state->sockets[1]);
	close_descriptor(&state->userfaultfd);
	for (uint64_t index = 0; index < state->home_size; index++)
		to[index] = from[index];
}
