/*
 * manual.c - makes the manual page: copies a text from stdin, and replaces @COMMANDS@ and @OPTIONS@ by the rows of
 * options.def, and @VERSION@ by the version.
 *
 * It is only used by the build: `build/manual < Documentation/criu.8.in > build/criu.8`.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "cli/table.h"

/* Escapes text for roff: a dash becomes \-, and a line must not begin with a dot or a quote (\& has no width). */
static void put(const char *text)
{
	if (*text == '.' || *text == '\'')
		printf("\\&");
	for (; *text; text++) {
		if (*text == '-' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
}

static void put_bold(const char *before, const char *text)
{
	printf("\\fB");
	put(before);
	put(text);
	printf("\\fR");
}

static void put_help(const char *help, bool supported)
{
	printf("\n");
	put(help);
	printf("%s.\n", supported ? "" : ". Not supported yet");
}

static void put_command(const char *name, const char *arguments, const char *help, bool supported)
{
	printf(".TP\n");
	put_bold("", name);
	if (arguments) {
		printf(" \\fI");
		put(arguments);
		printf("\\fR");
	}
	put_help(help, supported);
}

static void put_option(char letter, const char *name, int kind, const char *metavar, const char *help,
		       bool supported)
{
	bool optional = kind == OPTIONAL || kind == TRACKER || kind == CGROUPS || kind == LEVEL;

	printf(".TP\n");
	if (letter) {
		put_bold("-", (char[]){ letter, '\0' });
		printf(", ");
	}
	put_bold("--", name);
	if (metavar) {
		printf("%s\\fI", optional ? "[=" : " ");
		put(metavar);
		printf("\\fR%s", optional ? "]" : "");
	}
	put_help(help, supported);
}

static void put_commands(void)
{
#define COMMAND(name, function, bit, arguments, help) put_command(name, arguments, help, true);
#define COMMAND_LATER(name, bit, arguments, help)     put_command(name, arguments, help, false);
#include "cli/options.def"
}

static void put_options(void)
{
#define SECTION(title) printf(".SS %s\n", title);
#define OPTION(letter, name, kind, field, commands, metavar, help) \
	put_option(letter, name, kind, metavar, help, true);
#define SPECIAL(letter, name, kind, commands, metavar, help) \
	put_option(letter, name, kind, metavar, help, true);
#define LATER(letter, name, kind, commands, metavar, help) \
	put_option(letter, name, kind, metavar, help, false);
#include "cli/options.def"
}

int main(void)
{
	char line[1024];

	while (fgets(line, sizeof(line), stdin)) {
		char *version = strstr(line, "@VERSION@");

		if (!strcmp(line, "@COMMANDS@\n"))
			put_commands();
		else if (!strcmp(line, "@OPTIONS@\n"))
			put_options();
		else if (version)
			printf("%.*s" CRIU_VERSION "%s", (int)(version - line), line,
			       version + strlen("@VERSION@"));
		else
			fputs(line, stdout);
	}
	return ferror(stdin) || fflush(stdout);
}
