/*
 * keeper.c - holds userfaultfds between two snapshots. See keeper.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "kernel/proc.h"
#include "memory/keeper.h"

#define KEEPER_NAME "criu-keeper" /* the name that ps shows */

static void close_and_forget(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- the keeper itself ---- */

/* Without tracking.img, or its directory, the next snapshot cannot find this keeper. */
static bool is_forgotten(int watch)
{
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t size;

	while ((size = read(watch, events, sizeof(events))) > 0)
		for (char *at = events; at < events + size;) {
			const struct inotify_event *event = (void *)at;

			if (event->mask & (IN_DELETE_SELF | IN_IGNORED | IN_UNMOUNT) ||
			    (event->mask & IN_DELETE && event->len && !strcmp(event->name, "tracking.img")))
				return true;
			at += sizeof(*event) + event->len;
		}
	return false;
}

/* Closes the descriptors of processes that have ended; returns the number of the others. */
static size_t drop_ended(struct pollfd *polled, int *userfaultfds, size_t count)
{
	size_t left = 0;

	for (size_t i = 0; i < count; i++) {
		if (polled[i].fd >= 0 && polled[i].revents) {
			close_and_forget(&userfaultfds[i]);
			close_and_forget(&polled[i].fd);
		}
		left += polled[i].fd >= 0;
	}
	return left;
}

static void keep(const struct kept *kept, size_t count, int watch)
{
	struct pollfd *polled = allocate_array(count + 1, sizeof(*polled));
	int *userfaultfds = allocate_array(count, sizeof(*userfaultfds));

	for (size_t i = 0; i < count; i++) {
		polled[i] = (struct pollfd){ kept[i].pidfd, POLLIN, 0 };
		userfaultfds[i] = kept[i].userfaultfd;
	}
	polled[count] = (struct pollfd){ watch, POLLIN, 0 };
	do
		if (poll(polled, count + 1, -1) < 0 && errno != EINTR)
			break;
	while (drop_ended(polled, userfaultfds, count) && !is_forgotten(watch));
	_exit(0);
}

/* The keeper holds no directory of a file system that may be unmounted, either. */
static void let_go_of_all(const struct kept *kept, size_t count, int directory, int confirm)
{
	int *numbers = NULL;
	size_t kept_count = 0;

	for (size_t i = 0; i < count; i++) {
		*grow(&numbers, &kept_count) = kept[i].userfaultfd;
		*grow(&numbers, &kept_count) = kept[i].pidfd;
	}
	*grow(&numbers, &kept_count) = directory;
	*grow(&numbers, &kept_count) = confirm;
	descriptors_let_go(numbers, kept_count);
	free(numbers);
	if (chdir("/") < 0)
		_exit(1);
}

/*
 * Called only when the snapshot is complete, with its tracking.img: before that, an older snapshot's tracking.img in
 * the same directory may be deleted.
 */
static int watch_directory(int directory)
{
	autofree char *path = format_text("/proc/self/fd/%d", directory);
	int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (watch < 0 || inotify_add_watch(watch, path, IN_DELETE | IN_DELETE_SELF | IN_ONLYDIR) < 0 ||
	    faccessat(directory, "tracking.img", F_OK, 0) < 0)
		_exit(1);
	close(directory);
	return watch;
}

static void keeper_main(const struct kept *kept, size_t count, int directory, int confirm)
{
	sigset_t none;
	char byte;

	interrupt_end();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	prctl(PR_SET_NAME, KEEPER_NAME);
	let_go_of_all(kept, count, directory, confirm);
	/* From now on the keeper can be found. */
	if (write(confirm, "", 1) != 1 || read(confirm, &byte, 1) != 1)
		_exit(0);
	close(confirm);
	keep(kept, count, watch_directory(directory));
}

/* ---- users of a keeper ---- */

static int learn_start(struct keeper *keeper)
{
	autoclose int proc = proc_open(keeper->pid);
	struct proc_stat stat;
	char byte;

	if (proc < 0)
		return fail(-proc, "cannot read the process criu-keeper");
	if (read(keeper->confirm, &byte, 1) != 1 || proc_read_stat(proc, &stat))
		return fail(ESRCH, "the process criu-keeper has ended at once");
	keeper->started = stat.start_time;
	return 0;
}

int keeper_start(struct keeper *keeper, const struct kept *kept, size_t count, int directory)
{
	int ends[2];
	int result;

	*keeper = (struct keeper){ .pidfd = -1, .confirm = -1 };
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return fail(errno, "cannot create a pair of sockets");
	keeper->pid = fork();
	if (!keeper->pid)
		keeper_main(kept, count, directory, ends[0]);
	close(ends[0]);
	keeper->confirm = ends[1];
	if (keeper->pid < 0) {
		close_and_forget(&keeper->confirm);
		keeper->pid = 0;
		return fail(errno, "cannot start the process criu-keeper");
	}
	keeper->pidfd = syscall(SYS_pidfd_open, keeper->pid, 0);
	result = keeper->pidfd < 0 ? fail(errno, "cannot open the process criu-keeper") : learn_start(keeper);
	if (result)
		keeper_end(keeper);
	return result;
}

int keeper_confirm(struct keeper *keeper)
{
	if (send(keeper->confirm, "", 1, MSG_NOSIGNAL) != 1)
		return fail(errno, "the process criu-keeper is gone");
	return 0;
}

int keeper_find(struct keeper *keeper, pid_t pid, uint64_t started)
{
	autoclose int proc = proc_open(pid);
	struct proc_stat stat;

	*keeper = (struct keeper){ .pid = pid, .started = started, .confirm = -1 };
	keeper->pidfd = syscall(SYS_pidfd_open, pid, 0);
	/* In this order: what is read under the pid then belongs to the process that the descriptor holds. */
	if (keeper->pidfd >= 0 && proc >= 0 && !attempted(proc_read_stat(proc, &stat)) &&
	    stat.start_time == started && !strcmp(stat.comm, KEEPER_NAME) && stat.state != 'Z')
		return 0;
	keeper_forget(keeper);
	return -ESRCH;
}

int keeper_take(const struct keeper *keeper, int fd)
{
	int taken = syscall(SYS_pidfd_getfd, keeper->pidfd, fd, 0);

	return taken < 0 ? -errno : taken;
}

void keeper_end(struct keeper *keeper)
{
	if (keeper->pid && keeper->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, keeper->pidfd, SIGKILL, NULL, 0);
	keeper_forget(keeper);
}

void keeper_forget(struct keeper *keeper)
{
	if (!keeper->pid)
		return;
	close_and_forget(&keeper->pidfd);
	close_and_forget(&keeper->confirm);
	*keeper = (struct keeper){ .pidfd = -1, .confirm = -1 };
}
