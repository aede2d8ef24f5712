/*
 * proc.c - parsers for the small texts of /proc/PID, and readers that feed them.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "kernel/proc.h"

#define MOST_PARENTS 64 /* threads whose children proc_read_most_children() lists */

int proc_open(pid_t pid)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int read_proc_text(int proc, const char *name, char **text)
{
	ssize_t length = read_record_at(proc, name, text);

	return length < 0 ? fail(-length, "cannot read /proc/PID/%s", name) : 0;
}

/* By its path: to open and close the directory of a thread takes longer than a longer path. */
static int read_thread_text(int proc, pid_t tid, const char *name, char **text)
{
	char path[64];

	snprintf(path, sizeof(path), "task/%d/%s", tid, name);
	return read_proc_text(proc, path, text);
}

int proc_parse_stat(const char *text, struct proc_stat *stat)
{
	/* The name can contain anything, even ')': the fields begin behind the last one. */
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	unsigned long long field[53] = { 0 };
	const char *at;
	int number = 4;

	memset(stat, 0, sizeof(*stat));
	if (!open || !close || close < open || close - open - 1 >= (int)sizeof(stat->comm) || close[1] != ' ')
		return fail(EINVAL, "cannot understand /proc/PID/stat: %.60s", text);
	stat->pid = strtol(text, NULL, 10);
	memcpy(stat->comm, open + 1, close - open - 1);
	stat->state = close[2];
	for (at = close + 3; number <= 52; number++) {
		char *end;

		field[number] = strtoull(at, &end, 10); /* accepts a leading '-' */
		if (end == at)
			break;
		at = end;
	}
	if (number <= 24)
		return fail(EINVAL, "cannot understand /proc/PID/stat: %.60s", text);
	stat->parent = field[4];
	stat->group = field[5];
	stat->session = field[6];
	stat->terminal = field[7];
	stat->foreground = field[8];
	stat->flags = field[9];
	stat->start_time = field[22];
	stat->start_code = field[26];
	stat->end_code = field[27];
	stat->start_stack = field[28];
	stat->exit_signal = field[38];
	stat->start_data = field[45];
	stat->end_data = field[46];
	stat->start_brk = field[47];
	stat->arg_start = field[48];
	stat->arg_end = field[49];
	stat->env_start = field[50];
	stat->env_end = field[51];
	stat->exit_code = field[52];
	return 0;
}

int proc_read_stat(int proc, struct proc_stat *stat)
{
	autofree char *text = NULL;
	int result = read_proc_text(proc, "stat", &text);

	return result ? result : proc_parse_stat(text, stat);
}

int proc_read_thread_stat(int proc, pid_t tid, struct proc_stat *stat)
{
	autofree char *text = NULL;
	int result = read_thread_text(proc, tid, "stat", &text);

	return result ? result : proc_parse_stat(text, stat);
}

/*
 * Finds values in the order of the lines, so the text is read once. A line that is elsewhere, or nowhere, is looked
 * for in all of the text.
 */
struct status_text {
	const char *text, *at; /* `at`: the end of the line that was found last */
};

static const char *status_value(struct status_text *status, const char *name)
{
	const char *value = proc_text_value(status->at, name) ?: proc_text_value(status->text, name);

	if (value)
		status->at = strchrnul(value, '\n');
	return value;
}

static uint64_t status_number(struct status_text *status, const char *name, int base)
{
	const char *value = status_value(status, name);

	return value ? strtoull(value, NULL, base) : 0;
}

static void parse_groups(struct status_text *text, struct proc_status *status)
{
	const char *value = status_value(text, "Groups");

	while (value && isdigit((unsigned char)*value)) {
		char *end;

		*grow(&status->groups, &status->group_count) = strtoul(value, &end, 10);
		value = end + strspn(end, " \t");
	}
}

/* The real, effective, saved and file system's id. */
static int parse_ids(struct status_text *status, const char *name, unsigned ids[4])
{
	const char *value = status_value(status, name);
	char *end;

	for (int i = 0; i < 4; i++) {
		ids[i] = value ? strtoul(value, &end, 10) : 0;
		if (!value || end == value)
			return fail(EINVAL, "cannot understand the %s line of /proc/PID/status", name);
		value = end;
	}
	return 0;
}

int proc_parse_status(const char *text, struct proc_status *status)
{
	struct status_text at = { text, text };
	const char *state;

	memset(status, 0, sizeof(*status));
	status->umask = status_number(&at, "Umask", 8);
	state = status_value(&at, "State");
	status->state = state ? *state : '?';
	status->group_leader = status_number(&at, "Tgid", 10);
	if (parse_ids(&at, "Uid", status->uid) || parse_ids(&at, "Gid", status->gid))
		return -EINVAL;
	parse_groups(&at, status);
	status->threads = status_number(&at, "Threads", 10);
	status->inheritable = status_number(&at, "CapInh", 16);
	status->permitted = status_number(&at, "CapPrm", 16);
	status->effective = status_number(&at, "CapEff", 16);
	status->bounding = status_number(&at, "CapBnd", 16);
	status->ambient = status_number(&at, "CapAmb", 16);
	status->no_new_privileges = status_number(&at, "NoNewPrivs", 10);
	status->seccomp = status_number(&at, "Seccomp", 10);
	return 0;
}

int proc_read_status(int proc, struct proc_status *status)
{
	autofree char *text = NULL;
	int result = read_proc_text(proc, "status", &text);

	return result ? result : proc_parse_status(text, status);
}

int proc_read_thread_status(int proc, pid_t tid, struct proc_status *status)
{
	autofree char *text = NULL;
	int result = read_thread_text(proc, tid, "status", &text);

	return result ? result : proc_parse_status(text, status);
}

void proc_status_free(struct proc_status *status)
{
	free(status->groups);
	status->groups = NULL;
	status->group_count = 0;
}

/* "NSpid:\t4722\t9\t1" */
int proc_parse_levels(const char *text, const char *name, struct pid_levels *levels)
{
	const char *at = proc_text_value(text, name);
	char *end;

	for (levels->count = 0; at && isdigit((unsigned char)*at); at = end + strspn(end, " \t")) {
		unsigned long id = strtoul(at, &end, 10);

		if (levels->count == array_size(levels->ids) || id > INT32_MAX)
			break;
		levels->ids[levels->count++] = id;
	}
	return levels->count && (!*at || *at == '\n') ?
		       0 :
		       fail(EINVAL, "cannot understand the %s line of /proc/PID/status", name);
}

/* In the order of the file; the numbers are those of <sys/resource.h>. */
static const struct {
	const char *name;
	int resource;
} limit_names[] = {
	{ "Max cpu time", RLIMIT_CPU },
	{ "Max file size", RLIMIT_FSIZE },
	{ "Max data size", RLIMIT_DATA },
	{ "Max stack size", RLIMIT_STACK },
	{ "Max core file size", RLIMIT_CORE },
	{ "Max resident set", RLIMIT_RSS },
	{ "Max processes", RLIMIT_NPROC },
	{ "Max open files", RLIMIT_NOFILE },
	{ "Max locked memory", RLIMIT_MEMLOCK },
	{ "Max address space", RLIMIT_AS },
	{ "Max file locks", RLIMIT_LOCKS },
	{ "Max pending signals", RLIMIT_SIGPENDING },
	{ "Max msgqueue size", RLIMIT_MSGQUEUE },
	{ "Max nice priority", RLIMIT_NICE },
	{ "Max realtime priority", RLIMIT_RTPRIO },
	{ "Max realtime timeout", RLIMIT_RTTIME },
};

const char *proc_limit_name(int resource)
{
	for (size_t i = 0; i < array_size(limit_names); i++)
		if (limit_names[i].resource == resource)
			return limit_names[i].name;
	return "unknown";
}

static const char *parse_limit(const char *text, rlim_t *limit)
{
	char *end;

	text += strspn(text, " ");
	if (!strncmp(text, "unlimited", 9)) {
		*limit = RLIM_INFINITY;
		return text + 9;
	}
	*limit = strtoull(text, &end, 10);
	return end == text ? NULL : end;
}

int proc_parse_limits(const char *text, struct rlimit limits[RLIM_NLIMITS])
{
	for (size_t i = 0; i < array_size(limit_names); i++) {
		struct rlimit *limit = &limits[limit_names[i].resource];
		const char *at = strstr(text, limit_names[i].name);

		at = at ? parse_limit(at + strlen(limit_names[i].name), &limit->rlim_cur) : NULL;
		if (!at || !parse_limit(at, &limit->rlim_max))
			return fail(EINVAL, "cannot understand /proc/PID/limits: no '%s'",
				    limit_names[i].name);
	}
	return 0;
}

int proc_read_limits(int proc, struct rlimit limits[RLIM_NLIMITS])
{
	autofree char *text = NULL;
	int result = read_proc_text(proc, "limits", &text);

	return result ? result : proc_parse_limits(text, limits);
}

/* Reads the numbers in a directory, relative to `proc`. */
static int read_number_names(int proc, const char *name, pid_t **ids, size_t *count)
{
	int fd = openat(proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *directory;

	if (fd < 0)
		return -errno;
	directory = fdopendir(fd);
	if (!directory) {
		close(fd);
		return fail(ENOMEM, "cannot list %s", name);
	}
	while ((entry = readdir(directory)))
		if (isdigit((unsigned char)entry->d_name[0]))
			*grow(ids, count) = strtol(entry->d_name, NULL, 10);
	closedir(directory);
	return 0;
}

int proc_read_threads(int proc, pid_t **ids, size_t *count)
{
	return read_number_names(proc, "task", ids, count);
}

int proc_read_descriptors(int proc, int **fds, size_t *count)
{
	return read_number_names(proc, "fd", fds, count);
}

int proc_read_pids(pid_t **ids, size_t *count)
{
	return read_number_names(AT_FDCWD, "/proc", ids, count);
}

static int read_children(int proc, size_t most_threads, pid_t **ids, size_t *count)
{
	autofree pid_t *threads = NULL;
	size_t thread_count = 0;
	int result = proc_read_threads(proc, &threads, &thread_count);

	thread_count = min(thread_count, most_threads);

	/* Each thread lists the children that it forked itself (CONFIG_PROC_CHILDREN). */
	for (size_t i = 0; !result && i < thread_count; i++) {
		autofree char *text = NULL;
		char path[48], *at, *end;
		ssize_t length;

		snprintf(path, sizeof(path), "task/%d/children", threads[i]);
		length = read_text_at(proc, path, &text);
		if (length < 0) {
			if (faccessat(proc, "stat", F_OK, 0) == 0 && length == -ENOENT &&
			    threads[i] == threads[0])
				return fail(-length,
					    "cannot list children: this kernel lacks CONFIG_PROC_CHILDREN");
			continue; /* the thread has ended meanwhile */
		}
		for (at = text; *at; at = end + strspn(end, " \n")) {
			pid_t child = strtol(at, &end, 10);

			if (end == at)
				break;
			*grow(ids, count) = child;
		}
	}
	return result;
}

int proc_read_children(int proc, pid_t **ids, size_t *count)
{
	return read_children(proc, SIZE_MAX, ids, count);
}

int proc_read_most_children(int proc, pid_t **ids, size_t *count)
{
	return read_children(proc, MOST_PARENTS, ids, count);
}

int proc_parse_fdinfo(struct proc_fdinfo *info)
{
	const char *position = proc_text_value(info->rest, "pos"),
		   *flags = proc_text_value(info->rest, "flags"),
		   *mount = proc_text_value(info->rest, "mnt_id");

	if (!position || !flags)
		return fail(EINVAL, "cannot understand /proc/PID/fdinfo: %.60s", info->rest);
	info->position = strtoll(position, NULL, 10);
	info->flags = strtoul(flags, NULL, 8);
	info->mount = mount ? strtol(mount, NULL, 10) : -1;
	return 0;
}

int proc_read_fdinfo(int proc, int fd, struct proc_fdinfo *info)
{
	char path[32];
	ssize_t length;

	memset(info, 0, sizeof(*info));
	snprintf(path, sizeof(path), "fdinfo/%d", fd);
	length = read_record_at(proc, path, &info->rest);
	if (length < 0)
		return fail(-length, "cannot read /proc/PID/%s", path);
	return proc_parse_fdinfo(info);
}

int proc_read_number(int proc, const char *name, int base, long long *number)
{
	autofree char *text = NULL;
	ssize_t length = read_text_at(proc, name, &text);

	if (length < 0)
		return length;
	*number = strtoll(text, NULL, base);
	return 0;
}

static const char deleted[] = " (deleted)";

bool proc_link_is_deleted(const char *link)
{
	size_t length = strlen(link), suffix = strlen(deleted);

	return length > suffix && !strcmp(link + length - suffix, deleted);
}

char *proc_link_path(const char *link)
{
	char *path = copy_text(link);

	if (proc_link_is_deleted(path))
		path[strlen(path) - strlen(deleted)] = '\0';
	return path;
}
