/*
 * parasite.c - makes system calls for compel from inside a victim.
 *
 * It runs in a thread of the victim, in a region laid out by parasite.h, with all signals blocked, and has no data of
 * its own (its pages may be read-only). When the other end of its socket closes, criu is gone, and the parasite leaves,
 * too.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/socket.h>
#include "parasite.h"
#include "ring.h"
#include "syscalls.h"
#include "twin.h"
#include "compel.h"

_Static_assert(__builtin_offsetof(struct parasite_state, working) == PARASITE_STATE_WORKING, "entry.S");
_Static_assert(__builtin_offsetof(struct parasite_state, stays) == PARASITE_STATE_STAYS, "entry.S");
_Static_assert(__builtin_offsetof(struct parasite_state, home_stack) == PARASITE_STATE_HOME_STACK, "entry.S");
_Static_assert(__builtin_offsetof(struct parasite_state, syscall_return) == PARASITE_STATE_SYSCALL_RETURN,
	       "entry.S");
_Static_assert(__builtin_offsetof(struct parasite_desk, word) == PARASITE_DESK_WORD, "entry.S");
_Static_assert(__builtin_offsetof(struct parasite_desk, calls) == PARASITE_DESK_CALLS, "entry.S");
_Static_assert(__builtin_offsetof(struct parasite_desk, count) == PARASITE_DESK_COUNT, "entry.S");
_Static_assert(__builtin_offsetof(struct parasite_desk, home) == PARASITE_DESK_HOME, "entry.S");
_Static_assert(sizeof(struct remote_call) == 64 && __builtin_offsetof(struct remote_call, result) == 56,
	       "entry.S");

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

/* ---- desks ---- */

/*
 * Waits until all threads have made their calls, or have been told to leave. There is no timeout: if such a wait is
 * interrupted, the kernel forgets how to restart the call that the thread was in when the parasite came.
 */
static long await_desks(struct parasite_state *state)
{
	uint32_t working;

	while ((working = __atomic_load_n(&state->working, __ATOMIC_ACQUIRE)))
		sys_futex(&state->working, FUTEX_WAIT_PRIVATE, working, NULL, NULL, 0);
	return 0;
}

/*
 * criu has died: sends the threads that work here home. The wait is limited to two seconds. If a thread is slower, the
 * region stays mapped. A thread that goes home this way restarts its call by its signal frame, so waits may have
 * timeouts here.
 */
static void send_home(struct parasite_state *state)
{
	const int64_t moment[2] = { 0, 10000000 }; /* struct timespec: 10 ms */
	int patience = 200;

	for (uint32_t desk = 0; desk < state->desk_count; desk++) {
		uint32_t taken = DESK_TAKEN;

		if (__atomic_compare_exchange_n(&state->words[desk], &taken, DESK_TO_LEAVE, 0,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			sys_futex(&state->words[desk], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	for (uint32_t desk = 0; desk < state->desk_count; desk++) {
		uint32_t *word = &state->words[desk];

		while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != DESK_FREE && patience > 0)
			if (sys_futex(word, FUTEX_WAIT_PRIVATE, DESK_TO_LEAVE, moment, NULL, 0) == -ETIMEDOUT)
				patience--;
		if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != DESK_FREE)
			state->stays = 1;
	}
}

/* ---- calls ---- */

/*
 * Notes a userfaultfd, the only kind of descriptor that criu has a task create for it. It must not stay if criu dies
 * before it is closed.
 */
static void note_userfaultfd(struct parasite_state *state, const struct remote_call *call)
{
	if (call->number == SYS_userfaultfd && call->result >= 0)
		state->userfaultfd = (int32_t)call->result;
	if (call->number == SYS_close && (int32_t)call->arguments[0] == state->userfaultfd)
		state->userfaultfd = -1;
}

static long begin_twin(struct parasite_state *state, const uint64_t *arguments)
{
	const struct twin_wish wish = { .has_user = arguments[0],
					.ranges = (struct twin_range *)arguments[1],
					.range_count = arguments[2],
					.room_size = arguments[3] };

	return make_twin(state->sockets[0], &wish);
}

static void make_call(struct parasite_state *state, struct remote_call *call)
{
	const uint64_t *a = call->arguments;

	if (call->number == CALL_COUNT_REQUESTS)
		call->result = count_requests(state->sockets[0], a[0], (uint32_t)a[1], (uint32_t)a[2]);
	else if (call->number == CALL_MAKE_TWIN)
		call->result = begin_twin(state, a);
	else if (call->number == CALL_AWAIT_DESKS)
		call->result = await_desks(state);
	else
		call->result = system_call(call->number, (long)a[0], (long)a[1], (long)a[2], (long)a[3],
					   (long)a[4], (long)a[5]);
	note_userfaultfd(state, call);
}

/* Serves messages. One message is a list of calls; the answer is the same list with results. */
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

/*
 * Prepares to leave: undoes what was done only for now, closes criu's descriptors, and copies the way home to the
 * thread's own stack.
 */
void pack_up(char *region)
{
	struct parasite_state *state = state_of(region);
	volatile char *to = (volatile char *)state->home_stack;
	const char *from = region + PARASITE_HOME;

	send_home(state);
	for (int32_t index = 0; index < state->back_count; index++)
		system_call(state->back[index].number, (long)state->back[index].arguments[0],
			    (long)state->back[index].arguments[1], 0, 0, 0, 0);
	close_descriptor(&state->sockets[0]);
	close_descriptor(&state->sockets[1]);
	close_descriptor(&state->userfaultfd);
	for (uint64_t index = 0; index < state->home_size; index++)
		to[index] = from[index];
}
