/*
 * vdso_code_test.c - the code that replaces functions of another kernel's vdso does what arch.h says. It is called
 * here.
 */
#include "unit.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include "arch/arch.h"

static void *page;

static int map_page(void **state unused)
{
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return page == MAP_FAILED;
}

static int unmap_page(void **state unused)
{
	return munmap(page, 4096);
}

/* Puts the code where it can be called. */
static void *callable(const unsigned char *code, size_t size, size_t most)
{
	assert_true(size > 0 && size <= most);
	memcpy(page, code, size);
	__builtin___clear_cache(page, (char *)page + size);
	return page;
}

static int add(int one, int other)
{
	return one + other;
}

static void jumps(void **state unused)
{
	unsigned char code[ARCH_VDSO_CODE];
	int (*function)(int, int) = callable(code, arch_vdso_jump(code, (uintptr_t)add), 16);

	assert_int_equal(function(40, 2), 42);
}

static void makes_the_call(void **state unused)
{
	unsigned char code[ARCH_VDSO_CODE];
	int (*function)(clockid_t, struct timespec *) = callable(code,
								 arch_vdso_call(code, SYS_clock_gettime), 16);
	struct timespec now = {};

	assert_int_equal(function(CLOCK_MONOTONIC, &now), 0);
	assert_true(now.tv_sec || now.tv_nsec);
	assert_int_equal(function(12345, &now), -EINVAL);
}

static void refuses(void **state unused)
{
	unsigned char code[ARCH_VDSO_CODE];
	long (*function)(void) = callable(code, arch_vdso_refuse(code), 16);

	assert_int_equal(function(), -ENOSYS);
}

static void random_without_state(void **state unused)
{
	unsigned char code[ARCH_VDSO_CODE];
	long (*function)(void *, size_t, unsigned, void *, size_t) = callable(code, arch_vdso_getrandom(code),
									      ARCH_VDSO_CODE);
	unsigned char bytes[32] = {}, none[32] = {};

	assert_int_equal(function(bytes, sizeof(bytes), 0, none, sizeof(none)), sizeof(bytes));
	assert_memory_not_equal(bytes, none, sizeof(bytes));
	assert_int_equal(function(NULL, 0, 0, none, (size_t)-1), -ENOSYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jumps),
		cmocka_unit_test(makes_the_call),
		cmocka_unit_test(refuses),
		cmocka_unit_test(random_without_state),
	};

	return cmocka_run_group_tests(tests, map_page, unmap_page);
}
