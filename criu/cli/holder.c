/*
 * holder.c - the process that holds the memory of images, and its children, which restore. See holder.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/directories.h"
#include "cli/holder.h"
#include "image/image.h"
#include "restore/held.h"

#define HOLDER_NAME "criu-holder" /* the name that ps shows */

struct holder {
	struct held_memory *held;
	int directory; /* of the images */
	int socket;
	int watch;	  /* inotify: is the socket still there? */
	struct stat name; /* of the socket in the directory: another holder may replace it */
};

void holder_address(int directory, const char *name, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	/* The path of the directory may be longer than an address. */
	snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%s", directory, name);
}

/* ---- a child ---- */

static void answer(int connection, enum holder_answer kind, const void *bytes, size_t size)
{
	char message[1024] = { (char)kind };

	size = min(size, sizeof(message) - 1);
	memcpy(message + 1, bytes, size);
	ignore(send(connection, message, size + 1, MSG_NOSIGNAL));
}

/*
 * If the caller is killed, the restore is interrupted, as it would be if the caller itself restored: the kernel sends
 * SIGTERM when the connection is closed. Afterwards nobody waits for the exit code.
 */
static void end_with_caller(int connection)
{
	struct pollfd hung_up = { connection, POLLIN | POLLRDHUP, 0 };

	ignore(fcntl(connection, F_SETOWN, getpid()));
	ignore(fcntl(connection, F_SETSIG, SIGTERM));
	ignore(fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) | O_ASYNC));
	if (poll(&hung_up, 1, 0) > 0)
		_exit(1);
}

static does_not_return void serve_in_child(const struct holder *holder, struct caller *caller, int connection)
{
	char code;

	if (recv(connection, &code, 1, 0) != 1) /* criu hold: it only looks whether there is a holder */
		_exit(0);
	error_init();
	prctl(PR_SET_NAME, "criu");
	signal(SIGCHLD, SIG_DFL);
	if (caller_adopt(caller, &connection)) {
		answer(connection, HOLDER_REFUSES, failure_text(), strlen(failure_text()));
		_exit(1);
	}
	environ = caller->environment;
	failure_clear();
	answer(connection, HOLDER_BEGINS, NULL, 0);
	end_with_caller(connection);
	code = (char)run_program((int)caller->argument_count, caller->arguments, holder->held);
	fflush(NULL);
	answer(connection, HOLDER_ENDS, &code, 1);
	_exit(code);
}

/* ---- the holder ---- */

/* The pid of the caller, who must have the same rights. */
static pid_t identify(int connection)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != geteuid())
		return 0;
	return peer.pid;
}

/* A child whose id, as it sees it, the tree does not need. As fork(). */
static pid_t fork_apart(const struct holder *holder)
{
	pid_t before = 0, child;
	char is_needed;

	do {
		int ends[2];

		if (pipe2(ends, O_CLOEXEC) < 0)
			return -1;
		child = fork();
		if (!child) {
			is_needed = held_memory_needs_id(holder->held, getpid());
			ignore(write_all(ends[1], &is_needed, 1));
			while (is_needed)
				pause();
			close(ends[0]);
			close(ends[1]);
			return 0;
		}
		if (before) /* until now it had the id, so that the next child got another one */
			kill(before, SIGKILL);
		close(ends[1]);
		if (child > 0 && read_all(ends[0], &is_needed, 1))
			is_needed = false; /* it has died */
		close(ends[0]);
		before = child;
	} while (child > 0 && is_needed);
	return child;
}

static void serve(const struct holder *holder, int connection, const struct caller *own)
{
	struct caller caller;
	struct attempt attempt;
	pid_t pid = identify(connection), child = -1;
	int result;

	attempt_begin(&attempt);
	result = pid ? caller_look(&caller, pid) ?: caller_enter_pids(&caller) :
		       fail(EPERM, "it is in a pid namespace that does not exist here, or another user");
	if (!result)
		child = fork_apart(holder);
	if (!child)
		serve_in_child(holder, &caller, connection);
	if (!result && child < 0)
		result = fail(errno, "cannot create a process");
	if (result)
		answer(connection, HOLDER_REFUSES, failure_text(), strlen(failure_text()));
	ignore(caller_enter_pids(own));
	attempt_forget(&attempt);
	if (pid)
		caller_free(&caller);
}

/* Is the socket gone, or another holder's? Then nobody finds this one. */
static bool is_forgotten(const struct holder *holder)
{
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	struct stat status;

	while (read(holder->watch, events, sizeof(events)) > 0)
		;
	return fstatat(holder->directory, HOLDER_SOCKET, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
	       status.st_dev != holder->name.st_dev || status.st_ino != holder->name.st_ino;
}

static bool serve_next(const struct holder *holder, const struct caller *own)
{
	int connection = accept4(holder->socket, NULL, NULL, SOCK_CLOEXEC);

	if (connection < 0)
		return false;
	serve(holder, connection, own);
	close(connection);
	return true;
}

/* What it has from the one who began it would last for as long as it lives. */
static void forget_starter(void)
{
	sigset_t none;

	for (int number = 1; number <= 64; number++)
		if (number != SIGKILL && number != SIGSTOP)
			signal(number,
			       number == SIGCHLD ? SIG_IGN : SIG_DFL); /* children are not waited for */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	ignore(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL)); /* an empty one */
}

static does_not_return void hold(const struct holder *holder)
{
	struct pollfd polled[] = { { holder->socket, POLLIN, 0 }, { holder->watch, POLLIN, 0 } };
	struct caller own;

	prctl(PR_SET_NAME, HOLDER_NAME);
	forget_starter();
	if (caller_look(&own, getpid()))
		_exit(1);
	while (poll(polled, array_size(polled), HOLDER_IDLE * 1000) > 0 && !is_forgotten(holder))
		serve_next(holder, &own);
	if (!is_forgotten(holder))
		unlinkat(holder->directory, HOLDER_SOCKET, 0);
	/* Who has found the socket before is served, too. */
	while (serve_next(holder, &own))
		;
	_exit(0);
}

/* The socket gets its name when it listens, and replaces that of a holder that was killed. */
static int name_socket(struct holder *holder)
{
	autofree char *temporary = format_text(HOLDER_SOCKET ".%d", getpid());
	struct sockaddr_un address;
	mode_t mask = umask(0177);
	int bound;

	holder_address(holder->directory, temporary, &address);
	bound = bind(holder->socket, (const void *)&address, sizeof(address));
	umask(mask);
	if (!bound && !listen(holder->socket, 128) &&
	    !fstatat(holder->directory, temporary, &holder->name, AT_SYMLINK_NOFOLLOW) &&
	    !renameat(holder->directory, temporary, holder->directory, HOLDER_SOCKET))
		return 0;
	bound = fail(errno, "cannot listen at " HOLDER_SOCKET);
	unlinkat(holder->directory, temporary, 0);
	return bound;
}

static int listen_there(struct holder *holder)
{
	autofree char *path = format_text("/proc/self/fd/%d", holder->directory);
	const uint32_t changes = IN_DELETE | IN_DELETE_SELF | IN_MOVED_FROM | IN_MOVED_TO;

	holder->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	holder->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (holder->socket < 0 || holder->watch < 0 ||
	    inotify_add_watch(holder->watch, path, changes | IN_ONLYDIR) < 0)
		return fail(errno, "cannot watch the images directory");
	return name_socket(holder);
}

static int load(struct holder *holder, const struct options *options)
{
	static struct request request; /* the memory refers to it as long as it exists */
	int result;

	request_fill(&request, options);
	result = image_store_open_directory(&request.images, named_path(options), false) ?:
			 image_store_lock(request.images, IMAGES_ARE_READ);
	if (result)
		return result;
	holder->directory = image_store_directory(request.images);
	return held_memory_load(&holder->held, &request);
}

static does_not_return void become_holder(const struct options *options, int ready)
{
	struct holder holder = { .socket = -1, .watch = -1 };

	setsid();
	if (fork())
		_exit(0);
	descriptors_let_go(&ready, 1);
	error_init();
	if (load(&holder, options) || chdir("/") < 0 || listen_there(&holder)) {
		ignore(write_all(ready, failure_text(), strlen(failure_text())));
		_exit(1);
	}
	ignore(write_all(ready, "", 1));
	close(ready);
	hold(&holder);
}

int holder_begin(const struct options *options)
{
	int ends[2];
	pid_t child;
	char text[1024];
	ssize_t length;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(errno, "cannot create a pipe");
	child = fork();
	if (!child)
		become_holder(options, ends[1]);
	close(ends[1]);
	if (child > 0)
		waitpid(child, NULL, 0);
	length = read(ends[0], text, sizeof(text) - 1);
	close(ends[0]);
	if (length == 1 && !text[0])
		return 0;
	text[max(length, 0)] = '\0';
	return fail(0, "no process can hold the memory of the images: %s", length > 0 ? text : "it has died");
}
