/*
 * tcp_stream.c - see tcp_stream.h.
 *
 * What repair mode does (Linux 4.19 to 6.18):
 * - It can begin in any state but LISTEN. The socket then takes part in no conflict of bind(), as if SO_REUSEADDR were
 *   set; when it ends, SO_REUSEADDR is off. A socket that is closed in it ends without a packet.
 * - TCP_REPAIR_QUEUE chooses the queue of the next calls. recv(MSG_PEEK) shows the bytes of that queue. send() appends
 *   to it: to the receive queue as if the other end had sent them, to the send queue as if they were already on
 *   their way. TCP_QUEUE_SEQ is the number of the byte behind the queue; it can be set before connect().
 * - connect() sends nothing and succeeds at once.
 * - SIOCINQ and SIOCOUTQ count bytes; the latter also a FIN that is not acknowledged.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "sockets/tcp_inject.h"
#include "sockets/tcp_stream.h"

#define BIT(state) (1U << (state))

#define SENT_END     (BIT(TCP_FIN_WAIT1) | BIT(TCP_FIN_WAIT2) | BIT(TCP_CLOSING) | BIT(TCP_LAST_ACK))
#define RECEIVED_END (BIT(TCP_CLOSE_WAIT) | BIT(TCP_CLOSING) | BIT(TCP_LAST_ACK))
#define CONNECTED    (BIT(TCP_ESTABLISHED) | SENT_END | RECEIVED_END)

#define PIECE (64UL << 10) /* bytes that one send() adds to a queue: the kernel uses one buffer for them */

#define AWAITED_US    1000
#define AWAITED_TIMES 5000

bool tcp_state_is_connected(int state)
{
	return BIT(state) & CONNECTED;
}

bool tcp_state_has_sent_end(int state)
{
	return BIT(state) & SENT_END;
}

bool tcp_state_has_received_end(int state)
{
	return BIT(state) & RECEIVED_END;
}

static int get(int fd, int option, void *value, socklen_t size, const char *what)
{
	return getsockopt(fd, SOL_TCP, option, value, &size) < 0 ?
		       fail(errno, "cannot read %s of a TCP connection", what) :
		       0;
}

static int set(int fd, int option, const void *value, socklen_t size, const char *what)
{
	return setsockopt(fd, SOL_TCP, option, value, size) < 0 ?
		       fail(errno, "cannot set %s of a TCP connection", what) :
		       0;
}

int tcp_state_of(int fd)
{
	struct tcp_info info = { 0 };

	return get(fd, TCP_INFO, &info, sizeof(info), "the state") ?: info.tcpi_state;
}

static int set_repair(int fd, int mode)
{
	return setsockopt(fd, SOL_TCP, TCP_REPAIR, &mode, sizeof(mode)) < 0 ? -errno : 0;
}

int tcp_repair_begin(int fd)
{
	return set_repair(fd, TCP_REPAIR_ON);
}

int tcp_repair_end(int fd, bool with_probe)
{
	return set_repair(fd, with_probe ? TCP_REPAIR_OFF : TCP_REPAIR_OFF_NO_WP);
}

static int choose_queue(int fd, int queue)
{
	return set(fd, TCP_REPAIR_QUEUE, &queue, sizeof(queue), "the queue");
}

/* ---- dump ---- */

static int read_length(int fd, unsigned long request, uint32_t *length, const char *what)
{
	int bytes = 0;

	if (ioctl(fd, request, &bytes) < 0 || bytes < 0)
		return fail(errno, "cannot read the length of the %s queue of a TCP connection", what);
	*length = bytes;
	return 0;
}

static int peek(int fd, uint8_t *bytes, size_t size, const char *what)
{
	ssize_t seen = size ? recv(fd, bytes, size, MSG_PEEK | MSG_DONTWAIT) : 0;

	if (seen == (ssize_t)size)
		return 0;
	return fail(seen < 0 ? errno : EIO, "cannot read the %s queue of a TCP connection: %zd of %zu bytes",
		    what, seen, size);
}

static int read_number(int fd, int queue, uint32_t *number)
{
	return choose_queue(fd, queue) ?:
					 get(fd, TCP_QUEUE_SEQ, number, sizeof(*number), "a sequence number");
}

static int read_queue(int fd, uint8_t **bytes, uint32_t size, const char *what)
{
	*bytes = allocate(size);
	return peek(fd, *bytes, size, what);
}

static int read_lengths(int fd, struct tcp_stream *stream)
{
	TcpStreamEntry *entry = &stream->entry;
	int result = read_length(fd, SIOCINQ, &entry->inq_len, "receive")	 ?:
			     read_length(fd, SIOCOUTQ, &entry->outq_len, "send") ?:
			     read_length(fd, SIOCOUTQNSD, &entry->unsq_len, "send");

	entry->has_unsq_len = true;
	if (!tcp_state_has_sent_end(stream->state))
		return result;
	/* The FIN is not a byte. */
	entry->outq_len -= entry->outq_len > 0;
	entry->unsq_len -= entry->unsq_len > 0;
	return result;
}

static int read_agreement(int fd, struct tcp_stream *stream)
{
	TcpStreamEntry *entry = &stream->entry;
	struct tcp_info info = { 0 };
	int result = get(fd, TCP_INFO, &info, sizeof(info), "the state");

	stream->state = info.tcpi_state;
	entry->opt_mask = info.tcpi_options;
	entry->snd_wscale = info.tcpi_snd_wscale;
	entry->rcv_wscale = info.tcpi_rcv_wscale;
	entry->has_rcv_wscale = true;
	entry->has_timestamp = info.tcpi_options & TCPI_OPT_TIMESTAMPS;
	if (!result && entry->has_timestamp)
		result = get(fd, TCP_TIMESTAMP, &entry->timestamp, sizeof(entry->timestamp), "the clock");
	return result;
}

static int read_window(int fd, TcpStreamEntry *entry)
{
	struct tcp_repair_window window = { 0 };
	int result = get(fd, TCP_REPAIR_WINDOW, &window, sizeof(window), "the window");

	entry->has_snd_wl1 = entry->has_snd_wnd = entry->has_max_window = entry->has_rcv_wnd =
		entry->has_rcv_wup = true;
	entry->snd_wl1 = window.snd_wl1;
	entry->snd_wnd = window.snd_wnd;
	entry->max_window = window.max_window;
	entry->rcv_wnd = window.rcv_wnd;
	entry->rcv_wup = window.rcv_wup;
	return result;
}

/* As little as possible: if criu is killed now, the processes run, and may use the socket meanwhile. */
static int read_repaired(int fd, struct tcp_stream *stream)
{
	TcpStreamEntry *entry = &stream->entry;
	int result = get(fd, TCP_MAXSEG, &entry->mss_clamp, sizeof(entry->mss_clamp), "the size of segments");

	result = result ?: read_window(fd, entry) ?: read_number(fd, TCP_RECV_QUEUE, &entry->inq_seq);
	result = result ?: read_number(fd, TCP_SEND_QUEUE, &entry->outq_seq);
	return result ?: read_queue(fd, &stream->sent, entry->outq_len, "send");
}

static int read_in_repair(int fd, struct tcp_stream *stream)
{
	int reuses = 0, result;
	socklen_t size = sizeof(reuses);

	if (getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuses, &size) < 0)
		return fail(errno, "cannot read SO_REUSEADDR");
	result = tcp_repair_begin(fd);
	if (result)
		return fail(-result, "cannot begin to repair a TCP connection");
	result = read_repaired(fd, stream);
	if (tcp_repair_end(fd, false) ||
	    (reuses && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuses, sizeof(reuses)) < 0))
		result = fail(errno, "cannot leave a TCP connection as it was");
	return result;
}

int tcp_stream_read(int fd, struct tcp_stream *stream)
{
	int result;

	tcp_stream_entry__init(&stream->entry);
	result = read_agreement(fd, stream);
	if (result || !tcp_state_is_connected(stream->state))
		return result;
	result = read_lengths(fd, stream);
	if (!result)
		result = read_queue(fd, &stream->received, stream->entry.inq_len, "receive");
	return result ?: read_in_repair(fd, stream);
}

void tcp_stream_free(struct tcp_stream *stream)
{
	free(steal_pointer(&stream->received));
	free(steal_pointer(&stream->sent));
}

/* ---- restore ---- */

static int append(int fd, const uint8_t *bytes, size_t size, const char *what)
{
	for (size_t done = 0; done < size;) {
		ssize_t sent = send(fd, bytes + done, min(size - done, PIECE), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent <= 0)
			return fail(errno, "cannot put %zu bytes into the %s queue of a TCP connection",
				    size - done, what);
		done += sent;
	}
	return 0;
}

static int set_number(int fd, int queue, uint32_t number)
{
	return choose_queue(fd, queue) ?:
					 set(fd, TCP_QUEUE_SEQ, &number, sizeof(number), "a sequence number");
}

static int set_agreement(int fd, const TcpStreamEntry *entry)
{
	struct tcp_repair_opt options[4] = { { TCPOPT_MAXSEG, entry->mss_clamp } };
	size_t count = 1;
	int result;

	if (entry->opt_mask & TCPI_OPT_WSCALE)
		options[count++] = (struct tcp_repair_opt){ TCPOPT_WINDOW,
							    entry->snd_wscale | entry->rcv_wscale << 16 };
	if (entry->opt_mask & TCPI_OPT_SACK)
		options[count++] = (struct tcp_repair_opt){ TCPOPT_SACK_PERMITTED, 0 };
	if (entry->opt_mask & TCPI_OPT_TIMESTAMPS)
		options[count++] = (struct tcp_repair_opt){ TCPOPT_TIMESTAMP, 0 };
	result = set(fd, TCP_REPAIR_OPTIONS, options, count * sizeof(*options), "what was agreed on");
	if (!result && entry->has_timestamp)
		result = set(fd, TCP_TIMESTAMP, &entry->timestamp, sizeof(entry->timestamp), "the clock");
	return result;
}

static struct tcp_repair_window window_of(const struct tcp_stream *stream)
{
	const TcpStreamEntry *entry = &stream->entry;

	return (struct tcp_repair_window){
		.snd_wl1 = entry->snd_wl1,
		.snd_wnd = entry->snd_wnd,
		.max_window = entry->max_window,
		.rcv_wnd = entry->rcv_wnd,
		.rcv_wup = entry->rcv_wup,
	};
}

static int set_window(int fd, const struct tcp_stream *stream, const struct tcp_repair_window *window)
{
	return stream->entry.has_snd_wnd ? set(fd, TCP_REPAIR_WINDOW, window, sizeof(*window), "the window") :
					   0;
}

/* The kernel checks these numbers against what has been received, to which a FIN is only added later. */
static int set_first_window(int fd, const struct tcp_stream *stream)
{
	struct tcp_repair_window window = window_of(stream);

	window.snd_wl1 -= tcp_state_has_received_end(stream->state);
	window.rcv_wup -= tcp_state_has_received_end(stream->state);
	return set_window(fd, stream, &window);
}

/* What is unsent is sent later, unless a FIN follows that must be in its place before. */
static bool ends_in_repair(const struct tcp_stream *stream)
{
	return stream->state == TCP_FIN_WAIT2 || stream->state == TCP_CLOSING;
}

static int fill_queues(int fd, const struct tcp_stream *stream)
{
	const TcpStreamEntry *entry = &stream->entry;
	uint32_t sent = entry->outq_len - (ends_in_repair(stream) ? 0 : entry->unsq_len);
	int result = choose_queue(fd, TCP_RECV_QUEUE);

	if (!result)
		result = append(fd, stream->received, entry->inq_len, "receive");
	if (!result)
		result = choose_queue(fd, TCP_SEND_QUEUE);
	return result ?: append(fd, stream->sent, sent, "send");
}

static int await_state(int fd, int state)
{
	for (int i = 0; i < AWAITED_TIMES; i++) {
		int now = tcp_state_of(fd);

		if (now < 0 || now == state)
			return min(now, 0);
		usleep(AWAITED_US);
	}
	return fail(
		ETIMEDOUT,
		"a TCP connection did not get into its state: a firewall may drop packets of the loopback device");
}

static int receive(const struct tcp_stream *stream, const struct tcp_ends *ends, uint32_t acknowledged,
		   bool is_last)
{
	const TcpStreamEntry *entry = &stream->entry;
	const struct tcp_segment segment = {
		.from = ip_address_on_wire(&ends->other),
		.to = ip_address_on_wire(&ends->own),
		.number = entry->inq_seq - tcp_state_has_received_end(stream->state),
		.acknowledged = acknowledged,
		.window = entry->snd_wnd >> entry->snd_wscale,
		.is_last = is_last,
	};

	return tcp_inject(&segment);
}

/* The end of what is sent, if it has been sent and counts as that, and the end of what is received. */
static int make_ends(int fd, const struct tcp_stream *stream, const struct tcp_ends *ends)
{
	const TcpStreamEntry *entry = &stream->entry;
	uint32_t unacknowledged = entry->outq_seq - tcp_state_has_sent_end(stream->state) - entry->outq_len;
	int result = 0;

	if (ends_in_repair(stream) && shutdown(fd, SHUT_WR) < 0)
		return fail(errno, "cannot shut down a TCP connection");
	if (stream->state == TCP_FIN_WAIT2)
		result = receive(stream, ends, entry->outq_seq, false) ?: await_state(fd, TCP_FIN_WAIT2);
	if (!result && tcp_state_has_received_end(stream->state))
		result = receive(stream, ends, unacknowledged, true) ?:
				 await_state(fd, stream->state == TCP_CLOSING ? TCP_CLOSING : TCP_CLOSE_WAIT);
	return result;
}

int tcp_stream_connect(int fd, const struct tcp_stream *stream, const struct tcp_ends *ends)
{
	const TcpStreamEntry *entry = &stream->entry;
	uint32_t received = entry->inq_seq - tcp_state_has_received_end(stream->state) - entry->inq_len;
	uint32_t sent = entry->outq_seq - tcp_state_has_sent_end(stream->state) - entry->outq_len;
	int result = set_number(fd, TCP_RECV_QUEUE, received) ?: set_number(fd, TCP_SEND_QUEUE, sent);

	if (!result && connect(fd, &ends->other.any, ip_address_size(&ends->other)) < 0)
		result = fail(errno, "cannot connect");
	return result;
}

int tcp_stream_make(int fd, const struct tcp_stream *stream, const struct tcp_ends *ends)
{
	const struct tcp_repair_window window = window_of(stream);
	int result = set_agreement(fd, &stream->entry) ?: fill_queues(fd, stream);

	/* A segment has only 16 bits for the window. */
	return result				    ?:
		       set_first_window(fd, stream) ?:
		       make_ends(fd, stream, ends)  ?:
						      set_window(fd, stream, &window);
}

static int append_unsent(int fd, const struct tcp_stream *stream)
{
	const TcpStreamEntry *entry = &stream->entry;
	int result = append(fd, stream->sent + entry->outq_len - entry->unsq_len, entry->unsq_len, "send");

	if (!result && tcp_state_has_sent_end(stream->state) && shutdown(fd, SHUT_WR) < 0)
		result = fail(errno, "cannot shut down a TCP connection");
	return result;
}

/*
 * What is sent while packets are blocked would be sent again only after a second. With a window of 0 it waits; the other
 * end tells its window as soon as it is asked, which the kernel only does in the state ESTABLISHED.
 */
static int hold_back(int fd, const struct tcp_stream *stream)
{
	struct tcp_repair_window window = window_of(stream);

	if (stream->state != TCP_ESTABLISHED || !stream->entry.unsq_len)
		return 0;
	window.snd_wnd = 0;
	return set_window(fd, stream, &window);
}

int tcp_stream_finish(int fd, const struct tcp_stream *stream)
{
	int result = hold_back(fd, stream);

	if (result)
		return result;
	result = tcp_repair_end(fd, false);
	if (result)
		return fail(-result, "cannot end to repair a TCP connection");
	return ends_in_repair(stream) ? 0 : append_unsent(fd, stream);
}
