/*
 * adopt.c - a child of the holder becomes like the process that has asked for a restore: what that one would have passed
 * on to the restored processes, or found in its namespaces, comes from the caller.
 *
 * Everything is read from /proc/PID of the caller, and descriptors are taken by pidfd_getfd(), while the caller waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "cli/holder.h"
#include "kernel/cgroups.h"
#include "kernel/proc.h"

/* ---- its words ---- */

/* Splits a text of words, each of which ends with a zero byte. */
static size_t split(char *text, ssize_t length, char ***words)
{
	size_t count = 0;

	for (char *word = text; word < text + length; word += strlen(word) + 1)
		*grow(words, &count) = word;
	*grow(words, &count) = NULL;
	return count - 1;
}

/* What system calls tell, which need its pid in the pid namespace of the holder. */
static void look_at_attributes(struct caller *caller, pid_t pid)
{
	caller->policy = sched_getscheduler(pid);
	caller->nice = getpriority(PRIO_PROCESS, (id_t)pid);
	caller->has_cpus = sched_getaffinity(pid, sizeof(caller->cpus), &caller->cpus) == 0;
}

int caller_look(struct caller *caller, pid_t pid)
{
	ssize_t length;
	int result;

	*caller = (struct caller){ .pidfd = -1, .proc = -1 };
	caller->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	caller->proc = proc_open(pid);
	if (caller->pidfd < 0 || caller->proc < 0)
		return fail(ESRCH, "cannot look at process %d", pid);
	look_at_attributes(caller, pid);
	result = proc_read_limits(caller->proc, caller->limits);
	if (result)
		return result;
	length = read_text_at(caller->proc, "cmdline", &caller->argument_text);
	if (length <= 0)
		return fail(-length, "cannot read the command line of process %d", pid);
	caller->argument_count = split(caller->argument_text, length, &caller->arguments);
	length = read_text_at(caller->proc, "environ", &caller->environment_text);
	if (length < 0)
		return fail(-length, "cannot read the environment of process %d", pid);
	split(caller->environment_text, length, &caller->environment);
	return 0;
}

void caller_free(struct caller *caller)
{
	if (caller->pidfd >= 0)
		close(caller->pidfd);
	if (caller->proc >= 0)
		close(caller->proc);
	free(caller->arguments);
	free(caller->environment);
	free(caller->argument_text);
	free(caller->environment_text);
}

/* ---- what has to be the same ---- */

/* Changes of these could not be made, or could not be taken back. */
static const char *const equal_lines[] = { "Uid",    "Gid",    "Groups", "CapInh",     "CapPrm",
					   "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "THP_enabled" };
static const char *const equal_namespaces[] = { "ns/user", "ns/time", "ns/time_for_children" };
static const char *const equal_files[] = { "personality", "attr/current" };

static bool is_same_line(const char *ours, const char *theirs, const char *name)
{
	const char *one = proc_text_value(ours, name), *other = proc_text_value(theirs, name);

	if (!one || !other)
		return one == other;
	return strcspn(one, "\n") == strcspn(other, "\n") && !strncmp(one, other, strcspn(one, "\n"));
}

static bool has_filter(const char *status)
{
	uint64_t mode = 0;

	return proc_text_number(status, "Seccomp", 10, &mode) && mode;
}

static int compare_status(int self, int proc)
{
	autofree char *ours = NULL, *theirs = NULL;

	if (read_text_at(self, "status", &ours) < 0 || read_text_at(proc, "status", &theirs) < 0)
		return fail(EIO, "cannot compare the credentials");
	if (has_filter(ours) || has_filter(theirs))
		return fail(EPERM, "a seccomp filter cannot be taken over");
	for (size_t i = 0; i < array_size(equal_lines); i++)
		if (!is_same_line(ours, theirs, equal_lines[i]))
			return fail(EPERM, "its %s differs from that of the process that holds the memory",
				    equal_lines[i]);
	return 0;
}

static bool is_same_namespace(int self, int proc, const char *name)
{
	struct stat ours, theirs;

	return fstatat(self, name, &ours, 0) < 0 || fstatat(proc, name, &theirs, 0) < 0 ||
	       ours.st_ino == theirs.st_ino;
}

static bool is_same_text(int self, int proc, const char *name)
{
	autofree char *ours = NULL, *theirs = NULL;
	ssize_t our_length = read_text_at(self, name, &ours),
		their_length = read_text_at(proc, name, &theirs);

	return our_length < 0 || their_length < 0 || !strcmp(ours, theirs);
}

static int compare(const struct caller *caller, int self)
{
	int result = compare_status(self, caller->proc);

	for (size_t i = 0; !result && i < array_size(equal_namespaces); i++)
		if (!is_same_namespace(self, caller->proc, equal_namespaces[i]))
			result =
				fail(EPERM,
				     "it is in another namespace (%s) than the process that holds the memory",
				     equal_namespaces[i]);
	for (size_t i = 0; !result && i < array_size(equal_files); i++)
		if (!is_same_text(self, caller->proc, equal_files[i]))
			result = fail(EPERM, "its %s differs from that of the process that holds the memory",
				      equal_files[i]);
	if (!result && caller->limits[RLIMIT_AS].rlim_cur != RLIM_INFINITY)
		result = fail(EPERM,
			      "its address space is limited, and the memory that is held would count, too");
	if (!result && caller->policy != sched_getscheduler(0))
		result = fail(EPERM,
			      "its scheduling policy differs from that of the process that holds the memory");
	return result;
}

/* ---- cgroups and namespaces ---- */

static int join_cgroup(const struct cgroup_place *place)
{
	autoclose int root = cgroup_open_root(place->hierarchy);
	autoclose int fd = root < 0 ? root : cgroup_open_file(root, place->path, "cgroup.procs", O_WRONLY);
	int result = fd < 0 ? fd : write_all(fd, "0", 1);

	return result ? fail(-result, "cannot join its cgroup %s", place->path) : 0;
}

static int join_cgroups(const struct caller *caller, int self)
{
	autofree char *ours = NULL, *theirs = NULL;
	struct cgroup_places places = { 0 };
	int result;

	if (read_text_at(self, "cgroup", &ours) < 0 || read_text_at(caller->proc, "cgroup", &theirs) < 0 ||
	    !strcmp(ours, theirs))
		return 0;
	result = cgroups_parse(theirs, &places);
	for (size_t i = 0; !result && i < places.count; i++)
		result = join_cgroup(&places.items[i]);
	cgroup_places_free(&places);
	return result;
}

int caller_enter_pids(const struct caller *caller)
{
	autoclose int fd = openat(caller->proc, "ns/pid_for_children", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWPID) < 0)
		return fail(errno, "cannot enter its pid namespace");
	return 0;
}

static int join_namespaces(const struct caller *caller, int self)
{
	static const struct {
		const char *name;
		int flag;
	} all[] = { { "ns/mnt", CLONE_NEWNS },
		    { "ns/net", CLONE_NEWNET },
		    { "ns/uts", CLONE_NEWUTS },
		    { "ns/ipc", CLONE_NEWIPC },
		    { "ns/cgroup", CLONE_NEWCGROUP } };
	autoclose int root = openat(caller->proc, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	autoclose int cwd = openat(caller->proc, "cwd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int differing = 0;

	for (size_t i = 0; i < array_size(all); i++)
		if (!is_same_namespace(self, caller->proc, all[i].name))
			differing |= all[i].flag;
	if (differing && setns(caller->pidfd, differing) < 0)
		return fail(errno, "cannot enter its namespaces");
	if (root < 0 || cwd < 0 || fchdir(root) < 0 || chroot(".") < 0 || fchdir(cwd) < 0)
		return fail(errno, "cannot enter its directories");
	return 0;
}

/* ---- attributes ---- */

static sigset_t signals_in(const char *status, const char *name)
{
	uint64_t mask = 0;
	sigset_t set;

	proc_text_number(status, name, 16, &mask);
	sigemptyset(&set);
	for (int number = 1; number <= 64; number++)
		if (mask >> (number - 1) & 1)
			sigaddset(&set, number);
	return set;
}

/* As exec() would have passed them on. What criu itself has changed in both is changed again by the restore. */
static void take_signals(const char *status)
{
	sigset_t blocked = signals_in(status, "SigBlk"), ignored = signals_in(status, "SigIgn");

	for (int number = 1; number <= 64; number++)
		if (number != SIGKILL && number != SIGSTOP)
			signal(number, sigismember(&ignored, number) == 1 ? SIG_IGN : SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	signal(SIGXFSZ, SIG_IGN);
	/* It tells that the caller has ended: holder.c. */
	signal(SIGTERM, SIG_DFL);
	sigdelset(&blocked, SIGTERM);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
}

static int take_attributes(const struct caller *caller, int self)
{
	autofree char *status = NULL, *adjustment = NULL;
	uint64_t mask = 022;

	if (read_text_at(caller->proc, "status", &status) < 0)
		return fail(ESRCH, "it has ended");
	proc_text_number(status, "Umask", 8, &mask);
	umask((mode_t)mask);
	if (caller->has_cpus)
		ignore(sched_setaffinity(0, sizeof(caller->cpus), &caller->cpus));
	ignore(setpriority(PRIO_PROCESS, 0, caller->nice));
	if (read_text_at(caller->proc, "oom_score_adj", &adjustment) > 0)
		ignore(write_text_at(self, "oom_score_adj", adjustment));
	take_signals(status);
	return 0;
}

/* ---- descriptors ---- */

struct taken {
	int number, here;
};

/* What the caller has opened for itself is not passed on: it is closed at exec(). */
static bool is_passed_on(const struct caller *caller, int number)
{
	struct proc_fdinfo info;

	if (attempted(proc_read_fdinfo(caller->proc, number, &info)))
		return false;
	free(info.rest);
	return !(info.flags & O_CLOEXEC);
}

static int list_passed_on(const struct caller *caller, struct taken **taken, size_t *count)
{
	autofree int *fds = NULL;
	size_t all = 0;
	int result = proc_read_descriptors(caller->proc, &fds, &all);

	for (size_t i = 0; !result && i < all; i++)
		if (is_passed_on(caller, fds[i]))
			*grow(taken, count) = (struct taken){ fds[i], -1 };
	return result ? fail(-result, "cannot list its descriptors") : 0;
}

/* The next descriptor gets a number from `least` on. */
static int move_up(int *fd, int least)
{
	int moved = fcntl(*fd, F_DUPFD_CLOEXEC, least);

	if (moved < 0)
		return fail(errno, "cannot take over its descriptors");
	close(*fd);
	*fd = moved;
	return 0;
}

/* Above all numbers that are in use here, or by the caller. Both lists are sorted. */
static int find_unused(int self, const struct taken *taken, size_t count, int *unused_number)
{
	autofree int *own = NULL;
	size_t own_count = 0;
	int result = proc_read_descriptors(self, &own, &own_count), highest = STDERR_FILENO;

	if (!result && own_count)
		highest = max(highest, own[own_count - 1]);
	if (count)
		highest = max(highest, taken[count - 1].number);
	*unused_number = highest + 1;
	return result ? fail(-result, "cannot list descriptors") : 0;
}

/* Nothing of the holder stays open: neither its socket nor the lock of the images. */
static int take_descriptors(const struct caller *caller, int self, int *connection)
{
	autofree struct taken *taken = NULL;
	size_t count = 0;
	int least, result = list_passed_on(caller, &taken, &count);

	result = result ?: find_unused(self, taken, count, &least) ?: move_up(connection, least);
	for (size_t i = 0; !result && i < count; i++) {
		taken[i].here = (int)syscall(SYS_pidfd_getfd, caller->pidfd, taken[i].number, 0);
		result = taken[i].here < 0 ?
				 fail(errno, "cannot take over its descriptor %d", taken[i].number) :
				 move_up(&taken[i].here, least);
	}
	if (result)
		return result;
	close_range(0, (unsigned)least - 1, 0);
	descriptors_hold_standard();
	for (size_t i = 0; i < count; i++) {
		if (dup2(taken[i].here, taken[i].number) < 0)
			return fail(errno, "cannot take over its descriptor %d", taken[i].number);
		close(taken[i].here);
	}
	return 0;
}

static int take_limits(const struct caller *caller)
{
	for (int resource = 0; resource < RLIM_NLIMITS; resource++)
		if (setrlimit(resource, &caller->limits[resource]) < 0)
			return fail(errno, "cannot take over its resource limit %d", resource);
	return 0;
}

/* ---- all ---- */

int caller_adopt(const struct caller *caller, int *connection)
{
	/* Not by its pid, which is that in the pid namespace of the caller. */
	int self = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* take_descriptors() closes it */
	struct rlimit before;						   /* replaced by the caller's */
	int result;

	if (self < 0)
		return fail(errno, "cannot open /proc/self");
	descriptors_unlimit(&before);
	result = compare(caller, self)		       ?:
			 join_cgroups(caller, self)    ?:
			 take_attributes(caller, self) ?:
							 join_namespaces(caller, self);
	setsid();
	return result ?: take_descriptors(caller, self, connection) ?: take_limits(caller);
}
