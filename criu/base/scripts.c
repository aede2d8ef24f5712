/*
 * scripts.c - runs action scripts. See scripts.h.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/scripts.h"

static does_not_return void become_script(const struct scripts *scripts, const char *path,
					  const struct news *news)
{
	char images[64], pid[16], absolute[PATH_MAX];

	snprintf(images, sizeof(images), "/proc/%d/fd/%d", getppid(), scripts->images);
	snprintf(pid, sizeof(pid), "%d", news->root);
	setenv("CRTOOLS_SCRIPT_ACTION", news->name, 1);
	setenv("CRTOOLS_IMAGE_DIR", images, 1);
	unsetenv("CRTOOLS_INIT_PID");
	if (news->root)
		setenv("CRTOOLS_INIT_PID", pid, 1);
	/* The path is relative to the directory in which criu was started. */
	if (!realpath(path, absolute) || fchdir(scripts->work) < 0)
		_exit(127);
	syscall(SYS_close_range, 3, ~0U, 0);
	descriptors_limit(&scripts->descriptors);
	signal(SIGXFSZ, SIG_DFL);
	execl(absolute, absolute, NULL);
	_exit(127);
}

static int explain_script(const char *path, const char *action, int status)
{
	if (WIFSIGNALED(status))
		return fail(0, "action script %s was killed by signal %d at %s", path, WTERMSIG(status),
			    action);
	if (WEXITSTATUS(status) == 127)
		return fail(0, "action script %s cannot be run", path);
	return fail(0, "action script %s ended with status %d at %s", path, WEXITSTATUS(status), action);
}

static int run_one(const struct scripts *scripts, const char *path, const struct news *news)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return fail(errno, "cannot run action script %s", path);
	if (!child)
		become_script(scripts, path, news);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return fail(errno, "cannot wait for action script %s", path);
	return status ? explain_script(path, news->name, status) : 0;
}

int scripts_receive(void *context, const struct news *news)
{
	const struct scripts *scripts = context;
	int result = 0;

	for (size_t i = 0; !result && i < scripts->paths.count; i++) {
		log_info("action script %s: %s", scripts->paths.items[i], news->name);
		result = run_one(scripts, scripts->paths.items[i], news);
	}
	return result;
}
