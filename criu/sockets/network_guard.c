/*
 * network_guard.c - see network_guard.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/memory.h"
#include "sockets/network_guard.h"
#include "sockets/network_lock.h"
#include "sockets/tcp_stream.h"

struct network_guard {
	pid_t pid;
	atomic_bool *is_decided; /* in memory that criu and the guard share */
};

/* What the guard has. */
struct watch {
	const struct guarded_stream *streams;
	size_t count;
	int lock, criu, ready; /* ready: the writing end of a pipe */
	const char *run_id;
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

static void end_silently(const struct watch *watch)
{
	for (size_t i = 0; i < watch->count; i++)
		ignore(tcp_repair_begin(watch->streams[i].fd));
}

/* The processes must not find criu's ends of their pipes here, either. */
static void keep_only_needed(const struct watch *watch)
{
	autofree int *kept = allocate_array(watch->count + 3, sizeof(*kept));

	for (size_t i = 0; i < watch->count; i++)
		kept[i] = watch->streams[i].fd;
	kept[watch->count] = watch->lock;
	kept[watch->count + 1] = watch->criu;
	kept[watch->count + 2] = watch->ready;
	descriptors_let_go(kept, watch->count + 3);
}

static does_not_return void be_guard(const struct watch *watch, const atomic_bool *is_decided)
{
	struct pollfd end = { .fd = watch->criu, .events = POLLIN };

	prctl(PR_SET_NAME, "criu-guard");
	keep_only_needed(watch);
	close(watch->ready);
	while (poll(&end, 1, -1) < 0 && errno == EINTR)
		;
	if (*is_decided)
		network_streams_go_on(watch->streams, watch->count, watch->run_id);
	else
		end_silently(watch);
	_exit(0);
}

/* No signal but SIGKILL reaches it: a terminal would send one to it and criu. */
static pid_t spawn(const struct watch *watch, const atomic_bool *is_decided)
{
	sigset_t all, before;
	pid_t child;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	child = fork();
	if (child == 0)
		be_guard(watch, is_decided);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return child;
}

/* Returns when the guard has closed what it does not need. */
static int spawn_ready(struct network_guard *guard, struct watch *watch)
{
	int ends[2];
	char byte;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(errno, "cannot create a pipe");
	watch->ready = ends[1];
	guard->pid = spawn(watch, guard->is_decided);
	close(ends[1]);
	while (guard->pid > 0 && read(ends[0], &byte, 1) < 0 && errno == EINTR)
		;
	close(ends[0]);
	return guard->pid < 0 ? fail(errno, "cannot create a process that guards TCP connections") : 0;
}

int network_guard_begin(struct network_guard **guard, const struct guarded_stream *streams, size_t count,
			int lock, const char *run_id)
{
	autoclose int criu = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct watch watch = {
		.streams = streams, .count = count, .lock = lock, .criu = criu, .run_id = run_id
	};
	atomic_bool *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				   -1, 0);

	if (criu < 0 || shared == MAP_FAILED)
		return fail(errno, "cannot prepare a process that guards TCP connections");
	*guard = allocate(sizeof(**guard));
	(*guard)->is_decided = shared;
	return spawn_ready(*guard, &watch);
}

void network_guard_decide(struct network_guard *guard)
{
	if (guard)
		*guard->is_decided = true;
}

void network_guard_end(struct network_guard *guard)
{
	if (!guard)
		return;
	if (guard->pid > 0) {
		kill(guard->pid, SIGKILL);
		while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	munmap(guard->is_decided, sizeof(*guard->is_decided));
	free(guard);
}
