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
#include <sys/uio.h>
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

/* How safe some bytes on the stack of a thread are: 3 is best, 0: it has hardly any space there. */
static int safety_of_stack(const struct traced_thread *thread, const struct maps *maps)
{
	uint64_t sp = arch_stack_pointer(&thread->context.registers);
	const struct map *map = maps_find(maps, sp);

	if (!map || !map->writable || sp - map->start < FRAME_ROOM)
		return 0;
	if (map->is_stack)
		return 3;
	return map->inode ? 1 : 2;
}

/* Chooses the thread whose stack is the safest place for some bytes: the leader, or another with much space below. */
static size_t choose_thread(const struct victim *victim, const struct maps *maps)
{
	size_t best = 0;
	int best_safety = -1;

	for (size_t index = 0; index < victim->thread_count; index++) {
		int safety = safety_of_stack(&victim->threads[index], maps);

		if (safety > best_safety) {
			best_safety = safety;
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

/* Prepares a call with the task's own code and a chain on its stack. */
static int prepare_from_stack(struct victim *victim, const uint64_t *chain, size_t words, long number,
			      const uint64_t arguments[6])
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
	return result < 0 ? fail(-result, "cannot set the registers of thread %d", thread->tid) : 0;
}

/* From here on all signals are blocked. */
static int begin_parasite_map(struct victim *victim, int protection, int sharing)
{
	struct infection *infection = victim->infection;
	uint64_t chain[ARCH_CHAIN_WORDS];
	const uint64_t arguments[6] = {
		infection->region,    PARASITE_SIZE,
		(uint64_t)protection, (uint64_t)sharing | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		(uint64_t)-1,	      0
	};

	struct traced_thread *thread = borrowed_thread(victim);
	int result = prepare_from_stack(victim, chain, arch_unmap_chain(chain, &infection->gadgets), SYS_mmap,
					arguments);

	if (!result && set_signal_mask(thread, ALL_SIGNALS) < 0)
		result = fail(errno, "cannot block the signals of thread %d", thread->tid);
	return result ?: call_begin(thread);
}

static int map_parasite_region(struct victim *victim, int protection, int sharing, long *value)
{
	struct traced_thread *thread = borrowed_thread(victim);

	return begin_parasite_map(victim, protection, sharing) ?:
		       call_await_entry(thread)		       ?:
								 call_finish(thread, value);
}

/* One call in the region, by ptrace. */
int call_in_region(struct victim *victim, long number, const uint64_t arguments[6], long *value)
{
	uint64_t region = victim->infection->region;

	return trace_syscall(borrowed_thread(victim), region + blob()->call, region + PARASITE_CALLS, number,
			     arguments, value);
}

/* The task's own right to write there is used if it has one; else the bytes are written past the protection. */
static int write_region_pieces(const struct victim *victim, const struct iovec *here,
			       const struct iovec *there, size_t count, bool is_writable)
{
	size_t size = 0;
	int result = 0;

	for (size_t i = 0; i < count; i++)
		size += here[i].iov_len;
	if (is_writable && process_vm_writev(victim->pid, here, count, there, count, 0) == (ssize_t)size)
		return 0;
	for (size_t i = 0; i < count && !result; i++)
		result = force_write(victim->pid, (uintptr_t)there[i].iov_base, here[i].iov_base,
				     here[i].iov_len);
	return result;
}

static int write_region(const struct victim *victim, bool is_writable)
{
	const struct infection *infection = victim->infection;
	uint64_t region = infection->region;
	struct parasite_state state = { .sockets = { -1, -1 },
					.userfaultfd = -1,
					.home_stack = infection->home.entry,
					.home_size = infection->home.end - infection->home.entry };
	const struct iovec here[] = { { (void *)parasite_blob_start,
					parasite_blob_end - parasite_blob_start },
				      { &state, sizeof(state) },
				      { infection->home.image, state.home_size } };
	const struct iovec there[] = { { (void *)region, here[0].iov_len },
				       { (void *)(region + PARASITE_STATE), here[1].iov_len },
				       { (void *)(region + PARASITE_HOME), here[2].iov_len } };

	if (!infection->gadgets.borrowed)
		state.syscall_return = infection->gadgets.at[GADGET_SYSCALL_RETURN];
	return write_region_pieces(victim, here, there, array_size(here), is_writable);
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
	int result = write_region(victim, is_writable);

	if (!result && !is_writable)
		result = call_in_region(victim, SYS_mprotect, protect, &value);
	if (!result && value == -ENOMEM)
		fail_advice(
			"a higher limit of data for it (prlimit --data), or fewer mappings than vm.max_map_count");
	if (!result && value < 0)
		result = fail((int)-value, "cannot make the memory of criu's code (the parasite) writable");
	return result;
}

/* Explains a limit that only the task itself could raise, or a process with CAP_SYS_RESOURCE. */
static int explain_no_space(long value)
{
	if (value == -ENOMEM)
		fail_advice(
			"a higher limit of address space for it (prlimit --as), or fewer mappings than vm.max_map_count");
	if (value == -EAGAIN)
		fail_advice(
			"a higher limit of locked memory for it (prlimit --memlock): all that it maps is locked (mlockall)");
	return fail(value < 0 ? (int)-value : EEXIST,
		    "cannot map %d KiB for criu's code (the parasite), for as long as the dump takes",
		    PARASITE_SIZE >> 10);
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
		return fail(ENOMEM, "its address space has no room for criu's code (the parasite)");
	infection->index = choose_thread(victim, maps);
	return 0;
}

void victim_forget(struct victim *victim)
{
	if (!victim->infection)
		return;
	if (victim->infection->socket >= 0)
		close(victim->infection->socket);
	home_free(&victim->infection->home);
	free(victim->infection->addresses);
	free(victim->infection);
	victim->infection = NULL;
}

/* ---- the way in ---- */

static int begin_infection(struct victim *victim)
{
	struct maps maps = {};
	int result = check_seccomp(victim);

	if (result < 0)
		return result;
	if (parasite_blob_end - parasite_blob_start > PARASITE_STATE)
		return fail(E2BIG, "the parasite is larger than the region made for it");
	victim->infection = allocate(sizeof(*victim->infection));
	victim->infection->socket = victim->infection->sockets[0] = victim->infection->sockets[1] = -1;
	result = prepare_infection(victim, &maps);
	maps_free(&maps);
	return result;
}

/* Borrowed code is overwritten only while a thread is about to run it. */
static int go_to_map(struct victim *victim)
{
	struct infection *infection = victim->infection;
	int result = gadgets_lend(&infection->gadgets, victim->pid) ?:
			     home_prepare(&infection->home, victim, borrowed_thread(victim),
					  &infection->gadgets, NULL, 0);

	if (result < 0)
		return result;
	infection->place = ON_ITS_STACK;
	return begin_parasite_map(victim, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE);
}

static int go_behind_call(struct victim *victim)
{
	struct traced_thread *thread = borrowed_thread(victim);

	return call_await_entry(thread) ?: call_make(thread);
}

/*
 * Shared memory (shared with no other process) does not count for RLIMIT_DATA, which may be used up (Linux 6.18). But
 * it is in tmpfs, of which a machine may have little.
 */
static int await_parasite_map(struct victim *victim, bool *is_writable)
{
	const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
	long value = 0;
	int result = call_await(borrowed_thread(victim), &value);

	*is_writable = true;
	if (!result && value == -ENOMEM)
		result = map_parasite_region(victim, all, MAP_SHARED, &value);
	if (!result && (value == -EACCES || value == -EPERM)) {
		*is_writable = false;
		result = map_parasite_region(victim, PROT_READ | PROT_EXEC, MAP_PRIVATE, &value);
	}
	if (!result && (uint64_t)value != victim->infection->region)
		result = explain_no_space(value);
	return result;
}

static int go_into_region(struct victim *victim)
{
	struct infection *infection = victim->infection;
	bool is_writable;
	int result = await_parasite_map(victim, &is_writable);

	if (result < 0)
		return result;
	infection->place = IN_REGION;
	result = fill_region(victim, is_writable);
	if (!result)
		result = parasite_prepare_sockets(victim);
	if (!result)
		result = victim_write(victim, infection->home.start, infection->home.saved,
				      infection->home.end - infection->home.start);
	if (!result)
		result = gadgets_give_back(&infection->gadgets, victim->pid);
	return result ?: call_begin(borrowed_thread(victim));
}

static const victim_step way_in[] = { begin_infection, go_to_map,      go_behind_call,
				      go_into_region,  go_behind_call, parasite_connect };

/* Gives the thread its registers, mask and stack back, while it is on its own stack. */
static int leave_stack(struct victim *victim)
{
	struct infection *infection = victim->infection;
	int result = home_leave(&infection->home, victim, borrowed_thread(victim));

	return first_failure(result, gadgets_give_back(&infection->gadgets, victim->pid));
}

/* Makes a victim that cannot be infected what it was before, as far as that is possible. */
static int abandon_infection(struct victim *victim, int error)
{
	if (victim->infection && victim->infection->place == ON_ITS_STACK)
		ignore(leave_stack(victim));
	if (victim->infection && victim->infection->place == IN_REGION)
		ignore(attempted(victim_cure(victim)));
	victim_forget(victim);
	return error;
}

int victims_infect(struct victim *const *victims, size_t count, size_t *failed)
{
	return group_walk(victims, count, way_in, array_size(way_in), abandon_infection, failed);
}

int victim_infect(struct victim *victim)
{
	return victims_infect(&victim, 1, NULL);
}

/* ---- the way out ---- */

/* Step 5. If a thread may still be in the region (desks.c), the region stays. */
static int go_to_unmap(struct victim *victim)
{
	struct infection *infection = victim->infection;
	const uint64_t arguments[6] = { infection->region, PARASITE_SIZE };
	int result = parasite_await_close(victim) ?: gadgets_lend(&infection->gadgets, victim->pid);

	if (result)
		return result;
	infection->place = ON_ITS_STACK;
	if (infection->stays)
		return 0;
	return prepare_from_stack(victim, NULL, 0, SYS_munmap, arguments) ?:
									    call_begin(borrowed_thread(victim));
}

static int go_behind_unmap(struct victim *victim)
{
	return victim->infection->stays ? 0 : go_behind_call(victim);
}

/* Step 6. */
static int go_home_from_unmap(struct victim *victim)
{
	long value = 0;
	int result = victim->infection->stays ? 0 : call_await(borrowed_thread(victim), &value);

	if (!result && value < 0)
		result = fail((int)-value, "cannot unmap criu's code (the parasite)");
	if (result)
		return result;
	result = leave_stack(victim);
	victim_forget(victim);
	return result;
}

static const victim_step way_out[] = { parasite_interrupt, parasite_begin_close, parasite_make_close,
				       go_to_unmap,	   go_behind_unmap,	 go_home_from_unmap };

static int abandon_cure(struct victim *victim, int error)
{
	if (victim->infection && victim->infection->place == ON_ITS_STACK)
		ignore(leave_stack(victim));
	victim_forget(victim);
	return error;
}

struct victim **list_infected(struct victim *const *victims, size_t *count)
{
	struct victim **infected = allocate_array(*count, sizeof(*infected));
	size_t found = 0;

	for (size_t i = 0; i < *count; i++)
		if (victims[i]->infection)
			infected[found++] = victims[i];
	*count = found;
	return infected;
}

int victim_failed_in(const struct victim *victim, int error, bool had_failed)
{
	return had_failed ? error : fail_in(error, "process %d", victim->pid);
}

int victims_cure(struct victim *const *victims, size_t count)
{
	autofree struct victim **infected = list_infected(victims, &count);
	bool had_failed = has_failed();
	size_t failed = 0;
	int result = group_walk(infected, count, way_out, array_size(way_out), abandon_cure, &failed);

	return result ? victim_failed_in(infected[failed], result, had_failed) : 0;
}

int victim_cure(struct victim *victim)
{
	return victim->infection ? group_walk(&victim, 1, way_out, array_size(way_out), abandon_cure, NULL) :
				   0;
}
