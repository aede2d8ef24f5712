/*
 * latency_load.c - SOCKET KEYS SIZE CONNECTIONS RATE FILE: puts KEYS values of SIZE bytes into a redis server. Then it
 * reads or writes RATE of them each second, until it is killed, and appends a struct sample to FILE for each answer.
 *
 * Requests are due at fixed times, and the latency of a request counts from then on, although it is only sent when the
 * one before on its connection was answered. Otherwise a freeze, however long, would delay one request of each
 * connection: all others, which users would have sent meanwhile, would not exist.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SECOND	       1000000000L
#define LONGEST_VALUE  32768 /* redis takes 64 KiB in one line */
#define LONGEST_LINE   (LONGEST_VALUE + 128)
#define READS_TO_WRITE 4 /* so many reads for each write */

struct sample {
	uint64_t connection, due, done; /* ns of CLOCK_MONOTONIC */
};

static struct {
	const char *socket;
	long keys, connections;
	size_t size, answer; /* of a value, and of the server's answer with it */
	double rate;
	int file;
} load;

static void give_up(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * SECOND + time.tv_nsec;
}

static void sleep_until(uint64_t time)
{
	struct timespec end = { .tv_sec = time / SECOND, .tv_nsec = time % SECOND };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR)
		;
}

/* Waits until there is a server. */
static int connect_to_server(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (fd < 0 || strlen(load.socket) >= sizeof(address.sun_path))
		give_up(load.socket);
	strcpy(address.sun_path, load.socket);
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		usleep(10000);
	return fd;
}

static void send_all(int fd, const char *line, size_t size)
{
	while (size) {
		ssize_t done = write(fd, line, size);

		if (done < 0)
			give_up("write");
		line += done;
		size -= done;
	}
}

/* Sends a line, and waits for an answer that begins with a known character and has a known size. */
static void ask(int fd, const char *line, char first, size_t size)
{
	char answer[LONGEST_LINE];

	send_all(fd, line, strlen(line));
	for (size_t have = 0; have < size;) {
		ssize_t got = read(fd, answer + have, sizeof(answer) - have);

		if (got <= 0)
			give_up("read");
		have += got;
		if (answer[0] != first) {
			fprintf(stderr, "the server answers %.*s\n", (int)have, answer);
			exit(1);
		}
	}
}

static void ask_to_write(int fd, const char *line)
{
	ask(fd, line, '+', strlen("+OK\r\n"));
}

static void fill_server(void)
{
	char line[LONGEST_LINE];
	int fd = connect_to_server();

	snprintf(line, sizeof(line), "DEBUG POPULATE %ld key %zu\r\n", load.keys, load.size);
	ask_to_write(fd, line);
	close(fd);
}

static void read_value(int fd, long key)
{
	char line[64];

	snprintf(line, sizeof(line), "GET key:%ld\r\n", key);
	ask(fd, line, '$', load.answer);
}

static void write_value(int fd, long key)
{
	char line[LONGEST_LINE];
	int words = snprintf(line, sizeof(line), "SET key:%ld ", key);

	memset(line + words, 'v', load.size);
	strcpy(line + words + load.size, "\r\n");
	ask_to_write(fd, line);
}

static void *use_connection(void *argument)
{
	struct sample sample = { .connection = (uintptr_t)argument };
	unsigned short random[3] = { sample.connection };
	uint64_t interval = SECOND * load.connections / load.rate;
	int fd = connect_to_server();

	/* By default the kernel wakes a thread up to 50 us too late. */
	prctl(PR_SET_TIMERSLACK, 1);
	sample.due = now() + interval * sample.connection / load.connections;
	for (long number = 0;; number++, sample.due += interval) {
		sleep_until(sample.due);
		(number % (READS_TO_WRITE + 1) ? read_value : write_value)(fd, nrand48(random) % load.keys);
		sample.done = now();
		if (write(load.file, &sample, sizeof(sample)) != sizeof(sample))
			give_up("write");
	}
	return NULL;
}

static bool parse(int argc, char **argv)
{
	if (argc != 7)
		return false;
	load.socket = argv[1];
	load.keys = strtol(argv[2], NULL, 10);
	load.size = strtoul(argv[3], NULL, 10);
	load.answer = snprintf(NULL, 0, "$%zu\r\n", load.size) + load.size + strlen("\r\n");
	load.connections = strtol(argv[4], NULL, 10);
	load.rate = strtod(argv[5], NULL);
	load.file = open(argv[6], O_WRONLY | O_CREAT | O_APPEND, 0600);
	return load.keys > 0 && load.size > 0 && load.size <= LONGEST_VALUE && load.connections > 0 &&
	       load.rate > 0 && load.file >= 0;
}

int main(int argc, char **argv)
{
	if (!parse(argc, argv))
		return 2;
	fill_server();
	for (uintptr_t number = 1; number <= (uintptr_t)load.connections; number++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, use_connection, (void *)number))
			give_up("pthread_create");
	}
	pause();
}
