/*
 * terminal.h - terminals: the one that a tree was started from (--shell-job), and pairs (pty(7)) of which the tree has both ends.
 *
 * Words: a terminal is *outer* if nobody in the tree holds its master. On restore its files lead to the terminal that criu was
 * started from, or to /dev/null if there is none. Else it is *inner*, and is made again under its number (/dev/pts/N), or under another
 * if somebody has taken that.
 */
#ifndef CRIU_FILES_TERMINAL_H
#define CRIU_FILES_TERMINAL_H

#include <sys/sysmacros.h>
#include "compiler.h"
#include "files/kind.h"
#include "image/image.h"
#include "tty.pb-c.h"

#define TTY_DEVICE  makedev(5, 0) /* /dev/tty: whatever controls the session */
#define PTMX_DEVICE makedev(5, 2)
#define NULL_DEVICE makedev(1, 3)
#define PTS_MAJOR   136

#define CONTROL_CHARACTERS 19
/* As TCGETS knows it; libc's is another. */
struct kernel_termios {
	uint32_t input, output, control, local;
	uint8_t line, characters[CONTROL_CHARACTERS];
};

struct pair {
	uint32_t index;	 /* in the images */
	uint32_t number; /* now */
	int master, slave;
};

/* The state of file_kind_terminal. */
struct terminals {
	TtyInfoEntry **items;
	size_t count;
	struct index by_id; /* to TtyInfoEntry */
	struct index
		masters; /* by the number of the terminal. Dump: files (struct file); restore: TtyInfoEntry */

	/* dump: a file that leads to each of `items` */
	const struct seen_file **seen;
	size_t seen_count;

	/* restore: what waited in them */
	TtyDataEntry **data;
	size_t data_count;

	/* restore: what was made, by number */
	struct pair *pairs;
	size_t pair_count;

	/* restore: the terminal that criu was started from, and how it was before */
	int ours;	/* -1: there is none, or it was not looked for yet */
	bool is_needed; /* it was looked for */
	bool is_changed;
	struct kernel_termios old_settings;
	struct winsize *old_size;
	pid_t old_foreground;
};

/* The record of settings as `criu dump` found them; false: there is none. */
bool terminal_settings(const TtyInfoEntry *info, struct kernel_termios *settings);

static inline bool terminal_is_master(const TtyInfoEntry *info)
{
	return info->type == TTY_TYPE__PTY && info->rdev == PTMX_DEVICE;
}

struct terminals *terminals_of(const struct snapshot *snapshot);
TtyInfoEntry *terminal_find(const struct snapshot *snapshot, uint32_t id);
void terminals_add(struct terminals *terminals, TtyInfoEntry *info);
/* Frees the records. */
void terminals_free(struct terminals *terminals);

/* Dump: is it /dev/pts/N? The N of that, or of the master. */
bool terminal_is_slave(const struct seen_file *seen);
uint32_t terminal_index(const struct seen_file *seen);

/* terminal_data.c: what waits in either end to be read, by the master's record; *image is made when it is needed */
int terminal_save_data(struct snapshot *snapshot, struct image **image, const TtyInfoEntry *master)
	must_check;
int terminal_load_data(struct snapshot *snapshot) must_check; /* tty-data.img */
int terminal_put_data(const struct snapshot *snapshot, const struct pair *pair, const TtyInfoEntry *master)
	must_check;

/* terminal_holder.c: "process 7 (sshd)", who has pty `number` open; NULL: nobody that we see. To be freed */
char *terminal_holder(uint32_t number);

/* terminal_restore.c */
/* The master's record, if the tree holds the master of pty `index`. */
TtyInfoEntry *terminal_find_master(const struct snapshot *snapshot, uint32_t index);
int terminals_load(struct snapshot *snapshot) must_check;
int terminal_check(struct snapshot *snapshot, struct file *file) must_check;
int terminal_open(struct snapshot *snapshot, struct file *file) must_check;
int terminal_settle(struct snapshot *snapshot, struct task *task) must_check;
void terminals_close(struct snapshot *snapshot);
/* In criu and in a newborn: does /dev/null stand for it, since criu has no terminal? */
bool terminal_is_replaced(const struct file *file);

/*
 * In a newborn that has just begun its session, before it has children: its terminal controls the session again. An outer one does
 * if it controls nobody, as a new one that was given to criu for this.
 */
int terminal_take_control(struct snapshot *snapshot, const struct task *task) must_check;
/* Restore, last: our terminal gets the settings, the size and the foreground group that the tree's had; and back. */
int terminals_hand_over(struct snapshot *snapshot) must_check;
void terminals_take_back(struct snapshot *snapshot);

#endif
