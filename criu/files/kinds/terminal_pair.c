/*
 * terminal_pair.c - restore: makes inner terminals again, and those that were hung up. See terminal.h.
 *
 * An inner terminal needs its old number, because programs know its name: /dev/ptmx is opened until the kernel returns
 * that number. The kernel returns the lowest free number first, so lower ones are kept until all terminals exist. If
 * the number is in use, another one will do, unless an image names the terminal by its path.
 *
 * When all files are open, the master of a terminal that was hung up is closed, which hangs it up again. Before that no
 * session has it, so nobody gets a signal. What prevents opening is set then, too: TIOCEXCL and TIOCSPTLCK.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kinds/terminal.h"
#include "kernel/place.h"
#include "model/inode.h"

TtyInfoEntry *terminal_find_master(const struct snapshot *snapshot, uint32_t index)
{
	return index_find(&terminals_of(snapshot)->masters, index);
}

/* Terminals of another devpts, which are outer, may have the same number. */
const TtyInfoEntry *terminal_master_of(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	const TtyInfoEntry *master = info->pty && !info->hung_up ?
					     terminal_find_master(snapshot, info->pty->index) :
					     NULL;

	if (master && info->type == TTY_TYPE__PTY && !terminal_is_master(info) && master->has_devpts &&
	    info->has_dev && info->dev != master->devpts)
		return NULL;
	return master;
}

/* ---- numbers ---- */

static int open_master(struct pair *pair)
{
	pair->master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (pair->master < 0 || ioctl(pair->master, TIOCGPTN, &pair->number) < 0)
		return fail(errno, "cannot create a terminal");
	return 0;
}

static bool is_number_free(const struct snapshot *snapshot, uint32_t number)
{
	return !terminal_find_master(snapshot, number) &&
	       !index_find(&terminals_of(snapshot)->hung_up_numbers, number);
}

/*
 * Chooses from the pairs that the kernel has returned so far. A higher number than the wanted one means that this is in
 * use. Then any will do that no other terminal of the tree needs. NULL: none fits yet.
 */
static struct pair *choose_spare(const struct snapshot *snapshot, uint32_t wanted)
{
	struct terminals *terminals = terminals_of(snapshot);
	struct pair *any = NULL, *spare;

	for (size_t i = 0; i < terminals->spare_count; i++) {
		spare = &terminals->spare[i];
		if (spare->master >= 0 && spare->number == wanted)
			return spare;
		if (spare->master >= 0 && !any && is_number_free(snapshot, spare->number))
			any = spare;
	}
	return terminals->spare_count && terminals->spare[terminals->spare_count - 1].number > wanted ? any :
													NULL;
}

static int find_number(const struct snapshot *snapshot, struct pair *pair)
{
	struct terminals *terminals = terminals_of(snapshot);
	struct pair *chosen;

	while (!(chosen = choose_spare(snapshot, pair->index))) {
		struct pair *next = grow(&terminals->spare, &terminals->spare_count);
		int result;

		next->slave = -1;
		result = open_master(next);
		if (result)
			return result;
	}
	pair->number = chosen->number;
	pair->master = steal_fd(&chosen->master);
	return 0;
}

/* Finds a file that was opened by the path of the terminal with O_PATH: it refers to the path, not to the terminal. */
static const struct file *find_by_path(const struct snapshot *snapshot, uint32_t index)
{
	autofree char *name = format_text("/dev/pts/%u", index);

	const struct file_list *files = files_of_kind(snapshot, &file_kind_regular);

	for (size_t i = 0; i < files->count; i++) {
		const struct file *file = files->items[i];

		if (!file->is_only_path && !strcmp(file->entry->reg->name, name))
			return file;
	}
	return NULL;
}

/* With another number, the path differs. */
static int check_number(const struct snapshot *snapshot, const struct pair *pair)
{
	autofree char *holder = NULL;
	const struct file *named;

	if (pair->number == pair->index)
		return 0;
	holder = terminal_holder(pair->index);
	named = find_by_path(snapshot, pair->index);
	if (named)
		return fail(EEXIST, "%s uses terminal /dev/pts/%u, which file %u of files.img refers to",
			    holder ?: "another process", pair->index, named->id);
	log_warning("%s uses terminal /dev/pts/%u: the restored terminal is /dev/pts/%u instead",
		    holder ?: "another process", pair->index, pair->number);
	return 0;
}

/* ---- the slave ---- */

/* criu 4.2 stores the owner of the slave in a file of the slave, if there is one. */
static void find_rights(const struct snapshot *snapshot, TtyInfoEntry *slave)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_terminal);

	for (size_t i = 0; !slave->has_slave_mode && i < files->count; i++) {
		const TtyInfoEntry *info = terminal_find(snapshot, files->items[i]->entry->tty->tty_info_id);
		const struct file *path = info->pty ? file_path(snapshot, files->items[i]) : NULL;

		if (!path || terminal_is_master(info) || info->pty->index != slave->pty->index ||
		    !path->entry->reg->has_mode)
			continue;
		slave->has_slave_mode = true;
		slave->slave_uid = info->uid;
		slave->slave_gid = info->gid;
		slave->slave_mode = path->entry->reg->mode & 07777;
	}
}

/* Sets owner, mode and times of the slave's file. */
static int dress_slave(const struct snapshot *snapshot, const TtyInfoEntry *info, const struct pair *pair)
{
	autofree char *name = format_text("/dev/pts/%u", pair->number);
	TtyInfoEntry slave = *info;

	if (info->pty)
		find_rights(snapshot, &slave);
	if (slave.has_slave_mode &&
	    (chown(name, slave.slave_uid, slave.slave_gid) < 0 || chmod(name, slave.slave_mode) < 0))
		return fail(errno, "cannot give terminal %u its owner", pair->index);
	if (!inode_times_are_possible(info->slave_times) ||
	    (pair->slave >= 0 && inode_set_times(pair->slave, info->slave_times) < 0))
		return fail(errno, "cannot set the times of terminal %u", pair->index);
	return 0;
}

static int open_slave(struct pair *pair)
{
	int zero = 0;

	if (ioctl(pair->master, TIOCSPTLCK, &zero) < 0)
		return fail(errno, "cannot unlock terminal %u", pair->index);
	pair->slave = ioctl(pair->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	return pair->slave < 0 ? fail(errno, "cannot open /dev/pts/%u", pair->number) : 0;
}

/* Packet mode is last, because a reader of such a master is told of every change to the terminal. */
static int fill(const struct snapshot *snapshot, const TtyInfoEntry *info, const struct pair *pair)
{
	int result = terminal_set_settings(pair->slave, info);

	return result ?: terminal_put_data(snapshot, pair, info);
}

static int make_pair(const struct snapshot *snapshot, const TtyInfoEntry *info, struct pair *pair)
{
	int result = find_number(snapshot, pair) ?: check_number(snapshot, pair);

	if (!result && !info->slave_is_new)
		result = open_slave(pair);
	if (result)
		return result;
	if (info->hung_up)
		return dress_slave(snapshot, info, pair);
	result = info->slave_is_new ? terminal_set_settings(pair->master, info) : fill(snapshot, info, pair);
	return result ?: dress_slave(snapshot, info, pair);
}

/* ---- pairs ---- */

const struct pair *terminal_known_pair(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	const struct terminals *terminals = terminals_of(snapshot);

	for (size_t i = 0; i < terminals->pair_count; i++) {
		const struct pair *pair = &terminals->pairs[i];

		if (info->hung_up ? pair->is_hung_up && pair->id == info->id :
				    !pair->is_hung_up && pair->index == info->pty->index)
			return pair;
	}
	return NULL;
}

const struct pair *terminal_need_pair(struct snapshot *snapshot, const TtyInfoEntry *info)
{
	struct terminals *terminals = terminals_of(snapshot);
	const struct pair *known = terminal_known_pair(snapshot, info);
	struct pair *pair;

	if (known)
		return known;
	pair = grow(&terminals->pairs, &terminals->pair_count);
	*pair = (struct pair){ .master = -1, .slave = -1 };
	pair->is_hung_up = info->hung_up;
	pair->id = info->id;
	pair->index = info->pty ? info->pty->index : 0;
	if (!info->hung_up)
		info = terminal_master_of(snapshot, info);
	return make_pair(snapshot, info, pair) ? NULL : pair;
}

struct controlling {
	int slave, flags;
};

static int open_controlling(void *argument)
{
	const struct controlling *asked = argument;
	int fd;

	if (setsid() < 0 || ioctl(asked->slave, TIOCSCTTY, 0) < 0)
		return fail(errno, "cannot open /dev/tty for a terminal");
	fd = open("/dev/tty", asked->flags | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? fail(errno, "cannot open /dev/tty") : fd;
}

int terminal_open_as_controlling(int slave, int flags)
{
	struct controlling asked = { slave, flags };
	struct place place = PLACE_HERE;

	return run_in(&place, open_controlling, &asked);
}

/* ---- when all files are open ---- */

static int lock_settings(int fd, const TermiosEntry *entry)
{
	struct kernel_termios locked;
	static const struct kernel_termios none;

	if (!terminal_read_termios(entry, &locked) || !memcmp(&locked, &none, sizeof(locked)))
		return 0;
	return ioctl(fd, TIOCSLCKTRMIOS, &locked);
}

static int lock_terminal(const struct snapshot *snapshot, const TtyInfoEntry *info)
{
	const struct pair *pair = terminal_known_pair(snapshot, info);
	bool is_master = terminal_is_master(info);
	int lock = info->locked, fd = !pair ? -1 : is_master ? pair->master : pair->slave;

	if (fd < 0)
		return 0;
	if (lock_settings(fd, info->termios_locked) < 0 || (info->exclusive && ioctl(fd, TIOCEXCL) < 0) ||
	    (is_master && ioctl(fd, TIOCSPTLCK, &lock) < 0))
		return fail(errno, "cannot lock terminal %u", pair->index);
	return 0;
}

static void close_pair(struct pair *pair)
{
	if (pair->master >= 0)
		close(steal_fd(&pair->master));
	if (pair->slave >= 0)
		close(steal_fd(&pair->slave));
}

static void close_spare(struct terminals *terminals)
{
	for (size_t i = 0; i < terminals->spare_count; i++)
		close_pair(&terminals->spare[i]);
	free(terminals->spare);
	terminals->spare = NULL;
	terminals->spare_count = 0;
}

int terminals_join(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);
	int result = 0;

	close_spare(terminals);
	for (size_t i = 0; i < terminals->pair_count; i++)
		if (terminals->pairs[i].is_hung_up)
			close_pair(&terminals->pairs[i]);
	for (size_t i = 0; !result && i < terminals->count; i++)
		if (terminals->items[i]->type == TTY_TYPE__PTY && !terminals->items[i]->hung_up &&
		    terminal_master_of(snapshot, terminals->items[i]))
			result = lock_terminal(snapshot, terminals->items[i]);
	return result;
}

void terminals_close_pairs(struct terminals *terminals)
{
	close_spare(terminals);
	for (size_t i = 0; i < terminals->pair_count; i++)
		close_pair(&terminals->pairs[i]);
	free(terminals->pairs);
	terminals->pairs = NULL;
	terminals->pair_count = 0;
}
