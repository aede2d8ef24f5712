/*
 * infect.c - inserts the parasite into a frozen process and removes it again.
 *
 * All of this happens in one thread, the borrowed one. Its states between two steps, and what happens if criu dies
 * there (invariant 1 of compel.h):
 *
 *	1  its own registers                  nothing happened; bytes below its red zone changed
 *	2  at mmap(), chain on its stack      maps the region, unmaps it, goes home
 *	3  behind mmap()                      unmaps the region, goes home
 *	4  at `bail` in the region, or in a call that leads there, or serving
 *	                                      closes the sockets, writes its way home, unmaps the region, goes home
 *	5  at munmap(), chain on its stack    unmaps the region, goes home
 *	6  its own registers
 */
#include <errno.h>
#include <linux/mman.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "internal.h"
#include "parasite.h"

struct traced_thread *borrowed_thread(const struct victim *victim)
{
	return &victim->threads[victim->infection->index];
}

/* Chooses the thread whose stack is the safest place for some bytes: the leader, or another with much space below. */
static size_t choose_thread(const struct victim *victim, const struct maps *maps)
{
	size_t best = 0;
	int best_score = -1;

	for (size_t index = 0; index < victim->thread_count; index++) {
		uint64_t sp = arch_stack_pointer(&victim->threads[index].context.registers);
		const struct map *map = maps_find(maps, sp);
		bool has_room = map && map->writable && sp - map->start >= FRAME_ROOM;
		int score = !has_room ? 0 : map->is_stack ? 3 : !map->inode ? 2 : 1;

		if (score > best_score) {
			best_score = score;
			best = index;
		}
	}
	return best;
}

static int check_seccomp(const struct victim *victim)
{
	for (size_t index = 0; index < victim->thread_count; index++) {
		const struct traced_thread *thread = &victim->threads[index];
		autofree char *status = NULL;
		uint64_t mode = 0;

		if (thread->options & PTRACE_O_SUSPEND_SECCOMP ||
		    read_proc(thread->tid, "status", &status) < 0 ||
		    !proc_text_number(status, "Seccomp", 10, &mode) || !mode)
			continue;
		fail(EPERM, "thread %d has a seccomp filter, and it cannot be suspended", thread->tid);
		fail_advice("run criu with CAP_SYS_ADMIN, and not under a seccomp filter itself");
		return -EPERM;
	}
	return 0;
}

/* Sets two registers of the borrowed thread; the rest stays the same. */
int set_place(struct traced_thread *thread, uint64_t ip, uint64_t sp)
{
	struct arch_registers registers = thread->context.registers;
	int result;

	arch_prepare_jump(&registers, ip, sp);
	result = set_registers(thread, &registers);
	return result < 0 ? fail(-result, "cannot set the registers of thread %d", thread->tid) : 0;
}

/* Makes a call with the task's own code and a chain on its stack; from here on all signals are blocked. */
static int call_from_stack(struct victim *victim, const uint64_t *chain, size_t words, long number,
			   const uint64_t arguments[6], long *value)
{
	struct infection *infection = victim->infection;
	struct traced_thread *thread = borrowed_thread(victim);
	struct arch_registers registers = thread->context.registers;
	uint64_t sp;
	int result = home_write(&infection->home, victim, chain, words, &sp);

	if (result < 0)
		return result;
	arch_prepare_call(&registers, infection->gadgets.at[GADGET_SYSCALL_RETURN], sp, number, arguments);
	result = set_registers(thread, &registers);
	if (!result)
		result = set_signal_mask(thread, ALL_SIGNALS);
	if (result < 0)
		return fail(-result, "cannot set the registers of thread %d", thread->tid);
	result = call_enter(thread);
	return result < 0 ? result : call_finish(thread, value);
}

static int map_parasite_region(struct victim *victim, int protection, int sharing, long *value)
{
	struct infection *infection = victim->infection;
	uint64_t chain[ARCH_CHAIN_WORDS];
	const uint64_t arguments[6] = {
		infection->region,    PARASITE_SIZE,
		(uint64_t)protection, (uint64_t)sharing | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		(uint64_t)-1,	      0
	};

	return call_from_stack(victim, chain, arch_unmap_chain(chain, &infection->gadgets), SYS_mmap,
			       arguments, value);
}

/* One call in the region, by ptrace. */
int call_in_region(struct victim *victim, long number, const uint64_t arguments[6], long *value)
{
	uint64_t region = victim->infection->region;

	return trace_syscall(borrowed_thread(victim), region + blob()->call, region + PARASITE_CALLS, number,
			     arguments, value);
}

static int write_parasite_state(const struct victim *victim)
{
	const struct infection *infection = victim->infection;
	struct parasite_state state = { .sockets = { -1, -1 },
					.userfaultfd = -1,
					.home_stack = infection->home.entry,
					.home_size = infection->home.end - infection->home.entry };
	int result;

	if (!infection->gadgets.borrowed)
		state.syscall_return = infection->gadgets.at[GADGET_SYSCALL_RETURN];
	result = force_write(victim->pid, infection->region + PARASITE_STATE, &state, sizeof(state));
	return result < 0 ? result :
			    force_write(victim->pid, infection->region + PARASITE_HOME, infection->home.image,
					state.home_size);
}

/*
 * PR_SET_MDWE may forbid memory that is both writable and executable. Then the region is executable from the start, is
 * filled in spite of its protection, and the data part is made writable by a separate call.
 */
static int fill_region(struct victim *victim, bool is_writable)
{
	uint64_t region = victim->infection->region;
	const uint64_t protect[6] = { region + PARASITE_STATE, PARASITE_SIZE - PARASITE_STATE,
				      PROT_READ | PROT_WRITE };
	long value = 0;
	int result = force_write(victim->pid, region, parasite_blob_start,
				 parasite_blob_end - parasite_blob_start);

	if (!result)
		result = write_parasite_state(victim);
	if (!result && !is_writable)
		result = call_in_region(victim, SYS_mprotect, protect, &value);
	if (!result && value == -ENOMEM)
		fail_advice(
			"a higher limit of data for it (prlimit --data), or fewer mappings than vm.max_map_count");
	if (!result && value < 0)
		result = fail((int)-value, "cannot make memory for the parasite writable");
	return result;
}

/* Step 5, and back to 1. Works from any state in which the borrowed thread is parked. */
static int leave_region(struct victim *victim)
{
	struct infection *infection = victim->infection;
	const uint64_t arguments[6] = { infection->region, PARASITE_SIZE };
	long value = 0;
	int result;

	if (infection->stays) /* desks.c */
		return home_leave(&infection->home, victim, borrowed_thread(victim));
	result = call_from_stack(victim, NULL, 0, SYS_munmap, arguments, &value);

	if (!result && value < 0)
		result = fail((int)-value, "process %d: cannot unmap the parasite", victim->pid);
	return first_failure(result, home_leave(&infection->home, victim, borrowed_thread(victim)));
}

/* Explains a limit that only the task itself could raise, or a process with CAP_SYS_RESOURCE. */
static int explain_no_room(const struct victim *victim, long value)
{
	if (value == -ENOMEM)
		fail_advice(
			"a higher limit of address space for it (prlimit --as), or fewer mappings than vm.max_map_count");
	if (value == -EAGAIN)
		fail_advice(
			"a higher limit of locked memory for it (prlimit --memlock): all that it maps is locked (mlockall)");
	return fail(value < 0 ? (int)-value : EEXIST,
		    "process %d: cannot map %d KiB for the parasite, for as long as the dump takes",
		    victim->pid, PARASITE_SIZE >> 10);
}

/*
 * Steps 1 to 4. Shared memory (shared with no other process) does not count for RLIMIT_DATA, which may be used up
 * (Linux 6.18). But it is in tmpfs, of which a machine may have little.
 */
static int enter_region(struct victim *victim)
{
	struct infection *infection = victim->infection;
	struct traced_thread *thread = borrowed_thread(victim);
	const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
	bool is_writable = true;
	long value = 0;
	int result = map_parasite_region(victim, all, MAP_PRIVATE, &value);

	if (!result && value == -ENOMEM)
		result = map_parasite_region(victim, all, MAP_SHARED, &value);
	if (!result && (value == -EACCES || value == -EPERM)) {
		is_writable = false;
		result = map_parasite_region(victim, PROT_READ | PROT_EXEC, MAP_PRIVATE, &value);
	}
	if (!result && (uint64_t)value != infection->region)
		result = explain_no_room(victim, value);
	if (result < 0)
		goto go_home;
	result = fill_region(victim, is_writable);
	if (!result)
		result = set_place(thread, infection->region + blob()->bail,
				   infection->region + PARASITE_CALLS);
	if (result < 0) {
		leave_region(victim);
		return result;
	}
	return victim_write(victim, infection->home.start, infection->home.saved,
			    infection->home.end - infection->home.start);
go_home:
	return first_failure(result, home_leave(&infection->home, victim, thread));
}

static int prepare_infection(struct victim *victim, struct maps *maps)
{
	struct infection *infection = victim->infection;
	int result = maps_read(maps, victim->pid);

	if (!result)
		result = gadgets_find(&infection->gadgets, victim->pid, maps);
	if (result < 0)
		return result;
	infection->region = maps_find_hole(maps, PARASITE_SIZE);
	if (!infection->region)
		return fail(ENOMEM, "process %d has no space for the parasite in its address space",
			    victim->pid);
	infection->index = choose_thread(victim, maps);
	return 0;
}

/* Borrowed code is overwritten only while a thread is about to run it. */
static int enter(struct victim *victim)
{
	struct infection *infection = victim->infection;
	int result = gadgets_lend(&infection->gadgets, victim->pid);

	if (result < 0)
		return result;
	result = home_prepare(&infection->home, victim, borrowed_thread(victim), &infection->gadgets, NULL,
			      0);
	if (!result)
		result = enter_region(victim);
	return first_failure(result, gadgets_give_back(&infection->gadgets, victim->pid));
}

static int leave(struct victim *victim)
{
	struct infection *infection = victim->infection;
	int result = gadgets_lend(&infection->gadgets, victim->pid);

	if (!result)
		result = leave_region(victim);
	return first_failure(result, gadgets_give_back(&infection->gadgets, victim->pid));
}

void victim_forget(struct victim *victim)
{
	if (!victim->infection)
		return;
	if (victim->infection->socket >= 0)
		close(victim->infection->socket);
	home_free(&victim->infection->home);
	free(victim->infection->places);
	free(victim->infection);
	victim->infection = NULL;
}

int victim_infect(struct victim *victim)
{
	struct maps maps = {};
	int result = check_seccomp(victim);

	if (result < 0)
		return result;
	if (parasite_blob_end - parasite_blob_start > PARASITE_STATE)
		return fail(E2BIG, "the parasite is larger than its place");
	victim->infection = allocate(sizeof(*victim->infection));
	victim->infection->socket = -1;
	result = prepare_infection(victim, &maps);
	maps_free(&maps);
	if (!result)
		result = enter(victim);
	if (result < 0) {
		victim_forget(victim);
		return fail_in(result, "process %d", victim->pid);
	}
	result = parasite_connect(victim);
	if (result < 0) {
		result = first_failure(result, victim_cure(victim));
		return fail_in(result, "process %d", victim->pid);
	}
	return 0;
}

int victim_cure(struct victim *victim)
{
	int result;

	if (!victim->infection)
		return 0;
	result = parasite_disconnect(victim);
	if (!result)
		result = leave(victim);
	victim_forget(victim);
	return result < 0 ? fail_in(result, "process %d", victim->pid) : 0;
}
