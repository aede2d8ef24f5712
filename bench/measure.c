/*
 * measure.c - runs a command and prints its CPU time and its wall time (seconds), its peak memory (KiB) and its wait status.
 * The CPU time has that of its children that it has waited for.
 *
 * It is a separate program because the kernel also counts the memory before exec(): a command that an interpreter
 * starts would seem to need as much memory as the interpreter.
 */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static double seconds(struct timeval time)
{
	return time.tv_sec + time.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
	struct rusage usage;
	double start = now();
	int status;
	pid_t pid;

	if (argc < 2 || posix_spawn(&pid, argv[1], NULL, NULL, argv + 1, environ) != 0)
		return 2;
	if (wait4(pid, &status, 0, &usage) != pid)
		return 2;
	printf("%.6f %.6f %ld %d\n", seconds(usage.ru_utime) + seconds(usage.ru_stime), now() - start,
	       usage.ru_maxrss, status);
	return 0;
}
