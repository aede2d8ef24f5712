/*
 * pace_test.c - it is compressed exactly when that is faster.
 */
#include "unit.h"
#include "base/memory.h"
#include "memory/pace.h"

#define MIB (1UL << 20)

/* A machine: MiB/s of the disk, of the source of the bytes and of the compression, and what 100 bytes become. */
struct machine {
	uint64_t disk, source, packing, packed;
};

/* Runs it for some windows of 4 MiB in the file; returns how many of the last ten were compressed. */
static unsigned run(struct pace *pace, const struct machine *machine, unsigned windows)
{
	unsigned compressed = 0;

	for (unsigned i = 0; i < windows; i++) {
		struct pace_window window = { .written = 4 * MIB };
		uint64_t made, on_disk = 4 * 1000000000ULL / machine->disk;

		window.content = pace->compresses ? 4 * MIB * 100 / machine->packed : 4 * MIB;
		made = window.content / MIB * 1000000000ULL / machine->source;
		if (pace->compresses)
			window.packing = window.content / MIB * 1000000000ULL / machine->packing;
		made = max(made, window.packing);
		window.time = max(made, on_disk);
		window.waited = window.time - made;
		compressed += i >= windows - 10 && pace->compresses;
		pace_note(pace, &window);
	}
	return compressed;
}

static void slow_disk(void **state unused)
{
	struct pace pace = { 0 };

	assert_int_equal(run(&pace, &(struct machine){ 100, 1000, 800, 40 }, 30), 10);
}

static void fast_disk(void **state unused)
{
	struct pace pace = { 0 };

	assert_int_equal(run(&pace, &(struct machine){ 3000, 1000, 800, 40 }, 30), 0);
}

/* Faster than the compression, but slower than the source: it is tried, and given up. */
static void faster_than_compression(void **state unused)
{
	struct pace pace = { 0 };

	assert_true(run(&pace, &(struct machine){ 900, 2000, 500, 40 }, 30) <= 1);
}

static void incompressible(void **state unused)
{
	struct pace pace = { 0 };

	assert_true(run(&pace, &(struct machine){ 100, 1000, 800, 100 }, 30) <= 1);
	/* The time that this disk needs for 1 MiB is no multiple of 100 ns. */
	pace = (struct pace){ 0 };
	assert_true(run(&pace, &(struct machine){ 97, 1000, 800, 100 }, 30) <= 1);
	pace = (struct pace){ 0 };
	assert_true(run(&pace, &(struct machine){ 97, 1000, 800, 96 }, 30) <= 1);
	/* Then comes content that is worth it. */
	assert_int_equal(run(&pace, &(struct machine){ 100, 1000, 800, 30 }, 60), 10);
}

/* The disk becomes slow, and fast again. */
static void changing_disk(void **state unused)
{
	struct pace pace = { 0 };

	assert_int_equal(run(&pace, &(struct machine){ 3000, 1000, 800, 40 }, 20), 0);
	assert_int_equal(run(&pace, &(struct machine){ 50, 1000, 800, 40 }, 20), 10);
	assert_true(run(&pace, &(struct machine){ 3000, 1000, 300, 40 }, 60) <= 1);
}

static void nothing(void **state unused)
{
	struct pace pace = { 0 };

	pace_note(&pace, &(struct pace_window){ 0 });
	pace_note(&pace, &(struct pace_window){ .content = MIB, .written = MIB });
	pace_note(&pace, &(struct pace_window){
				 .content = 1, .written = 1, .packing = 1, .time = UINT64_MAX >> 21 });
	assert_true(pace.disk == 0 || pace.disk > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_disk),
		cmocka_unit_test(fast_disk),
		cmocka_unit_test(faster_than_compression),
		cmocka_unit_test(incompressible),
		cmocka_unit_test(changing_disk),
		cmocka_unit_test(nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
