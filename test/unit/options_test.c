/*
 * options_test.c - parses command lines and configuration files: the result is struct options, or the exact error.
 *
 * Needs no privileges. $HOME and $CRIU_CONFIG_FILE point into a temporary directory.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "cli/table.h"

enum { WORDS = 32 };

/* Splits at single blanks, which no word of these tests contains. The words are in `copy`. */
static int parse_words(struct options *options, char *copy)
{
	char *argv[WORDS] = { "criu" };
	int argc = 1;

	for (char *word; (word = strsep(&copy, " ")) && argc < WORDS - 1;)
		if (*word)
			argv[argc++] = word;
	failure_clear();
	return options_parse(options, argc, argv);
}

/* Describes all options that differ from their defaults as one text. */
static void describe(const struct options *options, char *text, size_t size)
{
	FILE *out = fmemopen(text, size, "w");

	fprintf(out, "%s", options->command);
	for (size_t i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];
		const void *field = (const char *)options + row->offset;

		if (!row->name || row->there != THERE)
			continue;
		if ((row->kind == FLAG || row->kind == FINALLY || row->kind == VALIDATION ||
		     row->kind == CGROUPS || row->kind == UNIX_SOCKETS) &&
		    *(const bool *)field)
			fprintf(out, " %s", row->name);
		if ((row->kind == TEXT || row->kind == TRACKER) && *(const char *const *)field)
			fprintf(out, " %s=%s", row->name, *(const char *const *)field);
		if (row->kind == PROCESS && *(const pid_t *)field)
			fprintf(out, " %s=%d", row->name, *(const pid_t *)field);
		if ((row->kind == GROWN || row->kind == NETWORK_LOCK || row->kind == TWIN ||
		     row->kind == COMPRESSION) &&
		    *(const unsigned *)field)
			fprintf(out, " %s=%u", row->name, *(const unsigned *)field);
		if (row->kind == ROUNDS && *(const unsigned *)field)
			fprintf(out, " %s=%u", row->name, *(const unsigned *)field);
		if (row->kind == SECONDS && *(const unsigned *)field != 10)
			fprintf(out, " %s=%u", row->name, *(const unsigned *)field);
		if (row->kind == LEVEL && *(const int *)field != 2)
			fprintf(out, " %s=%d", row->name, *(const int *)field);
		if (row->kind == DESCRIPTOR && *(const int *)field != -1)
			fprintf(out, " %s=%d", row->name, *(const int *)field);
	}
	for (size_t i = 0; i < options->action_scripts.count; i++)
		fprintf(out, " script=%s", options->action_scripts.items[i]);
	for (size_t i = 0; i < options->cgroup_roots.count; i++)
		fprintf(out, " cgroup-root=%s", options->cgroup_roots.items[i]);
	for (size_t i = 0; i < options->argument_count; i++)
		fprintf(out, " <%s>", options->arguments[i]);
	fclose(out);
}

static void check_line(const char *line, const char *expected)
{
	autofree char *copy = copy_text(line);
	char text[4096] = "";
	struct options options;

	if (parse_words(&options, copy))
		failure_report(text, sizeof(text), NULL, NULL);
	else
		describe(&options, text, sizeof(text));
	if (strcmp(text, expected))
		fail_msg("%s\n  gives    %s\n  and not  %s", line, text, expected);
	options_free(&options);
}

static void command_lines(void **state unused)
{
	static const struct {
		const char *line, *expected;
	} good[] = {
		{ "dump -t 17", "dump tree=17" },
		{ "dump -t17", "dump tree=17" },
		{ "-t 17 dump", "dump tree=17" },
		{ "dump --tree 17", "dump tree=17" },
		{ "dump --tree=17", "dump tree=17" },
		{ "dump --tre 17", "dump tree=17" },
		{ "dump -t 1 -t 2", "dump tree=2" },
		{ "dump -t 1 -D a -W b -o c", "dump tree=1 images-dir=a work-dir=b log-file=c" },
		{ "flatten a -o b --log-file c", "flatten output=b log-file=c <a>" },
		{ "-o b flatten", "flatten output=b" },
		{ "dump -t 1 -x", "dump tree=1 ext-unix-sk" },
		{ "dump -t 1 -x5", "dump tree=1" }, /* in the table of externals */
		{ "restore -x5", "restore ext-unix-sk" },
		{ "dump -t 1 -RjDdir -l", "dump tree=1 images-dir=dir leave-running shell-job file-locks" },
		/* the last one wins */
		{ "dump -t 1 -Rs", "dump tree=1 leave-stopped" },
		{ "dump -t 1 -sR", "dump tree=1 leave-running" },
		{ "dump -t 1 -sR --no-leave-running", "dump tree=1" },
		{ "dump -t 1 -R --no-leave-stopped", "dump tree=1 leave-running" },
		{ "dump -t 1 --track-mem", "dump tree=1 track-mem=" },
		{ "dump -t 1 --track-mem=written", "dump tree=1 track-mem=written" },
		{ "dump -t 1 --track-mem --no-track-mem", "dump tree=1" },
		{ "dump -t 1 --deprecated", "dump tree=1" },
		/* a shortened name means what it means for 4.2, also if an option of our own begins like it */
		{ "dump --leave-run -t 1", "dump tree=1 leave-running" },
		{ "dump --no-tl -t 1", "dump tree=1" },
		{ "show --js", "show json" },
		/* arguments that begin with a dash, where they cannot be options */
		{ "dump -t 1 -D./-R", "dump tree=1 images-dir=./-R" },
		{ "dump -t 1 --images-dir=-R", "dump tree=1 images-dir=-R" },
		{ "dump -t 1 -D -5", "dump tree=1 images-dir=-5" },
		{ "dump -t 1 -D -", "dump tree=1 images-dir=-" },
		{ "restore -dS", "restore restore-detached restore-sibling" },
		{ "restore -d --pidfile p --status-fd 1", "restore pidfile=p status-fd=1 restore-detached" },
		{ "restore --exec-cmd -d -- ls -l", "restore restore-detached exec-cmd <ls> <-l>" },
		{ "restore --exec-cmd a b", "restore exec-cmd <a> <b>" },
		{ "restore --log-pid --skip-file-rwx-check --display-stats",
		  "restore skip-file-rwx-check log-pid display-stats" },
		{ "check --extra --experimental", "check extra experimental" },
		{ "check --all", "check extra experimental" },
		{ "check --feature uffd", "check feature=uffd" },
		{ "show --json core-1.img -", "show json <core-1.img> <->" },
		{ "dump -t 1 --timeout 0", "dump tree=1 timeout=0" },
		{ "dump -t 1 --file-validation filesize", "dump tree=1 file-validation" },
		{ "dump -t 1 --file-validation filesize --file-validation buildid", "dump tree=1" },
		{ "restore --grown-files keep", "restore grown-files=1" },
		{ "restore --grown-files=cut", "restore grown-files=2" },
		{ "restore --grown-files=cut --grown-files refuse", "restore" },
		{ "dump -t 17 --pre-rounds 3", "dump tree=17 pre-rounds=3" },
		{ "dump -t 17 --pre-rounds=auto", "dump tree=17 pre-rounds=4294967295" },
		{ "dump -t 17 --twin=always --twin never", "dump tree=17 twin=2" },
		{ "dump -t 1 --action-script a --action-script b", "dump tree=1 script=a script=b" },
		{ "restore --cgroup-root /c --action-script a --cgroup-root /d",
		  "restore script=a cgroup-root=/c cgroup-root=/d" },
		{ "dump -t 1 --manage-cgroups", "dump tree=1" },
		{ "dump -t 1 --manage-cgroup=ignore", "dump tree=1 manage-cgroups" },
		{ "dump -t 1 --manage-cgroups=ignore --manage-cgroups=none", "dump tree=1" },
		{ "restore --cgroup-root a:/b --cgroup-root=/c", "restore cgroup-root=a:/b cgroup-root=/c" },
		/* negated options, also of options that do not exist yet */
		{ "dump -t 1 -R --no-leave-running", "dump tree=1" },
		{ "dump -t 1 --no-leave-r -R", "dump tree=1 leave-running" },
		{ "dump -t 1 --no-weak-sysctls", "dump tree=1" },
	};

	for (size_t i = 0; i < array_size(good); i++)
		check_line(good[i].line, good[i].expected);
}

/* Levels as 4.2.1 has them; what `criu dump -t 999999 -v0 …` prints shows them. */
static const struct {
	const char *options;
	int level;
} given[] = {
	{ "", 2 },
	{ "-v", 3 },
	{ "-vv", 4 },
	{ "-vvvv", 4 },
	{ "-v -v", 4 },
	{ "-v0", 0 },
	{ "-v1", 1 },
	{ "-v2", 2 },
	{ "-v3", 3 },
	{ "-v4", 4 },
	{ "-v9", 4 },
	{ "-v4 -v1", 1 },
	{ "-v9 -v1", 1 },
	{ "-v1 -v", 2 },
	{ "-v0 -v", 1 },
	{ "-v0 -vv", 2 },
	{ "-v0 -vvv", 3 },
	{ "-v0 -vv4", 3 },
	{ "-v0 -vvx", 3 },
	{ "-v0 -vv-1", 4 },
	{ "-v0 -vvxv", 4 },
	/* not a number */
	{ "-vx", 0 },
	{ "-vRx", 0 },
	{ "-vV", 0 },
	{ "-v=4", 0 },
	{ "-v0x4", 0 },
	{ "-verbosity=0", 0 },
	{ "-verbosity=4", 0 },
	{ "--verbosity=", 0 },
	/* a number and something behind it */
	{ "-v4x", 4 },
	{ "-v1.9", 1 },
	{ "-v+1", 1 },
	{ "-v010", 4 },
	{ "-v-0", 0 },
	/* negative, and too large */
	{ "-v-1", 4 },
	{ "-v-1 -v", 0 },
	{ "-v-2 -v", 4 },
	{ "-v-2 -vv", 0 },
	{ "-v0 -v-3 -vvvvv", 2 },
	{ "-v2147483647 -v", 4 },
	{ "-v4294967297", 1 },
	{ "-v18446744073709551617", 4 },
	{ "-v99999999999", 4 },
	{ "--verbosity", 3 },
	{ "--verbosity=0", 0 },
	{ "--verbosity=4", 4 },
	{ "--verb=1", 1 },
	{ "-v0 --verbosity", 1 },
	{ "-v0 --verbosity=v", 2 },
	{ "-v0 --verbosity=vv", 3 },
	{ "-v0 --verbosity=v3", 3 },
};

static void levels(void **state unused)
{
	for (size_t i = 0; i < array_size(given); i++) {
		autofree char *line = format_text("check %s", given[i].options);
		struct options options;

		assert_int_equal(parse_words(&options, line), 0);
		if (options.verbosity != given[i].level)
			fail_msg("%s is level %d, not %d", given[i].options, options.verbosity,
				 given[i].level);
		options_free(&options);
	}
}

static const struct {
	const char *line, *expected;
} bad[] = {
	{ "", "criu: no command was given\n  try: criu --help\n" },
	{ "dmp -t 1", "criu: unknown command 'dmp'\n  try: criu dump\n" },
	{ "bogus", "criu: unknown command 'bogus'\n  try: criu --help\n" },
	{ "pre-dump", "criu: pre-dump needs the process to dump: --tree PID\n" },
	{ "lazy-pages", "criu: lazy-pages is not supported yet\n" },
	{ "swrk 3", "criu: swrk is not supported yet\n" },
	{ "dump", "criu: dump needs the process to dump: --tree PID\n" },
	{ "dump -t", "criu: -t needs an argument: PID\n" },
	{ "dump --tree", "criu: --tree needs an argument: PID\n" },
	{ "dump -t 0", "criu: --tree: there is no process 0\n" },
	{ "dump -t -1", "criu: --tree: '-1' is not a number\n" },
	{ "dump -t 12x", "criu: --tree: '12x' is not a number\n" },
	{ "dump --tree=", "criu: --tree: the argument is empty\n" },
	{ "dump --images-dir= -t 1", "criu: --images-dir: the argument is empty\n" },
	{ "dump --config= -t 1", "criu: cannot read the configuration file : No such file or directory\n" },
	/* a variable of the shell was empty: the option that follows is no argument */
	{ "dump -t -D img", "criu: -t needs an argument, PID, but is followed by the option -D\n" },
	{ "dump --tree -D img", "criu: --tree needs an argument, PID, but is followed by the option -D\n" },
	{ "dump -t 1 -D -R", "criu: -D needs an argument, DIR, but is followed by the option -R\n" },
	{ "dump -t 1 -D --leave-running",
	  "criu: -D needs an argument, DIR, but is followed by the option --leave-running\n" },
	{ "dump -Rt -D img", "criu: -t needs an argument, PID, but is followed by the option -D\n" },
	{ "restore --exec-cmd --pidfile -- ls",
	  "criu: --pidfile needs an argument, FILE, but is followed by the option --\n" },
	{ "dump 4711", "criu: dump takes no argument, but '4711' was given\n  try: criu dump --tree 4711\n" },
	{ "dump -", "criu: dump takes no argument, but '-' was given\n" },
	{ "dump -- -t 1", "criu: dump takes no argument, but '-t' was given\n" },
	{ "check 4711", "criu: check takes no argument, but '4711' was given\n" },
	{ "check --verbosity 4", "criu: check takes no argument, but '4' was given\n" },
	{ "check -v 4", "criu: check takes no argument, but '4' was given\n" },
	{ "dump -t 99999999999", "criu: --tree: 99999999999 is too large\n" },
	{ "dump -t 99999999999999999999", "criu: --tree: 99999999999999999999 is too large\n" },
	{ "dump -t 1 extra", "criu: dump takes no argument, but 'extra' was given\n" },
	{ "dump -t 1 --bogus", "criu: unknown option --bogus\n  try: criu --help\n" },
	{ "dump -t 1 --image-dir=x", "criu: unknown option --image-dir\n  try: --images-dir\n" },
	{ "dump -t 1 --no-tree", "criu: unknown option --no-tree\n  try: criu --help\n" },
	{ "dump -t 1 -q", "criu: unknown option -q\n  try: criu --help\n" },
	{ "dump -t 1 --leave", "criu: --leave is ambiguous: --leave-running, --leave-stopped\n" },
	{ "dump -t 1 --no",
	  "criu: --no is ambiguous: --no-stream, --no-restore-detached, --no-restore-sibling, --no-shell-job, --no-file-locks, --no-skip-file-rwx-check, --no-unprivileged, --no-allow-uprobes, …\n" },
	{ "dump -t 1 --no-d",
	  "criu: --no-d is ambiguous: --no-daemon, --no-display-stats, --no-default-config, --no-deprecated\n" },
	{ "dump -t 1 --j", "criu: --join-ns needs an argument: NS:PID|FILE[,ID,ID]\n" },
	{ "dump -t 1 --no-track-mem=auto", "criu: --no-track-mem takes no argument, but 'auto' was given\n" },
	{ "dump -t 1 -jxa",
	  "criu: --external unix[a]: 'unix[a]' is not the name of a resource\n  try: file[MNT_ID:INODE] or tty[RDEV:DEV], with numbers in hexadecimal, or unix[INODE]\n" },
	{ "dump -t 1 -M auto", "criu: --ext-mount-map is not supported yet\n" },
	{ "dump -t 1 --ext-mount-map a:b", "criu: --ext-mount-map is not supported yet\n" },
	{ "dump -t 1 --enable-external-sharing", "criu: --enable-external-sharing is not supported yet\n" },
	{ "dump -t 1 --enable-external-masters", "criu: --enable-external-masters is not supported yet\n" },
	{ "dump -t 1 --external bla",
	  "criu: --external bla: 'bla' is not the name of a resource\n  try: file[MNT_ID:INODE] or tty[RDEV:DEV], with numbers in hexadecimal, or unix[INODE]\n" },
	{ "restore --inherit-fd fd[1000]:/a",
	  "criu: --inherit-fd fd[1000]:/a: descriptor 1000 is not open\n" },
	{ "restore --inherit-fd /a",
	  "criu: --inherit-fd /a: this does not begin with fd[N]:\n  try: fd[N]:RESOURCE, where N is a number\n" },
	{ "check --ms",
	  "criu: --ms no longer exists: without --extra, check does not ask for new features\n" },
	{ "exec -t 1", "criu: exec no longer exists: running code inside another process was removed\n" },
	{ "dump -t 1 --shell-job=1", "criu: --shell-job takes no argument, but '1' was given\n" },
	{ "dump -t 1 --unprivileged", "criu: --unprivileged is not supported yet\n" },
	{ "dump -t 1 --ghost-limit 4T", "criu: --ghost-limit: '4T' is not a size, such as 64K, 1M or 4G\n" },
	{ "dump -t 1 --ghost-limit 1MB",
	  "criu: --ghost-limit: '1MB' is not a size, such as 64K, 1M or 4G\n" },
	{ "dump -t 1 --ghost-limit -1", "criu: --ghost-limit: '-1' is not a size, such as 64K, 1M or 4G\n" },
	{ "dump -t 1 --ghost-limit 99999999999999G", "criu: --ghost-limit: 99999999999999G is too large\n" },
	{ "dump -t 1 --unprivileged", "criu: --unprivileged is not supported yet\n" },
	{ "restore -r /", "criu: --root is not supported yet\n" },
	{ "restore -S", "criu: --restore-sibling needs --restore-detached\n" },
	{ "restore --exec-cmd",
	  "criu: --exec-cmd needs a command: criu restore --exec-cmd -- COMMAND [ARGUMENT]...\n" },
	{ "restore -- ls", "criu: restore takes no argument without --exec-cmd, but 'ls' was given\n" },
	{ "restore --manage-cgroups=full",
	  "criu: --manage-cgroups=full is not supported yet\n  try: --manage-cgroups=soft: processes go back to their cgroups, which must exist with their settings\n" },
	{ "restore --manage-cgroups=x",
	  "criu: --manage-cgroups: there is no mode 'x'\n  try: one of none, soft, ignore\n" },
	{ "check --file-validation x", "criu: --file-validation: 'x' is neither 'filesize' nor 'buildid'\n" },
	{ "dump -t 17 --pre-rounds 3 --prev-images-dir x",
	  "criu: --pre-rounds: not together with --prev-images-dir, because the images have no parent then\n" },
	{ "dump --twin yes", "criu: --twin: 'yes' is neither 'auto' nor 'always' nor 'never'\n" },
	{ "restore --grown-files Keep",
	  "criu: --grown-files: 'Keep' is neither 'refuse' nor 'keep' nor 'cut'\n" },
	{ "check --status-fd 1000", "criu: --status-fd: descriptor 1000 is not open\n" },
	{ "pre-dump -t 1 --pre-dump-mode quick",
	  "criu: --pre-dump-mode: 'quick' is neither 'read' nor 'splice'\n" },
	{ "flatten a b", "criu: flatten takes only one directory, but 'b' was given as well\n" },
	{ "check --timeout soon", "criu: --timeout: 'soon' is not a number\n" },
	{ "check --config /nonexistent",
	  "criu: cannot read the configuration file /nonexistent: No such file or directory\n" },
};

static void wrong_command_lines(void **state unused)
{
	for (size_t i = 0; i < array_size(bad); i++)
		check_line(bad[i].line, bad[i].expected);
}

/* May the two share a letter? One of them is only for some commands, and both take an argument. */
static bool may_share_letter(const struct option_row *row, const struct option_row *other)
{
	return (row->commands == EVERY) != (other->commands == EVERY) && row->kind == TEXT &&
	       other->kind == TEXT;
}

/* Every row of the table can be found by its name. Options that are not supported yet are refused. */
static void all_rows(void **state unused)
{
	for (size_t i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];
		struct settings settings = {};
		bool took_next = false;

		if (!row->name)
			continue;
		assert_int_equal(settings_add_long(&settings, row->name, "1", &took_next), 0);
		assert_true(took_next || row->kind != TEXT);
		assert_ptr_equal(settings.items[0].row, row);
		settings_free(&settings);
		for (size_t other = 0; other < i; other++) {
			assert_true(!option_rows[other].name || strcmp(option_rows[other].name, row->name));
			assert_true(!row->letter || option_rows[other].letter != row->letter ||
				    may_share_letter(row, &option_rows[other]));
		}
	}
}

/* --- Configuration files --------------------------------------------------------------------------------------- */

static char directory[] = "/tmp/options_test.XXXXXX";

static void write_file(const char *name, const char *text)
{
	autofree char *path = format_text("%s/%s", directory, name);
	autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static int make_directory(void **state unused)
{
	autofree char *home = NULL;

	if (!mkdtemp(directory))
		return -1;
	home = format_text("%s/.criu", directory);
	setenv("HOME", directory, 1);
	return mkdir(home, 0700);
}

static int remove_directory(void **state unused)
{
	static const char *const names[] = { ".criu/default.conf", "named", "given", ".criu", "" };

	for (size_t i = 0; i < array_size(names); i++) {
		autofree char *path = format_text("%s/%s", directory, names[i]);

		remove(path);
	}
	return 0;
}

/* --help works in spite of any other error, --version unless an error precedes it. Their output is discarded here. */
static void help_and_version(void **state unused)
{
	static const struct {
		const char *line;
		int result;
	} asked[] = {
		{ "--help", 1 },
		{ "-h", 1 },
		{ "dump -h", 1 },
		{ "dump --h", 1 },
		{ "--help --bogus", 1 },
		{ "--bogus -h", 1 },
		{ "--help --tree", 1 },
		{ "-t 0 --help", 1 },
		{ "check --ms --help", 1 },
		{ "-Vh", 1 },
		{ "bogus --help", 1 },
		{ "--version", 1 },
		{ "-V", 1 },
		{ "dump -V", 1 },
		{ "--bogus --version", -EINVAL },
	};
	int out = dup(STDOUT_FILENO);

	fflush(stdout);
	assert_non_null(freopen("/dev/null", "w", stdout));
	for (size_t i = 0; i < array_size(asked); i++) {
		autofree char *copy = copy_text(asked[i].line);
		struct options options;

		assert_int_equal(parse_words(&options, copy), asked[i].result);
		options_free(&options);
	}
	fflush(stdout);
	dup2(out, STDOUT_FILENO);
	close(out);
}

/* Parsing continues after the first error, so the log and its level are known wherever they are given. */
static void log_after_an_error(void **state unused)
{
	static const char *const lines[] = {
		"dump -t 1 --bogus -D img -W work -o log -v4",
		"dump -v4 -o log -W work -D img -t 0",
		"dump -t 1 --unprivileged -D img -o log -W work -v4",
		"dump -t 1 -o log --stream -D img -W work -v4 --tcp-close -t x",
		"-D img -W work -o log -v4 bogus",
		"-D img -W work -o log -v4",
		"dump -D img -W work -o log -v4",
		"dump -t -D img -W work -o log -v4",
		"dump -t 1 x -D img -W work -o log -v4",
		"exec -D img -W work -o log -v4",
		"dump -Rq -D img -W work -o log -v4",
	};

	for (size_t i = 0; i < array_size(lines); i++) {
		autofree char *copy = copy_text(lines[i]);
		struct options options;

		if (parse_words(&options, copy) != -EINVAL || !options.log_file ||
		    strcmp(options.log_file, "log") || !options.work_dir ||
		    strcmp(options.work_dir, "work") || !options.images_dir ||
		    strcmp(options.images_dir, "img") || options.verbosity != 4)
			fail_msg("%s: the log was not parsed", lines[i]);
		options_free(&options);
	}
}

static void config_lines(void **state unused)
{
	static const struct {
		const char *text, *expected;
	} files[] = {
		{ "", "check" },
		{ "\n\n   \n", "check" },
		{ "# all of it\n   # indented\n", "check" },
		{ "shell-job", "check shell-job" },
		{ "shell-job\nno-shell-job\n", "check" },
		{ "  shell-job   # why\n", "check shell-job" },
		{ "shell-job\r\n", "check shell-job" },
		{ "work-dir /a/b\n", "check work-dir=/a/b" },
		{ "work-dir=/a/b\n", "check work-dir=/a/b" },
		{ "work-dir\t/a/b # c\n", "check work-dir=/a/b" },
		{ "work-dir /a#b\n", "check work-dir=/a" },
		{ "work-dir \"/a b/#c\"\n", "check work-dir=/a b/#c" },
		{ "work-dir \"a \\\"b\\\" \\c\\\\d\"\n", "check work-dir=a \"b\" \\c\\\\d" },
		{ "work-dir \"a\"#b\n", "check work-dir=a" },
		{ "verbosity 3\n", "check verbosity=3" },
		{ "verbosity\n", "check verbosity=3" },
		{ "action-script a\naction-script b\n", "check script=a script=b" },
		/* errors: file, line, cause */
		{ "shell-job\nbogus\n", "criu: %s:2: unknown option --bogus\n  try: criu --help\n" },
		{ "shell-job yes\n", "criu: %s:1: --shell-job takes no argument, but 'yes' was given\n" },
		{ "work-dir\n", "criu: %s:1: --work-dir needs an argument: DIR\n" },
		{ "work-dir a b\n",
		  "criu: %s:1: unexpected 'b' after the argument; an argument with spaces needs quotes\n" },
		{ "work-dir \"a\n", "criu: %s:1: the closing quote is missing\n" },
		{ "work-dir \"a\"b\n", "criu: %s:1: unexpected text after the closing quote: b\n" },
		{ "tree 0\n", "criu: %s:1: --tree: there is no process 0\n" },
		{ "\nunprivileged\n", "criu: %s:2: --unprivileged is not supported yet\n" },
		{ "config other\n", "criu: %s:1: config is allowed only on the command line\n" },
		{ "help\n", "criu: %s:1: help is allowed only on the command line\n" },
		{ "bogus\nunknown\n", "criu: %s:1: unknown option --bogus\n  try: criu --help\n" },
		{ "ms\n",
		  "criu: %s:1: --ms no longer exists: without --extra, check does not ask for new features\n" },
		{ "dump\n", "criu: %s:1: unknown option --dump\n  try: criu --help\n" },
	};
	autofree char *path = format_text("%s/given", directory);
	autofree char *line = format_text("check --no-default-config --config %s", path);

	for (size_t i = 0; i < array_size(files); i++) {
		const char *place = strstr(files[i].expected, "%s");
		autofree char *expected = place ? format_text("%.*s%s%s", (int)(place - files[i].expected),
							      files[i].expected, path, place + 2) :
						  copy_text(files[i].expected);

		write_file("given", files[i].text);
		check_line(line, expected);
	}
}

/* $HOME, $CRIU_CONFIG_FILE, --config, the command line: each overrides those before it. */
static void config_order(void **state unused)
{
	autofree char *named = format_text("%s/named", directory);
	autofree char *given = format_text("check --config %s/given", directory);
	autofree char *all = format_text("%s -Dcommand", given);
	autofree char *without = format_text("%s --no-default-config --no-shell-job", given);

	write_file(".criu/default.conf",
		   "shell-job\npidfile home\nlog-file home\nimages-dir home\nwork-dir home\n");
	write_file("named", "log-file named\nimages-dir named\nwork-dir named\n");
	write_file("given", "images-dir given\nwork-dir given\n");
	check_line("check", "check images-dir=home work-dir=home pidfile=home shell-job log-file=home");
	setenv("CRIU_CONFIG_FILE", named, 1);
	check_line("check", "check images-dir=named work-dir=named pidfile=home shell-job log-file=named");
	check_line(given, "check images-dir=given work-dir=given pidfile=home shell-job log-file=named");
	check_line(all, "check images-dir=command work-dir=given pidfile=home shell-job log-file=named");
	check_line(without, "check images-dir=given work-dir=given log-file=named");
	setenv("CRIU_CONFIG_FILE", "/nonexistent", 1);
	check_line("check",
		   "criu: cannot read the configuration file /nonexistent: No such file or directory\n");
	unsetenv("CRIU_CONFIG_FILE");
	write_file(".criu/default.conf", "");
}

static void suggestions(void **state unused)
{
	static const char *const names[] = { "tree", "images-dir", NULL, "work-dir" };

	assert_string_equal(suggestion("image-dir", names, 4, sizeof(names[0])), "images-dir");
	assert_string_equal(suggestion("wrok-dir", names, 4, sizeof(names[0])), "work-dir");
	assert_string_equal(suggestion("tre", names, 4, sizeof(names[0])), "tree");
	assert_null(suggestion("something", names, 4, sizeof(names[0])));
	assert_null(suggestion("", names, 4, sizeof(names[0])));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(command_lines),       cmocka_unit_test(levels),
		cmocka_unit_test(wrong_command_lines), cmocka_unit_test(all_rows),

		cmocka_unit_test(help_and_version),    cmocka_unit_test(log_after_an_error),
		cmocka_unit_test(config_lines),	       cmocka_unit_test(config_order),
		cmocka_unit_test(suggestions),
	};

	unsetenv("CRIU_CONFIG_FILE");
	error_init();
	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
