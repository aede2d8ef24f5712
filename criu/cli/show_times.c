/*
 * show_times.c - draws the steps of a journey on one axis of time, and tells what memory and disk could do meanwhile.
 *
 *	dump: 48.30 ms; the processes were frozen for 30.21 ms
 *
 *	  frozen                30.21 ms |   ....................                        |
 *	  read ahead             2.10 ms |###                                            |
 *	  save the memory       25.02 ms |   .#################..                        |
 *	  …
 *	  others (18)            1.92 ms
 *
 * The dots are the time of the freeze. Steps that took less than a hundredth of the whole are among the others.
 */
#include <inttypes.h>
#include <string.h>
#include "base/memory.h"
#include "cli/show.h"

#define LEAST_BAR  10
#define LEAST_NAME 8
#define FRAME	   5 /* columns that are always there: two before the name, and three around the bar */

static const char frozen_label[] = "frozen", others_label[] = "others (999)";

struct picture {
	FILE *out;
	const JourneyTimesEntry *times;
	bool is_utf8;
	unsigned name, number, bar; /* width of each column */
	unsigned decimals;
	unsigned frozen_from, frozen_to; /* columns of the bar */
};

/* ---- texts ---- */

/* Writes at most `width` characters of a text from an image, and blanks up to that width. Returns its full width. */
static unsigned put_name(const struct picture *picture, const char *text, unsigned width)
{
	size_t left = strlen(text), size;
	unsigned count = 0;
	bool is_valid, is_printable;

	for (; left; text += size, left -= size, count++) {
		size = show_character(text, left, &is_valid, &is_printable);
		if (count >= width)
			continue;
		if (is_printable && (picture->is_utf8 || size == 1))
			fwrite(text, 1, size, picture->out);
		else
			fputc('?', picture->out);
	}
	if (count < width)
		fprintf(picture->out, "%*s", (int)(width - count), "");
	return count;
}

static int print_time(char text[32], const struct picture *picture, uint64_t time)
{
	return snprintf(text, 32, "%.*f ms", (int)picture->decimals, time / 1e3);
}

static void put_label(const struct picture *picture, const char *name, uint64_t time)
{
	char text[32];

	print_time(text, picture, time);
	fputs("  ", picture->out);
	put_name(picture, name, picture->name);
	fprintf(picture->out, "%*s", (int)picture->number, text);
}

/* ---- bars ---- */

/* Columns of a span: at least one. */
static void place(const struct picture *picture, uint64_t begin, uint64_t end, unsigned *from, unsigned *to)
{
	uint64_t whole = picture->times->whole ?: 1, width = picture->bar;

	*from = min(begin * width / whole, width - 1);
	*to = max((end * width + whole - 1) / whole, *from + 1ULL);
}

static void put_bar(const struct picture *picture, unsigned from, unsigned to)
{
	const char *edge = picture->is_utf8 ? "│" : "|";
	const char *bar = picture->is_utf8 ? "█" : "#", *frozen = picture->is_utf8 ? "░" : ".";

	fprintf(picture->out, " %s", edge);
	for (unsigned column = 0; column < picture->bar; column++)
		if (column >= from && column < to)
			fputs(bar, picture->out);
		else if (column >= picture->frozen_from && column < picture->frozen_to)
			fputs(frozen, picture->out);
		else
			fputc(' ', picture->out);
	fprintf(picture->out, "%s\n", edge);
}

/* ---- lines ---- */

static bool is_shown(const JourneyTimesEntry *times, const StepTimeEntry *step)
{
	return step->duration && step->duration * 100 >= times->whole;
}

/* The bar gets what the names leave, but names are cut before it becomes too small. */
static void make_columns(struct picture *picture, unsigned width)
{
	const JourneyTimesEntry *times = picture->times;
	unsigned fixed, widest = strlen(others_label);
	char text[32];

	picture->decimals = times->whole < 100000 ? 2 : 1;
	picture->number = 2 + print_time(text, picture, times->whole);
	for (size_t i = 0; i < times->n_steps; i++)
		if (is_shown(times, times->steps[i]))
			widest = max(widest, put_name(picture, times->steps[i]->name, 0));
	fixed = picture->number + FRAME;
	picture->name = width > fixed + LEAST_BAR ? width - fixed - LEAST_BAR : 0;
	picture->name = min(widest, max(picture->name, (unsigned)LEAST_NAME));
	fixed += picture->name;
	picture->bar = width > fixed + LEAST_BAR ? width - fixed : LEAST_BAR;
	if (times->has_frozen_begin)
		place(picture, times->frozen_begin, times->frozen_end, &picture->frozen_from,
		      &picture->frozen_to);
}

static void put_steps(const struct picture *picture)
{
	const JourneyTimesEntry *times = picture->times;
	uint64_t others = times->whole;
	size_t other_count = 0;
	char label[32];

	for (size_t i = 0; i < times->n_steps; i++) {
		const StepTimeEntry *step = times->steps[i];
		unsigned from, to;

		if (!is_shown(times, step)) {
			other_count++;
			continue;
		}
		others -= step->duration;
		put_label(picture, step->name, step->duration);
		place(picture, step->begin, step->begin + step->duration, &from, &to);
		put_bar(picture, from, to);
	}
	snprintf(label, sizeof(label), "others (%zu)", other_count);
	if (other_count)
		put_label(picture, label, others);
	fputs(other_count ? "\n" : "", picture->out);
}

static void put_head(const struct picture *picture)
{
	const JourneyTimesEntry *times = picture->times;
	uint64_t frozen = times->has_frozen_begin ? times->frozen_end - times->frozen_begin : 0;
	char text[32];

	print_time(text, picture, times->whole);
	show_clean(picture->out, times->journey);
	fprintf(picture->out, ": %s", text);
	print_time(text, picture, frozen);
	if (times->has_frozen_begin)
		fprintf(picture->out, "; the processes were frozen for %s", text);
	fputs("\n\n", picture->out);
	if (!times->has_frozen_begin)
		return;
	put_label(picture, frozen_label, frozen);
	put_bar(picture, 0, 0);
}

/* ---- what memory and disk could do ---- */

static void put_rate(const struct picture *picture, const char *what, const ThroughputEntry *moved)
{
	char text[32];
	double mebibytes;

	if (!moved || !moved->time)
		return;
	mebibytes = moved->bytes / 1048576.0;
	print_time(text, picture, moved->time);
	fprintf(picture->out, "%s at %.0f MiB/s (%.1f MiB in %s)\n", what, mebibytes / (moved->time / 1e6),
		mebibytes, text);
}

static uint64_t time_of(const ThroughputEntry *moved)
{
	return moved ? moved->time : 0;
}

/*
 * Reading and writing go on at the same time, and the sync follows: a dump takes at least as long as the slower one of
 * memory and disk.
 */
static void put_slower(const struct picture *picture)
{
	const JourneyTimesEntry *times = picture->times;
	uint64_t reading = time_of(times->memory_read);
	uint64_t writing = time_of(times->packing) + time_of(times->cached) + time_of(times->direct) +
			   times->synced;
	uint64_t slower = max(reading, writing);
	char text[32], whole[32];

	if (!slower || slower > times->whole)
		return;
	print_time(text, picture, slower);
	print_time(whole, picture, times->whole);
	fprintf(picture->out, "%s %s of %s (%.0f %%)\n",
		slower == reading ? "reading alone takes" : "writing and sync alone take", text, whole,
		100.0 * slower / times->whole);
}

static void put_waited(const struct picture *picture)
{
	char text[32];

	print_time(text, picture, picture->times->waited);
	if (picture->times->has_waited && picture->times->memory_read)
		fprintf(picture->out, "reading waited %s for writing\n", text);
	print_time(text, picture, picture->times->synced);
	if (picture->times->has_synced)
		fprintf(picture->out, "the sync at the end took %s\n", text);
}

static void put_packed(const struct picture *picture)
{
	const ThroughputEntry *packing = picture->times->packing;
	uint64_t packed = picture->times->packed;

	if (packing && packing->bytes)
		fprintf(picture->out, "they became %.1f MiB (%.0f %%)\n", packed / 1048576.0,
			100.0 * packed / packing->bytes);
}

static void put_limits(const struct picture *picture)
{
	const JourneyTimesEntry *times = picture->times;

	if (!times->memory_read && !times->cached && !times->direct && !times->memory_filled)
		return;
	fputc('\n', picture->out);
	put_rate(picture, "memory was read", times->memory_read);
	put_rate(picture, "pages were compressed", times->packing);
	put_packed(picture);
	put_rate(picture, "the page cache took pages", times->cached);
	put_rate(picture, "the disk took pages", times->direct);
	put_rate(picture, "memory was filled from the images", times->memory_filled);
	put_waited(picture);
	put_slower(picture);
}

void show_times(FILE *out, const JourneyTimesEntry *times, unsigned width, bool is_utf8)
{
	struct picture picture = { .out = out, .times = times, .is_utf8 = is_utf8 };

	make_columns(&picture, width);
	put_head(&picture);
	put_steps(&picture);
	put_limits(&picture);
}
