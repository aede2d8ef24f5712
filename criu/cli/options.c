/*
 * options.c - turns a command line (and configuration files, config.c) into a struct options.
 *
 * There are two passes. The first finds every option in the table (options.def, searched by rows.c) and lists it as a
 * `setting`, in the order given. So --help, --config and --no-default-config are known before any option takes effect.
 * The second pass applies the settings: those of the files in their order, then those of the command line. Later ones
 * overwrite earlier ones.
 *
 * An error does not end a pass: the options of the log still take effect, because the error has to be written to that
 * log.
 *
 * getopt_long() is not used, because it prints its own messages and cannot parse a line of a file.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/table.h"
#include "model/external.h"

/* --- The command line as a list of settings -------------------------------------------------------------------- */

static bool takes_no_argument(const struct setting *setting)
{
	enum option_kind kind = setting->row->kind;

	return setting->negated || kind == FLAG || kind == FINALLY || kind == NO_EFFECT ||
	       kind == ALL_CHECKS || kind == NO_DEFAULT_CONFIG || kind == HELP || kind == VERSION;
}

/*
 * The argument of an option is the next word. If that looks like another option, an argument is missing: in `criu dump
 * -t $PID -D $DIRECTORY -R` a variable may be empty, and a dump into a directory called "-R" would end the processes. A
 * user who means it writes -D./-R or --images-dir=-R. A word that looks like a negative number is accepted as an
 * argument by options that take numbers.
 */
static int take_next(const struct setting *setting, const char *given_as, const char *next,
		     const char **argument)
{
	if (!next)
		return fail(0, "%s needs an argument: %s", given_as, setting->row->metavar);
	if (next[0] == '-' && next[1] && (next[1] < '0' || next[1] > '9'))
		return fail(0, "%s needs an argument, %s, but is followed by the option %s", given_as,
			    setting->row->metavar, next);
	*argument = next;
	return 0;
}

enum { MOST_NAMED = 8 }; /* options that the message about an ambiguous name lists */

static int unknown_option(const char *name, size_t length)
{
	autofree char *text = format_text("%.*s", (int)length, name);
	const char *meant = suggestion(text, &option_rows[0].name, option_row_count, sizeof(option_rows[0]));
	int result = fail(0, "unknown option --%s", text);

	if (meant)
		fail_advice("--%s", meant);
	else
		fail_advice("criu --help");
	return result;
}

static void add_setting(struct settings *settings, const struct setting *setting, const char *argument)
{
	struct setting *added = grow(&settings->items, &settings->count);

	*added = *setting;
	added->argument = argument ? copy_text(argument) : NULL;
}

static char *name_of_setting(const struct setting *setting)
{
	return format_text("--%s%s", setting->negated ? "no-" : "", setting->row->name);
}

static int ambiguous(const char *text, size_t length, const struct setting *found, int count)
{
	autofree char *names = name_of_setting(&found[0]);

	for (int i = 1; i < min(count, MOST_NAMED); i++) {
		autofree char *before = names, *name = name_of_setting(&found[i]);

		names = format_text("%s, %s", before, name);
	}
	return fail(0, "--%.*s is ambiguous: %s%s", (int)length, text, names,
		    count > MOST_NAMED ? ", …" : "");
}

int settings_add_long(struct settings *settings, const char *text, const char *next, bool *took_next)
{
	size_t length = strcspn(text, "=");
	const char *argument = text[length] ? text + length + 1 : NULL;
	struct setting found[MOST_NAMED], setting;
	int count = row_find(text, length, found, MOST_NAMED), result = 0;
	autofree char *name = NULL;

	if (!count)
		return unknown_option(text, length);
	if (count > 1)
		return ambiguous(text, length, found, count);
	setting = found[0];
	name = name_of_setting(&setting);
	if (takes_no_argument(&setting)) {
		if (argument)
			return fail(0, "%s takes no argument, but '%s' was given", name, argument);
	} else if (!argument && !row_may_lack_argument(setting.row)) {
		result = take_next(&setting, name, next, &argument);
		*took_next = !result;
	}
	if (!result)
		add_setting(settings, &setting, argument);
	return result;
}

/*
 * "-tPID", "-t PID", "-dR", "-v3": the text behind a letter is its argument if the option takes one, else more letters.
 */
static int add_letters(struct settings *settings, const char *letters, const char *next, bool *took_next)
{
	int result = 0;

	for (; *letters && !result; letters++) {
		struct setting setting = { .row = row_by_letter(*letters, 0), .letter = *letters };
		const char *argument = letters[1] ? letters + 1 : NULL, name[] = { '-', *letters, '\0' };

		if (!setting.row) {
			result = fail(0, "unknown option %s", name);
			fail_advice("criu --help");
			break;
		}
		if (takes_no_argument(&setting)) {
			add_setting(settings, &setting, NULL);
			continue;
		}
		if (!argument && !row_may_lack_argument(setting.row)) {
			result = take_next(&setting, name, next, &argument);
			*took_next = !result;
		}
		if (!result)
			add_setting(settings, &setting, argument);
		break;
	}
	return result;
}

static int read_command_line(struct settings *settings, struct options *options, int argc, char **argv)
{
	bool only_words = false;
	int result = 0;

	options->arguments = allocate_array(argc + 1, sizeof(*options->arguments));
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
		bool took_next = false;
		int wrong = 0;

		if (only_words || word[0] != '-' || !word[1]) {
			if (options->command)
				options->arguments[options->argument_count++] = argv[i];
			else
				options->command = word;
		} else if (!strcmp(word, "--"))
			only_words = true;
		else if (word[1] == '-')
			wrong = settings_add_long(settings, word + 2, next, &took_next);
		else
			wrong = add_letters(settings, word + 1, next, &took_next);
		result = result ?: wrong;
		i += took_next;
	}
	return result;
}

void settings_free(struct settings *settings)
{
	for (size_t i = 0; i < settings->count; i++) {
		free(settings->items[i].argument);
		free(settings->items[i].origin);
	}
	free(settings->items);
	*settings = (struct settings){};
}

static const struct setting *find_setting(const struct settings *settings, enum option_kind kind)
{
	for (size_t i = settings->count; i-- > 0;)
		if (settings->items[i].row->kind == kind)
			return &settings->items[i];
	return NULL;
}

/* The command may follow its options. Of the options that share a letter, all take an argument or none does. */
static void settle_letters(struct settings *settings, const struct options *options)
{
	int bit = 0;

	for (size_t i = 0; i < command_row_count; i++)
		if (options->command && !strcmp(command_rows[i].name, options->command))
			bit = command_rows[i].bit;
	for (size_t i = 0; i < settings->count; i++)
		if (settings->items[i].letter)
			settings->items[i].row = row_by_letter(settings->items[i].letter, bit);
}

/* --- Configuration files, and which of them -------------------------------------------------------------------- */

/* The file may be missing, or be in a $HOME that criu cannot read. */
static int read_default_file(struct settings *settings, const char *path)
{
	return access(path, R_OK) == 0 ? config_read(settings, path) : 0;
}

/* A file that the user named must exist. */
static int read_named_file(struct settings *settings, const char *path)
{
	int result = config_read(settings, path);

	return result == -ENOENT ? fail(ENOENT, "cannot read the configuration file %s", path) : result;
}

static int read_configuration(struct settings *settings, const struct settings *command_line)
{
	const char *home = getenv("HOME"), *named = getenv("CRIU_CONFIG_FILE");
	int result = 0;

	if (!find_setting(command_line, NO_DEFAULT_CONFIG)) {
		result = read_default_file(settings, "/etc/criu/default.conf");
		if (!result && home) {
			autofree char *path = format_text("%s/.criu/default.conf", home);

			result = read_default_file(settings, path);
		}
	}
	if (!result && named)
		result = read_named_file(settings, named);
	for (size_t i = 0; i < command_line->count && !result; i++)
		if (command_line->items[i].row->kind == CONFIG)
			result = read_named_file(settings, command_line->items[i].argument);
	return result;
}

/* --- Applying settings ----------------------------------------------------------------------------------------- */

static int parse_number_argument(const struct setting *setting, unsigned long most, unsigned long *number)
{
	const char *text = setting->argument;
	char *end;

	if (!*text)
		return fail(0, "--%s: the argument is empty", setting->row->name);
	errno = 0;
	*number = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end)
		return fail(0, "--%s: '%s' is not a number", setting->row->name, text);
	if (errno || *number > most)
		return fail(0, "--%s: %s is too large", setting->row->name, text);
	return 0;
}

static int apply_process(const struct setting *setting, pid_t *pid)
{
	unsigned long number;
	int result = parse_number_argument(setting, INT_MAX, &number);

	if (!result && number == 0)
		result = fail(0, "--%s: there is no process 0", setting->row->name);
	if (!result)
		*pid = number;
	return result;
}

static int apply_seconds(const struct setting *setting, unsigned *seconds)
{
	unsigned long number;
	int result = parse_number_argument(setting, UINT_MAX, &number);

	if (!result)
		*seconds = number;
	return result;
}

/* "64K", "1M", "4G"; a small letter is the same. */
static int apply_size(const struct setting *setting, unsigned long *size)
{
	static const char units[] = "KMG";
	const char *text = setting->argument, *unit;
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(text, &end, 10);
	unit = *end ? strchr(units, *end & ~('a' ^ 'A')) : NULL;
	if (text[0] < '0' || text[0] > '9' || (*end && (!unit || end[1])))
		return fail(0, "--%s: '%s' is not a size, such as 64K, 1M or 4G", setting->row->name, text);
	*size = unit ? 10 * (unit - units + 1) : 0;
	if (errno || number > ULONG_MAX >> *size)
		return fail(0, "--%s: %s is too large", setting->row->name, text);
	*size = number << *size;
	return 0;
}

static int apply_descriptor(const struct setting *setting, int *fd)
{
	unsigned long number;
	int result = parse_number_argument(setting, INT_MAX, &number);

	if (!result && fcntl(number, F_GETFD) < 0)
		result = fail(0, "--%s: descriptor %lu is not open", setting->row->name, number);
	if (!result)
		*fd = number;
	return result;
}

/*
 * As CRIU 4.2: "-v" adds one, "-vvv" adds three (the letters behind the second v do not matter), and any other text is
 * a number, or 0 if it is none. So "-verbosity=4", with one dash, is level 0. A negative number means everything.
 */
static void apply_level(const struct setting *setting, int *level)
{
	const char *text = setting->argument;

	if (!text || text[0] == 'v')
		*level = (unsigned)*level + 1 + (text ? strlen(text) : 0);
	else
		*level = strtol(text, NULL, 10);
}

static int apply_validation(const struct setting *setting, bool *by_size)
{
	*by_size = !strcmp(setting->argument, "filesize");
	if (!*by_size && strcmp(setting->argument, "buildid"))
		return fail(0, "--%s: '%s' is neither 'filesize' nor 'buildid'", setting->row->name,
			    setting->argument);
	return 0;
}

/* The names of the values of an enum. */
static const char *const value_names[][3] = {
	[GROWN] = { [GROWN_REFUSED] = "refuse", [GROWN_KEPT] = "keep", [GROWN_CUT] = "cut" },
	[NETWORK_LOCK] = { [NETWORK_LOCK_NFTABLES] = "nftables",
			   [NETWORK_LOCK_IPTABLES] = "iptables",
			   [NETWORK_LOCK_SKIP] = "skip" },
	[TWIN] = { [TWIN_AUTO] = "auto", [TWIN_ALWAYS] = "always", [TWIN_NEVER] = "never" },
	[COMPRESSION] = { [COMPRESS_NEVER] = "never", [COMPRESS_ALWAYS] = "always", [COMPRESS_AUTO] = "auto" },
};

static int apply_name(const struct setting *setting, unsigned *value)
{
	const char *const *names = value_names[setting->row->kind];
	const char *name = setting->argument ?: names[1]; /* of those that may lack the argument */

	for (unsigned i = 0; i < array_size(value_names[0]); i++)
		if (!strcmp(name, names[i])) {
			*value = i;
			return 0;
		}
	return fail(0, "--%s: '%s' is neither '%s' nor '%s' nor '%s'", setting->row->name, name, names[0],
		    names[1], names[2]);
}

static int apply_network_lock(const struct setting *setting, enum network_lock_method *method)
{
	int result = apply_name(setting, method);

	if (!result && *method == NETWORK_LOCK_IPTABLES)
		return fail(0, "--%s: 'iptables' is not supported yet: use 'nftables'", setting->row->name);
	return result;
}

static int apply_rounds(const struct setting *setting, unsigned *rounds)
{
	if (strcmp(setting->argument, "auto") != 0)
		return apply_seconds(setting, rounds);
	*rounds = PRE_ROUNDS_AUTO;
	return 0;
}

/* An empty argument is usually a variable that is not set. */
static int apply_text(const struct setting *setting, const char **text)
{
	*text = setting->argument;
	return **text ? 0 : fail(0, "--%s: the argument is empty", setting->row->name);
}

/* All modes but `ignore` save and restore the cgroup of each task. The settings of cgroups are not supported yet. */
static int apply_cgroups(const struct setting *setting, bool *ignores)
{
	const char *const modes[] = { "none", "soft", "ignore" }, *const later[] = { "props", "full",
										     "strict" };
	const char *mode = setting->argument ?: "soft";

	for (size_t i = 0; i < array_size(modes); i++)
		if (!strcmp(mode, modes[i])) {
			*ignores = !strcmp(mode, "ignore");
			return 0;
		}
	for (size_t i = 0; i < array_size(later); i++)
		if (!strcmp(mode, later[i])) {
			fail_advice(
				"--%s=soft: processes go back to their cgroups, which must exist with their settings",
				setting->row->name);
			return fail(0, "--%s=%s is not supported yet", setting->row->name, mode);
		}
	fail_advice("one of none, soft, ignore");
	return fail(0, "--%s: there is no mode '%s'", setting->row->name, mode);
}

static void apply_texts(const struct setting *setting, struct texts *texts)
{
	*grow(&texts->items, &texts->count) = setting->argument;
}

/* Another command ignores it: the descriptor may be open only for the restore. */
static int apply_inherited(const struct options *options, const struct setting *setting,
			   struct externals *externals)
{
	if (strcmp(options->command, "restore"))
		return 0;
	return externals_add(externals, EXTERNAL_INHERITED, setting->argument);
}

/* A dump names one socket, or allows all that a restore can connect again. A restore allows them. */
static int apply_unix_sockets(struct options *options, const struct setting *setting, bool *allows)
{
	autofree char *name = NULL;

	if (!setting->argument || strcmp(options->command, "dump")) {
		*allows = !setting->negated;
		return 0;
	}
	name = format_text("unix[%s]", setting->argument);
	return externals_add(options->externals, EXTERNAL_SAVED, name);
}

static int apply(struct options *options, const struct setting *setting)
{
	const struct option_row *row = setting->row;
	void *field = (char *)options + row->offset;

	if (row->there == NO_MORE)
		return fail(0, "--%s no longer exists: %s", row->name, row->help);
	if (row->there == NOT_YET) /* an unsupported option is always off */
		return setting->negated ? 0 : fail(0, "--%s is not supported yet", row->name);
	switch (row->kind) {
	case FLAG:
		*(bool *)field = !setting->negated;
		return 0;
	case FINALLY:
		if (!setting->negated)
			options->leave_running = options->leave_stopped = false;
		*(bool *)field = !setting->negated;
		return 0;
	case TEXT:
		return apply_text(setting, field);
	case OPTIONAL:
	case TRACKER:
		*(const char **)field = setting->negated ? NULL : setting->argument ?: "";
		return 0;
	case TEXTS:
		apply_texts(setting, field);
		return 0;
	case PROCESS:
		return apply_process(setting, field);
	case SECONDS:
	case NUMBER:
		return apply_seconds(setting, field);
	case ROUNDS:
		return apply_rounds(setting, field);
	case SIZE:
		return apply_size(setting, field);
	case DESCRIPTOR:
		return apply_descriptor(setting, field);
	case LEVEL:
		apply_level(setting, field);
		return 0;
	case CGROUPS:
		return apply_cgroups(setting, field);
	case VALIDATION:
		return apply_validation(setting, field);
	case NETWORK_LOCK:
		return apply_network_lock(setting, field);
	case GROWN:
	case TWIN:
	case COMPRESSION:
		return apply_name(setting, field);
	case UNIX_SOCKETS:
		return apply_unix_sockets(options, setting, field);
	case EXTERNAL:
		return externals_add(*(struct externals **)field, EXTERNAL_SAVED, setting->argument);
	case INHERITED:
		return apply_inherited(options, setting, *(struct externals **)field);
	case ALL_CHECKS:
		options->check_extra = options->check_experimental = true;
		return 0;
	default: /* took effect earlier */
		return 0;
	}
}

static int apply_all(struct options *options, const struct settings *settings)
{
	for (size_t i = 0; i < settings->count; i++) {
		int result = apply(options, &settings->items[i]);

		if (result && settings->items[i].origin)
			fail_in(result, "%s", settings->items[i].origin);
		if (result)
			return result;
	}
	return 0;
}

/* After an error: applies only the options of the log, so that the error goes to the right log at the right level. */
static void apply_log_settings(struct options *options, const struct settings *settings)
{
	const void *const about_log[] = { &options->log_file, &options->work_dir, &options->images_dir,
					  &options->verbosity };

	for (size_t i = 0; i < settings->count; i++)
		for (size_t field = 0; field < array_size(about_log); field++)
			if ((const char *)options + settings->items[i].row->offset == about_log[field])
				apply(options, &settings->items[i]);
}

/* --- What must fit together ------------------------------------------------------------------------------------ */

/* An argument that the command does not take, for example `criu dump 4711`. */
static int unwanted_argument(const struct options *options, const struct command_row *row)
{
	const char *argument = options->arguments[0];
	int result = fail(0, "%s takes no argument, but '%s' was given", row->name, argument);

	if (row->bit & (DUMP | PRE_DUMP) && argument[strspn(argument, "0123456789")] == '\0')
		fail_advice("criu %s --tree %s", row->name, argument);
	return result;
}

static int check_command(const struct options *options)
{
	const char *meant;
	int result;

	if (!options->command) {
		result = fail(0, "no command was given");
		fail_advice("criu --help");
		return result;
	}
	for (size_t i = 0; i < command_row_count; i++) {
		const struct command_row *row = &command_rows[i];

		if (strcmp(row->name, options->command))
			continue;
		if (row->there == NO_MORE)
			return fail(0, "%s no longer exists: %s", row->name, row->help);
		if (row->there == NOT_YET)
			return fail(0, "%s is not supported yet", row->name);
		return options->argument_count && !row->arguments ? unwanted_argument(options, row) : 0;
	}
	result = fail(0, "unknown command '%s'", options->command);
	meant = suggestion(options->command, &command_rows[0].name, command_row_count,
			   sizeof(command_rows[0]));
	fail_advice("criu %s", meant ? meant : "--help");
	return result;
}

static int check_combination(const struct options *options)
{
	bool restores = !strcmp(options->command, "restore");
	bool has_one = !strcmp(options->command, "flatten") || !strcmp(options->command, "untrack") ||
		       !strcmp(options->command, "hold");
	bool dumps = !strcmp(options->command, "dump") || !strcmp(options->command, "pre-dump");

	if (dumps && !options->tree)
		return fail(0, "%s needs the process to dump: --tree PID", options->command);
	if (options->pre_dump_mode && strcmp(options->pre_dump_mode, "read") &&
	    strcmp(options->pre_dump_mode, "splice"))
		return fail(0, "--pre-dump-mode: '%s' is neither 'read' nor 'splice'",
			    options->pre_dump_mode);
	if (options->pre_rounds && options->prev_images_dir)
		return fail(
			0,
			"--pre-rounds: not together with --prev-images-dir, because the images have no parent then");
	/* criu closes what it has passed on, and the number could soon be another file's. */
	if (restores && options->status_fd > STDERR_FILENO &&
	    externals_give(options->externals, options->status_fd))
		return fail(0, "--status-fd %d: --inherit-fd gives this descriptor to the processes",
			    options->status_fd);
	if (restores && options->restore_sibling && !options->restore_detached)
		return fail(0, "--restore-sibling needs --restore-detached");
	if (restores && options->mmap_images &&
	    (options->shell_job || options->restore_sibling || options->exec_cmd || options->auto_dedup))
		return fail(
			0,
			"--mmap-images: not together with --shell-job, --restore-sibling, --exec-cmd or --auto-dedup");
	if (restores && options->exec_cmd && !options->argument_count)
		return fail(0,
			    "--exec-cmd needs a command: criu restore --exec-cmd -- COMMAND [ARGUMENT]...");
	if (has_one && options->argument_count > 1)
		return fail(0, "%s takes only one directory, but '%s' was given as well", options->command,
			    options->arguments[1]);
	if (restores && options->argument_count && !options->exec_cmd)
		return fail(0, "restore takes no argument without --exec-cmd, but '%s' was given",
			    options->arguments[0]);
	return 0;
}

/* 1: it was printed. A user who asks for help gets it even if other options are wrong, as with 4.2. */
static int print_what_is_asked(const struct settings *command_line, const struct options *options, int result)
{
	if (find_setting(command_line, HELP))
		help_print(options->command);
	else if (!result && find_setting(command_line, VERSION))
		version_print();
	else
		return result;
	return 1;
}

int options_parse(struct options *options, int argc, char **argv)
{
	struct settings command_line = {};
	int result;

	*options = (struct options){ .status_fd = -1, .timeout = 10, .verbosity = LOG_WARNING };
	options->given = allocate(sizeof(*options->given));
	options->externals = allocate(sizeof(*options->externals));
	log_level = 0; /* main() reports the error; the log is not open yet */
	result = read_command_line(&command_line, options, argc, argv);
	settle_letters(&command_line, options);
	result = print_what_is_asked(&command_line, options, result);
	if (!result)
		result = check_command(options);
	if (result <= 0)
		result = read_configuration(options->given, &command_line) ?: result;
	for (size_t i = 0; i < command_line.count; i++)
		*grow(&options->given->items, &options->given->count) = command_line.items[i];
	free(command_line.items);
	if (!result)
		result = apply_all(options, options->given);
	if (!result)
		result = check_combination(options);
	if (result < 0)
		apply_log_settings(options, options->given);
	options->verbosity = min((unsigned)options->verbosity, (unsigned)LOG_EVERYTHING);
	log_level = options->verbosity;
	return result;
}

void options_free(struct options *options)
{
	if (options->given)
		settings_free(options->given);
	free(options->given);
	if (options->externals)
		externals_free(options->externals);
	free(options->externals);
	free(options->arguments);
	free(options->action_scripts.items);
	free(options->cgroup_roots.items);
	*options = (struct options){};
}
