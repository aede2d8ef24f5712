/*
 * rows.c - the table of commands and options (options.def), and the search for the row that a word on the command line
 * means.
 *
 * A name may be shortened while it is unambiguous. An abbreviation that CRIU 4.2 understands means the same here. So
 * names that 4.2 does not have (OURS, OURS_NEGATED) are searched only if none of its own names begins like this.
 */
#include <string.h>
#include "base/memory.h"
#include "cli/table.h"

const struct option_row option_rows[] = {
#define SECTION(title) { .kind = HEADING, .help = title },
#define OPTION(letter, name, kind, field, commands, metavar, help) \
	{ letter, name, kind, offsetof(struct options, field), commands, metavar, help, THERE },
#define SPECIAL(letter, name, kind, commands, metavar, help) \
	{ letter, name, kind, 0, commands, metavar, help, THERE },
#define LATER(letter, name, kind, commands, metavar, help) \
	{ letter, name, kind, 0, commands, metavar, help, NOT_YET },
#define GONE(name, kind, instead) { 0, name, kind, 0, EVERY, NULL, instead, NO_MORE },
#include "cli/options.def"
};
const size_t option_row_count = array_size(option_rows);

const struct command_row command_rows[] = {
#define COMMAND(name, function, bit, arguments, help) { name, bit, arguments, help, THERE },
#define COMMAND_LATER(name, bit, arguments, help)     { name, bit, arguments, help, NOT_YET },
#define COMMAND_GONE(name, instead)		      { name, 0, "", instead, NO_MORE },
#include "cli/options.def"
};
const size_t command_row_count = array_size(command_rows);

const struct option_row *row_by_letter(char letter, int command)
{
	const struct option_row *found = NULL;

	for (size_t i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];

		if (row->letter != letter || !row->name)
			continue;
		if (row->commands != EVERY && row->commands & command)
			return row;
		if (!found || row->commands == EVERY)
			found = row;
	}
	return found;
}

bool row_may_lack_argument(const struct option_row *row)
{
	return row->kind == OPTIONAL || row->kind == TRACKER || row->kind == CGROUPS || row->kind == LEVEL ||
	       row->kind == COMPRESSION || row->kind == UNIX_SOCKETS;
}

static bool can_be_negated(const struct option_row *row)
{
	return (row->kind == FLAG || row->kind == FINALLY || row->kind == TRACKER ||
		row->kind == NO_EFFECT) &&
	       row->there != NO_MORE;
}

/* Whether `name`, or "no-" and `name`, begins with `text`. */
static bool begins(const char *name, bool negated, const char *text, size_t length)
{
	static const char no[] = "no-";
	size_t shared = negated ? min(length, sizeof(no) - 1) : 0;

	return !memcmp(text, no, shared) && !strncmp(name, text + shared, length - shared);
}

static bool is_ours(const struct option_row *row, bool negated)
{
	int bits = negated ? OURS | OURS_NEGATED : OURS;

	return row->commands != EVERY && row->commands & bits;
}

enum pass { WHOLE_NAMES, BEGINNINGS_OF_THEIRS, BEGINNINGS_OF_OURS, PASSES };

/* Returns how many names fit, and puts the first of them into found[0…most). */
static int find_names(enum pass pass, const char *text, size_t length, struct setting *found, int most)
{
	int count = 0;

	for (size_t i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];

		for (int negated = 0; row->name && negated <= can_be_negated(row); negated++) {
			bool is_whole = strlen(row->name) + 3 * negated == length;

			if (pass == WHOLE_NAMES ? !is_whole :
						  is_ours(row, negated) != (pass == BEGINNINGS_OF_OURS))
				continue;
			if (!begins(row->name, negated, text, length))
				continue;
			if (count < most)
				found[count] = (struct setting){ .row = row, .negated = negated };
			count++;
		}
	}
	return count;
}

int row_find(const char *text, size_t length, struct setting *found, int most)
{
	int count = 0;

	for (enum pass pass = WHOLE_NAMES; !count && length && pass < PASSES; pass++)
		count = find_names(pass, text, length, found, most);
	return count;
}
