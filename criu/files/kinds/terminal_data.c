/*
 * terminal_data.c - the data in an inner terminal: output of the tree that was not read from the master, and input that
 * the tree has not read. See terminal.h.
 *
 * The data can only be read by taking it out. Dump takes it out and puts it back at once, while all tasks that could
 * read it are frozen. Meanwhile the terminal is set to pass data on unchanged. A pending end of file (^D) is saved as a
 * NUL.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kinds/terminal.h"
#include "image/message.h"

#define PIECE	 256
#define PATIENCE 1000 /* milliseconds */

/* Input reaches the other end through a queue; poll() flushes it. */
static void settle_queue(int fd)
{
	poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0);
}

/* Reads everything. Data that did not fit into the terminal itself follows after the first reads. */
static int terminal_data_take(int fd, char **data, size_t *size)
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

/* The output may have been stopped (^S). */
static int put_stopped(int slave, int master, const char *data, size_t size)
{
	bool is_stopped = !has_room(slave);
	int result;

	if (is_stopped && ioctl(slave, TCXONC, TCOON) < 0)
		return -errno;
	result = put(slave, master, data, size);
	if (is_stopped && ioctl(slave, TCXONC, TCOOFF) < 0)
		return -errno;
	return result;
}

static int put_output(int master, int slave, const struct kernel_termios *settings, const char *data,
		      size_t size)
{
	struct kernel_termios plain = *settings;

	plain.output = 0;
	return ioctl(slave, TCSETS, &plain) < 0 ? -errno : put_stopped(slave, master, data, size);
}

/*
 * Writes through the master. Characters that end a line still do so; otherwise the data is not interpreted. Flow
 * control stays as it is: a reader of a master in packet mode would be told of a change. The data cannot contain the
 * characters of flow control.
 */
static int put_input(int master, int slave, const struct kernel_termios *settings, const char *data,
		     size_t size)
{
	static const int kept[] = { VEOL, VEOL2, VSTART, VSTOP };
	struct kernel_termios plain = *settings;
	int result;

	plain.input &= IXON;
	plain.output = 0;
	plain.local &= ICANON | EXTPROC;
	memset(plain.characters, 0, sizeof(plain.characters));
	for (size_t i = 0; i < array_size(kept); i++)
		plain.characters[kept[i]] = settings->characters[kept[i]];
	if (ioctl(slave, TCSETS, &plain) < 0)
		return -errno;
	result = put(master, slave, data, size);
	settle_queue(slave);
	return result;
}

/* ---- dump ---- */

static int copy_output(int master, int slave, const struct kernel_termios *settings, char **data,
		       size_t *size)
{
	int result = terminal_data_take(master, data, size);

	return result || !*size ? result : put_output(master, slave, settings, *data, *size);
}

/* An incomplete line can be read only in non-canonical mode. */
static int copy_input(int master, int slave, const struct kernel_termios *settings, char **data, size_t *size)
{
	struct kernel_termios plain = *settings;
	int result;

	plain.local &= ~ICANON;
	if (settings->local & ICANON && ioctl(slave, TCSETS, &plain) < 0)
		return -errno;
	result = terminal_data_take(slave, data, size);
	return result || !*size ? result : put_input(master, slave, settings, *data, *size);
}

static int terminal_data_save(struct snapshot *snapshot, struct image **image, uint32_t id, const char *data,
			      size_t size)
{
	TtyDataEntry entry = TTY_DATA_ENTRY__INIT;
	int result = 0;

	if (!size)
		return 0;
	if (!*image)
		result = image_create(snapshot->images, image, IMAGE_TTY_DATA, 0);
	entry.tty_id = id;
	entry.data.data = (uint8_t *)data;
	entry.data.len = size;
	return result ?: image_write(*image, &entry.base);
}

/* A file of the slave; the session's own /dev/tty will do, too. NULL: none. */
static const struct seen_file *find_slave(const struct snapshot *snapshot, const TtyInfoEntry *master)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_terminal);

	for (size_t i = 0; i < files->count; i++) {
		const struct seen_file *seen = files->items[i]->seen;

		if (seen->stat.st_rdev == PTMX_DEVICE)
			continue;
		if (terminal_is_slave(seen) ? terminal_index(seen) == master->pty->index :
					      (uint32_t)seen->holder.session == master->sid)
			return seen;
	}
	return NULL;
}

static const struct seen_file *find_master(const struct snapshot *snapshot, const TtyInfoEntry *master)
{
	const struct file *file = index_find(&terminals_of(snapshot)->masters, master->pty->index);

	return file->seen;
}

static uint32_t slave_id(const struct snapshot *snapshot, const TtyInfoEntry *master)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->count; i++) {
		const TtyInfoEntry *info = terminals->items[i];

		if (info->pty && info->pty->index == master->pty->index && !terminal_is_master(info))
			return info->id;
	}
	return master->id - 1; /* it is open only as /dev/tty */
}

/* Without an open slave, data cannot be put back. */
static int check_empty(int master, const TtyInfoEntry *info)
{
	int waiting = 0;

	settle_queue(master);
	if (ioctl(master, FIONREAD, &waiting) < 0 || waiting)
		return fail(
			0,
			"terminal %u, of which only the master is open, holds %d bytes: they must be read first",
			info->pty->index, waiting);
	return 0;
}

int terminal_save_data(struct snapshot *snapshot, struct image **image, const TtyInfoEntry *info)
{
	const struct seen_file *seen = find_slave(snapshot, info);
	autoclose int master = files_borrow(find_master(snapshot, info)),
		      slave = seen ? files_borrow(seen) : -1;
	autofree char *output = NULL, *input = NULL;
	size_t output_size = 0, input_size = 0;
	struct kernel_termios settings;
	int result;

	if (master < 0 || (seen && slave < 0))
		return -EBADF;
	if (!seen)
		return check_empty(master, info);
	if (ioctl(slave, TCGETS, &settings) < 0)
		return fail(errno, "cannot read the settings of terminal %u", info->pty->index);
	result = copy_output(master, slave, &settings, &output, &output_size) ?:
			 copy_input(master, slave, &settings, &input, &input_size);
	if (ioctl(slave, TCSETS, &settings) < 0)
		result = -errno;
	if (result)
		return fail(-result, "cannot copy the data in terminal %u", info->pty->index);
	return terminal_data_save(snapshot, image, info->id, output, output_size) ?:
		       terminal_data_save(snapshot, image, slave_id(snapshot, info), input, input_size);
}

/* ---- restore ---- */

int terminal_load_data(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);
	TtyDataEntry *entry;
	struct image *image;
	int result = image_open(snapshot->images, &image, IMAGE_TTY_DATA, 0);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(image, tty_data_entry, &entry)) > 0)
		*grow(&terminals->data, &terminals->data_count) = entry;
	image_close_read(image);
	return result;
}

/* Input goes to the slave through the master; only data of this terminal is put back. */
static int put_entry(const struct snapshot *snapshot, const struct pair *pair, const TtyInfoEntry *master,
		     const struct kernel_termios *settings, const TtyDataEntry *entry)
{
	const TtyInfoEntry *info = terminal_find(snapshot, entry->tty_id);
	const char *data = (const char *)entry->data.data;
	bool is_slave = info ? info->pty && !terminal_is_master(info) && info->pty->index == pair->index :
			       entry->tty_id == master->id - 1;

	if (entry->tty_id == master->id)
		return put_output(pair->master, pair->slave, settings, data, entry->data.len);
	return is_slave ? put_input(pair->master, pair->slave, settings, data, entry->data.len) : 0;
}

int terminal_put_data(const struct snapshot *snapshot, const struct pair *pair, const TtyInfoEntry *master)
{
	const struct terminals *terminals = terminals_of(snapshot);
	struct kernel_termios settings;

	if (!terminals->data_count)
		return 0;
	if (!terminal_settings(master, &settings) && ioctl(pair->slave, TCGETS, &settings) < 0)
		return fail(errno, "cannot read the settings of terminal %u", pair->index);
	for (size_t i = 0; i < terminals->data_count; i++) {
		int result = put_entry(snapshot, pair, master, &settings, terminals->data[i]);

		if (result)
			return fail(-result, "cannot restore the data in terminal %u", pair->index);
	}
	return 0;
}
