/*
 * anonymous_names.c - names of anonymous memory (prctl(PR_SET_VMA_ANON_NAME), Linux 5.17): afterwards
 * /proc/self/smaps has them at the same addresses. A child that has renamed inherited memory keeps its own name for it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "live.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#define SIZE (64UL << 10)

static char *named, *renamed, *unnamed, *part;
static bool is_child;

static char *map(void)
{
	char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			    -1, 0);

	live_check(memory != MAP_FAILED, "mmap: %m");
	mprotect(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096,
		 PROT_NONE); /* so that the kernel merges no two mappings */
	live_fill(memory, SIZE, 1);
	return memory;
}

static void name(char *memory, size_t size, const char *text)
{
	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, size, text) < 0)
		live_skip("this kernel has no names of anonymous memory");
}

static void expect(char *memory, size_t size, const char *text)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char line[512], found[256];

	while (fgets(line, sizeof(line), maps)) {
		found[0] = '\0';
		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %255[^\n]", &start, &end, found) < 2 ||
		    end <= (unsigned long)memory || start >= (unsigned long)memory + size)
			continue;
		live_check(strcmp(found, text) == 0, "%lx is called \"%s\", not \"%s\"", start, found, text);
	}
	fclose(maps);
}

static void verify(void)
{
	expect(named, SIZE, "[anon:plain name, with = signs]");
	expect(part, SIZE / 2, "");
	expect(part + SIZE / 2, SIZE / 2, "[anon:the upper half]");
	expect(renamed, SIZE, is_child ? "[anon:of the child]" : "[anon:of the parent]");
	expect(unnamed, SIZE, is_child ? "" : "[anon:of the parent alone]");
	live_compare(named, SIZE, 1, "named memory");
}

static void live_on(void)
{
	/* Not in a loop: a dump would find /proc/self/smaps open. */
	live_wait_stop();
	verify();
}

static void child(void)
{
	is_child = true;
	name(renamed, SIZE, "of the child");
	name(unnamed, SIZE, NULL);
	live_on();
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	named = map();
	name(named, SIZE, "plain name, with = signs");
	part = map();
	name(part + SIZE / 2, SIZE / 2, "the upper half");
	renamed = map();
	name(renamed, SIZE, "of the parent");
	unnamed = map();
	name(unnamed, SIZE, "of the parent alone");
	pid_t pid = live_fork(child);
	live_sleep(0.1);
	live_ready();
	live_on();
	live_join(pid);
	return live_finish();
}
