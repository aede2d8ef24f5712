/*
 * probes.c - probes of what a kernel does for x86-64 only: breakpoints, and mapping a vdso. They run in a child; see
 * kernel/probe.h.
 */
#include <asm/prctl.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/io.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "kernel/probe_tests.h"

static __attribute__((noinline)) void step_on_breakpoint(void)
{
	__asm__ volatile("");
}

static void stop_then_step(void)
{
	if (ptrace(PTRACE_TRACEME, 0, 0, 0) == 0) {
		raise(SIGSTOP);
		step_on_breakpoint();
	}
}

/* The debug registers: 0 holds the address, bit 0 of 7 switches it on. */
bool probe_breakpoints(int unused_argument unused)
{
	pid_t child = probe_fork(stop_then_step);
	int status = 0;
	bool works;

	works = child > 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
		ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[0]), step_on_breakpoint) ==
			0 &&
		ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[7]), 1) == 0 &&
		ptrace(PTRACE_CONT, child, 0, 0) == 0 && waitpid(child, &status, 0) == child &&
		WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
	probe_end(child);
	return works;
}

/* The kernel maps a vdso only if there is none, so this one is unmapped first. No clock may be read after that. */
static bool unmap_vdso(void)
{
	autofree char *maps = NULL;
	bool found = false;

	if (read_text_at(AT_FDCWD, "/proc/self/maps", &maps) < 0)
		return false;
	for (char *line = maps, *next; line && *line; line = next) {
		struct map_line map;

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (!map_line_parse(line, &map))
			return false;
		if (strcmp(map.name, "[vdso]") && strncmp(map.name, "[vvar", 5))
			continue;
		found = munmap((void *)map.start, map.end - map.start) == 0;
	}
	return found;
}

bool probe_map_vdso(int bits)
{
	/* An address range that is certainly free, and below 4 GiB. */
	void *room = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (room == MAP_FAILED || munmap(room, 1 << 20) || !unmap_vdso())
		return false;
	return syscall(SYS_arch_prctl, bits == 32 ? ARCH_MAP_VDSO_32 : ARCH_MAP_VDSO_64, room) > 0;
}
