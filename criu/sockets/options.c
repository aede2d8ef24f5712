/*
 * options.c - see options.h.
 *
 * An option is one row of the table below. A dump asks for all of them, for many sockets at once where the kernel can do
 * that (kernel/option_reader.h). A restore sets an option only if the new socket has another value, so it never sets
 * what the family does not have. It does not ask the kernel for a value that every new socket has.
 *
 * Two options cannot be read: SO_BUSY_POLL_BUDGET (a hint) and SO_INQ of unix sockets (Linux 6.18).
 */
#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/net_tstamp.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/helper_thread.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"
#include "kernel/option_reader.h"
#include "kernel_constants.h"
#include "sockets/options.h"

/* Values of the new socket's options are first or last changed. */
enum turn { FIRST, LAST };

#define NOT_KNOWN -1 /* what a new socket has: it must be asked for */

/* An option of 4 bytes that has a field: FIELD bool or uint32, which are alike for protobuf-c. */
struct field_option {
	int option;
	const char *name;
	enum turn turn;
	int64_t at_first; /* what every new socket has */
	size_t has, value;
};

#define FIELD(option, turn, at_first, field)                                         \
	{                                                                            \
		option, #option, turn, at_first, offsetof(SkOptsEntry, has_##field), \
			offsetof(SkOptsEntry, field)                                 \
	}

/* A program of a cgroup gives new sockets of the internet a mark and a priority (BPF_CGROUP_INET_SOCK_CREATE). */
static const struct field_option fields[] = {
	FIELD(SO_REUSEADDR, FIRST, 0, reuseaddr),
	FIELD(SO_REUSEPORT, FIRST, 0, so_reuseport),
	FIELD(SO_PRIORITY, FIRST, NOT_KNOWN, so_priority),
	FIELD(SO_MARK, FIRST, NOT_KNOWN, so_mark),
	FIELD(SO_DONTROUTE, FIRST, 0, so_dontroute),
	FIELD(SO_NO_CHECK, FIRST, 0, so_no_check),
	FIELD(SO_BROADCAST, FIRST, 0, so_broadcast),
	FIELD(SO_KEEPALIVE, FIRST, 0, so_keepalive),
	FIELD(SO_OOBINLINE, FIRST, 0, so_oobinline),
	FIELD(SO_RCVLOWAT, LAST, 1, so_rcvlowat),
	/*
	 * With these, an unnamed socket that sends or connects gets a name; and they change what is received. A socket
	 * that is accepted may have those of its listener (Linux 6.16).
	 */
	FIELD(SO_PASSCRED, LAST, NOT_KNOWN, so_passcred),
	FIELD(SO_PASSSEC, LAST, NOT_KNOWN, so_passsec),
};

static uint32_t *value_of(const struct field_option *field, const SkOptsEntry *options)
{
	return (uint32_t *)((char *)options + field->value);
}

static protobuf_c_boolean *has_of(const struct field_option *field, const SkOptsEntry *options)
{
	return (protobuf_c_boolean *)((char *)options + field->has);
}

/*
 * An option that has no field: sk_opts_entry.others, if the value is not the usual one. SO_TIMESTAMPING before
 * SO_TIMESTAMP and its like: all have one flag for the layout of times (_NEW), which the last one sets. A reader sees
 * the old ones as 0 if the flag is set; but SO_TIMESTAMP_NEW as 1 if it is SO_TIMESTAMPNS_NEW.
 */
struct other_option {
	int option;
	const char *name;
	enum turn turn;
	socklen_t size;
	uint64_t usual;
};

#define OTHER(option, turn, size, usual)           \
	{                                          \
		option, #option, turn, size, usual \
	}

static const struct other_option others[] = {
	OTHER(SO_DEBUG, FIRST, 4, 0),
	OTHER(SO_TIMESTAMPING_OLD, FIRST, 8, 0),
	OTHER(SO_TIMESTAMPING_NEW, FIRST, 8, 0),
	OTHER(SO_TIMESTAMP_OLD, FIRST, 4, 0),
	OTHER(SO_TIMESTAMPNS_OLD, FIRST, 4, 0),
	OTHER(SO_TIMESTAMP_NEW, FIRST, 4, 0),
	OTHER(SO_TIMESTAMPNS_NEW, FIRST, 4, 0),
	OTHER(SO_RXQ_OVFL, FIRST, 4, 0),
	OTHER(SO_WIFI_STATUS, FIRST, 4, 0),
	OTHER(SO_NOFCS, FIRST, 4, 0),
	OTHER(SO_SELECT_ERR_QUEUE, FIRST, 4, 0),
	OTHER(SO_BUSY_POLL, FIRST, 4, 0),
	OTHER(SO_PREFER_BUSY_POLL, FIRST, 4, 0),
	OTHER(SO_MAX_PACING_RATE, FIRST, 8, UINT64_MAX),
	OTHER(SO_INCOMING_CPU, FIRST, 4, UINT32_MAX),
	OTHER(SO_ZEROCOPY, FIRST, 4, 0),
	OTHER(SO_TXTIME, FIRST, 8, 0),
	OTHER(SO_TXREHASH, FIRST, 4, 1),
	OTHER(SO_RESERVE_MEM, FIRST, 4, 0),
	OTHER(SO_RCVMARK, FIRST, 4, 0),
	OTHER(SO_RCVPRIORITY, FIRST, 4, 0),
	OTHER(SO_PASSPIDFD, LAST, 4, 0),
	OTHER(SO_PASSRIGHTS, LAST, 4, 1),
	OTHER(SO_PEEK_OFF, LAST, 4, UINT32_MAX),
	OTHER(SO_LOCK_FILTER, LAST, 4, 0), /* after the filter has been attached */
};

/* Other options that are read by get_option(), with the size of their values. */
static const struct {
	int option;
	socklen_t size;
} rest[] = {
	{ SO_SNDBUF, 4 },
	{ SO_RCVBUF, 4 },
	{ SO_BUF_LOCK, 4 },
	{ SO_SNDTIMEO, sizeof(struct timeval) },
	{ SO_RCVTIMEO, sizeof(struct timeval) },
	{ SO_LINGER, sizeof(struct linger) },
	{ SO_BINDTODEVICE, IFNAMSIZ },
	{ SO_GET_FILTER, 0 }, /* only its length is asked for */
};

/* ---- dump ---- */

/* What the kernel has said of an option. */
struct answer {
	int result; /* a size, or -errno; UNASKED */
	char value[IFNAMSIZ] __attribute__((aligned(8)));
};

#define UNASKED		INT_MIN
#define MOST_OPTIONS	128 /* their numbers are less */
#define OPTIONS_OF_EACH (array_size(fields) + array_size(others) + array_size(rest))

struct answers {
	struct answer items[MOST_OPTIONS]; /* by the number of the option */
};

/* Where options are read from. */
struct source {
	int fd;
	const struct answers *answers; /* NULL: none */
};

static const struct answer *find_answer(const struct source *source, int option)
{
	const struct answer *answer = source->answers ? &source->answers->items[option] : NULL;

	return answer && answer->result != UNASKED ? answer : NULL;
}

static bool is_lacking(int error)
{
	return error == ENOPROTOOPT || error == EOPNOTSUPP;
}

/* 1: read; 0: the socket has no such option, or the kernel does not know it. */
static int get_option(const struct source *source, int option, const char *name, void *value, socklen_t size)
{
	const struct answer *answer = find_answer(source, option);

	if (answer && answer->result >= 0)
		memcpy(value, answer->value, size);
	if (answer && (answer->result >= 0 || is_lacking(-answer->result)))
		return answer->result >= 0;
	if (getsockopt(source->fd, SOL_SOCKET, option, value, &size) == 0)
		return 1;
	return is_lacking(errno) ? 0 : fail(errno, "cannot read %s", name);
}

static int read_fields(const struct source *source, SkOptsEntry *options)
{
	int result = 0;

	for (size_t i = 0; result >= 0 && i < array_size(fields); i++) {
		result = get_option(source, fields[i].option, fields[i].name, value_of(&fields[i], options),
				    4);
		*has_of(&fields[i], options) = result > 0;
	}
	return min(result, 0);
}

static void add_other(SkOptsEntry *options, int option, uint64_t value)
{
	SkOptionEntry *entry = message_new(SkOptionEntry, sk_option_entry);

	entry->option = option;
	entry->value = value;
	*grow(&options->others, &options->n_others) = entry;
}

static int read_others(const struct source *source, SkOptsEntry *options)
{
	int result = 0;

	for (size_t i = 0; result >= 0 && i < array_size(others); i++) {
		uint64_t value = 0;

		result = get_option(source, others[i].option, others[i].name, &value, others[i].size);
		if (result > 0 && value != others[i].usual)
			add_other(options, others[i].option, value);
	}
	return min(result, 0);
}

static int read_sizes(const struct source *source, SkOptsEntry *options)
{
	int result = get_option(source, SO_SNDBUF, "SO_SNDBUF", &options->so_sndbuf, 4);

	if (result >= 0)
		result = get_option(source, SO_RCVBUF, "SO_RCVBUF", &options->so_rcvbuf, 4);
	if (result >= 0)
		result = get_option(source, SO_BUF_LOCK, "SO_BUF_LOCK", &options->so_buf_lock,
				    4); /* Linux 5.15 */
	options->has_so_buf_lock = result > 0;
	return min(result, 0);
}

static int read_times(const struct source *source, SkOptsEntry *options)
{
	struct timeval send = { 0 }, receive = { 0 };
	struct linger linger = { 0 };
	int result = get_option(source, SO_SNDTIMEO, "SO_SNDTIMEO", &send, sizeof(send));

	if (result >= 0)
		result = get_option(source, SO_RCVTIMEO, "SO_RCVTIMEO", &receive, sizeof(receive));
	if (result >= 0)
		result = get_option(source, SO_LINGER, "SO_LINGER", &linger, sizeof(linger));
	options->so_snd_tmo_sec = send.tv_sec;
	options->so_snd_tmo_usec = send.tv_usec;
	options->so_rcv_tmo_sec = receive.tv_sec;
	options->so_rcv_tmo_usec = receive.tv_usec;
	if (linger.l_onoff)
		message_set(options, so_linger, linger.l_linger);
	return min(result, 0);
}

static int read_device(const struct source *source, SkOptsEntry *options)
{
	char name[IFNAMSIZ] = "";
	int result = get_option(source, SO_BINDTODEVICE, "SO_BINDTODEVICE", name, sizeof(name));

	if (result > 0 && name[0])
		options->so_bound_dev = copy_text(name);
	return min(result, 0);
}

/* The kernel counts instructions, not bytes, and returns the program as it was attached. */
static int read_filter(const struct file *file, const struct source *source, SkOptsEntry *options)
{
	const struct answer *length = find_answer(source, SO_GET_FILTER);
	const struct seen_file *seen = file->seen;
	struct sock_filter program[BPF_MAXINSNS];
	socklen_t count = BPF_MAXINSNS;

	if (length && !length->result)
		return 0;
	if (getsockopt(source->fd, SOL_SOCKET, SO_GET_FILTER, program, &count) < 0) {
		if (errno == EACCES)
			return refuse(
				"process %d (%s): descriptor %d is a socket with an eBPF program as its filter "
				"(SO_ATTACH_BPF), which the kernel does not tell: detach it before (SO_DETACH_FILTER)",
				seen->holder.here, seen->holder.name, seen->fd);
		return errno == ENOPROTOOPT || errno == EOPNOTSUPP ? 0 :
								     fail(errno, "cannot read SO_GET_FILTER");
	}
	if (!count)
		return 0;
	message_array(options, so_filter, count);
	for (socklen_t i = 0; i < count; i++)
		options->so_filter[i] = (uint64_t)program[i].code << 48 | (uint64_t)program[i].jt << 40 |
					(uint64_t)program[i].jf << 32 | program[i].k;
	return 0;
}

static int read_options(const struct file *file, const struct source *source, SkOptsEntry **options)
{
	SkOptsEntry *read = *options = message_new(SkOptsEntry, sk_opts_entry);
	int result = read_sizes(source, read) ?: read_times(source, read);

	result = result ?: read_fields(source, read) ?: read_others(source, read);
	return result ?: read_device(source, read) ?: read_filter(file, source, read);
}

int socket_options_read(const struct file *file, int fd, SkOptsEntry **options)
{
	const struct source source = { fd, NULL };

	return read_options(file, &source, options);
}

/* ---- many sockets ---- */

#define GROUP	       128 /* sockets whose options are read in a few calls */
#define THREADS	       2   /* each reads a group at a time */
#define UNREAD	       INT_MIN
#define WORTH_A_READER 8 /* sockets: to make one takes 0.1 ms */

struct group {
	struct options_reading *readings;
	size_t count;
	int fds[GROUP]; /* negative: it cannot be borrowed now */
	struct answers answers[GROUP];
	struct option_query queries[GROUP * OPTIONS_OF_EACH];
	uint32_t query_count;
};

static void ask(struct group *group, size_t i, int option, socklen_t size)
{
	struct answer *answer = &group->answers[i].items[option];

	group->queries[group->query_count++] = (struct option_query){
		.fd = group->fds[i], .option = option, .value = answer->value, .size = size
	};
}

static void ask_for_all(struct group *group, size_t i)
{
	for (size_t k = 0; k < array_size(fields); k++)
		ask(group, i, fields[k].option, 4);
	for (size_t k = 0; k < array_size(others); k++)
		ask(group, i, others[k].option, others[k].size);
	for (size_t k = 0; k < array_size(rest); k++)
		ask(group, i, rest[k].option, rest[k].size);
}

/* Without that, each option is asked for when it is needed. */
static void take_answers(struct group *group)
{
	uint32_t query = 0;

	for (size_t i = 0; i < group->count; i++)
		for (size_t k = 0; group->fds[i] >= 0 && k < OPTIONS_OF_EACH; k++, query++)
			group->answers[i].items[group->queries[query].option].result =
				group->queries[query].result;
}

static void read_at_once(struct group *group)
{
	struct option_reader *reader;

	if (group->count < WORTH_A_READER || option_reader_open(&reader))
		return;
	for (size_t i = 0; i < group->count; i++)
		if (group->fds[i] >= 0)
			ask_for_all(group, i);
	if (!option_reader_read(reader, group->queries, group->query_count))
		take_answers(group);
	option_reader_close(reader);
}

static void read_group(struct options_reading *readings, size_t count)
{
	autofree struct group *group = allocate(sizeof(*group));

	group->readings = readings;
	group->count = count;
	for (size_t i = 0; i < count; i++) {
		group->fds[i] = attempted(files_borrow(readings[i].file->seen));
		for (size_t k = 0; k < MOST_OPTIONS; k++)
			group->answers[i].items[k].result = UNASKED;
	}
	read_at_once(group);
	for (size_t i = 0; i < count; i++) {
		const struct source source = { group->fds[i], &group->answers[i] };

		readings[i].result = source.fd < 0 ?
					     UNREAD :
					     read_options(readings[i].file, &source, readings[i].options);
		autoclose_clean(&group->fds[i]);
	}
}

struct groups {
	struct options_reading *readings;
	size_t count;
};

static void read_one_group(void *context, size_t i)
{
	const struct groups *groups = context;
	size_t first = i * GROUP;

	read_group(groups->readings + first, min(groups->count - first, (size_t)GROUP));
}

static void read_alone(struct options_reading *reading)
{
	autoclose int fd = files_borrow(reading->file->seen);

	reading->result = fd < 0 ? fd : socket_options_read(reading->file, fd, reading->options);
}

/* If criu has not enough descriptors left for groups, one is enough for the others. */
void socket_options_read_all(struct options_reading *readings, size_t count)
{
	struct groups groups = { readings, count };

	if (count > GROUP)
		descriptors_reserve(descriptors_count() + THREADS * (GROUP + 1));
	share_work((count + GROUP - 1) / GROUP, 2, read_one_group, &groups);
	for (size_t i = 0; i < count; i++)
		if (readings[i].result == UNREAD)
			read_alone(&readings[i]);
}

static void read_known(struct socket_options_ahead *ahead, const struct file_list *files,
		       SkOptsEntry **(*place)(const struct file *))
{
	ahead->count = files->count;
	ahead->items = allocate_array(files->count, sizeof(*ahead->items));
	for (size_t i = 0; i < files->count; i++)
		ahead->items[i] = (struct options_reading){ .file = files->items[i],
							    .options = place(files->items[i]) };
	socket_options_read_all(ahead->items, files->count);
}

int socket_options_read_next(struct socket_options_ahead *ahead, const struct file_list *files,
			     const struct file *file, int fd, SkOptsEntry **(*place)(const struct file *))
{
	size_t i = ahead->described;

	if (!ahead->items)
		read_known(ahead, files, place);
	while (i < ahead->count && files->items[i] != file)
		i++;
	if (i == ahead->count) /* it was in flight */
		return socket_options_read(file, fd, place(file));
	ahead->described = i + 1;
	return ahead->items[i].result;
}

void socket_options_ahead_free(struct socket_options_ahead *ahead)
{
	free(ahead->items);
	*ahead = (struct socket_options_ahead){ 0 };
}

/* ---- restore ---- */

static const struct other_option *find_other(uint32_t option)
{
	for (size_t i = 0; i < array_size(others); i++)
		if ((uint32_t)others[i].option == option)
			return &others[i];
	return NULL;
}

static int check_others(const struct file *file, const SkOptsEntry *options)
{
	for (size_t i = 0; i < options->n_others; i++) {
		const SkOptionEntry *entry = options->others[i];
		const struct other_option *other = find_other(entry->option);

		if (!other)
			return fail(EINVAL, "files.img: file %u: criu does not know the socket option %u",
				    file->id, entry->option);
		if (other->size == 4 && entry->value > UINT32_MAX)
			return fail(EINVAL, "files.img: file %u has an invalid %s", file->id, other->name);
		for (size_t j = 0; j < i; j++)
			if (options->others[j]->option == entry->option)
				return fail(EINVAL, "files.img: file %u has %s twice", file->id, other->name);
	}
	return 0;
}

static void unpack_filter(const SkOptsEntry *options, struct sock_filter *program)
{
	for (size_t i = 0; i < options->n_so_filter; i++) {
		uint64_t packed = options->so_filter[i];

		program[i] = (struct sock_filter){
			.code = packed >> 48, .jt = packed >> 40, .jf = packed >> 32, .k = packed
		};
	}
}

static int attach_filter(int fd, const SkOptsEntry *options)
{
	autofree struct sock_filter *program = allocate_array(options->n_so_filter, sizeof(*program));
	struct sock_fprog filter = { options->n_so_filter, program };

	unpack_filter(options, program);
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0 ? -errno : 0;
}

/* Only the kernel knows whether a program is valid: a socket for that has it for a moment. */
static int check_filter(const struct file *file, const SkOptsEntry *options)
{
	autoclose int fd = -1;
	int result;

	if (!options->n_so_filter)
		return 0;
	if (options->n_so_filter > BPF_MAXINSNS)
		return fail(EINVAL, "files.img: file %u has a filter that is too long", file->id);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(errno, "cannot create a socket");
	result = attach_filter(fd, options);
	if (result == -EINVAL)
		return fail(EINVAL, "files.img: file %u has an invalid filter", file->id);
	return result ? fail(-result, "files.img: file %u: its filter cannot be attached", file->id) : 0;
}

int socket_options_check(const struct file *file, const SkOptsEntry *options)
{
	const char *device = options->so_bound_dev;

	if (options->so_sndbuf > INT_MAX || options->so_rcvbuf > INT_MAX || options->so_buf_lock > 3)
		return fail(EINVAL, "files.img: file %u has an invalid size of its buffers", file->id);
	if (options->so_snd_tmo_sec > INT64_MAX || options->so_rcv_tmo_sec > INT64_MAX ||
	    options->so_snd_tmo_usec >= 1000000 || options->so_rcv_tmo_usec >= 1000000)
		return fail(EINVAL, "files.img: file %u has an invalid time limit", file->id);
	if (device && (!device[0] || strlen(device) >= IFNAMSIZ))
		return fail(EINVAL, "files.img: file %u is bound to an invalid device", file->id);
	return check_others(file, options) ?: check_filter(file, options);
}

static int set_option(const struct file *file, int fd, int option, const char *name, const void *value,
		      socklen_t size)
{
	int result;

	if (setsockopt(fd, SOL_SOCKET, option, value, size) == 0)
		return 0;
	result = fail(errno, "file %u (%s): cannot set %s", file->id, file->kind->name, name);
	if (result == -EPERM || result == -EACCES) /* SO_DEBUG */
		fail_advice("run criu with CAP_NET_ADMIN");
	return result;
}

/* Sets the option if the socket has another value. */
static int change_option(const struct file *file, int fd, int option, const char *name, const void *value,
			 socklen_t size)
{
	uint64_t now = 0;
	socklen_t length = size;

	if (getsockopt(fd, SOL_SOCKET, option, &now, &length) == 0 && !memcmp(&now, value, size))
		return 0;
	return set_option(file, fd, option, name, value, size);
}

static int set_fields(const struct file *file, int fd, const SkOptsEntry *options, enum turn turn)
{
	int result = 0;

	for (size_t i = 0; !result && i < array_size(fields); i++)
		if (fields[i].turn == turn && *has_of(&fields[i], options) &&
		    fields[i].at_first != *value_of(&fields[i], options))
			result = change_option(file, fd, fields[i].option, fields[i].name,
					       value_of(&fields[i], options), 4);
	return result;
}

/* In the order of the table. */
static int set_others(const struct file *file, int fd, const SkOptsEntry *options, enum turn turn)
{
	int result = 0;

	for (size_t i = 0; options->n_others && !result && i < array_size(others); i++)
		for (size_t j = 0; !result && others[i].turn == turn && j < options->n_others; j++)
			if (options->others[j]->option == (uint32_t)others[i].option)
				result = change_option(file, fd, others[i].option, others[i].name,
						       &options->others[j]->value, others[i].size);
	return result;
}

struct buffer {
	int option, force;
	const char *name, *limit;
};

static const struct buffer sending = { SO_SNDBUF, SO_SNDBUFFORCE, "SO_SNDBUF", "net.core.wmem_max" },
			   receiving = { SO_RCVBUF, SO_RCVBUFFORCE, "SO_RCVBUF", "net.core.rmem_max" };

static int buffer_size(int fd, const struct buffer *buffer)
{
	int size = 0;
	socklen_t length = sizeof(size);

	return getsockopt(fd, SOL_SOCKET, buffer->option, &size, &length) < 0 ? -errno : size;
}

/*
 * The kernel doubles the value that is set, after it has limited it; so an odd size, which it may have chosen itself,
 * is rounded up. No size is below its minimum.
 */
static int set_buffer(const struct file *file, int fd, const struct buffer *buffer, int wanted)
{
	int half = wanted / 2 + wanted % 2;

	if (buffer_size(fd, buffer) == wanted)
		return 0;
	if (setsockopt(fd, SOL_SOCKET, buffer->option, &half, sizeof(half)) == 0 &&
	    buffer_size(fd, buffer) >= wanted)
		return 0;
	if (setsockopt(fd, SOL_SOCKET, buffer->force, &half, sizeof(half)) == 0)
		return 0;
	fail(errno, "file %u (%s): cannot set %s to %d", file->id, file->kind->name, buffer->name, half);
	fail_advice("run criu with CAP_NET_ADMIN, or raise %s", buffer->limit);
	return -EPERM;
}

/* TCP chooses the scale of its window by the size that it has when it connects. So no buffer is too small before. */
static int enlarge_buffer(const struct file *file, int fd, const struct buffer *buffer, int wanted)
{
	return buffer_size(fd, buffer) < wanted ? set_buffer(file, fd, buffer, wanted) : 0;
}

int socket_options_set(const struct file *file, int fd, const SkOptsEntry *options)
{
	const char *device = options->so_bound_dev;
	int result = enlarge_buffer(file, fd, &sending, options->so_sndbuf) ?:
			     enlarge_buffer(file, fd, &receiving, options->so_rcvbuf);

	if (!result && device && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device) + 1) < 0)
		result = fail(errno, "file %u (%s): cannot bind to the device %s", file->id, file->kind->name,
			      device);
	return result ?: set_fields(file, fd, options, FIRST) ?: set_others(file, fd, options, FIRST);
}

static int set_sizes(const struct file *file, int fd, const SkOptsEntry *options)
{
	int result = set_buffer(file, fd, &sending, options->so_sndbuf) ?:
			     set_buffer(file, fd, &receiving, options->so_rcvbuf);

	if (!result && options->has_so_buf_lock)
		result = change_option(file, fd, SO_BUF_LOCK, "SO_BUF_LOCK", &options->so_buf_lock, 4);
	return result;
}

static int set_time(const struct file *file, int fd, int option, const char *name, uint64_t seconds,
		    uint64_t microseconds)
{
	struct timeval time = { .tv_sec = seconds, .tv_usec = microseconds };

	return seconds || microseconds ? set_option(file, fd, option, name, &time, sizeof(time)) : 0;
}

static int set_times(const struct file *file, int fd, const SkOptsEntry *options)
{
	struct linger linger = { 1, options->so_linger };
	int result =
		set_time(file, fd, SO_SNDTIMEO, "SO_SNDTIMEO", options->so_snd_tmo_sec, options->so_snd_tmo_usec) ?:
			set_time(file, fd, SO_RCVTIMEO, "SO_RCVTIMEO", options->so_rcv_tmo_sec,
				 options->so_rcv_tmo_usec);

	if (!result && options->has_so_linger)
		result = set_option(file, fd, SO_LINGER, "SO_LINGER", &linger, sizeof(linger));
	return result;
}

static int set_filter(const struct file *file, int fd, const SkOptsEntry *options)
{
	int result = options->n_so_filter ? attach_filter(fd, options) : 0;

	return result ? fail(-result, "file %u (%s): cannot attach its filter", file->id, file->kind->name) :
			0;
}

int socket_options_finish(const struct file *file, int fd, const SkOptsEntry *options)
{
	int result = set_sizes(file, fd, options) ?: set_times(file, fd, options);

	result = result ?: set_fields(file, fd, options, LAST) ?: set_filter(file, fd, options);
	return result ?: set_others(file, fd, options, LAST);
}
