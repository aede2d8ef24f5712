/*
 * seen.h - what a dump finds out about a file before its kind is known.
 */
#ifndef CRIU_FILES_SEEN_H
#define CRIU_FILES_SEEN_H

#include <fcntl.h>
#include <sys/stat.h>
#include "compiler.h"
#include "kernel/proc.h"
#include "model/snapshot.h"

/* "eventfd-count: 7": the text before the first ':', and the text behind it without leading blanks. */
struct fdinfo_line {
	const char *key, *value;
};

/* The process that has a descriptor of a file: a task of the tree, or criu itself, which has received it. */
struct file_holder {
	pid_t here;    /* the id by which criu reaches it (model/pids.h) */
	pid_t session; /* its name; 0: criu, which is in no session of the tree */
	const char *name;
	int proc; /* /proc/PID */
	int pidfd;
};

struct seen_file {
	struct file_holder holder; /* the first holder that was found */
	int fd;			   /* its descriptor; -1: mapped, executed, or its directory */
	char place[64];		   /* beneath /proc/PID: "fd/3", "map_files/…", "exe" */
	struct stat stat;
	char *link;	   /* target of /proc/PID/fd/FD: a path, or "pipe:[123]" */
	bool is_at_path;   /* `link` is known to lead to this file */
	bool only_appends; /* if it is at its path: an attribute allows no other writes (chattr +a) */
	uint64_t address;  /* of the kernel's struct file; 0: not known (kernel/file_lister.h) */
	struct proc_fdinfo info;
	struct fdinfo_line *lines; /* of info.rest; NULL: it has no fdinfo */
	size_t line_count;
	/* F_SETOWN, F_SETSIG: whom the kernel notifies about the file (its id here), and for which users */
	struct f_owner_ex owner;
	uint32_t owner_users[2];
	int signal;
	uint64_t number; /* of an eventfd (Linux 5.2); 0: none */
};

struct listed_file;

/* ---- ahead.c: before the freeze ---- */

/* What is prepared, or perhaps known, of a descriptor before its process is frozen. */
struct descriptor_ahead {
	int fd;
	uint64_t address; /* of the kernel's struct file then; 0: not known */
	int fdinfo;	  /* /proc/PID/fdinfo/FD, open: it shows what is true when it is read; -1: not open */
	char *link;	  /* its path then; NULL: none */
	bool is_inherited; /* looked at in another process, perhaps the parent */
	bool may_block;
	bool is_gone; /* found out when the process was frozen */
};

struct table_ahead {
	pid_t pid;
	struct descriptor_ahead *items; /* sorted by number */
	size_t count;
};

/*
 * Prepares to look at the descriptors of those running processes that have many. They may close and open others
 * meanwhile. `pids`: all processes of the tree, for which enough of criu's own descriptors stay free.
 */
void files_look_ahead(struct snapshot *snapshot, const pid_t *pids, size_t count);
/*
 * Lists all descriptors of a process, if criu can do that at once, and has prepared it because there are many.
 * false: it cannot. A list of nothing does not count: the kernel says the same if it has not found the process.
 */
bool files_list(const struct snapshot *snapshot, pid_t pid, struct listed_file **files, size_t *count);
/* All descriptors have been looked at. What was prepared is closed now if criu may need the descriptors. */
void files_looked(struct snapshot *snapshot);
/* NULL: nothing is prepared. */
struct table_ahead *files_ahead(const struct snapshot *snapshot, pid_t pid);
struct descriptor_ahead *table_ahead_find(const struct table_ahead *table, int fd);
/* How many descriptors a process has; 0: not known (before Linux 6.2). */
size_t count_descriptors(int proc);

/* ---- identity.c ---- */

/*
 * Reads everything about descriptor `fd` of the holder into `seen`. seen_file_free() frees it, also after a failure.
 * `ahead`: what is prepared for it, or NULL. `listed`: what the kernel's list says of it, or NULL. `may_be_gone`: without
 * such a descriptor it returns -EBADF, not recorded.
 */
int seen_file_look(struct seen_file *seen, const struct file_holder *holder, int fd,
		   struct descriptor_ahead *ahead, const struct listed_file *listed, bool may_be_gone)
	must_check;
/* The same for a descriptor of a file that is known: reads only its fdinfo, which has what is the descriptor's own. */
int seen_file_look_at_descriptor(struct seen_file *seen, const struct file_holder *holder, int fd,
				 struct descriptor_ahead *ahead, const struct listed_file *listed) must_check;
/*
 * Do two processes have the same open file under this number? False if one has none. `addresses`: of the kernel's
 * struct files; if one of them is not known (0), the kernel is asked.
 */
bool is_same_descriptor(const pid_t pids[2], const uint64_t addresses[2], int fd);
/* Does its fdinfo have more than the list tells? `is_known`: only what is the descriptor's own is wanted. */
bool needs_fdinfo(const struct listed_file *listed, bool is_known);
void seen_file_free(struct seen_file *seen);
/* A path in /proc that leads to the file itself, whatever is at its own path; to be freed. */
char *seen_file_place(const struct seen_file *seen);

/* Returns criu's own descriptor for the open file description. -errno, recorded. The caller closes it. */
int files_borrow(const struct seen_file *seen) must_check;

struct file_holder file_holder_task(const struct task *task);

/*
 * Two descriptors are one open file if the kernel says so. A tree is kept for the whole dump: it is ordered by a cheap
 * key (device and inode; link and number of what has no inode of its own), and kcmp(2) orders entries with equal keys.
 * So a search costs log n calls, and only among files that look alike. Meanwhile the holders must not run, nor close
 * anything. Where the addresses of the kernel's structs are known, they tell it without a call.
 *
 * Finds the file, or adds it with the next id, to be described with the others. `seen` must be allocated; it becomes
 * the file's, or is freed.
 */
int files_identify_seen(struct snapshot *snapshot, struct seen_file *seen, struct file **file) must_check;
/*
 * The same for a descriptor that criu itself has received, and that perhaps no task has in its table. It takes over
 * `fd`: if the file is new, `fd` stays open until files_let_go(); if it is known, or after a failure, `fd` is closed.
 */
int files_identify(struct snapshot *snapshot, int fd, struct file **file) must_check;
/*
 * The file that an epoll watches in this slot; device and inode are those of its fdinfo. NULL: it is not open in any
 * process of the tree.
 */
struct kcmp_epoll_slot;
int files_find_target(const struct snapshot *snapshot, const struct seen_file *epoll,
		      const struct kcmp_epoll_slot *slot, dev_t device, ino_t inode, struct file **file)
	must_check;
/* Is it what this process has under this number? */
bool files_is_target(const struct seen_file *epoll, const struct kcmp_epoll_slot *slot, pid_t holder, int fd);
void files_forget_identities(struct snapshot *snapshot);

/*
 * The file known only by its path that equals `seen` in device, inode, flags and link. NULL: none; then *key is free
 * for it.
 */
struct file *files_find_path(const struct snapshot *snapshot, const struct seen_file *seen, uint64_t *key);
void files_note_path(struct snapshot *snapshot, struct file *file, uint64_t key);

/* ---- collect.c ---- */

/*
 * Turns all descriptors of all tasks into files, one for each open file description, however many tasks share it.
 * Descriptor tables that tasks share are read once. Then the kinds process their files, up to judge(). Refuses files
 * that no kind recognizes.
 */
int files_collect(struct snapshot *snapshot) must_check;
/* The callbacks of all kinds: the processes are going to be killed. */
bool files_need_prepare_end(const struct snapshot *snapshot);
int files_prepare_end(struct snapshot *snapshot) must_check;
void files_abandon_end(struct snapshot *snapshot);
void files_end(struct snapshot *snapshot);
/* Calls let_go() of all kinds that files_collect() has reached; a second call does nothing. */
enum dump_end;
void files_let_go(struct snapshot *snapshot, enum dump_end end);

/*
 * The id of a file that is known only by a path (a mapping, an executable, a directory), from /proc/PID/`link` ("exe",
 * "cwd", "root", "map_files/…"). `flags` are the flags to open it with on restore. Equal files get one id.
 */
int files_add_path(struct snapshot *snapshot, struct task *task, const char *link, int flags, uint32_t *id)
	must_check;
/* The same for a mapping of a device that only a plugin can restore. */
int files_add_device(struct snapshot *snapshot, struct task *task, const char *link, int flags, uint32_t *id)
	must_check;

/*
 * For a file of another kind that has a path: adds a regular file with that path and the flags of `file`, as the format
 * requires. Its id goes into the kind's message. If that message has no owner, the regular file has it.
 */
int files_add_path_of(struct snapshot *snapshot, const struct file *file, uint32_t *id) must_check;

/* Writes files.img, and the images beside it. */
int files_save(struct snapshot *snapshot) must_check;
/* Writes fdinfo-ID.img for each descriptor table. The processes need not be stopped for that. */
int files_save_tables(struct snapshot *snapshot) must_check;

/* ---- fdinfo.c ---- */

/* Splits the text in place; the lines point into it. */
void fdinfo_split(char *text, struct fdinfo_line **lines, size_t *count);
/* The value of the first line with this key; NULL: none. */
const char *fdinfo_find(const struct seen_file *seen, const char *key);
/* Passes all lines to the file's kind, and checks that the required keys are there. */
int fdinfo_offer(struct snapshot *snapshot, struct file *file) must_check;
/* Reads the fdinfo again, and passes it again. */
int fdinfo_read_again(struct snapshot *snapshot, struct file *file) must_check;

#endif
