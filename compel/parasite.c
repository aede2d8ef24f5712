/*
 * parasite.c - talks to the parasite: connects to it, has it make calls, and stops it. Also makes calls without it.
 *
 * A message is a list of calls, sent over a socket pair that the victim created and of which criu got the other end by
 * pidfd_getfd(), which works across all namespaces. If the victim has no free descriptor, or the kernel is older than
 * 5.6, the calls are made one by one, by ptrace. While a process is infected, criu must not fork a child that keeps the
 * socket, because the parasite learns of criu's death when it closes.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/time.h"
#include "calls.h"
#include "internal.h"
#include "parasite.h"

int victim_read(const struct victim *victim, uint64_t address, void *buffer, size_t size)
{
	for (size_t done = 0; done < size;) {
		struct iovec here = { (char *)buffer + done, size - done };
		struct iovec there = { (void *)(address + done), size - done };
		ssize_t got = process_vm_readv(victim->pid, &here, 1, &there, 1, 0);

		if (got <= 0)
			return fail(got ? errno : EFAULT, "cannot read %zu bytes of its memory, at %#lx",
				    size, (unsigned long)address);
		done += (size_t)got;
	}
	return 0;
}

int victim_write(const struct victim *victim, uint64_t address, const void *buffer, size_t size)
{
	for (size_t done = 0; done < size;) {
		struct iovec here = { (char *)buffer + done, size - done };
		struct iovec there = { (void *)(address + done), size - done };
		ssize_t got = process_vm_writev(victim->pid, &here, 1, &there, 1, 0);

		if (got <= 0)
			return fail(got ? errno : EFAULT, "cannot write %zu bytes of its memory, at %#lx",
				    size, (unsigned long)address);
		done += (size_t)got;
	}
	return 0;
}

uint64_t victim_scratch(const struct victim *victim, size_t *size)
{
	if (size)
		*size = PARASITE_SIZE - PARASITE_SCRATCH;
	return victim->infection ? victim->infection->region + PARASITE_SCRATCH : 0;
}

static uint64_t sockets_address(const struct victim *victim)
{
	return victim->infection->region + PARASITE_STATE;
}

static int take_socket(const struct victim *victim)
{
	autoclose int process = (int)syscall(SYS_pidfd_open, victim->pid, 0);

	if (process < 0)
		return -errno;
	return (int)syscall(SYS_pidfd_getfd, process, victim->infection->sockets[1], 0);
}

static int begin_close(struct victim *victim, int which)
{
	struct infection *infection = victim->infection;
	struct traced_thread *thread = borrowed_thread(victim);
	struct arch_registers registers = thread->context.registers;
	const uint64_t arguments[6] = { (uint64_t)infection->sockets[which] };
	int result;

	arch_prepare_call(&registers, infection->region + blob()->call, infection->region + PARASITE_CALLS,
			  SYS_close, arguments);
	result = set_registers(thread, &registers);
	if (result < 0)
		return fail(-result, "cannot set the registers of thread %d", thread->tid);
	return call_begin(thread);
}

/*
 * The number is forgotten when the thread is certain to make the call, but has not made it yet: so nothing can close a
 * later descriptor with the same number. The result of close() is not needed, so the thread stops right after the call
 * (call_await_exit()), without an interrupt.
 */
static int make_close(struct victim *victim, int which)
{
	struct traced_thread *thread = borrowed_thread(victim);
	const int32_t none = -1;

	return call_await_entry(thread) ?:
		       victim_write(victim, sockets_address(victim) + which * sizeof(none), &none, sizeof(none)) ?:
		       call_begin(thread);
}

static int await_close(struct victim *victim, int which)
{
	victim->infection->sockets[which] = -1;
	return call_await_exit(borrowed_thread(victim));
}

static int close_remote(struct victim *victim, int which)
{
	if (victim->infection->sockets[which] < 0)
		return 0;
	return begin_close(victim, which) ?: make_close(victim, which) ?: await_close(victim, which);
}

int parasite_prepare_sockets(struct victim *victim)
{
	struct infection *infection = victim->infection;
	struct traced_thread *thread = borrowed_thread(victim);
	struct arch_registers registers = thread->context.registers;
	const uint64_t arguments[6] = { AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets_address(victim) };
	int result;

	arch_prepare_call(&registers, infection->region + blob()->call, infection->region + PARASITE_CALLS,
			  SYS_socketpair, arguments);
	result = set_registers(thread, &registers);
	return result < 0 ? fail(-result, "cannot set the registers of thread %d", thread->tid) : 0;
}

/* 1: connected; 0: not possible, calls are made by ptrace. */
static int take_sockets(struct victim *victim)
{
	struct infection *infection = victim->infection;
	long value = 0;
	int result = call_await(borrowed_thread(victim), &value);

	if (result < 0)
		return result;
	if (value < 0) {
		log_info("process %d: no socket: %s; calls are made by ptrace", victim->pid,
			 strerror((int)-value));
		return 0;
	}
	result = victim_read(victim, sockets_address(victim), infection->sockets, sizeof(infection->sockets));
	if (result < 0)
		return result;
	infection->socket = take_socket(victim);
	if (infection->socket >= 0)
		return 1;
	log_info("process %d: cannot get its socket: %s; calls are made by ptrace", victim->pid,
		 strerror(errno));
	result = close_remote(victim, 1);
	return result < 0 ? result : close_remote(victim, 0);
}

int parasite_connect(struct victim *victim)
{
	struct infection *infection = victim->infection;
	struct traced_thread *thread = borrowed_thread(victim);
	int result = take_sockets(victim);

	if (result <= 0)
		return result;
	result = set_place(thread, infection->region + blob()->serve, infection->region + PARASITE_CALLS);
	if (result < 0)
		return result;
	infection->is_serving = true;
	return 0;
}

static int does_not_stop(const struct victim *victim, int error)
{
	return fail(error, "thread %d does not stop in criu's code (the parasite)",
		    borrowed_thread(victim)->tid);
}

int parasite_interrupt(struct victim *victim)
{
	struct traced_thread *thread = borrowed_thread(victim);

	if (!thread->is_parked && ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0) < 0)
		return does_not_stop(victim, errno);
	return 0;
}

int parasite_await_park(struct victim *victim)
{
	struct traced_thread *thread = borrowed_thread(victim);
	int result = thread->is_parked ? 0 : trace_await_park(thread, trace_deadline(CALL_SECONDS));

	return result < 0 ? does_not_stop(victim, -result) : 0;
}

int parasite_begin_close(struct victim *victim)
{
	struct infection *infection = victim->infection;
	int result = parasite_await_park(victim);

	if (result)
		return result;
	infection->is_serving = false;
	result = close_remote(victim, 1); /* open only if the parasite has not run */
	return result || infection->sockets[0] < 0 ? result : begin_close(victim, 0);
}

int parasite_make_close(struct victim *victim)
{
	return victim->infection->sockets[0] < 0 ? 0 : make_close(victim, 0);
}

int parasite_await_close(struct victim *victim)
{
	struct infection *infection = victim->infection;
	int result = infection->sockets[0] < 0 ? 0 : await_close(victim, 0);

	if (infection->socket >= 0)
		close(infection->socket);
	infection->socket = -1;
	return result;
}

/* ---- waiting for an answer ---- */

#define NEWS_PATIENCE \
	20 /* milliseconds. The stop of a thread may go unreported: see sleep_until_news() in seize.c */

/*
 * A thread that works for criu may have been stopped by a signal that cannot be blocked (SIGSTOP, SIGCONT): resumes it.
 * -ESRCH: it was killed.
 */
static int nudge(struct traced_thread *thread)
{
	int status, result = look_for_stop(thread->tid, &status);

	if (!result && ptrace(PTRACE_CONT, thread->tid, 0, signal_of(status)) < 0)
		result = -errno;
	return result == -EAGAIN ? 0 : result;
}

static int nudge_all(struct victim *victim)
{
	int result = 0;

	for (size_t i = 0; !result && i < victim->thread_count; i++)
		if (!victim->threads[i].is_parked)
			result = nudge(&victim->threads[i]);
	return result;
}

/*
 * The kernel sends SIGCHLD to the tracer's process whenever a traced thread stops. The caller has blocked it, so it
 * stays pending and makes this descriptor readable. -1: there is none, and stops are polled every NEWS_PATIENCE.
 */
static int open_news(sigset_t *before)
{
	sigset_t news;

	sigemptyset(&news);
	sigaddset(&news, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &news, before);
	return signalfd(-1, &news, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Waits until there may be an answer. -errno: there will be none. */
static int wait_for_answer(struct victim *victim, int news)
{
	struct pollfd wait[] = { { .fd = victim->infection->socket, .events = POLLIN },
				 { .fd = news, .events = POLLIN } };
	struct signalfd_siginfo signal;
	int ready = poll(wait, array_size(wait), NEWS_PATIENCE);

	if (ready > 0 && wait[0].revents)
		return 0;
	if (ready > 0 && read(news, &signal, sizeof(signal)) < 0 && errno != EAGAIN)
		return -errno;
	return nudge_all(victim);
}

static int wait_and_receive(struct victim *victim, void *buffer, size_t size)
{
	uint64_t deadline = trace_deadline(CALL_SECONDS);
	sigset_t before;
	autoclose int news = open_news(&before);
	ssize_t got;
	int result = 0;

	do {
		got = recv(victim->infection->socket, buffer, size, MSG_DONTWAIT);
		if (got == (ssize_t)size)
			break;
		if (got >= 0)
			result = -ESRCH;
		else if (errno != EAGAIN && errno != EINTR)
			result = -errno;
		else if (monotonic_time() > deadline)
			result = -ETIMEDOUT;
		else
			result = wait_for_answer(victim, news);
	} while (!result);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return result;
}

int parasite_receive(struct victim *victim, struct remote_call *calls, size_t count)
{
	size_t size = count * sizeof(*calls);
	int result = 0;

	if (recv(victim->infection->socket, calls, size, MSG_DONTWAIT) != (ssize_t)size)
		result = wait_and_receive(victim, calls, size);
	if (result == -ETIMEDOUT)
		return fail(ETIMEDOUT, "it does not answer");
	return result ? fail(-result, "it died while it was being examined") : 0;
}

/* A parked parasite finds the message when it is resumed: it does not have to wait. */
int parasite_send(struct victim *victim, const struct remote_call *calls, size_t count)
{
	struct traced_thread *thread = borrowed_thread(victim);
	size_t size = count * sizeof(*calls);

	if (send(victim->infection->socket, calls, size, MSG_NOSIGNAL) != (ssize_t)size)
		return fail(errno, "it does not answer");
	if (!thread->is_parked)
		return 0;
	if (ptrace(PTRACE_CONT, thread->tid, 0, 0) < 0)
		return fail(errno, "cannot resume thread %d", thread->tid);
	victim->infection->sockets[1] = -1; /* closed by the parasite itself, first of all */
	thread->is_parked = false;
	return 0;
}

int call_parasite(struct victim *victim, struct remote_call *calls, size_t count)
{
	return parasite_send(victim, calls, count) ?: parasite_receive(victim, calls, count);
}

int victim_call(struct victim *victim, struct remote_call *calls, size_t count)
{
	int result = 0;

	if (victim->infection->is_serving) {
		for (size_t done = 0; done < count && !result; done += MOST_CALLS)
			result = call_parasite(victim, calls + done, min(MOST_CALLS, count - done));
		return result;
	}
	for (size_t index = 0; index < count && !result; index++)
		result = call_in_region(victim, calls[index].number, calls[index].arguments,
					&calls[index].result);
	return result;
}

int call_on_stack(struct victim *victim, struct traced_thread *thread, const struct way_home *home,
		  struct remote_call *calls, size_t count)
{
	uint64_t ip = victim->infection->gadgets.at[GADGET_SYSCALL_RETURN], sp;
	int result = home_write(home, victim, NULL, 0, &sp);

	if (!result)
		result = home_take(home, thread, &victim->infection->gadgets);
	if (!result && set_signal_mask(thread, ALL_SIGNALS) < 0)
		result = fail(errno, "cannot block the signals of thread %d", thread->tid);
	for (size_t index = 0; index < count && !result; index++)
		result = trace_syscall(thread, ip, sp, calls[index].number, calls[index].arguments,
				       &calls[index].result);
	return result;
}

int victim_call_thread(struct victim *victim, size_t index, struct remote_call *calls, size_t count)
{
	struct gadgets *gadgets = &victim->infection->gadgets;
	struct traced_thread *thread = &victim->threads[index];
	struct way_home home;
	int result;

	if (index == victim->infection->index)
		return victim_call(victim, calls, count);
	result = gadgets_lend(gadgets, victim->pid);
	if (result < 0)
		return result;
	result = home_prepare(&home, victim, thread, gadgets, NULL, 0);
	if (!result) {
		result = call_on_stack(victim, thread, &home, calls, count);
		result = first_failure(result, home_leave(&home, victim, thread));
		home_free(&home);
	}
	result = first_failure(result, gadgets_give_back(gadgets, victim->pid));
	return result < 0 ? fail_in(result, "thread %d", thread->tid) : 0;
}

/* ---- many processes at the same time ---- */

/* What cannot be sent to the parasite is asked by ptrace, without delay. */
static int ask_victim(struct victim *victim)
{
	struct infection *infection = victim->infection;
	struct thread_calls *list = &infection->asked->list;
	uint64_t scratch = victim_scratch(victim, NULL);
	int result = calls_check_abi(list->abi, victim);

	if (!result && list->size)
		result = victim_write(victim, scratch, list->bytes, list->size);
	infection->is_working = !result && infection->is_serving && list->thread == infection->index &&
				list->count <= MOST_CALLS;
	if (result)
		return result;
	return infection->is_working ? parasite_send(victim, list->calls, list->count) :
				       victim_call_thread(victim, list->thread, list->calls, list->count);
}

static int hear_victim(struct victim *victim)
{
	struct infection *infection = victim->infection;
	struct thread_calls *list = &infection->asked->list;
	int result = infection->is_working ? parasite_receive(victim, list->calls, list->count) : 0;

	if (!result && list->size)
		result = victim_read(victim, victim_scratch(victim, NULL), list->bytes, list->size);
	return result;
}

/*
 * Afterwards the parasites stay parked until the next call. So what only a stopped thread tells can be read, and the
 * way out is shorter.
 */
int victims_call(struct process_calls *processes, size_t count, size_t *failed)
{
	static const victim_step steps[] = { ask_victim, hear_victim, parasite_interrupt,
					     parasite_await_park };
	autofree struct victim **victims = allocate_array(count, sizeof(*victims));

	for (size_t i = 0; i < count; i++) {
		victims[i] = processes[i].victim;
		victims[i]->infection->asked = &processes[i];
	}
	return group_walk(victims, count, steps, array_size(steps), keep_error, failed);
}

int victims_park(struct victim *const *victims, size_t count)
{
	static const victim_step steps[] = { parasite_interrupt, parasite_await_park };
	autofree struct victim **infected = list_infected(victims, &count);
	bool had_failed = has_failed();
	size_t failed = 0;
	int result = group_walk(infected, count, steps, array_size(steps), keep_error, &failed);

	return result ? victim_failed_in(infected[failed], result, had_failed) : 0;
}
