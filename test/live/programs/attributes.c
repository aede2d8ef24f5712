/*
 * attributes.c - various attributes of a process; each row of the table tests one.
 *
 * usage: attributes DIRECTORY limits|personality|oom|name|self|death_signal|subreaper|thp|timer_slack|core_filter|
 *	  membarrier|scheduling|affinity|io_priority|memory_failure|time_stamps|deny_write_exec|memory_merge|realtime|
 *	  tight_limits|privileged_once|read_implies_exec
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define SIZE (64 << 10)

/* Each attribute is described as a text. The texts before and after must be equal. */
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

/* Limits are only lowered, because raising a hard limit needs a privilege. */
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

/* What /proc tells about the start of the process: program, arguments, environment, auxiliary vector, addresses. */
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
			*byte = '0'; /* because it is compared as a text */
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

static void set_io_priority(void)
{
	live_check(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6) == 0, "ioprio_set: %m");
}

static void describe_io_priority(char *text)
{
	sprintf(text, "priority of input and output %lx\n", syscall(SYS_ioprio_get, 1, 0));
}

static void set_memory_failure(void)
{
	live_check(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0, "PR_MCE_KILL: %m");
}

static void describe_memory_failure(char *text)
{
	sprintf(text, "killed of broken memory %d\n", prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
}

static void set_time_stamps(void)
{
	live_check(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0, "PR_SET_TSC: %m");
}

static void describe_time_stamps(char *text)
{
	int value;

	prctl(PR_GET_TSC, &value);
	sprintf(text, "time stamps %d\n", value);
}

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

static void set_deny_write_exec(void)
{
	if (prctl(PR_SET_MDWE, 1, 0, 0, 0) < 0)
		live_skip("no PR_SET_MDWE");
}

static void describe_deny_write_exec(char *text)
{
	sprintf(text, "write and execute denied %d\n", prctl(PR_GET_MDWE, 0, 0, 0, 0));
}

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

static char *apart;

/* All memory may be merged (KSM), except one mapping. */
static void set_memory_merge(void)
{
	if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) < 0)
		live_skip("no PR_SET_MEMORY_MERGE");
	apart = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	live_check(madvise(apart, 1 << 20, MADV_UNMERGEABLE) == 0, "madvise: %m");
}

static void describe_memory_merge(char *text)
{
	unsigned long start = 0, end = 0;
	FILE *file = fopen("/proc/self/smaps", "re");
	char line[512];
	size_t used = sprintf(text, "merges %d\n", prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0));

	while (file && fgets(line, sizeof(line), file)) {
		live_smaps_head(line, &start, &end);
		if (!strncmp(line, "VmFlags:", 8))
			used += sprintf(text + used, "%lx%s\n", start,
					strstr(line, " mg") ? " mergeable" : "");
	}
	fclose(file);
}

static void set_realtime(void)
{
	struct sched_param parameters = { .sched_priority = 5 };

	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &parameters) < 0)
		live_skip("no real-time scheduling here: %m");
}

static void describe_realtime(char *text)
{
	struct sched_param parameters;

	sched_getparam(0, &parameters);
	sprintf(text, "policy %x priority %d\n", sched_getscheduler(0), parameters.sched_priority);
}

/* It has more of some resources than its limits allow now. */
static void set_tight_limits(void)
{
	static const struct {
		int which;
		rlim_t value;
	} limits[] = {
		{ RLIMIT_STACK, 16384 }, { RLIMIT_NOFILE, 5 },	 { RLIMIT_FSIZE, 4000 },
		{ RLIMIT_NPROC, 1 },	 { RLIMIT_MEMLOCK, 0 },	 { RLIMIT_RTPRIO, 0 },
		{ RLIMIT_NICE, 0 },	 { RLIMIT_MSGQUEUE, 0 }, { RLIMIT_CORE, 0 },
	};
	static char page[4096] __attribute__((aligned(4096)));

	page[0] = 1;
	live_check(dup2(0, 60) == 60, "dup2: %m");
	live_check(mlock(page, sizeof(page)) == 0, "mlock: %m");
	setpriority(PRIO_PROCESS, 0, -5);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct rlimit limit = { limits[i].value, limits[i].value };
		live_check(setrlimit(limits[i].which, &limit) == 0, "setrlimit %d: %m", limits[i].which);
	}
}

static void describe_tight_limits(char *text)
{
	describe_limits(text);
	sprintf(text + strlen(text), "nice %d\n", getpriority(PRIO_PROCESS, 0));
}

/* A process of an ordinary user that was privileged when it got its priority. */
static void set_privileged_once(void)
{
	live_check(setpriority(PRIO_PROCESS, 0, -5) == 0, "setpriority: %m");
	live_check(syscall(SYS_ioprio_set, 1, 0, 1 << 13 | 3) == 0, "ioprio_set: %m");
	live_check(chmod(live_directory, 0777) == 0, "chmod: %m");
	live_check(setgroups(0, NULL) == 0 && setresgid(65534, 65534, 65534) == 0 &&
			   setresuid(65534, 65534, 65534) == 0,
		   "setresuid: %m");
	prctl(PR_SET_DUMPABLE, 1);
}

static void describe_privileged_once(char *text)
{
	sprintf(text, "user %d group %d nice %d, input and output %lx, dumpable %d\n", getuid(), getgid(),
		getpriority(PRIO_PROCESS, 0), syscall(SYS_ioprio_get, 1, 0), prctl(PR_GET_DUMPABLE));
}

/* Memory that is mapped readable is executable, too: a mapping that it makes shows that. */
static void set_read_implies_exec(void)
{
	live_check(personality(READ_IMPLIES_EXEC | ADDR_COMPAT_LAYOUT) >= 0, "personality: %m");
}

static void describe_read_implies_exec(char *text)
{
	char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t used = sprintf(text, "personality %x\n", personality(0xffffffff));
	char maps[SIZE] = "", start[32], *line;

	add_file(maps, 0, "/proc/self/maps");
	snprintf(start, sizeof(start), "%lx-", (unsigned long)page);
	line = strstr(maps, start);
	sprintf(text + used, "a new page: %.4s\n", line ? strchr(line, ' ') + 1 : "?");
	munmap(page, 4096);
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
	{ "io_priority", set_io_priority, describe_io_priority },
	{ "memory_failure", set_memory_failure, describe_memory_failure },
	{ "time_stamps", set_time_stamps, describe_time_stamps },
	{ "deny_write_exec", set_deny_write_exec, describe_deny_write_exec },
	{ "memory_merge", set_memory_merge, describe_memory_merge },
	{ "realtime", set_realtime, describe_realtime },
	{ "tight_limits", set_tight_limits, describe_tight_limits },
	{ "read_implies_exec", set_read_implies_exec, describe_read_implies_exec },
	{ "privileged_once", set_privileged_once, describe_privileged_once },
};

static const struct attribute *chosen;

/* Runs in a child, whose parent stays. The parent of a restored root may end at once; some attributes react to that. */
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
	chosen = live_choose(attributes, argv[2]);
	pid_t child = live_fork(have_attribute);
	live_wait_stop();
	live_join(child);
	return live_finish();
}
