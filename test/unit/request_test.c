/*
 * request_test.c - options change the request: no option is accepted and then forgotten.
 */
#include "unit.h"
#include <stdio.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "model/external.h"
#include "model/request.h"

/* These have their effect elsewhere: in main.c, in options.c, where directories are opened, and in journeys.c. */
static const char *const elsewhere[] = { "images-dir", "work-dir",	"log-file",
					 "verbosity",  "action-script", "mmap-images" };

static void describe(const struct options *options, char *text, size_t size)
{
	FILE *out = fmemopen(text, size, "w");
	struct request request;

	request_fill(&request, options);
#define number(field)	  fprintf(out, #field "=%d ", (int)request.field)
#define word(name, field) fprintf(out, name "=%s ", (field) ? (field) : "-")
	number(root);
	number(policy.shell_job);
	number(policy.external_sockets);
	number(policy.keeps_connections);
	number(policy.closes_connections);
	number(policy.skips_in_flight);
	number(policy.network_lock);
	number(policy.file_locks);
	number(policy.leave_running);
	number(policy.leave_stopped);
	number(policy.validates_by_size);
	number(policy.skips_mode_check);
	number(policy.forces_irmap);
	number(policy.irmap_paths.count);
	number(policy.grown);
	number(policy.evades_devices);
	number(policy.makes_links);
	number(policy.ghost_limit);
	number(auto_dedup);
	number(display_stats);
	number(ignores_cgroups);
	number(cgroup_roots.count);
	fprintf(out, "externals=%d ", request.externals ? (int)request.externals->count : 0);
	word("previous", request.previous);
	word("plugins", request.plugins);
	word("tracker", request.tracker);
	number(splices);
	number(twin);
	number(compression);
	number(pre_rounds);
	number(timeout);
	number(max_chain);
	number(is_detached);
	number(is_sibling);
	word("command", request.command ? *request.command : NULL);
	word("pidfile", request.pidfile);
	number(status_fd);
	number(logs_per_process);
#undef number
#undef word
	fclose(out);
}

/* Sets the option as if it had been given. */
static void give(struct options *options, const struct option_row *row)
{
	static const char *texts[] = { "/x" };
	static struct externals externals = { .count = 1 };
	void *field = (char *)options + row->offset;

	switch (row->kind) {
	case FLAG:
	case FINALLY:
	case VALIDATION:
	case CGROUPS:
	case UNIX_SOCKETS:
		*(bool *)field = true;
		break;
	case GROWN:
		*(enum grown_files *)field = GROWN_CUT;
		break;
	case NETWORK_LOCK:
		*(enum network_lock_method *)field = NETWORK_LOCK_SKIP;
		break;
	case TWIN:
		*(enum twin_use *)field = TWIN_ALWAYS;
		break;
	case COMPRESSION:
		*(enum compression *)field = COMPRESS_AUTO;
		break;
	case TEXT:
	case TRACKER:
		*(const char **)field = "splice";
		break;
	case TEXTS:
		*(struct texts *)field = (struct texts){ texts, 1 };
		break;
	case EXTERNAL:
	case INHERITED:
		*(struct externals **)field = &externals;
		break;
	case SIZE:
		*(unsigned long *)field = 17;
		break;
	case PROCESS:
	case NUMBER:
	case SECONDS:
	case ROUNDS:
	case DESCRIPTOR:
		*(int *)field = 17;
		break;
	default:
		fail_msg("--%s: this test does not know options of this kind", row->name);
	}
}

static bool is_elsewhere(const struct option_row *row)
{
	for (size_t i = 0; i < array_size(elsewhere); i++)
		if (!strcmp(row->name, elsewhere[i]))
			return true;
	return row->kind == CONFIG || row->kind == NO_DEFAULT_CONFIG || row->kind == HELP ||
	       row->kind == VERSION || row->kind == NO_EFFECT;
}

static void no_option_is_forgotten(void **state unused)
{
	char *command[] = { "command", NULL };
	struct options none = { .status_fd = -1, .arguments = command };
	char without[1024], with[1024];
	size_t count = 0;

	describe(&none, without, sizeof(without));
	for (size_t i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];
		struct options options = none;

		if (!row->name || row->there != THERE || !(row->commands & (DUMP | PRE_DUMP | RESTORE)) ||
		    is_elsewhere(row))
			continue;
		give(&options, row);
		describe(&options, with, sizeof(with));
		if (!strcmp(with, without))
			fail_msg("--%s changes nothing in a request", row->name);
		count++;
	}
	assert_in_range(count, 20, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(no_option_is_forgotten) };

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
