/*
 * seen.h - what dump sees of a file, before it knows what to make of it.
 */
#ifndef CRIU_FILES_SEEN_H
#define CRIU_FILES_SEEN_H

#include <fcntl.h>
#include <sys/stat.h>
#include "compiler.h"
#include "kernel/proc.h"
#include "model/snapshot.h"

/* "eventfd-count:               7": the text in front of the first ':', and what stands behind it and blanks. */
struct fdinfo_line {
	const char *key, *value;
};

/* Who has a descriptor of a file: a task of the tree, or criu itself, which has received it. */
struct file_holder {
	pid_t pid, session; /* session 0: criu, whose own is none of the tree's */
	const char *name;
	int proc; /* /proc/PID */
	int pidfd;
};

struct seen_file {
	struct file_holder holder; /* the first that was found */
	int fd;			   /* its descriptor; -1: mapped, executed, or its directory */
	char place[64];		   /* beneath /proc/PID: "fd/3", "map_files/…", "exe" */
	struct stat stat;
	char *link; /* where /proc/PID/fd/FD points: a path, or "pipe:[123]" */
	struct proc_fdinfo info;
	struct fdinfo_line *lines; /* of info.rest; NULL: it has no fdinfo */
	size_t line_count;
	/* F_SETOWN, F_SETSIG: whom the kernel tells about the file, and on behalf of which users */
	struct f_owner_ex owner;
	uint32_t owner_users[2];
	int signal;
};

/* ---- identity.c ---- */

/* Looks at descriptor `fd` of the holder: all of `seen` is set. After a failure, too, seen_file_free() frees it. */
int seen_file_look(struct seen_file *seen, const struct file_holder *holder, int fd) must_check;
void seen_file_free(struct seen_file *seen);

/* A descriptor of ours for the holder's open file description, -errno recorded. The caller closes it. */
int files_borrow(const struct seen_file *seen) must_check;

struct file_holder file_holder_task(const struct task *task);

/*
 * Two descriptors are one open file if the kernel says so (DESIGN §5). A tree is kept for the whole dump: a cheap key (device, inode)
 * orders it, and kcmp(2) orders those whose keys are equal. So it costs log n calls, and only among files that look alike. The
 * holders must not run, nor close anything, meanwhile.
 *
 * Finds the file, or adds it with the next id, to be described with the others. `seen` was allocated, and becomes the file's, or is
 * freed.
 */
int files_identify_seen(struct snapshot *snapshot, struct seen_file *seen, struct file **file) must_check;
/*
 * The same for a descriptor that criu itself has received, which no task may have in its table: `fd` is taken over. It stays open
 * until files_let_go() if the file is new; if it is known, or after a failure, it is closed.
 */
int files_identify(struct snapshot *snapshot, int fd, struct file **file) must_check;
void files_forget_identities(struct snapshot *snapshot);

/* One that is known by a path only, equal to `seen` in device, inode, flags and link. NULL: none is, and *key is free for it. */
struct file *files_find_path(const struct snapshot *snapshot, const struct seen_file *seen, uint64_t *key);
void files_note_path(struct snapshot *snapshot, struct file *file, uint64_t key);

/* ---- collect.c ---- */

/*
 * All descriptors of all tasks become files, one for each open file description, whoever shares it. Tables that tasks share are
 * looked at once. Then all kinds of files see theirs, up to judge(). Refuses what no kind knows.
 */
int files_collect(struct snapshot *snapshot) must_check;
/* let_go() of all kinds that files_collect() has reached; a second call does nothing. */
enum dump_end;
void files_let_go(struct snapshot *snapshot, enum dump_end end);

/*
 * The id of a file that is known by a path only (a mapping, an executable, a directory), by what /proc/PID/`link` says
 * ("exe", "cwd", "root", "map_files/…"). `flags` is how it has to be opened on restore. Equal ones get one id.
 */
int files_add_path(struct snapshot *snapshot, struct task *task, const char *link, int flags, uint32_t *id)
	must_check;

/*
 * For a file of another kind that has a path: a regular file that says where it lies, with its flags, as the format wants it. Its
 * id goes into the kind's message. If that has no owner, the regular file has it.
 */
int files_add_path_of(struct snapshot *snapshot, const struct file *file, uint32_t *id) must_check;

/* Writes files.img, and what lies beside it. */
int files_save(struct snapshot *snapshot) must_check;
/* … and fdinfo-ID.img of each table of descriptors, for which nobody has to stand still. */
int files_save_tables(struct snapshot *snapshot) must_check;

/* ---- fdinfo.c ---- */

/* Splits the text, which is changed; the lines point into it. */
void fdinfo_split(char *text, struct fdinfo_line **lines, size_t *count);
/* The value of the first line with this key; NULL: there is none. */
const char *fdinfo_find(const struct seen_file *seen, const char *key);
/* Offers all lines to the file's kind, and looks for those that it needs. */
int fdinfo_offer(struct snapshot *snapshot, struct file *file) must_check;
/* Reads the fdinfo again, and offers it again. */
int fdinfo_read_again(struct snapshot *snapshot, struct file *file) must_check;

#endif
