/*
 * network_guard.c - see network_guard.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel/proc.h"
#include "sockets/network_guard.h"
#include "sockets/network_lock.h"
#include "sockets/tcp_stream.h"

#define KILLED	      (1ULL << (SIGKILL - 1))
#define PF_EXITING    0x4 /* Linux: include/linux/sched.h */
#define LOOKS	      10
#define LOOK_PAUSE_US 2000

/* What the guard has beside that. */
struct watch {
	const struct guarded *guarded;
	int criu, ready; /* ready: the writing end of a pipe */
};

void network_streams_go_on(const struct guarded_stream *streams, size_t count, const char *run_id)
{
	network_lock_remove_kept(run_id);
	for (size_t i = 0; i < count; i++) {
		const int reuses = streams[i].reuses, fd = streams[i].fd;

		/* Not in repair mode, this still sends the packet that the other end answers. It clears SO_REUSEADDR. */
		ignore(tcp_repair_end(fd, true));
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuses, sizeof(reuses));
	}
}

static void end_silently(const struct guarded *guarded)
{
	for (size_t i = 0; i < guarded->count; i++)
		ignore(tcp_repair_begin(guarded->streams[i].fd));
}

/* The processes must not find criu's ends of their pipes here, either. */
static void keep_only_needed(const struct watch *watch)
{
	const struct guarded *guarded = watch->guarded;
	autofree int *kept = allocate_array(guarded->count + 3, sizeof(*kept));

	for (size_t i = 0; i < guarded->count; i++)
		kept[i] = guarded->streams[i].fd;
	kept[guarded->count] = guarded->lock;
	kept[guarded->count + 1] = watch->criu;
	kept[guarded->count + 2] = watch->ready;
	descriptors_let_go(kept, guarded->count + 3);
}

/* A process that has to be killed has the signal pending until it begins to exit. */
static bool is_dying(int proc)
{
	autofree char *text = NULL;
	struct proc_stat stat;
	const char *pending;

	if (proc < 0 || proc_read_stat(proc, &stat) || stat.flags & PF_EXITING)
		return true;
	if (read_record_at(proc, "status", &text) < 0)
		return true;
	pending = strstr(text, "\nSigPnd:");
	return pending && strtoull(pending + strlen("\nSigPnd:"), NULL, 16) & KILLED;
}

/* When criu's end is known, the kernel has already killed the processes that die with it. */
static bool does_root_live(int proc)
{
	for (int i = 0; i < LOOKS; i++) {
		if (is_dying(proc))
			return false;
		usleep(LOOK_PAUSE_US);
	}
	return true;
}

static does_not_return void be_guard(const struct watch *watch)
{
	const struct guarded *guarded = watch->guarded;
	struct pollfd end = { .fd = watch->criu, .events = POLLIN };
	int proc;

	prctl(PR_SET_NAME, "criu-guard");
	keep_only_needed(watch);
	proc = attempted(proc_open(guarded->root));
	close(watch->ready);
	while (poll(&end, 1, -1) < 0 && errno == EINTR)
		;
	if (does_root_live(proc))
		network_streams_go_on(guarded->streams, guarded->count, guarded->run_id);
	else
		end_silently(guarded);
	_exit(0);
}

/* No signal but SIGKILL reaches it: a terminal would send one to it and criu. */
static pid_t spawn(const struct watch *watch)
{
	sigset_t all, before;
	pid_t child;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	child = fork();
	if (child == 0)
		be_guard(watch);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return child;
}

/* Returns when the guard has closed what it does not need. */
int network_guard_begin(pid_t *guard, const struct guarded *guarded)
{
	autoclose int criu = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct watch watch = { .guarded = guarded, .criu = criu };
	int ends[2];
	char byte;

	if (criu < 0 || pipe2(ends, O_CLOEXEC) < 0)
		return fail(errno, "cannot prepare a process that guards TCP connections");
	watch.ready = ends[1];
	*guard = spawn(&watch);
	close(ends[1]);
	while (*guard > 0 && read(ends[0], &byte, 1) < 0 && errno == EINTR)
		;
	close(ends[0]);
	return *guard < 0 ? fail(errno, "cannot create a process that guards TCP connections") : 0;
}

void network_guard_end(pid_t guard)
{
	if (guard <= 0)
		return;
	kill(guard, SIGKILL);
	while (waitpid(guard, NULL, 0) < 0 && errno == EINTR)
		;
}
