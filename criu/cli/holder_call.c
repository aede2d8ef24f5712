/*
 * holder_call.c - `criu restore --mmap-images`, the caller's side. See holder.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/directories.h"
#include "cli/holder.h"

/* -errno, not recorded. */
static int connect_to_holder(int directory)
{
	struct sockaddr_un address;
	int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	holder_address(directory, HOLDER_SOCKET, &address);
	if (connection < 0 || connect(connection, (const void *)&address, sizeof(address)) < 0) {
		int error = errno;

		close(connection);
		return -error;
	}
	return connection;
}

static int reach_holder(const struct options *options, int directory)
{
	int connection = connect_to_holder(directory), result;

	if (connection >= 0)
		return connection;
	result = holder_begin(options);
	connection = connect_to_holder(directory); /* another caller may have begun one at the same time */
	return connection >= 0 ? connection : result ?: fail(-connection, "cannot reach the holder");
}

/* From here on they are read, instead of ending criu; but those that are ignored stay so. */
static int listen_for_signals(void)
{
	const int all[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action;
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < array_size(all); i++)
		if (sigaction(all[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(&set, all[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/*
 * The process that restores undoes all, and ends with the connection. Then the signal does here what it does to criu
 * otherwise. A second signal does so at once.
 */
static does_not_return void end_by_signal(int signals, int connection)
{
	struct pollfd polled[] = { { connection, POLLIN, 0 }, { signals, POLLIN, 0 } };
	struct signalfd_siginfo info;

	if (read(signals, &info, sizeof(info)) != sizeof(info))
		_exit(1);
	shutdown(connection, SHUT_WR);
	while (poll(polled, array_size(polled), -1) < 0 && errno == EINTR)
		;
	interrupt_end_by((int)info.ssi_signo);
	_exit(1);
}

/* The next message; 0: the other side has ended. */
static ssize_t read_answer(int connection, char *message, size_t size)
{
	ssize_t length;

	while ((length = recv(connection, message, size - 1, 0)) < 0 && errno == EINTR)
		;
	message[max(length, 0)] = '\0';
	return max(length, 0);
}

static does_not_return void await_end(int connection)
{
	int signals = listen_for_signals();
	struct pollfd polled[] = { { connection, POLLIN, 0 }, { signals, POLLIN, 0 } };
	char message[16];

	while (poll(polled, array_size(polled), -1) < 0 && errno == EINTR)
		;
	if (polled[1].revents & POLLIN)
		end_by_signal(signals, connection);
	if (read_answer(connection, message, sizeof(message)) == 2 && message[0] == HOLDER_ENDS)
		exit(message[1]);
	fputs("criu: restore failed\n  the process that restored has died\n", stderr);
	exit(1);
}

/*
 * Returns if the memory cannot be used. Otherwise criu ends as the restore has ended. A signal before that ends criu,
 * which the other side notices.
 */
static int ask(int connection)
{
	char message[1024];

	if (send(connection, "", 1, MSG_NOSIGNAL) != 1 || !read_answer(connection, message, sizeof(message)))
		return fail(0, "the process that holds it has ended");
	if (message[0] == HOLDER_REFUSES)
		return fail(0, "%s", message + 1);
	await_end(connection);
}

static int open_directory(const struct options *options)
{
	int directory = open(named_path(options), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return directory < 0 ? fail(errno, "cannot open the images directory %s", named_path(options)) :
			       directory;
}

/* A connection that asks for nothing tells that the holder is there. */
int command_hold(const struct options *options)
{
	autoclose int directory = open_directory(options);
	autoclose int connection = directory < 0 ? directory : reach_holder(options, directory);

	return min(connection, 0);
}

int holder_restore(const struct options *options)
{
	autoclose int directory = open_directory(options);
	autoclose int connection = -1;
	struct attempt attempt;
	struct options without = *options;
	autofree char *why = NULL;

	if (directory < 0)
		return directory;
	attempt_begin(&attempt);
	connection = reach_holder(options, directory);
	if (connection < 0 || ask(connection))
		without.not_held = why = copy_text(failure_text());
	attempt_forget(&attempt);
	without.mmap_images = false;
	return command_restore(&without);
}
