/*
 * terminal_data.c - what waits in an inner terminal: written by the tree and not read from the master, typed and not read by the
 * tree. See terminal.h.
 *
 * There is no way to look at it. Dump takes it out and at once puts it back, while everybody who could read it is frozen. For that the
 * terminal is made to pass on what it gets as it is. An end of file (^D) that waits is taken for a NUL.
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
#include "files/terminal.h"
#include "image/message.h"

#define PIECE	 256
#define PATIENCE 1000 /* milliseconds */

/* Input reaches the other end by way of a queue: who polls has it worked off. */
static void settle_queue(int fd)
{
	poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0);
}

/* All that can be read. What did not fit into the terminal itself comes after what is read. */
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

static bool has_room(int fd)
{
	struct pollfd asked = { .fd = fd, .events = POLLOUT };

	return poll(&asked, 1, 0) > 0 && asked.revents & POLLOUT;
}

/*
 * A write that finds no room sleeps until somebody reads, even if the queue is worked off meanwhile: so never more than fits. The
 * kernel takes 256 bytes wherever it has room for any.
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

/* Somebody may have stopped the output (^S). */
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
 * Through the master. What ends a line still does; nothing else is done to what comes. Flow control stays as it is, because a change
 * would be told to who reads from a master in packet mode; its characters cannot be in the data.
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
	int result = take(master, data, size);

	return result || !*size ? result : put_output(master, slave, settings, *data, *size);
}

/* A line that is still being typed can be read only when lines do not count. */
static int copy_input(int master, int slave, const struct kernel_termios *settings, char **data, size_t *size)
{
	struct kernel_termios plain = *settings;
	int result;

	plain.local &= ~ICANON;
	if (settings->local & ICANON && ioctl(slave, TCSETS, &plain) < 0)
		return -errno;
	result = take(slave, data, size);
	return result || !*size ? result : put_input(master, slave, settings, *data, *size);
}

static int save(struct snapshot *snapshot, struct image **image, uint32_t id, const char *data, size_t size)
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

/* A file that leads to the slave; the session's own /dev/tty does, too. NULL: there is none. */
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
	return master->id - 1; /* nobody has it open but as /dev/tty */
}

/* With nobody at the slave there is no way to put anything back. */
static int check_empty(int master, const TtyInfoEntry *info)
{
	int waiting = 0;

	settle_queue(master);
	if (ioctl(master, FIONREAD, &waiting) < 0 || waiting)
		return fail(0,
			    "%d bytes wait in terminal %u, which only its master has open: read them first",
			    waiting, info->pty->index);
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
		return fail(-result, "cannot copy what waits in terminal %u", info->pty->index);
	return save(snapshot, image, info->id, output, output_size) ?:
		       save(snapshot, image, slave_id(snapshot, info), input, input_size);
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

/* To the slave it was typed; any other terminal's is not ours. */
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
			return fail(-result, "cannot put back what waited in terminal %u", pair->index);
	}
	return 0;
}
