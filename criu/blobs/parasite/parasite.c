/*
 * parasite.c - makes system calls for compel from inside a victim.
 *
 * Runs in a thread of the victim, in a region laid out by parasite.h, with all signals blocked; holds no data of its own
 * (its pages may be read-only). The socket is its life line: when its other end closes, criu is gone, and it goes too.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/socket.h>
#include "parasite.h"
#include "ring.h"
#include "syscalls.h"
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
 * Until all threads have made their calls, or have been told to leave. Without a timeout: if such a wait is interrupted, the kernel forgets
 * how the call is to be restarted that the thread was in when we came.
 */
static long await_desks(struct parasite_state *state)
{
	uint32_t working;

	while ((working = __atomic_load_n(&state->working, __ATOMIC_ACQUIRE)))
		sys_futex(&state->working, FUTEX_WAIT_PRIVATE, working, NULL, NULL, 0);
	return 0;
}

/*
 * criu has died: whoever works here goes home. Nobody is waited for longer than two seconds, but then the region stays mapped, for it may
 * be that a thread is slow. A thread that goes home this way restarts its call by its frame: here, waits may have timeouts.
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
	else if (call->number == CALL_AWAIT_DESKS)
		call->result = await_desks(state);
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
