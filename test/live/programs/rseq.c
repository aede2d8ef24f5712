/*
 * rseq.c - restartable sequences: in every thread the kernel still updates the area that libc has registered.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

static atomic_int stop;

static struct rseq *area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static void move_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static unsigned current_cpu(void)
{
	unsigned cpu = 0;

	syscall(SYS_getcpu, &cpu, NULL, NULL); /* libc's function would read the area */
	return cpu;
}

/* A dump may happen at any point, and the peer forgets the CPUs of a thread, so the current CPU is compared. */
static void verify(const cpu_set_t *allowed)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, allowed))
			continue;
		move_to(cpu);
		unsigned before = current_cpu(), seen = *(volatile uint32_t *)&area()->cpu_id,
			 after = current_cpu();
		if (before == after)
			live_check(seen == before, "on CPU %u the area says %u", before, seen);
	}
	sched_setaffinity(0, sizeof(*allowed), allowed);
}

static void *work(void *nothing)
{
	cpu_set_t allowed;

	sched_getaffinity(0, sizeof(allowed), &allowed);
	while (!stop) {
		verify(&allowed);
		live_sleep(0.002);
	}
	verify(&allowed);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[3];

	live_begin(argc, argv);
	if (__rseq_size == 0)
		live_skip("libc registered no restartable sequences");
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, work, NULL);
	live_ready();
	live_wait_stop();
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	return live_finish();
}
