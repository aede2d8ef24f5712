/*
 * internal.h - the interfaces between the files of compel.
 *
 * They are about three things: a call in two halves, the way home of a thread, and the infection of a process.
 */
#ifndef COMPEL_INTERNAL_H
#define COMPEL_INTERNAL_H

#include "arch.h"
#include "compel.h"
#include "compiler.h"
#include "parasite.h"

#define ALL_SIGNALS (~0ULL)

static inline int first_failure(int one, int other)
{
	return one < 0 ? one : other;
}

/* ---- waiting (seize.c) ---- */

#define CALL_SECONDS 30.0 /* a system call in another thread takes longer only on a sick machine */

/*
 * Waits for the next stop of a thread, and returns its wait status. -ESRCH: the thread is dead, and was reaped unless
 * it is a child of criu; -ETIMEDOUT. Records no failure.
 */
int wait_for_stop(pid_t tid, uint64_t deadline, int *status) must_check;
/* The same without waiting. -EAGAIN: it runs, or its stop has been seen before. */
int look_for_stop(pid_t tid, int *status) must_check;
bool is_event_stop(int status);
bool is_syscall_stop(int status);
/* The signal that is about to be delivered, with which to resume. 0: it is another stop. */
int signal_of(int status);
/* Stops a running traced thread. */
int trace_park(struct traced_thread *thread, uint64_t deadline) must_check;
int trace_await_park(struct traced_thread *thread, uint64_t deadline)
	must_check; /* … that has been interrupted */
/* Waits until a killed thread is gone. A child of criu is left to waitpid(). */
int trace_reap(struct traced_thread *thread, uint64_t deadline) must_check;
int get_registers(const struct traced_thread *thread, struct arch_registers *registers) must_check;
int set_registers(const struct traced_thread *thread, const struct arch_registers *registers) must_check;
int set_signal_mask(const struct traced_thread *thread, uint64_t mask) must_check;

/* Reads /proc/TID/name, a file with one record; -errno. */
ssize_t read_proc(pid_t tid, const char *name, char **text) must_check;

/* ---- what becomes of an interrupted call (settle.c); see also trace_settle_context() ---- */

/* Right after parking: what the kernel would do anyway, or did only because of the interruption. */
int settle_arrival(struct traced_thread *thread) must_check;
/* Before it is interrupted: is it in a call that ends without telling its remaining time, and since when? */
void settle_look_asleep(struct traced_thread *thread);
/* Of a stopped thread's memory; false: nothing is there. */
bool settle_read(pid_t tid, uint64_t address, void *buffer, size_t size) must_check;

/* ---- a call in two halves (call.c) ---- */

/* From the parked state to the entry of the call, which will be made in any case, even if criu dies. */
int call_enter(struct traced_thread *thread) must_check;
/* From there to the parked state after the call. */
int call_finish(struct traced_thread *thread, long *result) must_check;
/* Both in two parts: the first one resumes the thread, the second one waits for its stop. */
int call_begin(struct traced_thread *thread) must_check;
int call_await_entry(struct traced_thread *thread) must_check;
int call_make(struct traced_thread *thread) must_check;
/*
 * After call_begin() at the entry: waits for the stop right after the call. Not for a thread that gets its own
 * registers next: only from the parked state the kernel restarts the call that it was in.
 */
int call_await_exit(struct traced_thread *thread) must_check;
int call_await(struct traced_thread *thread, long *result) must_check;

/* ---- pieces.c ---- */

struct memory_piece {
	uint64_t address; /* in the victim */
	void *bytes;
	size_t size; /* more than 0 */
};

/* How many were read: less than `count` if one of them cannot be read. */
size_t pieces_read(const struct victim *victim, const struct memory_piece *pieces, size_t count);
int pieces_write(const struct victim *victim, const struct memory_piece *pieces, size_t count) must_check;

/* ---- maps.c ---- */

struct map {
	uint64_t start, end, offset, inode;
	unsigned device;
	bool readable, writable, executable, is_private, is_stack,
		is_special; /* special: [vsyscall], [vvar] */
};
struct maps {
	struct map *maps;
	size_t count;
};

int maps_read(struct maps *maps, pid_t pid) must_check;
void maps_free(struct maps *maps);
const struct map *maps_find(const struct maps *maps, uint64_t address);
/* Free address space far from any mapping. 0: none. */
uint64_t maps_find_hole(const struct maps *maps, uint64_t size);

/* ---- gadgets.c: pieces of the task's own code ---- */

struct gadgets {
	uint64_t at[GADGET_COUNT]; /* their addresses; 0: there is none */
	uint64_t borrowed; /* nothing was found, so this code can be overwritten temporarily; else 0 */
	unsigned char saved[GADGET_SIZE]; /* the original bytes there */
};

int gadgets_find(struct gadgets *gadgets, pid_t pid, const struct maps *maps) must_check;
/* With `borrowed` code: write the gadgets there, and restore the task's own code. Otherwise nothing. */
int gadgets_lend(struct gadgets *gadgets, pid_t pid) must_check;
int gadgets_give_back(struct gadgets *gadgets, pid_t pid) must_check;
/* Writes through /proc/PID/mem, even where the task itself may not write. */
int force_write(pid_t pid, uint64_t address, const void *bytes, size_t size) must_check;

/* ---- home.c: the way home ---- */

/*
 * The part of a thread's stack that is used while it is on its way home or works for criu. A thread with the
 * registers of arch_prepare_home() for `entry` goes home:
 *
 *	start ── chain of words ── entry ── words, signal frame, extended state ── end ── the thread's own stack
 */
#define HOME_CHAIN (ARCH_CHAIN_WORDS * sizeof(uint64_t))

struct way_home {
	uint64_t start, entry, end;
	char *image; /* from `entry` to `end` */
	char *saved; /* from `start` to `end`: the task's own bytes */
};

/*
 * Makes the image of a way home, and the space for the thread's own bytes. `detours` are calls to make on the way, in
 * this order, before the thread continues.
 */
int home_build(struct way_home *home, struct traced_thread *thread, const struct gadgets *gadgets,
	       const struct remote_call *detours, size_t detour_count) must_check;
/* Saves the part of the stack that will be overwritten. */
int home_save(const struct way_home *home, const struct victim *victim, const struct traced_thread *thread)
	must_check;
/* Both. */
int home_prepare(struct way_home *home, const struct victim *victim, struct traced_thread *thread,
		 const struct gadgets *gadgets, const struct remote_call *detours, size_t detour_count)
	must_check;
/* Writes the image and `count` words before it to the stack; *sp is where these begin. */
int home_write(const struct way_home *home, const struct victim *victim, const uint64_t *chain, size_t count,
	       uint64_t *sp) must_check;
/* Sets the registers so that the thread goes home, from `entry`, when it runs. */
int home_take(const struct way_home *home, struct traced_thread *thread, const struct gadgets *gadgets)
	must_check;
/* Restores the thread's registers and mask; it stays parked. */
int home_return(struct traced_thread *thread) must_check;
/* The same, and its memory. */
int home_leave(const struct way_home *home, const struct victim *victim, struct traced_thread *thread)
	must_check;
void home_free(struct way_home *home);

#define FRAME_ROOM 16384 /* more than any frame needs */

/* ---- infect.c ---- */

enum place_of_thread {
	WITH_OWN_REGISTERS,
	ON_ITS_STACK, /* its way home is on its stack; it is not in the region yet, or has left it */
	IN_REGION
};

struct infection {
	enum place_of_thread place; /* of the borrowed thread */
	size_t index;		    /* of the borrowed thread */
	uint64_t region;	    /* see parasite.h */
	struct gadgets gadgets;
	struct way_home home;		  /* of the borrowed thread */
	int socket;			  /* -1: calls are made by ptrace */
	bool is_serving;		  /* the thread waits for calls, or is parked there */
	struct twin_order *twin;	  /* of victims_make_twins() */
	struct process_calls *asked;	  /* by victims_call() … */
	bool is_working;		  /* … which has sent it, and has to receive the answer */
	bool stays;			  /* the region stays mapped: a thread may still be in it */
	int sockets[2];			  /* the numbers in the victim */
	struct thread_address *addresses; /* addresses of all threads: desks.c. NULL: not needed yet */
	size_t address_count;
};

extern const char parasite_blob_start[], parasite_blob_end[]; /* the Makefile embeds it */
static inline const struct parasite_header *blob(void)
{
	return (const struct parasite_header *)parasite_blob_start;
}

struct traced_thread *borrowed_thread(const struct victim *victim);
/* Sets these two registers; the others are the thread's original ones. */
int set_place(struct traced_thread *thread, uint64_t ip, uint64_t sp) must_check;
/* Makes one call of the borrowed thread in the region, by ptrace. */
int call_in_region(struct victim *victim, long number, const uint64_t arguments[6], long *value) must_check;

/* Those of *count victims that are infected; *count becomes their number. The caller frees the list. */
struct victim **list_infected(struct victim *const *victims, size_t *count);
/* Frees the data about an infection, of a process that is gone or cured. */
void victim_forget(struct victim *victim);

/*
 * Names the victim of a failure whose caller will not know it. If something had failed before, that failure stays as it
 * is: the place would be added to it.
 */
int victim_failed_in(const struct victim *victim, int error, bool had_failed) must_check;

/* ---- for_now.c ---- */

void for_now_free(struct traced_thread *thread);

/* ---- parasite.c ---- */

/* Makes calls in a thread that is on its own stack with the way home on it; it is parked on that way afterwards. */
int call_on_stack(struct victim *victim, struct traced_thread *thread, const struct way_home *home,
		  struct remote_call *calls, size_t count) must_check;

/* Sends calls to the serving parasite. Meanwhile, running threads that are stopped by other processes are resumed. */
int call_parasite(struct victim *victim, struct remote_call *calls, size_t count) must_check;
/* The same in two parts. A message has MOST_CALLS at most. */
#define MOST_CALLS ((PARASITE_SCRATCH - PARASITE_CALLS) / sizeof(struct remote_call))
int parasite_send(struct victim *victim, const struct remote_call *calls, size_t count) must_check;
int parasite_receive(struct victim *victim, struct remote_call *calls, size_t count) must_check;
/* Into the region: sets the thread to the call that makes the sockets. */
int parasite_prepare_sockets(struct victim *victim) must_check;
/* After that call: sets the thread to where it serves, still parked; or leaves it: calls are made by ptrace. */
int parasite_connect(struct victim *victim) must_check;
/* The way out: interrupts the parasite, sets it to the call that closes its socket, lets it make that call. */
int parasite_interrupt(struct victim *victim) must_check;
int parasite_await_park(struct victim *victim) must_check;
int parasite_begin_close(struct victim *victim) must_check;
int parasite_make_close(struct victim *victim) must_check;
int parasite_await_close(struct victim *victim) must_check;

/* ---- group.c ---- */

/* One step of a victim. It waits for the stop that the previous step has caused, and resumes the thread again. */
typedef int (*victim_step)(struct victim *victim);

/*
 * Takes victims through all steps, in groups of VICTIM_GROUP: each step for all of a group before the next one. So
 * their threads run at the same time, on all CPUs. If a step fails, `abandon` gets the victim and the error, and
 * returns the error; the victim makes no more steps, and the others continue. The first failure is recorded and
 * returned, and *failed (may be NULL) is the index of its victim.
 */
int group_walk(struct victim *const *victims, size_t count, const victim_step *steps, size_t step_count,
	       int (*abandon)(struct victim *victim, int error), size_t *failed) must_check;
/* An `abandon` that does nothing. */
int keep_error(struct victim *victim, int error);

#endif
