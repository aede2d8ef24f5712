/*
 * config.c - configuration files: one option on each line, named as on the command line but without the dashes.
 *
 *	log-file "/var/log/my \"own\" criu.log"   # an argument with spaces stands in quotes
 *	no-shell-job                              # takes back what an earlier file has set
 *
 * `#` begins a comment, except in quotes. In quotes `\"` is a quote, and nothing else is special. A file cannot contain
 * commands. The result is a list of settings, like that of the command line (options.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "cli/table.h"

static const char *const blanks = " \t\r";

/*
 * Takes a quoted word from *text, in place. -EINVAL: the closing quote is missing, or something follows it without a
 * space.
 */
static int take_quoted(char **text, char **word)
{
	char *from = *text + 1, *to = from;

	*word = to;
	for (; *from != '"'; from++) {
		if (from[0] == '\\' && from[1] == '"')
			from++;
		if (!*from)
			return fail(0, "the closing quote is missing");
		*to++ = *from;
	}
	if (from[1] && !strchr(blanks, from[1]) && from[1] != '#')
		return fail(0, "unexpected text after the closing quote: %s", from + 1);
	*to = '\0';
	*text = from + 1;
	return 0;
}

/* The next word of *text, or NULL in *word. The text is changed. */
static int take_config_word(char **text, char **word)
{
	size_t length;

	*text += strspn(*text, blanks);
	*word = NULL;
	if (**text == '"')
		return take_quoted(text, word);
	length = strcspn(*text, " \t\r#");
	if (!length)
		return 0;
	*word = *text;
	*text += length;
	if (**text == '#')
		**text = '\0';
	else if (**text)
		*(*text)++ = '\0';
	return 0;
}

/* `line` is changed. */
static int parse_config_line(struct settings *settings, char *line)
{
	char *name, *argument, *rest;
	autofree char *text = NULL;
	bool took_next = false;
	int result;

	result = take_config_word(&line, &name);
	if (!result && !name)
		return 0;
	if (!result)
		result = take_config_word(&line, &argument);
	if (!result)
		result = take_config_word(&line, &rest);
	if (result)
		return result;
	if (rest)
		return fail(0, "unexpected '%s' after the argument; an argument with spaces needs quotes",
			    rest);
	text = argument ? format_text("%s=%s", name, argument) : copy_text(name);
	return settings_add_long(settings, text, NULL, &took_next);
}

static int check_place(const struct setting *setting)
{
	switch (setting->row->kind) {
	case CONFIG:
	case NO_DEFAULT_CONFIG:
	case HELP:
	case VERSION:
		return fail(0, "%s is allowed only on the command line", setting->row->name);
	default:
		return 0;
	}
}

/* Continues after an error, and reports the first: the log may be named further down. */
static int parse(struct settings *settings, const char *text, const char *path)
{
	autofree char *copy = copy_text(text);
	char *line, *rest = copy;
	int number = 0, result = 0;

	while ((line = strsep(&rest, "\n"))) {
		size_t before = settings->count;
		bool is_first = !has_failed();
		int wrong;

		number++;
		wrong = parse_config_line(settings, line);
		if (settings->count > before) {
			struct setting *added = &settings->items[before];

			added->origin = format_text("%s:%d", path, number);
			wrong = check_place(added);
		}
		if (wrong && is_first)
			fail_in(wrong, "%s:%d", path, number);
		result = result ?: wrong;
	}
	return result;
}

int config_parse(struct settings *settings, const char *text)
{
	return parse(settings, text, "config");
}

int config_read(struct settings *settings, const char *path)
{
	autofree char *text = NULL;
	ssize_t length = read_text_at(AT_FDCWD, path, &text);

	if (length == -ENOENT)
		return length;
	if (length < 0)
		return fail(-length, "cannot read the configuration file %s", path);
	return parse(settings, text, path);
}
