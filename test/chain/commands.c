/* commands.c - runs criu, ours or the peer, and shows its output if it fails. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "driver.h"

#define PATIENCE      120000 /* milliseconds */
#define ARGUMENTS_MAX 24

struct command {
	const char *program, *fault;
	const char *arguments[ARGUMENTS_MAX];
	size_t count;
};

static void add(struct command *command, const char *argument)
{
	if (command->count == ARGUMENTS_MAX - 1)
		abort();
	command->arguments[command->count++] = argument;
}

static struct command begin(const char *program, const char *what, const char *images)
{
	struct command command = { .program = program };

	add(&command, program);
	add(&command, what);
	add(&command, "-D");
	add(&command, images);
	return command;
}

static _Noreturn void exec_criu(const struct run *run, struct command *command, const char *output)
{
	int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	dup2(open("/dev/null", O_RDONLY), 0);
	dup2(fd, 1);
	dup2(fd, 2);
	closefrom(3);
	if (chdir(run->directory))
		_exit(126);
	if (command->fault)
		setenv("CRIU_FAULT", command->fault, true);
	execv(command->program, (char **)command->arguments);
	_exit(127);
}

static bool is_over_in_time(int pid)
{
	struct pollfd poller = { .fd = syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	int result = poll(&poller, 1, PATIENCE);

	close(poller.fd);
	if (result <= 0)
		kill(pid, SIGKILL);
	return result > 0;
}

/* Shows the end of its output, and of its log if there is one. */
static void show(const struct run *run, struct command *command, const char *output)
{
	char text[3000] = "";
	int fd = open(output, O_RDONLY | O_CLOEXEC);
	off_t size = lseek(fd, 0, SEEK_END);

	if (pread(fd, text, sizeof(text) - 1,
		  size > (off_t)sizeof(text) ? size - (off_t)sizeof(text) + 1 : 0) < 0)
		text[0] = '\0';
	close(fd);
	fprintf(stdout, "  in %s:", run->directory);
	for (size_t i = 0; i < command->count; i++)
		fprintf(stdout, " %s", command->arguments[i]);
	fprintf(stdout, "\n%s", text);
}

static int execute(const struct run *run, struct command *command)
{
	char output[160];
	int status = 0, pid;

	if (run->keeps) {
		add(command, "-v4");
		add(command, "-o");
		add(command, strcmp(command->arguments[1], "restore") ? "dump.log" : "restore.log");
	}
	snprintf(output, sizeof(output), "%s/output", run->directory);
	pid = fork();
	if (!pid)
		exec_criu(run, command, output);
	if (!is_over_in_time(pid))
		printf("  it did not end in time\n");
	if (waitpid(pid, &status, 0) != pid)
		failed(run, "waitpid: %s", strerror(errno));
	if (status && !command->fault)
		show(run, command, output);
	return status;
}

static bool is_incremental(const struct run *run)
{
	return strcmp(run->tracker, "none");
}

static void make_directory(const struct run *run, const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", run->directory, name);
	if (mkdir(path, 0700) && errno != EEXIST)
		failed(run, "%s: %s", path, strerror(errno));
}

/* The peer has only one tracker, and its option takes no argument. */
static int dump(struct run *run, enum snapshot_kind kind, const char *name, const char *parent,
		const char *fault)
{
	struct command command = begin(run->peer_dumps ? run->peer : run->criu,
				       kind == PRE_DUMP ? "pre-dump" : "dump", name);
	char pid[12], tracker[40], previous[40];

	snprintf(pid, sizeof(pid), "%d", run->board->slots[0].pid);
	snprintf(tracker, sizeof(tracker), run->peer_dumps ? "--track-mem" : "--track-mem=%s", run->tracker);
	snprintf(previous, sizeof(previous), "../%s", parent);
	make_directory(run, name);
	add(&command, "-t");
	add(&command, pid);
	if (kind == DUMP_LEAVE_RUNNING)
		add(&command, "-R");
	/* Every other one saves the memory of copies. */
	if (kind == DUMP_LEAVE_RUNNING && !run->peer_dumps && (run->seed + strtoul(name + 1, NULL, 10)) % 2) {
		add(&command, "--twin");
		add(&command, "always");
	}
	if (is_incremental(run))
		add(&command, tracker);
	if (is_incremental(run) && parent) {
		add(&command, "--prev-images-dir");
		add(&command, previous);
	}
	command.fault = fault;
	return execute(run, &command);
}

void command_dump(struct run *run, enum snapshot_kind kind, const char *name, const char *parent)
{
	if (dump(run, kind, name, parent, NULL))
		failed(run, "the dump failed");
}

/*
 * Has the last command written these words? The report of a failure goes to stderr, even if there is a log file.
 */
static bool has_said(const struct run *run, const char *words)
{
	static char text[64 << 10];
	char path[160];
	FILE *output;
	size_t length;

	snprintf(path, sizeof(path), "%s/output", run->directory);
	output = fopen(path, "re");
	length = output ? fread(text, 1, sizeof(text) - 1, output) : 0;
	text[length] = '\0';
	if (output)
		fclose(output);
	return strstr(text, words);
}

void command_dump_that_fails(struct run *run, const char *name, const char *parent, const char *step)
{
	char fault[80], words[100];

	snprintf(fault, sizeof(fault), "dump:%s", step);
	snprintf(words, sizeof(words), "fault injected into '%s'", step);
	if (!dump(run, DUMP_LEAVE_RUNNING, name, parent, fault) || !has_said(run, words))
		failed(run, "a dump with CRIU_FAULT='%s' did not fail in this step", fault);
	tree_rest(run);
}

void command_restore(struct run *run, const char *name)
{
	struct command command = begin(run->peer_restores ? run->peer : run->criu, "restore", name);

	add(&command, "-d");
	if (execute(run, &command))
		failed(run, "the restore failed");
	tree_rest(run);
}

void command_on(struct run *run, const char *what, const char *name)
{
	struct command command = begin(run->criu, what, name);

	if (!strcmp(what, "flatten")) {
		command.arguments[2] = name; /* criu flatten DIR */
		command.arguments[3] = NULL;
		command.count = 3;
	}
	if (execute(run, &command))
		failed(run, "criu %s failed", what);
}
