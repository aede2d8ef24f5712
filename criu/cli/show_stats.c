/*
 * show_stats.c - `criu show --stats DIR`: reads stats-dump and stats-restore of a work directory, checks their numbers,
 * and prints them as a picture (show_times.c) or as JSON.
 */
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "cli/json.h"
#include "cli/show.h"

#define FORMAT	    1
#define MOST_STEPS  1000
#define LONGEST	    (1ULL << 44) /* us: half a year */
#define USUAL_WIDTH 80

/* One of the two files. */
struct statistics {
	StatsEntry *entry;		/* NULL: it is missing */
	const JourneyTimesEntry *times; /* in it; NULL: it has none */
};

/* ---- reading ---- */

static bool is_possible_time(const ThroughputEntry *moved)
{
	return !moved || moved->time <= LONGEST;
}

/* So that sums and products of the numbers are not too large. */
static bool are_small(const JourneyTimesEntry *times)
{
	return times->n_steps <= MOST_STEPS && times->whole <= LONGEST && times->waited <= LONGEST &&
	       times->synced <= LONGEST && is_possible_time(times->memory_read) &&
	       is_possible_time(times->cached) && is_possible_time(times->direct) &&
	       is_possible_time(times->packing) && is_possible_time(times->memory_filled);
}

static bool are_possible(const JourneyTimesEntry *times)
{
	uint64_t end = 0;

	if (!are_small(times))
		return false;
	for (size_t i = 0; i < times->n_steps; i++) {
		const StepTimeEntry *step = times->steps[i];

		if (step->begin < end || step->begin > times->whole ||
		    step->duration > times->whole - step->begin)
			return false;
		end = step->begin + step->duration;
	}
	if (!times->has_frozen_begin && !times->has_frozen_end)
		return true;
	return times->has_frozen_begin && times->has_frozen_end && times->frozen_begin <= times->frozen_end &&
	       times->frozen_end <= times->whole;
}

static int read_statistics(struct image_store *store, unsigned long id, struct statistics *read)
{
	int result = image_read_single(store, IMAGE_STATS, id, (ProtobufCMessage **)&read->entry);
	char name[IMAGE_NAME_SIZE];

	image_file_name(name, IMAGE_STATS, id);
	if (result)
		return result == -ENOENT ? 0 : result;
	if (id ? !read->entry->restore : !read->entry->dump)
		return fail(EINVAL, "%s/%s has no statistics of a %s", image_store_name(store), name,
			    id ? "restore" : "dump");
	read->times = id ? read->entry->restore->times : read->entry->dump->times;
	if (read->times && !are_possible(read->times))
		return fail(EINVAL, "%s/%s has impossible times", image_store_name(store), name);
	return 0;
}

static int check_both(struct image_store *store, const struct statistics both[2])
{
	char dump[IMAGE_NAME_SIZE], restore[IMAGE_NAME_SIZE];

	image_file_name(dump, IMAGE_STATS, 0);
	image_file_name(restore, IMAGE_STATS, 1);
	if (!both[0].entry && !both[1].entry) {
		fail(0, "there is neither %s nor %s in %s", dump, restore, image_store_name(store));
		fail_advice("the work directory (-W) of the dump or restore");
		return -EINVAL;
	}
	if (both[0].times || both[1].times)
		return 0;
	return fail(0, "%s/%s does not tell when the steps ran: another criu or an older one has written it",
		    image_store_name(store), both[0].entry ? dump : restore);
}

/* ---- JSON ---- */

static void put_throughput(struct json *json, const char *key, const ThroughputEntry *moved)
{
	if (!moved)
		return;
	json_open(json, key, '{');
	json_number(json, "bytes", moved->bytes);
	json_number(json, "time", moved->time);
	json_close(json, '}');
}

static void put_steps(struct json *json, const JourneyTimesEntry *times)
{
	json_open(json, "steps", '[');
	for (size_t i = 0; i < times->n_steps; i++) {
		json_open(json, NULL, '{');
		json_string(json, "name", times->steps[i]->name);
		json_number(json, "begin", times->steps[i]->begin);
		json_number(json, "duration", times->steps[i]->duration);
		json_close(json, '}');
	}
	json_close(json, ']');
}

static void put_times(struct json *json, const char *key, const struct statistics *statistics)
{
	const JourneyTimesEntry *times = statistics->times;

	if (statistics->entry && !times)
		json_string(json, key, NULL);
	if (!times)
		return;
	json_open(json, key, '{');
	json_string(json, "journey", times->journey);
	json_number(json, "whole", times->whole);
	if (times->has_frozen_begin) {
		json_open(json, "frozen", '{');
		json_number(json, "begin", times->frozen_begin);
		json_number(json, "end", times->frozen_end);
		json_close(json, '}');
	}
	put_steps(json, times);
	put_throughput(json, "memory_read", times->memory_read);
	put_throughput(json, "page_cache", times->cached);
	put_throughput(json, "disk", times->direct);
	put_throughput(json, "compression", times->packing);
	if (times->packing)
		json_number(json, "compressed", times->packed);
	if (times->has_waited)
		json_number(json, "waited", times->waited);
	if (times->has_synced)
		json_number(json, "synced", times->synced);
	put_throughput(json, "memory_filled", times->memory_filled);
	json_close(json, '}');
}

static void put_json(FILE *out, struct image_store *store, const struct statistics both[2])
{
	struct json json = { .out = out, .is_first = true };

	json_open(&json, NULL, '{');
	json_number(&json, "format", FORMAT);
	json_string(&json, "directory", image_store_name(store));
	put_times(&json, "dump", &both[0]);
	put_times(&json, "restore", &both[1]);
	json_close(&json, '}');
	fputc('\n', out);
}

/* ---- text ---- */

static unsigned terminal_width(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : USUAL_WIDTH;
}

static bool terminal_is_utf8(void)
{
	return setlocale(LC_CTYPE, "") && !strcmp(nl_langinfo(CODESET), "UTF-8");
}

static void put_text(FILE *out, const struct statistics both[2])
{
	unsigned width = terminal_width();
	bool is_utf8 = terminal_is_utf8();

	for (int i = 0; i < 2; i++) {
		if (i && both[0].entry && both[1].entry)
			fputc('\n', out);
		if (both[i].times)
			show_times(out, both[i].times, width, is_utf8);
		else if (both[i].entry)
			fprintf(out,
				"%s: its file does not tell when the steps ran (another criu wrote it)\n",
				i ? "restore" : "dump");
	}
}

int show_statistics(FILE *out, struct image_store *store, bool as_json)
{
	struct statistics both[2] = { 0 };
	int result = read_statistics(store, 0, &both[0]) ?: read_statistics(store, 1, &both[1]);

	result = result ?: check_both(store, both);
	if (!result && as_json)
		put_json(out, store, both);
	else if (!result)
		put_text(out, both);
	image_free(both[0].entry);
	image_free(both[1].entry);
	return result;
}
