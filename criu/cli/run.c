/*
 * run.c - one run of the program: reads the options, opens the log, runs the command, and reports what went wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/directories.h"
#include "cli/table.h"

static const struct command {
	const char *name;
	int (*run)(const struct options *options);
	bool opens_log; /* the command does so itself, in the images directory, which a dump has to create first */
} commands[] = {
#define COMMAND(name, function, bit, arguments, help) { name, function, bit & (DUMP | PRE_DUMP | RESTORE) },
#include "cli/options.def"
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < array_size(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL; /* options_parse() accepts only these */
}

static int open_log_file(const struct options *options, int (*open_it)(int directory, const char *path))
{
	const char *path = work_path(options);
	autoclose int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (directory < 0)
		return fail(errno, "cannot open the work directory %s", path);
	return open_it(directory, options->log_file);
}

static int run_command(const struct options *options)
{
	const struct command *command = find_command(options->command);
	int result = command->opens_log ? 0 : open_log_file(options, log_open);

	return result ? result : command->run(options);
}

/*
 * Writes failures to the log that happened before it was open: programs that run criu read nothing else. Another criu
 * may be using this log, which can even be the reason for the failure, so its content is kept. If the log cannot be
 * opened, that is not reported.
 */
static void complete_log(const struct options *options)
{
	int level = log_level;

	if (options->log_file && !log_is_file()) {
		log_level = 0;
		if (options->log_file[0] == '/')
			attempted(log_open_to_append(AT_FDCWD, options->log_file));
		else
			attempted(open_log_file(options, log_open_to_append));
		log_level = level;
	}
	failure_log();
}

static void report_usage(const struct options *options)
{
	char text[4096];

	complete_log(options);
	failure_report(text, sizeof(text), NULL, NULL);
	fputs(text, stderr);
}

/* After a failed dump the process still exists, so its name can be read. */
static char *headline_of(const struct options *options)
{
	autofree char *path = format_text("/proc/%d/comm", options->tree);
	autofree char *name = NULL;

	if (strcmp(options->command, "dump") && strcmp(options->command, "pre-dump"))
		return format_text("%s failed", options->command);
	if (read_text_at(AT_FDCWD, path, &name) <= 0)
		return format_text("cannot dump process %d", options->tree);
	name[strcspn(name, "\n")] = '\0';
	return format_text("cannot dump process %d (%s)", options->tree, name);
}

static void report(const struct options *options)
{
	autofree char *headline = headline_of(options), *log = NULL;
	char text[32768];

	complete_log(options);
	if (log_is_file())
		log = format_text("%s%s%s", options->log_file[0] == '/' ? "" : work_path(options),
				  options->log_file[0] == '/' ? "" : "/", options->log_file);
	failure_report(text, sizeof(text), headline, log);
	fputs(text, stderr);
}

int run_program(int argc, char **argv, const struct held_memory *held)
{
	struct options options;
	int result = options_parse(&options, argc, argv);

	options.held = held;
	if (result < 0)
		report_usage(&options);
	else if (result == 0) {
		result = run_command(&options);
		if (result < 0) {
			report(&options);
			interrupt_die();
		}
	}
	options_free(&options);
	return result < 0;
}
