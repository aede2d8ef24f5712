/*
 * cgroups.c - a process, its child and a thread of each, in cgroups that the harness has created. Their cgroups must
 * not change.
 *
 * usage: cgroups DIRECTORY
 *
 * A line of the file `places` in the directory is WHO and the directory of a cgroup. `process` and `child` move there
 * with all threads (cgroup.procs); `thread`, the process's second one, moves alone (tasks; in version 2
 * cgroup.threads).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define MEMORY (8 << 20) /* of the process, for the test that looks at the charge */

static atomic_bool thread_is_there;
static atomic_int *child_is_there; /* shared */

static void write_id(const char *group, const char *file, pid_t id)
{
	char path[4096], text[16];
	int length = snprintf(text, sizeof(text), "%d", id);

	snprintf(path, sizeof(path), "%s/%s", group, file);
	int fd = open(path, O_WRONLY);
	live_check(fd >= 0 && write(fd, text, length) == length, "%s: %m", path);
	close(fd);
}

static void join(const char *who, const char *group)
{
	char threads[4096];

	if (strcmp(who, "thread") != 0) {
		write_id(group, "cgroup.procs", getpid());
		return;
	}
	snprintf(threads, sizeof(threads), "%s/cgroup.threads", group);
	write_id(group, access(threads, F_OK) == 0 ? "cgroup.threads" : "tasks", gettid());
}

static void join_all(const char *who)
{
	char path[4096], line[4096], name[16], group[4000];

	live_path(path, sizeof(path), "places");
	FILE *file = fopen(path, "re");
	live_check(file, "%s: %m", path);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%15s %3999s", name, group) == 2 && !strcmp(name, who))
			join(who, group);
	fclose(file);
}

/* Called before the program is ready and after SIGTERM, never in between: an open file of /proc cannot be dumped. */
static void read_places(char *text, size_t size)
{
	int fd = open("/proc/thread-self/cgroup", O_RDONLY | O_CLOEXEC);
	ssize_t length = read(fd, text, size - 1);

	live_check(length > 0, "/proc/thread-self/cgroup: %m");
	text[length] = '\0';
	close(fd);
}

static void stay(const char *who, const char *before)
{
	char now[4096];

	read_places(now, sizeof(now));
	live_check(!strcmp(now, before), "the %s is in other cgroups:\n%s\nnot in\n%s", who, now, before);
}

static void *thread(void *unused)
{
	char before[4096];

	(void)unused;
	join_all("thread");
	read_places(before, sizeof(before));
	thread_is_there = true;
	while (!live_stopping())
		live_sleep(0.01);
	stay("thread", before);
	return NULL;
}

static void child(void)
{
	char before[4096];

	join_all("child");
	read_places(before, sizeof(before));
	*child_is_there = 1;
	live_wait_stop();
	stay("child", before);
}

int main(int argc, char **argv)
{
	static char memory[MEMORY];
	char before[4096];
	pthread_t other;

	live_begin(argc, argv);
	child_is_there = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	join_all("process");
	pid_t pid = live_fork(child);
	live_check(pthread_create(&other, NULL, thread, NULL) == 0, "pthread_create");
	while (!thread_is_there || !*child_is_there)
		live_sleep(0.01);
	live_fill(memory, sizeof(memory), 1);
	read_places(before, sizeof(before));
	live_ready();
	live_wait_stop();
	stay("process", before);
	live_compare(memory, sizeof(memory), 1, "the memory");
	live_join(pid);
	pthread_join(other, NULL);
	return live_finish();
}
