/*
 * terminal_data.c - the data in an inner terminal: output of the tree that was not read from the master, and input that
 * the tree has not read. See terminal.h.
 *
 * The data can only be read by taking it out. Dump takes it out and puts it back at once, while all tasks that could
 * read it are frozen. Meanwhile the terminal is set to pass data on unchanged.
 *
 * In canonical mode a read returns one line, or what comes before an end of file (^D), so criu learns where these are.
 * In packet mode the kernel adds a byte to all that is read from the master, and tells of changes to the terminal. So
 * the mode is off while data is taken out. Switching it on clears what there was to tell: that is read before, and
 * caused again.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kinds/terminal.h"
#include "image/message.h"

#define PIECE	   256
#define LONG_LINE  8192 /* more than a terminal holds (N_TTY_BUF_SIZE) */
#define MOST_TYPED 4095 /* N_TTY_BUF_SIZE - 1: what a terminal keeps of a line */
#define PATIENCE   1000 /* milliseconds */

/* TtyInfoEntry.stopped */
enum { STOPPED_BY_CALL = 1, STOPPED_BY_CHARACTER = 2 };

/* An inner terminal, while criu works on its data. */
struct flow {
	int master, slave;
	struct kernel_termios settings;
	char *output, *input;
	size_t output_size, input_size;
	uint32_t *ends; /* of input */
	size_t end_count;
};

static void flow_free(struct flow *flow)
{
	free(flow->output);
	free(flow->input);
	free(flow->ends);
}

static int set(const struct flow *flow, const struct kernel_termios *settings)
{
	return ioctl(flow->slave, TCSETS, settings) < 0 ? -errno : 0;
}

/* Input reaches the other end through a queue; poll() flushes it. */
static void settle_queue(int fd)
{
	poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0);
}

/* ---- taking it out ---- */

/* Reads everything. Data that did not fit into the terminal itself follows after the first reads. */
static int take(int fd, char **data, size_t *size)
{
	for (;;) {
		int waiting = 0, result;

		settle_queue(fd);
		if (ioctl(fd, FIONREAD, &waiting) < 0)
			return -errno;
		if (!waiting)
			return 0;
		*data = reallocate_array(*data, *size + waiting, 1);
		result = read_all(fd, *data + *size, waiting);
		if (result)
			return result;
		*size += waiting;
	}
}

static bool ends_line(const struct kernel_termios *settings, char letter)
{
	uint8_t byte = letter;

	return letter == '\n' ||
	       (byte && (byte == settings->characters[VEOL] || byte == settings->characters[VEOL2]));
}

/* The slave does not block. */
static int take_lines(struct flow *flow)
{
	for (;;) {
		char line[LONG_LINE];
		ssize_t got;

		settle_queue(flow->slave);
		got = read(flow->slave, line, sizeof(line));
		if (got < 0)
			return errno == EAGAIN ? 0 : -errno;
		flow->input = reallocate_array(flow->input, flow->input_size + got + 1, 1);
		memcpy(flow->input + flow->input_size, line, got);
		flow->input_size += got;
		if (!got || !ends_line(&flow->settings, line[got - 1]))
			*grow(&flow->ends, &flow->end_count) = flow->input_size;
	}
}

/* An incomplete line can be read only in non-canonical mode. */
static int take_input(struct flow *flow)
{
	struct kernel_termios plain = flow->settings;
	int result = 0;

	plain.local &= ~ICANON;
	if (flow->settings.local & ICANON && fcntl(flow->slave, F_GETFL) & O_NONBLOCK)
		result = take_lines(flow);
	if (!result && flow->settings.local & ICANON)
		result = set(flow, &plain);
	return result ?: take(flow->slave, &flow->input, &flow->input_size);
}

/* ---- putting it in ---- */

static bool has_room(int fd)
{
	struct pollfd asked = { .fd = fd, .events = POLLOUT };

	return poll(&asked, 1, 0) > 0 && asked.revents & POLLOUT;
}

/*
 * A write without space sleeps until data is read, even if the queue is flushed meanwhile. So this never writes more
 * than fits. The kernel accepts 256 bytes if it has any space.
 */
static int put(int fd, int other, const char *data, size_t size)
{
	for (size_t at = 0; at < size; at += PIECE) {
		int result;

		for (int patience = 0; !has_room(fd); patience++) {
			if (patience == PATIENCE)
				return -EAGAIN;
			settle_queue(other);
			usleep(1000);
		}
		result = write_all(fd, data + at, size - at < PIECE ? size - at : PIECE);
		if (result)
			return result;
	}
	return 0;
}

static int put_output(const struct flow *flow)
{
	struct kernel_termios plain = flow->settings;

	if (!flow->output_size)
		return 0;
	plain.output = 0;
	return set(flow, &plain) ?: put(flow->slave, flow->master, flow->output, flow->output_size);
}

/* Only if they were quoted (VLNEXT), or typed before they became such: otherwise the terminal removes them. */
static bool has_flow_control(const struct flow *flow)
{
	uint8_t go = flow->settings.characters[VSTART], halt = flow->settings.characters[VSTOP];

	return (go && memchr(flow->input, go, flow->input_size)) ||
	       (halt && memchr(flow->input, halt, flow->input_size));
}

/*
 * Characters that end a line still do so; otherwise the data is not interpreted. Flow control stays as it is, if
 * possible: a reader of a master in packet mode is told of a change.
 */
static struct kernel_termios plain_input(const struct kernel_termios *settings, bool keeps_flow_control)
{
	static const int kept[] = { VEOL, VEOL2, VSTART, VSTOP };
	struct kernel_termios plain = *settings;

	plain.input &= keeps_flow_control ? IXON : 0;
	plain.output = 0;
	plain.local &= ICANON | EXTPROC;
	memset(plain.characters, 0, sizeof(plain.characters));
	for (size_t i = 0; i < array_size(kept); i++)
		plain.characters[kept[i]] = settings->characters[kept[i]];
	return plain;
}

/*
 * The kernel handles what is written to a master a little later, and nothing tells when. TIOCSTI is handled at once: so
 * what follows cannot change how. It needs CAP_SYS_ADMIN. -EAGAIN: use the master.
 */
static int type(const struct flow *flow, const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (ioctl(flow->slave, TIOCSTI, data + i) < 0)
			return i ? -errno : -EAGAIN;
	return 0;
}

static int type_or_write(const struct flow *flow, const char *data, size_t size)
{
	size_t first = min(size, (size_t)MOST_TYPED);
	int result = type(flow, data, first);

	if (result == -EAGAIN)
		first = result = 0;
	result = result ?: put(flow->master, flow->slave, data + first, size - first);
	settle_queue(flow->slave);
	return result;
}

/* Up to the next end of file, and then that. */
static int put_input(const struct flow *flow)
{
	struct kernel_termios plain, ending;
	size_t at = 0;

	if (!flow->input_size && !flow->end_count)
		return 0;
	plain = ending = plain_input(&flow->settings, !flow->input_size || !has_flow_control(flow));
	ending.characters[VEOF] = 'D' - '@';
	for (size_t i = 0; i <= flow->end_count; i++) {
		size_t end = i < flow->end_count ? flow->ends[i] : flow->input_size;
		int result = set(flow, &plain) ?: type_or_write(flow, flow->input + at, end - at);

		if (!result && i < flow->end_count)
			result = set(flow, &ending) ?: type_or_write(flow, "\004", 1);
		if (result)
			return result;
		at = end;
	}
	return 0;
}

/* ---- output that is stopped ---- */

/* Types ^S or ^Q, which act even if the terminal has other characters for that, or none. */
static int type_flow_control(const struct flow *flow, const char *letter)
{
	struct kernel_termios plain = plain_input(&flow->settings, false);
	int result;

	plain.input = IXON;
	plain.characters[VSTART] = 'Q' - '@';
	plain.characters[VSTOP] = 'S' - '@';
	result = set(flow, &plain) ?: type_or_write(flow, letter, 1);
	return result ?: set(flow, &flow->settings);
}

/* When all output has been read there is room, unless it is stopped. Lets it go on. */
static int start(const struct flow *flow, uint32_t *stopped)
{
	*stopped = 0;
	if (has_room(flow->slave))
		return 0;
	*stopped = STOPPED_BY_CALL;
	if (ioctl(flow->slave, TCXONC, TCOON) < 0)
		return -errno;
	if (has_room(flow->slave))
		return 0;
	*stopped = STOPPED_BY_CHARACTER;
	return type_flow_control(flow, "\021");
}

static int stop(const struct flow *flow, uint32_t stopped)
{
	if (stopped == STOPPED_BY_CHARACTER)
		return type_flow_control(flow, "\023");
	return stopped && ioctl(flow->slave, TCXONC, TCOOFF) < 0 ? -errno : 0;
}

/*
 * While there is no room, what is typed is not echoed. The next write does that first, even if it is empty (Linux 6.18,
 * n_tty_write()). These echoes are part of the output, then.
 */
static int take_echoes(struct flow *flow)
{
	if (write(flow->slave, "", 0) < 0)
		return -errno;
	return take(flow->master, &flow->output, &flow->output_size);
}

/* ---- packet mode ---- */

static int set_packets(int master, int mode)
{
	return ioctl(master, TIOCPKT, &mode) < 0 ? -errno : 0;
}

/* Reads what there is to tell of the terminal, and ends packet mode. */
static int leave_packets(int master, uint32_t *status)
{
	struct pollfd asked = { .fd = master, .events = POLLPRI };
	uint8_t byte = 0;

	*status = 0;
	if (poll(&asked, 1, 0) > 0 && asked.revents & POLLPRI && read(master, &byte, 1) == 1)
		*status = byte;
	return set_packets(master, 0);
}

/* While the terminal is empty: begins packet mode, and tells again of what was flushed. */
static int enter_packets(const struct flow *flow, uint32_t status)
{
	int result = set_packets(flow->master, 1);

	if (!result && status & TIOCPKT_FLUSHREAD && ioctl(flow->slave, TCFLSH, TCIFLUSH) < 0)
		result = -errno;
	if (!result && status & TIOCPKT_FLUSHWRITE && ioctl(flow->slave, TCFLSH, TCOFLUSH) < 0)
		result = -errno;
	return result;
}

/* Tells again that settings have changed: to what they are now. */
static int tell_settings(const struct flow *flow, uint32_t status)
{
	struct kernel_termios other = flow->settings;

	if (status & TIOCPKT_IOCTL)
		other.local ^= EXTPROC;
	if (status & (TIOCPKT_NOSTOP | TIOCPKT_DOSTOP)) {
		other.input = status & TIOCPKT_NOSTOP ? other.input | IXON : other.input & ~IXON;
		other.characters[VSTART] = 'Q' - '@';
		other.characters[VSTOP] = 'S' - '@';
	}
	return set(flow, &other) ?: set(flow, &flow->settings);
}

/* Last, when everything else is as it was. */
static int tell_packets(const struct flow *flow, uint32_t status)
{
	int result = 0;

	if (status & (TIOCPKT_IOCTL | TIOCPKT_NOSTOP | TIOCPKT_DOSTOP))
		result = tell_settings(flow, status);
	if (!result && status & TIOCPKT_START &&
	    (ioctl(flow->slave, TCXONC, TCOOFF) < 0 || ioctl(flow->slave, TCXONC, TCOON) < 0))
		result = -errno;
	return result;
}

/* ---- dump ---- */

static int put_back(const struct flow *flow, const TtyInfoEntry *info)
{
	int result = info->packet_mode ? enter_packets(flow, info->packet_status) : 0;

	if (!result)
		result = put_output(flow) ?: put_input(flow);
	if (set(flow, &flow->settings))
		result = result ?: -errno;
	result = stop(flow, info->stopped) ?: result;
	if (!result && info->packet_mode)
		result = tell_packets(flow, info->packet_status);
	return result;
}

static int copy_data(struct flow *flow, TtyInfoEntry *info)
{
	uint32_t stopped = 0, status = 0;
	int result = info->packet_mode ? leave_packets(flow->master, &status) : 0, back;

	if (status)
		message_set(info, packet_status, status);
	if (!result)
		result = take(flow->master, &flow->output, &flow->output_size) ?:
				 start(flow, &stopped)			       ?:
										 take_echoes(flow);
	if (stopped)
		message_set(info, stopped, stopped);
	if (!result)
		result = take_input(flow);
	back = put_back(flow, info);
	return result ?: back;
}

static int save_data(struct snapshot *snapshot, struct image **image, TtyDataEntry *entry)
{
	int result = 0;

	if (!entry->data.len && !entry->n_ends)
		return 0;
	if (!*image)
		result = image_create(snapshot->images, image, IMAGE_TTY_DATA, 0);
	return result ?: image_write(*image, &entry->base);
}

static uint32_t slave_id(const struct snapshot *snapshot, const TtyInfoEntry *master)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (uint32_t id = 2 * master->pty->index;; id += 2) {
		const TtyInfoEntry *info = index_find(&terminals->by_id, id);

		if (!info)
			return master->id - 1; /* it is open only as /dev/tty, or not at all */
		if (info->pty && !terminal_is_master(info) &&
		    terminal_pair_key(info) == terminal_pair_key(master))
			return id;
	}
}

static int save_flow(struct snapshot *snapshot, struct image **image, const TtyInfoEntry *master,
		     const struct flow *flow)
{
	TtyDataEntry output = TTY_DATA_ENTRY__INIT, input = TTY_DATA_ENTRY__INIT;

	output.tty_id = master->id;
	output.data = (ProtobufCBinaryData){ flow->output_size, (uint8_t *)flow->output };
	input.tty_id = slave_id(snapshot, master);
	input.data = (ProtobufCBinaryData){ flow->input_size, (uint8_t *)flow->input };
	input.ends = flow->ends;
	input.n_ends = flow->end_count;
	return save_data(snapshot, image, &output) ?: save_data(snapshot, image, &input);
}

/*
 * If nobody has ever opened the slave, criu must not do so, because the master would notice when it is closed. So data
 * cannot be put back.
 */
static int check_empty(int master, const TtyInfoEntry *info)
{
	int waiting = 0;

	settle_queue(master);
	if (ioctl(master, FIONREAD, &waiting) < 0 || waiting)
		return fail(
			0,
			"terminal %u, of which only the master was ever open, holds %d bytes: they must be read first",
			info->pty->index, waiting);
	return 0;
}

/* A master notices when the last file of its slave is closed, but not that there has never been one. */
static bool is_slave_new(const struct snapshot *snapshot, int master, const TtyInfoEntry *info)
{
	struct pollfd asked = { .fd = master, .events = POLLIN };

	if (index_find(&terminals_of(snapshot)->slaves, terminal_pair_key(info)))
		return false;
	return poll(&asked, 1, 0) < 0 || !(asked.revents & POLLHUP);
}

/*
 * A file of the slave that is criu's own. An exclusive one can be opened only with CAP_SYS_ADMIN. After an attempt to
 * open a locked one (TIOCSPTLCK) nobody can write to it any more (Linux 6.18, pty_open()).
 */
static int open_slave(const struct snapshot *snapshot, int master, const TtyInfoEntry *info)
{
	const struct seen_file *seen = index_find(&terminals_of(snapshot)->slaves, terminal_pair_key(info));
	int fd = -1;

	if (!info->locked || !seen)
		fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	return seen ? files_borrow(seen) :
		      fail(errno, "cannot open the slave of terminal %u", info->pty->index);
}

/* Settings that are locked would not change for the data. */
static int copy_unlocked_data(struct flow *flow, TtyInfoEntry *info)
{
	static const struct kernel_termios none;
	struct kernel_termios locked;
	int result;

	if (!terminal_read_termios(info->termios_locked, &locked) || !memcmp(&locked, &none, sizeof(none)))
		return copy_data(flow, info);
	if (ioctl(flow->slave, TIOCSLCKTRMIOS, &none) < 0)
		return -errno;
	result = copy_data(flow, info);
	if (ioctl(flow->slave, TIOCSLCKTRMIOS, &locked) < 0 && !result)
		result = -errno;
	return result;
}

int terminal_save_data(struct snapshot *snapshot, struct image **image, TtyInfoEntry *info)
{
	const struct file *file = index_find(&terminals_of(snapshot)->masters, terminal_pair_key(info));
	autoclose int master = files_borrow(file->seen), slave = -1;
	struct flow flow = { .master = master };
	int result;

	if (master < 0)
		return master;
	if (is_slave_new(snapshot, master, info)) {
		message_set(info, slave_is_new, true);
		return check_empty(master, info);
	}
	slave = flow.slave = open_slave(snapshot, master, info);
	if (slave < 0)
		return slave;
	if (ioctl(slave, TCGETS, &flow.settings) < 0)
		return fail(errno, "cannot read the settings of terminal %u", info->pty->index);
	/* Somebody may have tried to open it while it was locked. What was taken out could not be put back then. */
	if (write(slave, "", 0) < 0)
		return fail(errno, "nobody can write to terminal %u, so its data cannot be copied",
			    info->pty->index);
	result = copy_unlocked_data(&flow, info);
	if (result)
		result = fail(-result, "cannot copy the data in terminal %u", info->pty->index);
	else
		result = save_flow(snapshot, image, info, &flow);
	flow_free(&flow);
	return result;
}

/* ---- restore ---- */

static int check_ends(const TtyDataEntry *entry)
{
	for (size_t i = 0; i < entry->n_ends; i++)
		if (entry->ends[i] > entry->data.len || (i && entry->ends[i] < entry->ends[i - 1]))
			return fail(EINVAL, "tty-data.img: an end of file of terminal %u is not in its data",
				    entry->tty_id);
	return 0;
}

int terminal_load_data(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);
	TtyDataEntry *entry;
	struct image *image;
	int result = image_open(snapshot->images, &image, IMAGE_TTY_DATA, 0);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(image, tty_data_entry, &entry)) > 0) {
		*grow(&terminals->data, &terminals->data_count) = entry;
		result = check_ends(entry);
		if (result)
			break;
	}
	image_close_read(image);
	return result;
}

/* Input goes to the slave through the master; only data of this terminal is put back. */
static int put_entry(const struct snapshot *snapshot, struct flow *flow, const TtyInfoEntry *master,
		     const TtyDataEntry *entry)
{
	const TtyInfoEntry *info = terminal_find(snapshot, entry->tty_id);
	bool is_slave = info ? info->pty && !terminal_is_master(info) && !info->hung_up &&
					terminal_master_of(snapshot, info) == master :
			       entry->tty_id == master->id - 1;

	flow->output = flow->input = (char *)entry->data.data;
	flow->output_size = flow->input_size = entry->data.len;
	flow->ends = entry->ends;
	flow->end_count = entry->n_ends;
	if (entry->tty_id == master->id)
		return put_output(flow);
	return is_slave ? put_input(flow) : 0;
}

int terminal_put_data(const struct snapshot *snapshot, const struct pair *pair, const TtyInfoEntry *master)
{
	const struct terminals *terminals = terminals_of(snapshot);
	struct flow flow = { .master = pair->master, .slave = pair->slave };
	int result = 0;

	if (!terminal_settings(master, &flow.settings) && ioctl(pair->slave, TCGETS, &flow.settings) < 0)
		return fail(errno, "cannot read the settings of terminal %u", pair->index);
	if (master->packet_mode)
		result = enter_packets(&flow, master->packet_status);
	for (size_t i = 0; !result && i < terminals->data_count; i++)
		result = put_entry(snapshot, &flow, master, terminals->data[i]);
	if (!result)
		result = set(&flow, &flow.settings) ?: stop(&flow, master->stopped);
	if (!result && master->packet_mode)
		result = tell_packets(&flow, master->packet_status);
	return result ? fail(-result, "cannot restore the data in terminal %u", pair->index) : 0;
}
