/* leaderless.c - a child whose first thread has ended while another lives on. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "live.h"

static void *live_on(void *nothing)
{
	for (;;)
		pause();
	return nothing;
}

static void lose_leader(void)
{
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	live_check(pthread_create(&thread, NULL, live_on, NULL) == 0, "pthread_create: %m");
	pthread_exit(NULL);
}

static char state_of(pid_t pid)
{
	char path[64], text[512] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	live_check(file && fread(text, 1, sizeof(text) - 1, file) > 0, "%s: %m", path);
	fclose(file);
	return strrchr(text, ')')[2];
}

int main(int argc, char **argv)
{
	pid_t child;

	live_begin(argc, argv);
	child = live_fork(lose_leader);
	while (state_of(child) != 'Z')
		live_sleep(0.01);
	live_ready();
	live_wait_stop();
	return live_finish();
}
