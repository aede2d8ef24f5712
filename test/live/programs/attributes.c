/*
 * attributes.c - what else belongs to a process: one group a row.
 *
 * usage: attributes DIRECTORY limits|personality|oom|name|self|death_signal|subreaper|thp|timer_slack|core_filter|
 *	  membarrier|scheduling|affinity
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define SIZE (64 << 10)

/* Each describes its part of the process as a text; the two texts must be equal. */
static size_t add_file(char *text, size_t used, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, text + used, SIZE - used - 1);

	live_check(length >= 0, "%s: %m", path);
	close(fd);
	return used + length;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	live_check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %m", path);
	close(fd);
}

/* Only downwards: raising a hard limit needs a privilege. */
static void set_limits(void)
{
	static const int which[] = { RLIMIT_CPU,     RLIMIT_FSIZE,	RLIMIT_CORE,	 RLIMIT_NOFILE,
				     RLIMIT_MEMLOCK, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_STACK };

	for (size_t i = 0; i < sizeof(which) / sizeof(which[0]); i++) {
		struct rlimit limit;
		getrlimit(which[i], &limit);
		limit.rlim_cur = limit.rlim_cur == RLIM_INFINITY ? 1000000007 : limit.rlim_cur / 2 + 4096 * i;
		if (limit.rlim_cur > limit.rlim_max)
			limit.rlim_cur = limit.rlim_max;
		live_check(setrlimit(which[i], &limit) == 0, "setrlimit %d: %m", which[i]);
	}
}

static void describe_limits(char *text)
{
	size_t used = 0;

	for (int which = 0; which < RLIM_NLIMITS; which++) {
		struct rlimit limit;
		getrlimit(which, &limit);
		used += sprintf(text + used, "limit %d: %lx %lx\n", which, limit.rlim_cur, limit.rlim_max);
	}
}

static void set_personality(void)
{
	personality(PER_LINUX | ADDR_NO_RANDOMIZE | SHORT_INODE);
}

static void describe_personality(char *text)
{
	sprintf(text, "personality %x\n", personality(0xffffffff));
}

static void set_oom(void)
{
	write_file("/proc/self/oom_score_adj", "123");
}

static void describe_oom(char *text)
{
	add_file(text, 0, "/proc/self/oom_score_adj");
}

static void set_name(void)
{
	prctl(PR_SET_NAME, "an odd ) name\t");
}

static void describe_name(char *text)
{
	add_file(text, 0, "/proc/self/comm");
}

static void set_nothing(void)
{
}

/* What the process can read of its own beginnings: program, arguments, environment, auxiliary vector, addresses. */
static void describe_self(char *text)
{
	char stat[4096];
	size_t used = readlink("/proc/self/exe", text, PATH_MAX);

	used = add_file(text, used, "/proc/self/cmdline");
	used = add_file(text, used, "/proc/self/environ");
	char *vector = text + used;
	used = add_file(text, used, "/proc/self/auxv");
	for (char *byte = vector; byte < text + used; byte++)
		if (*byte == 0)
			*byte = '0'; /* compared as a text */
	memset(stat, 0, sizeof(stat));
	add_file(stat, 0, "/proc/self/stat");
	char *field = strrchr(stat, ')') + 2;
	for (int number = 3; field; number++) {
		char *next = strchr(field, ' ');
		if ((number >= 4 && number <= 8) || (number >= 26 && number <= 28) ||
		    (number >= 45 && number <= 51))
			used += sprintf(text + used, "\nfield %d: %.*s", number,
					next ? (int)(next - field) : (int)strlen(field), field);
		field = next ? next + 1 : NULL;
	}
	for (char *byte = text; byte < text + used; byte++)
		if (*byte == 0)
			*byte = ' ';
}

static void set_death_signal(void)
{
	prctl(PR_SET_PDEATHSIG, SIGUSR2);
}

static void describe_death_signal(char *text)
{
	int signo;

	prctl(PR_GET_PDEATHSIG, &signo);
	sprintf(text, "parent death signal %d\n", signo);
}

static void set_subreaper(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

static void describe_subreaper(char *text)
{
	int value;

	prctl(PR_GET_CHILD_SUBREAPER, &value, 0, 0, 0);
	sprintf(text, "subreaper %d\n", value);
}

static void set_thp(void)
{
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

static void describe_thp(char *text)
{
	sprintf(text, "huge pages disabled %d\n", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
}

static void set_timer_slack(void)
{
	prctl(PR_SET_TIMERSLACK, 123456);
}

static void describe_timer_slack(char *text)
{
	sprintf(text, "timer slack %d\n", prctl(PR_GET_TIMERSLACK));
}

static void set_core_filter(void)
{
	write_file("/proc/self/coredump_filter", "0x7f");
}

static void describe_core_filter(char *text)
{
	add_file(text, 0, "/proc/self/coredump_filter");
}

static void set_membarrier(void)
{
	syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

static void describe_membarrier(char *text)
{
	long result = syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);

	sprintf(text, "membarrier %ld, %s\n", result, result < 0 ? strerror(errno) : "registered");
}

static void set_scheduling(void)
{
	struct sched_param parameters = { 0 };

	sched_setscheduler(0, SCHED_BATCH, &parameters);
	setpriority(PRIO_PROCESS, 0, 7);
}

static void describe_scheduling(char *text)
{
	sprintf(text, "policy %d nice %d\n", sched_getscheduler(0), getpriority(PRIO_PROCESS, 0));
}

static void set_affinity(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void describe_affinity(char *text)
{
	cpu_set_t set;

	sched_getaffinity(0, sizeof(set), &set);
	sprintf(text, "CPUs %d, the first: %d\n", CPU_COUNT(&set), CPU_ISSET(0, &set));
}

static const struct attribute {
	const char *name;
	void (*set)(void);
	void (*describe)(char *text);
} attributes[] = {
	{ "limits", set_limits, describe_limits },
	{ "personality", set_personality, describe_personality },
	{ "oom", set_oom, describe_oom },
	{ "name", set_name, describe_name },
	{ "self", set_nothing, describe_self },
	{ "death_signal", set_death_signal, describe_death_signal },
	{ "subreaper", set_subreaper, describe_subreaper },
	{ "thp", set_thp, describe_thp },
	{ "timer_slack", set_timer_slack, describe_timer_slack },
	{ "core_filter", set_core_filter, describe_core_filter },
	{ "membarrier", set_membarrier, describe_membarrier },
	{ "scheduling", set_scheduling, describe_scheduling },
	{ "affinity", set_affinity, describe_affinity },
};

static const struct attribute *chosen;

/* A child has the attribute: the parent of a restored root may die at once, and with it what depends on a parent. */
static void have_attribute(void)
{
	static char before[SIZE], now[SIZE];

	chosen->set();
	chosen->describe(before);
	live_ready();
	live_wait_stop();
	chosen->describe(now);
	live_check(strcmp(before, now) == 0, "was:\n%s\nis:\n%s", before, now);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++)
		if (strcmp(attributes[i].name, argv[2]) == 0)
			chosen = &attributes[i];
	live_check(chosen, "no such attribute: %s", argv[2]);
	pid_t child = live_fork(have_attribute);
	live_wait_stop();
	live_join(child);
	return live_finish();
}
