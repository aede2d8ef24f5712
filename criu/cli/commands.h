/*
 * commands.h - the commands of the program. Each returns 0 or -errno with the failure recorded; main() reports it and
 * exits.
 */
#ifndef CRIU_CLI_COMMANDS_H
#define CRIU_CLI_COMMANDS_H

#include "cli/options.h"
#include "compiler.h"

struct request;	    /* model/request.h */
struct held_memory; /* restore/held.h */

int command_dump(const struct options *options) must_check;	/* criu/cli/journeys.c */
int command_pre_dump(const struct options *options) must_check; /* criu/cli/journeys.c */
int command_restore(const struct options *options) must_check;	/* criu/cli/journeys.c */
int command_check(const struct options *options) must_check;	/* criu/cli/check.c */
int command_show(const struct options *options) must_check;	/* criu/cli/show.c */
int command_hold(const struct options *options) must_check;	/* criu/cli/holder_call.c */
int command_untrack(const struct options *options) must_check;	/* criu/cli/untrack.c */
int command_dedup(const struct options *options) must_check;	/* criu/cli/dedup.c */
int command_flatten(const struct options *options) must_check;	/* criu/cli/flatten.c */

/* run.c: a whole run, with its report on stderr. Returns the exit code. `held`: memory that was loaded before, or NULL. */
int run_program(int argc, char **argv, const struct held_memory *held) must_check;

/* journeys.c: fills a request from the options, without opening anything. */
void request_fill(struct request *request, const struct options *options);

#endif
