/*
 * btf_test.c - members of the kernel's structs: those that programs know, too, must be where the headers say.
 */
#include "unit.h"
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <unistd.h>
#include "base/error.h"
#include "compiler.h"
#include "kernel/btf.h"

static struct btf *btf;

static int set_up(void **state unused)
{
	error_init();
	if (access("/sys/kernel/btf/vmlinux", R_OK) == 0)
		assert_int_equal(btf_load(&btf), 0);
	return 0;
}

static int tear_down(void **state unused)
{
	btf_free(btf);
	return 0;
}

static void expect_at(const char *type, const char *path, uint32_t offset)
{
	struct btf_place place;

	if (!btf_find(btf, type, path, &place))
		fail_msg("there is no %s.%s", type, path);
	assert_int_equal(place.offset, offset);
	assert_int_equal(place.bits, 0);
}

static void members(void **state unused)
{
	if (!btf)
		skip();
	expect_at("io_uring_sqe", "opcode", 0);
	expect_at("io_uring_sqe", "user_data", offsetof(struct io_uring_sqe, user_data));
	expect_at("io_uring_sqe", "poll32_events",
		  offsetof(struct io_uring_sqe, poll32_events)); /* in a union */
	expect_at("io_uring_params", "sq_off.array", offsetof(struct io_uring_params, sq_off.array));
	expect_at("io_uring_params", "cq_off", offsetof(struct io_uring_params, cq_off));
}

static void bits(void **state unused)
{
	struct btf_place syn;
	union {
		struct tcphdr header;
		uint8_t bytes[sizeof(struct tcphdr)];
	} packet = { .header = { .syn = 1 } };

	if (!btf)
		skip();
	assert_true(btf_find(btf, "tcphdr", "syn", &syn));
	assert_int_equal(syn.bits, 1);
	assert_int_equal(packet.bytes[syn.offset], 1 << syn.bit);
}

static void nothing(void **state unused)
{
	struct btf_place place;

	if (!btf)
		skip();
	assert_false(btf_find(btf, "io_uring_sqe", "no_such_member", &place));
	assert_false(btf_find(btf, "io_uring_sqe", "opcode.of", &place));
	assert_false(btf_find(btf, "io_uring_params", "sq_off.no_such_member", &place));
	assert_false(btf_find(btf, "no_such_struct", "member", &place));
	assert_int_equal(btf_find_variable(btf, "no such variable"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members),
		cmocka_unit_test(bits),
		cmocka_unit_test(nothing),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
