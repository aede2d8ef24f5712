/*
 * check.c - `criu check`: what this kernel and these privileges allow, and the consequences.
 *
 * The probes are in kernel/probe.h: each tries its feature. Without options, a missing feature that is merely useful is
 * no failure.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/error.h"
#include "cli/commands.h"
#include "kernel/probe.h"

static bool is_probe_wanted(const struct options *options, const struct probe *probe)
{
	return probe->class <= PROBE_USEFUL || (probe->class == PROBE_EXTRA && options->check_extra) ||
	       (probe->class == PROBE_EXPERIMENTAL && options->check_experimental);
}

static int check_feature(const char *name)
{
	const struct probe *probe = probe_find(name);

	if (!strcmp(name, "list")) {
		for (size_t i = 0; i < probe_count; i++)
			puts(probes[i].name);
		return 0;
	}
	if (!probe) {
		fail(0, "unknown feature '%s'", name);
		fail_advice("criu check --feature list");
		return -EINVAL;
	}
	if (!probe_run(probe))
		return fail(0, "%s is not supported: %s", name, probe->no);
	printf("%s is supported\n", name);
	return 0;
}

int command_check(const struct options *options)
{
	int missing = 0;

	if (options->feature)
		return check_feature(options->feature);
	for (size_t i = 0; i < probe_count; i++) {
		bool works;

		if (!is_probe_wanted(options, &probes[i]))
			continue;
		works = probe_run(&probes[i]);
		printf("%-24s  %-3s  %s\n", probes[i].name, works ? "yes" : "NO",
		       works ? probes[i].yes : probes[i].no);
		if (works)
			continue;
		if (probes[i].class == PROBE_REQUIRED)
			refuse("%s: %s", probes[i].name, probes[i].no);
		else if (probes[i].class >= PROBE_EXTRA)
			missing++;
	}
	if (refusals())
		return -REFUSED;
	if (missing)
		return fail(0, "%d features that only some processes need are missing", missing);
	puts("Looks good.");
	return 0;
}
