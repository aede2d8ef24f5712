/*
 * queue_options.c - options of unix sockets: each gets a value that a new socket has not.
 *
 * usage: queue_options DIRECTORY all|plain
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "live.h"

#define PASSPIDFD   76 /* Linux 6.5 */
#define RCVPRIORITY 82 /* 6.14 */
#define PASSRIGHTS  83 /* 6.16 */
#define RCVMARK	    75 /* 5.19 */
#define BUF_LOCK    72 /* 5.15 */

struct option {
	int option, value;
	bool is_plain; /* an ordinary user may set it, and the format of criu 4.2 has it */
};

static const struct option options[] = {
	{ SO_REUSEADDR, 1, false },
	{ SO_DONTROUTE, 1, true },
	{ SO_BROADCAST, 1, true },
	{ SO_KEEPALIVE, 1, true },
	{ SO_OOBINLINE, 1, true },
	{ SO_NO_CHECK, 1, true },
	{ SO_PRIORITY, 5, true },
	{ SO_PASSCRED, 1, false },
	{ SO_RCVLOWAT, 3, true },
	{ SO_SNDBUF, 12345, true },
	{ SO_RCVBUF, 54321, true },
	{ SO_PASSSEC, 1, false },
	{ SO_DEBUG, 1, false },
	{ SO_SNDBUFFORCE, 6000001, false },
	{ SO_RCVBUFFORCE, 7000001, false },
	{ SO_MARK, 0x7654321, false },
	{ SO_TIMESTAMPING, 18, false },
	{ SO_TIMESTAMPNS, 1, false },
	{ SO_RXQ_OVFL, 1, false },
	{ SO_WIFI_STATUS, 1, false },
	{ SO_PEEK_OFF, 2, false },
	{ SO_NOFCS, 1, false },
	{ SO_BUSY_POLL, 77, false },
	{ SO_SELECT_ERR_QUEUE, 1, false },
	{ SO_INCOMING_CPU, 1, false },
	{ SO_PREFER_BUSY_POLL, 1, false },
	{ RCVMARK, 1, false },
	{ RCVPRIORITY, 1, false },
	{ PASSPIDFD, 1, false },
	{ PASSRIGHTS, 0, false },
	{ BUF_LOCK, 2, false },
};

static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
static int ends[3][2], before[3][sizeof(options) / sizeof(options[0])];
static const struct timeval limits[2] = { { 5, 4000 }, { 70000, 996000 } };
static const struct linger linger = { 1, 77 };
static const uint64_t rate = 0x123456789abc;
static struct sock_filter program[] = {
	{ BPF_LD | BPF_W | BPF_LEN, 0, 0, 0 },
	{ BPF_JMP | BPF_JEQ, 0, 1, 4 },
	{ BPF_RET, 0, 0, 0 }, /* no messages of 4 bytes */
	{ BPF_RET, 0, 0, UINT32_MAX },
};
static const struct sock_fprog filter = { 4, program };

static int get(int fd, int option)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? -12345 : value;
}

static void set(int fd, int option, const void *value, socklen_t size)
{
	live_check(setsockopt(fd, SOL_SOCKET, option, value, size) == 0, "option %d: %m", option);
}

static void set_up(bool is_plain)
{
	for (int i = 0; i < 3; i++) {
		live_check(socketpair(AF_UNIX, types[i] | SOCK_NONBLOCK, 0, ends[i]) == 0, "socketpair: %m");
		live_check(send(ends[i][0], "12345678", 8, 0) == 8, "send: %m");
		live_check(send(ends[i][0], "1234", 4, 0) == 4, "send: %m"); /* the filter would drop it */
		for (size_t j = 0; j < sizeof(options) / sizeof(options[0]); j++)
			if (options[j].is_plain || !is_plain) /* the kernel decides which ones it knows */
				setsockopt(ends[i][1], SOL_SOCKET, options[j].option, &options[j].value, 4);
		set(ends[i][1], SO_SNDTIMEO, &limits[0], sizeof(limits[0]));
		set(ends[i][1], SO_RCVTIMEO, &limits[1], sizeof(limits[1]));
		set(ends[i][1], SO_LINGER, &linger, sizeof(linger));
		set(ends[i][1], SO_ATTACH_FILTER, &filter, sizeof(filter));
		if (!is_plain) {
			set(ends[i][1], SO_LOCK_FILTER, &(int){ 1 }, sizeof(int));
			set(ends[i][1], SO_MAX_PACING_RATE, &rate, sizeof(rate));
			set(ends[i][1], SO_BINDTODEVICE, "lo", 3);
		}
		for (size_t j = 0; j < sizeof(options) / sizeof(options[0]); j++)
			before[i][j] = get(ends[i][1], options[j].option);
	}
}

static void check_structs(int fd)
{
	struct timeval limit;
	struct linger found;
	struct sock_filter code[4];
	socklen_t size = sizeof(limit);

	for (int i = 0; i < 2; i++)
		live_check(getsockopt(fd, SOL_SOCKET, i ? SO_RCVTIMEO : SO_SNDTIMEO, &limit, &size) == 0 &&
				   !memcmp(&limit, &limits[i], sizeof(limit)),
			   "another time limit: %ld.%06ld", (long)limit.tv_sec, (long)limit.tv_usec);
	size = sizeof(found);
	live_check(getsockopt(fd, SOL_SOCKET, SO_LINGER, &found, &size) == 0 &&
			   !memcmp(&found, &linger, size),
		   "another SO_LINGER");
	size = 4;
	live_check(getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, code, &size) == 0 && size == 4 &&
			   !memcmp(code, program, sizeof(program)),
		   "another filter");
}

static void check_others(int fd)
{
	char device[16] = "";
	uint64_t found = 0;
	socklen_t size = sizeof(found);

	live_check(getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &found, &size) == 0 && found == rate,
		   "another rate");
	size = sizeof(device);
	live_check(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, &size) == 0 && !strcmp(device, "lo"),
		   "another device: %s", device);
	live_check(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &size, sizeof(size)) < 0 && errno == EPERM,
		   "the filter is not locked");
}

static void check(bool is_plain)
{
	char text[20];

	for (int i = 0; i < 3; i++) {
		int fd = ends[i][1];

		for (size_t j = 0; j < sizeof(options) / sizeof(options[0]); j++)
			live_check(get(fd, options[j].option) == before[i][j],
				   "socket %d: option %d is %d, not %d", i, options[j].option,
				   get(fd, options[j].option), before[i][j]);
		check_structs(fd);
		if (!is_plain)
			check_others(fd);
	}
	for (int i = 1; i < 3; i++) {
		live_check(recv(ends[i][1], text, 20, 0) == 8 && recv(ends[i][1], text, 20, 0) == 4,
			   "recv: %m");
		live_check(send(ends[i][0], "1234", 4, 0) >= 0 || errno == EPERM, "send: %m");
		live_check(recv(ends[i][1], text, 20, MSG_DONTWAIT) < 0, "the filter does not filter");
	}
	live_check(recv(ends[0][1], text, 20, 0) == 12, "recv of the stream: %m");
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	set_up(!strcmp(argv[2], "plain"));
	live_ready();
	live_wait_stop();
	check(!strcmp(argv[2], "plain"));
	return live_finish();
}
