/*
 * compel_victims.c - see compel_victims.h. The victim itself makes these checks, from inside, because it must not
 * notice anything.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "compiler.h"
#include "compel_victims.h"

struct tale *story;

pid_t start_victim(struct tale *tale, void (*run)(struct tale *tale))
{
	pid_t pid;

	memset((void *)tale, 0, sizeof(*tale));
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		story = tale;
		run(tale);
		_exit(0);
	}
	while (!tale->is_ready && !waitpid(pid, NULL, WNOHANG))
		usleep(1000);
	return pid;
}

/* ---- threads that run ---- */

void start_thread(void *(*run)(void *), long argument)
{
	pthread_t thread;

	pthread_create(&thread, NULL, run, (void *)argument);
}

void *sleep_for_ever(void *argument)
{
	for (;;)
		sleep(1000);
	return argument;
}

void count(struct tale *tale)
{
	tale->is_ready = 1;
	for (;;)
		tale->ticks[0]++;
}

/* Fills ymm0…ymm15 with `value`, spins, and returns whether they still have it. */
static bool vectors_stay(uint64_t value, long rounds)
{
	uint64_t different;

	__asm__ volatile(
		"vmovq %[value], %%xmm0\n vpbroadcastq %%xmm0, %%ymm0\n"
		".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqa %%ymm0, %%ymm\\n\n .endr\n"
		"1: dec %[rounds]\n jnz 1b\n"
		".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
		" vpxor %%ymm0, %%ymm\\n, %%ymm\\n\n .endr\n"
		".irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vpor %%ymm\\n, %%ymm1, %%ymm1\n .endr\n"
		"vmovq %[value], %%xmm2\n vpbroadcastq %%xmm2, %%ymm2\n vpxor %%ymm0, %%ymm2, %%ymm2\n"
		"vpor %%ymm2, %%ymm1, %%ymm1\n vextracti128 $1, %%ymm1, %%xmm2\n vpor %%xmm1, %%xmm2, %%xmm1\n"
		"vpsrldq $8, %%xmm1, %%xmm2\n vpor %%xmm1, %%xmm2, %%xmm1\n vmovq %%xmm1, %[different]\n vzeroupper\n"
		: [different] "=&r"(different), [rounds] "+r"(rounds)
		: [value] "r"(value)
		: "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
		  "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	return !different;
}

static void *spin_with_vectors(void *argument)
{
	long index = (long)argument;
	char stack[64 * 1024]; /* there is always room, and foreign writes to the stack show */

	memset(stack, (int)index, sizeof(stack));
	for (;;) {
		if (!vectors_stay(0x0123456789abcdefULL * (uint64_t)(index + 1), 20000))
			story->wrong_registers++;
		if (stack[0] != (char)index || memcmp(stack, stack + 1, sizeof(stack) - 1))
			story->wrong_stack++;
		story->ticks[index]++;
	}
	return NULL;
}

void count_with_vectors(struct tale *tale)
{
	for (long index = 1; index < 8; index++)
		start_thread(spin_with_vectors, index);
	for (long index = 1; index < 8; index++) {
		while (!tale->ticks[index])
			usleep(1000);
	}
	usleep(20000);
	tale->is_ready = 1;
	spin_with_vectors(NULL);
}

void have_many_threads(struct tale *tale)
{
	for (long i = 0; i < MANY_THREADS; i++)
		start_thread(sleep_for_ever, i);
	usleep(100000); /* a thread that is being created blocks all signals */
	count(tale);
}

static void check(bool is_right, long call)
{
	if (is_right)
		return;
	story->wrong_error = errno;
	story->wrong_call = call;
	story->wrong_calls++;
}

static void *wait_with_timeouts(void *argument)
{
	bool polls = (long)argument % 2;

	for (;;) {
		long result = polls ? poll_nothing(300) : sleep_with_rest(300);

		check(!result, polls ? SYS_poll : SYS_clock_nanosleep);
	}
	return argument;
}

void have_stacks_side_by_side(struct tale *tale)
{
	size_t size = 32 * 1024;
	char *stacks = mmap(NULL, SMALL_THREADS * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	for (long i = 0; i < SMALL_THREADS; i++) {
		pthread_attr_setstack(&attributes, stacks + i * size, size);
		pthread_create(&thread, &attributes, wait_with_timeouts, (void *)i);
	}
	usleep(100000);
	count(tale);
}

static void *live_shortly(void *argument)
{
	usleep((unsigned)(long)argument);
	return NULL;
}

void grow_threads(struct tale *tale)
{
	pthread_attr_t detached;
	pthread_t thread;

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	for (;;) {
		if (!pthread_create(&thread, &detached, live_shortly, (void *)(tale->ticks[0] % 40 * 100)))
			tale->ticks[0]++;
		tale->is_ready = 1;
	}
}

/* ---- all sorts of threads, for the tests that kill the tracer ---- */

static void *wait_in_epoll(void *argument)
{
	struct epoll_event event;
	int epoll = epoll_create1(0);

	for (;; story->ticks[(long)argument]++) {
		int result = epoll_wait(epoll, &event, 1, 3);

		if (result < 0 && errno == EINTR)
			story->interrupted++;
		else
			check(result == 0, SYS_epoll_wait);
	}
	return NULL;
}

static void *wait_in_futex(void *argument)
{
	static int word;

	for (;; story->ticks[(long)argument]++) {
		struct timespec time = { 0, 2000000 };

		errno = 0;
		check(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &time, NULL, 0) == -1 && errno == ETIMEDOUT,
		      SYS_futex);
	}
	return NULL;
}

static void *sleep_all_the_time(void *argument)
{
	for (;; story->ticks[(long)argument]++) {
		struct timespec time = { 0, 1000000 }, rest;

		check(clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &rest) == 0, SYS_clock_nanosleep);
	}
	return NULL;
}

/* Makes calls that never block, with its own mask and alternate stack, and checks that these do not change. */
static void *look_at_oneself(void *argument)
{
	static char memory[32768];
	stack_t mine = { .ss_sp = memory, .ss_size = sizeof(memory) }, now;
	sigset_t mask, seen;

	sigaltstack(&mine, NULL);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigaddset(&mask, SIGRTMIN + 3);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	for (;; story->ticks[(long)argument]++) {
		sigaltstack(NULL, &now);
		pthread_sigmask(SIG_SETMASK, NULL, &seen);
		if (now.ss_sp != memory || now.ss_size != sizeof(memory) || now.ss_flags ||
		    memcmp(&mask, &seen, 8))
			story->wrong_stack++;
	}
	return NULL;
}

static void count_as_child(struct tale *tale)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		tale->ticks[6]++;
}

void do_everything(struct tale *tale)
{
	size_t size = 64 << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(memory, 7, size);
	if (!fork())
		count_as_child(tale);
	start_thread(wait_in_epoll, 1);
	start_thread(wait_in_futex, 2);
	start_thread(sleep_all_the_time, 3);
	start_thread(look_at_oneself, 4);
	start_thread(spin_with_vectors, 5);
	while (!tale->ticks[1] || !tale->ticks[2] || !tale->ticks[3] || !tale->ticks[4] || !tale->ticks[5])
		usleep(1000);
	usleep(20000);
	tale->is_ready = 1;
	spin_with_vectors(NULL);
}

/* ---- processes that are hard to infect ---- */

void have_no_descriptors(struct tale *tale)
{
	struct rlimit limit = { 3, 3 };

	close_range(3, ~0U, 0);
	setrlimit(RLIMIT_NOFILE, &limit);
	count(tale);
}

#define SET_MDWE 65

void forbid_writable_code(struct tale *tale)
{
	tale->result = prctl(SET_MDWE, 1, 0, 0, 0);
	count(tale);
}

void forbid_writable_code_and_data(struct tale *tale)
{
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_DATA, &none);
	forbid_writable_code(tale);
}

static void filter_own_calls(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { array_size(filter), filter };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

void filter_calls(struct tale *tale)
{
	filter_own_calls();
	count(tale);
}

static void *filter_and_count(void *argument)
{
	filter_own_calls();
	for (;;)
		story->ticks[(long)argument]++;
	return NULL;
}

void filter_threads(struct tale *tale)
{
	for (long i = 0; i < 3; i++)
		start_thread(filter_and_count, i + 1);
	usleep(100000);
	count(tale);
}

void handle_signals(struct tale *tale)
{
	signal(SIGUSR1, count_signal);
	count(tale);
}

#define LONELY 0x200000000UL

/* Has three pages: code, stack, the tale. The code unmaps everything else and counts. */
void have_little_code(struct tale *tale)
{
	extern const char lonely_code[], lonely_code_end[];

	mmap((void *)LONELY, 2 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	memcpy((void *)LONELY, lonely_code, (size_t)(lonely_code_end - lonely_code));
	mprotect((void *)LONELY, 4096, PROT_READ | PROT_EXEC);
	mremap(tale, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)(LONELY + 2 * 4096));
	tale = (struct tale *)(LONELY + 2 * 4096);
	/* Otherwise the kernel would write to memory that is gone. */
	syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_FLAG_UNREGISTER,
		RSEQ_SIG);
	__asm__ volatile("mov %[stack], %%rsp\n jmp *%[code]"
			 :
			 : [stack] "r"(LONELY + 2 * 4096), [code] "r"(LONELY), "b"(&tale->ticks[0]),
			   "r"(&tale->is_ready), "d"(&tale->is_ready));
	__builtin_unreachable();
}

__asm__(".text\n"
	"lonely_code:\n"
	"	mov %rdx, %r12\n"
	"	xor %edi, %edi\n mov $0x200000000, %rsi\n mov $11, %eax\n syscall\n"
	"	mov $0x200003000, %rdi\n mov $0x7ffdffffc000, %rsi\n mov $11, %eax\n syscall\n"
	"	movl $1, (%r12)\n"
	"1:	incq (%rbx)\n jmp 1b\n"
	"	.skip 128, 0x90\n"
	"lonely_code_end:\n");

/* Moves the stack pointer to just above the lowest page of the stack that is mapped so far. */
void have_little_stack(struct tale *tale)
{
	char line[256];
	unsigned long start = 0;
	FILE *maps = fopen("/proc/self/maps", "r");

	while (maps && fgets(line, sizeof(line), maps)) {
		if (strstr(line, "[stack]"))
			start = strtoul(line, NULL, 16);
	}
	tale->is_ready = 1;
	__asm__ volatile("mov %[stack], %%rsp\n 1: incq (%[ticks])\n jmp 1b"
			 :
			 : [stack] "r"(start + 256), [ticks] "r"(&tale->ticks[0])
			 : "memory");
	__builtin_unreachable();
}

static void *count_on_keyed_stack(void *argument unused)
{
	for (;;)
		story->ticks[1]++;
	return NULL;
}

/*
 * The thread inherits the right to use the key. A signal handler does not have this right at first, and neither does a
 * thread whose registers a tracer has set.
 */
void have_keyed_stack(struct tale *tale)
{
	const size_t size = 256 << 10;
	char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long key = syscall(SYS_pkey_alloc, 0, 0);
	pthread_attr_t attributes;
	pthread_t thread;

	tale->result = key;
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stack, size);
	if (key < 0 || syscall(SYS_pkey_mprotect, stack, size, PROT_READ | PROT_WRITE, key) ||
	    pthread_create(&thread, &attributes, count_on_keyed_stack, NULL))
		tale->result = -1;
	while (tale->result >= 0 && !tale->ticks[1])
		usleep(1000);
	count(tale);
}

/* ---- timers ---- */

#define STORM_TIMERS 16
#define STORM_PERIOD 200000 /* nanoseconds */

static void ignore_shot(int signo unused)
{
}

/* When the kernel dequeues the signal of a timer, it releases its lock: an interrupt that arrives then may get lost. */
void be_stormed(struct tale *tale)
{
	struct itimerspec often = { { 0, STORM_PERIOD }, { 0, STORM_PERIOD } };
	struct sigaction action = { .sa_handler = ignore_shot, .sa_flags = SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	timer_t timer;

	sigaction(SIGRTMIN, &action, NULL);
	for (int i = 0; i < STORM_TIMERS; i++)
		if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &often, NULL))
			_exit(1);
	tale->is_ready = 1;
	for (;;) {
		usleep(50);
		tale->ticks[0]++;
	}
}

/* ---- processes that cannot be stopped at once ---- */

void wait_in_vfork(struct tale *tale)
{
	for (;; usleep(1000)) {
		if (vfork())
			continue;
		tale->is_ready = 1;
		usleep(VFORK_MILLISECONDS * 1000);
		_exit(0);
	}
}
