/*
 * desks.c - system calls of many threads at once, each in the thread itself.
 *
 * A thread is not driven call by call. It is sent into the region, where it makes all calls of its list by itself
 * (parasite_work in entry.S), and then waits at its desk until it is taken back. All threads work at the same time. The
 * states of a thread between two steps, and what happens if criu dies there:
 *
 *	1  its own registers                  nothing happened; bytes below its red zone changed
 *	2  at a `ret` of the task's own code  frees its desk by a call (FUTEX_WAKE_OP), taken or not, and goes home
 *	3  in the region, its desk taken      the parasite sees that criu has died and tells it to leave; then as 2
 *	4  as 2, when it has been taken back
 *	5  its own registers
 *
 * In 2 and 4 the desk becomes taken, and free again. So whenever a desk is taken, a thread will free it, and only
 * outside of the region. The parasite unmaps the region when all desks are free.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/search.h"
#include "calls.h"
#include "internal.h"
#include "parasite.h"

#define BYTES_AT  round_up(sizeof(struct parasite_desk), 16UL)
#define CALL_SIZE sizeof(struct remote_call)
#define NEIGHBOURS \
	8192 /* bytes around the thread pointer of another thread: thread-local storage, struct pthread, rseq */

_Static_assert(PARASITE_DESKS <= (PARASITE_SIZE - PARASITE_SCRATCH) / PARASITE_DESK_SIZE, "desks do not fit");
_Static_assert(PARASITE_LISTS == PARASITE_DESKS, "a desk for each list");
_Static_assert(PARASITE_LIST_ROOM <= PARASITE_DESK_SIZE - sizeof(struct parasite_desk) - 2 * 15,
	       "a list does not fit");

/* A thread, while it works at a desk. */
struct worker {
	struct traced_thread *thread;
	struct thread_calls *list;
	struct way_home home;
	uint64_t desk, word;
	size_t calls_at; /* offset in the desk */
	bool is_written; /* its way home is on its stack */
	bool is_away;	 /* it does not have its own registers */
	bool is_back;	 /* it was away, is parked, and would go home by itself */
};

static uint64_t desk_at(const struct victim *victim, size_t number)
{
	return victim->infection->region + PARASITE_SCRATCH + number * PARASITE_DESK_SIZE;
}

static uint64_t state_at(const struct victim *victim, size_t offset)
{
	return victim->infection->region + PARASITE_STATE + offset;
}

uint64_t victim_desk(const struct victim *victim, size_t number)
{
	return desk_at(victim, number) + BYTES_AT;
}

static size_t desk_calls(const struct thread_calls *list)
{
	return round_up(BYTES_AT + list->size, 16UL);
}

/* ---- one by one ---- */

static int call_alone(struct victim *victim, const struct thread_calls *list, uint64_t address)
{
	int result = list->size ? victim_write(victim, address, list->bytes, list->size) : 0;

	if (!result)
		result = victim_call_thread(victim, list->thread, list->calls, list->count);
	if (!result && list->size)
		result = victim_read(victim, address, list->bytes, list->size);
	return result;
}

/* ---- who can work at a desk ---- */

/* An address of a thread: its stack pointer, or its thread pointer. */
struct thread_address {
	uint64_t address;
	const struct traced_thread *thread;
	bool is_stack;
};

static int compare_addresses(const void *left, const void *right)
{
	const struct thread_address *a = left, *b = right;

	return a->address < b->address ? -1 : a->address > b->address;
}

/* Lists those of all threads, sorted. No thread changes its registers while the process is infected. */
static void list_addresses(struct victim *victim)
{
	struct infection *infection = victim->infection;

	if (infection->addresses)
		return;
	infection->addresses = allocate_array(2 * victim->thread_count, sizeof(*infection->addresses));
	for (size_t i = 0; i < victim->thread_count; i++) {
		const struct traced_thread *thread = &victim->threads[i];
		const struct arch_registers *registers = &thread->context.registers;

		infection->addresses[2 * i] = (struct thread_address){ arch_stack_pointer(registers), thread,
								       true };
		infection->addresses[2 * i + 1] = (struct thread_address){ arch_thread_pointer(registers),
									   thread, false };
	}
	infection->address_count = 2 * victim->thread_count;
	qsort(infection->addresses, infection->address_count, sizeof(*infection->addresses),
	      compare_addresses);
}

/*
 * While many threads are away, no way home may overlap the stack pointer or the data of another thread: if criu dies,
 * that thread may continue before this one is home. This also keeps two ways home apart, because each ends directly
 * below a stack pointer.
 */
static bool is_apart(const struct infection *infection, const struct worker *worker)
{
	uint64_t start = worker->home.start, top = arch_stack_pointer(&worker->thread->context.registers);
	size_t i = search_address(infection->addresses, infection->address_count,
				  sizeof(*infection->addresses), start - min(start, (uint64_t)NEIGHBOURS));

	for (; i < infection->address_count && infection->addresses[i].address <= top + NEIGHBOURS; i++) {
		const struct thread_address *entry = &infection->addresses[i];

		if (entry->thread != worker->thread &&
		    (!entry->is_stack || (entry->address >= start && entry->address <= top)))
			return false;
	}
	return true;
}

/*
 * A filter is suspended, but if criu died it would judge the calls on the thread's way home, and the thread would not
 * free its desk. If filters cannot be suspended, there are none (check_seccomp()).
 */
static bool has_filter(const struct traced_thread *thread)
{
	return thread->options & PTRACE_O_SUSPEND_SECCOMP &&
	       ptrace(PTRACE_SECCOMP_GET_FILTER, thread->tid, 0, NULL) >= 0;
}

/* The call with which a thread on its way home frees its desk, when it is out of the region, and wakes its waiters. */
static struct remote_call leaving(uint64_t word)
{
	return (struct remote_call){ SYS_futex,
				     { word, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, 1, word,
				       FUTEX_OP(FUTEX_OP_SET, DESK_FREE, FUTEX_OP_CMP_EQ, DESK_TO_LEAVE) },
				     0 };
}

/* Prepares the work of a thread, without changing anything yet. False: it has to be asked by ptrace. */
static bool engage(struct victim *victim, struct thread_calls *list, size_t number, struct worker *worker)
{
	struct remote_call leave;

	*worker = (struct worker){ .thread = &victim->threads[list->thread],
				   .list = list,
				   .desk = desk_at(victim, number),
				   .word = state_at(victim, offsetof(struct parasite_state, words) +
								    number * sizeof(uint32_t)),
				   .calls_at = desk_calls(list) };
	leave = leaving(worker->word);
	if (list->thread == victim->infection->index || arch_denies_data(&worker->thread->context) ||
	    has_filter(worker->thread))
		return false;
	if (attempted(home_build(&worker->home, worker->thread, &victim->infection->gadgets, &leave, 1)))
		return false;
	if (is_apart(victim->infection, worker))
		return true;
	home_free(&worker->home);
	return false;
}

/*
 * Saves the stacks of all workers. One whose stack does not have enough space leaves the list, and is asked by ptrace.
 * *count becomes the number of the others.
 */
static int save_stacks(struct victim *victim, struct worker *workers, size_t *count)
{
	struct memory_piece pieces[PARASITE_DESKS];
	size_t saved, kept = 0;
	int result = 0;

	for (size_t i = 0; i < *count; i++) {
		const struct way_home *home = &workers[i].home;

		pieces[i] = (struct memory_piece){ home->start, home->saved, home->end - home->start };
	}
	saved = pieces_read(victim, pieces, *count);
	for (size_t i = 0; i < *count; i++) {
		struct worker *worker = &workers[i];

		if (i < saved || !attempted(home_save(&worker->home, victim, worker->thread))) {
			workers[kept++] = *worker;
			continue;
		}
		home_free(&worker->home);
		if (!result)
			result = call_alone(victim, worker->list, worker->desk + BYTES_AT);
	}
	*count = kept;
	return result;
}

/* ---- at desks ---- */

/* The pieces of memory that one step reads or writes for all workers of a batch. */
struct pieces {
	struct memory_piece at[2 * PARASITE_DESKS + 2];
	size_t count;
};

static void add_piece(struct pieces *pieces, uint64_t address, void *bytes, size_t size)
{
	pieces->at[pieces->count++] = (struct memory_piece){ address, bytes, size };
}

static size_t desk_size(const struct worker *worker)
{
	return worker->calls_at + worker->list->count * CALL_SIZE;
}

static void fill_desk(const struct worker *worker, char *image)
{
	const struct thread_calls *list = worker->list;
	const struct parasite_desk desk = { .word = worker->word,
					    .calls = worker->desk + worker->calls_at,
					    .home = worker->home.entry,
					    .count = (uint32_t)list->count };

	memcpy(image, &desk, sizeof(desk));
	if (list->size)
		memcpy(image + BYTES_AT, list->bytes, list->size);
	memcpy(image + worker->calls_at, list->calls, list->count * CALL_SIZE);
}

/* Writes what the parasite has to know, the desks, and all ways home. `images`: PARASITE_DESK_SIZE for each worker. */
static int write_desks(const struct victim *victim, struct worker *workers, size_t count, size_t desks,
		       char *images)
{
	uint32_t working = (uint32_t)count, in_use = (uint32_t)desks;
	struct pieces pieces = { .count = 0 };

	add_piece(&pieces, state_at(victim, offsetof(struct parasite_state, working)), &working,
		  sizeof(working));
	add_piece(&pieces, state_at(victim, offsetof(struct parasite_state, desk_count)), &in_use,
		  sizeof(in_use));
	for (size_t i = 0; i < count; i++) {
		struct worker *worker = &workers[i];
		const struct way_home *home = &worker->home;
		char *image = images + i * PARASITE_DESK_SIZE;

		fill_desk(worker, image);
		add_piece(&pieces, worker->desk, image, desk_size(worker));
		add_piece(&pieces, home->entry, home->image, home->end - home->entry);
		worker->is_written = true;
	}
	return pieces_write(victim, pieces.at, pieces.count);
}

static int write_desk_state(const struct victim *victim, size_t offset, uint32_t value)
{
	return victim_write(victim, state_at(victim, offset), &value, sizeof(value));
}

static int set_word(const struct victim *victim, const struct worker *worker, uint32_t word)
{
	return victim_write(victim, worker->word, &word, sizeof(word));
}

/* Sends the thread to the beginning of its way home. */
static int set_out(const struct victim *victim, const struct worker *worker)
{
	return home_take(&worker->home, worker->thread, &victim->infection->gadgets);
}

/* State 2. */
static int leave_own_place(const struct victim *victim, struct worker *worker)
{
	int result = set_out(victim, worker);

	worker->is_away = true;
	if (!result && set_signal_mask(worker->thread, ALL_SIGNALS) < 0)
		result = fail(errno, "cannot block the signals of thread %d", worker->thread->tid);
	return result;
}

/* All workers are in state 2. */
static int take_desks(const struct victim *victim, const struct worker *workers, size_t count)
{
	uint32_t taken = DESK_TAKEN;
	struct pieces pieces = { .count = 0 };

	for (size_t i = 0; i < count; i++)
		add_piece(&pieces, workers[i].word, &taken, sizeof(taken));
	return pieces_write(victim, pieces.at, pieces.count);
}

/* State 3. */
static int send_to_work(const struct victim *victim, struct worker *worker)
{
	struct traced_thread *thread = worker->thread;
	struct arch_registers registers = thread->context.registers;
	int result;

	arch_prepare_work(&registers, victim->infection->region + blob()->work, worker->home.entry,
			  worker->desk);
	result = set_registers(thread, &registers);
	if (!result && ptrace(PTRACE_CONT, thread->tid, 0, 0) < 0)
		result = -errno;
	thread->is_parked = result;
	return result ? fail(-result, "cannot make calls in thread %d", thread->tid) : 0;
}

static int send_all_to_work(const struct victim *victim, struct worker *workers, size_t count)
{
	int result = 0;

	for (size_t i = 0; i < count && !result; i++)
		result = leave_own_place(victim, &workers[i]);
	if (!result)
		result = take_desks(victim, workers, count);
	for (size_t i = 0; i < count && !result; i++)
		result = send_to_work(victim, &workers[i]);
	return result;
}

/*
 * A thread that does not come back must go home by itself as soon as it can. The region, and the bytes on the thread's
 * stack, stay as long as the process lives. -ESRCH: the process was killed.
 */
static int give_up_worker(const struct victim *victim, const struct worker *worker, int error)
{
	if (error == -ESRCH)
		return error;
	set_word(victim, worker, DESK_TO_LEAVE);
	write_desk_state(victim, offsetof(struct parasite_state, stays), 1);
	victim->infection->stays = true;
	return fail(-error, "thread %d does not return from its calls", worker->thread->tid);
}

/* State 2 or 4. */
static int take_back(const struct victim *victim, struct worker *worker, uint64_t deadline)
{
	int result = worker->thread->is_parked ? 0 : trace_await_park(worker->thread, deadline);

	if (result)
		return give_up_worker(victim, worker, result);
	result = set_out(victim, worker);
	worker->is_back = !result;
	return result;
}

static int free_desks(const struct victim *victim, const struct worker *workers, size_t count)
{
	uint32_t is_free = DESK_FREE;
	struct pieces pieces = { .count = 0 };

	for (size_t i = 0; i < count; i++)
		if (workers[i].is_back)
			add_piece(&pieces, workers[i].word, &is_free, sizeof(is_free));
	return pieces_write(victim, pieces.at, pieces.count);
}

/* State 5. Threads that cannot be given their registers keep their way home. */
static int return_all(const struct victim *victim, const struct worker *workers, size_t count)
{
	struct pieces pieces = { .count = 0 };
	int result = 0, returned;

	for (size_t i = 0; i < count; i++) {
		const struct worker *worker = &workers[i];
		const struct way_home *home = &worker->home;

		if (!worker->is_written || (worker->is_away && !worker->is_back))
			continue;
		returned = worker->is_away ? home_return(worker->thread) : 0;
		result = first_failure(result, returned);
		if (!returned)
			add_piece(&pieces, home->start, home->saved, home->end - home->start);
	}
	return first_failure(result, pieces_write(victim, pieces.at, pieces.count));
}

/* Takes all threads back, also those of a batch that has failed, and restores all stacks. */
static int take_all_back(const struct victim *victim, struct worker *workers, size_t count)
{
	uint64_t deadline = trace_deadline(CALL_SECONDS);
	int result = 0;

	for (size_t i = 0; i < count; i++)
		if (workers[i].is_away && !workers[i].thread->is_parked)
			ptrace(PTRACE_INTERRUPT, workers[i].thread->tid, 0, 0);
	for (size_t i = 0; i < count; i++)
		if (workers[i].is_away)
			result = first_failure(result, take_back(victim, &workers[i], deadline));
	result = first_failure(result, free_desks(victim, workers, count));
	return first_failure(result, return_all(victim, workers, count));
}

static int read_results(const struct victim *victim, const struct worker *workers, size_t count, char *images)
{
	struct pieces pieces = { .count = 0 };

	for (size_t i = 0; i < count; i++)
		add_piece(&pieces, workers[i].desk + BYTES_AT, images + i * PARASITE_DESK_SIZE + BYTES_AT,
			  desk_size(&workers[i]) - BYTES_AT);
	if (pieces_read(victim, pieces.at, count) < count)
		return fail(errno, "cannot read the answers of the threads of process %d", victim->pid);
	for (size_t i = 0; i < count; i++) {
		const struct thread_calls *list = workers[i].list;
		const char *image = images + i * PARASITE_DESK_SIZE;

		if (list->size)
			memcpy(list->bytes, image + BYTES_AT, list->size);
		memcpy(list->calls, image + workers[i].calls_at, list->count * CALL_SIZE);
	}
	return 0;
}

static int work_at_desks(struct victim *victim, struct worker *workers, size_t count, size_t desks)
{
	struct remote_call await = { CALL_AWAIT_DESKS, {}, 0 };
	autofree char *images = allocate_array(count, PARASITE_DESK_SIZE);
	int result = write_desks(victim, workers, count, desks, images) ?:
			     send_all_to_work(victim, workers, count);

	if (!result)
		result = call_parasite(victim, &await, 1);
	result = first_failure(result, take_all_back(victim, workers, count));
	return result ?: read_results(victim, workers, count, images);
}

static int check_lists(const struct victim *victim, const struct thread_calls *lists, size_t count)
{
	int result = count <= PARASITE_LISTS ?
			     0 :
			     fail(E2BIG, "too many threads are to make system calls at the same time");

	for (size_t i = 0; i < count && !result; i++) {
		result = calls_check_abi(lists[i].abi, victim);
		if (!result && lists[i].size + lists[i].count * CALL_SIZE > PARASITE_LIST_ROOM)
			result = fail(E2BIG, "a thread cannot make %zu system calls at once", lists[i].count);
	}
	return result;
}

int victim_call_threads(struct victim *victim, struct thread_calls *lists, size_t count)
{
	const struct infection *infection = victim->infection;
	bool is_possible = infection->is_serving && !infection->gadgets.borrowed;
	struct worker *workers = allocate_array(count, sizeof(*workers));
	size_t engaged = 0;
	int result = check_lists(victim, lists, count);

	list_addresses(victim);
	for (size_t i = 0; i < count && !result; i++) {
		if (is_possible && engage(victim, &lists[i], i, &workers[engaged]))
			engaged++;
		else
			result = call_alone(victim, &lists[i], victim_desk(victim, i));
	}
	if (!result)
		result = save_stacks(victim, workers, &engaged);
	if (!result && engaged)
		result = work_at_desks(victim, workers, engaged, count);
	for (size_t i = 0; i < engaged; i++)
		home_free(&workers[i].home);
	free(workers);
	return result;
}
