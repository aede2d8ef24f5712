/*
 * terminal.h - terminals: the one from which a tree was started (--shell-job), and pairs (pty(7)) of which the tree has
 * both ends.
 *
 * A terminal is *outer* if no task of the tree holds its master. On restore its files become the terminal that criu was
 * started from, or /dev/null if there is none. Otherwise it is *inner*, and is created again with the same number
 * (/dev/pts/N), or with another one if the number is in use. One that the user names (--external) is *external*: a
 * restore gets a descriptor of it (--inherit-fd). One whose master has gone is *hung up*: a restore makes a pair, and
 * closes its master. A console, a serial line or a virtual console is a *device*, which is opened again by its path.
 */
#ifndef CRIU_FILES_TERMINAL_H
#define CRIU_FILES_TERMINAL_H

#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include "compiler.h"
#include "files/kind.h"
#include "image/image.h"
#include "tty.pb-c.h"

#define TTY_DEVICE     makedev(5, 0) /* /dev/tty: the controlling terminal of the session */
#define CONSOLE_DEVICE makedev(5, 1)
#define PTMX_DEVICE    makedev(5, 2)
#define NULL_DEVICE    makedev(1, 3)
#define PTS_MAJOR      136

#define MOST_TERMINALS (1 << 20) /* NR_UNIX98_PTY_MAX: numbers of /dev/pts/N are lower */

#define CONTROL_CHARACTERS 19
/* As used by TCGETS; libc's struct differs. */
struct kernel_termios {
	uint32_t input, output, control, local;
	uint8_t line, characters[CONTROL_CHARACTERS];
};

struct pair {
	uint32_t index;	 /* in the images */
	uint32_t number; /* now */
	bool is_hung_up; /* its master will be closed */
	uint32_t id;	 /* of the terminal that is hung up */
	int master, slave;
};

/* Dump: what is known of a terminal beside its record. */
struct terminal_seen {
	TtyInfoEntry *info;
	const struct seen_file *file; /* one of its files */
	dev_t device;		      /* by which sessions refer to it; 0: it was hung up */
};

/* An external terminal, as it was before the restore. */
struct dressed_terminal {
	int fd;
	struct kernel_termios settings;
	struct winsize size;
};

/* The state of file_kind_terminal. */
struct terminals {
	TtyInfoEntry **items;
	size_t count;
	struct index by_id; /* to TtyInfoEntry */
	/* Dump: struct file, by terminal_pair_key(). Restore: TtyInfoEntry, by number of the terminal. */
	struct index masters;

	/* dump: of each of `items` */
	struct terminal_seen **seen;
	size_t seen_count;
	struct index by_identity; /* to struct terminal_seen */
	struct index slaves;	  /* to struct seen_file, by terminal_pair_key() */

	/* dump: of each task, when the first terminal was found */
	struct proc_stat *stats;
	size_t stat_count;
	struct index controlled; /* to struct proc_stat, by terminal: one of its session */

	/* restore: the data in them */
	TtyDataEntry **data;
	size_t data_count;

	/* restore: the pairs that were created */
	struct pair *pairs;
	size_t pair_count;
	struct pair *spare; /* given by the kernel before a wanted number */
	size_t spare_count;
	struct index hung_up_numbers; /* to TtyInfoEntry */

	/* restore: the terminal that criu was started from, and its old settings */
	int ours;	/* -1: none, or not looked for yet */
	bool is_needed; /* it was looked for */
	bool is_changed;
	struct kernel_termios old_settings;
	struct winsize *old_size;
	pid_t old_foreground;

	/* restore: the external terminals that were changed */
	struct dressed_terminal *dressed;
	size_t dressed_count;
};

static inline bool terminal_is_master(const TtyInfoEntry *info)
{
	return info->type == TTY_TYPE__PTY && info->rdev == PTMX_DEVICE;
}

struct terminals *terminals_of(const struct snapshot *snapshot);
TtyInfoEntry *terminal_find(const struct snapshot *snapshot, uint32_t id);
void terminals_add(struct terminals *terminals, TtyInfoEntry *info);
/* Frees the records. */
void terminals_free(struct terminals *terminals);

/* Dump: is it /dev/pts/N? terminal_index() is the N of that, or of the master. */
bool terminal_is_slave(const struct seen_file *seen);
uint32_t terminal_index(const struct seen_file *seen);

/* terminal_look.c: dump */
/* Of a slave or master: names the pair, also if there are several devpts. */
uint64_t terminal_pair_key(const TtyInfoEntry *info);
/* A new master is known by its pair. */
int terminal_note_master(struct snapshot *snapshot, struct file *file, uint32_t index) must_check;
/* The record of the file's terminal, which is added if it is new. */
int terminal_describe_file(struct snapshot *snapshot, struct file *file, TtyInfoEntry **info) must_check;
/* Is the master in a devpts that a restore does not use? */
bool terminal_is_elsewhere(const TtyInfoEntry *master);
/* terminal_session.c: dump */
/* The session that a terminal controls, and its foreground group, from a task of that session. */
int terminal_find_session(struct snapshot *snapshot, const struct seen_file *seen, dev_t device,
			  TtyInfoEntry *info) must_check;
/* Refuses a terminal that is lost with the tree, though no task has it open. */
int terminal_check_control(struct snapshot *snapshot) must_check;

/*
 * terminal_data.c: saves the data to be read from either end, and completes the master's record; *image is created on
 * demand
 */
int terminal_save_data(struct snapshot *snapshot, struct image **image, TtyInfoEntry *master) must_check;
int terminal_load_data(struct snapshot *snapshot) must_check; /* tty-data.img */
int terminal_put_data(const struct snapshot *snapshot, const struct pair *pair, const TtyInfoEntry *master)
	must_check;

/* terminal_holder.c: "process 7 (sshd)", a process that has pty `number` open; NULL: none visible. To be freed */
char *terminal_holder(uint32_t number);

/* terminal_settings.c: from the record; false: it has none */
bool terminal_settings(const TtyInfoEntry *info, struct kernel_termios *settings);
bool terminal_read_termios(const TermiosEntry *entry, struct kernel_termios *settings);
/* Also sets the size. */
int terminal_set_settings(int fd, const TtyInfoEntry *info) must_check;

/* terminal_external.c */
bool terminal_external_key(const struct snapshot *snapshot, const struct file *file,
			   struct external_key *key);
int terminal_check_external(struct snapshot *snapshot, struct file *file, const struct stat *found)
	must_check;
int terminal_open_external(struct snapshot *snapshot, struct file *file) must_check;
/* criu's descriptor of an external terminal, or of a device; -1: no file of it is open */
int terminal_shared_fd(const struct snapshot *snapshot, const TtyInfoEntry *info);
int terminals_dress_external(struct snapshot *snapshot) must_check;
void terminals_undress_external(struct snapshot *snapshot);

/* terminal_pair.c: restore, pairs */
/* The record of the master of pty `index`, if the tree holds it. */
TtyInfoEntry *terminal_find_master(const struct snapshot *snapshot, uint32_t index);
/* The same for a slave or its master; NULL: it is not inner */
const TtyInfoEntry *terminal_master_of(const struct snapshot *snapshot, const TtyInfoEntry *info);
/* The pair that was created for it; NULL: none yet */
const struct pair *terminal_known_pair(const struct snapshot *snapshot, const TtyInfoEntry *info);
/* Creates it, if it is new; NULL: recorded */
const struct pair *terminal_need_pair(struct snapshot *snapshot, const TtyInfoEntry *info);
/* /dev/tty of a process that the terminal `slave` controls: a descriptor */
int terminal_open_as_controlling(int slave, int flags) must_check;
/* When all files are open: hangs up what was hung up, and locks what was locked. */
int terminals_join(struct snapshot *snapshot) must_check;
void terminals_close_pairs(struct terminals *terminals);

/* terminal_restore.c */
int terminals_load(struct snapshot *snapshot) must_check;
int terminal_check(struct snapshot *snapshot, struct file *file) must_check;
int terminal_open(struct snapshot *snapshot, struct file *file) must_check;
void terminals_pass(struct snapshot *snapshot, struct letter *letter);
int terminal_settle(struct snapshot *snapshot, struct task *task) must_check;
void terminals_close(struct snapshot *snapshot);
/* In criu and in a newborn: does /dev/null replace it, because criu has no terminal? */
bool terminal_is_replaced(const struct file *file);

/*
 * In a newborn that has just created its session, before it has children: its terminal controls the session again. An
 * outer terminal does so if it controls no session, such as a new one that was given to criu for this.
 */
int terminal_take_control(struct snapshot *snapshot, const struct task *task) must_check;
/*
 * Restore, last: criu's terminal gets the settings, the size and the foreground group of the tree's; the second
 * function undoes it.
 */
int terminals_hand_over(struct snapshot *snapshot) must_check;
void terminals_take_back(struct snapshot *snapshot);

#endif
