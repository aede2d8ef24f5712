/*
 * restorer.c - the last part of a restore, inside the newborn, after which criu's own code is unmapped there.
 *
 * It runs the calls that lay out the address space, creates the threads, and has each thread run the calls that restore
 * its own state. Then it waits. criu takes every thread by ptrace, unmaps this region, sets the registers, and lets the
 * thread go. All signals are blocked meanwhile. Only criu knows what the calls mean; a failure goes to the board as
 * numbers.
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <time.h>
#include "futex.h"
#include "restorer.h"
#include "syscalls.h"

/*
 * Milliseconds. The ids of the threads of a killed process stay in use for a moment after the process is gone (the
 * kernel frees them after it has told the parent; 6.18).
 */
#define ID_PATIENCE 1000

void restore_process(char *region) does_not_return;
void restore_thread(char *region, struct restorer_thread *thread) does_not_return;
long start_thread(struct clone_args *arguments, size_t size, char *region, struct restorer_thread *thread);

static struct restorer_board *board_of(char *region)
{
	return (struct restorer_board *)(region + RESTORER_BOARD);
}

static does_not_return void report_failure(char *region, int list, int index, long result)
{
	struct restorer_board *board = board_of(region);
	uint32_t nobody = 0;

	if (__atomic_compare_exchange_n(&board->failed, &nobody, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		board->failed_tid = sys_gettid();
		board->failed_list = list;
		board->failed_index = index;
		__atomic_store_n(&board->failed_result, (int32_t)result, __ATOMIC_SEQ_CST);
	}
	futex_wake(&board->arrived);
	for (;;)
		sys_exit_group(1);
}

static void run_calls(char *region, int list, uint64_t calls, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		struct remote_call *made = (struct remote_call *)(region + calls) + i;
		const uint64_t *a = made->arguments;
		long accepted = made->result;

		made->result = system_call(made->number, (long)a[0], (long)a[1], (long)a[2], (long)a[3],
					   (long)a[4], (long)a[5]);
		if (made->result < 0 && made->result >= -4095 && made->result != accepted)
			report_failure(region, list, i, made->result);
	}
}

void restore_thread(char *region, struct restorer_thread *thread)
{
	struct restorer_board *board = board_of(region);

	run_calls(region, RESTORER_LIST_SELF, thread->calls, thread->call_count);
	__atomic_fetch_add(&board->arrived, 1, __ATOMIC_SEQ_CST);
	futex_wake(&board->arrived);
	for (;;)
		sys_futex(&board->never, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static void make_thread(char *region, const struct restorer_arguments *of, int index)
{
	struct restorer_thread *thread = (struct restorer_thread *)(region + of->threads) + index;
	/* clone3() takes the lowest byte of the stack and its size. */
	struct clone_args arguments = {
		.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
		.stack = (uint64_t)(region + thread->stack - RESTORER_STACK_SIZE),
		.stack_size = RESTORER_STACK_SIZE,
		.set_tid = (uint64_t)(region + of->ids + index * of->id_levels * sizeof(int32_t)),
		.set_tid_size = of->id_levels,
	};
	const struct timespec moment = { .tv_nsec = 1000000 };
	long result = start_thread(&arguments, sizeof(arguments), region, thread);

	for (int tries = 0; result == -EEXIST && tries < ID_PATIENCE; tries++) {
		sys_nanosleep(&moment, NULL);
		result = start_thread(&arguments, sizeof(arguments), region, thread);
	}
	if (result < 0)
		report_failure(region, RESTORER_THREADS, index, result);
}

static void await(uint32_t *futex, uint32_t wanted)
{
	uint32_t now;

	while ((now = __atomic_load_n(futex, __ATOMIC_ACQUIRE)) < wanted)
		sys_futex(futex, FUTEX_WAIT, now, NULL, NULL, 0);
}

/*
 * The leader unmaps criu only when all others have left its code. The others go on only when the space has its final
 * layout.
 */
static void lay_out_space(char *region, struct restorer_arguments *arguments)
{
	struct restorer_arguments *leader =
		(struct restorer_arguments *)(arguments->leader + RESTORER_ARGUMENTS);

	if (leader != arguments) {
		__atomic_fetch_add(&leader->left, 1, __ATOMIC_RELEASE);
		futex_wake(&leader->left);
		await(&leader->is_final, 1);
		return;
	}
	await(&arguments->left, arguments->others);
	run_calls(region, RESTORER_LIST_SPACE, arguments->space_calls, arguments->space_call_count);
	__atomic_store_n(&arguments->is_final, 1, __ATOMIC_RELEASE);
	futex_wake(&arguments->is_final);
}

void restore_process(char *region)
{
	struct restorer_arguments *arguments = (struct restorer_arguments *)(region + RESTORER_ARGUMENTS);
	struct restorer_thread *threads = (struct restorer_thread *)(region + arguments->threads);

	lay_out_space(region, arguments);
	for (uint64_t i = 1; i < arguments->thread_count; i++)
		make_thread(region, arguments, i);
	restore_thread(region, &threads[0]);
}
