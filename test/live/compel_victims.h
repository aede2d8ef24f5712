/*
 * compel_victims.h - the processes that compel_test stops: what they do, and what they record about what they noticed.
 */
#ifndef COMPEL_VICTIMS_H
#define COMPEL_VICTIMS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MOST_TICKERS 16

/* What a victim records, in memory that it shares with the test. */
struct tale {
	volatile long ticks[MOST_TICKERS]; /* counters of threads that never block for long */
	volatile long wrong_registers;	   /* a vector register changed */
	volatile long wrong_calls;	   /* a call had a wrong result; the last such call … */
	volatile long wrong_call, wrong_error;
	volatile long
		interrupted; /* epoll_wait() ended with EINTR: a tracer has died before it could hide its interrupt */
	volatile long wrong_stack; /* memory, mask or alternate signal stack changed */
	volatile int is_ready;
	volatile int is_done;
	volatile long result, error, milliseconds; /* for a victim that makes one call */
	volatile int signals;
};

/* A blocking call, and how it ends without a disturbance. */
struct blocking_call {
	const char *name;
	long (*make)(int argument);
	int argument;
	long result;
	int error;
	int milliseconds; /* how long it takes */
	enum {
		NEVER,
		WHEN_ORPHANED,
		ALWAYS
	} begins_again;	      /* when its timeout starts anew, so that it takes longer */
	int signal;	      /* sent by the test at its end; 0: none */
	bool is_told_by_code; /* its number is set right in front of the `syscall` */
};
extern const struct blocking_call blocking_calls[];
extern const int blocking_call_count;

/* Helpers of all victims. */
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
	struct tale *tale); /* threads of all kinds, 64 MiB, an alternate stack; and a child that counts */
void have_no_descriptors(struct tale *tale);
void forbid_writable_code(struct tale *tale);
void forbid_writable_code_and_data(struct tale *tale); /* … and RLIMIT_DATA is used up */
/* Two threads that count, the second on a stack with a protection key; result < 0: no keys here. */
void have_keyed_stack(struct tale *tale);
void filter_calls(struct tale *tale);	   /* seccomp kills it for almost anything */
void filter_threads(struct tale *tale);	   /* three threads that have such a filter, and one that counts */
void have_little_code(struct tale *tale);  /* no libc, no vdso, no stack: nothing mapped but a loop */
void have_little_stack(struct tale *tale); /* the stack pointer is near the end of the mapped stack */
void handle_signals(struct tale *tale);
void be_stormed(struct tale *tale); /* gets signals of timers all the time */
#define VFORK_MILLISECONDS 1000
void wait_in_vfork(struct tale *tale); /* only SIGKILL interrupts it while the child sleeps */

#endif
