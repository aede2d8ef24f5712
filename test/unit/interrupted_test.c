/*
 * interrupted_test.c - a system call that was interrupted: which ones are made again, with which timeout, and that the
 * registers of this architecture then make that call.
 */
#include "unit.h"
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include "interrupted.h"

#define MILLISECOND 1000000ULL

static void ends_by_result(void **state unused)
{
	assert_int_equal(interrupted_end(-ERESTARTSYS), CALL_IS_REPEATED);
	assert_int_equal(interrupted_end(-ERESTARTNOINTR), CALL_IS_REPEATED);
	assert_int_equal(interrupted_end(-ERESTARTNOHAND), CALL_IS_REPEATED);
	assert_int_equal(interrupted_end(-ERESTART_RESTARTBLOCK), CALL_IS_CONTINUED);
	assert_int_equal(interrupted_end(-EINTR), CALL_IS_OVER);
	assert_int_equal(interrupted_end(-515), CALL_IS_OVER); /* ENOIOCTLCMD */
	assert_int_equal(interrupted_end(512), CALL_IS_OVER);
	assert_int_equal(interrupted_end(0), CALL_IS_OVER);
}

static bool is_by_stop(long number, long result)
{
	struct arch_call call = { .number = number, .result = result };

	return interrupted_by_stop(&call);
}

static void stop_is_hidden(void **state unused)
{
	assert_true(is_by_stop(SYS_epoll_pwait, -EINTR));
	assert_true(is_by_stop(SYS_semtimedop, -EINTR));
	assert_true(is_by_stop(SYS_read, -EINTR));
	assert_true(is_by_stop(SYS_io_uring_enter, -EINTR));
	assert_false(is_by_stop(SYS_read, -EAGAIN));
	assert_false(is_by_stop(SYS_read, -ERESTARTSYS));
	assert_false(is_by_stop(SYS_rt_sigsuspend, -EINTR)); /* it ends only after a handler */
	assert_false(is_by_stop(SYS_close, -EINTR));
}

static void some_can_continue(void **state unused)
{
	assert_true(interrupted_can_continue(SYS_nanosleep));
	assert_true(interrupted_can_continue(SYS_clock_nanosleep));
	assert_true(interrupted_can_continue(SYS_futex));
	assert_true(interrupted_can_continue(SYS_restart_syscall));
	assert_false(interrupted_can_continue(SYS_epoll_pwait));
	assert_false(interrupted_can_continue(SYS_read));
}

static void original_by_place(void **state unused)
{
	assert_int_equal(interrupted_original("futex_wait_queue", 0x7000000000), SYS_futex);
	assert_int_equal(interrupted_original("hrtimer_nanosleep", 0x7000000000), SYS_nanosleep);
	assert_int_equal(interrupted_original("hrtimer_nanosleep", 1), SYS_clock_nanosleep);
	assert_int_equal(interrupted_original("do_cpu_nanosleep", (uint64_t)-6), SYS_clock_nanosleep);
	assert_int_equal(interrupted_original("0", 1), 0); /* not allowed to see it */
	assert_int_equal(interrupted_original("", 1), 0);
}

/* ---- timeouts ---- */

static void timeouts_in_memory(void **state unused)
{
	struct arch_call sleep = { .number = SYS_nanosleep, .arguments = { 4096 } };
	struct arch_call clock = { .number = SYS_clock_nanosleep, .arguments = { 1, 0, 4096 } };
	struct arch_call until = { .number = SYS_clock_nanosleep, .arguments = { 1, TIMER_ABSTIME, 4096 } };
	struct arch_call wait = { .number = SYS_futex,
				  .arguments = { 8192, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, 4096 } };
	struct arch_call endless = { .number = SYS_futex, .arguments = { 8192, FUTEX_WAIT } };
	struct arch_call bitset = { .number = SYS_futex, .arguments = { 8192, FUTEX_WAIT_BITSET, 0, 4096 } };

	assert_int_equal(interrupted_timeout(&sleep), 0);
	assert_int_equal(interrupted_timeout(&clock), 2);
	assert_int_equal(interrupted_timeout(&until), -1);
	assert_int_equal(interrupted_timeout(&wait), 3);
	assert_int_equal(interrupted_timeout(&endless), -1);
	assert_int_equal(interrupted_timeout(&bitset), -1); /* its timeout is absolute */
	assert_true(interrupted_hides_time(&wait));
	assert_false(interrupted_hides_time(&until));
}

static struct arch_call wait_for_events(int milliseconds)
{
	return (struct arch_call){ .number = SYS_epoll_pwait,
				   .arguments = { 3, 4096, 1, (uint64_t)milliseconds } };
}

static int shortened(int milliseconds, uint64_t asleep)
{
	struct arch_call call = wait_for_events(milliseconds);

	interrupted_shorten(&call, asleep);
	assert_int_equal(call.arguments[0], 3);
	assert_int_equal(call.arguments[2], 1);
	return (int)call.arguments[3];
}

static void milliseconds_are_shortened(void **state unused)
{
	struct arch_call endless = wait_for_events(-1), at_once = wait_for_events(0),
			 some = wait_for_events(1);
	struct arch_call other = { .number = SYS_read, .arguments = { 3, 4096, 1, 1000 } };

	assert_int_equal(shortened(1000, 400 * MILLISECOND), 600);
	assert_int_equal(shortened(1000, 400 * MILLISECOND + 1), 600); /* never too early */
	assert_int_equal(shortened(1000, 1000 * MILLISECOND), 0);
	assert_int_equal(shortened(1000, 5000 * MILLISECOND),
			 0); /* 0, and not negative: that is without end */
	assert_int_equal(shortened(0, 400 * MILLISECOND), 0);
	assert_int_equal(shortened(-1, 400 * MILLISECOND), -1);
	assert_false(interrupted_hides_time(&endless));
	assert_false(interrupted_hides_time(&at_once));
	assert_true(interrupted_hides_time(&some));
	interrupted_shorten(&other, 400 * MILLISECOND);
	assert_int_equal(other.arguments[3], 1000);
}

static void told_rest_is_used(void **state unused)
{
	struct arch_call sleep = { .number = SYS_nanosleep, .arguments = { 4096, 8192 } };
	struct arch_call clock = { .number = SYS_clock_nanosleep, .arguments = { 1, 0, 4096, 8192 } };
	struct arch_call silent = { .number = SYS_nanosleep, .arguments = { 4096, 0 } };
	struct arch_call until = { .number = SYS_clock_nanosleep,
				   .arguments = { 1, TIMER_ABSTIME, 4096, 8192 } };

	assert_true(interrupted_use_told(&sleep));
	assert_int_equal(sleep.arguments[0], 8192);
	assert_true(interrupted_use_told(&clock));
	assert_int_equal(clock.arguments[2], 8192);
	assert_false(interrupted_use_told(&silent));
	assert_int_equal(silent.arguments[0], 4096);
	assert_false(interrupted_use_told(&until));
	assert_int_equal(until.arguments[2], 4096);
}

static void something_remains(void **state unused)
{
	struct timespec timeout = { 2, 500 };

	assert_int_equal(interrupted_remaining(&timeout, 0), 2 * SECOND_NS + 500);
	assert_int_equal(interrupted_remaining(&timeout, SECOND_NS), SECOND_NS + 500);
	assert_int_equal(interrupted_remaining(&timeout, 2 * SECOND_NS + 500), 1); /* 0 would mean: unknown */
	assert_int_equal(interrupted_remaining(&timeout, 3 * SECOND_NS), 1);
}

/* ---- what arch.h asks of an architecture ---- */

static void registers_make_the_call(void **state unused)
{
	struct arch_registers registers = {};
	struct arch_call call, seen;

	arch_prepare_call(&registers, 0x400000, 0x7000, SYS_futex, (uint64_t[]){ 1, 2, 3, 4, 5, 6 });
	arch_get_call(&registers, &seen);
	assert_int_equal(seen.number, -1);
	assert_int_equal(arch_next_call(&registers), SYS_futex);

	/* As the kernel leaves it. */
	arch_set_instruction_pointer(&registers, 0x400000 + ARCH_CALL_SIZE);
	arch_set_call(&registers, SYS_futex, -ERESTART_RESTARTBLOCK);
	arch_get_call(&registers, &call);
	assert_int_equal(call.number, SYS_futex);
	assert_int_equal(call.result, -ERESTART_RESTARTBLOCK);
	assert_memory_equal(call.arguments, ((uint64_t[]){ 1, 2, 3, 4, 5, 6 }), sizeof(call.arguments));

	call.arguments[3] = 4096;
	arch_make_again(&registers, &call);
	arch_get_call(&registers, &seen);
	assert_int_equal(seen.number, -1);
	assert_int_equal(seen.arguments[0], 1);
	assert_int_equal(seen.arguments[3], 4096);
	assert_int_equal(arch_next_call(&registers), SYS_futex);
	assert_int_equal(arch_instruction_pointer(&registers), 0x400000);
	assert_int_equal(arch_stack_pointer(&registers), 0x7000);
}

static void call_is_over(void **state unused)
{
	struct arch_registers registers = {};
	struct arch_call call;

	arch_set_instruction_pointer(&registers, 0x400000);
	arch_set_call(&registers, SYS_futex, -ERESTART_RESTARTBLOCK);
	arch_set_call(&registers, -1, -EINTR);
	arch_get_call(&registers, &call);
	assert_int_equal(call.number, -1);
	assert_int_equal(arch_call_result(&registers), -EINTR);
	assert_int_equal(arch_instruction_pointer(&registers), 0x400000);
}

#if defined(__x86_64__)
static bool is_sleep(long number)
{
	return number == SYS_nanosleep || number == SYS_clock_nanosleep;
}

static void number_in_code(void **state unused)
{
	static const unsigned char move[] = { 0xb8, SYS_nanosleep, 0, 0, 0 };
	static const unsigned char long_move[] = { 0x48, 0xc7, 0xc0, SYS_clock_nanosleep, 0, 0, 0 };
	static const unsigned char other[] = { 0xb8, SYS_read, 0, 0, 0 };
	unsigned char code[ARCH_CODE_BEFORE_CALL] = {};

	assert_true(arch_is_call_instruction((const unsigned char[]){ 0x0f, 0x05 }));
	assert_false(arch_is_call_instruction((const unsigned char[]){ 0xcd, 0x80 }));
	assert_int_equal(arch_loaded_number(code, is_sleep), -1);
	memcpy(code, move, sizeof(move));
	assert_int_equal(arch_loaded_number(code, is_sleep), SYS_nanosleep);
	memcpy(code + sizeof(code) - sizeof(other), other, sizeof(other));
	assert_int_equal(arch_loaded_number(code, is_sleep), SYS_nanosleep);
	memcpy(code + sizeof(code) - sizeof(long_move), long_move, sizeof(long_move));
	assert_int_equal(arch_loaded_number(code, is_sleep), SYS_clock_nanosleep);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ends_by_result),
		cmocka_unit_test(stop_is_hidden),
		cmocka_unit_test(some_can_continue),
		cmocka_unit_test(original_by_place),
		cmocka_unit_test(timeouts_in_memory),
		cmocka_unit_test(milliseconds_are_shortened),
		cmocka_unit_test(told_rest_is_used),
		cmocka_unit_test(something_remains),
		cmocka_unit_test(registers_make_the_call),
		cmocka_unit_test(call_is_over),
#if defined(__x86_64__)
		cmocka_unit_test(number_in_code),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
