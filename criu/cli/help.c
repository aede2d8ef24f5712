/*
 * help.c - prints --help and --version, and guesses what a misspelled word means.
 */
#include <stdio.h>
#include <string.h>
#include "base/distance.h"
#include "base/memory.h"
#include "cli/table.h"

enum { TEXT_COLUMN = 28, LAST_COLUMN = 100 };

/* Prints `text` from TEXT_COLUMN on, with line breaks between words; `column` is the current column. */
static void print_text(int column, const char *text)
{
	if (column >= TEXT_COLUMN) {
		putchar('\n');
		column = 0;
	}
	printf("%*s", TEXT_COLUMN - column, "");
	column = TEXT_COLUMN;
	while (*text) {
		int length = strcspn(text, " ");

		if (column > TEXT_COLUMN && column + 1 + length > LAST_COLUMN) {
			printf("\n%*s", TEXT_COLUMN, "");
			column = TEXT_COLUMN;
		}
		column += printf("%s%.*s", column > TEXT_COLUMN ? " " : "", length, text);
		text += length;
		text += strspn(text, " ");
	}
	putchar('\n');
}

/* A star marks what is not supported yet; the end of the help explains it. */
static void print_help(enum availability there, int column, const char *help)
{
	autofree char *text = there == THERE ? copy_text(help) : format_text("%s *", help);

	print_text(column, text);
}

static void print_option(const struct option_row *row, int command)
{
	bool is_optional = row_may_lack_argument(row);
	const char *before = is_optional ? "[=" : " ";
	const char *after = is_optional ? "]" : "";
	int column;

	if (row->letter && row_by_letter(row->letter, command) == row)
		column = printf("  -%c, --%s", row->letter, row->name);
	else
		column = printf("      --%s", row->name);
	if (row->metavar)
		column += printf("%s%s%s", before, row->metavar, after);
	print_help(row->there, column, row->help);
}

static const struct command_row *print_commands(const char *command)
{
	const struct command_row *found = NULL;

	for (size_t i = 0; i < command_row_count && command; i++)
		if (!strcmp(command_rows[i].name, command) && command_rows[i].there != NO_MORE)
			found = &command_rows[i];
	printf("Usage: criu %s [OPTION]... %s\n\n", found ? found->name : "COMMAND",
	       found && found->arguments ? found->arguments : "");
	for (size_t i = 0; i < command_row_count; i++) {
		int column;

		if (found ? found != &command_rows[i] : command_rows[i].there == NO_MORE)
			continue;
		column = printf("  %s", command_rows[i].name);
		if (command_rows[i].arguments)
			column += printf(" %s", command_rows[i].arguments);
		print_help(command_rows[i].there, column, command_rows[i].help);
	}
	return found;
}

void help_print(const char *command)
{
	const struct command_row *found = print_commands(command);
	const char *title = NULL;

	for (size_t i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];

		if (row->kind == HEADING) {
			title = row->help;
		} else if (row->there != NO_MORE && (!found || found->bit & row->commands)) {
			if (title)
				printf("\n%s:\n", title);
			title = NULL;
			print_option(row, found ? found->bit : 0);
		}
	}
	printf("\n* not supported yet: criu refuses it.\n"
	       "--no-NAME undoes an earlier --NAME that takes no argument. Names may be shortened. See criu(8).\n");
}

/* Programs parse the first line: podman, runc and others look for "Version: MAJOR.MINOR". */
void version_print(void)
{
	printf("Version: %s\n", CRIU_VERSION);
	printf("The images and options are those of this version of CRIU; the program is a different one.\n");
}

const char *suggestion(const char *text, const void *names, size_t count, size_t stride)
{
	unsigned best = strlen(text) / 3 + 1;
	const char *meant = NULL;

	for (size_t i = 0; i < count; i++) {
		const char *name = *(const char *const *)((const char *)names + i * stride);

		if (name && text_distance(text, name) < best) {
			best = text_distance(text, name);
			meant = name;
		}
	}
	return meant;
}
