/*
 * vdso.c - reads the clocks through the kernel's vdso, over and over: they must agree with the system calls and never
 * go back. With `none`, the program unmaps the vdso first and uses only system calls.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

static int (*vdso_getcpu)(unsigned *cpu, unsigned *node, void *unused);
static time_t (*vdso_time)(time_t *time);

/* Finds a function of the vdso without libc. The pointer must still work after the restore. */
static void *find(const char *wanted)
{
	const char *base = (const char *)getauxval(AT_SYSINFO_EHDR);
	const ElfW(Ehdr) *header = (const void *)base;
	const ElfW(Phdr) *programs = (const void *)(base + header->e_phoff);
	const ElfW(Sym) *symbols = NULL;
	const char *names = NULL;

	for (int i = 0; i < header->e_phnum; i++)
		for (const ElfW(Dyn) *entry = (const void *)(base + programs[i].p_offset);
		     programs[i].p_type == PT_DYNAMIC && entry->d_tag != DT_NULL; entry++) {
			if (entry->d_tag == DT_SYMTAB)
				symbols = (const void *)(base + entry->d_un.d_ptr);
			if (entry->d_tag == DT_STRTAB)
				names = base + entry->d_un.d_ptr;
		}
	for (int i = 1; symbols && (const char *)&symbols[i] < names; i++)
		if (strcmp(names + symbols[i].st_name, wanted) == 0)
			return (void *)(base + symbols[i].st_value);
	return NULL;
}

static double seconds(const struct timespec *time)
{
	return time->tv_sec + time->tv_nsec / 1e9;
}

static void check_clock(clockid_t clock, double slack)
{
	struct timespec before, quick, after;

	syscall(SYS_clock_gettime, clock, &before);
	clock_gettime(clock, &quick);
	syscall(SYS_clock_gettime, clock, &after);
	/* A restore happened in between: the new process has used little CPU time yet. */
	if (clock == CLOCK_PROCESS_CPUTIME_ID && seconds(&after) < seconds(&before))
		return;
	live_check(seconds(&quick) >= seconds(&before) - slack && seconds(&quick) <= seconds(&after) + slack,
		   "clock %d shows %.6f between %.6f and %.6f", clock, seconds(&quick), seconds(&before),
		   seconds(&after));
}

static void verify(void)
{
	struct timespec now, resolution;
	struct timeval day;
	unsigned cpu = ~0u;

	check_clock(CLOCK_REALTIME, 0);
	check_clock(CLOCK_MONOTONIC, 0);
	check_clock(CLOCK_BOOTTIME, 0);
	check_clock(CLOCK_MONOTONIC_COARSE, 0.02);
	check_clock(CLOCK_PROCESS_CPUTIME_ID, 0);
	live_check(clock_getres(CLOCK_MONOTONIC, &resolution) == 0 && resolution.tv_sec == 0,
		   "clock_getres: %m");
	gettimeofday(&day, NULL);
	syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
	live_check(now.tv_sec - day.tv_sec <= 1, "gettimeofday() returns %ld, the system call %ld",
		   day.tv_sec, now.tv_sec);
	live_check(now.tv_sec - time(NULL) <= 1 && now.tv_sec >= time(NULL) - 1,
		   "time() returns another time");
	if (vdso_time)
		live_check(vdso_time(NULL) - now.tv_sec <= 1, "the vdso's time() returns another time");
	if (vdso_getcpu)
		live_check(vdso_getcpu(&cpu, NULL, NULL) == 0 && cpu < 4096, "getcpu returns %u", cpu);
}

static void unmap_vdso(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start[8], end[8];
	char line[512];
	int count = 0;

	while (fgets(line, sizeof(line), maps))
		if (strstr(line, "[vdso]") || strstr(line, "[vvar"))
			count += sscanf(line, "%lx-%lx", &start[count], &end[count]) == 2;
	fclose(maps);
	while (count--)
		munmap((void *)start[count], end[count] - start[count]);
}

/* From here on no function of libc that uses the vdso may be called. */
static int live_without(void)
{
	unmap_vdso();
	live_ready();
	live_wait_stop();
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	while (fgets(line, sizeof(line), maps))
		live_check(!strstr(line, "[vdso]") && !strstr(line, "[vvar"), "there is a vdso again");
	fclose(maps);
	return live_finish();
}

int main(int argc, char **argv)
{
	struct timespec last = { 0 }, now;

	live_begin(argc, argv);
	if (argc > 2 && strcmp(argv[2], "none") == 0)
		return live_without();
	vdso_getcpu = find("__vdso_getcpu");
	vdso_time = find("__vdso_time");
	live_check(vdso_getcpu && vdso_time, "this vdso has no getcpu or time");
	live_ready();
	while (!live_stopping()) {
		verify();
		clock_gettime(CLOCK_MONOTONIC, &now);
		live_check(seconds(&now) >= seconds(&last), "time goes back");
		last = now;
		live_sleep(0.001);
	}
	verify();
	return live_finish();
}
