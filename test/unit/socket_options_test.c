/*
 * socket_options_test.c - options of sockets: each that this kernel has gets an odd value, and a new socket gets all
 * of them from the message. Invalid messages are errors that name the image.
 */
#include "unit.h"
#include <errno.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"
#include "kernel_constants.h"
#include "sockets/options.h"

static struct seen_file seen = { .holder = { .here = 7, .name = "a" }, .fd = 3 };
static struct file file = { .id = 5, .kind = &file_kind_pipe, .seen = &seen };
static const int kinds[][2] = {
	{ AF_UNIX, SOCK_STREAM }, { AF_UNIX, SOCK_DGRAM }, { AF_UNIX, SOCK_SEQPACKET },
	{ AF_INET, SOCK_STREAM }, { AF_INET, SOCK_DGRAM }, { AF_INET6, SOCK_STREAM },
};

static int begin(void **state unused)
{
	failure_clear();
	log_level = 0;
	return 0;
}

static SkOptsEntry *read_options(int fd)
{
	SkOptsEntry *options;

	assert_int_equal(socket_options_read(&file, fd, &options), 0);
	return options;
}

/* The bytes of the message; the caller frees them. */
static unsigned char *pack(const SkOptsEntry *options, size_t *size)
{
	unsigned char *bytes = allocate(*size = sk_opts_entry__get_packed_size(options));

	sk_opts_entry__pack(options, bytes);
	return bytes;
}

/* A new socket gets the options of `fd`, and has them then. */
static void is_restored(const int kind[2], int fd)
{
	autoclose int again = socket(kind[0], kind[1], 0);
	SkOptsEntry *options = read_options(fd), *restored;
	size_t size, restored_size;
	autofree unsigned char *bytes = pack(options, &size), *restored_bytes = NULL;

	if (socket_options_check(&file, options) || socket_options_set(&file, again, options) ||
	    socket_options_finish(&file, again, options))
		fail_msg("%s", failure_text());
	restored = read_options(again);
	restored_bytes = pack(restored, &restored_size);
	assert_int_equal(size, restored_size);
	assert_memory_equal(bytes, restored_bytes, size);
	image_free(options);
	image_free(restored);
}

static void usual(void **state unused)
{
	for (size_t i = 0; i < array_size(kinds); i++) {
		autoclose int fd = socket(kinds[i][0], kinds[i][1], 0);
		SkOptsEntry *options = read_options(fd);

		for (size_t j = 0; j < options->n_others; j++)
			print_error("others: %u\n", options->others[j]->option);
		assert_int_equal(options->n_others, 0);
		assert_int_equal(options->n_so_filter, 0);
		assert_null(options->so_bound_dev);
		assert_false(options->has_so_linger);
		image_free(options);
		is_restored(kinds[i], fd);
	}
}

static const struct {
	int option, value;
} odd[] = {
	{ SO_DEBUG, 1 },
	{ SO_REUSEADDR, 1 },
	{ SO_DONTROUTE, 1 },
	{ SO_BROADCAST, 1 },
	{ SO_SNDBUF, 12345 },
	{ SO_RCVBUF, 54321 },
	{ SO_SNDBUFFORCE, 6000001 },
	{ SO_RCVBUFFORCE, 7000001 },
	{ SO_RCVBUF, 1 },
	{ SO_SNDBUF, 1 },
	{ SO_KEEPALIVE, 1 },
	{ SO_OOBINLINE, 1 },
	{ SO_NO_CHECK, 1 },
	{ SO_PRIORITY, 5 },
	{ SO_PRIORITY, -7 },
	{ SO_REUSEPORT, 1 },
	{ SO_PASSCRED, 1 },
	{ SO_RCVLOWAT, 3333 },
	{ SO_TIMESTAMP_OLD, 1 },
	{ SO_PASSSEC, 1 },
	{ SO_TIMESTAMPNS_OLD, 1 },
	{ SO_MARK, 0x7654321 },
	{ SO_TIMESTAMPING_OLD, 18 },
	{ SO_RXQ_OVFL, 1 },
	{ SO_WIFI_STATUS, 1 },
	{ SO_PEEK_OFF, 0 },
	{ SO_PEEK_OFF, 4321 },
	{ SO_NOFCS, 1 },
	{ SO_LOCK_FILTER, 1 },
	{ SO_BUSY_POLL, 77 },
	{ SO_SELECT_ERR_QUEUE, 1 },
	{ SO_INCOMING_CPU, 1 },
	{ SO_MAX_PACING_RATE, 99 },
	{ SO_ZEROCOPY, 1 },
	{ SO_TIMESTAMP_NEW, 1 },
	{ SO_TIMESTAMPNS_NEW, 1 },
	{ SO_PREFER_BUSY_POLL, 1 },
	{ SO_BUF_LOCK, 2 },
	{ SO_TIMESTAMPING_NEW, 18 },
	{ SO_TXREHASH, 0 },
	{ SO_RCVMARK, 1 },
	{ SO_PASSPIDFD, 1 },
	{ SO_RCVPRIORITY, 1 },
	{ SO_PASSRIGHTS, 0 },
};

/* The kernel, and the privileges of this test, decide which of them a socket can have. */
static bool may_set(int fd, int option, const void *value, socklen_t size)
{
	if (setsockopt(fd, SOL_SOCKET, option, value, size) == 0)
		return true;
	assert_true(errno == ENOPROTOOPT || errno == EOPNOTSUPP || errno == EPERM ||
		    (errno == EACCES && option == SO_DEBUG));
	return false;
}

static void each_alone(void **state unused)
{
	for (size_t i = 0; i < array_size(kinds); i++) {
		int set = 0;

		for (size_t j = 0; j < array_size(odd); j++) {
			autoclose int fd = socket(kinds[i][0], kinds[i][1], 0);

			if (!may_set(fd, odd[j].option, &odd[j].value, 4))
				continue;
			is_restored(kinds[i], fd);
			set++;
		}
		assert_true(set > 15);
	}
}

/* Does it have the filter? An ordinary user may not give one to a TCP socket (6.18). */
static bool set_all(int fd)
{
	const struct timeval send = { 5, 4000 }, receive = { 1UL << 33, 996000 };
	const struct linger linger = { 1, 77 };
	const uint32_t time[2] = { CLOCK_TAI, SOF_TXTIME_REPORT_ERRORS };
	const uint64_t rate = 0x123456789abcULL;
	struct sock_filter program[] = { { BPF_JMP | BPF_JEQ, 1, 2, 0x81223344 },
					 { BPF_RET, 0, 0, 7 },
					 { BPF_RET, 0, 0, UINT32_MAX },
					 { BPF_RET, 0, 0, 0 } };
	const struct sock_fprog filter = { array_size(program), program };
	bool has_filter;

	for (size_t i = 0; i < array_size(odd); i++)
		if (odd[i].option != SO_LOCK_FILTER)
			may_set(fd, odd[i].option, &odd[i].value, 4);
	assert_true(may_set(fd, SO_SNDTIMEO, &send, sizeof(send)));
	assert_true(may_set(fd, SO_RCVTIMEO, &receive, sizeof(receive)));
	assert_true(may_set(fd, SO_LINGER, &linger, sizeof(linger)));
	has_filter = may_set(fd, SO_ATTACH_FILTER, &filter, sizeof(filter));
	assert_true(may_set(fd, SO_LOCK_FILTER, &(int){ 1 }, 4));
	may_set(fd, SO_TXTIME, time, sizeof(time));
	may_set(fd, SO_MAX_PACING_RATE, &rate, sizeof(rate));
	may_set(fd, SO_BINDTODEVICE, "lo", 3);
	return has_filter;
}

static void all_together(void **state unused)
{
	for (size_t i = 0; i < array_size(kinds); i++) {
		autoclose int fd = socket(kinds[i][0], kinds[i][1], 0);
		bool has_filter = set_all(fd);
		SkOptsEntry *options = read_options(fd);

		assert_int_equal(options->n_so_filter, has_filter ? 4 : 0);
		if (has_filter)
			assert_int_equal(options->so_filter[0], 0x0015010281223344); /* as 4.2.1 writes it */
		assert_int_equal(options->so_linger, 77);
		assert_int_equal(options->so_rcv_tmo_sec, 1UL << 33);
		assert_true(options->n_others > 7);
		image_free(options);
		is_restored(kinds[i], fd);
	}
}

/* One flag tells whether the times of all options are in the new layout. */
static void timestamps(void **state unused)
{
	static const int times[] = { SO_TIMESTAMP_OLD, SO_TIMESTAMPNS_OLD, SO_TIMESTAMP_NEW,
				     SO_TIMESTAMPNS_NEW },
			 timestamping[] = { SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW };

	for (size_t i = 0; i < 16; i++) {
		autoclose int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
		int first = times[i & 3], second = timestamping[i >> 2 & 1];

		assert_true(may_set(fd, i & 8 ? first : second, &(int){ 16 }, 4));
		assert_true(may_set(fd, i & 8 ? second : first, &(int){ 16 }, 4));
		is_restored(kinds[1], fd);
	}
}

static void extended_filter(void **state unused)
{
	const struct bpf_insn program[] = { { .code = BPF_ALU64 | BPF_MOV, .imm = 100 },
					    { .code = BPF_JMP | BPF_EXIT } };
	union bpf_attr attributes = {
		.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insns = (uintptr_t)program,
		.insn_cnt = array_size(program),
		.license = (uintptr_t) "GPL",
	};
	autoclose int loaded = syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes));
	autoclose int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	SkOptsEntry *options;
	char text[1000];

	if (loaded < 0)
		skip();
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &loaded, sizeof(loaded)), 0);
	assert_int_equal(socket_options_read(&file, fd, &options), -REFUSED);
	failure_report(text, sizeof(text), NULL, NULL);
	assert_non_null(strstr(text, "process 7 (a): descriptor 3 is a socket with an eBPF program"));
	image_free(options);
}

/* What is read of many sockets at once is what is read of each alone. One of them was closed. `left`: of descriptors. */
static void expect_many(int left)
{
	enum { COUNT = 300, CLOSED = 7 };
	static struct seen_file looked_at[COUNT];
	static struct file files[COUNT];
	static struct options_reading readings[COUNT];
	static SkOptsEntry *found[COUNT];
	autoclose int self = syscall(SYS_pidfd_open, getpid(), 0);
	struct rlimit before, few;

	for (size_t i = 0; i < COUNT; i++) {
		found[i] = NULL;
		looked_at[i] = seen;
		looked_at[i].holder.pidfd = self;
		looked_at[i].fd = socket(kinds[i % 6][0], kinds[i % 6][1], 0);
		assert_true(looked_at[i].fd >= 0);
		if (i % 5 == 0)
			set_all(looked_at[i].fd);
		files[i] = file;
		files[i].seen = &looked_at[i];
		readings[i] = (struct options_reading){ &files[i], &found[i], 1 };
	}
	close(looked_at[CLOSED].fd);
	looked_at[CLOSED].fd = 99999;
	getrlimit(RLIMIT_NOFILE, &before);
	few = (struct rlimit){ descriptors_count() + left, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	socket_options_read_all(readings, COUNT);
	setrlimit(RLIMIT_NOFILE, &before);
	assert_true(readings[CLOSED].result < 0);
	for (size_t i = 0; i < COUNT; i++) {
		SkOptsEntry *alone;
		autofree unsigned char *bytes = NULL, *expected = NULL;
		size_t size, expected_size;

		if (i == CLOSED)
			continue;
		assert_int_equal(readings[i].result, 0);
		alone = read_options(looked_at[i].fd);
		expected = pack(alone, &expected_size);
		bytes = pack(found[i], &size);
		assert_int_equal(size, expected_size);
		assert_memory_equal(bytes, expected, size);
		image_free(alone);
		image_free(found[i]);
		close(looked_at[i].fd);
	}
}

static void many_at_once(void **state unused)
{
	expect_many(500);
	expect_many(100);
	expect_many(1);
}

static void is_refused(const SkOptsEntry *options, const char *word)
{
	assert_true(socket_options_check(&file, options) < 0);
	assert_non_null(strstr(failure_text(), "files.img: file 5"));
	assert_non_null(strstr(failure_text(), word));
	failure_clear();
}

static void forged(void **state unused)
{
	SkOptsEntry options;
	SkOptionEntry other = SK_OPTION_ENTRY__INIT, *others[] = { &other, &other };
	uint64_t endless[5000] = { 0 };

#define refused(field, new_value, word)        \
	do {                                   \
		sk_opts_entry__init(&options); \
		options.field = new_value;     \
		is_refused(&options, word);    \
	} while (0)
	refused(so_sndbuf, 1U << 31, "size");
	refused(so_rcvbuf, UINT32_MAX, "size");
	refused(so_buf_lock, 4, "size");
	refused(so_snd_tmo_sec, 1UL << 63, "time limit");
	refused(so_rcv_tmo_usec, 1000000, "time limit");
	refused(so_bound_dev, (char *)"", "device");
	refused(so_bound_dev, (char *)"abcdefghijklmnop", "device");
	sk_opts_entry__init(&options);
	options.others = others;
	options.n_others = 1;
	is_refused(&options, "does not know the socket option 0");
	other.option = SO_ERROR;
	is_refused(&options, "does not know the socket option 4");
	other.option = SO_RXQ_OVFL;
	other.value = 1UL << 32;
	is_refused(&options, "SO_RXQ_OVFL");
	other.value = 1;
	assert_int_equal(socket_options_check(&file, &options), 0);
	options.n_others = 2;
	is_refused(&options, "twice");
	sk_opts_entry__init(&options);
	options.so_filter = endless;
	options.n_so_filter = 1; /* a program must end by a return */
	is_refused(&options, "filter");
	options.n_so_filter = array_size(endless);
	is_refused(&options, "filter");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(usual, begin),		cmocka_unit_test_setup(each_alone, begin),
		cmocka_unit_test_setup(all_together, begin),	cmocka_unit_test_setup(timestamps, begin),
		cmocka_unit_test_setup(extended_filter, begin), cmocka_unit_test_setup(forged, begin),
		cmocka_unit_test_setup(many_at_once, begin),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
