/*
 * compel_victims.h - the processes that compel_test stops: what they do, and what they tell of how it went for them.
 */
#ifndef COMPEL_VICTIMS_H
#define COMPEL_VICTIMS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MOST_TICKERS 16

/* In memory that victims and the test share. */
struct tale {
	volatile long ticks[MOST_TICKERS]; /* of every thread that never blocks for long */
	volatile long wrong_registers;	   /* a vector register changed under way */
	volatile long wrong_calls;	   /* a call ended as it should not have; the last one … */
	volatile long wrong_call, wrong_error;
	volatile long
		interrupted; /* epoll_wait() ended with EINTR: when a tracer dies before it could hide its interrupt */
	volatile long wrong_stack; /* memory, mask or alternate signal stack changed */
	volatile int is_ready;
	volatile int is_done;
	volatile long result, error, milliseconds; /* of a victim that makes one call */
	volatile int signals;
};

/* A call that blocks, and how it ends if nobody disturbs it. */
struct blocking_call {
	const char *name;
	long (*make)(int argument);
	int argument;
	long result;
	int error;
	int milliseconds; /* that it takes */
	enum {
		NEVER,
		WHEN_ORPHANED,
		ALWAYS
	} begins_again;	      /* its timeout cannot be shortened: then it takes longer */
	int signal;	      /* sent by the test at its end; 0: none */
	bool is_told_by_code; /* its number stands in front of the `syscall` */
};
extern const struct blocking_call blocking_calls[];
extern const int blocking_call_count;

/* What victims have in common: their tale, and threads. */
extern struct tale *story;
void start_thread(void *(*run)(void *), long argument);
void *sleep_for_ever(void *argument);
void count_signal(int signal);
long poll_nothing(int milliseconds);
long sleep_with_rest(int milliseconds);

pid_t start_victim(struct tale *tale, void (*run)(struct tale *tale)); /* returns when it is ready */
pid_t start_blocking(struct tale *tale, const struct blocking_call *call);
/* The same in the second of three threads; the others sleep. */
pid_t start_blocking_thread(struct tale *tale, const struct blocking_call *call);

void count(struct tale *tale);		    /* one thread that counts */
void count_with_vectors(struct tale *tale); /* eight threads whose vector registers must stay as they are */
void have_many_threads(struct tale *tale);  /* MANY_THREADS that sleep, and one that counts */
#define MANY_THREADS 200
/* SMALL_THREADS that sleep in calls with timeouts, on stacks with nothing between them, and one that counts */
void have_stacks_side_by_side(struct tale *tale);
#define SMALL_THREADS 100
void grow_threads(struct tale *tale); /* makes threads all the time */
void do_everything(
	struct tale *tale); /* threads of all sorts, 64 MiB, an alternate stack; and a child that counts */
void have_no_descriptors(struct tale *tale);
void forbid_writable_code(struct tale *tale);
void forbid_writable_code_and_data(struct tale *tale); /* … and RLIMIT_DATA is used up */
/* Two threads that count, the second on a stack with a protection key; result < 0: no keys here. */
void have_keyed_stack(struct tale *tale);
void filter_calls(struct tale *tale);	   /* seccomp kills it for almost anything */
void filter_threads(struct tale *tale);	   /* three threads that have such a filter, and one that counts */
void have_little_code(struct tale *tale);  /* no libc, no vdso, no stack: nothing mapped but a loop */
void have_little_stack(struct tale *tale); /* the stack pointer near the end of what is mapped */
void handle_signals(struct tale *tale);
void be_stormed(struct tale *tale); /* by signals of timers, all the time */
#define VFORK_MILLISECONDS 1000
void wait_in_vfork(struct tale *tale); /* nothing but a SIGKILL interrupts it while the child sleeps */

#endif
