/* crowded.c - almost as many descriptors as the limit allows: pipes, each with its number as content. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "live.h"

#define LIMIT 4096
#define PIPES 2040

static int pipes[PIPES][2];

int main(int argc, char **argv)
{
	struct rlimit limit = { LIMIT, LIMIT };

	live_begin(argc, argv);
	live_check(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit: %m");
	for (int i = 0; i < PIPES; i++)
		live_check(pipe2(pipes[i], i % 2 ? O_CLOEXEC : O_NONBLOCK) == 0 &&
				   write(pipes[i][1], &i, sizeof(i)) == sizeof(i),
			   "pipe %d: %m", i);
	live_ready();
	live_wait_stop();
	for (int i = 0; i < PIPES; i++) {
		int number = -1;

		live_check(read(pipes[i][0], &number, sizeof(number)) == sizeof(number) && number == i,
			   "pipe %d holds %d", i, number);
		live_check(fcntl(pipes[i][1], F_GETFL) == (i % 2 ? O_WRONLY : O_WRONLY | O_NONBLOCK),
			   "pipe %d: flags %#o", i, fcntl(pipes[i][1], F_GETFL));
		live_check(fcntl(pipes[i][0], F_GETFD) == (i % 2 ? FD_CLOEXEC : 0), "pipe %d: close-on-exec",
			   i);
	}
	return live_finish();
}
