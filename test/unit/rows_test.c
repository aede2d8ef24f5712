/*
 * rows_test.c - names, beginnings of names and letters mean the same option as for 4.2.1, whose names are listed here.
 */
#include "unit.h"
#include <string.h>
#include "base/memory.h"
#include "cli/table.h"

/* Every long name that 4.2.1 has, and whether it also has it with "no-". */
static const struct name {
	const char *name;
	bool is_negated;
} known[] = {
#define BOTH(name)               \
	{ name, false },         \
	{                        \
		"no-" name, true \
	}
	{ "action-script", false },
	{ "address", false },
	{ "all", false },
	BOTH("allow-uprobes"),
	BOTH("auto-dedup"),
	{ "cgroup-dump-controller", false },
	{ "cgroup-props", false },
	{ "cgroup-props-file", false },
	{ "cgroup-root", false },
	{ "cgroup-yard", false },
	{ "close", false },
	{ "config", false },
	{ "cpu-cap", false },
	BOTH("daemon"),
	BOTH("deprecated"),
	BOTH("display-stats"),
	{ "empty-ns", false },
	{ "enable-external-masters", false },
	{ "enable-external-sharing", false },
	{ "enable-fs", false },
	BOTH("evasive-devices"),
	{ "exec-cmd", false },
	BOTH("experimental"),
	{ "ext-mount-map", false },
	{ "ext-unix-sk", false },
	{ "external", false },
	BOTH("extra"),
	{ "feature", false },
	BOTH("file-locks"),
	{ "file-validation", false },
	BOTH("force-irmap"),
	{ "freeze-cgroup", false },
	BOTH("ghost-fiemap"),
	{ "ghost-limit", false },
	{ "help", false },
	{ "images-dir", false },
	{ "inherit-fd", false },
	{ "irmap-scan-path", false },
	{ "join-ns", false },
	{ "lazy-pages", false },
	{ "leave-running", false },
	{ "leave-stopped", false },
	{ "libdir", false },
	BOTH("link-remap"),
	{ "log-file", false },
	BOTH("log-pid"),
	{ "lsm-mount-context", false },
	{ "lsm-profile", false },
	{ "manage-cgroups", false },
	BOTH("mntns-compat-mode"),
	{ "ms", false },
	{ "network-lock", false },
	{ "no-default-config", false },
	BOTH("page-server"),
	{ "pidfile", false },
	{ "port", false },
	{ "pre-dump-mode", false },
	{ "prev-images-dir", false },
	{ "ps-socket", false },
	BOTH("restore-detached"),
	BOTH("restore-sibling"),
	{ "root", false },
	BOTH("shell-job"),
	BOTH("skip-file-rwx-check"),
	BOTH("skip-in-flight"),
	{ "skip-mnt", false },
	{ "status-fd", false },
	BOTH("stream"),
	BOTH("tcp-close"),
	BOTH("tcp-established"),
	{ "timeout", false },
	BOTH("tls"),
	{ "tls-cacert", false },
	{ "tls-cacrl", false },
	{ "tls-cert", false },
	{ "tls-key", false },
	{ "tls-no-cn-verify", false },
	BOTH("track-mem"),
	{ "tree", false },
	BOTH("unprivileged"),
	{ "verbosity", false },
	{ "version", false },
	{ "veth-pair", false },
	BOTH("weak-sysctls"),
	{ "work-dir", false },
#undef BOTH
};

/* As getopt_long(): the complete name, or a beginning of only one name; otherwise NULL. */
static const struct name *getopt_finds(const char *text, size_t length)
{
	const struct name *found = NULL;
	size_t count = 0;

	for (size_t i = 0; i < array_size(known); i++) {
		if (strncmp(known[i].name, text, length))
			continue;
		if (strlen(known[i].name) == length)
			return &known[i];
		found = &known[i];
		count++;
	}
	return count == 1 ? found : NULL;
}

/* Each beginning of each name means the same option as for 4.2.1. What is ambiguous there is no option here. */
static void beginnings(void **state unused)
{
	for (size_t i = 0; i < array_size(known); i++)
		for (size_t length = 1; length <= strlen(known[i].name); length++) {
			const struct name *expected = getopt_finds(known[i].name, length);
			struct setting setting = {};
			int count = row_find(known[i].name, length, &setting, 1);

			if (!expected && count == 1)
				fail_msg("--%.*s is %s", (int)length, known[i].name, setting.row->name);
			if (expected && (count != 1 || setting.negated != expected->is_negated ||
					 strcmp(setting.row->name, expected->name + 3 * setting.negated)))
				fail_msg("--%.*s is not --%s", (int)length, known[i].name, expected->name);
		}
}

/*
 * Letters of 4.2.1, each with its option. No other letter is an option, except letters of commands that only ours
 * has.
 */
static void letters(void **state unused)
{
	static const char *const names[128] = {
		['d'] = "restore-detached",
		['D'] = "images-dir",
		['h'] = "help",
		['j'] = "shell-job",
		['J'] = "join-ns",
		['l'] = "file-locks",
		['L'] = "libdir",
		['M'] = "ext-mount-map",
		['o'] = "log-file",
		['r'] = "root",
		['R'] = "leave-running",
		['s'] = "leave-stopped",
		['S'] = "restore-sibling",
		['t'] = "tree",
		['v'] = "verbosity",
		['V'] = "version",
		['W'] = "work-dir",
		['x'] = "ext-unix-sk",
	};

	for (int letter = '!'; letter < 127; letter++) {
		const struct option_row *row = row_by_letter(letter, DUMP);

		if (!names[letter] != !row || (row && strcmp(row->name, names[letter])))
			fail_msg("-%c is %s", letter, row ? row->name : "nothing");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(beginnings),
		cmocka_unit_test(letters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
