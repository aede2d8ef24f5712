/*
 * show_stats_test.c - `criu show --stats`: the picture for a given width, JSON, and what is refused.
 */
#include "images.h"
#include "cli/show.h"
#include "image/statistics.h"

static const struct {
	const char *name;
	uint64_t begin, duration;
} steps[] = {
	{ "look ahead", 0, 10000 },
	{ "freeze the processes", 10000, 5000 },
	{ "save the memory", 15000, 60000 },
	{ "a short one", 75000, 900 },
	{ "complete the images", 76000, 24000 },
};

static ThroughputEntry *moved(uint64_t bytes, uint64_t time)
{
	return throughput_new(&(struct throughput){ bytes, time * 1000 });
}

static JourneyTimesEntry *make_times(const char *journey)
{
	struct step_time items[array_size(steps)];
	struct step_times times = {
		.began = 7000, .ended = 100007000, .items = items, .count = array_size(steps)
	};
	JourneyTimesEntry *entry;

	for (size_t i = 0; i < array_size(steps); i++)
		items[i] = (struct step_time){ steps[i].name, 7000 + steps[i].begin * 1000,
					       7000 + (steps[i].begin + steps[i].duration) * 1000 };
	entry = journey_times_new(journey, &times);
	journey_times_set_frozen(entry, &times, 7000 + 12000 * 1000, 7000 + 80000 * 1000);
	entry->memory_read = moved(100 << 20, 20000);
	entry->direct = moved(96 << 20, 50000);
	message_set(entry, waited, 35000);
	message_set(entry, synced, 24000);
	return entry;
}

static char *picture(const JourneyTimesEntry *times, unsigned width, bool is_utf8)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	show_times(out, times, width, is_utf8);
	fclose(out);
	return text;
}

static void assert_picture(const JourneyTimesEntry *times, unsigned width, bool is_utf8, const char *expected)
{
	autofree char *text = picture(times, width, is_utf8);

	assert_string_equal(text, expected);
}

/* A step shorter than a hundredth is among the others, and all lines add up. */
static void the_picture(void **state unused)
{
	JourneyTimesEntry *times = make_times("dump");

	assert_picture(times, 60, false,
		       "dump: 100.0 ms; the processes were frozen for 68.0 ms\n"
		       "\n"
		       "  frozen                 68.0 ms |   .................     |\n"
		       "  look ahead             10.0 ms |###.................     |\n"
		       "  freeze the processes    5.0 ms |  ##................     |\n"
		       "  save the memory        60.0 ms |   ################.     |\n"
		       "  complete the images    24.0 ms |   ................######|\n"
		       "  others (1)              1.0 ms\n"
		       "\n"
		       "memory was read at 5000 MiB/s (100.0 MiB in 20.0 ms)\n"
		       "the disk took pages at 1920 MiB/s (96.0 MiB in 50.0 ms)\n"
		       "reading waited 35.0 ms for writing\n"
		       "the sync at the end took 24.0 ms\n"
		       "writing and sync alone take 74.0 ms of 100.0 ms (74 %)\n");
	image_free(times);
}

/* Names are cut before the bars become too small; names from a file cannot control the terminal. */
static void a_narrow_terminal(void **state unused)
{
	JourneyTimesEntry *times = make_times("dump");

	image_free(steal_pointer(&times->memory_read));
	image_free(steal_pointer(&times->direct));
	free(times->steps[0]->name);
	times->steps[0]->name = copy_text("b\303\266se \033[2J\377");
	assert_picture(times, 40, true,
		       "dump: 100.0 ms; the processes were frozen for 68.0 ms\n"
		       "\n"
		       "  frozen            68.0 ms │ ░░░░░░░  │\n"
		       "  böse ?[2J?        10.0 ms │█░░░░░░░  │\n"
		       "  freeze the proc    5.0 ms │ █░░░░░░  │\n"
		       "  save the memory   60.0 ms │ ███████  │\n"
		       "  complete the im   24.0 ms │ ░░░░░░███│\n"
		       "  others (1)         1.0 ms\n");
	for (unsigned width = 0; width < 300; width += 7)
		free(picture(times, width, width % 2));
	image_free(times);
}

/* A restore stops nothing; a journey may be shorter than the clock can tell. */
static void other_journeys(void **state unused)
{
	struct step_time step = { "read the images", 5, 5 };
	struct step_times all = { .began = 5, .ended = 5, .items = &step, .count = 1 };
	JourneyTimesEntry *times = journey_times_new("restore", &all);

	assert_picture(times, 60, false, "restore: 0.00 ms\n\n  others (1)    0.00 ms\n");
	step.ended = all.ended = 2500005;
	image_free(times);
	times = journey_times_new("restore", &all);
	times->memory_filled = moved(10 << 20, 2000);
	assert_picture(times, 60, false,
		       "restore: 2.50 ms\n"
		       "\n"
		       "  read the images  2.50 ms |###############################|\n"
		       "\n"
		       "memory was filled from the images at 5000 MiB/s (10.0 MiB in 2.00 ms)\n");
	image_free(times);
}

/* --- Files ---------------------------------------------------------------------------------------------- */

/* Writes stats-dump (`restores`: stats-restore), and takes the times, which may be NULL. */
static void write_times(struct image_store *store, JourneyTimesEntry *times, bool restores)
{
	StatsEntry entry = STATS_ENTRY__INIT;
	DumpStatsEntry dump = DUMP_STATS_ENTRY__INIT;
	RestoreStatsEntry restore = RESTORE_STATS_ENTRY__INIT;

	dump.times = restore.times = times;
	entry.dump = restores ? NULL : &dump;
	entry.restore = restores ? &restore : NULL;
	assert_int_equal(image_write_single(store, IMAGE_STATS, restores, &entry.base), 0);
	image_free(times);
}

static void assert_shown(struct image_store *store, bool as_json, const char *expected)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int result = show_statistics(out, store, as_json);

	fclose(out);
	assert_int_equal(result, 0);
	if (!strstr(text, expected))
		fail_msg("not there: %s\nin:\n%s", expected, text);
	free(text);
}

static void assert_refused(struct image_store *store, const char *reason)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int result = show_statistics(out, store, true);

	fclose(out);
	assert_true(result < 0);
	assert_string_equal(text, "");
	assert_failure_says(reason);
	free(text);
}

static struct image_store *memory_store(void)
{
	struct image_store *store;

	failure_clear();
	assert_int_equal(image_store_open_memory(&store), 0);
	return store;
}

static void one_or_both(void **state unused)
{
	struct image_store *store = memory_store();

	assert_refused(store, "there is neither stats-dump nor stats-restore in memory");
	write_times(store, NULL, true);
	assert_refused(store, "memory/stats-restore does not tell when the steps ran");
	write_times(store, make_times("dump"), false);
	assert_shown(store, false, "dump: 100.0 ms; ");
	assert_shown(store, false, "\n\nrestore: its file does not tell when the steps ran");
	assert_shown(store, true, "\"frozen\": {\n      \"begin\": 12000,\n      \"end\": 80000\n");
	assert_shown(
		store, true,
		"\"name\": \"save the memory\",\n        \"begin\": 15000,\n        \"duration\": 60000\n");
	assert_shown(store, true, "\"disk\": {\n      \"bytes\": 100663296,\n      \"time\": 50000\n");
	assert_shown(store, true, "\"restore\": null");
	write_times(store, make_times("restore"), true);
	assert_shown(store, false, "\nrestore: 100.0 ms; ");
	image_store_close(store);
}

static void forged_files(void **state unused)
{
	static const char reason[] = "memory/stats-dump has impossible times";
	struct image_store *store = memory_store();
	StatsEntry empty = STATS_ENTRY__INIT;
	JourneyTimesEntry *times[8];

	for (size_t i = 0; i < array_size(times); i++)
		times[i] = make_times("dump");
	times[0]->whole = UINT64_MAX;
	times[1]->whole = 99999;
	times[2]->steps[1]->begin = 9999;
	times[3]->steps[4]->begin = UINT64_MAX;
	times[4]->steps[4]->duration = UINT64_MAX - 1000;
	times[5]->frozen_end = times[5]->frozen_begin - 1;
	times[6]->has_frozen_end = false;
	times[7]->direct->time = UINT64_MAX;
	for (size_t i = 0; i < array_size(times); i++) {
		write_times(store, times[i], false);
		assert_refused(store, reason);
	}
	assert_int_equal(image_write_single(store, IMAGE_STATS, 0, &empty.base), 0);
	assert_refused(store, "memory/stats-dump has no statistics of a dump");
	image_store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_picture),	  cmocka_unit_test(a_narrow_terminal),
		cmocka_unit_test(other_journeys), cmocka_unit_test(one_or_both),
		cmocka_unit_test(forged_files),
	};

	error_init();
	log_level = 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
